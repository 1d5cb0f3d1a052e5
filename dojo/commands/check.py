"""Prove that the suite of a kata or milestone catches what it should, and nothing else.

Without options: the reference is green at every level, the blank stub is red, stubs and manifest are fresh,
README, hints, mistakes, strict checks and twins are complete, and other correct solutions pass.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from dojo.commands import BadInput, Refused, shard, unit_named, written
from dojo.console import terminal
from dojo.console.terminal import say
from dojo.curriculum import MILESTONES, Kata, Milestone, Unit

Check = Callable[..., list[str]]

RUNS = 50  # of --load, when no number is given


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "units",
        nargs="*",
        type=unit_named,
        metavar="KATA",
        help="katas and milestones; all, unless named",
    )
    option = parser.add_argument
    option("--mistakes", action="store_true", help="each believable mistake is caught at the level it claims")
    option("--mutants", action="store_true", help="small changes to the reference are caught (Linux, macOS)")
    option("--every", type=int, default=1, metavar="K", help="of the mistakes or mutants, run only each Kth")
    option("--alternatives", action="store_true", help="correct solutions in another manner pass")
    option("--coverage", action="store_true", help="the suite reaches every branch of the reference")
    option("--shard", type=shard, default=(1, 1), metavar="I/N", help="of the units, the Ith of N parts")
    option("--load", nargs="?", const=RUNS, type=_runs, metavar="N", help=_LOAD)
    option("--all", action="store_true", help="everything but --load")


_LOAD = (
    f"levels 3 and 4, N runs idle and N beside two busy processes ({RUNS} unless given), in turns as if on "
    "an older processor"
)


def _runs(text: str) -> int:
    # `--load 02` means a kata.
    if not text.isdecimal() or text.startswith("0"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of runs; say `--load {RUNS} {text}`")
    return int(text)


def run(args: argparse.Namespace) -> int:
    part, parts = args.shard
    every = _written(args.units)
    if not (units := every[part - 1 :: parts]):
        raise BadInput(
            f"shard {part}/{parts} of {len(every)} is empty; use fewer shards"
            if every
            else "there is no kata to check yet"
        )
    if args.every < 1:
        raise BadInput(f"--every takes a number from 1, not {args.every}")
    chosen: list[tuple[Check, tuple[int, ...]]] = []  # and the number that it was given, if any
    named = args.mistakes or args.mutants or args.alternatives or args.coverage or args.load
    if args.all or not named:
        chosen.append((check_basics, ()))
    elif args.alternatives:
        chosen.append((check_alternatives, ()))
    if args.mistakes or args.all:
        chosen.append((check_mistakes, (args.every,)))
    if args.coverage or args.all:
        chosen.append((check_coverage, ()))
    if args.mutants or args.all:
        chosen.append((check_mutants if args.mutants else check_mutants_if_possible, (args.every,)))
    if args.load:
        chosen.append((check_load, (args.load,)))
    if not any(check in FOR_MILESTONES for check, _ in chosen):
        for one in args.units:
            if isinstance(one, Milestone):
                raise BadInput(
                    f"{one} is a milestone: only `dojo check {one.number}` and "
                    f"`dojo check --mistakes {one.number}` have something to ask of it"
                )
    problems = [
        f"{unit}: {line}"
        for unit in units
        for check, told in chosen
        if isinstance(unit, Kata) or check in FOR_MILESTONES
        for line in check(unit, *told)
    ]
    if problems:
        say("", f"{len(problems)} problem{'s' * (len(problems) > 1)}:", *(f"  {line}" for line in problems))
        return 1
    say("", "everything holds")
    return 0


def _written(units: list[Unit]) -> list[Unit]:
    """`units` as they are, or all that the course has when none was named.

    Raises:
        Refused: one of them is not written yet.
    """
    for milestone in units:
        if isinstance(milestone, Milestone) and not milestone.written:
            raise Refused(f"milestone {milestone} is not written yet")
    if units:
        written([unit for unit in units if isinstance(unit, Kata)])
        return units
    return [*written([]), *(milestone for milestone in MILESTONES if milestone.written)]


def check_basics(unit: Unit) -> list[str]:
    from dojo.authoring import checks, milestones

    say(f"{unit}: {unit.title}")
    table: dict[str, Callable[[Any], list[str]]] = (
        {**checks.CHECKS} if isinstance(unit, Kata) else {**milestones.CHECKS}
    )
    problems = []
    for title, check in table.items():
        found = check(unit)
        say(f"  {title:<34} {_count(found)}")
        problems += found
    return problems


def check_alternatives(kata: Kata) -> list[str]:
    from dojo.authoring.checks import alternatives, alternatives_pass

    problems = alternatives_pass(kata)
    names = ", ".join(file.stem for file in alternatives(kata)) or "none"
    say(f"{kata}: alternatives ({names}): {_count(problems)}")
    return problems


def check_mistakes(unit: Unit, every: int = 1) -> list[str]:
    from dojo.authoring import mistakes

    with _Ticker() as ticker:
        caught = mistakes.run_all(
            unit, every, lambda done, total: ticker.show(f"{unit}: mistake {done} of {total}")
        )
    rows = [
        (
            one.name,
            str(one.claimed),
            str(one.level or "nowhere"),
            _by(one.by),
            "FAIL" if one.problem else "ok",
        )
        for one in caught
    ]
    title = "mistakes" if every == 1 else f"{len(caught)} of the mistakes"
    table(f"{unit}: {title}", ("mistake", "claimed", "caught at", "by", ""), rows)
    problems = [one.problem for one in caught if one.problem]
    return problems if caught else [f"{mistakes.shown_file(unit)} lists no mistakes"]


# A milestone has no code of a student's to mutate, no budgets and no other solutions.
FOR_MILESTONES = (check_basics, check_mistakes)


def check_coverage(kata: Kata) -> list[str]:
    from dojo.authoring.branches import coverage_problems

    problems = coverage_problems(kata)
    say(f"{kata}: every line and branch of the reference is reached: {_count(problems)}")
    return problems


def check_mutants(kata: Kata, every: int = 1) -> list[str]:
    from dojo.authoring import mistakes, mutation

    if not mutation.POSSIBLE:
        return [mutation.IMPOSSIBLE]
    with _Ticker() as ticker:
        result = mutation.hunt(
            kata, lambda done, total: ticker.show(f"{kata}: mutant {done} of {total}"), every
        )
    caught, judged, odd = len(result.caught), len(result.judged), len(result.unexplained)
    say(
        f"{kata}: {caught} of {judged} mutants caught ({result.rate:.1%}), {judged - caught - odd} survivors "
        f"explained, {odd} not; {result.a_minute:.0f} mutants a minute"
    )
    file = mistakes.shown_file(kata)
    if advice := result.advice(file):
        say(advice)
    return result.problems(file)


def check_mutants_if_possible(kata: Kata, every: int = 1) -> list[str]:
    from dojo.authoring import mutation

    if mutation.POSSIBLE:
        return check_mutants(kata, every)
    say(f"{kata}: mutants were not run: {mutation.IMPOSSIBLE}")
    return []


def check_load(kata: Kata, times: int) -> list[str]:
    from dojo.authoring import load

    with _Ticker() as ticker:
        tallies = load.run(
            kata, times, lambda when, number: ticker.show(f"{kata}: {when}, run {number + 1} of {times}")
        )
    rows = [
        (when, str(t.runs), str(t.tests), str(t.false_alarms.total()), str(t.twins_missed.total()))
        for when, t in tallies.items()
    ]
    table(f"{kata}: levels 3 and 4", ("", "runs", "tests run", "false alarms", "twins missed"), rows)
    problems = [line for when, tally in tallies.items() for line in tally.problems(when)]
    if not any(tally.tests for tally in tallies.values()):
        problems.append("no test of level 3 or 4 ran")
    return problems


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for eyes, or aligned lines for everything else."""
    if terminal.is_plain():
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        say(title)
        for row in (columns, *rows):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            say("  " + "  ".join(cells).rstrip())
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    frame = box.SIMPLE_HEAD if terminal.is_unicode() else box.ASCII
    drawn = Table(title=Text(title), title_justify="left", box=frame)
    for name in columns:
        drawn.add_column(Text(name), overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell, "red" if cell == "FAIL" else "") for cell in row))
    terminal.console().print(drawn)


class _Ticker:
    """One line that says how far it is, where somebody watches."""

    def __enter__(self) -> _Ticker:
        self.watched = sys.stderr.isatty()
        return self

    def show(self, text: str) -> None:
        if self.watched:
            sys.stderr.write(f"\r{text[: terminal.width() - 1]:<{terminal.width() - 1}}")
            sys.stderr.flush()

    def __exit__(self, *error: object) -> None:
        self.show("")
        if self.watched:
            sys.stderr.write("\r")


def _count(problems: list[str]) -> str:
    return f"FAIL ({len(problems)})" if problems else "ok"


def _by(tests: Sequence[str]) -> str:
    if not tests:
        return "-"
    more = " and others" if len(tests) > 1 else ""
    return tests[0].partition("::")[2] + more
