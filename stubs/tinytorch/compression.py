"""Kata 18 · Compression: fewer weights, fewer bits, and a smaller network that learns from a larger one.

A trained network holds more than its answers need. Weights near 0 can go (pruning), one by one, which makes
files smaller and nothing faster, or by whole neurons and channels, which makes both. What stays can be kept
in 8 bits instead of 32 (quantisation), with an error that is known beforehand. And a network that is small
from the start can learn from the answers of a large one (distillation).
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from tinytorch.activations import below_largest
from tinytorch.layers import Buffer, Linear, Module, Parameter, affine, as_rows
from tinytorch.networks import Sequential
from tinytorch.optimizers import Optimizer
from tinytorch.spatial import BatchNorm2d, Conv2d, chunks, conv2d
from tinytorch.tensor import Array, Tensor, as_array, floating, increment_version, op
from tinytorch.training import Callback, check_labels, evaluating

__all__ = [
    "FakeQuantLinear", "HistogramObserver", "MinMaxObserver", "PercentileObserver", "Pruner",
    "QuantizedArray", "QuantizedConv2d", "QuantizedLinear", "SizeRow", "along", "bounds", "calibrate",
    "distill", "distillation_loss", "distillation_loss_back", "fake_quantize", "fake_quantize_back",
    "gradual_sparsity", "integer_matmul", "load_compressed", "magnitude_mask", "prune_channels",
    "prune_global", "prune_neurons", "quantization_grid", "quantize", "quantize_model", "quantized_affine",
    "quantized_matmul", "remade", "save_compressed", "shrink_mlp", "size_report", "sparse_bytes",
    "strongest", "weights_of",
]  # fmt: skip

L = TypeVar("L", bound=Module)
Range = tuple[Any, Any]  # from the lowest to the highest, numbers or arrays of them


# Pruning, weight by weight.


def check_share(name: str, value: float) -> None:
    """ValueError, naming it, for what is not from 0 to 1. Given."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is from 0 to 1, and not {value}")


def weights_of(model: Module) -> list[tuple[str, Parameter]]:
    """What can be pruned of a model: its parameters called "weight" with two axes or more, by name. Given."""
    named = model.named_parameters()
    return [(name, p) for name, p in named if name.rpartition(".")[2] == "weight" and p.ndim >= 2]


def magnitude_mask(weight: Any, sparsity: float) -> Array:
    """Which elements stay if round(sparsity * size) of them go, those nearest to 0: bools of its shape.

    `round` is Python's. Of equal magnitudes those that come first, row by row, go first. ValueError for a
    sparsity that is not from 0 to 1, naming it.
    """
    # TODO 18.1: np.partition finds the largest magnitude that goes. Some of its equals may have to stay.
    raise NotImplementedError("kata 18.1: magnitude_mask")


def prune_global(model: Module, sparsity: float) -> dict[str, Array]:
    """Set the share `sparsity` of all weights of a model to 0, in place; returns the mask of each, by name.

    The weights are those of `weights_of`, and they are ranked together, as if they were one array, in this
    order: so a layer with small weights loses more of them. Biases and norms stay. Errors as for
    `magnitude_mask`; then nothing has changed.
    """
    # TODO 18.2: one long row, one mask, cut up again.
    raise NotImplementedError("kata 18.2: prune_global")


def apply_masks(model: Module, masks: Mapping[str, Array]) -> None:
    """Set to 0, in place, what the masks do not let stay. Given."""
    for name, p in weights_of(model):
        p.data[~masks[name]] = 0
        increment_version(p.data)


def gradual_sparsity(step: int, begin: int, end: int, final: float, initial: float = 0.0) -> float:
    """How sparse a network is to be at a step: from `initial` to `final`, quickly at first, then slowly.

    `initial` up to step `begin`, `final` from step `end` on, and between them
    final + (initial - final) * (1 - (step - begin) / (end - begin))**3 (Zhu and Gupta, 2017). ValueError,
    at any step, for an end before the beginning, naming both, and for a sparsity that is not from 0 to 1,
    naming it.
    """
    # TODO 18.3: mind an `end` that is `begin`: there, `final` holds.
    raise NotImplementedError("kata 18.3: gradual_sparsity")


class Pruner(Callback):
    """Prunes a model while a Trainer trains it, by `prune_global`; what is pruned stays 0.

    `schedule` is a sparsity, or a function from the number of steps to one. The first masks are drawn when a
    fit begins; if there are some already, these are kept, and applied at once. Then new ones are drawn after
    every step whose number is a multiple of `every`. After each other step the masks that are there are
    applied anew: momentum and weight decay move a weight also where its gradient is 0.

    A weight that was pruned does not come back, not even if the schedule falls. A run that goes on from a
    checkpoint ends as if it had not been interrupted.

    Attributes:
        masks: what stays of each weight, by name.
    """

    def __init__(self, model: Module, schedule: float | Callable[[int], float], every: int = 1) -> None:
        """ValueError for an `every` below 1, naming it."""
        if every < 1:
            raise ValueError(f"every is 1 or more, and not {every}")
        self.model, self.schedule, self.every = model, schedule, every
        self.masks: dict[str, Array] = {}

    @property
    def sparsity(self) -> float:
        """The share of the weights that is pruned now; 0 before there are masks. Given."""
        size = sum(mask.size for mask in self.masks.values())
        return 1 - sum(int(mask.sum()) for mask in self.masks.values()) / size if size else 0.0

    def prune(self, step: int) -> None:
        """Draw new masks, for this step; of those before, what was pruned stays so."""
        # TODO 18.3: what is 0 already is the first to go; but a schedule may fall.
        raise NotImplementedError("kata 18.3: Pruner.prune")

    def on_fit_begin(self, trainer: Any) -> None:
        # TODO 18.3: a fit that goes on from a checkpoint has its masks by now.
        raise NotImplementedError("kata 18.3: Pruner.on_fit_begin")

    def on_batch_end(self, trainer: Any) -> None:
        # TODO 18.3: first what was pruned goes back to 0.
        raise NotImplementedError("kata 18.3: Pruner.on_batch_end")

    def state_dict(self) -> dict[str, Any]:
        # TODO 18.3: a mask is an array like any other.
        raise NotImplementedError("kata 18.3: Pruner.state_dict")

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        # TODO 18.3: the other way round.
        raise NotImplementedError("kata 18.3: Pruner.load_state_dict")


def sparse_bytes(mask: Any, itemsize: int = 4) -> dict[str, int]:
    """Bytes of an array of which only what is True in `mask` is not 0, in three formats; `itemsize` a number.

    "dense": all of it. "bitmap": a bit for each element, in whole bytes, and the numbers that are not 0.
    "csr": for each of these its column, and for each row, and for the end, where it begins, in 4 bytes each;
    rows go along the first axis, and an array with fewer than two axes is one row.
    """
    # TODO 18.4: what is not 0 counts; any array will do for a mask.
    raise NotImplementedError("kata 18.4: sparse_bytes")


# Pruning by neurons and channels: what is left is dense, and smaller.


def strongest(scores: Array, keep: int) -> Array:
    """The places of the `keep` highest scores, in ascending order; of equals the later ones. Given.

    ValueError, with the numbers, unless keep is from 1 to as many as there are.
    """
    if not 1 <= keep <= len(scores):
        raise ValueError(f"of {len(scores)}, 1 to {len(scores)} can be kept, and not {keep}")
    return np.flatnonzero(magnitude_mask(scores, 1 - keep / len(scores)))


def remade(layer: L, **arrays: Array | None) -> L:
    """A layer with the same options, with copies of these arrays, and of its own where there is none. Given.

    It has no hooks.
    """
    made = copy.copy(layer)
    vars(made).pop("_forward_hooks", None)
    for name, own in vars(layer).items():
        if isinstance(own, (Parameter, Buffer)):
            array = arrays.get(name)
            part = type(own)(np.array(own.data if array is None else array))
            part.requires_grad = own.requires_grad
            setattr(made, name, part)
    return made


def prune_neurons(first: Linear, second: Linear, keep: int) -> tuple[Linear, Linear]:
    """Two smaller layers, of which the second reads the first, with the `keep` strongest neurons between.

    A neuron is a row of the first weight, its bias, and a column of the second weight. It is as strong as the
    length of that row times the length of that column: so nothing changes if the one is doubled and the other
    halved. The order stays, what was frozen stays frozen, and the layers that are given stay as they are.
    ValueError if they do not fit, naming their shapes; and as of `strongest`, which chooses.
    """
    # TODO 18.5: `strongest` gives their places; index, and let `remade` make layers of it.
    raise NotImplementedError("kata 18.5: prune_neurons")


def shrink_mlp(model: Sequential, keep_fraction: float) -> Sequential:
    """A copy of a multi-layer perceptron that keeps this share of the neurons of each hidden layer.

    From the first to the last, by `prune_neurons`: of n neurons max(1, round(keep_fraction * n)). What stands
    between two Linears must have no parameters or buffers, as activations and Dropout have none: TypeError
    for what has, naming its class. ValueError, naming it, for a share that is not from 0 to 1. The model
    stays as it is.
    """
    # TODO 18.5: two neighbouring Linears at a time; a layer in the middle is pruned from both sides.
    # `copy.deepcopy(x, memo)` puts memo[id(part)] in the place of a part.
    raise NotImplementedError("kata 18.5: shrink_mlp")


def prune_channels(
    conv: Conv2d, norm: BatchNorm2d | None, following: Module, keep: int
) -> tuple[Conv2d, BatchNorm2d | None, Module]:
    """A convolution with its `keep` strongest channels, the batch norm after it, and the layer that reads it.

    With a norm a channel is as strong as |norm.weight| says, for the norm takes away the scale of the kernel;
    without, as the sum of its kernel's magnitudes (Li and others, 2017). `following` is a Conv2d; or a
    Linear, which reads as many columns in a row for each channel as Flatten puts there. The new ones have the
    options and the modes of those that are given, which stay as they are. ValueError, naming shapes, for
    layers that do not fit or have groups, and as of `strongest`; TypeError for another `following`, naming
    its class.
    """
    # TODO 18.6: a channel is a kernel, its bias, four numbers of the norm, and what reads it.
    raise NotImplementedError("kata 18.6: prune_channels")


# Quantisation: numbers on a grid of so many steps, zero among them.


def bounds(bits: int, symmetric: bool = True) -> tuple[int, int]:
    """The lowest and the highest integer of so many bits; symmetric, the lowest is left out. Given.

    ValueError unless there are 2 to 16 bits, naming them.
    """
    if not 2 <= bits <= 16:
        raise ValueError(f"a quantised number has 2 to 16 bits, and not {bits}")
    half = 1 << (bits - 1)
    return (1 - half if symmetric else -half), half - 1


def along(values: Array, axis: int | None, ndim: int) -> Array:
    """A number for each place along `axis`, in a shape that broadcasts against `ndim` axes. Given."""
    return values if axis is None else values.reshape([-1 if i == axis else 1 for i in range(ndim)])


def quantization_grid(
    low: Any, high: Any, bits: int = 8, symmetric: bool = True, dtype: DTypeLike = np.float32
) -> tuple[Array, Array]:
    """(scale, zero_point) of a grid scale * (integer - zero_point) that spans `low` to `high`, and holds 0.

    Symmetric: zero_point is 0, and the largest magnitude lies on the highest integer of `bounds`. Otherwise
    the range, made to hold 0, has high - low = scale * (highest - lowest integer), and
    zero_point = round(lowest - low / scale), rounded to even. So `low` lies within half a step of the lowest
    integer.

    `low` and `high` are numbers or arrays of one shape; so is the scale, in `dtype`, and the zero_point, in
    int8, or int16 for more than 8 bits. A range of nothing but 0 has scale 1; and no scale is below the
    smallest normal number of the dtype.

    Raises:
        ValueError: an end that is not finite; low above high; an unknown number of bits.
    """
    # TODO 18.7: in float64, and divided before subtracted: high - low may be too large for a float.
    raise NotImplementedError("kata 18.7: quantization_grid")


def integers(bits: int) -> DTypeLike:
    """The dtype that holds so many bits. Given."""
    return np.int8 if bits <= 8 else np.int16


@dataclass(frozen=True, eq=False)
class QuantizedArray:
    """scale * (values - zero_point): an array in few bits.

    Attributes:
        values: integers, int8 or int16.
        scale, zero_point: without axes; or one number of each for every place along `axis`.
        axis: counted from 0; None for one scale for all.
    """

    values: Array
    scale: Array
    zero_point: Array
    axis: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.scale.nbytes + self.zero_point.nbytes

    def dequantize(self) -> Array:
        """The numbers, in the dtype of the scale."""
        # TODO 18.8: in int8, what is -128 - 127?
        raise NotImplementedError("kata 18.8: QuantizedArray.dequantize")


def quantize(
    x: Any, bits: int = 8, axis: int | None = None, symmetric: bool = True, within: Range | None = None
) -> QuantizedArray:
    """x on a grid of integers: each number is within half a step of what it becomes, and 0 stays 0.

    Integers are round(x / scale) + zero_point, rounded to even, and those beyond the grid's ends become the
    ends. The grid (see `quantization_grid`) spans from the lowest to the highest number of x; or of each
    place along `axis`, negative ones counted from the end; or it spans `within` = (low, high), whatever x is.

    Scales are in the dtype of x, float32 for integers and lists. Of nothing the range is 0 to 0. ValueError
    for numbers that are not finite, an axis that x has not (naming it and the shape), or an unknown number of
    bits.
    """
    # TODO 18.8: one table of floats, worked on in place, then one of integers.
    raise NotImplementedError("kata 18.8: quantize")


# Which range do activations have? Observers see batches, one after the other, and keep none of them.


class MinMaxObserver:
    """Notes the lowest and the highest number of all that it is shown.

    Attributes:
        low, high: so far; inf and -inf before there was any.
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf

    def observe(self, x: Any) -> None:
        """Look at a batch; an empty one changes nothing. ValueError for numbers that are not finite."""
        # TODO 18.9: two numbers are all that stays.
        raise NotImplementedError("kata 18.9: MinMaxObserver.observe")

    def range(self) -> tuple[float, float]:
        """(low, high); ValueError if nothing was observed."""
        # TODO 18.9: nothing has no lowest number.
        raise NotImplementedError("kata 18.9: MinMaxObserver.range")


class HistogramObserver(MinMaxObserver):
    """Counts, too, how many numbers lie where: in `bins` bins of one width, from -limit to limit. Given.

    The limit is the largest magnitude of the first batch, 1 if that is 0. When a number lies beyond, bins are
    joined in pairs until it does not: so batches are not kept.

    Attributes:
        counts: of each bin.
        limit: where the last one ends.
    """

    def __init__(self, bins: int = 2048) -> None:
        """ValueError for a number of bins that 4 does not divide."""
        super().__init__()
        if bins < 4 or bins % 4:
            raise ValueError(f"{bins} bins cannot be joined in pairs about the middle")
        self.counts, self.limit = np.zeros(bins, np.int64), 0.0

    def observe(self, x: Any) -> None:
        x = as_array(x)
        super().observe(x)
        if not x.size:
            return
        largest = max(-self.low, self.high)
        self.limit = self.limit or largest or 1.0
        while self.limit < largest:
            joined = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(joined, len(joined) // 2)
            self.limit *= 2
        self.counts += np.histogram(x, len(self.counts), (-self.limit, self.limit))[0]

    def edges(self) -> Array:
        """Where bins begin, and the last one ends: one more than there are bins."""
        return np.linspace(-self.limit, self.limit, len(self.counts) + 1)


class PercentileObserver(HistogramObserver):
    """Leaves out the few numbers that are far from all others, so that steps are finer for the rest.

    The range is the narrowest of whole bins such that at most (100 - percentile) / 200 of all numbers lie
    below it, and at most as many above; but never wider than what was observed.
    """

    def __init__(self, percentile: float = 99.9, bins: int = 2048) -> None:
        """ValueError for a percentile that is not above 0 and at most 100, naming it."""
        super().__init__(bins)
        if not 0 < percentile <= 100:
            raise ValueError(f"a percentile is above 0 and at most 100, and not {percentile}")
        self.percentile = percentile

    def range(self) -> tuple[float, float]:
        # TODO 18.9: np.cumsum says how many lie below the end of each bin; and from the other side, above.
        raise NotImplementedError("kata 18.9: PercentileObserver.range")


# Products of integers, and layers that use them.


def integer_matmul(a: Array, b: Array) -> Array:
    """The exact product of two matrices of integers, (m, k) and (k, n), as int64.

    By way of floats, which BLAS multiplies many times faster than numpy multiplies integers: sums of k
    products of magnitude p are exact in float32 while k * p is at most 2**24, and in float64 to 2**53.
    ValueError beyond that, or for shapes that do not fit, naming them; TypeError for what are no integers,
    naming both dtypes.
    """
    # TODO 18.10: the largest magnitudes tell; np.abs of int8 says that of -128 is -128.
    raise NotImplementedError("kata 18.10: integer_matmul")


def quantized_matmul(a: QuantizedArray, b: QuantizedArray) -> Array:
    """The product of two quantised matrices, (m, k) and (k, n): exact sums of integers, scaled at the end.

    It is what a.dequantize() @ b.dequantize() would be without rounding, rounded once, in the dtype in which
    the scales meet. `a` may have a scale for each row (axis 0), `b` for each column (axis 1): a scale that
    changes within a sum cannot be taken out of it, and is a ValueError that names the axes. Errors as of
    `integer_matmul`.
    """
    # TODO 18.10: multiply out (a - za) @ (b - zb): the products with za and zb need only sums.
    raise NotImplementedError("kata 18.10: quantized_matmul")


@op
def quantized_affine(x: Array, values: Array, scale: Array, bias: Array | None = None) -> Array:
    """affine(x, scale * values, bias), in the dtype of x, with a scale for each row of `values` or for all.

    Of integers it is float32. Of the weights as floats there are only some rows at a time. ValueError, naming
    the shapes, for an x that does not fit. It has no gradient: such weights are used, and not trained.
    """
    # TODO 18.11: `chunks` of kata 07 gives some rows; scale the outputs, which are fewer than the weights.
    raise NotImplementedError("kata 18.11: quantized_affine")


class QuantizedLinear(Module):
    """A Linear with weights in few bits, for use; in training mode if that is.

    Its numbers are Buffers: `state_dict` has them, training does not see them. Weights are on a symmetric
    grid. With an `input_range` the inputs are quantised too: in 8 bits (16 if the weights have more than 8),
    not symmetric, within that range; and the product is one of integers.

    Attributes:
        weight: (out_features, in_features), int8 or int16.
        scale: (out_features,), or without axes if not `per_channel`.
        bias: as that of the Linear, a copy; or None.
        input_range: (low, high), float64; or None.
        bits: as given.
    """

    def __init__(
        self,
        linear: Linear,
        bits: int = 8,
        per_channel: bool = True,
        input_range: tuple[float, float] | None = None,
    ) -> None:
        # TODO 18.11: `quantize`, with a scale for each output.
        raise NotImplementedError("kata 18.11: QuantizedLinear.__init__")

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features), in the dtype of x, of integers in float32.

        ValueError, naming the shape, for an x that does not fit.
        """
        # TODO 18.11: one operation; or, with a range, two matrices, of which the weights are turned.
        raise NotImplementedError("kata 18.11: QuantizedLinear.forward")

    def flops(self, inputs: tuple[Any, ...], out: Any) -> int:
        return int(2 * out.size * self.weight.shape[1])

    def extra_repr(self) -> str:
        outputs, inputs = self.weight.shape
        return f"in_features={inputs}, out_features={outputs}, bits={self.bits}"


class QuantizedConv2d(Module):
    """A Conv2d with kernels in few bits, for use: they are made floats each time. Given.

    Attributes:
        weight, scale, bias, bits: as of QuantizedLinear.
    """

    def __init__(self, conv: Conv2d, bits: int = 8, per_channel: bool = True) -> None:
        quantized = quantize(conv.weight, bits, axis=0 if per_channel else None)
        self.bits, self.training = bits, conv.training
        self.options = {name: getattr(conv, name) for name in ("stride", "padding", "dilation", "groups")}
        self.weight, self.scale = Buffer(quantized.values), Buffer(quantized.scale)
        self.bias = None if conv.bias is None else Buffer(conv.bias.data.copy())

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale.data
        zero_point = np.zeros(scale.shape, self.weight.dtype)
        kernels = QuantizedArray(self.weight.data, scale, zero_point, 0 if scale.ndim else None)
        return conv2d(x, kernels.dequantize(), self.bias, **self.options)

    def extra_repr(self) -> str:
        return f"{self.weight.shape}, bits={self.bits}"


def calibrate(
    model: Module, batches: Iterable[Any], observer: Callable[[], MinMaxObserver] = MinMaxObserver
) -> dict[Module, tuple[float, float]]:
    """The range of what goes into each Linear of a model while it is used on batches of inputs.

    Of a batch that is a tuple or a list, the first item is what goes in. Each Linear has an `observer()` of
    its own; one that nothing went into is left out. The model is in eval mode meanwhile, without a graph;
    then as it was, without hooks, also if something fails. ValueError if there are no batches.
    """
    # TODO 18.12: a hook is called with (module, inputs, out); `evaluating` is of kata 10.
    raise NotImplementedError("kata 18.12: calibrate")


def quantize_model(
    model: Module,
    bits: int = 8,
    per_channel: bool = True,
    calibration: Iterable[Any] | None = None,
    observer: Callable[[], MinMaxObserver] = MinMaxObserver,
) -> Any:
    """A copy of a model in which each Linear is a QuantizedLinear, and each Conv2d a QuantizedConv2d.

    The model itself stays as it is; a layer that it holds twice, the copy holds twice. Subclasses of the two
    count as they do; all else is copied. With `calibration`, batches for `calibrate`, each Linear gets the
    range of its inputs. Errors as of `calibrate`; ValueError for an unknown number of bits.
    """
    # TODO 18.12: `copy.deepcopy(model, memo)`: what it finds in memo under a part's id, it takes for the copy
    # of that part. So no weight has to be copied that is not needed.
    raise NotImplementedError("kata 18.12: quantize_model")


# Training for few bits.


@op(saves=["inside"])
def fake_quantize(
    x: Array,
    *,
    bits: int = 8,
    axis: int | None = None,
    symmetric: bool = True,
    within: Range | None = None,
) -> tuple[Array, Array | None]:
    """quantize(x, ...).dequantize(): floats that lie on the grid, so that training feels the error.

    The slope of a staircase is 0 nearly everywhere. So the way back takes it for a straight line (Bengio and
    others, 2013): the gradient goes through as it is, but not where x lies beyond the ends of `within`, the
    ends themselves inside. These are made to hold 0 and, if symmetric, one as far from it as the other.
    Beside the result comes where x is inside; None without `within`.
    """
    # TODO 18.13: without `within` nothing lies outside, and nothing has to be kept.
    raise NotImplementedError("kata 18.13: fake_quantize")


@fake_quantize.gradient
def fake_quantize_back(grad: Array) -> Array:
    """The gradient of x."""
    # TODO 18.13: bools are factors.
    raise NotImplementedError("kata 18.13: fake_quantize_back")


class FakeQuantLinear(Linear):
    """A Linear that computes with its weights as they will be once quantised, while training moves floats.

    It has the very Parameters of `linear`, so that this is trained with it, and can be quantised at the end.

    Attributes:
        weight, bias: those of `linear`.
        bits: as given.
    """

    def __init__(self, linear: Linear, bits: int = 8) -> None:
        # TODO 18.13: nothing is copied, nothing drawn.
        raise NotImplementedError("kata 18.13: FakeQuantLinear.__init__")

    def forward(self, x: Tensor) -> Tensor:
        # TODO 18.13: a scale for each output, as QuantizedLinear has.
        raise NotImplementedError("kata 18.13: FakeQuantLinear.forward")


# Distillation.


@op(saves=["slope"])
def distillation_loss(
    student_logits: Array,
    teacher_logits: Array,
    labels: Any,
    *,
    temperature: float = 4.0,
    alpha: float = 0.5,
) -> tuple[Any, Array]:
    """How far a student is from its teacher, and from the labels: a mean over the rows of (n, classes).

    alpha * temperature**2 * KL(p || q) + (1 - alpha) * cross-entropy of student_logits and labels, with
    p = softmax(teacher_logits / temperature), and q the same of the student (Hinton and others, 2015). KL is
    the sum over classes of p * log(p / q). In the student's dtype. Beside the result comes its gradient by
    student_logits.

    Raises:
        ValueError: logits of different shapes, naming both; a temperature that is not above 0, an alpha that
            is not from 0 to 1, naming it; no rows, naming the shape; labels as of `check_labels` (10).
        TypeError: labels that are no integers, likewise.
    """
    # TODO 18.14: log p is x - log(sum(exp(x))), of x after `below_largest` of kata 04.
    raise NotImplementedError("kata 18.14: distillation_loss")


def log_softmax(x: Array) -> Array:
    """log softmax of each row, in a new array. Given."""
    below: Array = below_largest(x, axis=1)
    below -= np.log(np.exp(below).sum(axis=1, keepdims=True))
    return below


@distillation_loss.gradient
def distillation_loss_back(grad: Array) -> tuple[Array, None, None]:
    """The gradient of student_logits; the teacher and the labels have none."""
    # TODO 18.14: the slope of T**2 * KL is T * (q - p).
    raise NotImplementedError("kata 18.14: distillation_loss_back")


def distill(
    student: Module,
    teacher: Module,
    loader: Iterable[Any],
    optimizer: Optimizer,
    *,
    epochs: int = 1,
    temperature: float = 4.0,
    alpha: float = 0.5,
) -> list[float]:
    """Train a student on the answers of a teacher; returns the mean loss over the rows of each epoch.

    The loader gives batches (inputs, labels); both see the same inputs. The teacher is used, not trained: in
    eval mode and without a graph, and ends in the mode in which it was. In which mode the student is, is for
    the caller to say. Losses are Python's own floats. ValueError for a loader without rows.
    """
    # TODO 18.15: `evaluating` is about the teacher alone; the student's pass is outside of it.
    raise NotImplementedError("kata 18.15: distill")


# How large is it, and on disk?


class SizeRow(NamedTuple):
    """One array of a model.

    Attributes:
        dense: its bytes in memory.
        stored: in the smaller of "dense" and "bitmap" of `sparse_bytes`: what `save_compressed` writes.
        sparsity: which share of it is 0; of an empty one, 0.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    dense: int
    stored: int
    sparsity: float


def size_report(model: Module) -> list[SizeRow]:
    """A row for each array of the state_dict, in order, one with several names under its first; then a sum.

    The last row is called "total", and has the shape (numbers,), the dtype "", and the sparsity of all.
    """
    # TODO 18.16: `sparse_bytes` knows the sizes.
    raise NotImplementedError("kata 18.16: size_report")


MAGIC = b"tinytorch compressed 1\n"


def save_compressed(model: Module, path: str | os.PathLike[str]) -> None:
    """Write the state_dict of a model, each array in the smaller of "dense" and "bitmap", without pickle.

    An array with several names is written once. The file is no larger than all of them are so, 512 bytes for
    each name, and 1 KiB. It is there whole or not at all, as with `save` of kata 05. How it is laid out is
    yours to say; but `load_compressed` must notice whatever happens to it.
    """
    # TODO 18.16: here MAGIC, eight bytes with the length of a header, the header in JSON, of each array its
    # bits (np.packbits) and its numbers or just these, and at last zlib.crc32 of everything before.
    raise NotImplementedError("kata 18.16: save_compressed")


def load_compressed(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The state_dict that `save_compressed` wrote: dense arrays by name, in its order, for `load_state_dict`.

    They may be written to. Number for number, but for -0.0, which may come back as 0.0. FileNotFoundError if
    there is no such file; ValueError, naming it, if it is damaged, cut off, too long, or no such file. No
    pickle is read, and no size in it is believed.
    """
    # TODO 18.16: look at the sum before anything else. np.frombuffer takes so many numbers from a place in
    # bytes, or is a ValueError if there are not as many; what it gives is a view.
    raise NotImplementedError("kata 18.16: load_compressed")
