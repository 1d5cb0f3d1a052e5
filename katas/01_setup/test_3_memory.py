"""Level 3: tools that measure memory must not waste it.

Figures are in MiB or in sizes of the input, counted by tracemalloc, so they are the same on every machine.
Each budget has a twin: a naive version, written out here, that must not fit.
"""

import io

import numpy as np

from dojo.expect import expect
from dojo.measuring import Budget, kept_bytes, load_probes, memory_growth, peak_bytes, retained_bytes
from tinytorch.setup import (
    assert_close,
    best_time,
    find_mismatch,
    memory_of,
    run_tests,
    scaling_exponent,
    track,
)

MIB = 1 << 20

PROBES = {probe.name: probe for probe in load_probes(__file__).PROBES}

EQUAL = Budget(
    "comparing two close arrays",
    limit=5,
    reference=3.0,  # 2.1 where numpy reuses the memory of intermediate results
    naive=8,
    unit="arrays at the worst moment",
    naively="a loop over lists",
)
DIFFERENT = Budget(
    "comparing two arrays that differ everywhere",
    limit=8,
    reference=4.1,
    naive=23.6,
    unit="arrays at the worst moment",
    naively="a loop over lists",
)
GRADIENT = Budget(
    "numerical_gradient: peak bytes over the size n",
    limit=1.5,
    reference=1.0,
    naive=2.0,
    unit="as the power of n",
    naively="a version that lays out all n steps as rows",
)
TRACKING = Budget(
    "tracking 5,000 items",
    limit=64,
    reference=8,
    naive=180,
    unit="KiB",
    naively="a version that gathers the items",
)
METER = Budget(
    "memory_of: what stays behind",
    limit=0.5,
    reference=0.0,
    naive=1.0,
    unit="MiB",
    naively="a version that remembers its results",
)
TIMER = Budget(
    "best_time of a function whose result is 1 MiB",
    limit=2.5,
    reference=1.0,
    naive=5.0,
    unit="MiB at the worst moment",
    naively="a version that collects the results",
)
OUTCOMES = Budget(
    "the outcomes of four failing tests with 1 MiB each",
    limit=0.5,
    reference=0.002,
    naive=4.0,
    unit="MiB",
    naively="a version that keeps the exceptions",
)
SIZES = Budget(
    "scaling_exponent over four problems of 1 MiB",
    limit=2.5,
    reference=1.0,
    naive=4.0,
    unit="MiB at the worst moment",
    naively="a version that makes all problems first",
)


class Nowhere(io.TextIOBase):
    """A file that forgets what is written to it."""

    def write(self, text):
        return len(text)


# 01.10 and 01.11: comparing whole arrays needs a few arrays of the same size, and no list of numbers.


def loop_over_lists(got, expected):
    numbers = enumerate(zip(got.tolist(), expected.tolist(), strict=True))
    wrong = [(abs(a - b), i) for i, (a, b) in numbers if not abs(a - b) <= 1e-8 + 1e-5 * abs(b)]
    return max(wrong, default=None)


def test_comparing_close_arrays_holds_a_few_arrays(rng):
    a = rng.normal(size=2 * MIB // 8)
    b = a.copy()
    EQUAL.check(peak_bytes(lambda: assert_close(a, b)) / a.nbytes)


def test_the_twin_that_compares_lists_is_caught(rng):
    a = rng.normal(size=MIB // 64)
    b = a.copy()
    EQUAL.catches(peak_bytes(lambda: loop_over_lists(a, b)) / a.nbytes)


def test_comparing_different_arrays_holds_a_few_more(rng):
    a = rng.normal(size=2 * MIB // 8)
    b = a + 1.0
    DIFFERENT.check(peak_bytes(lambda: find_mismatch(a, b)) / a.nbytes)


def test_the_twin_that_lists_what_differs_is_caught(rng):
    a = rng.normal(size=MIB // 64)
    b = a + 1.0
    DIFFERENT.catches(peak_bytes(lambda: loop_over_lists(a, b)) / a.nbytes)


# 01.12: one step at a time.


def all_steps_at_once(f, x, step=1e-5):
    steps = step * np.eye(x.size)
    return np.array([f(up) - f(down) for up, down in zip(x + steps, x - steps, strict=True)]) / (2 * step)


def test_a_gradient_takes_memory_in_proportion_to_its_input():
    GRADIENT.check(memory_growth(PROBES["numerical_gradient of v @ v"]))


def test_the_twin_that_lays_out_every_step_is_caught(rng):
    def peak(n):
        x = rng.normal(size=n)
        return peak_bytes(lambda: all_steps_at_once(lambda v: v @ v, x))

    GRADIENT.catches(np.log2(peak(1024) / peak(512)))


# 01.6: progress is a number, not a list.


def test_tracking_holds_no_history():
    TRACKING.check(peak_bytes(lambda: sum(track(iter(range(5_000)), file=Nowhere(), every=0))) / 1024)


def test_the_twin_that_gathers_the_items_first_is_caught():
    TRACKING.catches(peak_bytes(lambda: sum(track(list(range(5_000)), file=Nowhere(), every=0))) / 1024)


# 01.8 and 01.9: a meter that keeps what it measures changes what it measures.


def test_the_memory_meter_keeps_nothing():
    METER.check(retained_bytes(lambda: memory_of(lambda: np.ones(MIB // 8))) / MIB)


def test_the_twin_that_remembers_a_result_is_caught():
    results = {}
    METER.catches(retained_bytes(lambda: results.update({len(results): np.ones(MIB // 8)})) / MIB)


def test_a_failed_measurement_keeps_nothing_either():
    def fails():
        held = np.ones(MIB // 8)
        raise OSError(f"disk on fire after {held.size} numbers")

    def measure():
        try:
            memory_of(fails)
        except OSError:
            return "passed on"

    expect(measure(), "passed on")
    METER.check(retained_bytes(measure) / MIB)


def test_timing_drops_each_result_at_once():
    for repeats, calls in ((4, 1), (1, 4)):
        peak = peak_bytes(lambda: best_time(lambda: np.ones(MIB // 8), repeats=repeats, calls=calls))  # noqa: B023
        TIMER.check(peak / MIB)


def test_the_twin_that_collects_results_is_caught():
    TIMER.catches(peak_bytes(lambda: [np.ones(MIB // 8) for _ in range(5)]) / MIB)


# 01.13: an exception holds its traceback, that holds the frames, and they hold every local variable.


def failing_test():
    held = np.ones(MIB // 8)
    raise AssertionError(f"the sum is {held.sum()}")


def breaking_test():
    held = np.ones(MIB // 8)
    return held[MIB]


def unwritten_test():
    held = np.ones(MIB // 8)
    raise NotImplementedError(f"kata 01.13: what to do with {held.size} numbers")


FOUR = {"test_a": failing_test, "test_b": breaking_test, "test_c": unwritten_test, "test_d": failing_test}


def keep_exceptions(namespace):
    kept = []
    for test in namespace.values():
        try:
            test()
        except Exception as error:
            kept.append(error)
    return kept


def test_outcomes_do_not_keep_what_the_tests_had_in_hand():
    OUTCOMES.check(kept_bytes(lambda: run_tests(FOUR)) / MIB)


def test_the_twin_that_keeps_exceptions_is_caught():
    OUTCOMES.catches(kept_bytes(lambda: keep_exceptions(FOUR)) / MIB)


# 01.14: one problem at a time.


def problem(n):
    held = np.ones(MIB // 8)
    return lambda: n * held[0]


def test_fitting_a_growth_holds_one_problem_at_a_time():
    SIZES.check(peak_bytes(lambda: scaling_exponent(problem, [1, 2, 3, 4], lambda call: float(call()))) / MIB)


def test_the_twin_that_makes_every_problem_first_is_caught():
    SIZES.catches(peak_bytes(lambda: [float(call()) for call in [problem(n) for n in (1, 2, 3, 4)]]) / MIB)
