"""Running code undisturbed: no garbage collection, nobody watching each line, and a clock that is exact."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

# sys.monitoring's numbers for kinds of tools (PEP 669), which is where Python >= 3.12 keeps some of them.
_MONITORS = {0: "a debugger", 2: "a profiler"}

# The timers on processor time; Windows has none.
_TIMERS = [getattr(signal, name) for name in ("ITIMER_PROF", "ITIMER_VIRTUAL") if hasattr(signal, name)]


@contextmanager
def undisturbed() -> Iterator[str]:
    """Switch off collection, line tracing and timers; give the reason why times mean nothing, or "".

    A tracer slows Python code many times and numpy not at all, so that a ratio of times taken under it is
    about the tracer.  Coverage and pdb (`sys.settrace`) are paused here and put back after; they see the
    calls made outside this block.  coverage's core on `sys.monitoring` needs no pause: it stops listening
    to a line once it has seen it.  Other debuggers and profilers cannot be paused from outside.

    A timer on processor time is paused too: while one runs, Linux counts that time in ticks of 4 ms.

    Raises:
        RuntimeError: tracemalloc is on, which slows every allocation.
    """
    if tracemalloc.is_tracing():
        raise RuntimeError(
            "cannot time anything while tracemalloc is tracing: a tracemalloc.start() was not followed by "
            "tracemalloc.stop() (put the stop in a `finally`), or python runs with -X tracemalloc"
        )
    collecting, tracer = gc.isenabled(), sys.gettrace()
    gc.collect()
    gc.disable()
    if tracer is not None:
        sys.settrace(None)
    timers = {kind: signal.setitimer(kind, 0) for kind in _TIMERS}
    try:
        yield _watcher()
    finally:
        for kind, (left, again) in timers.items():
            signal.setitimer(kind, left, again)
        if tracer is not None:
            sys.settrace(tracer)
        if collecting:
            gc.enable()


def not_judged(what: str, reason: str) -> NoReturn:
    """End a test without a verdict, since a time that means nothing can neither pass nor fail it.

    The test is skipped, and a skipped test never counts as passed.

    Raises:
        RuntimeError: outside of pytest.
    """
    message = f"{what}: speed was not judged, because {reason}"
    if "PYTEST_CURRENT_TEST" in os.environ:
        importlib.import_module("pytest").skip(message)
    raise RuntimeError(message)


def _watcher() -> str:
    if sys.getprofile() is not None:
        return "a profiler is running"
    monitoring = getattr(sys, "monitoring", None)
    for number, kind in _MONITORS.items():
        if monitoring is not None and monitoring.get_tool(number) is not None:
            return f"{kind} is attached ({monitoring.get_tool(number)})"
    return ""
