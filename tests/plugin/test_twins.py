"""A twin that was not caught is told, and not held against a student."""

from __future__ import annotations

import pytest

from tests.conftest import Course

SUITE = "katas/01_setup"
SPEED = """\
from dojo.measuring import Budget
from tinytorch.setup import double

SPEED = Budget("double", limit=2, reference=1, naive=9, unit="times one call", naively="a loop")


def test_double_is_quick():
    SPEED.check(double(0.5))


def test_the_twin_by_a_loop_is_caught():
    SPEED.catches({needed})
"""


@pytest.fixture
def solved(course: Course) -> Course:
    course.write(f"{SUITE}/test_4_speed.py", SPEED.replace("{needed}", "1.9"))
    course.seal()
    course.solve("setup")
    return course


def test_a_missed_twin_unlocks_all_the_same_and_is_told(solved: Course) -> None:
    run = solved.run(SUITE)
    assert run.returncode == 0, run.stdout
    assert solved.passed() == {"01"}
    assert "not held against you: double: this budget catches nothing: a loop needed 1.9 times" in run.stdout


def test_a_missed_twin_without_words_is_told_too(solved: Course) -> None:
    solved.edit(
        f"{SUITE}/test_4_speed.py", "SPEED.catches(1.9)", "SPEED.catches(9)\n    raise AssertionError"
    )
    solved.seal()
    run = solved.run(SUITE)
    assert run.returncode == 0, run.stdout
    assert "not held against you: a naive version was not caught" in run.stdout


def test_of_the_reference_it_is_a_failure(solved: Course) -> None:
    run = solved.run(SUITE, "--impl", "reference")
    assert run.returncode == 1
    assert "this budget catches nothing" in run.stdout


def test_an_error_of_the_code_under_test_is_a_failure(solved: Course) -> None:
    solved.write(f"{SUITE}/test_4_speed.py", SPEED.replace("{needed}", "double(None)"))
    solved.seal()
    assert solved.run(SUITE).returncode == 1
