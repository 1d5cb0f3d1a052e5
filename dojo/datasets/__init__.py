"""Data to learn from: sets made by code.

Every set comes as `(inputs, labels)`: labels are int64, and pictures uint8, so that scaling is up to you.
The same `rng` gives the same set; another processor may round a pixel of it differently.
"""

from dojo.datasets.digits import tinydigits
from dojo.datasets.points import spirals, xor
from dojo.datasets.shapes import SHAPES, tinyshapes

__all__ = ["SHAPES", "spirals", "tinydigits", "tinyshapes", "xor"]
