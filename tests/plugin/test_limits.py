"""How long a test may take before the whole run is ended."""

from __future__ import annotations

import pytest

from dojo.plugin.limits import allowed


@pytest.mark.parametrize(("own", "seconds"), [(None, 10.0), (60, 60.0), (2, 2.0)])
def test_a_test_may_say_how_long_it_takes(
    request: pytest.FixtureRequest, own: int | None, seconds: float
) -> None:
    """The training of a milestone is no endless loop."""
    if own is not None:
        request.node.add_marker(pytest.mark.timeout(own))
    assert allowed(request.node, 10.0) == seconds
