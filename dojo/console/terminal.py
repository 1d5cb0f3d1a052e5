"""How to write to this terminal: with colours and tables, or as plain lines."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

NARROW = 60  # columns; a table needs more
WIDEST = 100  # prose is not spread further
ITEM = re.compile(r"([-*]|\d+\.) +")


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
    """Markdown `text` with its paragraphs and list items filled to the terminal, and its code as it is."""
    filled: list[str] = []
    paragraph: list[str] = []
    fenced = False

    def close() -> None:
        if paragraph:
            filled.append(_fill(paragraph, indent))
            paragraph.clear()

    for line in text.splitlines():
        fence = line.lstrip().startswith("```")
        if fenced or fence or line.startswith("    ") or not line.strip():
            close()
            filled.append((indent + line).rstrip())
        else:
            if ITEM.match(line):
                close()
            paragraph.append(line.strip())
        fenced ^= fence
    close()
    return "\n".join(filled)


def _fill(lines: list[str], indent: str) -> str:
    item = ITEM.match(lines[0])
    return textwrap.fill(
        " ".join(lines),
        min(width(), WIDEST),
        initial_indent=indent,
        subsequent_indent=indent + " " * (item.end() if item else 0),
        break_long_words=False,
        break_on_hyphens=False,
    )
