"""The made-up course that the tests of commands run in is a sound one."""

from __future__ import annotations

import pytest

from tests.conftest import Course

pytestmark = pytest.mark.timeout(60)


def test_a_blank_kata_fails_and_a_solved_one_is_recorded(course: Course) -> None:
    assert course.run("katas/01_setup").returncode == 1
    assert course.passed() == set()
    course.solve("01_setup")
    done = course.run("katas/01_setup")
    assert done.returncode == 0, done.stdout + done.stderr
    assert course.passed() == {"01"}
