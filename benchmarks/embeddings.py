"""Kata 12 beside PyTorch and np.add.at: `python -m benchmarks.embeddings`. Ratios below 1 are for us.

Ids are drawn as tokens of a text are: the k-th most frequent one 1 / k as often as the first. In float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.beside import measure, pytorch, reference, row, title

ours: Any = reference("tinytorch.embeddings")
compose: Any = reference("dojo.compose")
curriculum: Any = reference("dojo.curriculum")
alternatives = curriculum.ROOT / "reference" / "alternatives" / "12_embeddings"
by_sorting: Any = compose.load_file(alternatives / "sorted_and_cut.py")
torch: Any = pytorch()
rng = np.random.default_rng(0)

# rows to add up, their length, rows of the table
SIZES = ((4096, 128, 65), (4096, 128, 5_000), (4096, 128, 50_257), (4096, 768, 50_257), (256, 64, 1_000))


def text(n: int, count: int) -> Any:
    """Ids; which of them are the frequent ones is up to chance."""
    chances = 1 / np.arange(1, count + 1)
    return rng.permutation(count)[rng.choice(count, n, p=chances / chances.sum())]


def add_at(rows: Any, ids: Any, count: int) -> Any:
    total = np.zeros((count, rows.shape[1]), rows.dtype)
    np.add.at(total, ids, rows)
    return total


def bincount(rows: Any, ids: Any, count: int) -> Any:
    places = (ids[:, None] * rows.shape[1] + np.arange(rows.shape[1])).reshape(-1)
    total = np.bincount(places, rows.reshape(-1), count * rows.shape[1])
    return total.astype(rows.dtype).reshape(count, rows.shape[1])


def one_by_one(rows: Any, ids: Any, count: int) -> Any:
    total = np.zeros((count, rows.shape[1]), rows.dtype)
    for row_, i in zip(rows, ids.tolist(), strict=True):
        total[i] += row_
    return total


def look_up() -> None:
    title("embedding: looking up, against torch.nn.functional.embedding")
    for n, dim, count in SIZES:
        weight, ids = rng.standard_normal((count, dim), np.float32), text(n, count)
        table, places = torch.tensor(weight), torch.tensor(ids)
        row(
            f"{n} of {dim}, {count:,} rows",
            lambda weight=weight, ids=ids: ours.embedding(weight, ids),
            lambda table=table, places=places: torch.nn.functional.embedding(places, table),
            1.5,
        )


def add_up(n: int, dim: int, count: int) -> None:
    title(f"scatter_add of {n} rows of {dim} to {count:,}, against")
    rows, ids = rng.standard_normal((n, dim), np.float32), text(n, count)
    grad, places = torch.tensor(rows), torch.tensor(ids)
    others: dict[str, Callable[[], Any]] = {
        "np.add.at": lambda: add_at(rows, ids, count),
        "np.bincount of places": lambda: bincount(rows, ids, count),
        "a sort and np.add.reduceat": lambda: by_sorting.scatter_add(rows, ids, count),
        "row by row": lambda: one_by_one(rows, ids, count),
        "PyTorch's embedding_dense_backward": lambda: torch.ops.aten.embedding_dense_backward(
            grad, places, count, -1, False
        ),
    }
    for name, other in others.items():
        row(name, lambda: ours.scatter_add(rows, ids, count), other)


def steps() -> None:
    """Looked up, there and back, and a step of SGD on a table of 50,257 rows, from 256 ids."""
    title("a step of SGD, 256 ids of 64, 50,257 rows, against PyTorch")
    ids = text(256, 50_257)
    places, grad = torch.tensor(ids), rng.standard_normal((256, 64), np.float32)
    upstream = torch.tensor(grad)
    for sparse in (False, True):
        mine = ours.Embedding(50_257, 64, sparse=sparse, rng=rng)
        other = torch.nn.Embedding(50_257, 64, sparse=sparse)
        optimizer = torch.optim.SGD(other.parameters(), lr=0.1)

        def ours_step(mine: Any = mine, sparse: bool = sparse) -> None:
            mine.zero_grad()
            mine(ids).backward(grad)
            if sparse:
                ours.sgd_rows_(mine.weight, mine.sparse_grad(), 0.1)
            else:
                mine.weight.data -= np.float32(0.1) * mine.weight.grad

        def theirs_step(other: Any = other, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            other(places).backward(upstream)
            optimizer.step()

        row("sparse" if sparse else "dense", ours_step, theirs_step)


def turn() -> None:
    title("rotary, against the same formula in PyTorch")
    for shape in ((4, 8, 256, 64), (32, 4, 128, 32), (1, 8, 1, 64)):
        x = rng.standard_normal(shape, np.float32)
        cos, sin = ours.rotary_tables(shape[-2], shape[-1])
        t, c, s = (torch.tensor(a) for a in (x, np.tile(cos, 2), np.tile(sin, 2)))

        def theirs(t: Any = t, c: Any = c, s: Any = s) -> Any:
            half = t.shape[-1] // 2
            return t * c + torch.cat((-t[..., half:], t[..., :half]), -1) * s

        row(str(shape), lambda x=x, cos=cos, sin=sin: ours.rotary(x, cos=cos, sin=sin), theirs)


def main() -> None:
    look_up()
    for size in SIZES:
        add_up(*size)
    steps()
    turn()


if __name__ == "__main__":
    measure(main, __doc__)
