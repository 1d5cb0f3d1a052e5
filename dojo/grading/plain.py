"""A kata's own suite on a submission, in one child process: right for work that was honestly done.

The student's code runs beside the tests and could change what they say (docs/grading.md has a table of ways).
`strict` is for when that matters.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dojo import manifest
from dojo.authoring import suites
from dojo.authoring.outcomes import VARIABLE, WORST_LAST
from dojo.curriculum import Kata, Unit
from dojo.grading import sandbox
from dojo.grading.keys import How, sources
from dojo.grading.leash import Ended, Leash
from dojo.grading.results import BLOCKED, FAILED, PASSED, TODO, WEIGHTS, Outcome, Part
from dojo.grading.submissions import Submission
from dojo.grading.text import short
from dojo.plugin.units import level_of


@dataclass(frozen=True)
class Told:
    """What a suite's child told: the state of each sealed test it came to, and why it failed or broke off."""

    states: dict[str, str]
    reasons: dict[str, str]
    troubles: list[str]
    seconds: float


def run(submission: Submission, kata: Kata, how: How, leash: Leash) -> Outcome:
    """The outcome of `kata`; in a cell where `how` is strict.

    Raises:
        Stopped: the leash was.
        OSError: there are no cells on this machine.
    """
    with laid_out(sources(submission, kata, how)) as copies:
        spec = suites.planted(kata, copies / f"{kata.name}.py") if how.borrow else str(copies)
        return judge(kata, ask(kata, spec, copies, how.limit, leash, celled=how.strict))


@contextmanager
def laid_out(files: Mapping[str, bytes]) -> Iterator[Path]:
    """A folder with the modules of a submission, by their names, for a composition to name."""
    with tempfile.TemporaryDirectory(prefix="dojo-", ignore_cleanup_errors=True) as folder:
        copies = Path(folder) / "tinytorch"
        copies.mkdir()
        for name, text in files.items():
            (copies / f"{name}.py").write_bytes(text)
        yield copies


def ask(
    unit: Unit,
    spec: str,
    copies: Path,
    limit: float,
    leash: Leash,
    tests: Sequence[str] = (),
    celled: bool = False,
) -> Told:
    """Run the suite of `unit`, or only some of its `tests`, with tinytorch from `spec`, in one child.

    Raises:
        Stopped: the leash was.
    """
    with tempfile.TemporaryDirectory(prefix="dojo-", ignore_cleanup_errors=True) as folder:
        lines = Path(folder) / "outcomes.jsonl"
        paths = [str(unit.path / test) for test in tests] or [str(unit.path)]
        command = ["-B", "-m", "pytest", *paths, "--impl", spec, "-m", "not real_data"]
        command += ["-q", "--no-header", "--color=no", "-p", "no:cacheprovider"]
        command += ["-p", "dojo.authoring.outcomes", "-p", "dojo.grading.tether"]
        places = dict.fromkeys(("TMPDIR", "TMP", "TEMP", "HOME"), folder)
        places["HYPOTHESIS_STORAGE_DIRECTORY"] = folder
        environment = suites.environment(**{VARIABLE: str(lines)}, **places)
        if celled:
            with sandbox.suite_cell(command, environment, copies, Path(folder)) as program:
                ended = leash.run(program, limit, environment, python=False)
        else:
            ended = leash.run(command, limit, environment)
        return hear(unit, ended, _lines(lines, copies))


def _lines(file: Path, copies: Path) -> list[dict[str, Any]]:
    """What the child wrote, as far as it is whole: it may have been killed in the middle of a line.

    Paths are as the student knows them, and the same in every run.
    """
    found = []
    text = file.read_bytes().decode("utf-8", "replace") if file.exists() else ""
    for line in text.replace(str(copies), "stubs/tinytorch").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return found


def hear(unit: Unit, ended: Ended, lines: list[dict[str, Any]]) -> Told:
    """What a child's lines say of the sealed tests, and of files that could not be imported; no more."""
    sealed = set(manifest.read(unit).tests)
    states: dict[str, str] = {}
    reasons: dict[str, str] = {}
    called: set[str] = set()  # of the others, only a set-up is known: the child ended in their body
    for line in lines:
        if line.get("kind") == "test" and line.get("id") in sealed and line.get("state") in WORST_LAST:
            states[line["id"]] = max(states.get(line["id"], "passed"), line["state"], key=WORST_LAST.index)
            if line.get("when") == "call":
                called.add(line["id"])
            if line["state"] in ("failed", "todo"):
                reasons.setdefault(line["id"], str(line.get("words", "")))
    for test in states.keys() - called:
        if states[test] == "passed":
            states[test] = "missing"
    troubles = [
        str(line.get("words", ""))
        for line in lines
        if line.get("kind") == "trouble"
        # A file whose tests are not known, for the stub did not get it imported, has this one in their place.
        or (line.get("state") == "failed" and str(line.get("id")).endswith("::the_stub_can_be_imported"))
    ]
    if ended.status is None:
        troubles.append("it was stopped at the time limit: is there a loop that never ends?")
    elif not any(line.get("kind") == "end" for line in lines):
        troubles.append(f"the run broke off: {_last(ended.output) or f'exit status {ended.status}'}")
    return Told(states, reasons, troubles, ended.seconds)


def judge(unit: Unit, told: Told) -> Outcome:
    """The outcome that this amounts to; only a sealed test that passed counts."""
    sealed = manifest.read(unit).tests
    levels = sorted({_level(test) for test in sealed})
    parts = [_part(n, [t for t in sealed if _level(t) == n], told.states, told.reasons) for n in levels]
    if told.troubles and all(part.state == PASSED for part in parts):
        parts[-1] = replace(parts[-1], state=FAILED, passed=0, words=short(told.troubles[0]))
    words = next(iter([*told.troubles, *(part.words for part in parts if part.words)]), "")
    passed = not told.troubles and all(part.state == PASSED for part in parts)
    untouched = parts[0].state == TODO and not told.troubles
    state = PASSED if passed else TODO if untouched else FAILED
    return Outcome(unit.number, state, tuple(parts), short(words), round(told.seconds, 2))


def _part(level: int, tests: list[str], states: Mapping[str, str], reasons: Mapping[str, str]) -> Part:
    counts = Counter(states.get(test, "missing") for test in tests)
    passed = counts["passed"]
    if passed == len(tests):
        state = PASSED
    elif counts["blocked"] + counts["missing"] == len(tests):
        state = BLOCKED
    else:
        state = TODO if counts["todo"] and not passed and not counts["failed"] else FAILED
    words = next((f"{test}: {reasons[test]}" for test in tests if test in reasons), "")
    return Part(f"level {level}", state, passed, len(tests), WEIGHTS.get(level, 1), short(words))


def _level(test: str) -> int:
    """The level of a test's id, as `test_2_properties.py::test_x`."""
    return level_of(Path(test.partition("::")[0]))


def _last(output: str) -> str:
    return output.strip().rpartition("\n")[2]
