"""What the demos of milestones 2 and 3 share: a training that leaves its traces in a folder of its own."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

from dojo.console.screen import Screen
from dojo.curriculum import ROOT
from tinytorch.training import Callback, in_words, previous

STOPPED = 130  # what a shell expects of a program that was interrupted

Recipe = TypeVar("Recipe")  # a dataclass of numbers and words


class Run(Generic[Recipe]):
    """The folder of a training: its recipe, its checkpoint, its report.

    Args:
        name: of the milestone, and of what it learns, as a user types them: "m2 cifar10".
        make: makes a recipe of what `asdict` made of it.
        folder: runs/m2_cifar10, unless another is given.
    """

    def __init__(self, name: str, make: type[Recipe], folder: Path | None = None) -> None:
        self.name, self.make = name, make
        self.folder = folder or self.usual
        self.checkpoint = self.folder / "checkpoint.npz"
        self.report = self.folder / "report.html"
        self._recipe = self.folder / "recipe.json"

    @property
    def usual(self) -> Path:
        return ROOT / "runs" / self.name.replace(" ", "_")

    def begun(self) -> bool:
        return self._recipe.exists() and (self.checkpoint.exists() or previous(self.checkpoint).exists())

    def begin(self, recipe: Recipe, seed: int) -> None:
        """Note the recipe; what an earlier training left is removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in (self.checkpoint, previous(self.checkpoint), self.report):
            old.unlink(missing_ok=True)
        noted = {"seed": seed, **asdict(recipe)}  # type: ignore[call-overload]
        self._recipe.write_text(json.dumps(noted), encoding="utf-8")

    def recipe(self) -> tuple[Recipe, int]:
        """What was noted: the recipe, and the seed."""
        noted = json.loads(self._recipe.read_text("utf-8"))
        seed = noted.pop("seed")
        return self.make(**{k: tuple(v) if isinstance(v, list) else v for k, v in noted.items()}), seed

    def again(self) -> str:
        """What to type to go on."""
        place = "" if self.folder == self.usual else f" --to {self.folder}"
        resume = " --resume" if self.begun() else ""
        return f"dojo milestone {self.name}{place}{resume}"


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


class Lines(Callback):  # type: ignore[misc]
    """A line for each epoch, where there is no terminal for a bar."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen

    def on_epoch_end(self, trainer: Any) -> None:
        last = {name: numbers[-1] for name, numbers in trainer.history.items()}
        self.screen.say(f"epoch {trainer.epoch}/{trainer.epochs}  {in_words(last)}")


def peak_memory() -> int:
    """Bytes that this process has taken at most; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
