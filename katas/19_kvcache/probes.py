"""What kata 19 measures: a token, by what came before and by where that is kept; and a model to reckon with.

`Toy` answers as a TinyGPT does, with logits that a test can work out by itself, and reads with any caches. It
also keeps a book of what it was asked.
"""

from types import SimpleNamespace

import numpy as np

from dojo.measuring import Probe
from tinytorch import autograd
from tinytorch.attention import KVCache
from tinytorch.kvcache import (
    BlockPool,
    PagedCache,
    StaticCache,
    WindowCache,
    paged_attention,
    prefill,
    with_caches,
)
from tinytorch.layers import Module
from tinytorch.tensor import Tensor
from tinytorch.transformers import GPTConfig, TinyGPT

LENGTHS = (1 << 9, 1 << 10, 1 << 11, 1 << 12)
F32 = 4  # bytes
HEADS, SIZE = 2, 32  # of the keys in the probes


class Toy(Module):
    """A model whose logits after a row are 3 sin of the sum of (1 + position) * table[id] over what it sees.

    Attributes:
        table: (V, V), float64.
        fed: for each call so far, the shape of the ids.
        pairs: how many pairs of a query and a key it saw, over all calls.
        states: for each call so far, whether the model trained, and whether anything was recorded.
    """

    def __init__(self, vocab=7, context=64, seed=0, layers=2, sharp=3.0):
        self.config = SimpleNamespace(context=context, vocab_size=vocab)
        self.table = np.random.default_rng(seed).normal(size=(vocab, vocab))
        self.layers, self.sharp = layers, sharp
        self.book = SimpleNamespace(fed=[], states=[], pairs=0)  # no list, which `modules()` would search

    @property
    def fed(self):
        return self.book.fed

    @property
    def states(self):
        return self.book.states

    @property
    def pairs(self):
        return self.book.pairs

    def new_caches(self):
        return [KVCache() for _ in range(self.layers)]

    def after(self, row, window=None, sinks=0):
        """The logits after one row alone."""
        seen = [i for i in range(len(row)) if window is None or i < sinks or i >= len(row) - window]
        return self.sharp * np.sin(sum((1 + i) * self.table[row[i]] for i in seen))

    def forward(self, ids, mask=None, caches=None, positions=None):
        ids = np.asarray(getattr(ids, "data", ids))
        rows, columns = ids.shape
        self.fed.append(ids.shape)
        self.states.append((self.training, autograd.is_grad_enabled()))
        past = caches[0].length if caches else 0
        if columns < 1 or past + columns > self.config.context:
            raise ValueError(f"{columns} columns after {past} do not fit a context of {self.config.context}")
        positions = past + np.arange(columns) if positions is None else positions
        positions = np.broadcast_to(positions, (rows, columns))
        vectors = ((1 + positions)[:, :, None] * self.table[ids])[:, None]
        keys, values = vectors[..., :1], vectors  # of two sizes
        for cache in caches or ():
            keys, values = cache.append(vectors[..., :1], vectors)
            assert np.array_equal(keys[..., 0], values[..., 0])
        sees = np.tri(columns, keys.shape[2], keys.shape[2] - columns, dtype=bool)
        if mask is not None:
            sees = sees & np.broadcast_to(mask, (rows, 1, columns, keys.shape[2]))[:, 0]
        self.book.pairs += int(sees.sum())
        return Tensor(self.sharp * np.sin(sees.astype(np.float64) @ values[:, 0]))


def by_hand(toy, row, count, window=None, sinks=0):
    """What a toy writes after one row that fits its context: all of what it sees again for each token."""
    row = list(row)
    for _ in range(count):
        row.append(int(np.argmax(toy.after(row, window, sinks))))
    return row


def small_gpt(rng, vocab=31, context=64, layers=2, dim=16, heads=4, kv_heads=2, **options):
    """Weights large enough to make a model that has something to say."""
    model = TinyGPT(GPTConfig(vocab, context, dim, layers, heads, kv_heads, **options), rng=rng)
    for p in model.parameters():
        p.data = (rng.normal(size=p.shape) * 0.6).astype(np.float32)
    return model


def some(rng, length, rows=1, heads=HEADS, size=SIZE, dtype=np.float32):
    return rng.normal(size=(rows, heads, length, size)).astype(dtype)


def filled(make):
    """A cache of n positions, made by make(n), and one position more."""

    def prepare(n, rng):
        cache, k = make(n), some(rng, n)
        cache.append(k, k)
        return cache, some(rng, 1)

    return prepare


def one_more(cache, k):
    """A position comes, and goes again where it can, so that the next call finds what this one did."""
    cache.append(k, k)
    if not isinstance(cache, WindowCache):
        cache.truncate(cache.length - 1)


def paged(n, rng):
    cache, k = PagedCache(BlockPool(n // 16 + 1, 16)), some(rng, n)
    cache.write(k, k)
    return some(rng, 1, heads=2 * HEADS), cache


def long_prompt(chunk):
    def prepare(n, rng):
        model = with_caches(small_gpt(rng, context=n, dim=32), lambda: StaticCache(n))
        return model, rng.integers(0, 31, (1, n)), chunk

    return prepare


def read(model, ids, chunk):
    return prefill(model, ids, model.new_caches(), chunk)


def cached_bytes(n):
    return 2 * F32 * HEADS * SIZE * n


PROBES = (
    Probe(
        "a token for a StaticCache that holds n",
        LENGTHS,
        prepare=filled(lambda n: StaticCache(n + 1)),
        call=one_more,
        time=0,
        memory=0,
        moved=lambda n: 2 * cached_bytes(1),
    ),
    Probe(
        "a token for a WindowCache of n",
        LENGTHS,
        prepare=filled(lambda n: WindowCache(n)),
        call=one_more,
        time=0,
        memory=0,
        moved=lambda n: 2 * cached_bytes(1),
    ),
    Probe(
        "a token for a PagedCache that holds n",
        LENGTHS,
        prepare=filled(lambda n: PagedCache(BlockPool(n // 16 + 1, 16))),
        call=one_more,
        time=1,
        memory=1,
        moved=lambda n: 2 * cached_bytes(n),
    ),
    Probe(
        "paged_attention of one query to n",
        LENGTHS,
        prepare=paged,
        call=paged_attention,
        time=1,
        memory=0,
        flops=lambda n: 4 * 2 * HEADS * SIZE * n,
        moved=lambda n: 2 * cached_bytes(n),
    ),
    Probe(
        "prefill of n, all at once",
        (128, 256, 512, 1024),
        prepare=long_prompt(None),
        call=read,
        time=1.5,
        memory=1,
    ),
    Probe(
        "prefill of n, 64 at a time",
        (128, 256, 512, 1024),
        prepare=long_prompt(64),
        call=read,
        time=1.5,
        memory=0.5,
    ),
)
