"""What a trusted grade asks of a kata: arrays in, arrays out.

A grader that is to be trusted runs a student's code in a worker, a process of its own that has neither the
tests nor the reference.  So `katas/NN_name/strict.py` states each check in three parts:

    draw_x(rng)                 in the grader: fresh arrays from a secret seed
    run_x(student, **arrays)    in the worker, beside the student's code: make what the code needs from the
                                arrays, call it, and give back one array
    expected_x(**arrays)        in the grader, when the reply has come: what it should have been, by plain
                                numpy and without the student's code

`student` is the kata's own module (`tinytorch.tensor` for kata 02); what it imports of earlier katas is the
student's too.  Only arrays of bool, int64, float32 and float64 travel.

    def draw_sums(rng):
        return {"x": rng.normal(size=(rng.integers(1, 9), 4))}

    def run_sums(student, x):
        return student.Tensor(x).sum(axis=0).data

    def expected_sums(x):
        return x.sum(axis=0)

    CHECKS = (Check("sum over rows", draw_sums, run_sums, expected_sums),)

The worker gets the imports at the top of the file and the functions called `run_...`, and no more: an
`expected_...` that lay beside the student's code could be found and called by it.  So a `run_...` uses no
other function of its file, and no constant.  It may import the standard library and numpy.
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
    one call of `run`, to stop what would never end; the teaching suite is what measures.
    """

    name: str
    draw: Callable[[np.random.Generator], dict[str, np.ndarray]]
    run: Callable[..., np.ndarray]
    expected: Callable[..., np.ndarray]
    seconds: float = 5.0
    megabytes: float = 256.0
    rtol: float = 1e-6
    atol: float = 1e-9
