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
        # kata 16.1: `int(position)` is the one before, and there may be none after it.
        if not 0 <= q <= 1:
            raise ValueError(f"a quantile is from 0 to 1, and q is {q}")
        ordered = sorted(self.samples)
        position = q * (len(ordered) - 1)
        i = int(position)
        below, above = ordered[i], ordered[min(i + 1, len(ordered) - 1)]
        return below + (above - below) * (position - i)

    @property
    def best(self) -> float:
        """The shortest: noise only ever adds."""
        # kata 16.1: one of these four is already there.
        return min(self.samples)

    @property
    def median(self) -> float:
        """The middle one, or halfway between the two in the middle."""
        # kata 16.1: a quantile.
        return self.quantile(0.5)

    @property
    def mean(self) -> float:
        # kata 16.1: of the samples; one that was disturbed moves it.
        return math.fsum(self.samples) / len(self.samples)

    @property
    def spread(self) -> float:
        """From the quarter to the three quarters, as a share of the median: half of all samples lie there.

        0 where the two are equal, also if the median is 0; inf if only the median is 0.
        """
        # kata 16.1: the interquartile range.
        width = self.quantile(0.75) - self.quantile(0.25)
        if not width:
            return 0.0
        return width / self.median if self.median else math.inf


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
    # kata 16.2: kata 01 has `gc_paused`.
    if repeat < 1 or (inner is not None and inner < 1):
        raise ValueError(f"nothing to measure with {repeat=} and {inner=}: both must be at least 1")

    def run(function: Callable[[], object], calls: int) -> float:
        start = clock()
        for _ in range(calls):
            function()
        return clock() - start

    with gc_paused():
        calls = []
        for function in functions:
            function()
            count = inner or 1
            while inner is None and run(function, count) < shortest and count < MOST_CALLS:
                count *= 2
            calls.append(count)
        samples: list[list[float]] = [[] for _ in functions]
        turn = list(zip(functions, calls, samples, strict=True))
        for _ in range(repeat):
            for function, count, taken in turn:
                taken.append(run(function, count) / count)
            turn.reverse()
    return [Timing(tuple(taken), count) for taken, count in zip(samples, calls, strict=True)]


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
        # kata 16.3: note, reset, and the new one begins with what is traced now.
        held = self._note()
        self.open.append([held, held])
        return held

    def end(self) -> tuple[int, int]:
        """Close the last reading: the most bytes in it, and those of now, both above those at its begin."""
        # kata 16.3: the second may be negative, the first not.
        held = self._note()
        begin, worst = self.open.pop()
        return worst - begin, held - begin

    def _note(self) -> int:
        """Take the peak since the last reset into all open readings, and reset it; the bytes traced now."""
        # kata 16.3: tracemalloc has `get_traced_memory` and `reset_peak`.
        held, peak = tracemalloc.get_traced_memory()
        for reading in self.open:
            reading[1] = max(reading[1], peak)
        tracemalloc.reset_peak()
        return held


@contextmanager
def tracing() -> Iterator[None]:
    """tracemalloc traces inside of the block, and afterwards if it did before, whatever happened."""
    # kata 16.3: as in `memory_of` of kata 01.
    was_on = tracemalloc.is_tracing()
    if not was_on:
        tracemalloc.start()
    try:
        yield
    finally:
        if not was_on:
            tracemalloc.stop()


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
        # kata 16.3: an ExitStack leaves `tracing()` when you close it. RuntimeError if it is inside already.
        if self._peaks is not None:
            raise RuntimeError("this MemoryProfiler is running already: make another one")
        self.phases = []
        self._inside.enter_context(tracing())
        gc.collect()
        self._peaks = Peaks()
        self._start = self._peaks.begin()
        return self

    def __exit__(self, *error: object) -> None:
        # kata 16.3: whatever the error, it goes on.
        self._peaks = None
        self._inside.close()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note what the block takes, also if it raises. RuntimeError, naming it, outside of the profiler."""
        # kata 16.3: the place in the list is taken at the begin, and filled at the end. Read the peak before
        # you collect, and what is left after.
        peaks = self._peaks
        if peaks is None:
            raise RuntimeError(f"the phase {name!r} must be inside of `with` its MemoryProfiler")
        place, depth = len(self.phases), len(peaks.open) - 1
        self.phases.append(Phase(name, depth, 0, 0, 0))
        begin = peaks.begin()
        try:
            yield
        finally:
            gc.collect()
            peak, retained = peaks.end()
            self.phases[place] = Phase(name, depth, begin - self._start, peak, retained)


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
    # kata 16.4: `op.params` are its parameters with their defaults.
    arrays, out = bare(arrays), bare([out])[0]
    if op.name in _cost_rules:
        return int(_cost_rules[op.name](arrays, {**op.params, **params}, out))
    if op.name in PER_ELEMENT:
        return PER_ELEMENT[op.name] * int(np.size(arrays[0]))
    return int(np.size(out))


@cost_rule("matmul")
def matmul_flops(arrays: list[Any], params: dict[str, Any], out: Array) -> int:
    """A product and a sum for each of the k pairs that make an element of the result: 2mnk."""
    # kata 16.4: also where a vector has no axis to show for it.
    return int(2 * out.size * np.shape(arrays[0])[-1])


@cost_rule("affine")
def affine_flops(arrays: list[Any], params: dict[str, Any], out: Array) -> int:
    """A product of matrices, and one more for each element of the result if there is a bias."""
    # kata 16.4: inputs are x, weight and perhaps a bias, which may be None.
    return int(out.size * (2 * np.shape(arrays[1])[1] + has_bias(arrays)))


@cost_rule("conv2d")
def conv2d_flops(arrays: list[Any], params: dict[str, Any], out: Array) -> int:
    """For each element of the result a product and a sum for each element of a kernel; and the bias."""
    # kata 16.4: a kernel (of weight, (O, C / groups, KH, KW)) sees the channels of its group only.
    return int(out.size * (2 * math.prod(np.shape(arrays[1])[1:]) + has_bias(arrays)))


def has_bias(arrays: Sequence[Any]) -> bool:
    """Whether there is a third input, and not None. Given."""
    return len(arrays) > 2 and arrays[2] is not None


@cost_rule("max_pool2d", "avg_pool2d")
def pool_flops(arrays: list[Any], params: dict[str, Any], out: Array) -> int:
    """One for each element that a window looks at; windows may overlap."""
    # kata 16.4: `kernel` is a number or a pair.
    kernel = params["kernel"]
    return int(out.size * (kernel * kernel if isinstance(kernel, int) else math.prod(kernel)))


@cost_rule("batch_norm")
def batch_norm_flops(arrays: list[Any], params: dict[str, Any], out: Array) -> int:
    """As layer norm in training, 7 an element; else difference, product and sum."""
    # kata 16.4: the parameter `training` tells.
    return int(out.size * (7 if params["training"] else 3))


@cost_rule("fused_attention")
def attention_flops(arrays: list[Any], params: dict[str, Any], out: Array) -> int:
    """For each query of each head and each key that it may see: 2 * D for its score, 5 for the softmax, and
    2 * E to mix.

    q is (B, H, Tq, D), k (B, KV, Tk, D) and v (B, KV, Tk, E). With `is_causal`, query i sees the keys up to
    i + Tk - Tq. What a mask hides counts all the same.
    """
    # kata 16.4: how many pairs are there? A query before the first key sees none.
    q, k, v = arrays
    batch, heads, queries, dim = q.shape
    keys = k.shape[2]
    pairs = queries * keys
    if params["is_causal"]:
        last = min(queries, keys)  # of the queries, that see something
        pairs = last * (keys - last) + last * (last + 1) // 2
    return int(batch * heads * pairs * (2 * dim + 5 + 2 * v.shape[3]))


def op_bytes(op: Op, arrays: Sequence[Any], params: Mapping[str, Any], out: Any) -> int:
    """Bytes that one call of `op` has to read and write: its arrays, each input by itself also if two are one
    array, those among the parameters too, and its result.

    Any of them may be a Tensor. An element that a stride of 0 repeats is in memory once. Numbers, lists and
    by-products do not count. A view of the first input moves nothing. A look-up (`embedding`, and `getitem`
    that copies) reads of its first input as much as it writes, not all.
    """
    # kata 16.5: `np.may_share_memory` tells, for the VIEWS.
    arrays, out = bare(arrays), np.asarray(bare([out])[0])
    if op.name in VIEWS and isinstance(arrays[0], np.ndarray) and np.may_share_memory(out, arrays[0]):
        return 0
    if op.name in ("embedding", "getitem"):
        arrays[0] = out
    return sum(map(stored_bytes, (*arrays, *bare(params.values()), out)))


def stored_bytes(x: Any) -> int:
    """Bytes of an array's elements, those that a stride of 0 repeats once; 0 of anything else."""
    # kata 16.5: leave out the axes along which no step is taken, unless there are no elements at all.
    if not isinstance(x, np.ndarray) or not x.size:
        return 0
    stored: int = math.prod(n for n, step in zip(x.shape, x.strides, strict=True) if step)
    return stored * x.itemsize


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
        # kata 16.6: what the call around this one has to subtract is known when this one ends.
        depth = len(self.inside)
        self.inside.append(0)
        if self.peaks is not None:
            self.peaks.begin()
        peak = None
        try:
            start = self.clock()
            result = function(*args, **options)
            duration = self.clock() - start
        finally:
            inside = self.inside.pop()
            if self.peaks is not None:
                peak, _ = self.peaks.end()
        if self.inside:
            self.inside[-1] += duration
        return result, Span(start, duration, duration - inside, depth, peak)


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
        # kata 16.6: assign a function to `Op.__call__` (with setattr mypy keeps quiet), and let an ExitStack
        # remember what to put back. RuntimeError if this profiler is running already.
        if self._thread is not None:
            raise RuntimeError("this OpProfiler is running already: make another one")
        self._thread = threading.get_ident()
        self._watch = Stopwatch(self.clock, self.memory)
        self._undo = contextlib.ExitStack()
        if self.memory:
            self._undo.enter_context(tracing())
        self._seen: set[Op] = set()  # those whose rule is watched
        self._undo.callback(setattr, Op, "__call__", Op.__call__)
        call = Op.__call__

        def watched(op: Op, /, *inputs: Any, **params: Any) -> Tensor:
            return self._forward(call, op, inputs, params)

        setattr(Op, "__call__", watched)  # noqa: B010
        return self

    def __exit__(self, *error: object) -> None:
        # kata 16.6: whatever the error, it goes on.
        self._thread = None
        self._costs.clear()
        self._undo.close()

    def _forward(self, call: Callable[..., Tensor], op: Op, inputs: Any, params: dict[str, Any]) -> Tensor:
        """Carry out `call(op, *inputs, **params)`, and record it."""
        # kata 16.6: costs are counted when the clock has stopped. For 16.7, note them under a key that the
        # way back has as well, and watch the op's rule, after the call: a profiler inside comes last then.
        if threading.get_ident() != self._thread:
            return call(op, *inputs, **params)
        out: Tensor
        out, span = self._watch.time(call, op, *inputs, **params)
        flops, moved = op_flops(op, inputs, params, out), op_bytes(op, inputs, params, out)
        shapes = tuple(x.shape for x in inputs if isinstance(x, (Tensor, np.ndarray)))
        self._note(op, "forward", span, shapes, out.dtype, flops, moved)
        kept = getattr(out.node, "kept", None)  # what records, a graph or a tape, leaves a node that has this
        if kept is not None:
            self._costs[self._key(op, out.data, kept)] = 2 * flops, 2 * moved
        self._watch_rule(op)
        return out

    def _watch_rule(self, op: Op) -> None:
        """Put in place of `op.pull` a function that records; once for each op."""
        # kata 16.7: it goes on working when the block is over. Put back only what is still yours.
        pull = op.pull
        if pull is None or op in self._seen:
            return

        def watched(grad: Array, *kept: Any) -> Any:
            if threading.get_ident() != self._thread:
                return pull(grad, *kept)
            shares, span = self._watch.time(pull, grad, *kept)
            flops, moved = self._costs.get(self._key(op, grad, kept), (0, 0))
            self._note(op, "backward", span, (grad.shape,), grad.dtype, flops, moved)
            return shares

        def put_back() -> None:
            if op.pull is watched:
                op.pull = pull

        self._seen.add(op)
        op.pull = watched
        self._undo.callback(put_back)

    @staticmethod
    def _key(op: Op, out: Array, kept: Sequence[Any]) -> Any:
        """What a call and its way back have in common: the op, the shape, and the very objects it kept."""
        # kata 16.7: as long as a node lives, nothing else has the `id` of what it keeps.
        return op, out.shape, *map(id, kept)

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
        # kata 16.8: the clock counts in billionths of a second.
        return self.flops / self.self_ns * 1e9 if self.self_ns else 0.0


def by_op(events: Iterable[Event]) -> list[OpRow]:
    """A row for each op and phase that occurs, the one with the most self time first.

    Of equal ones that comes first which occurred first.
    """
    # kata 16.8: one pass over the events, into a dict. `sorted` keeps the order of equals.
    groups: dict[tuple[str, str], list[Event]] = {}
    for event in events:
        groups.setdefault((event.name, event.phase), []).append(event)
    everything = sum(event.self_ns for group in groups.values() for event in group)
    rows = []
    for (name, phase), group in groups.items():
        own = sum(event.self_ns for event in group)
        peaks = [event.peak_bytes for event in group if event.peak_bytes is not None]
        rows.append(
            OpRow(
                name,
                phase,
                len(group),
                sum(event.duration_ns for event in group),
                own,
                own / everything if everything else 0.0,
                sum(event.flops for event in group),
                sum(event.bytes for event in group),
                max(peaks, default=None),
            )
        )
    return sorted(rows, key=lambda row: -row.self_ns)


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
    # kata 16.9: kata 03 calls a hook when a module is done, not when it begins: so for the time of the call,
    # replace `Module.__call__`, as OpProfiler does with Op's. `Stopwatch` does the rest.
    paths = {module: path for path, module in model.named_modules()}
    spans: dict[Module, list[Span]] = {module: [] for module in paths}
    watch, call = Stopwatch(clock, memory), Module.__call__

    def watched(module: Module, /, *args: Any, **options: Any) -> Any:
        if module not in paths:
            return call(module, *args, **options)
        out, span = watch.time(call, module, *args, **options)
        spans[module].append(span)
        return out

    with tracing() if memory else contextlib.nullcontext():
        setattr(Module, "__call__", watched)  # noqa: B010
        try:
            model(*inputs)
        finally:
            setattr(Module, "__call__", call)  # noqa: B010
    return [
        ModuleRow(
            paths[module],
            type(module).__name__,
            len(some),
            sum(span.duration for span in some),
            sum(span.own for span in some),
            max((span.peak for span in some if span.peak is not None), default=None),
        )
        for module, some in spans.items()
        if some
    ]


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
        # kata 16.10: where the two times are equal.
        return self.peak_flops / self.bandwidth

    def attainable(self, intensity: float) -> float:
        """The FLOP/s that work of so many FLOP per byte can reach."""
        # kata 16.10: a slope, and then a ceiling.
        return min(self.peak_flops, intensity * self.bandwidth)

    def roof_seconds(self, flops: float, bytes: float) -> float:
        """The least time for so many operations on so many bytes, without the overhead."""
        # kata 16.10: computing and fetching go on at the same time.
        return max(flops / self.peak_flops, bytes / self.bandwidth)

    def bound(self, flops: float, bytes: float) -> str:
        """What limits one call: "overhead" if the roof is below it; else "compute", also where the two times
        are equal, or "memory".
        """
        # kata 16.10: ask for the overhead first.
        if self.roof_seconds(flops, bytes) < self.overhead:
            return "overhead"
        return "compute" if flops / self.peak_flops >= bytes / self.bandwidth else "memory"


def measure_roofline(
    *, side: int = 512, length: int = 1 << 24, repeat: int = 10, clock: Clock = time.process_time
) -> Roofline:
    """This machine's, in float32: by the best of `repeat` samples of each of three functions.

    The product of two matrices (side, side), 2 * side³ operations, written to an array that is there; a copy
    of an array of `length` numbers, larger than any cache, onto another, which reads 4 * length bytes and
    writes as many; and `neg` of a Tensor of one number, (1,), which is nothing but overhead.
    """
    # kata 16.10: `np.matmul` has `out=`, and `np.copyto` copies. `time_calls` for each.
    rng = np.random.default_rng(0)
    a, b, product = (rng.standard_normal((side, side), np.float32) for _ in range(3))
    source, target = np.ones(length, np.float32), np.zeros(length, np.float32)
    number = Tensor(np.ones(1, np.float32))
    calls = (lambda: np.matmul(a, b, out=product), lambda: np.copyto(target, source), lambda: neg(number))
    computing, copying, calling = (time_calls(call, repeat=repeat, clock=clock).best for call in calls)
    return Roofline(2 * side**3 / computing, 2 * source.nbytes / copying, calling)


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
    # kata 16.11: rows of `by_op`; and for each of them its events once more, call by call.
    events = list(events)
    roofs: dict[Any, float] = {}
    times: dict[Any, Counter[str]] = {}
    for event in events:
        key = event.name, event.phase
        roof = max(roofline.roof_seconds(event.flops, event.bytes), roofline.overhead)
        roofs[key] = roofs.get(key, 0.0) + roof
        bound = roofline.bound(event.flops, event.bytes)
        times.setdefault(key, Counter())[bound] += event.self_ns
    found = []
    for row in by_op(events)[:top]:
        key = row.name, row.phase
        seconds, roof = row.self_ns / 1e9, roofs[key]
        bound = times[key].most_common(1)[0][0]
        of_roof = roof / seconds if seconds else math.inf if roof else 1.0
        advice = ADVICE[bound if bound == "overhead" or of_roof >= NEAR else "far"]
        found.append(
            Bottleneck(row.name, row.phase, row.calls, row.share, seconds, roof, bound, of_roof, advice)
        )
    return found


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
    # kata 16.12: in logarithms a factor is a constant, and the best one is a mean. All draws at once: an
    # array (resamples, points) of indices, and the slope of a line for each row.
    n, cost = np.asarray(sizes, np.float64), np.asarray(costs, np.float64)
    if n.shape != cost.shape or n.ndim != 1:
        raise ValueError(f"{n.shape} sizes, but {cost.shape} costs")
    if len(np.unique(n)) < 3 or not (n >= 2).all():
        raise ValueError(f"three or more different sizes, each at least 2, are needed, not {n.tolist()}")
    if not ((cost > 0) & np.isfinite(cost)).all():
        raise ValueError(f"costs must be finite and above 0 to have a logarithm, not {cost.tolist()}")
    x, y = np.log(n), np.log(cost)
    factors, residuals = {}, {}
    for name, growth in GROWTHS.items():
        off = y - np.log(growth(n))
        factors[name] = float(np.exp(off.mean()))
        residuals[name] = float(off.std())
    best = min(residuals, key=residuals.__getitem__)
    draws = rng.integers(0, len(n), (resamples, len(n)))
    slopes = slopes_of(x[draws], y[draws])
    low, high = np.quantile(slopes[np.isfinite(slopes)], (0.025, 0.975))
    exponent = float(slopes_of(x, y))
    return Growth(best, factors[best], residuals[best], residuals, exponent, float(low), float(high))


def slopes_of(x: Array, y: Array) -> Any:
    """The slope of the least-squares line through the points of each row; nan where all x are the same.

    x and y are (..., points), and the slopes (...): of two arrays (points,) there is one.
    """
    # kata 16.12: with x less its mean, Σ xy / Σ xx.
    x = x - x.mean(axis=-1, keepdims=True)
    same = np.ptp(x, axis=-1) < 1e-9
    return (x * y).sum(axis=-1) / np.where(same, np.nan, (x * x).sum(axis=-1))


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
    # kata 16.13: sum the ranks of `a` among all, where equals share the mean of their ranks; the least sum
    # that it could be is n (n + 1) / 2. `orders` counts.
    first, second = check_samples(a), check_samples(b)
    n, m = len(first), len(second)
    _, place, counts = np.unique(np.concatenate((first, second)), return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    u = float(ranks[place[:n]].sum()) - n * (n + 1) / 2
    away, total = abs(u - n * m / 2), n + m
    if len(counts) == total and max(n, m) <= EXACT:
        ways = orders(n, m)
        far = sum(way for value, way in enumerate(ways) if abs(value - n * m / 2) >= away)
        return u, far / sum(ways)
    ties = float((counts.astype(np.float64) ** 3 - counts).sum())
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if len(counts) == 1:
        return u, 1.0
    return u, math.erfc(max(0.0, away - 0.5) / math.sqrt(2 * variance))


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
    # kata 16.13: the largest is an a, above all m b's, or a b: ways(n, m)[u] = ways(n - 1, m)[u - m] +
    # ways(n, m - 1)[u]. A table of n + 1 rows, one b after the other.
    rows = [[1]] + [[1] for _ in range(n)]
    for b in range(1, m + 1):
        for a in range(1, n + 1):
            row = rows[a] + [0] * a
            for u, ways in enumerate(rows[a - 1]):
                row[u + b] += ways
            rows[a] = row
    return rows[n]


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
    # kata 16.14: all draws of a side at once.
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence is between 0 and 1, not {confidence}")
    medians = []
    for side in map(check_samples, (before, after)):
        if not (side > 0).all():
            raise ValueError(f"a ratio of times needs samples above 0, not {side.min()}")
        medians.append(np.median(side[rng.integers(0, len(side), (resamples, len(side)))], axis=1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(medians[1] / medians[0], (tail, 1 - tail))
    return float(low), float(high)


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
    # kata 16.15: three conditions each, for a verdict that somebody will act on.
    if not threshold > 1:
        raise ValueError(f"a threshold is above 1, not {threshold}")
    low, high = bootstrap_ratio(before, after, rng=rng, confidence=1 - alpha)
    _, p = mann_whitney(before, after)
    ratio = float(np.median(after) / np.median(before))
    if ratio >= threshold and low > 1 and p < alpha:
        verdict = "slower"
    elif ratio <= 1 / threshold and high < 1 and p < alpha:
        verdict = "faster"
    else:
        verdict = "same" if 1 / threshold <= low and high <= threshold else "unsure"
    return Verdict(verdict, ratio, low, high, p)


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
    # kata 16.16: of two that begin at once, the one outside comes first.
    events = sorted(events, key=lambda event: (event.start_ns, event.depth))
    where = {"pid": 1, "tid": 1}
    trace: list[dict[str, Any]] = [
        {"name": what, "ph": "M", **where, "args": {"name": called}}
        for what, called in (("process_name", name), ("thread_name", "operations"))
    ]
    for event in events:
        args: dict[str, Any] = {
            "shapes": [list(map(int, shape)) for shape in event.shapes],
            "dtype": str(event.dtype),
            "flops": int(event.flops),
            "bytes": int(event.bytes),
            "self_us": event.self_ns / 1000,
        }
        if event.peak_bytes is not None:
            args["peak_bytes"] = int(event.peak_bytes)
        start, duration = (event.start_ns - events[0].start_ns) / 1000, event.duration_ns / 1000
        trace.append(
            {"name": event.name, "cat": event.phase, "ph": "X", "ts": start, "dur": duration, **where}
            | {"args": args}
        )
    return {"displayTimeUnit": "ms", "traceEvents": trace}


def write_trace(path: str | os.PathLike[str], events: Iterable[Event], name: str = "tinytorch") -> None:
    """Write `chrome_trace(events, name)` to a file of JSON, in UTF-8: whole, or not at all.

    If anything goes wrong, what was at `path` is still there, and nothing new beside it.
    """
    # kata 16.16: as in kata 05.17: another name in the same folder, then `os.replace`.
    path = os.fspath(path)
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(chrome_trace(events, name), file)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
