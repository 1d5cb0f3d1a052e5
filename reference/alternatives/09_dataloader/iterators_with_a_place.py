"""Kata 09 with classes of its own for what runs: iterators that keep their place, a condition for the thread.

Batches are taken with `np.take` and `np.where`; files are mapped by `mmap`; a batch of CIFAR-10 is gathered
file by file, joined and put in order.
"""

from __future__ import annotations

import json
import math
import mmap
import pickle
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch.tensor import Array, Tensor

__all__ = [
    "CIFAR10", "MNIST", "BatchSampler", "Compose", "Cutout", "DataLoader", "Dataset", "Normalize",
    "RandomCrop", "RandomHorizontalFlip", "RandomSampler", "SequentialSampler", "Subset", "TensorDataset",
    "default_collate", "fetch", "generators", "map_cifar", "prefetch", "random_split", "read_idx",
    "unpickle_cifar",
]  # fmt: skip

NUMBERS = {8: "u1", 9: "i1", 11: "i2", 12: "i4", 13: "f4", 14: "f8"}


def default_collate(samples: Sequence[Any]) -> Any:
    """One batch of a list of samples, with a new first axis."""
    if len(samples) == 0:
        raise ValueError("no samples make no batch")
    match samples[0]:
        case str():
            return list(samples)
        case dict():
            return {name: default_collate([s[name] for s in samples]) for name in samples[0]}
        case tuple() | list():
            if any(len(s) != len(samples[0]) for s in samples):
                raise ValueError(f"samples of {[len(s) for s in samples]} parts")
            return tuple(default_collate([s[i] for s in samples]) for i in range(len(samples[0])))
        case Tensor():
            return Tensor(default_collate([s.data for s in samples]))
    arrays = [np.asarray(s) for s in samples]
    for array in arrays:
        if array.shape != arrays[0].shape:
            raise ValueError(f"samples of shapes {arrays[0].shape} and {array.shape}")
    batch = np.empty((len(arrays), *arrays[0].shape), np.result_type(*{a.dtype for a in arrays}))
    for i, array in enumerate(arrays):
        batch[i] = array
    return batch


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
    """Arrays (or Tensors) of one length."""

    def __init__(self, *arrays: Any) -> None:
        self.arrays = [np.asarray(getattr(a, "data", a) if isinstance(a, Tensor) else a) for a in arrays]
        shapes = [a.shape for a in self.arrays]
        if not shapes or () in shapes or len({shape[0] for shape in shapes}) != 1:
            raise ValueError(f"shapes {shapes} have no length in common")

    def __len__(self) -> int:
        return self.arrays[0].shape[0]

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return tuple([a[index] for a in self.arrays])

    def __getitems__(self, indices: Sequence[int] | Array) -> tuple[Array, ...]:
        where = np.array(indices, dtype=int)
        return tuple([np.take(a, where, axis=0) for a in self.arrays])


class Subset(Dataset):
    """Some samples of a dataset; of a subset it takes the dataset below at once."""

    def __init__(self, dataset: Any, indices: Sequence[int] | Array) -> None:
        self.indices = np.array(indices, dtype=int)
        if type(dataset) is Subset:
            dataset, self.indices = dataset.dataset, dataset.indices[self.indices]
        self.dataset = dataset

    def __len__(self) -> int:
        return self.indices.size

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index].item()]

    def __getitems__(self, indices: Sequence[int] | Array) -> Any:
        return fetch(self.dataset, self.indices.take(np.array(indices, dtype=int)))


def random_split(dataset: Any, lengths: Sequence[float], *, rng: np.random.Generator) -> list[Subset]:
    """Subsets of the given lengths that share no sample and have them all, drawn at random."""
    total, problem = len(dataset), ValueError(f"{list(lengths)} are no lengths of {len(dataset)} samples")
    if any(length < 0 for length in lengths):
        raise problem
    counts = [int(length) for length in lengths]
    if any(isinstance(length, float) for length in lengths) and abs(sum(lengths) - 1) < 1e-9:
        counts = [int(total * length) for length in lengths]
        left, i = total - sum(counts), 0
        while left:
            counts[i % len(counts)] += 1
            left, i = left - 1, i + 1
    elif counts != list(lengths):
        raise problem
    if sum(counts) != total:
        raise problem
    order = np.arange(total)
    rng.shuffle(order)
    parts = []
    for count in counts:
        parts.append(Subset(dataset, order[:count]))
        order = order[count:]
    return parts


def read_idx(path: str | Path) -> Array:
    """The array in an IDX file."""
    path = Path(path)
    content = _unpacked(path) if path.suffix == ".gz" else _mapped(path)
    problem = ValueError(f"{path} is no whole IDX file")
    if len(content) < 4:
        raise problem
    zero, code, axes = struct.unpack_from(">HBB", content)
    if zero or code not in NUMBERS or len(content) < 4 + 4 * axes:
        raise problem
    shape = struct.unpack_from(f">{axes}I", content, 4)
    dtype = np.dtype(">" + NUMBERS[code])
    if len(content) != 4 + 4 * axes + math.prod(shape) * dtype.itemsize:
        raise problem
    return np.frombuffer(content, dtype, offset=4 + 4 * axes).reshape(shape)


def _mapped(path: Path) -> Any:
    with path.open("rb") as file:
        if not path.stat().st_size:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _unpacked(path: Path) -> bytes:
    """All of a .gz file; ValueError where it is damaged, or holds more than its header says."""
    packed = path.read_bytes()
    unpack, out, most = zlib.decompressobj(wbits=31), bytearray(), 4
    try:
        while not unpack.eof and len(out) <= most:
            out += unpack.decompress(packed, 1 << 16)
            packed = unpack.unconsumed_tail
            if len(out) >= 4 and len(out) >= 4 + 4 * out[3]:
                shape = struct.unpack_from(f">{out[3]}I", out, 4)
                most = 4 + 4 * out[3] + math.prod(shape) * 8
            else:
                most = len(out) + 1
            if not packed and not unpack.eof and not (more := unpack.flush()):
                break
            if not packed and not unpack.eof:
                out += more
    except zlib.error as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not unpack.eof:
        raise ValueError(f"{path} is cut short, or too long")
    return bytes(out)


class MNIST(Dataset):
    """Handwritten digits: images (n, 1, 28, 28) uint8 and labels (n,) int64."""

    def __init__(self, folder: str | Path, train: bool = True) -> None:
        prefix = Path(folder) / ("train" if train else "t10k")
        names = [f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"]
        for i, name in enumerate(names):
            if not Path(name).is_file():
                names[i] += ".gz"
                if not Path(names[i]).is_file():
                    raise FileNotFoundError(f"neither {name} nor {names[i]} is there")
        images, labels = read_idx(names[0]), read_idx(names[1])
        if images.dtype.str not in ("|u1", ">u1") or images.ndim != 3 or images.shape[1:] != (28, 28):
            raise ValueError(f"{names[0]} has no images of 28 x 28 bytes")
        if len(images) == 0:
            raise ValueError(f"{names[0]} is empty")
        if labels.dtype.itemsize != 1 or labels.shape != (len(images),) or (labels > 9).any():
            raise ValueError(f"{names[1]} has not a digit for each of {len(images)} images")
        self.images = images.reshape(-1, 1, 28, 28)
        self.labels = labels.astype("i8")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Array, Any]:
        return self.images[index], self.labels[index]

    def __getitems__(self, indices: Sequence[int] | Array) -> tuple[Array, Array]:
        where = np.array(indices, dtype=int)
        return self.images[where], self.labels[where]


RECORD = np.dtype([("label", "u1"), ("image", "u1", (3, 32, 32))])


def map_cifar(path: str | Path) -> tuple[Array, Array]:
    """Images (n, 3, 32, 32) and labels (n,), both uint8, of a binary CIFAR-10 file: an array of records."""
    content = _mapped(Path(path))
    if len(content) == 0 or len(content) % RECORD.itemsize:
        raise ValueError(f"{path}: {len(content)} bytes are no whole number of records")
    records = np.frombuffer(content, RECORD)
    return records["image"], records["label"]


class _Careful(pickle.Unpickler):
    """Gives arrays, and nothing that could do anything."""

    def find_class(self, module: str, name: str) -> Any:
        match module.split("."), name:
            case ["numpy"], "ndarray" | "dtype":
                return getattr(np, name)
            case ["numpy", "core" | "_core", "multiarray"], "_reconstruct":
                return lambda kind, shape, code: np.ndarray.__new__(np.ndarray, shape, code)
            case ["_codecs"], "encode":
                return lambda text, encoding: bytes(map(ord, text))
        raise pickle.UnpicklingError(f"{module}.{name} is not needed for arrays")


def unpickle_cifar(path: str | Path) -> tuple[Array, Array]:
    """Images (n, 3, 32, 32) and labels (n,), both uint8, from a CIFAR-10 file pickled for Python."""
    with Path(path).open("rb") as file:
        try:
            batch = _Careful(file, encoding="bytes").load()
            images, labels = (
                batch[name] if name in batch else batch[name.encode()] for name in ("data", "labels")
            )
            assert images.dtype == np.uint8, images.dtype
            assert len(labels) == len(images) > 0, (len(labels), len(images))
            assert all(type(label) is int and 0 <= label <= 9 for label in labels), labels
            return np.reshape(images, (len(images), 3, 32, 32)), np.array(labels, np.uint8)
        except Exception as error:
            raise ValueError(f"{path} holds no photographs: {error!r}") from error


class CIFAR10(Dataset):
    """Photographs: images (n, 3, 32, 32) uint8, labels int64."""

    def __init__(self, folder: str | Path, train: bool = True) -> None:
        names = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"]
        names = names if train else ["test_batch"]
        for below, ending, read in (  # noqa: B007
            ("", ".bin", map_cifar),
            ("cifar-10-batches-bin", ".bin", map_cifar),
            ("", "", unpickle_cifar),
            ("cifar-10-batches-py", "", unpickle_cifar),
        ):
            self.paths = [Path(folder, below, name + ending) for name in names]
            if self.paths[0].exists():
                break
        else:
            raise FileNotFoundError(f"there is no {names[0]} in {folder}")
        for path in self.paths:
            if not path.exists():
                raise FileNotFoundError(str(path))
        self.parts = [read(path) for path in self.paths]
        self.ends = np.cumsum([len(labels) for _, labels in self.parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> tuple[Array, Any]:
        (image,), (label,) = self.__getitems__([index])
        return image, label

    def __getitems__(self, indices: Sequence[int] | Array) -> tuple[Array, Array]:
        where = np.array(indices, dtype=int)
        where = np.where(where < 0, where + len(self), where)
        if ((where < 0) | (where >= len(self))).any():
            raise IndexError(f"{list(indices)} of {len(self)}")
        order = np.argsort(where, kind="stable")
        cuts = np.searchsorted(where[order], self.ends)
        images, labels, start = [], [], 0
        for (photographs, digits), path, before, end in zip(
            self.parts, self.paths, [0, *self.ends], cuts, strict=False
        ):
            rows = where[order[start:end]] - before
            images.append(photographs[rows])
            labels.append(digits[rows].astype(np.int64))
            if (labels[-1] > 9).any():
                raise ValueError(f"{path} has a label above 9")
            start = end
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return np.concatenate(images)[back], np.concatenate(labels)[back]


class SequentialSampler:
    """0, 1, 2, …"""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        yield from range(len(self.dataset))


class RandomSampler:
    """Every index once, in an order drawn anew from `rng` at each `iter`."""

    def __init__(self, dataset: Any, *, rng: np.random.Generator) -> None:
        self.dataset, self.rng = dataset, rng

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        order = list(range(len(self.dataset)))
        return map(order.__getitem__, self.rng.permutation(len(order)))


class BatchSampler:
    """Lists of `batch_size` indices of a sampler; the last has what is left, or is dropped."""

    def __init__(self, sampler: Any, batch_size: int, drop_last: bool = False) -> None:
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"no batches of {batch_size}")
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __len__(self) -> int:
        whole, rest = divmod(len(self.sampler), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.sampler)
        end = len(order) - len(order) % self.batch_size if self.drop_last else len(order)
        return (order[i : min(i + self.batch_size, end)] for i in range(0, end, self.batch_size))


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Iterable[Callable[[Array], Array]]) -> None:
        self.transforms = tuple(transforms)

    def __call__(self, images: Array) -> Array:
        for one in self.transforms:
            images = one(images)
        return images


class Normalize:
    """(images - mean) / std, as a multiplication by 1 / std and an addition."""

    def __init__(self, mean: Any, std: Any) -> None:
        self.mean, self.std = np.atleast_1d(np.array(mean, float)), np.atleast_1d(np.array(std, float))
        if (self.std == 0).any():
            raise ValueError(f"a std of 0 among {self.std}")

    def __call__(self, images: Array) -> Array:
        for numbers in (self.mean, self.std):
            if numbers.size not in (1, images.shape[1]):
                raise ValueError(f"{numbers.size} numbers for the channels of {images.shape}")
        dtype = images.dtype if images.dtype.kind == "f" else np.float32
        out = images.astype(dtype)
        out -= self.mean.astype(dtype)[:, None, None]
        out *= (1 / self.std).astype(dtype)[:, None, None]
        return out


class RandomHorizontalFlip:
    """Left and right exchanged, for each image with probability p."""

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator) -> None:
        self.p, self.rng = p, rng

    def __call__(self, images: Array) -> Array:
        stays = self.rng.uniform(size=(len(images), 1, 1, 1)) >= self.p
        return np.where(stays, images, np.flip(images, axis=-1))


class RandomCrop:
    """A window of `size` from each image, after `padding`; those with windows at one place cut together."""

    def __init__(self, size: int | tuple[int, int], padding: int = 0, *, rng: np.random.Generator) -> None:
        self.height, self.width = (size, size) if isinstance(size, int) else size
        self.padding, self.rng = padding, rng

    def __call__(self, images: Array) -> Array:
        n, c, height, width = images.shape
        p = self.padding
        padded = np.zeros((n, c, height + 2 * p, width + 2 * p), images.dtype)
        padded[:, :, p : p + height, p : p + width] = images
        rows, columns = height + 2 * p - self.height + 1, width + 2 * p - self.width + 1
        if rows < 1 or columns < 1:
            raise ValueError(f"{self.height} x {self.width} does not fit into {images.shape}, padded by {p}")
        place = self.rng.integers(rows * columns, size=n)
        out = np.empty((n, c, self.height, self.width), images.dtype)
        for one in set(place.tolist()):
            i, j = divmod(one, columns)
            here = np.flatnonzero(place == one)
            out[here] = padded[here, :, i : i + self.height, j : j + self.width]
        return out


class Cutout:
    """A square of `size` set to 0 in each image, around a pixel drawn at random."""

    def __init__(self, size: int, *, rng: np.random.Generator) -> None:
        self.size, self.rng = size, rng

    def __call__(self, images: Array) -> Array:
        n, _, height, width = images.shape
        y, x = self.rng.integers([height, width], size=(n, 2)).T[:, :, None] - self.size // 2
        rows = np.abs(2 * (np.arange(height) - y) - self.size + 1) < self.size
        columns = np.abs(2 * (np.arange(width) - x) - self.size + 1) < self.size
        mask = np.einsum("ni,nj->nij", rows, columns)[:, None]
        return np.where(mask, images.dtype.type(0), images)


def generators(part: Any) -> list[np.random.Generator]:
    """The generators that a sampler, a transform or a loader draws from: its `rng`, and those of its parts.
    Given."""
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


class prefetch:
    """The items, made by a thread up to `depth` ahead of whoever takes them."""

    def __init__(self, items: Iterable[Any], depth: int) -> None:
        self.items, self.depth = items, depth
        self.made: deque[Any] = deque()
        self.change = threading.Condition()
        self.over, self.error = False, None
        self.thread: threading.Thread | None = None

    def __iter__(self) -> prefetch:
        return self

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            source = iter(self.items)
            while True:
                with self.change:
                    self.change.wait_for(lambda: self.over or len(self.made) < self.depth)
                    if self.over:
                        return
                try:
                    item = next(source)
                except StopIteration:
                    return
                with self.change:
                    self.made.append(item)
                    self.change.notify_all()
                del item
        except BaseException as caught:
            error = caught
        finally:
            with self.change:
                self.over, self.error = True, error
                self.change.notify_all()

    def __next__(self) -> Any:
        if self.thread is None:
            self.thread = threading.Thread(target=self._work, daemon=True)
            self.thread.start()
        with self.change:
            self.change.wait_for(lambda: self.made or self.over)
            if self.made:
                item = self.made.popleft()
                self.change.notify_all()
                return item
        error = self.error
        self.close()
        raise error or StopIteration

    def close(self) -> None:
        """Nobody takes any more; returns when the thread has ended."""
        with self.change:
            self.over = True
            self.made.clear()
            self.change.notify_all()
        if self.thread:
            self.thread.join()
        self.items, self.error = (), None


class DataLoader:
    """Batches of a dataset, epoch by epoch."""

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
        if prefetch < 0:
            raise ValueError(f"prefetch={prefetch}")
        if shuffle:
            if rng is None:
                raise ValueError("to shuffle, rng must be given")
            if sampler is not None:
                raise ValueError("a sampler and shuffle exclude each other")
            sampler = RandomSampler(dataset, rng=rng)
        elif sampler is None:
            sampler = SequentialSampler(dataset)
        self.batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.collate_fn, self.sampler, self.prefetch = collate_fn, sampler, prefetch
        self.rng, self.transform = rng, transform
        self.place: Place | None = None
        self.saved: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Epoch:
        if self.saved is None:
            self.place = Place(list(self.batch_sampler), 0)
        else:
            self.place = Place(self.saved["plan"], self.saved["batches"])
        self.saved = None
        return Epoch(self, self.place)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands; the order of the epoch under way is written down as it is."""
        state = {"plan": None, "batches": 0, "sampler": _states(self.batch_sampler)}
        state["transform"] = _states(self.transform)
        if self.saved is not None:
            return {**state, **self.saved}
        if self.place is not None and not self.place.over:
            plan = [[int(i) for i in batch] for batch in self.place.plan]
            state.update(plan=plan, batches=self.place.done)
            if self.place.noted is not None:
                state["transform"] = self.place.noted
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where another loader of the same kind stood."""
        _set_states(self.batch_sampler, state["sampler"])
        _set_states(self.transform, state["transform"])
        self.saved = self.place = None
        if state["plan"] is not None:
            self.saved = {"plan": state["plan"], "batches": state["batches"]}


def make(loader: DataLoader, plan: list[list[int]]) -> Iterator[Any]:
    """Each batch, with where the transform stands after it. Knows no epoch: that would be a cycle."""
    transform = loader.transform
    for indices in plan:
        batch = fetch(loader.dataset, indices, loader.collate_fn)
        if transform is not None:
            batch = (transform(batch[0]), *batch[1:]) if isinstance(batch, tuple) else transform(batch)
        yield batch, _states(transform) if loader.prefetch else None
        del batch


class Place:
    """Where an epoch stands: loader and epoch both know it, and neither the other."""

    def __init__(self, plan: list[list[int]], done: int) -> None:
        self.plan, self.done, self.over = plan, done, False
        self.noted: Any = None  # where the transform stood after the last batch, if a thread is ahead


class Epoch:
    """The batches of one epoch."""

    def __init__(self, loader: DataLoader, place: Place) -> None:
        self.loader, self.place = loader, place
        self.made: Any = None

    def __iter__(self) -> Epoch:
        return self

    def __next__(self) -> Any:
        loader, place = self.loader, self.place
        if self.made is None:
            self.made = make(loader, place.plan[place.done :])
            if loader.prefetch:
                place.noted = _states(loader.transform)
                self.made = prefetch(self.made, loader.prefetch)
        try:
            batch, draws = next(self.made)
        except StopIteration:
            place.over = True
            self.close()
            raise
        except BaseException:
            self.close()
            raise
        place.done, place.noted = place.done + 1, draws
        return batch

    def close(self) -> None:
        """End the thread, and undo what it has drawn for batches that nobody took."""
        if self.made is not None:
            self.made.close()
            if self.place.noted is not None and self.loader.place is self.place:
                _set_states(self.loader.transform, self.place.noted)
            self.made = None

    def __del__(self) -> None:
        self.close()
