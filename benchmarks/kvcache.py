"""Caches of kata 19 beside each other: `python -m benchmarks.kvcache [texts steps rows prompts drafts]`.

The network is that of milestone 3 (4 layers, width 128, 4 heads, 65 tokens) on one thread, in float32. Times
are processor time. For speculative decoding it is trained first, and a draft of one layer with it, on the
text that every Python carries (pydoc_data.topics), for some minutes.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from pydoc_data.topics import topics
from typing import Any

import numpy as np

from benchmarks.beside import measure_some, reference

ours: Any = reference("tinytorch.kvcache")
attention: Any = reference("tinytorch.attention")
generation: Any = reference("tinytorch.generation")
transformers: Any = reference("tinytorch.transformers")

VOCABULARY, PROMPT = 65, 8
LENGTHS = (50, 100, 200, 400, 800)
UNCACHED = 400  # more takes too long
BLOCK, WINDOW, SINKS = 16, 60, 4
STEPS = 10_000


def network(context: int, layers: int = 4, dim: int = 128, vocabulary: int = VOCABULARY) -> Any:
    config = transformers.GPTConfig(vocabulary, context, dim, layers, 4)
    return transformers.TinyGPT(config, rng=np.random.default_rng(0))


def seconds(work: Callable[[], object], times: int = 3) -> float:
    best = float("inf")
    for _ in range(times):
        begin = time.process_time()
        work()
        best = min(best, time.process_time() - begin)
    return best


def kinds(length: int) -> dict[str, Callable[[], Any]]:
    pool = ours.BlockPool(8 * (-(-length // BLOCK)), BLOCK)  # two texts of 4 layers
    return {
        "kata 13's, doubles": attention.KVCache,
        "StaticCache": lambda: ours.StaticCache(length),
        f"WindowCache({WINDOW}, {SINKS})": lambda: ours.WindowCache(WINDOW, SINKS),
        f"PagedCache, blocks of {BLOCK}": lambda: ours.PagedCache(pool),
    }


def texts() -> None:
    print("\none text: tokens a second, times without a cache, KiB used and reserved at the end")
    for length in LENGTHS:
        model, ids = network(length), np.arange(PROMPT)[None]
        count = length - PROMPT
        plain = float("nan")
        wanted = None
        if length <= UNCACHED:
            wanted = generation.generate(model, ids, count, use_cache=False)
            once = 1 if length > 128 else 3
            plain = seconds(
                lambda m=model, i=ids, c=count: generation.generate(m, i, c, use_cache=False), once
            )
            print(f"{length:5}  {'without':28}{count / plain:8.0f}")
        for name, make in kinds(length).items():
            cached = ours.with_caches(model, make) if name[0] != "k" else model
            caches = cached.new_caches()
            got = ours.generate_cached(cached, ids, count, caches)
            same = wanted is None or bool((got == wanted).all())
            assert same or name[0] == "W", f"{name} writes something else"
            took = seconds(lambda m=cached, i=ids, c=count: ours.generate_cached(m, i, c))
            reserved = sum(cache.nbytes for cache in caches) / 1024
            used = ours.cache_report(caches)["used"] / 1024 if name[0] != "k" else float("nan")
            if name[0] == "k":
                used = (length - 1) * ours.bytes_per_token(model.config) / 1024
            print(
                f"{length:5}  {name:28}{count / took:8.0f}{plain / took:8.1f}{used:10.0f}{reserved:8.0f}"
                f"{'' if same else '   other tokens'}",
                flush=True,
            )


def steps() -> None:
    print(
        f"\n{STEPS:,} tokens, one by one, of (1, 4, 1, 32): KiB held by the cache, and KiB more than that at"
    )
    print("the worst moment after the first; microseconds a token")
    k = np.zeros((1, 4, 1, 32), np.float32)
    pool = ours.BlockPool(STEPS // BLOCK + 1, BLOCK)
    for name, make in {
        "kata 13's, doubles": attention.KVCache,
        "StaticCache": lambda: ours.StaticCache(STEPS),
        "WindowCache(252, 4)": lambda: ours.WindowCache(252, 4),
        "PagedCache.write": lambda: ours.PagedCache(pool),
    }.items():
        cache = make()
        add = cache.write if hasattr(cache, "write") else cache.append
        add(k, k)
        begin = time.process_time()
        for _ in range(STEPS - 1):
            add(k, k)
        took = time.process_time() - begin
        cache = make()
        add = cache.write if hasattr(cache, "write") else cache.append
        tracemalloc.start()
        add(k, k)
        if name.startswith("W"):
            for _ in range(300):
                add(k, k)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(STEPS - 1 - (300 if name.startswith("W") else 0)):
            add(k, k)
        after, worst = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        print(
            f"{name:24}{cache.nbytes / 1024:10.0f}{(worst - before) / 1024:10.1f}"
            f"{(after - before) / 1024:10.1f} kept{1e6 * took / STEPS:8.1f} us"
        )


def rows() -> None:
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.geometric(1 / 150, 64) + 8, 1024)
    each = ours.bytes_per_token(network(8).config)
    print(f"\n64 texts of {lengths.mean():.0f} tokens on average, {lengths.max()} at most: MiB reserved")
    needed = lengths.sum()
    pages = (-(-lengths // BLOCK) * BLOCK).sum()
    doubled = (1 << np.ceil(np.log2(lengths)).astype(int)).sum()
    for name, positions in {
        "used": needed,
        "a StaticCache of 1,024 each": 64 * 1024,
        "one batch of the longest": 64 * lengths.max(),
        "doubling": doubled,
        f"blocks of {BLOCK}": pages,
        "blocks of 128": (-(-lengths // 128) * 128).sum(),
    }.items():
        print(f"{name:30}{positions * each / 2**20:8.1f}   {needed / positions:5.0%} of it used")


def prompts() -> None:
    model, rng = network(512), np.random.default_rng(0)
    base, asked = rng.integers(0, VOCABULARY, 384), rng.integers(0, VOCABULARY, (16, 16))
    questions = [np.concatenate([base, tail])[None] for tail in asked]

    def answer(prefixes: Any) -> list[Any]:
        out = []
        for ids in questions:
            caches = prefixes.start(ids) if prefixes is not None else None
            out.append(ours.generate_cached(model, ids, 16, caches))
            if prefixes is not None:
                prefixes.keep(ids, caches)
        return out

    def remembered() -> Any:
        return ours.PrefixCache(ours.BlockPool(1000, BLOCK), 4, 100)

    prefixes = remembered()
    for one, other in zip(answer(prefixes), answer(None), strict=True):
        np.testing.assert_array_equal(one, other)
    plain, took = seconds(lambda: answer(None)), seconds(lambda: answer(remembered()))
    print("\n16 questions of 16 tokens about one prompt of 384, and 16 tokens of an answer each")
    print(f"{plain:.2f} s without, {took:.2f} s with a PrefixCache, {plain / took:.1f} times")
    print(f"{prefixes.hits} blocks found, {prefixes.misses} not; it holds {prefixes.nbytes / 2**20:.1f} MiB")
    model = network(1024)
    ids = rng.integers(0, VOCABULARY, (1, 1024))
    print("\na prompt of 1,024: milliseconds and MiB at the worst moment, in chunks of")
    for chunk in (None, 256, 64, 16, 1):

        def read(chunk: int | None = chunk) -> None:
            ours.prefill(model, ids, [ours.StaticCache(1024) for _ in range(4)], chunk)

        took = seconds(read)
        tracemalloc.start()
        read()
        worst = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        print(f"{chunk or 'all':>6}{1e3 * took:9.0f} ms{worst:8.1f} MiB")


def trained() -> tuple[Any, Any, Any]:
    """A target, a draft, and ids of the text that they have not read."""
    text = "\n".join(topics[name] for name in sorted(topics))
    characters = sorted(set(text))
    ids = np.searchsorted(characters, list(text))
    cut = len(ids) - 20_000
    models = []
    for layers, dim, count in ((4, 128, 400), (1, 48, 800)):
        model = network(192, layers, dim, len(characters))
        generation.train_language_model(
            model, ids[:cut], steps=count, batch_size=8, lr=3e-3, rng=np.random.default_rng(1)
        )
        nats = generation.evaluate(model, ids[cut:])
        print(f"{layers} layers of {dim}, {count} steps: {nats:.2f} nats a character", flush=True)
        models.append(model)
    return models[0], models[1], ids[cut:]


def drafts() -> None:
    print("\nspeculative decoding, 120 characters after 8 prompts of 64")
    target, draft, ids = trained()
    starts = [ids[None, i : i + 64] for i in range(0, 16_000, 2_000)]
    made = ours.with_caches(target, lambda: ours.StaticCache(192))
    small = ours.with_caches(draft, lambda: ours.StaticCache(192))
    for greedy in (True, False):
        dice = None if greedy else np.random.default_rng

        def alone(model: Any, dice: Any = dice) -> list[Any]:
            return [ours.generate_cached(model, one, 120, rng=dice and dice(0)) for one in starts]

        plain, cost = seconds(lambda: alone(made)), seconds(lambda: alone(small))
        print(
            f"{'the likeliest' if greedy else 'drawn'}: a call of the draft costs {cost / plain:.2f} of one"
        )
        for k in (1, 2, 3, 4, 6, 8):

            def guessed(k: int = k, dice: Any = dice) -> list[Any]:
                return [
                    ours.speculative_generate(made, small, one, 120, k, rng=dice and dice(0))
                    for one in starts
                ]

            found = guessed()
            if greedy:
                for one, other in zip(found, alone(made), strict=True):
                    np.testing.assert_array_equal(one.ids, other)
            calls, drafted, accepted = (
                sum(getattr(one, name) for one in found) for name in ("calls", "drafted", "accepted")
            )
            took = seconds(guessed)
            print(
                f"k = {k}: {len(starts) * 120 / calls:5.2f} tokens a call, {accepted / drafted:4.0%} of "
                f"guesses stood, {plain / took:5.2f} times as fast",
                flush=True,
            )


PARTS = {"texts": texts, "steps": steps, "rows": rows, "prompts": prompts, "drafts": drafts}


if __name__ == "__main__":
    measure_some(PARTS, __doc__)
