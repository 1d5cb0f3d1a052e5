"""The last line of a run at the end of the course."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dojo.curriculum import KATAS
from dojo.plugin import panel

LAST = KATAS[-1]


@pytest.mark.parametrize(
    ("stale", "line"), [({}, "You have built all of tinytorch."), ({LAST: "changed"}, "Next: dojo verify")]
)
def test_at_the_end_what_is_stale_is_proven_first(
    stale: dict[Any, str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = SimpleNamespace(
        frontier=lambda: LAST, passed={LAST.number}, open_milestones=list, stale_roots=lambda: stale
    )
    monkeypatch.setattr(panel.progress, "load", lambda: now)
    outcomes: Any = SimpleNamespace(units=list, interrupted=False)
    (said,) = panel.Panel(outcomes)._next()
    assert said.startswith(line)
