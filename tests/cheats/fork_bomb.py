"""Forks as long as it is let, up to a bound that keeps a machine without limits alive."""

import os
import time

for _ in range(300):
    try:
        if os.fork() == 0:
            os.setsid()
            time.sleep(120)
            os._exit(0)
    except OSError:
        break
