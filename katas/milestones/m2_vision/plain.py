"""The same training in plain numpy and float64, written from the formulas, to compare with.

Slow and short: each layer is a function that gives its result and a function for the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
Layer = tuple[Array, Callable[[Array], Array]]  # what comes out; the way back

EPS = 1e-5  # of batch norm, as in kata 07


def convolution(
    x: Array, weight: Array, stride: int = 1, grads: Arrays | None = None, name: str = ""
) -> Layer:
    """A border of one pixel; `grads` gets the kernels' gradient under `name`. Back only with stride 1."""
    seen = under(x, weight.shape[2:])[:, :, ::stride, ::stride]
    out = np.tensordot(seen, weight, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)

    def back(grad: Array) -> Array:
        if grads is not None:
            grads[name] = np.tensordot(grad, seen, ((0, 2, 3), (0, 2, 3)))
        turned = weight.swapaxes(0, 1)[:, :, ::-1, ::-1]
        return convolution(grad, turned)[0]

    return out, back


def under(x: Array, kernel: tuple[int, ...]) -> Array:
    """What a kernel sees at each place: (N, C, H, W, KH, KW)."""
    return sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), kernel, axis=(2, 3))


def pooling(x: Array, size: int) -> Layer:
    n, c, h, w = x.shape
    tiles = x.reshape(n, c, h // size, size, w // size, size)
    largest = tiles.max(axis=(3, 5), keepdims=True)
    return largest[:, :, :, 0, :, 0], lambda grad: (
        (tiles == largest) * grad[:, :, :, None, :, None]
    ).reshape(x.shape)


def norm(x: Array, state: Arrays, name: str, momentum: float, grads: Arrays | None) -> Layer:
    """In training (with `grads`), by the batch, and the running numbers move; else by these."""
    over = (0, 2, 3)
    running = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    weight, bias = (state[f"{name}.{part}"][:, None, None] for part in ("weight", "bias"))
    mean, var = running if grads is None else (x.mean(over), x.var(over))
    if grads is not None:
        count = x.size // x.shape[1]
        for kept, new in zip(running, (mean, var * count / (count - 1)), strict=True):
            kept += momentum * (new - kept)
    std = np.sqrt(var + EPS)[:, None, None]
    normal = (x - mean[:, None, None]) / std

    def back(grad: Array) -> Array:
        if grads is not None:
            grads[f"{name}.weight"], grads[f"{name}.bias"] = (grad * normal).sum(over), grad.sum(over)
        along = grad.mean(over, keepdims=True) + normal * (grad * normal).mean(over, keepdims=True)
        back_to: Array = weight / std * (grad - along)
        return back_to

    return normal * weight + bias, back


def rectified(x: Array) -> Layer:
    return np.maximum(x, 0), lambda grad: grad * (x > 0)


def linear(x: Array, weight: Array, grads: Arrays | None, name: str) -> Layer:
    def back(grad: Array) -> Array:
        if grads is not None:
            grads[name] = grad.T @ x
        return grad @ weight

    return x @ weight.T, back


def layers(state: Arrays, momentum: float, grads: Arrays | None = None) -> list[Callable[[Array], Layer]]:
    """One function for each layer of `vision.network`, in its order, with the weights in `state`."""

    def conv(place: int) -> Callable[[Array], Layer]:
        name = f"{place}.weight"
        return lambda x: convolution(x, state[name], grads=grads, name=name)

    def batch_norm(place: int) -> Callable[[Array], Layer]:
        return lambda x: norm(x, state, str(place), momentum, grads)

    def pool(size: int) -> Callable[[Array], Layer]:
        return lambda x: pooling(x, size)

    return [
        lambda x: rectified(convolution(x, state["0.weight"], stride=2)[0]),
        *(conv(1), pool(2), batch_norm(3), rectified),
        *(conv(5), pool(2), batch_norm(7), rectified),
        *(conv(9), batch_norm(10), pool(4), rectified),
        lambda x: (x.reshape(len(x), -1), lambda grad: grad.reshape(x.shape)),
        lambda x: linear(x, state["14.weight"], grads, "14.weight"),
    ]


def loss_of(logits: Array, labels: Array, smoothing: float) -> tuple[float, Array]:
    """Cross-entropy to labels of which a share `smoothing` is spread over all classes; and its gradient."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    wanted = np.full(logits.shape, smoothing / logits.shape[1])
    wanted[np.arange(len(labels)), labels] += 1 - smoothing
    return float(-(wanted * logs).sum() / len(labels)), (np.exp(logs) - wanted) / len(labels)


def gradients(
    state: Arrays, images: Array, labels: Array, smoothing: float, momentum: float
) -> tuple[float, Arrays]:
    """The loss, and the gradient of every parameter. The running numbers in `state` move."""
    grads: Arrays = {}
    x, ways = images.astype(np.float64), []
    for layer in layers(state, momentum, grads):
        x, back = layer(x)
        ways.append(back)
    loss, grad = loss_of(x, labels, smoothing)
    for back in reversed(ways[1:]):  # the first is fixed, and images want no gradient
        grad = back(grad)
    return loss, grads


def one_cycle(step: int, total: int, top: float, rise: float) -> float:
    """The learning rate at a step: in a line from 0 (a thousandth of the top) to it, and in one back."""
    peak, last, bottom = rise * total - 1, total - 1, 1 / 1000
    if step < peak:
        return top * (bottom + (1 - bottom) * step / peak)
    done = (step - peak) / (last - peak)
    return top * (1 + (bottom / 1000 - 1) * done)


def train(state: Arrays, batches: list[tuple[Array, Array]], recipe: Any, momentum: float) -> Iterator[float]:
    """Adam with decay that is not part of the gradient; the loss of each batch. `state` changes in place."""
    first: Arrays = {}
    second: Arrays = {}
    beta1, beta2 = recipe.betas
    for step, (images, labels) in enumerate(batches):
        loss, grads = gradients(state, images, labels, recipe.smoothing, momentum)
        lr = one_cycle(step, len(batches), recipe.lr, recipe.rise)
        for name, grad in grads.items():
            data = state[name]
            m, v = first.setdefault(name, np.zeros_like(data)), second.setdefault(name, np.zeros_like(data))
            data *= 1 - lr * (recipe.decay if data.ndim > 1 else 0)
            m += (1 - beta1) * (grad - m)
            v += (1 - beta2) * (grad * grad - v)
            data -= lr * (m / (1 - beta1 ** (step + 1))) / (np.sqrt(v / (1 - beta2 ** (step + 1))) + 1e-8)
        yield loss
