"""Level 1: a cache for keys and values, the layer with many heads, and what they cost."""

import math

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.attention import (
    KVCache,
    MultiHeadAttention,
    cache_bytes,
    causal_mask,
    padding_mask,
    score_bytes,
)
from tinytorch.autograd import no_grad
from tinytorch.embeddings import Rotary
from tinytorch.layers import Linear, summary
from tinytorch.tensor import Tensor


def f32(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


# 13.12 KVCache.append


def test_a_cache_gives_back_all_it_was_given(rng):
    k, v = f32(rng, 2, 3, 11, 4), f32(rng, 2, 3, 11, 5)
    cache, start = KVCache(), 0
    expect(cache.length, 0)
    for end in (1, 2, 3, 7, 7, 11):
        every = cache.append(k[:, :, start:end], v[:, :, start:end])
        start = end
        expect(every, (k[:, :, :end], v[:, :, :end]))
        expect(cache.length, end)


def test_a_cache_takes_tensors_and_gives_arrays(rng):
    k = f32(rng, 1, 1, 2, 3)
    got = KVCache().append(Tensor(k), Tensor(2 * k))
    expect([type(x) for x in got], [np.ndarray, np.ndarray])
    expect(got, (k, 2 * k))


def test_what_was_given_stays_the_callers(rng):
    """A cache that keeps the array itself would write the next tokens over somebody else's."""
    cache, k = KVCache(), f32(rng, 1, 1, 2, 3)
    mine = k.copy()
    got, _ = cache.append(mine, mine)
    mine[:] = 7
    expect(got, k)
    cache.append(k[:, :, :1] + 1, k[:, :, :1])
    expect(mine, np.full_like(k, 7))


def test_views_that_were_handed_out_stay_as_they_are(rng):
    cache, before = KVCache(), []
    for _ in range(9):
        k = f32(rng, 1, 2, 1, 3)
        got, _ = cache.append(k, k)
        before.append((got, got.copy()))
    cache.select([0, 0])
    cache.append(f32(rng, 2, 2, 1, 3), f32(rng, 2, 2, 1, 3))
    for view, copy in before:
        expect(view, copy)


@pytest.mark.parametrize("rows", [[1, 0], [0, 0], [0, 1]], ids=str)
def test_views_stay_as_they_are_where_rows_change_places(rows, rng):
    cache, k = KVCache(), f32(rng, 2, 1, 3, 2)
    got = cache.append(k, 2 * k)
    cache.select(rows)
    expect(got, (k, 2 * k))
    more = f32(rng, 2, 1, 1, 2)
    every = cache.append(more, more)
    expect(every, tuple(np.concatenate([x[rows], more], axis=2) for x in (k, 2 * k)))
    expect(got, (k, 2 * k))


def test_a_cache_hands_out_views(rng):
    cache = KVCache()
    k = f32(rng, 1, 1, 5, 3)
    first, _ = cache.append(k, k)
    second, _ = cache.append(k[:, :, :1], k[:, :, :1])
    third, _ = cache.append(k[:, :, :1], k[:, :, :1])
    assert not np.shares_memory(first, k)
    assert np.shares_memory(second, third)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_cache_keeps_the_dtype_of_what_comes_first(dtype):
    k = np.ones((1, 1, 1, 2), dtype)
    expect(KVCache().append(k, k)[0].dtype, np.dtype(dtype))


def test_a_cache_may_start_with_nothing(rng):
    cache, k = KVCache(), f32(rng, 1, 1, 2, 3)
    cache.append(k[:, :, :0], k[:, :, :0])
    expect(cache.append(k, k), (k, k))
    expect(cache.length, 2)


@pytest.mark.parametrize(
    ("k", "v"),
    [
        ((2, 2, 1, 4), (2, 2, 1, 4)),
        ((1, 3, 1, 4), (1, 3, 1, 4)),
        ((1, 2, 1, 5), (1, 2, 1, 4)),
        ((1, 2, 1, 4), (1, 2, 1, 6)),
        ((1, 2, 1, 4), (1, 2, 2, 4)),
        ((1, 2, 4), (1, 2, 4)),
    ],
    ids=str,
)
def test_what_does_not_fit_the_cache_is_refused_and_changes_nothing(k, v):
    cache = KVCache()
    cache.append(np.ones((1, 2, 3, 4)), np.ones((1, 2, 3, 4)))
    wrong = k if k != (1, 2, 1, 4) else v
    with expect_error(ValueError, str(wrong)):
        cache.append(np.zeros(k), np.zeros(v))
    expect(cache.length, 3)
    expect(cache.append(np.ones((1, 2, 1, 4)), np.ones((1, 2, 1, 4)))[0], np.ones((1, 2, 4, 4)))


@pytest.mark.parametrize("shape", [(1, 2, 1, 4), (3, 1, 1, 4), (3, 2, 1, 1)], ids=str)
def test_what_numpy_would_stretch_is_refused_too(shape):
    cache, k = KVCache(), np.ones((3, 2, 2, 4))
    cache.append(k, k)
    for new in ((np.zeros(shape), np.zeros(shape)), (k, np.zeros((*shape[:2], 2, shape[3])))):
        with expect_error(ValueError, str(new[1].shape)):
            cache.append(*new)
    expect(cache.append(k, k)[1], np.ones((3, 2, 4, 4)))


def test_other_dtypes_are_refused():
    cache, k = KVCache(), np.ones((1, 1, 1, 2), np.float32)
    cache.append(k, k)
    with expect_error(TypeError, "float32", "float64"):
        cache.append(k.astype(np.float64), k.astype(np.float64))
    with expect_error(TypeError, "float32", "float64"):
        KVCache().append(k, k.astype(np.float64))


def test_a_gradient_that_would_get_lost_is_refused(rng):
    k = f32(rng, 1, 1, 1, 2)
    for some in ((Tensor(k, True), k), (k, Tensor(k, True))):
        cache = KVCache()
        with expect_error(RuntimeError):
            cache.append(*some)
        expect(cache.length, 0)


# 13.13 KVCache.nbytes, select, reset


def test_a_cache_knows_the_memory_it_holds(rng):
    cache = KVCache()
    expect(cache.nbytes, 0)
    cache.append(f32(rng, 2, 3, 5, 4), f32(rng, 2, 3, 5, 6))
    assert 2 * 3 * 5 * (4 + 6) * 4 <= cache.nbytes <= 2 * 2 * 3 * 5 * (4 + 6) * 4


def test_a_cache_never_holds_more_than_twice_what_is_in_it(rng):
    """It doubles when it is full, so right after that nearly half of it is empty."""
    cache = KVCache()
    for length in range(1, 41):
        cache.append(f32(rng, 1, 1, 1, 2), f32(rng, 1, 1, 1, 3))
        assert length * 5 * 4 <= cache.nbytes <= 2 * length * 5 * 4, f"{cache.nbytes} bytes for {length}"


@pytest.mark.parametrize("rows", [[1], [2, 0], [0, 0, 2, 2], [], np.array([2, 1])], ids=str)
def test_rows_of_the_batch_are_kept_in_any_order(rows, rng):
    """Beam search goes on from some of its texts, and drops others."""
    cache, k, v = KVCache(), f32(rng, 3, 2, 4, 3), f32(rng, 3, 2, 4, 3)
    cache.append(k, v)
    cache.select(rows)
    expect(cache.length, 4)
    more = f32(rng, len(rows), 2, 1, 3)
    every = cache.append(more, 2 * more)
    rows = np.asarray(rows, int)
    expect(every, (np.concatenate([k[rows], more], 2), np.concatenate([v[rows], 2 * more], 2)))


@pytest.mark.parametrize("tokens", [1, 2, 3, 5])
def test_a_row_that_is_kept_twice_goes_its_own_ways(tokens, rng):
    """Whether the next token finds room or not."""
    cache, k = KVCache(), f32(rng, 1, 1, tokens, 3)
    for i in range(tokens):
        cache.append(k[:, :, i : i + 1], k[:, :, i : i + 1])
    cache.select([0, 0])
    more = f32(rng, 2, 1, 1, 3)
    got, _ = cache.append(more, more)
    expect(got, np.concatenate([np.concatenate([k, k]), more], axis=2))


def test_a_row_that_is_not_there_is_refused(rng):
    cache, k = KVCache(), f32(rng, 2, 1, 1, 3)
    cache.append(k, k)
    for wrong in (2, -1, -3):
        with expect_error(IndexError, str(wrong)):
            cache.select([0, wrong])
    expect(cache.append(k, k), (np.concatenate([k, k], axis=2),) * 2)


def test_caches_know_nothing_of_each_other(rng):
    k = f32(rng, 1, 1, 2, 3)
    one, other = KVCache(), KVCache()
    one.append(k, k)
    expect((one.length, other.length, other.nbytes), (2, 0, 0))
    expect(other.append(2 * k, 3 * k), (2 * k, 3 * k))
    expect(one.append(k, k)[0], np.concatenate([k, k], axis=2))
    other.reset()
    expect(one.append(k, k)[1], np.concatenate([k, k, k], axis=2))


def test_views_outlive_a_reset(rng):
    cache, k = KVCache(), f32(rng, 1, 1, 3, 2)
    got = cache.append(k, k)
    cache.reset()
    cache.append(k + 1, k + 1)
    expect(got, (k, k))


def test_a_reset_cache_is_as_good_as_new(rng):
    cache, k = KVCache(), f32(rng, 2, 1, 3, 3)
    got, _ = cache.append(k, k)
    cache.reset()
    expect((cache.length, cache.nbytes), (0, 0))
    other = f32(rng, 1, 4, 2, 5).astype(np.float64)
    expect(cache.append(other, other), (other, other))
    expect(got, k)


# 13.14 MultiHeadAttention.__init__


def test_one_layer_makes_queries_keys_and_values(rng):
    layer = MultiHeadAttention(12, 4, rng=rng)
    shapes = {name: p.shape for name, p in layer.named_parameters()}
    expect(
        shapes,
        {
            "qkv_proj.weight": (36, 12),
            "qkv_proj.bias": (36,),
            "out_proj.weight": (12, 12),
            "out_proj.bias": (12,),
        },
    )
    assert isinstance(layer.qkv_proj, Linear)
    expect((layer.num_heads, layer.num_kv_heads, layer.head_dim), (4, 4, 3))


def test_grouped_queries_need_fewer_keys_and_values(rng):
    layer = MultiHeadAttention(12, 4, 2, bias=False, rng=rng)
    shapes = {name: p.shape for name, p in layer.named_parameters()}
    expect(shapes, {"qkv_proj.weight": (24, 12), "out_proj.weight": (12, 12)})
    expect((layer.num_heads, layer.num_kv_heads, layer.head_dim), (4, 2, 3))


def test_weights_come_from_the_generator():
    one, same = (MultiHeadAttention(4, 2, rng=np.random.default_rng(5)) for _ in range(2))
    for a, b in zip(one.parameters(), same.parameters(), strict=True):
        expect(a.data, b.data)
    expect(one.qkv_proj.weight.data, Linear(4, 12, rng=np.random.default_rng(5)).weight.data)


def test_both_projections_are_drawn_one_after_the_other():
    layer, rng = MultiHeadAttention(4, 2, rng=np.random.default_rng(5)), np.random.default_rng(5)
    for mine, own in ((Linear(4, 12, rng=rng), layer.qkv_proj), (Linear(4, 4, rng=rng), layer.out_proj)):
        expect((own.weight.data, own.bias.data), (mine.weight.data, mine.bias.data))


@pytest.mark.parametrize(
    ("numbers", "mentions"),
    [
        ((10, 4), "4 10"),
        ((12, 4, 3), "3 4"),
        ((12, 2, 4), "4 2"),
        ((12, 0), "0 12"),
        ((12, 4, 0), "0 4"),
        ((12, -4), "-4 12"),
        ((12, 4, -2), "-2 4"),
    ],
    ids=str,
)
def test_heads_that_do_not_divide_are_refused(numbers, mentions, rng):
    with expect_error(ValueError, *mentions.split()):
        MultiHeadAttention(*numbers, rng=rng)


def test_it_says_what_it_is(rng):
    text = repr(MultiHeadAttention(12, 4, 2, rng=rng))
    assert all(part in text for part in ("MultiHeadAttention", "num_heads=4", "num_kv_heads=2", "qkv_proj"))


# 13.15 MultiHeadAttention.heads


def test_queries_come_first_then_keys_then_values(rng):
    layer = MultiHeadAttention(4, 2, 1, rng=rng)
    x = f32(rng, 3, 5, 4)
    every = x @ layer.qkv_proj.weight.data.T + layer.qkv_proj.bias.data
    q, k, v = layer.heads(Tensor(x))
    expect([t.shape for t in (q, k, v)], [(3, 2, 5, 2), (3, 1, 5, 2), (3, 1, 5, 2)])
    expect((q.data[:, 0], q.data[:, 1]), (every[..., :2], every[..., 2:4]))
    expect((k.data[:, 0], v.data[:, 0]), (every[..., 4:6], every[..., 6:]))


def test_queries_and_keys_are_turned_and_values_are_not(rng):
    turn = Rotary(4, 16)
    layer = MultiHeadAttention(8, 2, rotary=turn, rng=rng)
    plain = MultiHeadAttention(8, 2, rng=rng)
    plain.load_state_dict(layer.state_dict())
    x = Tensor(f32(rng, 2, 3, 8))
    q, k, _ = plain.heads(x)
    expect([t.data for t in layer.heads(x)[:2]], [turn(q).data, turn(k).data])
    for offset in (0, 5):
        q, k, v = plain.heads(x)
        turned = layer.heads(x, offset)
        expect([t.data for t in turned], [turn(q, offset=offset).data, turn(k, offset=offset).data, v.data])


# 13.16 MultiHeadAttention.forward, attention_maps


def by_hand(layer, x, allowed=True):
    """One head after the other, in plain numpy; also the weights."""
    d, h, kv = layer.head_dim, layer.num_heads, layer.num_kv_heads
    every = x @ layer.qkv_proj.weight.data.T.astype(np.float64) + layer.qkv_proj.bias.data
    allowed = np.broadcast_to(allowed, (len(x), h, x.shape[1], x.shape[1]))
    found, maps = [], []
    for head in range(h):
        q = every[..., head * d : (head + 1) * d]
        k = every[..., (h + head // (h // kv)) * d :][..., :d]
        v = every[..., (h + kv + head // (h // kv)) * d :][..., :d]
        shares = np.where(allowed[:, head], np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(d)), 0)
        maps.append(shares / shares.sum(axis=-1, keepdims=True))
        found.append(maps[-1] @ v)
    out = np.concatenate(found, axis=-1) @ layer.out_proj.weight.data.T + layer.out_proj.bias.data
    return out.astype(np.float32), np.stack(maps, axis=1).astype(np.float32)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 4), (4, 2), (4, 1)])
def test_it_is_what_each_head_finds_side_by_side(fused, heads, kv_heads, rng):
    layer = MultiHeadAttention(8, heads, kv_heads, rng=rng)
    layer.fused = fused
    x = f32(rng, 2, 5, 8)
    mask = padding_mask([5, 3], 5)
    for params, allowed in (
        ({}, True),
        ({"is_causal": True}, causal_mask(5)),
        ({"mask": mask}, mask),
        ({"mask": mask, "is_causal": True}, mask & causal_mask(5)),
        ({}, True),  # nothing is left of the masks before
    ):
        out, maps = by_hand(layer, x, allowed)
        expect(layer(Tensor(x), **params).data, out)
        expect(layer.attention_maps(Tensor(x), **params), maps)


def test_it_is_fused_unless_told(rng):
    layer, other = (MultiHeadAttention(4, 2, rng=rng) for _ in range(2))
    assert layer.fused is True
    other.fused = False
    assert layer.fused is True
    assert MultiHeadAttention(4, 2, rng=rng).fused is True


def test_maps_are_of_queries_and_keys_that_were_turned(rng):
    layer, x = MultiHeadAttention(8, 2, 1, rotary=Rotary(4, 5), rng=rng), Tensor(f32(rng, 1, 5, 8))
    q, k, _ = (part.data.astype(np.float64) for part in layer.heads(x))
    shares = np.exp(q @ k.swapaxes(2, 3) / math.sqrt(4))
    expect(layer.attention_maps(x), (shares / shares.sum(axis=-1, keepdims=True)).astype(np.float32))


def test_maps_are_those_of_the_weights_that_there_are(rng):
    layer, x = MultiHeadAttention(4, 2, rng=rng), f32(rng, 1, 3, 4)
    same = Tensor(x)
    for _ in range(2):
        expect(layer.attention_maps(same), by_hand(layer, x)[1])
        layer.qkv_proj.weight.data *= -2
        x *= 2


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("pieces", [[6], [1] * 6, [3, 1, 2], [5, 1]], ids=str)
def test_piece_by_piece_with_a_cache_is_as_good_as_at_once(fused, pieces, rng):
    layer = MultiHeadAttention(12, 3, 1, rotary=Rotary(4, 8), rng=rng)
    layer.fused = fused
    x = f32(rng, 2, 6, 12)
    cache, start, outs = KVCache(), 0, []
    with no_grad():
        for n in pieces:
            outs.append(layer(Tensor(x[:, start : start + n]), is_causal=True, cache=cache).data)
            start += n
        whole = layer(Tensor(x), is_causal=True).data
    expect(np.concatenate(outs, axis=1), whole)
    expect(cache.length, 6)


def test_a_text_may_be_as_long_as_the_tables_that_turn_it(rng):
    layer = MultiHeadAttention(8, 2, rotary=Rotary(4, 5), rng=rng)
    x = f32(rng, 1, 5, 8)
    with no_grad():
        whole = layer(Tensor(x), is_causal=True).data
        cache = KVCache()
        pieces = [layer(Tensor(x[:, i : i + 1]), is_causal=True, cache=cache).data for i in range(4)]
        with expect_error(ValueError, "5"):
            layer(Tensor(x[:, 3:]), is_causal=True, cache=cache)  # to position 6
        expect(cache.length, 4)
        pieces.append(layer(Tensor(x[:, 4:]), is_causal=True, cache=cache).data)
    expect(np.concatenate(pieces, axis=1), whole)


def test_with_a_cache_the_mask_is_about_all_keys(rng):
    """Texts that are padded on the left, and one more token."""
    layer = MultiHeadAttention(8, 4, rng=rng)
    x = f32(rng, 2, 5, 8)
    mask, cache = padding_mask([5, 3], 5, "left"), KVCache()
    with no_grad():
        whole = layer(Tensor(x), mask, True).data
        layer(Tensor(x[:, :4]), mask[..., :4], True, cache)
        expect(layer(Tensor(x[:, 4:]), mask, True, cache).data, whole[:, 4:])


@pytest.mark.parametrize("fused", [True, False])
def test_with_a_cache_all_is_seen_unless_told(fused, rng):
    """Two tokens that come together see each other, as they do without a cache."""
    layer, x, cache = MultiHeadAttention(8, 2, rng=rng), f32(rng, 1, 5, 8), KVCache()
    layer.fused = fused
    with no_grad():
        whole = layer(Tensor(x)).data
        layer(Tensor(x[:, :3]), cache=cache)
        expect(layer(Tensor(x[:, 3:]), cache=cache).data, whole[:, 3:])


@pytest.mark.parametrize("fused", [True, False])
def test_a_mask_that_does_not_fit_leaves_the_cache_as_it_was(fused, rng):
    layer, x, cache = MultiHeadAttention(8, 2, rng=rng), f32(rng, 2, 3, 8), KVCache()
    layer.fused = fused
    with no_grad():
        layer(Tensor(x), is_causal=True, cache=cache)
        for mask, kind in (
            (np.ones((3, 3), bool), ValueError),  # of the new ones only
            (padding_mask([3, 3, 3], 6), ValueError),
            (np.ones((3, 6)), TypeError),
        ):
            for is_causal in (True, False):
                with expect_error(kind):
                    layer(Tensor(x), mask, is_causal, cache)
                expect(cache.length, 3)
        new = KVCache()
        with expect_error(ValueError, "(4,)"):
            layer(Tensor(x), np.ones(4, bool), cache=new)
        expect((new.length, new.nbytes), (0, 0))


class Forgets:
    """A cache that hands out two of the earlier positions at most, and the new ones."""

    def __init__(self):
        self.whole, self.length = KVCache(), 0

    def positions(self, new=0):
        return np.arange(self.length + new)[-2 - new :]

    def append(self, k, v):
        seen = self.positions(k.shape[2])
        every = self.whole.append(k, v)
        self.length = self.whole.length
        return [x[:, :, seen] for x in every]


@pytest.mark.parametrize("fused", [True, False])
def test_a_cache_may_forget_and_then_the_mask_is_about_what_it_hands_out(fused, rng):
    """As a whole cache and a mask that hides the two positions that were forgotten."""
    layer, x = MultiHeadAttention(8, 2, rng=rng), f32(rng, 1, 6, 8)
    layer.fused = fused
    mask = np.array([[True, False, True, True], [False, True, True, True]])  # of 2 queries, for 4 of 6 keys
    forgets, whole = Forgets(), KVCache()
    with no_grad():
        for cache in (forgets, whole):
            layer(Tensor(x[:, :4]), cache=cache)
        with expect_error(ValueError, "(2, 6)"):
            layer(Tensor(x[:, 4:]), np.ones((2, 6), bool), cache=forgets)
        expect(forgets.length, 4)
        found = layer(Tensor(x[:, 4:]), mask, cache=forgets).data
        hidden = np.concatenate([np.zeros((2, 2), bool), mask], axis=1)
        expect(found, layer(Tensor(x[:, 4:]), hidden, cache=whole).data)


def test_a_cache_holds_as_many_heads_as_there_are_keys(rng):
    layer, cache = MultiHeadAttention(16, 8, 2, rng=rng), KVCache()
    with no_grad():
        layer(Tensor(f32(rng, 3, 4, 16)), cache=cache)
    assert cache_bytes(3, 2, 4, 2) <= cache.nbytes <= 2 * cache_bytes(3, 2, 4, 2)


def test_without_no_grad_a_cache_is_refused(rng):
    layer = MultiHeadAttention(4, 2, rng=rng)
    with expect_error(RuntimeError):
        layer(Tensor(f32(rng, 1, 2, 4)), cache=KVCache())


# 13.17 score_bytes, cache_bytes, MultiHeadAttention.flops


def test_scores_take_memory_by_the_square():
    expect(score_bytes(1, 1, 1, 1), 4)
    expect(score_bytes(2, 12, 1024, 1024), 2 * 12 * 1024 * 1024 * 4)  # 96 MiB
    expect(score_bytes(3, 5, 7, 11, itemsize=2), 3 * 5 * 7 * 11 * 2)


def test_a_cache_takes_memory_by_the_token():
    expect(cache_bytes(1, 1, 1, 1), 8)
    expect(cache_bytes(2, 3, 5, 7, layers=11, itemsize=2), 2 * 2 * 3 * 5 * 7 * 11 * 2)


def test_operations_are_counted(rng):
    """Two products of each head, beside those of the projections, which count themselves."""
    layer = MultiHeadAttention(12, 3, 1, rng=rng)
    x = Tensor(f32(rng, 2, 5, 12))
    expect(layer.flops((x,), layer(x)), 2 * 3 * (2 * 5 * 5 * 4 + 2 * 5 * 5 * 4))
    rows = {path: flops for path, _, _, _, flops in summary(layer, x)}
    expect(rows, {"qkv_proj": 2 * 10 * 12 * 20, "out_proj": 2 * 10 * 12 * 12, "": 2 * 3 * 4 * 5 * 5 * 4})
