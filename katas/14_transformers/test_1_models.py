"""Level 1: a GPT and an encoder, against the same models written out in numpy, and what they cost."""

import dataclasses
import math

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.attention import KVCache
from tinytorch.autograd import no_grad
from tinytorch.embeddings import LearnedPositions, Rotary, SinusoidalPositions
from tinytorch.layers import Linear, count_parameters
from tinytorch.tensor import Tensor
from tinytorch.transformers import (
    Encoder,
    GPTConfig,
    LayerNorm,
    TinyGPT,
    activation_bytes,
    parameters_by_part,
)

SMALL = GPTConfig(vocab_size=11, context=8, dim=12, num_layers=2, num_heads=3)
KINDS = {
    "learned": SMALL,
    "sinusoidal, untied": dataclasses.replace(SMALL, positions="sinusoidal", tied=False),
    "rotary, grouped": dataclasses.replace(
        SMALL, positions="rotary", num_heads=2, num_kv_heads=1, hidden=5, bias=False
    ),
}
POSITIONS = ("learned", "sinusoidal", "rotary")


def new(seed=0):
    return np.random.default_rng(seed)


def with_weights(model, seed=0):
    """The model with all its weights drawn, norms and biases too, so that none can be left out unseen."""
    rng = new(seed)
    for p in model.parameters():
        p.data[...] = rng.normal(size=p.shape) * 0.5
    return model


def of(positions):
    return dataclasses.replace(SMALL, positions=positions, dim=16, num_heads=4)


# The same models, written out.


def linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0)


def norm(x, state, name):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def turn(x):
    """(T, D): pairs (i, i + D / 2) as complex numbers, turned by position / 10,000 ** (2i / D)."""
    half = x.shape[1] // 2
    angles = np.outer(np.arange(len(x)), 10_000.0 ** (-np.arange(half) / half))
    turned = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], axis=1)


def attend(x, state, name, c, allowed):
    """One text (T, dim), head by head."""
    size, heads = c.dim // c.num_heads, c.num_heads
    shared = heads // (c.num_kv_heads or heads)
    pieces = np.split(linear(x, state, f"{name}.qkv_proj"), range(size, c.dim + 2 * c.kv_dim, size), axis=1)
    q, k, v = pieces[:heads], pieces[heads : heads + heads // shared], pieces[heads + heads // shared :]
    if c.positions == "rotary":
        q, k = [turn(a) for a in q], [turn(a) for a in k]
    found = []
    for h in range(heads):
        scores = np.exp(q[h] @ k[h // shared].T / math.sqrt(size)) * allowed
        found.append(scores / scores.sum(1, keepdims=True) @ v[h // shared])
    return linear(np.concatenate(found, axis=1), state, f"{name}.out_proj")


def think(x, state, name):
    z = linear(x, state, f"{name}.fc")
    bent = z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
    return linear(bent, state, f"{name}.proj")


def waves(c):
    angles = np.outer(np.arange(c.context), 10_000.0 ** (-np.arange(0, c.dim, 2) / c.dim))
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(c.context, -1)


def stream(state, c, text, allowed, norm_first, start=lambda x: x):
    """What the last block gives for one text (T,)."""
    x = state["tokens.weight"][text]
    if c.positions != "rotary":
        table = state["positions.weight"] if c.positions == "learned" else waves(c)
        x = x + table[: len(text)]
    x = start(x)
    for i in range(c.num_layers):
        at = f"blocks.{i}."
        if norm_first:
            x = x + attend(norm(x, state, f"{at}ln1"), state, f"{at}attn", c, allowed)
            x = x + think(norm(x, state, f"{at}ln2"), state, f"{at}mlp")
        else:
            x = norm(x + attend(x, state, f"{at}attn", c, allowed), state, f"{at}ln1")
            x = norm(x + think(x, state, f"{at}mlp"), state, f"{at}ln2")
    return x


def doubled(model):
    return {name: array.astype(np.float64) for name, array in model.state_dict().items()}


def gpt(model, ids):
    """The logits of each text, in float32."""
    state, c = doubled(model), model.config
    head = state["tokens.weight" if c.tied else "head.weight"]
    past = np.tri(ids.shape[1])
    outs = [norm(stream(state, c, text, past, True), state, "ln_f") @ head.T for text in ids]
    return np.array(outs, np.float32)


# 14.10 Transformer


@pytest.mark.parametrize("name", KINDS)
def test_the_parts_of_a_model_have_the_shapes_of_its_numbers(name):
    c = KINDS[name]
    model = TinyGPT(c, rng=new())
    assert model.config is c
    shapes = {n: p.shape for n, p in model.named_parameters()}
    hidden, kv = c.hidden or 48, 6 if c.num_kv_heads else 12
    expected = {"tokens.weight": (11, 12), "ln_f.weight": (12,), "ln_f.bias": (12,)}
    if c.positions == "learned":
        expected["positions.weight"] = (8, 12)
    if not c.tied:
        expected["head.weight"] = (11, 12)
    for i in range(2):
        for part, shape in (
            ("attn.qkv_proj", (12 + 2 * kv, 12)), ("attn.out_proj", (12, 12)),
            ("mlp.fc", (hidden, 12)), ("mlp.proj", (12, hidden)),
        ):  # fmt: skip
            expected[f"blocks.{i}.{part}.weight"] = shape
            if c.bias:
                expected[f"blocks.{i}.{part}.bias"] = shape[:1]
        for part in ("ln1", "ln2"):
            expected |= {f"blocks.{i}.{part}.{kind}": (12,) for kind in ("weight", "bias")}
    expect(shapes, expected)


def test_positions_are_of_the_kind_that_was_asked_for():
    kinds = [LearnedPositions, SinusoidalPositions, Rotary]
    for positions, kind in zip(POSITIONS, kinds, strict=True):
        model = TinyGPT(of(positions), rng=new())
        assert isinstance(model.positions, kind)
        for block in model.blocks:
            assert block.attn.rotary is (model.positions if kind is Rotary else None)
    expect(model.positions.cos.shape, (8, 2))  # 8 positions, half of a head of 4
    with expect_error(ValueError, "absolute"):
        of("absolute")
    with expect_error(dataclasses.FrozenInstanceError):  # a config is not changed under a model
        model.config.dim = 32


@pytest.mark.parametrize("positions", POSITIONS)
def test_the_stream_starts_with_tokens_and_where_they_stand(positions):
    model = with_weights(TinyGPT(of(positions), rng=new()))
    ids, state = np.array([[3, 1, 4], [1, 5, 9]]), doubled(model)
    tables = {"learned": lambda: state["positions.weight"], "sinusoidal": lambda: waves(model.config)}
    table = tables.get(positions, lambda: np.zeros((8, 16)))()
    tokens = state["tokens.weight"][ids]
    expect(model.embed(ids), (tokens + table[:3]).astype(np.float32))
    expect(model.embed(ids, 2), (tokens + table[2:5]).astype(np.float32))
    own = np.array([[0, 0, 1], [4, 5, 7]])
    expect(model.embed(ids, 2, own), (tokens + table[own]).astype(np.float32))


def test_a_text_that_is_longer_than_the_context_is_refused_by_numbers():
    for positions in POSITIONS:
        model = TinyGPT(of(positions), rng=new())
        model.embed(np.zeros((1, 8), int))
        model.embed(np.zeros((1, 3), int), 5)
        for length, offset in ((9, 0), (3, 6)):
            with expect_error(ValueError, "9", "8"):
                model.embed(np.zeros((1, length), int), offset)


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3), ()], ids=str)
def test_ids_without_a_batch_are_refused_by_their_shape(shape):
    ids, model, reader = np.zeros(shape, int), TinyGPT(SMALL, rng=new()), Encoder(SMALL, rng=new())
    lengths = np.ones(shape[:1], int)
    for call in (model.embed, model, reader, lambda ids: reader(ids, lengths)):
        with expect_error(ValueError, str(shape)):
            call(ids)


def test_the_start_of_the_stream_is_dropped_in_training():
    model = TinyGPT(dataclasses.replace(SMALL, dropout=0.5), rng=new())
    ids = np.arange(8)[None]
    trained, used = model.embed(ids).data, model.eval().embed(ids).data
    gone = trained == 0
    assert 0.2 < gone.mean() < 0.8
    expect(trained[~gone], 2 * used[~gone])
    dropping = [type(m).__name__ for m in model.modules()].count("Dropout")
    expect(dropping, 1 + 2 * 2)  # and both halves of both blocks


# 14.11 draw


def test_weights_are_drawn_as_those_of_gpt2():
    """Normal with deviation 0.02, and what adds to the stream is smaller by the root of all additions."""
    model = TinyGPT(GPTConfig(300, context=200, dim=64, num_layers=8, num_heads=4, tied=False), rng=new())
    for name, p in model.named_parameters():
        if p.ndim == 2:
            last = name.endswith(("out_proj.weight", "mlp.proj.weight"))
            expect(float(p.data.std()), 0.02 / 4 if last else 0.02, rtol=0.05)
            expect(float(p.data.mean()), 0.0, atol=0.001)
            far = float((abs(p.data) > 2 * p.data.std()).mean())  # of a normal distribution, 4.6 %
            assert 0.03 < far < 0.06, f"{name}: {far:.1%} lie beyond two deviations"
        else:
            norms = "ln" in name and name.endswith("weight")
            expect(p.data, np.full(p.shape, 1 if norms else 0, np.float32))


def test_one_seed_gives_one_model():
    one, same, other = (TinyGPT(SMALL, rng=new(seed)).state_dict() for seed in (0, 0, 1))
    for name, array in one.items():
        expect(same[name], array)
        assert array.ndim == 1 or (other[name] != array).all()


def test_one_seed_drops_the_same():
    """What is dropped is drawn from the generator that the weights came from: a training can be repeated."""
    config, ids = dataclasses.replace(SMALL, dropout=0.5), np.arange(8)[None]
    one, same = (TinyGPT(config, rng=new()) for _ in range(2))
    for _ in range(2):
        expect(one(ids), same(ids).data)


def test_drawing_again_keeps_the_parameters_and_the_weights_of_norms():
    """An optimizer that holds the parameters goes on with them."""
    model = with_weights(TinyGPT(SMALL, rng=new()))
    held = {name: id(p) for name, p in model.named_parameters()}
    before = {n: p.data.copy() for n, p in model.named_parameters() if "ln" in n and n.endswith("weight")}
    model.draw(new(3))
    for name, array in before.items():
        expect(model.state_dict()[name], array)
    expect({name: id(p) for name, p in model.named_parameters()}, held)
    for bias in (model.blocks[1].mlp.fc.bias, model.blocks[0].ln2.bias, model.ln_f.bias):
        expect(bias, np.zeros(bias.shape, np.float32))
    expect(float(model.tokens.weight.data.std()), 0.02, rtol=0.2)


def test_a_new_model_knows_nothing():
    """Its loss is log(vocab_size), nearly: every token is as likely as any other."""
    model = TinyGPT(GPTConfig(500, context=16, dim=32, num_layers=4, num_heads=4), rng=new())
    logits = model(new().integers(0, 500, (4, 16))).data.astype(np.float64)
    loss = np.log(np.exp(logits).sum(-1)) - logits[..., 0]
    expect(float(loss.mean()), math.log(500), rtol=0.01)


# 14.12, 14.13 TinyGPT


@pytest.mark.parametrize("name", KINDS)
def test_logits_are_those_of_the_model_written_out(name):
    model = with_weights(TinyGPT(KINDS[name], rng=new()))
    ids = new(1).integers(0, 11, (3, 7))
    expect(model(ids), gpt(model, ids), rtol=1e-3)


def test_ids_may_be_an_array_a_tensor_or_lists():
    model, ids = TinyGPT(SMALL, rng=new()), [[3, 1, 4], [1, 5, 9]]
    expected = model(np.array(ids)).data
    for given in (ids, Tensor(np.array(ids)), np.array(ids, np.uint8)):
        expect(model(given), expected)
    with expect_error(ValueError, "11"):
        model([[11]])


@pytest.mark.parametrize("kind", [TinyGPT, Encoder])
def test_ids_that_are_no_integers_are_refused(kind):
    with expect_error(TypeError, "float64"):
        kind(SMALL, rng=new())(np.ones((1, 3)))


def test_a_tied_head_is_the_table_of_tokens():
    tied = TinyGPT(SMALL, rng=new())
    assert tied.head.weight is tied.tokens.weight
    loose = TinyGPT(dataclasses.replace(SMALL, tied=False), rng=new())
    assert isinstance(loose.head, Linear)
    assert loose.head.bias is None
    expect(count_parameters(loose) - count_parameters(tied), 11 * 12)


def test_both_uses_of_a_tied_table_have_a_say_in_its_gradient():
    """The row of a token that was not read gets what the head says of it alone; that is not nothing."""
    model = with_weights(TinyGPT(SMALL, rng=new()))
    model(np.array([[1, 2]])).sum().backward()
    grad = model.tokens.weight.grad
    expect(grad[5], grad[6])
    assert abs(grad[5]).max() > 0.1
    assert abs(grad[1] - grad[5]).max() > 0.1


@pytest.mark.parametrize("name", KINDS)
def test_no_place_sees_what_follows(name):
    model = with_weights(TinyGPT(KINDS[name], rng=new()))
    ids = new(1).integers(0, 11, (2, 8))
    other = ids.copy()
    other[:, 5:] = (ids[:, 5:] + 3) % 11
    expect(model(other).data[:, :5], model(ids).data[:, :5], rtol=1e-5)


def test_a_model_of_one_block_has_one_cache():
    model = with_weights(TinyGPT(dataclasses.replace(SMALL, num_layers=1), rng=new()))
    with no_grad():
        caches, ids = model.new_caches(), np.array([[3, 1, 4]])
        parts = [model(ids[:, i : i + 1], caches=caches).data for i in range(3)]
        expect(np.concatenate(parts, axis=1), model(ids).data, rtol=1e-4)


def test_a_new_model_has_new_caches_for_each_block():
    model = TinyGPT(SMALL, rng=new())
    one, other = model.new_caches(), model.new_caches()
    expect([(type(c), c.length) for c in one], [(KVCache, 0)] * 2)
    expect(len({id(c) for c in one + other}), 4)


@pytest.mark.parametrize("steps", [(1,) * 8, (3, 1, 4), (8,)], ids=str)
@pytest.mark.parametrize("positions", POSITIONS)
def test_with_caches_a_text_can_be_read_bit_by_bit(positions, steps):
    model = with_weights(TinyGPT(of(positions), rng=new()))
    ids = new(1).integers(0, 11, (2, 8))
    with no_grad():
        caches, outs = model.new_caches(), []
        for start, n in zip(np.cumsum((0, *steps)), steps, strict=False):
            outs.append(model(ids[:, start : start + n], caches=caches).data)
        expect(np.concatenate(outs, axis=1), model(ids).data, rtol=1e-4)
        expect([cache.length for cache in caches], [8, 8])
        with expect_error(ValueError, "9", "8"):
            model(ids[:, :1], caches=caches)
        expect([cache.length for cache in caches], [8, 8])  # what was refused is in none of them


def test_texts_that_are_read_in_turns_do_not_know_of_each_other():
    """Where the ids stand is in the caches, and not in the model."""
    model = with_weights(TinyGPT(SMALL, rng=new()))
    texts = new(1).integers(0, 11, (2, 1, 6))
    with no_grad():
        all_caches = [model.new_caches(), model.new_caches()]
        model(texts[0][:, :3], caches=all_caches[0])
        for _ in range(3):
            for text, caches in zip(texts, all_caches, strict=True):
                at = caches[0].length
                expect(
                    model(text[:, at : at + 1], caches=caches).data[:, 0], model(text).data[:, at], rtol=1e-4
                )
        expect([caches[0].length for caches in all_caches], [6, 3])


def test_logits_are_those_of_the_weights_as_they_are():
    """The same ids again, but another table: nothing is remembered."""
    model, ids = with_weights(TinyGPT(SMALL, rng=new())), np.array([[3, 1, 4]])
    with no_grad():
        model(ids)
        with_weights(model, 1)
        expect(model(ids), gpt(model, ids), rtol=1e-3)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_caches_that_are_not_one_for_each_block_are_counted(count):
    model, caches = TinyGPT(SMALL, rng=new()), [KVCache() for _ in range(count)]
    with no_grad(), expect_error(ValueError, str(count), "2"):
        model(np.zeros((1, 2), int), caches=caches)
    expect([cache.length for cache in caches], [0] * count)


@pytest.mark.parametrize("positions", POSITIONS)
def test_texts_padded_on_the_left_come_out_as_each_alone(positions):
    """A mask hides the padding, and positions count from the first token of the text."""
    model = with_weights(TinyGPT(of(positions), rng=new()))
    ids = new(1).integers(0, 11, (2, 6))
    pad = np.array([0, 2])
    seen = np.arange(6) >= pad[:, None]
    places = np.maximum(np.arange(6) - pad[:, None], 0)
    got = model(ids, mask=seen[:, None, None], positions=places).data
    expect(got[:1], model(ids[:1]).data, rtol=1e-4)
    expect(got[1:, 2:], model(ids[1:, 2:]).data, rtol=1e-4)


@pytest.mark.parametrize("positions", POSITIONS)
def test_padding_is_hidden_from_what_goes_on_in_caches_too(positions):
    """The mask is about all that is in the caches, the positions about the ids that are new."""
    model = with_weights(TinyGPT(of(positions), rng=new()))
    ids, pad = new(1).integers(0, 11, (2, 6)), np.array([0, 2])
    seen = (np.arange(6) >= pad[:, None])[:, None, None]
    places = np.maximum(np.arange(6) - pad[:, None], 0)
    with no_grad():
        caches = model.new_caches()
        model(ids[:, :4], seen[..., :4], caches, places[:, :4])
        got = model(ids[:, 4:], seen, caches, places[:, 4:]).data
        expect(got[:1], model(ids[:1]).data[:, 4:], rtol=1e-4)
        expect(got[1:], model(ids[1:, 2:]).data[:, 2:], rtol=1e-4)


def test_dropout_is_for_training_alone():
    model = with_weights(TinyGPT(dataclasses.replace(SMALL, dropout=0.3), rng=new()))
    ids = new(1).integers(0, 11, (2, 6))
    assert (model(ids).data != model(ids).data).any()
    expect(model.eval()(ids), gpt(model, ids), rtol=1e-3)


# 14.14 Encoder


@pytest.mark.parametrize("name", ["learned", "rotary, grouped"])
@pytest.mark.parametrize("norm_first", [True, False])
def test_an_encoder_is_the_one_written_out(norm_first, name):
    c = KINDS[name]
    model = with_weights(Encoder(c, norm_first, rng=new()))
    ids, state = new(1).integers(0, 11, (3, 7)), doubled(model)
    every = np.ones((7, 7))
    if norm_first:
        outs = [norm(stream(state, c, text, every, True), state, "norm") for text in ids]
    else:
        outs = [stream(state, c, text, every, False, lambda x: norm(x, state, "norm")) for text in ids]
    expect(model(ids), np.array(outs, np.float32), rtol=1e-3)


def test_an_encoder_norms_last_unless_told_and_has_no_head():
    model = Encoder(SMALL, rng=new())
    assert not any(block.norm_first for block in model.blocks)
    assert isinstance(model.norm, LayerNorm)
    assert not any(name.startswith(("head", "ln_f")) for name, _ in model.named_parameters())
    expect(float(model.tokens.weight.data.std()), 0.02, rtol=0.2)
    for last in (model.blocks[0].attn.out_proj, model.blocks[1].mlp.proj):
        expect(float(last.weight.data.std()), 0.02 / 2, rtol=0.2)


@pytest.mark.parametrize("norm_first", [True, False])
def test_padding_changes_nothing_of_a_text(norm_first):
    """Neither what stands there, nor that it is there."""
    model = with_weights(Encoder(SMALL, norm_first, rng=new()))
    ids, lengths = new(1).integers(0, 11, (3, 7)), [7, 2, 5]
    got = model(ids, lengths).data
    for row, length, text in zip(got, lengths, ids, strict=True):
        expect(row[:length], model(text[None, :length]).data[0], rtol=1e-4)
    expect(model(ids, np.array([7, 7, 7])), model(ids).data, rtol=1e-5)
    expect(model(ids.tolist(), lengths), got)
    expect(model(ids[1:], lengths[1:]), got[1:], rtol=1e-4)  # as wide, although no text is
    lengths[0] = 3  # the same list, but other lengths
    expect(model(ids, lengths).data[0, :3], model(ids[:1, :3]).data[0], rtol=1e-4)


def test_ids_and_lengths_are_not_changed():
    ids, lengths = new(1).integers(1, 11, (3, 7)), np.array([7, 2, 5])
    before = ids.copy(), lengths.copy()
    Encoder(SMALL, rng=new())(ids, lengths)
    TinyGPT(SMALL, rng=new())(ids)
    expect((ids, lengths), before)


def test_each_place_of_an_encoder_sees_the_whole_text():
    model = with_weights(Encoder(SMALL, rng=new()))
    ids = new(1).integers(0, 11, (1, 7))
    other = ids.copy()
    other[0, 6] = (ids[0, 6] + 1) % 11
    assert abs(model(ids).data - model(other).data)[0, 0].max() > 1e-3


@pytest.mark.parametrize("lengths", [[3], [3, 3, 3], 3], ids=str)
def test_lengths_that_are_not_one_for_each_text_are_refused_by_shape(lengths):
    with expect_error(ValueError, str((2, 4)), str(np.shape(lengths))):
        Encoder(SMALL, rng=new())(np.zeros((2, 4), int), lengths)


@pytest.mark.parametrize("length", [5, -1])
def test_a_length_that_a_row_cannot_have_is_refused_by_its_number(length):
    with expect_error(ValueError, str(length)):
        Encoder(SMALL, rng=new())(np.zeros((2, 4), int), [3, length])


# 14.15 parameters_by_part


def test_parameters_by_hand():
    """With dim 12: attention 48 * 12 + 48 a block, feed-forward 96 * 12 + 60, and 24 a norm."""
    parts = parameters_by_part(TinyGPT(SMALL, rng=new()))
    expect(
        parts,
        {
            "tokens": 132, "positions": 96, "attention": 2 * 624, "feed-forward": 2 * 1212,
            "norms": 5 * 24, "head": 0,
        },
    )  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_parts_add_up(name):
    model = TinyGPT(KINDS[name], rng=new())
    parts = parameters_by_part(model.requires_grad_(False))  # frozen ones are there, too, and stay so
    assert not any(p.requires_grad for _, p in model.named_parameters())
    expect(sum(parts.values()), count_parameters(model.requires_grad_()))
    expect(parts["head"], 0 if model.config.tied else 132)
    expect(parts["positions"], 96 if model.config.positions == "learned" else 0)
    expect(list(parts), ["tokens", "positions", "attention", "feed-forward", "norms", "head"])


def test_parts_of_an_encoder_and_of_a_block_add_up_too():
    model = Encoder(SMALL, rng=new())
    parts = parameters_by_part(model)
    expect(sum(parts.values()), count_parameters(model))
    expect(parts["norms"], 5 * 24)
    block = parameters_by_part(model.blocks[0])
    expect((block["attention"], block["feed-forward"], block["norms"], block["tokens"]), (624, 1212, 48, 0))


# 14.16 activation_bytes


def test_activations_by_hand():
    """In numbers a place, with dim 12 and 3 heads: a block keeps 2 * 12 about each norm and 2 more; 36 that
    attention reads, 12 that it finds and 3 sums; 2 * 48 about gelu. The end keeps 2 * 12 and 2.
    """
    block = 2 * (24 + 2) + 36 + 12 + 3 + 96
    expect(activation_bytes(SMALL, 5, 7), 4 * 5 * 7 * (2 * block + 26))
    assert isinstance(activation_bytes(SMALL, 5, 7), int)


@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({"hidden": 50}, 4 * 2 * 2 * 2),
        ({"num_kv_heads": 1}, 4 * 2 * -16),
        ({"positions": "rotary"}, 4 * 2 * 24),
        ({"positions": "rotary", "num_kv_heads": 1}, 4 * 2 * (16 - 16)),
        ({"positions": "sinusoidal"}, 0),
        ({"dropout": 0.1}, 12 * (1 + 2 * 2)),
        ({"tied": False}, 0),
        ({"num_heads": 6}, 4 * 2 * 3),
        ({"num_layers": 0}, 4 * -2 * 199),
    ],
    ids=str,
)
def test_what_a_place_keeps_depends_on_the_models_numbers(change, more):
    """In bytes; (hidden 50, two more before gelu and after, in two blocks.)"""
    base, other = (activation_bytes(c, 1, 1) for c in (SMALL, dataclasses.replace(SMALL, **change)))
    expect(other - base, more)
