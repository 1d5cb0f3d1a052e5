"""Run a kata's suite in a child process and read what each of its tests did."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dojo import stubs
from dojo.authoring.outcomes import STEADY, VARIABLE, WORST_LAST
from dojo.console import children
from dojo.curriculum import KATAS, ROOT, Kata, Unit
from dojo.plugin.twins import TWIN

JOBS = min(2, os.cpu_count() or 1)  # runs at a time: speed is compared within a run, so two do not disturb

# What a person or a CI job may have set, and what would make a run mean something else.
OURS_ALONE = ("PYTEST", "TINYTORCH_IMPL", "COVERAGE", "COV_", "PYTHONOPTIMIZE", "PYTHONHASHSEED", "DOJO_")

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Outcome:
    """What one test did: `state` is that of its worst phase, as in `report.kata`."""

    id: str
    level: int
    state: str
    words: str = ""
    seconds: float = 0.0

    @property
    def is_twin(self) -> bool:
        return self.id.partition("::")[2].startswith(TWIN)


@dataclass(frozen=True)
class SuiteRun:
    """`trouble` says why the run tells nothing about some or all tests; empty when it went to its end."""

    outcomes: tuple[Outcome, ...]
    trouble: str = ""

    def having(self, *states: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.state in states]

    @property
    def failed(self) -> list[Outcome]:
        return self.having("failed", "todo")


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without what would change a run of pytest; hashes are random again."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS_ALONE)}
    path = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH", "")]))
    quiet = {"PYTHONIOENCODING": "utf-8", "NO_COLOR": "1", "PYTHONPATH": path}
    return kept | quiet | extra


def run(
    unit: Unit,
    spec: str,
    *args: str,
    files: Sequence[str] = (),
    steady: bool = False,
    variables: Mapping[str, str] | None = None,
) -> SuiteRun:
    """`pytest katas/NN_name --impl SPEC ARGS`, or only some `files` of the suite.

    `steady` makes hypothesis draw the same examples every time; without it the run is a student's run.
    `variables` are added to its environment.
    """
    with tempfile.TemporaryDirectory(prefix="dojo-") as folder:
        lines = Path(folder) / "outcomes.jsonl"
        paths = [str(unit.path / file) for file in files] or [str(unit.path)]
        command = ["-m", "pytest", *paths, "--impl", spec, "-q", "--no-header"]
        command += ["-p", "dojo.authoring.outcomes", "-p", "no:cacheprovider", *args]
        ours = {VARIABLE: str(lines)} | ({STEADY: "1"} if steady else {})
        status, output = child(command, **ours, **(variables or {}))
        if status is None:
            return read(lines, f"it did not finish within {children.LIMIT:.0f} s")
        last = output.strip().rpartition("\n")[2]
        return read(lines, f"pytest ended early: {last or f'exit status {status}'}")


_RUNNING: set[subprocess.Popen[str]] = set()
_STOPPING = threading.Event()


def child(command: Sequence[str], **variables: str) -> tuple[int | None, str]:
    """Run Python to its end: its exit status, None when time was up, and all it printed."""
    if threading.current_thread() is threading.main_thread():
        # Ctrl-C interrupts the main thread wherever it is, and a process half started there would be left.
        return side_by_side(lambda _: _child(command, variables), [None])[0]
    return _child(command, variables)


def _child(command: Sequence[str], variables: dict[str, str]) -> tuple[int | None, str]:
    process = children.start(
        command,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    _RUNNING.add(process)
    try:
        if _STOPPING.is_set():
            return None, ""
        output, _ = process.communicate(timeout=children.LIMIT)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        children.end(process)
        _RUNNING.discard(process)


def read(lines: Path, otherwise: str) -> SuiteRun:
    """The run that the plugin wrote to `lines`; `otherwise` is the trouble if it did not get to its end."""
    worst: dict[str, Outcome] = {}
    troubles, ended = [], False
    text = lines.read_text("utf-8") if lines.exists() else ""
    for line in map(json.loads, text.splitlines()):
        if line["kind"] == "test":
            now = Outcome(line["id"], line["level"], line["state"], line["words"], line["seconds"])
            worst[now.id] = _worse(worst.get(now.id), now)
        elif line["kind"] == "trouble":
            troubles.append(line["words"])
        else:
            ended = True
    if not ended:
        troubles.append(otherwise)
    return SuiteRun(tuple(worst.values()), "; ".join(troubles))


def _worse(before: Outcome | None, now: Outcome) -> Outcome:
    """A test's set-up, call and tear-down as one outcome."""
    if before is None:
        return now
    worse = max(before, now, key=lambda outcome: WORST_LAST.index(outcome.state))
    return Outcome(now.id, now.level, worse.state, worse.words, before.seconds + now.seconds)


def planted(kata: Kata, source: str | Path) -> str:
    """The composition that takes everything from the reference, but `kata` from `source`."""
    return f"reference,{kata.number}={source}"


@contextmanager
def blank_stubs(katas: Sequence[Kata] = KATAS) -> Iterator[Path]:
    """A folder with the stubs of those katas that have a reference, as they are generated now.

    What is in stubs/ may be a student's work.

    Raises:
        SyntaxError: a mark in a reference is misplaced.
    """
    with tempfile.TemporaryDirectory(prefix="dojo-") as folder:
        for kata in katas:
            if kata.reference.exists():
                text = stubs.implied(kata.reference)
                (Path(folder) / f"{kata.name}.py").write_text(text, encoding="utf-8", newline="\n")
        yield Path(folder)


@contextmanager
def blank_stub(kata: Kata) -> Iterator[Path]:
    """The file of one kata, in such a folder."""
    with blank_stubs([kata]) as folder:
        yield folder / f"{kata.name}.py"


def side_by_side(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`function` of each item, JOBS at a time, in order; on an error or Ctrl-C nothing new is started."""
    pool = ThreadPoolExecutor(JOBS)
    try:
        futures = [pool.submit(function, item) for item in items]
        return [future.result() for future in futures]
    except BaseException:
        _STOPPING.set()  # for a process that is just being started, and is not in the list yet
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(_RUNNING):  # the threads that wait for them end then, too
            children.end(process)
        raise
    finally:
        pool.shutdown()
        _STOPPING.clear()
