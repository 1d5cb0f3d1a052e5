"""What kata 05 measures: what depth costs with and without a tape, and what it takes to draw weights."""

import numpy as np

from dojo.measuring import Probe
from tinytorch.activations import ReLU
from tinytorch.layers import Linear
from tinytorch.networks import (
    Sequential,
    Tape,
    kaiming_normal_,
    loss_and_gradient,
    orthogonal_,
    train_step,
)
from tinytorch.tensor import Tensor

DEPTHS = (4, 8, 16, 32)  # pairs of Linear and ReLU
WIDTH, ROWS = 64, 512
SIDES = (64, 128, 256, 512)
F32 = 4  # bytes
LAYER = 2 * ROWS * WIDTH**2  # flops of one Linear


def deep(n, rng):
    """A network of n pairs, and a batch for it: each activation is 128 KiB."""
    layers = [layer for _ in range(n) for layer in (Linear(WIDTH, WIDTH, rng=rng), ReLU())]
    return Sequential(*layers), Tensor(rng.random((ROWS, WIDTH), np.float32))


def deep_and_labels(n, rng):
    return (*deep(n, rng), rng.integers(0, WIDTH, ROWS))


def on_a_tape(net, x):
    """The forward pass of training: what comes back holds all that the way back needs."""
    with Tape() as tape:
        out = net(x)
    return tape, out


def there_and_back(net, x):
    tape, out = on_a_tape(net, x)
    return tape.walk_back(np.ones_like(out.data))


def square(n, rng):
    return Tensor(np.empty((n, n), np.float32)), rng


PROBES = (
    Probe(
        "forward, n layers",
        DEPTHS,
        prepare=deep,
        call=lambda net, x: net(x),
        time=1,
        memory=0,
        flops=lambda n: n * LAYER,
    ),
    Probe(
        "forward on a tape, n layers",
        DEPTHS,
        prepare=deep,
        call=on_a_tape,
        time=1,
        memory=1,
        flops=lambda n: n * LAYER,
    ),
    Probe(
        "there and back, n layers",
        DEPTHS,
        prepare=deep,
        call=there_and_back,
        time=1,
        memory=1,
        flops=lambda n: 3 * n * LAYER,
    ),
    Probe(
        "train_step, n layers",
        DEPTHS,
        prepare=deep_and_labels,
        call=lambda net, x, labels: train_step(net, x, labels, 0.01),
        time=1,
        memory=1,
        flops=lambda n: 3 * n * LAYER,
    ),
    Probe(
        "loss_and_gradient, n rows of 64",
        (256, 512, 1024, 2048),
        prepare=lambda n, rng: (rng.random((n, 64), np.float32), rng.integers(0, 64, n)),
        call=loss_and_gradient,
        time=1,
        memory=1,
        moved=lambda n: 2 * F32 * 64 * n,
    ),
    Probe(
        "kaiming_normal_ (n, n)",
        SIDES,
        prepare=square,
        call=lambda weight, rng: kaiming_normal_(weight, rng=rng),
        time=2,
        memory=2,
        moved=lambda n: F32 * n * n,
    ),
    Probe(
        "orthogonal_ (n, n)",
        SIDES,
        prepare=square,
        call=lambda weight, rng: orthogonal_(weight, rng=rng),
        time=3,
        memory=2,
        flops=lambda n: 8 / 3 * n**3,
    ),
)
