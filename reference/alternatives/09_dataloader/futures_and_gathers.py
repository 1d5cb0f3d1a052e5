"""Kata 09 in functions: futures instead of a queue, gathers instead of views, tables instead of searches.

The order of a resumed epoch is drawn where it was drawn, in a `with` block that leaves no trace.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import math
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
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


def default_collate(samples: Sequence[Any]) -> Any:
    """One batch of a list of samples, with a new first axis."""
    kinds: list[tuple[type | tuple[type, ...], Callable[[list[Any]], Any]]] = [
        (str, list),
        (dict, _batch_of_dicts),
        ((tuple, list), _batch_of_tuples),
        (Tensor, lambda tensors: Tensor(default_collate([t.data for t in tensors]))),
        (object, _batch_of_arrays),
    ]
    samples = list(samples)
    if not samples:
        raise ValueError("there are no samples")
    return next(batch for kind, batch in kinds if isinstance(samples[0], kind))(samples)


def _batch_of_dicts(samples: list[dict[str, Any]]) -> dict[str, Any]:
    columns: dict[str, list[Any]] = {name: [] for name in samples[0]}
    for sample in samples:
        for name, column in columns.items():
            column.append(sample[name])
    return {name: default_collate(column) for name, column in columns.items()}


def _batch_of_tuples(samples: list[Any]) -> tuple[Any, ...]:
    try:
        return tuple(map(default_collate, map(list, zip(*samples, strict=True))))
    except ValueError as error:
        raise ValueError(f"samples of {[len(s) for s in samples]} parts: {error}") from error


def _batch_of_arrays(samples: list[Any]) -> Array:
    try:
        return np.array(samples)
    except ValueError:
        pass
    raise ValueError(f"shapes {[np.shape(s) for s in samples]}")


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
        self.arrays = [a.data if isinstance(a, Tensor) else np.asarray(a) for a in arrays]
        try:
            (self.length,) = {len(a) for a in self.arrays}
        except (TypeError, ValueError):
            raise ValueError(f"no one length in {[np.shape(a) for a in self.arrays]}") from None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return tuple(a[index] for a in self.arrays)

    def __getitems__(self, indices: Sequence[int] | Array) -> tuple[Array, ...]:
        return tuple(np.asarray(a[list(indices)] if len(indices) else a[:0].copy()) for a in self.arrays)


class Subset(Dataset):
    """Some samples of a dataset."""

    def __init__(self, dataset: Any, indices: Sequence[int] | Array) -> None:
        self.dataset, self.indices = dataset, list(map(int, indices))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: Sequence[int] | Array) -> Any:
        return fetch(self.dataset, [self.indices[i] for i in indices])


def random_split(dataset: Any, lengths: Sequence[float], *, rng: np.random.Generator) -> list[Subset]:
    """Subsets of the given lengths that share no sample and have them all, drawn at random."""
    count = len(dataset)
    shares = [Fraction(n) for n in lengths]
    if any(isinstance(n, float) for n in lengths) and abs(sum(shares) - 1) < 1e-9:
        # In floating point, so that 0.7 of 10 is 7 although 0.7 is a little less.
        shares = [Fraction(math.floor(count * n)) for n in lengths]
        for i in range(int(count - sum(shares))):
            shares[i % len(shares)] += 1
    if sum(shares) != count or min(shares, default=-1) < 0 or any(n.denominator > 1 for n in shares):
        raise ValueError(f"lengths {list(lengths)} of {count} samples")
    owner = np.repeat(np.arange(len(shares)), [int(n) for n in shares])
    rng.shuffle(owner)
    return [Subset(dataset, np.flatnonzero(owner == i)) for i in range(len(shares))]


def read_idx(path: str | Path) -> Array:
    """The array in an IDX file."""
    path = Path(path)
    if path.suffix != ".gz":
        with path.open("rb") as file:
            dtype, shape = _header(file, path)
            start = file.tell()
        if path.stat().st_size - start != dtype.itemsize * math.prod(shape):
            raise ValueError(f"{path} has another size than {dtype} {shape} would have")
        return np.memmap(path, dtype, "r", start, shape) if math.prod(shape) else np.zeros(shape, dtype)
    try:
        with gzip.open(path) as file:
            dtype, shape = _header(file, path)
            parts = []
            left = dtype.itemsize * math.prod(shape)
            while left and (part := file.read(min(left, 65536))):
                parts.append(part)
                left -= len(part)
            if left or file.read(1):
                raise ValueError(f"{path} is not as long as {dtype} {shape}")
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:
        raise ValueError(f"{path}: {error}") from error
    return np.frombuffer(b"".join(parts), dtype).reshape(shape)


def _header(file: Any, path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    head = file.read(4)
    kinds = {8: "u1", 9: "i1", 11: "i2", 12: "i4", 13: "f4", 14: "f8"}
    if len(head) != 4 or any(head[:2]) or head[2] not in kinds:
        raise ValueError(f"{path} begins with {head.hex()}")
    shape = []
    for _ in range(head[3]):
        axis = file.read(4)
        if len(axis) != 4:
            raise ValueError(f"{path} ends after {len(shape)} of {head[3]} axes")
        shape.append(int.from_bytes(axis, "big"))
    return np.dtype(kinds[head[2]]).newbyteorder(">"), tuple(shape)


def MNIST(folder: str | Path, train: bool = True) -> TensorDataset:
    """Handwritten digits: images (n, 1, 28, 28) uint8 and labels (n,) int64."""
    folder, kind = Path(folder), "train" if train else "t10k"
    found = {}
    for part in ("images-idx3", "labels-idx1"):
        name = f"{kind}-{part}-ubyte"
        there = [path for path in (folder / name, folder / f"{name}.gz") if path.exists()]
        if not there:
            raise FileNotFoundError(f"no {name} in {folder}")
        found[part] = there[0], read_idx(there[0])
    (where, images), (other, labels) = found.values()
    if images.dtype != "u1" or images.ndim != 3 or images.shape[1:] != (28, 28) or not images.size:
        raise ValueError(f"{where}: {images.dtype} {images.shape}")
    if labels.dtype != "u1" or labels.shape != (images.shape[0],) or labels.max() > 9:
        raise ValueError(f"{other}: {labels.dtype} {labels.shape}, or labels above 9")
    return TensorDataset(np.expand_dims(images, 1), labels.astype(np.int64))


def map_cifar(path: str | Path) -> tuple[Array, Array]:
    """Images (n, 3, 32, 32) and labels (n,), both uint8 views of a binary CIFAR-10 file, which is mapped."""
    count, rest = divmod(Path(path).stat().st_size, 3073)
    if rest or not count:
        raise ValueError(f"{path} has {count} records and {rest} bytes")
    content = np.memmap(path, np.uint8, "r")
    views = np.lib.stride_tricks.as_strided
    images = views(content[1:], (count, 3, 32, 32), (3073, 1024, 32, 1), writeable=False)
    return images, content[::3073]


class _Harmless(pickle.Unpickler):
    names = frozenset(
        {"numpy ndarray", "numpy dtype", "_codecs encode"}
        | {f"numpy.{core}.multiarray _reconstruct" for core in ("core", "_core")}
    )

    def find_class(self, module: str, name: str) -> Any:
        if f"{module} {name}" not in self.names:
            raise pickle.UnpicklingError(f"{module}.{name} asks too much")
        if module == "numpy":
            return {"ndarray": np.ndarray, "dtype": np.dtype}[name]
        if name == "encode":
            return lambda text, encoding: text.encode("latin1")
        return np.zeros(0).__reduce__()[0]


def unpickle_cifar(path: str | Path) -> tuple[Array, Array]:
    """Images (n, 3, 32, 32) and labels (n,), both uint8, from a CIFAR-10 file pickled for Python."""
    content = Path(path).read_bytes()
    try:
        batch = _Harmless(io.BytesIO(content), encoding="bytes").load()
        text = {str(name, "ascii") if type(name) is bytes else name: batch[name] for name in batch}
        images = text["data"].reshape(-1, 3, 32, 32)
        labels = np.array(text["labels"])
        fits = images.dtype == "u1" and labels.dtype == int and text["data"].shape == (len(labels), 3072)
        if not fits or len(labels) == 0 or not set(labels.tolist()) <= set(range(10)):
            raise TypeError(f"{images.dtype} {images.shape}, labels {labels}")
    except Exception as error:
        raise ValueError(f"{path} is no batch of photographs ({error})") from error
    return images, labels.astype("u1")


class CIFAR10(Dataset):
    """Photographs: images (n, 3, 32, 32) uint8, labels int64."""

    def __init__(self, folder: str | Path, train: bool = True) -> None:
        names = [f"data_batch_{i + 1}" for i in range(5)] if train else ["test_batch"]
        folder = Path(folder)
        first = [
            *(below / f"{names[0]}.bin" for below in (folder, folder / "cifar-10-batches-bin")),
            *(below / names[0] for below in (folder, folder / "cifar-10-batches-py")),
        ]
        where = next((path for path in first if path.exists()), first[0])
        self.paths = [where.with_name(name + where.suffix) for name in names]
        for path in self.paths:
            if not path.exists():
                raise FileNotFoundError(f"{path} is missing")
        self.parts = [map_cifar(p) if where.suffix else unpickle_cifar(p) for p in self.paths]
        counts = [len(labels) for _, labels in self.parts]
        self.part_of = np.repeat(np.arange(len(counts)), counts)
        self.row_of = np.concatenate([np.arange(count) for count in counts])

    def __len__(self) -> int:
        return len(self.part_of)

    def __getitem__(self, index: int) -> tuple[Array, Any]:
        images, labels = self.parts[self.part_of[index]]
        row = self.row_of[index]
        return images[row], self._checked(np.int64(labels[row]), self.part_of[index])

    def _checked(self, labels: Any, part: int) -> Any:
        if np.any(labels > 9):
            raise ValueError(f"a label above 9 in {self.paths[part]}")
        return labels

    def __getitems__(self, indices: Sequence[int] | Array) -> tuple[Array, Array]:
        where = np.asarray(indices, int)
        parts, rows = self.part_of[where], self.row_of[where]
        images, labels = np.zeros((len(where), 3, 32, 32), np.uint8), np.zeros(len(where), np.int64)
        for part, (photographs, classes) in enumerate(self.parts):
            mine = parts == part
            if mine.any():
                images[mine] = photographs[rows[mine]]
                labels[mine] = self._checked(classes[rows[mine]], part)
        return images, labels


class SequentialSampler:
    """0, 1, 2, …"""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        index, count = 0, len(self.dataset)
        while index < count:
            yield index
            index += 1


class RandomSampler(SequentialSampler):
    """Every index once, in an order drawn anew from `rng` at each `iter`."""

    def __init__(self, dataset: Any, *, rng: np.random.Generator) -> None:
        super().__init__(dataset)
        self.rng = rng

    def __iter__(self) -> Iterator[int]:
        order = np.arange(len(self))
        self.rng.shuffle(order)
        return iter(order)


class BatchSampler:
    """Lists of `batch_size` indices of a sampler; the last has what is left, or is dropped."""

    def __init__(self, sampler: Any, batch_size: int, drop_last: bool = False) -> None:
        if batch_size < 1 or int(batch_size) != batch_size:
            raise ValueError(f"batch_size={batch_size}")
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __len__(self) -> int:
        return (math.floor if self.drop_last else math.ceil)(len(self.sampler) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Iterable[Callable[[Array], Array]]) -> None:
        self.transforms = [*transforms]

    def __call__(self, images: Array) -> Array:
        return self._from(0, images)

    def _from(self, number: int, images: Array) -> Array:
        if number == len(self.transforms):
            return images
        return self._from(number + 1, self.transforms[number](images))


class Normalize:
    """(images - mean) / std, channel by channel."""

    def __init__(self, mean: Any, std: Any) -> None:
        self.mean, self.std = np.ravel(mean).tolist(), np.ravel(std).tolist()
        if 0 in self.std:
            raise ValueError(f"std {self.std}")

    def __call__(self, images: Array) -> Array:
        channels = images.shape[1]
        if {len(self.mean), len(self.std)} - {1, channels}:
            raise ValueError(f"means {self.mean} and stds {self.std} for {images.shape}")
        means, stds = (n * channels if len(n) == 1 else n for n in (self.mean, self.std))
        out = np.empty(images.shape, images.dtype if images.dtype.kind == "f" else np.float32)
        for c in range(channels):
            part = out[:, c]
            part[...] = images[:, c]
            part -= means[c]
            part /= stds[c]
        return out


class RandomHorizontalFlip:
    """Left and right exchanged, for each image with probability p."""

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator) -> None:
        self.p, self.rng = p, rng

    def __call__(self, images: Array) -> Array:
        heads = self.rng.random(len(images)) < self.p
        out = np.array(images)
        np.copyto(out, images[..., ::-1], where=heads.reshape(-1, 1, 1, 1))
        return out


class RandomCrop:
    """A window of `size` from each image, after `padding`, gathered by its rows and columns."""

    def __init__(self, size: int | tuple[int, int], padding: int = 0, *, rng: np.random.Generator) -> None:
        self.size, self.padding, self.rng = np.broadcast_to(size, 2).tolist(), padding, rng

    def __call__(self, images: Array) -> Array:
        border = (self.padding, self.padding)
        padded = np.pad(images, ((0, 0), (0, 0), border, border))
        places = [have - want for have, want in zip(padded.shape[2:], self.size, strict=True)]
        if min(places) < 0:
            raise ValueError(f"{self.size} of {images.shape} with a border of {self.padding}")
        n, c = images.shape[:2]
        first = self.rng.integers(0, places, size=(n, 2), endpoint=True)
        rows = first[:, :1] + np.arange(self.size[0])
        columns = first[:, 1:] + np.arange(self.size[1])
        return padded[
            np.arange(n)[:, None, None, None],
            np.arange(c)[:, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        ]


class Cutout:
    """A square of `size` set to 0 in each image, around a pixel drawn at random."""

    def __init__(self, size: int, *, rng: np.random.Generator) -> None:
        self.size, self.rng = size, rng

    def __call__(self, images: Array) -> Array:
        n, _, height, width = images.shape
        pixel = self.rng.integers(height * width, size=n)
        top, left = (at.reshape(n, 1, 1) - self.size // 2 for at in np.divmod(pixel, width))
        i, j = np.ogrid[:height, :width]
        inside = (i >= top) & (i < top + self.size) & (j >= left) & (j < left + self.size)
        out = images.copy()
        out.transpose(0, 2, 3, 1)[inside] = 0
        return out


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


END = object()


def prefetch(items: Iterable[Any], depth: int) -> Iterator[Any]:
    """The items, each the result of a future; `depth` of them are under way or wait."""
    with ThreadPoolExecutor(max_workers=1) as worker:
        source = worker.submit(iter, items).result()
        waiting: deque[Future[Any]] = deque()
        try:
            while True:
                while len(waiting) < depth:
                    waiting.append(worker.submit(next, source, END))
                item = waiting.popleft().result()
                if item is END:
                    return
                waiting.append(worker.submit(next, source, END))
                yield item
                del item
        finally:
            worker.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _standing(part: Any, states: list[dict[str, Any]], everything: Any) -> Iterator[None]:
    """Within, the generators of `part` stand as they once did; after, all those of `everything` as before."""
    before = _states(everything)
    _set_states(part, states)
    try:
        yield
    finally:
        _set_states(everything, before)


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
        if prefetch < 0 or (shuffle and rng is None) or (shuffle and sampler is not None):
            raise ValueError(f"prefetch={prefetch}, shuffle={shuffle}, rng={rng}, sampler={sampler}")
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.collate_fn, self.sampler, self.prefetch = collate_fn, sampler, prefetch
        self.rng, self.transform = rng, transform
        if shuffle and rng is not None:
            sampler = RandomSampler(dataset, rng=rng)
        order = SequentialSampler(dataset) if sampler is None else sampler
        self.batch_sampler = BatchSampler(order, batch_size, drop_last)
        self.done: int | None = None  # batches of the epoch under way
        self.begun: list[dict[str, Any]] = []  # where the sampler stood then
        self.ahead: list[dict[str, Any]] | None = None  # where the transform would stand without a thread
        self.loaded = False
        self.number = 0  # of epochs begun and states loaded: who has an older one changes nothing

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Any]:
        skip = 0
        if self.loaded:
            skip = self.done or 0
            with _standing(self.batch_sampler, self.begun, self):
                plan = list(self.batch_sampler)
        else:
            self.begun = _states(self.batch_sampler)
            plan = list(self.batch_sampler)
        self.done, self.ahead, self.loaded = skip, None, False
        self.number += 1
        return self._epoch(plan[skip:], self.number)

    def _batch(self, indices: list[int]) -> Any:
        batch = fetch(self.dataset, indices, self.collate_fn)
        if self.transform is None:
            return batch
        if not isinstance(batch, tuple):
            return self.transform(batch)
        return self.transform(batch[0]), *batch[1:]

    def _note(self, number: int, done: int | None, ahead: list[dict[str, Any]] | None) -> None:
        if number == self.number:
            self.done, self.ahead = done, ahead

    def _epoch(self, plan: list[list[int]], number: int) -> Iterator[Any]:
        done = self.done or 0
        if not self.prefetch:
            for indices in plan:
                batch = self._batch(indices)
                done += 1
                self._note(number, done, None)
                yield batch
                del batch
        else:
            stands = _states(self.transform)
            pairs = ((self._batch(indices), _states(self.transform)) for indices in plan)
            try:
                with contextlib.closing(prefetch(pairs, self.prefetch)) as made:  # type: ignore[type-var]
                    for batch, stands in made:
                        done += 1
                        self._note(number, done, stands)
                        yield batch
                        del batch
            finally:
                if number == self.number:
                    _set_states(self.transform, stands)
        self._note(number, None, None)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands."""
        return {
            "done": self.done,
            "begun": self.begun,
            "sampler": _states(self.batch_sampler),
            "transform": _states(self.transform) if self.ahead is None else self.ahead,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where another loader of the same kind stood."""
        _set_states(self.transform, state["transform"])
        _set_states(self.batch_sampler, state["sampler"])
        self.done, self.begun, self.ahead = state["done"], state["begun"], None
        self.loaded = self.done is not None
        self.number += 1
