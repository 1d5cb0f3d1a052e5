"""Which of a student's modules is at fault where a kata or a milestone fails.

The tests that failed are run again on the reference with the student's modules put in, one at a time.  A
module with which they fail is at fault by itself.  Where none is, the reference is put in the place of one
module at a time: a module without which they pass is at fault together with others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dojo.authoring import suites
from dojo.curriculum import BY_NUMBER, Kata, Unit
from dojo.grading import plain
from dojo.grading.leash import Leash

MOST = 5  # failing tests that are run again; they fail for the same few reasons


@dataclass(frozen=True)
class Fault:
    """A module and how many of `tried` failing tests fail by it; `alone`: on reference/'s others."""

    kata: Kata
    tests: int
    tried: int
    alone: bool

    def __str__(self) -> str:
        if self.alone:
            return f"{self.kata}: put into the reference, it makes {self.tests} of {self.tried} fail"
        return (
            f"{self.kata}, with others: with the reference's in its place, {self.tests} of {self.tried} pass"
        )

    def as_data(self) -> dict[str, object]:
        return {"kata": self.kata.number, "tests": self.tests, "tried": self.tried, "alone": self.alone}


def stack(unit: Unit) -> list[Kata]:
    """The katas that `unit` stands on, and itself if it is one, in the order of the course."""
    numbers = set(unit.needs) | ({unit.number} if isinstance(unit, Kata) else set())
    while True:
        more = numbers.union(*(BY_NUMBER[n].needs for n in numbers if n in BY_NUMBER))
        if more == numbers:
            return [BY_NUMBER[n] for n in sorted(numbers)]
        numbers = more


def faults(unit: Unit, failing: Sequence[str], copies: Path, limit: float, leash: Leash) -> list[Fault]:
    """The modules in `copies` that are at fault for the `failing` tests of `unit`."""
    tests = list(failing)[:MOST]
    katas = [kata for kata in stack(unit) if (copies / f"{kata.name}.py").exists()]

    def passing(spec: str) -> int:
        told = plain.ask(unit, spec, copies, limit, leash, tests)
        return sum(told.states.get(test) == "passed" for test in tests)

    found = []
    for kata in katas:
        passed = passing(suites.planted(kata, copies / f"{kata.name}.py"))
        if passed < len(tests):
            found.append(Fault(kata, len(tests) - passed, len(tests), alone=True))
    if found:
        return found
    healed = [(kata, passing(f"{copies},{kata.number}=reference")) for kata in katas]
    return [Fault(kata, passed, len(tests), alone=False) for kata, passed in healed if passed]
