"""Level 1: the same elements in other shapes; joining, making and picking them."""

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.tensor import (
    Tensor,
    arange,
    concatenate,
    eye,
    full,
    ones,
    rand,
    randn,
    set_recorder,
    stack,
    where,
    zeros,
)


def f32(values):
    return np.array(values, np.float32)


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
    for axes in [(0, 0), (1, -1), (0,), (0, 2), (0, 3), (0, -3), (0, 1, 2)]:
        with expect_error(ValueError):
            x.permute(axes)


def test_transpose_wants_axes_that_are_there():
    x = Tensor(np.zeros((2, 3)))
    with expect_error(ValueError, "2"):
        x.transpose(0, 2)
    with expect_error(ValueError, "-3"):
        x.transpose(-3, 1)
    with expect_error(ValueError, "2"):
        x.transpose(2, 2)


def test_squeeze_drops_axes_of_length_1():
    x = Tensor(np.zeros((1, 3, 1)))
    expect(x.squeeze().shape, (3,))
    expect(x.squeeze(0).shape, (3, 1))
    expect(x.squeeze(-1).shape, (1, 3))
    expect(x.squeeze((0, 2)).shape, (3,))
    expect(x.squeeze(()).shape, (1, 3, 1))
    with expect_error(ValueError):
        x.squeeze(1)
    for axis in (3, -4):
        with expect_error(ValueError, str(axis)):
            x.squeeze(axis)


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
    for axis in (3, -4):
        with expect_error(ValueError, str(axis)):
            x.unsqueeze(axis)


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
    for shape in [(2, 4), (3,), (2, 1), (-2, 3), (-1, 2, 3)]:  # a new axis has no length to keep
        with expect_error(ValueError, "(2, 3)", str(shape)):
            x.expand(shape)


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
    with expect_error(ValueError, "(2, 5)"):
        concatenate([Tensor(np.zeros((n, m))) for n, m in ((2, 3), (1, 3), (2, 5))])
    with expect_error(ValueError):
        concatenate([Tensor(np.zeros(3))], axis=1)
    with expect_error(ValueError):
        concatenate([Tensor(1.0), Tensor(2.0)])  # numbers have no axis to go along
    with expect_error(ValueError):
        concatenate([])


def test_stack_names_shapes_that_differ():
    with expect_error(ValueError, "(3,)", "(4,)"):
        stack([Tensor(np.zeros(3)), Tensor(np.zeros(4))])
    with expect_error(ValueError, "(2, 1)", "(1, 2)"):
        stack([Tensor(np.zeros((2, 1))), Tensor(np.zeros((1, 2)))])
    with expect_error(ValueError, "(3,)", "(5,)"):
        stack([Tensor(np.zeros(3)), Tensor(np.zeros(3)), Tensor(np.zeros(5))])
    for axis in (2, -3):
        with expect_error(ValueError, str(axis)):
            stack([Tensor(np.zeros(3)), Tensor(np.zeros(3))], axis=axis)
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
    expect(arange(10, step=3), np.array([0, 3, 6, 9]))
    expect(arange(2, step=0.5), f32([0, 0.5, 1, 1.5]))


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
    expect(draw(9, rng=np.random.default_rng(7), dtype=wide.dtype), wide.data)


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
    expect(x[(1, 0),], np.array([[4, 5, 6], [1, 2, 3]]))  # a tuple inside of the tuple is a list
    expect(x[Tensor([1, 1, 2])], np.array([[4, 5, 6], [4, 5, 6], [7, 8, 9]]))
    expect(x[Tensor([0, 1, 2]), Tensor([2, 1, 0])], np.array([3, 5, 7]))
    expect(x[1:, Tensor([0, 2])], np.array([[4, 6], [7, 9]]))
    expect(x[Tensor(1)], np.array([4, 5, 6]))


def test_bools_pick_where_they_hold():
    x = Tensor([[1, 2, 3], [4, 5, 6]])
    expect(x[x > 2], np.array([3, 4, 5, 6]))
    expect(x[:, Tensor([True, False, True])], np.array([[1, 3], [4, 6]]))
    expect(x[Tensor([False, False])], np.zeros((0, 3), np.int64))
    expect(x[True], np.array([[[1, 2, 3], [4, 5, 6]]]))  # a bool is no 1


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


# And of all operations: what they are given stays as it was.


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
    with np.errstate(over="ignore"):  # 6**60 is inf in float32
        UNTOUCHED[name](Tensor(a), Tensor(b))
    expect((a, b), (f32([[1, 2, 3], [4, 5, 6]]), f32([[10, 20, 30], [40, 50, 60]])))
    expect((a.flags.writeable, b.flags.writeable), (True, True))
