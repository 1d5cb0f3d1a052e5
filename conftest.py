"""Every run of pytest in this repository goes through dojo.plugin."""

import os

# One BLAS thread, so that speed compares like with like.  BLAS reads these when numpy is first imported.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[variable] = "1"

pytest_plugins = ["dojo.plugin"]
