"""Attention whose blocks go key by key, not query by query, and are joined as parts of one answer.

Every block of keys gives an answer of its own and the logarithm of its sum; two such parts are joined with
the weights that these logarithms say. A cache has keys and values side by side in one array.
"""

import functools
import itertools
import math
import operator

import numpy as np

from tinytorch.activations import softmax
from tinytorch.layers import Linear, Module
from tinytorch.tensor import Tensor, as_array, matmul, mul, op, permute, reshape, where

__all__ = [
    "KVCache", "MultiHeadAttention", "absorb", "allowed_pairs", "attention_weights", "cache_bytes",
    "causal_mask", "check_heads", "fused_attention", "fused_attention_back", "merge_heads", "padding_mask",
    "scaled_dot_product_attention", "score_bytes", "split_heads", "tiles",
]  # fmt: skip


def causal_mask(queries, keys=None):
    keys = keys if keys is not None else queries
    if keys < queries:
        raise ValueError(f"{queries} queries among {keys} keys")
    mask = np.ones((queries, keys), bool)
    for i in range(queries):
        mask[i, keys - queries + i + 1 :] = False
    return mask


def padding_mask(lengths, length, side="right"):
    lengths = np.array(list(lengths), dtype=np.int64).reshape(-1, 1)
    if ((lengths < 0) | (lengths > length)).any():
        raise ValueError(f"lengths {lengths.ravel().tolist()} are not all between 0 and {length}")
    columns = np.arange(length)
    rows = {"right": columns < lengths, "left": columns >= length - lengths}.get(side)
    if rows is None:
        raise ValueError(f"no such side: {side}")
    return rows[:, None, None, :]


def check_heads(q, k, v=None):
    others = [x for x in (k, v) if x is not None]
    text = ", ".join(str(tuple(x.shape)) for x in (q, *others))
    try:
        batch, heads, _, width = q.shape
        kv_batch, kv_heads, keys, kv_width = k.shape
        fits = (kv_batch, kv_width) == (batch, width) and kv_heads > 0 and heads % kv_heads == 0
        if v is not None:
            v_batch, v_heads, v_keys, _ = v.shape
            fits = fits and (v_batch, v_heads, v_keys) == (kv_batch, kv_heads, keys)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"(B, H, Tq, D), (B, KV, Tk, D), (B, KV, Tk, E) are needed, not {text}")
    dtypes = [np.dtype(x.dtype) for x in (q, *others)]
    if any(dtype != dtypes[0] or not np.issubdtype(dtype, np.floating) for dtype in dtypes):
        raise TypeError(f"floats of one dtype are needed, not {dtypes}")


def allowed_pairs(mask, is_causal, shape):
    found = []
    if mask is not None:
        array = as_array(mask)
        if array.dtype != np.bool_:
            raise TypeError(f"a mask of {array.dtype}: is it to be added or to be true?")
        try:
            np.broadcast_to(array, shape)
        except ValueError:
            raise ValueError(f"a mask {array.shape} for scores {shape}") from None
        found.append(array)
    if is_causal:
        found.append(causal_mask(*shape[2:]))
    return functools.reduce(operator.and_, found) if found else None


def split_heads(x, heads):
    batch, length, width = x.shape
    each, rest = divmod(width, heads) if heads > 0 else (0, 1)
    if rest:
        raise ValueError(f"no {heads} heads of the same width in {tuple(x.shape)}")
    return permute(reshape(x, shape=(batch, length, heads, each)), axes=(0, 2, 1, 3))


def merge_heads(x):
    batch, heads, length, width = x.shape
    return reshape(permute(x, axes=(0, 2, 1, 3)), shape=(batch, length, heads * width))


def attention_weights(q, k, mask=None, is_causal=False, scale=None):
    check_heads(q, k)
    shape = (*q.shape[:3], k.shape[2])
    allowed = allowed_pairs(mask, is_causal, shape)
    q = mul(q, q.shape[3] ** -0.5 if scale is None else float(scale))
    folded = reshape(q, shape=(*k.shape[:2], shape[1] // k.shape[1] * shape[2], q.shape[3]))
    scores = reshape(matmul(folded, permute(k, axes=(0, 1, 3, 2))), shape=shape)
    if allowed is None:
        return softmax(scores, axis=-1)
    lonely = ~allowed.any(axis=-1, keepdims=True)
    weights = softmax(where(allowed, scores, -math.inf), axis=-1)
    return where(lonely, 0.0, weights) if lonely.any() else weights


def scaled_dot_product_attention(q, k, v, mask=None, is_causal=False, scale=None):
    check_heads(q, k, v)
    weights = attention_weights(q, k, mask=mask, is_causal=is_causal, scale=scale)
    batch, heads, queries, keys = weights.shape
    folded = reshape(weights, shape=(batch, v.shape[1], heads // v.shape[1] * queries, keys))
    return reshape(matmul(folded, v), shape=(batch, heads, queries, v.shape[3]))


def absorb(scores, values, top, total, mix):
    largest = np.concatenate([top, scores.max(axis=-1, keepdims=True, initial=-np.inf)], axis=-1)
    highest = largest.max(axis=-1, keepdims=True)
    unseen = np.isneginf(highest)
    highest[unseen] = 0
    kept = np.exp(top - highest)
    scores[...] = np.exp(np.subtract(scores, highest, out=scores), out=scores)
    total[...] = total * kept + scores.sum(axis=-1, keepdims=True)
    mix[...] = mix * kept + scores @ values
    highest[unseen] = -np.inf
    top[...] = highest


def tiles(queries, keys, rows, columns, is_causal=False):
    if not (rows > 0 and columns > 0):
        raise ValueError(f"rows {rows}, columns {columns}")
    if is_causal and keys < queries:
        raise ValueError(f"{queries} queries among {keys} keys")
    for first in range(0, queries, rows):
        some = slice(first, min(first + rows, queries))
        stop = keys - queries + some.stop if is_causal else keys
        edges = [*range(0, stop, columns), stop]
        yield some, [slice(*pair) for pair in itertools.pairwise(edges)]


class Pieces:
    """The way through blocks: keys outside, queries inside."""

    def __init__(self, q, k, v, mask, is_causal, scale, chunk):
        self.kv = k.shape[1]
        self.group = q.shape[1] // self.kv
        self.queries, self.keys = q.shape[2], k.shape[2]
        if chunk is not None and chunk < 1:
            raise ValueError(f"a chunk of {chunk}")
        if is_causal and self.keys < self.queries:
            raise ValueError(f"{self.queries} queries among {self.keys} keys")
        self.is_causal = is_causal
        self.scale = float(q.shape[3] ** -0.5 if scale is None else scale)
        shape = (*q.shape[:3], self.keys)
        allowed = allowed_pairs(mask, False, shape)
        self.mask = None if allowed is None else self.five(np.broadcast_to(allowed, shape))
        self.columns = chunk or max(1, min(self.keys, 256))
        self.rows = chunk or max(1, min(self.queries, max(1, 65536 // (self.columns * self.group))))
        one = self.columns * self.group * self.rows
        together = max(1, 65536 // max(1, one))
        self.texts, self.heads = max(1, together // self.kv), min(self.kv, together)
        self.batch = q.shape[0]

    def five(self, x):
        return x.reshape(x.shape[0], self.kv, self.group, *x.shape[2:])

    def parts(self):
        for text in range(0, self.batch, self.texts):
            for head in range(0, self.kv, self.heads):
                yield slice(text, text + self.texts), slice(head, head + self.heads)

    def walk(self):
        ahead = self.keys - self.queries
        for part in self.parts():
            for first in range(0, self.keys, self.columns):
                those = slice(first, min(first + self.columns, self.keys))
                begin = max(0, first - ahead) if self.is_causal else 0
                for start in range(begin, self.queries, self.rows):
                    yield part, slice(start, min(start + self.rows, self.queries)), those

    def scores(self, q, k, part, some, those):
        """exp is not taken yet; -inf where nothing may be."""
        asked = (q[(*part, slice(None), some)] * self.scale).astype(q.dtype)
        scores = fold(asked) @ k[part][:, :, those].swapaxes(-1, -2)
        apart = scores.reshape(*asked.shape[:4], scores.shape[-1])
        if self.mask is not None:
            apart[~self.mask[(*part, slice(None), some, those)]] = -np.inf
        if self.is_causal and those.stop - 1 > self.keys - self.queries + some.start:
            place = np.arange(some.start, some.stop)[:, None] + self.keys - self.queries
            apart[..., np.arange(those.start, those.stop) > place] = -np.inf
        return asked, scores


def fold(x):
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3], *x.shape[4:])


@op(saves=["logsumexp"])
def fused_attention(q, k, v, *, mask=None, is_causal=False, scale=None, chunk=None):
    check_heads(q, k, v)
    pieces = Pieces(q, k, v, mask, is_causal, scale, chunk)
    out = np.zeros_like(q, shape=(*q.shape[:3], v.shape[3]))
    logs = np.full(q.shape[:3], -np.inf, q.dtype)
    q5, out5, logs5 = pieces.five(q), pieces.five(out), pieces.five(logs)
    for part, some, those in pieces.walk():
        asked, scores = pieces.scores(q5, k, part, some, those)
        rows = (*part, slice(None), some)
        old = fold(logs5[rows])[..., None]
        top = scores.max(axis=-1, keepdims=True)
        top[np.isneginf(top)] = 0
        scores -= top
        np.exp(scores, out=scores)
        total = scores.sum(axis=-1, keepdims=True)
        with np.errstate(divide="ignore"):
            new = np.logaddexp(old, top + np.log(total))
        ground = np.where(np.isneginf(new), 0, new)
        answer = scores @ v[part][:, :, those]
        answer *= np.exp(top - ground)
        answer += np.exp(old - ground) * fold(out5[rows])
        out5[rows] = answer.reshape(out5[rows].shape)
        logs5[rows] = new.reshape(asked.shape[:4])
    return out, logs


@fused_attention.gradient
def fused_attention_back(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk):
    pieces = Pieces(q, k, v, mask, is_causal, scale, chunk)
    for_q, for_k, for_v = (np.zeros_like(x) for x in (q, k, v))
    q5, grad5, out5, logs5, for_q5 = (pieces.five(x) for x in (q, grad, out, logsumexp, for_q))
    for part, some, those in pieces.walk():
        rows = (*part, slice(None), some)
        asked, weights = pieces.scores(q5, k, part, some, those)
        weights -= np.nan_to_num(fold(logs5[rows]), neginf=0.0)[..., None]
        np.exp(weights, out=weights)
        pull = fold(grad5[rows])
        level = np.einsum("abcd,abcd->abc", pull, fold(out5[rows]))[..., None]
        slopes = pull @ v[part][:, :, those].swapaxes(-1, -2)
        slopes -= level
        slopes *= weights
        for_v[part][:, :, those] += weights.swapaxes(-1, -2) @ pull
        for_k[part][:, :, those] += slopes.swapaxes(-1, -2) @ fold(asked)
        back = slopes @ k[part][:, :, those]
        back *= pieces.scale
        for_q5[rows] += back.reshape(asked.shape)
    return for_q, for_k, for_v


class KVCache:
    """One array (B, KV, T, D + E): keys on the left, values on the right."""

    def __init__(self):
        self.length = 0
        self.both = None
        self.split = 0

    @property
    def nbytes(self):
        return self.both.nbytes if self.both is not None else 0

    def positions(self, new=0):
        return np.arange(self.length + new)

    def append(self, k, v):
        if any(x.requires_grad for x in (k, v) if isinstance(x, Tensor)):
            raise RuntimeError("what requires a gradient cannot be cached")
        k, v = as_array(k), as_array(v)
        check_heads(k, k, v)
        batch, heads, more, width = k.shape
        total = width + v.shape[3]
        if self.both is None:
            self.both, self.split = np.empty((batch, heads, more, total), k.dtype), width
        held = self.both
        if (batch, heads, width, total) != (held.shape[0], held.shape[1], self.split, held.shape[3]):
            raise ValueError(
                f"{k.shape} and {v.shape} after {(*held.shape[:2], self.length, self.split)} "
                f"and {(*held.shape[:2], self.length, held.shape[3] - self.split)}"
            )
        if k.dtype != held.dtype:
            raise TypeError(f"{k.dtype} after {held.dtype}")
        needed = self.length + more
        if needed > held.shape[2]:
            room = max(needed, 2 * held.shape[2])
            self.both = np.empty((batch, heads, room, total), held.dtype)
            self.both[:, :, : self.length] = held[:, :, : self.length]
        self.both[:, :, self.length : needed, :width] = k
        self.both[:, :, self.length : needed, width:] = v
        self.length = needed
        now = self.both[:, :, :needed]
        return now[..., :width], now[..., width:]

    def select(self, rows):
        if self.both is not None:
            for row in np.asarray(rows, np.int64).tolist():
                if not 0 <= row < len(self.both):
                    raise IndexError(f"no row {row}")
            self.both = np.take(self.both, np.asarray(rows, np.int64), axis=0)

    def reset(self):
        self.__init__()


class MultiHeadAttention(Module):
    fused = True

    def __init__(self, embed_dim, num_heads, num_kv_heads=None, bias=True, rotary=None, *, rng):
        kv = num_heads if num_kv_heads is None else num_kv_heads
        for whole, parts in ((embed_dim, num_heads), (num_heads, kv)):
            if parts < 1 or whole % parts:
                raise ValueError(f"{whole} is not shared out evenly to {parts}")
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, kv, embed_dim // num_heads
        self.rotary = rotary
        self.qkv_proj = Linear(embed_dim, self.head_dim * (num_heads + kv + kv), bias, rng=rng)
        self.out_proj = Linear(embed_dim, embed_dim, bias, rng=rng)

    def heads(self, x, offset=0):
        every = split_heads(self.qkv_proj(x), self.num_heads + 2 * self.num_kv_heads)
        edges = np.cumsum([0, self.num_heads, self.num_kv_heads, self.num_kv_heads])
        q, k, v = (every[:, a:b] for a, b in itertools.pairwise(edges))
        turn = (lambda t: t) if self.rotary is None else lambda t: self.rotary(t, offset=offset)
        return turn(q), turn(k), v

    def forward(self, x, mask=None, is_causal=False, cache=None):
        q, k, v = self.heads(x, getattr(cache, "length", 0))
        if cache is not None:
            allowed_pairs(mask, is_causal, (*q.shape[:3], len(cache.positions(x.shape[1]))))
            k, v = map(Tensor, cache.append(k, v))
        params = {"mask": mask, "is_causal": is_causal}
        found = (
            fused_attention(q, k, v, **params)
            if self.fused
            else scaled_dot_product_attention(q, k, v, **params)
        )
        return self.out_proj(merge_heads(found))

    def attention_maps(self, x, mask=None, is_causal=False):
        q, k, _ = self.heads(x)
        return attention_weights(q, k, mask, is_causal).data

    def flops(self, inputs, out):
        (batch, length, width) = out.shape
        return 4 * width * batch * length**2

    def extra_repr(self):
        return (
            f"{self.num_heads * self.head_dim}, num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}"
        )


def score_bytes(batch, heads, queries, keys, itemsize=4):
    return itemsize * keys * queries * heads * batch


def cache_bytes(batch, kv_heads, length, head_dim, layers=1, itemsize=4):
    one = batch * kv_heads * length * head_dim * itemsize
    return layers * (one + one)
