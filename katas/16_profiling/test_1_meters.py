"""Level 1: clocks and bytes, by clocks that tests turn themselves, and by arrays whose bytes are known."""

import gc
import itertools
import math
import time
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect, expect_error
from dojo.measuring.clocks import clock
from tinytorch.profiling import (
    MOST_CALLS,
    MemoryProfiler,
    Peaks,
    Phase,
    Timing,
    time_calls,
    time_turns,
    tracing,
)

MB = 1_000_000
# Bytes that Python's own objects take around the arrays of a test; reference: below 2,000.
LITTLE = 20_000


@pytest.fixture(autouse=True)
def _as_it_was():
    """A wrong solution spoils its own test only."""
    was_on, collecting = tracemalloc.is_tracing(), gc.isenabled()
    yield
    if tracemalloc.is_tracing() and not was_on:
        tracemalloc.stop()
    if collecting:
        gc.enable()


class Bench:
    """A clock, and functions that take their time by it."""

    def __init__(self):
        self.now = 100.0
        self.read = 0
        self.calls = []

    def clock(self):
        self.read += 1
        return self.now

    def taking(self, *seconds, name="f"):
        """A function that takes these seconds, one after the other and then from the first again."""
        each = itertools.cycle(seconds)

        def function():
            self.calls.append(name)
            self.now += next(each)

        return function


# 16.1 Timing


def test_best_is_the_shortest_sample():
    expect(Timing((3.0, 1.0, 2.0)).best, 1.0)
    expect(Timing([5.0]).best, 5.0)


def test_the_median_is_the_middle_or_halfway_between_two():
    expect(Timing((9.0, 1.0, 2.0)).median, 2.0)
    expect(Timing((9.0, 1.0, 2.0, 4.0)).median, 3.0)
    expect(Timing((7.0,)).median, 7.0)


def test_the_mean_is_of_all_samples():
    expect(Timing((9.0, 1.0, 2.0)).mean, 4.0)


def test_spread_is_from_quarter_to_three_quarters_as_a_share_of_the_median():
    # 1, 2, 3, 4, 5: quarters at 2 and 4
    expect(Timing((5.0, 1.0, 2.0, 4.0, 3.0)).spread, 2 / 3)
    expect(Timing((1e-6, 1e-6, 3e-6, 3e-6)).spread, 1.0)
    expect(Timing((3.0, 1.0)).spread, 0.5)  # quarters at 1.5 and 2.5


def test_equal_samples_have_no_spread():
    expect(Timing((2.0, 2.0, 2.0)).spread, 0.0)
    expect(Timing((4.0,)).spread, 0.0)
    expect(Timing((0.0, 0.0)).spread, 0.0)


def test_where_only_the_median_is_zero_the_spread_has_no_end():
    expect(Timing((0.0, 1.0, 0.0, 1.0, 0.0)).spread, math.inf)


@pytest.mark.parametrize(
    ("q", "value"), [(0, 10.0), (1, 50.0), (0.25, 20.0), (0.5, 30.0), (0.1, 14.0), (0.95, 48.0)]
)
def test_a_quantile_lies_between_two_samples_in_proportion(q, value):
    expect(Timing((50.0, 10.0, 40.0, 20.0, 30.0)).quantile(q), value)


@pytest.mark.parametrize("q", [-0.01, 1.01, math.nan])
def test_a_quantile_outside_of_0_to_1_is_an_error(q):
    with expect_error(ValueError, str(q)):
        Timing((1.0, 2.0)).quantile(q)


def test_one_sample_is_enough_and_none_is_an_error():
    expect((Timing((4.0,)).quantile(0.25), Timing((4.0,)).mean, Timing((4.0,)).inner), (4.0, 4.0, 1))
    with expect_error(ValueError):
        Timing(())


def test_samples_stay_as_they_are():
    samples = [3.0, 1.0, 2.0]
    timing = Timing(samples)
    expect((timing.median, timing.quantile(0.75), timing.spread), (2.0, 2.5, 0.5))
    expect(samples, [3.0, 1.0, 2.0])


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=12), st.integers(0, 64))
def test_quantiles_are_those_of_numpy(samples, part):
    timing = Timing(tuple(float(s) for s in samples))
    expect(timing.quantile(part / 64), float(np.quantile(samples, part / 64)))


# 16.2 time_turns


def test_a_sample_is_seconds_a_call():
    bench = Bench()
    timing = time_calls(bench.taking(0.5), repeat=3, inner=4, clock=bench.clock)
    expect(tuple(timing.samples), (0.5, 0.5, 0.5))
    expect(timing.inner, 4)


def test_samples_are_in_the_order_in_which_they_were_taken():
    bench = Bench()
    timing = time_calls(bench.taking(9.0, 1.0, 2.0, 3.0), repeat=3, inner=1, clock=bench.clock)
    expect(tuple(timing.samples), (1.0, 2.0, 3.0))


def test_without_a_word_there_are_twenty_samples_of_a_thousandth_of_a_second():
    """A function that does nothing takes some 50 ns, so a sample is of many calls, on any machine.

    But where that clock ticks coarsely (on Windows, or under `ulimit -t`), one call may seem to take as long.
    """
    calls = 256 if clock is time.process_time else 1
    for timing in (time_calls(lambda: None), *time_turns(lambda: None)):
        expect(len(timing.samples), 20)
        assert timing.inner >= calls


def test_each_function_is_called_once_ahead_and_then_as_often_as_asked():
    bench = Bench()
    time_turns(bench.taking(1.0), bench.taking(1.0, name="g"), repeat=3, inner=5, clock=bench.clock)
    expect((bench.calls.count("f"), bench.calls.count("g")), (16, 16))


def test_the_first_call_does_not_count():
    bench = Bench()
    timing = time_calls(bench.taking(100.0, *[1.0] * 6), repeat=2, inner=3, clock=bench.clock)
    expect(tuple(timing.samples), (1.0, 1.0))


def test_the_clock_is_not_read_between_the_calls_of_a_sample():
    bench = Bench()
    time_calls(bench.taking(1.0), repeat=3, inner=50, clock=bench.clock)
    assert 6 <= bench.read <= 8, "twice a sample; the warm-up may be timed or not"


def test_samples_are_taken_in_turns_and_every_other_round_the_other_way_round():
    bench = Bench()
    functions = [bench.taking(1.0, name=name) for name in "abc"]
    time_turns(*functions, repeat=4, inner=2, clock=bench.clock)
    expect("".join(bench.calls[3:]), "aabbcc" + "ccbbaa" + "aabbcc" + "ccbbaa")


def test_each_function_has_its_own_samples():
    bench = Bench()
    first, second = time_turns(
        bench.taking(0.0, 1.0, 2.0, 3.0),
        bench.taking(0.0, 10.0, 20.0, 30.0, name="g"),
        repeat=3,
        inner=1,
        clock=bench.clock,
    )
    expect((tuple(first.samples), tuple(second.samples)), ((1.0, 2.0, 3.0), (10.0, 20.0, 30.0)))


@pytest.mark.parametrize("seconds", [2.0**-10, 3e-4, 0.02, 1.0])
def test_a_sample_has_so_many_calls_that_it_is_long_enough(seconds):
    bench = Bench()
    timing = time_calls(bench.taking(seconds), repeat=2, shortest=0.25, clock=bench.clock)
    assert timing.inner * seconds >= 0.25 * (1 - 1e-9)
    # Doubling overshoots by less than two.
    assert timing.inner == 1 or timing.inner * seconds < 0.5 * (1 + 1e-9)
    expect(tuple(timing.samples), (seconds, seconds), rtol=1e-9)


def test_a_function_that_is_handed_in_twice_has_a_timing_for_each():
    """It takes 1, 2, 3 ... seconds: after two calls to warm up it is the first and the second in turns."""
    bench = Bench()
    work = bench.taking(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    first, second = time_turns(work, work, repeat=2, inner=1, clock=bench.clock)
    expect((tuple(first.samples), tuple(second.samples)), ((3.0, 6.0), (4.0, 5.0)))


def test_a_function_that_lasts_as_long_as_it_must_is_called_once():
    bench = Bench()
    expect(time_calls(bench.taking(0.25), repeat=2, shortest=0.25, clock=bench.clock).inner, 1)
    # Also where that is less than it is without a word.
    expect(time_calls(bench.taking(2.0**-14), repeat=2, shortest=2.0**-13, clock=bench.clock).inner, 2)


def test_functions_of_different_speeds_have_different_numbers_of_calls():
    bench = Bench()
    slow, fast = time_turns(
        bench.taking(1.0), bench.taking(2.0**-6), repeat=2, shortest=1.0, clock=bench.clock
    )
    expect((slow.inner, fast.inner), (1, 64))


def test_the_number_of_calls_is_found_when_the_function_is_warm():
    bench = Bench()
    timing = time_calls(bench.taking(10.0, *[0.25] * 500), repeat=1, shortest=1.0, clock=bench.clock)
    expect(timing.inner, 4)


def test_a_clock_that_stands_still_does_not_hang():
    calls = itertools.count()
    timing = time_calls(lambda: next(calls), repeat=1, clock=lambda: 0.0)
    expect((timing.inner, tuple(timing.samples)), (MOST_CALLS, (0.0,)))


def test_the_collector_rests_while_a_sample_is_taken_and_is_then_as_it_was():
    seen = []
    for switch in (gc.enable, gc.disable):
        switch()
        time_calls(lambda: seen.append(gc.isenabled()), repeat=2, inner=2)
        expect(gc.isenabled(), switch is gc.enable)
    gc.enable()
    expect(any(seen[1:]) or not seen, False)


def test_the_collector_rests_while_the_number_of_calls_is_found_too():
    bench, seen = Bench(), []
    work = bench.taking(0.25)
    time_calls(lambda: seen.append(gc.isenabled()) or work(), repeat=1, shortest=1.0, clock=bench.clock)
    assert len(seen) > 1 + 4  # after the warm-up, and beside a sample of 4
    expect(any(seen[1:]), False)


def test_the_collector_is_as_it_was_also_if_the_function_raises():
    calls = itertools.count()

    def function():
        if next(calls) == 3:
            raise KeyError("three")

    with expect_error(KeyError, "three"):
        time_calls(function, repeat=5, inner=2)
    expect(gc.isenabled(), True)


class Thing:
    pass


def test_no_result_is_kept():
    made = []

    def function():
        alive = sum(ref() is not None for ref in made)
        thing = Thing()
        made.append(weakref.ref(thing))
        assert alive <= 1, "results of earlier calls are still there"
        return thing

    time_calls(function, repeat=3, inner=3)
    expect(any(ref() is not None for ref in made), False)


def test_no_functions_have_no_timings():
    expect(time_turns(repeat=2, inner=1), [])


@pytest.mark.parametrize("wrong", [{"repeat": 0}, {"repeat": -1}, {"inner": 0}, {"inner": -2}])
def test_nothing_to_measure_is_an_error(wrong):
    (name, value) = next(iter(wrong.items()))
    bench = Bench()
    with expect_error(ValueError, name, str(value)):
        time_turns(bench.taking(1.0), clock=bench.clock, **wrong)
    expect(bench.calls, [])


def test_a_real_clock_gives_times_above_zero():
    timing = time_calls(lambda: sum(range(100)), repeat=3, clock=time.perf_counter)
    assert len(timing.samples) == 3
    assert 0 < timing.best <= timing.median < 10


# 16.3 Peaks, tracing, MemoryProfiler


def near(measured, expected):
    assert abs(measured - expected) < LITTLE, f"{measured:,} bytes, and not about {expected:,}"


def block(megabytes):
    return np.ones(megabytes * MB // 8)


def test_tracing_is_on_inside_and_off_afterwards():
    with tracing():
        inside = tracemalloc.is_tracing()
    expect((inside, tracemalloc.is_tracing()), (True, False))
    with expect_error(KeyError), tracing():
        raise KeyError
    expect(tracemalloc.is_tracing(), False)


class Stopped(BaseException):
    """What Ctrl-C raises is no Exception either."""


def test_tracing_is_off_and_phases_are_listed_also_where_somebody_stops_it_all():
    with pytest.raises(Stopped), tracing():
        raise Stopped
    expect(tracemalloc.is_tracing(), False)
    memory = MemoryProfiler()

    def stopped():
        with memory, memory.phase("outer"), memory.phase("stopped"):
            _ = block(2).sum()
            raise Stopped

    with pytest.raises(Stopped):
        stopped()
    expect(tracemalloc.is_tracing(), False)
    for phase in memory.phases:
        near(phase.peak, 2 * MB)
    with memory, memory.phase("after"):
        pass
    expect([(phase.name, phase.depth) for phase in memory.phases], [("after", 0)])


def test_tracing_stays_on_if_it_was_on():
    tracemalloc.start()
    held = block(2)
    with tracing():
        pass
    expect(tracemalloc.is_tracing(), True)
    near(tracemalloc.get_traced_memory()[0], held.nbytes)


def test_a_reading_has_the_peak_above_its_begin_and_what_is_left():
    with tracing():
        before = block(3)
        peaks = Peaks()
        near(peaks.begin(), before.nbytes)
        kept = block(1)
        _ = block(4).sum()
        peak, left = peaks.end()
    near(peak, 5 * MB)
    near(left, kept.nbytes)


def test_the_peak_from_before_a_reading_is_not_its_own():
    with tracing():
        _ = block(8).sum()
        peaks = Peaks()
        peaks.begin()
        _ = block(1).sum()
        near(peaks.end()[0], MB)


def test_a_reading_inside_does_not_take_the_peak_of_the_one_around_it():
    with tracing():
        peaks = Peaks()
        peaks.begin()
        _ = block(6).sum()
        peaks.begin()
        _ = block(2).sum()
        inner = peaks.end()
        outer = peaks.end()
    near(inner[0], 2 * MB)
    near(outer[0], 6 * MB)


def test_the_peak_of_a_reading_inside_is_also_one_of_all_around_it():
    with tracing():
        peaks = Peaks()
        peaks.begin()
        held = block(1)
        peaks.begin()
        peaks.begin()
        _ = block(5).sum()
        readings = [peaks.end()[0] for _ in range(3)]
    near(held.nbytes, MB)
    for reading, expected in zip(readings, (5, 5, 6), strict=True):
        near(reading, expected * MB)


def test_readings_one_after_the_other_inside_have_their_own_peaks():
    with tracing():
        peaks = Peaks()
        peaks.begin()
        found = []
        for size in (4, 1, 2):
            peaks.begin()
            _ = block(size).sum()
            found.append(peaks.end()[0])
        whole, _ = peaks.end()
    for got, size in zip(found, (4, 1, 2), strict=True):
        near(got, size * MB)
    near(whole, 4 * MB)


def test_what_was_freed_is_left_as_less_than_nothing():
    with tracing():
        before = [block(3)]
        peaks = Peaks()
        peaks.begin()
        before.clear()
        peak, left = peaks.end()
    near(peak, 0)
    assert peak >= 0
    near(left, -3 * MB)


def test_phases_are_listed_with_what_they_took():
    with MemoryProfiler() as memory:
        first = block(1)
        with memory.phase("forward"):
            second = block(2)
            _ = block(4).sum()
        with memory.phase("backward"):
            del second
    assert first.size
    forward, backward = memory.phases
    assert isinstance(forward, Phase)
    expect((forward.name, forward.depth, backward.name, backward.depth), ("forward", 0, "backward", 0))
    near(forward.begin, MB)
    near(forward.peak, 6 * MB)
    near(forward.retained, 2 * MB)
    near(backward.begin, 3 * MB)
    near(backward.peak, 0)
    near(backward.retained, -2 * MB)


def test_phases_lie_inside_each_other_and_are_listed_as_they_begin():
    with MemoryProfiler() as memory:
        with memory.phase("step"):
            kept = block(1)
            with memory.phase("layer"):
                _ = block(3).sum()
                with memory.phase("product"):
                    _ = block(2).sum()
            with memory.phase("layer"):
                kept = block(2)
        with memory.phase("after"):
            pass
    assert kept.size
    expect(
        [(phase.name, phase.depth) for phase in memory.phases],
        [("step", 0), ("layer", 1), ("product", 2), ("layer", 1), ("after", 0)],
    )
    # In the second "layer" the new array is made before the old one goes.
    for phase, peak in zip(memory.phases, (4, 3, 2, 2, 0), strict=True):
        near(phase.peak, peak * MB)
    for phase, retained in zip(memory.phases, (2, 0, 0, 1, 0), strict=True):
        near(phase.retained, retained * MB)
    for phase, begin in zip(memory.phases, (0, 1, 1, 1, 2), strict=True):
        near(phase.begin, begin * MB)


def test_begin_is_above_what_was_there_when_the_profiler_began():
    tracemalloc.start()
    before = block(5)
    with MemoryProfiler() as memory, memory.phase("one"):
        pass
    assert before.size
    near(memory.phases[0].begin, 0)


def test_garbage_is_collected_before_it_counts_as_retained():
    def ring():
        cycle = [block(2)]
        cycle.append(cycle)

    with MemoryProfiler() as memory, memory.phase("rings"):
        ring()
        ring()
    near(memory.phases[0].retained, 0)
    assert memory.phases[0].peak > 2 * MB - LITTLE


def test_garbage_from_before_is_not_freed_in_a_phase():
    tracemalloc.start()
    cycle = [block(3)]
    cycle.append(cycle)
    gc.collect()  # after which it is among what is old, where a quick collection does not look
    gc.disable()
    del cycle
    with MemoryProfiler() as memory, memory.phase("nothing"):
        pass
    near(memory.phases[0].retained, 0)


def test_a_phase_that_raises_is_listed_and_the_error_goes_on():
    memory = MemoryProfiler()
    with expect_error(KeyError, "oops"), memory, memory.phase("outer"), memory.phase("bad"):
        _ = block(2).sum()
        raise KeyError("oops")
    expect([phase.name for phase in memory.phases], ["outer", "bad"])
    near(memory.phases[1].peak, 2 * MB)
    expect(tracemalloc.is_tracing(), False)


def test_after_a_phase_that_raised_depths_are_right_again():
    with MemoryProfiler() as memory:
        for name in ("one", "two"):
            try:
                with memory.phase(name):
                    raise KeyError
            except KeyError:
                pass
    expect([phase.depth for phase in memory.phases], [0, 0])


@pytest.mark.parametrize("was_on", [False, True])
def test_tracing_is_afterwards_as_it_was(was_on):
    if was_on:
        tracemalloc.start()
    with MemoryProfiler() as memory, memory.phase("one"):
        inside = tracemalloc.is_tracing()
    expect((inside, tracemalloc.is_tracing(), len(memory.phases)), (True, was_on, 1))


def test_a_profiler_that_is_entered_again_begins_anew():
    memory = MemoryProfiler()
    for name in ("one", "two"):
        with memory, memory.phase(name):
            pass
        expect([(phase.name, phase.depth) for phase in memory.phases], [(name, 0)])
    expect(tracemalloc.is_tracing(), False)


def test_a_profiler_that_is_running_cannot_be_entered():
    with MemoryProfiler() as memory:
        with memory.phase("one"):
            pass
        with expect_error(RuntimeError), memory:
            pass
        with memory.phase("two"):
            pass
    expect([phase.name for phase in memory.phases], ["one", "two"])
    expect(tracemalloc.is_tracing(), False)


def test_a_phase_outside_of_the_profiler_is_an_error():
    memory = MemoryProfiler()
    with expect_error(RuntimeError, "forward"), memory.phase("forward"):
        pass
    expect(memory.phases, [])
    with memory:
        pass
    with expect_error(RuntimeError, "backward"), memory.phase("backward"):
        pass


def test_two_profilers_can_run_one_inside_the_other():
    with MemoryProfiler() as outer, outer.phase("outer"):
        held = block(1)
        with MemoryProfiler() as inner, inner.phase("inner"):
            _ = block(3).sum()
    assert held.size
    near(inner.phases[0].peak, 3 * MB)
    near(inner.phases[0].begin, 0)
    near(outer.phases[0].retained, MB)
