"""Kata 12: look-ups and their gradients, positions and rotations are PyTorch's, in float64 to 1e-10."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.embeddings import (
    Embedding,
    LearnedPositions,
    Rotary,
    SinusoidalPositions,
    TiedLinear,
    embedding,
    rotary,
    scatter_add,
    sgd_rows_,
)
from tinytorch.tensor import Tensor

torch = pytest.importorskip("torch")
functional = torch.nn.functional

SEEDS = st.integers(0, 2**16)
thorough = settings(deadline=None, derandomize=True, max_examples=100)


def same(ours, theirs, tolerance=1e-10):
    theirs = theirs.detach().numpy()
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance, strict=True)


@thorough
@given(st.integers(1, 40), st.integers(1, 9), st.lists(st.integers(0, 9), max_size=3), st.booleans(), SEEDS)
def test_looking_up_there_and_back(count, dim, shape, padded, seed):
    rng = np.random.default_rng(seed)
    weight, ids = rng.normal(size=(count, dim)), rng.integers(0, count, shape)
    padding = int(rng.integers(count)) if padded else None
    theirs = torch.tensor(weight, requires_grad=True)
    expected = functional.embedding(torch.tensor(ids), theirs, padding_idx=padding)
    out, back = embedding.vjp(weight, ids, padding_idx=padding)
    same(out, expected)
    grad = rng.normal(size=out.shape)
    expected.backward(torch.tensor(grad))
    same(back(grad), theirs.grad)


@thorough
@given(st.integers(0, 3000), st.integers(1, 70), st.integers(1, 300), SEEDS)
def test_adding_up(n, dim, count, seed):
    rng = np.random.default_rng(seed)
    rows, ids = rng.normal(size=(n, dim)), rng.integers(0, count, n)
    expected = torch.zeros(count, dim, dtype=torch.float64).index_add_(
        0, torch.tensor(ids), torch.tensor(rows)
    )
    same(scatter_add(rows, ids, count), expected, 1e-9)


@thorough
@given(st.integers(2, 20), st.integers(1, 5), st.booleans(), SEEDS)
def test_sparse_gradients_and_steps(count, dim, padded, seed):
    rng = np.random.default_rng(seed)
    padding = int(rng.integers(count)) if padded else None
    ours = Embedding(count, dim, padding, True, rng=rng)
    ours.weight.data = rng.normal(size=(count, dim))
    theirs = torch.nn.Embedding(count, dim, padding, sparse=True, dtype=torch.float64)
    theirs.weight.data = torch.tensor(ours.weight.data.copy())
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        for _ in range(2):
            ids, grad = rng.integers(0, count, (2, 3)), rng.normal(size=(2, 3, dim))
            ours(ids).backward(grad)
            theirs(torch.tensor(ids)).backward(torch.tensor(grad))
        rows, wanted = ours.sparse_grad(), theirs.weight.grad.coalesce()
        same(rows.to_dense(), wanted.to_dense())
        assert rows.ids.tolist() == wanted.indices()[0].tolist()
        sgd_rows_(ours.weight, rows, 0.1)
        optimizer.step()
        same(ours.weight.data, theirs.weight)


def test_waves_are_those_of_the_paper_s_code():
    """As in PyTorch's own tutorial, by exp and log."""
    position = torch.arange(50, dtype=torch.float64).unsqueeze(1)
    rates = torch.exp(torch.arange(0, 8, 2, dtype=torch.float64) * (-np.log(10_000.0) / 8))
    table = torch.zeros(50, 8, dtype=torch.float64)
    table[:, 0::2], table[:, 1::2] = torch.sin(position * rates), torch.cos(position * rates)
    same(SinusoidalPositions(8, 50).table, table.float(), 1e-6)


@pytest.mark.parametrize("positions", [None, [[0, 0, 1], [2, 3, 4]]])
def test_learnt_positions_are_an_embedding_of_positions(positions):
    rng = np.random.default_rng(0)
    ours = LearnedPositions(6, 4, rng=rng)
    ours.weight.data = rng.normal(size=(6, 4))
    weight = torch.tensor(ours.weight.data.copy(), requires_grad=True)
    x, grad = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4))
    out = ours(Tensor(x), 2) if positions is None else ours(Tensor(x), positions=np.array(positions))
    places = torch.arange(2, 5).expand(2, 3) if positions is None else torch.tensor(positions)
    expected = torch.tensor(x) + functional.embedding(places, weight)
    same(out.data, expected)
    out.backward(grad)
    expected.backward(torch.tensor(grad))
    same(ours.weight.grad, weight.grad)


def rotate_half(x):
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


@thorough
@given(st.lists(st.integers(1, 3), max_size=2), st.integers(1, 9), st.integers(1, 5), SEEDS)
def test_rotations_are_those_of_llama_there_and_back(lead, length, half, seed):
    rng = np.random.default_rng(seed)
    x, grad = rng.normal(size=(2, *lead, length, 2 * half))
    angles = np.outer(np.arange(length), 10_000.0 ** -(np.arange(half) / half))
    theirs = torch.tensor(x, requires_grad=True)
    both = torch.tensor(np.tile(angles, 2))
    expected = theirs * both.cos() + rotate_half(theirs) * both.sin()
    out, back = rotary.vjp(x, cos=np.cos(angles), sin=np.sin(angles))
    same(out, expected)
    expected.backward(torch.tensor(grad))
    same(back(grad), theirs.grad)
    np.testing.assert_allclose(Rotary(2 * half, length)(Tensor(x)).data, out, atol=1e-6)


def test_a_tied_model_has_the_gradients_of_both_ends():
    rng = np.random.default_rng(0)
    tokens = Embedding(7, 4, rng=rng)
    tokens.weight.data = rng.normal(size=(7, 4))
    weight = torch.tensor(tokens.weight.data.copy(), requires_grad=True)
    ids, grad = rng.integers(0, 7, (2, 3)), rng.normal(size=(2, 3, 7))
    out = TiedLinear(tokens)(tokens(ids))
    expected = functional.linear(functional.embedding(torch.tensor(ids), weight), weight)
    same(out.data, expected)
    out.backward(grad)
    expected.backward(torch.tensor(grad))
    same(tokens.weight.grad, weight.grad)
