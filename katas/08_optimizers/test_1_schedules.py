"""Level 1: learning rates step by step, worked out by hand."""

import io
import math

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.layers import Parameter
from tinytorch.optimizers import (
    SGD,
    AdamW,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    Optimizer,
    RMSprop,
    SequentialLR,
    StepLR,
    cosine,
)


def sgd(*rates, **options):
    """SGD with a group, of one parameter, for each learning rate."""
    groups = [{"params": [Parameter(np.zeros(1))], "lr": lr} for lr in rates]
    return SGD(groups, lr=1.0, **options)


def rates(schedule, steps):
    """The first group's learning rate at the start and after each step."""
    found = [schedule.optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        schedule.step()
        found.append(schedule.optimizer.param_groups[0]["lr"])
    return np.array(found)


class Harmonic(LRScheduler):
    """The base over 1, 2, 3, ..."""

    def lr_at(self, epoch, base_lr):
        return base_lr / (epoch + 1)


# 08.15 LRScheduler


def test_a_schedule_sets_the_learning_rate_at_once_and_after_each_step():
    optimizer = sgd(6.0)
    schedule = Harmonic(optimizer)
    expect(rates(schedule, 3), [6.0, 3.0, 2.0, 1.5])
    expect(schedule.last_epoch, 3)
    assert schedule.optimizer is optimizer


def test_each_group_goes_by_its_own_base():
    optimizer = sgd(6.0, 12.0)
    schedule = Harmonic(optimizer)
    expect(schedule.step(), None)
    expect([group["lr"] for group in optimizer.param_groups], [3.0, 6.0])
    expect((schedule.get_last_lr(), schedule.base_lrs), ([3.0, 6.0], [6.0, 12.0]))


def test_the_optimizer_steps_by_what_the_schedule_set():
    optimizer = sgd(6.0)
    p = optimizer.param_groups[0]["params"][0]
    schedule = Harmonic(optimizer)
    for _ in range(3):
        p.grad = np.ones(1)
        optimizer.step()
        schedule.step()
    expect(p.data, np.array([-11.0]))  # 6 + 3 + 2


def test_a_learning_rate_that_was_set_by_hand_is_set_again():
    schedule = Harmonic(sgd(6.0))
    schedule.optimizer.param_groups[0]["lr"] = 100.0
    expect(rates(schedule, 1), [100.0, 3.0])


def test_the_base_is_the_learning_rate_before_there_was_any_schedule():
    optimizer = sgd(6.0)
    Harmonic(optimizer).step()
    expect(optimizer.param_groups[0]["initial_lr"], 6.0)
    expect(rates(Harmonic(optimizer), 1), [6.0, 3.0])


def test_a_schedule_takes_an_optimizer():
    expect(rates(Harmonic(sgd(1.0)), 0), [1.0])
    with expect_error(TypeError, "list"):
        Harmonic([])


def test_a_schedule_without_a_rule_says_so():
    optimizer = sgd(1.0)
    with pytest.raises(NotImplementedError, match=r"LRScheduler\.lr_at|kata"):
        LRScheduler(optimizer)
    expect(rates(Harmonic(optimizer), 0), [1.0])


def test_a_group_that_comes_after_the_schedule_is_noticed():
    optimizer = sgd(6.0)
    schedule = Harmonic(optimizer)
    optimizer.add_param_group({"params": [Parameter(np.zeros(1))]})
    with expect_error(ValueError):
        schedule.apply()
    with expect_error(ValueError):
        schedule.step()


def through_a_file(state):
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    return dict(np.load(file, allow_pickle=False))


def test_a_schedule_goes_on_from_its_state():
    """In an optimizer that was made with other learning rates; and at once."""
    schedule, other = Harmonic(sgd(6.0, 12.0)), Harmonic(sgd(1.0, 1.0))
    schedule.step()
    other.load_state_dict(through_a_file(schedule.state_dict()))
    expect((other.last_epoch, other.get_last_lr()), (1, [3.0, 6.0]))
    other.step()
    expect(other.get_last_lr(), [2.0, 4.0])
    expect((schedule.last_epoch, schedule.get_last_lr()), (1, [3.0, 6.0]))
    expect((type(other.last_epoch), type(other.get_last_lr()[0])), (int, float))


def test_a_state_is_a_flat_dict_of_numbers_and_arrays_that_nothing_shares():
    schedule = Harmonic(sgd(6.0, 12.0))
    state = schedule.state_dict()
    expect(sorted(state), ["base_lrs", "last_epoch"])
    expect((state["last_epoch"], state["base_lrs"]), (0, np.array([6.0, 12.0])))
    state["base_lrs"][0] = 100.0
    schedule.step()
    expect((state["last_epoch"], schedule.get_last_lr()), (0, [3.0, 6.0]))


def test_a_state_of_another_number_of_groups_is_refused():
    schedule = Harmonic(sgd(6.0))
    with expect_error(ValueError, "2", "1"):
        schedule.load_state_dict(Harmonic(sgd(1.0, 1.0)).state_dict())
    expect(rates(schedule, 1), [6.0, 3.0])


def test_optimizer_and_schedule_are_restored_in_either_order():
    def make():
        optimizer = sgd(6.0, momentum=0.5)
        return optimizer, Harmonic(optimizer)

    optimizer, schedule = make()
    schedule.step()
    saved, place = optimizer.state_dict(), schedule.state_dict()
    for first in (0, 1):
        other, its = make()
        for load in ((its.load_state_dict, place), (other.load_state_dict, saved))[:: 1 if first else -1]:
            load[0](load[1])
        expect((other.param_groups[0]["lr"], rates(its, 1)), (3.0, np.array([3.0, 2.0])))


# 08.16 StepLR, LinearLR, CosineAnnealingLR, cosine


def test_steps_go_down_a_staircase():
    expect(rates(StepLR(sgd(8.0), 2, 0.5), 5), [8.0, 8.0, 4.0, 4.0, 2.0, 2.0])
    expect(rates(StepLR(sgd(8.0), 1, 2.0), 2), [8.0, 16.0, 32.0])
    expect(rates(StepLR(sgd(8.0), 2), 2), [8.0, 8.0, 0.8])


def test_a_warm_up_rises_in_a_line_and_stays():
    expect(rates(LinearLR(sgd(8.0), 0.25, total_iters=3), 5), [2.0, 4.0, 6.0, 8.0, 8.0, 8.0])
    expect(rates(LinearLR(sgd(3.0)), 6), [1.0, 1.4, 1.8, 2.2, 2.6, 3.0, 3.0])
    expect(rates(LinearLR(sgd(8.0), 1.0, 0.5, 2), 3), [8.0, 6.0, 4.0, 4.0])


def test_half_a_wave_leads_from_start_to_end():
    expect([cosine(10.0, 2.0, done) for done in (0.0, 0.5, 1.0)], [10.0, 6.0, 2.0])
    expect(cosine(10.0, 2.0, 1 / 3), 8.0)  # cos is 1/2 there: 3/4 of the way up
    expect(np.array([cosine(1.0, 1.0, 0.3), cosine(-1.0, 1.0, 0.5)]), [1.0, 0.0])


def test_annealing_goes_down_half_a_wave_and_up_again():
    expect(rates(CosineAnnealingLR(sgd(8.0), 2), 4), [8.0, 4.0, 0.0, 4.0, 8.0])
    expect(rates(CosineAnnealingLR(sgd(10.0), 3, 2.0), 3), [10.0, 8.0, 4.0, 2.0])


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda n: StepLR(sgd(1.0), n), "step_size"),
        (lambda n: LinearLR(sgd(1.0), total_iters=n), "total_iters"),
        (lambda n: CosineAnnealingLR(sgd(1.0), n), "T_max"),
        (lambda n: OneCycleLR(sgd(1.0), 1.0, n), "total_steps"),
    ],
)
def test_a_schedule_takes_one_step_at_least(make, name):
    make(1).step()
    for count in (0, -3):
        with expect_error(ValueError, name, str(count)):
            make(count)


# 08.17 OneCycleLR


def test_a_cycle_in_lines():
    """Of 10 steps with the peak at 0.5 * 10 - 1 = 4: up 5 steps of 1 from 1 to 5, then down to 1/2 in 5."""
    schedule = OneCycleLR(
        sgd(9.0), 5.0, 10, 0.5, "linear", cycle_momentum=False, div_factor=5.0, final_div_factor=2.0
    )
    expect(rates(schedule, 9), [1.0, 2.0, 3.0, 4.0, 5.0, 4.1, 3.2, 2.3, 1.4, 0.5])


def test_a_cycle_along_half_waves():
    """Of 9 steps with the peak at 4 / 9 * 9 - 1 = 3, thirds: cos is 1/2 and -1/2 there."""
    schedule = OneCycleLR(sgd(9.0), 9.0, 9, 4 / 9, cycle_momentum=False, div_factor=9.0, final_div_factor=1.0)
    half = 1 + 4 * (1 + math.cos(math.pi * 0.4))
    expect(rates(schedule, 5), [1.0, 3.0, 7.0, 9.0, 1 + 4 * (1 + math.cos(math.pi * 0.2)), half])


def test_the_peak_may_lie_between_two_steps():
    """At 0.3 * 5 - 1 = 0.5: step 1 is 0.5 past it, of 3.5."""
    schedule = OneCycleLR(sgd(1.0), 8.0, 5, 0.3, "linear", False, div_factor=8.0, final_div_factor=1.0)
    expect(rates(schedule, 4), [1.0, 7.0, 5.0, 3.0, 1.0])


@pytest.mark.parametrize(
    ("steps", "share", "answer"),
    [
        (3, 0.0, [4.75, 2.5, 0.25, 0.25]),  # the peak is at -1: thirds, from 7 to 0.25
        (4, 0.25, [7.0, 4.75, 2.5, 0.25, 0.25]),  # the peak is the start
        (1, 0.25, [0.25, 0.25]),
    ],
)
def test_a_cycle_may_begin_at_its_peak(steps, share, answer):
    schedule = OneCycleLR(sgd(1.0), 7.0, steps, share, "linear", False, div_factor=7.0, final_div_factor=4.0)
    expect(rates(schedule, steps), answer)


def test_after_the_last_step_a_cycle_stays_and_then_is_over():
    for strategy in ("cos", "linear"):
        schedule = OneCycleLR(
            sgd(1.0, momentum=0.5), 5.0, 10, 0.5, strategy, div_factor=5.0, final_div_factor=2.0
        )
        expect(rates(schedule, 10)[-2:], [0.5, 0.5])
        expect(schedule.optimizer.param_groups[0]["momentum"], 0.95)
        for _ in range(2):
            with expect_error(ValueError, "10"):
                schedule.step()


def test_a_cycle_has_pytorchs_defaults():
    """Start a 25th, end a 10,000th of that, peak at three tenths, half waves."""
    schedule = OneCycleLR(sgd(1.0), 5.0, 20)
    found = rates(schedule, 19)
    expect((found[0], found[5], found[19]), (0.2, 5.0, 0.2e-4))
    expect(found[12], 0.2e-4 + (5 - 0.2e-4) / 2)  # half of the way from 5 to 19
    expect(schedule.optimizer.param_groups[0]["momentum"], 0.95)


def momenta(optimizer, read, **options):
    schedule = OneCycleLR(optimizer, 1.0, 6, 0.5, "linear", base_momentum=0.5, max_momentum=0.9, **options)
    found = []
    for _ in range(6):
        found.append(read(optimizer.param_groups[0]))
        schedule.step()
    return found


def test_momentum_goes_the_other_way_round():
    down_and_up = [0.9, 0.7, 0.5, 0.5 + 0.4 / 3, 0.5 + 0.8 / 3, 0.9]
    expect(momenta(sgd(1.0, momentum=0.1), lambda group: group["momentum"]), down_and_up)
    p = Parameter(np.zeros(1))
    expect(momenta(RMSprop([p]), lambda group: group["momentum"]), down_and_up)
    expect(momenta(AdamW([p]), lambda group: group["betas"][0]), down_and_up)
    expect(momenta(AdamW([p]), lambda group: group["betas"][1]), [0.999] * 6)


def test_momentum_goes_along_half_waves_too_in_every_group():
    """A third of the way to the peak a half wave has gone a quarter: of 0.4, 0.1."""
    optimizer = sgd(1.0, 2.0, momentum=0.1)
    schedule = OneCycleLR(optimizer, 9.0, 9, 4 / 9, base_momentum=0.5, max_momentum=0.9)
    schedule.step()
    expect([group["momentum"] for group in optimizer.param_groups], [0.8, 0.8])


def test_momentum_can_stay_as_it_is():
    still = momenta(sgd(1.0, momentum=0.1), lambda group: group["momentum"], cycle_momentum=False)
    expect(still, [0.1] * 6)


def test_momentum_meets_the_peak_at_its_least_by_default():
    optimizer = sgd(1.0, momentum=0.1)
    schedule = OneCycleLR(optimizer, 1.0, 20)
    for _ in range(5):
        schedule.step()
    expect(optimizer.param_groups[0]["momentum"], 0.85)


def test_each_group_can_have_a_peak_of_its_own():
    optimizer = sgd(1.0, 1.0)
    schedule = OneCycleLR(optimizer, [5.0, 10.0], 20)
    expect(schedule.get_last_lr(), [0.2, 0.4])
    expect(OneCycleLR(optimizer, 5, 20).get_last_lr(), [0.2, 0.2])
    with expect_error(ValueError, "3", "2"):
        OneCycleLR(optimizer, [1.0, 2.0, 3.0], 20)


@pytest.mark.parametrize(
    ("options", "mentions"),
    [
        ({"pct_start": -0.1}, ["pct_start", "-0.1"]),
        ({"pct_start": 1.0}, ["pct_start", "1.0"]),
        ({"anneal_strategy": "cubic"}, ["anneal_strategy", "cubic"]),
    ],
)
def test_a_cycle_refuses_options_that_will_not_do(options, mentions):
    optimizer = sgd(1.0)
    with expect_error(ValueError, *mentions):
        OneCycleLR(optimizer, 1.0, 20, **options)


def test_a_cycle_leaves_an_optimizer_without_momentum_its_options():
    p = Parameter(np.zeros(1))
    optimizer = Optimizer([p], {"lr": 1.0})
    OneCycleLR(optimizer, 5.0, 20, cycle_momentum=False)
    expect(sorted(optimizer.param_groups[0]), ["lr", "params"])
    expect(optimizer.param_groups[0]["lr"], 0.2)


def test_a_cycle_goes_on_from_its_state():
    schedule = OneCycleLR(sgd(1.0, momentum=0.1), 5.0, 20)
    found = rates(schedule, 7)
    other = OneCycleLR(sgd(9.0, momentum=0.3), 1.0, 20)
    other.load_state_dict(through_a_file(schedule.state_dict()))
    expect(rates(other, 12), [found[-1], *rates(schedule, 12)[1:]], rtol=0, atol=0)
    one, two = schedule.optimizer.param_groups[0], other.optimizer.param_groups[0]
    expect(two["momentum"], one["momentum"])


# 08.18 SequentialLR


def warmed(optimizer):
    """Up from 2 to 8 in 3 steps; at step 3 half a wave of 2 steps begins; at step 5 a staircase."""
    parts = [
        LinearLR(optimizer, 0.25, total_iters=3),
        CosineAnnealingLR(optimizer, 2),
        StepLR(optimizer, 1, 0.5),
    ]
    return SequentialLR(optimizer, parts, [3, 5])


def test_one_schedule_follows_the_other_from_its_own_start():
    expect(rates(warmed(sgd(8.0)), 7), [2.0, 4.0, 6.0, 8.0, 4.0, 8.0, 4.0, 2.0])


def test_a_sequence_within_a_sequence():
    optimizer = sgd(8.0)
    inner = SequentialLR(optimizer, [StepLR(optimizer, 1, 0.5), StepLR(optimizer, 1, 2.0)], [2])
    outer = SequentialLR(optimizer, [LinearLR(optimizer, 0.5, total_iters=2), inner], [2])
    expect(rates(outer, 5), [4.0, 6.0, 8.0, 4.0, 8.0, 16.0])


def test_a_first_part_may_be_of_one_step():
    optimizer = sgd(8.0)
    parts = [StepLR(optimizer, 1, 0.25), StepLR(optimizer, 1, 0.5), StepLR(optimizer, 1, 2.0)]
    expect(rates(SequentialLR(optimizer, parts, [1, 2]), 4), [8.0, 8.0, 8.0, 16.0, 32.0])


def test_a_sequence_of_one_is_that_one():
    optimizer = sgd(8.0)
    expect(rates(SequentialLR(optimizer, [StepLR(optimizer, 1, 0.5)], []), 2), [8.0, 4.0, 2.0])


def test_a_sequence_goes_on_from_its_state():
    for steps in range(7):
        schedule = warmed(sgd(8.0, 16.0))
        for _ in range(steps):
            schedule.step()
        state = schedule.state_dict()
        other = warmed(sgd(1.0, 1.0))
        other.load_state_dict(through_a_file(state))
        expect((other.last_epoch, other.get_last_lr()), (steps, schedule.get_last_lr()))
        schedule.step()
        other.step()
        expect(other.get_last_lr(), schedule.get_last_lr())


def test_each_part_has_its_own_state_back():
    """In whatever order the entries come: the base of a cycle is its peak, not that of the others."""

    def make(lr, peak):
        optimizer = sgd(lr)
        parts = [
            LinearLR(optimizer, 0.5, total_iters=2),
            OneCycleLR(optimizer, peak, 10),
            StepLR(optimizer, 1),
        ]
        return SequentialLR(optimizer, parts, [2, 8])

    schedule, other = make(8.0, 5.0), make(1.0, 1.0)
    state = through_a_file(schedule.state_dict())
    other.load_state_dict(dict(reversed(state.items())))
    expect(rates(other, 10), rates(schedule, 10))


def test_a_sequence_within_a_sequence_has_its_own_state_back():
    def make(lr):
        optimizer = sgd(lr)
        inner = SequentialLR(optimizer, [StepLR(optimizer, 1, 0.5), StepLR(optimizer, 1, 2.0)], [2])
        return SequentialLR(optimizer, [LinearLR(optimizer, 0.5, total_iters=2), inner], [2])

    for steps in range(6):
        schedule, other = make(8.0), make(1.0)
        rates(schedule, steps)
        other.load_state_dict(through_a_file(schedule.state_dict()))
        expect(rates(other, 3), rates(schedule, 3))


def test_there_may_be_more_than_ten_schedules():
    def make(lr):
        optimizer = sgd(lr)
        parts = [StepLR(optimizer, 1, 0.5) for _ in range(12)]
        return SequentialLR(optimizer, parts, list(range(1, 12)))

    schedule, other = make(8.0), make(1.0)
    rates(schedule, 11)
    other.load_state_dict(through_a_file(schedule.state_dict()))
    expect(rates(other, 2), [8.0, 4.0, 2.0])  # the twelfth, from its start


def test_the_state_of_a_sequence_is_flat():
    names = sorted(warmed(sgd(8.0)).state_dict())
    own = ["base_lrs", "last_epoch"]
    expect(names, sorted([*own, *(f"{i}.{name}" for i in range(3) for name in own)]))


@pytest.mark.parametrize(
    ("milestones", "mentions"),
    [([], ["2", "0"]), ([1, 2], ["2", "2"]), ([0], ["0"]), ([-1], ["-1"])],
)
def test_milestones_that_do_not_fit_are_refused(milestones, mentions):
    optimizer = sgd(8.0)
    parts = [StepLR(optimizer, 1), StepLR(optimizer, 1)]
    with expect_error(ValueError, *mentions):
        SequentialLR(optimizer, parts, milestones)


def test_milestones_must_grow():
    optimizer = sgd(8.0)
    parts = [StepLR(optimizer, 1) for _ in range(3)]
    for milestones in ([5, 5], [5, 4]):
        with expect_error(ValueError, str(milestones)):
            SequentialLR(optimizer, parts, milestones)


def test_schedules_of_another_optimizer_are_refused():
    optimizer = sgd(8.0)
    with expect_error(ValueError, "optimizer"):
        SequentialLR(optimizer, [StepLR(optimizer, 1), StepLR(sgd(8.0), 1)], [2])
