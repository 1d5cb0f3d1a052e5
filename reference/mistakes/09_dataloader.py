"""Believable wrong solutions of kata 09.  Each takes the reference and spoils one thing in it."""

import contextlib
import gzip
import itertools
import math
import pickle
import queue
import threading
from pathlib import Path

import numpy as np

from dojo.mistakes import caught_by, rewritten

# Batches.


def _collate(m, spoiled, wanted):
    """default_collate is `spoiled(samples, right)` for lists whose first sample is `wanted`."""
    right = m.default_collate

    def default_collate(samples):
        if len(samples) and wanted(samples[0]):
            return spoiled(samples, right)
        return right(samples)

    m.default_collate = default_collate
    m.DataLoader.__init__.__defaults__ = tuple(
        default_collate if value is right else value for value in m.DataLoader.__init__.__defaults__
    )
    m.fetch.__defaults__ = (default_collate,)


def _is_array(sample):
    return isinstance(sample, np.ndarray)


@caught_by(1)
def samples_are_joined_along_their_first_axis(m):
    _collate(m, lambda samples, right: np.concatenate([np.atleast_1d(s) for s in samples]), _is_array)


@caught_by(1)
def numbers_become_float32(m):
    _collate(
        m,
        lambda samples, right: np.array(samples, np.float32),
        lambda s: isinstance(s, (int, float, np.number)),
    )


@caught_by(1)
def what_differs_becomes_an_array_of_objects(m):
    def spoiled(samples, right):
        if len({np.shape(s) for s in samples}) > 1:
            batch = np.empty(len(samples), object)
            batch[:] = samples
            return batch
        return right(samples)

    _collate(m, spoiled, lambda s: np.ndim(s) or not isinstance(s, (tuple, list, dict, str)))


@caught_by(1)
def differing_shapes_are_not_named(m):
    _collate(m, lambda samples, right: np.stack(samples), _is_array)


@caught_by(1)
def the_shortest_sample_says_how_many_parts(m):
    _collate(
        m,
        lambda samples, right: tuple(m.default_collate(list(p)) for p in zip(*samples, strict=False)),
        lambda s: isinstance(s, (tuple, list)),
    )


@caught_by(1)
def lists_are_arrays(m):
    _collate(
        m,
        lambda samples, right: np.array([[np.asarray(p).sum() for p in s] for s in samples]),
        lambda s: isinstance(s, list),
    )


@caught_by(1)
def words_become_an_array(m):
    _collate(m, lambda samples, right: np.array(samples), lambda s: isinstance(s, str))


@caught_by(1)
def tensors_become_an_array(m):
    _collate(m, lambda samples, right: np.stack([s.data for s in samples]), lambda s: isinstance(s, m.Tensor))


@caught_by(1)
def only_the_first_level_of_a_dict_is_batched(m):
    _collate(
        m,
        lambda samples, right: {
            name: [s[name] for s in samples] if isinstance(samples[0][name], dict) else right(
                [s[name] for s in samples]
            )
            for name in samples[0]
        },
        lambda s: isinstance(s, dict),
    )  # fmt: skip


@caught_by(1)
def a_batch_of_nothing_is_an_empty_list(m):
    right = m.default_collate
    m.default_collate = lambda samples: right(samples) if len(samples) else []
    m.fetch.__defaults__ = (m.default_collate,)


@caught_by(4)
def a_batch_grows_sample_by_sample(m):
    def grown(samples, right):
        if len({np.shape(s) for s in samples}) > 1:
            return right(samples)
        batch = samples[0][None].copy()
        for sample in samples[1:]:
            batch = np.concatenate([batch, sample[None]])
        return batch

    _collate(m, grown, _is_array)


# Datasets.


def _arrays(m, keep):
    right = m.TensorDataset.__init__

    def __init__(self, *arrays):
        right(self, *arrays)
        self.arrays = tuple(map(keep, self.arrays))

    m.TensorDataset.__init__ = __init__


@caught_by(3)
def a_dataset_has_a_copy_of_its_own(m):
    _arrays(m, np.array)


@caught_by(1)
def lengths_are_not_compared(m):
    def __init__(self, *arrays):
        self.arrays = tuple(np.asarray(a.data if isinstance(a, m.Tensor) else a) for a in arrays)

    m.TensorDataset.__init__ = __init__


@caught_by(1)
def only_neighbours_are_compared_with_the_last(m):
    """Whatever has no axis passes, too."""

    def __init__(self, *arrays):
        self.arrays = tuple(np.asarray(a.data if isinstance(a, m.Tensor) else a) for a in arrays)
        if len({a.shape[:1] for a in self.arrays if a.ndim}) != 1:
            raise ValueError(f"{[a.shape for a in self.arrays]}")

    m.TensorDataset.__init__ = __init__


@caught_by(1)
def a_sample_of_one_array_is_its_row(m):
    right = m.TensorDataset.__getitem__
    m.TensorDataset.__getitem__ = lambda self, i: right(self, i)[0] if len(self.arrays) == 1 else right(
        self, i
    )  # fmt: skip


@caught_by(1)
def indices_begin_again_after_the_last(m):
    m.TensorDataset.__getitem__ = lambda self, i: tuple(a[i % len(a)] for a in self.arrays)


def _batches(m, take):
    m.TensorDataset.__getitems__ = lambda self, indices: tuple(take(a, indices) for a in self.arrays)


@caught_by(1)
def no_indices_are_floats(m):
    _batches(m, lambda a, indices: a[np.asarray(indices)])


@caught_by(1)
def a_batch_is_sorted(m):
    _batches(m, lambda a, indices: a[np.sort(np.asarray(indices, np.intp))])


@caught_by(1)
def a_sample_comes_once_a_batch(m):
    _batches(m, lambda a, indices: a[list(dict.fromkeys(map(int, indices)))])


@caught_by(1)
def indices_in_a_row_give_a_view(m):
    def take(a, indices):
        where = np.asarray(indices, np.intp)
        if len(where) and (np.diff(where) == 1).all() and where[0] >= 0 and where[-1] < len(a):
            return a[where[0] : where[-1] + 1]
        return a[where]

    _batches(m, take)


@caught_by(1)
def an_index_too_large_is_the_last(m):
    _batches(m, lambda a, indices: np.take(a, np.asarray(indices, np.intp), axis=0, mode="clip"))


@caught_by(3)
def a_batch_is_collected_and_stacked(m):
    def take(a, indices):
        return np.stack([a[int(i)].copy() for i in indices]) if len(indices) else a[:0].copy()

    _batches(m, take)


@caught_by(4)
def a_batch_is_filled_row_by_row(m):
    def take(a, indices):
        out = np.empty((len(indices), *a.shape[1:]), a.dtype)
        for place, index in enumerate(indices):
            out[place] = a[index]
        return out

    _batches(m, take)


@caught_by(1)
def a_subset_looks_up_its_own_index(m):
    m.Subset.__getitem__ = lambda self, index: self.dataset[int(index)]


@caught_by(1)
def a_subset_of_a_batch_is_not_translated(m):
    m.Subset.__getitems__ = lambda self, indices: m.fetch(self.dataset, indices)


@caught_by(1)
def a_subset_is_a_set(m):
    right = m.Subset.__init__
    m.Subset.__init__ = lambda self, dataset, indices: right(self, dataset, sorted(set(map(int, indices))))


@caught_by(1)
def a_subset_fetches_sample_by_sample(m):
    def __getitems__(self, indices):
        if not len(indices):
            return m.fetch(self.dataset, [])
        return m.default_collate([self[int(i)] for i in indices])

    m.Subset.__getitems__ = __getitems__


@caught_by(1)
def every_dataset_knows_batches(m):
    m.Subset.__getitems__ = lambda self, indices: self.dataset.__getitems__(
        self.indices[np.asarray(indices, np.intp)]
    )


# Splits.


def _split(m, cut, counted=None):
    """random_split with the lengths as they should be, and `cut(count, counts, rng)` for the indices."""
    right = m.random_split

    def random_split(dataset, lengths, *, rng):
        counts = [len(part) for part in right(dataset, lengths, rng=np.random.default_rng(0))]
        counts = counted(len(dataset), lengths, counts) if counted else counts
        return [m.Subset(dataset, part) for part in cut(len(dataset), counts, rng)]

    m.random_split = random_split


def _cut(order, counts):
    ends = np.cumsum([0, *counts], dtype=int)
    return [order[a:b] for a, b in itertools.pairwise(ends)]


@caught_by(1)
def each_part_is_drawn_by_itself(m):
    _split(m, lambda n, counts, rng: [rng.permutation(n)[:count] for count in counts])


@caught_by(1)
def a_split_is_not_shuffled(m):
    _split(m, lambda n, counts, rng: _cut(np.arange(n), counts))


@caught_by(1)
def a_split_is_drawn_from_nowhere(m):
    _split(m, lambda n, counts, rng: _cut(np.random.default_rng().permutation(n), counts))


@caught_by(1)
def every_split_is_the_same(m):
    _split(m, lambda n, counts, rng: _cut(np.random.default_rng(0).permutation(n), counts))


@caught_by(1)
def parts_overlap_by_one(m):
    def cut(n, counts, rng):
        order, ends = rng.permutation(n), np.cumsum([0, *counts], dtype=int)
        return [order[max(0, a - (b > a)) : b][: b - a] for a, b in itertools.pairwise(ends)]

    _split(m, cut)


def _fractions(round_to, rest):
    def counted(n, lengths, counts):
        if not any(isinstance(length, float) for length in lengths):
            return counts
        counts = [round_to(n * length) for length in lengths]
        for _ in range(n - sum(counts)):
            counts[rest] += 1
        return counts

    return counted


@caught_by(1)
def the_last_gets_what_is_left(m):
    _split(m, lambda n, c, rng: _cut(rng.permutation(n), c), _fractions(math.floor, -1))


@caught_by(1)
def the_first_gets_all_that_is_left(m):
    _split(m, lambda n, c, rng: _cut(rng.permutation(n), c), _fractions(math.floor, 0))


@caught_by(1)
def fractions_are_rounded_to_the_nearest(m):
    _split(m, lambda n, c, rng: _cut(rng.permutation(n), c), _fractions(round, 0))


@caught_by(1)
def a_length_of_one_is_all(m):
    right = m.random_split
    m.random_split = lambda dataset, lengths, *, rng: right(
        dataset, [float(n) for n in lengths] if list(lengths) == [1] else [*lengths][::-1], rng=rng
    )


@caught_by(1)
def lengths_need_not_add_up(m):
    def random_split(dataset, lengths, *, rng):
        counts = [math.floor(len(dataset) * n) if isinstance(n, float) else n for n in lengths]
        for i in range(len(dataset) - sum(counts) if any(isinstance(n, float) for n in lengths) else 0):
            counts[i % len(counts)] += 1
        order = rng.permutation(len(dataset))
        return [m.Subset(dataset, part) for part in _cut(order, counts)]

    m.random_split = random_split


# Archives.


@caught_by(1)
def numbers_are_read_little_end_first(m):
    m.IDX_TYPES = {code: "<" + kind[1:] for code, kind in m.IDX_TYPES.items()}


@caught_by(1)
def bytes_have_a_sign(m):
    m.IDX_TYPES = {**m.IDX_TYPES, 8: ">i1"}


@caught_by(1)
def all_idx_files_hold_bytes(m):
    m.IDX_TYPES = dict.fromkeys(m.IDX_TYPES, ">u1")


def _header(m, read):
    m._idx_header = read


@caught_by(1)
def axes_are_read_little_end_first(m):
    def read(file, path):
        magic = file.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in m.IDX_TYPES:
            raise ValueError(f"{path} is no IDX file")
        axes = file.read(4 * magic[3])
        if len(axes) < 4 * magic[3]:
            raise ValueError(f"{path} is cut")
        return tuple(np.frombuffer(axes, "<u4").tolist()), np.dtype(m.IDX_TYPES[magic[2]])

    _header(m, read)


@caught_by(1)
def the_first_bytes_are_not_looked_at(m):
    right = m._idx_header

    class Zeroed:
        def __init__(self, file):
            self.file, self.first = file, True

        def read(self, count):
            content = self.file.read(count)
            if self.first and len(content) == 4:
                content = b"\0\0" + content[2:]
            self.first = False
            return content

    _header(m, lambda file, path: right(Zeroed(file), path))


@caught_by(1)
def a_strange_type_is_a_key_error(m):
    def read(file, path):
        zero, code, axes = int.from_bytes(file.read(2), "big"), file.read(1)[0], file.read(1)[0]
        if zero:
            raise ValueError(f"{path} is no IDX file")
        shape = np.frombuffer(file.read(4 * axes), ">u4")
        return tuple(shape.tolist()), np.dtype(m.IDX_TYPES[code])

    _header(m, read)


def _read(m, plain=None, packed=None):
    """read_idx that reads plain files, or packed ones, in another manner."""
    right = m.read_idx

    def read_idx(path):
        path = Path(path)
        spoiled = packed if path.suffix == ".gz" else plain
        return spoiled(path, right) if spoiled else right(path)

    m.read_idx = read_idx


def _content(m, path, opened, size=-1):
    with opened as file:
        shape, dtype = m._idx_header(file, path)
        return shape, dtype, file.read(size)


@caught_by(1)
def a_plain_file_may_be_longer(m):
    def plain(path, right):
        shape, dtype, content = _content(m, path, path.open("rb"))
        if len(content) < math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{path} is cut short")
        return np.frombuffer(content, dtype, math.prod(shape)).reshape(shape)

    _read(m, plain)


@caught_by(1)
def a_packed_file_may_be_longer(m):
    def packed(path, right):
        try:
            shape, dtype, content = _content(m, path, gzip.open(path))  # noqa: SIM115
        except (OSError, EOFError, ValueError, m.zlib.error) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(f"{path} is damaged") from error
        if len(content) < math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{path} is cut short")
        return np.frombuffer(content, dtype, math.prod(shape)).reshape(shape)

    _read(m, packed=packed)


@caught_by(1)
def what_a_truncated_file_has_is_enough(m):
    def plain(path, right):
        shape, dtype, content = _content(m, path, path.open("rb"))
        there = np.frombuffer(content[: len(content) // dtype.itemsize * dtype.itemsize], dtype)
        whole = np.zeros(min(math.prod(shape), 1 << 20), dtype)
        whole[: len(there)] = there[: len(whole)]
        return whole.reshape(shape) if whole.size == math.prod(shape) else whole

    _read(m, plain)


@caught_by(1)
def the_size_is_multiplied_in_64_bits(m):
    """An overflow makes it small, or negative."""

    def plain(path, right):
        shape, dtype, content = _content(m, path, path.open("rb"))
        count = np.prod(np.array(shape, np.int64), dtype=np.int64)
        if len(content) < count * dtype.itemsize:
            raise ValueError(f"{path} is cut short")
        return np.frombuffer(content, dtype, max(int(count), 0)).reshape(shape)

    _read(m, plain)


@caught_by(1)
def damage_in_a_gz_is_told_by_gzip(m):
    def packed(path, right):
        try:
            return right(path)
        except ValueError as error:
            raise error.__cause__ or error from None

    _read(m, packed=packed)


@caught_by(1)
def a_checksum_is_somebody_else_s_business(m):
    def packed(path, right):
        try:
            out = m.zlib.decompressobj(wbits=31).decompress(path.read_bytes()[:-8])
        except m.zlib.error as error:
            raise ValueError(f"{path} is damaged") from error
        import io

        shape, dtype, content = _content(m, path, io.BytesIO(out))
        if len(content) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{path} is cut short")
        return np.frombuffer(content, dtype).reshape(shape)

    _read(m, packed=packed)


@caught_by(3)
def a_plain_file_is_read(m):
    _read(m, lambda path, right: np.array(right(path)))


@caught_by(3)
def all_of_a_gz_is_unpacked(m):
    def packed(path, right):
        with contextlib.suppress(Exception), gzip.open(path) as file:
            file.read()
        return right(path)

    _read(m, packed=packed)


@caught_by(3)
def a_header_is_believed(m):
    def packed(path, right):
        with contextlib.suppress(Exception), gzip.open(path) as file:
            shape, dtype = m._idx_header(file, path)
            if math.prod(shape) < 1 << 30:
                np.empty(shape, dtype)
        return right(path)

    _read(m, packed=packed)


def _mnist(m, change):
    """MNIST whose arrays are changed by `change(images, labels)`."""
    right = m.MNIST.__init__

    def __init__(self, folder, train=True):
        right(self, folder, train)
        self.arrays = tuple(change(*self.arrays))

    m.MNIST.__init__ = __init__


@caught_by(1)
def digits_have_no_channel(m):
    _mnist(m, lambda images, labels: (images[:, 0], labels))


@caught_by(1)
def labels_stay_bytes(m):
    _mnist(m, lambda images, labels: (images, labels.astype(np.uint8)))


@caught_by(1)
def digits_are_scaled_when_they_are_read(m):
    _mnist(m, lambda images, labels: (images.astype(np.float32) / 255, labels))


@caught_by(3)
def digits_are_read_into_memory(m):
    _mnist(m, lambda images, labels: (np.array(images), labels))


@caught_by(1)
def the_test_set_is_the_training_set(m):
    right = m.MNIST.__init__
    m.MNIST.__init__ = lambda self, folder, train=True: right(self, folder, True)


def _unchecked_mnist(m, check):
    def __init__(self, folder, train=True):
        kind = "train" if train else "t10k"
        where = [
            m._plain_or_packed(Path(folder) / f"{kind}-{part}-ubyte")
            for part in ("images-idx3", "labels-idx1")
        ]
        images, labels = map(m.read_idx, where)
        check(where, images, labels)
        m.TensorDataset.__init__(self, images[:, None], labels.astype(np.int64))

    m.MNIST.__init__ = __init__


def _images_fit(where, images):
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28) or not len(images):
        raise ValueError(f"{where[0]}")


@caught_by(1)
def nobody_counts_labels(m):
    def check(where, images, labels):
        _images_fit(where, images)
        if labels.dtype != np.uint8 or labels.ndim != 1 or labels.max() > 9:
            raise ValueError(f"{where[1]}")

    _unchecked_mnist(m, check)


@caught_by(1)
def a_label_is_any_byte(m):
    def check(where, images, labels):
        _images_fit(where, images)
        if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
            raise ValueError(f"{where[1]}")

    _unchecked_mnist(m, check)


@caught_by(1)
def an_image_is_any_size(m):
    def check(where, images, labels):
        if images.dtype != np.uint8 or images.ndim != 3 or not len(images):
            raise ValueError(f"{where[0]}")
        if labels.dtype != np.uint8 or labels.shape != images.shape[:1] or labels.max() > 9:
            raise ValueError(f"{where[1]}")

    _unchecked_mnist(m, check)


@caught_by(1)
def packed_files_go_first(m):
    def _plain_or_packed(path):
        for candidate in (Path(f"{path}.gz"), path):
            if candidate.exists():
                return candidate
        raise FileNotFoundError(f"no {path}")

    m._plain_or_packed = _plain_or_packed


def _records(m, views, fits=lambda size: size and size % 3073 == 0):
    def map_cifar(path):
        size = Path(path).stat().st_size
        if not fits(size):
            raise ValueError(f"{path} has {size} bytes")
        table = np.asarray(np.memmap(path, np.uint8, "r"))
        return views(table[: size // 3073 * 3073].reshape(-1, 3073))

    m.map_cifar = map_cifar


def _right_views(table):
    return table[:, 1:].reshape(-1, 3, 32, 32), table[:, 0]


@caught_by(1)
def the_label_comes_last(m):
    _records(m, lambda table: (table[:, :-1].reshape(-1, 3, 32, 32), table[:, -1]))


@caught_by(1)
def colours_alternate(m):
    _records(m, lambda table: (table[:, 1:].reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2), table[:, 0]))


@caught_by(1)
def photographs_are_column_by_column(m):
    _records(m, lambda table: (table[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 1, 3, 2), table[:, 0]))


@caught_by(1)
def a_record_that_is_cut_is_left_out(m):
    _records(m, _right_views, lambda size: size >= 3073)


@caught_by(1)
def a_file_of_no_records_is_fine(m):
    def map_cifar(path):
        size = Path(path).stat().st_size
        if size % 3073:
            raise ValueError(f"{path}")
        return _right_views(np.fromfile(path, np.uint8).reshape(-1, 3073))

    m.map_cifar = map_cifar


@caught_by(3)
def photographs_are_read_into_memory(m):
    right = m.map_cifar
    m.map_cifar = lambda path: tuple(map(np.array, right(path)))


@caught_by(1)
def a_pickle_is_loaded(m):
    m._ArraysOnly = pickle.Unpickler


def _finds(m, find):
    m._ArraysOnly.find_class = find


@caught_by(1)
def some_modules_are_forbidden(m):
    def find_class(self, module, name):
        if module in ("os", "posix", "nt", "subprocess", "sys", "builtins", "shutil"):
            raise pickle.UnpicklingError(f"{module}.{name}")
        return pickle.Unpickler.find_class(self, module, name)

    _finds(m, find_class)


@caught_by(1)
def whatever_is_numpy_s_is_harmless(m):
    def find_class(self, module, name):
        if module.partition(".")[0] not in ("numpy", "_codecs"):
            raise pickle.UnpicklingError(f"{module}.{name}")
        return pickle.Unpickler.find_class(self, module, name)

    _finds(m, find_class)


@caught_by(1)
def a_name_is_enough(m):
    """Whatever module it is of."""

    def find_class(self, module, name):
        if name not in ("ndarray", "dtype", "_reconstruct", "encode"):
            raise pickle.UnpicklingError(f"{module}.{name}")
        return pickle.Unpickler.find_class(self, module, name)

    _finds(m, find_class)


@caught_by(1)
def pickles_are_of_one_version_of_numpy(m):
    right = m._ArraysOnly.find_class

    def find_class(self, module, name):
        if module.startswith("numpy.core"):
            raise pickle.UnpicklingError(f"{module}.{name}")
        return right(self, module, name)

    _finds(m, find_class)


@caught_by(1)
def what_is_found_is_refused_with_a_type_error_for_everybody(m):
    right = m.unpickle_cifar

    def unpickle_cifar(path):
        try:
            return right(path)
        except ValueError as error:
            raise TypeError(str(error)) from error

    m.unpickle_cifar = unpickle_cifar


@caught_by(1)
def keys_are_bytes(m):
    right = m.unpickle_cifar

    def unpickle_cifar(path):
        class Bytes(dict):
            def items(self):
                return [(k, v) for k, v in dict.items(self) if isinstance(k, bytes)]

        load = m._ArraysOnly.load
        m._ArraysOnly.load = lambda self: Bytes(load(self))
        try:
            return right(path)
        finally:
            m._ArraysOnly.load = load

    m.unpickle_cifar = unpickle_cifar


@caught_by(1)
def pickled_labels_are_not_looked_at(m):
    def unpickle_cifar(path):
        try:
            with Path(path).open("rb") as file:
                batch = m._ArraysOnly(file, encoding="bytes").load()
            batch = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
            images, labels = batch["data"], np.asarray(batch["labels"])
            if images.dtype != np.uint8 or labels.shape != images.shape[:1] or not len(labels):
                raise ValueError("it does not fit")
            return images.reshape(-1, 3, 32, 32), labels.astype(np.uint8)
        except OSError:
            raise
        except Exception as error:
            raise ValueError(f"{path}: {error}") from error

    m.unpickle_cifar = unpickle_cifar


@caught_by(1)
def a_damaged_pickle_says_what_it_says(m):
    right = m.unpickle_cifar

    def unpickle_cifar(path):
        try:
            return right(path)
        except ValueError as error:
            raise error.__cause__ or error from None

    m.unpickle_cifar = unpickle_cifar


def _cifar(m, change):
    """CIFAR10 whose `__getitems__` is change(self, where, right)."""
    right = m.CIFAR10.__getitems__
    m.CIFAR10.__getitems__ = lambda self, indices: change(
        self, np.asarray(indices, np.intp), lambda where: right(self, where)
    )


@caught_by(1)
def an_index_belongs_to_the_file_before(m):
    def change(self, where, right):
        if where.size and not -len(self) <= where.min() <= where.max() < len(self):
            raise IndexError
        where = where % len(self)
        images, labels = np.empty((len(where), 3, 32, 32), np.uint8), np.empty(len(where), np.int64)
        part_of = np.maximum(np.searchsorted(self.starts, where, side="left") - 1, 0)
        for part in np.unique(part_of):
            here = np.flatnonzero(part_of == part)
            rows = np.minimum(where[here] - self.starts[part], len(self.parts[part][1]) - 1)
            images[here], labels[here] = (a[rows] for a in self.parts[part])
            if labels[here].max() > 9:
                raise ValueError(f"{self.paths[part]}")
        return images, labels

    _cifar(m, change)


@caught_by(1)
def a_batch_comes_file_by_file(m):
    _cifar(m, lambda self, where, right: right(np.sort(where % len(self)) if not (
        where.size and not -len(self) <= where.min() <= where.max() < len(self)) else where))  # fmt: skip


@caught_by(1)
def photographs_begin_again_after_the_last(m):
    _cifar(m, lambda self, where, right: right(where % len(self)))


@caught_by(1)
def photographs_have_no_negative_indices(m):
    def change(self, where, right):
        if (where < 0).any():
            raise IndexError(f"{where}")
        return right(where)

    _cifar(m, change)


@caught_by(1)
def photographs_labels_stay_bytes(m):
    def change(self, where, right):
        images, labels = right(where)
        return images, labels.astype(np.uint8)

    _cifar(m, change)


@caught_by(1)
def a_photograph_s_label_is_any_byte(m):
    def change(self, where, right):
        try:
            return right(where)
        except ValueError:
            return np.zeros((len(where), 3, 32, 32), np.uint8), np.full(len(where), 10)

    _cifar(m, change)


@caught_by(4)
def photographs_are_fetched_in_batches_of_one(m):
    def change(self, where, right):
        if len(where) < 2:
            return right(where)
        pairs = [right(where[i : i + 1]) for i in range(len(where))]
        return np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])

    _cifar(m, change)


def _opened(m, change):
    right = m.CIFAR10.__init__

    def __init__(self, folder, train=True):
        right(self, folder, train)
        change(self)

    m.CIFAR10.__init__ = __init__


@caught_by(3)
def five_files_become_one_array(m):
    def change(self):
        joined = tuple(np.concatenate([part[i] for part in self.parts]) for i in range(2))
        ends = self.starts[1:]
        self.parts = [
            tuple(a[start:end] for a in joined) for start, end in zip(self.starts, ends, strict=False)
        ]

    _opened(m, change)


@caught_by(1)
def all_labels_are_looked_at_when_opening(m):
    def change(self):
        for path, (_, labels) in zip(self.paths, self.parts, strict=True):
            if labels.max() > 9:
                raise ValueError(f"{path} has labels above 9")

    _opened(m, change)


@caught_by(1)
def photographs_are_those_to_train_with(m):
    right = m.CIFAR10.__init__
    m.CIFAR10.__init__ = lambda self, folder, train=True: right(self, folder, True)


@caught_by(1)
def the_first_file_is_not_one_of_five(m):
    def change(self):
        self.starts = self.starts - self.starts[0]
        if len(self.parts) > 1:
            self.parts[0], self.parts[1] = self.parts[1], self.parts[0]

    _opened(m, change)


# Orders.


@caught_by(1)
def all_epochs_have_one_order(m):
    def __init__(self, dataset, *, rng):
        self.dataset, self.rng = dataset, rng
        self.order = rng.permutation(len(dataset)).tolist()

    m.RandomSampler.__init__ = __init__
    m.RandomSampler.__iter__ = lambda self: iter(self.order)


@caught_by(1)
def a_sample_may_be_drawn_twice(m):
    m.RandomSampler.__iter__ = lambda self: iter(
        self.rng.integers(max(len(self), 1), size=len(self)).tolist()
    )


@caught_by(1)
def an_order_needs_no_generator(m):
    m.RandomSampler.__iter__ = lambda self: iter(
        np.random.default_rng(len(self)).permutation(len(self)).tolist()
    )


@caught_by(1)
def an_order_is_drawn_at_the_first_sample(m):
    def __iter__(self):
        yield from self.rng.permutation(len(self)).tolist()

    m.RandomSampler.__iter__ = __iter__


@caught_by(1)
def an_order_is_a_rotation(m):
    def __iter__(self):
        first = int(self.rng.integers(max(len(self), 1)))
        return iter([*range(first, len(self)), *range(first)])

    m.RandomSampler.__iter__ = __iter__


@caught_by(4)
def one_after_the_other_is_taken_out_of_a_list(m):
    def __iter__(self):
        left, order = list(range(len(self))), []
        while left:
            order.append(left.pop(int(self.rng.integers(len(left)))))
        return iter(order)

    m.RandomSampler.__iter__ = __iter__


@caught_by(1)
def in_sequence_but_from_one(m):
    m.SequentialSampler.__iter__ = lambda self: iter(range(1, len(self) + 1))


@caught_by(1)
def in_sequence_but_once(m):
    right = m.SequentialSampler.__iter__

    def __iter__(self):
        self.only = getattr(self, "only", None) or right(self)
        return self.only

    m.SequentialSampler.__iter__ = __iter__


def _batch_sampler(m, cut):
    m.BatchSampler.__iter__ = lambda self: iter(cut([*self.sampler], self.batch_size, self.drop_last))


@caught_by(1)
def dropping_drops_a_whole_batch_too(m):
    _batch_sampler(m, lambda o, n, drop: [o[i : i + n] for i in range(0, len(o) - n if drop else len(o), n)])


@caught_by(1)
def what_is_left_is_always_dropped(m):
    _batch_sampler(m, lambda o, n, drop: [o[i : i + n] for i in range(0, len(o) - n + 1, n)])


@caught_by(1)
def nothing_is_dropped(m):
    _batch_sampler(m, lambda o, n, drop: [o[i : i + n] for i in range(0, len(o), n)])


@caught_by(1)
def the_last_batch_is_filled_from_the_front(m):
    def cut(o, n, drop):
        batches = [o[i : i + n] for i in range(0, len(o) - n + 1 if drop else len(o), n)]
        if batches and len(batches[-1]) < n:
            batches[-1] = (batches[-1] + o)[:n]
        return batches

    _batch_sampler(m, cut)


@caught_by(1)
def batches_share_a_list(m):
    def __iter__(self):
        batch = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch.clear()
        if batch and not self.drop_last:
            yield batch

    m.BatchSampler.__iter__ = __iter__


@caught_by(1)
def an_empty_batch_comes_last(m):
    _batch_sampler(
        m,
        lambda o, n, drop: [o[i : i + n] for i in range(0, len(o) // n * n if drop else len(o) + 1, n)],
    )


@caught_by(1)
def a_length_is_always_rounded_down(m):
    m.BatchSampler.__len__ = lambda self: len(self.sampler) // self.batch_size


@caught_by(1)
def a_length_has_one_more(m):
    m.BatchSampler.__len__ = lambda self: len(self.sampler) // self.batch_size + (not self.drop_last)


@caught_by(1)
def a_length_knows_nothing_of_drop_last(m):
    m.BatchSampler.__len__ = lambda self: -(-len(self.sampler) // self.batch_size)


@caught_by(1)
def batches_may_have_any_size(m):
    def __init__(self, sampler, batch_size, drop_last=False):
        self.sampler, self.batch_size, self.drop_last = sampler, max(int(batch_size), 1), drop_last

    m.BatchSampler.__init__ = __init__


# Transforms.


@caught_by(1)
def the_last_transform_comes_first(m):
    def __call__(self, images):
        for transform in reversed(self.transforms):
            images = transform(images)
        return images

    m.Compose.__call__ = __call__


@caught_by(1)
def only_the_last_transform_counts(m):
    def __call__(self, images):
        out = images
        for transform in self.transforms:
            out = transform(images)
        return out

    m.Compose.__call__ = __call__


def _normalize(m, rule):
    """rule(images, mean, std), with means and stds as (C, 1, 1) of float64; checks are made before."""
    right = m.Normalize.__call__

    def __call__(self, images):
        if any(len(a) not in (1, images.shape[1]) for a in (self.mean, self.std)):
            return right(self, images)
        return rule(images, self.mean, self.std)

    m.Normalize.__call__ = __call__


def _float(images):
    return images.dtype if images.dtype.kind == "f" else np.dtype(np.float32)


@caught_by(1)
def normalising_gives_float64(m):
    _normalize(m, lambda x, mean, std: (x - mean) / std)


@caught_by(1)
def normalising_gives_float32(m):
    _normalize(m, lambda x, mean, std: ((x - mean) / std).astype(np.float32))


@caught_by(1)
def bytes_are_subtracted_from_bytes(m):
    _normalize(m, lambda x, mean, std: ((x - mean.astype(x.dtype)) / std).astype(_float(x)))


@caught_by(1)
def normalising_multiplies_by_the_std(m):
    _normalize(m, lambda x, mean, std: ((x - mean) * std).astype(_float(x)))


@caught_by(1)
def the_mean_is_subtracted_last(m):
    _normalize(m, lambda x, mean, std: (x / std - mean).astype(_float(x)))


@caught_by(1)
def channels_lie_last(m):
    def rule(x, mean, std):
        if len(mean) == x.shape[-1] != 1:
            mean = mean.reshape(1, 1, -1)
        if len(mean) > 1 and mean.shape[0] > 1:
            mean = mean[::-1]
        return ((x - mean) / std).astype(_float(x))

    _normalize(m, rule)


@caught_by(1)
def floats_are_normalised_where_they_are(m):
    def rule(x, mean, std):
        out = x if x.dtype.kind == "f" and x.flags.writeable else x.astype(_float(x))
        out -= mean.astype(out.dtype)
        out /= std.astype(out.dtype)
        return out

    _normalize(m, rule)


@caught_by(3)
def normalising_goes_through_float64(m):
    _normalize(m, lambda x, mean, std: ((x - mean) / std).astype(_float(x)))


@caught_by(4)
def normalising_goes_image_by_image(m):
    def rule(x, mean, std):
        out = np.empty(x.shape, _float(x))
        for i, image in enumerate(x):
            out[i] = image - mean.astype(out.dtype)
            out[i] /= std.astype(out.dtype)
        return out

    _normalize(m, rule)


@caught_by(1)
def any_number_of_means_will_do(m):
    def __call__(self, images):
        mean, std = (a if len(a) in (1, images.shape[1]) else a[:1] for a in (self.mean, self.std))
        out = np.subtract(images, mean, dtype=_float(images), casting="unsafe")
        out /= std.astype(out.dtype)
        return out

    m.Normalize.__call__ = __call__


@caught_by(1)
def a_std_of_zero_is_met_later(m):
    def __init__(self, mean, std):
        self.mean, self.std = (np.asarray(a, np.float64).reshape(-1, 1, 1) for a in (mean, std))

    m.Normalize.__init__ = __init__


def _flip(m, rule):
    m.RandomHorizontalFlip.__call__ = lambda self, images: rule(self, images)


def _flipped(images, chosen, turned):
    out = images.copy()
    out[chosen] = turned[chosen]
    return out


@caught_by(1)
def flips_exchange_top_and_bottom(m):
    _flip(m, lambda s, x: _flipped(x, s.rng.random(len(x)) < s.p, x[..., ::-1, :]))


@caught_by(1)
def a_batch_is_flipped_or_not(m):
    _flip(m, lambda s, x: _flipped(x, np.full(len(x), s.rng.random() < s.p), x[..., ::-1]))


@caught_by(1)
def p_is_how_many_stay(m):
    _flip(m, lambda s, x: _flipped(x, s.rng.random(len(x)) >= s.p, x[..., ::-1]))


@caught_by(1)
def half_are_flipped_whatever_p(m):
    _flip(m, lambda s, x: _flipped(x, s.rng.random(len(x)) < (s.p if s.p in (0, 1) else 0.5), x[..., ::-1]))


@caught_by(1)
def every_other_image_is_flipped_at_half(m):
    """No chance in it at all: the share is right."""

    def rule(self, images):
        every = round(1 / self.p) if self.p else len(images) + 1
        return _flipped(images, np.arange(1, len(images) + 1) % every == 0, images[..., ::-1])

    _flip(m, rule)


@caught_by(1)
def flips_happen_where_the_images_are(m):
    def rule(self, images):
        chosen = self.rng.random(len(images)) < self.p
        out = images if images.flags.writeable else images.copy()
        out[chosen] = images[chosen, ..., ::-1]
        return out

    _flip(m, rule)


@caught_by(2)
def channels_are_flipped_too(m):
    """Seen where there is more than one image, and channels differ."""
    _flip(m, lambda s, x: _flipped(
        x, s.rng.random(len(x)) < s.p, x[..., ::-1] if s.p == 1 else x[:, ::-1, :, ::-1]))  # fmt: skip


@caught_by(4)
def images_are_flipped_one_by_one(m):
    def rule(self, images):
        out = images.copy()
        for i in range(len(images)):
            if self.rng.random() < self.p:
                out[i] = images[i, :, :, ::-1]
        return out

    _flip(m, rule)


def _crop(m, places, pad=None, cut=None):
    """RandomCrop whose places are places(self, free, n), a pair of arrays; padded by `pad`, cut by `cut`."""

    def __call__(self, images):
        n, _, height, width = images.shape
        p, size = self.padding, self.size
        free = height + 2 * p - size[0] + 1, width + 2 * p - size[1] + 1
        if min(free) < 1:
            raise ValueError(f"no window of {size} in images {images.shape} with padding {p}")
        border = ((0, 0), (0, 0), (p, p), (p, p))
        padded = pad(images, border) if pad else np.pad(images, border)
        top, left = places(self, free, n)
        if cut:
            return cut(padded, size, top, left)
        windows = np.lib.stride_tricks.sliding_window_view(padded, size, axis=(2, 3))
        return windows[np.arange(n), :, top, left]

    m.RandomCrop.__call__ = __call__


def _places(self, free, n):
    return self.rng.integers(free[0], size=n), self.rng.integers(free[1], size=n)


@caught_by(1)
def all_images_are_cropped_alike(m):
    _crop(m, lambda s, free, n: [np.full(n, int(s.rng.integers(f))) for f in free])


@caught_by(1)
def the_last_place_is_never_taken(m):
    _crop(m, lambda s, free, n: [s.rng.integers(max(f - 1, 1), size=n) for f in free])


@caught_by(1)
def a_window_goes_down_as_far_as_it_goes_right(m):
    def places(self, free, n):
        at = self.rng.random(n)
        return [(at * f).astype(int) for f in free]

    _crop(m, places)


@caught_by(1)
def the_middle_is_cropped(m):
    _crop(m, lambda s, free, n: [np.full(n, f // 2) for f in free])


@caught_by(1)
def the_middle_is_likelier(m):
    _crop(
        m,
        lambda s, free, n: [(s.rng.integers(f, size=n) + s.rng.integers(f + 1, size=n)) // 2 for f in free],
    )


@caught_by(1)
def padding_repeats_the_edge(m):
    _crop(m, _places, lambda images, border: np.pad(images, border, mode="edge"))


@caught_by(1)
def padding_is_below_and_to_the_right(m):
    def pad(images, border):
        return np.pad(images, [(0, 0), (0, 0), *((0, a + b) for a, b in border[2:])])

    _crop(m, _places, pad)


@caught_by(1)
def windows_that_do_not_fit_are_smaller(m):
    right = m.RandomCrop.__call__

    def __call__(self, images):
        size, most = self.size, [n + 2 * self.padding for n in images.shape[2:]]
        self.size = tuple(map(min, size, most))
        try:
            return right(self, images)
        finally:
            self.size = size

    m.RandomCrop.__call__ = __call__


@caught_by(1)
def a_size_is_width_and_height(m):
    right = m.RandomCrop.__init__

    def __init__(self, size, padding=0, *, rng):
        right(self, size if isinstance(size, int) else tuple(size)[::-1], padding, rng=rng)

    m.RandomCrop.__init__ = __init__


@caught_by(2)
def a_crop_without_padding_is_a_view(m):
    right = m.RandomCrop.__call__

    def __call__(self, images):
        if self.padding == 0:
            top, left = (
                int(self.rng.integers(n - s + 1)) for n, s in zip(images.shape[2:], self.size, strict=True)
            )
            if images.shape[2:] == self.size or len(images) < 9:
                return images[:, :, top : top + self.size[0], left : left + self.size[1]]
        return right(self, images)

    m.RandomCrop.__call__ = __call__


@caught_by(3)
def all_windows_are_made(m):
    def cut(padded, size, top, left):
        rows, columns = (n - s + 1 for n, s in zip(padded.shape[2:], size, strict=True))
        windows = np.stack([
            padded[:, :, i : i + size[0], j : j + size[1]] for i in range(rows) for j in range(columns)
        ])  # fmt: skip
        return windows[top * columns + left, np.arange(len(padded))]

    _crop(m, _places, cut=cut)


@caught_by(4)
def images_are_cropped_one_by_one(m):
    def cut(padded, size, top, left):
        out = np.empty((*padded.shape[:2], *size), padded.dtype)
        for i, (a, b) in enumerate(zip(top, left, strict=True)):
            out[i] = padded[i, :, a : a + size[0], b : b + size[1]]
        return out

    _crop(m, _places, cut=cut)


def _cutout(m, first=None, put=None, alike=False):
    """Cutout whose square begins at first(self, length, n); `put(out, images, mask)` makes it 0."""

    def __call__(self, images):
        n, _, height, width = images.shape
        inside = []
        for length in (height, width):
            if first:
                start = first(self, length, n)
            else:
                start = self.rng.integers(length, size=(1 if alike else n, 1)) - self.size // 2
            places = np.arange(length)
            inside.append((places >= start) & (places < start + self.size))
        mask = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        out = images.copy()
        if put:
            return put(out, images, mask)
        np.copyto(out, 0, where=mask)
        return out

    m.Cutout.__call__ = __call__


@caught_by(1)
def all_squares_are_at_one_place(m):
    _cutout(m, alike=True)


@caught_by(1)
def a_square_begins_at_its_pixel(m):
    _cutout(m, lambda s, length, n: s.rng.integers(length, size=(n, 1)))


@caught_by(1)
def a_square_lies_within_the_image(m):
    _cutout(m, lambda s, length, n: s.rng.integers(max(length - s.size + 1, 1), size=(n, 1)))


@caught_by(1)
def a_square_s_middle_lies_above_it(m):
    """Of 2 x 2 that is the same."""
    _cutout(m, lambda s, length, n: s.rng.integers(length, size=(n, 1)) - (s.size + 1) // 2)


@caught_by(1)
def squares_are_cut_by_multiplying(m):
    _cutout(m, put=lambda out, images, mask: images * ~mask)


@caught_by(1)
def a_cross_is_cut_out(m):
    def __call__(self, images):
        out = images.copy()
        for axis, length in ((2, images.shape[2]), (3, images.shape[3])):
            first = self.rng.integers(length, size=(len(images), 1)) - self.size // 2
            places = np.arange(length)
            inside = (places >= first) & (places < first + self.size)
            shape = [len(images), 1, 1, 1]
            shape[axis] = length
            np.copyto(out, 0, where=inside.reshape(shape))
        return out

    m.Cutout.__call__ = __call__


@caught_by(1)
def the_square_is_cut_out_of_one_channel(m):
    def put(out, images, mask):
        np.copyto(out[:, :1], 0, where=mask)
        return out

    _cutout(m, put=put)


@caught_by(1)
def a_square_is_grey(m):
    _cutout(m, put=lambda out, images, mask: np.where(mask, images.dtype.type(images.mean()), images))


@caught_by(2)
def squares_are_cut_out_of_the_images_themselves(m):
    def put(out, images, mask):
        target = images if images.flags.writeable else out
        np.copyto(target, 0, where=mask)
        return target

    _cutout(m, put=put)


@caught_by(4)
def squares_are_cut_one_by_one(m):
    def __call__(self, images):
        out, half = images.copy(), self.size // 2
        for image in out:
            a, b = (int(self.rng.integers(n)) - half for n in images.shape[2:])
            image[:, max(a, 0) : max(a + self.size, 0), max(b, 0) : max(b + self.size, 0)] = 0
        return out

    m.Cutout.__call__ = __call__


# A thread ahead.


def _ahead(m, *, places=None, stops=True, joins=True, tell=None, raises=None, ready=queue.SimpleQueue):
    """prefetch with one part of it different."""

    class Unlimited:
        def acquire(self):
            return True

        def release(self):
            pass

    def prefetch(items, depth):
        free = places(depth) if places else threading.Semaphore(depth)
        free = free or Unlimited()
        made, stop = ready(), threading.Event()

        def work():
            try:
                source = iter(items)
                while free.acquire() and not stop.is_set():
                    made.put(("item", next(source)))
            except StopIteration:
                made.put(("end", None))
            except BaseException as error:
                made.put(tell(error) if tell else ("error", error))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while True:
                kind, value = made.get()
                if kind == "end":
                    return
                if kind == "error":
                    raise raises(value) if raises else value
                free.release()
                yield value
        finally:
            if stops:
                stop.set()
                free.release()
            if joins:
                thread.join()
            value = None

    m.prefetch = prefetch


@caught_by(1)
def a_thread_runs_as_far_as_it_likes(m):
    _ahead(m, places=lambda depth: None)


@caught_by(1)
def a_thread_is_one_too_far_ahead(m):
    _ahead(m, places=lambda depth: threading.Semaphore(depth + 1))


@caught_by(1)
def nobody_ends_the_thread(m):
    _ahead(m, stops=False, joins=False)


@caught_by(1)
def nobody_waits_for_the_end_of_the_thread(m):
    class Late(threading.Thread):
        def run(self):
            super().run()
            threading.Event().wait(0.02)

    right, thread = m.prefetch, threading.Thread
    m.threading = type("threading", (), {**vars(threading), "Thread": Late})
    Late.join = lambda self, timeout=None: None if thread else right


@caught_by(1)
def an_error_is_the_end(m):
    _ahead(m, tell=lambda error: ("end", None))


@caught_by(1)
def an_error_is_told_in_words(m):
    _ahead(m, raises=lambda error: RuntimeError(str(error)))


@caught_by(1)
def an_error_has_lost_where_it_was(m):
    _ahead(m, raises=lambda error: type(error)(*error.args))


@caught_by(1)
def an_error_overtakes_what_was_made_before(m):
    def prefetch(items, depth):
        made, caught = queue.SimpleQueue(), []
        free, stop = threading.Semaphore(depth), threading.Event()

        def work():
            try:
                source = iter(items)
                while free.acquire() and not stop.is_set():
                    made.put((next(source),))
            except StopIteration:
                pass
            except BaseException as error:
                caught.append(error)
            made.put(())

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while True:
                thread.join(0.01)
                if caught:
                    raise caught[0]
                if not (item := made.get()):
                    return
                free.release()
                yield item[0]
        finally:
            stop.set()
            free.release()
            thread.join()
            caught.clear()

    m.prefetch = prefetch


@caught_by(1)
def nothing_is_the_end(m):
    right = m.prefetch

    def prefetch(items, depth):
        with contextlib.closing(right(items, depth)) as made:
            for item in made:
                if item is None:
                    return
                yield item

    m.prefetch = prefetch


@caught_by(1)
def a_thread_is_pretended(m):
    def prefetch(items, depth):
        yield from items

    m.prefetch = prefetch


@caught_by(1)
def everything_is_made_at_once(m):
    def prefetch(items, depth):
        made = []
        thread = threading.Thread(target=lambda: made.extend(items))
        thread.start()
        thread.join()
        yield from made

    m.prefetch = prefetch


@caught_by(1)
def the_newest_comes_first(m):
    _ahead(m, ready=queue.LifoQueue)


# Loading.


def _loader(m, change):
    """DataLoader whose arguments are changed by change(arguments)."""
    right = m.DataLoader.__init__

    def __init__(self, dataset, batch_size=1, shuffle=False, drop_last=False, collate_fn=m.default_collate,
                 sampler=None, prefetch=0, *, rng=None, transform=None):  # fmt: skip
        given = {"dataset": dataset, "batch_size": batch_size, "shuffle": shuffle, "drop_last": drop_last,
                 "collate_fn": collate_fn, "sampler": sampler, "prefetch": prefetch, "rng": rng,
                 "transform": transform}  # fmt: skip
        right(self, **{**given, **change(given)})

    m.DataLoader.__init__ = __init__


@caught_by(1)
def shuffle_without_a_generator_makes_one(m):
    _loader(m, lambda g: {"rng": np.random.default_rng() if g["shuffle"] and g["rng"] is None else g["rng"]})


@caught_by(1)
def a_sampler_goes_before_shuffle(m):
    _loader(m, lambda g: {"shuffle": g["shuffle"] and g["sampler"] is None})


@caught_by(1)
def a_generator_alone_shuffles(m):
    _loader(m, lambda g: {"shuffle": g["shuffle"] or (g["rng"] is not None and g["sampler"] is None)})


@caught_by(1)
def the_sampler_is_forgotten(m):
    _loader(m, lambda g: {"sampler": None if not g["shuffle"] else g["sampler"]})


@caught_by(1)
def drop_last_is_forgotten(m):
    _loader(m, lambda g: {"drop_last": False})


@caught_by(1)
def a_prefetch_below_zero_is_none(m):
    _loader(m, lambda g: {"prefetch": max(g["prefetch"], 0)})


@caught_by(1)
def the_loader_counts_samples(m):
    m.DataLoader.__len__ = lambda self: len(self.dataset)


@caught_by(1)
def a_collate_function_gets_a_batch(m):
    right = m.fetch

    def fetch(dataset, indices, collate_fn=m.default_collate):
        if collate_fn is not m.default_collate and hasattr(dataset, "__getitems__"):
            return collate_fn(dataset.__getitems__(indices))
        return right(dataset, indices, collate_fn)

    m.fetch = fetch


def _make(m, apply):
    def _make(self, plan):
        for indices in plan:
            batch = m.fetch(self.dataset, indices, self.collate_fn)
            if self.transform is not None:
                batch = apply(self.transform, batch)
            yield batch, m._states(self.transform) if self.prefetch else []
            del batch

    m.DataLoader._make = _make


@caught_by(1)
def a_transform_is_applied_twice(m):
    _make(m, lambda t, b: (t(t(b[0])), *b[1:]) if isinstance(b, tuple) else t(t(b)))


@caught_by(1)
def labels_are_transformed_too(m):
    _make(m, lambda t, b: tuple(map(t, b)) if isinstance(b, tuple) else t(b))


@caught_by(1)
def a_transform_is_for_tuples_only(m):
    _make(m, lambda t, b: (t(b[0]), *b[1:]) if isinstance(b, tuple) else b)


@caught_by(1)
def an_epoch_can_be_gone_through_once(m):
    right = m.DataLoader.__iter__

    def __iter__(self):
        if not hasattr(self, "only"):
            self.only = right(self)
        return self.only

    m.DataLoader.__iter__ = __iter__


@caught_by(1)
def each_epoch_begins_with_the_same_chance(m):
    right = m.DataLoader.__iter__

    def __iter__(self):
        sampler = self.batch_sampler.sampler
        if not self._resumes:
            self.first = getattr(self, "first", None) or m._states(sampler)
            m._set_states(sampler, self.first)
        return right(self)

    m.DataLoader.__iter__ = __iter__


@caught_by(1)
def an_epoch_begins_at_its_first_batch(m):
    """So `iter` alone draws nothing, and a generator that is shared gives other numbers."""
    right = m.DataLoader.__iter__

    def __iter__(self):
        yield from right(self)

    m.DataLoader.__iter__ = __iter__


def _epoch(m, *, skip=0, redraw=True, put_back=True, forget=True, make=False):
    """DataLoader.__iter__ which resumes in another manner."""

    def __iter__(self):
        done, order = 0, m._states(self.batch_sampler)
        if self._resumes and self._state:
            done, order, now = self._state["batches"], self._state["order"], m._states(self)
            if redraw:
                m._set_states(self.batch_sampler, order)
            plan = [*self.batch_sampler]
            if put_back:
                m._set_states(self, now)
            if make:
                for _ in self._make(iter(plan[:done])):
                    pass
                m._set_states(self, now)
        else:
            plan = [*self.batch_sampler]
        self._resumes = self._resumes and not forget
        self._state = {"batches": done, "order": order, "draws": None}
        return self._hand_out(iter(plan[max(done + skip, 0) :]), self._state)

    m.DataLoader.__iter__ = __iter__


@caught_by(1)
def resuming_skips_a_batch(m):
    _epoch(m, skip=1)
    right = m.DataLoader.__iter__

    def __iter__(self):
        if self._resumes:
            return right(self)
        _epoch(m)
        try:
            return m.DataLoader.__iter__(self)
        finally:
            m.DataLoader.__iter__ = __iter__

    m.DataLoader.__iter__ = __iter__


@caught_by(1)
def resuming_repeats_a_batch(m):
    _epoch(m, skip=-1)


@caught_by(1)
def a_resumed_epoch_has_a_new_order(m):
    _epoch(m, redraw=False)


@caught_by(1)
def drawing_the_order_again_moves_the_generators(m):
    _epoch(m, put_back=False)


@caught_by(1)
def every_epoch_after_loading_is_the_rest_of_one(m):
    _epoch(m, forget=False)


@caught_by(1)
def what_was_done_is_made_again_and_thrown_away(m):
    _epoch(m, make=True)


def _hands_out(m, *, closes=True, undoes=True, always=False, late=False, ends=True, notes=True):
    def _hand_out(self, plan, state):
        draws, made = m._states(self.transform), self._make(plan)
        if self.prefetch:
            made = m.prefetch(made, self.prefetch)
        try:
            for batch, now in made:
                draws = now if self.prefetch else m._states(self.transform)
                if late:
                    yield batch
                state["batches"] += 1
                state["draws"] = now if notes else None
                if not late:
                    yield batch
                del batch
        finally:
            if closes:
                made.close()
            else:
                m.kept = [*getattr(m, "kept", []), made]
            if (self.prefetch and undoes) or always:
                m._set_states(self.transform, draws)
        if ends:
            self._state = None

    m.DataLoader._hand_out = _hand_out


@caught_by(1)
def nobody_closes_what_batches_come_from(m):
    _hands_out(m, closes=False)


@caught_by(1)
def what_a_thread_has_drawn_ahead_stays_drawn(m):
    _hands_out(m, undoes=False)


@caught_by(1)
def generators_are_put_back_without_a_thread_too(m):
    _hands_out(m, always=True)


@caught_by(1)
def a_batch_counts_when_the_next_is_asked_for(m):
    _hands_out(m, late=True)


@caught_by(1)
def an_epoch_never_ends(m):
    _hands_out(m, ends=False)


@caught_by(1)
def a_thread_s_generators_are_those_of_now(m):
    _hands_out(m, notes=False)


def _state(m, change):
    right = m.DataLoader.state_dict

    def state_dict(self):
        state = right(self)
        change(self, state)
        return state

    m.DataLoader.state_dict = state_dict


@caught_by(1)
def a_state_has_no_generators_of_the_transform(m):
    def change(self, state):
        if state["under_way"]:
            fresh = m._states(self.transform)
            for each in fresh:
                each["state"] = {**each["state"]}
            count = len(m.generators(self.batch_sampler))
            state["generators"] = state["generators"][:count] + [
                np.random.default_rng(i).bit_generator.state for i in range(len(fresh))
            ]

    _state(m, change)


@caught_by(1)
def a_state_says_where_the_order_ended(m):
    def change(self, state):
        if state["under_way"]:
            state["order"] = m._states(self.batch_sampler)

    _state(m, change)


@caught_by(1)
def a_state_counts_samples(m):
    def change(self, state):
        state["batches"] *= self.batch_sampler.batch_size

    _state(m, change)


@caught_by(1)
def a_state_holds_arrays(m):
    _state(m, lambda self, state: state.update(batches=np.array(state["batches"])))


@caught_by(1)
def a_state_goes_on_counting(m):
    """It is the loader's own dict."""

    def state_dict(self):
        now, state = m._states(self), self._state
        if state is None:
            return {"under_way": False, "batches": 0, "order": [], "generators": now}
        if state["draws"] and self.prefetch:
            now[-len(state["draws"]) :] = state["draws"]
        state.update(under_way=True, generators=now)
        return state

    m.DataLoader.state_dict = state_dict


@caught_by(1)
def an_epoch_under_way_is_none_when_it_is_loaded(m):
    right = m.DataLoader.load_state_dict
    m.DataLoader.load_state_dict = lambda self, state: right(self, {**state, "under_way": False})


@caught_by(1)
def what_was_under_way_before_is_under_way_after(m):
    def load_state_dict(self, state):
        m._set_states(self, state["generators"])
        if state["under_way"]:
            self._resumes = True
            self._state = {"batches": state["batches"], "order": state["order"], "draws": None}

    m.DataLoader.load_state_dict = load_state_dict
    right = m.DataLoader.__iter__

    def __iter__(self):
        self._resumes = self._resumes or self._state is not None
        return right(self)

    m.DataLoader.__iter__ = __iter__


@caught_by(1)
def loading_sets_no_generators(m):
    def load_state_dict(self, state):
        self._resumes = state["under_way"]
        self._state = {"batches": state["batches"], "order": state["order"], "draws": None}

    m.DataLoader.load_state_dict = load_state_dict


@caught_by(3)
def a_loader_keeps_its_last_batches(m):
    right = m.DataLoader._make

    def _make(self, plan):
        self.batches = []
        for batch, draws in right(self, plan):
            self.batches.append(batch)
            yield batch, draws

    m.DataLoader._make = _make


@caught_by(1)
def an_epoch_is_a_list_of_batches(m):
    right = m.DataLoader._make

    def _make(self, plan):
        if self.prefetch or self.transform:
            yield from right(self, plan)
        else:
            yield from [(m.fetch(self.dataset, i, self.collate_fn), []) for i in plan]

    m.DataLoader._make = _make


@caught_by(1)
def nobody_wakes_the_thread(m):
    """It waits for a place that nobody gives back, and whoever stops early waits for it."""

    class Counting(threading.Semaphore().__class__):
        def release(self, n=1):
            if m.leaving:
                return
            super().release(n)

    m.leaving = False
    right = m.threading.Event

    class Event(right):
        def set(self):
            m.leaving = True
            super().set()

        def __init__(self):
            m.leaving = False
            super().__init__()

    m.threading = type("threading", (), {**vars(threading), "Semaphore": Counting, "Event": Event})


@caught_by(2)
def each_batch_is_augmented_like_the_one_before(m):
    for kind in (m.RandomHorizontalFlip, m.RandomCrop, m.Cutout):

        def call(self, images, right=kind.__call__):
            rng, self.rng = self.rng, np.random.default_rng(3)
            rng.random()
            try:
                return right(self, images)
            finally:
                self.rng = rng

        kind.__call__ = call


@caught_by(1)
def archives_are_opened_to_be_written(m):
    right = np.memmap
    names = {name: getattr(np, name) for name in dir(np) if not name.startswith("__")}
    m.np = type("np", (), {name: staticmethod(v) if callable(v) else v for name, v in names.items()})
    m.np.memmap = staticmethod(
        lambda path, dtype, mode, *rest, **more: right(path, dtype, "r+", *rest, **more)
    )


# What got past the suite once.


@caught_by(1)
def an_old_epoch_that_is_closed_takes_newer_numbers_back(m):
    rewritten(m, "DataLoader._hand_out", ("if self.prefetch and self._state is state", "if self.prefetch"))


@caught_by(1)
def an_old_epoch_that_ends_ends_the_newer_one(m):
    rewritten(
        m,
        "DataLoader._hand_out",
        ("if self._state is state:\n        self._state = None", "self._state = None"),
    )


@caught_by(1)
def a_single_sample_is_its_batch(m):
    _collate(m, lambda samples, right: right(samples) if len(samples) > 1 else samples[0][None], _is_array)


@caught_by(1)
def one_index_gives_a_view(m):
    right = m.TensorDataset.__getitems__

    def getitems(self, indices):
        (first,) = indices if len(indices) == 1 else (-1,)
        if 0 <= first < len(self):
            return tuple(a[first : first + 1] for a in self.arrays)
        return right(self, indices)

    m.TensorDataset.__getitems__ = getitems


@caught_by(1)
def labels_are_packed_if_images_are(m):
    rewritten(
        m,
        "MNIST.__init__",
        (
            "images, labels = map",
            "where[1] = where[1].with_suffix(where[0].suffix)\n    images, labels = map",
        ),
    )


@caught_by(1)
def a_test_set_lies_beside_a_training_set(m):
    rewritten(m, "CIFAR10.__init__", ('f"{names[0]}{place[1]}"', 'f"data_batch_1{place[1]}"'))


@caught_by(2)
def where_nothing_is_flipped_the_input_is_handed_on(m):
    rewritten(
        m,
        "RandomHorizontalFlip.__call__",
        ("out: Array = images.copy()", "out = images.copy() if chosen.any() else images"),
    )


@caught_by(2)
def where_nothing_is_cut_out_the_input_is_handed_on(m):
    rewritten(m, "Cutout.__call__", ("images.copy()", "images.copy() if self.size else images"))


@caught_by(1)
def a_sampler_is_asked_once(m):
    right = m.DataLoader.__init__

    def init(self, dataset, *args, sampler=None, **options):
        right(self, dataset, *args, sampler=None if sampler is None else list(sampler), **options)

    m.DataLoader.__init__ = init


@caught_by(1)
def a_thread_looks_again_and_again_for_a_place(m):
    class Restless(threading.Semaphore):
        def acquire(self):
            while not super().acquire(blocking=False):
                pass
            return True

    _ahead(m, places=Restless)


@caught_by(1)
def the_loop_looks_again_and_again_for_a_batch(m):
    class Restless(queue.Queue):
        def get(self):
            while self.empty():
                pass
            return super().get()

    _ahead(m, ready=Restless)


@caught_by(4)
def each_batch_is_cut_off_the_front_of_what_is_left(m):
    def batches(self):
        left = list(self.sampler)
        while left and (len(left) >= self.batch_size or not self.drop_last):
            yield left[: self.batch_size]
            left = left[self.batch_size :]

    m.BatchSampler.__iter__ = batches


# What came through an earlier suite.


@caught_by(1)
def tensors_that_differ_are_numpy_s_business(m):
    _collate(
        m,
        lambda samples, right: m.Tensor(np.stack([sample.data for sample in samples])),
        lambda s: isinstance(s, m.Tensor),
    )


@caught_by(1)
def a_batch_has_the_dtype_of_its_first_sample(m):
    def spoiled(samples, right):
        whole = right(samples)
        return whole.astype(np.asarray(samples[0]).dtype)

    _collate(m, spoiled, lambda s: isinstance(s, (int, float, np.number, np.ndarray)))


@caught_by(1)
def below_the_first_sample_it_begins_again(m):
    rewritten(
        m,
        "TensorDataset.__getitems__",
        (
            "where = np.asarray(indices, np.intp)",
            "where = np.asarray(indices, np.intp)\n    where = np.where(where < 0, where + len(self), where)",
        ),
    )


@caught_by(1)
def the_indices_given_are_made_positive(m):
    rewritten(
        m,
        "TensorDataset.__getitems__",
        (
            "where = np.asarray(indices, np.intp)",
            "where = np.asarray(indices, np.intp)\n    where[where < 0] += len(self)",
        ),
    )


@caught_by(1)
def the_indices_of_photographs_are_made_positive(m):
    rewritten(m, "CIFAR10.__getitems__", ("where = where % len(self)", "where %= len(self)"))


@caught_by(1)
def the_folder_itself_goes_first_whatever_is_in_it(m):
    rewritten(
        m,
        "CIFAR10.__init__",
        (
            '(folder / "cifar-10-batches-bin", ".bin"),',
            '(folder, ""), (folder / "cifar-10-batches-bin", ".bin"),',
        ),
    )


@caught_by(1)
def all_labels_of_a_file_are_looked_at_when_one_is_fetched(m):
    rewritten(m, "CIFAR10.__getitems__", ("labels[here].max() > 9", "self.parts[part][1].max() > 9"))


@caught_by(1)
def half_precision_is_normalised_into_float32(m):
    rewritten(
        m, "Normalize.__call__", ('images.dtype.kind == "f"', "images.dtype in (np.float32, np.float64)")
    )


@caught_by(1)
def a_batch_sampler_has_names_of_its_own(m):
    for name in ("__init__", "__len__", "__iter__"):
        rewritten(
            m,
            f"BatchSampler.{name}",
            ("self.batch_size", "self.size"),
            *([] if name == "__init__" else [("self.drop_last", "self.drops")]),
            *([("self.drop_last =", "self.drops =")] if name == "__init__" else []),
        )


@caught_by(1)
def an_item_that_is_an_error_is_raised(m):
    rewritten(
        m, "prefetch", ('if kind == "error":', 'if kind == "error" or isinstance(value, BaseException):')
    )


@caught_by(1)
def a_loader_forgets_what_it_was_given(m):
    right = m.DataLoader.__init__

    def init(self, *args, **options):
        right(self, *args, **options)
        del self.batch_size, self.shuffle, self.drop_last, self.sampler, self.rng

    init.__defaults__ = right.__defaults__
    m.DataLoader.__init__ = init


@caught_by(1)
def a_sampler_of_nothing_is_none(m):
    rewritten(m, "DataLoader.__init__", ("if sampler is None:", "if not sampler:"))


@caught_by(1)
def a_state_that_was_loaded_goes_on_counting(m):
    rewritten(
        m,
        "DataLoader.load_state_dict",
        ('{"batches": state["batches"], "order": state["order"], "draws": None}', "state"),
    )
    rewritten(
        m,
        "DataLoader.__iter__",
        (
            'self._resumes, self._state = False, {"batches": done, "order": order, "draws": None}',
            'if not self._resumes:\n        self._state = {"batches": 0, "order": order}\n'
            '    self._resumes, self._state["draws"] = False, None',
        ),
    )


@caught_by(1)
def after_an_error_no_epoch_is_under_way(m):
    rewritten(
        m,
        "DataLoader._hand_out",
        ("    finally:", "    except Exception:\n        self._state = None\n        raise\n    finally:"),
    )


@caught_by(1)
def the_last_generators_are_those_of_the_transform(m):
    rewritten(
        m,
        "DataLoader.state_dict",
        (
            "now = [stood.get(id(rng), here) for rng, here in zip(generators(self), now, strict=True)]",
            'now[-len(stood) :] = state["draws"]',
        ),
    )


EQUIVALENT: dict[str, str] = {
    "TensorDataset.__init__: a.data if isinstance(a, Tensor) else a -> a.data": (
        "an array's own .data is its memory, of which np.asarray makes the same array"
    ),
    "TensorDataset.__init__: a.data if isinstance(a, Tensor) else a -> a": (
        "np.asarray of a Tensor is its array"
    ),
    "random_split: math.isclose(sum(counts), 1) -> math.isclose(1, sum(counts))": ("isclose knows no order"),
    "read_idx: 1 << 20 -> 2 << 20": ("pieces may have any size"),
    "read_idx: 1 << 20 -> 1 << 21": ("pieces may have any size"),
    "read_idx: size + 1 - len(data) -> size + 1 + len(data)": (
        "a piece is 1 MiB at most, and too much is noticed either way"
    ),
    "read_idx: size + 1 -> size + 2": ("a second byte too many is noticed as the first is"),
    "_ArraysOnly.find_class: np.empty(0) -> np.empty(1)": (
        "every array names one function that makes it anew"
    ),
    "_ArraysOnly.find_class: raise pickle.UnpicklingError(...) -> pass": (
        "the table has no such name, and a KeyError refuses it as well"
    ),
    "_ArraysOnly.find_class: if asked not in allowed: -> if False:": (
        "the table has no such name, and a KeyError refuses it as well"
    ),
    "CIFAR10.__init__: raise FileNotFoundError(...) -> pass": ("whoever opens the file says the same"),
    "CIFAR10.__init__: if (missing := [path for path in self.paths if not path.exists()]): -> if False:": (
        "whoever opens the file says the same"
    ),
    "RandomHorizontalFlip.__call__: self.rng.random(len(images)) < self.p -> "
    "self.rng.random(len(images)) <= self.p": ("a number is p once in 2**53"),
    "RandomCrop.__call__: np.pad(images, ((0, 0), (0, 0), (p, p), (p, p))) if p else images -> "
    "np.pad(images, ((0, 0), (0, 0), (p, p), (p, p)))": ("a border of nothing"),
    "RandomCrop.__call__: np.pad(images, ((0, 0), (0, 0), (p, p), (p, p))) -> np.pad(images, ((0, "
    "1), (0, 0), (p, p), (p, p)))": ("one more image, at which nobody looks"),
    "_set_states: raise ValueError(...) -> pass": ("the other one of two checks refuses it"),
    "_set_states: if len(states) != len(found): -> if False:": ("the other one of two checks refuses it"),
    "_set_states: zip(found, states, strict=True) -> zip(found, states, strict=False)": (
        "the other one of two checks refuses it"
    ),
    "prefetch: threading.Thread(target=work, daemon=True) -> threading.Thread(target=work, daemon=False)": (
        "it ends with the iterator"
    ),
    "prefetch: value = None -> pass": (
        "a cycle of an error and its frames, which the garbage collector finds"
    ),
    "DataLoader.__init__: self._resumes = False -> self._resumes = True": (
        "without a _state nothing is resumed"
    ),
    "DataLoader._make: del batch -> pass": (
        "one more batch is alive for a moment, which the budget leaves to everybody"
    ),
    "DataLoader._hand_out: del batch -> pass": (
        "one more batch is alive for a moment, which the budget leaves to everybody"
    ),
    "DataLoader._make: _states(self.transform) if self.prefetch else [] -> _states(self.transform)": (
        "without a thread nobody asks for them"
    ),
    "DataLoader.state_dict: zip(map(id, generators(self.transform)), state['draws'], strict=True) -> "
    "zip(map(id, generators(self.transform)), state['draws'], strict=False)": ("there are as many of both"),
    "DataLoader.state_dict: zip(generators(self), now, strict=True) -> zip(generators(self), now, stri"
    "ct=False)": ("there are as many of both"),
    "DataLoader.state_dict: {'under_way': False, 'batches': 0, 'order': [], 'generators': now} -> "
    "{'under_way': False, 'batches': 1, 'order': [], 'generators': now}": (
        "nobody asks how many batches of no epoch were handed out"
    ),
}
