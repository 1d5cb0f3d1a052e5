"""Level 2: what must hold for every input, checked against slow and obvious specifications."""

import io
import itertools
import math
import warnings

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from dojo.expect import expect
from tinytorch.setup import (
    assert_close,
    best_time,
    check_python,
    check_requirement,
    find_mismatch,
    numerical_gradient,
    progress_bar,
    run_tests,
    scaling_exponent,
    table,
    track,
)

few = settings(derandomize=True, max_examples=25)
some = settings(derandomize=True, max_examples=75)

SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
SEEDS = st.integers(0, 2**32 - 1)
VERSIONS = list(itertools.product((2, 3, 10), (0, 9, 10), (0, 9, 10)))


class Clock:
    """A clock that moves only when somebody spends time."""

    now = 1000.0

    def __call__(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


def dotted(version):
    return ".".join(map(str, version))


# 01.2 and 01.3: versions


def is_at_least(version, minimum):
    """Part by part: the first that differs decides."""
    for have, need in zip(version, minimum, strict=True):
        if have != need:
            return have > need
    return True


def test_a_python_will_do_unless_its_first_differing_part_is_smaller():
    for minimum, version in itertools.product(VERSIONS, VERSIONS):
        check = check_python(minimum, version)
        assert check.ok == is_at_least(version, minimum), check


def test_a_requirement_agrees_with_comparing_part_by_part():
    for minimum, version in itertools.product(VERSIONS[::2], VERSIONS):
        check = check_requirement(f"rich>={dotted(minimum)}", lambda name, version=version: dotted(version))
        assert check.ok == is_at_least(version, minimum), check


# 01.4: tables


@few
@given(
    st.lists(st.tuples(*[st.text("[]/:abcbold# ", min_size=1, max_size=8).map(str.strip)] * 2), max_size=4)
)
def test_a_table_shows_every_cell_as_it_is_and_in_order(cells):
    file = io.StringIO()
    rows = [{"left": f"<{left}>", "right": f"<{right}>"} for left, right in cells]
    Console(file=file, width=80, color_system=None).print(table("cells", rows))
    place, text = 0, file.getvalue()
    for row in rows:
        for cell in row.values():
            place = text.find(cell, place) + 1
            assert place > 0, f"{cell!r} is missing, or not in its place:\n{text}"


# 01.5 and 01.6: progress


def test_as_many_characters_are_filled_as_are_wholly_done():
    for total, width in itertools.product(range(1, 13), range(1, 12)):
        for done in range(total + 1):
            # The k-th character stands for everything up to k / width of the total.
            bar = "".join("#" if k * total <= done * width else "." for k in range(1, width + 1))
            assert progress_bar(done, total, width) == bar, (done, total, width)


@few
@given(
    st.lists(st.integers(0, 40).map(lambda n: n / 16), max_size=12), st.integers(0, 32).map(lambda n: n / 16)
)
def test_lines_of_progress_are_as_far_apart_as_asked_and_no_farther(durations, every):
    file, clock = io.StringIO(), Clock()
    for seconds in track(iter(durations), "", file=file, clock=clock, every=every):
        clock.spend(seconds)
    due, now, last = [], 0.0, 0.0
    for done, seconds in enumerate(durations, 1):
        now += seconds
        if now - last >= every:
            due.append(done)
            last = now
    expect([int(line.split()[0]) for line in file.getvalue().split("\r")[1:]], [*due, len(durations)])


# 01.8: time


@few
@given(st.integers(1, 5), st.integers(1, 4), SEEDS)
def test_the_best_time_is_the_smallest_sum_over_a_run(repeats, calls, seed):
    seconds = np.random.default_rng(seed).integers(1, 64, size=(repeats, calls)) / 16
    clock = Clock()
    left = iter([0.0, *seconds.ravel().tolist()])
    best = best_time(lambda: clock.spend(next(left)), repeats=repeats, calls=calls, clock=clock)
    expect(best, min(sum(run) for run in seconds.tolist()) / calls)


# 01.10 and 01.11: closeness


def slowly(got, expected, rtol, atol):
    """(index, count) by a loop over single numbers; index is None when all are close."""
    worst, where, count = -1.0, None, 0
    for index in np.ndindex(got.shape):
        a, b = float(got[index]), float(expected[index])
        if a == b or (math.isnan(a) and math.isnan(b)):
            continue
        distance = abs(a - b) if math.isfinite(a) and math.isfinite(b) else math.inf
        if distance <= atol + rtol * abs(b) and math.isfinite(distance):
            continue
        count += 1
        if distance > worst:
            worst, where = distance, index
    return where, count


def two_arrays(shape, seed):
    """Two arrays that agree here, nearly agree there, and have nan and infinity in both."""
    rng = np.random.default_rng(seed)
    expected = rng.integers(-16, 17, size=shape) / 8
    kinds = rng.integers(0, 7, size=shape)
    got = np.choose(kinds % 4, [expected, expected, expected * 1.0625, expected + 0.125])
    special = rng.choice([math.nan, math.inf, -math.inf, 0.0], size=(2, *shape))
    got = np.where(kinds == 5, special[0], got)
    return got, np.where(kinds >= 5, special[1], expected)


TOLERANCES = st.sampled_from([(0.0, 0.0), (0.0625, 0.0), (0.0, 0.125), (0.03, 0.06), (1.0, 1.0)])


@some
@given(SHAPES, SEEDS, TOLERANCES)
def test_the_mismatch_is_what_a_loop_over_the_elements_finds(shape, seed, tolerances):
    got, expected = two_arrays(shape, seed)
    rtol, atol = tolerances
    where, count = slowly(got, expected, rtol, atol)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mismatch = find_mismatch(got, expected, rtol=rtol, atol=atol)
    if where is None:
        expect(mismatch, None)
    else:
        expect((mismatch.index, mismatch.count, mismatch.total), (where, count, got.size))
        expect([mismatch.got, mismatch.expected], [float(got[where]), float(expected[where])])


@some
@given(SHAPES, SEEDS, TOLERANCES)
def test_assert_close_fails_exactly_where_there_is_a_mismatch(shape, seed, tolerances):
    got, expected = two_arrays(shape, seed)
    rtol, atol = tolerances
    where, count = slowly(got, expected, rtol, atol)
    message = ""
    try:
        assert_close(got, expected, rtol=rtol, atol=atol)
    except AssertionError as error:
        message = str(error)
    expect("failed" if message else "passed", "passed" if where is None else "failed")
    for words in [] if where is None else [str(where), f"{count} of {got.size}"]:
        assert words in message, f"{words!r} is not in the message: {message}"


@few
@given(SHAPES, SEEDS, st.sampled_from(["float64", "float32", "float16", "int64", "uint8", "bool"]))
def test_every_array_is_close_to_a_copy_of_itself(shape, seed, dtype):
    with np.errstate(invalid="ignore"):
        x = two_arrays(shape, seed)[0].astype(dtype)
    expect(find_mismatch(x, x.copy(), rtol=0.0, atol=0.0), None)


# 01.12: gradients


@few
@given(SHAPES, SEEDS)
def test_the_gradient_of_a_cubic_is_its_derivative(shape, seed):
    a, b, c, x = np.random.default_rng(seed).integers(-16, 17, size=(4, *shape)) / 8
    slopes = numerical_gradient(lambda v: (a * v**3 + b * v**2 + c * v).sum(), x)
    expect(slopes, np.asarray(3 * a * x**2 + 2 * b * x + c), rtol=1e-7, atol=1e-7)


@few
@given(st.integers(1, 6), SEEDS)
def test_the_gradient_of_a_quadratic_form_mixes_the_elements(n, seed):
    rng = np.random.default_rng(seed)
    m, x = rng.integers(-16, 17, size=(n, n)) / 8, rng.integers(-16, 17, size=n) / 8
    expect(numerical_gradient(lambda v: v @ m @ v, x), (m + m.T) @ x, rtol=1e-7, atol=1e-7)


@few
@given(SHAPES, SEEDS, st.integers(1, 8).map(lambda n: n / 8))
def test_a_function_is_called_at_the_two_ends_of_each_step(shape, seed, step):
    x = np.asarray(np.random.default_rng(seed).integers(-32, 33, size=shape) / 8)
    seen = []
    numerical_gradient(lambda v: seen.append(v.copy()) or 0.0, x, step)
    wanted = []
    for index in np.ndindex(shape):
        for way in (-1, 1):
            point = x.copy()
            point[index] += way * step * max(1.0, abs(float(x[index])))
            wanted.append(point.ravel().tolist())
    expect(sorted(v.ravel().tolist() for v in seen), sorted(wanted))


# 01.13: tests


@few
@given(st.lists(st.sampled_from(["passed", "failed", "to do", "error"]), max_size=8))
def test_one_outcome_never_changes_another(statuses):
    errors = {"failed": AssertionError("no"), "to do": NotImplementedError("yet"), "error": OSError("disk")}

    def ending(status):
        def test():
            if status in errors:
                raise errors[status]

        return test

    outcomes = run_tests({f"test_{n}": ending(status) for n, status in enumerate(statuses)})
    expect([(o.name, o.status) for o in outcomes], [(f"test_{n}", s) for n, s in enumerate(statuses)])


# 01.14: growth


@some
@given(
    st.lists(st.integers(0, 20), min_size=2, max_size=6, unique=True),
    st.integers(-8, 16).map(lambda n: n / 4),
    st.integers(1, 40).map(lambda n: n / 8),
)
def test_the_exponent_of_c_times_n_to_the_p_is_p(logs, p, c):
    sizes = [2**log for log in logs]
    expect(scaling_exponent(lambda n: lambda: c * n**p, sizes, lambda call: call()), p, atol=1e-9)


@some
@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(-40, 40)), min_size=2, max_size=6, unique_by=lambda t: t[0]
    )
)
def test_no_other_slope_fits_better(points):
    """The fitted slope is where the sum of squares is least: a little to either side, it is larger."""
    costs = {2**x: 2.0**y for x, y in points}
    slope = scaling_exponent(lambda n: lambda: costs[n], list(costs), lambda call: call())
    x, y = np.array(points, float).T

    def misfit(slope):
        rest = y - slope * x
        return ((rest - rest.mean()) ** 2).sum()

    assert misfit(slope) <= min(misfit(slope - 1e-3), misfit(slope + 1e-3))
