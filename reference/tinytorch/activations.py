"""Kata 04 · Activations: curves, their slopes, and what each must keep for the way back.

A network of affine layers alone is one affine layer. What lies between them bends the line; and since it does
so to every number of every layer, what it keeps for its gradient decides how much memory training takes.

Floats come out in their dtype, also where a slope or a probability is one of numpy's float64; integers and
bools come out in float32 (see `floating`); only relu and relu_ keep integers, and what they make of bools is
left open. No number that goes in, finite or infinite, gives nan or a warning; nan gives nan.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinytorch.layers import Module
from tinytorch.tensor import Array, Tensor, floating, op, tanh

__all__ = [
    "GELU", "Dropout", "LeakyReLU", "LogSoftmax", "ReLU", "Sigmoid", "Softmax", "Tanh", "below_largest",
    "dropout", "gelu", "leaky_relu", "leaky_relu_", "log_softmax", "relu", "relu_", "sigmoid", "sigmoid_",
    "softmax", "tanh_",
]  # fmt: skip


# Three curves that can be written over their input. What computes them writes into `out`, which is a new
# array here, and x itself further down, where they work in place.


@op
def relu(x: Array) -> Any:
    """x where it is positive, else 0. Integers stay integers."""
    # kata 04.1: `relu_into` does the work; what is left is an array for it to write into.
    return relu_into(x, np.empty_like(x))


def relu_into(x: Array, out: Array) -> Any:
    """Write relu of x into `out`, which may be x, and return it."""
    # kata 04.1: one of numpy's functions; they all take `out=`.
    if x.dtype.kind == "f":
        # Three times as fast as numpy's maximum of an array and a number.
        return np.clip(x, 0, np.inf, out=out)
    return np.maximum(x, x.dtype.type(0), out=out)


@relu.gradient
def relu_back(grad: Array, out: Array) -> Any:  # stub: (grad)
    """The gradient of x; 0 where x is 0."""
    # kata 04.2: add what you need after `grad`; what you name there stays in memory until the way back.
    return grad * (out > 0)


@op
def leaky_relu(x: Array, *, negative_slope: float = 0.01) -> Any:
    """x where it is positive, else negative_slope * x. A ValueError names a slope outside of 0 to 1.

    With a slope of 0, or one that is 0 in the dtype of x, -inf gives 0.
    """
    # kata 04.3: as for relu, but in floats.
    x = floating(x)
    return leaky_relu_into(x, negative_slope, np.empty_like(x))


def leaky_relu_into(x: Array, negative_slope: float, out: Array) -> Any:
    """Write leaky_relu of x into `out`, which may be x, and return it."""
    # kata 04.3: which of x and negative_slope * x is larger? And what is 0 * -inf?
    if not 0 <= negative_slope <= 1:
        raise ValueError(f"negative_slope must be from 0 to 1, and is {negative_slope}")
    if x.dtype.type(negative_slope) == 0:
        return relu_into(x, out)
    scaled = np.multiply(x, negative_slope, out=None if out is x else out)
    return np.maximum(x, scaled, out=out)


@leaky_relu.gradient
def leaky_relu_back(grad: Array, out: Array, negative_slope: float) -> Any:  # stub: (grad)
    """The gradient of x; negative_slope * grad where x is 0."""
    # kata 04.4: which side was the input on, if you only have the output?
    return grad * np.clip(out > 0, negative_slope, 1, dtype=grad.dtype)


@op
def sigmoid(x: Array) -> Any:
    """1 / (1 + exp(-x)), with all its digits also where it is nearly 0.

    Down to the smallest normal number of the dtype, 1e-38 in float32; what is smaller may be 0.
    """
    # kata 04.5: as for leaky_relu.
    x = floating(x)
    return sigmoid_into(x, np.empty_like(x))


def sigmoid_into(x: Array, out: Array) -> Any:
    """Write the sigmoid of x into `out`, which may be x, and return it."""
    # kata 04.5: where does exp overflow, and what should come out there?
    np.negative(x, out=out)
    with np.errstate(over="ignore"):  # 1 / (1 + inf) is 0, which is right
        np.exp(out, out=out)
    out += 1
    return np.divide(1, out, out=out)


@sigmoid.gradient
def sigmoid_back(grad: Array, out: Array) -> Any:  # stub: (grad)
    """The gradient of x."""
    # kata 04.6: the height of the curve tells its slope.
    return grad * (out * (1 - out))


@tanh.gradient
def tanh_back(grad: Array, out: Array) -> Any:  # stub: (grad)
    """The gradient of x. The operation is there since kata 02."""
    # kata 04.6: here, too.
    return grad * (1 - out * out)


# A curve that cannot be written over its input, since it comes down before it goes up.

# gelu(x) is x * (1 + tanh(z)) / 2 with z = GELU_SCALE * (x + GELU_CUBE * x**3).
GELU_SCALE = math.sqrt(2 / math.pi)
GELU_CUBE = 0.044715
# Below -GELU_FAR even float64 has nothing but 0 for gelu, and above GELU_FAR nothing but x.
GELU_FAR = 30.0


@op
def gelu(x: Array) -> Any:
    """x times the share of a normal distribution that lies below x, by the formula with tanh."""
    # kata 04.7: not x**3; and -inf * 0 is nan. (1 + tanh(z)) / 2 is the sigmoid of 2 * z.
    x = floating(x)
    out = np.clip(x, -GELU_FAR, np.inf)
    with np.errstate(over="ignore"):  # both ways, to x / (1 + 0) and x / inf
        scratch = np.multiply(out, out, out=np.empty_like(x))
        scratch *= -2 * GELU_SCALE * GELU_CUBE
        scratch -= 2 * GELU_SCALE
        scratch *= out
        np.exp(scratch, out=scratch)
    scratch += 1
    out /= scratch
    return out


@gelu.gradient
def gelu_back(grad: Array, x: Array) -> Any:  # stub: (grad)
    """The gradient of x."""
    # kata 04.8: the same height is reached twice, on different slopes.
    x = np.clip(x, -GELU_FAR, GELU_FAR)
    back = x * x
    share = np.multiply(back, 2 * GELU_SCALE * GELU_CUBE, out=np.empty_like(x))
    share += 2 * GELU_SCALE
    share *= x
    sigmoid_into(share, share)
    # The slope of x * share is share + x * share * (1 - share) * the slope of what the sigmoid was of.
    back *= 6 * GELU_SCALE * GELU_CUBE
    back += 2 * GELU_SCALE
    back *= x
    back *= 1 - share
    back += 1
    back *= share
    back *= grad
    return back


# Curves of a whole row: along `axis` each number depends on all. A 0-d array is a row of one, and numpy's
# reductions, as PyTorch's, let it have the axes 0 and -1. An axis that is not there is a ValueError that
# names it, as numpy's does.


def below_largest(x: Array, axis: int) -> Any:
    """A new array of x less the largest along `axis`, in floats.

    Equals have distance 0, infinite ones too: of [inf, 1, inf] it makes [0, -inf, 0].
    """
    # kata 04.9: what is inf - inf? There is always a largest, if you tell numpy where to start.
    x = floating(x)
    largest = x.max(axis, keepdims=True, initial=-np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        below = np.subtract(x, largest, out=np.empty_like(x))
    if not np.isfinite(largest).all():
        below[x == largest] = 0
    return below


@op
def softmax(x: Array, *, axis: int = -1) -> Any:
    """exp(x) / exp(x).sum(axis): positive, and 1 in sum along `axis`.

    Among infinities, equals share: [inf, 1, inf] gives [0.5, 0, 0.5], and -inf everywhere the same to each.
    """
    # kata 04.10: softmax(x) and softmax(x - c) are the same, and one of them does not overflow.
    out = below_largest(x, axis)
    np.exp(out, out=out)
    out /= out.sum(axis, keepdims=True)
    return out


@softmax.gradient
def softmax_back(grad: Array, out: Array, axis: int) -> Any:  # stub: (grad)
    """The gradient of x."""
    # kata 04.11: when one share grows, the others of its row shrink.
    back = grad - (grad * out).sum(axis, keepdims=True)
    back *= out
    return back


@op
def log_softmax(x: Array, *, axis: int = -1) -> Any:
    """log(softmax(x)), with all its digits also where softmax is nearly 0, or 0."""
    # kata 04.12: without a division, and without the logarithm of anything that can be 0.
    out = below_largest(x, axis)
    if out.size:
        out -= np.log(np.exp(out).sum(axis, keepdims=True))
    return out


@log_softmax.gradient
def log_softmax_back(grad: Array, out: Array, axis: int) -> Any:  # stub: (grad)
    """The gradient of x."""
    # kata 04.13: the softmax can be had from `out`.
    return grad - np.exp(out) * grad.sum(axis, keepdims=True)


# Chance.


@op(saves=["mask", "scale"])
def dropout(x: Array, *, p: float = 0.5, rng: np.random.Generator) -> tuple[Any, Array, float]:
    """Each element is 0 with probability `p`, and else divided by 1 - p, so that the mean stays.

    Beside the result comes what the way back needs: a mask of bools, False where an element became 0, and the
    factor of the others: 1 / (1 - p), and 0 for p = 1, where there are no others. ValueError, with
    p's value, unless 0 <= p <= 1.
    """
    # kata 04.14: float32 is fine enough to draw in. inf * 0 is nan with a warning, but what is dropped is 0.
    if not 0 <= p <= 1:
        raise ValueError(f"p must be from 0 to 1, and is {p}")
    x = floating(x)
    mask = rng.random(x.shape, np.float32) >= p
    scale = 1 / (1 - p) if p < 1 else 0.0
    try:
        with np.errstate(invalid="raise"):
            out = x * mask
    except FloatingPointError:  # inf * 0
        out = np.where(mask, x, x.dtype.type(0))
    with np.errstate(over="ignore"):
        out *= scale
    return out, mask, scale


@dropout.gradient
def dropout_back(grad: Array, mask: Array, scale: float) -> Any:  # stub: (grad)
    """The gradient of x."""
    # kata 04.15: the same elements, the same factor.
    back = grad * mask
    back *= scale
    return back


# In place: possible for the curves whose rule asks for nothing but the output, which is all that is left.


def refuse_integers(x: Array) -> None:
    if x.dtype.kind != "f":
        raise TypeError(f"the result has fractions, which cannot be written over {x.dtype}")


@op(in_place=True)
def relu_(x: Array) -> Any:
    """relu, written over x."""
    # kata 04.16: relu, into another array.
    return relu_into(x, out=x)


@op(in_place=True)
def leaky_relu_(x: Array, *, negative_slope: float = 0.01) -> Any:
    """leaky_relu, written over x. TypeError for integers, which stay as they are."""
    # kata 04.16: numpy's maximum, too, would refuse to write floats into integers.
    refuse_integers(x)
    return leaky_relu_into(x, negative_slope, out=x)


@op(in_place=True)
def sigmoid_(x: Array) -> Any:
    """sigmoid, written over x. TypeError for integers, which stay as they are."""
    # kata 04.16: numpy's exp would refuse, but what has been written by then?
    refuse_integers(x)
    return sigmoid_into(x, out=x)


@op(in_place=True)
def tanh_(x: Array) -> Any:
    """tanh, written over x. TypeError for integers, which stay as they are."""
    # kata 04.16: one of numpy's functions, which refuses integers before it writes.
    return np.tanh(x, out=x)


relu_.gradient(relu_back)
leaky_relu_.gradient(leaky_relu_back)
sigmoid_.gradient(sigmoid_back)
tanh_.gradient(tanh_back)


# Layers.


class ReLU(Module):
    """relu; `inplace`, it is written over the input."""

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        # kata 04.17: which operation?
        return relu_(x) if self.inplace else relu(x)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class LeakyReLU(Module):
    """leaky_relu; `inplace`, it is written over the input."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        # kata 04.17: and with which parameter?
        curve = leaky_relu_ if self.inplace else leaky_relu
        return curve(x, negative_slope=self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class Sigmoid(Module):
    def forward(self, x: Tensor) -> Tensor:
        return sigmoid(x)


class Tanh(Module):
    def forward(self, x: Tensor) -> Tensor:
        return tanh(x)


class GELU(Module):
    def forward(self, x: Tensor) -> Tensor:
        return gelu(x)


class Softmax(Module):
    """softmax along one axis."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return softmax(x, axis=self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


class LogSoftmax(Module):
    """log_softmax along one axis."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return log_softmax(x, axis=self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


class Dropout(Module):
    """dropout while the module is trained; while it is used, the input itself."""

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator) -> None:
        self.p = p
        self.rng = rng

    def forward(self, x: Tensor) -> Tensor:
        # kata 04.17: `train()` and `eval()` set `self.training`.
        return dropout(x, p=self.p, rng=self.rng) if self.training else x

    def extra_repr(self) -> str:
        return f"p={self.p}"
