"""Level 1: the tape walks a straight line back, says where there is none, and networks learn by it."""

import math
from contextlib import contextmanager

import numpy as np
import pytest

from dojo.datasets import spirals, xor
from dojo.expect import expect, expect_error
from tinytorch.activations import ReLU, Tanh
from tinytorch.layers import Linear, Module, Parameter
from tinytorch.networks import (
    MLP,
    Sequential,
    Tape,
    gradient_norms,
    initialise,
    kaiming_normal_,
    loss_and_gradient,
    train_classifier,
    train_step,
)
from tinytorch.tensor import Tensor, increment_version, op, set_recorder, version

# Operations of the tests' own, with rules that are easy to follow.


@op
def double(x):
    return x * 2


@double.gradient
def double_back(grad):
    return grad * 2


@op
def square(x):
    return x * x


@square.gradient
def square_back(grad, x):
    return grad * 2 * x


@op
def root(x):
    return np.sqrt(x)


@root.gradient
def root_back(grad, out):
    return grad / (2 * out)


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


@op(in_place=True)
def halve_(x):
    x *= 0.5
    return x


@halve_.gradient
def halve_back(grad):
    return grad * 0.5


@op(saves=["before"], in_place=True)
def times_(a, b):
    before = a.copy()
    a *= b
    return a, before


@times_.gradient
def times_in_place_back(grad, b, before, needs_input_grad):
    return grad * b if needs_input_grad[0] else None, grad * before


@op
def listed(a, b):
    return a + 2 * b


@listed.gradient
def listed_back(grad):
    return [grad, 2 * grad]


@op
def ruleless(x):
    return x + 1


@op
def broken(x, w):
    return x * w


@op
def watched(x, w):
    return x * w


def leaf(*values, dtype=np.float64):
    return Tensor(np.array(values, dtype), requires_grad=True)


def constant(*values):
    return Tensor(np.array(values))


def walk(program, *inputs, grad=1.0):
    """Record `program(*inputs)`, walk it back, and return what the walk gives."""
    with Tape() as tape:
        out = program(*inputs)
    return tape.walk_back(np.full(out.shape, grad))


def small_net():
    """Worked out by hand in the README, in float64."""
    net = MLP([2, 2, 1], rng=np.random.default_rng(0))
    for parameter, values in zip(
        net.parameters(), ([[1.0, -1.0], [2.0, 0.0]], [0.0, 1.0], [[3.0, -1.0]], [0.5]), strict=True
    ):
        parameter.data = np.array(values)
    return net


# 05.11 Tape.__enter__, Tape.__exit__


@contextmanager
def listener():
    """A recorder that was there before the tape, and the operations that it heard of."""
    heard = []
    before = set_recorder(lambda op, inputs, arrays, params, out: heard.append(op.name))
    try:
        yield heard
    finally:
        set_recorder(before)


def test_a_tape_listens_inside_of_its_block_and_then_whoever_did_before():
    with listener() as heard:
        with Tape() as tape:
            double(leaf(1.0))
        square(leaf(1.0))
    expect((isinstance(tape, Tape), heard), (True, ["square"]))


def test_an_exception_ends_the_block_and_goes_on():
    def fails():
        with Tape():
            double(leaf(1.0))
            raise KeyError("mine")

    with listener() as heard:
        with pytest.raises(KeyError, match="mine"):
            fails()
        square(leaf(1.0))
    expect(heard, ["square"])


def test_a_tape_inside_of_a_tape_has_a_line_of_its_own():
    x, y = leaf(3.0), leaf(5.0)
    with Tape() as outer:
        h = double(x)
        with Tape() as inner:
            square(y)
        square(h)
    expect(inner.walk_back(np.ones(1)), [10.0])
    expect(outer.walk_back(np.ones(1)), [24.0])  # (2x)**2 is 4 * x**2


# 05.12 Tape.note: what is a straight line


def test_a_result_knows_the_step_that_made_it():
    x = leaf(1.0)
    with Tape():
        h = double(x)
        out = square(h)
    expect(
        (x.node is None, h.node is None, out.node is None, h.node is out.node), (True, False, False, False)
    )


def another_result():
    with Tape():
        return double(leaf(1.0))


OFF_THE_LINE = {
    "a residual connection": (lambda x: plus(square(h := double(x)), h), "plus"),
    "a residual connection the other way round": (lambda x: plus(h := double(x), square(h)), "plus"),
    "a residual connection around everything": (lambda x: plus(double(x), x), "plus"),
    "a result times itself": (lambda x: times(h := double(x), h), "times"),
    "an input times itself": (lambda x: times(x, x), "times"),
    "two operations on one input": (lambda x: (double(x), square(x))[1], "square"),
    "two operations on one result": (lambda x: (square(h := double(x)), root(h))[1], "root"),
    "two lines": (lambda x: (double(x), square(leaf(2.0)))[1], "square"),
    "a line that goes on with a constant": (
        lambda x: (double(x), times(constant(2.0), leaf(2.0)))[1],
        "times",
    ),
    "two results that meet": (lambda x: plus(double(x), square(leaf(2.0))), "square"),
    "a result of elsewhere": (lambda x: plus(double(x), another_result()), "plus"),
    "a result of elsewhere at once": (lambda x: plus(x, another_result()), "plus"),
    "a result as a weight": (lambda x: times(constant(1.0), another_result()), "times"),
    "an operation without a rule": (lambda x: ruleless(double(x)), "ruleless"),
}


@pytest.mark.parametrize("name", OFF_THE_LINE)
def test_what_is_no_straight_line_is_refused_and_not_guessed(name):
    program, culprit = OFF_THE_LINE[name]
    with expect_error(ValueError, culprit, "kata 06"):
        walk(program, leaf(3.0))


def test_a_residual_network_is_refused(rng):
    class Residual(Module):
        def __init__(self):
            self.inside = Linear(2, 2, rng=rng)

        def forward(self, x):
            return plus(self.inside(x), x)

    net = Sequential(Linear(2, 2, rng=rng), Residual())
    with expect_error(ValueError, "plus", "kata 06"):
        walk(net, Tensor(np.ones((1, 2), np.float32)))


W = leaf(5.0)
ON_THE_LINE = {
    # program, and its slope at 3
    "no more than one step": (lambda x: double(x), 2.0),
    "three steps": (lambda x: root(square(double(x))), 2.0),
    "a constant from the side": (lambda x: times(double(x), constant(7.0)), 14.0),
    "a constant in front": (lambda x: times(constant(7.0), double(x)), 14.0),
    "an array from the side": (lambda x: times(double(x), np.array([7.0])), 14.0),
    "a number from the side": (lambda x: times(double(x), 7.0), 14.0),
    "the same constant twice": (lambda x: times(times(x, c := constant(7.0)), c), 49.0),
    "a result that was detached": (lambda x: times(h := double(x), h.detach()), 12.0),
    "a leaf from the side": (lambda x: times(double(x), W), 10.0),
    "a leaf in front": (lambda x: times(W, double(x)), 10.0),
    "a leaf from the side, twice": (lambda x: plus(times(double(x), W), W), 10.0),
    "an operation in place": (lambda x: halve_(double(x)), 1.0),
    "steps after one in place": (lambda x: square(halve_(double(x))), 6.0),
    "a constant that is written over": (lambda x: times_(constant(7.0), double(x)), 14.0),
    "a comparison on the way": (lambda x: ((h := double(x)) < 1, square(h))[1], 24.0),
}


@pytest.mark.parametrize("name", ON_THE_LINE)
def test_what_is_a_straight_line_is_walked(name):
    program, slope = ON_THE_LINE[name]
    x = leaf(3.0)
    expect(walk(program, x, grad=10.0), [10 * slope])
    expect(x.grad, np.array([10 * slope]))


def test_a_line_may_begin_where_another_ended():
    """Two tapes, one after the other: the second gives the first what to walk back with."""
    x = leaf(3.0)
    with Tape() as first:
        h = double(x)
    with Tape() as second:
        square(h)
    grad = second.walk_back(np.ones(1))
    expect((grad, h.grad, x.grad), ([12.0], None, None))
    expect(first.walk_back(grad), [24.0])


def test_a_constant_that_is_written_over_is_a_constant_still():
    """When the tape hears of the operation, its Tensor already requires a gradient: it is the result."""
    x, one, other = leaf(3.0), constant(7.0), constant(7.0)
    expect(walk(lambda x: double(times_(one, x)), x), None)  # the line's first input is the constant
    expect((x.grad, one.grad), (np.array([14.0]), None))
    expect(walk(lambda x: times_(other, double(x)), x), [14.0])
    expect((x.grad, other.grad), (np.array([28.0]), None))


# 05.13 Tape.walk_back


def test_a_small_network_is_walked_as_by_hand():
    # Inside are [-1, 3], so relu lets the second through. With a gradient of 2 at the end:
    net, x = small_net(), Tensor(np.array([[1.0, 2.0]]), requires_grad=True)
    with Tape() as tape:
        out = net(x)
    expect(out, [[-2.5]])
    expect(tape.walk_back(np.array([[2.0]])), np.array([[-4.0, 0.0]]))  # [0, -2] @ w1
    expect(net[2].weight.grad, np.array([[0.0, 6.0]]))  # 2 * [0, 3]
    expect(net[2].bias.grad, np.array([2.0]))
    expect(net[0].weight.grad, np.array([[0.0, 0.0], [-2.0, -4.0]]))  # [0, -2] times [1, 2]
    expect(net[0].bias.grad, np.array([0.0, -2.0]))  # 2 * [3, -1], where relu let through


def test_an_input_that_wants_no_gradient_gets_none():
    net, x = small_net(), Tensor(np.array([[1.0, 2.0]]))
    expect((walk(net, x), x.grad), (None, None))
    expect(net[0].bias.grad, np.array([0.0, -1.0]))


def test_gradients_add_up_over_walks():
    net = small_net()
    for _ in range(3):
        walk(net, Tensor(np.array([[1.0, 2.0]])))
    expect(net[2].weight.grad, np.array([[0.0, 9.0]]))


def test_a_parameter_that_is_used_twice_gets_both_gradients():
    w = leaf(3.0)
    walk(lambda x: times(times(x, w), w), constant(2.0))  # 2 * w**2
    expect(w.grad, np.array([12.0]))


def test_a_frozen_parameter_gets_no_gradient_and_is_not_asked_for_one():
    asked = []

    @watched.gradient
    def watched_back(grad, w, needs_input_grad):
        asked.append(needs_input_grad)
        return grad * w, None if not needs_input_grad[1] else grad

    x, frozen = leaf(1.0), Parameter(np.array([3.0]))
    frozen.requires_grad = False
    expect(walk(lambda x: double(watched(double(x), frozen)), x), [12.0])
    expect((frozen.grad, asked), (None, [(True, False)]))


def test_layers_below_a_frozen_one_still_learn(rng):
    net = MLP([2, 3, 3, 1], Tanh, rng=rng)
    net[2].requires_grad_(False)
    walk(net, Tensor(np.ones((1, 2), np.float32)))
    got = [name for name, parameter in net.named_parameters() if parameter.grad is not None]
    expect(got, ["0.weight", "0.bias", "4.weight", "4.bias"])


def test_gradients_are_arrays_of_their_own():
    """Were they shared, then scaling one in place would scale the others, too."""
    x, w, b, grad = leaf(1.0, 2.0), leaf(0.0, 0.0), leaf(0.0, 0.0), np.array([1.0, 3.0])
    with Tape() as tape:
        plus(plus(x, w), b)
    tape.walk_back(grad)
    arrays = [x.grad, w.grad, b.grad, grad]
    for i, array in enumerate(arrays):
        expect(array, np.array([1.0, 3.0]))
        expect([bool(np.shares_memory(array, other)) for other in arrays[:i]], [False] * i)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_gradients_have_the_dtype_of_their_parameter(dtype):
    w, x = leaf(2.0, dtype=dtype), leaf(3.0, dtype=dtype)
    back = walk(lambda x: times(double(x), w), x)  # given a gradient in float64
    expect((back, w.grad, x.grad), (np.array([4.0], dtype), np.array([6.0], dtype), np.array([4.0], dtype)))
    walk(lambda x: times(double(x), w), x)
    expect(w.grad, np.array([12.0], dtype))


def test_a_wider_input_does_not_widen_gradients():
    w = leaf(2.0, dtype=np.float32)
    for _ in range(2):
        walk(lambda x: times(x, w), constant(3.0))
    expect(w.grad, np.array([6.0], np.float32))


def test_a_rule_may_give_a_list():
    x, w = leaf(1.0), leaf(1.0)
    expect(walk(lambda x: listed(double(x), w), x), [2.0])
    expect((w.grad, x.grad), (np.array([2.0]), np.array([2.0])))


def test_a_number_without_axes_is_a_parameter_too():
    w = Parameter(np.array(2.0))
    for _ in range(2):
        walk(lambda x: times(x, w), Tensor(np.array(3.0)))
    expect((w.grad, isinstance(w.grad, np.ndarray)), (np.array(6.0), True))


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_batch_of_any_size_is_walked(rows):
    net, x = small_net(), Tensor(np.full((rows, 2), 1.0), requires_grad=True)
    grad = np.full((2 * rows, 1), 2.0)[::-2]  # not contiguous, and backwards
    with Tape() as tape:
        net(x)
    expect(tape.walk_back(grad), np.tile([-4.0, 0.0], (rows, 1)))
    expect(net[0].weight.grad, np.array([[0.0, 0.0], [-2.0, -2.0]]) * rows)
    expect(grad, np.full((rows, 1), 2.0))


@pytest.mark.parametrize("shape", [(1, 2), (3,), (1,), ()])
def test_a_gradient_of_another_shape_is_refused(shape):
    """Also one that would stretch: then it was meant for something else."""
    with Tape() as tape:
        times(x := leaf(1.0, 2.0), np.array([3.0, 4.0]))
    with expect_error(ValueError, "(2,)", str(shape)):
        tape.walk_back(np.ones(shape))
    expect(x.grad, None)
    expect(tape.walk_back(np.ones(2)), [3.0, 4.0])  # the line is still there


def test_a_line_is_walked_once():
    with Tape() as tape:
        double(leaf(1.0))
    tape.walk_back(np.ones(1))
    with expect_error(ValueError):
        tape.walk_back(np.ones(1))


def test_where_nothing_wanted_a_gradient_there_is_nothing_to_walk():
    with Tape() as tape:
        double(constant(1.0))
    with expect_error(ValueError):
        tape.walk_back(np.ones(1))


def test_a_tape_takes_a_new_line_once_the_old_one_is_walked():
    x = leaf(3.0)
    with Tape() as tape:
        for slope in (2.0, 12.0):
            h = double(x) if slope == 2 else double(square(x))
            expect(tape.walk_back(np.ones(1)), [slope])
    expect((h.data, x.grad), ([18.0], [14.0]))


def test_an_input_that_was_stretched_is_refused():
    """The rule gives a gradient for each copy; adding them up is kata 06's work."""
    w = leaf(1.0, 2.0, 3.0)
    with expect_error(ValueError, "times", "(3,)", "(2, 3)"):
        walk(lambda x: times(x, w), Tensor(np.ones((2, 3)), requires_grad=True))
    with expect_error(ValueError, "times", "(3,)", "(2, 3)"):
        walk(lambda x: times(double(x), Tensor(np.ones((2, 3)))), w)


@pytest.mark.parametrize(
    "rule",
    [
        lambda grad: (grad, None),
        lambda grad: (None, grad),
        lambda grad: (grad, np.ones(5)),
        lambda grad: (np.ones(5), grad),
    ],
)
def test_a_rule_that_gives_no_gradient_or_one_of_another_shape_is_named(rule):
    broken.gradient(rule)
    with expect_error(ValueError, "broken"):
        walk(lambda x: broken(double(x), leaf(1.0)), leaf(1.0))


def test_what_was_written_over_is_noticed():
    with expect_error(RuntimeError, "root"):
        walk(lambda x: halve_(root(double(x))), leaf(2.0))  # root's rule needs its result
    with expect_error(RuntimeError, "square"):
        walk(lambda x: (square(h := double(x)), increment_version(h.data[:0]), W)[0], leaf(2.0))


def test_an_old_write_does_no_harm():
    x = leaf(2.0)
    increment_version(x.data)
    expect(walk(lambda x: root(halve_(double(x))), x), [1 / (2 * math.sqrt(2))])


def test_layers_that_work_in_place_change_no_gradient(rng):
    net = MLP([3, 4, 4, 2], rng=rng)
    same = Sequential(*(ReLU(inplace=True) if isinstance(layer, ReLU) else layer for layer in net))
    x = Tensor(rng.standard_normal((5, 3)), requires_grad=True)
    expect(walk(same, x), walk(net, x))


def test_a_line_of_five_thousand_steps_is_walked():
    def deep(x):
        for _ in range(2500):
            x = halve_(double(x))
        return x

    expect(walk(deep, leaf(1.0)), [1.0])


# 05.14 gradient_norms


def test_norms_are_lengths_and_are_called_like_their_parameters(rng):
    net = MLP([2, 2, 1], rng=rng)
    net[0].weight.grad = np.array([[1.0, -1.0], [1.0, 1.0]])
    net[2].bias.grad = np.array([-3.0], np.float32)
    expect(gradient_norms(net), {"0.weight": 2.0, "2.bias": 3.0})
    expect([type(norm) for norm in gradient_norms(net).values()], [float, float])
    expect(gradient_norms(MLP([2, 1], rng=rng)), {})
    net[2].bias.grad[:] = 0
    expect(gradient_norms(net), {"0.weight": 2.0, "2.bias": 0.0})


def test_norms_of_gradients_that_explode_do_not_overflow(rng):
    net = Linear(2, 1, rng=rng)
    net.weight.grad = np.array([[3e30, 4e30]], np.float32)
    with np.errstate(all="raise"):
        expect(gradient_norms(net)["weight"], 5e30, rtol=1e-6)


# 05.15 loss_and_gradient


def test_a_loss_worked_out_by_hand():
    # softmax([0, log 3]) is [1/4, 3/4].
    loss, grad = loss_and_gradient(np.array([[0.0, math.log(3)]]), np.array([1]))
    expect((loss, grad), (math.log(4 / 3), np.array([[0.25, -0.25]])))
    loss, grad = loss_and_gradient(np.array([[0.0, math.log(3)], [0.0, 0.0]]), [0, 1])
    expect((loss, grad), ((math.log(4) + math.log(2)) / 2, np.array([[-0.375, 0.375], [0.25, -0.25]])))
    expect(type(loss), float)


def test_a_loss_changes_neither_logits_nor_labels():
    logits, labels = np.array([[0.0, 3.0], [1.0, 1.0]]), np.array([0, 1])
    loss_and_gradient(logits, labels)
    expect((logits, labels), (np.array([[0.0, 3.0], [1.0, 1.0]]), np.array([0, 1])))


def test_a_loss_does_not_overflow():
    loss, grad = loss_and_gradient(np.array([[1e4, 0.0, -1e4]], np.float32), np.array([2]))
    expect((loss, grad), (2e4, np.array([[1.0, 0.0, -1.0]], np.float32)))


@pytest.mark.parametrize(
    ("shape", "labels", "mentions"),
    [
        ((3, 2), [0, 1], ["(3, 2)", "(2,)"]),
        ((2, 2), [[0], [1]], ["(2, 2)", "(2, 1)"]),
        ((2,), [0, 1], ["(2,)"]),
        ((2, 3, 1), [0, 0], ["(2, 3, 1)", "(2,)"]),
        ((0, 3), [], ["(0, 3)"]),
        ((3, 4), [0, 1, 4], ["4"]),
        ((3, 2), [0, -1, 1], ["-1"]),
    ],
)
def test_labels_that_do_not_fit_are_refused(shape, labels, mentions):
    with expect_error(ValueError, *mentions):
        loss_and_gradient(np.zeros(shape), np.array(labels, np.int64))


# 05.16 train_step, train_classifier


def one_layer():
    """Weights of zero: both classes have the probability 1/2, whatever comes in."""
    net = Sequential(Linear(2, 2, rng=np.random.default_rng(0)))
    for parameter in net.parameters():
        parameter.data[...] = 0
    return net


def test_a_step_worked_out_by_hand():
    net = one_layer()
    weight, bias = net[0].weight.data, net[0].bias.data
    loss = train_step(net, Tensor([[1.0, 2.0]]), np.array([1]), lr=0.5)
    # The gradient of the logits is [1/2, -1/2].
    expect(loss, math.log(2), rtol=1e-6)
    expect(type(loss), float)
    expect(net[0].weight.grad, np.array([[0.5, 1.0], [-0.5, -1.0]], np.float32))
    expect(weight, np.array([[-0.25, -0.5], [0.25, 0.5]], np.float32))
    expect(bias, np.array([-0.25, 0.25], np.float32))
    expect((net[0].weight.data is weight, net[0].bias.data is bias), (True, True))


def test_a_step_does_not_add_to_old_gradients():
    net = one_layer()
    net[0].weight.grad = np.full((2, 2), 100.0, np.float32)
    train_step(net, Tensor([[1.0, 2.0]]), np.array([1]), lr=0.5)
    expect(net[0].weight, np.array([[-0.25, -0.5], [0.25, 0.5]], np.float32))
    train_step(net, Tensor([[0.0, 0.0]]), np.array([1]), lr=0.5)
    expect(net[0].weight.grad, np.zeros((2, 2), np.float32))


def test_a_parameter_of_two_layers_moves_once():
    net = Sequential(one_layer()[0], one_layer()[0])
    net[1].bias = net[0].bias
    net[1].weight.data[...] = np.eye(2)
    train_step(net, Tensor([[1.0, 2.0]]), np.array([1]), lr=0.5)
    expect(net[0].bias, np.array([-0.5, 0.5], np.float32))  # the gradient, [1/2, -1/2], came from both


def test_a_frozen_layer_does_not_move():
    net = Sequential(one_layer()[0], one_layer()[0])
    net[0].requires_grad_(False)
    before = net[0].weight.data.copy()
    train_step(net, Tensor([[1.0, 2.0]]), np.array([1]), lr=0.5)
    expect((net[0].weight, net[0].weight.grad), (before, None))
    expect(net[1].bias, np.array([-0.25, 0.25], np.float32))


def test_a_step_is_noted_as_a_write_and_leaves_no_tape_listening():
    net = one_layer()
    before = version()
    with listener() as heard:
        train_step(net, Tensor([[1.0, 2.0]]), np.array([1]), lr=0.5)
        double(leaf(1.0))
    expect([version(parameter.data) > before for parameter in net.parameters()], [True, True])
    expect(heard, ["double"])


class Seen(Module):
    """Notes what rows it gets, and hands them on."""

    def __init__(self):
        self.batches = []

    def forward(self, x):
        self.batches.append(x.data[:, 0].tolist())
        return x


def test_each_epoch_sees_every_row_once_in_an_order_of_its_own(rng):
    net = Sequential(Seen(), one_layer()[0])
    x = np.arange(14, dtype=np.float32).reshape(7, 2) / 14
    losses = train_classifier(
        net, x, np.array([0, 1, 0, 1, 0, 1, 0]), lr=0.1, epochs=3, batch_size=3, rng=rng
    )
    expect(([len(batch) for batch in net[0].batches], len(losses)), ([3, 3, 1] * 3, 3))
    orders = [[row for batch in net[0].batches[i : i + 3] for row in batch] for i in (0, 3, 6)]
    expect([sorted(order) for order in orders], [x[:, 0].tolist()] * 3)
    # That two of three shuffles of seven rows are equal, or one is sorted: 6 in 5,040.
    expect(len({tuple(order) for order in [*orders, x[:, 0].tolist()]}), 4)


@pytest.mark.parametrize("mode", [True, False])
def test_training_leaves_the_mode_as_it_is(mode, rng):
    modes = []
    net = Sequential(Seen(), one_layer()[0]).train(mode)
    net.register_forward_hook(lambda module, inputs, out: modes.append(module[1].training))
    train_classifier(
        net, np.ones((2, 2), np.float32), np.array([0, 1]), lr=0.1, epochs=2, batch_size=2, rng=rng
    )
    expect((modes, net.training, net[1].training), ([mode] * 2, mode, mode))


def test_inputs_and_labels_stay_together(rng):
    """Were they shuffled apart, there would be nothing to learn."""
    x = np.array([[1.0, 0.0], [0.0, 1.0]] * 8, np.float32)
    net = one_layer()
    losses = train_classifier(net, x, np.array([0, 1] * 8), lr=1.0, epochs=20, batch_size=4, rng=rng)
    expect(bool(losses[-1] < 0.1), True)


def test_the_loss_of_an_epoch_is_the_mean_over_its_steps(rng):
    x, labels = np.ones((3, 2), np.float32), np.array([0, 0, 0])
    losses = train_classifier(one_layer(), x, labels, lr=0.5, epochs=1, batch_size=2, rng=rng)
    twin = one_layer()
    steps = [train_step(twin, Tensor(x[:n]), labels[:n], 0.5) for n in (2, 1)]
    expect((losses, type(losses[0])), ([(steps[0] + steps[1]) / 2], float))


@pytest.mark.parametrize("seed", range(3))
def test_xor_is_learnt_exactly(seed):
    """With these settings the loss ended below 0.01 for each of 150 seeds."""
    x, labels = xor()
    net = MLP([2, 8, 2], Tanh, rng=np.random.default_rng(seed))
    losses = [train_step(net, Tensor(x), labels, lr=1.0) for _ in range(200)]
    expect(net(Tensor(x)).data.argmax(axis=1), labels)
    expect((losses[0] > 0.5, losses[-1] < 0.1), (True, True))


@pytest.mark.parametrize("seed", range(3))
def test_spirals_are_learnt(seed):
    """No straight line parts them. 149 of 150 points were right for the worst of 40 seeds; asked are 143."""
    rng = np.random.default_rng(seed)
    x, labels = spirals(150, noise=0.05, rng=rng)
    net = initialise(MLP([2, 64, 64, 3], rng=rng), kaiming_normal_, rng=rng)
    train_classifier(net, x, labels, lr=0.3, epochs=40, batch_size=25, rng=rng)
    right = (net(Tensor(x)).data.argmax(axis=1) == labels).mean()
    expect(bool(right >= 0.95), True)
