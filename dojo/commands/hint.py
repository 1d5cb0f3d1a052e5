"""Show a hint for a task: first a question, then the idea, then the shape of the key line.

Asking again for the same task shows the next one.  Without a task it is the first one that you have not
written yet.
"""

from __future__ import annotations

import argparse
import difflib
from typing import NamedTuple

from dojo import hints, progress
from dojo.commands import BadInput, Refused, so_far
from dojo.commands.next import working_at
from dojo.console.terminal import fold, say
from dojo.curriculum import KATAS, Kata, find, from_root
from dojo.hints import Hints


class Asked(NamedTuple):
    """What the hint is wanted for: a kata, and perhaps one task of it."""

    kata: Kata
    task: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "task", nargs="?", metavar="TASK", help="a task as 06.3 or by its name, or a kata as 06"
    )
    parser.add_argument("--all", action="store_true", help="all three at once")


def run(args: argparse.Namespace) -> int:
    asked = parse(args.task) if args.task else Asked(working_at(progress.load()), None)
    say(*show(asked, everything=args.all))
    return 0


def parse(text: str) -> Asked:
    """Read `06.3`, `6.3`, `autograd.3`, `06`, `autograd`, or a task's name as `unbroadcast`.

    Raises:
        BadInput: there is no such kata, or no such task in it.
    """
    head, dot, tail = text.strip().partition(".")
    try:
        kata = find(head)
    except ValueError as error:
        return _named(text, str(error))
    if not dot:
        return Asked(kata, None)
    tasks = hints.read(kata)
    if not tasks:
        raise Refused(f"kata {kata} has no hints yet; {so_far()}")
    task = f"{kata.number}.{int(tail)}" if tail.isdecimal() else text
    if task not in tasks:
        task = hints.by_name(tasks).get(tail, task)
    if task not in tasks:
        raise BadInput(f"there is no task {text!r}; kata {kata} has {', '.join(tasks)}")
    return Asked(kata, task)


def _named(text: str, otherwise: str) -> Asked:
    """The task that is called `text`, of the kata in hand before the others.

    Raises:
        BadInput: no task is; with a name that is nearly it, or with `otherwise`.
    """
    here = working_at(progress.load())
    wanted = text.strip().removesuffix("()")
    known: dict[str, Asked] = {}
    for kata in (here, *KATAS):
        for name, task in hints.by_name(hints.read(kata)).items():
            known.setdefault(name, Asked(kata, task))
    if wanted in known:
        return known[wanted]
    near = difflib.get_close_matches(wanted, known, n=1)
    raise BadInput(f"there is no kata or task {text!r}; did you mean {near[0]}?" if near else otherwise)


def show(asked: Asked, *, everything: bool = False) -> list[str]:
    """The lines of the next hint, which is then remembered as shown.

    Raises:
        Refused: the kata has none.
    """
    kata, task = asked
    tasks = hints.read(kata)
    if not tasks:
        raise Refused(f"kata {kata} has no hints yet; {so_far()}")
    if task is None:
        if not kata.stub.is_file():
            raise Refused(f"{from_root(kata.stub)} is missing; `dojo reset {kata.number}` brings it back")
        todos = hints.unwritten(kata)
        if not todos:
            return _nothing_to_write(kata, tasks)
        task = todos[0].task
        if task not in tasks:
            raise Refused(f"{kata.shown}/hints.md has no hint for {task}")
    found = tasks[task]
    count = len(found.texts)
    shown = min(_seen(task), count) if everything else min(progress.record_hint(task), count)
    if everything:
        for _ in range(count - shown):
            progress.record_hint(task)
        numbers = range(1, count + 1)
    else:
        numbers = range(min(shown + 1, count), count + 1)[:1]
    lines = [f"{task} {found.name}"]
    for number in numbers:
        again = " (the last one, again)" if not everything and shown == count else ""
        lines += ["", f"hint {number} of {count}{again}", fold(found.texts[number - 1], "  ")]
    last = everything or shown + 1 >= count
    return [*lines, "", *(_afterwards(kata, found) if last else [f"More: dojo hint {task}"])]


def _seen(task: str) -> int:
    return progress.load().hints.get(task, 0)


def _nothing_to_write(kata: Kata, tasks: dict[str, Hints]) -> list[str]:
    names = [f"{task} {found.name}" for task, found in tasks.items()]
    if kata.number in progress.load().passed:
        first = f"{kata} has passed. `dojo diff {kata.number}` shows your solution beside the reference."
    else:
        first = f"Every task of {kata} is written. Run `{kata.command}` and see which one fails."
    return [first, f"For a task's hints: dojo hint {kata.number}.N, of", *(f"  {name}" for name in names)]


def _afterwards(kata: Kata, found: Hints) -> list[str]:
    lines = [f"Read: {hints.reading(kata, found.task)}"]
    if kata.number in progress.load().passed:
        lines.append(f"Compare: dojo diff {kata.number}")
    return lines
