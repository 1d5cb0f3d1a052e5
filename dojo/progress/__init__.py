"""What the student has passed, kept in progress.json at the root of the repository.

The file is a cache: `dojo verify --all` can rebuild it from the stubs.  So reading it never fails, and a file
that cannot be understood is set aside and never overwritten.  A pass is remembered with the hashes of what it
was a pass *of*; when one of these changes the kata is *stale*, which locks nothing and is said plainly.
Other comments and docstrings in a stub, as after a pull that mends a sentence, are no change.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dojo import __version__
from dojo.curriculum import BY_NUMBER, KATAS, MILESTONES, ROOT, Kata, Milestone, Unit, before, from_root
from dojo.progress.storing import read, update

PATH = ROOT / "progress.json"

PASSED, STALE, OPEN, LOCKED, UNWRITTEN = "passed", "stale", "open", "locked", "unwritten"


@dataclass(frozen=True)
class Fingerprint:
    """What a pass is a pass of: the hashes of a kata's stub, of its suite, and of the stubs it needs.

    A stub that is not there, or that cannot be read, has the empty hash.
    """

    stub: str = ""
    suite: str = ""
    needs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One pass.  `time` is UTC, as `2026-03-09T14:05:00Z`; a pass with an empty `stub` is not proven.

    `code` is the hash of the stub without comments and docstrings; empty where that is not known.
    """

    time: str = ""
    stub: str = ""
    code: str = ""
    suite: str = ""
    needs: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    measured: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Progress:
    """What progress.json said when it was read.  Ask `load()` again to see later changes to any file."""

    katas: dict[str, Record] = field(default_factory=dict)
    milestones: dict[str, Record] = field(default_factory=dict)
    hints: dict[str, int] = field(default_factory=dict)
    trouble: str | None = None
    _causes: dict[str, tuple[Kata, str] | None] = field(default_factory=dict, repr=False, compare=False)

    @property
    def passed(self) -> set[str]:
        """The numbers of the katas that have passed, those that went stale since among them."""
        return set(self.katas)

    def has_passed(self, unit: Unit) -> bool:
        return unit.number in (self.katas if isinstance(unit, Kata) else self.milestones)

    def frontier(self) -> Kata:
        """The first kata that has not passed; the last one when all have."""
        return next((kata for kata in KATAS if kata.number not in self.katas), KATAS[-1])

    def reached(self, kata: Kata) -> bool:
        """Whether every kata before this one has passed."""
        return all(earlier.number in self.katas for earlier in before(kata))

    def state(self, unit: Unit) -> str:
        """`passed`, `stale`, `open`, `locked`, or `unwritten` when the course does not have it yet."""
        if not unit.written:
            return UNWRITTEN
        if self.has_passed(unit):
            return STALE if isinstance(unit, Kata) and self.stale_because(unit) else PASSED
        reached = self.reached(unit) if isinstance(unit, Kata) else unit.after in self.katas
        return OPEN if reached else LOCKED

    def open_milestones(self) -> list[Milestone]:
        return [milestone for milestone in MILESTONES if self.state(milestone) == OPEN]

    def stale_because(self, kata: Kata) -> str | None:
        """Why a pass of `kata` no longer holds, in one sentence; None when it holds or there is none."""
        cause = self._cause(kata)
        if cause is None:
            return None
        at, reason = cause
        return reason if at == kata else f"{at}, which {kata} stands on, is stale: {reason}"

    def stale_roots(self) -> dict[Kata, str]:
        """The katas in which staleness begins, and why; when they pass again, it ends in those above them."""
        causes = [cause for kata in KATAS if (cause := self._cause(kata))]
        return dict(causes)

    def _cause(self, kata: Kata) -> tuple[Kata, str] | None:
        """Why `kata` is stale and the kata where that began: itself, or one that it stands on."""
        if kata.number not in self._causes:
            self._causes[kata.number] = self._find_cause(kata)
        return self._causes[kata.number]

    def _find_cause(self, kata: Kata) -> tuple[Kata, str] | None:
        record = self.katas.get(kata.number)
        if record is None or not kata.written:
            return None
        if not record.stub:
            return (
                kata,
                f"the pass of {kata} is not proven: its tests failed when they were run again, or it is "
                "from a damaged or merged progress.json",
            )
        now = fingerprint(kata)
        if now.stub != record.stub and not self._does_the_same(kata, record.stub):
            return kata, f"{_what_happened(kata, now.stub)} since {kata} passed"
        if now.suite != record.suite:
            return kata, f"the tests in {kata.shown} changed since {kata} passed"
        needs = [BY_NUMBER[number] for number in kata.needs]
        for needed in needs:
            proven = record.needs.get(needed.number, "")
            if now.needs[needed.number] != proven and not self._does_the_same(needed, proven):
                what = _what_happened(needed, now.needs[needed.number])
                return kata, f"{what} since {kata}, which needs it, passed"
            if needed.number not in self.katas:
                return kata, f"{needed}, which {kata} needs, has no pass on record"
        return next(filter(None, map(self._cause, needs)), None)

    def _does_the_same(self, kata: Kata, proven: str) -> bool:
        """Whether a stub has but other comments and docstrings than when it had the hash `proven`."""
        record = self.katas.get(kata.number)
        if record is None or not record.code or record.stub != proven:
            return False  # what it was is not known any more
        return _code(kata) == record.code


def load(path: Path | None = None) -> Progress:
    """Read progress.json, or the file given: never raises, never writes.

    No file is a blank course.  A file that cannot be understood gives as much as can be read of it, and
    `trouble` says what is wrong and what to do.
    """
    contents = read(path or PATH)
    return Progress(
        katas={number: _record(record) for number, record in contents.data["katas"].items()},
        milestones={number: _record(record) for number, record in contents.data["milestones"].items()},
        hints=dict(contents.data["hints"]),
        trouble=contents.trouble,
    )


def repair(path: Path | None = None) -> list[str]:
    """Set a damaged or conflicted file aside and start anew with what could be read of it, unproven.

    Returns:
        What was done, or why it could not be; empty when there was nothing to do.
    """
    path = path or PATH
    if read(path).trouble is None:
        return []
    return update(path, lambda data: None)


def fingerprint(unit: Unit) -> Fingerprint:
    """The hashes of a unit's stub and suite and of the stubs it needs, as they are on disk now.

    A milestone has no stub of its own; its last kata's stands there, for an empty hash means not proven.
    """
    from dojo.manifest import suite_hash

    needs = {number: _hash(BY_NUMBER[number]) for number in unit.needs}
    own = _hash(unit) if isinstance(unit, Kata) else needs[unit.after]
    return Fingerprint(own, suite_hash(unit), needs)


def record_pass(
    unit: Unit,
    measured: list[dict[str, Any]],
    seed: int,
    *,
    proven: Fingerprint | None = None,
    path: Path | None = None,
) -> list[str]:
    """Remember that a kata or a milestone passed.

    Args:
        proven: the fingerprint taken before the files were imported, so that an edit made while the tests ran
            leaves the kata stale; without it, the files as they are now.

    Returns:
        What the student should know: a file that was set aside, or why nothing could be written.
    """
    proof = proven or fingerprint(unit)
    record = {
        "time": _now(),
        "stub": proof.stub,
        "suite": proof.suite,
        "needs": proof.needs,
        "versions": _versions(),
        "seed": seed,
        "measured": measured,
    }
    if not isinstance(unit, Kata):
        return update(path or PATH, _put("milestones", unit.number, record))
    # An edit made meanwhile is not what was proven.
    record["code"] = _code(unit) if _hash(unit) == proof.stub else ""
    return update(path or PATH, _put("katas", unit.number, record))


def doubt(kata: Kata, *, path: Path | None = None) -> list[str]:
    """Take `kata`'s pass, if it has one, as not proven: its tests failed although nothing had changed.

    Returns:
        What the student should know, as `record_pass` does.
    """

    def take_back(data: dict[str, Any]) -> None:
        if record := data["katas"].get(kata.number):
            record["stub"] = ""

    return update(path or PATH, take_back)


def record_hint(task: str, *, path: Path | None = None) -> int:
    """Remember that one more hint for `task` (`06.3`) was shown; how many were before.

    Where the file cannot be written the count stays as it was, and nothing is raised.
    """
    path = path or PATH
    shown: int = read(path).data["hints"].get(task, 0)

    def one_more(data: dict[str, Any]) -> None:
        nonlocal shown
        shown = data["hints"].get(task, 0)
        data["hints"][task] = shown + 1

    update(path, one_more)
    return shown


def _put(section: str, number: str, record: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    def put(data: dict[str, Any]) -> None:
        last = data[section].get(number, {})
        data[section][number] = {**last, **record}
        if last.get("stub") and record.get("code") and record["code"] == last.get("code"):
            # Others passed with what does the same, and need not do so again.
            for other in (*data["katas"].values(), *data["milestones"].values()):
                if other.get("needs", {}).get(number) == last["stub"]:
                    other["needs"][number] = record["stub"]

    return put


def _record(raw: dict[str, Any]) -> Record:
    return Record(**{name: raw[name] for name in Record.__dataclass_fields__ if name in raw})


def _hash(kata: Kata) -> str:
    from dojo.manifest import source_hash

    try:
        return source_hash(kata.stub)
    except OSError:
        return ""


def _code(kata: Kata) -> str:
    from dojo.progress.code import code_hash

    return code_hash(kata.stub)


def _what_happened(kata: Kata, now: str) -> str:
    return f"{from_root(kata.stub)} " + ("changed" if now else "went missing or became unreadable")


def _now() -> str:
    from datetime import datetime, timezone

    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        numpy = version("numpy")
    except PackageNotFoundError:  # imported from a path that has no metadata
        numpy = str(getattr(sys.modules.get("numpy"), "__version__", "unknown"))
    return {"python": ".".join(map(str, sys.version_info[:3])), "numpy": numpy, "dojo": __version__}
