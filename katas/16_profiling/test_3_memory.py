"""Level 3: a meter must not weigh on the scales: it keeps numbers about arrays, and never the arrays.

Counted by tracemalloc in bytes, so the figures are the same on every machine. Each budget has a twin: a
naive version, written out here, that must not fit.
"""

import gc
import tracemalloc

import numpy as np
import pytest

from dojo.measuring import Budget, check_memory_growth, kept_bytes, load_probes, peak_bytes, retained_bytes
from tinytorch.layers import Linear, Module
from tinytorch.profiling import (
    MemoryProfiler,
    OpProfiler,
    Peaks,
    chrome_trace,
    mann_whitney,
    measure_roofline,
    op_bytes,
    op_flops,
    profile_modules,
    time_turns,
)
from tinytorch.tensor import Op, Tensor, exp, mul, neg

KIB, MIB = 1 << 10, 1 << 20
PROBES = {probe.name: probe for probe in load_probes(__file__).PROBES}
CALL, MODULE_CALL = Op.__call__, Module.__call__

RESULTS = Budget(
    "taking the time of a function with a result of 1 MiB",
    limit=2.6,
    reference=1.0,
    naive=16,
    unit="MiB at the worst moment",
    naively="a version that collects results",
)
EVENTS = Budget(
    "a profile of 200 operations",
    limit=2.5,
    reference=0.43,
    naive=32,
    unit="KiB an event",
    naively="a version whose events hold arrays",
)
FREED = Budget(
    "a chain of 16 operations of 1 MiB each, watched",
    limit=3.5,
    reference=2.0,
    naive=16,
    unit="MiB at the worst moment",
    naively="a profiler that holds what it saw",
)
MODULES = Budget(
    "profile_modules of 16 modules of 1 MiB each",
    limit=3.5,
    reference=2.0,
    naive=16,
    unit="MiB at the worst moment",
    naively="a version that keeps each result",
)
LOOKED_AT = Budget(
    "counting the cost of an operation on 2 MiB",
    limit=64,
    reference=1.4,
    naive=2050,
    unit="KiB at the worst moment",
    naively="a version that makes an array contiguous to count it",
)
RANKS = Budget(
    "mann_whitney of 1,000 and 1,000",
    limit=250,
    reference=74,
    naive=560,
    unit="bytes a sample, at the worst moment",
    naively="a version that compares all pairs at once",
)
TRACED = Budget(
    "chrome_trace of 500 events",
    limit=8,
    reference=0.8,
    naive=33,
    unit="KiB an event",
    naively="a version that writes out what shapes stand for",
)


@pytest.fixture(autouse=True)
def _as_it_was():
    """A wrong solution spoils its own test only."""
    yield
    Op.__call__, Module.__call__ = CALL, MODULE_CALL


def mib(count=1):
    return np.ones(count * MIB // 8)


# 16.2 time_turns


def test_results_are_dropped_at_once():
    RESULTS.check(peak_bytes(lambda: time_turns(mib, repeat=8, inner=2)) / MIB)


def test_the_twin_that_collects_results_is_caught():
    RESULTS.catches(peak_bytes(lambda: [mib() for _ in range(16)]) / MIB)


def test_nothing_stays_of_what_was_timed():
    held = retained_bytes(lambda: time_turns(mib, mib, repeat=3, inner=2))
    assert held < 16 * KIB


# 16.3 Peaks, MemoryProfiler


def test_phases_are_equal_to_tracemalloc_itself():
    """The same work, by a profiler and by hand; 4 KiB are for the profiler's own objects."""

    def work():
        kept = mib(2)
        _ = mib(3).sum()
        return kept

    tracemalloc.start()
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    kept = work()
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    with MemoryProfiler() as memory, memory.phase("work"):
        held = work()
    assert held.size
    (phase,) = memory.phases
    assert abs(phase.peak - (peak - before)) < 4 * KIB
    assert abs(phase.retained - (after - before)) < 4 * KIB


def test_a_thousand_readings_hold_nothing():
    def many():
        peaks = Peaks()
        for _ in range(1000):
            peaks.begin()
            peaks.end()
        return peaks

    assert kept_bytes(many) < 8 * KIB


def test_phases_hold_numbers_only():
    def phases():
        memory = MemoryProfiler()
        with memory:
            for _ in range(50):
                with memory.phase("step"):
                    mib()
        return memory

    # 50 phases; reference: 9 KiB.
    assert kept_bytes(phases) < 50 * KIB


# 16.4 op_flops, 16.5 op_bytes


def costs(x):
    y = x.T
    return op_flops(mul, [y, y], {}, y) + op_bytes(mul, [y, y], {}, y)


def test_costs_are_counted_without_a_copy():
    x = np.ones((512, 512))
    LOOKED_AT.check(peak_bytes(lambda: costs(x)) / KIB)


def test_the_twin_that_copies_to_count_is_caught():
    x = np.ones((512, 512))
    LOOKED_AT.catches(peak_bytes(lambda: np.ascontiguousarray(x.T).nbytes) / KIB)


# 16.6 and 16.7 OpProfiler


def steps(count, size):
    """`count` calls there and back, half of each."""
    x = Tensor(np.ones(size), requires_grad=True)
    y = x
    for _ in range(count // 2):
        y = exp(y * 0.0)
    y.backward(np.ones(size))


def test_events_hold_no_arrays():
    def profile():
        profile = OpProfiler()
        with profile:
            steps(100, 4096)
        return profile

    count = len(profile().events)
    assert count == 200
    EVENTS.check(kept_bytes(profile) / count / KIB)


def test_the_twin_whose_events_hold_arrays_is_caught():
    EVENTS.catches(kept_bytes(lambda: [exp(np.ones(4096)) for _ in range(200)]) / 200 / KIB)


def chain(x):
    for _ in range(16):
        x = neg(x)
    return x


def test_what_a_program_lets_go_is_gone_while_it_is_watched():
    x = mib()

    def watched():
        with OpProfiler():
            chain(x)

    FREED.check(peak_bytes(watched) / MIB)


def test_the_twin_that_holds_what_it_saw_is_caught():
    x = mib()

    def holding():
        seen = [x]
        for _ in range(16):
            seen.append(neg(seen[-1]))

    FREED.catches(peak_bytes(holding) / MIB)


def test_a_graph_that_was_watched_keeps_what_it_keeps_otherwise():
    """Two rules keep 1 MiB each. 64 KiB are for a profile of two events, with the costs it noted."""
    start = mib()

    def program():
        x = Tensor(start, requires_grad=True)
        return exp(x) * 2.0

    def watched():
        with OpProfiler():
            return program()

    assert abs(kept_bytes(watched) - kept_bytes(program)) < 64 * KIB


def test_of_a_watched_program_nothing_stays_but_its_events():
    def watched():
        with OpProfiler(memory=True):
            steps(10, MIB // 64)

    assert retained_bytes(watched) < 32 * KIB


# 16.9 profile_modules


class Neg(Module):
    def forward(self, x):
        return neg(x)


class Chain(Module):
    def __init__(self):
        self.layers = [Neg() for _ in range(16)]

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_results_of_modules_are_not_kept():
    model, x = Chain(), mib()
    MODULES.check(peak_bytes(lambda: profile_modules(model, x)) / MIB)


def test_the_twin_that_keeps_results_is_caught():
    model, x = Chain(), mib()

    def keeping():
        outs = []
        removers = [
            m.register_forward_hook(lambda module, inputs, out: outs.append(out)) for m in model.modules()
        ]
        model(x)
        for remove in removers:
            remove()

    MODULES.catches(peak_bytes(keeping) / MIB)


def test_rows_hold_no_module():
    def rows():
        return profile_modules(Linear(512, 512, rng=np.random.default_rng(0)), np.ones((1, 512), np.float32))

    assert kept_bytes(rows) < 64 * KIB


# 16.10 measure_roofline


def test_a_product_and_a_copy_are_written_to_what_is_there():
    """The clock looks at memory, before and after each run; 1 MiB each are what was computed."""
    seen = []

    def clock():
        now, peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        seen.append((now, peak))
        return float(len(seen))

    tracemalloc.start()
    try:
        measure_roofline(side=512, length=1 << 18, repeat=2, clock=clock)
    finally:
        tracemalloc.stop()
    took = [end[1] - begin[0] for begin, end in zip(seen[::2], seen[1::2], strict=True)]
    assert len(took) >= 6
    assert max(took) < 64 * KIB, f"{max(took) / KIB:.0f} KiB are made in a run"


# 16.13 mann_whitney


def test_ranks_take_memory_by_samples_not_by_pairs(rng):
    a, b = rng.normal(size=(2, 1000))
    RANKS.check(peak_bytes(lambda: mann_whitney(a, b)) / 2000)


def test_the_twin_that_compares_all_pairs_is_caught(rng):
    a, b = rng.normal(size=(2, 1000))
    RANKS.catches(peak_bytes(lambda: (a[:, None] > b).sum()) / 2000)


# 16.16 chrome_trace


def test_a_trace_is_as_large_as_its_events():
    with OpProfiler() as profile:
        steps(250, 4096)
    TRACED.check(kept_bytes(lambda: chrome_trace(profile.events)) / len(profile.events) / KIB)


def test_the_twin_that_writes_out_arrays_is_caught():
    TRACED.catches(kept_bytes(lambda: [[float(i) for i in range(1024)] for _ in range(100)]) / 100 / KIB)


# How it grows


@pytest.mark.parametrize("name", [name for name, probe in PROBES.items() if probe.memory is not None])
def test_memory_grows_as_it_should(name):
    check_memory_growth(PROBES[name])
