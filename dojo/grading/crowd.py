"""Many submissions: over threads that wait for child processes, or over the machines of a dask cluster."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Any

from dojo.curriculum import Kata
from dojo.grading.keys import How, key
from dojo.grading.leash import Leash
from dojo.grading.ledger import Ledger
from dojo.grading.one import grade_one
from dojo.grading.results import Grade, Outcome
from dojo.grading.submissions import Submission

# Hears of each submission's name with its grade, or with why it could not be graded.
Teller = Callable[[str, "Grade | str"], object]

RETRIES = 3  # of a submission whose dask worker died; what it had found is lost with it


def grade_all(
    submissions: Sequence[Submission],
    katas: Sequence[Kata],
    how: How,
    ledger: Ledger,
    jobs: int,
    tell: Teller,
) -> list[Grade]:
    """Grade every submission, `jobs` at a time, each outcome written to the ledger as it is found.

    `tell` hears of each submission as it is done, and of those that this machine could not grade, which are
    left out of what is returned: no fault of a student's.  On Ctrl-C the children are ended and
    KeyboardInterrupt goes on; what was found is in the ledger.
    """
    leash = Leash()
    grades: dict[str, Grade] = {}
    pool = ThreadPoolExecutor(jobs)
    try:
        futures = {
            pool.submit(
                grade_one, submission, katas, how, ledger.known, ledger.add, leash, ledger.alone
            ): submission.name
            for submission in submissions
        }
        for future in as_completed(futures):
            name = futures[future]
            try:
                grades[name] = future.result()
            except Exception as error:
                tell(name, f"{type(error).__name__}: {error}")
            else:
                tell(name, grades[name])
    except BaseException:
        leash.stop()
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()
    return [grades[submission.name] for submission in submissions if submission.name in grades]


def grade_over_dask(
    submissions: Sequence[Submission],
    katas: Sequence[Kata],
    how: How,
    ledger: Ledger,
    address: str,
    tell: Teller,
) -> list[Grade]:
    """The same by the workers of the cluster at `address`, which have this repository at the same commit.

    A submission whose worker dies is given to another.

    Raises:
        ConnectionError: there is no cluster at that address.
    """
    grades: dict[str, Grade] = {}
    distributed: Any = importlib.import_module("distributed")
    try:
        client = distributed.Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        raise ConnectionError(str(error) or type(error).__name__) from error
    with client:
        futures = {}
        for group in _groups(submissions, katas, how):
            known = _known(group[0], katas, how, ledger)
            future = client.submit(_remotely, group[0], katas, how, known, pure=False, retries=RETRIES)
            futures[future] = group
        for future in distributed.as_completed(list(futures)):
            group = futures[future]
            try:
                grade, found = future.result()
            except Exception as error:
                for submission in group:
                    tell(submission.name, f"{type(error).__name__}: {error}")
                continue
            for name, outcome in found.items():
                ledger.add(name, outcome)
            for submission in group:
                grades[submission.name] = replace(grade, name=submission.name)
                tell(submission.name, grades[submission.name])
    return [grades[submission.name] for submission in submissions if submission.name in grades]


def _groups(submissions: Sequence[Submission], katas: Sequence[Kata], how: How) -> list[list[Submission]]:
    """Submissions that hand in the same together: workers share no ledger, and would each grade them."""
    groups: dict[tuple[object, ...], list[Submission]] = {}
    for submission in submissions:
        content = (submission.trouble, *submission.files, *(key(submission, kata, how) for kata in katas))
        groups.setdefault(content, []).append(submission)
    return list(groups.values())


def _known(submission: Submission, katas: Sequence[Kata], how: How, ledger: Ledger) -> dict[str, Outcome]:
    """What the ledger has of one submission: the whole of it would travel with each."""
    names = (key(submission, kata, how) for kata in katas if not submission.trouble)
    return {name: ledger.known[name] for name in names if name in ledger.known}


def _remotely(
    submission: Submission, katas: Sequence[Kata], how: How, known: dict[str, Outcome]
) -> tuple[Grade, dict[str, Outcome]]:
    """On a worker: the grade, and the outcomes that are new."""
    found: dict[str, Outcome] = {}
    return grade_one(submission, katas, how, known, found.__setitem__), found
