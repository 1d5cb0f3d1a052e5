"""Measured figures as tables: in a terminal with rich, elsewhere as aligned lines."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dojo.console import terminal
from dojo.console.terminal import say
from dojo.measuring.comparing import REFERENCE, YOURS, Comparison, Report, Series

# An exponent this much above the expected one is worth a word.  The last doubling of a right solution was
# found within 0.3 of its order at the sizes of the course.
BEYOND = 0.5
AS_SLOW = 1.25  # times the reference's time
ROOF = "of the roof"


def show(report: Report) -> None:
    """Print every comparison, and first what the machine could do."""
    if report.roofline:
        r = report.roofline
        say(
            f"{report.kata}: this machine moves {r.bandwidth / 1e9:.3g} GB/s and computes, with one thread, "
            f"{r.float32 / 1e9:.3g} GFLOP/s in float32 and {r.float64 / 1e9:.3g} in float64."
        )
    for source, trouble in report.troubles.items():
        say("", f"{source}: {trouble}")
    for comparison in report.comparisons:
        say("")
        _show(comparison, report)


def _show(comparison: Comparison, report: Report) -> None:
    head, body = table(comparison, report)
    title = f"{comparison.name}{_expected(comparison)}"
    if terminal.is_plain():
        say(title, *(_list(head, body) if terminal.width() < terminal.NARROW else _aligned([head, *body])))
    else:
        _draw(title, head, body)
    say(*_remarks(comparison))


def table(comparison: Comparison, report: Report) -> tuple[list[str], list[list[str]]]:
    """The headings and the rows: a row for each size, and one for the exponents of the last doubling."""
    with_figures = [s for s in comparison.series if s.sizes]
    counted = [s for s in with_figures if s.peaks]
    yours = next(iter(with_figures), None)
    head = ["n", *(f"time {s.source}" for s in with_figures), *(f"peak {s.source}" for s in counted)]
    roofs = bool(yours and report.roofline and (comparison.flops or comparison.moved))
    head += [f"{yours.source}: FLOP/s", ROOF] if yours and roofs else []
    body = []
    for i, n in enumerate(comparison.sizes):
        row = [str(n)]
        row += [seconds(s.seconds[i]) if i < len(s.sizes) else "-" for s in with_figures]
        row += [size(s.peaks[i]) if i < len(s.peaks) else "-" for s in counted]
        body.append(row + (_roof(comparison, report, yours, i) if yours and roofs else []))
    growth = ["growth", *(_power(s.time_exponent) for s in with_figures)]
    growth += [_power(s.memory_exponent) for s in counted]
    body.append(growth + [""] * (len(head) - len(growth)))
    return head, body


def _roof(comparison: Comparison, report: Report, series: Series, i: int) -> list[str]:
    """FLOP/s of one size, and how near that is to the fastest this machine could."""
    if i >= len(series.sizes) or report.roofline is None:
        return ["-", "-"]
    flops = comparison.flops[i] if comparison.flops else None
    moved = comparison.moved[i] if comparison.moved else None
    least, bound = report.roofline.seconds(flops, moved, comparison.dtype)
    rate = f"{flops / series.seconds[i] / 1e9:.3g} G" if flops else "-"
    share = 100 * least / series.seconds[i]
    if share > 100 and bound == "memory":  # what is in a cache has a higher roof, which nobody measured
        return [rate, "in cache"]
    return [rate, f"{share:.2g} % {bound}" if share < 99.5 else f"100 % {bound}"]


def _expected(comparison: Comparison) -> str:
    orders = [
        f"{what} {_power(power)}"
        for what, power in (("time", comparison.time), ("memory", comparison.memory))
        if power is not None
    ]
    return f"  (expected: {', '.join(orders)})" if orders else ""


def _remarks(comparison: Comparison) -> Iterator[str]:
    for series in comparison.series:
        if series.trouble:
            yield f"  {series.source}: {series.trouble}"
    yours, reference = comparison.by(YOURS), comparison.by(REFERENCE)
    shared = min(len(yours.sizes), len(reference.sizes))
    ratio = math.inf
    if shared:
        ratio = yours.seconds[shared - 1] / reference.seconds[shared - 1]
        yield f"  at n = {yours.sizes[shared - 1]} yours takes {ratio:.1f} times the reference's time"
    for what, found, wanted, theirs in (
        ("time", yours.time_exponent, comparison.time, reference.time_exponent),
        ("memory", yours.memory_exponent, comparison.memory, reference.memory_exponent),
    ):
        # Where the reference grew as fast in the same run, or is as slow at the end, it was the machine: a
        # cache that was left, say.
        if what == "time" and ratio < AS_SLOW:
            continue
        if found is not None and wanted is not None and found > max(wanted, theirs or 0) + BEYOND:
            yield f"  yours grows faster than expected: {what} as {_power(found)}, not {_power(wanted)}"


def _draw(title: str, head: list[str], body: list[list[str]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    frame = box.SIMPLE if terminal.is_unicode() else box.ASCII
    drawn = Table(title=Text(title, "bold"), title_justify="left", box=frame, collapse_padding=True)
    for name in head:
        drawn.add_column(Text(name), justify="right", no_wrap=name == ROOF)
    for row in body[:-1]:
        drawn.add_row(*map(Text, row))
    drawn.add_section()
    drawn.add_row(*map(Text, body[-1]))
    terminal.console().print(drawn)


def _aligned(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))


def _list(head: list[str], body: list[list[str]]) -> Iterator[str]:
    """For a terminal too narrow for a table."""
    for row in body:
        yield f"  {head[0]} {row[0]}" if row[0].isdigit() else f"  {row[0]}"
        yield from (f"    {name}: {cell}" for name, cell in zip(head[1:], row[1:], strict=True) if cell)


def _power(exponent: float | None) -> str:
    return "-" if exponent is None else f"n^{exponent:.2f}".replace(".00", "")


def seconds(value: float) -> str:
    """Three figures and a unit: `1.23 ms`."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if value * factor >= 1:
            return (
                f"{value * factor:.3g} {unit}" if value * factor < 999.5 else f"{value * factor:.0f} {unit}"
            )
    return f"{value * 1e9:.3g} ns"


def size(count: int) -> str:
    """Bytes with three figures and a binary unit: `2 MiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} GiB"
