"""The readers of MNIST and CIFAR-10: right arrays from whole files, one clear error from any other."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dojo import datasets
from dojo.datasets import DamagedData, DataMissing, catalogue, formats
from dojo.datasets.formats import PIXELS, read_cifar_binary, read_cifar_python, read_idx


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def idx(array: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("shape", [(5, 28, 28), (7,), (0, 28, 28), (2, 3, 4, 5)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_files_are_read_zipped_or_not(
    shape: tuple[int, ...], pack: Callable[[bytes], bytes], tmp_path: Path, rng: np.random.Generator
) -> None:
    array = rng.integers(0, 256, shape, np.uint8)
    # Browsers unzip, and keep the name.
    got = read_idx(written(tmp_path / "images.gz", pack(idx(array))))
    assert got.dtype == np.uint8
    assert got.flags.writeable
    np.testing.assert_array_equal(got, array)


WHOLE = idx(np.arange(12, dtype=np.uint8).reshape(3, 4))
PACKED = gzip.compress(WHOLE, mtime=0)  # without the time of day, which would be in the names of tests


@pytest.mark.parametrize(
    "content",
    [
        b"",
        WHOLE[:3],
        WHOLE[:7],
        WHOLE[:-1],
        WHOLE + b"\0",
        b"<html>not here</html>",
        WHOLE.replace(b"\x08", b"\x0d", 1),
        struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3),
        PACKED[:-9],
        PACKED[:5],
        PACKED[:15] + b"?" + PACKED[16:],
    ],
)
def test_a_damaged_idx_file_is_named(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(DamagedData, match=r"labels\.gz"):
        read_idx(written(tmp_path / "labels.gz", content))


def test_a_binary_batch_is_labels_and_planes_of_colour(tmp_path: Path, rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (4, 3, 32, 32), np.uint8)
    rows = b"".join(
        bytes([label]) + image.tobytes() for label, image in zip([3, 0, 9, 9], images, strict=True)
    )
    got, labels = read_cifar_binary(written(tmp_path / "batch.bin", rows))
    np.testing.assert_array_equal(got, images)
    np.testing.assert_array_equal(labels, [3, 0, 9, 9])
    assert labels.dtype == np.int64


@pytest.mark.parametrize("content", [b"", b"\1" * PIXELS, b"\1" * (PIXELS + 2), b"\x0a" * (PIXELS + 1)])
def test_a_damaged_binary_batch_is_named(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(DamagedData, match=r"batch\.bin"):
        read_cifar_binary(written(tmp_path / "batch.bin", content))


def python_2_batch(pixels: bytes, labels: bytes) -> bytes:
    """A batch as Python 2 pickled it for the archive: opcodes of protocol 2, with short byte strings."""
    count = len(pixels) // PIXELS
    return b"".join(
        [
            b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04]q\x05(",
            b"".join(b"K" + bytes([label]) for label in labels),
            b"eU\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08",
            b"K\x00\x85U\x01b\x87Rq\x09(K\x01M" + struct.pack("<H", count) + b"M\x00\x0c\x86",
            b"cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b",
            b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89",
            b"T" + struct.pack("<i", len(pixels)) + pixels + b"tbU\x09filenamesq\x0c]q\x0dU\x05x.pngau.",
        ]
    )


def python_3_batch(pixels: np.ndarray[Any, Any], labels: list[int], protocol: int) -> bytes:
    return pickle.dumps({b"data": pixels, b"labels": labels, b"filenames": [b"x.png"]}, protocol)


@pytest.mark.parametrize("kind", ["as published", 2, 3, 4, "by columns"])
def test_a_python_batch_is_read_as_pickle_would(
    kind: str | int, tmp_path: Path, rng: np.random.Generator
) -> None:
    rows = rng.integers(0, 256, (3, PIXELS), np.uint8)
    if kind == "as published":
        content = python_2_batch(rows.tobytes(), bytes([6, 9, 9]))
        theirs = pickle.loads(content, encoding="bytes")
        np.testing.assert_array_equal(theirs[b"data"], rows)
    elif kind == "by columns":
        content = python_3_batch(np.asfortranarray(rows), [6, 9, 9], 3)
    else:
        content = python_3_batch(rows, [6, 9, 9], int(kind))
    images, labels = read_cifar_python(written(tmp_path / "data_batch_1", content))
    np.testing.assert_array_equal(images, rows.reshape(3, 3, 32, 32))
    np.testing.assert_array_equal(labels, [6, 9, 9])
    assert labels.dtype == np.int64


class Calls:
    """Pickles to a call of any function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("where", [b"data", b"labels", b"filenames"])
def test_a_python_batch_runs_nothing(protocol: int, where: bytes, tmp_path: Path) -> None:
    victim = tmp_path / "made"
    for bomb in (
        Calls(os.mkdir, str(victim)),
        Calls(eval, f"open({str(victim)!r}, 'w')"),
        Calls(np.ndarray, (10**9,)),
        Calls(np.asarray, [1]),
    ):
        batch = {b"data": np.zeros((1, PIXELS), np.uint8), b"labels": [1], b"filenames": []} | {where: bomb}
        path = written(tmp_path / "data_batch_1", pickle.dumps(batch, protocol))
        if bomb.call[0] is np.ndarray and where == b"filenames":
            continue  # it is allowed by name, and stands for nothing
        with pytest.raises(DamagedData, match="data_batch_1"):
            read_cifar_python(path)
        assert not victim.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        python_2_batch(bytes(2 * PIXELS), b"\1\1")[:-5],
        python_2_batch(bytes(2 * PIXELS), b"\1"),
        python_2_batch(bytes(2 * PIXELS), b"\1\x0a"),
        python_2_batch(bytes(PIXELS), b"\1").replace(b"M\x00\x0c", b"M\x01\x0c"),
        python_2_batch(bytes(PIXELS), b"\1").replace(b"U\x02u1", b"U\x02i8"),
        python_2_batch(bytes(PIXELS), b"\1").replace(b"labels", b"lables"),
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": np.zeros((1, PIXELS)), b"labels": [1]}, 3),
        pickle.dumps({b"data": np.zeros((1, PIXELS), np.uint8), b"labels": [1.5]}, 3),
        pickle.dumps({b"data": np.array([object()]), b"labels": [1]}, 3),
    ],
)
def test_a_damaged_python_batch_is_named(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(DamagedData, match="data_batch_1"):
        read_cifar_python(written(tmp_path / "data_batch_1", content))


def test_a_pickle_that_is_too_large_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "LARGEST_PICKLE", 1000)
    path = written(tmp_path / "data_batch_1", python_2_batch(bytes(PIXELS), b"\1"))
    with pytest.raises(DamagedData, match="too large"):
        read_cifar_python(path)


# ---- From the data folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(catalogue.VARIABLE, str(tmp_path / "data"))
    return tmp_path / "data"


READERS = {"mnist": datasets.mnist, "cifar10": datasets.cifar10, "tinyshakespeare": datasets.tiny_shakespeare}


@pytest.mark.parametrize("name", READERS)
def test_what_is_missing_says_what_to_type(name: str, folder: Path) -> None:
    assert not datasets.available(name)
    with pytest.raises(DataMissing, match=f"`dojo data {name}`") as error:
        READERS[name]()
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("names", [".gz", "", "dot"])
def test_mnist_is_read_from_any_of_its_names(names: str, folder: Path, rng: np.random.Generator) -> None:
    for which, n in (("train", 6), ("t10k", 4)):
        for kind, shape in (("images-idx3", (n, 28, 28)), ("labels-idx1", (n,))):
            name = f"{which}-{kind}-ubyte"
            name = name.replace("-idx", ".idx") if names == "dot" else name + names
            content = idx(rng.integers(0, 10, shape, np.uint8))
            assert not datasets.available("mnist")
            written(folder / "mnist" / name, gzip.compress(content) if names == ".gz" else content)
    assert datasets.available("mnist")
    assert [part.shape for part in (*datasets.mnist(), *datasets.mnist(train=False))] == [
        (6, 28, 28),
        (6,),
        (4, 28, 28),
        (4,),
    ]
    assert datasets.mnist()[1].dtype == np.int64


def test_mnist_with_other_labels_is_damaged(folder: Path) -> None:
    for which in ("train", "t10k"):
        written(folder / f"mnist/{which}-images-idx3-ubyte", idx(np.zeros((3, 28, 28), np.uint8)))
        written(folder / f"mnist/{which}-labels-idx1-ubyte", idx(np.zeros(2, np.uint8)))
    with pytest.raises(DamagedData, match="labels"):
        datasets.mnist()


@pytest.mark.parametrize("version", ["bin", "py"])
def test_cifar10_is_read_from_either_version(version: str, folder: Path, rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (6, PIXELS), np.uint8)
    for k, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        if version == "bin":
            written(folder / f"cifar-10-batches-bin/{name}.bin", bytes([k]) + images[k].tobytes())
        else:
            content = python_2_batch(images[k].tobytes(), bytes([k]))
            written(folder / f"cifar-10-batches-py/{name}", content)
    assert datasets.available("cifar10")
    got, labels = datasets.cifar10()
    np.testing.assert_array_equal(got, images[:5].reshape(5, 3, 32, 32))
    np.testing.assert_array_equal(labels, range(5))
    got, labels = datasets.cifar10(train=False)
    np.testing.assert_array_equal(got, images[5:].reshape(1, 3, 32, 32))
    np.testing.assert_array_equal(labels, [5])


def test_shakespeare_that_is_no_text_is_damaged(folder: Path) -> None:
    written(folder / "tinyshakespeare.txt", b"\xff\xfe")
    with pytest.raises(DamagedData, match=r"tinyshakespeare\.txt"):
        datasets.tiny_shakespeare()


def test_the_data_folder_is_in_the_home_folder_or_where_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(catalogue.VARIABLE, raising=False)
    assert catalogue.data_folder() == Path.home() / ".cache" / "tinytorch"
    monkeypatch.setenv(catalogue.VARIABLE, "~/sets")
    assert catalogue.data_folder() == Path.home() / "sets"


# ---- The real sets, where they are


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        not datasets.available(name),
        reason=f"{name} is not in {catalogue.data_folder()}: `dojo data {name}` brings it",
    )


@needs("mnist")
def test_mnist_is_whole() -> None:
    catalogue.SETS["mnist"].check(catalogue.data_folder())
    images, labels = datasets.mnist()
    assert images.shape == (60_000, 28, 28)
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert round(images.mean() / 255, 4) == 0.1307  # as everybody normalises it
    images, labels = datasets.mnist(train=False)
    assert images.shape == (10_000, 28, 28)
    assert labels[:4].tolist() == [7, 2, 1, 0]


@needs("cifar10")
def test_cifar10_is_whole() -> None:
    catalogue.SETS["cifar10"].check(catalogue.data_folder())
    images, labels = datasets.cifar10()
    assert images.shape == (50_000, 3, 32, 32)
    assert labels[:5].tolist() == [6, 9, 9, 4, 1]  # a frog, two trucks, a deer, an automobile
    assert np.bincount(labels).tolist() == [5000] * 10
    np.testing.assert_allclose(images.mean(axis=(0, 2, 3)) / 255, [0.4914, 0.4822, 0.4465], atol=1e-3)
    images, labels = datasets.cifar10(train=False)
    assert images.shape == (10_000, 3, 32, 32)
    assert np.bincount(labels).tolist() == [1000] * 10


@needs("tinyshakespeare")
def test_tiny_shakespeare_is_whole() -> None:
    catalogue.SETS["tinyshakespeare"].check(catalogue.data_folder())
    text = datasets.tiny_shakespeare()
    assert len(text) == 1_115_394
    assert len(set(text)) == 65
    assert text.startswith("First Citizen:\nBefore we proceed any further, hear me speak.")
