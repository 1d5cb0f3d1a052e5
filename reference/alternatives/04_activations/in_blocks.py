"""Kata 04 in another manner: elements go through the cache in blocks, and softmax is the exp of log_softmax.

`np.nditer` hands out the blocks as arrays with one axis, whatever the layout, so that a curve is written down
once, for its operation, for its twin in place and for numbers without axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinytorch.layers import Module
from tinytorch.tensor import Array, Tensor, floating, op, tanh

__all__ = [
    "GELU", "Dropout", "LeakyReLU", "LogSoftmax", "ReLU", "Sigmoid", "Softmax", "Tanh", "below_largest",
    "dropout", "gelu", "leaky_relu", "leaky_relu_", "log_softmax", "relu", "relu_", "sigmoid", "sigmoid_",
    "softmax", "tanh_",
]  # fmt: skip

BLOCK = 1 << 14
FLAGS = ["external_loop", "buffered", "zerosize_ok"]


def blocks(curve: Callable[..., Any], *arrays: Any) -> Array:
    """curve(*blocks of arrays) everywhere, in a new array."""
    wanted: list[list[str]] = [["readonly"]] * len(arrays) + [["writeonly", "allocate"]]
    with np.nditer([*arrays, None], FLAGS, wanted, buffersize=BLOCK, order="C") as walk:
        for *ins, out in walk:
            out[...] = curve(*ins)
        result: Array = walk.operands[-1]
    return result


def blocks_in_place(curve: Callable[[Array], Any], x: Array) -> Array:
    with np.nditer(x, [*FLAGS], ["readwrite"], buffersize=BLOCK) as walk:
        for block in walk:
            block[...] = curve(block)
    return x


def rectify(x: Array) -> Any:
    return np.where(x < 0, x.dtype.type(0), x)


def leak(slope: float) -> Callable[[Array], Any]:
    if slope < 0 or slope > 1 or slope != slope:
        raise ValueError(f"negative_slope={slope} is outside of [0, 1]")

    def curve(x: Array) -> Any:
        factor = x.dtype.type(slope)
        return np.maximum(x, x * factor) if factor else rectify(x)

    return curve


def squash(x: Array) -> Any:
    """e^x / (e^x + 1) on the left, 1 / (1 + e^-x) on the right: neither overflows there."""
    e = np.exp(np.minimum(x, 0))
    return e / (e + np.exp(-np.maximum(x, 0)))


@op
def relu(x: Array) -> Any:
    return blocks(rectify, x)


@relu.gradient
def relu_back(grad: Array, out: Array) -> Any:
    return blocks(lambda g, y: g * np.sign(y), grad, out)


@op
def leaky_relu(x: Array, *, negative_slope: float = 0.01) -> Any:
    return blocks(leak(negative_slope), floating(x))


@leaky_relu.gradient
def leaky_relu_back(grad: Array, out: Array, negative_slope: float) -> Any:
    def slope(g: Array, y: Array) -> Any:
        steps = np.array([negative_slope, 1], g.dtype)
        return g * steps[(y > 0).astype(np.intp)]

    return blocks(slope, grad, out)


@op
def sigmoid(x: Array) -> Any:
    return blocks(squash, floating(x))


@sigmoid.gradient
def sigmoid_back(grad: Array, out: Array) -> Any:
    return blocks(lambda g, y: g * (y - y * y), grad, out)


@tanh.gradient
def tanh_back(grad: Array, out: Array) -> Any:
    return blocks(lambda g, y: g * (1 - y) * (1 + y), grad, out)


def twice_inner(x: Array) -> Any:
    return 2 * math.sqrt(2 / math.pi) * x * (1 + 0.044715 * x * x)


@op
def gelu(x: Array) -> Any:
    return blocks(
        lambda v: np.maximum(v, -40) * squash(twice_inner(np.minimum(np.maximum(v, -40), 40))), floating(x)
    )


@gelu.gradient
def gelu_back(grad: Array, x: Array) -> Any:
    def slope(g: Array, v: Array) -> Any:
        v = np.minimum(np.maximum(v, -40), 40)
        share = squash(twice_inner(v))
        steep = 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * v * v)
        return g * (share + v * steep * share * (1 - share))

    return blocks(slope, grad, x)


def rows(x: Array, axis: int) -> Array:
    """A view with `axis` last, and of a number one with an axis."""
    return np.moveaxis(x if x.ndim else x.reshape(1), axis, -1)


def below_largest(x: Array, axis: int) -> Any:
    x = floating(x)
    below = x.copy()
    lines = rows(below, axis)
    if lines.size:
        largest = lines.max(-1)[..., None]
        endless = np.isinf(largest)
        if endless.any():
            lines[np.broadcast_to(endless, lines.shape) & (lines == largest)] = 0
            largest = np.where(np.isinf(largest), 0, largest)
            lost = endless & (rows(x, axis) < np.inf) & (rows(x, axis).max(-1)[..., None] == np.inf)
            lines[lost] = -np.inf
        with np.errstate(over="ignore"):
            lines -= largest
    return below


@op
def log_softmax(x: Array, *, axis: int = -1) -> Any:
    out = below_largest(x, axis)
    lines = rows(out, axis)
    if lines.size:
        lines -= np.log(np.exp(lines).sum(-1, keepdims=True))
    return out


@log_softmax.gradient
def log_softmax_back(grad: Array, out: Array, axis: int) -> Any:
    shares = np.exp(out)
    shares *= -(grad.sum(axis, keepdims=True) if out.ndim else grad)
    return shares + grad


@op
def softmax(x: Array, *, axis: int = -1) -> Any:
    return np.exp(log_softmax.forward(x, axis=axis))


@softmax.gradient
def softmax_back(grad: Array, out: Array, axis: int) -> Any:
    if out.ndim == 0:
        return np.zeros_like(out)
    mean = np.einsum("...i,...i->...", rows(grad, axis), rows(out, axis))
    return out * (grad - np.expand_dims(mean, axis))


@op(saves=["dropped"])
def dropout(x: Array, *, p: float = 0.5, rng: np.random.Generator) -> Any:
    if not (p >= 0 and p <= 1):
        raise ValueError(f"p={p} is outside of [0, 1]")
    out = np.array(floating(x))
    dropped = np.asarray(rng.random(out.shape, dtype=np.float32) < p)
    out[dropped] = 0
    if p < 1:
        with np.errstate(over="ignore"):
            out /= 1 - p
    return out, dropped


@dropout.gradient
def dropout_back(grad: Array, dropped: Array, p: float) -> Any:
    back = np.array(grad)
    back[dropped] = 0
    if p < 1:
        back /= 1 - p
    return back


@op(in_place=True)
def relu_(x: Array) -> Any:
    return blocks_in_place(rectify, x)


def writeable_floats(x: Array) -> Array:
    if x.dtype.kind == "f":
        return x
    raise TypeError(f"fractions do not fit into {x.dtype}")


@op(in_place=True)
def leaky_relu_(x: Array, *, negative_slope: float = 0.01) -> Any:
    return blocks_in_place(leak(negative_slope), writeable_floats(x))


@op(in_place=True)
def sigmoid_(x: Array) -> Any:
    return blocks_in_place(squash, writeable_floats(x))


@op(in_place=True)
def tanh_(x: Array) -> Any:
    return blocks_in_place(np.tanh, writeable_floats(x))


for in_place, rule in (
    (relu_, relu_back),
    (leaky_relu_, leaky_relu_back),
    (sigmoid_, sigmoid_back),
    (tanh_, tanh_back),
):
    in_place.gradient(rule)


class Layer(Module):
    """A module that calls one operation with fixed parameters."""

    operation: Any

    def __init__(self, **params: Any) -> None:
        self.params = params

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = type(self).operation(x, **self.params)
        return out


class ReLU(Module):
    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        return (relu, relu_)[self.inplace](x)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class LeakyReLU(Module):
    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        self.operation = leaky_relu_ if inplace else leaky_relu
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(x, negative_slope=self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}" + ", inplace=True" * (self.operation is leaky_relu_)


class Sigmoid(Layer):
    operation = sigmoid


class Tanh(Layer):
    operation = tanh


class GELU(Layer):
    operation = gelu


class Softmax(Layer):
    operation = softmax

    def __init__(self, axis: int = -1) -> None:
        super().__init__(axis=axis)

    def extra_repr(self) -> str:
        return f"axis={self.params['axis']}"


class LogSoftmax(Layer):
    operation = log_softmax

    def __init__(self, axis: int = -1) -> None:
        super().__init__(axis=axis)

    def extra_repr(self) -> str:
        return f"axis={self.params['axis']}"


class Dropout(Layer):
    operation = dropout

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator) -> None:
        super().__init__(p=p, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else x

    def extra_repr(self) -> str:
        return f"p={self.params['p']}"
