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
    # TODO 12.1: numpy would take -1 for the last row, and True for row 1.
    raise NotImplementedError("kata 12.1: check_ids")


@op
def embedding(weight: Array, ids: Array, *, padding_idx: int | None = None) -> Array:
    """The rows of `weight` (count, dim) that `ids` (...) name: (..., dim).

    The gradient of row `padding_idx` is 0, whatever comes in. Errors as in `check_ids`; ValueError for a
    weight that has not two axes, naming its shape.
    """
    # TODO 12.2: indexing, once the ids are looked at.
    raise NotImplementedError("kata 12.2: embedding")


def scatter_add(rows: Array, ids: Array, count: int) -> Array:
    """Add up the rows of each id: (n, dim) and (n,) make (count, dim), in the dtype of `rows`.

    Row i of the result is the sum of all rows[j] where ids[j] == i, and 0 where there is none. Errors as in
    `check_ids`; ValueError, naming both shapes, if they are not (n, dim) and (n,).
    """
    # TODO 12.3: np.add.at is quick where one number goes to one place, and slow for rows; so count places.
    raise NotImplementedError("kata 12.3: scatter_add")


@embedding.gradient
def embedding_back(grad: Array) -> Array:
    """The gradient of the weight: what came in for each place, added up for each row; 0 for the padding."""
    # TODO 12.4: add what you need after `grad`. Which of (weight, ids, out) has to be kept?
    raise NotImplementedError("kata 12.4: embedding_back")


def normal_(tensor: Tensor, std: float = 1.0, *, rng: np.random.Generator) -> Tensor:
    """Draw `tensor` anew, in place and in its dtype: normal, with mean 0 and this deviation; returns it.

    As many numbers are drawn from `rng` as are written, and no others.
    """
    # TODO 12.5: draw in float32 unless it is float64, and note the write with `increment_version`.
    raise NotImplementedError("kata 12.5: normal_")


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
        # TODO 12.6: np.unique can say which of the distinct ids each id is.
        raise NotImplementedError("kata 12.6: SparseRows.coalesce")

    def to_dense(self) -> Array:
        """The whole table (count, dim)."""
        # TODO 12.6: you have written it.
        raise NotImplementedError("kata 12.6: SparseRows.to_dense")

    def __add__(self, other: SparseRows) -> SparseRows:
        """The sum of two tables; ValueError if their shapes differ, naming both."""
        # TODO 12.6: a row that both name is named twice.
        raise NotImplementedError("kata 12.6: SparseRows.__add__")


def sgd_rows_(weight: Tensor, rows: SparseRows, lr: float) -> None:
    """weight -= lr * rows, in place; rows that are not named are neither read nor written.

    ValueError if the shapes differ, naming both.
    """
    # TODO 12.7: `a[ids] -= b` takes a row that is named twice only once.
    raise NotImplementedError("kata 12.7: sgd_rows_")


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
        # TODO 12.8: `normal_` on an empty Parameter; then the padding.
        raise NotImplementedError("kata 12.8: Embedding.__init__")

    def forward(self, ids: Array | Tensor) -> Tensor:
        """(...) integers -> (..., embedding_dim). Errors as in `check_ids`, also if the layer is sparse."""
        # TODO 12.8: one operation. (And from 12.9 on `look_up_sparse`, if the layer is sparse.)
        raise NotImplementedError("kata 12.8: Embedding.forward")

    def look_up_sparse(self, ids: Array | Tensor) -> Tensor:
        """As `forward`, from a small table of the rows that occur: a leaf, which gets the gradient."""
        # TODO 12.9: np.unique again; and `register_hook` of kata 06 sees a gradient when it comes.
        raise NotImplementedError("kata 12.9: Embedding.look_up_sparse")

    def sparse_grad(self) -> SparseRows | None:
        """Take the gradient that backward passes brought since the last call; None if there was none.

        Each row is named once, in ascending order, and the padding not at all: where only padding was looked
        up, what comes has no rows. Nothing else forgets it: `zero_grad` is about the `grad` of parameters.
        """
        # TODO 12.9: hand it out, and forget it.
        raise NotImplementedError("kata 12.9: Embedding.sparse_grad")

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
    # TODO 12.10: an outer product of positions and frequencies, in float64.
    raise NotImplementedError("kata 12.10: sinusoidal_positions")


class SinusoidalPositions(Module):
    """Adds to each token the waves of its position. Nothing is learned, and nothing needs to be saved.

    Attributes:
        table: (max_len, dim), float32.
    """

    def __init__(self, dim: int, max_len: int) -> None:
        # TODO 12.11: a plain array, neither Parameter nor Buffer.
        raise NotImplementedError("kata 12.11: SinusoidalPositions.__init__")

    def forward(self, x: Tensor, offset: int = 0, positions: Array | None = None) -> Tensor:
        """(..., T, dim), plus the positions from `offset` on; or those of `positions`, if given.

        `positions` are (..., T), or (T,) for all texts alike; then `offset` does not count. ValueError, as of
        `check_span` or `check_positions`, for what the table has not, and for a shape that does not fit.
        """
        # TODO 12.11: slice the table, or index it.
        raise NotImplementedError("kata 12.11: SinusoidalPositions.forward")


class LearnedPositions(Module):
    """Adds to each token a learned vector of its position, as GPT-2 does.

    Attributes:
        weight: (max_len, dim), float32; normal at first, with deviation 0.02.
    """

    def __init__(self, max_len: int, dim: int, *, rng: np.random.Generator) -> None:
        # TODO 12.12: `normal_` again.
        raise NotImplementedError("kata 12.12: LearnedPositions.__init__")

    def forward(self, x: Tensor, offset: int = 0, positions: Array | None = None) -> Tensor:
        """As that of `SinusoidalPositions`."""
        # TODO 12.12: the same; but here gradients must find their way.
        raise NotImplementedError("kata 12.12: LearnedPositions.forward")


# Positions that turn.


def rotary_tables(length: int, head_dim: int, base: float = 10_000.0) -> tuple[Array, Array]:
    """(cos, sin) of the angles position / base**(2i / head_dim): each (length, head_dim // 2), float32.

    ValueError if `head_dim` is odd, naming it.
    """
    # TODO 12.13: the angles of 12.10.
    raise NotImplementedError("kata 12.13: rotary_tables")


@op
def rotary(x: Array, *, cos: Array, sin: Array) -> Array:
    """Turn each pair (x[i], x[i + head_dim // 2]) of a vector by the angle of its position (Su et al., 2021).

    x is (..., T, head_dim), the tables (T, head_dim // 2); the result has the shape and the dtype of x, or
    float32 where x holds integers, and as many digits as that dtype has: in float16, some three. ValueError
    if the shapes do not fit, naming them.
    """
    # TODO 12.14: (a cos - b sin, b cos + a sin) is the vector times something, and its halves exchanged times
    # something else: long runs of memory, and two new arrays.
    raise NotImplementedError("kata 12.14: rotary")


@rotary.gradient
def rotary_back(grad: Array) -> Array:
    """The gradient of x, in the dtype of `grad`."""
    # TODO 12.15: what is the transpose of a rotation?
    raise NotImplementedError("kata 12.15: rotary_back")


class Rotary(Module):
    """Turns queries and keys by their positions, so that their products depend on the distance alone.

    Attributes:
        cos, sin: the tables, (max_len, head_dim // 2), float32.
    """

    def __init__(self, head_dim: int, max_len: int, base: float = 10_000.0) -> None:
        # TODO 12.16: plain arrays again.
        raise NotImplementedError("kata 12.16: Rotary.__init__")

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        """(..., T, head_dim), turned by the positions from `offset` on. ValueError as of `check_span`."""
        # TODO 12.16: the same slice of both.
        raise NotImplementedError("kata 12.16: Rotary.forward")


# The way out: logits.


class TiedLinear(Module):
    """Logits from an embedding's own table: x @ weight.T, without a bias.

    One table serves both ends (Press and Wolf, 2016). ValueError for an embedding that is sparse, with that
    word: each logit reads a row, so the gradient here is dense.

    Attributes:
        weight: the embedding's Parameter, (num_embeddings, embedding_dim).
    """

    def __init__(self, embedding: Embedding) -> None:
        # TODO 12.17: the very Parameter, not its numbers.
        raise NotImplementedError("kata 12.17: TiedLinear.__init__")

    def forward(self, x: Tensor) -> Tensor:
        """(..., embedding_dim) -> (..., num_embeddings)."""
        # TODO 12.17: kata 03 has the operation.
        raise NotImplementedError("kata 12.17: TiedLinear.forward")

    def flops(self, inputs: tuple[Any, ...], out: Any) -> int:
        return int(2 * out.size * self.weight.shape[1])

    def extra_repr(self) -> str:
        count, dim = self.weight.shape
        return f"{dim}, {count}"
