"""Level 3: scores are the square of the length; blocks of them are not.

Counted by tracemalloc in bytes, so the figures are the same on every machine. Each budget has a twin: a
naive version, written out here, that must not fit.
"""

import math

import numpy as np
import pytest

from dojo.measuring import Budget, Probe, kept_bytes, load_probes, memory_growth, peak_bytes, retained_bytes
from tinytorch.attention import (
    KVCache,
    MultiHeadAttention,
    absorb,
    attention_weights,
    fused_attention,
    scaled_dot_product_attention,
)
from tinytorch.autograd import is_grad_enabled, no_grad
from tinytorch.tensor import Tensor, matmul, set_recorder

KIB = 1 << 10
PROBES = {probe.name: probe for probe in load_probes(__file__).PROBES}

GROWTH = Budget(
    "the peak memory of attention in blocks, from 512 to 4,096 positions",
    limit=1.15,
    reference=0.6,
    naive=2.0,
    unit="as the exponent by which it grows with the length",
    naively="a version with all weights in memory",
)
FORWARD = Budget(
    "fused_attention of some heads and 1,024 positions, or of many that are short",
    limit=10,
    reference=3.6,
    naive=48,
    unit="times the memory of its result, at the worst moment",
    naively="a version with all weights in memory",
)
BACK = Budget(
    "fused_attention of 2 heads and 1,024 positions, there and back",
    limit=16,
    reference=6.7,
    naive=65,
    unit="times the memory of its result, at the worst moment",
    naively="a version with all weights in memory",
)
KEPT = Budget(
    "what the way back keeps of fused_attention",
    limit=0.3,
    reference=0.02,
    naive=16,
    unit="times the memory of its result, beyond that and its inputs",
    naively="a version that keeps the weights",
)
WEIGHTS_KEPT = Budget(
    "what the way back keeps of scaled_dot_product_attention",
    limit=1.6,
    reference=1.2,
    naive=2.03,
    unit="arrays of scores",
    naively="a version that scales the scores, not the queries,",
)
SHARED = Budget(
    "one query of 8 heads that share the keys",
    limit=1.0,
    reference=0.25,
    naive=16.4,
    unit="times the memory of the keys, at the worst moment",
    naively="a version that repeats keys and values for each head",
)
ABSORB = Budget(
    "absorb",
    limit=0.5,
    reference=0.03,
    naive=2.0,
    unit="times the memory of the scores, at the worst moment",
    naively="a version that makes an array of each step",
)
APPEND = Budget(
    "one more token for a cache of 1,000",
    limit=64,
    reference=1.3,
    naive=1000,
    unit="KiB, at the worst moment",
    naively="a version that joins old and new",
)
HELD = Budget(
    "a cache of 1,025 tokens, one by one",
    limit=2.6,
    reference=2.0,
    naive=4.0,
    unit="times the memory of its keys and values",
    naively="a version that keeps what it has grown out of",
)
LAYER_AT_WORK = Budget(
    "MultiHeadAttention of 4 heads and 512 positions",
    limit=30,
    reference=13,
    naive=68,
    unit="times the memory of its input, at the worst moment",
    naively="a version with all weights in memory",
)
LAYER = Budget(
    "what the way back keeps of MultiHeadAttention",
    limit=8,
    reference=4.1,
    naive=36,
    unit="times the memory of its input, beyond its result",
    naively="a version that keeps the weights",
)


def drawn(rng, heads, queries, keys=None, kv_heads=None, width=64):
    keys, kv_heads = keys or queries, kv_heads or heads
    shapes = (1, heads, queries, width), (1, kv_heads, keys, width), (1, kv_heads, keys, width)
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def all_at_once(q, k, v):
    """Attention in plain numpy, with every step in an array of its own."""
    scores = q @ k.swapaxes(2, 3) / math.sqrt(q.shape[3])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights @ v, weights


def all_at_once_back(q, k, v):
    out, weights = all_at_once(q, k, v)
    slopes = out @ v.swapaxes(2, 3)
    slopes = weights * (slopes - (slopes * weights).sum(axis=-1, keepdims=True)) / math.sqrt(q.shape[3])
    return out, slopes @ k, slopes.swapaxes(2, 3) @ q, weights.swapaxes(2, 3) @ out


# 13.8 absorb


def operands(rng):
    scores = rng.standard_normal((128, 2048), np.float32)
    return (
        scores,
        rng.standard_normal((2048, 16), np.float32),
        np.full((128, 1), -np.inf, np.float32),
        np.zeros((128, 1), np.float32),
        np.zeros((128, 16), np.float32),
    )


def test_a_block_is_taken_in_without_another(rng):
    args = operands(rng)
    ABSORB.check(peak_bytes(lambda: absorb(*args)) / args[0].nbytes)


def test_the_twin_that_makes_an_array_of_each_step_is_caught(rng):
    scores, values, top, total, mix = operands(rng)

    def copies():
        shares = np.exp(scores - top.clip(-1))
        total[:] = shares.sum(axis=-1, keepdims=True)
        mix[:] = shares @ values

    ABSORB.catches(peak_bytes(copies) / scores.nbytes)


# 13.10 fused_attention, 13.11 fused_attention_back


def from_512_to_4096(call, first=512):
    """One head of 32 numbers, and a text eight times as long: the exponent between the two."""
    prepare = lambda n, rng: tuple(drawn(rng, 1, n, width=32))  # noqa: E731
    return Probe("attention by length", (first, 8 * first), prepare=prepare, call=call, time=2, memory=1)


@pytest.mark.parametrize(
    "probe",
    [
        "in blocks, 2 heads of n",
        "in blocks there and back, 1 head of n",
        "in blocks with padding, 1 head of n",
    ],
)
def test_memory_grows_with_the_length_and_not_with_its_square(probe):
    """Also where the future is hidden, or padding: a mask of all pairs would be a square, too."""
    GROWTH.check(memory_growth(from_512_to_4096(PROBES[probe].call)))


def test_the_twin_with_all_weights_in_memory_is_caught():
    GROWTH.catches(memory_growth(from_512_to_4096(all_at_once, 128)))


def test_scores_are_never_in_memory_all_at_once(rng):
    q, k, v = drawn(rng, 2, 1024)
    FORWARD.check(peak_bytes(lambda: fused_attention(q, k, v)) / q.nbytes)


def test_the_twin_with_all_scores_in_memory_is_caught(rng):
    arrays = drawn(rng, 2, 1024)
    FORWARD.catches(peak_bytes(lambda: all_at_once(*arrays)) / arrays[0].nbytes)


def there_and_back(q, k, v, **params):
    out, back = fused_attention.vjp(q, k, v, **params)
    return out, back(out)


def test_nor_on_the_way_back(rng):
    arrays = drawn(rng, 2, 1024)
    BACK.check(peak_bytes(lambda: there_and_back(*arrays)) / arrays[0].nbytes)


def test_the_twin_with_all_weights_on_the_way_back_is_caught(rng):
    arrays = drawn(rng, 2, 1024)
    BACK.catches(peak_bytes(lambda: all_at_once_back(*arrays)) / arrays[0].nbytes)


def test_a_chunk_bounds_what_is_in_memory(rng):
    """Blocks of 16 by 16 of 256 positions, asked for; the results are 16 KiB each."""
    q, k, v = drawn(rng, 1, 256, width=16)
    FORWARD.check(peak_bytes(lambda: fused_attention(q, k, v, chunk=16)) / q.nbytes)
    BACK.check(peak_bytes(lambda: there_and_back(q, k, v, chunk=16)) / q.nbytes)


@pytest.mark.parametrize(
    ("batch", "heads", "kv_heads", "length", "width"),
    [(256, 2, 2, 64, 4), (8, 16, 16, 128, 4), (1, 8, 1, 1024, 8)],
)
def test_nor_are_those_of_many_texts_and_heads(batch, heads, kv_heads, length, width, rng):
    """All scores of these would be 16 to 128 times the result."""
    q = rng.standard_normal((batch, heads, length, width), np.float32)
    k = rng.standard_normal((batch, kv_heads, length, width), np.float32)
    FORWARD.check(peak_bytes(lambda: fused_attention(q, k, k)) / q.nbytes)


def test_the_way_back_keeps_one_number_a_query(rng):
    assert is_grad_enabled()
    q, k, v = (Tensor(x, True) for x in drawn(rng, 2, 1024))
    kept = kept_bytes(lambda: fused_attention(q, k, v, is_causal=True))
    KEPT.check((kept - q.data.nbytes) / q.data.nbytes)


def test_the_twin_that_keeps_the_weights_is_caught(rng):
    arrays = drawn(rng, 2, 1024)
    kept = kept_bytes(lambda: all_at_once(*arrays))
    KEPT.catches((kept - arrays[0].nbytes) / arrays[0].nbytes)


def test_nothing_stays_when_the_result_is_gone(rng):
    q, k, v = drawn(rng, 2, 512)
    assert retained_bytes(lambda: fused_attention(q, k, v)) < 64 * KIB
    assert retained_bytes(lambda: there_and_back(q, k, v)) < 64 * KIB


# 13.6 attention_weights, 13.7 scaled_dot_product_attention


def test_of_all_scores_one_array_is_kept(rng):
    """The weights: softmax's rule needs them, and the product with the values too."""
    assert is_grad_enabled()
    q, k, v = (Tensor(x, True) for x in drawn(rng, 2, 512, width=16))
    scores = 2 * 512 * 512 * 4
    WEIGHTS_KEPT.check(kept_bytes(lambda: scaled_dot_product_attention(q, k, v, is_causal=True)) / scores)
    WEIGHTS_KEPT.check(kept_bytes(lambda: attention_weights(q, k)) / scores)


def test_the_twin_that_scales_the_scores_is_caught(rng):
    from tinytorch.activations import softmax

    q, k, v = (Tensor(x, True) for x in drawn(rng, 2, 512, width=16))

    def scale_late():
        scores = matmul(q, k.transpose(2, 3)) * 0.25
        return matmul(softmax(scores), v)

    WEIGHTS_KEPT.catches(kept_bytes(scale_late) / (2 * 512 * 512 * 4))


@pytest.mark.parametrize("attend", [scaled_dot_product_attention, fused_attention], ids=["composed", "fused"])
def test_keys_that_are_shared_are_not_repeated(attend, rng):
    """As in generation: one query, a long text, the keys a view of a cache."""
    q, k, v = drawn(rng, 8, 1, 8192, 1)
    k, v = (np.concatenate([x, x], axis=2)[:, :, :8192] for x in (k, v))
    SHARED.check(peak_bytes(lambda: attend(q, k, v)) / k.nbytes)


def test_the_twin_that_repeats_keys_is_caught(rng):
    q, k, v = drawn(rng, 8, 1, 8192, 1)
    repeated = lambda: all_at_once(q, np.repeat(k, 8, axis=1), np.repeat(v, 8, axis=1))  # noqa: E731
    SHARED.catches(peak_bytes(repeated) / k.nbytes)


# 13.12 KVCache.append


def filled(rng, tokens, width=64):
    """A cache that grew token by token, and one token more."""
    cache = KVCache()
    k = rng.standard_normal((1, 2, 1, width), np.float32)
    for _ in range(tokens):
        cache.append(k, k)
    return cache, k


def test_one_more_token_is_just_written(rng):
    """Now and then it has to grow: the middle of nine appends counts."""
    cache, k = filled(rng, 1000)
    peaks = sorted(peak_bytes(lambda: cache.append(k, k)) for _ in range(9))
    APPEND.check(peaks[4] / KIB)


def test_the_twin_that_joins_old_and_new_is_caught(rng):
    k = rng.standard_normal((1, 2, 1000, 64), np.float32)
    join = lambda: [np.concatenate([x, x[:, :, :1]], axis=2) for x in (k, k)]  # noqa: E731
    APPEND.catches(peak_bytes(join) / KIB)


def test_a_cache_holds_at_most_twice_what_it_needs(rng):
    needs = 2 * 2 * 1025 * 64 * 4
    HELD.check(kept_bytes(lambda: filled(rng, 1025)) / needs)


def test_the_twin_that_keeps_what_it_has_grown_out_of_is_caught():
    needs = 2 * 2 * 1025 * 64 * 4
    HELD.catches(kept_bytes(lambda: [np.empty((2, 2, 2**i, 64), np.float32) for i in range(12)]) / needs)


# 13.13 KVCache.nbytes, reset


def test_a_cache_counts_the_memory_that_it_holds_used_or_not(rng):
    """Just grown, it has room for nearly as many again. A few KiB are Python's own."""
    cache, _ = filled(rng, 1025)
    kept = kept_bytes(lambda: filled(rng, 1025))
    assert abs(kept - cache.nbytes) < 64 * KIB, f"{cache.nbytes} bytes, and it holds {kept}"


def test_a_reset_cache_holds_nothing(rng):
    def emptied():
        cache, _ = filled(rng, 1000)
        cache.reset()
        return cache

    assert kept_bytes(emptied) < 16 * KIB


# 13.16 MultiHeadAttention.forward


def test_a_layer_keeps_no_weights(rng):
    """Queries, keys and values, and what was found, which `out_proj` keeps."""
    assert is_grad_enabled()
    layer = MultiHeadAttention(64, 4, rng=rng)
    x = Tensor(rng.standard_normal((1, 512, 64), np.float32))
    LAYER.check((kept_bytes(lambda: layer(x, is_causal=True)) - x.data.nbytes) / x.data.nbytes)


PASSES = {
    "training": lambda layer, x: layer(x),
    "evaluation": lambda layer, x: layer.eval()(x),
    "padding": lambda layer, x: layer(x, np.ones((1, 1, 1, 512), bool)),
    "causal": lambda layer, x: layer(x, is_causal=True),
    "cache": lambda layer, x: layer(x, is_causal=True, cache=KVCache()),
}


@pytest.mark.parametrize("kind", PASSES)
def test_a_layer_is_fused_in_every_kind_of_pass(kind, rng):
    layer = MultiHeadAttention(64, 4, rng=rng)
    x = Tensor(rng.standard_normal((1, 512, 64), np.float32))
    with no_grad():
        LAYER_AT_WORK.check(peak_bytes(lambda: PASSES[kind](layer, x)) / x.data.nbytes)


@pytest.mark.parametrize("kind", PASSES)
def test_the_twin_layer_that_is_not_fused_is_caught(kind, rng):
    """It has all weights in memory; and `fused = False` is heeded in each kind of pass, too."""
    layer = MultiHeadAttention(64, 4, rng=rng)
    layer.fused = False
    x = Tensor(rng.standard_normal((1, 512, 64), np.float32))
    with no_grad():
        LAYER_AT_WORK.catches(peak_bytes(lambda: PASSES[kind](layer, x)) / x.data.nbytes)


def test_a_layer_that_is_not_fused_keeps_them(rng):
    layer = MultiHeadAttention(64, 4, rng=rng)
    layer.fused = False
    x = Tensor(rng.standard_normal((1, 512, 64), np.float32))
    assert kept_bytes(lambda: layer(x)) > 4 * 512 * 512 * 4


def test_the_twin_layer_that_keeps_the_weights_is_caught(rng):
    arrays = drawn(rng, 4, 512, width=16)
    LAYER.catches((kept_bytes(lambda: all_at_once(*arrays)) + 3 * arrays[0].nbytes) / arrays[0].nbytes)


def test_a_layer_that_is_used_keeps_nothing(rng):
    before = set_recorder(None)
    try:
        layer = MultiHeadAttention(64, 4, rng=rng)
        x = Tensor(rng.standard_normal((1, 512, 64), np.float32))
        assert retained_bytes(lambda: layer(x)) < 64 * KIB
        assert retained_bytes(lambda: layer.attention_maps(x)) < 64 * KIB
    finally:
        set_recorder(before)
