"""Kata 06 beside PyTorch: `python -m benchmarks.autograd`. What an engine costs shows on 4 elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.beside import measure, pytorch, reference, row, title

ours: Any = reference("tinytorch.autograd")
Tensor: Any = ours.Tensor
layers: Any = reference("tinytorch.layers")
activations: Any = reference("tinytorch.activations")
torch: Any = pytorch()

CHAIN = 200  # operations in a row, so that what is fixed does not count
PER_OPERATION = 1.5

OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "x + y": lambda x, y: x + y,
    "x * y": lambda x, y: x * y,
    "x * 0.9": lambda x, y: x * 0.9,
    "x / y": lambda x, y: x / y,
    "-x": lambda x, y: -x,
    "x.exp() * 0.1": lambda x, y: x.exp() * 0.1,
    "x.exp().log()": lambda x, y: x.exp().log(),
    "x.reshape(2, 2).reshape(4)": lambda x, y: x.reshape(2, 2).reshape(4),
}


def chain(step: Callable[[Any, Any], Any], x: Any, y: Any) -> Any:
    for _ in range(CHAIN):
        x = step(x, y)
    return x


def main() -> None:
    ones = np.ones(4, np.float32)
    x, y = (Tensor(ones, requires_grad=True) for _ in range(2))
    a, b = (torch.ones(4, requires_grad=True) for _ in range(2))
    grad = torch.ones(4)

    title(f"a chain of {CHAIN} operations on 4 elements, recorded")
    for name, step in OPERATIONS.items():
        row(name, lambda s=step: chain(s, x, y), lambda s=step: chain(s, a, b), target=PER_OPERATION)
    title("the same, there and back")
    for name, step in OPERATIONS.items():
        row(
            name,
            lambda s=step: chain(s, x, y).backward(ones),
            lambda s=step: chain(s, a, b).backward(grad),
            target=PER_OPERATION,
        )

    title("a network of 8 Linear and ReLU, 256 wide, 128 rows")
    rng = np.random.default_rng(0)
    net = [layers.Linear(256, 256, rng=rng) for _ in range(8)]
    twins = [torch.nn.Linear(256, 256) for _ in range(8)]
    data = rng.standard_normal((128, 256), np.float32)
    mine, theirs = Tensor(data), torch.tensor(data)

    def forward(x: Any, net: Any, relu: Any) -> Any:
        for layer in net:
            x = relu(layer(x))
        return x.sum()

    row(
        "forward, recorded",
        lambda: forward(mine, net, activations.relu),
        lambda: forward(theirs, twins, torch.relu),
    )
    row(
        "there and back",
        lambda: forward(mine, net, activations.relu).backward(),
        lambda: forward(theirs, twins, torch.relu).backward(),
    )

    title("a table, and 2,000 of its 1,000 rows of 64")
    table, rows = rng.standard_normal((1000, 64), np.float32), rng.integers(0, 1000, 2000)
    mine, theirs, picked = (
        Tensor(table, requires_grad=True),
        torch.tensor(table, requires_grad=True),
        torch.tensor(rows),
    )
    row(
        "picked, there and back", lambda: mine[rows].sum().backward(), lambda: theirs[picked].sum().backward()
    )


if __name__ == "__main__":
    measure(main, __doc__)
