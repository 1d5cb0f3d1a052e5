"""Write your course as one HTML page: progress, what your code spends, how it grows, what it has learnt.

The page needs no network and nothing beside it. Its plots are of what `dojo measure` and `dojo milestone`
have found; `--measure` asks for more of them first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dojo import progress
from dojo.commands import BadInput, kata_named
from dojo.console.terminal import say
from dojo.curriculum import ROOT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=ROOT / "report.html",
        metavar="FILE",
        help="where to (report.html)",
    )
    parser.add_argument(
        "--measure", type=kata_named, nargs="+", default=[], metavar="KATA", help="measure these first"
    )


def run(args: argparse.Namespace) -> int:
    from dojo.commands import measure
    from dojo.reporting import course, scaling

    file: Path = args.output.absolute()
    if not file.parent.is_dir() or file.is_dir():
        raise BadInput(f"there can be no file {file}: give -o a name in a folder that there is")
    for kata in args.measure:
        scaling.keep(kata, measure.measure(kata).as_data())
    try:
        file.write_text(course.page(progress.load()), encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{file} cannot be written: {error.strerror}") from error
    say(f"The report: {file}")
    return 0
