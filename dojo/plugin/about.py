"""Which task of a kata a test, or a failure, is about: the one whose function it names."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable
from typing import Any

import pytest

from dojo.curriculum import Kata, Unit
from dojo.stubs import Task, tasks


@functools.cache
def _by_name(kata: Kata) -> dict[str, Task]:
    """The tasks by the name of their function; a method's without its class."""
    return {task.name.rpartition(".")[2]: task for task in tasks(kata)}


def tasks_named(unit: Unit | None, words: Iterable[str]) -> list[Task]:
    """The tasks whose functions are among `words`, in the order of the lesson."""
    if not isinstance(unit, Kata) or not unit.reference.exists():
        return []
    known = _by_name(unit)
    found = {known[word] for word in words if word in known}
    return [task for task in tasks(unit) if task in found]


def task_of_failure(unit: Unit | None, item: pytest.Item, steps: list[str], words: list[str]) -> str:
    """`01.10 find_mismatch`: the task that a failure is about; empty where nothing tells.

    Tried in turn: the functions on the way to an exception (`steps`, innermost last), the names in the
    failing statements, the names in the test.  Of several the last of the lesson, for what it leans on has
    tests of its own, which come before.
    """
    for names in (steps[-1:], words, names_in(item)):
        if about := tasks_named(unit, names):
            return f"{about[-1].number} {about[-1].name}"
    return ""


def names_in(item: pytest.Item) -> set[str]:
    """The global names and attributes that a test's code uses, inside lambdas and hypothesis too."""
    function: Any = getattr(item, "function", None)
    function = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    codes: list[types.CodeType] = [function.__code__] if hasattr(function, "__code__") else []
    names: set[str] = set()
    for code in codes:
        names.update(code.co_names)
        codes.extend(inner for inner in code.co_consts if isinstance(inner, types.CodeType))
    return names
