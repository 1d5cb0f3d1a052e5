"""Bytes, time, work and gradients, measured so that a correct solution never fails by accident.

Everything is imported on first use: a test that counts bytes does not pay for the gradient checker, and
`import dojo.measuring` alone does not import numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dojo.measuring.budget import RECORDED, Budget
    from dojo.measuring.counting import CountingElement, Looks
    from dojo.measuring.formula import check_formula
    from dojo.measuring.gradients import GradientError, check_gradient
    from dojo.measuring.growth import check_memory_growth, counted_growth, memory_growth, time_growth
    from dojo.measuring.memory import kept_bytes, peak_bytes, retained_bytes
    from dojo.measuring.probes import Probe, load_probes
    from dojo.measuring.roofline import Roofline, measure_roofline
    from dojo.measuring.speed import Race, race
    from dojo.measuring.work import WorkMeter

__all__ = [
    "RECORDED",
    "Budget",
    "CountingElement",
    "GradientError",
    "Looks",
    "Probe",
    "Race",
    "Roofline",
    "WorkMeter",
    "check_formula",
    "check_gradient",
    "check_memory_growth",
    "counted_growth",
    "kept_bytes",
    "load_probes",
    "measure_roofline",
    "memory_growth",
    "peak_bytes",
    "race",
    "retained_bytes",
    "time_growth",
]

_HOME = {
    "budget": ("RECORDED", "Budget"),
    "counting": ("CountingElement", "Looks"),
    "formula": ("check_formula",),
    "gradients": ("GradientError", "check_gradient"),
    "growth": ("check_memory_growth", "counted_growth", "memory_growth", "time_growth"),
    "memory": ("kept_bytes", "peak_bytes", "retained_bytes"),
    "probes": ("Probe", "load_probes"),
    "roofline": ("Roofline", "measure_roofline"),
    "speed": ("Race", "race"),
    "work": ("WorkMeter",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'dojo.measuring' has no attribute {name!r}")
    return getattr(importlib.import_module(f"dojo.measuring.{_MODULE_OF[name]}"), name)
