"""What was handed in: a folder or a zip that has stubs/tinytorch/*.py somewhere in it.

Only the files of katas are read, each as bytes and within a size; nothing is unpacked, imported or followed
through a link.  A submission that cannot be read is a submission all the same, with its `trouble`, so that a
class of 500 is graded whatever one of them has sent.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dojo.curriculum import KATAS

LARGEST = 1_000_000  # bytes of one file; the longest reference has a twentieth of it
MOST = 20_000  # entries of a zip or a folder; a whole clone of the course has a fiftieth of it
WANTED = {f"{kata.name}.py": kata.name for kata in KATAS}
# Places that hold files of the same names which are not a student's work.
PASSED_OVER = {"reference", "mistakes", "alternatives", "site-packages", "__MACOSX", "node_modules"}


class Unreadable(Exception):
    """Why a submission cannot be graded, in words for the one who handed it in."""


@dataclass(frozen=True)
class Submission:
    """One student's files, by the name of their kata.  `trouble` says why there are none."""

    name: str
    files: dict[str, bytes] = field(default_factory=dict)
    trouble: str = ""


def find(folder: Path, but: Path | None = None) -> list[Submission]:
    """Every submission in `folder`: its folders and zips, by name.  `but` is left out (the results).

    Raises:
        Unreadable: there is no such folder, nothing in it, or two submissions of one name; or it is itself
            one submission.
    """
    if not folder.is_dir():
        raise Unreadable(f"{folder} is not a folder; it should hold one folder or .zip for each student")
    if inside := _own_files(folder):
        raise Unreadable(
            f"{folder} is one submission: {inside} is in it; name the folder that holds the submissions"
        )
    entries = [entry for entry in sorted(folder.iterdir()) if _is_one(entry, but)]
    if not entries:
        raise Unreadable(
            f"{folder} holds no submission: put one folder or .zip for each student there, "
            "with stubs/tinytorch/*.py in it"
        )
    seen: dict[str, Path] = {}
    for entry in entries:
        name = _name_of(entry)
        if name in seen:
            raise Unreadable(f"{seen[name].name} and {entry.name} are both called {name!r}; rename one")
        seen[name] = entry
    return [read(entry) for entry in entries]


def class_in(folder: Path) -> list[Path]:
    """The submissions in `folder` if it is a class's: two or more, and no file of a kata of its own."""
    if not folder.is_dir() or _own_files(folder):
        return []
    inside = [e for e in sorted(folder.iterdir()) if _is_one(e, None) and (e.is_file() or _own_files(e))]
    return inside if len(inside) > 1 else []


def _own_files(folder: Path) -> str:
    """The first file of a kata where one submission, not a class, would have it; empty if there is none."""
    places = (folder, folder / "tinytorch", folder / "stubs" / "tinytorch")
    files = (place / name for place in places for name in sorted(WANTED) if (place / name).is_file())
    return next((file.relative_to(folder).as_posix() for file in files), "")


def passed_over(folder: Path, but: Path) -> list[str]:
    """What lies in a class's folder and is neither a folder nor a zip; with the results there, nothing."""
    if but.resolve() == folder.resolve():
        return []
    return [
        entry.name
        for entry in sorted(folder.iterdir())
        if not entry.name.startswith(".") and not entry.is_dir() and entry.suffix.lower() != ".zip"
    ]


def _is_one(entry: Path, but: Path | None) -> bool:
    if entry.name.startswith(".") or entry.name in PASSED_OVER:
        return False
    if but is not None and entry.resolve() == but.resolve():
        return False
    return entry.is_dir() or entry.suffix.lower() == ".zip"


def _name_of(entry: Path) -> str:
    """As it can be written to a report: what old zips unpack to is not always UTF-8."""
    name = entry.name if entry.is_dir() else entry.stem
    return os.fsencode(name).decode("utf-8", "replace")


def read(path: Path) -> Submission:
    """The submission at `path`; what is wrong with it is its `trouble`."""
    name = _name_of(path)
    try:
        if path.is_dir():
            found = dict(_in_folder(path))
            files = _in_zip(only) if not found and (only := _only_zip(path)) else _chosen(found)
        elif path.exists():
            files = _in_zip(path)
        else:
            raise Unreadable("there is no such folder or zip")
    except Unreadable as error:
        return Submission(name, trouble=str(error))
    except OSError as error:
        return Submission(name, trouble=f"it cannot be read: {error.strerror or error}")
    return Submission(name, files)


def _only_zip(folder: Path) -> Path | None:
    """The one zip of a folder without files of katas: so learning platforms hand out what was handed in."""
    zips = [e for e in folder.iterdir() if e.suffix.lower() == ".zip" and stat.S_ISREG(e.lstat().st_mode)]
    return zips[0] if len(zips) == 1 else None


def _chosen(found: dict[PurePosixPath, bytes]) -> dict[str, bytes]:
    """The files of the one folder that is the student's: stubs/tinytorch, tinytorch, or the top.

    Raises:
        Unreadable: there is no file of any kata, or there are two such folders.
    """
    folders = {path.parent for path in found}
    if not folders:
        raise Unreadable(
            "no file of a kata is in it; it should have stubs/tinytorch/tensor.py and the like "
            "(zip the clone, or its stubs folder)"
        )

    def rank(folder: PurePosixPath) -> tuple[bool, bool, int]:
        inside = folder.parts[-2:] == ("stubs", "tinytorch")
        return (not inside, folder.name != "tinytorch", len(folder.parts))

    best, *others = sorted(folders, key=lambda folder: (rank(folder), str(folder)))
    if others and rank(others[0]) == rank(best):
        raise Unreadable(f"both {best} and {others[0]} have files of katas; hand in one of them")
    return {WANTED[path.name]: text for path, text in sorted(found.items()) if path.parent == best}


def _wanted(path: PurePosixPath) -> bool:
    return path.name in WANTED and PASSED_OVER.isdisjoint(path.parts)


def _in_folder(top: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    count = 0
    for root, folders, names in os.walk(top):  # which follows no links
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in PASSED_OVER)
        count += len(folders) + len(names)
        if count > MOST:
            raise Unreadable(f"it has more than {MOST:,} files; hand in stubs/tinytorch alone")
        for name in sorted(names):
            file = Path(root) / name
            path = PurePosixPath(file.relative_to(top).as_posix())
            if _wanted(path):
                yield path, _content(file, path)


def _content(file: Path, shown: PurePosixPath) -> bytes:
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable(f"{shown} is a link or a device, not a file; hand in the file itself")
    if status.st_size > LARGEST:
        raise Unreadable(f"{shown} has {status.st_size:,} bytes; {LARGEST:,} are read")
    return file.read_bytes()


def _in_zip(path: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MOST:
                raise Unreadable(f"the zip has more than {MOST:,} entries; zip stubs/tinytorch alone")
            found = {}
            for entry in entries:
                inside = _safe(entry)
                if not entry.is_dir() and _wanted(inside):
                    if inside in found:
                        raise Unreadable(f"the zip has {inside} twice; zip it afresh")
                    found[inside] = _unpacked(archive, entry)
            return _chosen(found)
    except (Unreadable, OSError):
        raise
    # A damaged zip can raise almost anything; RuntimeError is a password.
    except Exception as error:
        raise Unreadable(f"the zip is damaged or cannot be opened ({error}); zip it afresh") from error


def _safe(entry: zipfile.ZipInfo) -> PurePosixPath:
    """The entry's path.

    Raises:
        Unreadable: it leads out of the zip, as it does in zips that are made to write elsewhere.
    """
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or any(":" in part for part in path.parts[:1]):
        raise Unreadable(f"the zip has an entry {entry.filename!r}, which leads out of it; zip it afresh")
    if stat.S_ISLNK(entry.external_attr >> 16) and _wanted(path):
        raise Unreadable(f"{path} is a link in the zip, not a file; zip the file itself")
    return path


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as file:
        content = file.read(LARGEST + 1)  # whatever size the zip says it has
    if len(content) > LARGEST:
        raise Unreadable(f"{entry.filename} has more than the {LARGEST:,} bytes that are read")
    return content
