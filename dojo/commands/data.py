"""List the data sets, download them, or take them from a folder where they are already.

They are kept in ~/.cache/tinytorch, or where the environment variable TINYTORCH_DATA says.  A download
that was stopped goes on where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from dojo.commands import BadInput, Refused
from dojo.console import terminal
from dojo.console.terminal import say
from dojo.datasets import catalogue, fetching
from dojo.datasets.catalogue import VARIABLE, DataSet, Download, data_folder
from dojo.datasets.fetching import Report
from dojo.datasets.formats import DamagedData
from dojo.locking import lock

FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
HERE = "here"
MADE = "xor, spirals, tinydigits, tinyshapes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sets",
        nargs="*",
        type=named,
        metavar="SET",
        help=f"{', '.join(catalogue.SETS)}, or all; without one, they are listed",
    )
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="take files that are in DIR")


def named(text: str) -> list[DataSet]:
    """The sets of one word on the command line."""
    if text == "all":
        return list(catalogue.SETS.values())
    word = text.lower().replace("-", "").replace("_", "")
    if word not in catalogue.SETS:
        names = ", ".join(catalogue.SETS)
        raise argparse.ArgumentTypeError(f"there is no data set {text!r}: they are {names}, or all")
    return [catalogue.SETS[word]]


def run(args: argparse.Namespace) -> int:
    wanted = list(dict.fromkeys(one for sets in args.sets for one in sets))
    folder = data_folder()
    if args.source is not None:
        if not args.source.is_dir():
            raise BadInput(f"--from {args.source}: there is no such folder")
        return _take_any(args.source, folder) if not wanted else _each(wanted, _take, args.source, folder)
    if wanted:
        return _each(wanted, _bring, folder)
    _list(folder)
    return 0


def _each(wanted: list[DataSet], do: Callable[..., None], *folders: Path) -> int:
    """Do what can be done, and fail if one of them could not."""
    status = 0
    with _alone(folders[-1]):
        for data in wanted:
            try:
                with _disk_trouble(folders[-1]):
                    do(data, *folders)
            except Refused as refusal:
                print(f"dojo: {refusal}", file=sys.stderr, flush=True)
                status = refusal.status
    return status


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from writing to the same files."""
    with contextlib.ExitStack() as held:
        with _disk_trouble(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(lock(folder / "data", timeout=0))
            except TimeoutError as error:
                raise Refused(f"another `dojo data` is at work in {folder}") from error
        yield


@contextlib.contextmanager
def _disk_trouble(folder: Path) -> Iterator[None]:
    """Say in words why the data folder could not be written."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise Refused(
                f"the disk is full: {folder} takes no more. {VARIABLE} moves it elsewhere"
            ) from error
        raise Refused(f"{error.filename or folder}: {error.strerror or error}") from error


def _list(folder: Path) -> None:
    say(f"Data sets in {folder} ({VARIABLE} moves them elsewhere):", "")
    missing = False
    for data in catalogue.SETS.values():
        state, size = _state(data, folder)
        missing |= state != HERE
        say(f"  {data.name:<17}{state:<9}{_megabytes(size):>8}   {data.about}")
    say(f"  {'made by code':<17}{HERE:<9}{'':>8}   {MADE}", "")
    say("`dojo data SET` downloads what is missing of one." if missing else "Nothing is missing.")


def _state(data: DataSet, folder: Path) -> tuple[str, int]:
    """In a word how much of a set is here, and its size: on disk, or to download."""
    if found := data.find(folder):
        return HERE, sum(path.stat().st_size for _, path in found)
    size = sum(one.size for one in data.downloads)
    begun = sum(_have(one, folder) for one in data.downloads)
    return (f"{100 * begun // size} % here" if begun else "missing"), size


def _have(one: Download, folder: Path) -> int:
    """Bytes of a download that are here."""
    path = folder / one.name
    return path.stat().st_size if path.is_file() else fetching.kept(path)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 1e8 else f"{size / 1e6:.0f} MB"


def _take_any(source: Path, folder: Path) -> int:
    """Take whatever sets are in `source`."""
    there = [data for data in catalogue.SETS.values() if fetching.holds(data, source)]
    if not there:
        raise Refused(f"{source} has no files of {', '.join(catalogue.SETS)}, nor have the folders in it")
    return _each(there, _take, source, folder)


def _take(data: DataSet, source: Path, folder: Path) -> None:
    try:
        taken = fetching.take(data, source, folder)
    except DamagedData as damage:
        raise Refused(f"{data.title} was not taken: {damage}") from damage
    if not taken:
        files = ", ".join([Path(part.names[0]).name for part in data.layouts[0]] + list(data.archives))
        raise Refused(f"{source} has not all files of {data.title}, nor have the folders in it: {files}")
    say(f"{data.title} is here now, taken from {taken[0].parent}.")


def _bring(data: DataSet, folder: Path) -> None:
    """Download what is missing of a set."""
    _remove_damaged(data, folder)
    if data.find(folder):
        say(f"{data.title} is here already, and whole.")
        return
    there = {part.names[0] for part in data.layouts[0] if any((folder / n).is_file() for n in part.names)}
    for one in data.downloads:
        if one.name not in there:
            _download(one, data, folder)
    say(f"{data.title} is here now: {folder}.")


def _remove_damaged(data: DataSet, folder: Path) -> None:
    for part in (part for layout in data.layouts for part in layout):
        for path in (folder / name for name in part.names if (folder / name).is_file()):
            try:
                part.check(path)
            except DamagedData as damage:
                say(f"{damage}. It is downloaded again.")
                path.unlink()


def _download(one: Download, data: DataSet, folder: Path) -> None:
    path = folder / one.name
    missing = one.size - _have(one, folder) + (data.size if one.is_archive else 0)
    if missing > shutil.disk_usage(folder).free:
        raise Refused(
            f"{data.title} needs {_megabytes(missing)} more in {folder}, and the disk has less left"
        )
    try:
        if not (path.is_file() and _whole(one, path)):
            with _progress(Path(one.name).name) as report:
                fetching.download(one, folder, report)
        if one.is_archive:
            say(f"  unpacking {one.name}")
            fetching.unpack(path, data, folder)
            path.unlink()
    except fetching.Unreachable as failure:
        lines = [f"{one.name} of {data.title} could not be downloaded.", *str(failure).splitlines()]
        if fetching.kept(path):
            lines.append(f"What came is kept: `dojo data {data.name}` goes on from there.")
        lines.append(f"If you have it from elsewhere, `dojo data {data.name} --from DIR` takes it.")
        raise Refused("\n  ".join(lines)) from failure
    except DamagedData as damage:
        raise Refused(str(damage)) from damage
    except KeyboardInterrupt:
        so_far = f"{_megabytes(_have(one, folder))} of {_megabytes(one.size)}"
        say("", f"Stopped. {so_far} are kept: `dojo data {data.name}` goes on from there.")
        raise


def _whole(one: Download, path: Path) -> bool:
    try:
        one.check(path)
    except DamagedData:
        return False
    return True


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Report]:
    """A bar at a terminal, and a line for each tenth elsewhere."""
    if terminal.is_plain():
        tenth = -1

        def tell(done: int, total: int) -> None:
            nonlocal tenth
            now = 10 * done // total if total else 0
            if now != tenth:
                tenth = now
                say(f"  {name}: {_megabytes(done)} of {_megabytes(total) if total else 'an unknown size'}")

        yield tell
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(compact=True))
    with Progress("  {task.description}", *columns, console=terminal.console()) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)
