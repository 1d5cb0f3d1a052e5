"""Level 1: dropout, and the modules that make layers of all these operations."""

import math
import warnings

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.activations import (
    GELU,
    Dropout,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
    dropout,
    gelu,
    leaky_relu,
    log_softmax,
    relu,
    sigmoid,
    softmax,
)
from tinytorch.layers import Module
from tinytorch.tensor import Tensor, tanh

INF = math.inf
MANY = 20_000


def f32(values):
    return np.array(values, np.float32)


def generator(seed=0):
    return np.random.default_rng(seed)


# 04.14 dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_a_share_of_p_and_enlarges_the_rest(p):
    """Within 5 standard deviations of p: of right solutions, one in 1.7 million is further off."""
    x = generator(1).normal(size=(200, MANY // 200)) + 10
    out = dropout(Tensor(x), p=p, rng=generator()).data
    dropped = out == 0
    expect(out[~dropped], x[~dropped] / (1 - p))
    expect(float(dropped.mean()), p, atol=5 * math.sqrt(p * (1 - p) / MANY))


def test_dropout_drops_each_element_by_itself():
    """Of rows and columns of 100, none is all dropped or all kept, and neighbours agree as often as not."""
    dropped = dropout(Tensor(np.ones((100, 100))), rng=generator()).data == 0
    for axis in (0, 1):
        shares = dropped.mean(axis=axis)
        assert shares.min() > 0.2
        assert shares.max() < 0.8
        expect(float(np.mean(np.diff(dropped, axis=axis))), 0.5, atol=0.05)


@pytest.mark.parametrize("p", [0.0, 0.25, 1.0])
def test_dropout_tells_what_it_let_through_and_how_much_larger(p):
    x = np.arange(1.0, 13).reshape(3, 4)
    out, saved = dropout.run([x], {"p": p, "rng": generator()})
    if {"mask", "scale"} <= {
        *dropout.saves
    }:  # as in the stub; whoever saves something else names it otherwise
        mask, scale = saved["mask"], saved["scale"]
        expect((mask.dtype, mask.shape, scale), (np.dtype(bool), (3, 4), 1 / (1 - p) if p < 1 else 0.0))
        expect(mask, out != 0)  # True where it was kept
    expect(out[out != 0], x[out != 0] / (1 - p) if p < 1 else np.zeros(0))


def test_dropout_leaves_the_mean_as_it_was():
    """Each has the variance 3 / 7, the mean of 20,000 a standard deviation of 0.0046; five are 0.023."""
    out = dropout(Tensor(np.ones(MANY)), p=0.3, rng=generator()).data
    expect(float(out.mean()), 1.0, atol=0.023)


def test_dropout_of_nothing_or_of_everything():
    x = f32([[-INF, -1, 0], [1, 3e38, INF]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expect(dropout(Tensor(x), p=0.0, rng=generator()), x)
        expect(dropout(Tensor(x), p=1.0, rng=generator()), np.zeros_like(x))


@pytest.mark.parametrize("p", [0.3, 0.5, 0.999])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout_drops_infinities_too(p, dtype):
    """What is dropped is 0, also if it was infinite; what is kept and gets too large is infinite."""
    x = np.repeat(np.array([-INF, -np.finfo(dtype).max, np.finfo(dtype).max, INF], dtype), 500)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = dropout(Tensor(x), p=p, rng=generator()).data
    assert out.dtype == dtype
    assert np.all((out == 0) | (out == np.sign(x) * INF))
    assert 0 < np.count_nonzero(out[x == INF] == 0) < np.count_nonzero(x == INF) or p > 0.99


def test_dropout_draws_from_the_generator_it_is_given():
    x = Tensor(np.ones((30, 30)))
    rng = generator(5)
    first, second = dropout(x, rng=rng), dropout(x, rng=rng)
    expect(dropout(x, rng=generator(5)), first.data)
    assert not np.array_equal(first.data, second.data)
    assert not np.array_equal(first.data, dropout(x, rng=generator(6)).data)


def test_dropout_keeps_the_shape_and_the_dtype():
    for dtype in (np.float32, np.float64):
        for shape in [(), (1,), (0,), (3, 0), (2, 3, 4)]:
            for p in (0.0, 0.5, 1.0):
                out = dropout(Tensor(np.ones(shape, dtype)), p=p, rng=generator())
                expect((out.shape, out.dtype), (shape, np.dtype(dtype)))
    expect(dropout(Tensor([1, 2, 3]), p=0.0, rng=generator()), f32([1, 2, 3]))
    for p in np.linspace(0, 1, 3):  # float64, which is a float of Python too
        expect(dropout(Tensor([1.0, 2.0]), p=p, rng=generator()).dtype, np.dtype(np.float32))


def test_dropout_leaves_its_input_alone():
    x = np.ones((20, 20))
    out = dropout(Tensor(x), rng=generator())
    expect((x, np.shares_memory(x, out.data)), (np.ones((20, 20)), False))
    columns = np.arange(1.0, 13).reshape(3, 4).T[::-1]
    out = dropout(Tensor(columns), rng=generator()).data
    expect(out[out != 0], 2 * columns[out != 0])


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_dropout_refuses_what_is_no_probability(p):
    with expect_error(ValueError, str(p)):
        dropout(Tensor([1.0]), p=p, rng=generator())


# 04.17 ReLU, LeakyReLU, Dropout, and those that are given


X = f32([[-2, -1, 0], [0.5, 1, 3]])
LAYERS = {
    "ReLU": (lambda: ReLU(), lambda x: relu(x)),
    "LeakyReLU": (lambda: LeakyReLU(), lambda x: leaky_relu(x)),
    "LeakyReLU(0.3)": (lambda: LeakyReLU(0.3), lambda x: leaky_relu(x, negative_slope=0.3)),
    "Sigmoid": (lambda: Sigmoid(), lambda x: sigmoid(x)),
    "GELU": (lambda: GELU(), lambda x: gelu(x)),
    "Softmax": (lambda: Softmax(), lambda x: softmax(x, axis=-1)),
    "Softmax(axis=0)": (lambda: Softmax(axis=0), lambda x: softmax(x, axis=0)),
    "LogSoftmax": (lambda: LogSoftmax(), lambda x: log_softmax(x, axis=-1)),
    "LogSoftmax(axis=0)": (lambda: LogSoftmax(axis=0), lambda x: log_softmax(x, axis=0)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_its_operation(name):
    layer, operation = LAYERS[name][0](), LAYERS[name][1]
    x = Tensor(X.copy())
    expect(layer(x), operation(Tensor(X.copy())).data)
    expect(x, X)
    expect((isinstance(layer, Module), list(layer.parameters())), (True, []))


def test_tanh_is_a_layer_and_has_a_slope():
    """By hand: tanh(ln 3) is (3 - 1/3) / (3 + 1/3) = 0.8, and the slope there 1 - 0.64."""
    x = f32([0, math.log(3)])
    expect(Tanh()(Tensor(x)), f32([0, 0.8]))
    _, back = tanh.vjp(x)
    expect(back(f32([1, 10])), f32([1, 3.6]))


@pytest.mark.parametrize(
    ("layer", "heights"),
    [
        (ReLU(inplace=True), [[0, 0, 0], [0.5, 1, 3]]),
        (LeakyReLU(inplace=True), [[-0.02, -0.01, 0], [0.5, 1, 3]]),
        (LeakyReLU(0.5, inplace=True), [[-1, -0.5, 0], [0.5, 1, 3]]),
    ],
)
def test_a_layer_in_place_writes_over_its_input(layer, heights):
    array = X.copy()
    x = Tensor(array)
    assert layer(x) is x
    expect(array, f32(heights))


def test_dropout_is_on_while_the_module_is_trained():
    layer = Dropout(0.3, rng=generator(5))
    x = Tensor(np.ones((30, 30), np.float32))
    first, second = layer(x), layer(x)
    rng = generator(5)
    expect(first, dropout(x, p=0.3, rng=rng).data)
    expect(second, dropout(x, p=0.3, rng=rng).data)


def test_dropout_is_off_while_the_module_is_used():
    rng = generator()
    layer = Dropout(0.9, rng=rng).eval()
    x, before = Tensor(X), rng.bit_generator.state
    assert layer(x) is x
    assert rng.bit_generator.state == before  # nothing is drawn for nothing
    layer.train()
    assert np.count_nonzero(layer(Tensor(np.ones(1000))).data) < 200


def test_dropout_drops_half_unless_told():
    out = Dropout(rng=generator())(Tensor(np.ones(1000))).data
    expect(np.unique(out), np.array([0.0, 2.0]))


@pytest.mark.parametrize(
    ("layer", "shown"),
    [
        (ReLU(), "ReLU()"),
        (ReLU(inplace=True), "ReLU(inplace=True)"),
        (LeakyReLU(0.2), "LeakyReLU(negative_slope=0.2)"),
        (LeakyReLU(inplace=True), "LeakyReLU(negative_slope=0.01, inplace=True)"),
        (Softmax(0), "Softmax(axis=0)"),
        (Softmax(), "Softmax(axis=-1)"),
        (LogSoftmax(), "LogSoftmax(axis=-1)"),
        (Dropout(0.1, rng=np.random.default_rng(0)), "Dropout(p=0.1)"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_layer_shows_its_options(layer, shown):
    expect(repr(layer), shown)
    layer.train()(Tensor([1.0, 2.0]))  # and works with them
