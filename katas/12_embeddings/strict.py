"""What a trusted grade asks of kata 12: each check on fresh shapes and numbers, its answers as one array."""

import numpy as np

from dojo.strict import Check

# Rows, looked up and back, with padding.


def draw_look_up(rng):
    count, dim, shape = int(rng.integers(2, 300)), int(rng.integers(1, 9)), rng.integers(1, 9, 2)
    return {
        "weight": rng.normal(size=(count, dim)),
        "ids": rng.integers(0, count, shape),
        "grad": rng.normal(size=(*shape, dim)),
        "padding": rng.integers(0, count, 1),
    }


def run_look_up(student, weight, ids, grad, padding):
    ids = ids.astype(np.uint16)
    out, back = student.embedding.vjp(weight, ids, padding_idx=int(padding[0]))
    got = back(grad)
    table = got[0] if isinstance(got, (tuple, list)) else got
    return np.concatenate([np.ravel(out), np.ravel(table)])


def expected_look_up(weight, ids, grad, padding):
    table = np.zeros_like(weight)
    for place in np.ndindex(*ids.shape):
        if ids[place] != padding[0]:
            table[ids[place]] += grad[place]
    return np.concatenate([weight[ids].ravel(), table.ravel()])


# Many rows, added up in float32.


def draw_adding_up(rng):
    n, dim, count = int(rng.integers(1, 6000)), int(rng.integers(1, 70)), int(rng.integers(1, 200))
    ids = np.where(rng.random(n) < 0.3, rng.integers(0, count), rng.integers(0, count, n))
    return {"rows": rng.normal(size=(n, dim)).astype(np.float32), "ids": ids, "count": np.array([count])}


def run_adding_up(student, rows, ids, count):
    return student.scatter_add(rows[:, ::-1], ids, int(count[0]))


def expected_adding_up(rows, ids, count):
    total = np.zeros((int(count[0]), rows.shape[1]))
    np.add.at(total, ids, rows[:, ::-1].astype(np.float64))
    return total.astype(np.float32)


# Training with sparse gradients: three passes, two of them before one step.


def draw_sparse(rng):
    count, dim = int(rng.integers(2, 50)), int(rng.integers(1, 6))
    return {
        "start": rng.normal(size=(count, dim)).astype(np.float32),
        "ids": rng.integers(0, count, (3, 2, 4)),
        "grads": rng.normal(size=(3, 2, 4, dim)).astype(np.float32),
        "padding": rng.integers(0, count, 1),
    }


def run_sparse(student, start, ids, grads, padding):
    layer = student.Embedding(*start.shape, int(padding[0]), True, rng=np.random.default_rng(0))
    layer.weight.data[...] = start
    layer(ids[0]).backward(grads[0])
    layer(ids[1]).backward(grads[1])
    first = layer.sparse_grad().to_dense()
    layer(ids[2]).backward(grads[2])
    rows = layer.sparse_grad()
    student.sgd_rows_(layer.weight, rows + rows, 0.5)
    assert layer.weight.grad is None
    assert layer.sparse_grad() is None
    return np.concatenate([first.ravel(), layer.weight.data.ravel()])


def expected_sparse(start, ids, grads, padding):
    tables = []
    for which in ((0, 1), (2,)):
        table = np.zeros(start.shape)
        for k in which:
            np.add.at(table, ids[k].ravel(), grads[k].reshape(-1, start.shape[1]).astype(np.float64))
        table[padding[0]] = 0
        tables.append(table)
    return np.concatenate([tables[0].ravel(), (start - tables[1]).ravel()]).astype(np.float32)


# Positions that are added, by offset and one by one.


def draw_positions(rng):
    length, dim = int(rng.integers(2, 9)), int(rng.integers(1, 9))
    return {
        "x": rng.normal(size=(2, length, dim)),
        "positions": rng.integers(0, 4000, (2, length)),
        "learnt": rng.normal(size=(4000, dim)).astype(np.float32),
        "offset": rng.integers(0, 3990, 1),
    }


def run_positions(student, x, positions, learnt, offset):
    waves = student.SinusoidalPositions(x.shape[-1], 4000)
    rows = student.LearnedPositions(4000, x.shape[-1], rng=np.random.default_rng(0))
    rows.weight.data[...] = learnt
    answers = []
    for layer in (waves, rows):
        answers.append(layer(student.Tensor(x), int(offset[0])).data)
        answers.append(layer(student.Tensor(x), positions=positions).data)
    return np.concatenate([np.ravel(a) for a in answers])


def expected_positions(x, positions, learnt, offset):
    dim = x.shape[-1]
    angles = np.arange(4000)[:, None] / 10_000.0 ** (np.arange(dim) // 2 * 2 / dim)
    waves = np.where(np.arange(dim) % 2, np.cos(angles), np.sin(angles)).astype(np.float32)
    answers = []
    for table in (waves, learnt):
        answers += [x + table[offset[0] : offset[0] + x.shape[1]], x + table[positions]]
    return np.concatenate([a.ravel() for a in answers])


# Rotations and their gradients.


def draw_turn(rng):
    length, half = (int(v) for v in rng.integers(1, 9, 2))
    return {
        "x": rng.normal(size=(2, 3, length, 2 * half)),
        "grad": rng.normal(size=(2, 3, length, 2 * half)),
        "params": np.array([rng.integers(0, 1000), rng.integers(100, 20_000)]),
    }


def run_turn(student, x, grad, params):
    offset, base = params.tolist()
    layer = student.Rotary(x.shape[-1], 1010, float(base))
    inputs = student.Tensor(x, requires_grad=True)
    out = layer(inputs, offset)
    out.backward(grad)
    return np.concatenate([np.ravel(out.data), np.ravel(inputs.grad)])


def expected_turn(x, grad, params):
    offset, base = params.tolist()
    half = x.shape[-1] // 2
    angles = np.arange(offset, offset + x.shape[-2])[:, None] * float(base) ** -(np.arange(half) / half)
    answers = []
    for array, turn in ((x, np.exp(1j * angles)), (grad, np.exp(-1j * angles))):
        z = (array[..., :half] + 1j * array[..., half:]) * turn
        answers.append(np.concatenate((z.real, z.imag), axis=-1).ravel())
    return np.concatenate(answers)


# A tied model, from ids to the gradient of its one table.


def draw_tied(rng):
    count, dim = (int(v) for v in rng.integers(2, 9, 2))
    return {
        "weight": rng.normal(size=(count, dim)).astype(np.float32),
        "ids": rng.integers(0, count, 5),
        "grad": rng.normal(size=(5, count)).astype(np.float32),
    }


def run_tied(student, weight, ids, grad):
    tokens = student.Embedding(*weight.shape, rng=np.random.default_rng(0))
    tokens.weight.data[...] = weight
    out = student.TiedLinear(tokens)(tokens(ids))
    out.backward(grad)
    return np.concatenate([np.ravel(out.data), np.ravel(tokens.weight.grad)])


def expected_tied(weight, ids, grad):
    wide, g = weight.astype(np.float64), grad.astype(np.float64)
    table = g.T @ wide[ids]
    np.add.at(table, ids, g @ wide)
    return np.concatenate([(wide[ids] @ wide.T).ravel(), table.ravel()]).astype(np.float32)


CHECKS = (
    Check("rows looked up, and their gradient", draw_look_up, run_look_up, expected_look_up, rtol=1e-9),
    Check("many rows added up", draw_adding_up, run_adding_up, expected_adding_up, rtol=1e-4, atol=5e-3),
    Check("sparse gradients and a step", draw_sparse, run_sparse, expected_sparse, rtol=1e-4, atol=1e-4),
    Check("positions that are added", draw_positions, run_positions, expected_positions, atol=1e-6),
    Check("rotations and their gradients", draw_turn, run_turn, expected_turn, rtol=1e-5, atol=1e-5),
    Check("a tied model and its gradient", draw_tied, run_tied, expected_tied, rtol=1e-3, atol=1e-3),
)
