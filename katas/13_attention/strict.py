"""What a trusted grade asks of kata 13: each check on fresh shapes and numbers, its answers as one array."""

import numpy as np

from dojo.strict import Check


def flat(*arrays):
    return np.concatenate([np.ravel(a) for a in arrays])


def whole(q, k, v, allowed, scale):
    """Attention of all to all: result, weights."""
    group = q.shape[1] // k.shape[1]
    k, v = (np.repeat(x, group, axis=1) for x in (k, v))
    shares = np.where(allowed, np.exp(q @ k.swapaxes(2, 3) * scale), 0)
    sums = shares.sum(axis=-1, keepdims=True)
    weights = shares / np.where(sums == 0, 1, sums)
    return weights @ v, weights


def whole_back(q, k, v, allowed, scale, grad):
    """And the gradients of q, k and v."""
    batch, kv, keys, _ = k.shape
    group = q.shape[1] // kv
    _, weights = whole(q, k, v, allowed, scale)
    wide_k, wide_v = (np.repeat(x, group, axis=1) for x in (k, v))
    slopes = grad @ wide_v.swapaxes(2, 3)
    slopes = weights * (slopes - (slopes * weights).sum(axis=-1, keepdims=True)) * scale
    for_k, for_v = slopes.swapaxes(2, 3) @ q, weights.swapaxes(2, 3) @ grad
    together = lambda x: x.reshape(batch, kv, group, keys, -1).sum(axis=2)  # noqa: E731
    return slopes @ wide_k, together(for_k), together(for_v)


def future(queries, keys):
    return np.arange(keys) <= np.arange(keys - queries, keys)[:, None]


# Attention and its gradients, in one piece and in blocks.


def draw_attention(rng):
    batch, kv, group, queries, width = (int(n) for n in rng.integers(1, 5, 5))
    keys = queries + int(rng.integers(0, 9))
    return {
        "q": rng.normal(size=(batch, kv * group, queries, width)),
        "k": rng.normal(size=(batch, kv, keys, width)),
        "v": rng.normal(size=(batch, kv, keys, width + 1)),
        "grad": rng.normal(size=(batch, kv * group, queries, width + 1)),
        "mask": rng.random((batch, 1, queries, keys)) < 0.6,
        "scale": np.array(rng.normal()),
    }


def run_attention(student, q, k, v, grad, mask, scale):
    answers = []
    for is_causal in (False, True):
        params = {"mask": mask, "is_causal": is_causal, "scale": float(scale)}
        answers.append(student.scaled_dot_product_attention(q, k, v, **params).data)
        answers.append(student.attention_weights(q, k, **params).data)
        for chunk in (None, 3):
            out, back = student.fused_attention.vjp(q, k, v, chunk=chunk, **params)
            answers += [out, *back(grad)]
    return np.concatenate([np.ravel(a) for a in answers])


def expected_attention(q, k, v, grad, mask, scale):
    answers = []
    for is_causal in (False, True):
        allowed = mask & future(q.shape[2], k.shape[2]) if is_causal else mask
        out, weights = whole(q, k, v, allowed, scale)
        answers += [out, weights] + 2 * [out, *whole_back(q, k, v, allowed, scale, grad)]
    return flat(*answers)


# A text that is longer than a block.


def draw_long(rng):
    queries, keys = int(rng.integers(130, 300)), int(rng.integers(700, 1500))
    return {
        "q": rng.normal(size=(1, 2, queries, 4)),
        "k": rng.normal(size=(1, 1, keys, 4)),
        "v": rng.normal(size=(1, 1, keys, 4)),
        "grad": rng.normal(size=(1, 2, queries, 4)),
    }


def run_long(student, q, k, v, grad):
    out, back = student.fused_attention.vjp(q, k, v, is_causal=True)
    return np.concatenate([np.ravel(a) for a in (out, *back(grad))])


def expected_long(q, k, v, grad):
    allowed, scale = future(q.shape[2], k.shape[2]), q.shape[3] ** -0.5
    return flat(whole(q, k, v, allowed, scale)[0], *whole_back(q, k, v, allowed, scale, grad))


# A softmax piece by piece.


def draw_pieces(rng):
    rows, keys, width = (int(n) for n in rng.integers(1, 9, 3))
    scores = rng.normal(size=(2, rows, keys)) * 20
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    return {
        "scores": scores,
        "values": rng.normal(size=(2, keys, width)),
        "cut": np.array(rng.integers(0, keys + 1)),
    }


def run_pieces(student, scores, values, cut):
    top = np.full((*scores.shape[:2], 1), -np.inf)
    total, mix = np.zeros_like(top), np.zeros((*scores.shape[:2], values.shape[2]))
    cut = int(cut)
    for part in (slice(0, cut), slice(cut, None)):
        student.absorb(scores[..., part].copy(), values[:, part], top, total, mix)
    return np.concatenate([np.ravel(a) for a in (np.nan_to_num(top, neginf=0), total, mix)])


def expected_pieces(scores, values, cut):
    top = scores.max(axis=-1, keepdims=True)
    shares = np.exp(scores - np.where(np.isneginf(top), 0, top))
    return flat(np.nan_to_num(top, neginf=0), shares.sum(axis=-1), shares @ values)


# Masks and blocks.


def draw_masks(rng):
    length = int(rng.integers(2, 12))
    return {
        "lengths": rng.integers(0, length + 1, 3),
        "numbers": np.array([length, int(rng.integers(1, length + 1)), *rng.integers(1, 5, 2)]),
    }


def run_masks(student, lengths, numbers):
    length, queries, rows, columns = numbers.tolist()
    causal = student.causal_mask(queries, length)
    padding = student.padding_mask(lengths, length)
    left = student.padding_mask(lengths, length, "left")
    both = student.allowed_pairs(left, True, (3, 2, queries, length))
    both = np.broadcast_to(np.asarray(both), (3, 2, queries, length))
    count = np.zeros((queries, length))
    for some, ranges in student.tiles(queries, length, rows, columns, True):
        for those in ranges:
            count[some, those] += 1
    return np.concatenate(
        [np.ravel(np.asarray(a, float)) for a in (causal, padding, left, both, count * causal)]
    )


def expected_masks(lengths, numbers):
    length, queries, _, _ = numbers.tolist()
    causal = future(queries, length)
    padding = np.arange(length) < lengths[:, None]
    left = padding[:, ::-1]
    both = np.broadcast_to((left[:, None, None, :] & causal), (3, 2, queries, length))
    return flat(causal.astype(float), padding, left, both, causal)


# A layer, at once and token by token with a cache.


def draw_layer(rng):
    kv, group, half = (int(n) for n in rng.integers(1, 4, 3))
    heads, width = kv * group, 2 * half
    dim = heads * width
    return {
        "x": rng.normal(size=(2, int(rng.integers(2, 8)), dim)).astype(np.float32),
        "qkv": (rng.normal(size=(dim + 2 * kv * width, dim)) / dim**0.5).astype(np.float32),
        "out": (rng.normal(size=(dim, dim)) / dim**0.5).astype(np.float32),
        "numbers": np.array([heads, kv]),
    }


def run_layer(student, x, qkv, out, numbers):
    heads, kv = numbers.tolist()
    layer = student.MultiHeadAttention(x.shape[2], heads, kv, bias=False, rng=np.random.default_rng(0))
    layer.qkv_proj.weight.data[:], layer.out_proj.weight.data[:] = qkv, out
    layer.requires_grad_(False)
    whole = layer(student.Tensor(x), is_causal=True).data
    cache, pieces = student.KVCache(), []
    for i in range(x.shape[1]):
        pieces.append(layer(student.Tensor(x[:, i : i + 1]), is_causal=True, cache=cache).data)
    maps = layer.attention_maps(student.Tensor(x), is_causal=True)
    return np.concatenate([np.ravel(a) for a in (whole, np.concatenate(pieces, axis=1), maps)])


def expected_layer(x, qkv, out, numbers):
    heads, kv = numbers.tolist()
    batch, length, dim = x.shape
    width = dim // heads
    every = (x.astype(np.float64) @ qkv.T).reshape(batch, length, heads + 2 * kv, width).swapaxes(1, 2)
    q, k, v = every[:, :heads], every[:, heads : heads + kv], every[:, heads + kv :]
    found, weights = whole(q, k, v, future(length, length), width**-0.5)
    answer = found.swapaxes(1, 2).reshape(batch, length, dim) @ out.T
    return flat(answer, answer, weights).astype(np.float32)


# A cache through growth and selection.


def draw_cache(rng):
    return {
        "k": rng.normal(size=(3, 2, int(rng.integers(5, 40)), 3)),
        "v": rng.normal(size=(3, 2, 1, 4)),
        "rows": rng.integers(0, 3, int(rng.integers(1, 6))),
    }


def run_cache(student, k, v, rows):
    cache, length = student.KVCache(), k.shape[2]
    v = np.repeat(v, length, axis=2)
    start, step = 0, 1
    while start < length - 1:
        stop = min(start + step, length - 1)
        cache.append(k[:, :, start:stop], v[:, :, start:stop])
        start, step = stop, step % 3 + 1
    cache.select(rows)
    every = cache.append(k[rows][:, :, -1:], v[rows][:, :, -1:])
    return np.concatenate([np.ravel(a) for a in (*every, np.array([float(cache.length)]))])


def expected_cache(k, v, rows):
    return flat(k[rows], np.repeat(v, k.shape[2], axis=2)[rows], np.array([float(k.shape[2])]))


CHECKS = (
    Check(
        "attention and its gradients, in blocks too",
        draw_attention,
        run_attention,
        expected_attention,
        rtol=1e-8,
    ),
    Check("attention of a long text", draw_long, run_long, expected_long, rtol=1e-8),
    Check("a softmax piece by piece", draw_pieces, run_pieces, expected_pieces, rtol=1e-9),
    Check("masks and blocks", draw_masks, run_masks, expected_masks),
    Check("a layer, at once and with a cache", draw_layer, run_layer, expected_layer, rtol=1e-3, atol=1e-3),
    Check("a cache that grows and is selected from", draw_cache, run_cache, expected_cache),
)
