"""What a trusted grade asks of kata 17: each check on fresh shapes and numbers, its answers as one array."""

import numpy as np

from dojo.strict import Check

# Expressions in pieces: gelu over its input, and a chain with operands of other shapes.


def draw_chain(rng):
    rows, columns = int(rng.integers(1, 400)), int(rng.integers(1, 400))
    return {
        "x": rng.normal(size=(rows, columns)) * 3,
        "a": rng.normal(size=columns),
        "b": rng.normal(size=(rows, 1)),
        "y": rng.normal(size=(rows, columns)),
    }


def run_chain(student, x, a, b, y):
    fused = student.scale_shift_add_relu(x, a, b, y).data
    added = student.add_relu(x.T, y.T).data.T

    def steps(part, x, a):
        np.multiply(x, a, out=part)

    product = student.in_chunks(steps, np.empty_like(x), x, a, chunk=1000, threads=2)
    room = x.copy()
    student.fast_gelu(room, out=room)
    return np.concatenate([array.ravel() for array in (fused, added, product, room)])


def expected_chain(x, a, b, y):
    z = 2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    answers = np.maximum(x * a + b + y, 0), np.maximum(x + y, 0), x * a, x / (1 + np.exp(-z))
    return np.concatenate([array.ravel() for array in answers])


# Tiles, and the bytes they move.


def draw_tiles(rng):
    m, k, n = (int(v) for v in rng.integers(1, 80, 3))
    return {
        "a": rng.normal(size=(m, k)),
        "b": rng.normal(size=(k, n)),
        "block": rng.integers(1, 40, 1),
        "cache": rng.integers(1000, 10**7, 1),
    }


def run_tiles(student, a, b, block, cache):
    side, (m, k), n = int(block[0]), a.shape, b.shape[1]
    counts = []

    def product(one, other):
        counts.append(one.size + other.size)
        return one @ other

    out = student.blocked_matmul(a, b, side, product)
    traffic = student.matmul_traffic(m, n, k, side, 8)
    numbers = [traffic, sum(counts), student.block_for(int(cache[0]), 8)]
    return np.concatenate([out.ravel(), np.array(numbers, float)])


def expected_tiles(a, b, block, cache):
    side, (m, k), n = int(block[0]), a.shape, b.shape[1]
    read = m * k * -(-n // side) + k * n * -(-m // side)
    largest = int(np.sqrt(int(cache[0]) / 24))
    return np.concatenate([(a @ b).ravel(), np.array([8 * (read + m * n), read, largest], float)])


# A layer with gelu, and the way back.


def draw_layer(rng):
    rows, inputs, outputs = int(rng.integers(1, 500)), int(rng.integers(1, 20)), int(rng.integers(1, 400))
    return {
        "x": rng.normal(size=(rows, inputs)),
        "weight": rng.normal(size=(outputs, inputs)),
        "bias": rng.normal(size=outputs),
        "grad": rng.normal(size=(rows, outputs)),
    }


def run_layer(student, x, weight, bias, grad):
    out, back = student.linear_gelu.vjp(x, weight, bias)
    return np.concatenate([np.ravel(array) for array in (out, *back(grad))])


def expected_layer(x, weight, bias, grad):
    h = x @ weight.T + bias
    scale = 2 * np.sqrt(2 / np.pi)
    share = 1 / (1 + np.exp(-scale * (h + 0.044715 * h**3)))
    slope = share + h * share * (1 - share) * scale * (1 + 3 * 0.044715 * h**2)
    back = grad * slope
    return np.concatenate([a.ravel() for a in (h * share, back @ weight, back.T @ x, back.sum(axis=0))])


# A loss, and its slopes twice.


def draw_loss(rng):
    n, classes = int(rng.integers(1, 900)), int(rng.integers(2, 300))
    return {"logits": rng.normal(size=(n, classes)) * 10, "labels": rng.integers(0, classes, n)}


def run_loss(student, logits, labels):
    out, back = student.softmax_cross_entropy.vjp(logits, labels)
    first = np.array(back(np.float64(1.0))[0])
    return np.concatenate([np.ravel(out), first.ravel(), np.ravel(back(np.float64(-2.0))[0])])


def expected_loss(logits, labels):
    off = logits - logits.max(axis=1, keepdims=True)
    shares = np.exp(off)
    sums = shares.sum(axis=1, keepdims=True)
    rows = np.arange(len(logits))
    loss = (np.log(sums[:, 0]) - off[rows, labels]).mean()
    shares /= sums
    shares[rows, labels] -= 1
    shares /= len(logits)
    return np.concatenate([[loss], shares.ravel(), -2 * shares.ravel()])


# Adam on long arrays; some gradients are missing.


def draw_adam(rng):
    sizes = rng.integers(0, 60, 6)
    sizes[rng.integers(0, 6)] = 70_000
    return {
        "sizes": sizes,
        "start": rng.normal(size=int(sizes.sum())),
        "grads": rng.normal(size=(4, int(sizes.sum()))),
        "there": rng.random((4, 6)) < 0.7,
        "decoupled": rng.random(1) < 0.5,
    }


def run_adam(student, sizes, start, grads, there, decoupled):
    cuts = np.cumsum(sizes)[:-1]
    params = [student.Parameter(part.copy()) for part in np.split(start, cuts)]
    options = {"lr": 0.05, "betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": 0.1}
    optimizer = student.FusedAdam(params, **options, decoupled=bool(decoupled[0]))
    for step in range(4):
        for p, grad, is_there in zip(params, np.split(grads[step], cuts), there[step], strict=True):
            p.grad = grad.copy() if is_there else None
        optimizer.step()
    return np.concatenate([p.data for p in params])


def expected_adam(sizes, start, grads, there, decoupled):
    wanted = np.repeat(there, sizes, axis=1)
    data, mean, square, count = start.copy(), np.zeros_like(start), np.zeros_like(start), np.zeros_like(start)
    for grad, moves in zip(grads, wanted, strict=True):
        if decoupled[0]:
            data[moves] *= 1 - 0.05 * 0.1
        else:
            grad = grad + 0.1 * data
        count[moves] += 1
        mean[moves] = 0.7 * mean[moves] + 0.3 * grad[moves]
        square[moves] = 0.9 * square[moves] + 0.1 * grad[moves] ** 2
        m, v = mean[moves] / (1 - 0.7 ** count[moves]), square[moves] / (1 - 0.9 ** count[moves])
        data[moves] -= 0.05 * m / (np.sqrt(v) + 1e-3)
    return data


# A convolution by tiles, there and back.


def draw_convolution(rng):
    n, c, o = (int(v) for v in rng.integers(1, 9, 3))
    h, w = (int(v) for v in rng.integers(1, 40, 2))
    return {
        "x": rng.normal(size=(n, c, h, w)),
        "weight": rng.normal(size=(o, c, 3, 3)),
        "grad": rng.normal(size=(n, o, h, w)),
    }


def run_convolution(student, x, weight, grad):
    out, back = student.winograd_conv2d.vjp(x, weight)
    return np.concatenate([np.ravel(array) for array in (out, *back(grad))])


def expected_convolution(x, weight, grad):
    n, c, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))).transpose(0, 2, 3, 1)
    upstream = grad.transpose(0, 2, 3, 1)
    out = np.zeros((n, h, w, len(weight)))
    for_padded, for_weight = np.zeros_like(padded), np.zeros_like(weight)
    for a in range(3):
        for b in range(3):
            seen = padded[:, a : a + h, b : b + w]
            out += seen @ weight[:, :, a, b].T
            for_padded[:, a : a + h, b : b + w] += upstream @ weight[:, :, a, b]
            for_weight[:, :, a, b] = upstream.reshape(-1, len(weight)).T @ seen.reshape(-1, c)
    for_x = for_padded[:, 1:-1, 1:-1]
    answers = out.transpose(0, 3, 1, 2), for_x.transpose(0, 3, 1, 2), for_weight
    return np.concatenate([array.ravel() for array in answers])


CHECKS = (
    Check("expressions in pieces", draw_chain, run_chain, expected_chain, rtol=1e-9, atol=1e-9),
    Check("tiles and their traffic", draw_tiles, run_tiles, expected_tiles, rtol=1e-9, atol=1e-9),
    Check("a layer with gelu, there and back", draw_layer, run_layer, expected_layer, rtol=1e-8, atol=1e-8),
    Check("a loss and its slopes", draw_loss, run_loss, expected_loss, rtol=1e-8, atol=1e-10),
    Check("Adam on long arrays", draw_adam, run_adam, expected_adam, rtol=1e-8, atol=1e-10),
    Check("a convolution by tiles", draw_convolution, run_convolution, expected_convolution, atol=1e-7),
)
