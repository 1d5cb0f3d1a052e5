"""Level 2: the rule of `affine` against central differences, over shapes that hypothesis draws."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dojo.expect import expect
from dojo.measuring import check_formula, check_gradient
from tinytorch.layers import Linear, affine, descend
from tinytorch.tensor import Tensor, set_recorder

# On a busy machine drawing examples can take a second, which is no fault of theirs.
steady = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
some = settings(steady, max_examples=25)

SIDES = st.integers(1, 4)
LEADING = st.lists(SIDES, max_size=3)
SEEDS = st.integers(0, 2**16)


def operands(leading, inputs, outputs, seed):
    rng = np.random.default_rng(seed)
    shapes = (*leading, inputs), (outputs, inputs), (outputs,), (*leading, outputs)
    return [np.asarray(rng.normal(size=shape)) for shape in shapes]


@some
@given(LEADING, SIDES, SIDES, SEEDS)
def test_each_gradient_is_the_slope(leading, inputs, outputs, seed):
    x, weight, bias, _ = operands(leading, inputs, outputs, seed)
    check_gradient(affine, x, weight, bias)


@some
@given(LEADING, SIDES, SIDES, SEEDS)
def test_each_gradient_is_the_slope_without_a_bias(leading, inputs, outputs, seed):
    x, weight, _, _ = operands(leading, inputs, outputs, seed)
    check_gradient(affine, x, weight)
    check_gradient(affine, x, weight, None)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_are_right_in_their_dtype(dtype, rng):
    x, weight, bias = (rng.normal(size=shape).astype(dtype) for shape in ((3, 2, 5), (4, 5), (4,)))
    check_formula(affine, lambda x, weight, bias: x @ weight.T + bias, x, weight, bias)


@some
@given(st.lists(st.integers(0, 3), max_size=3), st.integers(0, 3), st.integers(0, 3), SEEDS)
def test_the_map_and_its_gradients_are_sums_over_rows(leading, inputs, outputs, seed):
    """Against three loops, each element's share by itself; of nothing too."""
    x, weight, bias, grad = operands(leading, inputs, outputs, seed)
    out, back = affine.vjp(x, weight, bias)
    expected = np.zeros((*leading, outputs)) + bias
    grad_x, grad_weight, grad_bias = np.zeros_like(x), np.zeros_like(weight), np.zeros_like(bias)
    for row in np.ndindex(*leading):
        for o in range(outputs):
            grad_bias[o] += grad[row][o]
            for i in range(inputs):
                expected[row][o] += x[row][i] * weight[o, i]
                grad_x[row][i] += grad[row][o] * weight[o, i]
                grad_weight[o, i] += grad[row][o] * x[row][i]
    expect(out, expected)
    expect(tuple(back(grad)), (grad_x, grad_weight, grad_bias))


def pulled(x, weight, bias, grad, wanted):
    """The rule's answer when only some gradients are wanted, as an engine would ask for it (kata 06)."""
    kept, tensors = [], [Tensor(a, need) for a, need in zip((x, weight, bias), wanted, strict=True)]
    note = lambda op, inputs, arrays, params, out: kept.append(op.keep(out.data, arrays, params))  # noqa: E731
    before = set_recorder(note)
    try:
        affine(*tensors)
    finally:
        set_recorder(before)
    return affine.pull(grad, *kept[0])


@pytest.mark.parametrize("wanted", list(itertools.product((True, False), repeat=3))[:-1])
def test_what_is_wanted_is_there_whatever_else_is(wanted, rng):
    x, weight, bias, grad = operands((3,), 2, 4, 0)
    every = grad @ weight, grad.T @ x, grad.sum(axis=0)
    for got, right, need in zip(pulled(x, weight, bias, grad, wanted), every, wanted, strict=True):
        if need:
            expect(got, right)


def test_a_rule_can_be_used_more_than_once(rng):
    x, weight, bias, grad = operands((3,), 2, 4, 0)
    _, back = affine.vjp(x, weight, bias)
    first = [a.copy() for a in back(grad)]
    back(2 * grad)
    expect([np.asarray(a) for a in back(grad)], first)


@some
@given(SIDES, SIDES, SIDES, st.booleans(), SEEDS)
def test_a_small_step_lowers_the_error_by_the_squared_slope(rows, inputs, outputs, bias, seed):
    """error(p - lr * slope) is error(p) - lr * |slope|**2, as nearly as lr is small."""
    rng = np.random.default_rng(seed)
    layer = Linear(inputs, outputs, bias, rng=rng)
    for p in layer.parameters():
        p.data = p.data.astype(np.float64)
    x, y = rng.normal(size=(rows, inputs)), rng.normal(size=(rows, outputs))
    old = [p.data.copy() for p in layer.parameters()]
    lr = 1e-7
    first = descend(layer, x, y, lr)
    moves = [(b - p.data) / lr for b, p in zip(old, layer.parameters(), strict=True)]
    second = descend(layer, x, y, 0.0)
    squared = sum(float((move * move).sum()) for move in moves)
    expect((first - second) / lr, squared, rtol=1e-4, atol=1e-5)
    off = x @ old[0].T + (old[1] if bias else 0) - y
    expect(first, float((off * off).sum() / off.size))
