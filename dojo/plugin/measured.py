"""Hands what a test's budgets measured to its report."""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Any

import pytest


class Measured:
    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        report = yield
        budget: Any = sys.modules.get("dojo.measuring.budget")
        if call.when == "call" and budget is not None:
            report.measured = list(budget.RECORDED)
            budget.RECORDED.clear()
        return report
