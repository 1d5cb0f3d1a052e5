"""Points in the plane that no straight line separates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dojo.datasets.labels import balanced_labels

Points = NDArray[np.float32]
Labels = NDArray[np.int64]


def xor() -> tuple[Points, Labels]:
    """The four points (4, 2) of exclusive or, and which of them are 1."""
    points = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    return points, np.array([0, 1, 1, 0], np.int64)


def spirals(
    n: int, classes: int = 3, noise: float = 0.1, *, rng: np.random.Generator
) -> tuple[Points, Labels]:
    """`n` points (n, 2) within about the unit circle, on `classes` arms that wind around each other.

    Each arm turns by 4 radians on its way out.  `noise` is the standard deviation of its angle, in radians:
    at 0.1 three arms stay apart, at 0.4 they touch.
    """
    labels = balanced_labels(n, classes, rng)
    radius = rng.uniform(0.05, 1.0, n)
    angle = 2 * np.pi / classes * labels + 4 * radius + rng.normal(0, noise, n)
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return points.astype(np.float32), labels
