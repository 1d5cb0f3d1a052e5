"""What `dojo watch` takes for a save."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dojo.console import saves
from dojo.console.saves import Saves


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tensor.py"
    path.write_text("one\n")
    return path


def polled(watched: Saves, times: int = 4) -> list[list[str]]:
    """The names of what each of a few polls found, without those that found nothing."""
    found = [watched.poll() for _ in range(times)]
    return [[path.name for path in paths] for paths in found if paths]


def test_nothing_happens_without_a_save(file: Path) -> None:
    assert polled(Saves(lambda: [file])) == []


def test_a_save_is_told_once_and_soon(file: Path) -> None:
    watched = Saves(lambda: [file])
    file.write_text("two, longer\n")
    assert polled(watched, 2) == [["tensor.py"]]
    assert polled(watched) == []


def test_a_save_of_the_same_length_counts(file: Path) -> None:
    watched = Saves(lambda: [file])
    now = file.stat()
    file.write_text("two\n")
    os.utime(file, ns=(now.st_atime_ns, now.st_mtime_ns + 1_000_000))
    assert polled(watched) == [["tensor.py"]]


def test_a_file_renamed_into_place_counts(file: Path) -> None:
    watched = Saves(lambda: [file])
    new = file.with_name("new")
    new.write_text("two\n")
    os.replace(new, file)
    assert polled(watched) == [["tensor.py"]]


def test_an_absent_or_empty_file_is_halfway_through_a_save(file: Path) -> None:
    """vim moves the old file away; others empty it first."""
    watched = Saves(lambda: [file])
    file.unlink()
    assert polled(watched) == []
    file.touch()
    assert polled(watched) == []
    file.write_text("two\n")
    assert polled(watched) == [["tensor.py"]]


def test_a_file_that_stays_away_was_deleted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saves, "PATIENCE", 0.0)
    watched = Saves(lambda: [file])
    file.unlink()
    assert polled(watched) == [["tensor.py"]]
    assert polled(watched) == []


def test_a_file_that_appears_counts(file: Path) -> None:
    watched = Saves(lambda: sorted(file.parent.glob("*.py")))
    (file.parent / "layers.py").write_text("new\n")
    assert polled(watched) == [["layers.py"]]


def test_a_save_that_is_taken_back_at_once_is_none(file: Path) -> None:
    watched = Saves(lambda: [file])
    elsewhere = file.with_name("elsewhere")
    os.replace(file, elsewhere)
    assert watched.poll() == []
    os.replace(elsewhere, file)
    assert polled(watched) == []
