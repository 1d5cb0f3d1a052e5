"""Two trainings of the same network, in turns, step by step, and what is noted of them."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dojo.curriculum import STUBS

LAST = 50  # steps, whose mean loss is told


class Clock:
    """Seconds of wall and of CPU time inside of `with clock.running():`."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu


def race(runs: Mapping[str, Iterator[float]], count: int, rows: int, kind: str) -> dict[str, Any]:
    """Take `count` steps of each of two trainings, in alternating order.

    Args:
        runs: by name; each step yields its loss.
        rows: of what is counted, which is in a step, and what it is called: "images".

    Returns:
        "ratio" of the first's CPU time to the other's, its "ratio quartiles" over steps, versions, and for
        each name its times and losses.
    """
    clocks = {name: Clock() for name in runs}
    losses: dict[str, list[float]] = {name: [] for name in runs}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for step in range(count):
        for name in list(runs)[:: 1 if step % 2 else -1]:
            before = clocks[name].cpu
            with clocks[name].running():
                losses[name].append(next(runs[name]))
            seconds[name].append(clocks[name].cpu - before)
        if (step + 1) % 20 == 0 or step + 1 == count:
            shown = "  ".join(
                f"{name} {1e3 * clock.cpu / (step + 1):.0f} ms a step, loss {np.mean(losses[name][-20:]):.3f}"
                for name, clock in clocks.items()
            )
            print(f"step {step + 1}/{count}  {shown}", flush=True)
    first, other = (clocks[name].cpu for name in runs)
    return {
        "ratio": first / other,
        "ratio quartiles": np.percentile(np.divide(*seconds.values()), [25, 50, 75]).tolist(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "threads": int(os.environ["OPENBLAS_NUM_THREADS"]),
        **{
            name: {
                "wall seconds": clock.wall,
                "cpu seconds": clock.cpu,
                f"{kind} per second": count * rows / clock.wall,
                f"{kind} per cpu second": count * rows / clock.cpu,
                "first loss": losses[name][0],
                "last loss": float(np.mean(losses[name][-LAST:])),
            }
            for name, clock in clocks.items()
        },
    }


def peak_of(work: str) -> float:
    """MiB that a process takes at most that does nothing but these lines of Python. Linux only."""
    # Not by getrusage, which also counts what this process had when it started the other.
    code = f"{work}\nprint(open('/proc/self/status').read())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=STUBS.parent, capture_output=True, text=True, check=True
    )
    found = re.search(r"VmHWM:\s*(\d+) kB", done.stdout)
    assert found is not None
    return int(found[1]) / 1024


def command(doc: str | None, compared: Callable[[int | None], dict[str, Any]], milestone: Path) -> None:
    """The command line of a comparison: shows its result, and records it if it is to, and was run in full."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, help="a short form of so many steps of each")
    parser.add_argument("--record", action="store_true", help="write recorded.json")
    args = parser.parse_args()
    result = compared(args.steps)
    print(json.dumps(rounded(result), indent=1))
    if args.record and args.steps is None:
        record(milestone / "recorded.json", result)


def record(path: Path, result: Mapping[str, Any]) -> None:
    """Write what came of a race into a milestone's recorded.json, beside what else is in there."""
    kept = json.loads(path.read_text("utf-8")) if path.exists() else {}
    kept["beside pytorch"] = rounded(result)
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8", newline="\n")


def rounded(value: Any) -> Any:
    """Four digits of every number."""
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
