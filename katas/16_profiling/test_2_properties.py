"""Level 2: whatever is measured, in whatever order things nest: against plain models of what a meter is."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect
from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.profiling import (
    Event,
    OpProfiler,
    Peaks,
    Roofline,
    Stopwatch,
    bootstrap_ratio,
    bottlenecks,
    by_op,
    chrome_trace,
    mann_whitney,
    op_bytes,
    op_flops,
    time_turns,
    tracing,
)
from tinytorch.tensor import Op, Tensor, matmul

CALL = Op.__call__
F32 = np.dtype("float32")
KIB = 1024
LITTLE = 16 * KIB  # what Python's own objects may take, and what the steps below are far above


@pytest.fixture(autouse=True)
def _as_it_was():
    yield
    Op.__call__ = CALL
    if tracemalloc.is_tracing():
        tracemalloc.stop()


# 16.2 time_turns


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=5), min_size=1, max_size=3),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_samples_are_what_a_loop_would_take(times, repeat, inner):
    """Each function takes its own times in turn, from the first again when they are through."""
    now = [0.0]

    def taking(seconds):
        each = itertools.cycle(seconds)

        def function():
            now[0] += next(each)

        return function

    found = time_turns(*map(taking, times), repeat=repeat, inner=inner, clock=lambda: now[0])
    for timing, seconds in zip(found, times, strict=True):
        each = itertools.cycle(seconds)
        next(each)  # the warm-up
        expected = tuple(sum(next(each) for _ in range(inner)) / inner for _ in range(repeat))
        expect((tuple(timing.samples), timing.inner), (expected, inner))


# 16.3 Peaks

STEPS = st.lists(st.sampled_from(["begin", "end", "make", "free"]), max_size=14)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(STEPS, st.lists(st.integers(1, 8), min_size=14, max_size=14))
def test_readings_are_those_of_a_meter_that_sees_every_step(steps, sizes):
    """Arrays come and go, readings open and close; a list of what was held at each moment knows all peaks."""
    held, moments, opened = [], [0], []
    with tracing():
        peaks = Peaks()
        for step, size in zip(steps, sizes, strict=False):
            if step == "begin":
                peaks.begin()
                opened.append(len(moments) - 1)
            elif step == "end" and opened:
                peak, left = peaks.end()
                since = moments[opened.pop() :]
                assert abs(peak - (max(since) - since[0])) < LITTLE
                assert abs(left - (since[-1] - since[0])) < LITTLE
            elif step == "make":
                held.append(np.ones(size * 128 * KIB, np.int8))
            elif step == "free" and held:
                held.pop(0)
            moments.append(sum(array.nbytes for array in held))


# 16.4 op_flops, 16.5 op_bytes


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.integers(1, 3), max_size=2),
    st.integers(0, 4),
    st.integers(0, 4),
    st.integers(0, 4),
    st.data(),
)
def test_a_product_costs_what_its_loops_do(batch, m, k, n, data):
    shapes = [(*batch, m, k), (*batch[data.draw(st.integers(0, len(batch))) :], k, n)]
    a, b = (np.ones(shape, np.float32) for shape in shapes)
    out = a @ b
    steps = 0
    for _ in itertools.product(*map(range, out.shape)):
        for _ in range(k):
            steps += 2
    expect(op_flops(matmul, [a, b], {}, out), steps)
    expect(op_bytes(matmul, [a, b], {}, out), 4 * (a.size + b.size + out.size))


# 16.6 Stopwatch

TREES = st.recursive(
    st.tuples(st.integers(0, 9), st.just(())),
    lambda below: st.tuples(st.integers(0, 9), st.lists(below, max_size=3).map(tuple)),
    max_leaves=8,
)


@settings(deadline=None, derandomize=True, max_examples=80)
@given(st.lists(TREES, max_size=3), st.sets(st.integers(0, 12)))
def test_own_times_add_up_and_what_raised_is_forgotten(trees, bad):
    """Calls of calls, some of which raise at their end; whoever called them goes on."""
    now = [0]
    watch = Stopwatch(lambda: now[0], memory=False)
    number = itertools.count()
    expected, found = [], []

    def run(tree, depth):
        """What the tree takes; None for one that raised, whose time is its caller's own."""
        own, below = tree
        mine = next(number)
        times = []

        def call():
            now[0] += own
            lost = 0
            for child in below:
                before = now[0]
                took = run(child, depth + 1)
                times.append(took)
                lost += now[0] - before if took is None else 0
            times.append(("own", own + lost))
            if mine in bad:
                raise KeyError(mine)

        start = now[0]
        try:
            _, span = watch.time(call)
        except KeyError:
            return None
        found.append((span.start, span.duration, span.own, span.depth))
        expected.append((start, now[0] - start, times[-1][1], depth))
        return now[0] - start

    for tree in trees:
        run(tree, 0)
    expect(found, expected)


# 16.6 and 16.7 OpProfiler

PROGRAMS = st.lists(st.sampled_from(["exp", "mul", "add", "matmul", "neg", "mean", "slice"]), max_size=8)


def program(names, x, w):
    for name in names:
        if name == "exp":
            x = (x * 0.1).exp()
        elif name == "mul":
            x = x * w
        elif name == "add":
            x = x + w
        elif name == "matmul":
            x = x @ w
        elif name == "neg":
            x = -x
        elif name == "mean":
            x = x - x.mean(axis=1, keepdims=True)
        else:
            x = x[::-1]
    return x.sum()


@settings(deadline=None, derandomize=True, max_examples=40)
@given(PROGRAMS, st.booleans(), st.integers(0, 1000))
def test_a_program_does_the_same_watched_or_not(names, memory, seed):
    rng = np.random.default_rng(seed)
    start, weights = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))

    def run():
        x, w = Tensor(start, requires_grad=True), Tensor(weights, requires_grad=True)
        out = program(names, x, w)
        out.backward()
        return out.data.tobytes(), x.grad.tobytes(), None if w.grad is None else w.grad.tobytes()

    plain = run()
    with OpProfiler(memory=memory) as profile:
        watched = run()
    expect(watched, plain)
    forward = [event for event in profile.events if event.phase == "forward"]
    backward = [event for event in profile.events if event.phase == "backward"]
    # Here each call is on the way to the result, so each goes back once, and costs twice.
    expect(sorted(event.name for event in forward), sorted(event.name for event in backward))
    expect(2 * sum(event.flops for event in forward), sum(event.flops for event in backward))
    expect(2 * sum(event.bytes for event in forward), sum(event.bytes for event in backward))
    expect([event.depth for event in profile.events], [0] * len(profile.events))
    expect(all(isinstance(event.peak_bytes, int) == memory for event in profile.events), True)


# 16.8 by_op, 16.11 bottlenecks, 16.16 chrome_trace

EVENTS = st.lists(
    st.builds(
        lambda name, phase, start, own, extra, flops, moved, depth: Event(
            name, phase, start, own + extra, ((2, 3),), F32, flops, moved, None, depth, own
        ),
        st.sampled_from("abc"),
        st.sampled_from(["forward", "backward"]),
        *[st.integers(0, 10**6)] * 5,
        st.integers(0, 3),
    ),
    max_size=12,
)


@settings(deadline=None, derandomize=True, max_examples=80)
@given(EVENTS)
def test_rows_add_up_to_the_events(events):
    rows = by_op(events)
    for column, of_events in (("self_ns", "self_ns"), ("total_ns", "duration_ns"), ("flops", "flops")):
        expect(sum(getattr(r, column) for r in rows), sum(getattr(e, of_events) for e in events))
    expect(sum(row.calls for row in rows), len(events))
    expect({(r.name, r.phase) for r in rows}, {(e.name, e.phase) for e in events})
    expect(len({(r.name, r.phase) for r in rows}), len(rows))
    own = [row.self_ns for row in rows]
    expect(own, sorted(own, reverse=True))
    if any(own):
        expect(sum(row.share for row in rows), 1.0)


@settings(deadline=None, derandomize=True, max_examples=80)
@given(EVENTS, st.integers(0, 5))
def test_bottlenecks_are_the_first_rows_beside_their_roofs(events, top):
    machine = Roofline(3e9, 2e9, 1e-5)
    found = bottlenecks(events, machine, top=top)
    expect([(b.name, b.phase, b.calls) for b in found], [tuple(r[:3]) for r in by_op(events)[:top]])
    for one in found:
        calls = [e for e in events if (e.name, e.phase) == (one.name, one.phase)]
        roof = sum(max(e.flops / 3e9, e.bytes / 2e9, 1e-5) for e in calls)
        expect((one.roof, one.seconds), (roof, sum(e.self_ns for e in calls) / 1e9), rtol=1e-9)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(EVENTS)
def test_a_trace_has_all_events_by_their_begin(events):
    drawn = [one for one in chrome_trace(events)["traceEvents"] if one["ph"] == "X"]
    first = min((e.start_ns for e in events), default=0)
    expected = [((e.start_ns - first) / 1000, e.name, e.duration_ns / 1000) for e in events]
    expect(sorted((d["ts"], d["name"], d["dur"]) for d in drawn), sorted(expected))
    expect([d["ts"] for d in drawn], sorted(d["ts"] for d in drawn))


# 16.10 Roofline


@settings(deadline=None, derandomize=True, max_examples=60)
@given(*[st.integers(1, 10**6)] * 4)
def test_work_at_its_roof_is_as_fast_as_attainable(peak, bandwidth, flops, moved):
    machine = Roofline(float(peak), float(bandwidth))
    seconds = machine.roof_seconds(flops, moved)
    expect(flops / seconds, machine.attainable(flops / moved), rtol=1e-9)
    if flops * bandwidth != moved * peak:  # at the ridge itself, rounding may decide
        expect(machine.bound(flops, moved), "compute" if flops * bandwidth > moved * peak else "memory")
    # Nothing is done in less, by either limit, and one of them is met.
    assert seconds * peak >= flops * (1 - 1e-12)
    assert seconds * bandwidth >= moved * (1 - 1e-12)
    assert math.isclose(seconds * peak, flops) or math.isclose(seconds * bandwidth, moved)


# 16.13 mann_whitney, 16.14 bootstrap_ratio


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=9), st.lists(st.integers(0, 8), min_size=1, max_size=9)
)
def test_u_is_the_number_of_pairs_and_p_a_chance(a, b):
    u, p = mann_whitney(a, b)
    expect(u, float(sum((x > y) + (x == y) / 2 for x in a for y in b)))
    assert 0 < p <= 1
    expect(mann_whitney(b, a)[1], p)
    expect(mann_whitney(a[::-1], b), (u, p))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(*[st.lists(st.integers(1, 50), min_size=1, max_size=9)] * 2, st.integers(0, 99))
def test_an_interval_is_within_what_the_samples_allow(before, after, seed):
    low, high = bootstrap_ratio(before, after, rng=np.random.default_rng(seed), resamples=50)
    assert min(after) / max(before) * (1 - 1e-9) <= low <= high <= max(after) / min(before) * (1 + 1e-9)
