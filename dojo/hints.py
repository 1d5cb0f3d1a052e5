"""What there is to write in a kata, and the hints for it.

katas/NN_name/hints.md has, for each task, a heading `## 06.3 unbroadcast` and a numbered list of three: a
question, the idea, the shape of the key line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from dojo.curriculum import Kata, from_root

HEADING = re.compile(r"## +(\d\d\.\d+) +(\S.*?) *")
NUMBERED = re.compile(r"(\d+)\. +")
# A commented-out line is a note, not a to-do.
TODO = re.compile(
    r"""^[^#\n]*\braise NotImplementedError\(\s*["']kata (\d\d)\.(\d+): ([^"']*)["']""", re.MULTILINE
)


@dataclass(frozen=True)
class Hints:
    """The hints of one task, from the gentlest to the plainest; Markdown."""

    task: str
    name: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Todo:
    """A place in a student's file that is not written yet."""

    task: str
    name: str
    line: int
    where: str = ""
    """`stubs/tinytorch/autograd.py:91`, from the repository's root."""


@dataclass(frozen=True)
class Heading:
    """Where a README explains a task."""

    text: str
    where: str


def read(kata: Kata) -> dict[str, Hints]:
    """The hints of `kata` by task, in the order of the file; empty when it has no hints.md."""
    try:
        text = (kata.path / "hints.md").read_text("utf-8")
    except FileNotFoundError:
        return {}
    return parse(text)


def parse(text: str) -> dict[str, Hints]:
    """Read the text of a hints.md.  What is under no task's heading or in no list is left out."""
    found: dict[str, Hints] = {}
    task, name = "", ""
    items: list[list[str]] = []
    indent = 0

    def close() -> None:
        if task:
            texts = tuple("\n".join(lines).strip() for lines in items)
            found[task] = Hints(task, name, texts)

    fenced = False
    for line in text.splitlines():
        heading = None if fenced else HEADING.fullmatch(line)
        number = None if fenced else NUMBERED.match(line)
        if heading:
            close()
            task, name, items = heading[1], heading[2], []
        elif number and int(number[1]) == len(items) + 1:
            # The marker's width is the indentation of the lines that go on with the item.
            items.append([line[number.end() :]])
            indent = number.end()
        elif items:
            margin = min(indent, len(line) - len(line.lstrip()))
            items[-1].append(line[margin:])
        fenced ^= line.lstrip().startswith("```")
    close()
    return found


def by_name(tasks: dict[str, Hints]) -> dict[str, str]:
    """The number of each task by what it is called: `02.17 transpose, permute` is called either.

    `Tensor.span` is called `span` too, where no other task is.
    """
    names = {name: task for task, found in tasks.items() for name in re.split(r",\s*", found.name)}
    short = {name.rpartition(".")[2]: task for name, task in names.items()}
    return {**short, **names}


def unwritten(kata: Kata) -> list[Todo]:
    """The tasks that the student's file still has a stub for, in the order of their numbers.

    It reads text, not Python: a file that is halfway edited has an answer too.
    """
    try:
        text = kata.stub.read_text("utf-8-sig", errors="replace")
    except FileNotFoundError:
        return []
    name = from_root(kata.stub)
    return [replace(todo, where=f"{name}:{todo.line}") for todo in todos(text)]


def todos(text: str) -> list[Todo]:
    """What `text` still has a stub for, in the order of the tasks' numbers."""
    found = [
        (
            int(match[2]),
            Todo(f"{match[1]}.{match[2]}", match[3].strip(), text.count("\n", 0, match.start()) + 1),
        )
        for match in TODO.finditer(text)
    ]
    return [todo for _, todo in sorted(found, key=lambda entry: (entry[0], entry[1].line))]


def heading(kata: Kata, task: str) -> Heading | None:
    """The README's heading for `task`, such as `### 06.3 unbroadcast`."""
    readme = kata.path / "README.md"
    try:
        lines = readme.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return None
    pattern = re.compile(rf"### +({re.escape(task)}(?!\d).*)")
    for number, line in enumerate(lines, 1):
        if match := pattern.match(line):
            return Heading(match[1].strip(), f"{from_root(readme)}:{number}")
    return None


def reading(kata: Kata, task: str) -> str:
    """Where to read about `task`: its heading in the README, or the README."""
    found = heading(kata, task)
    return f'{found.where}  "{found.text}"' if found else f"{kata.shown}/README.md"
