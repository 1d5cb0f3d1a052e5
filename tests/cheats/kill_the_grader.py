"""Ends whoever started it."""

import os
import signal

for process in {os.getppid(), os.getpgid(os.getppid()) if os.getppid() else 0}:
    if process > 1:
        os.kill(process, signal.SIGKILL)
