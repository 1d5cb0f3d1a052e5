"""Level 1: convolution, by loops and by one product of matrices, and what it is made of."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import tinytorch.spatial as spatial
from dojo.expect import expect, expect_error
from tinytorch.spatial import (
    chunks,
    col2im,
    conv2d,
    conv2d_loops,
    conv_output_size,
    im2col,
    taps,
    windows,
)
from tinytorch.tensor import Tensor

# On a busy machine drawing examples can take a second, which is no fault of theirs.
steady = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
some = settings(steady, max_examples=30)

SEEDS = st.integers(0, 2**16)
SIZES = st.tuples(st.integers(1, 7), st.integers(1, 7))
KERNELS = st.tuples(st.integers(1, 3), st.integers(1, 3))
STEPS = st.tuples(st.integers(1, 3), st.integers(1, 3))
BORDERS = st.tuples(st.integers(0, 2), st.integers(0, 2))
CHANNELS = st.integers(1, 3)


def f32(values):
    return np.array(values, np.float32)


def places(size, kernel, stride, padding, dilation):
    """How often the kernel fits, counted one place after the other."""
    last = size + 2 * padding - 1
    return sum(1 for first in range(0, last + 1, stride) if first + dilation * (kernel - 1) <= last)


def eighths(rng, *shape):
    """Sums and products of these are exact in float64, and in float32 for as few as here."""
    return rng.integers(-16, 17, shape) / 8


@pytest.fixture(params=["one piece", "many pieces"])
def cache(request, monkeypatch):
    """Once with everything in one chunk, once with a cache so small that every chunk is a row."""
    if request.param == "many pieces":
        monkeypatch.setattr(spatial, "CACHE", 64, raising=False)


# 07.1 conv_output_size


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ((5, 3), 3),
        ((5, 5), 1),
        ((5, 1), 5),
        ((5, 3, 2), 2),
        ((6, 3, 2), 2),  # the last column is under no kernel
        ((7, 3, 2), 3),
        ((5, 3, 1, 1), 5),
        ((224, 7, 2, 3), 112),  # ResNet's first
        ((5, 3, 1, 0, 2), 1),
        ((7, 3, 1, 2, 2), 7),
        ((1, 3, 1, 1), 1),
        ((0, 2, 1, 1), 1),
        ((5, 2, 9), 1),
    ],
)
def test_a_kernel_fits_in_so_many_places(arguments, size):
    expect(conv_output_size(*arguments), size)
    expect(type(conv_output_size(*arguments)), int)


def test_the_places_are_as_many_as_can_be_counted():
    for numbers in itertools.product(range(1, 9), range(1, 4), range(1, 4), range(3), range(1, 4)):
        if places(*numbers):
            expect((numbers, conv_output_size(*numbers)), (numbers, places(*numbers)))


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [((2, 3), "23"), ((2, 6, 1, 1), "26"), ((4, 3, 1, 0, 2), "4"), ((0, 1), "01")],
)
def test_a_kernel_that_fits_nowhere_is_refused(arguments, numbers):
    with expect_error(ValueError, *numbers):
        conv_output_size(*arguments)


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        ((5, 0), "0"),
        ((5, 3, 0), "0"),
        ((5, 3, 1, -1), "-1"),
        ((5, 3, 1, 0, 0), "0"),
        ((5, 3, -4), "-4"),
        ((5, -6), "-6"),
        ((5, 3, 1, 0, -7), "-7"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_by_name(arguments, number):
    with expect_error(ValueError, number):
        conv_output_size(*arguments)


# 07.2 conv2d_loops, and 07.5 conv2d, which must give the same

EDGE = f32([[[[1, 0, -1], [2, 0, -2], [1, 0, -1]]]])  # (1, 1, 3, 3): bright on the left, dark on the right
STAIRS = f32([[[[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]]])  # (1, 1, 3, 4)

# x, weight, bias, parameters, result: each worked out by hand.
BY_HAND = {
    "an edge": (STAIRS, EDGE, None, {}, [[[[-8, -8]]]]),
    "in a border": (
        STAIRS,
        EDGE,
        None,
        {"padding": 1},
        [[[[-3, -6, -6, 6], [-4, -8, -8, 8], [-3, -6, -6, 6]]]],
    ),
    "columns only": (STAIRS, EDGE[:, :, 1:2], None, {"padding": (0, 1)}, [[[[-2, -4, -4, 4]] * 3]]),
    "with steps": (STAIRS, f32([[[[1, 10]]]]), None, {"stride": (2, 2)}, [[[[10, 32], [10, 32]]]]),
    "with a bias": (STAIRS[..., :1, :2], f32([[[[2]]], [[[3]]]]), f32([5, 7]), {}, [[[[5, 7]], [[7, 10]]]]),
    "taps apart": (STAIRS, f32([[[[1, 10]]]]), None, {"dilation": (1, 3)}, [[[[30]] * 3]]),
    "two channels": (
        f32([[[[1, 2]], [[3, 4]]]]),
        f32([[[[1]], [[10]]], [[[0]], [[1]]]]),
        None,
        {},
        [[[[31, 42]], [[3, 4]]]],
    ),
    "two groups": (
        f32([[[[1, 2]], [[3, 4]]]]),
        f32([[[[1]]], [[[10]]], [[[100]]], [[[0]]]]),
        None,
        {"groups": 2},
        [[[[1, 2]], [[10, 20]], [[300, 400]], [[0, 0]]]],
    ),
    "two images": (f32([[[[1, 2]]], [[[3, 4]]]]), f32([[[[1, 1]]]]), None, {}, [[[[3]]], [[[7]]]]),
}
CONVOLUTIONS = [conv2d_loops, conv2d]
by = pytest.mark.parametrize("convolution", CONVOLUTIONS, ids=["conv2d_loops", "conv2d"])


def array(result):
    return result.data if isinstance(result, Tensor) else result


@by
@pytest.mark.parametrize("case", BY_HAND)
def test_convolutions_worked_out_by_hand(convolution, case, cache):
    x, weight, bias, params, expected = BY_HAND[case]
    expect(array(convolution(x, weight, bias, **params)), f32(expected))


def test_the_kernel_is_not_turned_round():
    """What mathematics calls a convolution would be [3, 2, 1]; networks learn the kernel either way."""
    impulse = f32([[[[0, 0, 1, 0, 0]]]])
    expect(conv2d(impulse, f32([[[[1, 2, 3]]]])), f32([[[[3, 2, 1]]]]))
    expect(conv2d_loops(impulse, f32([[[[1, 2, 3]]]])), f32([[[[3, 2, 1]]]]))


def by_definition(x, weight, bias, stride, padding, dilation, groups):
    """Each output by itself: what lies under its kernel, times the kernel."""
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    outputs, inputs, kh, kw = weight.shape
    oh, ow = ((x.shape[2] - dh * (kh - 1) - 1) // sh + 1, (x.shape[3] - dw * (kw - 1) - 1) // sw + 1)
    out = np.zeros((len(x), outputs, oh, ow), x.dtype)
    for o, i, j in np.ndindex(outputs, oh, ow):
        first = o // (outputs // groups) * inputs
        rows, columns = slice(i * sh, i * sh + dh * kh, dh), slice(j * sw, j * sw + dw * kw, dw)
        under = x[:, first : first + inputs, rows, columns][:, :, :kh, :kw]
        out[:, o, i, j] = (under * weight[o]).sum(axis=(1, 2, 3)) + (0 if bias is None else bias[o])
    return out


def fits(size, kernel, stride, padding, dilation):
    numbers = zip(size, kernel, stride, padding, dilation, strict=True)
    return all(places(*each) for each in numbers)


@pytest.mark.parametrize("small_cache", [False, True])
@settings(some, max_examples=40)
@given(
    st.integers(1, 3), st.integers(1, 3), CHANNELS, CHANNELS, SIZES, KERNELS, STEPS, BORDERS, STEPS,
    st.booleans(), SEEDS,
)  # fmt: skip
def test_a_convolution_is_what_its_definition_says(
    small_cache, n, groups, ins, outs, size, kernel, stride, padding, dilation, has_bias, seed
):
    """Over strides, paddings, dilations, groups and odd sizes; whole, and in pieces of a row."""
    assume(fits(size, kernel, stride, padding, dilation))
    rng = np.random.default_rng(seed)
    x = np.asarray(eighths(rng, n, groups * ins, *size), order="CF"[seed % 2])
    weight = eighths(rng, groups * outs, ins, *kernel)
    bias = eighths(rng, groups * outs) if has_bias else None
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    expected = by_definition(x, weight, bias, *params.values())
    with pytest.MonkeyPatch.context() as patch:
        if small_cache:
            patch.setattr(spatial, "CACHE", 64, raising=False)
        expect(conv2d(x, weight, bias, **params), expected)


@settings(some, max_examples=20)
@given(st.integers(1, 2), CHANNELS, st.integers(1, 2), SIZES, KERNELS, STEPS, BORDERS, STEPS, SEEDS)
def test_the_loops_are_the_definition(groups, ins, outs, size, kernel, stride, padding, dilation, seed):
    assume(fits(size, kernel, stride, padding, dilation))
    rng = np.random.default_rng(seed)
    x, weight = eighths(rng, 1, groups * ins, *size), eighths(rng, groups * outs, ins, *kernel)
    bias = eighths(rng, groups * outs)
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    expect(conv2d_loops(x, weight, bias, **params), by_definition(x, weight, bias, *params.values()))


@by
def test_a_number_stands_for_a_pair(convolution, rng):
    x, weight = eighths(rng, 1, 2, 7, 7), eighths(rng, 2, 2, 2, 2)
    params = {"stride": 2, "padding": 1, "dilation": 3}
    pairs = {name: (value, value) for name, value in params.items()}
    expected = by_definition(x, weight, None, *pairs.values(), 1)
    expect(array(convolution(x, weight, **params)), expected)
    expect(array(convolution(x, weight, **pairs)), expected)


@by
@pytest.mark.parametrize(
    ("x", "weight", "bias", "groups", "mentions"),
    [
        ((2, 3, 5, 5), (4, 2, 3, 3), None, 1, ["(2, 3, 5, 5)", "(4, 2, 3, 3)"]),
        ((2, 4, 5, 5), (3, 2, 3, 3), None, 2, ["(2, 4, 5, 5)", "(3, 2, 3, 3)"]),
        ((2, 4, 5, 5), (4, 4, 3, 3), None, 2, ["(2, 4, 5, 5)", "(4, 4, 3, 3)"]),
        ((3, 5, 5), (4, 3, 3, 3), None, 1, ["(3, 5, 5)", "(4, 3, 3, 3)"]),
        ((2, 3, 5, 5), (4, 3, 3), None, 1, ["(2, 3, 5, 5)", "(4, 3, 3)"]),
        ((2, 3, 5, 5), (4, 3, 3, 3), (3,), 1, ["(3,)", "(4, 3, 3, 3)"]),
        ((2, 3, 5, 5), (4, 3, 3, 3), (1,), 1, ["(1,)", "(4, 3, 3, 3)"]),
        ((2, 3, 5, 2), (4, 3, 3, 3), None, 1, []),
    ],
)
def test_what_does_not_fit_is_refused(convolution, x, weight, bias, groups, mentions):
    arrays = [None if shape is None else np.zeros(shape) for shape in (x, weight, bias)]
    with expect_error(ValueError, *mentions):
        convolution(*arrays, groups=groups)


@by
@pytest.mark.parametrize(
    ("x", "weight", "result"),
    [
        ("float32", "float32", "float32"),
        ("float64", "float64", "float64"),
        ("uint8", "float32", "float32"),
        ("int64", "float32", "float32"),
        ("float32", "float64", "float64"),
    ],
)
def test_the_dtype_is_that_in_which_pixels_and_weights_meet(convolution, x, weight, result):
    out = array(convolution(np.full((1, 2, 3, 3), 200, x), np.full((1, 2, 3, 3), 2, weight)))
    expect(out, np.full((1, 1, 1, 1), 7200, result))


@by
def test_a_bias_does_not_change_the_dtype(convolution):
    for dtype, other in (("float32", "float64"), ("float64", "float32")):
        x, weight = np.ones((1, 1, 2, 2), dtype), np.ones((1, 1, 2, 2), dtype)
        out = array(convolution(x, weight, np.array([0.5], other)))
        expect(out, np.full((1, 1, 1, 1), 4.5, dtype))


@by
@pytest.mark.parametrize("shape", [(0, 2, 3, 3), (2, 0, 3, 3)])
def test_of_nothing_there_is_nothing_but_the_bias(convolution, shape, rng):
    weight, bias = rng.normal(size=(4, shape[1], 2, 2)), rng.normal(size=4)
    expected = np.zeros((shape[0], 4, 2, 2)) + bias[:, None, None]
    expect(array(convolution(np.zeros(shape), weight, bias)), expected)


def test_without_kernels_there_is_no_channel():
    expect(conv2d(np.ones((2, 3, 4, 4)), np.ones((0, 3, 2, 2))), np.zeros((2, 0, 3, 3)))


def orders(x):
    """The same images in other orders of memory."""
    yield "channels-last", np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    yield "column by column", np.asfortranarray(x)
    yield "every second", np.repeat(x, 2, axis=3)[..., ::2]
    yield "backwards", x[:, :, ::-1, ::-1].copy()[:, :, ::-1, ::-1]
    frozen = x.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("padding", [0, 1])
def test_the_order_in_memory_makes_no_difference(kernel, padding, rng):
    x, weight = eighths(rng, 2, 3, 5, 4), eighths(rng, 4, 3, kernel, kernel)
    expected = by_definition(x, weight, None, (1, 1), (padding, padding), (1, 1), 1)
    for name, same in orders(x):
        before = same.copy()
        expect((name, conv2d(same, np.asfortranarray(weight), padding=padding).data), (name, expected))
        expect((name, same), (name, before))


def test_a_result_has_memory_of_its_own(rng):
    x = rng.normal(size=(2, 3, 4, 4))
    out = conv2d(x, np.eye(3)[:, :, None, None])
    expect(out, x)
    assert not np.shares_memory(out.data, x)
    assert out.data.flags.writeable


def test_a_result_lies_channels_last_in_memory(rng):
    """All channels of a pixel side by side: strides tell, the shape does not."""
    out = conv2d(rng.normal(size=(2, 3, 6, 5)), rng.normal(size=(4, 3, 3, 3))).data
    expect(out.shape, (2, 4, 4, 3))
    assert out.transpose(0, 2, 3, 1).flags.c_contiguous
    grouped = conv2d(rng.normal(size=(2, 4, 6, 5)), rng.normal(size=(6, 2, 3, 3)), groups=2, stride=2).data
    expect(grouped.shape, (2, 6, 2, 2))
    assert grouped.transpose(0, 2, 3, 1).flags.c_contiguous


# 07.3 windows

COUNT = np.arange(12.0).reshape(1, 1, 3, 4)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((2,), [[[[0, 1], [4, 5]], [[1, 2], [5, 6]], [[2, 3], [6, 7]]],
                [[[4, 5], [8, 9]], [[5, 6], [9, 10]], [[6, 7], [10, 11]]]]),
        (((1, 2), 2), [[[[0, 1]], [[2, 3]]], [[[8, 9]], [[10, 11]]]]),
        ((2, 1, 2), [[[[0, 2], [8, 10]], [[1, 3], [9, 11]]]]),
        (((3, 1), (1, 3)), [[[[0], [4], [8]], [[3], [7], [11]]]]),
    ],
)  # fmt: skip
def test_windows_are_what_the_kernel_sees(arguments, expected):
    expect(windows(COUNT, *arguments), np.array([[expected]], float))


def test_windows_are_a_read_only_view(rng):
    x = rng.normal(size=(2, 3, 5, 5))
    seen = windows(x, 3, 2)
    expect(seen.shape, (2, 3, 2, 2, 3, 3))
    assert np.shares_memory(seen, x)
    assert not seen.flags.writeable
    assert x.flags.writeable


def test_windows_see_through_any_strides(rng):
    x = rng.normal(size=(2, 3, 5, 6))
    for name, same in orders(x):
        seen = windows(same, (2, 3), (2, 1), (3, 2))
        expected = np.zeros((2, 3, 1, 2, 2, 3))
        for i, j, a, b in np.ndindex(*expected.shape[2:]):
            expected[:, :, i, j, a, b] = x[:, :, 2 * i + 3 * a, j + 2 * b]
        expect((name, seen), (name, expected))
        assert np.shares_memory(seen, same), name


def test_windows_of_a_kernel_that_does_not_fit_are_refused():
    with expect_error(ValueError, "3", "4"):
        windows(COUNT, (4, 1))


# 07.4 im2col


def test_a_row_of_im2col_has_all_channels_of_a_pixel_side_by_side():
    x = np.stack([COUNT[0, 0], 100 + COUNT[0, 0]])[None]
    expected = [[0, 100, 1, 101, 4, 104, 5, 105], [2, 102, 3, 103, 6, 106, 7, 107]]
    expect(im2col(x, 2, 2), np.array(expected, float))


def test_the_rows_go_through_images_then_rows_then_columns():
    x = np.concatenate([COUNT, 100 + COUNT])
    expected = [*range(12), *range(100, 112)]
    expect(im2col(x, 1), np.array(expected, float)[:, None])


def test_the_border_is_zeros():
    x = np.array([[[[1.0, 2.0]]]])
    rows = [[0, 0, 0, 0, 1, 2, 0, 0, 0], [0, 0, 0, 1, 2, 0, 0, 0, 0]]
    expect(im2col(x, 3, padding=1), np.array(rows, float))
    expect(im2col(x, (1, 3), padding=(0, 1)), np.array([[0, 1, 2], [1, 2, 0]], float))


@some
@given(st.integers(0, 3), CHANNELS, SIZES, KERNELS, STEPS, BORDERS, STEPS, SEEDS)
def test_im2col_of_anything(n, channels, size, kernel, stride, padding, dilation, seed):
    assume(fits(size, kernel, stride, padding, dilation))
    x = np.random.default_rng(seed).normal(size=(n, channels, *size))
    x = np.asarray(x, order="CF"[seed % 2])
    expected = [
        [
            x[image, c, row, column] if 0 <= row < size[0] and 0 <= column < size[1] else 0.0
            for row in range(top, top + dilation[0] * kernel[0], dilation[0])
            for column in range(left, left + dilation[1] * kernel[1], dilation[1])
            for c in range(channels)
        ]
        for image in range(n)
        for top, left in corners(size, kernel, stride, padding, dilation)
    ]
    shape = len(expected), kernel[0] * kernel[1] * channels
    expect(im2col(x, kernel, stride, padding, dilation), np.reshape(expected, shape))


def corners(size, kernel, stride, padding, dilation):
    """Where the kernel's first tap is at each of its places."""
    axes = list(zip(size, kernel, stride, padding, dilation, strict=True))
    return itertools.product(*([s * i - p for i in range(places(n, k, s, p, d))] for n, k, s, p, d in axes))


def test_im2col_keeps_the_dtype():
    expect(im2col(np.ones((1, 1, 2, 2), np.float32), 2, padding=1).dtype, np.dtype(np.float32))
    expect(im2col(np.ones((1, 1, 2, 2), np.uint8), 2, padding=1).dtype, np.dtype(np.uint8))


# 07.6 taps, col2im


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((3,), [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]]),
        ((3, 2), [[0, 2], [1, 3], [2, 4]]),
        ((2, 2), [[0, 2, 4], [1, 3, 5]]),
        ((2, 1, 4), [[0, 1], [4, 5]]),
        ((1, 4), [[0, 4]]),
        ((6, 5), [[0], [1], [2], [3], [4], [5]]),
    ],
)
def test_taps_are_what_lies_under_each_tap_place_by_place(arguments, expected):
    line = np.arange(6.0)
    expect(list(taps(line, 0, *arguments)), [np.array(each, float) for each in expected])
    image = line[None, :, None] + np.zeros((2, 1, 3))
    for got, each in zip(taps(image, 1, *arguments), expected, strict=True):
        expect(got, np.array(each, float)[None, :, None] + np.zeros((2, 1, 3)))


def test_taps_are_views_to_write_through():
    line = np.zeros(6)
    for number, tap in enumerate(taps(line, 0, 2, 3), 1):
        tap += number
    expect(line, [1.0, 2.0, 0.0, 1.0, 2.0, 0.0])
    for number, tap in enumerate(taps(line, 0, 2, 1, 3), 1):
        tap *= number
    expect(line, [1.0, 2.0, 0.0, 2.0, 4.0, 0.0])
    image = np.zeros((2, 3, 4))
    for axis in (1, 2):
        for tap in taps(image, axis, 2):
            assert np.shares_memory(tap, image)


def test_col2im_adds_up_where_windows_overlap():
    """How often each pixel is seen by a kernel of 2 x 2: once in the corners, four times within."""
    seen = col2im(np.ones((6, 4)), (1, 1, 3, 4), 2)
    expect(seen, np.array([[[[1, 2, 2, 1], [2, 4, 4, 2], [1, 2, 2, 1]]]], float))


def test_col2im_drops_the_border_and_leaves_what_nobody_sees():
    """A kernel of 2 x 2 with steps of 3 and a border of 1: row 1 and column 1 are never under it."""
    columns = np.arange(1.0, 17).reshape(4, 4)
    expected = [[4, 0, 7, 8], [0, 0, 0, 0], [10, 0, 13, 14], [12, 0, 15, 16]]
    expect(col2im(columns, (1, 1, 4, 4), 2, 3, 1), np.array([[expected]], float))


def test_col2im_takes_columns_whose_last_axis_is_in_two(rng):
    """(KH * KW, C), as a product for each tap leaves them; here also in another order of memory."""
    columns = eighths(rng, 12, 4, 3)
    expected = col2im(columns.reshape(12, 12), (2, 3, 3, 4), 2)
    expect(col2im(columns, (2, 3, 3, 4), 2), expected)
    by_tap = columns.transpose(1, 0, 2).copy().transpose(1, 0, 2)
    expect(col2im(by_tap, (2, 3, 3, 4), 2), expected)


def test_col2im_keeps_the_dtype_and_what_it_is_given(rng):
    columns = f32(np.ones((6, 4)))
    columns.flags.writeable = False
    expect(col2im(columns, (1, 1, 3, 4), 2).dtype, np.dtype(np.float32))


# 07.8 chunks


def spans(count, each):
    return [(some.start, some.stop) for some in chunks(count, each)]


def test_chunks_take_as_many_as_fit():
    third = spatial.CACHE // 3
    expect(spans(10, third), [(0, 3), (3, 6), (6, 9), (9, 10)])
    expect(spans(6, third), [(0, 3), (3, 6)])
    expect(spans(2, third), [(0, 2)])
    expect(spans(2, spatial.CACHE // 2), [(0, 2)])
    expect(spans(2, spatial.CACHE // 2 + 1), [(0, 1), (1, 2)])
    expect(spans(spatial.CACHE + 1, 1), [(0, spatial.CACHE), (spatial.CACHE, spatial.CACHE + 1)])


def test_what_does_not_fit_comes_one_by_one():
    expect(spans(3, spatial.CACHE), [(0, 1), (1, 2), (2, 3)])
    expect(spans(3, 10 * spatial.CACHE), [(0, 1), (1, 2), (2, 3)])


def test_of_nothing_there_is_no_chunk_and_nothings_fit_into_one():
    expect(spans(0, 100), [])
    expect(spans(5, 0), [(0, 5)])
