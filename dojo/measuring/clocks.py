"""The clock that races are timed by: CPU time, which is not billed for what other processes do."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

FINE = 1e-5  # seconds: what is raced takes 3e-4 and more


def _step(clock: Callable[[], float]) -> float:
    """Seconds from one reading of `clock` to the next that differs; the least of three."""
    steps = []
    for _ in range(3):
        begin = clock()
        while (now := clock()) == begin:
            pass
        steps.append(now - begin)
    return min(steps)


def _choose() -> Callable[[], float]:
    """The process's time, of all its threads, unless that ticks too coarsely.

    Windows counts it in steps of 15.6 ms, a thread's too; there the wall clock has to do.  Under a limit on
    it (`ulimit -t`) Linux counts it in steps of 4 ms, but the time of a thread as finely as ever.
    """
    if sys.platform == "win32":
        return time.perf_counter
    return time.process_time if _step(time.process_time) < FINE else time.thread_time


clock = _choose()
