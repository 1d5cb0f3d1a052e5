"""What a trusted grade asks of kata 04: each check on fresh shapes and numbers, its answers as one array."""

import numpy as np

from dojo.strict import Check

# Curves and their slopes, element by element.


def draw_curves(rng):
    shape = tuple(rng.integers(1, 9, 2))
    return {
        "x": rng.normal(scale=3, size=shape),
        "grad": rng.normal(size=shape),
        "slope": np.array([rng.uniform(0.05, 0.9)]),
    }


def run_curves(student, x, grad, slope):
    answers = []
    for op, params in (
        (student.relu, {}),
        (student.leaky_relu, {"negative_slope": float(slope[0])}),
        (student.sigmoid, {}),
        (student.tanh, {}),
        (student.gelu, {}),
    ):
        out, back = op.vjp(x, **params)
        answers += [out.ravel(), np.asarray(back(grad)).ravel()]
    return np.concatenate(answers)


def expected_curves(x, grad, slope):
    right = x > 0
    share = 1 / (1 + np.exp(-x))
    k, c = np.sqrt(2 / np.pi), 0.044715
    t = np.tanh(k * (x + c * x * x * x))
    gelu_slope = (1 + t) / 2 + x * (1 - t * t) / 2 * k * (1 + 3 * c * x * x)
    pairs = (
        (np.where(right, x, 0), right),
        (np.where(right, x, slope * x), np.where(right, 1, slope)),
        (share, share * (1 - share)),
        (np.tanh(x), 1 - np.tanh(x) ** 2),
        (x * (1 + t) / 2, gelu_slope),
    )
    return np.concatenate([part for out, by in pairs for part in (out.ravel(), (grad * by).ravel())])


# Rows: softmax and its logarithm along any axis, by their Jacobians.


def draw_rows(rng):
    shape = tuple(rng.integers(1, 7, 3))
    return {
        "x": rng.normal(scale=4, size=shape) + rng.normal() * 1000,
        "grad": rng.normal(size=shape),
        "axis": rng.integers(-3, 3, 1),
    }


def run_rows(student, x, grad, axis):
    answers = []
    for op in (student.softmax, student.log_softmax):
        out, back = op.vjp(x, axis=int(axis[0]))
        answers += [out.ravel(), np.asarray(back(grad)).ravel()]
    return np.concatenate(answers)


def expected_rows(x, grad, axis):
    axis = int(axis[0])
    rows, grads = np.moveaxis(x, axis, -1), np.moveaxis(grad, axis, -1)
    shares = np.exp(rows - rows.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    eye = np.eye(rows.shape[-1])
    jacobian = shares[..., :, None] * (eye - shares[..., None, :])
    of_logs = eye - shares[..., None, :]
    answers = (
        shares,
        np.einsum("...i,...ij->...j", grads, jacobian),
        rows
        - rows.max(-1, keepdims=True)
        - np.log(np.exp(rows - rows.max(-1, keepdims=True)).sum(-1, keepdims=True)),
        np.einsum("...i,...ij->...j", grads, of_logs),
    )
    return np.concatenate([np.moveaxis(a, -1, axis).ravel() for a in answers])


# At the ends of what floats can hold.


def draw_ends(rng):
    ends = np.array([-np.inf, -1e38, -800.0, -100.0, 0.0, 100.0, 800.0, 1e38, np.inf])
    return {"x": rng.permutation(ends), "row": rng.permutation(np.array([np.inf, np.inf, 1.0, -np.inf]))}


def run_ends(student, x, row):
    with np.errstate(all="raise", under="ignore"):
        curves = [op.forward(x) for op in (student.relu, student.sigmoid, student.gelu)]
        rows = [student.softmax.forward(row), np.exp(student.log_softmax.forward(row))]
    return np.concatenate([np.asarray(a, np.float64) for a in curves + rows])


def expected_ends(x, row):
    big = np.maximum(x, 0)
    share = np.where(x >= 800, 1, np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x))))
    equal = (row == np.inf) / 2
    return np.concatenate([big, share, big, equal, equal])


# In place, on a view: what was written, and what lies beside it.


def draw_places(rng):
    n = rng.integers(2, 9)
    return {"x": rng.normal(size=(n, 2 * n)).astype(np.float32)}


def run_places(student, x):
    answers = []
    for op in (student.relu_, student.leaky_relu_, student.sigmoid_, student.tanh_):
        whole = x.copy()
        half = student.Tensor(whole[:, ::2])
        same = op(half) is half
        answers.append(np.append(whole.ravel(), np.float32(same)))
    return np.concatenate(answers)


def expected_places(x):
    answers = []
    for curve in (
        lambda v: np.maximum(v, 0),
        lambda v: np.where(v > 0, v, 0.01 * v),
        lambda v: 1 / (1 + np.exp(-v)),
        np.tanh,
    ):
        whole = x.astype(np.float64)
        whole[:, ::2] = curve(whole[:, ::2])
        answers.append(np.append(whole.ravel(), 1.0))
    return np.concatenate(answers).astype(np.float32)


# Dropout: a share that is dropped, a factor for the rest, and the same on the way back.


def draw_chances(rng):
    return {
        "x": rng.uniform(1, 2, 40000),
        "p": np.array([rng.uniform(0.2, 0.8)]),
        "seed": rng.integers(0, 1 << 30, 1),
    }


def run_chances(student, x, p, seed):
    out, back = student.dropout.vjp(x, p=float(p[0]), rng=np.random.default_rng(int(seed[0])))
    stays = out != 0
    grad = np.asarray(back(x))
    layer = student.Dropout(float(p[0]), rng=np.random.default_rng(1)).eval()
    used = layer(student.Tensor(x)).data
    return np.array(
        [
            np.abs(stays.mean() - (1 - p[0])) < 0.02,  # six deviations of a share of 40,000 are 0.015
            np.allclose(out[stays], x[stays] / (1 - p[0]), rtol=1e-6),
            np.array_equal(out, grad),
            np.array_equal(used, x),
        ]
    )


def expected_chances(x, p, seed):
    return np.ones(4, bool)


CHECKS = (
    Check("curves and their slopes", draw_curves, run_curves, expected_curves, rtol=1e-8, atol=1e-10),
    Check("rows and their gradients", draw_rows, run_rows, expected_rows, rtol=1e-7, atol=1e-10),
    Check("the ends of floating point", draw_ends, run_ends, expected_ends, rtol=1e-8, atol=1e-300),
    Check("in place on a view", draw_places, run_places, expected_places, rtol=1e-5, atol=1e-6),
    Check("dropout and its way back", draw_chances, run_chances, expected_chances),
)
