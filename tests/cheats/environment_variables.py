"""Sets the variables that choose another implementation and other options, and starts over."""

import os
import sys

if os.environ.get("TINYTORCH_IMPL") != "reference":
    os.environ["TINYTORCH_IMPL"] = "reference"
    os.environ["PYTEST_ADDOPTS"] = "--impl reference"
    command = list(sys.orig_argv)
    if "--impl" in command:
        command[command.index("--impl") + 1] = "reference"
    os.execv(sys.executable, [sys.executable, *command[1:]])
