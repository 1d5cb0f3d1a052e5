"""Children that run one task each."""

from __future__ import annotations

import time

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
