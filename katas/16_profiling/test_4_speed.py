"""Level 4: watching is cheap beside what is watched, and statistics are done on all draws at once.

Ratios within this run, in CPU time, never seconds. Each budget has a twin: a naive version, written out
here, that must not fit.
"""

import json
import statistics
from itertools import combinations

import numpy as np
import pytest

from dojo.measuring import Budget, race
from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.layers import Linear, Module
from tinytorch.profiling import (
    Event,
    OpProfiler,
    bootstrap_ratio,
    by_op,
    chrome_trace,
    fit_growth,
    mann_whitney,
    op_flops,
    profile_modules,
)
from tinytorch.spatial import Conv2d, MaxPool2d
from tinytorch.tensor import Op, Tensor, neg, op

CALL, MODULE_CALL = Op.__call__, Module.__call__

STEP = Budget(
    "a training step of a CNN under OpProfiler",
    limit=1.25,
    reference=1.03,
    naive=8,
    unit="times the step alone",
    naively="a profiler that notes each array as text",
)
CALLS = Budget(
    "40 calls on four numbers under OpProfiler",
    limit=18,
    reference=6,
    naive=55,
    unit="times the calls alone",
    naively="a profiler that notes each array as text",
)
MODULES = Budget(
    "profile_modules of 40 modules that do nothing",
    limit=40,
    reference=13,
    naive=130,
    unit="times the model alone",
    naively="a version that looks for each path anew",
)
ROWS = Budget(
    "by_op of 1,000 events of 500 ops",
    limit=130,
    reference=45,
    naive=360,
    unit="times one pass over the events",
    naively="a version that looks through all events for each op",
)
TRACE = Budget(
    "chrome_trace of 1,600 events",
    limit=5,
    reference=1.5,
    naive=14,
    unit="times the time to write it as JSON",
    naively="a version that looks for the first event each time",
)
PAIRS = Budget(
    "the cost of attention of 512 queries to 512 keys",
    limit=8,
    reference=0.03,
    naive=50,
    unit="times a loop over queries",
    naively="a loop over all pairs",
)
GROWTH = Budget(
    "fit_growth of 20 points, 1,000 draws",
    limit=26,
    reference=7.4,
    naive=93,
    unit="times the drawing alone",
    naively="a version that fits one draw after the other",
)
RATIO = Budget(
    "bootstrap_ratio of 20 and 20, 1,000 draws",
    limit=28,
    reference=11,
    naive=84,
    unit="times drawing all places",
    naively="a version that takes one median after the other",
)
RANKS = Budget(
    "mann_whitney of 500 and 500",
    limit=550,
    reference=13,
    naive=1700,
    unit="times sorting all samples",
    naively="a version that compares pair by pair",
)
EXACT = Budget(
    "mann_whitney of 9 and 9, counted exactly",
    limit=60,
    reference=9,
    naive=400,
    unit="times a table of 9 x 81 numbers",
    naively="a version that goes through all 48,620 orders",
)


@pytest.fixture(autouse=True)
def _as_it_was():
    """A wrong solution spoils its own test only."""
    yield
    Op.__call__, Module.__call__ = CALL, MODULE_CALL


def faster(budget, candidate, baseline):
    return race(candidate, baseline, limit=budget.limit)


# 16.6 and 16.7 OpProfiler


def as_text(work):
    """The twin: what an operation got and gave, in words."""
    notes = []

    def noting(one, *inputs, **params):
        out = CALL(one, *inputs, **params)
        notes.append([str(x) for x in (*inputs, out)])
        return out

    Op.__call__ = noting
    try:
        work()
    finally:
        Op.__call__ = CALL


def training_step():
    """Convolution, pooling, a linear layer: 12 operations there, and as many back, some 8 ms."""
    rng = np.random.default_rng(0)
    first, second = Conv2d(3, 16, 3, padding=1, rng=rng), Conv2d(16, 32, 3, padding=1, rng=rng)
    pool, last = MaxPool2d(2), Linear(32, 10, rng=rng)
    x = Tensor(rng.standard_normal((32, 3, 24, 24), np.float32))

    def step():
        y = pool(first(x).clip(min=0.0))
        y = pool(second(y).clip(min=0.0))
        (last(y.mean(axis=(2, 3))) ** 2).mean().backward()

    return step


def test_watching_costs_little_beside_a_training_step():
    step = training_step()

    def watched():
        with OpProfiler():
            step()

    STEP.check(faster(STEP, watched, step))


def test_the_twin_that_notes_the_arrays_of_a_step_is_caught():
    step = training_step()
    STEP.catches(faster(STEP, lambda: as_text(step), step))


def small_calls():
    x = np.ones(4, np.float32)
    for _ in range(40):
        neg(x)


def test_watching_a_small_call_costs_a_few_small_calls():
    def watched():
        with OpProfiler():
            small_calls()

    CALLS.check(faster(CALLS, watched, small_calls))


def test_the_twin_that_notes_each_array_is_caught():
    CALLS.catches(faster(CALLS, lambda: as_text(small_calls), small_calls))


# 16.4 op_flops


@op
def fused_attention(q, k, v, *, is_causal=False):
    """The name is what counts."""
    return q


def heads(length):
    return [np.ones((1, 1, length, 4), np.float32)] * 3


def per_query():
    total = 0
    for i in range(512):
        total += max(0, min(512, i + 1))
    return total


def test_pairs_are_counted_without_going_through_them():
    arrays = heads(512)
    PAIRS.check(
        faster(PAIRS, lambda: op_flops(fused_attention, arrays, {"is_causal": True}, arrays[0]), per_query)
    )


def test_the_twin_that_goes_through_all_pairs_is_caught():
    PAIRS.catches(faster(PAIRS, lambda: sum(1 for i in range(512) for j in range(512) if j <= i), per_query))


# 16.8 by_op


def many(count, ops):
    dtype = np.dtype("float32")
    return [
        Event(f"op{i % ops}", "forward", 100 * i, 90, ((4, 4),), dtype, 16, 128, None, 0, 90)
        for i in range(count)
    ]


def test_events_are_added_up_in_one_pass():
    events = many(1000, 500)
    ROWS.check(faster(ROWS, lambda: by_op(events), lambda: sum(event.self_ns for event in events)))


def test_the_twin_that_looks_through_all_for_each_is_caught():
    events = many(1000, 500)

    def slow():
        names = {event.name for event in events}
        return [sum(event.self_ns for event in events if event.name == name) for name in names]

    ROWS.catches(faster(ROWS, slow, lambda: sum(event.self_ns for event in events)))


# 16.9 profile_modules


class Nothing(Module):
    def forward(self, x):
        return x


class Stack(Module):
    def __init__(self):
        self.layers = [Nothing() for _ in range(40)]

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_modules_are_known_by_one_look():
    model, x = Stack(), np.ones(2)
    MODULES.check(faster(MODULES, lambda: profile_modules(model, x), lambda: model(x)))


def test_the_twin_that_looks_for_each_path_anew_is_caught():
    model, x = Stack(), np.ones(2)

    def slow():
        for module in model.modules():
            next(path for path, one in model.named_modules() if one is module)
        model(x)

    MODULES.catches(faster(MODULES, slow, lambda: model(x)))


# 16.12 fit_growth


def test_all_draws_are_fitted_at_once(rng):
    sizes, costs = np.arange(2.0, 22.0), np.arange(2.0, 22.0) ** 2
    GROWTH.check(
        faster(
            GROWTH,
            lambda: fit_growth(sizes, costs, rng=rng),
            lambda: np.log(sizes[rng.integers(0, 20, (1000, 20))]),
        )
    )


def test_the_twin_that_fits_one_after_the_other_is_caught(rng):
    sizes, costs = np.arange(2.0, 22.0), np.arange(2.0, 22.0) ** 2

    def slow():
        for _ in range(1000):
            draw = rng.integers(0, 20, 20)
            x, y = np.log(sizes[draw]), np.log(costs[draw])
            x = x - x.mean()
            (x @ y) / (x @ x)

    GROWTH.catches(faster(GROWTH, slow, lambda: np.log(sizes[rng.integers(0, 20, (1000, 20))])))


# 16.13 mann_whitney


def test_large_samples_are_ranked_by_sorting(rng):
    a, b = rng.normal(size=(2, 500))
    both = np.concatenate([a, b])
    RANKS.check(faster(RANKS, lambda: mann_whitney(a, b), lambda: np.sort(both)))


def test_the_twin_that_compares_pair_by_pair_is_caught(rng):
    a, b = rng.normal(size=(2, 500))
    both = np.concatenate([a, b])
    first, second = a.tolist(), b.tolist()
    RANKS.catches(faster(RANKS, lambda: sum(x > y for x in first for y in second), lambda: np.sort(both)))


def small_table():
    return [[a + u for u in range(81)] for a in range(9)]


def test_orders_are_counted_and_not_gone_through():
    a, b = [float(i) for i in range(9)], [i + 0.5 for i in range(9)]
    EXACT.check(faster(EXACT, lambda: mann_whitney(a, b), small_table))


def test_the_twin_that_goes_through_all_orders_is_caught():
    EXACT.catches(faster(EXACT, lambda: sum(sum(c) > 80 for c in combinations(range(18), 9)), small_table))


# 16.14 bootstrap_ratio


def all_places(rng):
    """Which of 20 each of 2,000 draws takes. (Sorting them takes some processors six times as long.)"""
    return rng.integers(0, 20, (2000, 20))


def test_all_medians_are_taken_at_once(rng):
    a, b = rng.uniform(1, 2, (2, 20))
    RATIO.check(
        faster(RATIO, lambda: bootstrap_ratio(a, b, rng=rng, resamples=1000), lambda: all_places(rng))
    )


def test_the_twin_that_takes_one_median_after_the_other_is_caught(rng):
    a, b = rng.uniform(1, 2, (2, 20)).tolist()

    def slow():
        for _ in range(1000):
            places = rng.integers(0, 20, (2, 20)).tolist()
            statistics.median([b[i] for i in places[1]]) / statistics.median([a[i] for i in places[0]])

    RATIO.catches(faster(RATIO, slow, lambda: all_places(rng)))


# 16.16 chrome_trace


def test_a_trace_is_made_in_one_pass():
    events = many(1600, 8)
    made = chrome_trace(events)
    TRACE.check(faster(TRACE, lambda: chrome_trace(events), lambda: json.dumps(made)))


def test_the_twin_that_looks_for_the_first_each_time_is_caught():
    events = many(1600, 8)
    made = chrome_trace(events)

    def slow():
        return [event.start_ns - min(one.start_ns for one in events) for event in events]

    TRACE.catches(faster(TRACE, slow, lambda: json.dumps(made)))
