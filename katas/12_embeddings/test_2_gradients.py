"""Level 2: the rules of looking up and of turning, against differences of the operations themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect
from dojo.measuring import check_formula, check_gradient
from tinytorch.autograd import is_grad_enabled
from tinytorch.embeddings import (
    Embedding,
    LearnedPositions,
    Rotary,
    SinusoidalPositions,
    TiedLinear,
    embedding,
    rotary,
)
from tinytorch.tensor import Tensor

steady = settings(deadline=None, derandomize=True, max_examples=30)
SEEDS = st.integers(0, 2**32 - 1)
SHAPES = st.lists(st.integers(0, 3), max_size=3)


def angles(length, half):
    return np.outer(np.arange(length), 100.0 ** -np.linspace(0, 1, half))


def one(gradients):
    """The gradient of the first input: a rule may return it alone, or in a tuple with others."""
    return gradients[0] if isinstance(gradients, (tuple, list)) else gradients


# 12.4 the rule of embedding


@steady
@given(st.integers(1, 5), st.integers(1, 4), SHAPES, SEEDS)
def test_the_gradient_of_a_table_is_the_slope(count, dim, shape, seed):
    rng = np.random.default_rng(seed)
    check_gradient(embedding, rng.normal(size=(count, dim)), rng.integers(0, count, shape))


def test_a_row_gets_what_all_its_places_got():
    _, back = embedding.vjp(np.zeros((4, 2)), np.array([[2, 0], [2, 2]]))
    grad = np.array([[[1, 2], [3, 4]], [[10, 20], [100, 200]]], float)
    expect(one(back(grad)), np.array([[3, 4], [0, 0], [111, 222], [0, 0]], float))


@steady
@given(st.integers(2, 5), st.integers(0, 4), st.integers(0, 3), SHAPES, SEEDS)
def test_the_padding_gets_none_and_the_others_theirs(count, padding, dim, shape, seed):
    """Seen from the other rows, the padding is a constant."""
    rng = np.random.default_rng(seed)
    padding %= count
    weight, ids = rng.normal(size=(count, dim)), rng.integers(0, count, shape)
    out, back = embedding.vjp(weight, ids, padding_idx=padding)
    grad = rng.normal(size=out.shape)
    expected = np.zeros_like(weight)
    for place in np.ndindex(*shape):
        if ids[place] != padding:
            expected[int(ids[place])] += grad[place]
    expect(one(back(grad)), expected)


def test_the_padding_may_be_row_0():
    _, back = embedding.vjp(np.ones((2, 1)), np.array([0, 1]), padding_idx=0)
    expect(one(back(np.array([[5.0], [6.0]]))), np.array([[0.0], [6.0]]))


@pytest.mark.parametrize("wrong", [np.inf, np.nan], ids=str)
def test_the_padding_gets_none_whatever_comes_in(wrong):
    """Behind a padding, a loss may be nan."""
    _, back = embedding.vjp(np.ones((3, 2)), np.array([1, 2, 1]), padding_idx=1)
    grad = np.array([[wrong, 1], [5, 6], [-1, wrong]])
    expect(one(back(grad)), np.array([[0.0, 0], [0, 0], [5, 6]]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
def test_a_gradient_has_the_dtype_of_what_came_in(dtype, rng):
    ids = rng.integers(0, 7, (3, 5))
    check_formula(lambda w: embedding(w, ids), lambda w: w[ids], rng.normal(size=(7, 4)).astype(dtype))


@pytest.mark.parametrize("kind", [list, np.uint8, np.int32, Tensor], ids=lambda k: k.__name__)
def test_ids_of_any_kind_find_their_rows_again(kind, rng):
    """200 * 3 does not fit into eight bits."""
    assert is_grad_enabled()
    places = rng.integers(0, 250, (2, 6))
    ids = places.tolist() if kind is list else Tensor(places) if kind is Tensor else places.astype(kind)
    weight, grad = Tensor(rng.normal(size=(250, 3)), requires_grad=True), rng.normal(size=(2, 6, 3))
    embedding(weight, ids).backward(grad)
    expected = np.zeros((250, 3))
    for place in np.ndindex(2, 6):
        expected[places[place]] += grad[place]
    expect(weight.grad, expected)


def test_a_gradient_that_is_one_number_everywhere_counts_the_places(rng):
    """The gradient of a sum is a view with strides of 0."""
    weight = Tensor(np.ones((4, 3), np.float32), requires_grad=True)
    embedding(weight, np.array([[1, 1], [3, 1]])).sum().backward()
    expect(weight.grad, np.array([[0] * 3, [3] * 3, [0] * 3, [1] * 3], np.float32))


def test_a_rule_can_be_used_more_than_once(rng):
    out, back = embedding.vjp(rng.normal(size=(4, 2)), np.array([1, 3, 1]), padding_idx=3)
    grad = rng.normal(size=out.shape)
    kept, first = grad.copy(), one(back(grad)).copy()
    back(2 * grad)
    expect(one(back(grad)), first)
    expect(grad, kept)


# 12.9 a sparse gradient


@steady
@given(st.integers(1, 6), SHAPES, st.booleans(), SEEDS)
def test_a_sparse_gradient_is_the_dense_one(count, shape, padded, seed):
    rng = np.random.default_rng(seed)
    dense, sparse = (Embedding(count, 3, 0 if padded else None, kind, rng=rng) for kind in (False, True))
    ids = rng.integers(0, count, shape)
    grad = rng.normal(size=(*shape, 3)).astype(np.float32)
    for layer in (dense, sparse):
        layer(ids).backward(grad)
    rows = sparse.sparse_grad()
    expect(rows.to_dense(), dense.weight.grad)
    expect(rows.values.dtype, np.dtype(np.float32))


# 12.12 learnt positions


@pytest.mark.parametrize("positions", [None, np.array([[0, 3, 3], [1, 2, 0]])], ids=["slice", "given"])
def test_learnt_positions_move_as_their_gradient_says(positions, rng):
    layer = LearnedPositions(5, 2, rng=rng)

    def forward(x, weight):
        layer.weight = weight
        return layer(x, positions=positions) if positions is not None else layer(x, 1)

    check_gradient(forward, rng.normal(size=(2, 3, 2)), rng.normal(size=(5, 2)))


# 12.15 the rule of rotary


@steady
@given(st.lists(st.integers(1, 2), max_size=2), st.integers(1, 4), st.integers(1, 3), SEEDS)
def test_the_gradient_of_a_rotation_is_the_slope(lead, length, half, seed):
    at = angles(length, half)
    x = np.random.default_rng(seed).normal(size=(*lead, length, 2 * half))
    check_gradient(rotary, x, cos=np.cos(at), sin=np.sin(at))


def test_a_rotation_s_gradient_turns_back(rng):
    at = angles(5, 2)
    _, back = rotary.vjp(rng.normal(size=(3, 5, 4)), cos=np.cos(at), sin=np.sin(at))
    x = rng.normal(size=(3, 5, 4))
    expect(one(back(rotary(x, cos=np.cos(at), sin=np.sin(at)).data)), x)


def test_where_tables_are_no_rotation_the_gradient_is_the_transpose(rng):
    """Rotations that stretch, too (as some long-context methods make): the rule is not the inverse."""
    cos, sin = rng.normal(size=(2, 3, 2))
    check_gradient(rotary, rng.normal(size=(2, 3, 4)), cos=cos, sin=sin)


@pytest.mark.parametrize("dtype", [np.float16, np.float32], ids=lambda d: d.__name__)
def test_the_gradient_of_a_rotation_keeps_its_dtype(dtype, rng):
    at = angles(3, 2)
    _, back = rotary.vjp(rng.normal(size=(3, 4)).astype(dtype), cos=np.cos(at), sin=np.sin(at))
    grad = rng.normal(size=(3, 4)).astype(dtype)
    kept = grad.copy()
    expect(one(back(grad)).dtype, np.dtype(dtype))
    expect(grad, kept)


# 12.17 and all of it in a row


def test_a_small_model_from_ids_to_logits_has_right_gradients(rng):
    """Tied at both ends, with learnt positions, waves and rotations in between."""
    tokens, learnt = Embedding(5, 4, rng=rng), LearnedPositions(6, 4, rng=rng)
    waves, turn = SinusoidalPositions(4, 6), Rotary(4, 6)
    ids = np.array([[0, 3, 3], [4, 3, 1]])

    def forward(table, positions):
        tokens.weight, learnt.weight = table, positions
        x = turn(waves(learnt(tokens(ids), 1), 2), 3)
        return TiedLinear(tokens)(x)

    check_gradient(forward, rng.normal(size=(5, 4)), rng.normal(size=(6, 4)))
