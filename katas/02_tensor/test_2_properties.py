"""Level 2: what must hold for every input, checked against slow and obvious specifications, or numpy.

The last part is about `Op`, which is given: it says what later katas rely on, with your operations in it.
"""

import itertools
import math
import statistics
import sys
import types
import warnings
import weakref
from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dojo.expect import expect, expect_error
from tinytorch.tensor import (
    Op,
    Tensor,
    absolute,
    add,
    amax,
    amin,
    arange,
    argmax,
    as_strided,
    broadcast_shapes,
    broadcast_strides,
    clip,
    compare,
    concatenate,
    contiguous_strides,
    div,
    exp,
    increment_version,
    is_contiguous,
    join,
    log,
    matmul,
    maximum,
    mean,
    mul,
    op,
    power,
    resolve_shape,
    result_type,
    set_recorder,
    sqrt,
    stack,
    sub,
    tanh,
    total,
    var,
    version,
    view_strides,
    where,
)

some = settings(derandomize=True, max_examples=25)
many = settings(derandomize=True, max_examples=50)

SIDES = st.integers(0, 3)
SHAPES = st.lists(SIDES, max_size=3).map(tuple)
SEEDS = st.integers(0, 2**16)


def draw_array(shape, seed, dtype=np.float64):
    """Eighths between -2 and 2, which float32 and float16 hold exactly, in an order that the seed decides."""
    return np.asarray(np.random.default_rng(seed).integers(-16, 17, shape) / 8, dtype)


@st.composite
def strided_arrays(draw, shapes=SHAPES):
    """A view of some kind: axes in any order, backwards, with gaps, stretched."""
    shape, seed = draw(shapes), draw(SEEDS)
    rng = np.random.default_rng([seed, 1])
    steps = rng.choice((1, 1, -1, 2, -2), len(shape)).tolist()
    roomy = tuple(n * abs(step) for n, step in zip(shape, steps, strict=True))
    array = np.asarray(draw_array(roomy, seed)[tuple(slice(None, None, step) for step in steps)])
    array = array.transpose(rng.permutation(array.ndim))
    return (
        np.broadcast_to(array, (rng.integers(1, 4), *array.shape[1:])) if array.shape[:1] == (1,) else array
    )


@st.composite
def stretching_shapes(draw, count=2):
    """Shapes that broadcast: draw the result, then drop axes on the left and set others to 1."""
    result, rng = draw(SHAPES), np.random.default_rng(draw(SEEDS))
    kept = (result[rng.integers(0, len(result) + 1) :] for _ in range(count))
    return tuple(tuple(1 if rng.integers(2) else n for n in shape) for shape in kept)


def cut(size, seed):
    """A shape of `size` elements, cut at random, with axes of length 1 here and there."""
    rng, shape = np.random.default_rng([seed, 2]), []
    while size > 1 and rng.integers(3):
        shape.append(int(rng.choice([d for d in range(1, size + 1) if size % d == 0])))
        size //= shape[-1]
    return tuple(rng.permutation([*shape, size]).tolist())


def offsets(shape, strides):
    """Where each element lies, in bytes after the first, row by row."""
    return [
        sum(i * step for i, step in zip(index, strides, strict=True))
        for index in itertools.product(*map(range, shape))
    ]


def shown(array, shape, strides):
    return np.lib.stride_tricks.as_strided(array, shape, strides)


def f64(values):
    return np.array(values, np.float64)


def answer_or_error(function):
    """What `function` gives, or that it raises a ValueError."""
    try:
        return function()
    except ValueError:
        return "ValueError"


# 02.1 and 02.2: element k, row by row, lies k * itemsize bytes after the first.


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_contiguous_elements_lie_one_after_the_other(ndim):
    for shape in itertools.product((1, 2, 3, 4), repeat=ndim):
        there = offsets(shape, contiguous_strides(shape, 4))
        expect((shape, there), (shape, [4 * k for k in range(math.prod(shape))]))


@some
@given(strided_arrays())
def test_contiguous_is_what_lies_one_after_the_other(array):
    there = offsets(array.shape, array.strides)
    expect(is_contiguous(array.shape, array.strides, 8), there == [8 * k for k in range(array.size)])


# 02.3 and 02.4: your broadcasting is numpy's.


def every_way_to_stretch(result):
    """Each shape that stretches to `result`."""
    for kept in (result[k:] for k in range(len(result) + 1)):
        for ones in itertools.product((False, True), repeat=len(kept)):
            yield tuple(1 if one else n for one, n in zip(ones, kept, strict=True))


PAIRS = sorted(
    {
        pair
        for result in [(), (2,), (2, 3), (2, 3, 2)]
        for pair in itertools.product(list(every_way_to_stretch(result)), repeat=2)
    }
)


def test_all_265_pairs_up_to_three_axes_meet_as_in_numpy():
    expect(len(PAIRS), 265)
    for pair in PAIRS:
        expect((pair, broadcast_shapes(*pair)), (pair, np.broadcast_shapes(*pair)))


def test_all_265_pairs_stretch_as_in_numpy():
    for small, other in PAIRS:
        target = np.broadcast_shapes(small, other)
        array = np.arange(float(math.prod(small))).reshape(small)
        stretched = shown(array, target, broadcast_strides(small, array.strides, target))
        expect((small, target, stretched), (small, target, np.broadcast_to(array, target)))


def test_shapes_meet_exactly_where_they_do_in_numpy():
    shapes = [s for ndim in range(3) for s in itertools.product((0, 1, 2, 3), repeat=ndim)]
    for pair in itertools.product(shapes, repeat=2):
        mine = answer_or_error(lambda pair=pair: broadcast_shapes(*pair))
        expect((pair, mine), (pair, answer_or_error(lambda pair=pair: np.broadcast_shapes(*pair))))


@some
@given(stretching_shapes(count=3))
def test_three_shapes_meet_in_any_order(shapes):
    together = np.broadcast_shapes(*shapes)
    for order in itertools.permutations(shapes):
        expect(broadcast_shapes(*order), together)


@many
@given(strided_arrays(), SHAPES)
def test_any_array_stretches_exactly_where_it_does_in_numpy(array, target):
    def stretch():
        return shown(array, target, broadcast_strides(array.shape, array.strides, target))

    expect(answer_or_error(stretch), answer_or_error(lambda: np.broadcast_to(array, target)))


# 02.5: every element where the strides say, and none outside.


@many
@given(strided_arrays(), SHAPES, SEEDS)
def test_a_view_shows_what_lies_there_and_nothing_else(array, shape, seed):
    strides = tuple((8 * np.random.default_rng([seed, 3]).integers(-2, 4, len(shape))).tolist())
    lies_there = dict(zip(offsets(array.shape, array.strides), array.ravel(), strict=True))
    wanted = offsets(shape, strides)
    if wanted and not (lies_there and min(lies_there) <= min(wanted) and max(wanted) <= max(lies_there)):
        with expect_error(ValueError):
            as_strided(array, shape, strides)
        return
    view = as_strided(array, shape, strides)
    expect(view.shape, shape)
    for offset, element in zip(wanted, view.ravel(), strict=True):
        expect(element, lies_there.get(offset, element))  # between the elements of `array` lies anything


# 02.6 and 02.7: reshape is numpy's, and a view wherever numpy's is.


@many
@given(SHAPES, SEEDS)
def test_minus_one_is_filled_in_exactly_where_numpy_does(old, seed):
    rng = np.random.default_rng(seed)
    new = list(
        cut(math.prod(old), seed) if rng.integers(3) else rng.integers(-2, 5, rng.integers(0, 4)).tolist()
    )
    if new and rng.integers(2):
        new[rng.integers(len(new))] = -1
    mine = answer_or_error(lambda: resolve_shape(old, tuple(new)))
    numpys = answer_or_error(lambda: np.zeros(old).reshape(new).shape)
    expect((old, new, mine), (old, new, "ValueError" if min(new, default=0) < -1 else numpys))  # it takes -2


@many
@given(strided_arrays(), SEEDS)
def test_new_strides_are_found_exactly_where_numpy_needs_no_copy(array, seed):
    new = cut(array.size, seed)
    reshaped = array.reshape(new)
    strides = view_strides(array.shape, array.strides, new)
    if array.size and not np.may_share_memory(array, reshaped):
        expect(strides, None)
    else:
        expect(shown(array, new, strides), reshaped)
        expect(Tensor(array).view(new), reshaped)


# 02.9: one rule for dtypes.


FLOATS, INTEGERS = ("float16", "float32", "float64"), ("uint8", "int8", "int32", "int64")
ARRAYS = [np.ones(shape, dtype) for shape in ((2,), ()) for dtype in ("bool", *INTEGERS, *FLOATS)]
OPERANDS = [*ARRAYS, True, 1, 1.0]


def better(a, b):
    """The rule in long: a higher kind wins; then axes win over none, and any array over a Python number."""

    def dtype_of(x):
        return np.dtype({bool: "bool", int: "int64", float: "float32"}.get(type(x)) or x.dtype)

    def kind_of(x):
        return ["bool", "int", "float"].index(
            "float" if dtype_of(x) in FLOATS else "bool" if dtype_of(x) == "bool" else "int"
        )

    def axes_of(x):
        return -1 if isinstance(x, (bool, int, float)) else min(1, x.ndim)

    for rank in (kind_of, axes_of):
        if rank(a) != rank(b):
            return dtype_of(a if rank(a) > rank(b) else b)
    return np.promote_types(dtype_of(a), dtype_of(b))


def test_any_two_operands_meet_in_the_same_dtype_in_either_order():
    for a, b in itertools.product(OPERANDS, repeat=2):
        expect((a, b, result_type(a, b)), (a, b, better(a, b)))


def test_operations_follow_the_rule_whatever_they_are_given():
    for a, b in itertools.product(OPERANDS, repeat=2):
        dtype = better(a, b)
        fraction = dtype if dtype in FLOATS else np.dtype("float32")
        got = [f(a, b).dtype for f in (add, mul, maximum, div)]
        expect((a, b, got), (a, b, [dtype, dtype, dtype, fraction]))


# 02.10 to 02.12: element by element, numpy's numbers.


BINARY = {
    add: lambda a, b: a + b,
    sub: lambda a, b: a - b,
    mul: lambda a, b: a * b,
    maximum: lambda a, b: b if b > a else a,
    div: lambda a, b: a / b,
    power: lambda a, b: a**b,
}
COMPARISONS = {
    np.equal: lambda a, b: a == b,
    np.not_equal: lambda a, b: a != b,
    np.less: lambda a, b: a < b,
    np.less_equal: lambda a, b: a <= b,
    np.greater: lambda a, b: a > b,
    np.greater_equal: lambda a, b: a >= b,
}


def one_by_one(function, a, b, dtype):
    """`function` of each pair of elements, by a loop."""
    a, b = np.broadcast_arrays(a, b)
    out = np.empty(a.shape, dtype)
    for index in np.ndindex(a.shape):
        out[index] = function(a[index].item(), b[index].item())
    return out


@some
@given(stretching_shapes(), SEEDS)
def test_each_operation_takes_elements_in_pairs(shapes, seed):
    a, b = (draw_array(shape, [seed, i]) for i, shape in enumerate(shapes))
    for operation, function in BINARY.items():
        x, y = (np.abs(a), np.abs(b) + 0.5) if operation in (div, power) else (a, b)
        expect(
            (operation.name, operation(Tensor(x), Tensor(y))),
            (operation.name, one_by_one(function, x, y, float)),
        )


@some
@given(strided_arrays(), strided_arrays())
def test_operations_meet_exactly_where_shapes_do(a, b):
    together = answer_or_error(lambda: np.broadcast_shapes(a.shape, b.shape))
    for operation in (add, mul, maximum):
        mine = answer_or_error(lambda operation=operation: operation(Tensor(a), b).shape)
        expect((operation.name, mine), (operation.name, together))


@some
@given(stretching_shapes(), SEEDS)
def test_comparisons_take_elements_in_pairs(shapes, seed):
    a, b = (draw_array(shape, [seed, i]) * 8 // 12 for i, shape in enumerate(shapes))  # few values, many ties
    for test, function in COMPARISONS.items():
        expect(
            (test.__name__, compare(Tensor(a), b, test=test)),
            (test.__name__, one_by_one(function, a, b, bool)),
        )


UNARY = {exp: math.exp, log: math.log, sqrt: math.sqrt, tanh: math.tanh, absolute: abs}


@some
@given(strided_arrays())
def test_functions_agree_with_the_math_module(array):
    array = np.abs(array) + 0.5
    for function, of_one in UNARY.items():
        expected = one_by_one(lambda a, _, of_one=of_one: of_one(a), array, array, float)
        expect((function.name, function(Tensor(array))), (function.name, expected))


@some
@given(strided_arrays(), st.integers(-2, 2), st.integers(0, 2))
def test_clip_is_maximum_then_minimum(array, low, width):
    clipped = clip(Tensor(array), min=low, max=low + width)
    expect(clipped, one_by_one(lambda a, _: min(max(a, low), low + width), array, array, float))


@some
@given(stretching_shapes(count=3), SEEDS)
def test_where_chooses_element_by_element(shapes, seed):
    condition, a, b = (draw_array(shape, [seed, i]) for i, shape in enumerate(shapes))
    every = np.broadcast_arrays(condition, a, b)
    expected = np.empty(every[0].shape)
    for index in np.ndindex(expected.shape):
        expected[index] = every[1][index] if every[0][index] > 0 else every[2][index]
    expect(where(Tensor(condition) > 0, Tensor(a), Tensor(b)), expected)


# 02.13: rows times columns.


@some
@given(stretching_shapes(), st.tuples(SIDES, SIDES, SIDES), SEEDS)
def test_a_product_is_sums_of_products(batches, sides, seed):
    n, k, m = sides
    a, b = draw_array((*batches[0], n, k), seed), draw_array((*batches[1], k, m), seed + 1)
    batch = np.broadcast_shapes(*batches)
    left, right = np.broadcast_to(a, (*batch, n, k)), np.broadcast_to(b, (*batch, k, m))
    expected = np.zeros((*batch, n, m))
    for index in np.ndindex(expected.shape):
        *at, row, column = index
        expected[index] = sum(left[(*at, row, i)] * right[(*at, i, column)] for i in range(k))
    expect(matmul(Tensor(a), Tensor(b)), expected)


# 02.14 and 02.15: what becomes of the elements along some axes.


def along(array, axis, keepdims, function):
    """`function` of the list of elements that each result is made of."""
    axes = (
        range(array.ndim)
        if axis is None
        else [a % array.ndim for a in ([axis] if isinstance(axis, int) else axis)]
    )
    kept = [n for i, n in enumerate(array.shape) if i not in axes]
    rows = array.transpose([i for i in range(array.ndim) if i not in axes] + sorted(axes)).reshape(*kept, -1)
    out = np.array([function(rows[index].tolist()) for index in np.ndindex(*kept)])
    return out.reshape([1 if i in axes else n for i, n in enumerate(array.shape)] if keepdims else kept)


@st.composite
def reductions(draw):
    array = draw(strided_arrays(shapes=st.lists(st.integers(1, 4), max_size=3).map(tuple)))
    rng = np.random.default_rng(draw(SEEDS))
    axes = rng.permutation(array.ndim)[: rng.integers(array.ndim + 1)] - array.ndim * rng.integers(2)
    axis = [tuple(axes.tolist()), *axes.tolist(), None][rng.integers(len(axes) + 2)]
    return array, axis, bool(rng.integers(2))


@some
@given(reductions())
def test_reductions_are_loops_over_the_axes_named(drawn):
    array, axis, keepdims = drawn
    for reduce, function in {total: sum, mean: statistics.fmean, amax: max, amin: min}.items():
        got = reduce(Tensor(array), axis=axis, keepdims=keepdims)
        expect((reduce.name, got), (reduce.name, along(array, axis, keepdims, function)))
    if not isinstance(axis, tuple):
        got = argmax(Tensor(array), axis=axis, keepdims=keepdims)
        expect(got, along(array, axis, keepdims, lambda elements: elements.index(max(elements))))


@some
@given(reductions(), st.integers(0, 1), st.integers(-1000, 1000))
def test_the_variance_is_that_of_exact_fractions_wherever_the_numbers_lie(drawn, correction, shift):
    array, axis, keepdims = drawn

    def exact(elements):
        numbers = [Fraction(x) for x in elements]
        squares = sum((x - sum(numbers) / len(numbers)) ** 2 for x in numbers)
        n = len(numbers) - correction
        return float(squares / n) if n else math.nan

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = var(Tensor(array + shift), axis=axis, correction=correction, keepdims=keepdims)
    expect(got, along(array, axis, keepdims, exact), atol=1e-9)


# 02.16 and 02.17: moving axes moves no numbers.


@some
@given(strided_arrays(), SEEDS)
def test_shapes_change_as_in_numpy(array, seed):
    x, ndim, rng = Tensor(array), array.ndim, np.random.default_rng([seed, 4])
    new, axes = cut(array.size, seed), rng.permutation(range(-ndim, 0)).tolist()
    expect(x.reshape(new), array.reshape(new))
    expect(x.permute(axes), array.transpose(axes))
    expect(x.permute(axes).permute(np.argsort(axes).tolist()), array)
    expect(x.T, array.T)
    expect(x.squeeze(), array.squeeze())
    expect(x.contiguous(), array)
    assert x.contiguous().data.flags.c_contiguous
    axis = int(rng.integers(-ndim - 1, ndim + 1))
    expect(x.unsqueeze(axis), np.expand_dims(array, axis))
    expect(x.unsqueeze(axis).squeeze(axis), array)
    if ndim:
        a, b = rng.integers(-ndim, ndim, 2).tolist()
        expect(x.transpose(a, b), array.swapaxes(a, b))


@some
@given(strided_arrays(), SHAPES)
def test_expand_gives_what_numpy_broadcasts_to(array, shape):
    mine = answer_or_error(lambda: Tensor(array).expand(shape))
    expect(mine, answer_or_error(lambda: np.broadcast_to(array, shape)))


# 02.18: cut and joined is as before.


@some
@given(strided_arrays(shapes=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)), SEEDS)
def test_what_was_cut_can_be_joined(array, seed):
    rng = np.random.default_rng([seed, 5])
    axis = int(rng.integers(-array.ndim, array.ndim))
    cuts = sorted(rng.integers(0, array.shape[axis] + 1, rng.integers(4)))
    pieces = np.split(array, cuts, axis)
    expect(concatenate([Tensor(p) for p in pieces], axis=axis), array)
    slices = [Tensor(array.take(i, axis)) for i in range(array.shape[axis])]
    expect(stack(slices, axis=axis), array)


# 02.19: counting.


@some
@given(st.integers(-6, 6), st.integers(-6, 6), st.integers(-3, 3).filter(bool))
def test_arange_counts_as_range_does(start, stop, step):
    expect(arange(start, stop, step), np.array(range(start, stop, step), np.int64))
    halves = arange(start / 2, stop / 2, step / 2)
    expect(halves, np.array([i / 2 for i in range(start, stop, step)], np.float32))


# 02.20: numpy's indices.


@st.composite
def arrays_and_indices(draw):
    shape = draw(hnp.array_shapes(max_dims=3, max_side=4))
    index = draw(
        st.one_of(
            hnp.basic_indices(shape, allow_newaxis=True),
            hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(max_dims=2, max_side=3)),
            hnp.arrays(bool, shape),
        )
    )
    return draw_array(shape, draw(SEEDS)), index


@some
@given(arrays_and_indices())
def test_indices_mean_what_they_mean_in_numpy(drawn):
    array, index = drawn
    expect(Tensor(array)[index], np.asarray(array[index]))
    in_tensors = [
        Tensor(i) if isinstance(i, np.ndarray) else i
        for i in (index if isinstance(index, tuple) else [index])
    ]
    expect(Tensor(array)[tuple(in_tensors)], np.asarray(array[index]))


# The seam: what later katas rely on.


@contextmanager
def recording():
    """What a recorder is told in the meantime."""
    calls = []
    before = set_recorder(lambda *call: calls.append(call))
    try:
        yield calls
    finally:
        set_recorder(before)


def test_the_recorder_is_told_what_went_in_and_what_came_out():
    x, y = Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0, 4.0])
    with recording() as calls:
        out = x * y
    [(operation, inputs, arrays, params, result)] = calls
    assert operation is mul
    assert inputs[0] is x
    assert inputs[1] is y
    assert arrays[0] is x.data
    assert arrays[1] is y.data
    assert result is out
    expect((params, out.requires_grad), ({}, True))


def test_the_recorder_is_told_parameters_and_plain_numbers_as_they_are():
    x = Tensor([[1.0, 2.0]], requires_grad=True)
    with recording() as calls:
        (2 * x).sum(axis=1)
    expect([call[0] for call in calls], [mul, total])
    assert calls[0][1][0] == 2
    assert calls[0][2][0] == 2
    expect(calls[1][3], {"axis": 1, "keepdims": False})


OF_TWO = {
    "add": lambda x, y: x + y,
    "mul": lambda x, y: y * x,
    "sub": lambda x, y: 1.0 - y,
    "getitem": lambda x, y: y[0],
    "join": lambda x, y: concatenate([x, y, x]),
    "where": lambda x, y: where([True], x, y),
}


@pytest.mark.parametrize("name", OF_TWO)
def test_it_is_enough_that_one_input_requires_a_gradient(name):
    x, y, z = Tensor([1.0]), Tensor([2.0], requires_grad=True), Tensor([3.0])
    with recording() as calls:
        with_one, with_none = OF_TWO[name](x, y), OF_TWO[name](x, z)
    expect([call[0].name for call in calls], [name])
    expect((with_one.requires_grad, with_none.requires_grad), (True, False))


def test_what_is_stacked_keeps_its_gradient():
    x, y = Tensor([1.0, 2.0]), Tensor([3.0, 4.0], requires_grad=True)
    with recording() as calls:
        assert stack([x, y], axis=1).requires_grad
    assert calls


def test_the_recorder_is_told_an_index_of_arrays():
    x, rows = Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True), Tensor([1, 1])
    with recording() as calls:
        x[rows]
        x[rows, 1:]
    expect([call[0].name for call in calls], ["getitem", "getitem"])
    for call in calls:
        index = call[3]["index"]
        index = index[0] if isinstance(index, tuple) else index
        assert type(index) is np.ndarray
        expect(index, rows.data)


def test_nothing_is_recorded_where_nothing_requires_a_gradient():
    x = Tensor([1.0, 2.0])
    with recording() as calls:
        assert not ((x + 1) * x).sum().requires_grad
    expect(calls, [])


def test_without_a_recorder_results_require_no_gradient():
    x = Tensor([1.0], requires_grad=True)
    assert not (x + 1).requires_grad


def test_bools_and_integers_have_no_gradient():
    x = Tensor([1.0, 2.0], requires_grad=True)
    with recording() as calls:
        assert not (x < 2).requires_grad
        assert not x.argmax().requires_grad
    expect(calls, [])


def test_a_recorder_can_be_put_back():
    x = Tensor([1.0], requires_grad=True)
    with recording() as outer:
        with recording() as inner:
            x + 1
        x + 1
        x + 1
    x + 1
    expect((len(outer), len(inner)), (2, 1))


def test_a_rule_keeps_what_it_names_and_nothing_else():
    @op
    def scale(a, b, *, factor=2.0, shift=1.0):
        return add.forward(a * b * factor, shift)

    @scale.gradient
    def scale_back(grad, b, factor, out):
        return grad * b * factor, None

    a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    out, back = scale.vjp(a, b)
    expect(out, np.array([7.0, 17.0]))
    expect(back(np.ones(2))[0], np.array([6.0, 8.0]))
    kept = scale.keep(out, [a, b], {})
    assert kept[0] is b
    assert kept[2] is out
    expect(kept[1], 2.0)
    expect(scale.keep(out, [a, b], {"factor": None, "shift": 3.0})[1], None)
    expect(
        (scale.inputs, scale.params, scale.needs),
        (("a", "b"), {"factor": 2.0, "shift": 1.0}, ("b", "factor", "out")),
    )


def test_a_rule_that_names_nothing_keeps_nothing():
    @op
    def double(a):
        return add.forward(a, a)

    def double_back(grad):
        return 2 * grad

    assert double.gradient(double_back) is double_back
    expect(double.keep(f64([2]), [f64([1])], {}), [])
    out, back = double.vjp(f64([1, 2]))
    expect((out, back(f64([1, 5]))), (f64([2, 4]), f64([2, 10])))


def test_an_answer_without_axes_is_an_array_for_its_rule_too():
    fresh = Op(total.forward)
    fresh.gradient(lambda grad, out: grad * out)
    out, back = fresh.vjp(f64([1, 2]))
    assert type(out) is np.ndarray
    expect(back(f64(2)), 6.0)


def test_an_input_left_out_is_none_for_its_rule():
    @op
    def shifted(a, bias=None):
        return a if bias is None else add.forward(a, bias)

    shifted.gradient(lambda grad, bias, a: (grad, bias))
    a = f64([1])
    expect(shifted.keep(a, [a], {})[0], None)
    out, back = shifted.vjp(a, f64([2]))
    expect((out, back(out)[1]), (f64([3]), f64([2])))
    out, back = shifted.vjp(a)
    expect((out, back(out)[1]), (a, None))


def test_what_an_operation_saves_can_be_named_by_its_rule():
    @op(saves=["mask", "count"])
    def positive(a):
        mask = compare.forward(a, 0.0, test=np.greater)
        return a * mask, mask, mask.sum()

    positive.gradient(lambda grad, count, mask: grad * mask * count)
    x = Tensor([-1.0, 2.0], requires_grad=True)
    with recording() as calls:
        expect(positive(x), np.array([0, 2], np.float32))
    [(_, _, _, params, _)] = calls
    expect((list(params), params["mask"], params["count"]), (["mask", "count"], np.array([False, True]), 1))
    out, back = positive.vjp(f64([-1, 2, 3]))
    expect((out, back(f64([5, 6, 7]))), (f64([0, 2, 3]), f64([0, 12, 14])))


def test_an_operation_must_return_all_that_it_saves():
    careless = op(saves=["mask", "count"])(lambda a: (add.forward(a, a), a > 0))
    with expect_error(ValueError):
        careless(f64([1]))


def test_join_saves_how_long_each_piece_was():
    fresh = Op(join.forward, saves=join.saves)
    fresh.gradient(lambda grad, lengths, axis: tuple(np.split(grad, np.cumsum(lengths)[:-1], axis)))
    out, back = fresh.vjp(np.zeros((2, 1)), np.zeros((2, 3)), np.zeros((2, 0)), axis=1)
    expect(out.shape, (2, 4))
    expect([piece.shape for piece in back(out)], [(2, 1), (2, 3), (2, 0)])


def test_a_rule_cannot_ask_for_what_is_not_there():
    @op
    def double(a, *, times=2):
        return add.forward(a, a)

    with expect_error(TypeError, "double", "b", "mask", "times", "out"):
        double.gradient(lambda grad, a, b, mask: grad)
    with expect_error(TypeError, "double", "no gradient rule"):
        double.vjp(f64([1]))
    expect((double(f64([1])), double.needs, double.pull), (f64([2]), (), None))
    expect(double.keep(f64([2]), [f64([1])], {}), [])  # nor is anything kept that no rule asked for


def test_arrays_go_by_position():
    x = Tensor([1.0])
    with expect_error(TypeError, "mul", "position"):
        mul(x, b=x)


def test_an_operation_has_one_result():
    both = op(lambda a: (add.forward(a, a), a))
    with expect_error(TypeError, "saves"):
        both(Tensor([1.0]))
    both.gradient(lambda grad: grad)
    with expect_error(TypeError, "saves"):
        both.vjp(f64([1]))


def test_an_operation_looks_like_its_function():
    @op
    def halve(a):
        """Half of it."""
        return div.forward(a, 2)

    expect(halve(Tensor([1.0])), np.array([0.5], np.float32))
    expect(
        (repr(halve), halve.name, halve.__name__, halve.__doc__),
        ("<op halve>", "halve", "halve", "Half of it."),
    )
    assert halve.__wrapped__ is halve.forward


def test_a_kind_of_tensor_is_a_tensor():
    class Parameter(Tensor):
        def __init__(self, data):
            super().__init__(data, requires_grad=True)

    weight = Parameter([1.0, 2.0])
    with recording():
        out = weight * 2
    expect(out, np.array([2, 4], np.float32))
    assert type(out) is Tensor
    assert out.requires_grad


def test_backward_is_left_to_kata_06(monkeypatch):
    autograd = types.ModuleType("tinytorch.autograd")
    asked = []
    autograd.backward = lambda *asked_for: asked.append(asked_for)
    autograd.register_hook = lambda tensor, hook: (tensor, hook)
    monkeypatch.setitem(sys.modules, "tinytorch.autograd", autograd)
    x = Tensor([1.0])
    grad = np.ones(1)
    x.backward(grad, retain_graph=True)
    x.backward()
    assert asked[0][0] is x
    assert asked[0][1] is grad
    expect((asked[0][2], asked[1][1:]), (True, (None, False)))
    expect(x.register_hook(len), (x, len))


def test_a_rule_can_ask_which_gradients_are_wanted():
    @op
    def product(a, b):
        return mul.forward(a, b)

    @product.gradient
    def product_back(grad, a, b, needs_input_grad):
        return tuple(
            grad * other if needed else None for other, needed in zip((b, a), needs_input_grad, strict=True)
        )

    x, weight = Tensor([1.0, 2.0]), Tensor([3.0, 4.0], requires_grad=True)
    with recording() as calls:
        product(x, weight)
        product(2.0, weight)
        product(weight, weight)
    expect([call[3]["needs_input_grad"] for call in calls], [(False, True), (False, True), (True, True)])
    out, back = product.vjp(f64([1, 2]), f64([3, 4]))
    expect(back(out), (f64([9, 32]), f64([3, 16])))


def test_a_rule_that_needs_only_shapes_keeps_only_shapes():
    @op
    def rows(a, b):
        return add.forward(a, b)

    @rows.gradient
    def rows_back(grad, input_shapes):
        return tuple(np.full(shape, grad.sum()) for shape in input_shapes)

    arrays = [np.ones((2, 3)), 2.0]
    expect(rows.keep(None, arrays, {}), [((2, 3), ())])
    _, back = rows.vjp(*arrays)
    expect(back(np.ones((2, 3))), (np.full((2, 3), 6.0), np.full((), 6.0)))


def test_an_operation_in_place_gives_back_its_tensor():
    @op(in_place=True)
    def double_(a):
        a += add.forward(a, 0.0)
        return a

    x = Tensor([1.0, 2.0])
    assert double_(x) is x
    expect(x, np.array([2, 4], np.float32))
    with expect_error(TypeError, "double_", "Tensor"):
        double_(x.data)


def test_an_operation_in_place_refuses_a_leaf_whose_gradient_is_wanted():
    double_ = op(in_place=True)(lambda a: np.multiply(a, 2, out=a))
    x = Tensor([1.0, 2.0], requires_grad=True)
    double_(x)  # nobody records, so nobody wants it
    with recording() as calls:
        with expect_error(RuntimeError, "leaf", "copy"):
            double_(x)
        expect((x, calls), (np.array([2, 4], np.float32), []))
        made = x + 0.0
        made.node = "how it was made"  # as a recorder would note it
        assert double_(made) is made
    expect([len(calls), made], [2, np.array([4, 8], np.float32)])


def test_a_write_in_place_is_noted_for_all_views_of_its_memory():
    x, other = Tensor(np.zeros((2, 3))), Tensor(np.zeros(3))
    double_ = op(in_place=True)(lambda a: np.multiply(a, 2, out=a))
    before = version()
    double_(x[1:])
    for seen in (x.data, x.data.T, x.data[0], x.data.reshape(-1), as_strided(x.data, (3,), (8,))):
        expect(version(seen), before + 1)
    expect((version(other.data), version()), (0, before + 1))
    expect(increment_version(other.data), before + 2)
    expect(version(other.data), before + 2)


def test_a_write_to_memory_that_is_not_numpys_is_noted_too():
    x = np.ndarray((4,), np.float64, buffer=bytearray(32))
    written = increment_version(x[1:])
    seen = as_strided(x, (2, 2), (16, 8))
    expect((version(x), version(x[::2]), version(seen.T)), (written,) * 3)


def test_a_new_array_has_no_writes_even_where_an_old_one_was():
    for _ in range(20):
        old = add.forward(f64([1, 2, 3]), 1.0)
        increment_version(old)
        there = weakref.ref(old)
        del old
        assert there() is None
        expect(version(np.zeros(3)), 0)  # which Python puts where the old one was


def test_a_detached_tensor_shares_the_array_and_no_gradient():
    x = Tensor([1.0], requires_grad=True)
    y = x.detach()
    assert y.data is x.data
    assert not y.requires_grad
    expect(y.node, None)
