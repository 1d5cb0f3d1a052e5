"""What kata 10 measures: losses and counts by rows, checkpoints by size, and a whole step."""

import tempfile
from pathlib import Path

import numpy as np

from dojo.measuring import Probe
from tinytorch.layers import Module, Parameter
from tinytorch.optimizers import SGD
from tinytorch.spatial import SmallVGG
from tinytorch.tensor import Tensor, exp, log, mul, total
from tinytorch.training import (
    EMA,
    Trainer,
    accuracy,
    confusion_matrix,
    cross_entropy,
    load_checkpoint,
    memory_by_part,
    save_checkpoint,
)

ROWS = (1 << 10, 1 << 12, 1 << 14, 1 << 16)
NUMBERS = (1 << 16, 1 << 18, 1 << 20, 1 << 22)
F32 = 4  # bytes


def answers(rows, classes, rng):
    return rng.standard_normal((rows, classes), np.float32), rng.integers(0, classes, rows)


def there_and_back(logits, labels):
    x = Tensor(logits, requires_grad=True)
    cross_entropy(x, labels, label_smoothing=0.1).backward()
    return x.grad


def naive_cross_entropy(x, labels, smoothing=0.0):
    """By the operations of kata 02, one after the other, and with a one-hot array of targets."""
    rows, classes = x.shape
    targets = np.full(x.shape, smoothing / classes, x.dtype)
    targets[np.arange(rows), labels] += 1 - smoothing
    shifted = x - x.data.max(axis=1, keepdims=True)
    log_p = shifted - log(total(exp(shifted), axis=1, keepdims=True))
    return -total(mul(log_p, targets)) / rows


def naive_there_and_back(logits, labels):
    x = Tensor(logits, requires_grad=True)
    naive_cross_entropy(x, labels, 0.1).backward()
    return x.grad


class Weights(Module):
    """n numbers in eight parameters."""

    def __init__(self, n, rng):
        self.parts = [Parameter(rng.standard_normal(n // 8, np.float32)) for _ in range(8)]


def checkpoint(n, rng):
    """A file of n numbers in eight arrays, and what is in it."""
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "run.npz"
    state = {"weights": [rng.standard_normal(n // 8, np.float32) for _ in range(8)]}
    save_checkpoint(path, state)
    return folder, path, state  # the folder goes when nobody holds it


def vgg(batch, rng):
    net = SmallVGG(width=8, rng=rng)
    images = rng.standard_normal((batch, 3, 16, 16), np.float32)
    return net, SGD(net.parameters(), lr=0.01, momentum=0.9), images, rng.integers(0, 10, batch)


def train(net, optimizer, images, labels):
    Trainer(net, optimizer, cross_entropy).train_batch(iter([(images, labels)]))


PROBES = (
    Probe(
        "cross_entropy of n rows of 10, there and back",
        ROWS,
        prepare=lambda n, rng: answers(n, 10, rng),
        call=there_and_back,
        time=1,
        memory=1,
        flops=lambda n: 80 * n,
        moved=lambda n: 4 * 10 * F32 * n,
    ),
    Probe(
        "the same by single operations",
        ROWS,
        prepare=lambda n, rng: answers(n, 10, rng),
        call=naive_there_and_back,
        time=1,
        memory=1,
        flops=lambda n: 80 * n,
        moved=lambda n: 4 * 10 * F32 * n,
    ),
    Probe(
        "accuracy of n rows of 10",
        ROWS,
        prepare=lambda n, rng: answers(n, 10, rng),
        call=accuracy,
        time=1,
        memory=1,
        moved=lambda n: 10 * F32 * n,
    ),
    Probe(
        "confusion_matrix of n answers",
        ROWS,
        prepare=lambda n, rng: (rng.integers(0, 10, n), rng.integers(0, 10, n), 10),
        call=confusion_matrix,
        time=1,
        memory=1,
        moved=lambda n: 16 * n,
    ),
    Probe(
        "EMA.update, n numbers",
        NUMBERS,
        prepare=lambda n, rng: (EMA(Weights(n, rng)),),
        call=lambda ema: ema.update(),
        time=1,
        flops=lambda n: 3 * n,
        moved=lambda n: 3 * F32 * n,
    ),
    Probe(
        "save_checkpoint, n numbers",
        NUMBERS,
        prepare=checkpoint,
        call=lambda folder, path, state: save_checkpoint(path, state),
        time=1,
        memory=1,
        moved=lambda n: 3 * F32 * n,
    ),
    Probe(
        "load_checkpoint, n numbers",
        NUMBERS,
        prepare=checkpoint,
        call=lambda folder, path, state: load_checkpoint(path),
        time=1,
        memory=1,
        moved=lambda n: 3 * F32 * n,
    ),
    Probe(
        "a step of SmallVGG, width 8, of n images of 16 x 16",
        (8, 16, 32, 64),
        prepare=vgg,
        call=train,
        time=1,
        memory=1,
    ),
    Probe(
        "memory_by_part of it",
        (8, 16, 32, 64),
        prepare=vgg,
        call=lambda net, optimizer, images, labels: memory_by_part(
            net, optimizer, cross_entropy, images, labels
        ),
        time=1,
        memory=1,
    ),
)
