"""`dojo compare` on made-up submissions: who is at fault, what no test runs, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

from dojo.curriculum import BY_NUMBER, MILESTONES
from dojo.grading.blame import stack
from dojo.grading.covered import ranges
from dojo.measuring.comparing import REFERENCE, YOURS, Comparison, Series
from tests.conftest import Course
from tests.grading.conftest import HandIn


def test_the_module_at_fault_is_found_by_swapping(course: Course, hand_in: HandIn) -> None:
    wrong = course.read("reference/tinytorch/tensor.py").replace("/ len(numbers)", "/ (len(numbers) + 1)")
    assert "+ 1" in wrong
    told = course.dojo("compare", str(hand_in("ana", tensor=wrong)), "03", "--tests-only")
    assert told.returncode == 0, told.stderr
    assert "03 layers: 0 of 1 tests pass" in told.stdout
    assert "at fault: 02 tensor: put into the reference, it makes 1 of 1 fail" in told.stdout
    assert "at fault: 03" not in told.stdout


def test_two_that_fail_only_together_are_found(course: Course, hand_in: HandIn) -> None:
    once = course.read("reference/tinytorch/tensor.py") + (
        "\n\nright, calls = mean, []\n\n\ndef mean(numbers):\n    calls.append(1)\n"
        "    return right(numbers) + (len(calls) > 1)\n"
    )
    twice = course.read("reference/tinytorch/layers.py").replace(
        "middle = mean(numbers)", "mean(numbers)\n    middle = mean(numbers)"
    )
    told = course.dojo("compare", str(hand_in("ana", tensor=once, layers=twice)), "03", "--tests-only")
    for module in ("02 tensor", "03 layers"):
        assert (
            f"at fault: {module}, with others: with the reference's in its place, 1 of 1 pass" in told.stdout
        )


def test_programs_get_every_test_and_the_lines_that_none_runs(course: Course, hand_in: HandIn) -> None:
    text = course.read("reference/tinytorch/setup.py") + "\n\ndef spare():\n    return 1\n"
    told = course.dojo("compare", str(hand_in("ana", setup=text)), "01", "--json")
    assert told.returncode == 0, told.stderr
    (found,) = json.loads(told.stdout)
    assert set(found["tests"].values()) == {"passed"}
    assert found["faults"] == []
    assert found["coverage"]["missing"] == [len(text.splitlines())]
    assert [cost["trouble"] != "" for cost in found["costs"]] == [True, True]  # this course has no probes


def test_what_cannot_be_compared_is_one_line(course: Course, hand_in: HandIn) -> None:
    folder = str(hand_in("ana", tensor=None))
    hand_in("bea")
    for args, status, words in (
        ([folder, "03"], 1, "03 layers needs tensor.py, which was not handed in"),
        ([folder, "17"], 1, "17 kernels is not written yet"),
        (["nowhere"], 2, "nowhere: there is no such folder or zip"),
        ([str(Path(folder).parent), "03"], 2, f"holds 2 submissions; name one of them, as {folder}"),
        ([folder, "m9"], 2, "there is no kata 'm9'; the katas are 01 setup"),
        ([folder, "m9"], 2, "20 competition; the milestones m1 inference, m2 vision"),
    ):
        done = course.dojo("compare", *args)
        assert done.returncode == status
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_milestone_stands_on_all_before_it_and_a_kata_on_what_it_needs() -> None:
    assert [kata.number for kata in stack(MILESTONES[0])] == ["01", "02", "03", "04", "05"]
    assert [kata.number for kata in stack(BY_NUMBER["08"])] == ["01", "02", "03", "04", "05", "06", "08"]


def test_lines_are_joined_to_ranges() -> None:
    assert ranges((3, 4, 5, 9)) == "3-5, 9"
    assert ranges(()) == ""


def test_costs_are_ratios_at_the_largest_size_that_both_could_do() -> None:
    from dojo.grading.beside import _cost

    series = (
        Series(YOURS, (10, 20), (1.0, 3.0), (8, 0), "stopped at n = 20"),
        Series(REFERENCE, (10, 20, 40), (1.0, 1.5, 3.0), (4, 0, 9)),
    )
    cost = _cost(Comparison("p", (10, 20, 40), 1, 1, None, None, "float64", series))
    assert (cost.size, cost.time, cost.memory, cost.trouble) == (20, 2.0, 1.0, "stopped at n = 20")
