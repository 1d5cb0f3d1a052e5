"""Level 4: looking up is one pass over what is looked up, and a step costs by its rows, not by the table.

Ratios within this run, in CPU time, never seconds. Each budget has a twin: a naive version, written out
here, that must not fit.
"""

import math

import numpy as np

from dojo.measuring import Budget, race
from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.embeddings import (
    Embedding,
    SparseRows,
    check_ids,
    embedding,
    rotary,
    rotary_tables,
    scatter_add,
    sgd_rows_,
    sinusoidal_positions,
)
from tinytorch.tensor import Tensor

LOOK_AT = Budget(
    "check_ids of 8,192 ids",
    limit=20,
    reference=2.4,
    naive=200,
    unit="times the time of ids.min()",
    naively="a version that looks at one id after the other",
)
LOOK_UP = Budget(
    "embedding of 256 ids of 64 numbers",
    limit=8,
    reference=1.5,
    naive=30,
    unit="times the time of weight[ids]",
    naively="a version that copies row by row",
)
WIDE = Budget(
    "scatter_add of 120 rows of 256 to 20",
    limit=0.7,
    reference=0.2,
    naive=1.0,
    unit="times the time of np.add.at",
    naively="np.add.at itself",
)
NARROW = Budget(
    "scatter_add of 2,048 rows of 8",
    limit=4,
    reference=0.3,
    naive=8.4,
    unit="times the time of np.add.at",
    naively="a version that adds row by row",
)
ONCE = Budget(
    "coalesce of 1,500 rows of 8",
    limit=33,
    reference=4,  # and 21 in rounds
    naive=50,
    unit="times the time of sorting their ids, stably",
    naively="a version that goes row by row",
)
ROWS = Budget(
    "sgd_rows_ of 1,500 rows of 8",
    limit=7,
    reference=1.0,  # and 2 in rounds
    naive=19,
    unit="times the time of np.subtract.at",
    naively="a version that goes row by row",
)
STEP = Budget(
    "sgd_rows_ of 64 rows, table of 8 MiB",
    limit=8,
    reference=1.1,
    naive=115,
    unit="times the time for a table of 64 KiB",
    naively="a version that goes through the table",
)
PASS = Budget(
    "a sparse pass there and back, table of 8 MiB",
    limit=5,
    reference=1.1,
    naive=15,
    unit="times the time for a table of 64 KiB",
    naively="a version with a dense gradient",
)
WAVES = Budget(
    "sinusoidal_positions(128, 64)",
    limit=8,
    reference=1.5,
    naive=26,
    unit="times the time of np.sin of as many numbers",
    naively="a version that goes number by number",
)
TURN = Budget(
    "rotary of (2, 128, 64)",
    limit=75,
    reference=14,
    naive=690,
    unit="times the time of one multiplication",
    naively="a version that goes vector by vector",
)


def table(rng, count, dim=64):
    return rng.standard_normal((count, dim), np.float32)


# 12.1 check_ids, 12.2 embedding


def test_ids_are_looked_at_all_at_once(rng):
    ids = rng.integers(0, 100, 8192)
    LOOK_AT.check(race(lambda: check_ids(ids, 100), lambda: ids.min(), limit=LOOK_AT.limit))


def test_the_twin_that_looks_one_by_one_is_caught(rng):
    ids = rng.integers(0, 100, 8192)
    slow = lambda: all(0 <= i < 100 for i in ids.tolist())  # noqa: E731
    LOOK_AT.catches(race(slow, lambda: ids.min(), limit=LOOK_AT.limit))


def test_rows_are_copied_all_at_once(rng):
    weight, ids = table(rng, 500), rng.integers(0, 500, 256)
    LOOK_UP.check(race(lambda: embedding(weight, ids), lambda: weight[ids], limit=LOOK_UP.limit))


def test_the_twin_that_copies_row_by_row_is_caught(rng):
    weight, ids = table(rng, 500), rng.integers(0, 500, 256)
    slow = lambda: np.stack([weight[i] for i in ids])  # noqa: E731
    LOOK_UP.catches(race(slow, lambda: weight[ids], limit=LOOK_UP.limit))


# 12.3 scatter_add


def add_at(rows, ids, count):
    total = np.zeros((count, rows.shape[1]), rows.dtype)
    np.add.at(total, ids, rows)
    return total


def test_wide_rows_add_up_faster_than_by_add_at(rng):
    rows, ids = table(rng, 120, 256), rng.integers(0, 20, 120)
    WIDE.check(race(lambda: scatter_add(rows, ids, 20), lambda: add_at(rows, ids, 20), limit=WIDE.limit))


def test_the_twin_by_add_at_is_caught(rng):
    rows, ids = table(rng, 120, 256), rng.integers(0, 20, 120)
    WIDE.catches(race(lambda: add_at(rows, ids, 20), lambda: add_at(rows, ids, 20), limit=WIDE.limit))


def test_many_narrow_rows_add_up_without_a_loop(rng):
    rows, ids = table(rng, 2048, 8), rng.integers(0, 500, 2048)
    NARROW.check(
        race(lambda: scatter_add(rows, ids, 500), lambda: add_at(rows, ids, 500), limit=NARROW.limit)
    )


def test_the_twin_that_adds_row_by_row_is_caught(rng):
    rows, ids = table(rng, 2048, 8), rng.integers(0, 500, 2048)

    def slow():
        total = np.zeros((500, 8), np.float32)
        for row, i in zip(rows, ids, strict=True):
            total[i] += row

    NARROW.catches(race(slow, lambda: add_at(rows, ids, 500), limit=NARROW.limit))


def test_one_id_may_have_all_the_rows(rng):
    """As padding has most of them: the time is that of the rows, not of the rounds that they need."""
    rows, ids = table(rng, 2048, 8), np.full(2048, 3)
    NARROW.check(race(lambda: scatter_add(rows, ids, 9), lambda: add_at(rows, ids, 9), limit=NARROW.limit))


# 12.6 SparseRows, 12.7 sgd_rows_


def test_rows_are_made_dense_without_a_loop(rng):
    rows = SparseRows(rng.integers(0, 500, 2048), table(rng, 2048, 8), (500, 8))
    NARROW.check(race(rows.to_dense, lambda: add_at(rows.values, rows.ids, 500), limit=NARROW.limit))


def some_rows(rng):
    return SparseRows(rng.integers(0, 3000, 1500), table(rng, 1500, 8), (3000, 8))


def test_rows_are_put_together_all_at_once(rng):
    rows = some_rows(rng)
    ONCE.check(race(rows.coalesce, lambda: np.argsort(rows.ids, kind="stable"), limit=ONCE.limit))


def test_the_twin_that_puts_them_together_row_by_row_is_caught(rng):
    rows = some_rows(rng)

    def slow():
        sums = {}
        for i, row in zip(rows.ids.tolist(), rows.values, strict=True):
            sums[i] = sums[i] + row if i in sums else row.copy()
        return np.array([sums[i] for i in sorted(sums)])

    ONCE.catches(race(slow, lambda: np.argsort(rows.ids, kind="stable"), limit=ONCE.limit))


def test_rows_take_a_step_all_at_once(rng):
    rows, weight = some_rows(rng), Tensor(table(rng, 3000, 8))
    at = lambda: np.subtract.at(weight.data, rows.ids, 1e-6 * rows.values)  # noqa: E731
    ROWS.check(race(lambda: sgd_rows_(weight, rows, 1e-6), at, limit=ROWS.limit))


def test_the_twin_that_steps_row_by_row_is_caught(rng):
    rows, weight = some_rows(rng), table(rng, 3000, 8)

    def slow():
        for i, row in zip(rows.ids.tolist(), rows.values, strict=True):
            weight[i] -= 1e-6 * row

    at = lambda: np.subtract.at(weight, rows.ids, 1e-6 * rows.values)  # noqa: E731
    ROWS.catches(race(slow, at, limit=ROWS.limit))


# 12.7 sgd_rows_, 12.9 sparse gradients

SMALL, LARGE = 1 << 8, 1 << 15


def test_a_step_costs_by_its_rows(rng):
    def step(count):
        weight = Tensor(table(rng, count))
        rows = SparseRows(rng.integers(0, count, 64), table(rng, 64), (count, 64))
        return lambda: sgd_rows_(weight, rows, 1e-6)

    STEP.check(race(step(LARGE), step(SMALL), limit=STEP.limit))


def test_the_twin_that_goes_through_the_table_is_caught(rng):
    def step(count):
        weight, rows = table(rng, count), SparseRows(np.arange(64), table(rng, 64), (count, 64))

        def run():
            dense = np.zeros_like(weight)
            dense[rows.ids] = rows.values
            weight[...] -= 1e-6 * dense

        return run

    STEP.catches(race(step(LARGE), step(SMALL), limit=STEP.limit))


def one_pass(rng, count, sparse):
    layer, ids = Embedding(count, 64, sparse=sparse, rng=rng), rng.integers(0, count, 64)
    grad = table(rng, 64)

    def run():
        layer.zero_grad()
        layer(ids).backward(grad)
        return layer.sparse_grad()

    return run


def test_a_sparse_pass_costs_by_its_rows(rng):
    PASS.check(race(one_pass(rng, LARGE, True), one_pass(rng, SMALL, True), limit=PASS.limit))


def test_the_twin_with_a_dense_gradient_is_caught(rng):
    def dense(count):
        weight, ids, grad = table(rng, count), rng.integers(0, count, 64), table(rng, 64)
        return lambda: (weight[ids], add_at(grad, ids, count).copy())

    PASS.catches(race(dense(LARGE), dense(SMALL), limit=PASS.limit))


# 12.10 sinusoidal_positions, 12.14 rotary


def test_waves_are_made_all_at_once(rng):
    x = rng.random((128, 64))
    WAVES.check(race(lambda: sinusoidal_positions(128, 64), lambda: np.sin(x), limit=WAVES.limit))


def test_the_twin_that_goes_number_by_number_is_caught(rng):
    x = rng.random((128, 64))

    def slow():
        for p in range(128):
            for i in range(32):
                angle = p / 10_000 ** (2 * i / 64)
                x[p, 2 * i], x[p, 2 * i + 1] = math.sin(angle), math.cos(angle)

    WAVES.catches(race(slow, lambda: np.sin(x), limit=WAVES.limit))


def test_turning_is_a_few_passes(rng):
    x = table(rng, 256).reshape(2, 128, 64)
    cos, sin = rotary_tables(128, 64)
    TURN.check(race(lambda: rotary(x, cos=cos, sin=sin), lambda: x * x, limit=TURN.limit))


def test_the_twin_that_turns_vector_by_vector_is_caught(rng):
    x = table(rng, 256).reshape(2, 128, 64)
    cos, sin = rotary_tables(128, 64)

    def slow():
        out = np.empty_like(x)
        for b, t in np.ndindex(2, 128):
            first, second = x[b, t, :32], x[b, t, 32:]
            out[b, t, :32] = first * cos[t] - second * sin[t]
            out[b, t, 32:] = second * cos[t] + first * sin[t]

    TURN.catches(race(slow, lambda: x * x, limit=TURN.limit))
