"""Compare a submission with the reference, test by test, in what it costs, and in who is at fault.

SUBMISSION is a folder or a zip with stubs/tinytorch/*.py in it.  Where a kata or a milestone fails, the
failing tests are run again with the student's modules put into the reference, one at a time, to find the one
to mend.
Costs are ratios to the reference at the largest size of each probe, in turns on this machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from dojo import stubs
from dojo.commands import BadInput, Refused, seconds, so_far, unit_named
from dojo.console import children
from dojo.console.terminal import say
from dojo.curriculum import UNITS, Kata, Unit
from dojo.grading.beside import Beside, Cost, compare
from dojo.grading.blame import stack
from dojo.grading.leash import Leash
from dojo.grading.plain import laid_out
from dojo.grading.results import PASSED
from dojo.grading.submissions import Submission, class_in, read

INTERMIXED = True
NAMED = 12  # failing tests worth naming
LONGER = 5  # times the limit of a kata is that of a milestone, which trains


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("submission", type=Path, metavar="SUBMISSION")
    parser.add_argument(
        "units", nargs="*", type=unit_named, metavar="KATA", help="katas or milestones (all katas handed in)"
    )
    parser.add_argument("--tests-only", action="store_true", help="leave out costs and coverage")
    parser.add_argument("--json", action="store_true", help="the same for programs, with every test")
    parser.add_argument(
        "--limit", type=seconds, default=children.LIMIT, metavar="SECONDS", help="for a suite (%(default)g)"
    )


def run(args: argparse.Namespace) -> int:
    if several := class_in(args.submission):
        raise BadInput(
            f"{args.submission} holds {len(several)} submissions; name one of them, as {several[0]}"
        )
    submission = read(args.submission)
    if submission.trouble:
        raise BadInput(f"{args.submission}: {submission.trouble}")
    units = _units(args.units, submission)
    leash = Leash()
    found = []
    with laid_out(submission.files) as copies:
        for unit in units:
            limit = args.limit * (1 if isinstance(unit, Kata) else LONGER)
            found.append(compare(unit, copies, limit, leash, not args.tests_only, _tell))
            if not args.json:
                say(*lines(found[-1]), "")
    if args.json:
        print(json.dumps([beside.as_data() for beside in found], indent=1))
    return 0


def _units(named: list[Unit], submission: Submission) -> list[Unit]:
    """The katas and milestones to compare, in the order of the course.

    Raises:
        Refused: one of them is not written yet, or a file that it needs was not handed in.
    """
    if not named:
        return [
            unit for unit in UNITS if isinstance(unit, Kata) and unit.written and _begun(unit, submission)
        ]
    for unit in named:
        if not unit.written:
            raise Refused(f"{unit} is not written yet; {so_far()}")
        missing = [f"{kata.name}.py" for kata in stack(unit) if kata.name not in submission.files]
        if missing:
            raise Refused(f"{unit} needs {', '.join(missing)}, which was not handed in")
    return sorted(set(named), key=UNITS.index)


def _begun(kata: Kata, submission: Submission) -> bool:
    """Whether a kata was handed in, and not as the blank stub."""
    text = submission.files.get(kata.name)
    return text is not None and stubs.normal(text) != stubs.implied(kata.reference).encode("utf-8")


def _tell(doing: str) -> None:
    if sys.stderr.isatty():
        print(f"{doing} ...", file=sys.stderr, flush=True)


def lines(beside: Beside) -> Iterator[str]:
    """What was found, for a person."""
    passed = sum(state == "passed" for state in beside.tests.values())
    yield f"{beside.unit}: {passed} of {len(beside.tests)} tests pass"
    if beside.outcome.state != PASSED:
        for part in beside.outcome.parts:
            yield f"  {part.name}: {part.state}, {part.passed} of {part.total}"
        wrong = [(test, beside.reasons[test]) for test in beside.tests if test in beside.reasons]
        yield from (f"    {test}\n      {words}" for test, words in wrong[:NAMED])
        if len(wrong) > NAMED:
            yield f"    and {len(wrong) - NAMED} others"
        if not wrong and beside.outcome.words:
            yield f"    {beside.outcome.words}"
        if beside.faults:
            yield from (f"  at fault: {fault}" for fault in beside.faults)
        else:
            yield "  at fault: no module by itself, and mending one alone does not help"
    if beside.coverage:
        yield f"  by levels 1 and 2, {beside.coverage}"
    if beside.costs:
        yield "  beside the reference:"
        yield from (f"    {_cost(cost)}" for cost in beside.costs)


def _cost(cost: Cost) -> str:
    if cost.size is None:
        return f"{cost.probe}: {cost.trouble}"
    time, memory = (f"{x:.2f}" if x is not None else "-" for x in (cost.time, cost.memory))
    trouble = f"   ({cost.trouble})" if cost.trouble else ""
    return f"{cost.probe}, n = {cost.size}: {time} times the time, {memory} times the memory{trouble}"
