"""Kata 07, in another manner: no columns at all, but a product of matrices for each tap of the kernel.

Images are (N, C, H, W): which image, which channel, row, column. In memory they lie *channels-last*: all
channels of a pixel side by side, then the next pixel. So what a kernel looks at is copied in long runs, the
matrix product that does the work reads rows, and everything here gives its result in that order, whatever
the order of what it is given. Shapes stay as they are; only strides tell.

A stride, padding, dilation or kernel size is a number, or a pair of them for rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tinytorch.activations import ReLU, relu_
from tinytorch.layers import Buffer, Linear, Module, Parameter, as_rows
from tinytorch.networks import Sequential
from tinytorch.tensor import Array, Shape, Tensor, floating, increment_version, op, promote

__all__ = [
    "AvgPool2d", "BatchNorm2d", "Conv2d", "Flatten", "GlobalAvgPool", "LeNet", "MaxPool2d", "ResidualBlock",
    "SmallResNet", "SmallVGG", "avg_pool2d", "avg_pool2d_back", "batch_norm", "batch_norm_back",
    "channels_last", "chunks", "col2im", "conv2d", "conv2d_back", "conv2d_loops", "conv_output_size",
    "conv_shape", "crop", "im2col", "max_pool2d", "max_pool2d_back", "pad", "pair", "pool_shape", "taps",
    "windows",
]  # fmt: skip

Pair = int | tuple[int, int]

# Bytes to work on at a time. A core's own cache has 0.5 to 2 MiB.
CACHE = 1 << 20


# Given: shapes and memory.


def pair(value: Pair) -> tuple[int, int]:
    """(3, 3) for 3; a pair as it is."""
    return (value, value) if isinstance(value, int) else value


def channels_last(shape: Shape, dtype: DTypeLike) -> Array:
    """A new array of `shape` (N, C, H, W), not filled yet, whose memory is in the order (N, H, W, C)."""
    n, c, h, w = shape
    images: Array = np.empty((n, h, w, c), dtype).transpose(0, 3, 1, 2)
    return images


def pad(x: Array, padding: Pair, value: float = 0) -> Array:
    """(N, C, H, W) with a border of `value`, channels-last in memory; `x` itself if it is that already."""
    ph, pw = pair(padding)
    n, c, h, w = x.shape
    if ph == pw == 0 and x.transpose(0, 2, 3, 1).flags.c_contiguous:
        return x
    padded = channels_last((n, c, h + 2 * ph, w + 2 * pw), x.dtype)
    padded[:, :, :ph] = padded[:, :, ph + h :] = value
    padded[:, :, :, :pw] = padded[:, :, :, pw + w :] = value
    padded[:, :, ph : ph + h, pw : pw + w] = x
    return padded


def conv_shape(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Shape:
    """The shape of a convolution's result; ValueError if its arguments do not fit, naming their shapes."""
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(f"images of shape {x.shape} and kernels of shape {weight.shape}: both need 4 axes")
    outputs, inputs = weight.shape[:2]
    if groups < 1 or outputs % groups or x.shape[1] != inputs * groups:
        raise ValueError(
            f"images of shape {x.shape} do not fit kernels of shape {weight.shape} in {groups} groups"
        )
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"a bias of shape {bias.shape} does not fit kernels of shape {weight.shape}")
    sizes = zip(x.shape[2:], weight.shape[2:], pair(stride), pair(padding), pair(dilation), strict=True)
    rows, columns = (conv_output_size(*numbers) for numbers in sizes)
    return len(x), outputs, rows, columns


# Convolution, first as it is defined.


def conv_output_size(size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """In how many places a kernel of `kernel` taps, `dilation` apart, fits on `size` pixels and the border.

    The border is `padding` pixels on each side, and the kernel moves by `stride`. ValueError, which names the
    numbers, if there is no place, or if a kernel, stride or dilation is less than 1 or a padding than 0.
    """
    # kata 07.1: how far does the kernel reach, and how far can it move from its first place?
    reach = dilation * (kernel - 1) + 1
    if min(kernel, stride, dilation) < 1 or padding < 0:
        raise ValueError(f"no kernel {kernel} with stride {stride}, padding {padding}, dilation {dilation}")
    room = size + 2 * padding - reach
    if room < 0:
        raise ValueError(f"a kernel that reaches over {reach} does not fit on {size} with padding {padding}")
    return room // stride + 1


def conv2d_loops(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Array:
    """Convolution by its definition, one multiplication at a time: what `conv2d` is to give, but fast.

    (N, C, H, W), kernels (O, C / groups, KH, KW) and a bias (O,) make (N, O, OH, OW). Each output is the
    sum over the taps of its kernel: the weight times the pixel under it, 0 in the border; plus the bias.
    The channels of images and results are dealt out to the groups in order, and each group is by itself.
    """
    # kata 07.2: seven loops, of which np.ndindex can make two.
    x, weight = promote(x, weight)
    shape = conv_shape(x, weight, bias, stride, padding, dilation, groups)
    (sh, sw), (ph, pw), (dh, dw) = pair(stride), pair(padding), pair(dilation)
    inputs, outputs = weight.shape[1], len(weight) // groups
    out = np.empty(shape, x.dtype)
    for n, o, i, j in np.ndindex(*shape):
        total = x.dtype.type(0) if bias is None else bias[o]
        for c, a, b in np.ndindex(*weight.shape[1:]):
            row, column = i * sh + a * dh - ph, j * sw + b * dw - pw
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                total += weight[o, c, a, b] * x[n, o // outputs * inputs + c, row, column]
        out[n, o, i, j] = total
    return out


# Then as one product of matrices.


def windows(x: Array, kernel: Pair, stride: Pair = 1, dilation: Pair = 1) -> Array:
    """What the kernel sees at each of its places: a read-only view (N, C, OH, OW, KH, KW) of (N, C, H, W)."""
    size, strides = list(x.shape[:2]), list(x.strides[:2])
    for n, k, s, d in zip(x.shape[2:], pair(kernel), pair(stride), pair(dilation), strict=True):
        size.append(conv_output_size(n, k, s, dilation=d))
    strides += [step * s for step, s in zip(x.strides[2:], pair(stride), strict=True)]
    strides += [step * d for step, d in zip(x.strides[2:], pair(dilation), strict=True)]
    shape = (*size, *pair(kernel))
    return np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)


def im2col(x: Array, kernel: Pair, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1) -> Array:
    """A row for each place of the kernel, with all that it sees there: (N * OH * OW, KH * KW * C)."""
    grid = tap_grid(pad(x, padding), kernel, stride, dilation)
    n, channels, rows, columns = grid[0].shape
    out = np.empty((n, rows, columns, len(grid), channels), x.dtype)
    for number, pixels in enumerate(grid):
        out[:, :, :, number] = pixels.transpose(0, 2, 3, 1)
    return out.reshape(n * rows * columns, len(grid) * channels)


def tap_grid(a: Array, kernel: Pair, stride: Pair, dilation: Pair = 1) -> list[Array]:
    """What lies under each tap, row by row."""
    (kh, kw), (sh, sw), (dh, dw) = pair(kernel), pair(stride), pair(dilation)
    return [pixels for row in taps(a, 2, kh, sh, dh) for pixels in taps(row, 3, kw, sw, dw)]


@op
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Array:
    """Convolution, as in `conv2d_loops`, in the dtype in which x and weight meet."""
    x, weight = promote(x, weight)
    out = channels_last(conv_shape(x, weight, bias, stride, padding, dilation, groups), x.dtype)
    out[...] = 0 if bias is None else bias[:, None, None]
    table = out.transpose(0, 2, 3, 1)
    for images in chunks(len(x), 2 * out[:1].nbytes):
        grid = tap_grid(pad(x[images], padding), weight.shape[2:], stride, dilation)
        for (i, j), pixels in zip(np.ndindex(*weight.shape[2:]), grid, strict=True):
            for g in range(groups):
                ins, outs = part(x, g, groups), part(out, g, groups)
                table[images, ..., outs] += pixels[:, ins].transpose(0, 2, 3, 1) @ weight[outs, :, i, j].T
    return out


def part(a: Array, g: int, groups: int) -> slice:
    size = a.shape[1] // groups
    return slice(g * size, g * size + size)


# And back.


def taps(a: Array, axis: int, kernel: int, stride: int = 1, dilation: int = 1) -> list[Array]:
    """A view of `a` for each tap of a kernel that moves along `axis`: what it has under it by place."""
    many = conv_output_size(a.shape[axis], kernel, stride, 0, dilation)
    views = []
    for tap in range(kernel):
        index = [slice(None)] * a.ndim
        first = tap * dilation
        index[axis] = slice(first, first + many * stride - stride + 1, stride)
        views.append(a[tuple(index)])
    return views


def col2im(
    columns: Array, shape: Shape, kernel: Pair, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1
) -> Array:
    """im2col the other way: each number is added to the pixel of (N, C, H, W) = `shape` it came from."""
    ph, pw = pair(padding)
    n, c, h, w = shape
    bordered = np.zeros((n, c, h + 2 * ph, w + 2 * pw), columns.dtype)
    grid = tap_grid(bordered, kernel, stride, dilation)
    seen = columns.reshape(*grid[0].transpose(0, 2, 3, 1).shape[:3], len(grid), c)
    for number, pixels in enumerate(grid):
        pixels += np.moveaxis(seen[:, :, :, number], -1, 1)
    return crop(bordered, padding)


def crop(padded: Array, padding: Pair) -> Array:
    """A view without the border. Given."""
    ph, pw = pair(padding)
    return padded[:, :, ph : padded.shape[2] - ph, pw : padded.shape[3] - pw]


@conv2d.gradient
def conv2d_back(
    grad: Array,
    x: Array,
    weight: Array,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    needs_input_grad: tuple[bool, ...],
) -> tuple[Array | None, ...]:
    """The gradients of x, weight and bias; None in place of one that is not wanted or was not given."""
    wants_x, wants_weight, wants_bias = (*needs_input_grad, False)[:3]
    grad_x = channels_last(x.shape, grad.dtype) if wants_x else None
    grad_weight = np.zeros(weight.shape, grad.dtype) if wants_weight else None
    for images in chunks(len(x), 2 * grad[:1].nbytes):
        padded = pad(x[images], padding)
        back = np.zeros(padded.shape if wants_x else padded[:, :0].shape, grad.dtype, order="F")
        grids = [tap_grid(a, weight.shape[2:], stride, dilation) for a in (padded, back)]
        for (i, j), pixels, share in zip(np.ndindex(*weight.shape[2:]), *grids, strict=True):
            for g in range(groups):
                ins, outs = part(x, g, groups), part(grad, g, groups)
                rows = as_rows(grad[images, outs].transpose(0, 2, 3, 1))
                if grad_weight is not None:
                    grad_weight[outs, :, i, j] += rows.T @ as_rows(pixels[:, ins].transpose(0, 2, 3, 1))
                if grad_x is not None:
                    at = share[:, ins].transpose(0, 2, 3, 1)
                    at += (rows @ weight[outs, :, i, j]).reshape(at.shape)
        if grad_x is not None:
            grad_x[images] = crop(back, padding)
    return grad_x, grad_weight, grad.sum(axis=(0, 2, 3)) if wants_bias else None


def chunks(count: int, each: int) -> Iterator[slice]:
    """Slices through `count` things of `each` bytes: as many at a time as fit into CACHE, one at least."""
    # kata 07.8: no slice ends behind the last.
    many = max(1, CACHE // max(each, 1))
    return (slice(i, min(i + many, count)) for i in range(0, count, many))


# Pooling: along the columns, then along the rows of what that gives.


def pool_shape(x: Array, kernel: Pair, stride: Pair | None, padding: Pair) -> Shape:
    """The shape of a pooling's result; ValueError if its arguments do not fit, naming them. Given."""
    if x.ndim != 4:
        raise ValueError(f"images of shape {x.shape} need 4 axes")
    if any(2 * p > k for p, k in zip(pair(padding), pair(kernel), strict=True)):
        raise ValueError(f"a padding of {padding} is more than half of the kernel, {kernel}")
    sizes = zip(x.shape[2:], pair(kernel), pair(stride or kernel), pair(padding), strict=True)
    return (*x.shape[:2], *(conv_output_size(*numbers) for numbers in sizes))


@op
def max_pool2d(x: Array, *, kernel: Pair, stride: Pair | None = None, padding: Pair = 0) -> Array:
    """The largest pixel under the kernel, at each of its places, channel by channel; nan if there is one."""
    out = channels_last(pool_shape(x, kernel, stride, padding), x.dtype)
    first, *others = tap_grid(pad(x, padding, lowest(x.dtype)), kernel, stride or kernel)
    out[...] = first
    for pixels in others:
        np.maximum(out, pixels, out=out)
    return out


def lowest(dtype: np.dtype[Any]) -> Any:
    """Nothing of this dtype is smaller. Given."""
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min if dtype.kind in "iu" else False


@max_pool2d.gradient
def max_pool2d_back(
    grad: Array, x: Array, out: Array, kernel: Pair, stride: Pair | None, padding: Pair
) -> Array:
    """The gradient of x: each place's goes to its largest pixel, of several to the first, row by row."""
    padded = pad(x, padding, lowest(x.dtype))
    back = np.zeros_like(padded, grad.dtype)
    free = np.ones(out.shape, bool)
    grids = [tap_grid(a, kernel, stride or kernel) for a in (padded, back)]
    for pixels, share in zip(*grids, strict=True):
        wins = free & (pixels == out)
        share += grad * wins
        free &= ~wins
    return crop(back, padding)


@op
def avg_pool2d(x: Array, *, kernel: Pair, stride: Pair | None = None, padding: Pair = 0) -> Array:
    """The mean under the kernel, at each of its places, channel by channel, in floats."""
    x = floating(x)
    out = channels_last(pool_shape(x, kernel, stride, padding), x.dtype)
    out[...] = 0
    grid = tap_grid(pad(x, padding), kernel, stride or kernel)
    for pixels in grid:
        out += pixels
    out /= len(grid)
    return out


@avg_pool2d.gradient
def avg_pool2d_back(
    grad: Array, input_shapes: tuple[Shape], kernel: Pair, stride: Pair | None, padding: Pair
) -> Array:
    """The gradient of x: each place's goes to all its pixels in equal shares."""
    ph, pw = pair(padding)
    n, c, h, w = input_shapes[0]
    back = np.zeros((n, c, h + 2 * ph, w + 2 * pw), grad.dtype)
    grid = tap_grid(back, kernel, stride or kernel)
    for pixels in grid:
        pixels += grad / len(grid)
    return crop(back, padding)


# Batch norm, on a table with a row for each pixel and a column for each channel.


@op(saves=["mean", "inverse_std"])
def batch_norm(
    x: Array,
    weight: Array,
    bias: Array,
    *,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Each channel of (N, C, ...) shifted and scaled to mean 0 and variance 1; that times weight, plus bias.

    In training, by the mean and variance of the batch; and `running_mean` and `running_var`, if given, move
    towards these by `momentum`, in place, with the variance divided by n - 1. Else by the running ones, which
    must be given then. `eps` is added to the variance before its root is taken.

    ValueError if shapes do not fit, naming them, or if in training a channel has fewer than two numbers.
    """
    # kata 07.11: `in_chunks` gives a few rows at a time, which stay in the cache from one step to the next.
    x = floating(x)
    if x.ndim < 2 or weight.shape != x.shape[1:2] or bias.shape != x.shape[1:2]:
        raise ValueError(f"shapes do not fit: input {x.shape}, weight {weight.shape}, bias {bias.shape}")
    rows = pixel_rows(x)
    if training:
        if len(rows) < 2:
            raise ValueError(f"an input of shape {x.shape} has no variance: {len(rows)} numbers a channel")
        mean, var = mean_and_var(rows)
        if running_mean is not None and running_var is not None:
            running_mean += momentum * (mean - running_mean)
            running_var += momentum * (var * (len(rows) / (len(rows) - 1)) - running_var)
            increment_version(running_mean)
            increment_version(running_var)
    elif running_mean is None or running_var is None:
        raise ValueError("batch_norm that is not in training needs a running mean and variance")
    else:
        mean, var = running_mean.astype(np.float64), running_var.astype(np.float64)
    inverse_std = 1 / np.sqrt(var + eps)
    out = np.empty(rows.shape, x.dtype)
    for part, some, shift, scale, offset in in_chunks((out, rows), (mean, weight * inverse_std, bias)):
        np.subtract(some, shift, out=part)
        part *= scale
        part += offset
    return as_images(out, x.shape), mean, inverse_std


def pixel_rows(x: Array) -> Array:
    """(N, C, ...) as a table (pixels, C): a view where x is channels-last. Given."""
    return as_rows(np.moveaxis(x, 1, -1))


def as_images(rows: Array, shape: Shape) -> Array:
    """A table (pixels, C) as images of `shape` (N, C, ...). Given."""
    return np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def in_chunks(tables: Sequence[Array], vectors: Sequence[Array] = ()) -> Iterator[list[Array]]:
    """A few rows of each table (rows, C) at a time; and with them each vector (C,), repeated for every row.

    numpy adds a vector to a table row by row, which for short rows takes three times as long as adding
    tables. Given.
    """
    first = tables[0]
    slices = list(chunks(len(first), 4 * first[:1].nbytes))
    longest = slices[0].stop if slices else 0
    repeated = [np.tile(vector.astype(first.dtype), (longest, 1)) for vector in vectors]
    for some in slices:
        yield [t[some] for t in tables] + [r[: some.stop - some.start] for r in repeated]


def column_sums(rows: Array) -> Array:
    """The sum of each column, in float64. As a product, which BLAS does several times faster. Given."""
    return (np.ones(len(rows), rows.dtype) @ rows).astype(np.float64)


def mean_and_var(rows: Array) -> tuple[Array, Array]:
    """Mean and variance (divided by n) of each column of (n, C), in float64.

    The variance of all is the mean of the chunks' variances plus the variance of their means.
    """
    sizes, means, variances = [], [], []
    for some in chunks(len(rows), 4 * rows[:1].nbytes):
        sizes.append(some.stop - some.start)
        means.append(rows[some].mean(axis=0, dtype=np.float64))
        off = rows[some] - means[-1].astype(rows.dtype)
        variances.append((off * off).mean(axis=0, dtype=np.float64))
    share = np.array(sizes)[:, None] / len(rows)
    mean = (share * means).sum(axis=0)
    return mean, (share * (variances + (np.array(means) - mean) ** 2)).sum(axis=0)


@batch_norm.gradient
def batch_norm_back(
    grad: Array,
    x: Array,
    weight: Array,
    mean: Array,
    inverse_std: Array,
    training: bool,
    needs_input_grad: tuple[bool, ...],
) -> tuple[Array | None, ...]:  # stub: (grad: Array)
    """The gradients of x, weight and bias; None for an x that wants none."""
    # kata 07.11: in training, mean and variance depend on x, too.
    rows, grads = pixel_rows(floating(x)), pixel_rows(grad)
    grad_weight, grad_bias = np.zeros((2, rows.shape[1]))
    for some, slope, shift in in_chunks((rows, grads), [mean]):
        grad_bias += column_sums(slope)
        off = some - shift
        off *= slope
        grad_weight += column_sums(off) * inverse_std
    grad_x = None
    if needs_input_grad[0]:
        scale = weight * inverse_std
        # x gets scale * (grad - mean(grad) - normalised * mean(grad * normalised)); the means are 0 in use.
        n = len(rows) if training else np.inf
        tilt, level = -scale * inverse_std * grad_weight / n, -scale * grad_bias / n
        out = np.empty(rows.shape, grad.dtype)
        vectors = scale, mean, tilt, level
        for part, some, slope, by, shift, along, up in in_chunks((out, rows, grads), vectors):
            np.subtract(some, shift, out=part)
            part *= along
            part += up
            part += slope * by
        grad_x = as_images(out, x.shape)
    return grad_x, grad_weight.astype(grad.dtype), grad_bias.astype(grad.dtype)


# Layers.


class Conv2d(Module):
    """conv2d with kernels of its own.

    Both start uniform on [-b, b) with b = 1/sqrt(what a kernel sees), as in PyTorch.

    Attributes:
        weight: (out_channels, in_channels / groups, KH, KW), float32.
        bias: (out_channels,), float32; or None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        rng: np.random.Generator,
    ) -> None:
        # kata 07.12: like Linear; how many numbers does a kernel multiply?
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"{in_channels} to {out_channels} channels do not divide into {groups} groups")
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        shape = out_channels, in_channels // groups, *pair(kernel_size)
        bound = max(math.prod(shape[1:]), 1) ** -0.5

        def draw(*shape: int) -> Parameter:
            values = rng.random(shape, np.float32)
            values -= 0.5
            values *= 2 * bound
            return Parameter(values)

        self.weight = draw(*shape)
        self.bias = draw(out_channels) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        # kata 07.12: one operation.
        return conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )

    def flops(self, inputs: tuple[Any, ...], out: Any) -> int:
        # kata 07.12: a multiplication and an addition for each number under the kernel; the bias uncounted.
        return int(2 * out.size * math.prod(self.weight.shape[1:]))

    def extra_repr(self) -> str:
        outputs, inputs, *kernel = self.weight.shape
        text = f"{inputs * self.groups}, {outputs}, kernel_size={tuple(kernel)}, stride={pair(self.stride)}"
        for name, plain in (("padding", 0), ("dilation", 1), ("groups", 1)):
            value = getattr(self, name)
            text += "" if value in (plain, (plain, plain)) else f", {name}={value}"
        return text if self.bias is not None else text + ", bias=False"


class MaxPool2d(Module):
    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        # kata 07.12: one operation.
        return max_pool2d(x, kernel=self.kernel_size, stride=self.stride, padding=self.padding)

    def extra_repr(self) -> str:
        stride = self.stride or self.kernel_size
        return f"kernel_size={self.kernel_size}, stride={stride}, padding={self.padding}"


class AvgPool2d(Module):
    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        # kata 07.12: one operation.
        return avg_pool2d(x, kernel=self.kernel_size, stride=self.stride, padding=self.padding)

    def extra_repr(self) -> str:
        stride = self.stride or self.kernel_size
        return f"kernel_size={self.kernel_size}, stride={stride}, padding={self.padding}"


class GlobalAvgPool(Module):
    """(N, C, H, W) to (N, C): the mean of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        # kata 07.12: of kata 02.
        return x.mean((2, 3))


class Flatten(Module):
    """(N, ...) to (N, all the rest), channel by channel, row by row."""

    def forward(self, x: Tensor) -> Tensor:
        # kata 07.12: -1 would not do where there is nothing.
        return x.reshape(len(x), math.prod(x.shape[1:]))


class BatchNorm2d(Module):
    """batch_norm with weight, bias, and running mean and variance for when it is used.

    Attributes:
        weight, bias: (num_features,), 1 and 0 at the start.
        running_mean, running_var: likewise 0 and 1; Buffers, float32.
        num_batches_tracked: how many batches it was trained on; a Buffer, int64, 0-d.
        momentum: how far the running ones move towards a batch's; None for 1 / num_batches_tracked, the
            plain average of all batches so far.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1) -> None:
        # kata 07.12: two Parameters, three Buffers, in float32.
        self.eps, self.momentum = eps, momentum
        self.weight = Parameter(np.ones(num_features, np.float32))
        self.bias = Parameter(np.zeros(num_features, np.float32))
        self.running_mean = Buffer(np.zeros(num_features, np.float32))
        self.running_var = Buffer(np.ones(num_features, np.float32))
        self.num_batches_tracked = Buffer(np.array(0))

    def forward(self, x: Tensor) -> Tensor:
        # kata 07.12: in training, count the batch first; in place, as always.
        if x.ndim != 4:
            raise ValueError(f"BatchNorm2d takes images (N, C, H, W), not shape {x.shape}")
        momentum = self.momentum
        if self.training:
            self.num_batches_tracked.data += 1
            increment_version(self.num_batches_tracked.data)
            momentum = 1 / self.num_batches_tracked.item() if momentum is None else momentum
        return batch_norm(
            x,
            self.weight,
            self.bias,
            running_mean=self.running_mean.data,
            running_var=self.running_var.data,
            training=self.training,
            momentum=momentum,
            eps=self.eps,
        )

    def extra_repr(self) -> str:
        return f"{self.weight.size}, eps={self.eps}, momentum={self.momentum}"


# Networks.


class LeNet(Sequential):
    """For images of 28 x 28: two convolutions with pooling, then three Linear layers (LeCun, 1998)."""

    def __init__(self, classes: int = 10, in_channels: int = 1, *, rng: np.random.Generator) -> None:
        # kata 07.13: 6 and 16 kernels of 5 x 5; the first with padding 2. Then 120, 84 and `classes`.
        super().__init__(
            Conv2d(in_channels, 6, 5, padding=2, rng=rng),
            ReLU(),
            MaxPool2d(2),
            Conv2d(6, 16, 5, rng=rng),
            ReLU(),
            MaxPool2d(2),
            Flatten(),
            Linear(16 * 5 * 5, 120, rng=rng),
            ReLU(),
            Linear(120, 84, rng=rng),
            ReLU(),
            Linear(84, classes, rng=rng),
        )


def conv_norm(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, *, rng: np.random.Generator
) -> list[Module]:
    """A convolution that keeps rows and columns (but for the stride), and its batch norm.

    No bias: the batch norm would take it away with the mean.
    """
    # kata 07.13: which padding keeps the size, if the kernel is odd?
    padding = kernel // 2
    convolution = Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False, rng=rng)
    return [convolution, BatchNorm2d(out_channels)]


class SmallVGG(Sequential):
    """Two 3 x 3 convolutions with batch norm and ReLU, then pooling: three times, each twice as wide.

    For images of any size from 4 x 4; the last pooling is over all that is left (Simonyan, 2014).
    """

    def __init__(
        self, classes: int = 10, in_channels: int = 3, width: int = 32, *, rng: np.random.Generator
    ) -> None:
        # kata 07.13: MaxPool2d(2) twice, then GlobalAvgPool, and a Linear.
        super().__init__()
        for outputs in (width, 2 * width, 4 * width):
            for inputs in (in_channels, outputs):
                for layer in (*conv_norm(inputs, outputs, rng=rng), ReLU(inplace=True)):
                    self.append(layer)
            self.append(MaxPool2d(2) if outputs < 4 * width else GlobalAvgPool())
            in_channels = outputs
        self.append(Linear(4 * width, classes, rng=rng))


class ResidualBlock(Module):
    """What two convolutions change in their input, added to it (He, 2015).

    Where the shape changes, a 1 x 1 convolution with batch norm takes the input along.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, *, rng: np.random.Generator
    ) -> None:
        # kata 07.13: the first convolution has the stride. `shortcut` is None where the shape stays.
        self.main = Sequential(
            *conv_norm(in_channels, out_channels, 3, stride, rng=rng),
            ReLU(inplace=True),
            *conv_norm(out_channels, out_channels, rng=rng),
        )
        self.shortcut = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = Sequential(*conv_norm(in_channels, out_channels, 1, stride, rng=rng))

    def forward(self, x: Tensor) -> Tensor:
        # kata 07.13: the sum, then relu.
        return relu_(self.main(x) + (x if self.shortcut is None else self.shortcut(x)))


class SmallResNet(Sequential):
    """A 3 x 3 convolution, then three residual blocks; the last two halve the size and double the width."""

    def __init__(
        self, classes: int = 10, in_channels: int = 3, width: int = 16, *, rng: np.random.Generator
    ) -> None:
        # kata 07.13: batch norm and ReLU after the first convolution; at the end GlobalAvgPool and Linear.
        super().__init__(
            *conv_norm(in_channels, width, rng=rng),
            ReLU(inplace=True),
            ResidualBlock(width, width, rng=rng),
            ResidualBlock(width, 2 * width, stride=2, rng=rng),
            ResidualBlock(2 * width, 4 * width, stride=2, rng=rng),
            GlobalAvgPool(),
            Linear(4 * width, classes, rng=rng),
        )
