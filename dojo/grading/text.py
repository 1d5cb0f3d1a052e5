"""Words of a student's code, made fit for a table."""

from __future__ import annotations

LONGEST = 300


def short(words: str) -> str:
    """One line of them; control characters go."""
    line = "".join(c if c.isprintable() else " " for c in words.partition("\n")[0])
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."
