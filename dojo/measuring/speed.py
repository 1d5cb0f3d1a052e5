"""Who is faster, by how much, and is it certain?  Ratios within one process, never seconds.

Noise hits both sides of a pair alike, so pairs are compared, not averages: candidate and baseline run in
turn, and the race is over when one side leads by five.  In trials (210 a cell: quiet, beside two busy
processes, under bursts) this gave no false alarm and missed no solution three times too slow, where a single
ratio gave 23 % false alarms.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dojo.measuring.clocks import clock
from dojo.measuring.quiet import undisturbed

LEAD = 5
MOST_PAIRS = 61
LONG_ENOUGH = 3e-4  # seconds: shorter kernels are repeated inside the clock
TOO_LONG = 2e-2  # seconds: a candidate this slow is repeated less often than the baseline
PATIENCE = 2.0  # seconds for a whole race; then whoever leads has it
MOST_LOOPS = 1 << 14
DRAWS = 16  # different inputs for the repeats of one short kernel


@dataclass(frozen=True)
class Race:
    """How a candidate did against a baseline.

    `ratio` is the median over pairs of candidate's time / baseline's time.  `within` is the verdict of the
    sequential test on ratio <= limit; None when no verdict is possible, and then `unjudged` says why.
    """

    ratio: float
    limit: float
    within: bool | None
    pairs: int
    unjudged: str = ""


def race(
    candidate: Callable[..., object],
    baseline: Callable[..., object],
    *,
    limit: float,
    inputs: Callable[[], tuple[Any, ...]] = tuple,
) -> Race:
    """Is `candidate(*inputs())` at most `limit` times as slow as `baseline(*inputs())`?

    `inputs` is called anew for each side of each pair, outside the clock: neither side sees what the other
    did to its arrays, and remembering an answer gains nothing.  It should draw from one distribution.

    Take a baseline of 0.3 to 1 ms; a shorter one is repeated inside the clock (as often as the candidate, on
    up to 16 different inputs), which measures it with warm caches.  Both are called once before it starts.

    Coverage and pdb are paused while the clock runs.  Under a profiler or another debugger times mean
    nothing, so `within` is None: `Budget.check` then skips the test, and nothing is recorded as passed.

    Raises:
        RuntimeError: tracemalloc is tracing.
    """
    candidate(*inputs())
    baseline(*inputs())
    with undisturbed() as watcher:
        if watcher:
            return Race(float("nan"), limit, None, 0, watcher)
        started = clock()
        loops = _loops(baseline, inputs)
        first = _time(candidate, inputs, 1)
        slower = max(1, min(loops, int(TOO_LONG / first))) if first > 0 else loops
        ratios: list[float] = []
        lead = 0
        while len(ratios) < MOST_PAIRS:
            if len(ratios) % 2:
                theirs = _time(candidate, inputs, slower)
                mark = _time(baseline, inputs, loops)
            else:
                mark = _time(baseline, inputs, loops)
                theirs = _time(candidate, inputs, slower)
            ratios.append(theirs / mark if mark > 0 else float("inf"))
            lead += 1 if ratios[-1] <= limit else -1
            if abs(lead) >= LEAD or clock() - started > PATIENCE:
                break
    ratio = statistics.median(ratios)
    return Race(ratio, limit, lead > 0 if lead else ratio <= limit, len(ratios))


def _time(function: Callable[..., object], inputs: Callable[[], tuple[Any, ...]], loops: int) -> float:
    """CPU seconds of one call, averaged over `loops` of them."""
    if loops == 1:
        args = inputs()
        begin = clock()
        function(*args)
        return clock() - begin
    drawn = [inputs() for _ in range(min(loops, DRAWS))]
    calls = list(itertools.islice(itertools.cycle(drawn), loops))
    begin = clock()
    for args in calls:
        function(*args)
    return (clock() - begin) / loops


def _loops(function: Callable[..., object], inputs: Callable[[], tuple[Any, ...]]) -> int:
    """How often to call `function` so that the clock runs long enough, by its best of three."""
    loops = 1
    while loops < MOST_LOOPS:
        best = min(_time(function, inputs, loops) for _ in range(3))
        if best * loops >= LONG_ENOUGH:
            break
        needed = LONG_ENOUGH * 1.2 / best if best > 0 else loops * 10
        loops = int(min(max(loops + 1, needed), loops * 10, MOST_LOOPS))
    return loops
