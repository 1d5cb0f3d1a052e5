"""Kata 08 · Optimizers: what turns gradients into steps, and schedules for how large these are.

An optimizer walks over parameters; the rule by which one of them moves is its `update`. All rules go element
by element, write over the parameter, and work in arrays that are there: no array is made after the first
step. A schedule is a function from the number of steps to the learning rate, and nothing else.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tinytorch.layers import Parameter
from tinytorch.tensor import Array, increment_version

__all__ = [
    "SGD", "Adam", "AdamW", "CosineAnnealingLR", "LRScheduler", "LinearLR", "OneCycleLR", "Optimizer",
    "RMSprop", "SequentialLR", "StepLR", "clip_grad_norm_", "clip_grad_value_",
]  # fmt: skip

Group = dict[str, Any]  # "params", a list of parameters, and the options by which they move
State = dict[str, Any]  # of one parameter: arrays of its shape and dtype, and how many steps it has made

# What an option must be at least, and what it must stay below.
LIMITS = {
    "lr": (0, math.inf),
    "momentum": (0, math.inf),
    "dampening": (0, math.inf),
    "weight_decay": (0, math.inf),
    "eps": (0, math.inf),
    "alpha": (0, 1),
    "betas": (0, 1),
}


def check_options(options: Mapping[str, Any]) -> None:
    """ValueError, with its name and value, for an option that is out of its LIMITS."""
    # TODO 08.1: of `betas` each must be within; nan is within nothing.
    raise NotImplementedError("kata 08.1: check_options")


class Optimizer:
    """Moves parameters down their gradients.

    Parameters come in groups, each with options of its own; `defaults` are for those that a group does not
    give. `Optimizer([p, q], defaults)` is short for one group: `Optimizer([{"params": [p, q]}], defaults)`.

    Attributes:
        defaults: the options of this optimizer and their defaults.
        param_groups: dicts of "params", a list, and an option under each of its names.
        state: what it remembers of each parameter that it has moved.
    """

    def __init__(self, params: Iterable[Any], defaults: Mapping[str, Any]) -> None:
        self.defaults = dict(defaults)
        self.param_groups: list[Group] = []
        self.state: dict[Parameter, State] = {}
        self._scratch: dict[tuple[np.dtype[Any], int], Array] = {}
        groups = list(params)
        if not groups:
            raise ValueError(f"{type(self).__name__} was given no parameters")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.parameters())} parameters, {len(self.param_groups)} groups)"

    def parameters(self) -> list[Parameter]:
        """The parameters of all groups, in order."""
        return [p for group in self.param_groups for p in group["params"]]

    def check(self, options: Mapping[str, Any]) -> None:
        """ValueError for options that will not do. Subclasses ask for more."""
        check_options(options)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Optimise these parameters too: {"params": an iterable, and options that differ from the defaults}.

        TypeError, with its type, for what is no dict or no Parameter. ValueError, with its name, for an
        option that is unknown or (with its value) out of its limits, for "params" that are missing, and, with
        its shape, for a parameter that is there already. Then no group was added.
        """
        # TODO 08.2: parameters may come from a generator; `p in list` would compare elements, so use a set.
        raise NotImplementedError("kata 08.2: Optimizer.add_param_group")

    def zero_grad(self) -> None:
        """Forget all gradients: each `.grad` is None again."""
        # TODO 08.3: None, not zeros: a parameter that gets no gradient is then left alone.
        raise NotImplementedError("kata 08.3: Optimizer.zero_grad")

    def step(self) -> None:
        """Move each parameter that has a gradient and is not frozen; leave the others as they are.

        A gradient of another shape than its parameter is a ValueError that names both, and then none has
        moved.
        """
        # TODO 08.3: look first. `update` does the work on arrays; afterwards, report each array written to.
        raise NotImplementedError("kata 08.3: Optimizer.step")

    def update(self, data: Array, grad: Array, state: State, group: Group) -> None:
        """Move `data`, in place, by its gradient, its state and the options of its group.

        The state is empty at first. The gradient stays as it is.
        """
        raise NotImplementedError(f"{type(self).__name__}.update")

    def scratch(self, like: Array, number: int = 0) -> Array:
        """An array of the shape and dtype of `like` to work in, with numbers left over in it.

        Its memory is lent, to one parameter after the other, and grows to the largest; each `number` has its
        own.
        """
        # TODO 08.4: keep flat arrays by dtype and number, and hand out views.
        raise NotImplementedError("kata 08.4: Optimizer.scratch")

    def decay(self, data: Array, grad: Array, group: Group) -> Array:
        """The gradient with that of weight_decay / 2 * data**2 added: in scratch 1, or `grad` itself."""
        # TODO 08.5: without decay there is nothing to do.
        raise NotImplementedError("kata 08.5: Optimizer.decay")

    def state_dict(self) -> dict[str, Any]:
        """All that it takes to go on from here, as one flat dict of arrays and numbers.

        Options under "groups.0.lr", for group 0; what is remembered under "state.3.exp_avg", for the fourth
        of all parameters. The arrays that are there, not copies. So kata 05's `save` can write it.
        """
        # TODO 08.6: betas become an array of two.
        raise NotImplementedError("kata 08.6: Optimizer.state_dict")

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from where a state was taken: copy its arrays, in the parameters' dtypes, and its numbers.

        Numbers may have become arrays without axes, as in an .npz file. A ValueError names what is missing,
        what belongs to no group or parameter, and each whose shape or dtype does not fit, with both; then
        nothing at all has changed.
        """
        # TODO 08.7: look first, then change. What is not in the state was not there: forget it.
        raise NotImplementedError("kata 08.7: Optimizer.load_state_dict")


def buffer(state: State, name: str, like: Array) -> Array:
    """The array called `name` in a state; if there is none yet, zeros in the shape and dtype of `like`.

    Given. `state.setdefault(name, np.zeros_like(like))` would make the zeros at every call.
    """
    if name not in state:
        state[name] = np.zeros_like(like)
    array: Array = state[name]
    return array


class SGD(Optimizer):
    """Stochastic gradient descent: data -= lr * grad, and nothing is remembered.

    With momentum, grad is replaced by buffer = momentum * buffer + (1 - dampening) * grad, which begins as
    the first gradient itself, and is remembered as `momentum_buffer`; with nesterov, by
    grad + momentum * buffer.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "dampening": dampening}
        super().__init__(params, {**options, "weight_decay": weight_decay, "nesterov": nesterov})

    def check(self, options: Mapping[str, Any]) -> None:
        super().check(options)
        if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
            raise ValueError("nesterov takes a momentum above 0 and a dampening of 0")

    def update(self, data: Array, grad: Array, state: State, group: Group) -> None:
        # TODO 08.8: multiply into scratch, subtract from `data`. What is remembered of the first gradient is
        # a copy.
        raise NotImplementedError("kata 08.8: SGD.update")


def running_mean(mean: Array, value: Array, keep: float, scratch: Array) -> None:
    """mean = keep * mean + (1 - keep) * value, in place. `value` stays, unless it is the scratch array."""
    # TODO 08.9: two multiplications and an addition, each with a place to go.
    raise NotImplementedError("kata 08.9: running_mean")


def running_square(mean: Array, value: Array, keep: float, scratch: Array) -> None:
    """mean = keep * mean + (1 - keep) * value**2, in place. `value` stays, unless it is the scratch array."""
    # TODO 08.9: value * value: numpy's ** may be many times slower.
    raise NotImplementedError("kata 08.9: running_square")


class RMSprop(Optimizer):
    """Divides the gradient by the root of a running mean of its squares, `square_avg`, plus eps.

    A step keeps `alpha` of that mean. Centered, the square of a running mean of the gradient, `grad_avg`, is
    subtracted from it, which makes it a variance. With momentum, what moves the data is not the quotient but
    momentum_buffer = momentum * momentum_buffer + quotient, which begins at 0.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        options = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "momentum": momentum, "centered": centered})

    def update(self, data: Array, grad: Array, state: State, group: Group) -> None:
        # TODO 08.10: rounding can leave the variance a little below 0, which has no root.
        raise NotImplementedError("kata 08.10: RMSprop.update")


class Adam(Optimizer):
    """Divides a running mean of the gradient, `exp_avg`, by the root of one of its squares, `exp_avg_sq`.

    A step keeps betas[0] of the one and betas[1] of the other. They begin at 0, and after `step` steps each
    has 1 - beta**step of its weight in it: it is divided by that first. eps is added to the root.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def update(self, data: Array, grad: Array, state: State, group: Group) -> None:
        # TODO 08.11: with c for 1 - beta2**step, sqrt(square / c) + eps is
        # (sqrt(square) + eps * sqrt(c)) / sqrt(c): then only numbers are divided by c, not arrays.
        raise NotImplementedError("kata 08.11: Adam.update")


class AdamW(Adam):
    """Adam with decoupled decay: data shrinks by lr * weight_decay of itself, and its gradient knows nothing.

    In Adam, decay is part of the gradient, and is divided by its size with the rest of it.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def decay(self, data: Array, grad: Array, group: Group) -> Array:
        """Shrink `data`, in place; the gradient is given back as it is."""
        # TODO 08.12: one multiplication.
        raise NotImplementedError("kata 08.12: AdamW.decay")


def clip_grad_norm_(params: Iterable[Parameter], max_norm: float) -> float:
    """Scale all gradients by one factor, in place, to a norm of max_norm at most; return what it was.

    The norm is that of all gradients as one vector, the factor max_norm / (norm + 1e-6), or 1 if that is
    less. Parameters without a gradient are passed over; a norm that is not finite scales nothing. ValueError,
    with its value, for a max_norm that is below 0 or nan.
    """
    # TODO 08.13: np.vdot makes no array of squares.
    raise NotImplementedError("kata 08.13: clip_grad_norm_")


def clip_grad_value_(params: Iterable[Parameter], clip_value: float) -> None:
    """Bring each element of each gradient into [-clip_value, clip_value], in place.

    ValueError, with its value, for a clip_value that is below 0 or nan.
    """
    # TODO 08.14: np.clip takes an out.
    raise NotImplementedError("kata 08.14: clip_grad_value_")


class LRScheduler:
    """Sets the learning rate of each group by the number of steps, as `lr_at` says; at once, that of step 0.

    One schedule an optimizer: each sets the learning rate, whatever it was. SequentialLR makes one of many.

    Attributes:
        optimizer: whose groups are set.
        last_epoch: how many steps were made.
        base_lrs: for each group, what `lr_at` scales: its learning rate before there was any schedule, which
            stays in the group as "initial_lr".
    """

    def __init__(self, optimizer: Optimizer, base_lrs: Sequence[float] | None = None) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"a schedule takes an Optimizer, not a {type(optimizer).__name__}")
        if base_lrs is None:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
            base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.optimizer = optimizer
        self.base_lrs = list(base_lrs)
        self.last_epoch = 0
        self.apply()

    def lr_at(self, epoch: int, base_lr: float) -> float:
        """The learning rate after `epoch` steps."""
        raise NotImplementedError(f"{type(self).__name__}.lr_at")

    def apply(self) -> None:
        """Set the learning rates that belong to `last_epoch`. ValueError if a group came later."""
        # TODO 08.15: a group for each of base_lrs.
        raise NotImplementedError("kata 08.15: LRScheduler.apply")

    def step(self) -> None:
        """One step further; call it after the optimizer's."""
        # TODO 08.15: count, and set.
        raise NotImplementedError("kata 08.15: LRScheduler.step")

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What moves, as a flat dict of arrays and numbers; what the schedule was made with is not in it."""
        # TODO 08.15: the count, and base_lrs as an array.
        raise NotImplementedError("kata 08.15: LRScheduler.state_dict")

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from where a state was taken, and set the learning rates that belong there.

        ValueError, with both numbers, for another number of groups.
        """
        # TODO 08.15: numbers may come back from a file as arrays without axes.
        raise NotImplementedError("kata 08.15: LRScheduler.load_state_dict")


def at_least(least: int, **options: int) -> None:
    """ValueError, with its name and value, for an option below `least`. Given."""
    for name, value in options.items():
        if value < least:
            raise ValueError(f"{name}={value} will not do: it takes {name} >= {least}")


class StepLR(LRScheduler):
    """Multiplies the learning rate by gamma every step_size steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        at_least(1, step_size=step_size)
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        # TODO 08.16: how many times was it multiplied?
        raise NotImplementedError("kata 08.16: StepLR.lr_at")


class LinearLR(LRScheduler):
    """From start_factor to end_factor times the base, in total_iters equal steps: a warm-up."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
    ) -> None:
        at_least(1, total_iters=total_iters)
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        # TODO 08.16: and then it stays.
        raise NotImplementedError("kata 08.16: LinearLR.lr_at")


def cosine(start: float, end: float, done: float) -> float:
    """From `start`, where done is 0, to `end`, where it is 1, along half a wave: flat at both ends."""
    # TODO 08.16: cos goes from 1 to -1 in pi.
    raise NotImplementedError("kata 08.16: cosine")


class CosineAnnealingLR(LRScheduler):
    """From the base to eta_min in T_max steps along half a wave, and then up again along the other half."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        at_least(1, T_max=T_max)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        # TODO 08.16: half a wave.
        raise NotImplementedError("kata 08.16: CosineAnnealingLR.lr_at")


class OneCycleLR(LRScheduler):
    """Up to max_lr, then down to almost nothing, in total_steps steps; and momentum the other way round.

    The learning rate starts at max_lr / div_factor, peaks at step pct_start * total_steps - 1, and ends, at
    step total_steps - 1, at 1 / final_div_factor of its start. With cycle_momentum, momentum (or betas[0])
    starts at max_momentum, meets the peak with base_momentum, and ends at max_momentum. In between both go
    along half a wave ("cos") or a line ("linear"). `max_lr` is a number, or a list of one for each group.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        at_least(1, total_steps=total_steps)
        if not 0 <= pct_start < 1:
            raise ValueError(f"pct_start={pct_start} will not do: it takes 0 <= pct_start < 1")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy={anneal_strategy!r} will not do: it takes 'cos' or 'linear'")
        self.total_steps, self.pct_start, self.anneal_strategy = total_steps, pct_start, anneal_strategy
        self.momenta = (max_momentum, base_momentum, max_momentum) if cycle_momentum else None
        self.factors = (1 / div_factor, 1.0, 1 / (div_factor * final_div_factor))
        groups = len(optimizer.param_groups)
        peaks = [max_lr] * groups if isinstance(max_lr, (int, float)) else list(max_lr)
        if len(peaks) != groups:
            raise ValueError(f"max_lr has {len(peaks)} numbers for {groups} groups")
        super().__init__(optimizer, peaks)

    def between(self, epoch: int, start: float, peak: float, end: float) -> float:
        """The value after `epoch` steps of what goes from `start` over `peak` to `end`, and stays there."""
        # TODO 08.17: the first part ends at pct_start * total_steps - 1, which need not be a whole number.
        raise NotImplementedError("kata 08.17: OneCycleLR.between")

    def lr_at(self, epoch: int, base_lr: float) -> float:
        return base_lr * self.between(epoch, *self.factors)

    def apply(self) -> None:
        """Set the learning rates and momenta that belong to `last_epoch`.

        After total_steps steps, one more is a ValueError with that number.
        """
        # TODO 08.17: the momentum of Adam is its first beta.
        raise NotImplementedError("kata 08.17: OneCycleLR.apply")


class SequentialLR(LRScheduler):
    """One schedule after the other: the first until step milestones[0], where the second begins, and so on.

    Each begins anew, at its step 0. ValueError for milestones that do not grow, or are not one fewer than the
    schedules, and for schedules of another optimizer.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]
    ) -> None:
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(f"{len(schedulers)} schedules take one milestone fewer, not {len(milestones)}")
        if any(later <= earlier for earlier, later in zip([0, *milestones], milestones, strict=False)):
            raise ValueError(f"milestones {list(milestones)} do not grow")
        if any(one.optimizer is not optimizer for one in schedulers):
            raise ValueError("all schedules must be of one optimizer")
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        super().__init__(optimizer)

    def apply(self) -> None:
        # TODO 08.18: which one is it, and at which step of its own? bisect knows.
        raise NotImplementedError("kata 08.18: SequentialLR.apply")

    def state_dict(self) -> dict[str, Any]:
        """Its own, and that of schedule 1 under "1.last_epoch" and so on."""
        # TODO 08.18: flat again.
        raise NotImplementedError("kata 08.18: SequentialLR.state_dict")

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        # TODO 08.18: first the schedules, then what sets the one that is at work.
        raise NotImplementedError("kata 08.18: SequentialLR.load_state_dict")
