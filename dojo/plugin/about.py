"""Which task of a kata a test, or a failure, is about.

A suite says it in its headings, comments that stand alone between blank lines: all tests below `# 02.5
as_strided` or `# 02.10 to 02.12: element by element` are about these tasks, until the next heading.  Where a
heading names several, or none, the names that the code and its parameters use tell which.
"""

from __future__ import annotations

import dis
import functools
import re
import types
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dojo.curriculum import Kata, Unit
from dojo.stubs import Task, tasks

NUMBERED = re.compile(r"# (?P<kata>\d\d)\.\d+\b")
RANGE = re.compile(r"(\d\d)\.(\d+) to \1\.(\d+)")


@functools.cache
def _of(kata: Kata) -> tuple[Task, ...]:
    """The tasks of a kata, in the order of the lesson."""
    return tuple(tasks(kata))


def tasks_of(item: pytest.Item, unit: Unit | None) -> list[Task]:
    """The tasks that a test is about."""
    headed = _numbered(unit, _numbers(item))
    if len(headed) == 1:
        return headed
    named = _named(unit, names_in(item) | _names_of_parameters(item))
    return [task for task in headed if task in named] or headed or named


def task_of_failure(unit: Unit | None, item: pytest.Item, steps: list[str], words: list[str]) -> str:
    """`01.10 find_mismatch`: the task that a failure is about; empty where nothing tells.

    Tried in turn: the innermost of `steps`, on the way to where an exception was raised, that is a task; the
    heading that the test stands under, and of its tasks those whose names the failing statements use
    (`words`), or the test, or whose function or op is its parameter; these names alone.  Of methods with one
    name that of a class which these name; of several tasks the last of the lesson: what it leans on has
    tests of its own, before.
    """
    by_name = {task.name: task for task in _tasks(unit)}
    raised = [by_name[step] for step in steps if step in by_name][-1:]
    headed = _numbered(unit, _numbers(item))
    given = _names_of_parameters(item)
    made = [f"{name}.__init__" for name in words]  # a class that a failing statement calls
    for names in (words, made, _rules(words), names_in(item), given, _rules(given)):
        about = [task for task in _named(unit, names) if not headed or task in headed]
        if raised or about:
            break
    classes = given | names_in(item) | set(words)
    for found in (raised, about, headed):
        if found:
            last = ([task for task in found if task.name.rpartition(".")[0] in classes] or found)[-1]
            return f"{last.number} {last.name}"
    return ""


def _rules(operations: Iterable[str]) -> list[str]:
    """How the gradient rules of operations are called."""
    return [f"{name}_back" for name in operations]


def _named(unit: Unit | None, words: Iterable[str]) -> list[Task]:
    """The tasks whose functions are among `words`, in the order of the lesson."""
    words = set(words)
    return [task for task in _tasks(unit) if task.name.rpartition(".")[2] in words or task.name in words]


def _numbered(unit: Unit | None, numbers: Collection[str]) -> list[Task]:
    return [task for task in _tasks(unit) if task.number in numbers]


def _tasks(unit: Unit | None) -> tuple[Task, ...]:
    return _of(unit) if isinstance(unit, Kata) and unit.reference.exists() else ()


def _numbers(item: pytest.Item) -> tuple[str, ...]:
    """The numbers in the heading that a test stands under."""
    function = _function(item)
    if not isinstance(function, types.FunctionType):
        return ()
    headings = _headings(Path(function.__code__.co_filename))
    place = bisect_right([line for line, _ in headings], function.__code__.co_firstlineno)
    return headings[place - 1][1] if place else ()


@functools.cache
def _headings(file: Path) -> list[tuple[int, tuple[str, ...]]]:
    """Each heading's line, and the tasks that it names."""
    try:
        lines = ["", *file.read_text("utf-8").splitlines(), ""]
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for number, line in enumerate(lines[1:-1], 1):
        if line.startswith("# ") and not lines[number - 1].strip() and _ends(lines, number):
            match = NUMBERED.match(line)
            found.append((number, tuple(_listed(line, match["kata"])) if match else ()))
    return found


def _ends(lines: list[str], number: int) -> bool:
    """Whether the comment that begins at a line is followed by a blank line."""
    while lines[number].startswith("#"):
        number += 1
    return not lines[number].strip()


def _listed(text: str, kata: str) -> Iterator[str]:
    """The tasks of a kata in a heading: 02.10, 02.11 and 02.12 from "02.10 to 02.12"."""
    yield from re.findall(rf"\b{kata}\.\d+\b", text)
    for of, first, last in RANGE.findall(text):
        yield from (f"{of}.{n}" for n in range(int(first), int(last) + 1))


def names_in(item: pytest.Item) -> set[str]:
    """The global names and attributes that a test's code uses, inside lambdas and hypothesis too.

    What is looked up in an imported module, as `arange` in `np.arange`, is not the student's.
    """
    function = _function(item)
    codes: list[types.CodeType] = [function.__code__] if hasattr(function, "__code__") else []
    names: set[str] = set()
    for code in codes:
        foreign = False
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                if not foreign:
                    names.add(str(step.argval))
            elif step.opname != "CACHE":
                value = function.__globals__.get(step.argval) if step.opname == "LOAD_GLOBAL" else None
                foreign = isinstance(value, types.ModuleType)
                if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and not foreign:
                    names.add(str(step.argval))
        codes.extend(inner for inner in code.co_consts if isinstance(inner, types.CodeType))
    return names


def _names_of_parameters(item: pytest.Item) -> set[str]:
    """The names of functions, classes and ops that a parametrised test is given, themselves or in words."""
    values = getattr(getattr(item, "callspec", None), "params", {}).values()
    named = (
        value if isinstance(value, str) else getattr(value, "__name__", getattr(value, "name", ""))
        for value in values
    )
    return {word for name in named for word in re.findall(r"\w+", str(name))}


def _function(item: pytest.Item) -> Any:
    """The test's own function, which hypothesis wraps."""
    function: Any = getattr(item, "function", None)
    return getattr(getattr(function, "hypothesis", None), "inner_test", function)
