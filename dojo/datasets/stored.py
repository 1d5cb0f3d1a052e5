"""The real data sets, from the data folder into arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dojo.datasets.catalogue import SETS, data_folder
from dojo.datasets.formats import (
    Bytes,
    DamagedData,
    Labels,
    contents,
    read_cifar_binary,
    read_cifar_python,
    read_idx,
)

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


class DataMissing(FileNotFoundError):
    """A data set is not there.  The message says what to type."""


def available(name: str) -> bool:
    """Whether the files of `mnist`, `cifar10` or `tinyshakespeare` are in the data folder."""
    return bool(SETS[name].find(data_folder()))


def mnist(train: bool = True) -> tuple[Bytes, Labels]:
    """Images (60000, 28, 28), light on dark, and their digits; 10000 in the test set.

    Raises:
        DataMissing: it is not in the data folder.
        DamagedData: a file there is not whole.
    """
    files = _files("mnist")
    images, labels = (read_idx(path) for path in (files[:2] if train else files[2:]))
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DamagedData(f"{files[0].parent}: images {images.shape} do not go with labels {labels.shape}")
    return images, labels.astype(np.int64)


def cifar10(train: bool = True) -> tuple[Bytes, Labels]:
    """Images (50000, 3, 32, 32), and the place in CIFAR10_CLASSES of what each shows; 10000 in the test set.

    Raises:
        DataMissing: it is not in the data folder.
        DamagedData: a file there is not whole.
    """
    files = _files("cifar10")
    batches = [
        (read_cifar_binary if path.suffix == ".bin" else read_cifar_python)(path)
        for path in (files[:-1] if train else files[-1:])
    ]
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def tiny_shakespeare() -> str:
    """Scenes of Shakespeare's plays, 1,115,394 characters of 65 kinds.

    Raises:
        DataMissing: it is not in the data folder.
        DamagedData: the file there is not text.
    """
    (path,) = _files("tinyshakespeare")
    try:
        return contents(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedData(f"{path}: {error}") from error


def _files(name: str) -> list[Path]:
    data, folder = SETS[name], data_folder()
    if found := data.find(folder):
        return [path for _, path in found]
    size = sum(download.size for download in data.downloads)
    raise DataMissing(
        f"{data.title} is not in {folder}: `dojo data {name}` downloads it ({size / 1e6:.0f} MB)"
    )
