"""Kata 16 · Profilers and rooflines: where time, bytes and operations go, and whether a change is one.

First the meters: a clock for calls, one for memory, and rules for what an operation costs. Then profilers
that watch a program which knows nothing of them; what the machine could do at best; and the statistics that
tell a change from noise. Every meter takes the clock it reads, so that its arithmetic can be tested without
waiting.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from tinytorch.layers import Module
from tinytorch.setup import gc_paused, table
from tinytorch.tensor import Array, Op, Tensor, neg

__all__ = [
    "Bottleneck", "Event", "Growth", "MemoryProfiler", "ModuleRow", "OpProfiler", "OpRow", "Peaks", "Phase",
    "Roofline", "Timing", "Verdict", "bootstrap_ratio", "bottlenecks", "by_op", "chrome_trace", "cost_rule",
    "detect_regression", "fit_growth", "mann_whitney", "measure_roofline", "op_bytes", "op_flops",
    "profile_modules", "time_calls", "time_turns", "write_trace",
]  # fmt: skip

Samples = Sequence[float]
Clock = Callable[[], float]
ClockNs = Callable[[], int]

# Seconds that a sample should last: a thousandth, but at least ten ticks of the clock (Windows: 15.6 ms).
SHORTEST = max(1e-3, 10 * time.get_clock_info("process_time").resolution)
MOST_CALLS = 1 << 20  # in one sample, of a function that takes no time at all


# How long?


@dataclass(frozen=True)
class Timing:
    """Seconds that one call took, in each of several samples, in the order in which they were taken.

    Attributes:
        samples: seconds a call, at least one.
        inner: the number of calls in each sample.
    """

    samples: Samples
    inner: int = 1

    def __post_init__(self) -> None:
        if not len(self.samples):
            raise ValueError("a Timing needs at least one sample")

    def quantile(self, q: float) -> float:
        """The value below which the share `q` of the samples lies.

        Of n samples in ascending order it is that at q * (n - 1), counted from 0; between two, it is as far
        from one to the next as the position is. ValueError unless 0 <= q <= 1, naming q.
        """
        # TODO 16.1: `int(position)` is the one before, and there may be none after it.
        raise NotImplementedError("kata 16.1: Timing.quantile")

    @property
    def best(self) -> float:
        """The shortest: noise only ever adds."""
        # TODO 16.1: one of these four is already there.
        raise NotImplementedError("kata 16.1: Timing.best")

    @property
    def median(self) -> float:
        """The middle one, or halfway between the two in the middle."""
        # TODO 16.1: a quantile.
        raise NotImplementedError("kata 16.1: Timing.median")

    @property
    def mean(self) -> float:
        # TODO 16.1: of the samples; one that was disturbed moves it.
        raise NotImplementedError("kata 16.1: Timing.mean")

    @property
    def spread(self) -> float:
        """From the quarter to the three quarters, as a share of the median: half of all samples lie there.

        0 where the two are equal, also if the median is 0; inf if only the median is 0.
        """
        # TODO 16.1: the interquartile range.
        raise NotImplementedError("kata 16.1: Timing.spread")


def time_turns(
    *functions: Callable[[], object],
    repeat: int = 20,
    inner: int | None = None,
    shortest: float = SHORTEST,
    clock: Clock = time.process_time,
) -> list[Timing]:
    """A Timing for each function, their samples taken in turns, so that what disturbs hits all alike.

    Each is called once to warm up. Then, if `inner` is None, runs of 1, 2, 4 ... calls are timed until one
    takes `shortest` seconds, or is of MOST_CALLS calls: that is the number of calls in all samples of this
    function. Then come `repeat` rounds with a sample of each function, in the order given in the first round,
    in the opposite one in the second, and so on. The clock is read before and after the calls of a run, not
    between them; the garbage collector rests during all that; results are dropped at once.

    Raises:
        ValueError: `repeat` or `inner` is below 1; the message says which, and its value.
    """
    # TODO 16.2: kata 01 has `gc_paused`.
    raise NotImplementedError("kata 16.2: time_turns")


def time_calls(
    function: Callable[[], object],
    *,
    repeat: int = 20,
    inner: int | None = None,
    shortest: float = SHORTEST,
    clock: Clock = time.process_time,
) -> Timing:
    """The Timing of one function: `time_turns` of it alone. Given."""
    return time_turns(function, repeat=repeat, inner=inner, shortest=shortest, clock=clock)[0]


# How many bytes?


class Peaks:
    """Readings of tracemalloc that can lie inside each other, each with its own peak.

    tracemalloc knows one peak, the highest since it was last reset; whoever resets it takes it from all
    others. So at each `begin` and `end` the peak so far is noted in every reading that is open. Two Peaks at
    once still take it from each other: one must do for all that nests.
    """

    def __init__(self) -> None:
        self.open: list[list[int]] = []  # bytes when it began, and the most since then

    def begin(self) -> int:
        """Open a reading; returns the bytes that are traced now."""
        # TODO 16.3: note, reset, and the new one begins with what is traced now.
        raise NotImplementedError("kata 16.3: Peaks.begin")

    def end(self) -> tuple[int, int]:
        """Close the last reading: the most bytes in it, and those of now, both above those at its begin."""
        # TODO 16.3: the second may be negative, the first not.
        raise NotImplementedError("kata 16.3: Peaks.end")

    def _note(self) -> int:
        """Take the peak since the last reset into all open readings, and reset it; the bytes traced now."""
        # TODO 16.3: tracemalloc has `get_traced_memory` and `reset_peak`.
        raise NotImplementedError("kata 16.3: Peaks._note")


@contextmanager
def tracing() -> Iterator[None]:
    """tracemalloc traces inside of the block, and afterwards if it did before, whatever happened."""
    # TODO 16.3: as in `memory_of` of kata 01.
    raise NotImplementedError("kata 16.3: tracing")


class Phase(NamedTuple):
    """What one phase of a MemoryProfiler took, in bytes.

    `depth` counts the phases around it. `begin` is what was traced when it began, above what was traced when
    the profiler did. `peak` is the most, and `retained` what was left at its end after a garbage collection,
    both above the phase's own begin; less than nothing, if it freed more than it made.
    """

    name: str
    depth: int
    begin: int
    peak: int
    retained: int


class MemoryProfiler:
    """Bytes by phases: `with MemoryProfiler() as memory:`, and inside `with memory.phase("forward"):`.

    Phases may lie inside each other and may come again. Garbage from before is collected first, so that none
    is freed in a phase. `phases` lists them in the order in which they began; entered again, a profiler
    starts with an empty list. tracemalloc is on or off afterwards as it was before, whatever happens inside;
    whoever else reads peaks meanwhile (a profiler that counts memory, too) finds them reset.
    """

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self._peaks: Peaks | None = None
        self._inside = contextlib.ExitStack()

    def __enter__(self) -> MemoryProfiler:
        # TODO 16.3: an ExitStack leaves `tracing()` when you close it. RuntimeError if it is inside already.
        raise NotImplementedError("kata 16.3: MemoryProfiler.__enter__")

    def __exit__(self, *error: object) -> None:
        # TODO 16.3: whatever the error, it goes on.
        raise NotImplementedError("kata 16.3: MemoryProfiler.__exit__")

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note what the block takes, also if it raises. RuntimeError, naming it, outside of the profiler."""
        # TODO 16.3: the place in the list is taken at the begin, and filled at the end. Read the peak before
        # you collect, and what is left after.
        raise NotImplementedError("kata 16.3: MemoryProfiler.phase")


# What does an operation cost? Counted from shapes, before or after it is done.

CostRule = Callable[[list[Any], dict[str, Any], Array], int]
_cost_rules: dict[str, CostRule] = {}

# Floating-point operations for each element of the first input. One is an addition, a multiplication, a
# comparison, but also a division, a root, exp or tanh, which take a processor longer: so count all profilers,
# for want of a number that holds on every machine.
PER_ELEMENT = {
    # Nothing is computed: views, copies, and look-ups.
    "reshape": 0, "view": 0, "contiguous": 0, "transpose": 0, "permute": 0, "squeeze": 0, "unsqueeze": 0,
    "expand": 0, "getitem": 0, "join": 0, "embedding": 0,
    # Each element is read once.
    "total": 1, "mean": 1, "amax": 1, "amin": 1, "argmax": 1,
    # Mean, difference, square, sum.
    "var": 4,
    # A product and a maximum; 1 / (1 + exp(-x)); x / (1 + exp(x * (a + b * x * x))).
    "leaky_relu": 2, "leaky_relu_": 2, "sigmoid": 4, "sigmoid_": 4, "gelu": 7,
    # Largest, difference, exp, sum, and a division or another difference.
    "softmax": 5, "log_softmax": 5, "cross_entropy": 5,
    # A comparison and a product; two products and a sum; difference, square, sum.
    "dropout": 2, "rotary": 3, "mse_loss": 3,
    # Mean, difference, square, sum, and three to scale and shift; the second without mean and shift.
    "layer_norm": 7, "rms_norm": 4,
}  # fmt: skip
# Operations whose result may be a view of their input.
VIEWS = (
    "reshape", "view", "contiguous", "transpose", "permute", "squeeze", "unsqueeze", "expand", "getitem",
)  # fmt: skip


def cost_rule(*names: str) -> Callable[[CostRule], CostRule]:
    """Attach `rule(arrays, params, out)`, the number of floating-point operations, to ops of these names.

    `arrays` are the inputs as bare arrays (or numbers, lists, None), `params` all keyword parameters, those
    left out with their defaults; `out` is the result, an array. Given.
    """

    def attach(rule: CostRule) -> CostRule:
        _cost_rules.update(dict.fromkeys(names, rule))
        return rule

    return attach


def bare(inputs: Iterable[Any]) -> list[Any]:
    """Tensors as their arrays, anything else as it is. Given."""
    return [x.data if isinstance(x, Tensor) else x for x in inputs]


def op_flops(op: Op, arrays: Sequence[Any], params: Mapping[str, Any], out: Any) -> int:
    """Floating-point operations of one call of `op`: of arrays or Tensors, and its parameters, with result
    `out`. Inputs may also be numbers, lists or None, as ops take them.

    By the rule for its name; else by PER_ELEMENT and the size of its first input; else, for any other op, one
    for each element of the result. An int, also where a rule returns a float.
    """
    # TODO 16.4: `op.params` are its parameters with their defaults.
    raise NotImplementedError("kata 16.4: op_flops")


@cost_rule("matmul")
def matmul_flops(arrays: list[Any], params: dict[str, Any], out: Array) -> int:
    """A product and a sum for each of the k pairs that make an element of the result: 2mnk."""
    # TODO 16.4: also where a vector has no axis to show for it.
    raise NotImplementedError("kata 16.4: matmul_flops")


@cost_rule("affine")
def affine_flops(arrays: list[Any], params: dict[str, Any], out: Array) -> int:
    """A product of matrices, and one more for each element of the result if there is a bias."""
    # TODO 16.4: inputs are x, weight and perhaps a bias, which may be None.
    raise NotImplementedError("kata 16.4: affine_flops")


@cost_rule("conv2d")
def conv2d_flops(arrays: list[Any], params: dict[str, Any], out: Array) -> int:
    """For each element of the result a product and a sum for each element of a kernel; and the bias."""
    # TODO 16.4: a kernel (of weight, (O, C / groups, KH, KW)) sees the channels of its group only.
    raise NotImplementedError("kata 16.4: conv2d_flops")


def has_bias(arrays: Sequence[Any]) -> bool:
    """Whether there is a third input, and not None. Given."""
    return len(arrays) > 2 and arrays[2] is not None


@cost_rule("max_pool2d", "avg_pool2d")
def pool_flops(arrays: list[Any], params: dict[str, Any], out: Array) -> int:
    """One for each element that a window looks at; windows may overlap."""
    # TODO 16.4: `kernel` is a number or a pair.
    raise NotImplementedError("kata 16.4: pool_flops")


@cost_rule("batch_norm")
def batch_norm_flops(arrays: list[Any], params: dict[str, Any], out: Array) -> int:
    """As layer norm in training, 7 an element; else difference, product and sum."""
    # TODO 16.4: the parameter `training` tells.
    raise NotImplementedError("kata 16.4: batch_norm_flops")


@cost_rule("fused_attention")
def attention_flops(arrays: list[Any], params: dict[str, Any], out: Array) -> int:
    """For each query of each head and each key that it may see: 2 * D for its score, 5 for the softmax, and
    2 * E to mix.

    q is (B, H, Tq, D), k (B, KV, Tk, D) and v (B, KV, Tk, E). With `is_causal`, query i sees the keys up to
    i + Tk - Tq. What a mask hides counts all the same.
    """
    # TODO 16.4: how many pairs are there? A query before the first key sees none.
    raise NotImplementedError("kata 16.4: attention_flops")


def op_bytes(op: Op, arrays: Sequence[Any], params: Mapping[str, Any], out: Any) -> int:
    """Bytes that one call of `op` has to read and write: its arrays, each input by itself also if two are one
    array, those among the parameters too, and its result.

    Any of them may be a Tensor. An element that a stride of 0 repeats is in memory once. Numbers, lists and
    by-products do not count. A view of the first input moves nothing. A look-up (`embedding`, and `getitem`
    that copies) reads of its first input as much as it writes, not all.
    """
    # TODO 16.5: `np.may_share_memory` tells, for the VIEWS.
    raise NotImplementedError("kata 16.5: op_bytes")


def stored_bytes(x: Any) -> int:
    """Bytes of an array's elements, those that a stride of 0 repeats once; 0 of anything else."""
    # TODO 16.5: leave out the axes along which no step is taken, unless there are no elements at all.
    raise NotImplementedError("kata 16.5: stored_bytes")


# Which operations? A profiler on the seam of kata 02.


class Event(NamedTuple):
    """One call of an op, or one of its gradient rule.

    Attributes:
        name: of the op.
        phase: "forward" or "backward".
        start_ns, duration_ns: by the profiler's clock.
        shapes: of the inputs that are arrays; of a rule, of the gradient that it gets.
        dtype: of the result; of a rule, of the gradient.
        flops, bytes: of `op_flops` and `op_bytes`; of a rule, twice those of the call that it belongs to, and
            0 if that was not recorded.
        peak_bytes: the most above what was traced when it began; None unless the profiler counts memory.
        depth: how many calls it is inside of, one that raised later among them.
        self_ns: the duration without those of the recorded calls directly inside of it. A call that raises is
            not recorded: all of its time is its caller's own.
    """

    name: str
    phase: str
    start_ns: int
    duration_ns: int
    shapes: tuple[tuple[int, ...], ...]
    dtype: np.dtype[Any]
    flops: int
    bytes: int
    peak_bytes: int | None
    depth: int
    self_ns: int


class Span(NamedTuple):
    """When a call began, how long it took, of that outside of calls inside, its depth, and its peak."""

    start: int
    duration: int
    own: int
    depth: int
    peak: int | None


class Stopwatch:
    """Times calls that lie inside each other. With `memory`, it also reads their peaks; then tracemalloc must
    be tracing.
    """

    def __init__(self, clock: ClockNs, memory: bool) -> None:
        self.clock = clock
        self.peaks = Peaks() if memory else None
        self.inside: list[int] = []  # for each call that is open, the time of those directly inside of it

    def time(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> tuple[Any, Span]:
        """Call the function; its result, and the Span.

        The clock is read twice, right before and right after. A call that raises is forgotten: to the call
        around it, its time is time of its own.
        """
        # TODO 16.6: what the call around this one has to subtract is known when this one ends.
        raise NotImplementedError("kata 16.6: Stopwatch.time")


class OpProfiler:
    """Records each call of an Op, and each of its gradient rule, for the time of a `with` block.

    `with OpProfiler() as profile:` replaces `Op.__call__`, the one place through which all operations go, and
    the gradient rule `pull` of each op that it sees; on leaving, whatever happened, both are put back. So it
    sees operations under `no_grad` too, and on tensors without a gradient. Results are the same to the bit.
    Calls on other threads than the one that entered are let through unrecorded, and so is what a rule does
    that somebody took inside of the block and calls after it. Profilers may be nested, and are left in the
    opposite order; entered again, one adds to its events.

    Attributes:
        events: in the order in which the calls ended. A call that raised is not among them.
    """

    def __init__(self, memory: bool = False, clock: ClockNs = time.perf_counter_ns) -> None:
        self.events: list[Event] = []
        self.memory = memory
        self.clock = clock
        self._thread: int | None = None  # that of the block; None outside of it
        self._costs: dict[Any, tuple[int, int]] = {}

    def __enter__(self) -> OpProfiler:
        # TODO 16.6: assign a function to `Op.__call__` (with setattr mypy keeps quiet), and let an ExitStack
        # remember what to put back. RuntimeError if this profiler is running already.
        raise NotImplementedError("kata 16.6: OpProfiler.__enter__")

    def __exit__(self, *error: object) -> None:
        # TODO 16.6: whatever the error, it goes on.
        raise NotImplementedError("kata 16.6: OpProfiler.__exit__")

    def _forward(self, call: Callable[..., Tensor], op: Op, inputs: Any, params: dict[str, Any]) -> Tensor:
        """Carry out `call(op, *inputs, **params)`, and record it."""
        # TODO 16.6: costs are counted when the clock has stopped. For 16.7, note them under a key that the
        # way back has as well, and watch the op's rule, after the call: a profiler inside comes last then.
        raise NotImplementedError("kata 16.6: OpProfiler._forward")

    def _watch_rule(self, op: Op) -> None:
        """Put in place of `op.pull` a function that records; once for each op."""
        # TODO 16.7: it goes on working when the block is over. Put back only what is still yours.
        raise NotImplementedError("kata 16.7: OpProfiler._watch_rule")

    @staticmethod
    def _key(op: Op, out: Array, kept: Sequence[Any]) -> Any:
        """What a call and its way back have in common: the op, the shape, and the very objects it kept."""
        # TODO 16.7: as long as a node lives, nothing else has the `id` of what it keeps.
        raise NotImplementedError("kata 16.7: OpProfiler._key")

    def _note(
        self, op: Op, phase: str, span: Span, shapes: Any, dtype: np.dtype[Any], flops: int, moved: int
    ) -> None:
        start, duration, own, depth, peak = span
        self.events.append(
            Event(op.name, phase, start, duration, shapes, dtype, flops, moved, peak, depth, own)
        )

    def table(self) -> Table:
        """`by_op` of all events, for the terminal: kata 01's `show` prints it. Given."""
        rows: list[dict[str, object]] = [
            {
                "op": row.name, "phase": row.phase, "calls": row.calls, "total ms": row.total_ns / 1e6,
                "self ms": row.self_ns / 1e6, "share": f"{row.share:.1%}", "MFLOP": row.flops / 1e6,
                "MB": row.bytes / 1e6, "GFLOP/s": row.rate / 1e9,
            }
            for row in by_op(self.events)
        ]  # fmt: skip
        return table("operations", rows)


class OpRow(NamedTuple):
    """All calls of one op in one phase, added up; `share` is of the self time of all events, 0 of none.

    `peak_bytes` is the highest of any call, None if none was counted.
    """

    name: str
    phase: str
    calls: int
    total_ns: int
    self_ns: int
    share: float
    flops: int
    bytes: int
    peak_bytes: int | None

    @property
    def rate(self) -> float:
        """FLOP/s of its self time; 0 where no time has passed."""
        # TODO 16.8: the clock counts in billionths of a second.
        raise NotImplementedError("kata 16.8: OpRow.rate")


def by_op(events: Iterable[Event]) -> list[OpRow]:
    """A row for each op and phase that occurs, the one with the most self time first.

    Of equal ones that comes first which occurred first.
    """
    # TODO 16.8: one pass over the events, into a dict. `sorted` keeps the order of equals.
    raise NotImplementedError("kata 16.8: by_op")


class ModuleRow(NamedTuple):
    """The forward passes of one module, added up.

    Attributes:
        path, kind: its name by `named_modules`, and its class's.
        calls: how often it was called.
        total_ns, self_ns: with and without the modules below it.
        peak_bytes: the most that any one call needed above what was there before it; None without memory.
    """

    path: str
    kind: str
    calls: int
    total_ns: int
    self_ns: int
    peak_bytes: int | None


def profile_modules(
    model: Module, *inputs: Any, memory: bool = False, clock: ClockNs = time.perf_counter_ns
) -> list[ModuleRow]:
    """One forward pass `model(*inputs)`, by modules: a row for each that was called, parents first.

    The order is that of `model.named_modules()`; a module with several names has the first. One that is not
    of the model has no row: its time is its caller's own. Hooks count to the module that has them. With
    `memory`, tracemalloc counts and makes the times longer. What this replaces for it is put back, whatever
    happens, and no result is kept.
    """
    # TODO 16.9: kata 03 calls a hook when a module is done, not when it begins: so for the time of the call,
    # replace `Module.__call__`, as OpProfiler does with Op's. `Stopwatch` does the rest.
    raise NotImplementedError("kata 16.9: profile_modules")


# And how long need it take?


@dataclass(frozen=True)
class Roofline:
    """What a machine can do at best: FLOP a second, bytes a second, and the seconds that any call takes.

    Work of F operations on B bytes takes at least F / peak_flops and at least B / bandwidth seconds, and the
    larger of the two is its roof (Williams, Waterman and Patterson, "Roofline", 2009). ValueError unless the
    first two are above 0, and the overhead is not below.
    """

    peak_flops: float
    bandwidth: float
    overhead: float = 0.0

    def __post_init__(self) -> None:
        if not (self.peak_flops > 0 and self.bandwidth > 0 and self.overhead >= 0):
            raise ValueError(f"no machine has {self}")

    @property
    def ridge(self) -> float:
        """The intensity, FLOP per byte, from which on memory is no longer what limits."""
        # TODO 16.10: where the two times are equal.
        raise NotImplementedError("kata 16.10: Roofline.ridge")

    def attainable(self, intensity: float) -> float:
        """The FLOP/s that work of so many FLOP per byte can reach."""
        # TODO 16.10: a slope, and then a ceiling.
        raise NotImplementedError("kata 16.10: Roofline.attainable")

    def roof_seconds(self, flops: float, bytes: float) -> float:
        """The least time for so many operations on so many bytes, without the overhead."""
        # TODO 16.10: computing and fetching go on at the same time.
        raise NotImplementedError("kata 16.10: Roofline.roof_seconds")

    def bound(self, flops: float, bytes: float) -> str:
        """What limits one call: "overhead" if the roof is below it; else "compute", also where the two times
        are equal, or "memory".
        """
        # TODO 16.10: ask for the overhead first.
        raise NotImplementedError("kata 16.10: Roofline.bound")


def measure_roofline(
    *, side: int = 512, length: int = 1 << 24, repeat: int = 10, clock: Clock = time.process_time
) -> Roofline:
    """This machine's, in float32: by the best of `repeat` samples of each of three functions.

    The product of two matrices (side, side), 2 * side³ operations, written to an array that is there; a copy
    of an array of `length` numbers, larger than any cache, onto another, which reads 4 * length bytes and
    writes as many; and `neg` of a Tensor of one number, (1,), which is nothing but overhead.
    """
    # TODO 16.10: `np.matmul` has `out=`, and `np.copyto` copies. `time_calls` for each.
    raise NotImplementedError("kata 16.10: measure_roofline")


class Bottleneck(NamedTuple):
    """An op in a phase, beside what it need cost.

    Attributes:
        name, phase, calls, share: as in its OpRow.
        seconds: its self time.
        roof: the seconds that its calls need at least, each its roof, or the overhead if that is more.
        bound: what limits the calls that take most of its self time.
        of_roof: roof / seconds, above 1 where the arrays come from a cache; 1 where both are 0, inf where
            only the seconds are.
        advice: what to do.
    """

    name: str
    phase: str
    calls: int
    share: float
    seconds: float
    roof: float
    bound: str
    of_roof: float
    advice: str


NEAR = 0.5  # of its roof, from which on an op is as fast as it will get
ADVICE = {
    "overhead": "many small calls: larger batches, or one op in place of several (kata 17)",
    "memory": "bound by memory: fuse it with its neighbours, write over arrays, smaller dtypes (17, 18)",
    "compute": "bound by arithmetic: fewer operations (another algorithm, a smaller model: 17, 18)",
    "far": "far below its roof: look for copies, Python loops, float64, small or strided products (17)",
}


def bottlenecks(events: Iterable[Event], roofline: Roofline, top: int = 5) -> list[Bottleneck]:
    """The `top` ops, or as many as there are, that take most self time, as in `by_op`.

    ADVICE is by its bound, or "far" if it is bound by memory or compute and `of_roof` is below NEAR.
    """
    # TODO 16.11: rows of `by_op`; and for each of them its events once more, call by call.
    raise NotImplementedError("kata 16.11: bottlenecks")


# And at ten times the size? And is it slower than it was?

GROWTHS: dict[str, Callable[[Array], Array]] = {
    "1": lambda n: np.ones_like(n),
    "log n": lambda n: np.log(n),
    "n": lambda n: n,
    "n log n": lambda n: n * np.log(n),
    "n^2": lambda n: n**2,
    "n^3": lambda n: n**3,
}


class Growth(NamedTuple):
    """How a cost grows with the size n.

    Attributes:
        name: of the growth that fits best, of GROWTHS.
        factor: the cost is about factor * growth(n).
        residual: how far the costs are from that, as for `residuals`.
        residuals: for each name, the root of the mean square of log(cost) - log(factor * growth(n)), with the
            factor that makes it least: 0.1 is about 10 %.
        exponent: the p of the n**p that fits best.
        low, high: between them the exponent lies, with 95 % confidence.
    """

    name: str
    factor: float
    residual: float
    residuals: dict[str, float]
    exponent: float
    low: float
    high: float


def fit_growth(
    sizes: Sequence[float], costs: Sequence[float], *, rng: np.random.Generator, resamples: int = 1000
) -> Growth:
    """The growth of `costs`, one for each of `sizes`; of equally good ones the first in GROWTHS.

    The interval is a bootstrap (Efron, 1979): the points are drawn anew, as many as there are, some twice and
    others not, `resamples` times, and 95 % of the exponents of these are between low and high. Draws in which
    all sizes are the same have no exponent, and do not count.

    Raises:
        ValueError: there are not as many costs as sizes, fewer than three sizes differ, one is below 2, or a
            cost is not above 0, or not finite; the message shows how many there are, the sizes, or the costs.
    """
    # TODO 16.12: in logarithms a factor is a constant, and the best one is a mean. All draws at once: an
    # array (resamples, points) of indices, and the slope of a line for each row.
    raise NotImplementedError("kata 16.12: fit_growth")


def slopes_of(x: Array, y: Array) -> Any:
    """The slope of the least-squares line through the points of each row; nan where all x are the same.

    x and y are (..., points), and the slopes (...): of two arrays (points,) there is one.
    """
    # TODO 16.12: with x less its mean, Σ xy / Σ xx.
    raise NotImplementedError("kata 16.12: slopes_of")


EXACT = 20  # samples on each side, up to which chances are counted one by one


def mann_whitney(a: Samples, b: Samples) -> tuple[float, float]:
    """Do two samples come from the same place? Mann and Whitney's U of `a`, and a two-sided p (1947).

    U is the number of pairs, one of `a` and one of `b`, in which that of `a` is larger; equal ones count
    half. p is the chance, if both come from one distribution, of a U at least as far from its mean as this
    one. Without equal numbers, and with at most EXACT on each side, it is counted: all orders are as likely.
    Else U is taken as normal with mean nm / 2 and variance nm / 12 * (N + 1 - Σ(t³ - t) / (N * (N - 1))), for
    each group of t equals among N = n + m; and 1/2 closer to its mean, for it moves in steps. p is 1 if all
    are equal, and never more.

    Raises:
        ValueError: one of them is empty, or holds a nan.
    """
    # TODO 16.13: sum the ranks of `a` among all, where equals share the mean of their ranks; the least sum
    # that it could be is n (n + 1) / 2. `orders` counts.
    raise NotImplementedError("kata 16.13: mann_whitney")


def check_samples(samples: Samples) -> Array:
    """As an array (n,) of float64; ValueError if there are none, or one is nan. Given."""
    array = np.asarray(samples, np.float64)
    if array.ndim != 1 or not array.size or np.isnan(array).any():
        raise ValueError(f"a sample is one or more numbers, none of them nan, not {samples!r}")
    return array


def orders(n: int, m: int) -> list[int]:
    """For u = 0, 1, ... nm: of all orders of n a's and m b's, in how many is U the number u?

    `orders(2, 1)` is [1, 1, 1]: of two a's and a b, in ascending order, aab has U = 0, aba 1 and baa 2.
    """
    # TODO 16.13: the largest is an a, above all m b's, or a b: ways(n, m)[u] = ways(n - 1, m)[u - m] +
    # ways(n, m - 1)[u]. A table of n + 1 rows, one b after the other.
    raise NotImplementedError("kata 16.13: orders")


def bootstrap_ratio(
    before: Samples,
    after: Samples,
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """An interval for median(after) / median(before), with the confidence asked for.

    Each side is drawn anew from its own samples, as many as there are, `resamples` times, and so often the
    ratio is taken; left out are as many of the smallest as of the largest, (1 - confidence) / 2 each. The
    two bounds are Python's own floats.

    Raises:
        ValueError: a side is empty; a sample is not above 0, or not 0 < confidence < 1, and it is named.
    """
    # TODO 16.14: all draws of a side at once.
    raise NotImplementedError("kata 16.14: bootstrap_ratio")


class Verdict(NamedTuple):
    """What `detect_regression` found; `low` and `high` are `bootstrap_ratio`'s, p is `mann_whitney`'s."""

    verdict: str
    ratio: float
    low: float
    high: float
    p: float


def detect_regression(
    before: Samples,
    after: Samples,
    *,
    threshold: float = 1.05,
    alpha: float = 0.01,
    rng: np.random.Generator,
) -> Verdict:
    """Is `after` slower than `before`? Times in the same unit, best taken in turns.

    The ratio is median(after) / median(before), and the interval has the confidence 1 - alpha. The verdict is
    "slower" if the ratio is at least `threshold`, the interval is above 1, and p below alpha; "faster" if the
    ratio is at most 1 / threshold, the interval below 1, and p below alpha; else "same", if the whole
    interval is between 1 / threshold and threshold, the ends counted; and "unsure" if there is no telling.

    Raises:
        ValueError: threshold is not above 1, and it is named; or as in `bootstrap_ratio`.
    """
    # TODO 16.15: three conditions each, for a verdict that somebody will act on.
    raise NotImplementedError("kata 16.15: detect_regression")


# To look at.


def chrome_trace(events: Iterable[Event], name: str = "tinytorch") -> dict[str, Any]:
    """The events in the Trace Event Format, which Perfetto and chrome://tracing draw.

    A dict with "displayTimeUnit": "ms", and "traceEvents": first two with "ph": "M" (metadata), named
    "process_name" and "thread_name", whose "args" are {"name": ...}, `name` and "operations"; then one for
    each event, in the order in which they began: its "name", "cat" (its phase), "ph": "X" (complete), "ts"
    and "dur" in microseconds, the first from 0, and in "args" its shapes (lists), dtype (its name), flops,
    bytes, "self_us", and peak_bytes unless it is None. All have "pid": 1 and "tid": 1. It is all lists,
    dicts, strings and Python's own numbers, as JSON wants.
    """
    # TODO 16.16: of two that begin at once, the one outside comes first.
    raise NotImplementedError("kata 16.16: chrome_trace")


def write_trace(path: str | os.PathLike[str], events: Iterable[Event], name: str = "tinytorch") -> None:
    """Write `chrome_trace(events, name)` to a file of JSON, in UTF-8: whole, or not at all.

    If anything goes wrong, what was at `path` is still there, and nothing new beside it.
    """
    # TODO 16.16: as in kata 05.17: another name in the same folder, then `os.replace`.
    raise NotImplementedError("kata 16.16: write_trace")
