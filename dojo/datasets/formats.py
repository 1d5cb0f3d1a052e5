"""Readers of the files that MNIST and CIFAR-10 come in.

Whatever is wrong with a file is a DamagedData that names it.
"""

from __future__ import annotations

import gzip
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Labels = NDArray[np.int64]

GZIP = b"\x1f\x8b"
PIXELS = 3 * 32 * 32
LARGEST_PICKLE = 64_000_000  # bytes; a batch of CIFAR-10 has 31 million


class DamagedData(ValueError):
    """A file is not what it should be."""


def opened(path: Path) -> IO[bytes]:
    """The file, unzipped if it is zipped.  Its name does not tell: browsers unzip what they save as .gz."""
    with path.open("rb") as file:
        zipped = file.read(2) == GZIP
    return cast("IO[bytes]", gzip.open(path)) if zipped else path.open("rb")


def contents(path: Path) -> bytes:
    """All that is in the file, unzipped."""
    with opened(path) as file:
        try:
            return file.read()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DamagedData(f"{path}: cannot be unzipped ({error})") from error


def read_idx(path: Path) -> Bytes:
    """An array of bytes in MNIST's format: 0, 0, type 8, the number of axes, their lengths, the elements."""
    raw = contents(path)
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise DamagedData(
            f"{path}: not an IDX file of bytes (it begins with {raw[:4].hex(' ') or 'nothing'})"
        )
    axes = raw[3]
    start = 4 + 4 * axes
    if len(raw) < start:
        raise DamagedData(f"{path}: ends within its header")
    shape = struct.unpack(f">{axes}I", raw[4:start])
    wanted = 1
    for length in shape:
        wanted *= length
    if len(raw) - start != wanted:
        raise DamagedData(f"{path}: has {len(raw) - start} elements, and its header says {shape}, {wanted}")
    return np.array(np.frombuffer(raw, np.uint8, offset=start).reshape(shape))  # a copy, to be written to


def read_cifar_binary(path: Path) -> tuple[Bytes, Labels]:
    """A batch of the binary version: for each image a byte of label, then its red, green and blue pixels."""
    rows = np.fromfile(path, np.uint8)
    if not rows.size or rows.size % (1 + PIXELS):
        raise DamagedData(f"{path}: {rows.size} bytes are not whole images of {1 + PIXELS}")
    rows = rows.reshape(-1, 1 + PIXELS)
    return _images(path, rows[:, 1:], rows[:, 0].astype(np.int64))


def read_cifar_python(path: Path) -> tuple[Bytes, Labels]:
    """A batch of the python version: a pickled dict of b"data", (N, 3072) bytes, and b"labels", a list."""
    if path.stat().st_size > LARGEST_PICKLE:
        raise DamagedData(f"{path}: too large for a batch of CIFAR-10")
    with path.open("rb") as file:
        try:
            batch = _Batch(file, encoding="bytes").load()
            pixels, labels = batch[b"data"].array(), batch[b"labels"]
            if not isinstance(labels, list) or not all(type(label) is int for label in labels):
                raise ValueError("its labels are not a list of integers")
            rows, targets = pixels.reshape(-1, PIXELS), np.array(labels, np.int64)
        # A damaged pickle can raise almost anything.
        except Exception as error:
            raise DamagedData(f"{path}: not a batch of CIFAR-10 ({error or type(error).__name__})") from error
    return _images(path, rows, targets)


def _images(path: Path, rows: Bytes, labels: Labels) -> tuple[Bytes, Labels]:
    if len(labels) != len(rows):
        raise DamagedData(f"{path}: {len(labels)} labels for {len(rows)} images")
    if labels.size and not 0 <= labels.min() <= labels.max() <= 9:
        raise DamagedData(f"{path}: labels from {labels.min()} to {labels.max()}, where 0 to 9 should be")
    return rows.reshape(-1, 3, 32, 32), labels


class _Batch(pickle.Unpickler):
    """Reads a batch of CIFAR-10 without running anything that its author wrote.

    A pickle names functions, and unpickling calls them: with `os.system` among them, it runs a command.
    The few names that an array needs get stand-ins here, which only take down what they are told; no others
    are let in.
    """

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        module = module.replace("numpy._core", "numpy.core")  # as numpy 2 writes it
        stand_ins: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _DType,
            # How protocols 0 to 2 of Python 3 write bytes.
            ("_codecs", "encode"): _latin1,
        }
        if (module, name) not in stand_ins:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of images needs")
        return stand_ins[module, name]


class _DType:
    """Stands in for a dtype."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        self.code = code.decode() if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    """Stands in for an array of bytes."""

    def __setstate__(self, state: tuple[int, tuple[int, ...], _DType, bool, bytes]) -> None:
        _, self.shape, self.dtype, self.by_columns, self.raw = state

    def array(self) -> Bytes:
        if self.dtype.code not in ("u1", "|u1"):
            raise ValueError(f"its pixels are {self.dtype.code}, not bytes")
        elements = np.frombuffer(self.raw, np.uint8)
        return np.array(
            elements.reshape(self.shape[::-1]).T if self.by_columns else elements.reshape(self.shape)
        )


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes written as {encoding}")
    return text.encode("latin1")
