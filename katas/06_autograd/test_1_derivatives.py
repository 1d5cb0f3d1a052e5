"""Level 1: the rules for kata 02's operations, on examples worked out by hand, before there is an engine.

`op.vjp(*arrays)` gives the answer and `back`, from its gradient to those of the inputs.
"""

import warnings
from contextlib import contextmanager

import numpy as np
import pytest

from dojo.expect import expect
from tinytorch.autograd import spread
from tinytorch.tensor import (
    absolute,
    add,
    amax,
    amin,
    clip,
    contiguous,
    div,
    exp,
    expand,
    getitem,
    join,
    log,
    matmul,
    maximum,
    mean,
    mul,
    neg,
    permute,
    power,
    reshape,
    sqrt,
    squeeze,
    sub,
    total,
    transpose,
    unsqueeze,
    var,
    view,
    where,
)


def f64(values):
    return np.array(values, np.float64)


def arrays_in(values):
    """Lists become float64; bools and arrays stay."""
    return [f64(v) if isinstance(v, list) else v for v in values]


@contextmanager
def quiet():
    """Where nan or inf is the right answer, numpy may warn of it."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def gradients(op, inputs, grad, **params):
    """What the rule says, as a list with an array or None for each input."""
    out, back = op.vjp(*arrays_in(inputs), **params)
    grad = np.asarray(grad, np.float64)
    assert grad.shape == out.shape, "the example itself is wrong"
    shares = back(grad)
    shares = list(shares) if isinstance(shares, (tuple, list)) else [shares]
    return [None if share is None else np.asarray(share) for share in shares]


# 06.1 and 06.2: element by element


ELEMENTWISE = {
    "add": (add, ([1, 2], [3, 5]), [10, 20], ([10, 20], [10, 20])),
    "sub": (sub, ([1, 2], [3, 5]), [10, 20], ([10, 20], [-10, -20])),
    "mul": (mul, ([1, 2], [3, 5]), [10, 20], ([30, 100], [10, 40])),
    "div": (div, ([1, 2], [4, 5]), [10, 20], ([2.5, 4], [-0.625, -1.6])),  # -10 * 1 / 16, -20 * 2 / 25
    "neg": (neg, ([1, 2],), [10, 20], ([-10, -20],)),
    "exp": (exp, ([0, np.log(2)],), [10, 20], ([10, 40],)),
    "log": (log, ([1, 4],), [10, 20], ([10, 5],)),
    "sqrt": (sqrt, ([1, 16],), [10, 20], ([5, 2.5],)),  # 1 / (2 * 4)
    "absolute": (absolute, ([-3, 0, 2],), [10, 20, 30], ([-10, 0, 30],)),
    "absolute of infinities": (absolute, ([-np.inf, np.inf],), [10, 20], ([-10, 20],)),
    # 2**3 has the slope 3 * 2**2 in the base, and 2**3 log 2 in the exponent.
    "power": (power, ([2, 1], [3, 4]), [10, 20], ([120, 80], [80 * np.log(2), 0])),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_what_moves_an_element_moves_the_result(name):
    op, inputs, grad, expected = ELEMENTWISE[name]
    expect(gradients(op, inputs, grad), [f64(e) for e in expected])


@pytest.mark.parametrize(
    ("exponent", "slopes"),
    [
        (2, [2, 4, -6]),
        (2.0, [2, 4, -6]),
        (1, [1, 1, 1]),
        (3, [3, 12, 27]),
        (-1, [-1, -0.25, -1 / 9]),
        (0, [0, 0, 0]),
    ],
)
def test_the_exponent_can_be_a_number(exponent, slopes):
    expect(gradients(power, ([1, 2, -3], exponent), [1, 1, 1])[0], f64(slopes))


def test_base_and_exponent_can_be_lists():
    expect(gradients(power, ([2, 3], (2, 0)), [1, 1])[0], f64([4, 0]))
    for a, b, moves, slopes in (
        (f64([0, 3]), [0, 2], 0, [0, 6]),  # 0 even at 0; 2 * 3
        ([0.0, 2.0], f64([1, 3]), 1, [0, 8 * np.log(2)]),  # 0 for a base of 0; 2**3 log 2
    ):
        _, back = power.vjp(a, b)
        expect(back(f64([1, 1]))[moves], f64(slopes))


@pytest.mark.parametrize("op", [add, sub, mul, div, power, maximum], ids=lambda op: op.name)
def test_float32_beside_a_number_stays_float32(op):
    for a, b, moves in (
        (np.float32([1, 2]), 3, 0),
        (np.float32([1, 2]), 0.5, 0),
        (2.0, np.float32([1, 2]), 1),
    ):
        out, back = op.vjp(a, b)
        expect(np.asarray(back(np.ones_like(out))[moves]).dtype, np.dtype(np.float32))


def test_nothing_is_said_about_what_is_not_chosen():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradients(power, ([0, 0], [0, 1]), [1, 1])
        gradients(power, ([0, 2], 0), [1, 1])
        gradients(power, ([-2, 2], 2), [1, 1])


def test_slopes_of_tiny_numbers_are_as_steep_as_they_are():
    """1 / x, 1 / (2 sqrt(x)) and 1 / b: something small that is added to a divisor shows here."""
    expect(gradients(log, ([1e-20],), [1]), [f64([1e20])])
    expect(gradients(sqrt, ([1e-20],), [1]), [f64([5e9])])
    expect(gradients(div, ([3e-20], [1e-20]), [1]), [f64([1e20]), f64([-3e20])])


def test_the_base_can_be_a_number():
    expect(gradients(power, (2.0, [0, 1, 3]), [1, 1, 1])[1], np.log(2) * f64([1, 2, 8]))


@pytest.mark.parametrize("exponent", [0, 0.0, f64(0)])
def test_a_power_of_0_has_no_slope_even_at_0(exponent):
    expect(gradients(power, ([0, 2], exponent), [1, 1])[0], f64([0, 0]))


def test_a_power_of_nothing_has_no_slope_in_its_exponent():
    with quiet():
        expect(gradients(power, ([0, 0, 0], [0, 1, 2.5]), [1, 1, 1])[1], f64([0, 0, 0]))
        expect(gradients(power, ([0, 0], [1, 2]), [1, 1])[0], f64([1, 0]))
        expect(np.isfinite(gradients(power, ([0], [-1]), [1])[1]), np.array([False]))  # but for negative ones


def test_a_negative_base_has_no_slope_in_its_exponent_that_is_a_number():
    with quiet():
        expect(np.isnan(gradients(power, ([-2], [2]), [1])[1]), np.array([True]))


# 06.3: one or the other


def test_the_larger_gets_the_gradient_and_equals_share_it():
    expect(gradients(maximum, ([1, 5, 2], [3, 4, 2]), [10, 20, 30]), [f64([0, 20, 15]), f64([10, 0, 15])])
    expect(gradients(maximum, ([-1, 0, 2], 0.0), [10, 20, 30])[0], f64([0, 10, 30]))
    expect(gradients(maximum, ([1], [1 + 1e-9]), [10]), [f64([0]), f64([10])])  # near is not equal


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"min": -1.0, "max": 2.0}, [0, 20, 30, 40, 0]),  # on a bound is inside
        ({"min": 0}, [0, 0, 30, 40, 50]),
        ({"max": 0}, [10, 20, 30, 0, 0]),
        ({"min": -9, "max": 9}, [10, 20, 30, 40, 50]),
    ],
)
def test_what_was_clipped_gets_nothing(bounds, expected):
    expect(gradients(clip, ([-2, -1, 0, 2, 3],), [10, 20, 30, 40, 50], **bounds), [f64(expected)])


def test_each_place_gives_its_gradient_to_where_it_came_from():
    chosen = np.array([True, False, True])
    shares = gradients(where, (chosen, [1, 2, 3], [4, 5, 6]), [10, 20, 30])
    expect(shares, [None, f64([10, 0, 30]), f64([0, 20, 0])])


def test_a_condition_can_be_a_python_bool_or_some_of_them():
    shares = gradients(where, ((True, False), [1, 2], [3, 4]), [10, 20])
    expect(shares[1:], [f64([10, 0]), f64([0, 20])])
    for condition in (True, False):
        shares = gradients(where, (condition, [1, 2], [3, 4]), [10, 20])
        expect(shares[2 - condition], f64([10, 20]))
        expect(shares[1 + condition], f64([0, 0]))


def test_a_gradient_that_is_not_finite_stays_on_its_side():
    """0 * inf is nan: a mask that is multiplied lets it through."""
    shares = gradients(where, (np.array([True, False]), [1, 2], [3, 4]), [np.inf, np.nan])
    expect(shares[1:], [f64([np.inf, 0]), f64([0, np.nan])])


# 06.4: matmul


def test_a_product_of_matrices():
    """out[i, j] = sum over k of a[i, k] b[k, j]."""
    a, b = [[1, 2, 3]], [[1, 0], [2, 1], [0, 5]]
    # for a: grad @ b.T = [10 * 1 + 20 * 0, 10 * 2 + 20 * 1, 20 * 5]; for b: a.T @ grad
    expect(gradients(matmul, (a, b), [[10, 20]]), [f64([[10, 40, 100]]), f64([[10, 20], [20, 40], [30, 60]])])


@pytest.mark.parametrize(
    ("a", "b", "grad", "expected"),
    [
        ([1, 2], [3, 4], 10.0, ([30, 40], [10, 20])),
        ([1, 2], [[3, 4, 5], [6, 7, 8]], [1, 10, 100], ([543, 876], [[1, 10, 100], [2, 20, 200]])),
        ([[1, 2], [3, 4], [5, 6]], [7, 8], [1, 10, 100], ([[7, 8], [70, 80], [700, 800]], [531, 642])),
    ],
)
def test_a_product_with_a_vector(a, b, grad, expected):
    expect(gradients(matmul, (a, b), grad), [f64(e) for e in expected])


def test_batches_of_products(rng):
    a, b, grad = (rng.normal(size=shape) for shape in ((4, 2, 3), (4, 3, 5), (4, 2, 5)))
    each = [gradients(matmul, matrices[:2], matrices[2]) for matrices in zip(a, b, grad, strict=True)]
    expect(gradients(matmul, (a, b), grad), [np.stack(one) for one in zip(*each, strict=True)])


def test_vectors_and_batches_of_matrices(rng):
    batch, vector, grad = rng.normal(size=(4, 2, 3)), rng.normal(size=3), rng.normal(size=(4, 2))
    each = [gradients(matmul, (one, vector), g) for one, g in zip(batch, grad, strict=True)]
    for_a, for_b = gradients(matmul, (batch, vector), grad)
    expect(
        (for_a, for_b.reshape(-1, 3).sum(axis=0)), (np.stack([a for a, _ in each]), sum(b for _, b in each))
    )
    turned = np.swapaxes(batch, 1, 2)
    for_b, for_a = gradients(matmul, (vector, turned), grad)
    expect(np.swapaxes(for_a, 1, 2), np.stack([a for a, _ in each]))
    expect(for_b.reshape(-1, 3).sum(axis=0), sum(b for _, b in each))


def test_one_matrix_for_many_gets_what_all_of_them_say(rng):
    a, b, grad = (rng.normal(size=shape) for shape in ((4, 2, 3), (3, 5), (4, 2, 5)))
    each = [gradients(matmul, (one, b), g) for one, g in zip(a, grad, strict=True)]
    for_a, for_b = gradients(matmul, (a, b), grad)
    expect(for_a, np.stack([one for one, _ in each]))
    # `unbroadcast` will add up what a rule leaves apart.
    expect(for_b.reshape(-1, 3, 5).sum(axis=0), sum(other for _, other in each))


@pytest.mark.parametrize(
    ("a", "b"), [((0,), (0,)), ((2, 0), (0, 3)), ((0, 2), (2, 3)), ((2, 3), (3, 0)), ((0, 2, 3), (3, 4))]
)
def test_a_product_of_nothing(a, b):
    out, back = matmul.vjp(np.ones(a), np.ones(b))
    for_a, for_b = back(np.ones_like(out))
    expect((np.shape(for_a), np.shape(for_b)[-len(b) :]), (a, b))
    expect((np.sum(for_a), np.sum(for_b)), (0.0, 0.0))


# 06.5 and 06.6: reductions


def test_spread_repeats_a_reduced_gradient():
    expect(spread(f64([1, 2]), (2, 3), 1, False), f64([[1, 1, 1], [2, 2, 2]]))
    expect(spread(f64([1, 2, 3]), (2, 3), 0, False), f64([[1, 2, 3], [1, 2, 3]]))
    expect(spread(f64([[1], [2]]), (2, 3), -1, True), f64([[1, 1, 1], [2, 2, 2]]))
    expect(spread(f64(7), (2, 2), None, False), f64([[7, 7], [7, 7]]))
    expect(spread(f64([1, 2]), (3, 2, 1), (0, -1), False), f64([[[1], [2]]] * 3))
    expect(spread(f64([1, 2]), (2, 1, 1), (-2, -1), False), f64([[[1]], [[2]]]))
    expect(spread(f64(7), (), None, False), f64(7))


SIX = [[1, 5, 3], [4, 2, 6]]

REDUCTIONS = {
    "total": (total, SIX, {}, 10.0, [[10, 10, 10], [10, 10, 10]]),
    "total of columns": (total, SIX, {"axis": 0}, [1, 2, 3], [[1, 2, 3], [1, 2, 3]]),
    "total of rows, kept": (total, SIX, {"axis": -1, "keepdims": True}, [[1], [2]], [[1, 1, 1], [2, 2, 2]]),
    "total of no axis": (total, SIX, {"axis": ()}, SIX, SIX),
    "total of a number": (total, np.array(3.0), {}, 10.0, 10.0),
    "mean": (mean, SIX, {}, 12.0, [[2, 2, 2], [2, 2, 2]]),
    "mean of columns": (mean, SIX, {"axis": 0}, [2, 4, 6], [[1, 2, 3], [1, 2, 3]]),
    "mean of both, kept": (mean, SIX, {"axis": (0, 1), "keepdims": True}, [[12]], [[2, 2, 2], [2, 2, 2]]),
    "mean of no axis": (mean, SIX, {"axis": ()}, SIX, SIX),
    # the mean is 2, the distances -1, 0, 1, and 2 / (n - 1) is 1
    "var": (var, [1, 2, 3], {}, 10.0, [-10, 0, 10]),
    "var without correction": (var, [1, 2, 3], {"correction": 0}, 3.0, [-2, 0, 2]),
    "var with another correction": (var, [1, 2, 3], {"correction": 2}, 5.0, [-10, 0, 10]),  # 5 * 2 / 1
    "var of rows": (var, [[1, 2, 3], [0, 0, 0]], {"axis": 1}, [1, 10], [[-1, 0, 1], [0, 0, 0]]),
    "amax": (amax, SIX, {}, 10.0, [[0, 0, 0], [0, 0, 10]]),
    "amax of columns": (amax, SIX, {"axis": 0}, [1, 2, 3], [[0, 2, 0], [1, 0, 3]]),
    "amax of rows, kept": (amax, SIX, {"axis": 1, "keepdims": True}, [[1], [2]], [[0, 1, 0], [0, 0, 2]]),
    "amax of no axis": (amax, SIX, {"axis": ()}, SIX, SIX),
    "amax of nearly equals": (amax, [1, 1 + 1e-9], {}, 6.0, [0, 6]),
    "amin": (amin, SIX, {}, 10.0, [[10, 0, 0], [0, 0, 0]]),
    "amin of columns": (amin, SIX, {"axis": (0,)}, [1, 2, 3], [[1, 0, 3], [0, 2, 0]]),
    "amax of equals": (amax, [3, 1, 3, 3], {}, 6.0, [2, 0, 2, 2]),
    "amin of equals in rows": (amin, [[1, 1], [1, 2]], {"axis": 1}, [6, 6], [[3, 3], [6, 0]]),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_each_element_gets_what_it_moved(name):
    op, x, params, grad, expected = REDUCTIONS[name]
    expect(gradients(op, (x,), grad, **params), [f64(expected)])


def test_one_number_has_no_variance():
    with quiet():
        expect(np.isnan(gradients(var, ([3],), 1.0)[0]), np.array([True]))
        # 1 / 0 for all n that are not more than the correction
        expect(np.isfinite(gradients(var, ([1, 3],), 1.0, correction=3)[0]), np.array([False, False]))


@pytest.mark.parametrize("op", [total, mean, var], ids=lambda op: op.name)
def test_nothing_can_be_reduced(op):
    with quiet():
        expect(gradients(op, (np.zeros((0, 3)),), [1, 2, 3], axis=0), [np.zeros((0, 3))])
        expect(gradients(op, (np.zeros((3, 0)),), [1, 2, 3], axis=1), [np.zeros((3, 0))])
        expect(gradients(op, (np.zeros((0, 3)),), np.zeros(0), axis=1), [np.zeros((0, 3))])


# 06.7 and 06.8: every number goes back to its place


X = np.arange(6.0).reshape(2, 3)
SHAPES = {
    "reshape": (reshape, X, {"shape": (3, -1)}, [[1, 2], [3, 4], [5, 6]], [[1, 2, 3], [4, 5, 6]]),
    "view": (view, X, {"shape": (6,)}, [1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]),
    "contiguous": (contiguous, X.T, {}, [[1, 2], [3, 4], [5, 6]], [[1, 2], [3, 4], [5, 6]]),
    "transpose": (transpose, X, {"axis0": 0, "axis1": -1}, [[1, 2], [3, 4], [5, 6]], [[1, 3, 5], [2, 4, 6]]),
    "squeeze": (squeeze, X[:, None], {}, [[1, 2, 3], [4, 5, 6]], [[[1, 2, 3]], [[4, 5, 6]]]),
    "squeeze of two": (squeeze, f64([[[1]], [[2]]]), {"axis": (-2, -1)}, [1, 2], [[[1]], [[2]]]),
    "squeeze of one": (squeeze, X[None, :1], {"axis": 0}, [[1, 2, 3]], [[[1, 2, 3]]]),
    "unsqueeze": (unsqueeze, X, {"axis": 1}, [[[1, 2, 3]], [[4, 5, 6]]], [[1, 2, 3], [4, 5, 6]]),
    "unsqueeze at the end": (unsqueeze, f64([1, 2]), {"axis": -1}, [[1], [2]], [1, 2]),
    "a number": (reshape, f64(3), {"shape": (1, 1)}, [[5]], 5),
    "a slice": (
        getitem,
        X,
        {"index": (slice(None), slice(1, None))},
        [[1, 2], [3, 4]],
        [[0, 1, 2], [0, 3, 4]],
    ),
    "a row": (getitem, X, {"index": 1}, [1, 2, 3], [[0, 0, 0], [1, 2, 3]]),
    "backwards": (getitem, X, {"index": (0, slice(None, None, -1))}, [1, 2, 3], [[3, 2, 1], [0, 0, 0]]),
    "an element": (getitem, X, {"index": (1, -1)}, 7, [[0, 0, 0], [0, 0, 7]]),
    "a new axis": (getitem, X, {"index": (..., None, 0)}, [[1], [2]], [[1, 0, 0], [2, 0, 0]]),
    "a mask": (getitem, X, {"index": (X > 3,)}, [1, 2], [[0, 0, 0], [0, 1, 2]]),
    "a row twice": (getitem, X, {"index": [1, 1]}, [[1, 2, 3], [4, 5, 6]], [[0, 0, 0], [5, 7, 9]]),
    "a row twice, by a tuple": (
        getitem,
        X,
        {"index": ((1, 1),)},
        [[1, 2, 3], [4, 5, 6]],
        [[0, 0, 0], [5, 7, 9]],
    ),
    "a row twice, by bytes": (
        getitem,
        X,
        {"index": np.array([1, 1], np.uint8)},
        [[1, 2, 3], [4, 5, 6]],
        [[0, 0, 0], [5, 7, 9]],
    ),
    "an element from either end": (getitem, X, {"index": (0, [-1, 2])}, [1, 10], [[0, 0, 11], [0, 0, 0]]),
    "an element three times": (
        getitem,
        X,
        {"index": (np.array([0, 0, 0]), [2, 2, 2])},
        [1, 10, 100],
        [[0, 0, 111], [0, 0, 0]],
    ),
    "a column twice": (
        getitem,
        X,
        {"index": (slice(None), [0, 0])},
        [[1, 2], [3, 4]],
        [[3, 0, 0], [7, 0, 0]],
    ),
    "a mask beside numbers that repeat": (
        getitem,
        X,
        {"index": (np.array([True, False]), [1, 1])},
        [1, 10],
        [[0, 11, 0], [0, 0, 0]],
    ),
    "no row": (getitem, X, {"index": []}, np.zeros((0, 3)), np.zeros((2, 3))),
}


@pytest.mark.parametrize(("op", "x", "params", "grad", "expected"), SHAPES.values(), ids=SHAPES)
def test_each_number_goes_back_to_its_place(op, x, params, grad, expected):
    expect(gradients(op, (x,), grad, **params), [f64(expected)])


def test_a_gradient_may_lie_otherwise_in_memory_than_what_was_viewed():
    _, back = view.vjp(X, shape=(3, 2))
    columns = np.asfortranarray(f64([[1, 2], [3, 4], [5, 6]]))
    expect(np.asarray(back(columns)), f64([[1, 2, 3], [4, 5, 6]]))


def test_how_a_gradient_lies_in_memory_makes_no_difference():
    two_dimensional = [(op, x, params) for op, x, params, grad, _ in SHAPES.values() if np.ndim(grad) == 2]
    for op, x, params in [*two_dimensional, (exp, X, {}), (amax, X, {"axis": (), "keepdims": True})]:
        out, back = op.vjp(x, **params)
        grad = np.arange(1.0, out.size + 1).reshape(out.shape)
        wide = np.zeros((2 * len(grad), *grad.shape[1:]))
        wide[::2] = grad
        for other in (np.asfortranarray(grad), wide[::2], grad[::-1].copy()[::-1]):
            expect((op.name, np.asarray(back(other))), (op.name, np.asarray(back(grad))))


@pytest.mark.parametrize("axes", [(1, 2, 0), (2, 0, 1), (-1, 0, 1), (0, -1, -2), (2, 1, 0)])
def test_a_permutation_is_taken_back(axes):
    x = np.arange(24.0).reshape(2, 3, 4)
    expect(gradients(permute, (x,), np.transpose(x, axes), axes=axes), [x])


def test_what_was_repeated_has_a_gradient_for_each_time():
    """`expand` is broadcasting, which the engine undoes: its rule may leave that, or do it."""
    (share,) = gradients(expand, (np.zeros((2, 1)),), [[1, 2, 3], [4, 5, 6]], shape=(2, 3))
    expect(share.sum(axis=1), f64([6, 15]))


def test_a_gradient_is_cut_where_the_pieces_met():
    shares = gradients(join, ([[1, 2]], np.zeros((0, 2)), [[3, 4], [5, 6]]), [[1, 2], [3, 4], [5, 6]], axis=0)
    expect(shares, [f64([[1, 2]]), np.zeros((0, 2)), f64([[3, 4], [5, 6]])])
    shares = gradients(join, ([[1], [2]], [[3, 4], [5, 6]]), [[1, 2, 3], [4, 5, 6]], axis=-1)
    expect(shares, [f64([[1], [4]]), f64([[2, 3], [5, 6]])])


# In every dtype, and of numbers too.


EVERYTHING = {
    "add": (add, 2, {}),
    "sub": (sub, 2, {}),
    "mul": (mul, 2, {}),
    "div": (div, 2, {}),
    "neg": (neg, 1, {}),
    "exp": (exp, 1, {}),
    "log": (log, 1, {}),
    "sqrt": (sqrt, 1, {}),
    "power": (power, 2, {}),
    "absolute": (absolute, 1, {}),
    "maximum": (maximum, 2, {}),
    "clip": (clip, 1, {"min": 0, "max": 1.5}),
    "total": (total, 1, {}),
    "mean": (mean, 1, {}),
    "var": (var, 1, {"correction": 0}),
    "amax": (amax, 1, {}),
    "amin": (amin, 1, {}),
    "contiguous": (contiguous, 1, {}),
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_float32_stays_float32_and_a_shape_its_shape(name):
    op, count, params = EVERYTHING[name]
    for shape in ((3,), (1,), ()):
        numbers = [np.linspace(k + 0.5, k + 2.5, 3)[: max(shape, default=1)] for k in range(count)]
        out, back = op.vjp(*(np.asarray(x, np.float32).reshape(shape) for x in numbers), **params)
        shares = back(np.ones_like(out))
        for share in shares if isinstance(shares, (tuple, list)) else [shares]:
            expect((np.shape(share), np.asarray(share).dtype), (shape, np.dtype(np.float32)))


def test_float32_stays_float32_in_products_choices_and_places():
    x = np.float32([[1, 2], [3, 4]])
    cases = [(op, (a,), params) for op, a, params, _, _ in SHAPES.values()]
    cases += [
        (matmul, (x, x), {}),
        (matmul, (x[0], x), {}),
        (where, (x > 2, x, x), {}),
        (join, (x, x), {"axis": 0}),
    ]
    for op, inputs, params in cases:
        out, back = op.vjp(*(a.astype(np.float32) if a.dtype.kind == "f" else a for a in inputs), **params)
        shares = back(np.ones_like(out))
        for share in shares if isinstance(shares, (tuple, list)) else [shares]:
            assert share is None or share.dtype == np.float32, op.name


def test_no_rule_changes_what_it_is_given():
    for op, count, params in EVERYTHING.values():
        inputs = [f64([1, 2, 3]) + k for k in range(count)]
        out, back = op.vjp(*inputs, **params)
        grad = np.asarray(np.ones_like(out))
        for array in (*inputs, grad):
            array.flags.writeable = False
        back(grad)
