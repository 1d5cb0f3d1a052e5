"""Put together, your parts compute what the formulas say: tokens, logits, gradients, steps of a training."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dojo.compose import load_file
from dojo.expect import expect
from tinytorch.generation import RepetitionPenalty, TokenDataset, generate, language_model_loss, token_batches
from tinytorch.layers import Parameter
from tinytorch.tensor import Tensor
from tinytorch.tokenization import split_words

M3 = load_file(Path(__file__).with_name("language.py"))
PLAIN = load_file(Path(__file__).with_name("plain.py"))

TEXT = "the quick brown fox jumps over the lazy dog; " * 8
SMALL = M3.Recipe(
    "pydoc", steps=6, every=3, context=8, dim=8, layers=2, heads=2, batch=3, lr=0.02, warmup=2, decay=0.5
)


def start(model, seed=0):
    """Weights that do not depend on how a model draws its own, put into it; and as float64, each once."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, parameter in model.named_parameters():
        drawn = rng.normal(1.0 if parameter.ndim == 1 else 0.0, 0.3, parameter.shape)
        state[name] = drawn.astype(np.float32).astype(np.float64)
        parameter.data[...] = state[name]
    return state


def small(**changes):
    story = M3.Story(replace(SMALL, **changes), TEXT)
    return story, start(story.model)


def batch(story, rows=3):
    windows = TokenDataset(story.ids, story.recipe.context)
    return windows.__getitems__(np.arange(0, 7 * rows, 7))


@pytest.mark.parametrize("vocabulary", [0, 300], ids=["characters", "byte pairs"])
def test_all_of_the_documentation_comes_back_from_its_tokens(vocabulary):
    text = M3.text_of("pydoc")[:60_000]
    tokenizer = M3.tokenizer_of(M3.Recipe("pydoc", vocabulary), text)
    ids = tokenizer.encode(text)
    assert tokenizer.vocab_size == (vocabulary or len(set(text)))
    assert 0 <= ids.min() <= ids.max() < tokenizer.vocab_size
    expect(tokenizer.decode(ids), text)


def test_byte_pairs_are_joined_in_the_order_of_how_often_they_occur():
    """Against counting all pairs anew for each of 80 merges, on words of small letters."""
    text = re.sub("[^a-z]+", " ", M3.text_of("pydoc")[:30_000])
    words = [word.encode() for word in split_words(text)]
    assert b"".join(words) == text.encode()
    tokenizer = M3.BPETokenizer.train(text, 256 + 80)
    expect(list(map(tuple, tokenizer.merges)), list(PLAIN.merges_of(words, 80)))


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_logits_are_those_of_plain_numpy(positions):
    story, state = small(positions=positions)
    ids, _ = batch(story)
    logits = story.model(ids)
    assert logits.dtype == np.float32
    expect(logits, PLAIN.logits(state, ids, 2, 2).astype(np.float32), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_the_gradient_of_every_weight_says_how_the_loss_moves(positions):
    """In a random direction for each weight, by central differences of the plain loss."""
    story, state = small(positions=positions)
    ids, targets = batch(story)
    loss = language_model_loss(story.model(ids), targets)
    loss.backward()
    expect(float(loss.data), PLAIN.loss(state, ids, targets, 2, 2), rtol=1e-5)
    rng = np.random.default_rng(1)
    for name, parameter in story.model.named_parameters():
        direction = rng.normal(size=parameter.shape)
        ends = [
            PLAIN.loss({**state, name: state[name] + h * direction}, ids, targets, 2, 2)
            for h in (1e-5, -1e-5)
        ]
        assert parameter.grad is not None, name
        expect(float((parameter.grad * direction).sum()), (ends[0] - ends[1]) / 2e-5, rtol=1e-3, atol=1e-5)


@pytest.mark.timeout(60)
def test_a_training_goes_step_by_step_as_in_plain_numpy():
    """Two epochs of three steps: gradients by differences, cut, AdamW, a rate that rises and falls.

    The windows are those that the loader hands out.
    """
    changes = {"layers": 1, "dim": 4}
    story, state = small(**changes)
    twin = M3.Story(replace(SMALL, **changes), TEXT)
    loader = token_batches(twin.ids, 8, 3, batches=3, rng=twin.for_windows)
    batches = [(x.copy(), y.copy()) for _ in range(2) for x, y in loader]
    for ids, targets in batches:
        expect(targets[:, :-1], ids[:, 1:])
    history = story.train()
    optimizer, losses = PLAIN.AdamW(state, 0.5), []
    for (ids, targets), rate in zip(batches, PLAIN.rates(0.02, 6, 2), strict=True):
        losses.append(PLAIN.loss(state, ids, targets, 1, 2))
        optimizer.step(PLAIN.gradients(state, ids, targets, 1, 2), rate)
    expect(np.array(history["loss"]), np.array(losses).reshape(2, 3).mean(axis=1), rtol=1e-4)
    for name, parameter in story.model.named_parameters():
        # Adam divides by the gradient's own size: where that is nearly 0, rounding shows.
        expect(parameter.data, state[name].astype(np.float32), rtol=1e-2, atol=3e-3)


def test_the_loss_of_unseen_text_is_the_mean_over_its_windows():
    story, state = small()
    ids = story.unseen_ids
    nats = []
    for begin in range(0, len(ids) - 1, 8):
        window = ids[begin : begin + 9]
        nats += [PLAIN.loss(state, window[None, :-1], window[None, 1:], 2, 2)] * (len(window) - 1)
    characters = len(story.unseen)
    right = sum(nats) / characters
    found, bits = story.loss()
    expect(found, right, rtol=1e-4)
    expect(bits, right / np.log(2), rtol=1e-4)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("manner", M3.MANNERS, ids=str)
def test_the_cache_changes_no_token_also_beyond_the_context(manner, positions):
    """20 tokens after 3, where the context is of 8."""
    story, _ = small(positions=positions)
    prompt = story.ids[None, :3]
    processors = M3.MANNERS[manner]

    def new(use_cache):
        rng = np.random.default_rng(5) if processors else None
        return generate(story.model, prompt, 20, processors=processors, rng=rng, use_cache=use_cache)

    expect(np.asarray(new(True)), np.asarray(new(False)))


@pytest.mark.parametrize("manner", M3.MANNERS, ids=str)
def test_each_manner_draws_as_often_as_its_formula_says(manner):
    """The token after "the quick", 4,000 times; to five deviations."""
    story, state = small(context=16)
    prompt = story.tokenizer.encode("the quick")
    shares = PLAIN.shares(PLAIN.logits(state, prompt[None], 2, 2)[0, -1], prompt, manner)
    processors, rng = M3.MANNERS[manner], np.random.default_rng(7)
    rows = np.tile(prompt, (4000, 1))
    new = generate(story.model, rows, 1, processors=processors, rng=rng if processors else None)[:, -1]
    found = np.bincount(np.asarray(new), minlength=len(shares)) / 4000
    expect(found, shares, rtol=0, atol=5 * np.sqrt(0.25 / 4000))
    assert not found[shares == 0].any()


def test_the_likeliest_token_is_that_of_plain_numpy():
    story, state = small()
    prompt = story.ids[:3]
    text = "".join(M3.written(story, story.tokenizer.decode(prompt), 5, "the likeliest"))
    ids = list(prompt)
    for _ in range(5):
        ids.append(int(PLAIN.logits(state, np.array([ids]), 2, 2)[0, -1].argmax()))
    expect(text, story.tokenizer.decode(np.array(ids[3:])))


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_beyond_the_context_the_window_is_that_of_plain_numpy(positions):
    """Of 8, and it moves by 4 when it is full. A penalty on all that was said keeps the text from going in a
    circle, where every window says the same.
    """
    story, state = small(positions=positions)
    ids, begin = list(story.ids[:3]), 0
    got = generate(story.model, np.array([ids]), 14, processors=[RepetitionPenalty(5.0)])
    for _ in range(14):
        begin += 4 if len(ids) - begin > 8 else 0
        x = PLAIN.logits(state, np.array([ids[begin:]]), 2, 2)[0, -1]
        x[ids] = np.where(x[ids] > 0, x[ids] / 5, x[ids] * 5)
        ids.append(int(x.argmax()))
    expect(np.asarray(got)[0].tolist(), ids)
    assert len(set(ids)) > 6, "a text that says the same again and again shows nothing"


def test_a_piece_of_text_is_there_as_soon_as_its_token_is():
    story, _ = small()
    calls = []
    story.model.register_forward_hook(lambda *_: calls.append(1))
    pieces = M3.written(story, "the ", 5, "temperature 0.8")
    for asked in range(1, 6):
        next(pieces)
        expect(len(calls), asked)


def test_attention_maps_are_shares_of_what_came_before():
    story, state = small()
    ids = story.ids[:8]
    maps = M3.attention_maps(story.model, ids)
    x = state["tokens.weight"][ids]
    q, k, _ = np.split(
        PLAIN.linear(PLAIN.norm(x, state, "blocks.0.ln1"), state, "blocks.0.attn.qkv_proj"), 3, axis=-1
    )
    scores = PLAIN.turned(q[:, 4:]) @ PLAIN.turned(k[:, 4:]).T / 2  # of the second head; the root of 4
    right = PLAIN.softmax(np.where(np.tri(8, dtype=bool), scores, -np.inf))
    expect(maps[0][1], right.astype(np.float32), rtol=1e-3, atol=1e-5)
    assert len(maps) == 2
    for layer in maps:
        expect(np.asarray(layer).sum(axis=-1), np.ones((2, 8), np.float32), rtol=1e-5)


def test_the_head_and_the_table_of_tokens_are_one_parameter():
    story, _ = small()
    names = [name for name, p in story.model.named_parameters() if p.shape == story.model.tokens.weight.shape]
    assert names == ["tokens.weight"]
    assert isinstance(story.model.tokens.weight, Parameter)
    x = Tensor(np.ones((1, 8), np.float32))
    expect(story.model.head(x), story.model.tokens.weight.data.sum(axis=1)[None], rtol=1e-5)
