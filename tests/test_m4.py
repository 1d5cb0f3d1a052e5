"""Milestone 4 keeps what the course promises: its demo, from a recipe to a place on the leaderboard."""

from __future__ import annotations

from pathlib import Path

import pytest

from dojo.curriculum import MILESTONES
from tests.conftest import Course, copied

M1, *_, M4 = MILESTONES

pytestmark = pytest.mark.timeout(400)  # ten seconds on a quiet core, a hundred on a very busy one


@pytest.fixture
def course(tmp_path: Path) -> Course:
    """What of the repository the milestone needs."""
    return copied(tmp_path / "course", "reference", "stubs", "katas/20_competition", M1.shown, M4.shown)


def demo(course: Course, *args: str) -> tuple[int, str]:
    done = course.dojo("milestone", "--impl", "reference", "m4", "digits", *args)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def test_a_recipe_gets_a_place_and_the_same_again_does_not(course: Course) -> None:
    status, said = demo(course, "--recipe", "fold,int:8", "--author", "Ada")
    assert status == 0, said
    assert "Entered: place 1 of 1" in said
    assert "\x1b" not in said
    file = course.path("runs/m4_digits/fold_int-8.zip")
    assert "It is there already: place 1 of 1" in demo(course, "--enter", str(file))[1]
    shown = course.dojo("leaderboard", "--impl", "reference").stdout
    assert "fold int:8 by Ada" in shown


def test_a_search_is_told_as_it_goes(course: Course) -> None:
    status, said = demo(course, "--budget", "2")
    assert status == 0, said
    assert "prepare 784-256-128-10 float32" in said
    assert "rows 784-256-128-10 float32" in said
    assert "Entered" in said


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (("--recipe", "magic"), 2, "magic"),
        (("--recipe", "int:8,fold"), 2, "fold"),
        (("--recipe", "prune:0.8"), 1, "accuracy"),
        (("--enter", "none.zip"), 1, "none.zip"),
    ],
    ids=["unknown", "in vain", "too bad", "missing"],
)
def test_what_cannot_be_done_is_said(course: Course, args: tuple[str, ...], status: int, words: str) -> None:
    found, said = demo(course, *args)
    assert (found, words in said) == (status, True), said
    assert not course.path("runs/leaderboard.db").exists()
