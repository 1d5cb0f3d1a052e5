"""Show where you stand over the katas and milestones, and what to type next."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass

from dojo import progress
from dojo.commands.next import advise
from dojo.console import terminal
from dojo.console.terminal import say
from dojo.curriculum import BY_NUMBER, KATAS, MILESTONES, PHASES, Kata, Unit
from dojo.progress import Progress

WORDS = {"unwritten": "not written yet"}
STYLES = {"passed": "green", "stale": "yellow", "open": "bold cyan", "locked": "dim", "unwritten": "dim"}


@dataclass(frozen=True)
class Row:
    """One kata or milestone: its state, and when it passed or why it is stale."""

    unit: Unit
    phase: str
    state: str
    passed: str
    note: str

    @property
    def word(self) -> str:
        return WORDS.get(self.state, self.state)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the same for programs")


def run(args: argparse.Namespace) -> int:
    now = progress.load()
    if args.json:
        print(json.dumps(as_data(now), indent=1))
        return 0
    head = f"TinyTorch: {len(now.passed)} of {len(KATAS)} katas passed"
    if terminal.is_plain():
        say(head, *_lines(now))
    else:
        _draw(head, now)
    advice = advise(now)
    if now.trouble:
        say("", now.trouble)
    if advice.command:
        say("", f"Next: {advice.command}    (dojo next says more)")
    else:
        say("", *advice.lines)
    return 0


def rows(now: Progress) -> Iterator[Row]:
    """Every kata in the course's order, each milestone after the kata that opens it."""
    for kata in KATAS:
        yield _kata(now, kata)
        for milestone in MILESTONES:
            if milestone.after == kata.number:
                record = now.milestones.get(milestone.number)
                state = now.state(milestone)
                waits = f"opens after {milestone.after}" if state == progress.LOCKED else ""
                time = record.time if record else ""
                yield Row(milestone, kata.phase, state, time, waits or local_time(time))


def _kata(now: Progress, kata: Kata) -> Row:
    state = now.state(kata)
    record = now.katas.get(kata.number)
    time = record.time if record else ""
    note = {progress.STALE: now.stale_because(kata) or "", progress.PASSED: local_time(time)}.get(state, "")
    if kata == now.frontier() and kata.number not in now.passed:
        note = "you are here"
    return Row(kata, kata.phase, state, time, note)


def local_time(utc: str) -> str:
    """`2026-03-09T14:05:00Z` as the reader's clock says it; anything else as it is."""
    from datetime import datetime

    try:
        moment = datetime.fromisoformat(utc.replace("Z", "+00:00"))  # Python 3.10 does not know the Z
        return moment.astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return utc


def as_data(now: Progress) -> dict[str, object]:
    """What `--json` prints."""
    here = now.frontier()
    listed = [
        {
            "number": row.unit.number,
            "name": row.unit.name,
            "title": row.unit.title,
            "phase": row.phase,
            "state": row.state,
            "passed": row.passed or None,
            "stale_because": now.stale_because(row.unit) if isinstance(row.unit, Kata) else None,
        }
        for row in rows(now)
    ]
    return {
        "current": None if here.number in now.passed else here.number,
        "next": advise(now).command,
        "trouble": now.trouble,
        "katas": [entry for entry in listed if entry["number"] in BY_NUMBER],
        "milestones": [entry for entry in listed if entry["number"] not in BY_NUMBER],
        "hints": dict(sorted(now.hints.items())),
    }


def _lines(now: Progress) -> Iterator[str]:
    wide = terminal.width() >= terminal.NARROW
    phase = ""
    for row in rows(now):
        if row.phase != phase:
            phase = row.phase
            yield ""
            yield f"{phase}: {PHASES[phase]}" if wide else phase
        line = f"  {row.unit!s:<17}{row.word}"
        if not row.note:
            yield line
        elif wide:
            yield f"{line:<36}{row.note}"
        else:
            yield line
            yield f"    {row.note}"


def _draw(head: str, now: Progress) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    wide = terminal.width() >= terminal.WIDEST
    frame = box.ROUNDED if terminal.is_unicode() else box.ASCII
    table = Table(title=head, title_style="bold", title_justify="left", show_header=False, box=frame)
    table.add_column(no_wrap=True)
    if wide:
        table.add_column(no_wrap=True, style="dim")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    phase = ""
    for row in rows(now):
        if row.phase != phase:
            table.add_section()
            phase = row.phase
            table.add_row(Text(phase, "bold"))
        cells = [Text(f"  {row.unit}"), Text(row.word, STYLES[row.state]), Text(row.note)]
        if wide:
            cells.insert(1, Text(row.unit.title))
        table.add_row(*cells)
    terminal.console().print(table)
