"""What a trusted grade asks of kata 18: each check on fresh shapes and numbers, its answers as one array."""

import numpy as np

from dojo.strict import Check


def flat(*arrays):
    return np.concatenate([np.ravel(a).astype(np.float64) for a in arrays])


# Which weights go, all together and again.


def draw_masks(rng):
    shapes = rng.integers(1, 7, (2, 2))
    sizes = shapes.prod(axis=1)
    return {
        "shapes": shapes,
        "weights": rng.integers(-4, 5, sizes.sum()) / 4,  # many are equal
        "shares": np.sort(rng.random(2)),
        "bits": rng.random((int(rng.integers(1, 9)), 5)) < 0.3,
        "steps": np.array([*rng.integers(0, 40, 3), 10, 30]),
    }


def run_masks(student, shapes, weights, shares, bits, steps):
    class Pair(student.Module):
        def __init__(self):
            self.parts = []

    class Part(student.Module):
        def __init__(self, array):
            self.weight = student.Parameter(array)

    model, at = Pair(), 0
    for shape in shapes.tolist():
        size = shape[0] * shape[1]
        model.parts.append(Part(weights[at : at + size].reshape(shape).copy()))
        at += size
    answers = [np.ravel(student.magnitude_mask(weights, float(shares[0])))]
    for share in shares:
        masks = student.prune_global(model, float(share))
        answers += [np.ravel(mask) for mask in masks.values()]
        answers += [part.weight.data.ravel().copy() for part in model.parts]
    sizes = student.sparse_bytes(bits, 4)
    answers.append(np.array([sizes["dense"], sizes["bitmap"], sizes["csr"]]))
    answers.append(np.array([student.gradual_sparsity(int(n), 10, 30, 0.9, 0.2) for n in steps]))
    return np.concatenate([np.asarray(a, np.float64) for a in answers])


def expected_masks(shapes, weights, shares, bits, steps):
    def stays(share):
        mask = np.ones(len(weights), bool)
        order = sorted(range(len(weights)), key=lambda i: (abs(weights[i]), i))
        mask[order[: round(share * len(weights))]] = False
        return mask

    answers = [stays(float(shares[0]))]
    for share in shares:
        mask = stays(float(share))
        answers += [mask, np.where(mask, weights, 0)]
    kept = int(bits.sum())
    answers.append([4 * bits.size, -(-bits.size // 8) + 4 * kept, 8 * kept + 4 * (len(bits) + 1)])
    rising = np.clip((steps - 10) / 20, 0, 1)
    answers.append(0.9 - 0.7 * (1 - rising) ** 3)
    return flat(*answers)


# Smaller layers.


def draw_layers(rng):
    inputs, hidden, outputs = (int(n) for n in rng.integers(2, 8, 3))
    channels = int(rng.integers(2, 6))
    return {
        "first": rng.normal(size=(hidden, inputs + 1)),
        "second": rng.normal(size=(outputs, hidden)),
        "kernels": rng.normal(size=(channels, 2, 3, 3)),
        "read": rng.normal(size=(3, channels * 4)),
        "keep": np.array([rng.integers(1, hidden + 1), rng.integers(1, channels + 1)]),
    }


def run_layers(student, first, second, kernels, read, keep):
    rng = np.random.default_rng(0)
    one = student.Linear(first.shape[1] - 1, len(first), rng=rng)
    two = student.Linear(second.shape[1], len(second), bias=False, rng=rng)
    one.weight.data, one.bias.data, two.weight.data = first[:, :-1].copy(), first[:, -1].copy(), second
    conv = student.Conv2d(2, len(kernels), 3, bias=False, rng=rng)
    linear = student.Linear(read.shape[1], len(read), bias=False, rng=rng)
    conv.weight.data, linear.weight.data = kernels, read
    smaller = student.prune_neurons(one, two, int(keep[0]))
    less, _, reader = student.prune_channels(conv, None, linear, int(keep[1]))
    found = smaller[0].weight, smaller[0].bias, smaller[1].weight, less.weight, reader.weight
    return np.concatenate([np.ravel(p.data) for p in found])


def expected_layers(first, second, kernels, read, keep):
    rows = first[:, :-1]
    strength = np.sqrt((rows**2).sum(1) * (second**2).sum(0))
    kept = np.sort(np.argsort(strength)[len(strength) - keep[0] :])
    channels = np.sort(np.argsort(abs(kernels).sum((1, 2, 3)))[len(kernels) - keep[1] :])
    columns = (channels[:, None] * 4 + np.arange(4)).ravel()
    return flat(rows[kept], first[kept, -1], second[:, kept], kernels[channels], read[:, columns])


# Grids.


def draw_grids(rng):
    shape = tuple(rng.integers(1, 6, 2))
    return {
        "x": rng.normal(size=shape) * 10 ** rng.uniform(-3, 3, (shape[0], 1)),
        "options": np.array([rng.integers(3, 17), rng.integers(0, 2), rng.integers(0, 3)]),
        "ends": np.sort(rng.normal(size=2)),
        "grad": rng.normal(size=shape),
    }


def run_grids(student, x, options, ends, grad):
    bits, symmetric, axis = int(options[0]), bool(options[1]), (None, 0, 1)[int(options[2])]
    answers = []
    for within in (None, (float(ends[0]), float(ends[1]))):
        q = student.quantize(x, bits, axis, symmetric, within)
        out, back = student.fake_quantize.vjp(x, bits=bits, axis=axis, symmetric=symmetric, within=within)
        slope = back(grad)
        answers += [q.values, q.scale, q.zero_point, q.dequantize(), out]
        answers.append(slope[0] if isinstance(slope, (tuple, list)) else slope)
    return np.concatenate([np.ravel(a).astype(np.float64) for a in answers])


def expected_grids(x, options, ends, grad):
    bits, symmetric, axis = int(options[0]), bool(options[1]), (None, 0, 1)[int(options[2])]
    lowest, highest = -(2 ** (bits - 1)) + symmetric, 2 ** (bits - 1) - 1
    others = (0, 1) if axis is None else (1 - axis,)
    answers = []
    for within in (None, ends):
        low, high = x.min(axis=others, keepdims=True), x.max(axis=others, keepdims=True)
        if within is not None:
            low, high = np.full_like(low, within[0]), np.full_like(high, within[1])
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        if symmetric:
            scale, zero = np.maximum(-low, high) / highest, np.zeros(low.shape)
        else:
            scale = (high - low) / (highest - lowest)
            zero = np.rint(lowest - low / scale)
        values = np.clip(np.rint(x / scale) + zero, lowest, highest)
        back = (values - zero) * scale
        slope = grad
        if within is not None:
            low, high = (-scale * highest, scale * highest) if symmetric else (low, high)
            slope = grad * ((x >= low * (1 + 1e-12)) & (x <= high * (1 + 1e-12)))
        answers += [values, scale, zero, back, back, slope]
    return flat(*answers)


# Products of integers, and a layer.


def draw_products(rng):
    m, k, n = (int(s) for s in rng.integers(1, 7, 3))
    k *= int(rng.choice([1, 300]))
    return {
        "a": rng.integers(-128, 128, (m, k)),
        "b": rng.integers(-128, 128, (k, n)),
        "zeros": rng.integers(-128, 128, 1 + n),
        "scales": 2.0 ** rng.integers(-6, 3, 1 + n),
        "weight": rng.normal(size=(n, 5)),
        "bias": rng.normal(size=n),
        "x": rng.normal(size=(m, 5)),
    }


def run_products(student, a, b, zeros, scales, weight, bias, x):
    exact = student.integer_matmul(a.astype(np.int8), b.astype(np.int16))
    right = student.QuantizedArray(b.astype(np.int8), scales[1:], zeros[1:].astype(np.int8), 1)
    left = student.QuantizedArray(
        a.astype(np.int8), np.asarray(scales[0]), np.asarray(zeros[0], np.int8), None
    )
    linear = student.Linear(5, len(weight), rng=np.random.default_rng(0))
    linear.weight.data, linear.bias.data = weight, bias
    layers = [student.QuantizedLinear(linear), student.QuantizedLinear(linear, input_range=(-1.0, 2.0))]
    outs = [layer(student.Tensor(x)).data for layer in layers]
    answers = (exact, student.quantized_matmul(left, right), *outs)
    return np.concatenate([np.ravel(o).astype(np.float64) for o in answers])


def expected_products(a, b, zeros, scales, weight, bias, x):
    scale = abs(weight).max(axis=1, keepdims=True) / 127
    rounded = np.rint(weight / scale) * scale
    step = 3 / 255
    zero = np.rint(-128 + 1 / step)
    inputs = (np.clip(np.rint(x / step) + zero, -128, 127) - zero) * step
    product = (a - zeros[0]) @ (b - zeros[1:]) * scales[0] * scales[1:]
    return flat(a @ b, product, x @ rounded.T + bias, inputs @ rounded.T + bias)


# A loss and its gradient.


def draw_loss(rng):
    n, classes = int(rng.integers(1, 6)), int(rng.integers(2, 7))
    return {
        "student_logits": rng.normal(size=(n, classes)) * 3,
        "teacher_logits": rng.normal(size=(n, classes)) * 3,
        "labels": rng.integers(0, classes, n),
        "options": np.array([rng.uniform(0.5, 8), rng.random(), rng.normal()]),
    }


def run_loss(student, student_logits, teacher_logits, labels, options):
    temperature, alpha, grad = options.tolist()
    out, back = student.distillation_loss.vjp(
        student_logits, teacher_logits, labels, temperature=temperature, alpha=alpha
    )
    slope = back(np.array(grad))
    slope = slope[0] if isinstance(slope, (tuple, list)) else slope
    return np.concatenate([np.ravel(out), np.ravel(slope)]).astype(np.float64)


def expected_loss(student_logits, teacher_logits, labels, options):
    temperature, alpha, grad = options.tolist()

    def softmax(x):
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    n, classes = student_logits.shape
    hard = softmax(student_logits)
    p, q = softmax(teacher_logits / temperature), softmax(student_logits / temperature)
    one_hot = np.eye(classes)[labels]
    loss = alpha * temperature**2 * (p * np.log(p / q)).sum() - (1 - alpha) * (one_hot * np.log(hard)).sum()
    slope = alpha * temperature * (q - p) + (1 - alpha) * (hard - one_hot)
    return flat(loss / n, slope * grad / n)


# Files.


def draw_files(rng):
    return {
        "a": rng.normal(size=rng.integers(1, 9, 2)) * (rng.random() < 0.5),
        "b": (rng.integers(-5, 6, 200) * (rng.random(200) < 0.2)),
        "where": rng.random(20),
    }


def run_files(student, a, b, where):
    import os
    import tempfile

    class Holding(student.Module):
        def __init__(self):
            self.a, self.b = student.Buffer(a), student.Buffer(b.astype(np.int8))

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model")
        student.save_compressed(Holding(), path)
        found = student.load_compressed(path)
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            raw = file.read()
        whole = 0
        for share in where:
            with open(path, "wb") as file:
                file.write(raw[: int(share * len(raw))])
            try:
                student.load_compressed(path)
            except ValueError:
                whole += 1
    rows = student.size_report(Holding())
    small = size <= rows[-1].stored + 2048
    numbers = [float(n) for row in rows for n in (row.dense, row.stored, row.sparsity)]
    answers = (found["a"], found["b"], [small, whole, found["b"].dtype.itemsize], numbers)
    return np.concatenate([np.ravel(o).astype(np.float64) for o in answers])


def expected_files(a, b, where):
    numbers = []
    zeros = sizes = 0
    dense = stored = 0
    for array, itemsize in ((a, 8), (b, 1)):
        kept = int(np.count_nonzero(array))
        size = array.size * itemsize
        least = min(size, -(-array.size // 8) + kept * itemsize)
        numbers += [size, least, 1 - kept / array.size]
        zeros, sizes = zeros + array.size - kept, sizes + array.size
        dense, stored = dense + size, stored + least
    return flat(a, b, [1, len(where), 1], [*numbers, dense, stored, zeros / sizes])


CHECKS = (
    Check("which weights go, and when", draw_masks, run_masks, expected_masks),
    Check("smaller layers", draw_layers, run_layers, expected_layers),
    Check("grids, and slopes of stairs", draw_grids, run_grids, expected_grids, rtol=1e-9, atol=1e-12),
    Check("products of integers", draw_products, run_products, expected_products, rtol=1e-9),
    Check("a loss and its gradient", draw_loss, run_loss, expected_loss, rtol=1e-9),
    Check("files and their sizes", draw_files, run_files, expected_files),
)
