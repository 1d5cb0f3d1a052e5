"""`dojo verify` and `dojo manifest`: what is proven, and what proof is about."""

from __future__ import annotations

import json
import re

import pytest

from tests.conftest import Course

pytestmark = pytest.mark.timeout(60)  # each runs several suites, in turn


def words(output: str) -> list[str]:
    """`01 passed` and the like: what was said of each kata."""
    return [f"{number} {word}" for number, word in re.findall(r"^(\d\d) \w+ +(\w+)", output, re.MULTILINE)]


def test_an_empty_progress_file_is_rebuilt_from_the_stubs(course: Course) -> None:
    course.solve("01_setup", "02_tensor")
    course.write("progress.json", "")
    told = course.dojo("verify", "--all")
    assert told.returncode == 0, told.stdout
    assert words(told.stdout) == ["01 passed", "02 passed", "03 to"]
    assert "2 passed, 0 failed, 1 to do\n" in told.stdout
    assert course.passed() == {"01", "02"}
    assert "progress.json.corrupt-" in told.stdout
    assert "Next: pytest katas/03_layers" in told.stdout


def test_it_stops_at_the_first_that_fails_and_no_longer_takes_it_as_passed(course: Course) -> None:
    course.record("01_setup", "02_tensor")
    course.edit("katas/01_setup/test_1_correctness.py", "== 6", "== 7")
    course.seal()
    told = course.dojo("verify", "01", "02")
    assert told.returncode == 1
    assert words(told.stdout) == ["01 FAIL"]
    assert "0 passed, 1 failed, 1 not run" in told.stdout
    assert "double(3)" in told.stdout
    status = json.loads(course.dojo("status", "--json").stdout)
    assert status["katas"][0]["state"] == "stale"


def test_what_is_not_written_is_to_do_and_has_not_failed(course: Course) -> None:
    for args, rest in ((["--all"], ", 2 not run"), (["01"], "")):
        told = course.dojo("verify", *args)
        assert told.stdout.splitlines() == [
            "01 setup         to do: 2 tasks are not written yet, first 01.1 at stubs/tinytorch/setup.py:9",
            "",
            f"0 passed, 0 failed, 1 to do{rest}",
            "Next: pytest katas/01_setup",
        ]
        assert told.returncode == (0 if args == ["--all"] else 1)


def test_a_passed_kata_with_a_task_to_write_again_is_not_proven(course: Course) -> None:
    course.record("01_setup", "02_tensor")
    course.dojo("reset", "01.2")
    for args in ([], ["--all"]):
        told = course.dojo("verify", *args)
        assert told.returncode == 1
        assert "01 setup         to do: a task is not written yet, first 01.2 at stubs/" in told.stdout
        assert "Next: pytest katas/01_setup" in told.stdout
    assert words(course.dojo("verify", "--all", "--keep-going").stdout) == ["01 to", "02 passed", "03 to"]


def test_keep_going_goes_on(course: Course) -> None:
    course.record("01_setup", "02_tensor")
    course.write("stubs/tinytorch/setup.py", "1 +\n")
    told = course.dojo("verify", "01", "02", "--keep-going")
    assert told.returncode == 1
    assert words(told.stdout) == ["01 FAIL", "02 passed"]


def test_without_arguments_it_is_the_stale_ones(course: Course) -> None:
    course.record("01_setup", "02_tensor")
    assert "No kata is stale" in course.dojo("verify").stdout
    course.edit("stubs/tinytorch/setup.py", "x + x", "2 * x")
    # What would make the run prove less is not passed on.
    told = course.dojo("verify", env={"PYTEST_ADDOPTS": "-k shout", "TINYTORCH_IMPL": "reference"})
    assert words(told.stdout) == ["01 passed"]
    assert "No kata is stale" in course.dojo("verify").stdout


def test_a_locked_kata_says_what_comes_first(course: Course) -> None:
    told = course.dojo("verify", "02")
    assert told.returncode == 1
    assert "locked: 01 setup comes first (pytest katas/01_setup)" in told.stdout
    assert "Next: pytest katas/01_setup" in told.stdout


def test_a_suite_that_does_not_end_is_stopped(course: Course) -> None:
    course.write("stubs/tinytorch/setup.py", "while True:\n    pass\n")
    told = course.dojo("verify", "01", "--limit", "1")
    assert told.returncode == 1
    assert "stopped after 1 s" in told.stdout


def test_a_newer_progress_file_is_left_alone(course: Course) -> None:
    course.write("progress.json", '{"schema": 99}')
    refused = course.dojo("verify", "--all")
    assert refused.returncode == 1
    assert "newer dojo" in refused.stderr
    assert course.read("progress.json") == '{"schema": 99}'


def test_a_manifest_lists_every_test_and_notices_an_edit(course: Course) -> None:
    """The fixture's seal is made from the files' text, so it is an expectation for pytest's ids."""
    shipped = course.read("katas/02_tensor/manifest.json")
    assert course.dojo("manifest", "--check", "02").returncode == 0
    for options in ("-v", "-k total"):  # which would list other tests, or none
        assert course.dojo("manifest", "--check", "02", env={"PYTEST_ADDOPTS": options}).returncode == 0
    course.edit("katas/02_tensor/test_3_memory.py", "test_span_is_a_distance", "test_renamed")
    stale = course.dojo("manifest", "02", "--check")
    assert stale.returncode == 1
    assert "dojo manifest 02" in stale.stdout
    assert course.read("katas/02_tensor/manifest.json") == shipped
    assert course.dojo("manifest", "02").returncode == 0
    tests = json.loads(course.read("katas/02_tensor/manifest.json"))["tests"]
    assert tests == [
        "test_1_correctness.py::test_total_adds_up",
        "test_1_correctness.py::test_mean_is_in_the_middle",
        "test_3_memory.py::test_renamed",
    ]


def test_a_suite_that_cannot_be_collected_is_not_sealed(course: Course) -> None:
    course.write("katas/02_tensor/test_3_memory.py", "def broken(:\n")
    refused = course.dojo("manifest", "02")
    assert refused.returncode == 1
    assert "cannot collect katas/02_tensor" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_there_is_nothing_to_seal_in_an_unwritten_kata(course: Course) -> None:
    assert "katas/09_dataloader has no test_*.py" in course.dojo("manifest", "09").stderr
    assert "katas/milestones/m2_vision has no test_*.py" in course.dojo("manifest", "m2").stderr
