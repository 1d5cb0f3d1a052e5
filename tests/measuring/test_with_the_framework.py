"""The meters on the real thing: the Op and Tensor of the reference."""

import numpy as np
import pytest

from dojo.compose import load_file
from dojo.curriculum import REFERENCE
from dojo.measuring import GradientError, WorkMeter, check_formula, check_gradient


@pytest.fixture(scope="module")
def tensor():
    return load_file(REFERENCE / "tensor.py")


@pytest.fixture
def softmax(tensor):
    @tensor.op
    def softmax(x, *, axis=-1):
        weights = np.exp(x - x.max(axis=axis, keepdims=True))
        return weights / weights.sum(axis=axis, keepdims=True)

    return softmax


def test_an_op_of_the_framework_is_checked(softmax, rng):
    @softmax.gradient
    def softmax_back(grad, out, axis):
        return out * (grad - (grad * out).sum(axis=axis, keepdims=True))

    check_gradient(softmax, rng.normal(size=(3, 4)), axis=0)


def test_a_wrong_rule_of_the_framework_is_caught(softmax, rng):
    @softmax.gradient
    def softmax_back(grad, out):
        return out * grad

    with pytest.raises(GradientError, match=r"softmax\(axis=0\): gradient for `x`, worst at"):
        check_gradient(softmax, rng.normal(size=(3, 4)), axis=0)


def test_dropout_keeps_its_mask_through_the_check(tensor, rng):
    @tensor.op(saves=["mask"])
    def dropout(x, *, rate, rng):
        mask = (rng.random(x.shape) >= rate) / (1 - rate)
        return x * mask, mask

    @dropout.gradient
    def dropout_back(grad, mask):
        return grad * mask

    check_gradient(dropout, rng.normal(size=(6, 5)), rate=0.3, rng=np.random.default_rng(1))


def test_an_op_that_gives_a_scalar_is_checked(tensor, rng):
    tensor.total.gradient(lambda grad, a: np.broadcast_to(grad, a.shape))
    try:
        check_gradient(tensor.total, rng.normal(size=(3, 4)))
        check_formula(tensor.total, np.sum, rng.normal(size=(3, 4)).astype(np.float32))
    finally:
        tensor.total.pull = None


def test_work_is_counted_through_tensors(tensor, rng):
    a, b = rng.normal(size=(8, 16)), rng.normal(size=(16, 4))
    with WorkMeter() as work:
        product = tensor.Tensor(work.track(a)) @ tensor.Tensor(work.track(b))
    assert work.saw(product)
    assert work.flops == 2 * 8 * 16 * 4
    assert work.calls == 1
    np.testing.assert_allclose(product.data, a @ b)
