"""Where a milestone shows what it does: colours and bars on a terminal, else plain lines."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from dojo.console import terminal


class Screen:
    """Standard output, of which `console` is rich's, and `plain` says that there are no colours."""

    def __init__(self) -> None:
        self.plain = terminal.is_plain() or not terminal.is_unicode()
        self.width = min(terminal.width(), terminal.WIDEST)
        self.console = Console(emoji=False, highlight=False, width=self.width, no_color=self.plain)

    def say(self, line: str | Text = "") -> None:
        self.console.print(line, markup=False, soft_wrap=True)
