"""The real data sets: what they consist of, where they come from, and how to tell that a file is whole."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from dojo.datasets.formats import Bytes, DamagedData, Labels, opened, read_cifar_binary, read_cifar_python

VARIABLE = "TINYTORCH_DATA"
Check = Callable[[Path], None]


@dataclass(frozen=True)
class Part:
    """A file of a set, as it is read."""

    names: tuple[str, ...]  # where it may be in the data folder; the first is where `dojo data` puts it
    check: Check  # raises DamagedData


@dataclass(frozen=True)
class Download:
    """A file to fetch: a part, or an archive of parts."""

    name: str
    size: int  # bytes, as of the first address
    check: Check
    urls: tuple[str, ...]
    is_archive: bool = False


@dataclass(frozen=True)
class DataSet:
    """A set, which may be stored in one of several layouts; an archive of the first is downloaded."""

    name: str
    title: str
    about: str
    size: int  # bytes on disk
    layouts: tuple[tuple[Part, ...], ...]
    downloads: tuple[Download, ...]
    archives: tuple[str, ...] = ()  # file names of archives that hold a layout

    def find(self, folder: Path) -> list[tuple[Part, Path]]:
        """The parts and where each is in the data folder; none if one is missing."""
        for layout in self.layouts:
            found = [
                next(((part, folder / name) for name in part.names if (folder / name).is_file()), None)
                for part in layout
            ]
            if None not in found:
                return [one for one in found if one]
        return []

    def check(self, folder: Path) -> None:
        """Raises DamagedData if a file in the data folder is not whole."""
        for part, path in self.find(folder):
            part.check(path)


def data_folder() -> Path:
    """Where the data sets are: TINYTORCH_DATA, or `.cache/tinytorch` at home."""
    told = os.environ.get(VARIABLE)
    return Path(told).expanduser() if told else Path.home() / ".cache" / "tinytorch"


def check_sha256(wanted: str, path: Path) -> None:
    """Of the file as it is."""
    with path.open("rb") as file:
        _compare(wanted, path, file)


def check_content(wanted: str, path: Path) -> None:
    """By the sha256 of what is in the file: a file can be zipped in many ways."""
    with opened(path) as file:
        try:
            _compare(wanted, path, file)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DamagedData(f"{path}: cannot be unzipped ({error})") from error


def _compare(wanted: str, path: Path, file: IO[bytes]) -> None:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    if digest.hexdigest() != wanted:
        raise DamagedData(f"{path}: its sha256 is {digest.hexdigest()[:12]}..., not {wanted[:12]}...")


def check_cifar_batch(read: Callable[[Path], tuple[Bytes, Labels]], path: Path) -> None:
    """10,000 images, about as many of each class.

    Nothing is asked of the pixels: copies of other quality go round.
    """
    images, labels = read(path)
    counts = np.bincount(labels, minlength=10)
    if len(images) != 10_000 or not (counts.min() >= 900 and counts.max() <= 1100):
        raise DamagedData(
            f"{path}: {len(images)} images, of which classes have {counts.min()} to {counts.max()}"
        )


MNIST_URLS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MNIST_FILES = {  # bytes zipped, and sha256 unzipped
    "train-images-idx3-ubyte": (
        9_912_422,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": (28_881, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": (1_648_877, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": (4_542, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}
CIFAR_ARCHIVE = "cifar-10-binary.tar.gz"
CIFAR_BATCHES = (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")
SHAKESPEARE = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

SETS = {
    one.name: one
    for one in (
        DataSet(
            "mnist",
            "MNIST",
            "70,000 handwritten digits, 28 x 28",
            11_594_722,
            layouts=(
                tuple(
                    Part(
                        (f"mnist/{stem}.gz", f"mnist/{stem}", f"mnist/{stem.replace('-idx', '.idx')}"),
                        partial(check_content, digest),
                    )
                    for stem, (_, digest) in MNIST_FILES.items()
                ),
            ),
            downloads=tuple(
                Download(
                    f"mnist/{stem}.gz",
                    size,
                    partial(check_content, digest),
                    tuple(f"{url}{stem}.gz" for url in MNIST_URLS),
                )
                for stem, (size, digest) in MNIST_FILES.items()
            ),
        ),
        DataSet(
            "cifar10",
            "CIFAR-10",
            "60,000 colour pictures of ten things, 32 x 32",
            184_380_061,
            layouts=(
                tuple(
                    Part(
                        (f"cifar-10-batches-bin/{batch}.bin",), partial(check_cifar_batch, read_cifar_binary)
                    )
                    for batch in CIFAR_BATCHES
                ),
                tuple(
                    Part((f"cifar-10-batches-py/{batch}",), partial(check_cifar_batch, read_cifar_python))
                    for batch in CIFAR_BATCHES
                ),
            ),
            downloads=(
                Download(
                    CIFAR_ARCHIVE,
                    170_052_171,
                    partial(check_sha256, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
                    (
                        # A copy first: the makers' own server takes half an hour.
                        f"https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/{CIFAR_ARCHIVE}",
                        f"https://www.cs.toronto.edu/~kriz/{CIFAR_ARCHIVE}",
                        f"https://cave.cs.toronto.edu/kriz/{CIFAR_ARCHIVE}",
                    ),
                    is_archive=True,
                ),
            ),
            archives=(CIFAR_ARCHIVE, "cifar-10-python.tar.gz"),
        ),
        DataSet(
            "tinyshakespeare",
            "Tiny Shakespeare",
            "1,115,394 characters of plays",
            1_115_394,
            layouts=(
                (
                    Part(
                        ("tinyshakespeare.txt", "tinyshakespeare/input.txt"),
                        partial(check_sha256, SHAKESPEARE),
                    ),
                ),
            ),
            downloads=(
                Download(
                    "tinyshakespeare.txt",
                    1_115_394,
                    partial(check_sha256, SHAKESPEARE),
                    (
                        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
                        "https://cdn.jsdelivr.net/gh/karpathy/char-rnn@master/data/tinyshakespeare/input.txt",
                        "https://storage.googleapis.com/download.tensorflow.org/data/shakespeare.txt",
                    ),
                ),
            ),
        ),
    )
}
