"""What is measured in kata 18: masks, grids, products and layers, over the size of what they are of."""

import numpy as np

from dojo.measuring import Probe
from tinytorch.autograd import no_grad
from tinytorch.compression import (
    QuantizedLinear,
    distillation_loss,
    integer_matmul,
    magnitude_mask,
    quantize,
    shrink_mlp,
)
from tinytorch.layers import Linear
from tinytorch.networks import MLP
from tinytorch.tensor import Tensor

F32 = 4
COUNTS = (1 << 14, 1 << 16, 1 << 18)
WIDTHS = (128, 256, 512)


def table(rng, *shape):
    return rng.standard_normal(shape, np.float32)


def bytes_of(rng, *shape):
    return rng.integers(-127, 128, shape).astype(np.int8)


def used(layer, x):
    with no_grad():
        return layer(x)


def quantized(n, rng, **options):
    return QuantizedLinear(Linear(n, n, rng=rng), **options), Tensor(table(rng, 64, n))


def there_and_back(*arrays):
    out, back = distillation_loss.vjp(*arrays)
    return back(out)


PROBES = (
    Probe(
        "magnitude_mask of n weights",
        COUNTS,
        prepare=lambda n, rng: (table(rng, n),),
        call=lambda weight: magnitude_mask(weight, 0.9),
        time=1,
        memory=1,
        moved=lambda n: F32 * 3 * n,
    ),
    Probe(
        "quantize (n, n), a scale a row",
        WIDTHS,
        prepare=lambda n, rng: (table(rng, n, n),),
        call=lambda x: quantize(x, axis=0),
        time=2,
        memory=2,
        moved=lambda n: (3 * F32 + 1) * n * n,
    ),
    Probe(
        "dequantize (n, n)",
        WIDTHS,
        prepare=lambda n, rng: (quantize(table(rng, n, n), axis=0),),
        call=lambda q: q.dequantize(),
        time=2,
        memory=2,
        moved=lambda n: (1 + F32) * n * n,
    ),
    Probe(
        "integer_matmul (n, n)",
        WIDTHS,
        prepare=lambda n, rng: (bytes_of(rng, n, n), bytes_of(rng, n, n)),
        call=integer_matmul,
        time=3,
        memory=2,
        flops=lambda n: 2 * n**3,
        moved=lambda n: (2 + 2 * F32 + 8) * n * n,
    ),
    Probe(
        "Linear (n, n), 64 rows",
        WIDTHS,
        prepare=lambda n, rng: (Linear(n, n, rng=rng), Tensor(table(rng, 64, n))),
        call=used,
        time=2,
        memory=1,
        flops=lambda n: 2 * 64 * n * n,
        moved=lambda n: F32 * (n * n + 2 * 64 * n),
    ),
    Probe(
        "QuantizedLinear (n, n), 64 rows",
        WIDTHS,
        prepare=quantized,
        call=used,
        time=2,
        memory=1,
        flops=lambda n: 2 * 64 * n * n,
        moved=lambda n: n * n + F32 * 2 * 64 * n,
    ),
    Probe(
        "QuantizedLinear (n, n) with a range, 64 rows",
        WIDTHS,
        prepare=lambda n, rng: quantized(n, rng, input_range=(-4.0, 4.0)),
        call=used,
        time=2,
        memory=2,
        flops=lambda n: 2 * 64 * n * n,
        moved=lambda n: n * n + F32 * 3 * 64 * n,
    ),
    Probe(
        "an MLP (n, n, n), half of its neurons",
        WIDTHS,
        prepare=lambda n, rng: (shrink_mlp(MLP([n, n, n], rng=rng), 0.5), Tensor(table(rng, 64, n))),
        call=used,
        time=2,
        memory=1,
        flops=lambda n: 2 * 64 * n * n,
        moved=lambda n: F32 * (n * n + 3 * 64 * n),
    ),
    Probe(
        "distillation_loss of (n, 100) there and back",
        (64, 256, 1024),
        prepare=lambda n, rng: (table(rng, n, 100), table(rng, n, 100), rng.integers(0, 100, n)),
        call=there_and_back,
        time=1,
        memory=1,
        moved=lambda n: F32 * 100 * 12 * n,
    ),
)
