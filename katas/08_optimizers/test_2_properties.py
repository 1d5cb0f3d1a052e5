"""Level 2: whole trajectories, against formulas written out for one number, and what must not change them."""

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect
from tinytorch import activations, autograd  # noqa: F401  (tanh gets its gradient, and recording is on)
from tinytorch.layers import Linear, Module, Parameter
from tinytorch.optimizers import (
    SGD,
    Adam,
    AdamW,
    CosineAnnealingLR,
    LinearLR,
    OneCycleLR,
    RMSprop,
    SequentialLR,
    StepLR,
    clip_grad_norm_,
    clip_grad_value_,
)
from tinytorch.tensor import Tensor, mean, tanh

steady = settings(deadline=None, derandomize=True, max_examples=25)
few = settings(steady, max_examples=10)

SEEDS = st.integers(0, 2**32 - 1)
STEPS = 12

# Each rule for one number, in Python's floats, as in the README.


def slow_sgd(x, grads, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    b = None
    for g in grads:
        g = g + weight_decay * x
        if momentum:
            b = g if b is None else momentum * b + (1 - dampening) * g
            g = g + momentum * b if nesterov else b
        x = x - lr * g
    return x


def slow_rmsprop(x, grads, lr, alpha, eps, weight_decay=0.0, momentum=0.0, centered=False):
    v = m = b = 0.0
    for g in grads:
        g = g + weight_decay * x
        v = alpha * v + (1 - alpha) * g**2
        m = alpha * m + (1 - alpha) * g
        b = momentum * b + g / (math.sqrt(v - m**2 if centered else v) + eps)
        x = x - lr * b
    return x


def slow_adam(x, grads, lr, betas, eps, weight_decay=0.0, decoupled=False):
    m = v = 0.0
    for t, g in enumerate(grads, 1):
        if decoupled:
            x = x - lr * weight_decay * x
        else:
            g = g + weight_decay * x
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        x = x - lr * (m / (1 - betas[0] ** t)) / (math.sqrt(v / (1 - betas[1] ** t)) + eps)
    return x


SLOW = {
    SGD: slow_sgd,
    RMSprop: slow_rmsprop,
    Adam: slow_adam,
    AdamW: lambda *args, **options: slow_adam(*args, **options, decoupled=True),
}

NUMBERS = st.sampled_from([0.0, 0.1, 0.5, 0.9])
EPS = st.sampled_from([1e-8, 1e-3, 0.5])
COMMON = {"lr": st.sampled_from([0.001, 0.1, 1.0]), "weight_decay": st.sampled_from([0.0, 0.01, 0.3])}
ADAM = {**COMMON, "betas": st.tuples(NUMBERS, st.sampled_from([0.0, 0.5, 0.99, 0.999])), "eps": EPS}
OPTIONS = {
    SGD: st.one_of(
        st.fixed_dictionaries({**COMMON, "momentum": NUMBERS, "dampening": NUMBERS}),
        st.fixed_dictionaries({**COMMON, "momentum": st.just(0.9), "nesterov": st.just(True)}),
    ),
    RMSprop: st.fixed_dictionaries(
        {**COMMON, "alpha": NUMBERS, "eps": EPS, "momentum": NUMBERS, "centered": st.just(False)}
    ),
    Adam: st.fixed_dictionaries(ADAM),
    AdamW: st.fixed_dictionaries(ADAM),
}
every_rule = pytest.mark.parametrize("rule", [SGD, RMSprop, Adam, AdamW], ids=lambda rule: rule.__name__)
SHAPES = st.sampled_from([(), (1,), (3,), (2, 3), (2, 1, 2)])


def trajectory(optimizer, parameters, grads):
    """A step for each row of gradients, one for each parameter; None where there is none."""
    for row in grads:
        for p, grad in zip(parameters, row, strict=True):
            p.grad = grad
        optimizer.step()


def draw(rng, shape, steps=STEPS):
    """Where a parameter starts, and its gradients, as multiples of 1/8, which can be 0."""
    numbers = rng.integers(-16, 17, (steps + 1, *shape)) / 8
    return numbers[0], list(numbers[1:])


# 08.8 to 08.12: trajectories


@every_rule
@steady
@given(st.data(), SHAPES, SEEDS)
def test_a_trajectory_is_that_of_the_formulas(rule, data, shape, seed):
    options = data.draw(OPTIONS[rule])
    start, grads = draw(np.random.default_rng(seed), shape)
    p = Parameter(np.array(start))
    trajectory(rule([p], **options), [p], [[np.array(grad)] for grad in grads])
    expected = [
        SLOW[rule](x, column, **options)
        for x, column in zip(np.ravel(start).tolist(), np.reshape(grads, (STEPS, -1)).T.tolist(), strict=True)
    ]
    expect(p.data, np.reshape(expected, shape), rtol=1e-9)


@steady
@given(SEEDS, st.sampled_from([0.5, 0.9]), st.sampled_from([0.0, 0.9]))
def test_centered_rmsprop_is_that_of_the_formulas(seed, alpha, momentum):
    """With gradients that vary, so that the variance is not all rounding."""
    rng = np.random.default_rng(seed)
    start, grads = rng.normal(size=4), rng.normal(size=(STEPS, 4))
    options = {"lr": 0.1, "alpha": alpha, "eps": 1e-3, "momentum": momentum, "centered": True}
    p = Parameter(start.copy())
    trajectory(RMSprop([p], **options), [p], [[grad] for grad in grads])
    expected = [slow_rmsprop(x, g, **options) for x, g in zip(start.tolist(), grads.T.tolist(), strict=True)]
    expect(p.data, np.array(expected), rtol=1e-8)


@every_rule
@steady
@given(st.data(), SEEDS)
def test_each_element_goes_its_own_way(rule, data, seed):
    """One parameter, or as many as it has rows, in any order, in groups or not, with a pause in between."""
    options, rng = data.draw(OPTIONS[rule]), np.random.default_rng(seed)
    start, grads = draw(rng, (4, 3))
    whole = Parameter(start.copy())
    trajectory(rule([whole], **options), [whole], [[grad] for grad in grads])
    order = rng.permutation(4)
    rows = [Parameter(start[i].copy()) for i in order]
    cut = int(rng.integers(0, 5))
    optimizer = rule([{"params": rows[:cut]}, {"params": rows[cut:], **options}], **options)
    for grad in grads:
        late = set(rng.permutation(4)[:2].tolist())  # these pause, and make their step a little later
        for now in (set(range(4)) - late, late):
            trajectory(optimizer, rows, [[grad[i] if k in now else None for k, i in enumerate(order)]])
    for i, row in zip(order, rows, strict=True):
        expect(row.data, whole.data[i], rtol=1e-12)


@pytest.mark.parametrize("rule", [RMSprop, Adam, AdamW], ids=lambda rule: rule.__name__)
@steady
@given(SEEDS, st.sampled_from([2.0**-20, 0.125, 3.0, 2.0**20]))
def test_how_large_all_gradients_are_does_not_matter(rule, seed, scale):
    """Up to eps: so a loss can be summed or averaged, and the learning rate stays."""
    rng = np.random.default_rng(seed)
    start, grads = rng.normal(size=5), rng.normal(size=(STEPS, 5))
    p, q = Parameter(start.copy()), Parameter(start.copy())
    trajectory(rule([p], lr=0.1, eps=1e-15), [p], [[grad] for grad in grads])
    trajectory(rule([q], lr=0.1, eps=1e-15), [q], [[scale * grad] for grad in grads])
    expect(q.data, p.data, rtol=1e-7)


@steady
@given(SEEDS, st.sampled_from([0.0, 0.9]), st.booleans())
def test_sgd_moves_in_proportion_to_the_gradient(seed, momentum, nesterov):
    rng = np.random.default_rng(seed)
    start, grads = rng.normal(size=5), rng.normal(size=(STEPS, 5))
    options = {"momentum": momentum, "nesterov": nesterov and momentum > 0}
    p, q = Parameter(start.copy()), Parameter(start.copy())
    trajectory(SGD([p], lr=0.1, **options), [p], [[4 * grad] for grad in grads])
    trajectory(SGD([q], lr=0.4, **options), [q], [[grad] for grad in grads])
    expect(q.data, p.data, rtol=1e-10)


@steady
@given(SEEDS, st.sampled_from([0.01, 0.5]))
def test_decoupled_decay_is_a_shrinking_before_a_plain_step(seed, weight_decay):
    rng = np.random.default_rng(seed)
    start, grads = rng.normal(size=5), rng.normal(size=(STEPS, 5))
    p, q = Parameter(start.copy()), Parameter(start.copy())
    one, other = AdamW([p], lr=0.1, weight_decay=weight_decay), Adam([q], lr=0.1)
    for grad in grads:
        trajectory(one, [p], [[grad]])
        q.data *= 1 - 0.1 * weight_decay
        trajectory(other, [q], [[grad]])
    expect(p.data, q.data, rtol=1e-10)


def test_decay_in_the_gradient_takes_the_same_from_small_and_large():
    """Of what has no gradient Adam takes lr a step, whatever it is; AdamW takes a share."""
    for rule, moves in ((Adam, [0.1, 0.1]), (AdamW, [0.1 * 0.5 * 2, 0.1 * 0.5 * 1000])):
        p = Parameter(np.array([2.0, 1000.0]))
        trajectory(rule([p], lr=0.1, weight_decay=0.5), [p], [[np.zeros(2)]])
        expect(np.array([2.0, 1000.0]) - p.data, np.array(moves), rtol=1e-6)


# 08.6, 08.7: go on from a state


@every_rule
@few
@given(st.data(), SEEDS, st.integers(0, STEPS))
def test_a_trajectory_that_was_interrupted_is_the_same_to_the_last_bit(rule, data, seed, stop):
    options, rng = data.draw(OPTIONS[rule]), np.random.default_rng(seed)
    dtype = rng.choice([np.float32, np.float64])
    start = [rng.normal(size=shape).astype(dtype) for shape in ((2, 3), (4,), ())]
    grads = [
        [
            rng.normal(size=np.shape(a)).astype(dtype) if rng.random() < 0.8 else None
            for a in map(np.asarray, start)
        ]
        for _ in range(STEPS)
    ]

    def make(arrays, **options):
        parameters = [Parameter(np.array(a)) for a in arrays]
        return parameters, rule(
            [{"params": parameters[:1], "lr": 0.5}, {"params": parameters[1:]}], **options
        )

    there, optimizer = make(start, **options)
    trajectory(optimizer, there, grads[:stop])
    file = io.BytesIO()
    np.savez(file, **optimizer.state_dict())
    file.seek(0)
    again, resumed = make([p.data for p in there], lr=0.123)
    resumed.load_state_dict(np.load(file, allow_pickle=False))
    trajectory(optimizer, there, grads[stop:])
    trajectory(resumed, again, grads[stop:])
    for p, q in zip(there, again, strict=True):
        assert np.array_equal(p.data, q.data)


# 08.13, 08.14: clipping


@steady
@given(SEEDS, st.sampled_from([0.0, 1e-3, 0.5, 1.0, 10.0]), st.sampled_from([np.float32, np.float64]))
def test_clipping_shortens_and_does_not_turn(seed, limit, dtype):
    rng = np.random.default_rng(seed)
    parameters = [Parameter(np.zeros(shape, dtype)) for shape in ((3, 2), (), (4,), (0,))]
    for p in parameters:
        p.grad = np.asarray(rng.normal(size=p.shape) * rng.choice([0.01, 1.0]), dtype)
    before = [p.grad.copy() for p in parameters]
    total = math.sqrt(sum(float(g) ** 2 for a in before for g in np.ravel(a)))
    expect(clip_grad_norm_(parameters, limit), total, rtol=1e-5)
    factor = min(1.0, limit / (total + 1e-6))
    for p, grad in zip(parameters, before, strict=True):
        expect(p.grad, np.asarray(grad * factor, dtype), rtol=1e-5)
    clip_grad_value_(parameters, limit / 4)
    for p, grad in zip(parameters, before, strict=True):
        clipped = [max(-limit / 4, min(limit / 4, float(g) * factor)) for g in np.ravel(grad)]
        expect(p.grad, np.array(clipped, dtype).reshape(p.shape), rtol=1e-5)


# 08.15 to 08.18: schedules

SCHEDULES = {
    "staircase": lambda opt: StepLR(opt, 3, 0.5),
    "line": lambda opt: LinearLR(opt, 0.1, total_iters=7),
    "half wave": lambda opt: CosineAnnealingLR(opt, 9, 0.01),
    "cycle": lambda opt: OneCycleLR(opt, 0.5, 20),
    "cycle in lines": lambda opt: OneCycleLR(opt, [0.5, 2.0], 20, 0.4, "linear"),
    "sequence": lambda opt: SequentialLR(
        opt, [LinearLR(opt, 0.2, total_iters=4), StepLR(opt, 2), CosineAnnealingLR(opt, 5)], [4, 11]
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
@few
@given(st.integers(0, 20), st.integers(0, 20))
def test_a_schedule_depends_on_the_number_of_steps_and_on_nothing_else(name, stop, noise):
    """Interrupted, or with learning rates that something else has changed, it comes to the same rates."""

    def make(*lrs):
        p, q = Parameter(np.zeros(1)), Parameter(np.zeros(1))
        optimizer = AdamW([{"params": [p], "lr": lrs[0]}, {"params": [q], "lr": lrs[1]}])
        return optimizer, SCHEDULES[name](optimizer)

    def options(optimizer):
        return [(group["lr"], group["betas"]) for group in optimizer.param_groups]

    (optimizer, schedule), (other, resumed) = make(0.1, 0.2), make(0.7, 0.8)
    for step in range(stop):
        if step == noise:
            optimizer.param_groups[1]["lr"] = 100.0
        schedule.step()
    resumed.load_state_dict(schedule.state_dict())
    expect(resumed.last_epoch, stop)
    for _ in range(stop, 20):
        schedule.step()
        resumed.step()
        expect(options(other), options(optimizer))
    untouched, straight = make(0.1, 0.2)
    for _ in range(20):
        straight.step()
    expect(schedule.get_last_lr(), straight.get_last_lr())
    expect([betas for _, betas in options(optimizer)], [betas for _, betas in options(untouched)])


# Together: a small network learns


class Curve(Module):
    """1 -> 16 -> 1, with a bend in between."""

    def __init__(self, rng):
        self.first, self.last = Linear(1, 16, rng=rng), Linear(16, 1, rng=rng)

    def forward(self, x):
        return self.last(tanh(self.first(x)))


def squared_error(net, x, y):
    off = net(Tensor(x)) - Tensor(y)
    return mean(off * off)


TRAINERS = {
    "SGD": lambda params: SGD(params, lr=0.1, momentum=0.9, nesterov=True),
    "RMSprop": lambda params: RMSprop(params, lr=0.01),
    "Adam": lambda params: Adam(params, lr=0.03),
    "AdamW": lambda params: AdamW(params, lr=0.03),
}


@pytest.mark.parametrize("name", TRAINERS)
def test_a_network_learns(name):
    """A sine in 150 steps of each rule, warmed up and annealed, to a tenth of its variance."""
    rng = np.random.default_rng(0)
    net = Curve(rng)
    x = np.linspace(-2, 2, 64, dtype=np.float32)[:, None]
    y = np.sin(2 * x)
    optimizer = TRAINERS[name](net.parameters())
    warm_up, anneal = LinearLR(optimizer, total_iters=10), CosineAnnealingLR(optimizer, 140)
    schedule = SequentialLR(optimizer, [warm_up, anneal], [10])
    for _ in range(150):
        optimizer.zero_grad()
        loss = squared_error(net, x, y)
        loss.backward()
        clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    assert loss.item() < 0.1 * float(y.var())
    expect([p.dtype for p in net.parameters()], [np.dtype(np.float32)] * 4)


@pytest.mark.parametrize("name", TRAINERS)
def test_gradients_of_parts_add_up_to_a_step_of_the_whole(name):
    """Two backward passes before one step: a batch that does not fit in memory."""
    x, y = np.linspace(-2, 2, 32)[:, None], np.linspace(0, 1, 32)[:, None]
    nets = [Curve(np.random.default_rng(0)) for _ in range(2)]
    whole, parts = (TRAINERS[name](net.parameters()) for net in nets)
    for _ in range(3):
        whole.zero_grad()
        parts.zero_grad()
        squared_error(nets[0], x, y).backward()
        for half in (slice(0, 16), slice(16, 32)):
            (squared_error(nets[1], x[half], y[half]) * 0.5).backward()
        whole.step()
        parts.step()
    for p, q in zip(*(net.parameters() for net in nets), strict=True):
        expect(q.data, p.data, rtol=1e-3, atol=1e-4)
