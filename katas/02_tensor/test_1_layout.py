"""Level 1: where elements lie in memory, on examples worked out by hand."""

import re

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.tensor import (
    as_strided,
    broadcast_shapes,
    broadcast_strides,
    contiguous_strides,
    is_contiguous,
    resolve_shape,
    view_strides,
)

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
    with expect_error(ValueError, "(1, 3)", "(4,)", "axis -1"):  # and not what comes of the first two
        broadcast_shapes((2, 1), (1, 3), (4,))


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
