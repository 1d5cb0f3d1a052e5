"""What the instructors' pages tell one to type can be typed, and what they count is there."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex

import pytest

from dojo.cli import COMMANDS, Parser
from dojo.curriculum import ROOT
from tests.grading.cheats import NAMES

PAGES = ("README.md", "docs/instructors.md", "docs/grading.md", "docs/grade-workflow.yml")
TYPED = re.compile(
    r"(?m)^ *(?:- run: )?(?:sudo env \"PATH=\$PATH\" )?dojo (grade|compare|gradescope) ([^#\n`]*)"
)


def text(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def typed() -> list[tuple[str, str]]:
    return [(match[1], match[2]) for page in PAGES for match in TYPED.finditer(text(page))]


@pytest.mark.parametrize(("command", "rest"), typed())
def test_what_is_shown_can_be_typed(command: str, rest: str) -> None:
    module = importlib.import_module(f"dojo.commands.{command}")
    parser = Parser(prog=command)
    module.add_arguments(parser)
    words = shlex.split(rest.replace("${{ matrix.part }}", "1").replace("$OPTIONS", "--strict"))
    assert isinstance(parser.parse_intermixed_args(words), argparse.Namespace)


def test_there_is_enough_to_type() -> None:
    assert len(typed()) >= 8
    assert {command for command, _ in typed()} <= set(COMMANDS)


def test_every_cheat_has_a_row_and_every_row_a_cheat() -> None:
    rows = re.findall(r"(?m)^\| (\w+) \|.*\|.*\|.*\|$", text("docs/grading.md"))
    assert set(rows) - {"cheat"} == set(NAMES)


def test_the_number_of_cheats_is_told_right() -> None:
    for page in ("README.md", "docs/instructors.md"):
        assert {int(n) for n in re.findall(r"(\d+)(?: such)? cheats", " ".join(text(page).split()))} == {
            len(NAMES)
        }
