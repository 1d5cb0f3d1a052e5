"""Level 4: a step is a few passes over whole arrays.

Ratios within this run, in CPU time, never seconds. Each budget has a twin: a naive version, written out
here, that must not fit.
"""

import numpy as np
import pytest

from dojo.measuring import Budget, race
from tinytorch.layers import Parameter
from tinytorch.optimizers import (
    SGD,
    Adam,
    AdamW,
    LinearLR,
    OneCycleLR,
    RMSprop,
    SequentialLR,
    StepLR,
    clip_grad_norm_,
    clip_grad_value_,
)

PLAIN = Budget(
    "a step of SGD, 128 x 128",
    limit=8,
    reference=1.35,
    naive=39,
    unit="times the time of data -= lr * grad",
    naively="a version that goes row by row",
)
ADAM = Budget(
    "a rule on 128 x 128",
    limit=5,
    reference=0.75,
    naive=26,
    unit="times the time of Adam by the book",
    naively="a version that goes row by row",
)
SMALL = Budget(
    "a step of Adam, 40 tensors of 256 numbers",
    limit=6,
    reference=1.0,
    naive=27,
    unit="times the time of the formulas by the book, tensor by tensor",
    naively="a version that goes number by number",
)
TENSORS = Budget(
    "1024 tensors of one number",
    limit=32,
    reference=16,
    naive=200,
    unit="times the time of 64",
    naively="a version that looks for each among all",
)
CLIP = Budget(
    "clipping, 256 x 256",
    limit=14,
    reference=1.2,
    naive=40,
    unit="times the time of a dot product and a multiplication",
    naively="a version that goes row by row",
)
SCHEDULE = Budget(
    "step 50,000 of a schedule",
    limit=8,
    reference=1.1,
    naive=1000,
    unit="times the time of step 50",
    naively="a version that goes through all steps before",
)


def tensors(rng, count, *shape):
    made = [Parameter(rng.random(shape, np.float32)) for _ in range(count)]
    for p in made:
        p.grad = rng.random(shape, np.float32)
    return made


class Book:
    """Adam's formulas as one would write them down, row by row or all at once.

    For arrays of 64 KiB at most: memory for larger ones may come from the system anew each time, or not, and
    then no two runs take as long.
    """

    def __init__(self, made):
        self.made, self.t = made, 0
        self.mean = [np.zeros_like(p.data) for p in made]
        self.square = [np.zeros_like(p.data) for p in made]

    def step(self, rows=False):
        self.t += 1
        for i, p in enumerate(self.made):
            for part in range(len(p.data)) if rows else (slice(None),):
                grad = p.grad[part]
                self.mean[i][part] = mean = 0.9 * self.mean[i][part] + 0.1 * grad
                self.square[i][part] = square = 0.999 * self.square[i][part] + 0.001 * grad * grad
                correct = 1 - 0.9**self.t, 1 - 0.999**self.t
                p.data[part] -= 1e-3 * (mean / correct[0]) / (np.sqrt(square / correct[1]) + 1e-8)


def plain(p, rows=False):
    for part in range(len(p.data)) if rows else (slice(None),):
        p.data[part] -= 1e-3 * p.grad[part]


# 08.8 to 08.12: a step


def test_sgd_is_two_passes(rng):
    (mine,), (theirs,) = tensors(rng, 1, 128, 128), tensors(rng, 1, 128, 128)
    PLAIN.check(race(SGD([mine], lr=1e-3).step, lambda: plain(theirs), limit=PLAIN.limit))


def test_the_twin_that_steps_row_by_row_is_caught(rng):
    (mine,), (theirs,) = tensors(rng, 1, 128, 128), tensors(rng, 1, 128, 128)
    PLAIN.catches(race(lambda: plain(mine, rows=True), lambda: plain(theirs), limit=PLAIN.limit))


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (Adam, {}),
        (Adam, {"weight_decay": 0.1}),
        (AdamW, {}),
        (RMSprop, {"momentum": 0.9}),
        (SGD, {"lr": 1e-3, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ],
)
def test_a_rule_is_a_few_passes_over_whole_arrays(rule, options, rng):
    optimizer, book = rule(tensors(rng, 1, 128, 128), **options), Book(tensors(rng, 1, 128, 128))
    ADAM.check(race(optimizer.step, book.step, limit=ADAM.limit))


def test_the_twin_of_adam_row_by_row_is_caught(rng):
    mine, theirs = Book(tensors(rng, 1, 128, 128)), Book(tensors(rng, 1, 128, 128))
    ADAM.catches(race(lambda: mine.step(rows=True), theirs.step, limit=ADAM.limit))


def test_small_tensors_cost_no_more_than_they_must(rng):
    optimizer, book = Adam(tensors(rng, 40, 256)), Book(tensors(rng, 40, 256))
    SMALL.check(race(optimizer.step, book.step, limit=SMALL.limit))


def test_the_twin_number_by_number_is_caught(rng):
    mine, theirs = Book(tensors(rng, 40, 256)), Book(tensors(rng, 40, 256))
    SMALL.catches(race(lambda: mine.step(rows=True), theirs.step, limit=SMALL.limit))


# 08.2, 08.3, 08.6, 08.13: many tensors


@pytest.mark.parametrize("work", ["step", "make", "save", "load", "clip"])
def test_many_tensors_take_as_long_as_there_are(work, rng):
    made = tensors(rng, 1024, 1)
    few = made[:64]
    large, small = Adam(made), Adam(few)
    for optimizer in (large, small):
        optimizer.step()
    states = large.state_dict(), small.state_dict()
    pair = {
        "step": (large.step, small.step),
        "make": (lambda: Adam(made), lambda: Adam(few)),
        "save": (large.state_dict, small.state_dict),
        "load": (lambda: large.load_state_dict(states[0]), lambda: small.load_state_dict(states[1])),
        "clip": (lambda: clip_grad_norm_(made, 1e9), lambda: clip_grad_norm_(few, 1e9)),
    }[work]
    TENSORS.check(race(*pair, limit=TENSORS.limit))


def test_the_twin_that_looks_for_each_among_all_is_caught():
    def look(made):
        seen = []
        for p in made:
            if not any(p is q for q in seen):
                seen.append(p)
        return seen

    large, small = [object() for _ in range(1024)], [object() for _ in range(64)]
    TENSORS.catches(race(lambda: look(large), lambda: look(small), limit=TENSORS.limit))


# 08.13, 08.14: clipping


def scaled(grad, factor=0.999):
    norm = np.vdot(grad, grad)
    grad *= factor
    return norm


@pytest.mark.parametrize("clip", [clip_grad_norm_, clip_grad_value_])
def test_clipping_is_two_passes(clip, rng):
    made, (other,) = tensors(rng, 1, 256, 256), tensors(rng, 1, 256, 256)

    def clipped():
        made[0].grad[0, 0] = 1.0  # so that there is something to do each time
        clip(made, 0.5)

    CLIP.check(race(clipped, lambda: scaled(other.grad), limit=CLIP.limit))


def test_the_twin_that_clips_row_by_row_is_caught(rng):
    (mine,), (theirs,) = tensors(rng, 1, 256, 256), tensors(rng, 1, 256, 256)

    def row_by_row():
        for row in mine.grad:
            scaled(row)

    CLIP.catches(race(row_by_row, lambda: scaled(theirs.grad), limit=CLIP.limit))


# 08.15 to 08.18: schedules


def at(schedule, step):
    """A step of the schedule from this one on, again and again."""

    def again():
        schedule.last_epoch = step
        schedule.step()

    return again


@pytest.mark.parametrize(
    "make",
    [
        lambda opt: StepLR(opt, 100, 0.999),
        lambda opt: OneCycleLR(opt, 1.0, 100_000),
        lambda opt: SequentialLR(opt, [LinearLR(opt), StepLR(opt, 100, 0.999)], [10]),
    ],
    ids=["staircase", "cycle", "sequence"],
)
def test_a_late_step_of_a_schedule_takes_no_longer_than_an_early_one(make):
    late, early = (make(SGD([Parameter(np.zeros(1))], lr=1.0, momentum=0.9)) for _ in range(2))
    SCHEDULE.check(race(at(late, 50_000), at(early, 50), limit=SCHEDULE.limit))


def test_the_twin_that_goes_through_all_steps_is_caught():
    def product(steps):
        rate = 1.0
        for step in range(steps):
            rate *= 0.999 if step % 100 == 0 else 1.0
        return rate

    SCHEDULE.catches(race(lambda: product(50_000), lambda: product(50), limit=SCHEDULE.limit))
