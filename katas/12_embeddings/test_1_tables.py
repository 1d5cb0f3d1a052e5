"""Level 1: ids, looking up, adding up, gradients of a few rows, and the layer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect, expect_error
from tinytorch.autograd import is_grad_enabled, no_grad
from tinytorch.embeddings import (
    Embedding,
    SparseRows,
    TiedLinear,
    check_ids,
    embedding,
    normal_,
    scatter_add,
    sgd_rows_,
)
from tinytorch.layers import Module, Parameter, count_parameters, parameter_bytes
from tinytorch.tensor import Tensor, set_recorder, version

steady = settings(deadline=None, derandomize=True, max_examples=40)
SEEDS = st.integers(0, 2**32 - 1)
INTEGERS = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)


def f32(values):
    return np.array(values, np.float32)


def by_rows(rows, ids, count):
    """What scatter_add is, one row at a time."""
    total = np.zeros((count, rows.shape[1]), rows.dtype)
    for row, i in zip(rows, ids, strict=True):
        total[int(i)] += row
    return total


def eighths(rng, *shape, dtype=np.float64):
    """Numbers whose sums are exact, in whatever order."""
    return (rng.integers(-32, 33, shape) / 8).astype(dtype)


def operations(layer, *inputs):
    """The names of the operations that a forward pass records."""
    seen = []
    before = set_recorder(lambda op, inputs, arrays, params, out: seen.append(op.name))
    try:
        layer(*inputs)
    finally:
        set_recorder(before)
    return seen


# 12.1 check_ids


@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda d: d.__name__)
def test_integers_of_any_dtype_become_indices(dtype):
    expect(check_ids(np.array([[0, 3], [2, 1]], dtype), 4), np.array([[0, 3], [2, 1]], np.intp))


def test_ids_may_be_a_list_a_number_or_a_tensor():
    expect(check_ids([2, 0], 3), np.array([2, 0], np.intp))
    expect(check_ids(2, 3), np.array(2, np.intp))
    expect(check_ids(Tensor([[1], [2]]), 3), np.array([[1], [2]], np.intp))


def test_no_ids_are_no_wrong_ids():
    for count in (0, 5):
        expect(check_ids(np.zeros((0, 2), np.int32), count), np.zeros((0, 2), np.intp))


def test_indices_are_not_copied(rng):
    ids = rng.integers(0, 9, (4, 6)).astype(np.intp)
    for view in (ids, ids.T, ids[::-1, ::2]):
        assert np.shares_memory(check_ids(view, 9), view)


@pytest.mark.parametrize(
    ("ids", "wrong"),
    [
        ([0, -1, 2], -1),
        ([0, 10], 10),
        (np.array([[3, 9], [12, 0]], np.uint8), 12),
        (np.array(-7), -7),
        (np.array([2**63 + 1], np.uint64), 2**63 + 1),
        (np.array([-128, 1], np.int8), -128),
    ],
    ids=str,
)
def test_an_id_that_is_no_row_is_named_with_the_number_of_rows(ids, wrong):
    """-1 would be the last row for numpy, and nobody would notice."""
    with expect_error(ValueError, str(wrong), "10"):
        check_ids(ids, 10)


def test_a_table_without_rows_has_no_row_0():
    with expect_error(ValueError, "0"):
        check_ids([0], 0)


@pytest.mark.parametrize(
    "dtype", [np.bool_, np.float16, np.float32, np.float64, np.complex64], ids=lambda d: d.__name__
)
def test_only_integers_are_ids(dtype):
    """A mask would pick other rows than those that it seems to name."""
    with expect_error(TypeError, np.dtype(dtype).name):
        check_ids(np.array([1, 0], dtype), 2)


# 12.2 embedding


def test_an_id_names_a_row():
    weight = f32([[0, 1], [10, 11], [20, 21]])
    expect(embedding(weight, [2, 0, 2]), f32([[20, 21], [0, 1], [20, 21]]))


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (2, 3), (2, 0, 3), (2, 1, 3)], ids=str)
def test_each_id_becomes_a_vector(shape, rng):
    weight, ids = rng.normal(size=(5, 4)), rng.integers(0, 5, shape)
    expected = np.zeros((*shape, 4))
    for place in np.ndindex(*shape):
        expected[place] = weight[int(ids[place])]
    expect(embedding(weight, ids), expected)


@steady
@given(st.integers(1, 6), st.integers(0, 4), st.lists(st.integers(0, 3), max_size=3), SEEDS)
def test_looking_up_is_a_product_with_ones_and_zeros(count, dim, shape, seed):
    rng = np.random.default_rng(seed)
    weight, ids = eighths(rng, count, dim), rng.integers(0, count, shape)
    one_hot = (np.asarray(ids)[..., None] == np.arange(count)).astype(float)
    expect(embedding(weight, ids), one_hot @ weight)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64], ids=lambda d: d.__name__)
def test_rows_keep_their_dtype(dtype):
    weight = np.array([[1, 2], [3, 4]], dtype)
    expect(embedding(weight, np.array([1, 1], np.uint8)), weight[[1, 1]])


def test_a_table_may_lie_in_memory_in_any_order(rng):
    weight, ids = rng.normal(size=(6, 8)), np.array([[5, 0], [3, 3]])
    for view in (weight, np.asfortranarray(weight), weight[::-1], weight[:, ::-2], weight[::2].repeat(3, 0)):
        expect(embedding(view, ids), np.array([[view[5], view[0]], [view[3], view[3]]]))


def test_ids_may_be_strided(rng):
    weight, ids = rng.normal(size=(9, 2)), rng.integers(0, 9, (4, 6))
    for view in (ids.T, ids[::-1, ::-2], np.broadcast_to(ids[:1], (3, 6))):
        expect(embedding(weight, view), embedding(weight, view.copy()).data)


def test_what_is_looked_up_is_a_copy(rng):
    weight = rng.normal(size=(3, 2))
    before = weight.copy()
    out = embedding(weight, np.arange(3))
    assert not np.shares_memory(out.data, weight)
    out.data[...] = 0
    expect(weight, before)
    for ids in (1, [1], np.array(2), np.array([[0]])):
        out = embedding(weight, ids)
        out.data[...] = 7
        expect(weight, before)


def test_the_padding_is_looked_up_as_it_is(rng):
    weight = rng.normal(size=(3, 2))
    expect(embedding(weight, [1, 2], padding_idx=1), weight[1:])


def test_looking_up_refuses_what_is_no_row_and_what_is_no_table(rng):
    weight = rng.normal(size=(3, 2))
    for wrong in (-1, 3):
        with expect_error(ValueError, str(wrong), "3"):
            embedding(weight, [0, wrong])
    with expect_error(TypeError, "float64"):
        embedding(weight, np.array([0.0]))
    for shape in ((), (3,), (2, 3, 4)):
        with expect_error(ValueError, str(shape)):
            embedding(np.zeros(shape), [0])


# 12.3 scatter_add


def test_rows_of_one_id_add_up():
    rows = f32([[1, 2], [10, 20], [100, 200]])
    expect(scatter_add(rows, np.array([3, 0, 3]), 5), f32([[10, 20], [0, 0], [0, 0], [101, 202], [0, 0]]))


@steady
@given(
    st.integers(0, 12),
    st.integers(0, 5),
    st.integers(1, 9),
    st.sampled_from([np.float32, np.float64, np.int64, np.int32]),
    SEEDS,
)
def test_it_is_the_loop_over_rows(n, dim, count, dtype, seed):
    rng = np.random.default_rng(seed)
    rows, ids = eighths(rng, n, dim, dtype=dtype), rng.integers(0, count, n)
    expect(scatter_add(rows, ids, count), by_rows(rows, ids, count))


@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda d: d.__name__)
def test_ids_of_few_bits_name_places_beyond_them(dtype, rng):
    """127 * 64 is 8,128, and in eight bits -64."""
    rows, ids = eighths(rng, 300, 64), rng.integers(0, 128, 300).astype(dtype)
    expect(scatter_add(rows, ids, 128), by_rows(rows, ids, 128))


@pytest.mark.parametrize("dim", [1, 63, 64])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64], ids=lambda d: d.__name__)
def test_many_rows_add_up_like_few(dim, dtype, rng):
    """More than any cache-sized piece of them; and ids as in a text, one of them in half of all places."""
    n, count = 5000, 300
    rows = rng.integers(-1, 2, (n, dim)).astype(dtype)
    ids = np.where(rng.random(n) < 0.5, 7, rng.integers(0, count, n))
    expect(scatter_add(rows, ids, count), by_rows(rows, ids, count))


@pytest.mark.parametrize("dim", [3, 4])
def test_rows_may_lie_in_memory_in_any_order(dim, rng):
    rows, ids = eighths(rng, 6, 2 * dim), np.array([4, 0, 4, 1, 1, 1])
    for view in (
        np.asfortranarray(rows),
        rows[::-1],
        rows[:, ::2],
        rows[:, ::-1],
        rows[:, 1 : 1 + dim],
        np.broadcast_to(rows[0], (6, 2 * dim)),
        np.broadcast_to(rows[0, 0], (6, dim)),
    ):
        before = view.copy()
        expect(scatter_add(view, ids, 5), by_rows(before, ids, 5))
        expect(view, before)
    expect(scatter_add(rows, np.repeat(ids, 2)[::-2], 5), by_rows(rows, ids[::-1], 5))


def test_numbers_keep_all_their_digits():
    """An int64 has more of them than a float64, and that more than a float32."""
    rows = np.array([[2**60, 3], [1, -1], [1, 2**53 + 1]], np.int64)
    expect(scatter_add(rows, np.array([1, 1, 0]), 2), np.array([[1, 2**53 + 1], [2**60 + 1, 2]], np.int64))
    long = np.full((300, 4), 1 + 2.0**-40)
    expect(scatter_add(long, np.arange(300) % 2, 2), np.full((2, 4), 150 + 150 * 2.0**-40), rtol=1e-14)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_what_is_not_finite_stays_in_its_row_and_column(dim):
    rows = np.ones((4, dim))
    rows[1, -1], rows[2, 0] = np.inf, np.nan
    ids = np.array([0, 1, 2, 0])
    expect(scatter_add(rows, ids, 4), by_rows(rows, ids, 4))


def test_the_same_rows_give_the_same_bits(rng):
    rows, ids = rng.standard_normal((2000, 32), np.float32), rng.integers(0, 7, 2000)
    assert np.array_equal(scatter_add(rows, ids, 7), scatter_add(rows, ids, 7))


def test_what_comes_back_is_a_new_array(rng):
    rows = eighths(rng, 3, 2)
    out = scatter_add(rows, np.arange(3), 3)
    out += 1
    expect(out, rows + 1)


@pytest.mark.parametrize(
    ("rows", "ids"),
    [((4, 2), (3,)), ((4, 2), (5,)), ((4,), (4,)), ((4, 2), (2, 2)), ((2, 2, 3), (2,))],
    ids=str,
)
def test_each_row_needs_one_id(rows, ids):
    with expect_error(ValueError, str(rows), str(ids)):
        scatter_add(np.zeros(rows), np.zeros(ids, int), 3)


def test_adding_up_refuses_an_id_that_is_no_row():
    for wrong in (-1, 3):
        with expect_error(ValueError, str(wrong), "3"):
            scatter_add(np.ones((2, 2)), np.array([0, wrong]), 3)
    with expect_error(TypeError, "bool"):
        scatter_add(np.ones((2, 2)), np.array([True, False]), 3)


# 12.5 normal_


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64], ids=lambda d: d.__name__)
def test_a_tensor_is_drawn_anew_in_place_and_in_its_dtype(dtype, rng):
    array = np.full((300, 100), 7, dtype)
    tensor = Parameter(array)
    before = version(array)
    assert normal_(tensor, 0.5, rng=rng) is tensor
    assert tensor.data is array
    assert version(array) > before, "what a graph kept of it is no longer right: note the write"
    expect(array.dtype, np.dtype(dtype))
    # Of 30,000 draws the mean has a deviation of 0.003, the deviation one of 0.002: five of them each.
    wide = array.astype(np.float64)
    expect((float(wide.mean()), float(wide.std())), (0.0, 0.5), atol=0.015)
    assert np.abs(wide).max() > 1.5, "normal numbers go beyond three deviations"


def test_as_many_numbers_are_drawn_as_written():
    """Two draws of 6 are one of 12: none is skipped, and none comes from elsewhere."""
    for dtype in (np.float32, np.float64):
        rng = np.random.default_rng(3)
        halves = [normal_(Tensor(np.zeros((2, 3), dtype)), rng=rng).data.ravel() for _ in range(2)]
        whole = normal_(Tensor(np.zeros(12, dtype)), rng=np.random.default_rng(3))
        expect(np.concatenate(halves), whole.data)


def test_a_tensor_may_be_a_part_of_an_array(rng):
    array = np.zeros((6, 8))
    part = Tensor(array[::-2, 1::3])
    assert part.data.base is not None
    normal_(part, rng=rng)
    expect(np.count_nonzero(array), 9)
    expect(np.count_nonzero(array[1::2, 1::3]), 9)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 1, 3)], ids=str)
def test_a_tensor_of_any_shape_can_be_drawn(shape, rng):
    for dtype in (np.float32, np.float64):
        tensor = normal_(Tensor(np.zeros(shape, dtype)), rng=rng)
        expect((tensor.shape, tensor.dtype), (shape, np.dtype(dtype)))
        expect(np.count_nonzero(tensor.data), tensor.size)


def test_what_is_drawn_is_float64_where_the_tensor_is(rng):
    tensor = normal_(Tensor(np.zeros(100)), rng=rng)
    assert np.any(tensor.data != tensor.data.astype(np.float32))


def test_numbers_come_from_the_generator_given_and_scale_with_the_deviation():
    draw = lambda seed, *std: normal_(Tensor(f32([0] * 8)), *std, rng=np.random.default_rng(seed)).data  # noqa: E731
    expect(draw(1), draw(1))
    expect(draw(1, 4.0), 4 * draw(1, 1.0))
    expect(draw(1, 1.0), draw(1))
    expect(draw(1, 0.0), f32([0] * 8))
    assert not np.any(draw(1) == draw(2))


# 12.6 SparseRows


def twice_named():
    return SparseRows(np.array([3, 0, 3]), f32([[1, 2], [10, 20], [100, 200]]), (5, 2))


def test_coalesced_each_row_is_named_once_in_order():
    rows = twice_named()
    once = rows.coalesce()
    expect((once.ids, once.values), (np.array([0, 3]), f32([[10, 20], [101, 202]])))
    expect(once.shape, (5, 2))
    expect(once.nbytes, 2 * 8 + 2 * 2 * 4)
    with expect_error(ValueError, "(3, 2)"):
        SparseRows(once.ids, rows.values, (5, 2))
    expect((rows.ids, rows.values), (np.array([3, 0, 3]), f32([[1, 2], [10, 20], [100, 200]])))


def test_dense_it_is_the_whole_table():
    expect(twice_named().to_dense(), f32([[10, 20], [0, 0], [0, 0], [101, 202], [0, 0]]))


def test_no_rows_are_a_table_of_zeros():
    rows = SparseRows(np.zeros(0, np.int64), f32(np.zeros((0, 2))), (3, 2))
    expect(rows.to_dense(), f32(np.zeros((3, 2))))
    expect(rows.coalesce().values, f32(np.zeros((0, 2))))
    expect(
        (rows + SparseRows(np.array([1]), f32([[1, 2]]), (3, 2))).to_dense(), f32([[0, 0], [1, 2], [0, 0]])
    )


@steady
@given(st.integers(0, 6), st.integers(0, 6), st.integers(1, 5), st.integers(1, 3), SEEDS)
def test_the_sum_of_two_is_the_sum_of_their_tables(n, m, count, dim, seed):
    rng = np.random.default_rng(seed)
    one, other = (SparseRows(rng.integers(0, count, k), eighths(rng, k, dim), (count, dim)) for k in (n, m))
    total = by_rows(one.values, one.ids, count) + by_rows(other.values, other.ids, count)
    expect((one + other).to_dense(), total)
    once = (one + other).coalesce()
    expect(once.to_dense(), total)
    expect(once.ids, np.unique(np.concatenate((one.ids, other.ids))))


def test_tables_of_different_shapes_do_not_add_up():
    for shape in ((6, 2), (5, 3)):
        with expect_error(ValueError, "(5, 2)", str(shape)):
            twice_named() + SparseRows(np.array([0]), f32(np.zeros((1, shape[1]))), shape)


# 12.7 sgd_rows_


def test_only_rows_that_are_named_move():
    weight = Tensor(f32([[1, 1], [2, 2], [3, 3], [4, 4], [np.nan, 5]]))
    array = weight.data
    sgd_rows_(weight, twice_named(), 0.5)
    expect(weight.data, f32([[-4, -9], [2, 2], [3, 3], [-46.5, -97], [np.nan, 5]]))
    assert weight.data is array


def test_a_step_leaves_its_rows_as_they_are_and_the_weight_in_float32():
    weight, rows = Tensor(f32(np.zeros((5, 2)))), twice_named()
    before = version(weight.data)
    sgd_rows_(weight, rows, np.float64(0.1))
    expect(weight.data.dtype, np.dtype(np.float32))
    expect((rows.ids, rows.values), (np.array([3, 0, 3]), f32([[1, 2], [10, 20], [100, 200]])))
    assert version(weight.data) > before, "note the write with increment_version"


def test_a_step_goes_to_the_array_whatever_its_order():
    array = np.zeros((2, 5), np.float32)
    weight = Tensor(array.T)
    sgd_rows_(weight, twice_named(), 0.5)
    expect(array, f32([[-5, 0, 0, -50.5, 0], [-10, 0, 0, -101, 0]]))


@steady
@given(st.integers(0, 8), st.integers(1, 5), SEEDS)
def test_a_sparse_step_is_a_dense_one(n, count, seed):
    rng = np.random.default_rng(seed)
    rows = SparseRows(rng.integers(0, count, n), eighths(rng, n, 3), (count, 3))
    start = eighths(rng, count, 3)
    weight = Tensor(start.copy())
    sgd_rows_(weight, rows, 0.1)
    expect(weight.data, start - 0.1 * by_rows(rows.values, rows.ids, count))


def test_rows_of_another_table_are_refused():
    weight = Tensor(f32(np.zeros((6, 2))))
    with expect_error(ValueError, "(5, 2)", "(6, 2)"):
        sgd_rows_(weight, twice_named(), 0.1)
    expect(weight.data, f32(np.zeros((6, 2))))


# 12.8 Embedding


def test_its_weight_has_a_row_for_each_token(rng):
    layer = Embedding(7, 3, rng=rng)
    expect([(name, p.shape) for name, p in layer.named_parameters()], [("weight", (7, 3))])
    assert isinstance(layer.weight, Parameter)
    expect(layer.weight.data.dtype, np.dtype(np.float32))
    expect((layer.padding_idx, layer.sparse), (None, False))
    for kind in (layer, Embedding(7, 3, sparse=True, rng=rng)):
        expect((list(kind.state_dict()), len(list(kind.parameters()))), (["weight"], 1))


def test_rows_start_normal_with_deviation_1(rng):
    weight = Embedding(300, 100, rng=rng).weight.data.astype(np.float64)
    expect((float(weight.mean()), float(weight.std())), (0.0, 1.0), atol=0.03)
    assert np.abs(weight).max() > 3


def test_rows_are_drawn_from_the_generator_given():
    draw = lambda seed, *options: Embedding(5, 4, *options, rng=np.random.default_rng(seed)).weight.data  # noqa: E731
    expect(draw(3), draw(3))
    assert not np.any(draw(3) == draw(4))
    expect(draw(3, 2)[[0, 1, 3, 4]], draw(3)[[0, 1, 3, 4]])
    expect(draw(3, None, True), draw(3))


@pytest.mark.parametrize("padding", [0, 2, 4])
def test_the_padding_starts_as_zeros(padding, rng):
    layer = Embedding(5, 4, padding, rng=rng)
    expect(layer.weight.data[padding], f32(np.zeros(4)))
    expect(np.count_nonzero(layer.weight.data), 16)
    expect(layer.padding_idx, padding)


@pytest.mark.parametrize("padding", [-1, 5])
def test_a_padding_that_is_no_row_is_refused(padding, rng):
    with expect_error(ValueError, str(padding), "5"):
        Embedding(5, 4, padding, rng=rng)


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 3)], ids=str)
def test_a_layer_looks_up_in_its_weight(shape, sparse, rng):
    layer, ids = Embedding(5, 4, 1, sparse, rng=rng), rng.integers(0, 5, shape)
    expect(layer(ids), layer.weight.data[ids])
    expect(layer(Tensor(ids)), layer.weight.data[ids])


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_a_layer_refuses_ids_that_are_no_rows(sparse, rng):
    layer = Embedding(5, 4, sparse=sparse, rng=rng)
    for wrong in (-1, 5):
        with expect_error(ValueError, str(wrong), "5"):
            layer(np.array([[0, wrong]]))


def test_a_dense_look_up_is_one_operation(rng):
    expect(operations(Embedding(5, 4, rng=rng), np.array([1, 2])), ["embedding"])


def test_the_padding_stays_through_training(rng):
    assert is_grad_enabled()
    layer, ids = Embedding(5, 4, 0, rng=rng), np.array([[1, 2, 0], [3, 0, 0]])
    before = layer.weight.data.copy()
    (layer(ids) * 3.0).sum().backward()
    layer.weight.data -= layer.weight.grad
    expect(layer.weight.data, before - f32([[0], [3], [3], [3], [0]]))


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_the_padding_is_a_row_like_others_to_look_up(sparse, rng):
    """Whoever writes into it, as by loading a state, gets what was written."""
    layer = Embedding(5, 4, 0, sparse, rng=rng)
    layer.weight.data[0] = 7
    expect(layer(np.array([0, 0])), f32(np.full((2, 4), 7)))


def test_a_layer_says_what_it_is(rng):
    expect(repr(Embedding(5, 4, rng=rng)), "Embedding(5, 4)")
    expect(repr(Embedding(5, 4, 0, True, rng=rng)), "Embedding(5, 4, padding_idx=0, sparse=True)")


# 12.9 Embedding.look_up_sparse, Embedding.sparse_grad


def pair(rng, count=6, dim=3, padding=None):
    """A dense layer and a sparse one with the same rows."""
    dense, sparse = (Embedding(count, dim, padding, kind, rng=rng) for kind in (False, True))
    sparse.weight.data[...] = dense.weight.data
    return dense, sparse


@pytest.mark.parametrize("padding", [None, 0, 4])
def test_its_rows_are_those_of_the_dense_gradient(padding, rng):
    dense, sparse = pair(rng, padding=padding)
    ids, scale = np.array([[4, 0, 4], [5, 0, 1]]), rng.random((2, 3, 3), np.float32)
    for layer in (dense, sparse):
        (layer(ids) * scale).sum().backward()
    assert sparse.weight.grad is None, "the point is to make no array as large as the weight"
    rows = sparse.sparse_grad()
    expect(sorted(rows.ids.tolist()), sorted({0, 1, 4, 5} - {padding}))
    expect((rows.shape, rows.values.shape), ((6, 3), (len(rows.ids), 3)))
    expect(rows.to_dense(), dense.weight.grad)


def test_a_gradient_that_was_taken_is_gone(rng):
    _, sparse = pair(rng)
    expect(sparse.sparse_grad(), None)
    out = sparse(np.array([1, 2]))
    expect(sparse.sparse_grad(), None)
    out.sum().backward()
    expect(len(sparse.sparse_grad().ids), 2)
    expect(sparse.sparse_grad(), None)


def test_what_several_passes_bring_adds_up(rng):
    dense, sparse = pair(rng)
    for layer in (dense, sparse):
        (layer(np.array([1, 2])) * layer(np.array([2, 2]))).sum().backward()
        (layer(np.array([5, 1])) * 2.0).sum().backward()
    rows = sparse.sparse_grad()
    expect(sorted(rows.ids.tolist()), [1, 2, 5])
    expect(rows.to_dense(), dense.weight.grad)


def test_only_what_went_back_counts(rng):
    _, sparse = pair(rng)
    sparse(np.array([0, 1]))
    sparse(np.array([3, 3])).sum().backward()
    rows = sparse.sparse_grad()
    expect((rows.ids, rows.values), (np.array([3]), f32([[2, 2, 2]])))


def test_training_sparse_is_training_dense(rng):
    """Also on the same texts again, whose rows have moved since."""
    dense, sparse = pair(rng, padding=0)
    for ids in rng.integers(0, 6, (3, 2, 4))[[0, 0, 1, 2, 2]]:
        dense.zero_grad()
        for layer in (dense, sparse):
            (layer(ids) * layer(ids)).sum().backward()
        dense.weight.data -= np.float32(0.1) * dense.weight.grad
        sgd_rows_(sparse.weight, sparse.sparse_grad(), 0.1)
    expect(sparse.weight.data, dense.weight.data)
    expect(sparse.weight.data[0], f32([0, 0, 0]))


def test_a_graph_that_goes_back_twice_brings_its_gradient_twice(rng):
    _, sparse = pair(rng)
    loss = sparse(np.array([1, 2, 1])).sum()
    loss.backward(retain_graph=True)
    expect(sparse.sparse_grad().values, f32([[2, 2, 2], [1, 1, 1]]))
    loss.backward(retain_graph=True)
    loss.backward()
    expect(sparse.sparse_grad().values, f32([[4, 4, 4], [2, 2, 2]]))


def test_a_frozen_layer_has_no_gradient(rng):
    _, sparse = pair(rng)
    sparse.requires_grad_(False)
    out = sparse(np.array([1, 2]))
    expect(out.requires_grad, False)
    scale = Parameter(f32([[1], [1]]))
    (out * scale).sum().backward()
    expect(sparse.sparse_grad(), None)
    expect(scale.grad, out.data.sum(axis=1, keepdims=True))


def test_a_layer_that_is_frozen_no_more_learns_again(rng):
    _, sparse = pair(rng)
    sparse.requires_grad_(False)
    sparse(np.array([1, 2]))
    sparse.requires_grad_(True)
    sparse(np.array([2, 4])).sum().backward()
    expect(sparse.sparse_grad().ids, np.array([2, 4]))


def test_layers_hold_gradients_of_their_own(rng):
    one, other = (Embedding(6, 3, sparse=True, rng=rng) for _ in range(2))
    (one(np.array([1])).sum() + other(np.array([2])).sum()).backward()
    expect((one.sparse_grad().ids, other.sparse_grad().ids), (np.array([1]), np.array([2])))


def test_rows_wait_for_whoever_takes_them(rng):
    """`zero_grad` is about the `grad` of parameters; only `sparse_grad` forgets."""
    _, sparse = pair(rng)
    sparse(np.array([1, 1])).sum().backward()
    sparse.zero_grad()
    expect(sparse.sparse_grad().values, f32([[2, 2, 2]]))


def test_without_recording_there_is_none_either(rng):
    _, sparse = pair(rng)
    with no_grad():
        out = sparse(np.array([1, 2]))
    expect(out.requires_grad, False)
    expect(out, sparse.weight.data[1:3])
    expect(sparse.sparse_grad(), None)


# 12.17 TiedLinear


def test_logits_are_products_with_all_rows():
    layer = Embedding(3, 2, rng=np.random.default_rng(0))
    layer.weight.data[...] = [[1, 0], [0, 2], [3, 4]]
    head = TiedLinear(layer)
    expect(head(Tensor(f32([[[1, 10]], [[2, 0]]]))), f32([[[1, 20, 43]], [[2, 0, 6]]]))
    expect(head(Tensor(f32([1, 10]))), f32([1, 20, 43]))  # of one state


class Model(Module):
    def __init__(self, rng):
        self.tokens = Embedding(6, 4, rng=rng)
        self.head = TiedLinear(self.tokens)

    def forward(self, ids):
        return self.head(self.tokens(ids))


def test_both_ends_have_one_table(rng):
    model = Model(rng)
    assert model.head.weight is model.tokens.weight
    expect([name for name, _ in model.named_parameters()], ["tokens.weight"])
    expect((count_parameters(model), parameter_bytes(model)), (24, 96))
    model.tokens.weight.data[...] = 1
    expect(model(np.array([5])), f32([[4] * 6]))


def test_both_ends_add_to_its_gradient(rng):
    """logits = weight[ids] @ weight.T, and their sum's gradient has a part from each factor."""
    model, ids = Model(rng), np.array([1, 1, 4])
    model(ids).sum().backward()
    weight = model.tokens.weight.data.astype(np.float64)
    expected = np.tile(weight[ids].sum(axis=0), (6, 1))
    for i in ids:
        expected[i] += weight.sum(axis=0)
    expect(model.tokens.weight.grad, expected.astype(np.float32))


def test_a_head_for_a_sparse_table_is_refused(rng):
    with expect_error(ValueError, "sparse"):
        TiedLinear(Embedding(6, 4, sparse=True, rng=rng))


def test_a_head_says_what_it_is_and_what_it_costs(rng):
    head = TiedLinear(Embedding(6, 4, rng=rng))
    x = Tensor(f32(np.ones((2, 3, 4))))
    expect(repr(head), "TiedLinear(4, 6)")
    expect(head.flops((x,), head(x)), 2 * 2 * 3 * 4 * 6)
