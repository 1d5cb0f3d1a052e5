"""Kata 16 in another manner: all profilers share one function in the place of `Op.__call__` and one for each
rule; peaks are handed up when a reading closes; ranks are found by searching, orders by dividing polynomials.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import math
import os
import statistics
import tempfile
import threading
import time
import tracemalloc
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch.layers import Module
from tinytorch.setup import gc_paused, table
from tinytorch.tensor import Op, Tensor, neg

__all__ = [
    "Bottleneck", "Event", "Growth", "MemoryProfiler", "ModuleRow", "OpProfiler", "OpRow", "Peaks", "Phase",
    "Roofline", "Timing", "Verdict", "bootstrap_ratio", "bottlenecks", "by_op", "chrome_trace", "cost_rule",
    "detect_regression", "fit_growth", "mann_whitney", "measure_roofline", "op_bytes", "op_flops",
    "profile_modules", "time_calls", "time_turns", "write_trace",
]  # fmt: skip

SHORTEST = max(1e-3, 10 * time.get_clock_info("process_time").resolution)
MOST_CALLS = 1 << 20


@dataclass(frozen=True)
class Timing:
    samples: Any
    inner: int = 1

    def __post_init__(self) -> None:
        if len(self.samples) == 0:
            raise ValueError("no samples")

    def quantile(self, q: float) -> float:
        if not (q >= 0 and q <= 1):
            raise ValueError(f"q = {q}")
        return float(np.quantile(np.asarray(self.samples, np.float64), q))

    @property
    def best(self) -> float:
        return float(np.min(self.samples))

    @property
    def median(self) -> float:
        return float(statistics.median(self.samples))

    @property
    def mean(self) -> float:
        return float(np.mean(self.samples))

    @property
    def spread(self) -> float:
        low, middle, high = np.quantile(self.samples, [0.25, 0.5, 0.75])
        if high == low:
            return 0.0
        return math.inf if middle == 0 else float((high - low) / middle)


def time_turns(
    *functions: Any,
    repeat: int = 20,
    inner: int | None = None,
    shortest: float = SHORTEST,
    clock: Any = time.process_time,
) -> list[Timing]:
    for name, value in (("repeat", repeat), ("inner", inner)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}")

    def seconds(function: Any, calls: int) -> float:
        begin = clock()
        for _ in itertools.repeat(None, calls):
            function()
        return clock() - begin

    def find(function: Any) -> int:
        for power in range(MOST_CALLS.bit_length() - 1):
            if seconds(function, 1 << power) >= shortest:
                return 1 << power
        return MOST_CALLS

    found: dict[int, list[float]] = {i: [] for i in range(len(functions))}
    counts = []
    with gc_paused():
        for function in functions:
            function()
            counts.append(find(function) if inner is None else inner)
        for turn in range(repeat):
            order = list(found) if turn % 2 == 0 else list(found)[::-1]
            for i in order:
                found[i].append(seconds(functions[i], counts[i]) / counts[i])
    return [Timing(tuple(found[i]), counts[i]) for i in found]


def time_calls(function: Any, **options: Any) -> Timing:
    return time_turns(function, **options)[0]


class Peaks:
    """Only the innermost reading is kept up to date; what it saw goes to the one around it when it closes."""

    def __init__(self) -> None:
        self.open: list[list[int]] = []

    def begin(self) -> int:
        held, peak = tracemalloc.get_traced_memory()
        if self.open:
            self.open[-1][1] = max(self.open[-1][1], peak)
        tracemalloc.reset_peak()
        self.open.append([held, held])
        return held

    def end(self) -> tuple[int, int]:
        held, peak = tracemalloc.get_traced_memory()
        begin, worst = self.open.pop()
        worst = max(worst, peak)
        if self.open:
            self.open[-1][1] = max(self.open[-1][1], worst)
        tracemalloc.reset_peak()
        return worst - begin, held - begin


class tracing(contextlib.AbstractContextManager):
    def __enter__(self) -> None:
        self.mine = not tracemalloc.is_tracing()
        if self.mine:
            tracemalloc.start()

    def __exit__(self, *error: object) -> None:
        if self.mine:
            tracemalloc.stop()


Phase = namedtuple("Phase", "name depth begin peak retained")


class MemoryProfiler:
    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._running = False

    @property
    def phases(self) -> list[Any]:
        return [Phase(**row) for row in self._rows]

    def __enter__(self) -> MemoryProfiler:
        if self._running:
            raise RuntimeError("running")
        self._rows = []
        self._running = True
        self._tracing = tracing()
        self._tracing.__enter__()
        gc.collect()
        self._peaks, self._depth = Peaks(), 0
        self._zero = tracemalloc.get_traced_memory()[0]
        return self

    def __exit__(self, *error: object) -> None:
        self._running = False
        self._tracing.__exit__()

    @contextlib.contextmanager
    def phase(self, name: str) -> Any:
        if not self._running:
            raise RuntimeError(f"{name} is outside")
        row: dict[str, Any] = {"name": name, "depth": self._depth, "begin": 0, "peak": 0, "retained": 0}
        self._rows.append(row)
        self._depth += 1
        row["begin"] = self._peaks.begin() - self._zero
        try:
            yield
        finally:
            self._depth -= 1
            gc.collect()
            row["peak"], row["retained"] = self._peaks.end()


_cost_rules: dict[str, Any] = {}
FREE = (
    "reshape", "view", "contiguous", "transpose", "permute", "squeeze", "unsqueeze", "expand", "getitem",
    "join", "embedding", "checkpointed",
)  # fmt: skip
PER_ELEMENT = dict.fromkeys(FREE, 0) | {
    "total": 1, "mean": 1, "amax": 1, "amin": 1, "argmax": 1, "var": 4, "leaky_relu": 2, "leaky_relu_": 2,
    "sigmoid": 4, "sigmoid_": 4, "gelu": 7, "softmax": 5, "log_softmax": 5, "cross_entropy": 5, "dropout": 2,
    "rotary": 3, "mse_loss": 3, "layer_norm": 7, "rms_norm": 4,
}  # fmt: skip


def cost_rule(*names: str) -> Any:
    def attach(rule: Any) -> Any:
        for name in names:
            _cost_rules[name] = rule
        return rule

    return attach


def bare(inputs: Any) -> list[Any]:
    return [getattr(x, "data", x) if isinstance(x, Tensor) else x for x in inputs]


def op_flops(op: Op, arrays: Any, params: Any, out: Any) -> int:
    arrays, out = bare(arrays), np.asarray(out.data if isinstance(out, Tensor) else out)
    rule = _cost_rules.get(op.name)
    if rule is None:
        each = PER_ELEMENT.get(op.name)
        return int(out.size if each is None else each * np.asarray(arrays[0]).size)
    everything = dict(op.params)
    everything.update(params)
    return int(rule(arrays, everything, out))


@cost_rule("matmul")
def matmul_flops(arrays: Any, params: Any, out: Any) -> int:
    a, b = map(np.asarray, arrays[:2])
    rows = a.shape[-2] if a.ndim > 1 else 1
    columns = b.shape[-1] if b.ndim > 1 else 1
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return 2 * math.prod(batch) * rows * a.shape[-1] * columns


@cost_rule("affine")
def affine_flops(arrays: Any, params: Any, out: Any) -> int:
    x, weight, bias = (*map(np.asarray, arrays[:2]), *arrays[2:], None)[:3]
    rows = math.prod(x.shape[:-1])
    return 2 * rows * weight.size + (0 if bias is None else rows * len(weight))


@cost_rule("conv2d")
def conv2d_flops(arrays: Any, params: Any, out: Any) -> int:
    weight, bias = np.asarray(arrays[1]), (*arrays, None)[2]
    pixels = out.shape[0] * out.shape[2] * out.shape[3]
    return 2 * pixels * weight.size + (pixels * len(weight) if bias is not None else 0)


@cost_rule("max_pool2d", "avg_pool2d")
def pool_flops(arrays: Any, params: Any, out: Any) -> int:
    height, width = np.broadcast_to(params["kernel"], 2).tolist()
    return out.size * height * width


@cost_rule("batch_norm")
def batch_norm_flops(arrays: Any, params: Any, out: Any) -> int:
    return arrays[0].size * (3 + 4 * bool(params["training"]))


@cost_rule("fused_attention")
def attention_flops(arrays: Any, params: Any, out: Any) -> int:
    (b, h, queries, d), keys, e = arrays[0].shape, arrays[1].shape[2], arrays[2].shape[3]
    seen = np.full(queries, keys)
    if params["is_causal"]:
        seen = np.clip(np.arange(1, queries + 1) + keys - queries, 0, keys)
    return int(b * h * seen.sum() * (2 * (d + e) + 5))


def op_bytes(op: Op, arrays: Any, params: Any, out: Any) -> int:
    arrays, out = bare(arrays), np.asarray(out.data if isinstance(out, Tensor) else out)
    written = stored_bytes(out)
    views = (
        "reshape",
        "view",
        "contiguous",
        "transpose",
        "permute",
        "squeeze",
        "unsqueeze",
        "expand",
        "getitem",
    )
    if op.name in views:
        if isinstance(arrays[0], np.ndarray) and np.shares_memory(out, arrays[0]):
            return 0
        read = written if op.name == "getitem" else stored_bytes(arrays[0])
    elif op.name == "embedding":
        read = written + sum(map(stored_bytes, arrays[1:]))
    else:
        read = sum(map(stored_bytes, arrays))
    return read + written + sum(map(stored_bytes, bare(params.values())))


def stored_bytes(x: Any) -> int:
    if not isinstance(x, np.ndarray):
        return 0
    once = x[
        tuple(
            slice(0, 1) if step == 0 and n else slice(None)
            for n, step in zip(x.shape, x.strides, strict=True)
        )
    ]
    return once.size * x.itemsize


Event = namedtuple(
    "Event", "name phase start_ns duration_ns shapes dtype flops bytes peak_bytes depth self_ns"
)
Span = namedtuple("Span", "start duration own depth peak")


class Stopwatch:
    """Each open call has a number; what a call took is booked for the call around it, by that number."""

    def __init__(self, clock: Any, memory: bool) -> None:
        self.clock, self.memory = clock, memory
        self._depth = 0
        self._booked: dict[int, int] = {}
        self._peaks = Peaks()

    def time(self, function: Any, *args: Any, **options: Any) -> tuple[Any, Any]:
        depth = self._depth
        self._booked[depth] = 0
        self._depth = depth + 1
        peak = None
        if self.memory:
            self._peaks.begin()
        try:
            begin = self.clock()
            result = function(*args, **options)
            end = self.clock()
        finally:
            self._depth = depth
            inside = self._booked.pop(depth)
            if self.memory:
                peak = self._peaks.end()[0]
        if depth:
            self._booked[depth - 1] += end - begin
        return result, Span(begin, end - begin, end - begin - inside, depth, peak)


_running: list[OpProfiler] = []
_true: dict[Any, Any] = {}  # what was in its place, of Op (its __call__) and of each op (its pull)
_mine: dict[Any, Any] = {}


def _nested(profilers: list[OpProfiler], call: Any, note: Any) -> Any:
    """`call()`, timed by each of the profilers, the last one outermost."""
    here = [p for p in profilers if p._thread == threading.get_ident()]
    spans = []
    for profiler in here:

        def timed(call: Any = call, profiler: Any = profiler) -> Any:
            result, span = profiler._watch.time(call)
            spans.append((profiler, span))
            return result

        call = timed
    result = call()
    for profiler, span in spans:
        note(profiler, span, result)
    return result


def _shared_call(op: Op, *inputs: Any, **params: Any) -> Any:
    def note(profiler: OpProfiler, span: Any, out: Tensor) -> None:
        flops, moved = op_flops(op, inputs, params, out), op_bytes(op, inputs, params, out)
        shapes = tuple(x.shape for x in bare(inputs) if isinstance(x, np.ndarray))
        profiler._add(op.name, "forward", span, shapes, out.dtype, flops, moved)
        kept = getattr(out.node, "kept", None)
        if kept is not None:
            profiler._costs[(op, out.shape, tuple(map(id, kept)))] = (2 * flops, 2 * moved)
        profiler._seen.add(op)

    out = _nested(_running, lambda: _true[Op](op, *inputs, **params), note)
    if op.pull is not None and op not in _mine and _running:
        _watch_rule(op)
    return out


def _watch_rule(op: Op) -> None:
    pull = op.pull
    assert pull is not None

    def shared_pull(grad: Any, *kept: Any) -> Any:
        def note(profiler: OpProfiler, span: Any, result: Any) -> None:
            flops, moved = profiler._costs.get((op, grad.shape, tuple(map(id, kept))), (0, 0))
            profiler._add(op.name, "backward", span, (grad.shape,), grad.dtype, flops, moved)

        watching = [p for p in _running if op in p._seen]
        return _nested(watching, lambda: pull(grad, *kept), note)

    _true[op], _mine[op] = pull, shared_pull
    op.pull = shared_pull


class OpProfiler:
    def __init__(self, memory: bool = False, clock: Any = time.perf_counter_ns) -> None:
        self.events: list[Any] = []
        self.memory, self.clock = memory, clock

    def __enter__(self) -> OpProfiler:
        if self in _running:
            raise RuntimeError("running")
        self._thread = threading.get_ident()
        self._watch = Stopwatch(self.clock, self.memory)
        self._costs: dict[Any, Any] = {}
        self._seen: set[Op] = set()
        self._tracing: Any = tracing() if self.memory else contextlib.nullcontext()
        self._tracing.__enter__()
        if not _running:
            _true[Op] = Op.__call__
            Op.__call__ = _shared_call  # type: ignore[method-assign]
        _running.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _running.remove(self)
        self._costs = {}
        if not _running:
            Op.__call__ = _true.pop(Op)  # type: ignore[method-assign]
            for op, mine in _mine.items():
                if op.pull is mine:
                    op.pull = _true[op]
            _true.clear()
            _mine.clear()
        self._tracing.__exit__(None, None, None)

    def _add(self, name: str, phase: str, span: Any, shapes: Any, dtype: Any, flops: int, moved: int) -> None:
        row = Event(
            name,
            phase,
            span.start,
            span.duration,
            shapes,
            dtype,
            flops,
            moved,
            span.peak,
            span.depth,
            span.own,
        )
        self.events.append(row)

    def table(self) -> Any:
        rows: list[dict[str, object]] = [
            {
                "op": row.name, "phase": row.phase, "calls": row.calls, "total ms": row.total_ns / 1e6,
                "self ms": row.self_ns / 1e6, "share": f"{row.share:.1%}", "MFLOP": row.flops / 1e6,
                "MB": row.bytes / 1e6, "GFLOP/s": row.rate / 1e9,
            }
            for row in by_op(self.events)
        ]  # fmt: skip
        return table("operations", rows)


class OpRow(namedtuple("OpRow", "name phase calls total_ns self_ns share flops bytes peak_bytes")):
    @property
    def rate(self) -> float:
        return 0.0 if self.self_ns == 0 else 1e9 * self.flops / self.self_ns


def by_op(events: Any) -> list[Any]:
    sums: dict[Any, list[Any]] = {}
    whole = 0
    for e in events:
        row = sums.setdefault((e.name, e.phase), [0, 0, 0, 0, 0, None])
        for i, value in enumerate((1, e.duration_ns, e.self_ns, e.flops, e.bytes)):
            row[i] += value
        if e.peak_bytes is not None:
            row[5] = e.peak_bytes if row[5] is None else max(row[5], e.peak_bytes)
        whole += e.self_ns
    rows = [
        OpRow(*key, calls, total, own, own / whole if whole else 0.0, flops, moved, peak)
        for key, (calls, total, own, flops, moved, peak) in sums.items()
    ]
    rows.sort(key=lambda row: row.self_ns, reverse=True)  # stable, also in reverse
    return rows


ModuleRow = namedtuple("ModuleRow", "path kind calls total_ns self_ns peak_bytes")


def profile_modules(
    model: Module, *inputs: Any, memory: bool = False, clock: Any = time.perf_counter_ns
) -> Any:
    """A subtotal for each module, and a stack of the time that modules below took."""
    names = {module: path for path, module in model.named_modules()}
    table: dict[Any, list[Any]] = {module: [0, 0, 0, None] for module in names}
    below: list[int] = []
    peaks, true = Peaks(), Module.__call__

    def timed(module: Module, *args: Any, **options: Any) -> Any:
        row = table.get(module)
        if row is None:
            return true(module, *args, **options)
        below.append(0)
        if memory:
            peaks.begin()
        begin = clock()
        out = true(module, *args, **options)
        took = clock() - begin
        row[0], row[1], row[2] = row[0] + 1, row[1] + took, row[2] + took - below.pop()
        if memory:
            row[3] = max(row[3] or 0, peaks.end()[0])
        if below:
            below[-1] += took
        return out

    with contextlib.ExitStack() as stack:
        if memory:
            stack.enter_context(tracing())
        stack.callback(setattr, Module, "__call__", true)
        Module.__call__ = timed  # type: ignore[method-assign]
        model(*inputs)
    return [ModuleRow(names[m], m.__class__.__name__, *row) for m, row in table.items() if row[0]]


@dataclass(frozen=True)
class Roofline:
    peak_flops: float
    bandwidth: float
    overhead: float = 0.0

    def __post_init__(self) -> None:
        if self.peak_flops <= 0 or self.bandwidth <= 0 or self.overhead < 0:
            raise ValueError("no machine")

    @property
    def ridge(self) -> float:
        return self.peak_flops / self.bandwidth

    def attainable(self, intensity: float) -> float:
        return self.peak_flops if intensity >= self.ridge else self.bandwidth * intensity

    def roof_seconds(self, flops: float, bytes: float) -> float:
        computing, fetching = flops / self.peak_flops, bytes / self.bandwidth
        return computing if computing > fetching else fetching

    def bound(self, flops: float, bytes: float) -> str:
        limits = {"memory": bytes / self.bandwidth, "compute": flops / self.peak_flops}
        worst = "compute" if limits["compute"] >= limits["memory"] else "memory"
        return worst if limits[worst] >= self.overhead else "overhead"


def measure_roofline(
    *, side: int = 512, length: int = 1 << 24, repeat: int = 10, clock: Any = time.process_time
) -> Any:
    a = np.full((side, side), 0.5, np.float32)
    b, c = a.T.copy(), np.empty_like(a)
    here, there = np.zeros(length, np.float32), np.ones(length, np.float32)
    one = Tensor(np.zeros(1, np.float32))

    def multiply() -> None:
        np.dot(a, b, out=c)

    def copy() -> None:
        there[:] = here

    found = [time_calls(call, repeat=repeat, clock=clock).best for call in (multiply, copy, lambda: neg(one))]
    return Roofline(2.0 * side * side * side / found[0], 8.0 * length / found[1], found[2])


Bottleneck = namedtuple("Bottleneck", "name phase calls share seconds roof bound of_roof advice")
NEAR = 0.5
ADVICE = {"overhead": "larger batches", "memory": "fuse", "compute": "compute less", "far": "look for copies"}


def bottlenecks(events: Any, roofline: Roofline, top: int = 5) -> list[Any]:
    events = list(events)
    found = []
    for row in by_op(events)[:top]:
        mine = [e for e in events if e.name == row.name and e.phase == row.phase]
        roof = math.fsum(max(roofline.roof_seconds(e.flops, e.bytes), roofline.overhead) for e in mine)
        shares = {"overhead": 0, "memory": 0, "compute": 0}
        firsts = []
        for e in mine:
            bound = roofline.bound(e.flops, e.bytes)
            firsts.append(bound)
            shares[bound] += e.self_ns
        bound = max(dict.fromkeys(firsts), key=shares.__getitem__)
        seconds = row.self_ns * 1e-9
        part = roof / seconds if seconds > 0 else (1.0 if roof == 0 else math.inf)
        kind = bound if part >= NEAR or bound == "overhead" else "far"
        found.append(
            Bottleneck(row.name, row.phase, row.calls, row.share, seconds, roof, bound, part, ADVICE[kind])
        )
    return found


GROWTHS = {
    "1": lambda n: n * 0 + 1,
    "log n": np.log,
    "n": lambda n: n,
    "n log n": lambda n: n * np.log(n),
    "n^2": lambda n: n * n,
    "n^3": lambda n: n * n * n,
}
Growth = namedtuple("Growth", "name factor residual residuals exponent low high")


def fit_growth(sizes: Any, costs: Any, *, rng: Any, resamples: int = 1000) -> Any:
    n, cost = np.array(sizes, np.float64), np.array(costs, np.float64)
    if n.shape != cost.shape:
        raise ValueError(f"{len(n)} sizes and {len(cost)} costs")
    if len(set(n.tolist())) < 3 or n.min() < 2:
        raise ValueError(f"sizes {n.tolist()}")
    if not np.all(np.isfinite(cost)) or cost.min() <= 0:
        raise ValueError(f"costs {cost.tolist()}")
    fits = {}
    for name, growth in GROWTHS.items():
        ratio = np.log(cost / growth(n))
        fits[name] = (float(np.sqrt(np.mean((ratio - np.mean(ratio)) ** 2))), float(np.exp(np.mean(ratio))))
    name = min(fits, key=lambda name: fits[name][0])
    x, y = np.log(n), np.log(cost)
    slopes = []
    while len(slopes) < resamples:
        picks = rng.integers(0, len(n), (resamples, len(n)))
        found = slopes_of(x[picks], y[picks])
        slopes += found[~np.isnan(found)].tolist()
    low, high = np.percentile(slopes[:resamples], [2.5, 97.5])
    residuals = {name: fit[0] for name, fit in fits.items()}
    line = float(np.polyfit(x, y, 1)[0])
    return Growth(name, fits[name][1], fits[name][0], residuals, line, float(low), float(high))


def slopes_of(x: Any, y: Any) -> Any:
    """Covariance over variance."""
    mx, my = np.mean(x, axis=-1, keepdims=True), np.mean(y, axis=-1, keepdims=True)
    top = np.mean((x - mx) * (y - my), axis=-1)
    bottom = np.mean((x - mx) ** 2, axis=-1)
    apart = np.max(x, axis=-1) > np.min(x, axis=-1)
    return np.where(apart, top / np.where(apart, bottom, 1.0), np.nan)


EXACT = 20


def mann_whitney(a: Any, b: Any) -> tuple[float, float]:
    first, second = check_samples(a), np.sort(check_samples(b))
    n, m = len(first), len(second)
    u = float((np.searchsorted(second, first, "left") + np.searchsorted(second, first, "right")).sum()) / 2
    everything = np.sort(np.concatenate([first, second]))
    edges = np.flatnonzero(np.diff(everything)) + 1
    groups = np.diff(np.concatenate([[0], edges, [n + m]])).astype(np.float64)
    if len(groups) == n + m and n <= EXACT and m <= EXACT:
        ways = orders(n, m)
        low = int(min(u, n * m - u))
        return u, min(1.0, 2 * sum(ways[: low + 1]) / math.comb(n + m, n))
    if len(groups) == 1:
        return u, 1.0
    total = n + m
    variance = n * m * ((total + 1) - (groups**3 - groups).sum() / total / (total - 1)) / 12
    z = (abs(u - n * m / 2) - 0.5) / variance**0.5
    return u, min(1.0, math.erfc(z / 2**0.5))


def check_samples(samples: Any) -> Any:
    array = np.array(samples, np.float64)
    if array.size == 0 or np.isnan(array).any():
        raise ValueError(f"samples {array}")
    return array


def orders(n: int, m: int) -> list[int]:
    """The product of (1 - q^(m + i)) / (1 - q^i) for i = 1 ... n, one factor after the other."""
    ways = [1] + [0] * (n * m)
    for i in range(1, n + 1):
        for u in range(n * m, m + i - 1, -1):
            ways[u] -= ways[u - m - i]
        for u in range(i, n * m + 1):
            ways[u] += ways[u - i]
    return ways


def bootstrap_ratio(
    before: Any, after: Any, *, rng: Any, resamples: int = 2000, confidence: float = 0.95
) -> Any:
    if confidence <= 0 or confidence >= 1:
        raise ValueError(f"confidence {confidence}")
    sides = [check_samples(before), check_samples(after)]
    for side in sides:
        if side.min() <= 0:
            raise ValueError(f"a sample of {side.min()}")
    below, above = (np.median(rng.choice(side, (resamples, len(side))), axis=1) for side in sides)
    ratios = np.sort(above / below)
    edge = 50 * (1 - confidence)
    low, high = np.percentile(ratios, [edge, 100 - edge])
    return float(low), float(high)


Verdict = namedtuple("Verdict", "verdict ratio low high p")


def detect_regression(
    before: Any, after: Any, *, threshold: float = 1.05, alpha: float = 0.01, rng: Any
) -> Any:
    if threshold <= 1 or math.isnan(threshold):
        raise ValueError(f"threshold {threshold}")
    low, high = bootstrap_ratio(before, after, rng=rng, confidence=1 - alpha)
    p = mann_whitney(after, before)[1]
    ratio = float(np.median(after)) / float(np.median(before))
    certain = p < alpha
    verdict = "unsure"
    if certain and low > 1 and ratio >= threshold:
        verdict = "slower"
    elif certain and high < 1 and ratio <= 1 / threshold:
        verdict = "faster"
    elif low >= 1 / threshold and high <= threshold:
        verdict = "same"
    return Verdict(verdict, ratio, low, high, p)


def chrome_trace(events: Any, name: str = "tinytorch") -> dict[str, Any]:
    events = list(events)
    first = min((e.start_ns for e in events), default=0)
    drawn = []
    for e in events:
        args = {
            "shapes": [[int(n) for n in shape] for shape in e.shapes],
            "dtype": np.dtype(e.dtype).name,
            "flops": int(e.flops),
            "bytes": int(e.bytes),
            "self_us": e.self_ns / 1000,
        }
        args |= {} if e.peak_bytes is None else {"peak_bytes": int(e.peak_bytes)}
        one = {"name": e.name, "cat": e.phase, "ph": "X", "pid": 1, "tid": 1, "args": args}
        one |= {"ts": (e.start_ns - first) / 1000, "dur": e.duration_ns / 1000}
        drawn.append((e.start_ns, e.depth, len(drawn), one))
    about = [
        {"name": what, "ph": "M", "pid": 1, "tid": 1, "args": {"name": value}}
        for what, value in zip(("process_name", "thread_name"), (name, "operations"), strict=True)
    ]
    return {
        "displayTimeUnit": "ms",
        "traceEvents": about + [row[-1] for row in sorted(drawn, key=lambda r: r[:3])],
    }


def write_trace(path: Any, events: Any, name: str = "tinytorch") -> None:
    text = json.dumps(chrome_trace(events, name), ensure_ascii=False)
    folder = os.path.dirname(os.path.abspath(path))
    handle, beside = tempfile.mkstemp(dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(beside, path)
    finally:
        if os.path.exists(beside):
            os.remove(beside)
