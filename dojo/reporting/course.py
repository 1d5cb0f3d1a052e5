"""The page of `dojo report`, part by part."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dojo import pages
from dojo.commands.status import Row, rows
from dojo.console import children
from dojo.curriculum import KATAS, PHASES, ROOT, Kata
from dojo.progress import Progress
from dojo.reporting import flowcharts, scaling

STYLE = """
h2 { margin-top: 2.5rem; border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent); }
.course td:first-child { white-space: nowrap; }
.course td, .spent td { text-align: left; }
.passed { color: #2e8b57; } .stale { color: #b8860b; } .locked, .unwritten { opacity: .55; }
.open { color: #2a78d6; font-weight: 600; }
.scroll { overflow-x: auto; }
.panels { display: flex; flex-wrap: wrap; gap: 1rem; }
figure.panel { width: 26rem; max-width: 100%; }
.bar { fill: #2a78d6; } .over { fill: #c0392b; } .room { fill: currentColor; fill-opacity: .15; }
svg.spent { width: 160px; height: 12px; }
svg.graph rect { fill: Canvas; stroke: currentColor; stroke-opacity: .5; }
svg.graph path { stroke: currentColor; stroke-opacity: .5; }
details { margin: 1rem 0; } summary { cursor: pointer; font-weight: 600; }
"""

# A small computation with a result that is used twice, on the framework of the composition in force.
EXAMPLE = """
from dojo import compose
compose.reach()
import numpy as np
from tinytorch.autograd import graph_mermaid
from tinytorch.tensor import Tensor
rng = np.random.default_rng(0)
x = Tensor(rng.normal(size=(4, 3)))
w, v = (Tensor(rng.normal(size=(3, 3)), requires_grad=True) for _ in range(2))
hidden = (x @ w).tanh()
loss = ((hidden @ v + hidden) ** 2).mean()
print(graph_mermaid(loss))
"""
PATIENCE = 20.0  # seconds for the example, which takes a tenth of one
BODY = re.compile(r"<body>(.*)</body>", re.DOTALL)


def page(now: Progress, runs: Path = ROOT / "runs") -> str:
    """The whole report."""
    return pages.page("My TinyTorch", parts(now, runs), STYLE)


def parts(now: Progress, runs: Path) -> Iterator[str]:
    yield "<h2>Where I am</h2>"
    yield standing(list(rows(now)), len(now.passed))
    yield "<h2>What my code spends</h2>"
    yield spending(now)
    yield "<h2>How it grows</h2>"
    yield growth()
    if "06" in now.passed:
        yield "<h2>A graph that my autograd has recorded</h2>"
        yield "<p>loss = ((hidden @ v + hidden) ** 2).mean(), where hidden = (x @ w).tanh()</p>"
        yield graph()
    yield "<h2>What it has learnt</h2>"
    yield trainings(runs)


def standing(listed: Sequence[Row], passed: int) -> str:
    """The katas and milestones, phase by phase."""
    lines = [f"<p>{passed} of {len(KATAS)} katas passed.</p>", '<div class="scroll"><table class="course">']
    phase = ""
    for row in listed:
        if row.phase != phase:
            phase = row.phase
            words = html.escape(f"{phase}: {PHASES[phase]}")
            lines.append(f'<tr><td colspan="4"><strong>{words}</strong></td></tr>')
        cells = (str(row.unit), row.unit.title, row.word, row.note)
        tds = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr class="{row.state}">{tds}</tr>')
    return "\n".join([*lines, "</table></div>"])


def spending(now: Progress) -> str:
    """For each kata that has passed, what its budgets measured, and how much of each was left."""
    lines = []
    for kata in KATAS:
        record = now.katas.get(kata.number)
        if record and record.measured:
            body = "".join(map(budget, record.measured))
            lines.append(
                f"<details><summary>{html.escape(str(kata))}</summary>"
                f'<div class="scroll"><table class="spent">{body}</table></div></details>'
            )
    return "\n".join(lines) or "<p>Nothing yet: each kata that passes leaves what its budgets measured.</p>"


def budget(measured: dict[str, Any]) -> str:
    """A row: what, how much, of how much, and a bar. One that cannot be read is left out."""
    try:
        value, limit = float(measured["value"]), float(measured["limit"])
        what, unit = str(measured["what"]), str(measured["unit"])
    except (KeyError, TypeError, ValueError):
        return ""
    share = min(1.0, value / limit) if limit > 0 else 1.0
    bar = (
        '<svg class="spent" viewBox="0 0 160 12" role="img" aria-label="share of the limit">'
        f'<rect class="room" width="160" height="12"/><rect class="{"bar" if value <= limit else "over"}" '
        f'width="{160 * max(share, 0):.0f}" height="12"/></svg>'
    )
    return (
        f"<tr><td>{html.escape(what)}</td><td>{value:.3g} of {limit:.3g}</td><td>{bar}</td>"
        f"<td>{html.escape(unit)}</td></tr>"
    )


def growth() -> str:
    """The plots of what `dojo measure` has found so far."""
    found = [(kata, scaling.kept(kata)) for kata in KATAS]
    lines = [opened(kata, comparisons) for kata, comparisons in found if comparisons]
    return "\n".join(lines) or "<p>Nothing yet: <code>dojo measure 02</code> fills this part.</p>"


def opened(kata: Kata, comparisons: Sequence[dict[str, Any]]) -> str:
    plots = "".join(map(scaling.panels, comparisons))
    return f"<details><summary>{html.escape(str(kata))}</summary>{plots}</details>"


def graph() -> str:
    """The example's graph, by the student's own code, in a process of its own."""
    status, output = children.run(["-c", EXAMPLE], PATIENCE)
    if status != 0:
        last = output.strip().splitlines()[-1:] or ["it did not end"]
        return f"<p>It could not be drawn: {html.escape(last[0])}</p>"
    return f'<div class="scroll">{flowcharts.drawn(output)}</div>'


def lower(body: str) -> str:
    """A page's body with its headings two steps lower, to stand inside of another page."""
    return re.sub(r"<(/?)h([1-4])>", lambda m: f"<{m[1]}h{int(m[2]) + 2}>", body)


def trainings(runs: Path) -> str:
    """The reports that the demos of milestones have left, each to be opened."""
    lines = []
    for file in sorted(runs.glob("*/report.html")):
        if body := BODY.search(file.read_text("utf-8", errors="replace")):
            name = html.escape(file.parent.name.replace("_", " "))
            lines.append(f"<details><summary>{name}</summary>{lower(body[1])}</details>")
    return "\n".join(lines) or "<p>Nothing yet: <code>dojo milestone m2</code> leaves its curves here.</p>"
