"""What a kata's README.md and hints.md must contain, so that panel, `dojo hint` and reader find their way."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from dojo import hints, stubs
from dojo.curriculum import Kata, from_root

SECTIONS = (
    "What you will build",
    "The ideas",
    "Tasks",
    "Memory",
    "Performance",
    "Scaling",
    "In production",
    "Common mistakes",
    "Read more",
)
HINTS = 3  # a question, the idea, the shape of the key line

_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*$")


class Heading(NamedTuple):
    """A Markdown heading, with its number of `#`."""

    depth: int
    text: str


def headings(markdown: str) -> list[Heading]:
    """The headings of a Markdown text; what stands in fenced code blocks is not one."""
    found = []
    fence = ""
    for line in markdown.splitlines():
        mark = _FENCE.match(line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        elif not fence and (heading := _HEADING.fullmatch(line)):
            found.append(Heading(len(heading[1]), heading[2]))
    return found


def section_problems(kata: Kata) -> list[str]:
    """What is missing or misplaced among the README's sections."""
    readme = kata.path / "README.md"
    if not readme.exists():
        return [f"{from_root(readme)} is missing; write it with the sections {', '.join(SECTIONS)}"]
    there = [h.text for h in headings(readme.read_text("utf-8")) if h.depth == 2]
    problems = [
        f"{from_root(readme)} has no section `## {section}`" for section in SECTIONS if section not in there
    ]
    known = [section for section in there if section in SECTIONS]
    wanted = [section for section in SECTIONS if section in there]
    if known != wanted:
        problems.append(f"{from_root(readme)} has its sections as {known}; the order is {wanted}")
    return problems


def task_problems(kata: Kata) -> list[str]:
    """Tasks that the README does not explain, and explanations of tasks that do not exist."""
    readme = kata.path / "README.md"
    if not readme.exists():
        return []  # section_problems says so
    there = [h.text for h in headings(readme.read_text("utf-8")) if h.depth == 3]
    numbers = [text.split()[0] for text in there if _is_number(text, kata)]
    problems = [
        f"{from_root(readme)} has no heading `### {number} {' '.join(names)}`"
        for number, names in _tasks(kata).items()
        if not any(_announces(text, number, names) for text in there)
    ]
    problems += _strangers(readme, numbers, kata)
    return problems


def hint_problems(kata: Kata) -> list[str]:
    """Tasks without exactly three hints, and hints for tasks that do not exist."""
    file = kata.path / "hints.md"
    if not file.exists():
        return [
            f"{from_root(file)} is missing; write `## {kata.number}.1 name` and three numbered hints for each"
        ]
    there = [h.text for h in headings(file.read_text("utf-8")) if h.depth == 2]
    found = hints.read(kata)
    problems = []
    for number, names in _tasks(kata).items():
        if not any(_announces(text, number, names) for text in there):
            problems.append(f"{from_root(file)} has no section `## {number} {' '.join(names)}`")
            continue
        texts = found[number].texts if number in found else ()
        if len(texts) != HINTS or not all(texts):
            count = len([text for text in texts if text])
            problems.append(
                f"{from_root(file)}: {number} has {count} hints; it needs a list from 1. to {HINTS}.: "
                "a question, the idea, the shape of the key line"
            )
    return problems + _strangers(file, [text.split()[0] for text in there if _is_number(text, kata)], kata)


def _tasks(kata: Kata) -> dict[str, list[str]]:
    """The names that each task number of the reference stands for."""
    tasks: dict[str, list[str]] = {}
    for task in stubs.tasks(kata):
        tasks.setdefault(task.number, []).append(task.name)
    return tasks


def _is_number(text: str, kata: Kata) -> bool:
    return bool(re.match(rf"{kata.number}\.\d+(\s|$)", text))


def _announces(text: str, number: str, names: list[str]) -> bool:
    """Whether a heading is that of a task: its number, then the name of (one of) what is to be written."""
    first, _, rest = text.replace("`", "").partition(" ")
    words = re.findall(r"[\w.]+", rest)
    return first == number and any(name in words or name.rpartition(".")[2] in words for name in names)


def _strangers(file: Path, numbers: list[str], kata: Kata) -> list[str]:
    known = _tasks(kata)
    problems = [
        f"{from_root(file)} speaks of task {number}, which {from_root(kata.reference)} does not have"
        for number in dict.fromkeys(numbers)
        if number not in known
    ]
    problems += [
        f"{from_root(file)} has {number} twice"
        for number in dict.fromkeys(numbers)
        if numbers.count(number) > 1
    ]
    return problems
