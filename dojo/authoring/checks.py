"""What `dojo check` asks of every kata.  Each check returns its problems, one sentence each; none is good."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

from dojo import manifest, stubs
from dojo.authoring import suites
from dojo.authoring.budgets import budget_problems
from dojo.authoring.examples import example_problems
from dojo.authoring.lessons import hint_problems, section_problems, task_problems
from dojo.authoring.mistakes import listed, misfits, mistakes_file
from dojo.authoring.strictly import strict_problems
from dojo.curriculum import REFERENCE, Kata, from_root
from dojo.mistakes import LEVELS

MISTAKES = 10
ALTERNATIVES = 2
MOST = 10  # tests that one run may name; somebody reads this
ALTERNATIVES_FOLDER = REFERENCE.parent / "alternatives"


def reference_is_green(kata: Kata) -> list[str]:
    """Every test that the manifest seals passes on the reference, and there are tests at all four levels."""
    run = suites.run(kata, "reference")
    problems = _troubles(kata, "on the reference", run)
    problems += _reds("on the reference", run)
    problems += [
        f"{test} is sealed in the manifest but did not run on the reference" for test in _lost(kata, run)
    ]
    there = {outcome.level for outcome in run.outcomes}
    problems += [
        f"{kata.shown} has no test at level {n}: add test_{n}_*.py" for n in LEVELS if n not in there
    ]
    return problems


def blank_stub_is_red(kata: Kata) -> list[str]:
    """No test passes on the blank stub, and what its author sees there are to-do lines.

    Later levels are blocked in the whole run, so each is run alone as well: a test that needs nothing of the
    student's would pass there.  Twins may: the naive version is theirs.
    """
    try:
        with suites.blank_stub(kata) as stub:
            source = suites.planted(kata, stub)
            whole = suites.run(kata, source, steady=True)
            blocked = sorted({outcome.id.partition("::")[0] for outcome in whole.having("blocked")})
            alone = suites.side_by_side(
                lambda file: suites.run(kata, source, files=[file], steady=True), blocked
            )
    except SyntaxError as error:
        return [f"{from_root(kata.reference)}:{error.lineno}: {error.msg}"]
    problems = _troubles(kata, "on the blank stub", whole)
    for outcome in whole.outcomes:
        if outcome.state in ("passed", "skipped"):
            problems.append(
                f"{outcome.id} {outcome.state} on the blank stub: it tests nothing that is to be written"
            )
        elif outcome.state == "failed":
            problems.append(f"{outcome.id} shows no to-do line on the blank stub, but: {outcome.words}")
    problems += [
        f"{test} is sealed in the manifest but did not run on the blank stub" for test in _lost(kata, whole)
    ]
    for run in alone:
        problems += _troubles(kata, "on the blank stub", run)
        problems += [
            f"{outcome.id} would pass on the blank stub, were it not blocked: it tests nothing of the task"
            for outcome in run.having("passed")
            if not outcome.is_twin
        ]
    return problems


def stub_is_fresh(kata: Kata) -> list[str]:
    """The shipped stub is what the reference implies."""
    names = (from_root(kata.stub), from_root(kata.reference))
    return [line for line in stubs.stale() if any(name in line for name in names)]


def manifest_is_fresh(kata: Kata) -> list[str]:
    """The manifest seals the suite as it is now."""
    try:
        fresh = manifest.is_fresh(kata)
    except RuntimeError as error:
        return [str(error)]
    return [] if fresh else [f"{kata.shown}/manifest.json is stale: run `dojo manifest {kata.number}`"]


def has_tasks(kata: Kata) -> list[str]:
    return (
        []
        if stubs.tasks(kata)
        else [f"{from_root(kata.reference)} marks no task (`# kata {kata.number}.1: hint`)"]
    )


def has_mistakes(kata: Kata) -> list[str]:
    """Enough believable wrong solutions are written down, and each fits the reference."""
    file = mistakes_file(kata)
    if not file.exists():
        return [f"{from_root(file)} is missing; it needs {MISTAKES} mistakes (see dojo/mistakes.py)"]
    count = len(listed(kata))
    if count < MISTAKES:
        return [f"{from_root(file)} has {count} mistakes; a kata needs {MISTAKES}"]
    return misfits(kata)


def exports_are_literal(kata: Kata) -> list[str]:
    """`__all__` of the reference is a literal list: dojo reads it without running the file."""
    for statement in ast.parse(kata.reference.read_text("utf-8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            if isinstance(statement.value, ast.List) and all(
                isinstance(name, ast.Constant) for name in statement.value.elts
            ):
                return []
            return [
                f"{from_root(kata.reference)}:{statement.lineno}: write __all__ as a plain list of strings"
            ]
    return [f"{from_root(kata.reference)} has no __all__: list what `from tinytorch import ...` should find"]


def alternatives(kata: Kata) -> list[Path]:
    """The correct solutions of `kata` that were written in another manner."""
    return sorted((ALTERNATIVES_FOLDER / kata.folder).glob("*.py"))


def alternatives_pass(kata: Kata) -> list[str]:
    """The suite tests behaviour: solutions written differently pass as they are."""
    files = alternatives(kata)
    problems = []
    if len(files) < ALTERNATIVES:
        problems.append(
            f"reference/alternatives/{kata.folder}/ has {len(files)} solutions written in another manner; "
            f"a kata needs {ALTERNATIVES}"
        )
    runs = suites.side_by_side(lambda file: suites.run(kata, suites.planted(kata, file)), files)
    for file, run in zip(files, runs, strict=True):
        problems += _troubles(kata, f"with {from_root(file)}", run)
        problems += _reds(f"with {from_root(file)}, which is right", run)
        problems += [f"{test} did not run with {from_root(file)}" for test in _lost(kata, run)]
    return problems


CHECKS: dict[str, Callable[[Kata], list[str]]] = {
    "reference green at every level": reference_is_green,
    "blank stub red, with to-do lines": blank_stub_is_red,
    "stub fresh": stub_is_fresh,
    "manifest fresh": manifest_is_fresh,
    "exports listed": exports_are_literal,
    "tasks marked": has_tasks,
    "three hints a task": hint_problems,
    "README: sections": section_problems,
    "README: tasks": task_problems,
    "README: examples": example_problems,
    "budgets have twins": budget_problems,
    "mistakes listed": has_mistakes,
    "strict checks": strict_problems,
    "alternatives pass": alternatives_pass,
}


def _troubles(kata: Kata, when: str, run: suites.SuiteRun) -> list[str]:
    return [f"{kata.shown} could not be run {when}: {run.trouble}"] if run.trouble else []


def _reds(when: str, run: suites.SuiteRun) -> list[str]:
    """What did not pass; a failure says why, and tests that waited for it are only counted."""
    red, blocked = run.having("failed", "todo", "skipped"), run.having("blocked")
    problems = [f"{outcome.id} is {outcome.state} {when}: {outcome.words}" for outcome in red[:MOST]]
    more = [f"{len(red[MOST:])} more do not pass"] if red[MOST:] else []
    more += [f"{len(blocked)} of later levels are blocked by that"] if blocked else []
    return problems + [f"{words}, {when}" for words in more]


def _lost(kata: Kata, run: suites.SuiteRun) -> list[str]:
    """Tests of the manifest that a run says nothing about."""
    try:
        sealed = manifest.read(kata).tests
    except (OSError, ValueError):
        return []  # manifest_is_fresh says so
    ran = {outcome.id for outcome in run.outcomes}
    return [test for test in sealed if test not in ran]
