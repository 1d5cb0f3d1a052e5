"""Level 1: what differs, by how much, and what to say of it, on examples worked out by hand."""

import functools
import gc
import math
import re
import time
import tracemalloc
import warnings

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.setup import (
    Mismatch,
    assert_close,
    find_mismatch,
    memory_of,
    numerical_gradient,
    run_tests,
    scaling_exponent,
)

MIB = 1 << 20


class Clock:
    """A clock that moves only when somebody spends time."""

    def __init__(self):
        self.now, self.reads = 1000.0, 0

    def __call__(self):
        self.reads += 1
        return self.now

    def spend(self, seconds):
        self.now += seconds


@pytest.fixture(autouse=True)
def collector_and_tracer_as_they_were():
    """What one test leaves switched, the next should not find."""
    yield
    gc.enable()
    tracemalloc.stop()


# 01.10 find_mismatch


def test_close_arrays_have_no_mismatch():
    expect(find_mismatch([1.0, 2.0, 3.0], [1.0, 2.000001, 3.0]), None)


def test_the_worst_element_is_found_and_the_wrong_ones_are_counted():
    got = np.array([[1.0, 2.0, 3.5], [4.0, 5.0, 6.0]])
    expected = np.array([[1.0, 2.0, 7.25], [4.0, 5.5, 6.0]])
    expect(find_mismatch(got, expected), Mismatch((0, 2), 3.5, 7.25, 2, 6))


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
def test_a_mismatch_is_made_of_plain_ints_and_floats(dtype):
    mismatch = find_mismatch(np.zeros((2, 2), dtype), np.eye(2, dtype=dtype))
    expect(repr(mismatch), "Mismatch(index=(0, 0), got=0.0, expected=1.0, count=2, total=4)")


def test_farthest_means_the_largest_difference_on_either_side():
    expect(find_mismatch([1.0, 2.0], [3.0, -1.0]).index, (1,))
    expect(find_mismatch([1.0, -2.0], [3.0, 1.0]).index, (1,))


def test_a_larger_difference_that_is_allowed_is_not_the_worst():
    expect(find_mismatch([1_000_001.0, 1.5], [1_000_000.0, 1.0]), Mismatch((1,), 1.5, 1.0, 1, 2))


def test_of_equally_bad_elements_the_first_counts():
    expect(find_mismatch([5.0, 1.0, 1.0], [5.0, 2.0, 0.0]).index, (1,))


def test_the_tolerance_is_relative_to_what_was_expected():
    expect(find_mismatch([90.0], [100.0], rtol=0.1, atol=0.0), None)  # |90 - 100| <= 0.1 * 100
    expect(find_mismatch([100.0], [90.0], rtol=0.1, atol=0.0), Mismatch((0,), 100.0, 90.0, 1, 1))
    expect(find_mismatch([-90.0], [-100.0], rtol=0.1, atol=0.0), None)


def test_the_absolute_and_the_relative_tolerance_add_up():
    expect(find_mismatch([14.0], [10.0], rtol=0.25, atol=1.5), None)  # 4 <= 1.5 + 2.5
    expect(find_mismatch([14.5], [10.0], rtol=0.25, atol=1.5).got, 14.5)


def test_the_default_tolerances_are_one_in_a_hundred_thousand_and_1e_8():
    expect(find_mismatch([1.000009, 0.9e-8], [1.0, 0.0]), None)
    expect(find_mismatch([1.000012, 0.0], [1.0, 0.0]).index, (0,))
    expect(find_mismatch([1.0, 1.2e-8], [1.0, 0.0]).index, (1,))


def test_nan_is_close_to_nan_alone():
    expect(find_mismatch([math.nan, 1.0], [math.nan, 1.0]), None)
    expect(find_mismatch([math.nan, 2.0], [0.0, 1.0]).index, (0,))
    expect(find_mismatch([2.0, 0.0], [1.0, math.nan]).index, (1,))


def test_infinity_is_close_to_the_same_infinity_alone():
    expect(find_mismatch([math.inf, -math.inf], [math.inf, -math.inf]), None)
    expect(find_mismatch([math.inf], [-math.inf]), Mismatch((0,), math.inf, -math.inf, 1, 1))
    expect(find_mismatch([1.0], [math.inf]), Mismatch((0,), 1.0, math.inf, 1, 1))
    expect(find_mismatch([-math.inf], [1.0]), Mismatch((0,), -math.inf, 1.0, 1, 1))


def test_infinity_is_not_close_to_a_number_even_where_the_tolerance_is_infinite():
    expect(find_mismatch([math.inf], [1.0], atol=math.inf), Mismatch((0,), math.inf, 1.0, 1, 1))
    expect(find_mismatch([math.inf], [1.0], rtol=math.inf), Mismatch((0,), math.inf, 1.0, 1, 1))
    expect(find_mismatch([math.inf], [1e308], rtol=10.0), Mismatch((0,), math.inf, 1e308, 1, 1))


def test_nan_and_infinity_are_farther_off_than_any_number():
    expect(find_mismatch([1e300, math.nan, 0.0], [0.0, 0.0, 0.0]).index, (1,))
    expect(find_mismatch([1e300, 0.0, 0.0], [0.0, 0.0, math.inf]).index, (2,))


def test_nan_is_close_enough_to_nan_even_beside_a_wrong_element():
    expect(
        find_mismatch([math.nan, math.inf, 1.0], [math.nan, math.inf, 2.0]), Mismatch((2,), 1.0, 2.0, 1, 3)
    )


def test_shapes_must_be_equal_even_where_numpy_would_broadcast():
    with expect_error(ValueError, "(3,)", "(3, 1)"):
        find_mismatch(np.zeros(3), np.zeros((3, 1)))
    with expect_error(ValueError, "()", "(1,)"):
        find_mismatch(0.0, [0.0])
    with expect_error(ValueError, "(0,)", "(0, 3)"):  # though no element differs
        find_mismatch(np.zeros(0), np.zeros((0, 3)))


def test_a_single_number_has_an_empty_index():
    expect(find_mismatch(2.5, 2.5), None)
    expect(find_mismatch(2.5, 3.0), Mismatch((), 2.5, 3.0, 1, 1))


def test_empty_arrays_are_close():
    expect(find_mismatch(np.zeros((0, 3)), np.zeros((0, 3))), None)


def test_small_unsigned_integers_do_not_wrap_around():
    got, expected = np.array([3, 250], np.uint8), np.array([5, 100], np.uint8)
    expect(find_mismatch(got, expected), Mismatch((1,), 250, 100, 2, 2))  # in uint8, 3 - 5 is 254
    got, expected = np.array([0], np.uint8), np.array([255], np.uint8)
    expect(find_mismatch(got, expected, atol=2.0), Mismatch((0,), 0, 255, 1, 1))  # and 0 - 255 is 1


def test_the_size_of_the_smallest_integer_does_not_wrap_around_either():
    got, expected = np.array([-100], np.int8), np.array([-128], np.int8)
    expect(find_mismatch(got, expected, rtol=0.25), None)  # in int8, abs(-128) is -128
    got, expected = np.array([-(2**63) + 2**60]), np.array([-(2**63)])
    expect(find_mismatch(got, expected, rtol=0.25), None)


@pytest.mark.parametrize("dtype", ["uint32", "int64", "uint64"])
def test_large_integers_do_not_wrap_around(dtype):
    ends = np.iinfo(dtype).min, np.iinfo(dtype).max
    low, high = (np.array([end], dtype) for end in ends)
    expect(find_mismatch(low, high), Mismatch((0,), *map(float, ends), 1, 1))
    expect(find_mismatch(high, low, rtol=0.25), Mismatch((0,), *map(float, ends[::-1]), 1, 1))
    expect(find_mismatch(np.array([2**32]), np.array([0])).count, 1)  # in 32 bits, 2**32 is 0


def test_booleans_and_integers_compare_by_value():
    expect(find_mismatch([True, False], [1, 0]), None)
    expect(find_mismatch([True, False], [True, True]), Mismatch((1,), 0, 1, 1, 2))


def test_float32_is_compared_in_float64():
    got = np.array([2e38, 3e38], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expect(find_mismatch(got, -got).index, (1,))  # in float32, both are infinitely far off
    half = np.array([60000.0], np.float16)
    expect(find_mismatch(-half, half, rtol=1.5).count, 1)  # in float16, 1.5 * 60000 is infinite
    expect(find_mismatch(np.float32(0.1), 0.1, rtol=1e-9, atol=0.0).total, 1)  # 0.100000001490116


def test_layout_does_not_matter():
    a = np.arange(12.0).reshape(3, 4)
    b = np.arange(12.0).reshape(3, 4)
    b[2, 1] = 0.0
    expect(find_mismatch(a.T, b.T).index, (1, 2))
    expect(find_mismatch(a[::-1, ::2], b[::-1, ::2]), None)


def test_no_warning_is_printed_and_the_arrays_are_left_alone():
    got, expected = np.array([math.inf, math.nan, 1e308, 2.0]), np.array([math.inf, 1.0, -1e308, 1.0])
    for array in (got, expected):
        array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expect(find_mismatch(got, expected).count, 3)
        expect(find_mismatch(got, expected, rtol=0.0, atol=0.0).count, 3)


def test_later_warnings_of_numpy_are_not_silenced():
    with np.errstate(all="warn"):
        before = np.geterr()
        find_mismatch([math.inf, 1e308], [math.inf, -1e308])
        expect(np.geterr(), before)


# 01.11 assert_close


def test_close_arrays_raise_nothing():
    assert_close([1.0, math.nan], [1.000001, math.nan])
    with expect_error(AssertionError):  # and it does look
        assert_close([1.0, math.nan], [1.1, math.nan])


def test_the_message_names_the_worst_element_and_counts_the_wrong_ones():
    got = np.array([[1.0, 2.0, 3.5], [4.0, 5.0, 6.0]])
    expected = np.array([[1.0, 2.0, 7.25], [4.0, 5.5, 6.0]])
    with expect_error(AssertionError, "(0, 2)", "3.5", "7.25", "2 of 6"):
        assert_close(got, expected)


@pytest.mark.parametrize(("got", "expected"), [(1.0000000001, 1.0), (3e-12, 0.0)])
def test_the_message_shows_the_digits_in_which_two_numbers_differ(got, expected):
    message = ""
    try:
        assert_close([got], [expected], rtol=0.0, atol=0.0)
    except AssertionError as error:
        message = str(error)
    numbers = [float(text) for text in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", message)]
    assert got in numbers, f"{got!r} is not in the message: {message!r}"


def test_the_message_does_not_mix_up_got_and_expected():
    message = ""
    try:
        assert_close([3.5], [7.25])
    except AssertionError as error:
        message = str(error)
    expect([number for number in ("3.5", "7.25") if number in message], ["3.5", "7.25"])
    expect(re.findall(r"got[ :=]+7\.25|expected[ :=]+3\.5", message), [])


def test_the_message_names_both_shapes():
    with expect_error(AssertionError, "(2, 3)", "(3, 2)"):
        assert_close(np.zeros((2, 3)), np.zeros((3, 2)))


@pytest.mark.parametrize("got", [[1.0, 1.0], [1.0]], ids=["two", "one"])
def test_a_number_is_not_stretched_to_an_array(got):
    with expect_error(AssertionError, str(np.shape(got)), "()"):
        assert_close(got, 1.0)


def test_the_relative_tolerance_is_a_share_of_what_was_expected():
    assert_close([90.0], [100.0], rtol=0.1, atol=0.0)
    with expect_error(AssertionError, "100", "90"):
        assert_close([100.0], [90.0], rtol=0.1, atol=0.0)


def test_the_tolerances_can_be_chosen():
    assert_close([1.4], [1.0], rtol=0.5)
    assert_close([0.4], [0.0], atol=0.5)
    with expect_error(AssertionError, "1.00001"):
        assert_close([1.00001], [1.0], rtol=1e-6)
    with expect_error(AssertionError, "(1,)"):
        assert_close([1.0, 1e-8], [1.0, 0.0], atol=0.0)
    with expect_error(AssertionError, "(0,)"):
        assert_close([1.000001], [1.0], rtol=0.0, atol=0.0)


def test_the_default_tolerances_are_those_of_find_mismatch():
    assert_close([1.000009, 0.9e-8], [1.0, 0.0])
    with expect_error(AssertionError, "(0,)"):
        assert_close([1.000012, 0.0], [1.0, 0.0])
    with expect_error(AssertionError, "(1,)"):
        assert_close([1.0, 1.2e-8], [1.0, 0.0])


# 01.12 numerical_gradient


def test_the_gradient_of_a_sum_of_cubes_is_three_squares():
    expect(numerical_gradient(lambda v: (v**3).sum(), [1.0, 2.0, -3.0]), [3.0, 12.0, 27.0], rtol=1e-8)


def test_each_element_gets_its_own_slope():
    x = np.array([[2.0, 3.0], [5.0, 7.0]])
    expect(
        numerical_gradient(lambda v: v[0, 0] * v[0, 1] + 10 * v[1, 0], x),
        np.array([[3.0, 2.0], [10.0, 0.0]]),
        rtol=1e-8,
    )


def test_the_step_is_taken_both_ways():
    expect(numerical_gradient(lambda v: (v**3).sum(), [1.0], step=0.5), [3.25])  # 3x^2 + h^2


def test_the_step_grows_with_elements_beyond_1_and_does_not_shrink_below():
    # h = 0.5 * max(1, |v|), and for a cube the answer is 3v^2 + h^2
    expect(numerical_gradient(lambda v: (v**3).sum(), [4.0, -4.0, 0.25], step=0.5), [52.0, 52.0, 0.4375])


def test_the_default_step_suits_large_elements():
    expect(numerical_gradient(lambda v: (v**2).sum(), [1e9, 3.0]), [2e9, 6.0], rtol=1e-3)


def test_the_default_step_is_one_in_a_hundred_thousand():
    seen = []
    numerical_gradient(lambda v: seen.append(float(v[0])) or 0.0, [0.0])
    expect(sorted(seen), [-1e-5, 1e-5])


def test_other_elements_stay_exactly_where_they_are():
    x = np.array([0.1, 0.7, 1e-9, 3.3, 1e6])
    moved = []
    numerical_gradient(lambda v: moved.append(np.flatnonzero(v != x).tolist()) or 0.0, x)
    expect(moved, [[0], [0], [1], [1], [2], [2], [3], [3], [4], [4]])


def test_the_input_is_left_alone():
    x = np.array([0.1, 0.2, 0.3])
    before = x.copy()
    x.flags.writeable = False
    expect(numerical_gradient(lambda v: v.sum(), x), [1.0, 1.0, 1.0], rtol=1e-8)
    expect(x, before)


def test_a_float_array_is_not_nudged_even_during_the_call():
    x = np.array([0.1, 0.2, 0.3])
    numerical_gradient(lambda v: expect(x, np.array([0.1, 0.2, 0.3])) or v.sum(), x)


@pytest.mark.parametrize("dtype", ["int64", "int8", "float32", "float64"])
def test_everything_happens_in_float64(dtype):
    kinds = set()
    x = np.array([[1, 2], [3, 4]], dtype)
    slopes = numerical_gradient(lambda v: kinds.add((str(v.dtype), v.shape)) or (v**2).sum(), x)
    expect(slopes, np.array([[2.0, 4.0], [6.0, 8.0]]), rtol=1e-8)
    expect(kinds, {("float64", (2, 2))})


def test_a_single_number_has_a_single_slope():
    expect(numerical_gradient(lambda v: v * v, 3.0), np.array(6.0), rtol=1e-8)


def test_an_empty_array_has_an_empty_gradient():
    expect(numerical_gradient(lambda v: 1 / 0, np.zeros((0, 3))), np.zeros((0, 3)))


def layouts():
    a = np.arange(12.0).reshape(3, 4)
    return {
        "columns first": np.asfortranarray(a),
        "transposed": a.T,
        "every other": a[:, ::2],
        "backwards": a[::-1, ::-1],
        "one number stretched": np.broadcast_to(np.float64(2.0), (2, 3)),
    }


@pytest.mark.parametrize(
    "layout", ["columns first", "transposed", "every other", "backwards", "one number stretched"]
)
def test_layout_makes_no_difference_to_the_gradient(layout):
    x = layouts()[layout]
    expect(
        numerical_gradient(lambda v: (v * v * v).sum(), x),
        np.array(3 * x * x, order="C"),
        rtol=1e-7,
        atol=1e-7,
    )


@pytest.mark.parametrize(
    "one",
    [float, np.float32, np.array, lambda v: np.array([v]), lambda v: np.array([[v]])],
    ids=["float", "float32", "array", "one in a row", "one in a table"],
)
def test_one_number_may_come_in_many_forms(one):
    expect(numerical_gradient(lambda v: one(4.0 * v[0]), [2.0]), [4.0], rtol=0.01)


def test_small_integers_that_come_back_do_not_wrap_around():
    slopes = numerical_gradient(lambda v: np.uint8(3 if v[0] < 0 else 1), [0.0], step=0.5)
    expect(slopes, [-2.0])  # in uint8, 1 - 3 is 254


def test_a_function_of_several_numbers_is_an_error_that_names_their_shape():
    with expect_error(ValueError, "(3,)"):
        numerical_gradient(lambda v: v * v, [1.0, 2.0, 3.0])


# 01.13 run_tests


def passes():
    pass


def fails():
    raise AssertionError("2 is not 3")


def breaks():
    return 1 / 0


def is_to_do():
    raise NotImplementedError("kata 02.1: add")


def test_outcomes_come_in_order_with_status_and_message():
    outcomes = run_tests({"test_d": passes, "test_b": fails, "test_c": breaks, "test_a": is_to_do})
    expect(
        [(o.name, o.status, o.message) for o in outcomes],
        [
            ("test_d", "passed", ""),
            ("test_b", "failed", "2 is not 3"),
            ("test_c", "error", "ZeroDivisionError: division by zero"),
            ("test_a", "to do", "kata 02.1: add"),
        ],
    )


def test_only_functions_called_test_something_are_tests():
    namespace = {
        "test_size": 3,
        "helper": breaks,
        "a_test_": breaks,
        "Test_x": breaks,
        "test": breaks,
        "test_": passes,
    }
    expect([outcome.name for outcome in run_tests(namespace)], ["test_"])


def test_whatever_can_be_called_can_be_a_test():
    class Case:
        def __call__(self):
            raise AssertionError("called")

        def method(self):
            return 3

    tests = {"test_a": Case(), "test_b": Case().method, "test_c": functools.partial(int, "3"), "test_d": Case}
    expect([outcome.status for outcome in run_tests(tests)], ["failed", "passed", "passed", "passed"])


def test_no_tests_have_no_outcomes():
    expect(run_tests({}), [])


def test_every_test_runs_once():
    calls = []
    run_tests({f"test_{n}": lambda n=n: calls.append(n) for n in range(3)})
    expect(calls, [0, 1, 2])


def test_what_a_test_returns_does_not_matter():
    expect(run_tests({"test_zero": lambda: False})[0].status, "passed")


class NotClose(AssertionError):
    pass


class NotYet(NotImplementedError):
    pass


LONG = "shapes differ:\n  got (2,)\n" + 100 * "0.125 "


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (NotClose("off by one"), "failed", "off by one"),
        (NotYet("kata 20"), "to do", "kata 20"),
        (AssertionError(LONG + "."), "failed", LONG + "."),
        (ValueError("two\nlines"), "error", "ValueError: two\nlines"),
        (TypeError("no number"), "error", "TypeError: no number"),
        (RuntimeError("no luck"), "error", "RuntimeError: no luck"),
        (RecursionError("too deep"), "error", "RecursionError: too deep"),
        (FileNotFoundError(2, "No such file"), "error", "FileNotFoundError: [Errno 2] No such file"),
    ],
    ids=["NotClose", "NotYet", "long", "lines", "TypeError", "RuntimeError", "RecursionError", "OSError"],
)
def test_the_kind_of_an_error_decides_and_its_words_are_kept_whole(error, status, message):
    def test():
        raise error

    expect([(o.status, o.message) for o in run_tests({"test_x": test})], [(status, message)])


@pytest.mark.parametrize("leaving", [KeyboardInterrupt, SystemExit])
def test_somebody_who_wants_to_leave_may_leave(leaving):
    def leave():
        raise leaving

    try:
        outcomes = run_tests({"test_a": passes, "test_b": leave})
    except leaving:
        return
    raise AssertionError(f"{leaving.__name__} was caught, and must pass through: {outcomes[-1:]}")


def test_each_outcome_says_how_long_its_test_took():
    clock = Clock()

    def slow_failure():
        clock.spend(5.0)
        raise AssertionError

    outcomes = run_tests({"test_a": lambda: clock.spend(0.25), "test_b": slow_failure}, clock=clock)
    expect([outcome.seconds for outcome in outcomes], [0.25, 5.0])


def test_by_default_real_seconds_are_told():
    start = time.perf_counter()
    outcome = run_tests({"test_sum": lambda: sum(range(10_000))})[0]
    whole = time.perf_counter() - start
    assert 0 < outcome.seconds <= whole


def test_a_test_may_add_to_the_names_around_it():
    namespace = {}
    namespace["test_a"] = lambda: namespace.update(answer=42)
    namespace["test_b"] = passes
    expect([outcome.name for outcome in run_tests(namespace)], ["test_a", "test_b"])


# 01.14 scaling_exponent


def spent(call):
    """A cost that a call tells itself."""
    return call()


@pytest.mark.parametrize("power", [0, 1, 2, 3, 0.5, -1])
def test_a_power_of_n_has_that_exponent(power):
    expect(
        scaling_exponent(lambda n: lambda: 7.0 * n**power, [10, 20, 50, 100], spent), float(power), atol=1e-9
    )


def test_all_the_points_count_not_only_two_of_them():
    # In powers of 2, costs 0, 2, 4 at sizes 0, 1, 4: the line of least squares has slope 8 / (78 / 9).
    costs = {1: 1, 2: 4, 16: 16}
    expect(scaling_exponent(lambda n: lambda: costs[n], [1, 2, 16], spent), 72 / 78)


def test_sizes_may_come_in_any_order_and_more_than_once():
    expect(scaling_exponent(lambda n: lambda: n * n, [100, 10, 10, 30], spent), 2.0)
    # In powers of 2, costs 0, 3, 2, 2 at sizes 0, 1, 2, 2: the line of least squares has slope 2.25 / 2.75.
    costs = {1: 1, 2: 8, 4: 4}
    expect(scaling_exponent(lambda n: lambda: costs[n], [1, 2, 4, 4], spent), 9 / 11)


def test_each_size_is_made_and_measured_once():
    made, measured = [], []
    scaling_exponent(
        lambda n: made.append(n) or (lambda: n), [2, 4, 8], lambda call: measured.append(call()) or 1.0
    )
    expect((sorted(made), sorted(measured)), ([2, 4, 8], [2, 4, 8]))


def test_by_default_the_cost_is_the_best_time():
    made, calls = [], []

    def make(n):
        made.append(n)
        return lambda: calls.append(n) or sum(range(1000 * n))

    p = scaling_exponent(make, [1, 2])
    expect(sorted(made), [1, 2])  # preparing is not measured
    expect(sorted(calls), [1] * 6 + [2] * 6)  # one ahead, five runs
    assert math.isfinite(p)


def test_it_measures_bytes_as_well():
    make = lambda n: lambda: bytearray(n * MIB)  # noqa: E731
    expect(scaling_exponent(make, [1, 2, 4], lambda call: memory_of(call).peak), 1.0, atol=0.05)


@pytest.mark.parametrize("sizes", [[], [8], [8, 8, 8], [0, 8], [-2, 8], [8, 0]])
def test_fewer_than_two_sizes_or_impossible_ones_are_an_error_that_shows_them(sizes):
    with expect_error(ValueError, *map(str, sizes)):
        scaling_exponent(lambda n: lambda: 1.0, sizes, spent)


@pytest.mark.parametrize("cost", [0, -1.5, math.nan, math.inf])
def test_a_cost_without_a_finite_logarithm_is_an_error_that_names_it_and_its_size(cost):
    with expect_error(ValueError, str(cost), "400"):
        scaling_exponent(lambda n: lambda: cost if n == 400 else 1.0, [100, 400], spent)
