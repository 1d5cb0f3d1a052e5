"""Elements that count how often they are looked at, for loops that run in C where nobody else can see.

`x in a_list` is one line and n comparisons.  `list.index`, `sorted`, `min` and building a dict are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Looks:
    """How often the elements of one experiment were compared or hashed."""

    def __init__(self) -> None:
        self.comparisons = self.hashes = 0

    @property
    def total(self) -> int:
        return self.comparisons + self.hashes

    def elements(self, values: Iterable[Any]) -> list[CountingElement]:
        """The values, each wrapped in an element that reports here."""
        return [CountingElement(value, self) for value in values]


class CountingElement:
    """A value that behaves as itself when compared or hashed, and counts that.

    Python takes two references to one object as equal without asking, so build each from a value anew.
    """

    __slots__ = ("looks", "value")

    def __init__(self, value: Any, looks: Looks) -> None:
        self.value, self.looks = value, looks

    def __eq__(self, other: object) -> bool:
        self.looks.comparisons += 1
        return bool(self.value == _value(other))

    def __lt__(self, other: object) -> bool:
        self.looks.comparisons += 1
        return bool(self.value < _value(other))

    def __gt__(self, other: object) -> bool:
        self.looks.comparisons += 1
        return bool(self.value > _value(other))

    def __le__(self, other: object) -> bool:
        self.looks.comparisons += 1
        return bool(self.value <= _value(other))

    def __ge__(self, other: object) -> bool:
        self.looks.comparisons += 1
        return bool(self.value >= _value(other))

    def __hash__(self) -> int:
        self.looks.hashes += 1
        return hash(self.value)

    def __repr__(self) -> str:
        return repr(self.value)


def _value(other: object) -> Any:
    return other.value if isinstance(other, CountingElement) else other
