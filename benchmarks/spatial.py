"""Kata 07 beside PyTorch: `python -m benchmarks.spatial`. Ratios below 1 are ours to be proud of.

There and back, in float32. PyTorch gets images in the order of memory that is its default, and in rows with
(nhwc) in the order that is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.beside import images, measure, pytorch, reference, row, title

ours: Any = reference("tinytorch.spatial")
torch: Any = pytorch()
functional = torch.nn.functional
rng = np.random.default_rng(0)


def compare(
    name: str,
    mine: Any,
    theirs: Callable[..., Any],
    arrays: list[Any],
    target: float | None = None,
    **params: Any,
) -> None:
    """A row for PyTorch's default order and one for channels-last, the same numbers in both."""
    out, _ = mine.vjp(*arrays, **params)
    grad = images(rng, *out.shape)

    def ours_both_ways() -> Any:
        _, back = mine.vjp(*arrays, **params)
        return back(grad)

    for order, memory in (("", torch.contiguous_format), (" (nhwc)", torch.channels_last)):
        tensors = [
            torch.tensor(a).contiguous(memory_format=memory if a.ndim == 4 else torch.contiguous_format)
            for a in arrays
        ]
        upstream = torch.tensor(grad).contiguous(memory_format=memory)
        for tensor in tensors:
            tensor.requires_grad_()

        def theirs_both_ways(tensors: Any = tensors, upstream: Any = upstream) -> Any:
            return torch.autograd.grad(theirs(*tensors), tensors, upstream)

        row(name + order, ours_both_ways, theirs_both_ways, target if not order else None)


def main() -> None:
    def convolution(
        name: str, n: int, ins: int, side: int, outs: int, kernel: int = 3, **params: Any
    ) -> None:
        target = params.pop("target", None)
        groups = params.get("groups", 1)
        weight = rng.standard_normal((outs, ins // groups, kernel, kernel), np.float32)
        arrays = [images(rng, n, ins, side, side), weight, rng.standard_normal(outs, np.float32)]
        compare(name, ours.conv2d, lambda *t: functional.conv2d(*t, **params), arrays, target, **params)

    title("conv2d, there and back")
    convolution("3x3, 64 to 64, (128, 64, 32, 32)", 128, 64, 32, 64, padding=1, target=1.5)
    convolution("3x3, 64 to 64, (128, 64, 16, 16)", 128, 64, 16, 64, padding=1, target=1.5)
    convolution("3x3, 128 to 128, (128, 128, 8, 8)", 128, 128, 8, 128, padding=1)
    convolution("3x3, 16 to 16, (128, 16, 32, 32)", 128, 16, 32, 16, padding=1)
    convolution("3x3, 3 to 64, (128, 3, 32, 32)", 128, 3, 32, 64, padding=1)
    convolution("3x3, stride 2, (128, 64, 32, 32)", 128, 64, 32, 64, padding=1, stride=2)
    convolution("1x1, 64 to 64, (128, 64, 32, 32)", 128, 64, 32, 64, kernel=1)
    convolution("3x3, 4 groups, (128, 64, 16, 16)", 128, 64, 16, 64, padding=1, groups=4)
    convolution("3x3, 64 groups, (128, 64, 16, 16)", 128, 64, 16, 64, padding=1, groups=64)

    title("pooling, there and back")
    for side in (16, 32):
        shape = f"(128, 64, {side}, {side})"
        x = [images(rng, 128, 64, side, side)]
        compare(f"max 2x2, {shape}", ours.max_pool2d, lambda t: functional.max_pool2d(t, 2), x, 0.6, kernel=2)
        compare(f"avg 2x2, {shape}", ours.avg_pool2d, lambda t: functional.avg_pool2d(t, 2), x, kernel=2)
    params = {"kernel": 3, "stride": 2, "padding": 1}
    compare(f"max 3x3, {shape}", ours.max_pool2d, lambda t: functional.max_pool2d(t, 3, 2, 1), x, **params)

    title("batch norm, there and back")
    for side in (16, 32):
        arrays = [images(rng, 128, 64, side, side), *rng.standard_normal((2, 64), np.float32)]
        compare(
            f"(128, 64, {side}, {side})",
            ours.batch_norm,
            lambda x, w, b: functional.batch_norm(x, None, None, w, b, True),
            arrays,
            1.2,
        )


if __name__ == "__main__":
    measure(main, __doc__)
