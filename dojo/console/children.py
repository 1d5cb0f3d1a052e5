"""Child processes that can be ended for certain, with whatever they have started themselves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from dojo.curriculum import ROOT

LIMIT = 120.0  # seconds for a whole suite, a few times what the slowest takes on two busy cores
GRACE = 1.0  # seconds to leave in good order after being asked to


def start(args: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """Start Python at the repository's root, in a process group of its own, with nothing to read.

    Ctrl-C in the terminal reaches this process alone, which then ends the child with `end`.
    """
    return launch([sys.executable, *args], **options)


def launch(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """The same for any program."""
    if sys.platform == "win32":
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP
    else:
        options["start_new_session"] = True
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, text=True, **options)


def end(child: subprocess.Popen[str]) -> None:
    """End `child`, politely first, and whatever is left of its group.

    Call it soon after the child has ended by itself, too: later its number may be another's.
    """
    if sys.platform == "win32":
        if child.poll() is None:
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(child.pid)], capture_output=True, check=False)
        child.wait()
        return
    if child.poll() is None:
        _signal_group(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
    _signal_group(child.pid, signal.SIGKILL)
    child.wait()


def _signal_group(group: int, number: int) -> None:
    if sys.platform == "win32":
        raise OSError("Windows has no process groups to signal")
    # macOS answers PermissionError for a group of which only zombies are left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def run(args: Sequence[str], limit: float, env: Mapping[str, str] = os.environ) -> tuple[int | None, str]:
    """Run Python to its end: its exit status and all it printed.  The status is None when time was up."""
    child = start(
        args,
        env={**env, "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    try:
        output, _ = child.communicate(timeout=limit)
        return child.returncode, output
    except subprocess.TimeoutExpired:
        end(child)
        return None, _rest(child)
    finally:
        end(child)


def _rest(child: subprocess.Popen[str]) -> str:
    """What an ended child has printed; a grandchild that got away may keep the pipe open, so not for long."""
    try:
        return child.communicate(timeout=GRACE)[0]
    except subprocess.TimeoutExpired as stuck:
        return (stuck.output or b"").decode("utf-8", "replace") if isinstance(stuck.output, bytes) else ""
