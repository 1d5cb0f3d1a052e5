"""Tests that need a data set which has to be downloaded: skipped, with the way to get it, where it is not."""

from __future__ import annotations

import pytest

MARK = "real_data"


class RealData:
    def __init__(self, config: pytest.Config) -> None:
        config.addinivalue_line(
            "markers", f"{MARK}(name): needs a downloaded data set, and is skipped where it is not there"
        )

    @pytest.hookimpl
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        for mark in item.iter_markers(MARK):
            if reason := why_missing(mark.args[0]):
                pytest.skip(reason)


def why_missing(name: str) -> str:
    """Why a data set cannot be read, and what to type; empty if it is there."""
    from dojo.datasets import available

    return "" if available(name) else f"{name} is not on this computer: `dojo data {name}` downloads it"
