"""What a stub must not do to the run: leave the process, or never come back."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dojo.plugin.units import unit_of

GRACE = 5.0  # seconds past pytest-timeout's limit; what ignores its signal is killed then


class Limits:
    """Turns `os._exit` into a failure, and kills the run when a test cannot be interrupted.

    pytest-timeout stops an ordinary endless loop.  A loop that swallows every exception, or one inside C,
    outlives it; faulthandler then prints where it is and ends the process.
    """

    def __init__(self, config: pytest.Config) -> None:
        # Before capturing starts, so that the last words reach the terminal.
        self.stderr = os.fdopen(os.dup(2), "w")
        self.seconds = 0.0 if config.getoption("usepdb") else _timeout(config)

    def pytest_unconfigure(self) -> None:
        self.stderr.close()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        if unit_of(item.path) is None:
            return (yield)
        # A debugger stops for as long as it likes.
        if self.seconds and not sys.gettrace():
            faulthandler.dump_traceback_later(self.seconds + GRACE, exit=True, file=self.stderr)
        try:
            with no_way_out():
                return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Generator[None, Any, Any]:
        if unit_of(collector.path) is None:
            return (yield)
        with no_way_out():
            return (yield)


def _timeout(config: pytest.Config) -> float:
    given = getattr(config.option, "timeout", None)
    return float(given if given is not None else config.getini("timeout") or 0)


@contextmanager
def no_way_out() -> Iterator[None]:
    """While it lasts, `os._exit` in this process raises SystemExit; forked children leave as they like."""
    leave, here = os._exit, os.getpid()

    def stay(status: int) -> None:
        if os.getpid() != here:
            leave(status)
        raise SystemExit(f"os._exit({status}) was called")

    os._exit = stay  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = leave
