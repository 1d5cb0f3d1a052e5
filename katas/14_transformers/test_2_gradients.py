"""Level 2: the rules of the norms against central differences, and whole models along every parameter."""

import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dojo.expect import expect
from dojo.measuring import check_formula, check_gradient
from tinytorch.layers import Parameter
from tinytorch.tensor import Tensor
from tinytorch.transformers import (
    Encoder,
    FeedForward,
    GPTConfig,
    LayerNorm,
    RMSNorm,
    TinyGPT,
    TransformerBlock,
    gradient_flow,
    layer_norm,
    rms_norm,
)

steady = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
some = settings(steady, max_examples=12)

SHAPES = st.tuples(st.lists(st.integers(1, 3), max_size=2), st.integers(1, 6)).map(lambda s: (*s[0], s[1]))
SEEDS = st.integers(0, 2**16)


def drawn(shape, seed):
    """x, weight, bias. Some weights are 0."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=shape[-1:]) * rng.integers(0, 4, shape[-1:])
    return rng.normal(size=shape) * 2 + 1, weight, rng.normal(size=shape[-1:])


# 14.2 layer_norm_back


@some
@given(SHAPES, st.sampled_from([0.01, 1.0]), SEEDS)
def test_each_gradient_of_layer_norm_is_the_slope(shape, eps, seed):
    check_gradient(layer_norm, *drawn(shape, seed), eps=eps)


def test_layer_norm_has_the_slope_of_its_formula(rng):
    def formula(x, weight, bias, eps):
        off = x - x.mean(-1, keepdims=True)
        return off / np.sqrt((off * off).mean(-1, keepdims=True) + eps) * weight + bias

    check_formula(layer_norm, formula, *drawn((3, 2, 5), 1), eps=0.1)


def test_gradients_by_hand():
    """[1, 3] is normalised to [-1, 1]; a gradient of [1, 0] is [0.5, 0.5] + [0.5, -0.5], all of which the
    norm takes out again: the first is its mean, the second lies along [-1, 1].
    """
    x, weight, bias = np.array([[1.0, 3.0]]), np.array([1.0, 1.0]), np.array([0.0, 0.0])
    _, back = layer_norm.vjp(x, weight, bias, eps=0.0)
    for got, wanted in zip(
        back(np.array([[1.0, 0.0]])), ([[0.0, 0.0]], [-1.0, 0.0], [1.0, 0.0]), strict=True
    ):
        expect(got, wanted, atol=1e-12)


@settings(steady, max_examples=20)
@given(st.integers(3, 6), SEEDS)
def test_what_the_norm_takes_out_gets_no_gradient(dim, seed):
    """A row that moves as a whole, or grows as a whole, comes out the same: there the slope is 0."""
    x, weight, bias = drawn((4, dim), seed)
    _, back = layer_norm.vjp(x, weight, bias, eps=0.0)
    grad = back(np.random.default_rng(seed + 1).normal(size=x.shape))[0]
    largest = abs(grad).max() + 1
    expect(grad.sum(axis=1) / largest, np.zeros(4), atol=1e-8)
    expect((grad * (x - x.mean(1, keepdims=True))).sum(axis=1) / largest, np.zeros(4), atol=1e-8)


@pytest.mark.parametrize(("op", "count"), [(layer_norm, 3), (rms_norm, 2)], ids=["layer_norm", "rms_norm"])
def test_gradients_in_float32_are_float32_and_keep_their_digits(op, count, rng):
    """Also of rows that lie far from 0, of which a mean of squares knows nothing more."""
    arrays = [3000 + rng.normal(size=(6, 40)), rng.normal(size=40), rng.normal(size=40)][:count]
    arrays = [a.astype(np.float32) for a in arrays]
    cotangent = rng.normal(size=(6, 40)).astype(np.float32)
    before = [a.copy() for a in (*arrays, cotangent)]
    _, back = op.vjp(*arrays)
    _, exactly = op.vjp(*(a.astype(np.float64) for a in arrays))
    for got, wanted in zip(back(cotangent), exactly(cotangent.astype(np.float64)), strict=True):
        expect(got.dtype, np.dtype(np.float32))
        expect(got.astype(np.float64), wanted, rtol=1e-2)
    expect([*arrays, cotangent], before)


@pytest.mark.parametrize(("op", "count"), [(layer_norm, 3), (rms_norm, 2)], ids=["layer_norm", "rms_norm"])
def test_integers_have_the_gradients_of_the_same_numbers_in_float32(op, count, rng):
    x, weight, bias = rng.integers(-4, 5, (3, 4)), rng.normal(size=4), rng.normal(size=4)
    arrays = [weight.astype(np.float32), bias.astype(np.float32)][: count - 1]
    cotangent = rng.normal(size=(3, 4)).astype(np.float32)
    got, wanted = (op.vjp(a, *arrays)[1](cotangent) for a in (x, x.astype(np.float32)))
    for one, other in zip(got, wanted, strict=True):
        expect(one, other)


# 14.4 rms_norm


@some
@given(SHAPES, st.sampled_from([0.01, 1.0]), SEEDS)
def test_each_gradient_of_rms_norm_is_the_slope(shape, eps, seed):
    check_gradient(rms_norm, *drawn(shape, seed)[:2], eps=eps)


def test_a_row_that_grows_as_a_whole_gets_no_gradient(rng):
    x, weight, _ = drawn((4, 5), 0)
    _, back = rms_norm.vjp(x, weight, eps=0.0)
    grad = back(rng.normal(size=x.shape))[0]
    expect((grad * x).sum(axis=1), np.zeros(4), atol=1e-8)
    assert abs(grad.sum(axis=1)).max() > 0.01  # but one that moves as a whole does


# Whole networks: how a random sum of what comes out grows along each parameter.


def doubled(model, seed=0):
    """The model in float64, all its weights drawn anew, norms and biases too."""
    rng = np.random.default_rng(seed)
    for p in model.parameters():
        p.data = rng.normal(size=p.shape) * 0.5
    return model


def check_slopes(model, call, rng):
    out = call()
    cotangent = rng.normal(size=out.shape)
    model.zero_grad()
    out.backward(cotangent)
    h = 2.0**-17
    for name, p in model.named_parameters():
        direction, data = rng.normal(size=p.shape), p.data
        ends = []
        for step in (h, -h):
            p.data = data + step * direction
            ends.append(float((call().data * cotangent).sum()))
        p.data = data
        slope, grad = (ends[0] - ends[1]) / (2 * h), float((p.grad * direction).sum())
        size = float(np.linalg.norm(p.grad) * np.linalg.norm(direction))
        assert abs(slope - grad) <= 1e-6 * size + 1e-7, (
            f"{name}: the slope is {slope}, the gradient says {grad}"
        )


def test_gradients_of_a_feed_forward_are_slopes(rng):
    mlp, x = doubled(FeedForward(3, 5, rng=rng)), Tensor(rng.normal(size=(2, 4, 3)))
    check_slopes(mlp, lambda: mlp(x), rng)


@pytest.mark.parametrize("norm", ["LayerNorm", "RMSNorm"])
@pytest.mark.parametrize("norm_first", [True, False])
def test_gradients_of_a_block_are_slopes(norm_first, norm, rng):
    """And so is that of the stream, which is here a parameter like all others."""
    options = {"norm": functools.partial(RMSNorm, eps=0.1)} if norm == "RMSNorm" else {}
    block = doubled(TransformerBlock(6, 2, norm_first=norm_first, rng=rng, **options))
    block.stream = Parameter(rng.normal(size=(2, 3, 6)))
    check_slopes(block, lambda: block(block.stream, is_causal=True), rng)


@pytest.mark.parametrize("norm", [LayerNorm, RMSNorm], ids=["LayerNorm", "RMSNorm"])
def test_gradients_are_the_same_in_training_and_in_use(norm, rng):
    """Without dropout: weights can be learnt, and an input can be asked for its gradient, in either."""
    block = doubled(TransformerBlock(6, 2, norm=norm, rng=rng))
    x, cotangent = rng.normal(size=(2, 2, 3, 6))
    found = []
    for training in (True, False):
        block.train(training).zero_grad()
        leaf = Tensor(x, requires_grad=True)
        block(leaf, is_causal=True).backward(cotangent)
        found.append([leaf.grad, *(p.grad.copy() for p in block.parameters())])
    for one, other in zip(*found, strict=True):
        expect(other, one)


SMALL = GPTConfig(vocab_size=7, context=5, dim=8, num_layers=2, num_heads=2, hidden=6)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
def test_gradients_of_a_tiny_gpt_are_slopes(positions, tied, rng):
    """A tied table is read at one end, and multiplied with at the other: its gradient is the sum."""
    model = doubled(TinyGPT(dataclasses.replace(SMALL, positions=positions, tied=tied), rng=rng))
    ids = np.array([[3, 1, 4, 1, 5], [2, 6, 5, 3, 5]])
    check_slopes(model, lambda: model(ids), rng)


@pytest.mark.parametrize("norm_first", [True, False])
def test_gradients_of_an_encoder_are_slopes(norm_first, rng):
    model = doubled(Encoder(SMALL, norm_first, rng=rng))
    ids = np.array([[3, 1, 4, 1, 5], [2, 6, 0, 0, 0]])
    check_slopes(model, lambda: model(ids, [5, 2])[:, :2], rng)


def test_padding_gets_no_gradient(rng):
    """Token 0 is only there as padding, which no text's place has seen."""
    model = doubled(Encoder(SMALL, rng=rng))
    model(np.array([[3, 1, 0, 0]]), [2])[:, :2].sum().backward()
    grad = model.tokens.weight.grad
    expect(grad[0], np.zeros(8), atol=1e-12)
    expect(model.positions.weight.grad[2:], np.zeros((3, 8)), atol=1e-12)
    assert abs(grad[[3, 1]]).max() > 1e-9


# 14.9 gradient_flow


@pytest.mark.parametrize("norm_first", [True, False])
def test_each_number_is_the_norm_of_the_gradient_of_the_whole_chain(norm_first, rng):
    blocks = [doubled(TransformerBlock(6, 2, norm_first=norm_first, rng=rng), seed) for seed in range(3)]
    x, cotangent = rng.normal(size=(2, 1, 4, 6))
    flow, starts = gradient_flow(blocks, x, cotangent), []
    for i, block in enumerate(blocks):
        out = leaf = Tensor(x, requires_grad=True)
        for later in blocks[i:]:
            out = later(out)
        out.backward(cotangent)
        starts.append(float(np.linalg.norm(leaf.grad)))
        x = block(Tensor(x)).data
    expect(flow, [*starts, float(np.linalg.norm(cotangent))])


def test_a_stream_carries_gradients_to_the_bottom_where_norms_in_it_do_not():
    """In 24 blocks, norms in the stream shrink the gradient again and again; those beside it do not."""
    x, grad = np.random.default_rng(0).normal(size=(2, 4, 6, 16)).astype(np.float32)
    flows = {}
    for norm_first in (True, False):
        rng = np.random.default_rng(1)
        blocks = [TransformerBlock(16, 4, norm_first=norm_first, rng=rng) for _ in range(24)]
        norms = gradient_flow(blocks, x, grad)
        flows[norm_first] = norms[0] / norms[-1]
    assert flows[True] > 1
    assert flows[False] < 0.8
