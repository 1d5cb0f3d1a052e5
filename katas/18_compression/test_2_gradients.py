"""Level 2: the rules of the two operations: one against differences, one against a straight line."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect
from dojo.measuring import check_gradient
from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.compression import distillation_loss, fake_quantize
from tinytorch.tensor import Tensor

steady = settings(deadline=None, derandomize=True, max_examples=25)
SEEDS = st.integers(0, 2**32 - 1)


def one(gradients):
    """The gradient of the first input: a rule may return it alone, or in a tuple with others."""
    return gradients[0] if isinstance(gradients, (tuple, list)) else gradients


def drawn(seed, n, classes):
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(2, n, classes))
    return student, teacher, rng.integers(0, classes, n)


# 18.14 distillation_loss_back


@steady
@given(
    SEEDS,
    st.integers(1, 4),
    st.integers(1, 5),
    st.sampled_from([0.5, 1.0, 4.0]),
    st.sampled_from([0.0, 0.3, 1.0]),
)
def test_the_gradient_of_a_loss_is_its_slope(seed, n, classes, temperature, alpha):
    student, teacher, labels = drawn(seed, n, classes)
    rule = Student(teacher, labels, temperature, alpha)
    check_gradient(rule.loss, student)


class Student:
    """distillation_loss as a function of the student's logits alone."""

    def __init__(self, teacher, labels, temperature, alpha):
        self.rest = (teacher, labels), {"temperature": temperature, "alpha": alpha}

    def loss(self, student):
        arrays, options = self.rest
        return distillation_loss(student, *arrays, **options)


def test_a_gradient_by_hand():
    """alpha T (q - p) + (1 - alpha) (softmax - one-hot), over 1 row: 0.8808 - 0.5, and 0.8808 - 1."""
    s, t = np.array([[2.0, 0.0]]), np.zeros((1, 2))
    for alpha, expected in ((1.0, 0.380797), (0.0, -0.119203), (0.5, 0.130797)):
        _, back = distillation_loss.vjp(s, t, [0], temperature=1.0, alpha=alpha)
        expect(one(back(np.array(1.0))), np.array([[expected, -expected]]), rtol=1e-5)
    _, back = distillation_loss.vjp(s, t, [0], temperature=2.0, alpha=1.0)
    expect(one(back(np.array(3.0))), np.array([[1.0, -1.0]]) * 3 * 2 * 0.231059, rtol=1e-5)


@pytest.mark.parametrize("temperature", [10.0, 100.0, 1000.0])
def test_a_gradient_does_not_fade_with_the_temperature(temperature):
    """The softer, the nearer to (student - teacher) / classes, for logits of mean 0: hence T squared."""
    student, teacher, labels = drawn(3, 2, 5)
    student -= student.mean(axis=1, keepdims=True)
    teacher -= teacher.mean(axis=1, keepdims=True)
    _, back = distillation_loss.vjp(student, teacher, labels, temperature=temperature, alpha=1.0)
    found = one(back(np.array(1.0)))
    expect(found, (student - teacher) / 5 / 2, rtol=0, atol=2 / temperature)


def test_a_teacher_learns_nothing_and_labels_neither():
    student, teacher, labels = drawn(1, 3, 4)
    s, t = Tensor(student, requires_grad=True), Tensor(teacher, requires_grad=True)
    distillation_loss(s, t, labels).backward()
    assert s.grad is not None
    assert t.grad is None


def test_going_back_twice_gives_the_same_twice():
    student, teacher, labels = drawn(2, 3, 4)
    _, back = distillation_loss.vjp(student, teacher, labels)
    first = one(back(np.array(2.0))).copy()
    expect(one(back(np.array(2.0))), first)
    expect(one(back(np.array(-4.0))), -2 * first)


# 18.13 fake_quantize_back


@steady
@given(SEEDS, st.integers(2, 10), st.sampled_from([None, 0, 1]), st.booleans(), st.booleans())
def test_a_staircase_goes_back_as_a_line_between_its_ends(seed, bits, axis, symmetric, bounded):
    rng = np.random.default_rng(seed)
    x, grad = rng.normal(size=(2, 4, 5))
    low, high = sorted(rng.normal(size=2))
    leaf = Tensor(x.copy(), requires_grad=True)
    options = {"within": (low, high)} if bounded else {}
    out = fake_quantize(leaf, bits=bits, axis=axis, symmetric=symmetric, **options)
    out.backward(grad)
    low, high = min(low, 0), max(high, 0)
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    inside = (x >= low) & (x <= high) if bounded else np.ones_like(x, bool)
    expect(leaf.grad, np.where(inside, grad, 0))
    expect(leaf.data, x)
