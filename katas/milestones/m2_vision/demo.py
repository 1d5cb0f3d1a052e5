"""Train a network on your tinytorch and look at what it gets wrong: `dojo milestone m2`."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from dojo import datasets, pictures
from dojo.compose import load_file
from dojo.console.screen import Screen
from dojo.plugin.real_data import why_missing
from tinytorch.layers import count_parameters
from tinytorch.training import Progress, confusion_matrix

HERE = Path(__file__).parent
M2 = load_file(HERE / "vision.py")
REPORT = load_file(HERE / "report.py")
RUN = load_file(HERE.parent / "run.py")

Array = np.ndarray[Any, Any]

EVERY = 25  # steps from one checkpoint to the next: three seconds or so


def main(args: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="dojo milestone m2", description=(__doc__ or "").partition(":")[0])
    parser.add_argument(
        "data", nargs="?", choices=list(M2.RECIPES), default="tinyshapes", help="to learn (tinyshapes)"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="how often each image is seen")
    parser.add_argument("--width", type=int, metavar="N", help="kernels of the first convolution")
    parser.add_argument("--crop", type=int, metavar="N", help="pixels by which images are moved (0)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order, flips and crops (0)")
    parser.add_argument("--resume", action="store_true", help="go on with a training that was stopped")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="for checkpoint and report (runs/m2_DATA)")
    parser.add_argument(
        "--pictures", type=int, default=6, metavar="N", help="how many wrong answers to show (6)"
    )
    options = parser.parse_args(args)
    changed = {name: getattr(options, name) for name in ("epochs", "width", "crop")}
    changed = {name: number for name, number in changed.items() if number is not None}
    for name, number in changed.items():
        if number < (least := 0 if name == "crop" else 1):
            parser.error(f"--{name} is {least} or more")
    if options.resume and (changed or options.seed):
        parser.error("a training that is resumed keeps its --epochs, --width, --crop and --seed")
    screen = Screen()
    if options.data == "cifar10" and (missing := why_missing("cifar10")):
        screen.say(missing)
        return 1
    run = RUN.Run(f"m2 {options.data}", M2.Recipe, options.to)
    if options.resume and not run.begun():
        screen.say(f"There is no checkpoint in {run.folder} to go on from.")
        return 1
    if options.resume:
        recipe, seed = run.recipe()
    else:
        recipe, seed = replace(M2.RECIPES[options.data], **changed), options.seed
        run.begin(recipe, seed)
    return train(screen, run, recipe, seed, options.pictures)


def train(screen: Screen, run: Any, recipe: Any, seed: int, shown: int) -> int:
    data, test = M2.dataset(recipe), M2.dataset(recipe, train=False)
    watch = RUN.Stopwatch()
    bar = [] if screen.plain else [Progress(screen.console)]
    trainer, loader, loss = M2.training(
        recipe, data, seed=seed, callbacks=[watch, *(bar or [RUN.Lines(screen)])]
    )
    parameters = count_parameters(trainer.model)
    screen.say(
        f"{recipe.data}: {len(data):,} images to learn from, {len(test):,} to be tried on; "
        f"{parameters:,} parameters, {recipe.epochs} epochs of {len(loader)} steps. "
        f"Ctrl-C stops; --resume goes on."
    )
    try:
        trainer.fit(loader, recipe.epochs, M2.looking(test), checkpoint=run.checkpoint, every=EVERY)
    except KeyboardInterrupt:
        at = "the beginning" if not run.begun() else f"step {trainer.step // EVERY * EVERY} or later"
        screen.say(f"Stopped at step {trainer.step}. To go on from {at}: {run.again()}")
        return RUN.STOPPED
    likely, labels = M2.answers(trainer.model, M2.looking(test))
    found = likely.argmax(axis=1)
    right = int((found == labels).sum())
    facts = {
        "right answers": f"{right:,} of {len(labels):,} ({right / len(labels):.1%})",
        "trained on": f"{trainer.rows:,} images in {watch.wall:.0f} s "
        f"({watch.cpu:.0f} s of the processor), {trainer.rows / watch.wall:,.0f} images a second",
        "network": f"{parameters:,} parameters",
        "recipe": ", ".join(f"{name} {value}" for name, value in asdict(recipe).items()),
        "seed": str(seed),
    }
    if peak := RUN.peak_memory():
        facts["memory at most"] = f"{peak / 2**20:.0f} MiB (files that are mapped included)"
    names = datasets.CLASSES[recipe.data]
    counts = confusion_matrix(found, labels, len(names))
    for name in ("right answers", "trained on", "memory at most"):
        if name in facts:
            screen.say(f"{name}: {facts[name]}")
    screen.say(f"loss: {loss.curve[0]:.2f} {pictures.sparkline(loss.curve, 50, plain=screen.plain)} "
               f"{np.mean(loss.curve[-20:]):.2f}")  # fmt: skip
    screen.say()
    for line in pictures.confusion(counts, names, plain=screen.plain):
        screen.say(line)
    screen.say()
    wrong = surest(likely, labels)
    images = {i: test[int(i)][0] for i in wrong[: max(shown, 24)]}
    drawn = [pictures.image(np.moveaxis(images[i], 0, -1), plain=screen.plain) for i in wrong[:shown]]
    words = [f"{names[found[i]]} {likely[i].max():.0%} (is {names[labels[i]]})" for i in images]
    captions = [Text(text, "red") for text in words[:shown]]
    for line in pictures.gallery(drawn, captions[: len(drawn)], width=screen.width):
        screen.say(line)
    run.report.write_text(
        REPORT.page(
            f"Milestone 2: {recipe.data}", facts, loss.curve, trainer.history, counts, names,
            list(zip(images.values(), words, strict=True)),
        ),
        encoding="utf-8",
    )  # fmt: skip
    screen.say(f"The report: {run.report}")
    if recipe.data == "tinyshapes" and not why_missing("cifar10"):
        screen.say(
            "CIFAR-10 is on this computer, too: `dojo milestone m2 cifar10` learns it in some minutes."
        )
    return 0


def surest(likely: Array, labels: Array) -> Array:
    """Where the wrong answers are, the surest first."""
    wrong = np.flatnonzero(likely.argmax(axis=1) != labels)
    order: Array = wrong[np.argsort(-likely[wrong].max(axis=1), kind="stable")]
    return order
