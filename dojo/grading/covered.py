"""The child that finds which lines of a student's file its suite runs:

    python -m dojo.grading.covered 04 SPEC FILE REPORT

Only levels 1 and 2 are run, since a tracer slows what level 4 would time; what they never run no level needs.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dojo.authoring import suites
from dojo.curriculum import Kata, find
from dojo.grading.leash import Leash

TRACED = ("test_1_", "test_2_")


@dataclass(frozen=True)
class Coverage:
    """How many statements of a file there are, and the lines of those that no test ran."""

    statements: int
    missing: tuple[int, ...]

    def __str__(self) -> str:
        if not self.missing:
            return f"all of its {self.statements} statements are run"
        run = self.statements - len(self.missing)
        return f"{run} of its {self.statements} statements are run; never lines {ranges(self.missing)}"


def coverage_of(kata: Kata, spec: str, file: Path, limit: float, leash: Leash) -> Coverage | None:
    """What the suite of `kata` runs of the student's `file`; None when it did not come to an end."""
    with tempfile.TemporaryDirectory(prefix="dojo-", ignore_cleanup_errors=True) as folder:
        report = Path(folder) / "report.json"
        command = ["-B", "-m", "dojo.grading.covered", kata.number, spec, str(file), str(report)]
        leash.run(command, limit, suites.environment(TMPDIR=folder, HOME=folder))
        try:
            found = json.loads(report.read_text("utf-8"))
            return Coverage(int(found["statements"]), tuple(map(int, found["missing"])))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def ranges(lines: tuple[int, ...]) -> str:
    """`3-5, 9`: neighbours joined."""
    joined: list[list[int]] = []
    for line in sorted(lines):
        if joined and line == joined[-1][1] + 1:
            joined[-1][1] = line
        else:
            joined.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in joined)


def main(number: str, spec: str, file: str, report: str) -> int:
    import coverage
    import pytest

    kata = find(number)
    tests = [str(path) for path in sorted(kata.path.glob("test_*.py")) if path.name.startswith(TRACED)]
    tracer = coverage.Coverage(data_file=None, include=[file], config_file=False, messages=False)
    tracer.start()
    pytest.main([*tests, "--impl", spec, "-q", "-p", "no:cacheprovider", "-p", "dojo.grading.tether"])
    tracer.stop()
    try:
        _, statements, _, missing, _ = tracer.analysis2(file)
    except coverage.exceptions.CoverageException:
        return 1
    Path(report).write_text(json.dumps({"statements": len(statements), "missing": missing}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
