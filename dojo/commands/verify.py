"""Prove katas again: run their suites and write down anew what passes.

Without arguments, those that went stale.  `--all` proves every kata from the first on, and rebuilds a
progress.json that was damaged, or that git could not merge.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping

from dojo import compose, hints, progress
from dojo.commands import Refused, kata_named, seconds, written
from dojo.commands.next import advise, stale
from dojo.console import children
from dojo.console.terminal import say
from dojo.curriculum import KATAS, Kata

PROVEN, FAILED, TO_DO = "passed", "failed", "to do"
TAIL = 40  # lines of pytest's output worth showing: what failed comes last


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("katas", nargs="*", type=kata_named, metavar="KATA")
    parser.add_argument("--all", action="store_true", help="every kata that you have come to")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first that fails")
    parser.add_argument(
        "--limit",
        type=seconds,
        default=children.LIMIT,
        metavar="SECONDS",
        help="end a suite that takes longer (default %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    chosen = _chosen(args)
    for message in progress.repair():
        say(message)
    if trouble := progress.load().trouble:
        raise Refused(trouble)  # newer or unreadable: nothing could be recorded
    if not chosen:
        say("No kata is stale. `dojo verify --all` proves every kata again all the same.")
        return 0
    results = list(_prove_in_order(chosen, args))
    counts = {outcome: results.count(outcome) for outcome in (PROVEN, FAILED, TO_DO)}
    counts["not run"] = len(chosen) - len(results)
    shown = (f"{count} {what}" for what, count in counts.items() if count or what in (PROVEN, FAILED))
    say("", ", ".join(shown))
    now = progress.load()
    # That the course goes on after what was proven is no failure of `--all`.
    short = [
        kata
        for kata, outcome in zip(chosen, results, strict=False)
        if outcome == FAILED or (outcome == TO_DO and not (args.all and kata.number not in now.passed))
    ]
    if short:
        say(f"Next: {(short[0] if now.reached(short[0]) else now.frontier()).command}")
        return 1
    if command := advise(progress.load()).command:
        say(f"Next: {command}")
    return 0


def _prove_in_order(katas: list[Kata], args: argparse.Namespace) -> Iterator[str]:
    """How it went with each kata, for as many as are to be run."""
    for kata in katas:
        now = progress.load()
        if not now.reached(kata):
            say(f"{kata!s:<17}locked: {now.frontier()} comes first ({now.frontier().command})")
            outcome = FAILED
        elif now.state(kata) != progress.PASSED and (todos := hints.unwritten(kata)):
            tasks = len({todo.task for todo in todos})
            many = f"{tasks} tasks are" if tasks > 1 else "a task is"
            say(f"{kata!s:<17}to do: {many} not written yet, first {todos[0].task} at {todos[0].where}")
            outcome = TO_DO
        else:
            outcome = PROVEN if prove(kata, args.limit) else FAILED
        yield outcome
        if outcome != PROVEN and (not args.keep_going or (args.all and kata.number not in now.passed)):
            return


def _chosen(args: argparse.Namespace) -> list[Kata]:
    """The katas to prove, in the course's order.

    Raises:
        Refused: one that was named is not written yet.
    """
    if args.all:
        return written([])
    if args.katas:
        return sorted(set(written(args.katas)), key=KATAS.index)
    now = progress.load()
    if now.trouble:
        return written([])
    return stale(now)


def prove(kata: Kata, limit: float) -> bool:
    """Run the whole suite of `kata` in a process of its own, which records a pass; says how it went."""
    print(f"{kata!s:<17}", end="", flush=True)
    began = time.monotonic()
    status, output = children.run(
        ["-m", "pytest", str(kata.path), "-q", "--color=no"], limit, env=environment(os.environ)
    )
    took = f"({time.monotonic() - began:.1f} s)"
    if status is None:
        say(f"stopped after {limit:g} s. Is there a loop that never ends?")
    elif status:
        say(f"FAIL {took}")
    elif progress.load().state(kata) != progress.PASSED:
        say(f"green, but not recorded {took}")
    else:
        say(f"passed {took}")
        return True
    troubles = progress.doubt(kata) if status != 0 else []
    say(*troubles, *(f"  {line}" for line in output.rstrip().splitlines()[-TAIL:]))
    return False


def environment(outer: Mapping[str, str]) -> dict[str, str]:
    """`outer` without what would make a run of pytest prove less than everything."""
    unwanted = (compose.VARIABLE, "PYTEST_ADDOPTS", "PYTHONOPTIMIZE")
    return {name: value for name, value in outer.items() if name not in unwanted}
