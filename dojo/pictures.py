"""Pictures in a terminal: images as half blocks, curves as sparklines; plain characters without colour.

A picture is a list of lines (rich `Text`), so that several can stand side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.color import Color
from rich.style import Style
from rich.text import Text

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Picture = list[Text]

UPPER_HALF = "▀"  # its colour is the upper pixel's, its background the lower one's
SHADES = " .:-=+*#%@"
BARS = "▁▂▃▄▅▆▇█"
PLAIN_BARS = "_.-=+*#@"
GAP = 2  # columns between two pictures


def image(pixels: ArrayLike, *, plain: bool = False) -> Picture:
    """Two rows of pixels a line, for characters are about twice as high as wide.

    Args:
        pixels: (height, width) or (height, width, 3): bytes, or floats that are cut to 0..1.
        plain: shades of grey by ASCII characters, bright pixels by dense ones.
    """
    rows = _bytes(pixels)
    if rows.ndim not in (2, 3) or rows.shape[2:] not in ((), (3,)):
        raise ValueError(f"an image is (height, width) or (height, width, 3), not {rows.shape}")
    if len(rows) % 2:
        rows = np.concatenate([rows, np.zeros_like(rows[:1])])
    if plain:
        grey = rows.mean(axis=2) if rows.ndim == 3 else rows.astype(float)
        level = (grey[0::2] + grey[1::2]) / 2 / 256 * len(SHADES)
        return [Text("".join(SHADES[int(v)] for v in line)) for line in level]
    colours = rows if rows.ndim == 3 else np.repeat(rows[:, :, None], 3, axis=2)
    return [_blocks(upper, lower) for upper, lower in zip(colours[0::2], colours[1::2], strict=True)]


def heat_map(values: ArrayLike, *, plain: bool = False) -> Picture:
    """A matrix as an image, from its smallest value (dark) to its largest (bright); nan is dark."""
    array = np.asarray(values, dtype=float)
    finite = array[np.isfinite(array)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    span = high - low or 1.0
    return image(np.nan_to_num((array - low) / span, posinf=1.0, neginf=0.0), plain=plain)


def confusion(counts: ArrayLike, names: Sequence[str], *, plain: bool = False) -> Picture:
    """A confusion matrix: a row for each class, with how often it was taken for each.

    Columns have their row's number for a name. On colours, green is right and red is wrong, the brighter, the
    larger its share of the row.
    """
    matrix = np.asarray(counts)
    longest = max(map(len, names), default=0)
    number = len(str(len(names) - 1))
    cell = max(len(str(matrix.max(initial=0))), number) + 1
    indent = number + 1 + longest
    lines = [Text(" " * indent + "".join(f"{j:>{cell}}" for j in range(len(names))))]
    for i, row in enumerate(matrix.tolist()):
        line = Text(f"{i:>{number}} {names[i]:{longest}}")
        for j, count in enumerate(row):
            share = count / max(sum(row), 1)
            colour = (
                Color.from_rgb(0, 40 + 120 * share, 0) if i == j else Color.from_rgb(220 * share**0.5, 0, 0)
            )
            line.append(
                f"{count:>{cell}}", None if plain or not count else Style(bgcolor=colour, color="white")
            )
        lines.append(line)
    return lines


def sparkline(values: Sequence[float], width: int = 40, *, plain: bool = False) -> str:
    """A curve as a line of bars, lowest to highest; of more than `width` values, means of neighbours."""
    array = np.asarray(values, dtype=float)
    if array.size > width:
        array = np.array([part.mean() for part in np.array_split(array, width)])
    finite = array[np.isfinite(array)]
    if not finite.size:
        return "?" * array.size
    low, high = finite.min(), finite.max()
    bars = PLAIN_BARS if plain else BARS
    top = len(bars) - 1

    def bar(value: float) -> str:
        if not math.isfinite(value):
            return "?"
        return bars[round((value - low) / (high - low) * top) if high > low else top // 2]

    return "".join(map(bar, array))


def gallery(pictures: Sequence[Picture], captions: Sequence[str | Text] = (), *, width: int = 80) -> Picture:
    """Pictures side by side, as many as fit into `width` columns, each with its caption below."""
    words = [Text.assemble(caption) for caption in captions] or [Text()] * len(pictures)
    blocks = [
        [*picture, caption] if caption else picture for picture, caption in zip(pictures, words, strict=True)
    ]
    lines: Picture = []
    row: list[Picture] = []
    used = 0
    for block in blocks:
        wide = _width(block) + GAP
        if row and used + wide - GAP > width:
            lines += [*_beside(row), Text()]
            row, used = [], 0
        row.append(block)
        used += wide
    return lines + _beside(row) if row else lines


def _beside(blocks: Sequence[Picture]) -> Picture:
    lines = []
    for at in range(max(map(len, blocks))):
        line = Text()
        for block in blocks:
            part = block[at] if at < len(block) else Text()
            line.append_text(part)
            line.append(" " * (_width(block) + GAP - part.cell_len))
        line.rstrip()
        lines.append(line)
    return lines


def _width(block: Picture) -> int:
    return max((line.cell_len for line in block), default=0)


def _blocks(upper: np.ndarray[Any, Any], lower: np.ndarray[Any, Any]) -> Text:
    line = Text()
    for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
        line.append(UPPER_HALF, Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
    return line


def _bytes(pixels: ArrayLike) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = np.asarray(pixels)
    if array.dtype == np.uint8:
        return array
    scaled: np.ndarray[Any, Any] = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    return scaled
