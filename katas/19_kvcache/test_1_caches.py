"""Level 1: what every cache promises, whatever it does inside, and a window's own rules.

Keys are compared by their positions, since a window may hand them out in any order where one query sees all.
"""

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from dojo.measuring import load_probes
from tinytorch.attention import MultiHeadAttention, fused_attention, padding_mask
from tinytorch.autograd import no_grad
from tinytorch.embeddings import Rotary
from tinytorch.generation import beam_search, generate, stream
from tinytorch.kvcache import (
    BlockPool,
    PagedCache,
    StaticCache,
    WindowCache,
    with_caches,
)
from tinytorch.tensor import Tensor

probes = load_probes(__file__)
Toy, by_hand = probes.Toy, probes.by_hand

# All with room for 64 positions of 4 rows at least.
KINDS = {
    "StaticCache": lambda: StaticCache(64),
    "WindowCache": lambda: WindowCache(64),
    "WindowCache with sinks": lambda: WindowCache(61, 3),
    "PagedCache": lambda: PagedCache(BlockPool(blocks=80, block_size=4)),
    "PagedCache with blocks of one": lambda: PagedCache(BlockPool(blocks=256, block_size=1)),
}
EVERY = pytest.mark.parametrize("kind", KINDS)


def some(rng, *shape, dtype=np.float32):
    return rng.normal(size=shape).astype(dtype)


def appended(cache, k, v):
    """What `append` returns, in the order of the text, and the positions."""
    places = cache.positions(k.shape[2])
    got = cache.append(k, v)
    expect([x.shape[2] for x in got], [len(places)] * 2)
    order = np.argsort(places)
    return [np.asarray(x)[:, :, order] for x in got], places[order].tolist()


# 19.1 StaticCache.append, 19.4 WindowCache.append, 19.9 PagedCache.write: what all promise


@EVERY
def test_a_cache_gives_back_all_it_was_given(kind, rng):
    k, v = some(rng, 3, 2, 21, 4), some(rng, 3, 2, 21, 5)
    cache, start = KINDS[kind](), 0
    expect(cache.length, 0)
    for end in (1, 2, 3, 7, 7, 12, 20, 21):
        got, places = appended(cache, k[:, :, start:end], v[:, :, start:end])
        start = end
        expect(got, [k[:, :, :end], v[:, :, :end]])
        expect((places, cache.length), (list(range(end)), end))
        expect(sorted(cache.positions().tolist()), list(range(end)))


@EVERY
def test_a_cache_takes_tensors_and_gives_arrays(kind, rng):
    k = some(rng, 1, 1, 2, 3)
    got = KINDS[kind]().append(Tensor(k), Tensor(2 * k))
    expect([type(x) for x in got], [np.ndarray] * 2)
    expect(got, (k, 2 * k))


@EVERY
@pytest.mark.parametrize("new", [1, 3])
def test_what_was_given_stays_the_callers(kind, new, rng):
    cache, k = KINDS[kind](), some(rng, 1, 1, new, 3)
    mine = k.copy()
    cache.append(mine, mine)
    mine[:] = 7
    got, _ = appended(cache, k[:, :, :1] + 1, k[:, :, :1])
    expect(got[0], np.concatenate([k, k[:, :, :1] + 1], axis=2))
    expect(mine, np.full_like(k, 7))


@EVERY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_cache_keeps_the_dtype_of_what_comes_first(kind, dtype):
    cache, k = KINDS[kind](), np.ones((1, 1, 1, 2), dtype)
    expect(cache.append(k, k)[0].dtype, np.dtype(dtype))
    expect([x.dtype for x in cache.append(k, k)], [np.dtype(dtype)] * 2)


@EVERY
def test_keys_may_lie_in_memory_in_any_way(kind, rng):
    k = some(rng, 5, 6, 2, 4).transpose(1, 2, 0, 3)[::-1, :, ::-1, ::2]
    cache = KINDS[kind]()
    got, _ = appended(cache, k, -k)
    expect(got, [k, -k])
    got, _ = appended(cache, k[:, :, :1], -k[:, :, :1])
    expect(got, [np.concatenate([x, x[:, :, :1]], axis=2) for x in (k, -k)])


@EVERY
def test_a_cache_may_start_with_nothing(kind, rng):
    cache, k = KINDS[kind](), some(rng, 1, 1, 2, 3)
    expect([x.shape for x in cache.append(k[:, :, :0], k[:, :, :0])], [(1, 1, 0, 3)] * 2)
    expect(cache.append(k, k), (k, k))
    got, _ = appended(cache, k[:, :, :0], k[:, :, :0])
    expect(got, [k, k])
    expect(cache.length, 2)


@EVERY
@pytest.mark.parametrize(
    "shape", [(2, 2, 1, 4), (1, 3, 1, 4), (1, 2, 1, 5), (1, 2, 4), (1, 1, 1, 4)], ids=str
)
def test_what_does_not_fit_is_refused_and_changes_nothing(kind, shape, rng):
    cache, k = KINDS[kind](), some(rng, 1, 2, 3, 4)
    cache.append(k, k)
    held = cache.nbytes
    with expect_error(ValueError, str(shape)):
        cache.append(np.zeros(shape, np.float32), np.zeros(shape, np.float32))
    with expect_error(ValueError, str((1, 2, 2, 4))):
        cache.append(k[:, :, :2], k)
    with expect_error(TypeError, "float64"):
        cache.append(k.astype(np.float64), k.astype(np.float64))
    expect((cache.length, cache.nbytes), (3, held))
    got, _ = appended(cache, k, -k)
    expect(got[1], np.concatenate([k, -k], axis=2))


@EVERY
def test_a_gradient_that_would_get_lost_is_refused(kind, rng):
    cache, k = KINDS[kind](), some(rng, 1, 1, 1, 2)
    for pair in ((Tensor(k, True), k), (k, Tensor(k, True))):
        with expect_error(RuntimeError):
            cache.append(*pair)
    expect(cache.append(k, k), (k, k))


@EVERY
def test_attention_takes_a_cache_as_it_is(kind, rng):
    """Bit by bit with rotary positions, as at once."""
    layer = MultiHeadAttention(16, 4, 2, rotary=Rotary(4, 32), rng=rng)
    x, cache, outs = Tensor(some(rng, 2, 19, 16)), KINDS[kind](), []
    with no_grad():
        whole = layer(x, is_causal=True).data
        for start, end in ((0, 5), (5, 6), (6, 7), (7, 11), (11, 19)):
            outs.append(layer(x[:, start:end], is_causal=True, cache=cache).data)
    expect(np.concatenate(outs, axis=1), whole)


def test_a_static_cache_hands_out_views_of_memory_that_stays(rng):
    cache, k = StaticCache(4), some(rng, 1, 2, 1, 3)
    first = cache.append(k, -k)
    for i in range(2, 5):
        later = cache.append(i * k, k)
        assert all(np.shares_memory(a, b) for a, b in zip(first, later, strict=True))
    expect(first, (k, -k))


@pytest.mark.parametrize(("first", "then"), [(5, 1), (3, 2), (1, 9), (4, 2)])
def test_what_does_not_fit_a_static_cache_is_counted_and_changes_nothing(first, then, rng):
    cache, k = StaticCache(4), some(rng, 1, 1, 9, 2)
    if first <= 4:
        cache.append(k[:, :, :first], k[:, :, :first])
    held, rows, size = cache.length, cache.rows, cache.nbytes
    more = first if first > 4 else then
    with expect_error(ValueError, "4", str(more), str(held)):
        cache.append(k[:, :, :more], k[:, :, :more])
    expect((cache.length, cache.rows, cache.nbytes), (held, rows, size))
    rest = k[:, :, : 4 - held]
    expect(cache.append(rest, rest)[0].shape, (1, 1, 4, 2))
    expect(cache.append(k[:, :, :0], k[:, :, :0])[0].shape, (1, 1, 4, 2))


def test_rooms_that_hold_nothing_are_refused(rng):
    k = some(rng, 1, 1, 1, 1)
    for make in (lambda n: StaticCache(n), lambda n: WindowCache(n), lambda n: WindowCache(n, 5)):
        make(1).append(k, k)
        for wrong in (0, -3):
            with expect_error(ValueError, str(wrong)):
                make(wrong)
    WindowCache(1, 0).append(k, k)
    with expect_error(ValueError, "-2"):
        WindowCache(4, -2)


# 19.2 StaticCache.select, truncate, reset, nbytes, 19.11 those of PagedCache: what all promise


@EVERY
@pytest.mark.parametrize("rows", [[1], [2, 0], [2, 1, 0], [0, 0, 2, 2], [], np.array([2, 1, 1])], ids=str)
def test_rows_are_kept_in_any_order(kind, rows, rng):
    cache, k, v = KINDS[kind](), some(rng, 3, 2, 5, 3), some(rng, 3, 2, 5, 4)
    cache.append(k, v)
    cache.select(rows)
    expect((cache.length, cache.rows), (5, len(rows)))
    rows, past = np.asarray(rows, int), [k, v]
    past = [x[rows] for x in past]
    for new in (1, 2):
        more = [some(rng, len(rows), 2, new, 3), some(rng, len(rows), 2, new, 4)]
        past = [np.concatenate(pair, axis=2) for pair in zip(past, more, strict=True)]
        got, _ = appended(cache, *more)
        expect(got, past)


@EVERY
@pytest.mark.parametrize("tokens", [1, 3, 4, 5])
def test_a_row_that_is_kept_twice_goes_its_own_ways(kind, tokens, rng):
    cache, k = KINDS[kind](), some(rng, 1, 1, tokens, 3)
    cache.append(k, k)
    cache.select([0, 0])
    for _ in range(2):
        more = some(rng, 2, 1, 1, 3)
        got, _ = appended(cache, more, more)
        k = np.concatenate([np.broadcast_to(k, (2, 1, *k.shape[2:])), more], axis=2)
        expect(got[0], k)


@EVERY
def test_a_row_that_is_not_there_is_refused(kind, rng):
    cache, k = KINDS[kind](), some(rng, 2, 1, 3, 3)
    cache.append(k, k)
    for rows in ([0, 2], [0, 1, 2], [2]):
        with expect_error(IndexError, "2"):
            cache.select(rows)
        expect(cache.rows, 2)
    got, _ = appended(cache, k, k)
    expect(got[0], np.concatenate([k, k], axis=2))


@EVERY
def test_a_new_cache_has_no_rows_to_keep_and_stays_new(kind, rng):
    cache, k = KINDS[kind](), some(rng, 2, 1, 3, 3)
    for change in (lambda: cache.select([0, 3]), lambda: cache.truncate(0), cache.reset):
        change()
        expect((cache.length, cache.nbytes, cache.rows), (0, 0, None))
    expect(cache.append(k, k), (k, k))


@EVERY
@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 8])
def test_what_was_cut_was_never_there(kind, length, rng):
    cache, k, v = KINDS[kind](), some(rng, 2, 1, 8, 3), some(rng, 2, 1, 8, 3)
    cache.append(k[:, :, :5], v[:, :, :5])
    cache.append(k[:, :, 5:], v[:, :, 5:])
    cache.truncate(length)
    expect((cache.length, cache.rows), (length, 2))
    expect(sorted(cache.positions().tolist()), list(range(length)))
    for new in (1, 3):
        more = some(rng, 2, 1, new, 3)
        k, v = (np.concatenate([x[:, :, : cache.length], more], axis=2) for x in (k, v))
        got, _ = appended(cache, more, more)
        expect(got, [k, v])


@EVERY
def test_a_cache_that_was_cut_to_nothing_has_its_rows_still(kind, rng):
    """Only `reset` makes it as good as new, also for other rows."""
    cache, k = KINDS[kind](), some(rng, 2, 1, 3, 3)
    cache.append(k, k)
    held = cache.nbytes
    cache.truncate(0)
    if not kind.startswith("PagedCache"):  # whose blocks go back to the pool
        expect(cache.nbytes, held)
    with expect_error(ValueError, "(3, 1, 1, 3)"):
        cache.append(np.zeros((3, 1, 1, 3), np.float32), np.zeros((3, 1, 1, 3), np.float32))
    cache.select([1, 0, 1])
    expect(cache.rows, 3)
    k = k[[1, 0, 1]]
    expect(cache.append(k, k), (k, k))


@EVERY
@pytest.mark.parametrize("length", [-1, 4])
def test_a_cache_cannot_be_cut_to_more_than_it_has(kind, length, rng):
    cache, k = KINDS[kind](), some(rng, 1, 1, 3, 3)
    cache.append(k, k)
    with expect_error(ValueError, str(length), "3"):
        cache.truncate(length)
    cache.truncate(3)
    expect(cache.length, 3)


@EVERY
def test_a_reset_cache_is_as_good_as_new(kind, rng):
    cache, k = KINDS[kind](), some(rng, 2, 2, 7, 3)
    cache.append(k, k)
    cache.reset()
    expect((cache.length, cache.nbytes, cache.rows), (0, 0, None))
    other = some(rng, 3, 2, 2, 3)
    got, places = appended(cache, other, -other)
    expect((got, places), ([other, -other], [0, 1]))


@pytest.mark.parametrize("kind", ["StaticCache", "WindowCache", "WindowCache with sinks"])
def test_a_reset_cache_of_its_own_memory_takes_rows_of_any_make(kind, rng):
    cache, k = KINDS[kind](), some(rng, 2, 2, 7, 3)
    cache.append(k, k)
    cache.reset()
    other = some(rng, 1, 4, 2, 5, dtype=np.float64)
    expect(cache.append(other, other), (other, other))


def test_a_cache_knows_the_memory_it_holds(rng):
    """Of 8 positions, or of as many blocks as 5 need, of 2 rows, 3 heads, 4 + 6 numbers, 4 bytes."""
    k, v = some(rng, 2, 3, 5, 4), some(rng, 2, 3, 5, 6)
    for cache, least, most in (
        (StaticCache(8), 8, 8),
        (WindowCache(8), 8, 16),
        (WindowCache(6, 2), 8, 16),
        (PagedCache(BlockPool(30, 4)), 8, 8),
        (PagedCache(BlockPool(30, 3)), 6, 6),
    ):
        cache.append(k, v)
        each = 2 * 3 * (4 + 6) * 4
        assert least * each <= cache.nbytes <= most * each, (cache, cache.nbytes / each)


# 19.3 WindowCache.positions, 19.4 WindowCache.append


def seen_by(last, window, sinks):
    """The positions that the position `last` sees."""
    return {p for p in range(last + 1) if p < sinks or p > last - window}


@pytest.mark.parametrize(("window", "sinks"), [(1, 0), (3, 0), (4, 1), (2, 3), (5, 2), (1, 2)])
@pytest.mark.parametrize(
    "steps", [(1,) * 12, (2, 1, 3, 1, 1, 4), (9, 1, 2), (1, 5, 5, 1), (3, 3, 3, 3), (7, 8)]
)
def test_a_window_returns_what_its_new_positions_see(window, sinks, steps, rng):
    cache, end = WindowCache(window, sinks), sum(steps)
    k, v, start = some(rng, 2, 2, end, 3), some(rng, 2, 2, end, 4), 0
    for new in steps:
        stop = start + new
        places = cache.positions(new).tolist()
        seen = set().union(*(seen_by(i, window, sinks) for i in range(start, stop)))
        expect(sorted(places), sorted(seen | set(range(min(sinks, stop)))))
        if new > 1:
            expect(places[-new:], list(range(start, stop)))
        got, _ = appended(cache, k[:, :, start:stop], v[:, :, start:stop])
        expect(got, [k[:, :, sorted(places)], v[:, :, sorted(places)]])
        start = stop
        expect(cache.length, stop)
        held = {p for p in range(stop) if p < sinks or p >= stop - window}
        expect(sorted(cache.positions().tolist()), sorted(held))
        got, _ = appended(cache, k[:, :, :0], v[:, :, :0])
        expect(got, [k[:, :, sorted(held)], v[:, :, sorted(held)]])


def test_positions_by_hand(rng):
    """A window of 3 and a sink, 6 positions in: it holds 0, 3, 4 and 5."""
    cache = WindowCache(3, sinks=1)
    expect((cache.positions().tolist(), cache.positions(1).tolist()), ([], [0]))
    expect(cache.positions(5).tolist(), [0, 1, 2, 3, 4])  # all of them are new
    cache.append(some(rng, 1, 1, 6, 1), some(rng, 1, 1, 6, 1))
    expect(sorted(cache.positions().tolist()), [0, 3, 4, 5])
    expect(sorted(cache.positions(1).tolist()), [0, 4, 5, 6])
    expect(sorted(cache.positions(2).tolist()), [0, 4, 5, 6, 7])
    expect(sorted(cache.positions(6).tolist()), [0, 4, *range(5, 12)])
    expect(cache.positions(6)[-6:].tolist(), list(range(6, 12)))


def test_a_window_never_grows(rng):
    cache, sizes, lengths = WindowCache(5, 2), set(), set()
    for new in (1, 9, 1, 30, 2, 1, 1):
        k = some(rng, 1, 1, new, 2)
        cache.append(k, k)
        sizes.add(cache.nbytes)
        lengths.add(len(cache.positions()))
    expect((len(sizes), max(lengths), cache.length), (1, 7, 45))


@pytest.mark.parametrize("rows", [[1], [1, 0], [0, 0, 1]], ids=str)
def test_rows_of_a_window_that_has_forgotten_are_kept(rows, rng):
    cache, k = WindowCache(3, 1), some(rng, 2, 1, 9, 2)
    for i in range(9):
        cache.append(k[:, :, i : i + 1], -k[:, :, i : i + 1])
    cache.select(rows)
    more = some(rng, len(rows), 1, 2, 2)
    got, places = appended(cache, more, -more)
    expect(places, [0, 7, 8, 9, 10])
    expect(got[0], np.concatenate([k[rows][:, :, [0, 7, 8]], more], axis=2))


# 19.5 WindowCache.fit


@pytest.mark.parametrize(("window", "sinks"), [(1, 0), (3, 0), (3, 2), (2, 1), (20, 0)])
@pytest.mark.parametrize(("past", "new"), [(0, 4), (2, 2), (5, 3), (9, 2), (4, 9), (0, 1), (7, 1)])
def test_each_of_several_positions_has_a_window_of_its_own(window, sinks, past, new, rng):
    cache = WindowCache(window, sinks)
    k = some(rng, 1, 1, past, 1)
    cache.append(k, k)
    places, mask = cache.positions(new), cache.fit(None, new)
    if new == 1:
        assert mask is None
        return
    expect((mask.dtype, mask.shape), (np.dtype(bool), (new, len(places))))
    for row, query in zip(mask, range(past, past + new), strict=True):
        seen = {int(p) for p, sees in zip(places, row, strict=True) if sees and p <= query}
        expect(sorted(seen), sorted(seen_by(query, window, sinks)))


@pytest.mark.parametrize("new", [1, 2, 4])
@pytest.mark.parametrize("shape", ["rows", "queries"])
def test_a_mask_about_all_positions_becomes_one_about_those_that_come_back(new, shape, rng):
    cache = WindowCache(3, 1)
    k = some(rng, 2, 1, 8, 1)
    for i in range(8):
        cache.append(k[:, :, i : i + 1], k[:, :, i : i + 1])
    places, total = cache.positions(new), 8 + new
    if shape == "rows":
        given = padding_mask([total, total - 6], total, side="left")
    else:
        given = rng.random((2, 1, new, total)) < 0.5
    before = given.copy()
    got = np.broadcast_to(cache.fit(given, new), (2, 1, new, len(places)))
    given = np.broadcast_to(given, (2, 1, new, total))
    for row in range(2):
        for i in range(new):
            for j, p in enumerate(places.tolist()):
                if p <= 8 + i:
                    wanted = given[row, 0, i, p] and p in seen_by(8 + i, 3, 1)
                    assert got[row, 0, i, j] == wanted, (row, i, p)
    expect(given[..., :1, :], np.broadcast_to(before, given.shape)[..., :1, :])


def test_a_mask_may_be_a_tensor(rng):
    cache, mask = WindowCache(4), np.array([[True, False, True]])
    expect(np.asarray(cache.fit(Tensor(mask), 3) & np.tri(3, dtype=bool)), np.tri(3, dtype=bool) & mask)


def test_a_window_and_its_mask_are_attention_with_a_band(rng):
    """The same numbers as all keys with a mask of the band."""
    q, k, v = some(rng, 1, 2, 15, 4), some(rng, 1, 2, 15, 4), some(rng, 1, 2, 15, 4)
    band = np.array([[p in seen_by(i, 4, 2) for p in range(15)] for i in range(15)])
    whole = fused_attention(q, k, v, mask=band).data
    cache, outs = WindowCache(4, 2), []
    for start, end in ((0, 3), (3, 8), (8, 9), (9, 10), (10, 15)):
        mask = cache.fit(None, end - start)
        keys, values = cache.append(k[:, :, start:end], v[:, :, start:end])
        outs.append(fused_attention(q[:, :, start:end], keys, values, mask=mask, is_causal=True).data)
    expect(np.concatenate(outs, axis=2), whole)


# 19.6 WindowCache.truncate


@pytest.mark.parametrize(("window", "sinks"), [(1, 0), (3, 0), (3, 2), (2, 4)])
@pytest.mark.parametrize("length", range(8))
def test_a_window_goes_back_as_far_as_it_remembers(window, sinks, length, rng):
    k = some(rng, 1, 1, 12, 2)
    held = {p for p in range(length) if p < sinks or p >= length - window}
    for back in range(length + 1):
        cache = WindowCache(window, sinks)
        for i in range(length):
            cache.append(k[:, :, i : i + 1], k[:, :, i : i + 1])
        needed = {p for p in range(back) if p < sinks or p >= back - window}
        if not needed <= held:
            with expect_error(ValueError, str(length), str(back)):
                cache.truncate(back)
            back = length
        else:
            cache.truncate(back)
        expect(cache.length, back)
        got, places = appended(cache, k[:, :, back : back + 1], k[:, :, back : back + 1])
        expect(set(places), seen_by(back, window, sinks))
        expect(got[0], k[:, :, places])
        got, places = appended(cache, k[:, :, back + 1 : back + 3], k[:, :, back + 1 : back + 3])
        expect(got[0], k[:, :, places])


# 19.7 CachedModel


def test_a_model_makes_its_own_caches_one_for_each_of_the_models():
    for layers in (1, 3):
        model = with_caches(Toy(layers=layers), lambda: StaticCache(9))
        one, other = model.new_caches(), model.new_caches()
        expect([(type(c), c.max_length, c.length) for c in one], [(StaticCache, 9, 0)] * layers)
        expect(len({id(c) for c in one + other}), 2 * layers)


def test_a_model_without_caches_is_the_model_itself(rng):
    inner = probes.small_gpt(rng)
    model, ids = with_caches(inner, lambda: StaticCache(9)), rng.integers(0, 31, (2, 7))
    expect(model(ids).data, inner(ids).data)
    mask, places = padding_mask([7, 4], 7, side="left"), np.maximum(np.arange(7) - [[0], [3]], 0)
    expect(model(ids, mask=mask, positions=places).data, inner(ids, mask=mask, positions=places).data)
    expect(model.config, inner.config)
    expect(len(list(model.parameters())), len(list(inner.parameters())))


def test_a_model_with_caches_reads_ids_of_any_kind(rng):
    inner = probes.small_gpt(rng)
    model, ids = with_caches(inner, lambda: StaticCache(9)), rng.integers(0, 31, (2, 7))
    with no_grad():
        for same in (ids.tolist(), Tensor(ids), ids.astype(np.uint8)):
            expect(model(same, caches=model.new_caches()).data, inner(ids).data)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_caches_that_are_not_one_for_each_block_are_the_models_to_refuse(count, rng):
    model = with_caches(probes.small_gpt(rng), lambda: StaticCache(9))
    expect(len(model.new_caches()), 2)
    with no_grad(), expect_error(ValueError, str(count), "2"):
        model(np.zeros((1, 2), int), caches=[StaticCache(9) for _ in range(count)])


@EVERY
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_every_cache_writes_exactly_the_same_tokens(kind, positions, rng):
    """As without any: for rows of one length and of several, and when the model's window moves."""
    model = probes.small_gpt(rng, context=48, positions=positions)
    ids, cached = rng.integers(0, 31, (3, 9)), with_caches(model, KINDS[kind])
    expect(generate(cached, ids, 36), generate(model, ids, 36, use_cache=False))
    expect(generate(cached, ids, 60), generate(model, ids, 60))
    if kind != "WindowCache with sinks":  # whose sinks would be padding
        shorter = {"lengths": [9, 4, 6]}
        expect(generate(cached, ids, 50, **shorter), generate(model, ids, 50, **shorter))
    draws = [
        generate(one, ids, 20, rng=np.random.default_rng(3), processors=[lambda logits, ids: logits / 4])
        for one in (model, cached)
    ]
    expect(draws[1], draws[0])


@EVERY
def test_every_cache_follows_a_beam_search(kind, rng):
    model = probes.small_gpt(rng)
    ids, cached = rng.integers(0, 31, (1, 5)), with_caches(model, KINDS[kind])
    for (mine, score), (theirs, other) in zip(
        beam_search(cached, ids, 25, 4), beam_search(model, ids, 25, 4, use_cache=False), strict=True
    ):
        expect(mine, theirs)
        expect(score, other, rtol=1e-4)


@pytest.mark.parametrize(("window", "sinks"), [(5, 0), (4, 2), (1, 0), (2, 5)])
def test_a_window_writes_what_a_model_with_a_band_writes(window, sinks):
    toy = Toy()
    model, row = with_caches(toy, lambda: WindowCache(window, sinks)), [3, 1, 4, 1, 5, 2, 6]
    expect(generate(model, [row], 40)[0].tolist(), by_hand(toy, row, 40, window, sinks))


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_a_model_reads_into_a_full_window_in_chunks_as_token_by_token(positions, rng):
    """Two rows, one of them padded, so that there is a mask about positions that the window has forgotten."""
    ids = rng.integers(0, 31, (2, 16))
    mask = np.ones((2, 1, 1, 16), bool)
    mask[1, ..., 2:5] = False
    model = with_caches(probes.small_gpt(rng, positions=positions), lambda: WindowCache(4, 1))
    ends = {}
    for chunk in (1, 3, 5):
        caches = model.new_caches()
        with no_grad():
            for start in range(0, 16, chunk):
                end = min(start + chunk, 16)
                logits = model(ids[:, start:end], mask=mask[..., :end], caches=caches)
        ends[chunk] = logits.data[:, -1]
    expect(ends[3], ends[1], rtol=1e-4, atol=1e-5)
    expect(ends[5], ends[1], rtol=1e-4, atol=1e-5)


def test_rows_of_several_lengths_share_a_window():
    """Each row writes what it writes alone."""
    toy, rows = Toy(), [[3, 1, 4, 1, 5, 2, 6, 2], [2, 6], [1, 5, 5]]
    model = with_caches(toy, lambda: WindowCache(4))
    ids = np.array([row + [0] * (8 - len(row)) for row in rows])
    got = np.array(list(stream(model, ids, 30, lengths=[len(row) for row in rows]))).T
    for row, new in zip(rows, got.tolist(), strict=True):
        expect(row + new, by_hand(toy, row, 30, 4))


def test_a_toy_written_by_hand_is_written_with_every_cache():
    toy, row = Toy(), [3, 1, 4, 1, 5]
    wanted = by_hand(toy, row, 50)
    for make in KINDS.values():
        expect(generate(with_caches(toy, make), [row], 50)[0].tolist(), wanted)
