"""Plants each believable wrong solution in a process of its own, and sees at which level it is caught."""

from __future__ import annotations

import functools
import importlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from dojo import compose
from dojo.authoring import forking, suites
from dojo.curriculum import BY_NUMBER, REFERENCE, Kata, Unit, from_root
from dojo.mistakes import Mistake, kata_of, level_of

ENOUGH = "--maxfail=3"  # levels come in order, so the first failures are at the level that catches it
FOLDER = REFERENCE.parent / "mistakes"


@dataclass(frozen=True)
class Caught:
    """How a mistake fared: `level` is where it was caught, None when nowhere, and `by` which tests."""

    name: str
    claimed: int
    level: int | None
    by: tuple[str, ...]
    trouble: str = ""

    @property
    def problem(self) -> str:
        """What is wrong with the claim; empty when it holds."""
        if self.trouble:
            return f"{self.name}: {self.trouble}"
        if self.level is None:
            return f"{self.name} is not caught; a test of level {self.claimed} should notice it"
        if self.level != self.claimed:
            return (
                f"{self.name} claims level {self.claimed}, but {self.by[0]} of level {self.level} catches it"
            )
        return ""


def mistakes_file(unit: Unit) -> Path:
    return FOLDER / f"{unit.folder}.py"


def load(unit: Unit) -> ModuleType | None:
    """The module with a unit's mistakes; None if it has none."""
    file = mistakes_file(unit)
    return compose.load_file(file) if file.exists() else None


def listed(unit: Unit) -> dict[str, int]:
    """The mistakes of a unit, in the order of its file, and the level that each claims."""
    module = load(unit)
    members = vars(module) if module else {}
    return {name: level for name, value in members.items() if (level := level_of(value)) is not None}


def run_all(
    unit: Unit, every: int = 1, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Caught]:
    """Plant each mistake of a unit, or each `every`th, and run its suite; `progress` hears how far it is."""
    chosen = list(listed(unit).items())[::every]
    done = itertools.count(1)

    def plant(claim: tuple[str, int]) -> Caught:
        caught = run_one(unit, *claim)
        progress(next(done), len(chosen))
        return caught

    return suites.side_by_side(plant, chosen)


def run_one(unit: Unit, name: str, claimed: int) -> Caught:
    spoiled = spoiled_by(unit, name)
    if spoiled is None:
        trouble = f'it does not say which kata it spoils, as in @caught_by({claimed}, kata="05")'
        return Caught(name, claimed, None, (), trouble)
    source = suites.planted(spoiled, f"{mistakes_file(unit)}{compose.PLANTED}{name}")
    return judge(name, claimed, suites.run(unit, source, ENOUGH, steady=True))


def spoiled_by(unit: Unit, name: str) -> Kata | None:
    """The kata whose module a mistake spoils."""
    return unit if isinstance(unit, Kata) else BY_NUMBER.get(kata_of(getattr(load(unit), name)))


def misfits(unit: Unit) -> list[str]:
    """The mistakes that cannot be planted in the reference as it is now, and why: none is run, only planted.

    Only where processes can be forked; a process of its own for each would take an hour.
    """
    if not forking.POSSIBLE:
        return []
    problems: list[str] = forking.in_child(lambda: [*_misfits(unit)])
    return problems


def _misfits(unit: Unit) -> Iterator[str]:
    os.environ[compose.VARIABLE] = "reference"
    compose.reach()
    mistakes = load(unit)
    for name in listed(unit):
        if (kata := spoiled_by(unit, name)) is not None:
            module = importlib.import_module(kata.module)
            if words := forking.in_child(functools.partial(_planted, getattr(mistakes, name), module)):
                yield f"{shown_file(unit)}: {name} cannot be planted: {words}"


def _planted(mistake: Mistake, module: ModuleType) -> str:
    """Why it cannot be planted, if so."""
    try:
        mistake(module)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def judge(name: str, claimed: int, run: suites.SuiteRun) -> Caught:
    """What a run of the suite says about the mistake planted in it."""
    failed = run.failed
    level = min((outcome.level for outcome in failed), default=None)
    by = tuple(outcome.id for outcome in failed if outcome.level == level)
    trouble = run.trouble
    if any(test.endswith("::the_stub_can_be_imported") for test in by):
        trouble = f"it cannot be planted: {failed[0].words}"
    elif skipped := run.having("skipped"):
        trouble = trouble or f"{skipped[0].id} was skipped: {skipped[0].words}"
    return Caught(name, claimed, level, by, trouble)


def shown_file(unit: Unit) -> str:
    return from_root(mistakes_file(unit))
