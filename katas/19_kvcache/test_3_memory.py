"""Level 3: memory is laid out once, shared where it can be, and never more than a piece is copied.

Counted by tracemalloc in bytes, so the figures are the same on every machine. Each budget has a twin: a
naive version, written out here, that must not fit.
"""

import numpy as np
import pytest

from dojo.expect import expect
from dojo.measuring import Budget, check_memory_growth, kept_bytes, load_probes, peak_bytes, retained_bytes
from tinytorch.attention import KVCache
from tinytorch.kvcache import (
    BlockPool,
    PagedCache,
    PrefixCache,
    StaticCache,
    WindowCache,
    generate_cached,
    paged_attention,
    prefill,
    speculative_generate,
    with_caches,
)

probes = load_probes(__file__)
PROBES = {probe.name: probe for probe in probes.PROBES}
KIB = 1 << 10
KV, D = 2, 64  # heads and their size in most tests: 1 KiB a position, keys and values

TOKEN = Budget(
    "one more token for a cache of 1,000",
    limit=100,
    reference=6,
    naive=1000,
    unit="KiB at the worst moment",
    naively="a version that joins old and new",
)
FILLED = Budget(
    "filling a StaticCache of 1,024 positions, one by one",
    limit=1.25,
    reference=1.0,
    naive=1.5,
    unit="times its memory, at the worst moment",
    naively="a version that doubles when it is full",
)
STEPS = Budget(
    "700 tokens through a window of 256",
    limit=1.4,
    reference=0.02,
    naive=2.0,
    unit="times the window's memory, at the worst moment",
    naively="a version that moves all others up by one",
)
WINDOW = Budget(
    "a window of 256 after a prompt of 2,048",
    limit=2.6,
    reference=1.0,
    naive=8.0,
    unit="times the memory of its positions, afterwards",
    naively="a version that keeps all, and shows the last",
)
GATHER = Budget(
    "keys and values out of their blocks",
    limit=1.5,
    reference=1.0,
    naive=2.0,
    unit="times their memory, at the worst moment",
    naively="a version that copies twice",
)
SHARED = Budget(
    "8 rows of one text",
    limit=0.2,
    reference=0.01,
    naive=8.0,
    unit="times the text's memory",
    naively="a version that copies it for each",
)
PAGES = Budget(
    "paged_attention to 2,048 positions, in pieces of 128",
    limit=0.4,
    reference=0.13,
    naive=1.0,
    unit="times the memory of all keys and values",
    naively="a version that gathers all of them",
)
BLOCK = Budget(
    "paged_attention to 2,048 positions, in blocks of 256",
    limit=0.45,
    reference=0.26,
    naive=0.5,
    unit="times the memory of all keys and values",
    naively="a version that gathers two blocks where the chunk has room for one",
)
PREFILL = Budget(
    "a prompt of 512, 32 tokens at a time",
    limit=0.4,
    reference=0.11,
    naive=1.0,
    unit="times the memory of the logits of all its tokens",
    naively="a version that keeps them all",
)
PROMPT = Budget(
    "a prompt of 512 for attention alone, 32 tokens at a time",
    limit=0.6,
    reference=0.3,
    naive=1.0,
    unit="times what it takes all at once",
    naively="a version that reads it all at once",
)
REMEMBER = Budget(
    "to remember a text of 8,192 ids in blocks of 16",
    limit=1000,
    reference=231,
    naive=16_000,
    unit="KiB beside the keys and values",
    naively="a version that knows each block by all ids up to it",
)


def token(rng, length=1, rows=1):
    return rng.standard_normal((rows, KV, length, D), np.float32)


# 19.1 StaticCache.append, 19.4 WindowCache.append


@pytest.mark.parametrize(
    "make", [lambda: StaticCache(1100), lambda: WindowCache(1000), lambda: WindowCache(990, 10)]
)
def test_one_more_token_is_just_written(make, rng):
    """A window may move to the beginning of more room now and then: the middle of nine appends counts."""
    cache, k = make(), token(rng)
    cache.append(token(rng, 1000), token(rng, 1000))
    peaks = sorted(peak_bytes(lambda: cache.append(k, k)) for _ in range(9))
    TOKEN.check(peaks[4] / KIB)


def test_the_twin_that_joins_old_and_new_is_caught(rng):
    k = token(rng, 1000)
    TOKEN.catches(peak_bytes(lambda: [np.concatenate([x, x[:, :, :1]], axis=2) for x in (k, k)]) / KIB)


def test_a_static_cache_is_laid_out_once(rng):
    k = token(rng)

    def fill():
        cache = StaticCache(1024)
        for _ in range(1024):
            cache.append(k, k)
        return cache

    FILLED.check(peak_bytes(fill) / (1024 * KIB))
    expect(kept_bytes(fill) / (1024 * KIB), 1.0, atol=0.02)
    expect(fill().nbytes, 1024 * KIB)


def test_the_twin_that_doubles_when_it_is_full_is_caught(rng):
    k = token(rng)

    def fill():
        cache = KVCache()
        for _ in range(1024):
            cache.append(k, k)
        return cache

    FILLED.catches(peak_bytes(fill) / (1024 * KIB))


def test_nothing_is_kept_however_long_the_text(rng):
    """And if a window is moved, that needs one of its size."""
    cache, k = WindowCache(252, 4), token(rng)
    cache.append(token(rng, 400), token(rng, 400))

    def steps():
        for _ in range(700):
            cache.append(k, k)

    STEPS.check(peak_bytes(steps) / (256 * KIB))
    assert retained_bytes(steps) < 8 * KIB
    expect(cache.nbytes <= 2 * 256 * KIB, True)


def test_the_twin_that_moves_all_others_up_is_caught(rng):
    k, held = token(rng), [token(rng, 256), token(rng, 256)]

    def steps():
        for _ in range(20):
            held[:] = [np.concatenate([x[:, :, 1:], k], axis=2) for x in held]

    STEPS.catches(peak_bytes(steps) / (256 * KIB))


def test_a_window_keeps_nothing_of_what_it_forgets(rng):
    k = token(rng, 2048)

    def read():
        cache = WindowCache(250, 6)
        cache.append(k, k)
        return cache

    WINDOW.check(kept_bytes(read) / (256 * KIB))


def test_the_twin_that_keeps_all_is_caught(rng):
    k = token(rng, 2048)
    WINDOW.catches(kept_bytes(lambda: [x.copy()[:, :, -256:] for x in (k, k)]) / (256 * KIB))


# 19.2 StaticCache.select, reset


def test_as_many_rows_are_kept_in_the_memory_there_is(rng):
    """What is in use is copied, once at a time; the rest of the room is not."""
    cache = StaticCache(4096)
    cache.append(token(rng, 128, 4), token(rng, 128, 4))
    before = cache.nbytes
    assert peak_bytes(lambda: cache.select([1, 0, 3, 3])) < 3 * 4 * 128 * KIB
    expect(cache.nbytes, before)


def test_rows_that_go_take_their_memory_along(rng):
    for make in (lambda: StaticCache(256), lambda: WindowCache(256)):
        for row in (0, 2):
            k = token(rng, 200, 4)

            def fewer(make=make, k=k, row=row):
                cache = make()
                cache.append(k, k)
                cache.select([row])
                return cache

            assert kept_bytes(fewer) <= (2 * 256 + 16) * KIB


@pytest.mark.parametrize("make", [lambda: StaticCache(1100), lambda: WindowCache(1000)])
def test_a_reset_cache_holds_nothing(make, rng):
    k = token(rng, 1000)

    def emptied():
        cache = make()
        cache.append(k, k)
        cache.reset()
        return cache

    assert kept_bytes(emptied) < 16 * KIB


# 19.8 BlockPool, 19.9 PagedCache.write


def test_a_pool_is_laid_out_once_and_texts_come_and_go(rng):
    pool, k = BlockPool(64, 16), token(rng, 100)
    first = PagedCache(pool)
    first.write(k, k)

    def come_and_go():
        for _ in range(50):
            cache = PagedCache(pool)
            cache.write(k, k)
            cache.write(k[:, :, :30], k[:, :, :30])
            cache.select([0, 0])

    assert retained_bytes(come_and_go) < 8 * KIB
    expect(pool.keys.nbytes + pool.values.nbytes, 64 * 16 * KIB)
    expect(pool.free, 64 - 7)


def test_a_token_is_written_into_its_block_alone(rng):
    cache, k = PagedCache(BlockPool(80, 16)), token(rng)
    cache.write(token(rng, 1000), token(rng, 1000))

    def write():
        cache.write(k, k)

    assert peak_bytes(write) < 100 * KIB


# 19.10 PagedCache.gather


def pages(rng, length, rows=1, size=16):
    cache = PagedCache(BlockPool(rows * (length // size + 1), size))
    for _ in range(length // 32):
        k = token(rng, 32, rows)
        cache.write(k, k)
    return cache


def test_what_is_gathered_is_copied_once(rng):
    for rows in (1, 4):
        cache = pages(rng, 1024 // rows, rows)
        GATHER.check(peak_bytes(cache.gather) / (1024 * KIB))


def test_the_twin_that_copies_twice_is_caught(rng):
    blocks = token(rng, 1024).reshape(KV, 64, 16, D)
    table = np.arange(64)[None]

    def gather():
        both = [np.moveaxis(blocks, 0, 1)[table] for _ in range(2)]
        return [np.ascontiguousarray(np.moveaxis(x, 2, 1)) for x in both]

    GATHER.catches(peak_bytes(gather) / (1024 * KIB))


# 19.11 PagedCache.select, fork


def test_rows_of_one_text_have_one_memory(rng):
    cache, kept = pages(rng, 1024), []

    def share():
        other = cache.fork()
        other.select([0] * 8)
        kept[:] = [other]

    SHARED.check(peak_bytes(share) / (1024 * KIB))
    expect(kept[0].nbytes, cache.nbytes)


def test_the_twin_that_copies_for_each_row_is_caught(rng):
    k = token(rng, 512)
    SHARED.catches(peak_bytes(lambda: [x[[0] * 8] for x in (k, k)]) / (512 * KIB))


# 19.12 paged_attention


def test_pages_are_read_in_pieces(rng):
    cache, q = pages(rng, 2048), token(rng)
    PAGES.check(peak_bytes(lambda: paged_attention(q, cache, chunk=128)) / (2048 * KIB))
    large = pages(rng, 2048, size=256)
    for chunk in (128, 256):
        BLOCK.check(peak_bytes(lambda chunk=chunk: paged_attention(q, large, chunk=chunk)) / (2048 * KIB))


def test_the_twin_that_gathers_all_pages_is_caught(rng):
    cache = pages(rng, 2048)
    k = np.array(cache.pool.keys)
    PAGES.catches(peak_bytes(lambda: [k.copy(), k.copy()]) / (2048 * KIB))


def test_the_twin_that_gathers_two_blocks_is_caught(rng):
    all_keys = token(rng, 2048)

    def by_two():
        for start in range(0, 2048, 512):
            k, v = (all_keys[:, :, start : start + 512].copy() for _ in range(2))
        return k, v

    BLOCK.catches(peak_bytes(by_two) / (2048 * KIB))


# 19.13 read_rest


def reader(rng, vocab, dim=16):
    model = probes.small_gpt(rng, vocab=vocab, context=512, dim=dim)
    cached = with_caches(model, lambda: StaticCache(512))
    return cached, rng.integers(0, vocab, (1, 512))


def read(model, ids, chunk=None):
    return prefill(model, ids, model.new_caches(), chunk)


def test_of_a_prompts_logits_those_of_a_chunk_are_held(rng):
    model, ids = reader(rng, vocab=2048)
    PREFILL.check(peak_bytes(lambda: read(model, ids, 32)) / (512 * 2048 * 4))
    assert kept_bytes(lambda: read(model, ids, 32)) < 32 * KIB  # a row of logits, and not the chunk it is of


def test_the_twin_that_keeps_all_logits_is_caught(rng):
    model, ids = reader(rng, vocab=2048)
    PREFILL.catches(peak_bytes(lambda: read(model, ids)) / (512 * 2048 * 4))


def test_a_chunk_needs_what_a_chunk_needs(rng):
    model, ids = reader(rng, vocab=8, dim=64)
    whole = peak_bytes(lambda: read(model, ids))
    PROMPT.check(peak_bytes(lambda: read(model, ids, 32)) / whole)


def test_the_twin_that_reads_all_at_once_is_caught(rng):
    model, ids = reader(rng, vocab=8, dim=64)
    whole = peak_bytes(lambda: read(model, ids))
    PROMPT.catches(peak_bytes(lambda: read(model, ids, 512)) / whole)


# 19.14 generate_cached, 19.18 speculative_generate


def test_a_text_that_was_written_leaves_nothing_behind(rng):
    model, ids = reader(rng, vocab=31)
    assert retained_bytes(lambda: generate_cached(model, ids[:, :20], 20)) < 16 * KIB
    assert retained_bytes(lambda: speculative_generate(model, model, ids[:, :20], 20)) < 16 * KIB


# 19.15 PrefixCache.keep


def test_a_block_is_remembered_by_its_own_ids(rng):
    pool = BlockPool(600, 16)
    cache, ids = PagedCache(pool), rng.integers(0, 50_000, 8192)
    k = np.zeros((1, 1, 8192, 1), np.float32)
    cache.write(k, k)

    def remember():
        prefixes = PrefixCache(pool, 1, 600)
        prefixes.keep(ids, [cache])
        return prefixes

    expect(len(remember()), 512)
    REMEMBER.check(kept_bytes(remember) / KIB)


def test_the_twin_that_knows_a_block_by_all_ids_up_to_it_is_caught(rng):
    ids = rng.integers(0, 50_000, 8192).tolist()
    REMEMBER.catches(kept_bytes(lambda: {tuple(ids[:i]): 0 for i in range(16, 8193, 16)}) / KIB)


# The orders of growth.


@pytest.mark.parametrize("name", PROBES)
def test_memory_grows_as_it_should(name):
    check_memory_growth(PROBES[name])
