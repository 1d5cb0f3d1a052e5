"""Submissions for the tests of grading: files of the made-up course (tests/conftest.py), right or spoilt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Course

HandIn = Callable[..., Path]


@pytest.fixture
def hand_in(course: Course, tmp_path: Path) -> HandIn:
    """`hand_in("ana", setup=TEXT)`: the reference's three files, with some replaced or (None) left out."""

    def hand_in(name: str, **changed: str | None) -> Path:
        folder = tmp_path / "class" / name / "stubs" / "tinytorch"
        folder.mkdir(parents=True)
        for kata in ("setup", "tensor", "layers"):
            text = changed.get(kata, course.read(f"reference/tinytorch/{kata}.py"))
            if text is not None:
                (folder / f"{kata}.py").write_text(text, encoding="utf-8")
        return folder.parents[1]

    return hand_in
