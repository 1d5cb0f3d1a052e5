"""What kata 03 measures: products of matrices by size and by shape, and what walking over a model costs."""

import numpy as np

from dojo.measuring import Probe
from tinytorch.layers import Linear, Module, affine

SIDES = (64, 128, 256, 512)
ROWS = (32, 64, 128, 256)
COUNTS = (64, 128, 256, 512)
LARGE_SIDES = (256, 512, 1024, 2048)
WIDTH = 1024  # 4 MiB of weights, which do not stay near the core
F32 = 4  # bytes


def square(n, rng):
    return rng.random((n, n), np.float32), rng.random((n, n), np.float32)


def there_and_back(x, weight):
    out, back = affine.vjp(x, weight)
    return back(out)


def rows(n, rng):
    return rng.random((n, WIDTH), np.float32), rng.random((WIDTH, WIDTH), np.float32)


def row_by_row(x, weight):
    """The same numbers, but all weights are read again for each row."""
    return np.stack([affine(row, weight).data for row in x])


def pairs(n, rng):
    return rng.random((n // 2, 2, WIDTH), np.float32), rng.random((WIDTH, WIDTH), np.float32)


def layers(n, rng):
    """n layers of 16 x 16, in blocks of 8."""
    net = Module()
    net.blocks = [[Linear(16, 16, rng=rng) for _ in range(8)] for _ in range(n // 8)]
    return (net,)


def one_layer(n, rng):
    layer = Linear(n, n, rng=rng)
    return layer, {name: array + 1 for name, array in layer.state_dict().items()}


PROBES = (
    Probe(
        "affine (n, n) by (n, n)",
        SIDES,
        prepare=square,
        call=lambda x, weight: affine(x, weight),
        time=3,
        memory=2,
        flops=lambda n: 2 * n**3,
        moved=lambda n: 3 * F32 * n * n,
        torch=lambda x, weight: __import__("torch").nn.functional.linear(x, weight),
    ),
    Probe(
        "affine (n, n) there and back",
        SIDES,
        prepare=square,
        call=there_and_back,
        time=3,
        memory=2,
        flops=lambda n: 6 * n**3,
        moved=lambda n: 9 * F32 * n * n,
    ),
    Probe(
        "affine of n rows, (n, 1024) by (1024, 1024)",
        ROWS,
        prepare=rows,
        call=lambda x, weight: affine(x, weight),
        time=1,
        memory=1,
        flops=lambda n: 2 * n * WIDTH**2,
        moved=lambda n: F32 * (2 * n * WIDTH + WIDTH**2),
        torch=lambda x, weight: __import__("torch").nn.functional.linear(x, weight),
    ),
    Probe(
        "affine of n rows, one at a time",
        ROWS,
        prepare=rows,
        call=row_by_row,
        time=1,
        memory=1,
        flops=lambda n: 2 * n * WIDTH**2,
        moved=lambda n: F32 * n * (2 * WIDTH + WIDTH**2),
    ),
    Probe(
        "affine of n rows in pairs, (n / 2, 2, 1024)",
        ROWS,
        prepare=pairs,
        call=lambda x, weight: affine(x, weight),
        time=1,
        memory=1,
        flops=lambda n: 2 * n * WIDTH**2,
        moved=lambda n: F32 * (2 * n * WIDTH + WIDTH**2),
        torch=lambda x, weight: __import__("torch").nn.functional.linear(x, weight),
    ),
    Probe(
        "affine of n rows in pairs, by x @ weight.T",
        ROWS,
        prepare=pairs,
        call=lambda x, weight: x @ weight.T,
        time=1,
        memory=1,
        flops=lambda n: 2 * n * WIDTH**2,
        moved=lambda n: F32 * (2 * n * WIDTH + n // 2 * WIDTH**2),
    ),
    Probe(
        "Linear(n, n)",
        SIDES,
        prepare=lambda n, rng: (n, rng),
        call=lambda n, rng: Linear(n, n, rng=rng),
        time=2,
        memory=2,
        moved=lambda n: F32 * n * n,
    ),
    Probe(
        "parameters of n layers",
        COUNTS,
        prepare=layers,
        call=lambda net: list(net.parameters()),
        time=1,
        memory=1,
    ),
    Probe(
        "state_dict of a layer (n, n)",
        LARGE_SIDES,
        prepare=one_layer,
        call=lambda layer, state: layer.state_dict(),
        time=0,
        memory=0,
    ),
    Probe(
        "load_state_dict into a layer (n, n)",
        SIDES,
        prepare=one_layer,
        call=lambda layer, state: layer.load_state_dict(state),
        time=2,
        memory=0,
        moved=lambda n: 2 * F32 * n * n,
    ),
)
