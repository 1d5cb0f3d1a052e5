"""A milestone opens after its kata, passes offline, and is remembered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Course

SUITE = "katas/milestones/m1_inference"

OFFLINE = """\
from tinytorch.setup import double


def test_the_framework_runs():
    assert double(2) == 4
"""

REAL = """\
import pytest

from tinytorch.setup import double


@pytest.mark.real_data("mnist")
def test_the_framework_runs_on_real_data():
    assert double(2) == 4
"""

# What five passed katas leave behind, three of which the made-up course does not have.
PASS_TO_05 = """
from dojo import curriculum, progress
for kata in curriculum.KATAS[:5]:
    assert not progress.record_pass(kata, [], 0)
"""


@pytest.fixture(scope="module")
def pristine(pristine_course: Course, tmp_path_factory: pytest.TempPathFactory) -> Course:
    """A course with a milestone, of which one test needs data that is not there, and nothing passed."""
    root = tmp_path_factory.mktemp("milestone") / "root"
    shutil.copytree(pristine_course.root, root)
    course = Course(root)
    course.write(f"{SUITE}/test_1_offline.py", OFFLINE)
    course.write(f"{SUITE}/test_2_real.py", REAL)
    sealed = course.dojo("manifest", "m1")
    assert sealed.returncode == 0, sealed.stdout + sealed.stderr
    course.solve("setup", "tensor")
    return course


@pytest.fixture
def closed(pristine: Course, tmp_path: Path) -> Course:
    root = tmp_path / "closed"
    shutil.copytree(pristine.root, root)
    return Course(root)


@pytest.fixture
def opened(closed: Course) -> Course:
    done = closed.python("-c", PASS_TO_05)
    assert done.returncode == 0, done.stderr
    return closed


def nowhere(course: Course) -> dict[str, str]:
    return {"TINYTORCH_DATA": str(course.path("no-data"))}


def test_a_milestone_is_locked_until_its_kata_has_passed(closed: Course) -> None:
    run = closed.run(SUITE)
    assert run.returncode == 4
    assert f"{SUITE} is locked: you are at katas/01_setup. Next: pytest katas/01_setup" in run.stderr
    assert "m1" not in closed.run().stdout


def test_it_can_be_seen_before_on_borrowed_katas(closed: Course) -> None:
    run = closed.run(SUITE, "--borrow", env=nowhere(closed))
    assert run.returncode == 0, run.stdout
    assert "m1 inference: all green, but progress is not recorded" in run.stdout
    assert closed.progress()["milestones"] == {}


def test_a_green_run_is_recorded_though_real_data_is_missing(opened: Course) -> None:
    before = opened.run("katas/01_setup").stdout
    # The course of these tests has no further kata to write.
    assert f"Next: milestone m1 inference: pytest {SUITE}" in before
    assert "0 of 4 milestones" in before
    run = opened.run(SUITE, env=nowhere(opened))
    assert run.returncode == 0, run.stdout
    assert "Milestone m1 inference is reached" in run.stdout
    assert "1 of 4 milestones" in run.stdout
    assert "Next: milestone" not in run.stdout
    assert "2 real         skipped  0/1" in run.stdout
    assert "skipped: " in run.stdout
    assert "dojo data" in run.stdout
    record = opened.progress()["milestones"]["m1"]
    assert record["time"].endswith("Z")
    assert set(record["needs"]) == {"01", "02", "03", "04", "05"}
    status = opened.dojo("status").stdout
    assert next(line for line in status.splitlines() if "m1 inference" in line).split()[2] == "passed"
    assert "is reached" not in opened.run(SUITE).stdout


def test_tests_on_real_data_are_not_sealed(opened: Course) -> None:
    sealed = json.loads(opened.read(f"{SUITE}/manifest.json"))["tests"]
    assert sealed == ["test_1_offline.py::test_the_framework_runs"]


def test_a_run_of_real_data_alone_is_a_partial_one(opened: Course) -> None:
    assert opened.run(SUITE, "-k", "real_data", env=nowhere(opened)).returncode == 0
    assert opened.progress()["milestones"] == {}


def test_a_failure_is_not_recorded_and_says_what_to_read(opened: Course) -> None:
    opened.edit("stubs/tinytorch/setup.py", "return x + x", "return x")
    run = opened.run(SUITE)
    assert run.returncode == 1
    assert f"Read: {SUITE}/README.md" in run.stdout
    assert "2 real         blocked  0/1" in run.stdout
    assert opened.progress()["milestones"] == {}


def test_an_edited_record_is_not_the_suite_that_was_sealed(opened: Course) -> None:
    """What a milestone expects may stand in a JSON file beside its tests."""
    opened.write(f"{SUITE}/models/recorded.json", "{}")
    run = opened.run(SUITE)
    assert "its suite was edited" in run.stdout
    assert f"git checkout {SUITE}" in run.stdout
    assert opened.progress()["milestones"] == {}
