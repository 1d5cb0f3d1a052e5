"""Single keys from a terminal, without stopping for Enter and without leaving the terminal strange."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from types import FrameType, TracebackType
from typing import Any, Protocol


class Keyboard(Protocol):
    """Use it as a context manager: the terminal is put back on the way out, whatever happened."""

    interactive: bool

    def __enter__(self) -> Keyboard: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def wait(self, seconds: float) -> str:
        """The keys pressed within `seconds`, as soon as there are any; empty when there were none."""
        ...


class NoKeyboard:
    """Where standard input is a pipe, a file or closed."""

    interactive = False

    def __enter__(self) -> NoKeyboard:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def wait(self, seconds: float) -> str:
        time.sleep(seconds)
        return ""


if sys.platform == "win32":
    import msvcrt

    class TerminalKeyboard:
        """A console, which has no mode to put back."""

        interactive = True

        def __enter__(self) -> TerminalKeyboard:
            return self

        def __exit__(self, *_: Any) -> None:
            pass

        def wait(self, seconds: float) -> str:
            deadline = time.monotonic() + seconds
            while not msvcrt.kbhit() and time.monotonic() < deadline:
                time.sleep(0.02)
            keys = ""
            while msvcrt.kbhit():
                key = msvcrt.getwch()
                if key in ("\0", "\xe0"):
                    msvcrt.getwch()  # an arrow or function key comes as two
                elif key == "\3":
                    raise KeyboardInterrupt
                else:
                    keys += key
            return keys

else:
    import os
    import select
    import termios
    import tty

    class TerminalKeyboard:
        """A terminal in cbreak mode; where that cannot be had, a line at a time: `h` and Enter."""

        interactive = True

        def __init__(self) -> None:
            self.fd = sys.stdin.fileno()
            self.before: list[Any] | None = None
            self.resumed: Any = None

        def __enter__(self) -> TerminalKeyboard:
            with contextlib.suppress(termios.error):
                self.before = termios.tcgetattr(self.fd)
            self._to_cbreak()
            # After Ctrl-Z and `fg`, the shell has set the terminal its own way.
            self.resumed = signal.signal(signal.SIGCONT, self._to_cbreak)
            return self

        def __exit__(self, *_: Any) -> None:
            signal.signal(signal.SIGCONT, self.resumed)
            if self.before is not None and self._in_foreground():
                with contextlib.suppress(termios.error):
                    termios.tcsetattr(self.fd, termios.TCSADRAIN, self.before)

        def _to_cbreak(self, number: int = 0, frame: FrameType | None = None) -> None:
            if self.before is not None and self._in_foreground():
                with contextlib.suppress(termios.error):
                    tty.setcbreak(self.fd, termios.TCSANOW)

        def _in_foreground(self) -> bool:
            """A background job that touches the terminal's mode is stopped by the system."""
            try:
                return os.tcgetpgrp(self.fd) == os.getpgrp()
            except OSError:
                return False

        def wait(self, seconds: float) -> str:
            if not self.interactive:
                time.sleep(seconds)
                return ""
            ready, _, _ = select.select([self.fd], [], [], seconds)
            if not ready:
                return ""
            try:
                typed = os.read(self.fd, 1024)
            except OSError:
                typed = b""
            if not typed:
                self.interactive = False  # the terminal has gone
            return typed.decode("ascii", "ignore")


def keyboard() -> Keyboard:
    """The keyboard of this process's terminal, or one that never types."""
    if sys.stdin is None or not sys.stdin.isatty():
        return NoKeyboard()
    return TerminalKeyboard()
