"""`dojo check`: what it runs, what it says, and its exit status."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time

import pytest

from dojo.authoring.checks import CHECKS
from dojo.commands import check
from dojo.curriculum import find
from tests.authoring.conftest import MISTAKES, SUITE
from tests.conftest import Course


def test_a_finished_kata_has_one_problem_for_one_fault(finished: Course) -> None:
    finished.edit(f"{SUITE}/hints.md", "3. The key line of shout", "And the key line of shout")
    done = finished.dojo("check", "1")
    *lines, title, problem = done.stdout.splitlines()
    assert done.returncode == 1, done.stdout
    assert title == "1 problem:"
    assert problem.startswith(
        "  01 setup: katas/01_setup/hints.md: 01.2 has 2 hints; it needs a list from 1."
    )
    assert [line for line in lines if "FAIL" in line] == ["  three hints a task                 FAIL (1)"]
    assert "  blank stub red, with to-do lines   ok" in lines
    assert sum(line.endswith("  ok") for line in lines) == len(CHECKS) - 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="mutants need os.fork")
def test_coverage_and_mutants_of_a_finished_kata(finished: Course) -> None:
    done = finished.dojo("check", "01", "--coverage", "--mutants")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "01 setup: every line and branch of the reference is reached: ok" in done.stdout
    assert "01 setup: 3 of 3 mutants caught (100.0%), 0 survivors explained, 0 not; " in done.stdout
    assert done.stdout.endswith("everything holds\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "basics"),
        ("--mistakes", "mistakes"),
        ("--mutants --coverage", "coverage mutants"),
        ("--alternatives --load 3", "alternatives load"),
        ("--all", "basics mistakes coverage mutants_if_possible"),
        ("--all --load 3", "basics mistakes coverage mutants_if_possible load"),
        ("--all --mutants --alternatives", "basics mistakes coverage mutants"),
    ],
)
def test_what_is_asked_for_is_run(words: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name in [name for name in vars(check) if name.startswith("check_")]:
        short = name.removeprefix("check_")
        monkeypatch.setattr(check, name, lambda *_, short=short: asked.append(short) or [])
    monkeypatch.setattr(check, "written", lambda katas: [find("01")])
    monkeypatch.setattr(check, "MILESTONES", ())
    parser = argparse.ArgumentParser()
    check.add_arguments(parser)
    assert check.run(parser.parse_args(words.split())) == 0
    assert asked == expected.split()


def test_the_parts_of_a_check_are_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(check, "check_basics", lambda unit: asked.append(unit.number) or [])
    monkeypatch.setattr(check, "written", lambda katas: [find(number) for number in ("01", "02", "03")])
    monkeypatch.setattr(check, "MILESTONES", ())
    parser = argparse.ArgumentParser()
    check.add_arguments(parser)
    for part in ("--shard 1/2", "--shard 2/2"):
        assert check.run(parser.parse_args(part.split())) == 0
    assert asked == ["01", "03", "02"]


@pytest.mark.parametrize("words", ["0/2", "3/2", "2", "a/b"])
def test_a_part_that_is_none_is_refused(words: str, finished: Course) -> None:
    done = finished.dojo("check", "--shard", words)
    assert done.returncode == 2
    assert f"'{words}' is not a part such as 1/2" in done.stderr


def test_a_part_of_too_few_is_refused(finished: Course) -> None:
    done = finished.dojo("check", "01", "--shard", "2/2")
    assert done.returncode == 2
    assert "shard 2/2 of 1 is empty" in done.stderr


def test_load_counts_what_went_wrong(finished: Course) -> None:
    finished.edit(f"{SUITE}/test_3_memory.py", "DOUBLE.catches(4)", "DOUBLE.catches(3)")
    # Levels 1 and 2 are not asked: were they, this would block the others.
    finished.edit(f"{SUITE}/test_1_correctness.py", "== 6", "== 7")
    finished.path(f"{SUITE}/test_4_speed.py").unlink()
    done = finished.dojo("check", "01", "--load", "1")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[2].split() == ["idle", "1", "2", "0", "1"]
    assert lines[3].split() == ["beside", "2", "busy", "processes", "1", "2", "0", "1"]
    assert lines[-2].endswith("_is_caught, on this processor: missed 1 times in 1 runs, idle")


def test_alternatives_by_themselves(finished: Course) -> None:
    finished.path("reference/alternatives/01_setup/by_sum.py").unlink()
    done = finished.dojo("check", "setup", "--alternatives")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith("01 setup: alternatives (by_product): FAIL (1)\n")
    assert "blank stub" not in done.stdout


def test_mistakes_by_themselves(finished: Course) -> None:
    text = finished.read(MISTAKES)
    finished.write(MISTAKES, text[: text.index("@caught_by(3)")].replace("caught_by(2)", "caught_by(4)"))
    done = finished.dojo("check", "01", "--mistakes")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[2].split() == ["nothing_is_added", "1", "1", "test_double_is_twice", "ok"]
    assert lines[3].split() == ["nothing_is_something", "4", "2", "test_double_of_nothing_is_nothing", "FAIL"]
    assert (
        "nothing_is_something claims level 4, but test_2_properties.py::test_double_of_nothing" in lines[-1]
    )


def test_a_sample_of_the_mistakes(finished: Course) -> None:
    done = finished.dojo("check", "01", "--mistakes", "--every", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    title, _, *rows = done.stdout.splitlines()
    assert title == "01 setup: 3 of the mistakes"
    assert [row.split()[0] for row in rows if row][:3] == ["nothing_is_added", "shouts_quietly", "adds_4"]
    assert "everything holds" in rows


@pytest.mark.skipif(not hasattr(os, "fork"), reason="mutants need os.fork")
def test_a_red_reference_has_no_mutants(finished: Course) -> None:
    finished.edit("reference/tinytorch/setup.py", "return x + x", "return x - x")
    done = finished.dojo("check", "01", "--mutants")
    assert done.returncode == 1
    assert "not green on the reference: test_1_correctness.py::test_double_is_twice" in done.stdout


def test_mutants_say_where_they_cannot_run(finished: Course) -> None:
    finished.write(
        "dojo/__init__.py", finished.read("dojo/__init__.py") + "\nimport os\nvars(os).pop('fork', None)\n"
    )
    done = finished.dojo("check", "01", "--mutants")
    assert done.returncode == 1
    assert "mutants need os.fork" in done.stdout
    assert "on Linux or macOS" in done.stdout


def test_a_kata_is_not_a_number_of_runs(finished: Course) -> None:
    done = finished.dojo("check", "--load", "02")
    assert done.returncode == 2
    assert "say `--load 50 02`" in done.stderr


def test_an_unwritten_kata_is_refused(finished: Course) -> None:
    done = finished.dojo("check", "20")
    assert done.returncode == 1
    assert "kata 20 competition is not written yet" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_ctrl_c_leaves_nothing_behind(finished: Course) -> None:
    finished.edit(f"{SUITE}/test_3_memory.py", "DOUBLE.catches(4)", "__import__('time').sleep(9)")
    command = [sys.executable, "-m", "dojo", "check", "01", "--load", "5"]
    with subprocess.Popen(
        command, cwd=finished.root, env=finished.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        until = time.monotonic() + 20
        while not _running_in(finished):
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode == 130
    assert _running_in(finished) == []


def _running_in(course: Course) -> list[str]:
    """The pytest processes that run a suite of `course`."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                with open(f"/proc/{entry.name}/cmdline", encoding="utf-8", errors="replace") as file:
                    words = file.read().split("\0")
            except OSError:
                continue
            if "pytest" in words and any(word.startswith(str(course.root)) for word in words):
                found.append(entry.name)
    return found
