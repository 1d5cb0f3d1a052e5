"""Kata 08 beside PyTorch: `python -m benchmarks.optimizers`. Ratios below 1 are ours to be proud of.

`Adam, joined and cut` is reference/alternatives/08_optimizers/joined_and_cut.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.beside import measure, pytorch, reference, row, title

ours: Any = reference("tinytorch.optimizers")
compose: Any = reference("dojo.compose")
curriculum: Any = reference("dojo.curriculum")
alternatives = curriculum.ROOT / "reference" / "alternatives" / "08_optimizers"
joined: Any = compose.load_file(alternatives / "joined_and_cut.py")
torch: Any = pytorch()

SHAPES = {
    "304 tensors, 0.1 M parameters": [(128, 128)] * 4 + [(128,)] * 300,
    "64 tensors, 0.8 M parameters": [(128, 128)] * 16 + [(512, 128), (128, 512)] * 4 + [(128,)] * 40,
    "8 tensors, 2.1 M parameters": [(512, 512)] * 8,
    "1 tensor, 8.4 M parameters": [(2048, 4096)],
}


def pairs(shapes: list[tuple[int, ...]]) -> tuple[list[Any], list[Any]]:
    """Parameters of ours and PyTorch's, with gradients."""
    rng = np.random.default_rng(0)
    mine = [ours.Parameter(rng.standard_normal(shape, np.float32)) for shape in shapes]
    theirs = [torch.nn.Parameter(torch.tensor(p.data)) for p in mine]
    for p, tensor in zip(mine, theirs, strict=True):
        p.grad = rng.standard_normal(p.shape, np.float32)
        tensor.grad = torch.tensor(p.grad)
    return mine, theirs


def compare(
    label: str,
    name: str,
    shapes: list[tuple[int, ...]],
    target: float | None,
    library: Any = ours,
    **options: Any,
) -> None:
    mine, theirs = pairs(shapes)
    kind = {} if name == "RMSprop" else {"fused": True}  # RMSprop has no fused kernel
    step = getattr(library, name)(mine, **options).step
    row(label, step, getattr(torch.optim, name)(theirs, **options, **kind).step, target)


def main() -> None:
    for label, shapes in SHAPES.items():
        title(f"{label}, float32, against PyTorch's fused kernels")
        target = {304: 0.3, 8: 2.2}.get(len(shapes))
        compare("SGD", "SGD", shapes, None, lr=1e-3)
        compare("SGD, momentum", "SGD", shapes, None, lr=1e-3, momentum=0.9)
        compare("RMSprop (not fused)", "RMSprop", shapes, None, lr=1e-3)
        compare("Adam", "Adam", shapes, target, lr=1e-3)
        compare("Adam, joined and cut", "Adam", shapes, target, joined, lr=1e-3)
        compare("AdamW", "AdamW", shapes, None, lr=1e-3)
    title("clipping")
    for label, shapes in SHAPES.items():
        mine, theirs = pairs(shapes)
        row(
            f"clip_grad_norm_, {label}",
            lambda mine=mine: ours.clip_grad_norm_(mine, 1.0),
            lambda theirs=theirs: torch.nn.utils.clip_grad_norm_(theirs, 1.0),
        )


if __name__ == "__main__":
    measure(main, __doc__)
