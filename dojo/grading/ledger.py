"""Verdicts that were found, one line of JSON each, only ever appended to.

A run that is killed loses at most the line it was writing: a torn line is passed over when the file is read,
and the next one starts on a line of its own.  Ledgers of several machines are joined with `cat`.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from dojo.grading.results import Outcome


class Ledger:
    """The outcomes in a file by their key (see `keys`), and more as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Outcome] = {}
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
        self._torn = False
        if path.exists():
            content = path.read_bytes()
            self._torn = not content.endswith(b"\n") and bool(content)
            for line in content.splitlines():
                self._learn(line)

    def _learn(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            self.known[str(entry["key"])] = Outcome.from_data(entry["outcome"])
        except (ValueError, KeyError, TypeError):
            return  # torn, or of another version: that kata is graded again

    def alone(self, key: str) -> threading.Lock:
        """To hold while finding the outcome of `key`: of equal files one is graded, and the others wait."""
        with self._lock:
            return self._turns.setdefault(key, threading.Lock())

    def add(self, key: str, outcome: Outcome) -> None:
        """Remember an outcome, on disk before this returns."""
        line = json.dumps({"key": key, "outcome": outcome.as_data()}).encode() + b"\n"
        with self._lock:
            self.known[key] = outcome
            # One write of a whole line at the end, so that two runs on one ledger do not mix theirs.
            with open(self.path, "ab", buffering=0) as file:
                file.write(b"\n" * self._torn + line)
                os.fsync(file.fileno())
            self._torn = False
