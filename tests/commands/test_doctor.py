"""`dojo doctor`: each thing that can be wrong is found, and nothing is found where all is well."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from dojo.commands import doctor
from tests.conftest import HERE, Course


def findings(output: str, verdict: str) -> list[str]:
    """The findings of one kind, each on one line."""
    joined = output.replace("\n      ", " ")
    return [line[6:] for line in joined.splitlines() if line.startswith(verdict + " ")]


def test_a_sound_course_has_nothing_to_fix(course: Course) -> None:
    told = course.dojo("doctor")
    assert findings(told.stdout, "FIX") == []
    assert told.returncode == 0, told.stdout
    assert "Everything that the katas need is in order." in told.stdout
    assert len(findings(told.stdout, "ok")) >= 10


def test_it_finds_what_is_wrong_with_the_files(course: Course) -> None:
    course.path("stubs/tinytorch/tensor.py").unlink()
    course.edit("katas/01_setup/test_1_correctness.py", "== 6", "== 7")
    course.write("katas/03_layers/manifest.json", "{")
    course.write("progress.json", "<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> theirs\n")
    course.path("conftest.py").unlink()
    told = course.dojo("doctor")
    assert told.returncode == 1
    wrong = findings(told.stdout, "FIX")
    for number, text in enumerate(
        [
            "dojo reset 02",
            "git checkout katas/01_setup",
            "katas/03_layers/manifest.json",
            "git checkout conftest.py",
            "unfinished git merge",
        ]
    ):
        assert text in wrong[number]
    assert len(wrong) == 5
    assert "5 to fix" in told.stdout


def test_it_finds_missing_and_old_packages(course: Course) -> None:
    course.edit("pyproject.toml", '"numpy>=2.1"', '"numpy>=99",\n    "no-such-package>=1"')
    wrong = findings(course.dojo("doctor").stdout, "FIX")
    assert len(wrong) == 2
    assert wrong[0].startswith("numpy is ")
    assert ">=99" in wrong[0]
    assert wrong[1].startswith("no-such-package is not installed: `python -m pip install -e ")


def test_it_finds_an_old_python(course: Course) -> None:
    course.edit("pyproject.toml", '">=3.10"', '">=3.99"')
    (wrong,) = findings(course.dojo("doctor").stdout, "FIX")
    assert "the katas need >=3.99" in wrong


def test_it_finds_another_clone_and_another_tinytorch(course: Course, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(course.path("stubs"), other / "stubs")
    (other / "dojo").mkdir()
    (other / "dojo" / "curriculum.py").touch()
    # The dojo of `course`, as an environment of its own would have it, typed in the other clone.
    path = f"{course.root}{':' if sys.platform != 'win32' else ';'}{other / 'stubs'}"
    program = "import sys; sys.path.pop(0); from dojo.cli import main; sys.exit(main(['doctor']))"
    told = course.python("-c", program, cwd=other, env={"PYTHONPATH": path})
    assert told.returncode == 1
    wrong = findings(told.stdout, "FIX")
    assert f"this dojo is from {course.root}, but you are in {other}" in wrong[0]
    assert str(other / "stubs" / "tinytorch" / "__init__.py") in wrong[1]


@pytest.mark.parametrize(
    ("name", "verdict"), [("TINYTORCH_IMPL", "note"), ("PYTHONOPTIMIZE", "FIX"), ("PYTEST_ADDOPTS", "note")]
)
def test_it_finds_variables_that_change_what_a_run_proves(name: str, verdict: str) -> None:
    first, *_ = doctor.variables({name: "reference"})
    assert first.verdict == verdict
    assert first.text.startswith(f"{name}=reference")
    assert [finding.verdict for finding in doctor.variables({})] == ["ok"]


def test_it_reads_what_pyproject_asks_for() -> None:
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on
    text = (HERE / "pyproject.toml").read_text("utf-8")
    project = tomllib.loads(text)["project"]
    found = doctor.requirements(text)
    assert found.python == project["requires-python"]
    assert [name + wanted for name, wanted in found.packages.items()] == project["dependencies"]
