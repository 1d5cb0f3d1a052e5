"""Milestone 3 keeps what the course promises: its record, its demo, its page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dojo.compose import load_file
from dojo.curriculum import MILESTONES
from tests.conftest import HERE, Course, copied, interrupted

M3 = MILESTONES[2]
FOLDER = HERE / M3.shown


def test_what_was_recorded_is_what_the_course_promises() -> None:
    """1.65 nats a character of unseen text, in one and a half times PyTorch's time at most."""
    run = json.loads((FOLDER / "recorded.json").read_text("utf-8"))["beside pytorch"]
    assert run["tinytorch"]["unseen nats"] <= 1.65
    assert run["ratio"] <= 1.5
    assert run["tinytorch"]["first loss"] == run["pytorch"]["first loss"]
    assert run["tinytorch"]["last loss"] == pytest.approx(run["pytorch"]["last loss"], rel=0.01)
    assert run["tinytorch"]["cpu seconds"] / run["pytorch"]["cpu seconds"] == pytest.approx(
        run["ratio"], rel=0.01
    )


def test_the_page_shows_texts_as_they_are_and_a_picture_of_each_map() -> None:
    weights = np.tri(4) / np.arange(1, 5)[:, None]
    text = load_file(FOLDER / "report.py").page(
        "A <title>", {"bits": "2.1"}, [2.0, 1.0], {"loss": [1.5]}, {"greedy": "if a < b:"}, [(weights, "1")]
    )
    assert "if a &lt; b:" in text
    assert text.count("<img") == 1
    assert "default-src 'none'" in text


@pytest.fixture
def course(tmp_path: Path) -> Course:
    """What of the repository the milestone needs."""
    return copied(tmp_path / "course", "reference", "stubs", "katas/milestones/run.py", M3.shown)


def demo(*args: str) -> list[str]:
    return [sys.executable, "-m", "dojo", "milestone", "--impl", "reference", "m3", *args]


@pytest.mark.timeout(400)  # ten seconds on a quiet core, a hundred on a very busy one
def test_the_demo_is_stopped_resumed_and_reported(course: Course) -> None:
    """Ctrl-C behind the first checkpoint; the second run ends what the first has begun."""
    environment = course.environment(TINYTORCH_DATA=str(course.path("none")))
    checkpoint = course.path("runs/m3_pydoc/checkpoint.npz")
    options: dict[str, Any] = {"cwd": course.root, "env": environment, "text": True}
    begin = ("--steps", "20", "--length", "30", "--every", "10")
    if sys.platform != "win32":
        assert "dojo milestone m3 pydoc --resume" in interrupted(demo(*begin), checkpoint, options)
        last = subprocess.run(demo("--resume", "--length", "30"), capture_output=True, **options)
    else:
        last = subprocess.run(demo(*begin), capture_output=True, **options)
    assert last.returncode == 0, last.stdout + last.stderr
    assert re.search(r"step 20: loss \d\.\d+, unseen \d\.\d+: The ", last.stdout)
    assert re.search(r"of the unseen text: \d\.\d+ bits a character", last.stdout)
    assert "the same tokens)" in last.stdout
    assert "layer 3, head 4" in last.stdout
    assert "\x1b" not in last.stdout
    page = course.read("runs/m3_pydoc/report.html")
    assert page.count("<img") == 12
    assert "without repeating itself" in page


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (("shakespeare",), 1, "`dojo data tinyshakespeare` downloads it"),
        (("--resume",), 1, "There is no checkpoint in"),
        (("--prompt", "\N{SNOWMAN}"), 1, "The prompt cannot be read"),
        (("--length", "0"), 2, "--steps, --every and --length are 1 or more"),
    ],
    ids=str,
)
def test_the_demo_says_what_is_missing(
    args: tuple[str, ...], status: int, words: str, course: Course
) -> None:
    environment = course.environment(TINYTORCH_DATA=str(course.path("none")))
    done = subprocess.run(demo(*args), cwd=course.root, env=environment, capture_output=True, text=True)
    assert done.returncode == status
    assert words in done.stdout + done.stderr
