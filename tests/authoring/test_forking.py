"""Children that run one task each."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dojo.authoring import forking
from dojo.authoring.forking import Task

pytestmark = pytest.mark.skipif(not forking.POSSIBLE, reason="needs os.fork")


def test_giving_up_leaves_those_alone_that_ended_at_the_same_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was waited for is gone, and its number may be another's."""
    sleep = time.sleep

    def give_up(task: Task, ending: forking.Ending) -> list[Task]:
        raise ValueError(f"task {task.mutant} ended with {ending.status}")

    def work(task: Task, page: forking.Page) -> int:
        sleep(0.05)
        return 7

    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(0.5))  # so that both have ended when it looks
    with pytest.raises(ValueError, match="ended with 7"):
        forking.run_tasks([Task(1, ()), Task(2, ())], 2, work, lambda task: 1.0, give_up)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can tell")
def test_a_child_that_waits_for_nothing_is_ended_long_before_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forking, "IDLE", 0.3)
    monkeypatch.setattr(forking, "WALL", 1e6)  # so that it is not this that ends it
    endings = []

    def work(task: Task, page: forking.Page) -> int:
        lock = threading.Lock()
        with lock:
            lock.acquire()
        return 0

    def settle(task: Task, ending: forking.Ending) -> list[Task]:
        endings.append(ending.status)
        return []

    forking.run_tasks([Task(1, ())], 1, work, lambda task: 1.0, settle)
    assert endings == [forking.ENDLESS]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can tell")
def test_a_child_that_works_now_and_then_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forking, "IDLE", 0.3)
    endings = []

    def work(task: Task, page: forking.Page) -> int:
        for _ in range(8):
            time.sleep(0.1)
            until = time.process_time() + 0.03  # three ticks of the clock that the system tells
            while time.process_time() < until:
                pass
        return 7

    def settle(task: Task, ending: forking.Ending) -> list[Task]:
        endings.append(ending.status)
        return []

    forking.run_tasks([Task(1, ())], 1, work, lambda task: 1.0, settle)
    assert endings == [7]


def test_a_child_cannot_write_to_what_its_parent_has_open() -> None:
    """As to the pipe through which the parent reports: a mutant may write to any number."""
    endings = []
    reader, writer = os.pipe()

    def work(task: Task, page: forking.Page) -> int:
        os.write(writer, b"noise")
        return 0

    def settle(task: Task, ending: forking.Ending) -> list[Task]:
        endings.append(ending.status)
        return []

    forking.run_tasks([Task(1, ())], 1, work, lambda task: 1.0, settle)
    os.close(writer)
    with open(reader, "rb") as pipe:
        assert pipe.read() == b""
    assert endings == [forking.BROKEN]


def test_what_a_child_has_started_does_not_outlive_it(tmp_path: Path) -> None:
    """A pipe is at its end when nobody is left who could write to it; until then it waits."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)

    def work(task: Task, page: forking.Page) -> int:
        with open(tmp_path / "pipe", "wb") as out:
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)"], stdout=out)
        return 7

    forking.run_tasks([Task(1, ())], 1, work, lambda task: 1.0, lambda task, ending: [])
    os.set_blocking(reader, True)
    with open(reader, "rb") as pipe:
        assert pipe.read() == b""
