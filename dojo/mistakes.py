"""How a believable wrong solution is written down, in reference/mistakes/NN_name.py.

    from dojo.mistakes import caught_by

    @caught_by(1)
    def strides_count_elements_instead_of_bytes(m):
        m.contiguous_strides = lambda shape, itemsize: ...

The function gets the freshly loaded reference module and spoils it; its name is the misconception, and the
number is the level that must catch it.  `dojo check --mistakes` plants each one in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

Mistake = Callable[[ModuleType], None]

LEVELS = (1, 2, 3, 4)
_ATTRIBUTE = "caught_by_level"


def caught_by(level: int) -> Callable[[Mistake], Mistake]:
    """Say which level of the kata's suite must notice the mistake, all earlier levels being green.

    Raises:
        ValueError: `level` is not 1, 2, 3 or 4.
    """
    if level not in LEVELS:
        raise ValueError(f"a kata has levels 1 to 4, so no mistake is caught by level {level!r}")

    def mark(mistake: Mistake) -> Mistake:
        setattr(mistake, _ATTRIBUTE, level)
        return mistake

    return mark


def level_of(mistake: object) -> int | None:
    """The level that `caught_by` gave; None for anything that is not a mistake."""
    level = getattr(mistake, _ATTRIBUTE, None)
    return level if isinstance(level, int) else None
