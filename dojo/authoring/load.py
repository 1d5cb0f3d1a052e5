"""Levels 3 and 4 again and again, on an idle machine and beside two busy processes.

A test that measures must never fail a correct solution, and its twin must never let a naive one pass: on this
processor, and on others that numpy can be made to take it for.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dojo.authoring import suites
from dojo.authoring.budgets import LEVELS
from dojo.authoring.processors import processors
from dojo.console import children
from dojo.curriculum import Kata

BUSY = 2  # processes beside, on a machine with two cores as many as there are

# It works on numbers and on memory, and leaves when its time is up or when this process is gone.
WORK = """
import os, sys, threading, time

def leave_with_parent():
    os.read(0, 1)  # nothing is ever written: it returns when the other end is closed
    os._exit(0)

threading.Thread(target=leave_with_parent, daemon=True).start()
end, block = time.monotonic() + float(sys.argv[1]), bytearray(1 << 24)
print("busy", flush=True)
while time.monotonic() < end:
    for number in range(100_000):
        number * number
    bytes(block)
"""


@dataclass
class Tally:
    """What went wrong in `runs` runs: by test, how often."""

    runs: int = 0
    tests: int = 0
    false_alarms: Counter[str] = field(default_factory=Counter)
    twins_missed: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)

    def add(self, run: suites.SuiteRun, processor: str) -> None:
        self.runs += 1
        self.tests += len(run.having("passed", "failed", "todo"))
        for outcome in run.failed:
            (self.twins_missed if outcome.is_twin else self.false_alarms)[f"{outcome.id}, {processor}"] += 1
        for outcome in run.having("skipped"):
            self.troubles[f"{outcome.id}, {processor}, was skipped: {outcome.words}"] += 1
        if run.trouble:
            self.troubles[run.trouble] += 1

    def problems(self, when: str) -> list[str]:
        lines = [
            f"{test}: {n} false alarms in {self.runs} runs, {when}" for test, n in self.false_alarms.items()
        ]
        lines += [
            f"{test}: missed {n} times in {self.runs} runs, {when}" for test, n in self.twins_missed.items()
        ]
        return lines + [f"{words} ({n} of {self.runs} runs, {when})" for words, n in self.troubles.items()]


@contextlib.contextmanager
def busy_processes(count: int, seconds: float) -> Iterator[list[subprocess.Popen[bytes]]]:
    """`count` processes that keep the machine busy until the block is left, or `seconds` have passed."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            command = [sys.executable, "-c", WORK, str(seconds)]
            processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()  # it works from now on
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()


def run(kata: Kata, times: int, tell: Callable[[str, int], None]) -> dict[str, Tally]:
    """Levels 3 and 4 on the reference, `times` idle and `times` beside busy processes.

    Runs take turns with the processors, so that two runs see this one and the oldest.  `tell` hears before
    each in which of the two it is, and its number.
    """
    files = sorted(file.name for file in kata.path.glob("*.py") if LEVELS.fullmatch(file.name))
    idle, busy = Tally(), Tally()
    kinds = list(processors().items())
    tallies = {"idle": idle, f"beside {BUSY} busy processes": busy}
    for when, tally in tallies.items():
        processes = BUSY if tally is busy else 0
        with busy_processes(processes, times * children.LIMIT):
            for number in range(times if files else 0):
                tell(when, number)
                processor, variables = kinds[number % len(kinds)]
                tally.add(suites.run(kata, "reference", files=files, variables=variables), f"on {processor}")
    return tallies
