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
    # kata 10.1: the shapes first; then subtract, in floats.
    predictions, targets = promote(predictions, targets)
    if predictions.shape != targets.shape:
        raise ValueError(f"predictions of shape {predictions.shape}, and targets of shape {targets.shape}")
    difference = floating(predictions) - floating(targets)
    return reduced(difference * difference, reduction), difference


@mse_loss.gradient
def mse_loss_back(
    grad: Array, difference: Array, reduction: str, needs_input_grad: tuple[bool, ...]
) -> tuple[Array, Array | None]:  # stub: (grad)
    """The gradients of predictions and targets; None for targets that want none."""
    # kata 10.2: two times the difference, and what `reduction` made of it. Targets rarely want one.
    scale = 2 / difference.size if reduction == "mean" else 2
    back = difference * (grad * scale)
    return back, -back if needs_input_grad[1] else None


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
    # kata 10.3: log sum exp(x) - x[label], after `below_largest`; then the softmax, in the same array.
    labels = check_labels(logits, labels)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is from 0 to 1, and not {label_smoothing}")
    n, classes = logits.shape
    array = below_largest(logits, axis=1)
    losses = array[np.arange(n), labels] * (label_smoothing - 1)
    if label_smoothing:
        losses -= array.sum(axis=1) * (label_smoothing / classes)
    np.exp(array, out=array)
    sums = array.sum(axis=1)
    losses += np.log(sums)
    array /= sums[:, None]
    return reduced(losses, reduction), array


@cross_entropy.gradient
def cross_entropy_back(
    grad: Array, labels: Any, probabilities: Array, label_smoothing: float, reduction: str
) -> tuple[Array, None]:  # stub: (grad)
    """The gradient of logits, in their dtype; labels have none."""
    # kata 10.4: softmax less target, without an array of targets. `grad` is one number, or one for each row.
    n, classes = probabilities.shape
    if reduction == "mean":
        grad = grad / n
    scale: Array = np.broadcast_to(grad, n)
    back: Array = probabilities * scale[:, None]
    if label_smoothing:
        back -= (scale * (label_smoothing / classes))[:, None]
    back[np.arange(n), np.asarray(labels)] -= scale * (1 - label_smoothing)
    return back, None


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
    # kata 10.5: where the largest is, all rows at once; then compare.
    logits, labels = as_array(logits), as_array(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not labels.size:
        raise ValueError(f"logits of shape {logits.shape} do not fit labels of shape {labels.shape}")
    return float(np.mean(logits.argmax(axis=1) == labels))


def confusion_matrix(predictions: Any, labels: Any, classes: int) -> Array:
    """How often each label was taken for each class: int64, a row for a label and a column for an answer.

    Predictions and labels are numbers of classes, in arrays or Tensors of one shape. ValueError, naming
    both, for shapes that differ, and, naming it, for a number that is no class.
    """
    # kata 10.6: give each pair a number of its own, and count with np.bincount.
    predictions, labels = as_array(predictions), as_array(labels)
    if predictions.shape != labels.shape:
        raise ValueError(f"predictions of shape {predictions.shape}, and labels of shape {labels.shape}")
    for numbers in (predictions, labels):
        check_classes(numbers, classes)
    pairs: Array = labels.astype(np.intp) * classes + predictions.astype(np.intp)
    return np.bincount(pairs.ravel(), minlength=classes * classes).reshape(classes, classes)


# Checkpoints: a nest of dicts and lists in one .npz file, without pickle.


def pack(state: Any, arrays: dict[str, Array], path: str = "") -> Any:
    """`state` as json can write it: each array in it goes into `arrays`, and a note of its name in its place.

    Arrays are not copied. Dicts have strings as keys; tuples become lists, numpy's numbers arrays without
    axes. TypeError, with its path, for an array of objects, and for what is no dict, list, array, string,
    number, bool or None.
    """
    # kata 10.7: dicts and lists ask `pack` for their items. Names must be unique: begin them with a number.
    if isinstance(state, Mapping):
        return {"dict": [[key, pack(value, arrays, f"{path}/{key}")] for key, value in state.items()]}
    if isinstance(state, (list, tuple)):
        return [pack(value, arrays, f"{path}/{i}") for i, value in enumerate(state)]
    if isinstance(state, (np.ndarray, np.generic)) and not state.dtype.hasobject:
        name = f"{len(arrays)}{path}"
        arrays[name] = np.asarray(state)
        return {"array": name}
    if state is None or isinstance(state, (str, bool, int, float)):
        return state
    raise TypeError(f"{path} is of type {type(state).__name__}, which a checkpoint cannot hold")


def unpack(packed: Any, arrays: Mapping[str, Array]) -> Any:
    """What `pack` was given, from what it returned and the arrays."""
    # kata 10.7: the same, the other way round.
    if isinstance(packed, list):
        return [unpack(value, arrays) for value in packed]
    if not isinstance(packed, dict):
        return packed
    if "array" in packed:
        return arrays[packed["array"]]
    return {key: unpack(value, arrays) for key, value in packed["dict"]}


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
    # kata 10.8: pack, dump, sum; flush and os.fsync before the first os.replace. A torn .npz is no zip file.
    path, arrays = Path(path), dict[str, Array]()
    text = json.dumps(pack(state, arrays))
    header = json.dumps({"state": text, "sha256": checksum(text, arrays)})
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with open(unfinished, "wb") as stream:
            np.savez(stream, **arrays, header=np.frombuffer(header.encode(), np.uint8))  # type: ignore[arg-type]
            stream.flush()
            os.fsync(stream.fileno())
        if zipfile.is_zipfile(path):
            os.replace(path, previous(path))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """The state in one file. FileNotFoundError if it is not there, ValueError if it is not whole; each names
    it."""
    # kata 10.9: numpy, zipfile and json have a dozen kinds of exceptions for what can be wrong in a file.
    with open(path, "rb") as stream:
        try:
            archive = np.load(stream, allow_pickle=False)
            arrays = {name: archive[name] for name in archive.files}
            header = json.loads(arrays.pop("header").tobytes())
            if checksum(header["state"], arrays) != header["sha256"]:
                raise ValueError("its checksum is another")
            return unpack(json.loads(header["state"]), arrays)
        except Exception as error:
            raise ValueError(f"{path} is damaged, or no checkpoint: {error}") from error


def load_checkpoint(path: str | os.PathLike[str]) -> Any:
    """The state that was last written to `path`; tuples come back as lists, numpy's numbers as arrays.

    If the file is damaged or missing, and the one before is there and whole, that one, with a RuntimeWarning
    that names the file and says what is wrong. Else the FileNotFoundError or ValueError, which names it.
    """
    # kata 10.9: read the one, or else the other; if there is no other either, the first error is the cause.
    try:
        return read_checkpoint(path)
    except (OSError, ValueError) as error:
        try:
            state = read_checkpoint(previous(path))
        except (OSError, ValueError):
            raise error from None
        warnings.warn(f"{error}; going on from {previous(path)}", RuntimeWarning, stacklevel=2)
        return state


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
        # kata 10.10: it goes (1 - decay) of the way to the weight; each operation has a place to go.
        for name, shadow in self.shadow.items():
            way = np.subtract(self.weights[name].data, shadow, out=self.room(shadow))
            way *= 1 - self.decay
            shadow += way

    def on_batch_end(self, trainer: Trainer) -> None:
        self.update()

    def state_dict(self) -> dict[str, Any]:
        """The arrays of the shadow, not copies."""
        return dict(self.shadow)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Copy arrays into the shadow, in place.

        ValueError, naming them, for names and shapes that do not fit; then nothing has changed.
        """
        # kata 10.10: look first, then copy.
        wrong = saved.keys() ^ self.shadow.keys()
        wrong |= {n for n, a in self.shadow.items() if n in saved and np.shape(saved[n]) != a.shape}
        if wrong:
            raise ValueError(f"this state does not fit the running mean: {', '.join(sorted(wrong))}")
        for name, shadow in self.shadow.items():
            np.copyto(shadow, saved[name])

    def swap(self) -> None:
        """Exchange the weights and the shadow, in place: twice is as it was."""
        # kata 10.11: three copies, by way of `room`; and note the write to the weight.
        for name, shadow in self.shadow.items():
            weight, room = self.weights[name].data, self.room(shadow)
            np.copyto(room, weight)
            np.copyto(weight, shadow)
            np.copyto(shadow, room)
            increment_version(weight)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the shadow for weights inside of `with ema.applied():`, and its own afterwards."""
        # kata 10.11: swap, and swap back whatever happens.
        self.swap()
        try:
            yield
        finally:
            self.swap()


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
        # kata 10.12: turn "max" into "min" by the sign.
        if not trainer.history.get(self.monitor):
            raise ValueError(f"there is no {self.monitor} to watch: there is {', '.join(trainer.history)}")
        now = trainer.history[self.monitor][-1]
        sign = 1 if self.mode == "min" else -1
        if sign * now < (math.inf if self.best is None else sign * self.best - self.min_delta):
            self.best, self.waited = now, 0
        else:
            self.waited += 1
        if self.waited >= self.patience:
            trainer.stopped = True

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
        # kata 10.13: a rich.progress.Progress, and in it one task, which may begin in the middle.
        text, columns = rich.progress.TextColumn, rich.progress
        self.bar = columns.Progress(
            text("epoch {task.fields[epoch]}"),
            columns.BarColumn(),
            text("{task.fields[numbers]}"),
            text("{task.fields[speed]:.0f} images/s"),
            columns.TimeRemainingColumn(),
            console=self.console,
        )
        self.task = self.bar.add_task(
            "",
            total=trainer.epochs * trainer.batches,
            completed=trainer.step,
            epoch=f"{trainer.epoch + 1}/{trainer.epochs}",
            numbers="",
            speed=0,
        )
        self.bar.start()

    def on_epoch_begin(self, trainer: Trainer) -> None:
        self.began, self.rows = time.perf_counter(), trainer.rows

    def on_batch_end(self, trainer: Trainer) -> None:
        # kata 10.13: how many rows since the epoch began, in what time?
        assert self.bar is not None
        seconds = time.perf_counter() - self.began
        self.bar.update(
            self.task,
            completed=trainer.step,
            epoch=f"{trainer.epoch + 1}/{trainer.epochs}",
            numbers=in_words(trainer.logs),
            speed=(trainer.rows - self.rows) / max(seconds, 1e-9),
        )

    def on_epoch_end(self, trainer: Trainer) -> None:
        # kata 10.13: the last numbers of the history.
        assert self.bar is not None
        last = {name: numbers[-1] for name, numbers in trainer.history.items()}
        self.bar.console.print(f"epoch {trainer.epoch}/{trainer.epochs}  {in_words(last)}")

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
    # kata 10.14: remember `training` of each module.
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_grad():
            yield
    finally:
        for module, training in before:
            module.training = training


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
        # kata 10.14: the last batch may be smaller, so its mean counts less.
        tally = Tally()
        with evaluating(self.model), batches_of(loader) as batches:
            for inputs, targets in batches:
                outputs = self.model(Tensor(inputs))
                tally.add(len(targets), **measured(self.loss_fn(outputs, targets), outputs, targets))
        return tally.means()

    def train_batch(self, batches: Iterable[Any]) -> int:
        """One step of the optimizer, on all of these batches as one; then of a schedule that goes by steps.

        The gradient is that of the mean over all rows, and stays in `.grad` until the next step. Batches are
        taken one at a time, and let go again. Returns how many rows there were; if there was no batch,
        nothing has happened.
        """
        # kata 10.15: a mean of means is not the mean: let each batch count its rows, and divide at the end.
        # With `accumulate` of 1 there is nothing to divide, and it should be left alone to the last bit.
        rows, single = 0, self.accumulate == 1
        for inputs, targets in batches:
            if not rows:
                self.optimizer.zero_grad()
            outputs = self.model(Tensor(inputs))
            loss = self.loss_fn(outputs, targets)
            loss.backward(np.full(loss.shape, 1 if single else len(targets)))
            self._tally.add(len(targets), **measured(loss, outputs, targets))
            rows += len(targets)
            del inputs, targets, outputs, loss  # before the next batch is made
        if not rows:
            return 0
        parameters = self.optimizer.parameters()
        for grad in [] if single else [p.grad for p in parameters if p.grad is not None]:
            grad /= rows
        if self.max_norm is not None:
            clip_grad_norm_(parameters, self.max_norm)
        self.optimizer.step()
        if self.scheduler is not None and self.scheduler_per == "step":
            self.scheduler.step()
        self.step += 1
        self.rows += rows
        return rows

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
        # kata 10.16: epochs while there are any left and nothing has stopped; `on_fit_end` whatever happens.
        # `batches_of` closes the loader's iterator. After an epoch's last batch, which the tally counts, the
        # loader may stand at its end or before the next epoch already: there it is the epoch's own checkpoint
        # that is written.
        self.stopped, self.epochs = False, epochs
        self.batches = -(-len(loader) // self.accumulate)
        loaders = {"loader": loader} if validation is None else {"validation": validation, "loader": loader}
        if checkpoint is not None and (os.path.exists(checkpoint) or previous(checkpoint).exists()):
            self.resume(checkpoint, loaders)

        def save() -> None:
            if checkpoint is not None:
                places = {name: each.state_dict() for name, each in loaders.items()}
                save_checkpoint(checkpoint, {"trainer": self.state_dict(), "loaders": places})

        self.call("on_fit_begin")
        try:
            while self.epoch < epochs and not self.stopped:
                self.call("on_epoch_begin")
                with batches_of(loader) as batches:
                    while self.train_batch(itertools.islice(batches, self.accumulate)):
                        self.call("on_batch_end")
                        if every and self.step % every == 0 and self._tally.sums["batches"] < len(loader):
                            save()
                self.end_epoch(validation)
                save()
        finally:
            self.call("on_fit_end")
        return self.history

    def end_epoch(self, validation: Any = None) -> None:
        """Validate, write the history, move a schedule that goes by epochs and count; then the callbacks."""
        # kata 10.16: and the next epoch's means begin with nothing.
        numbers = {**self.logs, "lr": self.optimizer.param_groups[0]["lr"]}
        if validation is not None:
            numbers.update({f"val_{name}": n for name, n in self.validate(validation).items()})
        for name, number in numbers.items():
            self.history.setdefault(name, []).append(number)
        if self.scheduler is not None and self.scheduler_per == "epoch":
            self.scheduler.step()
        self.epoch += 1
        self._tally = Tally()
        self.call("on_epoch_end")

    # Going on as if nothing had been.

    def generators(self) -> list[np.random.Generator]:
        """What draws numbers in training: what the model's modules hold, in order, and `generators`."""
        # kata 10.17: look at the attributes of each module.
        held = [value for module in self.model.modules() for value in vars(module).values()]
        return [value for value in held if isinstance(value, np.random.Generator)] + self.own_generators

    def state_dict(self) -> dict[str, Any]:
        """All that this trainer depends on, but for the loaders, as a nest for `save_checkpoint`."""
        # kata 10.17: everybody has a state_dict; a generator's is bit_generator.state.
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "callbacks": [callback.state_dict() for callback in self.callbacks],
            "generators": [dict(rng.bit_generator.state) for rng in self.generators()],
            "counts": {"epoch": self.epoch, "step": self.step, "rows": self.rows, "stopped": self.stopped},
            "tally": self._tally.sums,
            "history": self.history,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Stand where another trainer of the same kind stood.

        ValueError if the model, the optimizer, the scheduler, the callbacks or the generators are others; for
        the last three, the message names these.
        """
        # kata 10.17: each part takes its own. How many callbacks and generators there are must be the same.
        generators = self.generators()
        for name, own in (("callbacks", self.callbacks), ("generators", generators)):
            if len(saved[name]) != len(own):
                raise ValueError(f"a state with {len(saved[name])} {name} does not fit {len(own)}")
        if (saved["scheduler"] is None) != (self.scheduler is None):
            raise ValueError("a state with a scheduler does not fit a trainer without one, or the reverse")
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(saved["scheduler"])
        for callback, state in zip(self.callbacks, saved["callbacks"], strict=True):
            callback.load_state_dict(state)
        for rng, state in zip(generators, saved["generators"], strict=True):
            rng.bit_generator.state = state
        counts = saved["counts"]
        self.epoch, self.step, self.rows = counts["epoch"], counts["step"], counts["rows"]
        self.stopped = counts["stopped"]
        self._tally = Tally(saved["tally"])
        self.history = {name: list(numbers) for name, numbers in saved["history"].items()}

    def resume(self, checkpoint: str | os.PathLike[str], loaders: Mapping[str, Any]) -> None:
        """Go on from a checkpoint that `fit` has written."""
        # kata 10.18: a loader that was left within an epoch goes on with it the next time it is asked, and
        # puts back what it draws for that. So nothing of the epoch has to be kept here.
        saved = load_checkpoint(checkpoint)
        for name, loader in loaders.items():
            loader.load_state_dict(saved["loaders"][name])
        self.load_state_dict(saved["trainer"])


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
    # kata 10.19: from the loss, `topological` leads to all nodes; in `kept` are numbers, arrays and lists. A
    # view keeps the array alive that it is a view of.
    x = Tensor(inputs)
    loss = loss_fn(model(x), targets)
    given = (x.data, targets.data if isinstance(targets, Tensor) else targets)
    own = {id(owner(a)) for a in (*model.state_dict().values(), *given) if isinstance(a, np.ndarray)}
    kept: dict[int, Array] = {}
    root = source_of(loss)
    for node in topological(root) if root is not None else ():
        for item in node.kept or () if isinstance(node, Node) else ():
            for array in item if isinstance(item, (list, tuple)) else [item]:
                if isinstance(array, np.ndarray) and id(owner(array)) not in own:
                    kept[id(owner(array))] = owner(array)
    parameters = list(model.parameters())
    weights = sum(p.data.nbytes for p in parameters)
    remembered = [a for state in optimizer.state.values() for a in state.values()]
    return {
        "weights": weights,
        "gradients": sum(p.data.nbytes for p in optimizer.parameters() if p.requires_grad),
        "optimizer": sum(a.nbytes for a in remembered if isinstance(a, np.ndarray)),
        "buffers": parameter_bytes(model) - weights,
        "activations": sum(array.nbytes for array in kept.values()),
    }


def owner(array: Array) -> Array:
    """The array whose memory this is a view of; itself, if it is none. Given."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
