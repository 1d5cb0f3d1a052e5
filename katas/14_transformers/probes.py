"""What is measured in kata 14: norms, blocks and models, over their width, depth and length."""

import numpy as np

from dojo.measuring import Probe
from tinytorch.activations import gelu
from tinytorch.autograd import no_grad
from tinytorch.spatial import batch_norm
from tinytorch.tensor import Tensor
from tinytorch.transformers import (
    FeedForward,
    GPTConfig,
    TinyGPT,
    TransformerBlock,
    layer_norm,
    rms_norm,
)

F32 = 4
WIDTHS = (64, 128, 256, 512)
LENGTHS = (64, 128, 256)
LAYERS = (2, 4, 8)


def table(rng, *shape):
    return rng.random(shape, np.float32)


def vectors(n):
    return np.ones(n, np.float32), np.zeros(n, np.float32)


def there_and_back(op):
    def run(*arrays):
        out, back = op.vjp(*arrays)
        return back(out)

    return run


def recorded(module, x):
    return module(Tensor(x))


def trained(module, x):
    out = module(Tensor(x, requires_grad=True))
    module.zero_grad()
    out.backward(out.data)
    return out


def used(module, x):
    with no_grad():
        return module(x)


def gpt(layers, context, rng, vocab=64):
    return TinyGPT(GPTConfig(vocab, context=context, dim=64, num_layers=layers, num_heads=4), rng=rng)


def block_flops(rows, dim, length):
    """Of the projections 2 * 12 dim² a row, of scores and mixing 4 * length * dim."""
    return rows * (24 * dim * dim + 4 * length * dim)


PROBES = (
    Probe(
        "layer_norm of (1024, n) there and back",
        WIDTHS,
        prepare=lambda n, rng: (table(rng, 1024, n), *vectors(n)),
        call=there_and_back(layer_norm),
        time=1,
        memory=1,
        moved=lambda n: 5 * F32 * 1024 * n,
    ),
    Probe(
        "rms_norm of (1024, n) there and back",
        WIDTHS,
        prepare=lambda n, rng: (table(rng, 1024, n), vectors(n)[0]),
        call=there_and_back(rms_norm),
        time=1,
        memory=1,
        moved=lambda n: 5 * F32 * 1024 * n,
    ),
    Probe(
        "batch_norm of (1024, n) there and back",
        WIDTHS,
        prepare=lambda n, rng: (table(rng, 1024, n), *vectors(n)),
        call=there_and_back(batch_norm),
        time=1,
        memory=1,
        moved=lambda n: 5 * F32 * 1024 * n,
    ),
    Probe(
        "gelu of (1024, n) there and back",
        WIDTHS,
        prepare=lambda n, rng: (table(rng, 1024, n),),
        call=there_and_back(gelu),
        time=1,
        memory=1,
        moved=lambda n: 5 * F32 * 1024 * n,
    ),
    Probe(
        "feed-forward of (1024, n), recorded",
        WIDTHS,
        prepare=lambda n, rng: (FeedForward(n, rng=rng), table(rng, 1024, n)),
        call=recorded,
        time=2,
        memory=1,
        flops=lambda n: 16 * 1024 * n * n,
        moved=lambda n: F32 * (10 * 1024 * n + 8 * n * n),
    ),
    Probe(
        "a block (1, n, 64), recorded",
        LENGTHS,
        prepare=lambda n, rng: (TransformerBlock(64, 4, rng=rng), table(rng, 1, n, 64)),
        call=recorded,
        time=1.5,
        memory=1,
        flops=lambda n: block_flops(n, 64, n),
        moved=lambda n: F32 * 34 * n * 64,
    ),
    Probe(
        "a block (8, 64, n) there and back",
        (64, 128, 256),
        prepare=lambda n, rng: (TransformerBlock(n, 4, rng=rng), table(rng, 8, 64, n)),
        call=trained,
        time=2,
        memory=1,
        flops=lambda n: 3 * block_flops(512, n, 64),
        moved=lambda n: F32 * (100 * 512 * n + 36 * n * n),
    ),
    Probe(
        "TinyGPT of n layers, recorded",
        LAYERS,
        prepare=lambda n, rng: (gpt(n, 64, rng), rng.integers(0, 64, (4, 64))),
        call=lambda model, ids: model(ids),
        time=1,
        memory=1,
        flops=lambda n: n * block_flops(256, 64, 64),
        moved=lambda n: F32 * 34 * 256 * 64 * n,
    ),
    Probe(
        "TinyGPT of n layers, used",
        LAYERS,
        prepare=lambda n, rng: (gpt(n, 64, rng), rng.integers(0, 64, (4, 64))),
        call=used,
        time=1,
        memory=0,
        flops=lambda n: n * block_flops(256, 64, 64),
        moved=lambda n: F32 * 34 * 256 * 64 * n,
    ),
)
