"""What `dojo measure` found, kept for the report, and drawn: time and memory over size, axes by powers."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from typing import Any

from dojo.curriculum import ROOT, Kata

FOLDER = ROOT / ".dojo" / "measured"

WIDE, HIGH, LEFT, FOOT, RIGHT, TOP = 420, 240, 64, 34, 24, 12
COLOURS = {"yours": "#2a78d6", "reference": "#d2691e", "PyTorch": "#2e8b57"}


def keep(kata: Kata, data: dict[str, Any]) -> None:
    """Keep the figures of a `dojo measure` for the next report."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{kata.number}.json").write_text(json.dumps(data), encoding="utf-8")


def kept(kata: Kata) -> list[dict[str, Any]]:
    """The comparisons that were kept for a kata; none where there are none, or they cannot be read."""
    try:
        data = json.loads((FOLDER / f"{kata.number}.json").read_text("utf-8"))
        return [entry for entry in data["comparisons"] if any(len(s["sizes"]) > 1 for s in entry["series"])]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []


def panels(comparison: dict[str, Any]) -> str:
    """Two plots of a probe, side by side: time, and memory where it was counted."""
    series = [s for s in comparison["series"] if len(s["sizes"]) > 1]
    time = plot(
        [(s["source"], s["sizes"], s["seconds"], s["time_exponent"]) for s in series],
        "seconds",
        comparison["time"],
    )
    memory = plot(
        [(s["source"], s["sizes"], s["peaks"], s["memory_exponent"]) for s in series if s["peaks"]],
        "bytes at the worst moment",
        comparison["memory"],
    )
    return f'<h3>{html.escape(comparison["name"])}</h3><div class="panels">{time}{memory}</div>'


def plot(
    lines: Sequence[tuple[str, Sequence[float], Sequence[float], float | None]],
    unit: str,
    expected: float | None,
) -> str:
    """Lines (source, sizes, figures, exponent) on axes by powers; nothing where there is no line."""
    if not lines:
        return ""
    every_x = [math.log(n) for _, sizes, _, _ in lines for n in sizes]
    every_y = [math.log(max(y, 1e-12)) for _, _, figures, _ in lines for y in figures]
    left, right, low, high = min(every_x), max(every_x), min(every_y), max(every_y)
    across, up = (WIDE - LEFT - RIGHT) / ((right - left) or 1), (HIGH - TOP - FOOT) / ((high - low) or 1)

    def at(n: float, y: float) -> tuple[float, float]:
        return LEFT + (math.log(n) - left) * across, HIGH - FOOT - (math.log(max(y, 1e-12)) - low) * up

    drawn = []
    for source, sizes, figures, _ in reversed(lines):  # the first, which is yours, on top
        points = [at(n, y) for n, y in zip(sizes, figures, strict=False)]
        colour = COLOURS.get(source, "currentColor")
        path = "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
        drawn.append(f'<path style="stroke: {colour}" d="M{path}"/>')
        drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    ticks = [
        f'<text x="{at(n, math.exp(low))[0]:.1f}" y="{HIGH - FOOT + 16}" text-anchor="middle">{n:g}</text>'
        for n in sorted({n for _, sizes, _, _ in lines for n in sizes})
    ]
    ends = [
        f'<text x="{LEFT - 6}" y="{at(math.exp(left), math.exp(y))[1] + 4:.1f}" text-anchor="end">'
        f"{in_short(math.exp(y), unit)}</text>"
        for y in sorted({low, high})
    ]
    frame = f'<line x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{HIGH - FOOT}"/>' + (
        f'<line x1="{LEFT}" x2="{WIDE - RIGHT}" y1="{HIGH - FOOT}" y2="{HIGH - FOOT}"/>'
    )
    legend = "; ".join(
        f'<span style="color: {COLOURS.get(source, "inherit")}">{html.escape(source)}</span>'
        + (f" n<sup>{exponent:.2f}</sup>" if exponent is not None else "")
        for source, _, _, exponent in lines
    )
    order = f", expected n<sup>{expected:g}</sup>" if expected is not None else ""
    return (
        f'<figure class="panel"><svg viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{unit} over size">'
        f"{frame}{''.join(ticks)}{''.join(ends)}{''.join(drawn)}</svg>"
        f"<figcaption>{unit}{order}: {legend}</figcaption></figure>"
    )


def in_short(value: float, unit: str) -> str:
    """`1.3 ms`, `2.0 MiB`: as short as the edge of a plot needs it."""
    from dojo.measuring import tables

    return tables.seconds(value) if unit == "seconds" else tables.size(round(value))
