"""Noticing that a file was saved, however the editor does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

# Editors rename a new file into place, or empty the old one and write it again.  A file that is missing or
# empty for this many seconds is meant to be.
PATIENCE = 1.0

Stamp = tuple[int, int, int]


class Saves:
    """Compares the files that `paths()` names with what they were.  Poll it a few times a second."""

    def __init__(self, paths: Callable[[], Iterable[Path]]) -> None:
        self.paths = paths
        self.known = self._stamps()
        self.pending: dict[Path, Stamp] | None = None
        self.since = 0.0

    def poll(self) -> list[Path]:
        """The files that were saved, created or deleted, once they are whole again."""
        now = self._stamps()
        if now == self.known:
            self.pending = None
            return []
        if now != self.pending:
            self.pending, self.since = now, time.monotonic()
            return []
        changed = [path for path in self.known.keys() | now.keys() if self.known.get(path) != now.get(path)]
        halfway = any(path not in now or now[path][1] == 0 for path in changed)
        if halfway and time.monotonic() - self.since < PATIENCE:
            return []
        self.known, self.pending = now, None
        return sorted(changed)

    def _stamps(self) -> dict[Path, Stamp]:
        found = {}
        for path in self.paths():
            try:
                status = path.stat()
            except OSError:
                continue
            found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return found
