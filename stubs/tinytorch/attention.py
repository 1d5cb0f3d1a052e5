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
    # TODO 13.1: query i stands at place keys - queries + i. `np.tri` counts its diagonals from the top left.
    raise NotImplementedError("kata 13.1: causal_mask")


def padding_mask(lengths: Any, length: int, side: str = "right") -> Array:
    """(B, 1, 1, length) of bools: in row i, True for the `lengths[i]` keys that are no padding.

    Lengths are integers of any dtype, however few bits it has. `side` is where the padding stands, "right" of
    the text or "left" of it. ValueError for any other side, naming it, and for one of the lengths that is
    below 0 or above `length`, naming both.
    """
    # TODO 13.2: compare places with lengths; broadcasting makes a row for each.
    raise NotImplementedError("kata 13.2: padding_mask")


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
    # TODO 13.3: np.broadcast_shapes says what two shapes stretch to, or raises a ValueError.
    raise NotImplementedError("kata 13.3: allowed_pairs")


# Heads: (B, T, H * D) and back.


def split_heads(x: Any, heads: int) -> Tensor:
    """(B, T, heads * D) -> (B, heads, T, D): each head gets D neighbouring numbers of each position.

    A view where `x` can be viewed so. ValueError, naming the shape, if the last axis cannot be shared out
    evenly.
    """
    # TODO 13.4: first cut the last axis in two, then swap two axes. Whose neighbours are whose?
    raise NotImplementedError("kata 13.4: split_heads")


def merge_heads(x: Any) -> Tensor:
    """(B, H, T, D) -> (B, T, H * D): what `split_heads` cut, joined again. A view where there can be one."""
    # TODO 13.5: the same two steps, backwards.
    raise NotImplementedError("kata 13.5: merge_heads")


# Attention with all its weights in memory.


def attention_weights(
    q: Any, k: Any, mask: Any = None, is_causal: bool = False, scale: float | None = None
) -> Tensor:
    """softmax(scale * q @ k.T) over the keys: (B, H, Tq, Tk), how much each query attends to each key.

    `scale` is 1 / sqrt(D) unless told. A row adds up to 1; one that may attend to nothing is 0 everywhere.
    Errors as in `check_heads` and `allowed_pairs`.
    """
    # TODO 13.6: scale the queries, of which there are fewer than scores. All heads that share keys can ask
    # them in one product: (B, KV, H / KV * Tq, D). And what is the softmax of -inf everywhere?
    raise NotImplementedError("kata 13.6: attention_weights")


def scaled_dot_product_attention(
    q: Any, k: Any, v: Any, mask: Any = None, is_causal: bool = False, scale: float | None = None
) -> Tensor:
    """For each query the mean of the values, weighted as in `attention_weights`: (B, H, Tq, E).

    Where there are no keys, it is 0. Errors as there; what `check_heads` names are all three.
    """
    # TODO 13.7: again one product for all heads that share values.
    raise NotImplementedError("kata 13.7: scaled_dot_product_attention")


# Attention in blocks. A softmax needs the largest score and the sum of all; both can be had as one goes.


def absorb(scores: Array, values: Array, top: Array, total: Array, mix: Array) -> None:
    """Take a block of keys into a softmax that has seen others, all in place: nothing new is as large.

    Of the keys seen so far, `top` (..., n, 1) is the largest score, -inf at first; `total` (..., n, 1) the
    sum of exp(score - top), and `mix` (..., n, E) that of exp(score - top) * value, both 0 at first. `scores`
    (..., n, m) and `values` (..., m, E) are of the next m keys; `scores` is left as exp(score - new top).
    Scores of -inf count nothing, also where all are; and m may be 0.
    """
    # TODO 13.8: when the top rises, what was summed relative to the old one shrinks, by how much? Mind
    # -inf - -inf.
    raise NotImplementedError("kata 13.8: absorb")


def tiles(
    queries: int, keys: int, rows: int, columns: int, is_causal: bool = False
) -> Iterator[tuple[slice, list[slice]]]:
    """The scores, (queries, keys), cut into blocks of at most (rows, columns).

    Gives for each slice of queries the slices of keys, both in order. With `is_causal`, these end at the last
    key that any of the queries may see. ValueError as in `causal_mask`, and for blocks without rows or
    columns, naming both numbers.
    """
    # TODO 13.9: the query in front of which `stop` others stand sees keys - queries + stop keys.
    raise NotImplementedError("kata 13.9: tiles")


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
    # TODO 13.10: `walk` leads through the blocks and `absorb` takes them in. Heads that share keys are
    # `stacked`, so that one product serves them all.
    raise NotImplementedError("kata 13.10: fused_attention")


@fused_attention.gradient
def fused_attention_back(grad) -> tuple[Array, Array, Array]:
    """The gradients of q, k and v, block by block, with no weights kept: each block is computed again."""
    # TODO 13.11: a weight is exp(score - logsumexp). In softmax's rule stands the sum over a row of gradient
    # times weight, which no block has; but for all values together it is grad @ out, row by row.
    raise NotImplementedError("kata 13.11: fused_attention_back")


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
        # TODO 13.12: when it must grow, to twice its length at least; and copy only what is in use.
        raise NotImplementedError("kata 13.12: KVCache.append")

    @property
    def nbytes(self) -> int:
        """Bytes of memory held, used or not."""
        # TODO 13.13: of both.
        raise NotImplementedError("kata 13.13: KVCache.nbytes")

    def select(self, rows: Any) -> None:
        """Keep these rows of the batch, in this order; one may be kept several times; `rows` may be empty.

        Views that were handed out before stay as they are. IndexError for a row that is not there, which it
        names, and -1 is none; then nothing has changed. An empty cache stays empty, whichever rows are
        asked for.
        """
        # TODO 13.13: numpy's indexing by a list copies, and takes -1 for the last row.
        raise NotImplementedError("kata 13.13: KVCache.select")

    def reset(self) -> None:
        """Forget everything, and free the memory: as good as new."""
        # TODO 13.13: what did `__init__` do?
        raise NotImplementedError("kata 13.13: KVCache.reset")


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
        # TODO 13.14: head_dim is embed_dim / num_heads, for keys and values too.
        raise NotImplementedError("kata 13.14: MultiHeadAttention.__init__")

    def heads(self, x: Tensor, offset: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, D), keys and values (B, KV, T, D) of `x` (B, T, embed_dim).

        Queries and keys are turned by `rotary`, if there is one; x[:, 0] stands at position `offset`.
        """
        # TODO 13.15: all heads at once, then cut between them.
        raise NotImplementedError("kata 13.15: MultiHeadAttention.heads")

    def forward(
        self, x: Tensor, mask: Any = None, is_causal: bool = False, cache: KVCache | None = None
    ) -> Tensor:
        """(B, T, embed_dim) -> (B, T, embed_dim).

        With a cache, `x` continues the text that is in it: its keys and values are added, and it attends to
        what `append` returns; `mask` and `is_causal` are about these, `cache.positions(T)`. No gradient flows
        through a cache (see `append`). What is refused, such as a mask that does not fit, leaves the cache as
        it was.
        """
        # TODO 13.16: heads, attention, and what they found through `out_proj`. Look at the mask before the
        # cache grows.
        raise NotImplementedError("kata 13.16: MultiHeadAttention.forward")

    def attention_maps(self, x: Tensor, mask: Any = None, is_causal: bool = False) -> Array:
        """(B, H, T, T): how much each position of `x` attends to each other one, to look at."""
        # TODO 13.16: `attention_weights`.
        raise NotImplementedError("kata 13.16: MultiHeadAttention.attention_maps")

    def flops(self, inputs: tuple[Any, ...], out: Any) -> int:
        """Of scores and mixing, without a cache; the projections count their own."""
        # TODO 13.17: two products for each head, (T, D) by (D, T) and (T, T) by (T, D).
        raise NotImplementedError("kata 13.17: MultiHeadAttention.flops")

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}, head_dim={self.head_dim}"


# What it costs.


def score_bytes(batch: int, heads: int, queries: int, keys: int, itemsize: int = 4) -> int:
    """Bytes of one array of scores, of all heads."""
    # TODO 13.17: what grows with the square of the length?
    raise NotImplementedError("kata 13.17: score_bytes")


def cache_bytes(
    batch: int, kv_heads: int, length: int, head_dim: int, layers: int = 1, itemsize: int = 4
) -> int:
    """Bytes that keys and values of `length` positions take in caches that are full, one a layer."""
    # TODO 13.17: two of each.
    raise NotImplementedError("kata 13.17: cache_bytes")
