"""Level 1: blocks and who uses them, rows that share, and prompts that are remembered."""

import gc

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from dojo.measuring import load_probes
from tinytorch.attention import KVCache, fused_attention
from tinytorch.generation import generate
from tinytorch.kvcache import (
    BlockPool,
    OutOfBlocks,
    PagedCache,
    PrefixCache,
    generate_cached,
    paged_attention,
    prefill,
)
from tinytorch.tensor import Tensor

probes = load_probes(__file__)
Toy, by_hand = probes.Toy, probes.by_hand


def some(rng, *shape, dtype=np.float32):
    return rng.normal(size=shape).astype(dtype)


def used(pool):
    return pool.blocks - pool.free


def users(pool):
    """How many users all blocks have, together."""
    return sum(pool.users(block) for block in range(pool.blocks))


# 19.8 BlockPool


def test_every_block_is_given_out_once():
    pool = BlockPool(blocks=5, block_size=3)
    expect((pool.free, users(pool)), (5, 0))
    got = [pool.allocate() for _ in range(5)]
    expect((sorted(got), pool.free, users(pool)), ([0, 1, 2, 3, 4], 0, 5))
    assert all(isinstance(block, int) for block in got)


def test_a_pool_without_a_free_block_says_how_many_there_are():
    pool = BlockPool(blocks=3, block_size=1)
    for _ in range(3):
        pool.allocate()
    with expect_error(OutOfBlocks, "3"):
        pool.allocate()
    with expect_error(MemoryError):
        pool.allocate()
    pool.release(1)
    expect(pool.allocate(), 1)


def test_a_block_is_free_when_its_last_user_goes():
    pool = BlockPool(blocks=2, block_size=1)
    block = pool.allocate()
    pool.share(block)
    pool.share(block)
    expect((pool.users(block), pool.free), (3, 1))
    for left in (2, 1):
        pool.release(block)
        expect((pool.users(block), pool.free), (left, 1))
    pool.release(block)
    expect((pool.users(block), pool.free), (0, 2))
    expect(sorted([pool.allocate(), pool.allocate()]), [0, 1])
    expect((pool.users(0), pool.users(1)), (1, 1))


@pytest.mark.parametrize("wrong", [-1, 2, 4, -4])
def test_a_block_that_nobody_uses_is_refused_by_its_number(wrong):
    pool = BlockPool(blocks=4, block_size=1)
    got = {pool.allocate() for _ in range(4)}
    pool.release(2)
    for call in (pool.share, pool.release):
        with expect_error(ValueError, str(wrong)):
            call(wrong)
    expect((pool.free, [pool.users(block) for block in sorted(got)]), (1, [1, 1, 0, 1]))


def test_two_pools_know_nothing_of_each_other():
    one, other = BlockPool(2, 1), BlockPool(2, 1)
    one.share(one.allocate())
    expect((one.free, other.free, users(other)), (1, 2, 0))


@pytest.mark.parametrize(("blocks", "size"), [(0, 4), (4, 0), (-1, 4)])
def test_a_pool_that_holds_nothing_is_refused(blocks, size):
    with expect_error(ValueError, str(blocks), str(size)):
        BlockPool(blocks, size)
    expect(BlockPool(1, 1).allocate(), 0)


# 19.9 PagedCache.write


def read_by_hand(cache, row, length):
    """A row's keys and values, position by position."""
    pool, table = cache.pool, cache.tables[row]
    places = [(table[p // pool.block_size], p % pool.block_size) for p in range(length)]
    return [
        np.stack([held[:, block, at] for block, at in places], axis=1) for held in (pool.keys, pool.values)
    ]


def test_positions_lie_where_the_tables_say(rng):
    pool = BlockPool(blocks=20, block_size=3)
    cache, other = PagedCache(pool), PagedCache(pool)
    k, v, start = some(rng, 2, 2, 11, 4), some(rng, 2, 2, 11, 5), 0
    for new in (1, 1, 4, 0, 5):
        assert cache.write(k[:, :, start : start + new], v[:, :, start : start + new]) is None
        other.write(k[:1, :, :1], v[:1, :, :1])  # so that blocks do not lie in a row
        start += new
        expect([len(table) for table in cache.tables], [-(-start // 3)] * 2)
        for row in range(2):
            expect(read_by_hand(cache, row, start), [k[row, :, :start], v[row, :, :start]])
    expect((cache.length, cache.rows), (11, 2))
    expect((pool.keys.shape, pool.values.shape), ((2, 20, 3, 4), (2, 20, 3, 5)))
    expect(len({block for table in cache.tables + other.tables for block in table}), used(pool))


def test_a_block_is_allocated_when_it_is_needed(rng):
    pool, k = BlockPool(blocks=9, block_size=4), some(rng, 1, 1, 1, 2)
    cache, free = PagedCache(pool), []
    for _ in range(9):
        cache.write(k, k)
        free.append(pool.free)
    expect(free, [8] * 4 + [7] * 4 + [6])


def test_all_layers_and_texts_share_one_memory(rng):
    pool, k = BlockPool(blocks=6, block_size=2), some(rng, 1, 1, 3, 2)
    caches = [PagedCache(pool) for _ in range(3)]
    for i, cache in enumerate(caches):
        cache.write(k + i, k - i)
    expect(pool.free, 0)
    for i, cache in enumerate(caches):
        expect(cache.gather(), (k + i, k - i))
    with expect_error(TypeError, "float32", "float64"):
        PagedCache(pool).write(k.astype(np.float64), k.astype(np.float64))
    with expect_error(ValueError, "(1, 1, 3, 1)"):
        PagedCache(pool).write(k[..., :1], k)


def test_more_than_there_is_changes_nothing(rng):
    pool, k = BlockPool(blocks=5, block_size=2), some(rng, 2, 1, 3, 2)
    cache = PagedCache(pool)
    cache.write(k, k)
    before = [list(table) for table in cache.tables]
    for new in (2, 5):
        more = some(rng, 2, 1, new, 2)
        with expect_error(OutOfBlocks, str(2 * (new // 2)), "1"):
            cache.write(more, more)
        expect((cache.tables, cache.length, pool.free), (before, 3, 1))
    cache.write(k[:, :, :1], k[:, :, :1])
    expect(cache.gather()[0], np.concatenate([k, k[:, :, :1]], axis=2))


def test_a_pool_that_is_too_small_for_the_first_text_stays_as_it_was(rng):
    pool, k = BlockPool(blocks=2, block_size=2), some(rng, 3, 1, 1, 2)
    cache = PagedCache(pool)
    with expect_error(OutOfBlocks, "3", "2"):
        cache.write(k, k)
    expect((cache.tables, cache.length, pool.free, cache.rows), ([], 0, 2, None))
    expect((pool.layout, pool.block_bytes), (None, 0))
    cache.write(k[:2], k[:2])
    expect(pool.free, 0)


def test_a_shared_block_is_copied_before_it_is_written_to(rng):
    """Three rows of one text: two copies; full blocks stay shared."""
    pool, k = BlockPool(blocks=12, block_size=4), some(rng, 1, 2, 6, 3)
    cache = PagedCache(pool)
    cache.write(k, -k)
    first, last = cache.tables[0]
    cache.select([0, 0, 0])
    expect((used(pool), pool.users(first), pool.users(last)), (2, 3, 3))
    more = some(rng, 3, 2, 1, 3)
    cache.write(more, -more)
    expect((used(pool), pool.users(first), pool.users(last)), (4, 3, 1))
    expect(len({table[1] for table in cache.tables}), 3)
    expect(cache.gather()[0], np.concatenate([np.repeat(k, 3, axis=0), more], axis=2))
    expect(cache.gather()[1], -cache.gather()[0])
    cache.write(more, more)
    expect(used(pool), 4)


def test_a_block_that_another_cache_has_too_is_copied_for_every_row(rng):
    pool, k = BlockPool(blocks=12, block_size=4), some(rng, 1, 1, 6, 3)
    cache = PagedCache(pool)
    cache.write(k, -k)
    other = cache.fork()
    cache.select([0, 0])
    more = some(rng, 2, 1, 1, 3)
    cache.write(more, more)
    expect(used(pool), 4)
    expect(cache.gather()[0], np.concatenate([np.repeat(k, 2, axis=0), more], axis=2))
    expect(other.gather(), (k, -k))


def test_a_full_block_is_not_copied(rng):
    pool, k = BlockPool(blocks=12, block_size=4), some(rng, 1, 1, 8, 3)
    cache = PagedCache(pool)
    cache.write(k, -k)
    other = cache.fork()
    expect(used(pool), 2)
    other.write(k[:, :, :1], k[:, :, :1])
    expect(used(pool), 3)
    other.write(k[:, :, :0], k[:, :, :0])
    cache.write(k[:, :, :0], k[:, :, :0])
    expect(used(pool), 3)


def test_a_last_block_of_its_own_is_written_to_though_the_first_is_shared(rng):
    pool, k = BlockPool(blocks=3, block_size=4), some(rng, 1, 1, 6, 3)
    cache = PagedCache(pool)
    cache.write(k, k)
    other = cache.fork()
    other.write(k[:, :, :1], k[:, :, :1])
    expect(pool.free, 0)
    other.write(k[:, :, 1:2], k[:, :, 1:2])
    expect(other.gather()[0], np.concatenate([k, k[:, :, :2]], axis=2))


def test_nothing_to_write_copies_nothing(rng):
    pool, k = BlockPool(blocks=4, block_size=4), some(rng, 1, 1, 3, 3)
    cache = PagedCache(pool)
    cache.write(k, -k)
    other = cache.fork()
    other.write(k[:, :, :0], k[:, :, :0])
    expect((used(pool), other.tables), (1, cache.tables))


@pytest.mark.parametrize("forked", [False, True])
def test_copies_are_counted_before_anything_changes(forked, rng):
    """Two rows need one copy, or two if somebody else has the block, and none is free."""
    pool, k = BlockPool(blocks=2 + forked, block_size=4), some(rng, 1, 1, 3, 3)
    cache = PagedCache(pool)
    cache.write(k, k)
    other = cache.fork() if forked else None
    cache.select([0, 0])
    spoiler = [pool.allocate() for _ in range(pool.free - forked)]
    more = some(rng, 2, 1, 1, 3)
    with expect_error(OutOfBlocks, str(1 + forked), str(int(forked))):
        cache.write(more, more)
    expect((cache.length, pool.free, cache.rows), (3, int(forked), 2))
    expect(cache.gather()[0], np.repeat(k, 2, axis=0))
    pool.release(spoiler[0])
    cache.write(more, more)
    expect(pool.free, 0)
    expect(cache.gather()[0], np.concatenate([np.repeat(k, 2, axis=0), more], axis=2))
    assert other is None or np.array_equal(other.gather()[0], k)


def test_copies_and_new_blocks_are_counted_together(rng):
    """Two rows of one block, with one place left: a copy, and a new block for each, are 3."""
    pool, k = BlockPool(blocks=3, block_size=4), some(rng, 1, 1, 3, 3)
    cache = PagedCache(pool)
    cache.write(k, k)
    cache.select([0, 0])
    before, more = [list(table) for table in cache.tables], some(rng, 2, 1, 2, 3)
    with expect_error(OutOfBlocks, "3", "2"):
        cache.write(more, more)
    expect((cache.tables, cache.length, pool.free, users(pool)), (before, 3, 2, 2))


# 19.10 PagedCache.gather


@pytest.mark.parametrize("size", [1, 2, 3, 4, 16])
def test_any_whole_blocks_are_gathered(size, rng):
    cache, k, v = PagedCache(BlockPool(64, size)), some(rng, 3, 2, 11, 4), some(rng, 3, 2, 11, 2)
    cache.write(k, v)
    cache.select([2, 0])
    k, v = k[[2, 0]], v[[2, 0]]
    expect(cache.gather(), (k, v))
    for start in range(0, 11, size):
        for stop in range(start, 14):
            part = slice(start, min(stop, 11))
            expect(cache.gather(start, stop), (k[:, :, part], v[:, :, part]))
        expect(cache.gather(start), (k[:, :, start:], v[:, :, start:]))


def test_what_was_gathered_has_memory_of_its_own(rng):
    cache, k = PagedCache(BlockPool(8, 4)), some(rng, 1, 1, 4, 2)
    got = cache.append(k, k)
    got[0][:] = 9
    expect(cache.gather(), (k, k))


def test_what_lies_behind_the_text_is_not_read(rng):
    """Memory that was laid out and never written may hold anything."""
    pool, k = BlockPool(8, 4), some(rng, 1, 1, 5, 2)
    cache = PagedCache(pool)
    cache.write(k[:, :, :1], k[:, :, :1])
    pool.keys[:, [b for b in range(8) if b != cache.tables[0][0]]] = np.nan
    pool.keys[:, cache.tables[0][0], 1:] = pool.values[:, cache.tables[0][0], 1:] = np.nan
    pool.values[:, [b for b in range(8) if b != cache.tables[0][0]]] = np.inf
    got = cache.append(k[:, :, 1:], k[:, :, 1:])
    expect(got, (k, k))
    q = some(rng, 1, 2, 2, 2)
    expect(paged_attention(q, cache), fused_attention(q, k, k, is_causal=True).data)


# 19.11 PagedCache.select, fork, truncate, reset, nbytes


def test_rows_that_are_dropped_free_their_blocks(rng):
    pool, k = BlockPool(20, 4), some(rng, 4, 1, 6, 2)
    cache = PagedCache(pool)
    cache.write(k, k)
    expect(used(pool), 8)
    cache.select([1, 3])
    expect((used(pool), users(pool)), (4, 4))
    cache.select([1, 1, 1])
    expect((used(pool), users(pool)), (2, 6))
    expect(cache.gather()[0], np.repeat(k[3:], 3, axis=0))
    cache.select([])
    expect((used(pool), cache.rows, cache.length), (0, 0, 6))


def test_a_wrong_row_leaves_all_users_as_they_were(rng):
    pool, k = BlockPool(20, 4), some(rng, 2, 1, 6, 2)
    cache = PagedCache(pool)
    cache.write(k, k)
    with expect_error(IndexError, "2"):
        cache.select([0, 1, 2])
    expect((used(pool), users(pool), cache.rows), (4, 4, 2))


def test_a_fork_goes_its_own_way(rng):
    pool, k = BlockPool(20, 4), some(rng, 2, 1, 6, 2)
    cache = PagedCache(pool)
    cache.write(k, -k)
    other = cache.fork()
    expect((type(other), other.length, other.rows, used(pool)), (PagedCache, 6, 2, 4))
    assert other.pool is pool
    more, less = some(rng, 2, 1, 3, 2), some(rng, 2, 1, 1, 2)
    other.write(more, more)
    cache.write(less, less)
    expect(cache.gather()[0], np.concatenate([k, less], axis=2))
    expect(other.gather()[0], np.concatenate([k, more], axis=2))
    cache.reset()
    expect(other.gather()[1], np.concatenate([-k, more], axis=2))
    other.reset()
    expect((used(pool), users(pool)), (0, 0))


def test_a_fork_of_nothing_is_a_new_cache(rng):
    pool, k = BlockPool(4, 4), some(rng, 1, 1, 2, 2)
    other = PagedCache(pool).fork()
    expect((other.length, other.rows, other.nbytes), (0, None, 0))
    other.write(k, k)
    expect(other.gather(), (k, k))


@pytest.mark.parametrize(("length", "blocks"), [(9, 3), (8, 2), (5, 2), (4, 1), (1, 1), (0, 0)])
def test_what_is_cut_gives_its_blocks_back(length, blocks, rng):
    pool, k = BlockPool(20, 4), some(rng, 2, 1, 9, 2)
    cache = PagedCache(pool)
    cache.write(k, k)
    cache.truncate(length)
    expect((used(pool), users(pool), cache.length), (2 * blocks, 2 * blocks, length))
    expect([len(table) for table in cache.tables], [blocks] * 2)
    expect(cache.nbytes, 2 * blocks * pool.block_bytes)


def test_a_block_cut_in_the_middle_may_still_be_somebody_elses(rng):
    pool, k = BlockPool(20, 4), some(rng, 1, 1, 8, 2)
    cache = PagedCache(pool)
    cache.write(k, k)
    other = cache.fork()
    other.truncate(6)
    other.write(-k[:, :, :2], -k[:, :, :2])
    expect(cache.gather(), (k, k))
    expect(other.gather()[0], np.concatenate([k[:, :, :6], -k[:, :, :2]], axis=2))
    expect(used(pool), 3)


def test_blocks_of_several_rows_count_once(rng):
    pool, k = BlockPool(20, 4), some(rng, 1, 2, 6, 2)
    cache = PagedCache(pool)
    expect(cache.nbytes, 0)
    cache.write(k, k)
    each = 4 * 2 * (2 + 2) * 4
    expect((pool.block_bytes, cache.nbytes), (each, 2 * each))
    cache.select([0, 0, 0])
    expect(cache.nbytes, 2 * each)
    more = some(rng, 3, 2, 1, 2)
    cache.write(more, more)
    expect(cache.nbytes, 4 * each)


def test_a_cache_that_nobody_has_any_more_gives_its_blocks_back(rng):
    pool, k = BlockPool(20, 4), some(rng, 2, 1, 9, 2)
    for _ in range(30):
        cache = PagedCache(pool)
        cache.write(k, k)
        cache.select([0, 0, 1])
        other = cache.fork()
        other.write(k[[0, 0, 1]], k[[0, 0, 1]])
        del cache, other
        gc.collect()
        expect(used(pool), 0)


def test_two_writers_of_one_pool_do_not_disturb_each_other(rng):
    """Blocks that one gives back, the other gets; and what was in them matters to nobody."""
    pool, texts = BlockPool(10, 2), {}
    caches = {name: PagedCache(pool) for name in "abc"}
    for _ in range(60):
        name = "abc"[rng.integers(3)]
        cache, past = caches[name], texts.get(name, np.zeros((1, 1, 0, 3), np.float32))
        if cache.length + 2 > 6:
            back = int(rng.integers(0, cache.length + 1))
            cache.truncate(back)
            past = past[:, :, :back]
        more = some(rng, 1, 1, int(rng.integers(1, 3)), 3)
        cache.write(more, -more)
        texts[name] = np.concatenate([past, more], axis=2)
        for other, text in texts.items():
            expect(caches[other].gather(), (text, -text))
        expect(used(pool), sum(-(-cache.length // 2) for cache in caches.values()))


# 19.12 paged_attention


@pytest.mark.parametrize("chunk", [1, 4, 7, 8, 256])
@pytest.mark.parametrize("queries", [0, 1, 3, 13])
def test_attention_by_pages_is_attention(chunk, queries, rng):
    cache, k, v = PagedCache(BlockPool(40, 4)), some(rng, 3, 2, 13, 8), some(rng, 3, 2, 13, 5)
    cache.write(k[:, :, :6], v[:, :, :6])
    cache.write(k[:, :, 6:], v[:, :, 6:])
    cache.select([2, 0])
    k, v, q = k[[2, 0]], v[[2, 0]], some(rng, 2, 6, queries, 8)
    got = paged_attention(q, cache, chunk=chunk)
    assert isinstance(got, np.ndarray)
    expect(got, fused_attention(q, k, v, is_causal=True).data)
    expect(
        paged_attention(Tensor(q), cache, 0.3, chunk),
        fused_attention(q, k, v, is_causal=True, scale=0.3).data,
    )


def test_attention_by_pages_changes_nothing_and_keeps_float64(rng):
    cache, k = PagedCache(BlockPool(8, 4)), some(rng, 1, 1, 7, 4, dtype=np.float64)
    cache.write(k, k)
    q = some(rng, 1, 1, 2, 4, dtype=np.float64)
    before = q.copy()
    expect(paged_attention(q, cache, chunk=4), fused_attention(q, k, k, is_causal=True).data)
    expect((q, cache.gather()[0]), (before, k))


def test_attention_by_pages_is_attention_for_any_scale_and_size(rng):
    """A scale of 0 makes all weights equal; and scores of some thousands are no infinities."""
    cache, k = PagedCache(BlockPool(8, 4)), some(rng, 2, 1, 7, 4)
    cache.write(k, -k)
    q = some(rng, 2, 2, 3, 4)
    for queries, scale in ((q, 0.0), (q, -1.0), (1000 * q, None)):
        got = paged_attention(queries, cache, scale, chunk=4)
        expect(got, fused_attention(queries, k, -k, is_causal=True, scale=scale).data)


def test_queries_that_do_not_fit_the_cache_are_refused(rng):
    cache, k = PagedCache(BlockPool(8, 4)), some(rng, 2, 2, 5, 4)
    with expect_error(ValueError, "1", "0"):
        paged_attention(some(rng, 2, 2, 1, 4), cache)
    cache.write(k, k)
    for shape in ((2, 3, 1, 4), (1, 2, 1, 4), (2, 2, 1, 3), (2, 2, 4), (2, 4)):
        with expect_error(ValueError, str(shape)):
            paged_attention(some(rng, *shape), cache)
    with expect_error(ValueError, "6", "5"):
        paged_attention(some(rng, 2, 2, 6, 4), cache)
    with expect_error(TypeError, "float64"):
        paged_attention(some(rng, 2, 2, 1, 4, dtype=np.float64), cache)


# 19.15 PrefixCache.keep, find, shrink, 19.16 PrefixCache.start

SIZE = 4


def read(pool, ids, layers=2, caches=None):
    """The caches of a toy that has read these ids."""
    caches = [PagedCache(pool) for _ in range(layers)] if caches is None else caches
    prefill(Toy(layers=layers), np.array([ids]), caches)
    return caches


def known(prefixes, ids):
    """How many ids `start` knows of these, without leaving a trace but that they were used."""
    hits, misses = prefixes.hits, prefixes.misses
    length = prefixes.start(ids)[0].length
    prefixes.hits, prefixes.misses = hits, misses
    return length


def kept(pool, prefixes, *texts):
    for text in texts:
        prefixes.keep(text, read(pool, text, prefixes.layers))


def test_whole_blocks_are_kept_and_found():
    pool = BlockPool(40, SIZE)
    prefixes = PrefixCache(pool, layers=2, capacity=9)
    expect((len(prefixes), prefixes.nbytes, prefixes.hits, prefixes.misses), (0, 0, 0, 0))
    kept(pool, prefixes, [1, 2, 3, 4, 5, 6, 0, 1, 2, 3])
    expect((len(prefixes), prefixes.nbytes), (2, 4 * pool.block_bytes))
    for ids, length in (
        ([1, 2, 3, 4, 5, 6, 0, 1, 2, 3], 8),
        ([1, 2, 3, 4, 5, 6, 0, 1, 6], 8),
        ([1, 2, 3, 4, 5, 6, 0, 1], 4),
        ([1, 2, 3, 4, 5, 6, 0, 2, 6, 6, 6, 6, 6], 4),
        ([1, 2, 3, 4, 5], 4),
        ([1, 2, 3, 4], 0),
        ([1, 2, 3, 5, 5, 6, 0, 1, 2], 0),
        ([2, 1, 3, 4, 5, 6, 0, 1, 2], 0),
        ([5, 6, 0, 1, 2], 0),
        ([1], 0),
    ):
        caches = prefixes.start(ids)
        expect([(type(c), c.length) for c in caches], [(PagedCache, length)] * 2)
        expect([c.rows for c in caches], [1 if length else None] * 2)


def test_the_same_ids_after_others_are_not_the_same_keys():
    """Keys depend on all that comes before."""
    pool = BlockPool(60, SIZE)
    prefixes = PrefixCache(pool, layers=1, capacity=20)
    same = [1, 2, 3, 4]
    kept(pool, prefixes, same + same + same)
    expect(len(prefixes), 3)
    kept(pool, prefixes, [5, 5, 5, 5, *same, *same], [*same, 5, 5, 5, 5, *same])
    expect(len(prefixes), 8)
    for ids in (same * 3, [5, 5, 5, 5, *same, *same], [*same, 5, 5, 5, 5, *same]):
        text = read(pool, ids, 1)[0].gather()
        caches = prefixes.start([*ids, 0])
        expect(caches[0].length, 12)
        expect(caches[0].gather(), text)


def test_ids_are_told_apart_however_large_they_are():
    pool = BlockPool(8, SIZE)
    prefixes, cache = PrefixCache(pool, layers=1, capacity=9), PagedCache(pool)
    cache.write(np.zeros((1, 1, 4, 1)), np.zeros((1, 1, 4, 1)))
    prefixes.keep([1, 2, 3, 4], [cache])
    for more in (1 << 8, 1 << 16, 1 << 32):
        expect(known(prefixes, [1 + more, 2, 3, 4, 0]), 0)
    expect(known(prefixes, [1, 2, 3, 4, 0]), 4)


def test_what_is_found_is_what_was_read_in_every_layer(rng):
    model, pool = probes.small_gpt(rng, layers=3), BlockPool(60, SIZE)
    prefixes = PrefixCache(pool, layers=3, capacity=20)
    ids = rng.integers(0, 31, (1, 11))
    caches = [PagedCache(pool) for _ in range(3)]
    prefill(model, ids, caches)
    prefixes.keep(ids, caches)
    for old, new in zip(caches, prefixes.start(ids), strict=True):
        expect(new.gather(), old.gather(0, 8))


def test_hits_and_misses_are_blocks_before_the_last_id():
    pool = BlockPool(60, SIZE)
    prefixes = PrefixCache(pool, layers=1, capacity=9)
    counts = []
    for ids in ([1] * 13, [1] * 13, [1] * 12, [1] * 4, [1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1, 0], [3] * 9):
        caches = prefixes.start(ids)
        counts.append((prefixes.hits, prefixes.misses))
        prefixes.keep(ids, read(pool, ids, 1, caches))
    expect(counts, [(0, 3), (3, 3), (5, 3), (5, 3), (6, 5), (6, 7)])


def test_a_prompt_that_starts_like_an_earlier_one_reads_only_its_rest():
    toy, pool = Toy(), BlockPool(100, SIZE)
    prefixes = PrefixCache(pool, layers=2, capacity=20)
    base = [3, 1, 4, 1, 5, 2, 6, 5, 3]
    for row, columns in ((base, 9), (base, 1), ([*base[:6], 1, 1], 4), ([*base, 5, 0, 2], 4)):
        caches, before = prefixes.start(row), len(toy.fed)
        text = generate_cached(toy, [row], 6, caches)
        expect(toy.fed[before:], [(1, columns)] + [(1, 1)] * 5)
        expect(text[0].tolist(), by_hand(toy, row, 6))
        prefixes.keep(text, caches)


def test_a_conversation_goes_on_from_what_it_has_said(rng):
    """What was written is remembered like what was read; the last token was never read."""
    model, pool = probes.small_gpt(rng), BlockPool(200, SIZE)
    prefixes = PrefixCache(pool, layers=2, capacity=40)
    text = rng.integers(0, 31, (1, 6))
    for turn in range(4):
        caches = prefixes.start(text)
        expect(caches[0].length, 0 if turn == 0 else (text.shape[1] - 4) // SIZE * SIZE)
        answer = generate_cached(model, text, 5, caches)
        expect(answer, generate(model, text, 5, use_cache=False))
        prefixes.keep(answer, caches)
        text = np.concatenate([answer, rng.integers(0, 31, (1, 3))], axis=1)


def test_samples_of_one_prompt_share_its_blocks(rng):
    model, pool = probes.small_gpt(rng), BlockPool(200, SIZE)
    prefixes, ids = PrefixCache(pool, layers=2, capacity=40), rng.integers(0, 31, (1, 17))
    first = prefixes.start(ids)
    prefill(model, ids, first)
    prefixes.keep(ids, first)
    del first
    expect(used(pool), 8)
    caches = prefixes.start(ids)
    for cache in caches:
        cache.select([0] * 6)
    expect(used(pool), 8)
    rows = np.repeat(ids, 6, axis=0)
    options = {"processors": [lambda logits, ids: logits / 3]}
    got = generate_cached(model, rows, 10, caches, rng=np.random.default_rng(5), **options)
    expect(got, generate(model, rows, 10, rng=np.random.default_rng(5), **options))
    expect(used(pool), 8 + 2 * 6 * 3)  # positions 16 to 25 of six rows in two layers


def test_the_blocks_that_were_not_used_for_longest_are_forgotten_first():
    pool = BlockPool(80, SIZE)
    prefixes = PrefixCache(pool, layers=1, capacity=3)
    one, two, three, four = ([i] * 5 for i in range(1, 5))
    kept(pool, prefixes, one, two, three)
    expect(known(prefixes, one), 4)
    kept(pool, prefixes, four)
    expect(len(prefixes), 3)
    expect([known(prefixes, ids) for ids in (two, three, one, four)], [0, 4, 4, 4])
    kept(pool, prefixes, three, two)  # to keep again what is known is to use it
    expect([known(prefixes, ids) for ids in (one, three, four, two)], [0, 4, 4, 4])


def test_no_block_is_forgotten_before_those_that_go_on_from_it():
    pool = BlockPool(80, SIZE)
    prefixes = PrefixCache(pool, layers=1, capacity=4)
    long = [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4
    kept(pool, prefixes, long)
    lengths = []
    for text in ([5] * 4, [6] * 4, [0] * 8, [3] * 8):
        kept(pool, prefixes, text)
        expect(len(prefixes), 4)
        lengths.append(known(prefixes, [*long, 0]))
    expect(lengths, [12, 12, 8, 8])  # gone are: the end of long; 5; 6 and the end again; both of 0


def test_what_a_long_text_begins_with_is_kept_if_not_all_can_be():
    pool = BlockPool(80, SIZE)
    prefixes = PrefixCache(pool, layers=2, capacity=2)
    kept(pool, prefixes, [1] * 17)
    expect((len(prefixes), known(prefixes, [1] * 17), used(pool)), (2, 8, 4))


def test_using_the_end_of_a_text_uses_its_beginning():
    """Two texts with one beginning: it is as new as the newer of them."""
    pool = BlockPool(80, SIZE)
    prefixes = PrefixCache(pool, layers=1, capacity=3)
    one, other = [1] * 4 + [2] * 4, [1] * 4 + [3] * 4
    kept(pool, prefixes, one, other)
    expect(known(prefixes, [*one, 0]), 8)
    kept(pool, prefixes, [4] * 4)
    expect([known(prefixes, [*ids, 0]) for ids in (one, other, [4] * 4)], [8, 4, 4])


def test_what_was_forgotten_and_comes_again_leads_to_what_it_led_to_before():
    """And not to what went on from another block that was given the same number."""
    pool = BlockPool(80, SIZE)
    prefixes = PrefixCache(pool, layers=1, capacity=2)
    kept(pool, prefixes, [1] * 8, [2] * 8, [1] * 4, [3] * 4)
    expect([known(prefixes, [*ids, 0]) for ids in ([1] * 8, [2] * 8, [3] * 8)], [4, 0, 4])
    kept(pool, prefixes, [2] * 8)
    expect([known(prefixes, [*ids, 0]) for ids in ([1] * 8, [3] * 8, [2] * 8)], [0, 0, 8])


def test_memory_is_given_back():
    pool = BlockPool(80, SIZE)
    prefixes = PrefixCache(pool, layers=2, capacity=9)
    kept(pool, prefixes, [1] * 13, [1] * 9 + [2] * 4, [3] * 5)
    expect((len(prefixes), used(pool), users(pool)), (5, 10, 10))
    prefixes.shrink(7)
    expect((len(prefixes), used(pool)), (5, 10))
    prefixes.shrink(3)
    expect((len(prefixes), used(pool), users(pool)), (3, 6, 6))
    caches = prefixes.start([3] * 9)
    prefixes.shrink()
    expect((len(prefixes), prefixes.nbytes, used(pool)), (0, 0, 2))
    expect(caches[1].length, 4)
    del caches
    gc.collect()
    expect(used(pool), 0)
    expect(known(prefixes, [1] * 13), 0)


def test_what_a_reader_writes_does_not_change_what_is_remembered(rng):
    pool = BlockPool(80, SIZE)
    prefixes = PrefixCache(pool, layers=1, capacity=9)
    kept(pool, prefixes, [1] * 9)
    before = prefixes.start([1] * 9)[0].gather()
    cache = prefixes.start([1] * 9)[0]
    cache.truncate(6)
    more = np.full((1, 1, 3, 1), 9.0), np.full((1, 1, 3, 7), 9.0)
    cache.append(*more)
    expect(prefixes.start([1] * 9)[0].gather(), before)
    cache.reset()
    expect(prefixes.start([1] * 9)[0].gather(), before)


def test_only_what_the_caches_hold_is_kept():
    pool = BlockPool(80, SIZE)
    prefixes = PrefixCache(pool, layers=1, capacity=9)
    caches = read(pool, [1] * 10, 1)
    before = caches[0].gather()
    prefixes.keep([1] * 20, caches)
    expect((len(prefixes), known(prefixes, [1] * 20)), (2, 8))
    expect(caches[0].gather(), before)  # and they hold it still
    prefixes.keep([2] * 6, read(pool, [2] * 12, 1))
    expect((len(prefixes), known(prefixes, [2] * 20)), (3, 4))


@pytest.mark.parametrize("shape", [(2, 4), (0,), (1, 0), (1, 1, 4), ()], ids=str)
def test_ids_that_are_no_row_are_refused_by_their_shape(shape):
    pool = BlockPool(80, SIZE)
    prefixes, caches = PrefixCache(pool, layers=1, capacity=9), read(pool, [1] * 9, 1)
    for call in (prefixes.start, lambda ids: prefixes.keep(ids, caches)):
        with expect_error(ValueError, str(shape)):
            call(np.zeros(shape, int))


def test_a_row_of_ids_may_come_in_any_way():
    pool = BlockPool(80, SIZE)
    prefixes = PrefixCache(pool, layers=1, capacity=9)
    ids = [1, 2, 3, 4, 5, 6, 0, 1, 2]
    prefixes.keep(np.array([ids], np.uint8), read(pool, ids, 1))
    for same in (ids, [ids], np.array(ids, np.int32), Tensor(np.array([ids])), np.array(ids[::-1])[::-1]):
        expect(known(prefixes, same), 8)


def test_caches_of_other_models_or_of_several_rows_are_refused():
    pool = BlockPool(80, SIZE)
    prefixes = PrefixCache(pool, layers=2, capacity=9)
    caches = read(pool, [1] * 9, 3)
    with expect_error(ValueError, "3"):
        prefixes.keep([1] * 9, caches)
    caches.pop()
    for few in (caches[:1], []):
        with expect_error(ValueError, str(len(few))):
            prefixes.keep([1] * 9, few)
    with expect_error(ValueError, "None"):
        prefixes.keep([1] * 9, [PagedCache(pool), PagedCache(pool)])
    caches[1].select([0, 0])
    with expect_error(ValueError, "2"):
        prefixes.keep([1] * 9, caches)
    expect(len(prefixes), 0)


@pytest.mark.parametrize(("layers", "capacity"), [(0, 4), (4, 0), (1, -2)])
def test_a_memory_of_nothing_is_refused(layers, capacity):
    pool = BlockPool(4, 4)
    with expect_error(ValueError, str(layers), str(capacity)):
        PrefixCache(pool, layers, capacity)
    expect(PrefixCache(pool, 1, 1).start([1] * 9)[0].length, 0)


def test_kata_13s_cache_reads_as_well():
    """The memory of prompts is of pages; but whoever reads without it needs none."""
    toy = Toy()
    expect(
        generate_cached(toy, [[3, 1, 4]], 5, [KVCache(), KVCache()])[0].tolist(), by_hand(toy, [3, 1, 4], 5)
    )
