"""Level 1: curves have the right heights, on examples worked out by hand and where floats end."""

import math
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dojo.expect import expect, expect_error
from tinytorch import activations
from tinytorch.activations import (
    below_largest,
    gelu,
    leaky_relu,
    leaky_relu_,
    log_softmax,
    relu,
    relu_,
    sigmoid,
    sigmoid_,
    softmax,
    tanh_,
)
from tinytorch.tensor import Tensor, version

INF = math.inf
LN2, LN3, LN5 = math.log(2), math.log(3), math.log(5)

some = settings(derandomize=True, max_examples=30)


def f32(values):
    return np.array(values, np.float32)


def f64(values):
    return np.array(values, np.float64)


@contextmanager
def no_warnings():
    """Whatever numpy would warn of is an error; that a number is too small to hold is not worth a warning."""
    with np.errstate(divide="warn", over="warn", invalid="warn", under="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


CURVES = {
    "relu": lambda x: relu(x),
    "leaky_relu": lambda x: leaky_relu(x),
    "sigmoid": lambda x: sigmoid(x),
    "gelu": lambda x: gelu(x),
    "softmax": lambda x: softmax(x),
    "log_softmax": lambda x: log_softmax(x),
}
IN_PLACE = {
    "relu_": (lambda x: relu_(x), lambda x: np.maximum(x, 0)),
    "leaky_relu_": (lambda x: leaky_relu_(x), lambda x: np.where(x > 0, x, 0.01 * x)),
    "sigmoid_": (lambda x: sigmoid_(x), lambda x: 1 / (1 + np.exp(-x))),
    "tanh_": (lambda x: tanh_(x), np.tanh),
}


# 04.1 relu


def test_relu_cuts_off_what_is_negative():
    expect(relu(Tensor([-2.0, -0.5, 0.0, 0.5, 3.0])), f32([0, 0, 0, 0.5, 3]))


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint8])
def test_relu_leaves_integers_integers(dtype):
    x = np.array([0, 1, 127, 3], dtype)
    expect(relu(Tensor(x)), x)
    expect(relu(Tensor(np.array([-128, -1, 5], np.int8))), np.array([0, 0, 5], np.int8))
    large = np.array([2**62 + 1, -5], np.int64)  # a float would round it
    expect(relu(Tensor(large)), np.array([2**62 + 1, 0], np.int64))


# 04.1, 04.3 and 04.5: relu_into, leaky_relu_into, sigmoid_into


@pytest.mark.parametrize(
    ("name", "slope", "heights"),
    [
        ("relu_into", (), [0, 0, LN3]),
        ("leaky_relu_into", (0.5,), [-LN3 / 2, 0, LN3]),
        ("sigmoid_into", (), [0.25, 0.5, 0.75]),
    ],
)
def test_a_curve_is_written_into_the_array_given_and_that_comes_back(name, slope, heights):
    into = getattr(activations, name, None)
    if into is None:  # it is in the stub, but the curves can be written without it
        return
    x, out = f64([-LN3, 0, LN3]), np.zeros((3, 2))[:, 0]
    assert into(x, *slope, out) is out
    expect((x, out), (f64([-LN3, 0, LN3]), f64(heights)))
    assert into(x, *slope, x) is x
    expect(x, f64(heights))


# 04.3 leaky_relu


def test_leaky_relu_flattens_what_is_negative():
    expect(leaky_relu(Tensor([-2.0, 0.0, 3.0])), f32([-0.02, 0, 3]))  # 0.01, as in PyTorch
    expect(leaky_relu(Tensor([-2.0, -0.5, 0.0, 3.0]), negative_slope=0.5), f32([-1, -0.25, 0, 3]))


def test_leaky_relu_may_be_flat_or_straight():
    x = f64([-INF, -3, 0, 2, INF])
    with no_warnings():
        expect(leaky_relu(Tensor(x), negative_slope=0.0), f64([0, 0, 0, 2, INF]))
        expect(leaky_relu(Tensor(x), negative_slope=1.0), x)
        # A slope too small for float32 is 0 there.
        expect(leaky_relu(Tensor(x.astype(np.float32)), negative_slope=1e-60), f32([0, 0, 0, 2, INF]))


def test_a_slope_that_numpy_has_computed_widens_nothing():
    for slope in np.linspace(0, 1, 3):  # float64, which is a float of Python too
        expect(leaky_relu(Tensor([-2.0, 3.0]), negative_slope=slope), f32([-2 * slope, 3]))


@pytest.mark.parametrize("slope", [-0.1, 1.5, math.nan])
def test_leaky_relu_refuses_slopes_beyond_0_and_1(slope):
    with expect_error(ValueError, str(slope)):
        leaky_relu(Tensor([1.0]), negative_slope=slope)


# 04.5 sigmoid


def test_sigmoid_turns_odds_into_shares():
    """exp(-x) is 1/3 at x = ln 3, and 1 / (1 + 1/3) is 0.75."""
    x = f64([0, LN3, -LN3, math.log(9), -math.log(9)])
    expect(sigmoid(Tensor(x)), f64([0.5, 0.75, 0.25, 0.9, 0.1]))


@pytest.mark.parametrize(
    ("dtype", "ends", "rtol"), [(np.float32, (-20, -50, -80), 1e-5), (np.float64, (-20, -100, -700), 1e-12)]
)
def test_sigmoid_has_all_its_digits_near_0(dtype, ends, rtol):
    """There it is exp(x), but for one part in exp(20)."""
    shares = [math.exp(x) / (1 + math.exp(x)) for x in ends]
    expect(sigmoid(Tensor(np.array(ends, dtype))), np.array(shares, dtype), rtol=rtol, atol=0)


# 04.7 gelu


def test_gelu_follows_the_formula_with_tanh():
    """x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2, by Python; by erf gelu(1) is 0.84134."""
    x = f64([-3, -1, -0.5, 0, 0.5, 1, 3])
    heights = [-0.00363739208177, -0.15880800939172, -0.15428599017485, 0]
    heights += [0.34571400982515, 0.84119199060828, 2.99636260791823]
    expect(gelu(Tensor(x)), f64(heights), rtol=1e-9)


# 04.9 below_largest


def test_the_largest_is_0_and_the_rest_lies_below():
    x = f32([[3, 1, 2], [10, 40, 20]])
    expect(below_largest(x, -1), f32([[0, -2, -1], [-30, 0, -20]]))
    expect(below_largest(x, 0), f32([[-7, -39, -18], [0, 0, 0]]))
    expect(below_largest(np.array([1, 5]), 0), f32([-4, 0]))
    expect(below_largest(np.array([1, 255], np.uint8), 0), f32([-254, 0]))
    expect(x, f32([[3, 1, 2], [10, 40, 20]]))


@pytest.mark.parametrize(
    ("row", "below"),
    [
        ([INF, 1, INF], [0, -INF, 0]),
        ([-INF, -INF], [0, 0]),
        ([-INF, 1, -INF], [-INF, 0, -INF]),
        ([INF, -INF], [0, -INF]),
        ([INF], [0]),
    ],
)
def test_infinities_that_are_equal_have_no_distance(row, below):
    with no_warnings():
        expect(below_largest(f64(row), 0), f64(below))
        # Beside a row without any, and down a column.
        plain = [float(n) for n in range(len(row))]
        expect(below_largest(f32([row, plain]), 1), f32([below, [n - len(row) + 1 for n in plain]]))
        expect(below_largest(f64(row)[:, None], 0), f64(below)[:, None])


def test_a_distance_may_be_larger_than_what_floats_hold():
    with no_warnings():
        expect(below_largest(f32([-3e38, 3e38]), 0), f32([-INF, 0]))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 3)])
@pytest.mark.parametrize("axis", [0, -1])
def test_of_nothing_there_is_nothing_to_subtract(shape, axis):
    with no_warnings():
        expect(below_largest(np.zeros(shape), axis), np.zeros(shape))
        expect(softmax(Tensor(np.zeros(shape)), axis=axis), np.zeros(shape))
        expect(log_softmax(Tensor(np.zeros(shape)), axis=axis), np.zeros(shape))


# 04.10 softmax


def test_softmax_gives_shares_in_proportion_to_exp():
    x = f64([[0, LN2, LN5], [LN2, LN3, LN5]])
    expect(softmax(Tensor(x)), f64([[1 / 8, 2 / 8, 5 / 8], [0.2, 0.3, 0.5]]))
    expect(softmax(Tensor(x), axis=0), f64([[1 / 3, 2 / 5, 1 / 2], [2 / 3, 3 / 5, 1 / 2]]))


def test_softmax_of_large_numbers_is_that_of_their_distances():
    with no_warnings():
        expect(softmax(Tensor([1000.0, 1000.0])), f32([0.5, 0.5]))
        expect(softmax(Tensor([-1e30, -1e30, -2e30])), f32([0.5, 0.5, 0]))
        expect(softmax(Tensor(f32([3e38, -3e38]))), f32([1, 0]))


def test_softmax_of_infinities_shares_among_equals():
    with no_warnings():
        expect(softmax(Tensor([INF, 1.0, INF])), f32([0.5, 0, 0.5]))
        expect(softmax(Tensor([-INF, -INF, -INF, -INF])), f32([0.25] * 4))
        expect(softmax(Tensor([[-INF, 0.0, 0.0], [-INF, INF, 3.0]])), f32([[0, 0.5, 0.5], [0, 1, 0]]))


def test_a_number_is_a_row_of_one():
    for axis in (-1, 0):
        expect(softmax(Tensor(f64(3)), axis=axis), f64(1))
        expect(log_softmax(Tensor(f64(3)), axis=axis), f64(0))
    expect(below_largest(f64(INF), -1), f64(0))


@pytest.mark.parametrize(("shape", "axis"), [((2, 3), 2), ((2, 3), -3), ((), 1), ((), -2), ((0, 3), 2)])
def test_an_axis_that_is_not_there_is_named(shape, axis):
    for curve in (softmax, log_softmax):
        with expect_error(ValueError, str(axis)):
            curve(Tensor(np.zeros(shape)), axis=axis)
    with expect_error(ValueError, str(axis)):
        below_largest(np.zeros(shape), axis)


# 04.12 log_softmax


def test_log_softmax_is_the_logarithm_of_the_shares():
    x = f64([[0, LN2, LN5], [LN2, LN3, LN5]])
    expect(log_softmax(Tensor(x)), np.log([[1 / 8, 2 / 8, 5 / 8], [0.2, 0.3, 0.5]]))
    expect(log_softmax(Tensor(x), axis=0), np.log([[1 / 3, 2 / 5, 1 / 2], [2 / 3, 3 / 5, 1 / 2]]))


def test_log_softmax_has_all_its_digits_where_softmax_is_0():
    with no_warnings():
        expect(log_softmax(Tensor([0.0, -1000.0])), f32([0, -1000]))
        expect(log_softmax(Tensor([1e30, 0.0])), f32([0, -1e30]))
        expect(log_softmax(Tensor(f64([700, 700, -700]))), f64([-LN2, -LN2, -1400 - LN2]))


def test_log_softmax_of_infinities_shares_among_equals():
    with no_warnings():
        expect(log_softmax(Tensor(f64([INF, 1, INF]))), f64([-LN2, -INF, -LN2]))
        expect(log_softmax(Tensor(f64([-INF, -INF]))), f64([-LN2, -LN2]))
        expect(log_softmax(Tensor(f64([-INF, 3]))), f64([-INF, 0]))


# Every curve, on every kind of array.


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_keeps_the_shape_and_the_dtype(name):
    for dtype in (np.float16, np.float32, np.float64):
        for shape in [(), (1,), (0,), (2, 3), (3, 0), (1, 2, 1)]:
            out = CURVES[name](Tensor(np.ones(shape, dtype)))
            expect((out.shape, out.dtype), (shape, np.dtype(dtype)))


@pytest.mark.parametrize("name", [name for name in CURVES if name != "relu"])
def test_a_curve_turns_integers_into_float32(name):
    curve = CURVES[name]
    expect(curve(Tensor([-2, 0, 3])), curve(Tensor(f32([-2, 0, 3]))).data)
    expect(curve(Tensor([True, False])), curve(Tensor(f32([1, 0]))).data)
    for values, dtype in (([0, 3, 255], np.uint8), ([-128, 0, 127], np.int8)):  # which have no 3 - 255
        small = np.array(values, dtype)
        expect(curve(Tensor(small)), curve(Tensor(small.astype(np.float32))).data)


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_leaves_its_input_alone(name):
    for x in (f32([[-1, 2, -3], [4, -5, 6]]), f32([[1, 2, 3]]), f32([[0], [0]])):
        before = x.copy()
        out = CURVES[name](Tensor(x))
        expect((x, np.shares_memory(out.data, x)), (before, False))


def test_a_curve_leaves_numpys_settings_alone():
    """What numpy warns of is for whoever calls to say."""
    with np.errstate(divide="print", over="print", invalid="print", under="ignore"):
        before = np.geterr()
        for curve in (*CURVES.values(), *(curve for curve, _ in IN_PLACE.values())):
            curve(Tensor(f64([-1000, 0, 1000])))
        expect(np.geterr(), before)


LAYOUTS = {
    "transposed": lambda x: x.T,
    "every other column": lambda x: x[:, ::2],
    "backwards": lambda x: x[::-1, ::-1],
    "a stretched row": lambda x: np.broadcast_to(x[0], (3, 4)),
    "a single column": lambda x: x[:, :1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_curve_does_not_care_how_its_input_lies_in_memory(layout, rng):
    x = LAYOUTS[layout](rng.normal(size=(4, 4)))
    for curve in CURVES.values():
        expect(curve(Tensor(x)), curve(Tensor(x.copy())).data)


@pytest.mark.parametrize("name", [name for name in CURVES if "softmax" not in name])
def test_a_curve_lets_nan_through(name):
    with np.errstate(all="ignore"):
        expect(np.isnan(CURVES[name](Tensor([1.0, math.nan])).data), np.array([False, True]))


@pytest.mark.parametrize("name", [name for name in CURVES if "softmax" in name])
def test_a_row_with_nan_is_nan_and_no_other_row(name):
    with np.errstate(all="ignore"):
        out = CURVES[name](Tensor([[1.0, math.nan], [2.0, 3.0], [INF, math.nan], [INF, INF]])).data
    expect(np.isnan(out), np.array([[True, True], [False, False]] * 2))


# At the ends.


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [("relu", 0, None), ("leaky_relu", None, None), ("sigmoid", 0, 1), ("gelu", 0, None)],
)
def test_a_curve_goes_on_to_infinity(name, lowest, highest, dtype):
    """None: there it is as infinite as its input, and of the largest number it is a finite part."""
    large = np.finfo(dtype).max
    with no_warnings():
        out = CURVES[name](Tensor(np.array([-INF, -large, large, INF], dtype))).data
    slope = 0.01 if name == "leaky_relu" else 1
    expect(out[0], -INF if lowest is None else 0.0)
    expect(out[1], float(-slope * large) if lowest is None else 0.0)
    expect(out[2], float(large) if highest is None else 1.0)
    expect(out[3], INF if highest is None else 1.0)


ANY_FLOAT = st.one_of(st.floats(width=32, allow_nan=False), st.floats(-30, 30, width=32))
ANY_SHAPE = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@pytest.mark.parametrize("name", CURVES)
@settings(derandomize=True, max_examples=50)
@given(hnp.arrays(np.float32, ANY_SHAPE, elements=ANY_FLOAT), st.booleans())
def test_no_number_gives_nan_or_a_warning(name, x, wide):
    """For any shape, any finite or infinite float32, and the same times 1e270 in float64."""
    x = x.astype(np.float64) * 1e270 if wide else x
    with no_warnings():
        out = CURVES[name](Tensor(x)).data
    expect((out.shape, out.dtype, int(np.isnan(out).sum())), (x.shape, x.dtype, 0))
    low, high = {"relu": (0, INF), "sigmoid": (0, 1), "gelu": (-0.1701, INF)}.get(name, (-INF, INF))
    low, high = {"softmax": (0, 1), "log_softmax": (-INF, 0)}.get(name, (low, high))
    assert np.all((out >= low) & (out <= high + 1e-6))
    if x.size and "softmax" in name:
        shares = out if name == "softmax" else np.exp(out)
        expect(shares.astype(np.float64).sum(axis=-1 if x.ndim else None), np.ones(x.shape[:-1]), rtol=1e-5)


@pytest.mark.parametrize("name", [*CURVES, *IN_PLACE])
def test_no_half_number_gives_nan_or_a_warning_either(name):
    """All 63,490 of float16 that are not nan, in rows of two."""
    half = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    half = half[~np.isnan(half)]
    x = np.stack([half, half[::-1]], axis=1)
    curve = CURVES[name] if name in CURVES else IN_PLACE[name][0]
    with no_warnings():
        out = curve(Tensor(x.copy())).data
        exact = curve(Tensor(x.astype(np.float64))).data
    expect((out.dtype, int(np.isnan(out).sum())), (np.dtype(np.float16), 0))
    moderate = np.abs(exact) < 1000
    expect(out[moderate], exact[moderate].astype(np.float16), rtol=0.01, atol=0.01)


# Against the definition, one element or one row at a time.


def sigmoid_of(v):
    return 1 / (1 + math.exp(-v))


def gelu_of(v):
    return v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) / 2


def shares_of(row):
    weights = [math.exp(v) for v in row]
    return [w / math.fsum(weights) for w in weights]


ELEMENT_BY_ELEMENT = {
    "relu": lambda v: v if v > 0 else 0.0,
    "leaky_relu": lambda v: v if v > 0 else 0.01 * v,
    "sigmoid": sigmoid_of,
    "gelu": gelu_of,
}
MODERATE = st.floats(-20, 20)


@pytest.mark.parametrize("name", ELEMENT_BY_ELEMENT)
@some
@given(hnp.arrays(np.float64, ANY_SHAPE, elements=MODERATE))
def test_a_curve_is_the_same_for_each_element(name, x):
    heights = [ELEMENT_BY_ELEMENT[name](v) for v in x.ravel().tolist()]
    expect(CURVES[name](Tensor(x)), f64(heights).reshape(x.shape), atol=1e-10)


@some
@given(
    hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=4), elements=MODERATE), st.integers(-3, 2)
)
def test_softmax_and_its_logarithm_go_row_by_row(x, axis):
    axis = axis % x.ndim if axis >= 0 else axis % x.ndim - x.ndim
    shares = np.apply_along_axis(shares_of, axis, x)
    expect(softmax(Tensor(x), axis=axis), shares)
    expect(log_softmax(Tensor(x), axis=axis), np.log(shares))


@some
@given(hnp.arrays(np.float64, (2, 3), elements=MODERATE), st.floats(-1e3, 1e3))
def test_softmax_does_not_change_when_all_grow_alike(x, c):
    expect(softmax(Tensor(x + c)), softmax(Tensor(x)).data, rtol=1e-9)


# 04.16 relu_, leaky_relu_, sigmoid_, tanh_


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_the_tensor_itself_comes_back(name):
    curve, formula = IN_PLACE[name]
    for dtype in (np.float32, np.float64):
        array = np.array([[-2, -0.5, 0], [0.5, 1, 3]], dtype)
        expected = np.asarray(formula(array), dtype)
        x = Tensor(array)
        assert curve(x) is x
        assert x.data is array
        expect(array, expected)


def test_in_place_sigmoid_has_all_its_digits_near_0():
    x = Tensor(f64([-20, -100, -700]))
    sigmoid_(x)
    expect(x, np.exp(f64([-20, -100, -700])) / (1 + np.exp(-20.0)), rtol=1e-8, atol=0)


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_nan_stays_nan(name):
    x = Tensor(f64([math.nan, 1]))
    with np.errstate(all="ignore"):
        IN_PLACE[name][0](x)
    expect(np.isnan(x.data), np.array([True, False]))


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_works_on_numbers_views_and_nothing(name):
    curve, formula = IN_PLACE[name]
    number = Tensor(f64(-0.5))
    curve(number)
    expect(number, f64(formula(-0.5)))
    table = np.linspace(-2, 2, 12).reshape(3, 4)
    expected = table.copy()
    expected[::-2, 1::2] = formula(expected[::-2, 1::2])
    curve(Tensor(table[::-2, 1::2]))
    expect(table, expected)
    columns = np.linspace(-2, 2, 12).reshape(3, 4).T
    expected = formula(columns.copy())
    curve(Tensor(columns))
    expect(columns, expected)
    expect(curve(Tensor(np.zeros((3, 0)))), np.zeros((3, 0)))


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_gives_no_nan_and_no_warning_either(name):
    for dtype in (np.float32, np.float64):
        large = np.finfo(dtype).max
        x = Tensor(np.array([-INF, -large, -100, 0, 100, large, INF], dtype))
        with no_warnings():
            IN_PLACE[name][0](x)
        expect((x.dtype, int(np.isnan(x.data).sum())), (np.dtype(dtype), 0))


@pytest.mark.parametrize("name", ["leaky_relu_", "sigmoid_", "tanh_"])
@pytest.mark.parametrize("values", [[1, -2, 3], [True, False]])
def test_in_place_floats_do_not_fit_into_integers(name, values):
    x = Tensor(values)
    with expect_error(TypeError):
        IN_PLACE[name][0](x)
    expect(x, np.array(values))


def test_in_place_relu_takes_integers():
    x = Tensor([-1, 5])
    relu_(x)
    expect(x, np.array([0, 5]))


def test_in_place_leaky_relu_takes_a_slope():
    x = Tensor(f64([-INF, -2, 0, 3]))
    leaky_relu_(x, negative_slope=0.5)
    expect(x, f64([-INF, -1, 0, 3]))
    with no_warnings():
        leaky_relu_(x, negative_slope=0.0)
        small = Tensor(f32([-INF, -2, 3]))
        leaky_relu_(small, negative_slope=1e-60)  # which is 0 in float32
    expect(x, f64([0, 0, 0, 3]))
    expect(small, f32([0, 0, 3]))
    with expect_error(ValueError, "2.0"):
        leaky_relu_(x, negative_slope=2.0)
    expect(x, f64([0, 0, 0, 3]))


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_is_known_to_whoever_kept_the_array(name):
    """The seam counts writes (kata 02), and later a graph asks."""
    x = Tensor([1.0, 2.0])
    before = version(x.data)
    IN_PLACE[name][0](x)
    assert version(x.data) > before
