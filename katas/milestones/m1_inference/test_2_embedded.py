"""On sets that are made by code, as many answers are right as were when the networks were trained."""

from pathlib import Path

import numpy as np
import pytest

from dojo.compose import load_file
from dojo.expect import expect

M1 = load_file(Path(__file__).with_name("inference.py"))


@pytest.mark.parametrize(
    ("name", "data"),
    [("xor", "xor"), ("spirals", "spirals"), ("digits", "tinydigits"), ("shapes", "tinyshapes")],
)
def test_as_many_answers_are_right_as_recorded(name, data):
    """The count must be met exactly, and the mean confidence of the answers to a thousandth."""
    model = M1.models()[name]
    inputs, labels = M1.examples(data)
    correct, confidence = M1.expected(model, data, inputs, labels)
    found = np.concatenate(list(M1.probabilities(M1.network(model), model, inputs)))
    right = found.argmax(axis=1) == labels
    expect(int(right.sum()), correct)
    expect(float(found.max(axis=1).mean()), confidence, rtol=1e-3)
