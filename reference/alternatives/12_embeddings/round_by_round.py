"""Kata 12 in another manner: each round adds one row to every id that has another, sparse layers look up
through an operation of their own, and vectors turn as in most Llamas, by a half-rotated copy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch.layers import Module, Parameter, affine
from tinytorch.tensor import Array, Shape, Tensor, add, increment_version, op

__all__ = [
    "Embedding", "LearnedPositions", "Rotary", "SinusoidalPositions", "SparseRows", "TiedLinear", "check_ids",
    "check_positions", "check_span", "embedding", "embedding_back", "normal_", "rotary", "rotary_back",
    "rotary_tables", "scatter_add", "sgd_rows_", "sinusoidal_positions",
]  # fmt: skip

ROUNDS = 16


def check_ids(ids: Any, count: int) -> Array:
    ids = getattr(ids, "data", ids) if isinstance(ids, Tensor) else ids
    array = np.asarray(ids)
    if array.dtype.kind == "b" or array.dtype.kind not in ("i", "u"):
        raise TypeError(f"ids of {array.dtype}")
    for extreme in (array.min(initial=0), array.max(initial=0)) if array.size else ():
        if not 0 <= int(extreme) < count:
            raise ValueError(f"id {extreme} of {count}")
    return array if array.dtype == np.intp else array.astype(np.intp)


@op
def embedding(weight: Array, ids: Array, *, padding_idx: int | None = None) -> Array:
    if weight.ndim != 2:
        raise ValueError(f"weight {weight.shape}")
    return np.take(weight, check_ids(ids, len(weight)), axis=0)


def scatter_add(rows: Array, ids: Array, count: int) -> Array:
    """Of ids that occur often the rows are summed together, of the others the k-th in round k."""
    places = check_ids(ids, count)
    if rows.ndim != 2 or places.shape != (len(rows),):
        raise ValueError(f"rows {rows.shape}, ids {places.shape}")
    total = np.zeros((count, rows.shape[1]), rows.dtype)
    order = np.argsort(places, kind="stable")
    times = np.bincount(places, minlength=count)
    starts = np.cumsum(times) - times
    for i in np.flatnonzero(times > ROUNDS).tolist():
        mine = order[starts[i] : starts[i] + times[i]]
        np.add.reduce(rows[mine], axis=0, out=total[i], dtype=rows.dtype)
    left = np.flatnonzero((times > 0) & (times <= ROUNDS))
    for k in range(ROUNDS):
        left = left[times[left] > k]
        if not len(left):
            break
        total[left] += rows[order[starts[left] + k]]
    return total


@embedding.gradient
def embedding_back(
    grad: Array, input_shapes: tuple[Shape, ...], ids: Any, padding_idx: int | None
) -> list[Any]:
    count, dim = input_shapes[0]
    places = check_ids(ids, count).reshape(-1)
    table = scatter_add(np.reshape(grad, (places.size, dim)), places, count)
    if padding_idx is not None:
        table[padding_idx, :] = 0
    return [table]


def normal_(tensor: Tensor, std: float = 1.0, *, rng: np.random.Generator) -> Tensor:
    drawn = rng.standard_normal(tensor.shape, np.float64 if tensor.dtype.itemsize > 4 else np.float32)
    np.multiply(drawn, std, out=tensor.data, casting="same_kind")
    increment_version(tensor.data)
    return tensor


@dataclass(frozen=True, eq=False)
class SparseRows:
    ids: Array
    values: Array
    shape: Shape

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.ids), self.shape[1]):
            raise ValueError(f"{len(self.ids)} ids, and values of shape {self.values.shape} for {self.shape}")

    @property
    def nbytes(self) -> int:
        return self.ids.nbytes + self.values.nbytes

    def coalesce(self) -> SparseRows:
        ids = np.unique(self.ids)
        return SparseRows(ids, scatter_add(self.values, np.searchsorted(ids, self.ids), len(ids)), self.shape)

    def to_dense(self) -> Array:
        return scatter_add(self.values, self.ids, self.shape[0])

    def __add__(self, other: SparseRows) -> SparseRows:
        if tuple(self.shape) != tuple(other.shape):
            raise ValueError(f"{self.shape} + {other.shape}")
        return SparseRows(
            np.append(self.ids, other.ids), np.append(self.values, other.values, axis=0), self.shape
        )


def sgd_rows_(weight: Tensor, rows: SparseRows, lr: float) -> None:
    if weight.shape != rows.shape:
        raise ValueError(f"a weight {weight.shape}, rows of {rows.shape}")
    once = rows.coalesce()
    weight.data[once.ids] = weight.data[once.ids] - (lr * once.values).astype(weight.dtype)
    increment_version(weight.data)


@op
def sparse_embedding(weight: Array, ids: Array, *, layer: Any) -> Array:
    """The same numbers; its rule leaves the rows with the layer, and has nothing for the weight."""
    return np.take(weight, ids, axis=0)


@sparse_embedding.gradient
def sparse_embedding_back(grad: Array, ids: Array, layer: Embedding) -> tuple[None, None]:
    places = ids.reshape(-1)
    rows = grad.reshape(len(places), -1 if len(places) else layer.weight.shape[1])
    if layer.padding_idx is not None:
        learnt = places != layer.padding_idx
        places, rows = places[learnt], rows[learnt]
    layer.brought = [*layer.brought, SparseRows(places.copy(), rows.copy(), layer.weight.shape)]
    return None, None


class Embedding(Module):
    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        sparse: bool = False,
        *,
        rng: np.random.Generator,
    ) -> None:
        if padding_idx is not None and (padding_idx < 0 or padding_idx >= num_embeddings):
            raise ValueError(f"padding {padding_idx} of {num_embeddings}")
        self.weight = Parameter(np.zeros((num_embeddings, embedding_dim), np.float32))
        normal_(self.weight, rng=rng)
        if padding_idx is not None:
            self.weight.data[padding_idx] = 0
        self.padding_idx = padding_idx
        self.sparse = sparse
        self.brought: list[SparseRows] = []

    def forward(self, ids: Any) -> Tensor:
        if self.sparse:
            return self.look_up_sparse(ids)
        return embedding(self.weight, ids, padding_idx=self.padding_idx)

    def look_up_sparse(self, ids: Any) -> Tensor:
        return sparse_embedding(self.weight, check_ids(ids, self.weight.shape[0]), layer=self)

    def sparse_grad(self) -> SparseRows | None:
        brought, self.brought = self.brought, []
        if not brought:
            return None
        ids, values = np.concatenate([r.ids for r in brought]), np.concatenate([r.values for r in brought])
        return SparseRows(ids, values, self.weight.shape).coalesce()

    def extra_repr(self) -> str:
        count, dim = self.weight.shape
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{count}, {dim}{padding}{', sparse=True' if self.sparse else ''}"


def check_span(offset: int, length: int, max_len: int) -> slice:
    if offset < 0 or offset + length > max_len:
        raise ValueError(f"positions {offset} to {offset + length} do not fit a table of {max_len}")
    return slice(offset, offset + length)


def check_positions(positions: Any, shape: Shape, max_len: int) -> Array:
    """`positions` as indices, for tokens in an array of `shape` (..., T, dim). Given.

    They are (..., T), one for each token, or (T,), alike for all texts; an axis of texts may be 1. Errors as
    in `check_ids`; ValueError, naming both shapes, if they do not stretch so, or are not T.
    """
    places = check_ids(positions, max_len)
    tokens = shape[:-1]
    try:
        fits = np.broadcast_shapes(places.shape, tokens) == tokens and places.shape[-1:] == tokens[-1:]
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"positions of shape {places.shape} for tokens of shape {tuple(shape)}")
    return places


def frequencies(dim: int, base: float) -> Array:
    return np.exp(-math.log(base) * np.arange(0, dim, 2) / dim) if dim else np.zeros(0)


def sinusoidal_positions(length: int, dim: int, base: float = 10_000.0) -> Array:
    """Each column of its own: a cosine is a sine a quarter turn ahead."""
    rates = np.repeat(frequencies(dim, base), 2)[:dim]
    ahead = np.where(np.arange(dim) % 2, math.pi / 2, 0.0)
    return np.sin(np.arange(length, dtype=np.float64)[:, None] * rates + ahead).astype(np.float32)


class Positions(Module):
    def forward(self, x: Tensor, offset: int = 0, positions: Array | None = None) -> Tensor:
        rows = self.rows()
        if positions is not None:
            return add(
                x,
                embedding(
                    rows,
                    check_positions(positions, x.shape, len(rows.data if isinstance(rows, Tensor) else rows)),
                ),
            )
        span = check_span(offset, x.shape[-2], rows.shape[0])
        return add(x, rows[span])

    def rows(self) -> Tensor:
        raise NotImplementedError


class SinusoidalPositions(Positions):
    def __init__(self, dim: int, max_len: int) -> None:
        self.table = sinusoidal_positions(max_len, dim)

    def rows(self) -> Tensor:
        return Tensor(self.table)


class LearnedPositions(Positions):
    def __init__(self, max_len: int, dim: int, *, rng: np.random.Generator) -> None:
        self.weight = Parameter(np.empty((max_len, dim), np.float32))
        normal_(self.weight, std=0.02, rng=rng)

    def rows(self) -> Tensor:
        return self.weight


def rotary_tables(length: int, head_dim: int, base: float = 10_000.0) -> tuple[Array, Array]:
    if head_dim % 2:
        raise ValueError(f"head_dim {head_dim}")
    angles = np.arange(length)[:, None] * frequencies(head_dim, base)
    cos, sin = np.cos(angles), np.sin(angles)
    return cos.astype(np.float32), sin.astype(np.float32)


def rotate_half(x: Array) -> Array:
    half = x.shape[-1] // 2
    return np.concatenate((-x[..., half:], x[..., :half]), axis=-1)


@op
def rotary(x: Array, *, cos: Array, sin: Array) -> Array:
    dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.float32)
    if x.ndim < 2 or cos.shape != sin.shape or (*x.shape[-2:-1], x.shape[-1] / 2) != cos.shape:
        raise ValueError(f"x {x.shape}, cos {cos.shape}, sin {sin.shape}")
    cos, sin = (np.concatenate((t, t), axis=-1).astype(dtype) for t in (cos, sin))
    return (x * cos + rotate_half(x.astype(dtype, copy=False)) * sin).astype(dtype, copy=False)


@rotary.gradient
def rotary_back(grad: Array, sin: Array, cos: Array) -> Array:
    cos, sin = (np.concatenate((t, t), axis=-1).astype(grad.dtype) for t in (cos, sin))
    return grad * cos - rotate_half(grad) * sin


class Rotary(Module):
    def __init__(self, head_dim: int, max_len: int, base: float = 10_000.0) -> None:
        self.cos, self.sin = rotary_tables(max_len, head_dim, base)

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        span = check_span(offset, x.shape[-2], len(self.cos))
        return rotary(x, cos=self.cos[span], sin=self.sin[span])


class TiedLinear(Module):
    def __init__(self, embedding: Embedding) -> None:
        if embedding.sparse:
            raise ValueError("sparse")
        self.weight = embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return affine(x, self.weight, None)

    def flops(self, inputs: tuple[Any, ...], out: Any) -> int:
        return int(2 * out.size * self.weight.shape[1])

    def extra_repr(self) -> str:
        count, dim = self.weight.shape
        return f"{dim}, {count}"
