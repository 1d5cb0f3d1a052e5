"""Level 4: tools that measure time must not take it.

Times are compared within this run, never with a clock on the wall, and counts wherever counts will do.
Each budget has a twin: a naive version, written out here, that must not fit.
"""

import io
import sys
import time

import numpy as np

from dojo.expect import expect
from dojo.measuring import Budget, race
from tinytorch.setup import best_time, check_requirement, find_mismatch, numerical_gradient, track

# Right versions, one that copies both its inputs among them, went up to 9.2 beside busy processes.
CLOSE = Budget(
    "comparing 100,000 numbers that are close",
    limit=15,
    reference=1.9,
    naive=35,
    unit="times np.abs(a - b).max()",
    naively="a loop over the elements",
)
DIFFERENT = Budget(
    "finding the worst of 100,000 numbers that all differ",
    limit=15,
    reference=3.3,
    naive=55,
    unit="times np.abs(a - b).max()",
    naively="a loop over the elements",
)
TIMING = Budget(
    "timing 50,000 calls of an empty function",
    limit=3,
    reference=1.1,
    naive=7,
    unit="times the bare calls",
    naively="a version that reads the clock around each call",
)
LINES = Budget(
    "lines of progress for 10,000 items in a second",
    limit=12,
    reference=10,
    naive=10_000,
    unit="lines",
    naively="a version that writes one for each item",
)
WATCHING = Budget(
    "the time of tracking 20,000 items",
    limit=7,
    reference=1.4,
    naive=20,
    unit="times a loop that counts and reads a clock",
    naively="a version that lays out a line for each item",
)
PROBING = Budget(
    "numerical_gradient of n numbers",
    limit=2.5,
    reference=2,
    naive=3,
    unit="calls of f for each of them",
    naively="a version that also asks for f(x) each time",
)


class Nowhere(io.TextIOBase):
    """A file that counts what is written to it, and forgets it."""

    written = flushes = 0

    def write(self, text):
        self.written += text.count("\r")
        return len(text)

    def flush(self):
        self.flushes += 1


class Clock:
    """A clock that moves only when somebody spends time."""

    now = 1000.0

    def __call__(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


# 01.3: what a package is called and which version it has is written beside it; running it is not needed.


def installed_somewhere(folder, monkeypatch):
    """A package that notes its import, with the version 1.5 written beside it."""
    (folder / "heavy_package.py").write_text("__version__ = '1.5'\n")
    (folder / "heavy_package-1.5.dist-info").mkdir()
    (folder / "heavy_package-1.5.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: heavy_package\nVersion: 1.5\n"
    )
    monkeypatch.syspath_prepend(str(folder))


def test_checking_a_requirement_does_not_import_the_package(tmp_path, monkeypatch):
    installed_somewhere(tmp_path, monkeypatch)
    check = check_requirement("heavy_package>=1.2")
    expect((check.ok, check.found), (True, "1.5"))
    assert "heavy_package" not in sys.modules


def test_the_twin_that_asks_the_package_imports_it(tmp_path, monkeypatch):
    installed_somewhere(tmp_path, monkeypatch)
    expect(__import__("heavy_package").__version__, "1.5")
    assert sys.modules.pop("heavy_package")


# 01.6: a progress bar that is slower than the work is no help.


def a_line_each(items, file):
    for done, item in enumerate(items, 1):
        yield item
        file.write(f"\r{done}")


def lay_out_each_line(items, file):
    last = start = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        line = f"\r[{'#' * (done * 20 // 20_000):20}] {done}/20000 {done / (now - start + 1e-9):8.1f}/s"
        if now - last >= 0.1:
            file.write(line)
            last = now
        yield item


def count_and_read_a_clock():
    done = 0
    for _ in range(20_000):
        done += 1
        time.monotonic()
    return done


def exhaust(items):
    for _ in items:
        pass


def test_lines_of_progress_come_by_the_clock_and_not_by_the_item():
    file, clock = Nowhere(), Clock()
    for _ in track(range(10_000), file=file, clock=clock, every=0.1):
        clock.spend(1e-4)
    assert file.written > 1
    LINES.check(file.written)
    assert file.flushes <= 2 * file.written, "flush after a line is written, not after each item"


def test_the_twin_that_writes_a_line_for_each_item_is_caught():
    file = Nowhere()
    exhaust(a_line_each(range(10_000), file))
    LINES.catches(file.written)


def test_tracking_costs_little_more_than_reading_a_clock():
    WATCHING.check(
        race(
            lambda: exhaust(track(range(20_000), file=Nowhere())),
            count_and_read_a_clock,
            limit=WATCHING.limit,
        )
    )


def test_the_twin_that_lays_out_lines_for_nobody_is_caught():
    slow = race(
        lambda: exhaust(lay_out_each_line(range(20_000), Nowhere())),
        count_and_read_a_clock,
        limit=WATCHING.limit,
    )
    WATCHING.catches(slow)


# 01.8: what is read from the clock should be the function, not the clock.


def empty():
    pass


def bare_calls():
    for _ in range(50_000):
        empty()


def clock_around_each_call():
    best = 1.0
    for _ in range(50_000):
        start = time.perf_counter()
        empty()
        best = min(best, time.perf_counter() - start)
    return best


def test_timing_costs_little_more_than_the_calls_it_times():
    TIMING.check(race(lambda: best_time(empty, repeats=5, calls=10_000), bare_calls, limit=TIMING.limit))


def test_the_twin_that_reads_the_clock_around_each_call_is_caught():
    TIMING.catches(race(clock_around_each_call, bare_calls, limit=TIMING.limit))


# 01.10: whole arrays at a time.


def loop_over_elements(got, expected):
    numbers = enumerate(zip(got.tolist(), expected.tolist(), strict=True))
    return max(
        ((abs(a - b), i) for i, (a, b) in numbers if not abs(a - b) <= 1e-8 + 1e-5 * abs(b)), default=None
    )


def largest_difference(a, b):
    return np.abs(a - b).max()


def close_pair(rng):
    a = rng.normal(size=100_000)
    return a, a.copy()


def different_pair(rng):
    a = rng.normal(size=100_000)
    return a, a + 1.0


def test_comparing_close_arrays_goes_at_the_speed_of_arrays(rng):
    CLOSE.check(race(find_mismatch, largest_difference, limit=CLOSE.limit, inputs=lambda: close_pair(rng)))


def test_the_twin_that_loops_over_close_numbers_is_caught(rng):
    CLOSE.catches(
        race(loop_over_elements, largest_difference, limit=CLOSE.limit, inputs=lambda: close_pair(rng))
    )


def test_finding_the_worst_goes_at_the_speed_of_arrays(rng):
    DIFFERENT.check(
        race(find_mismatch, largest_difference, limit=DIFFERENT.limit, inputs=lambda: different_pair(rng))
    )


def test_the_twin_that_loops_over_different_numbers_is_caught(rng):
    slow = race(
        loop_over_elements, largest_difference, limit=DIFFERENT.limit, inputs=lambda: different_pair(rng)
    )
    DIFFERENT.catches(slow)


# 01.12: each call of f may be a whole network.


def test_a_gradient_asks_for_two_values_an_element(rng):
    calls = []
    numerical_gradient(lambda v: calls.append(1) or 0.0, rng.normal(size=(20, 10)))
    assert len(calls) >= 2 * 200
    PROBING.check(len(calls) / 200)


def forward_and_backward(f, x, step=1e-5):
    slopes = []
    for nudge in step * np.eye(x.size):
        middle = f(x)
        slopes.append(((f(x + nudge) - middle) + (middle - f(x - nudge))) / (2 * step))
    return slopes


def test_the_twin_that_asks_for_the_middle_as_well_is_caught(rng):
    calls = []
    forward_and_backward(lambda v: calls.append(1) or 0.0, rng.normal(size=200))
    PROBING.catches(len(calls) / 200)
