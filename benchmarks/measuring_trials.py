"""How often the judges are wrong: false alarms on right solutions, misses on wrong ones.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.measuring_trials [--gradients 100] [--races 70]

Run it again after changing a constant in dojo/measuring.  It takes two or three minutes, and every count
should be 0.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from dojo.measuring import peak_bytes, race
from dojo.measuring.gradients import GradientCheck, GradientError
from tests.measuring.seeded import BUGS, OPS, Op

BUSY = "while True: pass"
BURSTS = """
import time
while True:
    end = time.time() + 0.02
    while time.time() < end:
        pass
    time.sleep(0.03)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gradients", type=int, default=100, help="checks of each right op (default 100)")
    parser.add_argument("--races", type=int, default=70, help="races a cell (default 70)")
    args = parser.parse_args()
    gradients(args.gradients)
    races(args.races)
    memory()


def gradients(count: int) -> None:
    """Right ops must pass at every seed, and wrong rules fail at every seed."""
    begin = time.process_time()
    alarms = [
        name for name, (op, draw, params) in OPS.items() for s in range(count) if _fails(op, draw, params, s)
    ]
    spent = (time.process_time() - begin) / (count * len(OPS))
    print(
        f"gradients   false alarms {len(alarms)} of {count * len(OPS)} checks, "
        f"{1e3 * spent:.1f} ms each {alarms or ''}"
    )
    trials = max(5, count // 5)
    missed = {}
    for bug, (name, op) in BUGS.items():
        _, draw, params = OPS[name]
        if passed := sum(not _fails(op, draw, params, s + 10_000) for s in range(trials)):
            missed[bug] = passed
    print(
        f"gradients   {len(BUGS)} wrong rules, {trials} checks of each: passed by mistake {missed or 'never'}"
    )


def _fails(op, draw, params, seed) -> bool:
    try:
        GradientCheck(Op(op), draw(np.random.default_rng(seed)), params, seed=seed + 1).run()
    except GradientError:
        return True
    return False


def races(count: int) -> None:
    """A solution as fast as the baseline, and one three times as slow, against a limit halfway."""

    def inputs():
        return (np.random.default_rng().normal(size=40_000),)  # 0.4 ms of sin

    def again(x):
        return np.sin(x)

    def thrice(x):
        np.sin(x)
        np.sin(x)
        return np.sin(x)

    limit = math.sqrt(3)
    for load, program, processes in (("quiet", "", 0), ("two busy", BUSY, 2), ("bursts", BURSTS, 2)):
        with _beside(program, processes):
            begin, pairs = time.perf_counter(), 0
            alarms = misses = 0
            for _ in range(count):
                right = race(again, np.sin, limit=limit, inputs=inputs)
                slow = race(thrice, np.sin, limit=limit, inputs=inputs)
                alarms, misses = alarms + (not right.within), misses + bool(slow.within)
                pairs += right.pairs + slow.pairs
            spent = (time.perf_counter() - begin) / (2 * count)
        print(
            f"races       {load:<9} false alarms {alarms} of {count}, misses {misses} of {count}; "
            f"{pairs / (2 * count):.1f} pairs and {1e3 * spent:.0f} ms of wall time each"
        )


@contextmanager
def _beside(program: str, processes: int) -> Iterator[None]:
    started = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def memory() -> None:
    x = np.ones(1 << 18)
    readings = {peak_bytes(lambda: (x + 1) * x) for _ in range(50)}
    print(f"memory      spread over 50 readings: {max(readings) - min(readings)} bytes")


if __name__ == "__main__":
    main()
