"""Level 1: products of matrices, and what becomes of the elements along an axis."""

import math
import warnings
from contextlib import contextmanager

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.tensor import Tensor, amax, amin, argmax, mean, total, var


def f32(values):
    return np.array(values, np.float32)


@contextmanager
def quiet():
    """Where nan or inf is the right answer, numpy may warn of it."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# 02.13 matmul


def test_a_matrix_product_by_hand():
    a, b = Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), Tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    expect(a @ b, f32([[4, 5], [10, 11]]))  # 1 + 3, 2 + 3; 4 + 6, 5 + 6
    expect(a.data @ b, f32([[4, 5], [10, 11]]))
    assert isinstance(a.data @ b, Tensor)


def test_a_vector_is_a_row_on_the_left_and_a_column_on_the_right():
    a, v = Tensor([[1.0, 2.0], [3.0, 4.0]]), Tensor([10.0, 1.0])
    expect(a @ v, f32([12, 34]))
    expect(v @ a, f32([13, 24]))
    expect(v @ v, f32(101))


def test_a_batch_of_matrices_multiplies_one_by_one():
    batch = Tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
    x = Tensor([[1.0, 2.0], [3.0, 4.0]])
    expect(batch @ x, f32([[[1, 2], [3, 4]], [[3, 4], [1, 2]]]))
    expect((x @ batch).shape, (2, 2, 2))
    expect(batch @ Tensor([5.0, 6.0]), f32([[5, 6], [6, 5]]))
    expect(Tensor([5.0, 6.0]) @ batch, f32([[5, 6], [6, 5]]))


def test_matrix_products_keep_to_the_rule_for_dtypes():
    a = np.ones((2, 2))
    expect(Tensor(a) @ Tensor([[1.0, 0], [0, 1]]), a)
    expect(Tensor([[1, 2], [3, 4]]) @ Tensor([[0.5], [0.5]]), f32([[1.5], [3.5]]))
    expect(Tensor([[1, 2], [3, 4]]) @ Tensor([1, 1]), np.array([3, 7]))


def test_matrix_products_over_nothing_are_zero():
    expect(Tensor(np.zeros((2, 0))) @ Tensor(np.zeros((0, 3))), np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("a", "b"),
    [((2, 3), (4, 5)), ((2, 3), (2,)), ((3,), (4,)), ((2, 3, 4), (5, 4, 3)), ((), (3,)), ((2, 2), ())],
)
def test_matrices_that_do_not_fit_are_named(a, b):
    with expect_error(ValueError, str(a), str(b)):
        Tensor(np.zeros(a)) @ Tensor(np.zeros(b))


# 02.14 total, mean, amax, amin, argmax


X = f32([[1, 5, 3], [4, 2, 6]])


def test_an_axis_is_what_disappears():
    x = Tensor(X)
    expect(x.sum(axis=0), f32([5, 7, 9]))
    expect(x.sum(axis=1), f32([9, 12]))
    expect(x.sum(axis=-1), f32([9, 12]))
    expect(x.sum(), f32(21))
    expect(x.sum(axis=(0, 1)), f32(21))
    expect(x.sum(axis=()), X)


def test_keepdims_leaves_an_axis_of_length_1():
    x = Tensor(X)
    expect(x.sum(axis=1, keepdims=True), f32([[9], [12]]))
    expect(x.mean(axis=0, keepdims=True), f32([[2.5, 3.5, 4.5]]))
    expect(x.max(keepdims=True), f32([[6]]))
    expect(x.min(axis=(0, 1), keepdims=True), f32([[1]]))
    expect(x.argmax(axis=1, keepdims=True), np.array([[1], [2]]))


def test_the_other_reductions_by_hand():
    x = Tensor(X)
    expect(x.mean(), f32(3.5))
    expect(x.mean(axis=1), f32([3, 4]))
    expect(mean(x, axis=0), f32([2.5, 3.5, 4.5]))
    expect(x.max(axis=0), f32([4, 5, 6]))
    expect(x.max(), f32(6))
    expect(x.min(axis=1), f32([1, 2]))
    expect(x.argmax(axis=0), np.array([1, 0, 1]))
    expect(x.argmax(axis=1), np.array([1, 2]))
    expect(x.argmax(), np.array(5))  # the last of six, row by row


def test_argmax_takes_the_first_of_several():
    expect(argmax(Tensor([2, 7, 7])), np.array(1))
    expect(argmax(Tensor([[5, 5], [1, 1]]), axis=1), np.array([0, 0]))


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0, 5], "uint8"),
        ([-(2**63), 3], "int64"),  # whose negative is itself
        ([2**53, 2**53 + 1], "int64"),  # equal as floats
        ([False, True], "bool"),
        ([-math.inf, 1.0], "float32"),
    ],
)
def test_extremes_are_found_at_the_edges_of_a_dtype(values, dtype):
    x = np.array(values, dtype)
    expect((amin(x), amax(x), argmax(x).item()), (x[:1].reshape(()), x[1:].reshape(()), 1))


def test_an_extreme_of_nan_is_nan():
    x = f32([1, np.nan, 2])
    with quiet():
        expect((amax(x), amin(x)), (f32(np.nan), f32(np.nan)))


def test_reductions_of_views():
    x = np.arange(12.0).reshape(3, 4)
    expect(total(x.T[::-1, 1:], axis=0), np.array([22.0, 38]))
    expect(amax(x[:, ::-2], axis=1), np.array([3.0, 7, 11]))
    expect(argmax(x.T), np.array(11))


def test_sums_of_integers_and_bools_are_int64():
    expect(Tensor([True, True, False]).sum(), np.array(2))
    expect(Tensor(np.full(300, 200, np.uint8)).sum(), np.array(60_000))
    expect(Tensor(np.ones((2, 2), np.int32)).sum(axis=0), np.array([2, 2]))
    expect(Tensor(np.ones((2, 2), np.uint64)).sum(axis=0), np.array([2, 2]))


def test_means_of_integers_and_bools_are_float32():
    expect(Tensor([1, 2]).mean(), f32(1.5))
    expect(Tensor([True, False, False, True]).mean(), f32(0.5))


def test_reductions_keep_the_dtype_of_floats():
    for dtype in ("float16", "float32", "float64"):
        x = np.ones((2, 2), dtype)
        for reduce in (total, mean, amax, amin):
            expect(reduce(x).dtype, np.dtype(dtype))
            expect(reduce(x, axis=0).dtype, np.dtype(dtype))


def test_extremes_keep_any_dtype():
    expect(amax(np.array([1, 3], np.uint8)), np.array(3, np.uint8))
    expect(amin(Tensor([True, False])), np.array(False))


def test_reductions_of_nothing():
    nothing = Tensor(np.zeros((0, 3)))
    expect(nothing.sum(axis=0), np.zeros(3))
    expect(nothing.sum(axis=1), np.zeros(0))
    expect(nothing.max(axis=1), np.zeros(0))
    with quiet():
        expect(nothing.mean(axis=0), np.full(3, np.nan))
        expect(nothing.mean(axis=1), np.zeros(0))
    for reduce in (amax, amin, argmax):
        with expect_error(ValueError):
            reduce(nothing, axis=0)


def test_an_axis_that_is_not_there_is_an_error():
    for reduce in (total, mean, amax, amin, argmax, var):
        for axis in (2, -3):
            with expect_error(ValueError, str(axis)):
                reduce(X, axis=axis)


@pytest.mark.parametrize("operation", [total, mean, amax, amin, argmax, var], ids=lambda op: op.__name__)
def test_the_function_inside_an_operation_knows_no_tensors(operation):
    assert not isinstance(operation.forward(f32([1, 2])), Tensor)


# 02.15 var


def test_the_variance_by_hand():
    x = Tensor([1.0, 2.0, 3.0, 6.0])  # mean 3; squared distances 4, 1, 0, 9
    expect(x.var(), f32(14 / 3))
    expect(x.var(correction=0), f32(3.5))
    expect(x.var(correction=2), f32(7))


def test_the_variance_along_an_axis():
    x = Tensor([[1.0, 5.0], [3.0, 5.0]])
    expect(x.var(axis=0), f32([2, 0]))
    expect(x.var(axis=1), f32([8, 2]))
    expect(x.var(axis=1, keepdims=True), f32([[8], [2]]))
    expect(x.var(axis=(0, 1), correction=0), f32(2.75))


def test_the_variance_far_from_zero_survives():
    """Squares of 10,000 have no digits left for a variance of 1 in float32; distances from the mean do."""
    x = Tensor([9_999.0, 10_000.0, 10_001.0])
    expect(x.var(), f32(1))


def test_the_variance_leaves_its_input_alone():
    x = f32([1, 2, 3])
    expect(var(x), f32(1))
    expect(x, f32([1, 2, 3]))


def test_the_variance_keeps_to_the_rule_for_dtypes():
    expect(Tensor([1, 2, 3]).var(), f32(1))
    expect(Tensor(np.array([1.0, 2.0, 3.0])).var(), np.array(1.0))
    expect(Tensor(np.array([[1.0, 2.0, 3.0]])).var(axis=1), np.array([1.0]))


def test_one_number_has_no_variance_unless_nothing_is_corrected():
    with quiet():
        expect(Tensor([5.0]).var(), f32(np.nan))
        expect(Tensor([5.0, 6.0]).var(correction=3), f32(np.inf))
    expect(Tensor([5.0]).var(correction=0), f32(0))
    expect(Tensor(5.0).var(correction=0), f32(0))


def test_the_variances_of_no_rows_are_none():
    expect(Tensor(np.zeros((0, 3))).var(axis=1), np.zeros(0))
