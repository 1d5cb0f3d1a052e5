"""Kata 13 beside PyTorch: `python -m benchmarks.attention`. Ratios below 1 are ours to be proud of.

In float32, one thread. Causal attention of 4 heads there and back, beside PyTorch's own fused kernel, with
the bytes that ours takes at its worst moment, result and gradients included; other kinds of attention; and
generation: one query against a long text.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.beside import measure, pytorch, reference, row, title

ours: Any = reference("tinytorch.attention")
autograd: Any = reference("tinytorch.autograd")
tensor: Any = reference("tinytorch.tensor")
torch: Any = pytorch()
functional = torch.nn.functional
rng = np.random.default_rng(0)
MIB = 1 << 20
PEAK = 20.0  # MiB, at 4,096 positions
TARGET = 1.2


def draw(heads: int, queries: int, keys: int, kv_heads: int, width: int = 64, batch: int = 1) -> list[Any]:
    shapes = (batch, heads, queries, width), (batch, kv_heads, keys, width), (batch, kv_heads, keys, width)
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def theirs(arrays: list[Any], grad: Any = None, **params: Any) -> Callable[[], Any]:
    """PyTorch's call on the same numbers; there and back if there is a gradient to bring."""
    tensors = [torch.tensor(a, requires_grad=grad is not None) for a in arrays]
    upstream = None if grad is None else torch.tensor(grad)

    def run() -> Any:
        out = functional.scaled_dot_product_attention(*tensors, **params)
        return out if upstream is None else torch.autograd.grad(out, tensors, upstream)

    return run


def mebibytes(function: Callable[[], Any]) -> float:
    function()
    tracemalloc.start(1)
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


def there_and_back(arrays: list[Any], grad: Any, **params: Any) -> Any:
    out, back = ours.fused_attention.vjp(*arrays, **params)
    return out, back(grad)


def all_at_once(arrays: list[Any], grad: Any) -> Any:
    tensors = [tensor.Tensor(a, True) for a in arrays]
    ours.scaled_dot_product_attention(*tensors, is_causal=True).backward(grad)
    return tensors


def main() -> None:
    title("fused_attention, causal, (1, 4, T, 64), there and back")
    peaks = []
    for length in (512, 2048, 4096):
        arrays, grad = draw(4, length, length, 4), draw(4, length, 1, 1)[0]

        def mine(arrays: list[Any] = arrays, grad: Any = grad) -> Any:
            return there_and_back(arrays, grad, is_causal=True)

        row(f"T = {length}", mine, theirs(arrays, grad, is_causal=True), TARGET)
        peaks.append((length, mebibytes(mine)))
        if length < 4096:
            peaks.append((-length, mebibytes(lambda arrays=arrays, grad=grad: all_at_once(arrays, grad))))
    for length, peak in peaks:
        wanted = f"   <= {PEAK:g}{'' if peak <= PEAK else '  missed'}" if length == 4096 else ""
        how = "peak" if length > 0 else "peak, all weights at once"
        print(f"{how + f', T = {abs(length)}':44}{peak:7.1f} MiB{wanted}")

    title("other kinds, there and back")
    arrays, grad = draw(4, 1024, 1024, 4), draw(4, 1024, 1, 1)[0]
    row("no mask, T = 1024", lambda: there_and_back(arrays, grad), theirs(arrays, grad))
    mask = ours.padding_mask([700], 1024)
    row(
        "padding, T = 1024",
        lambda: there_and_back(arrays, grad, mask=mask),
        theirs(arrays, grad, attn_mask=torch.tensor(mask)),
    )
    shared, grad_8 = draw(8, 1024, 1024, 2), draw(8, 1024, 1, 1)[0]
    row(
        "8 heads that share 2, causal, T = 1024",
        lambda: there_and_back(shared, grad_8, is_causal=True),
        theirs(shared, grad_8, is_causal=True, enable_gqa=True),
    )
    small, grad_small = draw(4, 128, 128, 4, 32, batch=32), draw(4, 128, 1, 1, 32, batch=32)[0]
    row(
        "32 texts of 128, 4 heads of 32, causal",
        lambda: there_and_back(small, grad_small, is_causal=True),
        theirs(small, grad_small, is_causal=True),
    )

    title("one query of 8 heads that share 2, forward")
    for keys in (256, 1024, 4096):
        one = draw(8, 1, keys, 2)
        row(f"{keys} keys", lambda one=one: ours.fused_attention(*one), theirs(one, enable_gqa=True))


if __name__ == "__main__":
    measure(main, __doc__)
