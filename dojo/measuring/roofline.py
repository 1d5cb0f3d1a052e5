"""What this machine could do: the two limits that any kernel runs into.

A kernel that does F operations on B bytes takes at least F / peak seconds to compute and B / bandwidth to
fetch.  The larger of the two is its roof (Williams, Waterman and Patterson 2009, "Roofline").
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from dojo.curriculum import ROOT

CACHE = ROOT / ".dojo" / "roofline.json"
BEYOND_CACHE = 64 << 20  # bytes of each array of the copy: more than the last-level cache of most machines
SIDE = 768  # of the matrices: large enough that a BLAS reaches its peak, 0.9 GFLOP
PATIENCE = 0.15  # seconds for each of the four measurements, after the first two runs


@dataclass(frozen=True)
class Roofline:
    """Bytes a second that memory delivers, and floating-point operations a second, with one BLAS thread."""

    bandwidth: float
    float32: float
    float64: float

    def seconds(self, flops: float | None, moved: float | None, dtype: str) -> tuple[float, str]:
        """The least time for `flops` operations and `moved` bytes; and its reason, "compute" or "memory"."""
        computing = (flops or 0.0) / (self.float64 if dtype == "float64" else self.float32)
        fetching = (moved or 0.0) / self.bandwidth
        return max((computing, "compute"), (fetching, "memory"))

    def ridge(self, dtype: str) -> float:
        """Operations per byte from which on memory is no longer what limits."""
        return (self.float64 if dtype == "float64" else self.float32) / self.bandwidth


def measure_roofline(cache: Path | None = CACHE) -> Roofline:
    """This machine's roofline, from `cache` if it was measured there with the same numpy; takes under 2 s.

    Set OPENBLAS_NUM_THREADS=1 (and OMP, MKL) before numpy is imported, as the tests do.
    """
    key = _key()
    if known := _read(cache).get(key):
        return known
    found = Roofline(_bandwidth(), _peak("float32"), _peak("float64"))
    if cache is not None:
        _write(cache, {**_read(cache), key: found})
    return found


def _bandwidth() -> float:
    """By the better of a copy (one array read, one written) and a triad a = b + s*c, in two passes (five)."""
    import numpy as np

    a, b = np.ones(BEYOND_CACHE // 8), np.ones(BEYOND_CACHE // 8)
    copied = 2 * a.nbytes / _least(lambda: np.copyto(a, b))

    def triad() -> None:
        np.multiply(b, 3.0, out=a)
        np.add(a, b, out=a)

    return max(copied, 5 * a.nbytes / _least(triad))


def _peak(dtype: str) -> float:
    import numpy as np

    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(SIDE, SIDE)).astype(dtype) for _ in range(2))
    out = np.empty_like(a)
    return 2.0 * SIDE**3 / _least(lambda: np.matmul(a, b, out=out))


def _least(work: Callable[[], object]) -> float:
    """Seconds of CPU time of the fastest of several runs."""
    from dojo.measuring.clocks import clock

    work()
    begin, best = clock(), float("inf")
    while True:
        start = clock()
        work()
        now = clock()
        best = min(best, now - start)
        if now - begin > PATIENCE:
            return best


def _key() -> str:
    import numpy as np

    threads = os.environ.get("OPENBLAS_NUM_THREADS", "all")
    machine = f"{platform.system()} {platform.machine()} {platform.processor()}, {os.cpu_count()} cores"
    return f"numpy {np.__version__}, {machine}, {threads} BLAS threads"


def _read(cache: Path | None) -> dict[str, Roofline]:
    """What the cache holds; nothing if there is none, or if it cannot be understood."""
    try:
        stored = json.loads(cache.read_text("utf-8")) if cache else {}
        return {key: Roofline(**{k: float(v) for k, v in figures.items()}) for key, figures in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(cache: Path, rooflines: dict[str, Roofline]) -> None:
    """Replace the cache in one step; a folder that cannot be written costs a second next time, no more."""
    temporary = cache.with_suffix(f".{os.getpid()}.tmp")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({key: asdict(roofline) for key, roofline in rooflines.items()}, indent=1)
        temporary.write_text(text + "\n", "utf-8")
        temporary.replace(cache)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
