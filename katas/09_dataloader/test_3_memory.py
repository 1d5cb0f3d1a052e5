"""Level 3: views cost nothing, a mapped file costs nothing, a batch costs a batch.

Counted by tracemalloc in bytes, so the figures are the same on every machine. Each budget has a twin: a
naive version, written out here, that must not fit.
"""

import gzip
import struct
import threading
import time
import weakref
from queue import SimpleQueue

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from dojo.measuring import Budget, kept_bytes, peak_bytes
from tinytorch.dataloader import (
    CIFAR10,
    MNIST,
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
    "a dataset, a subset and a split of 4,096 samples, 4 MiB",
    limit=0.5,
    reference=0.04,
    naive=4.0,
    unit="MiB at the worst moment",
    naively="a version that copies its samples",
)
MAPPED = Budget(
    "opening a file of 4 MiB",
    limit=0.5,
    reference=0.05,
    naive=4.0,
    unit="MiB at the worst moment",
    naively="a version that reads it",
)
PACKED = Budget(
    "a .gz that holds 32 MiB or says so, where the other is 12 bytes",
    limit=8.0,
    reference=1.1,
    naive=78,
    unit="MiB at the worst moment",
    naively="a version that unpacks all, or believes the header,",
)
BATCH = Budget(
    "a batch fetched at once",
    limit=1.5,
    reference=1.05,
    naive=2.3,
    unit="batches at the worst moment",
    naively="a version that collects the samples and stacks them",
)
TRANSFORM = Budget(
    "a transform of 4 MiB",
    limit=2.5,
    reference=1.5,
    naive=3.0,
    unit="times its result at the worst moment",
    naively="a version that goes through float64",
)
CROP = Budget(
    "a crop of 32 x 32 from 36 x 36",
    limit=3.5,
    reference=2.3,
    naive=27,
    unit="times its result at the worst moment",
    naively="a version that makes all 25 windows and picks one",
)
AHEAD = Budget(
    "an epoch of sixteen batches with prefetch=2",
    limit=4.5,  # one more than asked for: whoever hands out a batch may hold it until the next is there
    reference=3.0,
    naive=16.0,
    unit="batches alive",
    naively="a version whose thread does not wait",
)
ALONE = Budget(
    "an epoch of sixteen batches without a thread",
    limit=2.5,
    reference=1.0,
    naive=16.0,
    unit="batches alive",
    naively="a version that makes a list of them",
)
EPOCH = Budget(
    "an epoch of 4 MiB in eight batches",
    limit=0.25,
    reference=0.01,
    naive=4.0,
    unit="MiB left behind",
    naively="a version that keeps what it has fetched",
)


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


def write_idx(path, array):
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(head + array.tobytes())
    return path


RECORDS = 1365  # of 3073 bytes: 4 MiB


def open_idx(folder, images):
    path = write_idx(folder / "images", images)
    return lambda: read_idx(path)


def open_mnist(folder, images):
    write_idx(folder / "train-images-idx3-ubyte", np.zeros((5340, 28, 28), np.uint8))
    write_idx(folder / "train-labels-idx1-ubyte", np.zeros(5340, np.uint8))
    return lambda: MNIST(folder)


def open_binary(folder, images):
    (folder / "a.bin").write_bytes(bytes(3073 * RECORDS))
    return lambda: map_cifar(folder / "a.bin")


def open_cifar10(folder, images):
    for i in range(1, 6):
        (folder / f"data_batch_{i}.bin").write_bytes(bytes(3073 * (RECORDS // 5)))
    return lambda: CIFAR10(folder)


@pytest.mark.parametrize("opened", [open_idx, open_mnist, open_binary, open_cifar10])
def test_a_file_is_mapped_and_not_read(opened, tmp_path, images):
    MAPPED.check(peak_bytes(opened(tmp_path, images)) / MIB)


def test_a_mapped_file_stays_mapped_in_a_dataset(tmp_path, images):
    path = write_idx(tmp_path / "images", images)
    MAPPED.check(peak_bytes(lambda: Subset(TensorDataset(read_idx(path)), range(9))[0]) / MIB)


def test_the_twin_that_reads_the_file_is_caught(tmp_path, images):
    path = write_idx(tmp_path / "images", images)
    MAPPED.catches(peak_bytes(lambda: np.fromfile(path, np.uint8)) / MIB)


def packed(path, says, holds):
    head = struct.pack(">HBBI", 0, 8, 1, says)
    path.write_bytes(gzip.compress(head + bytes(holds), 1))
    return path


def refused(path):
    with expect_error(ValueError, path.name):
        read_idx(path)


@pytest.mark.parametrize(("says", "holds"), [(12, 32 * MIB), (32 * MIB, 12)])
def test_a_small_gz_cannot_fill_the_memory(says, holds, tmp_path):
    path = packed(tmp_path / "bomb.gz", says, holds)
    PACKED.check(peak_bytes(lambda: refused(path)) / MIB)


def test_the_twin_that_unpacks_all_is_caught(tmp_path):
    path = packed(tmp_path / "bomb.gz", 12, 32 * MIB)
    PACKED.catches(peak_bytes(lambda: gzip.decompress(path.read_bytes())) / MIB)


def test_a_batch_allocates_one_batch(images):
    where = list(range(0, 2048, 2))
    BATCH.check(peak_bytes(lambda: TensorDataset(images).__getitems__(where)) / MIB)
    BATCH.check(peak_bytes(lambda: Subset(TensorDataset(images), range(4096)).__getitems__(where)) / MIB)


def test_the_twin_that_collects_and_stacks_is_caught(images):
    where = list(range(0, 2048, 2))
    BATCH.catches(peak_bytes(lambda: np.stack([images[i].copy() for i in where])) / MIB)


@pytest.mark.parametrize("kind", ["flip", "cutout", "normalize"])
def test_a_transform_needs_little_more_than_its_result(kind, rng):
    transform = {
        "flip": RandomHorizontalFlip(rng=rng),
        "cutout": Cutout(8, rng=rng),
        "normalize": Normalize([1, 2, 3, 4], [2, 3, 4, 5]),
    }[kind]
    batch = np.zeros((256, 4, 32, 32), np.uint8 if kind == "normalize" else np.float32)
    TRANSFORM.check(peak_bytes(lambda: transform(batch)) / (4 * MIB))


def test_the_twin_that_goes_through_float64_is_caught():
    batch = np.zeros((256, 4, 32, 32), np.uint8)
    TRANSFORM.catches(peak_bytes(lambda: ((batch - 1.0) / 2.0).astype(np.float32)) / (4 * MIB))


@pytest.mark.parametrize("padding", [0, 2])
def test_a_crop_copies_one_window_of_each_image(padding, rng):
    batch = np.zeros((256, 4, 32, 32), np.float32)
    CROP.check(peak_bytes(lambda: RandomCrop(32, padding, rng=rng)(batch)) / (4 * MIB))


def test_the_twin_that_makes_all_windows_is_caught(rng):
    batch = np.zeros((64, 4, 32, 32), np.float32)

    def crop():
        padded = np.pad(batch, ((0, 0), (0, 0), (2, 2), (2, 2)))
        windows = np.stack([padded[:, :, i : i + 32, j : j + 32] for i in range(5) for j in range(5)])
        return windows[rng.integers(25, size=64), np.arange(64)]

    CROP.catches(peak_bytes(crop) / MIB)


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


def most_alive(data, batches):
    """How many samples were alive at once, for a loop that is slow at its first batch."""
    for number, batch in enumerate(batches):
        if not number:
            time.sleep(0.05)  # time for a thread that does not wait; one that waits is as far as it goes
        del batch
    return data.most


def test_prefetch_holds_its_batches_and_the_one_in_use():
    data = Large()
    AHEAD.check(most_alive(data, DataLoader(data, 1, collate_fn=lambda samples: samples[0], prefetch=2)))
    expect(data.alive, 0)


def test_without_a_thread_a_batch_is_made_when_it_is_asked_for():
    data = Large()
    ALONE.check(most_alive(data, DataLoader(data, 1, collate_fn=lambda samples: samples[0])))
    expect(data.alive, 0)


def test_the_twin_that_makes_a_list_of_batches_is_caught():
    data = Large()
    ALONE.catches(most_alive(data, [data[i] for i in range(16)]))


def test_the_twin_whose_thread_does_not_wait_is_caught():
    data, ready = Large(), SimpleQueue()
    thread = threading.Thread(target=lambda: [ready.put(data[i]) for i in range(16)])
    thread.start()
    thread.join()
    AHEAD.catches(most_alive(data, (ready.get() for _ in range(16))))


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_epoch_leaves_nothing_behind(ahead, images, rng):
    def epoch():
        loader = DataLoader(TensorDataset(images), 512, True, prefetch=ahead, rng=rng)
        for _ in loader:
            pass
        for _ in loader:
            break
        return loader

    EPOCH.check(kept_bytes(epoch) / MIB)


def test_the_twin_that_keeps_its_batches_is_caught(images):
    EPOCH.catches(kept_bytes(lambda: [images[i : i + 512].copy() for i in range(0, 4096, 512)]) / MIB)
