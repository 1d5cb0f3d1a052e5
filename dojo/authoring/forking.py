"""Forked children: one that answers with a value, and many that run tests until one of them fails.

POSIX only.  A child costs a few milliseconds, because everything is imported already.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

POSSIBLE = hasattr(os, "fork")
PAGE = 4096
ROOM = 2 << 30  # bytes of address space that a child may add: a mutant may ask for an absurd array
WALL = 30.0  # seconds that a child may live,
PER_SECOND = 3  # and so many more for each CPU second of its limit
IDLE = 5.0  # seconds of sleep without any work, which no test needs: the child waits for what never comes
MOST_FILES = 1024  # that it may have inherited

# How a child that ran tests may end, as its exit status.
SURVIVED, CAUGHT, UNSWAPPABLE, NOT_PYTHON, BROKEN = 0, 10, 11, 12, 13
ENDLESS, CRASHED = -1, -2  # these end by a signal
HOW = {CAUGHT: "failed", ENDLESS: "never ended", CRASHED: "crashed"}


def in_child(work: Callable[[], Any]) -> Any:
    """What `work()` returns in a forked child, as JSON; this process stays as it is.

    Raises:
        RuntimeError: the child did not get to its end.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            with os.fdopen(writer, "w", encoding="utf-8") as answer:
                json.dump(_outcome(work), answer)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as answer:
        text = answer.read()
    _, status = os.waitpid(pid, 0)
    if not text:
        raise RuntimeError(f"a child process ended with status {status} and no answer")
    outcome = json.loads(text)
    if "error" in outcome:
        raise RuntimeError(outcome["error"])
    return outcome["value"]


def _outcome(work: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": work()}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


class Page:
    """A little memory shared with a child: the test it is at, and what went wrong in it."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, PAGE)

    @property
    def at(self) -> int:
        number: int = struct.unpack_from("i", self.memory)[0]
        return number

    @at.setter
    def at(self, index: int) -> None:
        struct.pack_into("i", self.memory, 0, index)

    @property
    def words(self) -> str:
        return bytes(self.memory[4:]).rstrip(b"\0").decode("utf-8", "replace")

    @words.setter
    def words(self, text: str) -> None:
        raw = text.encode("utf-8")[-(PAGE - 4) :]
        self.memory[4 : 4 + len(raw)] = raw


@dataclass(frozen=True)
class Ending:
    """How a child ended, and the number of the test that it was at; -1 while it imported and collected."""

    status: int
    at: int
    words: str = ""


@dataclass(frozen=True)
class Task:
    """A mutant, and the numbers of the tests to run against it.

    `confirming` runs a test that has just failed once more, and `rest` are the others of its task.  `last` is
    the stage of survivors: the tests of speed.
    """

    mutant: int
    tests: tuple[int, ...]
    confirming: bool = False
    rest: tuple[int, ...] = ()
    last: bool = False


def run_tasks(
    tasks: Iterable[Task],
    jobs: int,
    work: Callable[[Task, Page], int],
    seconds: Callable[[Task], float],
    settle: Callable[[Task, Ending], Iterable[Task]],
) -> None:
    """Run `work` on each task in a child, `jobs` at a time, until none is left.

    `work` returns the child's exit status; `seconds` is what it may take in CPU time, all told; `settle` gets
    the ending and may return further tasks, which come next.
    """
    waiting = deque(tasks)
    running: list[_Child] = []
    parent = os.getppid()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                task = waiting.popleft()
                running.append(_Child(task, work, WALL + PER_SECOND * seconds(task)))
            statuses = {child: status for child in running if (status := child.status()) is not None}
            # Out of `running` at once: if `settle` gives up, what has ended must not be killed again.
            running = [child for child in running if child not in statuses]
            for child, status in statuses.items():
                ending = Ending(status, child.page.at, child.page.words)
                child.page.memory.close()
                waiting.extendleft(reversed(list(settle(child.task, ending))))
            if not statuses:
                if os.getppid() != parent:
                    raise KeyboardInterrupt("the process that asked for this is gone")
                time.sleep(0.001)
    finally:
        for child in running:
            child.kill()


class _Child:
    """A forked process that is at a task."""

    def __init__(self, task: Task, work: Callable[[Task, Page], int], wall: float) -> None:
        self.task, self.page = task, Page()
        self.until = time.monotonic() + wall
        self.worked, self.since = "", time.monotonic()  # its CPU time, as the system words it, and since when
        self.pid = os.fork()
        if self.pid == 0:
            _be_child(task, self.page, work)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.end_others()

    def end_others(self) -> None:
        """Processes that it has started do not outlive it."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def status(self) -> int | None:
        """How it ended; None while it runs."""
        done, status = os.waitpid(self.pid, os.WNOHANG)
        if not done:
            if time.monotonic() <= self.until and not self.waits_for_nothing():
                return None
            self.kill()
            return ENDLESS
        self.end_others()
        if os.WIFSIGNALED(status):
            return ENDLESS if os.WTERMSIG(status) == signal.SIGPROF else CRASHED
        return os.WEXITSTATUS(status)

    def waits_for_nothing(self) -> bool:
        """Whether it has slept for IDLE seconds and done nothing, as threads do that wait for each other.

        One that has no turn because the machine is busy does not sleep. Only Linux tells without another
        process; elsewhere such a child lives until its time is up.
        """
        if sys.platform != "linux":
            return False
        state, *fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        worked = " ".join(fields[10:12])  # in user and in system mode, all threads
        if state != "S" or worked != self.worked:
            self.worked, self.since = worked, time.monotonic()
        return time.monotonic() - self.since > IDLE


def _be_child(task: Task, page: Page, work: Callable[[Task, Page], int]) -> NoReturn:
    leave, status = os._exit, BROKEN
    try:
        _contain()
        status = work(task, page)
    except (KeyboardInterrupt, SystemExit):
        status = CAUGHT
    except BaseException:
        page.words = traceback.format_exc()
    finally:
        leave(status)


def limit_cpu(seconds: float) -> None:
    """End this process by SIGPROF once it has used so much CPU time from now on; nothing can catch that."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _contain() -> None:
    """Keep a child quiet, off the whole of the memory, and in one group with all that it starts."""
    import resource

    os.setpgid(0, 0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.closerange(3, MOST_FILES)  # among them the one that its parent reports to
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + ROOM
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard == resource.RLIM_INFINITY or most <= hard:
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))
