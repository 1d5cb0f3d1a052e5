"""What the plugin sees to, so that no suite has to."""

from __future__ import annotations

import pytest

from tests.conftest import Course

LEVEL_1, LEVEL_3 = "katas/01_setup/test_1_correctness.py", "katas/01_setup/test_3_memory.py"

FROZEN = """
import gc


def test_old_objects_are_frozen():
    print(f"frozen: {gc.get_freeze_count()}")
"""

OWN_FIXTURE = """
import pytest


@pytest.fixture(autouse=True, scope="module")
def only_new_objects_are_collected():
    yield
"""


@pytest.mark.parametrize("file", [LEVEL_1, LEVEL_3])
def test_collections_are_spared_what_was_there_before(file: str, course: Course) -> None:
    course.solve("setup")
    course.write(file, FROZEN)
    assert frozen(course, file) > 10_000


def test_a_suite_may_have_a_fixture_of_its_own_for_that(course: Course) -> None:
    course.solve("setup")
    course.write(LEVEL_3, OWN_FIXTURE + FROZEN)
    assert frozen(course, LEVEL_3) == 0


def test_other_tests_are_left_alone(course: Course) -> None:
    course.write("elsewhere/test_3_memory.py", FROZEN)
    assert frozen(course, "elsewhere") == 0


def frozen(course: Course, where: str) -> int:
    done = course.run(where, "-s", "-p", "no:xdist")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    return int(done.stdout.partition("frozen: ")[2].split()[0])


def test_hypothesis_may_take_its_time_and_settings_add_to_that(course: Course) -> None:
    course.solve("setup")
    course.write(
        LEVEL_1,
        """
from hypothesis import HealthCheck, Phase, settings


def test_settings():
    mine = settings(max_examples=7, derandomize=True)
    assert mine.deadline is None
    assert HealthCheck.too_slow in mine.suppress_health_check
    assert Phase.shrink in mine.phases and Phase.explain not in mine.phases
    assert (mine.max_examples, mine.derandomize) == (7, True)
    assert settings(deadline=50).deadline.total_seconds() == 0.05
    assert settings().max_examples == 33
""",
    )
    course.write(
        "conftest.py",
        course.read("conftest.py")
        + "\nfrom hypothesis import settings\nsettings.register_profile('mine', max_examples=33)\n",
    )
    done = course.run("katas/01_setup", "--hypothesis-profile", "mine")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
