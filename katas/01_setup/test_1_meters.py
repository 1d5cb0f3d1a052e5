"""Level 1: collections paused, times and bytes measured, on clocks and calls worked out by hand."""

import gc
import time
import tracemalloc

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.setup import best_time, gc_paused, memory_of

MIB = 1 << 20
NOISE = 64 << 10  # bytes that Python itself may need for its own small objects


class Clock:
    """A clock that moves only when somebody spends time."""

    def __init__(self):
        self.now, self.reads = 1000.0, 0

    def __call__(self):
        self.reads += 1
        return self.now

    def spend(self, seconds):
        self.now += seconds


def expect_bytes(what, found, expected):
    """Fail unless `found` is what was `expected`, give or take 64 KiB."""
    __tracebackhide__ = True
    if not expected - NOISE < found < expected + NOISE:
        raise AssertionError(
            f"{what} came back as {found:,} bytes\n"
            f"expected about {expected:,}: what the function itself takes, and little else"
        )


@pytest.fixture(autouse=True)
def collector_and_tracer_as_they_were():
    """What one test leaves switched, the next should not find."""
    yield
    gc.enable()
    tracemalloc.stop()


# 01.7 gc_paused


def test_the_collector_rests_inside_and_works_again_afterwards():
    with gc_paused():
        expect(gc.isenabled(), False)
    expect(gc.isenabled(), True)


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    with gc_paused():
        expect(gc.isenabled(), False)
    expect(gc.isenabled(), False)


def test_whatever_the_block_switches_the_collector_is_put_back():
    with gc_paused():
        gc.enable()
        gc.disable()
    expect(gc.isenabled(), True)
    gc.disable()
    with gc_paused():
        gc.enable()
    expect(gc.isenabled(), False)


def test_the_collector_works_again_after_an_error_which_passes_through():
    with expect_error(KeyError, "lost"), gc_paused():
        raise KeyError("lost")
    expect(gc.isenabled(), True)


def test_the_collector_works_again_after_ctrl_c():
    try:
        with gc_paused():
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    expect(gc.isenabled(), True)


def test_pauses_can_be_nested():
    with gc_paused():
        with gc_paused():
            pass
        expect(gc.isenabled(), False)
        gc.enable()
        with gc_paused():
            expect(gc.isenabled(), False)
        expect(gc.isenabled(), True)
    expect(gc.isenabled(), True)


# 01.8 best_time


def spending(clock, *seconds):
    """A function whose calls take these seconds, one after the other."""
    durations = iter(seconds)
    return lambda: clock.spend(next(durations))


def test_the_best_of_the_runs_counts():
    clock = Clock()
    expect(best_time(spending(clock, 9, 5, 3, 4), repeats=3, clock=clock), 3.0)


def test_a_run_that_took_no_time_is_a_run_too():
    clock = Clock()
    expect(best_time(spending(clock, 9, 0, 3), repeats=2, clock=clock), 0.0)


def test_the_call_that_goes_ahead_does_not_count():
    clock = Clock()
    expect(best_time(spending(clock, 1, 5, 3, 4), repeats=3, clock=clock), 3.0)


def test_a_run_of_several_calls_gives_the_time_of_one():
    clock = Clock()
    expect(best_time(spending(clock, 9, 1, 3, 2, 4), repeats=2, calls=2, clock=clock), 2.0)


def test_by_default_one_call_goes_ahead_and_five_runs_of_one_call_follow():
    clock, left = Clock(), [9, 9, 9, 2, 7, 7, 7, 7, 1]
    expect(best_time(lambda: clock.spend(left.pop()), clock=clock), 2.0)
    expect(left, [9, 9, 9])


def test_the_clock_is_read_at_both_ends_of_a_run_and_not_in_between():
    clock = Clock()
    expect(best_time(lambda: None, repeats=3, calls=100, clock=clock), 0.0)
    expect(clock.reads, 6)


def test_the_collector_rests_while_the_clock_runs():
    seen = []
    best_time(lambda: seen.append(gc.isenabled()), repeats=2)
    expect(seen[1:], [False, False])
    expect(gc.isenabled(), True)


def test_the_collector_works_again_when_the_function_raises():
    calls = []

    def second_call_fails():
        calls.append(1)
        return 1 / (2 - len(calls))

    with expect_error(ZeroDivisionError):
        best_time(second_call_fails)
    expect(gc.isenabled(), True)


@pytest.mark.parametrize("name", ["repeats", "calls"])
@pytest.mark.parametrize("value", [0, -3])
def test_no_runs_or_no_calls_is_an_error_that_says_so(name, value):
    with expect_error(ValueError, name, str(value)):
        best_time(lambda: None, **{name: value})


def test_by_default_real_seconds_are_measured():
    start = time.perf_counter()
    best = best_time(lambda: sum(range(1000)), repeats=3, calls=100)
    whole = time.perf_counter() - start
    assert 0 < 3 * 100 * best <= whole  # no run was shorter than the best one


# 01.9 memory_of


def test_the_peak_includes_the_result_and_the_result_is_kept():
    memory = memory_of(lambda: bytearray(MIB))
    expect_bytes("the peak", memory.peak, MIB)
    expect_bytes("what is kept", memory.kept, MIB)


def test_bytes_are_whole_numbers():
    memory = memory_of(lambda: bytearray(MIB))
    expect((type(memory.peak), type(memory.kept)), (int, int))


def test_numpy_arrays_count_too():
    expect_bytes("what is kept", memory_of(lambda: np.ones(MIB // 8)).kept, MIB)


def test_what_is_dropped_on_the_way_counts_for_the_peak_alone():
    memory = memory_of(lambda: len(bytearray(MIB)))
    expect_bytes("the peak", memory.peak, MIB)
    expect_bytes("what is kept", memory.kept, 0)


def test_the_peak_is_the_worst_moment_not_the_sum():
    def one_after_the_other():
        for _ in range(4):
            len(bytearray(MIB))

    expect_bytes("the peak", memory_of(one_after_the_other).peak, MIB)


def test_one_call_goes_ahead_so_that_caches_are_warm():
    cache = []
    memory = memory_of(lambda: cache or cache.append(bytearray(MIB)))
    expect_bytes("the peak of a call that finds its cache filled", memory.peak, 0)
    calls = []
    function = lambda: calls.append(1)  # noqa: E731
    memory_of(function)
    expect(len(calls), 2)
    memory_of(function)
    expect(len(calls), 4)


def cycle():
    """A MiB that only the garbage collector can free."""
    loop = [bytearray(MIB)]
    loop.append(loop)


def test_garbage_in_a_cycle_is_not_kept():
    memory = memory_of(cycle)
    expect_bytes("the peak", memory.peak, MIB)
    expect_bytes("what is kept", memory.kept, 0)


def test_the_collector_rests_during_the_call():
    seen = []
    memory_of(lambda: seen.append(gc.isenabled()))
    expect(seen[1], False)
    expect(gc.isenabled(), True)


def test_garbage_from_before_is_not_credited():
    gc.disable()
    tracemalloc.start()
    cycle()
    gc.enable()
    expect_bytes("what is kept", memory_of(lambda: bytearray(MIB)).kept, MIB)


def test_what_was_there_before_does_not_count():
    tracemalloc.start()
    before = bytearray(4 * MIB)
    memory = memory_of(lambda: bytearray(MIB))
    expect_bytes("the peak", memory.peak, MIB)
    expect_bytes("what is kept", memory.kept, MIB)
    expect(len(before), 4 * MIB)


def test_an_earlier_peak_does_not_count():
    tracemalloc.start()
    len(bytearray(4 * MIB))
    expect_bytes("the peak", memory_of(lambda: bytearray(MIB)).peak, MIB)


def test_tracing_stays_as_it_was():
    memory_of(lambda: None)
    expect(tracemalloc.is_tracing(), False)
    tracemalloc.start()
    memory_of(lambda: None)
    expect(tracemalloc.is_tracing(), True)


@pytest.mark.parametrize("traced", [False, True])
def test_tracing_and_the_collector_stay_as_they_were_when_the_function_raises(traced):
    calls = []

    def second_call_fails():
        calls.append(1)
        return 1 / (2 - len(calls))

    if traced:
        tracemalloc.start()
    with expect_error(ZeroDivisionError):
        memory_of(second_call_fails)
    expect(tracemalloc.is_tracing(), traced)
    expect(gc.isenabled(), True)


@pytest.mark.parametrize("tool", [best_time, memory_of])
def test_a_meter_leaves_a_collector_that_was_off_as_it_was(tool):
    gc.disable()
    tool(lambda: None)
    expect(gc.isenabled(), False)


@pytest.mark.parametrize("tool", [best_time, memory_of])
def test_a_meter_leaves_all_as_it_was_when_the_first_call_raises(tool):
    def fails():
        raise OSError("disk on fire")

    with expect_error(OSError, "disk on fire"):
        tool(fails)
    expect((gc.isenabled(), tracemalloc.is_tracing()), (True, False))


def test_what_somebody_else_has_traced_stays_traced():
    tracemalloc.start()
    held = bytearray(MIB)
    memory_of(lambda: None)
    assert tracemalloc.get_object_traceback(held) is not None, "the traces from before the call are gone"
    expect(len(held), MIB)


def test_the_peak_is_that_of_the_call_and_not_of_the_collection_after_it():
    class Loud:
        """A cycle that takes 4 MiB when it is collected."""

        def __init__(self):
            self.me = self

        def __del__(self):
            len(bytearray(4 * MIB))

    expect_bytes("the peak", memory_of(lambda: Loud() and None).peak, 0)


def test_what_the_result_holds_is_kept_and_so_is_what_the_call_leaves_elsewhere():
    expect_bytes("what is kept", memory_of(lambda: [bytearray(MIB) for _ in range(3)]).kept, 3 * MIB)
    left = []
    expect_bytes("what is kept", memory_of(lambda: left.append(bytearray(MIB))).kept, MIB)
