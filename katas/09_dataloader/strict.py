"""What a trusted grade asks of kata 09: each check on fresh numbers, its answers as one array."""

import gzip
import json
import pickle
import struct
import tempfile
import threading
from pathlib import Path

import numpy as np

from dojo.strict import Check

# Batches in sequence, of subsets of subsets, with and without a thread.


def draw_batches(rng):
    count = int(rng.integers(20, 60))
    outer = rng.integers(0, count, int(rng.integers(15, 40)))
    return {
        "x": rng.normal(size=(count, 3)),
        "outer": outer,
        "inner": rng.integers(0, len(outer), int(rng.integers(10, 30))),
        "options": np.array([rng.integers(1, 9), rng.integers(0, 2), rng.integers(0, 4)]),
    }


def run_batches(student, x, outer, inner, options):
    size, drop, ahead = options.tolist()
    whole = student.TensorDataset(x, np.arange(len(x)))
    part = student.Subset(student.Subset(whole, outer), inner.tolist())
    loader = student.DataLoader(part, size, drop_last=bool(drop), prefetch=ahead, transform=lambda a: a * 2)
    rows = [[float(len(loader))] * 5]
    for _ in range(2):
        for number, (images, labels) in enumerate(loader):
            for image, label in zip(images, labels, strict=True):
                rows.append([*image.tolist(), float(label), float(number)])
    return np.array(rows)


def expected_batches(x, outer, inner, options):
    size, drop, _ = options.tolist()
    order = outer[inner]
    count = len(order) // size if drop else -(-len(order) // size)
    order = order[: count * size]
    once = np.column_stack([x[order] * 2, order, np.arange(len(order)) // size])
    return np.concatenate([np.full((1, 5), count), once, once])


# Orders and splits: what is chance is reduced to whether it is as it must be.


def draw_orders(rng):
    return {"numbers": np.array([rng.integers(30, 90), rng.integers(1, 9), rng.integers(0, 2**31)])}


def run_orders(student, numbers):
    count, size, seed = numbers.tolist()
    data = student.TensorDataset(np.arange(count))

    def epochs():
        loader = student.DataLoader(data, size, True, rng=np.random.default_rng(seed), prefetch=seed % 3)
        return [np.concatenate([batch for (batch,) in loader]).tolist() for _ in range(3)]

    one = epochs()
    everything = list(range(count))
    parts = student.random_split(data, [0.5, 0.3, 0.2], rng=np.random.default_rng(seed))
    split = [int(part[i][0]) for part in parts for i in range(len(part))]
    return np.array(
        [
            all(sorted(epoch) == everything for epoch in one),
            len({tuple(epoch) for epoch in [*one, everything]}) == 4,
            epochs() == one,
            sorted(split) == everything and split != everything,
            sum(len(part) for part in parts) == count,
            abs(len(parts[0]) - count / 2) <= 1,
        ]
    )


def expected_orders(numbers):
    return np.ones(6, bool)


# Augmentation: a transform is recognised by what it may do to an image whose pixels all differ.


def draw_transforms(rng):
    n, c, h, w = (int(rng.integers(a, b)) for a, b in ((5, 20), (1, 4), (4, 9), (4, 9)))
    return {
        "images": 1.0 + rng.permutation(n * c * h * w).reshape(n, c, h, w),
        "numbers": np.array([rng.integers(1, 4), rng.integers(0, 3), rng.integers(1, 5)]),
        "means": rng.normal(size=c),
        "stds": rng.uniform(0.5, 3, size=c),
        "seed": rng.integers(0, 2**31, 1),
    }


def run_transforms(student, images, numbers, means, stds, seed):
    height, padding, square = numbers.tolist()
    rng = np.random.default_rng(int(seed[0]))
    before, right = images.copy(), []
    flipped = student.RandomHorizontalFlip(rng=rng)(images)
    right.append(
        all(
            np.array_equal(a, b) or np.array_equal(a, b[..., ::-1])
            for a, b in zip(flipped, images, strict=True)
        )
    )
    cropped = student.RandomCrop((height, 3), padding, rng=rng)(images)
    found = []
    for got, image in zip(cropped, images, strict=True):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        found.append(
            any(
                np.array_equal(got, padded[:, i : i + height, j : j + 3])
                for i in range(padded.shape[1] - height + 1)
                for j in range(padded.shape[2] - 2)
            )
        )
    right.append(all(found))
    cut = student.Cutout(square, rng=rng)(images)
    gone = cut == 0
    right.append(np.array_equal(cut[~gone], images[~gone]) and bool((gone == gone[:, :1]).all()))
    places = gone[:, 0]
    areas = places.any(axis=2).sum(axis=1) * places.any(axis=1).sum(axis=1)
    right.append(
        np.array_equal(areas, places.sum(axis=(1, 2))) and 1 <= areas.min() <= areas.max() <= square**2
    )
    normal = student.Normalize(means, stds)(images.astype(np.float32))
    right.append(normal.dtype == np.float32)
    answer = student.Compose([student.Normalize(means, stds), lambda x: x + 1])(images)
    right.append(np.array_equal(before, images))
    return np.concatenate([np.array(right, float), answer.ravel()])


def expected_transforms(images, numbers, means, stds, seed):
    answer = (images - means[:, None, None]) / stds[:, None, None] + 1
    return np.concatenate([np.ones(6), answer.ravel()])


# Archives, right and damaged.


def draw_archives(rng):
    return {
        "digits": rng.integers(0, 256, (int(rng.integers(5, 30)), 784)),
        "photographs": rng.integers(0, 256, (int(rng.integers(10, 40)), 3072)),
        "labels": rng.integers(0, 10, 40),
        "where": rng.integers(-10, 10, 12),
        "cut": rng.integers(1, 700, 1),
    }


def run_archives(student, digits, photographs, labels, where, cut):
    answers = []
    labels = labels.astype(np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = digits.astype(np.uint8)
        n = len(table)
        images = struct.pack(">HBB3I", 0, 8, 3, n, 28, 28) + table.tobytes()
        (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(images, 1))
        (folder / "train-labels-idx1-ubyte").write_bytes(
            struct.pack(">HBBI", 0, 8, 1, n) + labels[:n].tobytes()
        )
        mnist = student.MNIST(folder)
        answers += [[len(mnist)], *(np.ravel(part) for part in mnist.__getitems__(where % n))]
        del mnist

        rows = np.concatenate([labels[: len(photographs), None], photographs.astype(np.uint8)], axis=1)
        for i, part in enumerate(np.array_split(rows, 5), 1):
            (folder / f"data_batch_{i}.bin").write_bytes(part.tobytes())
        cifar = student.CIFAR10(folder)
        answers += [[len(cifar)], *(np.ravel(part) for part in cifar.__getitems__(where))]
        del cifar
        batch = {b"labels": rows[:, 0].tolist(), b"data": rows[:, 1:].copy()}
        (folder / "pickled").write_bytes(pickle.dumps(batch, 2))
        answers += [np.ravel(part) for part in student.unpickle_cifar(folder / "pickled")]

        mark = folder / "was run"
        by_force = f"cbuiltins\neval\n(S'open({str(mark)!r}, \"w\")'\ntR."
        damaged = (
            (student.read_idx, images[: -int(cut[0])]),
            (student.read_idx, images + b"\0"),
            (student.read_idx, images[:3]),
            (student.map_cifar, rows.tobytes()[: -int(cut[0])]),
            (student.unpickle_cifar, pickle.dumps(batch, 2)[: -int(cut[0])]),
            (student.unpickle_cifar, by_force.encode()),
        )
        for i, (read, content) in enumerate(damaged):
            path = folder / f"damaged_{i}"
            path.write_bytes(content)
            try:
                read(path)
            except ValueError as error:
                answers.append([int(path.name in str(error))])
            else:
                answers.append([0])
        answers.append([int(mark.exists())])
    return np.concatenate([np.asarray(answer, np.int64) for answer in answers])


def expected_archives(digits, photographs, labels, where, cut):
    n, m = len(digits), len(photographs)
    return np.concatenate(
        [
            [n],
            digits[where % n].ravel(),
            labels[:n][where % n],
            [m],
            photographs[where].ravel(),
            labels[:m][where],
            photographs.ravel(),
            labels[:m],
            np.ones(6, np.int64),
            [0],
        ]
    )


# A loader that is stopped, written down, and goes on elsewhere.


def draw_resumed(rng):
    return {
        "images": rng.normal(size=(int(rng.integers(20, 40)), 2, 5, 5)),
        "numbers": np.array(
            [
                rng.integers(1, 6),
                rng.integers(1, 4),
                rng.integers(0, 4),
                rng.integers(0, 4),
                rng.integers(0, 2**31),
                rng.integers(0, 2),
            ]
        ),
    }


def run_resumed(student, images, numbers):
    size, stop, before, after, seed, shared = numbers.tolist()

    def make(ahead, seed):
        rngs = [np.random.default_rng(seed)] * 3 if shared else np.random.default_rng(seed).spawn(3)
        transform = student.Compose(
            [student.RandomHorizontalFlip(rng=rngs[1]), student.RandomCrop(5, 1, rng=rngs[2])]
        )
        data = student.TensorDataset(images, np.arange(len(images)))
        return student.DataLoader(data, size, True, prefetch=ahead, rng=rngs[0], transform=transform)

    def run(loader, count=None):
        batches = []
        for x, y in loader:
            batches.append(np.concatenate([x.ravel(), y]))
            if len(batches) == count:
                break
        return np.concatenate(batches)

    straight = make(0, seed)
    whole = np.concatenate([run(straight) for _ in range(3)])
    loader = make(before, seed)
    pieces = [run(loader), run(loader, stop)]
    state = json.dumps(loader.state_dict())
    loader = make(after, seed + 1)
    loader.load_state_dict(json.loads(state))
    pieces += [run(loader), run(loader)]
    return np.array(
        [
            np.array_equal(np.concatenate(pieces), whole),
            len(whole) == 3 * images[:, 0].size * 2 + 3 * len(images),
        ]
    )


def expected_resumed(images, numbers):
    return np.ones(2, bool)


# A thread that works ahead, and ends.


def draw_threads(rng):
    return {"numbers": np.array([rng.integers(1, 5), rng.integers(1, 6), rng.integers(8, 30)])}


def run_threads(student, numbers):
    depth, stop, count = numbers.tolist()
    before, answers, made = threading.active_count(), [], threading.Semaphore(0)

    def items(last):
        for i in range(last):
            made.release()
            yield i
        raise KeyError("the end")

    taken = student.prefetch(items(10**6), depth)
    answers += [next(taken) for _ in range(stop)]
    answers += [int(made.acquire(timeout=4)) for _ in range(stop + depth)]
    answers.append(int(made.acquire(timeout=0.05)))
    taken.close()
    answers.append(threading.active_count() - before)
    taken = student.prefetch(items(count), depth)
    try:
        for item in taken:
            answers.append(item)
    except KeyError:
        answers.append(-1)
    answers.append(threading.active_count() - before)
    return np.array(answers, np.int64)


def expected_threads(numbers):
    depth, stop, count = numbers.tolist()
    return np.array([*range(stop), *[1] * (stop + depth), 0, 0, *range(count), -1, 0], np.int64)


CHECKS = (
    Check("batches of subsets", draw_batches, run_batches, expected_batches, rtol=1e-9),
    Check("orders and splits", draw_orders, run_orders, expected_orders),
    Check("transforms", draw_transforms, run_transforms, expected_transforms, rtol=1e-8),
    Check("archives, right and damaged", draw_archives, run_archives, expected_archives),
    Check("a loader that goes on elsewhere", draw_resumed, run_resumed, expected_resumed),
    Check("a thread that works ahead", draw_threads, run_threads, expected_threads),
)
