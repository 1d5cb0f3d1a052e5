"""`dojo status` and `dojo next`: where you stand, honestly, and what to type."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

import pytest

from tests.conftest import Course


def states(told: str) -> dict[str, str]:
    """What the lines of `dojo status` say after a kata's or milestone's number and name."""
    lines = (line.split() for line in told.splitlines() if line.startswith("  "))
    return {number: " ".join(rest) for number, _, *rest in lines}


def test_a_new_course_is_open_at_01_and_locked_after_it(course: Course) -> None:
    told = course.dojo("status").stdout
    assert told.startswith("TinyTorch: 0 of 20 katas passed\n")
    expected = {"01": "open you are here", "02": "locked", "04": "not written yet", "m1": "not written yet"}
    assert expected.items() <= states(told).items()
    assert "\nNext: pytest katas/01_setup " in told


def test_every_kata_and_milestone_stands_under_its_phase(course: Course) -> None:
    told = [line.split() for line in course.dojo("status").stdout.splitlines()]
    first = [words[0].rstrip(":") for words in told if words]
    course_order = [f"{n:02}" for n in range(1, 21)]
    for at, milestone in ((20, "m4"), (15, "m3"), (10, "m2"), (5, "m1")):
        course_order.insert(at, milestone)
    for at, phase in ((0, "foundation"), (8, "vision"), (14, "language"), (21, "systems")):
        course_order.insert(at, phase)
    assert first[1:-1] == course_order


def test_a_pass_shows_when_and_an_edited_stub_shows_why(course: Course) -> None:
    course.record("01_setup", "02_tensor")
    course.edit("stubs/tinytorch/tensor.py", "sum(numbers)", "sum(numbers) + 0")
    told = states(course.dojo("status").stdout)
    century = course.progress()["katas"]["01"]["time"][:2]
    assert told["01"].startswith(f"passed {century}")
    assert told["02"].startswith("stale stubs/tinytorch/tensor.py")
    assert told["03"] == "open you are here"


def test_times_are_shown_on_the_readers_clock(course: Course) -> None:
    course.record("01_setup")
    record = course.progress()
    record["katas"]["01"]["time"] = "2026-03-09T23:30:00Z"
    course.write("progress.json", json.dumps(record))
    told = course.dojo("status", env={"TZ": "UTC-1"})  # POSIX for an hour ahead of UTC
    assert "2026-03-10 00:30" in told.stdout


def test_json_holds_everything(course: Course) -> None:
    course.record("01_setup")
    told = course.dojo("status", "--json")
    data: dict[str, Any] = json.loads(told.stdout)
    states = [entry["state"] for entry in data["katas"]]
    assert states == ["passed", "open", "locked", *["unwritten"] * 17]
    assert [entry["number"] for entry in data["milestones"]] == ["m1", "m2", "m3", "m4"]
    assert (data["current"], data["next"], data["trouble"]) == ("02", "pytest katas/02_tensor", None)
    assert data["katas"][0]["passed"] == course.progress()["katas"]["01"]["time"]


def test_a_narrow_terminal_gets_short_lines(course: Course) -> None:
    told = course.dojo("status", env={"COLUMNS": "40"}).stdout
    assert "02 tensor" in told
    # The last line is a command to type, and cannot be cut.
    assert max(len(line) for line in told.splitlines()[:-1]) <= 40


def test_output_is_plain_ascii(course: Course) -> None:
    assert course.dojo("status").stdout.isascii()
    assert course.dojo("next").stdout.isascii()


def test_next_names_the_task_the_reading_the_place_and_the_command(course: Course) -> None:
    course.record("01_setup")
    course.edit(
        "stubs/tinytorch/tensor.py", 'raise NotImplementedError("kata 02.1: total")', "return sum(numbers)"
    )
    told = course.dojo("next").stdout
    place = (
        course.read("stubs/tinytorch/tensor.py")
        .splitlines()
        .index('    raise NotImplementedError("kata 02.2: mean")')
    )
    heading = course.read("katas/02_tensor/README.md").splitlines().index("### 02.2 mean")
    assert "02 tensor: Tensors, strides and broadcasting" in told
    assert "Task 02.2 mean  (1 of 3 tasks written)" in told
    assert f"stubs/tinytorch/tensor.py:{place + 1}\n" in told
    assert f"katas/02_tensor/README.md:{heading + 1}" in told
    assert "pytest katas/02_tensor" in told
    assert "dojo hint 02.2" in told


def test_next_doubts_what_is_written_but_not_what_is_not(course: Course) -> None:
    doubt = "Run pytest katas/01_setup to see whether what you wrote is right\n"
    assert doubt not in course.dojo("next").stdout
    course.edit("stubs/tinytorch/setup.py", 'raise NotImplementedError("kata 01.1: double")', "return 7")
    told = course.dojo("next").stdout
    assert "Task 01.2 shout  (1 of 2 tasks written)\n" + doubt in told


def test_next_goes_back_to_a_task_that_was_reset(course: Course) -> None:
    course.record("01_setup", "02_tensor")
    again = course.dojo("reset", "01.1").stdout
    assert "Next: pytest katas/01_setup" in again
    told = course.dojo("next").stdout
    assert "Task 01.1 double  (1 of 2 tasks written)" in told
    assert "Type:  pytest katas/01_setup\n" in told
    assert "dojo verify" not in told
    assert "Next: pytest katas/01_setup " in course.dojo("status").stdout

    course.record("01_setup")
    assert "Type:  pytest katas/03_layers\n" in course.dojo("next").stdout


def test_next_brings_back_the_missing_stub_of_a_passed_kata(course: Course) -> None:
    course.record("01_setup", "02_tensor", "03_layers")
    course.path("stubs/tinytorch/tensor.py").unlink()
    assert "Type:  dojo reset 02\n" in course.dojo("next").stdout


def test_next_goes_by_the_tasks_numbers_and_overlooks_comments(course: Course) -> None:
    course.write(
        "stubs/tinytorch/setup.py",
        'def b():\n    raise NotImplementedError("kata 01.10: b")\n\n'
        '# raise NotImplementedError("kata 01.1: gone")\n'
        'def a():\n    raise NotImplementedError("kata 01.2: a")\n',
    )
    assert "stubs/tinytorch/setup.py:6\n" in course.dojo("next").stdout


def test_next_asks_for_a_run_when_every_task_is_written(course: Course) -> None:
    course.solve("01_setup")
    told = course.dojo("next").stdout
    assert "Every task is written" in told
    assert "pytest katas/01_setup" in told


def test_next_says_that_the_next_kata_is_not_written_yet(course: Course) -> None:
    course.record("01_setup", "02_tensor", "03_layers")
    told = course.dojo("next").stdout
    assert "04 activations, is not written yet" in told
    assert "pytest" not in told


def test_next_proves_stale_katas_when_there_is_nothing_else(course: Course) -> None:
    course.record("01_setup", "02_tensor", "03_layers")
    course.edit("stubs/tinytorch/layers.py", "x - middle", "x - 1 * middle")
    told = course.dojo("next").stdout
    assert "stubs/tinytorch/layers.py" in told
    assert "Type:  dojo verify\n" in told


def test_next_mentions_a_stale_kata_beside_the_current_one(course: Course) -> None:
    course.record("01_setup", "02_tensor")
    course.edit("stubs/tinytorch/setup.py", "x + x", "2 * x")
    told = course.dojo("next").stdout
    assert "Type:  pytest katas/03_layers\n" in told
    assert "Stale: stubs/tinytorch/setup.py" in told
    assert "dojo verify" in told


def test_next_speaks_of_a_missing_stub(course: Course) -> None:
    course.path("stubs/tinytorch/setup.py").unlink()
    told = course.dojo("next").stdout
    assert "stubs/tinytorch/setup.py is missing" in told
    assert "dojo reset 01" in told


def test_next_opens_a_milestone_and_ends_when_all_is_done(course: Course) -> None:
    """All twenty katas on record; only some have suites, and a kata without one cannot go stale."""
    record = {"time": "2026-03-09T23:30:00Z", "stub": "", "suite": ""}
    for number, name in enumerate(katas_of(course), 1):
        folder = course.path(f"katas/{number:02}_{name}")
        folder.mkdir(exist_ok=True)
        if number > 3:
            shutil.copy(course.path("katas/03_layers/manifest.json"), folder)
            course.write(f"stubs/tinytorch/{name}.py", "")
    course.record(*(f"{number:02}_{name}" for number, name in enumerate(katas_of(course), 1) if number <= 3))
    progress = course.progress()
    for number in range(4, 21):
        progress["katas"][f"{number:02}"] = record
    course.write("progress.json", json.dumps(progress))
    told = course.dojo("next").stdout
    assert "You have passed all 20 katas" in told
    assert "17 katas are stale" in told

    course.write("katas/milestones/m1_inference/manifest.json", "{}")
    assert (
        "Open too: milestone m1 inference: pytest katas/milestones/m1_inference" in course.dojo("next").stdout
    )


def katas_of(course: Course) -> list[str]:
    data = json.loads(course.dojo("status", "--json").stdout)
    return [entry["name"] for entry in data["katas"]]


def test_a_damaged_progress_file_is_said_by_both(course: Course) -> None:
    course.write("progress.json", "{")
    for command in ("status", "next"):
        told = course.dojo(command)
        assert told.returncode == 0
        assert "progress.json is damaged" in told.stdout
    assert course.read("progress.json") == "{"


if sys.platform != "win32":

    def test_a_terminal_gets_a_table(course: Course) -> None:
        status, shown = course.typed("status")
        assert status == 0
        assert "\u2502" in shown  # a vertical line
        assert "\x1b[" in shown
        assert "Tensors, strides and broadcasting" in shown
        assert "pytest katas/01_setup" in shown
        _, narrower = course.typed("status", COLUMNS="70")
        assert "Tensors, strides" not in narrower
        assert "02 tensor" in narrower

    def test_a_table_at_a_terminal_without_such_lines_is_ascii(course: Course) -> None:
        _, shown = course.typed("status", PYTHONIOENCODING="cp1252")
        assert "| " in shown
        assert shown.isascii()

    @pytest.mark.parametrize("told", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"COLUMNS": "59"}], ids=str)
    def test_where_it_is_not_wanted_there_is_no_table(course: Course, told: dict[str, str]) -> None:
        _, shown = course.typed("status", **told)
        assert "  01 setup         open" in shown
        assert shown.isascii()
        assert "\x1b" not in shown
