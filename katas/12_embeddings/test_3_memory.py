"""Level 3: a table may be the largest array of a model, and a batch touches a few of its rows.

Counted by tracemalloc in bytes, so the figures are the same on every machine. Each budget has a twin: a
naive version, written out here, that must not fit.
"""

import numpy as np
import pytest

from dojo.measuring import Budget, check_memory_growth, kept_bytes, load_probes, peak_bytes, retained_bytes
from tinytorch.autograd import is_grad_enabled
from tinytorch.embeddings import (
    Embedding,
    LearnedPositions,
    Rotary,
    SinusoidalPositions,
    SparseRows,
    TiedLinear,
    embedding,
    rotary,
    rotary_tables,
    scatter_add,
    sgd_rows_,
    sinusoidal_positions,
)
from tinytorch.tensor import Tensor

KIB, MIB = 1 << 10, 1 << 20
PROBES = {probe.name: probe for probe in load_probes(__file__).PROBES}

LOOK_UP = Budget(
    "looking up 4,096 ids in a table of 1,024",
    limit=1.6,
    reference=1.0,
    naive=20,
    unit="times the memory of the result, at the worst moment",
    naively="a product with ones and zeros",
)
KEPT = Budget(
    "what the way back keeps of embedding",
    limit=48,
    reference=1.0,
    naive=1024,
    unit="KiB, of a table and a result of 1 MiB each",
    naively="a version that keeps the table or the result",
)
ADD_UP = Budget(
    "scatter_add of 1 MiB to 64 rows",
    limit=3.2,
    reference=0.66,
    naive=6.0,
    unit="times the memory of what is added up, at the worst moment",
    naively="a version that adds in float64",
)
BACK = Budget(
    "the dense gradient of a table of 2 MiB from 1,024 ids",
    limit=1.7,
    reference=1.2,
    naive=2.0,
    unit="times the memory of the table, at the worst moment",
    naively="a version that adds two tables",
)
SPARSE = Budget(
    "a sparse pass there and back and a step, table of 4 MiB, 64 ids",
    limit=0.3,
    reference=0.03,
    naive=2.0,
    unit="times the memory of the table, at the worst moment",
    naively="a version with one array as large as the table",
)
STEP = Budget(
    "sgd_rows_ of 64 rows, table of 2 MiB",
    limit=0.3,
    reference=0.03,
    naive=1.0,
    unit="times the memory of the table, at the worst moment",
    naively="a version that makes the rows dense",
)
ONCE = Budget(
    "coalesce of 4,096 rows, all different",
    limit=4.5,
    reference=1.7,
    naive=16,
    unit="times the memory of the rows, at the worst moment",
    naively="a version that compares all ids with all",
)
SUM = Budget(
    "the sum of 64 rows and 64 others, table of 4 MiB",
    limit=0.3,
    reference=0.01,
    naive=2.0,
    unit="times the memory of the table, at the worst moment",
    naively="a version that adds two tables",
)
WAITING = Budget(
    "sixteen sparse look-ups that never went back",
    limit=64,
    reference=2.6,
    naive=4096,
    unit="KiB, kept by the layer",
    naively="a layer that holds what it looked up",
)
DRAWN = Budget(
    "a new Embedding",
    limit=3.5,
    reference=2.0,
    naive=5.0,
    unit="times the memory of its weight, at the worst moment",
    naively="a version that draws and scales in float64",
)
ADDED = Budget(
    "adding positions to 1 MiB",
    limit=1.5,
    reference=1.0,
    naive=2.0,
    unit="times the memory of the result, at the worst moment",
    naively="a version that repeats the table for each sequence",
)
POSITIONS_KEPT = Budget(
    "what the way back keeps of added positions",
    limit=64,
    reference=1.3,
    naive=1024,
    unit="KiB, of an input of 1 MiB",
    naively="a version that keeps the input",
)
WAVES = Budget(
    "sinusoidal_positions of 1 MiB",
    limit=10,  # np.where over a sine and a cosine for every column, all in float64: 8
    reference=3.0,
    naive=16,
    unit="times the memory of the table, at the worst moment",
    naively="a version by lists of Python's numbers",
)
ONE = Budget(
    "one token, at one of 8,192 positions",
    limit=0.1,
    reference=0.002,
    naive=3.0,
    unit="times the memory of the table, at the worst moment",
    naively="a version that makes the table anew",
)
TURN = Budget(
    "rotary of 1 MiB",
    limit=4.3,
    reference=2.1,
    naive=6.0,
    unit="times the memory of the result, at the worst moment",
    naively="a version by complex numbers of 16 bytes",
)
TURN_KEPT = Budget(
    "what the way back keeps of rotary",
    limit=160,
    reference=0.7,
    naive=1024,
    unit="KiB, of vectors of 1 MiB",
    naively="a version that keeps the vectors",
)
TIED = Budget(
    "a tied head, table of 1 MiB",
    limit=64,
    reference=0.4,
    naive=1024,
    unit="KiB",
    naively="a head with a table of its own",
)


def table(rng, count, dim=64):
    return rng.standard_normal((count, dim), np.float32)


def ids(rng, n, count):
    return rng.integers(0, count, n)


# 12.2 embedding, 12.4 its rule


def test_looking_up_makes_the_result_and_nothing_else(rng):
    weight, places = table(rng, 1024), ids(rng, 4096, 1024)
    LOOK_UP.check(peak_bytes(lambda: embedding(weight, places)) / MIB)


def test_the_twin_that_multiplies_by_ones_and_zeros_is_caught(rng):
    weight, places = table(rng, 1024)[:, :64], ids(rng, 4096, 1024)

    def look_up():
        return (places[:, None] == np.arange(1024)).astype(np.float32) @ weight

    LOOK_UP.catches(peak_bytes(look_up) / MIB)


def test_neither_the_table_nor_the_result_is_kept(rng):
    """A table may be a gigabyte; what its gradient needs are the ids and the number of rows."""
    places = ids(rng, 4096, 4096)
    base = table(rng, 4096)
    KEPT.check(kept_bytes(lambda: embedding.vjp(base + np.float32(1), places)[1]) / KIB)


def test_the_twin_that_keeps_the_table_is_caught(rng):
    base = table(rng, 4096)

    def there():
        weight = base + np.float32(1)
        return lambda grad: np.zeros_like(weight)

    KEPT.catches(kept_bytes(there) / KIB)


def test_a_graph_keeps_the_ids_only(rng):
    assert is_grad_enabled()
    layer, places = Embedding(4096, 64, rng=rng), ids(rng, 4096, 4096)
    KEPT.check((kept_bytes(lambda: layer(places)) - MIB) / KIB)


def test_a_dense_gradient_is_one_table(rng):
    weight, places = table(rng, 8192), ids(rng, 1024, 8192)
    out, back = embedding.vjp(weight, places, padding_idx=3)
    BACK.check(peak_bytes(lambda: back(out)) / weight.nbytes)


def test_the_twin_that_adds_two_tables_is_caught(rng):
    weight = table(rng, 8192)
    BACK.catches(peak_bytes(lambda: np.zeros_like(weight) + np.zeros_like(weight)) / weight.nbytes)


# 12.3 scatter_add


@pytest.mark.parametrize("dim", [63, 64])
def test_adding_up_needs_little_more_than_the_rows(dim, rng):
    rows, places = table(rng, 4096, dim), ids(rng, 4096, 64)
    ADD_UP.check(peak_bytes(lambda: scatter_add(rows, places, 64)) / rows.nbytes)


def test_the_twin_that_counts_in_float64_is_caught(rng):
    rows, places = table(rng, 4096), ids(rng, 4096, 64)

    def add_up():
        cells = (places[:, None] * 64 + np.arange(64)).reshape(-1)
        weights = rows.astype(np.float64)
        return np.bincount(cells, weights.reshape(-1) * 1.0, 64 * 64).astype(np.float32)

    ADD_UP.catches(peak_bytes(add_up) / rows.nbytes)


# 12.8 Embedding


def test_a_new_table_takes_little_more_than_itself(rng):
    DRAWN.check(peak_bytes(lambda: Embedding(4096, 64, rng=rng)) / MIB)


def test_the_twin_that_draws_float64_is_caught(rng):
    def draw():
        weight = np.empty((4096, 64), np.float32)
        drawn = rng.standard_normal((4096, 64))
        scaled = drawn * 1.0
        weight[...] = scaled
        return weight

    DRAWN.catches(peak_bytes(draw) / MIB)


# 12.6, 12.7, 12.9: gradients of a few rows


def sparse_step(layer, places):
    (layer(places) * 2.0).sum().backward()
    sgd_rows_(layer.weight, layer.sparse_grad(), 0.1)


def test_a_sparse_step_makes_nothing_as_large_as_the_table(rng):
    layer, places = Embedding(16_384, 64, sparse=True, rng=rng), ids(rng, 64, 16_384)
    SPARSE.check(peak_bytes(lambda: sparse_step(layer, places)) / layer.weight.data.nbytes)


def test_the_twin_with_a_dense_gradient_is_caught(rng):
    layer, places = Embedding(16_384, 64, rng=rng), ids(rng, 64, 16_384)

    def step():
        layer.zero_grad()
        layer(places).sum().backward()

    SPARSE.catches(peak_bytes(step) / layer.weight.data.nbytes)


def test_memory_of_a_sparse_step_does_not_grow_with_the_table():
    probe = PROBES["a step of 64 ids, sparse, table (n, 64)"]
    check_memory_growth(probe)


def test_a_step_reads_and_writes_its_rows_only(rng):
    weight = Tensor(table(rng, 8192))
    rows = SparseRows(ids(rng, 64, 8192), table(rng, 64), (8192, 64))
    STEP.check(peak_bytes(lambda: sgd_rows_(weight, rows, 0.1)) / weight.data.nbytes)


def test_the_twin_that_makes_the_rows_dense_is_caught(rng):
    weight, places, values = table(rng, 8192), ids(rng, 64, 8192), table(rng, 64)

    def step():
        dense = np.zeros_like(weight)
        np.add.at(dense, places, values)
        weight[...] -= dense

    STEP.catches(peak_bytes(step) / weight.nbytes)


def test_rows_are_put_together_in_memory_of_their_own_size(rng):
    rows = SparseRows(rng.permutation(4096) * 1000, table(rng, 4096), (4_096_000, 64))
    ONCE.check(peak_bytes(rows.coalesce) / rows.values.nbytes)


def test_the_twin_that_compares_all_with_all_is_caught(rng):
    places = rng.permutation(4096)
    ONCE.catches(peak_bytes(lambda: places[:, None] == places) / MIB)


def test_a_sum_has_rows_and_no_table(rng):
    one, other = (SparseRows(ids(rng, 64, 16_384), table(rng, 64), (16_384, 64)) for _ in range(2))
    SUM.check(peak_bytes(lambda: one + other) / (4 * MIB))


def test_the_twin_that_adds_tables_is_caught(rng):
    one, other = np.zeros((2, 16_384, 64), np.float32)
    SUM.catches(peak_bytes(lambda: one.copy() + other) / (4 * MIB))


def test_what_never_went_back_is_not_kept(rng):
    """Validation looks up, too, and nobody calls backward."""
    layer, places = Embedding(1024, 64, sparse=True, rng=rng), np.arange(1024)
    WAITING.check(retained_bytes(lambda: [layer(places) for _ in range(16)]) / KIB)


def test_the_twin_that_holds_what_it_looked_up_is_caught(rng):
    weight, held = table(rng, 1024), []
    WAITING.catches(retained_bytes(lambda: held.extend(weight[:] + np.float32(1) for _ in range(16))) / KIB)


# 12.10 to 12.12: positions that are added


def test_waves_are_made_in_arrays():
    WAVES.check(peak_bytes(lambda: sinusoidal_positions(4096, 64)) / MIB)


def test_the_twin_by_lists_is_caught():
    def waves():
        angles = [[p / (c + 1) for c in range(64)] for p in range(512)]
        return np.array([[np.sin(angle).item() for angle in row] for row in angles], np.float32)

    WAVES.catches(peak_bytes(waves) / (512 * 64 * 4))


LAYERS = {
    "waves": lambda rng: SinusoidalPositions(64, 512),
    "learned": lambda rng: LearnedPositions(512, 64, rng=rng),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_positions_are_added_from_a_view_of_their_table(kind, rng):
    layer, x = LAYERS[kind](rng), Tensor(table(rng, 4096).reshape(16, 256, 64))
    ADDED.check(peak_bytes(lambda: layer(x, 3)) / MIB)
    POSITIONS_KEPT.check((kept_bytes(lambda: layer(Tensor(x.data, requires_grad=True), 3)) - MIB) / KIB)


def test_the_twin_that_repeats_the_table_is_caught(rng):
    x, rows = table(rng, 4096).reshape(16, 256, 64), table(rng, 256)
    ADDED.catches(peak_bytes(lambda: x + np.tile(rows, (16, 1, 1))) / MIB)
    POSITIONS_KEPT.catches(kept_bytes(lambda: x + np.float32(1)) / KIB)


ONE_TOKEN = {
    "waves": lambda rng: SinusoidalPositions(64, 8192),
    "learned": lambda rng: LearnedPositions(8192, 64, rng=rng),
    "rotary": lambda rng: Rotary(64, 8192),
}


@pytest.mark.parametrize("kind", ONE_TOKEN)
def test_tables_are_made_once(kind, rng):
    layer, x = ONE_TOKEN[kind](rng), Tensor(table(rng, 1))
    ONE.check(peak_bytes(lambda: layer(x, 8000)) / (8192 * 64 * 4))


def test_the_twin_that_makes_its_table_anew_is_caught(rng):
    ONE.catches(peak_bytes(lambda: np.sin(np.ones((8192, 64))).astype(np.float32)) / (8192 * 64 * 4))


# 12.14, 12.15: rotary


def vectors(rng):
    x = table(rng, 4096).reshape(16, 256, 64)
    return x, *rotary_tables(256, 64)


def test_turning_takes_a_few_arrays(rng):
    x, cos, sin = vectors(rng)
    TURN.check(peak_bytes(lambda: rotary(x, cos=cos, sin=sin)) / MIB)
    _, back = rotary.vjp(x, cos=cos, sin=sin)
    TURN.check(peak_bytes(lambda: back(x)) / MIB)


def test_the_twin_by_wide_complex_numbers_is_caught(rng):
    x, cos, sin = vectors(rng)

    def turn():
        z = x[..., :32].astype(np.complex128) + 1j * x[..., 32:]
        w = z * (cos + 1j * sin)
        return np.concatenate((w.real, w.imag), axis=-1)

    TURN.catches(peak_bytes(turn) / MIB)


def test_a_rotation_keeps_its_angles_only(rng):
    """Their tables are there anyway, and serve all layers and heads."""
    x, cos, sin = vectors(rng)
    TURN_KEPT.check(kept_bytes(lambda: rotary.vjp(x + np.float32(1), cos=cos, sin=sin)[1]) / KIB)


def test_the_twin_that_keeps_the_vectors_is_caught(rng):
    x, _, _ = vectors(rng)
    TURN_KEPT.catches(kept_bytes(lambda: x + np.float32(1)) / KIB)


# 12.17 TiedLinear


def test_a_tied_head_has_no_table_of_its_own(rng):
    layer = Embedding(4096, 64, rng=rng)
    TIED.check(kept_bytes(lambda: TiedLinear(layer)) / KIB)


def test_a_tied_head_that_is_used_makes_logits_only(rng):
    head, x = TiedLinear(Embedding(4096, 64, rng=rng)), Tensor(table(rng, 1))
    TIED.check(peak_bytes(lambda: head(x)) / KIB)
    TIED.check(retained_bytes(lambda: head(x)) / KIB)


def test_the_twin_with_a_table_of_its_own_is_caught(rng):
    layer = Embedding(4096, 64, rng=rng)
    TIED.catches(kept_bytes(lambda: layer.weight.data.copy()) / KIB)
