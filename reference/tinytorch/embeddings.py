"""Kata 12 · Embeddings: a vector for each token, and a way to say where it stands.

An embedding is a table with a row for each token, and looking up is indexing. The way back is where the work
is: gradients that come from everywhere in a batch are added to the few rows that were read. Then three ways
to tell a network about positions, to which attention (kata 13) is blind: waves that are added, rows that are
learned, and rotations.

Ids are integers of any dtype, in an array, a Tensor or a list of any shape, or a single number; each names a
row, and is never negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch.autograd import register_hook
from tinytorch.layers import Module, Parameter, affine, as_rows
from tinytorch.tensor import Array, Shape, Tensor, floating, increment_version, op

__all__ = [
    "Embedding", "LearnedPositions", "Rotary", "SinusoidalPositions", "SparseRows", "TiedLinear", "check_ids",
    "check_positions", "check_span", "embedding", "embedding_back", "normal_", "rotary", "rotary_back",
    "rotary_tables", "scatter_add", "sgd_rows_", "sinusoidal_positions",
]  # fmt: skip

# Bytes of places to work on at a time: they stay in a core's own cache.
PLACES = 1 << 18

# Two floats side by side, seen as one number of twice the size.
PAIRS = {np.dtype(np.float32): np.dtype(np.complex64), np.dtype(np.float64): np.dtype(np.complex128)}


# A table, and looking up in it.


def check_ids(ids: Any, count: int) -> Array:
    """`ids` as an array of np.intp, numpy's index type (int64); not copied if they are one.

    TypeError for any dtype but those of integers, naming it. ValueError for an id that is negative, or not
    below `count`, naming both.
    """
    # kata 12.1: numpy would take -1 for the last row, and True for row 1.
    array = np.asarray(ids)
    if array.dtype.kind not in "iu":
        raise TypeError(f"ids are integers, not {array.dtype}")
    if array.size:
        lowest, highest = int(array.min()), int(array.max())
        if lowest < 0 or highest >= count:
            wrong = lowest if lowest < 0 else highest
            raise ValueError(f"id {wrong} is no row of a table of {count}")
    return array.astype(np.intp, copy=False)


@op
def embedding(weight: Array, ids: Array, *, padding_idx: int | None = None) -> Array:
    """The rows of `weight` (count, dim) that `ids` (...) name: (..., dim).

    The gradient of row `padding_idx` is 0, whatever comes in. Errors as in `check_ids`; ValueError for a
    weight that has not two axes, naming its shape.
    """
    # kata 12.2: indexing, once the ids are looked at.
    if weight.ndim != 2:
        raise ValueError(f"a table has rows and columns, and a weight of shape {weight.shape} has not")
    return weight.take(check_ids(ids, len(weight)), axis=0)


def scatter_add(rows: Array, ids: Array, count: int) -> Array:
    """Add up the rows of each id: (n, dim) and (n,) make (count, dim), in the dtype of `rows`.

    Row i of the result is the sum of all rows[j] where ids[j] == i, and 0 where there is none. Errors as in
    `check_ids`; ValueError, naming both shapes, if they are not (n, dim) and (n,).
    """
    # kata 12.3: np.add.at is quick where one number goes to one place, and slow for rows; so count places.
    ids = check_ids(ids, count)
    if rows.ndim != 2 or ids.shape != rows.shape[:1]:
        raise ValueError(f"rows of shape {rows.shape} and ids of shape {ids.shape}: each row needs one id")
    total = np.zeros((count, rows.shape[1]), rows.dtype)
    # Complex numbers add like pairs of floats, and there are half as many of them.
    unit: Any = PAIRS.get(rows.dtype, rows.dtype) if rows.shape[1] % 2 == 0 else rows.dtype
    flat = total.view(unit).reshape(-1)
    columns = np.arange(total.view(unit).shape[1])
    step = max(PLACES // max(columns.nbytes, 1), 1)
    for start in range(0, len(rows), step):
        places = ids[start : start + step, None] * len(columns) + columns
        values = np.ascontiguousarray(rows[start : start + step]).view(unit)
        np.add.at(flat, places.reshape(-1), values.reshape(-1))
    return total


@embedding.gradient
def embedding_back(
    grad: Array, ids: Array, input_shapes: tuple[Shape, ...], padding_idx: int | None
) -> Array:  # stub: (grad: Array)
    """The gradient of the weight: what came in for each place, added up for each row; 0 for the padding."""
    # kata 12.4: add what you need after `grad`. Which of (weight, ids, out) has to be kept?
    count = input_shapes[0][0]
    table = scatter_add(as_rows(grad), np.reshape(ids, -1), count)
    if padding_idx is not None:
        table[padding_idx] = 0
    return table


def normal_(tensor: Tensor, std: float = 1.0, *, rng: np.random.Generator) -> Tensor:
    """Draw `tensor` anew, in place and in its dtype: normal, with mean 0 and this deviation; returns it.

    As many numbers are drawn from `rng` as are written, and no others.
    """
    # kata 12.5: draw in float32 unless it is float64, and note the write with `increment_version`.
    drawn = rng.standard_normal(tensor.shape, np.float64 if tensor.dtype == np.float64 else np.float32)
    drawn *= std
    tensor.data[...] = drawn
    increment_version(tensor.data)
    return tensor


# A gradient of a few rows, and a layer that can have one.


@dataclass(frozen=True, eq=False)
class SparseRows:
    """A table that is 0 but for some rows.

    Attributes:
        ids: which rows, (n,); one may be named twice, and then its values add up.
        values: these rows, (n, dim).
        shape: of the whole table, (count, dim).
    """

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
        """The same table, with each row named once, in ascending order."""
        # kata 12.6: np.unique can say which of the distinct ids each id is.
        ids, which = np.unique(self.ids, return_inverse=True)
        return SparseRows(ids, scatter_add(self.values, which.reshape(-1), len(ids)), self.shape)

    def to_dense(self) -> Array:
        """The whole table (count, dim)."""
        # kata 12.6: you have written it.
        return scatter_add(self.values, self.ids, self.shape[0])

    def __add__(self, other: SparseRows) -> SparseRows:
        """The sum of two tables; ValueError if their shapes differ, naming both."""
        # kata 12.6: a row that both name is named twice.
        if self.shape != other.shape:
            raise ValueError(f"tables of shapes {self.shape} and {other.shape} do not add up")
        ids = np.concatenate((self.ids, other.ids))
        return SparseRows(ids, np.concatenate((self.values, other.values)), self.shape)


def sgd_rows_(weight: Tensor, rows: SparseRows, lr: float) -> None:
    """weight -= lr * rows, in place; rows that are not named are neither read nor written.

    ValueError if the shapes differ, naming both.
    """
    # kata 12.7: `a[ids] -= b` takes a row that is named twice only once.
    if weight.shape != rows.shape:
        raise ValueError(f"rows of a table of shape {rows.shape} do not fit a weight of shape {weight.shape}")
    rows = rows.coalesce()
    weight.data[rows.ids] -= lr * rows.values
    increment_version(weight.data)


class Embedding(Module):
    """A learned vector for each of `num_embeddings` tokens.

    Rows start normal, with mean 0 and deviation 1, in float32, as in PyTorch. The row `padding_idx` starts as
    0 and gets no gradient, so it stays. ValueError if there is no such row, naming it and the count.

    With `sparse`, `weight.grad` stays None, and a backward pass makes no array as large as the weight: what
    `sparse_grad` gives are the rows that were looked up, and their gradients.

    Attributes:
        weight: (num_embeddings, embedding_dim).
        padding_idx, sparse: as given.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        sparse: bool = False,
        *,
        rng: np.random.Generator,
    ) -> None:
        # kata 12.8: `normal_` on an empty Parameter; then the padding.
        if padding_idx is not None and not 0 <= padding_idx < num_embeddings:
            raise ValueError(f"padding_idx {padding_idx} is no row of a table of {num_embeddings}")
        self.weight = Parameter(np.empty((num_embeddings, embedding_dim), np.float32))
        self.padding_idx, self.sparse = padding_idx, sparse
        self.rows: SparseRows | None = None  # what backward passes brought, until sparse_grad takes it
        normal_(self.weight, rng=rng)
        if padding_idx is not None:
            self.weight.data[padding_idx] = 0

    def forward(self, ids: Array | Tensor) -> Tensor:
        """(...) integers -> (..., embedding_dim). Errors as in `check_ids`, also if the layer is sparse."""
        # kata 12.8: one operation. (And from 12.9 on `look_up_sparse`, if the layer is sparse.)
        if self.sparse and self.weight.requires_grad:
            return self.look_up_sparse(ids)
        return embedding(self.weight, ids, padding_idx=self.padding_idx)

    def look_up_sparse(self, ids: Array | Tensor) -> Tensor:
        """As `forward`, from a small table of the rows that occur: a leaf, which gets the gradient."""
        # kata 12.9: np.unique again; and `register_hook` of kata 06 sees a gradient when it comes.
        places = check_ids(ids, len(self.weight.data))
        distinct, which = np.unique(places, return_inverse=True)
        small = Tensor(self.weight.data[distinct], requires_grad=True)

        def arrived(grad: Array) -> None:
            learnt = distinct != self.padding_idx  # all of them, if that is None
            rows = SparseRows(distinct[learnt], grad[learnt], self.weight.shape)
            self.rows = rows if self.rows is None else self.rows + rows

        register_hook(small, arrived)
        return embedding(small, which.reshape(places.shape))

    def sparse_grad(self) -> SparseRows | None:
        """Take the gradient that backward passes brought since the last call; None if there was none.

        Each row is named once, in ascending order, and the padding not at all: where only padding was looked
        up, what comes has no rows. Nothing else forgets it: `zero_grad` is about the `grad` of parameters.
        """
        # kata 12.9: hand it out, and forget it.
        rows, self.rows = self.rows, None
        return None if rows is None else rows.coalesce()

    def extra_repr(self) -> str:
        count, dim = self.weight.shape
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{count}, {dim}{padding}{', sparse=True' if self.sparse else ''}"


# Positions that are added.


def check_span(offset: int, length: int, max_len: int) -> slice:
    """`length` positions, from `offset` on; ValueError, with the numbers, if the table has not all. Given."""
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


def sinusoidal_positions(length: int, dim: int, base: float = 10_000.0) -> Array:
    """A wave for each pair of columns (Vaswani et al., 2017): (length, dim), float32.

    Columns 2i and 2i + 1 are the sine and the cosine of position / base**(2i / dim). Where `dim` is odd, the
    last sine is without its cosine.
    """
    # kata 12.10: an outer product of positions and frequencies, in float64.
    angles = np.outer(np.arange(length), base ** -(np.arange(0, dim, 2) / dim))
    table = np.empty((length, dim), np.float32)
    table[:, ::2] = np.sin(angles)
    table[:, 1::2] = np.cos(angles[:, : dim // 2])
    return table


class SinusoidalPositions(Module):
    """Adds to each token the waves of its position. Nothing is learned, and nothing needs to be saved.

    Attributes:
        table: (max_len, dim), float32.
    """

    def __init__(self, dim: int, max_len: int) -> None:
        # kata 12.11: a plain array, neither Parameter nor Buffer.
        self.table = sinusoidal_positions(max_len, dim)

    def forward(self, x: Tensor, offset: int = 0, positions: Array | None = None) -> Tensor:
        """(..., T, dim), plus the positions from `offset` on; or those of `positions`, if given.

        `positions` are (..., T), or (T,) for all texts alike; then `offset` does not count. ValueError, as of
        `check_span` or `check_positions`, for what the table has not, and for a shape that does not fit.
        """
        # kata 12.11: slice the table, or index it.
        if positions is not None:
            return x + self.table[check_positions(positions, x.shape, len(self.table))]
        return x + self.table[check_span(offset, x.shape[-2], len(self.table))]


class LearnedPositions(Module):
    """Adds to each token a learned vector of its position, as GPT-2 does.

    Attributes:
        weight: (max_len, dim), float32; normal at first, with deviation 0.02.
    """

    def __init__(self, max_len: int, dim: int, *, rng: np.random.Generator) -> None:
        # kata 12.12: `normal_` again.
        self.weight = Parameter(np.empty((max_len, dim), np.float32))
        normal_(self.weight, 0.02, rng=rng)

    def forward(self, x: Tensor, offset: int = 0, positions: Array | None = None) -> Tensor:
        """As that of `SinusoidalPositions`."""
        # kata 12.12: the same; but here gradients must find their way.
        if positions is not None:
            return x + embedding(self.weight, check_positions(positions, x.shape, len(self.weight.data)))
        return x + self.weight[check_span(offset, x.shape[-2], len(self.weight.data))]


# Positions that turn.


def rotary_tables(length: int, head_dim: int, base: float = 10_000.0) -> tuple[Array, Array]:
    """(cos, sin) of the angles position / base**(2i / head_dim): each (length, head_dim // 2), float32.

    ValueError if `head_dim` is odd, naming it.
    """
    # kata 12.13: the angles of 12.10.
    if head_dim % 2:
        raise ValueError(f"rotations need pairs, and {head_dim} is odd")
    angles = np.outer(np.arange(length), base ** -(np.arange(0, head_dim, 2) / head_dim))
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


@op
def rotary(x: Array, *, cos: Array, sin: Array) -> Array:
    """Turn each pair (x[i], x[i + head_dim // 2]) of a vector by the angle of its position (Su et al., 2021).

    x is (..., T, head_dim), the tables (T, head_dim // 2); the result has the shape and the dtype of x, or
    float32 where x holds integers, and as many digits as that dtype has: in float16, some three. ValueError
    if the shapes do not fit, naming them.
    """
    # kata 12.14: (a cos - b sin, b cos + a sin) is the vector times something, and its halves exchanged times
    # something else: long runs of memory, and two new arrays.
    x = floating(x)
    if x.ndim < 2 or x.shape[-1] % 2 or not (x.shape[-2], x.shape[-1] // 2) == cos.shape == sin.shape:
        raise ValueError(f"tables of shapes {cos.shape}, {sin.shape} do not turn vectors of shape {x.shape}")
    half = x.shape[-1] // 2
    out: Array = x * np.concatenate((cos, cos), axis=1, dtype=x.dtype)
    exchanged = np.concatenate((x[..., half:], x[..., :half]), axis=-1)
    exchanged *= np.concatenate((-sin, sin), axis=1)
    out += exchanged
    return out


@rotary.gradient
def rotary_back(grad: Array, cos: Array, sin: Array) -> Array:  # stub: (grad: Array)
    """The gradient of x, in the dtype of `grad`."""
    # kata 12.15: what is the transpose of a rotation?
    return rotary.forward(grad, cos=cos, sin=-sin)  # type: ignore[no-any-return]


class Rotary(Module):
    """Turns queries and keys by their positions, so that their products depend on the distance alone.

    Attributes:
        cos, sin: the tables, (max_len, head_dim // 2), float32.
    """

    def __init__(self, head_dim: int, max_len: int, base: float = 10_000.0) -> None:
        # kata 12.16: plain arrays again.
        self.cos, self.sin = rotary_tables(max_len, head_dim, base)

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        """(..., T, head_dim), turned by the positions from `offset` on. ValueError as of `check_span`."""
        # kata 12.16: the same slice of both.
        span = check_span(offset, x.shape[-2], len(self.cos))
        return rotary(x, cos=self.cos[span], sin=self.sin[span])


# The way out: logits.


class TiedLinear(Module):
    """Logits from an embedding's own table: x @ weight.T, without a bias.

    One table serves both ends (Press and Wolf, 2016). ValueError for an embedding that is sparse, with that
    word: each logit reads a row, so the gradient here is dense.

    Attributes:
        weight: the embedding's Parameter, (num_embeddings, embedding_dim).
    """

    def __init__(self, embedding: Embedding) -> None:
        # kata 12.17: the very Parameter, not its numbers.
        if embedding.sparse:
            raise ValueError("a head reads all rows of its table, so the embedding must not be sparse")
        self.weight = embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        """(..., embedding_dim) -> (..., num_embeddings)."""
        # kata 12.17: kata 03 has the operation.
        return affine(x, self.weight)

    def flops(self, inputs: tuple[Any, ...], out: Any) -> int:
        return int(2 * out.size * self.weight.shape[1])

    def extra_repr(self) -> str:
        count, dim = self.weight.shape
        return f"{dim}, {count}"
