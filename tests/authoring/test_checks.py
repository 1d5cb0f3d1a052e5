"""Each check of a kata holds for a finished one, and fails for one that has been spoiled."""

from __future__ import annotations

import os

import pytest

from dojo.authoring import budgets, checks, lessons, strictly
from dojo.curriculum import Kata
from tests.authoring.conftest import MISTAKES, REFERENCE, SUITE
from tests.conftest import Course

# What pytest is asked for.


def test_a_red_reference_is_noticed(finished: Course, kata: Kata) -> None:
    finished.edit(REFERENCE, "return x + x", "return x + x + 1")
    problems = checks.reference_is_green(kata)
    assert problems[0].startswith("test_1_correctness.py::test_double_is_twice is failed on the reference: ")
    assert problems[1:] == ["6 of later levels are blocked by that, on the reference"]


def test_a_missing_level_a_lost_test_and_a_skip_are_noticed(finished: Course, kata: Kata) -> None:
    finished.path(f"{SUITE}/test_4_speed.py").unlink()
    finished.edit(f"{SUITE}/test_2_properties.py", "def test_nothing_is_", "def check_nothing_is_")
    finished.edit(
        f"{SUITE}/test_1_correctness.py", "assert double(3) == 6", "__import__('pytest').skip('why')"
    )
    assert checks.reference_is_green(kata) == [
        "test_1_correctness.py::test_double_is_twice is skipped on the reference: Skipped: why",
        "test_2_properties.py::test_nothing_is_shouted_as_nothing is sealed in the manifest but did not run "
        "on the reference",
        "test_4_speed.py::test_a_shout_is_as_long_as_its_text is sealed in the manifest but did not run "
        "on the reference",
        "test_4_speed.py::test_the_twin_that_says_everything_three_times_is_caught is sealed in the manifest "
        "but did not run on the reference",
        "katas/01_setup has no test at level 4: add test_4_*.py",
    ]


def test_a_suite_that_breaks_off_is_noticed(finished: Course, kata: Kata) -> None:
    finished.write(f"{SUITE}/test_1_correctness.py", "import no_such_module\n")
    problems = checks.reference_is_green(kata)
    assert problems[0].startswith("katas/01_setup could not be run on the reference: ")
    assert "no_such_module" in problems[0]


def test_what_a_blank_stub_passes_is_noticed(finished: Course, kata: Kata) -> None:
    finished.solve("setup")  # a student's work, which is not what is asked
    finished.write(
        f"{SUITE}/test_1_correctness.py",
        """\
from tinytorch.setup import double, shout


def test_of_nothing():
    assert True


def test_that_swallows_the_to_do():
    try:
        answer = double(3)
    except NotImplementedError:
        answer = None
    assert answer == 6


def test_double_is_twice():
    assert double(3) == 6


def test_shout_is_in_capitals():
    assert shout("dojo") == "DOJO"
""",
    )
    finished.edit(f"{SUITE}/test_3_memory.py", "DOUBLE.check(double(1))", "DOUBLE.check(2)")
    problems = checks.blank_stub_is_red(kata)
    first, second, third = problems
    assert first.startswith("test_1_correctness.py::test_of_nothing passed on the blank stub")
    assert second.startswith("test_1_correctness.py::test_that_swallows_the_to_do shows no to-do line on the")
    assert third.startswith(
        "test_3_memory.py::test_double_is_not_more_than_double would pass on the blank stub"
    )


def test_two_solutions_in_another_manner_must_pass(finished: Course, kata: Kata) -> None:
    finished.path("reference/alternatives/01_setup/by_product.py").unlink()
    finished.edit("reference/alternatives/01_setup/by_sum.py", "sum([x, x])", "sum([x, x, x])")
    few, red, *_ = checks.alternatives_pass(kata)
    assert few == (
        "reference/alternatives/01_setup/ has 1 solutions written in another manner; a kata needs 2"
    )
    assert red.startswith(
        "test_1_correctness.py::test_double_is_twice is failed with reference/alternatives/01_setup/by_sum.py"
    )


# What is read.


def test_a_stale_stub_and_a_stale_manifest_are_noticed(finished: Course, kata: Kata) -> None:
    finished.edit("stubs/tinytorch/setup.py", "# TODO 01.1: add it to itself.", "# TODO 01.1: try.")
    finished.edit(f"{SUITE}/test_1_correctness.py", "== 6", "== 2 * 3")
    assert checks.stub_is_fresh(kata) == [
        "stubs/tinytorch/setup.py is not what reference/tinytorch/setup.py implies: run `dojo stubs`"
    ]
    assert checks.manifest_is_fresh(kata) == ["katas/01_setup/manifest.json is stale: run `dojo manifest 01`"]


def test_exports_must_be_readable_without_running_the_file(finished: Course, kata: Kata) -> None:
    finished.edit(REFERENCE, '__all__ = ["double", "shout"]', '__all__ = sorted(["double", "shout"])')
    assert checks.exports_are_literal(kata) == [
        "reference/tinytorch/setup.py:3: write __all__ as a plain list of strings"
    ]
    finished.edit(REFERENCE, "__all__ =", "exports =")
    assert "has no __all__" in checks.exports_are_literal(kata)[0]


def test_a_kata_without_tasks_is_noticed(finished: Course, kata: Kata) -> None:
    finished.edit(REFERENCE, "# kata 01", "# Kata of 01")
    assert checks.has_tasks(kata) == ["reference/tinytorch/setup.py marks no task (`# kata 01.1: hint`)"]


UNFIT = """

@caught_by(1)
def it_is_about_an_older_reference(m):
    m.triple.__name__ = "double"
"""


def test_nine_mistakes_are_not_enough(finished: Course, kata: Kata) -> None:
    finished.edit(MISTAKES, "@caught_by(2)\n", "")
    assert checks.has_mistakes(kata) == ["reference/mistakes/01_setup.py has 9 mistakes; a kata needs 10"]
    finished.path(MISTAKES).unlink()
    assert "is missing" in checks.has_mistakes(kata)[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each is planted in a forked process")
def test_a_mistake_that_no_longer_fits_the_reference_is_noticed(finished: Course, kata: Kata) -> None:
    assert checks.has_mistakes(kata) == []
    finished.write(MISTAKES, finished.path(MISTAKES).read_text("utf-8") + UNFIT)
    assert checks.has_mistakes(kata) == [
        "reference/mistakes/01_setup.py: it_is_about_an_older_reference cannot be planted: "
        "AttributeError: module 'tinytorch.setup' has no attribute 'triple'"
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("3. The key line of double", "and: the key line of double", "01.1 has 2 hints"),
        ("## 01.2 shout", "## 01.2 whisper", "has no section `## 01.2 shout`"),
        (
            "## 01.2 shout",
            "## 01.3 shout",
            "speaks of task 01.3, which reference/tinytorch/setup.py does not",
        ),
        ("1. What would double of one thing be?", "1.\n", "01.1 has "),
    ],
)
def test_hints_are_three_for_each_task(
    finished: Course, kata: Kata, old: str, new: str, expected: str
) -> None:
    finished.edit(f"{SUITE}/hints.md", old, new)
    assert [line for line in lessons.hint_problems(kata) if expected in line]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("## Memory\n", "## Remembering\n", "has no section `## Memory`"),
        ("## Memory\n", "```\n## Memory\n```\n", "has no section `## Memory`"),
        ("## Scaling\n", "## Read more\n", "has no section `## Scaling`"),
    ],
)
def test_a_readme_has_its_sections(finished: Course, kata: Kata, old: str, new: str, expected: str) -> None:
    finished.edit(f"{SUITE}/README.md", old, new)
    assert expected in "\n".join(lessons.section_problems(kata))


def test_a_readme_has_its_sections_in_order(finished: Course, kata: Kata) -> None:
    text = finished.read(f"{SUITE}/README.md")
    swapped = (
        text.replace("## Memory", "## ?").replace("## Scaling", "## Memory").replace("## ?", "## Scaling")
    )
    finished.write(f"{SUITE}/README.md", swapped)
    (problem,) = lessons.section_problems(kata)
    assert "'Scaling', 'Performance', 'Memory'" in problem
    finished.path(f"{SUITE}/README.md").unlink()
    assert "README.md is missing" in lessons.section_problems(kata)[0]


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ("### 01.1 `double(x)`", ""),
        ("### 01.1 doubled", "has no heading `### 01.1 double`"),
        ("#### 01.1 double", "has no heading `### 01.1 double`"),
        ("### 01.1 double\n\n### 01.1 double", "has 01.1 twice"),
        ("### 01.1 double\n\n### 01.7 treble", "speaks of task 01.7"),
    ],
)
def test_a_readme_explains_each_task_once(finished: Course, kata: Kata, new: str, expected: str) -> None:
    finished.edit(f"{SUITE}/README.md", "### 01.1 double", new)
    problems = lessons.task_problems(kata)
    assert (problems == []) if not expected else (expected in "\n".join(problems))


def test_a_budget_without_a_twin_is_noticed(finished: Course, kata: Kata) -> None:
    file = f"{SUITE}/test_3_memory.py"
    finished.edit(file, "DOUBLE.catches(4)", "assert 4 > 3")
    assert budgets.budget_problems(kata)[0].startswith(f"{file}:4: DOUBLE has no twin")


def test_a_twin_is_named_as_one(finished: Course, kata: Kata) -> None:
    finished.edit(f"{SUITE}/test_3_memory.py", "def test_the_twin_that", "def test_that_a_version_that")
    assert "DOUBLE has no twin" in budgets.budget_problems(kata)[0]


def test_a_budget_that_nobody_checks_or_can_name_is_noticed(finished: Course, kata: Kata) -> None:
    file = f"{SUITE}/test_4_speed.py"
    finished.edit(file, "LETTERS.check(len", "assert (len")
    assert budgets.budget_problems(kata) == [f"{file}:4: no test of level 3 or 4 calls LETTERS.check(...)"]
    finished.edit(file, "    LETTERS.catches(", "    Budget('x', 2, 1, 3, 'y').catches(")
    assert "give this Budget a name" in budgets.budget_problems(kata)[0]


# strict.py


CHECKS = """
def run_without_the_student(student, x):
    return 2 * x


def run_with_more_than_it_sees(student, x):
    return expected_double(x)


def expected_triple(x):
    return 3 * x


CHECKS = (
    Check("fine", draw_x, run_double, expected_double),
    Check("fine", draw_x, run_double, expected_double),
    Check("wrong", draw_x, run_double, expected_triple),
    Check("easy", draw_x, run_without_the_student, expected_double),
    Check("homesick", draw_x, run_with_more_than_it_sees, expected_double),
)
"""


def test_strict_checks_hold_for_the_reference_and_not_for_a_blank_stub(finished: Course, kata: Kata) -> None:
    text = finished.read(f"{SUITE}/strict.py")
    finished.write(f"{SUITE}/strict.py", text[: text.index("CHECKS =")] + CHECKS)
    file = "katas/01_setup/strict.py"
    wrong, homesick, twice, easy = strictly.strict_problems(kata)
    assert wrong.startswith(f"{file}: 'wrong' does not hold for the reference: ")
    assert " came back, not " in wrong
    assert homesick.startswith(f"{file}: 'homesick' does not hold for the reference: NameError: name 'expect")
    assert twice == f"{file}: 2 checks are called 'fine'; a grade could not tell them apart"
    assert easy == f"{file}: 'easy' holds for the blank stub"


def test_too_few_strict_checks_are_noticed(finished: Course, kata: Kata) -> None:
    finished.edit(f"{SUITE}/strict.py", '"abcde"', '"abcd"')
    assert strictly.strict_problems(kata) == [
        "katas/01_setup/strict.py lists 4 checks in CHECKS; a kata needs 5"
    ]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("2 * x", ""),
        ("2 * x + 1e-12", ""),
        ("2 * x + 1e-3", "came back, not"),
        ("(2 * x)[:, None]", "float64[3, 1] came back, not float64[3]"),
        ("(2 * x).astype(np.float32)", "float32[3] came back, not float64[3]"),
        ("(2 * x).tolist()", "only arrays of"),
        ("(2 * x).astype(object)", "only arrays of"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_strict_reply_has_shape_dtype_and_values(reply: str, expected: str) -> None:
    import numpy as np

    from dojo.strict import Check

    def draw(rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"x": rng.normal(size=3)}

    def run(student: object, x: np.ndarray) -> np.ndarray:
        return eval(reply, {"x": x, "np": np})

    check = Check("doubled", draw, run, lambda x: 2 * x)
    words = strictly.judge(check, run, None, np.random.default_rng(0))
    assert (words == "") if not expected else (expected in words)
