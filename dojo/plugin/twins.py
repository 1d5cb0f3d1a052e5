"""A naive version that a budget lets through is about the budget, or a busy machine, and not about the code.

So a twin that was not caught is told, and not held against a student.  Where the reference is under test, and
so in `dojo check`, it fails as any test does.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from dojo import compose
from dojo.plugin.explain import is_from_the_code
from dojo.plugin.units import unit_of

TWIN = "test_the_twin_"  # how the name of a test begins that runs a naive version against a budget


class Twins:
    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, Any]:
        report = yield
        if report.failed and call.excinfo and item.name.startswith(TWIN) and unit_of(item.path):
            error, reference = call.excinfo.value, compose.Composition("reference")
            told = isinstance(error, AssertionError) and not is_from_the_code(error)
            if told and compose.current() != reference:
                report.outcome, report.longrepr = "passed", None
                report.missed = (str(error) or "a naive version was not caught").partition("\n")[0]
        return report
