"""`dojo data`: against a server on this computer that resumes, breaks off, lies and disappears."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dojo import cli
from dojo.commands import data as command
from dojo.datasets import catalogue, fetching
from dojo.datasets.catalogue import DataSet, Download, Part
from dojo.locking import lock
from tests.conftest import HERE

TEXT = np.random.default_rng(0).bytes(300_000)
DIGITS = {
    f"mnist/{name}": np.random.default_rng(k).bytes(5000) for k, name in enumerate(("images", "labels"))
}


@dataclass
class Server:
    """What it answers, by path, and what it was asked."""

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    shift: int = 0  # how far off the beginning of an asked-for range is
    cut: list[int] = field(default_factory=list)  # break the next answers off after so many bytes
    errors: list[int] = field(default_factory=list)  # statuses of the next answers
    hang: bool = False  # say nothing more after a cut
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # paths, and Range

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, wanted = request.path.lstrip("/"), request.headers.get("Range")
        self.asked.append((path, wanted))
        body = self.files.get(path)
        if self.errors or body is None:
            request.send_error(self.errors.pop(0) if self.errors else 404)
            return
        start = int(wanted[len("bytes=") : -1]) if wanted and self.ranges else 0
        if start >= len(body):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(body)}")
            request.end_headers()
            return
        if start:
            start += self.shift
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            request.send_response(200)
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        rest = body[start:]
        request.wfile.write(rest[: self.cut.pop(0)] if self.cut else rest)
        if self.hang:
            request.wfile.flush()
            time.sleep(60)


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.daemon_threads = True
    web.block_on_close = False
    told.port = web.server_port
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield told
    web.shutdown()
    web.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder, not there yet."""
    monkeypatch.setenv(catalogue.VARIABLE, str(tmp_path / "data"))
    monkeypatch.setattr(fetching, "PAUSE", 0)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    return tmp_path / "data"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


BATCHES = {f"cifar-10-batches-bin/{k}.bin": f"images of {k}".encode() * 500 for k in "ab"}
PICKLES = {f"cifar-10-batches-py/{k}": f"pickle of {k}".encode() for k in "ab"}


def archive(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


ARCHIVE = archive({"cifar-10-batches-bin/readme.html": b"about", **BATCHES, "../escaped": b"no"})


@pytest.fixture
def sets(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, DataSet]:
    """Small sets under the names of the real ones, served at two addresses: `one/` and `two/`."""

    def mirrored(name: str, content: bytes) -> tuple[str, str]:
        for place in ("one", "two"):
            server.files[f"{place}/{name}"] = content
        return server.url(f"one/{name}"), server.url(f"two/{name}")

    text = partial(catalogue.check_content, sha256(TEXT))
    checks = {name: partial(catalogue.check_content, sha256(content)) for name, content in DIGITS.items()}
    made = [
        DataSet(
            "mnist",
            "MNIST",
            "digits",
            10_000,
            (tuple(Part((f"{name}.gz", name), check) for name, check in checks.items()),),
            tuple(
                Download(f"{n}.gz", 5000, check, mirrored(f"{n}.gz", gzip.compress(DIGITS[n])))
                for n, check in checks.items()
            ),
        ),
        DataSet(
            "cifar10",
            "CIFAR-10",
            "pictures",
            14_000,
            tuple(
                tuple(Part((n,), partial(catalogue.check_sha256, sha256(c))) for n, c in layout.items())
                for layout in (BATCHES, PICKLES)
            ),
            (
                Download(
                    "binary.tar.gz",
                    len(ARCHIVE),
                    partial(catalogue.check_sha256, sha256(ARCHIVE)),
                    mirrored("binary.tar.gz", ARCHIVE),
                    is_archive=True,
                ),
            ),
            ("binary.tar.gz", "python.tar.gz"),
        ),
        DataSet(
            "tinyshakespeare",
            "Tiny Shakespeare",
            "plays",
            len(TEXT),
            ((Part(("tinyshakespeare.txt", "tinyshakespeare/input.txt"), text),),),
            (Download("tinyshakespeare.txt", len(TEXT), text, mirrored("input.txt", TEXT)),),
        ),
    ]
    for one in made:
        monkeypatch.setitem(catalogue.SETS, one.name, one)
    return catalogue.SETS


def files(folder: Path) -> dict[str, bytes]:
    there = (p for p in folder.rglob("*") if p.is_file() and p.name != "data.lock")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in there}


def begun(folder: Path, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "tinyshakespeare.txt.part"
    part.write_bytes(content)
    return part


# ---- Listing


def test_it_lists_what_is_here_and_what_is_missing(
    sets: dict[str, DataSet], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(folder, TEXT[:150_000])
    (folder / "mnist").mkdir()
    for name, content in DIGITS.items():
        (folder / name).write_bytes(content)
    assert cli.main(["data"]) == 0
    told = capsys.readouterr().out
    assert str(folder) in told
    assert catalogue.VARIABLE in told
    assert re.search(r"mnist +here +0.0 MB +digits", told)
    assert re.search(r"cifar10 +missing", told)
    assert re.search(r"tinyshakespeare +50 % here +0.3 MB", told)
    assert "dojo data SET" in told
    assert "tinydigits" in told


def test_bad_input_is_one_line(sets: dict[str, DataSet], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["data", "mnst"])
    assert left.value.code == 2
    assert cli.main(["data", "--from", "nowhere"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert "'mnst': they are mnist, cifar10, tinyshakespeare, or all" in told[0]
    assert "nowhere" in told[1]


# ---- Downloading


def test_all_are_downloaded_and_archives_unpacked(
    sets: dict[str, DataSet], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "all"]) == 0
    told = capsys.readouterr().out
    got = files(folder)
    zipped = {f"{name}.gz": content for name, content in DIGITS.items()}
    assert got == BATCHES | {"tinyshakespeare.txt": TEXT} | {name: got[name] for name in zipped}
    assert {name: gzip.decompress(got[name]) for name in zipped} == zipped
    assert not (folder.parent / "escaped").exists()
    assert "CIFAR-10 is here now" in told
    assert "0.3 MB of 0.3 MB" in told


def test_what_is_here_and_whole_is_not_asked_for(
    sets: dict[str, DataSet], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "all"]) == 0
    asked = len(server.asked)
    assert cli.main(["data", "MNIST", "CIFAR-10", "tiny_shakespeare"]) == 0
    assert len(server.asked) == asked
    assert capsys.readouterr().out.count("is here already, and whole") == 3


def test_only_what_is_missing_or_damaged_is_downloaded(
    sets: dict[str, DataSet], server: Server, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "all"]) == 0
    (folder / "mnist/labels.gz").unlink()
    (folder / "cifar-10-batches-bin/a.bin").write_bytes(b"spoilt")
    server.asked.clear()
    assert cli.main(["data", "all"]) == 0
    assert [path for path, _ in server.asked] == ["one/mnist/labels.gz", "one/binary.tar.gz"]
    assert "a.bin: its sha256 is" in capsys.readouterr().out
    assert files(folder)["cifar-10-batches-bin/a.bin"] == BATCHES["cifar-10-batches-bin/a.bin"]


def test_a_download_goes_on_where_it_stopped(sets: dict[str, DataSet], server: Server, folder: Path) -> None:
    begun(folder, TEXT[:100_000])
    assert cli.main(["data", "tinyshakespeare"]) == 0
    assert server.asked == [("one/input.txt", "bytes=100000-")]
    assert files(folder) == {"tinyshakespeare.txt": TEXT}


def test_a_server_without_ranges_gives_it_from_the_beginning(
    sets: dict[str, DataSet], server: Server, folder: Path
) -> None:
    server.ranges = False
    begun(folder, TEXT[:100_000])
    assert cli.main(["data", "tinyshakespeare"]) == 0
    assert len(server.asked) == 1
    assert files(folder) == {"tinyshakespeare.txt": TEXT}


def test_a_server_that_sends_another_range_is_not_believed(
    sets: dict[str, DataSet], server: Server, folder: Path
) -> None:
    server.shift = 10
    begun(folder, TEXT[:100_000])
    assert cli.main(["data", "tinyshakespeare"]) == 1
    assert files(folder) == {"tinyshakespeare.txt.part": TEXT[:100_000]}


def test_a_file_that_only_lacks_its_name_gets_it(
    sets: dict[str, DataSet], server: Server, folder: Path
) -> None:
    begun(folder, TEXT)
    assert cli.main(["data", "tinyshakespeare"]) == 0
    assert files(folder) == {"tinyshakespeare.txt": TEXT}


@pytest.mark.parametrize("wrong", [b"x" * 100_000, TEXT + b"more", b"x" * len(TEXT)])
def test_a_beginning_of_another_file_is_thrown_away(
    sets: dict[str, DataSet], folder: Path, wrong: bytes
) -> None:
    begun(folder, wrong)
    assert cli.main(["data", "tinyshakespeare"]) == 0
    assert files(folder) == {"tinyshakespeare.txt": TEXT}


def test_an_answer_that_breaks_off_is_continued(
    sets: dict[str, DataSet], server: Server, folder: Path
) -> None:
    server.cut = [120_000, 50_000]
    assert cli.main(["data", "tinyshakespeare"]) == 0
    assert server.asked == [("one/input.txt", r) for r in (None, "bytes=120000-", "bytes=170000-")]
    assert files(folder) == {"tinyshakespeare.txt": TEXT}


def test_another_address_is_tried_and_goes_on_there(
    sets: dict[str, DataSet], server: Server, folder: Path
) -> None:
    server.cut = [100_000, 0, 0]
    assert cli.main(["data", "tinyshakespeare"]) == 0
    assert server.asked[-1] == ("two/input.txt", "bytes=100000-")
    assert files(folder) == {"tinyshakespeare.txt": TEXT}


@pytest.mark.parametrize(("status", "asked"), [(404, 2), (403, 2), (503, 2), (429, 2)])
def test_an_error_of_one_address_is_no_trouble(
    sets: dict[str, DataSet], server: Server, folder: Path, status: int, asked: int
) -> None:
    server.errors = [status]
    assert cli.main(["data", "tinyshakespeare"]) == 0
    # A busy server is asked again, one that has not got the file is not.
    assert server.asked[-1][0] == ("one/input.txt" if status in (503, 429) else "two/input.txt")
    assert len(server.asked) == asked


def failed(capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["data", "tinyshakespeare"]) == 1
    return capsys.readouterr().err


def test_a_file_that_is_nowhere_is_said_with_each_address(
    sets: dict[str, DataSet], server: Server, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files.clear()
    told = failed(capsys)
    assert "tinyshakespeare.txt" in told
    assert told.count(f"127.0.0.1:{server.port}: answers 404") == 2
    assert "--from DIR" in told
    assert files(folder) == {}


def test_something_else_in_its_place_is_said_and_not_kept(
    sets: dict[str, DataSet], server: Server, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in server.files:
        server.files[path] = b"<html>Please log in to the network</html>"
    told = failed(capsys)
    assert told.count("sends something else") == 2
    assert sha256(TEXT)[:12] in told
    assert files(folder) == {}


def test_a_zipped_file_that_is_cut_is_something_else(
    sets: dict[str, DataSet], server: Server, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in server.files:
        server.files[path] = server.files[path][:-100]
    assert cli.main(["data", "mnist", "cifar10"]) == 1
    told = capsys.readouterr().err
    assert "MNIST" in told
    assert "CIFAR-10" in told
    assert files(folder) == {}


def test_breaking_off_for_good_keeps_what_came(
    sets: dict[str, DataSet], server: Server, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.cut = [10_000] * 6
    told = failed(capsys)
    assert "broke off after 60,000 of 300,000 bytes" in told
    assert "goes on from there" in told
    assert files(folder) == {"tinyshakespeare.txt.part": TEXT[:60_000]}


def test_no_network_is_said_in_words(
    sets: dict[str, DataSet], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = sets["tinyshakespeare"]
    gone = replace(one.downloads[0], urls=("http://127.0.0.1:9/input.txt", "http://data.invalid/input.txt"))
    monkeypatch.setitem(catalogue.SETS, one.name, replace(one, downloads=(gone,)))
    told = failed(capsys)
    assert "127.0.0.1:9: refuses connections" in told
    assert "data.invalid: no such host, or no network" in told


def test_silence_is_not_waited_for(
    sets: dict[str, DataSet],
    server: Server,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT", 0.2)
    server.cut, server.hang = [50_000, 50_000], True
    assert "no answer within" in failed(capsys)
    assert files(folder) == {"tinyshakespeare.txt.part": TEXT[:100_000]}


def test_a_disk_without_room_is_said_before(
    sets: dict[str, DataSet],
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6 - 1000, 1000))
    assert "the disk has less left" in failed(capsys)
    assert server.asked == []


def test_a_disk_that_fills_up_keeps_what_came(
    sets: dict[str, DataSet],
    server: Server,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The disk is full at the second address, while the first half is here."""
    begun(folder, TEXT[:1000])

    def full(response: Any) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fetching, "_read", full)
    told = failed(capsys)
    assert "the disk is full" in told
    assert catalogue.VARIABLE in told
    assert files(folder) == {"tinyshakespeare.txt.part": TEXT[:1000]}


def test_a_folder_that_cannot_be_is_said(
    sets: dict[str, DataSet], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write_text("a file of that name")
    told = failed(capsys)
    assert str(folder) in told
    assert "Traceback" not in told


def test_stopping_leaves_a_part_and_says_so(
    sets: dict[str, DataSet],
    server: Server,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    blocks = iter([TEXT[:100_000]])

    def stopped(response: Any) -> bytes:
        for block in blocks:
            return block
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fetching, "_read", stopped)
        assert cli.main(["data", "tinyshakespeare"]) == cli.INTERRUPTED
    assert (
        "Stopped. 0.1 MB of 0.3 MB are kept: `dojo data tinyshakespeare` goes on" in capsys.readouterr().out
    )
    assert files(folder) == {"tinyshakespeare.txt.part": TEXT[:100_000]}
    assert cli.main(["data", "tinyshakespeare"]) == 0
    assert server.asked[-1] == ("one/input.txt", "bytes=100000-")
    assert files(folder) == {"tinyshakespeare.txt": TEXT}


def test_two_do_not_write_to_the_same_files(
    sets: dict[str, DataSet], server: Server, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir()
    with lock(folder / "data", 1):
        assert "another `dojo data` is at work" in failed(capsys)
    assert server.asked == []
    assert cli.main(["data", "tinyshakespeare"]) == 0


CHILD = """
import sys
from dataclasses import replace
from dojo import cli
from dojo.datasets import catalogue
one = catalogue.SETS["tinyshakespeare"]
from_here = replace(one.downloads[0], urls=tuple(sys.argv[1:]))
catalogue.SETS["tinyshakespeare"] = replace(one, downloads=(from_here,))
sys.exit(cli.main(["data", "tinyshakespeare"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process on Windows")
def test_ctrl_c_leaves_a_part_and_says_so(server: Server, folder: Path) -> None:
    server.files["input.txt"], server.cut, server.hang = TEXT, [200_000], True
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, server.url("input.txt")],
        cwd=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    part, deadline = folder / "tinyshakespeare.txt.part", time.monotonic() + 60
    while not part.exists() or part.stat().st_size < 150_000:
        assert time.monotonic() < deadline
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == cli.INTERRUPTED, err
    assert "`dojo data tinyshakespeare` goes on from there" in out
    assert "Traceback" not in err
    kept = part.read_bytes()
    assert TEXT.startswith(kept)


def test_a_terminal_gets_a_bar(
    sets: dict[str, DataSet], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command.terminal, "is_plain", lambda: False)
    assert cli.main(["data", "tinyshakespeare"]) == 0
    assert "300.0/300.0 kB" in capsys.readouterr().out


# ---- From a folder


def laid_out(folder: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


PLACES = {
    "the same layout": {**DIGITS, **BATCHES, "tinyshakespeare.txt": TEXT},
    "other folders and names": {
        "MNIST/raw/images": DIGITS["mnist/images"],
        "MNIST/raw/labels.gz": gzip.compress(DIGITS["mnist/labels"], 1),
        "downloads/binary.tar.gz": archive({f"./{name}": content for name, content in BATCHES.items()}),
        "input.txt": TEXT,
    },
    "a python archive": {**DIGITS, "python.tar.gz": archive(PICKLES), "nanoGPT/data/input.txt": TEXT},
    "a python folder": {**DIGITS, **PICKLES, "input.txt": TEXT},
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("typed", [["all"], []])
def test_files_are_taken_from_a_folder(
    sets: dict[str, DataSet],
    server: Server,
    folder: Path,
    tmp_path: Path,
    place: dict[str, bytes],
    typed: list[str],
) -> None:
    laid_out(tmp_path / "elsewhere", place)
    before = files(tmp_path / "elsewhere")
    assert cli.main(["data", *typed, "--from", str(tmp_path / "elsewhere")]) == 0
    assert server.asked == []
    for one in sets.values():
        assert one.find(folder), one.name
        one.check(folder)
    assert files(tmp_path / "elsewhere") == before
    assert not any(name.endswith(".part") for name in files(folder))


def test_what_is_damaged_is_not_taken(
    sets: dict[str, DataSet], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = {
        **BATCHES,
        "cifar-10-batches-bin/b.bin": b"spoilt",
        "binary.tar.gz": ARCHIVE[:-50],
        "input.txt": TEXT,
    }
    laid_out(tmp_path / "elsewhere", there)
    assert cli.main(["data", "--from", str(tmp_path / "elsewhere")]) == 1
    told = capsys.readouterr()
    assert "CIFAR-10 was not taken" in told.err
    assert "b.bin" in told.err
    assert "Tiny Shakespeare is here now" in told.out
    assert not sets["cifar10"].find(folder)
    (tmp_path / "elsewhere/cifar-10-batches-bin/b.bin").unlink()
    assert cli.main(["data", "cifar10", "--from", str(tmp_path / "elsewhere")]) == 1
    assert "binary.tar.gz: cannot be unpacked" in capsys.readouterr().err


def test_an_archive_without_all_parts_is_damaged(
    sets: dict[str, DataSet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (name, content), *_ = BATCHES.items()
    laid_out(tmp_path / "elsewhere", {"binary.tar.gz": archive({name: content})})
    assert cli.main(["data", "cifar10", "--from", str(tmp_path / "elsewhere")]) == 1
    assert "lacks files of CIFAR-10" in capsys.readouterr().err


@pytest.mark.parametrize("typed", [["mnist"], []])
def test_a_folder_without_them_is_said(
    sets: dict[str, DataSet], tmp_path: Path, typed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert cli.main(["data", *typed, "--from", str(tmp_path / "elsewhere")]) == 1
    assert str(tmp_path / "elsewhere") in capsys.readouterr().err


def test_what_is_taken_is_what_is_read(sets: dict[str, DataSet], folder: Path, tmp_path: Path) -> None:
    """Also where the folder has the set in another layout, which would be read instead."""
    laid_out(folder, {**BATCHES, **{f"{name}.gz": b"damaged" for name in DIGITS}})
    laid_out(tmp_path / "elsewhere", PICKLES | DIGITS)
    assert cli.main(["data", "--from", str(tmp_path / "elsewhere")]) == 0
    assert [path for _, path in sets["cifar10"].find(folder)] == [folder / name for name in PICKLES]
    assert [path for _, path in sets["mnist"].find(folder)] == [folder / name for name in DIGITS]


def test_taking_from_the_data_folder_itself_changes_nothing(sets: dict[str, DataSet], folder: Path) -> None:
    laid_out(folder, PLACES["the same layout"])
    assert cli.main(["data", "--from", str(folder)]) == 0
    assert files(folder) == PLACES["the same layout"]


# ---- The catalogue


def test_the_real_sets_have_their_downloads() -> None:
    for name in ("mnist", "cifar10", "tinyshakespeare"):
        one = catalogue.SETS[name]
        parts = {part.names[0] for part in one.layouts[0]}
        assert one.downloads
        for wanted in one.downloads:
            assert (wanted.name in parts) != wanted.is_archive
            assert len(wanted.urls) >= 2
            assert all(url.startswith("https://") for url in wanted.urls)
        assert len({wanted.name for wanted in one.downloads}) == len(one.downloads)
