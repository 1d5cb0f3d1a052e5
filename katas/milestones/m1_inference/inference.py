"""What this milestone runs: networks that were trained elsewhere, on the tinytorch that you built.

`models/` holds their weights, and `models/recorded.json` how many answers were right when they were trained.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dojo import datasets
from tinytorch.activations import GELU, ReLU, Tanh, softmax
from tinytorch.networks import MLP, Sequential, load
from tinytorch.tensor import Tensor

Array = np.ndarray[Any, Any]

FOLDER = Path(__file__).with_name("models")
RECORD = FOLDER / "recorded.json"

ACTIVATIONS = {"gelu": GELU, "relu": ReLU, "tanh": Tanh}
BATCH = 500  # examples at a time: the largest activations then take 6 MB


@dataclass(frozen=True)
class Recorded:
    """How a model did on one set.

    `data` is the digest of what it was shown, `lead` by how many logits the best answer was ahead of the
    second where it was closest.
    """

    data: str
    examples: int
    correct: int
    confidence: float
    lead: float


@dataclass(frozen=True)
class Model:
    """A trained network: MLP(sizes, activation), for inputs from which `mean` was taken, divided by `std`."""

    name: str
    sizes: tuple[int, ...]
    activation: str
    dropout: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    on: dict[str, Recorded]

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.name}.npz"


@functools.cache
def models() -> dict[str, Model]:
    """Every model, by name, as recorded."""
    found = {}
    for name, entry in json.loads(RECORD.read_text("utf-8")).items():
        on = {data: Recorded(**figures) for data, figures in entry.pop("on").items()}
        shapes = {field: tuple(entry.pop(field)) for field in ("sizes", "mean", "std")}
        found[name] = Model(name=name, on=on, **shapes, **entry)
    return found


# Data: what is made by code, and what has to be downloaded.

REAL = ("mnist", "cifar10")
TEST_SEED = 1  # training draws from other seeds


def examples(name: str) -> tuple[Array, Array]:
    """The inputs and labels that a model is tried on: 1,000 made by code, or all of a real test set."""
    rng = np.random.default_rng(TEST_SEED)
    makers: dict[str, Callable[[], tuple[Array, Array]]] = {
        "xor": datasets.xor,
        "spirals": lambda: datasets.spirals(1000, noise=0.4, rng=rng),
        "tinydigits": lambda: datasets.tinydigits(1000, rng),
        "tinyshapes": lambda: datasets.tinyshapes(1000, rng),
        "mnist": lambda: datasets.mnist(train=False),
        "cifar10": lambda: datasets.cifar10(train=False),
    }
    return makers[name]()


def digest(inputs: Array, labels: Array) -> str:
    """16 hex digits that change when any number does."""
    return hashlib.sha256(inputs.tobytes() + labels.tobytes()).hexdigest()[:16]


# Running a model on tinytorch.


def network(model: Model) -> Sequential:
    """The network with its trained weights, ready to be used."""
    net = MLP(model.sizes, ACTIVATIONS[model.activation], model.dropout, rng=np.random.default_rng(0))
    load(net, model.file)
    return net.eval()


def prepare(model: Model, inputs: Array) -> Array:
    """One row of float32 for each example: pixels from 0 to 1, then each channel centred and scaled."""
    if inputs.dtype == np.uint8:
        inputs = inputs / np.float32(255)
    channels = inputs.reshape(len(inputs), len(model.mean), -1)
    mean, std = (np.array(given, np.float32)[:, None] for given in (model.mean, model.std))
    return ((channels - mean) / std).reshape(len(inputs), -1)


def batches(model: Model, inputs: Array) -> Iterator[Array]:
    """The inputs, prepared, some rows at a time."""
    for start in range(0, len(inputs), BATCH):
        yield prepare(model, inputs[start : start + BATCH])


def probabilities(net: Sequential, model: Model, inputs: Array) -> Iterator[Array]:
    """How likely each class is for each example (n, classes), a batch at a time."""
    for rows in batches(model, inputs):
        yield softmax(net(Tensor(rows))).data


# The same in plain numpy, to compare with.

FORMULAS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
    "gelu": lambda z: z * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))),
}


def weights(model: Model) -> list[tuple[Array, Array]]:
    """Weight (outputs, inputs) and bias (outputs,) of each layer, in float64, as they are in the file."""
    with np.load(model.file, allow_pickle=False) as file:
        arrays = [file[name].astype(np.float64) for name in file.files]
    return list(zip(arrays[0::2], arrays[1::2], strict=True))


def plain_layers(model: Model) -> list[Callable[[Array], Array]]:
    """One function for each layer of the network, in order."""

    def linear(weight: Array, bias: Array) -> Callable[[Array], Array]:
        return lambda rows: rows @ weight.T + bias

    layers: list[Callable[[Array], Array]] = []
    for weight, bias in weights(model):
        if layers:
            layers.append(FORMULAS[model.activation])
            if model.dropout:
                layers.append(lambda rows: rows)  # nothing is dropped while a network is used
        layers.append(linear(weight, bias))
    return layers


def plain_logits(model: Model, rows: Array) -> Array:
    """What the network gives for prepared rows, in float64."""
    for layer in plain_layers(model):
        rows = layer(rows)
    return rows


def expected(model: Model, data: str, inputs: Array, labels: Array) -> tuple[int, float]:
    """How many answers on these examples should be right, and the mean confidence in the answers.

    As recorded, if the examples are those of the record.  Another processor may round a pixel of a set made
    by code differently, and copies of CIFAR-10 differ in quality; of other examples, plain numpy tells.
    """
    recorded = model.on[data]
    if digest(inputs, labels) == recorded.data:
        return recorded.correct, recorded.confidence
    logits = np.concatenate([plain_logits(model, rows) for rows in batches(model, inputs)])
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return int((logits.argmax(axis=1) == labels).sum()), float(shares.max(axis=1).mean())
