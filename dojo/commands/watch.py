"""Run the current kata's suite again whenever you save, and move on to the next kata when it passes.

Keys: r run again, h hint, n what is next, q quit.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from dojo import compose, progress
from dojo.commands import Refused, hint, kata_named, seconds, so_far
from dojo.commands.next import advise, has_blanks, working_at
from dojo.console import children
from dojo.console.keyboard import Keyboard, keyboard
from dojo.console.saves import Saves
from dojo.console.terminal import WIDEST, say, width
from dojo.curriculum import BY_NUMBER, Kata, from_root

TICK = 0.1  # seconds between looks at the files; a save is noticed at the second look
KEYS = "Keys: r run again, h hint, n next, q quit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kata", nargs="?", type=kata_named, metavar="KATA", help="else the one you are at")
    parser.add_argument(
        "--limit",
        type=seconds,
        default=children.LIMIT,
        metavar="SECONDS",
        help="end a run that takes longer (default %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    now = progress.load()
    chosen: Kata = args.kata or working_at(now)
    if not chosen.written:
        if args.kata is None:
            say(*advise(now).lines)
            return 0
        raise Refused(f"kata {chosen} is not written yet; {so_far()}")
    if not now.reached(chosen):
        raise Refused(compose.locked_message(f"kata {chosen}", chosen))
    for number in (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP", "SIGBREAK")):
        if number is not None:
            signal.signal(number, _leave)
    with keyboard() as keys:
        # A kata that was passed before is being improved, so passing again is no reason to leave it.
        stay = chosen.number in now.passed and not has_blanks(chosen)
        watcher = Watcher(chosen, keys, args.limit, stay=stay)
        try:
            return watcher.run()
        finally:
            watcher.stop()


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


class Watcher:
    """Watches one kata at a time: at most one run is going on."""

    def __init__(self, kata: Kata, keys: Keyboard, limit: float, *, stay: bool) -> None:
        self.kata = kata
        self.keys = keys
        self.limit = limit
        self.stay = stay
        self.saves = Saves(self.files)
        self.child: subprocess.Popen[str] | None = None
        self.began = 0.0
        self.questions = ""
        """Keys pressed during a run, to be answered below its output."""

    def files(self) -> Iterator[Path]:
        """What a run depends on: the kata's stub and suite, and the stubs it needs."""
        yield self.kata.stub
        yield from (BY_NUMBER[number].stub for number in self.kata.needs)
        # Editors keep their own files beside these, as .#name.py or ..name.py.swp.
        yield from self.kata.path.glob("[!.#]*.py")

    def run(self) -> int:
        self.start("")
        while True:
            typed = self.keys.wait(TICK).lower().replace("\r", "\n")
            # Enter alone runs again; after a letter it is how a line ends.
            for key in typed.replace("\n", "") or typed[:1]:
                if key == "q":
                    return 0
                self.press(key)
            if saved := self.saves.poll():
                self.start(f"{', '.join(path.name for path in saved)} saved")
            elif self.child is not None and self.look(self.child):
                return 0

    def press(self, key: str) -> None:
        if key == "r" or (key == "\n" and self.child is None):
            self.start("run again")
        elif key in "hn":
            self.questions += key
            if self.child is None:
                self.answer()

    def answer(self) -> None:
        for key in dict.fromkeys(self.questions):
            say("")
            if key == "n":
                say(*advise(progress.load()).lines)
                continue
            try:
                say(*hint.show(hint.Asked(self.kata, None)))
            except Refused as refusal:
                say(str(refusal))
        self.questions = ""

    def start(self, why: str) -> None:
        """Run the suite, instead of what is running."""
        if self.child is not None:
            why += ", so starting over"
        self.stop()
        title = f"-- {self.kata.command}{f' ({why})' if why else ''} "
        say("", title.ljust(min(width(), WIDEST), "-"))
        self.began = time.monotonic()
        self.child = children.start(["-m", "pytest", self.kata.shown, "-x", "--no-header"])

    def stop(self) -> None:
        if self.child is not None:
            children.end(self.child)
            self.child = None

    def look(self, child: subprocess.Popen[str]) -> bool:
        """See how the run is doing; whether there is nothing left to watch."""
        status = child.poll()
        if status is None:
            if time.monotonic() - self.began > self.limit:
                self.stop()
                say("", f"Stopped after {self.limit:g} s. Is there a loop that never ends?")
                self.wait_for_a_save()
            return False
        self.stop()
        if status == 0 and self.passed():
            return True
        if status < 0:
            say("", f"The run was ended from outside (signal {-status}).")
        if self.child is None:
            self.wait_for_a_save()
        return False

    def passed(self) -> bool:
        """Say that the suite is green and go on to the next kata; whether there is none."""
        now = progress.load()
        if now.state(self.kata) != progress.PASSED:
            say("", f"{self.kata} is green, but not recorded: the lines above say why.")
            return False
        here = now.frontier()
        if self.stay:
            say("", f"{self.kata} still passes.")
            return False
        say("", f"{self.kata} has passed.")
        if now.state(here) != progress.OPEN:
            say(*advise(now).lines)
            return True
        say(f"On to {here}: {here.title}. Read {here.shown}/README.md")
        self.kata = here
        self.saves = Saves(self.files)
        self.start("")
        return False

    def wait_for_a_save(self) -> None:
        stub = from_root(self.kata.stub)
        say("", f"Waiting for you to save {stub}.", *([KEYS] if self.keys.interactive else []))
        self.answer()
