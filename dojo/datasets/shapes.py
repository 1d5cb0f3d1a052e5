"""`tinyshapes`: coloured shapes and textures over noisy backgrounds, drawn by code.

Colour, size and place say nothing about the class, and a shape is as likely darker as lighter than what
is behind it: no single pixel helps, and a model must learn edges and how they meet.

5,000 images take half a second.  With 10,000 of them a linear model reaches 19 % and two dense layers 76 % in
8 epochs; three convolutions of 16, 32 and 64 with batch norm and pooling reach 94 % in 3 and 99 % in 10.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dojo.datasets.labels import balanced_labels

SIDE = 32
CHUNK = 512  # images drawn at a time, so that what is between fits a cache

SHAPES = ("disc", "ring", "crescent", "square", "triangle", "star", "cross", "stripes", "checks", "dots")

Field = NDArray[np.float32]


def tinyshapes(n: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`n` images (n, 3, 32, 32), and the place in `SHAPES` of what each shows, all equally often."""
    labels = balanced_labels(n, len(SHAPES), rng)
    images = np.empty((n, 3, SIDE, SIDE), np.uint8)
    for start in range(0, n, CHUNK):
        part = slice(start, start + CHUNK)
        images[part] = _paint(_cover(labels[part], rng), rng)
    return images, labels


def _cover(labels: NDArray[np.int64], rng: np.random.Generator) -> Field:
    """How much of each pixel (b, 32, 32) the shape of each image covers, from 0 to 1."""
    b = len(labels)
    size = rng.uniform(8.5, 13, (b, 1, 1)).astype(np.float32)
    middle = rng.uniform(12.5, 18.5, (2, b, 1, 1)).astype(np.float32)
    angle = rng.normal(0, 0.25, (b, 1, 1)).astype(np.float32)
    pixels = np.arange(SIDE, dtype=np.float32)
    x = (pixels - middle[0]) / size
    y = (pixels[:, None] - middle[1]) / size
    cos, sin = np.cos(angle), np.sin(angle)
    u, v = cos * x + sin * y, cos * y - sin * x  # (b, 32, 32); the shape has radius 1
    outside = np.empty((b, SIDE, SIDE), np.float32)
    for label, shape in enumerate(SHAPES):
        rows = labels == label
        outside[rows] = _distance(shape, u[rows], v[rows])
    return (0.5 - outside * size).clip(0, 1)  # an edge is one pixel wide


def _distance(shape: str, u: Field, v: Field) -> Any:
    """How far outside a shape of about radius 1 each point is; negative inside."""
    radius = np.hypot(u, v)
    match shape:
        case "disc":
            return radius - 0.9
        case "ring":
            return abs(radius - 0.78) - 0.2
        case "crescent":
            return np.maximum(radius - 1, 0.85 - np.hypot(u - 0.5, v))
        case "square":
            return np.maximum(abs(u), abs(v)) - 0.8
        case "triangle":
            return np.maximum(v, 0.866 * abs(u) - 0.5 * v) - 0.58
        case "star":
            return _star(radius, np.arctan2(u, -v))
        case "cross":
            return np.maximum(np.maximum(abs(u), abs(v)) - 1, np.minimum(abs(u), abs(v)) - 0.28)
        case "stripes":
            return np.maximum(radius - 1.15, np.cos(7.5 * u) / 7.5)
        case "checks":
            return np.maximum(radius - 1.15, np.sin(5.2 * u) * np.sin(5.2 * v) / 5.2)
        case "dots":
            across, down = (x - 0.62 * np.rint(x / 0.62) for x in (u, v))
            return np.maximum(radius - 1.15, np.hypot(across, down) - 0.19)
    raise ValueError(f"no shape is called {shape!r}")


def _star(radius: Field, angle: Field) -> Any:
    """A star of five tips, at radius 1.1, one of them at angle 0; its notches are at radius 0.45."""
    fifth = 2 * math.pi / 5
    angle = abs(angle - fifth * np.rint(angle / fifth))  # between a tip and the notch beside it
    dx, dy = 0.45 * math.cos(fifth / 2) - 1.1, 0.45 * math.sin(fifth / 2)  # the edge, from tip to notch
    return (dy * (radius * np.cos(angle) - 1.1) - dx * radius * np.sin(angle)) / math.hypot(dx, dy)


def _paint(cover: Field, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Colour the shapes (b, 32, 32) and what is behind them: (b, 3, 32, 32)."""
    b = len(cover)
    back = rng.uniform(30, 225, (b, 3, 1, 1))
    # A direction in colour that is as likely lighter as darker, and at least 110 long.
    way = rng.standard_normal((b, 3, 1, 1))
    way *= rng.uniform(110, 220, (b, 1, 1, 1)) / np.linalg.norm(way, axis=1, keepdims=True)
    # Clouds: a coarse random grid stretched to the picture, in the background and in the shape.
    stretch = _stretch(5)
    front, scene = stretch @ rng.standard_normal((2, b, 3, 5, 5), np.float32) @ stretch.T
    front = 14 * front + (back + way).astype(np.float32)
    scene = 22 * scene + back.astype(np.float32)
    scene += cover[:, None] * (front - scene)
    noise = rng.uniform(4, 18, (b, 1, 1, 1)).astype(np.float32)
    scene += noise * rng.standard_normal(scene.shape, np.float32)
    pixels: NDArray[np.uint8] = scene.clip(0, 255).astype(np.uint8)
    return pixels


def _stretch(coarse: int) -> Field:
    """The matrix (32, coarse) of linear interpolation."""
    apart = np.abs(np.linspace(0, coarse - 1, SIDE)[:, None] - np.arange(coarse))
    return (1 - apart).clip(0).astype(np.float32)
