"""Milestone 2 keeps what the course promises: its record, its demo, its page."""

from __future__ import annotations

import html.parser
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

FOLDER = HERE / MILESTONES[1].shown
RECORDED: dict[str, Any] = json.loads((FOLDER / "recorded.json").read_text("utf-8"))
REPORT = load_file(FOLDER / "report.py")


def test_what_was_recorded_is_what_the_course_promises() -> None:
    """75 % of all 10,000 test images of CIFAR-10 within two epochs, in twice PyTorch's time at most."""
    run = RECORDED["beside pytorch"]
    assert run["test images"] == 10_000
    assert run["epochs"] <= 2
    assert run["tinytorch"]["accuracy"] >= 0.75
    assert run["ratio"] <= 2.0
    assert run["tinytorch"]["cpu seconds"] / run["pytorch"]["cpu seconds"] == pytest.approx(
        run["ratio"], rel=0.01
    )


def test_both_sides_of_the_record_began_at_the_same_place() -> None:
    run = RECORDED["beside pytorch"]
    assert run["tinytorch"]["first loss"] == run["pytorch"]["first loss"]
    assert run["tinytorch"]["last loss"] == pytest.approx(run["pytorch"]["last loss"], rel=0.05)


def test_the_page_fetches_nothing_and_shows_every_wrong_answer() -> None:
    """Images are in the page, names in it are escaped, and a policy forbids the rest."""
    image = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    text = REPORT.page(
        "A <title>",
        {"right": "3 of 4"},
        [2.0, 1.5, float("nan"), 1.0],
        {"loss": [1.5]},
        np.array([[1, 1], [0, 2]]),
        ["cat", "dog & co"],
        [(image, "cat <b>")],
    )
    found: list[tuple[str, dict[str, str | None]]] = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            found.append((tag, dict(attributes)))

    Reader().feed(text)
    tags = [tag for tag, _ in found]
    assert not {"script", "link", "iframe", "object", "base", "b"} & set(tags)
    addresses = [value for _, given in found for name, value in given.items() if name in ("src", "href")]
    assert [str(address).partition(";")[0] for address in addresses] == ["data:image/png"]
    assert "url(" not in text
    assert "@import" not in text
    policy = next(given["content"] for tag, given in found if given.get("http-equiv"))
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "cat &lt;b&gt;" in text
    assert "dog &amp; co" in text


@pytest.fixture
def course(tmp_path: Path) -> Course:
    """What of the repository the milestone needs."""
    return copied(tmp_path / "course", "reference", "stubs", "katas/milestones/run.py", MILESTONES[1].shown)


def demo(*args: str) -> list[str]:
    return [sys.executable, "-m", "dojo", "milestone", "--impl", "reference", "m2", *args]


@pytest.mark.timeout(400)  # ten seconds on a quiet core, a hundred on a very busy one
def test_the_demo_is_stopped_resumed_and_reported(course: Course) -> None:
    """Ctrl-C as soon as there is a checkpoint; the second run begins behind it."""
    environment = course.environment(TINYTORCH_DATA=str(course.path("none")))
    checkpoint = course.path("runs/m2_tinyshapes/checkpoint.npz")
    options: dict[str, Any] = {"cwd": course.root, "env": environment, "text": True}
    if sys.platform != "win32":
        assert "dojo milestone m2 tinyshapes --resume" in interrupted(
            demo("--epochs", "1"), checkpoint, options
        )
        last = subprocess.run(demo("tinyshapes", "--resume"), capture_output=True, **options)
    else:
        last = subprocess.run(demo("--epochs", "1"), capture_output=True, **options)
    assert last.returncode == 0, last.stdout + last.stderr
    found = re.search(r"right answers: (\d+) of 1,000", last.stdout)
    assert found is not None
    assert int(found[1]) > 500
    assert "epoch 1/1  loss" in last.stdout
    assert "0 disc " in last.stdout
    assert "\x1b" not in last.stdout
    assert "<svg" in course.read("runs/m2_tinyshapes/report.html")


def test_the_demo_says_what_is_missing(course: Course) -> None:
    environment = course.environment(TINYTORCH_DATA=str(course.path("none")))
    for args, words in (
        (("cifar10",), "`dojo data cifar10` downloads it"),
        (("--resume",), "There is no checkpoint in"),
    ):
        done = subprocess.run(demo(*args), cwd=course.root, env=environment, capture_output=True, text=True)
        assert done.returncode == 1
        assert words in done.stdout
