"""Writes files as long as it is let, up to a bound that keeps a disk without limits alive."""

import os
import tempfile

for folder in (tempfile.gettempdir(), os.getcwd(), "/tmp", "/dev/shm"):
    for number in range(20):
        try:
            with open(os.path.join(folder, f"dojo-cheat-{number}"), "wb") as file:
                file.write(b"x" * (10 << 20))
        except OSError:
            break
