"""What this milestone trains: a small convolutional network on the tinytorch that you built.

Data, loader, network, optimizer, schedule and trainer are yours; here they are put together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dojo import datasets
from dojo.datasets.catalogue import data_folder
from tinytorch.activations import ReLU, softmax
from tinytorch.dataloader import (
    CIFAR10,
    Compose,
    DataLoader,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    Subset,
    TensorDataset,
    fetch,
)
from tinytorch.layers import Buffer, Linear, Module
from tinytorch.networks import Sequential
from tinytorch.optimizers import AdamW, OneCycleLR
from tinytorch.spatial import BatchNorm2d, Conv2d, Flatten, MaxPool2d, conv2d, windows
from tinytorch.tensor import Tensor
from tinytorch.training import Callback, Trainer, cross_entropy, evaluating

Array = np.ndarray[Any, Any]

TEST_SEED = 1  # of tinyshapes; training draws from other seeds
AT_ONCE = 250  # images that are looked at together, outside of training


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, and on what.

    `images` are how many there are to learn from, where they are made by code; `width` is the number of
    kernels of the first trained convolution. The learning rate rises to `lr` in a line, for `rise` of all
    steps, from the `div`th part of it, and falls to the `div`th part of that. `momentum` is that of batch
    norm's running numbers: training is short. In a long one each image comes often: `crop` moves it by up to
    so many pixels, another way each time.
    """

    data: str
    epochs: int
    images: int = 0
    width: int = 64
    batch: int = 128
    lr: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    decay: float = 0.05
    smoothing: float = 0.1
    rise: float = 0.3
    div: float = 1000.0
    flip: bool = True
    crop: int = 0
    momentum: float = 0.3


RECIPES = {
    "tinyshapes": Recipe("tinyshapes", epochs=3, images=6000, width=32, flip=False),
    "cifar10": Recipe("cifar10", epochs=2),
}


# Data.

# Each channel's mean and standard deviation over the training set of CIFAR-10; tinyshapes is near enough.
normalize = Normalize([125.3, 123.0, 113.9], [62.9, 62.1, 66.7])


def dataset(recipe: Recipe, train: bool = True, folder: Path | None = None) -> Any:
    """Images (3, 32, 32) in bytes and their labels: drawn by code, or CIFAR-10 from the data folder."""
    if recipe.data == "cifar10":
        return CIFAR10(folder or data_folder(), train=train)
    count, seed = (recipe.images, 100) if train else (1000, TEST_SEED)
    return TensorDataset(*datasets.tinyshapes(count, np.random.default_rng(seed)))


def part(data: Any, count: int) -> Any:
    """The first `count` samples."""
    return Subset(data, np.arange(count))


def looking(data: Any) -> DataLoader:
    """Batches to look at: in order, nothing changed but the scale."""
    return DataLoader(data, AT_ONCE, transform=normalize)


# The network.


class Whitening(Module):
    """Images to how much of each of 24 patterns there is at every other pixel; and how much of the reverse.

    The patterns are not trained. They are the principal components of the 4 x 4 patches of some images, each
    scaled so that it is as strong as the others: what neighbouring pixels have in common, which is nearly
    everything, is then no longer in the way.

    Attributes:
        weight: (2 * patterns, 3, 4, 4); a Buffer.
    """

    def __init__(self, images: Array, patterns: int = 24) -> None:
        channels = images.shape[1]
        padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
        patches = windows(padded, 4, 2).transpose(0, 2, 3, 1, 4, 5).reshape(-1, channels * 16)
        variances, components = np.linalg.eigh((patches.T @ patches).astype(np.float64) / len(patches))
        scaled = (components / np.sqrt(variances + 0.01)).T[::-1][:patterns]
        kernels = scaled.reshape(patterns, channels, 4, 4).astype(np.float32)
        self.weight = Buffer(np.concatenate([kernels, -kernels]))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) to (N, 48, 16, 16)."""
        return rectified(conv2d(x, self.weight, stride=2, padding=1))

    def extra_repr(self) -> str:
        return f"{len(self.weight)} fixed patterns of {self.weight.shape[1:]}"


rectified = ReLU()


def network(images: Array, width: int = 64, momentum: float = 0.3, *, rng: np.random.Generator) -> Sequential:
    """Three trained convolutions behind fixed patterns of `images`, which are to be learned from.

    Pooling comes before batch norm: it is the same either way round, but a quarter of the work.
    """

    def conv(inputs: int, outputs: int) -> Conv2d:
        return Conv2d(inputs, outputs, 3, padding=1, bias=False, rng=rng)

    def norm(channels: int) -> BatchNorm2d:
        return BatchNorm2d(channels, momentum=momentum)

    first = Whitening(images)
    return Sequential(
        first,  # (N, 48, 16, 16)
        *(conv(len(first.weight), width), MaxPool2d(2), norm(width), ReLU()),  # (N, width, 8, 8)
        *(conv(width, 2 * width), MaxPool2d(2), norm(2 * width), ReLU()),  # (N, 2 width, 4, 4)
        *(conv(2 * width, 2 * width), norm(2 * width), MaxPool2d(4), ReLU()),  # (N, 2 width, 1, 1)
        *(Flatten(), Linear(2 * width, 10, bias=False, rng=rng)),
    )


# Training.


class Loss(Callback):
    """Cross-entropy to labels that are a little unsure, which remembers what it was at each step.

    Attributes:
        curve: the loss of each batch that was trained on.
    """

    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing
        self.curve: list[float] = []

    def __call__(self, logits: Tensor, labels: Array) -> Tensor:
        loss = cross_entropy(logits, labels, label_smoothing=self.smoothing)
        if loss.requires_grad:
            self.curve.append(loss.item())
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"curve": list(self.curve)}

    def load_state_dict(self, saved: Any) -> None:
        self.curve = [float(loss) for loss in saved["curve"]]


def optimizer_of(model: Module, recipe: Recipe) -> AdamW:
    """AdamW, in which kernels and weights decay; batch norm's scales and shifts do not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=recipe.lr, betas=recipe.betas)


def training(
    recipe: Recipe, data: Any, *, seed: int = 0, callbacks: Sequence[Callback] = ()
) -> tuple[Trainer, DataLoader, Loss]:
    """A trainer with a network at its start, the loader of its batches, and its loss.

    `trainer.fit(loader, recipe.epochs)` trains it; with `checkpoint` it can be taken up again, if everything
    here is made anew by the same recipe and seed.
    """
    for_weights, for_order, for_flips, for_crops = np.random.default_rng(seed).spawn(4)
    images, _ = fetch(data, np.arange(min(len(data), 2000)))
    model = network(normalize(images), recipe.width, recipe.momentum, rng=for_weights)
    optimizer = optimizer_of(model, recipe)
    changes: list[Any] = [RandomHorizontalFlip(rng=for_flips)] if recipe.flip else []
    if recipe.crop:
        changes.append(RandomCrop(images.shape[-1], recipe.crop, rng=for_crops))
    loader = DataLoader(
        data,
        recipe.batch,
        shuffle=True,
        drop_last=True,
        prefetch=2,
        rng=for_order,
        transform=Compose([*changes, normalize]),
    )
    schedule = OneCycleLR(
        optimizer,
        recipe.lr,
        total_steps=recipe.epochs * len(loader),
        pct_start=recipe.rise,
        anneal_strategy="linear",
        cycle_momentum=False,
        div_factor=recipe.div,
        final_div_factor=recipe.div,
    )
    loss = Loss(recipe.smoothing)
    return Trainer(model, optimizer, loss, scheduler=schedule, callbacks=[loss, *callbacks]), loader, loss


def answers(model: Module, batches: Iterable[tuple[Array, Array]]) -> tuple[Array, Array]:
    """How likely each class is for each image (n, 10), with the model in use; and the labels."""
    likely, labels = [], []
    with evaluating(model):
        for images, wanted in batches:
            likely.append(softmax(model(Tensor(images))).data)
            labels.append(wanted)
    return np.concatenate(likely), np.concatenate(labels)
