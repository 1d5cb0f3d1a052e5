"""Kata 13: attention is PyTorch's scaled_dot_product_attention, in float64 to the ninth digit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch.attention import (
    KVCache,
    MultiHeadAttention,
    attention_weights,
    causal_mask,
    fused_attention,
    padding_mask,
    scaled_dot_product_attention,
)
from tinytorch.autograd import no_grad
from tinytorch.tensor import Tensor

torch = pytest.importorskip("torch")
functional = torch.nn.functional

many = settings(deadline=None, derandomize=True, max_examples=40)

SEEDS = st.integers(0, 2**16)
SIZES = st.integers(1, 6)
SMALL = st.integers(1, 3)

ATTENTIONS = {
    "composed": scaled_dot_product_attention,
    "fused": lambda q, k, v, mask, is_causal, scale: fused_attention(
        q, k, v, mask=mask, is_causal=is_causal, scale=scale
    ),
    "fused in small blocks": lambda q, k, v, mask, is_causal, scale: fused_attention(
        q, k, v, mask=mask, is_causal=is_causal, scale=scale, chunk=2
    ),
}
each_attention = pytest.mark.parametrize("attend", ATTENTIONS.values(), ids=ATTENTIONS)


def same(got, expected):
    expected = expected.detach().numpy()
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9, strict=True)


def arrays_of(rng, batch, heads, kv_heads, queries, keys, width, value_width):
    shapes = (
        (batch, heads, queries, width),
        (batch, kv_heads, keys, width),
        (batch, kv_heads, keys, value_width),
    )
    return [rng.normal(size=shape) for shape in shapes]


def compare(attend, arrays, rng, mask=None, is_causal=False, scale=None, theirs=None):
    """Values and gradients. `theirs` are PyTorch's arguments for the same."""
    ours = [Tensor(a, True) for a in arrays]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    out = attend(*ours, mask, is_causal, scale)
    expected = functional.scaled_dot_product_attention(*tensors, scale=scale, enable_gqa=True, **theirs)
    same(out.data, expected)
    grad = rng.normal(size=out.shape)
    out.backward(grad)
    expected.backward(torch.tensor(grad))
    for mine, other in zip(ours, tensors, strict=True):
        same(mine.grad, other.grad)


@each_attention
@many
@given(SMALL, SMALL, SMALL, SIZES, SIZES, SIZES, SIZES, st.booleans(), SEEDS)
def test_attention_is_pytorchs(
    attend, batch, kv_heads, group, queries, keys, width, value_width, masked, seed
):
    """Grouped queries too. Each row may attend to something: what PyTorch gives else, see below."""
    rng = np.random.default_rng(seed)
    arrays = arrays_of(rng, batch, kv_heads * group, kv_heads, queries, keys, width, value_width)
    mask = rng.random((batch, 1, queries, keys)) < 0.5
    mask[..., 0] |= ~mask.any(axis=-1)
    scale = None if seed % 2 else float(rng.normal())
    theirs = {"attn_mask": torch.tensor(mask)} if masked else {}
    compare(attend, arrays, rng, mask if masked else None, False, scale, theirs)


@each_attention
@many
@given(SMALL, SMALL, SMALL, SIZES, SIZES, SEEDS)
def test_causal_attention_is_pytorchs(attend, batch, kv_heads, group, length, width, seed):
    rng = np.random.default_rng(seed)
    arrays = arrays_of(rng, batch, kv_heads * group, kv_heads, length, length, width, width)
    compare(attend, arrays, rng, None, True, None, {"is_causal": True})


@each_attention
def test_long_texts_are_pytorchs(attend):
    rng = np.random.default_rng(0)
    if attend is ATTENTIONS["fused in small blocks"]:
        pytest.skip("600 positions in blocks of 2 take long")
    arrays = arrays_of(rng, 2, 4, 2, 600, 600, 8, 8)
    compare(attend, arrays, rng, None, True, None, {"is_causal": True})
    mask = padding_mask([600, 411], 600)
    compare(attend, arrays, rng, mask, False, None, {"attn_mask": torch.tensor(mask)})


@each_attention
def test_with_fewer_queries_than_keys_the_last_sees_all_which_pytorch_calls_lower_right(attend):
    """Its own `is_causal` lines up the first query with the first key; causal_lower_right is ours."""
    from torch.nn.attention.bias import causal_lower_right

    rng = np.random.default_rng(0)
    q, k, v = arrays_of(rng, 2, 2, 2, 3, 7, 4, 4)
    expected = functional.scaled_dot_product_attention(
        *(torch.tensor(a) for a in (q, k, v)), attn_mask=causal_lower_right(3, 7)
    )
    same(attend(Tensor(q), Tensor(k), Tensor(v), None, True, None).data, expected)


@each_attention
def test_a_row_without_keys_is_zero_as_in_pytorch(attend):
    rng = np.random.default_rng(0)
    arrays = arrays_of(rng, 2, 2, 1, 3, 4, 4, 4)
    mask = padding_mask([0, 3], 4)
    compare(attend, arrays, rng, mask, False, None, {"attn_mask": torch.tensor(mask)})


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("is_causal", [True, False])
def test_the_layer_is_pytorchs(fused, is_causal):
    rng = np.random.default_rng(0)
    layer = MultiHeadAttention(12, 3, rng=rng)
    layer.fused = fused
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True, dtype=torch.float64)
    state = {name: p.data.astype(np.float64) for name, p in layer.named_parameters()}
    for p, array in zip(layer.parameters(), state.values(), strict=True):
        p.data = array
    names = {"qkv_proj": "in_proj_", "out_proj": "out_proj."}
    theirs.load_state_dict(
        {names[name.split(".")[0]] + name.split(".")[1]: torch.tensor(array) for name, array in state.items()}
    )
    x = rng.normal(size=(2, 5, 12))
    lengths = padding_mask([5, 3], 5)
    mine, other = Tensor(x, True), torch.tensor(x, requires_grad=True)
    out = layer(mine, lengths, is_causal)
    expected, weights = theirs(
        other,
        other,
        other,
        key_padding_mask=torch.tensor(~lengths[:, 0, 0]),
        attn_mask=torch.tensor(~causal_mask(5)) if is_causal else None,
        average_attn_weights=False,
    )
    same(out.data, expected)
    same(layer.attention_maps(Tensor(x), lengths, is_causal), weights)
    grad = rng.normal(size=out.shape)
    out.backward(grad)
    expected.backward(torch.tensor(grad))
    same(mine.grad, other.grad)
    for name, p in layer.named_parameters():
        head, tail = name.split(".")
        same(p.grad, theirs.get_parameter(names[head] + tail).grad)


def test_weights_are_those_of_the_formula():
    rng = np.random.default_rng(0)
    q, k, _ = arrays_of(rng, 2, 4, 2, 5, 6, 4, 4)
    tq, tk = torch.tensor(q), torch.tensor(k).repeat_interleave(2, 1)
    scores = (tq @ tk.transpose(2, 3)) / 2
    scores = scores.masked_fill(~torch.tensor(causal_mask(5, 6)), -torch.inf)
    same(attention_weights(q, k, is_causal=True).data, scores.softmax(-1))


def test_generation_with_a_cache_is_pytorchs_whole_text():
    rng = np.random.default_rng(0)
    layer, cache = MultiHeadAttention(8, 2, rng=rng), KVCache()
    for p in layer.parameters():
        p.data = p.data.astype(np.float64)
    x = rng.normal(size=(2, 9, 8))
    weight, bias = (torch.tensor(p.data) for p in layer.qkv_proj.parameters())
    q, k, v = (
        part.reshape(2, 9, 2, 4).transpose(1, 2)
        for part in functional.linear(torch.tensor(x), weight, bias).split(8, dim=-1)
    )
    found = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(2, 9, 8)
    expected = functional.linear(found, *(torch.tensor(p.data) for p in layer.out_proj.parameters()))
    with no_grad():
        for start, stop in ((0, 4), (4, 5), (5, 9)):
            out = layer(Tensor(x[:, start:stop]), is_causal=True, cache=cache)
            same(out.data, expected[:, start:stop])
