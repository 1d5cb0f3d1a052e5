"""Other processors for which numpy can be made to take this one.

A race between products of matrices and passes over memory depends on the processor: with AVX-512 one may
multiply six times as fast as without AVX, and sort six times as fast.  A budget must hold, and its twin be
caught, on both.
"""

from __future__ import annotations

import platform

import numpy as np

# Read by OpenBLAS and by numpy when they are loaded.  Other libraries that multiply ignore the first.
KERNELS, SWITCHED_OFF = "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES"


def processors() -> dict[str, dict[str, str]]:
    """By name, the environment variables that make numpy take this processor for such a one.

    The first is this one as it is, even where the environment says something else.  Others are known for
    x86-64 alone, and are older: what this one is anyway is not listed again.
    """
    found = {"this processor": {KERNELS: ""}}
    if platform.machine().lower() in ("x86_64", "amd64"):
        has = _extensions()
        if has:
            found["a processor without AVX"] = {KERNELS: "Nehalem", SWITCHED_OFF: " ".join(has)}
        if newer := [name for name in has if "AVX512" in name or name == "X86_V4"]:
            found["a processor with AVX2"] = {KERNELS: "Haswell", SWITCHED_OFF: " ".join(newer)}
    return found


def _extensions() -> list[str]:
    """The sets of instructions for which numpy has loops of its own, and which this processor has."""
    told = np.show_config("dicts")
    assert told is not None
    return list(told["SIMD Extensions"].get("found", []))
