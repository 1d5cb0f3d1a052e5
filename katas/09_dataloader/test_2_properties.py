"""Level 2: what holds for every size, order and image, over cases that hypothesis draws."""

import functools
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect
from tinytorch.dataloader import (
    BatchSampler,
    Cutout,
    DataLoader,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    RandomSampler,
    Subset,
    TensorDataset,
    default_collate,
    random_split,
)

many = settings(max_examples=40, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
generators = seeds.map(np.random.default_rng)
dtypes = st.sampled_from([np.uint8, np.int64, np.float32, np.float64])


@st.composite
def batches(draw, least=0):
    shape = [
        draw(st.integers(least, 4)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 7)),
        draw(st.integers(1, 7)),
    ]
    return draw(generators).integers(1, 200, shape).astype(draw(dtypes))


@many
@given(st.integers(0, 40), st.integers(1, 12), st.booleans(), st.integers(0, 3), generators)
def test_an_epoch_is_a_permutation(count, size, drop, ahead, rng):
    loader = DataLoader(TensorDataset(np.arange(count)), size, True, drop, prefetch=ahead, rng=rng)
    seen = [batch.tolist() for (batch,) in loader]
    flat = functools.reduce(operator.iadd, seen, [])
    expect(len(set(flat)), count // size * size if drop else count)
    expect(len(flat), len(set(flat)))
    expect(all(len(batch) == size for batch in seen[:-1]), True)
    expect(len(loader), len(seen))


@many
@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 8))
def test_batches_cover_the_order_they_are_made_of(order, size):
    expect(functools.reduce(operator.iadd, map(list, BatchSampler(order, size)), []), order)
    whole = functools.reduce(operator.iadd, map(list, BatchSampler(order, size, True)), [])
    expect(whole, order[: len(order) // size * size])


@many
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), generators)
def test_splits_partition(lengths, rng):
    parts = random_split(list(range(sum(lengths))), lengths, rng=rng)
    expect([len(part) for part in parts], lengths)
    expect(sorted(part[i] for part in parts for i in range(len(part))), list(range(sum(lengths))))


@many
@given(st.integers(0, 50), st.lists(st.integers(1, 9), min_size=1, max_size=6), generators)
def test_fractions_partition_and_are_off_by_less_than_one_each(count, weights, rng):
    shares = [weight / sum(weights) for weight in weights]
    parts = random_split(range(count), shares, rng=rng)
    expect(sum(len(part) for part in parts), count)
    expect(
        all(abs(len(part) - count * share) <= 1 + 1e-9 for part, share in zip(parts, shares, strict=False)),
        True,
    )


@many
@given(batches(least=1), st.data())
def test_a_batch_fetched_at_once_is_the_samples_collated(images, data):
    whole = TensorDataset(images, np.arange(len(images)))
    part = Subset(whole, data.draw(st.lists(st.integers(0, len(images) - 1), min_size=1, max_size=8)))
    where = data.draw(st.lists(st.integers(-len(part), len(part) - 1), min_size=1, max_size=8))
    expect(part.__getitems__(where), default_collate([part[i] for i in where]))


@many
@given(batches(), seeds)
def test_flips_are_involutions(images, seed):
    flip = lambda x: RandomHorizontalFlip(rng=np.random.default_rng(seed))(x)  # noqa: E731
    expect(flip(flip(images)), images)
    once = flip(images)
    for got, image in zip(once, images, strict=False):
        assert np.array_equal(got, image) or np.array_equal(got, image[..., ::-1])


@many
@given(batches(), st.integers(0, 3), st.integers(1, 7), st.integers(1, 7), generators)
def test_a_crop_is_a_window_of_the_padded_image(images, padding, height, width, rng):
    n, c, h, w = images.shape
    height, width = min(height, h + 2 * padding), min(width, w + 2 * padding)
    out = RandomCrop((height, width), padding, rng=rng)(images)
    expect((out.shape, out.dtype), ((n, c, height, width), images.dtype))
    for got, image in zip(out, images, strict=False):
        padded = np.zeros((c, h + 2 * padding, w + 2 * padding), images.dtype)
        padded[:, padding : padding + h, padding : padding + w] = image
        places = [
            (i, j) for i in range(len(padded[0]) - height + 1) for j in range(padded.shape[2] - width + 1)
        ]
        assert any(np.array_equal(got, padded[:, i : i + height, j : j + width]) for i, j in places)


@many
@given(batches(), st.integers(1, 9), generators)
def test_a_cutout_leaves_the_rest_alone(images, size, rng):
    out = Cutout(size, rng=rng)(images)
    expect(out, np.where(out == 0, 0, images).astype(images.dtype))  # images have no 0
    for image in out:
        rows, columns = (image[0] == 0).any(axis=1).nonzero()[0], (image[0] == 0).any(axis=0).nonzero()[0]
        for lines, length in ((rows, images.shape[2]), (columns, images.shape[3])):
            expect(lines.tolist(), list(range(lines[0], lines[-1] + 1)))
            whole = len(lines) == size
            assert whole or (len(lines) < size and (lines[0] == 0 or lines[-1] == length - 1))


@many
@given(batches(), st.floats(-9, 9), st.floats(0.5, 4))
def test_normalize_can_be_undone(images, mean, std):
    out = Normalize(mean, std)(images)
    expect(out.astype(np.float64) * std + mean, images.astype(np.float64), rtol=1e-5, atol=1e-4)


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "backwards": lambda a: a[::-1, ::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1, ::-1],
    "channels last": lambda a: a.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2),
    "read-only": lambda a: np.broadcast_to(a, a.shape),
}
TRANSFORMS = {
    "flip": lambda seed: RandomHorizontalFlip(rng=np.random.default_rng(seed)),
    "crop": lambda seed: RandomCrop((2, 3), 1, rng=np.random.default_rng(seed)),
    "crop without padding": lambda seed: RandomCrop(2, rng=np.random.default_rng(seed)),
    "cutout": lambda seed: Cutout(2, rng=np.random.default_rng(seed)),
    "normalize": lambda seed: Normalize([1, 2, 3], [2, 3, 4]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_leave_their_input_alone_however_it_lies_in_memory(name, layout):
    images = np.arange(4 * 3 * 5 * 4, dtype=np.float32).reshape(4, 3, 5, 4)
    laid = LAYOUTS[layout](images)
    out = TRANSFORMS[name](7)(laid)
    expect(laid, images)
    expect(out, TRANSFORMS[name](7)(images))
    expect(bool(np.shares_memory(out, laid)), False)
    out += 1  # it can be written to


def test_where_nothing_is_flipped_or_cut_out_the_result_is_an_array_of_its_own_too():
    images = np.arange(8).reshape(2, 1, 2, 2)
    for transform in (
        RandomHorizontalFlip(0.0, rng=np.random.default_rng(0)),
        Cutout(0, rng=np.random.default_rng(0)),
        RandomCrop(2, rng=np.random.default_rng(0)),
    ):
        out = transform(images)
        out += 1
        expect(images, np.arange(8).reshape(2, 1, 2, 2))


@pytest.mark.parametrize("name", ["flip", "crop", "cutout"])
def test_each_batch_is_augmented_anew(name):
    images, transform = np.arange(1, 1 + 64 * 30).reshape(64, 1, 5, 6), TRANSFORMS[name](7)
    assert not np.array_equal(transform(images), transform(images))


@many
@given(st.integers(0, 30), seeds)
def test_one_seed_one_order(count, seed):
    one, other = (list(RandomSampler(range(count), rng=np.random.default_rng(seed))) for _ in range(2))
    expect(one, other)
