"""The grades of a class, written for programs (CSV, JUnit XML) and for people (one page of HTML)."""

from __future__ import annotations

import csv
import html
import io
import os
import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from dojo.curriculum import BY_NUMBER
from dojo.grading.results import POINTS, Grade, Outcome, brief
from dojo.grading.similarity import Pair

STYLE = """
body { max-width: none; }
table.class { font-size: .8rem; }
table.class th { position: sticky; top: 0; background: Canvas; }
table.class th:first-child, table.class td:first-child { text-align: left; white-space: nowrap; }
table.class td[class] { color: #111; text-align: center; }
.s100 { background: #8fd19e; } .s75 { background: #cfe8a9; } .s50 { background: #f6e7a1; }
.s25 { background: #f5c08a; } .s0 { background: #ee9a92; } .none { background: #d6d6d6; }
"""
# Characters that XML 1.0 cannot hold, even escaped.
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_all(folder: Path, title: str, grades: Sequence[Grade], pairs: Sequence[Pair]) -> list[Path]:
    """Write every report; each appears at once and whole."""
    texts = {
        "scores.csv": scores(grades),
        "details.csv": details(grades),
        "junit.xml": junit(grades),
        "similar.csv": similar(pairs),
        "class.html": page(title, grades, pairs),
    }
    return [write(folder / name, text) for name, text in texts.items()]


def write(path: Path, text: str) -> Path:
    """Write a file in one step, so that nobody reads half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return path


def scores(grades: Sequence[Grade]) -> str:
    """A row for each submission: its points, of how many, and those of each kata."""
    numbers = [outcome.kata for outcome in grades[0].outcomes] if grades else []
    rows = [["submission", "points", "of", *numbers, "trouble"]]
    for grade in grades:
        points = [f"{POINTS * outcome.score:.2f}" for outcome in grade.outcomes]
        rows.append([grade.name, f"{grade.points:.2f}", str(grade.most), *points, grade.trouble])
    return _csv(rows)


def details(grades: Sequence[Grade]) -> str:
    """A row for each level (or check) of each kata of each submission."""
    rows = [["submission", "kata", "state", "part", "part state", "passed", "total", "seconds", "reason"]]
    for grade in grades:
        for outcome in grade.outcomes:
            known = [grade.name, outcome.kata, outcome.state]
            if not outcome.parts:
                rows.append([*known, "", "", "0", "0", "0", outcome.words])
            for part in outcome.parts:
                counts = [str(part.passed), str(part.total), f"{outcome.seconds:.2f}"]
                words = part.words or (outcome.words if part.name == outcome.reached else "")
                rows.append([*known, part.name, part.state, *counts, words])
    return _csv(rows)


def similar(pairs: Sequence[Pair]) -> str:
    rows = [["kata", "one", "other", "share", "common"]]
    rows += [[pair.kata, pair.one, pair.other, f"{pair.share:.2f}", str(pair.common)] for pair in pairs]
    return _csv(rows)


def _csv(rows: Sequence[Sequence[str]]) -> str:
    """CSV whose cells no spreadsheet takes for formulas: names and messages are the students'."""
    file = io.StringIO()
    csv.writer(file).writerows(
        [["'" + c if c.startswith(("=", "+", "-", "@")) else c for c in r] for r in rows]
    )
    return file.getvalue()


def junit(grades: Sequence[Grade]) -> str:
    """A suite for each submission, a case for each level: what did not run is a failure, never a skip."""
    root = ElementTree.Element("testsuites", name="dojo grade")
    for grade in grades:
        suite = ElementTree.SubElement(root, "testsuite", name=_plain(grade.name))
        cases = 0
        failures = 0
        for outcome in grade.outcomes:
            for name, passed, words in _cases(outcome):
                kata = _plain(f"{grade.name}.{BY_NUMBER[outcome.kata].folder}")
                case = ElementTree.SubElement(suite, "testcase", classname=kata, name=name)
                cases += 1
                if not passed:
                    failures += 1
                    ElementTree.SubElement(case, "failure", message=_plain(words))
        suite.set("tests", str(cases))
        suite.set("failures", str(failures))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _cases(outcome: Outcome) -> Iterator[tuple[str, bool, str]]:
    if not outcome.parts:
        yield "kata", False, f"{outcome.state}: {outcome.words}"
    for part in outcome.parts:
        words = f"{part.state}, {part.passed} of {part.total}. {part.words or outcome.words}"
        yield part.name, part.passed == part.total, words


def _plain(text: str) -> str:
    return NOT_XML.sub("?", text)


def page(title: str, grades: Sequence[Grade], pairs: Sequence[Pair]) -> str:
    """The class as a heat map: a row for each submission, a column for each kata, where each stopped."""
    from dojo import pages

    parts = ["<p>Each field says where a submission stopped in a kata; point at it for the reason.</p>"]
    parts += [_summary(grades), _map(grades)]
    if pairs:
        rows = [["kata", "", "", "of their code alike"]]
        rows += [[str(BY_NUMBER[p.kata]), p.one, p.other, f"{p.share:.0%}"] for p in pairs[:100]]
        parts += [
            "<h2>Written alike</h2><p>A reason to read two files, never a verdict: a small task has few "
            "right solutions.</p>",
            pages.table(rows),
        ]
    return pages.page(title, parts, STYLE)


def _summary(grades: Sequence[Grade]) -> str:
    points = [grade.points for grade in grades]
    if not points:
        return "<p>No submissions.</p>"
    count = f"{len(points)} submission{'s' * (len(points) != 1)}"
    return (
        f"<p>{count}; points: median {statistics.median(points):.1f}, "
        f"lowest {min(points):.1f}, highest {max(points):.1f}, of {grades[0].most}.</p>"
    )


def _map(grades: Sequence[Grade]) -> str:
    numbers = [outcome.kata for outcome in grades[0].outcomes] if grades else []
    heads = "".join(f'<th title="{html.escape(str(BY_NUMBER[n]))}">{n}</th>' for n in numbers)
    rows = [f"<tr><th>submission</th>{heads}<th>points</th></tr>"]
    for grade in sorted(grades, key=lambda grade: -grade.points):
        fields = "".join(map(_field, grade.outcomes))
        rows.append(f"<tr><td>{html.escape(grade.name)}</td>{fields}<td>{grade.points:.1f}</td></tr>")
    return f'<table class="class">{"".join(rows)}{_passed(grades)}</table>'


def _field(outcome: Outcome) -> str:
    heat = f"s{int(outcome.score * 4) * 25}" if outcome.parts else "none"
    return f'<td class="{heat}" title="{html.escape(outcome.words)}">{html.escape(brief(outcome))}</td>'


def _passed(grades: Sequence[Grade]) -> str:
    columns = zip(*(grade.outcomes for grade in grades), strict=True)
    shares = [sum(o.score == 1 for o in column) / len(column) for column in columns]
    return f"<tr><td>passed</td>{''.join(f'<td>{share:.0%}</td>' for share in shares)}<td></td></tr>"
