"""The figures of `dojo measure`: a kata's probes on your code, on the reference and on PyTorch.

Each source runs in a process of its own, one after the other, since a process has one `tinytorch` only.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dojo import compose
from dojo.console import children
from dojo.curriculum import Kata
from dojo.measuring.growth import exponent
from dojo.measuring.roofline import Roofline
from dojo.threads import ONE_THREAD

YOURS, REFERENCE, TORCH = "yours", "reference", "PyTorch"
LIMIT = 300.0  # seconds for all probes of one source


@dataclass(frozen=True)
class Series:
    """One probe on one source.  `trouble` says why there are no figures, or fewer than there are sizes."""

    source: str
    sizes: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()
    peaks: tuple[int, ...] = ()  # bytes; empty where they cannot be counted
    trouble: str | None = None

    @property
    def time_exponent(self) -> float | None:
        return exponent(self.sizes, self.seconds) if len(self.sizes) > 1 else None

    @property
    def memory_exponent(self) -> float | None:
        return exponent(self.sizes, [max(1, b) for b in self.peaks]) if len(self.peaks) > 1 else None


@dataclass(frozen=True)
class Comparison:
    """One probe on every source.  `time` and `memory` are the exponents that the kata expects."""

    name: str
    sizes: tuple[int, ...]
    time: float | None
    memory: float | None
    flops: tuple[float, ...] | None
    moved: tuple[float, ...] | None
    dtype: str
    series: tuple[Series, ...]

    def by(self, source: str) -> Series:
        return next((s for s in self.series if s.source == source), Series(source, trouble="not measured"))


@dataclass(frozen=True)
class Report:
    """All that was measured for a kata."""

    kata: str
    roofline: Roofline | None
    comparisons: tuple[Comparison, ...]
    troubles: dict[str, str] = field(default_factory=dict)  # source: why none of its probes could run

    def as_data(self) -> dict[str, Any]:
        """For JSON: the fields, and the fitted exponents with every series."""
        data = asdict(self)
        for comparison, entry in zip(self.comparisons, data["comparisons"], strict=True):
            for series, figures in zip(comparison.series, entry["series"], strict=True):
                figures.update(time_exponent=series.time_exponent, memory_exponent=series.memory_exponent)
        return data


def compare(
    kata: Kata, impl: str, tell: Callable[[str], object] = lambda source: None, torch: bool = True
) -> Report:
    """Measure `kata`'s probes on `impl` (a composition, as in TINYTORCH_IMPL), the reference and PyTorch.

    PyTorch takes part if it is installed and `torch` is true, in the probes that name a counterpart.  `tell`
    hears of each source as its turn comes.
    """
    runs = {}
    for source, composition in _sources(impl):
        if source == TORCH and not torch:
            continue
        tell(source)
        runs[source] = _run(kata, source, composition)
    lines = {source: [line for line in got if "probe" in line] for source, got in runs.items()}
    troubles = {
        source: line["trouble"] for source, got in runs.items() for line in got if set(line) == {"trouble"}
    }
    found = next((line["roofline"] for got in runs.values() for line in got if "roofline" in line), None)
    names = dict.fromkeys(line["probe"] for got in lines.values() for line in got)
    return Report(
        str(kata),
        Roofline(**found) if found else None,
        tuple(_comparison(name, lines) for name in names),
        troubles,
    )


def _sources(impl: str) -> Iterator[tuple[str, str]]:
    yield YOURS, impl
    yield REFERENCE, "reference"
    if importlib.util.find_spec("torch"):
        yield TORCH, "reference"


def _run(kata: Kata, source: str, composition: str) -> list[dict[str, Any]]:
    """The lines that a worker wrote, and one for its trouble if it came to a bad end."""
    environment = {**os.environ, **ONE_THREAD, compose.VARIABLE: composition}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.jsonl"
        args = ["-m", "dojo.measuring.worker", kata.number, str(file)]
        status, output = children.run(args + ["--torch"] * (source == TORCH), LIMIT, env=environment)
        lines = _read(file)
    if status is None:
        lines.append({"trouble": f"stopped after {LIMIT:.0f} seconds"})
    elif status:
        last = output.strip().splitlines()[-1:] or [f"exit status {status}"]
        lines.append({"trouble": f"the measuring process ended early: {last[0]}"})
    return lines


def _read(file: Path) -> list[dict[str, Any]]:
    """Every whole line; a worker that was ended may have left half of one."""
    text = file.read_text("utf-8") if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _comparison(name: str, lines: dict[str, list[dict[str, Any]]]) -> Comparison:
    found = {source: line for source, got in lines.items() for line in got if line["probe"] == name}
    best = max(found.values(), key=lambda line: len(line.get("sizes") or ()))
    sizes = tuple(best.get("sizes") or ())

    def series(source: str, line: dict[str, Any]) -> Series:
        measured = tuple(line.get("sizes") or ())
        trouble = line["trouble"]
        if measured and len(measured) < len(sizes):
            trouble = f"stopped at n = {measured[-1]}, which took {line['seconds'][-1]:.1f} s a call"
        return Series(
            source, measured, tuple(line.get("seconds") or ()), tuple(line.get("peaks") or ()), trouble
        )

    return Comparison(
        name,
        sizes,
        best["time"],
        best["memory"],
        tuple(best["flops"]) if best["flops"] else None,
        tuple(best["moved"]) if best["moved"] else None,
        best.get("dtype", "float64"),
        tuple(series(source, line) for source, line in found.items()),
    )
