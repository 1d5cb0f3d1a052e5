"""Run every model on your tinytorch and look at its answers: `dojo milestone m1`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from dojo import datasets, pictures
from dojo.compose import load_file
from dojo.console.screen import Screen
from dojo.plugin.real_data import why_missing

M1 = load_file(Path(__file__).with_name("inference.py"))

Array = np.ndarray[Any, Any]

SHOWN = [  # model, data
    ("xor", "xor"),
    ("spirals", "spirals"),
    ("digits", "tinydigits"),
    ("shapes", "tinyshapes"),
    ("digits", "mnist"),
    ("cifar10", "cifar10"),
]
COLOURS = np.array([[230, 90, 70], [80, 160, 240], [240, 200, 70]])  # of the arms of the spirals
CELLS = 36  # of a map of the plane, each way


def main(args: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="dojo milestone m1", description=(__doc__ or "").partition(":")[0])
    parser.add_argument(
        "--pictures", type=int, default=6, metavar="N", help="how many to show of each set (6)"
    )
    parser.add_argument("--move", type=int, default=0, metavar="N", help="images by N pixels, down and right")
    parser.add_argument("--seed", type=int, default=0, help="which ones (0)")
    options = parser.parse_args(args)
    screen = Screen()
    for name, data in SHOWN:
        if data in M1.REAL and (missing := why_missing(data)):
            screen.say(missing)
            continue
        run(screen, M1.models()[name], data, options)
    return 0


def bar_on(screen: Screen) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    return Progress(
        *columns, TimeRemainingColumn(), console=screen.console, transient=True, disable=screen.plain
    )


def run(screen: Screen, model: Any, data: str, options: argparse.Namespace) -> None:
    """Answer all of a set, say how well and how fast, and show some of it."""
    inputs, labels = M1.examples(data)
    if inputs.ndim > 2:
        inputs = moved(inputs, options.move)
    network = M1.network(model)
    parameters = sum(weight.size + bias.size for weight, bias in M1.weights(model))
    began = time.perf_counter()
    parts = []
    with bar_on(screen) as bar:
        task = bar.add_task(data, total=len(inputs))
        for part in M1.probabilities(network, model, inputs):
            parts.append(part)
            bar.advance(task, len(part))
    found = np.concatenate(parts)
    took = time.perf_counter() - began
    right = found.argmax(axis=1) == labels
    expected, _ = M1.expected(model, data, inputs, labels)
    speed = f", {len(right) / took:,.0f} examples a second" if len(right) > 100 else ""
    screen.say(
        f"{data}: {right.sum()} of {len(right)} right ({right.mean():.1%}), {expected} expected; "
        f"MLP {'-'.join(map(str, model.sizes))}, {parameters:,} parameters{speed}"
    )
    rng, count = np.random.default_rng(options.seed), options.pictures
    # A third are wrong answers, where there are any.
    mistaken = rng.permutation(np.flatnonzero(~right))[: count // 3]
    chosen = [*rng.permutation(np.flatnonzero(right))[: count - len(mistaken)], *mistaken]
    if inputs.ndim == 2:
        drawn = [plane(screen, network, model, inputs, labels)]
    else:
        drawn = [pictures.image(upright(image), plain=screen.plain) for image in inputs[chosen]]
    captions = [] if inputs.ndim == 2 else [answer(data, found[i], labels[i]) for i in chosen]
    for line in pictures.gallery(drawn, captions, width=screen.width):
        screen.say(line)
    screen.say()


def moved(images: Array, pixels: int) -> Array:
    """Down and to the right (up and to the left, if negative); the edges are repeated."""
    rows, columns = (np.clip(np.arange(n) - pixels, 0, n - 1) for n in images.shape[-2:])
    return images[..., rows[:, None], columns]


def upright(image: Array) -> Array:
    """Channels last, as pictures are drawn."""
    return np.moveaxis(image, 0, -1) if image.ndim == 3 else image


def answer(data: str, likely: Array, label: int) -> Text:
    """`cat 71%` where that is right, `dog 55% (is cat)` where not."""
    names = datasets.CLASSES.get(data, tuple(map(str, range(10))))
    said = int(likely.argmax())
    words = f"{names[said]} {likely[said]:.0%}"
    return Text(words, "green") if said == label else Text(f"{words} (is {names[label]})", "red")


def plane(screen: Screen, network: Any, model: Any, points: Array, labels: Array) -> pictures.Picture:
    """The class that the network sees at each place, in mixed colours where it is unsure, and the points."""
    low, high = points.min() - 0.1, points.max() + 0.1
    ticks = np.linspace(low, high, CELLS, dtype=np.float32)
    places = np.stack(np.meshgrid(ticks, ticks[::-1]), axis=-1).reshape(-1, 2)
    found = np.concatenate(list(M1.probabilities(network, model, places)))
    if screen.plain:
        digits = found.argmax(axis=1).reshape(CELLS, CELLS)
        return [Text("".join(map(str, row))) for row in digits[::2]]
    shades = (found @ COLOURS[: found.shape[1]]).reshape(CELLS, CELLS, 3) * 0.6
    column, row = np.rint((points - low) / (high - low) * (CELLS - 1)).astype(int).T
    shades[CELLS - 1 - row, column] = COLOURS[labels]
    return pictures.image(shades.astype(np.uint8))
