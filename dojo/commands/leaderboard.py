"""Show a leaderboard of the competition, in the terminal or as a page; check it, back it up, bring it back.

Entries come from `dojo milestone m4`.  The file is runs/leaderboard.db, or where the environment variable
TINYTORCH_LEADERBOARD says; one file may be shared by a class.
"""

from __future__ import annotations

import argparse
import html
import importlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dojo import compose, pages, progress
from dojo.commands import BadInput, Refused, composition
from dojo.compose import LockedError
from dojo.console import terminal
from dojo.console.terminal import say
from dojo.curriculum import BY_NUMBER, ROOT

KATA = BY_NUMBER["20"]
VARIABLE = "TINYTORCH_LEADERBOARD"
COLUMNS = ("", "entry", "by", "score", "accuracy", "latency", "memory", "size", "recipe", "entered")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the leaderboard's file")
    parser.add_argument("--impl", metavar="SPEC", help="read it with this instead of your kata 20")
    parser.add_argument("--top", type=int, metavar="N", help="the N best only")
    parser.add_argument("--html", type=Path, metavar="PAGE", help="write it as a page that opens from disk")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--front", action="store_true", help="only what no other entry dominates")
    one.add_argument("--check", action="store_true", help="see whether the file is whole")
    one.add_argument("--backup", type=Path, metavar="COPY", help="copy it whole, while others write")
    one.add_argument("--restore", type=Path, metavar="COPY", help="put a backup in its place")


def usual_file() -> Path:
    return Path(os.environ.get(VARIABLE) or ROOT / "runs" / "leaderboard.db")


def run(args: argparse.Namespace) -> int:
    if args.top is not None and args.top < 1:
        raise BadInput(f"--top {args.top}: one entry at least")
    competition = _competition(args.impl)
    file: Path = args.file or usual_file()
    if args.restore is None and not file.is_file():
        raise Refused(f"there is no leaderboard {file}; `dojo milestone m4` makes entries")
    try:
        return _do(args, competition, file)
    except competition.DamagedLeaderboard as damage:
        raise Refused(f"{damage}\n  `dojo leaderboard {file} --restore COPY` does that") from damage
    except NotImplementedError as error:
        raise Refused(f"{error}. Next: {KATA.command}") from error


def _competition(spec: str | None) -> Any:
    """The student's kata 20, or that of `spec`."""
    source = composition(spec)
    if source.source_of(KATA) == "stubs" and KATA.number not in progress.load().passed:
        raise Refused(
            f"{compose.locked_message('dojo leaderboard', KATA)}\n"
            "To read it with the reference: dojo leaderboard --impl reference"
        )
    compose.choose(source)
    compose.reach()
    try:
        return importlib.import_module(KATA.module)
    except (NotImplementedError, LockedError) as error:
        raise Refused(f"{error}. Next: {KATA.command}") from error


def _do(args: argparse.Namespace, competition: Any, file: Path) -> int:
    if args.restore is not None:
        if not args.restore.is_file():
            raise BadInput(f"--restore {args.restore}: there is no such file")
        there = file.exists()
        board = competition.Leaderboard.restore(args.restore, file)
        aside = f" What was there is beside it, as {file.name}.damaged." if there else ""
        say(f"{file} has {_entries(len(board.entries()))} again.{aside}")
        return 0
    board = competition.Leaderboard(file)
    if args.check:
        board.check()
        say(f"{file} is whole: {_entries(len(board.entries()))}.")
        return 0
    if args.backup is not None:
        board.backup(args.backup)
        say(f"{args.backup} is a copy of {file}: {_entries(len(board.entries()))}.")
        return 0
    entries, front = board.entries(), {entry.digest for entry in board.front()}
    numbered = list(enumerate(entries, 1))
    if args.front:
        numbered = [(place, entry) for place, entry in numbered if entry.digest in front]
    shown = numbered[: args.top]
    if args.html is not None:
        try:
            args.html.write_text(page(shown, front, len(entries)), encoding="utf-8")
        except OSError as error:
            raise Refused(f"{args.html}: {error.strerror or error}") from error
        say(f"Written: {args.html}")
        return 0
    _print(shown, front, len(entries), file)
    return 0


def _entries(count: int) -> str:
    return "one entry" if count == 1 else f"{count:,} entries"


def _how_many(shown: Sequence[Any], count: int) -> str:
    return _entries(count) + (f", {len(shown)} shown" if len(shown) < count else "")


def row(place: int, entry: Any, on_front: bool) -> list[str]:
    """An entry as texts, in the order of COLUMNS."""
    metrics = entry.metrics
    return [
        f"{place}{'*' if on_front else ''}",
        entry.name,
        entry.author,
        f"{entry.score:.2f}",
        f"{metrics.accuracy:.1%}",
        f"{metrics.latency:.2f}",
        size(metrics.memory),
        size(metrics.size),
        " ".join(entry.recipe) or "-",
        time.strftime("%Y-%m-%d", time.gmtime(entry.time)),
    ]


def size(count: float) -> str:
    """Bytes in words: 512 B, 1.6 MB."""
    for unit in ("B", "KB", "MB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


# The terminal.


def _print(shown: Sequence[tuple[int, Any]], front: set[str], count: int, file: Path) -> None:
    say(f"{file}: {_how_many(shown, count)}", "")
    rows = [row(place, entry, entry.digest in front) for place, entry in shown]
    if terminal.is_plain():
        for cells in rows:
            say(_line(cells))
    else:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD if terminal.is_unicode() else box.ASCII2, pad_edge=False)
        for column in COLUMNS:
            words = column in ("entry", "by", "recipe")
            table.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=not words)
        for (_, entry), cells in zip(shown, rows, strict=True):
            table.add_row(*map(_safe, cells), style="green" if entry.digest in front else None)
        terminal.console().print(table)
    if rows:
        say("", "* on the front: no other is as good in everything and better in something. Latency is the")
        say("time divided by the baseline's, in the same run.")


def _line(cells: Sequence[str]) -> str:
    """One entry without a table, for where there is no terminal or too narrow a one."""
    place, name, author, score, accuracy, latency, memory, size_, recipe, day = cells
    return (
        f"{place:>4}  {score:>6}  {name} by {author}: accuracy {accuracy}, latency {latency}, "
        f"memory {memory}, size {size_}; {recipe}; {day}"
    )


def _safe(text: str) -> Any:
    from rich.text import Text

    return Text(text)  # what somebody calls his entry is no markup


# The page.

STYLE = """
body { max-width: 72rem; }
.wide { overflow-x: auto; }
table { width: 100%; }
th { font-weight: 600; border-bottom: 1px solid; white-space: nowrap; }
td { border-bottom: 1px solid color-mix(in srgb, currentColor 15%, transparent); white-space: nowrap; }
th:nth-child(2), th:nth-child(3), th:nth-child(9), td:nth-child(2), td:nth-child(3), td:nth-child(9)
 { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 6rem; }
tr.front td:first-child { color: light-dark(#14691b, #7fd487); font-weight: 600; }
svg circle { fill: #8a8f98; }
svg circle.front { fill: light-dark(#14691b, #7fd487); }
svg path.front { stroke: light-dark(#14691b, #7fd487); stroke-dasharray: 3 3; }
figure.chart { width: auto; max-width: 640px; font-size: 1rem; margin: 0 0 1.5rem; }
@media (max-width: 44rem) {
 thead { display: none; }
 tr { display: block; border-bottom: 1px solid; padding: .6rem 0; }
 td, td:nth-child(n) { display: flex; justify-content: space-between; gap: 1rem; border: 0; }
 td:nth-child(n) { text-align: right; }
 td::before { content: attr(data-name); opacity: .7; text-align: left; flex: none; }
 svg text { font-size: 18px; }
}
"""

WIDE, HIGH, LEFT, FOOT, TOP = 640, 320, 56, 40, 12


def page(shown: Sequence[tuple[int, Any]], front: set[str], count: int) -> str:
    """The leaderboard as one HTML page, which needs no network."""
    parts = [f"<p>{_how_many(shown, count)}.</p>"]
    if shown:
        parts += [chart([entry for _, entry in shown], front), _table(shown, front)]
        parts.append(
            "<p>* on the front: no other entry is as good in everything and better in something. "
            "Latency is the time divided by the baseline's, in the same run; memory is what a process took "
            "at the worst moment; the score is the geometric mean of the four gains.</p>"
        )
    return pages.page("Leaderboard", parts, STYLE)


def _class(on_front: bool) -> str:
    return "front" if on_front else "behind"


def _table(shown: Sequence[tuple[int, Any]], front: set[str]) -> str:
    head = "".join(f"<th>{name or '#'}</th>" for name in COLUMNS)
    body = []
    for place, entry in shown:
        on = entry.digest in front
        cells = "".join(
            f'<td data-name="{name or "place"}">{html.escape(text)}</td>'
            for name, text in zip(COLUMNS, row(place, entry, on), strict=True)
        )
        body.append(f'<tr class="{_class(on)}">{cells}</tr>')
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def chart(entries: Sequence[Any], front: set[str]) -> str:
    """Accuracy over latency, a point for each entry; those on the front of all four metrics in colour."""
    latencies = [entry.metrics.latency for entry in entries]
    accuracies = [entry.metrics.accuracy for entry in entries]
    right = max(latencies) * 1.08
    low, high = min(accuracies), max(accuracies)
    room = max((high - low) * 0.12, 0.005)
    low, high = max(0.0, low - room), min(1.0, high + room)

    def x(latency: float) -> float:
        return float(LEFT + (WIDE - LEFT - 12) * latency / right)

    def y(accuracy: float) -> float:
        part: float = (accuracy - low) / (high - low)
        return TOP + (HIGH - TOP - FOOT) * (1 - part)

    parts = []
    for part in (0.0, 0.5, 1.0):
        at, value = y(low + part * (high - low)), low + part * (high - low)
        parts.append(f'<line x1="{LEFT}" x2="{WIDE - 12}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{value:.1%}</text>')
        parts.append(
            f'<text x="{x(part * right):.1f}" y="{HIGH - FOOT + 16}" text-anchor="middle">'
            f"{part * right:.2f}</text>"
        )
    parts.append(
        f'<text x="{(LEFT + WIDE) / 2:.0f}" y="{HIGH - 6}" text-anchor="middle">'
        "latency, of the baseline's (less is better)</text>"
    )
    for entry in sorted(entries, key=lambda entry: entry.digest in front):  # the front above the others
        on = entry.digest in front
        words = f"{entry.name} by {entry.author}: score {entry.score:.2f}"
        parts.append(
            f'<circle class="{_class(on)}" r="{6 if on else 4}" cx="{x(entry.metrics.latency):.1f}" '
            f'cy="{y(entry.metrics.accuracy):.1f}"><title>{html.escape(words)}</title></circle>'
        )
    return (
        f'<figure class="chart"><svg viewBox="0 0 {WIDE} {HIGH}" role="img" '
        f'aria-label="accuracy over latency">{"".join(parts)}</svg>'
        "<figcaption>Accuracy over latency. In colour: the front of all four metrics.</figcaption></figure>"
    )
