"""Levels escalate: once a level of a kata has a failure, its later levels wait."""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Any

import pytest

from dojo.plugin.units import Place, last_kata, place_of

PLACE = pytest.StashKey[Place]()
BLOCKED = pytest.StashKey[bool]()

RECORDING_STARTS = "06"  # units before autograd run unrecorded, even when autograd was imported


class Gate:
    """Blocks levels, and tells each report where its test stands.

    `report.kata` is a dict of plain values, so that it survives the way from an xdist worker:
    `unit`, `level`, `title`, `id`, and `state`: passed, failed, todo, blocked or skipped.
    """

    def __init__(self) -> None:
        self.failed_level: dict[str, tuple[int, str]] = {}
        self.stuck: set[str] = set()  # katas in which a test ran out of time

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        place = place_of(item)
        if place is None:
            return
        item.stash[PLACE] = place
        if place.unit.number in self.stuck:
            item.stash[BLOCKED] = True
            pytest.skip("blocked: a test before it ran out of time, and each more would take as long")
        level, title = self.failed_level.get(place.unit.number, (place.level, ""))
        if level < place.level:
            item.stash[BLOCKED] = True
            pytest.skip(f"blocked by level {level} ({title})")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Run units before 06 without autograd's recorder: an unfinished one must not break them."""
        place = item.stash.get(PLACE, None)
        tensor: Any = sys.modules.get("tinytorch.tensor")
        early = place and last_kata(place.unit) < RECORDING_STARTS
        if not early or not hasattr(tensor, "set_recorder"):
            return (yield)
        before = tensor.set_recorder(None)
        try:
            return (yield)
        finally:
            tensor.set_recorder(before)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, Any]:
        report = yield
        place = item.stash.get(PLACE, None)
        if place is None:
            return report
        state: str = report.outcome
        if report.failed and getattr(report, "todo", None):
            state = "todo"
        elif report.skipped and item.stash.get(BLOCKED, False):
            state = "blocked"
        report.kata = {
            "unit": place.unit.number,
            "level": place.level,
            "title": place.title,
            "id": place.id,
            "state": state,
        }
        if getattr(report, "timed_out", False):
            self.stuck.add(place.unit.number)
        if report.failed:
            first = self.failed_level.setdefault(place.unit.number, (place.level, place.title))
            self.failed_level[place.unit.number] = min(first, (place.level, place.title))
        return report

    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, Any] | None:
        """Give to-dos and blocked tests a letter and a count of their own."""
        state = getattr(report, "kata", {}).get("state")
        if state == "todo":
            return "to do", "T", ("TODO", {"yellow": True})
        if state == "blocked":
            return "blocked", "b", ("BLOCKED", {"cyan": True})
        return None
