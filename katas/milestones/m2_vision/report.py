"""A training of milestone 2 as one HTML page: curves, confusion matrix, wrong answers."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dojo import pages

Array = np.ndarray[Any, Any]

STYLE = """
.counts td { min-width: 2.2rem; color: #111; }
.counts th { font-size: .85rem; }
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
        pages.facts(facts),
        "<h2>Loss, step by step</h2>",
        pages.plot(curve),
        "<h2>Epochs</h2>",
        pages.epochs(history),
        "<h2>What was taken for what</h2>",
        "<p>A row for each class, a column for each answer.</p>",
        confusion(counts, names),
        "<h2>Wrong answers</h2>",
        pages.pictures(wrong),
    ]
    return pages.page(title, parts, STYLE)


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
            style = f"color: black; background: rgb({mixed(colour, float(strength))})"
            cells.append(f'<td style="{style}">{counts[i, j]}</td>')
        rows.append(f"<tr><th>{html.escape(name)}</th>{''.join(cells)}</tr>")
    return f'<table class="counts"><tr><th></th>{head}</tr>{"".join(rows)}</table>'


def mixed(colour: str, strength: float) -> str:
    """A colour on white."""
    return ", ".join(f"{255 - (255 - int(part)) * strength:.0f}" for part in colour.split(","))
