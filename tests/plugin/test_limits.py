"""How long a test may take before the whole run is ended."""

from __future__ import annotations

import pytest

from dojo.plugin.limits import allowed


@pytest.mark.parametrize("seconds", [60, 2])
def test_a_test_may_say_how_long_it_takes(request: pytest.FixtureRequest, seconds: int) -> None:
    """The training of a milestone is no endless loop."""
    request.node.add_marker(pytest.mark.timeout(seconds), append=False)
    assert allowed(request.node, 10.0) == seconds


def test_any_other_takes_what_all_do(request: pytest.FixtureRequest) -> None:
    request.node.own_markers.clear()
    assert allowed(request.node, 10.0) == 10.0
