"""Level 1: pooling, and batch norm in training and in use."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import tinytorch.spatial as spatial
from dojo.expect import expect, expect_error
from tinytorch.spatial import avg_pool2d, batch_norm, max_pool2d
from tinytorch.tensor import Tensor, version

steady = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
some = settings(steady, max_examples=30)

SEEDS = st.integers(0, 2**16)
SIZES = st.tuples(st.integers(1, 8), st.integers(1, 8))
KERNELS = st.tuples(st.integers(1, 4), st.integers(1, 4))
STEPS = st.none() | st.tuples(st.integers(1, 3), st.integers(1, 3))
BORDERS = st.tuples(st.integers(0, 2), st.integers(0, 2))

POOLS = {"max": (max_pool2d, np.max), "avg": (avg_pool2d, np.mean)}
both = pytest.mark.parametrize("kind", POOLS)


def f32(values):
    return np.array(values, np.float32)


def pixel_table(x):
    """(pixels, C), in the order in which the pixels come."""
    return np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])


# 07.9 max_pool2d, 07.10 avg_pool2d

SQUARE = f32([[[[1, 2, 5, 3], [4, 0, 2, 2], [-1, -2, 8, 0], [-3, -4, 0, 0]]]])


@pytest.mark.parametrize(
    ("params", "largest", "mean"),
    [
        ({"kernel": 2}, [[4, 5], [-1, 8]], [[1.75, 3], [-2.5, 2]]),
        ({"kernel": (1, 4)}, [[5], [4], [8], [0]], [[2.75], [2], [1.25], [-1.75]]),
        ({"kernel": (4, 1)}, [[4, 2, 8, 3]], [[0.25, -1, 3.75, 1.25]]),
        ({"kernel": 2, "stride": (2, 1)}, [[4, 5, 5], [-1, 8, 8]], [[1.75, 2.25, 3], [-2.5, 0.5, 2]]),
        ({"kernel": 3}, [[8]], [[19 / 9]]),
        ({"kernel": 1, "stride": 3}, [[1, 3], [-3, 0]], [[1, 3], [-3, 0]]),
        ({"kernel": 4}, [[8]], [[17 / 16]]),
    ],
)
def test_pooling_worked_out_by_hand(params, largest, mean):
    expect(max_pool2d(SQUARE, **params), f32([[largest]]))
    expect(avg_pool2d(SQUARE, **params), f32([[mean]]))


def test_the_border_is_less_than_everything_and_averages_as_zeros():
    """A corner of the result sees one pixel, an edge two; each counts a quarter."""
    x = -SQUARE[:, :, :3, :3]
    expect(max_pool2d(x, kernel=2, padding=1), f32([[[[-1, -2], [1, 2]]]]))
    expect(avg_pool2d(x, kernel=2, padding=1), f32([[[[-0.25, -1.75], [-0.75, -2.0]]]]))


def test_channels_and_images_stay_apart(rng):
    x = rng.normal(size=(3, 2, 4, 6))
    for n, c in np.ndindex(3, 2):
        one = x[n : n + 1, c : c + 1]
        expect(max_pool2d(x, kernel=2).data[n, c], max_pool2d(one, kernel=2).data[0, 0])
        expect(max_pool2d(one, kernel=2).data[0, 0, 1, 2], one[0, 0, 2:, 4:].max())
    expect(max_pool2d(x, kernel=2).shape, (3, 2, 2, 3))


@both
@some
@given(st.integers(0, 3), st.integers(1, 3), SIZES, KERNELS, STEPS, BORDERS, st.booleans(), SEEDS)
def test_pooling_is_what_its_definition_says(
    kind, n, channels, size, kernel, stride, padding, small_cache, seed
):
    assume(all(2 * p <= k <= s + 2 * p for k, s, p in zip(kernel, size, padding, strict=True)))
    pool, reduce = POOLS[kind]
    x = np.random.default_rng(seed).integers(-40, 40, (n, channels, *size)) / 8
    x = np.asarray(x, order="CF"[seed % 2])
    (ph, pw), (sh, sw) = padding, stride or kernel
    border = -np.inf if kind == "max" else 0
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=border)
    tops = range(0, padded.shape[2] - kernel[0] + 1, sh)
    lefts = range(0, padded.shape[3] - kernel[1] + 1, sw)
    expected = np.zeros((n, channels, len(tops), len(lefts)))
    for (i, top), (j, left) in itertools.product(enumerate(tops), enumerate(lefts)):
        under = padded[:, :, top : top + kernel[0], left : left + kernel[1]]
        expected[:, :, i, j] = reduce(under, axis=(2, 3))
    before = x.copy()
    with pytest.MonkeyPatch.context() as patch:
        if small_cache:
            patch.setattr(spatial, "CACHE", 64, raising=False)
        out = pool(x, kernel=kernel, stride=stride, padding=padding)
    expect(out, expected)
    expect(x, before)
    assert not np.shares_memory(out.data, x)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64", "bool"])
@pytest.mark.parametrize("padding", [0, 1])
def test_the_largest_keeps_its_dtype_the_mean_is_a_float(dtype, padding):
    x = np.zeros((1, 1, 2, 2), dtype)
    x[0, 0, 0, 1] = 1
    shape = (1, 1, 1 + padding, 1 + padding)
    ones = np.zeros(shape, dtype)
    ones[..., 0, -1] = 1
    expect(max_pool2d(x, kernel=2, padding=padding), ones)
    floats = "float64" if dtype == "float64" else "float32"
    expect(avg_pool2d(x, kernel=2, padding=padding), ones.astype(floats) / 4)


def test_pixels_add_up_beyond_their_dtype():
    expect(avg_pool2d(np.full((1, 1, 2, 2), 200, np.uint8), kernel=2), f32([[[[200]]]]))


def test_the_smallest_of_integers_is_no_border():
    x = np.full((1, 1, 2, 2), -128, np.int8)
    expect(max_pool2d(x, kernel=2, padding=1), np.full((1, 1, 2, 2), -128, np.int8))


def test_what_is_not_a_number_stays_visible():
    x = SQUARE.copy()
    x[0, 0, 0, 1] = np.nan
    expect(max_pool2d(x, kernel=2), f32([[[[np.nan, 5], [-1, 8]]]]))
    expect(max_pool2d(np.full((1, 1, 2, 2), -np.inf), kernel=2), np.full((1, 1, 1, 1), -np.inf))


@both
@pytest.mark.parametrize(
    ("shape", "params", "mentions"),
    [
        ((3, 4, 4), {"kernel": 2}, ["(3, 4, 4)"]),
        ((1, 1, 3, 3), {"kernel": 4}, ["4", "3"]),
        ((1, 1, 3, 3), {"kernel": (2, 4)}, ["4", "3"]),
        ((1, 1, 3, 3), {"kernel": 0}, []),
        ((1, 1, 9, 9), {"kernel": 3, "padding": 2}, ["3", "2"]),
        ((1, 1, 9, 9), {"kernel": (4, 3), "padding": 2}, ["2"]),
    ],
)
def test_what_cannot_be_pooled_is_refused(kind, shape, params, mentions):
    with expect_error(ValueError, *mentions):
        POOLS[kind][0](np.zeros(shape), **params)


@both
def test_pooling_leaves_images_channels_last(kind, rng):
    x = rng.normal(size=(2, 4, 5, 3)).transpose(0, 3, 1, 2)
    for params in ({"kernel": 2}, {"kernel": 3, "stride": 1, "padding": 1}):
        assert POOLS[kind][0](x, **params).data.transpose(0, 2, 3, 1).flags.c_contiguous


# 07.11 batch_norm


def ones_and_zeros(channels, dtype=np.float64):
    return np.ones(channels, dtype), np.zeros(channels, dtype)


def test_each_channel_is_shifted_and_scaled():
    """Channel 0 has mean 3 and variance 4, channel 1 mean 0 and variance 0.25."""
    x = np.array([[[[1.0, 5.0]], [[0.5, -0.5]]], [[[1.0, 5.0]], [[0.5, -0.5]]]])
    weight, bias = np.array([1.0, 10.0]), np.array([0.0, 100.0])
    expected = [[[[-1.0, 1.0]], [[110.0, 90.0]]]] * 2
    expect(batch_norm(x, weight, bias, eps=0.0), np.array(expected))


def test_eps_is_added_to_the_variance():
    x = np.array([[1.0], [5.0]])  # variance 4
    expect(batch_norm(x, *ones_and_zeros(1), eps=12.0), np.array([[-0.5], [0.5]]))
    expect(batch_norm(np.full((4, 1), 7.0), *ones_and_zeros(1)), np.zeros((4, 1)))


def test_eps_is_a_hundred_thousandth_unless_told():
    x = np.array([[1.0], [-1.0]]) * 1e-3  # variance 1e-6
    expect(batch_norm(x, *ones_and_zeros(1)), x / np.sqrt(1e-6 + 1e-5))


@some
@given(
    st.integers(1, 5), st.integers(1, 4), st.lists(st.integers(1, 4), max_size=3), st.booleans(), SEEDS,
)  # fmt: skip
def test_the_result_is_that_of_the_formula(n, channels, rest, small_cache, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, channels, *rest)) * 3 + 5
    x = np.asarray(x, order="CF"[seed % 2])
    assume(x.size > channels)
    weight, bias = rng.normal(size=(2, channels))
    with pytest.MonkeyPatch.context() as patch:
        if small_cache:
            patch.setattr(spatial, "CACHE", 64, raising=False)
        out = batch_norm(x, weight, bias, eps=0.1)
    table = pixel_table(x)
    expected = (table - table.mean(0)) / np.sqrt(table.var(0) + 0.1) * weight + bias
    expect(out.shape, x.shape)
    expect(pixel_table(out.data), expected)


def test_what_is_far_from_zero_keeps_its_digits(rng):
    """The mean of the squares less the square of the mean would leave none of float32's seven."""
    x = (rng.normal(size=(64, 2, 8, 8)) + 4000).astype(np.float32)
    table = pixel_table(x.astype(np.float64))
    expected = (table - table.mean(0)) / np.sqrt(table.var(0) + 1e-5)
    expect(pixel_table(batch_norm(x, *ones_and_zeros(2, np.float32)).data), f32(expected), atol=1e-2)


def test_sums_over_many_pixels_keep_their_digits(rng):
    x = (rng.random((4, 1, 256, 256)) + 100).astype(np.float32)
    mean, var = np.zeros(1, np.float32), np.zeros(1, np.float32)
    batch_norm(x, *ones_and_zeros(1, np.float32), running_mean=mean, running_var=var, momentum=1.0)
    expect(mean, f32([x.astype(np.float64).mean()]), rtol=1e-6)
    expect(var, f32([x.astype(np.float64).var()]), rtol=1e-3)


@pytest.mark.parametrize(
    ("dtype", "result"), [("float32", "float32"), ("float64", "float64"), ("uint8", "float32")]
)
def test_floats_keep_their_dtype_and_integers_become_float32(dtype, result):
    x = np.array([[1], [3]], dtype)
    expect(batch_norm(x, *ones_and_zeros(1), eps=0.0), np.array([[-1], [1]], result))


def running(mean, var, dtype=np.float64):
    return {"running_mean": np.array(mean, dtype), "running_var": np.array(var, dtype)}


BATCH = np.array([[1.0, 0.0], [5.0, 2.0], [3.0, 1.0]])  # means 3, 1; variances 8/3, 2/3; over n - 1: 4, 1


def test_in_training_the_running_ones_move_towards_the_batch():
    """By a tenth of the way; towards the variance over n - 1, which is the better guess for new images."""
    state = running([1.0, 1.0], [2.0, 1.0])
    out = batch_norm(BATCH, *ones_and_zeros(2), **state)
    expect(state["running_mean"], np.array([1.2, 1.0]))
    expect(state["running_var"], np.array([2.2, 1.0]))
    expect(out, (BATCH - [3, 1]) / np.sqrt([8 / 3 + 1e-5, 2 / 3 + 1e-5]))


def test_momentum_says_how_far():
    state = running([1.0, 1.0], [2.0, 1.0])
    batch_norm(BATCH, *ones_and_zeros(2), **state, momentum=0.5)
    expect(state["running_mean"], np.array([2.0, 1.0]))
    expect(state["running_var"], np.array([3.0, 1.0]))
    batch_norm(BATCH, *ones_and_zeros(2), **state, momentum=0.0)
    expect(state["running_mean"], np.array([2.0, 1.0]))
    expect(state["running_var"], np.array([3.0, 1.0]))


def test_a_write_to_the_running_ones_is_noted():
    state = running([0.0, 0.0], [1.0, 1.0])
    before = version()
    batch_norm(BATCH, *ones_and_zeros(2), **state)
    assert min(version(array) for array in state.values()) > before


def test_in_use_the_running_ones_are_taken_and_stay():
    state = running([1.0, 0.0], [4.0, 1.0])
    weight, bias = np.array([2.0, 1.0]), np.array([0.0, 10.0])
    before = version()
    out = batch_norm(BATCH, weight, bias, **state, training=False, eps=0.0)
    expect(out, np.array([[0.0, 10.0], [4.0, 12.0], [2.0, 11.0]]))
    expect(state["running_mean"], np.array([1.0, 0.0]))
    expect(state["running_var"], np.array([4.0, 1.0]))
    expect(version(), before)
    expect(batch_norm(BATCH[:1], weight, bias, **state, training=False, eps=0.0), np.array([[0.0, 10.0]]))
    expect(batch_norm(BATCH[:0], weight, bias, **state, training=False), np.zeros((0, 2)))


def test_in_use_too_eps_is_added_to_the_variance():
    state = running([1.0, 0.0], [4.0, 1.0])  # with eps of 12: deviations 4 and sqrt(13)
    out = batch_norm(BATCH[1:2], *ones_and_zeros(2), **state, training=False, eps=12.0)
    expect(out, np.array([[1.0, 2 / 13**0.5]]))
    tiny = running([0.0], [1e-6])
    out = batch_norm(np.array([[1e-3]]), *ones_and_zeros(1), **tiny, training=False)
    expect(out, np.array([[1e-3 / (1e-6 + 1e-5) ** 0.5]]))


def test_running_ones_keep_their_dtype():
    state = running([0.0, 0.0], [1.0, 1.0], np.float32)
    batch_norm(BATCH, *ones_and_zeros(2), **state)
    expect(state["running_mean"], f32([0.3, 0.1]))
    out = batch_norm(f32(BATCH), *ones_and_zeros(2, np.float32), **state, training=False)
    expect(out.dtype, np.dtype(np.float32))


@pytest.mark.parametrize(
    ("x", "weight", "bias", "mentions"),
    [
        ((4, 3, 2, 2), (2,), (3,), ["(4, 3, 2, 2)", "(2,)"]),
        ((4, 3, 2, 2), (3,), (2,), ["(4, 3, 2, 2)", "(2,)"]),
        ((4, 3, 2, 2), (1,), (1,), ["(4, 3, 2, 2)", "(1,)"]),
        ((4, 3, 2, 2), (3, 1), (3,), ["(4, 3, 2, 2)", "(3, 1)"]),
        ((3,), (3,), (3,), ["(3,)"]),
        ((1, 3), (3,), (3,), ["(1, 3)"]),
        ((1, 3, 1, 1), (3,), (3,), ["(1, 3, 1, 1)"]),
        ((0, 3, 2, 2), (3,), (3,), ["(0, 3, 2, 2)"]),
    ],
)
def test_what_cannot_be_normed_is_refused(x, weight, bias, mentions):
    state = running([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    with expect_error(ValueError, *mentions):
        batch_norm(np.ones(x), np.ones(weight), np.ones(bias), **state)
    expect((state["running_mean"], state["running_var"]), (np.zeros(3), np.ones(3)))


def test_use_without_running_ones_is_refused():
    for given_ones in ({}, {"running_mean": np.zeros(2)}, {"running_var": np.ones(2)}):
        with expect_error(ValueError):
            batch_norm(BATCH, *ones_and_zeros(2), training=False, **given_ones)


def test_the_input_stays_as_it_was(rng):
    x = rng.normal(size=(2, 3, 4, 4))
    before = x.copy()
    x.flags.writeable = False
    out = batch_norm(Tensor(x), *ones_and_zeros(3))
    expect(x, before)
    assert not np.shares_memory(out.data, x)


def test_the_result_lies_channels_last_in_memory(rng):
    """Whatever the order of what it is given."""
    x = rng.normal(size=(2, 3, 4, 5)).transpose(0, 3, 1, 2)
    for same in (x, x.copy(), np.asfortranarray(x)):
        out = batch_norm(same, *ones_and_zeros(5)).data
        assert out.transpose(0, 2, 3, 1).flags.c_contiguous
