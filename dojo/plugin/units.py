"""What a test belongs to: a kata or milestone, and the level that its file's name gives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from dojo.curriculum import ROOT, UNITS, Kata, Unit

_BY_FOLDER = {unit.folder: unit for unit in UNITS}
MEASURED_FROM = 3  # the level where bytes are counted, and then time is taken
_LEVEL = re.compile(r"test_(\d)_(\w+)\.py")


class Place(NamedTuple):
    """Where a test stands: its unit, its level (1 comes first), and its id within the unit's folder."""

    unit: Unit
    level: int
    title: str
    id: str


def unit_of(path: Path) -> Unit | None:
    """The kata or milestone that `path` lies in, if any."""
    try:
        parts = path.resolve().relative_to(ROOT / "katas").parts
    except ValueError:
        return None
    return next((_BY_FOLDER[part] for part in parts[:2] if part in _BY_FOLDER), None)


def level_of(path: Path) -> int:
    """The level of a test file; 1 if its name says nothing of it."""
    level = _LEVEL.fullmatch(path.name)
    return int(level[1]) if level else 1


def place_of(item: pytest.Item) -> Place | None:
    """Where `item` stands in the course; None for tests of something else."""
    unit = unit_of(item.path)
    if unit is None:
        return None
    level = _LEVEL.fullmatch(item.path.name)
    # xdist adds "@group" to node ids.
    name = item.nodeid.partition("::")[2].removesuffix(f"@{unit.folder}")
    file = item.path.resolve().relative_to(unit.path).as_posix()
    return Place(unit, level_of(item.path), level[2] if level else "tests", f"{file}::{name}")


def order_of(unit: Unit) -> tuple[str, int]:
    """Sorts katas in the course's order, each milestone after the kata that opens it."""
    return (last_kata(unit), 0 if isinstance(unit, Kata) else 1)


def last_kata(unit: Unit) -> str:
    """The number of the last kata that `unit` is about: itself, or the one that opens a milestone."""
    return unit.number if isinstance(unit, Kata) else unit.after
