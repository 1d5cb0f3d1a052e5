"""Train the networks of milestone 1, and record how many answers are right.

    python reference/train_pretrained.py                      all of them
    python reference/train_pretrained.py xor spirals          some
    python reference/train_pretrained.py --epochs 1 digits    a short try, which writes nothing
    python reference/train_pretrained.py --count              the answers of the files as they are

It writes katas/milestones/m1_inference/models/. MNIST and CIFAR-10 must be there (`dojo data`); everything
else is made by code. All of it runs on reference/tinytorch as it is after kata 05: an MLP on a Tape.
Optimizers come in kata 08, so Adam is written out below.

The same numbers come out again on the same machine; another BLAS adds up in another order, which ends
elsewhere, about as good.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dojo import compose, datasets

compose.choose(compose.Composition("reference"))

from tinytorch.activations import log_softmax  # noqa: E402
from tinytorch.networks import MLP, Sequential, Tape, initialise, kaiming_normal_, save  # noqa: E402
from tinytorch.tensor import Tensor  # noqa: E402

M1 = compose.load_file(Path(__file__).parents[1] / "katas/milestones/m1_inference/inference.py")

Array = np.ndarray[Any, Any]
Data = tuple[Array, Array]


@dataclass(frozen=True)
class Recipe:
    """How a model is trained, and on which sets it is tried."""

    data: Callable[[], Data]
    tried_on: tuple[str, ...]
    sizes: tuple[int, ...]
    epochs: int
    lr: float
    activation: str = "relu"
    dropout: float = 0.0
    decay: float = 0.02
    smoothing: float = 0.0
    shift: int = 0
    flip: bool = False
    batch: int = 256


def digits() -> Data:
    """MNIST, and as many `tinydigits` again as make a quarter of all, so that both are read well."""
    images, labels = datasets.mnist()
    made, made_labels = datasets.tinydigits(20_000, np.random.default_rng(100))
    return np.concatenate([images, made]), np.concatenate([labels, made_labels])


RECIPES = {
    "xor": Recipe(
        datasets.xor, ("xor",), (2, 4, 2), epochs=200, lr=0.1, activation="tanh", decay=0.0, batch=4
    ),
    "spirals": Recipe(
        lambda: datasets.spirals(3000, noise=0.4, rng=np.random.default_rng(100)),
        ("spirals",),
        (2, 32, 32, 3),
        epochs=100,
        lr=0.01,
        activation="gelu",
        batch=100,
    ),
    "digits": Recipe(
        digits,
        ("tinydigits", "mnist"),
        (784, 256, 128, 10),
        epochs=15,
        lr=2e-3,
        dropout=0.1,
        smoothing=0.05,
        shift=1,
    ),
    "shapes": Recipe(
        lambda: datasets.tinyshapes(60_000, np.random.default_rng(100)),
        ("tinyshapes",),
        (3072, 96, 64, 10),
        epochs=20,
        lr=2e-3,
        smoothing=0.05,
        shift=2,
        flip=False,
    ),
    "cifar10": Recipe(
        datasets.cifar10,
        ("cifar10",),
        (3072, 256, 128, 10),
        epochs=40,
        lr=2e-3,
        dropout=0.1,
        smoothing=0.1,
        shift=1,
        flip=True,
    ),
}


class Adam:
    """Adam with decoupled decay of the weights, at a rate that rises for a fifth, then falls to 0."""

    def __init__(self, net: Sequential, lr: float, decay: float, steps: int) -> None:
        self.parameters = list(net.parameters())
        self.moments = [(np.zeros_like(p.data), np.zeros_like(p.data)) for p in self.parameters]
        self.lr, self.decay, self.steps, self.taken = lr, decay, steps, 0

    def step(self, beta1: float = 0.9, beta2: float = 0.98, eps: float = 1e-8) -> None:
        self.taken += 1
        done = self.taken / self.steps
        lr = self.lr * (done / 0.2 if done < 0.2 else 0.5 + 0.5 * math.cos(math.pi * (done - 0.2) / 0.8))
        bias1, bias2 = 1 - beta1**self.taken, 1 - beta2**self.taken
        for parameter, (mean, square) in zip(self.parameters, self.moments, strict=True):
            grad = parameter.grad
            mean += (1 - beta1) * (grad - mean)
            square += (1 - beta2) * (grad * grad - square)
            if parameter.ndim == 2:
                parameter.data *= 1 - lr * self.decay
            parameter.data -= lr / bias1 * mean / (np.sqrt(square / bias2) + eps)


def augmented(images: Array, recipe: Recipe, rng: np.random.Generator) -> Array:
    """Each image moved by a few pixels, its edge repeated, and every other one seen in a mirror."""
    n, _, height, width = images.shape
    down, right = rng.integers(-recipe.shift, recipe.shift + 1, (2, n, 1))
    rows, columns = np.arange(height) + down, np.arange(width) + right
    if recipe.flip:
        mirrored = rng.random(n) < 0.5
        columns[mirrored] = columns[mirrored, ::-1]
    rows, columns = rows.clip(0, height - 1)[:, :, None], columns.clip(0, width - 1)[:, None]
    return np.moveaxis(images[np.arange(n)[:, None, None], :, rows, columns], 3, 1)


def describe(name: str, recipe: Recipe) -> tuple[Any, Array, Array]:
    """A model whose file is not written yet, and the inputs and labels to train it on."""
    inputs, labels = recipe.data()
    if inputs.ndim == 3:
        inputs = inputs[:, None]  # grey images have one channel
    axes = (0, 2, 3) if inputs.ndim == 4 else (0, 1)
    scale = 255 if inputs.dtype == np.uint8 else 1
    model = M1.Model(
        name=name,
        sizes=recipe.sizes,
        activation=recipe.activation,
        dropout=recipe.dropout,
        mean=tuple(round(float(v), 4) for v in np.atleast_1d(inputs.mean(axes) / scale)),
        std=tuple(round(float(v), 4) for v in np.atleast_1d(inputs.std(axes) / scale)),
        sha256="",
        on={},
    )
    return model, inputs, labels


def train(model: Any, recipe: Recipe, inputs: Array, labels: Array) -> Sequential:
    """The trained network."""
    rng = np.random.default_rng(0)
    net = MLP(recipe.sizes, M1.ACTIVATIONS[recipe.activation], recipe.dropout, rng=rng)
    initialise(net, kaiming_normal_, rng=rng)
    batches = len(inputs) // recipe.batch
    adam = Adam(net, recipe.lr, recipe.decay, recipe.epochs * batches)
    began = time.process_time()
    for epoch in range(recipe.epochs):
        losses = []
        for rows in rng.permutation(len(inputs))[: batches * recipe.batch].reshape(batches, -1):
            batch = augmented(inputs[rows], recipe, rng) if recipe.shift or recipe.flip else inputs[rows]
            with Tape() as tape:
                logits = net(Tensor(M1.prepare(model, batch)))
            loss, grad = smoothed_cross_entropy(logits.data, labels[rows], recipe.smoothing)
            net.zero_grad()
            tape.walk_back(grad)
            adam.step()
            losses.append(loss)
        if (epoch + 1) % max(1, recipe.epochs // 20) == 0:
            took = time.process_time() - began
            print(f"{model.name}: epoch {epoch + 1}, loss {np.mean(losses):.4f}, {took:.0f} s", flush=True)
    return net


def smoothed_cross_entropy(logits: Array, labels: Array, smoothing: float) -> tuple[float, Array]:
    """The mean loss and its gradient, for targets that are a little unsure of themselves."""
    n, classes = logits.shape
    targets = np.full((n, classes), smoothing / classes, logits.dtype)
    targets[np.arange(n), labels] += 1 - smoothing
    log_p, back = log_softmax.vjp(logits)
    return -float((targets * log_p).sum() / n), back(-targets / n)


def write(model: Any, net: Sequential) -> None:
    """Save the weights in float16, which halves the file."""
    for parameter in net.parameters():
        parameter.data = parameter.data.astype(np.float16)
    save(net, model.file)


def record(model: Any, name: str) -> Any:
    """How `model`, as it is on disk, does on the set called `name`."""
    inputs, labels = M1.examples(name)
    net = M1.network(model)
    found = np.concatenate(list(M1.probabilities(net, model, inputs)))
    logits = np.concatenate([M1.plain_logits(model, rows) for rows in M1.batches(model, inputs)])
    if not np.array_equal(found.argmax(axis=1), logits.argmax(axis=1)):
        raise SystemExit(f"{model.name} on {name}: float32 and float64 differ; train it with another seed")
    ranked = np.sort(logits, axis=1)
    return M1.Recorded(
        data=M1.digest(inputs, labels),
        examples=len(labels),
        correct=int((found.argmax(axis=1) == labels).sum()),
        confidence=round(float(found.max(axis=1).mean()), 5),
        lead=float(f"{(ranked[:, -1] - ranked[:, -2]).min():.2g}"),
    )


def note(model: Any, tried_on: tuple[str, ...]) -> None:
    """Put a model, and how it does, into the record."""
    model = replace(model, sha256=hashlib.sha256(model.file.read_bytes()).hexdigest())
    for data in tried_on:
        model.on[data] = record(model, data)
        print(f"{model.name} on {data}: {model.on[data].correct} of {model.on[data].examples}", flush=True)
    entry = {key: value for key, value in vars(model).items() if key not in ("name", "on")}
    kept = json.loads(M1.RECORD.read_text("utf-8")) if M1.RECORD.exists() else {}
    kept[model.name] = entry | {"on": {data: vars(figures) for data, figures in model.on.items()}}
    ordered = {name: kept[name] for name in RECIPES if name in kept}
    M1.RECORD.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(RECIPES)}; or all")
    parser.add_argument("--epochs", type=int, help="a try of so many epochs, which writes nothing")
    parser.add_argument("--count", action="store_true", help="train nothing; record the files as they are")
    args = parser.parse_args()
    for name in args.models or RECIPES:
        if name not in RECIPES:
            parser.error(f"there is no model {name!r}; there are {', '.join(RECIPES)}")
    for name in args.models or RECIPES:
        recipe = RECIPES[name]
        model, inputs, labels = describe(name, recipe)
        if not args.count:
            net = train(model, replace(recipe, epochs=args.epochs or recipe.epochs), inputs, labels)
            if args.epochs:
                continue
            write(model, net)
        note(model, recipe.tried_on)


if __name__ == "__main__":
    main()
