"""The course: twenty katas in four phases, and a milestone at the end of each phase.

A kata's folder, module and stub share its name: `06 autograd` is taught in katas/06_autograd and
written in stubs/tinytorch/autograd.py, which is imported as `tinytorch.autograd`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

ROOT = Path(__file__).resolve().parents[1]
STUBS = ROOT / "stubs" / "tinytorch"
REFERENCE = ROOT / "reference" / "tinytorch"


@dataclass(frozen=True)
class _Unit:
    """What katas and milestones have in common."""

    home: ClassVar[str]
    number: str
    name: str
    title: str

    @property
    def folder(self) -> str:
        return f"{self.number}_{self.name}"

    @property
    def shown(self) -> str:
        """Its folder as a student types it."""
        return f"{self.home}/{self.folder}"

    @property
    def path(self) -> Path:
        return ROOT / self.shown

    @property
    def command(self) -> str:
        """What to type to work on it."""
        return f"pytest {self.shown}"

    @property
    def written(self) -> bool:
        """Whether the course has it yet: its suite is there, and sealed by a manifest."""
        return (self.path / "manifest.json").is_file()

    def __str__(self) -> str:
        return f"{self.number} {self.name}"


@dataclass(frozen=True)
class Kata(_Unit):
    """One row of the course.  `needs` are the katas whose modules this one imports."""

    home = "katas"
    phase: str
    needs: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        return f"tinytorch.{self.name}"

    @property
    def stub(self) -> Path:
        return STUBS / f"{self.name}.py"

    @property
    def reference(self) -> Path:
        return REFERENCE / f"{self.name}.py"


@dataclass(frozen=True)
class Milestone(_Unit):
    """A real model that runs on what the student built; open once every kata up to `after` has passed."""

    home = "katas/milestones"
    after: str

    @property
    def needs(self) -> tuple[str, ...]:
        """The katas that it runs on: every one up to `after`."""
        return tuple(kata.number for kata in KATAS if kata.number <= self.after)


PHASES = {
    "foundation": "tensors, layers and autograd: a framework that differentiates anything you write in it",
    "vision": "convolutions, optimizers and training: a CNN that reaches 75 % on CIFAR-10",
    "language": "tokens, attention and transformers: a TinyGPT that writes",
    "systems": "profiling, kernels, compression and caching: the same models, fast, small and lean",
}

KATAS: tuple[Kata, ...] = (
    Kata("01", "setup", "Tools that tell the truth", "foundation"),
    Kata("02", "tensor", "Tensors, strides and broadcasting", "foundation"),
    Kata("03", "layers", "Modules, parameters and the first gradient", "foundation", ("02",)),
    Kata("04", "activations", "Curves, slopes and what backward must keep", "foundation", ("02", "03")),
    Kata("05", "networks", "Networks and backpropagation down a line", "foundation", ("02", "03", "04")),
    Kata("06", "autograd", "Automatic differentiation", "foundation", ("01", "02", "03", "04", "05")),
    Kata("07", "spatial", "Convolution, pooling and batch norm", "vision", ("02", "03", "04", "05", "06")),
    Kata("08", "optimizers", "Optimizers and schedules", "vision", ("02", "03", "06")),
    Kata("09", "dataloader", "Datasets and loaders", "vision", ("02",)),
    Kata(
        "10", "training", "Losses, training and checkpoints", "vision", ("02", "03", "04", "06", "08", "09")
    ),
    Kata("11", "tokenization", "Characters, bytes and tokens", "language"),
    Kata("12", "embeddings", "Embeddings and positions", "language", ("02", "03", "06")),
    Kata("13", "attention", "Attention", "language", ("02", "03", "04", "06", "12")),
    Kata(
        "14", "transformers", "Blocks and a TinyGPT", "language", ("02", "03", "04", "05", "06", "12", "13")
    ),
    Kata(
        "15",
        "generation",
        "Sampling, caching and training a language model",
        "language",
        ("02", "03", "04", "06", "08", "09", "10", "11", "13", "14"),
    ),
    Kata("16", "profiling", "Profilers and rooflines", "systems", ("01", "02", "03", "06")),
    Kata(
        "17",
        "kernels",
        "Fused and blocked kernels",
        "systems",
        ("02", "03", "04", "05", "06", "07", "08", "10"),
    ),
    Kata(
        "18",
        "compression",
        "Pruning, quantisation and distillation",
        "systems",
        ("02", "03", "04", "05", "06", "07", "08", "10"),
    ),
    Kata(
        "19",
        "kvcache",
        "Caches for generation",
        "systems",
        ("02", "03", "04", "06", "10", "13", "14", "15"),
    ),
    Kata(
        "20",
        "competition",
        "One model, four metrics",
        "systems",
        ("02", "03", "04", "05", "06"),
    ),
)

MILESTONES: tuple[Milestone, ...] = (
    Milestone("m1", "inference", "Pretrained networks on your framework", after="05"),
    Milestone("m2", "vision", "A CNN trained on CIFAR-10", after="10"),
    Milestone("m3", "language", "A TinyGPT that writes", after="15"),
    Milestone("m4", "competition", "The optimisation competition", after="20"),
)

Unit = Kata | Milestone
UNITS: tuple[Unit, ...] = (*KATAS, *MILESTONES)

BY_NUMBER = {kata.number: kata for kata in KATAS}


def find(text: str) -> Kata:
    """The kata meant by `6`, `06`, `autograd`, `06_autograd`, `06.3` or a path to its folder or stub.

    Raises:
        ValueError: no kata is called that; the message lists the twenty.
    """
    word = text.strip().replace("\\", "/").rstrip("/").rpartition("/")[2].removesuffix(".py")
    task = word.partition(".")[0]
    for kata in KATAS:
        if word in (kata.name, kata.folder) or task in (kata.number, kata.number.lstrip("0")):
            return kata
    raise ValueError(f"there is no kata {text!r}; the katas are {', '.join(map(str, KATAS))}")


def from_root(path: Path) -> str:
    """A file or folder from the repository's root, with forward slashes; as it is when it lies elsewhere."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def before(kata: Kata) -> tuple[Kata, ...]:
    """The katas that come earlier in the course."""
    return KATAS[: KATAS.index(kata)]
