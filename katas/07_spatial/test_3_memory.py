"""Level 3: feature maps are memory enough; what im2col makes of them is nine times as much, for a moment.

Counted by tracemalloc in bytes, so the figures are the same on every machine. Each budget has a twin: a
naive version, written out here, that must not fit.
"""

import numpy as np
import pytest

from dojo.expect import expect
from dojo.measuring import Budget, check_memory_growth, kept_bytes, load_probes, peak_bytes, retained_bytes
from tinytorch.activations import ReLU
from tinytorch.autograd import is_grad_enabled
from tinytorch.layers import parameter_bytes
from tinytorch.networks import Sequential
from tinytorch.spatial import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    MaxPool2d,
    ResidualBlock,
    avg_pool2d,
    batch_norm,
    col2im,
    conv2d,
    im2col,
    max_pool2d,
    windows,
)
from tinytorch.tensor import Tensor, set_recorder

KIB, MIB = 1 << 10, 1 << 20
PROBES = {probe.name: probe for probe in load_probes(__file__).PROBES}

CONVOLVE = Budget(
    "conv2d 3x3 of 32 images",
    limit=3.8,
    reference=1.6,
    naive=10.1,
    unit="times the memory of its result, at the worst moment",
    naively="a version that lays out the columns of all images at once",
)
CONVOLVE_BACK = Budget(
    "the gradients of a convolution of 32 images",
    limit=6,
    reference=1.6,
    naive=18,
    unit="times the memory of the images, at the worst moment",
    naively="a version that lays out the columns of all images at once",
)
KEPT = Budget(
    "what the way back keeps of a convolution",
    limit=0.5,
    reference=0.0,
    naive=9,
    unit="times the memory of the images, beyond images and kernels",
    naively="a version that keeps the columns for the way back",
)
WINDOWS = Budget(
    "windows and taps of images of 1 MiB",
    limit=64,
    reference=1.9,
    naive=8650,
    unit="KiB",
    naively="a version that copies",
)
COLUMNS = Budget(
    "im2col",
    limit=1.7,
    reference=1.13,
    naive=2.0,
    unit="times the memory of its result, at the worst moment",
    naively="a version that copies twice, or works in float64",
)
IMAGES = Budget(
    "col2im",
    limit=0.6,
    reference=0.17,
    naive=1.17,
    unit="times the memory of the columns, at the worst moment",
    naively="a version that rearranges a copy of the columns",
)
POOL_KEPT = Budget(
    "what the way back keeps of max_pool2d",
    limit=3,
    reference=1.0,
    naive=4.0,
    unit="times the memory of its result, beyond the images",
    naively="a version that keeps a mask in floats, or the windows,",
)
AVERAGE_KEPT = Budget(
    "what the way back keeps of avg_pool2d",
    limit=0.5,
    reference=0.0,
    naive=1.0,
    unit="times the memory of the images",
    naively="a version that keeps the images",
)
POOL = Budget(
    "pooling 2x2",
    limit=9,
    reference=2.6,
    naive=20,
    unit="times the memory of its result, at the worst moment",
    naively="a version that copies the windows in float64",
)
OVERLAP = Budget(
    "pooling 3x3 with steps of 1",
    limit=6.5,
    reference=2.3,
    naive=10.2,
    unit="times the memory of its result, at the worst moment",
    naively="a version that copies the windows of all images",
)
POOL_BACK = Budget(
    "the gradient of pooling 2x2",
    limit=4.6,
    reference=1.85,
    naive=6.3,
    unit="times the memory of the images, at the worst moment",
    naively="a version that makes a mask of integers",
)
OVERLAP_BACK = Budget(
    "the gradient of pooling 3x3 with steps of 1",
    limit=8.7,
    reference=2.7,
    naive=9.7,
    unit="times the memory of the images, at the worst moment",
    naively="a version that copies the windows of all images",
)
NORM = Budget(
    "batch_norm",
    limit=5,
    reference=1.75,
    naive=9,
    unit="times the memory of the images, at the worst moment",
    naively="a version that goes to float64",
)
NORM_KEPT = Budget(
    "what the way back keeps of batch_norm",
    limit=0.5,
    reference=0.0,
    naive=1.0,
    unit="times the memory of the images, beyond the images",
    naively="a version that keeps the normalised images",
)
STAGES = Budget(
    "three stages of convolution, batch norm and ReLU, recorded",
    limit=7.5,
    reference=6.0,
    naive=9.0,
    unit="feature maps",
    naively="a version whose batch norm keeps the normalised images",
)
DRAW = Budget(
    "a new Conv2d",
    limit=2.5,
    reference=1.0,
    naive=3.0,
    unit="times the memory of its parameters, at the worst moment",
    naively="a version that draws float64 and converts",
)


def random(rng, *shape):
    return rng.random(shape, np.float32)


def images(rng, n=32, side=32, channels=16):
    """2 MiB unless told, channels-last in memory."""
    return random(rng, n, side, side, channels).transpose(0, 3, 1, 2)


def columns_of(x):
    """All columns at once, by numpy alone."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return seen.transpose(0, 2, 3, 4, 5, 1).reshape(-1, 9 * x.shape[1])


# 07.3 windows, 07.4 im2col, 07.6 col2im


def test_windows_copy_nothing(rng):
    x = random(rng, 4, 16, 64, 64)
    WINDOWS.check(peak_bytes(lambda: windows(x, 3)) / KIB)


def test_the_twin_that_copies_windows_is_caught(rng):
    x = random(rng, 4, 16, 64, 64)
    view = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    WINDOWS.catches(peak_bytes(lambda: view.copy()) / KIB)


def test_im2col_copies_once(rng):
    x = images(rng, 4)
    size = 9 * x.nbytes
    COLUMNS.check(peak_bytes(lambda: im2col(x, 3, padding=1)) / size)
    expect(kept_bytes(lambda: im2col(x, 3, padding=1)) / size, 1.0, atol=0.01)


def test_the_twin_that_copies_twice_is_caught(rng):
    x = images(rng, 4)
    COLUMNS.catches(peak_bytes(lambda: columns_of(x) + np.float32(0)) / (9 * x.nbytes))


def test_col2im_adds_up_in_place(rng):
    x = images(rng, 4)
    columns = columns_of(x)
    IMAGES.check(peak_bytes(lambda: col2im(columns, x.shape, 3, padding=1)) / columns.nbytes)


def test_the_twin_that_rearranges_the_columns_is_caught(rng):
    x = images(rng, 4)
    columns = columns_of(x)

    def rearranged():
        seen = columns.reshape(4, 32, 32, 3, 3, 16).transpose(0, 5, 3, 4, 1, 2).copy()
        padded = np.zeros((4, 16, 34, 34), np.float32)
        for i, j in np.ndindex(3, 3):
            padded[:, :, i : i + 32, j : j + 32] += seen[:, :, i, j]
        return padded[:, :, 1:-1, 1:-1]

    IMAGES.catches(peak_bytes(rearranged) / columns.nbytes)


# 07.8 conv2d and its rule, a chunk at a time


def test_the_columns_are_laid_out_for_a_few_images_at_a_time(rng):
    """All of them are nine times the images; no result needs more than those of one image or so."""
    x, weight, bias = images(rng), random(rng, 16, 16, 3, 3), random(rng, 16)
    CONVOLVE.check(peak_bytes(lambda: conv2d(x, weight, bias, padding=1)) / x.nbytes)


def test_the_twin_that_lays_out_all_columns_is_caught(rng):
    x, matrix = images(rng), random(rng, 144, 16)
    CONVOLVE.catches(peak_bytes(lambda: columns_of(x) @ matrix) / x.nbytes)


@pytest.mark.parametrize("padding", [1, 3])
def test_the_columns_of_the_way_back_are_laid_out_so_too(padding, rng):
    """With a border wider than the kernel reaches, a reference that goes back by im2col of `grad` cannot."""
    x, weight = images(rng), random(rng, 16, 16, 3, 3)
    out, back = conv2d.vjp(x, weight, padding=padding)
    CONVOLVE_BACK.check(peak_bytes(lambda: back(out)) / x.nbytes)


def test_the_twin_that_goes_back_with_all_columns_is_caught(rng):
    x, matrix = images(rng), random(rng, 144, 16)

    def back():
        columns = columns_of(x)
        grad = x.transpose(0, 2, 3, 1).reshape(-1, 16)
        return columns.T @ grad, grad @ matrix.T

    CONVOLVE_BACK.catches(peak_bytes(back) / x.nbytes)


def test_memory_grows_as_the_images():
    for name in ("conv2d 3x3 of (8, 16, n, n)", "conv2d 3x3 of (n, 32, 32, 32)"):
        probe = PROBES[name]
        check_memory_growth(probe)


def test_columns_are_not_kept_for_the_way_back(rng):
    x, weight, bias = images(rng), random(rng, 16, 16, 3, 3), random(rng, 16)
    KEPT.check(kept_bytes(lambda: conv2d.vjp(x, weight, bias, padding=1)[1]) / x.nbytes)


def test_the_twin_that_keeps_columns_is_caught(rng):
    x = images(rng)

    def there():
        columns = columns_of(x)
        return lambda grad: columns.T @ grad

    KEPT.catches(kept_bytes(there) / x.nbytes)


def way_back(op, inputs, wanted, **params):
    """The rule as the engine of kata 06 would call it, for inputs of which some want no gradient."""
    kept, tensors = [], [Tensor(a, need) for a, need in zip(inputs, wanted, strict=True)]
    note = lambda op, inputs, arrays, params, out: kept.append(op.keep(out.data, arrays, params))  # noqa: E731
    before = set_recorder(note)
    try:
        op(*tensors, **params)
    finally:
        set_recorder(before)
    return lambda grad: op.pull(grad, *kept[0])


def test_what_nobody_wants_is_not_there(rng):
    """A first layer's images are data, a frozen layer's kernels stay: None takes no memory."""
    x, weight, scale = images(rng, 2), random(rng, 4, 16, 3, 3), random(rng, 16)
    grad = images(rng, 2, 30, 4)
    assert way_back(conv2d, (x, weight, scale[:4]), (False, True, True))(grad)[0] is None
    assert way_back(conv2d, (x, weight, scale[:4]), (True, False, True))(grad)[1] is None
    assert way_back(conv2d, (x, weight, scale[:4]), (True, True, False))(grad)[2] is None
    assert way_back(batch_norm, (x, scale, scale), (False, True, True))(x)[0] is None


# 07.9, 07.10 pooling


def test_pooling_keeps_what_is_there_anyway(rng):
    """The images are what the layer before kept, the result is what the next one keeps."""
    x = images(rng)
    result = x.nbytes / 4
    POOL_KEPT.check(kept_bytes(lambda: max_pool2d.vjp(x, kernel=2)[1]) / result)
    AVERAGE_KEPT.check(kept_bytes(lambda: avg_pool2d.vjp(x + np.float32(1), kernel=2)[1]) / x.nbytes)


def test_the_twin_that_keeps_a_mask_of_floats_is_caught(rng):
    x = images(rng)

    def there():
        largest = x.reshape(32, 16, 16, 2, 16, 2).max(axis=(3, 5), keepdims=True)
        mask = (x.reshape(32, 16, 16, 2, 16, 2) == largest).astype(np.float32)
        return lambda grad: grad[:, :, :, None, :, None] * mask

    POOL_KEPT.catches(kept_bytes(there) / (x.nbytes / 4))
    AVERAGE_KEPT.catches(kept_bytes(lambda: x + np.float32(1)) / x.nbytes)


def test_pooling_needs_memory_for_its_result_and_a_few_images(rng):
    x = images(rng)
    for pool in (max_pool2d, avg_pool2d):
        POOL.check(peak_bytes(lambda pool=pool: pool(x, kernel=2)) / (x.nbytes / 4))


def test_the_twin_that_copies_windows_in_float64_is_caught(rng):
    x = images(rng)

    def pool():
        seen = np.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(2, 3))[:, :, ::2, ::2]
        flat = seen.reshape(*seen.shape[:4], 4)
        return np.sort(flat.astype(np.float64))[..., -1]

    POOL.catches(peak_bytes(pool) / (x.nbytes / 4))


def test_windows_that_overlap_are_not_copied_for_all_images_at_once(rng):
    x = images(rng)
    for pool in (max_pool2d, avg_pool2d):
        needed = peak_bytes(lambda pool=pool: pool(x, kernel=3, stride=1))
        OVERLAP.check(needed / pool(x, kernel=3, stride=1).data.nbytes)


def test_the_twin_that_copies_the_windows_of_all_images_is_caught(rng):
    x = images(rng)

    def pool():
        seen = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
        return seen.reshape(*seen.shape[:4], 9).max(axis=-1)

    OVERLAP.catches(peak_bytes(pool) / pool().nbytes)


def test_its_way_back_needs_memory_for_the_gradient_and_a_few_images(rng):
    x = images(rng)
    for pool in (max_pool2d, avg_pool2d):
        out, back = pool.vjp(x, kernel=2)
        POOL_BACK.check(peak_bytes(lambda back=back, out=out: back(out)) / x.nbytes)


def test_on_the_way_back_too_windows_that_overlap_are_not_copied_for_all_images_at_once(rng):
    x = images(rng)
    for pool in (max_pool2d, avg_pool2d):
        out, back = pool.vjp(x, kernel=3, stride=1)
        OVERLAP_BACK.check(peak_bytes(lambda back=back, out=out: back(out)) / x.nbytes)


def test_the_twin_that_goes_back_by_the_windows_of_all_images_is_caught(rng):
    x = images(rng)

    def back():
        seen = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
        which = seen.reshape(*seen.shape[:4], 9).argmax(axis=-1)
        return which, np.zeros_like(x)

    OVERLAP_BACK.catches(peak_bytes(back) / x.nbytes)


def test_the_twin_that_makes_a_mask_of_integers_is_caught(rng):
    x = images(rng)

    def back():
        seen = np.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(2, 3))[:, :, ::2, ::2].copy()
        mask = (seen == seen.max(axis=(4, 5), keepdims=True)).astype(np.int64)
        return seen, mask, (mask * seen[..., :1, :1]).transpose(0, 1, 2, 4, 3, 5).reshape(x.shape)

    POOL_BACK.catches(peak_bytes(back) / x.nbytes)


# 07.11 batch_norm


def test_batch_norm_needs_memory_for_its_result_and_a_few_rows(rng):
    x, weight, bias = images(rng), random(rng, 16), random(rng, 16)
    NORM.check(peak_bytes(lambda: batch_norm(x, weight, bias)) / x.nbytes)
    out, back = batch_norm.vjp(x, weight, bias)
    NORM.check(peak_bytes(lambda: back(out)) / x.nbytes)


def test_the_twin_that_goes_to_float64_is_caught(rng):
    def norm(x):
        x = x.astype(np.float64)
        off = x - x.mean(axis=(0, 2, 3), keepdims=True)
        squares = off**2
        return (off / np.sqrt(squares.mean(axis=(0, 2, 3), keepdims=True))).astype(np.float32)

    x = images(rng)
    NORM.catches(peak_bytes(lambda: norm(x)) / x.nbytes)


def test_batch_norm_keeps_its_input_and_two_numbers_a_channel(rng):
    x, weight, bias = images(rng), random(rng, 16), random(rng, 16)
    NORM_KEPT.check(kept_bytes(lambda: batch_norm.vjp(x, weight, bias)[1]) / x.nbytes)


def test_the_twin_that_keeps_the_normalised_images_is_caught(rng):
    x = images(rng)

    def there():
        normalised = x - x.mean(axis=(0, 2, 3), keepdims=True)
        return lambda grad: normalised * grad

    NORM_KEPT.catches(kept_bytes(there) / x.nbytes)


def stages(rng):
    layers = []
    for _ in range(3):
        layers += [Conv2d(16, 16, 3, padding=1, bias=False, rng=rng), BatchNorm2d(16), ReLU(inplace=True)]
    return Sequential(*layers)


def test_a_stage_keeps_two_feature_maps(rng):
    """Batch norm its input; ReLU its result, which is the input that the next convolution keeps."""
    assert is_grad_enabled()
    net, x = stages(rng), Tensor(images(rng))
    STAGES.check(kept_bytes(lambda: net(x)) / x.data.nbytes)
    expect(retained_bytes(lambda: net(x)) / KIB, 0.0, atol=64.0)


def test_the_twin_that_keeps_three_maps_a_stage_is_caught(rng):
    x = images(rng)
    STAGES.catches(kept_bytes(lambda: [x + np.float32(i) for i in range(9)]) / x.nbytes)


# 07.12 Layers


def test_kernels_are_drawn_in_float32(rng):
    layer = Conv2d(128, 128, 4, rng=rng)
    DRAW.check(peak_bytes(lambda: Conv2d(128, 128, 4, rng=rng)) / parameter_bytes(layer))


def test_the_twin_that_draws_float64_is_caught(rng):
    DRAW.catches(peak_bytes(lambda: rng.uniform(-1, 1, (128, 128, 4, 4)).astype(np.float32)) / MIB)


def test_flatten_copies_only_what_lies_in_another_order(rng):
    x = random(rng, 32, 16, 32, 32)
    assert np.shares_memory(Flatten()(Tensor(x)).data, x)


LAYERS = {
    "Conv2d": lambda rng: Conv2d(16, 4, 3, rng=rng),
    "MaxPool2d": lambda rng: MaxPool2d(2),
    "AvgPool2d": lambda rng: AvgPool2d(2),
    "GlobalAvgPool": lambda rng: GlobalAvgPool(),
    "Flatten": lambda rng: Flatten(),
    "BatchNorm2d": lambda rng: BatchNorm2d(16),
    "ResidualBlock": lambda rng: ResidualBlock(16, 16, rng=rng),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_keeps_no_batch(name, training, rng):
    """What a layer kept for itself would stay for as long as the network does."""
    layer, x = LAYERS[name](rng).train(training), images(rng, 8)
    made = lambda: layer(Tensor(x + np.float32(1), requires_grad=True))  # noqa: E731
    expect(retained_bytes(made) / KIB, 0.0, atol=64.0)
