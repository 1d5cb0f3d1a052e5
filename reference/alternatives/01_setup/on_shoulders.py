"""Kata 01, leaning on what Python and numpy have already: timeit, traceback, isclose, polyfit, packaging."""

from __future__ import annotations

import gc
import importlib.metadata
import sys
import time
import timeit
import traceback
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TextIO, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from packaging.requirements import Requirement
from packaging.version import Version
from rich import box
from rich.console import Console
from rich.table import Column, Table
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
    here = sys.prefix if prefix is None else prefix
    base = sys.base_prefix if base_prefix is None else base_prefix
    return not here == base  # noqa: SIM201


def check_python(minimum: tuple[int, ...] = (3, 10), version: tuple[int, ...] | None = None) -> Check:
    found = Version(".".join(f"{part}" for part in version or sys.version_info[:3]))
    wanted = Version(".".join(f"{part}" for part in minimum))
    return Check("python", found >= wanted, f"{found}", f">={wanted}")


def check_requirement(
    requirement: str, installed: Callable[[str], str] = importlib.metadata.version
) -> Check:
    try:
        need = Requirement(requirement)
    except ValueError as problem:
        raise ValueError(f"cannot read the requirement {requirement!r}") from problem
    answer = {"name": need.name, "wanted": f"{need.specifier}" or "any version"}
    if need.marker is not None and not need.marker.evaluate():
        return Check(ok=True, found="not needed", **answer)
    try:
        found = installed(need.name)
    except importlib.metadata.PackageNotFoundError:
        return Check(ok=False, found="missing", **answer)
    return Check(ok=bool([*need.specifier.filter([found], prereleases=True)]), found=found, **answer)


def table(title: str, rows: Sequence[Mapping[str, object]]) -> Table:
    names = tuple(rows[0]) if rows else ()
    for row in rows:
        strange = set(names).symmetric_difference(row)
        if strange:
            raise ValueError(f"rows differ in {', '.join(strange)}")
    columns = [
        Column(Text(name), justify="right" if isinstance(rows[0][name], (int, float)) else "left")
        for name in names
    ]
    result = Table(*columns, title=Text(title, style="bold"), box=box.SIMPLE)
    for row in rows:
        result.add_row(*[Text(_word(row[name])) for name in names])
    return result


def _word(value: object) -> str:
    match value:
        case True | False:
            return "ok" if value else "FAIL"
        case float():
            return format(value, ".4g")
    return str(value)


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
    if done < 0:
        raise ValueError(f"done is {done}")
    if total < 0:
        raise ValueError(f"total is {total}")
    if width < 1:
        raise ValueError(f"width is {width}")
    full, _ = divmod(min(done, total) * width, total) if total else (width, 0)
    return ("#" * full).ljust(width, ".")


def track(
    items: Iterable[Item],
    label: str = "",
    *,
    total: int | None = None,
    file: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    every: float = 0.1,
) -> Iterator[Item]:
    if total is None:
        try:
            total = len(items)  # type: ignore[arg-type]
        except TypeError:
            total = None
    begin = clock()
    due = begin + every
    count = width = 0

    def line(**ending: str) -> None:
        nonlocal width
        seconds = clock() - begin
        words = [label] if label else []
        if total is None:
            words += [f"{count}"]
        else:
            words += [f"[{progress_bar(count, total)}]", f"{count}/{total}"]
        words += [f"{count / seconds if seconds else 0:.1f}/s"]
        text = f"{' '.join(words):{width}}"
        width = len(text)
        print("\r", text, sep="", file=file or sys.stderr, flush=True, **ending)

    with ExitStack() as afterwards:
        afterwards.callback(line)
        for item in items:
            yield item
            count += 1
            if clock() >= due:
                line(end="")
                due = clock() + every


@contextmanager
def gc_paused() -> Iterator[None]:
    with ExitStack() as afterwards:
        afterwards.callback(gc.enable if gc.isenabled() else gc.disable)
        gc.disable()
        yield


def best_time(
    function: Callable[[], object],
    *,
    repeats: int = 5,
    calls: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    if repeats <= 0:
        raise ValueError(f"repeats={repeats} is too few")
    if calls <= 0:
        raise ValueError(f"calls={calls} is too few")
    function()
    gc.collect()  # what others left should not be found during the runs
    return min(timeit.repeat(function, timer=clock, repeat=repeats, number=calls)) / calls


@dataclass(frozen=True)
class Memory:
    """Bytes above what was there before a call: at its worst moment, and while its result is held."""

    peak: int
    kept: int


def memory_of(function: Callable[[], object]) -> Memory:
    function()
    with ExitStack() as afterwards:
        if not tracemalloc.is_tracing():
            tracemalloc.start()
            afterwards.callback(tracemalloc.stop)
        afterwards.enter_context(gc_paused())
        gc.collect()
        tracemalloc.reset_peak()
        start = tracemalloc.get_traced_memory()[0]
        held = [function()]
        peak = tracemalloc.get_traced_memory()[1] - start
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0] - start
        held.clear()
    return Memory(peak=peak, kept=kept)


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
    a, b = np.asarray(got, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"{a.shape} is not {b.shape}")
    with np.errstate(all="ignore"):
        wrong = np.logical_not(np.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True))
        wrong |= (np.isinf(a) | np.isinf(b)) & (a != b)  # also where the tolerance is infinite
        if not wrong.any():
            return None
        off = np.nan_to_num(np.abs(a - b), nan=np.inf, posinf=np.inf)
    place = int(np.ma.masked_array(off, ~wrong).argmax(fill_value=-1))
    index = tuple(map(int, np.unravel_index(place, a.shape)))
    return Mismatch(index, a.item(place), b.item(place), int(wrong.sum()), wrong.size)


def assert_close(got: ArrayLike, expected: ArrayLike, *, rtol: float = 1e-5, atol: float = 1e-8) -> None:
    if np.shape(got) != np.shape(expected):
        raise AssertionError(f"expected shape {np.shape(expected)}, got {np.shape(got)}")
    bad = find_mismatch(got, expected, rtol=rtol, atol=atol)
    if bad:
        raise AssertionError(
            f"at {bad.index} there is {bad.got}, not {bad.expected}; {bad.count} of {bad.total} are off"
        )


def numerical_gradient(
    f: Callable[[NDArray[np.float64]], object], x: ArrayLike, step: float = 1e-5
) -> NDArray[np.float64]:
    here = np.asarray(x, dtype=np.float64)
    slopes = np.zeros(here.shape)
    for index in np.ndindex(here.shape):
        width = step * max(abs(float(here[index])), 1.0)
        values = []
        for sign in (+1, -1):
            moved = here.copy()
            moved[index] += sign * width
            values.append(_one_number(f(moved)))
        slopes[index] = (values[0] - values[1]) / (2 * width)
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
    tests = {name: test for name, test in namespace.items() if name.startswith("test_") and callable(test)}
    return [_run(name, test, clock) for name, test in tests.items()]


def _run(name: str, test: Callable[[], object], clock: Callable[[], float]) -> Outcome:
    begin = clock()
    try:
        test()
    except Exception as error:
        seconds = clock() - begin
        if isinstance(error, AssertionError):
            return Outcome(name, "failed", f"{error}", seconds)
        if isinstance(error, NotImplementedError):
            return Outcome(name, "to do", f"{error}", seconds)
        return Outcome(name, "error", traceback.format_exception_only(error)[-1].strip(), seconds)
    return Outcome(name, "passed", "", clock() - begin)


def scaling_exponent(
    make: Callable[[int], Callable[[], object]],
    sizes: Sequence[int],
    cost: Callable[[Callable[[], object]], float] = best_time,
) -> float:
    if any(n < 1 for n in sizes):
        raise ValueError(f"not sizes: {sizes}")
    if len(np.unique(sizes)) < 2:
        raise ValueError(f"need two different sizes, not {sizes}")
    costs = [cost(make(n)) for n in sizes]
    for n, spent in zip(sizes, costs, strict=True):
        if not (np.isfinite(spent) and spent > 0):
            raise ValueError(f"a size of {n} costs {spent}")
    return float(np.polyfit(np.log(sizes), np.log(costs), deg=1)[0])
