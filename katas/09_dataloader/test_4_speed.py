"""Level 4: a batch is one look-up, and a transform goes over the batch, not over its images.

Ratios within this run, in CPU time, never seconds. Each budget has a twin: a naive version, written out
here, that must not fit.
"""

import numpy as np
import pytest

from dojo.measuring import Budget, race
from tinytorch.dataloader import (
    CIFAR10,
    BatchSampler,
    Cutout,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    RandomSampler,
    Subset,
    TensorDataset,
    default_collate,
)

COLLATE = Budget(
    "collating 512 samples of 1 KiB",
    limit=8,
    reference=1.3,
    naive=39,
    unit="times the time of np.stack",
    naively="a version that appends sample by sample to the batch",
)
FETCH = Budget(
    "a batch of 512 small samples",
    limit=6,
    reference=1.1,
    naive=14,
    unit="times the time of one fancy index",
    naively="a loop that stacks samples",
)
PHOTOGRAPHS = Budget(
    "a batch of 128 photographs out of five files",
    limit=60,
    reference=12,
    naive=190,
    unit="times the time of one fancy index",
    naively="a loop that fetches batches of one",
)
ORDER = Budget(
    "an order of 4,096 samples",
    limit=20,
    reference=1.3,
    naive=74,
    unit="times the time of a permutation as a list",
    naively="a version that takes one after the other out of a list",
)
PLAN = Budget(
    "a plan of 16,384 batches",
    limit=22,
    reference=8,
    naive=90,
    unit="times the time of one of 2,048",
    naively="a version that cuts each batch off the front of what is left",
)
FLIP = Budget(
    "flipping 2,048 images of 4 x 4",
    limit=4,
    reference=1.2,
    naive=8.0,
    unit="times the time of a look-up and a copy",
    naively="a loop over images",
)
CROP = Budget(
    "cropping 2,048 images of 4 x 4",
    limit=12,
    reference=4.5,
    naive=22,
    unit="times the time of a look-up and a copy",
    naively="a loop over images",
)
CUTOUT = Budget(
    "cutting squares out of 2,048 images of 4 x 4",
    limit=12,
    reference=4.4,
    naive=26,
    unit="times the time of a look-up and a copy",
    naively="a loop over images",
)
NORMALIZE = Budget(
    "normalising 2,048 images of 4 x 4",
    limit=6,
    reference=0.25,
    naive=90,
    unit="times the time of a look-up and a copy",
    naively="a loop over images",
)

# 09.1 default_collate


def stacked(samples):
    return np.stack(samples)


def appended(samples):
    batch = samples[0][None]
    for sample in samples[1:]:
        batch = np.concatenate([batch, sample[None]])
    return batch


def samples(rng):
    return (list(rng.random((512, 256), np.float32)),)


def test_samples_are_stacked_once(rng):
    COLLATE.check(race(default_collate, stacked, limit=COLLATE.limit, inputs=lambda: samples(rng)))


def test_the_twin_that_appends_to_a_batch_is_caught(rng):
    COLLATE.catches(race(appended, stacked, limit=COLLATE.limit, inputs=lambda: samples(rng)))


# 09.2 and 09.3: TensorDataset, Subset

DATA = np.zeros((4096, 1, 8, 8), np.uint8)


def where(rng):
    return (rng.integers(0, 1024, 512).tolist(),)


def look_up(indices):
    return DATA[np.asarray(indices)]


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_batch_is_one_look_up_however_many_subsets_lie_between(depth, rng):
    data = TensorDataset(DATA)
    for _ in range(depth):
        data = Subset(data, range(0, len(data), 2))
    FETCH.check(
        race(
            lambda indices: data.__getitems__(indices),
            look_up,
            limit=FETCH.limit,
            inputs=lambda: where(rng),
        )
    )


def test_the_twin_that_stacks_samples_is_caught(rng):
    FETCH.catches(
        race(
            lambda indices: np.stack([DATA[i] for i in indices]),
            look_up,
            limit=FETCH.limit,
            inputs=lambda: where(rng),
        )
    )


# 09.9 CIFAR10

TABLE = np.zeros((300, 3, 32, 32), np.uint8)


def photographs(rng):
    return (rng.integers(0, 300, 128),)


@pytest.fixture
def cifar(tmp_path):
    for i in range(1, 6):
        (tmp_path / f"data_batch_{i}.bin").write_bytes(bytes(60 * 3073))
    return CIFAR10(tmp_path)


def test_a_batch_of_photographs_is_fetched_at_once(cifar, rng):
    PHOTOGRAPHS.check(
        race(
            lambda indices: cifar.__getitems__(indices),
            lambda indices: TABLE[indices],
            limit=PHOTOGRAPHS.limit,
            inputs=lambda: photographs(rng),
        )
    )


class OfOne:
    """Photographs from one file by a look-up of one index, as `CIFAR10` does it for a single sample."""

    def __init__(self):
        self.table, self.starts = TABLE, np.arange(0, 301, 60)

    def __getitem__(self, index):
        where = np.asarray([index], np.intp) % 300
        parts = np.searchsorted(self.starts, where, side="right") - 1
        images = np.empty((1, 3, 32, 32), np.uint8)
        for part in np.unique(parts):
            here = np.flatnonzero(parts == part)
            images[here] = self.table[where[here]]
        return images[0]


def test_the_twin_that_fetches_batches_of_one_is_caught(rng):
    data = OfOne()
    PHOTOGRAPHS.catches(
        race(
            lambda indices: np.stack([data[int(i)] for i in indices]),
            lambda indices: TABLE[indices],
            limit=PHOTOGRAPHS.limit,
            inputs=lambda: photographs(rng),
        )
    )


# 09.10 RandomSampler


def permutation(rng):
    return rng.permutation(4096).tolist()


def one_by_one(rng):
    left, order = list(range(4096)), []
    while left:
        order.append(left.pop(int(rng.integers(len(left)))))
    return order


def test_an_order_is_one_permutation(rng):
    sampler = RandomSampler(range(4096), rng=rng)
    ORDER.check(race(lambda: list(sampler), lambda: permutation(rng), limit=ORDER.limit))


def test_the_twin_that_takes_one_after_the_other_is_caught(rng):
    ORDER.catches(race(lambda: one_by_one(rng), lambda: permutation(rng), limit=ORDER.limit))


# 09.11 BatchSampler


def test_a_plan_takes_as_long_as_it_has_batches():
    long, short = BatchSampler(range(16_384), 1), BatchSampler(range(2_048), 1)
    PLAN.check(race(lambda: list(long), lambda: list(short), limit=PLAN.limit))


def cut_off(count):
    left, plan = list(range(count)), []
    while left:
        batch, left = left[:1], left[1:]
        plan.append(batch)
    return plan


def test_the_twin_that_cuts_batches_off_the_front_is_caught():
    PLAN.catches(race(lambda: cut_off(16_384), lambda: cut_off(2_048), limit=PLAN.limit))


# 09.12 to 09.15: transforms. The images are small: of large ones a loop has time for its calls.

SMALL = np.ones((2048, 1, 4, 4), np.uint8)
SHUFFLED = np.random.default_rng(0).permutation(2048)


def base():
    return SMALL[SHUFFLED][:, :, ::-1].copy()


def flip_each(images, rng):
    out = images.copy()
    for i in np.flatnonzero(rng.random(len(images)) < 0.5).tolist():
        out[i] = images[i, :, :, ::-1]
    return out


def crop_each(images, rng):
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.empty_like(images)
    for i, (a, b) in enumerate(rng.integers(3, size=(len(images), 2)).tolist()):
        out[i] = padded[i, :, a : a + 4, b : b + 4]
    return out


def cut_each(images, rng):
    out = images.copy()
    for image, (a, b) in zip(out, rng.integers(4, size=(len(images), 2)).tolist(), strict=True):
        image[:, max(0, a - 1) : a + 2, max(0, b - 1) : b + 2] = 0
    return out


def normalize_each(images):
    out = np.empty(images.shape, np.float32)
    for i, image in enumerate(images):
        out[i] = (image - np.float32(1)) / np.float32(2)
    return out


def to_a_copy(candidate, limit):
    """How `candidate()` does against a look-up and a copy of the small images."""
    return race(candidate, base, limit=limit)


def test_flip_goes_over_the_batch(rng):
    transform = RandomHorizontalFlip(rng=rng)
    FLIP.check(to_a_copy(lambda: transform(SMALL), FLIP.limit))


def test_the_twin_that_flips_image_by_image_is_caught(rng):
    FLIP.catches(to_a_copy(lambda: flip_each(SMALL, rng), FLIP.limit))


def test_crop_goes_over_the_batch(rng):
    transform = RandomCrop(4, 1, rng=rng)
    CROP.check(to_a_copy(lambda: transform(SMALL), CROP.limit))


def test_the_twin_that_crops_image_by_image_is_caught(rng):
    CROP.catches(to_a_copy(lambda: crop_each(SMALL, rng), CROP.limit))


def test_cutout_goes_over_the_batch(rng):
    transform = Cutout(3, rng=rng)
    CUTOUT.check(to_a_copy(lambda: transform(SMALL), CUTOUT.limit))


def test_the_twin_that_cuts_image_by_image_is_caught(rng):
    CUTOUT.catches(to_a_copy(lambda: cut_each(SMALL, rng), CUTOUT.limit))


def test_normalize_goes_over_the_batch():
    transform = Normalize(1, 2)
    NORMALIZE.check(to_a_copy(lambda: transform(SMALL), NORMALIZE.limit))


def test_the_twin_that_normalises_image_by_image_is_caught():
    NORMALIZE.catches(to_a_copy(lambda: normalize_each(SMALL), NORMALIZE.limit))
