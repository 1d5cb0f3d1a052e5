"""Level 1: what a machine could do, what an operation makes of it, and what can be looked at."""

import json
import math
import os
import time

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.profiling import (
    ADVICE,
    Event,
    OpProfiler,
    Roofline,
    bottlenecks,
    chrome_trace,
    measure_roofline,
    write_trace,
)
from tinytorch.tensor import Tensor

F32 = np.dtype("float32")
# 100 operations and 10 bytes a microsecond; two microseconds a call. The ridge is at 10.
MACHINE = Roofline(100e6, 10e6, 2e-6)


def event(name, start, duration, *, phase="forward", depth=0, own=None, flops=0, moved=0, peak=None):
    own = duration if own is None else own
    return Event(name, phase, start, duration, ((2, 3), ()), F32, flops, moved, peak, depth, own)


# 16.10 Roofline


def test_the_ridge_is_where_computing_takes_as_long_as_fetching():
    expect(MACHINE.ridge, 10.0)
    expect(Roofline(3e9, 2e9).ridge, 1.5)


@pytest.mark.parametrize(
    ("intensity", "rate"), [(0.0, 0.0), (0.5, 5e6), (9.0, 90e6), (10.0, 100e6), (11.0, 100e6), (1e9, 100e6)]
)
def test_what_is_attainable_is_a_slope_and_then_a_ceiling(intensity, rate):
    expect(MACHINE.attainable(intensity), rate)


def test_the_roof_is_the_longer_of_computing_and_fetching():
    expect(MACHINE.roof_seconds(200, 10), 2e-6)
    expect(MACHINE.roof_seconds(200, 50), 5e-6)
    expect(MACHINE.roof_seconds(0, 30), 3e-6)
    expect(MACHINE.roof_seconds(0, 0), 0.0)


def test_at_its_roof_work_reaches_what_is_attainable():
    for flops, moved in ((1000, 3), (1000, 100), (1000, 4000)):
        expect(flops / MACHINE.roof_seconds(flops, moved), MACHINE.attainable(flops / moved))


@pytest.mark.parametrize(
    ("flops", "moved", "bound"),
    [
        (1000, 10, "compute"),
        (1000, 1000, "memory"),
        (1000, 100, "compute"),  # at the ridge
        (0, 1000, "memory"),
        (100, 10, "overhead"),  # one microsecond
        (0, 0, "overhead"),
        (200, 20, "compute"),  # just as long as the overhead
        (10, 20, "memory"),
    ],
)
def test_what_bounds_a_call(flops, moved, bound):
    expect(MACHINE.bound(flops, moved), bound)


def test_a_machine_without_overhead_never_names_it():
    machine = Roofline(100e6, 10e6)
    expect((machine.bound(0, 0), machine.bound(0, 1), machine.bound(1, 0)), ("compute", "memory", "compute"))


def test_a_machine_that_does_nothing_is_an_error():
    expect(Roofline(2.0, 4.0, 0.0).ridge, 0.5)
    for wrong in ((0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (1.0, 1.0, -1e-9)):
        with expect_error(ValueError):
            Roofline(*wrong)


# 16.10 measure_roofline


def test_the_roofline_is_work_by_time():
    """By a clock that moves one second at each reading, every sample takes one second, and is one call."""
    now = iter(range(10_000))
    found = measure_roofline(side=8, length=100, repeat=3, clock=lambda: next(now))
    expect(found, Roofline(2 * 8**3, 2 * 4 * 100, 1.0))


def test_the_best_of_the_samples_counts():
    readings = iter([t for i in range(1000) for t in (10 * i, 10 * i + 1 + (i * 7) % 5)])
    found = measure_roofline(side=4, length=50, repeat=8, clock=lambda: next(readings))
    expect((found.peak_flops, found.bandwidth), (128.0, 400.0))


def test_without_a_word_the_matrices_have_512_rows_and_the_copy_is_of_16_million_numbers():
    """Samples of one second and one call. 2**24 numbers are 64 MiB: each is copied three times in all."""
    readings = [iter(range(10_000)) for _ in range(3)]
    product = measure_roofline(length=10, clock=lambda: next(readings[0]))
    copy = measure_roofline(side=4, repeat=1, clock=lambda: next(readings[1]))
    expect((product.peak_flops, copy.bandwidth), (2.0 * 512**3, 8.0 * 2**24))
    measure_roofline(side=4, length=10, repeat=10, clock=lambda: next(readings[2]))
    expect(next(readings[0]), next(readings[2]))  # ten samples


def test_each_measurement_has_as_many_samples_as_asked():
    """By a clock that counts its readings, 3 times 2 for each sample more."""
    read = []
    for repeat in (3, 5):
        clock = iter(range(10_000))
        measure_roofline(side=4, length=50, repeat=repeat, clock=lambda clock=clock: next(clock))
        read.append(next(clock))
    expect(read[1] - read[0], 12)


def test_overhead_is_that_of_an_operation_on_a_tensor_of_one_number():
    now = iter(range(10_000))
    with OpProfiler() as profile:
        measure_roofline(side=4, length=50, repeat=2, clock=lambda: next(now))
    seen = [event for event in profile.events if event.name == "neg"]
    assert len(seen) >= 2, "of which one at least is a sample's"
    expect({event.shapes for event in seen}, {((1,),)})


def test_a_real_machine_has_a_roofline():
    found = measure_roofline(side=64, length=1 << 16, repeat=3, clock=time.perf_counter)
    assert isinstance(found, Roofline)
    # Any machine of this century: a million to 10**14 operations, a million to 10**13 bytes a second.
    assert 1e6 < found.peak_flops < 1e14
    assert 1e6 < found.bandwidth < 1e13
    assert 1e-9 < found.overhead < 1


# 16.11 bottlenecks


def test_each_op_stands_beside_its_roof():
    found = bottlenecks(
        [
            event("product", 0, 20_000, flops=1000, moved=10),
            event("sum", 0, 40_000, flops=10, moved=300),
            event("product", 0, 30_000, flops=500, moved=10),
            event("tiny", 0, 10_000, flops=1, moved=1, phase="backward"),
        ],
        MACHINE,
    )
    first, second, third = found
    expect((first.name, first.phase, first.calls, first.bound), ("product", "forward", 2, "compute"))
    expect((first.seconds, first.roof, first.share, first.of_roof), (50e-6, 15e-6, 0.5, 0.3))
    expect((second.name, second.bound, second.seconds, second.roof), ("sum", "memory", 40e-6, 30e-6))
    expect(second.of_roof, 0.75)
    expect((third.name, third.phase, third.bound), ("tiny", "backward", "overhead"))
    expect((third.seconds, third.roof, third.of_roof, third.share), (10e-6, 2e-6, 0.2, 0.1))


def test_roofs_are_found_call_by_call():
    """A hundred calls of 0.1 us of work each are overhead, though together they would be 10 us of work."""
    found = bottlenecks([event("small", 0, 3000, flops=10, moved=0)] * 100, MACHINE)
    expect((found[0].bound, found[0].roof, found[0].seconds), ("overhead", 200e-6, 300e-6))
    mixed = bottlenecks([event("both", 0, 10_000, flops=1000), event("both", 0, 40_000, moved=100)], MACHINE)
    expect((mixed[0].roof, mixed[0].seconds, mixed[0].of_roof), (20e-6, 50e-6, 0.4))


def test_the_bound_is_that_of_most_of_its_time_not_of_most_of_its_calls():
    calls = [event("mixed", 0, 2000, flops=1) for _ in range(10)] + [event("mixed", 0, 30_000, moved=200)]
    expect(bottlenecks(calls, MACHINE)[0].bound, "memory")
    calls = [event("mixed", 0, 4000, flops=1) for _ in range(10)] + [event("mixed", 0, 30_000, moved=200)]
    expect(bottlenecks(calls, MACHINE)[0].bound, "overhead")


def test_the_bound_does_not_go_by_time_inside_other_calls():
    """Of its own time, 10 us are of a call that is overhead, and 30 of one that is bound by memory."""
    calls = [event("mixed", 0, 90_000, own=10_000, flops=1), event("mixed", 0, 30_000, moved=200)]
    expect(bottlenecks(calls, MACHINE)[0].bound, "memory")


def test_time_inside_other_calls_is_theirs():
    found = bottlenecks(
        [event("outer", 0, 90_000, own=10_000), event("inner", 0, 80_000, depth=1, flops=1000)], MACHINE
    )
    expect([(one.name, one.seconds) for one in found], [("inner", 80e-6), ("outer", 10e-6)])


def test_only_the_top_ones_are_told():
    events = [event(name, 0, 1000 * (i + 1)) for i, name in enumerate("abcdefg")]
    expect([one.name for one in bottlenecks(events, MACHINE)], list("gfedc"))
    # Shares are of all the time, 28 us.
    expect(
        [(one.name, one.share) for one in bottlenecks(events, MACHINE, top=2)], [("g", 7 / 28), ("f", 6 / 28)]
    )
    expect(len(bottlenecks(events, MACHINE, top=50)), 7)
    expect(bottlenecks([], MACHINE), [])
    expect(len(bottlenecks(iter(events), MACHINE)), 5)


def test_advice_goes_by_the_bound_and_by_how_far_the_roof_is():
    def advice(**costs):
        return bottlenecks([event("one", 0, 10_000, **costs)], MACHINE)[0].advice

    expect(advice(flops=1), ADVICE["overhead"])
    expect(advice(flops=600), ADVICE["compute"])
    expect(advice(flops=500), ADVICE["compute"])  # half of the roof is near
    expect(advice(flops=450), ADVICE["far"])
    expect(advice(moved=60), ADVICE["memory"])
    expect(advice(moved=40), ADVICE["far"])
    expect(advice(moved=300), ADVICE["memory"])  # above the roof: it came from a cache


def test_calls_that_took_no_time_are_above_any_roof():
    free = Roofline(1e9, 1e9)
    found = bottlenecks([event("none", 0, 0), event("some", 0, 0, flops=5)], free)
    expect([(one.name, one.of_roof) for one in found], [("none", 1.0), ("some", math.inf)])


# 16.16 chrome_trace, write_trace


def complete(trace):
    return [entry for entry in trace["traceEvents"] if entry["ph"] == "X"]


def test_an_event_is_a_complete_one_in_microseconds():
    trace = chrome_trace([event("mul", 7_000_500, 2_500, flops=6, moved=72, own=1_500)])
    expect(set(trace), {"displayTimeUnit", "traceEvents"})
    expect(trace["displayTimeUnit"], "ms")
    expect(
        complete(trace),
        [
            {
                "name": "mul", "cat": "forward", "ph": "X", "ts": 0.0, "dur": 2.5, "pid": 1, "tid": 1,
                "args": {
                    "shapes": [[2, 3], []], "dtype": "float32", "flops": 6, "bytes": 72, "self_us": 1.5,
                },
            }
        ],
    )  # fmt: skip


def test_metadata_names_the_process_and_its_thread():
    for called in ("tinytorch", "my model"):
        first, second = chrome_trace([], *([called] if called == "my model" else []))["traceEvents"]
        expect(
            (first, second),
            (
                {"name": "process_name", "ph": "M", "pid": 1, "tid": 1, "args": {"name": called}},
                {"name": "thread_name", "ph": "M", "pid": 1, "tid": 1, "args": {"name": "operations"}},
            ),
        )


def test_times_count_from_the_first_and_events_are_in_the_order_they_began():
    trace = chrome_trace(
        [event("inner", 5_000, 1_000, depth=1), event("outer", 3_000, 9_000), event("last", 20_000, 1)]
    )
    found = [(one["name"], one["ts"], one["dur"]) for one in complete(trace)]
    expect(found, [("outer", 0.0, 9.0), ("inner", 2.0, 1.0), ("last", 17.0, 0.001)])


def test_of_two_that_begin_at_once_the_outer_comes_first():
    trace = chrome_trace([event("in", 5, 10, depth=2), event("middle", 5, 10, depth=1), event("out", 5, 10)])
    expect([one["name"] for one in complete(trace)], ["out", "middle", "in"])


def test_peaks_are_told_where_they_were_counted():
    trace = chrome_trace([event("a", 0, 1, peak=0), event("b", 1, 1), event("c", 2, 1, peak=4096)])
    expect([one["args"].get("peak_bytes", "none") for one in complete(trace)], [0, "none", 4096])


def test_phases_are_categories():
    trace = chrome_trace([event("a", 0, 1), event("a", 1, 1, phase="backward")])
    expect([one["cat"] for one in complete(trace)], ["forward", "backward"])


def test_a_trace_is_json_whatever_numbers_are_in_the_events():
    one = event("a", 0, 1000)._replace(
        flops=np.int64(5), bytes=np.int64(6), peak_bytes=np.int32(7), shapes=((np.int64(2),),)
    )
    back = json.loads(json.dumps(chrome_trace([one]), allow_nan=False))
    args = complete(back)[0]["args"]
    expect((args["flops"], args["bytes"], args["peak_bytes"], args["shapes"]), (5, 6, 7, [[2]]))


def test_the_events_stay_as_they_are():
    events = [event("b", 10, 1), event("a", 5, 1)]
    chrome_trace(events)
    expect([one.name for one in events], ["b", "a"])
    expect(len(complete(chrome_trace(iter(events)))), 2)


def test_a_real_profile_nests_as_perfetto_wants_it(tmp_path):
    x = Tensor(np.ones((3, 3)), requires_grad=True)
    with OpProfiler(memory=True) as profile:
        ((x @ x).exp() * x).sum().backward()
    write_trace(tmp_path / "trace.json", profile.events)
    trace = json.loads((tmp_path / "trace.json").read_text("utf-8"))
    expect(trace, json.loads(json.dumps(chrome_trace(profile.events))))
    ends = []
    for one in complete(trace):
        expect(set(one), {"name", "cat", "ph", "ts", "dur", "pid", "tid", "args"})
        assert one["ts"] >= 0
        assert one["dur"] >= 0
        while ends and ends[-1] <= one["ts"]:
            ends.pop()
        # Inside of what is still open; a nanosecond is 0.001.
        assert not ends or one["ts"] + one["dur"] <= ends[-1] + 1e-4
        ends.append(one["ts"] + one["dur"])
    expect(len(complete(trace)), len(profile.events))


def test_a_trace_is_written_in_place_of_the_old_one(tmp_path):
    file = tmp_path / "trace.json"
    file.write_text("old", "utf-8")
    write_trace(str(file), [event("mul", 0, 1)], "naïve ümlaut")
    trace = json.loads(file.read_bytes().decode("utf-8"))
    expect(trace["traceEvents"][0]["args"]["name"], "naïve ümlaut")
    expect(os.listdir(tmp_path), ["trace.json"])


class Place(os.PathLike):
    """A path as os.DirEntry is one: `os.fspath` knows where it leads, `str` does not."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)

    def __str__(self):
        return "no/such/folder"


def test_a_trace_is_written_wherever_a_path_leads(tmp_path):
    write_trace(Place(tmp_path / "trace.json"), [event("mul", 0, 1)])
    expect(os.listdir(tmp_path), ["trace.json"])


class Stopped(BaseException):
    """What Ctrl-C raises is no Exception either."""


def test_what_somebody_stops_leaves_nothing_beside_it_either(tmp_path, monkeypatch):
    file = tmp_path / "trace.json"
    file.write_text("old", "utf-8")

    def stop(*args, **options):
        raise Stopped

    for name in ("replace", "rename"):
        monkeypatch.setattr(os, name, stop)
    with pytest.raises(Stopped):
        write_trace(file, [event("a", 0, 1)])
    expect((file.read_text("utf-8"), os.listdir(tmp_path)), ("old", ["trace.json"]))


def test_what_cannot_be_written_leaves_the_old_one_and_nothing_beside_it(tmp_path):
    file = tmp_path / "trace.json"
    file.write_text("old", "utf-8")

    def events():
        yield event("a", 0, 1)
        raise KeyError("halfway")

    with expect_error(KeyError, "halfway"):
        write_trace(file, events())
    bad = event("a", 0, 1)._replace(name={1, 2})
    with expect_error(TypeError):
        write_trace(file, [event("b", 0, 1), bad])
    expect((file.read_text("utf-8"), os.listdir(tmp_path)), ("old", ["trace.json"]))


def test_a_file_that_cannot_be_replaced_leaves_nothing_beside_it(tmp_path):
    folder = tmp_path / "trace.json"
    folder.mkdir()
    with expect_error(OSError):
        write_trace(folder, [event("a", 0, 1)])
    expect(os.listdir(tmp_path), ["trace.json"])
    with expect_error(OSError):
        write_trace(tmp_path / "missing" / "trace.json", [])
