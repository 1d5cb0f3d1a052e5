"""Level 1: datasets, splits, orders and transforms give the right answer, on examples worked out by hand."""

import functools
import operator

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.dataloader import (
    BatchSampler,
    Compose,
    Cutout,
    Dataset,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
    random_split,
)
from tinytorch.tensor import Tensor

X = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], np.float32)
Y = np.array([10, 20, 30, 40])


class Squares(Dataset):
    """A dataset that knows nothing of batches."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return index, np.float32(index * index)


# 09.1 default_collate


def test_arrays_get_a_new_first_axis():
    expect(default_collate([X, X + 1, X + 2]), np.array([X, X + 1, X + 2]))
    expect(default_collate([X[0]]), X[:1])
    assert not np.shares_memory(default_collate([X[0]]), X)


def test_numbers_become_an_array_and_keep_their_dtype():
    expect(default_collate([1, 2, 3]), np.array([1, 2, 3]))
    expect(default_collate([np.float32(0.5), np.float32(2)]), np.array([0.5, 2], np.float32))
    expect(default_collate([np.uint8(7)]), np.array([7], np.uint8))
    expect(default_collate([1, 2.5]), np.array([1, 2.5]))  # and not 2, since the first has no fractions


@pytest.mark.parametrize("kind", [tuple, list])
def test_tuples_are_batched_part_by_part(kind):
    batch = default_collate([kind([X[0], 1]), kind([X[1], 2])])
    expect(batch, (X[:2], np.array([1, 2])))


def test_what_is_nested_is_batched_all_the_way_down():
    samples = [{"x": X[i], "more": (i, {"name": f"number {i}"}), "deep": {"i": i}} for i in range(2)]
    batch = default_collate(samples)
    expect(list(batch), ["x", "more", "deep"])
    expect(batch["deep"]["i"], np.array([0, 1]))
    expect(batch["x"], X[:2])
    expect(batch["more"][0], np.array([0, 1]))
    expect(batch["more"][1], {"name": ["number 0", "number 1"]})


def test_tensors_make_a_tensor():
    batch = default_collate([Tensor(X[0]), Tensor(X[1])])
    expect(type(batch), Tensor)
    expect(batch.data, X[:2])


def test_samples_that_differ_make_no_batch():
    with expect_error(ValueError, "(2,)", "(3,)"):
        default_collate([np.zeros(2), np.zeros(3)])
    with expect_error(ValueError, "(2,)", "()"):
        default_collate([np.zeros(2), 1.0])
    with expect_error(ValueError, "(2,)", "(3,)"):
        default_collate([Tensor(np.zeros(2)), Tensor(np.zeros(3))])
    with expect_error(ValueError):
        default_collate([(1, 2), (1, 2, 3)])
    with expect_error(ValueError):
        default_collate([])


# 09.2 TensorDataset


def test_a_sample_is_a_row_of_each_array():
    data = TensorDataset(X, Y)
    expect(len(data), 4)
    expect(data[1], (X[1], 20))
    expect(data[-1], (X[3], 40))
    expect(TensorDataset(Y)[0], (10,))


def test_a_batch_is_fetched_in_the_order_asked_for():
    data = TensorDataset(X, Tensor(Y))
    expect(data.__getitems__([3, 0, 0, -2]), (X[[3, 0, 0, 2]], Y[[3, 0, 0, 2]]))
    expect(data.__getitems__(np.array([2])), (X[2:3], Y[2:3]))


def test_indices_are_not_changed_by_looking_up():
    where = np.array([-1, 0])
    for data in (TensorDataset(X), Subset(TensorDataset(X), [3, 0])):
        expect(data.__getitems__(where), (X[[3, 0] if isinstance(data, TensorDataset) else [0, 3]],))
        expect(where, np.array([-1, 0]))


def test_a_batch_of_nothing_keeps_shape_and_dtype():
    expect(TensorDataset(X, Y).__getitems__([]), (X[:0], Y[:0]))


def test_a_batch_is_no_view_of_the_data():
    data = TensorDataset(X.copy())
    for indices in ([0, 1], [0]):
        (batch,) = data.__getitems__(indices)
        batch += 1
        expect(data[0], (X[0],))


def test_there_is_no_sample_after_the_last():
    data = TensorDataset(X)
    with expect_error(IndexError):
        data[4]
    with expect_error(IndexError):
        data.__getitems__([0, 4])
    with expect_error(IndexError):
        data.__getitems__([0, -5])
    expect(len(list(data)), 4)


def test_arrays_must_have_one_length():
    with expect_error(ValueError, "(4, 2)", "(3,)"):
        TensorDataset(X, Y[:3])
    with expect_error(ValueError):
        TensorDataset()
    with expect_error(ValueError):
        TensorDataset(X, np.float32(1))
    expect(len(TensorDataset(X[:0])), 0)


# 09.3 Subset


def test_a_subset_has_the_samples_at_its_indices():
    part = Subset(TensorDataset(X, Y), [2, 0, 2])
    expect(len(part), 3)
    expect([part[i][1] for i in range(3)], [30, 10, 30])
    expect(part[-2][1], 10)
    expect(part.__getitems__([2, 1]), (X[[2, 0]], Y[[2, 0]]))
    with expect_error(IndexError):
        part[3]


def test_a_subset_of_a_subset_looks_up_twice():
    inner = Subset(Squares(), [9, 8, 7, 6])
    outer = Subset(inner, np.array([3, 1]))
    expect(outer[0], (6, 36.0))
    expect(outer.__getitems__([0, 1, 0]), (np.array([6, 8, 6]), np.array([36, 64, 36], np.float32)))


def test_a_subset_of_nothing_is_empty():
    empty = Subset(TensorDataset(X, Y), [])
    expect(len(empty), 0)
    expect(empty.__getitems__([]), (X[:0], Y[:0]))


def test_a_subset_may_be_of_a_plain_list():
    part = Subset([5, 6, 7], [2, 1])
    expect(part[0], 7)
    expect(part.__getitems__([1, 0]), np.array([6, 7]))


def test_a_dataset_says_what_it_lacks(rng):
    with expect_error(TypeError, "Dataset", "__getitem__"):
        Subset(Dataset(), [0])[0]
    with expect_error(TypeError, "Dataset", "__len__"):
        random_split(Dataset(), [1], rng=rng)


# 09.4 random_split


def samples(part):
    return [part[i][0] for i in range(len(part))]


@pytest.mark.parametrize(
    ("lengths", "counts"),
    [
        ([3, 7], [3, 7]),
        ([10], [10]),
        ([0, 10, 0], [0, 10, 0]),
        ([0.5, 0.5], [5, 5]),
        ([0.75, 0.25], [8, 2]),  # 7.5 and 2.5, rounded down to 7 and 2; the one left goes to the first
        ([0.33, 0.33, 0.34], [4, 3, 3]),
        ([0.25, 0.25, 0.25, 0.25], [3, 3, 2, 2]),
        ([1.0], [10]),
        ([1, 0.0], [10, 0]),
        ([3.0, 7.0], [3, 7]),
        ([0.7, 0.2, 0.1], [7, 2, 1]),
    ],
)
def test_lengths_are_numbers_or_fractions(lengths, counts, rng):
    parts = random_split(Squares(), lengths, rng=rng)
    expect([len(part) for part in parts], counts)
    expect(sorted(functools.reduce(operator.iadd, map(samples, parts), [])), list(range(10)))


@pytest.mark.parametrize("lengths", [[3, 6], [11], [5, 6, -1], [0.5, 0.4], [], [2.5, 7.5], [1.5, -0.5]])
def test_lengths_that_do_not_add_up_are_named(lengths, rng):
    with expect_error(ValueError, *map(str, lengths)):
        random_split(Squares(), lengths, rng=rng)


def test_one_sample_may_be_split_off_by_its_number(rng):
    expect([len(part) for part in random_split([7], [1], rng=rng)], [1])
    expect([len(part) for part in random_split([7], [0, 1], rng=rng)], [0, 1])


def test_the_generator_decides_who_goes_where():
    def first(seed):
        return samples(random_split(Squares(), [5, 5], rng=np.random.default_rng(seed))[0])

    expect(first(1), first(1))
    assert len({tuple(first(seed)) for seed in range(10)}) > 5
    assert any(sorted(first(seed)) != [0, 1, 2, 3, 4] for seed in range(3))


# 09.10 SequentialSampler, RandomSampler


def test_in_sequence():
    order = SequentialSampler(Y)
    expect(len(order), 4)
    expect([list(order), list(order)], [[0, 1, 2, 3], [0, 1, 2, 3]])


def test_at_random_each_epoch_anew(rng):
    order = RandomSampler(range(50), rng=rng)
    one, other = list(order), list(order)
    expect(len(order), 50)
    expect(sorted(one), list(range(50)))
    expect(sorted(other), list(range(50)))
    assert one != other
    assert one != list(range(50))
    assert all(isinstance(i, (int, np.integer)) for i in one)


def test_every_order_is_as_likely(rng):
    sampler = RandomSampler(range(4), rng=rng)
    orders = [tuple(map(int, sampler)) for _ in range(3000)]
    counts = {order: orders.count(order) for order in set(orders)}
    expect(len(counts), 24)
    expect([count / 3000 for count in counts.values()], [1 / 24] * 24, atol=0.022)  # six deviations of 0.0036


def test_the_order_is_drawn_at_once():
    """Otherwise what others draw from the same generator would depend on who is first."""
    one, other = np.random.default_rng(1), np.random.default_rng(1)
    iter(RandomSampler(range(5), rng=one))
    drawn = RandomSampler(range(5), rng=other)
    expect(len(list(drawn)), 5)
    expect(one.random(), other.random())


# 09.11 BatchSampler


@pytest.mark.parametrize(
    ("count", "size", "whole", "dropped"),
    [
        (7, 3, [[0, 1, 2], [3, 4, 5], [6]], [[0, 1, 2], [3, 4, 5]]),
        (6, 3, [[0, 1, 2], [3, 4, 5]], [[0, 1, 2], [3, 4, 5]]),
        (2, 3, [[0, 1]], []),
        (0, 3, [], []),
        (2, 1, [[0], [1]], [[0], [1]]),
    ],
)
def test_batches_of_indices(count, size, whole, dropped):
    order = SequentialSampler(range(count))
    for drop, batches in ((False, whole), (True, dropped)):
        sampler = BatchSampler(order, size, drop)
        expect([list(batch) for batch in sampler], batches)
        expect(len(sampler), len(batches))
    expect(len(BatchSampler(order, size)), len(whole))


def test_batches_are_lists_of_their_own():
    first, second = BatchSampler([4, 5, 6, 7], 2)
    expect([list(first), list(second)], [[4, 5], [6, 7]])


def test_what_a_batch_sampler_was_given_is_kept_under_its_name():
    order = SequentialSampler(range(7))
    sampler = BatchSampler(order, 3, drop_last=True)
    assert sampler.sampler is order
    expect((sampler.batch_size, sampler.drop_last), (3, True))


@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_a_batch_has_a_sample_at_least(size):
    with expect_error(ValueError, str(size)):
        BatchSampler(range(3), size)


# 09.12 Compose, Normalize

IMAGES = np.arange(2 * 3 * 2 * 4).reshape(2, 3, 2, 4)


def test_transforms_follow_one_another():
    expect(Compose([lambda x: x + 1, lambda x: x * 2])(np.array([1, 2])), np.array([4, 6]))
    expect(Compose([])(X), X)
    expect(Compose(t for t in [lambda x: x + 1])(X), X + 1)


def test_each_channel_has_its_mean_and_std():
    images = np.array([[[[1.0]], [[10.0]]], [[[3.0]], [[20.0]]]])  # two images of two channels, one pixel
    expect(Normalize([1, 10], [2, 5])(images), np.array([[[[0.0]], [[0.0]]], [[[1.0]], [[2.0]]]]))
    expect(Normalize(1, 2)(images), np.array([[[[0.0]], [[4.5]]], [[[1.0]], [[9.5]]]]))


@pytest.mark.parametrize(
    ("dtype", "answer"),
    [
        (np.uint8, np.float32),
        (np.int64, np.float32),
        (np.float16, np.float16),
        (np.float32, np.float32),
        (np.float64, np.float64),
    ],
)
def test_integers_are_normalised_into_float32(dtype, answer):
    expect(Normalize([1, 2, 3], 2)(IMAGES.astype(dtype)).dtype, np.dtype(answer))
    expect(Normalize(50.0, 1.0)(np.full((1, 1, 1, 1), 20, dtype)), np.full((1, 1, 1, 1), -30, answer))


def test_means_must_be_as_many_as_channels():
    with expect_error(ValueError, "2", "(2, 3, 2, 4)"):
        Normalize([1, 2], 1)(IMAGES)
    with expect_error(ValueError, "2", "(2, 3, 2, 4)"):
        Normalize(1, [1, 2])(IMAGES)
    for transform in (Normalize([1, 2], 1), Normalize(1, [1, 2])):  # which would make two channels of one
        with expect_error(ValueError, "2", "(2, 1, 2, 4)"):
            transform(IMAGES[:, :1])
    with expect_error(ValueError, "0"):
        Normalize([1, 2], [1, 0])


# 09.13 to 09.15: a probability of 0 or 1, one place only, one size only leave nothing to chance


def test_flips_exchange_left_and_right(rng):
    flipped = RandomHorizontalFlip(1.0, rng=rng)(IMAGES)
    expect(flipped[0, 0], np.array([[3, 2, 1, 0], [7, 6, 5, 4]]))
    expect(flipped, IMAGES[..., ::-1])
    expect(RandomHorizontalFlip(0.0, rng=rng)(IMAGES), IMAGES)


@pytest.mark.parametrize("p", [0.1, 0.5, None])
def test_each_image_is_flipped_by_itself(p, rng):
    images = np.tile(np.array([0, 1], np.uint8), (10_000, 1, 1, 1))
    flip = RandomHorizontalFlip(rng=rng) if p is None else RandomHorizontalFlip(p, rng=rng)
    flipped, share = flip(images)[:, 0, 0, 0], 0.5 if p is None else p
    expect(float(flipped.mean()), share, atol=0.025)  # five deviations of 0.005
    expect(float((flipped[1:] & flipped[:-1]).mean()), share * share, atol=0.025)  # whatever its neighbour is


def test_the_whole_image_is_one_window(rng):
    expect(RandomCrop((2, 4), rng=rng)(IMAGES), IMAGES)


def test_a_window_is_as_likely_at_each_place(rng):
    images = np.tile(np.arange(16).reshape(4, 4), (9000, 1, 1, 1))
    windows = RandomCrop(2, rng=rng)(images)
    expect(windows.shape, (9000, 1, 2, 2))
    corners, counts = np.unique(windows[:, 0, 0, 0], return_counts=True)
    expect(corners.tolist(), [0, 1, 2, 4, 5, 6, 8, 9, 10])
    expect(counts / 9000, np.full(9, 1 / 9), atol=0.02)  # six deviations of 0.0033
    expect(windows[:, 0].reshape(-1, 4), windows[:, 0, 0, :1] + np.array([0, 1, 4, 5]))


def test_padding_is_zeros_all_around(rng):
    images = np.ones((500, 2, 1, 2), np.int64)
    windows = RandomCrop((1, 2), padding=1, rng=rng)(images)
    kinds = {tuple(window.ravel().tolist()) for window in windows}
    expect(sorted(kinds), [(0, 0, 0, 0), (0, 1, 0, 1), (1, 0, 1, 0), (1, 1, 1, 1)])


def test_a_window_must_fit():
    rng = np.random.default_rng(0)
    for size in ((5, 4), (2, 7), 7):
        with expect_error(ValueError, "(2, 3, 2, 4)"):
            RandomCrop(size, padding=1, rng=rng)(IMAGES)
    expect(RandomCrop((4, 6), padding=1, rng=rng)(IMAGES)[:, :, 1:3, 1:5], IMAGES)


@pytest.mark.parametrize(("size", "most"), [(0, 0), (1, 1), (2, 4), (3, 9)])
def test_a_square_is_cut_out_around_a_pixel(size, most, rng):
    images = np.full((2000, 3, 5, 6), 7, np.uint8)
    out = Cutout(size, rng=rng)(images)
    gone = out[:, 0] == 0
    expect(out, np.where(gone[:, None], 0, images).astype(np.uint8))  # in every channel the same
    expect(int(gone.sum(axis=(1, 2)).max()), most)
    if size:
        # In a corner all that lies outside is gone: half of 3, rounded up, is 2.
        expect(int(gone.sum(axis=(1, 2)).min()), (size - size // 2) ** 2)
        rows, columns = gone.any(axis=2), gone.any(axis=1)
        expect(bool((gone == rows[:, :, None] & columns[:, None, :]).all()), True)
        expect(len({row.tobytes() for row in gone}), 5 * 6)  # one for each pixel
        starts = range(-(size // 2), 5 - size // 2)
        expect(
            sorted({tuple(row) for row in rows.tolist()}),
            sorted(tuple(start <= i < start + size for i in range(5)) for start in starts),
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_cut_out_is_zero_whatever_was_there(dtype, rng):
    out = Cutout(9, rng=rng)(np.full((4, 1, 2, 2), np.nan, dtype))
    expect(out, np.zeros((4, 1, 2, 2), dtype))
