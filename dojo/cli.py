"""The `dojo` command.  A subcommand's module is imported only when it is the one that was typed."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from dojo import __version__
from dojo.commands import BadInput, Refused

COMMANDS = {
    "status": "where you stand over the 20 katas and 4 milestones",
    "next": "the one next thing to do",
    "hint": "a nudge for a task; ask again for a bigger one",
    "watch": "run a kata's suite again whenever you save",
    "reset": "start a kata, or one task of it, afresh; your file is kept",
    "diff": "your solution beside the reference, once the kata has passed",
    "verify": "prove katas again, after edits or when progress.json was damaged",
    "milestone": "watch a milestone: real models at work on your framework",
    "leaderboard": "who is ahead in the competition, as a table or a page",
    "measure": "time and memory of a kata over growing sizes",
    "report": "your course as one page: progress, plots, curves, a graph",
    "compare": "(instructors) a submission beside the reference: tests, costs, who is at fault",
    "gradescope": "(instructors) the package that grades on Gradescope",
    "grade": "(instructors) grade a class, unattended, and go on where you were stopped",
    "data": "the data sets: which are there, download them or take them from a folder",
    "doctor": "check that everything on this computer is in order",
    "check": "(authors) prove that a kata's suite catches what it should",
    "stubs": "(authors) write stubs/ from reference/",
    "manifest": "(authors) seal suites after a change to them",
}

INTERRUPTED = 130  # what shells report for Ctrl-C
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # errors that come without a file's name
PIPE_CLOSED = 141  # and for a reader that left, as in `dojo status | head -1`


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}  (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 refused or failed, 2 bad input."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a student's file may hold what the terminal cannot print
    try:
        status = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
        return status
    except (BadInput, Refused) as error:
        print(f"dojo: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _forget_output()
        return PIPE_CLOSED
    except OSError as error:
        if error.filename is None and error.errno not in FULL:
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        print(f"dojo: {where}{error.strerror}", file=sys.stderr)
        return 1


def _run(argv: list[str]) -> int:
    if not argv or argv[0].startswith("-"):
        parser = _overview()
        parser.parse_args(argv)
        parser.print_help()
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = f"did you mean `dojo {near[0]}`?" if near else f"the commands are {', '.join(COMMANDS)}"
        raise BadInput(f"there is no command {name!r}; {meant}")
    module = importlib.import_module(f"dojo.commands.{name}")
    parser = Parser(prog=f"dojo {name}", description=module.__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    module.add_arguments(parser)
    mixed = getattr(module, "INTERMIXED", False)  # whether arguments may stand on both sides of options
    status: int = module.run(parser.parse_intermixed_args(rest) if mixed else parser.parse_args(rest))
    return status


def _overview() -> Parser:
    """The parser of `dojo` by itself; its help lists the commands without importing any of them."""
    listed = "\n".join(f"  {name:<11} {summary}" for name, summary in COMMANDS.items())
    parser = Parser(
        prog="dojo",
        usage="dojo COMMAND ...",
        description="The harness of the TinyTorch katas.",
        epilog=f"commands:\n{listed}\n\n`dojo COMMAND --help` says more; `dojo next` is a good start.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dojo {__version__}")
    return parser


def _forget_output() -> None:
    """Let Python's own flush at exit go nowhere: the reader has left."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
