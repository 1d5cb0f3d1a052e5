"""Kata 01, by hand: plain loops, a class with __enter__ and __exit__, sums written out."""

from __future__ import annotations

import gc
import importlib.metadata
import math
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = [
    "Check",
    "Memory",
    "Mismatch",
    "Outcome",
    "assert_close",
    "best_time",
    "check_python",
    "check_requirement",
    "environment_report",
    "find_mismatch",
    "gc_paused",
    "in_virtual_env",
    "memory_of",
    "numerical_gradient",
    "progress_bar",
    "run_tests",
    "scaling_exponent",
    "show",
    "table",
    "track",
]

Item = TypeVar("Item")

# What this course asks of a machine, as pyproject.toml says it.
REQUIREMENTS = (
    "numpy>=2.1",
    "rich>=13.7",
    "pytest>=8.2",
    "pytest-timeout>=2.3",
    "hypothesis>=6.100",
    "coverage>=7.4",
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what it is, whether it will do, what was found and what was wanted."""

    name: str
    ok: bool
    found: str
    wanted: str


def in_virtual_env(prefix: str | None = None, base_prefix: str | None = None) -> bool:
    return (prefix or sys.prefix) != (base_prefix or sys.base_prefix)


def check_python(minimum: tuple[int, ...] = (3, 10), version: tuple[int, ...] | None = None) -> Check:
    if version is None:
        version = (sys.version_info.major, sys.version_info.minor, sys.version_info.micro)
    ok = True
    for i in range(len(minimum)):
        have = version[i] if i < len(version) else 0
        if have != minimum[i]:
            ok = have > minimum[i]
            break
    return Check("python", ok, _dotted(version), ">=" + _dotted(minimum))


def _dotted(version: tuple[int, ...]) -> str:
    text = ""
    for part in version:
        text += f".{part}" if text else f"{part}"
    return text


def check_requirement(
    requirement: str, installed: Callable[[str], str] = importlib.metadata.version
) -> Check:
    parsed = Requirement(requirement)
    wanted = str(parsed.specifier)
    if wanted == "":
        wanted = "any version"
    ok, found = True, "not needed"
    if parsed.marker is None or parsed.marker.evaluate():
        try:
            found = installed(parsed.name)
        except importlib.metadata.PackageNotFoundError:
            ok, found = False, "missing"
        else:
            for part in parsed.specifier:
                ok = ok and part.contains(found, prereleases=True)
    return Check(parsed.name, ok, found, wanted)


def table(title: str, rows: Sequence[Mapping[str, object]]) -> Table:
    result = Table(title=Text(title))
    if len(rows) > 0:
        for key in rows[0]:
            result.add_column(Text(key))
        for row in rows:
            problems = [f"lacks {key!r}" for key in rows[0] if key not in row]
            problems += [f"has {key!r}, which the first has not" for key in row if key not in rows[0]]
            if problems:
                raise ValueError("a row " + " and ".join(problems))
            cells = []
            for key in rows[0]:
                cells.append(Text(_cell(row[key])))
            result.add_row(*cells)
    return result


def _cell(value: object) -> str:
    if value is True:
        return "ok"
    if value is False:
        return "FAIL"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value}"


def show(renderable: Table, file: TextIO | None = None) -> None:
    """Print a table, to the terminal unless `file` is given."""
    Console(file=file).print(renderable)


def environment_report(requirements: Iterable[str] = REQUIREMENTS, file: TextIO | None = None) -> bool:
    """Print what this machine has of what it needs; returns whether that is everything.

    A virtual environment is good advice rather than a need, so its row does not decide.
    """
    checks = [check_python(), *(check_requirement(line) for line in requirements)]
    rows: list[dict[str, object]] = [
        {"what": check.name, "": check.ok, "found": check.found, "wanted": check.wanted} for check in checks
    ]
    advised = {"what": "virtual environment", "": in_virtual_env(), "found": sys.prefix, "wanted": "advised"}
    show(table("environment", [*rows, advised]), file)
    return all(check.ok for check in checks)


def progress_bar(done: int, total: int, width: int = 20) -> str:
    for name, value in (("done", done), ("total", total), ("width", width - 1)):
        if value < 0:
            raise ValueError(f"{name} cannot be {value + (name == 'width')}")
    bar = ""
    for place in range(1, width + 1):
        bar += "#" if done >= total or done * width >= place * total else "."
    return bar


def track(
    items: Iterable[Item],
    label: str = "",
    *,
    total: int | None = None,
    file: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    every: float = 0.1,
) -> Iterator[Item]:
    if total is None and hasattr(items, "__len__"):
        total = items.__len__()
    if file is None:
        file = sys.stderr
    start = shown = clock()
    done = longest = 0

    def write(end: str) -> None:
        nonlocal longest
        passed = clock() - start
        bar = "" if total is None else "[" + progress_bar(done, total) + "] "
        of = "" if total is None else f"/{total}"
        rate = 0.0 if passed <= 0 else done / passed
        text = f"{label} {bar}{done}{of} {rate:.1f}/s"
        longest = max(longest, len(text))
        file.write("\r" + text + " " * (longest - len(text)) + end)
        file.flush()

    iterator = iter(items)
    try:
        while True:
            try:
                item = next(iterator)
            except StopIteration:
                return
            yield item
            done = done + 1
            if clock() - shown >= every:
                shown = clock()
                write("")
    finally:
        write("\n")


class gc_paused:
    def __enter__(self) -> None:
        self.was_on = gc.isenabled()
        gc.disable()

    def __exit__(self, *error: object) -> None:
        (gc.enable if self.was_on else gc.disable)()


def best_time(
    function: Callable[[], object],
    *,
    repeats: int = 5,
    calls: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    if not repeats >= 1:
        raise ValueError(f"repeats: {repeats}")
    if not calls >= 1:
        raise ValueError(f"calls: {calls}")
    result = function()
    times = []
    with gc_paused():
        while len(times) < repeats:
            left = calls
            gc.collect()
            begin = clock()
            while left:
                result = function()
                left -= 1
            end = clock()
            times.append((end - begin) / calls)
    del result
    times.sort()
    return times[0]


@dataclass(frozen=True)
class Memory:
    """Bytes above what was there before a call: at its worst moment, and while its result is held."""

    peak: int
    kept: int


def memory_of(function: Callable[[], object]) -> Memory:
    function()
    if tracemalloc.is_tracing():
        return _measure(function)
    tracemalloc.start()
    try:
        return _measure(function)
    finally:
        tracemalloc.stop()


def _measure(function: Callable[[], object]) -> Memory:
    gc.collect()
    with gc_paused():
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        result = function()
        peak = tracemalloc.get_traced_memory()[1]
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
        result = None  # noqa: F841
    return Memory(max(0, peak - before), max(0, after - before))


@dataclass(frozen=True)
class Mismatch:
    """The worst element of two arrays that are not close, and how many of how many are not."""

    index: tuple[int, ...]
    got: float
    expected: float
    count: int
    total: int


def find_mismatch(
    got: ArrayLike, expected: ArrayLike, *, rtol: float = 1e-5, atol: float = 1e-8
) -> Mismatch | None:
    got, expected = np.asarray(got), np.asarray(expected)
    shape = got.shape
    if shape != expected.shape:
        raise ValueError(f"a {shape} array cannot be close to a {expected.shape} array")
    a, b = got.reshape(-1).astype(np.float64, copy=False), expected.reshape(-1).astype(np.float64, copy=False)
    both_nan = np.isnan(a) & np.isnan(b)
    numbers = np.isfinite(a) & np.isfinite(b)
    off = np.full(a.shape, np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        np.subtract(a, b, out=off, where=numbers)
        np.absolute(off, out=off)
        limit = np.absolute(b)
        limit *= rtol
        limit += atol
        suspects = np.flatnonzero(~(both_nan | (a == b) | (numbers & (off <= limit))))
    if len(suspects) == 0:
        return None
    place = suspects[off[suspects].argmax()]
    index, rest = [], int(place)
    for length in reversed(shape):
        rest, here = divmod(rest, length)
        index.insert(0, here)
    return Mismatch(tuple(index), float(a[place]), float(b[place]), len(suspects), len(a))


def assert_close(got: ArrayLike, expected: ArrayLike, *, rtol: float = 1e-5, atol: float = 1e-8) -> None:
    message = ""
    try:
        worst = find_mismatch(got, expected, rtol=rtol, atol=atol)
    except ValueError as error:
        message = f"{error}"
    else:
        if worst is not None:
            message = f"{worst.count} of {worst.total} elements, above all {worst.index}: "
            message += f"{worst.got} != {worst.expected}"
    if message:
        raise AssertionError(message)


def numerical_gradient(
    f: Callable[[NDArray[np.float64]], object], x: ArrayLike, step: float = 1e-5
) -> NDArray[np.float64]:
    point = np.array(x, dtype=np.float64)
    slopes = np.full(point.shape, np.nan)
    for i in range(point.size):
        middle = point.flat[i]
        h = step if abs(middle) < 1 else step * abs(middle)
        point.flat[i] = middle - h
        left = _one_number(f(point))
        point.flat[i] = middle + h
        right = _one_number(f(point))
        point.flat[i] = middle
        slopes.flat[i] = (right - left) / h / 2
    return slopes


def _one_number(value: object) -> float:
    """`value` as a float.

    Raises:
        ValueError: it is an array of another size than 1; the message names its shape.
    """
    array = np.asarray(value)
    if array.size != 1:
        raise ValueError(f"f must return one number, not an array of shape {array.shape}")
    return float(array.item())


# Do the tests pass?


@dataclass(frozen=True)
class Outcome:
    """How one test went: `status` is "passed", "failed", "to do" or "error"."""

    name: str
    status: str
    message: str
    seconds: float


def run_tests(
    namespace: Mapping[str, object], *, clock: Callable[[], float] = time.perf_counter
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for name in tuple(namespace):
        test = namespace[name]
        if name[:5] == "test_" and callable(test):
            status, message = "passed", ""
            begin = clock()
            try:
                test()
            except Exception as error:
                message = str(error)
                if isinstance(error, NotImplementedError):
                    status = "to do"
                elif isinstance(error, AssertionError):
                    status = "failed"
                else:
                    status, message = "error", type(error).__name__ + ": " + message
            end = clock()
            outcomes += [Outcome(name, status, message, end - begin)]
    return outcomes


def scaling_exponent(
    make: Callable[[int], Callable[[], object]],
    sizes: Sequence[int],
    cost: Callable[[Callable[[], object]], float] = best_time,
) -> float:
    xs: list[float] = []
    ys: list[float] = []
    for n in sizes:
        if n < 1 or len(set(sizes)) == 1:
            raise ValueError(f"cannot fit a growth through {list(sizes)}")
        call = make(n)
        spent = cost(call)
        if spent <= 0 or math.isnan(spent) or math.isinf(spent):
            raise ValueError(f"{n} cost {spent}, which has no logarithm")
        xs.append(math.log(n))
        ys.append(math.log(spent))
    if not xs:
        raise ValueError(f"no sizes: {list(sizes)}")
    count, sum_x, sum_y = len(xs), sum(xs), sum(ys)
    sum_xy = sum(x * y for x, y in zip(xs, ys, strict=True))
    sum_xx = sum(x * x for x in xs)
    return (count * sum_xy - sum_x * sum_y) / (count * sum_xx - sum_x * sum_x)
