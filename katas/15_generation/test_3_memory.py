"""Level 3: what a text needs while it is written, and what a model needs while it learns.

Counted by tracemalloc in bytes, so the figures are the same on every machine. Each budget has a twin: a
naive version, written out here, that must not fit.
"""

import numpy as np
import pytest

from dojo.measuring import Budget, kept_bytes, load_probes, peak_bytes, retained_bytes
from tinytorch import autograd
from tinytorch.generation import (
    Reader,
    RepetitionPenalty,
    Temperature,
    TokenDataset,
    TopK,
    TopP,
    beam_search,
    evaluate,
    generate,
    generation_bytes,
    language_model_loss,
    sample,
    training_bytes,
)

probes = load_probes(__file__)
KIB, MIB = 1 << 10, 1 << 20

BENT = Budget(
    "bending logits of 1 MiB, or drawing from them",
    limit=13.0,  # a few copies, and in float64, which is twice as much each: 11.5 for top-p by argsort
    reference=5.0,
    naive=22.0,
    unit="MiB at the worst moment",
    naively="a version that holds a place and a probability in int64 and float64 for every step",
)
LAST = Budget(
    "what is kept of the logits of a prompt of 64 tokens",
    limit=4.0,
    reference=1.0,
    naive=64.0,
    unit="rows of logits",
    naively="a version that returns a view of all of them",
)
WRITE = Budget(
    "writing 16 tokens after 192",
    limit=5.0,
    reference=2.2,
    naive=8.5,
    unit="times the memory of keys and values at the end, at the worst moment",
    naively="a version that records a graph",
)
AFTER = Budget(
    "what is kept of a text that was written",
    limit=24.0,
    reference=0.7,
    naive=400.0,
    unit="KiB",
    naively="a version that leaves the caches at the model",
)
BEAMS = Budget(
    "a search with 8 beams for 32 tokens",
    limit=6.0,
    reference=1.7,
    naive=18.0,
    unit="times the memory of 8 rows' keys and values at the end, at the worst moment",
    naively="a version that keeps the caches of every step",
)
WINDOWS = Budget(
    "a dataset of all windows of 64 in a row of 1 MiB",
    limit=1.2,  # somebody may copy the row
    reference=0.001,
    naive=65.0,
    unit="MiB at the worst moment",
    naively="a version that makes them all",
)
EVALUATE = Budget(
    "an evaluation of 16 batches",
    limit=6.0,
    reference=2.0,
    naive=16.0,
    unit="times the logits of a batch, at the worst moment",
    naively="a version that keeps the logits of all",
)
COUNT = Budget(
    "generation_bytes",
    limit=0.3,
    reference=0.001,
    naive=1.0,
    unit="times the cache that it counts, at the worst moment",
    naively="a version that makes one to see how large it is",
)
LEARN = Budget(
    "activations, as training_bytes counts them",
    limit=0.1,
    reference=0.01,
    naive=0.95,
    unit="of what a forward pass keeps, too many or too few",
    naively="a version that counts one array a layer",
)


# 15.2 to 15.6: one token

CHOICES = {
    "sample": lambda logits, ids: sample(logits, rng=np.random.default_rng(0)),
    "temperature": Temperature(0.8),
    "penalty": RepetitionPenalty(1.2),
    "top k": TopK(40),
    "top p": TopP(0.9),
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_takes_a_few_arrays_of_the_size_of_the_logits(name, rng):
    logits, ids = rng.standard_normal((8, 1 << 15), np.float32), rng.integers(0, 1 << 15, (8, 32))
    BENT.check(peak_bytes(lambda: CHOICES[name](logits, ids)) / MIB)


def test_the_twin_that_holds_every_step_is_caught(rng):
    logits = rng.standard_normal((8, 1 << 15), np.float32)

    def top_p():
        order = np.argsort(-logits.astype(np.float64), axis=1)
        back = np.argsort(order, axis=1)
        shares = np.exp(np.take_along_axis(logits.astype(np.float64), order, axis=1))
        normed = shares / shares.sum(axis=1, keepdims=True)
        sums = normed.cumsum(axis=1)
        before = sums - normed
        places = np.broadcast_to(np.arange(1 << 15), order.shape).copy()
        rows = np.broadcast_to(np.arange(8)[:, None], order.shape).copy()
        kept = [before < 0.9, places, rows, sums]
        return kept, back, np.take_along_axis(before, back, axis=1), logits.astype(np.float64), 2 * normed

    BENT.catches(peak_bytes(top_p) / MIB)


# 15.9 Reader


def wide(rng):
    """A model with far more logits than anything else: 8,192 of them for a token."""
    return probes.small_gpt(rng, vocab=8192, context=64, layers=1, dim=8, heads=1)


def test_of_a_prompt_only_the_logits_of_its_end_are_kept(rng):
    model, ids = wide(rng), rng.integers(0, 8192, (1, 64))
    kept = kept_bytes(lambda: Reader(model, np.zeros(1, np.int64), use_cache=False).read(ids))
    LAST.check(kept / (8192 * 4))


def test_the_twin_that_keeps_a_view_of_all_is_caught(rng):
    model, ids = wide(rng), rng.integers(0, 8192, (1, 64))

    def view():
        with autograd.no_grad():
            return model(ids).data[:, -1]

    LAST.catches(kept_bytes(view) / (8192 * 4))


# 15.10, 15.11: a text


def deep(rng, layers=6):
    """A model whose keys and values, for a row of 256, are 128 KiB a layer."""
    return probes.small_gpt(rng, vocab=16, context=256, layers=layers, dim=64, heads=2, scale=0.1)


def cache_of(rows, length, layers):
    return 2 * layers * rows * length * 64 * 4


def test_a_text_takes_its_keys_and_values_and_a_little_more(rng):
    """They are in memory that doubles: the old half and the new whole at the worst moment."""
    model, ids = deep(rng), rng.integers(0, 16, (1, 192))
    WRITE.check(peak_bytes(lambda: generate(model, ids, 16)) / cache_of(1, 208, 6))


def test_the_twin_that_records_a_graph_is_caught(rng):
    model, ids = deep(rng), rng.integers(0, 16, (1, 208))
    WRITE.catches(peak_bytes(lambda: model(ids)) / cache_of(1, 208, 6))


@pytest.mark.parametrize("use_cache", [True, False], ids=["with a cache", "without"])
def test_nothing_is_kept_of_a_text_but_the_text(use_cache, rng):
    model, ids = deep(rng), rng.integers(0, 16, (1, 200))
    AFTER.check(retained_bytes(lambda: generate(model, ids, 3, use_cache=use_cache)) / KIB)


def test_the_twin_that_leaves_the_caches_at_the_model_is_caught(rng):
    model, ids = deep(rng), rng.integers(0, 16, (1, 200))
    left = []

    def write():
        left.append(model.new_caches())
        with autograd.no_grad():
            model(ids, caches=left[-1])

    AFTER.catches(retained_bytes(write) / KIB)


# 15.12 beam_search


def test_beams_take_the_memory_of_as_many_rows(rng):
    model = deep(rng, 2)
    BEAMS.check(peak_bytes(lambda: beam_search(model, [1], 31, 8)) / cache_of(8, 32, 2))


def test_the_twin_that_keeps_the_caches_of_every_step_is_caught(rng):
    model, kept = deep(rng, 2), []

    def search():
        kept.clear()
        for length in range(1, 32):
            kept.append(model.new_caches())
            with autograd.no_grad():
                model(np.ones((8, length), np.int64), caches=kept[-1])

    BEAMS.catches(peak_bytes(search) / cache_of(8, 32, 2))


# 15.14 TokenDataset


def test_windows_are_made_when_they_are_asked_for(rng):
    ids = rng.integers(0, 99, 1 << 17)
    WINDOWS.check(peak_bytes(lambda: TokenDataset(ids, 64)[5]) / MIB)


def test_the_twin_that_makes_all_windows_is_caught(rng):
    ids = rng.integers(0, 99, 1 << 17)
    WINDOWS.catches(
        peak_bytes(lambda: np.lib.stride_tricks.sliding_window_view(ids, 65).astype(np.int64)) / MIB
    )


# 15.16 evaluate


def test_an_evaluation_holds_one_batch_at_a_time(rng):
    model, ids = wide(rng), rng.integers(0, 8192, 16 * 64 + 1)
    EVALUATE.check(peak_bytes(lambda: evaluate(model, ids, 1)) / (64 * 8192 * 4))


def test_the_twin_that_keeps_all_logits_is_caught(rng):
    model, ids = wide(rng), rng.integers(0, 8192, (16, 1, 64))

    def logits():
        with autograd.no_grad():
            return [model(x).data for x in ids]

    EVALUATE.catches(peak_bytes(logits) / (64 * 8192 * 4))


# 15.20 training_bytes


def test_the_activations_are_those_that_a_forward_pass_keeps(rng):
    model = probes.small_gpt(rng, vocab=64, context=64, layers=2, dim=32, heads=2)
    counted = training_bytes(model, 8, 64)["activations"]
    ids = rng.integers(0, 64, (8, 64))
    kept = kept_bytes(lambda: language_model_loss(model(ids), ids))
    LEARN.check(abs(counted / kept - 1))


def test_the_twin_that_counts_one_array_a_layer_is_caught(rng):
    model = probes.small_gpt(rng, vocab=64, context=64, layers=2, dim=32, heads=2)
    ids = rng.integers(0, 64, (8, 64))
    kept = kept_bytes(lambda: language_model_loss(model(ids), ids))
    LEARN.catches(abs(2 * 8 * 64 * 32 * 4 / kept - 1))


def test_a_cache_is_counted_and_not_made(rng):
    """Of 32 rows of 256, in 6 layers."""
    model = deep(rng)
    COUNT.check(peak_bytes(lambda: generation_bytes(model, 32, 256)) / cache_of(32, 256, 6))


def test_the_twin_that_makes_it_is_caught(rng):
    COUNT.catches(peak_bytes(lambda: np.zeros((6, 2, 32, 256, 64), np.float32)) / cache_of(32, 256, 6))


def test_learning_takes_many_times_what_writing_takes(rng):
    """For the same rows of the same length: gradients, two moments, and activations instead of a cache."""
    model = probes.small_gpt(rng, vocab=64, context=64, layers=2, dim=32, heads=2)
    learn, write = training_bytes(model, 8, 64), generation_bytes(model, 8, 64)
    assert sum(learn.values()) > 5 * sum(write.values()), f"bytes to learn {learn}, and to write {write}"
    assert learn["activations"] > 5 * write["cache"], f"bytes to learn {learn}, and to write {write}"
