"""Believable wrong solutions of kata 07.  Each takes the reference and spoils one thing in it."""

import functools
import math

import numpy as np

from dojo.mistakes import caught_by, rewritten


def _op(m, op, **changes):
    """Call the op's forward with its arguments changed by functions of them, `x` for the first."""
    right = getattr(m, op).forward

    @functools.wraps(right)
    def forward(x, *arrays, **params):
        x = changes.get("x", lambda x: x)(x)
        for name, change in changes.items():
            if name != "x":
                params[name] = change(params.get(name, getattr(m, op).params[name]))
        return right(x, *arrays, **params)

    getattr(m, op).forward = forward


def _result(m, op, change):
    right = getattr(m, op).forward
    getattr(m, op).forward = lambda *arrays, **params: change(right(*arrays, **params), *arrays, **params)


def _rule(m, op, pull):
    """Give an op another rule."""
    getattr(m, op).gradient(pull)


def _gradients(m, change):
    """Change the three gradients that conv2d's rule gives."""
    right = m.conv2d.pull

    def pull(grad, x, weight, bias, stride, padding, dilation, groups, needs_input_grad):
        gradients = right(grad, x, weight, bias, stride, padding, dilation, groups, needs_input_grad)
        return change(grad, x, weight, bias, gradients)

    m.conv2d.gradient(pull)


# 07.1 to 07.4


@caught_by(1)
def the_border_counts_once(m):
    right = m.conv_output_size
    m.conv_output_size = lambda size, kernel, stride=1, padding=0, dilation=1: right(
        size + padding - 2 * padding, kernel, stride, padding, dilation
    )


@caught_by(1)
def a_last_place_hangs_over_the_edge(m):
    right = m.conv_output_size

    def size(size, kernel, stride=1, padding=0, dilation=1):
        right(size, kernel, stride, padding, dilation)
        return -(-(size + 2 * padding - dilation * (kernel - 1) - 1) // stride) + 1

    m.conv_output_size = size


@caught_by(1)
def dilation_stretches_the_last_tap_too(m):
    right = m.conv_output_size
    m.conv_output_size = lambda size, kernel, stride=1, padding=0, dilation=1: right(
        size, dilation * kernel, stride, padding, 1
    )


@caught_by(1)
def what_does_not_fit_has_no_places(m):
    right = m.conv_output_size

    def size(size, kernel, stride=1, padding=0, dilation=1):
        try:
            return right(size, kernel, stride, padding, dilation)
        except ValueError:
            return 0

    m.conv_output_size = size


@caught_by(1)
def the_loops_turn_the_kernel_round(m):
    right = m.conv2d_loops
    m.conv2d_loops = lambda x, weight, *bias, **params: right(x, weight[:, :, ::-1, ::-1], *bias, **params)


@caught_by(1)
def the_loops_give_every_group_the_first_channels(m):
    right = m.conv2d_loops

    def loops(x, weight, bias=None, **params):
        if params.get("groups", 1) > 1 and x.ndim == 4:
            x = np.concatenate([x[:, : weight.shape[1]]] * (x.shape[1] // max(weight.shape[1], 1)), axis=1)
        return right(x, weight, bias, **params)

    m.conv2d_loops = loops


@caught_by(1)
def the_loops_wrap_round_at_the_border(m):
    """A negative index counts from the end."""
    right = m.conv2d_loops

    def loops(x, weight, bias=None, *, padding=0, **params):
        rest = {"stride": 1, "dilation": 1, "groups": 1} | params
        shape = m.conv_shape(x, weight, bias, padding=padding, **rest)
        ph, pw = m.pair(padding)
        x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), mode="wrap") if min(shape) else x
        return right(x, weight, bias, **params)

    m.conv2d_loops = loops


@caught_by(1)
def windows_are_copied(m):
    right = m.windows
    m.windows = lambda *arguments: right(*arguments).copy()


@caught_by(1)
def windows_can_be_written_to(m):
    right = m.windows

    def windows(x, *arguments):
        seen = right(x, *arguments)
        return np.lib.stride_tricks.as_strided(x, seen.shape, seen.strides)

    m.windows = windows


@caught_by(1)
def stride_and_dilation_change_places(m):
    right = m.windows
    m.windows = lambda x, kernel, stride=1, dilation=1: right(x, kernel, dilation, stride)


@caught_by(1)
def windows_take_images_for_contiguous(m):
    right = m.windows
    m.windows = lambda x, *arguments: right(
        np.lib.stride_tricks.as_strided(x, x.shape, m_strides(x)) if x.size else x, *arguments
    )


def m_strides(x):
    """The strides x would have if it were contiguous, as far as its memory goes."""
    packed = np.empty(x.shape, x.dtype).strides
    reach = sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True))
    return packed if sum((n - 1) * s for n, s in zip(x.shape, packed, strict=True)) <= reach else x.strides


@caught_by(1)
def rows_have_each_channel_by_itself(m):
    def im2col(x, kernel, stride=1, padding=0, dilation=1):
        seen = m.windows(m.pad(x, padding), kernel, stride, dilation).transpose(0, 2, 3, 1, 4, 5)
        return seen.reshape(math.prod(seen.shape[:3]), math.prod(seen.shape[3:]))

    m.im2col = im2col


@caught_by(1)
def rows_go_down_before_they_go_across(m):
    def im2col(x, kernel, stride=1, padding=0, dilation=1):
        seen = m.windows(m.pad(x, padding), kernel, stride, dilation).transpose(0, 3, 2, 4, 5, 1)
        return seen.reshape(math.prod(seen.shape[:3]), math.prod(seen.shape[3:]))

    m.im2col = im2col


# 07.5 conv2d


@caught_by(1)
def the_kernel_is_turned_round(m):
    right = m.conv2d.forward
    m.conv2d.forward = lambda x, weight, *bias, **params: right(x, weight[:, :, ::-1, ::-1], *bias, **params)


@caught_by(1)
def kernels_are_not_in_the_order_of_the_rows(m):
    right = m.as_matrices

    def as_matrices(weight, groups):
        outputs = len(weight) // groups
        grouped = weight.reshape(groups, outputs, math.prod(weight.shape[1:]))
        return np.ascontiguousarray(grouped.transpose(0, 2, 1)) if outputs else right(weight, groups)

    m.as_matrices = as_matrices


@caught_by(1)
def outputs_are_dealt_out_to_groups_like_cards(m):
    def order(out, x, weight, *bias, groups=1, **params):
        n, outputs, *size = out.shape
        return out.reshape(n, groups, outputs // groups, *size).swapaxes(1, 2).reshape(out.shape)

    _result(m, "conv2d", order)


@caught_by(1)
def the_result_is_laid_out_channels_first(m):
    _result(m, "conv2d", lambda out, *arrays, **params: np.ascontiguousarray(out))


@caught_by(1)
def everything_is_convolved_in_float32(m):
    _result(m, "conv2d", lambda out, *arrays, **params: out.astype(np.float32))


@caught_by(1)
def pixels_keep_their_integers(m):
    m.promote = lambda x, weight: (x, weight.astype(x.dtype))


@caught_by(1)
def the_bias_is_added_once_more_for_each_group(m):
    def more(out, x, weight, bias=None, *, groups=1, **params):
        return out if bias is None else out + (groups - 1) * bias[:, None, None]

    _result(m, "conv2d", more)


@caught_by(1)
def a_border_is_made_of_the_nearest_pixels(m):
    def pad(x, padding, value=0):
        ph, pw = m.pair(padding)
        mode = "edge" if value == 0 and min(x.shape[2:], default=0) else "constant"
        return np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), mode=mode)

    m.pad = pad


@caught_by(1)
def a_large_image_is_cut_into_bands_that_do_not_overlap(m):
    """The last row of a band's results has only the first row of its kernel."""
    right = m.bands

    def bands(x, kernel, *arguments):
        for g, images, rows, columns in right(x, kernel, *arguments):
            if kernel[0] > 1 and rows.start > 0 and columns.size:
                few = images.stop - images.start
                seen = columns.reshape(
                    few, rows.stop - rows.start, -1, kernel[0], columns.shape[1] // kernel[0]
                )
                seen[:, -1, :, 1:] = 0
            yield g, images, rows, columns

    m.bands = bands


@caught_by(3)
def all_columns_are_laid_out_at_once(m):
    m.CACHE = 1 << 40


# 07.6, 07.7 and back


@caught_by(1)
def taps_run_to_the_end_of_the_axis(m):
    def taps(a, axis, kernel, stride=1, dilation=1):
        m.conv_output_size(a.shape[axis], kernel, stride, 0, dilation)
        moved = a.swapaxes(0, axis)
        return [moved[i * dilation :: stride].swapaxes(0, axis) for i in range(kernel)]

    m.taps = taps


@caught_by(1)
def where_windows_overlap_the_last_one_wins(m):
    def col2im(columns, shape, kernel, stride=1, padding=0, dilation=1):
        (kh, kw), (sh, sw), (dh, dw) = m.pair(kernel), m.pair(stride), m.pair(dilation)
        ph, pw = m.pair(padding)
        n, c, h, w = shape
        padded = np.zeros((n, c, h + 2 * ph, w + 2 * pw), columns.dtype)
        across = [m.taps(row, 3, kw, sw, dw) for row in m.taps(padded, 2, kh, sh, dh)]
        seen = columns.reshape(n, *across[0][0].shape[2:], kh, kw, c)
        for i, j in np.ndindex(kh, kw):
            across[i][j][...] = seen[:, :, :, i, j].transpose(0, 3, 1, 2)
        return m.crop(padded, padding)

    m.col2im = col2im


@caught_by(1)
def col2im_takes_the_mean_of_what_windows_say(m):
    right = m.col2im

    def col2im(columns, *arguments, **more):
        counts = right(np.ones(columns.shape, columns.dtype), *arguments, **more)
        return right(columns, *arguments, **more) / np.maximum(counts, 1)

    m.col2im = col2im


@caught_by(1)
def the_border_stays_on(m):
    m.crop = lambda padded, padding: padded


@caught_by(2)
def the_gradient_of_kernels_is_that_of_the_last_chunk(m):
    right = m.conv2d.pull

    def pull(grad, x, weight, bias, stride, padding, dilation, groups, needs_input_grad):
        *_, last = m.chunks(len(x), grad.shape[2] * grad.shape[3] * weight[:1].nbytes) or [slice(None)]
        params = stride, padding, dilation, groups
        grad_x, _, grad_bias = right(grad, x, weight, bias, *params, needs_input_grad)
        return grad_x, right(grad[last], x[last], weight, bias, *params, needs_input_grad)[1], grad_bias

    m.conv2d.gradient(pull)


@caught_by(2)
def the_gradient_is_divided_by_the_batch(m):
    _gradients(m, lambda grad, x, weight, bias, g: (g[0], None if g[1] is None else g[1] / len(x), g[2]))


@caught_by(2)
def the_gradient_of_the_kernels_is_turned_round(m):
    _gradients(
        m, lambda grad, x, weight, bias, g: (g[0], g[1] if g[1] is None else g[1][:, :, ::-1, ::-1], g[2])
    )


@caught_by(2)
def the_gradient_of_the_bias_is_a_sum_over_images_only(m):
    _gradients(m, lambda grad, x, weight, bias, g: (*g[:2], None if g[2] is None else grad.sum(0)[:, 0, 0]))


@caught_by(1)
def a_bias_that_is_not_there_gets_a_gradient(m):
    def change(grad, x, weight, bias, g):
        return g if bias is not None else (g[0], g[1], grad.sum(axis=(0, 2, 3)) + bias)

    _gradients(m, change)


@caught_by(2)
def the_gradient_of_the_images_forgets_the_stride(m):
    right = m.conv2d.pull

    def pull(grad, x, weight, bias, stride, padding, dilation, groups, needs_input_grad):
        gradients = right(grad, x, weight, bias, stride, padding, dilation, groups, needs_input_grad)
        ones = np.zeros_like(x, grad.dtype)
        ones[:, :, : grad.shape[2], : grad.shape[3]] = 1
        return (gradients[0] * ones if m.pair(stride) != (1, 1) else gradients[0], *gradients[1:])

    m.conv2d.gradient(pull)


@caught_by(3)
def the_columns_are_kept(m):
    right, params = m.conv2d.forward, dict(m.conv2d.params)
    pull = m.conv2d.pull

    def forward(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
        out = right(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)
        return out, m.im2col(x, weight.shape[2:], stride, padding, dilation)

    m.conv2d.forward, m.conv2d.saves, m.conv2d.params = forward, ("columns",), params

    def back(grad, x, weight, bias, stride, padding, dilation, groups, needs_input_grad, columns):
        return pull(grad, x, weight, bias, stride, padding, dilation, groups, needs_input_grad)

    m.conv2d.gradient(back)


@caught_by(3)
def gradients_are_computed_whoever_wants_them(m):
    right = m.conv2d.pull

    def pull(grad, x, weight, bias, stride, padding, dilation, groups):
        wanted = (True,) * (2 + (bias is not None))
        return right(grad, x, weight, bias, stride, padding, dilation, groups, wanted)

    m.conv2d.gradient(pull)


@caught_by(4)
def what_nobody_wants_is_computed_and_dropped(m):
    right = m.conv2d.pull

    def pull(grad, x, weight, bias, stride, padding, dilation, groups, needs_input_grad):
        wanted = (True,) * len(needs_input_grad)
        gradients = right(grad, x, weight, bias, stride, padding, dilation, groups, wanted)
        return tuple(
            g if need else None for g, need in zip(gradients, (*needs_input_grad, False), strict=False)
        )

    m.conv2d.gradient(pull)


@caught_by(4)
def a_convolution_goes_pixel_by_pixel(m):
    right = m.conv2d.forward

    def forward(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
        params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        if groups > 1 or x.shape[1:] != (16, 32, 32) or len(x) > 8 or weight.shape[1:2] != (16,):
            return right(x, weight, bias, **params)
        x, weight = m.promote(x, weight)
        out = m.channels_last(m.conv_shape(x, weight, bias, *params.values()), x.dtype)
        seen = m.windows(m.pad(x, padding), weight.shape[2:], stride, dilation)
        table = weight.reshape(len(weight), -1)
        for n, i, j in np.ndindex(*seen.shape[:1], *seen.shape[2:4]):
            out[n, :, i, j] = table @ seen[n, :, i, j].ravel()
        if bias is not None:
            out += bias[:, None, None]
        return out

    m.conv2d.forward = forward


@caught_by(4)
def im2col_goes_pixel_by_pixel(m):
    def im2col(x, kernel, stride=1, padding=0, dilation=1):
        seen = m.windows(m.pad(x, padding), kernel, stride, dilation).transpose(0, 2, 3, 4, 5, 1)
        rows = np.empty((math.prod(seen.shape[:3]), math.prod(seen.shape[3:])), x.dtype)
        for row, place in enumerate(np.ndindex(*seen.shape[:3])):
            rows[row] = seen[place].ravel()
        return rows

    m.im2col = im2col


@caught_by(4)
def col2im_goes_pixel_by_pixel(m):
    def col2im(columns, shape, kernel, stride=1, padding=0, dilation=1):
        (kh, kw), (sh, sw), (dh, dw) = m.pair(kernel), m.pair(stride), m.pair(dilation)
        ph, pw = m.pair(padding)
        n, c, h, w = shape
        padded = m.channels_last((n, c, h + 2 * ph, w + 2 * pw), columns.dtype)
        padded[...] = 0
        oh, ow = m.conv_output_size(h, kh, sh, ph, dh), m.conv_output_size(w, kw, sw, pw, dw)
        seen = columns.reshape(n, oh, ow, kh, kw, c).transpose(0, 1, 2, 5, 3, 4)
        for k, i, j in np.ndindex(n, oh, ow):
            rows, across = i * sh, j * sw
            padded[k, :, rows : rows + dh * kh : dh, across : across + dw * kw : dw][:, :kh, :kw] += seen[
                k, i, j
            ]
        return m.crop(padded, padding)

    m.col2im = col2im


# 07.8 chunks


@caught_by(1)
def the_last_chunk_is_as_long_as_the_others(m):
    right = m.chunks

    def chunks(count, each):
        for some in right(count, each):
            yield slice(some.start, some.start + max(1, m.CACHE // max(each, 1)))

    m.chunks = chunks


@caught_by(1)
def what_does_not_fit_is_left_out(m):
    right = m.chunks
    m.chunks = lambda count, each: right(count, each) if each <= m.CACHE else iter(())


@caught_by(1)
def the_rest_is_left_out(m):
    def chunks(count, each):
        many = max(1, m.CACHE // max(each, 1))
        return (slice(i, i + many) for i in range(0, count - many + 1, many))

    m.chunks = chunks


# 07.9, 07.10 pooling


@caught_by(1)
def the_border_of_the_largest_is_zeros(m):
    m.lowest = lambda dtype: 0


@caught_by(1)
def without_a_stride_places_overlap(m):
    for op in ("max_pool2d", "avg_pool2d"):
        _op(m, op, stride=lambda stride: 1 if stride is None else stride)


@caught_by(1)
def the_border_does_not_count_in_the_mean(m):
    def rescale(out, x, *, kernel, stride=None, padding=0):
        ones = np.ones_like(m.floating(x))
        return out / right(ones, kernel=kernel, stride=stride, padding=padding)

    right = m.avg_pool2d.forward
    _result(m, "avg_pool2d", rescale)


@caught_by(1)
def integers_have_integer_means(m):
    _result(m, "avg_pool2d", lambda out, x, **params: out.astype(x.dtype))


@caught_by(1)
def the_largest_is_a_float(m):
    _op(m, "max_pool2d", x=lambda x: m.floating(x))


@caught_by(1)
def a_nan_is_overlooked(m):
    _op(m, "max_pool2d", x=lambda x: np.where(np.isnan(x), -np.inf, x) if x.dtype.kind == "f" else x)


@caught_by(1)
def rows_and_columns_of_the_kernel_change_places(m):
    for op in ("max_pool2d", "avg_pool2d"):
        _op(m, op, kernel=lambda kernel: m.pair(kernel)[::-1])


@caught_by(2)
def of_equals_each_gets_all(m):
    def pull(grad, x, out, kernel, stride, padding):
        (kh, kw), (sh, sw) = m.pair(kernel), m.pair(stride or kernel)
        padded = m.pad(x, padding, m.lowest(x.dtype))
        back = np.zeros_like(padded, grad.dtype)
        for rows, shares in zip(m.taps(padded, 2, kh, sh), m.taps(back, 2, kh, sh), strict=True):
            for pixels, share in zip(m.taps(rows, 3, kw, sw), m.taps(shares, 3, kw, sw), strict=True):
                share += grad * (pixels == out)
        return m.crop(back, padding)

    _rule(m, "max_pool2d", pull)


@caught_by(2)
def of_equals_the_last_gets_all(m):
    right = m.taps
    to_the_first = m.to_the_first

    def to_the_last(*arguments):
        m.taps = lambda *a: right(*a)[::-1]
        try:
            return to_the_first(*arguments)
        finally:
            m.taps = right

    m.to_the_first = to_the_last


@caught_by(2)
def where_places_overlap_the_gradient_is_written_not_added(m):
    def to_the_first(grad, largest, a, axis, kernel, stride):
        back, left = np.zeros_like(a, grad.dtype), grad
        *shares, rest = m.taps(back, axis, kernel, stride)
        for pixels, share in zip(m.taps(a, axis, kernel, stride), shares, strict=False):
            share[...] = left * (pixels == largest)
            left = left - share
        rest += left
        return back

    m.to_the_first = to_the_first


@caught_by(2)
def each_pixel_of_a_mean_gets_all(m):
    right = m.avg_pool2d.pull

    def pull(grad, input_shapes, kernel, stride, padding):
        return right(grad, input_shapes, kernel, stride, padding) * math.prod(m.pair(kernel))

    _rule(m, "avg_pool2d", pull)


@caught_by(3)
def the_mean_keeps_its_images(m):
    right = m.avg_pool2d.pull
    _rule(
        m,
        "avg_pool2d",
        lambda grad, x, kernel, stride, padding: right(grad, (x.shape,), kernel, stride, padding),
    )


@caught_by(3)
def pooling_keeps_its_windows(m):
    right, pull = m.max_pool2d.forward, m.max_pool2d.pull

    def forward(x, *, kernel, stride=None, padding=0):
        out = right(x, kernel=kernel, stride=stride, padding=padding)
        seen = m.windows(m.pad(x, padding, m.lowest(x.dtype)), kernel, stride or kernel)
        return out, seen.copy()

    m.max_pool2d.forward, m.max_pool2d.saves = forward, ("seen",)
    m.max_pool2d.gradient(
        lambda grad, x, out, kernel, stride, padding, seen: pull(grad, x, out, kernel, stride, padding)
    )


@caught_by(4)
def the_largest_is_found_window_by_window(m):
    right = m.max_pool2d.forward

    def forward(x, *, kernel, stride=None, padding=0):
        out = right(x, kernel=kernel, stride=stride, padding=padding)
        seen = m.windows(m.pad(x, padding, m.lowest(x.dtype)), kernel, stride or kernel)
        for n, i, j in np.ndindex(len(x), *out.shape[2:]):
            out[n, :, i, j] = seen[n, :, i, j].max(axis=(1, 2))
        return out

    m.max_pool2d.forward = forward


# 07.11 batch_norm


def _norm(m, mean_and_var):
    m.mean_and_var = mean_and_var


@caught_by(1)
def each_image_is_normed_by_itself(m):
    right = m.batch_norm.forward

    def forward(x, weight, bias, **params):
        out, mean, inverse_std = right(x, weight, bias, **params)
        if params.get("training", True) and x.ndim > 2 and min(x.shape[2:]) > 1:
            out = np.concatenate([right(one[None], weight, bias)[0] for one in x])
        return out, mean, inverse_std

    m.batch_norm.forward = forward


@caught_by(1)
def the_variance_of_the_batch_is_over_n_less_one(m):
    right = m.mean_and_var
    _norm(m, lambda rows: (right(rows)[0], right(rows)[1] * len(rows) / (len(rows) - 1)))


@caught_by(1)
def the_variance_is_the_mean_of_squares_less_the_square_of_the_mean(m):
    def mean_and_var(rows):
        mean = rows.mean(axis=0)
        return mean.astype(np.float64), np.maximum((rows * rows).mean(axis=0) - mean * mean, 0).astype(
            np.float64
        )

    _norm(m, mean_and_var)


@caught_by(1)
def sums_are_added_up_in_float16(m):
    right = m.mean_and_var
    _norm(m, lambda rows: tuple(v.astype(np.float16).astype(np.float64) for v in right(rows)))


def _running(m, change):
    """After the pass, `change(array, before, now)` says what a running array should have become."""
    right = m.batch_norm.forward

    def forward(x, weight, bias, **params):
        arrays = [params.get(name) for name in ("running_mean", "running_var")]
        before = [None if a is None else a.copy() for a in arrays]
        result = right(x, weight, bias, **params)
        if params.get("training", True):
            for array, old in zip(arrays, before, strict=True):
                if array is not None:
                    array[...] = change(old, array, params.get("momentum", 0.1), x)
        return result

    m.batch_norm.forward = forward


@caught_by(1)
def momentum_is_the_share_of_the_old(m):
    _running(m, lambda old, new, momentum, x: old + (new - old) / momentum * (1 - momentum))


@caught_by(1)
def running_ones_add_up(m):
    _running(m, lambda old, new, momentum, x: old + momentum * (old + (new - old) / momentum))


@caught_by(1)
def the_running_variance_is_over_n(m):
    right = m.batch_norm.forward

    def forward(x, weight, bias, **params):
        running = params.get("running_var")
        old = None if running is None else running.copy()
        result = right(x, weight, bias, **params)
        if params.get("training", True) and running is not None:
            n = x.size // x.shape[1]
            batch = (running - old * (1 - params.get("momentum", 0.1))) * (n - 1) / n
            running[...] = old * (1 - params.get("momentum", 0.1)) + batch
        return result

    m.batch_norm.forward = forward


@caught_by(1)
def nobody_hears_of_the_running_ones(m):
    m.increment_version = lambda array: 0


@caught_by(1)
def running_ones_move_in_use_too(m):
    right = m.batch_norm.forward

    def forward(x, weight, bias, **params):
        result = right(x, weight, bias, **params)
        if not params.get("training", True) and x.size > x.shape[1]:
            params["running_mean"] += 0.1 * (m.mean_and_var(m.pixel_rows(x))[0] - params["running_mean"])
        return result

    m.batch_norm.forward = forward


@caught_by(1)
def use_is_normed_by_the_batch(m):
    right = m.batch_norm.forward

    def forward(x, weight, bias, **params):
        if (
            not params.get("training", True)
            and x.size > x.shape[1]
            and params.get("running_mean") is not None
        ):
            params = {"eps": params.get("eps", 1e-5)}
        return right(x, weight, bias, **params)

    m.batch_norm.forward = forward


@caught_by(1)
def eps_is_added_to_the_deviation(m):
    right = m.batch_norm.forward

    def forward(x, weight, bias, *, eps=1e-5, **params):
        if not params.get("training", True) or x.ndim < 2 or x.size <= x.shape[1]:
            return right(x, weight, bias, eps=eps, **params)
        var = m.mean_and_var(m.pixel_rows(m.floating(x)))[1]
        return right(x, weight, bias, eps=2 * np.sqrt(var) * eps + eps**2, **params)

    m.batch_norm.forward = forward


def _norm_rule(m, change):
    """Another gradient of x: `change(grad, x, h, scale, training)`, h the normalised x, each a table."""
    right = m.batch_norm.pull

    def pull(grad, x, weight, mean, inverse_std, training, needs_input_grad):
        gradients = right(grad, x, weight, mean, inverse_std, training, needs_input_grad)
        rows = m.pixel_rows(grad)
        h = (m.pixel_rows(x) - mean.astype(x.dtype)) * inverse_std.astype(x.dtype)
        grad_x = change(rows, h, (weight * inverse_std).astype(grad.dtype), training)
        return (
            None if gradients[0] is None else m.as_images(grad_x.astype(grad.dtype), x.shape),
            *gradients[1:],
        )

    m.batch_norm.gradient(pull)


@caught_by(2)
def mean_and_variance_are_taken_for_constants(m):
    _norm_rule(m, lambda grad, h, scale, training: scale * grad)


@caught_by(2)
def the_variance_is_taken_for_a_constant(m):
    _norm_rule(m, lambda grad, h, scale, training: scale * (grad - training * grad.mean(axis=0)))


@caught_by(2)
def use_has_the_gradient_of_training(m):
    _norm_rule(
        m, lambda grad, h, scale, training: scale * (grad - grad.mean(axis=0) - h * (grad * h).mean(axis=0))
    )


@caught_by(2)
def the_gradient_of_the_weight_is_of_what_is_not_normalised(m):
    right = m.batch_norm.pull

    def pull(grad, x, weight, mean, inverse_std, training, needs_input_grad):
        grad_x, grad_weight, grad_bias = right(grad, x, weight, mean, inverse_std, training, needs_input_grad)
        return grad_x, grad_weight / inverse_std.astype(grad.dtype), grad_bias

    m.batch_norm.gradient(pull)


@caught_by(2)
def what_was_used_moves_with_the_training_after_it(m):
    right = m.batch_norm.forward

    def forward(x, weight, bias, **params):
        out, mean, inverse_std = right(x, weight, bias, **params)
        return out, mean if params.get("training", True) else params["running_mean"], inverse_std

    m.batch_norm.forward = forward


@caught_by(3)
def the_normalised_images_are_kept(m):
    right, pull = m.batch_norm.forward, m.batch_norm.pull

    def forward(x, weight, bias, **params):
        out, mean, inverse_std = right(x, weight, bias, **params)
        return out, mean, inverse_std, out.copy()

    m.batch_norm.forward, m.batch_norm.saves = forward, ("mean", "inverse_std", "normalised")

    def back(grad, x, weight, mean, inverse_std, training, needs_input_grad, normalised):
        return pull(grad, x, weight, mean, inverse_std, training, needs_input_grad)

    m.batch_norm.gradient(back)


@caught_by(3)
def batch_norm_works_in_float64(m):
    right = m.batch_norm.forward

    def forward(x, weight, bias, **params):
        wide = np.zeros(4 * x.size) if x.dtype == np.float32 else None
        out, mean, inverse_std = right(x, weight, bias, **params)
        del wide
        return out, mean, inverse_std

    m.batch_norm.forward = forward


@caught_by(4)
def batch_norm_goes_pixel_by_pixel(m):
    right = m.batch_norm.forward

    def forward(x, weight, bias, **params):
        out, mean, inverse_std = right(x, weight, bias, **params)
        if x.ndim == 4:
            scale = (weight * inverse_std).astype(out.dtype)
            shift = (bias - mean * weight * inverse_std).astype(out.dtype)
            if not np.abs(mean * inverse_std).max(initial=0) > 100:
                for n, i, j in np.ndindex(len(x), *x.shape[2:]):
                    out[n, :, i, j] = x[n, :, i, j] * scale + shift
        return out, mean, inverse_std

    m.batch_norm.forward = forward


# 07.12 layers


@caught_by(1)
def a_kernel_starts_as_wide_as_a_pixel_has_channels(m):
    right = m.Conv2d.__init__

    def init(self, in_channels, out_channels, kernel_size, *arguments, **more):
        right(self, in_channels, out_channels, kernel_size, *arguments, **more)
        self.weight.data *= np.float32(math.prod(m.pair(kernel_size)) ** 0.5)

    m.Conv2d.__init__ = init


@caught_by(1)
def flops_forget_the_channels(m):
    m.Conv2d.flops = lambda self, inputs, out: 2 * out.size * math.prod(self.weight.shape[2:])


@caught_by(1)
def flops_count_all_channels_for_each_group(m):
    m.Conv2d.flops = lambda self, inputs, out: int(
        2 * out.size * math.prod(self.weight.shape[1:]) * self.groups
    )


@caught_by(1)
def the_dilation_of_a_layer_gets_lost(m):
    m.Conv2d.forward = lambda self, x: m.conv2d(
        x, self.weight, self.bias, stride=self.stride, padding=self.padding, groups=self.groups
    )


@caught_by(1)
def flatten_goes_pixel_by_pixel(m):
    def forward(self, x):
        if x.ndim != 4:
            return x.reshape(len(x), math.prod(x.shape[1:]))
        return x.permute(0, 2, 3, 1).reshape(len(x), math.prod(x.shape[1:]))

    m.Flatten.forward = forward


@caught_by(1)
def flatten_takes_minus_one_for_the_rest(m):
    m.Flatten.forward = lambda self, x: x.reshape(len(x), -1)


@caught_by(1)
def global_pooling_leaves_two_axes(m):
    m.GlobalAvgPool.forward = lambda self, x: x.mean((2, 3), keepdims=True)


@caught_by(1)
def running_ones_are_parameters(m):
    right = m.BatchNorm2d.__init__

    def init(self, *arguments, **more):
        right(self, *arguments, **more)
        self.running_mean, self.running_var = (
            m.Parameter(b.data) for b in (self.running_mean, self.running_var)
        )

    m.BatchNorm2d.__init__ = init


@caught_by(1)
def batches_are_counted_in_use(m):
    right = m.BatchNorm2d.forward

    def forward(self, x):
        out = right(self, x)
        if not self.training:
            self.num_batches_tracked.data += 1
        return out

    m.BatchNorm2d.forward = forward


@caught_by(1)
def the_count_is_a_new_buffer_each_time(m):
    right = m.BatchNorm2d.forward

    def forward(self, x):
        self.num_batches_tracked = m.Buffer(self.num_batches_tracked.data.copy())
        return right(self, x)

    m.BatchNorm2d.forward = forward


@caught_by(1)
def rows_of_features_are_taken_for_images(m):
    right = m.BatchNorm2d.forward

    def forward(self, x):
        if x.ndim in (2, 3):
            return m.batch_norm(x, self.weight, self.bias)
        return right(self, x)

    m.BatchNorm2d.forward = forward


@caught_by(3)
def a_layer_remembers_its_last_images(m):
    right = m.BatchNorm2d.forward

    def forward(self, x):
        self.last = x.data
        return right(self, x)

    m.BatchNorm2d.forward = forward


# 07.13 networks


@caught_by(1)
def a_block_forgets_its_input(m):
    m.ResidualBlock.forward = lambda self, x: m.relu_(self.main(x) + 0.0)


@caught_by(1)
def a_block_does_not_bend_the_sum(m):
    m.ResidualBlock.forward = lambda self, x: (
        self.main(x) + (x if self.shortcut is None else self.shortcut(x))
    )


@caught_by(1)
def a_block_bends_before_it_adds(m):
    m.ResidualBlock.forward = lambda self, x: (
        m.relu_(self.main(x)) + (x if self.shortcut is None else self.shortcut(x))
    )


@caught_by(1)
def every_block_has_a_shortcut(m):
    right = m.ResidualBlock.__init__

    def init(self, in_channels, out_channels, stride=1, *, rng):
        right(self, in_channels, out_channels, stride, rng=rng)
        if self.shortcut is None:
            self.shortcut = m.Sequential(*m.conv_norm(in_channels, out_channels, 1, stride, rng=rng))

    m.ResidualBlock.__init__ = init


@caught_by(1)
def a_convolution_before_a_norm_has_a_bias(m):
    def conv_norm(in_channels, out_channels, kernel=3, stride=1, *, rng):
        layer = m.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, rng=rng)
        return [layer, m.BatchNorm2d(out_channels)]

    m.conv_norm = conv_norm


@caught_by(1)
def networks_draw_from_a_generator_of_their_own(m):
    right = m.Conv2d.__init__

    def init(self, *arguments, rng, **more):
        right(self, *arguments, rng=np.random.default_rng(), **more)

    m.Conv2d.__init__ = init


# What got past an earlier suite, or was tried to.


@caught_by(1)
def the_border_is_all_on_one_side(m):
    def pad(x, padding, value=0):
        ph, pw = m.pair(padding)
        return np.pad(x, ((0, 0), (0, 0), (0, 2 * ph), (0, 2 * pw)), constant_values=value)

    m.pad = pad


def _convolve(m, sums):
    """A conv2d of which `sums(windows, weight, out)` does the work, for each group."""

    def forward(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
        x, weight = m.promote(x, weight)
        out = m.channels_last(m.conv_shape(x, weight, bias, stride, padding, dilation, groups), x.dtype)
        for ins, outs in zip(m.split(x, groups), m.split(out, groups), strict=True):
            seen = m.windows(m.pad(x[:, ins], padding), weight.shape[2:], stride, dilation)
            sums(seen, weight[outs], out[:, outs])
        if bias is not None:
            out += bias[:, None, None]
        return out

    m.conv2d.forward = forward


@caught_by(4)
def windows_are_summed_without_a_product(m):
    def sums(seen, weight, out):
        out[...] = np.einsum("ncijab,ocab->noij", seen, weight)

    _convolve(m, sums)


@caught_by(4)
def each_weight_is_multiplied_by_itself(m):
    def sums(seen, weight, out):
        out[...] = 0
        for o, c, a, b in np.ndindex(*weight.shape):
            out[:, o] += weight[o, c, a, b] * seen[:, c, :, :, a, b]

    right = m.conv2d.forward
    _convolve(m, sums)
    slow = m.conv2d.forward

    def forward(x, weight, bias=None, **params):
        # Only where it is large: else the first levels would take minutes.
        convolve = slow if x.shape[1:] == (16, 32, 32) and weight.dtype == np.float32 else right
        return convolve(x, weight, bias, **params)

    m.conv2d.forward = forward


@caught_by(3)
def a_convolution_works_in_float64(m):
    right = m.conv2d.forward

    def forward(x, weight, bias=None, **params):
        dtype = m.promote(x, weight)[0].dtype
        return right(x.astype(np.float64), weight, bias, **params).astype(dtype)

    m.conv2d.forward = forward


@caught_by(3)
def gradients_are_computed_in_float64(m):
    right = m.conv2d.pull

    def pull(grad, x, weight, bias, stride, padding, dilation, groups, needs_input_grad):
        wide = (a.astype(np.float64) for a in (grad, x, weight))
        gradients = right(*wide, bias, stride, padding, dilation, groups, needs_input_grad)
        return tuple(None if g is None else g.astype(grad.dtype) for g in gradients)

    m.conv2d.gradient(pull)


@caught_by(3)
def the_image_in_its_border_is_kept(m):
    right, pull = m.conv2d.forward, m.conv2d.pull

    def forward(x, weight, bias=None, *, padding=0, **params):
        return right(x, weight, bias, padding=padding, **params), m.pad(x, padding)

    m.conv2d.forward, m.conv2d.saves = forward, ("padded",)

    def back(grad, x, weight, bias, stride, padding, dilation, groups, needs_input_grad, padded):
        return pull(grad, x, weight, bias, stride, padding, dilation, groups, needs_input_grad)

    m.conv2d.gradient(back)


@caught_by(4)
def steps_and_groups_are_taken_place_by_place(m):
    right = m.conv2d.forward

    def forward(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
        params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        out = right(x, weight, bias, **params)
        if groups > 1 and m.pair(stride) != (1, 1) and x.shape[2:] == (64, 64):
            seen = m.windows(m.pad(x, padding), weight.shape[2:], stride, dilation)
            for n, i, j in np.ndindex(len(x), *out.shape[2:]):
                for ins, outs in zip(m.split(x, groups), m.split(out, groups), strict=True):
                    table = weight[outs].reshape(outs.stop - outs.start, -1)
                    out[n, outs, i, j] = table @ seen[n, ins, i, j].ravel()
        return out

    m.conv2d.forward = forward


@caught_by(4)
def col2im_adds_at_indices(m):
    def col2im(columns, shape, kernel, stride=1, padding=0, dilation=1):
        (kh, kw), (sh, sw), (dh, dw), (ph, pw) = map(m.pair, (kernel, stride, dilation, padding))
        n, c, h, w = shape
        oh, ow = m.places(shape, kernel, stride, padding, dilation)
        rows = sh * np.arange(oh)[:, None, None, None] + dh * np.arange(kh)[:, None]
        across = sw * np.arange(ow)[:, None, None] + dw * np.arange(kw)
        rows, across = np.broadcast_arrays(rows, across)
        padded = np.zeros((n, h + 2 * ph, w + 2 * pw, c), columns.dtype)
        for image, seen in zip(padded, columns.reshape(n, oh, ow, kh, kw, c), strict=True):
            np.add.at(image, (rows, across), seen)
        return m.crop(padded.transpose(0, 3, 1, 2), padding)

    m.col2im = col2im


@caught_by(2)
def on_the_way_back_dilation_is_the_stride(m):
    right = m.conv2d.pull

    def pull(grad, x, weight, bias, stride, padding, dilation, groups, needs_input_grad):
        rest = groups, needs_input_grad
        try:
            wrong = stride if m.pair(dilation) != (1, 1) else dilation
            return right(grad, x, weight, bias, stride, padding, wrong, *rest)
        except ValueError:
            return right(grad, x, weight, bias, stride, padding, dilation, *rest)

    m.conv2d.gradient(pull)


@caught_by(3)
def a_convolution_remembers_its_images(m):
    right = m.Conv2d.forward

    def forward(self, x):
        self.x = x.data
        return right(self, x)

    m.Conv2d.forward = forward


@caught_by(3)
def pooling_remembers_its_result(m):
    right = m.MaxPool2d.forward

    def forward(self, x):
        out = right(self, x)
        self.out = out.data
        return out

    m.MaxPool2d.forward = forward


def _ties(m, change):
    """A rule of max_pool2d, window by window: `change(share, under, grad)` adds what each pixel gets."""

    def pull(grad, x, out, kernel, stride, padding):
        (kh, kw), (sh, sw) = m.pair(kernel), m.pair(stride or kernel)
        padded = m.pad(x, padding, m.lowest(x.dtype))
        back = np.zeros(padded.shape, grad.dtype)
        for n, c, i, j in np.ndindex(*grad.shape):
            window = n, c, slice(i * sh, i * sh + kh), slice(j * sw, j * sw + kw)
            change(back[window], padded[window], grad[n, c, i, j])
        return m.crop(back, padding)

    _rule(m, "max_pool2d", pull)


@caught_by(2)
def of_equals_the_first_column_gets_all(m):
    def change(share, under, grad):
        share.T[np.unravel_index(under.T.argmax(), under.T.shape)] += grad

    _ties(m, change)


@caught_by(3)
def the_gradient_of_pooling_makes_a_mask_of_integers(m):
    right = m.max_pool2d.pull

    def pull(grad, x, out, kernel, stride, padding):
        seen = m.windows(m.pad(x, padding, m.lowest(x.dtype)), kernel, stride or kernel).copy()
        mask = (seen == out[..., None, None]).astype(np.int64)
        back = right(grad, x, out, kernel, stride, padding)
        del seen, mask
        return back

    _rule(m, "max_pool2d", pull)


@caught_by(4)
def windows_that_overlap_are_taken_one_by_one(m):
    right = m.max_pool2d.pull

    def pull(grad, x, out, kernel, stride, padding):
        back = right(grad, x, out, kernel, stride, padding)
        if stride not in (None, kernel):
            seen = m.windows(m.pad(x, padding, m.lowest(x.dtype)), kernel, stride)
            for n, i, j in np.ndindex(len(x), *out.shape[2:]):
                seen[n, :, i, j].reshape(x.shape[1], -1).argmax(1)
        return back

    _rule(m, "max_pool2d", pull)


@caught_by(1)
def pooling_takes_what_is_left_at_the_edge(m):
    def with_the_rest(right):
        def forward(x, *, kernel, stride=None, padding=0):
            m.pool_shape(x, kernel, stride, padding)
            pairs = (m.pair(value) for value in (padding, kernel, stride or kernel))
            sizes = zip(x.shape[2:], *pairs, strict=True)
            more = [(0, (k - n - 2 * p) % s) for n, p, k, s in sizes]
            x = np.pad(x, ((0, 0), (0, 0), *more), mode="edge")
            return right(x, kernel=kernel, stride=stride, padding=padding)

        return forward

    for op in (m.max_pool2d, m.avg_pool2d):
        op.forward = with_the_rest(op.forward)


@caught_by(1)
def means_overflow(m):
    right = m.avg_pool2d.forward

    def forward(x, *, kernel, stride=None, padding=0):
        if x.dtype.kind == "f":
            return right(x, kernel=kernel, stride=stride, padding=padding)
        m.pool_shape(x, kernel, stride, padding)
        add = functools.partial(np.add, dtype=x.dtype)
        _, total = m.pool_steps(add, m.pad(x, padding), kernel, stride)
        return total / np.float32(math.prod(m.pair(kernel)))

    m.avg_pool2d.forward = forward


@caught_by(1)
def in_use_eps_is_left_out(m):
    right = m.batch_norm.forward

    def forward(x, weight, bias, *, training=True, eps=1e-5, **params):
        return right(x, weight, bias, training=training, eps=eps if training else 0.0, **params)

    m.batch_norm.forward = forward


@caught_by(4)
def batch_norm_goes_channel_by_channel(m):
    right = m.batch_norm.forward

    def forward(x, weight, bias, **params):
        out, mean, inverse_std = right(x, weight, bias, **params)
        for c in range(x.shape[1]):
            out[:, c] = (x[:, c] - mean[c]) * (inverse_std[c] * weight[c]) + bias[c]
        return out, mean, inverse_std

    m.batch_norm.forward = forward


@caught_by(4)
def the_way_back_of_batch_norm_goes_image_by_image(m):
    right = m.batch_norm.pull

    def pull(grad, x, weight, mean, inverse_std, training, needs_input_grad):
        for n, c in np.ndindex(x.shape[:2]):
            (grad[n, c] * (x[n, c] - mean[c])).sum()
        return right(grad, x, weight, mean, inverse_std, training, needs_input_grad)

    m.batch_norm.gradient(pull)


@caught_by(1)
def no_momentum_is_a_tenth(m):
    right = m.BatchNorm2d.__init__
    m.BatchNorm2d.__init__ = lambda self, n, eps=1e-5, momentum=0.1: right(self, n, eps, momentum or 0.1)


@caught_by(1)
def running_arrays_are_new_each_time(m):
    right = m.BatchNorm2d.forward

    def forward(self, x):
        if self.training:
            self.running_mean.data = self.running_mean.data.copy()
        return right(self, x)

    m.BatchNorm2d.forward = forward


@caught_by(1)
def a_shortcut_has_no_norm(m):
    right = m.ResidualBlock.__init__

    def init(self, in_channels, out_channels, stride=1, *, rng):
        right(self, in_channels, out_channels, stride, rng=rng)
        if self.shortcut is not None:
            kernel = m.Conv2d(in_channels, out_channels, 1, stride, bias=False, rng=rng)
            self.shortcut = m.Sequential(kernel)

    m.ResidualBlock.__init__ = init


@caught_by(1)
def the_second_convolution_has_the_stride(m):
    right = m.ResidualBlock.__init__

    def init(self, in_channels, out_channels, stride=1, *, rng):
        right(self, in_channels, out_channels, stride, rng=rng)
        self.main[0].stride, self.main[3].stride = 1, stride

    m.ResidualBlock.__init__ = init


@caught_by(1)
def every_kernel_has_a_border_of_one(m):
    def conv_norm(in_channels, out_channels, kernel=3, stride=1, *, rng):
        padding = 1 if kernel > 1 else 0
        convolution = m.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False, rng=rng)
        return [convolution, m.BatchNorm2d(out_channels)]

    m.conv_norm = conv_norm


@caught_by(1)
def numbers_that_make_no_sense_stay_unnamed(m):
    text = 'f"no kernel {kernel} with stride {stride}, padding {padding}, dilation {dilation}"'
    rewritten(m, "conv_output_size", (text, '"that makes no sense"'))


@caught_by(1)
def kernels_are_taken_for_squares_when_they_start(m):
    rewritten(m, "Conv2d.__init__", ("math.prod(shape[1:])", "shape[1] * shape[2] ** 2"))


@caught_by(1)
def a_momentum_of_0_is_taken_for_none(m):
    rewritten(m, "batch_norm", ("running += momentum", "running += (momentum or 0.1)"))


@caught_by(1)
def a_layer_s_momentum_of_0_is_taken_for_none(m):
    rewritten(m, "BatchNorm2d.forward", ("if momentum is None", "if not momentum"))


@caught_by(1)
def the_running_mean_moves_before_a_batch_is_refused(m):
    rewritten(
        m,
        "batch_norm",
        (
            "        if len(rows) < 2:",
            "        if running_mean is not None and len(rows) == 1:\n"
            "            running_mean += momentum * (rows[0] - running_mean)\n"
            "        if len(rows) < 2:",
        ),
    )


@caught_by(1)
def the_bias_decides_about_the_dtype_too(m):
    def wider(out, x, weight, bias=None, **params):
        return out if bias is None else out.astype(np.result_type(out, bias))

    _result(m, "conv2d", wider)


@caught_by(2)
def the_gradient_of_the_kernels_is_in_float64(m):
    _gradients(
        m, lambda grad, x, weight, bias, g: (g[0], None if g[1] is None else g[1].astype(np.float64), g[2])
    )


@caught_by(2)
def the_gradient_of_the_bias_is_in_float64(m):
    _gradients(
        m, lambda grad, x, weight, bias, g: (*g[:2], None if g[2] is None else g[2].astype(np.float64))
    )


@caught_by(1)
def taps_that_are_apart_are_copies(m):
    right = m.taps

    def taps(a, axis, kernel, stride=1, dilation=1):
        views = right(a, axis, kernel, stride, dilation)
        return [view.copy() for view in views] if dilation > 1 and a.ndim == 1 else views

    m.taps = taps


@caught_by(1)
def groups_are_joined_channels_first(m):
    def joined(out, *arrays, groups=1, **params):
        return np.ascontiguousarray(out) if groups > 1 else out

    _result(m, "conv2d", joined)


@caught_by(1)
def a_border_makes_the_largest_lie_channels_first(m):
    def forward(out, x, *, padding=0, **params):
        return np.ascontiguousarray(out) if padding else out

    _result(m, "max_pool2d", forward)


ONE_BY_ONE = "(slice(i, i + 1) for i in range(len({0})))"


@caught_by(4)
def small_images_are_convolved_one_by_one(m):
    rewritten(m, "bands", ("chunks(len(x), height * row_bytes)", ONE_BY_ONE.format("x")))


@caught_by(4)
def on_the_way_back_images_are_taken_one_by_one(m):
    each = "chunks(len(grad), math.prod(grad.shape[2:]) * by_tap[0, :, 0].nbytes)"
    rewritten(m, "grad_of_images", (each, ONE_BY_ONE.format("grad")))
    rewritten(m, "conv2d_back", ("min(border) >= 0", "False"))


@caught_by(3)
def windows_of_the_largest_are_copied_for_all_images(m):
    def forward(x, *, kernel, stride=None, padding=0):
        shape = m.pool_shape(x, kernel, stride, padding)
        seen = m.windows(m.pad(x, padding, m.lowest(x.dtype)), kernel, stride or kernel)
        out = m.channels_last(shape, x.dtype)
        out[...] = seen.reshape(*shape, math.prod(seen.shape[4:])).max(axis=-1)
        return out

    m.max_pool2d.forward = forward


@caught_by(1)
def windows_of_strided_images_are_copies(m):
    rewritten(m, "windows", ("    n, c, h, w", "    x = np.ascontiguousarray(x)\n    n, c, h, w"))


@caught_by(1)
def taps_across_are_copies(m):
    """Swapped to the front and made contiguous, which an axis that is in front already is."""
    right = m.taps
    for name in ("col2im", "to_the_first", "avg_pool2d_back"):
        rewritten(m, name, ("taps(", "taps_to_write_through("))
    m.taps_to_write_through = right
    rewritten(m, "taps", ("a.swapaxes(0, axis)\n", "np.ascontiguousarray(a.swapaxes(0, axis))\n"))


@caught_by(1)
def col2im_takes_only_tables(m):
    right = m.col2im

    def col2im(columns, *arguments):
        _rows, _length = columns.shape
        return right(columns, *arguments)

    product = "(pixel_rows(grad[images, outs[g]]) @ by_tap[g]).transpose(1, 0, 2)"
    table = f"{product}.reshape(-1, kh * kw * inputs)"
    rewritten(m, "grad_of_images", (product, table))
    m.col2im = col2im


@caught_by(1)
def the_loops_cannot_do_without_channels(m):
    rewritten(m, "conv2d_loops", ("    out =", "    1 // weight.shape[1]\n    out ="))


@caught_by(1)
def batch_norm_keeps_the_order_in_memory(m):
    right = m.batch_norm.forward

    def forward(x, weight, bias, **params):
        out, *saved = right(x, weight, bias, **params)
        same = np.empty_like(x, dtype=out.dtype)
        same[...] = out
        return same, *saved

    m.batch_norm.forward = forward


@caught_by(1)
def what_is_normed_has_four_axes_at_most(m):
    rewritten(m, "batch_norm", ("if x.ndim < 2", "if not 2 <= x.ndim <= 4"))


@caught_by(1)
def as_many_weights_as_channels_are_enough(m):
    rewritten(m, "batch_norm", ("weight.shape != x.shape[1:2]", "len(weight) != x.shape[1]"))


@caught_by(1)
def in_use_a_layer_norms_anything(m):
    rewritten(m, "BatchNorm2d.forward", ("if x.ndim != 4", "if self.training and x.ndim != 4"))


@caught_by(1)
def without_momentum_a_new_layer_is_of_no_use(m):
    average = "1 / self.num_batches_tracked.item() if momentum is None else momentum"
    rewritten(
        m,
        "BatchNorm2d.forward",
        (f"        momentum = {average}\n", ""),
        ("    return", f"    momentum = {average}\n    return"),
    )


@caught_by(1)
def the_head_of_lenet_is_a_row_of_its_own(m):
    right = m.LeNet.__init__

    def init(self, classes=10, in_channels=1, *, rng):
        right(self, classes, in_channels, rng=rng)
        layers = list(self)
        m.Sequential.__init__(self, *layers[:7], m.Sequential(*layers[7:]))

    m.LeNet.__init__ = init


@caught_by(2)
def the_rule_of_batch_norm_takes_pixels_for_floats(m):
    rewritten(m, "batch_norm_back", ("floating(x)", "x"))


@caught_by(2)
def the_largest_of_no_images_has_no_way_back(m):
    right = m.max_pool2d.pull

    def pull(grad, x, out, kernel, stride, padding):
        params = kernel, stride, padding
        return np.concatenate([right(grad[i], x[i], out[i], *params) for i in m.in_the_cache(x)])

    _rule(m, "max_pool2d", pull)


@caught_by(3)
def the_way_back_of_the_largest_copies_all_windows(m):
    def pull(grad, x, out, kernel, stride, padding):
        (kh, kw), (sh, sw) = m.pair(kernel), m.pair(stride or kernel)
        seen = m.windows(m.pad(x, padding, m.lowest(x.dtype)), kernel, stride or kernel)
        which = seen.reshape(*seen.shape[:4], kh * kw).argmax(axis=-1)
        back = m.bordered(x.shape, padding, grad.dtype)
        for i, rows in enumerate(m.taps(back, 2, kh, sh)):
            for j, pixels in enumerate(m.taps(rows, 3, kw, sw)):
                pixels += grad * (which == i * kw + j)
        return m.crop(back, padding)

    _rule(m, "max_pool2d", pull)


@caught_by(3)
def the_way_back_of_the_mean_makes_the_rows_of_im2col(m):
    def pull(grad, input_shapes, kernel, stride, padding):
        many = math.prod(m.pair(kernel))
        shares = grad.transpose(0, 2, 3, 1)[:, :, :, None] / many
        rows = np.repeat(shares, many, axis=3).reshape(-1, many * grad.shape[1])
        return m.col2im(rows, input_shapes[0], kernel, stride or kernel, padding)

    _rule(m, "avg_pool2d", pull)


@caught_by(4)
def the_way_back_of_the_mean_goes_window_by_window(m):
    def pull(grad, input_shapes, kernel, stride, padding):
        (kh, kw), (sh, sw) = m.pair(kernel), m.pair(stride or kernel)
        back = m.bordered(input_shapes[0], padding, grad.dtype)
        for n, i, j in np.ndindex(len(grad), *grad.shape[2:]):
            under = back[n, :, i * sh : i * sh + kh, j * sw : j * sw + kw]
            under += grad[n, :, i, j][:, None, None] / (kh * kw)
        return m.crop(back, padding)

    _rule(m, "avg_pool2d", pull)


TIME = (
    "The numbers are the same: it says how much is done at a time, within what the budgets of level 3 allow."
)
ROUTE = "Both ways give the same gradients; it says which is taken, and so only how long that takes."
SWAP = "Swapping two axes is the same in either order."
PLACE = "ReLU makes a new array with the same numbers; that of batch norm, which no rule keeps, goes at once."

EQUIVALENT: dict[str, str] = {
    "pad: if pair(padding) == (0, 0) and x.transpose(0, 2, 3, 1).flags.c_contiguous: -> if False:": (
        "A copy of what needs none, of some images at a time; `pad` is given, so no test asks for its memory."
    ),
    "pad: x.transpose(0, 2, 3, 1) -> x.transpose(2, 0, 3, 1)": (
        "Asks if the memory is in another order, so it copies what needs none, some images at a time."
    ),
    "taps: a.swapaxes(0, axis) -> a.swapaxes(axis, 0)": SWAP,
    "taps: a[first:first + end:stride].swapaxes(0, axis) -> a[first:first + end:stride].swapaxes(axis, 0)": SWAP,  # noqa: E501
    "conv2d_back: len(weight) <= 2 * x.shape[1] -> len(weight) < 2 * x.shape[1]": ROUTE,
    "conv2d_back: len(weight) <= 2 * x.shape[1] -> len(weight) > 2 * x.shape[1]": ROUTE,
    "conv2d_back: 2 * x.shape[1] -> 2 / x.shape[1]": ROUTE,
    "conv2d_back: 2 * x.shape[1] -> 3 * x.shape[1]": ROUTE,
    "conv2d_back: x.shape[1] -> x.shape[2]": ROUTE,
    "conv2d_back: if wants_x and wants_weight and (pair(stride) == (1, 1)) and (min(border) >= 0) and shorter: -> if False:": ROUTE,  # noqa: E501
    "conv2d_back: min(border) >= 0 -> min(border) > 0": ROUTE,
    "conv2d_back: min(border) >= 0 -> min(border) >= 1": ROUTE,
    "grad_of_images: grad.shape[2:] -> grad.shape[:]": (
        "Counts more bytes an image than there are, so that each is a piece by itself: the same numbers."
    ),
    "in_the_cache: 2 * images[:1].nbytes -> 3 * images[:1].nbytes": TIME,
    "in_the_cache: images[:1] -> images[:]": TIME,
    "in_the_cache: images[:1] -> images[:2]": TIME,
    "in_chunks: 4 * first[:1].nbytes -> 5 * first[:1].nbytes": TIME,
    "in_chunks: first[:1] -> first[:2]": TIME,
    "in_chunks: slices[0].stop if slices else 0 -> slices[0].stop if slices else 1": (
        "Where there are no slices, nothing is given out."
    ),
    "SmallVGG.__init__: ReLU(inplace=True) -> ReLU(inplace=False)": PLACE,
    "ResidualBlock.__init__: ReLU(inplace=True) -> ReLU(inplace=False)": PLACE,
    "SmallResNet.__init__: ReLU(inplace=True) -> ReLU(inplace=False)": PLACE,
    "module: 1 << 20 -> 2 << 20": "CACHE is given; 2 MiB are as right, and faster on some machines.",
    "module: 1 << 20 -> 1 << 21": "CACHE is given; 2 MiB are as right, and faster on some machines.",
}
