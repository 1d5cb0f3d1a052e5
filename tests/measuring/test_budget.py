import pytest

from dojo.measuring import RECORDED, Budget, Race

BUDGET = Budget(
    "concatenate 16 arrays",
    limit=1.5,
    reference=1.0,
    naive=8.5,
    unit="results held at the worst moment",
    naively="a version that copies pairwise",
)
SPEED = Budget("matmul", limit=3.0, reference=1.1, naive=200.0, unit="times the time of a @ b")


@pytest.fixture(autouse=True)
def recorded():
    before = RECORDED[:]
    RECORDED.clear()
    yield RECORDED
    RECORDED[:] = before


def test_the_message_names_all_three_figures():
    with pytest.raises(AssertionError) as caught:
        BUDGET.check(8.5)
    assert str(caught.value) == (
        "concatenate 16 arrays: 8.5 results held at the worst moment, and the limit is 1.5 "
        "(the reference needs 1.0; a version that copies pairwise needs 8.5)"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1.500001, "1.500001 "),
        (2.0, "2.0 "),
        (123456.0, "123456 "),
        (float("inf"), "inf "),
        (float("nan"), "nan "),
    ],
)
def test_a_figure_over_the_limit_never_reads_like_the_limit(value, shown):
    with pytest.raises(AssertionError, match=f"arrays: {shown}results"):
        BUDGET.check(value)


def test_what_is_checked_is_recorded_and_a_twin_is_not(recorded):
    BUDGET.check(1.25)
    BUDGET.catches(8.5)
    unit = "results held at the worst moment"
    assert recorded == [{"what": "concatenate 16 arrays", "value": 1.25, "limit": 1.5, "unit": unit}]


def test_the_limit_itself_is_allowed():
    BUDGET.check(1.5)
    with pytest.raises(AssertionError, match="catches nothing"):
        BUDGET.catches(1.5)


@pytest.mark.parametrize(("reference", "naive"), [(1.5, 8.5), (1.0, 1.5), (2.0, 8.5), (1.0, 1.2), (9.0, 1.0)])
def test_a_limit_outside_the_gap_is_refused(reference, naive):
    with pytest.raises(ValueError, match="must lie between"):
        Budget("x", limit=1.5, reference=reference, naive=naive, unit="arrays")


def test_a_race_is_judged_by_its_verdict(recorded):
    SPEED.check(Race(ratio=1.2, limit=3.0, within=True, pairs=5))
    SPEED.catches(Race(ratio=150.0, limit=3.0, within=False, pairs=5))
    with pytest.raises(AssertionError, match=r"matmul: 9.31 times the time of a @ b, and the limit is 3 "):
        SPEED.check(Race(ratio=9.312, limit=3.0, within=False, pairs=5))
    with pytest.raises(AssertionError, match="catches nothing"):
        SPEED.catches(Race(ratio=2.0, limit=3.0, within=True, pairs=5))
    assert [r["value"] for r in recorded] == [1.2, 9.312]


def test_a_race_that_could_not_be_judged_skips_and_says_why(recorded):
    race = Race(ratio=float("nan"), limit=3.0, within=None, pairs=0, unjudged="a profiler is running")
    for judge in (SPEED.check, SPEED.catches):
        with pytest.raises(pytest.skip.Exception, match="not judged, because a profiler is running"):
            judge(race)
    assert recorded == []


def test_a_race_to_another_limit_is_a_mistake_of_the_test():
    with pytest.raises(ValueError, match="raced to 2"):
        SPEED.check(Race(ratio=1.0, limit=2.0, within=True, pairs=5))
