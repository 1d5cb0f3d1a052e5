"""Bringing files into the data folder: from the network, from an archive, from another folder.

A file gets its name in one step, once it is whole.  What a download has brought so far is kept beside it as
`.part`, and the next attempt goes on from there.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import re
import shutil
import socket
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from dojo import __version__
from dojo.datasets.catalogue import Check, DataSet, Download, Part
from dojo.datasets.formats import DamagedData

TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 3  # at each address, where it answers but breaks off
PAUSE = 1.0  # seconds before the second attempt, twice as many before the third
BLOCK = 1 << 18

Report = Callable[[int, int], None]  # bytes so far, and of how many (0: not known)


class Unreachable(Exception):
    """No address gave the file.  The message has a line for each."""


class NetworkTrouble(Exception):
    """An address did not give the file; `lasting` if another attempt is no use."""

    def __init__(self, reason: str, lasting: bool = False) -> None:
        super().__init__(reason)
        self.lasting = lasting


def part_of(path: Path) -> Path:
    """Where a file is kept while it is not whole."""
    return path.with_name(path.name + ".part")


def kept(path: Path) -> int:
    """Bytes of an unfinished download."""
    return part_of(path).stat().st_size if part_of(path).exists() else 0


def download(wanted: Download, folder: Path, report: Report) -> Path:
    """Bring one file into the data folder.

    Raises:
        Unreachable: no address gave it.
        OSError: the folder cannot be written, or the disk is full.
    """
    path = folder / wanted.name
    path.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url in wanted.urls:
        try:
            _from_address(url, path, wanted.check, report)
            return path
        except NetworkTrouble as trouble:
            reasons.append(f"{urlsplit(url).netloc}: {trouble}")
    raise Unreachable("\n".join(reasons))


def _from_address(url: str, path: Path, check: Check, report: Report) -> None:
    """Several attempts at one address, each of which goes on where the last one stopped."""
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE * attempt)
        resumed = kept(path) > 0
        try:
            _pull(url, part_of(path), report)
        except NetworkTrouble as trouble:
            if trouble.lasting or attempt == ATTEMPTS - 1:
                raise
            continue
        try:
            put(path, check)
            return
        except DamagedData as damage:
            # Its beginning may have been of another file; once more from nothing.
            if not resumed:
                reason = str(damage).rpartition(": ")[2]
                raise NetworkTrouble(f"sends something else ({reason})", lasting=True) from damage
    raise NetworkTrouble("sends something else each time")


def _pull(url: str, part: Path, report: Report) -> None:
    """Add to `part` what it lacks."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": f"tinytorch-dojo/{__version__}"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                if error.headers.get("Content-Range") == f"bytes */{have}":
                    return  # it was whole, and only its name was missing
                part.unlink()
                raise NetworkTrouble("has a shorter file than was begun") from error
            busy = error.code >= 500 or error.code in (408, 429)
            raise NetworkTrouble(f"answers {error.code} {error.reason}", lasting=not busy) from error
    except (OSError, http.client.HTTPException) as error:
        raise NetworkTrouble(*_said(error)) from error
    with response:
        start, total = _extent(response, have)
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            done = start
            report(done, total)
            while block := _read(response):
                file.write(block)
                done += len(block)
                report(done, total)
    if done < total:
        raise NetworkTrouble(f"broke off after {done:,} of {total:,} bytes")


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int]:
    """Where in the file the answer begins, and how long the file is, or 0."""
    told = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        if told is None or int(told[1]) != have:
            raise NetworkTrouble("sends another part of the file than was asked for", lasting=True)
        return have, int(told[2])
    return 0, int(response.headers.get("Content-Length", 0))


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise NetworkTrouble(*_said(error)) from error


def _said(error: Exception) -> tuple[str, bool]:
    """Why the network failed, in words, and whether it will last."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, socket.gaierror):
        return "no such host, or no network", True
    if isinstance(reason, TimeoutError):
        return f"no answer within {TIMEOUT:.0f} seconds", True
    if isinstance(reason, ConnectionRefusedError):
        return "refuses connections", True
    return str(reason) or type(reason).__name__, False


def put(path: Path, check: Check) -> None:
    """Give what is in `path`'s .part its name if it is whole, and remove it if it is not.

    Raises:
        DamagedData: it is not.
    """
    part = part_of(path)
    try:
        check(part)
    except DamagedData:
        part.unlink()
        raise
    os.replace(part, path)


def unpack(archive: Path, data: DataSet, folder: Path) -> None:
    """Bring the parts that are in an archive into the data folder; nothing else in it is looked at.

    Raises:
        DamagedData: the archive is not whole, or lacks a part.
    """
    parts = {name: part for layout in data.layouts for part in layout for name in part.names}
    written: set[Part] = set()
    try:
        with tarfile.open(archive) as files:
            for member in files:
                part = parts.get(member.name.removeprefix("./"))
                stream = files.extractfile(member) if part and member.isreg() else None
                if part and stream:
                    copy(stream, folder / part.names[0], part.check)
                    written.add(part)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DamagedData(f"{archive}: cannot be unpacked ({error})") from error
    for layout in data.layouts:
        if written.issuperset(layout):
            _forget_before(layout, data, folder)
            return
    raise DamagedData(f"{archive}: lacks files of {data.title}")


def copy(source: IO[bytes], path: Path, check: Check) -> None:
    """Put what `source` holds at `path`, in one step, if it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with part_of(path).open("wb") as target:
        shutil.copyfileobj(source, target)
    put(path, check)


def take(data: DataSet, source: Path, folder: Path) -> list[Path]:
    """Bring a set into the data folder from another one, or from one inside of that.

    Returns:
        The files that it was taken from; none if the set is not there.

    Raises:
        DamagedData: a file is not whole.
    """
    for layout in data.layouts:
        found = [next(_look(source, part.names), None) for part in layout]
        if None in found:
            continue
        files = [path for path in found if path]
        for part, path in zip(layout, files, strict=True):
            _take(part, path, folder)
        _forget_before(layout, data, folder)
        return files
    for archive in _look(source, data.archives):
        unpack(archive, data, folder)
        return [archive]
    return []


def holds(data: DataSet, source: Path) -> bool:
    """Whether a folder, or one inside of it, has something of a set."""
    names = [name for layout in data.layouts for part in layout for name in part.names]
    return any(_look(source, (*names, *data.archives)))


def _take(part: Part, path: Path, folder: Path) -> None:
    # A name without .gz, where the file has none.
    like = next((n for n in part.names if Path(n).suffix == path.suffix), part.names[0])
    target = folder / like
    if target.exists() and target.samefile(path):
        part.check(path)
        return
    with path.open("rb") as file:
        copy(file, target, part.check)
    for before in part.names[: part.names.index(like)]:
        (folder / before).unlink(missing_ok=True)  # or it would be read instead


def _forget_before(layout: tuple[Part, ...], data: DataSet, folder: Path) -> None:
    """Remove what is there in a layout that would be read instead."""
    for other in data.layouts[: data.layouts.index(layout)]:
        for name in (name for part in other for name in part.names):
            (folder / name).unlink(missing_ok=True)


def _look(source: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """Files of these names in a folder and two levels down."""
    for name in names:
        for pattern in ("", "*/", "*/*/"):
            with contextlib.suppress(OSError):
                yield from sorted(p for p in source.glob(pattern + Path(name).name) if p.is_file())
