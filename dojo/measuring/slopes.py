"""Slopes of a black box by central differences, and a fair judgement of a gradient that claims them.

A wrong step, a kink or rounding can make a right gradient look wrong, so a disagreement has to survive three
steps, a floor for the rounding noise, and at a kink both one-sided slopes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Move = list[Array | None]  # how far each input goes; None stays where it is
Place = tuple[int, int]  # which input, and which element of it, counted in C order

EPS = 2.0**-52
STEP = 2.0**-17  # about the cube root of EPS, where truncation and rounding of a central difference balance
STEPS = (STEP, STEP / 8, STEP / 64)
RTOL = 1e-6  # for the first step; three times as much for the others
SMALL = 1e-2  # an element below 1 % of the largest gradient is judged against that
DIRECTIONS = 3
ALL_UP_TO = 256  # elements: every one is checked up to here
LARGEST, SAMPLE = 16, 64  # elements of a larger gradient


@dataclass(frozen=True)
class Judgement:
    """What came of comparing a claimed slope with the measured one."""

    kind: Literal["right", "kink", "wrong"]
    claimed: float
    measured: float
    smooth: bool = False  # wrong, and by far, where the function is certainly smooth


@dataclass(frozen=True)
class Fault:
    """A wrong element of a gradient; or, with no `place`, a wrong sum over elements that are tied."""

    place: Place | None
    claimed: float
    measured: float


class Slopes:
    """Directional derivatives of sum(cotangent * function(inputs)), against a claimed gradient.

    `inputs`, `gradients` and the cotangent are float64; `gradients` has one array per input.
    """

    def __init__(
        self,
        function: Callable[[list[Array]], Array],
        inputs: Sequence[Array],
        gradients: Sequence[Array],
        cotangent: Array,
    ) -> None:
        self.function, self.inputs, self.gradients = function, list(inputs), list(gradients)
        self.weights = cotangent.ravel()
        self.at_rest = self._outputs(None, 0.0)
        self.magnitude = float(np.abs(self.weights) @ np.abs(self.at_rest))

    def judge(self, move: Move, scale: float) -> Judgement:
        """Compare the claimed and the measured slope along `move`, where gradients are of size `scale`."""
        pairs = [(g, u) for g, u in zip(self.gradients, move, strict=True) if u is not None]
        claimed = float(sum(np.vdot(gradient, along) for gradient, along in pairs))
        for step in STEPS:
            ahead, behind = self._outputs(move, step), self._outputs(move, -step)
            measured = float(self.weights @ (ahead - behind)) / (2 * step)
            size = max(abs(measured), abs(claimed), SMALL * scale, 1e-300)
            noise = 4 * EPS * self.magnitude / step
            first = step == STEP
            slack = RTOL * size + noise if first else 3 * RTOL * size + min(noise, 1e-3 * size)
            if abs(measured - claimed) <= slack:
                return Judgement("right", claimed, measured)
        after = float(self.weights @ (ahead - self.at_rest)) / step
        before = float(self.weights @ (self.at_rest - behind)) / step
        bend = abs(after - before)
        if bend > 1e-2 * size + 2 * noise:
            slack = 1e-3 * size + 2 * noise
            between = min(after, before) - slack <= claimed <= max(after, before) + slack
            return Judgement("kink" if between else "wrong", claimed, measured)
        far = abs(measured - claimed) > 1e-2 * size + 4 * noise
        return Judgement("wrong", claimed, measured, smooth=far and bend <= 1e-5 * size + noise)

    def judge_element(self, place: Place) -> Judgement:
        """Compare one element of the claimed gradient; slopes are per unit of that element."""
        which, index = place
        length = max(1.0, abs(float(self.inputs[which].flat[index])))
        move = self._still()
        along = np.zeros(self.inputs[which].shape)
        along.flat[index] = length
        move[which] = along
        found = self.judge(move, float(np.max(np.abs(self.gradients[which]))))
        return Judgement(found.kind, found.claimed / length, found.measured / length, found.smooth)

    def random_move(self, rng: np.random.Generator) -> Move:
        """Every element one way or the other, by its own size or by 1."""
        return [rng.choice((-1.0, 1.0), x.shape) * np.maximum(1.0, np.abs(x)) for x in self.inputs]

    def scale_along(self, move: Move) -> float:
        pairs = zip(self.gradients, move, strict=True)
        return float(np.sqrt(sum(float(np.sum((g * u) ** 2)) for g, u in pairs if u is not None)))

    def part_of(self, move: Move, places: Sequence[Place]) -> Move:
        """`move` for the elements in `places`, and everything else standing still."""
        part = self._still()
        for which, index in places:
            along, whole = part[which], move[which]
            if along is None:
                along = part[which] = np.zeros(self.inputs[which].shape)
            assert whole is not None
            along.flat[index] = whole.flat[index]
        return part

    def _still(self) -> Move:
        return [None] * len(self.inputs)

    def _outputs(self, move: Move | None, step: float) -> Array:
        moves = move or self._still()
        there = [
            x.copy() if u is None else np.asarray(x + step * u)
            for x, u in zip(self.inputs, moves, strict=True)
        ]
        return np.array(self.function(there), dtype=np.float64).ravel()


def find_fault(slopes: Slopes, rng: np.random.Generator) -> tuple[Fault | None, int, int]:
    """The first element found wrong, and of how many elements examined how many lay on a kink.

    Three random directions first: each tests every element at once, and a failing one is halved until a
    single element is left.  Then elements one by one.
    """
    every = [(which, index) for which, x in enumerate(slopes.inputs) for index in range(x.size)]
    for _ in range(DIRECTIONS if every else 0):
        move = slopes.random_move(rng)
        failed = slopes.judge(move, slopes.scale_along(move)).kind != "right"
        if failed and (fault := _halve(slopes, move, every)):
            return fault, 0, 0
    kinks = []
    examined = [
        (which, index)
        for which, gradient in enumerate(slopes.gradients)
        for index in sample(gradient, ALL_UP_TO, rng)
    ]
    for place in examined:
        found = slopes.judge_element(place)
        if found.kind == "wrong":
            return Fault(place, found.claimed, found.measured), 0, 0
        if found.kind == "kink":
            kinks.append(place)
    return _tied_fault(slopes, kinks), len(examined), len(kinks)


def _tied_fault(slopes: Slopes, kinks: list[Place]) -> Fault | None:
    """A wrong sum over equal elements, which hides while each of them is on a kink (max of [3, 3]).

    Moved together, tied elements stay tied, and the slope is smooth again.
    """
    for value in {float(slopes.inputs[which].flat[index]) for which, index in kinks[:SAMPLE]}:
        together: Move = [np.where(x == value, max(1.0, abs(value)), 0.0) for x in slopes.inputs]
        found = slopes.judge(together, slopes.scale_along(together))
        if found.kind == "wrong" and found.smooth:
            return Fault(None, found.claimed, found.measured)
    return None


def _halve(slopes: Slopes, move: Move, places: list[Place]) -> Fault | None:
    """A single wrong element among those that fail together, if one is to blame."""
    if len(places) == 1:
        found = slopes.judge_element(places[0])
        return Fault(places[0], found.claimed, found.measured) if found.kind == "wrong" else None
    middle = len(places) // 2
    for half in (places[:middle], places[middle:]):
        part = slopes.part_of(move, half)
        failed = slopes.judge(part, slopes.scale_along(part)).kind != "right"
        if failed and (fault := _halve(slopes, move, half)):
            return fault
    return None


def sample(gradient: Array, all_up_to: int, rng: np.random.Generator) -> list[int]:
    """Which elements to look at: all up to so many, beyond it the largest and some random ones."""
    if gradient.size <= all_up_to:
        return list(range(gradient.size))
    largest = np.argsort(-np.abs(gradient).ravel())[:LARGEST]
    return [int(i) for i in np.unique([*largest, *rng.integers(0, gradient.size, SAMPLE)])]
