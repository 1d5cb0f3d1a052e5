"""Kata 12 in another manner: rows are sorted and summed run by run, a sum is put in order at once, waves are
complex exponentials, and vectors turn half by half."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch.autograd import register_hook
from tinytorch.layers import Module, Parameter
from tinytorch.tensor import Array, Shape, Tensor, add, as_array, increment_version, matmul, op

__all__ = [
    "Embedding", "LearnedPositions", "Rotary", "SinusoidalPositions", "SparseRows", "TiedLinear", "check_ids",
    "check_positions", "check_span", "embedding", "embedding_back", "normal_", "rotary", "rotary_back",
    "rotary_tables", "scatter_add", "sgd_rows_", "sinusoidal_positions",
]  # fmt: skip


def check_ids(ids: Any, count: int) -> Array:
    array = as_array(ids)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{array.dtype} cannot name rows")
    wrong = (array < 0) | (array >= count)
    if np.any(wrong):
        raise ValueError(f"there are {count} rows, and none is called {array[wrong].flat[0]}")
    return np.asarray(array, np.intp)


@op
def embedding(weight: Array, ids: Array, *, padding_idx: int | None = None) -> Array:
    if weight.ndim != 2:
        raise ValueError(f"{weight.shape} is not the shape of a table")
    return np.asarray(weight[check_ids(ids, weight.shape[0])])


def scatter_add(rows: Array, ids: Array, count: int) -> Array:
    places = check_ids(ids, count)
    if rows.ndim != 2 or places.ndim != 1 or len(places) != len(rows):
        raise ValueError(f"{rows.shape} and {places.shape}")
    total = np.zeros((count, rows.shape[1]), rows.dtype)
    if len(rows):
        order = places.argsort(kind="stable")
        in_order = places[order]
        first = np.flatnonzero(np.diff(in_order, prepend=-1))
        total[in_order[first]] = np.add.reduceat(rows[order], first, axis=0)
    return total


@embedding.gradient
def embedding_back(grad: Array, ids: Any, input_shapes: tuple[Shape, ...], padding_idx: int | None) -> Array:
    count, dim = input_shapes[0]
    places = np.asarray(as_array(ids)).ravel()
    rows = grad.reshape(len(places), dim)
    if padding_idx is not None:
        rows, places = rows[places != padding_idx], places[places != padding_idx]
    return scatter_add(rows, places, count)


def normal_(tensor: Tensor, std: float = 1.0, *, rng: np.random.Generator) -> Tensor:
    if tensor.dtype == np.float64:
        tensor.data[...] = rng.normal(0.0, std, tensor.shape)
    else:
        tensor.data[...] = np.float32(std) * rng.standard_normal(tensor.shape, dtype=np.float32)
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
        if not len(self.ids):
            return self
        order = np.argsort(self.ids, kind="stable")
        ids = self.ids[order]
        first = np.concatenate(([0], np.flatnonzero(ids[1:] != ids[:-1]) + 1))
        return SparseRows(ids[first], np.add.reduceat(self.values[order], first, axis=0), self.shape)

    def to_dense(self) -> Array:
        once = self.coalesce()
        table = np.zeros(self.shape, self.values.dtype)
        table[once.ids] = once.values
        return table

    def __add__(self, other: SparseRows) -> SparseRows:
        if self.shape != other.shape:
            raise ValueError(f"{self.shape} and {other.shape}")
        both = SparseRows(np.r_[self.ids, other.ids], np.vstack((self.values, other.values)), self.shape)
        return both.coalesce()


def sgd_rows_(weight: Tensor, rows: SparseRows, lr: float) -> None:
    if tuple(weight.shape) != tuple(rows.shape):
        raise ValueError(f"{weight.shape} and {rows.shape}")
    np.subtract.at(weight.data, rows.ids, (lr * rows.values).astype(weight.dtype))
    increment_version(weight.data)


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
        if padding_idx is not None and padding_idx not in range(num_embeddings):
            raise ValueError(f"there are {num_embeddings} rows, and none is called {padding_idx}")
        rows = rng.standard_normal((num_embeddings, embedding_dim), np.float32)
        if padding_idx is not None:
            rows[padding_idx] = 0
        self.weight = Parameter(rows)
        self.padding_idx, self.sparse = padding_idx, sparse
        self.arrived: list[SparseRows] = []

    def forward(self, ids: Any) -> Tensor:
        return (
            self.look_up_sparse(ids)
            if self.sparse
            else embedding(self.weight, ids, padding_idx=self.padding_idx)
        )

    def look_up_sparse(self, ids: Any) -> Tensor:
        places = check_ids(ids, self.weight.shape[0])
        distinct = np.array(sorted(set(places.ravel().tolist())), np.intp)
        leaf = Tensor(self.weight.data[distinct], requires_grad=self.weight.requires_grad)
        padding = None
        if self.padding_idx is not None and self.padding_idx in distinct:
            padding = int(np.searchsorted(distinct, self.padding_idx))
        if leaf.requires_grad:
            layer = weakref.ref(self)

            def note(grad: Array) -> None:
                owner = layer()
                if owner is not None:
                    rows = SparseRows(distinct, grad.copy(), owner.weight.shape)
                    if padding is not None:
                        rows = SparseRows(
                            np.delete(distinct, padding), np.delete(grad, padding, axis=0), rows.shape
                        )
                    owner.arrived.append(rows)

            register_hook(leaf, note)
        return embedding(leaf, np.searchsorted(distinct, places), padding_idx=padding)

    def sparse_grad(self) -> SparseRows | None:
        if not self.arrived:
            return None
        first, *others = self.arrived
        self.arrived = []
        for rows in others:
            first = first + rows
        return first

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


def turns(length: int, dim: int, base: float) -> Array:
    """exp(i * angle) for each position and pair: (length, pairs)."""
    pairs = np.arange((dim + 1) // 2)
    return np.exp(1j * np.arange(length)[:, None] / base ** (2 * pairs / max(dim, 1)))


def sinusoidal_positions(length: int, dim: int, base: float = 10_000.0) -> Array:
    z = turns(length, dim, base)
    both = np.stack((z.imag, z.real), axis=-1).reshape(length, 2 * z.shape[1])
    return both[:, :dim].astype(np.float32)


class SinusoidalPositions(Module):
    def __init__(self, dim: int, max_len: int) -> None:
        self.table = sinusoidal_positions(max_len, dim)

    def forward(self, x: Tensor, offset: int = 0, positions: Array | None = None) -> Tensor:
        if positions is None:
            return add(x, self.table[check_span(offset, x.shape[-2], len(self.table))])
        return add(x, embedding(self.table, check_positions(positions, x.shape, len(self.table))))


class LearnedPositions(Module):
    def __init__(self, max_len: int, dim: int, *, rng: np.random.Generator) -> None:
        self.weight = Parameter(np.float32(0.02) * rng.standard_normal((max_len, dim), np.float32))

    def forward(self, x: Tensor, offset: int = 0, positions: Array | None = None) -> Tensor:
        if positions is None:
            span = check_span(offset, x.shape[-2], self.weight.shape[0])
            positions = np.arange(span.start, span.stop)
        return add(x, embedding(self.weight, check_positions(positions, x.shape, len(self.weight.data))))


def rotary_tables(length: int, head_dim: int, base: float = 10_000.0) -> tuple[Array, Array]:
    if head_dim % 2 == 1:
        raise ValueError(f"{head_dim} is not even")
    z = turns(length, head_dim, base).astype(np.complex128)
    return z.real.astype(np.float32), z.imag.astype(np.float32)


def halves(x: Array, cos: Array, sin: Array, sign: int) -> Array:
    first, second = np.split(x, 2, axis=-1)
    out = np.empty(x.shape, x.dtype)
    to_first, to_second = np.split(out, 2, axis=-1)
    to_first[...] = first * cos - sign * (second * sin)
    to_second[...] = second * cos + sign * (first * sin)
    return out


@op
def rotary(x: Array, *, cos: Array, sin: Array) -> Array:
    if x.ndim < 2 or (*cos.shape[:-1], 2 * cos.shape[-1]) != x.shape[-2:] or cos.shape != sin.shape:
        raise ValueError(f"{x.shape}, {cos.shape}, {sin.shape}")
    if x.dtype.kind != "f":
        x = x.astype(np.float32)
    return halves(x, cos, sin, 1)


@rotary.gradient
def rotary_back(grad: Array, cos: Array, sin: Array) -> Array:
    return halves(grad, cos, sin, -1)


class Rotary(Module):
    def __init__(self, head_dim: int, max_len: int, base: float = 10_000.0) -> None:
        self.cos, self.sin = rotary_tables(max_len, head_dim, base)

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        check_span(offset, x.shape[-2], len(self.cos))
        length = x.shape[-2]
        return rotary(x, cos=self.cos[offset:][:length], sin=self.sin[offset:][:length])


class TiedLinear(Module):
    def __init__(self, embedding: Embedding) -> None:
        if embedding.sparse:
            raise ValueError("a sparse table cannot be a head: its gradient would be dense")
        self.weight = embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return matmul(x, self.weight.T)

    def flops(self, inputs: tuple[Any, ...], out: Any) -> int:
        return int(2 * out.size * self.weight.shape[1])

    def extra_repr(self) -> str:
        count, dim = self.weight.shape
        return f"{dim}, {count}"
