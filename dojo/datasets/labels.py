"""Labels for a set that is made by code."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def balanced_labels(n: int, classes: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`n` labels in random order, of which each class has the same number, or one more."""
    return rng.permutation(np.arange(n, dtype=np.int64) % classes)
