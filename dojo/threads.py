"""BLAS on one thread, where numbers are compared or many small products would wait for each other.

It reads these variables when numpy is first imported, so this module imports nothing that imports numpy.
"""

from __future__ import annotations

import os

ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


def use_one_thread() -> None:
    os.environ.update(ONE_THREAD)
