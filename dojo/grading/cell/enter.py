"""Goes into the cell and becomes the worker: `python -I -S -B enter.py JSON`, typed by `sandbox`.

Where there are namespaces it makes a file system that has Python, numpy and the student's files and nothing
else, read-only but for an empty folder; everywhere it takes limits, gives up its rights and turns into the
worker by exec, so that nothing of this process is left for the student's code to find.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import resource
import sys
from typing import Any

RDONLY, NOSUID, NODEV, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
RELATIME = 1 << 21
KEPT = 2 | 4 | 8 | 1024 | 2048  # flags that a mount in a user namespace may not lose
ST_RELATIME = 4096
DETACH = 2
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41}
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
TOKEN = "DOJO_LEASH"
LIBC = ctypes.CDLL(None, use_errno=True)


def main(plan: dict[str, Any]) -> None:
    os.umask(0o022)  # whatever the grader's is, another user is to read what is shown
    if plan["root"]:
        move_in(plan["root"], plan["shown"], plan["writable"], plan["megabytes"])
    os.chdir(plan["cwd"])
    for name, most in plan["limits"].items():
        resource.setrlimit(getattr(resource, name), (most, most))
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for capability in range(64):
        LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if plan["uid"]:
        os.setgroups([])
        os.setresgid(plan["uid"], plan["uid"], plan["uid"])
        os.setresuid(plan["uid"], plan["uid"], plan["uid"])
    os.umask(0o077)
    mark = {TOKEN: os.environ[TOKEN]} if TOKEN in os.environ else {}  # by which the grader finds it again
    os.execve(plan["command"][0], plan["command"], {**plan["environment"], **mark})


def move_in(root: str, shown: list[list[str]], writable: list[list[str]], megabytes: int) -> None:
    """Make `root` the root: `shown` and `writable` say what it has of the real one, as [from, to]."""
    mount(None, "/", None, REC | PRIVATE)
    mount("tmpfs", root, "tmpfs", NOSUID | NODEV, f"size={megabytes}m,nr_inodes=4096,mode=755")
    for source, target in shown:
        show(source, root + target)
    for source, target in writable:
        os.makedirs(root + target, exist_ok=True)
        mount(source, root + target, None, BIND)
    for name, mode in (
        ("/tmp", 0o1777),
        ("/dev/shm", 0o1777),
        ("/scratch", 0o1777),
        ("/old", 0o755),
        ("/proc", 0o555),
    ):
        os.makedirs(root + name, exist_ok=True)
        os.chmod(root + name, mode)
    with contextlib.suppress(OSError):  # some containers forbid it; then the worker has no /proc
        mount("proc", root + "/proc", "proc", NOSUID | NODEV)
    os.chdir(root)
    if LIBC.syscall(PIVOT_ROOT[platform.machine()], b".", b"old"):
        raise failure("pivot_root")
    os.chdir("/")
    if LIBC.umount2(b"/old", DETACH):
        raise failure("umount")
    os.rmdir("/old")


def show(source: str, target: str) -> None:
    """Have a file or folder at `target`, read-only; a link stays a link."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        open(target, "w").close()
    mount(source, target, None, BIND | REC)
    if not source.startswith("/dev/"):
        have = os.statvfs(target).f_flag
        flags = have & KEPT | (RELATIME if have & ST_RELATIME else 0)
        mount(None, target, None, REMOUNT | BIND | RDONLY | NOSUID | flags)


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    words = [word.encode() if word is not None else None for word in (source, target, kind)]
    if LIBC.mount(*words, ctypes.c_ulong(flags), options.encode() if options else None):
        raise failure(f"mount {target}")


def failure(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
