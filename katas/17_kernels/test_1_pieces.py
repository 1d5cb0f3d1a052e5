"""Level 1: memory by name, tiles, pieces, and threads that work on them."""

import itertools
import math
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect, expect_error
from tinytorch.kernels import (
    CHUNK,
    Workspace,
    block_for,
    blocked_matmul,
    in_chunks,
    matmul_traffic,
    parallel_for,
    pieces,
)
from tinytorch.tensor import Tensor

steady = settings(deadline=None, derandomize=True, max_examples=60)
SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(0, 9)


def eighths(rng, *shape):
    """Numbers whose sums of products are exact, in whatever order they are added."""
    return rng.integers(-16, 17, shape) / 8


# 17.1 Workspace


def test_memory_of_a_name_is_used_again_for_whatever_fits():
    room = Workspace()
    first = room.take("a", (4, 100))
    again = room.take("a", (10, 10), np.float64)
    assert np.shares_memory(first, again)
    assert (first.shape, first.dtype, again.shape, again.dtype) == (
        (4, 100),
        np.float32,
        (10, 10),
        np.float64,
    )
    assert room.nbytes == 1600


def test_what_is_taken_is_writable_and_in_c_order():
    taken = Workspace().take("a", (2, 3, 4), np.int16)
    assert taken.flags.c_contiguous
    taken[...] = np.arange(24).reshape(2, 3, 4)
    expect(taken, np.arange(24, dtype=np.int16).reshape(2, 3, 4))


def test_a_number_is_a_shape_of_one_axis():
    assert Workspace().take("a", 7).shape == (7,)
    assert Workspace().take("a", ()).shape == ()
    assert Workspace().take("a", [2, 3]).shape == (2, 3)


def test_memory_starts_at_the_same_place_each_time():
    room = Workspace()
    room.take("a", 8)[...] = np.arange(8)
    expect(room.take("a", (2, 2)), np.array([[0, 1], [2, 3]], np.float32))


def test_two_names_never_share_memory():
    room = Workspace()
    first, other = room.take("a", 10), room.take("b", 10)
    first[...], other[...] = 1, 2
    assert not np.shares_memory(first, other)
    assert first.max() == 1
    assert room.nbytes == 80


def test_memory_grows_when_more_is_asked_for_and_what_was_lent_stays_valid():
    room = Workspace()
    small = room.take("a", 2)
    small[...] = 5
    large = room.take("a", 100)
    large[...] = 0
    assert not np.shares_memory(small, large)
    expect(small, np.array([5, 5], np.float32))
    assert room.nbytes == 400
    assert np.shares_memory(room.take("a", 3), large)


def test_an_empty_workspace_has_no_bytes_and_neither_has_a_cleared_one():
    room = Workspace()
    assert room.nbytes == 0
    taken = room.take("a", 4)
    taken[...] = 3
    room.clear()
    assert room.nbytes == 0
    expect(taken, np.full(4, 3, np.float32))
    assert not np.shares_memory(room.take("a", 4), taken)


def test_nothing_can_be_taken_too():
    assert Workspace().take("a", (0, 5)).shape == (0, 5)


def test_objects_are_refused():
    with expect_error(TypeError, "object"):
        Workspace().take("a", 3, object)


@steady
@given(st.lists(st.tuples(st.sampled_from("ab"), SIDES, st.sampled_from(["f4", "f8", "i1", "?"]))))
def test_it_holds_the_most_that_each_name_ever_needed(takes):
    room, most = Workspace(), {}
    for name, n, dtype in takes:
        taken = room.take(name, (n, 3), dtype)
        assert (taken.shape, taken.dtype) == ((n, 3), np.dtype(dtype))
        most[name] = max(most.get(name, 0), taken.nbytes)
        assert room.nbytes == sum(most.values())


# 17.2 blocked_matmul


def test_a_product_by_hand():
    expect(blocked_matmul(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]), 1), np.array([[11.0]]))


@steady
@given(SIDES, SIDES, SIDES, st.integers(1, 12), SEEDS)
def test_tiles_of_any_size_make_the_product(m, k, n, block, seed):
    rng = np.random.default_rng(seed)
    a, b = eighths(rng, m, k), eighths(rng, k, n)
    expected = np.array([[sum(a[i, p] * b[p, j] for p in range(k)) for j in range(n)] for i in range(m)])
    expect(blocked_matmul(a, b, block), expected.reshape(m, n).astype(float), rtol=0, atol=0)


def coordinates(rows, columns):
    """An array whose element (i, j) tells where it is: i + j / 64."""
    return np.arange(rows)[:, None] + np.arange(columns) / 64


def noting(m, n, k, block):
    """The tiles of both factors, by their corners and shapes, in the order in which they were multiplied."""
    noted = []

    def product(a, b):
        noted.append(tuple((t.shape, int(t[0, 0]), round(t[0, 0] % 1 * 64)) for t in (a, b)))
        return a @ b

    blocked_matmul(coordinates(m, k), coordinates(k, n), block, product)
    return noted


@pytest.mark.parametrize(("m", "n", "k", "block"), [(4, 4, 4, 2), (5, 3, 7, 2), (3, 8, 4, 3), (2, 2, 2, 9)])
def test_each_pair_of_tiles_is_multiplied_once(m, n, k, block):
    noted = noting(m, n, k, block)
    expected = set()
    for i in range(0, m, block):
        for j in range(0, n, block):
            for p in range(0, k, block):
                rows, columns, along = min(block, m - i), min(block, n - j), min(block, k - p)
                expected.add((((rows, along), i, p), ((along, columns), p, j)))
    assert set(noted) == expected
    assert len(noted) == len(expected)


def test_a_tile_of_the_result_is_finished_before_the_next_is_begun():
    """Else it would have to leave the cache and come back."""
    noted = noting(5, 6, 7, 2)
    order = [(a[1], b[2], a[2]) for a, b in noted]  # row and column of the result, and how far along k
    results = [result for *result, _ in order]
    assert sum(one != other for one, other in itertools.pairwise(results)) == 3 * 3 - 1
    assert [along for *_, along in order] == [0, 2, 4, 6] * 9


def test_it_is_the_given_product_that_multiplies_and_it_sees_views():
    a, b = np.ones((4, 4)), np.ones((4, 4))

    def product(tile_of_a, tile_of_b):
        assert np.shares_memory(tile_of_a, a)
        assert np.shares_memory(tile_of_b, b)
        return np.full((len(tile_of_a), tile_of_b.shape[1]), 10.0)

    expect(blocked_matmul(a, b, 2, product), np.full((4, 4), 20.0))
    a, b = np.asfortranarray(a), np.ones((8, 4))[::2]  # not in C order, and with gaps
    expect(blocked_matmul(a, b, 2, product), np.full((4, 4), 20.0))


@pytest.mark.parametrize(
    ("a", "b", "dtype"),
    [("f4", "f4", "f4"), ("f8", "f8", "f8"), ("f4", "f8", "f8"), ("i8", "f4", "f4"), ("i4", "i4", "i4")],
)
def test_the_product_has_the_dtype_in_which_factors_meet(a, b, dtype):
    got = blocked_matmul(np.ones((3, 3), a), np.ones((3, 3), b), 2)
    expect(got, np.full((3, 3), 3, dtype))


def test_tensors_and_arrays_in_any_order_can_be_multiplied(rng):
    a, b = eighths(rng, 6, 5), eighths(rng, 5, 7)
    expected = sum(a[:, p, None] * b[p] for p in range(5))
    expect(blocked_matmul(Tensor(np.asfortranarray(a)), Tensor(b[:, ::-1])[:, ::-1], 3), expected)
    expect(blocked_matmul(a, b), expected)


def test_tiles_have_256_rows_and_columns_unless_one_says_so():
    shapes = []

    def product(a, b):
        shapes.append((a.shape, b.shape))
        return a @ b

    expect(blocked_matmul(np.ones((1, 257)), np.ones((257, 1)), product=product), np.array([[257.0]]))
    assert shapes == [((1, 256), (256, 1)), ((1, 1), (1, 1))]


@pytest.mark.parametrize(("a", "b"), [((2, 3), (2, 3)), ((3,), (3, 2)), ((2, 3, 4), (4, 2)), ((2, 3), (3,))])
def test_shapes_that_cannot_be_multiplied_are_named(a, b):
    with expect_error(ValueError, str(a), str(b)):
        blocked_matmul(np.ones(a), np.ones(b), 2)


@pytest.mark.parametrize("block", [0, -1])
def test_a_block_is_a_row_at_least(block):
    with expect_error(ValueError, str(block)):
        blocked_matmul(np.ones((2, 2)), np.ones((2, 2)), block)
    with expect_error(ValueError, str(block)):
        matmul_traffic(2, 2, 2, block)


# 17.3 matmul_traffic, block_for


def test_traffic_by_hand():
    """2 x 3 times 3 x 2 in single steps: 12 numbers of each are read, 4 written. As one tile: 6, 6 and 4."""
    assert matmul_traffic(2, 2, 3) == 4 * 28
    assert matmul_traffic(2, 2, 3, 3) == 4 * 16
    assert matmul_traffic(2, 2, 3, 2, itemsize=8) == 8 * 16


@steady
@given(SIDES, SIDES, SIDES, st.integers(1, 12))
def test_traffic_is_what_the_products_read_and_one_result(m, n, k, block):
    read = sum(math.prod(shape) for pair in noting(m, n, k, block) for shape, _, _ in pair)
    assert matmul_traffic(m, n, k, block, 1) == read + m * n


def test_traffic_of_products_that_nobody_would_run():
    """By a formula: a loop over tiles would not end."""
    n = 10**7
    assert matmul_traffic(n, n, n, 1, 1) == 2 * n**3 + n**2
    assert matmul_traffic(n, n, n, n, 2) == 2 * 3 * n**2


@steady
@given(st.integers(1, 10**12), st.sampled_from([1, 2, 4, 8]))
def test_three_tiles_fit_and_three_larger_ones_do_not(cache, itemsize):
    block = block_for(cache, itemsize)
    assert block == 1 or 3 * block**2 * itemsize <= cache
    assert 3 * (block + 1) ** 2 * itemsize > cache


def test_a_block_for_no_cache_is_one_and_float32_is_meant():
    assert block_for(0) == 1
    assert block_for(3 * 4 * 100) == 10


# 17.4 pieces


def laid_out(rng, shape):
    """An array of `shape`: axes in any order in memory, some of them reversed, with gaps, or stretched."""
    order = rng.permutation(len(shape))
    steps = rng.choice([1, 1, 1, -1, 2], len(shape))
    room = np.zeros(
        [n * abs(step) for n, step in zip(np.array(shape, int)[order], steps[order], strict=True)]
    )
    view = room.transpose(np.argsort(order))
    return view[(..., *(slice(None, None, step) for step in steps))]


@steady
@given(st.lists(st.integers(0, 5), max_size=4), st.integers(1, 30), SEEDS)
def test_every_element_is_in_one_piece_at_the_same_place_in_all_arrays(shape, chunk, seed):
    rng = np.random.default_rng(seed)
    array, other = laid_out(rng, shape), laid_out(rng, shape)
    numbers = np.arange(math.prod(shape), dtype=float).reshape(shape)
    other[...] = numbers
    for part, same, number in pieces(array, other, numbers, chunk=chunk):
        assert 0 < part.size <= chunk
        assert part.shape == same.shape == number.shape
        expect(same, number, rtol=0, atol=0)
        part += number + 1  # twice in a piece would be added twice
    expect(array, numbers + 1, rtol=0, atol=0)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(1000),
        np.zeros((10, 100)),
        np.zeros((100, 10)).T,
        np.zeros((2, 5, 20, 5)).transpose(0, 3, 1, 2),
        np.zeros((1000, 1)),
        np.zeros((1, 1000)).T,
    ],
    ids=["flat", "rows", "columns", "channels-last", "thin", "thin, turned"],
)
def test_what_is_one_stretch_of_memory_is_cut_into_full_pieces(array):
    cut = [part for (part,) in pieces(array, chunk=300)]
    assert sorted(part.size for part in cut) == [100, 300, 300, 300]
    assert all(np.shares_memory(part, array) for part in cut)
    for part in cut:
        assert part.transpose(
            sorted(range(part.ndim), key=lambda axis: -part.strides[axis])
        ).flags.c_contiguous


def test_two_arrays_in_the_same_order_are_cut_into_full_pieces_too():
    array, other = np.zeros((30, 10)).T, np.zeros((30, 10), np.float32).T
    assert [part.size for part, _ in pieces(array, other, chunk=100)] == [100, 100, 100]


def test_what_has_gaps_is_cut_by_as_many_rows_as_fit():
    assert [part.size for (part,) in pieces(np.zeros((100, 8))[:, :7], chunk=70)] == [70] * 10
    assert [part.size for (part,) in pieces(np.zeros((5, 8))[:, :7], chunk=20)] == [14, 14, 7]


def test_what_runs_backwards_is_cut_in_its_order_too():
    assert [part.size for (part,) in pieces(np.zeros((100, 8))[::-1], chunk=80)] == [80] * 10
    assert [part.size for (part,) in pieces(np.zeros((8, 100)).T[:, ::-1], chunk=200)] == [200] * 4


def test_rows_that_are_too_long_are_cut_by_their_own_rows():
    array = np.zeros((2, 4, 10))[:, :, :8]
    assert [part.size for (part,) in pieces(array, chunk=16)] == [16] * 4
    assert [part.size for (part,) in pieces(array, chunk=5)] == [5, 3] * 8


def test_a_stretched_array_is_cut_as_the_first_is():
    row = np.broadcast_to(np.arange(4.0), (6, 4))
    for part, same in pieces(np.zeros((6, 4)), row, chunk=8):
        expect(np.array(same), np.array([[0, 1, 2, 3]] * 2, float))
        assert part.shape == same.shape


def test_pieces_of_all_arrays_are_views_however_these_lie():
    first, turned, gaps = np.zeros((40, 30)), np.zeros((30, 40)).T, np.zeros((40, 60))[:, ::2]
    row = np.broadcast_to(np.zeros(30), (40, 30))
    for others in ((first + 1,), (turned,), (gaps, row)):
        for parts in pieces(first, *others, chunk=70):
            for part, array in zip(parts, (first, *others), strict=True):
                assert np.shares_memory(part, array)


def test_pieces_are_65536_numbers_unless_one_says_so():
    assert [part.size for (part,) in pieces(np.zeros(CHUNK + 5, np.int8))] == [CHUNK, 5]
    assert CHUNK == 1 << 16


def test_an_array_without_axes_is_one_piece_and_an_empty_one_is_none():
    assert [part.size for (part,) in pieces(np.array(3.0))] == [1]
    assert not list(pieces(np.zeros((3, 0)), np.zeros((3, 0))))
    assert not list(pieces(np.zeros(0)))


def test_shapes_that_differ_are_named():
    with expect_error(ValueError, "(2, 3)", "(3, 2)"):
        list(pieces(np.zeros((2, 3)), np.zeros((3, 2))))
    with expect_error(ValueError, "(2, 3)", "(6,)"):
        list(pieces(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros(6)))


@pytest.mark.parametrize("chunk", [0, -4])
def test_a_piece_has_a_number_at_least(chunk):
    with expect_error(ValueError, str(chunk)):
        list(pieces(np.zeros(3), chunk=chunk))


# 17.5 parallel_for


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(threads):
    assert parallel_for(lambda n: n * n, iter(range(20)), threads) == [n * n for n in range(20)]
    assert parallel_for(lambda n: n, [], threads) == []


def test_one_thread_is_the_caller_s():
    assert set(parallel_for(lambda _: threading.get_ident(), range(3))) == {threading.get_ident()}


@pytest.mark.parametrize("threads", [2, 4])
def test_as_many_threads_as_asked_for_work_at_the_same_time(threads):
    """Each waits until the others are there too; one after the other, they would wait in vain."""
    together = threading.Barrier(threads, timeout=5)
    parallel_for(lambda _: together.wait(), range(threads), threads)
    assert not together.broken


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_no_more_threads_work_than_were_asked_for(threads):
    lock, working, most = threading.Lock(), set(), []

    def work(item):
        with lock:
            working.add(item)
            most.append(len(working))
        time.sleep(0.005)  # as numpy, while it works, lets others run
        with lock:
            working.remove(item)

    parallel_for(work, range(12), threads)
    assert max(most) <= threads


@pytest.mark.parametrize("threads", [1, 3])
def test_no_thread_is_left_when_it_ends(threads):
    worked = set()

    def work(n):
        worked.add(threading.current_thread())
        return 1 // (n - 4)

    parallel_for(work, range(4), threads)
    with pytest.raises(ZeroDivisionError):
        parallel_for(work, range(9), threads)
    assert not [one for one in worked if one.is_alive() and one is not threading.current_thread()]


def test_the_error_of_the_first_item_is_raised_whichever_came_first_in_time():
    later = threading.Event()

    def work(n):
        if n == 1:
            later.wait(1)
            raise ValueError("the first")
        if n == 2:
            later.set()
            raise KeyError("the second")

    with pytest.raises(ValueError, match="the first"):
        parallel_for(work, range(4), threads=2)


@pytest.mark.parametrize("threads", [0, -1])
def test_less_than_one_thread_is_refused(threads):
    with expect_error(ValueError, str(threads)):
        parallel_for(print, range(3), threads)


# 17.6 in_chunks


def line(part, x, a, y):
    assert part.shape == x.shape == y.shape
    np.multiply(x, a, out=part)
    part += y


@steady
@given(st.lists(st.integers(0, 5), max_size=3), st.integers(1, 20), st.sampled_from([1, 2]), SEEDS)
def test_steps_on_pieces_are_the_steps_on_the_whole(shape, chunk, threads, seed):
    rng = np.random.default_rng(seed)
    out, x = laid_out(rng, shape), eighths(rng, *shape)
    y = eighths(rng, *(n if rng.random() < 0.5 else 1 for n in shape[-rng.integers(1, 4) :]))
    if not y.ndim:
        y = y.reshape(1)
        out, x = out.reshape(*shape, 1), x.reshape(*shape, 1)
    kept = x.copy(), y.copy()
    got = in_chunks(line, out, x, 3, y, chunk=chunk, threads=threads)
    assert got is out
    expect(np.array(out), x * 3 + y, rtol=0, atol=0)
    expect((x, y), kept)


def test_numbers_are_handed_on_as_they_are():
    seen = []

    def steps(part, x, *numbers):
        seen.append(numbers)
        part[...] = x

    numbers = float("2.5"), np.array(2.0), np.float32(1.5), 3
    in_chunks(steps, np.empty(4), np.ones(4), *numbers, chunk=2)
    assert len(seen) == 2
    assert all(got is number for some in seen for got, number in zip(some, numbers, strict=True))


def test_parts_are_no_larger_than_a_chunk_and_nothing_comes_of_nothing():
    sizes = []
    in_chunks(lambda part, x: sizes.append((part.size, x.size)), np.empty((7, 3)), np.ones(3), chunk=7)
    assert sizes == [(7, 7)] * 3 or sizes == [(6, 6)] * 3 + [(3, 3)]
    in_chunks(lambda part: sizes.append(part.size), np.empty((0, 3)))
    assert sizes[-1] != 0


def test_an_input_may_be_the_output():
    x = np.arange(10.0)
    in_chunks(lambda part, a, b: np.multiply(a, b, out=part), x, x, x, chunk=3)
    expect(x, np.arange(10.0) ** 2)


def test_pieces_are_cut_by_the_default_too():
    sizes = []
    in_chunks(lambda part: sizes.append(part.size), np.empty(CHUNK + 1, np.int8))
    assert sizes == [CHUNK, 1]


@pytest.mark.parametrize(("shape", "wrong"), [((2, 3), (2,)), ((3,), (2, 3)), ((1, 3), (2, 3)), ((2,), (0,))])
def test_an_input_that_does_not_broadcast_to_the_output_is_named_with_it(shape, wrong):
    with expect_error(ValueError, str(wrong), str(shape)):
        in_chunks(lambda part, x: None, np.empty(shape), np.ones(wrong))


def test_threads_share_the_pieces():
    both, seen = threading.Barrier(2, timeout=5), set()

    def steps(part):
        both.wait()
        seen.add(threading.get_ident())

    in_chunks(steps, np.empty(4), chunk=2, threads=2)
    assert len(seen) == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_in_a_piece_is_raised(threads):
    def steps(part):
        raise KeyError("in a piece")

    with expect_error(KeyError, "in a piece"):
        in_chunks(steps, np.empty(4), chunk=2, threads=threads)


def test_pieces_are_the_caller_s_unless_one_asks_for_threads():
    seen = []
    in_chunks(lambda part: seen.append(threading.get_ident()), np.empty(4), chunk=1)
    assert seen == [threading.get_ident()] * 4
