"""The reference beside PyTorch and beside naive versions: `python -m benchmarks.NAME`."""

import os

# BLAS on one thread, like PyTorch here; it reads these when numpy is first imported.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[variable] = "1"
