"""Asks a kata's strict.py about the reference, which must hold, and about the blank stub, which must not.

    python -m dojo.authoring.strictly 02        with TINYTORCH_IMPL saying where kata 02 comes from

prints, as JSON, what each check says: "" when it holds.  As in a trusted grade, a `run_...` function sees the
imports of its file and the other `run_...` functions, and nothing else.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dojo import compose
from dojo.authoring import suites
from dojo.curriculum import Kata, find
from dojo.grading import questions
from dojo.strict import Check

if TYPE_CHECKING:
    import numpy as np

ENOUGH = 5
DRAWS = 5


def strict_problems(kata: Kata) -> list[str]:
    """Too few checks, checks that the reference fails, and checks that a blank stub passes."""
    file = f"{kata.shown}/strict.py"
    if not (kata.path / "strict.py").exists():
        return [f"{file} is missing; it needs {ENOUGH} checks (see dojo/strict.py)"]
    answers = _ask(kata, "reference")
    if isinstance(answers, str):
        return [f"{file} cannot be used: {answers}"]
    problems = [
        f"{file}: {name!r} does not hold for the reference: {words}" for name, words in answers if words
    ]
    problems += [
        f"{file}: {count} checks are called {name!r}; a grade could not tell them apart"
        for name, count in Counter(name for name, _ in answers).items()
        if count > 1
    ]
    if len(answers) < ENOUGH:
        problems.append(f"{file} lists {len(answers)} checks in CHECKS; a kata needs {ENOUGH}")
    with suites.blank_stub(kata) as stub:
        blank = _ask(kata, suites.planted(kata, stub))
    if isinstance(blank, str):
        return [*problems, f"{file} cannot be used with the blank stub: {blank}"]
    return problems + [f"{file}: {name!r} holds for the blank stub" for name, words in blank if not words]


def _ask(kata: Kata, spec: str) -> list[tuple[str, str]] | str:
    """What each check says about `spec`, with its name; a sentence when they cannot be asked."""
    command = ["-m", "dojo.authoring.strictly", kata.number]
    status, output = suites.child(command, **{compose.VARIABLE: spec})
    last = output.strip().rpartition("\n")[2]
    if status is None:
        return "it does not come to an end"
    if status:
        return last or f"exit status {status}"
    return [(name, words) for name, words in json.loads(last)]


def judge(check: Check, run: Any, student: Any, rng: np.random.Generator) -> str:
    """Why `check` does not hold for `student`, for arrays drawn from `rng`; empty when it does."""
    arrays = check.draw(rng)
    try:
        got = run(student, **{name: array.copy() for name, array in arrays.items()})
    except Exception as error:
        return f"{type(error).__name__}: {error}".partition("\n")[0]
    expected = check.expected(**arrays)
    words = filter(None, map(questions.unfit, (*arrays.values(), got, expected)))
    return next(words, "") or questions.difference(check, got, expected)


def worker_functions(file: Path) -> dict[str, Any]:
    """The `run_...` functions of a strict.py, in a world that holds its imports and nothing else of it."""
    world: dict[str, Any] = {"__name__": "strict"}
    exec(compile(questions.what_travels(file), str(file), "exec", dont_inherit=True), world)
    return world


def main(number: str) -> int:
    import numpy as np

    kata = find(number)
    file = kata.path / "strict.py"
    checks: tuple[Check, ...] = getattr(compose.load_file(file), "CHECKS", ())
    world = worker_functions(file)
    compose.reach()
    student = importlib.import_module(kata.module)
    answers = []
    for check in checks:
        name = check.run.__name__
        words = "" if name in world else f"{name} should be called run_..., to travel to the worker"
        for seed in range(DRAWS):
            words = words or judge(check, world.get(name), student, np.random.default_rng(seed))
        answers.append((check.name, words))
    print(json.dumps(answers))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
