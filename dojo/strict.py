"""What a trusted grade asks of a kata: arrays in, arrays out.

A grader that is to be trusted runs a student's code in a process of its own, which knows neither the tests nor
the reference.  So `katas/NN_name/strict.py` states each check in three parts:

    draw(rng)              in the grader: fresh arrays from a secret seed
    run(student, **arrays) in the worker, beside the student's code: build what the code needs from the arrays,
                           call it, and give back one array
    expected(**arrays)     in the grader, after the reply has come: what it should be, by plain numpy and
                           without the student's code

`student` is the kata's own module (`tinytorch.tensor` for kata 02), with everything that it imports.  Only
arrays of bool, int64, float32 and float64 travel, so `draw` gives such arrays, and `run` gives one.

    def draw_sums(rng):
        return {"x": rng.normal(size=(rng.integers(1, 9), 4))}

    def run_sums(tensor, x):
        return tensor.Tensor(x).sum(axis=0).data

    CHECKS = (Check("sum over rows", draw_sums, run_sums, lambda x: x.sum(axis=0)),)

A strict.py imports nothing but the standard library, numpy and this module: it is read on both sides, and the
worker has no reference to look at.  Its functions keep no state; each call of `draw` is a new problem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Check:
    """One question of a trusted grade.

    The reply must have the shape and dtype of what `expected` gives, and be within `atol + rtol * |expected|`
    of it; nan equals nan, and ints and bools must be equal.  `seconds` and `megabytes` are generous limits on
    one call of `run`, for stopping what would never end: what the teaching suite measures, it measures better.
    """

    name: str
    draw: Callable[[np.random.Generator], dict[str, np.ndarray]]
    run: Callable[..., np.ndarray]
    expected: Callable[..., np.ndarray]
    seconds: float = 5.0
    megabytes: float = 256.0
    rtol: float = 1e-6
    atol: float = 1e-9
