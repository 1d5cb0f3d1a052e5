"""A submission beside the reference: which tests pass, what it costs, what of it is run, who is at fault."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dojo import manifest
from dojo.curriculum import Kata, Unit
from dojo.grading import plain
from dojo.grading.blame import Fault, faults
from dojo.grading.covered import Coverage, coverage_of
from dojo.grading.leash import Leash
from dojo.grading.results import PASSED, Outcome
from dojo.grading.text import short
from dojo.measuring.comparing import REFERENCE, YOURS, Comparison
from dojo.measuring.comparing import compare as measure


@dataclass(frozen=True)
class Cost:
    """One probe at the largest size that both could do: the submission's over the reference's."""

    probe: str
    size: int | None
    time: float | None
    memory: float | None
    trouble: str = ""


@dataclass(frozen=True)
class Beside:
    """One kata or milestone.  `tests` has the state of each sealed one, `reasons` why it did not pass."""

    unit: Unit
    outcome: Outcome
    tests: dict[str, str]
    reasons: dict[str, str]
    faults: tuple[Fault, ...] = ()
    coverage: Coverage | None = None
    costs: tuple[Cost, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "unit": self.unit.number,
            "outcome": self.outcome.as_data(),
            "tests": self.tests,
            "reasons": self.reasons,
            "faults": [fault.as_data() for fault in self.faults],
            "coverage": asdict(self.coverage) if self.coverage else None,
            "costs": [asdict(cost) for cost in self.costs],
        }


def compare(
    unit: Unit,
    copies: Path,
    limit: float,
    leash: Leash,
    costs: bool = True,
    tell: Callable[[str], object] = lambda doing: None,
) -> Beside:
    """Compare what is in `copies` with the reference, by the suite and the probes of `unit`."""
    spec = str(copies)
    tell(f"{unit}: its tests")
    told = plain.ask(unit, spec, copies, limit, leash)
    tests = {test: told.states.get(test, "missing") for test in manifest.read(unit).tests}
    reasons = {test: short(words) for test, words in told.reasons.items()}
    beside = Beside(unit, plain.judge(unit, told), tests, reasons)
    failing = [test for test, state in tests.items() if state in ("failed", "todo", "skipped", "missing")]
    found: tuple[Fault, ...] = ()
    if beside.outcome.state != PASSED and failing:
        tell(f"{unit}: whose fault it is")
        found = tuple(faults(unit, failing, copies, limit, leash))
    if isinstance(unit, Kata) and costs:
        tell(f"{unit}: what its suite runs of it")
        coverage = coverage_of(unit, spec, copies / f"{unit.name}.py", limit, leash)
        tell(f"{unit}: what it costs")
        return Beside(unit, beside.outcome, tests, reasons, found, coverage, tuple(_costs(unit, spec)))
    return Beside(unit, beside.outcome, tests, reasons, found)


def _costs(kata: Kata, spec: str) -> Iterator[Cost]:
    report = measure(kata, spec, torch=False)
    for comparison in report.comparisons:
        yield _cost(comparison)
    for source, trouble in report.troubles.items():
        yield Cost(source, None, None, None, short(trouble))


def _cost(comparison: Comparison) -> Cost:
    yours, ours = comparison.by(YOURS), comparison.by(REFERENCE)
    common = min(len(yours.seconds), len(ours.seconds))
    if not common:
        return Cost(comparison.name, None, None, None, short(yours.trouble or ours.trouble or "not measured"))
    last = common - 1
    peaks = min(len(yours.peaks), len(ours.peaks)) > last
    return Cost(
        comparison.name,
        comparison.sizes[last],
        _ratio(yours.seconds[last], ours.seconds[last]),
        _ratio(yours.peaks[last], ours.peaks[last]) if peaks else None,
        short(yours.trouble or ""),
    )


def _ratio(mine: float, theirs: float) -> float | None:
    """None where there is nothing to compare with: both, or only the reference, needed nothing."""
    ratio = mine / theirs if theirs else (1.0 if not mine else math.inf)
    return round(ratio, 3) if math.isfinite(ratio) else None
