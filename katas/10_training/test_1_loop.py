"""Level 1: callbacks, the loop around a step, and what it leaves behind."""

import io
import math
import re
import time

import numpy as np
import pytest
import rich.console

from dojo.expect import expect, expect_error
from tinytorch import autograd
from tinytorch.activations import Dropout, ReLU
from tinytorch.dataloader import DataLoader, TensorDataset
from tinytorch.layers import Linear, Module, Parameter
from tinytorch.networks import Sequential
from tinytorch.optimizers import SGD, Adam, LinearLR, OneCycleLR, StepLR
from tinytorch.spatial import BatchNorm2d
from tinytorch.tensor import Tensor, total, version
from tinytorch.training import (
    EMA,
    Callback,
    EarlyStopping,
    Progress,
    Trainer,
    cross_entropy,
    evaluating,
    memory_by_part,
    mse_loss,
)


def flat(state):
    """Dicts as lists of pairs: `expect` looks into lists."""
    if isinstance(state, dict):
        return [[name, flat(value)] for name, value in state.items()]
    return [flat(value) for value in state] if isinstance(state, list) else state


def f32(*values):
    return np.array(values, np.float32)


class Scale(Module):
    """weight * x, with a weight of 1 for the start; it notes in which mode it was called."""

    def __init__(self, weight=1.0):
        self.weight = Parameter(np.array([weight]))
        self.modes = []

    def forward(self, x):
        self.modes.append((self.training, autograd.is_grad_enabled()))
        return self.weight * x


def scales(*factors):
    """Batches of one row each, whose loss has the gradient `factor` in the weight: see `product`."""
    return [(np.array([[float(factor)]]), np.zeros(1)) for factor in factors]


def product(outputs, targets):
    """A loss that is the mean output: the gradient of the weight is the mean input."""
    return total(outputs) / len(targets)


def trained(batches, epochs=1, lr=1.0, validation=None, **options):
    model = Scale()
    trainer = Trainer(model, SGD(model.parameters(), lr=lr), product, **options)
    trainer.fit(batches, epochs, validation=validation)
    return model, trainer


# 10.10, 10.11 EMA


class Pair(Module):
    def __init__(self):
        self.first, self.second = Parameter(f32(4, 8)), Parameter(np.array([[1.0]]))
        self.norm = BatchNorm2d(1)


def test_the_shadow_begins_as_a_copy_and_follows_by_its_share():
    model = Pair()
    ema = EMA(model, decay=0.75)
    model.first.data[...] = 0
    expect(ema.shadow["first"], f32(4, 8))
    ema.update()
    expect(ema.shadow["first"], f32(3, 6))
    ema.update()
    expect(ema.shadow["first"], f32(2.25, 4.5))
    expect(ema.shadow["second"], np.array([[1.0]]))
    expect(model.first.data, f32(0, 0))


def test_the_shadow_has_the_parameters_and_no_buffers():
    model = Pair()
    ema = EMA(model)
    ema.update()
    expect(sorted(ema.shadow), sorted(name for name, _ in model.named_parameters()))
    expect((ema.shadow["first"].dtype, ema.shadow["second"].dtype), (np.dtype("f4"), np.dtype("f8")))


def test_the_shadow_of_many_steps_is_a_weighted_sum():
    """0.9 of what was there and 0.1 of what comes: the weight of step t is 0.1 * 0.9**(steps - t)."""
    model = Pair()
    ema = EMA(model, decay=0.9)
    sizes = [3.0, -1.0, 7.0, 0.5]
    for size in sizes:
        model.second.data[...] = size
        ema.update()
    total = 0.9**4 * 1.0 + sum(0.1 * 0.9 ** (3 - t) * size for t, size in enumerate(sizes))
    expect(ema.shadow["second"], np.array([[total]]))


@pytest.mark.parametrize(("decay", "after"), [(0.0, 0.0), (1.0, 4.0)])
def test_a_decay_of_0_follows_at_once_and_one_of_1_never(decay, after):
    model = Pair()
    ema = EMA(model, decay)
    model.first.data[...] = 0
    ema.update()
    expect(float(ema.shadow["first"][0]), after)


@pytest.mark.parametrize("decay", [-0.1, 1.01, math.nan])
def test_a_decay_outside_of_0_to_1_is_named(decay):
    EMA(Pair(), 0.5).update()
    with expect_error(ValueError, str(decay)):
        EMA(Pair(), decay)


def test_swap_exchanges_weights_and_shadow_in_place():
    model = Pair()
    ema = EMA(model)
    weight, shadow = model.first.data, ema.shadow["first"]
    weight[...] = [1, 2]
    before = version(weight)
    ema.swap()
    assert model.first.data is weight, "an optimizer and a tied layer hold the array of the weights"
    expect((weight, shadow), (f32(4, 8), f32(1, 2)))
    assert version(weight) > before, "a write over weights is noted"
    ema.swap()
    expect((weight, shadow), (f32(1, 2), f32(4, 8)))


def test_the_shadow_is_applied_inside_and_the_weights_come_back_whatever_happens():
    model = Pair()
    ema = EMA(model)
    model.first.data[...] = [1, 2]
    with pytest.raises(ZeroDivisionError), ema.applied():  # noqa: PT012
        expect(model.first.data, f32(4, 8))
        raise ZeroDivisionError
    expect((model.first.data, ema.shadow["first"]), (f32(1, 2), f32(4, 8)))


def test_a_running_mean_goes_on_from_its_state():
    model = Pair()
    ema, other = EMA(model, 0.5), EMA(model, 0.5)
    model.first.data[...] = 0
    ema.update()
    inside = other.shadow["first"]
    other.load_state_dict({name: array.copy() for name, array in ema.state_dict().items()})
    expect(other.shadow["first"], f32(2, 4))
    assert other.shadow["first"] is inside, "arrays are copied into those that are there"


@pytest.mark.parametrize("change", [lambda s: s.pop("second"), lambda s: s.update(odd=np.ones(2)),
                                    lambda s: s.update(second=np.ones(3)),
                                    lambda s: s.update(second=np.ones(1))])  # fmt: skip
def test_a_state_that_does_not_fit_changes_nothing(change):
    ema = EMA(Pair())
    state = {name: array + 1 for name, array in ema.state_dict().items()}
    change(state)
    fits = np.shape(state.get("second")) == (1, 1)
    with expect_error(ValueError, *["odd"] * ("odd" in state), *["second"] * (not fits)):
        ema.load_state_dict(state)
    expect(ema.shadow["first"], f32(4, 8))


def test_the_shadow_follows_each_step_of_a_fit():
    """The weight goes 1, 0, -2; half of it each time: 1, 0.5, -0.75."""
    model = Scale()
    ema = EMA(model, 0.5)
    Trainer(model, SGD(model.parameters(), lr=1.0), product, callbacks=[ema]).fit(scales(1, 2), 1)
    expect((model.weight.data, ema.shadow["weight"]), (np.array([-2.0]), np.array([-0.75])))


# 10.12 EarlyStopping


class Told:
    """What a trainer shows of itself to EarlyStopping."""

    def __init__(self):
        self.history, self.stopped = {}, False


def stops_after(stopping, numbers, name="val_loss"):
    trainer = Told()
    for epoch, number in enumerate(numbers, 1):
        trainer.history.setdefault(name, []).append(number)
        stopping.on_epoch_end(trainer)
        if trainer.stopped:
            return epoch
    return None


@pytest.mark.parametrize(
    ("options", "numbers", "epoch"),
    [
        ({"patience": 1}, [3, 2, 1], None),
        ({"patience": 1}, [3, 2, 2], 3),
        ({"patience": 2}, [3, 2, 2.5, 2.5], 4),
        ({"patience": 2}, [3, 4, 2, 3, 1, 2, 0, 1], None),
        ({"patience": 2}, [1, 2, 1.5], 3),  # better than the last one, but not than the best
        ({"patience": 1, "min_delta": 0.5}, [3, 2, 1.75], 3),
        ({"patience": 2, "min_delta": 0.5}, [3, 2.75, 2.25, 2], None),  # 2.25 is 0.75 better than 3
        ({"patience": 1, "min_delta": 0.5}, [3, 2.5], 2),  # not more than 0.5
        ({"patience": 2, "min_delta": 0.5}, [3, 2.6, 2.2], None),
        ({"patience": 2}, [math.nan, math.nan, 1], 2),
        ({"patience": 2}, [math.nan, 1, math.nan, 0.5], None),
        ({"patience": 1, "mode": "max"}, [3, 4, 5, 5], 4),
        ({"patience": 1, "mode": "max", "min_delta": 1.0}, [3, 4.5, 5], 3),
        ({"patience": 1, "mode": "max"}, [-1, -2], 2),
        ({}, [1, 1, 1, 1, 1, 1, 1], 6),
    ],
)
def test_a_training_stops_after_so_many_epochs_that_brought_nothing(options, numbers, epoch):
    expect(stops_after(EarlyStopping(**options), numbers), epoch)


@pytest.mark.parametrize(("mode", "numbers", "best"), [("min", [3, 2, 2.5, 2.25], 2), ("max", [1, 3, 2], 3)])
def test_the_best_number_and_how_long_ago_it_was_can_be_read(mode, numbers, best):
    stopping = EarlyStopping(patience=len(numbers) - 2, mode=mode)
    expect((stopping.best, stopping.waited), (None, 0))
    expect(stops_after(stopping, numbers), len(numbers))
    expect((stopping.best, stopping.waited), (best, len(numbers) - 2))


def test_any_number_of_the_history_can_be_watched():
    expect(stops_after(EarlyStopping(1, monitor="val_accuracy", mode="max"), [0.5, 0.4], "val_accuracy"), 2)
    with expect_error(ValueError, "val_loss", "accuracy"):
        stops_after(EarlyStopping(1), [0.5], "accuracy")


@pytest.mark.parametrize("options", [{"patience": 0}, {"mode": "maximum"}])
def test_a_patience_of_nothing_and_an_unknown_mode_are_errors(options):
    expect(stops_after(EarlyStopping(1), [2, 2]), 2)
    with expect_error(ValueError, *map(str, options.values())):
        EarlyStopping(**options)


def test_early_stopping_goes_on_from_its_state():
    first, second = EarlyStopping(2), EarlyStopping(2)
    expect(stops_after(first, [1, 2]), None)
    second.load_state_dict(first.state_dict())
    expect(stops_after(second, [1.5]), 1)


def test_a_fit_ends_with_the_epoch_in_which_it_is_stopped():
    """The loss is weight * 0: it never gets better."""
    calls = []

    class Notes(Callback):
        def on_epoch_begin(self, trainer):
            calls.append(trainer.epoch)

    _, trainer = trained(scales(0), 10, callbacks=[EarlyStopping(2, monitor="loss"), Notes()])
    expect((calls, trainer.epoch, len(trainer.history["loss"]), trainer.stopped), ([0, 1, 2], 3, 3, True))


def test_patience_does_not_take_back_that_another_has_stopped_the_fit():
    class Stops(Callback):
        def on_batch_end(self, trainer):
            trainer.stopped = True

    _, trainer = trained(scales(1), 3, callbacks=[Stops(), EarlyStopping(2, monitor="loss")])
    expect((trainer.epoch, trainer.stopped), (1, True))


# 10.13 Progress


def shown(terminal=False, epochs=2, loss=cross_entropy, **options):
    file = io.StringIO()
    console = rich.console.Console(file=file, width=120, force_terminal=terminal, color_system=None)
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(4, 3)), np.array([0, 1, 0, 1])) for _ in range(5)]
    model = Linear(3, 2, rng=rng)
    trainer = Trainer(model, SGD(model.parameters(), lr=0.1), loss, callbacks=[Progress(console)], **options)
    trainer.fit(batches, epochs, validation=batches)
    return file.getvalue(), trainer


def test_each_epoch_leaves_a_line_with_its_numbers():
    text, trainer = shown()
    lines = [line for line in text.splitlines() if line.strip()]
    for epoch in (1, 2):
        (line,) = [line for line in lines if f"{epoch}/2" in line and "val_loss" in line]
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            number = re.search(rf"\b{name}\W*([\d.]+)", line)
            assert number, f"{name} is missing in {line!r}"
            expect(float(number[1]), trainer.history[name][epoch - 1], atol=0.006)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_bar_shows_loss_accuracy_images_a_second_and_the_time_left(terminal):
    text, _ = shown(terminal)
    bar = [line for line in re.split(r"[\r\n]", text) if "images/s" in line][-1]
    for word in ("loss", "accuracy", "0:00:00", "2/2"):
        assert word in bar, f"{word} is missing in {bar!r}"
    speed = re.search(r"([\d.,]+) images/s", bar)
    assert speed, f"there is no number of images a second in {bar!r}"
    assert 0 < float(speed[1].replace(",", "")) < 1e8, bar


def test_a_bar_counts_images_of_this_epoch_only():
    """Each batch of 4 takes 20 ms at least: there cannot be more than 200 images a second."""

    def slow(outputs, labels):
        time.sleep(0.02)
        return cross_entropy(outputs, labels)

    text, _ = shown(terminal=True, epochs=3, loss=slow)
    for speed in re.findall(r"(\d+) images/s", text):
        assert int(speed) <= 200, f"{speed} images a second"


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_bar_counts_the_steps_of_all_epochs(accumulate, monkeypatch):
    """Five batches an epoch make five steps, or three where two make one."""
    seen = []
    stop = rich.progress.Progress.stop

    def noted(self):
        seen.append((self.tasks[0].completed, self.tasks[0].total))
        stop(self)

    monkeypatch.setattr(rich.progress.Progress, "stop", noted)
    shown(epochs=2, accumulate=accumulate)
    steps = 2 * -(-5 // accumulate)
    expect(seen[-1], (steps, steps))


def test_a_bar_of_a_fit_that_goes_on_begins_in_the_middle(monkeypatch):
    """Two epochs of five steps are done already; the bar is over all four."""
    seen = []
    stop = rich.progress.Progress.stop

    def noted(self):
        seen.append((self.tasks[0].completed, self.tasks[0].total))
        stop(self)

    _, trainer = shown(epochs=2)
    monkeypatch.setattr(rich.progress.Progress, "stop", noted)
    batches = [(np.ones((4, 3)), np.array([0, 1, 0, 1]))] * 5
    trainer.fit(batches, 4, validation=batches)
    expect(seen[-1], (20, 20))


def test_a_bar_that_an_exception_ends_leaves_the_console_free():
    console = rich.console.Console(file=io.StringIO(), force_terminal=True)
    model = Scale()
    trainer = Trainer(model, SGD(model.parameters(), lr=1.0), product, callbacks=[Progress(console)])
    trainer.callbacks[0].on_fit_end(trainer)  # of one that has not begun, there is nothing to stop
    for _ in range(2):  # rich refuses a second bar while there is one
        with pytest.raises(ZeroDivisionError):
            trainer.fit(fails_after(1), 1)


def fails_after(count):
    class Batches:
        def __len__(self):
            return 5

        def __iter__(self):
            yield from scales(*[1] * count)
            raise ZeroDivisionError

    return Batches()


# 10.14 evaluating, validate


def test_inside_of_evaluating_nothing_trains_and_nothing_is_recorded():
    net = Sequential(Dropout(0.5, rng=np.random.default_rng(0)), Scale())
    net[1].training = False  # frozen, as people freeze batch norm
    with evaluating(net):
        expect([m.training for m in net.modules()], [False] * 3)
        expect(autograd.is_grad_enabled(), False)
    expect([m.training for m in net.modules()], [True, True, False])
    expect(autograd.is_grad_enabled(), True)


def test_a_model_is_as_before_also_if_validation_fails():
    model, trainer = trained(scales(1))
    with pytest.raises(ZeroDivisionError):
        trainer.validate(fails_after(1))
    expect((model.training, autograd.is_grad_enabled()), (True, True))
    model.eval()
    trainer.validate(scales(1))
    expect(model.training, False)


def test_validation_is_a_mean_over_rows_not_over_batches():
    """Losses of 1, 1, 1 and 4, and answers that are right, right, right and wrong: three rows, then one."""
    model, batches = Scale(), []
    trainer = Trainer(model, SGD(model.parameters(), lr=1.0), lambda o, t: total(o) / (2 * len(t)))
    batches.append((np.array([[0.0, 2.0]] * 3), np.array([1, 1, 1])))
    batches.append((np.array([[0.0, 8.0]]), np.array([0])))
    expect(trainer.validate(batches), {"loss": 7 / 4, "accuracy": 3 / 4})
    expect(model.modes, [(False, False)] * 2)
    expect(model.weight.data, np.array([1.0]))


def test_a_validation_within_an_epoch_leaves_its_means_alone():
    """A loss of 1 * 1 in training, and of 5 in between."""
    _, trainer = trained([], 0, lr=0.0)
    trainer.train_batch(scales(1))
    expect(trainer.validate(scales(5)), {"loss": 5.0})
    expect(trainer.logs, {"loss": 1.0})


def test_targets_that_are_no_labels_have_no_accuracy():
    model = Scale()
    trainer = Trainer(model, SGD(model.parameters(), lr=1.0), mse_loss)
    expect(trainer.validate([(f32([1, 3]), f32([2, 1]))]), {"loss": 2.5})


# 10.15 train_batch


def test_a_step_goes_down_the_gradient_of_its_batch_alone():
    model, trainer = trained(scales(1, 2, 4))
    expect(model.weight.data, np.array([-6.0]))  # forgetting zero_grad gives 1 - 1 - 3 - 7
    expect((trainer.step, trainer.rows, trainer.epoch), (3, 3, 1))


def test_the_gradient_stays_for_those_who_want_to_look():
    model, trainer = trained(scales(5))
    expect(trainer.train_batch(scales(3)), 1)
    expect(model.weight.grad, np.array([3.0]))


def test_a_step_returns_how_many_rows_it_was_made_on():
    _, trainer = trained(scales(5), accumulate=3)
    for batches, count in (([rows(1, 2, 3)], 3), ([rows(1, 2, 3), rows(4)], 4), ([], 0)):
        expect(trainer.train_batch(iter(batches)), count)


def test_without_a_batch_nothing_happens():
    model, trainer = trained(scales(5), scheduler_per="step")
    before = model.weight.data.copy()
    expect(trainer.train_batch(iter([])), 0)
    expect((trainer.step, model.weight.data), (1, before))
    expect(model.weight.grad, np.array([5.0]))


def rows(*factors):
    return np.array([[float(f)] for f in factors]), np.zeros(len(factors))


@pytest.mark.parametrize(
    ("batches", "accumulate", "weight"),
    [
        (scales(1, 2, 4, 8), 2, 1 - 1.5 - 6),
        (scales(1, 2, 4, 8), 4, 1 - 3.75),
        (scales(1, 2, 4), 2, 1 - 1.5 - 4),  # at the end of an epoch, fewer
        (scales(1, 2, 4), 5, 1 - 7 / 3),
        ([rows(1, 2, 3), rows(10)], 2, 1 - 4.0),  # the mean of 16, not of 2 and 10
        ([rows(1, 2, 3), rows(10), rows(4, 6), rows(2)], 2, 1 - 4.0 - 4.0),
    ],
)
def test_batches_that_make_one_step_count_as_one_batch(batches, accumulate, weight):
    model, trainer = trained(batches, accumulate=accumulate)
    expect(model.weight.data, np.array([weight]))
    expect(trainer.step, -(-len(batches) // accumulate))


def test_gradients_are_clipped_when_all_of_them_are_there():
    model, _ = trained(scales(3, 5), accumulate=2, max_norm=1.0)
    expect(model.weight.data, np.array([0.0]), atol=1e-6)  # clipped one by one: 1 - 1 of 1 and 1, or less
    model, _ = trained(scales(3, -1), accumulate=2, max_norm=2.0)
    expect(model.weight.data, np.array([0.0]))  # a mean of 1 needs no clipping
    model, _ = trained(scales(0.5), max_norm=2.0)
    expect(model.weight.data, np.array([0.5]))
    model, _ = trained(scales(4), max_norm=0.0)
    expect(model.weight.data, np.array([1.0]))


def test_a_loss_may_have_parameters_of_its_own():
    """loss = w x s: with w = 1 and x = 2, 4 the mean gradient of s is 3; it is the step's alone."""
    model, own = Scale(), Parameter(np.array([1.0]))
    optimizer = SGD([model.weight, own], lr=0.0)
    trainer = Trainer(model, optimizer, lambda o, t: total(o * own) / len(t), accumulate=2, max_norm=100.0)
    for _ in range(2):
        trainer.train_batch(scales(2, 4))
        expect((own.grad, model.weight.grad), (np.array([3.0]), np.array([3.0])))


def test_parameters_without_a_gradient_do_not_matter():
    model, idle = Scale(), Parameter(f32(1))
    optimizer = SGD([model.weight, idle], lr=1.0, weight_decay=0.5)
    Trainer(model, optimizer, product, accumulate=2, max_norm=10.0).fit(scales(1, 1), 1)
    expect(idle.data, f32(1))


@pytest.mark.parametrize("accumulate", [0, -1])
def test_a_step_takes_at_least_one_batch(accumulate):
    trained(scales(1))
    with expect_error(ValueError, str(accumulate)):
        trained(scales(1), accumulate=accumulate)


# 10.16 fit


class Halved(StepLR):
    def __init__(self, optimizer):
        super().__init__(optimizer, 1, 0.5)


@pytest.mark.parametrize(
    ("per", "weight", "rates"),
    [(None, -5.0, [1.0, 0.5]), ("epoch", -5.0, [1.0, 0.5]), ("step", -2.75, [0.25, 0.0625])],
)
def test_a_schedule_moves_after_each_epoch_or_each_step_if_told_so(per, weight, rates):
    """Two epochs of two steps of 2 (1 + 1 + 0.5 + 0.5, or 1 + 0.5 + 0.25 + 0.125 times 2), from 1."""
    model = Scale()
    optimizer = SGD(model.parameters(), lr=1.0)
    trainer = Trainer(model, optimizer, product, scheduler=Halved(optimizer), scheduler_per=per)
    trainer.fit(scales(2, 2), 2)
    expect(model.weight.data, np.array([weight]))
    expect(trainer.history["lr"], rates)


def test_one_cycle_moves_with_each_step_of_the_optimizer():
    model = Scale()
    optimizer = SGD(model.parameters(), lr=1.0, momentum=0.9)
    schedule = OneCycleLR(optimizer, 1.0, total_steps=4)
    Trainer(model, optimizer, product, scheduler=schedule, accumulate=2).fit(scales(*[0] * 8), 1)
    expect(schedule.last_epoch, 4)


def test_the_first_step_has_the_first_rate():
    """A schedule that is moved first loses it: here from 0.25 of the rate to all of it, in three steps."""
    model = Scale()
    optimizer = SGD(model.parameters(), lr=1.0)
    warm = LinearLR(optimizer, 0.25, total_iters=3)
    Trainer(model, optimizer, product, scheduler=warm, scheduler_per="step").fit(scales(1, 1), 1)
    expect(model.weight.data, np.array([1 - 0.25 - 0.5]))


def test_an_unknown_pace_is_named():
    trained(scales(1))
    with expect_error(ValueError, "batch"):
        trained(scales(1), scheduler_per="batch")


def test_the_history_has_means_over_the_rows_of_each_epoch():
    """Losses 1 * 1, then 0 * (2, 3, 7), as the weight was before the step: three rows count three times."""
    _, trainer = trained([rows(1), rows(2, 3, 7)], 2, lr=1.0)
    first, second = trainer.history["loss"]
    expect(first, (1.0 + 3 * 0.0) / 4)
    expect(second, (-4.0 + 3 * 4 * -5.0) / 4)  # the weight is 0 - 4, and then -4 - 1
    expect(sorted(trainer.history), ["loss", "lr"])


def test_the_history_has_the_validation_of_each_epoch():
    _, trainer = trained(scales(1), 3, validation=scales(2))
    expect(trainer.history["val_loss"], [0.0, -2.0, -4.0])
    expect(trainer.history["loss"], [1.0, 0.0, -1.0])


def test_training_is_in_training_mode_also_after_a_validation():
    model, _ = trained(scales(1), 2, validation=scales(2))
    expect(model.modes, [(True, True), (False, False)] * 2)


def test_accuracy_is_measured_where_there_are_labels(rng):
    model = Linear(3, 2, rng=rng)
    model.weight.data[...], model.bias.data[...] = [[1, 0, 0], [0, 1, 0]], 0
    x = f32([2, 1, 0], [1, 2, 0], [2, 1, 0], [2, 1, 0])
    batches = [(x[:3], np.array([0, 1, 1])), (x[3:], np.array([0]))]
    trainer = Trainer(model, SGD(model.parameters(), lr=0.0), cross_entropy)
    expect(trainer.fit(batches, 1)["accuracy"], [0.75])


def test_callbacks_are_called_in_order_with_what_they_need():
    calls = []

    class Notes(Callback):
        def __init__(self, name):
            self.name = name

        def note(self, hook, trainer):
            calls.append((self.name, hook, trainer.epoch, trainer.step, dict(trainer.logs)))

        def on_fit_begin(self, trainer):
            self.note("fit begin", trainer)

        def on_epoch_begin(self, trainer):
            self.note("epoch begin", trainer)

        def on_batch_end(self, trainer):
            self.note("batch end", trainer)

        def on_epoch_end(self, trainer):
            expect([len(numbers) for numbers in trainer.history.values()], [trainer.epoch] * 3)
            self.note("epoch end", trainer)

        def on_fit_end(self, trainer):
            self.note("fit end", trainer)

    trained(
        scales(1, 2, 4), 2, lr=0.0, accumulate=2, callbacks=[Notes("a"), Notes("b")], validation=scales(1)
    )
    once = [
        ("fit begin", 0, 0, {}),
        ("epoch begin", 0, 0, {}),
        ("batch end", 0, 1, {"loss": 1.5}),
        ("batch end", 0, 2, {"loss": 7 / 3}),
        ("epoch end", 1, 2, {}),
        ("epoch begin", 1, 2, {}),
        ("batch end", 1, 3, {"loss": 1.5}),
        ("batch end", 1, 4, {"loss": 7 / 3}),
        ("epoch end", 2, 4, {}),
        ("fit end", 2, 4, {}),
    ]
    expect(calls, [(name, *call) for call in once for name in "ab"])


def test_a_fit_that_fails_still_says_that_it_ends():
    ends = []

    class Notes(Callback):
        def on_fit_end(self, trainer):
            ends.append(trainer.step)

    model = Scale()
    trainer = Trainer(model, SGD(model.parameters(), lr=1.0), product, callbacks=[Notes()])
    with pytest.raises(ZeroDivisionError):
        trainer.fit(fails_after(3), 1)
    expect(ends, [3])


@pytest.mark.parametrize("where", ["loss", "callback"])
def test_an_error_in_a_fit_closes_the_iterator_of_its_loader(where):
    """The traceback holds on to the loop's variables, and so would to an iterator and its thread."""
    open_ones = []

    class Batches:
        def __len__(self):
            return 5

        def __iter__(self):
            open_ones.append(1)
            try:
                yield from scales(*[1] * 5)
            finally:
                open_ones.pop()

    class Fails(Callback):
        def on_batch_end(self, trainer):
            raise ZeroDivisionError

    def loss(outputs, targets):
        return 1 / 0 if where == "loss" else product(outputs, targets)

    model = Scale()
    trainer = Trainer(model, SGD(model.parameters(), lr=1.0), loss, callbacks=[Fails()])
    with pytest.raises(ZeroDivisionError) as caught:
        trainer.fit(Batches(), 1)
    expect(open_ones, [])
    assert caught.value.__traceback__ is not None
    trainer.loss_fn = product
    trainer.callbacks.clear()
    trainer.fit(Batches(), 1)
    expect((trainer.epoch, open_ones), (1, []))


def test_a_fit_that_is_stopped_within_an_epoch_ends_with_it():
    class Stops(Callback):
        def on_batch_end(self, trainer):
            trainer.stopped = True

    _, trainer = trained(scales(1, 2, 3), 5, callbacks=[Stops()])
    expect((trainer.epoch, trainer.step, len(trainer.history["loss"])), (1, 3, 1))


def test_the_history_has_the_rate_of_the_first_group():
    model, other = Scale(), Parameter(np.ones(1))
    optimizer = SGD([{"params": model.parameters(), "lr": 0.5}, {"params": [other], "lr": 0.25}], lr=1.0)
    expect(Trainer(model, optimizer, product).fit(scales(1), 1)["lr"], [0.5])


def test_epochs_are_counted_in_all():
    """fit(..., 2) and then fit(..., 5) makes three more; and the history goes on."""
    _, trainer = trained(scales(1), 2)
    expect(trainer.fit(scales(1), 2)["loss"], [1.0, 0.0])
    history = trainer.fit(scales(1), 5)
    expect(
        (trainer.epoch, history["loss"], history is trainer.history), (5, [1.0, 0.0, -1.0, -2.0, -3.0], True)
    )


def test_a_fit_that_was_stopped_can_be_gone_on_with():
    _, trainer = trained(scales(0), 5, callbacks=[EarlyStopping(1, monitor="loss")])
    expect((trainer.epoch, trainer.stopped), (2, True))
    trainer.callbacks.clear()
    trainer.fit(scales(0), 4)
    expect((trainer.epoch, trainer.stopped), (4, False))


def test_without_a_checkpoint_nothing_is_written_and_loaders_need_no_state():
    model = Scale()
    trainer = Trainer(model, SGD(model.parameters(), lr=1.0), product)
    trainer.fit(scales(1, 2), 1, every=1)
    expect(trainer.step, 2)


def test_a_fit_knows_how_long_it_will_be():
    _, trainer = trained(scales(1, 2, 3, 4, 5), 3, accumulate=2)
    model = Scale()
    expect(Trainer(model, SGD(model.parameters(), lr=1.0), product).stopped, False)
    expect((trainer.epochs, trainer.batches), (3, 3))


def test_inputs_reach_the_model_as_tensors_and_targets_as_they_are():
    seen = []

    class Looks(Scale):
        def forward(self, x):
            seen.append(type(x))
            return super().forward(x)

    model = Looks()
    targets = np.zeros(1)

    def loss(outputs, given):
        assert given is targets
        return total(outputs)

    batches = [(np.ones((1, 1)), targets)]
    Trainer(model, SGD(model.parameters(), lr=1.0), loss).fit(batches, 1, validation=batches)
    expect(seen, [Tensor, Tensor])


# 10.17 generators, state_dict, load_state_dict: see also level 2


class Noisy(Module):
    """Three generators, in three ways."""

    def __init__(self):
        self.rng = np.random.default_rng(1)
        self.inner = Sequential(Dropout(0.5, rng=np.random.default_rng(2)), Scale())
        self.other = np.random.default_rng(3)

    def forward(self, x):
        return self.inner(x)


def test_all_generators_of_a_model_are_found():
    model, extra = Noisy(), np.random.default_rng(4)
    trainer = Trainer(model, SGD(model.parameters(), lr=1.0), product, generators=[extra])
    wanted = {id(rng) for rng in (model.rng, model.other, model.inner[0].rng, extra)}
    expect({id(rng) for rng in trainer.generators()}, wanted)


def parts(**options):
    model = Sequential(Linear(2, 2, rng=np.random.default_rng(0)), Dropout(0.5, rng=np.random.default_rng(1)))
    optimizer = Adam(model.parameters(), lr=0.1)
    if options.pop("scheduled", True):
        options["scheduler"] = StepLR(optimizer, 2)
    return Trainer(model, optimizer, mse_loss, **{"callbacks": [EarlyStopping(monitor="loss")], **options})


def test_a_trainer_goes_on_from_the_state_of_another(rng):
    batches = [(rng.normal(size=(3, 2)), rng.normal(size=(3, 2))) for _ in range(3)]
    first, second = parts(), parts()
    first.fit(batches, 3)
    state = first.state_dict()
    second.load_state_dict(state)
    expect((second.epoch, second.step, second.rows), (3, 9, 27))
    expect(second.history, first.history)
    for _ in range(2):
        first.fit(batches, first.epoch + 1)
        second.fit(batches, second.epoch + 1)
        expect(flat(second.model.state_dict()), flat(first.model.state_dict()))
        expect(second.history, first.history)
        expect(second.callbacks[0].state_dict(), first.callbacks[0].state_dict())


def test_two_histories_stay_two(rng):
    batches = [(rng.normal(size=(3, 2)), rng.normal(size=(3, 2)))]
    first, second = parts(), parts()
    first.fit(batches, 1)
    second.load_state_dict(first.state_dict())
    second.fit(batches, 2)
    expect((len(first.history["loss"]), len(second.history["loss"])), (1, 2))


def test_a_loaded_epoch_goes_on_by_itself(rng):
    """Of an epoch that was left after one of two batches, losses 1 and 3: both have a mean of their own."""
    first, second = (trained([], 0, lr=0.0)[1] for _ in range(2))
    first.train_batch(scales(1))
    saved = first.state_dict()
    second.load_state_dict(saved)
    second.train_batch(scales(3))
    expect((first.logs, second.logs), ({"loss": 1.0}, {"loss": 2.0}))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"callbacks": []}, "callbacks"),
        ({"generators": [np.random.default_rng(0)]}, "generators"),
        ({"scheduled": False}, "scheduler"),
    ],
)
def test_a_state_of_another_kind_of_trainer_is_refused(options, named):
    for one, other in ((parts(), parts(**options)), (parts(**options), parts())):
        with expect_error(ValueError, named):
            one.load_state_dict(other.state_dict())


# 10.16 fit, 10.18 resume: checkpoints


def counted(folder, epochs, every=None, count=3):
    """A fit of `count` batches an epoch; the steps at which the file was found to be another."""
    path, steps = folder / "run.npz", []
    seen = [None]

    class Looks(Callback):
        def look(self, trainer):
            now = path.read_bytes() if path.exists() else None
            if now != seen[0]:
                steps.append(trainer.step)
            seen[0] = now

        on_epoch_begin = on_batch_end = on_fit_end = look

    model = Linear(2, 1, rng=np.random.default_rng(0))
    data = np.random.default_rng(1).normal(size=(count, 2))
    loader = DataLoader(TensorDataset(data, data[:, :1]), 1)
    trainer = Trainer(model, SGD(model.parameters(), lr=0.1), mse_loss, callbacks=[Looks()])
    trainer.fit(loader, epochs, checkpoint=path, every=every)
    return trainer, steps


def test_a_checkpoint_is_written_after_each_epoch(tmp_path):
    trainer, _ = counted(tmp_path, 2)
    expect(sorted(file.name for file in tmp_path.iterdir()), ["run.npz", "run.npz.previous"])
    expect((trainer.epoch, trainer.step), (2, 6))


def test_a_checkpoint_is_written_after_every_so_many_steps(tmp_path):
    """Every two of six, and at the end of both epochs: after 2, 3, 4 and 6, seen at the next call."""
    _, steps = counted(tmp_path, 2, every=2)
    expect(steps, [3, 3, 5, 6])


def test_the_same_line_again_does_nothing_when_all_is_done(tmp_path):
    first, _ = counted(tmp_path, 2)
    again, _ = counted(tmp_path, 2)
    expect((again.epoch, again.step), (2, 6))
    expect(flat(again.model.state_dict()), flat(first.model.state_dict()))
    expect(again.history, first.history)


def test_more_epochs_go_on_where_the_last_run_ended(tmp_path):
    one = counted(tmp_path, 4)[0]
    (tmp_path / "b").mkdir()
    counted(tmp_path / "b", 1)
    two = counted(tmp_path / "b", 4)[0]
    expect(flat(two.model.state_dict()), flat(one.model.state_dict()))
    expect((two.history, two.step), (one.history, 12))


def test_a_checkpoint_that_does_not_fit_is_refused_before_anything_is_trained(tmp_path):
    counted(tmp_path, 1)
    model = Linear(3, 1, rng=np.random.default_rng(0))
    before = model.weight.data.copy()
    loader = DataLoader(TensorDataset(np.zeros((3, 3)), np.zeros((3, 1))), 1)
    trainer = Trainer(model, SGD(model.parameters(), lr=0.1), mse_loss, callbacks=[Callback()])
    with expect_error(ValueError, "weight"):
        trainer.fit(loader, 2, checkpoint=tmp_path / "run.npz")
    expect(model.weight.data, before)


# 10.19 memory_by_part


def test_memory_by_part_counts_bytes():
    """Weights of 3 * 4 + 4 and 4 * 2 + 2 numbers; kept are relu's result (5, 4), for relu and for the second
    layer, and the outputs (5, 2), for their square."""
    rng = np.random.default_rng(0)
    net = Sequential(Linear(3, 4, rng=rng), ReLU(), Linear(4, 2, rng=rng))
    optimizer = Adam(net.parameters())
    batch = rng.random((5, 3), np.float32), np.zeros(5)

    def loss(outputs, targets):
        return total(outputs * outputs)

    got = memory_by_part(net, optimizer, loss, *batch)
    expect(got["weights"], 4 * 26)
    expect(got["gradients"], 4 * 26)
    expect((got["buffers"], got["optimizer"]), (0, 0))
    expect(got["activations"], 4 * (5 * 4 + 5 * 2))
    Trainer(net, optimizer, loss).fit([batch], 1)
    expect(memory_by_part(net, optimizer, loss, *batch)["optimizer"], 4 * 2 * 26)


def test_frozen_weights_have_no_gradient_and_buffers_are_counted_apart():
    net = Sequential(BatchNorm2d(3), Scale())
    net[0].requires_grad_(False)
    optimizer = SGD(net.parameters(), lr=1.0)
    got = memory_by_part(net, optimizer, lambda o, t: total(o), np.ones((2, 3, 1, 1), np.float32), None)
    expect((got["weights"], got["gradients"], got["buffers"]), (4 * 6 + 8, 8, 4 * 6 + 8))


def test_a_parameter_with_two_names_is_counted_once_and_is_no_buffer():
    """One number of 8 bytes, as in tied weights."""
    net = Sequential(Scale(), Scale())
    net[1].weight = net[0].weight
    optimizer = SGD(net.parameters(), lr=1.0)
    got = memory_by_part(net, optimizer, lambda o, t: total(o), np.ones((2, 1)), None)
    expect((got["weights"], got["gradients"], got["buffers"]), (8, 8, 0))


def test_memory_by_part_changes_no_weight_and_leaves_no_gradient():
    model, batch = Scale(), (np.ones((3, 1)), np.zeros(3))
    memory_by_part(model, SGD(model.parameters(), lr=1.0), product, *batch)
    expect(model.weight.data, np.array([1.0]))
    assert model.weight.grad is None


def test_targets_are_no_activations():
    """Of 100 rows of three classes the softmax is kept, and with it the labels, which were there before."""
    net, labels = Linear(2, 3, rng=np.random.default_rng(0)), np.zeros(100, int)
    optimizer = SGD(net.parameters(), lr=1.0)
    for targets in (labels, Tensor(labels), labels[::-1]):
        got = memory_by_part(net, optimizer, cross_entropy, np.ones((100, 2), np.float32), targets)
        expect(got["activations"], 100 * 3 * 4)


def test_memory_by_part_makes_one_forward_pass():
    model = Scale()
    memory_by_part(model, SGD(model.parameters(), lr=1.0), product, np.ones((3, 1)), np.zeros(3))
    expect(model.modes, [(True, True)])
    model.eval()
    memory_by_part(model, SGD(model.parameters(), lr=1.0), product, np.ones((3, 1)), np.zeros(3))
    expect(model.modes[1:], [(False, True)])


def test_a_piece_of_memory_counts_once_however_often_it_is_kept():
    """x * x keeps x twice; views of it are no memory of their own; and the input is not counted at all."""
    model = Scale()

    def squares(outputs, targets):
        flat = outputs.reshape(-1)
        return total(flat * flat) + total(outputs * outputs)

    got = memory_by_part(model, SGD(model.parameters(), lr=1.0), squares, np.ones((10, 2)), None)
    expect(got["activations"], 10 * 2 * 8)


def test_without_a_graph_there_are_no_activations():
    model = Scale()
    model.requires_grad_(False)
    got = memory_by_part(model, SGD(model.parameters(), lr=1.0), product, np.ones((3, 1)), np.zeros(3))
    expect(got["activations"], 0)
