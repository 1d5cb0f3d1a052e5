"""Level 1: archives are read as they were written, and what is wrong with one is said with its name."""

import contextlib
import gzip
import math
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.dataloader import CIFAR10, MNIST, map_cifar, read_idx, unpickle_cifar

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx(array):
    """The bytes of an IDX file."""
    code = CODES[array.dtype.str[1:]]
    head = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


# 09.5 read_idx


def test_an_idx_file_byte_by_byte(tmp_path):
    content = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255])
    array = read_idx(write(tmp_path / "a", content))
    expect(array, np.array([[1, 2, 3], [4, 5, 255]], np.uint8))
    expect(read_idx(str(write(tmp_path / "b", bytes([0, 0, 11, 1, 0, 0, 0, 1, 1, 2])))).tolist(), [258])


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (300, 1)])
def test_every_type_and_shape(ending, dtype, shape, tmp_path):
    array = (np.arange(math.prod(shape)) % 120 - (dtype != "u1") * 60).reshape(shape).astype(dtype)
    got = read_idx(write(tmp_path / f"a{ending}", idx(array)))
    expect(got.shape, shape)
    expect(np.asarray(got).astype(dtype), array)
    expect(got.dtype.kind, array.dtype.kind)


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("shape", [(0,), (0, 28, 28), (3, 0)])
def test_an_array_may_be_empty(ending, shape, tmp_path):
    expect(read_idx(write(tmp_path / f"a{ending}", idx(np.zeros(shape, np.uint8)))).shape, shape)


@pytest.mark.parametrize("read", [read_idx, lambda path: map_cifar(path)[0]], ids=["idx", "cifar"])
def test_nothing_is_ever_written_to_an_archive(read, tmp_path):
    content = bytes([0, 0, 8, 1, 0, 0, 11, 249]) + bytes(range(1, 250)) * 13
    content = content[: 8 + 3073 - 8]  # a record of CIFAR-10, and 3,065 numbers of IDX
    path = write(tmp_path / "a", content)
    array = read(path)
    with contextlib.suppress(ValueError):  # it may not be written to
        array[...] = 0
    del array
    expect(path.read_bytes() == content, True)


GOOD = idx(np.arange(12, dtype=np.uint8).reshape(3, 4))
BAD = {
    "empty": b"",
    "cut within the first bytes": GOOD[:3],
    "cut within the header": GOOD[:9],
    "cut before the numbers": GOOD[:12],
    "one byte short": GOOD[:-1],
    "one byte long": GOOD + b"\0",
    "another first byte": b"\1" + GOOD[1:],
    "another second byte": GOOD[:1] + b"\1" + GOOD[2:],
    "a type that is none": GOOD[:2] + b"\x0a" + GOOD[3:],
    "far too many numbers": GOOD[:4] + b"\xff" * 8 + GOOD[12:],
    "a page of the web": b"<!DOCTYPE html><html>404</html>",
}


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("damage", BAD)
def test_a_damaged_idx_file_is_named(damage, ending, tmp_path):
    path = write(tmp_path / f"digits{ending}", BAD[damage])
    with expect_error(ValueError, path.name):
        read_idx(path)


PACKED = gzip.compress(idx(np.random.default_rng(0).integers(0, 256, 5000).astype(np.uint8)))
BAD_GZ = {
    "cut": PACKED[: len(PACKED) // 2],
    "cut in its last bytes": PACKED[:-4],
    "a wrong checksum": PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:],
    "not packed": GOOD,
    "overwritten inside": PACKED[:12] + b"\xff" * 40 + PACKED[52:],
    "without a byte": b"",
}


def test_a_long_gz_that_goes_on_is_named(tmp_path):
    with expect_error(ValueError, "digits.gz"):
        read_idx(write(tmp_path / "digits.gz", idx(np.zeros(2 << 20, np.uint8)) + b"\0"))


@pytest.mark.parametrize("damage", BAD_GZ)
def test_a_damaged_gz_is_named(damage, tmp_path):
    path = tmp_path / "digits.gz"
    path.write_bytes(BAD_GZ[damage])
    with expect_error(ValueError, "digits.gz"):
        read_idx(path)


def test_a_file_that_is_not_there_is_not_found(tmp_path):
    for name in ("nothing", "nothing.gz"):
        with expect_error(FileNotFoundError, name):
            read_idx(tmp_path / name)


# 09.6 MNIST


def digits(count, start=0):
    images = (np.arange(count * 784) + start).astype(np.uint8).reshape(count, 28, 28)
    return images, np.arange(count, dtype=np.uint8) % 10


def write_mnist(folder, ending="", kind="train", images=None, labels=None, count=12):
    good = digits(count, start=len(kind))
    images, labels = good[0] if images is None else images, good[1] if labels is None else labels
    write(folder / f"{kind}-images-idx3-ubyte{ending}", idx(images))
    write(folder / f"{kind}-labels-idx1-ubyte{ending}", idx(labels))
    return images, labels


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_mnist_has_images_with_a_channel_and_labels(ending, tmp_path):
    images, labels = write_mnist(tmp_path, ending)
    write_mnist(tmp_path, ending, "t10k", count=3)
    data = MNIST(tmp_path)
    expect(len(data), 12)
    image, label = data[11]
    expect(np.asarray(image), images[11][None])
    expect(int(label), 1)
    batch = data.__getitems__([3, 0])
    expect(batch, (images[[3, 0], None], labels[[3, 0]].astype(np.int64)))
    expect(len(MNIST(str(tmp_path), train=False)), 3)
    expect(np.asarray(MNIST(tmp_path, False)[0][0]), digits(3, start=4)[0][0][None])


def test_a_plain_file_goes_before_a_packed_one(tmp_path):
    write_mnist(tmp_path, ".gz", count=2)
    write_mnist(tmp_path, count=5)
    expect(len(MNIST(tmp_path)), 5)


@pytest.mark.parametrize("packed", ["images-idx3", "labels-idx1"])
def test_one_file_may_be_packed_and_the_other_plain(packed, tmp_path):
    images, labels = write_mnist(tmp_path)
    path = tmp_path / f"train-{packed}-ubyte"
    write(tmp_path / f"{path.name}.gz", path.read_bytes())
    path.unlink()
    expect(MNIST(tmp_path).__getitems__([3, 0]), (images[[3, 0], None], labels[[3, 0]].astype(np.int64)))


@pytest.mark.parametrize("part", ["images-idx3", "labels-idx1"])
def test_a_missing_part_of_mnist_is_named(part, tmp_path):
    write_mnist(tmp_path)
    (tmp_path / f"train-{part}-ubyte").unlink()
    with expect_error(FileNotFoundError, f"train-{part}-ubyte"):
        MNIST(tmp_path)
    with expect_error(FileNotFoundError, "t10k"):
        MNIST(tmp_path, train=False)


IMAGES, LABELS = digits(12)
WRONG_MNIST = {
    "images of another size": ("images", IMAGES[:, 1:], LABELS),
    "images of another width": ("images", IMAGES[:, :, 1:], LABELS),
    "images of floats": ("images", IMAGES.astype(np.float32), LABELS),
    "no images": ("images", IMAGES[:0], LABELS[:0]),
    "labels for images": ("images", LABELS, LABELS),
    "a label too few": ("labels", IMAGES, LABELS[1:]),
    "a label above 9": ("labels", IMAGES, LABELS + 1),
    "labels of integers": ("labels", IMAGES, LABELS.astype(np.int32)),
    "images for labels": ("labels", IMAGES, IMAGES),
}


@pytest.mark.parametrize("case", WRONG_MNIST)
def test_a_file_of_mnist_that_holds_something_else_is_named(case, tmp_path):
    part, images, labels = WRONG_MNIST[case]
    write_mnist(tmp_path, images=images, labels=labels)
    with expect_error(ValueError, f"train-{part}"):
        MNIST(tmp_path)


# 09.7 map_cifar, 09.8 unpickle_cifar, 09.9 CIFAR10


def photographs(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3, 32, 32), np.uint8), rng.integers(0, 10, count, np.uint8)


def binary(images, labels):
    return b"".join(bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True))


def pickled(images, labels, protocol=2):
    """As the archive of 2009 has it: keys are bytes, labels a list."""
    batch = {
        b"batch_label": b"a batch",
        b"labels": labels.tolist(),
        b"data": images.reshape(len(images), 3072),
    }
    return pickle.dumps(batch, protocol)


# What Python 2 wrote for {"labels": [6], "data": <a uint8 array (1, 4)>}, with its 8-bit strings.
PYTHON_2 = (
    b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03K\x06aU\x04dataq\x04cnumpy.core.multiarray\n_reconstruct\nq\x05"
    b"cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nq\x08"
    b"U\x02u1K\x00K\x01\x87Rq\x09(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    b"T\x00\x0c\x00\x00" + bytes(i % 256 for i in range(3072)) + b"tbu."
)


def test_a_record_is_a_label_and_three_colours(tmp_path):
    record = bytes([7]) + bytes([1]) * 1024 + bytes([2]) * 1024 + bytes(range(32)) * 32
    images, labels = map_cifar(write(tmp_path / "a.bin", record * 2))
    expect(np.asarray(labels), np.array([7, 7], np.uint8))
    expect(images.shape, (2, 3, 32, 32))
    expect(images[1, :, 5, 9].tolist(), [1, 2, 9])


@pytest.mark.parametrize("size", [0, 1, 3072, 3074, 2 * 3073 - 1])
def test_a_binary_file_is_made_of_whole_records(size, tmp_path):
    with expect_error(ValueError, "cut.bin"):
        map_cifar(write(tmp_path / "cut.bin", bytes(size)))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickled_batches_are_read(protocol, tmp_path):
    images, labels = photographs(3)
    got = unpickle_cifar(write(tmp_path / "data_batch_1", pickled(images, labels, protocol)))
    expect(got, (images, labels))


def test_pickles_of_python_2_are_read(tmp_path):
    images, labels = unpickle_cifar(write(tmp_path / "data_batch_1", PYTHON_2))
    expect(labels, np.array([6], np.uint8))
    expect(images[0, :, 0, 5].tolist(), [5, 5, 5])  # 1024 is a multiple of 256
    expect(images[0, 0, 1, 3], 35)


def test_keys_may_be_text(tmp_path):
    images, labels = photographs(2)[0], np.array([0, 9], np.uint8)
    batch = {"labels": labels.tolist(), "data": images.reshape(2, 3072)}
    expect(unpickle_cifar(write(tmp_path / "a", pickle.dumps(batch))), (images, labels))


class Trap:
    """Unpickled, it calls whatever it likes."""

    def __init__(self, function, *args):
        self.called = function, args

    def __reduce__(self):
        return self.called


def test_a_pickle_runs_nothing(tmp_path):
    mark = tmp_path / "was here"
    for trap in (
        Trap(open, str(mark), "w"),
        Trap(eval, f"open({str(mark)!r}, 'w')"),
        Trap(mark.touch),
        Trap(np.memmap, str(mark), "u1", "w+", 0, 1),
    ):
        with expect_error(ValueError, "trap"):
            unpickle_cifar(write(tmp_path / "trap", pickle.dumps({b"data": trap, b"labels": [1]})))
        expect(mark.exists(), False)


@pytest.mark.parametrize(
    "named",
    ["numpy.load", "numpy.memmap", "builtins.getattr", "os.system", "_codecs.lookup", "base64.encode"],
)
def test_a_pickle_may_name_nothing_but_arrays(named, tmp_path):
    module, name = named.split(".")
    asks = b"U\x04morec" + module.encode() + b"\n" + name.encode() + b"\ns."  # one more key, and its value
    with expect_error(ValueError, "asks"):
        unpickle_cifar(write(tmp_path / "asks", pickled(*photographs(2))[:-1] + asks))


GOOD_IMAGES, GOOD_LABELS = photographs(3)
TABLE = GOOD_IMAGES.reshape(3, 3072)
BAD_PICKLES = {
    "empty": b"",
    "cut": pickled(GOOD_IMAGES, GOOD_LABELS)[:-100],
    "cut early": pickled(GOOD_IMAGES, GOOD_LABELS)[:20],
    "not a pickle": b"<!DOCTYPE html>",
    "a list": pickle.dumps([1, 2]),
    "no data": pickle.dumps({b"labels": [1, 2, 3]}),
    "no labels": pickle.dumps({b"data": TABLE}),
    "too few labels": pickle.dumps({b"data": TABLE, b"labels": [1, 2]}),
    "no samples": pickle.dumps({b"data": TABLE[:0], b"labels": []}),
    "a narrow table": pickle.dumps({b"data": TABLE[:, 1:], b"labels": [1, 2, 3]}),
    "floats": pickle.dumps({b"data": TABLE.astype(np.float32), b"labels": [1, 2, 3]}),
    "a label above 9": pickle.dumps({b"data": TABLE, b"labels": [1, 10, 3]}),
    "a label below 0": pickle.dumps({b"data": TABLE, b"labels": [1, -1, 3]}),
    "labels that are words": pickle.dumps({b"data": TABLE, b"labels": ["a", "b", "c"]}),
    "labels that are fractions": pickle.dumps({b"data": TABLE, b"labels": [0.5, 1.0, 2.0]}),
    "data that is a list": pickle.dumps({b"data": [[1], [2], [3]], b"labels": [1, 2, 3]}),
}


@pytest.mark.parametrize("damage", BAD_PICKLES)
def test_a_damaged_pickle_is_named(damage, tmp_path):
    path = write(tmp_path / "data_batch_4", BAD_PICKLES[damage])
    with expect_error(ValueError, "data_batch_4"):
        unpickle_cifar(path)


def test_pickles_that_are_not_there_are_not_found(tmp_path):
    with expect_error(FileNotFoundError, "nothing"):
        unpickle_cifar(tmp_path / "nothing")
    with expect_error(FileNotFoundError, "nothing"):
        map_cifar(tmp_path / "nothing")


def write_cifar(folder, kind, counts=(3, 1, 2, 4, 2), test=2):
    encode, ending = (binary, ".bin") if kind == "bin" else (pickled, "")
    made = [photographs(count, seed) for seed, count in enumerate((*counts, test))]
    names = [*(f"data_batch_{i + 1}" for i in range(5)), "test_batch"]
    for name, batch in zip(names, made, strict=True):
        write(folder / f"{name}{ending}", encode(*batch))
    train = (
        np.concatenate([m[0] for m in made[:5]]),
        np.concatenate([m[1] for m in made[:5]]).astype(np.int64),
    )
    return train, made[5]


@pytest.mark.parametrize("kind", ["bin", "py"])
@pytest.mark.parametrize("below", [True, False])
def test_cifar10_is_five_files_in_a_row(kind, below, tmp_path):
    (images, labels), test = write_cifar(tmp_path / f"cifar-10-batches-{kind}" if below else tmp_path, kind)
    data = CIFAR10(tmp_path)
    expect(len(data), 12)
    for i in (*range(12), -1, -12):
        expect(data[i], (images[i], labels[i]))
    mixed = [11, 0, 3, 3, -9, 7, 2]
    expect(data.__getitems__(mixed), (images[mixed], labels[mixed]))
    where = np.array(mixed)
    expect(data.__getitems__(where), (images[mixed], labels[mixed]))
    expect(where, np.array(mixed))
    expect(data.__getitems__([]), (images[:0], labels[:0]))
    expect(CIFAR10(str(tmp_path), train=False).__getitems__([0, 1]), (test[0], test[1].astype(np.int64)))


@pytest.mark.parametrize("kind", ["bin", "py"])
def test_a_set_needs_no_files_of_the_other(kind, tmp_path):
    folder = tmp_path / f"cifar-10-batches-{kind}"
    _, (images, labels) = write_cifar(folder, kind)
    for i in range(1, 6):
        (folder / f"data_batch_{i}{'.bin' * (kind == 'bin')}").unlink()
    expect(CIFAR10(tmp_path, train=False).__getitems__([1]), (images[1:], labels[1:].astype(np.int64)))


@pytest.mark.parametrize("pickles", ["cifar-10-batches-py", "."])
def test_binary_files_go_first(pickles, tmp_path):
    write_cifar(tmp_path / pickles, "py", counts=(1,) * 5)
    write_cifar(tmp_path / "cifar-10-batches-bin", "bin", counts=(2,) * 5)
    expect(len(CIFAR10(tmp_path)), 10)


@pytest.mark.parametrize("index", [12, -13, 100])
def test_there_is_no_photograph_after_the_last(index, tmp_path):
    write_cifar(tmp_path, "bin")
    data = CIFAR10(tmp_path)
    with expect_error(IndexError):
        data[index]
    with expect_error(IndexError):
        data.__getitems__([0, index])


@pytest.mark.parametrize("kind", ["bin", "py"])
def test_a_missing_batch_is_named(kind, tmp_path):
    write_cifar(tmp_path, kind)
    missing = tmp_path / f"data_batch_3{'.bin' * (kind == 'bin')}"
    missing.unlink()
    with expect_error(FileNotFoundError, missing.name):
        CIFAR10(tmp_path)
    with expect_error(FileNotFoundError, "data_batch_1"):
        CIFAR10(tmp_path / "elsewhere")


@pytest.mark.parametrize("kind", ["bin", "py"])
def test_a_damaged_batch_is_named(kind, tmp_path):
    write_cifar(tmp_path, kind)
    damaged = tmp_path / f"data_batch_2{'.bin' * (kind == 'bin')}"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    with expect_error(ValueError, damaged.name):
        CIFAR10(tmp_path)


def test_a_label_above_9_is_found_when_it_is_fetched(tmp_path):
    write_cifar(tmp_path, "bin")
    write(tmp_path / "data_batch_2.bin", bytes([10]) * 3073 + bytes([3]) * 3073)
    data = CIFAR10(tmp_path)
    expect(int(data[0][1]), int(photographs(3, 0)[1][0]))
    for where in ([3], [3, 4], [4, 0, 3]):
        with expect_error(ValueError, "data_batch_2.bin"):
            data.__getitems__(where)
    with expect_error(ValueError, "data_batch_2.bin"):
        data[3]
    expect(data.__getitems__([4, 4])[1], np.array([3, 3]))  # the next one, in the same file


DATA = Path(os.environ.get("TINYTORCH_DATA") or Path.home() / ".cache" / "tinytorch")


@pytest.mark.real_data("mnist")
def test_the_real_digits():
    train, test = MNIST(DATA / "mnist"), MNIST(DATA / "mnist", train=False)
    expect((len(train), len(test)), (60_000, 10_000))
    expect([int(train[i][1]) for i in range(5)], [5, 0, 4, 1, 9])


@pytest.mark.real_data("cifar10")
def test_the_real_photographs():
    train, test = CIFAR10(DATA), CIFAR10(DATA, train=False)
    expect((len(train), len(test)), (50_000, 10_000))
    labels = train.__getitems__(range(50_000))[1]
    expect(np.bincount(labels).tolist(), [5000] * 10)
