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
from tinytorch.activations import GELU, ReLU, Tanh, softmax
from tinytorch.networks import MLP, Sequential, load
from tinytorch.tensor import Tensor

from dojo import datasets

Array = np.ndarray[Any, Any]

FOLDER = Path(__file__).with_name("models")
RECORD = FOLDER / "recorded.json"

ACTIVATIONS = {"gelu": GELU, "relu": ReLU, "tanh": Tanh}
BATCH = 500  # examples at a time: the largest activations then take 6 MB


@dataclass(frozen=True)
class Recorded:
    """How a model did on one set: `data` is the digest of what it was shown, `lead` how far the best answer was
    ahead of the second where it was closest, in logits.
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

EMBEDDED = ("xor", "spirals", "tinydigits", "tinyshapes")
REAL = ("mnist", "cifar10")
TEST_SEED = 1  # training draws from other seeds


def examples(name: str) -> tuple[Array, Array]:
    """The inputs and labels that a model is tried on: 1,000 made by code, or all of a real set's test images."""
    rng = np.random.default_rng(TEST_SEED)
    makers: dict[str, Callable[[], tuple[Array, Array]]] = {
        "xor": datasets.xor,
        "spirals": lambda: datasets.spirals(1000, rng=rng),
        "tinydigits": lambda: datasets.tinydigits(1000, rng),
        "tinyshapes": lambda: datasets.tinyshapes(1000, rng),
        "mnist": lambda: datasets.mnist("test"),
        "cifar10": lambda: datasets.cifar10("test"),
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


def probabilities(net: Sequential, model: Model, inputs: Array) -> Iterator[Array]:
    """How likely each class is for each example (n, classes), a batch at a time."""
    for start in range(0, len(inputs), BATCH):
        rows = prepare(model, inputs[start : start + BATCH])
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


def plain_logits(model: Model, rows: Array) -> Array:
    """What the network gives for prepared rows, in float64."""
    *hidden, last = weights(model)
    for weight, bias in hidden:
        rows = FORMULAS[model.activation](rows @ weight.T + bias)
    return rows @ last[0].T + last[1]
