"""What kata 15 measures: a token, by vocabulary and by what came before; and a model small enough to reckon.

`Toy` answers as a TinyGPT does, with logits that a test can work out by itself. It also keeps a book of what
it was asked.
"""

from types import SimpleNamespace

import numpy as np

from dojo.measuring import Probe
from tinytorch import autograd
from tinytorch.generation import (
    TokenDataset,
    TopK,
    TopP,
    generate,
    greedy,
    sample,
    training_bytes,
)
from tinytorch.layers import Module
from tinytorch.tensor import Tensor
from tinytorch.transformers import GPTConfig, TinyGPT

VOCABULARIES = (1 << 10, 1 << 12, 1 << 14, 1 << 16)
F32 = 4  # bytes


class ToyCache:
    """One vector for each column that was read, (B, columns, V)."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.vectors = None

    @property
    def length(self):
        return 0 if self.vectors is None else self.vectors.shape[1]

    def append(self, vectors):
        self.vectors = vectors if self.vectors is None else np.concatenate([self.vectors, vectors], axis=1)
        return self.vectors

    def select(self, rows):
        self.vectors = self.vectors[rows]


class Toy(Module):
    """A model whose logits after a row are 3 sin of the sum of (1 + position) * table[id] over what it sees.

    Attributes:
        table: (V, V), float64.
        fed: for each call so far, the shape of the ids.
        states: for each call so far, whether the model trained, and whether anything was recorded.
    """

    def __init__(self, vocab=7, context=12, seed=0):
        self.config = SimpleNamespace(context=context, vocab_size=vocab)
        self.table = np.random.default_rng(seed).normal(size=(vocab, vocab))
        self.fed, self.states, self.kept = [], [], []
        self.part = None

    def new_caches(self):
        return [ToyCache()]

    def with_part(self):
        """The toy, with a part whose mode can be another than its own; `states` are those of the part."""
        self.part = Module()
        return self

    def after(self, row):
        """The logits after one row alone, which fits the context."""
        assert 1 <= len(row) <= self.config.context
        return 3 * np.sin(sum((1 + i) * self.table[one] for i, one in enumerate(row)))

    def forward(self, ids, mask=None, caches=None, positions=None):
        ids = np.asarray(getattr(ids, "data", ids))
        rows, columns = ids.shape
        self.fed.append(ids.shape)
        self.states.append((self.part.training if self.part else self.training, autograd.is_grad_enabled()))
        past = caches[0].length if caches else 0
        if columns < 1 or past + columns > self.config.context:
            raise ValueError(f"{columns} columns after {past} do not fit a context of {self.config.context}")
        if positions is None:
            positions = past + np.arange(columns)
        positions = np.broadcast_to(positions, (rows, columns))
        vectors = (1 + positions)[:, :, None] * self.table[ids]
        if caches:
            vectors = caches[0].append(vectors)
        sees = np.tri(past + columns, dtype=bool)[past:]
        if mask is not None:
            sees = sees & np.broadcast_to(mask, (rows, 1, columns, past + columns))[:, 0]
        return Tensor(3 * np.sin(sees.astype(np.float64) @ vectors))


def by_hand(toy, row, count, choose=np.argmax, stop=(), see=lambda logits, row: logits):
    """What a toy writes after one row: a token at a time, all of the window each time."""
    row, context = list(row), toy.config.context
    for _ in range(count):
        start = 0
        while len(row) - start > context:
            start += max(1, context // 2)
        row.append(int(choose(see(toy.after(row[start:]), row))))
        if row[-1] in stop:
            break
    return row


def small_gpt(rng, dtype=np.float32, vocab=11, context=16, layers=2, dim=16, heads=2, scale=1.0, **options):
    model = TinyGPT(GPTConfig(vocab, context, dim, layers, heads, **options), rng=rng)
    for p in model.parameters():
        if p.ndim > 1:
            p.data = rng.normal(size=p.shape).astype(dtype) * dtype(scale)
        else:
            p.data = p.data.astype(dtype)
    return model


def logits_of(n, rng, rows=4):
    return rng.standard_normal((rows, n), np.float32), np.zeros((rows, 1), np.int64)


def write(model, ids, count, use_cache):
    return generate(model, ids, count, use_cache=use_cache)


def writing(use_cache):
    def prepare(n, rng):
        model = small_gpt(rng, vocab=65, context=2 * n, layers=2, dim=32, heads=2)
        return model, rng.integers(0, 65, (1, 8)), n, use_cache

    return prepare


PROBES = (
    Probe(
        "greedy of a vocabulary of n",
        VOCABULARIES,
        prepare=lambda n, rng: logits_of(n, rng)[:1],
        call=greedy,
        time=1,
        moved=lambda n: 4 * F32 * n,
    ),
    Probe(
        "sample of a vocabulary of n",
        VOCABULARIES,
        prepare=lambda n, rng: logits_of(n, rng)[:1],
        call=lambda logits: sample(logits, rng=np.random.default_rng(0)),
        time=1,
        memory=1,
        moved=lambda n: 4 * F32 * n,
    ),
    Probe(
        "TopK(40) of a vocabulary of n",
        VOCABULARIES,
        prepare=logits_of,
        call=TopK(40),
        time=1,
        memory=1,
        moved=lambda n: 8 * F32 * n,
    ),
    Probe(
        "TopP(0.9) of a vocabulary of n",
        VOCABULARIES,
        prepare=logits_of,
        call=TopP(0.9),
        time=1.1,
        memory=1,
        moved=lambda n: 8 * F32 * n,
    ),
    Probe(
        "n tokens of a TinyGPT, with a cache",
        (32, 64, 128, 256),
        prepare=writing(True),
        call=write,
        time=1.2,
        memory=1,
    ),
    Probe(
        "n tokens of a TinyGPT, without",
        (32, 64, 128, 256),
        prepare=writing(False),
        call=write,
        time=2,
        memory=1,
    ),
    Probe(
        "a batch of 32 windows of n tokens",
        (32, 64, 128, 256),
        prepare=lambda n, rng: (TokenDataset(rng.integers(0, 65, 1 << 16), n), rng.integers(0, 1 << 15, 32)),
        call=lambda dataset, indices: dataset.__getitems__(indices),
        time=1,
        memory=1,
        moved=lambda n: 32 * 16 * n,
    ),
    Probe(
        "training_bytes of a TinyGPT, n rows of 32",
        (2, 4, 8, 16),
        prepare=lambda n, rng: (small_gpt(rng, context=32), n, 32),
        call=training_bytes,
        memory=1,
    ),
)
