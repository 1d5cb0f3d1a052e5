"""A kata's own suite on a submission, in one child process: right for work that was honestly done.

The student's code runs beside the tests and could change what they say (docs/grading.md has a table of ways).
`strict` is for when that matters.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dojo import manifest
from dojo.authoring import suites
from dojo.authoring.outcomes import VARIABLE, WORST_LAST
from dojo.curriculum import Kata
from dojo.grading.keys import How, sources
from dojo.grading.leash import Ended, Leash
from dojo.grading.results import BLOCKED, FAILED, PASSED, TODO, WEIGHTS, Outcome, Part
from dojo.grading.submissions import Submission
from dojo.grading.text import short


def run(submission: Submission, kata: Kata, how: How, leash: Leash) -> Outcome:
    """The outcome of `kata`.

    Raises:
        Stopped: the leash was.
    """
    with tempfile.TemporaryDirectory(prefix="dojo-", ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        copies, lines = work / "tinytorch", work / "outcomes.jsonl"
        scratch = work / "scratch"
        for new in (copies, scratch):
            new.mkdir()
        for name, text in sources(submission, kata, how).items():
            (copies / f"{name}.py").write_bytes(text)
        spec = suites.planted(kata, copies / f"{kata.name}.py") if how.borrow else str(copies)
        command = ["-B", "-m", "pytest", str(kata.path), "--impl", spec, "-q", "--no-header", "--color=no"]
        command += ["-p", "dojo.authoring.outcomes", "-p", "dojo.grading.tether", "-p", "no:cacheprovider"]
        places = dict.fromkeys(("TMPDIR", "TMP", "TEMP", "HOME"), str(scratch))
        ended = leash.run(command, how.limit, suites.environment(**{VARIABLE: str(lines)}, **places))
        return judge(kata, ended, _lines(lines, copies))


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


def judge(kata: Kata, ended: Ended, lines: list[dict[str, Any]]) -> Outcome:
    """The outcome that a child's lines amount to; only a sealed test that passed counts."""
    sealed = manifest.read(kata).tests
    states: dict[str, str] = {}
    called: set[str] = set()  # of the others, only a set-up is known: the child ended in their body
    reasons: dict[str, str] = {}
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
    troubles = [str(line.get("words", "")) for line in lines if line.get("kind") == "trouble"]
    whole = any(line.get("kind") == "end" for line in lines)
    if ended.status is None:
        troubles.append("it was stopped at the time limit: is there a loop that never ends?")
    elif not whole:
        troubles.append(f"the run broke off: {_last(ended.output) or f'exit status {ended.status}'}")
    levels = sorted({_level(test) for test in sealed})
    parts = [_part(n, [t for t in sealed if _level(t) == n], states, reasons) for n in levels]
    if troubles and all(part.state == PASSED for part in parts):
        parts[-1] = replace(parts[-1], state=FAILED, passed=0, words=short(troubles[0]))
    words = next(iter([*troubles, *(part.words for part in parts if part.words)]), "")
    passed = not troubles and all(part.state == PASSED for part in parts)
    untouched = parts[0].state == TODO and not troubles
    state = PASSED if passed else TODO if untouched else FAILED
    return Outcome(kata.number, state, tuple(parts), short(words), round(ended.seconds, 2))


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
    number = test.removeprefix("test_").partition("_")[0]
    return int(number) if number.isdigit() else 1


def _last(output: str) -> str:
    return output.strip().rpartition("\n")[2]
