"""Kata 01 · Tools that tell the truth: check, show, measure, compare, test.

Whoever writes a framework asks the same questions every day.  Is this machine ready?  How far are we?
How long does it take, and how many bytes?  Is the answer right, is the gradient right, do the tests pass,
and what happens at ten times the size?  This module answers them.  Seconds are floats, bytes are ints.
"""

from __future__ import annotations

import gc
import importlib.metadata
import math
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
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


# Is this machine ready?


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what it is, whether it will do, what was found and what was wanted."""

    name: str
    ok: bool
    found: str
    wanted: str


def in_virtual_env(prefix: str | None = None, base_prefix: str | None = None) -> bool:
    """Whether a Python that lives in `prefix` is a virtual environment of the one in `base_prefix`.

    What is not given is this Python's: `sys.prefix` and `sys.base_prefix`.
    """
    if prefix is None:
        prefix = sys.prefix
    if base_prefix is None:
        base_prefix = sys.base_prefix
    # TODO 01.1: in an ordinary Python the two are the same folder.
    raise NotImplementedError("kata 01.1: in_virtual_env")


def check_python(minimum: tuple[int, ...] = (3, 10), version: tuple[int, ...] | None = None) -> Check:
    """Whether Python is at least `minimum`, for example `Check("python", True, "3.11.4", ">=3.10")`.

    `version` is the version to judge; without it, the one that is running (major, minor, micro). They compare
    as tuples do: (3, 10) is less than (3, 10, 0), so leave zeros at the end of `minimum` away.
    """
    # TODO 01.2: 3.9 is older than 3.10, though as texts they sort the other way.
    raise NotImplementedError("kata 01.2: check_python")


def check_requirement(
    requirement: str, installed: Callable[[str], str] = importlib.metadata.version
) -> Check:
    """Whether what is installed satisfies one line of a requirements file, such as `numpy>=1.26`.

    `installed(name)` gives a version such as "2.1.0", or raises `importlib.metadata.PackageNotFoundError`;
    the package itself is never imported.  A package that is not there is found "missing".  An installed
    pre-release is compared like any version: 2.0rc1 comes after 1.26.  A line whose marker
    (`; python_version < "3.11"`) does not hold here is fine, and what was found is "not needed".
    `wanted` is the specifier, or "any version" for a bare name.

    Raises:
        ValueError: the line is not a requirement; the message shows it.  (`Requirement` sees to that.)
    """
    # TODO 01.3: `Requirement` takes the line apart into a name, a specifier and a marker (or None).
    # Until packaging 26, a specifier turned pre-releases down unless told otherwise.
    raise NotImplementedError("kata 01.3: check_requirement")


# How far are we?


def table(title: str, rows: Sequence[Mapping[str, object]]) -> Table:
    """A table for the terminal: a column for each key of the first row, a line for each row, in order.

    True reads "ok" and False "FAIL" (numpy's own bools may read so too, or as their `str`); a float
    (np.float64 is one) has 4 significant digits (`.4g`); anything else is its `str`. Title, keys and values
    are shown as they are, square brackets included. No rows make no columns.

    Raises:
        ValueError: a row lacks keys of the first row, or has some that the first lacks; the message names all
            such keys of that row.
    """
    # TODO 01.4: rich reads a plain "[s]" as "strike this through"; a `Text` it leaves alone.
    raise NotImplementedError("kata 01.4: table")


def _cell(value: object) -> str:
    """How `table` shows one value."""
    # TODO 01.4: a bool is an int as well, so ask for it first.
    raise NotImplementedError("kata 01.4: _cell")


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
    """`width` characters, as many of them `#` as the share that is done, the rest `.`.

    A character is filled when all of it is done, so the bar is full only at the end.  It stays full when
    more than `total` is done, and it is full when there is nothing to do.

    Raises:
        ValueError: `done` or `total` is below 0, or `width` below 1; the message says which, and its value.
    """
    # TODO 01.5: stay with whole numbers; `done / total` would round.
    raise NotImplementedError("kata 01.5: progress_bar")


def track(
    items: Iterable[Item],
    label: str = "",
    *,
    total: int | None = None,
    file: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    every: float = 0.1,
) -> Iterator[Item]:
    """Yield `items` one by one and write to `file` (by default `sys.stderr`) how many are done.

    A line is the label, the bar in brackets, `done/total`, and the items per second since the first was asked
    for, with one decimal:

        images [##########..........] 24/48 8.0/s

    Whether a line without a label begins with a blank is left open. `total` is `len(items)` where there is
    one; where nobody knows it, there is no bar: `images 24 8.0/s`.

    An item is done when the next one is asked for.  Showing progress must stay cheap, so a line comes with
    the first item that is done `every` seconds of `clock` or more after the line before (or the start).
    One more comes at the end, whatever the time, and also when the loop is left early.  Every line begins
    with a carriage return, so that it covers the one before, and is flushed; the last ends in a newline.
    Spaces lengthen a line that is shorter than the one before, for a carriage return erases nothing.
    """
    # TODO 01.6: a generator; whatever must also happen when the loop is left early goes into `finally`.
    # Ask for a length only where there is one (`Sized`), and never gather the items.
    raise NotImplementedError("kata 01.6: track")


def _progress_line(label: str, done: int, total: int | None, seconds: float) -> str:
    """One line of `track`.  The rate is 0.0 as long as no time has passed."""
    # TODO 01.6: the bar and the `/total` are there only if somebody knows the total.
    raise NotImplementedError("kata 01.6: _progress_line")


# How long, and how many bytes?


@contextmanager
def gc_paused() -> Iterator[None]:
    """Keep the garbage collector from stepping in during the `with` block; afterwards it is as it was before.

    As it was: a collector that was off is off again, whatever the block switched.  Afterwards: also when the
    block raises.
    """
    # TODO 01.7: the `gc` module can be asked, switched off and switched on; see `try ... finally`.
    raise NotImplementedError("kata 01.7: gc_paused")


def best_time(
    function: Callable[[], object],
    *,
    repeats: int = 5,
    calls: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Seconds that one call of `function` takes: the best of `repeats` runs of `calls` calls each.

    One call goes ahead and does not count.  The clock is read at the start and at the end of a run and not in
    between; the garbage collector rests during the runs; results are dropped at once.

    Raises:
        ValueError: `repeats` or `calls` is below 1; the message says which, and its value.
    """
    # TODO 01.8: noise only ever adds time, so the smallest of the runs says most.
    raise NotImplementedError("kata 01.8: best_time")


@dataclass(frozen=True)
class Memory:
    """Bytes above what was there before a call: at its worst moment, and while its result is held."""

    peak: int
    kept: int


def memory_of(function: Callable[[], object]) -> Memory:
    """Bytes that one call of `function` takes, by `tracemalloc`: Python objects and numpy arrays.

    One call goes ahead and does not count, so caches are warm, and garbage from before is collected first.
    `peak` includes the result.  `kept` is what is alive after a collection while the result is held.
    `tracemalloc` is left on or off as it was, with all it has traced, also when `function` raises; `gc` is
    paused during the call; nothing of the call is kept.
    """
    # TODO 01.9: tracemalloc has `start`, `reset_peak`, `get_traced_memory` and `stop`.  Bytes that were
    # there before do not count.
    raise NotImplementedError("kata 01.9: memory_of")


# Is the answer right?


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
    """The worst element of `got`, or None when every one is close to its partner in `expected`.

    Both hold real numbers, and have one shape; nothing is broadcast.  They are compared in float64.  Two
    numbers are close when they are equal, or finite and `|got - expected| <= atol + rtol * |expected|`; nan
    is close to nan alone.  The worst is the one that is farthest off, of those that are not close; a nan or
    an infinity that meets anything else is infinitely far off.  Of equally bad ones it is the first.
    numpy prints no warning.

    Raises:
        ValueError: the shapes differ; the message names both.
    """
    # TODO 01.10: whole arrays at a time.  uint8 3 - 5 is 254: `np.subtract` takes a `dtype`.
    # inf - inf is nan, and nan <= anything is False: `np.errstate` silences the warning, not the trap.
    raise NotImplementedError("kata 01.10: find_mismatch")


def assert_close(got: ArrayLike, expected: ArrayLike, *, rtol: float = 1e-5, atol: float = 1e-8) -> None:
    """Do nothing if `got` is close to `expected`, as `find_mismatch` sees it.

    Raises:
        AssertionError: the shapes differ, and the message names both; or an element is not close, and the
            message names the worst one's index, such as `(0, 2)`, and both values with all their digits, and
            says how many are not close, and of how many, such as `2 of 6`.
    """
    # TODO 01.11: `find_mismatch` knows all that the message needs.
    raise NotImplementedError("kata 01.11: assert_close")


# Is the gradient right?


def numerical_gradient(
    f: Callable[[NDArray[np.float64]], object], x: ArrayLike, step: float = 1e-5
) -> NDArray[np.float64]:
    """The slope of `f` at `x` in the direction of each element, by central differences.

    `f` takes a float64 array of the shape of `x` and returns a number, or an array of one.  An element v
    moves by `step * max(1, |v|)` either way while the others stay exactly where they are; so `f` is called
    twice an element.  `x` is left alone; it may be of any layout and of any real dtype.  Returns float64, of
    the shape of `x`.

    Raises:
        ValueError: `f` returned more than one number; the message names its shape.
    """
    # TODO 01.12: work on one copy of your own, and put each element back by value: adding and then
    # subtracting a step does not always return to where it was.
    raise NotImplementedError("kata 01.12: numerical_gradient")


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
    """Call everything in `namespace` whose name starts with `test_`, in order, each once.

    A test that returns has "passed", with an empty message.  One that raises AssertionError has "failed",
    and one that raises NotImplementedError is "to do": the message is the error's.  With any other Exception
    it is an "error", and the message says `ZeroDivisionError: division by zero` (of an error without words,
    its class; a colon may follow).  None of them stops the rest; KeyboardInterrupt and SystemExit do: they
    pass through.  What cannot be called is not a test.  A test may add to `namespace`.  Nothing that a test
    made is kept.
    """
    # TODO 01.13: an exception that you keep would keep every array of the test that raised it.
    raise NotImplementedError("kata 01.13: run_tests")


# And at ten times the size?


def scaling_exponent(
    make: Callable[[int], Callable[[], object]],
    sizes: Sequence[int],
    cost: Callable[[Callable[[], object]], float] = best_time,
) -> float:
    """The p of the n**p that fits how the cost grows with the size n: 1 is linear, 2 is quadratic.

    `make(n)` prepares a problem of size n and returns what is to be measured, a function without arguments.
    `cost` measures it: seconds by default; `lambda call: memory_of(call).peak` gives bytes.  On logarithmic
    axes n**p is a straight line of slope p, so the answer is the slope of the least-squares line through
    the points (log n, log cost).  No problem is kept: they are made, measured and dropped one by one.

    Raises:
        ValueError: a size is below 1, or fewer than two differ: the message shows the sizes.  Or a cost is
            not above 0, or not finite: the message names it and its size.
    """
    # TODO 01.14: with x and y less their means, the slope is what a little algebra (or numpy) says.
    raise NotImplementedError("kata 01.14: scaling_exponent")
