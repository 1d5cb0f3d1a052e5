"""Level 1: gelu in pieces, and operations that are several in one."""

import math
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from dojo.expect import expect, expect_error
from dojo.measuring import load_probes
from tinytorch.kernels import (
    CHUNK,
    add_relu,
    fast_gelu,
    linear_gelu,
    parallel_for,
    scale_shift_add_relu,
    softmax_cross_entropy,
)
from tinytorch.tensor import Tensor

let_meet = load_probes(__file__).let_meet
steady = settings(deadline=None, derandomize=True, max_examples=40)
SEEDS = st.integers(0, 2**32 - 1)
INF, NAN = math.inf, math.nan


def f32(values):
    return np.array(values, np.float32)


def eighths(rng, *shape):
    return rng.integers(-16, 17, shape) / 8


def gelu(x):
    """The formula with tanh, of one number, in a form that loses no digits."""
    z = 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return x / (1 + math.exp(-z)) if z > -700 else 0.0


def gelus(x):
    return np.array([gelu(float(number)) for number in x.flat]).reshape(x.shape)


# 17.7 fast_gelu


def test_gelu_by_hand():
    """gelu(1) is 1 / (1 + exp(-1.5957691 * 1.044715)), and gelu(-1) is that less 1."""
    expect(fast_gelu(f32([0, 1, -1])), f32([0, 0.841192, -0.158808]), rtol=1e-5)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 3e-5), (np.float64, 1e-13)])
def test_gelu_has_all_its_digits_also_where_it_is_nearly_nothing(dtype, rtol):
    x = np.linspace(-7, 7, 1001).astype(dtype)
    expect(fast_gelu(x), gelus(x.astype(np.float64)).astype(dtype), rtol=rtol, atol=0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_of_what_is_far_away_or_nothing(dtype):
    x = np.array([INF, -INF, 1e30, -1e30, 60, -60, 0, NAN], dtype)
    expected = np.array([INF, 0, 1e30, 0, 60, 0, 0, NAN], dtype)
    expect(fast_gelu(x), expected, atol=1e-30)
    # In threads, too, of which each may have warnings of its own.
    expect(fast_gelu(np.resize(x, CHUNK + 8), threads=2)[-8:], expected, atol=1e-30)


def test_gelu_of_more_than_a_piece():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(2 * CHUNK + 77, np.float32)
    some = rng.integers(0, x.size, 500)
    for got in (fast_gelu(x), fast_gelu(x, threads=2)):
        expect(got[some], f32(gelus(x[some].astype(float))), rtol=1e-5)
        expect(got[-1:], f32(gelus(x[-1:].astype(float))), rtol=1e-5)


def test_gelu_s_threads_do_its_work():
    x, seen = np.ones(2 * CHUNK, np.float32), set()
    threading.setprofile(
        lambda *_: seen.add(threading.get_ident())
    )  # called in each thread begun from now on
    try:
        fast_gelu(x, threads=2)
    finally:
        threading.setprofile(None)
    assert seen - {threading.get_ident()}


def test_gelu_begins_no_thread_unless_asked_to():
    x, seen = np.ones(2 * CHUNK, np.float32), set()
    threading.setprofile(lambda *_: seen.add(threading.get_ident()))
    try:
        expect(fast_gelu(x)[-1:], f32([0.841192]), rtol=1e-5)
    finally:
        threading.setprofile(None)
    assert not seen


def test_gelu_s_threads_do_not_write_over_each_other(monkeypatch):
    x = np.linspace(-3, 3, 2 * CHUNK, dtype=np.float32)
    expected = fast_gelu(x)
    let_meet(monkeypatch, "exp")
    got = fast_gelu(x, threads=2)
    monkeypatch.undo()
    expect(got, expected, rtol=1e-6)


def test_gelu_goes_into_out_which_comes_back():
    x, out = f32([[1, -1], [0, 1]]), np.empty((2, 2), np.float32)
    assert fast_gelu(x, out) is out
    expect(out, f32([[0.841192, -0.158808], [0, 0.841192]]), rtol=1e-5)
    expect(x, f32([[1, -1], [0, 1]]))


def test_gelu_can_be_written_over_its_input():
    x = f32([0, 1, -1])
    assert fast_gelu(x, out=x) is x
    expect(x, f32([0, 0.841192, -0.158808]), rtol=1e-5)


def test_gelu_writes_through_gaps():
    room = np.zeros((4, 6))
    fast_gelu(np.ones((2, 3)), out=room[::-2, 1::2])
    expect(room[1::2, 1::2], np.full((2, 3), gelu(1.0)))
    assert np.count_nonzero(room) == 6


@pytest.mark.parametrize(("dtype", "shape"), [(np.float64, (2, 3)), (np.float32, (3, 2)), (np.float32, (6,))])
def test_an_out_that_does_not_fit_is_named_with_the_result(dtype, shape):
    with expect_error(ValueError, "float32", "(2, 3)", str(np.dtype(dtype)), str(shape)):
        fast_gelu(np.ones((2, 3), np.float32), out=np.empty(shape, dtype))


def test_gelu_of_integers_is_float32_and_of_tensors_an_array():
    expect(fast_gelu(np.array([1, -1])), f32([0.841192, -0.158808]), rtol=1e-5)
    got = fast_gelu(Tensor(np.array([1.0])))
    assert type(got) is np.ndarray
    expect(got, np.array([gelu(1.0)]))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1, 1)])
def test_gelu_of_one_number_or_none(shape):
    expect(fast_gelu(np.ones(shape)), np.full(shape, gelu(1.0)))


def test_gelu_lies_in_memory_as_its_input_does():
    x = np.ones((2, 4, 5, 3)).transpose(0, 3, 1, 2)
    assert fast_gelu(x).strides == x.strides


# 17.8 add_relu, 17.9 scale_shift_add_relu


def test_add_relu_by_hand():
    got = add_relu(Tensor(f32([1, -2, 3])), Tensor(f32([-3, 5, 0])))
    assert isinstance(got, Tensor)
    expect(got, f32([0, 3, 3]))


def test_scale_shift_add_relu_by_hand():
    got = scale_shift_add_relu(Tensor(f32([1, 2, 3])), -2.0, 1.0, Tensor(f32([0, 4, 7])))
    assert isinstance(got, Tensor)
    expect(got, f32([0, 1, 2]))


@steady
@given(mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_side=3, max_dims=3), SEEDS)
def test_add_relu_of_shapes_that_meet(shapes, seed):
    rng = np.random.default_rng(seed)
    x, y = (eighths(rng, *shape) for shape in shapes.input_shapes)
    kept = x.copy(), y.copy()
    expect(add_relu(x, y), np.where(x + y > 0, x + y, 0), rtol=0, atol=0)
    expect((x, y), kept)


@steady
@given(mutually_broadcastable_shapes(num_shapes=4, min_side=0, max_side=3, max_dims=3), SEEDS)
def test_scale_shift_add_relu_of_shapes_that_meet(shapes, seed):
    rng = np.random.default_rng(seed)
    operands = [eighths(rng, *shape) for shape in shapes.input_shapes]
    kept = [array.copy() for array in operands]
    x, a, b, y = operands
    expected = x * a + b + y
    expect(scale_shift_add_relu(*operands), np.where(expected > 0, expected, 0), rtol=0, atol=0)
    expect(operands, kept)


def test_channels_can_have_numbers_of_their_own():
    x = eighths(np.random.default_rng(0), 2, 3, 4, 5)
    a, b = f32([1, -1, 2]).reshape(3, 1, 1), f32([0.5, 0, -1]).reshape(3, 1, 1)
    expected = np.maximum(x * a + b + 0.25, 0)
    expect(scale_shift_add_relu(x, a, b, 0.25), expected, rtol=0, atol=0)


@pytest.mark.parametrize("call", [lambda x: add_relu(x, x), lambda x: scale_shift_add_relu(x, 2.0, 0.0, x)])
def test_more_than_a_piece_is_fused_too(call):
    x = np.arange(-CHUNK, CHUNK + 3, dtype=np.float32)
    got = call(x).data
    factor = got[-1] / x[-1]
    expect(got, np.where(x > 0, factor * x, 0).astype(np.float32), rtol=0, atol=0)
    assert factor in (2, 3)


def test_fused_results_lie_in_memory_as_their_operands_do():
    x = np.ones((2, 4, 5, 3)).transpose(0, 3, 1, 2)
    channel = np.ones((3, 1, 1))
    assert add_relu(x, x).data.strides == x.strides
    assert add_relu(channel, x).data.strides == x.strides
    assert scale_shift_add_relu(x, channel, channel, x).data.strides == x.strides


@pytest.mark.parametrize(
    ("operands", "dtype"),
    [
        ((f32([1, 2]), f32([1, 2])), np.float32),
        ((f32([1, 2]), np.array([1.0, 2.0])), np.float64),
        ((f32([1, 2]), np.array([1, 2])), np.float32),
        ((np.array([1, 2]), np.array([1, 2])), np.float32),
        ((np.array([True, False]), np.array([1, 2])), np.float32),
        ((f32([1, 2]), 0.5), np.float32),
        ((np.array([1.0, 2.0]), 2), np.float64),
        ((np.array([1, 2]), 2), np.float32),
        ((f32([1, 2]), np.array(0.5)), np.float32),
    ],
)
def test_fused_results_have_the_dtype_in_which_operands_meet(operands, dtype):
    x, y = operands
    expected = np.maximum(np.asarray(x, dtype) + np.asarray(y, dtype), 0)
    expect(add_relu(x, y), expected)
    expect(scale_shift_add_relu(x, 1, 0, y), expected)
    expect(scale_shift_add_relu(0, 1, y, x), expected)


@pytest.mark.filterwarnings("error")
def test_infinities_and_nan_go_through():
    x, zero = f32([INF, -INF, NAN, 1]), f32([0, 0, 0, -INF])
    expect(add_relu(x, zero), f32([INF, 0, NAN, 0]))
    expect(scale_shift_add_relu(x, 1.0, 0.0, zero), f32([INF, 0, NAN, 0]))


def test_shapes_that_do_not_meet_are_named():
    x, y = np.ones((2, 3)), np.ones(2)
    with expect_error(ValueError, "(2, 3)", "(2,)"):
        add_relu(x, y)
    for operands in ((x, y, 0.0, 0.0), (x, 1.0, y, 0.0), (x, 1.0, 0.0, y), (y, 1.0, 0.0, x)):
        with expect_error(ValueError, "(2, 3)", "(2,)"):
            scale_shift_add_relu(*operands)


# 17.10 linear_gelu


def test_linear_gelu_by_hand():
    x, weight, bias = f32([[1, 2]]), f32([[1, 0], [0, -1], [1, -1]]), f32([0, 1, 1])
    expect(linear_gelu(Tensor(x), weight, bias), f32([[0.841192, -0.158808, 0]]), rtol=1e-5)


@steady
@given(st.lists(st.integers(0, 4), max_size=2), st.integers(0, 4), st.integers(0, 4), st.booleans(), SEEDS)
def test_linear_gelu_is_a_product_a_sum_and_gelu(leading, inputs, outputs, with_bias, seed):
    rng = np.random.default_rng(seed)
    x, weight, bias = eighths(rng, *leading, inputs), eighths(rng, outputs, inputs), eighths(rng, outputs)
    expected = np.zeros((*leading, outputs))
    for place in np.ndindex(*expected.shape):
        row, column = x[place[:-1]], place[-1]
        total = sum(row[i] * weight[column, i] for i in range(inputs))
        expected[place] = gelu(total + (bias[column] if with_bias else 0))
    kept = x.copy(), weight.copy(), bias.copy()
    expect(linear_gelu(x, weight, *([bias] if with_bias else [])), expected, rtol=1e-9)
    expect((x, weight, bias), kept)


@pytest.mark.parametrize(("rows", "outputs"), [(300, 700), (200, 2000), (5, CHUNK + 1)])
def test_linear_gelu_of_more_rows_than_a_piece_has(rows, outputs, rng):
    x, weight, bias = eighths(rng, rows, 3), eighths(rng, outputs, 3), eighths(rng, outputs)
    got = linear_gelu(x, weight, bias).data
    for i in (*rng.integers(0, rows, 20), 0, rows - 1):
        j = rng.integers(0, outputs)
        assert math.isclose(got[i, j], gelu(float(x[i] @ weight[j] + bias[j])), rel_tol=1e-9, abs_tol=1e-12)
    assert got.shape == (rows, outputs)


@pytest.mark.parametrize(
    ("x", "weight", "dtype"),
    [("f4", "f4", "f4"), ("f8", "f8", "f8"), ("f4", "f8", "f8"), ("i8", "f4", "f4"), ("i8", "i8", "f4")],
)
def test_linear_gelu_has_the_dtype_in_which_inputs_and_weights_meet(x, weight, dtype):
    got = linear_gelu(np.ones((2, 1), x), np.ones((3, 1), weight))
    expect(got, np.full((2, 3), gelu(1.0), dtype), rtol=1e-5)
    got = linear_gelu(np.ones((2, 1), x), np.ones((3, 1), weight), np.zeros(3, dtype))
    expect(got, np.full((2, 3), gelu(1.0), dtype), rtol=1e-5)


def test_linear_gelu_of_views_in_any_order(rng):
    x, weight, bias = eighths(rng, 6, 4), eighths(rng, 5, 4), eighths(rng, 5)
    expected = gelus(x @ weight.T + bias)
    expect(linear_gelu(np.asfortranarray(x), np.asfortranarray(weight), bias[::-1][::-1]), expected)
    expect(linear_gelu(x[::-2, ::-1], weight[:, ::-1], bias), expected[::-2])


def test_two_threads_can_be_in_linear_gelu_at_once(monkeypatch):
    """What one works in is not the other's. Weights of 0 leave the bias, of which gelu is all or nothing."""
    x, weight, biases = np.ones((3, 2)), np.zeros((4, 2)), [np.full(4, 50.0), np.full(4, -50.0)]
    let_meet(monkeypatch, "exp")
    large, nothing = parallel_for(lambda bias: linear_gelu(x, weight, bias).data, biases, threads=2)
    monkeypatch.undo()
    expect(large, np.full((3, 4), 50.0))
    expect(nothing, np.zeros((3, 4)))


@pytest.mark.parametrize(
    ("x", "weight", "bias"),
    [((2, 3), (4, 2), None), ((2, 3), (3,), None), ((), (4, 3), None), ((), (3,), None)],
)
def test_inputs_and_weights_that_do_not_fit_are_named(x, weight, bias):
    with expect_error(ValueError, str(x), str(weight)):
        linear_gelu(np.ones(x), np.ones(weight))


@pytest.mark.parametrize("bias", [(3,), (1,), (4, 1), ()])
def test_a_bias_that_does_not_fit_is_named_with_the_weights(bias):
    with expect_error(ValueError, str(bias), "(4, 3)"):
        linear_gelu(np.ones((2, 3)), np.ones((4, 3)), np.ones(bias))


# 17.12 softmax_cross_entropy


def loss_of(logits, labels):
    """By the definition, row by row, in float64."""
    losses = []
    for row, label in zip(logits.astype(float), labels, strict=True):
        largest = max(row)
        losses.append(largest + math.log(sum(math.exp(number - largest) for number in row)) - row[label])
    return sum(losses) / len(losses)


def test_a_loss_by_hand():
    """Of four equal logits each is as likely: log 4 is 1.386294. Of 0 and log 3, a quarter is the first."""
    expect(softmax_cross_entropy(Tensor(f32(np.zeros((2, 4)))), [0, 3]), f32(1.3862944))
    expect(softmax_cross_entropy(f32([[0, math.log(3)]]), np.array([0])), f32(math.log(4)))


@steady
@given(st.integers(1, 6), st.integers(1, 6), SEEDS)
def test_the_loss_is_that_of_the_definition(n, classes, seed):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(n, classes)) * 5, rng.integers(0, classes, n)
    kept = logits.copy(), labels.copy()
    expect(softmax_cross_entropy(logits, labels), np.array(loss_of(logits, labels)), rtol=1e-10, atol=1e-14)
    expect((logits, labels), kept)


@pytest.mark.parametrize(("n", "classes"), [(1200, 65), (40, 5000), (3, 70_000)])
def test_the_loss_of_more_rows_than_a_piece_has(n, classes, rng):
    logits, labels = rng.standard_normal((n, classes), np.float32), rng.integers(0, classes, n)
    wide = logits.astype(float)
    expected = np.mean(np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(n), labels])
    expect(softmax_cross_entropy(logits, labels), np.array(expected, np.float32), rtol=1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shift", [1e4, -1e4, 1e30])
def test_logits_may_be_as_large_as_they_like(shift):
    logits = np.array([[0.0, 1.0, -2.0]]) + (shift if abs(shift) < 1e9 else 0)
    expect(softmax_cross_entropy(logits, [1]), np.array(loss_of(logits, [1])), rtol=1e-9)
    expect(softmax_cross_entropy(np.array([[shift, 0.0]]), [int(shift < 0)]), np.array(0.0), atol=1e-12)
    # Of the share of the other one nothing is left; its loss is the distance.
    expect(softmax_cross_entropy(np.array([[shift, 0.0]]), [int(shift > 0)]), np.array(abs(shift)))


@pytest.mark.filterwarnings("error")
def test_among_infinities_equals_share():
    expect(softmax_cross_entropy(np.array([[INF, 1.0, INF]]), [2]), np.array(math.log(2)))
    expect(softmax_cross_entropy(np.array([[-INF, 0.0]]), [1]), np.array(0.0))


def test_what_is_no_number_has_no_loss():
    logits = np.array([[0.0, 1.0], [NAN, 1.0]])
    expect(softmax_cross_entropy(logits, [1, 1]), np.array(NAN))


def test_a_loss_has_the_dtype_of_the_logits_and_integers_become_float32():
    for dtype, expected in ((np.float32, np.float32), (np.float64, np.float64), (np.int64, np.float32)):
        got = softmax_cross_entropy(np.zeros((1, 2), dtype), np.array([1], np.uint8))
        expect(got, np.array(math.log(2), expected))


def test_logits_may_lie_in_any_order(rng):
    logits = rng.normal(size=(5, 4))
    for view in (np.asfortranarray(logits), np.repeat(logits, 2, 0)[::2], logits[:, ::-1].copy()[:, ::-1]):
        expect(softmax_cross_entropy(view, [0, 1, 2, 3, 0]), np.array(loss_of(logits, [0, 1, 2, 3, 0])))


@pytest.mark.parametrize(
    ("logits", "labels"), [((3, 4), (2,)), ((3, 4), (3, 1)), ((4,), (4,)), ((2, 3, 4), (2,))]
)
def test_shapes_of_logits_and_labels_that_do_not_fit_are_named(logits, labels):
    with expect_error(ValueError, str(logits), str(labels)):
        softmax_cross_entropy(np.zeros(logits), np.zeros(labels, int))


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_that_is_no_class_is_named(label):
    with expect_error(ValueError, str(label)):
        softmax_cross_entropy(np.zeros((2, 4)), [0, label])


def test_labels_are_integers():
    with expect_error(TypeError, "float"):
        softmax_cross_entropy(np.zeros((2, 4)), [0.0, 1.0])


def test_no_rows_have_no_mean():
    with expect_error(ValueError, "(0, 4)"):
        softmax_cross_entropy(np.zeros((0, 4)), np.zeros(0, int))
