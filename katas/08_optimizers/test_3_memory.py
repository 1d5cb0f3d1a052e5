"""Level 3: what an optimizer remembers, and that a step needs nothing else.

Counted by tracemalloc in bytes, so the figures are the same on every machine. Each budget has a twin: a
naive version, written out here, that must not fit.
"""

import numpy as np
import pytest

from dojo.expect import expect
from dojo.measuring import Budget, kept_bytes, load_probes, memory_growth, peak_bytes, retained_bytes
from tinytorch.layers import Parameter
from tinytorch.optimizers import SGD, Adam, AdamW, RMSprop, clip_grad_norm_, clip_grad_value_

KIB, MIB = 1 << 10, 1 << 20

PROBES = {probe.name: probe for probe in load_probes(__file__).PROBES}

STEP = Budget(
    "a step, after the first, of a parameter of 1 MiB",
    limit=0.5,
    reference=0.13,  # of which 0.125 is numpy's, where it converts a gradient in float64
    naive=1.0,
    unit="MiB at the worst moment",
    naively="a version that makes an array for lr * grad",
)
GROWTH = Budget(
    "a step of Adam: peak bytes over the number of parameters",
    limit=0.5,
    reference=0.0,
    naive=1.0,
    unit="as the power of n",
    naively="a version by the book",
)
KEPT = Budget(
    "all that Adam keeps of eight parameters",
    limit=4.5,  # two means, and for each parameter two arrays of scratch
    reference=2.25,
    naive=6.0,
    unit="times the memory of the parameters",
    naively="a version that keeps means and scratch in float64",
)
FROZEN = Budget(
    "what is kept of a frozen parameter of 1 MiB",
    limit=0.5,
    reference=0.003,
    naive=2.0,
    unit="MiB",
    naively="a version that makes all means in advance",
)
STATE = Budget(
    "the state_dict of Adam for a parameter of 1 MiB",
    limit=64,
    reference=1.5,
    naive=2048,
    unit="KiB",
    naively="a version that copies",
)
LOAD = Budget(
    "load_state_dict of Adam",
    limit=1.75,
    reference=1.01,
    naive=3.0,
    unit="times the memory of the state, at the worst moment",
    naively="a version that converts to float64 on the way",
)
CLIP = Budget(
    "the clipping of a gradient of 1 MiB",
    limit=0.5,
    reference=0.001,
    naive=1.0,
    unit="MiB at the worst moment",
    naively="a version that makes an array of squares",
)

RULES = {
    "SGD": (SGD, {"lr": 1e-3}),
    "SGD with decay": (SGD, {"lr": 1e-3, "weight_decay": 0.1}),
    "SGD with momentum": (SGD, {"lr": 1e-3, "momentum": 0.9, "dampening": 0.1}),
    "SGD, nesterov, with decay": (
        SGD,
        {"lr": 1e-3, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ),
    "RMSprop": (RMSprop, {}),
    "RMSprop with everything": (RMSprop, {"momentum": 0.9, "centered": True, "weight_decay": 0.1}),
    "Adam": (Adam, {}),
    "Adam with decay": (Adam, {"weight_decay": 0.1}),
    "AdamW": (AdamW, {}),
}


def parameters(rng, count=1, side=512):
    """Of (side, side) in float32, with gradients; 512 makes 1 MiB."""
    made = [Parameter(rng.random((side, side), np.float32)) for _ in range(count)]
    for p in made:
        p.grad = rng.random((side, side), np.float32)
    return made


# 08.8 to 08.12: what is remembered


@pytest.mark.parametrize(
    ("rule", "options", "times"),
    [
        (SGD, {"lr": 0.1}, 0),
        (SGD, {"lr": 0.1, "weight_decay": 0.1}, 0),
        (SGD, {"lr": 0.1, "momentum": 0.9}, 1),
        (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, 1),
        (RMSprop, {}, 1),
        (RMSprop, {"momentum": 0.9}, 2),
        (RMSprop, {"centered": True}, 2),
        (RMSprop, {"centered": True, "momentum": 0.9}, 3),
        (Adam, {}, 2),
        (Adam, {"weight_decay": 0.1}, 2),
        (AdamW, {}, 2),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_state_is_so_many_times_as_large_as_the_parameters(rule, options, times, dtype):
    made = [Parameter(np.zeros(shape, dtype)) for shape in ((10, 10), (7,))]
    optimizer = rule(made, **options)
    for _ in range(3):
        for p in made:
            p.grad = np.ones(p.shape, dtype)
        optimizer.step()
    arrays = [v for name, v in optimizer.state_dict().items() if name.startswith("state") and np.ndim(v)]
    expect(sum(a.nbytes for a in arrays), times * 107 * np.dtype(dtype).itemsize)


def test_all_that_is_kept_is_state_and_a_little_scratch(rng):
    made = parameters(rng, 8, 256)

    def first_step():
        optimizer = Adam(made, weight_decay=0.1)
        optimizer.step()
        return optimizer

    KEPT.check(kept_bytes(first_step) / (2 * MIB))


def test_the_twin_that_keeps_float64_is_caught(rng):
    made = parameters(rng, 8, 256)
    KEPT.catches(kept_bytes(lambda: [np.zeros((3, *p.shape)) for p in made]) / (2 * MIB))


def test_nothing_is_kept_of_what_does_not_move(rng):
    """Most of a model is frozen when it is fine-tuned."""
    moving, frozen = parameters(rng, 1, 8) + parameters(rng, 1)
    frozen.requires_grad = False

    def steps():
        optimizer = AdamW([moving, frozen])
        optimizer.step()
        return optimizer

    FROZEN.check(kept_bytes(steps) / MIB)


def test_the_twin_that_makes_all_means_in_advance_is_caught(rng):
    (frozen,) = parameters(rng)
    FROZEN.catches(kept_bytes(lambda: [np.ones_like(frozen.data) for _ in range(2)]) / MIB)


# 08.4, 08.5, 08.8 to 08.12: a step


@pytest.mark.parametrize("name", RULES)
def test_a_step_makes_no_array(name, rng):
    rule, options = RULES[name]
    made = parameters(rng)
    optimizer = rule(made, **options)
    optimizer.step()
    optimizer.step()
    STEP.check(peak_bytes(optimizer.step) / MIB)
    expect(retained_bytes(optimizer.step) / KIB, 0.0, atol=4.0)


@pytest.mark.parametrize("name", ["SGD with momentum", "RMSprop", "Adam with decay"])
def test_a_gradient_in_float64_makes_no_array_either(name, rng):
    rule, options = RULES[name]
    made = parameters(rng)
    optimizer = rule(made, **options)
    made[0].grad = rng.random((512, 512))
    optimizer.step()
    optimizer.step()
    STEP.check(peak_bytes(optimizer.step) / MIB)


def test_gradients_may_come_and_go_in_any_size(rng):
    """Scratch that is made again for each size would be made at each step."""
    small, large = parameters(rng, 1, 64) + parameters(rng)
    optimizer = Adam([small, large, *parameters(rng, 1, 64)], weight_decay=0.1)
    optimizer.step()
    STEP.check(peak_bytes(optimizer.step) / MIB)
    large.grad = None
    expect(peak_bytes(optimizer.step) / KIB, 0.0, atol=12.0)


def test_the_twin_that_makes_an_array_of_the_step_is_caught(rng):
    (p,) = parameters(rng)

    def step():
        p.data -= 1e-3 * p.grad

    STEP.catches(peak_bytes(step) / MIB)


def test_what_a_step_needs_does_not_grow():
    GROWTH.check(memory_growth(PROBES["Adam, n numbers"]))


def test_the_twin_by_the_book_grows():
    probes = load_probes(__file__)
    rng = np.random.default_rng(0)

    def peak(n):
        arrays = probes.textbook(n, rng)
        return peak_bytes(lambda: probes.textbook_adam(*arrays))

    GROWTH.catches(np.log2(peak(1 << 19) / peak(1 << 18)))


# 08.6, 08.7: states


def stepped(made):
    optimizer = Adam(made)
    optimizer.step()
    return optimizer


def test_a_state_is_shown_not_copied(rng):
    optimizer = stepped(parameters(rng))
    STATE.check(peak_bytes(optimizer.state_dict) / KIB)


def test_the_twin_that_copies_the_state_is_caught(rng):
    optimizer = stepped(parameters(rng))
    STATE.catches(peak_bytes(lambda: [np.array(v) for v in optimizer.state_dict().values()]) / KIB)


def test_a_state_is_loaded_by_one_copy_of_each_array(rng):
    state = stepped(parameters(rng)).state_dict()
    made = parameters(rng)

    def load():
        optimizer = Adam(made)
        optimizer.load_state_dict(state)
        return optimizer

    LOAD.check(peak_bytes(load) / (2 * MIB))


def test_the_twin_that_converts_on_the_way_is_caught(rng):
    state = [v for v in stepped(parameters(rng)).state_dict().values() if np.size(v) > 2]

    def load():
        wide = [v.astype(np.float64) for v in state]
        return [v.astype(np.float32) for v in wide]

    LOAD.catches(peak_bytes(load) / (2 * MIB))


# 08.13, 08.14: clipping


@pytest.mark.parametrize("clip", [clip_grad_norm_, clip_grad_value_])
def test_clipping_makes_no_array(clip, rng):
    made = parameters(rng)
    CLIP.check(peak_bytes(lambda: clip(made, 0.1)) / MIB)


def test_the_twin_that_makes_an_array_of_squares_is_caught(rng):
    (p,) = parameters(rng)
    CLIP.catches(peak_bytes(lambda: np.sqrt((p.grad**2).sum())) / MIB)
