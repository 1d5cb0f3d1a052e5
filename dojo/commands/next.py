"""Say the one next thing to do: what to write, where to read about it, and what to type."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from dojo import hints, progress
from dojo.console.terminal import say
from dojo.curriculum import KATAS, Kata, from_root
from dojo.progress import Progress


@dataclass(frozen=True)
class Advice:
    """What to do next: words, one line each, and what to type, if anything."""

    lines: tuple[str, ...]
    command: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    say(*advise(progress.load()).lines)
    return 0


def advise(now: Progress) -> Advice:
    """The next thing to do, and what else should be known."""
    advice = _main_thing(now)
    known = [*([now.trouble] if now.trouble else []), *advice.lines]
    # While a stale kata is being written again, what stands on it cannot be proven.
    if advice.command != "dojo verify" and working_at(now) not in stale(now):
        known += [f"Stale: {reason}: `dojo verify` proves it again" for reason in now.stale_roots().values()]
    known += [
        f"Open too: milestone {m}: {m.command}" for m in now.open_milestones() if advice.command != m.command
    ]
    return Advice(tuple(known), advice.command)


def working_at(now: Progress) -> Kata:
    """The kata to write in: the first stale one with tasks to write again, or else the first not passed."""
    return next((kata for kata in stale(now) if has_blanks(kata)), now.frontier())


def has_blanks(kata: Kata) -> bool:
    """Whether tasks of `kata` are to be written, or its whole file."""
    return not kata.stub.is_file() or bool(hints.unwritten(kata))


def stale(now: Progress) -> list[Kata]:
    return [kata for kata in KATAS if now.state(kata) == progress.STALE]


def _main_thing(now: Progress) -> Advice:
    here = working_at(now)
    state = now.state(here)
    if state == progress.OPEN or (state == progress.STALE and has_blanks(here)):
        return _kata(here)
    if state == progress.UNWRITTEN:
        done = (
            f"You have passed every kata there is so far. The next one, {here}, is not written yet: "
            "`git pull` brings it once it is."
            if now.passed
            else "The course has no kata yet: `git pull` brings them once they are written."
        )
    else:
        done = f"You have passed all {len(KATAS)} katas: tinytorch is whole, and yours."
    if again := stale(now):
        many = f"{len(again)} katas are" if len(again) > 1 else "One kata is"
        reasons = [f"  {reason}" for reason in now.stale_roots().values()]
        return Advice((done, f"{many} stale:", *reasons, "Type:  dojo verify"), "dojo verify")
    if milestones := now.open_milestones():
        command = milestones[0].command
        return Advice(
            (done, f"Milestone {milestones[0]} is open: {milestones[0].title}.", f"Type:  {command}"), command
        )
    return Advice((done,), None)


def _kata(kata: Kata) -> Advice:
    title = f"{kata}: {kata.title}"
    if not kata.stub.is_file():
        command = f"dojo reset {kata.number}"
        return Advice((title, f"{from_root(kata.stub)} is missing.", f"Type:  {command}"), command)
    todos = hints.unwritten(kata)
    if not todos:
        return Advice(
            (
                title,
                "Every task is written. Make its tests green:",
                f"Type:  {kata.command}",
                f"Stuck: dojo hint {kata.number}.N, for the task that fails",
            ),
            kata.command,
        )
    first = todos[0]
    left = len({todo.task for todo in todos})
    total = len({*hints.read(kata), *(todo.task for todo in todos)})
    lines = [
        title,
        f"Task {first.task} {first.name}  ({total - left} of {total} tasks written)",
        *([f"Run {kata.command} to see whether what you wrote is right"] if left < total else []),
        f"Read:  {hints.reading(kata, first.task)}",
        f"Write: {first.where}",
        f"Type:  {kata.command}",
        f"Stuck: dojo hint {first.task}",
    ]
    return Advice(tuple(lines), kata.command)
