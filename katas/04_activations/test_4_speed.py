"""Level 4: arrays at a time, not elements or rows.

Ratios within this run, in CPU time, never seconds. Each budget has a twin: a naive version, written out here,
that must not fit.
"""

import functools
import itertools

import numpy as np
import pytest

from dojo.measuring import Budget, race
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

CURVES = Budget(
    "a curve over 65,536 numbers",
    limit=45,  # np.where, which waits for each number's sign, takes up to 25 times as long as np.maximum
    reference=1.1,
    naive=90,
    unit="times the time of the formula in numpy",
    naively="a loop over the elements",
)
BACK = Budget(
    "the way back of 65,536 numbers",
    limit=45,  # np.where, as above
    reference=1.1,
    naive=120,
    unit="times the time of the formula in numpy",
    naively="a loop over the elements",
)
ROWS = Budget(
    "softmax of 4,096 short rows",
    limit=8,
    reference=1.1,
    naive=60,
    unit="times the time of the formula in numpy",
    naively="a loop over the rows",
)


def table(rng, shape=(8192, 8)):  # a loop over its rows is slow, too
    return (rng.standard_normal(shape, np.float32),)


def pool(draw, size=4):
    """A function that hands out a few inputs in turn, since drawing them takes longer than using them."""
    return functools.partial(next, itertools.cycle([draw() for _ in range(size)]))


def shares(x):
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def by_tanh(x):
    return x * (0.5 + 0.5 * np.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


FORWARD = {
    "relu": (lambda x: relu(x), lambda x: np.maximum(x, 0)),
    "leaky_relu": (lambda x: leaky_relu(x), lambda x: np.maximum(x, 0.01 * x)),
    "sigmoid": (lambda x: sigmoid(x), lambda x: 1 / (1 + np.exp(-x))),
    "gelu": (lambda x: gelu(x), by_tanh),
    "softmax": (lambda x: softmax(x), shares),
    "log_softmax": (lambda x: log_softmax(x), lambda x: np.log(shares(x))),
    "relu_": (lambda x: relu_(Tensor(x)), lambda x: np.maximum(x, 0)),
    "leaky_relu_": (lambda x: leaky_relu_(Tensor(x)), lambda x: np.maximum(x, 0.01 * x)),
    "sigmoid_": (lambda x: sigmoid_(Tensor(x)), lambda x: 1 / (1 + np.exp(-x))),
    "tanh_": (lambda x: tanh_(Tensor(x)), np.tanh),
}


@pytest.mark.parametrize("name", FORWARD)
def test_a_curve_is_drawn_all_at_once(name, rng):
    mine, formula = FORWARD[name]
    CURVES.check(race(mine, formula, limit=CURVES.limit, inputs=pool(lambda: table(rng))))


def test_dropout_draws_all_at_once(rng):
    def formula(x):
        return x * (rng.random(x.shape, np.float32) >= 0.5)

    mine = race(lambda x: dropout(x, rng=rng), formula, limit=CURVES.limit, inputs=pool(lambda: table(rng)))
    CURVES.check(mine)


def test_the_twin_that_loops_over_elements_is_caught(rng):
    def loop(x):
        return np.array([v if v > 0 else 0.0 for v in x.ravel().tolist()], np.float32).reshape(x.shape)

    small = pool(lambda: table(rng, (64, 64)))
    CURVES.catches(race(loop, lambda x: np.maximum(x, 0), limit=CURVES.limit, inputs=small))


def slope_by_tanh(x):
    t = np.tanh(0.7978845608 * (x + 0.044715 * x * x * x))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.7978845608 * (1 + 0.134145 * x * x)


BACKWARD = {
    "relu": (relu, lambda grad, x, out: grad * (x > 0)),
    "leaky_relu": (leaky_relu, lambda grad, x, out: np.maximum(grad * (x > 0), grad * 0.01)),
    "sigmoid": (sigmoid, lambda grad, x, out: grad * out * (1 - out)),
    "tanh": (tanh, lambda grad, x, out: grad * (1 - out * out)),
    "gelu": (gelu, lambda grad, x, out: grad * slope_by_tanh(x)),
    "softmax": (softmax, lambda grad, x, out: out * (grad - (grad * out).sum(axis=-1, keepdims=True))),
    "log_softmax": (
        log_softmax,
        lambda grad, x, out: grad - np.exp(out) * grad.sum(axis=-1, keepdims=True),
    ),
}


@pytest.mark.parametrize("name", BACKWARD)
def test_the_way_back_is_taken_all_at_once(name, rng):
    op, formula = BACKWARD[name]

    def inputs():
        x, grad = *table(rng), *table(rng)
        out, back = op.vjp(x)
        return back, grad, x, out

    BACK.check(
        race(
            lambda back, grad, x, out: back(grad),
            lambda back, grad, x, out: formula(grad, x, out),
            limit=BACK.limit,
            inputs=pool(inputs),
        )
    )


def test_dropout_goes_back_all_at_once(rng):
    def inputs():
        x, grad = *table(rng), *table(rng)
        return dropout.vjp(x, rng=rng)[1], grad, x > 0

    mine = race(
        lambda back, grad, mask: back(grad),
        lambda back, grad, mask: 2 * grad * mask,
        limit=BACK.limit,
        inputs=pool(inputs),
    )
    BACK.check(mine)


def test_the_twin_that_goes_back_element_by_element_is_caught(rng):
    def loop(grad, x):
        pairs = zip(grad.ravel().tolist(), x.ravel().tolist(), strict=True)
        return np.array([g if v > 0 else 0.0 for g, v in pairs], np.float32).reshape(x.shape)

    slow = race(
        loop,
        lambda grad, x: grad * (x > 0),
        limit=BACK.limit,
        inputs=pool(lambda: (*table(rng, (64, 64)), *table(rng, (64, 64)))),
    )
    BACK.catches(slow)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_short_rows_are_worked_on_all_at_once(name, rng):
    mine, formula = FORWARD[name]
    ROWS.check(race(mine, formula, limit=ROWS.limit, inputs=pool(lambda: table(rng, (4096, 10)))))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_short_rows_go_back_all_at_once(name, rng):
    op, formula = BACKWARD[name]

    def inputs():
        x, grad = *table(rng, (4096, 10)), *table(rng, (4096, 10))
        out, back = op.vjp(x)
        return back, grad, x, out

    ROWS.check(
        race(
            lambda back, grad, x, out: back(grad),
            lambda back, grad, x, out: formula(grad, x, out),
            limit=ROWS.limit,
            inputs=pool(inputs),
        )
    )


def test_the_twin_that_goes_row_by_row_is_caught(rng):
    def row_by_row(x):
        return np.array([shares(row) for row in x])

    ROWS.catches(race(row_by_row, shares, limit=ROWS.limit, inputs=pool(lambda: table(rng, (1024, 10)))))
