"""Reports as one HTML page that opens from disk: tables, curves and pictures.

Everything is in the file, images included; its policy forbids the browser to fetch anything.
"""

from __future__ import annotations

import base64
import html
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

WIDE, HIGH, LEFT, FOOT = 640, 220, 48, 24  # of a plot; and the room for its numbers

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .5rem; text-align: right; font-weight: normal; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; width: 8rem; font-size: .85rem; }
figure img { width: 8rem; height: 8rem; image-rendering: pixelated; display: block; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
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


def page(title: str, parts: Iterable[str], style: str = "") -> str:
    """A page of parts in HTML, one below the other; `style` are rules of CSS that only this page needs."""
    return PAGE.format(title=html.escape(title), style=STYLE + style, body="\n".join(parts))


def facts(numbers: Mapping[str, str]) -> str:
    """A table of two columns."""
    return table([[name, text] for name, text in numbers.items()])


def epochs(history: Mapping[str, Sequence[float]]) -> str:
    """A table of a training's history: a row for each epoch."""
    count = min(map(len, history.values()), default=0)
    rows = [[str(i + 1), *(f"{numbers[i]:.4g}" for numbers in history.values())] for i in range(count)]
    return table([["epoch", *history], *rows])


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


def pictures(images: Iterable[tuple[Array, str]]) -> str:
    """Images (3, H, W) in bytes side by side, each with its words below."""
    figures = (
        f'<figure><img alt="" src="{data_uri(image)}"><figcaption>{html.escape(words)}</figcaption></figure>'
        for image, words in images
    )
    return f'<div class="pictures">{"".join(figures)}</div>'


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
