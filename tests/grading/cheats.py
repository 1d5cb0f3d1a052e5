"""The submissions of tests/cheats/: each adds code to kata 04 as shipped or, if it says so, as solved."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from dojo import stubs
from dojo.curriculum import BY_NUMBER
from dojo.grading import sandbox
from dojo.grading.submissions import Submission

FOLDER = Path(__file__).resolve().parents[1] / "cheats"
KATA = BY_NUMBER["04"]
EARLIER = ("01", "02", "03")
WHAT_STRICT_NEEDS = "strict mode needs Linux, and root or namespaces of one's own"
SOLVED = "# on: reference"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.py")))


def cheat(name: str) -> Submission:
    """Katas 01 to 03 right, and 04 by the cheat `name`."""
    code = (FOLDER / f"{name}.py").read_text("utf-8")
    solved = KATA.reference.read_text("utf-8")
    base = solved if SOLVED in code else stubs.stub_text(solved, name)
    files = {BY_NUMBER[n].name: BY_NUMBER[n].reference.read_bytes() for n in EARLIER}
    return Submission(name, {**files, KATA.name: f"{base}\n\n{code}".encode()})


def summary(name: str) -> str:
    """The first sentences of the cheat's own words."""
    return (FOLDER / f"{name}.py").read_text("utf-8").partition('"""')[2].partition('"""')[0]


@functools.cache
def strict_mode_works() -> bool:
    """Whether this machine can hide the solutions from a worker."""
    try:
        return sys.platform == "linux" and sandbox.walls().hidden
    except OSError:
        return False
