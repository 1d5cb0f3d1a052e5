"""Level 4: attention is two products of matrices and an exponential; its way back, five and another.

Ratios within this run, in CPU time, never seconds; and work counted, where overhead would hide its order.
Each budget has a twin: a naive version, written out here, that must not fit.
"""

import numpy as np

from dojo.expect import expect
from dojo.measuring import Budget, WorkMeter, race
from tinytorch.attention import (
    KVCache,
    MultiHeadAttention,
    absorb,
    fused_attention,
    scaled_dot_product_attention,
)
from tinytorch.tensor import Tensor

FUSED = Budget(
    "fused_attention of 112 positions",
    limit=5,
    reference=2.3,
    naive=14,  # 6.4 where products are slow
    unit="times the time of two products and an exponential",
    naively="a version that goes query by query",
)
FUSED_BACK = Budget(
    "fused_attention of 112 positions, there and back",
    limit=6,
    reference=2.1,
    naive=24,  # 9.5 where products are slow
    unit="times the time of seven products and two exponentials",
    naively="a version that goes query by query",
)
MANY = Budget(
    "fused_attention of 64 texts, 4 heads and 8 positions, there and back",
    limit=5.3,
    reference=2.5,
    naive=12.6,
    unit="times the time of the formulas for all heads at once",
    naively="a version that goes head by head",
)
COMPOSED = Budget(
    "scaled_dot_product_attention of 64 texts, 4 heads and 8 positions",
    limit=6.5,
    reference=2.2,
    naive=13.8,
    unit="times the time of the formulas for all heads at once",
    naively="a version that goes head by head",
)
ONE = Budget(
    "fused_attention of one query of 4 heads and 1,000 keys",
    limit=14,
    reference=2.6,  # and 8 in blocks of 128 keys
    naive=38,
    unit="times the time of two products and an exponential",
    naively="a version in blocks of 4 keys",
)
FUTURE = Budget(
    "the operations of causal attention, 1,024 positions",
    limit=0.8,
    reference=0.56,
    naive=1.01,
    unit="times those without a mask",
    naively="a version that computes the future, and hides it",
)
APPEND = Budget(
    "a cache of 256 tokens, one by one",
    limit=20,
    reference=6,
    naive=257,
    unit="times the bytes of its keys and values, read and written",
    naively="a version that joins old and new",
)
ABSORB = Budget(
    "absorb of 64 rows and 128 keys",
    limit=7,  # other right versions need 3.2
    reference=2.1,
    naive=25,  # 10 where products are slow
    unit="times the time of its product and its exponential",
    naively="a version that goes row by row",
)


def drawn(rng, batch, heads, queries, keys=None, kv_heads=None, width=32):
    keys, kv_heads = keys or queries, kv_heads or heads
    shapes = (batch, heads, queries, width), (batch, kv_heads, keys, width), (batch, kv_heads, keys, width)
    return tuple(rng.standard_normal(shape, np.float32) for shape in shapes)


def formulas(q, k, v):
    """The least there is to do: two products, an exponential, sums."""
    weights = q @ k.swapaxes(-1, -2)
    np.exp(weights, out=weights)
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights @ v, weights


def formulas_and_back(q, k, v):
    out, weights = formulas(q, k, v)
    np.exp(q @ k.swapaxes(-1, -2), out=weights)
    slopes = out @ v.swapaxes(-1, -2)
    slopes *= weights
    return slopes @ k, slopes.swapaxes(-1, -2) @ q, weights.swapaxes(-1, -2) @ out


def there_and_back(q, k, v):
    out, back = fused_attention.vjp(q, k, v)
    return back(out)


# 13.8 absorb


def operands(rng):
    scores, values = rng.standard_normal((64, 128), np.float32), rng.standard_normal((128, 32), np.float32)
    top, total = np.full((64, 1), -np.inf, np.float32), np.zeros((64, 1), np.float32)
    return scores, values, top, total, np.zeros((64, 32), np.float32)


def product(scores, values, top, total, mix):
    """It leaves the scores alone: where a race repeats it, exp of exp of them would overflow.

    And it makes an array of their size, 32 KiB, as an answer makes two or three: of 128 KiB at once they
    would be given back to the system, and fetched anew, in each call.
    """
    mix += np.exp(scores) @ values


def test_a_block_is_taken_in_by_one_product(rng):
    ABSORB.check(race(absorb, product, limit=ABSORB.limit, inputs=lambda: operands(rng)))


def test_the_twin_that_goes_row_by_row_is_caught(rng):
    def row_by_row(scores, values, top, total, mix):
        for i in range(len(scores)):
            largest = scores[i].max()
            shares = np.exp(scores[i] - largest)
            total[i] = shares.sum()
            mix[i] = shares @ values
            top[i] = largest

    ABSORB.catches(race(row_by_row, product, limit=ABSORB.limit, inputs=lambda: operands(rng)))


# 13.10 fused_attention, 13.11 fused_attention_back


def query_by_query(q, k, v):
    out = np.empty_like(q)
    for b, h, i in np.ndindex(q.shape[:3]):
        shares = np.exp(k[b, h] @ q[b, h, i])
        out[b, h, i] = shares @ v[b, h] / shares.sum()
    return out


def query_by_query_and_back(q, k, v):
    out, grads = query_by_query(q, k, v), [np.zeros_like(x) for x in (q, k, v)]
    for b, h, i in np.ndindex(q.shape[:3]):
        shares = np.exp(k[b, h] @ q[b, h, i])
        shares /= shares.sum()
        grads[2][b, h] += np.outer(shares, out[b, h, i])
        slopes = v[b, h] @ out[b, h, i]
        slopes = shares * (slopes - slopes @ shares)
        grads[0][b, h, i] = slopes @ k[b, h]
        grads[1][b, h] += np.outer(slopes, q[b, h, i])
    return grads


def one_head(rng):
    return drawn(rng, 1, 1, 112)


def test_blocks_are_products_of_matrices(rng):
    inputs = lambda: one_head(rng)  # noqa: E731
    FUSED.check(race(fused_attention, formulas, limit=FUSED.limit, inputs=inputs))


def test_the_twin_that_goes_query_by_query_is_caught(rng):
    inputs = lambda: one_head(rng)  # noqa: E731
    FUSED.catches(race(query_by_query, formulas, limit=FUSED.limit, inputs=inputs))


def test_so_is_their_way_back(rng):
    inputs = lambda: one_head(rng)  # noqa: E731
    FUSED_BACK.check(race(there_and_back, formulas_and_back, limit=FUSED_BACK.limit, inputs=inputs))


def test_the_twin_that_goes_back_query_by_query_is_caught(rng):
    inputs = lambda: one_head(rng)  # noqa: E731
    FUSED_BACK.catches(
        race(query_by_query_and_back, formulas_and_back, limit=FUSED_BACK.limit, inputs=inputs)
    )


def test_small_heads_go_together(rng):
    """256 of 8 by 8 scores: going head by head, Python would take longer than numpy."""
    inputs = lambda: drawn(rng, 64, 4, 8, width=8)  # noqa: E731
    MANY.check(race(there_and_back, formulas_and_back, limit=MANY.limit, inputs=inputs))


def test_the_twin_that_goes_head_by_head_is_caught(rng):
    def head_by_head(q, k, v):
        return [formulas_and_back(q[place], k[place], v[place]) for place in np.ndindex(q.shape[:2])]

    inputs = lambda: drawn(rng, 64, 4, 8, width=8)  # noqa: E731
    MANY.catches(race(head_by_head, formulas_and_back, limit=MANY.limit, inputs=inputs))


def one_query(rng):
    """As in generation, where a token asks all before it."""
    return drawn(rng, 1, 4, 1, 1000)


def test_one_query_asks_many_keys_at_a_time(rng):
    ONE.check(race(fused_attention, formulas, limit=ONE.limit, inputs=lambda: one_query(rng)))


def test_the_twin_that_asks_few_keys_at_a_time_is_caught(rng):
    def few(q, k, v):
        total, mix = np.zeros((1, 4, 1, 1), np.float32), np.zeros_like(q)
        for i in range(0, 1000, 4):
            scores = q @ k[:, :, i : i + 4].swapaxes(-1, -2)
            top = scores.max(axis=-1, keepdims=True)
            shares = np.exp(scores - top)
            total = total * np.exp(-top) + shares.sum(axis=-1, keepdims=True)
            mix = mix * np.exp(-top) + shares @ v[:, :, i : i + 4]
        return mix / total

    ONE.catches(race(few, formulas, limit=ONE.limit, inputs=lambda: one_query(rng)))


def operations(q, k, v, is_causal):
    with WorkMeter() as work:
        out = fused_attention(work.track(q), work.track(k), work.track(v), is_causal=is_causal)
        assert work.saw(out), f"work went past the meter: {dict(work.escapes)}"
    return work.flops


def test_the_future_is_not_computed(rng):
    arrays = drawn(rng, 1, 1, 1024)
    whole, causal = operations(*arrays, is_causal=False), operations(*arrays, is_causal=True)
    assert whole >= 4 * 1024 * 1024 * 32, "less than two products"
    assert causal >= 2 * 1024 * 1024 * 32, "less than half of two products"
    FUTURE.check(causal / whole)


def operations_back(q, k, v, is_causal):
    with WorkMeter() as work:
        arrays = [work.track(x) for x in (q, k, v)]
        out, back = fused_attention.vjp(*arrays, is_causal=is_causal)
        before = work.flops
        gradients = back(work.track(np.asarray(out).copy()))
        assert work.saw(gradients[0]), f"work went past the meter: {dict(work.escapes)}"
        return work.flops - before


def test_nor_is_the_future_on_the_way_back(rng):
    arrays = drawn(rng, 1, 1, 1024)
    whole, causal = operations_back(*arrays, is_causal=False), operations_back(*arrays, is_causal=True)
    assert causal >= 5 * 1024 * 1024 * 32, "less than half of five products"
    FUTURE.check(causal / whole)


def test_the_twin_that_computes_the_future_is_caught(rng):
    def hide(q, k, v, is_causal):
        with WorkMeter() as work:
            q, k, v = (work.track(x) for x in (q, k, v))
            scores = q @ k.swapaxes(2, 3)
            if is_causal:
                scores = np.where(np.tri(1024, dtype=bool), scores, -np.inf)
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            (weights / weights.sum(axis=-1, keepdims=True)) @ v
        return work.flops

    arrays = drawn(rng, 1, 1, 1024)
    FUTURE.catches(hide(*arrays, is_causal=True) / hide(*arrays, is_causal=False))


# 13.15 MultiHeadAttention.heads


def test_queries_keys_and_values_come_out_of_one_product(rng):
    """They are parts of one result: asked for once, not once for each."""
    layer, asked = MultiHeadAttention(8, 2, rng=rng), []
    project = layer.qkv_proj.forward
    layer.qkv_proj.forward = lambda x: (asked.append(x.shape), project(x))[1]
    x = Tensor(rng.standard_normal((1, 6, 8), np.float32))
    for run in (layer.heads, layer, layer.attention_maps):
        asked.clear()
        run(x)
        assert len(asked) <= 1, f"qkv_proj was asked {len(asked)} times"


# 13.7 scaled_dot_product_attention


def test_all_heads_go_through_one_product(rng):
    inputs = lambda: drawn(rng, 64, 4, 8, width=8)  # noqa: E731
    COMPOSED.check(race(scaled_dot_product_attention, formulas, limit=COMPOSED.limit, inputs=inputs))


def test_the_twin_that_goes_through_heads_is_caught(rng):
    def head_by_head(q, k, v):
        return [formulas(q[place], k[place], v[place]) for place in np.ndindex(q.shape[:2])]

    inputs = lambda: drawn(rng, 64, 4, 8, width=8)  # noqa: E731
    COMPOSED.catches(race(head_by_head, formulas, limit=COMPOSED.limit, inputs=inputs))


# 13.12 KVCache.append


def test_a_cache_writes_each_token_a_few_times_at_most(rng):
    k = rng.standard_normal((1, 2, 256, 8), np.float32)
    with WorkMeter() as work:
        cache = KVCache()
        for i in range(256):
            every, _ = cache.append(*[work.track(k[:, :, i : i + 1])] * 2)
    expect(np.asarray(every), k)
    assert work.bytes >= 2 * k.nbytes, "less than was written"
    APPEND.check(work.bytes / (2 * k.nbytes))


def test_the_twin_that_joins_old_and_new_is_caught(rng):
    k = rng.standard_normal((1, 2, 256, 8), np.float32)
    with WorkMeter() as work:
        every = [work.track(k[:, :, :1])] * 2
        for i in range(1, 256):
            every = [np.concatenate([x, work.track(k[:, :, i : i + 1])], axis=2) for x in every]
    APPEND.catches(work.bytes / (2 * k.nbytes))
