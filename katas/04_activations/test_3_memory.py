"""Level 3: what stays in memory until the way back, and what is needed on the way.

Counted by tracemalloc in bytes, so the figures are the same on every machine. Each budget has a twin: a naive
version, written out here, that must not fit. One array is (512, 512) float32: 1 MiB.
"""

import math
import weakref

import numpy as np
import pytest

from dojo.expect import expect
from dojo.measuring import Budget, kept_bytes, peak_bytes, retained_bytes
from tinytorch.activations import (
    GELU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
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
from tinytorch.layers import affine
from tinytorch.tensor import Op, Tensor, set_recorder, tanh

MIB = 1 << 20

FROM_OUTPUT = Budget(
    "kept for the way back",
    limit=0.15,
    reference=0.002,
    naive=1.0,
    unit="arrays beside the output",
    naively="a rule that asks for its input",
)
GELU_KEPT = Budget(
    "kept for the way back of gelu",
    limit=1.5,
    reference=1.0,
    naive=2.0,
    unit="arrays beside the output",
    naively="a rule that asks for its input and for a by-product",
)
DROPOUT = Budget(
    "kept for the way back of dropout",
    limit=0.5,
    reference=0.25,
    naive=1.0,
    unit="arrays beside the output",
    naively="a mask of float32",
)
PAIRS = Budget(
    "8 pairs of affine and relu",
    limit=1.15,
    reference=1.0,
    naive=2.0,
    unit="arrays a pair until the way back",
    naively="relu with a rule that asks for its input",
)
IN_PLACE = Budget(
    "in place",
    limit=0.5,
    reference=0.001,
    naive=1.0,
    unit="arrays at the worst moment",
    naively="a version that computes a new array and copies it back",
)
LEAKY_IN_PLACE = Budget(
    "leaky_relu_",
    limit=1.75,
    reference=1.0,
    naive=3.0,
    unit="arrays at the worst moment",
    naively="a version that keeps each step in an array of its own",
)
FORWARD = Budget(
    "a curve, its result included",
    limit=4.5,
    reference=2.0,
    naive=6.25,
    unit="arrays at the worst moment",
    naively="a version that keeps each step in an array of its own",
)
GELU_FORWARD = Budget(
    "gelu, its result included",
    limit=5.5,
    reference=2.0,
    naive=7.0,
    unit="arrays at the worst moment",
    naively="a version that keeps each step in an array of its own",
)
DROPOUT_FORWARD = Budget(
    "dropout, its result and its mask included",
    limit=2.75,
    reference=1.28,
    naive=7.0,
    unit="arrays at the worst moment",
    naively="a version that works in float64",
)
BACK = Budget(
    "the way back of a curve, its gradient included",
    limit=3.5,
    reference=2.03,
    naive=6.0,
    unit="arrays at the worst moment",
    naively="a version that works in float64",
)
GELU_BACK = Budget(
    "the way back of gelu, its gradient included",
    limit=9.0,
    reference=4.0,
    naive=18.0,
    unit="arrays at the worst moment",
    naively="a version that keeps each step in an array of its own",
)
ROWS_BACK = Budget(
    "softmax backwards, 256 rows of 256",
    limit=5.0,
    reference=2.1,
    naive=512.0,
    unit="arrays at the worst moment",
    naively="a version that lays out how each share depends on each number",
)


@pytest.fixture
def table(rng):
    """(512, 512) float32: 1 MiB."""
    return rng.standard_normal((512, 512), np.float32)


def kept(op, table, **params):
    """Arrays that stay, beside the output, as long as there is a way back; the input is dropped here."""

    def forward():
        return op.vjp(table.copy(), **params)

    forward()[1](table)  # there is a way back
    return kept_bytes(forward) / MIB - 1


def spoiled(op, rule):
    """An operation like `op` that has another gradient rule."""
    twin = Op(op.forward, op.saves)
    twin.gradient(rule)
    return twin


# What a rule does not name can go: and this is most of the memory that training takes.


CURVES = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "softmax": softmax,
    "log_softmax": log_softmax,
}


@pytest.mark.parametrize("name", CURVES)
def test_a_rule_that_can_be_told_from_the_output_keeps_nothing_else(name, table):
    FROM_OUTPUT.check(kept(CURVES[name], table))


def test_the_twin_that_keeps_the_input_is_caught(table):
    def sigmoid_back(grad, x):
        share = 1 / (1 + np.exp(-x))
        return grad * share * (1 - share)

    FROM_OUTPUT.catches(kept(spoiled(sigmoid, sigmoid_back), table))


def test_gelu_keeps_its_input_and_nothing_else(table):
    GELU_KEPT.check(kept(gelu, table))


def test_the_twin_that_keeps_a_by_product_of_gelu_is_caught(table):
    def forward(x):
        t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))
        return x * (0.5 + 0.5 * t), t

    twin = Op(forward, saves=["t"])
    twin.gradient(lambda grad, x, t: grad * (x + t))
    GELU_KEPT.catches(kept(twin, table))


def test_dropout_keeps_one_byte_an_element(table, rng):
    DROPOUT.check(kept(dropout, table, rng=rng))


def test_the_twin_that_keeps_a_mask_of_floats_is_caught(table, rng):
    def forward(x):
        mask = (rng.random(x.shape, np.float32) >= 0.5).astype(np.float32)
        return x * mask, mask

    twin = Op(forward, saves=["mask"])
    twin.gradient(lambda grad, mask: grad * mask)
    DROPOUT.catches(kept(twin, table))


def held_by_pairs(activation, rng, pairs=8):
    """Arrays a pair that a recorder holds who keeps what each rule asks for, and nothing else."""
    x = rng.standard_normal((4096, 64), np.float32)  # 1 MiB
    weights = [rng.standard_normal((64, 64), np.float32) / 8 for _ in range(pairs)]
    memory = []

    def record(op, inputs, arrays, params, out):
        memory.append(op.keep(out.data, arrays, params))

    def forward():
        memory.clear()
        out = Tensor(x, requires_grad=True)
        for weight in weights:
            out = activation(affine(out, weight))
        return out

    before = set_recorder(record)
    try:
        return kept_bytes(forward) / MIB / pairs
    finally:
        set_recorder(before)


def test_a_pair_of_affine_and_relu_remembers_one_array(rng):
    """What relu keeps is its output, and that is the input which the next affine keeps: they share it."""
    PAIRS.check(held_by_pairs(relu, rng))


def test_the_twin_whose_relu_remembers_its_input_is_caught(rng):
    twin = spoiled(relu, lambda grad, x: grad * (x > 0))
    PAIRS.catches(held_by_pairs(twin, rng))


# On the way.


@pytest.mark.parametrize("op", [relu_, sigmoid_, tanh_], ids=["relu_", "sigmoid_", "tanh_"])
def test_in_place_needs_no_other_array(op, table):
    for x in (Tensor(table), Tensor(table.T)):
        IN_PLACE.check(peak_bytes(lambda x=x: op(x)) / MIB)


def test_the_twin_that_copies_its_result_back_is_caught(table):
    def copied_back(x):
        x[...] = np.maximum(x, 0)

    IN_PLACE.catches(peak_bytes(lambda: copied_back(table)) / MIB)


def test_in_place_leaky_relu_needs_one_other_array(table):
    x = Tensor(table)
    LEAKY_IN_PLACE.check(peak_bytes(lambda: leaky_relu_(x)) / MIB)


def test_the_twin_that_keeps_every_step_of_leaky_relu_is_caught(table):
    def all_steps(x):
        positive, negative = np.maximum(x, 0), np.minimum(x, 0)
        scaled = 0.01 * negative
        np.add(positive, scaled, out=x)

    LEAKY_IN_PLACE.catches(peak_bytes(lambda: all_steps(table)) / MIB)


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_needs_few_arrays_on_the_way(name, table):
    curve, x = CURVES[name], Tensor(table)
    if name == "tanh":  # which is kata 02's: its way back
        _, back = curve.vjp(table)
        FORWARD.check(peak_bytes(lambda: back(table)) / MIB)
    else:
        FORWARD.check(peak_bytes(lambda: curve(x)) / MIB)


def test_the_twin_that_keeps_every_step_is_caught(table):
    def all_steps(x):
        size = np.abs(x)
        less = -size
        small = np.exp(less)
        right = x >= 0
        above = np.where(right, 1, small)
        below = 1 + small
        return above / below

    FORWARD.catches(peak_bytes(lambda: all_steps(table)) / MIB)


def test_gelu_needs_few_arrays_on_the_way(table):
    x = Tensor(table)
    GELU_FORWARD.check(peak_bytes(lambda: gelu(x)) / MIB)


def test_the_twin_that_keeps_every_step_of_gelu_is_caught(table):
    def all_steps(x):
        cube = x * x * x
        scaled = 0.044715 * cube
        inner = x + scaled
        z = 0.7978845608 * inner
        t = np.tanh(z)
        share = 0.5 + 0.5 * t
        return x * share

    GELU_FORWARD.catches(peak_bytes(lambda: all_steps(table)) / MIB)


@pytest.mark.parametrize("name", [*CURVES, "dropout"])
def test_the_way_back_needs_few_arrays(name, table, rng):
    _, back = CURVES[name].vjp(table) if name in CURVES else dropout.vjp(table, rng=rng)
    BACK.check(peak_bytes(lambda: back(table)) / MIB)


def test_the_twin_that_goes_back_in_float64_is_caught(table):
    def in_float64(grad, out):
        wide = out.astype(np.float64)
        return (grad * wide * (1 - wide)).astype(np.float32)

    BACK.catches(peak_bytes(lambda: in_float64(table, table)) / MIB)


def test_the_way_back_of_gelu_needs_few_arrays(table):
    _, back = gelu.vjp(table)
    GELU_BACK.check(peak_bytes(lambda: back(table)) / MIB)


def test_the_twin_that_keeps_every_step_back_of_gelu_is_caught(table):
    def all_steps(grad, x):
        square = x * x
        cube = square * x
        inner = x + 0.044715 * cube
        z = 0.7978845608 * inner
        t = np.tanh(z)
        squared = t * t
        left = 1 - squared
        slope = 3 * 0.044715 * square
        steep = 1 + slope
        of_z = 0.7978845608 * steep
        share = 0.5 * (1 + t)
        half = 0.5 * x
        product = half * left
        rest = product * of_z
        both = share + rest
        return grad * both

    GELU_BACK.catches(peak_bytes(lambda: all_steps(table, table)) / MIB)


def test_a_layer_lets_go_of_what_went_through():
    for layer in (ReLU(), Sigmoid(), Tanh(), GELU(), Softmax(), LogSoftmax()):
        x = Tensor(np.ones((2, 3), np.float32))
        came, out = weakref.ref(x), layer(x)
        gave = weakref.ref(out)
        del x, out
        expect((came(), gave()), (None, None))


def test_dropout_needs_few_arrays_on_the_way(table, rng):
    x = Tensor(table)
    DROPOUT_FORWARD.check(peak_bytes(lambda: dropout(x, rng=rng)) / MIB)


def test_the_twin_that_drops_out_in_float64_is_caught(table, rng):
    def in_float64(x):
        noise = rng.random(x.shape)
        mask = (noise >= 0.5) / 0.5
        return (x * mask).astype(np.float32), mask

    DROPOUT_FORWARD.catches(peak_bytes(lambda: in_float64(table)) / MIB)


@pytest.mark.parametrize("op", [softmax, log_softmax], ids=["softmax", "log_softmax"])
def test_the_way_back_of_a_row_is_a_row(op, rng):
    """Each of 256 shares depends on each of 256 numbers, and nobody has to write down how."""
    x, grad = (rng.standard_normal((256, 256), np.float32) for _ in range(2))  # 256 KiB each
    for axis in (-1, 0):
        _, back = op.vjp(x, axis=axis)
        ROWS_BACK.check(peak_bytes(lambda back=back: back(grad)) / (MIB // 4))


def test_the_twin_that_lays_out_every_dependence_is_caught(rng):
    out, grad = (rng.random((256, 256), np.float32) for _ in range(2))

    def jacobians(grad):
        return ((np.eye(256, dtype=np.float32) - out[:, None, :]) * out[:, :, None]) @ grad[:, :, None]

    ROWS_BACK.catches(peak_bytes(lambda: jacobians(grad)) / (MIB // 4))


def test_nothing_is_left_behind(rng):
    def work():
        x = Tensor(rng.standard_normal((512, 512), np.float32))
        return [curve(x) for curve in CURVES.values()], gelu(x), dropout(x, rng=rng)

    expect(retained_bytes(work) / MIB, 0.0, atol=0.1)
