"""Kata 19 in another manner: a window that slides through room to spare, always in order; blocks one by one.

Positions come first in memory, free blocks wait in a queue, prompts are nodes of a tree, and dice are thrown
for a whole draft at once.
"""

from __future__ import annotations

import abc
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tinytorch.activations import softmax
from tinytorch.attention import check_heads
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
    """Positions first: (max_length, B, KV, D), so that what is used is one piece of memory."""

    def __init__(self, max_length: int) -> None:
        if max_length < 1:
            raise ValueError(f"no room for {max_length} positions")
        self.max_length = max_length
        self.reset()

    def append(self, k: Any, v: Any) -> tuple[Array, Array]:
        k, v = self.check(k, v)
        count = k.shape[2]
        if self.length + count > self.max_length:
            raise ValueError(f"{self.length} and {count} positions are more than {self.max_length}")
        if self.rows is None:
            self.rows, self.layout = k.shape[0], Layout.of(k, v)
            self._k = np.zeros((self.max_length, *k.shape[:2], k.shape[3]), k.dtype)
            self._v = np.zeros((self.max_length, *v.shape[:2], v.shape[3]), v.dtype)
        self._k[self.length : self.length + count] = np.moveaxis(k, 2, 0)
        self._v[self.length : self.length + count] = np.moveaxis(v, 2, 0)
        self.length += count
        return self._seen(self._k), self._seen(self._v)

    def _seen(self, x: Array) -> Array:
        return np.moveaxis(x[: self.length], 0, 2)

    def select(self, rows: Any) -> None:
        if self.rows is None:
            return
        chosen = np.arange(self.rows)[np.asarray(rows, int)]
        for name in ("_k", "_v"):
            old = getattr(self, name)
            kept = old[: self.length, chosen]
            if len(chosen) != self.rows:
                old = np.zeros((self.max_length, len(chosen), *old.shape[2:]), old.dtype)
                setattr(self, name, old)
            old[: self.length] = kept
        self.rows = len(chosen)

    def truncate(self, length: int) -> None:
        self.check_length(length)
        self.length = length

    def reset(self) -> None:
        self._k = self._v = np.empty(0)
        self.rows = self.layout = None
        self.length = 0

    @property
    def nbytes(self) -> int:
        return int(self._k.nbytes + self._v.nbytes)


class WindowCache(Cache):
    """Sinks and window in one piece that slides through twice its room, and starts again at the end."""

    def __init__(self, window: int, sinks: int = 0) -> None:
        if window <= 0 or sinks < 0:
            raise ValueError(f"window {window}, sinks {sinks}")
        self.window, self.sinks = window, sinks
        self.reset()

    def _held(self) -> list[int]:
        begin = max(min(self.sinks, self.length), self.length - self.window)
        return [*range(min(self.sinks, self.length)), *range(begin, self.length)]

    def positions(self, new: int = 0) -> Array:
        if new == 0:
            return np.array(self._held(), int)
        if new == 1:
            end = self.length + 1
            begin = max(min(self.sinks, end), end - self.window)
            return np.array([*range(min(self.sinks, end)), *range(begin, end)], int)
        seen = [p for p in self._held() if p < self.sinks or p > self.length - self.window]
        return np.array(seen + list(range(self.length, self.length + new)), int)

    def append(self, k: Any, v: Any) -> tuple[Array, Array]:
        k, v = self.check(k, v)
        if self.rows is None:
            self.rows, self.layout = len(k), Layout.of(k, v)
            room = self.sinks + 2 * self.window
            self._memory = [np.empty((*x.shape[:2], room, x.shape[3]), x.dtype) for x in (k, v)]
        new = k.shape[2]
        if new == 1:
            self._slide(k, v)
            return self._shown()
        if new == 0:
            return self._shown()
        count = len(self.positions(new)) - new
        held = self._shown()
        keep = [*range(min(self.sinks, self.length))]
        keep += range(held[0].shape[2] - (count - len(keep)), held[0].shape[2])
        out = tuple(np.concatenate([x[:, :, keep], y], axis=2) for x, y in zip(held, (k, v), strict=True))
        for i in range(new):
            if self.length < self.sinks or i >= new - self.window:
                self._slide(k[:, :, i : i + 1], v[:, :, i : i + 1])
            else:
                self.length += 1
        return out[0], out[1]

    def _slide(self, k: Array, v: Array) -> None:
        """One position more behind the others; the sinks move up when one is forgotten."""
        full = self._stop - self._start >= self.sinks + self.window
        if self._stop == self._memory[0].shape[2]:
            size = self._stop - self._start
            for x in self._memory:
                x[:, :, :size] = x[:, :, self._start : self._stop].copy()
            self._start, self._stop = 0, size
        if full:
            for x in self._memory:
                a = self._start
                x[:, :, a + 1 : a + 1 + self.sinks] = x[:, :, a : a + self.sinks].copy()
            self._start += 1
        for x, y in zip(self._memory, (k, v), strict=True):
            x[:, :, self._stop : self._stop + 1] = y
        self._stop += 1
        self.length += 1

    def _shown(self) -> tuple[Array, Array]:
        k, v = (x[:, :, self._start : self._stop] for x in self._memory)
        return k, v

    def fit(self, mask: Any, new: int) -> Any:
        places = self.positions(new)
        if mask is not None:
            mask = np.take(as_array(mask), places, axis=-1)
        if new <= 1:
            return mask
        back = np.subtract.outer(np.arange(self.length, self.length + new), places)
        rows = np.logical_and(back >= 0, back < self.window)
        rows[:, places < self.sinks] = True
        return rows if mask is None else np.logical_and(mask, rows)

    def select(self, rows: Any) -> None:
        if self.rows is None:
            return
        chosen = np.arange(self.rows)[np.asarray(rows, int)]
        self._memory = [np.take(x, chosen, axis=0) for x in self._memory]
        self.rows = len(chosen)

    def truncate(self, length: int) -> None:
        self.check_length(length)
        begin = max(min(self.sinks, length), length - self.window)
        wanted = [*range(min(self.sinks, length)), *range(begin, length)]
        if not set(wanted) <= set(self._held()):
            raise ValueError(f"not all of {length} positions is left of {self.length}")
        self._stop = self._start + len(wanted)
        self.length = length

    def reset(self) -> None:
        self._memory: list[Array] = []
        self._start = self._stop = self.length = 0
        self.rows = self.layout = None

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in self._memory)


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
        """As of the model; `mask` is about all positions, whatever the caches have forgotten."""
        if caches:
            mask = caches[0].fit(mask, as_array(ids).shape[1])
        logits: Tensor = self.model(ids, mask=mask, caches=caches, positions=positions)
        return logits


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
        if min(blocks, block_size) < 1:
            raise ValueError(f"{blocks} blocks of {block_size}")
        self.blocks, self.block_size = blocks, block_size
        self.layout: Layout | None = None
        self.keys: Array = np.empty(0)
        self.values: Array = self.keys
        self._waiting = deque(range(blocks))
        self._counts: dict[int, int] = {}

    @property
    def free(self) -> int:
        return self.blocks - len(self._counts)

    def users(self, block: int) -> int:
        return self._counts.get(block, 0)

    def allocate(self) -> int:
        if not self._waiting:
            raise OutOfBlocks(f"none of {self.blocks} blocks is free")
        block = self._waiting.popleft()
        self._counts[block] = 1
        return block

    def share(self, block: int) -> None:
        if block not in self._counts:
            raise ValueError(f"nobody uses block {block}")
        self._counts[block] += 1

    def release(self, block: int) -> None:
        if block not in self._counts:
            raise ValueError(f"nobody uses block {block}")
        self._counts[block] -= 1
        if self._counts[block] == 0:
            del self._counts[block]
            self._waiting.append(block)

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
        pool, size, new = self.pool, self.pool.block_size, k.shape[2]
        tables = (
            [list(table) for table in self.tables] if self.rows is not None else [[] for _ in range(len(k))]
        )
        part = self.length % size
        lasts = Counter(table[-1] for table in tables) if part and new else Counter()
        moving = {block: count - (count == pool.users(block)) for block, count in lasts.items()}
        fresh = sum(moving.values()) + len(tables) * max(
            0, -(-(self.length + new) // size) - -(-self.length // size)
        )
        if fresh > pool.free:
            raise OutOfBlocks(f"of {fresh} blocks that are needed, {pool.free} of {pool.blocks} are free")
        pool.lay_out(k, v)
        for row, table in enumerate(tables):
            if part and new and moving[table[-1]] > 0:
                moving[table[-1]] -= 1
                block = pool.allocate()
                pool.keys[:, block, :part] = pool.keys[:, table[-1], :part]
                pool.values[:, block, :part] = pool.values[:, table[-1], :part]
                pool.release(table[-1])
                table[-1] = block
            done = 0
            while done < new:
                at = (self.length + done) % size
                if at == 0:
                    table.append(pool.allocate())
                count = min(size - at, new - done)
                pool.keys[:, table[-1], at : at + count] = k[row, :, done : done + count]
                pool.values[:, table[-1], at : at + count] = v[row, :, done : done + count]
                done += count
        self.tables, self.length, self.rows = tables, self.length + new, len(k)

    def gather(self, start: int = 0, stop: int | None = None) -> tuple[Array, Array]:
        size, pool = self.pool.block_size, self.pool
        stop = self.length if stop is None or stop > self.length else stop
        count = max(0, stop - start)
        out = []
        for held in (pool.keys, pool.values):
            room = np.empty((len(self.tables), held.shape[0], count, held.shape[3]), held.dtype)
            for row, table in enumerate(self.tables):
                for at in range(0, count, size):
                    block = table[(start + at) // size]
                    room[row, :, at : at + size] = held[:, block, : min(size, count - at)]
            out.append(room)
        return out[0], out[1]

    def select(self, rows: Any) -> None:
        if self.rows is None:
            return
        wanted = np.arange(self.rows)[np.asarray(rows, int)].tolist()
        old = self.tables
        other = [old[row][:] for row in wanted]
        change = Counter(block for table in other for block in table)
        change.subtract(block for table in old for block in table)
        for block, count in change.items():
            for _ in range(count):
                self.pool.share(block)
            for _ in range(-count):
                self.pool.release(block)
        self.tables, self.rows = other, len(other)

    def fork(self) -> PagedCache:
        other = PagedCache(self.pool)
        other.length, other.rows, other.tables = self.length, self.rows, [table[:] for table in self.tables]
        for table in other.tables:
            for block in table:
                self.pool.share(block)
        return other

    def truncate(self, length: int) -> None:
        self.check_length(length)
        for table in self.tables:
            while (len(table) - 1) * self.pool.block_size >= length and table:
                self.pool.release(table.pop())
        self.length = length

    def reset(self) -> None:
        for table in self.tables:
            for block in table:
                self.pool.release(block)
        self.tables, self.rows, self.length = [], None, 0

    @property
    def nbytes(self) -> int:
        return len(set().union(*self.tables)) * self.pool.block_bytes


def paged_attention(q: Any, cache: PagedCache, scale: float | None = None, chunk: int = 256) -> Array:
    """All pieces are read twice: once for the largest score of each row, and once more for the mix."""
    q = as_array(q)
    check_heads(q, q)
    rows, heads, queries, width = q.shape
    if queries > cache.length:
        raise ValueError(f"{queries} queries for {cache.length} positions")
    k, v = cache.gather(0, 0)
    check_heads(q, k, v)
    kv, size = k.shape[1], cache.pool.block_size
    step = max(size, chunk // size * size)
    asked = q.reshape(rows, kv, heads // kv, queries, width) * (
        1 / math.sqrt(width) if scale is None else scale
    )
    places = cache.length - queries + np.arange(queries)

    def pieces() -> Iterator[tuple[Array, Array]]:
        for start in range(0, cache.length, step):
            keys, values = cache.gather(start, start + step)
            scores = asked @ keys[:, :, None].swapaxes(-1, -2)
            seen = places[:, None] >= np.arange(start, start + keys.shape[2])
            yield np.where(seen, scores, np.array(-np.inf, q.dtype)), values[:, :, None]

    top = np.full((*asked.shape[:4], 1), -np.inf, q.dtype)
    for scores, _ in pieces():
        top = np.maximum(top, scores.max(axis=-1, keepdims=True))
    total: Any = 0
    mix: Any = 0
    for scores, values in pieces():
        weights = np.exp(scores - top)
        total = total + weights.sum(axis=-1, keepdims=True)
        mix = mix + weights @ values
    out: Array = (mix / total).reshape(rows, heads, queries, v.shape[3])
    return out


# Reading and writing with caches.


def read_rest(model: LanguageModel, ids: Array, caches: Sequence[Any], chunk: int | None = None) -> Array:
    rest = ids[:, caches[0].length :]
    if not rest.shape[1]:
        raise ValueError(f"{caches[0].length} of {ids.shape[1]} columns are read, and none is left")
    if chunk is not None and chunk <= 0:
        raise ValueError(f"chunks of {chunk} columns")
    parts = [rest] if chunk is None else np.split(rest, range(chunk, rest.shape[1], chunk), axis=1)
    for part in parts[:-1]:
        model(part, caches=caches)
    return np.array(as_array(model(parts[-1], caches=caches))[:, -1])


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
    text = left_padded(ids)[0].copy()
    if caches is None:
        caches = model.new_caches()
    for _ in range(max_new_tokens):
        logits = prefill(model, text, caches, chunk)
        for processor in processors:
            logits = processor(logits, text)
        new = greedy(logits) if rng is None else sample(logits, rng=rng)
        text = np.append(text, new[:, None], axis=1)
    return text


class Node:
    """A block of ids, and those that go on from it."""

    def __init__(self, parent: Node | None, part: bytes, blocks: list[int]) -> None:
        self.parent, self.part, self.blocks = parent, part, blocks
        self.children: dict[bytes, Node] = {}


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
            raise ValueError(f"{layers} layers, {capacity} blocks")
        self.pool, self.layers, self.capacity = pool, layers, capacity
        self.hits = self.misses = 0
        self._root: Node = Node(None, b"", [])
        self._order: OrderedDict[Node, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._order)

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
        row, size = self.row(ids), self.pool.block_size
        node, found = self._root, 0
        path = []
        for part in self._parts(row[:-1]):
            child = node.children.get(part)
            if child is None:
                break
            node, found = child, found + 1
            path.append(node)
        self.hits += found
        self.misses += (len(row) - 1) // size - found
        caches = []
        for layer in range(self.layers):
            cache = PagedCache(self.pool)
            if path:
                cache.tables, cache.rows, cache.length = [[]], 1, found * size
            for one in path:
                self.pool.share(one.blocks[layer])
                cache.tables[0].append(one.blocks[layer])
            caches.append(cache)
        self._use(node)
        return caches

    def keep(self, ids: Any, caches: Sequence[PagedCache]) -> None:
        row = self.row(ids)
        if [cache.rows for cache in caches] != [1] * self.layers:
            raise ValueError(
                f"{len(caches)} caches of {[cache.rows for cache in caches]} rows, not {self.layers} of 1"
            )
        node = self._root
        for i, part in enumerate(self._parts(row[: caches[0].length])):
            if part not in node.children:
                blocks = [cache.tables[0][i] for cache in caches]
                for block in blocks:
                    self.pool.share(block)
                node.children[part] = Node(node, part, blocks)
            node = node.children[part]
        self._use(node)
        self.shrink(self.capacity)

    def _parts(self, row: Array) -> list[bytes]:
        size = self.pool.block_size
        return [row[i : i + size].tobytes() for i in range(0, len(row) - size + 1, size)]

    def _use(self, node: Node | None) -> None:
        """A node is newer than its children: it comes after them."""
        while node is not None and node is not self._root:
            self._order.pop(node, None)
            self._order[node] = None
            node = node.parent

    def find(self, row: Array) -> list[Any]:
        raise TypeError("not needed here")

    def shrink(self, count: int = 0) -> None:
        while len(self._order) > count:
            node = next(iter(self._order))
            del self._order[node]
            assert node.parent is not None
            assert not node.children
            del node.parent.children[node.part]
            for block in node.blocks:
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
    if ids.ndim != 1 or q.shape != (len(ids), *p.shape[1:]) or p.shape[:1] != (len(ids) + 1,) or p.ndim != 2:
        raise ValueError(f"{q.shape}, {p.shape} and {ids.shape} do not fit")
    ids = ids.astype(np.int64)
    at = np.arange(len(ids))
    with np.errstate(divide="ignore", invalid="ignore"):
        falls = rng.random(len(ids)) >= p[at, ids] / q[at, ids]
    count = int(falls.argmax()) if falls.any() else len(ids)
    weights = p[count]
    if count < len(ids):
        weights = weights - np.minimum(weights, q[count])
        if weights.sum() == 0:
            weights = p[count]
    new = rng.choice(len(weights), p=weights / weights.sum())
    return np.append(ids[:count], new)


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
    text, _ = left_padded(ids)
    if len(text) > 1 or k < 1:
        raise ValueError(f"one row, not {text.shape}, and one guess or more, not {k}")
    stop = text.shape[1] + max_new_tokens
    process, dice = chain(*processors), rng or np.random.default_rng()
    large, small = (
        [c if hasattr(c, "truncate") else StaticCache(stop) for c in m.new_caches()] for m in (target, draft)
    )
    calls = drafted = accepted = 0
    with evaluating(target), evaluating(draft):
        while text.shape[1] < stop:
            guess, shares = text, []
            for _ in range(min(k, stop - text.shape[1] - 1)):
                shares.append(probabilities(process(read_rest(draft, guess, small), guess), rng))
                guess = np.append(guess, [[draw(shares[-1][0], dice)]], axis=1)
            count = len(shares)
            rows = as_array(target(guess[:, large[0].length :], caches=large))[:, -count - 1 :]
            wanted = [
                probabilities(process(rows[:, i], guess[:, : text.shape[1] + i]), rng)
                for i in range(count + 1)
            ]
            p = np.concatenate(wanted)
            q = np.concatenate(shares) if shares else p[:0]
            new = accept(q, p, guess[0, text.shape[1] :], rng=dice)
            text = np.append(text, new[None], axis=1)
            for cache in large + small:
                if cache.length >= text.shape[1]:
                    cache.truncate(text.shape[1] - 1)
            calls += 1
            drafted += count
            accepted += len(new) - 1
    return Speculation(text, calls, drafted, accepted)


# What it costs, and what it gains.


def generation_cost(prompt: int, new: int, cached: bool = True, window: int | None = None) -> dict[str, int]:
    if prompt < 1 or new < 0:
        raise ValueError(f"{prompt} and {new} tokens")

    def triangle(n: int) -> int:
        w = n if window is None else min(n, window)
        return w * (w + 1) // 2 + (n - w) * w

    read = [prompt + new - 1] * (new > 0) if cached else [prompt + i for i in range(new)]
    return {"tokens": sum(read), "pairs": sum(map(triangle, read))}


def bytes_per_token(config: Any, itemsize: int = 4) -> int:
    heads = config.num_kv_heads or config.num_heads
    return int(config.num_layers * heads * (config.dim // config.num_heads) * 2 * itemsize)


def cache_report(caches: Iterable[Cache]) -> dict[str, int]:
    every = list(caches)
    used = [
        (c.rows or 0) * c.positions().size * c.layout.token_bytes if c.layout is not None else 0
        for c in every
    ]
    return {"used": sum(used), "reserved": sum(c.nbytes for c in every)}


def speculative_gain(rate: float, k: int, cost: float = 0.0) -> float:
    if rate != rate or rate < 0 or rate > 1:
        raise ValueError(f"rate {rate}")
    tokens = k + 1 if rate == 1 else (1 - rate ** (k + 1)) / (1 - rate)
    return tokens / (k * cost + 1)
