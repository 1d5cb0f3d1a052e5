"""The clock that races are timed by: the first of three that ticks finely enough."""

from __future__ import annotations

import time
from collections.abc import Callable

FINE = 1e-5  # seconds; what is raced takes 3e-4 and more

# Processor time is not billed for what other processes do, and that of a process has all of its threads.
# But Linux counts it in steps of 4 ms where there is a limit on it (`ulimit -t`), a thread's as finely as
# ever; Windows counts both in steps of 15.6 ms, some sandboxes in steps of 10: there the wall clock must do.
CLOCKS: tuple[Callable[[], float], ...] = (time.process_time, time.thread_time, time.perf_counter)


def _step(clock: Callable[[], float]) -> float:
    """Seconds from one reading of `clock` to the next that differs; the least of three."""
    steps = []
    for _ in range(3):
        begin = clock()
        while (now := clock()) == begin:
            pass
        steps.append(now - begin)
    return min(steps)


clock = next((clock for clock in CLOCKS if _step(clock) < FINE), time.perf_counter)
