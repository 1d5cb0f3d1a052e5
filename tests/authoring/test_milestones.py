"""`dojo check` of a milestone: green on the reference, red on blank stubs, its mistakes caught."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import Course

SUITE = "katas/milestones/m1_inference"
MISTAKES = "reference/mistakes/m1_inference.py"

OFFLINE = """\
from tinytorch.setup import double


def test_the_framework_runs():
    assert double(2) == 4
"""

REAL = """\
import pytest

from tinytorch.tensor import total


@pytest.mark.real_data("mnist")
def test_the_framework_runs_on_real_data():
    assert total([1.0, 2.0]) == 3.0
"""

SPOILED = """\
from dojo.mistakes import caught_by


def adds(number):
    @caught_by(1, kata="01")
    def adds_too_much(m):
        m.double = lambda x: 2 * x + number

    return adds_too_much


adds_1, adds_2, adds_3, adds_4, adds_5 = map(adds, range(1, 6))
"""


@pytest.fixture(scope="module")
def pristine(pristine_course: Course, tmp_path_factory: pytest.TempPathFactory) -> Course:
    root = tmp_path_factory.mktemp("milestone") / "root"
    shutil.copytree(pristine_course.root, root)
    course = Course(root)
    course.write(f"{SUITE}/README.md", "# Milestone\n")
    course.write(f"{SUITE}/test_1_offline.py", OFFLINE)
    course.write(f"{SUITE}/test_2_real.py", REAL)
    course.write(MISTAKES, SPOILED)
    sealed = course.dojo("manifest", "m1")
    assert sealed.returncode == 0, sealed.stdout + sealed.stderr
    return course


@pytest.fixture
def course(pristine: Course, tmp_path: Path) -> Course:
    root = tmp_path / "course"
    shutil.copytree(pristine.root, root)
    return Course(root)


def check(course: Course, *args: str) -> tuple[int, str]:
    done = course.dojo("check", *args, env={"TINYTORCH_DATA": str(course.path("no-data"))})
    return done.returncode, done.stdout + done.stderr


def test_a_finished_milestone_has_no_problem(course: Course) -> None:
    status, out = check(course, "m1")
    assert status == 0, out
    assert "m1 inference: Pretrained networks on your framework" in out
    assert out.endswith("everything holds\n")


def test_what_is_wrong_with_one_is_said(course: Course) -> None:
    course.write(f"{SUITE}/test_1_offline.py", OFFLINE + "\n\ndef test_of_nothing():\n    pass\n")
    assert course.dojo("manifest", "m1").returncode == 0
    course.edit(f"{SUITE}/test_1_offline.py", "== 4", "== 5")
    course.path(f"{SUITE}/README.md").unlink()
    course.edit(MISTAKES, "adds_4, adds_5 = map(adds, range(1, 6))", "adds_4 = map(adds, range(1, 5))")
    status, out = check(course, "m1")
    assert status == 1
    for problem in (
        "test_the_framework_runs is failed on the reference",
        "test_1_offline.py::test_of_nothing passes on blank stubs",
        f"{SUITE}/manifest.json is stale: run `dojo manifest m1`",
        f"{SUITE}/README.md is missing",
        f"{MISTAKES} has 4 mistakes; it needs 5",
    ):
        assert problem in out


def test_its_mistakes_name_the_kata_that_they_spoil(course: Course) -> None:
    course.write(
        MISTAKES,
        """\
from dojo.mistakes import caught_by


@caught_by(1, kata="01")
def adds_too_much(m):
    m.double = lambda x: 2 * x + 1


@caught_by(1)
def is_planted_nowhere(m):
    pass


@caught_by(1, kata="02")
def is_not_noticed(m):
    pass
""",
    )
    status, out = check(course, "m1", "--mistakes")
    assert status == 1
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.startswith("  ")}
    assert rows["adds_too_much"] == ["1", "1", "test_the_framework_runs", "ok"]
    assert rows["is_planted_nowhere"][-1] == rows["is_not_noticed"][-1] == "FAIL"
    assert 'is_planted_nowhere: it does not say which kata it spoils, as in @caught_by(1, kata="05")' in out


def test_one_that_is_not_written_is_refused(course: Course) -> None:
    assert "milestone m2 vision is not written yet" in check(course, "m2")[1]


def test_what_is_never_asked_of_a_milestone_is_refused(course: Course) -> None:
    status, out = check(course, "m1", "--coverage")
    assert status == 2
    assert "only `dojo check m1` and `dojo check --mistakes m1` have something to ask of it" in out
