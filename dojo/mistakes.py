"""How a believable wrong solution is written down, in reference/mistakes/NN_name.py.

    from dojo.mistakes import caught_by

    @caught_by(1)
    def strides_count_elements_instead_of_bytes(m):
        m.contiguous_strides = lambda shape, itemsize: ...

The function gets the freshly loaded reference module and spoils it; its name is the misconception, and the
number is the level that must catch it.  `dojo check --mistakes` plants each one in a process of its own.
The mistakes of a milestone (reference/mistakes/m1_inference.py) also say which kata's module they spoil:
`@caught_by(1, kata="04")`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

Mistake = Callable[[ModuleType], None]

LEVELS = (1, 2, 3, 4)
_ATTRIBUTE = "caught_by_level"
_KATA = "planted_in_kata"


def caught_by(level: int, *, kata: str = "") -> Callable[[Mistake], Mistake]:
    """Say which level of the suite must notice the mistake, all earlier levels being green.

    Args:
        kata: the number of the kata whose module is spoiled, for a milestone, which has none of its own.

    Raises:
        ValueError: `level` is not 1, 2, 3 or 4.
    """
    if level not in LEVELS:
        raise ValueError(f"a kata has levels 1 to 4, so no mistake is caught by level {level!r}")

    def mark(mistake: Mistake) -> Mistake:
        setattr(mistake, _ATTRIBUTE, level)
        setattr(mistake, _KATA, kata)
        return mistake

    return mark


def level_of(mistake: object) -> int | None:
    """The level that `caught_by` gave; None for anything that is not a mistake."""
    level = getattr(mistake, _ATTRIBUTE, None)
    return level if isinstance(level, int) else None


def kata_of(mistake: object) -> str:
    """The number of the kata that `caught_by` gave; empty for that of the file."""
    return str(getattr(mistake, _KATA, ""))
