"""Train a network on your tinytorch and look at what it gets wrong: `dojo milestone m2`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from dojo import datasets, pictures
from dojo.compose import load_file
from dojo.console.screen import Screen
from dojo.curriculum import ROOT
from dojo.plugin.real_data import why_missing
from tinytorch.layers import count_parameters
from tinytorch.training import Callback, Progress, confusion_matrix, in_words, previous

HERE = Path(__file__).parent
M2 = load_file(HERE / "vision.py")
REPORT = load_file(HERE / "report.py")

Array = np.ndarray[Any, Any]

EVERY = 25  # steps from one checkpoint to the next: three seconds or so
STOPPED = 130  # what a shell expects of a program that was interrupted


def main(args: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="dojo milestone m2", description=(__doc__ or "").partition(":")[0])
    parser.add_argument(
        "data", nargs="?", choices=list(M2.RECIPES), default="tinyshapes", help="to learn (tinyshapes)"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="how often each image is seen")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and flips (0)")
    parser.add_argument("--resume", action="store_true", help="go on with a training that was stopped")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="for checkpoint and report (runs/m2_DATA)")
    parser.add_argument(
        "--pictures", type=int, default=6, metavar="N", help="how many wrong answers to show (6)"
    )
    options = parser.parse_args(args)
    if options.epochs is not None and options.epochs < 1:
        parser.error("--epochs is 1 or more")
    if options.resume and (options.epochs or options.seed):
        parser.error("a training that is resumed keeps its --epochs and --seed")
    screen = Screen()
    if options.data == "cifar10" and (missing := why_missing("cifar10")):
        screen.say(missing)
        return 1
    run = Run(options.to or ROOT / "runs" / f"m2_{options.data}")
    if options.resume and not run.begun():
        screen.say(f"There is no checkpoint in {run.folder} to go on from.")
        return 1
    recipe, seed = run.recipe() if options.resume else (M2.RECIPES[options.data], options.seed)
    if options.epochs:
        recipe = replace(recipe, epochs=options.epochs)
    if not options.resume:
        run.begin(recipe, seed)
    return train(screen, run, recipe, seed, options.pictures)


class Run:
    """The folder of a training: its recipe, its checkpoint, its report."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint = folder / "checkpoint.npz"
        self.report = folder / "report.html"
        self._recipe = folder / "recipe.json"

    def begun(self) -> bool:
        return self._recipe.exists() and (self.checkpoint.exists() or previous(self.checkpoint).exists())

    def begin(self, recipe: Any, seed: int) -> None:
        """Note the recipe; what an earlier training left is removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in (self.checkpoint, previous(self.checkpoint), self.report):
            old.unlink(missing_ok=True)
        self._recipe.write_text(json.dumps({"seed": seed, **asdict(recipe)}), encoding="utf-8")

    def recipe(self) -> tuple[Any, int]:
        noted = json.loads(self._recipe.read_text("utf-8"))
        seed, betas = noted.pop("seed"), tuple(noted.pop("betas"))
        return M2.Recipe(betas=betas, **noted), seed


class Stopwatch(Callback):  # type: ignore[misc]
    """Seconds of training and of the processor, over all the times that it was taken up again."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def on_epoch_begin(self, trainer: Any) -> None:
        self.last = time.perf_counter(), time.process_time()

    def on_batch_end(self, trainer: Any) -> None:
        now = time.perf_counter(), time.process_time()
        self.wall += now[0] - self.last[0]
        self.cpu += now[1] - self.last[1]
        self.last = now

    def state_dict(self) -> dict[str, float]:
        return {"wall": self.wall, "cpu": self.cpu}

    def load_state_dict(self, saved: Any) -> None:
        self.wall, self.cpu = float(saved["wall"]), float(saved["cpu"])


def train(screen: Screen, run: Run, recipe: Any, seed: int, shown: int) -> int:
    data, test = M2.dataset(recipe), M2.dataset(recipe, train=False)
    watch = Stopwatch()
    bar = [] if screen.plain else [Progress(screen.console)]
    trainer, loader, loss = M2.training(recipe, data, seed=seed, callbacks=[watch, *(bar or [Lines(screen)])])
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
        screen.say(f"Stopped at step {trainer.step}. To go on from {at}: {again(run, recipe)}")
        return STOPPED
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
    if peak := peak_memory():
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


class Lines(Callback):  # type: ignore[misc]
    """A line for each epoch, where there is no terminal for a bar."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen

    def on_epoch_end(self, trainer: Any) -> None:
        last = {name: numbers[-1] for name, numbers in trainer.history.items()}
        self.screen.say(f"epoch {trainer.epoch}/{trainer.epochs}  {in_words(last)}")


def surest(likely: Array, labels: Array) -> Array:
    """Where the wrong answers are, the surest first."""
    wrong = np.flatnonzero(likely.argmax(axis=1) != labels)
    order: Array = wrong[np.argsort(-likely[wrong].max(axis=1), kind="stable")]
    return order


def again(run: Run, recipe: Any) -> str:
    """What to type to go on."""
    place = "" if run.folder == ROOT / "runs" / f"m2_{recipe.data}" else f" --to {run.folder}"
    resume = " --resume" if run.begun() else ""
    return f"dojo milestone m2 {recipe.data}{place}{resume}"


def peak_memory() -> int:
    """Bytes that this process has taken at most; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
