"""What kata 09 measures: fetching, ordering and augmenting by the number of samples, and opening files."""

import struct
import tempfile
import weakref
from pathlib import Path

import numpy as np

from dojo.measuring import Probe
from tinytorch.dataloader import (
    Cutout,
    DataLoader,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    RandomSampler,
    TensorDataset,
    read_idx,
)

BATCHES = (128, 256, 512, 1024)
SAMPLES = (1 << 12, 1 << 14, 1 << 16, 1 << 18)
IMAGE = 3 * 32 * 32  # bytes of a photograph


class Folder:
    """A folder that is gone when nobody needs it any more."""

    def __init__(self):
        kept = tempfile.TemporaryDirectory()
        self.path = Path(kept.name)
        weakref.finalize(self, kept.cleanup)


def idx_file(n, rng):
    folder = Folder()
    path = folder.path / "images"
    path.write_bytes(struct.pack(">HBB2I", 0, 8, 2, n, 784) + bytes(n * 784))
    return path, folder


def photographs(n, rng):
    return rng.integers(0, 256, (n, 3, 32, 32), np.uint8)


def fetching(n, rng):
    return TensorDataset(photographs(2048, rng)), rng.permutation(2048)[:n].tolist()


def augmenting(make):
    return lambda n, rng: (make(rng), photographs(n, rng))


def epoch(loader):
    for batch in loader:
        del batch


def loading(ahead):
    def prepare(n, rng):
        data = TensorDataset(np.zeros((n, 1), np.float32))
        return (DataLoader(data, 64, shuffle=True, prefetch=ahead, rng=rng),)

    return prepare


PROBES = (
    Probe(
        "a batch of n photographs, fetched at once",
        BATCHES,
        prepare=fetching,
        call=lambda data, where: data.__getitems__(where),
        time=1,
        memory=1,
        moved=lambda n: 2 * IMAGE * n,
    ),
    Probe(
        "a batch of n photographs, one by one",
        BATCHES,
        prepare=fetching,
        call=lambda data, where: np.stack([data[i][0] for i in where]),
        time=1,
        memory=1,
        moved=lambda n: 2 * IMAGE * n,
    ),
    Probe(
        "opening n digits, mapped",
        SAMPLES[:3],
        prepare=idx_file,
        call=lambda path, folder: read_idx(path),
        memory=0,
    ),
    Probe(
        "opening n digits, read",
        SAMPLES[:3],
        prepare=idx_file,
        call=lambda path, folder: np.fromfile(path, np.uint8, offset=16),
        memory=1,
        moved=lambda n: 2 * 784 * n,
    ),
    Probe(
        "the order of an epoch of n samples",
        SAMPLES,
        prepare=lambda n, rng: (RandomSampler(range(n), rng=rng),),
        call=lambda sampler: list(sampler),
        time=1,
        memory=1,
    ),
    Probe(
        "flipping n photographs",
        BATCHES,
        prepare=augmenting(lambda rng: RandomHorizontalFlip(rng=rng)),
        call=lambda transform, images: transform(images),
        time=1,
        memory=1,
        moved=lambda n: 2 * IMAGE * n,
    ),
    Probe(
        "cropping n photographs",
        BATCHES,
        prepare=augmenting(lambda rng: RandomCrop(32, 2, rng=rng)),
        call=lambda transform, images: transform(images),
        time=1,
        memory=1,
        moved=lambda n: 2 * IMAGE * n,
    ),
    Probe(
        "cutting out of n photographs",
        BATCHES,
        prepare=augmenting(lambda rng: Cutout(8, rng=rng)),
        call=lambda transform, images: transform(images),
        time=1,
        memory=1,
        moved=lambda n: 2 * IMAGE * n,
    ),
    Probe(
        "normalising n photographs",
        BATCHES,
        prepare=augmenting(lambda rng: Normalize([125, 123, 114], [63, 62, 67])),
        call=lambda transform, images: transform(images),
        time=1,
        memory=1,
        flops=lambda n: 2 * IMAGE * n,
        moved=lambda n: 5 * IMAGE * n,  # a byte in, four out
    ),
    Probe(
        "an epoch of n small samples, in batches of 64",
        SAMPLES[:3],
        prepare=loading(0),
        call=epoch,
        time=1,
        memory=1,
    ),
    Probe(
        "the same with prefetch=2",
        SAMPLES[:3],
        prepare=loading(2),
        call=epoch,
        time=1,
        memory=1,
    ),
)
