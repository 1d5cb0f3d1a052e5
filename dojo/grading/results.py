"""What a grade is made of: a submission's katas, each in parts, each part passed by so many of its tests.

In plain mode the parts are a kata's levels; in strict mode they are the checks of its strict.py.  What did
not run (locked, blocked, skipped, never reached) has not passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

PASSED, FAILED, TODO, BLOCKED = "passed", "failed", "to do", "blocked"
LOCKED, MISSING, REFUSED = "locked", "missing", "refused"

# Of a kata's points: being right is worth as much as the rest that needs it, which is why it comes first.
WEIGHTS = {1: 4, 2: 2, 3: 2, 4: 2}
POINTS = 10  # a kata


@dataclass(frozen=True)
class Part:
    """A level or a check: `passed` of its `total` tests.  `words` say what went wrong first."""

    name: str
    state: str
    passed: int
    total: int
    weight: int = 1
    words: str = ""


@dataclass(frozen=True)
class Outcome:
    """How one kata of one submission did.  `seconds` are of the clock; no score hangs on them."""

    kata: str
    state: str
    parts: tuple[Part, ...] = ()
    words: str = ""
    seconds: float = 0.0

    @property
    def score(self) -> float:
        """From 0 to 1: the weighted share of the tests that passed."""
        weight = sum(part.weight for part in self.parts)
        if self.state == PASSED or not weight:
            return float(self.state == PASSED)
        return sum(p.weight * p.passed / p.total for p in self.parts if p.total) / weight

    @property
    def reached(self) -> str:
        """The first part that did not pass; empty when all did."""
        return next((part.name for part in self.parts if part.state != PASSED), "")

    def as_data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Outcome:
        """What `as_data` gave, read from JSON.

        Raises:
            KeyError, TypeError: it is not that.
        """
        parts = tuple(Part(**part) for part in data["parts"])
        return cls(**{**data, "parts": parts})


@dataclass(frozen=True)
class Grade:
    """A submission's outcomes, in the order of the course."""

    name: str
    outcomes: tuple[Outcome, ...]
    trouble: str = ""

    @property
    def points(self) -> float:
        return sum(POINTS * outcome.score for outcome in self.outcomes)

    @property
    def most(self) -> int:
        """The points that could be had."""
        return POINTS * len(self.outcomes)

    def line(self) -> str:
        """One line for a person: `ana  57.5 of 150   01 ok  02 ok  03 level 2 ...`."""
        shown = "  ".join(f"{outcome.kata} {brief(outcome)}" for outcome in self.outcomes)
        return f"{self.name}  {self.points:.1f} of {self.most}   {self.trouble or shown}"


def brief(outcome: Outcome) -> str:
    """`ok`, or a word or two about where it stopped."""
    if outcome.state == PASSED:
        return "ok"
    return outcome.reached if outcome.state == FAILED and outcome.reached else outcome.state
