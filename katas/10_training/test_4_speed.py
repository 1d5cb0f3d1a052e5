"""Level 4: losses and counts are a few passes over whole arrays, and a loop adds little to its steps.

Ratios within this run, in CPU time, never seconds. Each budget has a twin: a naive version, written out
here, that must not fit.
"""

import numpy as np
import pytest

from dojo.measuring import Budget, load_probes, race
from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.activations import softmax
from tinytorch.networks import MLP
from tinytorch.optimizers import SGD
from tinytorch.tensor import Tensor
from tinytorch.training import (
    EMA,
    Trainer,
    accuracy,
    confusion_matrix,
    cross_entropy,
    load_checkpoint,
    mse_loss,
    save_checkpoint,
)

probes = load_probes(__file__)

LOSS = Budget(
    "cross_entropy of 512 rows of 32, there and back",
    limit=9,
    reference=2.6,
    naive=29,
    unit="times the time of a softmax",
    naively="a version that goes row by row",
)
SQUARES = Budget(
    "mse_loss of 8 thousand numbers, there and back",
    limit=12,
    reference=2.0,
    naive=55,
    unit="times the time of the formulas in numpy",
    naively="a version that goes number by number",
)
ANSWERS = Budget(
    "accuracy of 512 rows of 32",
    limit=9,
    reference=1.3,
    naive=70,
    unit="times the time of one argmax and a comparison",
    naively="a version that goes row by row",
)
COUNTS = Budget(
    "a confusion matrix of 4,096 answers",
    limit=20,
    reference=3.1,
    naive=150,
    unit="times the time of one bincount",
    naively="a version that goes answer by answer",
)
AVERAGE = Budget(
    "a step of a running mean, 128 x 128 and 8 of 16",
    limit=5,
    reference=0.8,
    naive=19,
    unit="times the time of decay * shadow + (1 - decay) * weight",
    naively="a version that goes row by row",
)
TRAINER = Budget(
    "32 steps of a Trainer",
    limit=2.0,
    reference=1.1,
    naive=3.9,
    unit="times the time of the loop by hand",
    naively="a version that computes the loss and accuracy of each batch three times more",
)
FILE = Budget(
    "a checkpoint of 4 MiB",
    limit=48,
    reference=11,
    naive=240,
    unit="times the time of one of 256 KiB",
    naively="a version whose time grows with the square",
)
WRITE = Budget(
    "saving 1 MiB",
    limit=5,
    reference=1.6,
    naive=14,
    unit="times the time of np.savez",
    naively="a version that writes an eighth of them, as text",
)


def table(rng, rows=512, classes=32):
    return rng.standard_normal((rows, classes), np.float32), rng.integers(0, classes, rows)


# 10.1 to 10.4: losses


def there_and_back(logits, labels, smoothing):
    out, back = cross_entropy.vjp(logits, labels, label_smoothing=smoothing)
    return back(np.ones_like(out))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_a_few_passes(smoothing, rng):
    logits, labels = table(rng)
    LOSS.check(
        race(
            lambda: there_and_back(logits, labels, smoothing),
            lambda: softmax.forward(logits, axis=1),
            limit=LOSS.limit,
        )
    )


def test_the_twin_row_by_row_is_caught(rng):
    logits, labels = table(rng)

    def slow():
        for row, label in zip(logits, labels, strict=True):
            p = np.exp(row - row.max())
            p /= p.sum()
            p[label] -= 1

    LOSS.catches(race(slow, lambda: softmax.forward(logits, axis=1), limit=LOSS.limit))


def by_the_formula(x, y):
    difference = x - y
    return (difference * difference).mean(), difference * (2 / difference.size)


def test_mse_loss_is_a_few_passes(rng):
    x, y = rng.random((2, 1 << 13), np.float32)

    def mine():
        out, back = mse_loss.vjp(x, y)
        return back(np.ones_like(out))

    SQUARES.check(race(mine, lambda: by_the_formula(x, y), limit=SQUARES.limit))


def test_the_twin_number_by_number_is_caught(rng):
    x, y = rng.random((2, 1 << 13), np.float32)

    def slow():
        return sum((a - b) ** 2 for a, b in zip(x.tolist(), y.tolist(), strict=True))

    SQUARES.catches(race(slow, lambda: by_the_formula(x, y), limit=SQUARES.limit))


# 10.5, 10.6: answers


def by_numpy(logits, labels):
    return (logits.argmax(axis=1) == labels).mean()


def test_accuracy_looks_at_all_rows_at_once(rng):
    arrays = table(rng)
    ANSWERS.check(race(lambda: accuracy(*arrays), lambda: by_numpy(*arrays), limit=ANSWERS.limit))


def test_the_twin_that_looks_row_by_row_is_caught(rng):
    logits, labels = table(rng)

    def slow():
        return sum(np.argmax(row) == label for row, label in zip(logits, labels, strict=True))

    ANSWERS.catches(race(slow, lambda: by_numpy(logits, labels), limit=ANSWERS.limit))


def one_count(answers, labels):
    return np.bincount(labels * 10 + answers, minlength=100).reshape(10, 10)


def test_a_confusion_matrix_is_counted_at_once(rng):
    labels, answers = rng.integers(0, 10, (2, 1 << 12))
    COUNTS.check(
        race(
            lambda: confusion_matrix(answers, labels, 10),
            lambda: one_count(answers, labels),
            limit=COUNTS.limit,
        )
    )


def test_the_twin_that_counts_one_by_one_is_caught(rng):
    labels, answers = rng.integers(0, 10, (2, 1 << 12))

    def slow():
        counts = np.zeros((10, 10), int)
        for label, answer in zip(labels, answers, strict=True):
            counts[label, answer] += 1

    COUNTS.catches(race(slow, lambda: one_count(answers, labels), limit=COUNTS.limit))


# 10.10: EMA


def network(rng):
    return MLP([128, 128, 16], rng=rng)


def book(weights, shadows, rows=False):
    for weight, shadow in zip(weights, shadows, strict=True):
        for part in range(len(weight)) if rows else (slice(None),):
            shadow[part] = 0.999 * shadow[part] + 0.001 * weight[part]


def arrays(rng):
    weights = [p.data for p in network(rng).parameters()]
    return weights, [w.copy() for w in weights]


def test_a_running_mean_is_a_few_passes(rng):
    ema, theirs = EMA(network(rng)), arrays(rng)
    AVERAGE.check(race(ema.update, lambda: book(*theirs), limit=AVERAGE.limit))


def test_the_twin_of_a_running_mean_row_by_row_is_caught(rng):
    mine, theirs = arrays(rng), arrays(rng)
    AVERAGE.catches(race(lambda: book(*mine, rows=True), lambda: book(*theirs), limit=AVERAGE.limit))


# 10.16: the loop


def bare(net, optimizer, batches):
    for x, labels in batches:
        optimizer.zero_grad()
        cross_entropy(net(Tensor(x)), labels).backward()
        optimizer.step()


def training(rng):
    net = MLP([64, 128, 10], rng=rng)
    batch = rng.standard_normal((32, 64), np.float32), rng.integers(0, 10, 32)
    return net, SGD(net.parameters(), lr=0.01), [batch] * 32


def test_a_trainer_adds_little_to_the_loop_by_hand(rng):
    net, optimizer, batches = training(rng)
    trainer = Trainer(net, optimizer, cross_entropy)
    by_hand = training(rng)
    TRAINER.check(
        race(lambda: trainer.fit(batches, trainer.epoch + 1), lambda: bare(*by_hand), limit=TRAINER.limit)
    )


def test_the_twin_that_looks_at_each_batch_again_is_caught(rng):
    net, optimizer, batches = training(rng)
    by_hand = training(rng)

    def slow():
        bare(net, optimizer, batches)
        for _ in range(3):
            for x, labels in batches:
                outputs = net(Tensor(x))
                cross_entropy(outputs, labels).backward()
                accuracy(outputs, labels)

    TRAINER.catches(race(slow, lambda: bare(*by_hand), limit=TRAINER.limit))


# 10.7 to 10.9: checkpoints


def state(rng, count):
    return {"weights": [rng.standard_normal(1 << 15, np.float32) for _ in range(count)]}


def test_saving_takes_as_long_as_there_are_numbers(rng, tmp_path):
    large, small = state(rng, 32), state(rng, 2)
    FILE.check(
        race(
            lambda: save_checkpoint(tmp_path / "large.npz", large),
            lambda: save_checkpoint(tmp_path / "small.npz", small),
            limit=FILE.limit,
        )
    )


def test_loading_takes_as_long_as_there_are_numbers(rng, tmp_path):
    save_checkpoint(tmp_path / "large.npz", state(rng, 32))
    save_checkpoint(tmp_path / "small.npz", state(rng, 2))
    FILE.check(
        race(
            lambda: load_checkpoint(tmp_path / "large.npz"),
            lambda: load_checkpoint(tmp_path / "small.npz"),
            limit=FILE.limit,
        )
    )


def test_the_twin_whose_time_grows_with_the_square_is_caught():
    large, small = [object() for _ in range(1024)], [object() for _ in range(64)]

    def all_pairs(things):
        return sum(a is b for a in things for b in things)

    FILE.catches(race(lambda: all_pairs(large), lambda: all_pairs(small), limit=FILE.limit))


def savez(path, arrays):
    with open(path, "wb") as stream:
        np.savez(stream, *arrays)


def test_saving_takes_a_few_times_as_long_as_writing(rng, tmp_path):
    """The checksum goes over all bytes once more, and a zip file has one of its own."""
    numbers = state(rng, 8)
    WRITE.check(
        race(
            lambda: save_checkpoint(tmp_path / "mine.npz", numbers),
            lambda: savez(tmp_path / "theirs.npz", numbers["weights"]),
            limit=WRITE.limit,
        )
    )


def test_the_twin_that_writes_text_is_caught(rng, tmp_path):
    numbers = state(rng, 8)["weights"]

    def slow():
        (tmp_path / "mine.txt").write_text(" ".join(repr(x) for a in numbers for x in a[::8].tolist()))

    WRITE.catches(race(slow, lambda: savez(tmp_path / "theirs.npz", numbers), limit=WRITE.limit))
