"""An op and its gradient against a formula in plain numpy, differentiated to the last digit.

For analytic f, imag(f(x + ih)) / h is f'(x) with nothing subtracted, so that h can be 1e-30 and there is no
rounding to allow for.  Unlike central differences this also judges float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dojo.measuring.gradients import STREAM
from dojo.measuring.slopes import Array, sample
from dojo.measuring.subject import Subject

STEP = 1e-30
RTOL = {8: 1e-9, 4: 2e-4}  # by the size of the coarsest dtype in use
# Rounding that is left where everything cancels, in eps of the sum of magnitudes.
NOISE = 16
SMALL = 1e-2  # an element below 1 % of the largest is judged against that
ALL_UP_TO = 400  # elements; of a larger gradient, a sample


def check_formula(op: Any, formula: Callable[..., Any], *arrays: Any, **params: Any) -> None:
    """Compare the outputs and gradients of `op` with those of `formula(*arrays, **params)`, in numpy.

    Works in the dtype of the arrays.  `op` is as in `check_gradient`.  `formula` must be analytic: no abs,
    sign, norm, var or conj; compare by `.real`, as in np.where(x.real > 0, x, 0).

    Raises:
        GradientError: the op disagrees, by more than 1e-9 in float64 or 2e-4 in float32.
        ValueError: the formula is not analytic at these arrays, so that it proves nothing.
    """
    __tracebackhide__ = True
    subject = Subject(op, arrays, params)
    exact = [x.astype(np.float64) for x in subject.inputs]

    def outputs(inputs: Sequence[Array]) -> Array:
        return np.asarray(formula(*subject.arguments(inputs), **subject.parameters()))

    size = min((x.dtype.itemsize for x in subject.inputs), default=8)
    rtol, eps = RTOL.get(size, RTOL[4]), float(np.finfo(f"f{size}").eps)
    expected, got = outputs(exact), subject.forward(subject.inputs)
    if got.shape != expected.shape:
        raise subject.error(f"the output has shape {got.shape}, and by the formula {expected.shape}")
    if not np.all(np.abs(got - expected) <= rtol * np.max(np.abs(expected), initial=0.0)):
        worst = np.unravel_index(np.argmax(np.abs(got - expected)), got.shape)
        raise subject.error(
            f"the output at {_plain(worst)} is {got[worst]:.8g}, and by the formula {expected[worst]:.8g}"
        )
    rng = np.random.default_rng([0, STREAM])
    cotangent = np.asarray(rng.standard_normal(expected.shape), got.dtype)
    weights = cotangent.astype(np.float64)
    noise = NOISE * eps * float(np.sum(np.abs(weights * expected)))

    def slope(move: Sequence[Any]) -> float:
        moved = [x + 1j * STEP * along for x, along in zip(exact, move, strict=True)]
        return float(np.sum(outputs(moved).imag * weights)) / STEP

    _require_analytic(outputs, exact, weights, slope, rng)
    for which, share in enumerate(subject.there_and_back(subject.inputs, cotangent)):
        x, name = exact[which], subject.names[which]
        gradient = np.zeros(x.shape) if share is None else np.asarray(share)
        if gradient.shape != x.shape:
            raise subject.error(
                f"the gradient for {name} has shape {gradient.shape}, and {name} has {x.shape}"
            )
        # Without axes: numpy 1 makes float64 of 1 - np.float32(0.5).
        if x.ndim and share is not None and gradient.dtype != subject.inputs[which].dtype:
            raise subject.error(
                f"the gradient for {name} is {gradient.dtype}, and {name} is {subject.inputs[which].dtype}"
            )
        places = sample(gradient, ALL_UP_TO, rng)
        true = np.array([slope(_unit(exact, which, place)) for place in places])
        said = gradient.ravel()[places].astype(np.float64)
        allowed = rtol * (np.abs(true) + SMALL * np.max(np.abs(true), initial=0.0)) + noise
        off = np.where(np.isfinite(said), np.abs(said - true), np.inf)
        if np.any(off > allowed):
            worst_one = int(np.argmax(off - allowed))
            at = _plain(np.unravel_index(places[worst_one], x.shape))
            raise subject.error(
                f"gradient for {name}, worst at {at}: {said[worst_one]:.8g}, and by the formula "
                f"{true[worst_one]:.8g}"
            )


def _require_analytic(
    outputs: Callable[[Sequence[Array]], Array],
    inputs: Sequence[Array],
    weights: Array,
    slope: Callable[[Sequence[Any]], float],
    rng: np.random.Generator,
) -> None:
    """One direction by differences too: abs and its kin drop the imaginary part, and would say 0."""
    move = [rng.choice((-1.0, 1.0), x.shape) for x in inputs]
    step = 1e-6
    ahead, behind = (
        np.sum(outputs([x + sign * step * u for x, u in zip(inputs, move, strict=True)]) * weights)
        for sign in (1, -1)
    )
    measured, claimed = float(ahead - behind) / (2 * step), slope(move)
    scale = max(abs(measured), abs(claimed), float(np.sum(np.abs(weights))))
    if abs(measured - claimed) > 1e-3 * scale:
        raise ValueError(
            f"the formula is not analytic here: its complex step says {claimed:.6g} and differences say "
            f"{measured:.6g}. abs, sign, norm, var and comparisons of complex numbers are the usual reasons"
        )


def _unit(inputs: Sequence[Array], which: int, place: int) -> list[Any]:
    move: list[Any] = [0.0] * len(inputs)
    move[which] = np.zeros(inputs[which].shape)
    move[which].flat[place] = 1.0
    return move


def _plain(index: Any) -> tuple[int, ...]:
    return tuple(int(i) for i in index)
