"""Attention with masks that are added, five axes for heads that share keys, and whole rows of scores.

The fused operation takes a few rows of one head, but all their keys: softmax is then the textbook's. Memory
grows with the length all the same, a little faster.
"""

import math

import numpy as np

from tinytorch.activations import softmax
from tinytorch.layers import Linear, Module
from tinytorch.tensor import Tensor, as_array, op

__all__ = [
    "KVCache", "MultiHeadAttention", "absorb", "allowed_pairs", "attention_weights", "cache_bytes",
    "causal_mask", "check_heads", "fused_attention", "fused_attention_back", "merge_heads", "padding_mask",
    "scaled_dot_product_attention", "score_bytes", "split_heads", "tiles",
]  # fmt: skip


def causal_mask(queries, keys=None):
    if keys is None:
        keys = queries
    if queries > keys:
        raise ValueError(f"there are {queries} queries and only {keys} keys")
    return np.arange(keys)[None, :] <= np.arange(keys - queries, keys)[:, None]


def padding_mask(lengths, length, side="right"):
    mask = np.zeros((len(lengths), 1, 1, length), dtype=bool)
    if side != "right" and side != "left":
        raise ValueError(f"side is right or left, not {side}")
    for i, n in enumerate(np.asarray(lengths).tolist()):
        if n < 0 or n > length:
            raise ValueError(f"length {n} is not between 0 and {length}")
        if side == "right":
            mask[i, ..., :n] = True
        else:
            mask[i, ..., length - n :] = True
    return mask


def check_heads(q, k, v=None):
    shapes = [tuple(x.shape) for x in (q, k) + (() if v is None else (v,))]
    message = "attention does not fit: " + ", ".join(map(str, shapes))
    if not all(len(s) == 4 for s in shapes):
        raise ValueError(message)
    (b, h, _, d), (b2, kv, t, d2) = shapes[:2]
    if b != b2 or d != d2 or kv < 1 or h % kv != 0 or (v is not None and shapes[2][:3] != (b2, kv, t)):
        raise ValueError(message)
    kinds = {str(np.dtype(x.dtype)) for x in (q, k, q if v is None else v)}
    if len(kinds) != 1 or not kinds <= {"float16", "float32", "float64"}:
        raise TypeError(f"one kind of floats is needed, not {', '.join(sorted(kinds))}")


def allowed_pairs(mask, is_causal, shape):
    if mask is not None:
        mask = as_array(mask)
        if mask.dtype.kind != "b":
            raise TypeError(f"masks are bools and this is {mask.dtype}")
        padded = (1,) * (len(shape) - mask.ndim) + mask.shape
        if len(padded) != len(shape) or any(m not in (1, n) for m, n in zip(padded, shape, strict=True)):
            raise ValueError(f"{mask.shape} does not stretch to {shape}")
    if not is_causal:
        return mask
    triangle = causal_mask(shape[-2], shape[-1])
    return triangle if mask is None else np.logical_and(mask, triangle)


def split_heads(x, heads):
    x = x if isinstance(x, Tensor) else Tensor(x)
    batch, length, width = x.shape
    if heads <= 0 or width % heads != 0:
        raise ValueError(f"{x.shape} cannot be cut into {heads} heads")
    return x.view(batch, length, heads, width // heads).permute(0, 2, 1, 3)


def merge_heads(x):
    x = x if isinstance(x, Tensor) else Tensor(x)
    batch, heads, length, width = x.shape
    return x.permute(0, 2, 1, 3).reshape(batch, length, heads * width)


def five_axes(x, kv_heads):
    """(B, H, T, D) -> (B, KV, G, T, D)"""
    return x.reshape(x.shape[0], kv_heads, x.shape[1] // kv_heads, *x.shape[2:])


def attention_weights(q, k, mask=None, is_causal=False, scale=None):
    check_heads(q, k)
    q, k = (x if isinstance(x, Tensor) else Tensor(x) for x in (q, k))
    if scale is None:
        scale = 1 / math.sqrt(q.shape[-1])
    shape = (*q.shape[:3], k.shape[2])
    scores = five_axes(q * float(scale), k.shape[1]) @ k.transpose(-1, -2).unsqueeze(2)
    scores = scores.reshape(*shape)
    allowed = allowed_pairs(mask, is_causal, shape)
    if allowed is None:
        return softmax(scores)
    weights = softmax(scores + np.where(allowed, 0, -np.inf).astype(scores.dtype))
    empty = ~allowed.any(axis=-1, keepdims=True)
    if empty.any():
        weights = weights * (~empty).astype(weights.dtype)
    return weights


def scaled_dot_product_attention(q, k, v, mask=None, is_causal=False, scale=None):
    check_heads(q, k, v)
    weights = attention_weights(q, k, mask, is_causal, scale)
    v = v if isinstance(v, Tensor) else Tensor(v)
    out = five_axes(weights, v.shape[1]) @ v.unsqueeze(2)
    return out.reshape(*weights.shape[:3], v.shape[3])


def absorb(scores, values, top, total, mix):
    if scores.shape[-1] == 0:
        return
    old = top.copy()
    np.maximum(top, scores.max(axis=-1, keepdims=True), out=top)
    some = np.isfinite(top)
    base = np.where(some, top, 0).astype(top.dtype)
    factor = np.where(np.isfinite(old), np.exp(np.where(np.isfinite(old), old - base, 0)), 0).astype(
        top.dtype
    )
    np.subtract(scores, base, out=scores)
    np.exp(scores, out=scores)
    np.multiply(total, factor, out=total)
    np.add(total, scores.sum(axis=-1, keepdims=True), out=total)
    np.multiply(mix, factor, out=mix)
    np.add(mix, np.matmul(scores, values), out=mix)


def tiles(queries, keys, rows, columns, is_causal=False):
    if rows <= 0 or columns <= 0:
        raise ValueError(f"cannot cut into blocks of {rows} x {columns}")
    if is_causal and queries > keys:
        raise ValueError(f"there are {queries} queries and only {keys} keys")
    start = 0
    while start < queries:
        stop = min(queries, start + rows)
        end = keys - (queries - stop) if is_causal else keys
        ranges = [slice(a, min(end, a + columns)) for a in range(0, end, columns)]
        yield slice(start, stop), ranges
        start = stop


def row_blocks(q, k, mask, is_causal, chunk):
    """Which heads and which rows together, with the keys that they may see at most, and the hidden pairs."""
    batch, kv, group, queries, _ = q.shape
    keys = k.shape[2]
    if chunk is not None and chunk < 1:
        raise ValueError(f"cannot work in chunks of {chunk}")
    if is_causal and queries > keys:
        raise ValueError(f"there are {queries} queries and only {keys} keys")
    rows = max(1, min(queries, 65536 // max(1, keys * group))) if chunk is None else chunk
    rows = min(rows, 128)
    several = max(1, 65536 // max(1, rows * group * keys))
    texts = several // kv or 1
    heads = min(kv, several)
    for b in range(0, batch, texts):
        for h in range(0, kv, heads):
            where = (slice(b, b + texts), slice(h, h + heads))
            for start in range(0, queries, rows):
                some = slice(start, min(queries, start + rows))
                end = keys - queries + some.stop if is_causal else keys
                hidden = None
                if mask is not None:
                    hidden = ~mask[where][:, :, :, some, :end]
                if is_causal:
                    last = np.arange(keys - queries + some.start, end)[:, None]
                    future = np.arange(end) > last
                    hidden = future if hidden is None else hidden | future
                yield where, some, slice(0, end), hidden


def flat(x):
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3], x.shape[4])


def scores_of(q, k, hidden):
    scores = (flat(q) @ k.swapaxes(-1, -2)).reshape(*q.shape[:4], k.shape[2])
    if hidden is not None:
        np.putmask(scores, np.broadcast_to(hidden, scores.shape), -np.inf)
    return scores


def prepared(q, k, mask, scale):
    shape = (*q.shape[:3], k.shape[2])
    mask = allowed_pairs(mask, False, shape)
    if mask is not None:
        mask = five_axes(np.broadcast_to(mask, shape), k.shape[1])
    return mask, q.dtype.type(1 / math.sqrt(q.shape[3]) if scale is None else scale)


@op(saves=["logsumexp"])
def fused_attention(q, k, v, *, mask=None, is_causal=False, scale=None, chunk=None):
    check_heads(q, k, v)
    kv = k.shape[1]
    mask, scale = prepared(q, k, mask, scale)
    batch, heads, length, _ = q.shape
    out = np.zeros_like(q, shape=(batch, heads, length, v.shape[3]))
    logsumexp = np.full(q.shape[:3], -np.inf, q.dtype)
    q5, out5, log5 = five_axes(q, kv), five_axes(out, kv), five_axes(logsumexp, kv)
    for where, some, those, hidden in row_blocks(q5, k, mask, is_causal, chunk):
        scores = scores_of(q5[where][:, :, :, some] * scale, k[where][:, :, those], hidden)
        top = scores.max(axis=-1, keepdims=True, initial=np.finfo(q.dtype).min)
        scores -= top
        np.exp(scores, out=scores)
        total = scores.sum(axis=-1, keepdims=True)
        some_keys = total > 0
        values = v[where][:, :, those]
        mixed = (flat(scores) @ values).reshape(*scores.shape[:4], v.shape[3])
        out5[where][:, :, :, some] = np.divide(mixed, total, out=np.zeros_like(mixed), where=some_keys)
        logs = np.log(total, out=np.full_like(total, -np.inf), where=some_keys)
        log5[where][:, :, :, some] = (logs + top)[..., 0]
    return out, logsumexp


@fused_attention.gradient
def fused_attention_back(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk):
    kv = k.shape[1]
    mask, scale = prepared(q, k, mask, scale)
    for_q, for_k, for_v = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    q5, g5, log5, for_q5 = (five_axes(x, kv) for x in (q, grad, logsumexp, for_q))
    level5 = np.einsum("bkgtd,bkgtd->bkgt", g5, five_axes(out, kv))
    for where, some, those, hidden in row_blocks(q5, k, mask, is_causal, chunk):
        rows = (*where, slice(None), some)
        asked, pull = q5[rows] * scale, g5[rows]
        log = log5[rows][..., None]
        weights = scores_of(asked, k[where][:, :, those], hidden)
        weights -= np.where(np.isfinite(log), log, 0)
        np.exp(weights, out=weights)
        for_v[where][:, :, those] += flat(weights).swapaxes(-1, -2) @ flat(pull)
        slopes = (flat(pull) @ v[where][:, :, those].swapaxes(-1, -2)).reshape(weights.shape)
        slopes -= level5[rows][..., None]
        slopes *= weights
        back = flat(slopes) @ k[where][:, :, those]
        for_q5[rows] = back.reshape(asked.shape) * scale
        for_k[where][:, :, those] += flat(slopes).swapaxes(-1, -2) @ flat(asked)
    return for_q, for_k, for_v


class KVCache:
    """Grows by half."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.keys = self.values = None
        self.length = 0

    @property
    def nbytes(self):
        return 0 if self.keys is None else self.keys.nbytes + self.values.nbytes

    def positions(self, new=0):
        return np.arange(self.length + new)

    def append(self, k, v):
        for x in (k, v):
            if getattr(x, "requires_grad", False):
                raise RuntimeError("generate under no_grad(): a cache has no gradients")
        k, v = as_array(k), as_array(v)
        check_heads(k, k, v)
        if self.keys is not None:
            for x, held in ((k, self.keys), (v, self.values)):
                if x.shape[:2] + x.shape[3:] != held.shape[:2] + held.shape[3:]:
                    raise ValueError(f"{x.shape} does not fit the cache, which has {held.shape}")
                if x.dtype != held.dtype:
                    raise TypeError(f"{x.dtype} does not fit the cache, which has {held.dtype}")
        before, after = self.length, self.length + k.shape[2]
        self.keys, self.values = self.grown(self.keys, k, after), self.grown(self.values, v, after)
        self.keys[:, :, before:after] = k
        self.values[:, :, before:after] = v
        self.length = after
        return self.keys[:, :, :after], self.values[:, :, :after]

    def grown(self, held, x, needed):
        room = 0 if held is None else held.shape[2]
        if held is not None and room >= needed:
            return held
        batch, heads, _, width = x.shape
        larger = np.zeros((batch, heads, max(needed, room + room // 2), width), x.dtype)
        if held is not None:
            larger[:, :, : self.length] = held[:, :, : self.length]
        return larger

    def select(self, rows):
        if self.keys is not None:
            rows = np.array(rows, dtype=int)
            if np.any((rows < 0) | (rows >= len(self.keys))):
                raise IndexError(f"rows {rows} of {len(self.keys)}")
            self.keys, self.values = self.keys[rows], self.values[rows]


class MultiHeadAttention(Module):
    def __init__(self, embed_dim, num_heads, num_kv_heads=None, bias=True, rotary=None, *, rng):
        if num_kv_heads is None:
            num_kv_heads = num_heads
        if num_heads <= 0 or num_kv_heads <= 0 or embed_dim % num_heads or num_heads % num_kv_heads:
            raise ValueError(
                f"{embed_dim} dimensions, {num_heads} heads and {num_kv_heads} of keys do not divide"
            )
        self.fused = True
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        self.head_dim = embed_dim // num_heads
        self.rotary = rotary
        outputs = (num_heads + 2 * num_kv_heads) * self.head_dim
        self.qkv_proj = Linear(embed_dim, outputs, bias=bias, rng=rng)
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, rng=rng)

    def heads(self, x, offset=0):
        every = self.qkv_proj(x)
        first = self.num_heads * self.head_dim
        second = first + self.num_kv_heads * self.head_dim
        q = split_heads(every[:, :, :first], self.num_heads)
        k = split_heads(every[:, :, first:second], self.num_kv_heads)
        v = split_heads(every[:, :, second:], self.num_kv_heads)
        if self.rotary is None:
            return q, k, v
        return self.rotary(q, offset=offset), self.rotary(k, offset=offset), v

    def forward(self, x, mask=None, is_causal=False, cache=None):
        q, k, v = self.heads(x, offset=cache.length if cache is not None else 0)
        if cache is not None:
            keys = len(cache.positions(x.shape[1]))
            allowed_pairs(mask, False, (len(x.data), self.num_heads, x.shape[1], keys))
            k, v = cache.append(k, v)
        if self.fused:
            out = fused_attention(q, k, v, mask=mask, is_causal=is_causal)
        else:
            out = scaled_dot_product_attention(q, k, v, mask=mask, is_causal=is_causal)
        return self.out_proj(merge_heads(out))

    def attention_maps(self, x, mask=None, is_causal=False):
        q, k, _ = self.heads(x)
        return attention_weights(q, k, mask=mask, is_causal=is_causal).numpy()

    def flops(self, inputs, out):
        batch, length, _ = out.shape
        return 2 * (2 * batch * self.num_heads * length * length * self.head_dim)

    def extra_repr(self):
        return f"num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}"


def score_bytes(batch, heads, queries, keys, itemsize=4):
    return math.prod((batch, heads, queries, keys, itemsize))


def cache_bytes(batch, kv_heads, length, head_dim, layers=1, itemsize=4):
    return math.prod((2, batch, kv_heads, length, head_dim, layers, itemsize))
