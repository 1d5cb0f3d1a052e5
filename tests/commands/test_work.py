"""`dojo reset`, `dojo diff` and `dojo stubs`: none of them loses or gives away a student's work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import FILES, Course

STUB = "stubs/tinytorch/tensor.py"
BLANK = FILES[STUB]


def saved(course: Course) -> list[Path]:
    return sorted(course.path(".dojo/saved").glob("*"))


def test_reset_keeps_the_old_file_and_writes_the_blank_stub(course: Course) -> None:
    mine = BLANK.replace('raise NotImplementedError("kata 02.1: total")', "return 0  # mine, \u00e9")
    course.write(STUB, mine)
    told = course.dojo("reset", "02")
    assert told.returncode == 0, told.stderr
    assert course.read(STUB) == BLANK
    (kept,) = saved(course)
    assert kept.read_text("utf-8") == mine
    assert kept.relative_to(course.root).as_posix() in told.stdout


def test_reset_of_a_blank_stub_does_nothing(course: Course) -> None:
    told = course.dojo("reset", "02")
    assert told.returncode == 0
    assert "nothing to do" in told.stdout
    assert saved(course) == []


def test_reset_knows_a_blank_stub_by_windows_line_endings_too(course: Course) -> None:
    for folder in ("reference", "stubs"):
        file = course.path(f"{folder}/tinytorch/tensor.py")
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert "nothing to do" in course.dojo("reset", "02").stdout


def test_reset_brings_a_missing_stub_back(course: Course) -> None:
    course.path(STUB).unlink()
    assert course.dojo("reset", "tensor").returncode == 0
    assert course.read(STUB) == BLANK


def test_reset_of_one_task_leaves_the_others(course: Course) -> None:
    course.solve("02_tensor")
    mine = course.read(STUB)
    told = course.dojo("reset", "02.3")
    assert told.returncode == 0, told.stderr
    solved, blank = mine.splitlines(), BLANK.splitlines()
    at = next(i for i, line in enumerate(blank) if "def span" in line)
    assert course.read(STUB).splitlines()[:at] == solved[:at]
    assert course.read(STUB).splitlines()[at:] == blank[at:]
    assert saved(course)[0].read_text("utf-8") == mine
    assert "nothing to do" in course.dojo("reset", "02.3").stdout


def test_reset_of_one_task_counts_lines_as_python_does(course: Course) -> None:
    course.solve("02_tensor")
    mine = course.write(STUB, "\f\n" + course.read(STUB)).read_text("utf-8")
    assert course.dojo("reset", "02.3").returncode == 0
    before, _, _ = mine.partition("        # kata 02.3")
    assert course.read(STUB).startswith(before)


def test_reset_of_one_task_needs_a_file_that_python_can_read(course: Course) -> None:
    course.write(STUB, "def total(:\n")
    refused = course.dojo("reset", "02.1")
    assert refused.returncode == 1
    assert f"{STUB}:1: " in refused.stderr
    assert "dojo reset 02" in refused.stderr
    assert course.read(STUB) == "def total(:\n"


def test_reset_of_one_task_needs_its_function(course: Course) -> None:
    course.write(STUB, "x = 1\n")
    refused = course.dojo("reset", "02.1")
    assert refused.returncode == 1
    assert "total" in refused.stderr
    assert course.read(STUB) == "x = 1\n"


def test_reset_of_an_unwritten_kata_is_refused(course: Course) -> None:
    refused = course.dojo("reset", "07")
    assert refused.returncode == 1
    assert refused.stderr == "dojo: kata 07 spatial is not written yet; the course has 01 to 03 so far\n"


def test_diff_waits_for_the_pass(course: Course) -> None:
    refused = course.dojo("diff", "02")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "pytest katas/02_tensor" in refused.stderr
    assert "return sum(numbers)" in course.dojo("diff", "02", "--force").stdout


def test_diff_shows_mine_beside_the_reference(course: Course) -> None:
    course.record("01_setup")
    assert "is the same as" in course.dojo("diff", "01").stdout
    course.edit("stubs/tinytorch/setup.py", "return x + x", "return 2 * x")
    told = course.dojo("diff", "01").stdout
    assert "\n-    return 2 * x\n" in told
    assert "\n+    return x + x\n" in told


def test_stubs_are_written_from_the_references(course: Course) -> None:
    assert course.dojo("stubs", "--check").returncode == 0
    course.edit("reference/tinytorch/tensor.py", "start from nothing", "begin")
    stale = course.dojo("stubs", "--check")
    assert stale.returncode == 1
    assert STUB in stale.stdout
    assert course.dojo("stubs", "--check", "01").returncode == 0
    assert course.dojo("stubs").returncode == 0
    assert course.read(STUB) == BLANK.replace("start from nothing", "begin")


def test_stubs_saves_work_aside_where_git_does_not_have_it(course: Course) -> None:
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@localhost", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "as shipped"]):
        subprocess.run([*git, *arguments], cwd=course.root, check=True, capture_output=True)
    course.edit("reference/tinytorch/setup.py", "add it to itself", "twice")
    course.edit("reference/tinytorch/tensor.py", "start from nothing", "begin")
    course.edit(STUB, 'raise NotImplementedError("kata 02.1: total")', "return 1")
    mine = course.read(STUB)
    told = course.dojo("stubs")
    assert told.returncode == 0, told.stderr
    assert "wrote stubs/tinytorch/setup.py" in told.stdout
    assert [kept.read_text("utf-8") for kept in saved(course)] == [mine]
    assert f"{STUB} holds work" in told.stdout


def test_stubs_saves_a_passed_solution_aside_although_git_has_it(course: Course) -> None:
    course.record("01_setup")
    mine = course.read("stubs/tinytorch/setup.py")
    course.dojo("stubs", "01")
    assert [kept.read_text("utf-8") for kept in saved(course)] == [mine]
    assert course.read("stubs/tinytorch/setup.py") == FILES["stubs/tinytorch/setup.py"]


def test_a_misplaced_mark_is_named_by_its_line(course: Course) -> None:
    course.edit("reference/tinytorch/setup.py", "# kata 01.1", "# kata 02.1")
    refused = course.dojo("stubs")
    assert refused.returncode == 1
    assert "reference/tinytorch/setup.py:8: " in refused.stderr
    assert "Traceback" not in refused.stderr


if sys.platform != "win32":

    def test_reset_asks_at_a_terminal(course: Course) -> None:
        course.solve("02_tensor")
        mine = course.read(STUB)
        status, shown = course.typed("reset", "02", keys="n\n")
        assert status == 1
        assert "the whole of stubs/tinytorch/tensor.py? [y/N]" in shown
        assert "Nothing was changed." in shown
        assert course.read(STUB) == mine
        assert course.typed("reset", "02", keys="y\n")[0] == 0
        assert course.read(STUB) == BLANK
        course.write(STUB, mine)
        assert course.typed("reset", "02", "--yes")[0] == 0
        assert course.read(STUB) == BLANK

    def test_diff_is_beside_each_other_in_a_wide_terminal(course: Course) -> None:
        course.record("01_setup")
        course.edit("stubs/tinytorch/setup.py", "return x + x", "return 2 * x")
        _, wide = course.typed("diff", "01", COLUMNS="160")
        (line,) = (line for line in wide.splitlines() if "return 2 * x" in line)
        assert "return x + x" in line
        for options, columns in ((["--unified"], "160"), ([], "100")):
            _, shown = course.typed("diff", "01", *options, COLUMNS=columns)
            assert "-    return 2 * x" in shown
            assert "+    return x + x" in shown
