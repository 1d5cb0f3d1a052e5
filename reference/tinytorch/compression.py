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
    # kata 18.1: np.partition finds the largest magnitude that goes. Some of its equals may have to stay.
    check_share("sparsity", sparsity)
    weight = as_array(weight)
    sizes = np.abs(floating(weight)).reshape(-1)
    mask = np.ones(sizes.size, bool)
    if count := round(sparsity * sizes.size):
        last = np.partition(sizes, count - 1)[count - 1]
        np.greater(sizes, last, out=mask)
        equal = np.flatnonzero(sizes == last)
        mask[equal[count - np.count_nonzero(sizes < last) :]] = True
    stays: Array = mask.reshape(weight.shape)
    return stays


def prune_global(model: Module, sparsity: float) -> dict[str, Array]:
    """Set the share `sparsity` of all weights of a model to 0, in place; returns the mask of each, by name.

    The weights are those of `weights_of`, and they are ranked together, as if they were one array, in this
    order: so a layer with small weights loses more of them. Biases and norms stay. Errors as for
    `magnitude_mask`; then nothing has changed.
    """
    # kata 18.2: one long row, one mask, cut up again.
    weights = weights_of(model)
    sizes = [np.abs(p.data).reshape(-1) for _, p in weights]
    mask = magnitude_mask(np.concatenate(sizes) if sizes else np.empty(0), sparsity)
    masks, start = {}, 0
    for name, p in weights:
        masks[name] = mask[start : start + p.size].reshape(p.shape)
        start += p.size
    apply_masks(model, masks)
    return masks


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
    # kata 18.3: mind an `end` that is `begin`: there, `final` holds.
    check_share("final", final)
    check_share("initial", initial)
    if end < begin:
        raise ValueError(f"pruning ends at step {end}, before it begins at {begin}")
    if step >= end:
        return final
    if step <= begin:
        return initial
    return final + (initial - final) * (1 - (step - begin) / (end - begin)) ** 3


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
        # kata 18.3: what is 0 already is the first to go; but a schedule may fall.
        sparsity = self.schedule(step) if callable(self.schedule) else self.schedule
        masks = prune_global(self.model, sparsity)
        self.masks = {name: mask & self.masks.get(name, mask) for name, mask in masks.items()}

    def on_fit_begin(self, trainer: Any) -> None:
        # kata 18.3: a fit that goes on from a checkpoint has its masks by now.
        if self.masks:
            apply_masks(self.model, self.masks)
        else:
            self.prune(trainer.step)

    def on_batch_end(self, trainer: Any) -> None:
        # kata 18.3: first what was pruned goes back to 0.
        apply_masks(self.model, self.masks)
        if trainer.step % self.every == 0:
            self.prune(trainer.step)

    def state_dict(self) -> dict[str, Any]:
        # kata 18.3: a mask is an array like any other.
        return {"masks": self.masks}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        # kata 18.3: the other way round.
        self.masks = dict(saved["masks"])


def sparse_bytes(mask: Any, itemsize: int = 4) -> dict[str, int]:
    """Bytes of an array of which only what is True in `mask` is not 0, in three formats; `itemsize` a number.

    "dense": all of it. "bitmap": a bit for each element, in whole bytes, and the numbers that are not 0.
    "csr": for each of these its column, and for each row, and for the end, where it begins, in 4 bytes each;
    rows go along the first axis, and an array with fewer than two axes is one row.
    """
    # kata 18.4: what is not 0 counts; any array will do for a mask.
    mask = as_array(mask)
    rows, kept = len(mask) if mask.ndim > 1 else 1, int(np.count_nonzero(mask))
    return {
        "dense": mask.size * itemsize,
        "bitmap": -(-mask.size // 8) + kept * itemsize,
        "csr": kept * (itemsize + 4) + 4 * (rows + 1),
    }


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
    # kata 18.5: `strongest` gives their places; index, and let `remade` make layers of it.
    rows, columns = first.weight.data, second.weight.data
    if len(rows) != columns.shape[1]:
        raise ValueError(f"weights of shape {rows.shape} do not feed weights of shape {columns.shape}")
    kept = strongest(np.linalg.norm(rows, axis=1) * np.linalg.norm(columns, axis=0), keep)
    bias = None if first.bias is None else first.bias.data[kept]
    return remade(first, weight=rows[kept], bias=bias), remade(second, weight=columns[:, kept])


def shrink_mlp(model: Sequential, keep_fraction: float) -> Sequential:
    """A copy of a multi-layer perceptron that keeps this share of the neurons of each hidden layer.

    From the first to the last, by `prune_neurons`: of n neurons max(1, round(keep_fraction * n)). What stands
    between two Linears must have no parameters or buffers, as activations and Dropout have none: TypeError
    for what has, naming its class. ValueError, naming it, for a share that is not from 0 to 1. The model
    stays as it is.
    """
    # kata 18.5: two neighbouring Linears at a time; a layer in the middle is pruned from both sides.
    # `copy.deepcopy(x, memo)` puts memo[id(part)] in the place of a part.
    check_share("keep_fraction", keep_fraction)
    linears = {i: layer for i, layer in enumerate(model) if isinstance(layer, Linear)}
    smaller = dict(linears)
    for i, j in itertools.pairwise(linears):
        for between in model[i + 1 : j]:
            if between.state_dict():
                raise TypeError(f"a {type(between).__name__} stands between two Linears, and has parameters")
        keep = max(1, round(keep_fraction * len(smaller[i].weight.data)))
        smaller[i], smaller[j] = prune_neurons(smaller[i], smaller[j], keep)
    return copy.deepcopy(model, {id(linears[i]): smaller[i] for i in linears if smaller[i] is not linears[i]})


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
    # kata 18.6: a channel is a kernel, its bias, four numbers of the norm, and what reads it.
    kernels = conv.weight.data
    count = len(kernels)
    if not isinstance(following, (Conv2d, Linear)):
        raise TypeError(f"channels are read by a Conv2d or a Linear, not by a {type(following).__name__}")
    weight = following.weight.data
    groups = [layer.groups for layer in (conv, following) if isinstance(layer, Conv2d)]
    fits = weight.shape[1] == count or (isinstance(following, Linear) and weight.shape[1] % count == 0)
    if not fits or max(groups) > 1 or (norm is not None and norm.weight.shape != (count,)):
        between = "" if norm is None else f", a norm of shape {norm.weight.shape},"
        raise ValueError(
            f"kernels of shape {kernels.shape}{between} and weights of shape {weight.shape}, in {groups} "
            "groups: one group, and channels as many as are read"
        )
    strength = np.abs(kernels).reshape(count, -1).sum(axis=1) if norm is None else np.abs(norm.weight.data)
    kept = strongest(strength, keep)
    smaller = None
    if norm is not None:
        parts = ("weight", "bias", "running_mean", "running_var")
        smaller = remade(norm, **{name: getattr(norm, name).data[kept] for name in parts})
    read = weight.reshape(len(weight), count, -1)[:, kept]
    shape = len(weight), len(kept) * (weight.shape[1] // count), *weight.shape[2:]
    bias = None if conv.bias is None else conv.bias.data[kept]
    return (
        remade(conv, weight=kernels[kept], bias=bias),
        smaller,
        remade(following, weight=read.reshape(shape)),
    )


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
    # kata 18.7: in float64, and divided before subtracted: high - low may be too large for a float.
    lowest, highest = bounds(bits, symmetric)
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
        raise ValueError(
            f"a grid goes from a finite number to one not below it, and not from {low} to {high}"
        )
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    scale = (
        np.maximum(-low, high) / highest
        if symmetric
        else high / (highest - lowest) - low / (highest - lowest)
    )
    scale = np.where(scale == 0, 1, np.maximum(scale, np.finfo(dtype).tiny))
    zero = np.zeros(scale.shape) if symmetric else np.clip(np.rint(lowest - low / scale), lowest, highest)
    return scale.astype(dtype), np.asarray(zero, integers(bits))


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
        # kata 18.8: in int8, what is -128 - 127?
        out: Array = self.values.astype(self.scale.dtype)
        if self.zero_point.any():
            out -= along(self.zero_point, self.axis, out.ndim)
        out *= along(self.scale, self.axis, out.ndim)
        return out


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
    # kata 18.8: one table of floats, worked on in place, then one of integers.
    x = floating(as_array(x))
    if axis is not None:
        if not -x.ndim <= axis < x.ndim:
            raise ValueError(f"an array of shape {x.shape} has no axis {axis}")
        axis %= x.ndim
    others = tuple(i for i in range(x.ndim) if i != axis)  # all, if axis is None
    low, high = x.min(axis=others, initial=0), x.max(axis=others, initial=0)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("an array with numbers that are not finite has no grid")
    if within is not None:
        low, high = (np.broadcast_to(end, low.shape) for end in within)
    scale, zero_point = quantization_grid(low, high, bits, symmetric, x.dtype)
    steps = np.asarray(x / along(scale, axis, x.ndim))
    np.rint(steps, out=steps)
    steps += along(zero_point, axis, x.ndim)
    np.clip(steps, *bounds(bits, symmetric), out=steps)
    return QuantizedArray(steps.astype(zero_point.dtype), scale, zero_point, axis)


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
        # kata 18.9: two numbers are all that stays.
        x = as_array(x)
        if x.size:
            low, high = float(x.min()), float(x.max())
            if not (math.isfinite(low) and math.isfinite(high)):
                raise ValueError(f"a batch from {low} to {high} has no range")
            self.low, self.high = min(self.low, low), max(self.high, high)

    def range(self) -> tuple[float, float]:
        """(low, high); ValueError if nothing was observed."""
        # kata 18.9: nothing has no lowest number.
        if self.low > self.high:
            raise ValueError(f"a {type(self).__name__} that has observed nothing has no range")
        return self.low, self.high


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
        # kata 18.9: np.cumsum says how many lie below the end of each bin; and from the other side, above.
        low, high = super().range()
        edges, most = self.edges(), (100 - self.percentile) / 200 * self.counts.sum()
        below = int(np.searchsorted(np.cumsum(self.counts), most, side="right"))
        above = int(np.searchsorted(np.cumsum(self.counts[::-1]), most, side="right"))
        return max(low, float(edges[below])), min(high, float(edges[::-1][above]))


# Products of integers, and layers that use them.


def integer_matmul(a: Array, b: Array) -> Array:
    """The exact product of two matrices of integers, (m, k) and (k, n), as int64.

    By way of floats, which BLAS multiplies many times faster than numpy multiplies integers: sums of k
    products of magnitude p are exact in float32 while k * p is at most 2**24, and in float64 to 2**53.
    ValueError beyond that, or for shapes that do not fit, naming them; TypeError for what are no integers,
    naming both dtypes.
    """
    # kata 18.10: the largest magnitudes tell; np.abs of int8 says that of -128 is -128.
    if a.dtype.kind not in "iu" or b.dtype.kind not in "iu":
        raise TypeError(f"integers are multiplied here, and not {a.dtype} and {b.dtype}")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"matrices of shapes {a.shape} and {b.shape} have no product")
    largest = a.shape[1] * math.prod(max(int(m.max(initial=0)), -int(m.min(initial=0))) for m in (a, b))
    if largest > 1 << 53:
        raise ValueError(f"sums of matrices of shapes {a.shape} and {b.shape} may be as large as {largest}")
    dtype = np.float32 if largest <= 1 << 24 else np.float64
    product: Array = (a.astype(dtype) @ b.astype(dtype)).astype(np.int64)
    return product


def quantized_matmul(a: QuantizedArray, b: QuantizedArray) -> Array:
    """The product of two quantised matrices, (m, k) and (k, n): exact sums of integers, scaled at the end.

    It is what a.dequantize() @ b.dequantize() would be without rounding, rounded once, in the dtype in which
    the scales meet. `a` may have a scale for each row (axis 0), `b` for each column (axis 1): a scale that
    changes within a sum cannot be taken out of it, and is a ValueError that names the axes. Errors as of
    `integer_matmul`.
    """
    # kata 18.10: multiply out (a - za) @ (b - zb): the products with za and zb need only sums.
    if a.axis not in (None, 0) or b.axis not in (None, 1):
        raise ValueError(f"scales along axes {a.axis} and {b.axis}: only rows times columns can be scaled")
    total = integer_matmul(a.values, b.values)
    za, zb = (along(m.zero_point.astype(np.int64), m.axis, 2) for m in (a, b))
    total -= za * b.values.sum(axis=0, dtype=np.int64)
    total -= zb * (a.values.sum(axis=1, dtype=np.int64)[:, None] - a.shape[1] * za)
    scale = along(a.scale.astype(np.float64), a.axis, 2) * along(b.scale, b.axis, 2)
    out: Array = (total * scale).astype(np.result_type(a.scale, b.scale))
    return out


@op
def quantized_affine(x: Array, values: Array, scale: Array, bias: Array | None = None) -> Array:
    """affine(x, scale * values, bias), in the dtype of x, with a scale for each row of `values` or for all.

    Of integers it is float32. Of the weights as floats there are only some rows at a time. ValueError, naming
    the shapes, for an x that does not fit. It has no gradient: such weights are used, and not trained.
    """
    # kata 18.11: `chunks` of kata 07 gives some rows; scale the outputs, which are fewer than the weights.
    x = floating(x)
    if x.shape[-1:] != values.shape[1:]:
        raise ValueError(f"an input of shape {x.shape} does not fit weights of shape {values.shape}")
    rows = as_rows(x)
    out = np.empty((len(rows), len(values)), x.dtype)
    for some in chunks(len(values), 4 * values.shape[1] * x.itemsize):
        np.matmul(rows, values[some].astype(x.dtype).T, out=out[:, some])
    out *= scale.astype(x.dtype)
    if bias is not None:
        out += bias.astype(x.dtype)
    return out.reshape(*x.shape[:-1], len(values))


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
        # kata 18.11: `quantize`, with a scale for each output.
        quantized = quantize(linear.weight, bits, axis=0 if per_channel else None)
        self.bits = bits
        self.weight, self.scale = Buffer(quantized.values), Buffer(quantized.scale)
        self.bias = None if linear.bias is None else Buffer(linear.bias.data.copy())
        self.input_range = None if input_range is None else Buffer(np.array(input_range, np.float64))
        self.training = linear.training

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features), in the dtype of x, of integers in float32.

        ValueError, naming the shape, for an x that does not fit.
        """
        # kata 18.11: one operation; or, with a range, two matrices, of which the weights are turned.
        if self.input_range is None:
            return quantized_affine(x, self.weight, self.scale, self.bias)
        array = floating(as_array(x))
        low, high = self.input_range.data
        inputs = quantize(as_rows(array), 8 if self.bits <= 8 else 16, symmetric=False, within=(low, high))
        scale = self.scale.data
        zero_point = np.zeros(scale.shape, self.weight.dtype)
        weights = QuantizedArray(self.weight.data.T, scale, zero_point, 1 if scale.ndim else None)
        out = quantized_matmul(inputs, weights).astype(array.dtype, copy=False)
        if self.bias is not None:
            out += self.bias.data.astype(array.dtype)
        return Tensor(out.reshape(*array.shape[:-1], out.shape[1]))

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
    # kata 18.12: a hook is called with (module, inputs, out); `evaluating` is of kata 10.
    observers: dict[Module, MinMaxObserver] = {}

    def look(layer: Module, inputs: tuple[Any, ...], out: Any) -> None:
        if layer not in observers:
            observers[layer] = observer()
        observers[layer].observe(inputs[0])

    linears = [layer for layer in model.modules() if isinstance(layer, Linear)]
    removers = [layer.register_forward_hook(look) for layer in linears]
    used = False
    try:
        with evaluating(model):
            for batch in batches:
                model(Tensor(as_array(batch[0] if isinstance(batch, (tuple, list)) else batch)))
                used = True
    finally:
        for remove in removers:
            remove()
    if not used:
        raise ValueError("there are no batches to calibrate with")
    return {layer: seen.range() for layer, seen in observers.items()}


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
    # kata 18.12: `copy.deepcopy(model, memo)`: what it finds in memo under a part's id, it takes for the copy
    # of that part. So no weight has to be copied that is not needed.
    ranges = {} if calibration is None else calibrate(model, calibration, observer)
    memo: dict[int, Any] = {}
    for layer in model.modules():
        if isinstance(layer, Linear):
            memo[id(layer)] = QuantizedLinear(layer, bits, per_channel, ranges.get(layer))
        elif isinstance(layer, Conv2d):
            memo[id(layer)] = QuantizedConv2d(layer, bits, per_channel)
    return copy.deepcopy(model, memo)


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
    # kata 18.13: without `within` nothing lies outside, and nothing has to be kept.
    x = floating(x)
    out = quantize(x, bits, axis, symmetric, within).dequantize()
    if within is None:
        return out, None
    low, high = (np.asarray(end, x.dtype) for end in within)
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    if symmetric:
        high = np.maximum(-low, high)
        low = -high
    place = None if axis is None else axis % x.ndim
    low, high = (along(end, place, x.ndim) for end in (low, high))
    return out, (x >= low) & (x <= high)


@fake_quantize.gradient
def fake_quantize_back(grad: Array, inside: Array | None) -> Array:  # stub: (grad: Array)
    """The gradient of x."""
    # kata 18.13: bools are factors.
    return grad if inside is None else grad * inside


class FakeQuantLinear(Linear):
    """A Linear that computes with its weights as they will be once quantised, while training moves floats.

    It has the very Parameters of `linear`, so that this is trained with it, and can be quantised at the end.

    Attributes:
        weight, bias: those of `linear`.
        bits: as given.
    """

    def __init__(self, linear: Linear, bits: int = 8) -> None:
        # kata 18.13: nothing is copied, nothing drawn.
        self.weight, self.bias, self.bits = linear.weight, linear.bias, bits

    def forward(self, x: Tensor) -> Tensor:
        # kata 18.13: a scale for each output, as QuantizedLinear has.
        return affine(x, fake_quantize(self.weight, bits=self.bits, axis=0), self.bias)


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
    # kata 18.14: log p is x - log(sum(exp(x))), of x after `below_largest` of kata 04.
    check_share("alpha", alpha)
    if not temperature > 0:
        raise ValueError(f"a temperature is above 0, and not {temperature}")
    student = floating(student_logits)
    teacher = floating(teacher_logits).astype(student.dtype, copy=False)
    if student.shape != teacher.shape:
        raise ValueError(f"a student's logits of shape {student.shape}, a teacher's of {teacher.shape}")
    labels = check_labels(student, labels)
    if not len(labels):
        raise ValueError(f"logits of shape {student.shape} have no mean")
    rows = np.arange(len(labels))
    slope = log_softmax(student)
    loss = (alpha - 1) * slope[rows, labels].mean()
    np.exp(slope, out=slope)
    slope[rows, labels] -= 1
    slope *= (1 - alpha) / len(labels)
    log_p, log_q = (log_softmax(logits / temperature) for logits in (teacher, student))
    p = np.exp(log_p)
    log_p -= log_q
    log_p *= p
    loss += alpha * temperature**2 * log_p.sum() / len(labels)
    np.exp(log_q, out=log_q)
    log_q -= p
    log_q *= alpha * temperature / len(labels)
    slope += log_q
    return np.asarray(loss, student.dtype), slope


def log_softmax(x: Array) -> Array:
    """log softmax of each row, in a new array. Given."""
    below: Array = below_largest(x, axis=1)
    below -= np.log(np.exp(below).sum(axis=1, keepdims=True))
    return below


@distillation_loss.gradient
def distillation_loss_back(grad: Array, slope: Array) -> tuple[Array, None, None]:  # stub: (grad: Array)
    """The gradient of student_logits; the teacher and the labels have none."""
    # kata 18.14: the slope of T**2 * KL is T * (q - p).
    return slope * grad, None, None


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
    # kata 18.15: `evaluating` is about the teacher alone; the student's pass is outside of it.
    losses = []
    for _ in range(epochs):
        total, rows = 0.0, 0
        for inputs, labels in loader:
            x = Tensor(as_array(inputs))
            with evaluating(teacher):
                wanted = teacher(x).data
            loss = distillation_loss(student(x), wanted, labels, temperature=temperature, alpha=alpha)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.data) * len(labels)
            rows += len(labels)
        if not rows:
            raise ValueError("there are no rows to learn from")
        losses.append(total / rows)
    return losses


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
    # kata 18.16: `sparse_bytes` knows the sizes.
    rows, seen, zeros = [], set(), 0
    for name, array in model.state_dict().items():
        if id(array) not in seen:
            seen.add(id(array))
            empty = array.size - int(np.count_nonzero(array))
            zeros += empty
            sizes = sparse_bytes(array, array.itemsize)
            stored = min(sizes["dense"], sizes["bitmap"])
            share = empty / max(array.size, 1)
            rows.append(SizeRow(name, array.shape, str(array.dtype), array.nbytes, stored, share))
    dense, stored = sum(row.dense for row in rows), sum(row.stored for row in rows)
    size = sum(math.prod(row.shape) for row in rows)
    return [*rows, SizeRow("total", (size,), "", dense, stored, zeros / max(size, 1))]


MAGIC = b"tinytorch compressed 1\n"


def save_compressed(model: Module, path: str | os.PathLike[str]) -> None:
    """Write the state_dict of a model, each array in the smaller of "dense" and "bitmap", without pickle.

    An array with several names is written once. The file is no larger than all of them are so, 512 bytes for
    each name, and 1 KiB. It is there whole or not at all, as with `save` of kata 05. How it is laid out is
    yours to say; but `load_compressed` must notice whatever happens to it.
    """
    # kata 18.16: here MAGIC, eight bytes with the length of a header, the header in JSON, of each array its
    # bits (np.packbits) and its numbers or just these, and at last zlib.crc32 of everything before.
    state, first = model.state_dict(), dict[int, str]()
    header: dict[str, Any] = {}
    for name, array in state.items():
        known = first.setdefault(id(array), name)
        sizes = sparse_bytes(array, array.itemsize)
        sparse = sizes["bitmap"] < sizes["dense"]
        entry = {"dtype": array.dtype.str, "shape": array.shape, "sparse": sparse}
        header[name] = entry if known == name else {"same": known}
    words = json.dumps(header).encode()

    def pieces() -> Iterator[Any]:
        yield MAGIC + len(words).to_bytes(8, "little") + words
        for name in first.values():
            flat = np.ascontiguousarray(state[name]).reshape(-1)
            if header[name]["sparse"]:
                yield np.packbits(flat != 0).data
                flat = flat[flat != 0]
            yield flat.view(np.uint8).data

    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with open(unfinished, "wb") as file:
            check = 0
            for piece in pieces():
                check = zlib.crc32(piece, check)
                file.write(piece)
            file.write(check.to_bytes(4, "little"))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def load_compressed(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The state_dict that `save_compressed` wrote: dense arrays by name, in its order, for `load_state_dict`.

    They may be written to. Number for number, but for -0.0, which may come back as 0.0. FileNotFoundError if
    there is no such file; ValueError, naming it, if it is damaged, cut off, too long, or no such file. No
    pickle is read, and no size in it is believed.
    """
    # kata 18.16: look at the sum before anything else. np.frombuffer takes so many numbers from a place in
    # bytes, or is a ValueError if there are not as many; what it gives is a view.
    raw = memoryview(Path(path).read_bytes())
    body, at = raw[:-4], len(MAGIC) + 8
    state: dict[str, Array] = {}
    try:
        if bytes(body[: len(MAGIC)]) != MAGIC or zlib.crc32(body).to_bytes(4, "little") != raw[-4:]:
            raise ValueError("its beginning or its sum is another")
        end = at + int.from_bytes(body[len(MAGIC) : at], "little")
        header, at = json.loads(bytes(body[at:end])), end
        for name, entry in header.items():
            if "same" in entry:
                state[name] = state[entry["same"]]
                continue
            dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
            size = math.prod(shape)
            if entry["sparse"]:
                bits = np.frombuffer(body, np.uint8, -(-size // 8), at)
                mask = np.unpackbits(bits, count=size).view(bool)
                at += bits.nbytes
                values = np.frombuffer(body, dtype, np.count_nonzero(mask), at)
                array = np.zeros(size, dtype)
                array[mask] = values
            else:
                values = np.frombuffer(body, dtype, size, at)
                array = values.copy()
            at += values.nbytes
            state[name] = array.reshape(shape)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)} is damaged, or no compressed model: {error}") from error
    return state
