"""What a trusted grade asks of kata 06: each check on fresh numbers, its answers as one array."""

import numpy as np

from dojo.strict import Check

# Gradients of an expression with everything in it, some operands stretched.


def draw_expression(rng):
    n, m = rng.integers(2, 9, 2)
    return {
        "x": rng.normal(size=(n, m)),
        "row": rng.uniform(0.5, 2, m),
        "column": rng.uniform(0.5, 2, (n, 1)),
    }


def run_expression(student, x, row, column):
    leaves = [student.Tensor(a, requires_grad=True) for a in (x, row, column)]
    a, b, c = leaves
    h = (a * b - a / c).exp() + b**c
    student.backward((h * h + 1.0).sqrt().sum())
    return np.concatenate([leaf.grad.ravel() for leaf in leaves])


def expected_expression(x, row, column):
    e = np.exp(x * row - x / column)
    h = e + row**column
    slope = h / np.sqrt(h * h + 1)
    for_x = slope * e * (row - 1 / column)
    for_row = slope * (e * x + column * row ** (column - 1))
    for_column = slope * (e * x / column**2 + row**column * np.log(row))
    return np.concatenate([for_x.ravel(), for_row.sum(axis=0), for_column.sum(axis=1)])


# A graph in which results are used again and again.


def draw_recurrence(rng):
    return {"x": rng.normal(size=rng.integers(2, 20)) / 2, "steps": np.array(rng.integers(5, 40))}


def run_recurrence(student, x, steps):
    leaf = student.Tensor(x, requires_grad=True)
    before, now = leaf, leaf * leaf
    for _ in range(int(steps)):
        before, now = now, now * 0.5 + before * leaf * 0.25
    student.backward(now.sum())
    return leaf.grad


def expected_recurrence(x, steps):
    (before, db), (now, dn) = (x, np.ones_like(x)), (x * x, 2 * x)
    for _ in range(int(steps)):
        after = now * 0.5 + before * x * 0.25, dn * 0.5 + (db * x + before) * 0.25
        (before, db), (now, dn) = (now, dn), after
    return dn


# A deep graph, and one with more paths than there are atoms.


def draw_deep(rng):
    return {"x": rng.normal(size=4), "depth": np.array(rng.integers(2000, 4000))}


def run_deep(student, x, depth):
    leaf = student.Tensor(x, requires_grad=True)
    h = leaf
    for _ in range(int(depth)):
        h = h + leaf
    twice = leaf
    for _ in range(100):
        twice = (twice + twice) * 0.5
    student.backward((h + twice).sum())
    return leaf.grad


def expected_deep(x, depth):
    return np.full(4, float(depth) + 2)


# Products of matrices in batches.


def draw_products(rng):
    batch, n, k, m = rng.integers(2, 7, 4)
    return {
        "a": rng.normal(size=(batch, n, k)),
        "b": rng.normal(size=(k, m)),
        "v": rng.normal(size=m),
        "grad": rng.normal(size=(batch, n)),
    }


def run_products(student, a, b, v, grad):
    leaves = [student.Tensor(x, requires_grad=True) for x in (a, b, v)]
    student.backward(leaves[0] @ leaves[1] @ leaves[2], grad)
    return np.concatenate([leaf.grad.ravel() for leaf in leaves])


def expected_products(a, b, v, grad):
    for_a = np.einsum("xn,km,m->xnk", grad, b, v)
    for_b = np.einsum("xn,xnk,m->km", grad, a, v)
    for_v = np.einsum("xn,xnk,km->m", grad, a, b)
    return np.concatenate([for_a.ravel(), for_b.ravel(), for_v])


# Reductions, ties, picking, joining.


def draw_pieces(rng):
    return {
        "x": rng.integers(-3, 4, (rng.integers(2, 8), rng.integers(2, 8))) / 2,
        "rows": rng.integers(0, 2, rng.integers(1, 12)),
    }


def run_pieces(student, x, rows):
    leaf = student.Tensor(x, requires_grad=True)
    picked = leaf[rows].T.reshape(-1)
    reduced = leaf.max(axis=0).sum() * 2.0 + leaf.min(axis=1).sum() + leaf.var(axis=0, correction=0).sum()
    student.backward((picked * picked).mean() + reduced + leaf.clip(-1, 1).abs().sum())
    return leaf.grad


def expected_pieces(x, rows):
    grad = np.zeros_like(x)
    for row in rows:
        grad[row] += 2 * x[row] / (len(rows) * x.shape[1])
    largest, smallest = x == x.max(axis=0), x == x.min(axis=1, keepdims=True)
    grad += 2 * largest / largest.sum(axis=0) + smallest / smallest.sum(axis=1, keepdims=True)
    grad += 2 * (x - x.mean(axis=0)) / len(x)
    return grad + np.sign(x) * (np.abs(x) <= 1)


# Checkpoints: the same gradients, for the parameters as well.


def draw_checkpoints(rng):
    n = rng.integers(2, 6)
    return {"x": rng.normal(size=(3, n)), "weights": rng.normal(size=(6, n, n)) / n}


def run_checkpoints(student, x, weights):
    leaf = student.Tensor(x, requires_grad=True)
    parameters = [student.Tensor(w, requires_grad=True) for w in weights]
    layers = [lambda h, w=w: (h @ w).exp() / (h @ w + 3.0).exp() + h @ w for w in parameters]
    student.backward(student.checkpoint_sequential(layers, 3, leaf).sum())
    return np.concatenate([t.grad.ravel() for t in (leaf, *parameters)])


def expected_checkpoints(x, weights):
    hidden = [x]
    for w in weights:
        hidden.append(np.exp(-3.0) + hidden[-1] @ w)
    grad, found = np.ones_like(hidden[-1]), []
    for h, w in zip(hidden[-2::-1], weights[::-1], strict=True):
        found.append(h.T @ grad)
        grad = grad @ w.T
    return np.concatenate([grad.ravel(), *(g.ravel() for g in found[::-1])])


# Forward mode.


def draw_forward(rng):
    n, m = rng.integers(2, 9, 2)
    return {
        name: rng.normal(size=shape) for name, shape in (("x", (n, m)), ("u", (n, m)), ("w", m), ("v", m))
    }


def run_forward(student, x, u, w, v):
    out, moved = student.jvp(lambda x, w: ((x * w).exp() @ w) / (x * x).sum(), [x, w], [u, v])
    return np.stack([np.asarray(out), np.asarray(moved)])


def expected_forward(x, u, w, v):
    e, square = np.exp(x * w), (x * x).sum()
    top = e @ w
    moved_top = (e * (u * w + x * v)) @ w + e @ v
    return np.stack([top / square, moved_top / square - top * 2 * (x * u).sum() / square**2])


CHECKS = (
    Check("gradients of stretched operands", draw_expression, run_expression, expected_expression),
    Check("results used again and again", draw_recurrence, run_recurrence, expected_recurrence),
    Check("a deep graph, and one of many paths", draw_deep, run_deep, expected_deep, seconds=20.0),
    Check("products in batches", draw_products, run_products, expected_products),
    Check("reductions, ties and picks", draw_pieces, run_pieces, expected_pieces),
    Check("checkpoints", draw_checkpoints, run_checkpoints, expected_checkpoints),
    Check("forward mode", draw_forward, run_forward, expected_forward),
)
