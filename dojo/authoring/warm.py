"""Runs a kata's suite against every mutant of its reference, from one warm process.

    python -m dojo.authoring.warm 02 JOBS        one JSON object a line on stdout, as `mutation` reads it

Everything heavy is imported once and inherited by fork.  First the suite runs under coverage, to know which
test reaches which line.  Then a child collects the suite and forks for each mutant: the grandchild swaps the
`__code__` of the functions that live already and runs the tests that reach the changed line, those that
caught most so far first, until one fails.  What cannot be swapped, or worked while the module was imported,
gets a child that plants the change at import and collects afresh.  A control without any change goes first.

Levels 3 and 4 measure, so what only they catch must be caught twice; twins measure naive versions and are
left out.  Tests of speed see the survivors of all others.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any

import pytest

from dojo import manifest
from dojo.authoring import forking, swapping
from dojo.authoring.forking import Ending, Page, Task
from dojo.authoring.mutants import Mutant, mutants_of
from dojo.authoring.outcomes import make_hypothesis_steady, state_of, words_of
from dojo.curriculum import Kata, find
from dojo.plugin.twins import TWIN
from dojo.plugin.units import MEASURED_FROM, place_of
from dojo.threads import ONE_THREAD

SPEED = 4
PATIENCE = 10.0  # a test may take so many times what it takes on the reference,
GRACE = 1.0  # and so many CPU seconds on top;
GRACE_TO_MEASURE = 5.0  # or, for one that measures, so many
IMPORT = 30.0  # CPU seconds for collecting afresh
CONTROL = -1  # instead of a mutant's number: the reference as it is, which must survive
IMPORTING = -1  # instead of a test's number, while there is none yet
AT_IMPORT = ""  # coverage's context before the first test: imports and collection

# As conftest.py has it: read when numpy is first imported, which is here. The core of coverage is the one
# that knows which test it is in.
SETTINGS = {**ONE_THREAD, "COVERAGE_CORE": "ctrace"}

ARGUMENTS = ("--impl", "reference", "-q", "-s", "--tb=no", "--timeout=0", "-p", "no:cacheprovider")


class TroubleError(Exception):
    """The mutants cannot be judged."""


class Session:
    """A plugin that has pytest collect the suite, and hands itself and the items to `loop`."""

    def __init__(self, loop: Callable[[Session, list[pytest.Item]], object]) -> None:
        self.loop = loop
        self.seconds: Counter[str] = Counter()
        self.failed: dict[str, str] = {}  # why, by test
        self.words = ""
        self.result: object = None
        self.error: Exception | None = None

    def pytest_configure(self) -> None:
        make_hypothesis_steady()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.words = self.words or f"{report.nodeid} cannot be collected: {report.longrepr}"

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[_name(report)] += report.duration
        if report.failed or state_of(report) == "failed":
            self.failed[_name(report)] = words_of(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        try:
            self.result = self.loop(self, session.items)
        except Exception as error:  # pytest would print it and go on
            self.error = error
        return True

    def main(self, kata: Kata) -> Any:
        """Run pytest with this plugin, and return what the loop did; None if it was never reached."""
        pytest.main([str(kata.path), *ARGUMENTS], plugins=[self])
        if self.error:
            raise self.error
        return self.result


def _name(report: Any) -> str:
    name: str = report.kata["id"] if hasattr(report, "kata") else report.nodeid
    return name


def run_item(items: list[pytest.Item], index: int) -> None:
    following = items[index + 1] if index + 1 < len(items) else None
    items[index].config.hook.pytest_runtest_protocol(item=items[index], nextitem=following)


def id_of(item: pytest.Item) -> str:
    place = place_of(item)
    return place.id if place else item.nodeid


class Baseline:
    """What the suite does on the reference: its tests, their levels and times, the lines they reach."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.names: list[str] = content["names"]
        self.levels: list[int] = content["levels"]
        self.seconds: list[float] = content["seconds"]
        index = {name: i for i, name in enumerate(self.names)}
        self.reach: dict[int, set[int]] = {}
        self.at_import: set[int] = set()
        for line, names in content["lines"].items():
            self.reach[int(line)] = {index[name] for name in names if name in index}
            if AT_IMPORT in names:
                self.at_import.add(int(line))
        self.twins = {i for i, name in enumerate(self.names) if name.partition("::")[2].startswith(TWIN)}

    @classmethod
    def record(cls, kata: Kata) -> Baseline:
        """Run the suite once under coverage, in a child.

        Raises:
            TroubleError: the suite is not green on the reference.
        """
        content = forking.in_child(lambda: _record(kata))
        if content["words"]:
            raise TroubleError(content["words"])
        return cls(content)

    def judging(self, tests: Iterable[int] | None = None) -> tuple[int, ...]:
        """`tests`, or all of them, without twins: these judge a budget and not the code."""
        chosen = range(len(self.names)) if tests is None else sorted(tests)
        return tuple(test for test in chosen if test not in self.twins)

    def reaching(self, mutant: Mutant) -> set[int]:
        """The tests that run a line of the changed statement."""
        return set().union(*(self.reach.get(line, set()) for line in mutant.lines))

    def works_at_import(self, mutant: Mutant) -> bool:
        return not mutant.functions or any(line in self.at_import for line in mutant.lines)


def _record(kata: Kata) -> dict[str, Any]:
    import coverage

    tracer = coverage.Coverage(data_file=None, include=[str(kata.reference)], config_file=False)
    tracer.start()

    def loop(_: Session, items: list[pytest.Item]) -> list[tuple[str, int]]:
        found = []
        for index, item in enumerate(items):
            place = place_of(item)
            if place is not None:
                found.append((place.id, place.level))
                tracer.switch_context(place.id)
                run_item(items, index)
                tracer.switch_context(AT_IMPORT)
        return found

    session = Session(loop)
    tests = session.main(kata) or []
    tracer.stop()
    words = session.words or ("" if tests else f"pytest ran no test of {kata.shown}")
    for name, why in session.failed.items():
        words = f"the suite is not green on the reference: {name}: {why} (see `dojo check {kata.number}`)"
    lines = tracer.get_data().contexts_by_lineno(str(kata.reference))
    return {
        "words": words,
        "names": [name for name, _ in tests],
        "levels": [level for _, level in tests],
        "seconds": [session.seconds[name] for name, _ in tests],
        "lines": lines,
    }


class Hunt:
    """All mutants of one kata, and what becomes of them."""

    def __init__(self, kata: Kata, jobs: int, every: int, emit: Callable[..., None]) -> None:
        self.kata, self.jobs, self.emit = kata, jobs, emit
        self.mutants = mutants_of(kata.reference.read_text("utf-8"))
        self.chosen = range(0, len(self.mutants.all), every)
        self.baseline = Baseline.record(kata)
        self.kills: Counter[int] = Counter()
        self.leftover: list[int] = []
        self.afresh = False
        self.seal = _seal(kata)

    def run(self) -> None:
        self.emit(kind="begin", mutants=len(self.chosen), tests=len(self.baseline.names))
        answer = forking.in_child(self._swap_all)
        if words := answer.get("words"):
            raise TroubleError(words)
        self.kills.update({int(test): count for test, count in answer["kills"].items()})
        self.afresh = True
        if leftover := answer["leftover"]:
            tasks = [Task(index, self.baseline.judging(), last=True) for index in (CONTROL, *leftover)]
            forking.run_tasks(tasks, self.jobs, self._work_afresh, self._seconds, self._settle)
        if self.seal != _seal(self.kata):
            raise TroubleError(
                f"the suite or the reference of {self.kata} was edited meanwhile; run it again"
            )

    def _swap_all(self) -> dict[str, Any]:
        """In a child that collects the suite once: swap what can be swapped, and tell what is left."""
        session = Session(self._swap_loop)
        done = session.main(self.kata)
        words = session.words or ("" if done else "pytest stopped before its first test")
        return {"words": words, "leftover": self.leftover, "kills": self.kills}

    def _swap_loop(self, session: Session, items: list[pytest.Item]) -> bool:
        live = swapping.live_functions(self.kata.reference)
        gc.collect()
        gc.freeze()  # the children's collections need not look at what is here already

        def work(task: Task, page: Page) -> int:
            try:
                if mutant := self._mutant(task):
                    swapping.swap(mutant, self._code(mutant), live)
            except SyntaxError:
                return forking.NOT_PYTHON
            except swapping.UnswappableError:
                return forking.UNSWAPPABLE
            return self._try(session, items, task, page)

        tasks = [Task(CONTROL, self.baseline.judging(), last=True)]
        for index in self.chosen:
            mutant = self.mutants.all[index]
            reached = self.baseline.reaching(mutant)
            if mutant.functions and reached:
                tasks.append(Task(index, self._ordinary(reached)))
            elif self.baseline.works_at_import(mutant):
                self.leftover.append(index)
            else:
                self.emit(kind="mutant", id=mutant.id, verdict="survived", how="no test reaches it", by="")
        forking.run_tasks(tasks, self.jobs, work, self._seconds, self._settle)
        return True

    def _work_afresh(self, task: Task, page: Page) -> int:
        """In a child that has not imported tinytorch: plant the mutant, collect, run."""
        page.at = IMPORTING
        forking.limit_cpu(IMPORT)
        try:
            code = self._code(self._mutant(task))
        except SyntaxError:
            return forking.NOT_PYTHON
        swapping.plant_at_import(self.kata.module, self.kata.reference, code)

        def loop(session: Session, items: list[pytest.Item]) -> int:
            if session.words or [id_of(item) for item in items] != self.baseline.names:
                return forking.CAUGHT  # it cannot even be collected, or not as the same suite
            return self._try(session, items, task, page)

        session = Session(loop)
        status = session.main(self.kata)
        return forking.CAUGHT if status is None else int(status)

    def _mutant(self, task: Task) -> Mutant | None:
        """The mutant of a task; None for the control, which changes nothing."""
        return None if task.mutant == CONTROL else self.mutants.all[task.mutant]

    def _code(self, mutant: Mutant | None) -> CodeType:
        return swapping.code_of(mutant, self.mutants.tree, self.kata.reference)

    def _try(self, session: Session, items: list[pytest.Item], task: Task, page: Page) -> int:
        """Run tests until one fails: those that caught most so far first, and what measures last."""
        by_name = {id_of(item): item for item in items}
        baseline = self.baseline
        tests = sorted(
            task.tests,
            key=lambda test: (
                max(baseline.levels[test], MEASURED_FROM - 1),
                -self.kills[test],
                baseline.seconds[test],
            ),
        )
        chosen = [by_name[baseline.names[test]] for test in tests]
        for index, test in enumerate(tests):
            page.at = test
            grace = GRACE if baseline.levels[test] < MEASURED_FROM else GRACE_TO_MEASURE
            forking.limit_cpu(grace + PATIENCE * baseline.seconds[test])
            run_item(chosen, index)
            if session.failed:
                return forking.CAUGHT
        return forking.SURVIVED

    def _settle(self, task: Task, ending: Ending) -> Iterable[Task]:
        """What follows from a child's ending: further tasks, or a verdict."""
        mutant, status = self._mutant(task), ending.status
        if status == forking.BROKEN:
            raise TroubleError(f"running {mutant.id if mutant else 'the control'!r} failed:\n{ending.words}")
        if status == forking.SURVIVED:
            return self._survived(task, mutant)
        if status == forking.UNSWAPPABLE:
            self.leftover.append(task.mutant)
            return []
        if status == forking.NOT_PYTHON and mutant:
            self.emit(kind="mutant", id=mutant.id, verdict="not python", how="", by="")
            return []
        if ending.at >= 0 and self.baseline.levels[ending.at] >= MEASURED_FROM and not task.confirming:
            rest = tuple(test for test in task.tests if test != ending.at)
            return [Task(task.mutant, (ending.at,), confirming=True, rest=rest, last=task.last)]
        by = self.baseline.names[ending.at] if ending.at >= 0 else "while it is imported"
        if mutant is None:
            raise TroubleError(
                f"{by} {forking.HOW[status]} on the unchanged reference, in a forked process and in another "
                "order of tests; so what it says about a mutant means nothing"
            )
        self.kills[ending.at] += 1
        self.emit(kind="mutant", id=mutant.id, verdict="caught", how=forking.HOW[status], by=by)
        return []

    def _survived(self, task: Task, mutant: Mutant | None) -> Iterable[Task]:
        if task.rest:
            return [Task(task.mutant, task.rest, last=task.last)]
        if mutant is None:
            return []
        if not task.last and (speed := self._speed(self.baseline.reaching(mutant))):
            return [Task(task.mutant, speed, last=True)]
        if not self.afresh and self.baseline.works_at_import(mutant):
            self.leftover.append(task.mutant)
        else:
            self.emit(kind="mutant", id=mutant.id, verdict="survived", how="", by="")
        return []

    def _ordinary(self, tests: Iterable[int]) -> tuple[int, ...]:
        """The tests of all levels but speed, without twins."""
        return tuple(test for test in self.baseline.judging(tests) if self.baseline.levels[test] < SPEED)

    def _speed(self, tests: Iterable[int]) -> tuple[int, ...]:
        return tuple(test for test in self.baseline.judging(tests) if self.baseline.levels[test] >= SPEED)

    def _seconds(self, task: Task) -> float:
        return sum(GRACE + PATIENCE * self.baseline.seconds[test] for test in task.tests)


def _seal(kata: Kata) -> tuple[str, str]:
    return manifest.suite_hash(kata), manifest.source_hash(kata.reference)


def main(number: str, jobs: str, every: str) -> int:
    kata, report = find(number), os.dup(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)

    def emit(**line: object) -> None:
        os.write(report, (json.dumps(line) + "\n").encode("utf-8"))

    os.environ.update(SETTINGS)
    # What suites and references import, so that no child has to.
    for name in ("numpy", "hypothesis.extra.numpy", "rich.console", "rich.table", "dojo.measuring.budget"):
        importlib.import_module(name)
    try:
        Hunt(kata, int(jobs), int(every), emit).run()
    except (TroubleError, RuntimeError) as trouble:
        emit(kind="trouble", words=str(trouble))
        return 1
    emit(kind="end")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
