"""Level 2: gradients of attention, in one piece and in blocks, against central differences."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinytorch.attention as attention
from dojo.expect import expect
from dojo.measuring import check_formula, check_gradient
from tinytorch.attention import (
    MultiHeadAttention,
    attention_weights,
    causal_mask,
    fused_attention,
    merge_heads,
    padding_mask,
    scaled_dot_product_attention,
    split_heads,
)
from tinytorch.embeddings import Rotary
from tinytorch.tensor import Tensor

steady = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
SEEDS = st.integers(0, 2**16)
SMALL = st.integers(1, 3)

ATTENTIONS = {
    "composed": lambda q, k, v, **params: scaled_dot_product_attention(q, k, v, **params),
    "fused": fused_attention,
    "fused in blocks of 2": lambda q, k, v, **params: fused_attention(q, k, v, chunk=2, **params),
}
each_attention = pytest.mark.parametrize("attend", ATTENTIONS.values(), ids=ATTENTIONS)


def drawn(rng, batch, heads, kv_heads, queries, keys, width=3, value_width=None):
    k = rng.normal(size=(batch, kv_heads, keys, width))
    v = rng.normal(size=(batch, kv_heads, keys, value_width or width))
    return rng.normal(size=(batch, heads, queries, width)), k, v


def formula(allowed=True, scale=None):
    """Attention in plain numpy, from first principles."""

    def attend(q, k, v):
        k, v = (np.repeat(x, q.shape[1] // k.shape[1], axis=1) for x in (k, v))
        factor = q.shape[3] ** -0.5 if scale is None else scale
        shares = np.where(allowed, np.exp(q @ k.swapaxes(2, 3) * factor), 0)
        sums = shares.sum(axis=-1, keepdims=True)
        return shares / np.where(sums == 0, 1, sums) @ v

    return attend


def moves(attend, arrays, i, step, grad):
    """How fast <attend(arrays), grad> changes as array i goes along `step`, by a complex step: exact."""
    out = attend(*(x + 1e-30j * step if i == j else x for j, x in enumerate(arrays)))
    return float((out.imag * grad).sum() / 1e-30)


# 13.6 attention_weights


@settings(steady, max_examples=5)
@given(SMALL, SMALL, SMALL, st.integers(1, 4), st.booleans(), SEEDS)
def test_the_gradients_of_weights_are_the_slopes(kv_heads, group, queries, keys, masked, seed):
    rng = np.random.default_rng(seed)
    q, k, _ = drawn(rng, 2, kv_heads * group, kv_heads, queries, keys)
    mask = rng.random((2, 1, queries, keys)) < 0.6 if masked else None
    check_gradient(lambda q, k: attention_weights(q, k, mask), q, k)


# 13.4 split_heads, 13.5 merge_heads


def test_splitting_and_merging_have_gradients(rng):
    check_gradient(lambda x: split_heads(x, 3), rng.normal(size=(2, 4, 6)))
    check_gradient(merge_heads, rng.normal(size=(2, 3, 4, 2)))


# 13.7 scaled_dot_product_attention, 13.11 fused_attention_back


@each_attention
@settings(steady, max_examples=3)
@given(SMALL, st.integers(1, 2), st.integers(2, 4), st.integers(0, 2), SEEDS)
def test_the_gradients_of_attention_are_the_slopes(attend, kv_heads, group, queries, more, seed):
    rng = np.random.default_rng(seed)
    arrays = drawn(rng, 1, kv_heads * group, kv_heads, queries, queries + more, 2)
    mask = rng.random((1, 1, queries, queries + more)) < 0.7
    check_gradient(attend, *arrays, mask=mask, is_causal=True, scale=None if seed % 2 else rng.normal())


@each_attention
@settings(steady, max_examples=40)
@given(SMALL, SMALL, SMALL, st.integers(1, 5), st.integers(0, 3), SMALL, st.booleans(), st.booleans(), SEEDS)
def test_a_step_of_each_input_moves_the_result_as_its_gradient_says(
    attend, batch, kv_heads, group, queries, more, value_width, is_causal, masked, seed
):
    rng = np.random.default_rng(seed)
    heads, keys = kv_heads * group, queries + more
    arrays = drawn(rng, batch, heads, kv_heads, queries, keys, value_width=value_width)
    mask = rng.random(((1, batch)[seed % 2], (1, heads)[seed % 5 == 0], queries, keys)) < 0.6
    scale = None if seed % 3 else rng.normal()
    tensors = [Tensor(x, True) for x in arrays]
    out = attend(*tensors, mask=mask if masked else None, is_causal=is_causal, scale=scale)
    grad = np.asarray(rng.normal(size=out.shape), order="CF"[seed % 2])
    out.backward(grad)
    allowed = np.logical_and(mask if masked else True, causal_mask(queries, keys) if is_causal else True)
    for i, x in enumerate(tensors):
        step = rng.normal(size=x.shape)
        expect(
            float((x.grad * step).sum()), moves(formula(allowed, scale), arrays, i, step, grad), atol=1e-12
        )


@each_attention
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (4, 2), (3, 1)])
def test_gradients_of_attention_are_right_in_their_dtype(attend, dtype, heads, kv_heads, rng):
    arrays = [x.astype(dtype) for x in drawn(rng, 2, heads, kv_heads, 5, 7)]
    mask = padding_mask([7, 6], 7)
    allowed = mask & causal_mask(5, 7)
    check_formula(lambda *t: attend(*t, mask=mask, is_causal=True), formula(allowed), *arrays)


def test_the_rule_alone_gives_all_three_gradients(rng):
    """By `vjp`, without an engine: in the shapes and dtypes of q, k and v."""
    for dtype in (np.float32, np.float64):
        q, k, v = (x.astype(dtype) for x in drawn(rng, 2, 4, 2, 5, 7, 3, 6))
        out, back = fused_attention.vjp(q, k, v)
        gradients = back(np.ones_like(out))
        expect([(g.shape, g.dtype) for g in gradients], [(x.shape, x.dtype) for x in (q, k, v)])


@pytest.mark.parametrize("cache", [1, 9, 200])
def test_a_small_cache_changes_no_gradient(cache, monkeypatch, rng):
    monkeypatch.setattr(attention, "BLOCK_SCORES", cache, raising=False)
    monkeypatch.setattr(attention, "BLOCK_ROWS", 2, raising=False)
    arrays = drawn(rng, 3, 4, 2, 5, 6)
    mask = padding_mask([6, 0, 3], 6)
    check_formula(
        lambda *t: fused_attention(*t, mask=mask, is_causal=True), formula(mask & causal_mask(5, 6)), *arrays
    )


@pytest.mark.parametrize(("queries", "keys"), [(1, 1500), (150, 150), (140, 1300)])
@pytest.mark.parametrize("is_causal", [True, False])
def test_gradients_of_long_texts_are_right(queries, keys, is_causal, rng):
    """In blocks as they come if nobody asks for others."""
    arrays = drawn(rng, 1, 2, 1, queries, keys)
    out, back = fused_attention.vjp(*arrays, is_causal=is_causal)
    grad = rng.normal(size=out.shape)
    attend = formula(causal_mask(queries, keys) if is_causal else True)
    for i, gradient in enumerate(back(grad)):
        step = rng.normal(size=gradient.shape)
        expect(float((gradient * step).sum()), moves(attend, arrays, i, step, grad), atol=1e-12)


@each_attention
def test_where_nothing_may_be_attended_to_nothing_flows(attend, rng):
    q, k, v = drawn(rng, 2, 2, 1, 3, 4)
    mask = np.ones((2, 1, 3, 4), bool)
    mask[1] = False
    mask[0, 0, 1] = False
    tensors = [Tensor(x, True) for x in (q, k, v)]
    attend(*tensors, mask=mask).backward(rng.normal(size=q.shape))
    for x in tensors:
        assert np.isfinite(x.grad).all()
        expect(x.grad[1], np.zeros_like(x.grad[1]))
    expect(tensors[0].grad[0, :, 1], np.zeros((2, 3)))


@each_attention
def test_no_gradient_flows_to_the_future(attend, rng):
    q, k, v = (Tensor(x, True) for x in drawn(rng, 1, 2, 2, 5, 5))
    grad = np.zeros(q.shape)
    grad[:, :, 2] = rng.normal(size=(1, 2, 3))
    attend(q, k, v, is_causal=True).backward(grad)
    for x in (k, v):
        assert np.abs(x.grad[:, :, :3]).min() > 0
        expect(x.grad[:, :, 3:], np.zeros((1, 2, 2, 3)))


def test_large_scores_have_gradients(rng):
    q, k, v = (x.astype(np.float32) for x in drawn(rng, 1, 1, 1, 3, 5))
    out, back = fused_attention.vjp(1e3 * q, k, v, chunk=2)
    assert all(np.isfinite(g).all() for g in back(np.ones_like(out)))


def test_a_rule_can_be_used_more_than_once(rng):
    out, back = fused_attention.vjp(*drawn(rng, 2, 2, 1, 4, 4), is_causal=True)
    grad = rng.normal(size=out.shape)
    first = [g.copy() for g in back(grad)]
    back(2 * grad)
    expect(list(back(grad)), first)


def test_gradients_are_arrays_of_their_own(rng):
    """Nothing that was handed out is written to later, or is another's."""
    out, back = fused_attention.vjp(*drawn(rng, 2, 2, 2, 4, 4))
    grad = rng.normal(size=out.shape)
    first = back(grad)
    before = [g.copy() for g in first]
    back(-grad)
    expect(list(first), before)
    x = drawn(rng, 1, 1, 1, 3, 3)[0]
    _, back = fused_attention.vjp(x, x, x)
    same = back(np.ones_like(x))
    assert not any(np.shares_memory(same[i], same[j]) for i in range(3) for j in range(i))


def test_a_second_pass_does_not_disturb_the_first(rng):
    """What one keeps for its way back is not what the next one keeps."""
    arrays, others = drawn(rng, 1, 2, 1, 3, 4), drawn(rng, 1, 2, 1, 3, 4)
    out, back = fused_attention.vjp(*arrays)
    grad = rng.normal(size=out.shape)
    right = [g.copy() for g in back(grad)]
    out, back = fused_attention.vjp(*arrays)
    fused_attention.vjp(*others)[1](grad)
    expect(list(back(grad)), right)


def test_the_same_tensor_may_ask_and_answer(rng):
    for attend in ATTENTIONS.values():
        check_gradient(
            lambda x, attend=attend: attend(x, x, x, is_causal=True), rng.normal(size=(1, 2, 4, 3))
        )


def test_queries_that_were_split_without_a_copy_have_gradients(rng):
    """(B, T, H, D) in memory, as the layer has them."""
    check_gradient(
        lambda x: merge_heads(fused_attention(*[split_heads(x, 2)] * 3, is_causal=True)),
        rng.normal(size=(2, 4, 6)),
    )


# 13.16 MultiHeadAttention.forward


@pytest.mark.parametrize("fused", [True, False])
def test_gradients_flow_through_the_layer(fused, rng):
    layer = MultiHeadAttention(4, 2, 1, rotary=Rotary(2, 8), rng=rng)
    layer.fused = fused
    state = {name: p.data.astype(np.float64) for name, p in layer.named_parameters()}
    mask = padding_mask([3, 2], 3)

    def run(x, *weights):
        layer.qkv_proj.weight, layer.qkv_proj.bias, layer.out_proj.weight, layer.out_proj.bias = weights
        return layer(x, mask, True)

    check_gradient(run, rng.normal(size=(2, 3, 4)), *state.values())


def test_every_parameter_gets_a_gradient(rng):
    for fused in (True, False):
        layer = MultiHeadAttention(8, 4, 2, rotary=Rotary(2, 8), rng=rng)
        layer.fused = fused
        out = layer(Tensor(rng.normal(size=(2, 3, 8)).astype(np.float32)), is_causal=True)
        out.backward(np.ones_like(out.data))
        assert all(p.grad is not None and np.abs(p.grad).max() > 0 for p in layer.parameters())
