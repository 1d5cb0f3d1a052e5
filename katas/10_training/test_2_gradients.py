"""Level 2: the rules of both losses, against differences of the losses themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect
from dojo.measuring import check_gradient
from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.tensor import Tensor
from tinytorch.training import cross_entropy, mse_loss

steady = settings(deadline=None, derandomize=True, max_examples=20)
SEEDS = st.integers(0, 2**32 - 1)
REDUCTIONS = ("mean", "sum", "none")
HOW = st.sampled_from(REDUCTIONS)


# 10.2 the rule of mse_loss


@steady
@given(SEEDS, st.lists(st.integers(1, 4), max_size=3), HOW)
def test_mse_loss_moves_with_predictions_and_targets(seed, shape, reduction):
    rng = np.random.default_rng(seed)
    check_gradient(mse_loss, rng.normal(size=shape), rng.normal(size=shape), reduction=reduction)


def test_the_gradient_of_a_mean_is_twice_the_difference_over_the_number_of_elements():
    x = Tensor(np.array([[1.0, 5.0], [0.0, 0.0]]), requires_grad=True)
    mse_loss(x, np.array([[2.0, 2.0], [1.0, 3.0]])).backward()
    expect(x.grad, np.array([[-0.5, 1.5], [-0.5, -1.5]]))


def test_only_who_wants_a_gradient_gets_one(rng):
    x, y = Tensor(rng.normal(size=3)), Tensor(rng.normal(size=3), requires_grad=True)
    mse_loss(x, y).backward()
    assert x.grad is None
    expect(y.grad, 2 / 3 * (y.data - x.data))


# 10.4 the rule of cross_entropy


@steady
@given(SEEDS, st.integers(1, 5), st.integers(1, 5), st.sampled_from([0.0, 0.1, 0.7, 1.0]), HOW)
def test_cross_entropy_moves_with_its_logits(seed, rows, classes, smoothing, reduction):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(rows, classes)) * 2, rng.integers(0, classes, rows)
    check_gradient(lambda x: cross_entropy(x, labels, label_smoothing=smoothing, reduction=reduction), logits)


def test_the_gradient_is_softmax_less_target():
    """Odds of 1 : 2 : 5, label 0; with a smoothing of 0.3 the target is 0.8, 0.1, 0.1."""
    for smoothing, target in ((0.0, [1.0, 0.0, 0.0]), (0.3, [0.8, 0.1, 0.1])):
        x = Tensor(np.log([[1.0, 2.0, 5.0]]), requires_grad=True)
        cross_entropy(x, np.array([0]), label_smoothing=smoothing).backward()
        expect(x.grad, np.array([[1, 2, 5]]) / 8 - np.array([target]))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients_have_the_dtype_of_the_logits(reduction, rng):
    for dtype in (np.float32, np.float64):
        logits = rng.normal(size=(4, 3)).astype(dtype)
        out, back = cross_entropy.vjp(logits, np.array([0, 2, 1, 1], np.uint8), reduction=reduction)
        share = back(np.ones_like(out))
        expect((share[0] if isinstance(share, tuple) else share).dtype, np.dtype(dtype))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_graph_can_be_walked_twice(reduction, rng):
    """A rule that works in what was kept would give another answer the second time."""
    for loss, other in ((cross_entropy, np.array([0, 2, 1])), (mse_loss, rng.normal(size=(3, 4)))):
        x = Tensor(rng.normal(size=(3, 4)), requires_grad=True)
        out = loss(x, other, reduction=reduction)
        grad = rng.normal(size=out.shape)
        out.backward(grad, retain_graph=True)
        first, x.grad = x.grad, None
        out.backward(grad)
        expect(x.grad, first)


def test_no_rows_have_a_gradient_of_no_rows():
    x = Tensor(np.zeros((0, 3)), requires_grad=True)
    cross_entropy(x, np.zeros(0, int), reduction="sum").backward()
    expect(x.grad, np.zeros((0, 3)))


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_gradients_of_extreme_logits_are_finite(scale, rng):
    x = Tensor(rng.normal(size=(8, 5)) * scale, requires_grad=True)
    cross_entropy(x, np.arange(8) % 5, label_smoothing=0.1).backward()
    assert np.isfinite(x.grad).all()
    expect(x.grad.sum(axis=1), np.zeros(8), atol=1e-12)
