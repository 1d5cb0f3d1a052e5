"""How a cost grows with size, as the exponent of the last doubling: 1 is linear, 2 quadratic, 3 cubic.

Small sizes are ruled by overhead and would pull a straight-line fit down, so only the two largest count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dojo.measuring.clocks import clock
from dojo.measuring.memory import peak_bytes
from dojo.measuring.probes import Probe
from dojo.measuring.quiet import not_judged, undisturbed
from dojo.measuring.speed import LONG_ENOUGH, MOST_LOOPS

if TYPE_CHECKING:
    from numpy.random import Generator

REPEATS = 9
SMALL = 8 << 10  # bytes: some dozens of Python objects, whatever an array has
PATIENCE = 2.0  # seconds for all repeats of all sizes; each size is timed at least twice


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """log(cost ratio) / log(size ratio) of the last two.  A cost below 1e-12 counts as that."""
    small, large = (max(cost, 1e-12) for cost in costs[-2:])
    return math.log(large / small) / math.log(sizes[-1] / sizes[-2])


def counted_growth(count: Callable[[int], float], sizes: Sequence[int]) -> float:
    """The exponent by which `count(n)` grows over the last two sizes.

    Counting (a WorkMeter's flops, a CountingElement's comparisons) is exact, where time at small sizes shows
    overhead before it shows order.
    """
    return exponent(sizes, [count(n) for n in sizes[-2:]])


def memory_growth(probe: Probe) -> float:
    """The exponent by which the peak of `probe` grows over its last two sizes.

    Less than SMALL counts as SMALL: views and numbers of Python's are no growth.
    """
    return _of_bytes(probe, peaks(probe, probe.sizes[-2:]))


def _of_bytes(probe: Probe, seen: Sequence[int]) -> float:
    return exponent(probe.sizes, [max(SMALL, b) for b in seen])


def check_memory_growth(probe: Probe) -> None:
    """Assert that the peak of `probe` grows by the power of n that it expects, or by less.

    Half a power more passes: between two sizes a cost has parts that grow otherwise.
    """
    __tracebackhide__ = True
    sizes, expected = probe.sizes[-2:], probe.memory
    if expected is None:
        raise ValueError(f"{probe.name} says nothing of memory")
    seen = peaks(probe, sizes)
    grown = _of_bytes(probe, seen)
    if grown >= expected + 0.5:
        told = ", ".join(f"{b:,} bytes for n = {n:,}" for n, b in zip(sizes, seen, strict=True))
        raise AssertionError(
            f"{probe.name}: {told}, at the worst moment: as n to the power of {grown:.2f}, "
            f"where {expected:g} is expected"
        )


def time_growth(probe: Probe) -> float:
    """The exponent by which the time of `probe` grows over its last two sizes.

    Under a profiler or debugger, where times mean nothing, the test that asks is skipped.

    Raises:
        RuntimeError: tracemalloc is tracing; or there is a profiler and no test to skip.
    """
    return exponent(probe.sizes, times(probe, probe.sizes[-2:]))


def peaks(probe: Probe, sizes: Sequence[int]) -> list[int]:
    """Bytes at the worst moment of the probe's call, for each size."""
    found = []
    for n in sizes:
        args = probe.prepare(n, _rng(0))
        found.append(peak_bytes(lambda args=args: probe.call(*args)))  # type: ignore[misc]
    return found


def times(probe: Probe, sizes: Sequence[int]) -> list[float]:
    """The least CPU seconds of one call, for each size.

    Sizes take turns, so that a burst of other work hits all of them, and each repeat has new arguments.

    Raises:
        RuntimeError: tracemalloc is tracing; or there is a profiler and no test to skip.
    """
    with undisturbed() as watcher:
        if watcher:
            not_judged(probe.name, watcher)
        started = clock()
        loops = {n: _loops(probe, n) for n in sizes}
        best = dict.fromkeys(sizes, math.inf)
        for repeat in range(REPEATS):
            for n in sizes:
                best[n] = min(best[n], _time(probe, n, repeat, loops[n]))
            if repeat and clock() - started > PATIENCE:
                break
    return list(best.values())


def _time(probe: Probe, n: int, seed: int, loops: int) -> float:
    args = probe.prepare(n, _rng(seed))
    begin = clock()
    for _ in range(loops):
        probe.call(*args)
    return (clock() - begin) / loops


def _loops(probe: Probe, n: int) -> int:
    """How many calls fill the clock, judged after a first one that warms up."""
    _time(probe, n, 0, 1)
    loops = 1
    while loops < MOST_LOOPS and (spent := _time(probe, n, 0, loops) * loops) < LONG_ENOUGH:
        loops = min(MOST_LOOPS, max(loops * 2, int(LONG_ENOUGH / spent * loops) if spent > 0 else loops * 10))
    return loops


def _rng(seed: int) -> Generator:
    import numpy as np

    return np.random.default_rng(seed)
