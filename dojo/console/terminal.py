"""How to write to this terminal: with colours and tables, or as plain lines."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

NARROW = 60  # columns; a table needs more
WIDEST = 100  # prose is not spread further


def width() -> int:
    """Columns of the terminal; COLUMNS overrules, and 80 stands for unknown."""
    return max(shutil.get_terminal_size((80, 24)).columns, 20)


def is_plain(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether to write plain lines: no terminal, no colour wanted, or too narrow."""
    told = environment.get("NO_COLOR") or environment.get("TERM") == "dumb"
    return bool(told) or not sys.stdout.isatty() or width() < NARROW


def is_unicode() -> bool:
    """Whether frames can be drawn with lines rather than with - and |."""
    return (sys.stdout.encoding or "").lower().startswith("utf")


def console() -> Console:
    """A rich console for standard output, for where `is_plain` says no."""
    from rich.console import Console

    return Console(emoji=False, highlight=False, width=width())


def say(*lines: str) -> None:
    """Print at once: a child may write to the same terminal next."""
    print(*lines, sep="\n", flush=True)


def fold(text: str, indent: str = "") -> str:
    """`text` with its paragraphs filled to the terminal, and its indented or fenced code as it is."""
    columns = min(width(), WIDEST)
    filled: list[str] = []
    paragraph: list[str] = []
    fenced = False

    def close() -> None:
        if paragraph:
            filled.append(
                textwrap.fill(
                    " ".join(paragraph),
                    columns,
                    initial_indent=indent,
                    subsequent_indent=indent,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
            paragraph.clear()

    for line in text.splitlines():
        fence = line.lstrip().startswith("```")
        code = fenced or fence or line.startswith("    ")
        if code or not line.strip():
            close()
            filled.append((indent + line).rstrip())
        else:
            paragraph.append(line.strip())
        fenced ^= fence
    close()
    return "\n".join(filled)
