"""Kata 17 · Kernels: the same numbers, in fewer trips to memory.

A numpy expression makes an array for each of its operators, and walks through memory for each. A *kernel*
here does a whole expression piece by piece, each piece small enough to stay in the cache from its first
operator to its last, and writes into arrays that are there. What it saves is memory traffic; where there is
none to save, it saves nothing, and the README says where.
"""

from __future__ import annotations

import copy
import functools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tinytorch.activations import GELU, below_largest
from tinytorch.layers import Linear, Module, Parameter, as_rows
from tinytorch.networks import Sequential
from tinytorch.optimizers import Optimizer
from tinytorch.spatial import BatchNorm2d, Conv2d, channels_last
from tinytorch.tensor import (
    Array,
    Shape,
    Tensor,
    as_array,
    broadcast_shapes,
    floating,
    increment_version,
    op,
    promote,
    result_type,
)  # fmt: skip
from tinytorch.training import check_labels

__all__ = [
    "CHUNK", "FusedAdam", "LinearGELU", "Workspace", "add_relu", "block_for", "blocked_matmul", "fast_gelu",
    "fold_batch_norm", "fuse", "in_chunks", "linear_gelu", "matmul_traffic", "parallel_for", "pieces",
    "scale_shift_add_relu", "softmax_cross_entropy", "winograd_conv2d",
]  # fmt: skip

# Numbers in a piece: of float32, 256 KiB. Less, and calling numpy takes longer than what it does; more, and
# two or three pieces no longer fit the cache of a core (0.5 to 2 MiB).
CHUNK = 1 << 16


# Memory that is there already.


class Workspace:
    """Arrays to work in, by name. Memory for a name is laid out once, and again only when more is needed.

    Attributes:
        nbytes: of all its memory.
    """

    def __init__(self) -> None:
        self._memory: dict[str, Array] = {}

    def take(self, name: str, shape: int | Sequence[int], dtype: DTypeLike = np.float32) -> Array:
        """An array in C order, with numbers left over in it; the memory is that of the name's last one.

        What was taken under a name before shows the same memory, unless it was too small. Two names never
        share any. TypeError for a dtype of Python objects, naming it.
        """
        # TODO 17.1: keep bytes; a view of another dtype, a shape.
        raise NotImplementedError("kata 17.1: Workspace.take")

    @property
    def nbytes(self) -> int:
        # TODO 17.1: of what is kept, not of what was lent.
        raise NotImplementedError("kata 17.1: Workspace.nbytes")

    def clear(self) -> None:
        """Let go of all memory; arrays that were taken stay valid."""
        self._memory.clear()


class Rooms(threading.local):
    """A Workspace for each thread, as `room`. Given."""

    def __init__(self) -> None:
        self.room = Workspace()


# Blocking: what is fetched once should be used often.


def blocked_matmul(
    a: Any, b: Any, block: int = 256, product: Callable[[Array, Array], Array] = np.matmul
) -> Array:
    """a @ b, (m, k) and (k, n), tile by tile, in the dtype in which they meet.

    A tile has `block` rows and columns, fewer at the edges. For each tile of the result, `product(tile_of_a,
    tile_of_b)` gives what is added to it, from the first tiles along k to the last; then comes the next tile.
    `product` is handed views. ValueError, naming the shapes or the block, if they do not fit or it is less
    than 1.
    """
    # TODO 17.2: three loops over starts; numpy cuts slices at the end by itself.
    raise NotImplementedError("kata 17.2: blocked_matmul")


def matmul_traffic(m: int, n: int, k: int, block: int = 1, itemsize: int = 4) -> int:
    """The bytes that `blocked_matmul` moves between memory and a cache that holds three tiles and no more.

    A tile of the result stays until it is done, and is then written, once; each product reads its tile of a
    and its tile of b. A block of 1 is the textbook's order, row times column. ValueError for a block less
    than 1, naming it.
    """
    # TODO 17.3: how many times is all of a read, and how many times all of b?
    raise NotImplementedError("kata 17.3: matmul_traffic")


def block_for(cache: int, itemsize: int = 4) -> int:
    """The largest block of which three tiles fit into a cache of so many bytes; 1 at least."""
    # TODO 17.3: math.isqrt.
    raise NotImplementedError("kata 17.3: block_for")


# Chunks: what was just written should still be in the cache when it is read.


def pieces(first: Array, *others: Array, chunk: int = CHUNK) -> Iterator[tuple[Array, ...]]:
    """Go through arrays of one shape together: views of them, of at most `chunk` numbers each.

    Every element is in one piece, and at the same place in all arrays of it; what shape a piece has is left
    open. Pieces follow the memory of the first array: if all arrays are one stretch each, in the same order
    of axes (Fortran's, channels-last), so is every piece, and all but the last are full. Others are cut by
    rows, as many as fit; a row that does not, by its own rows. Nothing comes of empty arrays. ValueError,
    naming them, for shapes that differ and for a chunk less than 1.
    """
    # TODO 17.4: sort the axes by the first's strides; all flat if all can be; else rows, and rows of rows.
    raise NotImplementedError("kata 17.4: pieces")


def cut(arrays: tuple[Array, ...], chunk: int) -> Iterator[tuple[Array, ...]]:
    """`pieces` along the first axis; of a row that is too long, along the next."""
    # TODO 17.4: how many rows make a chunk? If not even one, cut each row.
    raise NotImplementedError("kata 17.4: cut")


def parallel_for(function: Callable[[Any], Any], items: Iterable[Any], threads: int = 1) -> list[Any]:
    """[function(item) for item in items], by so many threads at once; results in the order of the items.

    numpy lets go of the interpreter's lock while it works on an array, so threads really run at once. With
    one, everything happens in the caller's. If calls fail, what the first of these items raised is raised
    here. However it ends, no thread is left. ValueError for less than one thread, naming how many.
    """
    # TODO 17.5: concurrent.futures has an executor whose `map` keeps the order, and `with` waits.
    raise NotImplementedError("kata 17.5: parallel_for")


def in_chunks(
    steps: Callable[..., object], out: Array, *inputs: Any, chunk: int = CHUNK, threads: int = 1
) -> Array:
    """Call `steps(part_of_out, *parts_of_inputs)` for piece after piece, and return `out`.

    Inputs are arrays, broadcast to the shape of `out`, or numbers, which are handed on as they are (an array
    without axes is one). `steps` writes its part of the result into the part of `out`; an input may be `out`
    itself. ValueError, naming both shapes, for an input that does not broadcast.
    """
    # TODO 17.6: `pieces` of out and of those inputs that have axes.
    raise NotImplementedError("kata 17.6: in_chunks")


# gelu(x) is x / (1 + exp(-z)) with z = x * (GELU_LINE + GELU_CUBE * x**2), as in kata 04.
GELU_LINE = 2 * math.sqrt(2 / math.pi)
GELU_CUBE = 0.044715 * GELU_LINE
GELU_FAR = 30.0  # below -GELU_FAR gelu is 0 in float64, too


def fast_gelu(x: Any, out: Array | None = None, threads: int = 1) -> Array:
    """kata 04's gelu of an array or Tensor, with all its digits, infinities and nan, piece by piece.

    The result goes into `out`, if given, which may be x, and is what comes back. It lies in memory as x does;
    of integers it is float32. ValueError for an `out` of another shape or dtype than the result has, naming
    shape and dtype of both.
    """
    # TODO 17.7: `gelu_into` for each piece; what it works in is there already, from the second piece on.
    raise NotImplementedError("kata 17.7: fast_gelu")


def gelu_into(out: Array, x: Array, scratch: Array) -> None:
    """Write gelu of x, which may be `out`, over `out`; `scratch` is an array of that shape to work in.

    Far away it is x or 0, without a warning.
    """
    # TODO 17.7: -inf / inf is nan; so is inf - inf.
    raise NotImplementedError("kata 17.7: gelu_into")


# Fused operations: several of the earlier katas' in one, with one rule for the way back.


def room_for(*operands: Any) -> Array:
    """A new array for what floats, arrays or numbers, make together; in memory as the first of its shape."""
    shape, dtype = broadcast_shapes(*map(np.shape, operands)), result_type(*operands)
    like = next((x for x in operands if np.shape(x) == shape), None)
    return np.empty(shape, dtype) if like is None else np.empty_like(like, dtype)


@op
def add_relu(x: Array, y: Array) -> Any:
    """relu(x + y), of arrays or numbers, in one walk, in memory as in `room_for`; integers become float32.

    ValueError, naming both, for shapes that do not broadcast.
    """
    # TODO 17.8: two steps, `in_chunks`.
    raise NotImplementedError("kata 17.8: add_relu")


@add_relu.gradient
def add_relu_back(grad) -> tuple[Array, Array]:
    """The gradients of x and y, in the shape and dtype of the result."""
    # TODO 17.8: one array for both.
    raise NotImplementedError("kata 17.8: add_relu_back")


def where_positive(grad: Array, out: Array) -> Array:
    """grad where `out` is positive, else 0; a new array."""

    # TODO 17.8: a bool is 0 or 1.
    raise NotImplementedError("kata 17.8: where_positive")


@op(saves=["scaled"])
def scale_shift_add_relu(x: Array, a: Any, b: Any, y: Any) -> tuple[Any, Any]:
    """relu(x * a + b + y) in one walk: batch norm in use, a residual and a relu. Integers become float32.

    Each of the four is an array or a number; the result is in memory as in `room_for`. Beside the result
    comes x, which only the gradient of `a` needs; None where `a` is a Python number. ValueError, naming them,
    for shapes that do not broadcast.
    """
    # TODO 17.9: numbers stay numbers; the dtype is that of `result_type`, or float32.
    raise NotImplementedError("kata 17.9: scale_shift_add_relu")


@scale_shift_add_relu.gradient
def scale_shift_add_relu_back(grad: Array) -> tuple[Array | None, ...]:
    """The gradients of x, a, b and y, in shape and dtype of the result; None if not wanted."""
    # TODO 17.9: add_relu's, of which two get a multiple.
    raise NotImplementedError("kata 17.9: scale_shift_add_relu_back")


def row_slices(count: int, width: int) -> Iterator[slice]:
    """Slices through a table of `count` rows of `width` numbers: CHUNK numbers each, but 64 rows at least.

    Given. A product of few rows spends its time on fetching the other matrix.
    """
    rows = max(64, CHUNK // max(width, 1))
    return (slice(i, min(i + rows, count)) for i in range(0, count, rows))


@op
def linear_gelu(x: Array, weight: Array, bias: Array | None = None) -> Any:
    """gelu(x @ weight.T + bias): (..., inputs), (outputs, inputs), (outputs,) -> (..., outputs).

    ValueError, naming both shapes, for an x or a bias that does not fit the weight. Integers become float32.
    """
    # TODO 17.10: some rows at a time, gelu over what the product wrote: no table of what was before gelu.
    raise NotImplementedError("kata 17.10: linear_gelu")


def before_gelu(rows: Array, weight: Array, bias: Array | None, out: Array) -> Array:
    """rows @ weight.T + bias, written over `out`. Given."""
    np.matmul(rows, weight.T, out=out)
    if bias is not None:
        out += bias
    return out


@linear_gelu.gradient
def linear_gelu_back(grad: Array) -> tuple[Array | None, ...]:
    """The gradients of x, weight and bias; None in place of one that is not wanted or was not given."""
    # TODO 17.11: nothing was kept but what was there anyway: make each stretch of rows before gelu anew.
    raise NotImplementedError("kata 17.11: linear_gelu_back")


def times_slope(x: Array, grad: Array, share: Array, scratch: Array) -> None:
    """Write grad times the slope of gelu at x over x; the other two are to work in.

    Far away the slope is 0 or 1, without a warning.
    """
    # TODO 17.11: x * share has the slope share * (1 + x * (1 - share) * (GELU_LINE + 3 * GELU_CUBE * x**2)).
    raise NotImplementedError("kata 17.11: times_slope")


@op(saves=["slopes"])
def softmax_cross_entropy(logits: Array, labels: Any) -> tuple[Any, Array]:
    """The mean over the rows of -log softmax(logits)[label], as kata 10's cross_entropy; integers too.

    Beside it comes its gradient, (softmax - one at the label) / rows, not to be written to: the one array of
    the size of the logits that is made, now and on the way back, where the loss's own gradient is 1. Shapes,
    labels and errors are as in kata 10: `check_labels` sees to them; and a ValueError that names the
    shape for no rows.
    """
    # TODO 17.12: rows by rows, softmax in place; `below_largest` of kata 04 sees to infinities.
    raise NotImplementedError("kata 17.12: softmax_cross_entropy")


@softmax_cross_entropy.gradient
def softmax_cross_entropy_back(grad) -> tuple[Array, None]:
    """The gradient of logits; labels have none. For a grad of 1, no array is made."""
    # TODO 17.12: the work is done.
    raise NotImplementedError("kata 17.12: softmax_cross_entropy_back")


# An optimizer that knows of one long array instead of many.


class Flat:
    """The parameters of one dtype of a group, one after the other in one array; so are their moments.

    Given. From now on the parameters' arrays are views of `data`.
    """

    def __init__(self, params: Sequence[Parameter]) -> None:
        ends = np.cumsum([0] + [p.size for p in params]).tolist()
        self.params, self.starts = list(params), ends
        self.data = np.empty(ends[-1], params[0].dtype)
        self.exp_avg, self.exp_avg_sq = np.zeros_like(self.data), np.zeros_like(self.data)
        self.views = [self.of(self.data, i) for i in range(len(params))]
        for p, view in zip(params, self.views, strict=True):
            view[...] = p.data
            p.data = view

    def of(self, array: Array, i: int) -> Array:
        """The part of parameter `i` of one of the three arrays, in its shape."""
        return array[self.starts[i] : self.starts[i + 1]].reshape(self.params[i].shape)


class FusedAdam(Optimizer):
    """kata 08's Adam, and with `decoupled` its AdamW: the same steps, in fewer and longer calls of numpy.

    When a group is added, its parameters move into one array (of each dtype), and their `.data` become views
    of it; arrays that were taken from them before are no longer theirs. If `.data` is set to another array of
    this shape afterwards, its numbers are moved in at the next step. The state of a parameter has the names
    of kata 08, so that a state_dict of Adam or AdamW can be loaded once it has "groups.0.decoupled".
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        self._flats: list[list[Flat]] = []
        self._room = Workspace()
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "decoupled": decoupled})

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """As in kata 08; and then the new parameters are laid one after the other."""
        super().add_param_group(group)
        params = self.param_groups[-1]["params"]
        kinds = dict.fromkeys(p.dtype for p in params)
        self._flats.append([Flat([p for p in params if p.dtype == kind]) for kind in kinds])

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """As in kata 08; and then what was loaded moves into the long arrays."""
        # TODO 17.13: each parameter's state becomes views again; what is not in the state is forgotten.
        raise NotImplementedError("kata 17.13: FusedAdam.load_state_dict")

    def step(self) -> None:
        """Move each parameter that has a gradient and is not frozen, as Adam does; the others stay.

        A gradient of another shape than its parameter is a ValueError that names both; then nothing moved.
        Writes are reported to `increment_version`, as in kata 08.
        """
        # TODO 17.13: neighbours that have made as many steps are one stretch, and `move` together.
        raise NotImplementedError("kata 17.13: FusedAdam.step")

    def stretches(self, flat: Flat) -> Iterator[tuple[int, int, int]]:
        """(first, last + 1, step) of parameters that move together; each one's step is counted."""
        # TODO 17.13: a stretch ends where one stands still, has made other steps, or would make it too long.
        raise NotImplementedError("kata 17.13: FusedAdam.stretches")

    def move(self, flat: Flat, first: int, last: int, step: int, group: Mapping[str, Any]) -> None:
        """Adam's step for parameters first ... last - 1, CHUNK numbers at a time."""
        # TODO 17.13: several gradients are copied side by side; one alone can be read where it is.
        raise NotImplementedError("kata 17.13: FusedAdam.move")

    def adam(
        self, data: Array, grad: Array, mean: Array, square: Array, step: int, group: Mapping[str, Any]
    ) -> None:
        """One step of flat arrays, in place; `grad` stays."""
        # TODO 17.13: the update of kata 08's Adam, with two arrays to work in.
        raise NotImplementedError("kata 17.13: FusedAdam.adam")


# Fewer multiplications: a convolution of 4 x 4 results at once (Lavin and Gray, 2016, "Fast algorithms for
# convolutional neural networks", F(4x4, 3x3)). In one dimension, 4 results of 3 taps and 6 pixels are
# RESULTS @ ((KERNEL @ taps) * (PIXELS @ pixels)): 6 multiplications instead of 12; in two, 36 instead of 144.

PIXELS = np.array([
    [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
])  # fmt: skip
KERNEL = np.array([
    [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
])  # fmt: skip
RESULTS = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
TILES = 1 << 21  # bytes: of pixels and results of a chunk, transformed


@functools.lru_cache
def transform(which: str, dtype: Any) -> Array:
    """The matrix for both directions at once, from a table's rows one after the other to the same.

    Given. A @ X @ A.T, read row by row, is kron(A, A) @ X read row by row: so one product does all tiles.
    """
    matrix = {"pixels": PIXELS, "kernel": KERNEL, "results": RESULTS}[which]
    return np.kron(matrix, matrix).astype(dtype)


def tiled(shape: Shape, channels: int, itemsize: int) -> Iterator[tuple[slice, slice]]:
    """Which images, and which rows of tiles of each, to transform at a time: TILES bytes, if that is one row.

    Given. `channels` are those of images and results together.
    """
    n, _, h, w = shape
    down, across = -(-h // 4), -(-w // 4)
    most = max(1, TILES // max(36 * channels * itemsize, 1))
    many, rows = max(1, most // max(down * across, 1)), min(down, max(1, most // max(across, 1)))
    for i in range(0, n, many):
        for row in range(0, down, rows):
            yield slice(i, min(i + many, n)), slice(row, min(row + rows, down))


def apart(room: Workspace, name: str, count: int, length: int, dtype: Any) -> Array:
    """(count, length) from a workspace, its rows a little further apart than they are long.

    Given. Rows that lie a power of two apart share their place in the cache, and a product of 36 of them
    takes up to twice as long.
    """
    return room.take(name, (count, length + 16), dtype)[:, :length]


def pixel_tiles(x: Array, images: slice, rows: slice, room: Workspace) -> Array:
    """(36, tiles, C): of each 6 x 6 pixels, 4 apart, which 4 x 4 results see, PIXELS @ them @ PIXELS.T."""
    # TODO 17.14: images with a border into zeros, as_strided, and one product by `transform`.
    raise NotImplementedError("kata 17.14: pixel_tiles")


def winograd_shapes(x: Array, weight: Array) -> None:
    """ValueError if these are not images and 3 x 3 kernels for them, naming both shapes. Given."""
    if x.ndim != 4 or weight.ndim != 4 or weight.shape[2:] != (3, 3) or weight.shape[1] != x.shape[1]:
        raise ValueError(f"images of shape {x.shape} do not fit 3 x 3 kernels, of shape {weight.shape}")


@op
def winograd_conv2d(x: Array, weight: Array) -> Any:
    """conv2d(x, weight, padding=1) for kernels (O, C, 3, 3), with a quarter of its multiplications.

    In the dtype in which x and weight meet, integers in float32; channels-last in memory, as in kata 07.
    Rounding is about ten times conv2d's: in float32, up to 128 channels, no result is off by more than 3e-5
    of the largest. ValueError if shapes do not fit, naming both.
    """
    # TODO 17.14: kernels once, then for each chunk pixels, 36 products, and the results, 16 pixels of a tile.
    raise NotImplementedError("kata 17.14: winograd_conv2d")


def result_places(out: Array, images: slice, rows: slice, results: Array) -> Iterator[tuple[Array, Array]]:
    """Each of the 16 pixels of all tiles in `out`, as (images, down, across, O), and in `results`.

    Given. Tiles reach over the edges of images whose sides are no multiples of 4; that part is cut away.
    """
    part = out[images, :, 4 * rows.start : 4 * rows.stop].transpose(0, 2, 3, 1)
    across = -(-out.shape[3] // 4)
    tiles = results.reshape(4, 4, len(part), rows.stop - rows.start, across, out.shape[1])
    for i, j in np.ndindex(4, 4):
        place = part[:, i::4, j::4]
        yield place, tiles[i, j][:, : place.shape[1], : place.shape[2]]


@winograd_conv2d.gradient
def winograd_conv2d_back(grad: Array) -> tuple[Array | None, ...]:
    """The gradients of x and weight; None in place of one that is not wanted."""
    # TODO 17.15: x gets a convolution of `grad`; the kernels, the three products backwards, each transposed.
    raise NotImplementedError("kata 17.15: winograd_conv2d_back")


# Networks: what follows each other is put together once, before the first input.


def fold_batch_norm(conv: Conv2d, norm: BatchNorm2d) -> Conv2d:
    """One convolution, new, that does what `norm` in use (not in training) makes of what `conv` gives.

    Its kernels and bias are `conv`'s, scaled and shifted, in `conv`'s dtype; it has a bias, even if `conv`
    has none, and no hooks. Neither of the two changes. ValueError if `norm` is in training, with that word,
    or for another number of channels, naming both numbers.
    """
    # TODO 17.16: (kernel * pixels + bias - mean) * scale + shift. copy.copy makes one of the same options.
    raise NotImplementedError("kata 17.16: fold_batch_norm")


class LinearGELU(Module):
    """linear_gelu with the weight and bias of a Linear, the very same Parameters; in training if that is."""

    def __init__(self, linear: Linear) -> None:
        # TODO 17.16: names as in Linear.
        raise NotImplementedError("kata 17.16: LinearGELU.__init__")

    def forward(self, x: Tensor) -> Tensor:
        # TODO 17.16: one operation.
        raise NotImplementedError("kata 17.16: LinearGELU.forward")

    def flops(self, inputs: tuple[Any, ...], out: Any) -> int:
        return int(2 * out.size * self.weight.shape[1])

    def extra_repr(self) -> str:
        outputs, inputs = self.weight.shape
        return f"in_features={inputs}, out_features={outputs}, bias={self.bias is not None}"


def fuse(module: Module) -> Module:
    """A copy of `module` that gives the same, in which neighbours in each Sequential, however deep, are one.

    Linear and GELU become LinearGELU; Conv2d and BatchNorm2d in use, or several of these one after the other,
    become one Conv2d. Only layers of just these classes: a subclass may do something else. The copy shares no
    array with `module`, which stays as it is; forward hooks of layers that were put together are gone.
    """
    # TODO 17.16: copy.deepcopy, then each Sequential among `modules()`: look at the last layer and the next.
    raise NotImplementedError("kata 17.16: fuse")
