"""Asks `warm` what becomes of each mutant, and reads the answer against the kata's list of equivalent ones.

`EQUIVALENT` in reference/mistakes/NN_name.py maps a mutant's id to the reason why no test of behaviour can
tell it from the original.  A survivor that is not listed is a hole in the suite; a listed id that does not
exist any more, or is caught now, is stale.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dojo.authoring import forking, mistakes, suites
from dojo.console import children
from dojo.curriculum import Kata

LIST = "EQUIVALENT"
ENOUGH = 0.95  # of all mutants, equivalent ones included
POSSIBLE = forking.POSSIBLE
IMPOSSIBLE = (
    "mutants need os.fork, which this system does not have; run `dojo check --mutants` on Linux or macOS "
    "(or in WSL)"
)


@dataclass(frozen=True)
class Verdict:
    """What became of one mutant: `verdict` is caught, survived or not python (and then it does not count)."""

    id: str
    verdict: str
    how: str
    by: str


@dataclass
class Result:
    """All mutants of a kata; `seconds` is the wall time, with start-up and the run under coverage."""

    verdicts: list[Verdict] = field(default_factory=list)
    equivalent: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    trouble: str = ""
    every: int = 1  # of how many mutants one was run

    @property
    def judged(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.verdict != "not python"]

    @property
    def caught(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.verdict == "caught"]

    @property
    def rate(self) -> float:
        return len(self.caught) / len(self.judged) if self.judged else 0.0

    @property
    def a_minute(self) -> float:
        return 60 * len(self.judged) / self.seconds if self.seconds else 0.0

    @property
    def unexplained(self) -> list[Verdict]:
        """Survivors that EQUIVALENT says nothing about."""
        return [
            v for v in self.judged if v.verdict == "survived" and not self.equivalent.get(v.id, "").strip()
        ]

    @property
    def stale(self) -> list[str]:
        """Entries of EQUIVALENT that explain nothing, and why; a sample of the mutants cannot tell."""
        if self.every > 1:
            return []
        verdicts = {verdict.id: verdict for verdict in self.verdicts}
        lines = []
        for name in self.equivalent:
            verdict = verdicts.get(name)
            if verdict is None:
                lines.append(f"{name}: there is no such mutant any more")
            elif verdict.verdict == "caught":
                lines.append(f"{name}: it is caught, by {verdict.by}")
        return lines

    def advice(self, file: str) -> str:
        """What to do about survivors; empty when there is nothing to do."""
        what = f"add a test that notices it, or its id (as printed) and the reason to {LIST} in {file}"
        return f"for each mutant that survives, {what}" if self.unexplained else ""

    def problems(self, file: str) -> list[str]:
        """What keeps the kata from passing; `file` is where EQUIVALENT is."""
        if self.trouble:
            return [self.trouble]
        problems = [f"survives{f' ({v.how})' * bool(v.how)}: {v.id}" for v in self.unexplained]
        problems += [f"{LIST} in {file} is stale: {line}; take it out" for line in self.stale]
        if self.rate < ENOUGH and self.every == 1:  # a sample has too few for a rate
            problems.append(
                f"{len(self.caught)} of {len(self.judged)} mutants are caught, {self.rate:.1%}; "
                f"at least {ENOUGH:.0%} should be"
            )
        return problems


def equivalent(kata: Kata) -> dict[str, str]:
    """The kata's list of mutants that nobody can tell from the original, with the reasons."""
    found = getattr(mistakes.load(kata), LIST, {})
    return {str(name): str(reason) for name, reason in found.items()}


def hunt(
    kata: Kata, progress: Callable[[int, int], None] = lambda done, total: None, every: int = 1
) -> Result:
    """Run the suite of `kata` against its mutants, or each `every`th; `progress` hears how far it is."""
    result = Result(equivalent=equivalent(kata), every=every)
    total, started, ended = 0, time.monotonic(), False
    with _process(kata, every) as (lines, complaints):
        for line in lines:
            if line["kind"] == "begin":
                total = line["mutants"]
            elif line["kind"] == "mutant":
                result.verdicts.append(Verdict(line["id"], line["verdict"], line["how"], line["by"]))
                progress(len(result.verdicts), total)
            elif line["kind"] == "trouble":
                result.trouble = line["words"]
            else:
                ended = True
        result.seconds = time.monotonic() - started
        if not ended and not result.trouble:
            result.trouble = f"the mutants were not all judged: {complaints()}"
    return result


@contextmanager
def _process(kata: Kata, every: int) -> Iterator[tuple[Iterator[dict[str, Any]], Callable[[], str]]]:
    """The lines of a warm process, and what gives its last words; all its children end with the block."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = children.start(
            ["-m", "dojo.authoring.warm", kata.number, str(suites.JOBS), str(every)],
            env=suites.environment(),
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
        )

        def complaints() -> str:
            process.wait()
            errors.seek(0)
            return (errors.read().strip().splitlines() or [f"exit status {process.returncode}"])[-1]

        assert process.stdout is not None
        try:
            with process.stdout:
                yield map(json.loads, process.stdout), complaints
        finally:
            children.end(process)
