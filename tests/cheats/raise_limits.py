"""Lifts the limits on itself, and then takes memory. (Right otherwise: begins with the reference.)"""

# on: reference
import resource

import numpy as np

for name in ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NPROC"):
    try:
        limit = resource.RLIM_INFINITY
        resource.setrlimit(getattr(resource, name), (limit, limit))
    except (ValueError, OSError):
        pass
POOL = np.ones(400 << 17)
