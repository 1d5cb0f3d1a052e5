"""Level 1: each function gives the right answer, on examples worked out by hand, and says what went wrong."""

import itertools
import math
import re
import warnings
from contextlib import contextmanager

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.tensor import (
    Tensor,
    absolute,
    amax,
    amin,
    arange,
    argmax,
    as_array,
    as_strided,
    broadcast_shapes,
    broadcast_strides,
    clip,
    compare,
    concatenate,
    contiguous_strides,
    div,
    elementwise,
    exp,
    eye,
    floating,
    full,
    is_contiguous,
    log,
    maximum,
    mean,
    ones,
    power,
    rand,
    randn,
    resolve_shape,
    result_type,
    set_recorder,
    sqrt,
    stack,
    tanh,
    total,
    var,
    view_strides,
    where,
    zeros,
)


def f32(values):
    return np.array(values, np.float32)


@contextmanager
def quiet():
    """Where nan or inf is the right answer, numpy may warn of it."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def expect_itself(got, array):
    """That no other array was made."""
    expect(got, array)
    if got is not array:
        raise AssertionError("equal, but another array: expected the very one that was given")


# 02.1 contiguous_strides


@pytest.mark.parametrize(
    ("shape", "itemsize", "strides"),
    [
        ((2, 3, 4), 8, (96, 32, 8)),  # a step along axis 0 skips 3 * 4 elements of 8 bytes
        ((2, 3, 4), 4, (48, 16, 4)),
        ((5,), 1, (1,)),
        ((3, 1, 2), 8, (16, 16, 8)),
        ((1, 1), 4, (4, 4)),
        ((), 8, ()),
    ],
)
def test_strides_skip_everything_to_the_right(shape, itemsize, strides):
    expect(contiguous_strides(shape, itemsize), strides)


def test_strides_are_whole_numbers_of_bytes():
    """`np.prod` of no lengths is 1.0, and 8.0 bytes are no stride that numpy takes."""
    expect([isinstance(step, (int, np.integer)) for step in contiguous_strides((2, 3), 8)], [True, True])
    expect([isinstance(n, (int, np.integer)) for n in resolve_shape((), (1, -1))], [True, True])


def test_an_empty_array_has_a_stride_for_each_axis():
    expect(len(contiguous_strides((3, 0, 2), 8)), 3)


# 02.2 is_contiguous


@pytest.mark.parametrize(
    ("shape", "strides", "answer"),
    [
        ((2, 3), (24, 8), True),
        ((2, 3), (8, 16), False),  # column by column
        ((2, 3), (48, 8), False),  # every second row
        ((2, 3), (48, 16), False),  # every second column
        ((3,), (-8,), False),  # backwards
        ((3,), (0,), False),  # one element, three times
        ((3,), (16,), False),
        ((), (), True),
        ((4, 2, 3), (48, 24, 8), True),
        ((4, 2, 3), (72, 24, 8), False),  # the first two of three rows of 3, four times
    ],
)
def test_contiguous_means_without_gaps_row_by_row(shape, strides, answer):
    expect(is_contiguous(shape, strides, 8), answer)


def test_contiguity_depends_on_the_size_of_an_element():
    expect(is_contiguous((2, 3), (12, 4), 4), True)
    expect(is_contiguous((2, 3), (12, 4), 8), False)


def test_along_an_axis_of_length_1_no_step_is_taken():
    expect(is_contiguous((1, 3), (999, 8), 8), True)
    expect(is_contiguous((2, 1, 3), (24, -7, 8), 8), True)
    expect(is_contiguous((1, 3), (24, 16), 8), False)


def test_what_holds_nothing_has_no_gaps():
    expect(is_contiguous((0, 3), (7, 7), 8), True)
    expect(is_contiguous((3, 0), (7, 7), 8), True)


# 02.3 broadcast_shapes


@pytest.mark.parametrize(
    ("shapes", "together"),
    [
        ([(3, 1), (4,)], (3, 4)),
        ([(4,), (3, 1)], (3, 4)),
        ([(2, 3, 4), (4,)], (2, 3, 4)),
        ([(2, 3), ()], (2, 3)),
        ([(1,), (1, 1)], (1, 1)),
        ([(5, 1, 7), (6, 1)], (5, 6, 7)),
        ([(2, 1), (3,), (4, 1, 1)], (4, 2, 3)),
        ([(2, 3)], (2, 3)),
        ([], ()),
    ],
)
def test_shapes_line_up_at_the_right_and_1_stretches(shapes, together):
    expect(broadcast_shapes(*shapes), together)


def test_length_0_is_a_length_like_any_other():
    expect(broadcast_shapes((1,), (0,)), (0,))
    expect(broadcast_shapes((3, 0), (3, 1)), (3, 0))
    with expect_error(ValueError, "(0,)", "(2,)"):
        broadcast_shapes((0,), (2,))


def test_shapes_that_do_not_meet_are_named_with_the_axis():
    with expect_error(ValueError, "(2, 3)", "(4,)", "axis -1"):
        broadcast_shapes((2, 3), (4,))
    with expect_error(ValueError, "(2, 1, 3)", "(5, 1, 1)", "axis -3"):
        broadcast_shapes((2, 1, 3), (5, 1, 1))
    with expect_error(ValueError, "axis -2"):
        broadcast_shapes((2, 1), (1, 7), (3, 1))


@pytest.mark.parametrize(
    ("shapes", "lengths"),
    [(((2, 3), (4,)), {3, 4}), (((5, 1, 7), (4, 2, 1)), {5, 4}), (((3,), (1,), (9,)), {3, 9})],
)
def test_lengths_that_do_not_meet_are_named_beside_the_shapes(shapes, lengths):
    with pytest.raises(ValueError) as error:  # noqa: PT011  (its words are what is looked at)
        broadcast_shapes(*shapes)
    beside = str(error.value)
    for shape in shapes:
        beside = beside.replace(str(shape), "")
    assert lengths <= {int(number) for number in re.findall(r"\d+", beside)}


# 02.4 broadcast_strides


@pytest.mark.parametrize(
    ("shape", "strides", "target", "answer"),
    [
        ((3, 1), (8, 8), (2, 3, 4), (0, 8, 0)),
        ((4,), (8,), (3, 4), (0, 8)),
        ((3, 4), (32, 8), (3, 4), (32, 8)),
        ((4,), (-8,), (2, 4), (0, -8)),  # backwards stays backwards
        ((3, 4), (8, 24), (2, 3, 4), (0, 8, 24)),
        ((), (), (2, 2), (0, 0)),
    ],
)
def test_a_stretched_axis_has_stride_0(shape, strides, target, answer):
    expect(broadcast_strides(shape, strides, target), answer)


def test_stretching_never_shrinks():
    with expect_error(ValueError, "(3,)", "(1,)"):
        broadcast_strides((3,), (8,), (1,))
    with expect_error(ValueError, "(2, 3)", "(3,)"):
        broadcast_strides((2, 3), (24, 8), (3,))


def test_only_length_1_stretches():
    with expect_error(ValueError, "(2, 3)", "(4, 3)"):
        broadcast_strides((2, 3), (24, 8), (4, 3))


# 02.5 as_strided


def test_the_diagonal_is_a_view_with_a_longer_step():
    x = np.arange(9.0).reshape(3, 3)  # 24 bytes a row, so one row and one column further is 32
    expect(as_strided(x, (3,), (32,)), [0, 4, 8])


def test_sliding_windows_are_a_view_whose_rows_overlap():
    expect(as_strided(np.arange(5.0), (3, 3), (8, 8)), [[0, 1, 2], [1, 2, 3], [2, 3, 4]])


def test_a_view_can_go_backwards():
    x = np.arange(4.0)[::-1]  # 3, 2, 1, 0
    expect(as_strided(x, (2, 2), (-8, -16)), [[3, 1], [2, 0]])


def test_a_view_shares_its_memory():
    x = np.zeros((2, 3))
    as_strided(x, (3, 2), (8, 24))[2, 1] = 5
    expect(x, np.array([[0.0, 0, 0], [0, 0, 5]]))


def test_a_view_may_reach_the_last_byte_but_no_further():
    x = np.arange(6, dtype=np.int32)
    expect(as_strided(x, (2, 3), (12, 4)), [[0, 1, 2], [3, 4, 5]])
    with expect_error(ValueError):
        as_strided(x, (7,), (4,))
    with expect_error(ValueError):
        as_strided(x, (2, 3), (13, 4))
    with expect_error(ValueError):
        as_strided(x, (2, 3), (8, 8))


def test_a_view_may_not_begin_before_the_first_byte():
    with expect_error(ValueError):
        as_strided(np.arange(6.0), (2,), (-8,))
    with expect_error(ValueError):
        as_strided(np.arange(6.0), (3, 2), (16, -8))


def test_a_view_of_backwards_memory_may_not_go_past_its_start():
    with expect_error(ValueError):
        as_strided(np.arange(4.0)[::-1], (2,), (8,))


def test_an_axis_of_length_1_reaches_nowhere():
    expect(as_strided(np.arange(2.0), (1, 2), (1000, 8)), [[0, 1]])


def test_a_view_of_nothing_is_always_possible():
    expect(as_strided(np.arange(2.0), (0, 5), (1000, 1000)).shape, (0, 5))


def test_nothing_can_be_seen_in_an_empty_array():
    with expect_error(ValueError):
        as_strided(np.zeros((0, 3)), (1,), (8,))
    with expect_error(ValueError):
        as_strided(np.zeros(0, np.uint8), (1,), (1,))


def test_not_one_byte_too_far():
    with expect_error(ValueError):
        as_strided(np.zeros(1, np.uint8), (2,), (1,))
    with expect_error(ValueError):
        as_strided(np.zeros(1, np.uint8), (2,), (-1,))


def test_a_view_of_what_cannot_be_written_to_cannot_be_either():
    x = np.arange(6.0)
    expect(as_strided(x, (2, 3), (24, 8)).flags.writeable, True)
    x.flags.writeable = False
    expect(as_strided(x, (2, 3), (24, 8)).flags.writeable, False)


# 02.6 resolve_shape


@pytest.mark.parametrize(
    ("old", "new", "answer"),
    [
        ((2, 3), (6,), (6,)),
        ((2, 3), (3, -1), (3, 2)),
        ((2, 3), (-1,), (6,)),
        ((4,), (2, -1, 2), (2, 1, 2)),
        ((), (1, 1), (1, 1)),
        ((1,), (), ()),
        ((1,), (-1,), (1,)),
        ((0, 3), (-1, 3), (0, 3)),
        ((0, 3), (5, 0), (5, 0)),
    ],
)
def test_minus_one_stands_for_what_is_left(old, new, answer):
    expect(resolve_shape(old, new), answer)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((2, 3), (4, 2)),
        ((2, 3), (4, -1)),  # 6 is no multiple of 4
        ((2, 3), ()),
        ((2, 3), (0, -1)),
        ((0,), (0, -1)),  # anything would do, so nothing is meant
        ((1,), (-1, -1)),
        ((0,), (-1, -1)),
        ((2, 3), (-2, -3)),  # their product is 6
        ((2, 3), (-6, -1)),
    ],
)
def test_a_shape_that_cannot_be_is_named(old, new):
    with expect_error(ValueError, str(old), str(new)):
        resolve_shape(old, new)


# 02.7 view_strides


@pytest.mark.parametrize(
    ("shape", "strides", "new", "answer"),
    [
        ((2, 3, 4), (96, 32, 8), (6, 4), (32, 8)),
        ((2, 3, 4), (96, 32, 8), (24,), (8,)),
        ((24,), (8,), (2, 3, 4), (96, 32, 8)),
        ((2, 3, 4), (96, 32, 8), (3, 8), (64, 8)),
        ((6,), (-8,), (2, 3), (-24, -8)),
        ((2, 3), (48, 16), (6,), (16,)),  # every second column of (2, 6)
        ((2, 3), (0, 0), (6,), (0,)),  # one element, six times
        ((4, 6), (8, 32), (4, 3, 2), (8, 64, 32)),  # a transposed array: axis 1 can be cut
        ((5, 2, 3), (96, 24, 8), (5, 6), (96, 8)),  # two of four rows: they can be joined, but not the fives
        ((2, 3, 5, 2, 2), (900, 300, 40, 16, 8), (6, 5, 4), (300, 40, 8)),
        ((2, 3, 5, 2, 2), (900, 300, 40, 16, 8), (3, 2, 5, 4), (600, 300, 40, 8)),
        ((), (), (), ()),
    ],
)
def test_some_new_shapes_need_only_new_strides(shape, strides, new, answer):
    expect(view_strides(shape, strides, new), answer)


@pytest.mark.parametrize(
    ("shape", "strides", "new"),
    [
        ((3, 2), (8, 24), (6,)),  # a transposed array, row by row, jumps to and fro
        ((2, 3), (32, 8), (6,)),  # three of four columns: there is a gap after each row
        ((2, 3), (0, 8), (6,)),  # a row, twice
        ((4, 6), (8, 32), (2, 12)),
        ((4, 6), (8, 32), (8, 3)),
    ],
)
def test_other_new_shapes_need_a_copy(shape, strides, new):
    expect(view_strides(shape, strides, new), None)


@pytest.mark.parametrize("new", [(2, 3, 1), (1, 2, 3), (2, 1, 1, 3), (6, 1), (1, 6)])
def test_axes_of_length_1_come_and_go(new):
    x = np.arange(6.0).reshape(2, 3)
    strides = view_strides((2, 3), (24, 8), new)
    expect(np.lib.stride_tricks.as_strided(x, new, strides), x.reshape(new))
    back = view_strides(new, strides, (3, 2))
    expect(np.lib.stride_tricks.as_strided(x, (3, 2), back), x.reshape(3, 2))


def test_an_axis_of_length_1_between_two_hides_no_gap():
    expect(view_strides((2, 1, 3), (24, 999, 8), (6,)), (8,))
    expect(view_strides((2, 1, 3), (32, 8, 8), (6,)), None)


def test_nothing_can_have_any_shape_without_a_copy():
    expect(len(view_strides((2, 0), (8, 16), (0, 5, 7))), 3)


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
        (True, np.array(True)),
        ([], f32([])),
        ([2**63], np.array([2**63], np.uint64)),
        ([np.float64(0.5), np.float32(1.5)], f32([0.5, 1.5])),
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


UNTOUCHED = {
    "div": lambda a, b: a / b,
    "power": lambda a, b: a**b,
    "clip": lambda a, b: a.clip(-1, 1),
    "where": lambda a, b: where(a > 2, a, b),
    "matmul": lambda a, b: a @ b.T,
    "sum": lambda a, b: a.sum(axis=0),
    "mean": lambda a, b: a.mean(axis=0),
    "max": lambda a, b: a.max(),
    "min": lambda a, b: a.min(),
    "argmax": lambda a, b: a.argmax(),
    "var": lambda a, b: a.var(),
    "reshape": lambda a, b: a.reshape(3, 2),
    "view": lambda a, b: a.view(3, 2),
    "contiguous": lambda a, b: a.contiguous(),
    "expand": lambda a, b: a.expand(2, 3),
    "concatenate": lambda a, b: concatenate([a, b]),
    "stack": lambda a, b: stack([a, b]),
    "getitem": lambda a, b: a[b > 15],
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_no_operation_changes_its_inputs(name):
    a, b = f32([[1, 2, 3], [4, 5, 6]]), f32([[10, 20, 30], [40, 50, 60]])
    with quiet():
        UNTOUCHED[name](Tensor(a), Tensor(b))
    expect((a, b), (f32([[1, 2, 3], [4, 5, 6]]), f32([[10, 20, 30], [40, 50, 60]])))
    expect((a.flags.writeable, b.flags.writeable), (True, True))


@pytest.mark.parametrize("operation", [total, mean, amax, amin, argmax, var], ids=lambda op: op.__name__)
def test_the_function_inside_an_operation_knows_no_tensors(operation):
    assert not isinstance(operation.forward(f32([1, 2])), Tensor)


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
    expect(Tensor([4, 9]) ** 0.5, f32([2, 3]))
    expect(Tensor(np.array([2.0])) ** 2, np.array([4.0]))
    expect(Tensor(3.0) ** 2, f32(9))
    expect(Tensor([2.0, 3.0]) ** np.float64(2), f32([4, 9]))
    expect(Tensor([2.0, 3.0]) ** True, f32([2, 3]))


def test_integers_have_no_negative_powers():
    with expect_error(ValueError, "negative"):
        Tensor([2, 3]) ** -1
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
    for reduce in (total, mean, amax, amin, argmax):
        with expect_error(ValueError, "2"):
            reduce(X, axis=2)


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


# 02.16 reshape, view, contiguous


def test_reshape_reads_row_by_row():
    x = Tensor([[1, 2, 3], [4, 5, 6]])
    expect(x.reshape(3, 2), np.array([[1, 2], [3, 4], [5, 6]]))
    expect(x.reshape((6,)), np.array([1, 2, 3, 4, 5, 6]))
    expect(x.reshape([2, -1, 1]), np.array([[[1], [2], [3]], [[4], [5], [6]]]))
    expect(Tensor(np.array([[1, 2, 3], [4, 5, 6]]).T).reshape(-1), np.array([1, 4, 2, 5, 3, 6]))


def test_reshape_and_view_to_and_from_no_axes():
    expect(Tensor([[7]]).reshape(()), np.array(7))
    expect(Tensor(7).reshape(1, 1), np.array([[7]]))
    expect(Tensor([[7]]).view(()), np.array(7))


def test_reshape_names_a_shape_that_cannot_be():
    with expect_error(ValueError, "(2, 3)", "(4, 2)"):
        Tensor(np.zeros((2, 3))).reshape(4, 2)
    with expect_error(ValueError, "(2, 3)", "(4, -1)"):
        Tensor(np.zeros((2, 3))).view(4, -1)


def test_a_view_writes_through():
    x = Tensor([[1, 2, 3], [4, 5, 6]])
    x.view(3, 2).data[2, 1] = 0
    x.view(-1).data[0] = 0
    expect(x, np.array([[0, 2, 3], [4, 5, 0]]))
    Tensor(x.data[::-1]).view(2, 3, 1).data[0, 1] = 9
    expect(x, np.array([[0, 2, 3], [4, 9, 0]]))


def test_a_view_of_a_view():
    x = Tensor(np.arange(24).reshape(2, 3, 4)[:, :, ::-2])  # (2, 3, 2), strides (96, 32, -16)
    expect(x.view(6, 2), np.arange(24).reshape(6, 4)[:, ::-2])
    expect(Tensor(np.arange(6)[::-1]).view(2, 3), np.array([[5, 4, 3], [2, 1, 0]]))


def test_a_view_that_needs_a_copy_is_refused():
    x = Tensor(np.zeros((2, 3)).T)
    with expect_error(ValueError, "(3, 2)", "(6,)", "copy"):
        x.view(6)
    expect(x.reshape(6), np.zeros(6))


def test_contiguous_lays_rows_one_after_the_other():
    x = Tensor(np.array([[1, 2, 3], [4, 5, 6]]).T)
    assert not x.is_contiguous()
    y = x.contiguous()
    assert y.is_contiguous()
    expect(y, np.array([[1, 4], [2, 5], [3, 6]]))
    expect(y.strides, (16, 8))


def test_contiguous_leaves_alone_what_is_so():
    x = Tensor([1.0, 2.0])
    assert np.shares_memory(x.contiguous().data, x.data)
    expect(Tensor(2.0).contiguous(), f32(2))


# 02.17 transpose, permute, squeeze, unsqueeze, expand


def test_transpose_swaps_two_axes():
    x = Tensor(np.arange(24).reshape(2, 3, 4))
    expect(x.transpose(0, 2).shape, (4, 3, 2))
    expect(x.transpose(-1, -2).shape, (2, 4, 3))
    expect(Tensor([[1, 2, 3], [4, 5, 6]]).transpose(0, 1), np.array([[1, 4], [2, 5], [3, 6]]))


def test_permute_puts_the_axes_in_the_order_named():
    x = Tensor(np.arange(24).reshape(2, 3, 4))
    y = x.permute(1, 2, 0)
    expect(y.shape, (3, 4, 2))
    expect(y.data[2, 3, 1], 23)
    expect(y.data[1, 0, 1], 16)
    expect(x.permute((-1, 0, 1)).shape, (4, 2, 3))


def test_the_property_t_turns_the_axes_around():
    expect(Tensor([[1, 2, 3], [4, 5, 6]]).T, np.array([[1, 4], [2, 5], [3, 6]]))
    expect(Tensor(np.zeros((2, 3, 4))).T.shape, (4, 3, 2))


def test_permute_wants_each_axis_once():
    x = Tensor(np.zeros((2, 3)))
    for axes in [(0, 0), (1, -1), (0,), (0, 2), (0, 1, 2)]:
        with expect_error(ValueError):
            x.permute(axes)


def test_transpose_wants_axes_that_are_there():
    x = Tensor(np.zeros((2, 3)))
    with expect_error(ValueError, "2"):
        x.transpose(0, 2)
    with expect_error(ValueError, "-3"):
        x.transpose(-3, 1)


def test_squeeze_drops_axes_of_length_1():
    x = Tensor(np.zeros((1, 3, 1)))
    expect(x.squeeze().shape, (3,))
    expect(x.squeeze(0).shape, (3, 1))
    expect(x.squeeze(-1).shape, (1, 3))
    expect(x.squeeze((0, 2)).shape, (3,))
    expect(x.squeeze(()).shape, (1, 3, 1))
    with expect_error(ValueError):
        x.squeeze(1)


def test_a_squeezed_number_is_still_a_view():
    x = Tensor([[1.0]])
    x.squeeze().data[...] = 7
    expect(x, f32([[7]]))
    x.squeeze(0).data[0] = 8
    expect(x, f32([[8]]))


def test_unsqueeze_adds_an_axis_of_length_1():
    x = Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    expect(x.unsqueeze(0).shape, (1, 2, 3))
    expect(x.unsqueeze(1), f32([[[1, 2, 3]], [[4, 5, 6]]]))
    expect(x.unsqueeze(-1).shape, (2, 3, 1))
    with expect_error(ValueError):
        x.unsqueeze(3)


def test_expand_repeats_along_axes_of_length_1():
    x = Tensor([[1], [2]])
    expect(x.expand(2, 3), np.array([[1, 1, 1], [2, 2, 2]]))
    expect(x.expand((2, 2, 3)), np.array([[[1, 1, 1], [2, 2, 2]]] * 2))
    expect(x.expand(-1, 3), np.array([[1, 1, 1], [2, 2, 2]]))
    expect(x.expand(3, -1, 2).shape, (3, 2, 2))
    expect(Tensor(5).expand(2), np.array([5, 5]))
    expect(Tensor(np.arange(6).reshape(2, 3)[:, 1:2]).expand(-1, 2), np.array([[1, 1], [4, 4]]))


def test_what_expand_gives_cannot_be_written_to():
    x = Tensor([1.0])
    with expect_error(ValueError, "read-only"):
        x.expand(3).data[0] = 5.0
    x.data[0] = 2.0
    expect(x.expand(3), f32([2, 2, 2]))
    with expect_error(ValueError, "read-only"):
        x.expand(1).data[0] = 5.0  # its own shape, too
    with expect_error(ValueError, "read-only"):
        x.expand(3, 2).view(6).data[0] = 5.0
    x.data[0] = 3.0
    expect(x.expand(1), f32([3]))


def test_expand_names_shapes_that_do_not_fit():
    x = Tensor(np.zeros((2, 3)))
    for shape in [(2, 4), (3,), (2, 1)]:
        with expect_error(ValueError, "(2, 3)", str(shape)):
            x.expand(shape)
    with expect_error(ValueError):
        x.expand(-1, 2, 3)  # a new axis has no length to keep


# 02.18 concatenate, stack


def test_concatenate_goes_along_an_axis_that_is_there():
    x, y = Tensor([[1, 2], [3, 4]]), Tensor([[5, 6]])
    expect(concatenate([x, y]), np.array([[1, 2], [3, 4], [5, 6]]))
    expect(concatenate([x, y.T], axis=1), np.array([[1, 2, 5], [3, 4, 6]]))
    expect(concatenate((x, x), axis=-1), np.array([[1, 2, 1, 2], [3, 4, 3, 4]]))
    expect(concatenate([x]), x.data)
    expect(concatenate([x, np.zeros((0, 2), np.int64)]), x.data)


def test_stack_makes_a_new_axis():
    x, y = Tensor([1, 2]), Tensor([3, 4])
    expect(stack([x, y]), np.array([[1, 2], [3, 4]]))
    expect(stack([x, y], axis=1), np.array([[1, 3], [2, 4]]))
    expect(stack((x, y), axis=-1), np.array([[1, 3], [2, 4]]))
    expect(stack([Tensor(1.5), Tensor(2.5)]), f32([1.5, 2.5]))


def test_joined_tensors_keep_to_the_rule_for_dtypes():
    expect(concatenate([Tensor([1]), Tensor([0.5])]), f32([1, 0.5]))
    expect(concatenate([Tensor([0.5]), Tensor(np.array([2.0]))]), np.array([0.5, 2.0]))
    expect(stack([Tensor([True]), Tensor([2])]), np.array([[1], [2]]))


def test_what_is_joined_need_not_be_a_tensor():
    expect(concatenate([Tensor([1.0]), [2.0, 3.0], np.array([4])]), f32([1, 2, 3, 4]))
    expect(stack([Tensor([1, 2]), np.array([3, 4])]), np.array([[1, 2], [3, 4]]))


def test_a_joined_tensor_is_a_copy():
    x = Tensor([1.0])
    concatenate([x]).data[0] = 9
    stack([x]).data[0] = 9
    expect(x, f32([1]))


def test_concatenate_names_shapes_that_do_not_fit():
    with expect_error(ValueError, "(2, 3)", "(2, 4)"):
        concatenate([Tensor(np.zeros((2, 3))), Tensor(np.zeros((2, 4)))])
    with expect_error(ValueError, "(2, 3)", "(2, 1)"):
        concatenate([Tensor(np.zeros((2, 3))), Tensor(np.zeros((2, 1)))])
    with expect_error(ValueError, "(3,)", "(1, 3)"):
        concatenate([Tensor(np.zeros(3)), Tensor(np.zeros((1, 3)))])
    with expect_error(ValueError):
        concatenate([Tensor(np.zeros(3))], axis=1)
    with expect_error(ValueError):
        concatenate([])


def test_stack_names_shapes_that_differ():
    with expect_error(ValueError, "(3,)", "(4,)"):
        stack([Tensor(np.zeros(3)), Tensor(np.zeros(4))])
    with expect_error(ValueError, "(2, 1)", "(1, 2)"):
        stack([Tensor(np.zeros((2, 1))), Tensor(np.zeros((1, 2)))])
    with expect_error(ValueError):
        stack([])


# 02.19 factories


def test_full_takes_the_dtype_of_its_value():
    expect(full((2, 2), 1), np.array([[1, 1], [1, 1]]))
    expect(full((2,), 0.5), f32([0.5, 0.5]))
    expect(full((), True), np.array(True))
    expect(full((2,), np.float64(0.5)), np.array([0.5, 0.5]))
    expect(full((2,), np.uint8(5)), np.array([5, 5], np.uint8))
    expect(full((3,), 1, dtype=np.float64), np.array([1.0, 1, 1]))


def test_eye_has_ones_on_the_diagonal():
    expect(eye(2), f32([[1, 0], [0, 1]]))
    expect(eye(2, 3), f32([[1, 0, 0], [0, 1, 0]]))
    expect(eye(3, 2), f32([[1, 0], [0, 1], [0, 0]]))
    expect(eye(2, 0), np.zeros((2, 0), np.float32))
    expect(eye(1, dtype=np.int64), np.array([[1]]))


def test_arange_stops_before_its_end():
    expect(arange(3), np.array([0, 1, 2]))
    expect(arange(2, 5), np.array([2, 3, 4]))
    expect(arange(5, 0, -2), np.array([5, 3, 1]))
    expect(arange(0, 1, 0.25), f32([0, 0.25, 0.5, 0.75]))
    expect(arange(2.0), f32([0, 1]))
    expect(arange(1.5, 4), f32([1.5, 2.5, 3.5]))
    expect(arange(0), np.array([], np.int64))


def test_arange_rounds_each_number_only_once():
    """Steps of 0.001 after 1000 are 0.00098 when they are taken in float32."""
    thousandths = np.array([1000 + k / 1000 for k in range(1000)])
    expect(arange(1000, 1001, 0.001).data.astype(np.float64), thousandths, rtol=1e-7, atol=0)


def test_zeros_and_ones_take_a_shape_in_either_form():
    expect(zeros(2, 1) + ones(2, 1), f32([[1], [1]]))
    expect(zeros((2,)) + ones([2]), f32([1, 1]))
    expect(ones(dtype=np.int64) + zeros((), dtype=np.int64), np.array(1))


@pytest.mark.parametrize("draw", [rand, randn], ids=["rand", "randn"])
def test_the_same_generator_draws_the_same_numbers(draw):
    first = draw(3, 2, rng=np.random.default_rng(7))
    expect(draw((3, 2), rng=np.random.default_rng(7)), first.data)
    expect((first.shape, str(first.dtype)), ((3, 2), "float32"))
    assert np.unique(first.data).size == 6
    wide = draw(9, rng=np.random.default_rng(7), dtype=np.float64)
    expect(wide.dtype, np.dtype(np.float64))
    assert (wide.data != wide.data.astype(np.float32)).any()  # drawn so, not widened


def test_a_generator_moves_on(rng):
    assert rand(1, rng=rng).item() != rand(1, rng=rng).item()


def test_rand_is_uniform_between_0_and_1(rng):
    x = rand(10_000, rng=rng).data
    assert 0 <= x.min() < 0.01
    assert 0.99 < x.max() < 1
    assert np.unique(x).size > 9_900  # of 16 bits there would be 9,300 different ones, of 24 only 3 are equal
    expect(np.histogram(x, 10)[0] / 1000, np.ones(10), rtol=0.2)  # a standard deviation is 0.03


def test_randn_is_normal(rng):
    x = randn(100, 100, rng=rng).data
    expect(x.mean(), 0.0, atol=0.05)  # a standard deviation is 0.01
    expect(x.std(), 1.0, rtol=0.04)  # 0.007
    expect((np.abs(x) < 1).mean(), 0.683, atol=0.03)  # 0.005


# 02.20 Tensor.__getitem__


def test_numbers_and_slices_pick_as_in_numpy():
    x = Tensor([[1, 2, 3], [4, 5, 6]])
    expect(x[0], np.array([1, 2, 3]))
    expect(x[-1, 0], np.array(4))
    expect(x[:, 1], np.array([2, 5]))
    expect(x[::-1, 1:], np.array([[5, 6], [2, 3]]))
    expect(x[..., -1], np.array([3, 6]))
    expect(x[:, None].shape, (2, 1, 3))
    expect(x[()], x.data)


def test_arrays_lists_and_tensors_pick_too():
    x = Tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    expect(x[[2, 0]], np.array([[7, 8, 9], [1, 2, 3]]))
    expect(x[[]], np.zeros((0, 3), np.int64))
    expect(x[np.array([0, 0])], np.array([[1, 2, 3], [1, 2, 3]]))
    expect(x[Tensor([1, 1, 2])], np.array([[4, 5, 6], [4, 5, 6], [7, 8, 9]]))
    expect(x[Tensor([0, 1, 2]), Tensor([2, 1, 0])], np.array([3, 5, 7]))
    expect(x[1:, Tensor([0, 2])], np.array([[4, 6], [7, 9]]))
    expect(x[Tensor(1)], np.array([4, 5, 6]))


def test_bools_pick_where_they_hold():
    x = Tensor([[1, 2, 3], [4, 5, 6]])
    expect(x[x > 2], np.array([3, 4, 5, 6]))
    expect(x[:, Tensor([True, False, True])], np.array([[1, 3], [4, 6]]))
    expect(x[Tensor([False, False])], np.zeros((0, 3), np.int64))


def test_slices_are_views_and_picked_elements_are_copies():
    x = Tensor([1, 2, 3, 4])
    x[1:3].data[0] = 20
    x[Tensor([2, 3])].data[0] = 30
    expect(x, np.array([1, 20, 3, 4]))


def test_picking_is_an_operation_that_a_recorder_is_told_of():
    """`Tensor(self.data[index])` has the right numbers, but a gradient would not find its way back."""
    x, told = Tensor([1.0, 2.0, 3.0], requires_grad=True), []
    before = set_recorder(lambda operation, *_: told.append(operation.name))
    try:
        x[0]
        x[1:]
        x[Tensor([2, 0])]
    finally:
        set_recorder(before)
    expect(told, ["getitem", "getitem", "getitem"])


def test_one_element_is_a_tensor_of_its_dtype():
    x = Tensor(np.array([0.1, 0.2], np.float16))
    expect(x[1], np.array(0.2, np.float16))
    assert type(x[1].data) is np.ndarray


def test_an_index_out_of_range_is_an_error():
    x = Tensor([[1, 2, 3], [4, 5, 6]])
    for pick in (lambda: x[2], lambda: x[0, 3], lambda: x[0, 0, 0], lambda: x[Tensor([5])], lambda: x[0.5]):
        with expect_error(IndexError):
            pick()


def test_a_tensor_can_be_walked_row_by_row():
    rows = list(Tensor([[1, 2], [3, 4]]))
    expect(len(rows), 2)
    expect(rows[1], np.array([3, 4]))
    a, b = Tensor([5, 6])
    expect(a + b, np.array(11))
    with expect_error(TypeError):
        iter(Tensor(1.0))
