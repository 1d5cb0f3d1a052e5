"""Level 1: numbers on a grid, which range the grid should span, and exact products of integers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect, expect_error
from tinytorch.compression import (
    HistogramObserver,
    MinMaxObserver,
    PercentileObserver,
    QuantizedArray,
    bounds,
    integer_matmul,
    quantization_grid,
    quantize,
    quantized_matmul,
)
from tinytorch.tensor import Tensor

steady = settings(deadline=None, derandomize=True, max_examples=60)
SEEDS = st.integers(0, 2**32 - 1)
ENDS = st.floats(-1e3, 1e3, allow_subnormal=False)
BITS = st.integers(2, 16)


def new(seed=0):
    return np.random.default_rng(seed)


# 18.7 quantization_grid


def test_a_symmetric_grid_has_the_largest_magnitude_on_its_last_step():
    """6.35 / 127; and of -8.89 to 1 it is 8.89 that counts."""
    for low, high, step in ((-1.0, 6.35, 0.05), (-8.89, 1.0, 0.07), (2.0, 2.54, 0.02), (-2.54, -2.0, 0.02)):
        scale, zero_point = quantization_grid(low, high)
        expect([scale, zero_point], [np.array(step, np.float32), np.array(0, np.int8)])


def test_another_grid_spans_all_integers():
    """2.55 / 255, and -128 + 100; a range above 0 begins at 0, and one below ends there."""
    for low, high, step, zero in (
        (-1.0, 1.55, 0.01, -28),
        (0.0, 5.1, 0.02, -128),
        (3.0, 5.1, 0.02, -128),
        (-5.1, 0.0, 0.02, 127),
        (-5.1, -1.0, 0.02, 127),
    ):
        scale, zero_point = quantization_grid(low, high, symmetric=False)
        expect([scale, zero_point], [np.array(step, np.float32), np.array(zero, np.int8)])


@pytest.mark.parametrize(
    ("bits", "symmetric", "step", "zero"),
    [(2, True, 6.0, 0), (2, False, 4.0, 0), (4, True, 6 / 7, 0), (4, False, 0.8, 0), (9, True, 6 / 255, 0)],
)
def test_bits_say_how_many_steps_there_are(bits, symmetric, step, zero):
    """From -6 to 6: 1 step to each side, 3 in all; 7, and 15; 255."""
    scale, zero_point = quantization_grid(-6.0, 6.0, bits, symmetric)
    expect(scale, np.array(step, np.float32))
    expect(zero_point, np.array(zero if symmetric else zero_point, np.int16 if bits > 8 else np.int8))
    if not symmetric:
        assert abs(float(zero_point) - (-(2 ** (bits - 1)) + 6 / step)) <= 0.5


def test_the_zero_point_is_rounded_to_even():
    """From -1.5 to 1.5 in 2 bits: steps of 1, and -2 + 1.5 is -0.5: 0. From -2.5 to 0.5: 0.5: 0."""
    for low, high in ((-1.5, 1.5), (-2.5, 0.5)):
        expect(list(quantization_grid(low, high, 2, False)), [np.array(1, np.float32), np.array(0, np.int8)])


@steady
@given(ENDS, ENDS, BITS)
def test_zero_lies_on_every_grid_and_both_ends_within_half_a_step(low, high, bits):
    low, high = sorted((low, high))
    scale, zero = quantization_grid(low, high, bits, False, np.float64)
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    assert lowest <= int(zero) <= highest
    for end in (min(low, 0), max(high, 0)):
        steps = end / float(scale)
        assert lowest - 0.5001 <= steps + int(zero) <= highest + 0.5001


@pytest.mark.parametrize("symmetric", [True, False])
def test_many_ranges_make_many_grids(symmetric):
    low, high = np.array([[-1.0, 0.0], [-3.0, 2.0]]), np.array([[1.0, 4.0], [0.5, 2.5]])
    scale, zero = quantization_grid(low, high, 8, symmetric)
    expect((scale.shape, zero.shape), ((2, 2), (2, 2)))
    for i in np.ndindex(2, 2):
        one, at = quantization_grid(float(low[i]), float(high[i]), 8, symmetric)
        expect([scale[i], zero[i]], [one, at])
    for some in (low.tolist(), high.tolist()), (Tensor(low), Tensor(high)):
        expect(list(quantization_grid(*some, 8, symmetric)), [scale, zero])


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_but_zero_has_scale_1_and_tiny_ranges_the_smallest_normal_number(dtype, symmetric):
    tiny = float(np.finfo(dtype).tiny)
    zero = 0 if symmetric else -128
    expect(
        list(quantization_grid(0.0, 0.0, 8, symmetric, dtype)), [np.array(1, dtype), np.array(zero, np.int8)]
    )
    scale, _ = quantization_grid(0.0, tiny, 8, symmetric, dtype)
    expect(float(scale) / tiny, 1.0)


def test_a_range_may_be_as_large_as_floats_are():
    """Subtracted before divided, the ends would be infinitely far apart."""
    largest = float(np.finfo(np.float64).max)
    scale, zero = quantization_grid(-largest, largest, 8, False, np.float64)
    expect(float(scale), largest / 127.5)
    expect(abs(int(zero)) <= 1, True)
    scale, _ = quantization_grid(-largest / 3e270, largest / 3e270, 8, False)
    assert np.isfinite(scale)


def test_ends_that_are_given_stay_as_they_are():
    low, high = np.array([1.0, -3.0]), np.array([2.0, -1.0])
    for symmetric in (True, False):
        quantization_grid(low, high, 8, symmetric, np.float64)
        quantize(np.ones((2, 3)), axis=0, symmetric=symmetric, within=(low, high))
    expect((low, high), (np.array([1.0, -3.0]), np.array([2.0, -1.0])))


@pytest.mark.parametrize("bits", [1, 17, 0, -8])
def test_there_are_two_to_sixteen_bits(bits):
    for make in (lambda: quantization_grid(-1.0, 1.0, bits), lambda: quantize(np.ones(3), bits)):
        with expect_error(ValueError, str(bits)):
            make()


@pytest.mark.parametrize(
    ("low", "high"), [(1.0, -1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.inf), (-math.inf, 0.0)]
)
def test_a_range_goes_from_a_number_to_one_not_below_it(low, high):
    for symmetric in (True, False):
        with expect_error(ValueError):
            quantization_grid(low, high, 8, symmetric)
        with expect_error(ValueError):
            quantization_grid(np.array([0.0, low]), np.array([0.0, high]), 8, symmetric)


# 18.8 quantize, dequantize


def by_number(x, bits, symmetric, low, high):
    """quantize, one number at a time in Python, and back."""
    lowest, highest = -(2 ** (bits - 1)) + symmetric, 2 ** (bits - 1) - 1
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(-low, high) / highest if symmetric else high / (highest - lowest) - low / (highest - lowest)
    scale = scale or 1.0
    zero = 0 if symmetric else min(max(round(lowest - low / scale), lowest), highest)
    q = [min(max(round(float(v) / scale) + zero, lowest), highest) for v in x.ravel()]
    return np.array(q).reshape(x.shape), scale, zero


@steady
@given(SEEDS, BITS, st.booleans(), st.lists(st.integers(0, 4), max_size=3))
def test_quantize_is_what_it_is_for_each_number(seed, bits, symmetric, shape):
    """In float64, of numbers that lie nowhere near half a step."""
    rng = new(seed)
    x = np.asarray(rng.normal(size=shape) * 10 ** rng.uniform(-3, 3) + rng.normal())
    q = quantize(x, bits, symmetric=symmetric)
    low, high = (float(x.min()), float(x.max())) if x.size else (0.0, 0.0)
    values, scale, zero = by_number(x, bits, symmetric, low, high)
    expect(q.values, values.astype(np.int8 if bits <= 8 else np.int16))
    expect([float(q.scale), int(q.zero_point)], [scale, zero])
    expect(q.dequantize(), (values - zero) * scale)
    expect((q.scale.shape, q.zero_point.shape, q.axis), ((), (), None))


@steady
@given(SEEDS, st.integers(-3, 2), st.booleans())
def test_each_place_along_an_axis_has_a_grid_of_its_own(seed, axis, symmetric):
    rng = new(seed)
    x = rng.normal(size=(2, 3, 4)) * 10.0 ** rng.integers(-2, 3, (2, 3, 4))
    q = quantize(x, axis=axis, symmetric=symmetric)
    expect((q.axis, q.shape, q.scale.shape, q.zero_point.shape), (axis % 3, x.shape, *2 * [(x.shape[axis],)]))
    back = q.dequantize()
    for i in range(x.shape[axis]):
        one = quantize(x.take(i, axis), symmetric=symmetric)
        expect(q.values.take(i, axis), one.values)
        expect([q.scale[i], q.zero_point[i]], [one.scale, one.zero_point])
        expect(back.take(i, axis), one.dequantize())


def test_halves_are_rounded_to_even():
    q = quantize(np.array([127.0, 0.5, 1.5, 2.5, -0.5, -1.5]))
    expect(q.values, np.array([127, 0, 2, 2, 0, -2], np.int8))
    # With steps of 1, 0 at -128 + 101; the zero point is odd, and added to what was rounded.
    q = quantize(np.array([0.5, 1.5, 2.5]), symmetric=False, within=(-101.0, 154.0))
    expect(q.values, np.array([-27, -25, -25], np.int8))


def test_the_lowest_integer_of_a_symmetric_grid_is_left_out():
    q = quantize(np.array([-1.0, 1.0]), 4)
    expect(q.values, np.array([-7, 7], np.int8))
    expect(bounds(4), (-7, 7))
    q = quantize(np.array([-1000.0, 1000.0]), 4, within=(-1, 1))
    expect(q.values, np.array([-7, 7], np.int8))


def test_beyond_the_range_numbers_become_its_ends():
    """127 steps of 0.01 to each side, or 255 from -1."""
    x = np.array([-5.0, -1.0, 0.0, 1.2, 99.0])
    q = quantize(x, within=(-1.27, 1.27))
    expect(q.values, np.array([-127, -100, 0, 120, 127], np.int8))
    q = quantize(x, symmetric=False, within=(-1.0, 1.55))
    expect(q.values, np.array([-128, -128, -28, 92, 127], np.int8))
    expect(q.dequantize(), np.array([-1.0, -1.0, 0.0, 1.2, 1.55]))


def test_a_range_holds_whatever_the_numbers_are():
    """Also if they are few, small or none; and for each place along an axis, the same or its own."""
    for x in (np.array([0.001]), np.zeros(3), np.empty(0)):
        expect(quantize(x, within=(0.0, 12.7)).scale, np.array(0.1))
    x = np.array([[1.0, 50.0], [2.0, 100.0]])
    expect(quantize(x, axis=1, within=(-12.7, 0)).scale, np.array([0.1, 0.1]))
    q = quantize(x, axis=1, within=(np.array([0.0, 0.0]), np.array([12.7, 127.0])))
    expect([q.scale, q.values], [np.array([0.1, 1.0]), np.array([[10, 50], [20, 100]], np.int8)])
    expect(quantize(x, axis=1, within=([0.0, 0.0], [12.7, 127.0])).scale, q.scale, rtol=1e-6)


def test_differences_of_bytes_are_taken_in_floats():
    """-128 - 127 is -255, and 1 in int8; 32767 + 32768 likewise."""
    q = QuantizedArray(np.array([-128, 127], np.int8), np.array(0.5), np.array(127, np.int8))
    expect(q.dequantize(), np.array([-127.5, 0.0]))
    q = QuantizedArray(np.array([32767], np.int16), np.array([2.0]), np.array([-32768], np.int16), axis=0)
    expect(q.dequantize(), np.array([131070.0]))


@pytest.mark.parametrize(
    ("dtype", "kept"), [(np.float32, np.float32), (np.float64, np.float64), (np.int32, np.float32)]
)
def test_scales_keep_the_dtype_and_integers_become_float32(dtype, kept):
    q = quantize(np.array([[1, -3], [2, 0]]).astype(dtype), axis=0, symmetric=False)
    expect(
        (q.scale.dtype, q.dequantize().dtype, q.values.dtype, q.zero_point.dtype),
        (kept, kept, np.int8, np.int8),
    )
    q = quantize(np.array([1, -3]).astype(dtype), bits=9)
    expect((q.scale.dtype, q.values.dtype, q.zero_point.dtype), (kept, np.int16, np.int16))


def test_numbers_are_made_anew_each_time():
    q = quantize(np.array([127.0, -3.0]))
    first = q.dequantize()
    first[...] = 0
    expect(q.dequantize(), np.array([127.0, -3.0]))
    q.values[0] = 5
    expect(q.dequantize(), np.array([5.0, -3.0]))


def test_bytes_are_those_of_all_three():
    q = quantize(new().normal(size=(10, 20)).astype(np.float32), axis=0)
    expect((q.nbytes, q.shape), (200 + 40 + 10, (10, 20)))
    expect(quantize(np.ones(100), bits=16).nbytes, 200 + 8 + 2)


def test_zeros_and_nothing_stay():
    for symmetric in (True, False):
        expect(quantize(np.zeros((2, 3)), symmetric=symmetric).dequantize(), np.zeros((2, 3)))
        expect(quantize(np.empty((0, 3)), symmetric=symmetric).dequantize(), np.empty((0, 3)))
        q = quantize(np.empty((0, 3)), axis=1, symmetric=symmetric)
        expect([q.values.shape, q.scale], [(0, 3), np.ones(3)])
        mixed = quantize(np.array([[0.0, 0.0], [1.0, -1.0]]), axis=0, symmetric=symmetric)
        expect(mixed.scale[0], np.float64(1.0))
        expect(mixed.dequantize()[0], np.zeros(2))


def test_any_layout_is_read_and_nothing_is_written():
    x = new().normal(size=(4, 6))
    expected = quantize(x[::-1, ::2].copy(), axis=0)
    before = x.copy()
    for view in (x[::-1, ::2], np.asfortranarray(x[::-1, ::2]), Tensor(x[::-1, ::2])):
        q = quantize(view, axis=0)
        expect([q.values, q.scale], [expected.values, expected.scale])
        q.values[...] = 1
    expect(x, before)
    stretched = np.broadcast_to(np.array([1.0, 2.0]), (3, 2))
    expect(quantize(stretched).values, np.array([[64, 127]] * 3, np.int8))


def test_a_list_becomes_float32():
    expect(quantize([[1.0, -2.0]]).scale.dtype, np.float32)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_no_grid(wrong):
    x = np.array([[1.0, wrong], [2.0, 3.0]])
    for options in ({}, {"axis": 0}, {"within": (-1.0, 1.0)}, {"axis": 0, "within": (-1.0, 1.0)}):
        with expect_error(ValueError):
            quantize(x, **options)


@pytest.mark.parametrize("axis", [2, -3])
def test_an_axis_that_is_not_there_is_named(axis):
    with expect_error(ValueError, str(axis), "(2, 3)"):
        quantize(np.ones((2, 3)), axis=axis)
    with expect_error(ValueError, str(axis), "()"):
        quantize(np.ones(()), axis=axis)


# 18.9 MinMaxObserver.observe, MinMaxObserver.range


@pytest.mark.parametrize("make", [MinMaxObserver, HistogramObserver, lambda: PercentileObserver(100)])
def test_an_observer_has_seen_the_lowest_and_the_highest_of_all_batches(make):
    seen = make()
    for batch in (
        np.array([[1.0, 2.0]]),
        np.array([-3, 0]),
        Tensor(np.array([0.5], np.float32)),
        [[1.0], [2.5]],
        np.empty((0, 4)),
    ):
        seen.observe(batch)
    expect(seen.range(), (-3.0, 2.5))
    assert all(type(end) is float for end in seen.range())


def test_a_range_need_not_hold_zero():
    seen = MinMaxObserver()
    seen.observe(np.array([3.0, 4.0], np.float32))
    expect(seen.range(), (3.0, 4.0))
    seen.observe(np.array(3.5))
    expect(seen.range(), (3.0, 4.0))


@pytest.mark.parametrize("make", [MinMaxObserver, PercentileObserver])
def test_an_observer_that_has_seen_nothing_has_no_range(make):
    seen = make()
    with expect_error(ValueError):
        seen.range()
    seen.observe(np.empty(0))
    with expect_error(ValueError):
        seen.range()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_observed(wrong):
    seen = MinMaxObserver()
    seen.observe(np.array([1.0, 2.0]))
    with expect_error(ValueError):
        seen.observe(np.array([5.0, wrong]))
    expect(seen.range(), (1.0, 2.0))


def test_two_observers_do_not_share_what_they_saw():
    one, two = MinMaxObserver(), MinMaxObserver()
    one.observe(np.array([-9.0, 9.0]))
    two.observe(np.array([1.0]))
    expect(two.range(), (1.0, 1.0))


# 18.9 PercentileObserver.range


@pytest.mark.parametrize("percentile", [0, -5.0, 100.5])
def test_a_percentile_is_above_0_and_at_most_100(percentile):
    with expect_error(ValueError, str(percentile)):
        PercentileObserver(percentile)
    with expect_error(ValueError, "6"):
        HistogramObserver(bins=6)
    seen = PercentileObserver(1e-3, bins=4)  # a little less than two of four on a side
    seen.observe(np.array([-1.0, -1.0, 1.0, 1.0]))
    expect(seen.range(), (-1.0, 1.0))


def test_few_numbers_far_away_do_not_count():
    """At most 5 of 100 on a side: bins are 1 wide; 1 lies below -1, and 51 below 0; 4 above 1, 49 above 0."""
    seen = PercentileObserver(percentile=90, bins=8)
    seen.observe(np.repeat([-3.5, -0.5, 0.5, 2.5, 4.0], [1, 50, 45, 3, 1]))
    expect(seen.range(), (-1.0, 1.0))
    assert all(type(end) is float for end in seen.range())


def test_just_as_many_as_are_allowed_are_left_out():
    """5 on each side of 100; with one more, they stay."""
    for far, expected in ((5, (-1.0, 1.0)), (6, (-4.0, 4.0))):
        seen = PercentileObserver(percentile=90, bins=8)
        seen.observe(np.repeat([-4.0, -0.5, 0.5, 4.0], [far, 50 - far, 50 - far, far]))
        expect([seen.range(), seen.range()], [expected, expected])


def test_bins_reach_as_far_as_the_first_batch_or_to_1_if_it_is_all_zeros():
    """Four bins to 6 are 3 wide, and to 1 half as wide as 1; one number of 100, or of 101, is left out."""
    seen = PercentileObserver(percentile=90, bins=4)
    seen.observe(np.repeat([-6.0, -1.0, 1.0, 6.0], [1, 49, 49, 1]))
    expect(seen.range(), (-3.0, 3.0))
    seen = PercentileObserver(percentile=90, bins=4)
    seen.observe(np.zeros(100))
    seen.observe(np.ones(1))
    expect(seen.range(), (0.0, 0.5))


def test_the_range_is_never_wider_than_what_was_seen():
    seen = PercentileObserver(percentile=100, bins=8)
    seen.observe(np.array([-0.3, 4.0]))
    expect(seen.range(), (-0.3, 4.0))
    seen = PercentileObserver(percentile=99, bins=8)
    seen.observe(np.zeros(10))
    expect(seen.range(), (0.0, 0.0))


@steady
@given(SEEDS, st.sampled_from([50.0, 90.0, 99.0, 99.9]), st.integers(1, 4))
def test_it_is_the_narrowest_of_whole_bins_that_leaves_out_no_more(seed, percentile, batches):
    """Counted again from all numbers at once, in the bins that the observer has."""
    rng = new(seed)
    seen = PercentileObserver(percentile, bins=32)
    numbers = [rng.standard_t(2, size=rng.integers(1, 200)) for _ in range(batches)]
    for batch in numbers:
        seen.observe(batch)
    everything = np.concatenate(numbers)
    counts, edges = np.histogram(everything, 32, (-seen.limit, seen.limit))
    most = (100 - percentile) / 200 * len(everything)
    low = max(i for i in range(32) if counts[:i].sum() <= most)
    high = min(i for i in range(1, 33) if counts[i:].sum() <= most)
    expect(seen.range(), (max(edges[low], everything.min()), min(edges[high], everything.max())))


# 18.10 integer_matmul


def test_the_lowest_byte_has_no_positive_twin():
    """128² + 127², and the bound must know it, too: 1024 products of 2¹⁴ fill float32's 24 bits."""
    a = np.array([[-128, 127]], np.int8)
    expect(integer_matmul(a, a.T), np.array([[32513]]))
    a, b = np.full((1, 3000), -128, np.int8), np.full((3000, 1), -128, np.int8)
    a[0, -1], b[-1] = 1, 1
    expect(integer_matmul(a, b), np.array([[2999 * 2**14 + 1]]))


@steady
@given(
    SEEDS,
    st.sampled_from([np.int8, np.uint8, np.int16, np.uint16, np.int32]),
    st.tuples(*3 * [st.integers(0, 9)]),
)
def test_products_are_those_of_whole_numbers(seed, dtype, sizes):
    rng = new(seed)
    m, k, n = sizes
    info = np.iinfo(dtype)
    bound = min(info.max, 2**22)  # so that 9 products of int32 are below 2**53
    a = rng.integers(max(info.min, -bound), bound, (m, k), endpoint=True).astype(dtype)
    b = rng.integers(max(info.min, -bound), bound, (k, n), endpoint=True).astype(dtype)
    exact = [[sum(int(a[i, j]) * int(b[j, c]) for j in range(k)) for c in range(n)] for i in range(m)]
    expect(integer_matmul(a, b), np.array(exact, np.int64).reshape(m, n))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
@pytest.mark.parametrize("length", [1, 1023, 1024, 1025, 1041, 1042, 5000])
def test_sums_of_any_length_are_exact(dtype, length):
    """All of one sign, and odd: float32 loses the last digit from 2**24 on."""
    largest = np.iinfo(dtype).max
    a = np.full((2, length), largest, dtype)
    b = np.full((length, 2), largest, dtype)
    a[0, 0], b[-1, 1] = largest - 2, largest - 2
    expect(integer_matmul(a, b), a.astype(np.int64) @ b.astype(np.int64))


def test_matrices_of_two_dtypes_and_any_layout_multiply():
    a, b = new().integers(-100, 100, (3, 40)), new(1).integers(-3000, 3000, (40, 5))
    expected = a @ b
    a, b = a.astype(np.int8), b.astype(np.int16)
    expect(integer_matmul(a, b), expected)
    expect(integer_matmul(np.asfortranarray(a), np.ascontiguousarray(b.T).T), expected)
    expect(integer_matmul(a[::-1, ::-1], b[::-1]), expected[::-1])


def test_what_no_float_can_hold_is_an_error_and_not_a_guess():
    """2**40 * 2**13 is 2**53, and just holds; twice that does not."""
    a, b = np.array([[2**40, 0]]), np.array([[2**12], [2**12]])
    expect(integer_matmul(a, b), np.array([[2**52]]))
    with expect_error(ValueError, "(1, 2)", "(2, 1)"):
        integer_matmul(a, 2 * b)
    # 2**32 squared is 0 in int64, and of its lowest number there is no positive one.
    for one, other in ((np.array([[2**32]]), np.array([[2**32]])), (np.array([[-(2**63)]]), np.array([[1]]))):
        with expect_error(ValueError, "(1, 1)"):
            integer_matmul(one, other)


def test_only_matrices_of_integers_that_fit_are_multiplied():
    a, b = np.ones((2, 3), np.int8), np.ones((4, 2), np.int8)
    for one, other in (
        (a, b),
        (a, np.ones(3, np.int8)),
        (np.ones(3, np.int8), b),
        (np.ones((2, 2, 3), np.int8), a.T),
    ):
        with expect_error(ValueError, str(one.shape), str(other.shape)):
            integer_matmul(one, other)
    for one, other in ((a, np.ones((3, 2))), (np.ones((2, 3), np.float32), b), (a, np.ones((3, 2), bool))):
        with expect_error(TypeError, str(one.dtype), str(other.dtype)):
            integer_matmul(one, other)


# 18.10 quantized_matmul


def test_zero_points_are_multiplied_out():
    """[[0, 100]] times [[7 / 4], [3 / 4]]."""
    a = QuantizedArray(np.array([[-128, 72]], np.int8), np.array(0.5), np.array(-128, np.int8))
    b = QuantizedArray(np.array([[7], [3]], np.int8), np.array([0.25]), np.array([0], np.int8), axis=1)
    expect(quantized_matmul(a, b), np.array([[75.0]]))


AXES = [(None, None), (0, None), (None, 1), (0, 1)]


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [8, 16])
def test_it_is_the_product_of_what_they_stand_for(axes, symmetric, bits):
    rng = new(bits)
    a = quantize(rng.normal(size=(3, 50)) + 1, bits, axes[0], symmetric)
    b = quantize(rng.normal(size=(50, 4)) - 2, bits, axes[1], symmetric)
    expect(quantized_matmul(a, b), a.dequantize() @ b.dequantize(), rtol=1e-12)


@steady
@given(SEEDS, st.sampled_from(AXES), st.tuples(*3 * [st.integers(0, 5)]))
def test_sums_are_exact_and_rounded_once(seed, axes, sizes):
    """With scales that are powers of two, nothing is rounded at all."""
    rng = new(seed)
    m, k, n = sizes

    def made(shape, axis):
        size = () if axis is None else (shape[axis],)
        scale, zero = 2.0 ** rng.integers(-4, 5, size), rng.integers(-128, 128, size)
        values = rng.integers(-128, 128, shape).astype(np.int8)
        return QuantizedArray(values, np.asarray(scale), np.asarray(zero, np.int8), axis)

    a, b = made((m, k), axes[0]), made((k, n), axes[1])
    x, y = (
        (
            q.values.astype(float)
            - (
                q.zero_point.astype(float)
                if q.axis is None
                else np.expand_dims(q.zero_point.astype(float), 1 - q.axis)
            )
        )
        * (q.scale if q.axis is None else np.expand_dims(q.scale, 1 - q.axis))
        for q in (a, b)
    )
    found = quantized_matmul(a, b)
    expect(found.shape, (m, n))
    assert np.array_equal(found, x @ y)


def test_a_long_sum_in_float32_is_rounded_at_its_end_only():
    """20,000 times 127², less 1: beyond 2**24 float32 has no odd numbers, but the sum is right until then."""
    values = np.full((1, 20_000), 127, np.int8)
    other = np.full((20_000, 2), 127, np.int8)
    other[0, 0] = 0
    one = np.array(1, np.float32)
    zero = np.array(0, np.int8)
    found = quantized_matmul(QuantizedArray(values, one, zero), QuantizedArray(other, one, zero))
    expect(found, np.array([[19_999 * 127**2, 20_000 * 127**2]], np.float32), rtol=0, atol=0)


def test_scales_of_float32_are_multiplied_before_anything_is_rounded():
    """24 digits, 24 more and the sum's: in float64 there is one rounding, whichever comes first."""
    rng = new(2)
    a, b = (rng.integers(-127, 128, shape).astype(np.int8) for shape in ((9, 30), (30, 8)))
    one, other = (rng.uniform(0.01, 0.1, n).astype(np.float32) for n in (9, 8))
    found = quantized_matmul(
        QuantizedArray(a, one, np.zeros(9, np.int8), 0), QuantizedArray(b, other, np.zeros(8, np.int8), 1)
    )
    exact = (a.astype(float) @ b.astype(float)) * (one.astype(float)[:, None] * other.astype(float))
    expect(found, exact.astype(np.float32), rtol=0, atol=0)


def test_a_product_is_in_the_dtype_in_which_the_scales_meet():
    a, b = quantize(np.ones((2, 3), np.float32)), quantize(np.ones((3, 2), np.float32))
    expect(quantized_matmul(a, b).dtype, np.float32)
    expect(quantized_matmul(a, quantize(np.ones((3, 2)))).dtype, np.float64)


@pytest.mark.parametrize(("axis", "other"), [(1, None), (None, 0), (1, 0)])
def test_scales_that_change_within_a_sum_are_refused(axis, other):
    a, b = quantize(np.ones((2, 2)), axis=axis), quantize(np.ones((2, 2)), axis=other)
    with expect_error(ValueError, str(axis), str(other)):
        quantized_matmul(a, b)


def test_quantised_matrices_have_to_fit_too():
    with expect_error(ValueError, "(2, 3)", "(2, 2)"):
        quantized_matmul(quantize(np.ones((2, 3))), quantize(np.ones((2, 2))))
