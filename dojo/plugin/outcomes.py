"""What happened in a run, and whether it unlocks a kata or passes a milestone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from dojo import compose, manifest, progress
from dojo.curriculum import UNITS, Unit
from dojo.plugin.units import order_of

SEED = 0  # of the `rng` fixture; recorded beside each pass


@dataclass
class Test:
    """One test of a kata: `state` is that of its worst phase, `ran` whether its body was called."""

    id: str
    level: int
    title: str
    state: str
    ran: bool = False
    todo: dict[str, str] | None = None
    task: str = ""
    reason: str = ""  # why it was skipped
    missed: str = ""  # what a naive version needed that was not caught
    measured: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Verdict:
    """Whether a unit passed for the first time; where it was not although its tests passed, why."""

    unit: Unit
    unlocked: bool = False
    reason: str = ""
    messages: list[str] = field(default_factory=list)


class Outcomes:
    """Collects the reports of a run, in the controller under xdist, and records katas that passed."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.tests: dict[str, dict[str, Test]] = {}
        self.verdicts: list[Verdict] = []
        self.interrupted = False
        self.troubles = [] if config.option.collectonly else progress.repair()
        # What is unlocked is what was tested: a stub saved in mid-run is not.
        self.before = {unit.number: progress.fingerprint(unit) for unit in UNITS if unit.written}

    def pytest_runtest_logreport(self, report: Any) -> None:
        info = getattr(report, "kata", None)
        if not info:
            return
        state = info["state"]
        if state == "passed" and (report.outcome != "passed" or hasattr(report, "wasxfail")):
            state = "failed"
        tests = self.tests.setdefault(info["unit"], {})
        test = tests.setdefault(info["id"], Test(info["id"], info["level"], info["title"], "passed"))
        if state != "passed":
            test.state = state
        if state == "skipped" and isinstance(report.longrepr, (tuple, list)):
            test.reason = str(report.longrepr[-1]).removeprefix("Skipped: ")
        if report.when == "call" and report.outcome == "passed":
            test.ran = True
        test.todo = getattr(report, "todo", None) or test.todo
        test.task = getattr(report, "task", "") or test.task
        test.missed = getattr(report, "missed", "") or test.missed
        test.measured += getattr(report, "measured", [])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.config.option.collectonly:
            return
        self.interrupted = int(exitstatus) not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        for unit in self.units():
            self.verdicts.append(self._judge(unit))

    def units(self) -> list[Unit]:
        """The katas and milestones that were run, in the course's order."""
        return sorted((unit for unit in UNITS if unit.number in self.tests), key=order_of)

    def _judge(self, unit: Unit) -> Verdict:
        tests = self.tests[unit.number].values()
        if self.interrupted or any(test.state not in ("passed", "skipped") for test in tests):
            return Verdict(unit)
        if reason := self._why_not(unit):
            return Verdict(unit, reason=reason)
        measured = [figure for test in tests for figure in test.measured]
        first = not progress.load().has_passed(unit)
        messages = progress.record_pass(unit, measured, SEED, proven=self.before[unit.number])
        return Verdict(unit, first and progress.load().has_passed(unit), messages=messages)

    def _why_not(self, unit: Unit) -> str:
        """Why a unit whose tests all passed is not recorded; empty if it is to be."""
        composition = compose.current()
        if not composition.ordinary:
            return f"this run took tinytorch from {composition}"
        if not __debug__ or self.config.getoption("assertmode") != "rewrite":
            return "asserts were off, so nothing was tested"
        try:
            sealed = manifest.read(unit)
        except (OSError, ValueError) as error:
            return str(error)
        passed = {test.id for test in self.tests[unit.number].values() if test.ran and test.state == "passed"}
        if missing := len(set(sealed.tests) - passed):
            return f"a partial run: {missing} of its {len(sealed.tests)} tests did not run"
        if manifest.suite_hash(unit) != sealed.suite:
            return (
                f"its suite was edited; `git checkout {unit.shown}` restores it "
                f"(an author seals a new one with `dojo manifest {unit.number}`)"
            )
        if self.before[unit.number] != progress.fingerprint(unit):
            return "a stub was saved while its tests were running; run them once more"
        return ""
