"""Measured figures as a picture: one row for each probe, time and memory over size, both axes by powers."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from dojo.measuring.comparing import Report


def save(report: Report, file: Path) -> None:
    """Write the picture; its format follows from the name (.png, .svg, .pdf).

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: matplotlib has no such format.
    """
    importlib.import_module("matplotlib").use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    shown = [c for c in report.comparisons if c.sizes]
    figure, axes = pyplot.subplots(len(shown), 2, figsize=(11, 3.6 * len(shown)), squeeze=False)
    for (left, right), comparison in zip(axes, shown, strict=True):
        for series in (s for s in comparison.series if s.sizes):
            _line(left, series.source, series.sizes, series.seconds, series.time_exponent)
            if series.peaks:
                peaks = [max(1, b) / 2**20 for b in series.peaks]
                _line(right, series.source, series.sizes, peaks, series.memory_exponent)
        left.set_ylabel("seconds")
        right.set_ylabel("MiB at the worst moment")
        for panel, order in ((left, comparison.time), (right, comparison.memory)):
            panel.set_title(comparison.name + (f" (expected n^{order:g})" if order is not None else ""))
            panel.set_xlabel("n")
            panel.set_xticks(comparison.sizes, [str(n) for n in comparison.sizes])
            panel.tick_params(axis="x", which="minor", labelbottom=False)
            panel.legend()
    figure.tight_layout()
    try:
        figure.savefig(file)
    finally:
        pyplot.close(figure)


def _line(panel: Any, source: str, sizes: Any, figures: Any, exponent: float | None) -> None:
    fitted = f", n^{exponent:.2f}" if exponent is not None else ""
    panel.loglog(sizes, figures, marker="o", label=source + fitted)
