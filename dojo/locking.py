"""One process at a time: a lock of the operating system, which a killed process gives up by dying."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # some network drives


@contextlib.contextmanager
def lock(path: Path, timeout: float) -> Iterator[bool]:
    """Hold the lock beside `path`; yields whether this file system has locks at all.

    Raises:
        TimeoutError: another process held it for `timeout` seconds.
    """
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        deadline = time.monotonic() + timeout
        locked = True
        while True:
            try:
                _take(descriptor)
                break
            except OSError as error:
                if error.errno in NO_LOCKS_HERE:
                    locked = False
                    break
                if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                    raise
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another process has kept it locked")
            time.sleep(0.005)
        try:
            yield locked
        finally:
            if locked:
                _give_up(descriptor)
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> None:
    """Take the lock or raise at once."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _give_up(descriptor: int) -> None:
    """Give the lock up now: Windows may take its time about one that is merely closed."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_UN)
