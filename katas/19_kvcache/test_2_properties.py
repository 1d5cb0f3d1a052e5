"""Level 2: whatever is done to a cache, it is what a list of all positions would be; and no guess changes
what a target writes, nor how often.

Shares are judged by a chi-square test at 1e-9: of a thousand million right solutions one would be refused.
"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect, expect_error
from dojo.measuring import load_probes
from tinytorch.attention import fused_attention
from tinytorch.generation import Temperature, TopK, generate
from tinytorch.kvcache import (
    BlockPool,
    OutOfBlocks,
    PagedCache,
    PrefixCache,
    StaticCache,
    WindowCache,
    accept,
    generate_cached,
    generation_cost,
    paged_attention,
    speculative_generate,
    with_caches,
)

probes = load_probes(__file__)
Toy, by_hand = probes.Toy, probes.by_hand
steady = settings(deadline=None, derandomize=True, max_examples=30)
few = settings(deadline=None, derandomize=True, max_examples=12)
SEEDS = st.integers(0, 2**32 - 1)


# 19.1, 19.2, 19.4, 19.6, 19.9, 19.11: a cache is a list of positions


class Remembers:
    """What every cache is: all that it was given, and of a window what is in it."""

    def __init__(self, window=None, sinks=0):
        self.window, self.sinks, self.text, self.held = window, sinks, None, set()

    @property
    def length(self):
        return 0 if self.text is None else self.text.shape[2]

    def inside(self, length):
        return {
            p for p in range(length) if self.window is None or p < self.sinks or p >= length - self.window
        }

    def append(self, k):
        """The positions that come back, and their keys."""
        past = self.length
        self.text = k.copy() if self.text is None else np.concatenate([self.text, k], axis=2)
        seen = set().union(*(self.inside(i + 1) for i in range(past, self.length))) & (
            self.held | set(range(past, self.length))
        )
        if self.length == past:
            seen = self.held
        elif self.length > past + 1:
            seen |= set(range(min(self.sinks, self.length)))
        self.held = self.inside(self.length)
        return sorted(seen), self.text[:, :, sorted(seen)]

    def can_go_back_to(self, length):
        return self.inside(length) <= self.held

    def truncate(self, length):
        self.text, self.held = self.text[:, :, :length], self.inside(length)


MAKES = {
    "static": (lambda: StaticCache(60), {}),
    "window of 60": (lambda: WindowCache(60), {}),
    "window of 4": (lambda: WindowCache(4), {"window": 4}),
    "window of 3 and 2 sinks": (lambda: WindowCache(3, 2), {"window": 3, "sinks": 2}),
    "window of 1": (lambda: WindowCache(1), {"window": 1}),
    "pages": (lambda: PagedCache(BlockPool(150, 3)), {}),
}
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from([0, 1, 1, 1, 2, 3, 6])),
        st.tuples(st.just("select"), st.lists(st.integers(0, 3), max_size=4)),
        st.tuples(st.just("truncate"), st.floats(0, 1)),
        st.tuples(st.just("reset"), st.just(0)),
    ),
    min_size=3,
    max_size=12,
)


@pytest.mark.parametrize("kind", MAKES)
@steady
@given(STEPS, SEEDS)
def test_whatever_is_done_to_a_cache_it_holds_what_a_list_would(kind, steps, seed):
    make, rules = MAKES[kind]
    rng, cache, plain, rows = np.random.default_rng(seed), make(), Remembers(**rules), 2
    for what, how in steps:
        if what == "append" and plain.length + how <= 60:
            k = rng.normal(size=(rows, 1, how, 2))
            places = cache.positions(how)
            got = cache.append(k, -k)
            wanted, keys = plain.append(k)
            expect(sorted(places.tolist()), wanted)
            order = np.argsort(places)
            expect(got[0][:, :, order], keys)
            expect(got[1][:, :, order], -keys)
        elif what == "select" and plain.text is not None and rows:
            chosen = [row % rows for row in how]
            cache.select(chosen)
            plain.text, rows = plain.text[chosen], len(chosen)
        elif what == "truncate" and plain.text is not None:
            length = round(how * plain.length)
            if plain.can_go_back_to(length):
                cache.truncate(length)
                plain.truncate(length)
            else:
                with expect_error(ValueError, str(length)):
                    cache.truncate(length)
        elif what == "reset":
            cache.reset()
            plain, rows = Remembers(**rules), 1 + seed % 3
        expect(cache.length, plain.length)
        expect(sorted(cache.positions().tolist()), sorted(plain.held))


# 19.8 BlockPool, 19.9, 19.11 PagedCache: nothing leaks, nothing is used twice


@steady
@given(st.lists(st.tuples(st.sampled_from(["allocate", "share", "release"]), st.integers(0, 6)), max_size=40))
def test_a_pool_counts_like_a_table_of_users(steps):
    pool, table = BlockPool(5, 1), {}
    for what, block in steps:
        if what == "allocate":
            if len(table) == 5:
                with expect_error(OutOfBlocks):
                    pool.allocate()
            else:
                got = pool.allocate()
                assert got in set(range(5)) - set(table)
                table[got] = 1
        elif block not in table:
            with expect_error(ValueError, str(block)):
                getattr(pool, what)(block)
        else:
            getattr(pool, what)(block)
            table[block] += 1 if what == "share" else -1
            if not table[block]:
                del table[block]
        expect(pool.free, 5 - len(table))
        expect([pool.users(one) for one in range(5)], [table.get(one, 0) for one in range(5)])


@steady
@given(
    st.lists(
        st.tuples(st.sampled_from(["write", "write", "select", "fork", "truncate", "drop"]), SEEDS),
        max_size=25,
    )
)
def test_texts_in_one_pool_stay_apart_and_leak_nothing(steps):
    pool, texts = BlockPool(24, 2), []
    for what, seed in steps:
        rng = np.random.default_rng(seed)
        if what == "write" and (len(texts) < 2 or seed % 3):
            if not texts or seed % 4 == 0:
                texts.append([PagedCache(pool), np.zeros((2, 1, 0, 1))])
            one = texts[rng.integers(len(texts))]
            k = rng.normal(size=(len(one[1]), 1, int(rng.integers(0, 5)), 1))
            free, tables = pool.free, [list(table) for table in one[0].tables]
            try:
                one[0].write(k, -k)
            except OutOfBlocks:
                expect((pool.free, one[0].tables), (free, tables))
            else:
                one[1] = np.concatenate([one[1], k], axis=2)
        elif texts:
            at = int(rng.integers(len(texts)))
            cache, text = texts[at]
            if what == "select" and cache.rows:
                rows = rng.integers(0, cache.rows, 2)
                cache.select(rows)
                texts[at][1] = text[rows]
            elif what == "fork" and len(texts) < 4:
                texts.append([cache.fork(), text])
            elif what == "truncate":
                length = int(rng.integers(0, cache.length + 1))
                cache.truncate(length)
                texts[at][1] = text[:, :, :length]
            elif what == "drop":
                cache.reset()
                del texts[at]
        uses = [block for cache, _ in texts for table in cache.tables for block in table]
        expect([pool.users(block) for block in range(24)], [uses.count(block) for block in range(24)])
        expect(pool.free, 24 - len(set(uses)))
        for cache, text in texts:
            if text.shape[2]:
                expect(cache.gather(), (text, -text))


# 19.12 paged_attention


@steady
@given(
    SEEDS,
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 30),
    st.data(),
)
def test_attention_by_pages_is_attention_whatever_the_pages(seed, rows, kv, group, size, length, data):
    rng = np.random.default_rng(seed)
    queries, chunk = data.draw(st.integers(1, length)), data.draw(st.integers(1, 40))
    cache, k = PagedCache(BlockPool(rows * 30, size)), rng.normal(size=(rows, kv, length, 4)) * 3
    cache.write(k, -k)
    q = rng.normal(size=(rows, kv * group, queries, 4)) * 3
    expect(paged_attention(q, cache, chunk=chunk), fused_attention(q, k, -k, is_causal=True).data)


# 19.5, 19.7, 19.13, 19.14: a batch is its rows, a chunk is its columns


@few
@given(SEEDS, st.integers(1, 6), st.integers(0, 3), st.integers(1, 12), st.integers(1, 9))
def test_a_window_writes_what_it_would_by_hand_whatever_the_chunk(seed, window, sinks, length, chunk):
    toy = Toy(seed=seed % 7)
    model = with_caches(toy, lambda: WindowCache(window, sinks))
    rows = np.random.default_rng(seed).integers(0, 7, (3, length))
    got = generate_cached(model, rows, 12, chunk=chunk)
    expect(got.tolist(), [by_hand(toy, row.tolist(), 12, window, sinks) for row in rows])


@few
@given(SEEDS, st.integers(1, 20), st.integers(1, 5))
def test_pages_and_static_caches_write_what_is_written_without_any(seed, length, size):
    toy, pool = Toy(seed=seed % 7), BlockPool(400, size)
    rows = np.random.default_rng(seed).integers(0, 7, (3, length))
    wanted = generate(toy, rows, 20, use_cache=False)
    for make in (lambda: StaticCache(length + 19), lambda: PagedCache(pool)):
        expect(generate(with_caches(toy, make), rows, 20), wanted)
    expect(pool.free, 400)


# 19.15, 19.16 PrefixCache


class Slow:
    """Texts as tuples of all ids, each used at some time."""

    def __init__(self, capacity):
        self.capacity, self.used, self.now = capacity, {}, 0

    def blocks(self, ids):
        return [tuple(ids[: i + 2]) for i in range(0, len(ids) - 1, 2)]

    def touch(self, blocks):
        for block in reversed(blocks):
            self.now += 1
            self.used[block] = self.now

    def start(self, ids):
        known = list(itertools.takewhile(self.used.__contains__, self.blocks(ids[:-1])))
        self.touch(known)
        return 2 * len(known), len(known), len(self.blocks(ids[:-1])) - len(known)

    def keep(self, ids):
        self.touch(self.blocks(ids))
        while len(self.used) > self.capacity:
            del self.used[min(self.used, key=self.used.get)]


@steady
@given(
    st.integers(1, 6),
    st.lists(
        st.tuples(st.booleans(), st.lists(st.integers(0, 1), min_size=1, max_size=9)), min_size=4, max_size=20
    ),
)
def test_a_memory_of_prompts_is_a_table_of_beginnings(capacity, steps):
    pool, slow = BlockPool(60, 2), Slow(capacity)
    prefixes, hits, misses = PrefixCache(pool, 1, capacity), 0, 0
    for reads, ids in steps:
        (cache,) = prefixes.start(ids)
        length, found, missed = slow.start(ids)
        hits, misses = hits + found, misses + missed
        expect((cache.length, prefixes.hits, prefixes.misses), (length, hits, misses))
        if length:  # what is there is what these ids have made
            expect(cache.gather()[0][0, 0, :, 0].tolist(), np.cumsum(ids)[:length].astype(float).tolist())
        if reads:
            rest = np.cumsum(ids)[length:].astype(float).reshape(1, 1, -1, 1)
            cache.write(rest, rest)
            prefixes.keep(ids, [cache])
            slow.keep(ids)
        del cache
        expect((len(prefixes), pool.blocks - pool.free), (len(slow.used), len(slow.used)))


# 19.17 accept, 19.18 speculative_generate: as the target would


def tail(distance, freedom):
    """How often a chi-square of so many degrees of freedom is larger than this: from that of 1 or of 2, in
    steps of 2 (Abramowitz and Stegun, 26.4.6)."""
    half, k = distance / 2, 2 - freedom % 2
    total = math.erfc(math.sqrt(half)) if k == 1 else math.exp(-half)
    while k < freedom:
        total += half ** (k / 2) * math.exp(-half) / math.gamma(k / 2 + 1)
        k += 2
    return total


def assert_shares(counts, shares):
    counts, shares = np.ravel(counts).astype(float), np.ravel(shares)
    assert not counts[shares == 0].any(), f"drawn although impossible: {counts} for shares {shares}"
    wanted = counts.sum() * shares[shares > 0]
    assert wanted.min() > 5, "too few draws for this test"
    distance = float(((counts[shares > 0] - wanted) ** 2 / wanted).sum())
    chance = tail(distance, len(wanted) - 1)
    assert chance > 1e-9, (
        f"a chi-square of {distance:.0f}, {len(wanted) - 1} degrees of freedom: {chance:.0e}"
    )


DRAFTS = {
    "like the target": ([0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]),
    "even": ([0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]),
    "the other way round": ([0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]),
    "blind to some": ([0.5, 0.0, 0.5, 0.0], [0.0, 0.0, 0.0, 1.0]),
}


@pytest.mark.parametrize("draft", DRAFTS)
def test_first_and_second_ids_come_as_often_as_the_target_says(draft, rng):
    """p of the first, and of the second after it, which the target makes depend on the first."""
    first = np.array([0.1, 0.2, 0.3, 0.4])
    then = np.array([np.roll([0.4, 0.3, 0.2, 0.1], i) for i in range(4)])
    q, counts = np.array(DRAFTS[draft]), np.zeros((4, 4))
    for _ in range(6000):
        drafted = [int(rng.choice(4, p=row)) for row in q]
        got = accept(q, np.array([first, then[drafted[0]], then[drafted[1]]]), drafted, rng=rng).tolist()
        if len(got) == 1:
            got.append(int(rng.choice(4, p=then[got[0]])))
        counts[got[0], got[1]] += 1
    assert_shares(counts, first[:, None] * then)


def softmax(logits):
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("close", [True, False], ids=["a close draft", "a far one"])
def test_texts_come_as_often_as_the_target_alone_would_write_them(k, close, rng):
    """All texts of three tokens out of three, after a prompt of two."""
    toy, draft = Toy(vocab=3, layers=1, sharp=1.0), Toy(vocab=3, layers=1, seed=5, sharp=1.5)
    if close:
        draft.table = toy.table
    shares, counts = np.zeros((3, 3, 3)), np.zeros((3, 3, 3))
    for text in itertools.product(range(3), repeat=3):
        row = [2, 1, *text]
        shares[text] = math.prod(softmax(toy.after(row[: 2 + i]))[text[i]] for i in range(3))
    for _ in range(900):
        got = speculative_generate(toy, draft, [[2, 1]], 3, k, rng=rng)
        counts[tuple(got.ids[0, 2:])] += 1
    for axis in range(3):
        assert_shares(counts.sum(axis=axis), shares.sum(axis=axis))


def test_processors_have_a_say_in_what_is_drawn(rng):
    """Two of four stay, and heat makes them more alike."""
    toy, draft = Toy(vocab=4, layers=1), Toy(vocab=4, layers=1, seed=5)
    chosen = [TopK(2), Temperature(4.0)]
    logits = toy.after([2, 1])
    shares = softmax(np.where(logits >= np.sort(logits)[-2], logits, -np.inf) / 4)
    counts = np.zeros(4)
    for _ in range(500):
        got = speculative_generate(toy, draft, [[2, 1]], 2, 2, rng=rng, processors=chosen)
        counts[got.ids[0, 2]] += 1
    assert_shares(counts, shares)


@steady
@given(SEEDS, st.integers(1, 6), st.integers(1, 10), st.integers(1, 25))
def test_whoever_drafts_the_greedy_text_is_the_targets(seed, k, length, count):
    toy, draft = Toy(seed=seed % 11), Toy(seed=seed % 13)
    row = np.random.default_rng(seed).integers(0, 7, length).tolist()
    got = speculative_generate(toy, draft, [row], count, k)
    expect(got.ids[0].tolist(), by_hand(toy, row, count))
    assert got.calls + got.accepted == count
    assert got.accepted <= got.drafted <= k * got.calls


# 19.19 generation_cost


@steady
@given(st.integers(1, 12), st.integers(0, 12), st.one_of(st.none(), st.integers(1, 30)))
def test_costs_are_sums(prompt, new, window):
    def pairs(length):
        return sum(min(i + 1, window or 99) for i in range(length))

    lengths = [prompt + i for i in range(new)]
    expect(
        generation_cost(prompt, new, False, window),
        {"tokens": sum(lengths), "pairs": sum(pairs(length) for length in lengths)},
    )
    last = max(lengths, default=0)
    expect(generation_cost(prompt, new, True, window), {"tokens": last, "pairs": pairs(last)})
