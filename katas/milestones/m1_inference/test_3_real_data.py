"""The same on all 10,000 test images of MNIST and of CIFAR-10, where they have been downloaded."""

from pathlib import Path

import numpy as np
import pytest

from dojo.compose import load_file
from dojo.expect import expect

M1 = load_file(Path(__file__).with_name("inference.py"))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param("digits", "mnist", marks=pytest.mark.real_data("mnist")),
        pytest.param("cifar10", "cifar10", marks=pytest.mark.real_data("cifar10")),
    ],
)
def test_as_many_answers_are_right_as_recorded(name, data):
    """The count must be met exactly, and the mean confidence of the answers to a thousandth."""
    model = M1.models()[name]
    inputs, labels = M1.examples(data)
    correct, confidence = M1.expected(model, data, inputs, labels)
    found = np.concatenate(list(M1.probabilities(M1.network(model), model, inputs)))
    right = found.argmax(axis=1) == labels
    assert len(right) == 10_000
    expect(int(right.sum()), correct)
    expect(float(found.max(axis=1).mean()), confidence, rtol=1e-3)
