"""A training of milestone 3 as one HTML page: curve, texts, attention."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dojo import pages

Array = np.ndarray[Any, Any]


def page(
    title: str,
    facts: Mapping[str, str],
    curve: Sequence[float],
    history: Mapping[str, Sequence[float]],
    texts: Mapping[str, str],
    maps: Sequence[tuple[Array, str]],
) -> str:
    """The page.

    Args:
        facts: shown as a table of two columns.
        curve: the loss at each step.
        history: numbers of each epoch, by name.
        texts: what the model wrote, by the manner in which it did.
        maps: attention (T, T), each row of which has the sum 1, and what is to be said of it.
    """
    parts = [
        pages.facts(facts),
        "<h2>Loss, step by step</h2>",
        pages.plot(curve),
        "<h2>Epochs</h2>",
        pages.epochs(history),
        "<h2>What it writes</h2>",
        *(f"<h3>{html.escape(name)}</h3><pre>{html.escape(text)}</pre>" for name, text in texts.items()),
        "<h2>What each token heeds</h2>",
        "<p>A row for a token, a column for each one that it can see; the darker, the more.</p>",
        pages.pictures([(ink(weights), words) for weights, words in maps]),
    ]
    return pages.page(title, parts)


def ink(weights: Array) -> Array:
    """Weights from 0 to 1 as an image (3, T, T), from white to blue."""
    strength = np.sqrt(np.clip(weights, 0, 1))[None]
    blue = np.array([42, 120, 214])[:, None, None]
    image: Array = np.round(255 - (255 - blue) * strength).astype(np.uint8)
    return image
