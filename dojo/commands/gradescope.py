"""Write the package that grades submissions on Gradescope: a zip to upload as an assignment's autograder.

It has the harness, the suites of the katas that the assignment is about, and the reference; on Gradescope
students see none of it.  A student hands in stubs/tinytorch/*.py.  Each kata is worth 10 points.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dojo.commands import BadInput, kata_named, sealed, written
from dojo.console.terminal import say
from dojo.curriculum import KATAS
from dojo.grading.results import POINTS

INTERMIXED = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("katas", nargs="*", type=kata_named, metavar="KATA", help="grade these (all)")
    parser.add_argument("-o", "--output", type=Path, default=Path("autograder.zip"), metavar="ZIP")
    parser.add_argument(
        "--strict", action="store_true", help="points from strict.py, by what cannot be forged"
    )


def run(args: argparse.Namespace) -> int:
    from dojo.grading.gradescope import package

    katas = sealed(sorted(set(written(args.katas)), key=KATAS.index))
    if args.output.is_dir() or args.output.suffix != ".zip":
        raise BadInput(f"-o {args.output} should be a file, as autograder.zip")
    if not args.output.absolute().parent.is_dir():
        raise BadInput(f"there is no folder {args.output.absolute().parent} to write {args.output.name} in")
    package(args.output, katas, args.strict)
    most = POINTS * len(katas)
    say(
        f"wrote {args.output}: {', '.join(kata.number for kata in katas)}, {most} points",
        "Next: upload it under Configure Autograder of a programming assignment, and try it there with "
        "reference/tinytorch (full points) and with stubs/tinytorch as shipped (none)",
    )
    return 0
