import re
import sys
from types import ModuleType

import numpy as np
import pytest

from dojo.measuring import GradientError, check_gradient
from dojo.measuring.gradients import GradientCheck
from tests.measuring.seeded import BUGS, OPS, Op, largest, matmul, mul, softmax, spoiled, square, tanh


@pytest.mark.parametrize("name", OPS)
def test_a_right_gradient_passes(name):
    forward, draw, params = OPS[name]
    for seed in range(4 if name == "conv" else 10):
        GradientCheck(Op(forward), draw(np.random.default_rng(seed)), params, seed=seed + 1).run()


@pytest.mark.parametrize("bug", BUGS)
def test_a_wrong_gradient_is_caught_every_time(bug):
    name, forward = BUGS[bug]
    _, draw, params = OPS[name]
    for seed in range(5):
        with pytest.raises(GradientError):
            GradientCheck(Op(forward), draw(np.random.default_rng(seed + 100)), params, seed=seed).run()


def message(op, *arrays, **params):
    with pytest.raises(GradientError) as caught:
        check_gradient(op, *arrays, **params)
    return str(caught.value)


def test_the_message_names_op_argument_index_and_both_values(rng):
    def one_wrong(back, g, out, inputs):
        first, second = back(g)
        second = second.copy()
        second[1, 2] += 0.5
        return first, second

    text = message(Op(spoiled(matmul, one_wrong)), rng.normal(size=(4, 3)), rng.normal(size=(3, 5)))
    head, *rest = text.splitlines()
    assert head == "matmul: gradient for `b`, worst at (1, 2), against central differences:"
    got, wanted = map(float, re.search(r"\[1, 2\] (\S+) instead of (\S+),", "\n".join(rest)).groups())
    assert got - wanted == pytest.approx(0.5, abs=1e-6)


def test_the_message_says_what_the_mistake_looks_like(rng):
    text = message(Op(spoiled(square, lambda back, g, out, inputs: -back(g))), rng.normal(size=(2, 3)))
    assert "negated" in text


def test_the_message_shows_the_parameters(rng):
    wrong = Op(spoiled(softmax, lambda back, g, out, inputs: g * out))
    assert message(wrong, rng.normal(size=(2, 3)), axis=0).startswith("softmax(axis=0): gradient for `x`")


def test_in_a_large_array_the_worst_element_is_named(rng):
    def one_wrong(back, g, out, inputs):
        share = back(g)
        share[7, 11] += 1
        return share

    text = message(Op(spoiled(square, one_wrong)), rng.normal(size=(60, 50)))
    assert text.startswith("square: gradient for `x`, worst at (7, 11): ")


def test_ties_that_each_take_everything_are_explained():
    wrong = Op(spoiled(largest, lambda back, g, out, inputs: g[:, None] * (inputs[0] == out[:, None])))
    assert "tied elements share" in message(wrong, np.array([[3.0, 3.0, 1.0], [2.0, 0.0, 5.0]]), axis=1)


@pytest.mark.parametrize("rule", ["first", "shared"])
def test_any_fair_share_among_ties_is_right(rule):
    def first(back, g, out, inputs):
        share = np.zeros(inputs[0].shape)
        share[np.arange(len(share)), inputs[0].argmax(axis=1)] = g
        return share

    op = Op(spoiled(largest, first)) if rule == "first" else Op(largest)
    check_gradient(op, np.array([[3.0, 3.0, 1.0], [2.0, 0.0, 5.0]]), axis=1)


def test_inputs_that_are_all_kinks_are_refused():
    with pytest.raises(GradientError, match="lie on a kink"):
        check_gradient(OPS_RELU, np.zeros((3, 3)))


OPS_RELU = Op(OPS["relu"][0])


def test_an_op_that_loses_float64_is_told_so(rng):
    def single(x):
        return np.tanh(x).astype(np.float32), lambda g: g

    assert "float64 went in and float32 came out" in message(Op(single), rng.normal(size=3))


def test_an_output_that_is_not_finite_is_told_so():
    def reciprocal(x):
        with np.errstate(divide="ignore"):
            return 1 / x, lambda g: g

    assert "1 of 2 outputs are not finite" in message(Op(reciprocal), np.array([1.0, 0.0]))


def test_float32_inputs_are_checked_in_float64(rng):
    check_gradient(Op(tanh), rng.normal(size=(3, 4)).astype(np.float32))


def test_an_input_that_was_not_given_needs_no_gradient(rng):
    def scale(x, by=None):
        return 2 * x, lambda g: (2 * g, None)

    check_gradient(Op(scale), rng.normal(size=(3, 4)))


def test_a_stub_passes_through(rng):
    def unwritten(x):
        raise NotImplementedError("kata 04.1: relu")

    with pytest.raises(NotImplementedError, match=r"kata 04\.1: relu"):
        check_gradient(Op(unwritten), rng.normal(size=3))


def test_a_rule_that_only_fails_on_a_layout_says_which(rng):
    def back(right, g, out, inputs):
        if not inputs[0].flags.c_contiguous:
            raise ValueError("cannot flatten this without a copy")
        return right(g)

    assert "with Fortran-ordered inputs" in message(Op(spoiled(tanh, back)), rng.normal(size=(3, 4)))


def test_a_gradient_of_0_may_be_rounded_otherwise_in_another_layout(rng):
    """As that of the only key's weight, which is 1 whatever the query: rounding leaves 1e-17, or -1e-17."""

    def weigh(q, v):
        noise = 1e-17 if q.flags.c_contiguous else -1e-17
        return v.copy(), lambda g: (np.full(q.shape, noise * np.abs(g).max()), g)

    check_gradient(Op(weigh), rng.normal(size=(3, 4)), rng.normal(size=(3, 4)))


def test_a_rule_that_writes_into_a_view_says_so(rng):
    def back(right, g, out, inputs):
        g += 0  # changes nothing, but cannot be done to what sum() sends down
        return right(g)

    assert "writes into an array that is not its own" in message(Op(spoiled(tanh, back)), rng.normal(size=4))


# Functions of Tensors, through backward() and .grad.


class Tensor:
    """Just enough of a Tensor: mul and add, with a graph."""

    def __init__(self, data, requires_grad=False, parents=()):
        self.data, self.requires_grad, self.parents, self.grad = data, requires_grad, parents, None

    def __mul__(self, other):
        out, back = mul(self.data, other.data)
        return Tensor(out, True, (self, other, back))

    def backward(self, grad):
        self.grad = grad if self.grad is None else self.grad + grad
        if self.parents:
            *sources, back = self.parents
            for source, share in zip(sources, back(grad), strict=True):
                source.backward(share)


class Overwriting(Tensor):
    def __mul__(self, other):
        out, back = mul(self.data, other.data)
        return Overwriting(out, True, (self, other, back))

    def backward(self, grad):
        self.grad = None
        super().backward(grad)


@pytest.fixture
def tensors(monkeypatch):
    module = ModuleType("tinytorch.tensor")
    module.Tensor = Tensor
    monkeypatch.setitem(sys.modules, "tinytorch", ModuleType("tinytorch"))
    monkeypatch.setitem(sys.modules, "tinytorch.tensor", module)
    return module


@pytest.mark.usefixtures("tensors")
def test_a_function_of_tensors_is_checked_through_backward(rng):
    check_gradient(lambda a, b: a * b * a, rng.normal(size=(2, 3)), rng.normal(size=3))


def test_an_engine_that_overwrites_is_caught(tensors, rng):
    tensors.Tensor = Overwriting
    text = message(lambda a, b: a * b * a, rng.normal(size=(2, 3)), rng.normal(size=3))
    assert text.startswith("this function: gradient for `a`, worst at")


def test_an_op_is_given_arrays_also_of_no_axis():
    """Of an array without axes and a number numpy makes a number, which has not all that an array has."""
    kinds = set()

    def noting(x):
        kinds.add(type(x))
        return square(x)

    check_gradient(Op(noting), np.array(1.5))
    assert kinds == {np.ndarray}
