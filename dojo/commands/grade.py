"""Grade a class: every submission in DIR, kata by kata, into a folder of results.

A submission is a folder or a zip with stubs/tinytorch/*.py in it, called by its name.  The results are
scores.csv, details.csv, junit.xml, class.html (a heat map) and similar.csv.  ledger.jsonl remembers verdicts
by the content they depend on: stop with Ctrl-C whenever you like, and the same command goes on from there.

Without --strict the suites run beside the student's code, which could lie to them; docs/instructors.md says
what either mode proves.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dojo.commands import BadInput, Refused, kata_named, sealed, seconds, shard, written
from dojo.console import children
from dojo.console.terminal import say
from dojo.curriculum import KATAS, Kata
from dojo.grading.crowd import grade_all, grade_over_dask
from dojo.grading.keys import How
from dojo.grading.ledger import Ledger
from dojo.grading.results import Grade
from dojo.grading.submissions import Submission, Unreadable, find, passed_over
from dojo.threads import use_one_thread

INTERMIXED = True  # KATA may come after the options
NAMED = 12  # files that are no submission worth naming


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="one folder or .zip for each submission")
    parser.add_argument("katas", nargs="*", type=kata_named, metavar="KATA", help="grade these (all)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="RESULTS", help="a folder")
    parser.add_argument(
        "--strict", action="store_true", help="trust nothing in the student's process (Linux)"
    )
    parser.add_argument(
        "--suites", action="store_true", help="with --strict: what holds must pass its suite, too, in a cell"
    )
    parser.add_argument(
        "--weak", action="store_true", help="with --strict: go on where this system cannot isolate the code"
    )
    parser.add_argument(
        "--borrow",
        action="store_true",
        help="what a kata stands on is the reference's: a mistake costs one kata",
    )
    parser.add_argument("--jobs", type=_count, default=os.cpu_count() or 1, metavar="N", help="at a time")
    parser.add_argument("--shard", type=shard, metavar="I/N", help="only the I-th of N parts of the class")
    parser.add_argument(
        "--dask", metavar="ADDRESS", help="by the workers of a dask cluster, as tcp://host:8786"
    )
    parser.add_argument(
        "--limit", type=seconds, default=children.LIMIT, metavar="SECONDS", help="for one kata (%(default)g)"
    )


def run(args: argparse.Namespace) -> int:
    katas = sealed(sorted(set(written(args.katas)), key=KATAS.index))
    _sensible(args)
    try:
        submissions = _part(find(args.folder, but=args.output), args.shard)
    except Unreadable as error:
        raise BadInput(str(error)) from error
    if others := passed_over(args.folder, but=args.output):
        named = ", ".join(others[:NAMED]) + f" and {len(others) - NAMED} others" * (len(others) > NAMED)
        say(f"not graded, being neither a folder nor a .zip: {named}")
    if args.strict and not args.dask:  # whose workers look for themselves
        _walled(args.weak, args.suites)
    args.output.mkdir(parents=True, exist_ok=True)
    secret = _secret(args.output) if args.strict else b""
    how = How(args.strict, args.borrow, args.limit, args.suites, args.weak, secret)
    ledger = Ledger(args.output / "ledger.jsonl")
    ledger.path.touch()  # rather an error now than when a class has been graded
    with _counted(len(submissions), len(katas)) as tell:
        grades = _grade(args, submissions, katas, how, ledger, tell)
    _write(args.output, submissions, katas, how, grades)
    if tell.left_out:
        raise Refused(
            f"{tell.left_out} could not be graded, as said above; the same command tries them again"
        )
    return 0


def _sensible(args: argparse.Namespace) -> None:
    if args.strict and args.borrow:
        raise BadInput("--strict has no reference to borrow from: the student's code must not come near it")
    for name in ("weak", "suites"):
        if getattr(args, name) and not args.strict:
            raise BadInput(f"--{name} goes with --strict")
    if args.dask and not importlib.util.find_spec("distributed"):
        raise Refused(
            "--dask needs dask.distributed, which is not installed: python -m pip install distributed"
        )
    if args.output.exists() and not args.output.is_dir():
        raise BadInput(f"-o {args.output} is a file; name a folder for the results")


def _walled(weak: bool, suites: bool) -> None:
    """Say what strict mode's cell keeps out on this machine.

    Raises:
        Refused: not enough, or nothing.
    """
    if sys.platform != "linux":
        raise Refused("--strict needs Linux; a container or a virtual machine will do")
    use_one_thread()
    from dojo.grading import sandbox, strict

    try:
        walls = sandbox.walls()
    except OSError as error:
        raise Refused(f"--strict cannot be had here: {error}") from error
    say(f"strict: {walls}")
    if suites and not sandbox.namespaces():
        raise Refused(
            "--suites needs namespaces, which this system does not give (`unshare --user true` says)"
        )
    if not walls.hidden and not weak:
        raise Refused(strict.READABLE)


def _part(submissions: list[Submission], shard: tuple[int, int] | None) -> list[Submission]:
    """Every N-th submission: neighbours in the alphabet are no likelier to be slow together."""
    if shard is None:
        return submissions
    index, count = shard
    if not (part := submissions[index - 1 :: count]):
        raise Unreadable(
            f"shard {index}/{count} of {len(submissions)} submissions is empty; use fewer shards"
        )
    return part


def _grade(
    args: argparse.Namespace,
    submissions: list[Submission],
    katas: list[Kata],
    how: How,
    ledger: Ledger,
    tell: Teller,
) -> list[Grade]:
    if not args.dask:
        return grade_all(submissions, katas, how, ledger, args.jobs, tell)
    try:
        return grade_over_dask(submissions, katas, how, ledger, args.dask, tell)
    except ConnectionError as error:
        raise Refused(
            f"no dask cluster answers at {args.dask} ({error}); `dask scheduler` starts one, and "
            "`dask worker ADDRESS`, in this repository, each of its workers"
        ) from error


class Teller:
    """Says how each submission did as it is done."""

    def __init__(self, count: int) -> None:
        self.count, self.done, self.left_out = count, 0, 0

    def __call__(self, name: str, grade: Grade | str) -> None:
        self.done += 1
        if isinstance(grade, str):
            self.left_out += 1
            grade = f"{name}  not graded: {grade}"
        else:
            grade = grade.line()
        say(f"[{self.done:>{len(str(self.count))}}/{self.count}] {grade}")


@contextlib.contextmanager
def _counted(submissions: int, katas: int) -> Iterator[Teller]:
    """A line for each submission, and at the end what it took."""
    began, used = time.monotonic(), _processor()
    teller = Teller(submissions)
    say(f"{_many(submissions, 'submission')}, {_many(katas, 'kata')} each")
    try:
        yield teller
    except KeyboardInterrupt:
        say(f"Stopped after {teller.done} of {submissions}; the same command goes on from there.")
        raise
    took = time.monotonic() - began
    each = (_processor() - used) / submissions
    an_hour = 3600 * submissions / max(took, 0.001)
    say(f"{_many(submissions, 'submission')} in {took:.0f} s ({an_hour:.0f} an hour)")
    if each >= 0.05:  # of a cluster's workers this process knows nothing
        say(f"{each:.1f} s of processor time each")


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _processor() -> float:
    """Seconds of processor time of this process and the children it has waited for; 0 where none can say."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _write(
    folder: Path, submissions: list[Submission], katas: list[Kata], how: How, grades: list[Grade]
) -> None:
    from dojo.grading import reports, similarity

    title = f"{_many(len(grades), 'submission')}, {how.mode} grading"
    for path in reports.write_all(folder, title, grades, similarity.alike(submissions, katas)):
        say(f"wrote {path}")


def _secret(folder: Path) -> bytes:
    """What strict mode draws its numbers from: the same when a run goes on, and nobody's to guess."""
    path = folder / "secret.key"
    if path.exists():
        return path.read_bytes()
    secret = secrets.token_bytes(32)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secret)
    return secret


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes, 1 or more")
    return int(text)
