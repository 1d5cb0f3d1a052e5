"""The page of `dojo report`: what is in it, what is left out, and that it needs nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dojo import pages
from dojo.commands import BadInput
from dojo.curriculum import BY_NUMBER, KATAS
from dojo.progress import Progress, Record
from dojo.reporting import course, flowcharts, scaling
from tests.conftest import Course

MEASURED = {"what": "join <16>", "value": 1.0, "limit": 1.5, "unit": "results held"}
SERIES = {
    "source": "yours", "sizes": [64, 128], "seconds": [1e-3, 2e-3], "peaks": [1024, 4096],
    "time_exponent": 1.0, "memory_exponent": 2.0, "trouble": None,
}  # fmt: skip
COMPARISON = {"name": "a probe", "sizes": [64, 128], "time": 1, "memory": None, "series": [SERIES]}


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for what was measured."""
    monkeypatch.setattr(scaling, "FOLDER", tmp_path / "measured")
    return tmp_path / "measured"


def page(now: Progress, runs: Path) -> str:
    return pages.page("x", course.parts(now, runs), course.STYLE)


def test_a_course_that_has_just_begun_says_what_will_be_where(tmp_path: Path, measured: Path) -> None:
    text = page(Progress(), tmp_path)
    assert "0 of 20 katas passed" in text
    assert text.count("Nothing yet") == 3
    assert "graph that my autograd" not in text
    assert all(kata.title in text.replace("&#x27;", "'") for kata in KATAS)


def test_budgets_are_shown_as_shares_of_their_limits(tmp_path: Path, measured: Path) -> None:
    damaged: dict[str, Any] = {"what": "half of it is missing"}
    now = Progress(katas={"02": Record(measured=[MEASURED, damaged])})
    text = page(now, tmp_path)
    assert "join &lt;16&gt;" in text
    assert "1 of 1.5" in text
    assert 'class="bar" width="107"' in text, "two thirds of 160"
    assert "half of it is missing" not in text


def test_what_dojo_measure_kept_is_plotted(tmp_path: Path, measured: Path) -> None:
    scaling.keep(BY_NUMBER["02"], {"comparisons": [COMPARISON]})
    text = course.growth()
    assert text.count("<svg") == 2, "time and memory"
    assert "n<sup>2.00</sup>" in text
    assert "4 KiB" in text
    corners = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', text)
    assert len(corners) == 4
    for x, y in corners:
        assert scaling.LEFT <= float(x) <= scaling.WIDE - scaling.RIGHT
        assert scaling.TOP <= float(y) <= scaling.HIGH - scaling.FOOT


@pytest.mark.parametrize("content", ["", "[]", '{"comparisons": 3}', '{"comparisons": [{"series": [{}]}]}'])
def test_figures_that_cannot_be_read_are_not_there(content: str, measured: Path) -> None:
    measured.mkdir()
    (measured / "02.json").write_text(content, encoding="utf-8")
    assert scaling.kept(BY_NUMBER["02"]) == []


def test_figures_are_kept_for_the_next_report(measured: Path) -> None:
    scaling.keep(BY_NUMBER["02"], {"comparisons": [COMPARISON]})
    assert json.loads((measured / "02.json").read_text("utf-8")) == {"comparisons": [COMPARISON]}
    assert scaling.kept(BY_NUMBER["02"]) == [COMPARISON]


GRAPH = """flowchart TD
    n0(["Tensor (3,)"])
    n1(["Tensor (3,)"])
    n2["mul <3>"]
    n3["add (3,)"]
    n0 --> n2
    n1 --> n2
    n2 --> n3
    n1 --> n3
"""


def test_a_graph_has_a_box_for_each_node_and_a_line_for_each_use() -> None:
    svg = flowcharts.drawn(GRAPH)
    assert svg.count("<rect") == 4
    assert svg.count("<path") == 4
    assert "mul &lt;3&gt;" in svg


@pytest.mark.parametrize(
    ("arrows", "expected"),
    [
        ([(0, 2), (1, 2), (2, 3), (1, 3)], [[0, 1], [2], [3]]),
        ([(0, 2), (2, 3), (1, 3)], [[0], [1, 2], [3]]),
        ([], [[0, 1, 2, 3]]),
    ],
)
def test_boxes_stand_below_what_they_are_made_from(
    arrows: list[tuple[int, int]], expected: list[list[int]]
) -> None:
    assert flowcharts.rows_of(range(4), arrows) == expected


def test_words_that_are_no_graph_draw_nothing() -> None:
    assert "<svg" not in flowcharts.drawn("Traceback (most recent call last):\n  n0 --> n1")


def test_reports_of_milestones_are_taken_in_below_the_headings(tmp_path: Path, measured: Path) -> None:
    (tmp_path / "m2_tinyshapes").mkdir()
    report = pages.page("Milestone 2", ["<h2>Loss</h2>"])
    (tmp_path / "m2_tinyshapes" / "report.html").write_text(report, encoding="utf-8")
    text = page(Progress(), tmp_path)
    assert "<summary>m2 tinyshapes</summary>" in text
    assert "<h3>Milestone 2</h3>" in text
    assert "<h4>Loss</h4>" in text
    assert text.count("<body>") == 1


def test_the_page_needs_no_network_and_runs_no_script(tmp_path: Path, measured: Path) -> None:
    scaling.keep(BY_NUMBER["02"], {"comparisons": [COMPARISON]})
    text = page(Progress(katas={"02": Record(measured=[MEASURED])}), tmp_path)
    assert "default-src 'none'" in text
    assert not re.search(r"<(script|link|iframe|img)|url\(|@import|https?:", text)


def test_the_command_writes_the_page_and_says_where(course: Course) -> None:
    done = course.dojo("report", "-o", "mine.html")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mine.html" in done.stdout
    assert "0 of 20 katas passed" in course.path("mine.html").read_text("utf-8")


def test_a_folder_that_is_not_there_is_refused(course: Course) -> None:
    done = course.dojo("report", "-o", "no/where.html")
    assert done.returncode == BadInput.status
    assert "where.html" in done.stderr
