"""What a trusted grade asks of kata 19: each check on fresh shapes and numbers, its answers as one array."""

import numpy as np

from dojo.strict import Check

# What is done to a cache: a code and a number for each step, worked out beside by a list of positions.
ADD, KEEP, CUT = range(3)


def draw_steps(rng):
    """40 steps. Rows to keep are given by a seed; lengths to go back to by a share of 1,000."""
    kinds = rng.choice([ADD, ADD, ADD, KEEP, CUT], 40)
    kinds[0] = ADD
    numbers = np.where(kinds == ADD, rng.integers(1, 4, 40), rng.integers(0, 1000, 40))
    return {
        "steps": np.stack([kinds, numbers], axis=1),
        "text": rng.normal(size=(2, 2, 130, 3)),
        "numbers": np.array([rng.integers(1, 6), rng.integers(3, 9), rng.integers(0, 3)]),
    }


def run_steps(student, steps, text, numbers):
    size, window, sinks = numbers.tolist()
    sums = []
    for kind in range(3):
        if kind == 0:
            cache = student.StaticCache(130)
        elif kind == 1:
            cache = student.PagedCache(student.BlockPool(300, size))
        else:
            cache = student.WindowCache(window, sinks)
        start = 0
        for what, number in steps.tolist():
            if what == 0:
                more = text[:, :, start : start + number]
                start += number
                places = cache.positions(number)
                keys, values = cache.append(more, -2 * more)
                weight = np.cos(places)[:, None]
                sums += [(keys * weight).sum((1, 2, 3)), (values * weight).sum((1, 2, 3))]
            elif what == 1:
                cache.select([number % 2, number // 2 % 2])
            else:
                length = cache.length * number // 1000
                try:
                    cache.truncate(length)
                except ValueError:
                    sums.append(np.full(2, -1.0))
        sums.append(np.full(2, float(cache.length)))
    return np.array(sums)


def expected_steps(steps, text, numbers):
    _, window, sinks = numbers.tolist()
    sums = []
    for kind in range(3):
        w, s = (window, sinks) if kind == 2 else (10**6, 0)
        past, held, start = np.zeros((2, 2, 0, 3)), set(), 0
        for what, number in steps.tolist():
            length = past.shape[2]
            if what == ADD:
                past = np.concatenate([past, text[:, :, start : start + number]], axis=2)
                start += number
                end = length + number
                seen = {p for i in range(length, end) for p in range(i + 1) if p < s or p > i - w}
                seen |= set(range(min(s, end)))
                places = np.array(sorted(seen))
                weighted = past[:, :, places] * np.cos(places)[:, None]
                sums += [weighted.sum((1, 2, 3)), -2 * weighted.sum((1, 2, 3))]
                held = {p for p in range(end) if p < s or p >= end - w}
            elif what == KEEP:
                past = past[[number % 2, number // 2 % 2]]
            else:
                back = length * number // 1000
                needed = {p for p in range(back) if p < s or p >= back - w}
                if needed <= held:
                    past, held = past[:, :, :back], needed
                else:
                    sums.append(np.full(2, -1.0))
        sums.append(np.full(2, float(past.shape[2])))
    return np.array(sums)


# A model of one layer whose logits are worked out beside: 3 sin of what it sees of (1 + place) * table[id].


def draw_texts(rng):
    return {
        "table": rng.normal(size=(6, 6)),
        "guesses": rng.normal(size=(6, 6)) * 0.3,
        "ids": rng.integers(0, 6, (1, int(rng.integers(2, 9)))),
        "numbers": np.array([rng.integers(1, 6), rng.integers(1, 5), rng.integers(2, 7), rng.integers(0, 3)]),
    }


def run_texts(student, table, guesses, ids, numbers):
    from types import SimpleNamespace

    class Toy(student.Module):
        def __init__(self, table):
            self.table, self.config = table, SimpleNamespace(context=99)

        def new_caches(self):
            return [student.StaticCache(60)]

        def forward(self, ids, mask=None, caches=None, positions=None):
            places = (caches[0].length if caches else 0) + np.arange(ids.shape[1])
            vectors = ((1 + places)[:, None] * self.table[np.asarray(ids)])[:, None]
            if caches:
                vectors, _ = caches[0].append(vectors, vectors)
            new, total = ids.shape[1], vectors.shape[2]
            sees = np.tri(new, total, total - new, dtype=bool)
            sees = sees if mask is None else sees & mask
            return student.Tensor(3 * np.sin(sees.astype(float) @ vectors[:, 0]))

    chunk, k, window, sinks = numbers.tolist()
    toy, draft, pool = Toy(table), Toy(table + guesses), student.BlockPool(200, chunk)
    texts = [student.generate_cached(toy, ids, 24, chunk=chunk)]
    texts.append(student.speculative_generate(toy, draft, ids, 24, k).ids)
    windowed = student.with_caches(toy, lambda: student.WindowCache(window, sinks))
    texts.append(student.generate_cached(windowed, ids, 24, chunk=chunk))
    prefixes = student.PrefixCache(pool, 1, 9)
    for _ in range(2):
        caches = prefixes.start(ids)
        texts.append(student.generate_cached(toy, ids, 24, caches))
        prefixes.keep(texts[-1], caches)
        del caches
    counts = [prefixes.hits, prefixes.misses, len(prefixes), pool.free]
    return np.concatenate([np.concatenate(texts).ravel(), counts]).astype(np.int64)


def expected_texts(table, guesses, ids, numbers):
    chunk, _, window, sinks = numbers.tolist()
    texts = []
    for w, s in ((99, 0), (window, sinks)):
        row = ids[0].tolist()
        for _ in range(24):
            end = len(row)
            seen = sum((1 + i) * table[row[i]] for i in range(end) if i < s or i >= end - w)
            row.append(int(np.argmax(3 * np.sin(seen))))
        texts.append(row)
    plain, banded = texts
    blocks, known = (ids.shape[1] - 1) // chunk, min(9, (ids.shape[1] + 23) // chunk)
    found = min(blocks, known)
    counts = [found, 2 * blocks - found, known, 200 - known]
    return np.concatenate([plain, plain, banded, plain, plain, counts]).astype(np.int64)


# Attention by pages.


def draw_pages(rng):
    rows, kv, group, length = (int(rng.integers(1, n)) for n in (4, 3, 4, 40))
    return {
        "q": rng.normal(size=(rows, kv * group, int(rng.integers(1, length + 1)), 4)),
        "k": rng.normal(size=(rows, kv, length, 4)),
        "v": rng.normal(size=(rows, kv, length, 5)),
        "numbers": rng.integers(1, 9, 2),
    }


def run_pages(student, q, k, v, numbers):
    size, chunk = numbers.tolist()
    cache = student.PagedCache(student.BlockPool(200, size))
    for i in range(k.shape[2]):
        cache.write(k[:, :, i : i + 1], v[:, :, i : i + 1])
    cache.select(np.arange(len(k))[::-1])
    return student.paged_attention(q, cache, chunk=chunk)


def expected_pages(q, k, v, numbers):
    group, queries, length = q.shape[1] // k.shape[1], q.shape[2], k.shape[2]
    k, v = (np.repeat(x[::-1], group, axis=1) for x in (k, v))
    scores = np.exp(q @ k.swapaxes(-1, -2) / 2) * np.tri(queries, length, length - queries)
    return scores / scores.sum(-1, keepdims=True) @ v


# Drafts: means over many, which are the target's shares.


def draw_drafts(rng):
    return {
        "q": rng.dirichlet(np.ones(5), size=2),
        "p": rng.dirichlet(np.ones(5), size=3),
        "seed": rng.integers(0, 1 << 31, 1),
    }


def run_drafts(student, q, p, seed):
    rng, counts = np.random.default_rng(int(seed[0])), np.zeros((3, 5))
    lines = q.cumsum(axis=1)
    for _ in range(6000):
        drafted = [min(4, int(np.searchsorted(line, rng.random()))) for line in lines]
        for i, one in enumerate(student.accept(q, p, np.array(drafted), rng=rng).tolist()):
            counts[i, one] += 1
    return counts / 6000


def expected_drafts(q, p, seed):
    stands = np.minimum(q, p[:2]).sum(axis=1)
    return p * np.array([1.0, stands[0], stands[0] * stands[1]])[:, None]


# What it costs.


def draw_costs(rng):
    return {"numbers": rng.integers(1, 40, 3), "rate": rng.uniform(0, 1, 2)}


def run_costs(student, numbers, rate):
    prompt, new, window = numbers.tolist()
    costs = []
    for cached in (True, False):
        for seen in (None, window):
            cost = student.generation_cost(prompt, new, cached, seen)
            costs += [cost["tokens"], cost["pairs"]]
    return np.array([*costs, student.speculative_gain(float(rate[0]), window, float(rate[1]))])


def expected_costs(numbers, rate):
    prompt, new, window = numbers.tolist()
    costs = []
    for lengths in ([prompt + new - 1], range(prompt, prompt + new)):
        for seen in (10**6, window):
            costs += [sum(lengths), sum(min(i + 1, seen) for n in lengths for i in range(n))]
    gain = sum(rate[0] ** i for i in range(window + 1)) / (1 + window * rate[1])
    return np.array([*costs, gain], float)


CHECKS = (
    Check("what is done to caches of all kinds", draw_steps, run_steps, expected_steps, rtol=1e-9, atol=1e-9),
    Check("texts in chunks, windows, drafts and prefixes", draw_texts, run_texts, expected_texts),
    Check("attention by pages", draw_pages, run_pages, expected_pages, rtol=1e-9, atol=1e-9),
    Check("how often a draft stands", draw_drafts, run_drafts, expected_drafts, rtol=0, atol=0.035),
    Check("what it costs", draw_costs, run_costs, expected_costs, rtol=1e-9),
)
