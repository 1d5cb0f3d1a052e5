"""The cell that a student's code runs in, and how strong its walls are on this machine (Linux).

With namespaces, as root or where users may make their own, the worker sees a file system of Python, numpy and
the student's files; has no network and no other process; and dies with its cell.  Without, root can still
give it another user, from whom files can be hidden by their permissions.  `walls` asks a worker what it sees.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dojo.curriculum import REFERENCE, ROOT
from dojo.threads import ONE_THREAD

SCRIPTS = Path(__file__).parent / "cell"
PACKAGES = ("numpy", "rich", "markdown_it", "mdurl", "pygments", "packaging")  # what a reference may import
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/nix/store")
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
USERS = (61_000, 4_000)  # nobody's on ordinary systems: the first, and how many
SCRATCH = 64  # megabytes of files that the worker may write
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
LIMITS = {
    "RLIMIT_AS": 2 << 30,
    "RLIMIT_CPU": 300,
    "RLIMIT_FSIZE": SCRATCH << 20,
    "RLIMIT_NPROC": 32,
    "RLIMIT_NOFILE": 64,
    "RLIMIT_CORE": 0,
}
# None on processor time: with one, Linux counts a process's time in ticks, and ratios of times are noise.
LIMITS_OF_SUITES = {
    "RLIMIT_AS": 8 << 30,
    "RLIMIT_FSIZE": 256 << 20,
    "RLIMIT_NPROC": 128,
    "RLIMIT_NOFILE": 512,
    "RLIMIT_CORE": 0,
}
FILES = ("conftest.py", "pytest.ini", "pyproject.toml", "progress.json")  # that a run reads at the top
COURSE = (*FILES, "dojo", "katas", "reference/tinytorch", "stubs")
ARCHITECTURES = ("x86_64", "aarch64", "riscv64")  # of which enter.py knows the number of pivot_root
ALONE = ("-I", "-S", "-B")  # of Python: no variables, no site-packages, no bytecode
SPACES = ("--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child")


@dataclass(frozen=True)
class Walls:
    """What a cell keeps from the code inside."""

    hidden: bool  # reference/ and the tests cannot be read
    alone: bool  # no other process can be seen
    offline: bool  # there is no network
    powerless: bool  # it has another user's rights; in a cell, none beyond it
    read_only: bool  # the student's files and Python cannot be changed

    def __str__(self) -> str:
        names = {
            "hidden": "solutions and tests out of sight",
            "alone": "no other process in sight",
            "offline": "no network",
            "powerless": "no rights of the grader's",
            "read_only": "nothing to write but an empty folder",
        }
        held = [words for name, words in names.items() if getattr(self, name)]
        missing = [words for name, words in names.items() if not getattr(self, name)]
        return ", ".join(held or ["nothing"]) + (f"; MISSING: {', '.join(missing)}" if missing else "")


@functools.cache
def namespaces() -> tuple[str, ...]:
    """The words of `unshare` that make a cell here; none where that is not allowed."""
    tool = shutil.which("unshare")
    if tool is None or platform.machine() not in ARCHITECTURES:
        return ()
    for words in ((tool, *SPACES), (tool, "--user", "--map-root-user", *SPACES)):
        try:
            done = subprocess.run([*words, "true"], capture_output=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return words
    return ()


@dataclass(frozen=True)
class Cell:
    """How to start a worker, and the user that it is there (None: the grader's own)."""

    command: list[str]
    user: int | None


@contextmanager
def cell(files: Mapping[str, str | bytes], module: str) -> Iterator[Cell]:
    """A cell for a worker on `module`, with `files` in its folder (`runs.py` among them)."""
    words, root = namespaces(), os.geteuid() == 0
    user = USERS[0] + secrets.randbelow(USERS[1]) if root else None
    with tempfile.TemporaryDirectory(prefix="dojo-cell-", ignore_cleanup_errors=True) as folder:
        top = Path(folder)
        for name in ("cell", "root", "site", "scratch"):
            (top / name).mkdir()
        for name, content in {**files, "worker.py": (SCRIPTS / "worker.py").read_bytes()}.items():
            _write(top / "cell" / name, content)
        for path in (top, *top.rglob("*")):  # whatever our umask is, the worker's user has to read them
            path.chmod(0o755 if path.is_dir() else 0o644)
        scratch = top / "scratch"
        if user:
            os.chown(scratch, user, user)
        if words:
            seen, site, cwd = "/cell", "/site", "/scratch"
        else:
            seen, site, cwd = str(top / "cell"), str(top / "site"), str(scratch)
            for name, path in _packages().items():
                (top / "site" / name).symlink_to(path)
        python = os.path.realpath(sys.executable)
        plan = {
            "root": str(top / "root") if words else "",
            "shown": _shown(top / "cell") if words else [],
            "writable": [],
            "megabytes": SCRATCH,
            "cwd": cwd,
            "limits": LIMITS,
            "uid": user,
            "environment": {**ONE_THREAD, **ENVIRONMENT, "HOME": cwd, "TMPDIR": cwd},
            "command": [
                python,
                *ALONE,
                f"{seen}/worker.py",
                module,
                f"{seen}/runs.py",
                f"{seen}/student",
                site,
            ],
        }
        enter = [python, *ALONE, str(SCRIPTS / "enter.py"), json.dumps(plan)]
        yield Cell([*_tethered(words), *enter], user)


@contextmanager
def suite_cell(
    command: list[str], environment: Mapping[str, str], copies: Path, scratch: Path
) -> Iterator[list[str]]:
    """A command that runs `command` of Python in a cell which has this repository's suites, to read.

    Code in it can fool the suites, as in plain mode, but harms nothing outside: all that it can write is
    `scratch`, and there is no network, no other process, and none of the grader's rights.

    Raises:
        OSError: there are no namespaces here.
    """
    words = namespaces()
    if not words:
        raise OSError("a suite can be run in a cell only where there are namespaces (`unshare --user true`)")
    mine = (ROOT / "dojo" / "cli.py").stat().st_mode & 0o004 == 0  # who could not read it as another user
    user = None if os.geteuid() or mine else USERS[0] + secrets.randbelow(USERS[1])
    with tempfile.TemporaryDirectory(prefix="dojo-cell-", ignore_cleanup_errors=True) as root:
        copies.parent.chmod(0o755)
        if user:
            os.chown(scratch, user, user)
        prefixes = {os.path.realpath(sys.base_prefix), sys.prefix} - {"/usr"}
        system = [name for name in (*SYSTEM, *DEVICES, *sorted(prefixes)) if os.path.lexists(name)]
        shown = [*system, *(str(ROOT / name) for name in COURSE), str(copies)]
        plan = {
            "root": root,
            "shown": [(name, name) for name in shown],
            "writable": [(str(scratch), str(scratch))],
            "megabytes": SCRATCH,
            "cwd": str(ROOT),
            "limits": LIMITS_OF_SUITES,
            "uid": user,
            "environment": dict(environment),
            "command": [sys.executable, *command],
        }
        python = os.path.realpath(sys.executable)
        yield [*_tethered(words), python, *ALONE, str(SCRIPTS / "enter.py"), json.dumps(plan)]


def _tethered(words: tuple[str, ...]) -> tuple[str, ...]:
    """Words before a command that have it die with the grader."""
    tool = shutil.which("setpriv")
    return (tool, "--pdeathsig", "KILL", *words) if tool else words


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def _shown(folder: Path) -> list[tuple[str, str]]:
    """What the cell's file system has of this one: from where, and as what."""
    base = os.path.realpath(sys.base_prefix)
    system = [name for name in (*SYSTEM, *DEVICES) if os.path.lexists(name)]
    if not base.startswith("/usr/") and base != "/usr":
        system.append(base)
    packages = [(str(path), f"/site/{name}") for name, path in _packages().items()]
    return [*((name, name) for name in system), *packages, (str(folder), "/cell")]


@functools.cache
def _packages() -> dict[str, Path]:
    """The folders of what a student may import, with numpy's libraries, which wheels keep beside it."""
    found = {}
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec and spec.origin:
            path = Path(spec.origin).resolve().parent
            found[name] = path
            if (libraries := path.with_name(f"{name}.libs")).is_dir():
                found[libraries.name] = libraries
    return found


# A student's module, and a question, that look for what should not be there.
LOOKS = """
import os
import socket


def readable(path):
    try:
        (os.listdir if os.path.isdir(path) else lambda p: open(p).close())(path)
        return True
    except OSError:
        return False


def writable(folder):
    try:
        with open(os.path.join(folder, "dojo-was-here"), "x"):
            pass
        os.unlink(os.path.join(folder, "dojo-was-here"))
        return True
    except OSError:
        return False


def networks():
    try:
        return [name for _, name in socket.if_nameindex() if name != "lo" and not name.startswith(
            ("sit", "tunl", "ip6", "gre", "erspan", "ip_vti"))]
    except OSError:
        return []


def powers():
    try:
        with open("/proc/self/status") as file:
            return int(next(line for line in file if line.startswith("CapEff")).split()[1], 16)
    except (OSError, StopIteration):
        return -1


def others():
    try:
        return [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    except OSError:
        return []
"""
ASKS = """
import os
import numpy as np


def run_look(student, paths, uid, celled):
    text = bytes(paths.astype(np.uint8)).decode()
    apart = student.powers() == 0 if celled[0] else os.getuid() != uid[0]
    return np.array([
        not any(map(student.readable, text.split("\\n"))),
        not student.others(),
        not student.networks(),
        apart,
        not any(map(student.writable, (*map(os.path.dirname, (student.__file__, np.__file__)), "/usr"))),
    ])
"""


@functools.cache
def walls() -> Walls:
    """Ask a worker in a cell what it can see: facts, not what was meant to be.

    Raises:
        OSError: no worker can be started at all; the message says why.
    """
    import numpy as np

    from dojo.grading.worker import Worker

    paths = "\n".join(map(str, (REFERENCE / "tensor.py", ROOT / "katas", ROOT / "stubs", Path(__file__))))
    arrays = {
        "paths": np.frombuffer(paths.encode(), np.uint8).astype(np.int64),
        "uid": np.array([os.getuid()]),
        "celled": np.array([bool(namespaces())]),
    }
    with cell({"student/looks.py": LOOKS, "runs.py": ASKS}, "looks") as made, Worker(made) as worker:
        worker.begin()
        return Walls(*map(bool, worker.ask("run_look", arrays, 30.0).array))
