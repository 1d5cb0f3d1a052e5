"""Child processes of a grader: within limits, ended in time with all they started, and together on Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dojo.console import children

TOKEN = "DOJO_LEASH"  # an environment variable that marks a child and all that it starts
TAIL = 20_000  # bytes of output worth keeping
# Enough for every suite several times over, and little enough that one child cannot take the machine along.
MEMORY, FILE = 8 << 30, 256 << 20


class Stopped(Exception):
    """Ctrl-C came: the child was ended, and what it did is no verdict."""


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit status, None when time was up; the end of what it printed."""

    status: int | None
    output: str
    seconds: float


class Leash:
    """All children of one grading run."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[Any]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, command: Sequence[str], limit: float, env: dict[str, str], python: bool = True) -> Ended:
        """Run Python with `command` to its end, or to its limit; or, if not `python`, another program.

        Raises:
            Stopped: `stop` was called.
        """
        token, began = secrets.token_hex(8), time.monotonic()
        with tempfile.TemporaryFile() as output:
            child = self._start(command, {**env, TOKEN: token}, output.fileno(), python)
            try:
                status: int | None = child.wait(limit)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                children.end(child)
                end_stragglers(token)
                self.release(child)
            output.seek(max(0, output.seek(0, os.SEEK_END) - TAIL))
            return Ended(status, output.read().decode("utf-8", "replace"), time.monotonic() - began)

    def hold(self, child: subprocess.Popen[Any]) -> None:
        """Take over a child that was started elsewhere: it ends when this is stopped.

        Raises:
            Stopped: it is stopped already; the child was ended.
        """
        with self._lock:
            if not self._stopped:
                self._running.add(child)
                return
        child.kill()
        raise Stopped

    def release(self, child: subprocess.Popen[Any]) -> None:
        """The child has ended.

        Raises:
            Stopped: because this was stopped.
        """
        with self._lock:
            self._running.discard(child)
            if self._stopped:
                raise Stopped

    def _start(
        self, command: Sequence[str], env: dict[str, str], output: int, python: bool
    ) -> subprocess.Popen[str]:
        with self._lock:
            if self._stopped:
                raise Stopped
            options = {"env": env, "stdout": output, "stderr": subprocess.STDOUT}
            child = (children.start if python else children.launch)(command, **options)
            self._running.add(child)
        limit(child.pid)
        return child

    def stop(self) -> None:
        """End all children, and start no more."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for child in running:
            # The thread that waits for it reaps it; here it only has to die, and all of them at once.
            with contextlib.suppress(OSError):
                child.kill()


def limit(pid: int) -> None:
    """Bound what a process and its children may take, where the system lets one do that from outside."""
    if sys.platform != "linux":
        return
    import resource

    bounds = {resource.RLIMIT_AS: MEMORY, resource.RLIMIT_FSIZE: FILE, resource.RLIMIT_CORE: 0}
    with contextlib.suppress(OSError, ValueError):  # it has ended; or a lower limit holds already
        for which, most in bounds.items():
            resource.prlimit(pid, which, (most, most))


def end_stragglers(token: str, user: int | None = None) -> None:
    """Kill what left the child's process group but has its environment or, if given, its user (Linux)."""
    mark = f"{TOKEN}={token}".encode()
    proc = Path("/proc")
    if not proc.is_dir():
        return
    for entry in proc.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                marked = mark in (entry / "environ").read_bytes().split(b"\0")
                if marked or entry.stat().st_uid == user:
                    os.kill(int(entry.name), signal.SIGKILL)
