"""Level 2: draws have the right shares, a cache changes nothing but the work, and a batch is its rows.

Shares are judged by a chi-square test at 1e-9: of a thousand million right solutions one would be refused.
Models are in float64, where a cache moves logits by 1e-14 and not by 1e-6: no token hangs by a thread.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect
from dojo.measuring import load_probes
from tinytorch.generation import (
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
    beam_search,
    bits_per_character,
    evaluate,
    generate,
    language_model_loss,
    perplexity,
    sample,
    stream,
    text_stream,
)
from tinytorch.tokenization import BPETokenizer, CharTokenizer

probes = load_probes(__file__)
steady = settings(deadline=None, derandomize=True, max_examples=30)
few = settings(deadline=None, derandomize=True, max_examples=12)
SEEDS = st.integers(0, 2**32 - 1)


# 15.2 sample


def tail(distance, freedom):
    """How often a chi-square of so many degrees of freedom is larger than this: from that of 1 or of 2, in
    steps of 2 (Abramowitz and Stegun, 26.4.6). It is 1e-9 at 37.3 for 1, at 41.4 for 2, and at 60.8 for 9."""
    half, k = distance / 2, 2 - freedom % 2
    total = math.erfc(math.sqrt(half)) if k == 1 else math.exp(-half)
    while k < freedom:
        total += half ** (k / 2) * math.exp(-half) / math.gamma(k / 2 + 1)
        k += 2
    return total


def chi_square(counts, shares):
    """How far counts are from their shares; what has none must not occur."""
    counts, shares = np.asarray(counts, float), np.asarray(shares, float)
    assert not counts[shares == 0].any(), f"drawn although impossible: {counts} for shares {shares}"
    there = shares > 0
    wanted = counts.sum() * shares[there]
    assert wanted.min() > 5, "too few draws for this test"
    return float(((counts[there] - wanted) ** 2 / wanted).sum()), int(there.sum()) - 1


def assert_shares(drawn, shares):
    distance, freedom = chi_square(np.bincount(drawn, minlength=len(shares)), shares)
    chance = tail(distance, freedom) if freedom else 1.0
    assert chance > 1e-9, f"a chi-square of {distance:.0f}, {freedom} degrees of freedom: {chance:.0e}"


def softmax(logits):
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


DRAWS = 20_000


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "logits",
    [
        [0.0, 0.0],
        [0.0, 1.0, 2.0, 3.0, -1.0],
        [-np.inf, 1.0, -np.inf, 0.5, 3.0, -np.inf],
        [100.0, 101.0, 99.0],
        list(np.linspace(-2, 2, 40)),
    ],
    ids=["a coin", "five", "some ruled out", "large", "forty"],
)
def test_ids_are_drawn_with_the_probabilities_of_a_softmax(logits, dtype, rng):
    row = np.array(logits, dtype)
    assert_shares(sample(np.tile(row, (DRAWS, 1)), rng=rng), softmax(row.astype(float)))


def test_draws_one_after_the_other_have_the_same_shares(rng):
    """A row at a time, as a single text is written."""
    row = np.array([[0.0, 1.0, -1.0, 0.5]])
    drawn = np.concatenate([sample(row, rng=rng) for _ in range(6000)])
    assert_shares(drawn, softmax(row[0]))


def test_every_row_has_its_own_shares(rng):
    rows = rng.normal(size=(4, 6)) * 2
    drawn = sample(np.repeat(rows, 5000, axis=0), rng=rng).reshape(4, 5000)
    for row, ids in zip(rows, drawn, strict=True):
        assert_shares(ids, softmax(row))


def test_neighbouring_rows_are_independent(rng):
    """Of pairs of a fair and an unfair draw, all six come as often as both say."""
    rows = np.log(np.tile([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]], (DRAWS, 1)))
    drawn = sample(rows, rng=rng).reshape(-1, 2)
    assert_shares(drawn[:, 0] * 3 + drawn[:, 1], np.outer([0.5, 0.25, 0.25], [1, 1, 1]).ravel() / 3)


# 15.3 to 15.6: what processors do to the shares

SHARES = np.array([0.4, 0.25, 0.2, 0.1, 0.05])


@pytest.mark.parametrize(
    ("processor", "shares"),
    [
        (Temperature(0.5), SHARES**2 / (SHARES**2).sum()),
        (Temperature(2.0), SHARES**0.5 / (SHARES**0.5).sum()),
        (TopK(2), np.array([0.4, 0.25, 0, 0, 0]) / 0.65),
        (TopP(0.7), np.array([0.4, 0.25, 0.2, 0, 0]) / 0.85),
        (RepetitionPenalty(2.0), np.array([0.16, 0.25, 0.2, 0.01, 0.05]) / 0.67),  # log shares are below 0
    ],
    ids=["cold", "hot", "top k", "top p", "penalty"],
)
def test_a_processor_gives_draws_the_shares_that_it_promises(processor, shares, rng):
    logits = np.tile(np.log(SHARES), (DRAWS, 1))
    ids = np.tile([[0, 3, 0]], (DRAWS, 1))
    assert_shares(sample(processor(logits, ids), rng=rng), shares)


def test_generated_texts_have_the_shares_of_the_model(rng):
    """Of all texts of two tokens, by the toy's own logits."""
    toy = probes.Toy(vocab=3, seed=2)
    got = generate(toy, np.tile([[1, 0]], (DRAWS, 1)), 2, rng=rng, processors=[Temperature(2.0)])
    first = softmax(toy.after([1, 0]) / 2)
    both = np.array([first[i] * softmax(toy.after([1, 0, i]) / 2) for i in range(3)])
    assert_shares(got[:, 2] * 3 + got[:, 3], both.ravel())


# 15.9 to 15.12: with a cache and without

STRATEGIES = {
    "greedy": {},
    "sampled": {"rng": True},
    "temperature": {"rng": True, "processors": [Temperature(0.7)]},
    "top k": {"rng": True, "processors": [TopK(3)]},
    "top p": {"rng": True, "processors": [TopP(0.8)]},
    "penalty": {"processors": [RepetitionPenalty(1.7)]},
    "stop": {"stop": (3, 5), "pad_id": 0},
    "all": {
        "rng": True,
        "processors": [RepetitionPenalty(1.2), Temperature(0.9), TopK(6), TopP(0.9)],
        "stop": (2,),
    },
}
MODELS = {
    "learned": {},
    "sinusoidal": {"positions": "sinusoidal"},
    "rotary, grouped": {"positions": "rotary", "heads": 4, "num_kv_heads": 2},
    "untied, with dropout": {"tied": False, "dropout": 0.5},
}


def gpt(seed, **options):
    return probes.small_gpt(np.random.default_rng(seed), np.float64, context=8, **options)


def written(model, ids, count, use_cache, seed, how):
    how = dict(how)
    if how.pop("rng", False):
        how["rng"] = np.random.default_rng(seed)
    return generate(model, ids, count, use_cache=use_cache, **how)


@pytest.mark.parametrize(
    ("kind", "strategy"),
    [*(("learned", one) for one in STRATEGIES), *((kind, "all") for kind in MODELS if kind != "learned")],
)
def test_a_tinygpt_writes_the_same_with_a_cache_and_without(kind, strategy):
    """Beyond its context of 8, too, with prompts of several lengths."""
    model = gpt(2, **MODELS[kind])
    ids = np.random.default_rng(2).integers(0, 11, (3, 7))
    how = {**STRATEGIES[strategy], "lengths": [7, 4, 1]}
    cached, plain = (written(model, ids, 12, use_cache, 3, how) for use_cache in (True, False))
    expect(cached, plain)
    assert len(set(cached[:, 7:].ravel().tolist())) > 2, "a model that always says the same shows nothing"


@few
@given(SEEDS, st.integers(1, 3), st.integers(1, 9), st.integers(1, 20), st.sampled_from(sorted(STRATEGIES)))
def test_a_toy_writes_the_same_with_a_cache_and_without(seed, rows, prompt, count, strategy):
    rng = np.random.default_rng(seed)
    toy = probes.Toy(context=int(rng.integers(1, 12)), seed=seed)
    ids, lengths = rng.integers(0, 7, (rows, prompt)), rng.integers(1, prompt + 1, rows)
    how = {**STRATEGIES[strategy], "lengths": lengths}
    expect(written(toy, ids, count, True, seed, how), written(toy, ids, count, False, seed, how))


@pytest.mark.parametrize("kind", MODELS)
def test_beams_of_a_tinygpt_are_the_same_with_a_cache_and_without(kind):
    model = gpt(4, **MODELS[kind])
    prompt = np.array([[1, 2, 3]])
    cached, plain = (
        beam_search(model, prompt, 8, 4, stop=(10,), use_cache=use_cache) for use_cache in (True, False)
    )
    expect([ids.tolist() for ids, _ in cached], [ids.tolist() for ids, _ in plain])
    expect([score for _, score in cached], [score for _, score in plain])


def test_a_stream_is_what_generate_returns():
    model, ids = gpt(5), np.array([[1, 2, 3], [4, 5, 6]])
    for name, how in STRATEGIES.items():
        if "rng" in how:
            one, other = ({**how, "rng": np.random.default_rng(1)} for _ in range(2))
        else:
            one = other = how
        columns = np.stack(list(stream(model, ids, 8, **one)), axis=1)
        expect(columns, generate(model, ids, 8, **other)[:, 3:]), name


# 15.11 generate, of a batch


@pytest.mark.parametrize("kind", MODELS)
def test_a_row_of_a_batch_is_what_it_would_be_alone(kind):
    """Whatever its neighbours are, however long, and beyond the context, where rows hop one by one."""
    model = gpt(6, **MODELS[kind])
    ids, lengths = np.random.default_rng(7).integers(0, 11, (4, 9)), [9, 5, 1, 7]
    penalty = [RepetitionPenalty(1.5)]
    got = generate(model, ids, 8, lengths=lengths, processors=penalty, pad_id=0)
    for row, length, new in zip(ids, lengths, got[:, 9:], strict=True):
        expect(generate(model, row[None, :length], 8, processors=penalty)[0, length:], new)


@few
@given(SEEDS, st.integers(1, 4), st.integers(1, 12))
def test_a_row_of_a_batch_is_what_a_loop_by_hand_says(seed, rows, prompt):
    rng = np.random.default_rng(seed)
    toy = probes.Toy(context=int(rng.integers(1, 12)), seed=seed)
    ids, lengths = rng.integers(0, 7, (rows, prompt)), rng.integers(1, prompt + 1, rows)
    got = generate(toy, ids, 15, lengths=lengths)
    for row, length, new in zip(ids, lengths, got[:, prompt:], strict=True):
        expect(new, np.array(probes.by_hand(toy, row[:length], 15)[length:]))


# 15.12 beam_search


def log_probability(toy, row, prompt):
    steps = [(toy.after(row[:i]), row[i]) for i in range(prompt, len(row))]
    return sum(math.log(softmax(logits)[one]) for logits, one in steps)


@few
@given(SEEDS, st.integers(1, 6), st.integers(1, 5), st.sampled_from([(), (0,), (1, 3)]))
def test_beams_are_in_order_are_different_and_say_how_likely_they_are(seed, beams, count, stop):
    toy = probes.Toy(vocab=5, seed=seed)
    found = beam_search(toy, [1, 2], count, beams, 1.0, stop)
    assert 1 <= len(found) <= beams
    assert len({tuple(ids) for ids, _ in found}) == len(found)
    means = [score / (len(ids) - 2) for ids, score in found]
    assert means == sorted(means, reverse=True)
    for ids, score in found:
        expect(score, log_probability(toy, ids.tolist(), 2))
        stops = [i for i, one in enumerate(ids[2:]) if one in stop]
        assert stops in ([], [len(ids) - 3]), "a text goes on after it has stopped"
        assert stops or len(ids) == 2 + count


# 15.13 text_stream


@steady
@given(st.lists(st.integers(0, 258), max_size=12))
def test_the_pieces_of_any_bytes_are_what_decode_says(ids):
    tokenizer = BPETokenizer([(0xE2, 0x82)], special_tokens=["<a>", "\u20ac"])
    texts = list(text_stream(tokenizer, ids))
    expect("".join(texts), tokenizer.decode(ids))
    assert all(texts), "an empty piece"


@steady
@given(st.text(max_size=12))
def test_the_pieces_of_any_text_are_its_characters(text):
    text = text.encode("utf-8", "ignore").decode()
    tokenizer = BPETokenizer()
    expect(list(text_stream(tokenizer, tokenizer.encode(text))), list(text))
    letters = CharTokenizer(sorted(set(text)))
    expect(list(text_stream(letters, letters.encode(text))), list(text))


# 15.15 to 15.17: how well is a text predicted?


def test_an_evaluation_is_the_loss_of_a_window(rng):
    model, ids = gpt(8), rng.integers(0, 11, 9)
    expect(evaluate(model, ids), float(language_model_loss(model(ids[None, :-1]), ids[None, 1:]).data))


@few
@given(SEEDS, st.integers(2, 60), st.integers(1, 5))
def test_an_evaluation_does_not_depend_on_its_batches(seed, length, batch_size):
    rng = np.random.default_rng(seed)
    toy, ids = probes.Toy(context=7), rng.integers(0, 7, length)
    expect(evaluate(toy, ids, batch_size), evaluate(toy, ids, 1))


@steady
@given(st.floats(0.01, 8), st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_text_is_as_likely_in_bits_as_in_nats(nats, tokens, characters):
    """2 to the bits of all characters is e to the nats of all tokens."""
    bits = bits_per_character(nats, tokens, characters) * characters
    expect(bits * math.log(2) / (nats * tokens), 1.0)
    expect(math.log(perplexity(nats)), nats)
