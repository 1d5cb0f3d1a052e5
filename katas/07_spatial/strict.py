"""What a trusted grade asks of kata 07: each check on fresh shapes and numbers, its answers as one array."""

import numpy as np

from dojo.strict import Check


def flat(*arrays):
    return np.concatenate([np.ravel(a) for a in arrays])


# A convolution and its gradients, over strides, paddings, dilations and groups.


def draw_convolution(rng):
    groups, ins, outs, n = (int(v) for v in rng.integers(1, 4, 4))
    kernel, stride, dilation = rng.integers(1, 4, 2), rng.integers(1, 4, 2), rng.integers(1, 3, 2)
    padding = rng.integers(0, 3, 2)
    size = dilation * (kernel - 1) + rng.integers(1, 8, 2)
    places = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    return {
        "x": rng.normal(size=(n, groups * ins, *size)),
        "weight": rng.normal(size=(groups * outs, ins, *kernel)),
        "bias": rng.normal(size=groups * outs),
        "grad": rng.normal(size=(n, groups * outs, *places)),
        "params": np.array([*stride, *padding, *dilation]),
    }


def run_convolution(student, x, weight, bias, grad, params):
    sh, sw, ph, pw, dh, dw = params.tolist()
    groups = x.shape[1] // weight.shape[1]
    out, back = student.conv2d.vjp(
        x, weight, bias, stride=(sh, sw), padding=(ph, pw), dilation=(dh, dw), groups=groups
    )
    return np.concatenate(
        [
            np.ravel(a)
            for a in (
                out,
                *back(grad),
            )
        ]
    )


def expected_convolution(x, weight, bias, grad, params):
    sh, sw, ph, pw, dh, dw = params.tolist()
    channels, h, w = x.shape[1:]
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    out = np.zeros(grad.shape) + bias[:, None, None]
    grad_padded, grad_weight = np.zeros(padded.shape), np.zeros(weight.shape)
    inputs, outputs = weight.shape[1], len(weight) * weight.shape[1] // channels
    oh, ow = grad.shape[2:]
    for a, b in np.ndindex(*weight.shape[2:]):
        rows = slice(a * dh, a * dh + (oh - 1) * sh + 1, sh)
        columns = slice(b * dw, b * dw + (ow - 1) * sw + 1, sw)
        for first in range(0, channels, inputs):
            ins = slice(first, first + inputs)
            outs = slice(first // inputs * outputs, (first // inputs + 1) * outputs)
            under, kernel = padded[:, ins, rows, columns], weight[outs, :, a, b]
            out[:, outs] += np.einsum("nchw,oc->nohw", under, kernel)
            grad_weight[outs, :, a, b] += np.einsum("nohw,nchw->oc", grad[:, outs], under)
            grad_padded[:, ins, rows, columns] += np.einsum("nohw,oc->nchw", grad[:, outs], kernel)
    return flat(out, grad_padded[:, :, ph : ph + h, pw : pw + w], grad_weight, grad.sum(axis=(0, 2, 3)))


# The definition, and the rows of im2col.


def draw_rows(rng):
    kernel = rng.integers(1, 4, 2)
    return {
        "x": rng.normal(size=(rng.integers(1, 3), rng.integers(1, 4), *(kernel + rng.integers(0, 5, 2)))),
        "weight": rng.normal(size=(2, 1, *kernel)),
        "stride": rng.integers(1, 3, 2),
    }


def run_rows(student, x, weight, stride):
    kernel, step = tuple(weight.shape[2:]), tuple(stride.tolist())
    rows = student.im2col(x, kernel, step)
    back = student.col2im(rows * np.arange(rows.size).reshape(rows.shape), x.shape, kernel, step)
    slow = student.conv2d_loops(x[:, :1], weight, stride=step)
    return np.concatenate(
        [
            np.ravel(a)
            for a in (
                rows,
                back,
                slow,
                student.windows(x, kernel, step),
            )
        ]
    )


def expected_rows(x, weight, stride):
    kernel = weight.shape[2:]
    seen = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(2, 3))
    seen = seen[:, :, :: int(stride[0]), :: int(stride[1])]
    rows = seen.transpose(0, 2, 3, 4, 5, 1)
    numbers = rows * np.arange(rows.size).reshape(rows.shape)
    back = np.zeros(x.shape)
    for n, i, j, a, b in np.ndindex(*rows.shape[:5]):
        back[n, :, i * stride[0] + a, j * stride[1] + b] += numbers[n, i, j, a, b]
    return flat(rows, back, np.einsum("nhwij,oij->nohw", seen[:, 0], weight[:, 0]), seen)


# Pooling and its gradients; the numbers are few, so that there are ties.


def draw_pool(rng):
    kernel = rng.integers(1, 4, 2)
    return {
        "x": rng.integers(-3, 4, (2, rng.integers(1, 4), *(kernel + rng.integers(0, 7, 2)))).astype(float),
        "params": np.array([*kernel, *rng.integers(1, 4, 2), *(kernel // 2 * rng.integers(0, 2))]),
    }


def run_pool(student, x, params):
    kh, kw, sh, sw, ph, pw = params.tolist()
    answers = []
    for pool in (student.max_pool2d, student.avg_pool2d):
        out, back = pool.vjp(x, kernel=(kh, kw), stride=(sh, sw), padding=(ph, pw))
        answers += [out, back(np.arange(1.0, out.size + 1).reshape(out.shape))]
    return np.concatenate([np.ravel(a) for a in answers])


def expected_pool(x, params):
    kh, kw, sh, sw, ph, pw = params.tolist()
    h, w = x.shape[2:]
    answers = []
    for border in (-np.inf, 0):
        padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=border)
        shape = (*x.shape[:2], (h + 2 * ph - kh) // sh + 1, (w + 2 * pw - kw) // sw + 1)
        out, back = np.zeros(shape), np.zeros(padded.shape)
        grad = np.arange(1.0, out.size + 1).reshape(shape)
        for n, c, i, j in np.ndindex(*shape):
            place = (n, c, slice(i * sh, i * sh + kh), slice(j * sw, j * sw + kw))
            if border:
                out[n, c, i, j] = padded[place].max()
                a, b = np.unravel_index(padded[place].argmax(), (kh, kw))
                back[n, c, i * sh + a, j * sw + b] += grad[n, c, i, j]
            else:
                out[n, c, i, j] = padded[place].mean()
                back[place] += grad[n, c, i, j] / (kh * kw)
        answers += [out, back[:, :, ph : ph + h, pw : pw + w]]
    return flat(*answers)


# Batch norm through training and use, and its gradient.


def draw_norm(rng):
    n, c, h, w = rng.integers(2, 7, 4)
    return {
        "batches": rng.normal(size=(3, n, c, h, w)) * 3 + 5,
        "weight": rng.normal(size=c),
        "bias": rng.normal(size=c),
        "grad": rng.normal(size=(n, c, h, w)),
    }


def run_norm(student, batches, weight, bias, grad):
    layer = student.BatchNorm2d(len(weight), momentum=0.3)
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(layer, name).data = getattr(layer, name).data.astype(np.float64)
    layer.weight.data[:], layer.bias.data[:] = weight, bias
    outs = [layer(student.Tensor(batch)).data for batch in batches[:2]]
    layer.eval()
    outs.append(layer(student.Tensor(batches[2])).data)
    _, back = student.batch_norm.vjp(batches[0], weight, bias)
    state = layer.state_dict()
    return np.concatenate(
        [
            np.ravel(a)
            for a in (
                *outs,
                state["running_mean"],
                state["running_var"],
                *back(grad),
            )
        ]
    )


def expected_norm(batches, weight, bias, grad):
    axes, n = (0, 2, 3), batches[0].size // len(weight)
    column = lambda v: v[:, None, None]  # noqa: E731
    mean, var, outs = np.zeros(len(weight)), np.ones(len(weight)), []
    for batch in batches[:2]:
        m, v = batch.mean(axis=axes), batch.var(axis=axes)
        outs.append((batch - column(m)) / np.sqrt(column(v) + 1e-5) * column(weight) + column(bias))
        mean, var = 0.7 * mean + 0.3 * m, 0.7 * var + 0.3 * v * n / (n - 1)
    outs.append((batches[2] - column(mean)) / np.sqrt(column(var) + 1e-5) * column(weight) + column(bias))
    m, v = batches[0].mean(axis=axes), batches[0].var(axis=axes)
    normal = (batches[0] - column(m)) / np.sqrt(column(v) + 1e-5)
    grad_weight, grad_bias = (grad * normal).sum(axis=axes), grad.sum(axis=axes)
    back = grad - column(grad_bias) / n - normal * column(grad_weight) / n
    back *= column(weight / np.sqrt(v + 1e-5))
    return flat(*outs, mean, var, back, grad_weight, grad_bias)


# A residual block in use, its weights given.


def draw_block(rng):
    ins, outs = (int(v) for v in rng.integers(1, 5, 2))
    return {
        "x": rng.normal(size=(2, ins, *rng.integers(3, 9, 2))).astype(np.float32),
        "first": rng.normal(size=(outs, ins, 3, 3)).astype(np.float32),
        "second": rng.normal(size=(outs, outs, 3, 3)).astype(np.float32),
        "third": rng.normal(size=(outs, ins, 1, 1)).astype(np.float32),
    }


def run_block(student, x, first, second, third):
    block = student.ResidualBlock(first.shape[1], len(first), 2, rng=np.random.default_rng(0)).eval()
    layers = [*block.main, *block.shortcut]
    convolutions = [layer for layer in layers if isinstance(layer, student.Conv2d)]
    for layer, weight in zip(convolutions, (first, second, third), strict=True):
        layer.weight.data[:] = weight
    return block(student.Tensor(x)).data


def expected_block(x, first, second, third):
    def convolve(x, weight, stride):
        p = weight.shape[2] // 2
        x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
        seen = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))
        out = np.einsum("nchwij,ocij->nohw", seen[:, :, ::stride, ::stride], weight)
        return out / np.sqrt(1 + 1e-5)

    main = convolve(np.maximum(convolve(x.astype(np.float64), first, 2), 0), second, 1)
    return np.maximum(main + convolve(x.astype(np.float64), third, 2), 0).astype(np.float32)


CHECKS = (
    Check(
        "a convolution and its gradients", draw_convolution, run_convolution, expected_convolution, rtol=1e-9
    ),
    Check("rows of im2col and back, and the loops", draw_rows, run_rows, expected_rows, rtol=1e-9),
    Check("pooling and its gradients, with ties", draw_pool, run_pool, expected_pool, rtol=1e-9),
    Check("batch norm in training and in use", draw_norm, run_norm, expected_norm, rtol=1e-8),
    Check("a residual block in use", draw_block, run_block, expected_block, rtol=1e-3, atol=1e-3),
)
