"""Level 1: a softmax that takes its keys piece by piece, and attention made of it.

That the fused operation gives what the composed one gives is asked in test_1_correctness.py; here, that the
size of blocks does not matter.
"""

import math
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinytorch.attention as attention
from dojo.expect import expect, expect_error
from tinytorch.attention import absorb, causal_mask, fused_attention, padding_mask, tiles
from tinytorch.tensor import Tensor

steady = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
SEEDS = st.integers(0, 2**16)


def whole(q, k, v, allowed=True):
    """Attention of all to all in plain numpy, and the logarithms of the sums."""
    group = q.shape[1] // k.shape[1]
    k, v = (np.repeat(x, group, axis=1) for x in (k, v))
    scores = np.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(q.shape[3])
    shares = np.where(allowed, np.exp(scores), 0)
    sums = shares.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        return shares @ v / np.where(sums == 0, 1, sums), np.log(sums[..., 0])


def drawn(rng, batch, heads, kv_heads, queries, keys, width=3):
    shapes = (batch, heads, queries, width), (batch, kv_heads, keys, width), (batch, kv_heads, keys, width)
    return [rng.normal(size=shape) for shape in shapes]


# 13.8 absorb


def start(*shape, width=1, dtype=np.float64):
    top = np.full((*shape, 1), -np.inf, dtype)
    return top, np.zeros((*shape, 1), dtype), np.zeros((*shape, width), dtype)


def test_a_block_is_taken_in():
    """Scores ln 1, ln 3: relative to the top, 1/3 and 1."""
    scores, values = np.log([[1.0, 3.0]]), np.array([[6.0], [1.0]])
    top, total, mix = start(1)
    absorb(scores, values, top, total, mix)
    expect((top, total, mix), (np.log([[3.0]]), np.array([[4 / 3]]), np.array([[3.0]])))
    expect(scores, np.array([[1 / 3, 1.0]]))


def test_a_higher_top_shrinks_what_was_summed():
    top, total, mix = start(1)
    absorb(np.log([[1.0, 3.0]]), np.array([[6.0], [1.0]]), top, total, mix)
    absorb(np.log([[12.0]]), np.array([[2.0]]), top, total, mix)
    expect((top, total, mix), (np.log([[12.0]]), np.array([[16 / 12]]), np.array([[9 / 12 + 2]])))
    absorb(np.log([[4.0]]), np.array([[3.0]]), top, total, mix)  # and a lower one does not
    expect((top, total, mix), (np.log([[12.0]]), np.array([[20 / 12]]), np.array([[9 / 12 + 2 + 1]])))


def test_what_is_hidden_counts_nothing():
    top, total, mix = start(2)
    scores = np.array([[-np.inf, -np.inf], [-np.inf, 0.0]])
    absorb(scores, np.array([[5.0], [7.0]]), top, total, mix)
    expect((top, total, mix), (np.array([[-np.inf], [0]]), np.array([[0.0], [1]]), np.array([[0.0], [7]])))
    expect(scores, np.array([[0.0, 0], [0, 1]]))
    absorb(np.array([[1.0], [-np.inf]]), np.array([[3.0]]), top, total, mix)
    expect((top, total, mix), (np.array([[1.0], [0]]), np.array([[1.0], [1]]), np.array([[3.0], [7]])))


def test_no_keys_change_nothing():
    top, total, mix = start(2)
    absorb(np.zeros((2, 0)), np.zeros((0, 1)), top, total, mix)
    expect((top, total, mix), start(2))


def test_everything_is_written_in_place_wherever_it_lies(rng):
    """Views of other arrays, as of a buffer that blocks share; the values stay as they are."""
    scores, values = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 4, 5))
    right = [scores.copy(), *start(2, 3, width=5)]
    absorb(right[0], values, *right[1:])
    lie = lambda x: np.repeat(x.swapaxes(0, 1), 2, axis=-1).swapaxes(0, 1)[..., ::2]  # noqa: E731
    views = [lie(x) for x in (scores, *start(2, 3, width=5))]
    kept = lie(values)
    kept.flags.writeable = False
    absorb(views[0], kept, *views[1:])
    expect(views, right)


def test_scores_may_be_huge():
    top, total, mix = start(1, dtype=np.float32)
    for score in (-1e30, 1e30, 2e30, -2e30):
        absorb(np.array([[score]], np.float32), np.array([[score > 1e30]], np.float32), top, total, mix)
    expect((total, mix), (np.ones((1, 1), np.float32), np.ones((1, 1), np.float32)))


@settings(steady, max_examples=40)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.integers(1, 4), SEEDS)
def test_pieces_give_the_softmax_of_the_whole(pieces, width, seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(2, 3, sum(pieces))) * 5
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    values = rng.normal(size=(2, sum(pieces), width))
    top, total, mix = start(2, 3, width=width)
    ends = np.cumsum(pieces)
    for end, n in zip(ends, pieces, strict=True):
        absorb(scores[..., end - n : end].copy(), values[:, end - n : end], top, total, mix)
    shares = np.exp(scores)
    expect(total * np.exp(top), shares.sum(axis=-1, keepdims=True), rtol=1e-9)
    expect(mix * np.exp(np.where(total == 0, 0, top)), shares @ values, rtol=1e-9)
    expect(top[..., 0], scores.max(axis=-1, initial=-np.inf))


# 13.9 tiles


def test_blocks_cut_the_scores_in_order():
    expect(
        list(tiles(5, 3, 2, 2)),
        [(slice(first, min(first + 2, 5)), [slice(0, 2), slice(2, 3)]) for first in (0, 2, 4)],
    )


def test_blocks_of_the_future_are_left_out():
    """4 queries, the last of 5: two at a time they see 3 and 5 keys."""
    got = list(tiles(4, 5, 2, 2, is_causal=True))
    expect(got[0], (slice(0, 2), [slice(0, 2), slice(2, 3)]))
    expect(got[1], (slice(2, 4), [slice(0, 2), slice(2, 4), slice(4, 5)]))
    expect(len(got), 2)


@settings(steady, max_examples=40)
@given(*[st.integers(0, 6)] * 2, *[st.integers(1, 7)] * 2, st.booleans())
def test_every_pair_that_may_be_is_in_one_block(queries, more, rows, columns, is_causal):
    keys = queries + more
    count = np.zeros((queries, keys), int)
    for some, ranges in tiles(queries, keys, rows, columns, is_causal):
        assert some.stop - some.start <= rows
        assert all(0 < those.stop - those.start <= columns for those in ranges)
        if is_causal:
            expect(max((those.stop for those in ranges), default=0), keys - queries + some.stop)
        for those in ranges:
            count[some, those] += 1
    allowed = causal_mask(queries, keys) if is_causal else np.ones((queries, keys), bool)
    expect(count[allowed].tolist(), [1] * int(allowed.sum()))
    assert count.max(initial=0) <= 1


@pytest.mark.parametrize(("rows", "columns"), [(0, 2), (2, 0), (-1, 2)])
def test_blocks_of_nothing_are_refused(rows, columns):
    with expect_error(ValueError, str(rows), str(columns)):
        list(tiles(4, 4, rows, columns))


def test_blocks_refuse_a_text_shorter_than_its_end():
    with expect_error(ValueError, "5", "3"):
        list(tiles(5, 3, 2, 2, is_causal=True))


# 13.10 fused_attention


@settings(steady, max_examples=60)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    st.integers(1, 9),
    st.integers(0, 5),
    st.integers(1, 11),
    st.booleans(),
    st.booleans(),
    SEEDS,
)
def test_the_size_of_blocks_does_not_matter(heads, queries, more, chunk, is_causal, masked, seed):
    rng = np.random.default_rng(seed)
    (batch, kv_heads, group), keys = heads, queries + more
    q, k, v = drawn(rng, batch, kv_heads * group, kv_heads, queries, keys)
    mask = rng.random((batch, kv_heads * group, queries, keys)) < 0.5 if masked else None
    allowed = np.ones((queries, keys), bool) if mask is None else mask
    allowed = allowed & causal_mask(queries, keys) if is_causal else allowed
    out = fused_attention(Tensor(q), Tensor(k), Tensor(v), mask=mask, is_causal=is_causal, chunk=chunk)
    expect(out.data, whole(q, k, v, allowed)[0])


@pytest.mark.parametrize(
    ("batch", "heads", "kv_heads", "queries", "keys"),
    [
        (1, 1, 1, 300, 300),
        (1, 2, 1, 129, 2100),
        (1, 1, 1, 1, 3000),
        (40, 6, 3, 33, 40),
        (3, 160, 1, 5, 9),
        (1, 2, 2, 700, 1500),
    ],
)
@pytest.mark.parametrize("is_causal", [True, False])
def test_of_itself_it_finds_blocks_that_work(batch, heads, kv_heads, queries, keys, is_causal, rng):
    q, k, v = drawn(rng, batch, heads, kv_heads, queries, keys)
    allowed = causal_mask(queries, keys) if is_causal else True
    expect(fused_attention(q, k, v, is_causal=is_causal).data, whole(q, k, v, allowed)[0])


@pytest.mark.parametrize("cache", [1, 7, 64])
def test_a_small_cache_makes_small_blocks(cache, monkeypatch, rng):
    """Of many texts and heads, few go together."""
    monkeypatch.setattr(attention, "BLOCK_SCORES", cache, raising=False)
    monkeypatch.setattr(attention, "BLOCK_ROWS", 2, raising=False)
    q, k, v = drawn(rng, 3, 4, 2, 5, 6)
    mask = padding_mask([6, 0, 3], 6)
    out = fused_attention(q, k, v, mask=mask, is_causal=True).data
    expect(out, whole(q, k, v, mask & causal_mask(5, 6))[0])


def test_large_scores_do_not_overflow(rng):
    q, k, v = (x.astype(np.float32) for x in drawn(rng, 1, 1, 1, 5, 7))
    q *= 1e4
    out = fused_attention(q, k, v, chunk=2).data
    best = np.einsum("bhid,bhjd->bhij", q, k).argmax(axis=-1)[0, 0]
    expect(out[0, 0], v[0, 0, best], atol=1e-5)


def test_a_row_that_may_attend_to_nothing_is_zero_in_any_blocks(rng):
    q, k, v = drawn(rng, 1, 2, 1, 4, 5)
    mask = np.ones((4, 5), bool)
    mask[2] = False
    mask[0, :3] = False  # nothing in the first block, something in the second
    for chunk in (1, 2, 3, 5, None):
        out = fused_attention(q, k, v, mask=mask, chunk=chunk).data
        expect(out, whole(q, k, v, mask)[0])
        expect(out[:, :, 2], np.zeros((1, 2, 3)))


def test_rows_of_nothing_give_no_warning(rng):
    q, k, v = drawn(rng, 2, 2, 1, 3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for chunk in (None, 2):
            out = fused_attention(q, k, v, mask=padding_mask([0, 3], 4), is_causal=True, chunk=chunk).data
            expect(out[0], np.zeros((2, 3, 3)))


def test_beside_the_result_comes_the_logarithm_of_each_sum(rng):
    q, k, v = drawn(rng, 2, 4, 2, 5, 6)
    mask = rng.random((2, 1, 5, 6)) < 0.6
    mask[1, 0, 3] = False
    for chunk in (None, 2):
        _, params = fused_attention.run((q, k, v), {"mask": mask, "chunk": chunk})
        expect(params["logsumexp"], whole(q, k, v, mask)[1])
    _, params = fused_attention.run((q, k[:, :, :0], v[:, :, :0]), {})
    expect(params["logsumexp"], np.full((2, 4, 5), -np.inf))  # of no keys


def test_the_result_lies_in_memory_as_the_queries_do(rng):
    """So heads that were split without a copy are merged without one."""
    x = rng.normal(size=(2, 5, 4, 3))
    assert fused_attention(x, x, x).data.flags.c_contiguous
    q = x.transpose(0, 2, 1, 3)
    out = fused_attention(q, q, q).data
    assert out.transpose(0, 2, 1, 3).flags.c_contiguous
    expect(out, whole(q, q, q)[0])
    wide = fused_attention(q, q, rng.normal(size=(2, 4, 5, 7))).data
    assert wide.transpose(0, 2, 1, 3).flags.c_contiguous


@pytest.mark.parametrize("chunk", [0, -2])
def test_a_chunk_of_nothing_is_refused(chunk, rng):
    with expect_error(ValueError, str(chunk)):
        fused_attention(*drawn(rng, 1, 1, 1, 2, 2), chunk=chunk)
