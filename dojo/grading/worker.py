"""The grader's side of a worker: it asks, clocks and weighs, and believes nobody but the kernel."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dojo.grading import frames
from dojo.grading.frames import Broken
from dojo.grading.leash import TOKEN, Leash, end_stragglers

if TYPE_CHECKING:
    import numpy as np

    from dojo.grading.sandbox import Cell

BEGIN = 60.0  # seconds of the clock to import numpy, on a busy machine
IMPORT = 20.0  # seconds of processor time to import the student's modules; the slowest takes a twentieth
PATIENCE = 5.0  # seconds of the clock beyond twice the processor time that is allowed
GLANCE = 0.2  # seconds between two looks at the processor time that the worker has used
TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
GO = b"\0"


class Refusal(Exception):
    """The worker's own words for why there is no answer: an exception of the student's."""


@dataclass(frozen=True)
class Reply:
    """What came back, and what the kernel says that it took."""

    array: np.ndarray
    seconds: float  # of processor time
    megabytes: float | None  # the most memory held at once, beyond what numpy itself takes


class Worker:
    """A process that answers questions.  As a context, it ends with everything that it has started."""

    def __init__(self, cell: Cell, leash: Leash | None = None) -> None:
        self._leash, self._token, self._user = leash or Leash(), secrets.token_hex(8), cell.user
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._child = subprocess.Popen(
            cell.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            cwd="/",
            env={TOKEN: self._token, "PATH": os.environ.get("PATH", os.defpath)},
            start_new_session=True,
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._in, self._out = self._child.stdin.fileno(), self._child.stdout.fileno()
        os.set_blocking(self._in, False)
        self._pid: int | None = None
        self._base = 0

    def __enter__(self) -> Worker:
        self._leash.hold(self._child)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._child.stdin.close()  # type: ignore[union-attr]
            self._child.wait(GLANCE)  # so that its processor time is counted as ours
        with contextlib.suppress(OSError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        end_stragglers(self._token, self._user)
        for pipe in (self._child.stdin, self._child.stdout, self._words):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        self._leash.release(self._child)

    def begin(self) -> None:
        """Have it import numpy, weigh it, and have it import the student's modules.

        Raises:
            OSError: it could not even import numpy, which is this machine's fault.
            Refusal, Broken: the student's modules could not be imported.
        """
        deadline = time.monotonic() + BEGIN
        try:
            self._message(deadline)
        except (Broken, Refusal) as error:
            self._words.seek(0)
            said = self._words.read(20_000).decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise OSError(f"a worker did not start: {said or error}") from error
        self._pid = self._find()
        self._base = self._weight("VmRSS") or 0
        deadline = time.monotonic() + 2 * IMPORT + PATIENCE
        self._write(GO, deadline)
        self._message(deadline, self._spent() + IMPORT)

    def ask(self, name: str, arrays: dict[str, np.ndarray], seconds: float) -> Reply:
        """The answer of `name(student, **arrays)`.

        Raises:
            Refusal: the student's code raised something.
            Broken: it died, ran out of time, or said what makes no sense.
        """
        if select.select([self._out], [], [], 0)[0]:
            raise Broken("it spoke, or ended, before it was asked")
        self._forget_weight()
        began = self._spent()
        # The clock is generous, for a busy machine; processor time is what is counted.
        deadline = time.monotonic() + 2 * seconds + PATIENCE
        self._write(frames.question(name, arrays), deadline)
        header, body = self._message(deadline, began + seconds)
        spent = self._spent() - began
        if spent > seconds:
            raise Broken(f"it took {spent:.1f} s of processor time; {seconds:g} are allowed")
        weight = self._weight("VmHWM")
        megabytes = (weight - self._base) / 2**20 if weight else None
        return Reply(frames.array_of(header, body), spent, megabytes)

    def _message(self, deadline: float, most: float | None = None) -> tuple[dict[str, Any], bytes]:
        header, body = frames.lengths(self._read(frames.LENGTHS.size, deadline, most))
        about = frames.header_of(self._read(header, deadline, most))
        content = self._read(body, deadline, most)
        if "error" in about:
            raise Refusal(str(about["error"]))
        return about, content

    def _read(self, size: int, deadline: float, most: float | None) -> bytes:
        content = bytearray()
        while len(content) < size:
            if select.select([self._out], [], [], GLANCE)[0]:
                more = os.read(self._out, min(size - len(content), 1 << 20))
                if not more:
                    raise Broken("it ended before it answered")
                content += more
            elif time.monotonic() > deadline or (most is not None and self._spent() > most):
                raise Broken("it did not answer in time")
        return bytes(content)

    def _write(self, content: bytes, deadline: float) -> None:
        rest = memoryview(content)
        while rest:
            if time.monotonic() > deadline:
                raise Broken("it did not listen in time")
            if select.select([], [self._in], [], GLANCE)[1]:
                try:
                    rest = rest[os.write(self._in, rest) :]
                except BrokenPipeError:
                    raise Broken("it ended before it answered") from None

    # What the kernel says.

    def _find(self) -> int:
        """The worker's number here: the innermost of the processes that lead to it."""
        pid = self._child.pid
        while children := _children(pid):
            pid = children[0]
        return pid

    def _spent(self) -> float:
        """Seconds of processor time that the worker and its ended children have used."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            stat = Path(f"/proc/{self._pid}/stat").read_bytes()
            # Behind the name, which is in brackets and may hold anything: user, system, and the children's.
            return sum(map(int, stat.rpartition(b")")[2].split()[11:15])) / TICK
        return 0.0

    def _weight(self, what: str) -> int | None:
        """Bytes of memory that it holds (VmRSS), or held at most (VmHWM)."""
        with contextlib.suppress(OSError, ValueError):
            # The name is in it as well, in which only line feeds are escaped.
            for line in Path(f"/proc/{self._pid}/status").read_bytes().split(b"\n"):
                if line.startswith(f"{what}:".encode()):
                    return int(line.split()[1]) << 10
        return None

    def _forget_weight(self) -> None:
        """Start VmHWM anew; where that is not allowed it stays the most since the beginning."""
        with contextlib.suppress(OSError):
            Path(f"/proc/{self._pid}/clear_refs").write_text("5")


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
