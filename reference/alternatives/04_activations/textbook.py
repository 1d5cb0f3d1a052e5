"""Kata 04 in another manner: the formulas as they stand in a textbook, kept from overflow by `np.where`.

Nothing is shared between an operation and its twin in place, and no buffer is handed on.
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


@op
def relu(x: Array) -> Any:
    return np.maximum(x, 0)


@relu.gradient
def relu_back(grad: Array, out: Array) -> Any:
    return np.where(out > 0, grad, 0)


@op
def leaky_relu(x: Array, *, negative_slope: float = 0.01) -> Any:
    if not 0 <= negative_slope <= 1:
        raise ValueError(f"a slope of {negative_slope} is not between 0 and 1")
    x = floating(x)
    if x.dtype.type(negative_slope) == 0:
        return np.maximum(x, 0)
    return np.where(x > 0, x, float(negative_slope) * x)  # numpy's float64 would widen it


@leaky_relu.gradient
def leaky_relu_back(grad: Array, out: Array, negative_slope: float) -> Any:
    return np.where(out > 0, grad, float(negative_slope) * grad)


@op
def sigmoid(x: Array) -> Any:
    x = floating(x)
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


@sigmoid.gradient
def sigmoid_back(grad: Array, out: Array) -> Any:
    return grad * out * (1 - out)


@tanh.gradient
def tanh_back(grad: Array, out: Array) -> Any:
    return grad * (1 - out**2)


ROOT = math.sqrt(2 / math.pi)


@op
def gelu(x: Array) -> Any:
    x = np.maximum(floating(x), -12)
    z = np.minimum(x, 12)
    return x * (0.5 + 0.5 * np.tanh(ROOT * (z + 0.044715 * z * z * z)))


@gelu.gradient
def gelu_back(grad: Array, x: Array) -> Any:
    z = np.clip(x, -12, 12)
    t = np.tanh(ROOT * (z + 0.044715 * z * z * z))
    return grad * (0.5 * (1 + t) + 0.5 * z * (1 - t * t) * ROOT * (1 + 3 * 0.044715 * z * z))


def axes(x: Array, axis: int) -> Any:
    return () if x.ndim == 0 and axis in (-1, 0) else axis


def below_largest(x: Array, axis: int) -> Any:
    x = floating(x)
    top = np.max(x, axis=axes(x, axis), keepdims=True, initial=-math.inf)
    with np.errstate(all="ignore"):
        return np.where(x == top, x.dtype.type(0), x - top)


@op
def softmax(x: Array, *, axis: int = -1) -> Any:
    weights = np.exp(below_largest(x, axis))
    return weights / np.sum(weights, axis=axes(weights, axis), keepdims=True)


@softmax.gradient
def softmax_back(grad: Array, out: Array, axis: int) -> Any:
    flow = grad * out
    return flow - out * np.sum(flow, axis=axes(out, axis), keepdims=True)


@op
def log_softmax(x: Array, *, axis: int = -1) -> Any:
    below = below_largest(x, axis)
    if below.size == 0:
        return below
    return below - np.log(np.sum(np.exp(below), axis=axes(below, axis), keepdims=True))


@log_softmax.gradient
def log_softmax_back(grad: Array, out: Array, axis: int) -> Any:
    return grad - np.exp(out) * np.sum(grad, axis=axes(out, axis), keepdims=True)


@op(saves=["kept"])
def dropout(x: Array, *, p: float = 0.5, rng: np.random.Generator) -> Any:
    if not 0 <= p <= 1:
        raise ValueError(f"{p} is no probability")
    x = floating(x)
    kept = np.asarray(rng.random(x.shape, dtype=np.float32) >= p)
    if p == 1:
        return np.zeros_like(x), kept
    with np.errstate(over="ignore"):
        return np.where(kept, x / float(1 - p), 0), kept


@dropout.gradient
def dropout_back(grad: Array, kept: Array, p: float) -> Any:
    return np.where(kept, grad / float(1 - p), 0) if p < 1 else np.zeros_like(grad)


@op(in_place=True)
def relu_(x: Array) -> Any:
    x[x < 0] = 0
    return x


@relu_.gradient
def relu_in_place_back(grad: Array, out: Array) -> Any:
    return np.where(out > 0, grad, 0)


def only_floats(x: Array) -> None:
    if x.dtype.kind != "f":
        raise TypeError(f"{x.dtype} cannot hold the result")


@op(in_place=True)
def leaky_relu_(x: Array, *, negative_slope: float = 0.01) -> Any:
    only_floats(x)
    if not 0 <= negative_slope <= 1:
        raise ValueError(f"a slope of {negative_slope} is not between 0 and 1")
    negative = x < 0
    x[negative] = 0 if x.dtype.type(negative_slope) == 0 else x[negative] * negative_slope
    return x


@leaky_relu_.gradient
def leaky_relu_in_place_back(grad: Array, out: Array, negative_slope: float) -> Any:
    return np.where(out > 0, grad, float(negative_slope) * grad)


@op(in_place=True)
def sigmoid_(x: Array) -> Any:
    only_floats(x)
    with np.errstate(over="ignore", divide="ignore"):
        np.exp(x, out=x)
        np.reciprocal(x, out=x)
        np.add(x, 1, out=x)
        return np.reciprocal(x, out=x)


sigmoid_.gradient(sigmoid_back)


@op(in_place=True)
def tanh_(x: Array) -> Any:
    return np.tanh(x, out=x)


tanh_.gradient(tanh_back)


class ReLU(Module):
    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace
        self.forward = relu_ if inplace else relu

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class LeakyReLU(Module):
    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        if self.inplace:
            return leaky_relu_(x, negative_slope=self.negative_slope)
        return leaky_relu(x, negative_slope=self.negative_slope)

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
    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return softmax(x, axis=self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


class LogSoftmax(Module):
    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return log_softmax(x, axis=self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


class Dropout(Module):
    def __init__(self, p: float = 0.5, *, rng: np.random.Generator) -> None:
        self.p = p
        self.rng = rng

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return dropout(x, p=self.p, rng=self.rng)

    def extra_repr(self) -> str:
        return f"p={self.p}"
