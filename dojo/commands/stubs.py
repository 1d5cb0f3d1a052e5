"""Write stubs/ from reference/, which is the one source of both.

A file that holds somebody's work is saved aside first: one that differs from what git has, or whose kata has
passed.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from dojo import progress, stubs
from dojo.commands import Refused, kata_named
from dojo.console.terminal import say
from dojo.curriculum import KATAS, ROOT, STUBS, Kata, from_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("katas", nargs="*", type=kata_named, metavar="KATA", help="all of them, unless named")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a stub is not fresh")


def run(args: argparse.Namespace) -> int:
    katas: list[Kata] = args.katas
    for missing in (one for one in katas if not one.reference.is_file()):
        raise Refused(f"{from_root(missing.reference)} does not exist")
    if args.check:
        wrong = [line for line in stubs.stale() if not katas or any(from_root(k.stub) in line for k in katas)]
        say(*(wrong or ["every stub is what its reference implies"]))
        return 1 if wrong else 0
    wanted = [kata.reference for kata in katas] or stubs.references()
    try:
        texts = {STUBS / file.name: stubs.implied(file).encode("utf-8") for file in wanted}
    except SyntaxError as error:
        where = f"{from_root(Path(error.filename))}:{error.lineno}" if error.filename else "reference/"
        raise Refused(f"{where}: {error.msg}") from error
    changed = [
        path for path, text in texts.items() if not path.is_file() or stubs.normal(path.read_bytes()) != text
    ]
    for path in changed:
        if path.is_file() and holds_work(path):
            say(f"{from_root(path)} holds work: it is kept as {from_root(stubs.save_aside(path))}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(texts[path])
        say(f"wrote {from_root(path)}")
    if not changed:
        say("every stub is what its reference implies: nothing to do")
    return 0


def holds_work(stub: Path) -> bool:
    """Whether `stub` is something that cannot be had back."""
    passed = progress.load().passed
    if any(k.stub == stub and k.number in passed for k in KATAS):
        return True
    committed = _committed(stub)
    return committed is None or stubs.normal(committed) != stubs.normal(stub.read_bytes())


def _committed(path: Path) -> bytes | None:
    """What git's HEAD has for `path`; None when there is no git or it has nothing."""
    command = ["git", "show", f"HEAD:./{from_root(path)}"]
    try:
        shown = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    except OSError:
        return None
    return shown.stdout if shown.returncode == 0 else None
