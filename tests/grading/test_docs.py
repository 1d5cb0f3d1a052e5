"""What the instructors' pages tell one to type can be typed, and what they count is there."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

from dojo.cli import COMMANDS, Parser
from dojo.curriculum import KATAS, ROOT
from tests.conftest import copied
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
    words = shlex.split(rest.replace("${{ matrix.part }}", "1").replace("$OPTIONS", "--strict --suites"))
    assert isinstance(parser.parse_intermixed_args(words), argparse.Namespace)


def test_there_is_enough_to_type() -> None:
    assert len(typed()) >= 8
    assert {command for command, _ in typed()} <= set(COMMANDS)


def test_every_cheat_has_a_row_and_every_row_a_cheat() -> None:
    section = text("docs/grading.md").partition("## Cheats")[2].partition("## What it costs")[0]
    rows = re.findall(r"(?m)^\| (\w+) \|.*\|.*\|.*\|$", section)
    assert set(rows) - {"cheat"} == set(NAMES)


def test_the_number_of_cheats_is_told_right() -> None:
    for page in ("README.md", "docs/instructors.md"):
        assert {int(n) for n in re.findall(r"(\d+)(?: such)? cheats", " ".join(text(page).split()))} == {
            len(NAMES)
        }


def test_the_script_that_withholds_solutions_leaves_a_course(tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(# python withhold.py.*?)```", text("docs/instructors.md"), re.DOTALL)
    course = copied(tmp_path / "course", "katas", "reference", "stubs")
    assert course.dojo("stubs").returncode == 0  # blank ones, though they be solved here
    done = course.python("-c", script)
    assert done.returncode == 0, done.stderr
    assert not list(course.path("katas").rglob("strict.py"))
    lines = course.read("reference/tinytorch/activations.py")
    assert 'raise NotImplementedError("kata 04.1: relu")' in lines
    assert "np.maximum" not in lines
    hint = course.dojo("hint", "01.1")
    assert hint.returncode == 0, hint.stderr
    doctor = course.dojo("doctor").stdout
    assert "the katas' tests are as they were shipped" in doctor, doctor
    for kata in KATAS:
        name = f"katas/{kata.folder}/manifest.json"
        assert json.loads(course.read(name))["tests"] == json.loads(text(name))["tests"]
    # Its files cannot be imported on blank references, and no made-up tests are sealed in their place.
    refused = course.dojo("manifest", "15")
    assert refused.returncode == 1
    assert "katas/15_generation/test_1_writing.py cannot be imported on the reference" in refused.stderr
    assert course.run("katas/01_setup", "-q", "-k", "01.1").stdout.count("to do")
