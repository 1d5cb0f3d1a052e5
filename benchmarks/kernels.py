"""Kata 17 in one table: `python -m benchmarks.kernels`. Every kernel beside its unfused form and PyTorch's.

A figure is how many times the kernel's processor time the other takes: above 1, the kernel is faster. The
roof is what this machine's memory or matrix product would need at the least (float32, one thread); its share
of the time says how much there is left to gain.

`unfused` has been called before, and its C library has learnt to keep the memory of arrays up to 32 MiB.
`new pages` is the same in processes that have not: each array of more than 128 KiB is fetched from the system
page by page, as in the first calls of every program (glibc only).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.beside import images, measure, pairs_of, pytorch, reference
from dojo.curriculum import ROOT

ours: Any = reference("tinytorch.kernels")
reference("tinytorch.autograd")
activations: Any = reference("tinytorch.activations")
layers: Any = reference("tinytorch.layers")
networks: Any = reference("tinytorch.networks")
optimizers: Any = reference("tinytorch.optimizers")
spatial: Any = reference("tinytorch.spatial")
tensor: Any = reference("tinytorch.tensor")
training: Any = reference("tinytorch.training")
measuring: Any = reference("dojo.measuring")

Call = Callable[[], object]
rng = np.random.default_rng(0)
PAIRS = 15
F32 = 4  # bytes


@dataclass(frozen=True)
class Row:
    """A kernel, what it replaces, the same in PyTorch, and the least that it has to do."""

    mine: Call
    unfused: Call
    theirs: Call | None = None
    flops: float = 0.0
    moved: float = 0.0
    fresh: bool = False


def normal(*shape: int) -> Any:
    return rng.standard_normal(shape, np.float32)


def there_and_back(op: Any, arrays: list[Any], grad: Any, **params: Any) -> Call:
    def run() -> Any:
        _, back = op.vjp(*arrays, **params)
        return back(grad)

    return run


def theirs_and_back(function: Callable[..., Any], arrays: list[Any], grad: Any) -> Call:
    torch = pytorch()
    tensors = [torch.tensor(np.ascontiguousarray(a), requires_grad=True) for a in arrays]
    upstream = torch.tensor(np.ascontiguousarray(grad))
    return lambda: torch.autograd.grad(function(*tensors), tensors, upstream.reshape(np.shape(grad)))


def chain(n: int) -> Row:
    """relu(x * 1.5 + 0.25 + y), into an array that is there."""
    torch = pytorch()
    x, y, out = normal(n), normal(n), np.empty(n, np.float32)
    a, b = np.float32(1.5), np.float32(0.25)
    tx, ty = torch.tensor(x), torch.tensor(y)

    def steps(part: Any, x: Any, y: Any) -> None:
        np.multiply(x, a, out=part)
        part += b
        part += y
        np.clip(part, 0, np.inf, out=part)

    return Row(
        lambda: ours.in_chunks(steps, out, x, y),
        lambda: np.maximum(x * a + b + y, 0),
        lambda: torch.relu(tx * 1.5 + 0.25 + ty),
        moved=3 * n * F32,
        fresh=True,
    )


def fused_chain(n: int) -> Row:
    """The same as an op, which makes an array for its result, and its way back."""
    torch = pytorch()
    x, y, grad = normal(n), normal(n), normal(n)

    def unfused() -> Any:
        out = np.maximum(x * np.float32(1.5) + np.float32(0.25) + y, 0)
        back = grad * (out > 0)
        return back * np.float32(1.5), back

    def mine() -> Any:
        _, back = ours.scale_shift_add_relu.vjp(x, 1.5, 0.25, y)
        return back(grad)

    return Row(
        mine,
        unfused,
        theirs_and_back(lambda x, y: torch.relu(x * 1.5 + 0.25 + y), [x, y], grad),
        moved=8 * n * F32,
        fresh=True,
    )


def gelu(n: int) -> Row:
    torch = pytorch()
    x, out = normal(n), np.empty(n, np.float32)
    shown = torch.tensor(x)
    scale, cube = np.float32(np.sqrt(2 / np.pi)), np.float32(0.044715)
    return Row(
        lambda: ours.fast_gelu(x, out=out),
        lambda: np.float32(0.5) * x * (1 + np.tanh(scale * (x + cube * x * x * x))),
        lambda: torch.nn.functional.gelu(shown, approximate="tanh"),
        moved=2 * n * F32,
        fresh=True,
    )


def gelu_beside_04(n: int) -> Row:
    x, out = normal(n), np.empty(n, np.float32)
    return Row(lambda: ours.fast_gelu(x, out=out), lambda: activations.gelu.forward(x), moved=2 * n * F32)


def linear(n: int, inputs: int, outputs: int) -> Row:
    torch = pytorch()
    arrays, grad = [normal(n, inputs), normal(outputs, inputs), normal(outputs)], normal(n, outputs)

    def unfused() -> Any:
        hidden, back = layers.affine.vjp(*arrays)
        _, slope = activations.gelu.vjp(hidden)
        return back(slope(grad))

    return Row(
        there_and_back(ours.linear_gelu, arrays, grad),
        unfused,
        theirs_and_back(
            lambda x, w, b: torch.nn.functional.gelu(torch.nn.functional.linear(x, w, b), approximate="tanh"),
            arrays,
            grad,
        ),
        flops=6.0 * n * inputs * outputs,
        moved=F32 * n * (3 * inputs + 2 * outputs),
    )


def cross_entropy(n: int, classes: int) -> Row:
    torch = pytorch()
    logits, labels, one = normal(n, classes), rng.integers(0, classes, n), np.float32(1)
    places = torch.tensor(labels)
    return Row(
        there_and_back(ours.softmax_cross_entropy, [logits, labels], one),
        there_and_back(training.cross_entropy, [logits, labels], one),
        theirs_and_back(lambda x: torch.nn.functional.cross_entropy(x, places), [logits], one),
        moved=2 * n * classes * F32,
    )


def adam(shapes: list[tuple[int, ...]]) -> Row:
    torch = pytorch()
    mine, plain = ([layers.Parameter(normal(*shape)) for shape in shapes] for _ in range(2))
    others = [torch.nn.Parameter(torch.tensor(p.data)) for p in mine]
    for p, q, other in zip(mine, plain, others, strict=True):
        p.grad = q.grad = normal(*p.shape)
        other.grad = torch.tensor(p.grad)
    return Row(
        ours.FusedAdam(mine).step,
        optimizers.Adam(plain).step,
        torch.optim.Adam(others, fused=True).step,
        moved=7 * F32 * sum(p.size for p in mine),
    )


def convolution(n: int, channels: int, side: int) -> Row:
    torch = pytorch()
    arrays = [images(rng, n, channels, side, side), normal(channels, channels, 3, 3)]
    grad = images(rng, n, channels, side, side)
    return Row(
        there_and_back(ours.winograd_conv2d, arrays, grad),
        there_and_back(spatial.conv2d, arrays, grad, padding=1),
        theirs_and_back(lambda x, w: torch.nn.functional.conv2d(x, w, padding=1), arrays, grad),
        flops=6.0 * 9 * channels**2 * n * side**2 / 4,  # a quarter of the definition's
        moved=5 * F32 * n * channels * side**2,
    )


def product(n: int, block: int) -> Row:
    torch = pytorch()
    a, b = normal(n, n), normal(n, n)
    ta, tb = torch.tensor(a), torch.tensor(b)
    return Row(
        lambda: ours.blocked_matmul(a, b, block),
        lambda: a @ b,
        lambda: ta @ tb,
        flops=2.0 * n**3,
        moved=3.0 * n * n * F32,
    )


def folded(n: int, channels: int, side: int) -> Row:
    torch = pytorch()
    net = networks.Sequential(
        spatial.Conv2d(channels, channels, 3, padding=1, rng=rng), spatial.BatchNorm2d(channels)
    ).eval()
    other = torch.nn.Sequential(
        torch.nn.Conv2d(channels, channels, 3, padding=1), torch.nn.BatchNorm2d(channels)
    ).eval()
    x = tensor.Tensor(images(rng, n, channels, side, side))
    shown, fused = torch.tensor(np.ascontiguousarray(x.data)), ours.fuse(net)
    no_grad: Any = reference("tinytorch.autograd").no_grad

    def theirs() -> Any:
        with torch.no_grad():
            return other(shown)

    def quietly(model: Any) -> Call:
        def run() -> Any:
            with no_grad():
                return model(x)

        return run

    flops = 2.0 * 9 * channels**2 * n * side**2
    return Row(quietly(fused), quietly(net), theirs, flops=flops, moved=2 * F32 * n * channels * side**2)


ROWS: dict[str, Callable[[], Row]] = {
    "relu(x*a + b + y), 16 thousand": lambda: chain(1 << 14),
    "relu(x*a + b + y), 1 million": lambda: chain(1 << 20),
    "relu(x*a + b + y), 16 million": lambda: chain(1 << 24),
    "scale_shift_add_relu there and back, 1 M": lambda: fused_chain(1 << 20),
    "gelu, 16 thousand": lambda: gelu(1 << 14),
    "gelu, 1 million": lambda: gelu(1 << 20),
    "gelu, 16 million": lambda: gelu(1 << 24),
    "gelu, 1 million, against kata 04's": lambda: gelu_beside_04(1 << 20),
    "linear_gelu there and back, (4096, 128) to 512": lambda: linear(4096, 128, 512),
    "softmax_cross_entropy, (4096, 65)": lambda: cross_entropy(4096, 65),
    "softmax_cross_entropy, (256, 50257)": lambda: cross_entropy(256, 50_257),
    "FusedAdam, 304 tensors, 0.1 M": lambda: adam([(128, 128)] * 4 + [(128,)] * 300),
    "FusedAdam, 8 tensors, 2.1 M": lambda: adam([(512, 512)] * 8),
    "winograd there and back, 64 to 64, (128, 64, 32, 32)": lambda: convolution(128, 64, 32),
    "winograd there and back, 128 to 128, (128, 128, 8, 8)": lambda: convolution(128, 128, 8),
    "winograd there and back, 16 to 16, (128, 16, 32, 32)": lambda: convolution(128, 16, 32),
    "conv and batch norm folded, 32 to 32, (64, 32, 32, 32)": lambda: folded(64, 32, 32),
    "blocked_matmul, 1024, block 256": lambda: product(1024, 256),
    "blocked_matmul, 1024, block 64": lambda: product(1024, 64),
}


def times(mine: Call, other: Call) -> float:
    """How many times as long the other takes: the median over pairs."""
    return 1 / statistics.median(pairs_of(mine, other, PAIRS)[0])


def alone(name: str) -> float:
    """How many times as long the unfused form takes where large arrays are not kept, in processes apart."""
    took, apart = [], {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 17)}
    for which in ("mine", "unfused"):
        code = f"from benchmarks import kernels; print(kernels.milliseconds({name!r}, {which!r}))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=apart,
            capture_output=True,
            text=True,
            check=True,
        )
        took.append(json.loads(done.stdout))
    return float(took[1] / took[0])


def milliseconds(name: str, which: str) -> float:
    """The median of some calls."""
    call, took = getattr(ROWS[name](), which), []
    for _ in range(2 * PAIRS):
        begin = time.process_time()
        call()
        took.append(time.process_time() - begin)
    return 1e3 * statistics.median(took)


def threads() -> None:
    """Wall time of gelu over 16 million numbers by two threads and by one."""
    x, out, took = normal(1 << 24), np.empty(1 << 24, np.float32), {1: [], 2: []}  # type: ignore[var-annotated]
    for _ in range(PAIRS):
        for count, seconds in took.items():
            begin = time.perf_counter()
            ours.fast_gelu(x, out=out, threads=count)
            seconds.append(time.perf_counter() - begin)
    one, two = (1e3 * statistics.median(seconds) for seconds in took.values())
    print(
        f"gelu, 16 million, wall time by 2 threads: {two:.1f} ms, by 1: {one:.1f} ms, {one / two:.2f} times"
    )


def main() -> None:
    roof = measuring.measure_roofline()
    print(
        f"memory {roof.bandwidth / 1e9:.1f} GB/s, matrix product {roof.float32 / 1e9:.0f} GFLOP/s\n\n"
        f"{'':56}{'ms':>8}{'unfused':>9}{'new pages':>11}{'PyTorch':>9}{'of roof':>9}"
    )
    for name, make in ROWS.items():
        row = make()
        _, ms, _ = (1e3 * statistics.median(part) for part in pairs_of(row.mine, row.mine, 7))
        unfused = f"{times(row.mine, row.unfused):.2f}"
        fresh = f"{alone(name):.2f}" if row.fresh else ""
        theirs = f"{times(row.mine, row.theirs):.2f}" if row.theirs else ""
        least, bound = roof.seconds(row.flops, row.moved, "float32")
        share = f"{1e5 * least / ms:.0f} % {bound[:3]}"
        print(f"{name:56}{ms:8.3f}{unfused:>9}{fresh:>11}{theirs:>9}{share:>10}", flush=True)
        del row
    threads()


if __name__ == "__main__":
    measure(main, __doc__)
