"""Check that everything on this computer is in order, and say what to do where it is not.

`FIX` is something the katas need; `note` is something to know.  The exit status is 1 if there is a FIX.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from dojo import compose, manifest, progress
from dojo.console.terminal import fold, say
from dojo.curriculum import KATAS, ROOT, STUBS, from_root

OK, NOTE, FIX = "ok", "note", "FIX"
INSTALL = f'python -m pip install -e "{ROOT}"'
EXTRAS = {
    "torch": "lets `dojo measure` put PyTorch's figures beside yours",
    "matplotlib": "lets `dojo measure` save plots",
    "xdist": "runs tests on several cores (pytest-xdist)",
}


class Finding(NamedTuple):
    """One line of the report."""

    verdict: str
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    wrong = 0
    for check in CHECKS:
        for finding in check():
            wrong += finding.verdict == FIX
            text = fold(finding.text, " " * 6).lstrip()
            say(f"{finding.verdict:<6}{text}")
    say(
        "",
        f"{wrong} to fix: start with the first." if wrong else "Everything that the katas need is in order.",
    )
    return 1 if wrong else 0


def python() -> Iterator[Finding]:
    required = requirements(_pyproject()).python
    have = ".".join(map(str, sys.version_info[:3]))
    text = f"Python {have} at {sys.executable}"
    if required is None or satisfies(have, required):
        yield Finding(OK, text)
    else:
        yield Finding(FIX, f"{text}: the katas need {required}; make a virtual environment with a newer one")


def virtual_environment() -> Iterator[Finding]:
    if sys.prefix != sys.base_prefix or os.environ.get("CONDA_PREFIX"):
        yield Finding(OK, f"virtual environment {sys.prefix}")
    else:
        activate = r".venv\Scripts\activate" if os.name == "nt" else "source .venv/bin/activate"
        yield Finding(
            NOTE,
            f"no virtual environment: packages of other projects can get in the way. "
            f"`python -m venv .venv`, `{activate}`, then `{INSTALL}`",
        )


def packages() -> Iterator[Finding]:
    wanted_packages = requirements(_pyproject()).packages
    if not wanted_packages:
        yield Finding(FIX, "pyproject.toml lists no packages: `git checkout pyproject.toml` restores it")
    for name, wanted in wanted_packages.items():
        try:
            have = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(FIX, f"{name} is not installed: `{INSTALL}`")
            continue
        if satisfies(have, wanted):
            yield Finding(OK, f"{name} {have}")
        else:
            yield Finding(FIX, f"{name} is {have}, and the katas need {wanted}: `{INSTALL}`")


def clone() -> Iterator[Finding]:
    """That dojo and tinytorch are this repository's, not another's."""
    here = next(
        (d for d in (Path.cwd(), *Path.cwd().parents) if (d / "dojo" / "curriculum.py").is_file()), None
    )
    if here is not None and here.resolve() != ROOT:
        yield Finding(
            FIX, f'this dojo is from {ROOT}, but you are in {here}: `python -m pip install -e "{here}"` there'
        )
    else:
        yield Finding(OK, f"dojo is the one in {ROOT}")
    found = importlib.util.find_spec("tinytorch")
    origin = Path(found.origin).resolve() if found and found.origin else None
    if origin == STUBS / "__init__.py":
        yield Finding(OK, "tinytorch is the one in stubs/")
    elif origin is None:
        yield Finding(NOTE, f"pytest finds tinytorch, but your own scripts will not: `{INSTALL}`")
    else:
        yield Finding(FIX, f"`import tinytorch` finds {origin}, which is not yours: `{INSTALL}`")


def stubs() -> Iterator[Finding]:
    missing = [k for k in KATAS if k.written and not k.stub.is_file()]
    for kata in missing:
        yield Finding(FIX, f"{from_root(kata.stub)} is missing: `dojo reset {kata.number}`")
    if not (STUBS / "__init__.py").is_file():
        yield Finding(
            FIX, "stubs/tinytorch/__init__.py is missing: `git checkout stubs/tinytorch/__init__.py`"
        )
    elif not missing:
        yield Finding(OK, f"every kata has its stub in {from_root(STUBS)}")


def suites() -> Iterator[Finding]:
    edited = 0
    for kata in (k for k in KATAS if k.written):
        restore = f"`git checkout {kata.shown}` restores it"
        try:
            if manifest.is_as_sealed(kata):
                continue
            yield Finding(FIX, f"the tests in {kata.shown} were edited, so a pass does not count: {restore}")
        except (OSError, ValueError) as damage:
            yield Finding(FIX, str(damage))
        edited += 1
    for name in ("conftest.py", "pytest.ini"):
        if not (ROOT / name).is_file():
            yield Finding(FIX, f"{name} is missing: `git checkout {name}`")
    if not edited:
        yield Finding(OK, "the katas' tests are as they were shipped")


def record() -> Iterator[Finding]:
    if trouble := progress.load().trouble:
        yield Finding(FIX, trouble)
    # It is replaced, not overwritten, so its folder must be writable too.
    stuck = [p for p in (progress.PATH, ROOT) if p.exists() and not os.access(p, os.W_OK)]
    if stuck:
        yield Finding(
            FIX, f"{stuck[0]} cannot be written, so no progress is recorded: change its permissions"
        )
    elif not progress.load().trouble:
        yield Finding(OK, f"progress.json: {len(progress.load().passed)} of {len(KATAS)} katas passed")


def environment() -> Iterator[Finding]:
    yield from variables(os.environ)


def variables(environment: Mapping[str, str]) -> Iterator[Finding]:
    """What environment variables do to test runs."""
    told = {
        compose.VARIABLE: "takes tinytorch from elsewhere, so nothing is recorded",
        "PYTHONOPTIMIZE": "turns asserts off, so nothing is tested",
        "PYTEST_ADDOPTS": "changes every run of pytest",
    }
    for name, effect in told.items():
        if value := environment.get(name):
            yield Finding(FIX if name == "PYTHONOPTIMIZE" else NOTE, f"{name}={value} {effect}: unset it")
    threads = environment.get("OPENBLAS_NUM_THREADS")
    rest = f"; your own scripts use {threads}" if threads else ""
    yield Finding(OK, f"tests run on one BLAS thread, so that speeds compare (conftest.py sees to it){rest}")


def terminal() -> Iterator[Finding]:
    encoding = sys.stdout.encoding or "unknown"
    if encoding.lower().startswith("utf"):
        yield Finding(OK, f"terminal encoding {encoding}")
    else:
        yield Finding(
            NOTE,
            f"terminal encoding {encoding}: characters that it lacks show as ?. PYTHONUTF8=1 changes that",
        )


def git() -> Iterator[Finding]:
    if shutil.which("git") is None:
        yield Finding(NOTE, "git is not installed: it keeps versions of your work, and brings new katas")
        return
    command = ["git", "status", "--porcelain", "--", "stubs"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding(NOTE, f"git does not answer: {error}")
        return
    if done.returncode:
        yield Finding(NOTE, "this folder is not a git clone, so `git checkout` cannot restore its files")
    elif changed := [line[3:] for line in done.stdout.splitlines()]:
        yield Finding(NOTE, f"not committed yet: {', '.join(changed)}. `git commit` keeps your work")
    else:
        yield Finding(OK, "your work is committed")


def extras() -> Iterator[Finding]:
    for name, use in EXTRAS.items():
        if importlib.util.find_spec(name):
            yield Finding(OK, f"{name} (optional) {use}")
        else:
            yield Finding(NOTE, f"{name} (optional) is not installed: it {use}")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    python,
    virtual_environment,
    packages,
    clone,
    stubs,
    suites,
    record,
    environment,
    terminal,
    git,
    extras,
)


class Requirements(NamedTuple):
    """What pyproject.toml asks for: `python` as `>=3.10`, `packages` as name to `>=1.26`."""

    python: str | None
    packages: dict[str, str]


def requirements(pyproject: str) -> Requirements:
    """Read the two keys that are needed here; Python 3.10 has no TOML reader."""
    version = re.search(r'^requires-python\s*=\s*"([^"]*)"', pyproject, re.MULTILINE)
    listed = re.search(r"^dependencies\s*=\s*\[(.*?)^\]", pyproject, re.MULTILINE | re.DOTALL)
    named = re.findall(r'^\s*"([A-Za-z0-9._-]+)\s*([^";]*)', listed[1], re.MULTILINE) if listed else []
    return Requirements(version[1] if version else None, {name: wanted.strip() for name, wanted in named})


def satisfies(version: str, specifier: str) -> bool:
    """Whether `version` is within `specifier`, pre-releases included."""
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:  # pytest, which brings it, is missing, and that is said on its own line
        return True
    return SpecifierSet(specifier).contains(version, prereleases=True)


def _pyproject() -> str:
    try:
        return (ROOT / "pyproject.toml").read_text("utf-8")
    except OSError:
        return ""
