"""Milestone 2 beside PyTorch: the same network on the same batches, in turns, step by step.

    python -m benchmarks.cifar10                 all of it: two epochs, ten minutes on two cores
    python -m benchmarks.cifar10 --steps 40      a short form
    python -m benchmarks.cifar10 --record        all of it, into the milestone's recorded.json

Both start with the same weights, so that their losses can be compared, too. Time is
that of the whole step: load, change and scale a batch, forward, backward, update. Memory is that of a process
of each one's own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.beside import pytorch, reference

compose: Any = reference("dojo.compose")
curriculum: Any = reference("dojo.curriculum")
FOLDER = curriculum.ROOT / "katas/milestones/m2_vision"
RECORD = FOLDER / "recorded.json"
SHORT = 30  # steps, to see how much memory is taken


class Clock:
    """Seconds of wall and of CPU time inside of `with clock.running():`."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu


def vision() -> Any:
    """The milestone's module, on the reference."""
    return compose.load_file(FOLDER / "vision.py")


class Ours:
    def __init__(self, steps: int | None) -> None:
        self.m2 = vision()
        self.recipe = self.m2.RECIPES["cifar10"]
        self.trainer, self.loader, self.loss = self.m2.training(self.recipe, self.m2.dataset(self.recipe))
        self.loader.prefetch = 0  # nothing is made while the other has its turn
        self.steps = steps or self.recipe.epochs * len(self.loader)

    def run(self) -> Iterator[float]:
        """The loss of each step."""
        while self.trainer.step < self.steps:
            for batch in self.loader:
                self.trainer.train_batch([batch])
                yield self.loss.curve[-1]
                if self.trainer.step == self.steps:
                    return

    def answers(self, images: int) -> float:
        """The share of right answers on the first images of the test set."""
        data = self.m2.part(self.m2.dataset(self.recipe, train=False), images)
        likely, labels = self.m2.answers(self.trainer.model, self.m2.looking(data))
        return float((likely.argmax(axis=1) == labels).mean())


class Theirs:
    """The same in PyTorch, on batches of the same loader."""

    def __init__(self, steps: int | None) -> None:
        self.torch = torch = pytorch()
        self.ours = Ours(steps)
        nn, recipe = torch.nn, self.ours.recipe

        class Whitening(nn.Module):  # type: ignore[misc, name-defined]
            def __init__(self, weight: Any) -> None:
                super().__init__()
                self.register_buffer("weight", weight)

            def forward(self, x: Any) -> Any:
                return nn.functional.relu(nn.functional.conv2d(x, self.weight, stride=2, padding=1))

        def block(inputs: int, outputs: int) -> Any:
            return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)

        def norm(channels: int) -> Any:
            return nn.BatchNorm2d(channels, momentum=recipe.momentum)

        width, state = recipe.width, self.ours.trainer.model.state_dict()
        self.model = nn.Sequential(
            Whitening(torch.tensor(state["0.weight"])),
            *(block(48, width), nn.MaxPool2d(2), norm(width), nn.ReLU()),
            *(block(width, 2 * width), nn.MaxPool2d(2), norm(2 * width), nn.ReLU()),
            *(block(2 * width, 2 * width), norm(2 * width), nn.MaxPool2d(4), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(2 * width, 10, bias=False)),
        )
        self.model.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
        parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.decay},
                {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
            ],
            lr=recipe.lr,
            betas=recipe.betas,
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            recipe.lr,
            total_steps=recipe.epochs * len(self.ours.loader),
            pct_start=recipe.rise,
            anneal_strategy="linear",
            cycle_momentum=False,
            div_factor=recipe.div,
            final_div_factor=recipe.div,
        )

    def run(self) -> Iterator[float]:
        torch, done = self.torch, 0
        while done < self.ours.steps:
            for images, labels in self.ours.loader:
                self.optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(
                    self.model(torch.from_numpy(images)),
                    torch.from_numpy(labels),
                    label_smoothing=self.ours.recipe.smoothing,
                )
                loss.backward()
                self.optimizer.step()
                self.schedule.step()
                done += 1
                yield loss.item()
                if done == self.ours.steps:
                    return

    def answers(self, images: int) -> float:
        m2, torch, right = self.ours.m2, self.torch, 0
        data = m2.part(m2.dataset(self.ours.recipe, train=False), images)
        self.model.eval()
        with torch.no_grad():
            for x, labels in m2.looking(data):
                right += int((self.model(torch.from_numpy(x)).argmax(1).numpy() == labels).sum())
        return right / len(data)


SIDES: dict[str, Callable[[int | None], Any]] = {"tinytorch": Ours, "pytorch": Theirs}


def peak_of(side: str) -> float:
    """MiB that a process takes at most that trains so for some steps and answers 1,000 images."""
    code = (
        "import sys, resource; from benchmarks import cifar10\n"
        f"one = cifar10.SIDES[{side!r}]({SHORT}); [*one.run()]; one.answers(1000)\n"
        "used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print('peak', used / (2**20 if sys.platform == 'darwin' else 2**10))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=curriculum.ROOT, capture_output=True, text=True, check=True
    )
    found = re.search(r"peak ([\d.]+)", done.stdout)
    assert found is not None
    return float(found[1])


def race(steps: int | None) -> dict[str, Any]:
    """Train both in turns, and say how it went."""
    sides = {name: make(steps) for name, make in SIDES.items()}
    recipe, count = sides["tinytorch"].recipe, sides["tinytorch"].steps
    clocks = {name: Clock() for name in sides}
    losses: dict[str, list[float]] = {name: [] for name in sides}
    runs = {name: side.run() for name, side in sides.items()}
    ratios = []
    for step in range(count):
        for name in list(runs)[:: 1 if step % 2 else -1]:
            before = clocks[name].cpu
            with clocks[name].running():
                losses[name].append(next(runs[name]))
            ratios.append((name, clocks[name].cpu - before))
        if (step + 1) % 20 == 0 or step + 1 == count:
            shown = "  ".join(
                f"{name} {clock.cpu / (step + 1) / recipe.batch * 1e6:.0f} us an image, "
                f"loss {np.mean(losses[name][-20:]):.3f}"
                for name, clock in clocks.items()
            )
            print(f"step {step + 1}/{count}  {shown}", flush=True)
    spread = np.percentile(
        np.divide(*([seconds for side, seconds in ratios if side == name] for name in sides)), [25, 50, 75]
    )
    images = 10_000 if steps is None else 1000
    result: dict[str, Any] = {
        "epochs": count / len(sides["tinytorch"].loader),
        "ratio": clocks["tinytorch"].cpu / clocks["pytorch"].cpu,
        "ratio quartiles": spread.tolist(),
        "test images": images,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": sides["pytorch"].torch.__version__,
        "threads": int(os.environ["OPENBLAS_NUM_THREADS"]),
    }
    for name, clock in clocks.items():
        testing = Clock()
        with testing.running():
            right = sides[name].answers(images)
        result[name] = {
            "accuracy": right,
            "wall seconds": clock.wall,
            "cpu seconds": clock.cpu,
            "test cpu seconds": testing.cpu,
            "images per second": count * recipe.batch / clock.wall,
            "images per cpu second": count * recipe.batch / clock.cpu,
            "peak MiB": peak_of(name),
            "first loss": losses[name][0],
            "last loss": float(np.mean(losses[name][-50:])),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, help="a short form of so many steps of each")
    parser.add_argument("--record", action="store_true", help="write recorded.json")
    args = parser.parse_args()
    result = rounded(race(args.steps))
    print(json.dumps(result, indent=1))
    if args.record and args.steps is None:
        kept = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}
        kept["beside pytorch"] = result
        RECORD.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8", newline="\n")


def rounded(value: Any) -> Any:
    """Four digits of every number."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
