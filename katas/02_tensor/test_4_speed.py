"""Level 4: arrays at a time, not elements.

Ratios within this run, in CPU time, never seconds. Each budget has a twin: a naive version, written out
here, that must not fit.
"""

import functools

import numpy as np
import pytest

from dojo.measuring import Budget, race
from tinytorch.tensor import (
    Tensor,
    amax,
    amin,
    argmax,
    clip,
    concatenate,
    div,
    power,
    stack,
    total,
    var,
    where,
)

ELEMENTS = Budget(
    "24,576 elements",
    limit=12,
    reference=2.0,
    naive=250,
    unit="times numpy's own time",
    naively="a loop over the elements",
)
COLUMNS = Budget(
    "the sums of 512 columns",
    limit=5,
    reference=1.5,
    naive=19,
    unit="times the time of np.add.reduce",
    naively="a version that walks down one column after the other",
)
PRODUCT = Budget(
    "a product of two matrices",
    limit=3,
    reference=1.1,
    naive=400,
    unit="times the time of np.matmul",
    naively="a version that goes row by column",
)
JOIN = Budget(
    "64 arrays of 64 KiB joined",
    limit=9,
    reference=1.6,
    naive=30,
    unit="times the time of np.concatenate",
    naively="a version that joins them two at a time",
)
PICK = Budget(
    "4,096 of 4,096 rows picked",
    limit=5,
    reference=1.2,
    naive=35,
    unit="times the time of numpy's indexing",
    naively="a loop over the rows",
)
VIEWS = Budget(
    "eight views of 4 MiB",
    limit=8,
    reference=1.1,
    naive=80,
    unit="times the time of eight views of 64 bytes",
    naively="a version that copies",
)


# Vectorised: one call for all elements.


def two_arrays(rng, n=24_576):
    # Below 128 KiB, where the C library begins to ask the system for each array anew: a matter of luck.
    return rng.random(n, np.float32) + 0.5, rng.random(n, np.float32) + 0.5


def distances_squared(a):
    distances = a - a.mean()
    return (distances * distances).sum() / (a.size - 1)


WHOLE_ARRAYS = {
    "div": (lambda a, b: div(a, b), lambda a, b: a / b),
    "power": (lambda a, b: power(a, 2), lambda a, b: np.power(a, 2)),
    "clip": (lambda a, b: clip(a, min=0.6, max=1.2), lambda a, b: np.minimum(np.maximum(a, 0.6), 1.2)),
    "where": (lambda a, b: where(a < b, a, b), lambda a, b: np.where(a < b, a, b)),
    "total": (lambda a, b: total(a), lambda a, b: np.add.reduce(a)),
    "amax": (lambda a, b: amax(a), lambda a, b: np.maximum.reduce(a)),
    "amin": (lambda a, b: amin(a), lambda a, b: np.minimum.reduce(a)),
    "argmax": (lambda a, b: argmax(a), lambda a, b: np.argmax(a)),
    "var": (lambda a, b: var(a), lambda a, b: distances_squared(a)),
}


@pytest.mark.parametrize("name", WHOLE_ARRAYS)
def test_elements_are_worked_on_all_at_once(name, rng):
    mine, numpys = WHOLE_ARRAYS[name]
    ELEMENTS.check(race(mine, numpys, limit=ELEMENTS.limit, inputs=lambda: two_arrays(rng)))


def test_the_twin_that_loops_over_elements_is_caught(rng):
    def loop(a, b):
        return np.array([x * y for x, y in zip(a.tolist(), b.tolist(), strict=True)], np.float32)

    slow = race(loop, lambda a, b: a * b, limit=ELEMENTS.limit, inputs=lambda: two_arrays(rng, 1 << 12))
    ELEMENTS.catches(slow)


# In the order in which they lie.


def one_table(rng):
    return (rng.random((512, 512), np.float32),)


def test_columns_are_summed_row_by_row(rng):
    COLUMNS.check(
        race(
            lambda x: total(x, axis=0),
            lambda x: np.add.reduce(x, axis=0),
            limit=COLUMNS.limit,
            inputs=lambda: one_table(rng),
        )
    )


def test_the_twin_that_walks_down_columns_is_caught(rng):
    def down_each_column(x):
        return np.array([x[:, j].sum() for j in range(x.shape[1])])

    slow = race(
        down_each_column,
        lambda x: np.add.reduce(x, axis=0),
        limit=COLUMNS.limit,
        inputs=lambda: one_table(rng),
    )
    COLUMNS.catches(slow)


# By the library that was made for it.


def two_matrices(rng, n):
    return rng.random((n, n), np.float32), rng.random((n, n), np.float32)


def test_matrices_are_multiplied_by_blas(rng):
    PRODUCT.check(
        race(
            lambda a, b: Tensor(a) @ b, np.matmul, limit=PRODUCT.limit, inputs=lambda: two_matrices(rng, 192)
        )
    )


def test_the_twin_that_goes_row_by_column_is_caught(rng):
    def row_by_column(a, b):
        return np.array([[row @ column for column in b.T] for row in a])

    slow = race(row_by_column, np.matmul, limit=PRODUCT.limit, inputs=lambda: two_matrices(rng, 64))
    PRODUCT.catches(slow)


# Once, not again and again.


def pieces(rng):
    return ([Tensor(rng.random((64, 256), np.float32)) for _ in range(64)],)


def by_numpy(tensors):
    return np.concatenate([x.data for x in tensors])


@pytest.mark.parametrize("joining", [concatenate, stack], ids=["concatenate", "stack"])
def test_joining_copies_each_piece_once(joining, rng):
    JOIN.check(race(joining, by_numpy, limit=JOIN.limit, inputs=lambda: pieces(rng)))


def test_the_twin_that_joins_two_at_a_time_is_caught(rng):
    def two_at_a_time(tensors):
        return functools.reduce(lambda a, b: np.concatenate([a, b]), [x.data for x in tensors])

    JOIN.catches(race(two_at_a_time, by_numpy, limit=JOIN.limit, inputs=lambda: pieces(rng)))


def rows_and_numbers(rng):
    return rng.random((4096, 16), np.float32), rng.integers(0, 4096, 4096)


def test_rows_are_picked_in_one_go(rng):
    PICK.check(
        race(
            lambda x, i: Tensor(x)[Tensor(i)],
            lambda x, i: x[i],
            limit=PICK.limit,
            inputs=lambda: rows_and_numbers(rng),
        )
    )


def test_the_twin_that_picks_row_by_row_is_caught(rng):
    def one_by_one(x, i):
        return np.stack([x[k] for k in i])

    PICK.catches(race(one_by_one, lambda x, i: x[i], limit=PICK.limit, inputs=lambda: rows_and_numbers(rng)))


# Or not at all: the time of a view does not depend on what is seen through it.


SMALL, LARGE = Tensor(np.zeros((4, 4), np.float32)), Tensor(np.zeros((1024, 1024), np.float32))


def eight_views(x):
    return (
        x.T,
        x.reshape(-1),
        x.view(-1, 2),
        x.permute(1, 0),
        x.unsqueeze(0).squeeze(0),
        x[:1].expand(x.shape),
        x[::2],
        x.contiguous(),
    )


def test_a_view_takes_the_same_time_whatever_its_size():
    VIEWS.check(race(lambda: eight_views(LARGE), lambda: eight_views(SMALL), limit=VIEWS.limit))


def test_the_twin_that_copies_is_caught():
    def eight_copies():
        return [LARGE.data.copy() for _ in range(8)]

    VIEWS.catches(race(eight_copies, lambda: eight_views(SMALL), limit=VIEWS.limit))
