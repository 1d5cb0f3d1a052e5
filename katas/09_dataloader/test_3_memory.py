"""Level 3: views cost nothing, a mapped file costs nothing, a batch costs a batch.

Counted by tracemalloc in bytes, so the figures are the same on every machine. Each budget has a twin: a
naive version, written out here, that must not fit.
"""

import gc
import struct
import weakref

import numpy as np
import pytest

from dojo.expect import expect
from dojo.measuring import Budget, kept_bytes, peak_bytes
from tinytorch.dataloader import (
    Cutout,
    DataLoader,
    Dataset,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    Subset,
    TensorDataset,
    map_cifar,
    random_split,
    read_idx,
)

MIB = 1 << 20

VIEWS = Budget(
    "a dataset, a subset and a split over 4 MiB",
    limit=0.5,
    reference=0.01,
    naive=4.0,
    unit="MiB at the worst moment",
    naively="a version that copies its samples",
)
MAPPED = Budget(
    "opening a file of 4 MiB",
    limit=0.5,
    reference=0.01,
    naive=4.0,
    unit="MiB at the worst moment",
    naively="a version that reads it",
)
BATCH = Budget(
    "a batch fetched at once",
    limit=1.5,
    reference=1.01,
    naive=2.0,
    unit="batches at the worst moment",
    naively="a version that collects the samples and stacks them",
)
TRANSFORM = Budget(
    "a transform without padding",
    limit=2.0,
    reference=1.5,
    naive=3.0,
    unit="batches at the worst moment",
    naively="a version that goes through float64",
)
AHEAD = Budget(
    "an epoch with prefetch=2",
    limit=3.5,
    reference=3.0,
    naive=16.0,
    unit="batches alive",
    naively="a version whose thread does not wait",
)


@pytest.fixture(autouse=True, scope="module")
def only_new_objects_are_collected():
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def images():
    return np.zeros((4096, 1, 32, 32), np.uint8)  # 4 MiB


def test_datasets_subsets_and_splits_copy_nothing(images, rng):
    def make():
        data = TensorDataset(images)
        return Subset(data, range(100)), random_split(data, [4000, 96], rng=rng)

    VIEWS.check(peak_bytes(make) / MIB)
    assert np.shares_memory(TensorDataset(images)[5][0], images)
    assert np.shares_memory(Subset(TensorDataset(images), [5])[0][0], images)


def test_the_twin_that_copies_its_samples_is_caught(images):
    VIEWS.catches(peak_bytes(lambda: images[np.arange(4096)]) / MIB)


@pytest.fixture
def idx_file(tmp_path, images):
    path = tmp_path / "images"
    path.write_bytes(struct.pack(">HBB4I", 0, 8, 4, *images.shape) + images.tobytes())
    return path


def test_a_file_is_mapped_and_not_read(idx_file, tmp_path):
    MAPPED.check(peak_bytes(lambda: read_idx(idx_file)) / MIB)
    MAPPED.check(peak_bytes(lambda: TensorDataset(read_idx(idx_file))) / MIB)
    batch = tmp_path / "a.bin"
    batch.write_bytes(bytes(3073 * 1365))
    MAPPED.check(peak_bytes(lambda: map_cifar(batch)) / MIB)


def test_the_twin_that_reads_the_file_is_caught(idx_file):
    MAPPED.catches(peak_bytes(lambda: np.fromfile(idx_file, np.uint8)) / MIB)


def test_a_batch_allocates_one_batch(images):
    where = list(range(0, 2048, 2))
    BATCH.check(peak_bytes(lambda: TensorDataset(images).__getitems__(where)) / MIB)
    BATCH.check(peak_bytes(lambda: Subset(TensorDataset(images), range(4096)).__getitems__(where)) / MIB)


def test_the_twin_that_collects_and_stacks_is_caught(images):
    where = list(range(0, 2048, 2))
    BATCH.catches(peak_bytes(lambda: np.stack([images[i].copy() for i in where])) / MIB)


@pytest.mark.parametrize("kind", ["flip", "cutout", "crop", "normalize"])
def test_a_transform_needs_little_more_than_its_result(kind, images, rng):
    transform = {
        "flip": RandomHorizontalFlip(rng=rng),
        "cutout": Cutout(8, rng=rng),
        "crop": RandomCrop(32, rng=rng),
        "normalize": Normalize(1, 2),
    }[kind]
    images = images.reshape(1024, 4, 32, 32)  # a mask that all channels share is a quarter
    result = transform(images).nbytes
    TRANSFORM.check(peak_bytes(lambda: transform(images)) / result)


def test_the_twin_that_goes_through_float64_is_caught(images):
    result = images.size * 4
    TRANSFORM.catches(peak_bytes(lambda: ((images - 1.0) / 2.0).astype(np.float32)) / result)


class Large(Dataset):
    """Each sample is an object of its own, so that those alive can be counted."""

    def __init__(self):
        self.alive, self.most = 0, 0

    def __len__(self):
        return 16

    def __getitem__(self, index):
        sample = np.zeros(1)
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(sample, self.gone)
        return sample

    def gone(self):
        self.alive -= 1


def test_prefetch_holds_its_batches_and_the_one_in_use():
    data = Large()
    for batch in DataLoader(data, 1, collate_fn=lambda samples: samples[0], prefetch=2):
        del batch
    AHEAD.check(data.most)
    expect(data.alive, 0)


def test_the_twin_whose_thread_does_not_wait_is_caught():
    data = Large()
    everything = [data[i] for i in range(16)]
    AHEAD.catches(data.most)
    del everything


def test_an_epoch_leaves_nothing_behind(images, rng):
    loader = DataLoader(TensorDataset(images), 512, True, prefetch=2, rng=rng)

    def epoch():
        for _ in loader:
            pass

    epoch()
    expect(kept_bytes(epoch) / MIB, 0.0, atol=0.05)
