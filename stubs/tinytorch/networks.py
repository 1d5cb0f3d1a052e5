"""Kata 05 · Networks: chains of layers, how they start, and backpropagation down a straight line.

A deep network is a long product. Whether its numbers, and the gradients on their way back, vanish, explode or
stay, is decided before training begins: by how the weights are drawn. And what training adds to the memory of
a forward pass is what the gradient rules asked to keep, once for each layer.
"""

from __future__ import annotations

import itertools
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from tinytorch.activations import Dropout, ReLU, log_softmax
from tinytorch.layers import Linear, Module
from tinytorch.tensor import Array, Op, Recorder, Shape, Tensor, increment_version, set_recorder, version

__all__ = [
    "MLP", "Sequential", "Tape", "activation_stats", "calculate_gain", "fans", "gradient_norms",
    "initialise", "kaiming_normal_", "kaiming_uniform_", "load", "loss_and_gradient", "orthogonal_", "save",
    "train_classifier", "train_step", "xavier_normal_", "xavier_uniform_",
]  # fmt: skip

Initialiser = Callable[..., Tensor]


# Networks: layers, one after the other.


class Sequential(Module):
    """Layers in a row: each takes what the one before gave.

    Its parameters are called after their layer's place, "0.weight", as in PyTorch.
    """

    def __init__(self, *layers: Module) -> None:
        # TODO 05.1: Module finds modules in lists, too.
        raise NotImplementedError("kata 05.1: Sequential.__init__")

    def append(self, layer: Module) -> Sequential:
        """Add a layer at the end; returns the network itself."""
        # TODO 05.1: the list grows.
        raise NotImplementedError("kata 05.1: Sequential.append")

    def __len__(self) -> int:
        # TODO 05.1: how many layers.
        raise NotImplementedError("kata 05.1: Sequential.__len__")

    def __iter__(self) -> Iterator[Module]:
        # TODO 05.1: the layers, in order.
        raise NotImplementedError("kata 05.1: Sequential.__iter__")

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module | Sequential:
        """A layer; or, for a slice, a plain Sequential of these very layers, sharing their parameters."""
        # TODO 05.1: a list's slice is a list.
        raise NotImplementedError("kata 05.1: Sequential.__getitem__")

    def named_members(self) -> Iterator[tuple[str, Any]]:
        """As every module's, but a layer's path is its place: "0", not "layers.0"."""
        # TODO 05.2: Module's own finds them; the names are what is to change.
        raise NotImplementedError("kata 05.2: Sequential.named_members")

    def forward(self, x: Any) -> Any:
        # TODO 05.2: who still holds the result of a layer when the next one is done?
        raise NotImplementedError("kata 05.2: Sequential.forward")


def MLP(
    sizes: Sequence[int],
    activation: Callable[[], Module] = ReLU,
    dropout: float = 0.0,
    *,
    rng: np.random.Generator,
) -> Sequential:
    """A multi-layer perceptron: a Linear from each size to the next, a new `activation()` between two.

    Where `dropout` is not 0, each activation is followed by Dropout. Nothing follows the last Linear. All is
    drawn from `rng`. ValueError for fewer than two sizes.
    """
    # TODO 05.3: a layer more than there are gaps between layers.
    raise NotImplementedError("kata 05.3: MLP")


# Initialisation: names and formulas are those of torch.nn.init. A trailing _ says that the tensor is written
# over in place, and keeps its dtype; it is what comes back, too. `_uniform` and `_normal`, which are given
# below, draw, write over it, and note that with `increment_version`.


def fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out): how many inputs an output of a weight hears, and how many outputs an input feeds.

    `shape` is (outputs, inputs, *kernel), and a kernel multiplies both: `fans((8, 4, 3, 3))` is (36, 72).
    ValueError for fewer than two axes, naming the shape.
    """
    # TODO 05.4: an output of a 3x3 kernel hears nine places of each input channel.
    raise NotImplementedError("kata 05.4: fans")


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """What weights before this nonlinearity are multiplied by, to make up for what it takes away.

    1 for "linear" and "sigmoid", 5/3 for "tanh", sqrt(2) for "relu", sqrt(2 / (1 + param**2)) for
    "leaky_relu" with that negative slope (0.01 if None), 3/4 for "selu". ValueError for any other, naming it.
    """
    # TODO 05.5: relu halves the mean square of what is symmetric about 0.
    raise NotImplementedError("kata 05.5: calculate_gain")


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, *, rng: np.random.Generator) -> Tensor:
    """Uniform, with mean 0 and standard deviation gain * sqrt(2 / (fan_in + fan_out)) (Glorot, 2010)."""
    # TODO 05.6: what is the standard deviation of numbers that are uniform on [-1, 1)?
    raise NotImplementedError("kata 05.6: xavier_uniform_")


def xavier_normal_(tensor: Tensor, gain: float = 1.0, *, rng: np.random.Generator) -> Tensor:
    """Normal, with mean 0 and standard deviation gain * sqrt(2 / (fan_in + fan_out))."""
    # TODO 05.6: forwards fan_in counts, on the way back fan_out: this takes their mean.
    raise NotImplementedError("kata 05.6: xavier_normal_")


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    rng: np.random.Generator,
) -> Tensor:
    """Uniform, with mean 0 and standard deviation gain / sqrt(fan) (He, 2015).

    The gain is that of `nonlinearity` (`a` is a leaky_relu's negative slope); the fan that of `mode`:
    "fan_in" keeps the size of activations, "fan_out" that of gradients. ValueError for any other, naming it.
    """
    # TODO 05.7: as before, but one fan, and the gain is looked up.
    raise NotImplementedError("kata 05.7: kaiming_uniform_")


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    rng: np.random.Generator,
) -> Tensor:
    """Normal, with mean 0 and the standard deviation of `kaiming_uniform_`."""
    # TODO 05.7: what differs from kaiming_uniform_ is the shape of the curve.
    raise NotImplementedError("kata 05.7: kaiming_normal_")


# Given: what the four above have in common. Each writes over the tensor, and notes the write.


def _fan(shape: Shape, mode: str) -> int:
    """fan_in or fan_out, as `mode` says; ValueError for any other mode. Given."""
    modes = ("fan_in", "fan_out")
    if mode not in modes:
        raise ValueError(f"the mode is one of {' and '.join(modes)}, not {mode!r}")
    return fans(shape)[modes.index(mode)]


def _uniform(tensor: Tensor, gain: float, fan: float, rng: np.random.Generator) -> Tensor:
    """Over `tensor`: uniform, with standard deviation gain / sqrt(fan). Given."""
    bound = gain * math.sqrt(3 / max(fan, 1))  # with a fan of 0, there is nothing to draw
    drawn = rng.random(tensor.shape, _drawable(tensor))
    drawn *= 2 * bound
    drawn -= bound
    return _write(tensor, drawn)


def _normal(tensor: Tensor, gain: float, fan: float, rng: np.random.Generator) -> Tensor:
    """Over `tensor`: normal, with standard deviation gain / sqrt(fan). Given."""
    drawn = rng.standard_normal(tensor.shape, _drawable(tensor))
    drawn *= gain / math.sqrt(max(fan, 1))
    return _write(tensor, drawn)


def _write(tensor: Tensor, values: Any) -> Tensor:
    """Over `tensor`: `values`, in its own array and dtype. Given."""
    tensor.data[...] = values
    increment_version(tensor.data)
    return tensor


def _drawable(tensor: Tensor) -> type[np.float32] | type[np.float64]:
    """The dtype to draw in: numpy's generators know no float16. Given."""
    return np.float64 if tensor.dtype == np.float64 else np.float32


def orthogonal_(tensor: Tensor, gain: float = 1.0, *, rng: np.random.Generator) -> Tensor:
    """A random matrix whose rows (or columns, if there are fewer) are orthogonal and of length `gain`.

    So lengths stay as they are, through any number of layers (Saxe, 2013). Axes beyond the second count as
    columns. Every such matrix is as likely as any other; an empty one stays empty. ValueError as of `fans`.
    """
    # TODO 05.8: np.linalg.qr makes columns orthogonal, and leans towards some signs.
    raise NotImplementedError("kata 05.8: orthogonal_")


def initialise(module: Module, init: Initialiser, *, rng: np.random.Generator) -> Module:
    """Draw anew all parameters of `module`: weights by `init(weight, rng=rng)`, biases are set to 0.

    Weights are the parameters of two axes or more whose name ends in "weight", biases those whose name ends
    in "bias"; others stay as they are. Zeros are written in place and noted, too. Goes in the order of
    `named_parameters`; returns the module.
    """
    # TODO 05.9: named_parameters tells one from the other.
    raise NotImplementedError("kata 05.9: initialise")


def activation_stats(net: Module, x: Tensor) -> list[tuple[str, float, float]]:
    """A row (path, mean, standard deviation of its output) for each call of a module without modules.

    In the order of the calls, and in float64, so that squares do not overflow where activations explode; both
    are Python's floats. The forward pass that this takes is in the mode in which the network is, and leaves
    no hook behind, also if it fails.
    """
    # TODO 05.10: a hook on each, as in `summary` of kata 03.
    raise NotImplementedError("kata 05.10: activation_stats")


# Backpropagation down a straight line.


@dataclass(eq=False, slots=True)
class Step:
    """What a tape notes of one operation.

    Attributes:
        op: the operation.
        kept: what its gradient rule asked for, in the rule's order; nothing once it was walked.
        entry: which of its inputs lies on the line, by position.
        entry_shape: the shape of that input, or None if its gradient is not wanted.
        leaves: each leaf among its inputs whose gradient is wanted, by position; the line's first input, too,
            if it is one.
        shape, dtype: those of its result.
        made: the number of the last write in place until then (see `version`).
    """

    op: Op
    kept: list[Any]
    entry: int
    entry_shape: Shape | None
    leaves: dict[int, Tensor]
    shape: Shape
    dtype: np.dtype[Any]
    made: int


class Tape:
    """Notes a computation that goes in a straight line, and walks it back.

        with Tape() as tape:
            out = net(x)
        grad_of_x = tape.walk_back(grad_of_out)

    On a line each operation takes the result of the one before, and no other result. Parameters and constants
    may come in from the side, at any step and more than once.

    Attributes:
        steps: what was noted and not yet walked back, first to last.
    """

    _before: Recorder | None  # who listened when the tape was entered

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def __enter__(self) -> Tape:
        # TODO 05.11: listen, and remember who listened before.
        raise NotImplementedError("kata 05.11: Tape.__enter__")

    def __exit__(self, *exc: object) -> None:
        # TODO 05.11: whoever listened before listens again, and an exception goes on its way.
        raise NotImplementedError("kata 05.11: Tape.__exit__")

    def note(
        self, op: Op, inputs: tuple[Any, ...], arrays: list[Any], params: dict[str, Any], out: Tensor
    ) -> None:
        """Add a step; `out.node` is this step from then on. The seam calls it after each operation.

        The line enters its first operation by the first input, every other by the input that the operation
        before gave. ValueError, which names the operation and kata 06, if none of its inputs or two of them
        are that, if another is a result, too, or is the line's first input again and wants a gradient, and
        if there is no gradient rule. A constant that an operation in place turned into `out` counts as the
        constant that it was, although its `requires_grad` is True by now.
        """
        # TODO 05.12: a result has a node, a leaf has none.
        raise NotImplementedError("kata 05.12: Tape.note")

    def walk_back(self, grad: Any) -> Array | None:
        """From the gradient of the line's last result to that of its first input, which comes back.

        It has that input's dtype, or is None if the input requires none. On the way each leaf that requires a
        gradient, also one at the line's start, gets it added to its `.grad`, an array of its own in its
        dtype. Each step is let go as it is walked, and what it kept with it; so a line can be walked once.
        Rules give one array, or a tuple or a list with one for each input.

        ValueError if there is nothing to walk, or `grad` has another shape than the last result, naming both
        shapes, and then nothing was walked; or if a gradient rule gives none or one of another shape than its
        input, naming the operation and both. RuntimeError, naming the operation, if an array that its rule
        needs was written over in place.
        """
        # TODO 05.13: the last step first; what its rule gives for the line is the next one's `grad`.
        raise NotImplementedError("kata 05.13: Tape.walk_back")


def _pull(step: Step, grad: Array) -> Array | None:
    """One step back: adds to the leaves' gradients, returns that of the input on the line. Given.

    All that a step has to see to is here: what was written over, a gradient that is missing or has another
    shape, copies in the leaf's dtype. What it kept, it lets go.
    """
    kept, step.kept = step.kept, []
    if any(isinstance(array, np.ndarray) and version(array) > step.made for array in kept):
        raise RuntimeError(f"an array that the gradient of {step.op.name} needs was written over in place")
    shares = step.op.pull(grad, *kept)  # type: ignore[misc]  # `note` saw to it that there is one
    if not isinstance(shares, (tuple, list)):
        shares = (shares,)
    for i, leaf in step.leaves.items():
        share = _fitting(shares[i], leaf.shape, step.op).astype(leaf.dtype)  # a copy, always
        leaf.grad = share if leaf.grad is None else np.asarray(leaf.grad + share)
    return None if step.entry_shape is None else _fitting(shares[step.entry], step.entry_shape, step.op)


def _fitting(share: Any, shape: Shape, op: Op) -> Array:
    """What a rule gave for an input of `shape`, or a ValueError. Given."""
    if share is None or np.shape(share) != shape:
        given = "none" if share is None else f"one of shape {np.shape(share)}"
        raise ValueError(
            f"the rule of {op.name} gives {given} as the gradient of an input of shape {shape}; "
            "an input that was stretched needs the graph of kata 06"
        )
    return np.asarray(share)


# Training by hand.


def gradient_norms(module: Module) -> dict[str, float]:
    """The length (L2 norm) of each parameter's gradient, by the parameter's name; those without are left out.

    Computed in float64, so that squares do not overflow where gradients explode.
    """
    # TODO 05.14: np.linalg.norm would square in the array's dtype.
    raise NotImplementedError("kata 05.14: gradient_norms")


def loss_and_gradient(logits: Array, labels: Array) -> tuple[float, Array]:
    """The mean cross-entropy of logits (n, classes) with labels (n,), and its gradient with respect to them.

    The loss of a row is -log_softmax(row)[label]. ValueError if the shapes do not fit, naming both, if there
    is no row, or if a label is not one of 0 ... classes - 1, naming it.
    """
    # TODO 05.15: log_softmax.vjp knows the way back; what is the gradient of the loss at its output?
    raise NotImplementedError("kata 05.15: loss_and_gradient")


def train_step(net: Module, x: Tensor, labels: Array, lr: float) -> float:
    """One step of gradient descent on the cross-entropy of a batch; returns the loss before it.

    Forward on a tape, back along it, and each parameter that has a gradient moves by -lr times it, in place,
    which is noted (`increment_version`). The gradients of this batch, and of no other, stay in `.grad`.
    """
    # TODO 05.16: what `.grad` holds from before must not be added to.
    raise NotImplementedError("kata 05.16: train_step")


def train_classifier(
    net: Module,
    x: Array,
    labels: Array,
    *,
    lr: float,
    epochs: int,
    batch_size: int,
    rng: np.random.Generator,
) -> list[float]:
    """Train `net` on (x, labels), in batches of rows; returns the mean loss of the steps of each epoch, as
    Python's floats.

    In each epoch every row is seen once, in an order drawn anew; the last batch may be smaller. Whether the
    network learns or is used (`net.training`) stays as it is: that is for the caller to say.
    """
    # TODO 05.16: rng.permutation, cut into batches.
    raise NotImplementedError("kata 05.16: train_classifier")


# Weights on disk.


def save(module: Module, path: str | os.PathLike[str]) -> None:
    """Write the state_dict of `module` as an .npz file, to exactly this path, without pickle.

    The file is there whole or not at all: what was there before stays until the new one is complete, and
    stays for good if writing fails, which leaves nothing else behind either. A parameter may be called
    anything, also "file".
    """
    # TODO 05.17: write a file beside it, then os.replace. An .npz is a zip of .npy files.
    raise NotImplementedError("kata 05.17: save")


def load(module: Module, path: str | os.PathLike[str]) -> None:
    """Copy the arrays of an .npz file into the parameters and buffers of `module`, in the dtypes they have.

    Nothing is unpickled. FileNotFoundError if there is no such file; ValueError if it is damaged, is none, or
    does not fit the module. Each names the file, and then nothing at all has changed.
    """
    # TODO 05.18: read everything, then look, then load_state_dict.
    raise NotImplementedError("kata 05.18: load")
