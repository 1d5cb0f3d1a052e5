"""A kata's strict.py asked of a submission: a verdict that its code had no way to write itself.

The code runs in a cell (`sandbox`) that has neither the tests nor the solutions.  Here, outside, each check's
arrays are drawn from a secret; what they should give is computed when the reply has come; time and memory are
what the kernel says.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dojo import compose
from dojo.curriculum import BY_NUMBER, Kata
from dojo.grading import questions, sandbox
from dojo.grading.frames import Broken
from dojo.grading.keys import How, sources
from dojo.grading.leash import Leash
from dojo.grading.results import FAILED, PASSED, TODO, Outcome, Part
from dojo.grading.submissions import Submission
from dojo.grading.text import short
from dojo.grading.worker import Refusal, Worker
from dojo.strict import Check

if TYPE_CHECKING:
    import numpy as np

DRAWS = 3  # of each check; a reply that is right by chance is not right three times
DEATHS = 2  # of a kata's workers; then the rest of its checks is not asked

READABLE = (
    "here the student's code could read the solutions. Run as root, or where users may make namespaces "
    "(`unshare --user true` says); --weak grades all the same"
)
PACKAGE = '''\
"""`from tinytorch import NAME`, as in the course, for the katas that are here."""

from importlib import import_module

EXPORTS = {exports!r}


def __getattr__(name):
    if name not in EXPORTS:
        raise AttributeError(f"module 'tinytorch' has no attribute {{name!r}}")
    if {recording!r}:
        import_module("tinytorch.autograd")  # which starts to record
    return getattr(import_module("tinytorch." + EXPORTS[name]), name)
'''


def run(submission: Submission, kata: Kata, how: How, leash: Leash) -> Outcome:
    """The outcome of `kata`.

    Raises:
        OSError: no worker can be started on this machine, or none from which solutions are hidden.
        Stopped: the leash was.
    """
    if not how.weak and not sandbox.walls().hidden:
        raise OSError(READABLE)
    began = time.monotonic()
    parts = tuple(_Examination(submission, kata, how, leash).parts())
    words = next((part.words for part in parts if part.words), "")
    untouched = all("NotImplementedError" in part.words for part in parts)
    passed = all(part.state == PASSED for part in parts)
    state = PASSED if passed else TODO if untouched else FAILED
    return Outcome(kata.number, state, parts, words, round(time.monotonic() - began, 2))


def files_for(submission: Submission, kata: Kata, how: How) -> dict[str, str | bytes]:
    """What a worker's folder has: the student's modules as a package, and the questions that travel."""
    given = sources(submission, kata, how)
    names = {
        name: BY_NUMBER[number].name for name, number in compose.exports().items() if number <= kata.number
    }
    package = PACKAGE.format(exports=names, recording="autograd" in given)
    modules = {f"student/tinytorch/{name}.py": text for name, text in given.items()}
    return {
        **modules,
        "student/tinytorch/__init__.py": package,
        "runs.py": questions.what_travels(kata.path / "strict.py"),
    }


class _Examination:
    """The checks of one kata, one after another, by one worker as long as it lives."""

    def __init__(self, submission: Submission, kata: Kata, how: How, leash: Leash) -> None:
        self.kata, self.how, self.leash = kata, how, leash
        self.files = files_for(submission, kata, how)
        self.deaths = 0
        self.trouble = ""  # why no worker can be had any more

    def parts(self) -> Iterator[Part]:
        """The checks' results."""
        with contextlib.ExitStack() as stack:
            worker: Worker | None = None
            for check in questions.checks_of(self.kata):
                if worker is None and not self.trouble:
                    stack.close()
                    worker = self._worker(stack)
                words, constant, alive = self._ask(worker, check)
                if not alive:
                    worker = None
                # An answer that is the same for any numbers can be guessed: by itself it earns nothing.
                yield Part(
                    check.name, FAILED if words else PASSED, int(not words), 1, int(not constant), words
                )

    def _worker(self, stack: contextlib.ExitStack) -> Worker | None:
        """A worker that has imported the student's modules; None, and a trouble, if it cannot."""
        if self.deaths == DEATHS:
            self.trouble = "not asked: its workers had died before"
            return None
        cell = stack.enter_context(sandbox.cell(self.files, self.kata.module))
        worker = stack.enter_context(Worker(cell, self.leash))
        try:
            worker.begin()
        except (Refusal, Broken) as error:
            self.trouble = short(f"importing it: {error}")
            return None
        return worker

    def _ask(self, worker: Worker | None, check: Check) -> tuple[str, bool, bool]:
        """Why the check does not hold; whether every draw has the same answer; whether the worker lives."""
        if worker is None:
            return self.trouble, False, False
        answers = []
        for draw in range(DRAWS):
            try:
                words, expected = self._draw(worker, check, draw)
            except Refusal as error:
                return short(str(error)), False, True
            except Broken as error:
                self.deaths += 1
                return short(str(error)), False, False
            if words:
                return short(words), False, True
            answers.append(expected.tobytes())
        return "", len(set(answers)) == 1, True

    def _draw(self, worker: Worker, check: Check, draw: int) -> tuple[str, np.ndarray]:
        """What is wrong with the reply to fresh arrays, and what it should have been."""
        import numpy as np

        arrays = check.draw(questions.rng_for(self.how.secret, self.kata, check, draw))
        reply = worker.ask(check.run.__name__, arrays, check.seconds)
        with np.errstate(all="ignore"):
            expected = check.expected(**arrays)
        if reply.megabytes is not None and reply.megabytes > check.megabytes:
            return f"it held {reply.megabytes:.0f} MiB; {check.megabytes:g} are allowed", expected
        return questions.difference(check, reply.array, expected), expected
