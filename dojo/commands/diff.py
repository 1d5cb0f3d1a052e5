"""Show your solution beside the reference, once the kata has passed."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterator

from dojo import progress
from dojo.commands import Refused, kata_named, so_far
from dojo.console import terminal
from dojo.console.terminal import say
from dojo.curriculum import Kata, from_root

CONTEXT = 3  # equal lines shown around a difference
ROOMY = 140  # columns from which two files fit beside each other


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kata", type=kata_named, metavar="KATA")
    parser.add_argument("--force", action="store_true", help="show the solution although it has not passed")
    parser.add_argument("--unified", action="store_true", help="one column, also in a wide terminal")


def run(args: argparse.Namespace) -> int:
    kata: Kata = args.kata
    mine, theirs = from_root(kata.stub), from_root(kata.reference)
    if not kata.reference.is_file():
        raise Refused(f"kata {kata} is not written yet; {so_far()}")
    if kata.number not in progress.load().passed and not args.force:
        raise Refused(
            f"{kata} has not passed yet, and the reference would give it away. Next: {kata.command}  "
            f"(`dojo hint {kata.number}` helps; `dojo diff {kata.number} --force` shows it all the same)"
        )
    if not kata.stub.is_file():
        raise Refused(f"{mine} is missing; `dojo reset {kata.number}` puts the blank stub there")
    left = kata.stub.read_text("utf-8-sig", errors="replace").splitlines()
    right = kata.reference.read_text("utf-8").splitlines()
    if left == right:
        say(f"{mine} is the same as {theirs}.")
    elif terminal.is_plain():
        say(*unified(left, right, mine, theirs))
    elif args.unified or terminal.width() < ROOMY:
        _draw_unified(unified(left, right, mine, theirs))
    else:
        _draw_beside(left, right, mine, theirs)
    return 0


def unified(left: list[str], right: list[str], mine: str, theirs: str) -> Iterator[str]:
    yield from difflib.unified_diff(left, right, f"{mine} (yours)", theirs, n=CONTEXT, lineterm="")


def _draw_unified(lines: Iterator[str]) -> None:
    from rich.text import Text

    styles = {"-": "red", "+": "green", "@": "cyan"}
    console = terminal.console()
    for line in lines:
        console.print(Text(line, "bold" if line[:3] in ("---", "+++") else styles.get(line[:1], "")))


def _draw_beside(left: list[str], right: list[str], mine: str, theirs: str) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=True, show_lines=False, pad_edge=False)
    for title in (f"{mine} (yours)", theirs):
        table.add_column("", justify="right", style="dim", no_wrap=True)
        table.add_column(Text(title), ratio=1, overflow="fold")
    for group in difflib.SequenceMatcher(None, left, right, autojunk=False).get_grouped_opcodes(CONTEXT):
        for kind, a, b, c, d in group:
            for offset in range(max(b - a, d - c)):
                cells: list[Text] = []
                for lines, start, end, style in ((left, a, b, "red"), (right, c, d, "green")):
                    here = start + offset
                    number, text = (str(here + 1), lines[here]) if here < end else ("", "")
                    cells += [Text(number), Text(text, "" if kind == "equal" else style)]
                table.add_row(*cells)
        table.add_section()
    terminal.console().print(table)
