"""Kata 19 · KV caches: what a text leaves behind for its next token, where it is kept, and who may share it.

Kata 13's cache doubles its memory when it is full. Those here answer as it does, so that its attention, kata
14's TinyGPT and kata 15's `generate` take them as they are; but one is laid out once, one forgets, and one
lives in blocks that texts share. On top of them: prompts that were read before and are not read again, long
ones that are read in chunks, and several tokens for one call of a large model, guessed by a small one.

Keys are `(B, KV, T, D)` and values `(B, KV, T, E)`, as in kata 13: B rows (texts), KV heads, T positions.
"""

from __future__ import annotations

import abc
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tinytorch.activations import softmax
from tinytorch.attention import absorb, check_heads, grouped, stacked
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
        """Keep these rows, in this order; one may be kept several times, or none. A new cache stays new.

        IndexError, naming it, for a row that is not there; whether -1 is the last one or none is left open.
        """

    @abc.abstractmethod
    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on, as if they had never been; rows and layout stay.

        Errors as of `check_length`.
        """

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
        """As of every Cache; views of the memory.

        ValueError if there is no room, naming how many came, max_length, and how many positions there are.
        """
        # kata 19.1: check, then look for room, then lay out, then write.
        k, v = self.check(k, v)
        start, end = self.length, self.length + k.shape[2]
        if end > self.max_length:
            raise ValueError(
                f"{k.shape[2]} more positions do not fit a cache of {self.max_length} that holds {start}"
            )
        self.lay_out(k, v)
        for held, x in zip(self.held, (k, v), strict=True):
            held[:, :, start:end] = x
        self.length = end
        return self.held[0][:, :, :end], self.held[1][:, :, :end]

    def select(self, rows: Any) -> None:
        """As of every Cache; where as many rows stay, in the memory that there is."""
        # kata 19.2: copy what is in use, and no more. Other rows than before need other memory.
        if self.rows is None:
            return
        rows, used = np.asarray(rows, np.intp), len(self.positions())
        for i, held in enumerate(self.held):
            chosen = held[rows, :, :used]
            if len(rows) != self.rows:
                self.held[i] = held = np.empty((len(rows), *held.shape[1:]), held.dtype)
            held[:, :, :used] = chosen
        self.rows = len(rows)

    def truncate(self, length: int) -> None:
        """As of every Cache. The memory stays."""
        # kata 19.2: what is behind `length` will be written over some time.
        self.check_length(length)
        self.length = length

    def reset(self) -> None:
        # kata 19.2: what was there before the first `append`?
        self.length, self.rows, self.layout, self.held = 0, None, None, []

    @property
    def nbytes(self) -> int:
        # kata 19.2: all that was laid out.
        return sum(x.nbytes for x in self.held)


class WindowCache(StaticCache):
    """The first `sinks` positions and the last `window` of the others, in memory that never grows.

    A position sees itself, the window - 1 before it, and the sinks. A prompt is written, and its mask fitted,
    in arrays and not position by position. ValueError for a window below 1 or sinks below 0. What StaticCache
    does with its memory is right here, too, where positions are kept as `slots` says.
    """

    def __init__(self, window: int, sinks: int = 0) -> None:
        if window < 1 or sinks < 0:
            raise ValueError(f"a window of {window} positions beside {sinks} sinks is none")
        super().__init__(sinks + window)
        self.window, self.sinks = window, sinks

    def slots(self, positions: Array) -> Array:
        """Where in memory positions lie: first the sinks, then a ring, where a new one takes the place of the
        oldest. Given; another order will do as well."""
        around = self.sinks + (positions - self.sinks) % self.window
        return np.where(positions < self.sinks, positions, around)

    def positions(self, new: int = 0) -> Array:
        """As of every Cache. With several new ones: the sinks, what any of the new ones sees, and the new
        ones, which come last and in order, as the causal mask wants it.

        With a single one: the sinks and the last `window`, that one among them, in any order: one query may
        see them all. With none, what is held: the sinks and the last `window`.
        """
        # kata 19.3: the first of several new ones sees the window - 1 positions before it. With a single one,
        # you may say which position lies where once it is in.
        end = self.length + new
        if new > 1:
            begin = max(self.sinks, self.length - self.window + 1)
            return np.concatenate([np.arange(min(self.sinks, end)), np.arange(begin, end)])
        slots = np.arange(min(end, self.max_length))
        return np.where(slots < self.sinks, slots, end - 1 - (end - 1 - slots) % self.window)

    def append(self, k: Any, v: Any) -> tuple[Array, Array]:
        """As of every Cache; for a single new position the memory itself, and nothing is copied."""
        # kata 19.4: with several new ones: what they see and they themselves, in a new array; and the last of
        # them stay. What if more come than there is room for?
        k, v = self.check(k, v)
        self.lay_out(k, v)
        new, end = k.shape[2], self.length + k.shape[2]
        if new > 1:
            seen = self.slots(self.positions(new)[:-new])
            every = [
                np.concatenate([x[:, :, seen], y], axis=2) for x, y in zip(self.held, (k, v), strict=True)
            ]
        else:
            every = [x[:, :, : min(end, self.max_length)] for x in self.held]
        fresh = np.arange(self.length, end)
        stay = (fresh < self.sinks) | (fresh >= end - self.window)
        for held, x in zip(self.held, (k, v), strict=True):
            held[:, :, self.slots(fresh[stay])] = x[:, :, stay]
        self.length = end
        return every[0], every[1]

    def fit(self, mask: Any, new: int) -> Any:
        """As of every Cache: None, or bools for keys in the order of `positions(new)`.

        `mask` is None or bools (..., length + new), an array or a Tensor, about all positions in their order.
        """
        # kata 19.5: its columns by `positions`. And of several new ones, each has a window of its own.
        places = self.positions(new)
        mask = None if mask is None else as_array(mask)[..., places]
        if new < 2:
            return mask
        queries = np.arange(self.length, self.length + new)[:, None]
        window = (places < self.sinks) | (places > queries - self.window)
        return window if mask is None else window & mask

    def truncate(self, length: int) -> None:
        """As of every Cache; but what is forgotten does not come back: ValueError, naming `length` and how
        many positions there were, if of the sinks and the `window` positions before `length` one is gone.
        """
        # kata 19.6: where does the window before `length` begin? And what is held now?
        self.check_length(length)
        if length > self.sinks and max(length - self.window, self.sinks) < self.length - self.window:
            raise ValueError(
                f"of {self.length} positions the last {self.window} are held: none can go back to {length}"
            )
        self.length = length


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
        # kata 19.7: count those, and make your own.
        return [self.make() for _ in self.model.new_caches()]

    def forward(
        self, ids: Any, mask: Any = None, caches: Sequence[Any] | None = None, positions: Any = None
    ) -> Tensor:
        """As of the model; `mask` is about all positions, whatever the caches have forgotten.

        Caches that are not one for each block, none at all among them, are the model's to refuse.
        """
        # kata 19.7: the model wants a mask for the keys that it gets.
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

    Blocks are numbered from 0. A block may have several users, and is free when none is left. No method takes
    longer in a large pool than in a small one. The memory is laid out once, when the first user knows what a
    position is made of. ValueError for numbers below 1.

    Attributes:
        keys, values: (KV, blocks, block_size, D) and (…, E), empty before. What is in a block that nobody has
            written to is anything.
        layout: what a position is made of, None before.
    """

    def __init__(self, blocks: int, block_size: int) -> None:
        if blocks < 1 or block_size < 1:
            raise ValueError(f"a pool of {blocks} blocks of {block_size} positions is none")
        self.blocks, self.block_size = blocks, block_size
        self.layout: Layout | None = None
        self.keys: Array = np.empty(0)
        self.values: Array = self.keys
        # kata 19.8: which are free, and how many users each has. `range(blocks)` are all.
        self._free = list(range(blocks))
        self._users = [0] * blocks

    @property
    def free(self) -> int:
        """How many blocks have no user."""
        # kata 19.8: one look.
        return len(self._free)

    def users(self, block: int) -> int:
        """How many users a block has."""
        # kata 19.8: one look.
        return self._users[block]

    def allocate(self) -> int:
        """A free block, which then has one user. OutOfBlocks, naming how many there are, if none is free."""
        # kata 19.8: any free one. Not by looking through all of them.
        if not self._free:
            raise OutOfBlocks(f"all {self.blocks} blocks are in use")
        block = self._free.pop()
        self._users[block] = 1
        return block

    def share(self, block: int) -> None:
        """One more user for a block that has some. ValueError, naming it, for any other number."""
        # kata 19.8: beware of -1.
        self.check_used(block)
        self._users[block] += 1

    def release(self, block: int) -> None:
        """One user less. Errors as of `share`."""
        # kata 19.8: the last one frees it.
        self.check_used(block)
        self._users[block] -= 1
        if not self._users[block]:
            self._free.append(block)

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
        """Add keys and values, and return nothing.

        New blocks are allocated when they are needed, and no sooner. A block with other users is not written
        to: the row gets a copy of its own. OutOfBlocks, naming how many are needed and how many are free,
        before anything is changed.
        """
        # kata 19.9: how many blocks will be needed, copies among them? Two rows that share their last block
        # need one copy, if nobody else has it. Then write to all rows at once: which block, and where in it?
        k, v = self.check(k, v)
        pool, start, end = self.pool, self.length, self.length + k.shape[2]
        tables = self.tables or [[] for _ in k]
        more = -(-end // pool.block_size) - -(-start // pool.block_size)
        copied: list[list[int]] = []
        left: dict[int, int] = {}
        if start % pool.block_size and end > start:
            for table in tables:
                users = left.get(table[-1], pool.users(table[-1]))
                left[table[-1]] = users - 1
                if users > 1:
                    copied.append(table)
        needed = len(tables) * more + len(copied)
        if needed > pool.free:
            raise OutOfBlocks(f"{needed} blocks are needed, and {pool.free} of {pool.blocks} are free")
        pool.lay_out(k, v)
        for table in copied:
            fresh = pool.allocate()
            for held in (pool.keys, pool.values):
                held[:, fresh] = held[:, table[-1]]
            pool.release(table[-1])
            table[-1] = fresh
        for table in tables:
            table += [pool.allocate() for _ in range(more)]
        block, place = np.divmod(np.arange(start, end), pool.block_size)
        blocks = np.array(tables, np.intp).reshape(len(tables), -(-end // pool.block_size))[:, block]
        for held, x in zip((pool.keys, pool.values), (k, v), strict=True):
            held[:, blocks, place] = x.swapaxes(0, 1)
        self.tables, self.length, self.rows = tables, end, len(k)

    def gather(self, start: int = 0, stop: int | None = None) -> tuple[Array, Array]:
        """The keys and values of the positions from `start`, where a block begins, to before `stop`.

        (B, KV, stop - start, D) and (…, E), in memory of their own, copied once. Without `stop`, to the end.
        """
        # kata 19.10: np.take, by a table of blocks (B, n), gives (KV, B, n, block_size, D). What must follow
        # is free. How much of the last block is in use?
        stop = self.length if stop is None else min(stop, self.length)
        size = self.pool.block_size
        count = -(-stop // size) - start // size
        table = np.array([blocks[start // size : -(-stop // size)] for blocks in self.tables], np.intp)
        out = []
        for held in (self.pool.keys, self.pool.values):
            taken = held.take(table, axis=1)
            joined = taken.reshape(len(held), len(self.tables), count * size, held.shape[3])
            out.append(joined[:, :, : stop - start].swapaxes(0, 1))
        return out[0], out[1]

    def select(self, rows: Any) -> None:
        """As of every Cache. Nothing is copied: rows share blocks until one of them writes."""
        # kata 19.11: first take, then give back.
        if self.rows is None:
            return
        chosen = [list(self.tables[row]) for row in np.arange(self.rows)[np.asarray(rows, np.intp)]]
        for table in chosen:
            for block in table:
                self.pool.share(block)
        for table in self.tables:
            for block in table:
                self.pool.release(block)
        self.tables, self.rows = chosen, len(chosen)

    def fork(self) -> PagedCache:
        """Another cache of the same text, which goes its own way. Nothing is copied."""
        # kata 19.11: the same blocks, one user more.
        other = PagedCache(self.pool)
        for table in self.tables:
            for block in table:
                self.pool.share(block)
        other.tables = [list(table) for table in self.tables]
        other.length, other.rows = self.length, self.rows
        return other

    def truncate(self, length: int) -> None:
        """As of every Cache. Blocks that are not needed any more are given back."""
        # kata 19.11: how many are needed still?
        self.check_length(length)
        for table in self.tables:
            for block in table[-(-length // self.pool.block_size) :]:
                self.pool.release(block)
            del table[-(-length // self.pool.block_size) :]
        self.length = length

    def reset(self) -> None:
        # kata 19.11: nothing of it is needed.
        self.truncate(0)
        self.tables, self.rows = [], None

    @property
    def nbytes(self) -> int:
        """Bytes of the blocks that it uses; those of several rows count once."""
        # kata 19.11: `block_bytes` each.
        return len({block for table in self.tables for block in table}) * self.pool.block_bytes


def paged_attention(q: Any, cache: PagedCache, scale: float | None = None, chunk: int = 256) -> Array:
    """Attention of queries (B, H, Tq, D), the last Tq positions of `cache`, to all that is in it, causally.

    Queries are an array or a Tensor, and there may be none.

    What `fused_attention` of kata 13 makes of them and of what `gather()` gives, (B, H, Tq, E); but never are
    more than `chunk` positions gathered at once (those of a block, if it has more). Errors as of
    `check_heads`; ValueError, naming both numbers, for more queries than positions.
    """
    # kata 19.12: kata 13's `absorb`, once for each piece. Query i stands at length - Tq + i.
    q = as_array(q)
    check_heads(q, q)
    size, length, queries = cache.pool.block_size, cache.length, q.shape[2]
    if queries > length:
        raise ValueError(f"{queries} queries are not the last of {length} positions")
    check_heads(q, *cache.gather(0, 0))
    apart = grouped(q * (q.shape[3] ** -0.5 if scale is None else scale), len(cache.pool.keys))
    asked = stacked(apart)
    top = np.full((*asked.shape[:3], 1), -np.inf, q.dtype)
    total = np.zeros_like(top)
    mix = np.zeros((*asked.shape[:3], cache.pool.values.shape[3]), q.dtype)
    step = max(1, chunk // size) * size
    for start in range(0, length, step):
        k, v = cache.gather(start, start + step)
        scores = (asked @ k.swapaxes(-1, -2)).reshape(*apart.shape[:4], k.shape[2])
        future = start + np.arange(k.shape[2]) > length - queries + np.arange(queries)[:, None]
        np.copyto(scores, -np.inf, where=future)
        absorb(stacked(scores), v, top, total, mix)
    out: Array = (mix / total).reshape(*q.shape[:3], mix.shape[3])
    return out


# Reading and writing with caches.


def read_rest(model: LanguageModel, ids: Array, caches: Sequence[Any], chunk: int | None = None) -> Array:
    """The logits (B, V) after ids (B, T), of which the caches hold the first ones already.

    Only the rest is given to the model, at most `chunk` columns at once, and all of it without `chunk`; after
    that the caches hold all of them. What comes back is no view of more. Inside of `evaluating` (10).
    ValueError if there is no rest, naming what the caches hold and T, or for a chunk below 1, naming it.
    """
    # kata 19.13: of all the logits, only the last column's are wanted; let go of a chunk's before the next.
    begin, length = caches[0].length, ids.shape[1]
    if begin >= length:
        raise ValueError(f"nothing is left to read: the caches hold {begin} positions of {length}")
    chunk = length if chunk is None else chunk
    if chunk < 1:
        raise ValueError(f"a chunk has 1 column or more, not {chunk}")
    for start in range(begin, length, chunk):
        part = ids[:, start : min(start + chunk, length)]
        last: Array = as_array(model(part, caches=caches))[:, -1].copy()
    return last


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
    everything but the last column; where no token is wanted, nothing is read. What is read must fit the
    model's context, or the model raises on the way; afterwards it trains as before, then too. Each draw is as
    in kata 15: `processors` see the logits and all ids so far; without `rng` the most likely id is taken,
    with it one is drawn by `sample`. Errors as of `left_padded` (15) and `read_rest`.
    """
    # kata 19.14: read the rest, choose, write it into the next column.
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
            raise ValueError(f"{layers} layers and a capacity of {capacity} leave nothing to remember")
        self.pool, self.layers, self.capacity = pool, layers, capacity
        self.hits = self.misses = 0
        self.known: OrderedDict[tuple[int, bytes], tuple[int, list[int]]] = OrderedDict()
        self.numbers = 0

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
        """Caches, one a layer, that hold what is known of how this row of ids begins: whole blocks.

        Never all ids: the last one must be read for what follows it. Each whole block that is before it is a
        hit or a miss. ValueError as of `row`.
        """
        # kata 19.16: `share` what was found. It was used just now; what it goes on from must not be older.
        row, size = self.row(ids), self.pool.block_size
        row = row[: (len(row) - 1) // size * size]
        keys = self.find(row)
        self.hits += len(keys)
        self.misses += len(row) // size - len(keys)
        caches = [PagedCache(self.pool) for _ in range(self.layers)]
        for i, cache in enumerate(caches):
            if keys:
                table = [self.known[key][1][i] for key in keys]
                for block in table:
                    self.pool.share(block)
                cache.tables, cache.length, cache.rows = [table], len(table) * size, 1
        for key in reversed(keys):
            self.known.move_to_end(key)
        return caches

    def keep(self, ids: Any, caches: Sequence[PagedCache]) -> None:
        """Remember what caches of one row, one a layer, hold of this row of ids: all whole blocks.

        ValueError as of `row`, and for caches that are not so, with how many they are and the `rows` of each:
        for new ones, too, whose `rows` is None.
        """
        # kata 19.15: one user more for each block that is new. When there are too many, forget.
        row, size = self.row(ids), self.pool.block_size
        if len(caches) != self.layers or any(cache.rows != 1 for cache in caches):
            rows = [cache.rows for cache in caches]
            raise ValueError(f"{self.layers} caches of 1 row are kept, not {len(caches)} of {rows}")
        count = min(len(row), caches[0].length) // size
        row = row[: count * size]
        keys = self.find(row)
        for i in range(len(keys), count):
            before = self.known[keys[-1]][0] if keys else 0
            keys.append((before, row[i * size : (i + 1) * size].tobytes()))
            self.numbers += 1
            blocks = [cache.tables[0][i] for cache in caches]
            for block in blocks:
                self.pool.share(block)
            self.known[keys[-1]] = self.numbers, blocks
        for key in reversed(keys):
            self.known.move_to_end(key)
        self.shrink(self.capacity)

    def find(self, row: Array) -> list[tuple[int, bytes]]:
        """The keys of a row's blocks, from the first one on, as far as they are known."""
        # kata 19.15: each leads on from the number of the one before it, the first from 0.
        keys: list[tuple[int, bytes]] = []
        for part in row.reshape(-1, self.pool.block_size):
            key = (self.known[keys[-1]][0] if keys else 0, part.tobytes())
            if key not in self.known:
                break
            keys.append(key)
        return keys

    def shrink(self, count: int = 0) -> None:
        """Forget the oldest until `count` blocks of ids are left, and give their memory back."""
        # kata 19.15: in every layer.
        while len(self.known) > count:
            _, (_, blocks) = self.known.popitem(last=False)
            for block in blocks:
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
    """How much of a draft stands, and one id more: so that all are distributed as the target says.

    The speculative sampling of Leviathan and others (2023). The ids `drafted` (k,) were drawn one after the
    other from the rows of `draft_probs` (k, V). Row i of `target_probs` (k + 1, V) is what the target would
    have drawn the i-th from, after the drafted ones before it. An id x stands with probability
    min(1, target[x] / draft[x]). The first that does not is replaced by one drawn from what the target has
    more of than the draft, max(target - draft, 0), or, where rounding leaves nothing of that, from the
    target; and the rest falls. If all stand, one more is drawn from the last row. All three may be arrays,
    Tensors or lists; k may be 0.

    Returns:
        int64, 1 to k + 1 ids: those that stand, and the new one.

    Raises:
        ValueError: the shapes do not fit; the message names them.
    """
    # kata 19.17: dividing is not needed to compare: u < p / q is u * q < p. `draw` scales its weights itself.
    q, p, drafted = (as_array(x) for x in (draft_probs, target_probs, drafted))
    k = len(drafted)
    if drafted.ndim != 1 or q.ndim != 2 or len(q) != k or p.shape != (k + 1, q.shape[1]):
        raise ValueError(
            f"{drafted.shape} ids of {q.shape} probabilities do not fit {p.shape} of the target's"
        )
    for i, x in enumerate(drafted.tolist()):
        if rng.random() * q[i, x] >= p[i, x]:
            more = np.maximum(p[i] - q[i], 0)
            return np.array([*drafted[:i], draw(more if more.any() else p[i], rng)], np.int64)
    return np.array([*drafted, draw(p[k], rng)], np.int64)


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
    those. `processors` act on the logits of both, each with all ids before it. A model whose `new_caches()`,
    asked for once, can be truncated (see `with_caches`) reads with these, and any other with a StaticCache
    for each of them.
    A window that forgets cannot be cut back, and raises: let it be as long as the text.

    Raises:
        ValueError: k below 1, which it names; ids of several rows, with their shape; or as of `left_padded`.
    """
    # kata 19.18: after a round all but the last of the ids may stay in the caches, at most. The draft has not
    # read its own last guess; the target has read them all.
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
    """What a model does to write `new` tokens after `prompt` others, counted.

    "tokens": how many go through it, all calls together. "pairs": how many keys are scored by all queries of
    one head; a query sees itself and what is before it, `window` positions in all at most. Without a cache
    all tokens so far go through it for each new one. ValueError, naming both, for a prompt below 1 or `new`
    below 0.
    """
    # kata 19.19: which lengths are read in one piece? The last token is written, and never read.
    if prompt < 1 or new < 0:
        raise ValueError(f"a prompt of {prompt} tokens and {new} new ones: at least 1 and 0")
    lengths = range(prompt, prompt + new)
    seen = [0]  # pairs of a text of so many tokens
    for i in range(1, prompt + new):
        seen.append(seen[-1] + (i if window is None else min(i, window)))
    if cached:
        last = prompt + new - 1 if new else 0
        return {"tokens": last, "pairs": seen[last]}
    return {"tokens": sum(lengths), "pairs": sum(seen[n] for n in lengths)}


def bytes_per_token(config: Any, itemsize: int = 4) -> int:
    """Bytes that one token leaves in the caches of a model with this GPTConfig (14)."""
    # kata 19.19: a key and a value in each layer. `kv_dim` is all heads' numbers.
    return int(2 * config.num_layers * config.kv_dim * itemsize)


def cache_report(caches: Iterable[Cache]) -> dict[str, int]:
    """Bytes of caches, together: "used", by the positions that they hold, each row's own; and "reserved".

    Where rows share blocks, less may be reserved than is used.
    """
    # kata 19.19: rows, times positions that are held, times `token_bytes`; and `nbytes`.
    used = reserved = 0
    for cache in caches:
        if cache.layout is not None and cache.rows:
            used += cache.rows * len(cache.positions()) * cache.layout.token_bytes
        reserved += cache.nbytes
    return {"used": used, "reserved": reserved}


def speculative_gain(rate: float, k: int, cost: float = 0.0) -> float:
    """How many times as fast a target writes with a draft of k tokens, of which each stands with `rate`.

    A call of the draft costs `cost` calls of the target; with 0 it is how many tokens a call gives, on
    average. (Leviathan and others, 2023, theorem 3.8.) ValueError, naming it, for a rate that is not from 0
    to 1.
    """
    # kata 19.19: the i-th stands if all before it do: 1 + rate + rate**2 + …, k + 1 terms.
    if not 0 <= rate <= 1:
        raise ValueError(f"a rate is from 0 to 1, and not {rate}")
    return sum(rate**i for i in range(k + 1)) / (1 + k * cost)
