"""Kata 07, in another manner: windows and tensordot, the index of the largest, the formulas as they are.

Images are (N, C, H, W): which image, which channel, row, column. In memory they lie *channels-last*: all
channels of a pixel side by side, then the next pixel. So what a kernel looks at is copied in long runs, the
matrix product that does the work reads rows, and everything here gives its result in that order, whatever
the order of what it is given. Shapes stay as they are; only strides tell.

A stride, padding, dilation or kernel size is a number, or a pair of them for rows and columns.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tinytorch.activations import ReLU, relu_
from tinytorch.layers import Buffer, Linear, Module, Parameter
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
    """In how many places a kernel of `kernel` taps, `dilation` apart, fits on `size` pixels and a border."""
    if kernel <= 0 or stride <= 0 or dilation <= 0 or padding <= -1:
        raise ValueError(f"kernel {kernel}, stride {stride}, padding {padding}, dilation {dilation}?")
    last_start = size + padding + padding - (kernel - 1) * dilation
    if last_start < 1:
        raise ValueError(f"kernel {kernel} with dilation {dilation} is larger than {size} + 2 * {padding}")
    return -(-last_start // stride)


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
    """Convolution by its definition: what `conv2d` is to give, but fast."""
    x, weight = promote(x, weight)
    n, outputs, rows, columns = conv_shape(x, weight, bias, stride, padding, dilation, groups)
    (sh, sw), (ph, pw), (dh, dw) = pair(stride), pair(padding), pair(dilation)
    bordered = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    out = np.zeros((n, outputs, rows, columns), x.dtype)
    for image in range(n):
        for o in range(outputs):
            first = o * groups // outputs * weight.shape[1]
            for i in range(rows):
                for j in range(columns):
                    for c in range(weight.shape[1]):
                        for a in range(weight.shape[2]):
                            for b in range(weight.shape[3]):
                                pixel = bordered[image, first + c, i * sh + a * dh, j * sw + b * dw]
                                out[image, o, i, j] += pixel * weight[o, c, a, b]
                    if bias is not None:
                        out[image, o, i, j] += bias[o]
    return out


# Then as one product of matrices.


def windows(x: Array, kernel: Pair, stride: Pair = 1, dilation: Pair = 1) -> Array:
    """What the kernel sees at each of its places: a read-only view (N, C, OH, OW, KH, KW) of (N, C, H, W)."""
    (kh, kw), (sh, sw), (dh, dw) = pair(kernel), pair(stride), pair(dilation)
    conv_output_size(x.shape[2], kh, sh, 0, dh), conv_output_size(x.shape[3], kw, sw, 0, dw)
    reach = dh * (kh - 1) + 1, dw * (kw - 1) + 1
    seen = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(2, 3))
    return seen[:, :, ::sh, ::sw, ::dh, ::dw]


def im2col(x: Array, kernel: Pair, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1) -> Array:
    """A row for each place of the kernel, with all that it sees there: (N * OH * OW, KH * KW * C)."""
    (ph, pw) = pair(padding)
    bordered = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    seen = np.moveaxis(windows(bordered, kernel, stride, dilation), 1, -1)
    n, rows, columns, kh, kw, channels = seen.shape
    return np.ascontiguousarray(seen).reshape(n * rows * columns, kh * kw * channels)


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
    n, outputs, rows, columns = conv_shape(x, weight, bias, stride, padding, dilation, groups)
    out = np.empty((n, rows, columns, outputs), x.dtype)
    for images in chunks(n, rows * columns * weight[:1].nbytes):
        seen = seen_by(x[images], weight.shape[2:], stride, padding, dilation)
        for ins, outs in split(x, out.transpose(0, 3, 1, 2), groups):
            out[images, :, :, outs] = np.tensordot(seen[:, ins], weight[outs], axes=((1, 4, 5), (1, 2, 3)))
    return (out if bias is None else np.add(out, bias, out=out)).transpose(0, 3, 1, 2)


def seen_by(x: Array, kernel: Any, stride: Pair, padding: Pair, dilation: Pair) -> Array:
    ph, pw = pair(padding)
    return windows(np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw))), kernel, stride, dilation)


def split(x: Array, out: Array, groups: int) -> list[tuple[slice, slice]]:
    c, o = x.shape[1] // groups, out.shape[1] // groups
    return [(slice(g * c, g * c + c), slice(g * o, g * o + o)) for g in range(groups)]


# And back.


def taps(a: Array, axis: int, kernel: int, stride: int = 1, dilation: int = 1) -> list[Array]:
    """A view of `a` for each tap of a kernel that moves along `axis`: what it has under it, place by place.

    Of [0, 1, 2, 3, 4, 5], a kernel of 3 with stride 2 has [0, 2] under its first tap, then [1, 3], [2, 4].
    """
    # kata 07.6: slices with a step; where do they end?
    end = (conv_output_size(a.shape[axis], kernel, stride, 0, dilation) - 1) * stride + 1
    a = a.swapaxes(0, axis)
    firsts = range(0, kernel * dilation, dilation)
    return [a[first : first + end : stride].swapaxes(0, axis) for first in firsts]


def col2im(
    columns: Array, shape: Shape, kernel: Pair, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1
) -> Array:
    """im2col the other way: each number is added to the pixel of (N, C, H, W) = `shape` it came from."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = map(pair, (kernel, stride, padding, dilation))
    n, channels, h, w = shape
    oh, ow = conv_output_size(h, kh, sh, ph, dh), conv_output_size(w, kw, sw, pw, dw)
    out = np.zeros((n, h + 2 * ph, w + 2 * pw, channels), columns.dtype)
    tall = columns.reshape(n, oh, ow, kh * kw, channels)
    for tap in range(kh * kw):
        top, left = tap // kw * dh, tap % kw * dw
        out[:, top : top + oh * sh : sh, left : left + ow * sw : sw][:, :oh, :ow] += tall[:, :, :, tap]
    return out[:, ph : ph + h, pw : pw + w].transpose(0, 3, 1, 2)


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
    kernel = weight.shape[2:]
    grad_x = np.zeros(x.shape, grad.dtype) if needs_input_grad[0] else None
    grad_weight = np.zeros(weight.shape, grad.dtype) if needs_input_grad[1] else None
    for images in chunks(len(x), grad.shape[2] * grad.shape[3] * weight[:1].nbytes):
        seen = seen_by(x[images], kernel, stride, padding, dilation)
        for ins, outs in split(x, grad, groups):
            part = grad[images, outs]
            if grad_weight is not None:
                grad_weight[outs] += np.tensordot(part, seen[:, ins], axes=((0, 2, 3), (0, 2, 3)))
            if grad_x is not None:
                columns = np.tensordot(part, weight[outs].transpose(0, 2, 3, 1), axes=(1, 0))
                shape = x[images, ins].shape
                grad_x[images, ins] = col2im(columns, shape, kernel, stride, padding, dilation)
    grad_bias = np.einsum("nohw->o", grad) if needs_input_grad[2:] == (True,) else None
    return grad_x, grad_weight, grad_bias


def chunks(count: int, each: int) -> list[slice]:
    """Slices through `count` things of `each` bytes: as many at a time as fit into CACHE, one at least."""
    many = 1
    while many < count and (many + 1) * each <= CACHE:
        many += 1
    return [slice(first, min(count, first + many)) for first in range(count) if first % many == 0]


# Pooling: along the columns, then along the rows of what that gives.


def pool_shape(x: Array, kernel: Pair, stride: Pair | None, padding: Pair) -> Shape:
    """The shape of a pooling's result; ValueError if its arguments do not fit, naming them. Given."""
    if x.ndim != 4:
        raise ValueError(f"images of shape {x.shape} need 4 axes")
    if any(2 * p > k for p, k in zip(pair(padding), pair(kernel), strict=True)):
        raise ValueError(f"a padding of {padding} is more than half of the kernel, {kernel}")
    sizes = zip(x.shape[2:], pair(kernel), pair(stride or kernel), pair(padding), strict=True)
    return (*x.shape[:2], *(conv_output_size(*numbers) for numbers in sizes))


@op(saves=["which"])
def max_pool2d(
    x: Array, *, kernel: Pair, stride: Pair | None = None, padding: Pair = 0
) -> tuple[Array, Array]:
    """The largest pixel under the kernel, at each of its places, channel by channel; nan if there is one.

    Beside it comes the number of its tap.
    """
    shape = pool_shape(x, kernel, stride, padding)
    out, which = channels_last(shape, x.dtype), channels_last(shape, np.uint8)
    for n in range(len(x)):
        seen = windows(pad(x[n : n + 1], padding, lowest(x.dtype)), kernel, stride or kernel)
        flat = seen.reshape(*seen.shape[:4], math.prod(seen.shape[4:]))
        which[n] = flat.argmax(axis=-1)[0]
        out[n] = np.take_along_axis(flat, which[n : n + 1, ..., None].astype(np.intp), axis=-1)[0, ..., 0]
    return out, which


def lowest(dtype: np.dtype[Any]) -> Any:
    """Nothing of this dtype is smaller. Given."""
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min if dtype.kind in "iu" else False


@max_pool2d.gradient
def max_pool2d_back(
    grad: Array, which: Array, input_shapes: Any, kernel: Pair, stride: Pair | None, padding: Pair
) -> Array:
    """The gradient of x: each place's goes to its largest pixel, of several to the first, row by row."""
    (kh, kw), (sh, sw), (ph, pw) = pair(kernel), pair(stride or kernel), pair(padding)
    n, c, h, w = input_shapes[0]
    bordered = np.zeros((n, h + 2 * ph, w + 2 * pw, c), grad.dtype).transpose(0, 3, 1, 2)
    for tap in range(kh * kw):
        pixels = taps(taps(bordered, 2, kh, sh)[tap // kw], 3, kw, sw)[tap % kw]
        pixels += grad * (which == tap)
    return crop(bordered, padding)


@op
def avg_pool2d(x: Array, *, kernel: Pair, stride: Pair | None = None, padding: Pair = 0) -> Array:
    """The mean under the kernel, at each of its places, channel by channel, in floats."""
    x = floating(x)
    out = channels_last(pool_shape(x, kernel, stride, padding), x.dtype)
    out[...] = windows(pad(x, padding), kernel, stride or kernel).mean(axis=(4, 5))
    return out


@avg_pool2d.gradient
def avg_pool2d_back(
    grad: Array, input_shapes: Any, kernel: Pair, stride: Pair | None, padding: Pair
) -> Array:
    """The gradient of x: each place's goes to all its pixels in equal shares."""
    n, c, h, w = input_shapes[0]
    size = math.prod(pair(kernel))
    share = np.moveaxis(grad, 1, -1)[:, :, :, None] / size
    columns = np.broadcast_to(share, (*share.shape[:3], size, c))
    return col2im(columns, (n, c, h, w), kernel, stride or kernel, padding)


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
    """Each channel of (N, C, ...) shifted and scaled to mean 0, variance 1; that times weight, plus bias."""
    x = floating(x)
    if x.ndim < 2 or not x.shape[1:2] == weight.shape == bias.shape:
        raise ValueError(f"input {x.shape} for weight {weight.shape} and bias {bias.shape}")
    others = (0, *range(2, x.ndim))
    n = x.size // max(x.shape[1], 1)
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("there is no running mean and variance")
        mean, var = running_mean.astype(x.dtype), running_var.astype(x.dtype)
    elif n < 2:
        raise ValueError(f"one number a channel has no variance: input {x.shape}")
    else:
        mean = x.mean(axis=others, dtype=np.float64).astype(x.dtype)
        var = ((x - along_channels(mean, x)) ** 2).mean(axis=others, dtype=np.float64).astype(x.dtype)
        if running_mean is not None and running_var is not None:
            running_mean[...] = (1 - momentum) * running_mean + momentum * mean
            running_var[...] = (1 - momentum) * running_var + momentum * var * n / (n - 1)
            increment_version(running_mean)
            increment_version(running_var)
    inverse_std = (var + x.dtype.type(eps)) ** x.dtype.type(-0.5)
    out = x - along_channels(mean, x)
    out *= along_channels(inverse_std * weight.astype(x.dtype), x)
    out += along_channels(bias.astype(x.dtype), x)
    table = np.ascontiguousarray(np.moveaxis(out, 1, -1))  # no copy of what lies channels-last
    return np.moveaxis(table, -1, 1), mean, inverse_std


def along_channels(vector: Array, x: Array) -> Array:
    return vector.reshape(-1, *[1] * (x.ndim - 2))


@batch_norm.gradient
def batch_norm_back(
    grad: Array,
    x: Array,
    weight: Array,
    mean: Array,
    inverse_std: Array,
    training: bool,
    needs_input_grad: tuple[bool, ...],
) -> tuple[Array | None, ...]:
    """The gradients of x, weight and bias; None for an x that wants none."""
    others = (0, *range(2, x.ndim))
    normalised = floating(x) - along_channels(mean, x)
    normalised *= along_channels(inverse_std, x)
    grad_bias = grad.sum(axis=others)
    grad_weight = (grad * normalised).sum(axis=others)
    if not needs_input_grad[0]:
        return None, grad_weight, grad_bias
    grad_x = grad
    if training:
        n = x.size // x.shape[1]
        normalised *= along_channels(grad_weight / n, x)
        grad_x = grad - normalised
        grad_x -= along_channels(grad_bias / n, x)
    return grad_x * along_channels(weight * inverse_std, x), grad_weight, grad_bias


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
