"""Kata 17 in another manner: Winograd's matrices come from their points, and are applied axis by axis.

gelu is relu less a bump, layers are whole products with gelu in pieces over them, gradients of small
parameters are gathered window by window, and the loss works on all rows at once.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tinytorch.activations import GELU, below_largest
from tinytorch.layers import Linear, Module, Parameter, affine
from tinytorch.networks import Sequential
from tinytorch.optimizers import Optimizer
from tinytorch.spatial import BatchNorm2d, Conv2d
from tinytorch.tensor import (
    Array,
    Tensor,
    as_array,
    broadcast_shapes,
    floating,
    increment_version,
    op,
    promote,
    result_type,
)
from tinytorch.training import check_labels

__all__ = [
    "CHUNK", "FusedAdam", "LinearGELU", "Workspace", "add_relu", "block_for", "blocked_matmul", "fast_gelu",
    "fold_batch_norm", "fuse", "in_chunks", "linear_gelu", "matmul_traffic", "parallel_for", "pieces",
    "scale_shift_add_relu", "softmax_cross_entropy", "winograd_conv2d",
]  # fmt: skip

CHUNK = 2**16


class Workspace(dict[str, Array]):
    """Names to flat arrays of bytes."""

    def take(self, name: str, shape: int | Sequence[int], dtype: DTypeLike = np.float32) -> Array:
        if np.dtype(dtype).hasobject:
            raise TypeError(f"{np.dtype(dtype)} cannot be made of bytes")
        shape = [shape] if isinstance(shape, int) else list(shape)
        needed = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
        if name not in self or self[name].size < needed:
            self[name] = np.zeros(needed, np.int8)
        return np.frombuffer(self[name].data, dtype, needed // np.dtype(dtype).itemsize).reshape(shape)

    @property
    def nbytes(self) -> int:
        return sum(room.nbytes for room in self.values())


def blocked_matmul(
    a: Any, b: Any, block: int = 256, product: Callable[[Array, Array], Array] = np.matmul
) -> Array:
    a, b = promote(as_array(a), as_array(b))
    if block < 1:
        raise ValueError(f"tiles of {block}")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != len(b):
        raise ValueError(f"{a.shape} @ {b.shape}")
    out = np.empty((len(a), b.shape[1]), a.dtype)
    for i in range(0, len(a), block):
        rows = a[i : i + block]
        for j in range(0, b.shape[1], block):
            columns = b[:, j : j + block]
            sums: Any = 0
            for p in range(0, len(b), block):
                sums = sums + product(rows[:, p : p + block], columns[p : p + block])
            out[i : i + block, j : j + block] = sums
    return out


def matmul_traffic(m: int, n: int, k: int, block: int = 1, itemsize: int = 4) -> int:
    if block < 1:
        raise ValueError(f"tiles of {block}")
    numbers = m * n
    numbers += m * k * ((n - 1) // block + 1)
    numbers += n * k * ((m - 1) // block + 1)
    return numbers * itemsize


def block_for(cache: int, itemsize: int = 4) -> int:
    low, high = 1, 2
    while 3 * high * high * itemsize <= cache:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if 3 * middle * middle * itemsize <= cache else (low, middle)
    return low


def pieces(first: Array, *others: Array, chunk: int = CHUNK) -> Iterator[tuple[Array, ...]]:
    arrays = (first, *others)
    if any(a.shape != first.shape for a in arrays):
        raise ValueError(f"shapes {[a.shape for a in arrays]}")
    if chunk <= 0:
        raise ValueError(f"a chunk of {chunk}")
    steps = [abs(step) for step in first.strides]
    axes = sorted(range(first.ndim), key=steps.__getitem__, reverse=True)
    arrays = tuple(a.transpose(axes) for a in arrays)
    if all(a.flags.c_contiguous for a in arrays):
        arrays = tuple(a.ravel() for a in arrays)
    waiting = [arrays]
    while waiting:
        parts = waiting.pop()
        size = parts[0].size
        if not size:
            continue
        if size <= chunk:
            yield parts
            continue
        row = size // len(parts[0])
        if row <= chunk:
            many = chunk // row
            yield from (tuple(a[i : i + many] for a in parts) for i in range(0, len(parts[0]), many))
        else:
            waiting.extend(tuple(a[i] for a in parts) for i in reversed(range(len(parts[0]))))


def parallel_for(function: Callable[[Any], Any], items: Iterable[Any], threads: int = 1) -> list[Any]:
    if threads < 1:
        raise ValueError(f"{threads} threads")
    if threads == 1:
        results = []
        for item in items:
            results.append(function(item))
        return results
    pool = ThreadPoolExecutor(max_workers=threads)
    try:
        waiting = [pool.submit(function, item) for item in items]
        return [one.result() for one in waiting]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_chunks(
    steps: Callable[..., object], out: Array, *inputs: Any, chunk: int = CHUNK, threads: int = 1
) -> Array:
    cut = [bool(np.ndim(x)) for x in inputs]
    for x, is_cut in zip(inputs, cut, strict=True):
        if is_cut and (
            x.ndim > out.ndim
            or any(n not in (1, m) for n, m in zip(x.shape[::-1], out.shape[::-1], strict=False))
        ):
            raise ValueError(f"{x.shape} does not stretch to {out.shape}")
    wide = [np.broadcast_to(x, out.shape) for x, is_cut in zip(inputs, cut, strict=True) if is_cut]

    def work(parts: tuple[Array, ...]) -> None:
        left = list(parts[1:])
        steps(parts[0], *[left.pop(0) if is_cut else x for x, is_cut in zip(inputs, cut, strict=True)])

    parallel_for(work, list(pieces(out, *wide, chunk=chunk)), threads)
    return out


TWICE = math.sqrt(8 / math.pi)


def _share(x: Array) -> Array:
    """The sigmoid of -|z|: what the other side has."""
    far = np.minimum(np.abs(x), 1000)
    z = far * far
    z *= -0.044715 * TWICE
    z -= TWICE
    z *= far
    with np.errstate(under="ignore"):
        z = np.exp(z)
        z /= 1 + z
    return np.asarray(z)


def _gelu(out: Array, x: Array) -> None:
    """relu(x) less |x| times the other side's share."""
    bump = _share(x)
    bump *= np.minimum(np.abs(x), 1000)
    np.maximum(x, 0, out=out)
    out -= bump


def fast_gelu(x: Any, out: Array | None = None, threads: int = 1) -> Array:
    x = floating(x)
    if out is None:
        out = np.empty_like(x)
    elif out.dtype != x.dtype or out.shape != x.shape:
        raise ValueError(f"{out.dtype} {out.shape} cannot hold {x.dtype} {x.shape}")
    return in_chunks(_gelu, out, x, chunk=CHUNK // 4, threads=threads)


def _prepared(*operands: Any) -> tuple[Array, list[Array]]:
    dtype = result_type(*operands)
    if dtype.kind != "f":
        dtype = np.dtype(np.float32)
    arrays = [np.asarray(as_array(x), dtype) for x in operands]
    shape = broadcast_shapes(*[a.shape for a in arrays])
    same = [a for a in arrays if a.shape == shape]
    return (np.empty_like(same[0]) if same else np.empty(shape, dtype)), arrays


@op
def add_relu(x: Array, y: Array) -> Any:
    out, (x, y) = _prepared(x, y)

    def steps(part: Array, x: Any, y: Any) -> None:
        part[...] = x
        part += y
        part *= part > 0

    def careful(part: Array, x: Any, y: Any) -> None:  # -inf * 0 is nan
        np.maximum(np.add(x, y), 0, out=part)

    with np.errstate(invalid="raise"):
        try:
            return in_chunks(steps, out, x, y)
        except FloatingPointError:
            pass
    return in_chunks(careful, out, x, y, chunk=CHUNK // 8)


@add_relu.gradient
def add_relu_back(grad: Array, out: Array) -> tuple[Array, Array]:
    back = np.where(out > 0, grad, grad.dtype.type(0))
    return back, back


@op(saves=["kept"])
def scale_shift_add_relu(x: Array, a: Any, b: Any, y: Any) -> tuple[Any, Any]:
    out, (x, wide_a, b, y) = _prepared(x, a, b, y)

    def steps(part: Array, x: Any, a: Any, b: Any, y: Any) -> None:
        np.add(x * a, b, out=part)
        np.add(part, y, out=part)
        np.maximum(part, 0, out=part)

    in_chunks(steps, out, x, wide_a, b, y, chunk=CHUNK // 2)
    return out, None if type(a) in (int, float, bool) else x


@scale_shift_add_relu.gradient
def scale_shift_add_relu_back(
    grad: Array, out: Array, a: Any, kept: Any, needs_input_grad: tuple[bool, ...]
) -> tuple[Array | None, ...]:
    level = np.where(out > 0, grad, grad.dtype.type(0))
    for_x = np.asarray(a, grad.dtype) * level if needs_input_grad[0] else None
    for_a = None
    if kept is not None and needs_input_grad[1]:
        for_a = kept * level
    return for_x, for_a, level, level


@op
def linear_gelu(x: Array, weight: Array, bias: Array | None = None) -> Any:
    """A whole product, and gelu in pieces over it."""
    x, weight = floating(x), floating(weight)
    out = affine.forward(x, weight, bias)
    return fast_gelu(out, out=out)


@linear_gelu.gradient
def linear_gelu_back(
    grad: Array, x: Array, weight: Array, bias: Array | None, needs_input_grad: tuple[bool, ...]
) -> tuple[Array | None, ...]:
    x, weight = promote(floating(x), floating(weight))
    outputs, inputs = weight.shape
    rows, grads = x.reshape(math.prod(x.shape[:-1]), inputs), grad.reshape(math.prod(x.shape[:-1]), outputs)
    shares: list[Any] = []
    for_weight, for_bias = np.zeros_like(weight, grad.dtype), np.zeros(outputs, grad.dtype)
    for i in range(0, len(rows), 256):
        hidden = affine.forward(rows[i : i + 256], weight, bias)
        other = _share(hidden)
        slope = np.clip(hidden, -1000, 1000)
        slope *= slope * (3 * 0.044715 * TWICE) * slope + TWICE
        slope *= other * (1 - other)
        slope += np.where(hidden > 0, 1 - other, other)
        slope *= grads[i : i + 256]
        shares.append(slope @ weight if needs_input_grad[0] else None)
        if needs_input_grad[1]:
            for_weight += slope.T @ rows[i : i + 256]
        for_bias += slope.sum(axis=0)
    for_x = np.zeros((0, inputs), grad.dtype)
    if needs_input_grad[0] and shares:
        for_x = np.concatenate(shares)
    return (
        for_x.reshape(x.shape) if needs_input_grad[0] else None,
        for_weight if needs_input_grad[1] else None,
        for_bias if needs_input_grad[2:] == (True,) and bias is not None else None,
    )


@op(saves=["slopes", "rows"])
def softmax_cross_entropy(logits: Array, labels: Any) -> tuple[Any, Array, int]:
    labels = check_labels(logits, labels)
    n = len(logits)
    if not n:
        raise ValueError(f"{logits.shape} has no rows")
    table = below_largest(logits, axis=1)
    place = np.arange(n), labels
    losses = -table[place].astype(np.float64)
    np.exp(table, out=table)
    sums = table.sum(axis=1, keepdims=True)
    losses += np.log(sums[:, 0])
    table[place] -= sums[:, 0]
    table /= sums * n
    table.flags.writeable = False
    return table.dtype.type(losses.sum() / n), table, n


@softmax_cross_entropy.gradient
def softmax_cross_entropy_back(grad: Array, slopes: Array) -> tuple[Array, None]:
    if not np.any(grad != 1):
        return slopes, None
    return slopes * np.asarray(grad, slopes.dtype), None


class FusedAdam(Optimizer):
    """For each group and dtype: parameters, where they begin, their array, and those of their moments."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        self.lanes: list[tuple[int, list[Parameter], list[int], Array, Array, Array]] = []
        self.rooms: dict[Any, tuple[Array, Array]] = {}
        moments = {"betas": betas, "eps": eps}
        super().__init__(params, {"lr": lr, **moments, "weight_decay": weight_decay, "decoupled": decoupled})

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        super().add_param_group(group)
        number = len(self.param_groups) - 1
        params = self.param_groups[number]["params"]
        for dtype in {p.dtype for p in params}:
            mine = [p for p in params if p.dtype == dtype]
            begins = np.cumsum([0, *(p.size for p in mine)]).tolist()
            data = np.concatenate([p.data.reshape(-1) for p in mine])
            for p, begin in zip(mine, begins, strict=False):
                p.data = data[begin : begin + p.size].reshape(p.shape)
            self.lanes.append((number, mine, begins, data, np.zeros_like(data), np.zeros_like(data)))
            self.rooms.setdefault(dtype, (np.empty(CHUNK // 2, dtype), np.empty(CHUNK // 2, dtype)))

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        super().load_state_dict(saved)
        for _, params, begins, _, mean, square in self.lanes:
            mean.fill(0)
            square.fill(0)
            for p, begin in zip(params, begins, strict=False):
                if p in self.state:
                    for name, array in (("exp_avg", mean), ("exp_avg_sq", square)):
                        home = array[begin : begin + p.size].reshape(p.shape)
                        home[...] = self.state[p][name]
                        self.state[p][name] = home

    def step(self) -> None:
        for p in self.parameters():
            if p.grad is not None and p.requires_grad and p.grad.shape != p.shape:
                raise ValueError(f"gradient {p.grad.shape} of a parameter {p.shape}")
        for number, params, begins, data, mean, square in self.lanes:
            run: list[tuple[int, int, Any]] = []
            last = 0
            for p, begin in zip(params, begins, strict=False):
                moves = p.grad is not None and p.requires_grad
                if moves:
                    home = data[begin : begin + p.size]
                    if p.data.base is not data:
                        home[...] = p.data.reshape(-1)
                        p.data = home.reshape(p.shape)
                    state = self.state.setdefault(p, {})
                    if not state:
                        state["step"] = 0
                        state["exp_avg"] = mean[begin : begin + p.size].reshape(p.shape)
                        state["exp_avg_sq"] = square[begin : begin + p.size].reshape(p.shape)
                    state["step"] += 1
                count = self.state[p]["step"] if moves else 0
                if count != last and run:
                    self.move(run, last, number, data, mean, square)
                    run = []
                last = count
                if moves:
                    assert p.grad is not None
                    run.append((begin, begin + p.size, p.grad.reshape(-1)))
            if run:
                self.move(run, last, number, data, mean, square)
            increment_version(data)

    def move(
        self,
        run: list[tuple[int, int, Any]],
        count: int,
        number: int,
        data: Array,
        mean: Array,
        square: Array,
    ) -> None:
        """Window by window; what of the gradients lies in a window is copied there."""
        gathered, _ = self.rooms[data.dtype]
        width, at = gathered.size, 0
        for begin in range(run[0][0], run[-1][1], width):
            end = min(begin + width, run[-1][1])
            while at < len(run) and run[at][1] <= begin:
                at += 1
            k = at
            while k < len(run) and run[k][0] < end:
                first, last, grad = run[k]
                low, high = max(first, begin), min(last, end)
                gathered[low - begin : high - begin] = grad[low - first : high - first]
                k += 1
            self.window(slice(begin, end), count, self.param_groups[number], data, mean, square)

    def window(
        self, some: slice, count: int, group: Mapping[str, Any], data: Array, mean: Array, square: Array
    ) -> None:
        grad, room = (array[: some.stop - some.start] for array in self.rooms[data.dtype])
        data, mean, square = data[some], mean[some], square[some]
        (one, two), lr = group["betas"], group["lr"]
        if group["weight_decay"]:
            np.multiply(data, group["weight_decay"], out=room)
            if group["decoupled"]:
                room *= lr
                data -= room
            else:
                grad += room
        for moment, keep in ((mean, one), (square, two)):
            np.multiply(grad, 1 - keep, out=room)
            if moment is square:
                room *= grad
            moment *= keep
            moment += room
        np.multiply(square, 1 / (1 - two**count), out=room)
        np.sqrt(room, out=room)
        room += group["eps"]
        np.divide(mean, room, out=room)
        room *= lr / (1 - one**count)
        data -= room


# Toom and Cook: polynomials are multiplied by their values at six points. Transposed, that is a correlation:
# FOR_RESULTS.T and FOR_KERNEL are the points' powers, FOR_PIXELS the inverse of the square table of powers.

POINTS = np.array([0.0, 1.0, -1.0, 2.0, -0.5])
POWERS = np.vstack([POINTS[:, None] ** np.arange(6), np.eye(6)[5]])
FOR_PIXELS, FOR_KERNEL, FOR_RESULTS = np.linalg.inv(POWERS).T, POWERS[:, :3].copy(), POWERS[:, :4].T.copy()
FOR_KERNEL[5], FOR_RESULTS[:, 5] = (0, 0, 1), (0, 0, 0, 1)


def _axis_by_axis(matrix: Array, table: Array) -> Array:
    """(n, n, ...) to (m, m, ...) by a matrix (m, n), along the first axis and then along the second."""
    matrix = matrix.astype(table.dtype)
    (m, n), rest = matrix.shape, table.shape[2:]
    half = (matrix @ table.reshape(n, n * math.prod(rest))).reshape(m, n, math.prod(rest))
    return np.matmul(matrix, half).reshape(m, m, *rest)


def _bands(x: Array, outputs: int) -> Iterator[tuple[int, int, int]]:
    """An image, and rows of tiles from one to another."""
    _, c, h, w = x.shape
    across, down = (w + 3) // 4, (h + 3) // 4
    rows = max(1, (1 << 20) // max(1, across * 36 * (c + outputs) * x.itemsize))
    for i in range(len(x)):
        for row in range(0, down, rows):
            yield i, row, min(row + rows, down)


def _six_by_six(image: Array, first: int, last: int) -> Array:
    """(6, 6, tiles, C) of (C, H, W)."""
    c, h, w = image.shape
    across = (w + 3) // 4
    room = np.zeros((4 * (last - first) + 2, 4 * across + 2, c), image.dtype)
    low, high = max(4 * first - 1, 0), min(4 * last + 1, h)
    room[low - 4 * first + 1 : high - 4 * first + 1, 1 : w + 1] = image[:, low:high].transpose(1, 2, 0)
    seen = np.lib.stride_tricks.sliding_window_view(room, (6, 6), (0, 1))[::4, ::4]
    return seen.transpose(3, 4, 0, 1, 2).reshape(6, 6, (last - first) * across, c)


@op
def winograd_conv2d(x: Array, weight: Array) -> Any:
    x, weight = promote(floating(x), floating(weight))
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(f"images {x.shape}, kernels {weight.shape}")
    if weight.shape != (len(weight), x.shape[1], 3, 3):
        raise ValueError(f"images {x.shape}, kernels {weight.shape}")
    n, c, h, w = x.shape
    outputs = len(weight)
    kernels = _axis_by_axis(FOR_KERNEL, weight.transpose(2, 3, 1, 0).copy()).reshape(36, c, outputs)
    out = np.empty((n, h, w, outputs), x.dtype)
    for i, first, last in _bands(x, outputs):
        pixels = _axis_by_axis(FOR_PIXELS, _six_by_six(x[i], first, last))
        products = (pixels.reshape(36, -1, c) @ kernels).reshape(6, 6, -1, outputs)
        results = _axis_by_axis(FOR_RESULTS, products).reshape(4, 4, last - first, -1, outputs)
        image = results.transpose(2, 0, 3, 1, 4).reshape(4 * (last - first), -1, outputs)
        part = out[i, 4 * first : 4 * last]
        part[...] = image[: len(part), :w]
    return out.transpose(0, 3, 1, 2)


@winograd_conv2d.gradient
def winograd_conv2d_back(
    grad: Array, x: Array, weight: Array, needs_input_grad: tuple[bool, ...]
) -> tuple[Array | None, ...]:
    x, weight = promote(floating(x), floating(weight))
    c, h, w = x.shape[1:]
    outputs = len(weight)
    for_x = for_weight = None
    if needs_input_grad[0]:
        turned = np.ascontiguousarray(weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))
        for_x = winograd_conv2d.forward(grad, turned)
    if needs_input_grad[1]:
        total = np.zeros((36, c, outputs), grad.dtype)
        for i, first, last in _bands(x, outputs):
            across = (w + 3) // 4
            room = np.zeros((4 * (last - first), 4 * across, outputs), grad.dtype)
            high = min(4 * last, h)
            room[: high - 4 * first, :w] = grad[i, :, 4 * first : high].transpose(1, 2, 0)
            tiles = room.reshape(last - first, 4, across, 4, outputs).transpose(1, 3, 0, 2, 4)
            slopes = _axis_by_axis(FOR_RESULTS.T, tiles.reshape(4, 4, -1, outputs)).reshape(36, -1, outputs)
            pixels = _axis_by_axis(FOR_PIXELS, _six_by_six(x[i], first, last)).reshape(36, -1, c)
            total += pixels.transpose(0, 2, 1) @ slopes
        taps = _axis_by_axis(FOR_KERNEL.T, total.reshape(6, 6, c, outputs))
        for_weight = taps.transpose(3, 2, 0, 1).copy()
    return for_x, for_weight


def fold_batch_norm(conv: Conv2d, norm: BatchNorm2d) -> Conv2d:
    if norm.training or len(norm.bias) != len(conv.weight):
        raise ValueError(f"training={norm.training}, {len(norm.bias)} channels on {len(conv.weight)}")
    inputs = conv.weight.shape[1] * conv.groups
    new = Conv2d(
        inputs,
        len(conv.weight),
        conv.weight.shape[2:],
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        rng=np.random.default_rng(0),
    )
    scale = norm.weight.data * (norm.running_var.data + np.float64(norm.eps)) ** -0.5
    before = np.zeros(len(scale)) if conv.bias is None else conv.bias.data
    dtype = conv.weight.dtype
    new.weight.data = np.array(conv.weight.data * scale.reshape(-1, 1, 1, 1), dtype)
    new.bias = Parameter(np.array(before * scale + norm.bias.data - norm.running_mean.data * scale, dtype))
    return new.train(conv.training)


class LinearGELU(Module):
    def __init__(self, linear: Linear) -> None:
        self.training = linear.training
        self.weight = linear.weight
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return linear_gelu(x, self.weight, self.bias)

    def flops(self, inputs: tuple[Any, ...], out: Any) -> int:
        return 2 * int(out.size) * self.weight.shape[1]

    def extra_repr(self) -> str:
        return "in_features={1}, out_features={0}, bias={2}".format(*self.weight.shape, self.bias is not None)


def _put_together(net: Sequential) -> None:
    old, net.layers = net.layers, []
    for layer in old:
        if net.layers and type(net.layers[-1]) is Linear and type(layer) is GELU:
            net.layers[-1] = LinearGELU(net.layers[-1])
            continue
        folds = net.layers and type(net.layers[-1]) is Conv2d and type(layer) is BatchNorm2d
        if folds and not layer.training:
            net.layers[-1] = fold_batch_norm(net.layers[-1], layer)
            continue
        net.layers.append(layer)


def fuse(module: Module) -> Module:
    copied = copy.deepcopy(module)
    for net in [one for one in copied.modules() if isinstance(one, Sequential)]:
        _put_together(net)
    return copied
