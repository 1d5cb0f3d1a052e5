"""Kata 17 in another manner: masks are kept, layers go by columns, and a convolution makes 2 x 2 at once.

Winograd's F(2x2, 3x3) takes 16 products for 4 results, and its transforms are additions, written out. Threads
take from a queue. Adam has its gradients in one array, too.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tinytorch.activations import GELU
from tinytorch.layers import Linear, Module, Parameter
from tinytorch.networks import Sequential
from tinytorch.optimizers import Optimizer
from tinytorch.spatial import BatchNorm2d, Conv2d
from tinytorch.tensor import Array, Tensor, as_array, floating, increment_version, op, promote, result_type
from tinytorch.training import check_labels

__all__ = [
    "CHUNK", "FusedAdam", "LinearGELU", "Workspace", "add_relu", "block_for", "blocked_matmul", "fast_gelu",
    "fold_batch_norm", "fuse", "in_chunks", "linear_gelu", "matmul_traffic", "parallel_for", "pieces",
    "scale_shift_add_relu", "softmax_cross_entropy", "winograd_conv2d",
]  # fmt: skip

CHUNK = 65_536


class Workspace:
    def __init__(self) -> None:
        self.rooms: dict[str, bytearray] = {}

    def take(self, name: str, shape: int | Sequence[int], dtype: DTypeLike = np.float32) -> Array:
        dtype = np.dtype(dtype)
        if dtype.hasobject:
            raise TypeError(f"no room for {dtype}")
        shape = tuple(np.atleast_1d(shape).tolist()) if isinstance(shape, int) else tuple(shape)
        count = functools.reduce(lambda a, b: a * b, shape, 1)
        if len(self.rooms.get(name, b"")) < count * dtype.itemsize or name not in self.rooms:
            self.rooms[name] = bytearray(count * dtype.itemsize)
        return np.ndarray(shape, dtype, self.rooms[name])

    @property
    def nbytes(self) -> int:
        return sum(map(len, self.rooms.values()))

    def clear(self) -> None:
        self.rooms = {}


def blocked_matmul(
    a: Any, b: Any, block: int = 256, product: Callable[[Array, Array], Array] = np.matmul
) -> Array:
    a, b = as_array(a), as_array(b)
    if (a.ndim, b.ndim) != (2, 2) or a.shape[1] != b.shape[0]:
        raise ValueError(f"no product of {a.shape} and {b.shape}")
    if block < 1:
        raise ValueError(f"block={block}")
    dtype = result_type(a, b)
    out = np.zeros((len(a), b.shape[1]), dtype)
    rows, along, columns = (
        [slice(i, min(i + block, n)) for i in range(0, n, block)] for n in (*a.shape, b.shape[1])
    )
    for i, j in itertools.product(rows, columns):
        total = out[i, j]
        for p in along:
            np.add(total, product(a[i, p], b[p, j]), out=total, casting="same_kind")
    return out


def matmul_traffic(m: int, n: int, k: int, block: int = 1, itemsize: int = 4) -> int:
    if block < 1:
        raise ValueError(f"block={block}")
    stripes_of_a = (n + block - 1) // block
    stripes_of_b = (m + block - 1) // block
    return itemsize * (m * (n + k * stripes_of_a) + stripes_of_b * k * n)


def block_for(cache: int, itemsize: int = 4) -> int:
    side = int(math.sqrt(cache / (3 * itemsize)))
    while 3 * (side + 1) ** 2 * itemsize <= cache:
        side += 1
    while side > 1 and 3 * side**2 * itemsize > cache:
        side -= 1
    return max(side, 1)


def _memory_order(array: Array) -> tuple[int, ...]:
    return tuple(np.argsort([-abs(step) for step in array.strides], kind="stable").tolist())


def pieces(first: Array, *others: Array, chunk: int = CHUNK) -> Iterator[tuple[Array, ...]]:
    everything = [first, *others]
    for other in others:
        if other.shape != first.shape:
            raise ValueError(f"{first.shape} and {other.shape} differ")
    if chunk < 1:
        raise ValueError(f"chunk={chunk}")
    if not first.size:
        return
    order = _memory_order(first)
    turned = [array.transpose(order) for array in everything]
    if all(array.flags["C_CONTIGUOUS"] for array in turned):
        turned = [array.reshape(array.size) for array in turned]
    # How many axes at the end make a row that fits, and how many of its rows fit.
    shape = turned[0].shape
    inner = len(shape)
    while inner and math.prod(shape[inner - 1 :]) <= chunk:
        inner -= 1
    if not inner:
        yield tuple(turned)
        return
    row = math.prod(shape[inner:])
    rows = max(chunk // row, 1)
    for index in np.ndindex(*shape[: inner - 1]):
        for i in range(0, shape[inner - 1], rows):
            yield tuple(array[(*index, slice(i, i + rows))] for array in turned)


def parallel_for(function: Callable[[Any], Any], items: Iterable[Any], threads: int = 1) -> list[Any]:
    if threads < 1:
        raise ValueError(f"threads={threads}")
    if threads == 1:
        return list(map(function, items))
    things = list(items)
    results: list[Any] = [None] * len(things)
    errors: dict[int, BaseException] = {}
    numbers, lock = iter(range(len(things))), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                i = next(numbers, None)
            if i is None or (errors and i > min(errors)):
                return
            try:
                results[i] = function(things[i])
            except BaseException as error:
                errors[i] = error

    crew = [threading.Thread(target=work) for _ in range(min(threads, len(things)))]
    for one in crew:
        one.start()
    for one in crew:
        one.join()
    if errors:
        raise errors[min(errors)]
    return results


def in_chunks(
    steps: Callable[..., object], out: Array, *inputs: Any, chunk: int = CHUNK, threads: int = 1
) -> Array:
    places: list[int | None] = []
    wide: list[Array] = []
    for x in inputs:
        shape = np.shape(x)
        if not shape:
            places.append(None)
            continue
        try:
            fits = np.broadcast_shapes(shape, out.shape) == out.shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"{shape} into {out.shape}")
        places.append(len(wide))
        wide.append(np.broadcast_to(x, out.shape))

    def work(parts: tuple[Array, ...]) -> None:
        steps(parts[0], *[x if i is None else parts[i + 1] for x, i in zip(inputs, places, strict=True)])

    parallel_for(work, pieces(out, *wide, chunk=chunk), threads)
    return out


LINE = math.sqrt(8 / math.pi)
CUBE = 0.044715 * LINE


def _gelu(x: Array, out: Array) -> None:
    """x * e / (1 + e) below 0 and x / (1 + e) above, with e = exp(-|z|)."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        z = np.minimum(np.abs(x), 1e4)
        e = np.exp(-(z * z * CUBE + LINE) * z)
    share = np.where(x < 0, e, 1) / (1 + e)
    np.multiply(np.maximum(x, -1e4), share, out=out)


def fast_gelu(x: Any, out: Array | None = None, threads: int = 1) -> Array:
    x = floating(x)
    if out is None:
        out = np.empty_like(x)
    if (out.shape, out.dtype) != (x.shape, x.dtype):
        raise ValueError(f"out {out.shape} {out.dtype} for {x.shape} {x.dtype}")
    in_chunks(lambda part, x: _gelu(x, part), out, x, chunk=1 << 14, threads=threads)
    return out


def _result(*operands: Any) -> tuple[Array, list[Any]]:
    dtype = result_type(*operands)
    dtype = dtype if dtype.kind == "f" else np.dtype(np.float32)
    arrays = [np.asarray(x, dtype) for x in operands]
    try:
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError:
        raise ValueError(f"{' and '.join(str(a.shape) for a in arrays)} do not meet") from None
    for a in arrays:
        if a.shape == shape:
            return np.empty_like(a), arrays
    return np.empty(shape, dtype), arrays


@op(saves=["mask"])
def add_relu(x: Array, y: Array) -> Any:
    out, arrays = _result(x, y)

    def steps(part: Array, x: Any, y: Any) -> None:
        np.add(x, y, out=part)
        np.maximum(part, 0, out=part)

    in_chunks(steps, out, *arrays)
    return out, out > 0


@add_relu.gradient
def add_relu_back(grad: Array, mask: Array) -> tuple[Array, Array]:
    back = grad * mask
    return back, back


@op(saves=["mask", "times"])
def scale_shift_add_relu(x: Array, a: Any, b: Any, y: Any) -> tuple[Any, Any, Any]:
    out, arrays = _result(x, a, b, y)

    def steps(part: Array, x: Any, a: Any, b: Any, y: Any) -> None:
        np.add(b, y, out=part)
        part += x * a
        np.maximum(part, 0, out=part)

    in_chunks(steps, out, *arrays, chunk=1 << 14)
    return out, out > 0, arrays[0] if isinstance(a, np.ndarray) else None


@scale_shift_add_relu.gradient
def scale_shift_add_relu_back(
    grad: Array, mask: Array, a: Any, times: Any, needs_input_grad: tuple[bool, ...]
) -> tuple[Array | None, ...]:
    back = grad * mask
    for_a = back * times if needs_input_grad[1] and times is not None else None
    for_x = back * np.asarray(a, grad.dtype) if needs_input_grad[0] else None
    return for_x, for_a, back, back


def _columns(rows: int, outputs: int) -> Iterator[slice]:
    width = max(16, CHUNK // max(rows, 1))
    return (slice(i, min(i + width, outputs)) for i in range(0, outputs, width))


@op
def linear_gelu(x: Array, weight: Array, bias: Array | None = None) -> Any:
    x, weight = map(floating, promote(x, weight))
    if weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"{x.shape} by {weight.shape}")
    if bias is not None and bias.shape != (len(weight),):
        raise ValueError(f"bias {bias.shape} for {weight.shape}")
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    out = np.empty((len(rows), len(weight)), x.dtype)
    for some in _columns(*out.shape):
        hidden = rows @ weight[some].T
        if bias is not None:
            hidden += bias[some]
        for start in range(0, len(rows), 4096):
            part = hidden[start : start + 4096]
            _gelu(part, part)
        out[:, some] = hidden
    return out.reshape(*x.shape[:-1], len(weight))


def _slope(x: Array) -> Array:
    with np.errstate(over="ignore", under="ignore"):
        x = np.clip(x, -50, 50)
        e = np.exp(-(x * x * CUBE + LINE) * x)
        share = 1 / (1 + e)
        return share + x * (share * (1 - share)) * (LINE + 3 * CUBE * x * x)


@linear_gelu.gradient
def linear_gelu_back(
    grad: Array, x: Array, weight: Array, bias: Array | None, needs_input_grad: tuple[bool, ...]
) -> tuple[Array | None, ...]:
    x, weight = map(floating, promote(x, weight))
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    grads = grad.reshape(len(rows), len(weight))
    for_x = np.zeros(rows.shape, grad.dtype) if needs_input_grad[0] else None
    for_weight = np.empty(weight.shape, grad.dtype) if needs_input_grad[1] else None
    for_bias = np.empty(len(weight), grad.dtype)
    for some in _columns(*grads.shape):
        back = rows @ weight[some].T
        if bias is not None:
            back += bias[some]
        for start in range(0, len(rows), 4096):
            part = slice(start, start + 4096)
            back[part] = _slope(back[part]) * grads[part, some]
        for_bias[some] = back.sum(axis=0)
        if for_weight is not None:
            for_weight[some] = back.T @ rows
        if for_x is not None:
            for_x += back @ weight[some]
    return (
        for_x if for_x is None else for_x.reshape(x.shape),
        for_weight,
        for_bias if bias is not None and needs_input_grad[2] else None,
    )


@op(saves=["slopes"])
def softmax_cross_entropy(logits: Array, labels: Any) -> tuple[Any, Array]:
    """The whole table at once, in place."""
    labels = check_labels(logits, labels)
    n = len(logits)
    if n == 0:
        raise ValueError(f"no rows in {logits.shape}")
    logits = floating(logits)
    largest = logits.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", over="ignore"):
        table = logits - largest
    if not np.isfinite(largest).all():
        np.copyto(table, 0, where=logits == largest)
    every = np.arange(n)
    right = table[every, labels]
    np.exp(table, out=table)
    sums = table.sum(axis=1)
    loss = (np.log(sums) - right).mean(dtype=np.float64)
    table /= sums[:, None]
    others = table[every, labels].copy()
    table[every, labels] = 0
    table[every, labels] = np.where(others < 0.5, others - 1, -table.sum(axis=1))
    table /= n
    table.setflags(write=False)
    return loss.astype(table.dtype), table


@softmax_cross_entropy.gradient
def softmax_cross_entropy_back(grad: Array, slopes: Array) -> tuple[Array, None]:
    if float(grad) == 1.0:
        return slopes, None
    return np.multiply(slopes, grad), None


class Store:
    """One dtype of a group: data, gradients and moments, each in one array."""

    def __init__(self, params: list[Parameter]) -> None:
        self.params = params
        sizes = [p.data.size for p in params]
        starts = [0, *itertools.accumulate(sizes)]
        self.slices = [slice(a, b) for a, b in itertools.pairwise(starts)]
        self.data, self.grad, self.mean, self.square = (
            np.zeros(starts[-1], params[0].data.dtype) for _ in range(4)
        )
        self.homes = [self.show(self.data, i) for i in range(len(params))]
        for i, p in enumerate(params):
            self.move_in(i, p)

    def show(self, array: Array, i: int) -> Array:
        return array[self.slices[i]].reshape(self.params[i].data.shape)

    def move_in(self, i: int, p: Parameter) -> None:
        np.copyto(self.homes[i], p.data)
        p.data = self.homes[i]


class FusedAdam(Optimizer):
    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        self._stores: list[list[Store]] = []
        self._scratch_pair: dict[Any, Array] = {}
        super().__init__(
            params,
            {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "decoupled": decoupled},
        )

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        super().add_param_group(group)
        by_dtype: dict[Any, list[Parameter]] = {}
        for p in self.param_groups[-1]["params"]:
            by_dtype.setdefault(p.data.dtype, []).append(p)
        self._stores.append([Store(params) for params in by_dtype.values()])

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        super().load_state_dict(saved)
        for store in itertools.chain.from_iterable(self._stores):
            for i, p in enumerate(store.params):
                mean, square = store.show(store.mean, i), store.show(store.square, i)
                state = self.state.get(p)
                mean[...] = state["exp_avg"] if state else 0
                square[...] = state["exp_avg_sq"] if state else 0
                if state:
                    state.update(exp_avg=mean, exp_avg_sq=square)

    def step(self) -> None:
        for p in self.parameters():
            if p.requires_grad and p.grad is not None and p.grad.shape != p.data.shape:
                raise ValueError(f"gradient {p.grad.shape}, parameter {p.data.shape}")
        for group, stores in zip(self.param_groups, self._stores, strict=True):
            for store in stores:
                counts = [self.count(store, i, p) for i, p in enumerate(store.params)]
                place = 0
                for count, run in itertools.groupby(counts):
                    length = len(list(run))
                    if count:
                        whole = slice(store.slices[place].start, store.slices[place + length - 1].stop)
                        self.run(store, whole, count, group)
                    place += length
                if any(counts):
                    increment_version(store.data)

    def count(self, store: Store, i: int, p: Parameter) -> int:
        """Which step this is for a parameter, 0 for none; its gradient is laid to the others."""
        if p.grad is None or not p.requires_grad:
            return 0
        if p.data is not store.homes[i]:
            store.move_in(i, p)
        np.copyto(store.grad[store.slices[i]].reshape(p.grad.shape), p.grad, casting="same_kind")
        state = self.state.get(p)
        if state is None or not state:
            self.state[p] = state = {
                "step": 0, "exp_avg": store.show(store.mean, i), "exp_avg_sq": store.show(store.square, i),
            }  # fmt: skip
        state["step"] += 1
        return int(state["step"])

    def run(self, store: Store, whole: slice, count: int, group: Mapping[str, Any]) -> None:
        one, two = group["betas"]
        lr, decay = group["lr"], group["weight_decay"]
        width = 1 << 15
        if store.data.dtype not in self._scratch_pair:
            self._scratch_pair[store.data.dtype] = np.empty(width, store.data.dtype)
        for start in range(whole.start, whole.stop, width):
            some = slice(start, min(start + width, whole.stop))
            data, grad, mean, square = (
                array[some] for array in (store.data, store.grad, store.mean, store.square)
            )
            room = self._scratch_pair[data.dtype][: data.size]
            if decay:
                np.multiply(data, lr * decay if group["decoupled"] else decay, out=room)
                if group["decoupled"]:
                    data -= room
                else:
                    grad += room
            np.subtract(grad, mean, out=room)  # mean moves towards grad
            room *= 1 - one
            mean += room
            grad *= grad
            grad -= square
            grad *= 1 - two
            square += grad
            np.divide(square, 1 - two**count, out=room)
            np.sqrt(room, out=room)
            room += group["eps"]
            np.divide(mean, room, out=room)
            room *= lr / (1 - one**count)
            data -= room


# F(2x2, 3x3), on lists of four arrays: along one axis, four pixels d make d0 - d2, d1 + d2, d2 - d1, d1 - d3.


def _pixels(d: list[Any]) -> list[Any]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _kernel(g: list[Any]) -> list[Any]:
    return [g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]]


def _results(m: list[Any]) -> list[Any]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _kernel_back(t: list[Any]) -> list[Any]:
    return [t[0] + (t[1] + t[2]) / 2, (t[1] - t[2]) / 2, (t[1] + t[2]) / 2 + t[3]]


def _results_back(y: list[Any]) -> list[Any]:
    return [y[0], y[0] + y[1], y[0] - y[1], -y[1]]


def _both(step: Callable[[list[Any]], list[Any]], table: list[list[Any]]) -> list[list[Any]]:
    """`step` down the columns of a table of arrays, then along its rows."""
    down = [list(column) for column in zip(*(step(list(c)) for c in zip(*table, strict=True)), strict=True)]
    return [step(row) for row in down]


def _images(x: Array, outputs: int) -> Iterator[tuple[slice, int, int]]:
    """Images, and from which to which row of tiles."""
    n, c, h, w = x.shape
    down, across = (h + 1) // 2, (w + 1) // 2
    most = max((1 << 20) // max(across * (c + outputs) * x.itemsize * 16, 1), 1)
    many = max(1, most // max(down, 1))
    for i in range(0, n, many):
        for row in range(0, down, min(most, down)):
            yield slice(i, i + many), row, min(row + most, down)


def _seen(x: Array, some: slice, first: int, last: int) -> list[list[Array]]:
    """Pixel (i, j) of the 4 x 4 under each tile of these rows, (tiles, C)."""
    part = x[some].transpose(0, 2, 3, 1)
    n, h, w, c = part.shape
    across = (w + 1) // 2
    padded = np.zeros((n, 2 * (last - first) + 2, 2 * across + 2, c), x.dtype)
    top, bottom = 2 * first - 1, min(2 * last + 1, h)
    padded[:, max(-top, 0) : bottom - top, 1 : w + 1] = part[:, max(top, 0) : bottom]
    rows, columns = 2 * (last - first), 2 * across
    return [
        [padded[:, i : i + rows : 2, j : j + columns : 2].reshape(-1, c) if c else
         np.zeros((n * rows // 2 * across, 0), x.dtype) for j in range(4)]
        for i in range(4)
    ]  # fmt: skip


def _transformed(x: Array, some: slice, first: int, last: int) -> Array:
    table = _both(_pixels, _seen(x, some, first, last))
    return np.stack([array for row in table for array in row])


@op
def winograd_conv2d(x: Array, weight: Array) -> Any:
    x, weight = map(floating, promote(x, weight))
    if x.ndim != 4 or weight.ndim != 4 or weight.shape[1:] != (x.shape[1], 3, 3):
        raise ValueError(f"{weight.shape} on {x.shape}")
    n, _, h, w = x.shape
    outputs = len(weight)
    taps = [[weight[:, :, a, b].T for b in range(3)] for a in range(3)]
    kernels = np.stack([array for row in _both(_kernel, taps) for array in row])
    out = np.empty((n, h, w, outputs), x.dtype)
    for some, first, last in _images(x, outputs):
        products = np.matmul(_transformed(x, some, first, last), kernels)
        part = out[some, 2 * first : 2 * last]
        table = _both(_results, [list(products[4 * i : 4 * i + 4]) for i in range(4)])
        for i, j in np.ndindex(2, 2):
            place = part[:, i::2, j::2]
            tiles = table[i][j].reshape(len(part), last - first, (w + 1) // 2, outputs)
            place[...] = tiles[:, : place.shape[1], : place.shape[2]]
    return out.transpose(0, 3, 1, 2)


@winograd_conv2d.gradient
def winograd_conv2d_back(
    grad: Array, x: Array, weight: Array, needs_input_grad: tuple[bool, ...]
) -> tuple[Array | None, ...]:
    x, weight = map(floating, promote(x, weight))
    for_x = for_weight = None
    if needs_input_grad[0]:
        turned = np.flip(weight, (2, 3)).swapaxes(0, 1)
        for_x = winograd_conv2d.run([grad, turned], {})[0]
    if needs_input_grad[1]:
        outputs, c = weight.shape[:2]
        total = np.zeros((16, c, outputs), grad.dtype)
        for some, first, last in _images(x, outputs):
            part = grad[some, :, 2 * first : 2 * last].transpose(0, 2, 3, 1)
            count, _, w, _ = part.shape
            across = (w + 1) // 2
            room = np.zeros((2, 2, count, last - first, across, outputs), grad.dtype)
            for i, j in np.ndindex(2, 2):
                seen = part[:, i::2, j::2]
                room[i, j, :, : seen.shape[1], : seen.shape[2]] = seen
            tiles = room.reshape(2, 2, count * (last - first) * across, outputs)
            spread = _both(_results_back, [list(row) for row in tiles])
            slopes = np.stack([array for row in spread for array in row])
            total += np.matmul(_transformed(x, some, first, last).transpose(0, 2, 1), slopes)
        table = _both(_kernel_back, [list(total[4 * i : 4 * i + 4]) for i in range(4)])
        for_weight = np.stack([np.stack([array.T for array in row], -1) for row in table], -2)
    return for_x, for_weight


def fold_batch_norm(conv: Conv2d, norm: BatchNorm2d) -> Conv2d:
    outputs = conv.weight.shape[0]
    if norm.training:
        raise ValueError("this norm is in training")
    if norm.weight.data.size != outputs:
        raise ValueError(f"{norm.weight.data.size} channels for {outputs}")
    gain = norm.weight.data.astype(float) / np.sqrt(norm.running_var.data.astype(float) + norm.eps)
    level = norm.bias.data - norm.running_mean.data * gain
    if conv.bias is not None:
        level = level + conv.bias.data * gain
    one = copy.deepcopy(conv)
    one.__dict__.pop("_forward_hooks", None)
    one.weight = Parameter(np.einsum("oikl,o->oikl", conv.weight.data, gain).astype(conv.weight.dtype))
    one.bias = Parameter(level.astype(conv.weight.dtype))
    return one


class LinearGELU(Module):
    def __init__(self, linear: Linear) -> None:
        self.weight = linear.weight
        self.bias = linear.bias
        self.training = linear.training

    def forward(self, x: Tensor) -> Tensor:
        return linear_gelu(x, self.weight) if self.bias is None else linear_gelu(x, self.weight, self.bias)

    def flops(self, inputs: tuple[Any, ...], out: Any) -> int:
        return 2 * math.prod(out.shape) * len(self.weight.data[0])

    def extra_repr(self) -> str:
        outputs, inputs = self.weight.shape
        return f"in_features={inputs}, out_features={outputs}, bias={self.bias is not None}"


def _pair(one: Module, other: Module) -> Module | None:
    if type(one) is Linear and type(other) is GELU:
        return LinearGELU(one)
    if type(one) is Conv2d and type(other) is BatchNorm2d and not other.training:
        return fold_batch_norm(one, other)
    return None


def fuse(module: Module) -> Module:
    copied = copy.deepcopy(module)
    for net in list(copied.modules()):
        if isinstance(net, Sequential):
            i = 0
            while i + 1 < len(net.layers):
                together = _pair(net.layers[i], net.layers[i + 1])
                if together is None:
                    i += 1
                else:
                    net.layers[i : i + 2] = [together]
    return copied
