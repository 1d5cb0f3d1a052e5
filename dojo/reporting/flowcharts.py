"""Graphs in Mermaid, as kata 06's `graph_mermaid` writes them, drawn as SVG, which every browser shows."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

BOX = re.compile(r'^\s*n(\d+)(\[|\(\[)"(.*)"')
ARROW = re.compile(r"^\s*n(\d+) --> n(\d+)\s*$")
HIGH, WIDE, ACROSS, DOWN = 28, 150, 20, 34  # of a box; and the room between boxes


def drawn(mermaid: str) -> str:
    """The graph, from top to bottom; each box in the row after the last of those it is made from.

    Lines that are neither a box nor an arrow between two boxes are passed over.
    """
    boxes = {int(m[1]): (m[3], m[2] == "([") for line in mermaid.splitlines() if (m := BOX.match(line))}
    arrows = [(int(m[1]), int(m[2])) for line in mermaid.splitlines() if (m := ARROW.match(line))]
    arrows = [(a, b) for a, b in arrows if a in boxes and b in boxes]
    rows = rows_of(boxes, arrows)
    if not rows:
        return "<p>The graph is empty.</p>"
    width = max(map(len, rows)) * (WIDE + ACROSS)
    height = len(rows) * (HIGH + DOWN) - DOWN
    centre = {
        box: ((i + 0.5) * width / len(row), r * (HIGH + DOWN) + HIGH / 2)
        for r, row in enumerate(rows)
        for i, box in enumerate(row)
    }
    lines = [use(centre[a], centre[b]) for a, b in arrows]
    shapes = [
        f'<rect x="{x - WIDE / 2:.0f}" y="{y - HIGH / 2:.0f}" width="{WIDE}" height="{HIGH}" '
        f'rx="{HIGH / 2 if boxes[box][1] else 3:.0f}"/>'
        f'<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle">{html.escape(boxes[box][0])}</text>'
        for box, (x, y) in centre.items()
    ]
    return (
        f'<svg class="graph" viewBox="-2 -2 {width + 4} {height + 4}" role="img" aria-label="graph" '
        f'style="max-width: {width}px">{"".join(lines)}{"".join(shapes)}</svg>'
    )


def use(source: tuple[float, float], user: tuple[float, float]) -> str:
    """The line of an arrow from one centre to the other; it bends around the boxes of rows in between."""
    (x, y), (x2, y2) = source, user
    bend = 0 if y2 - y < 2 * (HIGH + DOWN) else WIDE
    middle = f"{(x + x2) / 2 + bend:.0f},{(y + y2) / 2:.0f}"
    return f'<path d="M{x:.0f},{y + HIGH / 2:.0f}Q{middle} {x2:.0f},{y2 - HIGH / 2:.0f}"/>'


def rows_of(boxes: Iterable[int], arrows: list[tuple[int, int]]) -> list[list[int]]:
    """The boxes by rows. Arrows lead down; leaves stand just above the first of their users."""
    depth = dict.fromkeys(sorted(boxes), 0)
    for _ in depth:  # as often as the longest way is long, at most; a circle has no end
        for a, b in arrows:
            depth[b] = max(depth[b], min(depth[a] + 1, len(depth) - 1))
    made = {b for _, b in arrows}
    for leaf in depth.keys() - made:
        depth[leaf] = min((depth[b] - 1 for a, b in arrows if a == leaf), default=0)
    rows: list[list[int]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for box, row in depth.items():
        rows[row].append(box)
    return [row for row in rows if row]
