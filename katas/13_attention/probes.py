"""What kata 13 measures: attention by length, in one piece and in blocks; a cache; one token more."""

import numpy as np

from dojo.measuring import Probe
from tinytorch.attention import (
    KVCache,
    causal_mask,
    fused_attention,
    padding_mask,
    scaled_dot_product_attention,
)

LENGTHS = (512, 1024, 2048)
LONG = (512, 1024, 2048, 4096)
F32 = 4  # bytes
WIDTH = 64


def draw(rng, heads, queries, keys=None, kv_heads=None):
    """Queries, keys and values of one text, 64 numbers a head."""
    keys, kv_heads = keys or queries, kv_heads or heads
    shapes = (1, heads, queries, WIDTH), (1, kv_heads, keys, WIDTH), (1, kv_heads, keys, WIDTH)
    return tuple(rng.standard_normal(shape, np.float32) for shape in shapes)


def whole(q, k, v):
    return scaled_dot_product_attention(q, k, v, is_causal=True)


def in_blocks(q, k, v):
    return fused_attention(q, k, v, is_causal=True)


def in_blocks_and_back(q, k, v):
    out, back = fused_attention.vjp(q, k, v, is_causal=True)
    return out, back(out)


def padded(q, k, v):
    length = q.shape[2]
    return fused_attention(q, k, v, mask=padding_mask([length * 3 // 4], length))


def torch_causal(q, k, v):
    return __import__("torch").nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def torch_one(q, k, v):
    return __import__("torch").nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def token_by_token(k, v):
    cache = KVCache()
    for i in range(k.shape[2]):
        every = cache.append(k[:, :, i : i + 1], v[:, :, i : i + 1])
    return cache, every


PROBES = (
    Probe(
        "all weights at once, 2 heads of n",
        LENGTHS,
        prepare=lambda n, rng: draw(rng, 2, n),
        call=whole,
        time=2,
        memory=2,
        flops=lambda n: 4 * 2 * n * n * WIDTH,
        moved=lambda n: 6 * F32 * 2 * n * n,
        torch=torch_causal,
    ),
    Probe(
        "in blocks, 2 heads of n",
        LONG,
        prepare=lambda n, rng: draw(rng, 2, n),
        call=in_blocks,
        time=2,
        memory=1,
        flops=lambda n: 2 * 2 * n * n * WIDTH,
        moved=lambda n: 4 * F32 * 2 * n * WIDTH,
        torch=torch_causal,
    ),
    Probe(
        "in blocks there and back, 1 head of n",
        LONG,
        prepare=lambda n, rng: draw(rng, 1, n),
        call=in_blocks_and_back,
        time=2,
        memory=1,
        flops=lambda n: 7 * n * n * WIDTH,
        moved=lambda n: 8 * F32 * n * WIDTH,
    ),
    Probe(
        "in blocks with padding, 1 head of n",
        LONG,
        prepare=lambda n, rng: draw(rng, 1, n),
        call=padded,
        time=2,
        memory=1,
        flops=lambda n: 4 * n * n * WIDTH,
        moved=lambda n: 4 * F32 * n * WIDTH,
    ),
    Probe(
        "one query of 8 heads, 2 heads of n keys",
        (512, 1024, 2048, 4096, 8192),
        prepare=lambda n, rng: draw(rng, 8, 1, n, 2),
        call=lambda q, k, v: fused_attention(q, k, v),
        time=1,
        memory=1,
        flops=lambda n: 4 * 8 * n * WIDTH,
        moved=lambda n: 2 * F32 * 2 * n * WIDTH,
        torch=torch_one,
    ),
    Probe(
        "a cache of n tokens, one by one",
        (512, 1024, 2048, 4096),
        prepare=lambda n, rng: draw(rng, 2, 1, n)[1:],
        call=token_by_token,
        time=1,
        memory=1,
        moved=lambda n: 3 * 2 * F32 * 2 * n * WIDTH,
    ),
    Probe(
        "causal_mask of n",
        LONG,
        prepare=lambda n, rng: (n,),
        call=causal_mask,
        time=2,
        memory=2,
        moved=lambda n: n * n,
    ),
)
