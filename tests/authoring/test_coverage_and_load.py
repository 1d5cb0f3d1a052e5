"""Branches that a suite leaves out, and what a loaded machine does to levels 3 and 4."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dojo.authoring import branches, load, suites
from dojo.authoring.processors import processors
from dojo.authoring.suites import Outcome, SuiteRun
from dojo.curriculum import Kata
from tests.authoring.conftest import REFERENCE, SUITE
from tests.conftest import HERE, Course

GAPS = '''\
"""Tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["double", "shout"]


def double(x: int) -> int:
    if x < 1000:
        x += x
    return x


def shout(text: str) -> str:
    if text == "quietly":
        return text  # pragma: no cover
    return text.upper()
'''


def test_lines_and_branches_that_no_test_reaches_are_named(finished: Course, kata: Kata) -> None:
    finished.write(REFERENCE, GAPS)
    assert branches.coverage_problems(kata) == [
        "reference/tinytorch/setup.py:21: no test runs `return text  # pragma: no cover`",
        "reference/tinytorch/setup.py:14: no test goes from `if x < 1000:` to line 16",
    ]


def test_coverage_of_a_red_suite_says_nothing(finished: Course, kata: Kata) -> None:
    finished.edit(f"{SUITE}/test_1_correctness.py", "== 6", "== 7")
    (problem,) = branches.coverage_problems(kata)
    assert problem.startswith("test_1_correctness.py::test_double_is_twice is failed on the reference under")


def test_a_suite_that_never_imports_the_reference_is_noticed(kata: Kata) -> None:
    assert branches.read(kata, {"files": {}}) == [
        "the suite of katas/01_setup never imports reference/tinytorch/setup.py"
    ]


RED = Outcome("test_3_memory.py::test_a", 3, "failed", "too much")
MISSED = Outcome("test_4_speed.py::test_the_twin_that_loops_is_caught", 4, "failed", "too little")
UNJUDGED = Outcome("test_4_speed.py::test_b", 4, "skipped", "a profiler is running")
GREEN = Outcome("test_3_memory.py::test_c", 3, "passed")


def test_false_alarms_and_missed_twins_are_counted_apart() -> None:
    tally = load.Tally()
    for run in (SuiteRun((RED, GREEN)), SuiteRun((RED, MISSED)), SuiteRun((GREEN, UNJUDGED), "it hangs")):
        tally.add(run, "on an old one")
    assert (tally.runs, tally.tests) == (3, 5)
    assert tally.problems("idle") == [
        "test_3_memory.py::test_a, on an old one: 2 false alarms in 3 runs, idle",
        "test_4_speed.py::test_the_twin_that_loops_is_caught, on an old one: missed 1 times in 3 runs, idle",
        "test_4_speed.py::test_b, on an old one, was skipped: a profiler is running (1 of 3 runs, idle)",
        "it hangs (1 of 3 runs, idle)",
    ]


ASKS = "import numpy; print(numpy.show_config('dicts')['SIMD Extensions'].get('found', []))"


def test_numpy_takes_this_processor_for_older_ones() -> None:
    here, *older = (ast.literal_eval(suites.child(["-c", ASKS], **kind)[1]) for kind in processors().values())
    assert here == ast.literal_eval(suites.child(["-c", ASKS])[1])
    for found in older:
        assert set(found) < set(here)
        assert not any("AVX512" in name for name in found)


def test_runs_take_turns_with_the_processors(kata: Kata, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def noted(*args: object, variables: dict[str, str], **options: object) -> SuiteRun:
        told.append(variables)
        return SuiteRun((RED,))

    monkeypatch.setattr(suites, "run", noted)
    tallies = load.run(kata, 2, lambda when, number: None)
    kinds = list(processors().values())
    assert told == [kinds[0], kinds[1 % len(kinds)]] * 2
    assert f"{RED.id}, on this processor" in tallies["idle"].false_alarms


def test_busy_processes_are_busy_and_end_with_the_block() -> None:
    with pytest.raises(KeyboardInterrupt), load.busy_processes(2, seconds=60) as processes:  # noqa: PT012
        assert [process.poll() for process in processes] == [None, None]
        raise KeyboardInterrupt
    assert all(process.poll() is not None for process in processes)


def test_busy_processes_end_when_their_time_is_up() -> None:
    with load.busy_processes(1, seconds=0.2) as (process,):
        assert process.wait(timeout=20) == 0


ORPHANS = """
import time
from dojo.authoring.load import busy_processes
with busy_processes(2, 60) as processes:
    print(*(process.pid for process in processes), flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("number", [signal.SIGINT, getattr(signal, "SIGKILL", None)])
def test_busy_processes_do_not_outlive_who_started_them(number: signal.Signals) -> None:
    command = [sys.executable, "-c", ORPHANS]
    with subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.send_signal(number)
    until = time.monotonic() + 20
    while any(map(_is_alive, pids)):
        assert time.monotonic() < until, f"{pids} are still there"
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Whoever adopted it may not have asked for its exit status yet.
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
