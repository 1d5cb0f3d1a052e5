"""Is a hand-written gradient right?  A check that says no to every wrong one and never to a right one.

Against central differences, in float64, with a random cotangent: with ones, a softmax gradient of zeros
would pass, since softmax's outputs always sum to one.  Then for what a formula cannot show: gradients that
change their inputs, keep state, or hold only for arrays in C order.

`benchmarks/measuring_trials.py` counts false alarms and misses anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dojo.measuring.slopes import Array, Fault, Slopes, find_fault
from dojo.measuring.subject import GradientError, Subject, strided

__all__ = ["GradientCheck", "GradientError", "check_gradient"]

# The same sums in another order differ by a few eps * sqrt(n); 1e-10 of the largest is far above that, and a
# rule that reads an array in the wrong order is wrong in the first digit.
SAME = 1e-10
# Scaling by a power of two is exact, so a linear rule gives exactly the same; but for BLAS, which may add in
# another order when an array starts at another address.
EXACT = 1e-11
# A gradient that is 0 by the formula (of a softmax's only choice) is what rounding left: this much, at most,
# of the largest among all gradients and what came in.
NOISE = 1e-13
# A rule is smooth at a point if its gradients there and 1e-7 beside it agree to this.
SMOOTH = 1e-3
COMPLETE = 1024  # elements: up to this size the worst is looked for among all
PATIENCE = 2.0  # seconds, for that
READABLE = 64  # elements: a wrong gradient up to this size is shown whole
# Never the stream that the inputs came from: a cotangent equal to an input hides mistakes.
STREAM = 0x67726164


def check_gradient(op: Any, *arrays: Any, **params: Any) -> None:
    """Check the gradient of `op` at `arrays`, for every input that is an array of floats.

    `op` is an Op with `vjp(*arrays, **params) -> (out, back)`; or any function of Tensors that returns a
    Tensor, which is then checked through `out.backward(cotangent)` and `.grad`.  Other inputs (indices,
    masks, None) are passed on as they are.  A `np.random.Generator` in `params` is copied for each call, so
    that dropout draws the same mask each time.

    Floats are taken to float64.  Choose inputs away from kinks where you can: at a kink (relu at 0, a tie of
    max) any slope between the two sides is accepted.

    Raises:
        GradientError: the gradient is wrong; the message names the op, the argument, the worst element and
            both values.
    """
    __tracebackhide__ = True
    GradientCheck(op, arrays, params).run()


class GradientCheck:
    """One check.  `seed` picks the cotangent and the directions."""

    def __init__(self, op: Any, arrays: Sequence[Any], params: dict[str, Any], seed: int = 0) -> None:
        self.subject = Subject(op, arrays, params, np.float64)
        self.rng = np.random.default_rng([seed, STREAM])

    def run(self) -> None:
        """Raise GradientError if anything is wrong."""
        __tracebackhide__ = True
        subject = self.subject
        out = self._forward(subject.inputs)
        cotangent = np.asarray(self.rng.standard_normal(out.shape))
        gradients = self._gradients(subject.inputs, cotangent)
        slopes = Slopes(self._forward, subject.inputs, gradients, cotangent)
        fault, examined, kinks = find_fault(slopes, self.rng)
        if fault:
            raise subject.error(self._wrong(slopes, fault))
        if kinks > max(2, 0.6 * examined):
            raise subject.error(
                f"{kinks} of {examined} elements lie on a kink, where almost any gradient would pass. "
                f"Check it at other inputs"
            )
        self._check_precision(gradients)
        self._check_linear(cotangent, gradients)
        self._check_layouts(cotangent, gradients)
        self._check_broadcast_cotangent(cotangent.shape)

    def _forward(self, inputs: Sequence[Array]) -> Array:
        out = self.subject.forward(inputs)
        if out.dtype != np.float64:
            raise self.subject.error(f"float64 went in and {out.dtype} came out; keep the dtype")
        if bad := np.count_nonzero(~np.isfinite(out)):
            raise self.subject.error(f"{bad} of {out.size} outputs are not finite")
        return out

    def _gradients(self, inputs: Sequence[Array], cotangent: Array) -> list[Array]:
        """The claimed gradients, once their shape, dtype and finiteness are seen to be right."""
        return [
            np.array(self._examined(name, x, share))
            for name, x, share in zip(
                self.subject.names, inputs, self.subject.there_and_back(inputs, cotangent), strict=True
            )
        ]

    def _examined(self, name: str, x: Array, share: Any) -> Array:
        if share is None:  # no gradient is a gradient of zero, and is compared as that
            return np.zeros(x.shape)
        gradient = np.asarray(share)
        if gradient.shape != x.shape:
            raise self.subject.error(
                f"the gradient for {name} has shape {gradient.shape}, and {name} has {x.shape}"
            )
        if gradient.dtype != np.float64:
            raise self.subject.error(f"the gradient for {name} is {gradient.dtype}, not float64")
        if bad := np.count_nonzero(~np.isfinite(gradient)):
            raise self.subject.error(f"{bad} elements of the gradient for {name} are not finite")
        return gradient

    def _check_precision(self, gradients: Sequence[Array]) -> None:
        """A product with random float64 fits into float32 once in 2**29; several such have been there."""
        for name, gradient in zip(self.subject.names, gradients, strict=True):
            if np.count_nonzero(gradient) > 1 and np.array_equal(gradient, gradient.astype(np.float32)):
                raise self.subject.error(f"the gradient for {name} went through float32 on its way")

    def _check_linear(self, cotangent: Array, gradients: Sequence[Array]) -> None:
        again = self._gradients(self.subject.inputs, -8 * cotangent)
        for name in self._differing(again, [-8 * first for first in gradients], -8 * cotangent, EXACT):
            raise self.subject.error(
                f"-8 times the incoming gradient should give -8 times the gradient for {name}, and does "
                f"not: the rule is not linear in it, or something is remembered from one run to the next"
            )

    def _check_layouts(self, cotangent: Array, gradients: Sequence[Array]) -> None:
        inputs = self.subject.inputs
        if any(x.ndim >= 2 for x in inputs):
            columns = [np.asfortranarray(x) for x in inputs]
            self._check_layout("Fortran-ordered", columns, gradients, cotangent)
        self._check_layout("strided", [strided(x) for x in inputs], gradients, cotangent)
        rows = [_repeat_first_row(x) for x in inputs]
        if (dense := self._smooth_at(rows, cotangent)) is not None:
            self._check_layout("broadcast (stride 0, read-only)", rows, dense, cotangent)

    def _smooth_at(self, inputs: Sequence[Array], cotangent: Array) -> list[Array] | None:
        """The gradients at `inputs`; None where rounding decides them (the deviation of equal rows, ties)."""
        # Of a 0-d array and a number numpy makes a number, and what an op is given here are arrays.
        beside = [
            np.asarray(x + 1e-7 * (1 + np.abs(x)) * self.rng.choice((-1.0, 1.0), x.shape)) for x in inputs
        ]
        try:
            with np.errstate(all="ignore"):
                here = self._gradients([x.copy() for x in inputs], cotangent)
                there = self._gradients(beside, cotangent)
        except GradientError:  # not finite: equal rows are outside what this op is defined for
            return None
        return None if [*self._differing(here, there, cotangent, SMOOTH)] else here

    def _check_layout(
        self, layout: str, inputs: Sequence[Array], expected: Sequence[Array], cotangent: Array
    ) -> None:
        found = self._attempt(f"with {layout} inputs", inputs, cotangent)
        for name in self._differing(found, expected, cotangent, SAME):
            raise self.subject.error(
                f"with {layout} inputs, the gradient for {name} is not the one for the same values in C order"
            )

    def _check_broadcast_cotangent(self, shape: tuple[int, ...]) -> None:
        """What sum().backward() sends down: one number, seen at every place."""
        one = np.broadcast_to(np.ones(()), shape)
        expected = self._gradients(self.subject.inputs, one.copy())
        condition = "with an incoming gradient that is a read-only view"
        found = self._attempt(condition, self.subject.inputs, one)
        for name in self._differing(found, expected, one, SAME):
            raise self.subject.error(
                f"the gradient for {name} comes out differently when the incoming gradient is a "
                f"broadcast view (stride 0) of the same values"
            )

    def _differing(
        self, found: Sequence[Array], expected: Sequence[Array], cotangent: Array, tolerance: float
    ) -> Iterator[str]:
        """The inputs whose gradients are off by more than `tolerance` of their largest, and than NOISE."""
        noise = NOISE * max(map(_largest, (*expected, cotangent)))
        for name, one, other in zip(self.subject.names, found, expected, strict=True):
            if not _largest(one - other) <= max(tolerance * _largest(other), noise):  # nan is off, too
                yield name

    def _attempt(self, condition: str, inputs: Sequence[Array], cotangent: Array) -> list[Array]:
        try:
            return self._gradients(inputs, cotangent)
        except (GradientError, NotImplementedError):
            raise
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            if "read-only" in str(error):
                cause = f"it writes into an array that is not its own ({error})"
            raise self.subject.error(f"{condition}: {cause}") from error

    def _wrong(self, slopes: Slopes, fault: Fault) -> str:
        """What to tell about a fault: its worst element, and what the whole gradient looks like."""
        from dojo.expect import difference

        if fault.place is None:
            return (
                f"each element of the gradient could be right, but where values tie they add up to "
                f"{fault.claimed:.6g}, and central differences say {fault.measured:.6g}: tied elements share "
                f"one gradient"
            )
        which, index = fault.place
        gradient = slopes.gradients[which]
        measured = gradient.copy()
        measured.flat[index] = fault.measured
        begin = time.process_time()
        for element in range(gradient.size if gradient.size <= COMPLETE else 0):
            found = slopes.judge_element((which, element))
            if found.kind == "wrong":
                measured.flat[element] = found.measured
            if time.process_time() - begin > PATIENCE:
                break
        index = int(np.argmax(np.abs(gradient - measured)))
        at = tuple(int(i) for i in np.unravel_index(index, gradient.shape))
        head = f"gradient for {self.subject.names[which]}, worst at {at}"
        if 1 < gradient.size <= READABLE and (whole := difference(gradient, measured, rtol=1e-4)):
            return f"{head}, against central differences:\n{whole}"
        said, found_there = gradient.flat[index], measured.flat[index]
        return f"{head}: {said:.8g}, and central differences say {found_there:.8g}"


def _repeat_first_row(x: Array) -> Array:
    """A read-only array of x's shape that holds its first row only once (stride 0)."""
    return np.broadcast_to(x[:1].copy(), x.shape) if x.size and x.ndim else x


def _largest(a: Array) -> float:
    return float(np.max(np.abs(a), initial=0.0))
