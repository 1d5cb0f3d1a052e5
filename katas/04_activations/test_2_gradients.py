"""Level 2: every slope, against central differences and against formulas differentiated to the last digit.

The gradient that comes in is random, and so is the shape. `dojo.measuring.check_gradient` also asks whether a
rule changes what it is given, keeps float64, and reads arrays that do not lie row by row.
"""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dojo.expect import expect
from dojo.measuring import check_formula, check_gradient
from tinytorch.activations import (
    dropout,
    dropout_back,
    gelu,
    gelu_back,
    leaky_relu,
    leaky_relu_,
    leaky_relu_back,
    log_softmax,
    log_softmax_back,
    relu,
    relu_,
    relu_back,
    sigmoid,
    sigmoid_,
    sigmoid_back,
    softmax,
    softmax_back,
    tanh_,
    tanh_back,
)
from tinytorch.layers import affine
from tinytorch.tensor import Tensor, set_recorder, tanh

INF = math.inf

some = settings(derandomize=True, max_examples=12)

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
ROWS = hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4)
SEEDS = st.integers(0, 2**16)


def numbers(shape, seed, scale=2.0):
    """Normal, and none nearer to the kink at 0 than 0.1."""
    x = np.random.default_rng(seed).normal(scale=scale, size=shape)
    return np.asarray(x + np.where(x < 0, -0.1, 0.1))


def check(op, rule, *arrays, **params):
    """That `rule` is the gradient of `op`."""
    assert op.pull is rule, f"{rule.__name__} is not attached to {op.name}: put @{op.name}.gradient above it"
    check_gradient(op, *arrays, **params)


# 04.2 and 04.4: relu_back, leaky_relu_back


@some
@given(SHAPES, SEEDS)
def test_relu_passes_on_what_belongs_to_positive_numbers(shape, seed):
    check(relu, relu_back, numbers(shape, seed))


@some
@given(SHAPES, SEEDS, st.sampled_from([0.01, 0.0, 0.3, 1.0]))
def test_leaky_relu_passes_on_a_part_of_the_rest(shape, seed, slope):
    check(leaky_relu, leaky_relu_back, numbers(shape, seed), negative_slope=slope)


def test_at_0_the_slope_is_the_one_of_the_left_side():
    """0 for relu, negative_slope for leaky_relu, as in PyTorch."""
    x, grad = np.array([0.0, -1.0, 1.0]), np.array([3.0, 5.0, 7.0])
    expect(relu.vjp(x)[1](grad), np.array([0.0, 0.0, 7.0]))
    expect(leaky_relu.vjp(x, negative_slope=0.5)[1](grad), np.array([1.5, 2.5, 7.0]))
    expect((relu.pull, leaky_relu.pull), (relu_back, leaky_relu_back))


# 04.6 sigmoid_back, tanh_back


@some
@given(SHAPES, SEEDS)
def test_sigmoid_is_steep_in_the_middle(shape, seed):
    check(sigmoid, sigmoid_back, numbers(shape, seed))
    check_formula(sigmoid, lambda x: 1 / (1 + np.exp(-x)), numbers(shape, seed).astype(np.float32))


@some
@given(SHAPES, SEEDS)
def test_tanh_is_steep_in_the_middle(shape, seed):
    check(tanh, tanh_back, numbers(shape, seed, scale=1.0))
    check_formula(tanh, np.tanh, numbers(shape, seed).astype(np.float32))


# 04.8 gelu_back


def gelu_formula(x):
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))) / 2


@some
@given(SHAPES, SEEDS)
def test_gelu_comes_down_before_it_goes_up(shape, seed):
    check(gelu, gelu_back, numbers(shape, seed))
    check_formula(gelu, gelu_formula, numbers(shape, seed).astype(np.float32))
    check_formula(gelu, gelu_formula, numbers(shape, seed))


# 04.11 and 04.13: softmax_back, log_softmax_back


@some
@given(ROWS, SEEDS, st.integers(-3, 2))
def test_softmax_gives_to_one_what_it_takes_from_the_others(shape, seed, axis):
    axis = max(-len(shape), min(axis, len(shape) - 1)) if shape else -1
    check(softmax, softmax_back, numbers(shape, seed), axis=axis)


@some
@given(ROWS, SEEDS, st.integers(-3, 2))
def test_log_softmax_does_so_in_logarithms(shape, seed, axis):
    axis = max(-len(shape), min(axis, len(shape) - 1)) if shape else -1
    check(log_softmax, log_softmax_back, numbers(shape, seed), axis=axis)


def test_rows_are_differentiated_in_float32_too(rng):
    x = rng.normal(size=(3, 5)).astype(np.float32)

    def shares(x, axis=-1):
        return np.exp(x) / np.exp(x).sum(axis, keepdims=True)

    check_formula(softmax, shares, x)
    check_formula(softmax, shares, x, axis=0)
    check_formula(log_softmax, lambda x, axis=-1: np.log(shares(x, axis)), x)
    check_formula(log_softmax, lambda x, axis=-1: np.log(shares(x, axis)), x, axis=0)
    expect((softmax.pull, log_softmax.pull), (softmax_back, log_softmax_back))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
@pytest.mark.parametrize("axis", [0, -1])
def test_of_nothing_there_is_a_gradient_of_nothing(shape, axis):
    for op, rule in ((softmax, softmax_back), (log_softmax, log_softmax_back)):
        out, back = op.vjp(np.zeros(shape, np.float32), axis=axis)
        expect((op.pull is rule, back(out)), (True, np.zeros(shape, np.float32)))


# 04.15 dropout_back


@some
@given(SHAPES, SEEDS, st.sampled_from([0.5, 0.2, 0.9, 0.0, 1.0]))
def test_dropout_drops_the_same_elements_on_the_way_back(shape, seed, p):
    check(dropout, dropout_back, numbers(shape, seed), p=p, rng=np.random.default_rng(seed))


def test_dropout_drops_gradients_of_zeros_too():
    """What was 0 before cannot be told from what was dropped, and still it has a gradient."""
    out, back = dropout.vjp(np.zeros(1000), rng=np.random.default_rng(0))
    grad = back(np.ones(1000))
    expect(np.unique(grad), np.array([0.0, 2.0]))
    expect((out, dropout.pull is dropout_back), (np.zeros(1000), True))


# Every rule, in float32 and at the ends.


RULES = {
    "relu": (relu, {}),
    "leaky_relu": (leaky_relu, {"negative_slope": 0.3}),
    "sigmoid": (sigmoid, {}),
    "gelu": (gelu, {}),
    "tanh": (tanh, {}),
    "softmax": (softmax, {}),
    "log_softmax": (log_softmax, {}),
    "dropout": (dropout, {"p": 0.3, "rng": np.random.default_rng(0)}),
}


@pytest.mark.parametrize("name", RULES)
def test_a_gradient_has_the_dtype_of_what_it_is_of(name):
    op, params = RULES[name]
    for dtype in (np.float16, np.float32, np.float64):
        for shape in [(2, 3), (1,), (0,)]:
            out, back = op.vjp(np.ones(shape, dtype), **params)
            expect((back(out).dtype, back(out).shape), (np.dtype(dtype), shape))


@pytest.mark.parametrize(("op", "name"), [(leaky_relu, "negative_slope"), (dropout, "p")], ids=["slope", "p"])
def test_a_number_that_numpy_has_computed_widens_no_gradient(op, name):
    """numpy's float64 is a float of Python too."""
    more = {"rng": np.random.default_rng(0)} if op is dropout else {}
    for number in np.linspace(0, 1, 3):
        out, back = op.vjp(np.ones((2, 3), np.float32), **{name: number}, **more)
        expect((out.dtype, back(out).dtype), (np.dtype(np.float32),) * 2)


@pytest.mark.parametrize("name", RULES)
@settings(derandomize=True, max_examples=30)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(max_dims=2, min_side=0, max_side=4),
        elements=st.one_of(st.floats(width=32, allow_nan=False), st.floats(-30, 30, width=32)),
    ),
    st.booleans(),
)
def test_no_number_has_nan_or_a_warning_for_its_gradient(name, x, wide):
    """For any finite or infinite float32, and the same times 1e270 in float64."""
    op, params = RULES[name]
    x = x.astype(np.float64) * 1e270 if wide else x
    with (
        np.errstate(divide="warn", over="warn", invalid="warn", under="ignore"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        _, back = op.vjp(x, **params)
        grad = back(np.asarray(numbers(x.shape, 1), x.dtype))
    expect((grad.shape, int(np.isnan(grad).sum())), (x.shape, 0))


@pytest.mark.parametrize("name", RULES)
def test_no_half_number_has_nan_or_a_warning_for_its_gradient(name):
    """All 63,490 of float16 that are not nan, in rows of two."""
    half = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    half = half[~np.isnan(half)]
    op, params = RULES[name]
    with (
        np.errstate(divide="warn", over="warn", invalid="warn", under="ignore"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        _, back = op.vjp(np.stack([half, half[::-1]], axis=1), **params)
        grad = back(np.ones((half.size, 2), np.float16))
    expect((grad.dtype, int(np.isnan(grad).sum())), (np.dtype(np.float16), 0))


def test_far_out_gelu_is_flat_or_straight():
    x = np.array([-INF, -1e30, -40, 40, 1e30, INF])
    before = x.copy()
    expect(gelu.vjp(x)[1](np.full(6, 3.0)), np.array([0.0, 0, 0, 3, 3, 3]))
    expect(x, before)  # which others may still need
    expect(gelu.pull, gelu_back)


# 04.16 relu_, leaky_relu_, sigmoid_, tanh_: nothing is left of the input, and still there is a gradient.


TWINS = {
    "relu_": (relu_, relu, {}),
    "leaky_relu_": (leaky_relu_, leaky_relu, {"negative_slope": 0.3}),
    "sigmoid_": (sigmoid_, sigmoid, {}),
    "tanh_": (tanh_, tanh, {}),
}


@pytest.mark.parametrize("name", TWINS)
@some
@given(SHAPES, SEEDS)
def test_in_place_the_gradient_is_the_same(name, shape, seed):
    op, twin, params = TWINS[name]
    x, grad = numbers(shape, seed), numbers(shape, seed + 1)
    expected_out, expected = twin.vjp(x.copy(), **params)
    out, back = op.vjp(x, **params)
    expect(np.shares_memory(out, x) or not x.size, True)
    expect((out, np.asarray(back(grad))), (expected_out, np.asarray(expected(grad))))


def test_in_place_between_two_layers_the_way_back_is_still_there(rng):
    """x -> affine -> relu_ -> affine, walked back by hand; numpy's own chain rule, written out, agrees."""
    x, w, v = rng.normal(size=(4, 3)), rng.normal(size=(5, 3)), rng.normal(size=(2, 5))
    grad = rng.normal(size=(4, 2))
    steps = []

    def record(op, inputs, arrays, params, out):
        steps.append((op, op.keep(out.data, arrays, params)))

    before = set_recorder(record)
    try:
        first = affine(Tensor(x, requires_grad=True), w)
        first.node = "not a leaf"  # as a graph would have it
        hidden = relu_(first)
        hidden.node = "not a leaf"
        affine(hidden, v)
    finally:
        set_recorder(before)
    flow = grad
    for op, kept in reversed(steps):
        shares = op.pull(flow, *kept)
        flow = shares[0] if isinstance(shares, tuple) else shares
    expect(flow, ((grad @ v) * (x @ w.T > 0)) @ w)
