"""Kata 09 · Datasets and loaders: from files on a disk to batches, in an order that can be repeated.

A *dataset* has a length and gives the sample at an index. A *sampler* says in which order, a `DataLoader`
makes batches of it. A dataset that can fetch a whole batch at once says so by a method `__getitems__`,
which returns what `default_collate` would make of the single samples. Batches are numpy arrays, which every
operation takes.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import math
import pickle
import queue
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tinytorch.tensor import Array, Tensor

__all__ = [
    "CIFAR10", "MNIST", "BatchSampler", "Compose", "Cutout", "DataLoader", "Dataset", "Normalize",
    "RandomCrop", "RandomHorizontalFlip", "RandomSampler", "SequentialSampler", "Subset", "TensorDataset",
    "default_collate", "fetch", "generators", "map_cifar", "prefetch", "random_split", "read_idx",
    "unpickle_cifar",
]  # fmt: skip

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CIFAR_RECORD = 1 + 3 * 32 * 32  # bytes: a label, then red, green and blue, row by row


# Samples and batches.


def default_collate(samples: Sequence[Any]) -> Any:
    """One batch of a list of samples, with a new first axis: arrays and numbers are stacked.

    Tuples and dicts are batched part by part; Tensors give a Tensor, strings stay a list. A ValueError names
    shapes that differ; it is one, too, for no samples, and for tuples of different lengths.
    """
    # kata 09.1: look at the first sample; tuples and dicts ask default_collate for each of their parts.
    if not len(samples):
        raise ValueError("a batch of no samples has no shape")
    first = samples[0]
    if isinstance(first, dict):
        return {key: default_collate([sample[key] for sample in samples]) for key in first}
    if isinstance(first, (tuple, list)):
        return tuple(default_collate(part) for part in zip(*samples, strict=True))
    if isinstance(first, str):
        return list(samples)
    if isinstance(first, Tensor):
        return Tensor(default_collate([sample.data for sample in samples]))
    shapes = {np.shape(sample) for sample in samples}
    if len(shapes) > 1:
        raise ValueError(f"samples of shapes {sorted(shapes)} do not make a batch")
    return np.stack(samples)


class Dataset:
    """Samples by index. Given: a subclass has `__len__` and `__getitem__`, and may fetch batches faster."""

    def __len__(self) -> int:
        raise TypeError(f"{type(self).__name__} has no __len__")

    def __getitem__(self, index: int) -> Any:
        raise TypeError(f"{type(self).__name__} has no __getitem__")

    def __getitems__(self, indices: Sequence[int] | Array) -> Any:
        return default_collate([self[int(i)] for i in indices])


def fetch(
    dataset: Any, indices: Sequence[int] | Array, collate_fn: Callable[..., Any] = default_collate
) -> Any:
    """A batch of the samples at `indices`, from anything that has `__getitem__`.

    Given. A collate function other than the default asks for single samples.
    """
    if collate_fn is default_collate and hasattr(dataset, "__getitems__"):
        return dataset.__getitems__(indices)
    return collate_fn([dataset[int(i)] for i in indices])


class TensorDataset(Dataset):
    """Arrays (or Tensors) of one length; a sample is a tuple of their rows. Nothing is copied.

    Raises:
        ValueError: no array, one without axes, or lengths that differ: the message names the shapes.
    """

    def __init__(self, *arrays: Any) -> None:
        # kata 09.2: keep the arrays; np.asarray copies none, also not one that is mapped from a file.
        self.arrays = tuple(np.asarray(a.data if isinstance(a, Tensor) else a) for a in arrays)
        if not arrays or any(not a.ndim or len(a) != len(self.arrays[0]) for a in self.arrays):
            raise ValueError(
                f"arrays of one length are needed, not of shapes {[a.shape for a in self.arrays]}"
            )

    def __len__(self) -> int:
        # kata 09.2: of any of the arrays.
        return len(self.arrays[0])

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """The sample at an index, which may be negative; IndexError where there is none."""
        # kata 09.2: a row of each.
        return tuple(a[index] for a in self.arrays)

    def __getitems__(self, indices: Sequence[int] | Array) -> tuple[Array, ...]:
        """The batch at `indices`, in their order: one array, a copy, for each of the dataset's."""
        # kata 09.2: numpy takes a whole array of indices; without indices it must be told that they are
        # integers.
        where = np.asarray(indices, np.intp)
        return tuple(a[where] for a in self.arrays)


class Subset(Dataset):
    """Some samples of a dataset, by their indices there. Nothing is copied."""

    def __init__(self, dataset: Any, indices: Sequence[int] | Array) -> None:
        self.dataset, self.indices = dataset, np.asarray(indices, np.intp)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        # kata 09.3: index `index` here is another index there.
        return self.dataset[int(self.indices[index])]

    def __getitems__(self, indices: Sequence[int] | Array) -> Any:
        # kata 09.3: translate all at once and `fetch`, so that a subset is as fast as the whole.
        return fetch(self.dataset, self.indices[np.asarray(indices, np.intp)])


def random_split(dataset: Any, lengths: Sequence[float], *, rng: np.random.Generator) -> list[Subset]:
    """Subsets of the given lengths that share no sample and have them all, drawn at random.

    Lengths are numbers of samples, or fractions that add up to 1: each is rounded down, and what is left
    goes one by one to the first. ValueError for lengths that are negative or do not add up, which it names.
    """
    # kata 09.4: one permutation of all indices, cut where the lengths say.
    count = len(dataset)
    counts: list[Any] = list(lengths)
    if counts and math.isclose(sum(counts), 1) and any(isinstance(n, (float, np.floating)) for n in counts):
        counts = [math.floor(count * n) for n in counts]
        for i in range(count - sum(counts)):
            counts[i % len(counts)] += 1
    if sum(counts) != count or any(n < 0 or n != int(n) for n in counts):
        raise ValueError(f"lengths {list(lengths)} do not split {count} samples")
    order = rng.permutation(count)
    ends = np.cumsum([0, *counts], dtype=np.intp)
    return [Subset(dataset, order[a:b]) for a, b in itertools.pairwise(ends)]


# Archives.


def read_idx(path: str | Path) -> Array:
    """The array in an IDX file, the format of MNIST; one that ends in .gz is unpacked into memory.

    Two zero bytes, one for the type, one for the number of axes; a big-endian uint32 for each axis; the
    numbers, big end first. A plain file is mapped: numbers are read from the disk when somebody looks at
    them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not IDX, is cut short, goes on after its end, or is a damaged .gz; it is
        named.
    """
    # kata 09.5: read the header, work out how many bytes must follow, and map or read just these.
    path = Path(path)
    packed, data = path.suffix == ".gz", bytearray()
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            shape, dtype = _idx_header(file, path)
            start, size = file.tell(), math.prod(shape) * dtype.itemsize
            if packed:
                # Bit by bit, since a damaged header may promise any number; one more: does it go on?
                while len(data) <= size and (more := file.read(min(1 << 20, size + 1 - len(data)))):
                    data += more
                there = len(data)
            else:
                there = path.stat().st_size - start
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if there != size:
        raise ValueError(
            f"{path} should have {size} bytes of numbers for {shape}, and has {there}{'+' * packed}"
        )
    if packed:
        return np.frombuffer(data, dtype).reshape(shape)
    return np.memmap(path, dtype, "r", start, shape)


def _idx_header(file: BinaryIO | gzip.GzipFile, path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype; the file stands at the first number then."""
    # kata 09.5: np.frombuffer reads big-endian uint32 as ">u4".
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in IDX_TYPES:
        raise ValueError(f"{path} is not an IDX file: it begins with {magic!r}")
    axes = file.read(4 * magic[3])
    if len(axes) < 4 * magic[3]:
        raise ValueError(f"{path} ends within its header")
    return tuple(np.frombuffer(axes, ">u4").tolist()), np.dtype(IDX_TYPES[magic[2]])


class MNIST(TensorDataset):
    """Handwritten digits: images (n, 1, 28, 28) uint8 and labels (n,) int64, from four IDX files, plain or
    .gz.

    Raises:
        FileNotFoundError: a file that is not in `folder`, which it names.
        ValueError: a file that is damaged, empty, or holds something else, which it names.
    """

    def __init__(self, folder: str | Path, train: bool = True) -> None:
        # kata 09.6: two calls of read_idx, and a check that they belong together.
        kind = "train" if train else "t10k"
        where = [
            _plain_or_packed(Path(folder) / f"{kind}-{part}-ubyte") for part in ("images-idx3", "labels-idx1")
        ]
        images, labels = map(read_idx, where)
        if images.dtype != np.uint8 or images.shape[1:] != (28, 28) or not len(images):
            raise ValueError(f"{where[0]} holds {images.dtype} {images.shape}, not images of 28 x 28 bytes")
        if labels.dtype != np.uint8 or labels.shape != images.shape[:1] or labels.max() > 9:
            raise ValueError(f"{where[1]} does not hold a digit for each of {len(images)} images")
        super().__init__(images[:, None], labels.astype(np.int64))


def _plain_or_packed(path: Path) -> Path:
    """The path itself, or the one with .gz; the plain one can be mapped."""
    # kata 09.6: FileNotFoundError where neither is there.
    for candidate in (path, Path(f"{path}.gz")):
        if candidate.exists():
            return candidate
    raise FileNotFoundError(f"there is neither {path} nor {path.name}.gz")


def map_cifar(path: str | Path) -> tuple[Array, Array]:
    """Images (n, 3, 32, 32) and labels (n,), both uint8 views of a binary CIFAR-10 file, which is mapped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty or not made of whole records; it is named.
    """
    # kata 09.7: records of CIFAR_RECORD bytes make a table; columns of it are views.
    size = Path(path).stat().st_size
    if not size or size % CIFAR_RECORD:
        raise ValueError(f"{path} has {size} bytes, which are not records of {CIFAR_RECORD}")
    table = np.asarray(np.memmap(path, np.uint8, "r", shape=(size // CIFAR_RECORD, CIFAR_RECORD)))
    return table[:, 1:].reshape(-1, 3, 32, 32), table[:, 0]


class _ArraysOnly(pickle.Unpickler):
    """A pickle may name any function of any module and have it called: here only what makes arrays."""

    def find_class(self, module: str, name: str) -> Any:
        # kata 09.8: look the name up in a table of your own, never in the module.
        allowed = {
            "numpy.ndarray": np.ndarray,
            "numpy.dtype": np.dtype,
            "numpy.core.multiarray._reconstruct": np.empty(0).__reduce__()[0],
            "_codecs.encode": _latin1,
        }
        asked = f"{module.replace('numpy._core', 'numpy.core')}.{name}"
        if asked not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return allowed[asked]


def _latin1(text: str, encoding: str) -> bytes:
    """The one thing that pickled bytes call: Python 3 writes them so for Python 2. Given."""
    return text.encode("latin1")


def unpickle_cifar(path: str | Path) -> tuple[Array, Array]:
    """Images (n, 3, 32, 32) and labels (n,), both uint8, from a CIFAR-10 file pickled for Python. Runs
    nothing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, asks for anything but arrays, or holds something else; it is named.
    """
    # kata 09.8: read with _ArraysOnly(file, encoding="bytes"); whatever goes wrong is one ValueError.
    try:
        with Path(path).open("rb") as file:
            batch = _ArraysOnly(file, encoding="bytes").load()
        batch = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
        images, labels = batch["data"], np.asarray(batch["labels"])
        if images.dtype != np.uint8 or labels.shape != images.shape[:1] or not len(labels):
            raise ValueError(f"it holds {images.dtype} {images.shape} and labels {labels.shape}")
        if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > 9:
            raise ValueError("its labels are not numbers from 0 to 9")
        return images.reshape(-1, 3, 32, 32), labels.astype(np.uint8)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(f"{path} is not a batch of CIFAR-10: {error}") from error


class CIFAR10(Dataset):
    """Photographs: images (n, 3, 32, 32) uint8, labels int64. Binary files are mapped, pickled ones are read.

    They lie in `folder`, or there in cifar-10-batches-bin or cifar-10-batches-py, as the archives unpack.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: a file that is damaged, empty or holds something else; a label above 9 when it is fetched.
            Both name the file.
    """

    def __init__(self, folder: str | Path, train: bool = True) -> None:
        # kata 09.9: a part for each file, and the index at which each begins.
        names = [f"data_batch_{i}" for i in range(1, 6)] if train else ["test_batch"]
        folder = Path(folder)
        places = [(folder, ".bin"), (folder / "cifar-10-batches-bin", ".bin"),
                  (folder, ""), (folder / "cifar-10-batches-py", "")]  # fmt: skip
        found = [place for place in places if (place[0] / f"{names[0]}{place[1]}").exists()]
        where, ending = (found or places)[0]
        self.paths = [where / f"{name}{ending}" for name in names]
        if missing := [path for path in self.paths if not path.exists()]:
            raise FileNotFoundError(f"there is no {missing[0]}")
        self.parts = [(map_cifar if ending else unpickle_cifar)(path) for path in self.paths]
        self.starts = np.cumsum([0, *(len(labels) for _, labels in self.parts)])

    def __len__(self) -> int:
        # kata 09.9: where the part after the last would begin.
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> tuple[Array, Any]:
        # kata 09.9: a batch of one.
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices: Sequence[int] | Array) -> tuple[Array, Array]:
        """A batch at once: from each file the rows that lie there, into their places in the batch."""
        # kata 09.9: np.searchsorted says in which part an index lies; a loop over parts, not over samples.
        where = np.asarray(indices, np.intp)
        if where.size and not -len(self) <= where.min() <= where.max() < len(self):
            raise IndexError(f"indices from {where.min()} to {where.max()} of {len(self)} samples")
        where = where % len(self)
        images, labels = np.empty((len(where), 3, 32, 32), np.uint8), np.empty(len(where), np.int64)
        part_of = np.searchsorted(self.starts, where, side="right") - 1
        for part in np.unique(part_of):
            here = np.flatnonzero(part_of == part)
            rows = where[here] - self.starts[part]
            images[here], labels[here] = (a[rows] for a in self.parts[part])
            if labels[here].max() > 9:
                raise ValueError(f"{self.paths[part]} has labels above 9")
        return images, labels


# Orders.


class SequentialSampler:
    """0, 1, 2, …"""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        # kata 09.10: Python has this.
        return iter(range(len(self.dataset)))


class RandomSampler:
    """Every index once, in an order drawn anew from `rng` at each `iter`, at once and with one call."""

    def __init__(self, dataset: Any, *, rng: np.random.Generator) -> None:
        self.dataset, self.rng = dataset, rng

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        # kata 09.10: a permutation, drawn now and not at the first `next`.
        return iter(self.rng.permutation(len(self.dataset)).tolist())


class BatchSampler:
    """Lists of `batch_size` indices of a sampler; the last has what is left, or is dropped.

    Raises:
        ValueError: a batch_size that is not 1 or more, which it names.
    """

    def __init__(self, sampler: Any, batch_size: int, drop_last: bool = False) -> None:
        # kata 09.11: check and keep.
        if batch_size < 1 or batch_size != int(batch_size):
            raise ValueError(f"batch_size is {batch_size}; it must be 1 or more")
        self.sampler, self.batch_size, self.drop_last = sampler, int(batch_size), drop_last

    def __len__(self) -> int:
        # kata 09.11: rounded up, or down when the last is dropped.
        count = len(self.sampler)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        # kata 09.11: itertools.islice takes up to so many of an iterator, and leaves it at the next.
        order = iter(self.sampler)
        while batch := list(itertools.islice(order, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch


# Transforms of batches (N, C, H, W). None changes its input; what comes out is an array of its own.


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Iterable[Callable[[Array], Array]]) -> None:
        self.transforms = list(transforms)

    def __call__(self, images: Array) -> Array:
        # kata 09.12: what one gives, the next takes.
        for transform in self.transforms:
            images = transform(images)
        return images


class Normalize:
    """(images - mean) / std, with one number or one for each channel; integers become float32,
    floats keep their dtype.

    Raises:
        ValueError: a std of 0, and the message has the 0; or, when called, means or stds for another number
            of channels, and the message says how many they are, and the shape of the images.
    """

    def __init__(self, mean: Any, std: Any) -> None:
        # kata 09.12: shapes that broadcast against (N, C, H, W).
        self.mean, self.std = (np.asarray(a, np.float64).reshape(-1, 1, 1) for a in (mean, std))
        if not self.std.all():
            raise ValueError(f"std is {self.std.ravel().tolist()}, and 0 cannot divide")

    def __call__(self, images: Array) -> Array:
        # kata 09.12: say the dtype to the first operation, and do the second in place.
        if any(len(a) not in (1, images.shape[1]) for a in (self.mean, self.std)):
            raise ValueError(f"{len(self.mean)} means and {len(self.std)} stds for images {images.shape}")
        dtype = images.dtype if images.dtype.kind == "f" else np.dtype(np.float32)
        out: Array = np.subtract(images, self.mean.astype(dtype), dtype=dtype)
        out /= self.std.astype(dtype)
        return out


class RandomHorizontalFlip:
    """Left and right exchanged, for each image with probability p."""

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator) -> None:
        self.p, self.rng = p, rng

    def __call__(self, images: Array) -> Array:
        # kata 09.13: a mask over the batch; flip those all at once.
        chosen = self.rng.random(len(images)) < self.p
        out: Array = images.copy()
        out[chosen] = images[chosen, ..., ::-1]
        return out


class RandomCrop:
    """A window of `size` (a number, or height and width) from each image, after `padding` with zeros all
    around.

    Every place at which the window fits is as likely. ValueError, naming the shapes, where it fits nowhere.
    """

    def __init__(self, size: int | tuple[int, int], padding: int = 0, *, rng: np.random.Generator) -> None:
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.padding, self.rng = padding, rng

    def __call__(self, images: Array) -> Array:
        # kata 09.14: a view of all windows, of which each image picks one.
        n, _, height, width = images.shape
        p = self.padding
        free = height + 2 * p - self.size[0] + 1, width + 2 * p - self.size[1] + 1
        if min(free) < 1:
            raise ValueError(f"no window of {self.size} in images {images.shape} with padding {p}")
        padded = np.pad(images, ((0, 0), (0, 0), (p, p), (p, p))) if p else images
        windows = np.lib.stride_tricks.sliding_window_view(
            padded, self.size, axis=(2, 3)
        )  # (N, C, top, left, h, w)
        return windows[
            np.arange(n), :, self.rng.integers(free[0], size=n), self.rng.integers(free[1], size=n)
        ]


class Cutout:
    """A square of `size` set to 0 in each image, around a pixel drawn at random; what lies outside is cut
    off."""

    def __init__(self, size: int, *, rng: np.random.Generator) -> None:
        self.size, self.rng = size, rng

    def __call__(self, images: Array) -> Array:
        # kata 09.15: which rows and which columns lie inside, for all images; both together make the mask.
        n, _, height, width = images.shape
        inside = []
        for length in (height, width):
            first = self.rng.integers(length, size=(n, 1)) - self.size // 2
            places = np.arange(length)
            inside.append((places >= first) & (places < first + self.size))  # (N, length)
        out: Array = images.copy()
        np.copyto(out, 0, where=inside[0][:, None, :, None] & inside[1][:, None, None, :])
        return out


def generators(part: Any) -> list[np.random.Generator]:
    """The generators that a sampler, a transform or a loader draws from: its `rng`, and those of its parts.
    Each is there once. Given."""
    own = [part.rng] if isinstance(getattr(part, "rng", None), np.random.Generator) else []
    names = [name for name in ("batch_sampler", "sampler", "transform") if hasattr(part, name)]
    parts = [*(getattr(part, name) for name in names), *getattr(part, "transforms", ())]
    found = own + [rng for inner in parts for rng in generators(inner)]
    return list({id(rng): rng for rng in found}.values())


def _states(part: Any) -> list[dict[str, Any]]:
    """Where each generator stands, in what json can write. Given."""
    states = [rng.bit_generator.state for rng in generators(part)]
    plain: list[dict[str, Any]] = json.loads(json.dumps(states, default=np.ndarray.tolist))
    return plain


def _set_states(part: Any, states: list[dict[str, Any]]) -> None:
    """Bring each generator to where it stood. Given."""
    found = generators(part)
    if len(states) != len(found):
        raise ValueError(f"the state has {len(states)} generators, and here are {len(found)}")
    for rng, state in zip(found, states, strict=True):
        rng.bit_generator.state = state


# Loading.


def prefetch(items: Iterable[Any], depth: int) -> Iterator[Any]:
    """The items, made by a thread up to `depth` ahead of whoever takes them.

    No more than `depth` items are made and not yet taken. An exception raised there is raised here, with its
    traceback, after the items before it. However the iterator ends, the thread has ended with it.
    """
    # kata 09.16: a semaphore with `depth` places: the thread takes one before it makes an item, you give one
    # back for each that you take. On the way out: say stop, give a place, join.
    places, ready, stop = threading.Semaphore(depth), queue.SimpleQueue[tuple[str, Any]](), threading.Event()

    def work() -> None:
        try:
            source = iter(items)
            while places.acquire() and not stop.is_set():
                ready.put(("item", next(source)))
        except StopIteration:
            ready.put(("end", None))
        except BaseException as error:
            ready.put(("error", error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            places.release()
            yield value
    finally:
        stop.set()
        places.release()
        thread.join()
        value = None  # an error refers to its frames, and they would refer to it


class DataLoader:
    """Batches of a dataset, epoch by epoch: each `iter` is one epoch.

    Args:
        shuffle: in a new order each epoch, drawn from `rng`, which must be given then.
        sampler: the order, instead of `shuffle`.
        collate_fn: makes a batch of a list of samples. With the default a dataset fetches it at once, if it
            can.
        prefetch: how many batches a thread makes ahead. The batches are the same whatever it is.
        transform: what happens to each batch's images: the batch, or its first part where it is a tuple.

    Raises:
        ValueError: batch_size below 1 or prefetch below 0, with its value; shuffle without "rng", or with a
            "sampler", and the message says which.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        collate_fn: Callable[[list[Any]], Any] = default_collate,
        sampler: Any = None,
        prefetch: int = 0,
        *,
        rng: np.random.Generator | None = None,
        transform: Callable[[Array], Array] | None = None,
    ) -> None:
        # kata 09.17: choose the sampler, wrap it in a BatchSampler; no epoch is under way.
        if prefetch < 0:
            raise ValueError(f"prefetch is {prefetch}; it must be 0 or more")
        if shuffle and (sampler is not None or rng is None):
            raise ValueError("shuffle needs rng, and no sampler")
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.collate_fn, self.sampler, self.prefetch = collate_fn, sampler, prefetch
        self.rng, self.transform = rng, transform
        if sampler is None:
            sampler = RandomSampler(dataset, rng=rng) if shuffle and rng else SequentialSampler(dataset)
        self.batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self._state: dict[str, Any] | None = None  # of the epoch under way
        self._resumes = False

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        # kata 09.17: somebody knows.
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Any]:
        """The batches of an epoch, or what is left of it after `load_state_dict`.

        An iterator that ends after a newer one was asked for, or a state was loaded, changes nothing more.
        """
        # kata 09.18: note where the sampler's generators stand, draw the whole plan now, `_hand_out` it. To
        # resume: draw the plan from where it was drawn, put all generators back, and skip what is done.
        done, order = 0, _states(self.batch_sampler)
        if self._resumes and self._state:
            done, order, now = self._state["batches"], self._state["order"], _states(self)
            _set_states(self.batch_sampler, order)
            plan = [*self.batch_sampler]
            _set_states(self, now)
        else:
            plan = [*self.batch_sampler]
        self._resumes, self._state = False, {"batches": done, "order": order, "draws": None}
        return self._hand_out(iter(plan[done:]), self._state)

    def _make(self, plan: Iterator[list[int]]) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
        """Each batch, and the transform's states after it: a thread may be far ahead of the caller. Given."""
        for indices in plan:
            batch = fetch(self.dataset, indices, self.collate_fn)
            if self.transform is not None and isinstance(batch, tuple):
                batch = (self.transform(batch[0]), *batch[1:])
            elif self.transform is not None:
                batch = self.transform(batch)
            yield batch, _states(self.transform) if self.prefetch else []
            del batch  # before the next is made

    def _hand_out(self, plan: Iterator[list[int]], state: dict[str, Any]) -> Iterator[Any]:
        # kata 09.18: take from `_make`, by `prefetch` or without; note where you stand before each `yield`.
        # However it ends, close what you took from; a thread's draws for batches that nobody took are undone,
        # unless another epoch is under way by then: `self._state` tells.
        draws, made = _states(self.transform), self._make(plan)
        if self.prefetch:
            made = prefetch(made, self.prefetch)
        try:
            with contextlib.closing(made):  # type: ignore[type-var]
                for batch, draws in made:
                    state["batches"], state["draws"] = state["batches"] + 1, draws
                    yield batch
                    del batch
        finally:
            if self.prefetch and self._state is state:
                _set_states(self.transform, draws)
        if self._state is state:
            self._state = None

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, in numbers, strings, lists and dicts, which json can write."""
        # kata 09.19: batches handed out, where the order was drawn from, where all generators stand (with a
        # thread: stood, after the last batch handed out), and whether an epoch is under way.
        now, state = _states(self), self._state
        if state is None:
            return {"under_way": False, "batches": 0, "order": [], "generators": now}
        if state["draws"] and self.prefetch:
            stood = dict(zip(map(id, generators(self.transform)), state["draws"], strict=True))
            now = [stood.get(id(rng), here) for rng, here in zip(generators(self), now, strict=True)]
        return {"under_way": True, "batches": state["batches"], "order": state["order"], "generators": now}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where another loader of the same kind stood: the next `iter` gives the rest of its epoch.

        ValueError for a state of another number of generators.
        """
        # kata 09.19: the generators; `__iter__` does the rest.
        _set_states(self, state["generators"])
        self._resumes, self._state = state["under_way"], None
        if self._resumes:
            self._state = {"batches": state["batches"], "order": state["order"], "draws": None}
