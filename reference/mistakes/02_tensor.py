"""Believable wrong solutions of kata 02.  Each takes the reference and spoils one thing in it."""

import functools
import itertools
import math

import numpy as np

from dojo.mistakes import caught_by, rewritten

# Layout.


@caught_by(1)
def strides_count_elements_instead_of_bytes(m):
    m.contiguous_strides = lambda shape, itemsize: tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


@caught_by(1)
def strides_are_those_of_columns(m):
    m.contiguous_strides = lambda shape, itemsize: tuple(
        itemsize * math.prod(shape[:i]) for i in range(len(shape))
    )


@caught_by(1)
def strides_that_are_never_used_count_too(m):
    m.is_contiguous = lambda shape, strides, itemsize: strides == m.contiguous_strides(shape, itemsize)


@caught_by(1)
def contiguous_only_means_that_the_last_step_is_one_element(m):
    m.is_contiguous = lambda shape, strides, itemsize: not shape or 0 in shape or strides[-1] == itemsize


@caught_by(4)
def contiguity_is_found_out_element_by_element(m):
    def is_contiguous(shape, strides, itemsize):
        expected = itertools.count(0, itemsize)
        indices = itertools.product(*map(range, shape))
        return all(
            sum(i * step for i, step in zip(index, strides, strict=True)) == next(expected)
            for index in indices
        )

    m.is_contiguous = is_contiguous


@caught_by(1)
def shapes_line_up_at_the_left(m):
    def broadcast_shapes(*shapes):
        met = []
        for lengths in itertools.zip_longest(*shapes, fillvalue=1):
            longer = {n for n in lengths if n != 1}
            if len(longer) > 1:
                raise ValueError(f"shapes {shapes} cannot be broadcast at axis {len(met)}")
            met.append(longer.pop() if longer else 1)
        return tuple(met)

    m.broadcast_shapes = broadcast_shapes


def _broadcast_shapes(length_of):
    """numpy's broadcasting, but for how the length that several become is found."""

    def broadcast_shapes(*shapes):
        ndim = max(map(len, shapes), default=0)
        padded = [(1,) * (ndim - len(s)) + s for s in shapes]
        met = []
        for axis, lengths in enumerate(zip(*padded, strict=True), -ndim):
            length = length_of(lengths)
            if any(n not in (1, length) for n in lengths):
                raise ValueError(f"shapes {shapes} cannot be broadcast at axis {axis}")
            met.append(length)
        return tuple(met)

    return broadcast_shapes


@caught_by(1)
def the_longest_wins_even_over_an_axis_of_length_0(m):
    m.broadcast_shapes = _broadcast_shapes(max)


@caught_by(1)
def the_first_shape_never_stretches(m):
    m.broadcast_shapes = _broadcast_shapes(lambda lengths: lengths[0])


@caught_by(1)
def shapes_meet_two_at_a_time_and_are_named_so(m):
    right = m.broadcast_shapes
    m.broadcast_shapes = lambda *shapes: functools.reduce(right, shapes, ())


@caught_by(1)
def a_stretched_axis_keeps_its_stride(m):
    m.broadcast_strides = lambda shape, strides, target: (0,) * (len(target) - len(shape)) + strides


@caught_by(1)
def an_array_may_be_expanded_to_fewer_elements(m):
    def broadcast_strides(shape, strides, target):
        m.broadcast_shapes(shape, target)
        stretched = tuple(0 if n == 1 else step for n, step in zip(shape, strides, strict=True))
        return ((0,) * len(target) + stretched)[-len(target) :]

    m.broadcast_strides = broadcast_strides


@caught_by(1)
def any_view_is_made_that_is_asked_for(m):
    m.as_strided = np.lib.stride_tricks.as_strided


@caught_by(1)
def a_view_is_refused_by_its_number_of_elements(m):
    def as_strided(array, shape, strides):
        if math.prod(shape) > array.size:
            raise ValueError(f"{shape} holds more than {array.shape}")
        return np.lib.stride_tricks.as_strided(array, shape, strides)

    m.as_strided = as_strided


@caught_by(1)
def only_the_end_of_a_view_is_looked_at(m):
    def as_strided(array, shape, strides):
        last = sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        end = sum((n - 1) * step for n, step in zip(array.shape, array.strides, strict=True))
        if last > max(end, 0) and 0 not in shape:
            raise ValueError(f"{shape} with {strides} leaves the array")
        return np.lib.stride_tricks.as_strided(array, shape, strides)

    m.as_strided = as_strided


@caught_by(1)
def minus_one_is_rounded_down(m):
    def resolve_shape(old, new):
        known = math.prod(n for n in new if n != -1)
        if -1 in new and new.count(-1) == 1 and known > 0:
            return tuple(math.prod(old) // known if n == -1 else n for n in new)
        if math.prod(new) != math.prod(old) or min(new, default=0) < 0:
            raise ValueError(f"{old} cannot become {new}")
        return new

    m.resolve_shape = resolve_shape


@caught_by(1)
def only_a_contiguous_array_can_be_viewed_anew(m):
    def view_strides(shape, strides, new):
        itemsize = abs(strides[-1]) if strides else 8
        return m.contiguous_strides(new, itemsize) if m.is_contiguous(shape, strides, itemsize) else None

    m.view_strides = view_strides


@caught_by(1)
def a_view_forgets_that_there_are_gaps_between_rows(m):
    m.view_strides = lambda shape, strides, new: tuple(
        (strides[-1] if strides else 0) * math.prod(new[i + 1 :]) for i in range(len(new))
    )


# Numbers.


@caught_by(1)
def python_floats_become_float64(m):
    def as_array(data):
        array = data.data if isinstance(data, m.Tensor) else np.asarray(data)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"not {array.dtype}")
        return array

    m.as_array = as_array


@caught_by(1)
def every_whole_number_is_an_int64(m):
    right = m.as_array
    m.as_array = lambda data: np.asarray(data, np.int64) if data.__class__ is int else right(data)


@caught_by(1)
def every_float64_is_narrowed(m):
    right = m.as_array
    m.as_array = lambda data: (
        right(data).astype(np.float32) if right(data).dtype == np.float64 else right(data)
    )


@caught_by(1)
def arrays_are_copied_on_the_way_in(m):
    right = m.as_array
    m.as_array = lambda data: right(data).copy()


@caught_by(1)
def text_and_objects_are_let_in(m):
    def as_array(data):
        if isinstance(data, m.Tensor):
            return data.data
        array = np.asarray(data)
        from_python = not isinstance(data, (np.ndarray, np.generic))
        return array.astype(np.float32) if from_python and array.dtype == np.float64 else array

    m.as_array = as_array


@caught_by(1)
def dtypes_meet_as_numpy_thinks(m):
    m.result_type = lambda *operands: np.result_type(*map(m.as_array, operands))


@caught_by(1)
def a_number_without_axes_counts_like_an_array(m):
    def result_type(*operands):
        dtypes = [m.as_array(x).dtype for x in operands]
        highest = max(m.KINDS[d.kind] for d in dtypes)
        return functools.reduce(np.promote_types, (d for d in dtypes if m.KINDS[d.kind] == highest))

    m.result_type = result_type


@caught_by(1)
def the_left_operand_decides_the_dtype(m):
    m.result_type = lambda *operands: m.as_array(operands[0]).dtype


@caught_by(1)
def every_misfit_is_said_to_be_one_of_shapes(m):
    def elementwise(function, a, b):
        a, b = m.promote(a, b)
        try:
            return function(a, b)
        except ValueError:
            raise ValueError(f"shapes {a.shape} and {b.shape} cannot be broadcast at axis -1") from None

    m.elementwise = elementwise


@caught_by(3)
def operands_are_laid_out_before_they_meet(m):
    def elementwise(function, a, b):
        a, b = m.promote(a, b)
        shape = m.broadcast_shapes(a.shape, b.shape)
        return function(np.broadcast_to(a, shape).copy(), np.broadcast_to(b, shape).copy())

    m.elementwise = elementwise


@caught_by(1)
def integers_are_divided_in_float64(m):
    m.div.forward = lambda a, b: m.elementwise(np.true_divide, a, b)


@caught_by(1)
def a_divisor_is_squeezed_into_small_integers(m):
    m.div.forward = lambda a, b: m.elementwise(lambda a, b: m.floating(a) / m.floating(b), a, b)


@caught_by(1)
def all_that_is_not_float_is_divided_in_float32(m):
    m.div.forward = lambda a, b: m.elementwise(np.divide, m.floating(a), b)


@caught_by(1)
def integers_are_divided_to_integers(m):
    def div(a, b):
        kind = m.result_type(a, b).kind
        return m.elementwise(np.true_divide if kind == "f" else np.floor_divide, a, b)

    m.div.forward = div


@caught_by(4)
def division_goes_element_by_element(m):
    right = m.div.forward

    def div(a, b):
        if np.ndim(a) == np.ndim(b) == 1 and a.shape == b.shape and a.dtype == b.dtype == np.float32:
            return np.array([x / y for x, y in zip(a, b, strict=True)], a.dtype)
        return right(a, b)

    m.div.forward = div


@caught_by(1)
def functions_of_integers_are_float64(m):
    m.floating = lambda a: m.as_array(a) if m.as_array(a).dtype.kind == "f" else m.as_array(a).astype(float)


@caught_by(1)
def powers_are_taken_by_logarithms(m):
    def power(a, b):
        dtype = m.result_type(a, b)
        with np.errstate(all="ignore"):
            return m.elementwise(lambda a, b: np.exp(b * np.log(m.floating(a))), a, b).astype(dtype)

    m.power.forward = power


@caught_by(3)
def the_exponent_is_laid_out_as_a_table(m):
    right = m.power.forward

    def power(a, b):
        if isinstance(a, np.ndarray) and isinstance(b, (int, float)):
            b = np.full(a.shape, b, m.result_type(a, b))
        return right(a, b)

    m.power.forward = power


@caught_by(4)
def a_power_goes_element_by_element(m):
    right = m.power.forward

    def power(a, b):
        if isinstance(a, np.ndarray) and a.ndim == 1 and a.dtype.kind == "f" and isinstance(b, int) and b > 0:
            return np.array([x**b for x in a.tolist()], a.dtype)
        return right(a, b)

    m.power.forward = power


@caught_by(1)
def clipping_cuts_a_float_bound_down_to_an_integer(m):
    m.clip.forward = lambda a, *, min=None, max=None: np.clip(a, min, max).astype(a.dtype)


@caught_by(1)
def clipping_is_done_in_place(m):
    right = m.clip.forward

    def clip(a, *, min=None, max=None):
        a[...] = right(a, min=min, max=max)
        return a

    m.clip.forward = clip


@caught_by(1)
def where_chooses_the_wrong_way_round(m):
    m.where.forward = lambda condition, a, b: m.elementwise(lambda a, b: np.where(condition, b, a), a, b)


@caught_by(1)
def a_batch_is_multiplied_by_np_dot(m):
    def matmul(a, b):
        try:
            return np.dot(*m.promote(a, b))
        except ValueError:
            raise ValueError(f"{np.shape(a)} and {np.shape(b)} do not multiply") from None

    m.matmul.forward = matmul


@caught_by(3)
def all_products_are_laid_out_before_they_are_summed(m):
    right = m.matmul.forward

    def matmul(a, b):
        if np.ndim(a) == np.ndim(b) == 2 and a.shape[1] == b.shape[0]:
            a, b = m.promote(a, b)
            return (a[:, :, None] * b).sum(axis=1, dtype=a.dtype)
        return right(a, b)

    m.matmul.forward = matmul


@caught_by(3)
def a_batch_lays_out_what_it_shares(m):
    right = m.matmul.forward

    def forward(a, b):
        a, b = m.promote(a, b)
        if a.ndim == 3 == b.ndim and 1 in (len(a), len(b)) and a.shape[2] == b.shape[1]:
            batch = m.broadcast_shapes(a.shape[:-2], b.shape[:-2])
            a, b = (np.ascontiguousarray(np.broadcast_to(x, batch + x.shape[-2:])) for x in (a, b))
        return right(a, b)

    m.matmul.forward = forward


@caught_by(4)
def a_product_goes_row_by_column(m):
    right = m.matmul.forward

    def matmul(a, b):
        if np.ndim(a) == np.ndim(b) == 2 and a.shape[1] == b.shape[0] < 200:
            a, b = m.promote(a, b)
            out = np.empty((len(a), b.shape[1]), a.dtype)
            for i, row in enumerate(a):
                for j, column in enumerate(b.T):
                    out[i, j] = row @ column
            return out
        return right(a, b)

    m.matmul.forward = matmul


@caught_by(4)
def a_product_is_left_to_einsum(m):
    right = m.matmul.forward

    def matmul(a, b):
        if np.ndim(a) == np.ndim(b) == 2 and a.shape[1] == b.shape[0]:
            return np.einsum("ij,jk->ik", *m.promote(a, b))
        return right(a, b)

    m.matmul.forward = matmul


@caught_by(1)
def lists_of_any_floats_become_float32(m):
    rewritten(m, "as_array", ("array.dtype == np.float64", "array.dtype.kind == 'f'"))


@caught_by(1)
def powers_of_integers_are_rounded_as_floats(m):
    def whole(a, b):
        if a.dtype.kind == "f" or (b < 0).any():
            return np.power(a, b)
        return np.rint(np.float_power(a, b)).astype(a.dtype)

    right = m.power.forward
    m.power.forward = lambda a, b: (
        right(a, b) if m.result_type(a, b).kind == "f" else m.elementwise(whole, a, b)
    )


# Reductions.


@caught_by(1)
def an_axis_is_what_stays(m):
    def total(a, *, axis=None, keepdims=False):
        if isinstance(axis, int):
            axis = tuple(i for i in range(a.ndim) if i != axis % a.ndim)
        return a.sum(axis=axis, dtype=None if a.dtype.kind == "f" else np.int64, keepdims=keepdims)

    m.total.forward = total


@caught_by(1)
def keepdims_is_not_looked_at(m):
    m.amax.forward = lambda a, *, axis=None, keepdims=False: a.max(axis)


@caught_by(1)
def small_integers_wrap_around_when_summed(m):
    m.total.forward = lambda a, *, axis=None, keepdims=False: a.sum(axis, a.dtype, keepdims=keepdims)


@caught_by(4)
def columns_are_summed_one_after_the_other(m):
    right = m.total.forward

    def total(a, *, axis=None, keepdims=False):
        if axis == 0 and a.ndim == 2 and not keepdims and a.shape[1] and a.dtype.kind == "f":
            return np.array([column.sum() for column in a.T])
        return right(a, axis=axis, keepdims=keepdims)

    m.total.forward = total


@caught_by(3)
def a_mean_divides_before_it_sums(m):
    def mean(a, *, axis=None, keepdims=False):
        a = m.floating(a)
        with np.errstate(all="ignore"):
            sums = a.sum(axis, keepdims=True)
            parts = a / (a.size / max(sums.size, 1)) if a.size else a
            return parts.sum(axis, keepdims=keepdims) if a.size else a.mean(axis, keepdims=keepdims)

    m.mean.forward = mean


@caught_by(1)
def argmax_takes_the_last_of_several(m):
    def argmax(a, *, axis=None, keepdims=False):
        backwards = np.flip(a, axis)
        n = a.size if axis is None else a.shape[axis]
        return n - 1 - np.argmax(backwards, axis=axis, keepdims=keepdims)

    m.argmax.forward = argmax


def _var(m, variance):
    """A variance by `variance(a, mean, n, correction, axis, keepdims)`."""

    def var(a, *, axis=None, correction=1, keepdims=False):
        a = m.floating(a)
        mean = a.mean(axis, keepdims=True)
        n = a.size // max(mean.size, 1)
        return variance(a, mean, n, correction, axis, keepdims)

    m.var.forward = var


@caught_by(1)
def the_variance_divides_by_n(m):
    _var(m, lambda a, mean, n, correction, axis, keepdims: ((a - mean) ** 2).mean(axis, keepdims=keepdims))


@caught_by(1)
def the_variance_is_the_mean_of_squares_less_the_square_of_the_mean(m):
    def variance(a, mean, n, correction, axis, keepdims):
        squares = (a * a).mean(axis, keepdims=True) - mean * mean
        out = squares * (n / max(n - correction, 0) if n > correction else math.inf)
        return out if keepdims else out.reshape(a.sum(axis).shape)

    _var(m, variance)


@caught_by(1)
def the_variance_subtracts_the_mean_in_place(m):
    def variance(a, mean, n, correction, axis, keepdims):
        a -= mean
        return (a * a).sum(axis, keepdims=keepdims) / max(n - correction, 0)

    _var(m, variance)


@caught_by(3)
def the_variance_keeps_distances_beside_their_squares(m):
    def variance(a, mean, n, correction, axis, keepdims):
        distances = a - mean
        squares = distances * distances
        return squares.sum(axis, keepdims=keepdims) / max(n - correction, 0)

    _var(m, variance)


@caught_by(1)
def an_axis_of_a_variance_is_counted_round(m):
    right = m.var.forward

    def forward(a, *, axis=None, correction=1, keepdims=False):
        axis = axis % max(a.ndim, 1) if isinstance(axis, int) else axis
        return right(a, axis=axis, correction=correction, keepdims=keepdims)

    m.var.forward = forward


@caught_by(1)
def an_axis_from_the_end_is_counted_round(m):
    def spoil(operation):
        right = operation.forward

        def forward(a, *, axis=None, keepdims=False):
            if isinstance(axis, int) and axis < 0 and a.ndim:
                axis %= a.ndim
            return right(a, axis=axis, keepdims=keepdims)

        operation.forward = forward

    for operation in (m.total, m.mean, m.amax, m.amin, m.argmax):
        spoil(operation)


@caught_by(1)
def large_unsigned_integers_are_summed_unsigned(m):
    rewritten(m, "total", ("np.int64", "(np.uint64 if a.dtype == np.uint64 else np.int64)"))


# Shape.


@caught_by(3)
def reshape_always_copies(m):
    m.reshape.forward = lambda a, *, shape: a.copy().reshape(m.resolve_shape(a.shape, shape))


@caught_by(1)
def a_view_is_a_copy_when_it_has_to_be(m):
    m.view.forward = m.reshape.forward


@caught_by(3)
def a_view_is_made_by_reshape_and_looked_at_afterwards(m):
    def view(a, *, shape):
        reshaped = m.reshape.forward(a, shape=shape)
        if a.size and not np.may_share_memory(a, reshaped):
            raise ValueError(f"shape {a.shape} needs a copy to become {reshaped.shape}")
        return reshaped

    m.view.forward = view


@caught_by(1)
def contiguous_gives_a_number_an_axis(m):
    m.contiguous.forward = np.ascontiguousarray


@caught_by(1)
def transposing_only_renames_the_axes(m):
    def transpose(a, *, axis0, axis1):
        shape = list(a.shape)
        shape[axis0], shape[axis1] = shape[axis1], shape[axis0]
        return a.reshape(shape)

    m.transpose.forward = transpose


@caught_by(1)
def an_axis_is_swapped_with_itself_wherever_it_is(m):
    right = m.transpose.forward
    m.transpose.forward = lambda a, *, axis0, axis1: (
        a if axis0 == axis1 else right(a, axis0=axis0, axis1=axis1)
    )


@caught_by(1)
def permute_sends_axes_away_instead_of_fetching_them(m):
    def permute(a, *, axes):
        np.transpose(a, axes)
        return np.transpose(a, np.argsort([axis % a.ndim for axis in axes]))

    m.permute.forward = permute


@caught_by(3)
def permute_copies(m):
    m.permute.forward = lambda a, *, axes: np.transpose(a, axes).copy()


@caught_by(1)
def what_expand_gives_can_be_written_to(m):
    def expand(a, *, shape):
        extra = len(shape) - a.ndim
        shape = tuple(a.shape[i - extra] if n == -1 and i >= extra else n for i, n in enumerate(shape))
        return m.as_strided(a, shape, m.broadcast_strides(a.shape, a.strides, shape))

    m.expand.forward = expand


@caught_by(3)
def expand_repeats_the_elements(m):
    right = m.expand.forward

    def expand(a, *, shape):
        repeated = right(a, shape=shape)
        if repeated.nbytes < 1 << 26:  # more would not fit into every computer
            repeated = repeated.copy()
        repeated.flags.writeable = False
        return repeated

    m.expand.forward = expand


@caught_by(1)
def an_axis_to_be_squeezed_is_counted_round(m):
    rewritten(m, "squeeze", ("(a, axis)", "(a, axis % a.ndim if isinstance(axis, int) else axis)"))


@caught_by(1)
def axes_to_be_permuted_are_counted_round(m):
    rewritten(m, "permute", ("(a, axes)", "(a, [axis % a.ndim for axis in axes])"))


@caught_by(1)
def any_negative_length_is_kept_by_expand(m):
    rewritten(m, "expand", ("n == -1", "n < 0"))


@caught_by(1)
def expand_to_a_new_axis_of_minus_1_is_named_by_numpy(m):
    rewritten(m, "expand", ("if any(n < 0 for n in shape):", "if False:"))


# Joining, making, picking.


@caught_by(3)
def arrays_are_joined_two_at_a_time(m):
    right = m.join.forward

    def join(*arrays, axis):
        if len(arrays) < 3:
            return right(*arrays, axis=axis)
        joined = functools.reduce(lambda a, b: right(a, b, axis=axis)[0], arrays)
        return joined, [np.shape(a)[axis] for a in arrays]

    m.join.forward = join


@caught_by(2)
def join_says_how_many_rows_each_array_had_whatever_the_axis(m):
    right = m.join.forward
    m.join.forward = lambda *arrays, axis: (right(*arrays, axis=axis)[0], [len(a) for a in arrays])


@caught_by(1)
def numbers_are_joined_as_if_they_had_an_axis(m):
    right = m.join.forward
    m.join.forward = lambda *arrays, axis: right(
        *(a if np.ndim(a) else np.atleast_1d(a) for a in arrays), axis=axis
    )


@caught_by(1)
def stack_joins_along_an_axis_that_is_there(m):
    m.stack = lambda tensors, axis=0: m.concatenate(tensors, axis)


@caught_by(2)
def stack_leaves_the_operations_behind_and_with_them_the_gradient(m):
    right = m.stack
    m.stack = lambda tensors, axis=0: m.Tensor(right([m.as_array(t) for t in tensors], axis).data)


@caught_by(1)
def eye_is_float64(m):
    m.eye = lambda n, cols=None, dtype=None: m.Tensor(np.eye(n, cols, dtype=dtype or float))


@caught_by(1)
def arange_counts_in_float32(m):
    def arange(start, stop=None, step=1):
        first, end = (0, start) if stop is None else (start, stop)
        return m.Tensor(np.arange(first, end, step, dtype=m.result_type(first, end, step)))

    m.arange = arange


@caught_by(1)
def random_numbers_come_from_a_generator_of_their_own(m):
    right = m.rand
    m.rand = lambda *shape, rng, dtype=np.float32: right(*shape, rng=np.random.default_rng(0), dtype=dtype)


@caught_by(3)
def random_numbers_are_drawn_in_float64(m):
    m.randn = lambda *shape, rng, dtype=np.float32: m.Tensor(
        rng.standard_normal(m.as_shape(shape)).astype(dtype)
    )


@caught_by(1)
def a_slice_is_a_copy(m):
    m.getitem.forward = lambda a, *, index: a[index].copy()


@caught_by(1)
def picking_is_no_operation_and_loses_the_gradient(m):
    m.Tensor.__getitem__ = lambda self, index: m.Tensor(
        self.data[tuple(m.as_array(i) if isinstance(i, m.Tensor) else i for i in index)]
        if isinstance(index, tuple)
        else self.data[index.data if isinstance(index, m.Tensor) else index]
    )


@caught_by(1)
def a_bool_is_taken_for_a_number(m):
    right = m.Tensor.__getitem__
    m.Tensor.__getitem__ = lambda self, index: right(self, int(index) if isinstance(index, bool) else index)


@caught_by(2)
def an_index_keeps_its_tensors(m):
    m.Tensor.__getitem__ = lambda self, index: m.getitem(self, index=index)


@caught_by(4)
def rows_are_picked_one_by_one(m):
    def getitem(a, *, index):
        first = index[0] if len(index) == 1 else None
        if isinstance(first, np.ndarray) and first.dtype.kind == "i" and first.ndim == 1 and first.size:
            return np.stack([a[i] for i in first])
        return a[index]

    m.getitem.forward = getitem


@caught_by(1)
def where_writes_into_its_last_argument(m):
    right = m.where.forward

    def where(condition, a, b):
        a, b = m.promote(a, b)
        if np.shape(condition) != b.shape:
            return right(condition, a, b)
        np.copyto(b, a, where=condition)
        return b

    m.where.forward = where


@caught_by(1)
def where_multiplies_by_its_condition(m):
    m.where.forward = lambda condition, a, b: m.elementwise(
        lambda a, b: np.asarray(condition) * a + ~np.asarray(condition) * b, a, b
    )


@caught_by(1)
def expand_to_its_own_shape_freezes_the_input(m):
    right = m.expand.forward

    def expand(a, *, shape):
        out = a if shape == a.shape else right(a, shape=shape)
        out.flags.writeable = False
        return out

    m.expand.forward = expand


@caught_by(1)
def the_largest_is_where_the_negative_is_smallest(m):
    m.argmax.forward = lambda a, *, axis=None, keepdims=False: np.argmin(-a, axis=axis, keepdims=keepdims)


@caught_by(1)
def eye_takes_no_columns_for_none_given(m):
    m.eye = lambda n, cols=None, dtype=np.float32: m.Tensor(np.eye(n, cols or n, dtype=dtype))


@caught_by(1)
def vectors_times_batches_lose_the_first_axis(m):
    right = m.matmul.forward

    def matmul(a, b):
        if np.ndim(a) == 1 and np.ndim(b) > 1:
            return right(a[None], b)[0]
        return right(a, b)

    m.matmul.forward = matmul


@caught_by(1)
def pieces_that_broadcast_can_be_joined(m):
    def join(*arrays, axis):
        shapes = [list(np.shape(a)) for a in arrays]
        try:
            lengths, out = [s[axis] for s in shapes], shapes[0]
            out[axis] = sum(lengths)
            joined, start = np.empty(out, m.result_type(*arrays)), 0
            for a, n in zip(arrays, lengths, strict=True):
                np.swapaxes(joined, 0, axis)[start : start + n] = np.swapaxes(a, 0, axis)
                start += n
        except (ValueError, IndexError):
            raise ValueError(f"cannot join {[np.shape(a) for a in arrays]}") from None
        return joined, lengths

    m.join.forward = join


@caught_by(1)
def random_float64_are_widened_float32(m):
    right = m.rand
    m.rand = lambda *shape, rng, dtype=np.float32: m.Tensor(
        right(*shape, rng=rng).data.astype(dtype, copy=False)
    )


@caught_by(1)
def a_mean_is_made_of_tensors(m):
    def mean(a, *, axis=None, keepdims=False):
        with np.errstate(all="ignore"):
            sums = m.total(a, axis=axis, keepdims=keepdims)
            return sums / (a.size // max(sums.size, 1))

    m.mean.forward = mean


@caught_by(3)
def pieces_are_converted_before_they_are_joined(m):
    right = m.join.forward

    def join(*arrays, axis):
        dtype = m.result_type(*arrays) if arrays else None
        return right(*[np.asarray(a, dtype) for a in arrays], axis=axis)

    m.join.forward = join


@caught_by(4)
def the_largest_is_looked_for_in_a_loop(m):
    right = m.amax.forward

    def amax(a, *, axis=None, keepdims=False):
        if a.ndim == 1 and a.size and axis is None and not keepdims and a.dtype == np.float32:
            return np.float32(math.nan if np.isnan(a).any() else max(a.tolist()))
        return right(a, axis=axis, keepdims=keepdims)

    m.amax.forward = amax


@caught_by(1)
def a_stride_is_a_float_where_no_axis_follows(m):
    m.contiguous_strides = lambda shape, itemsize: tuple(
        itemsize * np.prod(shape[axis + 1 :]) for axis in range(len(shape))
    )


@caught_by(1)
def lengths_that_do_not_meet_are_not_named(m):
    right = m.broadcast_shapes

    def broadcast_shapes(*shapes):
        try:
            return right(*shapes)
        except ValueError as error:
            axis = str(error).rpartition(" ")[2]
            raise ValueError(f"shapes {shapes} cannot be broadcast at axis {axis}") from None

    m.broadcast_shapes = broadcast_shapes


@caught_by(1)
def a_view_can_be_written_to_where_its_array_cannot(m):
    right = m.as_strided

    def as_strided(array, shape, strides):
        if array.flags.writeable or not array.size:
            return right(array, shape, strides)
        right(array, shape, strides)
        array = array.view()
        memory = {"data": (array.ctypes.data, False), "shape": shape, "strides": strides}

        class Memory:
            __array_interface__ = {**memory, "typestr": array.dtype.str, "version": 3}  # noqa: RUF012
            base = array

        return np.asarray(Memory())

    m.as_strided = as_strided


@caught_by(1)
def dtypes_meet_two_at_a_time(m):
    right = m.result_type

    def result_type(*operands):
        met, *others = operands
        for other in others:
            axes = max(np.ndim(met), np.ndim(other))
            met = np.ones((1,) * axes, right(met, other))
        return right(met)

    m.result_type = result_type


@caught_by(1)
def any_error_is_said_to_be_one_of_shapes(m):
    def elementwise(function, a, b):
        a, b = m.promote(a, b)
        try:
            return function(a, b)
        except Exception:
            m.broadcast_shapes(a.shape, b.shape)
            raise ValueError(f"shapes {a.shape} and {b.shape} do not go together") from None

    m.elementwise = elementwise


@caught_by(1)
def a_quotient_is_a_product_with_the_reciprocal(m):
    right = m.div.forward
    m.div.forward = lambda a, b: m.mul.forward(m.floating(a), right(1, b))


@caught_by(1)
def integers_to_negative_powers_are_0(m):
    right = m.power.forward

    def forward(a, b):
        if np.ndim(b) and m.result_type(a, b).kind != "f":
            return np.where(b < 0, 0, right(a, np.maximum(b, 0)))
        return right(a, b)

    m.power.forward = forward


@caught_by(1)
def the_first_power_is_the_operand_itself(m):
    right = m.power.forward
    m.power.forward = lambda a, b: a if b.__class__ is int and b == 1 else right(a, b)


def _clip(m, bring):
    """Clipping by maximum and minimum, of an array and bounds that `bring(a, bound)` has prepared."""

    def clip(a, *, min=None, max=None):
        if min is None and max is None:
            raise ValueError("clip needs a bound")
        for bound, choose in ((min, np.maximum), (max, np.minimum)):
            a = a if bound is None else choose(*bring(a, bound))
        return a

    m.clip.forward = clip


@caught_by(1)
def whole_bounds_are_taken_for_integers(m):
    _clip(m, lambda a, bound: m.promote(a, int(bound) if bound == int(bound) else bound))


@caught_by(1)
def clipping_goes_through_float64(m):
    _clip(
        m,
        lambda a, bound: m.promote(
            np.asarray(np.clip(np.asarray(a, float), -np.inf, np.inf), m.result_type(a, bound)), bound
        ),
    )


@caught_by(1)
def a_bound_brings_its_own_dtype(m):
    _clip(m, lambda a, bound: (np.asarray(a, m.result_type(a, bound)), bound))


@caught_by(1)
def an_upper_bound_is_a_lower_one_of_the_negative(m):
    def clip(a, *, min=None, max=None):
        if min is None and max is None:
            raise ValueError("clip needs a bound")
        out = a
        if min is not None:
            out = m.maximum.forward(out, min)
        if max is not None:
            low, out = m.promote(max, out)
            out = -np.maximum(-out, -low)
        return out

    m.clip.forward = clip


@caught_by(1)
def a_number_that_is_squeezed_is_a_copy(m):
    right = m.squeeze.forward

    def squeeze(a, *, axis=None):
        out = right(a, axis=axis)
        return out if out.ndim else a[(0,) * a.ndim]

    m.squeeze.forward = squeeze


@caught_by(1)
def expand_to_its_own_shape_can_be_written_to(m):
    right = m.expand.forward
    m.expand.forward = lambda a, *, shape: a if shape == a.shape else right(a, shape=shape)


@caught_by(1)
def what_is_joined_must_have_a_shape(m):
    right = m.join.forward
    m.join.forward = lambda *arrays, axis: (right(*arrays, axis=axis)[0], [a.shape[axis] for a in arrays])


@caught_by(1)
def full_knows_only_pythons_numbers(m):
    def full(shape, value, dtype=None):
        kind = {bool: np.bool_, int: np.int64}.get(type(value), np.float32)
        return m.Tensor(np.full(shape, value, dtype or kind))

    m.full = full


@caught_by(1)
def random_numbers_have_16_bits(m):
    right = m.rand

    def rand(*shape, rng, dtype=np.float32):
        if dtype != np.float32:
            return right(*shape, rng=rng, dtype=dtype)
        drawn = rng.integers(0, 1 << 16, m.as_shape(shape), np.uint16)
        return m.Tensor(np.float32(drawn) / np.float32(1 << 16))

    m.rand = rand


@caught_by(1)
def only_the_first_shapes_are_named(m):
    rewritten(m, "join", ("join shapes {shapes}", "join shapes {shapes[:2]}"))


@caught_by(1)
def only_the_first_shapes_are_named_by_stack(m):
    rewritten(m, "stack", ("stack shapes {shapes}", "stack shapes {shapes[:2]}"))


@caught_by(1)
def an_axis_to_stack_along_is_counted_round(m):
    words = "    return join("
    rewritten(m, "stack", (words, "    axis %= len(shapes[0]) + 1\n" + words))


@caught_by(1)
def only_the_name_of_float64_is_float64(m):
    dtype = "np.float64 if dtype is np.float64 else np.float32"
    rewritten(m, "rand", (", dtype))", f", {dtype}))"))
    rewritten(m, "randn", (", dtype))", f", {dtype}))"))


@caught_by(1)
def a_tuple_of_one_index_is_that_index(m):
    right = m.getitem.forward
    m.getitem.forward = lambda a, *, index: right(
        a, index=index[0] if isinstance(index, tuple) and len(index) == 1 else index
    )


SAME_LENGTH = "a shape and its strides have the same length"
EITHER_WAY = "the other way round gives the same, but for the order of words in an error"
ONLY_FASTER = "without the short cut the answer is the same, only later"
NO_STEP = "a reach of 0 adds nothing on either side"

# fmt: off
EQUIVALENT = {
    "is_contiguous: zip(shape, strides, packed, strict=True) -> zip(shape, strides, packed, strict=False)":
        SAME_LENGTH,
    "broadcast_strides: zip(shape, strides, strict=True) -> zip(shape, strides, strict=False)":
        SAME_LENGTH,
    "view_strides: zip(shape, strides, strict=True) -> zip(shape, strides, strict=False)":
        SAME_LENGTH,
    "as_strided.span: zip(shape, strides, strict=True) -> zip(shape, strides, strict=False)":
        "numpy's as_strided refuses what differs in length, too",
    "broadcast_strides: broadcast_shapes(shape, target) -> broadcast_shapes(target, shape)":
        EITHER_WAY,
    "elementwise: broadcast_shapes(a.shape, b.shape) -> broadcast_shapes(b.shape, a.shape)":
        EITHER_WAY,
    "promote: result_type(a, b) -> result_type(b, a)":
        EITHER_WAY,
    "div: result_type(a, b) -> result_type(b, a)":
        EITHER_WAY,
    "arange: result_type(first, end, step) -> result_type(end, first, step)":
        EITHER_WAY,
    "Tensor.__eq__: compare(self, other, test=np.equal) -> compare(other, self, test=np.equal)":
        EITHER_WAY,
    "Tensor.__ne__: compare(self, other, test=np.not_equal) -> compare(other, self, test=np.not_equal)":
        EITHER_WAY,
    "as_strided.span: return (0, 0) -> return (1, 0)":
        "this span of nothing, too, lies in any and holds none",
    "as_strided.span: r < 0 -> r <= 0":
        NO_STEP,
    "as_strided.span: r < 0 -> r < 1":
        NO_STEP,
    "as_strided.span: r > 0 -> r >= 0":
        NO_STEP,
    "Op.run: len(arrays) < len(self.inputs) -> len(arrays) <= len(self.inputs)":
        "given; where all inputs came by position, Python itself refuses another of them by keyword",
    "Op.keep: x.shape if x.__class__ is np.ndarray else np.shape(x) -> np.shape(x)":
        "given; the same shape, a tenth of a microsecond later",
    "view_strides: (0,) * len(new) -> (1,) * len(new)":
        "what holds nothing can have any strides",
    "view_strides: cut, length, step = ([], 1, 0) -> cut, length, step = ([], 1, 1)":
        "where there is no run, every axis has length 1, and its stride is never used",
    "result_type: 2 if array.ndim else 1 -> 3 if array.ndim else 1":
        "ranks are only compared",
    "module: {'b': 0, 'i': 1, 'u': 1, 'f': 2} -> {'b': 0, 'i': 1, 'u': 1, 'f': 3}":
        "ranks are only compared",
    "module: _writes = 0 -> _writes = 1":
        "numbers of writes are only compared",
    "promote: if b.__class__ is np.ndarray and a.dtype == b.dtype: -> if False:":
        ONLY_FASTER,
    "Op.__call__: if params or self.saves: -> if True:":
        ONLY_FASTER,
    "floating: a if a.__class__ is np.ndarray else as_array(a) -> as_array(a)":
        ONLY_FASTER,
    "neg: a if a.__class__ is np.ndarray else as_array(a) -> as_array(a)":
        ONLY_FASTER,
    "Tensor.__init__: data if data.__class__ is np.ndarray and data.dtype.kind in KINDS else as_array(data)"
    " -> as_array(data)":
        ONLY_FASTER,
    "power: if b.__class__ in (int, float) and floating(a) is a: -> if False:":
        "np.power gives the same at a fraction of the speed, and what fraction differs between processors",
}
