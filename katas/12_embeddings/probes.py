"""What kata 12 measures: looking up by table, batch and order; gradients dense and sparse; positions."""

import numpy as np

from dojo.measuring import Probe
from tinytorch.embeddings import Embedding, embedding, rotary, scatter_add, sgd_rows_, sinusoidal_positions

TABLES = (1 << 10, 1 << 12, 1 << 14, 1 << 16)
LARGE = (1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20)
BATCHES = (1 << 10, 1 << 11, 1 << 12, 1 << 13)
LENGTHS = (64, 128, 256, 512)
F32, I64 = 4, 8  # bytes


def table(rng, count, dim=64):
    return rng.standard_normal((count, dim), np.float32)


def ids(rng, n, count):
    return rng.integers(0, count, n)


def zipf(rng, n, count):
    """As in texts: the k-th most frequent token is 1 / k as frequent as the first."""
    chances = 1 / np.arange(1, count + 1)
    return rng.choice(count, n, p=chances / chances.sum())


def torch_look_up(weight, places):
    return __import__("torch").nn.functional.embedding(places, weight)


def there_and_back(weight, places, grad):
    return embedding.vjp(weight, places)[1](grad)


def torch_back(weight, places, grad):
    return __import__("torch").ops.aten.embedding_dense_backward(grad, places, len(weight), -1, False)


def dense_step(layer, places):
    layer.zero_grad()
    (layer(places) * 2.0).sum().backward()
    layer.weight.data -= 0.1 * layer.weight.grad


def sparse_step(layer, places):
    (layer(places) * 2.0).sum().backward()
    sgd_rows_(layer.weight, layer.sparse_grad(), 0.1)


def layer(rng, count, sparse):
    return Embedding(count, 64, sparse=sparse, rng=rng), ids(rng, 64, count)


def angles(n):
    return np.outer(np.arange(n), 10_000.0 ** -(np.arange(0, 64, 2) / 64)).astype(np.float32)


PROBES = (
    Probe(
        "embedding of n ids, table (4096, 64)",
        BATCHES,
        prepare=lambda n, rng: (table(rng, 4096), ids(rng, n, 4096)),
        call=lambda weight, places: embedding(weight, places),
        time=1,
        memory=1,
        moved=lambda n: n * (I64 + 2 * 64 * F32),
        torch=torch_look_up,
    ),
    Probe(
        "embedding of 16,384 ids at random, table (n, 16)",
        LARGE,
        prepare=lambda n, rng: (table(rng, n, 16), ids(rng, 1 << 14, n)),
        call=lambda weight, places: embedding(weight, places),
        time=0,
        memory=0,
        moved=lambda n: (1 << 14) * (I64 + 2 * 16 * F32),
        torch=torch_look_up,
    ),
    Probe(
        "embedding of 16,384 ids in order, table (n, 16)",
        LARGE,
        prepare=lambda n, rng: (table(rng, n, 16), np.sort(ids(rng, 1 << 14, n))),
        call=lambda weight, places: embedding(weight, places),
        time=0,
        memory=0,
        moved=lambda n: (1 << 14) * (I64 + 2 * 16 * F32),
        torch=torch_look_up,
    ),
    Probe(
        "embedding of n ids of a text there and back, table (4096, 64)",
        BATCHES,
        prepare=lambda n, rng: (table(rng, 4096), zipf(rng, n, 4096), table(rng, n)),
        call=there_and_back,
        time=1,
        moved=lambda n: n * (I64 + 3 * 64 * F32) + 4096 * 64 * F32,
        torch=torch_back,
    ),
    Probe(
        "scatter_add of n rows of 64 to 1,024",
        BATCHES,
        prepare=lambda n, rng: (table(rng, n), ids(rng, n, 1024), 1024),
        call=lambda rows, places, count: scatter_add(rows, places, count),
        time=1,
        moved=lambda n: n * (I64 + 3 * 64 * F32),
    ),
    Probe(
        "a step of 64 ids, dense, table (n, 64)",
        TABLES,
        prepare=lambda n, rng: layer(rng, n, False),
        call=dense_step,
        time=1,
        memory=1,
    ),
    Probe(
        "a step of 64 ids, sparse, table (n, 64)",
        TABLES,
        prepare=lambda n, rng: layer(rng, n, True),
        call=sparse_step,
        time=0,
        memory=0,
    ),
    Probe(
        "sinusoidal_positions(n, 64)",
        LENGTHS,
        prepare=lambda n, rng: (n, 64),
        call=lambda n, dim: sinusoidal_positions(n, dim),
        time=1,
        memory=1,
    ),
    Probe(
        "rotary of (8, n, 64)",
        LENGTHS,
        prepare=lambda n, rng: (
            rng.standard_normal((8, n, 64), np.float32),
            np.cos(angles(n)),
            np.sin(angles(n)),
        ),
        call=lambda x, cos, sin: rotary(x, cos=cos, sin=sin),
        time=1,
        memory=1,
        flops=lambda n: 3 * 8 * n * 64,
        moved=lambda n: 2 * 8 * n * 64 * F32,
        torch=lambda x, cos, sin: __import__("torch").cat(
            (
                x[..., :32] * cos - x[..., 32:] * sin,
                x[..., 32:] * cos + x[..., :32] * sin,
            ),
            -1,
        ),
    ),
)
