"""Kata 07 · Spatial: convolution, pooling and batch norm, for images.

Images are (N, C, H, W): which image, which channel, row, column. In memory they lie *channels-last*: all
channels of a pixel side by side, then the next pixel. So what a kernel looks at is copied in long runs, the
matrix product that does the work reads rows, and everything here gives its result in that order, whatever
the order of what it is given. Shapes stay as they are; only strides tell.

A stride, padding, dilation or kernel size is a number, or a pair of them for rows and columns.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tinytorch.activations import ReLU, relu_
from tinytorch.layers import Buffer, Linear, Module, Parameter, as_rows
from tinytorch.networks import Sequential
from tinytorch.tensor import Array, Shape, Tensor, as_strided, floating, increment_version, op, promote

__all__ = [
    "AvgPool2d", "BatchNorm2d", "Conv2d", "Flatten", "GlobalAvgPool", "LeNet", "MaxPool2d", "ResidualBlock",
    "SmallResNet", "SmallVGG", "avg_pool2d", "avg_pool2d_back", "batch_norm", "batch_norm_back",
    "channels_last", "chunks", "col2im", "conv2d", "conv2d_back", "conv2d_loops", "conv_norm",
    "conv_output_size", "conv_shape", "crop", "im2col", "max_pool2d", "max_pool2d_back", "pad", "pair",
    "pool_shape", "taps", "windows",
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
    if pair(padding) == (0, 0) and x.transpose(0, 2, 3, 1).flags.c_contiguous:
        return x
    padded = bordered(x.shape, padding, x.dtype, value)
    crop(padded, padding)[...] = x
    return padded


def bordered(shape: Shape, padding: Pair, dtype: DTypeLike, value: float = 0) -> Array:
    """A new array for images of `shape` and a border, channels-last in memory; `value` everywhere."""
    n, c, h, w = shape
    ph, pw = pair(padding)
    padded = channels_last((n, c, h + 2 * ph, w + 2 * pw), dtype)
    padded[...] = value
    return padded


def crop(padded: Array, padding: Pair) -> Array:
    """A view without the border."""
    ph, pw = pair(padding)
    return padded[:, :, ph : padded.shape[2] - ph, pw : padded.shape[3] - pw]


def conv_shape(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
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
    return len(x), outputs, *places(x.shape, weight.shape[2:], stride, padding, dilation)


def places(shape: Shape, kernel: Any, stride: Pair, padding: Pair, dilation: Pair) -> tuple[int, int]:
    """How many places a kernel has down and across images of `shape` (N, C, H, W)."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = map(pair, (kernel, stride, padding, dilation))
    return conv_output_size(shape[2], kh, sh, ph, dh), conv_output_size(shape[3], kw, sw, pw, dw)


def pixel_rows(x: Array) -> Array:
    """(N, C, ...) as a table (pixels, C): a view where x is channels-last."""
    return as_rows(np.moveaxis(x, 1, -1))


# Convolution, first as it is defined.


def conv_output_size(size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """In how many places a kernel of `kernel` taps, `dilation` apart, fits on `size` pixels and the border.

    The border is `padding` pixels on each side, and the kernel moves by `stride`. ValueError, which names
    size and kernel (or its reach), if there is no place; and, which names that number, if a kernel, stride or
    dilation is less than 1 or a padding than 0.
    """
    # TODO 07.1: how far does the kernel reach, and how far can it move from its first place?
    raise NotImplementedError("kata 07.1: conv_output_size")


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
    # TODO 07.2: seven loops, of which np.ndindex can make two.
    raise NotImplementedError("kata 07.2: conv2d_loops")


# Then as one product of matrices.


def windows(x: Array, kernel: Pair, stride: Pair = 1, dilation: Pair = 1) -> Array:
    """What the kernel sees at each of its places: a read-only view (N, C, OH, OW, KH, KW) of (N, C, H, W)."""
    # TODO 07.3: nothing is copied; how many bytes is it from one place to the next, and from tap to tap?
    raise NotImplementedError("kata 07.3: windows")


def im2col(x: Array, kernel: Pair, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1) -> Array:
    """A row for each place of the kernel, with all that it sees there: (N * OH * OW, KH * KW * C).

    A row goes through the kernel row by row, and has all channels of a pixel side by side. The rows may be a
    view of `x` where nothing has to be moved for them (a kernel of 1 x 1).
    """
    # TODO 07.4: put the axes of `windows` in order, and let reshape copy.
    raise NotImplementedError("kata 07.4: im2col")


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
    """Convolution, as in `conv2d_loops`, in the dtype in which x and weight meet.

    ValueError if shapes do not fit, naming them.
    """
    # TODO 07.5: im2col and one product, for each group. From 07.8 on, some images or rows at a time.
    raise NotImplementedError("kata 07.5: conv2d")


def bands(
    x: Array, kernel: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Iterator[tuple[int, slice, slice, Array]]:
    """im2col of `x`, piece by piece: number of the group, which images, which rows of the result, columns.

    A piece is as many images as fit into the cache, or of one that does not fit, as many rows. Each is
    written over the one before: new arrays of this size would come from the system, page by page, each time.
    """
    # TODO 07.8: `chunks` of images; and if you like, of each the `chunks` of rows.
    raise NotImplementedError("kata 07.8: bands")


def as_matrices(weight: Array, groups: int) -> Array:
    """Kernels (O, C / groups, KH, KW) as a matrix for each group: (G, KH * KW * C / groups, O / groups)."""
    # TODO 07.5: in the order of im2col's rows.
    raise NotImplementedError("kata 07.5: as_matrices")


def split(images: Array, groups: int) -> list[slice]:
    """The channels of each group. Given."""
    size = images.shape[1] // groups
    return [slice(g * size, (g + 1) * size) for g in range(groups)]


# And back.


def taps(a: Array, axis: int, kernel: int, stride: int = 1, dilation: int = 1) -> list[Array]:
    """A view of `a` for each tap of a kernel that moves along `axis`: what it has under it, place by place.

    Of [0, 1, 2, 3, 4, 5], a kernel of 3 with stride 2 has [0, 2] under its first tap, then [1, 3], [2, 4].
    """
    # TODO 07.6: slices with a step; where do they end?
    raise NotImplementedError("kata 07.6: taps")


def col2im(
    columns: Array, shape: Shape, kernel: Pair, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1
) -> Array:
    """im2col the other way: each number is added to that pixel of (N, C, H, W) = `shape` it would come from.

    What would come from the border is dropped. The columns may have their last axis in two, (KH * KW, C).
    """
    # TODO 07.6: a pixel is in many rows, but under one tap of the kernel all pixels are different.
    raise NotImplementedError("kata 07.6: col2im")


@conv2d.gradient
def conv2d_back(grad: Array) -> tuple[Array | None, ...]:
    """The gradients of x, weight and bias; None in place of one that is not wanted or was not given."""
    # TODO 07.7: the rule of `affine`, for the rows of im2col; these are not kept but made anew.
    raise NotImplementedError("kata 07.7: conv2d_back")


def grad_of_kernels(
    grad: Array, x: Array, shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    """What each number under a kernel was multiplied with, times `grad`, added up over all places."""
    # TODO 07.7: the rows again, turned on their side.
    raise NotImplementedError("kata 07.7: grad_of_kernels")


def grad_of_images(
    grad: Array, shape: Shape, weight: Array, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    """Each place's `grad`, times the kernels, added to the pixels that were under them."""
    # TODO 07.7: a product, then col2im.
    raise NotImplementedError("kata 07.7: grad_of_images")


def from_rows_of_grad(
    grad: Array, x: Array, weight: Array, border: tuple[int, int], dilation: Pair, groups: int
) -> tuple[Array, Array]:
    """Both gradients where the stride is 1, from the rows of im2col of `grad` in its border.

    There a pixel sees all places that saw it, from the other side. So the gradient of the images is a
    convolution of `grad` by the kernels turned round, and pixels times the same rows are that of the kernels.
    Given, for a `conv2d_back` that is a third faster.
    """
    kernels = turned(weight, groups)
    matrices, ins = as_matrices(kernels, groups), split(x, groups)
    grad_x, total = channels_last(x.shape, grad.dtype), np.zeros(matrices.shape, grad.dtype)
    for g, images, rows, columns in bands(grad, weight.shape[2:], 1, border, dilation, groups):
        np.matmul(columns, matrices[g], out=pixel_rows(grad_x[images, ins[g], rows]))
        total[g] += columns.T @ pixel_rows(x[images, ins[g], rows])
    return grad_x, turned(as_kernels(total, kernels.shape), groups)


def turned(weight: Array, groups: int) -> Array:
    """Kernels turned by half a turn, from results to images: (C, O / groups, KH, KW). Twice is not at all.
    Given."""
    outputs, inputs, kh, kw = weight.shape
    grouped = weight.reshape(groups, outputs // groups, inputs, kh, kw)[..., ::-1, ::-1]
    kernels: Array = grouped.transpose(0, 2, 1, 3, 4).reshape(groups * inputs, outputs // groups, kh, kw)
    return kernels


def as_kernels(matrices: Array, shape: Shape) -> Array:
    """`as_matrices` the other way: an array of `shape` (O, C / groups, KH, KW)."""
    # TODO 07.7: the axes back where they were.
    raise NotImplementedError("kata 07.7: as_kernels")


def chunks(count: int, each: int) -> Iterator[slice]:
    """Slices through `count` things of `each` bytes: as many at a time as fit into CACHE, one at least."""
    # TODO 07.8: no slice ends behind the last.
    raise NotImplementedError("kata 07.8: chunks")


# Pooling: along the columns, then along the rows of what that gives.


def pool_shape(x: Array, kernel: Pair, stride: Pair | None, padding: Pair) -> Shape:
    """The shape of a pooling's result; ValueError if its arguments do not fit, naming them. Given."""
    if x.ndim != 4:
        raise ValueError(f"images of shape {x.shape} need 4 axes")
    (kh, kw), (ph, pw) = pair(kernel), pair(padding)
    if 2 * ph > kh or 2 * pw > kw:
        raise ValueError(f"a padding of {padding} is more than half of the kernel, {kernel}")
    return *x.shape[:2], *places(x.shape, kernel, stride or kernel, padding, 1)


def in_the_cache(images: Array) -> Iterator[slice]:
    """Slices through images (N, C, H, W): so few at a time that they stay in the cache. Given."""
    return chunks(len(images), 2 * images[:1].nbytes)


@op
def max_pool2d(x: Array, *, kernel: Pair, stride: Pair | None = None, padding: Pair = 0) -> Array:
    """The largest pixel under the kernel, at each of its places, channel by channel; nan if there is one.

    Without `stride`, places do not overlap. The border is the `lowest` of its dtype. The result is no view of
    `x`, not even for a kernel of 1 x 1.
    """
    # TODO 07.9: the largest of a row of taps, then the largest of these rows.
    raise NotImplementedError("kata 07.9: max_pool2d")


def lowest(dtype: np.dtype[Any]) -> Any:
    """Nothing of this dtype is smaller. Given."""
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min if dtype.kind in "iu" else False


def pool_steps(combine: np.ufunc, padded: Array, kernel: Pair, stride: Pair | None) -> tuple[Array, Array]:
    """What `combine` makes of the pixels under each row of the kernel, and then of these rows."""
    # TODO 07.9: functools.reduce, over `taps`.
    raise NotImplementedError("kata 07.9: pool_steps")


@max_pool2d.gradient
def max_pool2d_back(grad: Array) -> Array:
    """The gradient of x: each place's goes to its largest pixel, of several to the first, row by row."""
    # TODO 07.9: back through the two steps. The first of the taps that equals the largest takes all.
    raise NotImplementedError("kata 07.9: max_pool2d_back")


def to_the_first(grad: Array, largest: Array, a: Array, axis: int, kernel: int, stride: int) -> Array:
    """`grad`, of the largest under a kernel along one axis, as the gradient of `a`."""
    # TODO 07.9: what a tap takes is gone for those after it, and the last takes what is left.
    raise NotImplementedError("kata 07.9: to_the_first")


@op
def avg_pool2d(x: Array, *, kernel: Pair, stride: Pair | None = None, padding: Pair = 0) -> Array:
    """The mean under the kernel, at each of its places, channel by channel, in floats.

    Without `stride`, places do not overlap. The border counts as zeros.
    """
    # TODO 07.10: like max_pool2d, with sums.
    raise NotImplementedError("kata 07.10: avg_pool2d")


@avg_pool2d.gradient
def avg_pool2d_back(grad: Array) -> Array:
    """The gradient of x: each place's goes to all its pixels in equal shares."""
    # TODO 07.10: no array is needed.
    raise NotImplementedError("kata 07.10: avg_pool2d_back")


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
    """Each channel of (N, C, ...) shifted and scaled to mean 0 and variance 1; that times weight, plus bias,
    both (C,).

    In training, by the mean and variance of the batch; and `running_mean` and `running_var`, if given, move
    towards these by `momentum`, in place, with the variance divided by n - 1. Else by the running ones, which
    must be given then. `eps` is added to the variance before its root is taken. The result has the dtype of
    x, whatever that of the others; float32 for integers.

    ValueError, naming the shapes, if they do not fit, or if in training a channel has fewer than two numbers.
    """
    # TODO 07.11: `in_chunks` gives a few rows at a time, which stay in the cache from one step to the next.
    raise NotImplementedError("kata 07.11: batch_norm")


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
    """Mean and variance (divided by n) of each column of (n, C), in float64."""
    # TODO 07.11: twice through the table; mean(a**2) - mean(a)**2 would cancel.
    raise NotImplementedError("kata 07.11: mean_and_var")


@batch_norm.gradient
def batch_norm_back(grad: Array) -> tuple[Array | None, ...]:
    """The gradients of x, weight and bias; None for an x that wants none."""
    # TODO 07.11: in training, mean and variance depend on x, too.
    raise NotImplementedError("kata 07.11: batch_norm_back")


# Layers.


class Conv2d(Module):
    """conv2d with kernels of its own.

    Both start uniform on [-b, b) with b = 1/sqrt(what a kernel sees), as in PyTorch. ValueError, naming all
    three, if channels do not divide into groups.

    Attributes:
        weight: (out_channels, in_channels / groups, KH, KW), float32.
        bias: (out_channels,), float32; or None.
        stride, padding, dilation, groups: as they were given.
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
        # TODO 07.12: like Linear; how many numbers does a kernel multiply?
        raise NotImplementedError("kata 07.12: Conv2d.__init__")

    def forward(self, x: Tensor) -> Tensor:
        # TODO 07.12: one operation.
        raise NotImplementedError("kata 07.12: Conv2d.forward")

    def flops(self, inputs: tuple[Any, ...], out: Any) -> int:
        # TODO 07.12: a multiplication and an addition for each number under the kernel; the bias uncounted.
        raise NotImplementedError("kata 07.12: Conv2d.flops")

    def extra_repr(self) -> str:
        outputs, inputs, *kernel = self.weight.shape
        text = f"{inputs * self.groups}, {outputs}, kernel_size={tuple(kernel)}, stride={pair(self.stride)}"
        for name, plain in (("padding", 0), ("dilation", 1), ("groups", 1)):
            value = getattr(self, name)
            text += "" if value in (plain, (plain, plain)) else f", {name}={value}"
        return text if self.bias is not None else text + ", bias=False"


class Pool2d(Module):
    """What MaxPool2d and AvgPool2d have in common. Given."""

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def extra_repr(self) -> str:
        stride = self.stride or self.kernel_size
        return f"kernel_size={self.kernel_size}, stride={stride}, padding={self.padding}"


class MaxPool2d(Pool2d):
    def forward(self, x: Tensor) -> Tensor:
        # TODO 07.12: one operation.
        raise NotImplementedError("kata 07.12: MaxPool2d.forward")


class AvgPool2d(Pool2d):
    def forward(self, x: Tensor) -> Tensor:
        # TODO 07.12: one operation.
        raise NotImplementedError("kata 07.12: AvgPool2d.forward")


class GlobalAvgPool(Module):
    """(N, C, H, W) to (N, C): the mean of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        # TODO 07.12: of kata 02.
        raise NotImplementedError("kata 07.12: GlobalAvgPool.forward")


class Flatten(Module):
    """(N, ...) to (N, all the rest), channel by channel, row by row."""

    def forward(self, x: Tensor) -> Tensor:
        # TODO 07.12: -1 would not do where there is nothing.
        raise NotImplementedError("kata 07.12: Flatten.forward")


class BatchNorm2d(Module):
    """batch_norm of images (N, C, H, W), with running mean and variance for when it is used.

    ValueError, naming the shape, for what has not four axes.

    Attributes:
        weight, bias: (num_features,), 1 and 0 at the start.
        running_mean, running_var: likewise 0 and 1; Buffers, float32.
        num_batches_tracked: how many batches it was trained on; a Buffer, int64, 0-d, whose writes are
            reported like those of the other two.
        momentum: how far the running ones move towards a batch's; None for 1 / num_batches_tracked, the
            plain average of all batches so far.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1) -> None:
        # TODO 07.12: two Parameters, three Buffers, in float32.
        raise NotImplementedError("kata 07.12: BatchNorm2d.__init__")

    def forward(self, x: Tensor) -> Tensor:
        # TODO 07.12: in training, count the batch first; in place, as always.
        raise NotImplementedError("kata 07.12: BatchNorm2d.forward")

    def extra_repr(self) -> str:
        return f"{self.weight.size}, eps={self.eps}, momentum={self.momentum}"


# Networks.


class LeNet(Sequential):
    """For images of 28 x 28: two convolutions, then three Linear layers (LeCun, 1998).

    A ReLU and a MaxPool2d(2) come after each convolution, and a ReLU between two Linear layers.
    """

    def __init__(self, classes: int = 10, in_channels: int = 1, *, rng: np.random.Generator) -> None:
        # TODO 07.13: 6 and 16 kernels of 5 x 5; the first with padding 2. Then 120, 84 and `classes`.
        raise NotImplementedError("kata 07.13: LeNet.__init__")


def conv_norm(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, *, rng: np.random.Generator
) -> list[Module]:
    """A convolution that keeps rows and columns (but for the stride), and its batch norm.

    No bias: the batch norm would take it away with the mean.
    """
    # TODO 07.13: which padding keeps the size, if the kernel is odd?
    raise NotImplementedError("kata 07.13: conv_norm")


class SmallVGG(Sequential):
    """Two 3 x 3 convolutions with batch norm and ReLU, then pooling: three times, each twice as wide.

    For images of any size from 4 x 4; the last pooling is over all that is left (Simonyan, 2014).
    """

    def __init__(
        self, classes: int = 10, in_channels: int = 3, width: int = 32, *, rng: np.random.Generator
    ) -> None:
        # TODO 07.13: MaxPool2d(2) twice, then GlobalAvgPool, and a Linear.
        raise NotImplementedError("kata 07.13: SmallVGG.__init__")


class ResidualBlock(Module):
    """What two convolutions change in their input, added to it (He, 2015).

    Where the shape changes, a 1 x 1 convolution with batch norm takes the input along.

    Attributes:
        main: a Sequential of the two convolutions with their batch norms, a ReLU between them.
        shortcut: a Sequential of the convolution that takes the input along and its batch norm; or None.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, *, rng: np.random.Generator
    ) -> None:
        # TODO 07.13: the first convolution has the stride. Without a change of shape there is no shortcut.
        raise NotImplementedError("kata 07.13: ResidualBlock.__init__")

    def forward(self, x: Tensor) -> Tensor:
        # TODO 07.13: the sum, then relu.
        raise NotImplementedError("kata 07.13: ResidualBlock.forward")


class SmallResNet(Sequential):
    """A 3 x 3 convolution, then three residual blocks; the last two halve the size and double the width."""

    def __init__(
        self, classes: int = 10, in_channels: int = 3, width: int = 16, *, rng: np.random.Generator
    ) -> None:
        # TODO 07.13: batch norm and ReLU after the first convolution; at the end GlobalAvgPool and Linear.
        raise NotImplementedError("kata 07.13: SmallResNet.__init__")
