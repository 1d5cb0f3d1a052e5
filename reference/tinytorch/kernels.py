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
        # kata 17.1: keep bytes; a view of another dtype, a shape.
        kind = np.dtype(dtype)
        if kind.hasobject:
            raise TypeError(f"a workspace holds numbers, not {kind}")
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        needed = math.prod(shape) * kind.itemsize
        memory = self._memory.get(name)
        if memory is None or memory.nbytes < needed:
            memory = self._memory[name] = np.empty(needed, np.uint8)
        return memory[:needed].view(kind).reshape(shape)

    @property
    def nbytes(self) -> int:
        # kata 17.1: of what is kept, not of what was lent.
        return sum(memory.nbytes for memory in self._memory.values())

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
    # kata 17.2: three loops over starts; numpy cuts slices at the end by itself.
    a, b = promote(as_array(a), as_array(b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"shapes {a.shape} and {b.shape} cannot be multiplied")
    if block < 1:
        raise ValueError(f"a block of {block} is no tile")
    (m, k), n = a.shape, b.shape[1]
    out = np.zeros((m, n), a.dtype)
    for i in range(0, m, block):
        for j in range(0, n, block):
            tile = out[i : i + block, j : j + block]
            for p in range(0, k, block):
                tile += product(a[i : i + block, p : p + block], b[p : p + block, j : j + block])
    return out


def matmul_traffic(m: int, n: int, k: int, block: int = 1, itemsize: int = 4) -> int:
    """The bytes that `blocked_matmul` moves between memory and a cache that holds three tiles and no more.

    A tile of the result stays until it is done, and is then written, once; each product reads its tile of a
    and its tile of b. A block of 1 is the textbook's order, row times column. ValueError for a block less
    than 1, naming it.
    """
    # kata 17.3: how many times is all of a read, and how many times all of b?
    if block < 1:
        raise ValueError(f"a block of {block} is no tile")
    down, across = -(-m // block), -(-n // block)
    return itemsize * (m * k * across + k * n * down + m * n)


def block_for(cache: int, itemsize: int = 4) -> int:
    """The largest block of which three tiles fit into a cache of so many bytes; 1 at least."""
    # kata 17.3: math.isqrt.
    return max(1, math.isqrt(cache // (3 * itemsize)))


# Chunks: what was just written should still be in the cache when it is read.


def pieces(first: Array, *others: Array, chunk: int = CHUNK) -> Iterator[tuple[Array, ...]]:
    """Go through arrays of one shape together: views of them, of at most `chunk` numbers each.

    Every element is in one piece, and at the same place in all arrays of it; what shape a piece has is left
    open. Pieces follow the memory of the first array: if all arrays are one stretch each, in the same order
    of axes (Fortran's, channels-last), so is every piece, and all but the last are full. Others are cut by
    rows, as many as fit; a row that does not, by its own rows. Nothing comes of empty arrays. ValueError,
    naming them, for shapes that differ and for a chunk less than 1.
    """
    # kata 17.4: sort the axes by the first's strides; all flat if all can be; else rows, and rows of rows.
    arrays = (first, *others)
    if len({a.shape for a in arrays}) > 1 or chunk < 1:
        raise ValueError(f"no pieces of {chunk} of shapes {', '.join(str(a.shape) for a in arrays)}")
    order = sorted(range(first.ndim), key=lambda axis: -abs(first.strides[axis]))
    arrays = tuple(a.transpose(order) for a in arrays)
    if all(a.flags.c_contiguous for a in arrays):
        arrays = tuple(a.reshape(-1) for a in arrays)
    return cut(arrays, chunk)


def cut(arrays: tuple[Array, ...], chunk: int) -> Iterator[tuple[Array, ...]]:
    """`pieces` along the first axis; of a row that is too long, along the next."""
    # kata 17.4: how many rows make a chunk? If not even one, cut each row.
    size = arrays[0].size
    if size <= chunk:
        if size:
            yield arrays
        return
    count = len(arrays[0])
    rows = chunk * count // size
    for i in range(0, count, max(rows, 1)):
        if rows:
            yield tuple(a[i : i + rows] for a in arrays)
        else:
            yield from cut(tuple(a[i] for a in arrays), chunk)


def parallel_for(function: Callable[[Any], Any], items: Iterable[Any], threads: int = 1) -> list[Any]:
    """[function(item) for item in items], by so many threads at once; results in the order of the items.

    numpy lets go of the interpreter's lock while it works on an array, so threads really run at once. With
    one, everything happens in the caller's. If calls fail, what the first of these items raised is raised
    here. However it ends, no thread is left. ValueError for less than one thread, naming how many.
    """
    # kata 17.5: concurrent.futures has an executor whose `map` keeps the order, and `with` waits.
    if threads < 1:
        raise ValueError(f"{threads} threads do nothing")
    if threads == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as executor:
        return list(executor.map(function, items))


def in_chunks(
    steps: Callable[..., object], out: Array, *inputs: Any, chunk: int = CHUNK, threads: int = 1
) -> Array:
    """Call `steps(part_of_out, *parts_of_inputs)` for piece after piece, and return `out`.

    Inputs are arrays, broadcast to the shape of `out`, or numbers, which are handed on as they are (an array
    without axes is one). `steps` writes its part of the result into the part of `out`; an input may be `out`
    itself. ValueError, naming both shapes, for an input that does not broadcast.
    """
    # kata 17.6: `pieces` of out and of those inputs that have axes.
    wide = [x for x in inputs if np.ndim(x)]
    for i, x in enumerate(wide):
        if x.shape != out.shape:
            if broadcast_shapes(x.shape, out.shape) != out.shape:
                raise ValueError(f"an input of shape {x.shape} does not broadcast to {out.shape}")
            wide[i] = np.broadcast_to(x, out.shape)

    def work(parts: tuple[Array, ...]) -> None:
        part, *rest = parts
        cut_inputs = iter(rest)
        steps(part, *(next(cut_inputs) if np.ndim(x) else x for x in inputs))

    parallel_for(work, pieces(out, *wide, chunk=chunk), threads)
    return out


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
    # kata 17.7: `gelu_into` for each piece; what it works in is there already, from the second piece on.
    x, rooms = floating(x), Rooms()
    out = np.empty_like(x) if out is None else out
    if out.shape != x.shape or out.dtype != x.dtype:
        raise ValueError(f"the result is {x.dtype} {x.shape}, and out is {out.dtype} {out.shape}")

    def steps(part: Array, x: Array) -> None:
        gelu_into(part, x, rooms.room.take("scratch", part.shape, part.dtype))

    return in_chunks(steps, out, x, threads=threads)


def gelu_into(out: Array, x: Array, scratch: Array) -> None:
    """Write gelu of x, which may be `out`, over `out`; `scratch` is an array of that shape to work in.

    Far away it is x or 0, without a warning.
    """
    # kata 17.7: -inf / inf is nan; so is inf - inf.
    np.clip(x, -GELU_FAR, np.inf, out=out)
    with np.errstate(over="ignore"):  # both ways, to x / inf and x / 1
        np.multiply(out, out, out=scratch)
        scratch *= -GELU_CUBE
        scratch -= GELU_LINE
        scratch *= out
        np.exp(scratch, out=scratch)
    scratch += 1
    out /= scratch


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
    # kata 17.8: two steps, `in_chunks`.
    x, y = map(floating, promote(x, y))

    def steps(part: Array, x: Array, y: Array) -> None:
        np.add(x, y, out=part)
        np.clip(part, 0, np.inf, out=part)

    return in_chunks(steps, room_for(x, y), x, y)


@add_relu.gradient
def add_relu_back(grad: Array, out: Array) -> tuple[Array, Array]:  # stub: (grad)
    """The gradients of x and y, in the shape and dtype of the result."""
    # kata 17.8: one array for both.
    back = where_positive(grad, out)
    return back, back


def where_positive(grad: Array, out: Array) -> Array:
    """grad where `out` is positive, else 0; a new array."""

    # kata 17.8: a bool is 0 or 1.
    def steps(part: Array, grad: Array, out: Array) -> None:
        np.multiply(grad, out > 0, out=part)

    return in_chunks(steps, np.empty_like(grad), grad, out)


@op(saves=["scaled"])
def scale_shift_add_relu(x: Array, a: Any, b: Any, y: Any) -> tuple[Any, Any]:
    """relu(x * a + b + y) in one walk: batch norm in use, a residual and a relu. Integers become float32.

    Each of the four is an array or a number; the result is in memory as in `room_for`. Beside the result
    comes x, which only the gradient of `a` needs; None where `a` is a Python number. ValueError, naming them,
    for shapes that do not broadcast.
    """
    # kata 17.9: numbers stay numbers; the dtype is that of `result_type`, or float32.
    dtype = result_type(x, a, b, y)
    dtype = dtype if dtype.kind == "f" else np.dtype(np.float32)
    operands = [np.asarray(v, dtype) for v in (x, a, b, y)]

    def steps(part: Array, x: Array, a: Array, b: Array, y: Array) -> None:
        np.multiply(x, a, out=part)
        part += b
        part += y
        np.clip(part, 0, np.inf, out=part)

    out = in_chunks(steps, room_for(*operands), *operands)
    return out, operands[0] if isinstance(a, np.ndarray) else None


@scale_shift_add_relu.gradient
def scale_shift_add_relu_back(
    grad: Array, a: Any, out: Array, scaled: Any, needs_input_grad: tuple[bool, ...]
) -> tuple[Array | None, ...]:  # stub: (grad: Array)
    """The gradients of x, a, b and y, in shape and dtype of the result; None if not wanted."""
    # kata 17.9: add_relu's, of which two get a multiple.
    back = where_positive(grad, out)
    wants_x, wants_a, *_ = needs_input_grad
    return (
        np.multiply(back, a, dtype=back.dtype) if wants_x else None,
        back * scaled if wants_a and scaled is not None else None,
        back,
        back,
    )


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
    # kata 17.10: some rows at a time, gelu over what the product wrote: no table of what was before gelu.
    x, weight = map(floating, promote(x, weight))
    if weight.ndim != 2 or x.shape[-1:] != weight.shape[1:]:
        raise ValueError(f"an input of shape {x.shape} does not fit weights of shape {weight.shape}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"a bias of shape {bias.shape} does not fit weights of shape {weight.shape}")
    rows = as_rows(x)
    out, room = np.empty((len(rows), len(weight)), x.dtype), Workspace()
    for some in row_slices(*out.shape):
        part = before_gelu(rows[some], weight, bias, out[some])
        gelu_into(part, part, room.take("scratch", part.shape, part.dtype))
    return out.reshape(*x.shape[:-1], len(weight))


def before_gelu(rows: Array, weight: Array, bias: Array | None, out: Array) -> Array:
    """rows @ weight.T + bias, written over `out`. Given."""
    np.matmul(rows, weight.T, out=out)
    if bias is not None:
        out += bias
    return out


@linear_gelu.gradient
def linear_gelu_back(
    grad: Array, x: Array, weight: Array, bias: Array | None, needs_input_grad: tuple[bool, ...]
) -> tuple[Array | None, ...]:  # stub: (grad: Array)
    """The gradients of x, weight and bias; None in place of one that is not wanted or was not given."""
    # kata 17.11: nothing was kept but what was there anyway: make each stretch of rows before gelu anew.
    x, weight = map(floating, promote(x, weight))
    rows, grads = as_rows(x), as_rows(grad)
    grad_x = np.empty(rows.shape, grad.dtype) if needs_input_grad[0] else None
    grad_weight, part = np.zeros(weight.shape, grad.dtype), np.empty(weight.shape, grad.dtype)
    grad_bias = np.zeros(len(weight), grad.dtype)
    room = Workspace()
    for some in row_slices(*grads.shape):
        shape, dtype = grads[some].shape, grad.dtype
        back = before_gelu(rows[some], weight, bias, room.take("back", shape, dtype))
        times_slope(back, grads[some], room.take("share", shape, dtype), room.take("scratch", shape, dtype))
        if grad_x is not None:
            np.matmul(back, weight, out=grad_x[some])
        if needs_input_grad[1]:
            grad_weight += np.matmul(back.T, rows[some], out=part)
        grad_bias += back.sum(axis=0)
    return (
        None if grad_x is None else grad_x.reshape(x.shape),
        grad_weight if needs_input_grad[1] else None,
        grad_bias if bias is not None and needs_input_grad[2] else None,
    )


def times_slope(x: Array, grad: Array, share: Array, scratch: Array) -> None:
    """Write grad times the slope of gelu at x over x; the other two are to work in.

    Far away the slope is 0 or 1, without a warning.
    """
    # kata 17.11: x * share has the slope share * (1 + x * (1 - share) * (GELU_LINE + 3 * GELU_CUBE * x**2)).
    np.clip(x, -GELU_FAR, GELU_FAR, out=x)
    np.multiply(x, x, out=scratch)
    np.multiply(scratch, -GELU_CUBE, out=share)
    share -= GELU_LINE
    share *= x
    with np.errstate(over="ignore"):
        np.exp(share, out=share)
    share += 1
    np.divide(1, share, out=share)
    scratch *= 3 * GELU_CUBE
    scratch += GELU_LINE
    scratch *= x
    np.subtract(1, share, out=x)
    x *= scratch
    x += 1
    x *= share
    x *= grad


@op(saves=["slopes"])
def softmax_cross_entropy(logits: Array, labels: Any) -> tuple[Any, Array]:
    """The mean over the rows of -log softmax(logits)[label], as kata 10's cross_entropy; integers too.

    Beside it comes its gradient, (softmax - one at the label) / rows, not to be written to: the one array of
    the size of the logits that is made, now and on the way back, where the loss's own gradient is 1. Shapes,
    labels and errors are as in kata 10: `check_labels` sees to them; and a ValueError that names the
    shape for no rows.
    """
    # kata 17.12: rows by rows, softmax in place; `below_largest` of kata 04 sees to infinities.
    labels = check_labels(logits, labels)
    n, classes = logits.shape
    if not n:
        raise ValueError(f"logits of shape {logits.shape} have no mean")
    slopes = np.empty((n, classes), floating(logits[:0]).dtype)
    total = 0.0
    for some in row_slices(n, classes):
        part, picked = below_largest(logits[some], axis=1), (np.arange(len(labels[some])), labels[some])
        right = part[picked]
        np.exp(part, out=part)
        sums = part.sum(axis=1)
        total += float((np.log(sums) - right).sum(dtype=np.float64))
        part[picked] -= sums
        np.divide(part, (sums * n)[:, None], out=slopes[some])
    slopes.flags.writeable = False
    return slopes.dtype.type(total / n), slopes


@softmax_cross_entropy.gradient
def softmax_cross_entropy_back(grad: Array, slopes: Array) -> tuple[Array, None]:  # stub: (grad)
    """The gradient of logits; labels have none. For a grad of 1, no array is made."""
    # kata 17.12: the work is done.
    return (slopes if grad == 1 else slopes * grad), None


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
        # kata 17.13: each parameter's state becomes views again; what is not in the state is forgotten.
        super().load_state_dict(saved)
        for flat in (flat for flats in self._flats for flat in flats):
            flat.exp_avg[...] = flat.exp_avg_sq[...] = 0
            for i, p in enumerate(flat.params):
                state = self.state.get(p, {})
                for name in ("exp_avg", "exp_avg_sq"):
                    if name in state:
                        view = flat.of(getattr(flat, name), i)
                        view[...] = state[name]
                        state[name] = view

    def step(self) -> None:
        """Move each parameter that has a gradient and is not frozen, as Adam does; the others stay.

        A gradient of another shape than its parameter is a ValueError that names both; then nothing moved.
        Writes are reported to `increment_version`, as in kata 08.
        """
        # kata 17.13: neighbours that have made as many steps are one stretch, and `move` together.
        for p in self.parameters():
            if p.grad is not None and p.requires_grad and p.grad.shape != p.data.shape:
                raise ValueError(
                    f"a gradient of shape {p.grad.shape} for a parameter of shape {p.data.shape}"
                )
        for group, flats in zip(self.param_groups, self._flats, strict=True):
            for flat in flats:
                for first, last, step in self.stretches(flat):
                    self.move(flat, first, last, step, group)

    def stretches(self, flat: Flat) -> Iterator[tuple[int, int, int]]:
        """(first, last + 1, step) of parameters that move together; each one's step is counted."""
        # kata 17.13: a stretch ends where one stands still, has made other steps, or would make it too long.
        begin, last_step = 0, 0
        for i, p in enumerate(flat.params):
            moves = p.grad is not None and p.requires_grad
            step = 0
            if moves:
                if p.data is not flat.views[i]:
                    flat.views[i][...] = p.data
                    p.data = flat.views[i]
                state = self.state.get(p)
                if not state:
                    self.state[p] = state = {
                        "step": 0,
                        "exp_avg": flat.of(flat.exp_avg, i),
                        "exp_avg_sq": flat.of(flat.exp_avg_sq, i),
                    }
                state["step"] = step = state["step"] + 1
            if step != last_step or flat.starts[i + 1] - flat.starts[begin] > CHUNK:
                if last_step:
                    yield begin, i, last_step
                begin, last_step = i, step
        if last_step:
            yield begin, len(flat.params), last_step

    def move(self, flat: Flat, first: int, last: int, step: int, group: Mapping[str, Any]) -> None:
        """Adam's step for parameters first ... last - 1, CHUNK numbers at a time."""
        # kata 17.13: several gradients are copied side by side; one alone can be read where it is.
        begin, end = flat.starts[first], flat.starts[last]
        moving: list[Any] = [p.grad for p in flat.params[first:last]]
        grads = moving[0]
        if len(moving) > 1 or not grads.flags.c_contiguous or grads.dtype != flat.data.dtype:
            grads = self._room.take("grads", end - begin, flat.data.dtype)
            if len(moving) > 1:
                np.concatenate([g.reshape(-1) for g in moving], out=grads, casting="same_kind")
            else:
                grads.reshape(moving[0].shape)[...] = moving[0]
        grads = grads.reshape(-1)
        for at in range(0, end - begin, CHUNK):
            there, here = slice(at, at + CHUNK), slice(begin + at, min(begin + at + CHUNK, end))
            mean, square = flat.exp_avg[here], flat.exp_avg_sq[here]
            self.adam(flat.data[here], grads[there], mean, square, step, group)
        increment_version(flat.data)

    def adam(
        self, data: Array, grad: Array, mean: Array, square: Array, step: int, group: Mapping[str, Any]
    ) -> None:
        """One step of flat arrays, in place; `grad` stays."""
        # kata 17.13: the update of kata 08's Adam, with two arrays to work in.
        (beta1, beta2), lr, decay = group["betas"], group["lr"], group["weight_decay"]
        scratch = self._room.take("scratch", data.size, data.dtype)
        if decay and group["decoupled"]:
            data *= 1 - lr * decay
        elif decay:
            decayed = np.multiply(data, decay, out=self._room.take("decayed", data.size, data.dtype))
            decayed += grad
            grad = decayed
        np.multiply(grad, 1 - beta1, out=scratch)
        mean *= beta1
        mean += scratch
        np.multiply(grad, grad, out=scratch)
        scratch *= 1 - beta2
        square *= beta2
        square += scratch
        root = math.sqrt(1 - beta2**step)
        np.sqrt(square, out=scratch)
        scratch += group["eps"] * root
        np.divide(mean, scratch, out=scratch)
        scratch *= lr * root / (1 - beta1**step)
        data -= scratch


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
    # kata 17.14: images with a border into zeros, as_strided, and one product by `transform`.
    c, w = x.shape[1], x.shape[3]
    part = x[images, :, max(4 * rows.start - 1, 0) : 4 * rows.stop + 1].transpose(0, 2, 3, 1)
    count, down, across = len(part), rows.stop - rows.start, -(-w // 4)
    padded = room.take("padded", (count, 4 * down + 2, 4 * across + 2, c), x.dtype)
    padded[...] = 0
    top = 1 if rows.start == 0 else 0
    padded[:, top : top + part.shape[1], 1 : w + 1] = part
    image, row, column, channel = padded.strides
    seen = np.lib.stride_tricks.as_strided(
        padded, (6, 6, count, down, across, c), (row, column, image, 4 * row, 4 * column, channel)
    )
    length = count * down * across * c
    tiles = apart(room, "tiles", 36, length, x.dtype)
    tiles.reshape(seen.shape)[...] = seen
    out = apart(room, "pixels", 36, length, x.dtype)
    np.matmul(transform("pixels", x.dtype), tiles, out=out)
    return out.reshape(36, count * down * across, c)


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
    # kata 17.14: kernels once, then for each chunk pixels, 36 products, and the results, 16 pixels of a tile.
    x, weight = map(floating, promote(x, weight))
    winograd_shapes(x, weight)
    outputs, c = weight.shape[:2]
    kernels = transform("kernel", x.dtype) @ weight.reshape(outputs * c, 9).T
    kernels = np.ascontiguousarray(kernels.reshape(36, outputs, c).transpose(0, 2, 1))
    out = channels_last((len(x), outputs, *x.shape[2:]), x.dtype)
    room = Workspace()
    for images, rows in tiled(x.shape, c + outputs, x.itemsize):
        pixels = pixel_tiles(x, images, rows, room)
        length = pixels.shape[1] * outputs
        products = apart(room, "products", 36, length, x.dtype)
        np.matmul(pixels, kernels, out=products.reshape(36, pixels.shape[1], outputs))
        results = apart(room, "results", 16, length, x.dtype)
        np.matmul(transform("results", x.dtype), products, out=results)
        for place, tile in result_places(out, images, rows, results):
            place[...] = tile
    return out


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
def winograd_conv2d_back(
    grad: Array, x: Array, weight: Array, needs_input_grad: tuple[bool, ...]
) -> tuple[Array | None, ...]:  # stub: (grad: Array)
    """The gradients of x and weight; None in place of one that is not wanted."""
    # kata 17.15: x gets a convolution of `grad`; the kernels, the three products backwards, each transposed.
    x, weight = map(floating, promote(x, weight))
    grad_x = grad_weight = None
    if needs_input_grad[0]:
        grad_x = winograd_conv2d.forward(grad, weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1])
    if needs_input_grad[1]:
        outputs, c = weight.shape[:2]
        total, part = np.zeros((2, 36, c, outputs), grad.dtype)
        room = Workspace()
        for images, rows in tiled(x.shape, c + outputs, x.itemsize):
            pixels = pixel_tiles(x, images, rows, room)
            length = pixels.shape[1] * outputs
            slopes = apart(room, "results", 16, length, x.dtype)
            slopes[...] = 0
            for place, tile in result_places(grad, images, rows, slopes):
                tile[...] = place
            products = apart(room, "products", 36, length, x.dtype)
            np.matmul(transform("results", x.dtype).T, slopes, out=products)
            grads = products.reshape(36, pixels.shape[1], outputs)
            np.matmul(pixels.transpose(0, 2, 1), grads, out=part)
            total += part
        taps = transform("kernel", x.dtype).T @ total.reshape(36, c * outputs)
        grad_weight = np.ascontiguousarray(taps.reshape(3, 3, c, outputs).transpose(3, 2, 0, 1))
    return grad_x, grad_weight


# Networks: what follows each other is put together once, before the first input.


def fold_batch_norm(conv: Conv2d, norm: BatchNorm2d) -> Conv2d:
    """One convolution, new, that does what `norm` in use (not in training) makes of what `conv` gives.

    Its kernels and bias are `conv`'s, scaled and shifted, in `conv`'s dtype; it has a bias, even if `conv`
    has none, and no hooks. Neither of the two changes. ValueError if `norm` is in training, with that word,
    or for another number of channels, naming both numbers.
    """
    # kata 17.16: (kernel * pixels + bias - mean) * scale + shift. copy.copy makes one of the same options.
    outputs = len(conv.weight.data)
    if norm.training or norm.weight.shape != (outputs,):
        raise ValueError(f"{norm!r}, training={norm.training}, cannot be folded into {outputs} channels")
    weight = conv.weight.data
    scale = norm.weight.data / np.sqrt(norm.running_var.data.astype(np.float64) + norm.eps)
    shift = (0 if conv.bias is None else conv.bias.data) - norm.running_mean.data
    folded = copy.copy(conv)
    vars(folded).pop("_forward_hooks", None)
    folded.weight = Parameter((weight * scale[:, None, None, None]).astype(weight.dtype))
    folded.bias = Parameter((shift * scale + norm.bias.data).astype(weight.dtype))
    return folded


class LinearGELU(Module):
    """linear_gelu with the weight and bias of a Linear, the very same Parameters; in training if that is."""

    def __init__(self, linear: Linear) -> None:
        # kata 17.16: names as in Linear.
        self.weight, self.bias, self.training = linear.weight, linear.bias, linear.training

    def forward(self, x: Tensor) -> Tensor:
        # kata 17.16: one operation.
        return linear_gelu(x, self.weight, self.bias)

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
    # kata 17.16: copy.deepcopy, then each Sequential among `modules()`: look at the last layer and the next.
    fused = copy.deepcopy(module)
    for net in fused.modules():
        if isinstance(net, Sequential):
            layers: list[Module] = []
            for layer in net.layers:
                kinds = (type(layers[-1]), type(layer)) if layers else ()
                if kinds == (Linear, GELU):
                    layers[-1] = LinearGELU(layers[-1])  # type: ignore[arg-type]
                elif kinds == (Conv2d, BatchNorm2d) and not layer.training:
                    layers[-1] = fold_batch_norm(layers[-1], layer)  # type: ignore[arg-type]
                else:
                    layers.append(layer)
            net.layers = layers
    return fused
