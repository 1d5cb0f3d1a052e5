"""Level 4: what a tape and a training step cost beside the forward pass that they are for.

Ratios within this run, in CPU time, never seconds. Each budget has a twin: a naive version, written out
here, that must not fit.
"""

import traceback

import numpy as np
import pytest

from dojo.measuring import Budget, race
from tinytorch.activations import ReLU, log_softmax
from tinytorch.layers import Linear
from tinytorch.networks import (
    MLP,
    Sequential,
    Tape,
    kaiming_normal_,
    kaiming_uniform_,
    loss_and_gradient,
    orthogonal_,
    train_step,
    xavier_normal_,
    xavier_uniform_,
)
from tinytorch.tensor import Tensor, op, set_recorder

OVERHEAD = Budget(
    "64 small operations on a tape",
    limit=8,
    reference=2.9,
    naive=24,
    unit="times the time of the same without one",
    naively="a tape that notes from which line of the program each operation was called",
)
STEP = Budget(
    "a training step",
    limit=8,
    reference=3.6,
    naive=170,
    unit="times the time of a forward pass",
    naively="a version that tries out each weight, by central differences,",
)
DEPTH = Budget(
    "256 steps, there and back",
    limit=15,
    reference=7.0,
    naive=30,
    unit="times the time of 32 steps",
    naively="a tape that looks through all its steps at each of them",
)
DRAW = Budget(
    "65,536 weights",
    limit=10,
    reference=1.1,
    naive=80,
    unit="times the time in which numpy draws as many numbers",
    naively="a loop over the weights",
)
ORTHOGONAL = Budget(
    "an orthogonal matrix (64, 64)",
    limit=5,
    reference=1.0,
    naive=19,
    unit="times the time of np.linalg.qr",
    naively="Gram and Schmidt's method, vector by vector,",
)
LOSS = Budget(
    "the loss of 256 rows and its gradient",
    limit=8,
    reference=1.6,
    naive=60,
    unit="times the time of log_softmax, there and back",
    naively="a loop over the rows",
)


@op
def double(x):
    return x * 2


@double.gradient
def double_back(grad):
    return grad * 2


def chain(x, length):
    for _ in range(length):
        x = double(x)
    return x


def small(rng):
    return (Tensor(rng.random(4), requires_grad=True),)


def on_a_tape(x, length=64):
    with Tape():
        chain(x, length)


def test_a_tape_is_not_much_dearer_than_what_it_records(rng):
    OVERHEAD.check(race(on_a_tape, lambda x: chain(x, 64), limit=OVERHEAD.limit, inputs=lambda: small(rng)))


def test_the_twin_that_notes_lines_of_the_program_is_caught(rng):
    steps = []

    def record(op, inputs, arrays, params, out):
        steps.append((op, traceback.extract_stack(limit=20), op.keep(out.data, arrays, params)))

    def recorded(x):
        before = set_recorder(record)
        chain(x, 64)
        set_recorder(before)
        steps.clear()

    OVERHEAD.catches(race(recorded, lambda x: chain(x, 64), limit=OVERHEAD.limit, inputs=lambda: small(rng)))


def wide(rng):
    net = Sequential(*(layer for _ in range(3) for layer in (Linear(192, 192, rng=rng), ReLU())))
    return net, Tensor(rng.random((192, 192), np.float32)), rng.integers(0, 192, 192)


def test_a_training_step_costs_about_three_forward_passes(rng):
    """A layer's way back is two products: one for its weights, one for its input."""
    case = wide(rng)
    STEP.check(
        race(
            lambda net, x, labels: train_step(net, x, labels, 1e-3),
            lambda net, x, labels: net(x),
            limit=STEP.limit,
            inputs=lambda: case,
        )
    )


def test_the_twin_that_tries_out_each_weight_is_caught(rng):
    net = MLP([3, 4, 3], rng=rng)
    x, labels = Tensor(rng.random((64, 3), np.float32)), rng.integers(0, 3, 64)

    def try_out():
        for parameter in net.parameters():
            slopes, flat = np.zeros(parameter.size), parameter.data.reshape(-1)
            for i in range(parameter.size):
                losses = []
                for step in (1e-3, -2e-3):
                    flat[i] += step
                    losses.append(loss_and_gradient(net(x).data, labels)[0])
                flat[i] += 1e-3
                slopes[i] = (losses[0] - losses[1]) / 2e-3
            flat -= 1e-3 * slopes.astype(np.float32)

    STEP.catches(race(try_out, lambda: net(x), limit=STEP.limit))


def there_and_back(x, length):
    with Tape() as tape:
        chain(x, length)
    tape.walk_back(np.ones(4))


def test_time_grows_with_depth_and_no_faster(rng):
    DEPTH.check(
        race(
            lambda x: there_and_back(x, 256),
            lambda x: there_and_back(x, 32),
            limit=DEPTH.limit,
            inputs=lambda: small(rng),
        )
    )


def test_the_twin_that_looks_through_its_steps_is_caught(rng):
    def searched(x, length):
        outs, ops = [], []

        def record(op, inputs, arrays, params, out):
            [any(one is x for x in inputs) for one in outs]
            outs.append(out)
            ops.append(op)

        before = set_recorder(record)
        chain(x, length)
        set_recorder(before)
        grad = np.ones(4)
        for made in reversed(ops):
            grad = made.pull(grad)

    DEPTH.catches(
        race(
            lambda x: searched(x, 256),
            lambda x: searched(x, 32),
            limit=DEPTH.limit,
            inputs=lambda: small(rng),
        )
    )


INITIALISERS = {
    xavier_uniform_: np.random.Generator.random,
    kaiming_uniform_: np.random.Generator.random,
    xavier_normal_: np.random.Generator.standard_normal,
    kaiming_normal_: np.random.Generator.standard_normal,
}


def weight(rng):
    return Tensor(np.empty((256, 256), np.float32)), rng


@pytest.mark.parametrize("init", INITIALISERS, ids=lambda init: init.__name__)
def test_weights_are_drawn_all_at_once(init, rng):
    numpys = INITIALISERS[init]
    DRAW.check(
        race(
            lambda x, rng: init(x, rng=rng),
            lambda x, rng: numpys(rng, x.shape, np.float32),
            limit=DRAW.limit,
            inputs=lambda: weight(rng),
        )
    )


def test_the_twin_that_draws_one_by_one_is_caught(rng):
    def one_by_one(x, rng):
        for i in range(4):
            for j in range(256):
                x.data[i, j] = rng.normal(0, 0.1)

    DRAW.catches(
        race(
            one_by_one,
            lambda x, rng: rng.standard_normal((4, 256), np.float32),
            limit=DRAW.limit,
            inputs=lambda: weight(rng),
        )
    )


def square(rng):
    return Tensor(np.empty((64, 64))), rng


def by_qr(x, rng):
    return np.linalg.qr(rng.standard_normal(x.shape))


def test_an_orthogonal_matrix_costs_one_factorisation(rng):
    ORTHOGONAL.check(
        race(
            lambda x, rng: orthogonal_(x, rng=rng),
            by_qr,
            limit=ORTHOGONAL.limit,
            inputs=lambda: square(rng),
        )
    )


def test_a_long_and_narrow_matrix_is_cut_from_no_square(rng):
    """(512, 8): numpy's factorisation of (512, 512) takes several hundred times as long."""
    ORTHOGONAL.check(
        race(
            lambda x, rng: orthogonal_(x, rng=rng),
            by_qr,
            limit=ORTHOGONAL.limit,
            inputs=lambda: (Tensor(np.empty((512, 8))), rng),
        )
    )


def test_the_twin_that_goes_vector_by_vector_is_caught(rng):
    def gram_schmidt(x, rng):
        columns = []
        for column in rng.standard_normal(x.shape):
            for other in columns:
                column = column - (column @ other) * other
            columns.append(column / np.linalg.norm(column))

    ORTHOGONAL.catches(race(gram_schmidt, by_qr, limit=ORTHOGONAL.limit, inputs=lambda: square(rng)))


def logits(rng):
    return rng.random((256, 32), np.float32), rng.integers(0, 32, 256)


def by_vjp(x, labels):
    out, back = log_softmax.vjp(x)
    return back(out)


def test_all_rows_of_a_loss_are_worked_on_at_once(rng):
    LOSS.check(race(loss_and_gradient, by_vjp, limit=LOSS.limit, inputs=lambda: logits(rng)))


def test_the_twin_that_goes_row_by_row_is_caught(rng):
    def by_row(x, labels):
        return [by_vjp(row, label) for row, label in zip(x, labels, strict=True)]

    LOSS.catches(race(by_row, by_vjp, limit=LOSS.limit, inputs=lambda: logits(rng)))
