"""Level 1: what a Tensor holds, in which dtype numbers meet, and what is done with each element."""

import itertools
import math

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.tensor import (
    Tensor,
    absolute,
    as_array,
    clip,
    compare,
    div,
    elementwise,
    exp,
    floating,
    log,
    maximum,
    neg,
    power,
    result_type,
    sqrt,
    tanh,
    where,
)


def f32(values):
    return np.array(values, np.float32)


def expect_itself(got, array):
    """That no other array was made."""
    expect(got, array)
    if got is not array:
        raise AssertionError("equal, but another array: expected the very one that was given")


# 02.8 as_array, and the Tensor around it


@pytest.mark.parametrize(
    ("data", "array"),
    [
        ([1.5, 2.5], f32([1.5, 2.5])),
        ([1, 2], np.array([1, 2], np.int64)),
        ([True, False], np.array([True, False])),
        ([[1, 2.5], [3, 4]], f32([[1, 2.5], [3, 4]])),
        ((1.5, 2), f32([1.5, 2])),
        (2.5, f32(2.5)),
        (3, np.array(3, np.int64)),
        (2**63, np.array(2**63, np.uint64)),
        (True, np.array(True)),
        ([], f32([])),
        ([2**63], np.array([2**63], np.uint64)),
        ([np.float64(0.5), np.float32(1.5)], f32([0.5, 1.5])),
        ([np.float16(0.5), np.float16(1.5)], np.array([0.5, 1.5], np.float16)),
        (np.float64(2.5), np.array(2.5, np.float64)),
        (np.int32(7), np.array(7, np.int32)),
    ],
)
def test_python_numbers_get_the_dtypes_of_pytorch(data, array):
    expect(as_array(data), array)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "int32", "uint8", "bool"])
def test_an_array_is_taken_as_it_is(dtype):
    array = np.ones((2, 3), dtype)
    expect_itself(as_array(array), array)
    expect_itself(as_array(Tensor(array)), array)
    backwards = array.T[::-1]
    assert as_array(backwards) is backwards


def test_data_is_always_an_array():
    assert type(as_array(np.float64(0.5))) is np.ndarray
    assert type(Tensor(2.5).data) is np.ndarray
    assert type((Tensor(2.5) + 1.0).data) is np.ndarray


@pytest.mark.parametrize("data", ["three", None, object(), [None, 1.0], np.array(["a"])])
def test_a_tensor_holds_numbers_only(data):
    with expect_error(TypeError):
        as_array(data)


def test_a_refused_dtype_is_named():
    with expect_error(TypeError, "complex128"):
        as_array([1j])
    with expect_error(TypeError, "datetime64"):
        Tensor(np.array(["2024-01-01"], dtype="datetime64[D]"))


def test_lists_of_unequal_lengths_are_no_tensor():
    with expect_error(ValueError):
        as_array([[1.0, 2.0], [3.0]])


def test_a_tensor_shares_the_array_it_is_given():
    array = np.zeros(3)
    x = Tensor(Tensor(array))
    array[1] = 7
    expect(x, np.array([0.0, 7, 0]))
    expect_itself(x.data, array)
    expect_itself(x.numpy(), array)


def test_only_floats_can_require_a_gradient():
    assert Tensor([1.5], requires_grad=True).requires_grad is True
    assert Tensor([1.5]).requires_grad is False
    with expect_error(TypeError, "int64"):
        Tensor([1], requires_grad=True)
    with expect_error(TypeError, "bool"):
        Tensor([True], requires_grad=True)


def test_a_tensor_says_what_it_is_like():
    x = Tensor([[1.5, 2, 3], [4, 5, 6]])
    expect((x.shape, x.strides, x.ndim, x.size, x.numel()), ((2, 3), (12, 4), 2, 6, 6))
    expect(x.dtype, np.dtype(np.float32))
    expect((x.grad, x.node), (None, None))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ([1.0, 2.5], "Tensor([1. , 2.5])"),
        ([[1, 2], [3, 4]], "Tensor([[1, 2],\n        [3, 4]])"),
        ([True, False], "Tensor([ True, False])"),
        (2.0, "Tensor(2.)"),
        (np.float64(2.0), "Tensor(2., dtype=float64)"),
        (np.uint8(2), "Tensor(2, dtype=uint8)"),
    ],
)
def test_a_tensor_shows_its_numbers(data, text):
    expect(repr(Tensor(data)), text)


def test_a_tensor_shows_that_it_requires_a_gradient():
    expect(repr(Tensor([0.5], requires_grad=True)), "Tensor([0.5], requires_grad=True)")


def test_one_element_is_a_number():
    assert type(Tensor(3).item()) is int
    expect(Tensor([[2.5]]).item(), 2.5)
    expect(float(Tensor(3)), 3.0)
    expect(int(Tensor([2.5])), 2)
    expect(bool(Tensor([0.0])), False)
    expect(bool(Tensor([[0.5]])), True)


@pytest.mark.parametrize("convert", [Tensor.item, bool, float, int], ids=["item", "bool", "float", "int"])
def test_several_elements_are_not(convert):
    with expect_error(ValueError, "(2,)"):
        convert(Tensor([1.0, 2.0]))
    with expect_error(ValueError, "(0,)"):
        convert(Tensor([]))


def test_the_length_of_a_tensor_is_that_of_its_first_axis():
    expect(len(Tensor([[1, 2, 3], [4, 5, 6]])), 2)
    with expect_error(TypeError):
        len(Tensor(1.0))


def test_numpy_can_read_a_tensor_without_a_copy():
    x = Tensor([1.5, 2.5])
    assert np.shares_memory(np.asarray(x), x.data)
    expect(np.asarray(x, np.float64), np.array([1.5, 2.5]))
    assert not np.shares_memory(np.array(x), x.data)


def test_numpy_functions_refuse_a_tensor_rather_than_lose_its_gradient():
    x = Tensor([1.0])
    with expect_error(TypeError):
        np.exp(x)


def test_a_misspelt_attribute_is_an_error():
    x = Tensor([1.0])
    with expect_error(AttributeError, "gard"):
        x.gard = np.ones(1)


def test_tensors_are_told_apart_by_identity_in_a_set():
    x, y = Tensor([1.0, 2.0]), Tensor([1.0, 2.0])
    expect(len({x, y, x}), 2)


# 02.9 result_type


@pytest.mark.parametrize(
    ("operands", "dtype"),
    [
        ((np.ones(3, np.float32), np.ones(3, np.float64)), "float64"),
        ((np.ones(3, np.int32), np.ones(3, np.int64)), "int64"),
        ((np.ones(3, np.uint8), np.ones(3, np.int8)), "int16"),  # the least that holds both
        ((np.ones(3, np.float32), np.ones(3, np.int64)), "float32"),  # numpy alone says float64
        ((np.ones(3, np.float16), np.ones(3, np.int64)), "float16"),
        ((np.ones(3, np.int32), np.ones(3, bool)), "int32"),
        ((np.ones(3, np.uint8), np.ones(3, bool)), "uint8"),
        ((np.ones(3, bool), np.ones(3, bool)), "bool"),
        ((np.ones(3, np.float32), 0.5), "float32"),
        ((np.ones(3, np.float16), 0.5), "float16"),
        ((np.ones(3, np.float64), 2), "float64"),
        ((np.ones(3, np.int64), 0.5), "float32"),  # numpy alone says float64
        ((np.ones(3, np.uint8), 2), "uint8"),
        ((np.ones(3, bool), 2), "int64"),
        ((np.ones(3, bool), True), "bool"),
        ((np.ones(3, np.int32), True), "int32"),
        ((np.ones(3, np.float32), np.float64(0.5)), "float32"),  # no axes, so it does not count for more
        ((np.ones(3, np.float32), np.array(0.5)), "float32"),
        ((np.ones(3, np.int64), np.array(0.5)), "float64"),  # but floats come before integers
        ((np.array(0.5, np.float32), np.array(0.5, np.float64)), "float64"),
        ((np.array(0.5, np.float16), 0.5), "float16"),
        ((np.ones(0, np.float64), np.ones(3, np.float32)), "float64"),
        ((np.ones((), np.int64), np.ones(1, np.int32)), "int32"),
        ((1, 0.5), "float32"),
        ((True, 1), "int64"),
        ((np.float64(1), 0.5), "float64"),
        ((np.ones(3, np.float32), [1, 2, 3]), "float32"),
    ],
)
def test_two_operands_meet_in_one_dtype(operands, dtype):
    expect(result_type(*operands), np.dtype(dtype))
    expect(result_type(*reversed(operands)), np.dtype(dtype))


def test_any_number_of_operands_meet_in_one_dtype():
    expect(result_type(np.ones(3, np.uint8)), np.dtype("uint8"))
    expect(result_type(1.5, np.ones(3, np.int32), True), np.dtype("float32"))
    expect(
        result_type(np.ones(2, np.float16), np.ones(2, np.int64), np.ones(2, np.float32)), np.dtype("float32")
    )


@pytest.mark.parametrize(
    ("operands", "dtype"),
    [
        # Two at a time, the first two would meet in a float64 with axes, which stays float64.
        ((np.ones(3, np.int64), np.float64(1), np.ones(3, np.float32)), "float32"),
        ((np.ones(3, np.float64), np.ones(3, np.float32), np.ones(3, np.float32)), "float64"),
        ((np.ones(3, bool), np.int64(1), np.ones(3, np.uint8)), "uint8"),
        ((np.ones(3, np.int32), 0.5, np.float16(1)), "float16"),
    ],
)
def test_three_operands_meet_all_at_once(operands, dtype):
    for order in itertools.permutations(operands):
        expect((order, result_type(*order)), (order, np.dtype(dtype)))


# 02.10 elementwise, and the operations that are made of it


def test_the_function_gets_both_operands_in_one_dtype():
    dtypes = elementwise(lambda a, b: [str(a.dtype), str(b.dtype)], np.array([1, 2]), 0.5)
    expect(dtypes, ["float32", "float32"])


def test_arithmetic_by_hand():
    x, y = Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), Tensor([10.0, 20.0, 30.0])
    expect(x + y, f32([[11, 22, 33], [14, 25, 36]]))
    expect(x - y, f32([[-9, -18, -27], [-6, -15, -24]]))
    expect(x * y, f32([[10, 40, 90], [40, 100, 180]]))
    expect(maximum(x, 3.5), f32([[3.5, 3.5, 3.5], [4, 5, 6]]))


def test_a_column_and_a_row_make_a_table():
    column, row = Tensor([[1], [2], [3]]), Tensor([10, 20])
    expect(column * row, np.array([[10, 20], [20, 40], [30, 60]]))


def test_operators_work_from_the_right_too():
    x = Tensor([1.0, 4.0])
    expect(10 + x, f32([11, 14]))
    expect(10.0 - x, f32([9, 6]))
    expect(3 * x, f32([3, 12]))
    expect(-(x - 2), f32([1, -2]))
    expect(2**70 * x, f32([2.0**70, 2.0**72]))  # which no integer of numpy's can hold
    expect(x * 2**70, f32([2.0**70, 2.0**72]))
    expect(abs(x - 2), f32([1, 2]))


@pytest.mark.parametrize("left", [f32([1, 2, 3]), np.float32(5), np.float64(5), np.arange(3)])
def test_an_array_on_the_left_gives_a_tensor(left):
    x = Tensor([1.0, 2.0, 4.0])
    for result, expected in [(left + x, left + x.data), (left - x, left - x.data), (left * x, left * x.data)]:
        assert isinstance(result, Tensor)
        expect(result, np.asarray(expected, np.float32))


def test_comparisons_give_bools():
    x, y = Tensor([1.0, 2.0, 3.0]), Tensor([3.0, 2.0, 1.0])
    expect(x < y, np.array([True, False, False]))
    expect(x <= y, np.array([True, True, False]))
    expect(x > y, np.array([False, False, True]))
    expect(x >= y, np.array([False, True, True]))
    expect(x == y, np.array([False, True, False]))
    expect(x != y, np.array([True, False, True]))
    expect(x > 2, np.array([False, False, True]))
    expect(np.array([5, 0, 5]) > x, np.array([True, False, True]))


def test_comparing_takes_the_better_dtype():
    expect(compare(np.array([1, 2]), 1.5, test=np.less), np.array([True, False]))


def test_float64_is_kept_and_float32_is_not_left():
    wide, narrow = Tensor(np.ones(2)), Tensor([0.5, 1.5])
    expect(wide + 0.25, np.array([1.25, 1.25]))
    expect(narrow * np.sqrt(4.0), f32([1, 3]))  # np.sqrt gives a float64
    expect(narrow + wide, np.array([1.5, 2.5]))
    expect(narrow.data[:1].sum() * narrow, f32([0.25, 0.75]))


def test_integers_beside_a_float_become_float32():
    expect(Tensor([1, 2]) * 0.5, f32([0.5, 1.0]))
    expect(Tensor([1, 2]) + Tensor([0.5, 0.5]), f32([1.5, 2.5]))
    expect(Tensor([True, False]) * 3, np.array([3, 0]))


def test_sharing_no_memory_with_the_operands():
    x = Tensor([1.0, 2.0])
    (x + 0.0).data[0] = 9
    (x * 1.0).data[0] = 9
    (x / 1).data[0] = 9
    (x**1).data[0] = 9
    maximum(x, -1.0).data[0] = 9
    where(True, x, 0.0).data[0] = 9
    expect(x, f32([1, 2]))


def test_views_add_up_like_anything_else():
    x = np.arange(12.0).reshape(3, 4)
    expect(Tensor(x[::-1, ::2]) + Tensor(x.T[:2]).data.T, np.array([[8.0, 11], [8, 11], [8, 11]]))
    expect(Tensor(x[:0]) + 1.0, np.zeros((0, 4)))
    expect(Tensor(np.broadcast_to(x[0], (2, 4))) - x[0], np.zeros((2, 4)))


def test_shapes_that_do_not_meet_are_named_by_every_operation():
    x, y = Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), Tensor([1.0, 2.0])
    for work in (
        lambda: x + y,
        lambda: x - y,
        lambda: x * y,
        lambda: x < y,
        lambda: maximum(x, y),
        lambda: elementwise(np.add, x.data, y.data),
    ):
        with expect_error(ValueError, "(2, 3)", "(2,)", "axis -1"):
            work()


@pytest.mark.parametrize("error", [ValueError, TypeError, ZeroDivisionError])
def test_other_errors_come_through_with_their_own_words(error):
    def refuses(a, b):
        raise error("no more today")

    for b in (f32([2]), f32([[2], [3], [4]])):
        with expect_error(error, "no more today"):
            elementwise(refuses, f32([1, 5]), b)


# 02.11 floating, div


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_stay_as_they_are(dtype):
    array = np.ones(2, dtype)
    expect_itself(floating(array), array)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64"])
def test_integers_become_float32(dtype):
    expect(floating(np.ones(2, dtype)), f32([1, 1]))


def test_a_python_number_becomes_a_float32_array():
    expect(floating(3), f32(3))
    expect(floating(0.5), f32(0.5))
    expect(floating([0.5, 1.5]), f32([0.5, 1.5]))
    expect(floating(np.float64(0.5)), np.array(0.5))


def test_the_usual_functions():
    x = Tensor([0.0, 1.0, 4.0])
    expect(x.exp(), f32([1, math.e, math.e**4]))
    expect(x.sqrt(), f32([0, 1, 2]))
    expect(x.tanh(), f32([0, math.tanh(1), math.tanh(4)]))
    expect(Tensor([1.0, math.e]).log(), f32([0, 1]))


@pytest.mark.parametrize("function", [exp, log, sqrt, tanh], ids=["exp", "log", "sqrt", "tanh"])
def test_a_function_of_integers_is_float32_and_of_float64_stays(function):
    expect(function(Tensor([1, 2])).dtype, np.dtype(np.float32))
    expect(function(Tensor(np.array([1.0, 2.0]))).dtype, np.dtype(np.float64))
    expect(function(2).dtype, np.dtype(np.float32))


def test_absolute_values_keep_their_dtype():
    expect(absolute(Tensor([-1, 2])), np.array([1, 2]))
    expect(Tensor([-0.5]).abs(), f32([0.5]))
    expect((neg([0.5, -2.0]), neg(2)), (f32([-0.5, 2]), np.array(-2)))  # what is no array becomes one
    expect(absolute(-0.5), f32(0.5))


def test_division_by_hand():
    x = Tensor([1.0, 2.0, 3.0])
    expect(x / 2, f32([0.5, 1, 1.5]))
    expect(6 / x, f32([6, 3, 2]))
    expect(np.array([2.0, 2, 2], np.float32) / x, f32([2, 1, 2 / 3]))


def test_division_of_integers_gives_float32():
    expect(Tensor([1, 2]) / Tensor([2, 4]), f32([0.5, 0.5]))
    expect(Tensor([3, 5]) / 2, f32([1.5, 2.5]))
    expect(1 / Tensor([2, 4]), f32([0.5, 0.25]))
    expect(Tensor(np.array([51], np.uint8)) / 255, f32([0.2]))
    expect(div(1, 2), f32(0.5))


def test_division_of_small_integers_by_numbers_that_they_cannot_hold():
    pixels = Tensor(np.array([51, 102], np.uint8))
    expect(pixels / 256, f32([51 / 256, 102 / 256]))
    expect(pixels / -1, f32([-51, -102]))
    expect(pixels / Tensor(1000), f32([0.051, 0.102]))
    expect(-510 / pixels, f32([-10, -5]))


def test_division_is_rounded_once():
    """A number divided by itself is 1; times its reciprocal, which is rounded too, it often is not."""
    for dtype in (np.float32, np.float64):
        x = np.arange(1, 200, dtype=dtype)
        expect(Tensor(x) / x, np.ones_like(x), rtol=0, atol=0)
        expect(Tensor(3 * x) / 3, x, rtol=0, atol=0)
    expect(Tensor([0.0]) / 1e-40, f32([0]))  # whose reciprocal is inf in float32


def test_division_keeps_float64_and_float16():
    expect(Tensor(np.array([1.0])) / 3, np.array([1 / 3]))
    expect(Tensor(np.array(1.0, np.float16)) / 2, np.array(0.5, np.float16))
    expect(Tensor([1, 2]) / Tensor(np.array([4.0, 4.0])), np.array([0.25, 0.5]))
    expect(Tensor([1, 2]) / Tensor(np.array(4.0)), np.array([0.25, 0.5]))
    expect(Tensor([2**53 - 1]) / Tensor(np.array([1.0])), np.array([2.0**53 - 1]), rtol=0)


def test_division_names_shapes_that_do_not_meet():
    with expect_error(ValueError, "(3,)", "(2,)"):
        Tensor([1.0, 2.0, 3.0]) / Tensor([1.0, 2.0])


# 02.12 power, clip, where


def test_powers_by_hand():
    x = Tensor([1.0, 2.0, 3.0])
    expect(x**2, f32([1, 4, 9]))
    expect(x**-1, f32([1, 0.5, 1 / 3]))
    expect(x**0.5, f32([1, 2**0.5, 3**0.5]))
    expect(2**x, f32([2, 4, 8]))
    expect((-x) ** 2, f32([1, 4, 9]))
    expect((-x) ** Tensor([3.0, 3.0, 3.0]), f32([-1, -8, -27]))
    expect(x ** Tensor([3.0, 2.0, 1.0]), f32([1, 4, 3]))
    expect(power(2, 3), np.array(8))
    expect(power(2.0, 3), f32(8))


def test_powers_keep_to_the_rule_for_dtypes():
    expect(Tensor([2, 3]) ** 2, np.array([4, 9]))
    expect(Tensor([3, -3]) ** 39, np.array([3**39, -(3**39)]))  # 62 bits, of which floats have 53
    expect(Tensor([4, 9]) ** 0.5, f32([2, 3]))
    expect(Tensor(np.array([2.0])) ** 2, np.array([4.0]))
    expect(Tensor(3.0) ** 2, f32(9))
    expect(Tensor([2.0, 3.0]) ** np.float64(2), f32([4, 9]))
    expect(Tensor([2.0, 3.0]) ** True, f32([2, 3]))


def test_integers_have_no_negative_powers():
    with expect_error(ValueError):
        Tensor([2, 3]) ** -1
    with expect_error(ValueError):
        Tensor([2, 3]) ** Tensor([1, -1])
    with expect_error(ValueError, "(2,)", "(3,)"):
        Tensor([1.0, 2.0]) ** Tensor([1.0, 2.0, 3.0])


def test_clip_by_hand():
    x = Tensor([-2.0, 0.5, 7.0])
    expect(x.clip(0, 1), f32([0, 0.5, 1]))
    expect(x.clip(min=0), f32([0, 0.5, 7]))
    expect(x.clip(max=0), f32([-2, 0, 0]))
    expect(clip(x, min=-1, max=1), f32([-1, 0.5, 1]))


def test_clip_keeps_to_the_rule_for_dtypes():
    expect(Tensor([1, 5, 9]).clip(2, 6), np.array([2, 5, 6]))
    expect(Tensor([1, 5, 9]).clip(max=4.5), f32([1, 4.5, 4.5]))
    expect(Tensor(np.array([0.1, 0.9])).clip(0.25), np.array([0.25, 0.9]))
    expect(Tensor(5.0).clip(0, 1.0), f32(1))
    expect(Tensor([1, 5, 9]).clip(2.0, 6.0), f32([2, 5, 6]))
    expect(Tensor([1.0, 5.0]).clip(np.float64(2)), f32([2, 5]))
    expect(Tensor([1.0, 5.0]).clip(max=np.array(2)), f32([1, 2]))
    expect(
        Tensor(np.array([1, 200], np.uint8)).clip(np.int64(2), np.int64(100)), np.array([2, 100], np.uint8)
    )


def test_clip_loses_no_digit():
    large = np.array([2**53 + 1, -(2**53) - 1])  # neither is a float64
    expect(Tensor(large).clip(-(2**60), 2**60), large)
    expect(Tensor(large).clip(max=0), np.array([0, -(2**53) - 1]))
    expect(Tensor(np.array([0, 5, 200], np.uint8)).clip(max=100), np.array([0, 5, 100], np.uint8))
    expect(Tensor(np.array([0, 5, 200], np.uint8)).clip(-5, 300), np.array([0, 5, 200], np.uint8))
    expect(Tensor(np.array([0, 5, 200], np.uint8)).clip(10, 100), np.array([10, 10, 100], np.uint8))
    expect(Tensor(np.array([-128, 127], np.int8)).clip(-100, 100), np.array([-100, 100], np.int8))


def test_clip_copies():
    x = Tensor([0.25])
    x.clip(0, 1).data[0] = 9
    expect(x, f32([0.25]))


def test_clip_without_bounds_is_an_error():
    with expect_error(ValueError):
        Tensor([1.0]).clip()


def test_where_by_hand():
    x = Tensor([-1.0, 2.0, -3.0])
    expect(where(x < 0, 0.0, x), f32([0, 2, 0]))
    expect(where([True, False], Tensor([1, 2]), Tensor([10, 20])), np.array([1, 20]))
    expect(where(True, 1.5, 2), f32(1.5))


def test_where_does_not_look_at_what_it_does_not_choose():
    expect(where([True, False], Tensor([1.0, math.nan]), Tensor([math.inf, 2.0])), f32([1, 2]))


def test_where_broadcasts_all_three():
    condition, a, b = Tensor([[True], [False]]), Tensor([1.0, 2.0, 3.0]), Tensor(0.0)
    expect(where(condition, a, b), f32([[1, 2, 3], [0, 0, 0]]))


def test_where_keeps_to_the_rule_for_dtypes():
    expect(where([True, False], Tensor([1, 2]), 0.5), f32([1, 0.5]))
    expect(where([True, False], Tensor([1.0, 2.0]), np.float64(7)), f32([1, 7]))


def test_where_names_shapes_that_do_not_meet():
    a, b, c = Tensor([1.0, 2.0]), Tensor([1.0, 2.0, 3.0]), Tensor([True, False])
    with expect_error(ValueError, "(2,)", "(3,)"):
        where(c, a, b)
    with expect_error(ValueError, "(2,)", "(3,)"):
        where(c, b, b)
