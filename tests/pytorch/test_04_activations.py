"""Kata 04: every curve and its gradient are PyTorch's, in float64 to the tenth digit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinytorch.activations import (
    dropout,
    gelu,
    leaky_relu,
    leaky_relu_,
    log_softmax,
    relu,
    relu_,
    sigmoid,
    sigmoid_,
    softmax,
    tanh_,
)
from tinytorch.tensor import Tensor, tanh

torch = pytest.importorskip("torch")
functional = torch.nn.functional

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
SEEDS = st.integers(0, 2**16)
SLOPES = st.sampled_from([0.0, 0.01, 0.3, 1.0])
thorough = settings(deadline=None, derandomize=True, max_examples=60)

CURVES = {
    "relu": (relu, functional.relu),
    "sigmoid": (sigmoid, torch.sigmoid),
    "tanh": (tanh, torch.tanh),
    "gelu": (gelu, lambda x: functional.gelu(x, approximate="tanh")),
}
IN_PLACE = {"relu_": (relu_, torch.relu), "sigmoid_": (sigmoid_, torch.sigmoid), "tanh_": (tanh_, torch.tanh)}


def same(got, expected):
    expected = expected.detach().numpy()
    got = np.asarray(got)
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10, strict=True)


def compare(mine, theirs, shape, seed, **params):
    """Values and gradients at random numbers, some of them 0, some far out."""
    rng = np.random.default_rng(seed)
    x = np.asarray(rng.normal(size=shape) * rng.choice([0, 1, 10], size=shape))
    cotangent = np.asarray(rng.normal(size=shape))
    tensor = torch.tensor(x, requires_grad=True)
    expected = theirs(tensor)
    expected.backward(torch.tensor(cotangent))
    out, back = mine.vjp(x.copy(), **params)
    same(out, expected)
    same(back(cotangent), tensor.grad)


@pytest.mark.parametrize("name", [*CURVES, *IN_PLACE])
@thorough
@given(SHAPES, SEEDS)
def test_a_curve_and_its_gradient_are_pytorchs(name, shape, seed):
    compare(*{**CURVES, **IN_PLACE}[name], shape, seed)


@pytest.mark.parametrize("op", [leaky_relu, leaky_relu_], ids=["leaky_relu", "leaky_relu_"])
@thorough
@given(SHAPES, SEEDS, SLOPES)
def test_leaky_relu_is_pytorchs(op, shape, seed, slope):
    compare(op, lambda x: functional.leaky_relu(x, slope), shape, seed, negative_slope=slope)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@thorough
@given(SHAPES, SEEDS, st.integers(-4, 3))
def test_a_row_and_its_gradient_are_pytorchs(name, shape, seed, axis):
    axis = max(-max(len(shape), 1), min(axis, max(len(shape), 1) - 1))
    mine, theirs = {"softmax": (softmax, torch.softmax), "log_softmax": (log_softmax, torch.log_softmax)}[
        name
    ]
    compare(mine, lambda x: theirs(x, axis), shape, seed, axis=axis)


@thorough
@given(SHAPES, SEEDS, st.sampled_from([0.0, 0.3, 0.9, 1.0]))
def test_dropout_is_pytorchs_once_the_draw_is_made(shape, seed, p):
    """The generators differ, so PyTorch gets the mask that ours drew: native_dropout_backward is its rule."""
    rng = np.random.default_rng(seed)
    x, cotangent = np.asarray(rng.normal(size=shape)), np.asarray(rng.normal(size=shape))
    out, mask, _ = dropout.forward(x, p=p, rng=np.random.default_rng(seed))
    _, back = dropout.vjp(x, p=p, rng=np.random.default_rng(seed))
    scale = 1 / (1 - p) if p < 1 else 0.0
    rule = torch.ops.aten.native_dropout_backward
    same(out, rule(torch.tensor(x), torch.tensor(mask), scale))
    same(back(cotangent), rule(torch.tensor(cotangent), torch.tensor(mask), scale))


LARGE = float(np.finfo(np.float32).max)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh"])
def test_far_out_a_curve_is_pytorchs(name):
    mine, theirs = CURVES[name]
    x = np.array([-np.inf, -LARGE, -1e3, 1e3, LARGE, np.inf], np.float32)
    same(mine(Tensor(x)).data, theirs(torch.tensor(x)))


def test_far_out_we_know_better_than_pytorch():
    """Where PyTorch has nan: gelu of -inf, and softmax of infinities."""
    ends = np.array([-np.inf, np.inf], np.float32)
    assert np.isnan(functional.gelu(torch.tensor(ends), approximate="tanh").numpy()[0])
    np.testing.assert_array_equal(gelu(Tensor(ends)).data, [0, np.inf])
    for row, shares in (([-np.inf, -np.inf], [0.5, 0.5]), ([np.inf, 0], [1, 0])):
        assert np.isnan(torch.softmax(torch.tensor(row), -1).numpy()).any()
        np.testing.assert_array_equal(softmax(Tensor(row)).data, shares)
