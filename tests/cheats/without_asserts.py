"""Starts the process over with -O, which leaves out every assert."""

import os
import sys

if __debug__:
    os.execv(sys.executable, [sys.executable, "-O", *sys.orig_argv[1:]])
