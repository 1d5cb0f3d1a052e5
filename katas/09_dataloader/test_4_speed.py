"""Level 4: a batch is one look-up, and a transform goes over the batch, not over its images.

Ratios within this run, in CPU time, never seconds. Each budget has a twin: a naive version, written out
here, that must not fit.
"""

import gc

import numpy as np
import pytest

from dojo.measuring import Budget, race
from tinytorch.dataloader import Cutout, RandomCrop, RandomHorizontalFlip, Subset, TensorDataset

FETCH = Budget(
    "a batch of 512 small samples",
    limit=4,
    reference=1.3,
    naive=12,
    unit="times the time of one fancy index",
    naively="a loop that stacks samples",
)
AUGMENT = Budget(
    "augmenting 512 small images",
    limit=0.6,
    reference=0.2,
    naive=1.2,
    unit="times the time of a loop over images",
    naively="a loop over images",
)


@pytest.fixture(autouse=True, scope="module")
def only_new_objects_are_collected():
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


DATA = np.zeros((4096, 1, 8, 8), np.uint8)
WHOLE = TensorDataset(DATA)
HALF = Subset(WHOLE, range(0, 4096, 2))


def where(rng):
    return (rng.integers(0, 2048, 512).tolist(),)


@pytest.mark.parametrize("data", [WHOLE, HALF], ids=["whole", "subset"])
def test_a_batch_is_one_look_up(data, rng):
    FETCH.check(
        race(
            lambda indices: data.__getitems__(indices),
            lambda indices: DATA[np.asarray(indices)],
            limit=FETCH.limit,
            inputs=lambda: where(rng),
        )
    )


def test_the_twin_that_stacks_samples_is_caught(rng):
    FETCH.catches(
        race(
            lambda indices: np.stack([DATA[i] for i in indices]),
            lambda indices: DATA[np.asarray(indices)],
            limit=FETCH.limit,
            inputs=lambda: where(rng),
        )
    )


def one_by_one(name, images, rng):
    out = np.empty_like(images)
    for i, image in enumerate(images):
        a, b = rng.integers(5, size=2)
        if name == "flip":
            out[i] = image[..., ::-1] if a < 2 else image
        elif name == "crop":
            out[i] = np.pad(image, ((0, 0), (2, 2), (2, 2)))[:, a : a + 8, b : b + 8]
        else:
            out[i] = image
            out[i, :, a : a + 3, b : b + 3] = 0
    return out


MAKE = {
    "flip": lambda rng: RandomHorizontalFlip(rng=rng),
    "crop": lambda rng: RandomCrop(8, 2, rng=rng),
    "cutout": lambda rng: Cutout(3, rng=rng),
}


@pytest.mark.parametrize("name", MAKE)
def test_transforms_go_over_the_batch(name, rng):
    transform, images = MAKE[name](rng), DATA[:512]
    AUGMENT.check(race(lambda: transform(images), lambda: one_by_one(name, images, rng), limit=AUGMENT.limit))


def test_the_twin_that_goes_image_by_image_is_caught(rng):
    images = DATA[:512]
    AUGMENT.catches(
        race(
            lambda: np.stack(one_by_one("cutout", images, rng)),
            lambda: one_by_one("cutout", images, rng),
            limit=AUGMENT.limit,
        )
    )
