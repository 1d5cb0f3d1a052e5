"""Kata 10 · Training: losses, the loop around a step, and checkpoints from which it goes on as if nothing had
been.

A loss is one number for a batch, and its gradient is where everything before begins. Around the step that
follows from it there is a loop, which knows nothing of the network in it. All that this loop depends on,
weights, moments, positions and generators, can be written down; so a run that was killed can be taken up,
and ends with the very weights that it would have ended with.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import rich.progress

from tinytorch.activations import below_largest
from tinytorch.autograd import Node, no_grad, source_of, topological
from tinytorch.layers import Module, parameter_bytes
from tinytorch.optimizers import LRScheduler, OneCycleLR, Optimizer, clip_grad_norm_
from tinytorch.tensor import Array, Tensor, as_array, floating, increment_version, op, promote

__all__ = [
    "EMA", "Callback", "EarlyStopping", "Progress", "Trainer", "accuracy", "confusion_matrix",
    "cross_entropy", "evaluating", "load_checkpoint", "memory_by_part", "mse_loss", "pack",
    "save_checkpoint", "unpack",
]  # fmt: skip

REDUCTIONS = ("mean", "sum", "none")


# Losses.


def reduced(losses: Any, reduction: str) -> Any:
    """The mean of all losses, their sum, or they themselves. ValueError for another reduction, naming it, and
    for the mean of nothing. Given."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is one of {', '.join(REDUCTIONS)}, not {reduction!r}")
    if reduction == "mean" and not losses.size:
        raise ValueError(f"losses of shape {losses.shape} have no mean")
    return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.mean()


@op(saves=["difference"])
def mse_loss(predictions: Any, targets: Any, *, reduction: str = "mean") -> tuple[Any, Array]:
    """The squared difference of predictions and targets: the mean over all elements, the sum, or each.

    Both have one shape: ValueError, naming both, where they have not, for numpy would broadcast (n, 1)
    against (n,) to (n, n). ValueError for a reduction other than "mean", "sum" and "none", and for the mean
    of nothing. Beside the result comes the difference, for the way back.
    """
    # TODO 10.1: the shapes first; then subtract, in floats.
    raise NotImplementedError("kata 10.1: mse_loss")


@mse_loss.gradient
def mse_loss_back(grad) -> tuple[Array, Array | None]:
    """The gradients of predictions and targets; None for targets that want none."""
    # TODO 10.2: two times the difference, and what `reduction` made of it. Targets rarely want one.
    raise NotImplementedError("kata 10.2: mse_loss_back")


@op(saves=["probabilities"])
def cross_entropy(
    logits: Array, labels: Any, *, label_smoothing: float = 0.0, reduction: str = "mean"
) -> tuple[Any, Array]:
    """-log softmax(logits)[label] for each row: the mean over the rows, the sum, or each.

    `logits` are (n, classes), `labels` (n,) integers, in an array or a list. With label_smoothing s, the
    target is not 1 for the label, but 1 - s for it and s / classes more for every class, its own included.
    Without smoothing a logit of -inf costs inf where it is the label, and elsewhere nothing.
    Beside the result comes softmax(logits), for the way back: the one array of the size of the logits that
    is made.

    Raises:
        ValueError: shapes that do not fit, naming both; a label that is no class, a smoothing outside of
            0 to 1, or an unknown reduction, naming each; the mean of no rows.
        TypeError: labels that are no integers, naming their dtype.
    """
    # TODO 10.3: log sum exp(x) - x[label], after `below_largest`; then the softmax, in the same array.
    raise NotImplementedError("kata 10.3: cross_entropy")


@cross_entropy.gradient
def cross_entropy_back(grad) -> tuple[Array, None]:
    """The gradient of logits, in their dtype; labels have none."""
    # TODO 10.4: softmax less target, without an array of targets. `grad` is one number, or one for each row.
    raise NotImplementedError("kata 10.4: cross_entropy_back")


def check_labels(logits: Array, labels: Any) -> Any:
    """The labels as an array, if they are classes of the logits; errors as for `cross_entropy`. Given."""
    labels = as_array(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits of shape {logits.shape} do not fit labels of shape {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels are integers, the numbers of classes, and not {labels.dtype}")
    check_classes(labels, logits.shape[1])
    return labels


def check_classes(numbers: Array, classes: int) -> None:
    """ValueError, with the number, for one that is not of 0 ... classes - 1. Given."""
    if numbers.size:
        for number in (int(numbers.min()), int(numbers.max())):
            if not 0 <= number < classes:
                raise ValueError(f"{number} is no class: there are {classes}, counted from 0")


# How good are the answers?


def accuracy(logits: Any, labels: Any) -> float:
    """Which part of the rows of logits (n, classes) is largest at their label (n,); of equals, the first is.

    Both are arrays or Tensors. ValueError, naming both shapes, where they do not fit or have no rows.
    """
    # TODO 10.5: where the largest is, all rows at once; then compare.
    raise NotImplementedError("kata 10.5: accuracy")


def confusion_matrix(predictions: Any, labels: Any, classes: int) -> Array:
    """How often each label was taken for each class: int64, a row for a label and a column for an answer.

    Predictions and labels are numbers of classes, in arrays or Tensors of one shape. ValueError, naming
    both, for shapes that differ, and, naming it, for a number that is no class.
    """
    # TODO 10.6: give each pair a number of its own, and count with np.bincount.
    raise NotImplementedError("kata 10.6: confusion_matrix")


# Checkpoints: a nest of dicts and lists in one .npz file, without pickle.


def pack(state: Any, arrays: dict[str, Array], path: str = "") -> Any:
    """`state` as json can write it: each array in it goes into `arrays`, and a note of its name in its place.

    Arrays are not copied. Dicts have strings as keys; tuples become lists, numpy's numbers arrays without
    axes. TypeError, with its path, for an array of objects, and for what is no dict, list, array, string,
    number, bool or None.
    """
    # TODO 10.7: dicts and lists ask `pack` for their items. Names must be unique: begin them with a number.
    raise NotImplementedError("kata 10.7: pack")


def unpack(packed: Any, arrays: Mapping[str, Array]) -> Any:
    """What `pack` was given, from what it returned and the arrays."""
    # TODO 10.7: the same, the other way round.
    raise NotImplementedError("kata 10.7: unpack")


def checksum(text: str, arrays: Mapping[str, Array]) -> str:
    """SHA-256 of a text, and of all arrays with their names, dtypes and shapes. Given."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def previous(path: str | os.PathLike[str]) -> Path:
    """Where the checkpoint before the one at `path` is kept. Given."""
    return Path(f"{os.fspath(path)}.previous")


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a nest of dicts and lists, of arrays, numbers and strings, into one .npz file without pickle.

    The file is there whole or not at all, whenever the process or the machine stops: it is written under
    another name in the same folder, brought to the disk, and then gets its name. The one that was there
    before, if it is whole, becomes PATH.previous. If writing fails or is interrupted, nothing has changed and
    nothing is left behind; if only the last step does, the giving of the name, the one before is what
    `load_checkpoint` finds. TypeError for what `pack` does not take.
    """
    # TODO 10.8: pack, dump, sum; flush and os.fsync before the first os.replace. A torn .npz is no zip file.
    raise NotImplementedError("kata 10.8: save_checkpoint")


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """The state in one file. FileNotFoundError if it is not there, ValueError if it is not whole; each names
    it."""
    # TODO 10.9: numpy, zipfile and json have a dozen kinds of exceptions for what can be wrong in a file.
    raise NotImplementedError("kata 10.9: read_checkpoint")


def load_checkpoint(path: str | os.PathLike[str]) -> Any:
    """The state that was last written to `path`; tuples come back as lists, numpy's numbers as arrays.

    If the file is damaged or missing, and the one before is there and whole, that one, with a RuntimeWarning
    that names the file and says what is wrong. Else the FileNotFoundError or ValueError, which names it.
    """
    # TODO 10.9: read the one, or else the other; if there is no other either, the first error is the cause.
    raise NotImplementedError("kata 10.9: load_checkpoint")


# Callbacks: what happens around the steps of a training.


class Callback:
    """What a Trainer calls, with itself, as it goes. Given: a subclass writes over what it wants to hear of.

    A batch is what makes one step of the optimizer. `on_fit_end` comes also where an exception ends a fit.
    """

    def on_fit_begin(self, trainer: Trainer) -> None: ...

    def on_epoch_begin(self, trainer: Trainer) -> None: ...

    def on_batch_end(self, trainer: Trainer) -> None: ...

    def on_epoch_end(self, trainer: Trainer) -> None: ...

    def on_fit_end(self, trainer: Trainer) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold for this callback to go on."""
        return {}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None: ...


class EMA(Callback):
    """A running mean of the weights, kept beside them: after each batch, decay of itself is kept.

    shadow = decay * shadow + (1 - decay) * weight, in place, and no array is made for it after the first
    time. It begins as a copy of the weights. Buffers have none.

    Attributes:
        shadow: an array for each parameter, by its name.
    """

    def __init__(self, model: Module, decay: float = 0.999) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"decay is from 0 to 1, and not {decay}")
        self.decay = decay
        self.weights = dict(model.named_parameters())
        self.shadow = {name: p.data.copy() for name, p in self.weights.items()}
        self._scratch: dict[np.dtype[Any], Array] = {}

    def room(self, like: Array) -> Array:
        """An array of the shape and dtype of `like` to work in: memory that all parameters share. Given."""
        flat = self._scratch.get(like.dtype)
        if flat is None or flat.size < like.size:
            flat = self._scratch[like.dtype] = np.empty(like.size, like.dtype)
        return flat[: like.size].reshape(like.shape)

    def update(self) -> None:
        """Let the shadow follow the weights by one step."""
        # TODO 10.10: it goes (1 - decay) of the way to the weight; each operation has a place to go.
        raise NotImplementedError("kata 10.10: EMA.update")

    def on_batch_end(self, trainer: Trainer) -> None:
        self.update()

    def state_dict(self) -> dict[str, Any]:
        """The arrays of the shadow, not copies."""
        return dict(self.shadow)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Copy arrays into the shadow, in place.

        ValueError, naming them, for names and shapes that do not fit; then nothing has changed.
        """
        # TODO 10.10: look first, then copy.
        raise NotImplementedError("kata 10.10: EMA.load_state_dict")

    def swap(self) -> None:
        """Exchange the weights and the shadow, in place: twice is as it was."""
        # TODO 10.11: three copies, by way of `room`; and note the write to the weight.
        raise NotImplementedError("kata 10.11: EMA.swap")

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the shadow for weights inside of `with ema.applied():`, and its own afterwards."""
        # TODO 10.11: swap, and swap back whatever happens.
        raise NotImplementedError("kata 10.11: EMA.applied")


class EarlyStopping(Callback):
    """Stops a training after `patience` epochs in a row that brought nothing.

    Attributes:
        monitor: which number of the history counts.
        mode: "min" if less is better, "max" if more is.
        min_delta: by how much more than this an epoch must be better than the best before it.
        best: the best number so far; None before the first epoch.
        waited: how many epochs ago that was.
    """

    def __init__(
        self, patience: int = 5, min_delta: float = 0.0, monitor: str = "val_loss", mode: str = "min"
    ) -> None:
        if patience < 1 or mode not in ("min", "max"):
            raise ValueError(f"patience={patience}, mode={mode!r}: a patience of 1 or more, 'min' or 'max'")
        self.patience, self.min_delta, self.monitor, self.mode = patience, min_delta, monitor, mode
        self.best: float | None = None
        self.waited = 0

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Look at the last number of the history, and set `trainer.stopped` to True, if it is time.

        nan is never better. If nothing of this name was measured, a ValueError has the name, and those that
        there are.
        """
        # TODO 10.12: turn "max" into "min" by the sign.
        raise NotImplementedError("kata 10.12: EarlyStopping.on_epoch_end")

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.best, self.waited = saved["best"], saved["waited"]


class Progress(Callback):
    """A bar over all batches of a fit, with loss, accuracy, images a second and the time left; and a line for
    each epoch that is done."""

    def __init__(self, console: rich.console.Console | None = None) -> None:
        self.console = console
        self.bar: rich.progress.Progress | None = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        # TODO 10.13: a rich.progress.Progress, and in it one task, which may begin in the middle.
        raise NotImplementedError("kata 10.13: Progress.on_fit_begin")

    def on_epoch_begin(self, trainer: Trainer) -> None:
        self.began, self.rows = time.perf_counter(), trainer.rows

    def on_batch_end(self, trainer: Trainer) -> None:
        # TODO 10.13: how many rows since the epoch began, in what time?
        raise NotImplementedError("kata 10.13: Progress.on_batch_end")

    def on_epoch_end(self, trainer: Trainer) -> None:
        # TODO 10.13: the last numbers of the history.
        raise NotImplementedError("kata 10.13: Progress.on_epoch_end")

    def on_fit_end(self, trainer: Trainer) -> None:
        if self.bar is not None:
            self.bar.stop()


def in_words(numbers: Mapping[str, float]) -> str:
    """ "loss 0.31  accuracy 0.9": names and four digits. Given."""
    return "  ".join(f"{name} {number:.4g}" for name, number in numbers.items())


# The loop.


@contextlib.contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """The model is used, not trained, and nothing is recorded inside of `with evaluating(model):`.

    Afterwards each module trains or does not, as before: some may have been frozen.
    """
    # TODO 10.14: remember `training` of each module.
    raise NotImplementedError("kata 10.14: evaluating")


@contextlib.contextmanager
def batches_of(loader: Iterable[Any]) -> Iterator[Iterator[Any]]:
    """An iterator over a loader, closed after the `with` if it can be. Given.

    A traceback would keep it, and its thread, alive.
    """
    batches = iter(loader)
    try:
        yield batches
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()


class Tally:
    """Means over rows, of batches that need not be of one size. Given.

    Attributes:
        sums: by name, the sum over all rows so far; "rows" and "batches", how many these are.
    """

    def __init__(self, sums: Mapping[str, float] | None = None) -> None:
        self.sums: dict[str, Any] = {"rows": 0, "batches": 0, **(sums or {})}

    def add(self, rows: int, **means: float) -> None:
        self.sums["rows"] += rows
        self.sums["batches"] += 1
        for name, mean in means.items():
            self.sums[name] = self.sums.get(name, 0.0) + rows * mean

    def means(self) -> dict[str, float]:
        counts = "rows", "batches"
        return {name: sum / self.sums["rows"] for name, sum in self.sums.items() if name not in counts}


def measured(loss: Tensor, outputs: Tensor, targets: Any) -> dict[str, float]:
    """The loss, and the accuracy where there are integers to be met by rows of numbers. Given."""
    numbers = {"loss": float(loss.data)}
    if as_array(targets).dtype.kind in "iu" and outputs.ndim == 2:
        numbers["accuracy"] = accuracy(outputs, targets)
    return numbers


class Trainer:
    """Trains a model on batches (inputs, targets) of a loader.

    The model gets a Tensor of the inputs, and the loss the targets as they are, in training and validation.

    Args:
        loss_fn: `loss_fn(outputs, targets)` is the mean loss of a batch, as a Tensor.
        scheduler: of the learning rate. As its users expect, a OneCycleLR makes a step after each of the
            optimizer's, and any other after each epoch; `scheduler_per` ("step" or "epoch") says otherwise.
        callbacks: are called in their order.
        accumulate: how many batches of the loader make one step, whose gradient is that of all of them as one
            batch (but batch norm sees each by itself). At the end of an epoch there may be fewer.
        max_norm: gradients are clipped to it, by `clip_grad_norm_`.
        generators: what else draws numbers in training. Those of the model's modules and of the loader are
            found.

    Attributes:
        epoch, step: how many epochs and steps of the optimizer are done.
        rows: how many rows have been trained on.
        epochs, batches: how many epochs are to be done in all, and how many steps an epoch has.
        logs: means over the rows of this epoch so far; when `on_epoch_end` is called, of none.
        history: lists with a number for each epoch: "loss" and, for labels, "accuracy", of the batches as
            they were trained on; the same with "val_" of the validation; and "lr", of the first group at the
            end.
        stopped: set it, and the fit ends with this epoch. A fit takes it back when it begins, unless it goes
            on from a checkpoint that says so.
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        loss_fn: Callable[..., Tensor],
        *,
        scheduler: LRScheduler | None = None,
        callbacks: Sequence[Callback] = (),
        accumulate: int = 1,
        max_norm: float | None = None,
        scheduler_per: str | None = None,
        generators: Sequence[np.random.Generator] = (),
    ) -> None:
        if accumulate < 1:
            raise ValueError(f"accumulate is {accumulate}; it must be 1 or more")
        if scheduler_per is None:
            scheduler_per = "step" if isinstance(scheduler, OneCycleLR) else "epoch"
        if scheduler_per not in ("step", "epoch"):
            raise ValueError(f"scheduler_per is 'step' or 'epoch', not {scheduler_per!r}")
        self.model, self.optimizer, self.loss_fn = model, optimizer, loss_fn
        self.scheduler, self.scheduler_per = scheduler, scheduler_per
        self.callbacks, self.accumulate, self.max_norm = list(callbacks), accumulate, max_norm
        self.own_generators = list(generators)
        self.epoch = self.step = self.rows = self.epochs = self.batches = 0
        self.history: dict[str, list[float]] = {}
        self.stopped = False
        self._tally = Tally()

    @property
    def logs(self) -> dict[str, float]:
        return self._tally.means()

    def call(self, hook: str) -> None:
        """Call this hook of all callbacks. Given."""
        for callback in self.callbacks:
            getattr(callback, hook)(self)

    def validate(self, loader: Iterable[Any]) -> dict[str, float]:
        """Mean "loss" and, for labels, "accuracy" over all rows of a loader; the model stays as it is."""
        # TODO 10.14: the last batch may be smaller, so its mean counts less.
        raise NotImplementedError("kata 10.14: Trainer.validate")

    def train_batch(self, batches: Iterable[Any]) -> int:
        """One step of the optimizer, on all of these batches as one; then of a schedule that goes by steps.

        The gradient is that of the mean over all rows, and stays in `.grad` until the next step. Batches are
        taken one at a time, and let go again. Returns how many rows there were; if there was no batch,
        nothing has happened.
        """
        # TODO 10.15: a mean of means is not the mean: let each batch count its rows, and divide at the end.
        # With `accumulate` of 1 there is nothing to divide, and it should be left alone to the last bit.
        raise NotImplementedError("kata 10.15: Trainer.train_batch")

    def fit(
        self,
        loader: Any,
        epochs: int,
        validation: Any = None,
        checkpoint: str | os.PathLike[str] | None = None,
        every: int | None = None,
    ) -> dict[str, list[float]]:
        """Train until `epochs` epochs are done in all; returns the history.

        However it ends, the iterator over `loader` is closed, if it has a `close`.

        Args:
            validation: a loader to validate on after each epoch.
            checkpoint: where to write what it takes to go on, after each epoch, and within one whenever
                `step` is a multiple of `every`. If something is there already, the fit goes on from it, bit
                for bit: the same line again takes up a run that was killed. The loaders then need a
                `state_dict`, as DataLoader has.
        """
        # TODO 10.16: epochs while there are any left and nothing has stopped; `on_fit_end` whatever happens.
        # `batches_of` closes the loader's iterator. After an epoch's last batch, which the tally counts, the
        # loader may stand at its end or before the next epoch already: there it is the epoch's own checkpoint
        # that is written.
        raise NotImplementedError("kata 10.16: Trainer.fit")

    def end_epoch(self, validation: Any = None) -> None:
        """Validate, write the history, move a schedule that goes by epochs and count; then the callbacks."""
        # TODO 10.16: and the next epoch's means begin with nothing.
        raise NotImplementedError("kata 10.16: Trainer.end_epoch")

    # Going on as if nothing had been.

    def generators(self) -> list[np.random.Generator]:
        """What draws numbers in training: what the model's modules hold, in order, and `generators`."""
        # TODO 10.17: look at the attributes of each module.
        raise NotImplementedError("kata 10.17: Trainer.generators")

    def state_dict(self) -> dict[str, Any]:
        """All that this trainer depends on, but for the loaders, as a nest for `save_checkpoint`."""
        # TODO 10.17: everybody has a state_dict; a generator's is bit_generator.state.
        raise NotImplementedError("kata 10.17: Trainer.state_dict")

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Stand where another trainer of the same kind stood.

        ValueError if the model, the optimizer, the scheduler, the callbacks or the generators are others; for
        the last three, the message names these.
        """
        # TODO 10.17: each part takes its own. How many callbacks and generators there are must be the same.
        raise NotImplementedError("kata 10.17: Trainer.load_state_dict")

    def resume(self, checkpoint: str | os.PathLike[str], loaders: Mapping[str, Any]) -> None:
        """Go on from a checkpoint that `fit` has written."""
        # TODO 10.18: a loader that was left within an epoch goes on with it the next time it is asked, and
        # puts back what it draws for that. So nothing of the epoch has to be kept here.
        raise NotImplementedError("kata 10.18: Trainer.resume")


# Where does the memory go?


def memory_by_part(
    model: Module, optimizer: Optimizer, loss_fn: Callable[..., Tensor], inputs: Any, targets: Any
) -> dict[str, int]:
    """Bytes that training on a batch takes: "weights", "gradients", "optimizer", "buffers", "activations".

    Activations are what the gradient rules keep of one forward pass, each piece of memory once, without the
    weights, the inputs and the targets (which may be None). Gradients are those that the optimizer's
    parameters will have, whether they are there yet or not; its own part is what it remembers by now. Each
    array counts once, also one with two names, as of tied weights. The model makes one forward pass as it is,
    in training or not, and no step.
    """
    # TODO 10.19: from the loss, `topological` leads to all nodes; in `kept` are numbers, arrays and lists. A
    # view keeps the array alive that it is a view of.
    raise NotImplementedError("kata 10.19: memory_by_part")


def owner(array: Array) -> Array:
    """The array whose memory this is a view of; itself, if it is none. Given."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
