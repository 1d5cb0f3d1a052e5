"""What kata 17 measures: chains in pieces, fused operations, flat Adam, and a convolution by tiles.

And how its tests let threads meet.
"""

import contextlib
import threading

import numpy as np

from dojo.measuring import Probe
from tinytorch.kernels import (
    FusedAdam,
    add_relu,
    blocked_matmul,
    fast_gelu,
    linear_gelu,
    scale_shift_add_relu,
    softmax_cross_entropy,
    winograd_conv2d,
)
from tinytorch.layers import Parameter

LONG = (1 << 18, 1 << 19, 1 << 20, 1 << 21)
ROWS = (512, 1024, 2048, 4096)
CLASSES = (256, 512, 1024, 2048)
SIDES = (16, 32, 64, 128)
MATRICES = (128, 256, 512, 1024)
COUNTS = (1 << 16, 1 << 17, 1 << 18, 1 << 19)
F32 = 4  # bytes


def let_meet(monkeypatch, name):
    """Whenever a thread comes to this function of numpy, it waits for another: both are in its midst."""
    together, right = threading.Barrier(2), getattr(np, name)

    def waiting(*args, **options):
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(timeout=0.5)
        return right(*args, **options)

    monkeypatch.setattr(np, name, waiting)


def normal(rng, *shape):
    return rng.standard_normal(shape, np.float32)


def torch():
    return __import__("torch")


def there_and_back(op, *arrays):
    out, back = op.vjp(*arrays)
    return back(out)


def optimizer(rng, n):
    """n parameters in eight arrays, with gradients; one step was made, so that all memory is there."""
    params = [Parameter(normal(rng, n // 8)) for _ in range(8)]
    for p in params:
        p.grad = normal(rng, *p.shape)
    made = FusedAdam(params)
    made.step()
    return made


PROBES = (
    Probe(
        "fast_gelu of n numbers, into out",
        LONG,
        prepare=lambda n, rng: (normal(rng, n), np.empty(n, np.float32)),
        call=lambda x, out: fast_gelu(x, out=out),
        time=1,
        memory=0,
        moved=lambda n: 2 * n * F32,
        torch=lambda x, out: torch().nn.functional.gelu(x, approximate="tanh"),
    ),
    Probe(
        "scale_shift_add_relu of n numbers",
        LONG,
        prepare=lambda n, rng: (normal(rng, n), normal(rng, n)),
        call=lambda x, y: scale_shift_add_relu(x, 1.5, 0.25, y),
        time=1,
        memory=1,
        flops=lambda n: 4 * n,
        moved=lambda n: 3 * n * F32,
        torch=lambda x, y: torch().relu(x * 1.5 + 0.25 + y),
    ),
    Probe(
        "add_relu of n numbers, there and back",
        LONG,
        prepare=lambda n, rng: (normal(rng, n), normal(rng, n)),
        call=lambda x, y: there_and_back(add_relu, x, y),
        time=1,
        memory=1,
        moved=lambda n: 6 * n * F32,
    ),
    Probe(
        "linear_gelu of n rows, 64 to 256, there and back",
        ROWS,
        prepare=lambda n, rng: (normal(rng, n, 64), normal(rng, 256, 64), normal(rng, 256)),
        call=lambda x, weight, bias: there_and_back(linear_gelu, x, weight, bias),
        time=1,
        memory=1,
        flops=lambda n: 8 * n * 64 * 256,
        moved=lambda n: F32 * n * (3 * 64 + 2 * 256),
    ),
    Probe(
        "softmax_cross_entropy of (256, n)",
        CLASSES,
        prepare=lambda n, rng: (normal(rng, 256, n), rng.integers(0, n, 256)),
        call=lambda logits, labels: softmax_cross_entropy(logits, labels),
        time=1,
        memory=1,
        moved=lambda n: 2 * 256 * n * F32,
        torch=lambda logits, labels: torch().nn.functional.cross_entropy(logits, labels),
    ),
    Probe(
        "a step of FusedAdam, n parameters in eight arrays",
        COUNTS,
        prepare=lambda n, rng: (optimizer(rng, n),),
        call=lambda made: made.step(),
        time=1,
        memory=0,
        moved=lambda n: 7 * n * F32,
    ),
    Probe(
        "winograd_conv2d of (1, 32, n, n), 32 to 32",
        SIDES,
        prepare=lambda n, rng: (normal(rng, 1, n, n, 32).transpose(0, 3, 1, 2), normal(rng, 32, 32, 3, 3)),
        call=lambda x, weight: winograd_conv2d(x, weight),
        time=2,
        memory=2,
        flops=lambda n: 2 * 9 * 32 * 32 * n * n / 4,
        moved=lambda n: 2 * 32 * n * n * F32,
        torch=lambda x, weight: torch().nn.functional.conv2d(x, weight, padding=1),
    ),
    Probe(
        "blocked_matmul of n x n, block 128",
        MATRICES,
        prepare=lambda n, rng: (normal(rng, n, n), normal(rng, n, n)),
        call=lambda a, b: blocked_matmul(a, b, 128),
        time=3,
        memory=2,
        flops=lambda n: 2 * n**3,
        moved=lambda n: 3 * n * n * F32,
        torch=lambda a, b: a @ b,
    ),
)
