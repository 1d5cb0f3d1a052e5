"""The gallery of wrong answers shows mistakes that there are, in every kata, and what a student sees."""

from __future__ import annotations

import pytest

from dojo.authoring import gallery, mistakes
from dojo.curriculum import KATAS, Kata

WRITTEN = [kata for kata in KATAS if kata.written]


@pytest.mark.parametrize("kata", WRITTEN, ids=str)
def test_each_kata_shows_three_of_its_mistakes(kata: Kata) -> None:
    names = gallery.COMMON[kata.number]
    assert len(set(names)) == 3
    assert set(names) <= set(mistakes.listed(kata))
    page = gallery.PAGE.read_text("utf-8")
    shown = gallery.parts_of(page)[kata.number]
    for name in names:
        assert f"### {gallery.words(name)}\n" in shown
    assert shown.count("Hint: dojo hint") == 3, "each names its task"


def test_a_part_that_is_not_made_anew_stays_as_it_is() -> None:
    page = f"{gallery.HEAD}\n## 01 setup\n\na\n\n## 02 tensor\n\nb\n"
    assert gallery.parts_of(page) == {"01": "## 01 setup\n\na\n", "02": "## 02 tensor\n\nb\n"}


OUTPUT = """\
.F
=== FAILURES ===
_ test_a_very_long_name __
kata 01.1 double
came back  3
___ test_b ___
kata 01.2 shout
came back  A

01 setup: Tools
Next: make this pass: a very long name
Read: katas/01_setup/README.md:3    Hint: dojo hint 01.1
"""


def test_what_is_shown_is_the_first_failure_alone() -> None:
    failure = gallery.FAILURE.search(OUTPUT)
    assert failure is not None
    assert failure["test"] == "test_a_very_long_name"
    assert failure["body"] == "kata 01.1 double\ncame back  3\n"
    assert len(gallery.PANEL.findall(OUTPUT)) == 2


def test_the_folder_of_one_machine_is_not_shown() -> None:
    line = "    where path = PosixPath('/tmp/pytest-of-ada/pytest-23/test_a0/a.zip')"
    assert gallery.HERE.sub("/tmp/", line) == "    where path = PosixPath('/tmp/test_a0/a.zip')"
    assert "pytest-of-" not in gallery.PAGE.read_text("utf-8")
