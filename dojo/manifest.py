"""The seal of a suite: which tests a kata has, and what its files said when it was shipped.

`katas/NN_name/manifest.json` lists every test.  A kata unlocks only when each of them passed, so a run that
left some out (`-k`, `--lf`, a node id, a stub that skips itself) unlocks nothing, however green it looks.
Tests of a milestone that need downloaded data (`@pytest.mark.real_data`) are left out, for without a network
they are skipped; where they do run, they must pass like all others.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dojo.curriculum import ROOT, Kata, Milestone, from_root


@dataclass(frozen=True)
class Manifest:
    """`suite` is the hash of the suite's files; `tests` are ids like `test_1_correctness.py::test_x`."""

    suite: str
    tests: tuple[str, ...]


def path_of(kata: Kata | Milestone) -> Path:
    return kata.path / "manifest.json"


@functools.cache
def read(kata: Kata | Milestone) -> Manifest:
    """The manifest as shipped.

    Raises:
        FileNotFoundError: the kata is not written yet.
        ValueError: the file is damaged; the message says how to restore it.
    """
    try:
        content = json.loads(path_of(kata).read_text("utf-8"))
        return Manifest(str(content["suite"]), tuple(map(str, content["tests"])))
    except (ValueError, KeyError, TypeError) as damage:
        name = from_root(path_of(kata))
        raise ValueError(f"{name} is damaged ({damage}); restore it with `git checkout {name}`") from damage


def source_hash(path: Path) -> str:
    """16 hex digits that change when the text of `path` does; line endings do not count."""
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()[:16]


def suite_hash(kata: Kata | Milestone) -> str:
    """16 hex digits over the Python and JSON files of the unit's folder, but for the manifest itself."""
    digest = hashlib.sha256()
    for file in files_in(kata.path, "*.py", "*.json"):
        if file != path_of(kata):
            digest.update(f"{file.relative_to(kata.path).as_posix()} {source_hash(file)}\n".encode())
    return digest.hexdigest()[:16]


def files_in(folder: Path, *patterns: str) -> list[Path]:
    """The files in a folder and below; but for hidden ones, which are an editor's, as .#name.py."""
    found = {file for pattern in patterns for file in folder.rglob(pattern)}
    return sorted(file for file in found if "/." not in f"/{file.relative_to(folder).as_posix()}")


def tests_of(kata: Kata | Milestone) -> list[str]:
    """The ids that pytest collects for `kata`, asked of a pytest of its own.

    Raises:
        RuntimeError: the suite cannot be collected, or one of its files not imported.
    """
    ask = ["--collect-only", "-q", "-p", "no:cacheprovider", "--impl", "reference", "-m", "not real_data"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *ask, str(kata.path)],
        cwd=ROOT,
        env={**os.environ, "PYTEST_ADDOPTS": ""},  # with -k in it, some would be left out, and with -v all
        capture_output=True,
        encoding="utf-8",
    )
    if run.returncode:
        raise RuntimeError(f"cannot collect {kata.shown}:\n{run.stdout}{run.stderr}")
    prefix = kata.shown + "/"
    tests = [line.removeprefix(prefix) for line in run.stdout.splitlines() if line.startswith(prefix)]
    if broken := [test for test in tests if test.endswith("::the_stub_can_be_imported")]:
        file = prefix + broken[0].partition("::")[0]
        raise RuntimeError(
            f"{file} cannot be imported on the reference, so its tests are not known; "
            f"`pytest {file} --impl reference` says why"
        )
    return tests


def text_of(kata: Kata | Milestone) -> str:
    """What the manifest file should say now."""
    content = {"suite": suite_hash(kata), "tests": tests_of(kata)}
    return json.dumps(content, indent=1) + "\n"


def is_as_sealed(kata: Kata | Milestone) -> bool:
    """Whether the suite is the one that its manifest seals. Errors as of `read`."""
    return read(kata).suite == suite_hash(kata)


def is_fresh(kata: Kata | Milestone) -> bool:
    """Whether the manifest says what the suite is now."""
    return path_of(kata).exists() and path_of(kata).read_text("utf-8") == text_of(kata)
