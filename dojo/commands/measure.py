"""Measure a kata: time and memory over growing sizes, yours beside the reference and PyTorch.

Each probe of katas/NN_name/probes.py gives a table.  `growth` is the exponent of the last doubling: n^2 takes
four times as much for twice the size.  `of the roof` compares with the fastest this machine could do; what is
`in cache` was faster than its memory.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dojo.commands import BadInput, Refused, composition, kata_named, written
from dojo.curriculum import Kata

if TYPE_CHECKING:
    from dojo.measuring.comparing import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kata", type=kata_named, metavar="KATA", help="which kata, as in 6, 06 or autograd")
    parser.add_argument(
        "--impl", metavar="SPEC", help="measure this instead of your stubs, as in pytest --impl"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="save a picture, too (needs matplotlib)")
    parser.add_argument("--json", action="store_true", help="the same for programs")


def run(args: argparse.Namespace) -> int:
    from dojo.reporting import scaling

    if args.plot and not importlib.util.find_spec("matplotlib"):
        raise Refused("--plot needs matplotlib, which is not installed: python -m pip install matplotlib")
    if args.plot and not args.plot.absolute().parent.is_dir():
        raise BadInput(f"there is no folder {args.plot.absolute().parent} to save a picture in")
    report = measure(args.kata, args.impl)
    if not args.impl and report.comparisons:
        scaling.keep(args.kata, report.as_data())
    if args.json:
        print(json.dumps(report.as_data(), indent=1))
    else:
        from dojo.measuring import tables

        tables.show(report)
    if args.plot:
        _save(report, args.plot)
    return 0 if report.comparisons else 1


def measure(kata: Kata, impl: str | None = None) -> Report:
    """What `kata`'s probes find on `impl` (None: your stubs), on the reference, and on PyTorch if installed.

    Raises:
        Refused: the kata is not written yet, or has no probes.
        BadInput: there is no such `impl`.
    """
    from dojo.measuring.comparing import compare

    written([kata])
    if not (kata.path / "probes.py").is_file():
        raise Refused(f"kata {kata} has no probes.py, so that there is nothing to measure")
    return compare(kata, str(composition(impl)), _tell)


def _tell(source: str) -> None:
    """Progress, for a person; a program reads standard output alone."""
    if sys.stderr.isatty():
        print(f"measuring {source} ...", file=sys.stderr, flush=True)


def _save(report: Report, file: Path) -> None:
    from dojo.measuring import plots

    try:
        plots.save(report, file)
    except ValueError as error:
        raise BadInput(f"--plot {file}: {error}") from error
    print(f"saved {file}", file=sys.stderr)
