"""The content that a verdict depends on, as a hash: while it is the same, the verdict is, too."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import sys
from dataclasses import dataclass, field

from dojo import manifest
from dojo.console import children
from dojo.curriculum import ROOT, Kata, before
from dojo.grading.submissions import Submission

SCHEMA = 1
FOLDERS = ("dojo", "reference/tinytorch")


@dataclass(frozen=True)
class How:
    """How to grade.  Submissions graded alike can be compared, and share a ledger."""

    strict: bool = False
    borrow: bool = False  # what a kata stands on comes from reference/: a mistake costs one kata alone
    limit: float = children.LIMIT  # seconds for the child process of one kata
    suites: bool = False  # strict mode also runs the suite, in a cell, of a kata that holds
    weak: bool = False  # strict mode goes on where the system cannot hide the solutions
    secret: bytes = field(default=b"", repr=False)  # strict mode draws its numbers from it

    @property
    def mode(self) -> str:
        if self.strict:
            return "strict with suites" if self.suites else "strict"
        return "borrowed" if self.borrow else "plain"


def sources(submission: Submission, kata: Kata, how: How) -> dict[str, bytes]:
    """The files that `kata` is graded with: its own, and those of earlier katas unless they are borrowed."""
    names = [kata.name] if how.borrow else [k.name for k in (*before(kata), kata)]
    return {name: submission.files[name] for name in names if name in submission.files}


def key(submission: Submission, kata: Kata, how: How) -> str:
    """32 hex digits that change when anything does which could change the verdict.

    The name of the student is not in it, so that two who hand in the same are graded once; neither is the
    secret, since a right solution is right for any numbers.
    """
    files = {
        name: hashlib.sha256(text.replace(b"\r\n", b"\n")).hexdigest()
        for name, text in sources(submission, kata, how).items()
    }
    content = [
        SCHEMA,
        how.mode,
        how.limit,
        how.weak,
        kata.number,
        manifest.suite_hash(kata),
        files,
        _grader(),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


class Tampered(Exception):
    """What grades is not what it was when it began: code that was graded has changed it."""


def check_untouched() -> None:
    """Hash what grades once more.

    Raises:
        Tampered: something has changed since this process began to grade.
    """
    if _hash(*FOLDERS, "katas") != _everything():
        raise Tampered(
            "the suites, reference/ or dojo/ have changed while grading, perhaps by code that was graded: "
            "`git status` says what, `git checkout .` restores it; --strict lets no code come near them"
        )


@functools.cache
def _everything() -> str:
    return _hash(*FOLDERS, "katas")


@functools.cache
def _grader() -> tuple[str, str, str]:
    """This harness, the reference that katas can be borrowed from, and what they run on."""
    _everything()  # as it is before anything is graded
    python = ".".join(map(str, sys.version_info[:2]))
    return _hash(*FOLDERS), python, importlib.metadata.version("numpy")


def _hash(*folders: str) -> str:
    """Of all code in these folders of the repository, and of what pytest reads at its top."""
    digest = hashlib.sha256()
    files = [ROOT / "conftest.py", ROOT / "pytest.ini"]
    for folder in folders:
        files += manifest.files_in(ROOT / folder, "*.py", "manifest.json")
    for file in sorted(files):
        digest.update(f"{file.relative_to(ROOT).as_posix()} {manifest.source_hash(file)}\n".encode())
    return digest.hexdigest()[:16]
