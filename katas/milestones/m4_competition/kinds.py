"""Kinds of layers that this competition knows beside those of kata 20.

A judge's other process runs this file first, so that it can build what was handed in; it imports no more than
that needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.competition import KINDS, Kind, register_kind
from tinytorch.compression import QuantizedLinear
from tinytorch.layers import Buffer, Linear, Module
from tinytorch.tensor import Tensor

Array = np.ndarray[Any, Any]


class Prepare(Module):  # type: ignore[misc]
    """Images in bytes -> rows of float32: from 0 to 1, less each channel's mean, over its deviation."""

    def __init__(self, mean: Array, std: Array) -> None:
        self.mean, self.std = Buffer(np.asarray(mean, np.float32)), Buffer(np.asarray(std, np.float32))

    def forward(self, x: Tensor) -> Tensor:
        channels = (x.data / np.float32(255)).reshape(len(x.data), len(self.mean.data), -1)
        scaled = (channels - self.mean.data[:, None]) / self.std.data[:, None]
        return Tensor(scaled.reshape(len(x.data), -1))


class Rows(Module):  # type: ignore[misc]
    """Images in bytes -> rows of float32, from 0 to 255: for a network that has the rest in its weights."""

    def forward(self, x: Tensor) -> Tensor:
        return Tensor(x.data.reshape(len(x.data), -1).astype(np.float32))


def described(layer: QuantizedLinear) -> tuple[dict[str, Any], dict[str, Array]]:
    return {"bits": layer.bits}, layer.state_dict()


def built(settings: dict[str, Any], arrays: dict[str, Array]) -> QuantizedLinear:
    """A QuantizedLinear with these integers: quantising floats again would round twice."""
    layer = QuantizedLinear(Linear(1, 1, rng=np.random.default_rng(0)), settings["bits"])
    if arrays["weight"].dtype.kind != "i" or arrays["weight"].ndim != 2:
        raise ValueError(f"weights of {arrays['weight'].dtype} and shape {arrays['weight'].shape}")
    for name in ("weight", "scale", "bias", "input_range"):
        setattr(layer, name, Buffer(arrays[name]) if name in arrays else None)
    return layer


if "prepare" not in KINDS:
    register_kind(
        Kind(
            "prepare",
            Prepare,
            lambda layer: ({}, layer.state_dict()),
            lambda settings, arrays: Prepare(arrays["mean"], arrays["std"]),
        )
    )
    register_kind(Kind("rows", Rows, lambda layer: ({}, {}), lambda settings, arrays: Rows()))
    register_kind(Kind("quantized_linear", QuantizedLinear, described, built))
