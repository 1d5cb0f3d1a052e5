"""Bytes, counted exactly: numpy and Python both report every allocation to tracemalloc.

A repeat gives the same figure to the byte, on a busy machine as on a quiet one, which process size never
does.  Still, do not budget `linalg` or the matmul of non-contiguous arrays closely: numpy's versions differ
in the copies they make.  Arrays of 1 to 2 MiB drown what Python itself allocates.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class MeterError(RuntimeError):
    """The code under measurement switched the meter off, so that there is no figure to report."""


def peak_bytes(function: Callable[[], object]) -> int:
    """Bytes that `function()` holds at its worst moment, its result included, above what was held before.

    `function` is called twice: once to warm up, so that caches and imports are not billed, and once measured.
    """
    function()
    with _measuring() as meter:
        result = function()
        peak = meter.peak
        del result
    return peak


def kept_bytes(function: Callable[[], object]) -> int:
    """Bytes that are alive while the result of `function()` is held, the result included.

    For what a forward pass keeps for its backward, subtract the bytes of the output itself.
    """
    function()
    with _measuring() as meter:
        result = function()
        gc.collect()
        kept = meter.held
        del result
    return kept


def retained_bytes(function: Callable[[], object]) -> int:
    """Bytes that stay alive after the result of `function()` is dropped and the garbage is collected."""
    function()
    with _measuring() as meter:
        function()
        gc.collect()
        return meter.held


class _Reading:
    """What was allocated since some moment.  Several can be open at once, one inside the other."""

    def __init__(self, held: int, worst: int) -> None:
        self.base = held
        self.worst = worst


class _Meter:
    """A reading of our own, and a second one that answers the measured code's calls of tracemalloc.

    Students write memory meters too.  While ours is running, `tracemalloc.start`, `stop`, `reset_peak` and
    their kin act on a reading that belongs to the measured code: it sees the figures that it would see alone,
    and ours go on.
    """

    def __init__(self) -> None:
        self.real = {name: getattr(tracemalloc, name) for name in _STAND_INS}
        self.outer = tracemalloc.is_tracing()
        if not self.outer:
            tracemalloc.start(1)
        # If this object's trace is gone at the end, so are others: somebody stopped the real tracemalloc.
        self.witness = bytearray(64)
        self.theirs = _Reading(0, self._now()[1]) if self.outer else None
        self.ours = _Reading(0, 0)

    def begin(self) -> None:
        for name, stand_in in _STAND_INS.items():
            setattr(tracemalloc, name, stand_in.__get__(self))
        self._fold()
        self.ours.base = self.ours.worst = self._now()[0]

    def end(self) -> None:
        for name, real in self.real.items():
            setattr(tracemalloc, name, real)
        if not self.outer or self.theirs is None:
            tracemalloc.stop()
        elif self.theirs.worst > self._now()[1]:
            # Whoever was tracing before us finds the peak as it was (zeroed bytes are reserved, not filled).
            bytes(max(0, self.theirs.worst - self._now()[0]))

    @property
    def held(self) -> int:
        self._alive()
        return self._now()[0] - self.ours.base

    @property
    def peak(self) -> int:
        self._alive()
        self._fold()
        return self.ours.worst - self.ours.base

    def _alive(self) -> None:
        if not self.real["is_tracing"]() or tracemalloc.get_object_traceback(self.witness) is None:
            raise MeterError(
                "the measured code stopped tracemalloc, or cleared its traces, while its memory was being "
                "measured. Call it through the module, as tracemalloc.stop(), which a meter around it can "
                "see; a name taken by `from tracemalloc import stop` goes behind its back"
            )

    def _now(self) -> tuple[int, int]:
        held, peak = self.real["get_traced_memory"]()
        return held, peak

    def _fold(self) -> None:
        """Note the worst moment so far in every open reading, and start looking for the next."""
        peak = self._now()[1]
        for reading in (self.ours, self.theirs):
            if reading is not None:
                reading.worst = max(reading.worst, peak)
        self.real["reset_peak"]()

    def start(self, nframe: int = 1) -> None:
        if self.theirs is None:
            self._fold()
            held = self._now()[0]
            self.theirs = _Reading(held, held)

    def stop(self) -> None:
        self.theirs = None

    def is_tracing(self) -> bool:
        return self.theirs is not None

    def get_traced_memory(self) -> tuple[int, int]:
        if self.theirs is None:
            return 0, 0
        self._fold()
        # Alone, tracemalloc would not have seen what was freed of before its start: hence no less than 0.
        return max(0, self._now()[0] - self.theirs.base), max(0, self.theirs.worst - self.theirs.base)

    def reset_peak(self) -> None:
        if self.theirs is not None:
            self._fold()
            self.theirs.worst = self._now()[0]

    def clear_traces(self) -> None:
        if self.theirs is not None:
            self.reset_peak()
            self.theirs.base = self.theirs.worst


_STAND_INS: dict[str, Any] = {
    name: getattr(_Meter, name)
    for name in ("start", "stop", "is_tracing", "get_traced_memory", "reset_peak", "clear_traces")
}


@contextmanager
def _measuring() -> Iterator[_Meter]:
    """A meter that is running: garbage collected before, none collected during."""
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()
    meter = _Meter()
    try:
        meter.begin()
        yield meter
    finally:
        meter.end()
        if collecting:
            gc.enable()
