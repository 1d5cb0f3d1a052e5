"""A pytest plugin that writes what each test did, one JSON object a line, for `suites` to read.

pytest -p dojo.authoring.outcomes katas/02_tensor     with DOJO_OUTCOMES=some/file
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from typing import Any

import pytest

VARIABLE = "DOJO_OUTCOMES"
STEADY = "DOJO_STEADY"  # set: hypothesis draws the same examples every time, and does not shrink

# What dojo.expect says of two values; a longer one goes on in indented lines.
VALUES = re.compile(r"^came back  (.*(?:\n+ .*)*)\nexpected   (.*(?:\n+ .*)*)", re.MULTILINE)
WIDE = 120  # characters of a value in a reason
HEADING = re.compile(r"kata \d\d\.\d+ ")  # the line that a failure about one task begins with

WORST_LAST = ("passed", "skipped", "blocked", "todo", "failed")


def pytest_configure(config: pytest.Config) -> None:
    if VARIABLE in os.environ:
        # Registered late, so that `report.kata` is there when a report arrives.
        config.pluginmanager.register(_Writer(os.environ[VARIABLE]), "dojo-outcome-writer")
    if STEADY in os.environ:
        make_hypothesis_steady()


def make_hypothesis_steady() -> None:
    """The same examples in every run, none from a database, and no time spent on the smallest one."""
    from hypothesis import HealthCheck, Phase, settings

    settings.register_profile(
        "dojo-steady",
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    settings.load_profile("dojo-steady")


def state_of(report: Any) -> str:
    """passed, skipped, blocked, todo or failed; an expected failure (xfail) counts as skipped."""
    if hasattr(report, "wasxfail"):
        return "skipped"
    state: str = getattr(report, "kata", {}).get("state", report.outcome)
    return state


class _Writer:
    """Line by line, so that a run that is killed still says how far it came."""

    def __init__(self, path: str) -> None:
        self.path = path

    def _write(self, **line: Any) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        kata = getattr(report, "kata", None)
        if not kata:
            return
        self._write(
            kind="test",
            id=kata["id"],
            level=kata["level"],
            when=report.when,
            state=state_of(report),
            seconds=report.duration,
            words=words_of(report),
        )

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write(kind="trouble", words=f"{report.nodeid}: {words_of(report)}")

    def pytest_internalerror(self, excrepr: object) -> None:
        self._write(kind="trouble", words=str(excrepr).strip().splitlines()[-1])

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self._write(kind="end", code=int(exitstatus))


def words_of(report: Any) -> str:
    """The reason of a failure or skip in one line; empty for a pass."""
    if report.longrepr is None:
        return ""
    if isinstance(report.longrepr, tuple):  # a skip: file, line, reason
        return str(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash:
        return str(crash.message).strip().partition("\n")[0]
    text = str(report.longrepr).strip()
    errors = [line[1:].strip() for line in text.splitlines() if line.startswith("E  ")]
    # dojo.plugin.explain shows the statements first, then a blank line and what went wrong.
    if errors:
        return errors[-1]
    if values := VALUES.search(text):
        got, expected = (textwrap.shorten(value, WIDE, placeholder=" ...") for value in values.groups())
        return f"came back {got}; expected {expected}"
    lines = [*text.rpartition("\n\n")[2].splitlines(), "", ""]
    return lines[1 if lines[1] and HEADING.match(lines[0]) else 0]
