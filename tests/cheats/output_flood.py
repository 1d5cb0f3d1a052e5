"""Prints without end, up to a bound that keeps a disk without limits alive."""

import os

for descriptor in (1, 2):
    for _ in range(300):
        os.write(descriptor, b"x" * (1 << 20))
