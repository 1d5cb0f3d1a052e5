"""A training as one HTML page that opens from disk: curves, confusion matrix, wrong answers.

Everything is in the file, images included; its policy forbids the browser to fetch anything.
"""

from __future__ import annotations

import base64
import html
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

WIDE, HIGH, LEFT, FOOT = 640, 220, 48, 24  # of a plot; and the room for its numbers

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .5rem; text-align: right; font-weight: normal; }
.counts td { min-width: 2.2rem; color: #111; }
.counts th { font-size: .85rem; }
.wrong { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; width: 8rem; font-size: .85rem; }
figure img { width: 8rem; height: 8rem; image-rendering: pixelated; display: block; }
svg { width: 100%; height: auto; max-width: 640px; }
svg text { font-size: 12px; fill: currentColor; }
svg path { fill: none; stroke: #2a78d6; stroke-width: 1.5; }
svg line { stroke: currentColor; stroke-opacity: .2; }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def page(
    title: str,
    facts: Mapping[str, str],
    curve: Sequence[float],
    history: Mapping[str, Sequence[float]],
    counts: Array,
    names: Sequence[str],
    wrong: Sequence[tuple[Array, str]],
) -> str:
    """The page.

    Args:
        facts: shown as a table of two columns.
        curve: the loss at each step.
        history: numbers of each epoch, by name.
        counts: the confusion matrix, a row for a label.
        wrong: images (3, H, W) in bytes that were taken for something else, and what is to be said of each.
    """
    parts = [
        table([[name, text] for name, text in facts.items()]),
        "<h2>Loss, step by step</h2>",
        plot(curve),
        "<h2>Epochs</h2>",
        table(
            [
                ["epoch", *history],
                *(
                    [str(epoch + 1), *(f"{numbers[epoch]:.4g}" for numbers in history.values())]
                    for epoch in range(min(map(len, history.values()), default=0))
                ),
            ]
        ),
        "<h2>What was taken for what</h2>",
        "<p>A row for each class, a column for each answer.</p>",
        confusion(counts, names),
        "<h2>Wrong answers</h2>",
        '<div class="wrong">',
        *(
            f'<figure><img alt="" src="{data_uri(image)}">'
            f"<figcaption>{html.escape(words)}</figcaption></figure>"
            for image, words in wrong
        ),
        "</div>",
    ]
    return PAGE.format(title=html.escape(title), style=STYLE, body="\n".join(parts))


def table(rows: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"

    return "<table>" + "".join(map(row, rows)) + "</table>"


def plot(values: Sequence[float]) -> str:
    """A line through the values, from 0 up."""
    array = np.asarray(values, float)
    shown = array[np.isfinite(array)]
    if not shown.size:
        return "<p>Nothing was recorded.</p>"
    top = float(shown.max()) or 1.0
    x = LEFT + (WIDE - LEFT) * np.arange(len(array)) / max(len(array) - 1, 1)
    y = (HIGH - FOOT) * (1 - array / top)
    points = [f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True) if np.isfinite(b)]
    lines = [
        f'<line x1="{LEFT}" x2="{WIDE}" y1="{at}" y2="{at}"/>'
        f'<text x="{LEFT - 6}" y="{min(at + 4, HIGH)}" text-anchor="end">{top * (1 - part):.2f}</text>'
        for part, at in ((part, (HIGH - FOOT) * part + 8 * (part == 0)) for part in (0, 0.5, 1))
    ]
    ends = (
        f'<text x="{LEFT}" y="{HIGH - 6}">1</text>'
        f'<text x="{WIDE}" y="{HIGH - 6}" text-anchor="end">step {len(array)}</text>'
    )
    return (
        f'<svg viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="loss">'
        f'{"".join(lines)}{ends}<path d="M{"L".join(points)}"/></svg>'
    )


def confusion(counts: Array, names: Sequence[str]) -> str:
    """Counts on a ground that is the darker, the larger their share of the row; right ones in green."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    rows = []
    for i, name in enumerate(names):
        cells = []
        for j in range(len(names)):
            colour = "60, 160, 90" if i == j else "220, 90, 60"
            strength = shares[i, j] ** (1 if i == j else 0.5)
            style = f"background: rgb({mixed(colour, float(strength))})"
            cells.append(f'<td style="{style}">{counts[i, j]}</td>')
        rows.append(f"<tr><th>{html.escape(name)}</th>{''.join(cells)}</tr>")
    return f'<table class="counts"><tr><th></th>{head}</tr>{"".join(rows)}</table>'


def mixed(colour: str, strength: float) -> str:
    """A colour on white."""
    return ", ".join(f"{255 - (255 - int(part)) * strength:.0f}" for part in colour.split(","))


def data_uri(image: Array) -> str:
    """An image (3, H, W) in bytes as the address of a PNG that is in the address itself."""
    pixels = np.moveaxis(image, 0, -1)
    high, wide, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # 0: this row is not filtered

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", wide, high, 8, 2, 0, 0, 0)  # 8 bits of each of red, green and blue
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
