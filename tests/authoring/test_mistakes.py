"""Mistakes: marked, planted, and caught at the level they claim or reported."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from dojo.authoring import mistakes
from dojo.authoring.suites import Outcome, SuiteRun
from dojo.compose import load_file
from dojo.curriculum import Kata
from dojo.mistakes import caught_by, level_of, rewritten
from tests.authoring.conftest import MISTAKES
from tests.conftest import Course


def test_a_mistake_keeps_its_level_and_stays_a_function() -> None:
    @caught_by(3)
    def forgets(m: object) -> str:
        return f"spoiled {m}"

    assert level_of(forgets) == 3
    assert forgets("it") == "spoiled it"
    assert level_of(len) is None


@pytest.mark.parametrize("level", [0, 5, "1"])
def test_there_are_four_levels(level: int) -> None:
    with pytest.raises(ValueError, match="levels 1 to 4"):
        caught_by(level)


WORDS = """
ONE = 1


class op:  # as kata 02's
    def __init__(self, forward):
        self.forward, self.pull = forward, None

    def gradient(self, pull):
        self.pull = pull
        return pull


def more(x):
    return x + ONE


class One:
    def last(self):
        return ONE


class Pair(One):
    def first(self, x):
        return more(x) + ONE

    def last(self):
        return super().last() + ONE

    @property
    def size(self):
        return 2 * ONE


@op
def square(x):
    return x * x


@square.gradient
def square_back(grad, x):
    return 2 * grad * x
"""


@pytest.fixture
def words(tmp_path: Path) -> ModuleType:
    file = tmp_path / "words.py"
    file.write_text(WORDS, encoding="utf-8")
    return load_file(file)


def test_a_function_or_method_is_put_into_other_words(words: ModuleType) -> None:
    rewritten(words, "Pair.first", ("more(x)", "10 * more(x)"), ("ONE", "2 * ONE"))
    assert words.Pair().first(3) == 42
    rewritten(words, "more", ("+", "*"))
    words.ONE = 3
    assert words.Pair().first(3) == 96, "it looks its names up in the module, as before"


def test_a_property_stays_one_and_a_method_knows_its_class(words: ModuleType) -> None:
    rewritten(words, "Pair.size", ("2 *", "3 *"))
    rewritten(words, "Pair.last", ("+ ONE", "+ 4 * ONE"))
    assert (words.Pair().size, words.Pair().last()) == (3, 5)


def test_an_op_stays_the_same_op_with_another_forward_or_rule(words: ModuleType) -> None:
    square = words.square
    rewritten(words, "square", ("x * x", "x * x * x"))
    rewritten(words, "square_back", ("2 * grad * x", "3 * grad * x"))
    assert words.square is square
    assert (square.forward(2), square.pull(1, 2)) == (8, 6)


def test_words_that_are_not_there_are_an_error(words: ModuleType) -> None:
    with pytest.raises(ValueError, match="more has no 'y'"):
        rewritten(words, "more", ("y", "x"))


GREEN = Outcome("test_1_correctness.py::test_a", 1, "passed")
RED_2 = Outcome("test_2_properties.py::test_b", 2, "failed", "it is wrong")
BLOCKED = Outcome("test_3_memory.py::test_c", 3, "blocked")


def test_a_mistake_is_caught_at_the_first_level_that_fails() -> None:
    caught = mistakes.judge("forgets", 2, SuiteRun((GREEN, RED_2, BLOCKED)))
    assert (caught.level, caught.by, caught.problem) == (2, ("test_2_properties.py::test_b",), "")


@pytest.mark.parametrize(
    ("claimed", "run", "expected"),
    [
        (1, SuiteRun((GREEN, RED_2, BLOCKED)), "claims level 1, but test_2_properties.py::test_b of level 2"),
        (3, SuiteRun((GREEN, RED_2, BLOCKED)), "claims level 3, but test_2_properties.py::test_b of level 2"),
        (2, SuiteRun((GREEN,)), "is not caught; a test of level 2 should notice it"),
        (2, SuiteRun((GREEN, RED_2), "pytest ended early"), "pytest ended early"),
        (2, SuiteRun((Outcome("t::a", 1, "skipped", "no time"), RED_2)), "t::a was skipped: no time"),
        (
            1,
            SuiteRun((Outcome("t::the_stub_can_be_imported", 1, "failed", "boom"),)),
            "cannot be planted: boom",
        ),
    ],
)
def test_any_other_outcome_is_a_problem(claimed: int, run: SuiteRun, expected: str) -> None:
    assert expected in mistakes.judge("forgets", claimed, run).problem


def test_each_mistake_runs_in_a_process_of_its_own(finished: Course, kata: Kata) -> None:
    finished.write(
        MISTAKES,
        """\
from dojo.mistakes import caught_by


@caught_by(2)
def nothing_is_something(m):
    m.double = lambda x: 2 * x or 1


@caught_by(1)
def right_after_all(m):
    m.double = lambda x: 2 * x


@caught_by(1)
def cannot_be_planted(m):
    m.no_such_function = m.no_such_function
""",
    )
    heard = []
    caught = {one.name: one for one in mistakes.run_all(kata, progress=lambda *told: heard.append(told))}
    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert {name: (one.claimed, one.level) for name, one in caught.items()} == {
        "nothing_is_something": (2, 2),
        "right_after_all": (1, None),
        "cannot_be_planted": (1, None),
    }
    assert caught["nothing_is_something"].problem == ""
    assert caught["nothing_is_something"].by == ("test_2_properties.py::test_double_of_nothing_is_nothing",)
    assert "no_such_function" in caught["cannot_be_planted"].problem
