"""Grading on Gradescope: the package, and the program that it runs for each submission.

    python -m dojo.grading.gradescope /autograder

reads submission/ and writes results/results.json, in the format of
https://gradescope-autograders.readthedocs.io/en/latest/specs/ .  `run_autograder` writes one with no points
first, and this program rewrites it after each kata, so that whatever happens there is a valid one.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dojo.commands.doctor import requirements
from dojo.curriculum import BY_NUMBER, ROOT, Kata, find
from dojo.grading import sandbox
from dojo.grading.keys import How
from dojo.grading.one import grade_one
from dojo.grading.reports import write
from dojo.grading.results import PASSED, POINTS, Outcome
from dojo.grading.submissions import Submission, read
from dojo.threads import use_one_thread

TEMPLATES = Path(__file__).parent / "templates"
SETTINGS = "grading.json"
COURSE = "course"  # the folder of this repository in the package
FOLDERS = ("dojo", "reference/tinytorch", "stubs/tinytorch")
LIMIT = 120.0  # seconds for a kata: half a processor is a third of what suites are tried on


def package(path: Path, katas: Sequence[Kata], strict: bool) -> None:
    """Write the zip for Gradescope, which grades `katas`."""
    temporary = path.with_name(f".{path.name}.tmp")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("setup.sh", "run_autograder"):
            entry = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            entry.external_attr = 0o755 << 16
            archive.writestr(entry, (TEMPLATES / name).read_bytes().replace(b"\r\n", b"\n"))
        settings = {"katas": [kata.number for kata in katas], "strict": strict, "limit": LIMIT}
        archive.writestr(SETTINGS, json.dumps(settings, indent=1) + "\n")
        needed = requirements((ROOT / "pyproject.toml").read_text("utf-8")).packages
        archive.writestr(
            "requirements.txt", "".join(f"{name}{at_least}\n" for name, at_least in needed.items())
        )
        for file in _files(katas):
            archive.write(file, f"{COURSE}/{file.relative_to(ROOT).as_posix()}")
    os.replace(temporary, path)


def _files(katas: Sequence[Kata]) -> Iterator[Path]:
    """The harness, the reference, the stubs and the suites; no solutions that nothing is graded by."""
    yield from (ROOT / name for name in sandbox.FILES)
    for folder in (*(ROOT / name for name in FOLDERS), *(kata.path for kata in katas)):
        for file in sorted(folder.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                yield file


def grade(top: Path) -> None:
    """Grade what is in `top`/submission, as the package's settings say."""
    settings = json.loads((ROOT.parent / SETTINGS).read_text("utf-8"))
    katas = [find(number) for number in settings["katas"]]
    how = How(strict=settings["strict"], limit=settings["limit"], secret=os.urandom(32))
    results = top / "results" / "results.json"
    words = "Graded by dojo grade" + (" --strict" if how.strict else "")
    if how.strict:
        use_one_thread()
        walls = sandbox.walls()
        if not walls.hidden:
            raise SystemExit(f"the submission could read the solutions here: {walls}")
    outcomes: dict[str, Outcome] = {}

    def report(key: str, outcome: Outcome) -> None:
        outcomes[outcome.kata] = outcome
        known = [outcomes.get(kata.number) or Outcome(kata.number, "not graded in time") for kata in katas]
        write(results, text_of(known, words))

    submission = read(top / "submission")
    done = grade_one(Submission("submission", submission.files, submission.trouble), katas, how, found=report)
    write(results, text_of(done.outcomes, f"{words}. {done.trouble}" if done.trouble else words))


def text_of(outcomes: Sequence[Outcome], words: str) -> str:
    """results.json: a test for each level (or check) of each kata, with its share of the kata's points."""
    tests = [test for outcome in outcomes for test in _tests(outcome)]
    content = {
        "output": words,
        "stdout_visibility": "hidden",
        "tests": tests,
        "extra_data": {"outcomes": [outcome.as_data() for outcome in outcomes]},
    }
    return json.dumps(content, indent=1) + "\n"


def _tests(outcome: Outcome) -> Iterator[dict[str, Any]]:
    kata = BY_NUMBER[outcome.kata]
    weight = sum(part.weight for part in outcome.parts)
    if not weight:
        score, words = POINTS * outcome.score, f"{outcome.state}. {outcome.words}".strip()
        yield _test(kata, "1", str(kata), score, POINTS, outcome.state == PASSED, words)
        return
    for number, part in enumerate(outcome.parts, 1):
        most = POINTS * part.weight / weight
        why = part.words or (outcome.words if part.name == outcome.reached else "")
        words = f"{part.state}: {part.passed} of {part.total}. {why}".strip()
        share = most * part.passed / part.total
        yield _test(kata, str(number), f"{kata}, {part.name}", share, most, part.state == PASSED, words)


def _test(
    kata: Kata, number: str, name: str, score: float, most: float, passed: bool, words: str
) -> dict[str, Any]:
    return {
        "number": f"{kata.number}.{number}",
        "name": name,
        "score": round(score, 4),
        "max_score": round(most, 4),
        "status": "passed" if passed else "failed",
        "output": words,
        "output_format": "text",
        "visibility": "visible",
        "tags": [kata.folder],
    }


if __name__ == "__main__":
    grade(Path(sys.argv[1]))
