"""Kata 19 in another manner: word for word, as one would explain it.

A window remembers which position lies where; a pool is a set of free numbers; rows are written and read one
by one; a prompt is known by a digest of all of it; what stands of a draft is found by the definition.
"""

from __future__ import annotations

import abc
import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tinytorch.activations import softmax
from tinytorch.attention import absorb, check_heads
from tinytorch.generation import LanguageModel, Processor, chain, greedy, left_padded, sample
from tinytorch.layers import Module
from tinytorch.tensor import Array, Tensor, as_array
from tinytorch.training import evaluating

__all__ = [
    "BlockPool", "Cache", "CachedModel", "Layout", "OutOfBlocks", "PagedCache", "PrefixCache", "Speculation",
    "StaticCache", "WindowCache", "accept", "bytes_per_token", "cache_report", "draw", "generate_cached",
    "generation_cost", "paged_attention", "prefill", "probabilities", "read_rest", "speculative_gain",
    "speculative_generate", "with_caches",
]  # fmt: skip

Generator: TypeAlias = np.random.Generator


# What all caches have in common.


@dataclass(frozen=True)
class Layout:
    """What one position of one row is made of. Given.

    Attributes:
        kv_heads: how many heads of keys and values.
        key_dim, value_dim: how many numbers a head has as a key, and as a value.
        dtype: of them all.
    """

    kv_heads: int
    key_dim: int
    value_dim: int
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, k: Array, v: Array) -> Layout:
        """That of keys and values that were checked."""
        return cls(k.shape[1], k.shape[3], v.shape[3], k.dtype)

    @property
    def token_bytes(self) -> int:
        """Bytes of a position of a row, keys and values."""
        return self.kv_heads * (self.key_dim + self.value_dim) * self.dtype.itemsize


class Cache(abc.ABC):
    """Keys and values of the positions so far. Given: what every cache of this kata promises.

    The first `append` says how many rows there are and what they are made of; the rest must fit. What a call
    refuses, it leaves as it was. What was given stays the caller's. The arrays that `append` hands out may
    change with the next call of any method.

    Attributes:
        length: how many positions there were, forgotten ones among them: the next one's number.
        rows: how many rows, None before the first `append`.
        layout: what a position is made of, None before the first `append`.
    """

    length: int = 0
    rows: int | None = None
    layout: Layout | None = None

    @abc.abstractmethod
    def append(self, k: Any, v: Any) -> tuple[Array, Array]:
        """Add keys (B, KV, T, D) and values (B, KV, T, E), arrays or Tensors; T may be 0.

        Returns the keys and values that the new positions may attend to, as arrays: those of `positions(T)`.
        Errors as of `check`.
        """

    @abc.abstractmethod
    def select(self, rows: Any) -> None:
        """Keep these rows, in this order; one may be kept several times. A new cache stays new.

        IndexError for a row that is not there; whether -1 is the last one or none is left open.
        """

    @abc.abstractmethod
    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on, as if they had never been. Errors as of `check_length`."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Forget everything, and give the memory back: as good as new, also for other rows."""

    @property
    @abc.abstractmethod
    def nbytes(self) -> int:
        """Bytes of memory held for keys and values, used or not."""

    def positions(self, new: int = 0) -> Array:
        """The numbers of the positions whose keys `append` will return when it is given `new` of them.

        In the order in which it returns them. With `new` = 0: of those that are held.
        """
        return np.arange(self.length + new)

    def fit(self, mask: Any, new: int) -> Any:
        """What `mask`, None or bools about all positions and `new` more, says of `positions(new)`."""
        return mask

    def check(self, k: Any, v: Any) -> tuple[Array, Array]:
        """The arrays of keys and values that fit each other and this cache.

        Raises:
            ValueError: the shapes do not fit; the message names them.
            TypeError: the dtypes; the message names them.
            RuntimeError: a Tensor that requires a gradient, which would get lost.
        """
        if any(isinstance(x, Tensor) and x.requires_grad for x in (k, v)):
            raise RuntimeError("a cache keeps no graph, and this gradient would get lost: use no_grad()")
        k, v = as_array(k), as_array(v)
        check_heads(k, k, v)
        mine, new = self.layout, Layout.of(k, v)
        if mine is not None and new.dtype != mine.dtype:
            raise TypeError(f"{new.dtype} does not go into a cache of {mine.dtype}")
        if (mine is not None and new != mine) or self.rows not in (None, len(k)):
            raise ValueError(
                f"keys of shape {k.shape} and values of shape {v.shape} do not continue a cache of "
                f"{self.rows} rows and {mine}"
            )
        return k, v

    def check_length(self, length: int) -> None:
        """ValueError, naming both, if `length` is below 0 or above the positions so far."""
        if not 0 <= length <= self.length:
            raise ValueError(f"a cache of {self.length} positions cannot be cut to {length}")


class StaticCache(Cache):
    """Room for `max_length` positions, laid out once: no append ever allocates memory again.

    ValueError for a max_length below 1.

    Attributes:
        held: the memory, keys (B, KV, max_length, D) and values (B, KV, max_length, E); empty before the
            first `append`.
    """

    def __init__(self, max_length: int) -> None:
        if max_length < 1:
            raise ValueError(f"a cache has room for 1 position or more, not {max_length}")
        self.max_length = max_length
        self.held: list[Array] = []

    def lay_out(self, k: Array, v: Array) -> None:
        """Lay out the memory for such keys and values, unless that was done. Given."""
        if self.layout is None:
            self.layout, self.rows = Layout.of(k, v), len(k)
            self.held = [np.empty((*x.shape[:2], self.max_length, x.shape[3]), x.dtype) for x in (k, v)]

    def append(self, k: Any, v: Any) -> tuple[Array, Array]:
        k, v = self.check(k, v)
        room = self.max_length - self.length
        if k.shape[2] > room:
            raise ValueError(
                f"a cache of {self.max_length} with {self.length} positions has no room for {k.shape[2]}"
            )
        self.lay_out(k, v)
        keys, values = self.held
        for i in range(k.shape[2]) if k.shape[2] < 4 else [slice(0, k.shape[2])]:
            where = (
                slice(i.start + self.length, i.stop + self.length)
                if isinstance(i, slice)
                else self.length + i
            )
            keys[:, :, where], values[:, :, where] = k[:, :, i], v[:, :, i]
        self.length = self.length + k.shape[2]
        return keys[:, :, : self.length], values[:, :, : self.length]

    def select(self, rows: Any) -> None:
        if self.layout is None or self.rows is None:
            return
        wanted = [
            range(self.rows)[row] if -self.rows <= row < self.rows else self._none(row) for row in list(rows)
        ]
        filled = len(self.positions())
        fresh = []
        for old in self.held:
            new = np.empty((len(wanted), *old.shape[1:]), old.dtype) if len(wanted) != self.rows else old
            copied = [old[row, :, :filled].copy() for row in wanted]
            for at, one in enumerate(copied):
                new[at, :, :filled] = one
            fresh.append(new)
        self.held, self.rows = fresh, len(wanted)

    def _none(self, row: int) -> int:
        raise IndexError(f"there is no row {row} among {self.rows}")

    def truncate(self, length: int) -> None:
        """As of every Cache. The memory stays."""
        self.check_length(length)
        self.length = length

    def reset(self) -> None:
        self.length, self.rows, self.layout, self.held = 0, None, None, []

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in self.held)


class WindowCache(StaticCache):
    """The first `sinks` positions and the last `window` of the others, in memory that never grows.

    A position sees itself, the window - 1 before it, and the sinks. ValueError for a window below 1 or sinks
    below 0. What StaticCache does with its memory is right here, too, where positions are kept as `slots`
    says.
    """

    def __init__(self, window: int, sinks: int = 0) -> None:
        if window < 1:
            raise ValueError(f"window is {window}")
        if sinks < 0:
            raise ValueError(f"sinks is {sinks}")
        super().__init__(window + sinks)
        self.window, self.sinks = window, sinks
        self.places = np.zeros(0, int)  # which position lies in each slot

    def slots(self, positions: Array) -> Array:
        """Where in memory positions lie: first the sinks, then a ring, where a new one takes the place of the
        oldest. Given; another order will do as well."""
        around = self.sinks + (positions - self.sinks) % self.window
        return np.where(positions < self.sinks, positions, around)

    def positions(self, new: int = 0) -> Array:
        if new == 0:
            return self.places.copy()
        if new == 1:
            return self._after(self.places, [self.length])
        mine = {p for p in self.places.tolist() if p < self.sinks or p > self.length - self.window}
        return np.array(sorted(mine) + [self.length + i for i in range(new)])

    def _slot(self, position: int) -> int:
        if position < self.sinks + self.window:
            return position
        return self.sinks + (position - self.sinks) % self.window

    def _after(self, places: Array, more: list[int]) -> Array:
        out = places.tolist()
        for position in more:
            if position < self.max_length:
                out.append(position)
            else:
                out[self._slot(position)] = position
        return np.array(out, int)

    def append(self, k: Any, v: Any) -> tuple[Array, Array]:
        k, v = self.check(k, v)
        self.lay_out(k, v)
        new = k.shape[2]
        if new <= 1:
            for held, x in zip(self.held, (k, v), strict=True):
                if new:
                    held[:, :, self._slot(self.length)] = x[:, :, 0]
            if self.length < self.max_length:
                self.places = self._after(self.places, [self.length][:new])
            elif new:
                self.places[self._slot(self.length)] = self.length
            self.length += new
            count = len(self.places)
            return self.held[0][:, :, :count], self.held[1][:, :, :count]
        order = self.positions(new)
        at = {position: slot for slot, position in enumerate(self.places.tolist())}
        old = [at[position] for position in order[:-new].tolist()]
        out = []
        for held, x in zip(self.held, (k, v), strict=True):
            room = np.empty((*x.shape[:2], len(order), x.shape[3]), x.dtype)
            room[:, :, : len(old)] = np.take(held, old, axis=2)
            room[:, :, len(old) :] = x
            out.append(room)
        for i in range(new):
            for held, x in zip(self.held, (k, v), strict=True):
                held[:, :, self._slot(self.length + i)] = x[:, :, i]
        self.places = self._after(self.places, list(range(self.length, self.length + new)))
        self.length += new
        return out[0], out[1]

    def fit(self, mask: Any, new: int) -> Any:
        order = self.positions(new)
        if mask is not None:
            mask = as_array(mask)
            mask = np.stack([mask[..., p] for p in order.tolist()], axis=-1)
        if new < 2:
            return mask
        band = np.ones((new, len(order)), bool)
        for i, row in enumerate(band):
            row[:] = (order < self.sinks) | (self.length + i - order < self.window)
        return band if mask is None else mask * band

    def truncate(self, length: int) -> None:
        self.check_length(length)
        needed = {p for p in range(length) if p < self.sinks or p >= length - self.window}
        if needed - set(self.places.tolist()):
            raise ValueError(f"{self.length} positions cannot become {length}: some are forgotten")
        if length != self.length:
            self.places = self.places[: len(needed)]
        self.length = length

    def reset(self) -> None:
        super().reset()
        self.places = np.zeros(0, int)


class CachedModel(Module):
    """A language model that reads with caches of your choice.

    Attributes:
        model: the one that reads.
        config: its config.
        make: makes an empty cache.
    """

    def __init__(self, model: LanguageModel, make: Callable[[], Any]) -> None:
        self.model = model
        self.config = model.config
        self.make = make

    def new_caches(self) -> list[Any]:
        """Empty caches, as many as the model itself makes."""
        return [self.make() for _ in self.model.new_caches()]

    def forward(
        self, ids: Any, mask: Any = None, caches: Sequence[Any] | None = None, positions: Any = None
    ) -> Tensor:
        if caches is None or len(caches) == 0:
            out: Tensor = self.model(ids, mask, caches, positions)
            return out
        some: Tensor = self.model(ids, caches[0].fit(mask, np.shape(as_array(ids))[1]), caches, positions)
        return some


def with_caches(model: LanguageModel, make: Callable[[], Any]) -> CachedModel:
    """A model for kata 15's `generate`, which reads with caches that `make()` makes. Given."""
    return CachedModel(model, make)


# Memory in blocks.


class OutOfBlocks(MemoryError):
    """A pool has fewer blocks left than are needed. Free some, or make it larger."""


class BlockPool:
    """`blocks` blocks of memory, each for `block_size` positions of one row, and who uses them.

    Blocks are numbered from 0. A block may have several users, and is free when none is left. The memory is
    laid out once, when the first user knows what a position is made of. ValueError for numbers below 1.

    Attributes:
        keys, values: (KV, blocks, block_size, D) and (…, E), empty before. What is in a block that nobody has
            written to is anything.
        layout: what a position is made of, None before.
    """

    def __init__(self, blocks: int, block_size: int) -> None:
        if blocks < 1 or block_size < 1:
            raise ValueError(f"blocks {blocks}, positions {block_size}")
        self.blocks, self.block_size = blocks, block_size
        self.layout: Layout | None = None
        self.keys: Array = np.empty(0)
        self.values: Array = self.keys
        self.nobodys = set(range(blocks))
        self.counts = np.zeros(blocks, int)

    @property
    def free(self) -> int:
        return len(self.nobodys)

    def users(self, block: int) -> int:
        return int(self.counts[block])

    def allocate(self) -> int:
        try:
            block = self.nobodys.pop()
        except KeyError:
            raise OutOfBlocks(f"not one of {self.blocks} blocks is free") from None
        self.counts[block] = 1
        return block

    def share(self, block: int) -> None:
        self.check_used(block)
        self.counts[block] = self.counts[block] + 1

    def release(self, block: int) -> None:
        self.check_used(block)
        self.counts[block] = self.counts[block] - 1
        if self.counts[block] == 0:
            self.nobodys.add(block)

    def check_used(self, block: int) -> None:
        """ValueError, naming it, unless this is the number of a block with a user. Given."""
        if not 0 <= block < self.blocks or not self.users(block):
            raise ValueError(f"block {block} of {self.blocks} has no user")

    def lay_out(self, k: Array, v: Array) -> None:
        """Lay out the memory for such keys and values, unless that was done. Given."""
        if self.layout is None:
            self.layout = Layout.of(k, v)
            self.keys, self.values = (
                np.empty((x.shape[1], self.blocks, self.block_size, x.shape[3]), x.dtype) for x in (k, v)
            )

    @property
    def block_bytes(self) -> int:
        """Bytes of one block, 0 before the memory is laid out. Given."""
        return self.block_size * self.layout.token_bytes if self.layout else 0


class PagedCache(Cache):
    """Positions in blocks of a pool, which other caches use, too: rows hold what they need, and share.

    Attributes:
        pool: a BlockPool.
        tables: for each row the numbers of its blocks, in the order of its positions; all but the last one
            are full.
    """

    def __init__(self, pool: BlockPool) -> None:
        self.tables: list[list[int]] = []
        self.pool = pool

    @property
    def layout(self) -> Layout | None:  # type: ignore[override]
        """That of the pool, whoever came first. Given."""
        return self.pool.layout

    def __del__(self) -> None:
        """A cache that nobody has any more gives its blocks back. Given."""
        if self.tables:
            self.reset()

    def append(self, k: Any, v: Any) -> tuple[Array, Array]:
        """As of every Cache. Errors as of `write`. Given."""
        self.write(k, v)
        return self.gather()

    def write(self, k: Any, v: Any) -> None:
        k, v = self.check(k, v)
        pool, size = self.pool, self.pool.block_size
        before, new = self.length, k.shape[2]
        if self.rows is None:
            tables: list[list[int]] = [[] for _ in range(len(k))]
        else:
            tables = self.tables
        have = (before + size - 1) // size
        want = (before + new + size - 1) // size
        copies = 0
        if new > 0 and before % size > 0:
            for block in {table[-1] for table in tables}:
                mine = sum(table[-1] == block for table in tables)
                copies += mine if pool.users(block) > mine else mine - 1
        if (want - have) * len(tables) + copies > pool.free:
            raise OutOfBlocks(
                f"needed: {(want - have) * len(tables) + copies}, free: {pool.free}, of {pool.blocks} in all"
            )
        pool.lay_out(k, v)
        for table in tables:
            if new > 0 and before % size > 0 and pool.users(table[-1]) > 1:
                mine = pool.allocate()
                pool.keys[:, mine] = pool.keys[:, table[-1]]
                pool.values[:, mine] = pool.values[:, table[-1]]
                pool.release(table[-1])
                table[-1] = mine
            while len(table) < want:
                table.append(pool.allocate())
        places = np.arange(before, before + new)
        for row, table in enumerate(tables):
            blocks = np.asarray(table, int)[places // size]
            pool.keys[:, blocks, places % size] = k[row]
            pool.values[:, blocks, places % size] = v[row]
        self.tables, self.rows, self.length = tables, len(k), before + new

    def gather(self, start: int = 0, stop: int | None = None) -> tuple[Array, Array]:
        stop = self.length if stop is None else min(self.length, stop)
        places = np.arange(start, max(start, stop))
        at = places % self.pool.block_size
        out = []
        for held in (self.pool.keys, self.pool.values):
            room = np.empty((len(self.tables), len(held), len(places), held.shape[3]), held.dtype)
            for row, table in enumerate(self.tables):
                blocks = np.asarray(table, int)[places // self.pool.block_size]
                for head in range(len(held)):
                    flat = held[head].reshape(-1, held.shape[3])
                    flat.take(blocks * self.pool.block_size + at, axis=0, out=room[row, head], mode="clip")
            out.append(room)
        return out[0], out[1]

    def select(self, rows: Any) -> None:
        if self.rows is None:
            return
        keep = [self.tables[i] for i in np.arange(len(self.tables)).take(np.asarray(rows, int))]
        twin = PagedCache(self.pool)
        twin.tables, twin.length, twin.rows = keep, self.length, len(keep)
        copy = twin.fork()
        twin.tables = []
        self.reset()
        self.tables, self.length, self.rows = copy.tables, copy.length, copy.rows
        copy.tables = []

    def fork(self) -> PagedCache:
        """Another cache of the same text, which goes its own way. Nothing is copied."""
        other = PagedCache(self.pool)
        for table in self.tables:
            for block in table:
                self.pool.share(block)
        other.tables = [list(table) for table in self.tables]
        other.length, other.rows = self.length, self.rows
        return other

    def truncate(self, length: int) -> None:
        """As of every Cache. Blocks that are not needed any more are given back."""
        self.check_length(length)
        for table in self.tables:
            for block in table[-(-length // self.pool.block_size) :]:
                self.pool.release(block)
            del table[-(-length // self.pool.block_size) :]
        self.length = length

    def reset(self) -> None:
        while self.tables:
            for block in self.tables.pop():
                self.pool.release(block)
        self.length, self.rows = 0, None

    @property
    def nbytes(self) -> int:
        seen = []
        for table in self.tables:
            seen += table
        return int(len(np.unique(seen)) * self.pool.block_bytes)


def paged_attention(q: Any, cache: PagedCache, scale: float | None = None, chunk: int = 256) -> Array:
    """Row by row, and head of keys by head of keys."""
    q = as_array(q)
    check_heads(q, q)
    if q.shape[2] > cache.length:
        raise ValueError(f"{q.shape[2]} queries, {cache.length} positions")
    empty, none = cache.gather(0, 0)
    check_heads(q, empty, none)
    factor = q.shape[3] ** -0.5 if scale is None else scale
    group, size = q.shape[1] // empty.shape[1], cache.pool.block_size
    blocks = max(1, chunk // size)
    top = np.full((*q.shape[:3], 1), -np.inf, q.dtype)
    total = np.zeros(top.shape, q.dtype)
    mix = np.zeros((*q.shape[:3], none.shape[3]), q.dtype)
    asking = np.arange(cache.length - q.shape[2], cache.length)[:, None]
    for start in range(0, cache.length, blocks * size):
        k, v = cache.gather(start, start + blocks * size)
        behind = np.arange(start, start + k.shape[2]) > asking
        for head in range(q.shape[1]):
            scores = factor * (q[:, head] @ k[:, head // group].transpose(0, 2, 1))
            scores[:, behind] = -np.inf
            absorb(scores, v[:, head // group], top[:, head], total[:, head], mix[:, head])
    np.divide(mix, total, out=mix)
    return mix


# Reading and writing with caches.


def read_rest(model: LanguageModel, ids: Array, caches: Sequence[Any], chunk: int | None = None) -> Array:
    if ids.shape[1] <= caches[0].length:
        raise ValueError(f"{ids.shape[1]} columns, of which {caches[0].length} are read")
    if chunk is not None and chunk < 1:
        raise ValueError(f"a chunk of {chunk}")
    while True:
        done = caches[0].length
        stop = ids.shape[1] if chunk is None else min(ids.shape[1], done + chunk)
        logits = as_array(model(ids[:, done:stop], caches=caches))
        if stop == ids.shape[1]:
            return logits[:, -1, :].copy()  # type: ignore[no-any-return]
        del logits


def prefill(model: LanguageModel, ids: Any, caches: Sequence[Any], chunk: int | None = None) -> Array:
    """Read a prompt, ids (B, T), into caches: `read_rest` for a model that does not train. Given."""
    with evaluating(model):
        return read_rest(model, as_array(ids), caches, chunk)


def generate_cached(
    model: LanguageModel,
    ids: Any,
    max_new_tokens: int,
    caches: Sequence[Any] | None = None,
    *,
    chunk: int | None = None,
    processors: Sequence[Processor] = (),
    rng: Generator | None = None,
) -> Array:
    """Kata 15's `generate`, for caches that outlive it: ids (B, T), and `max_new_tokens` columns more.

    What `caches` (new ones of the model, without) hold of the ids is not read again, and afterwards they hold
    everything but the last column. All must fit the model's context. Each draw is as in kata 15: `processors`
    see the logits and all ids so far; without `rng` the most likely id is taken, with it one is drawn by
    `sample`. Errors as of `left_padded` (15) and `read_rest`.
    """
    prompt, _ = left_padded(ids)
    length, process = prompt.shape[1], chain(*processors)
    written = np.concatenate([prompt, np.zeros((len(prompt), max_new_tokens), np.int64)], axis=1)
    with evaluating(model):
        caches = model.new_caches() if caches is None else caches
        for end in range(length, length + max_new_tokens):
            so_far = written[:, :end]
            logits = process(read_rest(model, so_far, caches, chunk), so_far)
            written[:, end] = greedy(logits) if rng is None else sample(logits, rng=rng)
    return written


class PrefixCache:
    """Prompts that were read before: what they begin with is not read again.

    Remembers blocks of ids, as many as a block of the pool has positions, each as what goes on from the block
    before it; and for each the blocks of keys and values that a model of `layers` layers has made of it. At
    most `capacity` blocks of ids: those that were not used for longest are forgotten first, but none before
    those that go on from it. ValueError for numbers below 1.

    Attributes:
        hits: how many blocks of ids `start` has found so far.
        misses: how many it looked for, and did not find.
        known: by the number of the block before it (0 if there is none) and the bytes of its own ids, each
            block's number, from 1, and the pool's blocks, one a layer. Those used last are at the end.
        numbers: how many were given out so far; none is given out twice.
    """

    def __init__(self, pool: BlockPool, layers: int, capacity: int) -> None:
        if layers < 1 or capacity < 1:
            raise ValueError(f"layers {layers}, capacity {capacity}")
        self.pool, self.layers, self.capacity = pool, layers, capacity
        self.hits = self.misses = 0
        self.known: dict[bytes, list[int]] = {}  # the least lately used first

    def __len__(self) -> int:
        """How many blocks of ids are remembered. Given."""
        return len(self.known)

    @property
    def nbytes(self) -> int:
        """Bytes of the pool's blocks that it keeps. Given."""
        return len(self) * self.layers * self.pool.block_bytes

    def row(self, ids: Any) -> Array:
        """One row of ids, (T,) or (1, T), as (T,) int64. Given. ValueError, naming the shape, for others."""
        ids = as_array(ids)
        if not ids.size or ids.shape not in ((ids.size,), (1, ids.size)):
            raise ValueError(f"a prefix cache knows single rows of ids, not shape {ids.shape}")
        row: Array = ids.reshape(-1).astype(np.int64)
        return row

    def start(self, ids: Any) -> list[PagedCache]:
        digests = self.find(self.row(ids)[:-1])
        count = 0
        for digest in digests:
            if digest not in self.known:
                break
            count += 1
        self.hits += count
        self.misses += len(digests) - count
        caches = [PagedCache(self.pool) for _ in range(self.layers)]
        for layer, cache in enumerate(caches if count else []):
            cache.tables.append([self.known[digest][layer] for digest in digests[:count]])
            for block in cache.tables[0]:
                self.pool.share(block)
            cache.length = count * self.pool.block_size
            cache.rows = 1
        self._use(digests[:count])
        return caches

    def _use(self, digests: list[bytes]) -> None:
        for digest in digests[::-1]:
            self.known[digest] = self.known.pop(digest)

    def keep(self, ids: Any, caches: Sequence[PagedCache]) -> None:
        row = self.row(ids)
        if len(caches) != self.layers:
            raise ValueError(f"{len(caches)} caches for {self.layers} layers")
        for cache in caches:
            if cache.rows != 1:
                raise ValueError(f"a cache of {cache.rows} rows")
        digests = self.find(row[: caches[0].length])
        for i, digest in enumerate(digests):
            if digest in self.known:
                continue
            self.known[digest] = []
            for cache in caches:
                self.pool.share(cache.tables[0][i])
                self.known[digest].append(cache.tables[0][i])
        self._use(digests)
        self.shrink(self.capacity)

    def find(self, row: Array) -> list[bytes]:
        """The digests of all whole blocks of a row, each of all ids up to its end."""
        digest, out = hashlib.sha256(), []
        for start in range(0, len(row) - self.pool.block_size + 1, self.pool.block_size):
            digest.update(row[start : start + self.pool.block_size].tobytes())
            out.append(digest.digest())
        return out

    def shrink(self, count: int = 0) -> None:
        for digest in list(itertools.islice(self.known, max(0, len(self.known) - count))):
            for block in self.known.pop(digest):
                self.pool.release(block)


# Several tokens for one call of the model.


def probabilities(logits: Any, rng: Generator | None = None) -> Array:
    """What tokens of logits (B, V) are chosen with, float64: softmax, or 1 for the likeliest without an rng.

    Given. Of several that are the likeliest, that of `greedy` (15).
    """
    logits = as_array(logits)
    if rng is None:
        return np.eye(logits.shape[1])[greedy(logits)]
    likely: Array = softmax.forward(logits.astype(np.float64), axis=1)
    return likely


def draw(weights: Array, rng: Generator) -> int:
    """An id, drawn with probabilities in proportion to `weights` (V,), exactly. Given.

    One with weight 0 is never drawn.
    """
    line = weights.cumsum()
    return int(np.searchsorted(line, rng.random() * line[-1], side="right"))


def accept(draft_probs: Any, target_probs: Any, drafted: Any, *, rng: Generator) -> Array:
    q, p, ids = as_array(draft_probs), as_array(target_probs), as_array(drafted)
    fits = ids.ndim == 1 and q.ndim == p.ndim == 2
    if not fits or len(p) != len(ids) + 1 or q.shape != (len(ids), p.shape[1]):
        raise ValueError(f"drafts {q.shape}, target {p.shape}, ids {ids.shape}")
    out: list[int] = []
    for x, mine, wanted in zip(ids.tolist(), q, p, strict=False):
        chance = 1.0 if mine[x] == 0 else min(1.0, wanted[x] / mine[x])
        if rng.uniform() < chance:
            out.append(int(x))
            continue
        rest = np.where(wanted > mine, wanted - mine, 0.0)
        rest = wanted if rest.max() == 0 else rest
        out.append(draw(rest / rest.sum(), rng))
        return np.array(out)
    return np.array([*out, draw(p[-1], rng)])


@dataclass(frozen=True)
class Speculation:
    """What `speculative_generate` has written, and what it took. Given.

    Attributes:
        ids: (1, T + n), the prompt and what was written.
        calls: how often the target was asked.
        drafted: how many ids the draft has proposed.
        accepted: how many of them stood.
    """

    ids: Array
    calls: int
    drafted: int
    accepted: int


def speculative_generate(
    target: LanguageModel,
    draft: LanguageModel,
    ids: Any,
    max_new_tokens: int,
    k: int = 4,
    *,
    processors: Sequence[Processor] = (),
    rng: Generator | None = None,
) -> Speculation:
    """What `target` writes after one row of ids, (1, T), while `draft` guesses `k` tokens ahead.

    Each round the draft writes up to k tokens, and never more than all but one that are still wanted. Then
    one call of the target reads what it has not read yet, and `accept` decides. What both have read of tokens
    that fell is cut from their caches.

    Without `rng` the ids are those of `generate` with the target alone; with it they are distributed as
    those. `processors` act on the logits of both, each with all ids before it. A model whose `new_caches()`
    can be truncated (see `with_caches`) reads with these, and any other with a StaticCache for each of them.

    Raises:
        ValueError: k below 1; ids of several rows, with their shape; or as of `left_padded` (15).
    """
    prompt, _ = left_padded(ids)
    if k < 1 or len(prompt) != 1:
        raise ValueError(f"a draft of {k} tokens for ids of shape {prompt.shape}: 1 or more, for one row")
    end, total = prompt.shape[1], prompt.shape[1] + max_new_tokens
    written = np.concatenate([prompt, np.zeros((1, max_new_tokens), np.int64)], axis=1)
    process, dice = chain(*processors), np.random.default_rng(0) if rng is None else rng
    mine, theirs = (
        [cache if hasattr(cache, "truncate") else StaticCache(total) for cache in model.new_caches()]
        for model in (target, draft)
    )
    calls = drafted = accepted = 0
    with evaluating(target), evaluating(draft):
        while end < total:
            guesses = range(end, end + min(k, total - end - 1))
            likely = []
            for i in guesses:
                logits = process(read_rest(draft, written[:, :i], theirs), written[:, :i])
                likely.append(probabilities(logits, rng)[0])
                written[0, i] = draw(likely[-1], dice)
            fresh = written[:, mine[0].length : guesses.stop]
            logits = as_array(target(fresh, caches=mine))[0, -len(guesses) - 1 :]
            rows = [process(logits[i : i + 1], written[:, : end + i]) for i in range(len(logits))]
            wanted = probabilities(np.concatenate(rows), rng)
            table = np.reshape(likely, (len(guesses), wanted.shape[1]))
            got = accept(table, wanted, written[0, end : guesses.stop], rng=dice)
            written[0, end : end + len(got)] = got
            end += len(got)
            calls, drafted, accepted = calls + 1, drafted + len(guesses), accepted + len(got) - 1
            for cache in (*mine, *theirs):
                cache.truncate(min(cache.length, end - 1))
    return Speculation(written, calls, drafted, accepted)


# What it costs, and what it gains.


def generation_cost(prompt: int, new: int, cached: bool = True, window: int | None = None) -> dict[str, int]:
    if prompt < 1 or new < 0:
        raise ValueError(f"prompt {prompt}, new {new}")
    tokens = pairs = 0
    for i in range(new):
        begin = 0 if i == 0 or not cached else prompt + i - 1
        for place in range(begin, prompt + i):
            tokens += 1
            pairs += min(place + 1, window or place + 1)
    return {"tokens": tokens, "pairs": pairs}


def bytes_per_token(config: Any, itemsize: int = 4) -> int:
    """Bytes that one token leaves in the caches of a model with this GPTConfig (14)."""
    return int(2 * config.num_layers * config.kv_dim * itemsize)


def cache_report(caches: Iterable[Cache]) -> dict[str, int]:
    report = {"used": 0, "reserved": 0}
    for cache in caches:
        report["reserved"] += cache.nbytes
        if cache.rows is not None and cache.layout is not None:
            report["used"] += cache.layout.token_bytes * cache.rows * cache.positions(0).shape[0]
    return report


def speculative_gain(rate: float, k: int, cost: float = 0.0) -> float:
    if not (rate >= 0 and rate <= 1):
        raise ValueError(f"{rate} is no rate")
    tokens, stands = 1.0, 1.0
    for _ in range(k):
        stands *= rate
        tokens += stands
    return tokens / (1 + k * cost)
