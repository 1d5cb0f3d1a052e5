"""The child process of `dojo measure`: runs a kata's probes on one source of `tinytorch`.

    python -m dojo.measuring.worker 06 FILE [--torch]

TINYTORCH_IMPL says where the modules come from.  FILE gets one line of JSON for each probe as it is done, so
that what was measured is there even if the next probe never ends; what the measured code prints is its own.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dojo import compose
from dojo.compose import LockedError
from dojo.curriculum import find
from dojo.measuring.growth import peaks, times
from dojo.measuring.probes import Probe, load_probes
from dojo.measuring.roofline import measure_roofline

TOO_SLOW = 3.0  # seconds for one call; larger sizes are then left out


def main(argv: list[str]) -> None:
    """Write the roofline, and then each probe's figures, to the file."""
    compose.reach()
    kata, file, with_torch = find(argv[0]), Path(argv[1]), "--torch" in argv
    if not with_torch:
        _report(file, {"roofline": dataclasses.asdict(measure_roofline())})
    trouble, probes = _attempt(lambda: load_probes(kata.path / "probes.py").PROBES)
    if trouble:
        _report(file, {"trouble": trouble})
    for probe in probes or ():
        figures: dict[str, Any] = {
            "probe": probe.name,
            "time": probe.time,
            "memory": probe.memory,
            "flops": [probe.flops(n) for n in probe.sizes] if probe.flops else None,
            "moved": [probe.moved(n) for n in probe.sizes] if probe.moved else None,
        }
        if with_torch and probe.torch is None:
            continue
        subject = _as_torch(probe) if with_torch else probe
        trouble, measured = _attempt(functools.partial(_measure, subject, not with_torch))
        _report(file, {**figures, **(measured or {}), "trouble": trouble})


def _measure(probe: Probe, with_peaks: bool) -> dict[str, Any]:
    """Figures for as many sizes as can be had in reasonable time."""
    done: list[int] = []
    for n in probe.sizes:
        done.append(n)
        if _is_slow(probe, n) and _is_slow(probe, n):  # the first call may have had something to load
            break
    return {
        "sizes": done,
        "seconds": times(probe, done),
        "peaks": peaks(probe, done) if with_peaks else None,
        "dtype": _dtype(probe.prepare(done[0], _rng())),
    }


def _is_slow(probe: Probe, n: int) -> bool:
    args = probe.prepare(n, _rng())
    begin = time.perf_counter()
    probe.call(*args)
    return time.perf_counter() - begin > TOO_SLOW


def _attempt(work: Callable[[], Any]) -> tuple[str | None, Any]:
    """The reason why `work` failed, in one line, or its result."""
    try:
        return None, work()
    except NotImplementedError as error:
        return f"not written yet ({error})", None
    except LockedError as error:
        return str(error), None
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0], None


def _as_torch(probe: Probe) -> Probe:
    """The probe's counterpart: PyTorch's call on torch tensors of the same arrays."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    assert probe.torch is not None
    return dataclasses.replace(
        probe, prepare=lambda n, rng: _tensors(probe.prepare(n, rng)), call=probe.torch
    )


def _tensors(value: Any) -> Any:
    import numpy as np

    inside = value if isinstance(value, np.ndarray) else getattr(value, "data", None)
    if isinstance(inside, np.ndarray):
        return importlib.import_module("torch").from_numpy(inside.copy())
    return type(value)(map(_tensors, value)) if isinstance(value, (tuple, list)) else value


def _dtype(args: Any) -> str:
    """float32 or float64: of the first array of floats among the arguments, or in a Tensor, list or tuple."""
    import numpy as np

    for value in args:
        inside = value if isinstance(value, np.ndarray) else getattr(value, "data", None)
        if isinstance(inside, np.ndarray) and inside.dtype.kind == "f":
            return str(inside.dtype)
        if isinstance(value, (tuple, list)) and (found := _dtype(value)) != "float64":
            return found
    return "float64"


def _rng() -> Any:
    import numpy as np

    return np.random.default_rng(0)


def _report(file: Path, line: dict[str, Any]) -> None:
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
