"""Which lines and branches of a kata's reference its own suite leaves out.

    python -m dojo.authoring.branches 02 FILE       runs the suite under coverage, and writes a report

Coverage finds untested lines and proves nothing about the tested ones: that is for mistakes and mutants.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from dojo.authoring import suites
from dojo.authoring.outcomes import VARIABLE
from dojo.curriculum import ROOT, Kata, find, from_root

# Nothing else is excused but what `# elsewhere: why` says to run in another process or on another system.
NEVER_RUN = (
    r"^\s*if (typing\.)?TYPE_CHECKING:",
    r"^\s*@(typing\.)?overload\b",
    r"^\s*\.\.\.$",
    r"  # elsewhere: \w",
)


def coverage_problems(kata: Kata) -> list[str]:
    """Every line and branch of the reference that no test of its suite reaches."""
    with tempfile.TemporaryDirectory(prefix="dojo-") as folder:
        report, lines = Path(folder) / "report.json", Path(folder) / "outcomes.jsonl"
        command = ["-m", "dojo.authoring.branches", kata.number, str(report)]
        status, output = suites.child(command, **{VARIABLE: str(lines)})
        last = output.strip().rpartition("\n")[2]
        run = suites.read(lines, last or f"exit status {status}")
        if run.trouble or not report.exists():
            return [f"{kata.shown} could not be run under coverage: {run.trouble or last}"]
        if run.failed:
            first = run.failed[0]
            return [f"{first.id} is {first.state} on the reference under coverage: {first.words}"]
        return read(kata, json.loads(report.read_text("utf-8")))


def read(kata: Kata, report: dict[str, Any]) -> list[str]:
    """The gaps in a JSON report of coverage."""
    name = from_root(kata.reference)
    found = {(ROOT / file).resolve(): content for file, content in report["files"].items()}
    if kata.reference.resolve() not in found:
        return [f"the suite of {kata.shown} never imports {name}"]
    content, text = found[kata.reference.resolve()], kata.reference.read_text("utf-8").splitlines()
    problems = [
        f"{name}:{line}: no test runs `{text[line - 1].strip()}`" for line in content["missing_lines"]
    ]
    untaken = set(content["missing_lines"])
    for start, end in content["missing_branches"]:
        if not untaken.intersection((start, end)):
            where = f"to line {end}" if end > 0 else "to the end of the function"
            problems.append(f"{name}:{start}: no test goes from `{text[start - 1].strip()}` {where}")
    return problems


def main(number: str, report: str) -> int:
    import coverage
    import pytest

    kata = find(number)
    tracer = coverage.Coverage(
        data_file=None, branch=True, include=[str(kata.reference)], config_file=False, messages=False
    )
    for excuse in ("exclude", "partial"):
        tracer.clear_exclude(excuse)
    for pattern in NEVER_RUN:
        tracer.exclude(pattern)
    tracer.start()
    arguments = ["--impl", "reference", "-q", "-p", "dojo.authoring.outcomes", "-p", "no:cacheprovider"]
    status = pytest.main([str(kata.path), *arguments])
    tracer.stop()
    try:
        tracer.json_report(outfile=report)
    except coverage.exceptions.NoDataError:
        Path(report).write_text(json.dumps({"files": {}}), encoding="utf-8")
    return int(status)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
