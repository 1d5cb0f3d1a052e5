"""Two callables that do the same work, timed in turns, and what came of it as rows of a table.

    title("kata 04")
    row("relu backward, 1,048,576", mine, theirs, target=0.8)

`reference("tinytorch.activations")` imports a module of the reference; `pytorch()` imports PyTorch, and sets
it to one thread.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from dojo import compose

PAIRS = 31
PATIENCE = 3.0  # seconds for a row, but five pairs at least
SHORTEST = 1e-3  # seconds: what takes less is repeated inside the clock


def reference(name: str) -> Any:
    """A module of tinytorch, as it is in reference/."""
    os.environ.setdefault(compose.VARIABLE, "reference")
    compose.reach()
    return importlib.import_module(name)


def pytorch() -> Any:
    """PyTorch on one thread, or an end with a word of why."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise SystemExit("this compares with PyTorch, which is not installed") from None
    torch.set_num_threads(1)
    if held := os.environ.get("OPENBLAS_CORETYPE"):
        print(f"note: OPENBLAS_CORETYPE holds numpy to the products of a {held}; nothing holds PyTorch so")
    return torch


def beside(
    mine: Callable[[], object], theirs: Callable[[], object], pairs: int = PAIRS
) -> tuple[float, float, float]:
    """The median over pairs of mine / theirs, and the median milliseconds of each, in CPU time.

    They take turns, in alternating order, so that a burst of other work hits both.
    """
    ratios, ours, others = pairs_of(mine, theirs, pairs)
    return statistics.median(ratios), 1e3 * statistics.median(ours), 1e3 * statistics.median(others)


def pairs_of(
    mine: Callable[[], object], theirs: Callable[[], object], pairs: int = PAIRS
) -> tuple[list[float], list[float], list[float]]:
    """mine / theirs of each pair, and the CPU seconds of each."""
    loops = max(1, round(SHORTEST / min(_seconds(theirs, 1) for _ in range(4))))
    _seconds(mine, loops)
    ratios, ours, others = [], [], []
    collecting = gc.isenabled()
    gc.disable()
    begin = time.process_time()
    try:
        for pair in range(pairs):
            if pair >= 5 and time.process_time() - begin > PATIENCE:
                break
            order = (mine, theirs) if pair % 2 else (theirs, mine)
            took = {function: _seconds(function, loops) for function in order}
            ratios.append(took[mine] / took[theirs])
            ours.append(took[mine])
            others.append(took[theirs])
    finally:
        if collecting:
            gc.enable()
    return ratios, ours, others


def _seconds(function: Callable[[], object], loops: int) -> float:
    begin = time.process_time()
    for _ in range(loops):
        function()
    return max(time.process_time() - begin, 1e-9) / loops


def images(rng: Any, n: int, channels: int, height: int, width: int) -> Any:
    """(n, channels, height, width) in float32, channels-last in memory, as another layer leaves them."""
    return rng.standard_normal((n, height, width, channels), "float32").transpose(0, 3, 1, 2)


def title(text: str) -> None:
    print(f"\n{text}\n{'':44}{'ratio':>7}{'mine':>11}{'theirs':>11}   target")


def row(
    name: str, mine: Callable[[], object], theirs: Callable[[], object], target: float | None = None
) -> float:
    """Race the two, print a line, and return the ratio."""
    ratio, ours, others = beside(mine, theirs)
    wanted = "" if target is None else f"   <= {target:g}{'' if ratio <= target else '  missed'}"
    print(f"{name:44}{ratio:7.2f}{ours:8.3f} ms{others:8.3f} ms{wanted}", flush=True)
    return ratio


def measure(main: Callable[[], None], doc: str | None) -> None:
    """The command line of a benchmark without options: `main()`, or `doc` for --help."""
    _parser(doc).parse_args()
    main()


def measure_some(
    tables: Mapping[str, Callable[[], None]], doc: str | None, left_out: Sequence[str] = ()
) -> None:
    """The command line of a benchmark of several tables: those that are named, or all but `left_out`."""
    for name in chosen(tables, doc, left_out):
        tables[name]()


def chosen(names: Collection[str], doc: str | None, left_out: Sequence[str] = ()) -> list[str]:
    """Those of `names` that the command line has, or all but `left_out`; an end with a word for others."""
    parser = _parser(doc)
    parser.add_argument("name", nargs="*", help=", ".join(names))
    found: list[str] = parser.parse_args().name
    if unknown := [name for name in found if name not in names]:
        parser.error(f"there is no {', '.join(unknown)}, but {', '.join(names)}")
    return found or [name for name in names if name not in left_out]


def _parser(doc: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
