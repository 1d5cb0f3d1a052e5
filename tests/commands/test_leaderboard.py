"""`dojo leaderboard`: a table, a page, and a file that comes back after damage."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dojo.commands import leaderboard
from tests.conftest import HERE, Course

ENTRIES = [  # digest, name, author, recipe, accuracy, latency, memory, size, score
    ("a1", "half", "Ada", ["shrink:0.5"], 0.95, 0.5, 1_000_000, 300_000, 2.5),
    ("b2", "<script>alert(1)</script>", 'B "&" C', [], 0.9, 0.4, 2_500_000, 99_960, 2.25),
    ("c3", "[bold]slow[/bold]", "Ada", ["int8", "fuse"], 0.9, 1.25, 2_500_000, 512, 0.5),
    ("d4", "worst", "Dan", [], 0.5, 2.0, 3_000_000, 400_000, 0.25),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A leaderboard of four entries, of which the last is on no front."""
    run("--restore", made(tmp_path / "made.db"), tmp_path / "board.db")
    return tmp_path / "board.db"


def made(path: Path) -> Path:
    columns = "digest, name, author, recipe, accuracy, latency, memory, size, score, time"
    types = "TEXT PRIMARY KEY, name TEXT, author TEXT, recipe TEXT, " + ", ".join(
        f"{name} REAL" for name in ("accuracy", "latency", "memory", "size", "score", "time")
    )
    database = sqlite3.connect(path)
    database.execute(f"CREATE TABLE entries (digest {types})")
    for entry in ENTRIES:
        row = [json.dumps(value) if isinstance(value, list) else value for value in entry]
        database.execute(f"INSERT INTO entries ({columns}) VALUES ({', '.join('?' * 10)})", [*row, 86400.0])
    database.commit()
    database.close()
    return path


def run(*args: object, impl: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    spec = ["--impl", "reference"] if impl else []
    return subprocess.run(
        [sys.executable, "-m", "dojo", "leaderboard", *spec, *map(str, args)],
        cwd=HERE,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


def places(text: str) -> list[str]:
    return re.findall(r"^ *(\d+\*?) ", text, re.MULTILINE)


def test_entries_are_lines_where_there_is_no_terminal(file: Path) -> None:
    done = run(file)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{file}: 4 entries" in done.stdout
    assert places(done.stdout) == ["1*", "2*", "3*", "4"]
    first = next(line for line in done.stdout.splitlines() if "half" in line)
    for word in ("2.50", "Ada", "95.0%", "0.50", "1.0 MB", "300 KB", "shrink:0.5", "1970-01-02"):
        assert word in first
    assert "<script>alert(1)</script>" in done.stdout
    assert "[bold]slow[/bold]" in done.stdout


def test_the_front_or_the_best_can_be_asked_for(file: Path) -> None:
    assert places(run(file, "--front").stdout) == ["1*", "2*", "3*"]
    done = run(file, "--top", 2)
    assert places(done.stdout) == ["1*", "2*"]
    assert "4 entries, 2 shown" in done.stdout
    assert places(run(file, "--front", "--top", "1").stdout) == ["1*"]
    assert "at least" in run(file, "--top", "0").stderr


def test_the_file_may_be_named_by_a_variable(file: Path) -> None:
    assert "4 entries" in run(TINYTORCH_LEADERBOARD=str(file)).stdout


class Reading(HTMLParser):
    """Tags, and cells of the table with their names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def count(self, tag: str, **attributes: str) -> int:
        return sum(t == tag and attributes.items() <= a.items() for t, a in self.tags)


def test_a_page_needs_nothing_but_itself(file: Path, tmp_path: Path) -> None:
    page = tmp_path / "board.html"
    done = run(file, "--html", page)
    assert (done.returncode, done.stderr) == (0, "")
    text = page.read_text("utf-8")
    seen = Reading(text)
    assert "default-src 'none'" in text
    assert not re.search(r"https?://", text)
    assert "color-scheme: light dark" in text
    assert not seen.count("script")
    assert "<script>alert(1)</script>" in seen.texts
    assert 'B "&" C' in seen.texts
    assert seen.count("circle") == 4
    assert seen.count("circle", **{"class": "front"}) == seen.count("tr", **{"class": "front"}) == 3
    assert [a["data-name"] for t, a in seen.tags if t == "td"][:4] == ["place", "entry", "by", "score"]


def test_a_page_of_no_entries_says_so(tmp_path: Path) -> None:
    made(tmp_path / "made.db")
    with sqlite3.connect(tmp_path / "made.db") as database:
        database.execute("DELETE FROM entries")
    database.close()
    run("--restore", tmp_path / "made.db", tmp_path / "board.db")
    done = run(tmp_path / "board.db", "--html", tmp_path / "board.html")
    assert done.returncode == 0
    assert "0 entries" in (tmp_path / "board.html").read_text("utf-8")


def test_a_page_that_cannot_be_written_is_said(file: Path, tmp_path: Path) -> None:
    done = run(file, "--html", tmp_path / "none" / "board.html")
    assert done.returncode == 1
    assert "board.html" in done.stderr


def test_a_board_is_checked_backed_up_and_restored(file: Path, tmp_path: Path) -> None:
    assert "whole: 4 entries" in run(file, "--check").stdout
    assert run(file, "--backup", tmp_path / "copy.db").returncode == 0
    file.write_bytes(b"coffee")
    done = run(file, "--check")
    assert done.returncode == 1
    assert f"dojo leaderboard {file} --restore COPY" in done.stderr
    assert "Traceback" not in done.stderr
    done = run(file, "--restore", tmp_path / "copy.db")
    assert "4 entries" in done.stdout
    assert (tmp_path / "board.db.damaged").read_bytes() == b"coffee"
    assert "4 entries" in run(file).stdout


def test_damage_is_no_traceback_and_changes_nothing(file: Path) -> None:
    file.write_bytes(b"tea" * 999)
    for options in ([], ["--front"], ["--html", "page.html"]):
        done = run(file, *options)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
    assert file.read_bytes() == b"tea" * 999


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    done = run(tmp_path / "board.db")
    assert done.returncode == 1
    assert "dojo milestone m4" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert run(tmp_path / "board.db", "--restore", tmp_path / "copy.db").returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_it_is_locked_until_its_kata_has_passed(course: Course) -> None:
    done = course.dojo("leaderboard", "board.db")
    assert done.returncode == 1
    assert "locked" in done.stderr
    assert "dojo leaderboard --impl reference" in done.stderr
    assert course.dojo("leaderboard", "--impl", "nonsense", "board.db").returncode == 2


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (99_949, "99.9 KB"),
        (99_951, "100 KB"),
        (2.5e6, "2.5 MB"),
    ],
)
def test_bytes_are_told_in_words(count: float, words: str) -> None:
    assert leaderboard.size(count) == words
