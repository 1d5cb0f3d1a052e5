"""Level 3: what costs no memory, and how little the rest needs.

Counted by tracemalloc in bytes, so the figures are the same on every machine. Each budget has a twin: a
naive version, written out here, that must not fit.
"""

import functools

import numpy as np
import pytest

from dojo.expect import expect
from dojo.measuring import Budget, kept_bytes, load_probes, memory_growth, peak_bytes, retained_bytes
from tinytorch.tensor import Tensor, as_strided, concatenate, rand, randn, set_recorder, stack, var

KIB, MIB = 1 << 10, 1 << 20

PROBES = {probe.name: probe for probe in load_probes(__file__).PROBES}

VIEW = Budget(
    "a view of an array of 1 MiB",
    limit=64,
    reference=1.5,
    naive=1024,
    unit="KiB",
    naively="a version that copies",
)
EXPAND = Budget(
    "1 KiB expanded",
    limit=64,
    reference=3,
    naive=8192,
    unit="KiB",
    naively="a version that repeats the elements, 8,192 times,",
)
BROADCAST = Budget(
    "a table and a row, or a number",
    limit=1.5,
    reference=1.03,
    naive=2.0,
    unit="tables at the worst moment",
    naively="a version that first makes a table of the row, or of the number,",
)
REDUCE = Budget(
    "a mean or a sum",
    limit=0.5,
    reference=0.002,
    naive=1.0,
    unit="inputs at the worst moment",
    naively="a version that divides each element first",
)
PIXELS = Budget(
    "a mean or a sum of uint8 pixels",
    limit=0.6,
    reference=0.06,
    naive=4.0,
    unit="inputs at the worst moment",
    naively="a version that converts each pixel to float32 first",
)
VARIANCE = Budget(
    "a variance",
    limit=1.5,
    reference=1.04,
    naive=2.0,
    unit="inputs at the worst moment",
    naively="a version that keeps the distances beside their squares",
)
JOIN = Budget(
    "16 arrays joined",
    limit=1.5,
    reference=1.0,
    naive=1.94,
    unit="results at the worst moment",
    naively="a version that joins them two at a time",
)
DRAW = Budget(
    "random float32 numbers",
    limit=2.0,
    reference=1.0,
    naive=3.0,
    unit="results at the worst moment",
    naively="a version that draws float64 and converts",
)
PRODUCT = Budget(
    "a product of two (256, 256) float32 matrices",
    limit=2.5,
    reference=1.0,
    naive=7.0,
    unit="results at the worst moment",
    naively="a version that goes through float64",
)
BATCH = Budget(
    "16 matrices of (64, 64) times one",
    limit=2.5,
    reference=1.0,
    naive=65.0,
    unit="results at the worst moment",
    naively="a version that lays out every product before it adds them up",
)
PRODUCT_GROWTH = Budget(
    "matmul: peak bytes over the side n",
    limit=2.5,
    reference=2.0,
    naive=3.0,
    unit="as the power of n",
    naively="a version that lays out all n * n * n products",
)


@pytest.fixture
def table(rng):
    """(512, 512) float32: 1 MiB."""
    return Tensor(rng.random((512, 512), np.float32))


@pytest.fixture
def matrix(rng):
    """(256, 256) float32, 256 KiB: so that a slow product gets to level 4, which says that it is slow."""
    return Tensor(rng.random((256, 256), np.float32))


# A view is another shape and other strides on the same bytes.


VIEWS = {
    "Tensor(array)": lambda x: Tensor(Tensor(x.data)),
    "as_strided": lambda x: Tensor(as_strided(x.data, (512, 512, 1), (4, 2048, 0))),
    "reshape": lambda x: x.reshape(64, -1, 2),
    "view": lambda x: x.view(-1),
    "contiguous": lambda x: x.contiguous(),
    "transpose": lambda x: x.transpose(0, 1),
    "permute": lambda x: x.permute(1, 0),
    "T": lambda x: x.T,
    "squeeze": lambda x: x.squeeze(),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "unsqueeze, squeeze of a transpose": lambda x: x.T.unsqueeze(0).squeeze(0),
    "reshape of a transpose": lambda x: x.T.reshape(512, 2, 256),
    "expand": lambda x: x.expand(4, 512, 512),
    "a slice": lambda x: x[1::2, 3:],
    "a slice backwards": lambda x: x[::-2, ::-1],
    "reshape of rows backwards": lambda x: x[::-1].reshape(512, 2, 256),
    "view of all backwards": lambda x: x[::-1, ::-1].view(-1),
    "a row": lambda x: x[-1],
    "reshape of a transposed slice": lambda x: x[:, ::2].transpose(0, 1).reshape(16, 16, 512),
    "view of columns": lambda x: x[:, ::4].view(1024, 64),
    "contiguous rows": lambda x: x[10:500].contiguous(),
    "a walk over rows": lambda x: next(iter(x)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_copies_nothing(name, table):
    make = VIEWS[name]
    assert np.shares_memory(make(table).data, table.data)
    VIEW.check(peak_bytes(lambda: make(table)) / KIB)


def test_a_view_is_refused_before_anything_is_copied(table):
    def refused():
        with pytest.raises(ValueError, match="copy"):
            table.T.view(-1)

    VIEW.check(peak_bytes(refused) / KIB)


def test_the_twin_that_copies_is_caught(table):
    VIEW.catches(peak_bytes(lambda: np.ascontiguousarray(table.data.T)) / KIB)


def test_a_gibibyte_of_one_row_takes_no_memory():
    row = Tensor(np.ones(128))  # 1 KiB
    view = row.expand(1 << 20, 128)
    expect((view.shape, view.data[-1, -1], view.strides), ((1 << 20, 128), 1.0, (0, 8)))
    EXPAND.check(peak_bytes(lambda: row.expand(1 << 20, 128)) / KIB)


def test_the_twin_that_repeats_the_row_is_caught():
    row = np.ones(128)
    EXPAND.catches(peak_bytes(lambda: np.tile(row, (1 << 13, 1))) / KIB)


@pytest.mark.parametrize("name", ["transpose (n, n)", "expand (n,) to (n, n)"])
def test_a_view_of_more_is_not_more(name):
    expect(memory_growth(PROBES[name]), 0.0, atol=0.2)


# Stretched operands are read again and again, not laid out.


def test_a_row_is_added_to_a_table_without_becoming_one(table):
    row, column = Tensor(table.data[0].copy()), Tensor(table.data[:, :1].copy())
    BROADCAST.check(peak_bytes(lambda: table + row) / MIB)
    BROADCAST.check(peak_bytes(lambda: column * table) / MIB)
    BROADCAST.check(peak_bytes(lambda: table / row) / MIB)
    BROADCAST.check(peak_bytes(lambda: table**2) / MIB)


def test_the_twin_that_makes_a_table_of_the_row_is_caught(table):
    def lay_out_first(x, row):
        whole = np.broadcast_to(row, x.shape).copy()
        return x + whole

    BROADCAST.catches(peak_bytes(lambda: lay_out_first(table.data, table.data[0])) / MIB)


def test_a_result_is_all_that_an_operation_leaves_behind(table, matrix):
    def work():
        return [table + 1.0, table / table, table**2, table.exp(), table.clip(0, 1), matrix @ matrix]

    expect(kept_bytes(work) / MIB, 5.25, atol=0.1)
    expect(retained_bytes(work) / MIB, 0.0, atol=0.1)


# A sum needs one number for each result.


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_sums_and_means_need_little_more_than_their_result(axis, table):
    for reduce in (Tensor.sum, Tensor.mean, Tensor.max):
        REDUCE.check(peak_bytes(lambda reduce=reduce: reduce(table, axis=axis)) / MIB)
        REDUCE.check(peak_bytes(lambda reduce=reduce: reduce(table[:, :-1], axis=axis)) / MIB)


def test_pixels_are_not_converted_before_they_are_averaged(rng):
    pixels = Tensor(rng.integers(0, 256, (1024, 1024), dtype=np.uint8))  # 1 MiB
    PIXELS.check(peak_bytes(lambda: pixels.mean(axis=0)) / MIB)
    PIXELS.check(peak_bytes(lambda: pixels.sum()) / MIB)


def test_the_twin_that_changes_every_element_first_is_caught(table, rng):
    pixels = rng.integers(0, 256, (1024, 1024), dtype=np.uint8)
    REDUCE.catches(peak_bytes(lambda: (table.data / table.size).sum()) / MIB)
    PIXELS.catches(peak_bytes(lambda: pixels.astype(np.float32).mean()) / MIB)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_variance_needs_one_scratch_array(axis, table):
    VARIANCE.check(peak_bytes(lambda: var(table, axis=axis)) / MIB)


def test_the_twin_with_two_scratch_arrays_is_caught(table):
    def two_arrays(x):
        distances = x - x.mean()
        squares = distances * distances
        return squares.sum() / (x.size - 1)

    VARIANCE.catches(peak_bytes(lambda: two_arrays(table.data)) / MIB)


# What is joined is copied once.


@pytest.mark.parametrize("axis", [0, 1])
def test_joining_allocates_the_result_and_nothing_else(axis, rng):
    pieces = [Tensor(rng.random((128, 128), np.float32)) for _ in range(16)]
    JOIN.check(peak_bytes(lambda: concatenate(pieces, axis=axis)) / MIB)
    JOIN.check(peak_bytes(lambda: stack(pieces, axis=axis)) / MIB)
    mixed = [*pieces[1:], Tensor(np.zeros((128, 128)))]  # they meet in float64
    JOIN.check(peak_bytes(lambda: concatenate(mixed, axis=axis)) / (2 * MIB))


def test_the_twin_that_joins_two_at_a_time_is_caught(rng):
    pieces = [rng.random((128, 128), np.float32) for _ in range(16)]
    JOIN.catches(peak_bytes(lambda: functools.reduce(lambda a, b: np.concatenate([a, b]), pieces)) / MIB)


@pytest.mark.parametrize("draw", [rand, randn], ids=["rand", "randn"])
def test_random_numbers_are_drawn_in_their_dtype(draw, rng):
    DRAW.check(peak_bytes(lambda: draw(512, 512, rng=rng)) / MIB)


def test_the_twin_that_draws_float64_is_caught(rng):
    DRAW.catches(peak_bytes(lambda: rng.standard_normal((512, 512)).astype(np.float32)) / MIB)


# Products are added up as they come.


def test_a_matrix_product_needs_memory_for_its_result(matrix):
    PRODUCT.check(peak_bytes(lambda: matrix @ matrix) / (256 * KIB))
    PRODUCT_GROWTH.check(memory_growth(PROBES["matmul (n, n)"]))


def test_a_batch_of_products_needs_memory_for_its_result(rng):
    batch, matrix = Tensor(rng.random((16, 64, 64), np.float32)), Tensor(rng.random((64, 64), np.float32))
    BATCH.check(peak_bytes(lambda: batch @ matrix) / (256 * KIB))
    small, stretched = Tensor(rng.random((64, 4, 64), np.float32)), Tensor(matrix.data[None])
    BATCH.check(peak_bytes(lambda: small @ stretched) / (64 * KIB))


def test_the_twin_that_lays_out_a_batch_of_products_is_caught(rng):
    batch, matrix = rng.random((16, 64, 64), np.float32), rng.random((64, 64), np.float32)
    BATCH.catches(peak_bytes(lambda: (batch[..., None] * matrix).sum(axis=-2)) / (256 * KIB))


def test_the_twin_that_multiplies_in_float64_is_caught(matrix):
    def in_float64(a, b):
        wide, other = a.astype(np.float64), b.astype(np.float64)
        product = wide @ other
        return product.astype(np.float32)

    PRODUCT.catches(peak_bytes(lambda: in_float64(matrix.data, matrix.data)) / (256 * KIB))


def test_the_twin_that_lays_out_every_product_is_caught(rng):
    def peak(n):
        a, b = rng.random((n, n), np.float32), rng.random((n, n), np.float32)
        return peak_bytes(lambda: (a[:, :, None] * b).sum(axis=1))

    PRODUCT_GROWTH.catches(np.log2(peak(128) / peak(64)))


# What a gradient rule does not name can go.


def test_the_seam_holds_only_what_a_rule_names(table):
    """A chain of four products by a number: the rule needs the number, and no array at all."""
    held = []

    def forward():
        held.clear()
        x = Tensor(table.data, requires_grad=True)
        for _ in range(4):
            x = x * 2.0
        return x

    before = set_recorder(lambda op, inputs, arrays, params, out: held.append(arrays[1]))
    try:
        kept = kept_bytes(forward)
    finally:
        set_recorder(before)
    expect((len(held), kept / MIB), (4, 1.0), atol=0.1)
