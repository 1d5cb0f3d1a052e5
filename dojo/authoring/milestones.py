"""What `dojo check` asks of a milestone: less than of a kata, for a student writes nothing there."""

from __future__ import annotations

from collections.abc import Callable

from dojo import manifest
from dojo.authoring import suites
from dojo.authoring.mistakes import listed, misfits, shown_file
from dojo.curriculum import Milestone

MISTAKES = 5


def reference_is_green(milestone: Milestone) -> list[str]:
    """Every test passes on the reference; one that needs downloaded data, and so is not sealed, may skip."""
    run = suites.run(milestone, "reference")
    problems = [f"{milestone.shown} could not be run on the reference: {run.trouble}"] if run.trouble else []
    sealed = _sealed(milestone)
    problems += [
        f"{outcome.id} is {outcome.state} on the reference: {outcome.words}"
        for outcome in run.outcomes
        if outcome.state != "passed" and not (outcome.state == "skipped" and outcome.id not in sealed)
    ]
    lost = sealed - {outcome.id for outcome in run.outcomes}
    return problems + [f"{test} is sealed in the manifest but did not run" for test in sorted(lost)]


def blank_stubs_are_red(milestone: Milestone) -> list[str]:
    """No test passes while nothing of the framework is written, be it blocked by others or not."""
    files = sorted({test.partition("::")[0] for test in _sealed(milestone)})
    try:
        with suites.blank_stubs() as folder:
            runs = [suites.run(milestone, str(folder), files=[file], steady=True) for file in files]
    except SyntaxError as error:
        return [f"{error.filename}:{error.lineno}: {error.msg}"]
    problems = [
        f"{milestone.shown} could not be run on blank stubs: {run.trouble}" for run in runs if run.trouble
    ]
    return problems + [
        f"{outcome.id} passes on blank stubs: it runs nothing of the framework"
        for run in runs
        for outcome in run.having("passed")
    ]


def manifest_is_fresh(milestone: Milestone) -> list[str]:
    try:
        fresh = manifest.is_fresh(milestone)
    except RuntimeError as error:
        return [str(error)]
    return (
        [] if fresh else [f"{milestone.shown}/manifest.json is stale: run `dojo manifest {milestone.number}`"]
    )


def has_lesson(milestone: Milestone) -> list[str]:
    readme = milestone.path / "README.md"
    return [] if readme.is_file() else [f"{milestone.shown}/README.md is missing"]


def has_mistakes(milestone: Milestone) -> list[str]:
    count = len(listed(milestone))
    if count < MISTAKES:
        return [f"{shown_file(milestone)} has {count} mistakes; it needs {MISTAKES}"]
    return misfits(milestone)


CHECKS: dict[str, Callable[[Milestone], list[str]]] = {
    "reference green": reference_is_green,
    "blank stubs red": blank_stubs_are_red,
    "manifest fresh": manifest_is_fresh,
    "README": has_lesson,
    "mistakes listed": has_mistakes,
}


def _sealed(milestone: Milestone) -> set[str]:
    try:
        return set(manifest.read(milestone).tests)
    except (OSError, ValueError):
        return set()  # manifest_is_fresh says so
