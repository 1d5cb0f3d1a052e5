"""What each submission of tests/cheats/ gets in plain mode, and what it does to the machine.

    python -m benchmarks.cheats [NAME...] > table.md

Each is graded for kata 04, alone, by a copy of this repository in a temporary folder, which it may do with as
it likes: do not run this where you would not run the cheats. They take two to four seconds of processor time
each. Nothing is printed about strict mode, where tests/grading/test_cheats.py asserts that each gets 0.
"""

from __future__ import annotations

import csv
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.beside import chosen
from dojo.curriculum import ROOT
from tests.grading.cheats import KATA, NAMES, cheat, summary
from tests.grading.test_cheats import DOOR, PRECIOUS, running

COPIED = ("conftest.py", "pytest.ini", "pyproject.toml", "progress.json", "dojo", "reference", "stubs")
LIMIT = 120.0  # seconds for a suite, as `dojo grade` has it; on a busy machine nothing else is as long


def main() -> None:
    names = chosen(NAMES, __doc__)
    print(
        "| cheat | what it does | points of 10 in plain mode | and besides |\n|---|---|---|---|", flush=True
    )
    for name in names:
        points, besides = tried(name)
        words = " ".join(summary(name).split()).rstrip(".")
        print(f"| {name} | {words} | {points} | {'; '.join(besides)} |", flush=True)


def tried(name: str) -> tuple[str, list[str]]:
    """The points of one cheat, and what else was noticed."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, socket.socket() as door:
        root = copy(Path(folder) / "tinytorch-katas")
        hand_in(root / "class" / name, name)
        shutil.rmtree(PRECIOUS, ignore_errors=True)
        PRECIOUS.mkdir()
        (PRECIOUS / "dear").touch()
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(("127.0.0.1", DOOR))
        door.listen()
        before, mark = state(root), f"CHEATS={secrets.token_hex(8)}"
        status = graded(root, mark)
        besides = []
        if status == -signal.SIGKILL:
            besides.append("ended the grader")
        if changed := sorted(path for path, content in state(root).items() if before.get(path) != content):
            others = f" and {len(changed) - 1} more files" * (len(changed) > 1)
            besides.append(f"changed {changed[0]}{others}")
        if not (PRECIOUS / "dear").exists():
            besides.append("deleted a file of the grader's user")
        if select.select([door], [], [], 0)[0]:
            besides.append("got through to the network")
        if left := clean(mark):
            besides.append(f"left {left}")
        shutil.rmtree(PRECIOUS)
        return points(root), besides


def copy(root: Path) -> Path:
    for name in (*COPIED, f"katas/{KATA.folder}"):
        source, target = ROOT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    return root


def hand_in(folder: Path, name: str) -> None:
    folder.mkdir(parents=True)
    for kata, text in cheat(name).files.items():
        (folder / f"{kata}.py").write_bytes(text)


def state(root: Path) -> dict[str, bytes]:
    """The files of a copy that no run should change."""
    return {
        file.relative_to(root).as_posix(): file.read_bytes()
        for file in root.rglob("*")
        if file.suffix in (".py", ".json", ".ini") and "__pycache__" not in file.parts
    }


def graded(root: Path, mark: str) -> int | None:
    path = os.pathsep.join([str(root), str(root / "stubs")])
    environment = {**os.environ, "PYTHONPATH": path, "CHEATS": mark.partition("=")[2]}
    command = ["-m", "dojo", "grade", "class", "-o", "results", "--limit", f"{LIMIT:g}", KATA.number]
    with (root / "log.txt").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, *command],
            cwd=root,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        return child.wait(2 * LIMIT)


def points(root: Path) -> str:
    file = root / "results" / "scores.csv"
    if not file.exists():
        return "none"
    with file.open(newline="") as lines:
        return next((row[KATA.number] for row in csv.DictReader(lines)), "none")


def clean(mark: str) -> str:
    """End the processes and delete the files that are left; what they were."""
    processes = running(mark)
    for process in processes:
        os.kill(int(process), signal.SIGKILL)
    files = [path for folder in ("/tmp", "/dev/shm") for path in Path(folder).glob("dojo-cheat-*")]
    for path in files:
        path.unlink()
    found = {"processes": len(processes), "files": len(files)}
    return " and ".join(f"{count} {what}" for what, count in found.items() if count)


if __name__ == "__main__":
    main()
