"""How a believable wrong solution is written down, in reference/mistakes/NN_name.py.

    from dojo.mistakes import caught_by

    @caught_by(1)
    def strides_count_elements_instead_of_bytes(m):
        m.contiguous_strides = lambda shape, itemsize: ...

The function gets the freshly loaded reference module and spoils it; its name is the misconception, and the
number is the level that must catch it.  `dojo check --mistakes` plants each one in a process of its own.
Where the mistake is a word or two of the reference's own text, `rewritten` says so: each change is what stood
there and what stands there now.

    rewritten(m, "KVCache.append", ("max(end, 2 * room)", "end"))

The mistakes of a milestone (reference/mistakes/m1_inference.py) also say which kata's module they spoil:
`@caught_by(1, kata="04")`.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from types import ModuleType
from typing import Any

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


def rewritten(m: ModuleType, name: str, *changes: tuple[str, str]) -> Any:
    """Put a function of `m` into other words, and return what it has become.

    Args:
        name: a function, a method or property as "Reader.read", an op (whose forward it then is), or a
            gradient rule.
        changes: what stood in its source, wherever it stands there, and what stands there now.

    Raises:
        ValueError: its source has no such words.
    """
    owner, _, own = name.rpartition(".")
    place = getattr(m, owner) if owner else m
    before = getattr(place, own)
    if is_property := isinstance(before, property):
        before = before.fget
    is_op = hasattr(before, "forward") and hasattr(before, "pull")
    source = textwrap.dedent(inspect.getsource(before.forward if is_op else before))
    for old, new in changes:
        if old not in source:
            raise ValueError(f"{name} has no {old!r} to be rewritten")
        source = source.replace(old, new)
    if is_op or is_property or not owner:
        source = source[source.index("def ") :]  # its decorators have done their work
    source = source.replace("super()", f"super({owner}, self)")  # which knows its class only inside of it
    made: dict[str, Any] = {}
    code = compile("from __future__ import annotations\n" + source, f"<{name}, spoilt>", "exec")
    exec(code, vars(m), made)
    after = made[own]
    if is_op:
        before.forward = after
        return before
    for op in vars(m).values():
        if getattr(op, "pull", None) is before:
            op.gradient(after)
    setattr(place, own, property(after) if is_property else after)
    return after


def level_of(mistake: object) -> int | None:
    """The level that `caught_by` gave; None for anything that is not a mistake."""
    level = getattr(mistake, _ATTRIBUTE, None)
    return level if isinstance(level, int) else None


def kata_of(mistake: object) -> str:
    """The number of the kata that `caught_by` gave; empty for that of the file."""
    return str(getattr(mistake, _KATA, ""))
