"""Holds far too much memory where tracemalloc does not look. (Right otherwise: begins with the reference.)"""

# on: reference
import mmap

SCRATCH = mmap.mmap(-1, 400 << 20)
for page in range(0, len(SCRATCH), 4096):
    SCRATCH[page] = 1
