"""The package for Gradescope, unpacked and run as its documentation says."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dojo.curriculum import BY_NUMBER, ROOT
from dojo.grading.gradescope import text_of
from dojo.grading.results import FAILED, PASSED, Outcome, Part
from tests.conftest import Course
from tests.grading.cheats import WHAT_STRICT_NEEDS, strict_mode_works
from tests.grading.test_strict import STRICT

HANGS = "def double(x):\n    while True:\n        pass\n\n\nshout = str.upper\n"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="run_autograder is a bash script")


def built(course: Course, top: Path, *options: str) -> Path:
    """The zip of the course's kata 01, in `top`/source as on Gradescope."""
    done = course.dojo("gradescope", "-o", str(top / "autograder.zip"), "01", *options)
    assert done.returncode == 0, done.stderr
    subprocess.run(
        [sys.executable, "-m", "zipfile", "-e", str(top / "autograder.zip"), str(top / "source")], check=True
    )
    shutil.copy(top / "source" / "run_autograder", top / "run_autograder")
    return top


def run(top: Path, limit: str = "60", **files: str) -> dict[str, Any]:
    """Submit files, run the autograder, and read its results as Gradescope does."""
    for folder in ("submission", "results"):
        shutil.rmtree(top / folder, ignore_errors=True)
        (top / folder).mkdir()
    for name, text in files.items():
        (top / "submission" / f"{name}.py").write_text(text)
    environment = {**os.environ, "AUTOGRADER_ROOT": str(top), "TINYTORCH_PYTHON": sys.executable}
    environment |= {"TINYTORCH_LIMIT": limit, "PYTHONPATH": ""}
    done = subprocess.run(
        ["bash", "run_autograder"], cwd=top, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((top / "results" / "results.json").read_text("utf-8"))
    assert valid(results), results
    return results  # type: ignore[no-any-return]


def valid(results: dict[str, Any]) -> bool:
    """Whether it has what the specification asks for: a score of its own, or one in every test."""
    tests = results["tests"]
    assert all(0 <= test["score"] <= test["max_score"] for test in tests)
    assert all(test["status"] in ("passed", "failed") for test in tests)
    return isinstance(results.get("score"), (int, float)) or (bool(tests) and "score" not in results)


def points(results: dict[str, Any]) -> tuple[float, float]:
    tests = results["tests"]
    return sum(t["score"] for t in tests), sum(t["max_score"] for t in tests)


def test_good_hanging_and_leaving_submissions_all_get_valid_results(course: Course, tmp_path: Path) -> None:
    top = built(course, tmp_path)
    right = course.read("reference/tinytorch/setup.py")
    assert points(run(top, setup=right)) == (10.0, 10)
    left = run(top, setup="import os\nos._exit(0)\n")
    assert points(left) == (0.0, 10)
    assert left["tests"][0]["status"] == "failed"
    assert points(run(top, essay="words")) == (0.0, 10)
    settings = top / "source" / "grading.json"
    settings.write_text(settings.read_text().replace("120.0", "3"))
    hung = run(top, setup=HANGS)
    assert points(hung) == (0.0, 10)
    assert "time limit" in hung["tests"][0]["output"] or "time limit" in json.dumps(hung["extra_data"])


def test_out_of_time_there_is_still_a_valid_result(course: Course, tmp_path: Path) -> None:
    results = run(built(course, tmp_path), limit="1", setup=HANGS)
    assert results["score"] == 0
    assert "did not finish" in results["output"]


@pytest.mark.skipif(not strict_mode_works(), reason=WHAT_STRICT_NEEDS)
def test_strict_points_are_those_of_the_checks(course: Course, tmp_path: Path) -> None:
    course.write("katas/01_setup/strict.py", STRICT)
    course.seal()
    top = built(course, tmp_path, "--strict")
    assert points(run(top, setup=course.read("reference/tinytorch/setup.py"))) == (10.0, 10)
    assert points(run(top, setup="import os\nos._exit(0)\n")) == (0.0, 10)


def test_the_package_has_what_gradescope_runs_and_no_more_solutions_than_it_needs(
    course: Course, tmp_path: Path
) -> None:
    course.write("reference/mistakes/01_setup.py", "")
    assert course.dojo("gradescope", "-o", str(tmp_path / "a.zip"), "01").returncode == 0
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = set(archive.namelist())
        needed = archive.read("requirements.txt").decode().splitlines()
        modes = {name: archive.getinfo(name).external_attr >> 16 for name in ("setup.sh", "run_autograder")}
    assert {"setup.sh", "run_autograder", "requirements.txt", "course/pytest.ini"} <= names
    assert len(needed) == 6
    assert any(line.startswith("numpy>=") for line in needed)
    assert all(mode & stat.S_IXUSR for mode in modes.values())
    assert not [
        name for name in names if "reference/mistakes" in name or "02_tensor" in name or "pycache" in name
    ]


def test_points_of_a_kata_add_up_whatever_its_parts() -> None:
    parts = (Part("level 1", PASSED, 3, 3, 4), Part("level 2", FAILED, 1, 3, 2, "no"))
    outcomes = [
        Outcome("01", FAILED, parts),
        Outcome("02", "locked", words="it needs 01"),
        Outcome("03", PASSED),
    ]
    results = json.loads(text_of(outcomes, "words"))
    assert valid(results)
    assert points(results) == (
        pytest.approx(10 * (4 + 2 / 3) / 6 + 10, abs=1e-3),
        pytest.approx(30, abs=1e-3),
    )
    assert BY_NUMBER["01"].folder in results["tests"][0]["tags"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-o", "here"], "should be a file, as autograder.zip"),
        (["-o", "missing/a.zip"], "there is no folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_line(course: Course, args: list[str], words: str) -> None:
    done = course.dojo("gradescope", *args)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_scripts_end_in_good_order() -> None:
    for name in ("setup.sh", "run_autograder"):
        script = ROOT / "dojo" / "grading" / "templates" / name
        subprocess.run(["bash", "-n", str(script)], check=True)
