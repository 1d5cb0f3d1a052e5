"""`dojo hint`, and what dojo.hints makes of hints.md."""

from __future__ import annotations

import pytest

from dojo import hints
from tests.conftest import Course


def test_hints_escalate_and_are_remembered(course: Course) -> None:
    shown = [course.dojo("hint", "02.1").stdout for _ in range(4)]
    assert "hint 1 of 3\n  What would total of one thing be?" in shown[0]
    assert "hint 2 of 3\n  The idea of total." in shown[1]
    assert "hint 3 of 3\n  The key line of total: `return ...`" in shown[2]
    assert "The key line of total" in shown[3]
    assert "hint 1" not in shown[3]
    assert "More: dojo hint 02.1" in shown[1]
    assert "katas/02_tensor/README.md" in shown[2]
    assert course.progress()["hints"]["02.1"] >= 3


def test_without_a_task_it_is_the_first_unwritten_one(course: Course) -> None:
    assert course.dojo("hint").stdout.startswith("01.1 double\n")
    course.edit("stubs/tinytorch/setup.py", 'raise NotImplementedError("kata 01.1: double")', "return x + x")
    assert course.dojo("hint").stdout.startswith("01.2 shout\n")
    assert course.dojo("hint", "tensor").stdout.startswith("02.1 total\n")


@pytest.mark.parametrize("typed", ["02.2", "2.2", "tensor.2", "02_tensor.2"])
def test_a_task_can_be_typed_in_several_ways(course: Course, typed: str) -> None:
    assert course.dojo("hint", typed).stdout.startswith("02.2 mean\n")


@pytest.mark.parametrize(
    ("typed", "task"),
    [
        ("shout", "01.2 shout"),
        ("shout()", "01.2 shout"),
        ("span", "02.3 Tensor.span"),
        ("tensor.span", "02.3 Tensor.span"),
        ("tensor", "02.1 total"),  # a kata's name comes before a task's
    ],
)
def test_a_task_can_be_asked_for_by_its_name(course: Course, typed: str, task: str) -> None:
    assert course.dojo("hint", typed).stdout.startswith(f"{task}\n")


def test_a_name_in_two_katas_is_that_of_the_kata_in_hand(course: Course) -> None:
    course.edit("katas/02_tensor/hints.md", "## 02.2 mean", "## 02.2 average, double")
    assert course.dojo("hint", "double").stdout.startswith("01.1 double\n")
    course.record("01_setup")
    assert course.dojo("hint", "double").stdout.startswith("02.2 average, double\n")


def test_a_name_that_nothing_has_is_told_with_the_nearest_one(course: Course) -> None:
    refused = course.dojo("hint", "shuot")
    assert refused.returncode == 2
    assert refused.stderr == "dojo: there is no kata or task 'shuot'; did you mean shout?\n"
    assert "there is no kata 'xyz'; the katas are 01 setup" in course.dojo("hint", "xyz").stderr


def test_a_task_put_back_in_a_passed_kata_is_hinted_at_first(course: Course) -> None:
    course.record("01_setup")
    course.dojo("reset", "01.2")
    assert course.dojo("hint").stdout.startswith("01.2 shout\n")


def test_all_shows_the_three_and_counts_them(course: Course) -> None:
    told = course.dojo("hint", "02.2", "--all").stdout
    assert [told.count(f"hint {n} of 3") for n in (1, 2, 3)] == [1, 1, 1]
    assert course.progress()["hints"] == {"02.2": 3}
    course.dojo("hint", "02.2", "--all")
    assert course.progress()["hints"] == {"02.2": 3}


def test_when_every_task_is_written_it_asks_for_a_run_and_a_task(course: Course) -> None:
    course.solve("01_setup")
    told = course.dojo("hint")
    assert told.returncode == 0
    assert "pytest katas/01_setup" in told.stdout
    assert "01.1 double" in told.stdout
    assert "01.2 shout" in told.stdout
    assert course.progress()["hints"] == {}


def test_a_passed_kata_is_pointed_to_its_solution(course: Course) -> None:
    course.record("01_setup")
    assert "dojo diff 01" in course.dojo("hint", "01").stdout
    assert "dojo diff 01" in course.dojo("hint", "01.1", "--all").stdout
    assert "dojo diff" not in course.dojo("hint", "02.1", "--all").stdout


def test_a_kata_that_is_not_written_has_no_hints_yet(course: Course) -> None:
    refused = course.dojo("hint", "07")
    assert refused.returncode == 1
    assert refused.stderr == "dojo: kata 07 spatial has no hints yet; the course has 01 to 03 so far\n"


def test_a_list_item_may_have_paragraphs_and_code() -> None:
    text = """\
# Hints

## 06.3 unbroadcast

1. What was
   stretched?
2. Sum it:

   ```python
   1. not a hint
   total = sum(x)
   ## nor a heading
   ```

3. `grad.sum(axis=...)`

## 06.4 walk

1. One.
2. Two, with 3. inside.
3. Three.
"""
    found = hints.parse(text)
    assert list(found) == ["06.3", "06.4"]
    assert found["06.3"].name == "unbroadcast"
    assert found["06.3"].texts == (
        "What was\nstretched?",
        "Sum it:\n\n```python\n1. not a hint\ntotal = sum(x)\n## nor a heading\n```",
        "`grad.sum(axis=...)`",
    )
    assert found["06.4"].texts == ("One.", "Two, with 3. inside.", "Three.")


def test_code_in_a_hint_keeps_its_lines(course: Course) -> None:
    course.write(
        "katas/01_setup/hints.md",
        "## 01.1 double\n\n1. Look\n   closely.\n\n   ```python\n   a = 1\n   b = 2\n   ```\n2. B.\n3. C.\n",
    )
    told = course.dojo("hint").stdout
    assert "  Look closely.\n" in told
    assert "  a = 1\n  b = 2\n" in told


def test_a_list_in_a_hint_stays_a_list(course: Course) -> None:
    course.write(
        "katas/01_setup/hints.md",
        "## 01.1 double\n\n1. Either\n\n   - add it\n     to itself, or\n   - multiply\n2. B.\n3. C.\n",
    )
    assert "  Either\n\n  - add it to itself, or\n  - multiply\n" in course.dojo("hint").stdout


def test_a_missing_stub_is_not_a_finished_one(course: Course) -> None:
    course.path("stubs/tinytorch/setup.py").unlink()
    refused = course.dojo("hint")
    assert refused.returncode == 1
    assert "dojo reset 01" in refused.stderr
