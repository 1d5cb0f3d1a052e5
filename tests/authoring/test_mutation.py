"""The hunt: every way in which a reference can hold a function, and everything that a mutant can do."""

from __future__ import annotations

import pytest

from dojo.authoring import mutation
from dojo.authoring.mutation import Result, Verdict
from dojo.curriculum import Kata
from tests.authoring.conftest import MISTAKES, REFERENCE, SUITE
from tests.conftest import Course

SOURCE = '''\
"""Functions in many places."""

import functools

__all__ = ["double", "shout"]

LIMIT = 3


class Op:
    """Holds a function where no namespace shows it."""

    kind = 1

    def __init__(self, forward):
        self.forward = forward

    def __call__(self, *args):
        return self.forward(*args)


def op(number):
    def wrap(function):
        @functools.wraps(function)
        def inner(*args):
            return function(*args) + number - 4

        return Op(inner)

    return wrap


@op(4)
def double(x):
    return x + x


@functools.cache
def treble(x):
    return 3 * x


def default(x=5):
    return x


def below(x):
    if x >= LIMIT:
        raise ValueError(f"{x} is not below {LIMIT + 10}")
    return x


def count_down(n):
    steps = 0
    while n > 0:
        n -= 1
        steps += 1
    return steps


def crash(really):
    if really:
        import ctypes

        ctypes.string_at(0)


class Shape:
    def __init__(self, side):
        self.side = side

    @property
    def area(self):
        return self.side * self.side

    @staticmethod
    def unit():
        return Shape(1)

    def bigger(self):
        return (lambda side: Shape(side + 1))(self.side)


def nobody_calls(x):
    return x + 100


def slow(n):
    return n


def shout(text):
    return text.upper()
'''

SUITES = {
    "test_1_correctness.py": """\
import pytest

from tinytorch import setup
from tinytorch.setup import Shape, double, treble

COLLECTED = treble(1)


def test_double():
    assert double(3) == 6


def test_treble():
    assert (treble(1), treble(2)) == (3, 6)


def test_default():
    assert setup.default() == 5


def test_below():
    assert setup.below(2) == 2
    with pytest.raises(ValueError, match="not below"):
        setup.below(3)


def test_kind():
    assert setup.Op.kind == 1


def test_count_down():
    assert setup.count_down(3) == 3


def test_crash():
    assert setup.crash(False) is None


def test_shape():
    shape = Shape(3)
    assert (shape.area, shape.unit().side, shape.bigger().side) == (9, 1, 4)


def test_shout():
    assert setup.shout("a") == "A"
""",
    "test_3_memory.py": """\
from pathlib import Path

from tinytorch.setup import slow

TURNS = Path(__file__).with_name("turns.txt")


def test_that_fails_on_every_other_run():
    # The first run is for what reaches what.  The mutant of `slow` fails, and when asked again does not.
    turn = len(TURNS.read_text()) if TURNS.exists() else 0
    TURNS.write_text("." * (turn + 1))
    slow(1)
    assert turn % 2 == 0


def test_the_twin_that_knows_nothing_of_it():
    assert slow(1) == 1
""",
    "test_4_speed.py": """\
from tinytorch.setup import double


def test_double_of_many():
    assert [double(n) for n in range(100)][50] == 100
""",
}

EQUIVALENT = """\
EQUIVALENT = {
    "op.wrap.inner: function(*args) + number - 4 -> function(*args) + number + 4": "a lie",
    "gone: 1 -> 2": "it was there once",
    "nobody_calls: x + 100 -> x - 100": "nobody calls it",
    "nobody_calls: x + 100 -> x + 101": "  ",
}
"""


@pytest.fixture
def result(finished: Course, kata: Kata) -> Result:
    finished.path(f"{SUITE}/test_2_properties.py").unlink()
    for name, text in SUITES.items():
        finished.write(f"{SUITE}/{name}", text)
    finished.write(REFERENCE, SOURCE)
    finished.write(MISTAKES, EQUIVALENT)
    finished.seal()
    return mutation.hunt(kata)


@pytest.mark.skipif(not mutation.POSSIBLE, reason=mutation.IMPOSSIBLE)
def test_a_hunt(result: Result) -> None:
    assert result.trouble == ""
    found = {verdict.id: verdict for verdict in result.verdicts}
    assert len(found) == len(result.verdicts)
    caught = {
        # wrapped twice, and held by an object that is no function
        "double: x + x -> x - x": "test_double",
        "op.wrap.inner: function(*args) + number - 4 -> function(*args) + number + 4": "test_double",
        # remembered from the collection, so swapping its code is not enough
        "treble: 3 * x -> 4 * x": "test_treble",
        # done while the module is imported
        "default: x=5 -> x=6": "test_default",
        "module: LIMIT = 3 -> LIMIT = 4": "test_below",
        "Op: kind = 1 -> pass": "test_kind",
        "op: return wrap -> return None": "while it is imported",
        # an error that is not raised
        "below: raise ValueError(...) -> pass": "test_below",
        # a property, a static method, a lambda
        "Shape.area: self.side * self.side -> self.side / self.side": "test_shape",
        "Shape.unit: Shape(1) -> Shape(2)": "test_shape",
        "Shape.bigger: side + 1 -> side - 1": "test_shape",
        "shout: return text.upper() -> return None": "test_shout",
    }
    for name, test in caught.items():
        assert (found[name].verdict, found[name].by.rpartition("::")[2]) == ("caught", test), name
    endless = found["count_down: n -= 1 -> pass"]
    assert (endless.verdict, endless.how) == ("caught", "never ended")
    crash = found["crash: if really: -> if True:"]
    assert (crash.verdict, crash.how) == ("caught", "crashed")

    survivors = {v.id: v.how for v in result.judged if v.verdict == "survived"}
    # What only a measured test says once, and what only a twin says, does not count.
    assert survivors["slow: return n -> return None"] == ""
    assert survivors["nobody_calls: x + 100 -> x - 100"] == "no test reaches it"

    problems = "\n".join(result.problems("the list"))
    assert "survives: slow: return n -> return None" in problems
    assert "nobody_calls: x + 100 -> x - 100" not in problems
    assert "survives (no test reaches it): nobody_calls: x + 100 -> x + 101" in problems, "a reason is wanted"
    assert "to EQUIVALENT in the list" in result.advice("the list")
    assert "is stale: gone: 1 -> 2: there is no such mutant any more" in problems
    assert "is stale: op.wrap.inner: function(*args) + number - 4" in problems


def verdicts(caught: int, survived: int) -> list[Verdict]:
    return [Verdict(f"c{i}", "caught", "failed", "t") for i in range(caught)] + [
        Verdict(f"s{i}", "survived", "", "") for i in range(survived)
    ]


def test_95_percent_must_be_caught_even_when_all_is_explained() -> None:
    reasons = {f"s{i}": "no test could tell" for i in range(6)}
    assert Result(verdicts(95, 5), reasons | {}).problems("f") == [
        "EQUIVALENT in f is stale: s5: there is no such mutant any more; take it out"
    ]
    (problem,) = Result(verdicts(94, 6), reasons).problems("f")
    assert problem == "94 of 100 mutants are caught, 94.0%; at least 95% should be"


def test_what_is_not_python_does_not_count() -> None:
    result = Result([*verdicts(1, 0), Verdict("n", "not python", "", "")])
    assert (len(result.judged), result.rate, result.problems("f")) == (1, 1.0, [])


def test_no_mutants_at_all_is_not_a_pass() -> None:
    assert Result([]).problems("f") == ["0 of 0 mutants are caught, 0.0%; at least 95% should be"]


@pytest.mark.skipif(not mutation.POSSIBLE, reason=mutation.IMPOSSIBLE)
def test_a_suite_that_depends_on_the_order_of_its_tests_has_no_mutants(finished: Course, kata: Kata) -> None:
    """Tests run against a mutant in another order, where that would fail for another reason."""
    finished.write(
        f"{SUITE}/test_1_correctness.py",
        """\
import time

from tinytorch.setup import double, shout

DONE = []


def test_double_is_twice():
    time.sleep(0.2)
    DONE.append(double(3))
    assert DONE == [6]


def test_shout_is_in_capitals():
    assert DONE == [6]
    assert shout("dojo") == "DOJO"
""",
    )
    trouble = mutation.hunt(kata).trouble
    assert "test_1_correctness.py::test_shout_is_in_capitals failed on the unchanged reference" in trouble
