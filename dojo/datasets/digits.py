"""`tinydigits`: handwritten-looking digits, drawn by code.

A digit is a few strokes, each a smooth curve through points.  A writer's hand is imitated by moving the
points, then scaling, slanting, turning and shifting the whole, with a pen of changing width.

5,000 images take half a second.  With 6,000 of them a linear model reaches 90 %, two dense layers 96 % in
8 epochs, and three convolutions 99.8 % in 2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dojo.datasets.labels import balanced_labels

SIDE = 28
DOTS = 72  # of ink for each digit; closer than a pixel, so that they join to lines
CHUNK = 512  # images drawn at a time, so that what is between fits a cache

Stroke = list[tuple[float, float]]

# Manners of writing each digit, in a box of 20 x 20 with the origin at the top left; (x, y) along the stroke.
MANNERS: list[list[list[Stroke]]] = [
    [  # 0
        [[(11, 0), (5, 3), (3, 10), (5, 17), (10, 20), (15, 17), (17, 10), (15, 3), (10, 0)]],
        [[(12, 1), (6, 3), (4, 10), (6, 18), (10, 20), (14, 17), (16, 9), (14, 2), (9, 1)]],
    ],
    [  # 1
        [[(10, 0), (10, 7), (10, 13), (10, 20)]],
        [[(6, 5), (8, 3), (10.5, 0)], [(10.5, 0), (10.5, 7), (10, 13), (10, 20)]],
        [[(6, 4), (10, 0)], [(10, 0), (10, 10), (10, 19.5)], [(5.5, 20), (10, 19.5), (15, 19.5)]],
    ],
    [  # 2
        [[(4, 5), (6, 1), (11, 0), (15, 4), (13, 10), (8, 15), (3, 19.5)], [(3, 19.5), (10, 19), (17, 19.5)]],
        [
            [(4, 4), (9, 0), (15, 3), (14, 9), (9, 16), (4, 19), (4, 16), (8, 16), (13, 19), (17, 18)],
        ],
    ],
    [  # 3
        [[(4, 3), (9, 0), (15, 3), (13, 8), (8, 9.5)], [(8, 9.5), (14, 11), (16, 15), (11, 20), (4, 18)]],
        [
            [(4, 1), (10, 0.5), (15, 1)],
            [(15, 1), (9, 8.5)],
            [(9, 8.5), (15, 11), (15, 17), (9, 20), (4, 17.5)],
        ],
    ],
    [  # 4
        [[(6, 0), (4.5, 6), (4, 11)], [(4, 11), (10, 11), (17, 10.5)], [(14, 1), (13, 10), (12.5, 20)]],
        [[(13, 0), (8, 6), (3, 13)], [(3, 13), (10, 13), (17, 12.5)], [(13, 0), (13, 10), (13, 20)]],
    ],
    [  # 5
        [
            [(15.5, 0.5), (11, 0.5), (6, 1)],
            [(6, 1), (5, 8.5)],
            [(5, 8.5), (11, 7.5), (16, 12), (13, 18), (8, 20), (3, 18)],
        ],
        [[(15, 1), (6, 1)], [(6, 1), (5.5, 9)], [(5.5, 9), (11, 8.5), (15, 13), (11, 19), (4, 19)]],
    ],
    [  # 6
        [[(13, 0), (7, 4), (4, 11), (5, 17), (10, 20), (15, 17), (15, 12), (10, 10), (5, 14)]],
        [[(9, 0), (6, 7), (5, 14), (8, 20), (14, 18), (14, 12), (9, 11), (6, 15)]],
    ],
    [  # 7
        [[(4, 1), (10, 1), (16, 0.5)], [(16, 0.5), (12, 8), (9, 20)]],
        [[(4, 1), (10, 1), (16, 1)], [(16, 1), (12, 9), (9, 20)], [(7, 10.5), (11, 10.5), (15, 10)]],
        [[(4, 4), (4.5, 1)], [(4.5, 1), (11, 1), (16, 0.5)], [(16, 0.5), (11, 9), (10, 20)]],
    ],
    [  # 8
        [
            [
                *[(15, 3), (10, 0), (5, 3), (7, 8), (13, 11.5), (15, 16)],
                *[(10, 20), (5, 16), (7, 11.5), (13, 8), (15, 3)],
            ],
        ],
        [
            [(10, 0), (6, 2.5), (6, 7), (10, 9), (14, 7), (14, 2.5), (10, 0)],
            [(10, 9), (5, 12), (5, 17), (10, 20), (15, 17), (15, 12), (10, 9)],
        ],
    ],
    [  # 9
        [[(15, 4), (11, 0), (5, 3), (5, 8), (10, 10), (15, 6), (15, 3)], [(15, 3), (14.5, 11), (12, 20)]],
        [
            [(15, 3), (10, 0), (5, 4), (7, 9), (12, 8.5), (15, 4)],
            [(15, 4), (15.5, 12), (13, 18), (8, 20), (4, 18)],
        ],
    ],
]  # fmt: skip


def tinydigits(n: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`n` images (n, 28, 28) of digits, light on dark as in MNIST, and which digit each is, equally often."""
    labels = balanced_labels(n, 10, rng)
    dots = _place(_write(labels, rng), rng)
    images = np.empty((n, SIDE, SIDE), np.uint8)
    for start in range(0, n, CHUNK):
        part = slice(start, start + CHUNK)
        images[part] = _ink(dots[part], rng)
    return images, labels


def _write(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float32]:
    """Dots (n, DOTS, 2) along the strokes of each digit, centred on 0, in units of the digit's height."""
    dots = np.empty((len(labels), DOTS, 2), np.float32)
    chosen = rng.random(len(labels))
    for digit, manners in enumerate(MANNERS):
        for k, strokes in enumerate(manners):
            rows = np.flatnonzero((labels == digit) & ((chosen * len(manners)).astype(int) == k))
            corners, weights = _curves(strokes)
            wobble = rng.normal(0, 0.7, (len(rows), len(corners), 2))
            # Where one stroke begins at the end of another, the hand moves both together.
            _, first = np.unique(corners, axis=0, return_inverse=True)
            wobble = wobble[:, first.reshape(-1)]
            dots[rows] = (weights @ (corners + wobble) - 10) / 20
    return dots


def _curves(strokes: list[Stroke]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """All corners (C, 2) of the strokes, and weights (DOTS, C): `weights @ corners` are dots along them."""
    lengths = [float(np.hypot(*np.diff(stroke, axis=0).T).sum()) for stroke in strokes]
    shares = np.diff(np.rint(np.cumsum([0.0, *lengths]) / sum(lengths) * DOTS).astype(int))
    corners = np.concatenate([np.array(stroke, float) for stroke in strokes])
    weights = np.zeros((DOTS, len(corners)))
    row = column = 0
    for stroke, share in zip(strokes, shares, strict=True):
        weights[row : row + share, column : column + len(stroke)] = _catmull_rom(len(stroke), share)
        row, column = row + share, column + len(stroke)
    return corners, weights


def _catmull_rom(corners: int, dots: int) -> NDArray[np.float64]:
    """Weights (dots, corners) of the smooth curve through `corners` points."""
    t = np.linspace(0, corners - 1, dots)
    k = np.minimum(t.astype(int), corners - 2)
    u = t - k
    blend = [-u + 2 * u**2 - u**3, 2 - 5 * u**2 + 3 * u**3, u + 4 * u**2 - 3 * u**3, u**3 - u**2]
    weights = np.zeros((dots, corners))
    for offset, part in zip((-1, 0, 1, 2), blend, strict=True):
        # At the ends the missing neighbour is the end itself.
        np.add.at(weights, (np.arange(dots), np.clip(k + offset, 0, corners - 1)), part / 2)
    return weights


def _place(dots: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The dots in pixels, each digit scaled, slanted, turned and shifted."""
    n = len(dots)
    height, width = rng.uniform(14.5, 20, n), rng.uniform(0.75, 1.1, n)
    slant, turn = rng.normal(-0.12, 0.18, n), rng.normal(0, 0.1, n)
    x = (dots[..., 0] * width[:, None] + dots[..., 1] * slant[:, None]) * height[:, None]
    y = dots[..., 1] * height[:, None]
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    shift = SIDE / 2 - 0.5 + rng.normal(0, 0.9, (n, 1, 2))
    return (np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1) + shift).astype(np.float32)


def _ink(dots: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw dots (b, DOTS, 2) with a pen of its own width for each image: (b, 28, 28)."""
    b = len(dots)
    pixels = np.arange(SIDE, dtype=np.float32)
    across = (pixels - dots[..., :1]) ** 2  # (b, DOTS, 28)
    down = (pixels - dots[..., 1:]) ** 2
    nearest = np.full((b, SIDE, SIDE), np.inf, np.float32)
    here = np.empty_like(nearest)
    for dot in range(DOTS):
        np.add(down[:, dot, :, None], across[:, dot, None, :], out=here)
        np.minimum(nearest, here, out=nearest)
    radius = rng.uniform(0.7, 1.7, (b, 1, 1)).astype(np.float32)
    soft = rng.uniform(0.9, 1.6, (b, 1, 1)).astype(np.float32)
    light = rng.uniform(200, 255, (b, 1, 1)).astype(np.float32)
    noise = rng.uniform(2, 14, (b, 1, 1)).astype(np.float32)
    ink: NDArray[np.float32] = light * np.clip((radius - np.sqrt(nearest)) / soft + 0.5, 0, 1)
    ink += noise * rng.standard_normal(ink.shape, np.float32)
    return ink.clip(0, 255).astype(np.uint8)
