"""Seal suites: write down which tests each kata has, so that a run of some of them unlocks nothing."""

from __future__ import annotations

import argparse

from dojo import manifest
from dojo.commands import Refused, unit_named
from dojo.console.terminal import say
from dojo.curriculum import UNITS, Unit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "units",
        nargs="*",
        type=unit_named,
        metavar="KATA",
        help="katas and milestones; all, unless named",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if one is not as it should be"
    )


def run(args: argparse.Namespace) -> int:
    units: list[Unit] = args.units or [one for one in UNITS if has_suite(one)]
    for missing in (one for one in units if not has_suite(one)):
        raise Refused(f"{missing.shown} has no test_*.py to seal")
    wrong = 0
    for one in units:
        name = f"{one.shown}/manifest.json"
        try:
            text = manifest.text_of(one)
        except RuntimeError as error:
            raise Refused(str(error)) from error
        file = manifest.path_of(one)
        if file.exists() and file.read_text("utf-8") == text:
            say(f"{name} is as it should be")
        elif args.check:
            say(f"{name} does not match its suite: run `dojo manifest {one.number}`")
            wrong += 1
        else:
            file.write_text(text, encoding="utf-8", newline="\n")
            say(f"wrote {name}")
    return 1 if wrong else 0


def has_suite(unit: Unit) -> bool:
    return any(unit.path.glob("test_*.py"))
