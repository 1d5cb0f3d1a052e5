"""Data to learn from: sets made by code, and real ones that `dojo data` brings.

Every set but the text comes as `(inputs, labels)`: labels are int64, and pictures uint8, so that scaling is
up to you.  Where a set takes an `rng`, the same one gives the same set; another processor may round a pixel
of it differently.
"""

from dojo.datasets.digits import tinydigits
from dojo.datasets.formats import DamagedData
from dojo.datasets.points import spirals, xor
from dojo.datasets.shapes import SHAPES, tinyshapes
from dojo.datasets.stored import CIFAR10_CLASSES, DataMissing, available, cifar10, mnist, tiny_shakespeare

CLASSES: dict[str, tuple[str, ...]] = {"tinyshapes": SHAPES, "cifar10": CIFAR10_CLASSES}
"""What the labels of a set stand for, where they are not numbers themselves."""

__all__ = [
    "CIFAR10_CLASSES",
    "CLASSES",
    "SHAPES",
    "DamagedData",
    "DataMissing",
    "available",
    "cifar10",
    "mnist",
    "spirals",
    "tiny_shakespeare",
    "tinydigits",
    "tinyshapes",
    "xor",
]
