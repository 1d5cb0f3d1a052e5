"""Reading and changing the file itself: one writer at a time, and never a half-written file.

A change holds an operating-system lock on `progress.json.lock`, which a killed process gives up by dying, and
replaces the file in one step.  Without the lock two test runs lose each other's passes; without the
replacement a reader can see half a file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dojo.locking import lock
from dojo.progress.reading import CONFLICT, REPLACED, Contents, blank, parse, unreadable

T = TypeVar("T")

LOCK_TIMEOUT = 10.0  # seconds; a change takes milliseconds, so this is a process that hangs
# Windows refuses for a moment while another process (a reader, a virus scanner) has the file open.
ATTEMPTS = 20 if os.name == "nt" else 1


def read(path: Path) -> Contents:
    """What the file says.  Never raises, never writes."""
    try:
        return parse(_patiently(path.read_bytes))
    except FileNotFoundError:
        return Contents(blank())
    except OSError as error:
        return unreadable(error)


def update(path: Path, change: Callable[[dict[str, Any]], None]) -> list[str]:
    """Apply `change` to the contents of the file, alone and in one step.

    A damaged or conflicted file is set aside first; a newer or unreadable one is left alone.

    Returns:
        Messages for the student: what was set aside, or why nothing was written.  An OSError is one of them.
    """
    path = Path(os.path.realpath(path))  # replace the file, not a link to it
    try:
        with lock(path, LOCK_TIMEOUT) as locked:
            contents = read(path)
            messages = []
            if contents.kind in REPLACED:
                messages.append(_set_aside(path, contents))
            elif contents.trouble:
                return [contents.trouble]
            change(contents.data)
            # Under the lock one name will do, and what a killed writer left is written over.
            _replace(path, contents.data, path.with_name(f"{path.name}.tmp{'' if locked else os.getpid()}"))
            return messages
    except OSError as error:
        reason = error.strerror or str(error)
        return [
            f"progress was not recorded: {path} could not be written ({reason}); the tests are not affected"
        ]


def _replace(path: Path, data: dict[str, Any], temporary: Path) -> None:
    """Write `data` beside `path` and put it in its place."""
    mode = _mode(path)
    if mode is not None and not mode & 0o222:
        raise PermissionError(errno.EACCES, "it is read-only")
    text = json.dumps(data, indent=1, sort_keys=True, default=_plain) + "\n"
    temporary.unlink(missing_ok=True)
    try:
        with open(temporary, "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(mode)
        _patiently(lambda: os.replace(temporary, path))
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return None


def _set_aside(path: Path, contents: Contents) -> str:
    """Copy the file to a name that nothing has yet, and say so.  A copy, so that it is never missing."""
    raw = path.read_bytes()
    label = "conflict" if contents.kind == CONFLICT else "corrupt"
    kept = next((old for old in path.parent.glob(f"{path.name}.{label}-*") if old.read_bytes() == raw), None)
    if kept is None:
        kept = write_new(path.with_name(f"{path.name}.{label}"), "", raw)
    katas = ", ".join(sorted(contents.data["katas"]))
    what = "held the marks of a git merge" if contents.kind == CONFLICT else "was damaged"
    if not katas:
        return (
            f"{path.name} {what}; it is kept as {kept.name}, and a new one was begun. "
            "If katas had passed before, `dojo verify --all` finds them"
        )
    return (
        f"{path.name} {what}; it is kept as {kept.name}, and a new one has what could be read of it "
        f"(katas passed: {katas}), to be proven again: run `dojo verify --all`"
    )


def write_new(stem: Path, suffix: str, raw: bytes) -> Path:
    """Write a file under a name of `stem`, the time and `suffix` that nothing has yet; return where it is."""
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for count in range(1, 1000):
        target = stem.with_name(f"{stem.name}-{now}{'' if count == 1 else f'-{count}'}{suffix}")
        try:
            with open(target, "xb") as file:
                file.write(raw)
                os.fsync(file.fileno())
            return target
        except FileExistsError:
            continue
    raise FileExistsError(errno.EEXIST, f"too many files are called {stem.name}-{now}")


def _patiently(action: Callable[[], T]) -> T:
    """Do it, and on Windows do it again for a second while it is refused."""
    for _ in range(ATTEMPTS - 1):
        try:
            return action()
        except PermissionError:
            time.sleep(0.05)
    return action()


def _plain(value: Any) -> Any:
    """A numpy scalar as a Python number; anything else that JSON does not know as its text."""
    return value.item() if hasattr(value, "item") else str(value)
