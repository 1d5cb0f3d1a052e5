"""What a stub must not do to the run: leave the process, or never come back."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pytest_timeout import is_debugging

from dojo.plugin.units import unit_of

AGAIN = 1.0  # seconds between two rings of the alarm
GRACE = 5.0  # seconds past pytest-timeout's limit; what ignores its signal is killed then


class TimeUp(BaseException):
    """A test ran out of time.

    Hypothesis takes pytest-timeout's own exception for a failing example, and goes on to shrink it: one more
    run of the endless loop, with no alarm left.  What is not an Exception it lets through.
    """


class Limits:
    """Turns `os._exit` into a failure, and kills the run when a test cannot be interrupted.

    pytest-timeout stops an ordinary endless loop.  A loop that swallows every exception, or one inside C,
    outlives it; faulthandler then prints where it is and ends the process.
    """

    def __init__(self, config: pytest.Config) -> None:
        # Before capturing starts, so that the last words reach the terminal.
        self.stderr = os.fdopen(os.dup(2), "w")
        self.calling = False  # whether a test's body is running
        self.seconds = 0.0 if config.getoption("usepdb") else _timeout(config)

    def pytest_unconfigure(self) -> None:
        self.stderr.close()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        if unit_of(item.path) is None:
            return (yield)
        seconds = self.seconds and allowed(item, self.seconds)
        # A debugger stops for as long as it likes.
        if seconds and not sys.gettrace():
            faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=self.stderr)
        try:
            with no_way_out():
                return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: Any) -> bool | None:
        """Take pytest-timeout's alarm over, where there is one, to raise TimeUp."""
        if settings.method != "signal" or unit_of(item.path) is None:
            return None

        def ring(number: int, frame: object) -> None:
            if self.calling and not is_debugging():
                raise TimeUp(f"no answer after {settings.timeout:g} s")

        signal.signal(signal.SIGALRM, ring)
        # It rings again, since Python swallows what is raised in a callback of the garbage collector.
        signal.setitimer(signal.ITIMER_REAL, settings.timeout, AGAIN)
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, Any, Any]:
        self.calling = True
        try:
            return (yield)
        finally:
            self.calling = False

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_timeout_cancel_timer(self, item: pytest.Item) -> bool | None:
        if not hasattr(signal, "setitimer") or unit_of(item.path) is None:
            return None
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        return None  # pytest-timeout has its own to cancel

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Generator[None, Any, Any]:
        if unit_of(collector.path) is None:
            return (yield)
        with no_way_out():
            return (yield)


def _timeout(config: pytest.Config) -> float:
    given = getattr(config.option, "timeout", None)
    return float(given if given is not None else config.getini("timeout") or 0)


def allowed(item: pytest.Item, seconds: float) -> float:
    """The time for a test: what its own `@pytest.mark.timeout(60)` says, or `seconds`."""
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark and mark.args else seconds


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
