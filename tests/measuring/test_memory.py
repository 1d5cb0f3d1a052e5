import gc
import tracemalloc
from tracemalloc import start as captured_start
from tracemalloc import stop as captured_stop

import numpy as np
import pytest

from dojo.measuring import kept_bytes, peak_bytes, retained_bytes
from dojo.measuring.memory import MeterError

MIB = 1 << 20
SLACK = 4000  # bytes: frames, tuples and array headers; a tracer keeps some of its own


def mebibyte():
    return np.ones(MIB, np.uint8)


def near(measured, mebibytes):
    return abs(measured - mebibytes * MIB) < SLACK


def test_the_peak_counts_the_result_and_what_was_freed_on_the_way():
    def three_then_one():
        first, second = mebibyte(), mebibyte()
        third = mebibyte()
        del first, second
        return third

    assert near(peak_bytes(three_then_one), 3)
    assert near(kept_bytes(three_then_one), 1)
    assert near(retained_bytes(three_then_one), 0)


def test_what_was_held_before_does_not_count():
    held = mebibyte()
    assert near(peak_bytes(lambda: held), 0)
    assert near(peak_bytes(lambda: held.reshape(1024, 1024)), 0)
    assert near(peak_bytes(held.copy), 1)


def test_the_warm_up_is_not_billed():
    cache = {}

    def cached():
        return cache.setdefault("answer", mebibyte() if not cache else None)

    assert near(peak_bytes(cached), 0)


def test_retained_bytes_finds_what_a_function_hoards():
    hoard = []
    assert near(retained_bytes(lambda: hoard.append(mebibyte())), 1)


def test_retained_bytes_collects_cycles():
    def ring():
        one, other = [mebibyte()], [mebibyte()]
        one.append(other)
        other.append(one)

    assert near(retained_bytes(ring), 0)


def test_repeats_agree_to_the_byte():
    x = mebibyte()
    assert len({peak_bytes(lambda: x + x) for _ in range(20)}) == 1


def test_garbage_collection_is_as_it_was():
    gc.disable()
    try:
        peak_bytes(mebibyte)
        assert not gc.isenabled()
    finally:
        gc.enable()
    peak_bytes(mebibyte)
    assert gc.isenabled()


def test_an_error_in_the_measured_code_leaves_nothing_behind():
    calls = []

    def fails_when_measured():
        calls.append(1)
        if len(calls) == 2:
            raise NotImplementedError("kata 02.1: add")

    real = tracemalloc.start
    with pytest.raises(NotImplementedError):
        peak_bytes(fails_when_measured)
    assert tracemalloc.start is real
    assert not tracemalloc.is_tracing()


# A student's own meter, running inside ours.


def student_peak(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_meter_inside_the_meter_reads_right_and_so_does_ours():
    readings = []

    def measured():
        before = mebibyte(), mebibyte()
        readings.append(student_peak(lambda: [mebibyte() for _ in range(3)]))
        del before

    assert near(peak_bytes(measured), 5)
    alone, nested = readings
    assert near(alone, 3)
    assert near(nested, 3)


def test_a_meter_that_resets_the_peak_does_not_reset_ours():
    readings = []

    def measured():
        tracemalloc.start()
        large = [mebibyte() for _ in range(4)]
        del large
        tracemalloc.reset_peak()
        small = mebibyte()
        readings.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.clear_traces()
        readings.append(tracemalloc.get_traced_memory()[0])
        del small
        tracemalloc.stop()

    assert near(peak_bytes(measured), 4)
    assert near(readings[2], 1)
    assert near(readings[3], 0)


def test_inside_the_meter_tracing_looks_as_it_would_alone():
    seen = []

    def measured():
        seen.append((tracemalloc.is_tracing(), tracemalloc.get_traced_memory()))
        tracemalloc.start()
        seen.append(tracemalloc.is_tracing())
        tracemalloc.take_snapshot()
        tracemalloc.stop()
        seen.append(tracemalloc.is_tracing())
        with pytest.raises(RuntimeError):
            tracemalloc.take_snapshot()

    peak_bytes(measured)
    assert seen == [(False, (0, 0)), True, False] * 2


def test_our_meter_inside_our_meter():
    inner = []
    outer = peak_bytes(lambda: (mebibyte(), inner.append(peak_bytes(lambda: (mebibyte(), mebibyte())))))
    assert abs(outer - 3 * MIB) < 3 * SLACK  # the inner meter itself takes some
    assert near(inner[1], 2)


def test_tracing_that_was_on_stays_on_and_keeps_its_peak():
    tracemalloc.start()
    try:
        large = [mebibyte() for _ in range(6)]
        del large
        assert near(peak_bytes(lambda: (mebibyte(), mebibyte())), 2)
        assert tracemalloc.is_tracing()
        assert abs(tracemalloc.get_traced_memory()[1] - 6 * MIB) < 10 * SLACK
    finally:
        tracemalloc.stop()


def test_a_student_who_forgets_to_stop_is_measured_all_the_same():
    def forgetful():
        tracemalloc.start()
        return mebibyte()

    try:
        assert near(peak_bytes(forgetful), 1)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("again", [False, True], ids=["stopped", "stopped and started again"])
def test_a_stop_behind_the_meters_back_is_an_error_and_not_a_zero(again):
    def measured():
        large = mebibyte()
        captured_stop()
        if again:
            captured_start()
        return large

    with pytest.raises(MeterError, match=r"tracemalloc\.stop\(\)"):
        peak_bytes(measured)
    captured_stop()
    assert near(peak_bytes(mebibyte), 1)
