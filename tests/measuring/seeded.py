"""Operations with right gradients, and the mistakes people make in them.

`OPS` maps a name to (forward and rule, inputs).  `BUGS` maps a mistake to the op it spoils and its wrong
rule.  Everything here is an Op as the gradient checker sees one: `name`, `inputs`, `vjp`.
"""

from __future__ import annotations

import inspect

import numpy as np


class Op:
    def __init__(self, both, name=None):
        self.both, self.name = both, name or both.__name__
        kinds = inspect.signature(both).parameters.values()
        self.inputs = tuple(p.name for p in kinds if p.kind is not p.KEYWORD_ONLY)

    def vjp(self, *arrays, **params):
        return self.both(*arrays, **params)


def unstretch(g, shape, fold=np.sum):
    """Sum `g` over the axes along which `shape` was broadcast."""
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and g.shape[i] != 1)
    return fold(g, axis=axes, keepdims=True) if axes else g


# Each op returns its output and the way back.


def add(a, b):
    return a + b, lambda g: (unstretch(g, a.shape), unstretch(g, b.shape))


def mul(a, b):
    return a * b, lambda g: (unstretch(g * b, a.shape), unstretch(g * a, b.shape))


def div(a, b):
    return a / b, lambda g: (unstretch(g / b, a.shape), unstretch(-g * a / b**2, b.shape))


def square(x):
    return x**2, lambda g: 2 * g * x


def matmul(a, b):
    return a @ b, lambda g: (g @ np.swapaxes(b, -1, -2), np.swapaxes(a, -1, -2) @ g)


def affine(x, weight, bias):
    return x @ weight + bias, lambda g: (g @ weight.T, x.T @ g, g.sum(axis=0))


def relu(x):
    return np.maximum(x, 0), lambda g: g * (x > 0)


def absolute(x):
    return np.abs(x), lambda g: g * np.sign(x)


def tanh(x):
    out = np.tanh(x)
    return out, lambda g: g * (1 - out * out)


def sigmoid(x):
    out = 1 / (1 + np.exp(-x))
    return out, lambda g: g * out * (1 - out)


def exp(x):
    out = np.exp(x)
    return out, lambda g: g * out


def log(x):
    return np.log(x), lambda g: g / x


def total(x, *, axis):
    return x.sum(axis=axis), lambda g: np.broadcast_to(np.expand_dims(g, axis), x.shape)


def mean(x, *, axis):
    return x.mean(axis=axis), lambda g: np.broadcast_to(np.expand_dims(g, axis), x.shape) / x.shape[axis]


def largest(x, *, axis):
    top = x.max(axis=axis, keepdims=True)

    def back(g):
        mask = x == top
        return np.expand_dims(g, axis) * mask / mask.sum(axis=axis, keepdims=True)

    return top.squeeze(axis), back


def softmax(x, *, axis=-1):
    weights = np.exp(x - x.max(axis=axis, keepdims=True))
    out = weights / weights.sum(axis=axis, keepdims=True)
    return out, lambda g: out * (g - (g * out).sum(axis=axis, keepdims=True))


def cross_entropy(logits, labels):
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))

    def back(g):
        share = np.exp(logs)
        share[rows, labels] -= 1
        return g * share / len(labels)

    return -logs[rows, labels].mean(), back


def layer_norm(x, weight, bias, *, backward_eps=1e-5, constant_variance=False):
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    normed = centred / np.sqrt(variance + 1e-5)

    def back(g):
        scale = 1 / np.sqrt(variance + backward_eps)
        inner = g * weight
        along = 0 if constant_variance else normed * (inner * normed).mean(axis=-1, keepdims=True)
        return (
            scale * (inner - inner.mean(axis=-1, keepdims=True) - along),
            unstretch(g * normed, weight.shape),
            unstretch(g, bias.shape),
        )

    return normed * weight + bias, back


def embedding(table, ids):
    def back(g):
        share = np.zeros(table.shape)
        np.add.at(share, ids, g)
        return share, None

    return table[ids], back


def rows_one_to_three(x):
    def back(g):
        share = np.zeros(x.shape)
        share[1:4] = g
        return share

    return x[1:4], back


def to_columns(x):
    """(2, 3, 2) to (6, 2), then transposed."""
    return x.reshape(6, 2).T, lambda g: g.T.reshape(x.shape)


def permute(x):
    return x.transpose(1, 2, 0), lambda g: g.transpose(2, 0, 1)


def conv(x, weight, *, flipped=False):
    """Same-size 3x3 convolution of (N, C, H, W) with (O, C, 3, 3)."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))

    def back(g):
        wide, high, across = np.zeros(padded.shape), x.shape[2], x.shape[3]
        used = weight[:, :, ::-1, ::-1] if flipped else weight
        for i in range(3):
            for j in range(3):
                wide[:, :, i : i + high, j : j + across] += np.einsum("nohw,oc->nchw", g, used[:, :, i, j])
        return wide[:, :, 1:-1, 1:-1], np.einsum("nohw,nchwij->ocij", g, windows)

    return np.einsum("nchwij,ocij->nohw", windows, weight), back


def attention(q, k, v):
    weights, softmax_back = softmax(q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]))

    def back(g):
        scores = softmax_back(g @ np.swapaxes(v, -1, -2)) / np.sqrt(q.shape[-1])
        return scores @ k, np.swapaxes(scores, -1, -2) @ q, np.swapaxes(weights, -1, -2) @ g

    return weights @ v, back


def dropout(x, *, rng):
    mask = (rng.random(x.shape) >= 0.3) / 0.7
    return x * mask, lambda g: g * mask


def _away_from_zero(rng, *shape):
    x = rng.normal(size=shape)
    return x + np.sign(x)


def _with_ties(rng):
    x = np.round(2 * rng.normal(size=(8, 4)))
    x[0, :2] = x[0].max()
    return x


OPS = {
    "add, broadcast": (add, lambda r: (r.normal(size=(3, 1, 4)), r.normal(size=(2, 1))), {}),
    "mul, broadcast": (mul, lambda r: (r.normal(size=(2, 3)), r.normal(size=3)), {}),
    "div": (div, lambda r: (r.normal(size=(3, 2)), _away_from_zero(r, 2)), {}),
    "square": (square, lambda r: (r.normal(size=(3, 4)),), {}),
    "square of large and small": (square, lambda r: (10 ** r.uniform(-4, 4, 12),), {}),
    "matmul, square": (matmul, lambda r: (r.normal(size=(3, 3)), r.normal(size=(3, 3))), {}),
    "matmul, batched": (matmul, lambda r: (r.normal(size=(2, 3, 4)), r.normal(size=(2, 4, 2))), {}),
    "affine": (affine, lambda r: (r.normal(size=(4, 3)), r.normal(size=(3, 5)), r.normal(size=5)), {}),
    "relu": (relu, lambda r: (r.normal(size=(4, 5)),), {}),
    "relu, many": (relu, lambda r: (r.normal(size=(40, 30)),), {}),
    "relu, with zeros": (relu, lambda r: (np.where(r.random((4, 5)) < 0.1, 0, r.normal(size=(4, 5))),), {}),
    "abs": (absolute, lambda r: (r.normal(size=12),), {}),
    "tanh": (tanh, lambda r: (r.normal(size=(3, 4)),), {}),
    "sigmoid": (sigmoid, lambda r: (3 * r.normal(size=(3, 4)),), {}),
    "exp": (exp, lambda r: (2 * r.normal(size=(3, 4)),), {}),
    "log": (log, lambda r: (r.uniform(0.05, 3, (3, 4)),), {}),
    "sum": (total, lambda r: (r.normal(size=(3, 3)),), {"axis": 1}),
    "mean": (mean, lambda r: (r.normal(size=(3, 4)),), {"axis": 0}),
    "max": (largest, lambda r: (r.normal(size=(4, 5)),), {"axis": 1}),
    "max, tied": (largest, lambda r: (_with_ties(r),), {"axis": 1}),
    "softmax": (softmax, lambda r: (r.normal(size=(3, 4)),), {"axis": 1}),
    "softmax, sharp": (softmax, lambda r: (8 * r.normal(size=(3, 4)),), {}),
    "cross entropy": (cross_entropy, lambda r: (r.normal(size=(5, 3)), r.integers(0, 3, 5)), {}),
    "layer norm": (layer_norm, lambda r: (r.normal(size=(3, 6)), r.normal(size=6), r.normal(size=6)), {}),
    "embedding": (embedding, lambda r: (r.normal(size=(5, 3)), np.array([0, 2, 2, 4])), {}),
    "slice": (rows_one_to_three, lambda r: (r.normal(size=(5, 3)),), {}),
    "reshape": (to_columns, lambda r: (r.normal(size=(2, 3, 2)),), {}),
    "permute": (permute, lambda r: (r.normal(size=(2, 3, 2)),), {}),
    "permute, cube": (permute, lambda r: (r.normal(size=(3, 3, 3)),), {}),
    "conv": (conv, lambda r: (r.normal(size=(2, 2, 4, 4)), r.normal(size=(3, 2, 3, 3))), {}),
    "attention": (attention, lambda r: tuple(r.normal(size=(2, 4, 3)) for _ in range(3)), {}),
    "dropout": (dropout, lambda r: (r.normal(size=(4, 5)),), {"rng": np.random.default_rng(5)}),
    "a scalar": (tanh, lambda r: (np.array(r.normal()),), {}),
    "nothing at all": (tanh, lambda r: (np.zeros((0, 3)),), {}),
}


def spoiled(op, wrong):
    """`op` with the gradients that `wrong(gradients, g, out, inputs)` makes of the right ones."""

    def both(*arrays, **params):
        out, back = op(*arrays, **params)
        return out, lambda g: wrong(back, g, out, arrays)

    both.__signature__ = inspect.signature(op)
    both.__name__ = op.__name__
    return both


def _set(array, index, value):
    changed = np.array(array)
    changed.flat[index] = value
    return changed


def _overwrites_cotangent(back, g, out, arrays):
    g *= out * (1 - out)
    return g


def _writes_into_input(back, g, out, arrays):
    share = back(g)
    arrays[0][...] = 0
    return share


def _remembers(calls=[0]):  # noqa: B006, the point is that it remembers
    calls[0] += 1
    return calls[0] % 2


def _f_order_reshape(back, g, out, arrays):
    x = arrays[0]
    return back(g) if x.flags.c_contiguous else g.T.reshape(x.shape, order="F")


def _reads_memory_in_order(back, g, out, arrays):
    """tanh's slope from the flat memory of x, as a C extension that ignores strides would."""
    x = arrays[0]
    flat = np.lib.stride_tricks.as_strided(x, (x.size,), (x.itemsize,)).reshape(x.shape)
    return g * (1 - np.tanh(flat) ** 2)


def _spoils_an_element(factor, place):
    def wrong(back, g, out, arrays):
        share = np.array(back(g))
        alive = np.flatnonzero(arrays[0].ravel() > 0)
        return _set(share, alive[place], share.flat[alive[place]] * factor)

    return wrong


BUGS = {
    "never sums over stretched axes": (
        "mul, broadcast",
        spoiled(mul, lambda back, g, out, i: (g * i[1], g * i[0])),
    ),
    "averages over stretched axes": (
        "add, broadcast",
        spoiled(
            add, lambda b, g, o, i: (unstretch(g, i[0].shape, np.mean), unstretch(g, i[1].shape, np.mean))
        ),
    ),
    "wrong sign for one input": ("mul, broadcast", spoiled(mul, lambda b, g, o, i: (b(g)[0], -b(g)[1]))),
    "divides by b, not its square": (
        "div",
        spoiled(div, lambda b, g, o, i: (b(g)[0], unstretch(-g * i[0] / i[1], i[1].shape))),
    ),
    "forgets the factor 2": ("square", spoiled(square, lambda b, g, o, i: g * i[0])),
    "does not transpose a square matrix": (
        "matmul, square",
        spoiled(matmul, lambda b, g, o, i: (g @ i[1], b(g)[1])),
    ),
    "sums the bias over the wrong axis": (
        "affine",
        spoiled(affine, lambda b, g, o, i: (*b(g)[:2], np.resize(g.sum(axis=1), 5))),
    ),
    "mask from the incoming gradient": ("relu", spoiled(relu, lambda b, g, o, i: g * (g > 0))),
    "one element of 1200 is zero": ("relu, many", spoiled(relu, _spoils_an_element(0.0, 300))),
    "no sign in abs": ("abs", spoiled(absolute, lambda b, g, o, i: g)),
    "1e-2 too large": ("tanh", spoiled(tanh, lambda b, g, o, i: b(g) * 1.01)),
    "1e-3 too large": ("tanh", spoiled(tanh, lambda b, g, o, i: b(g) * 1.001)),
    "1e-4 too large": ("tanh", spoiled(tanh, lambda b, g, o, i: b(g) * 1.0001)),
    "1e-5 too large": ("tanh", spoiled(tanh, lambda b, g, o, i: b(g) * 1.00001)),
    "clips the gradient": ("tanh", spoiled(tanh, lambda b, g, o, i: np.clip(b(g), -0.5, 0.5))),
    "float32 inside": ("tanh", spoiled(tanh, lambda b, g, o, i: b(g).astype(np.float32).astype(float))),
    "float32 outside": ("tanh", spoiled(tanh, lambda b, g, o, i: b(g).astype(np.float32))),
    "writes into the incoming gradient": ("sigmoid", spoiled(sigmoid, _overwrites_cotangent)),
    "writes into its input": ("square", spoiled(square, _writes_into_input)),
    "keeps state between runs": ("exp", spoiled(exp, lambda b, g, o, i: b(g) * (1 + _remembers()))),
    "sums along the other axis": (
        "sum",
        spoiled(total, lambda b, g, o, i: np.broadcast_to(g[None, :], i[0].shape)),
    ),
    "mean over all elements": ("mean", spoiled(mean, lambda b, g, o, i: b(g) * i[0].shape[0] / i[0].size)),
    "the place next to the maximum": ("max", spoiled(largest, lambda b, g, o, i: np.roll(b(g), 1, axis=1))),
    "every tie gets all": (
        "max, tied",
        spoiled(largest, lambda b, g, o, i: g[:, None] * (i[0] == o[:, None])),
    ),
    "softmax without cross terms": ("softmax", spoiled(softmax, lambda b, g, o, i: g * o)),
    "softmax's gradient is zero": ("softmax", spoiled(softmax, lambda b, g, o, i: np.zeros(o.shape))),
    "softmax's diagonal only": ("softmax", spoiled(softmax, lambda b, g, o, i: g * o * (1 - o))),
    "softmax along the wrong axis": (
        "softmax",
        spoiled(softmax, lambda b, g, o, i: o * (g - (g * o).sum(axis=0, keepdims=True))),
    ),
    "cross entropy not averaged": (
        "cross entropy",
        spoiled(cross_entropy, lambda b, g, o, i: b(g) * len(i[1])),
    ),
    "layer norm with constant variance": (
        "layer norm",
        lambda x, weight, bias: layer_norm(x, weight, bias, constant_variance=True),
    ),
    "layer norm forgets eps on the way back": (
        "layer norm",
        lambda x, weight, bias: layer_norm(x, weight, bias, backward_eps=0.0),
    ),
    "embedding does not accumulate": (
        "embedding",
        spoiled(embedding, lambda b, g, o, i: (_assigned(i[0].shape, i[1], g), None)),
    ),
    "slice is off by one": ("slice", spoiled(rows_one_to_three, lambda b, g, o, i: np.roll(b(g), 1, axis=0))),
    "permutation not inverted": ("permute, cube", spoiled(permute, lambda b, g, o, i: g.transpose(1, 2, 0))),
    "reshape follows memory": ("reshape", spoiled(to_columns, _f_order_reshape)),
    "ignores strides": ("tanh", spoiled(tanh, _reads_memory_in_order)),
    "convolution flips its kernel": ("conv", lambda x, weight: conv(x, weight, flipped=True)),
    "attention forgets the scale": (
        "attention",
        spoiled(attention, lambda b, g, o, i: (b(g)[0] * np.sqrt(3), *b(g)[1:])),
    ),
    "returns too few gradients": ("affine", spoiled(affine, lambda b, g, o, i: b(g)[:2])),
    "gradients in the wrong order": ("matmul, square", spoiled(matmul, lambda b, g, o, i: b(g)[::-1])),
    "no gradient where there is one": ("matmul, square", spoiled(matmul, lambda b, g, o, i: (b(g)[0], None))),
    "nan where the input is negative": (
        "relu",
        spoiled(relu, lambda b, g, o, i: np.where(i[0] > 0, g, np.nan)),
    ),
}


def _assigned(shape, ids, g):
    share = np.zeros(shape)
    share[ids] = g
    return share
