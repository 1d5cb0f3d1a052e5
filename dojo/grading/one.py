"""One submission, kata by kata: the pure function that threads, dask and Gradescope share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from dojo.curriculum import BY_NUMBER, Kata
from dojo.grading import plain, strict
from dojo.grading.keys import How, check_untouched, key
from dojo.grading.leash import Leash
from dojo.grading.results import LOCKED, MISSING, PASSED, REFUSED, Grade, Outcome
from dojo.grading.submissions import Submission

NOTHING: Mapping[str, Outcome] = {}


def grade_one(
    submission: Submission,
    katas: Sequence[Kata],
    how: How | None = None,
    known: Mapping[str, Outcome] = NOTHING,
    found: Callable[[str, Outcome], object] = lambda key, outcome: None,
    leash: Leash | None = None,
    alone: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> Grade:
    """Grade `katas` of one submission, each in a child process of its own.

    A kata runs on the student's own earlier ones, and is locked while one of `katas` that it needs has not
    passed; with `how.borrow` it runs on the reference's, and nothing is locked.  `known` has outcomes by
    their key, and `found` is told each new one at once.  `alone(key)` is held meanwhile, for others
    who need the same outcome to wait for.

    Raises:
        Stopped: `leash` was, by another thread.
        Tampered: the student's code has changed the suites, or something has while they ran.
    """
    how, leash = how or How(), leash or Leash()
    outcomes: dict[str, Outcome] = {}
    for kata in sorted(katas, key=lambda kata: kata.number):
        outcome = _without_running(submission, kata, how, outcomes)
        if outcome is None:
            name = key(submission, kata, how)
            with alone(name):
                outcome = known.get(name)
                if outcome is None:
                    outcome = _run(submission, kata, how, leash)
                    check_untouched()
                    found(name, outcome)
        outcomes[kata.number] = outcome
    return Grade(submission.name, tuple(outcomes.values()), submission.trouble)


def _run(submission: Submission, kata: Kata, how: How, leash: Leash) -> Outcome:
    if how.strict:
        outcome = strict.run(submission, kata, how, leash)
        if outcome.state != PASSED or not how.suites:
            return outcome
    return plain.run(submission, kata, how, leash)


def _without_running(
    submission: Submission, kata: Kata, how: How, before: Mapping[str, Outcome]
) -> Outcome | None:
    """The outcome of a kata that there is nothing to run of; None if there is."""
    if submission.trouble:
        return Outcome(kata.number, REFUSED, words=submission.trouble)
    if kata.name not in submission.files:
        return Outcome(kata.number, MISSING, words=f"{kata.name}.py was not handed in")
    for number in () if how.borrow else kata.needs:
        if number in before and before[number].state != PASSED:
            return Outcome(kata.number, LOCKED, words=f"it needs {BY_NUMBER[number]}, which has not passed")
    return None
