"""What kata 07 measures: convolution by size, channels and kernel; pooling, batch norm, orders in memory."""

import numpy as np

from dojo.measuring import Probe
from tinytorch.spatial import batch_norm, conv2d, conv2d_loops, max_pool2d

SIDES = (16, 32, 64, 128)
CHANNELS = (16, 32, 64, 128)
KERNELS = (1, 3, 5, 7)
BATCHES = (8, 16, 32, 64)
F32 = 4  # bytes


def draw(rng, n, channels, side):
    """Images, channels-last in memory."""
    return rng.random((n, side, side, channels), np.float32).transpose(0, 3, 1, 2)


def kernels(rng, outputs, inputs, side=3):
    return rng.random((outputs, inputs, side, side), np.float32)


def there(x, weight):
    return conv2d(x, weight, padding=weight.shape[2] // 2)


def there_and_back(x, weight):
    out, back = conv2d.vjp(x, weight, padding=weight.shape[2] // 2)
    return back(out)


def torch_there(x, weight):
    return __import__("torch").nn.functional.conv2d(x, weight, padding=weight.shape[2] // 2)


def pooled_and_back(x):
    out, back = max_pool2d.vjp(x, kernel=2)
    return back(out)


def normed_and_back(x, weight, bias):
    out, back = batch_norm.vjp(x, weight, bias)
    return back(out)


PROBES = (
    Probe(
        "conv2d 3x3 of (8, 16, n, n)",
        SIDES,
        prepare=lambda n, rng: (draw(rng, 8, 16, n), kernels(rng, 16, 16)),
        call=there,
        time=2,
        memory=2,
        flops=lambda n: 2 * 8 * n * n * 16 * 16 * 9,
        moved=lambda n: 2 * F32 * 8 * 16 * n * n,
        torch=torch_there,
    ),
    Probe(
        "conv2d 3x3 of (8, n, 32, 32) to n channels",
        CHANNELS,
        prepare=lambda n, rng: (draw(rng, 8, n, 32), kernels(rng, n, n)),
        call=there,
        time=2,
        memory=1,
        flops=lambda n: 2 * 8 * 32 * 32 * n * n * 9,
        moved=lambda n: F32 * (2 * 8 * 32 * 32 * n + 9 * n * n),
        torch=torch_there,
    ),
    Probe(
        "conv2d n x n of (8, 32, 32, 32)",
        KERNELS,
        prepare=lambda n, rng: (draw(rng, 8, 32, 32), kernels(rng, 32, 32, n)),
        call=there,
        time=2,
        memory=0,
        flops=lambda n: 2 * 8 * 32 * 32 * 32 * 32 * n * n,
        moved=lambda n: 2 * F32 * 8 * 32 * 32 * 32,
        torch=torch_there,
    ),
    Probe(
        "conv2d 3x3 of (n, 32, 32, 32)",
        BATCHES,
        prepare=lambda n, rng: (draw(rng, n, 32, 32), kernels(rng, 32, 32)),
        call=there,
        time=1,
        memory=1,
        flops=lambda n: 2 * n * 32 * 32 * 32 * 32 * 9,
        moved=lambda n: 2 * F32 * n * 32 * 32 * 32,
        torch=torch_there,
    ),
    Probe(
        "conv2d 3x3 of (n, 32, 32, 32) there and back",
        BATCHES,
        prepare=lambda n, rng: (draw(rng, n, 32, 32), kernels(rng, 32, 32)),
        call=there_and_back,
        time=1,
        memory=1,
        flops=lambda n: 6 * n * 32 * 32 * 32 * 32 * 9,
        moved=lambda n: 5 * F32 * n * 32 * 32 * 32,
    ),
    Probe(
        "conv2d_loops 3x3 of (1, 2, n, n)",
        (8, 16, 32),
        prepare=lambda n, rng: (draw(rng, 1, 2, n), kernels(rng, 2, 2)),
        call=lambda x, weight: conv2d_loops(x, weight, padding=1),
        time=2,
        memory=2,
        flops=lambda n: 2 * n * n * 2 * 2 * 9,
        moved=lambda n: 2 * F32 * 2 * n * n,
    ),
    Probe(
        "max_pool2d 2x2 of (8, 32, n, n) there and back",
        SIDES,
        prepare=lambda n, rng: (draw(rng, 8, 32, n),),
        call=pooled_and_back,
        time=2,
        memory=2,
        moved=lambda n: 3.5 * F32 * 8 * 32 * n * n,
    ),
    Probe(
        "batch_norm of (8, 32, n, n) there and back",
        SIDES,
        prepare=lambda n, rng: (draw(rng, 8, 32, n), np.ones(32, np.float32), np.zeros(32, np.float32)),
        call=normed_and_back,
        time=2,
        memory=2,
        moved=lambda n: 5 * F32 * 8 * 32 * n * n,
    ),
    Probe(
        "batch_norm of (8, 32, n, n), channels first in memory",
        SIDES,
        prepare=lambda n, rng: (
            np.ascontiguousarray(draw(rng, 8, 32, n)),
            np.ones(32, np.float32),
            np.zeros(32, np.float32),
        ),
        call=normed_and_back,
        time=2,
        memory=2,
        moved=lambda n: 5 * F32 * 8 * 32 * n * n,
    ),
)
