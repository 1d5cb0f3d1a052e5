"""Kata 18 in another manner: thresholds and running counts, float64 instead of integers, layers that change
their class, a loss that is computed again on the way back, and a file that is one run of bytes."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinytorch.autograd import no_grad
from tinytorch.layers import Buffer, Linear, Module, Parameter, affine
from tinytorch.networks import Sequential
from tinytorch.optimizers import Optimizer
from tinytorch.spatial import BatchNorm2d, Conv2d, conv2d
from tinytorch.tensor import Array, Tensor, as_array, floating, increment_version, op
from tinytorch.training import Callback, check_labels

__all__ = [
    "FakeQuantLinear", "HistogramObserver", "MinMaxObserver", "PercentileObserver", "Pruner",
    "QuantizedArray", "QuantizedConv2d", "QuantizedLinear", "SizeRow", "along", "bounds", "calibrate",
    "distill", "distillation_loss", "distillation_loss_back", "fake_quantize", "fake_quantize_back",
    "gradual_sparsity", "integer_matmul", "load_compressed", "magnitude_mask", "prune_channels",
    "prune_global", "prune_neurons", "quantization_grid", "quantize", "quantize_model", "quantized_affine",
    "quantized_matmul", "remade", "save_compressed", "shrink_mlp", "size_report", "sparse_bytes", "strongest",
    "weights_of",
]  # fmt: skip


def magnitude_mask(weight: Any, sparsity: float) -> Array:
    array = as_array(weight)
    if sparsity < 0 or sparsity > 1 or sparsity != sparsity:
        raise ValueError(f"sparsity {sparsity}")
    count = round(sparsity * array.size)
    sizes = np.absolute(floating(array)).flatten()
    if count == 0:
        return np.full(array.shape, True)
    edge = np.sort(sizes)[count - 1]
    more = count - int((sizes < edge).sum())
    equal = sizes == edge
    stays = (sizes > edge) | (equal & (np.cumsum(equal) > more))
    return stays.reshape(array.shape)


def weights_of(model: Module) -> list[tuple[str, Parameter]]:
    found = []
    for name, p in model.named_parameters():
        if name.split(".")[-1] == "weight" and len(p.shape) >= 2:
            found.append((name, p))
    return found


def prune_global(model: Module, sparsity: float) -> dict[str, Array]:
    named = weights_of(model)
    everything = [p.data.flatten() for _, p in named]
    mask = magnitude_mask(np.concatenate([*everything, np.empty(0, np.float32)]), sparsity)
    masks: dict[str, Array] = {}
    for name, p in named:
        masks[name], mask = mask[: p.size].reshape(p.shape), mask[p.size :]
        p.data[...] = np.where(masks[name], p.data, p.dtype.type(0))
        increment_version(p.data)
    return masks


def gradual_sparsity(step: int, begin: int, end: int, final: float, initial: float = 0.0) -> float:
    for value in (final, initial):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"a sparsity of {value}")
    if end < begin:
        raise ValueError(f"{end} is before {begin}")
    if step < begin:
        return initial
    left = (end - step) / (end - begin) if step < end else 0
    return initial * left**3 + final * (1 - left**3)


class Pruner(Callback):
    def __init__(self, model: Module, schedule: Any, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"{every} is no number of steps")
        self.model, self.schedule, self.every = model, schedule, every
        self.masks: dict[str, Array] = {}

    @property
    def sparsity(self) -> float:
        masks = list(self.masks.values())
        return sum(int((~m).sum()) for m in masks) / sum(m.size for m in masks) if masks else 0.0

    def keep_away(self) -> None:
        for name, p in weights_of(self.model):
            np.putmask(p.data, ~self.masks[name], 0)
            increment_version(p.data)

    def prune(self, step: int) -> None:
        wanted = self.schedule(step) if callable(self.schedule) else self.schedule
        before, after = self.masks, prune_global(self.model, max(wanted, self.sparsity))
        self.masks = {name: after[name] & before[name] if before else after[name] for name in after}

    def on_fit_begin(self, trainer: Any) -> None:
        self.keep_away() if self.masks else self.prune(trainer.step)

    def on_batch_end(self, trainer: Any) -> None:
        self.keep_away()
        if trainer.step % self.every == 0:
            self.prune(trainer.step)

    def state_dict(self) -> dict[str, Any]:
        return {name: np.packbits(mask) for name, mask in self.masks.items()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        shapes = {name: p.shape for name, p in weights_of(self.model)}
        self.masks = {
            name: np.unpackbits(bits, count=math.prod(shapes[name])).astype(bool).reshape(shapes[name])
            for name, bits in saved.items()
        }


def sparse_bytes(mask: Any, itemsize: int = 4) -> dict[str, int]:
    array = np.atleast_1d(as_array(mask)) != 0
    kept = int(array.sum())
    starts = array.shape[0] + 1 if array.ndim >= 2 else 2
    bits = (array.size + 7) // 8
    return {
        "dense": array.size * itemsize,
        "bitmap": bits + kept * itemsize,
        "csr": (4 + itemsize) * kept + 4 * starts,
    }


# Smaller layers.


def strongest(scores: Array, keep: int) -> Array:
    if keep not in range(1, len(scores) + 1):
        raise ValueError(f"{keep} of {len(scores)}")
    ranked = sorted(range(len(scores)), key=lambda i: (scores[i], i))
    return np.array(sorted(ranked[-keep:]))


def remade(layer: Any, **arrays: Any) -> Any:
    made = object.__new__(type(layer))
    for name, value in vars(layer).items():
        if isinstance(value, (Parameter, Buffer)):
            given = arrays.get(name)
            vars(made)[name] = type(value)(np.array(value.data if given is None else given))
            vars(made)[name].requires_grad = value.requires_grad
        elif name != "_forward_hooks":
            vars(made)[name] = value
    return made


def prune_neurons(first: Linear, second: Linear, keep: int) -> tuple[Linear, Linear]:
    outputs, inputs = first.weight.shape[0], second.weight.shape[1]
    if outputs != inputs:
        raise ValueError(f"{first.weight.shape} before {second.weight.shape}")
    lengths = [
        math.hypot(*first.weight.data[i].tolist()) * math.hypot(*second.weight.data[:, i].tolist())
        for i in range(outputs)
    ]
    chosen = np.zeros(outputs, bool)
    chosen[strongest(np.array(lengths), keep)] = True
    one = remade(
        first,
        weight=first.weight.data.compress(chosen, axis=0),
        bias=None if first.bias is None else first.bias.data.compress(chosen),
    )
    return one, remade(second, weight=second.weight.data.compress(chosen, axis=1))


def shrink_mlp(model: Sequential, keep_fraction: float) -> Sequential:
    if not 0 <= keep_fraction <= 1:
        raise ValueError(f"keep {keep_fraction}?")
    small = copy.deepcopy(model)
    at: int | None = None
    for i, layer in enumerate(small.layers):
        if isinstance(layer, Linear):
            if at is not None:
                first: Any = small.layers[at]
                keep = max(round(len(first.weight) * keep_fraction), 1)
                small.layers[at], small.layers[i] = prune_neurons(first, layer, keep)
            at = i
        elif at is not None and layer.state_dict() and any(isinstance(x, Linear) for x in small.layers[i:]):
            raise TypeError(f"{type(layer).__name__} has parameters")
    return small


def prune_channels(conv: Conv2d, norm: BatchNorm2d | None, following: Any, keep: int) -> tuple[Any, Any, Any]:
    if not isinstance(following, (Conv2d, Linear)):
        raise TypeError(f"not {type(following).__name__}")
    kernels, weight = conv.weight.data, following.weight.data
    shapes = [kernels.shape, weight.shape]
    if norm is not None:
        shapes.insert(1, norm.weight.shape)
        if norm.weight.shape[0] != kernels.shape[0]:
            raise ValueError(f"shapes {shapes}")
    each, rest = divmod(weight.shape[1], len(kernels))
    if rest or (isinstance(following, Conv2d) and (each != 1 or following.groups > 1)) or conv.groups > 1:
        raise ValueError(f"shapes {shapes}")
    scores = np.einsum("oikl->o", np.abs(kernels)) if norm is None else np.sqrt(norm.weight.data**2)
    places = strongest(scores, keep)
    stays = np.isin(np.arange(len(kernels)), places)
    smaller = None
    if norm is not None:
        smaller = remade(
            norm,
            weight=norm.weight.data[stays],
            bias=norm.bias.data[stays],
            running_mean=norm.running_mean.data[stays],
            running_var=norm.running_var.data[stays],
        )
    reader = remade(following, weight=weight[:, np.repeat(stays, each)])
    return (
        remade(conv, weight=kernels[stays], bias=None if conv.bias is None else conv.bias.data[stays]),
        smaller,
        reader,
    )


# Grids.


def bounds(bits: int, symmetric: bool = True) -> tuple[int, int]:
    if bits < 2 or bits > 16:
        raise ValueError(f"{bits} bits are too few or too many")
    return -(1 << (bits - 1)) + bool(symmetric), (1 << (bits - 1)) - 1


def along(values: Array, axis: int | None, ndim: int) -> Array:
    return values if axis is None else values.reshape(values.shape + (1,) * (ndim - axis - 1))


def quantization_grid(
    low: Any, high: Any, bits: int = 8, symmetric: bool = True, dtype: Any = np.float32
) -> tuple[Array, Array]:
    lowest, highest = bounds(bits, symmetric)
    bottom, top = np.asarray(low, float), np.asarray(high, float)
    if np.isnan(bottom).any() or np.isnan(top).any() or (bottom > top).any():
        raise ValueError(f"{low} to {high}")
    if np.isinf(bottom).any() or np.isinf(top).any():
        raise ValueError(f"{low} to {high} is endless")
    bottom, top = bottom.clip(max=0), top.clip(min=0)
    if symmetric:
        scale = np.maximum(top, -bottom) / float(highest)
    else:
        scale = top / (2**bits - 1) + (-bottom) / (2**bits - 1)
    empty = (top == 0) & (bottom == 0)
    scale = np.where(empty, 1.0, np.maximum(scale, np.finfo(dtype).tiny))
    whole = np.rint(lowest - bottom / scale)
    zero = np.zeros(scale.shape) if symmetric else np.minimum(np.maximum(whole, lowest), highest)
    return np.asarray(scale.astype(dtype)), np.asarray(zero.astype(np.int8 if bits < 9 else np.int16))


@dataclass(frozen=True, eq=False)
class QuantizedArray:
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
        floats = [a.astype(self.scale.dtype) for a in (self.values, self.zero_point)]
        zero, scale = (along(a, self.axis, self.values.ndim) for a in (floats[1], self.scale))
        return np.asarray((floats[0] - zero) * scale)


def quantize(
    x: Any, bits: int = 8, axis: int | None = None, symmetric: bool = True, within: Any = None
) -> QuantizedArray:
    x = floating(as_array(x))
    if axis is not None and not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis {axis} of {x.shape}")
    axis = axis if axis is None or axis >= 0 else axis + x.ndim
    bounds(bits)
    # All axes but one, the last of those that are left at a time.
    low = high = x if axis is None else np.moveaxis(x, axis, 0)
    while low.ndim > (axis is not None):
        low = np.minimum.reduce(low, axis=-1, initial=0)
        high = np.maximum.reduce(high, axis=-1, initial=0)
    if not (np.isfinite(low) & np.isfinite(high)).all():
        raise ValueError("numbers that are not finite")
    if within is not None:
        low, high = (np.zeros_like(low, float) + end for end in within)
    scale, zero = quantization_grid(low, high, bits, symmetric, x.dtype)
    ends = bounds(bits, symmetric)
    steps = np.true_divide(x, along(scale, axis, x.ndim))
    steps = np.rint(steps, out=steps if isinstance(steps, np.ndarray) else None)
    zero_steps = along(zero.astype(x.dtype), axis, x.ndim)
    steps = np.asarray(np.add(steps, zero_steps, out=steps if isinstance(steps, np.ndarray) else None))
    np.maximum(steps, ends[0], out=steps)
    np.minimum(steps, ends[1], out=steps)
    return QuantizedArray(steps.astype(zero.dtype), scale, zero, axis)


# Observers.


class MinMaxObserver:
    def __init__(self) -> None:
        self.seen: tuple[float, float] | None = None

    def observe(self, x: Any) -> None:
        array = as_array(x).reshape(-1)
        if not len(array):
            return
        ends = [float(array.min()), float(array.max())]
        if not all(map(math.isfinite, ends)):
            raise ValueError(f"ends {ends}")
        if self.seen:
            ends += self.seen
        self.seen = min(ends), max(ends)

    def range(self) -> tuple[float, float]:
        if self.seen is None:
            raise ValueError("nothing to go by")
        return self.seen


class HistogramObserver(MinMaxObserver):
    def __init__(self, bins: int = 2048) -> None:
        super().__init__()
        if bins < 4 or bins % 4:
            raise ValueError(f"{bins} bins")
        self.counts, self.limit = np.zeros(bins, np.int64), 0.0

    def observe(self, x: Any) -> None:
        x = as_array(x)
        super().observe(x)
        if not x.size or self.seen is None:
            return
        largest = max(-self.seen[0], self.seen[1])
        self.limit = self.limit or largest or 1.0
        while self.limit < largest:
            joined = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(joined, len(joined) // 2)
            self.limit *= 2
        self.counts += np.histogram(x, len(self.counts), (-self.limit, self.limit))[0]

    def edges(self) -> Array:
        return np.linspace(-self.limit, self.limit, len(self.counts) + 1)


class PercentileObserver(HistogramObserver):
    def __init__(self, percentile: float = 99.9, bins: int = 2048) -> None:
        super().__init__(bins)
        if not 0 < percentile <= 100:
            raise ValueError(f"percentile {percentile}")
        self.percentile = percentile

    def range(self) -> tuple[float, float]:
        low, high = super().range()
        below = np.concatenate(([0], np.cumsum(self.counts)))
        above = below[-1] - below
        allowed = (100 - self.percentile) / 200 * below[-1]
        edges = self.edges()
        first, last = edges[below <= allowed].max(), edges[above <= allowed].min()
        return float(max(low, first)), float(min(high, last))


# Products, in float64, which holds every integer here.


def integer_matmul(a: Array, b: Array) -> Array:
    for m in (a, b):
        if m.dtype.kind not in "iu":
            raise TypeError(f"{a.dtype} @ {b.dtype}")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != len(b):
        raise ValueError(f"{a.shape} @ {b.shape}")
    largest = len(b)
    for m in (a, b):
        largest *= int(np.abs(m.astype(np.float64)).max()) if m.size else 0
    if largest > 2**53:
        raise ValueError(f"{a.shape} @ {b.shape}: too large")
    kind = np.float64 if largest > 2**24 else np.float32
    return np.asarray(np.rint(a.astype(kind) @ b.astype(kind)), np.int64)


def whole(q: QuantizedArray) -> Array:
    """The integers, zero points taken away, in float64."""
    return np.asarray(q.values.astype(np.float64) - along(q.zero_point.astype(np.float64), q.axis, 2))


def quantized_matmul(a: QuantizedArray, b: QuantizedArray) -> Array:
    if a.axis not in {None, 0} or b.axis not in {None, 1}:
        raise ValueError(f"scales along {a.axis} and {b.axis}")
    if a.values.shape[1:] != b.values.shape[:1]:
        raise ValueError(f"{a.shape} @ {b.shape}")
    exact = whole(a) @ whole(b)
    scaled = exact * np.multiply.outer(
        np.broadcast_to(a.scale, len(a.values)).astype(np.float64),
        np.broadcast_to(b.scale, b.shape[1]).astype(np.float64),
    )
    return np.asarray(scaled, np.result_type(a.scale, b.scale))


@op
def quantized_affine(x: Array, values: Array, scale: Array, bias: Array | None = None) -> Array:
    x = floating(x)
    if x.ndim == 0 or x.shape[-1] != values.shape[-1]:
        raise ValueError(f"{x.shape} into {values.shape}")
    out = np.zeros((math.prod(x.shape[:-1]), len(values)), x.dtype)
    rows = x.reshape(len(out), x.shape[-1])
    # Some inputs of all outputs at a time.
    step = max(1, (1 << 16) // max(len(values), 1))
    for i in range(0, values.shape[1], step):
        out += rows[:, i : i + step] @ values[:, i : i + step].T.astype(x.dtype)
    out = out * np.asarray(scale, x.dtype)
    if bias is not None:
        out = out + np.asarray(bias, x.dtype)
    return out.reshape((*x.shape[:-1], len(values)))


class QuantizedLinear(Module):
    def __init__(
        self, linear: Linear, bits: int = 8, per_channel: bool = True, input_range: Any = None
    ) -> None:
        become_quantized(self, linear, bits, per_channel, input_range)

    def forward(self, x: Tensor) -> Tensor:
        if self.input_range is None:
            return quantized_affine(x, self.weight, self.scale, self.bias)
        x = floating(as_array(x))
        q = quantize(x, 8 if self.bits <= 8 else 16, symmetric=False, within=self.input_range.data.tolist())
        steps = QuantizedArray(
            q.values.reshape(-1, x.shape[-1])
            if x.size
            else q.values.reshape(math.prod(x.shape[:-1]), x.shape[-1]),
            q.scale,
            q.zero_point,
        )
        scale = np.broadcast_to(self.scale.data, len(self.weight))
        turned = QuantizedArray(self.weight.data.T, scale, np.zeros(len(scale), np.int8), axis=1)
        out = quantized_matmul(steps, turned).reshape(*x.shape[:-1], len(scale))
        if self.bias is not None:
            out = out + self.bias.data
        return Tensor(out.astype(x.dtype))

    def flops(self, inputs: tuple[Any, ...], out: Any) -> int:
        return int(2 * out.size * self.weight.shape[1])

    def extra_repr(self) -> str:
        outputs, inputs = self.weight.shape
        return f"in_features={inputs}, out_features={outputs}, bits={self.bits}"


def become_quantized(made: Any, layer: Any, bits: int, per_channel: bool, input_range: Any = None) -> None:
    """Give `made` the attributes of a quantised `layer`."""
    q = quantize(layer.weight, bits, axis=0 if per_channel else None)
    made.bits, made.training = bits, layer.training
    made.weight, made.scale = Buffer(q.values), Buffer(q.scale)
    made.bias = None if layer.bias is None else Buffer(layer.bias.data + 0)
    if isinstance(layer, Linear):
        made.input_range = None if input_range is None else Buffer(np.array(input_range, np.float64))
    else:
        made.options = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}


class QuantizedConv2d(Module):
    def __init__(self, conv: Conv2d, bits: int = 8, per_channel: bool = True) -> None:
        become_quantized(self, conv, bits, per_channel)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale.data.reshape((-1, 1, 1, 1)) if self.scale.ndim else self.scale.data
        return conv2d(x, self.weight.data * scale, self.bias, **self.options)

    def extra_repr(self) -> str:
        return f"{self.weight.shape}, bits={self.bits}"


@contextlib.contextmanager
def looking(model: Module) -> Iterator[None]:
    """In use, without a graph; then as it was."""
    modes = [(m, m.training) for m in model.modules()]
    model.train(False)
    try:
        with no_grad():
            yield
    finally:
        for m, mode in modes:
            m.training = mode


def calibrate(
    model: Module, batches: Iterable[Any], observer: Callable[[], MinMaxObserver] = MinMaxObserver
) -> dict[Module, tuple[float, float]]:
    seen: dict[Module, MinMaxObserver] = {}
    with contextlib.ExitStack() as stack:

        def hook(module: Module, inputs: tuple[Any, ...], out: Any) -> None:
            one = seen.get(module)
            if one is None:
                one = seen[module] = observer()
            one.observe(inputs[0])

        for module in model.modules():
            if isinstance(module, Linear):
                stack.callback(module.register_forward_hook(hook))
        stack.enter_context(looking(model))
        batch = None
        for batch in batches:
            inputs = batch[0] if type(batch) in (tuple, list) else batch
            model(Tensor(as_array(inputs)))
        if batch is None:
            raise ValueError("no batch")
    return {module: one.range() for module, one in seen.items()}


def quantize_model(
    model: Any,
    bits: int = 8,
    per_channel: bool = True,
    calibration: Any = None,
    observer: Callable[[], MinMaxObserver] = MinMaxObserver,
) -> Any:
    bounds(bits)
    ranges = calibrate(model, calibration, observer) if calibration is not None else {}
    layers = [m for m in model.modules() if isinstance(m, (Linear, Conv2d))]
    # What is replaced is not copied: a placeholder stands for each weight, and then the copies change class.
    shared = {id(p) for m in model.modules() if m not in layers for p in vars(m).values()}
    memo: dict[int, Any] = {id(m.weight): None for m in layers if id(m.weight) not in shared}
    holder = Parameter(np.zeros(1, np.float32))
    memo = dict.fromkeys(memo, holder)
    copied = copy.deepcopy(model, memo)
    for layer in layers:
        made = memo[id(layer)]
        made.__dict__.clear()
        if isinstance(layer, Linear):
            made.__class__ = QuantizedLinear
            become_quantized(made, layer, bits, per_channel, ranges.get(layer))
        else:
            made.__class__ = QuantizedConv2d
            become_quantized(made, layer, bits, per_channel)
    return copied


# Training for few bits.


@op(saves=["inside"])
def fake_quantize(
    x: Array, *, bits: int = 8, axis: int | None = None, symmetric: bool = True, within: Any = None
) -> tuple[Array, Any]:
    x = floating(x)
    out = quantize(x, bits, axis, symmetric, within).dequantize()
    if within is None:
        return out, True
    low, high = (np.asarray(end, np.float64) for end in within)
    low, high = low.clip(max=0), high.clip(min=0)
    if symmetric:
        low, high = np.minimum(low, -high), np.maximum(high, -low)
    if low.ndim and axis is not None:
        low, high = (along(end, axis % x.ndim, x.ndim) for end in (low, high))
    return out, np.clip(x, low, high) == x


@fake_quantize.gradient
def fake_quantize_back(grad: Array, inside: Any) -> tuple[Array]:
    return (np.where(inside, grad, grad.dtype.type(0)),)


class FakeQuantLinear(Linear):
    def __init__(self, linear: Linear, bits: int = 8) -> None:
        vars(self).update(weight=linear.weight, bias=linear.bias, bits=bits)

    def forward(self, x: Tensor) -> Tensor:
        return affine(x, fake_quantize(self.weight, bits=self.bits, axis=0), self.bias)


# Distillation: nothing is kept but the logits, and all is computed again on the way back.


def shares(logits: Array, heat: float) -> tuple[Array, Array]:
    """softmax of logits / heat, and its logarithm."""
    x = logits / logits.dtype.type(heat)
    x = x - x.max(axis=1, keepdims=True)
    e = np.exp(x)
    total = e.sum(axis=1, keepdims=True)
    return e / total, x - np.log(total)


@op
def distillation_loss(
    student_logits: Array, teacher_logits: Array, labels: Any, *, temperature: float = 4.0, alpha: float = 0.5
) -> Any:
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha {alpha}")
    if not temperature > 0:
        raise ValueError(f"temperature {temperature}")
    s, t = floating(student_logits), floating(teacher_logits)
    if s.shape != t.shape:
        raise ValueError(f"{s.shape}, {t.shape}")
    labels = check_labels(s, labels)
    if not s.shape[0]:
        raise ValueError(f"{s.shape} has no rows")
    p, log_p = shares(t.astype(s.dtype), temperature)
    _, log_q = shares(s, temperature)
    _, hard = shares(s, 1.0)
    apart = (p * (log_p - log_q)).sum(axis=1)
    wrong = -hard[np.arange(len(s)), labels]
    return np.asarray(np.mean(alpha * temperature * temperature * apart + (1 - alpha) * wrong), s.dtype)


@distillation_loss.gradient
def distillation_loss_back(
    grad: Array, student_logits: Array, teacher_logits: Array, labels: Any, temperature: float, alpha: float
) -> tuple[Any, ...]:
    s = floating(student_logits)
    p, _ = shares(floating(teacher_logits).astype(s.dtype), temperature)
    q, _ = shares(s, temperature)
    hard, _ = shares(s, 1.0)
    np.subtract.at(hard, (np.arange(len(s)), np.asarray(as_array(labels))), 1)
    slope = (alpha * temperature / len(s)) * (q - p) + ((1 - alpha) / len(s)) * hard
    return np.asarray(slope * grad, s.dtype), None, None


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
    history = []
    for _ in range(epochs):
        mean, seen = 0.0, 0
        for inputs, labels in loader:
            inputs = as_array(inputs)
            with looking(teacher):
                answers = teacher(Tensor(inputs))
            optimizer.zero_grad()
            loss = distillation_loss(
                student(Tensor(inputs)), answers, labels, temperature=temperature, alpha=alpha
            )
            loss.backward()
            optimizer.step()
            seen += len(inputs)
            mean += (loss.item() - mean) * len(inputs) / seen
        if not seen:
            raise ValueError("an empty loader")
        history.append(mean)
    return history


# Sizes and files.


class SizeRow(NamedTuple):
    name: str
    shape: tuple[int, ...]
    dtype: str
    dense: int
    stored: int
    sparsity: float


def best(array: Array) -> tuple[bool, int]:
    """Whether a bitmap is smaller, and how many bytes the smaller one has."""
    kept = int(np.sum(array != 0))
    bitmap = math.ceil(array.size / 8) + kept * array.itemsize
    return bitmap < array.nbytes, min(bitmap, array.nbytes)


def size_report(model: Module) -> list[SizeRow]:
    rows: list[SizeRow] = []
    met: list[Array] = []
    for name, array in model.state_dict().items():
        if any(array is other for other in met):
            continue
        met.append(array)
        share = float(np.mean(array == 0)) if array.size else 0.0
        rows.append(SizeRow(name, array.shape, f"{array.dtype}", array.nbytes, best(array)[1], share))
    sizes = [a.size for a in met]
    zeros = sum(a.size - int(np.sum(a != 0)) for a in met)
    total = sum(sizes)
    dense, stored = (sum(row[i] for row in rows) for i in (3, 4))
    rows.append(SizeRow("total", (total,), "", dense, stored, zeros / total if total else 0.0))
    return rows


def save_compressed(model: Module, path: str | os.PathLike[str]) -> None:
    """A line of JSON, and all bytes; before them the SHA-256 of both."""
    target, digest = Path(path), hashlib.sha256()
    state = model.state_dict()
    twins = {name: next(n for n, b in state.items() if b is a) for name, a in state.items()}
    entries = [
        [name, a.dtype.str, list(a.shape), best(a)[0], int(np.sum(a != 0)), twins[name]]
        for name, a in state.items()
    ]
    partial = target.parent / f".{target.name}.partial"
    try:
        with partial.open("wb") as file:
            file.write(bytes(32))

            def put(piece: bytes) -> None:
                digest.update(piece)
                file.write(piece)

            put(json.dumps(entries).encode() + b"\n")
            for entry, array in zip(entries, state.values(), strict=True):
                if entry[5] != entry[0]:
                    continue
                flat = array.flatten()
                if entry[3]:
                    put(np.packbits(flat != 0, bitorder="little").tobytes())
                    flat = flat[flat != 0]
                put(flat.tobytes())
            file.seek(0)
            file.write(digest.digest())
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def load_compressed(path: str | os.PathLike[str]) -> dict[str, Array]:
    with open(path, "rb") as file:
        said = file.read(32)
        digest = hashlib.sha256()
        while piece := file.read(1 << 16):
            digest.update(piece)
        if digest.digest() != said:
            raise ValueError(f"{os.fspath(path)} was changed, or is no such file")
        file.seek(32)
        state = {}
        for name, dtype, shape, sparse, kept, twin in json.loads(file.readline()):
            if twin != name:
                state[name] = state[twin].copy()
                continue
            size = math.prod(shape)
            if sparse:
                bits = np.frombuffer(file.read((size + 7) // 8), np.uint8)
                array = np.zeros(size, dtype)
                where = np.unpackbits(bits, count=size, bitorder="little").view(bool)
                array[where] = np.frombuffer(file.read(kept * array.itemsize), dtype)
            else:
                array = np.empty(size, dtype)
                array[...] = np.frombuffer(file.read(array.nbytes), dtype)
            state[name] = array.reshape(shape)
    return state
