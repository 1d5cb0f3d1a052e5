"""Level 1: masks, heads, and attention with all its weights in memory.

What is right is worked out by hand, or by loops over every query and every key.
"""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dojo.expect import expect, expect_error
from tinytorch.attention import (
    allowed_pairs,
    attention_weights,
    causal_mask,
    fused_attention,
    merge_heads,
    padding_mask,
    scaled_dot_product_attention,
    split_heads,
)
from tinytorch.tensor import Tensor

steady = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
some = settings(steady, max_examples=40)

SEEDS = st.integers(0, 2**16)
SIZES = st.integers(1, 5)


def f32(values):
    return np.array(values, np.float32)


def slow_weights(q, k, allowed, scale=None):
    """Query by query and key by key, in Python's floats."""
    batch, heads, queries, width = q.shape
    kv_heads, keys = k.shape[1:3]
    allowed = np.broadcast_to(allowed, (batch, heads, queries, keys))
    weights = np.zeros(allowed.shape)
    for b, h, i in np.ndindex(batch, heads, queries):
        shares = {}
        for j in range(keys):
            if allowed[b, h, i, j]:
                other = k[b, h // (heads // kv_heads), j]
                score = sum(float(x) * float(y) for x, y in zip(q[b, h, i], other, strict=True))
                shares[j] = math.exp(score * (width**-0.5 if scale is None else scale))
        for j, share in shares.items():
            weights[b, h, i, j] = share / sum(shares.values())
    return weights


def slow_attention(q, k, v, allowed=True, scale=None):
    weights = slow_weights(q, k, allowed, scale)
    group = q.shape[1] // k.shape[1]
    out = np.zeros((*q.shape[:3], v.shape[3]))
    for b, h, i, j in np.ndindex(*weights.shape):
        out[b, h, i] += weights[b, h, i, j] * v[b, h // group, j]
    return out


def drawn(seed, batch, kv_heads, group, queries, keys, width, value_width=None):
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(batch, kv_heads * group, queries, width))
    k = rng.normal(size=(batch, kv_heads, keys, width))
    v = rng.normal(size=(batch, kv_heads, keys, value_width or width))
    return q, k, v, rng


# 13.1 causal_mask


def test_each_position_sees_those_up_to_itself():
    expect(causal_mask(3), np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1]], bool))


def test_the_last_query_sees_all_keys():
    """Two queries that continue a text of three."""
    expect(causal_mask(2, 5), np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]], bool))


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 7), (0, 0), (0, 4), (6, 6)], ids=str)
def test_a_causal_mask_has_a_row_for_each_query(queries, keys):
    mask = causal_mask(queries, keys)
    expect((mask.shape, mask.dtype.kind), ((queries, keys), "b"))
    expect(mask.sum(axis=1).tolist(), [keys - queries + 1 + i for i in range(queries)])
    assert all(row[: int(row.sum())].all() for row in mask)


def test_each_mask_is_new():
    for make in (lambda: causal_mask(2, 3), lambda: padding_mask([2, 2], 3)):
        make()[...] = False
        assert make().any()


@pytest.mark.parametrize(("queries", "keys"), [(5, 3), (2, 0)], ids=str)
def test_a_text_shorter_than_its_end_is_refused(queries, keys):
    with expect_error(ValueError, str(queries), str(keys)):
        causal_mask(queries, keys)


# 13.2 padding_mask


@pytest.mark.parametrize(
    ("side", "rows"),
    [("right", [[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]), ("left", [[0, 0, 1, 1], [1, 1, 1, 1], [0] * 4])],
)
def test_padding_is_where_the_text_is_not(side, rows):
    expect(padding_mask([2, 4, 0], 4, side), np.array(rows, bool)[:, None, None, :])


def test_padding_is_on_the_right_unless_told():
    expect(padding_mask(np.array([1]), 3).tolist(), [[[[True, False, False]]]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint64], ids=lambda d: d.__name__)
def test_lengths_of_few_bits_are_lengths(dtype):
    """300 positions are more than eight bits can count."""
    for side in ("left", "right"):
        mask = padding_mask(np.array([100, 0], dtype), 300, side)
        expect(mask.sum(axis=-1).ravel().tolist(), [100, 0])
        expect(mask[0, 0, 0].tolist(), [(i >= 200) if side == "left" else (i < 100) for i in range(300)])


def test_of_no_texts_there_is_no_row():
    expect(padding_mask([], 3).shape, (0, 1, 1, 3))
    expect(padding_mask([0, 0], 0).shape, (2, 1, 1, 0))


@pytest.mark.parametrize("length", [-1, 5])
def test_a_text_that_does_not_fit_is_refused(length):
    with expect_error(ValueError, str(length), "4"):
        padding_mask([2, length], 4)


def test_padding_has_two_sides():
    with expect_error(ValueError, "both"):
        padding_mask([2], 4, "both")


# 13.3 allowed_pairs


def test_where_everything_is_allowed_there_is_no_mask():
    expect(allowed_pairs(None, False, (2, 3, 4, 5)), None)


def test_both_must_allow():
    mask = padding_mask([1, 3], 3)
    both = allowed_pairs(mask, True, (2, 5, 3, 3))
    seen = np.broadcast_to(both, (2, 5, 3, 3))
    expect(seen[0, 4], np.array([[1, 0, 0]] * 3, bool))
    expect(seen[1, 0], np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1]], bool))


def test_either_is_enough():
    expect(allowed_pairs(None, True, (1, 1, 2, 3)), causal_mask(2, 3))
    mask = padding_mask([2, 3], 3)
    expect(allowed_pairs(mask, False, (2, 1, 4, 3)), mask)
    expect(allowed_pairs(Tensor(mask), False, (2, 1, 4, 3)), mask)


def test_a_mask_is_no_larger_than_it_must_be():
    expect(allowed_pairs(np.ones((2, 1, 1, 3), bool), True, (2, 4, 3, 3)).shape, (2, 1, 3, 3))
    expect(allowed_pairs(np.ones(3, bool), False, (2, 4, 3, 3)).shape, (3,))


def test_a_mask_that_changes_is_looked_at_again():
    mask = np.ones((1, 1, 2, 2), bool)
    for is_causal in (True, False):
        mask[...] = True
        allowed_pairs(mask, is_causal, (1, 1, 2, 2))
        mask[..., 0] = False
        expect(
            allowed_pairs(mask, is_causal, (1, 1, 2, 2)),
            np.array([[[[False, not is_causal], [False, True]]]]),
        )


def test_masks_are_left_as_they_were():
    mask = padding_mask([1, 3], 3)
    before = mask.copy()
    allowed_pairs(mask, True, (2, 5, 3, 3))
    expect(mask, before)


@pytest.mark.parametrize(
    "shape", [(4,), (2, 3), (2, 3, 3), (1, 1, 1, 3, 3), (3, 1, 3, 3), (2, 5, 1, 6)], ids=str
)
def test_a_mask_that_does_not_stretch_to_the_scores_is_refused(shape):
    with expect_error(ValueError, str(shape), "(2, 5, 3, 3)"):
        allowed_pairs(np.ones(shape, bool), False, (2, 5, 3, 3))


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_a_mask_of_numbers_is_refused(dtype):
    """Are they to be added, or true? PyTorch adds floats."""
    with expect_error(TypeError, np.dtype(dtype).name):
        allowed_pairs(np.zeros((3, 3), dtype), False, (1, 1, 3, 3))


# 13.4 split_heads, 13.5 merge_heads


def test_each_head_gets_neighbouring_numbers():
    x = np.arange(12.0).reshape(1, 2, 6)
    expect(split_heads(x, 3).data, np.array([[[[0.0, 1], [6, 7]], [[2.0, 3], [8, 9]], [[4.0, 5], [10, 11]]]]))


def test_merging_takes_back_splitting(rng):
    x = rng.normal(size=(2, 5, 12)).astype(np.float32)
    for heads in (1, 3, 12):
        split = split_heads(Tensor(x), heads)
        expect(split.shape, (2, heads, 5, 12 // heads))
        expect(merge_heads(split).data, x)


@pytest.mark.parametrize("shape", [(0, 3, 8), (2, 0, 8)], ids=str)
def test_no_texts_and_no_positions_have_heads_too(shape):
    split = split_heads(np.zeros(shape), 4)
    expect(split.shape, (shape[0], 4, shape[1], 2))
    expect(merge_heads(split).data, np.zeros(shape))


def test_heads_side_by_side_make_a_position():
    x = np.arange(8.0).reshape(1, 2, 2, 2)
    expect(merge_heads(Tensor(x)).data, np.array([[[0.0, 1, 4, 5], [2, 3, 6, 7]]]))


def test_splitting_copies_nothing(rng):
    x = rng.normal(size=(2, 3, 8))
    split = split_heads(x, 4)
    assert np.shares_memory(split.data, x)
    assert np.shares_memory(merge_heads(split).data, x)


@pytest.mark.parametrize("heads", [5, 0, 16])
def test_heads_that_cannot_share_evenly_are_refused(heads):
    with expect_error(ValueError, "(2, 3, 8)"):
        split_heads(np.zeros((2, 3, 8)), heads)


# 13.6 attention_weights

LN3 = math.log(3)


def test_weights_are_a_softmax_of_products():
    """One query of two numbers; its products with the keys are 0 and 2 ln 3, over sqrt(4) is ln 3: 1 to 3."""
    q = np.array([[[[2.0, 0, 0, 0]]]])
    k = np.array([[[[0.0, 1, 1, 1], [LN3, 5, 5, 5]]]])
    expect(attention_weights(q, k).data, np.array([[[[0.25, 0.75]]]]))


def test_a_scale_may_be_given():
    q, k = np.array([[[[1.0]]]]), np.array([[[[0.0], [LN3]]]])
    expect(attention_weights(q, k, scale=1.0).data, np.array([[[[0.25, 0.75]]]]))
    expect(attention_weights(q, k, scale=2).data, np.array([[[[0.1, 0.9]]]]))
    expect(attention_weights(q, k, scale=0.0).data, np.array([[[[0.5, 0.5]]]]))


def test_what_is_hidden_has_no_weight():
    q, k = np.ones((1, 1, 3, 2)), np.ones((1, 1, 3, 2))
    expect(
        attention_weights(q, k, is_causal=True).data[0, 0],
        np.array([[1, 0, 0], [1 / 2] * 2 + [0], [1 / 3] * 3]),
    )
    hidden = np.array([True, False, True])
    expect(attention_weights(q, k, hidden).data[0, 0], np.array([[0.5, 0, 0.5]] * 3))
    expect(attention_weights(q, k, hidden, True).data[0, 0], np.array([[1, 0, 0], [1, 0, 0], [0.5, 0, 0.5]]))


def test_large_scores_do_not_overflow():
    q, k = f32([[[[1000.0]]]]), f32([[[[1000.0], [-1000.0]]]])
    expect(attention_weights(q, k).data, f32([[[[1, 0]]]]))
    expect(attention_weights(-q, k, np.array([True, False])).data, f32([[[[1, 0]]]]))


def test_heads_share_keys_with_their_neighbours():
    """Four heads ask two: the first two the first, as in PyTorch and Llama."""
    q = np.ones((1, 4, 1, 1))
    k = np.array([[[[0.0], [LN3]], [[LN3], [0.0]]]])
    right = np.array([[0.25, 0.75]] * 2 + [[0.75, 0.25]] * 2)
    expect(attention_weights(q, k).data[0, :, 0], right)


@some
@given(SIZES, SIZES, st.integers(1, 3), SIZES, SIZES, SIZES, st.booleans(), st.booleans(), SEEDS)
def test_weights_are_those_of_a_loop_over_all_pairs(
    batch, kv_heads, group, queries, more, width, is_causal, masked, seed
):
    keys = queries + more - 1
    q, k, _, rng = drawn(seed, batch, kv_heads, group, queries, keys, width)
    mask = rng.random((batch, 1, queries, keys)) < 0.6 if masked else None
    allowed = np.ones((queries, keys), bool) if mask is None else mask
    if is_causal:
        allowed = allowed & [[j <= keys - queries + i for j in range(keys)] for i in range(queries)]
    weights = attention_weights(Tensor(q), Tensor(k), mask, is_causal)
    expect(weights.data, slow_weights(q, k, allowed))


def test_a_row_that_may_attend_to_nothing_is_zero(rng):
    q, k, v, _ = drawn(1, 2, 2, 1, 3, 4, 5)
    mask = np.ones((2, 1, 3, 4), bool)
    mask[1, 0, 2] = False
    expect(attention_weights(q, k, mask).data[1, :, 2], np.zeros((2, 4)))
    expect(scaled_dot_product_attention(q, k, v, mask).data[1, :, 2], np.zeros((2, 5)))
    expect(attention_weights(q, k, mask).data, slow_weights(q, k, mask))


# 13.7 scaled_dot_product_attention

ATTENTIONS = {
    "composed": scaled_dot_product_attention,
    "fused": lambda q, k, v, mask=None, is_causal=False, scale=None: fused_attention(
        q, k, v, mask=mask, is_causal=is_causal, scale=scale
    ),
}
each_attention = pytest.mark.parametrize("attend", ATTENTIONS.values(), ids=ATTENTIONS)


@each_attention
def test_values_are_mixed_by_their_weights(attend):
    q = np.array([[[[2.0, 0, 0, 0]]]])
    k = np.array([[[[0.0, 1, 1, 1], [LN3, 5, 5, 5]]]])
    v = np.array([[[[4.0, 0, 8], [0.0, 4, 8]]]])
    expect(attend(q, k, v).data, np.array([[[[1.0, 3, 8]]]]))


@each_attention
def test_a_scale_may_be_anything(attend):
    q, k, v, _ = drawn(0, 1, 2, 2, 3, 4, 3)
    for scale in (0.0, -1.5, 2):
        expect(attend(q, k, v, None, False, scale).data, slow_attention(q, k, v, True, scale))


@each_attention
def test_a_key_that_is_hidden_does_not_matter(attend):
    q, k, v, _ = drawn(0, 1, 1, 1, 2, 3, 4)
    mask = padding_mask([2], 3)
    before = attend(q, k, v, mask).data
    k[0, 0, 2], v[0, 0, 2] = 1e6, -1e6
    expect(attend(q, k, v, mask).data, before)
    expect(attend(q, k[:, :, :2], v[:, :, :2]).data, before)


@each_attention
def test_the_past_does_not_know_the_future(attend):
    q, k, v, _ = drawn(0, 1, 2, 1, 4, 4, 3)
    before = attend(q, k, v, None, True).data
    q[:, :, 3], k[:, :, 3], v[:, :, 3] = 5, -7, 9
    expect(attend(q, k, v, None, True).data[:, :, :3], before[:, :, :3])


@each_attention
def test_the_end_of_a_text_alone_gets_what_it_gets_in_the_whole(attend):
    """As with a cache: fewer queries than keys."""
    q, k, v, _ = drawn(0, 2, 1, 2, 7, 7, 3)
    whole = attend(q, k, v, None, True).data
    for last in (1, 2, 5):
        expect(attend(q[:, :, -last:], k, v, None, True).data, whole[:, :, -last:])


@each_attention
@some
@given(SIZES, SIZES, st.integers(1, 3), SIZES, SIZES, SIZES, SIZES, st.sampled_from("ncm*"), SEEDS)
def test_attention_is_that_of_a_loop_over_all_pairs(
    attend, batch, kv_heads, group, queries, more, width, value_width, kind, seed
):
    keys = queries + more - 1
    q, k, v, rng = drawn(seed, batch, kv_heads, group, queries, keys, width, value_width)
    scale = None if seed % 2 else rng.normal()
    mask = rng.random(((batch, 1)[seed % 2], (1, kv_heads * group)[seed % 3 == 0], queries, keys)) < 0.6
    allowed = {"n": True, "c": causal_mask(queries, keys), "m": mask, "*": mask & causal_mask(queries, keys)}
    out = attend(Tensor(q), k, v, mask if kind in "m*" else None, kind in "c*", scale)
    expect(out.data, slow_attention(q, k, v, allowed[kind], scale))


@each_attention
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_stay_as_wide_as_they_are(attend, dtype):
    q, k, v = (x.astype(dtype) for x in drawn(0, 1, 2, 1, 3, 3, 4)[:3])
    for mask in (None, padding_mask([2], 3), padding_mask([0], 3)):
        for scale in (None, 0.5, np.float64(0.5)):
            expect(attend(q, k, v, mask, True, scale).dtype, np.dtype(dtype))
    expect(attention_weights(q, k, padding_mask([0], 3)).dtype, np.dtype(dtype))


@each_attention
def test_inputs_are_left_as_they_were_and_may_lie_anyhow(attend):
    q, k, v, _ = drawn(0, 2, 2, 2, 3, 3, 4)
    right = slow_attention(q, k, v, causal_mask(3))
    lay = (
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=3)[..., ::2],
        lambda x: x[:, :, ::-1].copy()[:, :, ::-1],
        lambda x: x[..., ::-1].copy()[..., ::-1],
        lambda x: x.transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3),
    )
    for change in lay:
        arrays = [change(x) for x in (q, k, v)]
        for x in arrays:
            x.flags.writeable = False
        expect(attend(*arrays, None, True).data, right)
        for x, same in zip(arrays, (q, k, v), strict=True):
            expect(x, same)


@each_attention
def test_one_head_of_keys_may_be_stretched_over_a_batch(attend):
    q, k, v, _ = drawn(0, 3, 1, 2, 2, 4, 3)
    k, v = (np.broadcast_to(x[:1], x.shape) for x in (k, v))
    expect(attend(q, k, v).data, slow_attention(q, k, v))


@each_attention
@pytest.mark.parametrize(
    ("q", "k"),
    [((0, 2, 3, 4), (0, 2, 3, 4)), ((1, 2, 0, 4), (1, 2, 3, 4)), ((1, 2, 3, 4), (1, 1, 0, 4))],
    ids=str,
)
def test_of_nothing_nothing_is_had(attend, q, k):
    expect(attend(np.ones(q), np.ones(k), np.ones(k)).data, np.zeros(q))


@each_attention
@pytest.mark.parametrize("shape", [(), (4,), (3, 1), (2, 1, 1), (1, 1, 1, 1), (3, 2, 3, 4)], ids=str)
def test_masks_stretch_as_numpy_has_it(attend, shape):
    """From the right: one axis is of keys, two are of queries and keys, three of heads."""
    q, k, v, rng = drawn(0, 3, 2, 1, 3, 4, 2)
    for mask in (rng.random(shape) < 0.5, np.zeros(shape, bool), np.ones(shape, bool)):
        mask = np.asarray(mask)
        expect(attend(q, k, v, mask).data, slow_attention(q, k, v, mask))


@each_attention
def test_a_hidden_score_is_lower_than_any(attend):
    """-1e9 is not low enough: what may be seen is at -1e12, what is hidden at 0."""
    q, k = np.full((1, 1, 1, 1), 1e6), np.array([[[[-1e6], [0.0]]]])
    v = np.array([[[[3.0], [5.0]]]])
    expect(attend(q, k, v, np.array([True, False])).data, np.array([[[[3.0]]]]))


@each_attention
def test_results_stay_when_others_come(attend):
    q, k, v, _ = drawn(0, 1, 2, 1, 3, 4, 2)
    out = attend(q, k, v)
    attend(-q, k, v)
    expect(out.data, slow_attention(q, k, v))


@each_attention
def test_a_single_key_is_heeded_wholly(attend):
    q, k, v, _ = drawn(0, 1, 1, 1, 4, 1, 2)
    expect(attend(q, k, v).data, np.broadcast_to(v, (1, 1, 4, 2)))


MISFITS = {
    "three axes": ((1, 3, 4), (1, 3, 4), (1, 3, 4)),
    "keys of three axes": ((1, 2, 3, 4), (1, 3, 4), (1, 3, 4)),
    "other batch": ((2, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4)),
    "other width": ((1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 3, 5)),
    "heads do not divide": ((1, 4, 3, 4), (1, 3, 3, 4), (1, 3, 3, 4)),
    "more heads of keys": ((1, 2, 3, 4), (1, 4, 3, 4), (1, 4, 3, 4)),
    "fewer values": ((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 2, 4)),
    "other heads of values": ((1, 2, 3, 4), (1, 2, 3, 4), (1, 1, 3, 4)),
}


@each_attention
@pytest.mark.parametrize("shapes", MISFITS.values(), ids=MISFITS)
def test_shapes_that_do_not_fit_are_refused(attend, shapes):
    with expect_error(ValueError, *{str(shape) for shape in shapes}):
        attend(*(np.ones(shape) for shape in shapes))


@each_attention
def test_dtypes_that_do_not_fit_are_refused(attend):
    x = np.ones((1, 1, 2, 2))
    with expect_error(TypeError, "float32", "float64"):
        attend(x, x.astype(np.float32), x)
    with expect_error(TypeError, "int64"):
        attend(*[x.astype(np.int64)] * 3)


@each_attention
def test_masks_that_do_not_fit_are_refused(attend):
    x = np.ones((2, 1, 3, 2))
    with expect_error(ValueError, "(4,)", "(2, 1, 3, 3)"):
        attend(x, x, x, np.ones(4, bool))
    with expect_error(TypeError, "float64"):
        attend(x, x, x, np.ones(3))
    with expect_error(ValueError, "3", "2"):
        attend(x, x[:, :, :2], x[:, :, :2], None, True)


@each_attention
def test_a_mask_may_be_a_tensor(attend):
    q, k, v, _ = drawn(0, 2, 1, 2, 3, 3, 2)
    mask = padding_mask([2, 3], 3)
    expect(attend(q, k, v, Tensor(mask)).data, slow_attention(q, k, v, mask))


def test_weights_refuse_what_attention_refuses():
    x = np.ones((1, 2, 3, 4))
    with expect_error(ValueError, "(1, 2, 3, 4)", "(1, 2, 3, 5)"):
        attention_weights(x, np.ones((1, 2, 3, 5)))
    with expect_error(TypeError, "float32", "float64"):
        attention_weights(x, x.astype(np.float32))
