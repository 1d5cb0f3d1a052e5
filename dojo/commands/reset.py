"""Start a kata afresh, or one task of it: your file is saved first, then the blank stub is put back."""

from __future__ import annotations

import argparse
import ast
import io
import sys

from dojo import hints, stubs
from dojo.commands import BadInput, Refused, so_far
from dojo.commands.hint import parse
from dojo.console.terminal import say
from dojo.curriculum import Kata, from_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", metavar="KATA[.TASK]", help="a kata as 06, or one task of it as 06.3")
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask first")


def run(args: argparse.Namespace) -> int:
    kata, task = parse(args.task)
    if not kata.reference.is_file():
        raise Refused(f"kata {kata} is not written yet; {so_far()}")
    name = from_root(kata.stub)
    blank = stubs.implied(kata.reference)
    if not kata.stub.exists():
        _write(kata, blank)
        say(f"{name} was missing; the blank stub is there now.")
        return 0
    mine = kata.stub.read_bytes().decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
    new = blank if task is None else with_blank_task(mine, blank, task, name)
    if new == mine:
        what = f"{name} is" if task is None else f"Task {task} of {name} is"
        say(f"{what} blank already: nothing to do.")
        return 0
    what = f"the whole of {name}" if task is None else f"task {task} in {name}"
    if not args.yes and sys.stdin.isatty() and not _agreed(f"Put the blank stub back for {what}? [y/N] "):
        say("Nothing was changed.")
        return 1
    kept = stubs.save_aside(kata.stub)
    _write(kata, new)
    say(
        f"Your file is kept as {from_root(kept)}.",
        f"{name} has the blank stub{f' of task {task}' if task else ''} again. Next: {kata.command}",
    )
    return 0


def _agreed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _write(kata: Kata, text: str) -> None:
    kata.stub.parent.mkdir(parents=True, exist_ok=True)
    kata.stub.write_bytes(text.encode("utf-8"))


def with_blank_task(mine: str, blank: str, task: str, name: str) -> str:
    """`mine` with the functions of one task as they are in `blank`.

    Raises:
        BadInput: no function of `blank` is for that task.
        Refused: `mine` is not Python, or has not the same functions.
    """
    whole = f"`dojo reset {task.partition('.')[0]}` starts the whole file afresh"
    try:
        theirs = functions(mine)
    except SyntaxError as error:
        raise Refused(
            f"{name}:{error.lineno}: Python cannot read this ({error.msg}), so task {task} cannot be put "
            f"back alone; {whole}"
        ) from error
    lines, fresh = (
        list(io.StringIO(mine)),
        list(io.StringIO(blank)),
    )  # a form feed ends no line
    edits = []
    for title, places in functions(blank).items():
        for index, (first, last) in enumerate(places):
            stub = fresh[first - 1 : last]
            if all(todo.task != task for todo in hints.todos("".join(stub))):
                continue
            if len(theirs.get(title, [])) != len(places):
                raise Refused(
                    f"{name} has {len(theirs.get(title, []))} functions called {title} where the stub has "
                    f"{len(places)}, so task {task} cannot be put back alone; {whole}"
                )
            edits.append((*theirs[title][index], stub))
    if not edits:
        raise BadInput(f"task {task} has nothing to write in {name}")
    for first, last, stub in sorted(edits, reverse=True):
        lines[first - 1 : last] = stub
    return "".join(lines)


def functions(source: str) -> dict[str, list[tuple[int, int]]]:
    """Where each function and method is, decorators included: first and last line, counted from 1.

    A name may stand for several, as a property's getter and setter do.
    """
    found: dict[str, list[tuple[int, int]]] = {}

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                found.setdefault(prefix + node.name, []).append((first, node.end_lineno or node.lineno))

    visit(ast.parse(source).body, "")
    return found
