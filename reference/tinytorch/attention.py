"""Kata 13 · Attention: every position asks all others, and what it costs that they all answer.

Queries are `(B, H, Tq, D)`: a batch of B, H heads, Tq positions that ask, D numbers each. Keys are
`(B, KV, Tk, D)` and values `(B, KV, Tk, E)`, of Tk positions that answer. KV divides H: each head of keys and
values serves H / KV neighbouring heads of queries (1 each in Vaswani et al. 2017, several in grouped-query
attention). Masks are booleans that stretch to `(B, H, Tq, Tk)`: True where a query may attend to a key. All
floats are of one dtype, and what is made of them too, whatever that of `scale`.

The same thing is written twice: out of operations that you have, with all `Tq * Tk` weights in memory at
once; and as one operation with a gradient rule of its own, which never holds more than a block of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tinytorch.activations import softmax
from tinytorch.embeddings import Rotary
from tinytorch.layers import Linear, Module
from tinytorch.tensor import Array, Shape, Tensor, as_array, matmul, mul, op, reshape, transpose, where

__all__ = [
    "KVCache", "MultiHeadAttention", "absorb", "allowed_pairs", "attention_weights", "cache_bytes",
    "causal_mask", "check_heads", "fused_attention", "fused_attention_back", "merge_heads", "padding_mask",
    "scaled_dot_product_attention", "score_bytes", "split_heads", "tiles",
]  # fmt: skip

# How many scores the fused operation has in memory at once, if it is not told: 512 KiB of float32, about what
# a core's own cache holds. And how many rows a block of them has at most.
BLOCK_SCORES = 1 << 17
BLOCK_ROWS = 128


# Who may attend to whom.


def causal_mask(queries: int, keys: int | None = None) -> Array:
    """(queries, keys) of bools: each query sees the keys up to its own place, and the last one sees them all.

    Without `keys` there are as many as queries. With more, the queries are the last of a longer text, whose
    beginning is in a cache. ValueError, naming both, if there are fewer.
    """
    # kata 13.1: query i stands at place keys - queries + i. `np.tri` counts its diagonals from the top left.
    keys = queries if keys is None else keys
    if keys < queries:
        raise ValueError(f"{queries} queries are not the last of {keys} positions")
    return np.tri(queries, keys, keys - queries, dtype=bool)


def padding_mask(lengths: Any, length: int, side: str = "right") -> Array:
    """(B, 1, 1, length) of bools: in row i, True for the `lengths[i]` keys that are no padding.

    Lengths are integers of any dtype, however few bits it has. `side` is where the padding stands, "right" of
    the text or "left" of it. ValueError for any other side, naming it, and for one of the lengths that is
    below 0 or above `length`, naming both.
    """
    # kata 13.2: compare places with lengths; broadcasting makes a row for each.
    if side not in ("left", "right"):
        raise ValueError(f'padding stands "left" or "right", not {side!r}')
    lengths = np.asarray(lengths)
    if wrong := [n for n in lengths.tolist() if not 0 <= n <= length]:
        raise ValueError(f"a row of {length} positions cannot hold {wrong[0]}")
    places = np.arange(length) if side == "right" else np.arange(length)[::-1]
    return np.asarray(places < lengths[:, None, None, None])


def check_heads(q: Any, k: Any, v: Any = None) -> None:
    """Refuse what does not fit together. Given.

    Raises:
        ValueError: the shapes are not those of the first lines of this file; the message names them.
        TypeError: not all are of the same floats; the message names the dtypes.
    """
    some = [q, k] if v is None else [q, k, v]
    shapes = [tuple(x.shape) for x in some]
    if (
        any(len(shape) != 4 for shape in shapes)
        or q.shape[0] != k.shape[0]
        or q.shape[3] != k.shape[3]
        or k.shape[1] == 0
        or q.shape[1] % k.shape[1]
        or shapes[1][:3] != shapes[-1][:3]
    ):
        raise ValueError(
            f"shapes {' and '.join(map(str, shapes))} do not fit: queries are (B, H, Tq, D), keys and values "
            "(B, KV, Tk, D), and KV divides H"
        )
    dtypes = [np.dtype(x.dtype) for x in some]
    if len(set(dtypes)) > 1 or dtypes[0].kind != "f":
        raise TypeError(f"attention is between floats of one dtype, not {' and '.join(map(str, dtypes))}")


def allowed_pairs(mask: Any, is_causal: bool, shape: Shape) -> Array | None:
    """What both `mask` (None, an array or a Tensor) and `is_causal` allow; None if there is neither.

    An array of bools that stretches to `shape`, which is (B, H, Tq, Tk), and is no larger than it must be.

    Raises:
        TypeError: `mask` does not hold bools; the message names its dtype.
        ValueError: it does not stretch to `shape`, and the message names both shapes; or see `causal_mask`.
    """
    # kata 13.3: np.broadcast_shapes says what two shapes stretch to, or raises a ValueError.
    causal = causal_mask(*shape[2:]) if is_causal else None
    if mask is None:
        return causal
    mask = as_array(mask)
    if mask.dtype != bool:
        raise TypeError(f"a mask holds bools, True where a query may attend to a key, not {mask.dtype}")
    try:
        fits = np.broadcast_shapes(mask.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"a mask of shape {mask.shape} does not stretch to scores of shape {shape}")
    both: Array = mask if causal is None else mask & causal
    return both


# Heads: (B, T, H * D) and back.


def split_heads(x: Any, heads: int) -> Tensor:
    """(B, T, heads * D) -> (B, heads, T, D): each head gets D neighbouring numbers of each position.

    A view where `x` can be viewed so. ValueError, naming the shape, if the last axis cannot be shared out
    evenly.
    """
    # kata 13.4: first cut the last axis in two, then swap two axes. Whose neighbours are whose?
    batch, length, width = x.shape
    if heads < 1 or width % heads:
        raise ValueError(f"{heads} heads cannot share the last axis of shape {tuple(x.shape)}")
    return transpose(reshape(x, shape=(batch, length, heads, width // heads)), axis0=1, axis1=2)


def merge_heads(x: Any) -> Tensor:
    """(B, H, T, D) -> (B, T, H * D): what `split_heads` cut, joined again. A view where there can be one."""
    # kata 13.5: the same two steps, backwards.
    batch, heads, length, width = x.shape
    return reshape(transpose(x, axis0=1, axis1=2), shape=(batch, length, heads * width))


# Attention with all its weights in memory.


def attention_weights(
    q: Any, k: Any, mask: Any = None, is_causal: bool = False, scale: float | None = None
) -> Tensor:
    """softmax(scale * q @ k.T) over the keys: (B, H, Tq, Tk), how much each query attends to each key.

    `scale` is 1 / sqrt(D) unless told. A row adds up to 1; one that may attend to nothing is 0 everywhere.
    Errors as in `check_heads` and `allowed_pairs`.
    """
    # kata 13.6: scale the queries, of which there are fewer than scores. All heads that share keys can ask
    # them in one product: (B, KV, H / KV * Tq, D). And what is the softmax of -inf everywhere?
    check_heads(q, k)
    batch, heads, queries, width = q.shape
    kv_heads, keys = k.shape[1:3]
    scaled = mul(q, width**-0.5 if scale is None else scale)
    rows = reshape(scaled, shape=(batch, kv_heads, heads // kv_heads * queries, width))
    scores = reshape(matmul(rows, transpose(k, axis0=-1, axis1=-2)), shape=(batch, heads, queries, keys))
    allowed = allowed_pairs(mask, is_causal, scores.shape)
    if allowed is None:
        return softmax(scores)
    weights = softmax(where(allowed, scores, -np.inf))
    return weights if allowed.any(axis=-1).all() else where(allowed, weights, 0.0)


def scaled_dot_product_attention(
    q: Any, k: Any, v: Any, mask: Any = None, is_causal: bool = False, scale: float | None = None
) -> Tensor:
    """For each query the mean of the values, weighted as in `attention_weights`: (B, H, Tq, E).

    Where there are no keys, it is 0. Errors as there; what `check_heads` names are all three.
    """
    # kata 13.7: again one product for all heads that share values.
    check_heads(q, k, v)
    weights = attention_weights(q, k, mask, is_causal, scale)
    batch, heads, queries, keys = weights.shape
    kv_heads, width = v.shape[1], v.shape[3]
    rows = reshape(weights, shape=(batch, kv_heads, heads // kv_heads * queries, keys))
    return reshape(matmul(rows, v), shape=(batch, heads, queries, width))


# Attention in blocks. A softmax needs the largest score and the sum of all; both can be had as one goes.


def absorb(scores: Array, values: Array, top: Array, total: Array, mix: Array) -> None:
    """Take a block of keys into a softmax that has seen others, all in place: nothing new is as large.

    Of the keys seen so far, `top` (..., n, 1) is the largest score, -inf at first; `total` (..., n, 1) the
    sum of exp(score - top), and `mix` (..., n, E) that of exp(score - top) * value, both 0 at first. `scores`
    (..., n, m) and `values` (..., m, E) are of the next m keys; `scores` is left as exp(score - new top).
    Scores of -inf count nothing, also where all are; and m may be 0.
    """
    # kata 13.8: when the top rises, what was summed relative to the old one shrinks, by how much? Mind
    # -inf - -inf.
    higher = np.maximum(top, scores.max(axis=-1, keepdims=True, initial=-np.inf))
    ground = np.where(higher == -np.inf, 0, higher)
    shrink = np.exp(top - ground)
    scores -= ground
    np.exp(scores, out=scores)
    total *= shrink
    total += scores @ np.ones((scores.shape[-1], 1), scores.dtype)  # four times as fast as `sum`
    mix *= shrink
    mix += scores @ values
    top[...] = higher


def tiles(
    queries: int, keys: int, rows: int, columns: int, is_causal: bool = False
) -> Iterator[tuple[slice, list[slice]]]:
    """The scores, (queries, keys), cut into blocks of at most (rows, columns).

    Gives for each slice of queries the slices of keys, both in order. With `is_causal`, these end at the last
    key that any of the queries may see. ValueError as in `causal_mask`, and for blocks without rows or
    columns, naming both numbers.
    """
    # kata 13.9: the query in front of which `stop` others stand sees keys - queries + stop keys.
    if min(rows, columns) < 1:
        raise ValueError(f"blocks of {rows} by {columns} hold nothing")
    if is_causal and keys < queries:
        raise ValueError(f"{queries} queries are not the last of {keys} positions")
    for start in range(0, queries, rows):
        stop = min(start + rows, queries)
        end = keys - queries + stop if is_causal else keys
        yield slice(start, stop), [slice(i, min(i + columns, end)) for i in range(0, end, columns)]


def grouped(x: Array, kv_heads: int) -> Array:
    """(B, H, Tq, ...) -> (B, KV, H / KV, Tq, ...), a view. Given."""
    return x.reshape(x.shape[0], kv_heads, x.shape[1] // kv_heads, *x.shape[2:])


def stacked(x: Array) -> Array:
    """(b, kv, g, n, ...) -> (b, kv, g * n, ...): heads that share keys, one below the other. Given."""
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3], *x.shape[4:])


def prepare(
    q: Array, k: Array, mask: Any, is_causal: bool, scale: float | None
) -> tuple[float, Array | None, int | None]:
    """What queries are multiplied by; the mask, `grouped`; and `ahead`: query i may see the keys up to
    i + ahead, or all if it is None. Given. Errors as in `allowed_pairs`.
    """
    shape = (*q.shape[:3], k.shape[2])
    mask = allowed_pairs(mask, False, shape)
    return (
        q.shape[3] ** -0.5 if scale is None else float(scale),
        None if mask is None else grouped(np.broadcast_to(mask, shape), k.shape[1]),
        k.shape[2] - q.shape[2] if is_causal else None,
    )


def walk(
    q: Array, k: Array, is_causal: bool, chunk: int | None
) -> Iterator[tuple[tuple[slice, ...], list[tuple[slice, ...]]]]:
    """The way through all blocks of scores: an index of some queries, and indices of the keys they ask.

    Given. The first is for arrays of queries that are `grouped`, the others for keys and values as they are.
    No block has more than `chunk` rows and columns; without it, about BLOCK_SCORES scores. Where matrices are
    small, several heads go together, and several texts.
    """
    batch, kv_heads, keys, _ = k.shape
    group, queries = q.shape[2:4]
    if chunk is not None:
        rows = columns = chunk
    else:
        rows = max(1, min(queries, BLOCK_ROWS // group))
        columns = max(BLOCK_ROWS, BLOCK_SCORES // (group * rows))
    size = max(1, group * rows * min(columns, keys))
    heads = max(1, BLOCK_SCORES // size)
    texts = max(1, BLOCK_SCORES // (size * kv_heads))
    for text in range(0, batch, texts):
        for head in range(0, kv_heads, heads):
            part = slice(text, text + texts), slice(head, head + heads)
            for some, ranges in tiles(queries, keys, rows, columns, is_causal):
                yield (*part, slice(None), some), [(*part, those) for those in ranges]


class Scratch:
    """Memory that blocks of scores share, one after the other. Given."""

    def __init__(self, dtype: Any) -> None:
        self.memory = np.empty(0, dtype)

    def product(self, a: Array, b: Array) -> Array:
        """a @ b.T for the last two axes, written over what this scratch held before."""
        shape = (*a.shape[:-1], b.shape[-2])
        size = math.prod(shape)
        if size > self.memory.size:
            self.memory = np.empty(size, self.memory.dtype)
        return np.matmul(a, np.swapaxes(b, -1, -2), out=self.memory[:size].reshape(shape))


def hide(
    scores: Array, mask: Array | None, here: tuple[slice, ...], there: tuple[slice, ...], ahead: int | None
) -> None:
    """Write -inf over the scores of a block that may not be: where `mask` forbids, or keys lie in the future.

    `scores` is (b, kv, g * n, m), of the queries at `here` and the keys at `there`; `mask` is `grouped`, or
    None. Query i may see the keys up to i + `ahead`, or all if that is None. Given.
    """
    rows, columns = here[-1], there[-1]
    apart = scores.reshape(*scores.shape[:2], -1, rows.stop - rows.start, scores.shape[-1])
    if mask is not None:
        block = (*here, columns)
        np.copyto(apart, -np.inf, where=~mask[block])
    if ahead is not None:
        first = max(columns.start, rows.start + ahead + 1)  # the keys before, all rows may see
        if first < columns.stop:
            seen = np.tri(apart.shape[-2], columns.stop - first, rows.start + ahead - first, dtype=bool)
            np.copyto(apart[..., first - columns.start :], -np.inf, where=~seen)


@op(saves=["logsumexp"])
def fused_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Any = None,
    is_causal: bool = False,
    scale: float | None = None,
    chunk: int | None = None,
) -> tuple[Array, Array]:
    """`scaled_dot_product_attention`, the same numbers in memory that grows with Tq + Tk, not Tq * Tk.

    Never are more scores in memory than a block of `chunk` queries and keys, of as many heads as share keys;
    or, without `chunk`, a fixed number. Beside the result (B, H, Tq, E) comes what the way back needs to
    have any block of weights again: the logarithm of each query's sum of exp(score), (B, H, Tq), for one
    that may attend to nothing -inf, without a warning. The result lies in memory as `q` does. Errors as
    there, and in `tiles`.
    """
    # kata 13.10: `walk` leads through the blocks and `absorb` takes them in. Heads that share keys are
    # `stacked`, so that one product serves them all.
    check_heads(q, k, v)
    kv_heads = k.shape[1]
    scale, mask, ahead = prepare(q, k, mask, is_causal, scale)
    result = np.empty_like(q, shape=(*q.shape[:3], v.shape[3]))
    sums = np.empty(q.shape[:3], q.dtype)
    queries, out, logsumexp = (grouped(x, kv_heads) for x in (q, result, sums))
    scratch = Scratch(q.dtype)
    for here, some in walk(queries, k, is_causal, chunk):
        asked = stacked(queries[here] * scale)
        top = np.full((*asked.shape[:-1], 1), -np.inf, q.dtype)
        total = np.zeros(top.shape, q.dtype)
        mix = np.zeros((*asked.shape[:-1], v.shape[3]), q.dtype)
        for there in some:
            scores = scratch.product(asked, k[there])
            hide(scores, mask, here, there, ahead)
            absorb(scores, v[there], top, total, mix)
        mix /= np.where(total == 0, 1, total)
        out[here] = mix.reshape(out[here].shape)
        with np.errstate(divide="ignore"):
            logsumexp[here] = (top + np.log(total)).reshape(logsumexp[here].shape)
    return result, sums


@fused_attention.gradient
def fused_attention_back(
    grad: Array,
    q: Array,
    k: Array,
    v: Array,
    out: Array,
    logsumexp: Array,
    mask: Any,
    is_causal: bool,
    scale: float | None,
    chunk: int | None,
) -> tuple[Array, Array, Array]:  # stub: (grad)
    """The gradients of q, k and v, block by block, with no weights kept: each block is computed again."""
    # kata 13.11: a weight is exp(score - logsumexp). In softmax's rule stands the sum over a row of gradient
    # times weight, which no block has; but for all values together it is grad @ out, row by row.
    kv_heads = k.shape[1]
    scale, mask, ahead = prepare(q, k, mask, is_causal, scale)
    for_q, for_k, for_v = np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
    queries, slots, grads, out, logsumexp = (grouped(x, kv_heads) for x in (q, for_q, grad, out, logsumexp))
    first, second = Scratch(q.dtype), Scratch(q.dtype)
    for here, some in walk(queries, k, is_causal, chunk):
        asked, pull = stacked(queries[here] * scale), stacked(grads[here])
        base = stacked(logsumexp[here])[..., None]
        base = np.where(np.isneginf(base), 0, base)
        level = (pull * stacked(out[here])).sum(axis=-1, keepdims=True)
        mix = np.zeros_like(asked)
        for there in some:
            weights = first.product(asked, k[there])
            hide(weights, mask, here, there, ahead)
            weights -= base
            np.exp(weights, out=weights)
            for_v[there] += np.swapaxes(weights, -1, -2) @ pull
            slopes = second.product(pull, v[there])
            slopes -= level
            slopes *= weights
            mix += slopes @ k[there]
            for_k[there] += np.swapaxes(slopes, -1, -2) @ asked
        mix *= scale
        slots[here] = mix.reshape(slots[here].shape)
    return for_q, for_k, for_v


# Generation. Each new token asks all earlier ones, whose keys and values are always the same.


class KVCache:
    """Keys and values of the positions so far, in memory that doubles when it is full.

    Attributes:
        length: how many positions there are.
    """

    def __init__(self) -> None:
        self.length = 0
        self._buffers: list[Array] = []

    def positions(self, new: int = 0) -> Array:
        """The numbers of the positions whose keys `append` returns when it is given `new` of them. Given.

        Here these are all; a cache that forgets (kata 19) returns fewer.
        """
        return np.arange(self.length + new)

    def append(self, k: Any, v: Any) -> tuple[Array, Array]:
        """Add keys (B, KV, T, D) and values (B, KV, T, E); returns all there are so far, as views.

        Views that were handed out before stay as they are.

        Raises:
            ValueError: the shapes do not fit each other or what is there; the message names them.
            TypeError: the dtypes; the message names them.
            RuntimeError: a Tensor that requires a gradient, which would get lost: see `no_grad` (06).
        """
        # kata 13.12: when it must grow, to twice its length at least; and copy only what is in use.
        if any(isinstance(x, Tensor) and x.requires_grad for x in (k, v)):
            raise RuntimeError("a cache keeps no graph, and this gradient would get lost: use no_grad()")
        new = [as_array(k), as_array(v)]
        check_heads(new[0], *new)
        held = self._buffers or [np.empty_like(x, order="C") for x in new]
        for x, buffer in zip(new, held, strict=True):
            there = (*buffer.shape[:2], self.length, buffer.shape[3])
            if x.dtype != buffer.dtype:
                raise TypeError(f"{x.dtype} does not go into a cache of {buffer.dtype}")
            if (*x.shape[:2], x.shape[3]) != (*there[:2], there[3]):
                raise ValueError(f"shape {x.shape} does not continue a cache of shape {there}")
        start, end, room = self.length, self.length + new[0].shape[2], held[0].shape[2]
        if end > room:
            full, room = held, max(end, 2 * room)
            held = [np.empty((*x.shape[:2], room, x.shape[3]), x.dtype) for x in full]
            for x, buffer in zip(full, held, strict=True):
                buffer[:, :, :start] = x[:, :, :start]
        for x, buffer in zip(new, held, strict=True):
            buffer[:, :, start:end] = x
        self._buffers, self.length = held, end
        return held[0][:, :, :end], held[1][:, :, :end]

    @property
    def nbytes(self) -> int:
        """Bytes of memory held, used or not."""
        # kata 13.13: of both.
        return sum(x.nbytes for x in self._buffers)

    def select(self, rows: Any) -> None:
        """Keep these rows of the batch, in this order; one may be kept several times; `rows` may be empty.

        Views that were handed out before stay as they are. IndexError for a row that is not there, which it
        names, and -1 is none; then nothing has changed. An empty cache stays empty, whichever rows are
        asked for.
        """
        # kata 13.13: numpy's indexing by a list copies, and takes -1 for the last row.
        rows = np.asarray(rows, np.intp)
        if rows.size and self._buffers and rows.min() < 0:
            raise IndexError(f"row {rows.min()} is not in a batch of {len(self._buffers[0])}")
        self._buffers = [x[rows] for x in self._buffers]

    def reset(self) -> None:
        """Forget everything, and free the memory: as good as new."""
        # kata 13.13: what did `__init__` do?
        self.length = 0
        self._buffers = []


class MultiHeadAttention(Module):
    """Attention of a text to itself, by several heads side by side, each in a space of its own.

    Attributes:
        qkv_proj: Linear, from embed_dim to the queries of all heads, then all keys, then all values.
        out_proj: Linear, from what all heads found to embed_dim.
        fused: True for `fused_attention`, False for the one with all weights in memory.
        num_heads, num_kv_heads, head_dim: how many heads, and how wide each is.
        rotary: as given.
    """

    fused: bool = True

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        bias: bool = True,
        rotary: Rotary | None = None,
        *,
        rng: np.random.Generator,
    ) -> None:
        """Draws qkv_proj and then out_proj from `rng`.

        ValueError, naming the numbers, unless heads share embed_dim evenly, and key heads the heads.
        """
        # kata 13.14: head_dim is embed_dim / num_heads, for keys and values too.
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"{num_heads} heads cannot share {embed_dim} dimensions evenly")
        if num_kv_heads < 1 or num_heads % num_kv_heads:
            raise ValueError(f"{num_kv_heads} heads of keys cannot serve {num_heads} heads evenly")
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.head_dim = embed_dim // num_heads
        self.rotary = rotary
        self.qkv_proj = Linear(embed_dim, embed_dim + 2 * num_kv_heads * self.head_dim, bias, rng=rng)
        self.out_proj = Linear(embed_dim, embed_dim, bias, rng=rng)

    def heads(self, x: Tensor, offset: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, D), keys and values (B, KV, T, D) of `x` (B, T, embed_dim).

        Queries and keys are turned by `rotary`, if there is one; x[:, 0] stands at position `offset`.
        """
        # kata 13.15: all heads at once, then cut between them.
        h, kv = self.num_heads, self.num_kv_heads
        every = split_heads(self.qkv_proj(x), h + 2 * kv)
        v = every[:, h + kv :]
        if self.rotary is None:
            return every[:, :h], every[:, h : h + kv], v
        turned = self.rotary(every[:, : h + kv], offset=offset)
        return turned[:, :h], turned[:, h:], v

    def forward(
        self, x: Tensor, mask: Any = None, is_causal: bool = False, cache: KVCache | None = None
    ) -> Tensor:
        """(B, T, embed_dim) -> (B, T, embed_dim).

        With a cache, `x` continues the text that is in it: its keys and values are added, and it attends to
        what `append` returns; `mask` and `is_causal` are about these, `cache.positions(T)`. No gradient flows
        through a cache (see `append`). What is refused, such as a mask that does not fit, leaves the cache as
        it was.
        """
        # kata 13.16: heads, attention, and what they found through `out_proj`. Look at the mask before the
        # cache grows.
        q, k, v = self.heads(x, 0 if cache is None else cache.length)
        if cache is not None:
            allowed_pairs(mask, False, (*q.shape[:3], len(cache.positions(q.shape[2]))))
            k, v = (Tensor(every) for every in cache.append(k, v))
        if self.fused:
            found = fused_attention(q, k, v, mask=mask, is_causal=is_causal)
        else:
            found = scaled_dot_product_attention(q, k, v, mask, is_causal)
        out: Tensor = self.out_proj(merge_heads(found))
        return out

    def attention_maps(self, x: Tensor, mask: Any = None, is_causal: bool = False) -> Array:
        """(B, H, T, T): how much each position of `x` attends to each other one, to look at."""
        # kata 13.16: `attention_weights`.
        q, k, _ = self.heads(x)
        return attention_weights(q, k, mask, is_causal).data

    def flops(self, inputs: tuple[Any, ...], out: Any) -> int:
        """Of scores and mixing, without a cache; the projections count their own."""
        # kata 13.17: two products for each head, (T, D) by (D, T) and (T, T) by (T, D).
        batch, length, width = out.shape
        return int(4 * batch * length * length * width)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}, head_dim={self.head_dim}"


# What it costs.


def score_bytes(batch: int, heads: int, queries: int, keys: int, itemsize: int = 4) -> int:
    """Bytes of one array of scores, of all heads."""
    # kata 13.17: what grows with the square of the length?
    return batch * heads * queries * keys * itemsize


def cache_bytes(
    batch: int, kv_heads: int, length: int, head_dim: int, layers: int = 1, itemsize: int = 4
) -> int:
    """Bytes that keys and values of `length` positions take in caches that are full, one a layer."""
    # kata 13.17: two of each.
    return 2 * layers * batch * kv_heads * length * head_dim * itemsize
