"""Level 1: profilers: every call is seen, nothing else changes, and nothing is left behind."""

import itertools
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.autograd import checkpoint, is_grad_enabled, jvp, no_grad
from tinytorch.layers import Linear, Module, affine
from tinytorch.networks import Tape
from tinytorch.profiling import (
    Event,
    ModuleRow,
    OpProfiler,
    Stopwatch,
    by_op,
    op_bytes,
    op_flops,
    profile_modules,
)
from tinytorch.tensor import Op, Tensor, add, exp, getitem, matmul, mul, neg, op, total

CALL, MODULE_CALL = Op.__call__, Module.__call__
RULES = {one: one.pull for one in (add, mul, exp, matmul, total, affine, getitem, neg)}
MB = 1_000_000
LITTLE = 20_000  # bytes of Python's own objects; reference: below 3,000


@pytest.fixture(autouse=True)
def _as_it_was():
    """A wrong solution spoils its own test only."""
    was_on = tracemalloc.is_tracing()
    yield
    Op.__call__, Module.__call__ = CALL, MODULE_CALL
    for one, pull in RULES.items():
        one.pull = pull
    if tracemalloc.is_tracing() and not was_on:
        tracemalloc.stop()


class Bench:
    """A clock of nanoseconds that only operations move."""

    def __init__(self):
        self.now = 1000
        self.read = 0

    def clock(self):
        self.read += 1
        return self.now


BENCH = Bench()


@pytest.fixture
def bench():
    BENCH.__init__()
    return BENCH


@op
def takes(x, *, ns):
    BENCH.now += ns
    return x * 1


@takes.gradient
def takes_back(grad, ns):
    BENCH.now += 3 * ns
    return grad * 1


@op
def holds(x, *, before, after, fail=False):
    """An operation that calls two others."""
    BENCH.now += before
    y = takes(Tensor(x), ns=5)
    y = takes(y, ns=7)
    BENCH.now += after
    if fail:
        raise KeyError("holds failed")
    return y.data


@op
def fails(x, *, ns):
    BENCH.now += ns
    raise KeyError("fails failed")


def here():
    """What must be the same before and after a profiler."""
    return (Op.__call__, Module.__call__, [one.pull for one in RULES], tracemalloc.is_tracing(), takes.pull)


def leaf(*shape, dtype=np.float64, seed=0):
    return Tensor(np.random.default_rng(seed).normal(size=shape).astype(dtype), requires_grad=True)


def names(events):
    return [(event.name, event.phase) for event in events]


# 16.6 Stopwatch


def test_a_stopwatch_gives_the_result_and_when_it_was(bench):
    watch = Stopwatch(bench.clock, memory=False)

    def work(a, b=1):
        bench.now += 30
        return a + b

    result, span = watch.time(work, 4, b=5)
    expect((result, tuple(span)), (9, (1000, 30, 30, 0, None)))
    result, span = watch.time(work, 1)
    expect((result, tuple(span)), (2, (1030, 30, 30, 0, None)))
    expect(bench.read, 4)


def test_a_stopwatch_takes_off_what_calls_inside_took(bench):
    watch = Stopwatch(bench.clock, memory=False)
    spans = {}

    def leaf_(name, ns):
        def work():
            bench.now += ns

        _, spans[name] = watch.time(work)

    def middle():
        bench.now += 1
        leaf_("c", 10)
        leaf_("d", 20)
        bench.now += 2

    def outer():
        bench.now += 100
        _, spans["b"] = watch.time(middle)
        bench.now += 200
        leaf_("e", 40)

    _, spans["a"] = watch.time(outer)
    expect(
        {name: (span.duration, span.own, span.depth) for name, span in spans.items()},
        {"a": (373, 300, 0), "b": (33, 3, 1), "c": (10, 10, 2), "d": (20, 20, 2), "e": (40, 40, 1)},
    )


def test_a_call_that_raises_is_time_of_the_one_around_it(bench):
    watch = Stopwatch(bench.clock, memory=False)

    def bad():
        bench.now += 50
        raise KeyError("bad")

    def outer():
        try:
            watch.time(bad)
        except KeyError:
            bench.now += 1
        _, inside = watch.time(lambda: None)
        return inside

    inside, span = watch.time(outer)
    expect((span.duration, span.own, span.depth, inside.depth), (51, 51, 0, 1))
    with expect_error(KeyError, "bad"):
        watch.time(bad)
    expect(watch.time(lambda: None)[1].depth, 0)


class Stopped(BaseException):
    """What Ctrl-C raises is no Exception either."""


def stop(*args):
    raise Stopped


def test_a_call_that_somebody_stops_is_forgotten_too(bench):
    tracemalloc.start()
    watch = Stopwatch(bench.clock, memory=True)
    with pytest.raises(Stopped):
        watch.time(stop)
    expect(watch.time(lambda: None)[1].depth, 0)


def test_a_stopwatch_with_memory_has_the_peak_of_each_call(bench):
    tracemalloc.start()
    watch = Stopwatch(bench.clock, memory=True)

    def inner():
        return np.ones(MB // 4)  # 2 MB

    def outer():
        held = np.ones(MB // 8)
        first = watch.time(inner)[1]
        del held
        second = watch.time(lambda: None)[1]
        return first, second

    (first, second), span = watch.time(outer)
    for got, expected in ((first.peak, 2 * MB), (second.peak, 0), (span.peak, 3 * MB)):
        assert abs(got - expected) < LITTLE


# 16.6 OpProfiler, forward


def test_each_call_is_an_event(bench):
    x = leaf(2, 3)
    with OpProfiler(clock=bench.clock) as profile:
        takes(x, ns=40)
        bench.now += 1000
        takes(x.data, ns=2)
    first, second = profile.events
    expect(
        first,
        Event("takes", "forward", 1000, 40, ((2, 3),), np.dtype(float), 6, 96, None, 0, 40),
    )
    expect((second.start_ns, second.duration_ns, second.self_ns), (2040, 2, 2))
    assert isinstance(first, Event)


def test_methods_operators_and_functions_are_seen():
    x = Tensor(np.ones((2, 2), np.float32))
    with OpProfiler() as profile:
        y = (x @ x + 1.0).exp().sum()
        y = -y
        y = y * 2
        x[0]
    expect(
        [event.name for event in profile.events],
        ["matmul", "add", "exp", "total", "neg", "mul", "getitem"],
    )
    expect({event.phase for event in profile.events}, {"forward"})


def test_operations_are_seen_without_gradients_too():
    x = leaf(3)
    with OpProfiler() as profile:
        with no_grad():
            exp(x)
        exp(x.detach())
        exp(x)
    expect(names(profile.events), [("exp", "forward")] * 3)


def test_an_operation_imported_before_is_seen():
    """`exp` is an object; the place that all calls go through is its class."""
    before = exp
    with OpProfiler() as profile:
        before(leaf(2))
    expect(names(profile.events), [("exp", "forward")])


def test_shapes_are_those_of_arrays_and_tensors():
    x, w = Tensor(np.ones((4, 3))), np.ones((5, 3))
    with OpProfiler() as profile:
        affine(x, w, None)
        mul(x, 2.0)
        mul(3, x)
        add(np.array(2.0), x)
    expect([event.shapes for event in profile.events], [((4, 3), (5, 3)), ((4, 3),), ((4, 3),), ((), (4, 3))])


def test_the_dtype_is_that_of_the_result():
    x = Tensor(np.ones(3, np.float32))
    with OpProfiler() as profile:
        exp(x)
        _ = x < 2.0
        exp(Tensor(np.ones(3)))
    expect([np.dtype(event.dtype).name for event in profile.events], ["float32", "bool", "float64"])


def test_costs_are_those_of_the_rules():
    a, b = Tensor(np.ones((4, 3))), Tensor(np.ones((3, 5)))
    with OpProfiler() as profile:
        out = a @ b
        a.sum(axis=0)
        a.reshape(12)
    costs = [(event.flops, event.bytes) for event in profile.events]
    expect(costs, [(120, 8 * (12 + 15 + 20)), (12, 8 * 15), (0, 0)])
    expect(costs[0], (op_flops(matmul, [a, b], {}, out), op_bytes(matmul, [a, b], {}, out)))


def test_an_operation_inside_another_is_deeper_and_not_its_own_time(bench):
    with OpProfiler(clock=bench.clock) as profile:
        holds(np.ones(2), before=100, after=200)
    expect(
        [(e.name, e.depth, e.start_ns, e.duration_ns, e.self_ns) for e in profile.events],
        [("takes", 1, 1100, 5, 5), ("takes", 1, 1105, 7, 7), ("holds", 0, 1000, 312, 300)],
    )


def test_operations_and_rules_inside_of_a_rule_are_deeper_and_not_its_own_time(bench):
    @op
    def outer(x):
        return x * 1

    @outer.gradient
    def outer_back(grad):
        bench.now += 100
        takes(grad, ns=5)
        _, back = takes.vjp(grad, ns=7)  # not by a call, so that these 7 are its own
        back(grad)
        bench.now += 200
        return grad * 1

    with OpProfiler(clock=bench.clock) as profile:
        outer(leaf(2)).backward(np.ones(2))
    expect(
        [(e.name, e.phase, e.depth, e.duration_ns, e.self_ns) for e in profile.events],
        [
            ("outer", "forward", 0, 0, 0),
            ("takes", "forward", 1, 5, 5),
            ("takes", "backward", 1, 21, 21),
            ("outer", "backward", 0, 333, 307),
        ],
    )


def test_counting_costs_is_not_in_the_time_of_the_operation(bench):
    """The clock is read right before the call and right after it; two readings an event."""
    with OpProfiler(clock=bench.clock) as profile:
        takes(np.ones(2), ns=1)
        takes(np.ones(2), ns=1)
    expect((bench.read, len(profile.events)), (4, 2))


def test_results_are_the_same_to_the_bit_and_the_same_tensor_in_place(rng):
    from tinytorch.activations import relu_

    x = Tensor(rng.normal(size=(5, 4)))
    plain = ((x @ x.T).exp().sum() * 0.3).data
    with OpProfiler():
        watched = ((x @ x.T).exp().sum() * 0.3).data
        y = Tensor(x.data.copy())
        expect(relu_(y) is y, True)
    expect(watched.tobytes(), plain.tobytes())
    expect(y.data, np.maximum(x.data, 0))


def test_lists_and_numbers_go_through_as_they_do_otherwise():
    with OpProfiler() as profile:
        y = affine([[1.0, 2.0]], [[3.0, 4.0]])
        z = add(matmul([[1.0, 2.0]], [3.0, 4.0]), [1.0])
    expect((y.data.tolist(), z.data.tolist()), ([[11.0]], [12.0]))
    expect([event.shapes for event in profile.events], [(), (), ((1,),)])


def test_the_graph_is_as_without_a_profiler():
    w = leaf(3)
    with OpProfiler():
        y = exp(w)
    expect((y.requires_grad, y.node.op.name, y.node.op is exp), (True, "exp", True))
    expect(is_grad_enabled(), True)


def test_an_operation_that_raises_is_no_event_and_the_error_goes_on(bench):
    before = here()
    with OpProfiler(clock=bench.clock) as profile:
        with expect_error(KeyError, "fails failed"):
            fails(np.ones(2), ns=9)
        takes(np.ones(2), ns=5)
        with expect_error(KeyError, "holds failed"):
            holds(np.ones(2), before=1, after=1, fail=True)
        takes(np.ones(2), ns=6)
        with expect_error(ValueError, "(2, 3)"):
            matmul(np.ones((2, 3)), np.ones((2, 3)))
    found = [(event.name, event.depth, event.self_ns) for event in profile.events]
    expect(found, [("takes", 0, 5), ("takes", 1, 5), ("takes", 1, 7), ("takes", 0, 6)])
    expect(here(), before)


def test_a_block_that_raises_keeps_its_events_and_leaves_nothing_behind():
    before = here()
    profile = OpProfiler(memory=True)
    with expect_error(KeyError, "in the block"), profile:
        (exp(leaf(2)) * 2.0).sum().backward()
        raise KeyError("in the block")
    expect(here(), before)
    expect(len(profile.events), 6)


def test_a_block_that_somebody_stops_leaves_nothing_behind_either():
    before = here()
    x = leaf(2)
    with pytest.raises(Stopped), OpProfiler(memory=True):
        stop(exp(x).sum().backward())
    expect(here(), before)


def test_afterwards_everything_is_as_it_was():
    before = here()
    x = leaf(3, 3)
    with OpProfiler() as profile:
        ((x @ x + x).exp() * x).sum().backward()
    expect(here(), before)
    seen = len(profile.events)
    exp(x).sum().backward()
    expect(len(profile.events), seen)


def test_a_profiler_that_is_entered_again_adds_to_its_events():
    profile = OpProfiler()
    for n in (1, 2):
        with profile:
            exp(leaf(2)).sum().backward()
        expect(len(profile.events), 4 * n)
    expect(names(profile.events)[:4], names(profile.events)[4:])


def test_a_profiler_that_is_running_cannot_be_entered():
    before = here()
    with OpProfiler() as profile:
        exp(leaf(2))
        with expect_error(RuntimeError), profile:
            pass
        exp(leaf(2)).sum().backward()
    expect(here(), before)
    expect(len(profile.events), 5)


@pytest.mark.parametrize("seen", ["before", "inside", "both"])
def test_one_profiler_inside_another_and_both_see_each_call_once(seen):
    before = here()
    x = leaf(3)
    with OpProfiler() as outer:
        if seen != "inside":
            exp(x).backward(np.ones(3))
        with OpProfiler() as inner:
            exp(x).backward(np.ones(3))
            exp(x)
        exp(x).backward(np.ones(3))
        if seen == "both":
            with OpProfiler() as second:
                exp(x).backward(np.ones(3))
            expect(names(second.events), [("exp", "forward"), ("exp", "backward")])
    there_and_back = [("exp", "forward"), ("exp", "backward")]
    expect(names(inner.events), [*there_and_back, ("exp", "forward")])
    first = [] if seen == "inside" else there_and_back
    last = there_and_back if seen == "both" else []
    expect(names(outer.events), [*first, *there_and_back, ("exp", "forward"), *there_and_back, *last])
    expect(here(), before)


def test_other_threads_are_let_through_unrecorded():
    x = leaf(2)
    results = []

    def elsewhere():
        y = exp(x)
        y.backward(np.ones(2))
        results.append(y.data)

    with OpProfiler() as profile:
        exp(x)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        exp(x)
    expect(names(profile.events), [("exp", "forward")] * 2)
    expect(results[0], np.exp(x.data))


def test_a_profiler_sees_the_thread_that_entered_it_whichever_that_is():
    profile = OpProfiler()

    def elsewhere():
        with profile:
            exp(leaf(2)).sum().backward()

    with ThreadPoolExecutor(1) as executor:
        executor.submit(elsewhere).result()
    expect(
        names(profile.events),
        [("exp", "forward"), ("total", "forward"), ("total", "backward"), ("exp", "backward")],
    )


def test_events_need_no_more_than_the_block():
    profile = OpProfiler()
    expect(profile.events, [])
    with profile:
        pass
    expect(profile.events, [])


# 16.6 OpProfiler, memory


def test_with_memory_each_event_has_its_peak():
    x = Tensor(np.ones(MB // 8))
    with OpProfiler(memory=True) as profile:
        y = exp(x)
        z = (y * 2.0 + 1.0).sum()
    assert z.size
    expect(tracemalloc.is_tracing(), False)
    for event, expected in zip(profile.events, (MB, MB, MB, 0), strict=True):
        assert abs(event.peak_bytes - expected) < LITTLE, event


def test_with_memory_the_way_back_has_its_peaks_too():
    x = Tensor(np.ones(MB // 8), requires_grad=True)
    with OpProfiler(memory=True) as profile:
        mul(x, x).backward(np.ones(MB // 8))
    back = profile.events[-1]
    expect(back.phase, "backward")
    assert abs(back.peak_bytes - 2 * MB) < LITTLE


def test_without_memory_nobody_traces():
    with OpProfiler() as profile:
        inside = tracemalloc.is_tracing()
        exp(np.ones(2))
    expect((inside, profile.events[0].peak_bytes), (False, None))


def test_tracing_that_was_on_stays_on():
    tracemalloc.start()
    with OpProfiler(memory=True):
        exp(np.ones(2))
    expect(tracemalloc.is_tracing(), True)


# 16.7 OpProfiler, backward


def test_the_way_back_is_seen_in_its_order():
    x = leaf(2, 3)
    with OpProfiler() as profile:
        (exp(x) * 2.0).sum().backward()
    expect(
        names(profile.events),
        [(name, "forward") for name in ("exp", "mul", "total")]
        + [(name, "backward") for name in ("total", "mul", "exp")],
    )


def test_an_event_of_the_way_back_says_what_came_and_how_long_it_took(bench):
    x = leaf(2, 3)
    with OpProfiler(clock=bench.clock) as profile:
        y = takes(x, ns=10)
        y.backward(np.ones((2, 3)))
    expect(
        profile.events[1],
        Event("takes", "backward", 1010, 30, ((2, 3),), np.dtype(float), 12, 192, None, 0, 30),
    )


def test_the_way_back_costs_twice_the_call_it_belongs_to():
    """Both calls have a result of one shape, and inputs of different ones: which is which?"""
    a, b = leaf(4, 30), leaf(4, 2)
    wide, narrow = leaf(5, 30, seed=1), leaf(5, 2, seed=2)
    for first in (True, False):
        with OpProfiler() as profile:
            one, other = affine(a, wide), affine(b, narrow)
            (one if first else other).backward(np.ones((4, 5)))
            (other if first else one).backward(np.ones((4, 5)))
        big, small = 2 * 2 * 4 * 30 * 5, 2 * 2 * 4 * 2 * 5
        back = [event.flops for event in profile.events if event.phase == "backward"]
        expect(back, [big, small] if first else [small, big])
        moved = [event.bytes for event in profile.events]
        expect(sorted(moved[2:]), sorted(2 * one for one in moved[:2]))


@pytest.mark.parametrize("place", [0, 1])
def test_calls_that_share_one_input_of_two_are_told_apart(place):
    """Results of one shape: 8 * 6 bytes, and so has the shared input; the other one has 8 * 3 or 8 * 6."""
    shared, row, table = leaf(2, 3), leaf(3), leaf(2, 3)
    with OpProfiler() as profile:
        results = [mul(*([shared, x] if place else [x, shared])) for x in (row, table)]
        for y in results:
            y.backward(np.ones((2, 3)))
    expect([event.bytes for event in profile.events], [120, 144, 240, 288])


def test_a_call_that_never_goes_back_does_not_lend_its_cost():
    x, wide, narrow = leaf(4, 30), leaf(5, 30), leaf(5, 2)
    with OpProfiler() as profile:
        y = affine(x, wide)
        affine(leaf(4, 2), narrow)  # validation, say
        with no_grad():
            affine(leaf(4, 2), narrow)
        y.backward(np.ones((4, 5)))
    expect(profile.events[-1].flops, 2 * 2 * 4 * 30 * 5)


def test_sums_find_their_call_by_their_shape():
    """The rule of add keeps nothing, so the gradient is all there is to go by."""
    x, y = leaf(3), leaf(2, 3)
    with OpProfiler() as profile:
        small, large = x + x, y + y
        small.backward(np.ones(3))
        large.backward(np.ones((2, 3)))
    expect([event.flops for event in profile.events], [3, 6, 6, 12])


def test_two_operations_of_one_name_are_told_apart():
    """Both keep nothing, and have results of 24 bytes; the one reads as many, the other twice that."""

    def twin(forward, pull):
        forward.__name__ = "twin"
        made = op(forward)
        made.gradient(pull)
        return made

    one, other = twin(lambda x: x * 1, lambda grad: grad), twin(lambda x, y: x + y, lambda grad: (grad, grad))
    x = leaf(3)
    with OpProfiler() as profile:
        for y in (one(x), other(x, x)):
            y.backward(np.ones(3))
    expect([event.bytes for event in profile.events], [48, 72, 96, 144])


def test_a_graph_that_is_walked_twice_costs_twice():
    x = leaf(2, 3)
    with OpProfiler() as profile:
        y = mul(x, x)
        y.backward(np.ones((2, 3)), retain_graph=True)
        y.backward(np.ones((2, 3)))
    expect([(event.phase, event.flops) for event in profile.events[1:]], [("backward", 12)] * 2)
    expect(x.grad, 4 * x.data)


def test_gradients_are_the_same_to_the_bit(rng):
    def gradients():
        x, w = leaf(6, 5), leaf(5, 4, seed=1)
        h = (x @ w).exp()
        ((h * h + h).sum(axis=0)[1:] * 0.3).sum().backward()
        return x.grad.tobytes(), w.grad.tobytes()

    plain = gradients()
    with OpProfiler(), OpProfiler(memory=True):
        watched = gradients()
    expect(watched, plain)


def test_the_rule_of_an_operation_that_was_seen_is_watched_also_for_older_graphs():
    """What was done before the block has no cost that anybody noted."""
    x = leaf(2)
    before = exp(x)
    with OpProfiler() as profile:
        exp(x)
        before.backward(np.ones(2))
    expect([(e.name, e.phase, e.flops, e.bytes) for e in profile.events[1:]], [("exp", "backward", 0, 0)])
    expect(x.grad, np.exp(x.data))


def test_a_graph_from_the_block_can_be_walked_after_it():
    x = leaf(2, 3)
    with OpProfiler() as profile:
        y = (exp(x) * x).sum()
    seen = list(profile.events)
    y.backward()
    expect(profile.events, seen)
    expect(x.grad, np.exp(x.data) * (1 + x.data))


def test_a_way_back_that_was_taken_along_still_works_and_is_not_recorded():
    x = np.array([1.0, 2.0])
    with OpProfiler() as profile:
        exp(x)
        out, back = exp.vjp(x)
        back(np.ones(2))
    seen = len(profile.events)
    expect(back(np.ones(2)), np.exp(x))
    expect((len(profile.events), seen, out.shape), (2, 2, (2,)))


def test_a_rule_that_raises_is_no_event():
    @op
    def breaks(x):
        return x * 2

    @breaks.gradient
    def breaks_back(grad):
        raise KeyError("no way back")

    rule = breaks.pull
    x = leaf(2)
    with OpProfiler() as profile:
        with expect_error(KeyError, "no way back"):
            breaks(x).backward(np.ones(2))
        exp(x).backward(np.ones(2))
    expect(
        [(e.name, e.phase, e.depth) for e in profile.events],
        [("breaks", "forward", 0), ("exp", "forward", 0), ("exp", "backward", 0)],
    )
    expect(breaks.pull is rule, True)


def test_a_rule_that_was_exchanged_in_the_block_stays():
    @op
    def twice(x):
        return x * 2

    @twice.gradient
    def first(grad):
        return grad * 2

    with OpProfiler():
        twice(leaf(2))

        @twice.gradient
        def better(grad):
            return grad + grad

    expect(twice.pull is better, True)


def test_an_operation_without_a_rule_gets_none():
    @op
    def plain(x):
        return x * 2

    with OpProfiler() as profile:
        plain(np.ones(2))
    expect((plain.pull, len(profile.events)), (None, 1))


def test_a_straight_line_is_seen_as_well_as_a_graph():
    layer = Linear(3, 2, rng=np.random.default_rng(0))
    x = leaf(4, 3, dtype=np.float32)
    with OpProfiler() as profile:
        with Tape() as tape:
            layer(x)
        tape.walk_back(np.ones((4, 2), np.float32))
    expect(names(profile.events), [("affine", "forward"), ("affine", "backward")])
    expect(profile.events[1].flops, 2 * profile.events[0].flops)


def test_checkpoints_and_forward_mode_work_inside():
    x = leaf(3)
    with OpProfiler() as profile:
        checkpoint(lambda x: exp(x) * x, x).sum().backward()
        value, slope = jvp(exp, [x.data], [np.ones(3)])
    expect(x.grad, np.exp(x.data) * (1 + x.data))
    expect((value, slope), (np.exp(x.data), np.exp(x.data)))
    # Forward, once more on the way back, and in jvp.
    expect(sum(event[:2] == ("exp", "forward") for event in profile.events), 3)


# 16.8 by_op, rate


def event(name, phase, own, *, total=None, flops=0, moved=0, peak=None):
    whole = own if total is None else total
    return Event(name, phase, 0, whole, ((2,),), np.dtype("float32"), flops, moved, peak, 0, own)


def test_calls_of_one_op_and_phase_are_added_up():
    rows = by_op(
        [
            event("mul", "forward", 100, total=150, flops=10, moved=40),
            event("exp", "forward", 50, flops=1, moved=2),
            event("mul", "backward", 600, flops=20, moved=80),
            event("mul", "forward", 250, total=300, flops=30, moved=60),
        ]
    )
    expect(
        [tuple(row) for row in rows],
        [
            ("mul", "backward", 1, 600, 600, 0.6, 20, 80, None),
            ("mul", "forward", 2, 450, 350, 0.35, 40, 100, None),
            ("exp", "forward", 1, 50, 50, 0.05, 1, 2, None),
        ],
    )


def test_the_dearest_comes_first_by_its_own_time_and_equals_as_they_came():
    rows = by_op(
        [
            event("a", "forward", 5),
            event("b", "forward", 10, total=10),
            event("c", "forward", 5),
            event("d", "forward", 1, total=1000),
            event("b", "backward", 5),
        ]
    )
    expect([(row.name, row.phase) for row in rows], [
        ("b", "forward"), ("a", "forward"), ("c", "forward"), ("b", "backward"), ("d", "forward"),
    ])  # fmt: skip


def test_the_peak_is_the_highest_of_any_call():
    rows = by_op(
        [
            event("a", "forward", 9, peak=10),
            event("a", "forward", 9, peak=70),
            event("a", "forward", 9, peak=0),
            event("b", "forward", 1, peak=0),
            event("c", "forward", 0),
        ]
    )
    expect([row.peak_bytes for row in rows], [70, 0, None])


def test_rate_is_operations_a_second_of_its_own_time():
    (row,) = by_op([event("a", "forward", 500, total=9000, flops=2000)])
    expect(row.rate, 4e9)


def test_where_no_time_has_passed_there_is_no_rate_and_no_share():
    rows = by_op([event("a", "forward", 0, flops=9), event("b", "forward", 0)])
    expect([(row.rate, row.share) for row in rows], [(0.0, 0.0)] * 2)


def test_of_no_events_there_are_no_rows():
    expect(by_op([]), [])
    expect(by_op(iter([event("a", "forward", 1)]))[0].share, 1.0)


def test_a_profile_prints_its_table():
    import io

    from tinytorch.setup import show

    with OpProfiler() as profile:
        exp(leaf(2)).sum().backward()
    out = io.StringIO()
    show(profile.table(), out)
    assert "exp" in out.getvalue()
    expect(len(profile.table().rows), 4)


def test_the_table_is_in_milliseconds_and_millions():
    profile = OpProfiler()
    profile.events = [event("mul", "forward", 2_000_000, total=3_000_000, flops=8_000_000, moved=5_000_000)]
    cells = [next(iter(column.cells)) for column in profile.table().columns]
    # 8 million operations in 2 ms are 4 a nanosecond.
    expect(list(map(str, cells)), ["mul", "forward", "1", "3", "2", "100.0%", "8", "5", "4"])


# 16.9 profile_modules


class Sleepy(Module):
    """Takes its time, by the bench, before and after what is below it."""

    def __init__(self, before, *below, after=0):
        self.before, self.after = before, after
        self.below = list(below)

    def forward(self, x):
        BENCH.now += self.before
        for module in self.below:
            x = module(x)
        BENCH.now += self.after
        return x


def test_each_module_has_its_total_and_its_own_time(bench):
    inner = Sleepy(5)
    model = Sleepy(100, Sleepy(10, inner, after=20), Sleepy(7), after=200)
    rows = profile_modules(model, np.ones(2), clock=bench.clock)
    expect(
        [tuple(row) for row in rows],
        [
            ("", "Sleepy", 1, 342, 300, None),
            ("below.0", "Sleepy", 1, 35, 30, None),
            ("below.0.below.0", "Sleepy", 1, 5, 5, None),
            ("below.1", "Sleepy", 1, 7, 7, None),
        ],
    )
    assert isinstance(rows[0], ModuleRow)


def test_parents_come_first_in_the_order_of_their_names():
    class Backwards(Module):
        def __init__(self):
            self.last, self.first = Sleepy(1), Sleepy(2)

        def forward(self, x):
            return self.last(self.first(x))

    rows = profile_modules(Backwards(), np.ones(1))
    expect(
        [(row.path, row.kind) for row in rows], [("", "Backwards"), ("last", "Sleepy"), ("first", "Sleepy")]
    )


def test_a_module_that_is_called_twice_has_one_row(bench):
    shared = Sleepy(3)
    rows = profile_modules(Sleepy(1, shared, shared), np.ones(1), clock=bench.clock)
    expect(
        [tuple(row) for row in rows], [("", "Sleepy", 1, 7, 1, None), ("below.0", "Sleepy", 2, 6, 6, None)]
    )


def test_modules_that_are_not_called_or_not_of_the_model_have_no_row(bench):
    other = Sleepy(50)

    class Choosy(Module):
        def __init__(self):
            self.used, self.unused = Sleepy(1), Sleepy(1)

        def forward(self, x):
            return self.used(other_call(x))

    def other_call(x):
        return other(x)

    rows = profile_modules(Choosy(), np.ones(1), clock=bench.clock)
    expect([(row.path, row.total_ns, row.self_ns) for row in rows], [("", 51, 50), ("used", 1, 1)])


def test_inputs_are_handed_on_and_the_model_is_called_once():
    calls = []

    class Noting(Module):
        def forward(self, *inputs):
            calls.append(inputs)
            return inputs[0]

    x = np.ones(2)
    profile_modules(Noting(), x, 5)
    expect((len(calls), calls[0][0] is x, calls[0][1]), (1, True, 5))


def test_options_reach_the_modules_below():
    class Below(Module):
        def forward(self, x, *, factor):
            return x * factor

    class Above(Module):
        def __init__(self):
            self.below = Below()

        def forward(self, x):
            self.got = self.below(x, factor=3)
            return self.got

    model = Above()
    expect(len(profile_modules(model, np.ones(1))), 2)
    expect(model.got, np.array([3.0]))


def test_hooks_count_to_the_module_that_has_them(bench):
    inner = Sleepy(5)
    model = Sleepy(1, inner)

    def hook(module, inputs, out):
        bench.now += 30

    remove = inner.register_forward_hook(hook)
    rows = profile_modules(model, np.ones(1), clock=bench.clock)
    expect([(row.total_ns, row.self_ns) for row in rows], [(36, 1), (35, 35)])
    remove()


def test_the_modules_are_afterwards_as_they_were():
    before = here()
    model = Sleepy(1, Linear(2, 2, rng=np.random.default_rng(0)))
    attributes = dict(vars(model)), dict(vars(model.below[0]))
    profile_modules(model, Tensor(np.ones((1, 2), np.float32)), memory=True)
    expect(here(), before)
    expect((list(vars(model)), list(vars(model.below[0]))), (list(attributes[0]), list(attributes[1])))


def test_what_somebody_else_put_in_place_of_a_call_is_used_and_put_back():
    seen = []

    def noting(module, *inputs):
        seen.append(type(module).__name__)
        return MODULE_CALL(module, *inputs)

    Module.__call__ = noting
    profile_modules(Sleepy(1, Sleepy(2)), np.ones(1))
    expect((Module.__call__ is noting, seen), (True, ["Sleepy", "Sleepy"]))


def test_a_model_that_raises_leaves_nothing_behind():
    before = here()

    class Bad(Module):
        def forward(self, x):
            raise KeyError("bad model")

    with expect_error(KeyError, "bad model"):
        profile_modules(Sleepy(1, Bad()), np.ones(1), memory=True)
    expect(here(), before)


def test_a_model_that_somebody_stops_leaves_nothing_behind_either():
    before = here()

    class Stops(Module):
        def forward(self, x):
            stop()

    with pytest.raises(Stopped):
        profile_modules(Sleepy(1, Stops()), np.ones(1), memory=True)
    expect(here(), before)


def test_tracing_that_was_on_stays_on_when_modules_are_profiled():
    tracemalloc.start()
    profile_modules(Sleepy(1), np.ones(1), memory=True)
    expect(tracemalloc.is_tracing(), True)


def test_with_memory_each_module_has_the_peak_of_its_dearest_call():
    class Makes(Module):
        def __init__(self, *sizes):
            self.sizes = itertools.cycle(sizes)

        def forward(self, x):
            _ = np.ones(next(self.sizes) * MB // 8)
            return x

    class Holds(Module):
        def __init__(self):
            self.makes = Makes(3, 1)

        def forward(self, x):
            held = np.ones(MB // 4)
            self.makes(x)
            self.makes(x)
            return x if held.size else None

    above, makes = profile_modules(Holds(), np.ones(1), memory=True)
    assert abs(makes.peak_bytes - 3 * MB) < LITTLE
    assert abs(above.peak_bytes - 5 * MB) < LITTLE
    expect(tracemalloc.is_tracing(), False)


def test_operations_and_modules_can_be_profiled_together():
    model = Linear(3, 2, rng=np.random.default_rng(0))
    with OpProfiler() as profile:
        rows = profile_modules(model, Tensor(np.ones((4, 3), np.float32)))
    expect(names(profile.events), [("affine", "forward")])
    expect([row.kind for row in rows], ["Linear"])
