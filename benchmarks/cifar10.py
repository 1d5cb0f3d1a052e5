"""Milestone 2 beside PyTorch: the same network on the same batches, in turns, step by step.

    python -m benchmarks.cifar10                 all of it: two epochs, ten minutes on two cores
    python -m benchmarks.cifar10 --steps 40      a short form
    python -m benchmarks.cifar10 --record        all of it, into the milestone's recorded.json

Both start with the same weights, so that their losses can be compared, too. Time is
that of the whole step: load, change and scale a batch, forward, backward, update. Memory is that of a process
of each one's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.beside import pytorch, reference
from benchmarks.turns import Clock, command, peak_of, race

compose: Any = reference("dojo.compose")
curriculum: Any = reference("dojo.curriculum")
torch: Any = pytorch()
FOLDER = curriculum.ROOT / "katas/milestones/m2_vision"
SHORT = 30  # steps, to see how much memory is taken


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
        done = 0
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
        m2, right = self.ours.m2, 0
        data = m2.part(m2.dataset(self.ours.recipe, train=False), images)
        self.model.eval()
        with torch.no_grad():
            for x, labels in m2.looking(data):
                right += int((self.model(torch.from_numpy(x)).argmax(1).numpy() == labels).sum())
        return right / len(data)


SIDES: dict[str, Callable[[int | None], Any]] = {"tinytorch": Ours, "pytorch": Theirs}


def compared(steps: int | None) -> dict[str, Any]:
    """Train both in turns, try both, and say how it went."""
    sides = {name: make(steps) for name, make in SIDES.items()}
    one = sides["tinytorch"]
    result = race({name: side.run() for name, side in sides.items()}, one.steps, one.recipe.batch, "images")
    images = 10_000 if steps is None else 1000
    result |= {"epochs": one.steps / len(one.loader), "test images": images, "torch": torch.__version__}
    for name, side in sides.items():
        clock = Clock()
        with clock.running():
            result[name]["accuracy"] = side.answers(images)
        result[name]["test cpu seconds"] = clock.cpu
        result[name]["peak MiB"] = peak_of(
            "from benchmarks import cifar10\n"
            f"one = cifar10.SIDES[{name!r}]({SHORT}); [*one.run()]; one.answers(1000)"
        )
    return result


if __name__ == "__main__":
    command(__doc__, compared, FOLDER)
