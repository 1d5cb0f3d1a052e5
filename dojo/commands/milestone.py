"""Watch a milestone: its models at work on your framework, with pictures.

What stands behind the milestone's name is for its own program; `dojo milestone m1 --help` lists it.
"""

from __future__ import annotations

import argparse
import os

from dojo import compose, progress
from dojo.commands import Refused, composition, unit_named
from dojo.compose import LockedError
from dojo.curriculum import Milestone
from dojo.threads import ONE_THREAD

PROGRAM = "demo.py"  # beside the milestone's tests: `main(args: list[str]) -> int`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--impl", metavar="SPEC", help="run it on this instead of your stubs, as in pytest --impl"
    )
    parser.add_argument("milestone", type=_milestone_named, metavar="MILESTONE", help="m1 to m4")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="options of its program")


def run(args: argparse.Namespace) -> int:
    milestone: Milestone = args.milestone
    program = milestone.path / PROGRAM
    if not (milestone.written and program.is_file()):
        raise Refused(f"milestone {milestone} is not written yet")
    source = composition(args.impl)
    if source.default == "stubs" and milestone.after not in progress.load().passed:
        raise Refused(
            f"{compose.locked_message(milestone.shown)}\n"
            f"To see it on the reference: dojo milestone --impl reference {milestone.number}"
        )
    compose.choose(source)
    # Many small products on two busy threads take ten times as long as on one, which they spend in waiting.
    for variable, one in ONE_THREAD.items():
        os.environ.setdefault(variable, one)
    compose.reach()
    try:
        status: int = compose.load_file(program).main(args.rest)
        return status
    except (NotImplementedError, LockedError) as error:
        raise Refused(f"{error or 'something is not written yet'}. Next: {milestone.command}") from error


def _milestone_named(text: str) -> Milestone:
    unit = unit_named(text)
    if not isinstance(unit, Milestone):
        raise argparse.ArgumentTypeError(f"{text!r} is a kata; the milestones are m1, m2, m3, m4")
    return unit
