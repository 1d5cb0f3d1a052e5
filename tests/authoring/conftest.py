"""A made-up kata that `dojo check` has nothing against, for tests that spoil one thing at a time."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dojo import manifest
from dojo.curriculum import Kata, find
from tests.conftest import Course

SUITE = "katas/01_setup"
REFERENCE = "reference/tinytorch/setup.py"
MISTAKES = "reference/mistakes/01_setup.py"

FINISHED = {
    f"{SUITE}/test_2_properties.py": """\
from tinytorch.setup import double, shout


def test_double_of_nothing_is_nothing():
    assert double(0) == 0


def test_nothing_is_shouted_as_nothing():
    assert shout("") == ""
""",
    f"{SUITE}/test_3_memory.py": """\
from dojo.measuring import Budget
from tinytorch.setup import double

DOUBLE = Budget("what double gives", limit=3, reference=2, naive=4, unit="times what it gets")


def test_double_is_not_more_than_double():
    DOUBLE.check(double(1))


def test_the_twin_that_gives_four_times_is_caught():
    DOUBLE.catches(4)
""",
    f"{SUITE}/test_4_speed.py": """\
from dojo.measuring import Budget
from tinytorch.setup import shout

LETTERS = Budget("letters of a shout", limit=2, reference=1, naive=3, unit="times those of the text")


def test_a_shout_is_as_long_as_its_text():
    LETTERS.check(len(shout("ten letters")) / 11)


def test_the_twin_that_says_everything_three_times_is_caught():
    LETTERS.catches(len("hey" * 3) / 3)
""",
    f"{SUITE}/strict.py": """\
import numpy as np

from dojo.strict import Check


def draw_x(rng):
    return {"x": rng.normal(size=rng.integers(1, 5))}


def run_double(student, x):
    return np.asarray(student.double(x))


def expected_double(x):
    return 2 * x


CHECKS = tuple(Check(f"double {name}", draw_x, run_double, expected_double) for name in "abcde")
""",
    MISTAKES: """\
from dojo.mistakes import caught_by


@caught_by(1)
def nothing_is_added(m):
    m.double = lambda x: x


@caught_by(2)
def nothing_is_something(m):
    m.double = lambda x: 2 * x or 1


@caught_by(3)
def one_becomes_four(m):
    m.double = lambda x: 2 * x if x != 1 else 4


@caught_by(4)
def long_texts_are_repeated(m):
    m.shout = lambda text: text.upper() * (1 if len(text) < 5 else 3)


@caught_by(1)
def shouts_quietly(m):
    m.shout = str.lower


def another(number):
    @caught_by(1)
    def adds_too_much(m):
        m.double = lambda x: 2 * x + number

    return adds_too_much


adds_1, adds_2, adds_3, adds_4, adds_5 = map(another, range(1, 6))
""",
    "reference/alternatives/01_setup/by_product.py": """\
__all__ = ["double", "shout"]


def double(x):
    return 2 * x


def shout(text):
    return "".join(letter.upper() for letter in text)
""",
    "reference/alternatives/01_setup/by_sum.py": """\
__all__ = ["double", "shout"]


def double(x):
    return sum([x, x])


def shout(text):
    return str.upper(text)
""",
}


@pytest.fixture(scope="session")
def pristine_finished(pristine_course: Course, tmp_path_factory: pytest.TempPathFactory) -> Course:
    """The made-up course with a kata 01 that has everything."""
    root = tmp_path_factory.mktemp("finished") / "root"
    shutil.copytree(pristine_course.root, root)
    course = Course(root)
    for name, text in FINISHED.items():
        course.write(name, text)
    course.seal()
    return course


@pytest.fixture
def finished(pristine_finished: Course, tmp_path: Path) -> Course:
    """A copy of it to spoil."""
    root = tmp_path / "finished"
    shutil.copytree(pristine_finished.root, root)
    return Course(root)


@pytest.fixture
def kata(finished: Course, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kata]:
    """Kata 01 of `finished`: in this process, too, dojo looks at that course and not at this one."""
    roots = {"ROOT": "", "STUBS": "stubs/tinytorch", "REFERENCE": "reference/tinytorch"}
    roots |= {"FOLDER": "reference/mistakes", "ALTERNATIVES_FOLDER": "reference/alternatives"}
    for name, module in list(sys.modules.items()):
        for attribute, path in roots.items():
            if name.startswith("dojo.") and isinstance(vars(module).get(attribute), Path):
                monkeypatch.setattr(module, attribute, finished.path(path) if path else finished.root)
    manifest.read.cache_clear()
    yield find("01")
    manifest.read.cache_clear()
