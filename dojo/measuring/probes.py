"""What a kata measures: one `Probe` for each quantity whose growth it teaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.random import Generator


@dataclass(frozen=True)
class Probe:
    """One measured quantity.

    `prepare(n, rng)` builds the arguments for size n, outside the clock, and `call(*args)` is measured.
    `time` and `memory` are the expected exponents: 2 means that doubling n takes four times as much.
    `flops(n)` and `moved(n)` are the floating-point operations done and the bytes read and written by an
    ideal implementation, for the comparison with the roofline.  `torch(*args)` is the same work in PyTorch:
    it gets the arguments of `call` with every array (or Tensor) turned into a torch tensor.

        Probe("matmul", (64, 128, 256, 512), prepare=lambda n, rng: (rng.normal(size=(n, n)),) * 2,
              call=lambda a, b: matmul(a, b), time=3, memory=2,
              flops=lambda n: 2 * n**3, moved=lambda n: 3 * 8 * n**2, torch=lambda a, b: a @ b)

    Raises:
        ValueError: fewer than two sizes, or sizes that do not grow.
    """

    name: str
    sizes: tuple[int, ...]
    prepare: Callable[[int, Generator], tuple[Any, ...]]
    call: Callable[..., object]
    time: float | None = None
    memory: float | None = None
    flops: Callable[[int], float] | None = None
    moved: Callable[[int], float] | None = None
    torch: Callable[..., object] | None = None

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"probe {self.name!r}: sizes {self.sizes} should be two or more, each larger")


def load_probes(file: str | Path) -> ModuleType:
    """The probes.py beside `file` (a test passes its `__file__`), or `file` itself if that is one.

    The module has an attribute `PROBES`, a tuple of Probe.
    """
    from dojo.compose import load_file

    return load_file(Path(file).resolve().with_name("probes.py"))
