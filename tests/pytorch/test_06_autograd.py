"""Kata 06: every operation of kata 02 gives PyTorch's values and gradients, in float64 to the tenth digit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinytorch.autograd import backward, checkpoint, jvp
from tinytorch.layers import affine
from tinytorch.tensor import Tensor, concatenate, maximum, stack, where

torch = pytest.importorskip("torch")

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
PAIRS = hnp.mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_side=4, max_dims=4)
SEEDS = st.integers(0, 2**16)
thorough = settings(deadline=None, derandomize=True, max_examples=30)


def numbers(rng, shape, kind="any"):
    """Halves (so that there are ties and zeros), or positive numbers."""
    if kind == "positive":
        return np.asarray(rng.uniform(0.2, 3, shape))
    if kind == "any":
        return np.asarray(rng.normal(size=shape))
    return np.asarray(rng.integers(-3, 4, shape) / 2)


def compare(mine, theirs, *arrays, seed=0):
    """Values, and the gradients for a random one of the result; none is as good as zeros."""
    leaves = [Tensor(a.copy(), requires_grad=True) for a in arrays]
    others = [torch.tensor(a, requires_grad=True) for a in arrays]
    out, expected = mine(*leaves), theirs(*others)
    assert out.shape == tuple(expected.shape)
    same(out.data, expected.detach().numpy())
    if not expected.requires_grad:
        return
    cotangent = np.asarray(np.random.default_rng([seed, 1]).normal(size=out.shape))
    backward(out, cotangent)
    expected.backward(torch.tensor(cotangent))
    for x, other in zip(leaves, others, strict=True):
        found = np.zeros(x.shape) if x.grad is None else x.grad
        same(found, np.zeros(x.shape) if other.grad is None else other.grad.numpy())


def same(got, expected):
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10, strict=True)


UNARY = {
    "neg": (lambda x: -x, lambda x: -x, "any"),
    "exp": (lambda x: x.exp(), torch.exp, "any"),
    "log": (lambda x: x.log(), torch.log, "positive"),
    "sqrt": (lambda x: x.sqrt(), torch.sqrt, "positive"),
    "absolute": (lambda x: x.abs(), torch.abs, "halves"),
    "square": (lambda x: x**2, lambda x: x**2, "halves"),
    "cube": (lambda x: x**3, lambda x: x**3, "halves"),
    "to the 0": (lambda x: x**0, lambda x: x**0, "halves"),
    "reciprocal": (lambda x: x**-1, lambda x: x**-1, "positive"),
    "root": (lambda x: x**0.5, lambda x: x**0.5, "positive"),
    "2 to the": (lambda x: 2.0**x, lambda x: 2.0**x, "any"),
    "clip": (lambda x: x.clip(-0.5, 1.0), lambda x: x.clip(-0.5, 1.0), "halves"),
    "clip from below": (lambda x: x.clip(0.5), lambda x: x.clip(0.5), "halves"),
    "clip from above": (lambda x: x.clip(max=0.5), lambda x: x.clip(max=0.5), "halves"),
    "times a number": (lambda x: 3 * x - 1.5 + x / 7, lambda x: 3 * x - 1.5 + x / 7, "any"),
}


@pytest.mark.parametrize("name", UNARY)
@thorough
@given(SHAPES, SEEDS)
def test_functions_of_one_tensor(name, shape, seed):
    mine, theirs, kind = UNARY[name]
    compare(mine, theirs, numbers(np.random.default_rng(seed), shape, kind), seed=seed)


BINARY = {
    "add": (lambda a, b: a + b, lambda a, b: a + b, "any"),
    "sub": (lambda a, b: a - b, lambda a, b: a - b, "any"),
    "mul": (lambda a, b: a * b, lambda a, b: a * b, "any"),
    "div": (lambda a, b: a / b, lambda a, b: a / b, "positive"),
    "power": (lambda a, b: a**b, lambda a, b: a**b, "positive"),
    "maximum": (maximum, torch.maximum, "halves"),
}


@pytest.mark.parametrize("name", BINARY)
@thorough
@given(PAIRS, SEEDS)
def test_functions_of_two_tensors_that_stretch(name, shapes, seed):
    mine, theirs, kind = BINARY[name]
    rng = np.random.default_rng(seed)
    compare(mine, theirs, *(numbers(rng, shape, kind) for shape in shapes.input_shapes), seed=seed)


@thorough
@given(SEEDS)
def test_powers_of_0(seed):
    rng = np.random.default_rng(seed)
    base = np.abs(numbers(rng, (3, 4), "halves"))
    exponent = np.abs(numbers(rng, (3, 4), "halves")) * 2
    with np.errstate(all="ignore"):
        compare(lambda a, b: a**b, lambda a, b: a**b, base, np.where(exponent == 1, 2, exponent), seed=seed)


@thorough
@given(PAIRS, SEEDS)
def test_where(shapes, seed):
    rng = np.random.default_rng(seed)
    condition = np.asarray(rng.random(shapes.result_shape) < 0.5)
    compare(
        lambda a, b: where(condition, a, b),
        lambda a, b: torch.where(torch.tensor(condition), a, b),
        *(numbers(rng, shape) for shape in shapes.input_shapes),
        seed=seed,
    )


REDUCTIONS = {
    "total": (lambda x, axis, keep: x.sum(axis, keep), lambda x, axis, keep: x.sum(axis, keep)),
    "mean": (lambda x, axis, keep: x.mean(axis, keep), lambda x, axis, keep: x.mean(axis, keep)),
    "amax": (lambda x, axis, keep: x.max(axis, keep), lambda x, axis, keep: x.amax(axis, keep)),
    "amin": (lambda x, axis, keep: x.min(axis, keep), lambda x, axis, keep: x.amin(axis, keep)),
    "var": (
        lambda x, axis, keep: x.var(axis, 0, keep),
        lambda x, axis, keep: x.var(axis, correction=0, keepdim=keep),
    ),
    "var with correction": (
        lambda x, axis, keep: x.var(axis, 1, keep),
        lambda x, axis, keep: x.var(axis, correction=1, keepdim=keep),
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REDUCTIONS)
@thorough
@given(SHAPES, SEEDS, st.booleans())
def test_reductions_along_any_axes(name, shape, seed, keepdims):
    mine, theirs = REDUCTIONS[name]
    rng = np.random.default_rng(seed)
    low = {"amax": 1, "amin": 1, "var": 1, "var with correction": 2}.get(name, 0)
    shape = tuple(max(n, low) for n in shape)
    if name == "var with correction" and not shape:
        shape = (2,)
    axes = (
        [int(a) for a in rng.choice(len(shape), rng.integers(1, len(shape) + 1), replace=False)]
        if shape
        else []
    )
    axis = tuple(a - len(shape) * int(rng.integers(2)) for a in axes) or tuple(range(len(shape)))
    x = numbers(rng, shape, "halves")
    with np.errstate(all="ignore"):
        compare(lambda x: mine(x, axis, keepdims), lambda x: theirs(x, axis, keepdims), x, seed=seed)


@thorough
@given(
    st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.lists(st.integers(0, 3), max_size=2), SEEDS
)
def test_products_of_every_kind(n, k, m, batch, seed):
    rng = np.random.default_rng(seed)
    ones = [1 if i % 2 else side for i, side in enumerate(batch)]
    kinds = [
        ((k,), (k,)),
        ((k,), (*batch, k, m)),
        ((*batch, n, k), (k,)),
        ((*batch, n, k), (*batch, k, m)),
        ((*batch, n, k), (k, m)),
        ((*ones, n, k), (*batch, k, m)),
        ((n, k), (*batch, k, m)),
    ]
    for shapes in kinds:
        compare(lambda a, b: a @ b, lambda a, b: a @ b, *(numbers(rng, shape) for shape in shapes), seed=seed)


@thorough
@given(st.lists(st.integers(0, 4), min_size=3, max_size=3).map(tuple), SEEDS)
def test_views(shape, seed):
    x = numbers(np.random.default_rng(seed), shape)
    compare(lambda x: x.permute(2, 0, -2).reshape(-1), lambda x: x.permute(2, 0, -2).reshape(-1), x)
    compare(
        lambda x: x.transpose(0, -1).unsqueeze(1).contiguous().view(-1),
        lambda x: x.transpose(0, -1).unsqueeze(1).contiguous().view(-1),
        x,
    )
    compare(lambda x: x[:, None].squeeze(1) * 2.0, lambda x: x[:, None].squeeze(1) * 2.0, x)
    compare(lambda x: x.expand(2, -1, -1, -1), lambda x: x.expand(2, -1, -1, -1), x)


@thorough
@given(st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple), SEEDS)
def test_picking(shape, seed):
    rng = np.random.default_rng(seed)
    x = numbers(rng, shape)
    rows, mask = rng.integers(-shape[0], shape[0], 5), np.asarray(rng.random(shape) < 0.5)
    columns = rng.integers(0, shape[1], (2, 5))
    for mine, theirs in [
        (rows, torch.tensor(rows)),
        ((rows, columns), (torch.tensor(rows), torch.tensor(columns))),
        ((slice(None), columns), (slice(None), torch.tensor(columns))),
        ((..., None, 0), (..., None, 0)),
        ((slice(1, None), -1), (slice(1, None), -1)),
        (mask, torch.tensor(mask)),
    ]:
        compare(lambda x, mine=mine: x[mine], lambda x, theirs=theirs: x[theirs], x, seed=seed)


@thorough
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(1, 3), SEEDS)
def test_joining(lengths, width, seed):
    rng = np.random.default_rng(seed)
    pieces = [numbers(rng, (width, n)) for n in lengths]
    compare(lambda *p: concatenate(p, axis=-1), lambda *p: torch.cat(p, -1), *pieces, seed=seed)
    equal = [numbers(rng, (width, 2)) for _ in lengths]
    compare(lambda *p: stack(p, axis=1), lambda *p: torch.stack(p, 1), *equal, seed=seed)


@thorough
@given(SEEDS)
def test_graphs_in_which_results_are_used_again(seed):
    def function(x, y, matrix):
        h = x @ matrix
        return (h * h + h / (y * y + 1.0)).sum(0) - (h - y).abs() ** 2

    rng = np.random.default_rng(seed)
    arrays = [numbers(rng, (3, 4)), numbers(rng, 5), numbers(rng, (4, 5))]
    compare(function, function, *arrays, seed=seed)
    compare(lambda *inputs: checkpoint(function, *inputs), function, *arrays, seed=seed)


@thorough
@given(SEEDS)
def test_forward_mode(seed):
    rng = np.random.default_rng(seed)
    shapes = ((3, 4), (5, 4), (5,))
    primals, tangents = ([numbers(rng, shape) for shape in shapes] for _ in range(2))

    def function(x, weight, bias):
        h = affine(x, weight, bias)
        return (h / (h * h + 1.0)).exp().sum(axis=0)

    def theirs(x, weight, bias):
        h = torch.nn.functional.linear(x, weight, bias)
        return (h / (h * h + 1.0)).exp().sum(0)

    expected = torch.func.jvp(theirs, tuple(map(torch.tensor, primals)), tuple(map(torch.tensor, tangents)))
    for got, other in zip(jvp(function, primals, tangents), expected, strict=True):
        same(got, other.numpy())
