"""What a trusted grade asks of kata 02: each check on fresh shapes and numbers, its answers as one array."""

import numpy as np

from dojo.strict import Check

# Broadcasting: pairs of shapes that meet, and the strides with which the first is stretched.


def draw_pairs(rng):
    """Rows of (ndim of a, ndim of b, shape of a, shape of b), filled up with zeros to 8 numbers."""
    rows = np.zeros((80, 8), np.int64)
    for row in rows:
        result = rng.integers(2, 9, 3)
        for k in range(2):
            ndim = int(rng.integers(0, 4))
            row[k] = ndim
            row[2 + 3 * k : 2 + 3 * k + ndim] = np.where(rng.random(ndim) < 0.4, 1, result[3 - ndim :])
    return {"pairs": rows}


def run_pairs(student, pairs):
    answers = np.full((len(pairs), 7), -1, np.int64)
    for answer, row in zip(answers, pairs.tolist(), strict=True):
        a, b = tuple(row[2 : 2 + row[0]]), tuple(row[5 : 5 + row[1]])
        together = student.broadcast_shapes(a, b)
        strides = student.broadcast_strides(a, student.contiguous_strides(a, 4), together)
        # Along an axis of length 1 any stride is right.
        strides = [step for n, step in zip(together, strides, strict=True) if n > 1]
        answer[0] = len(together)
        answer[1 : 1 + len(together)] = together
        answer[4 : 4 + len(strides)] = strides
    return answers


def expected_pairs(pairs):
    answers = np.full((len(pairs), 7), -1, np.int64)
    for answer, row in zip(answers, pairs.tolist(), strict=True):
        a, b = tuple(row[2 : 2 + row[0]]), tuple(row[5 : 5 + row[1]])
        stretched = np.broadcast_to(np.zeros(a, np.float32), np.broadcast_shapes(a, b))
        strides = [step for n, step in zip(stretched.shape, stretched.strides, strict=True) if n > 1]
        answer[0] = stretched.ndim
        answer[1 : 1 + stretched.ndim] = stretched.shape
        answer[4 : 4 + len(strides)] = strides
    return answers


# Views: which new shapes need no copy.


def draw_layouts(rng):
    """Rows of (shape, order of axes, step of each axis, new shape), three numbers each."""
    rows = []
    for _ in range(120):
        shape = rng.integers(1, 5, 3)
        first = int(rng.choice([d for d in range(1, shape.prod() + 1) if shape.prod() % d == 0]))
        rest = int(shape.prod() // first)
        second = int(rng.choice([d for d in range(1, rest + 1) if rest % d == 0]))
        order = rng.permutation(3) if rng.random() < 0.5 else np.arange(3)
        steps = rng.choice([1, 1, 1, 2, -1], 3)
        rows.append([*shape, *order, *steps, first, second, rest // second])
    return {"layouts": np.array(rows, np.int64)}


def run_layouts(student, layouts):
    answers = np.zeros(len(layouts), np.int64)
    for i, (a, b, c, *rest) in enumerate(layouts.tolist()):
        order, steps, new = rest[:3], rest[3:6], tuple(rest[6:])
        lengths = [0, 0, 0]
        for axis, n in zip(order, (a, b, c), strict=True):
            lengths[axis] = n
        roomy = [n * abs(step) for n, step in zip(lengths, steps, strict=True)]
        base = np.arange(np.prod(roomy)).reshape(roomy)
        array = base[tuple(slice(None, None, step) for step in steps)].transpose(order)
        strides = student.view_strides(array.shape, array.strides, new)
        if strides is None:
            answers[i] = -1
        else:
            seen = np.lib.stride_tricks.as_strided(array, new, strides)
            answers[i] = (seen.ravel() * np.arange(1, seen.size + 1)).sum()
    return answers


def expected_layouts(layouts):
    answers = np.zeros(len(layouts), np.int64)
    for i, (a, b, c, *rest) in enumerate(layouts.tolist()):
        order, steps, new = rest[:3], rest[3:6], tuple(rest[6:])
        lengths = [0, 0, 0]
        for axis, n in zip(order, (a, b, c), strict=True):
            lengths[axis] = n
        roomy = [n * abs(step) for n, step in zip(lengths, steps, strict=True)]
        base = np.arange(np.prod(roomy)).reshape(roomy)
        array = base[tuple(slice(None, None, step) for step in steps)].transpose(order)
        seen = array.reshape(new)
        weighed = (seen.ravel() * np.arange(1, seen.size + 1)).sum()
        answers[i] = weighed if np.may_share_memory(seen, base) else -1
    return answers


# Arithmetic: float32 beside integers, a number and a column.


def draw_operands(rng):
    n, m = rng.integers(2, 40, 2)
    return {
        "x": rng.normal(size=(n, m)).astype(np.float32),
        "counts": rng.integers(1, 9, m),
        "column": rng.normal(size=(n, 1)),
    }


def run_operands(student, x, counts, column):
    x, counts, column = student.Tensor(x), student.Tensor(counts), student.Tensor(column)
    narrow = (x * 0.5 + counts) / (x**2 + 1) - counts / 2  # float32 throughout
    chosen = student.where(x < 0, narrow.exp(), student.maximum(narrow, x).clip(-2, 2))
    return ((chosen.abs() + 1).log() * column).data  # and float64 from here


def expected_operands(x, counts, column):
    half, one, two = np.float32(0.5), np.float32(1), np.float32(2)
    counts = counts.astype(np.float32)
    narrow = (x * half + counts) / (x * x + one) - counts / two
    chosen = np.where(x < 0, np.exp(narrow), np.clip(np.maximum(narrow, x), -two, two))
    return np.log(np.abs(chosen) + one) * column


# Reductions: along each axis, kept and not.


def draw_block(rng):
    return {"block": rng.normal(loc=rng.normal() * 100, size=rng.integers(2, 12, 3))}


def run_block(student, block):
    x = student.Tensor(block)
    answers = []
    for axis in (0, -1, (0, 2), None):
        for reduced in (x.sum(axis), x.mean(axis, keepdims=True), x.max(axis), x.min(axis), x.var(axis)):
            answers.append(reduced.data.ravel())
    for axis in (0, 1, 2, None):
        answers.append(x.argmax(axis).data.ravel().astype(np.float64))
    return np.concatenate(answers)


def expected_block(block):
    answers = []
    for axis in (0, -1, (0, 2), None):
        whole = (block.sum(axis), block.mean(axis, keepdims=True), block.max(axis), block.min(axis))
        answers += [np.ravel(a) for a in (*whole, block.var(axis, ddof=1))]
    answers += [np.ravel(block.argmax(axis)).astype(np.float64) for axis in (0, 1, 2, None)]
    return np.concatenate(answers)


# Matrix products: a batch times a batch that stretches.


def draw_batches(rng):
    batch, n, k, m = rng.integers(2, 10, 4)
    return {"a": rng.normal(size=(batch, 1, n, k)), "b": rng.normal(size=(3, k, m))}


def run_batches(student, a, b):
    return (student.Tensor(a) @ student.Tensor(b)).data


def expected_batches(a, b):
    return np.einsum("xynk,ykm->xynm", a, b)


# Shapes, joined and picked.


def draw_pieces(rng):
    n, m = rng.integers(2, 12, 2)
    return {
        "a": rng.normal(size=(n, m)).astype(np.float32),
        "b": rng.normal(size=(n, m)).astype(np.float32),
        "rows": rng.integers(0, 2 * n, rng.integers(1, 30)),
    }


def run_pieces(student, a, b, rows):
    a, b = student.Tensor(a), student.Tensor(b)
    joined = student.concatenate([a, b])[student.Tensor(rows)]  # (rows, m)
    stacked = student.stack([joined, joined[::-1]], axis=1).permute(2, 0, 1)  # (m, rows, 2)
    wide = stacked.transpose(0, 2).reshape(2, -1).unsqueeze(1).expand(-1, 3, -1)  # (2, 3, rows * m)
    return student.concatenate([wide, wide.contiguous()[:, :1]], axis=1).data


def expected_pieces(a, b, rows):
    joined = np.concatenate([a, b])[rows]
    stacked = np.stack([joined, joined[::-1]], axis=1).transpose(2, 0, 1)
    wide = stacked.swapaxes(0, 2).reshape(2, 1, -1)
    return np.repeat(wide, 4, axis=1)


# Dtypes: in what pairs of operands meet.


def draw_dtypes(rng):
    """Rows of (dtype of a, whether it has axes, dtype of b, whether it has axes)."""
    return {"pairs": np.stack([rng.integers(0, n, 100) for n in (8, 2, 8, 2)], axis=1)}


def run_dtypes(student, pairs):
    names = ["bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64"]
    answers = np.zeros(len(pairs), np.int64)
    for i, (a, axes_a, b, axes_b) in enumerate(pairs.tolist()):
        one, other = np.ones((2,) * axes_a, names[a]), np.ones((2,) * axes_b, names[b])
        dtypes = {
            str(student.result_type(one, other)),
            str((student.Tensor(one) * student.Tensor(other)).dtype),
        }
        answers[i] = ["int16", *names].index(dtypes.pop()) if len(dtypes) == 1 else -1
    return answers


def expected_dtypes(pairs):
    names = ["bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64"]
    kinds = [0, 1, 1, 1, 1, 2, 2, 2]
    answers = np.zeros(len(pairs), np.int64)
    for i, (a, axes_a, b, axes_b) in enumerate(pairs.tolist()):
        if (kinds[a], axes_a) == (kinds[b], axes_b):
            met = str(np.promote_types(names[a], names[b]))
        else:
            met = names[a] if (kinds[a], axes_a) > (kinds[b], axes_b) else names[b]
        answers[i] = ["int16", *names].index(met)
    return answers


CHECKS = (
    Check("shapes that meet, and their strides", draw_pairs, run_pairs, expected_pairs),
    Check("views that need no copy", draw_layouts, run_layouts, expected_layouts),
    Check(
        "arithmetic in the right dtype", draw_operands, run_operands, expected_operands, rtol=1e-4, atol=1e-5
    ),
    Check("reductions along every axis", draw_block, run_block, expected_block, rtol=1e-8, atol=1e-8),
    Check("products of batches of matrices", draw_batches, run_batches, expected_batches, rtol=1e-9),
    Check("shapes, joined and picked", draw_pieces, run_pieces, expected_pieces),
    Check("dtypes in which operands meet", draw_dtypes, run_dtypes, expected_dtypes),
)
