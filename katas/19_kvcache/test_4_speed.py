"""Level 4: a token costs what it costs, whatever is in the cache; pages cost one copy; the rest is not read.

What overhead would hide is counted, in bytes and in columns of ids; the rest are ratios within this run, in
CPU time, never seconds. Each budget has a twin: a naive version, written out here, that must not fit.
"""

import functools

import numpy as np

from dojo.expect import expect
from dojo.measuring import Budget, WorkMeter, load_probes, race
from tinytorch.attention import absorb, fused_attention
from tinytorch.generation import generate
from tinytorch.kvcache import (
    BlockPool,
    PagedCache,
    PrefixCache,
    StaticCache,
    WindowCache,
    accept,
    generate_cached,
    paged_attention,
    speculative_generate,
    with_caches,
)

probes = load_probes(__file__)
KV, D = 2, 32

APPEND = Budget(
    "a StaticCache of 256 tokens, one by one",
    limit=9,
    reference=3,
    naive=250,
    unit="times the bytes of what was added",
    naively="a version that joins old and new",
)
RING = Budget(
    "a token for a window of 1,024",
    limit=60,
    reference=6,
    naive=2000,
    unit="times the bytes of it",
    naively="a version that moves all others up by one",
)
BAND = Budget(
    "a prompt of 256 for a window of 64, keys and mask",
    limit=36,
    reference=1.8,
    naive=63,
    unit="times the time of copying it, and of one table of all pairs",
    naively="a version that goes from pair to pair",
)
ALLOCATE = Budget(
    "a block of a pool of 8,192, half of them in use",
    limit=4,
    reference=1.0,
    naive=50,
    unit="times the time for a pool of 64",
    naively="a version that looks for one without a user",
)
WRITE = Budget(
    "512 positions into pages of 16",
    limit=25,
    reference=4.8,
    naive=100,
    unit="times the time of copying them",
    naively="a version that writes position by position",
)
GATHER = Budget(
    "512 positions out of pages of 32",
    limit=25,
    reference=2.1,
    naive=85,
    unit="times the time of copying them",
    naively="a version that goes position by position",
)
PAGES = Budget(
    "paged_attention of one query to 512 positions",
    limit=5,
    reference=1.0,
    naive=25,
    unit="times the time of gathering them, and fused_attention",
    naively="a version that absorbs position by position",
)
FIND = Budget(
    "finding 4,096 ids that are known",
    limit=20,
    reference=8,
    naive=64,
    unit="times the time of finding 512",
    naively="a version that compares all ids up to each block",
)
FORGET = Budget(
    "one more block for a memory of 2,048",
    limit=3,
    reference=1.0,
    naive=9,
    unit="times the time for a memory of 32",
    naively="a version that looks through all for the oldest",
)
ACCEPT = Budget(
    "a draft of 4 ids of 4,096",
    limit=3,
    reference=0.3,
    naive=14,
    unit="times the time of comparing all its probabilities",
    naively="a version that goes from id to id",
)
CALLS = Budget(
    "96 tokens with a draft of 5 that is right",
    limit=0.25,
    reference=0.17,
    naive=1.0,
    unit="calls of the target a token",
    naively="a version that asks the target about each guess",
)
PREFIX = Budget(
    "8 questions about one prompt of 40",
    limit=16,
    reference=12,
    naive=44,
    unit="columns read for each",
    naively="a version that reads the prompt again",
)
WRITING = Budget(
    "48 tokens after 16 with a StaticCache",
    limit=1.6,
    reference=1.3,
    naive=39,
    unit="columns read for each",
    naively="a version that reads all again",
)


def token(rng, length=1, rows=1, size=D):
    return rng.standard_normal((rows, KV, length, size), np.float32)


# 19.1 StaticCache.append


def test_a_static_cache_writes_each_token_once(rng):
    k = token(rng, 256, size=8)
    with WorkMeter() as work:
        cache = StaticCache(256)
        for i in range(256):
            every, _ = cache.append(*[work.track(k[:, :, i : i + 1])] * 2)
    expect(np.asarray(every), k)
    assert work.bytes >= 2 * k.nbytes, "less than was written"
    APPEND.check(work.bytes / (2 * k.nbytes))


def test_the_twin_that_joins_old_and_new_is_caught(rng):
    k = token(rng, 256, size=8)
    with WorkMeter() as work:
        every = [work.track(k[:, :, :1])] * 2
        for i in range(1, 256):
            every = [np.concatenate([x, work.track(k[:, :, i : i + 1])], axis=2) for x in every]
    APPEND.catches(work.bytes / (2 * k.nbytes))


# 19.4 WindowCache.append


def moved(rng, append):
    """How many times the bytes of a token are read and written for it, after 1,024 others."""
    k = token(rng, 64)
    with WorkMeter() as work:
        add = append(work, [work.track(token(rng, 1024)) for _ in range(2)])
        before = work.bytes
        for i in range(64):
            every = add([work.track(k[:, :, i : i + 1]) for _ in range(2)])
    assert sorted(every[0].shape) == [1, KV, D, 1024]
    assert work.bytes - before >= 2 * k.nbytes, "less than was written"
    return (work.bytes - before) / (2 * k.nbytes)


def test_a_token_is_written_and_no_other_is_moved(rng):
    def append(work, text):
        cache = WindowCache(1020, 4)
        cache.append(*text)
        return lambda one: cache.append(*one)

    RING.check(moved(rng, append))


def test_the_twin_that_moves_all_others_up_is_caught(rng):
    def append(work, text):
        def add(one):
            text[:] = [np.concatenate([x[:, :, 1:], y], axis=2) for x, y in zip(text, one, strict=True)]
            return text

        return add

    RING.catches(moved(rng, append))


# 19.4 WindowCache.append, 19.5 WindowCache.fit


def prompt(rng):
    return (token(rng, 256),)


def table_and_copies(k):
    places = np.arange(256)
    copies(k)
    return (places > places[:, None] - 64) | (places < 4)


def test_a_prompt_comes_into_a_window_all_at_once(rng):
    def read(k):
        cache = WindowCache(64, 4)
        mask = cache.fit(None, 256)
        return mask, cache.append(k, k)

    BAND.check(race(read, table_and_copies, limit=BAND.limit, inputs=lambda: prompt(rng)))


def test_the_twin_that_goes_from_pair_to_pair_is_caught(rng):
    def walk(k):
        copies(k)
        return np.array([[p > query - 64 or p < 4 for p in range(256)] for query in range(256)])

    BAND.catches(race(walk, table_and_copies, limit=BAND.limit, inputs=lambda: prompt(rng)))


# 19.8 BlockPool


def pool_in_use(blocks):
    pool = BlockPool(blocks, 1)
    for _ in range(blocks // 2):
        pool.allocate()
    return pool


def come_and_go(pool):
    for _ in range(20):
        one, other = pool.allocate(), pool.allocate()
        assert pool.free
        pool.release(other)
        pool.release(one)


def test_a_block_is_found_without_looking_for_it():
    large, small = pool_in_use(8192), pool_in_use(64)
    ALLOCATE.check(race(lambda: come_and_go(large), lambda: come_and_go(small), limit=ALLOCATE.limit))


def test_the_twin_that_looks_for_a_block_without_a_user_is_caught():
    users, small = [1] * 4096 + [0] * 4096, pool_in_use(64)

    def search():
        for _ in range(20):
            one = users.index(0)
            users[one] = 1
            other = users.index(0)
            users[one] = users[other] = 0

    ALLOCATE.catches(race(search, lambda: come_and_go(small), limit=ALLOCATE.limit))


# 19.9 PagedCache.write, 19.10 gather


@functools.cache
def pool():
    """One for all calls: to lay it out is not what is raced."""
    return BlockPool(512, 16)


def write(k):
    cache = PagedCache(pool())
    cache.write(k, k)


def copies(k):
    room = [np.empty_like(k) for _ in range(2)]
    for x in room:
        x[...] = k


def one_by_one(k):
    cache = PagedCache(pool())
    for i in range(k.shape[2]):
        cache.write(k[:, :, i : i + 1], k[:, :, i : i + 1])


def test_many_positions_are_written_at_once(rng):
    WRITE.check(race(write, copies, limit=WRITE.limit, inputs=lambda: (token(rng, 128, 4),)))


def test_the_twin_that_writes_position_by_position_is_caught(rng):
    WRITE.catches(race(one_by_one, copies, limit=WRITE.limit, inputs=lambda: (token(rng, 128, 4),)))


def pages(rng, length, rows=1, size=32):
    cache = PagedCache(BlockPool(rows * (length // size + 1), size))
    for _ in range(0, length, 8):
        k = token(rng, 8, rows)
        cache.write(k, k)
    return cache


def test_pages_are_gathered_at_once(rng):
    cache, k = pages(rng, 512), token(rng, 512)
    GATHER.check(race(cache.gather, lambda: copies(k), limit=GATHER.limit))


def test_the_twin_that_goes_position_by_position_is_caught(rng):
    cache, k = pages(rng, 512), token(rng, 512)

    def walk():
        for held in (cache.pool.keys, cache.pool.values):
            out = np.empty((1, KV, 512, D), held.dtype)
            for i in range(512):
                out[0, :, i] = held[:, cache.tables[0][i // 32], i % 32]

    GATHER.catches(race(walk, lambda: copies(k), limit=GATHER.limit))


# 19.12 paged_attention


def test_attention_by_pages_costs_little_more_than_attention(rng):
    cache, q = pages(rng, 512, size=16), token(rng)
    whole = lambda: fused_attention(q, *cache.gather())  # noqa: E731
    PAGES.check(race(lambda: paged_attention(q, cache), whole, limit=PAGES.limit))


def test_the_twin_that_absorbs_position_by_position_is_caught(rng):
    cache, q = pages(rng, 512, size=16), token(rng)
    k, v = cache.gather()

    def walk():
        top, total, mix = (
            np.full((1, KV, 1, 1), -np.inf, np.float32),
            np.zeros((1, KV, 1, 1)),
            np.zeros(q.shape),
        )
        for i in range(512):
            absorb(q @ k[:, :, i : i + 1].swapaxes(-1, -2), v[:, :, i : i + 1], top, total, mix)

    PAGES.catches(race(walk, lambda: fused_attention(q, *cache.gather()), limit=PAGES.limit))


# 19.15, 19.16 PrefixCache


def remembering(rng, length, capacity, size=16):
    """A memory of so many ids, those ids, and a pool that has one cache for all of them."""
    mine = BlockPool(length // size + 4, size)
    cache, ids = PagedCache(mine), rng.integers(0, 9, length)
    k = np.zeros((1, 1, length, 1), np.float32)
    cache.write(k, k)
    prefixes = PrefixCache(mine, 1, capacity)
    prefixes.keep(ids, [cache])
    return prefixes, ids


def test_finding_a_text_takes_time_in_proportion_to_it(rng):
    (large, long), (small, short) = (remembering(rng, n, 1 << 20) for n in (4096, 512))
    expect(large.start(long)[0].length, 4080)
    FIND.check(race(lambda: large.start(long), lambda: small.start(short), limit=FIND.limit))


def test_the_twin_that_compares_all_ids_up_to_each_block_is_caught(rng):
    texts = {}
    for length in (4096, 512):
        ids = rng.integers(0, 9, length).tolist()
        texts[length] = ids, {tuple(ids[:i]) for i in range(16, length, 16)}

    def find(length):
        ids, known = texts[length]
        for i in range(16, length, 16):
            assert tuple(ids[:i]) in known

    FIND.catches(race(lambda: find(4096), lambda: find(512), limit=FIND.limit))


def forgetting(rng, capacity):
    """Keeps one block more than fits, another each time."""
    mine = BlockPool(2 * capacity + 40, 1)
    prefixes, caches = PrefixCache(mine, 1, capacity), []
    k = np.zeros((1, 1, 1, 1), np.float32)
    for _ in range(8):
        caches.append(PagedCache(mine))
        caches[-1].write(k, k)
    for i in range(capacity):
        prefixes.keep([i], [caches[0]])
    count = [capacity]

    def keep():
        for cache in caches:
            count[0] += 1
            prefixes.keep([count[0]], [cache])

    return keep


def test_the_oldest_is_found_without_looking_for_it(rng):
    large, small = forgetting(rng, 2048), forgetting(rng, 32)
    FORGET.check(race(large, small, limit=FORGET.limit))


def test_the_twin_that_looks_through_all_for_the_oldest_is_caught(rng):
    used, small, now = {i: i for i in range(2048)}, forgetting(rng, 32), [2048]

    def keep():
        for _ in range(8):
            now[0] += 1
            used[now[0]] = now[0]
            del used[min(used, key=used.get)]

    FORGET.catches(race(keep, small, limit=FORGET.limit))


def questions(rng, toy, prefixes):
    """Eight prompts that begin alike, and end with four ids of their own."""
    base = rng.integers(0, 7, 40).tolist()
    for _ in range(8):
        row = [*base, *rng.integers(0, 7, 4).tolist()]
        caches = None
        if prefixes is not None:
            caches = prefixes.start(row)
        text = generate_cached(toy, [row], 4, caches)
        if prefixes is not None:
            prefixes.keep(text, caches)
    return sum(columns for _, columns in toy.fed) / 8


def test_what_prompts_have_in_common_is_read_once(rng):
    PREFIX.check(questions(rng, probes.Toy(), PrefixCache(BlockPool(400, 8), 2, 99)))


def test_the_twin_that_reads_every_prompt_is_caught(rng):
    PREFIX.catches(questions(rng, probes.Toy(), None))


# 19.17 accept


def drafts(rng):
    """All four stand, so that all rows are looked at."""
    q = rng.random((4, 4096)) + 0.1
    return q, np.concatenate([q, q[:1]]), np.arange(4)


def compared(q, p, drafted):
    return [np.maximum(p[i] - q[i % 4], 0).cumsum() for i in range(5)]


def id_by_id(q, p, drafted):
    for i in range(5):
        total = 0.0
        for one, other in zip(p[i].tolist(), q[i % 4].tolist(), strict=True):
            total += max(one - other, 0.0)


def test_a_draft_is_judged_in_a_few_passes(rng):
    judged = lambda q, p, drafted: accept(q, p, drafted, rng=rng)  # noqa: E731
    ACCEPT.check(race(judged, compared, limit=ACCEPT.limit, inputs=lambda: drafts(rng)))


def test_the_twin_that_goes_from_id_to_id_is_caught(rng):
    ACCEPT.catches(race(id_by_id, compared, limit=ACCEPT.limit, inputs=lambda: drafts(rng)))


# 19.18 speculative_generate


def test_the_target_is_asked_once_for_a_whole_draft():
    toy = probes.Toy(context=128)
    speculative_generate(toy, probes.Toy(context=128), [[1, 2, 3]], 96, 5)
    CALLS.check(len(toy.fed) / 96)


def test_the_twin_that_asks_about_each_guess_is_caught():
    toy = probes.Toy(context=128)
    generate(toy, [[1, 2, 3]], 96)
    CALLS.catches(len(toy.fed) / 96)


# 19.7 CachedModel, 19.14 generate_cached


def test_each_column_of_a_text_is_read_once():
    toy = probes.Toy()
    generate_cached(with_caches(toy, lambda: StaticCache(63)), np.ones((2, 16), np.int64), 48)
    WRITING.check(sum(columns for _, columns in toy.fed) / 48)


def test_the_twin_that_reads_all_again_is_caught():
    toy = probes.Toy()
    generate(toy, np.ones((2, 16), np.int64), 48, use_cache=False)
    WRITING.catches(sum(columns for _, columns in toy.fed) / 48)
