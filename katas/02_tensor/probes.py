"""What kata 02 measures: what a view costs, what a copy costs, and which way to walk through memory."""

import numpy as np

from dojo.measuring import Probe
from tinytorch.tensor import Tensor, concatenate

SIDES = (256, 512, 1024, 2048)
# Rows whose length is no multiple of 4 KiB: an array that is read and one that is written do not get in each
# other's way in the cache, which would hide by what power the time grows.
UNEVEN_SIDES = (250, 500, 1000, 2000)
F32 = 4  # bytes


def square(n, rng):
    return (Tensor(rng.random((n, n), np.float32)),)


def two_squares(n, rng):
    return Tensor(rng.random((n, n), np.float32)), Tensor(rng.random((n, n), np.float32))


def rows(n, rng):
    return ([Tensor(rng.random(n, np.float32)) for _ in range(64)],)


def walk_rows(x):
    """Touch every element, row by row: the order in which they lie."""
    for row in x.data:
        row.sum()


def walk_columns(x):
    """Touch every element, column by column: from each to the next it is a whole row."""
    for column in x.data.T:
        column.sum()


PROBES = (
    Probe(
        "transpose (n, n)",
        SIDES,
        prepare=square,
        call=lambda x: x.transpose(0, 1),
        time=0,
        memory=0,
        torch=lambda x: x.transpose(0, 1),
    ),
    Probe(
        "transpose (n, n) and copy",
        SIDES,
        prepare=square,
        call=lambda x: x.transpose(0, 1).contiguous(),
        time=2,
        memory=2,
        moved=lambda n: 2 * F32 * n * n,
        torch=lambda x: x.transpose(0, 1).contiguous(),
    ),
    Probe(
        "expand (n,) to (n, n)",
        SIDES,
        prepare=lambda n, rng: (Tensor(rng.random(n, np.float32)), n),
        call=lambda row, n: row.expand(n, n),
        time=0,
        memory=0,
        torch=lambda row, n: row.expand(n, n),
    ),
    Probe(
        "add (n, n) and (n,)",
        UNEVEN_SIDES,
        prepare=lambda n, rng: (*square(n, rng), Tensor(rng.random(n, np.float32))),
        call=lambda x, row: x + row,
        time=2,
        memory=2,
        flops=lambda n: n * n,
        moved=lambda n: 2 * F32 * n * n,
        torch=lambda x, row: x + row,
    ),
    Probe(
        "sum of (n, n) over axis 0",
        UNEVEN_SIDES,
        prepare=square,
        call=lambda x: x.sum(axis=0),
        time=2,
        memory=1,
        flops=lambda n: n * n,
        moved=lambda n: F32 * n * n,
        torch=lambda x: x.sum(dim=0),
    ),
    Probe(
        "walk (n, n) by rows",
        SIDES,
        prepare=square,
        call=walk_rows,
        time=2,
        memory=0,
        moved=lambda n: F32 * n * n,
    ),
    Probe(
        "walk (n, n) by columns",
        SIDES,
        prepare=square,
        call=walk_columns,
        time=2,
        memory=0,
        moved=lambda n: F32 * n * n,
    ),
    Probe(
        "var of (n, n)",
        UNEVEN_SIDES,
        prepare=square,
        call=lambda x: x.var(),
        time=2,
        memory=2,
        flops=lambda n: 4 * n * n,
        moved=lambda n: F32 * n * n,
        torch=lambda x: x.var(),
    ),
    Probe(
        "matmul (n, n)",
        (64, 128, 256, 512),
        prepare=two_squares,
        call=lambda a, b: a @ b,
        time=3,
        memory=2,
        flops=lambda n: 2 * n**3,
        moved=lambda n: 3 * F32 * n * n,
        torch=lambda a, b: a @ b,
    ),
    Probe(
        "concatenate 64 pieces of n",
        (1 << 12, 1 << 13, 1 << 14, 1 << 15),
        prepare=rows,
        call=lambda pieces: concatenate(pieces),
        time=1,
        memory=1,
        moved=lambda n: 2 * 64 * F32 * n,
        torch=lambda pieces: __import__("torch").cat(pieces),
    ),
)
