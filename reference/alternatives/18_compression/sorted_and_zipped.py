"""Kata 18 in another manner: weights are sorted, parts are deleted, zero points are taken away before the
product, models are rebuilt part by part, and a compressed file is a zip of arrays."""

from __future__ import annotations

import copy
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinytorch.activations import log_softmax, softmax
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


def share(value: float) -> float:
    if not (value >= 0 and value <= 1):
        raise ValueError(f"no share: {value}")
    return value


def weights_of(model: Module) -> list[tuple[str, Parameter]]:
    return [(n, p) for n, p in model.named_parameters() if f".{n}".endswith(".weight") and p.ndim > 1]


def magnitude_mask(weight: Any, sparsity: float) -> Array:
    array = as_array(weight)
    gone = round(share(sparsity) * array.size)
    order = np.argsort(np.abs(floating(array)), axis=None, kind="stable")
    mask = np.zeros(array.size, bool)
    mask[order[gone:]] = True
    return np.reshape(mask, array.shape)


def prune_global(model: Module, sparsity: float) -> dict[str, Array]:
    named = weights_of(model)
    if not named:
        share(sparsity)
        return {}
    flat = np.hstack([p.data.ravel() for _, p in named])
    ends = np.cumsum([p.size for _, p in named])[:-1]
    pieces = np.split(magnitude_mask(flat, sparsity), ends)
    masks = {}
    for (name, p), piece in zip(named, pieces, strict=True):
        masks[name] = piece.reshape(p.shape)
        np.copyto(p.data, 0, where=~masks[name])
        increment_version(p.data)
    return masks


def gradual_sparsity(step: int, begin: int, end: int, final: float, initial: float = 0.0) -> float:
    share(final), share(initial)
    if begin > end:
        raise ValueError(f"from {begin} to {end}")
    if step >= end:
        return final
    if step < begin:
        return initial
    done = (step - begin) / (end - begin)
    return initial + (final - initial) * done * (3 - 3 * done + done * done)


class Pruner(Callback):
    def __init__(self, model: Module, schedule: Any, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every {every} steps")
        self.model, self.every = model, every
        self.schedule = schedule if callable(schedule) else lambda step: schedule
        self.masks: dict[str, Array] = {}

    @property
    def sparsity(self) -> float:
        if not self.masks:
            return 0.0
        return float(1 - np.mean(np.concatenate([m.ravel() for m in self.masks.values()])))

    def prune(self, step: int) -> None:
        found = prune_global(self.model, self.schedule(step))
        for name, mask in found.items():
            if name in self.masks:
                np.logical_and(mask, self.masks[name], out=mask)
        self.masks = found

    def apply(self) -> None:
        for name, p in weights_of(self.model):
            p.data[...] = np.where(self.masks[name], p.data, 0)
            increment_version(p.data)

    def on_fit_begin(self, trainer: Any) -> None:
        if not self.masks:
            self.prune(trainer.step)
        self.apply()

    def on_batch_end(self, trainer: Any) -> None:
        self.apply()
        if not trainer.step % self.every:
            self.prune(trainer.step)

    def state_dict(self) -> dict[str, Any]:
        return {"names": list(self.masks), "arrays": [m.copy() for m in self.masks.values()]}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.masks = {n: np.array(m, bool) for n, m in zip(saved["names"], saved["arrays"], strict=True)}


def sparse_bytes(mask: Any, itemsize: int = 4) -> dict[str, int]:
    array = as_array(mask)
    rows = 1 if array.ndim < 2 else array.shape[0]
    kept = len(np.flatnonzero(array))
    return {
        "dense": itemsize * array.size,
        "bitmap": math.ceil(array.size / 8) + itemsize * kept,
        "csr": itemsize * kept + 4 * kept + 4 * rows + 4,
    }


# Smaller layers.


def strongest(scores: Array, keep: int) -> Array:
    if keep < 1 or keep > len(scores):
        raise ValueError(f"{keep} of {len(scores)}")
    return np.sort(np.argsort(scores, kind="stable")[len(scores) - keep :])


def remade(layer: Any, **arrays: Any) -> Any:
    memo: dict[int, Any] = {}
    for name, own in vars(layer).items():
        if isinstance(own, Parameter | Buffer):
            array = own.data if arrays.get(name) is None else arrays[name]
            memo[id(own)] = type(own)(np.array(array))
            memo[id(own)].requires_grad = own.requires_grad
    made = copy.deepcopy(layer, memo)
    vars(made).pop("_forward_hooks", None)
    return made


def prune_neurons(first: Linear, second: Linear, keep: int) -> tuple[Linear, Linear]:
    a, b = first.weight.data, second.weight.data
    if a.shape[0] != b.shape[1]:
        raise ValueError(f"{a.shape} and {b.shape}")
    strength = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->j", b, b))
    gone = np.setdiff1d(np.arange(len(a)), strongest(strength, keep))
    bias = None if first.bias is None else np.delete(first.bias.data, gone)
    one = remade(first, weight=np.delete(a, gone, axis=0), bias=bias)
    return one, remade(second, weight=np.delete(b, gone, axis=1))


def shrink_mlp(model: Sequential, keep_fraction: float) -> Sequential:
    share(keep_fraction)
    layers: list[Any] = [copy.deepcopy(layer) for layer in model]
    before = None
    for i, layer in enumerate(layers):
        if not isinstance(layer, Linear):
            continue
        if before is not None:
            for part in layers[before + 1 : i]:
                if any(True for _ in part.parameters()) or part.state_dict():
                    raise TypeError(f"{type(part).__name__} between two layers")
            count = len(layers[before].weight)
            keep = max(round(keep_fraction * count), 1)
            layers[before], layers[i] = prune_neurons(layers[before], layers[i], keep)
        before = i
    made = Sequential(*layers)
    made.training = model.training
    return made


def prune_channels(conv: Conv2d, norm: BatchNorm2d | None, following: Any, keep: int) -> tuple[Any, Any, Any]:
    if not isinstance(following, Conv2d) and not isinstance(following, Linear):
        raise TypeError(f"{type(following).__name__} reads no channels")
    kernels, weight = conv.weight.data, following.weight.data
    channels = kernels.shape[0]
    problem = conv.groups != 1 or getattr(following, "groups", 1) != 1 or weight.shape[1] % channels != 0
    problem = problem or (weight.ndim == 4 and weight.shape[1] != channels)
    problem = problem or (norm is not None and len(norm.weight.data) != channels)
    if problem:
        middle = None if norm is None else norm.weight.shape
        raise ValueError(f"{kernels.shape}, {middle}, {weight.shape}")
    scores = np.array([np.abs(k).sum() for k in kernels]) if norm is None else np.abs(norm.weight.data)
    kept = strongest(scores, keep)
    smaller = None
    if norm is not None:
        smaller = copy.deepcopy(norm)
        for name in ("weight", "bias", "running_mean", "running_var"):
            part = getattr(norm, name)
            setattr(smaller, name, type(part)(part.data.take(kept)))
    each = weight.shape[1] // channels
    columns = np.concatenate([np.arange(c * each, (c + 1) * each) for c in kept])
    bias = None if conv.bias is None else conv.bias.data.take(kept)
    return (
        remade(conv, weight=kernels.take(kept, axis=0), bias=bias),
        smaller,
        remade(following, weight=weight.take(columns, axis=1)),
    )


# Grids.


def bounds(bits: int, symmetric: bool = True) -> tuple[int, int]:
    if bits not in range(2, 17):
        raise ValueError(f"{bits} bits")
    top = 2 ** (bits - 1) - 1
    return (-top, top) if symmetric else (-top - 1, top)


def along(values: Array, axis: int | None, ndim: int) -> Array:
    if axis is None:
        return values
    return np.expand_dims(values, tuple(i for i in range(ndim) if i != axis))


def quantization_grid(
    low: Any, high: Any, bits: int = 8, symmetric: bool = True, dtype: Any = np.float32
) -> tuple[Array, Array]:
    bottom, top = bounds(bits, symmetric)
    ends = np.array(np.broadcast_arrays(low, high), np.float64)
    if not np.all(np.isfinite(ends)) or np.any(ends[0] > ends[1]):
        raise ValueError(f"from {low} to {high}")
    low, high = np.minimum(ends[0], 0), np.maximum(ends[1], 0)
    if symmetric:
        scale = np.maximum(np.abs(low), np.abs(high)) / top
    else:
        scale = (high / 2 - low / 2) / ((top - bottom) / 2)
    scale = np.maximum(scale, np.finfo(dtype).tiny)
    scale = np.where((low == 0) & (high == 0), 1.0, scale)
    zero = np.zeros_like(scale) if symmetric else np.round(bottom - low / scale).clip(bottom, top)
    kind = np.int16 if bits > 8 else np.int8
    return np.asarray(scale, dtype), np.asarray(zero).astype(kind)


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
        return sum(a.nbytes for a in (self.values, self.scale, self.zero_point))

    def dequantize(self) -> Array:
        zero = along(np.asarray(self.zero_point, np.int32), self.axis, self.values.ndim)
        whole = self.values.astype(np.int32) - zero
        return np.multiply(whole, along(self.scale, self.axis, whole.ndim), dtype=self.scale.dtype)


def quantize(
    x: Any, bits: int = 8, axis: int | None = None, symmetric: bool = True, within: Any = None
) -> QuantizedArray:
    array = floating(as_array(x))
    bottom, top = bounds(bits, symmetric)
    if axis is None:
        rows = array.reshape(1, -1)
    else:
        if axis not in range(-array.ndim, array.ndim):
            raise ValueError(f"no axis {axis} in {array.shape}")
        axis = axis % array.ndim
        rows = np.moveaxis(array, axis, 0)
        rows = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    low, high = rows.min(axis=1, initial=0), rows.max(axis=1, initial=0)
    if not np.isfinite(low.sum() - high.sum()) and not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("not finite")
    if within is not None:
        low, high = np.zeros(len(rows)) + within[0], np.zeros(len(rows)) + within[1]
    scale, zero = quantization_grid(low, high, bits, symmetric, array.dtype)
    q = rows / scale[:, None]
    np.round(q, out=q)
    q += zero[:, None]
    values = q.clip(bottom, top, out=q).astype(zero.dtype)
    if axis is None:
        return QuantizedArray(values.reshape(array.shape), scale.reshape(()), zero.reshape(()))
    moved = np.moveaxis(array, axis, 0).shape
    back = np.moveaxis(values.reshape(moved), 0, axis)
    return QuantizedArray(np.ascontiguousarray(back), scale, zero, axis)


# Observers.


class MinMaxObserver:
    def __init__(self) -> None:
        self.low, self.high, self.count = math.inf, -math.inf, 0

    def observe(self, x: Any) -> None:
        array = as_array(x)
        if array.size == 0:
            return
        if not np.isfinite(array).all():
            raise ValueError("not finite")
        self.low = float(np.minimum(array.min(), self.low))
        self.high = float(np.maximum(array.max(), self.high))
        self.count += array.size

    def range(self) -> tuple[float, float]:
        if not self.count:
            raise ValueError("nothing was observed")
        return self.low, self.high


class HistogramObserver(MinMaxObserver):
    def __init__(self, bins: int = 2048) -> None:
        super().__init__()
        if bins < 4 or bins % 4:
            raise ValueError(f"{bins} bins")
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
        return np.linspace(-self.limit, self.limit, len(self.counts) + 1)


class PercentileObserver(HistogramObserver):
    def __init__(self, percentile: float = 99.9, bins: int = 2048) -> None:
        super().__init__(bins)
        if not 0 < percentile <= 100:
            raise ValueError(f"percentile {percentile}")
        self.percentile = percentile

    def range(self) -> tuple[float, float]:
        low, high = super().range()
        edges = self.edges()
        allowed = (100 - self.percentile) / 200 * int(self.counts.sum())
        first, left = 0, 0
        while left + int(self.counts[first]) <= allowed:
            left += int(self.counts[first])
            first += 1
        last, right = len(self.counts), 0
        while right + int(self.counts[last - 1]) <= allowed:
            last -= 1
            right += int(self.counts[last])
        return max(low, float(edges[first])), min(high, float(edges[last]))


# Products.


def integer_matmul(a: Array, b: Array) -> Array:
    if not (np.issubdtype(a.dtype, np.integer) and np.issubdtype(b.dtype, np.integer)):
        raise TypeError(f"{a.dtype} and {b.dtype}")
    if a.ndim != 2 or b.ndim != 2 or len(b) != a.shape[1]:
        raise ValueError(f"{a.shape} times {b.shape}")
    sizes = [max((abs(int(m.max())), abs(int(m.min())))) if m.size else 0 for m in (a, b)]
    each = sizes[0] * sizes[1]
    if each * len(b) > 2**53:
        raise ValueError(f"{a.shape} times {b.shape} is too large to be exact")
    total = np.zeros((len(a), b.shape[1]), np.int64)
    piece = 2**24 // each if each else len(b)
    if piece < min(128, len(b)):
        total += (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)
        return total
    for start in range(0, len(b), max(piece, 1)):
        some = slice(start, start + max(piece, 1))
        total += (a[:, some].astype(np.float32) @ b[some].astype(np.float32)).astype(np.int64)
    return total


def quantized_matmul(a: QuantizedArray, b: QuantizedArray) -> Array:
    if a.axis == 1 or b.axis == 0:
        raise ValueError(f"axes {a.axis} and {b.axis}")
    whole = [q.values.astype(np.int32) - along(q.zero_point, q.axis, 2).astype(np.int32) for q in (a, b)]
    exact = integer_matmul(*whole).astype(np.float64)
    exact *= along(a.scale, a.axis, 2).astype(np.float64)
    exact *= along(b.scale, b.axis, 2).astype(np.float64)
    return exact.astype(np.promote_types(a.scale.dtype, b.scale.dtype), copy=False)


@op
def quantized_affine(x: Array, values: Array, scale: Array, bias: Array | None = None) -> Array:
    x = floating(x)
    outputs, inputs = values.shape
    if not x.ndim or x.shape[-1] != inputs:
        raise ValueError(f"{x.shape} and {values.shape}")
    rows = x.reshape(math.prod(x.shape[:-1]), inputs)
    factors = np.broadcast_to(scale, outputs).astype(x.dtype)
    parts = []
    for start in range(0, outputs, 64):
        weight = values[start : start + 64] * factors[start : start + 64, None]
        part = rows @ weight.T
        if bias is not None:
            part = part + bias[start : start + 64].astype(x.dtype)
        parts.append(part)
    joined = np.concatenate(parts, axis=1) if parts else np.empty((len(rows), 0), x.dtype)
    return joined.reshape(*x.shape[:-1], outputs)


class QuantizedLinear(Module):
    def __init__(
        self, linear: Linear, bits: int = 8, per_channel: bool = True, input_range: Any = None
    ) -> None:
        self.training, self.bits = linear.training, bits
        q = quantize(linear.weight.data, bits, 0) if per_channel else quantize(linear.weight.data, bits)
        self.weight, self.scale = Buffer(q.values), Buffer(q.scale)
        self.bias = Buffer(np.array(linear.bias.data)) if linear.bias is not None else None
        self.input_range = None
        if input_range is not None:
            self.input_range = Buffer(np.array([float(end) for end in input_range]))

    def forward(self, x: Tensor) -> Tensor:
        if self.input_range is None:
            return quantized_affine(x, self.weight, self.scale, self.bias)
        array = floating(as_array(x))
        weight = self.weight.data
        if array.shape[-1] != weight.shape[1]:
            raise ValueError(f"{array.shape} and {weight.shape}")
        low, high = (float(end) for end in self.input_range.data)
        q = quantize(array, 16 if self.bits > 8 else 8, None, False, (low, high))
        rows = q.values.reshape(math.prod(array.shape[:-1]), weight.shape[1])
        whole = integer_matmul(rows.astype(np.int32) - int(q.zero_point), weight.T)
        out = whole * (float(q.scale) * self.scale.data.astype(np.float64))
        if self.bias is not None:
            out += self.bias.data
        return Tensor(out.astype(array.dtype).reshape(*array.shape[:-1], len(weight)))

    def flops(self, inputs: tuple[Any, ...], out: Any) -> int:
        return int(2 * out.size * self.weight.shape[1])

    def extra_repr(self) -> str:
        outputs, inputs = self.weight.shape
        return f"in_features={inputs}, out_features={outputs}, bits={self.bits}"


class QuantizedConv2d(Module):
    def __init__(self, conv: Conv2d, bits: int = 8, per_channel: bool = True) -> None:
        q = quantize(conv.weight, bits, axis=0 if per_channel else None)
        self.bits, self.training = bits, conv.training
        self.options = {name: getattr(conv, name) for name in ("stride", "padding", "dilation", "groups")}
        self.weight, self.scale = Buffer(q.values), Buffer(q.scale)
        self.bias = None if conv.bias is None else Buffer(conv.bias.data.copy())

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale.data if self.scale.ndim == 0 else self.scale.data[:, None, None, None]
        return conv2d(x, self.weight.data * scale, self.bias, **self.options)

    def extra_repr(self) -> str:
        return f"{self.weight.shape}, bits={self.bits}"


def calibrate(
    model: Module, batches: Iterable[Any], observer: Callable[[], MinMaxObserver] = MinMaxObserver
) -> dict[Module, tuple[float, float]]:
    watched: list[tuple[Module, MinMaxObserver, Callable[[], None]]] = []
    used: set[int] = set()

    def watch(layer: Module, seen: MinMaxObserver) -> Callable[..., None]:
        def hook(module: Module, inputs: tuple[Any, ...], out: Any) -> None:
            used.add(id(layer))
            seen.observe(inputs[0])

        return hook

    modes = {module: module.training for module in model.modules()}
    asked = 0
    try:
        for layer in model.modules():
            if isinstance(layer, Linear):
                seen = observer()
                watched.append((layer, seen, layer.register_forward_hook(watch(layer, seen))))
        model.eval()
        with no_grad():
            for batch in batches:
                first = batch[0] if isinstance(batch, list | tuple) else batch
                model(first if isinstance(first, Tensor) else Tensor(as_array(first)))
                asked += 1
    finally:
        for module, mode in modes.items():
            module.training = mode
        for _, _, remove in watched:
            remove()
    if asked == 0:
        raise ValueError("no batches")
    return {layer: seen.range() for layer, seen, _ in watched if id(layer) in used}


def quantize_model(
    model: Any,
    bits: int = 8,
    per_channel: bool = True,
    calibration: Any = None,
    observer: Callable[[], MinMaxObserver] = MinMaxObserver,
) -> Any:
    bounds(bits)
    ranges = calibrate(model, calibration, observer) if calibration is not None else {}
    done: dict[int, Any] = {}

    def changed(value: Any) -> Any:
        if isinstance(value, Linear | Conv2d):
            if id(value) not in done:
                done[id(value)] = (
                    QuantizedLinear(value, bits, per_channel, ranges.get(value))
                    if isinstance(value, Linear)
                    else QuantizedConv2d(value, bits, per_channel)
                )
            return done[id(value)]
        if isinstance(value, Module):
            if id(value) not in done:
                made = done[id(value)] = object.__new__(type(value))
                for name, inner in vars(value).items():
                    vars(made)[name] = changed(inner)
            return done[id(value)]
        if isinstance(value, dict):
            return {key: changed(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)([changed(inner) for inner in value])
        return copy.deepcopy(value, done)

    return changed(model)


# Training for few bits.


@op(saves=["outside"])
def fake_quantize(
    x: Array, *, bits: int = 8, axis: int | None = None, symmetric: bool = True, within: Any = None
) -> tuple[Array, Any]:
    x = floating(x)
    out = quantize(x, bits, axis, symmetric, within).dequantize()
    if within is None:
        return out, None
    low, high = (np.asarray(end, np.float64) for end in within)
    if symmetric:
        high = np.maximum(np.abs(low) * (low < 0), high * (high > 0))
        low = -high
    place = None if axis is None or not low.ndim else axis % x.ndim
    low, high = along(np.minimum(low, 0), place, x.ndim), along(np.maximum(high, 0), place, x.ndim)
    return out, np.packbits(((x < low) | (x > high)).ravel())


@fake_quantize.gradient
def fake_quantize_back(grad: Array, outside: Any) -> Array:
    if outside is None:
        return grad
    back = grad.copy()
    back[np.unpackbits(outside, count=grad.size).reshape(grad.shape).view(bool)] = 0
    return back


class FakeQuantLinear(Linear):
    def __init__(self, linear: Linear, bits: int = 8) -> None:
        self.bits = bits
        self.weight = linear.weight
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rounded = fake_quantize(self.weight, bits=self.bits, axis=0)
        return affine(x, rounded) if self.bias is None else affine(x, rounded, self.bias)


# Distillation.


@op(saves=["slope"])
def distillation_loss(
    student_logits: Array, teacher_logits: Array, labels: Any, *, temperature: float = 4.0, alpha: float = 0.5
) -> tuple[Any, Array]:
    share(alpha)
    if temperature <= 0 or temperature != temperature:
        raise ValueError(f"temperature {temperature}")
    s = floating(student_logits)
    t = floating(teacher_logits).astype(s.dtype)
    if s.shape != t.shape:
        raise ValueError(f"{s.shape} and {t.shape}")
    labels = check_labels(s, labels)
    n = len(s)
    if not n:
        raise ValueError(f"no rows in {s.shape}")
    heat = s.dtype.type(temperature)
    p = softmax.forward(t / heat, axis=1)
    difference = log_softmax.forward(t / heat, axis=1) - log_softmax.forward(s / heat, axis=1)
    apart = float(np.einsum("ij,ij->", p, difference, dtype=np.float64)) / n
    hard = log_softmax.forward(s, axis=1)
    right = float(np.take_along_axis(hard, labels[:, None], axis=1).mean(dtype=np.float64))
    loss = alpha * temperature**2 * apart - (1 - alpha) * right
    slope = alpha * temperature * (softmax.forward(s / heat, axis=1) - p)
    slope += (1 - alpha) * (np.exp(hard) - np.eye(s.shape[1], dtype=s.dtype)[labels])
    return np.asarray(loss, s.dtype), (slope / n).astype(s.dtype, copy=False)


@distillation_loss.gradient
def distillation_loss_back(grad: Array, slope: Array) -> list[Any]:
    return [np.multiply(slope, grad, dtype=slope.dtype), None, None]


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
    means: list[float] = []
    for _ in range(epochs):
        parts: list[tuple[float, int]] = []
        for inputs, labels in loader:
            x = Tensor(as_array(inputs))
            modes = [(module, module.training) for module in teacher.modules()]
            teacher.eval()
            try:
                with no_grad():
                    wanted = teacher(x)
            finally:
                for module, mode in modes:
                    module.training = mode
            student.zero_grad()
            loss = distillation_loss(student(x), wanted, labels, temperature=temperature, alpha=alpha)
            loss.backward()
            optimizer.step()
            parts.append((loss.item(), len(labels)))
        rows = sum(count for _, count in parts)
        if rows == 0:
            raise ValueError("nothing to learn from")
        means.append(sum(value * count for value, count in parts) / rows)
    return means


# Sizes and files.


class SizeRow(NamedTuple):
    name: str
    shape: tuple[int, ...]
    dtype: str
    dense: int
    stored: int
    sparsity: float


def size_report(model: Module) -> list[SizeRow]:
    first: dict[int, tuple[str, Array]] = {}
    for name, array in model.state_dict().items():
        first.setdefault(id(array), (name, array))
    rows = []
    gone = 0
    for name, array in first.values():
        bytes_ = sparse_bytes(array != 0, array.dtype.itemsize)
        zeros = int((array == 0).sum())
        gone += zeros
        stored = bytes_["bitmap"] if bytes_["bitmap"] < bytes_["dense"] else bytes_["dense"]
        ratio = zeros / array.size if array.size else 0.0
        rows.append(SizeRow(name, array.shape, array.dtype.name, bytes_["dense"], stored, ratio))
    count = sum(array.size for _, array in first.values())
    total = SizeRow(
        "total",
        (count,),
        "",
        sum(r.dense for r in rows),
        sum(r.stored for r in rows),
        gone / count if count else 0.0,
    )
    return [*rows, total]


def save_compressed(model: Module, path: str | os.PathLike[str]) -> None:
    path = Path(path)
    state = model.state_dict()
    places: dict[int, int] = {}
    for i, array in enumerate(state.values()):
        places.setdefault(id(array), i)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
            names = [[n, places[id(a)], list(a.shape), a.dtype.str] for n, a in state.items()]
            archive.writestr("names", json.dumps(names))
            for i, array in enumerate(state.values()):
                if places[id(array)] != i:
                    continue
                flat = array.ravel()
                bytes_ = sparse_bytes(flat, array.itemsize)
                if bytes_["bitmap"] < bytes_["dense"]:
                    archive.writestr(f"{i}.bits", np.packbits(flat != 0).tobytes())
                    archive.writestr(f"{i}.some", flat[flat != 0].tobytes())
                else:
                    archive.writestr(f"{i}.all", flat.tobytes())
        os.replace(unfinished, path)
    finally:
        if unfinished.exists():
            unfinished.unlink()


def load_compressed(path: str | os.PathLike[str]) -> dict[str, Array]:
    state: dict[str, Array] = {}
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                file.seek(-22, os.SEEK_END)  # where the end of a zip begins
                if file.read(4) != b"PK\5\6" or archive.infolist()[0].header_offset:
                    raise ValueError("something stands before it or behind it")
                inside = set(archive.namelist())
                for name, i, shape, dtype in json.loads(archive.read("names")):
                    size = math.prod(shape)
                    if f"{i}.all" in inside:
                        flat = np.frombuffer(bytearray(archive.read(f"{i}.all")), dtype)
                    else:
                        bits = np.frombuffer(archive.read(f"{i}.bits"), np.uint8)
                        where = np.flatnonzero(np.unpackbits(bits)[:size])
                        flat = np.zeros(size, dtype)
                        flat[where] = np.frombuffer(archive.read(f"{i}.some"), dtype)
                    state[name] = flat.reshape(shape)
        except Exception as error:
            raise ValueError(f"{os.fspath(path)}: {error!r}") from error
    return state
