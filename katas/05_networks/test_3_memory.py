"""Level 3: a forward pass needs two layers at a time; training, one activation a layer until it is walked.

Counted in bytes by tracemalloc, or in arrays that are still alive, so the figures are the same on every
machine. Each budget has a twin: a naive version, written out here, that must not fit.
"""

import weakref

import numpy as np
import pytest

from dojo.expect import expect
from dojo.measuring import Budget, kept_bytes, load_probes, memory_growth, peak_bytes, retained_bytes
from tinytorch.activations import ReLU, softmax
from tinytorch.layers import Linear
from tinytorch.networks import (
    Sequential,
    Tape,
    kaiming_normal_,
    kaiming_uniform_,
    loss_and_gradient,
    train_step,
    xavier_normal_,
    xavier_uniform_,
)
from tinytorch.tensor import Tensor, op, set_recorder

MIB = 1 << 20
PAIRS = 8

PROBES = {probe.name: probe for probe in load_probes(__file__).PROBES}

INFERENCE = Budget(
    "a forward pass that nobody records",
    limit=3.5,
    reference=2.0,
    naive=16.0,
    unit="activations at the worst moment",
    naively="a network that holds what each of its 16 layers gave",
)
TAPE = Budget(
    "a Linear and a ReLU on a tape",
    limit=1.5,
    reference=1.0,
    naive=2.0,
    unit="activations held for the way back",
    naively="a tape that holds what goes in and what comes out",
)
NOTHING = Budget(
    "16 operations whose rules need nothing",
    limit=1.5,
    reference=1.0,
    naive=16.0,
    unit="activations held, the last result's included,",
    naively="a tape that holds what goes in and what comes out",
)
WALKED = Budget(
    "the walk, at the first of 16 steps",
    limit=3.5,
    reference=0.0,
    naive=16.0,
    unit="activations still held",
    naively="a tape that lets its steps go at the end",
)
DONE = Budget(
    "a tape that was walked, and the result",
    limit=1.5,
    reference=1.0,
    naive=8.0,
    unit="activations held",
    naively="a tape that keeps its steps, or whose result does,",
)
LOSS = Budget(
    "the loss of 16 rows of 1,024 classes, and its gradient",
    limit=12,
    reference=3.0,
    naive=65,
    unit="times the logits at the worst moment",
    naively="a version that takes one-hot rows out of an identity",
)
DRAW = Budget(
    "weights drawn in float32",
    limit=2.5,
    reference=1.0,
    naive=3.0,
    unit="weights at the worst moment",
    naively="a version that draws float64 and converts",
)


class Hoarder:
    """A naive tape: it holds all that it hears of, before, during and after the walk."""

    def __init__(self):
        self.heard = []

    def __enter__(self):
        self.before = set_recorder(lambda *heard: self.heard.append(heard))
        return self

    def __exit__(self, *exc):
        set_recorder(self.before)

    def walk_back(self, grad):
        for step, _, arrays, params, out in reversed(self.heard):
            grads = step.pull(grad, *step.keep(out.data, arrays, params))
            grad = grads[0] if isinstance(grads, tuple) else grads
        return grad


@op
def double(x):
    return x * 2


@double.gradient
def double_back(grad):
    return grad * 2


BORN = []  # a weak reference to each result of `halve`
ALIVE = []  # how many of them were alive each time that its rule was called


@op
def halve(x):
    out = x * 0.5
    BORN.append(weakref.ref(out))
    return out


@halve.gradient
def halve_back(grad, x):
    ALIVE.append(sum(born() is not None for born in BORN))
    return grad * 0.5


def batch(rng):
    """(1024, 256) float32: 1 MiB, as every activation of these networks."""
    return Tensor(rng.random((1024, 256), np.float32))


def deep_net(rng):
    return Sequential(*(layer for _ in range(PAIRS) for layer in (Linear(256, 256, rng=rng), ReLU())))


def forward(tape, net, x):
    with tape:
        out = net(x)
    return tape, out


def chain(operation, length):
    def run(x):
        for _ in range(length):
            x = operation(x)
        return x

    return run


# Depth.


def test_a_forward_pass_holds_two_layers_at_a_time(rng):
    net, x = deep_net(rng), batch(rng)
    INFERENCE.check(peak_bytes(lambda: net(x)) / MIB)


def test_the_twin_that_holds_what_each_layer_gave_is_caught(rng):
    net, x = deep_net(rng), batch(rng)

    def run():
        results = [x]
        for layer in net:
            results.append(layer(results[-1]))
        return results[-1]

    INFERENCE.catches(peak_bytes(run) / MIB)


def test_on_a_tape_a_pair_of_layers_holds_one_activation(rng):
    """What ReLU gives is what its own rule needs, and the next Linear's. What a Linear gives can go."""
    net, x = deep_net(rng), batch(rng)
    TAPE.check(kept_bytes(lambda: forward(Tape(), net, x)) / MIB / PAIRS)


def test_the_twin_that_holds_inputs_and_results_is_caught(rng):
    net, x = deep_net(rng), batch(rng)
    TAPE.catches(kept_bytes(lambda: forward(Hoarder(), net, x)) / MIB / PAIRS)


def test_a_step_whose_rule_needs_nothing_holds_nothing(rng):
    x = Tensor(batch(rng).data, requires_grad=True)
    NOTHING.check(kept_bytes(lambda: forward(Tape(), chain(double, 16), x)) / MIB)


def test_the_twin_that_holds_what_no_rule_needs_is_caught(rng):
    x = Tensor(batch(rng).data, requires_grad=True)
    NOTHING.catches(kept_bytes(lambda: forward(Hoarder(), chain(double, 16), x)) / MIB)


def test_a_network_lets_go_of_what_went_through(rng):
    net, x = deep_net(rng), batch(rng)
    came, out = weakref.ref(x), net(x)
    gave = weakref.ref(out)
    del x, out
    expect((came(), gave()), (None, None))


@pytest.mark.parametrize(
    ("name", "power"),
    [("forward, n layers", 0), ("forward on a tape, n layers", 1), ("train_step, n layers", 1)],
)
def test_memory_grows_with_depth_only_where_there_is_a_way_back(name, power):
    expect(memory_growth(PROBES[name]), float(power), atol=0.25)


# The way back.


def alive_at_the_first_step(tape):
    BORN.clear(), ALIVE.clear()
    with tape:
        chain(halve, 16)(Tensor(np.ones(4), requires_grad=True))
    tape.walk_back(np.ones(4))
    return ALIVE[-1]


def test_steps_are_let_go_as_they_are_walked():
    WALKED.check(alive_at_the_first_step(Tape()))
    expect(len(ALIVE), 16)


def test_the_twin_that_lets_go_at_the_end_is_caught():
    WALKED.catches(alive_at_the_first_step(Hoarder()))


def walked(tape, x):
    """The last result is still there, as it is in any loop that prints a loss."""
    tape, out = forward(tape, chain(halve, 8), x)
    tape.walk_back(np.ones_like(out.data))
    x.grad = None
    return tape, out


def test_after_the_walk_neither_tape_nor_result_hold_anything(rng):
    x = Tensor(batch(rng).data, requires_grad=True)
    DONE.check(kept_bytes(lambda: walked(Tape(), x)) / MIB)


def test_the_twin_that_keeps_its_steps_is_caught(rng):
    x = Tensor(batch(rng).data, requires_grad=True)
    DONE.catches(kept_bytes(lambda: walked(Hoarder(), x)) / MIB)


def test_a_walked_tape_lets_go_of_the_input():
    x = Tensor(np.ones(4), requires_grad=True)
    tape, _ = forward(Tape(), chain(double, 2), x)
    tape.walk_back(np.ones(4))
    gone = weakref.ref(x)
    del x
    expect(gone(), None)


def test_training_steps_leave_gradients_behind_and_nothing_else(rng):
    net, x, labels = deep_net(rng), batch(rng), rng.integers(0, 256, 1024)

    def step():
        train_step(net, x, labels, 0.01)
        net.zero_grad()

    expect(retained_bytes(step) / MIB, 0.0, atol=0.1)


# The loss.


def by_identity(logits, labels):
    hot = np.eye(logits.shape[1], dtype=logits.dtype)[labels]
    return softmax.forward(logits) - hot


def few_rows(rng):
    """(16, 1024) float32, 64 KiB: one-hot rows out of an identity take 64 times as much, by the way."""
    return rng.random((16, 1024), np.float32), rng.integers(0, 1024, 16)


def test_a_loss_needs_memory_for_its_rows_and_not_for_all_pairs_of_classes(rng):
    logits, labels = few_rows(rng)
    LOSS.check(peak_bytes(lambda: loss_and_gradient(logits, labels)) / logits.nbytes)


def test_the_twin_that_takes_rows_of_an_identity_is_caught(rng):
    logits, labels = few_rows(rng)
    LOSS.catches(peak_bytes(lambda: by_identity(logits, labels)) / logits.nbytes)


# Initialisation.


INITIALISERS = [xavier_uniform_, xavier_normal_, kaiming_uniform_, kaiming_normal_]


@pytest.mark.parametrize("init", INITIALISERS, ids=lambda init: init.__name__)
def test_weights_are_drawn_without_a_copy_in_a_wider_dtype(init, rng):
    weight = Tensor(np.empty((512, 512), np.float32))  # 1 MiB
    DRAW.check(peak_bytes(lambda: init(weight, rng=rng)) / MIB)


def test_the_twin_that_draws_float64_is_caught(rng):
    weight = Tensor(np.empty((512, 512), np.float32))

    def draw():
        wide = rng.normal(0, 0.1, weight.shape)
        weight.data = wide.astype(np.float32)

    DRAW.catches(peak_bytes(draw) / MIB)
