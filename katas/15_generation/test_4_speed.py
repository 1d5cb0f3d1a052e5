"""Level 4: a token costs one look at the model, whatever its length, and a choice a few passes.

What overhead would hide is counted, in columns of ids that the model is given; the rest are ratios within
this run, in CPU time, never seconds. Each budget has a twin: a naive version, written out here, that must
not fit.
"""

import math

import numpy as np
import pytest

from dojo.measuring import Budget, WorkMeter, load_probes, race
from tinytorch.activations import softmax
from tinytorch.autograd import no_grad
from tinytorch.generation import (
    RepetitionPenalty,
    TokenDataset,
    TopK,
    TopP,
    beam_search,
    evaluate,
    generate,
    sample,
    text_stream,
)
from tinytorch.tokenization import BPETokenizer

probes = load_probes(__file__)

READ = Budget(
    "64 tokens after a prompt of 8",
    limit=80,
    reference=71,
    naive=2528,
    unit="columns read for each row",
    naively="a version that reads all of the text for each token",
)
SLIDE = Budget(
    "200 tokens in a context of 32",
    limit=6.5,
    reference=3.7,
    naive=31,
    unit="columns read for each token",
    naively="a version that moves its window by one each time, and reads it anew",
)
SEARCH = Budget(
    "a search of 4 beams for 32 tokens",
    limit=5.0,
    reference=4.1,
    naive=80,
    unit="columns read for each token",
    naively="a version that reads all of the rows for each token",
)
GROWTH = Budget(
    "the work of a token",
    limit=1.1,
    reference=0.7,
    naive=1.4,
    unit="as the power of how many come before it",
    naively="a version that reads all of them for each token",
)
LOOP = Budget(
    "writing 6 tokens",
    limit=3,  # a draw by sorting, in many small steps: 1.5, and 2.1 beside twelve busy processes
    reference=1.25,
    naive=5,
    unit="times the time of the model alone",
    naively="a version that asks the model five times more",
)
DRAW = Budget(
    "one draw for each of 2 rows of 4,096",
    limit=14,
    reference=3.5,
    naive=38,
    unit="times the time of their softmax",
    naively="a version that goes from id to id",
)
LARGEST = Budget(
    "TopK(40) of 2 rows of 4,096",
    limit=1.8,  # a right version that sorts stably needs 1.1
    reference=0.05,
    naive=5,
    unit="times the time of a stable np.argsort",
    naively="a version that goes from id to id",
)
LIKELIEST = Budget(
    "TopP(0.9) of 2 rows of 4,096",
    limit=2.3,  # a right version that sorts stably, and puts back in order what stays, needs 1.3
    reference=0.2,
    naive=5,
    unit="times the time of a softmax and a stable np.argsort",
    naively="a version that goes from id to id",
)
SAID = Budget(
    "a penalty on 512 ids among 4,096",
    limit=1.9,  # a right version that sorts them first needs 1.1
    reference=0.3,
    naive=3.4,
    unit="times the time of sorting them and looking them up",
    naively="a version that goes from id to id",
)
BATCH = Budget(
    "a batch of 192 windows of 64 ids",
    limit=45,  # a right version that takes window by window, twice, needs 20
    reference=1.5,
    naive=104,
    unit="times the time of taking as many ids by their places",
    naively="a version that takes id by id",
)
TELL = Budget(
    "the text of 1,024 ids as they come",
    limit=48,
    reference=15,
    naive=160,
    unit="times the time of 64",
    naively="a version that decodes all ids for each",
)
SCORE = Budget(
    "evaluating 16 windows of 16, 8 at a time",
    limit=0.5,
    reference=0.2,
    naive=1.0,
    unit="times the time of one at a time",
    naively="a version that does one at a time",
)


# 15.9 to 15.11: each column once


def columns(toy):
    return sum(columns for _, columns in toy.fed)


def test_each_column_of_a_text_is_read_once():
    toy = probes.Toy(context=128)
    generate(toy, np.ones((2, 8), np.int64), 64)
    READ.check(columns(toy))


def test_the_twin_that_reads_all_for_each_token_is_caught():
    toy = probes.Toy(context=128)
    for length in range(8, 72):
        with no_grad():
            toy(np.ones((1, length), np.int64))
    READ.catches(columns(toy))


@pytest.mark.parametrize("lengths", [[8, 8], [8, 3]], ids=str)
def test_beyond_the_context_a_token_costs_a_few_columns_and_no_window(lengths):
    """Half a window is read anew when it is full: as many columns as were written in between. Rows of two
    lengths hop at two times, and each time both are read, which makes it four."""
    toy = probes.Toy(context=32)
    generate(toy, np.ones((2, 8), np.int64), 200, lengths=lengths)
    SLIDE.check(columns(toy) / 200)


def test_the_twin_that_moves_its_window_by_one_is_caught():
    toy = probes.Toy(context=32)
    for length in range(8, 208):
        toy(np.ones((1, min(length, 32)), np.int64))
    SLIDE.catches(columns(toy) / 200)


def test_beams_are_read_once():
    toy = probes.Toy(context=64)
    beam_search(toy, np.ones(8, np.int64), 32, 4)
    SEARCH.check(sum(rows * columns for rows, columns in toy.fed) / 32)


def test_the_twin_that_reads_all_beams_for_each_token_is_caught():
    toy = probes.Toy(context=64)
    for length in range(8, 40):
        toy(np.ones((4, length), np.int64))
    SEARCH.catches(sum(rows * columns for rows, columns in toy.fed) / 32)


def work_of_a_token(model, length, use_cache):
    """FLOPs of what comes after so many tokens, less those of the same without it."""
    counts = []
    for count in (1, 2):
        with WorkMeter() as work:
            for p in model.parameters():
                p.data = work.track(p.data)
            generate(model, np.ones((1, length), np.int64), count, use_cache=use_cache)
        counts.append(work.flops)
    return counts[1] - counts[0]


def growth_of_a_token(use_cache):
    model = probes.small_gpt(np.random.default_rng(0), vocab=16, context=600, layers=1, dim=16, heads=2)
    short, long = (work_of_a_token(model, length, use_cache) for length in (128, 512))
    least = 2 * sum(p.size for p in model.parameters() if p.ndim > 1 and len(p.data) != 600)
    assert short >= least, "some of the work is not seen: every weight is multiplied and added once"
    return math.log(long / short) / math.log(4)


def test_the_work_of_a_token_grows_with_what_comes_before_it_and_not_faster():
    """A part is the same for all; the rest is the attention to each that came before."""
    GROWTH.check(growth_of_a_token(use_cache=True))


def test_the_twin_that_reads_all_that_comes_before_is_caught():
    model = probes.small_gpt(np.random.default_rng(0), vocab=16, context=600, layers=1, dim=16, heads=2)
    counts = []
    for length in (128, 512):
        with WorkMeter() as work, no_grad():
            for p in model.parameters():
                p.data = work.track(p.data)
            model(np.ones((1, length), np.int64))
        counts.append(work.flops)
    GROWTH.catches(math.log(counts[1] / counts[0]) / math.log(4))


def alone(model, ids, times=1):
    with no_grad():
        caches = model.new_caches()
        for _ in range(6):
            for _ in range(times - 1):
                model(ids)
            model(ids, caches=caches)


def test_the_loop_around_the_model_costs_little(rng):
    model = probes.small_gpt(rng, vocab=64, context=64, layers=2, dim=128, heads=2)
    ids = rng.integers(0, 64, (1, 1))
    LOOP.check(race(lambda: generate(model, ids, 6), lambda: alone(model, ids), limit=LOOP.limit))


def test_the_twin_that_asks_six_times_is_caught(rng):
    model = probes.small_gpt(rng, vocab=64, context=64, layers=2, dim=128, heads=2)
    ids = rng.integers(0, 64, (1, 1))
    LOOP.catches(race(lambda: alone(model, ids, 6), lambda: alone(model, ids), limit=LOOP.limit))


# 15.2 to 15.6: a choice


def table(rng):
    return rng.standard_normal((2, 4096), np.float32)


def test_a_draw_is_a_few_passes(rng):
    logits, draws = table(rng), np.random.default_rng(0)
    DRAW.check(
        race(lambda: sample(logits, rng=draws), lambda: softmax.forward(logits, axis=1), limit=DRAW.limit)
    )


def test_the_twin_that_draws_from_id_to_id_is_caught(rng):
    logits = table(rng)

    def slow():
        for row in logits:
            sums = [0.0]
            for one in row:
                sums.append(sums[-1] + math.exp(one))
            next(i for i, total in enumerate(sums) if total > 0.9 * sums[-1])

    DRAW.catches(race(slow, lambda: softmax.forward(logits, axis=1), limit=DRAW.limit))


NO_IDS = np.zeros((2, 1), np.int64)


def test_top_k_does_not_go_from_id_to_id(rng):
    logits, process = table(rng), TopK(40)
    LARGEST.check(
        race(
            lambda: process(logits, NO_IDS),
            lambda: np.argsort(logits, axis=1, kind="stable"),
            limit=LARGEST.limit,
        )
    )


def keep_one_by_one(logits, least):
    return [[x if x >= least else -math.inf for x in row] for row in logits.tolist()]


def sorted_by_hand(logits):
    """Each row through Python's sorted, and each id compared with the last that stays."""
    for row in logits:
        order = sorted(range(len(row)), key=lambda i: -row[i])
        keep_one_by_one(row[None], float(row[order[40]]))


def test_the_twin_of_top_k_from_id_to_id_is_caught(rng):
    logits = table(rng)
    LARGEST.catches(
        race(
            lambda: sorted_by_hand(logits),
            lambda: np.argsort(logits, axis=1, kind="stable"),
            limit=LARGEST.limit,
        )
    )


def sorted_shares(logits):
    return np.argsort(softmax.forward(logits, axis=1), axis=1, kind="stable")


def test_top_p_does_not_go_from_id_to_id(rng):
    logits, process = table(rng), TopP(0.9)
    LIKELIEST.check(
        race(lambda: process(logits, NO_IDS), lambda: sorted_shares(logits), limit=LIKELIEST.limit)
    )


def test_the_twin_of_top_p_from_id_to_id_is_caught(rng):
    logits = table(rng)
    LIKELIEST.catches(
        race(lambda: sorted_by_hand(logits), lambda: sorted_shares(logits), limit=LIKELIEST.limit)
    )


def sorted_and_looked_up(logits, ids):
    return [row[np.unique(said)] for row, said in zip(logits.copy(), ids, strict=True)]


def test_a_penalty_does_not_go_from_id_to_id(rng):
    logits, ids, process = table(rng), rng.integers(0, 4096, (2, 512)), RepetitionPenalty(1.3)
    SAID.check(
        race(lambda: process(logits, ids), lambda: sorted_and_looked_up(logits, ids), limit=SAID.limit)
    )


def test_the_twin_of_a_penalty_from_id_to_id_is_caught(rng):
    logits, ids = table(rng), rng.integers(0, 4096, (2, 512))

    def slow():
        out = logits.copy()
        for row, said in zip(out, ids, strict=True):
            for one in set(said.tolist()):
                row[one] = row[one] / 1.3 if row[one] > 0 else row[one] * 1.3

    SAID.catches(race(slow, lambda: sorted_and_looked_up(logits, ids), limit=SAID.limit))


# 15.13 text_stream


def test_a_text_is_told_in_time_as_it_is_long(rng):
    tokenizer = BPETokenizer()
    long, short = (rng.integers(97, 123, n) for n in (1024, 64))
    TELL.check(
        race(
            lambda: list(text_stream(tokenizer, long)),
            lambda: list(text_stream(tokenizer, short)),
            limit=TELL.limit,
        )
    )


def test_the_twin_that_decodes_all_for_each_id_is_caught(rng):
    tokenizer = BPETokenizer()
    long, short = (rng.integers(97, 123, n).tolist() for n in (1024, 64))

    def tell(ids):
        for end in range(1, len(ids) + 1):
            b"".join(map(tokenizer.vocabulary.tokens.__getitem__, ids[:end])).decode()

    TELL.catches(race(lambda: tell(long), lambda: tell(short), limit=TELL.limit))


# 15.14 TokenDataset


def test_a_batch_is_one_look_up(rng):
    ids = rng.integers(0, 99, 1 << 12)
    dataset, indices = TokenDataset(ids, 64), rng.integers(0, 4000, 192)
    places = indices[:, None] + np.arange(65)
    BATCH.check(race(lambda: dataset.__getitems__(indices), lambda: ids[places], limit=BATCH.limit))


def test_the_twin_that_takes_id_by_id_is_caught(rng):
    ids = rng.integers(0, 99, 1 << 12)
    indices = rng.integers(0, 4000, 192)
    places = indices[:, None] + np.arange(65)

    def slow():
        return np.array([[ids[i + j] for j in range(65)] for i in indices.tolist()])

    BATCH.catches(race(slow, lambda: ids[places], limit=BATCH.limit))


# 15.16 evaluate


def test_windows_are_evaluated_together(rng):
    model = probes.small_gpt(rng, vocab=32, context=16, layers=1, dim=16, heads=2)
    ids = rng.integers(0, 32, 16 * 16 + 1)
    SCORE.check(race(lambda: evaluate(model, ids, 8), lambda: one_by_one(model, ids), limit=SCORE.limit))


def one_by_one(model, ids):
    with no_grad():
        for start in range(0, len(ids) - 1, 16):
            model(ids[None, start : start + 16])


def test_the_twin_that_evaluates_one_at_a_time_is_caught(rng):
    model = probes.small_gpt(rng, vocab=32, context=16, layers=1, dim=16, heads=2)
    ids = rng.integers(0, 32, 16 * 16 + 1)
    SCORE.catches(race(lambda: one_by_one(model, ids), lambda: one_by_one(model, ids), limit=SCORE.limit))
