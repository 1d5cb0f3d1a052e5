"""The last words of a run: how each level went, where you stand, and the one next thing to do."""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from dojo import manifest, progress
from dojo.console.terminal import NARROW, WIDEST
from dojo.curriculum import KATAS, MILESTONES, Kata, Unit, from_root
from dojo.hints import heading, unwritten
from dojo.plugin.outcomes import Outcomes, Test

STALE_SHOWN = 2


class Panel:
    def __init__(self, outcomes: Outcomes) -> None:
        self.outcomes = outcomes
        self.ends_early = False  # as with -x: at the first test that fails

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        if config.option.collectonly or not (self.outcomes.tests or self.outcomes.troubles):
            return
        self.ends_early = bool(config.option.maxfail and not config.option.keyword)
        self._list_todos(terminalreporter)
        lines = list(self._lines())
        terminalreporter.ensure_newline()
        if is_plain(terminalreporter, config):
            terminalreporter.write_line("")
            for line in lines:
                _write(line, terminalreporter)
        else:
            _draw(lines, terminalreporter)

    def _list_todos(self, reporter: Any) -> None:
        """One line for each stub that tests are waiting for."""
        waiting: Counter[str] = Counter()
        for test in self._tests():
            if test.todo:
                waiting[f"{test.todo['where']}: {test.todo['task']}"] += 1
        if waiting:
            reporter.section("to do", sep="=")
        for line, count in sorted(waiting.items(), key=lambda pair: _by_line(pair[0])):
            _write(f"{line}  {count} test{'s' * (count > 1)}", reporter)

    def _tests(self) -> Iterator[Test]:
        for tests in self.outcomes.tests.values():
            yield from tests.values()

    def _lines(self) -> Iterator[str]:
        for unit in self.outcomes.units():
            yield f"{unit}: {unit.title}"
            for (level, title), tests in _levels(self.outcomes.tests[unit.number].values()):
                yield f"  {level} {title:<12} {_tally(tests, _sealed(unit, level, title))}"
            skipped = (t.reason for t in self.outcomes.tests[unit.number].values() if t.state == "skipped")
            yield from (f"    skipped: {reason}" for reason in dict.fromkeys(skipped) if reason)
            missed = (t.missed for t in self.outcomes.tests[unit.number].values() if t.missed)
            yield from (f"    not held against you: {words}" for words in missed)
        yield ""
        yield from _standing()
        yield from self.outcomes.troubles
        for verdict in self.outcomes.verdicts:
            if verdict.unlocked and isinstance(verdict.unit, Kata):
                yield f"{verdict.unit} is unlocked: it is part of your tinytorch from now on."
            elif verdict.unlocked:
                yield f"Milestone {verdict.unit} is reached: all of it ran on your tinytorch."
            elif verdict.reason:
                yield f"{verdict.unit}: all green, but progress is not recorded: {verdict.reason}."
            yield from verdict.messages
        yield from self._next()

    def _next(self) -> Iterator[str]:
        """The next thing to do, and where to read about it."""
        for unit in self.outcomes.units():
            tests = [t for t in self.outcomes.tests[unit.number].values() if t.state in ("todo", "failed")]
            first = min(
                tests, key=lambda test: (test.level, test.state == "todo", _by_line_of(test)), default=None
            )
            if first is None:
                continue
            if first.todo:
                where, task = first.todo["where"], first.todo["task"]
                if self.ends_early and isinstance(unit, Kata) and where.startswith(from_root(unit.stub)):
                    # Tests come in another order than tasks, so an earlier task may be to do as well.
                    for blank in unwritten(unit)[:1]:
                        where, task = blank.where, f"kata {blank.task}: {blank.name}"
                yield f"Next: {where}, {task}"
                yield from _help(unit, task.removeprefix("kata ").partition(":")[0])
            else:
                yield f"Next: make this pass: {_name(first)}"
                yield from _help(unit, first.task.partition(" ")[0])
            return
        if self.outcomes.interrupted:
            yield "The run was interrupted; nothing was recorded."
            return
        now = progress.load()
        here = now.frontier()
        ahead = now.open_milestones()
        if here.written and here.number not in now.passed:
            reading = "" if here in self.outcomes.units() else f"read {here.shown}/README.md, then "
            yield f"Next: {reading}{here.command}"
            yield from (f"Open too: milestone {milestone}: {milestone.command}" for milestone in ahead)
        elif ahead:
            yield f"Next: milestone {ahead[0]}: {ahead[0].command}"
        elif here.written and now.stale_roots():
            yield "Next: dojo verify    (you have built all of tinytorch; what is stale needs a run)"
        elif here.written:
            yield "You have built all of tinytorch."
        else:
            yield f"Next would be {here}, which is not written yet: you have done everything there is."


def _levels(tests: Iterable[Test]) -> list[tuple[tuple[int, str], list[Test]]]:
    rows: dict[tuple[int, str], list[Test]] = {}
    for test in tests:
        rows.setdefault((test.level, test.title), []).append(test)
    return sorted(rows.items())


def _sealed(unit: Unit, level: int, title: str) -> int:
    """How many tests the kata has in a file of a level, whether or not they ran."""
    try:
        return sum(test.startswith(f"test_{level}_{title}.py::") for test in manifest.read(unit).tests)
    except (OSError, ValueError):
        return 0


def _tally(tests: list[Test], sealed: int) -> str:
    """`ok 12/12`, or the counts that matter; `part 3/12` when some did not run."""
    states, total = Counter(test.state for test in tests), max(len(tests), sealed)
    words = {"failed": "FAIL", "todo": "to do", "blocked": "blocked", "skipped": "skipped"}
    worst = next((word for state, word in words.items() if states[state]), "")
    return f"{worst or ('ok' if states['passed'] == total else 'part'):<8} {states['passed']}/{total}"


def _standing() -> Iterator[str]:
    """The course on one line: passed, here, and ahead; then what is to be run again, and why."""
    now = progress.load()
    here = now.frontier()
    marks = "".join("#" if k.number in now.passed else ">" if k == here else "." for k in KATAS)
    reached = sum(map(now.has_passed, MILESTONES))
    katas = f"{len(now.passed)} of {len(KATAS)} katas passed"
    yield f"[{marks}] {katas}, {reached} of {len(MILESTONES)} milestones"
    roots = now.stale_roots()
    for kata, reason in list(roots.items())[:STALE_SHOWN]:
        yield f"Stale: {reason}; run again: {kata.command}"
    if len(roots) > STALE_SHOWN:
        yield f"Stale: {len(roots) - STALE_SHOWN} more, which `dojo verify` proves again with these"


def _help(unit: Unit, task: str) -> Iterator[str]:
    if not isinstance(unit, Kata):
        yield f"Read: {unit.shown}/README.md"
    elif task and (found := heading(unit, task)):
        yield f"Read: {found.where}    Hint: dojo hint {task}"
    else:
        yield f"Read: {unit.shown}/README.md    Hint: dojo hint {unit.number}"


def _name(test: Test) -> str:
    return test.id.partition("::")[2].replace("_", " ").removeprefix("test ")


def _by_line(text: str) -> tuple[str, int]:
    path, _, rest = text.partition(":")
    line = rest.partition(":")[0]
    return path, int(line) if line.isdigit() else 0


def _by_line_of(test: Test) -> tuple[str, int]:
    return _by_line(test.todo["where"]) if test.todo else ("", 0)


def is_plain(reporter: Any, config: pytest.Config) -> bool:
    """Whether to write lines without a frame: no terminal, no colour wanted, quiet, CI, or too narrow."""
    quiet = config.option.verbose < 0
    told = any(os.environ.get(name) for name in ("NO_COLOR", "CI"))
    writer = reporter._tw
    return quiet or told or not writer.hasmarkup or writer.fullwidth < NARROW


def _write(line: str, reporter: Any) -> None:
    """A line; on a narrow terminal folded between words, with what follows set in."""
    width = reporter._tw.fullwidth
    if line and width < NARROW:
        inset = " " * (len(line) - len(line.lstrip()) + 4)
        parts = textwrap.wrap(line, width - 1, subsequent_indent=inset, break_long_words=False)
        line = "\n".join(parts)
    reporter.write_line(line)


def _draw(lines: list[str], reporter: Any) -> None:
    from rich import box
    from rich.console import Console
    from rich.panel import Panel as Frame
    from rich.text import Text

    writer = reporter._tw
    encoding = (getattr(writer._file, "encoding", None) or "ascii").lower().replace("-", "")
    styles = {"ok": "green", "FAIL": "red bold", "to do": "yellow", "blocked": "cyan", "Next:": "bold"}
    text = Text("\n".join(lines))
    for word, style in styles.items():
        text.highlight_regex(rf"(?m)(?<=\s){word}(?=\s)|^{word}", style)
    console = Console(
        file=writer._file,
        force_terminal=True,
        width=min(writer.fullwidth, WIDEST),
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )
    frame = box.ROUNDED if encoding.startswith("utf") else box.ASCII
    console.print(Frame(text, title="tinytorch katas", box=frame, expand=True))
