"""Level 4: a convolution is a product of matrices, and pooling and batch norm are a few passes over memory.

Ratios within this run, in CPU time, never seconds. Each budget has a twin: a naive version, written out
here, that must not fit.
"""

import numpy as np

from dojo.measuring import Budget, race
from tinytorch.spatial import avg_pool2d, batch_norm, col2im, conv2d, im2col, max_pool2d
from tinytorch.tensor import Tensor, set_recorder

CONVOLVE = Budget(
    "conv2d 3x3 of (4, 16, 32, 32)",
    limit=8,  # a textbook im2col of channels-first images needs 5.7
    reference=2.2,
    naive=23,  # 11 where products are slow
    unit="times the time of the product of matrices in it, and of a copy of its rows",
    naively="a version that goes pixel by pixel",
)
MANY = Budget(
    "conv2d 3x3 of (1, 16, 32, 32) to 64 channels",
    limit=9,
    reference=1.5,
    naive=80,  # 31 where products are slow
    unit="times the time of the product of matrices in it, and of a copy of its rows",
    naively="a version that sums over windows without a product",
)
CONVOLVE_BACK = Budget(
    "conv2d 3x3 of (4, 16, 32, 32), there and back",
    limit=7,
    reference=0.9,  # and 2.1 with strides and groups
    naive=14,  # 9.4 where products are slow
    unit="times the time of the three products of matrices in it, and of two copies of its rows",
    naively="a version that goes back pixel by pixel",
)
SMALL = Budget(
    "conv2d 3x3 of (256, 16, 2, 2)",
    limit=27,  # a version that adds up taps needs 21
    reference=2.7,
    naive=88,  # 39 where products are slow
    unit="times the time of the products of matrices in it, and of copies of its rows",
    naively="a version that goes image by image",
)
UNWANTED = Budget(
    "the gradient of the kernels alone",
    limit=0.75,
    reference=0.34,
    naive=1.0,
    unit="times the time of the gradients of kernels and images",
    naively="a version that computes both",
)
ROWS = Budget(
    "im2col 3x3 of (4, 16, 32, 32)",
    limit=4,
    reference=0.35,
    naive=11,
    unit="times the time of numpy's windows, copied once",
    naively="a version that goes pixel by pixel",
)
IMAGES = Budget(
    "col2im 3x3 of (4, 8, 32, 32)",
    limit=3.5,
    reference=1.0,
    naive=10,
    unit="times the time of nine shifted additions",
    naively="a version that goes pixel by pixel",
)
POOL = Budget(
    "max_pool2d and avg_pool2d 2x2 of (8, 8, 32, 32)",
    limit=3.6,
    reference=0.18,
    naive=7.7,
    unit="times the time of argmax over windows",
    naively="a version that goes window by window",
)
POOL_BACK = Budget(
    "max_pool2d 2x2 of (8, 8, 32, 32), there and back",
    limit=4,
    reference=0.45,
    naive=11.9,
    unit="times the time of argmax over windows, and of putting back",
    naively="a version that goes window by window",
)
OVERLAP = Budget(
    "max_pool2d 3x3 with steps of 2 of (4, 2, 65, 65), there and back",
    limit=5,
    reference=1.6,
    naive=11,
    unit="times the time of argmax over windows, and of adding where they overlap",
    naively="a version that goes window by window",
)
CHANNELS = Budget(
    "batch_norm of (1, 256, 8, 8), there and back",
    limit=10,
    reference=2.9,
    naive=38,
    unit="times the time of the formulas in plain numpy",
    naively="a version that goes channel by channel",
)
NORM = Budget(
    "batch_norm of (16, 32, 16, 16), there and back",
    limit=3.4,
    reference=0.8,
    naive=9.9,
    unit="times the time of the formulas in plain numpy",
    naively="a version that goes pixel by pixel",
)


def random(rng, *shape):
    return rng.random(shape, np.float32)


def images(rng, n, channels, side):
    return random(rng, n, side, side, channels).transpose(0, 3, 1, 2)


def there_and_back(op, count, **params):
    """A function that does `op` on the first `count` arrays it gets, and goes back with the result."""

    def both_ways(*arrays):
        out, back = op.vjp(*arrays[:count], **params)
        return back(out)

    return both_ways


# 07.5 to 07.8 convolution


def operands(rng):
    """What is raced gets images and kernels, the baseline the columns of such images, room, and a matrix."""
    return images(rng, 4, 16, 32), random(rng, 16, 16, 3, 3), *columns_and_matrix(rng, 4096, 16)


def columns_and_matrix(rng, pixels, channels):
    return random(rng, pixels, 144), np.ones((pixels, 144), np.float32), random(rng, 144, channels)


def convolved(x, weight, *_):
    return conv2d(x, weight, padding=1)


def one_product(x, weight, columns, room, matrix):
    np.copyto(room, columns)
    return columns @ matrix


def pixel_by_pixel(x, weight, *_):
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    flat, out = weight.reshape(16, -1), np.empty((4, 16, 32, 32), np.float32)
    for n, i, j in np.ndindex(4, 32, 32):
        out[n, :, i, j] = flat @ x[n, :, i : i + 3, j : j + 3].ravel()
    return out


def test_a_convolution_is_a_product_of_matrices(rng):
    CONVOLVE.check(race(convolved, one_product, limit=CONVOLVE.limit, inputs=lambda: operands(rng)))


def test_the_twin_that_goes_pixel_by_pixel_is_caught(rng):
    CONVOLVE.catches(race(pixel_by_pixel, one_product, limit=CONVOLVE.limit, inputs=lambda: operands(rng)))


def operands_for_many(rng):
    return images(rng, 1, 16, 32), random(rng, 64, 16, 3, 3), *columns_and_matrix(rng, 1024, 64)


def test_many_kernels_cost_a_larger_product(rng):
    MANY.check(race(convolved, one_product, limit=MANY.limit, inputs=lambda: operands_for_many(rng)))


def test_the_twin_that_sums_over_windows_is_caught(rng):
    """einsum goes through the numbers one by one where it is not told to `optimize`."""

    def sums(x, weight, *_):
        x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        seen = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
        return np.einsum("ncijab,ocab->noij", seen, weight)

    MANY.catches(race(sums, one_product, limit=MANY.limit, inputs=lambda: operands_for_many(rng)))


def three_products(x, weight, columns, room, matrix):
    out = one_product(x, weight, columns, room, matrix)
    np.copyto(room, columns)
    return out @ matrix.T, columns.T @ out


def test_its_way_back_is_two_more(rng):
    mine = there_and_back(conv2d, 2, padding=1)
    CONVOLVE_BACK.check(race(mine, three_products, limit=CONVOLVE_BACK.limit, inputs=lambda: operands(rng)))


def test_strides_and_groups_cost_no_more(rng):
    """Of images twice as high and wide, in two groups: half as many multiplications, as many pixels."""

    mine = there_and_back(conv2d, 2, padding=1, stride=2, groups=2)
    inputs = lambda: (images(rng, 4, 16, 64), random(rng, 16, 8, 3, 3), *operands(rng)[2:])  # noqa: E731
    CONVOLVE_BACK.check(race(mine, three_products, limit=CONVOLVE_BACK.limit, inputs=inputs))


def test_the_twin_that_goes_back_pixel_by_pixel_is_caught(rng):
    def back(x, weight, *_):
        padded = np.zeros((4, 16, 34, 34), np.float32)
        flat, grad_weight = weight.reshape(16, -1), np.zeros((16, 144), np.float32)
        for n, i, j in np.ndindex(4, 32, 32):
            grad = x[n, :, i, j]
            padded[n, :, i : i + 3, j : j + 3] += (grad @ flat).reshape(16, 3, 3)
            grad_weight += np.outer(grad, padded[n, :, i : i + 3, j : j + 3])
        return padded, grad_weight

    CONVOLVE_BACK.catches(race(back, three_products, limit=CONVOLVE_BACK.limit, inputs=lambda: operands(rng)))


def small_operands(rng):
    """A quarter of the pixels of `operands`, in 64 times as many images."""
    return images(rng, 256, 16, 2), random(rng, 16, 16, 3, 3), *columns_and_matrix(rng, 1024, 16)


def test_small_images_are_taken_as_many_at_a_time_as_fit(rng):
    SMALL.check(race(convolved, one_product, limit=SMALL.limit, inputs=lambda: small_operands(rng)))


def test_on_the_way_back_too_small_images_are_taken_many_at_a_time(rng):
    mine = there_and_back(conv2d, 2, padding=1)
    SMALL.check(race(mine, three_products, limit=SMALL.limit, inputs=lambda: small_operands(rng)))


def test_the_twin_that_goes_image_by_image_is_caught(rng):
    def one_by_one(x, weight, columns, room, matrix):
        out = np.empty((256, 4, 16), np.float32)
        for n in range(256):
            padded = np.pad(x[n], ((0, 0), (1, 1), (1, 1)))
            seen = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
            out[n] = seen.transpose(1, 2, 3, 4, 0).reshape(4, 144) @ matrix
        return out

    SMALL.catches(race(one_by_one, one_product, limit=SMALL.limit, inputs=lambda: small_operands(rng)))


def gradients(x, weight, grad, wants_x):
    """Of a first layer, whose images are data, or of a later one; as the engine of kata 06 asks.

    With steps of 2: of 1, the columns of `grad` could serve both, and one alone would save less.
    """
    kept = []
    note = lambda op, inputs, arrays, params, out: kept.append(op.keep(out.data, arrays, params))  # noqa: E731
    before = set_recorder(note)
    try:
        conv2d(Tensor(x, requires_grad=wants_x), Tensor(weight, requires_grad=True), stride=2)
    finally:
        set_recorder(before)
    return lambda: conv2d.pull(grad, *kept[0])


def test_a_gradient_that_nobody_wants_takes_no_time(rng):
    x, weight, grad = images(rng, 4, 16, 63), random(rng, 16, 16, 3, 3), images(rng, 4, 16, 31)
    first, later = (gradients(x, weight, grad, wanted) for wanted in (False, True))
    assert first()[0] is None
    UNWANTED.check(race(first, later, limit=UNWANTED.limit))


def test_the_twin_that_computes_it_all_the_same_is_caught(rng):
    x, weight, grad = images(rng, 4, 16, 63), random(rng, 16, 16, 3, 3), images(rng, 4, 16, 31)
    later = gradients(x, weight, grad, True)
    UNWANTED.catches(race(lambda: (None, later()[1]), later, limit=UNWANTED.limit))


def one_copy(x):
    """What `im2col` comes to with numpy's own tools; its result is as new, and as large, as the other's."""
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    seen = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    return seen.transpose(0, 2, 3, 4, 5, 1).reshape(4096, 144)


def test_im2col_is_one_copy(rng):
    ROWS.check(
        race(
            lambda x: im2col(x, 3, padding=1),
            one_copy,
            limit=ROWS.limit,
            inputs=lambda: [images(rng, 4, 16, 32)],
        )
    )


def test_the_twin_that_copies_pixel_by_pixel_is_caught(rng):
    def rows(x):
        x, out = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), np.empty((4, 32, 32, 144), np.float32)
        for n, i, j in np.ndindex(4, 32, 32):
            out[n, i, j] = x[n, :, i : i + 3, j : j + 3].transpose(1, 2, 0).ravel()
        return out

    ROWS.catches(race(rows, one_copy, limit=ROWS.limit, inputs=lambda: [images(rng, 4, 16, 32)]))


def nine_additions(columns):
    seen, padded = columns.reshape(4, 32, 32, 3, 3, 8), np.zeros((4, 34, 34, 8), np.float32)
    for i, j in np.ndindex(3, 3):
        padded[:, i : i + 32, j : j + 32] += seen[:, :, :, i, j]
    return padded


def test_col2im_is_an_addition_for_each_tap(rng):
    IMAGES.check(
        race(
            lambda columns: col2im(columns, (4, 8, 32, 32), 3, padding=1),
            nine_additions,
            limit=IMAGES.limit,
            inputs=lambda: (random(rng, 4096, 72),),
        )
    )


def test_the_twin_that_adds_pixel_by_pixel_is_caught(rng):
    def one_by_one(columns):
        seen, padded = columns.reshape(4, 32, 32, 3, 3, 8), np.zeros((4, 34, 34, 8), np.float32)
        for n, i, j in np.ndindex(4, 32, 32):
            padded[n, i : i + 3, j : j + 3] += seen[n, i, j]
        return padded

    IMAGES.catches(
        race(one_by_one, nine_additions, limit=IMAGES.limit, inputs=lambda: (random(rng, 4096, 72),))
    )


# 07.9, 07.10 pooling


def pool_operand(rng):
    return (images(rng, 8, 8, 32),)


def by_argmax(x, kernel=2):
    """The windows side by side, and of each the largest."""
    seen = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(2, 3))[:, :, ::2, ::2]
    seen = seen.reshape(*seen.shape[:4], kernel * kernel)
    which = seen.argmax(axis=-1)[..., None]
    return np.take_along_axis(seen, which, axis=-1)[..., 0], which


def test_pooling_takes_all_windows_at_once(rng):
    for pool in (max_pool2d, avg_pool2d):
        POOL.check(
            race(
                lambda x, pool=pool: pool(x, kernel=2),
                by_argmax,
                limit=POOL.limit,
                inputs=lambda: pool_operand(rng),
            )
        )


def test_the_twin_that_pools_window_by_window_is_caught(rng):
    def pool(x):
        out = np.empty((8, 8, 16, 16), np.float32)
        for n, i, j in np.ndindex(8, 16, 16):
            out[n, :, i, j] = x[n, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max(axis=(1, 2))
        return out

    POOL.catches(race(pool, by_argmax, limit=POOL.limit, inputs=lambda: pool_operand(rng)))


def by_argmax_and_back(x):
    out, which = by_argmax(x)
    back = np.zeros((8, 8, 16, 16, 4), np.float32)
    np.put_along_axis(back, which, out[..., None], axis=-1)
    return back.reshape(8, 8, 16, 16, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(8, 8, 32, 32)


def test_its_way_back_takes_all_windows_at_once(rng):
    for pool in (max_pool2d, avg_pool2d):
        mine = there_and_back(pool, 1, kernel=2)
        operand = lambda: pool_operand(rng)  # noqa: E731
        POOL_BACK.check(race(mine, by_argmax_and_back, limit=POOL_BACK.limit, inputs=operand))


def test_windows_that_overlap_cost_a_tap_more_each(rng):
    mine = there_and_back(max_pool2d, 1, kernel=3, stride=2)
    OVERLAP.check(race(mine, by_argmax_and_add, limit=OVERLAP.limit, inputs=lambda: (images(rng, 4, 2, 65),)))


def by_argmax_and_add(x):
    out, which = by_argmax(x, 3)
    back = np.zeros((*out.shape, 9), np.float32)
    np.put_along_axis(back, which, out[..., None], axis=-1)
    added = np.zeros((4, 2, 65, 65), np.float32)
    for i, j in np.ndindex(3, 3):
        added[:, :, i : i + 63 : 2, j : j + 63 : 2] += back[..., 3 * i + j]
    return added


def test_the_twin_that_adds_window_by_window_is_caught(rng):
    def back(x):
        out, channels = np.zeros_like(x), np.arange(2)
        for n, i, j in np.ndindex(4, 32, 32):
            first = x[n, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].reshape(2, 9).argmax(axis=1)
            out[n, channels, 2 * i + first // 3, 2 * j + first % 3] += 1
        return out

    OVERLAP.catches(
        race(back, by_argmax_and_add, limit=OVERLAP.limit, inputs=lambda: (images(rng, 4, 2, 65),))
    )


def test_the_twin_that_goes_back_window_by_window_is_caught(rng):
    def back(x):
        out = np.zeros_like(x)
        channels = np.arange(8)
        for n, i, j in np.ndindex(8, 16, 16):
            first = x[n, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(8, 4).argmax(axis=1)
            out[n, channels, 2 * i + first // 2, 2 * j + first % 2] = 1
        return out

    POOL_BACK.catches(race(back, by_argmax_and_back, limit=POOL_BACK.limit, inputs=lambda: pool_operand(rng)))


# 07.11 batch_norm


def by_the_formulas(x, weight, bias):
    n = x.size // x.shape[1]
    off = x - x.mean(axis=(0, 2, 3), keepdims=True)
    inverse_std = 1 / np.sqrt((off * off).mean(axis=(0, 2, 3), keepdims=True) + 1e-5)
    normalised = off * inverse_std
    out = normalised * weight[:, None, None] + bias[:, None, None]
    grad_bias = out.sum(axis=(0, 2, 3), keepdims=True)
    grad_weight = (out * normalised).sum(axis=(0, 2, 3), keepdims=True)
    back = weight[:, None, None] * inverse_std * (out - grad_bias / n - normalised * grad_weight / n)
    return back, grad_weight, grad_bias


def norm_operands(rng):
    return images(rng, 16, 32, 16), random(rng, 32), random(rng, 32)


def test_batch_norm_is_a_few_passes_over_memory(rng):
    mine = there_and_back(batch_norm, 3)
    NORM.check(race(mine, by_the_formulas, limit=NORM.limit, inputs=lambda: norm_operands(rng)))


def channel_operands(rng):
    return images(rng, 1, 256, 8), random(rng, 256), random(rng, 256)


def test_batch_norm_takes_all_channels_at_once(rng):
    mine = there_and_back(batch_norm, 3)
    CHANNELS.check(race(mine, by_the_formulas, limit=CHANNELS.limit, inputs=lambda: channel_operands(rng)))


def test_the_twin_that_norms_channel_by_channel_is_caught(rng):
    def norm(x, weight, bias):
        out = np.empty_like(x)
        for c in range(256):
            off = x[:, c] - x[:, c].mean()
            out[:, c] = off / np.sqrt((off * off).mean() + 1e-5) * weight[c] + bias[c]
        return out

    CHANNELS.catches(race(norm, by_the_formulas, limit=CHANNELS.limit, inputs=lambda: channel_operands(rng)))


def test_the_twin_that_norms_pixel_by_pixel_is_caught(rng):
    def norm(x, weight, bias):
        out, mean, std = np.empty_like(x), x.mean(axis=(0, 2, 3)), x.std(axis=(0, 2, 3))
        for n, i, j in np.ndindex(16, 16, 16):
            out[n, :, i, j] = (x[n, :, i, j] - mean) / std * weight + bias
        return out

    NORM.catches(race(norm, by_the_formulas, limit=NORM.limit, inputs=lambda: norm_operands(rng)))
