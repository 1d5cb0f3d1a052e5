"""Kata 04 beside PyTorch: `python -m benchmarks.activations`. Ratios below 1 are ours to be proud of."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.beside import measure, pytorch, reference, row, title

ours: Any = reference("tinytorch.activations")
tanh: Any = reference("tinytorch.tensor").tanh
torch: Any = pytorch()

SIZES = {"64 k": (256, 256), "1 M": (1024, 1024), "16 M": (4096, 4096)}


def main() -> None:
    functional = torch.nn.functional
    curves = {
        "relu": (ours.relu, functional.relu),
        "leaky_relu": (ours.leaky_relu, functional.leaky_relu),
        "sigmoid": (ours.sigmoid, torch.sigmoid),
        "tanh": (tanh, torch.tanh),
        "gelu": (ours.gelu, lambda x: functional.gelu(x, approximate="tanh")),
        "softmax": (ours.softmax, lambda x: torch.softmax(x, -1)),
        "log_softmax": (ours.log_softmax, lambda x: torch.log_softmax(x, -1)),
    }
    in_place = {
        "relu_": (ours.relu_, torch.relu_),
        "leaky_relu_": (ours.leaky_relu_, functional.leaky_relu_),
        "sigmoid_": (ours.sigmoid_, torch.sigmoid_),
        "tanh_": (ours.tanh_, torch.tanh_),
    }
    for label, shape in SIZES.items():
        rng = np.random.default_rng(0)
        x, grad = (rng.standard_normal(shape, np.float32) for _ in range(2))
        title(f"{label} float32, forward")
        for name, (mine, theirs) in curves.items():
            compare(name, mine, theirs, x, target=1.1 if name == "gelu" else None)
        compare_dropout(x)
        title(f"{label} float32, backward")
        for name, (mine, theirs) in curves.items():
            compare_backward(name, mine, theirs, x, grad, target=0.8 if name == "relu" else None)
        compare_dropout_backward(x, grad)
        title(f"{label} float32, in place")
        for name, (mine, theirs) in in_place.items():
            tensor, other = ours.Tensor(x.copy()), torch.tensor(x)
            row(name, lambda mine=mine, x=tensor: mine(x), lambda theirs=theirs, x=other: theirs(x))


def compare(name: str, mine: Any, theirs: Any, x: Any, target: float | None) -> None:
    tensor, other = ours.Tensor(x), torch.from_numpy(x)
    row(name, lambda: mine(tensor), lambda: theirs(other), target)


def compare_backward(
    name: str, mine: Any, theirs: Any, x: Any, grad: Any, target: float | None = None
) -> None:
    _, back = mine.vjp(x)
    other, upstream = torch.from_numpy(x).requires_grad_(), torch.from_numpy(grad)
    out = theirs(other)
    row(
        name,
        lambda: back(grad),
        lambda: torch.autograd.grad(out, other, upstream, retain_graph=True),
        target,
    )


def compare_dropout(x: Any) -> None:
    rng, tensor, other = np.random.default_rng(0), ours.Tensor(x), torch.from_numpy(x)
    row("dropout", lambda: ours.dropout(tensor, rng=rng), lambda: torch.nn.functional.dropout(other))


def compare_dropout_backward(x: Any, grad: Any) -> None:
    _, back = ours.dropout.vjp(x, rng=np.random.default_rng(0))
    other, upstream = torch.from_numpy(x).requires_grad_(), torch.from_numpy(grad)
    out = torch.nn.functional.dropout(other)
    row(
        "dropout",
        lambda: back(grad),
        lambda: torch.autograd.grad(out, other, upstream, retain_graph=True),
    )


if __name__ == "__main__":
    measure(main, __doc__)
