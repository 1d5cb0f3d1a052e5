"""A limit on bytes, time or work, with the two figures that show it is fair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from dojo.measuring.speed import Race


class Measurement(TypedDict):
    """One measured budget, as it is written to progress.json."""

    what: str
    value: float
    limit: float
    unit: str


# What the budgets of the running test measured.  The pytest plugin empties it into the test's report.
RECORDED: list[Measurement] = []


@dataclass(frozen=True)
class Budget:
    """What a solution may spend, between what the reference needs and what a naive version needs.

    `unit` completes the sentence "`what`: 8.5 ..." ("results held at the worst moment", "times the time of
    a @ b"), and `naively` says what the naive version does ("a version that copies pairwise").

        CONCATENATE = Budget("concatenate 16 arrays", limit=1.5, reference=1.0, naive=8.5,
                             unit="results held at the worst moment",
                             naively="a version that copies pairwise")

        def test_concatenate_copies_each_array_once():
            CONCATENATE.check(peak_bytes(lambda: concatenate(arrays)) / result_bytes)

        def test_the_twin_that_copies_pairwise_is_caught():
            CONCATENATE.catches(peak_bytes(lambda: pairwise(arrays)) / result_bytes)

    Raises:
        ValueError: the limit does not lie between the reference and the naive version.
    """

    what: str
    limit: float
    reference: float
    naive: float
    unit: str
    naively: str = "a naive version"

    def __post_init__(self) -> None:
        if not self.reference < self.limit < self.naive:
            raise ValueError(
                f"{self.what}: the limit must lie between what the reference and the naive version need, and "
                f"{self.limit:g} is not between {self.reference:g} and {self.naive:g}"
            )

    def check(self, measured: float | Race) -> None:
        """Record `measured` and assert that it is within the limit.

        A race that could not be judged (see `speed.race`) skips the test and says why.
        """
        __tracebackhide__ = True
        value, within = self._judge(measured)
        RECORDED.append({"what": self.what, "value": value, "limit": self.limit, "unit": self.unit})
        if not within:
            raise AssertionError(
                f"{self.what}: {_figure(value, self.limit)} {self.unit}, and the limit is {self.limit:g} "
                f"(the reference needs {_figure(self.reference)}; {self.naively} needs {_figure(self.naive)})"
            )

    def catches(self, measured: float | Race) -> None:
        """Assert that `measured`, which a naive version needed, is beyond the limit.  Records nothing."""
        __tracebackhide__ = True
        value, within = self._judge(measured)
        if within:
            raise AssertionError(
                f"{self.what}: this budget catches nothing: {self.naively} needed "
                f"{_figure(value, self.limit)} {self.unit}, which is within the limit of {self.limit:g} "
                f"(expected {_figure(self.naive)}). This is about the course, or about a very busy machine"
            )

    def _judge(self, measured: float | Race) -> tuple[float, bool]:
        """The figure to print, and whether it is within the limit."""
        from dojo.measuring.quiet import not_judged
        from dojo.measuring.speed import Race

        if not isinstance(measured, Race):
            value = float(measured)
            return value, value <= self.limit
        if measured.limit != self.limit:
            raise ValueError(f"{self.what}: raced to {measured.limit:g}, but the limit is {self.limit:g}")
        if measured.within is None:
            not_judged(self.what, measured.unjudged)
        return measured.ratio, measured.within


def _figure(value: float, limit: float | None = None) -> str:
    """`value` to three figures: 1.0, 8.5, 12300; more where three would print it as equal to `limit`."""
    for digits in (3, 5, 8, 12):
        text = f"{value:#.{digits}g}" if abs(value) < 100 else f"{round(value, digits - 3):.{digits - 3}f}"
        if limit is None or value == limit or float(text) != limit:
            break
    whole, point, fraction = text.partition(".")
    fraction = fraction.rstrip("0") or "0"
    return f"{whole}.{fraction}" if point and "e" not in text and abs(value) < 100 else text
