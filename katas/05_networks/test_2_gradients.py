"""Level 2: gradients that came down the tape are right, or there are none.

In float64, against central differences for whole networks, and against the chain rule, by hand and forwards,
for lines and for what is none.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect
from tinytorch.activations import GELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from tinytorch.layers import Linear, Parameter
from tinytorch.networks import MLP, Sequential, Tape, loss_and_gradient, train_step
from tinytorch.tensor import Tensor, op

steady = settings(deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**16)


class OnTape:
    """A network as something with a vjp: its inputs are x and then all of its parameters."""

    def __init__(self, net, name):
        self.net, self.name = net, name
        self.inputs = ("x", *(name for name, _ in net.named_parameters()))

    def vjp(self, x, *arrays):
        x = Tensor(x, requires_grad=True)
        parameters = list(self.net.parameters())
        for parameter, array in zip(parameters, arrays, strict=True):
            parameter.data, parameter.grad = array, None
        with Tape() as tape:
            out = self.net(x)

        def back(grad):
            first = tape.walk_back(grad)
            return (first, *(parameter.grad for parameter in parameters))

        return out.data, back


def check_network(check_gradient, net, x):
    check_gradient(OnTape(net, "network"), x, *(p.data for p in net.parameters()))


def draw(shape, rng):
    """Away from 0, where relu has its kink: 0.1 to 1, of either sign."""
    return rng.uniform(0.1, 1, shape) * rng.choice([-1, 1], shape)


SMOOTH = [Tanh, Sigmoid, GELU, Softmax, LogSoftmax]


@settings(steady, max_examples=10)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.sampled_from(SMOOTH), st.integers(1, 3), SEEDS)
def test_an_mlp_has_the_gradients_of_central_differences(sizes, activation, rows, seed):
    from dojo.measuring import check_gradient

    rng = np.random.default_rng(seed)
    check_network(check_gradient, MLP(sizes, activation, rng=rng), draw((rows, sizes[0]), rng))


KINKED = [ReLU, LeakyReLU, lambda: ReLU(inplace=True), lambda: Tanh()]


@pytest.mark.parametrize("activation", KINKED, ids=["ReLU", "LeakyReLU", "ReLU in place", "Tanh"])
def test_deeper_networks_have_them_too(check_gradient, activation, rng):
    net = MLP([3, 5, 4, 3, 2], activation, rng=rng)
    check_network(check_gradient, net, draw((4, 3), rng))


def test_a_layer_that_is_used_three_times_has_one_gradient(check_gradient, rng):
    layer = Linear(3, 3, rng=rng)
    check_network(check_gradient, Sequential(layer, Tanh(), layer, Sigmoid(), layer), draw((2, 3), rng))


def test_layers_without_bias_and_inputs_with_more_axes(check_gradient, rng):
    net = Sequential(Linear(3, 4, bias=False, rng=rng), Tanh(), Sequential(Linear(4, 2, bias=False, rng=rng)))
    check_network(check_gradient, net, draw((2, 2, 3), rng))


class Loss:
    """`loss_and_gradient` as something with a vjp."""

    name = "loss_and_gradient"
    inputs = ("logits", "labels")

    def vjp(self, logits, labels):
        loss, gradient = loss_and_gradient(logits, labels)
        return np.array(loss), lambda grad: (gradient * grad, None)


@settings(steady, max_examples=15)
@given(st.integers(1, 4), st.integers(1, 4), SEEDS)
def test_the_loss_has_the_gradient_of_central_differences(rows, classes, seed):
    from dojo.measuring import check_gradient

    rng = np.random.default_rng(seed)
    check_gradient(Loss(), rng.normal(size=(rows, classes)), rng.integers(0, classes, rows))


@settings(steady, max_examples=25)
@given(st.integers(1, 5), st.integers(1, 5), SEEDS)
def test_the_loss_is_what_its_definition_says(rows, classes, seed):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(scale=3, size=(rows, classes)), rng.integers(0, classes, rows)
    loss, gradient = loss_and_gradient(logits, labels)
    total, slopes = 0.0, np.zeros((rows, classes))
    for i in range(rows):
        odds = [math.exp(z) for z in logits[i]]
        total -= math.log(odds[labels[i]] / sum(odds))
        for k in range(classes):
            slopes[i, k] = (odds[k] / sum(odds) - (k == labels[i])) / rows
    expect((loss, gradient), (total / rows, slopes))


def test_a_small_step_lowers_the_loss_by_the_squared_length_of_the_gradient(rng):
    """To first order, loss(w - lr * g) is loss(w) - lr * g @ g. The second order is 1e-6 of that."""
    net = MLP([3, 6, 4], Tanh, rng=rng)
    for parameter in net.parameters():
        parameter.data = parameter.data.astype(np.float64)
    x, labels, lr = Tensor(rng.normal(size=(8, 3))), rng.integers(0, 4, 8), 1e-6
    before = train_step(net, x, labels, lr)
    squared = sum(float((p.grad**2).sum()) for p in net.parameters())
    after, _ = loss_and_gradient(net(x).data, labels)
    expect((before - after) / (lr * squared), 1.0, atol=1e-4)


# Programs of a few operations, drawn at random: straight lines, and anything else. Beside each value goes its
# slope with respect to x and to w, forwards: an independent way to the same derivatives.


@op
def sine(a):
    return np.sin(a)


@sine.gradient
def sine_back(grad, a):
    return grad * np.cos(a)


@op
def plus(a, b):
    return a + b


@plus.gradient
def plus_back(grad):
    return grad, grad


@op
def times(a, b):
    return a * b


@times.gradient
def times_back(grad, a, b):
    return grad * b, grad * a


UNARY = {"sine": (sine, lambda a: (math.sin(a[0]), math.cos(a[0]) * a[1:]))}
BINARY = {
    "plus": (plus, lambda a, b: (a[0] + b[0], a[1:] + b[1:])),
    "times": (times, lambda a, b: (a[0] * b[0], a[1:] * b[0] + b[1:] * a[0])),
}
STEPS = st.tuples(st.sampled_from(["sine", "plus", "times"]), st.integers(0, 99), st.integers(0, 99))
X, W, C = 0.75, 1.25, 0.5


def run(steps, pick):
    """Each step on operands that `pick` chooses among x, w, a constant and all results so far."""
    x, w, c = Tensor(np.array([X]), requires_grad=True), Parameter(np.array([W])), Tensor(np.array([C]))
    values = [(x, np.array([X, 1, 0])), (w, np.array([W, 0, 1])), (c, np.array([C, 0, 0]))]
    with Tape() as tape:
        for name, *numbers in steps:
            function, slopes = UNARY.get(name) or BINARY[name]
            operands = [values[i] for i in pick(len(values), numbers[: 1 if name in UNARY else 2])]
            out = function(*(tensor for tensor, _ in operands))
            value, slope = slopes(*(forward for _, forward in operands))
            values.append((out, np.array([value, *slope])))
    out, forward = values[-1]
    back = tape.walk_back(np.ones(1)) if out.requires_grad else None
    return x, w, back, forward


def expect_slopes(x, w, back, forward):
    _, along_x, along_w = forward
    expect(0.0 if x.grad is None else x.grad[0], along_x, atol=1e-12)
    expect(0.0 if w.grad is None else w.grad[0], along_w, atol=1e-12)


@settings(steady, max_examples=50)
@given(st.lists(STEPS, min_size=1, max_size=8))
def test_a_straight_line_is_always_walked(steps):
    """Each step takes the last result, at either place, and beside it w or a constant."""

    def on_the_line(count, numbers):
        last = 0 if count == 3 else count - 1
        others = [1 + i % 2 for i in numbers[1:]]
        # At the beginning, the line's input comes first.
        return [last, *others] if numbers[0] % 2 or count == 3 else [*others, last]

    x, w, back, forward = run(steps, on_the_line)
    expect_slopes(x, w, back, forward)
    expect(back, [forward[1]], atol=1e-12)


@settings(steady, max_examples=120)
@given(st.lists(STEPS, min_size=1, max_size=5))
def test_no_program_at_all_gets_a_wrong_gradient(steps):
    """Where it is no straight line that the last result came by, a ValueError says so."""
    try:
        x, w, back, forward = run(steps, lambda count, numbers: [i % count for i in numbers])
    except ValueError:
        return
    expect_slopes(x, w, back, forward)
    if back is not None and x.grad is not None and w.grad is None:
        expect(back, [forward[1]], atol=1e-12)
