"""One mistake can fail a dozen tests in the same way: two of them are shown, and the others named.

Of test files that cannot be imported, all because of one line of a stub, one is shown.
"""

from __future__ import annotations

from typing import Any

import pytest

SHOWN = 2
NAMED = 6


class Alike:
    """Folds failures that `explain` found to have one cause, in the process that prints them."""

    def __init__(self) -> None:
        self.shown: dict[str, list[Any]] = {}
        self.folded: dict[str, list[str]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        cause = getattr(report, "alike", None)
        if cause is None:
            return
        shown = self.shown.setdefault(cause, [])
        whole_file = getattr(report, "whole_file", False)
        if len(shown) < (1 if whole_file else SHOWN):
            shown.append(report)
        else:
            report.folded = True
            file, _, name = report.nodeid.partition("::")
            self.folded.setdefault(cause, []).append(file if whole_file else name)

    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """A category of its own, which pytest counts and does not print at length."""
        return ("failed alike", "F", "FAILED") if getattr(report, "folded", False) else None

    def pytest_sessionfinish(self) -> None:
        for cause, names in self.folded.items():
            more = [f"    {name}" for name in names[:NAMED]]
            if len(names) > NAMED:
                more.append(f"    and {len(names) - NAMED} others")
            lines = [f"{len(names)} more failed alike (`--tb=short` shows each):", *more]
            self.shown[cause][-1].longrepr += "\n\n" + "\n".join(lines)
