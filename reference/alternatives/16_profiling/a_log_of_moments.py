"""Kata 16 in another manner: peaks are read off a log of moments, rules are watched by objects, every class
of a model is watched on its own, growth is fitted with weights, and ranks are counted by sums of subsets.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import os
import pathlib
import threading
import time
import tracemalloc
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from tinytorch.layers import Module
from tinytorch.setup import gc_paused, table
from tinytorch.tensor import Op, Tensor, as_array, neg

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
        if not len(self.samples):
            raise ValueError("no samples")

    def quantile(self, q: float) -> float:
        if math.isnan(q) or q < 0 or q > 1:
            raise ValueError(f"quantile {q}")
        ordered = np.sort(self.samples)
        whole, part = divmod(q * (len(ordered) - 1), 1)
        weights = np.zeros(len(ordered) + 1)
        weights[int(whole)], weights[int(whole) + 1] = 1 - part, part
        return float(weights[:-1] @ ordered)

    best = property(lambda self: self.quantile(0))
    median = property(lambda self: self.quantile(0.5))
    mean = property(lambda self: sum(self.samples) / len(self.samples))

    @property
    def spread(self) -> float:
        width = self.quantile(3 / 4) - self.quantile(1 / 4)
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.nan_to_num(np.float64(width) / self.median, nan=0.0, posinf=math.inf))


def time_turns(*functions, repeat=20, inner=None, shortest=SHORTEST, clock=time.process_time):
    if repeat < 1:
        raise ValueError(f"repeat must be at least 1, not {repeat}")
    if inner is not None and inner < 1:
        raise ValueError(f"inner must be at least 1, not {inner}")

    @contextmanager
    def watch(into):
        begin = clock()
        yield
        into.append(clock() - begin)

    def sample(function, calls, into):
        with watch(into):
            for _ in range(calls):
                function()

    with gc_paused():
        jobs = []
        for function in functions:
            function()
            calls, took = inner or 1, []
            if inner is None:
                sample(function, 1, took)
                while took[-1] < shortest and calls < MOST_CALLS:
                    calls += calls
                    sample(function, calls, took)
            jobs.append((function, calls, []))
        for _, order in zip(range(repeat), itertools.cycle([jobs, jobs[::-1]]), strict=False):
            for job in order:
                sample(*job)
    return [Timing(tuple(t / calls for t in took), calls) for _, calls, took in jobs]


def time_calls(function, **options):
    (timing,) = time_turns(function, **options)
    return timing


class Peaks:
    """A log of (bytes now, most since the moment before), as long as a reading is open."""

    def __init__(self):
        self.log, self.open = [], []

    def _moment(self):
        now, peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        self.log.append((now, peak))
        return now

    def begin(self):
        if not self.open:
            self.log.clear()
        now = self._moment()
        self.open.append(len(self.log))
        return now

    def end(self):
        now = self._moment()
        start = self.open.pop()
        before = self.log[start - 1][0]
        worst = max(peak for _, peak in self.log[start:])
        self.log[start:] = [(now, worst)]  # what is over can be said in one line
        return max(worst, before) - before, now - before


@contextmanager
def tracing():
    already = tracemalloc.is_tracing()
    if already:
        yield
        return
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


class Phase(NamedTuple):
    name: str
    depth: int
    begin: int
    peak: int
    retained: int


class MemoryProfiler:
    def __init__(self):
        self.phases = []
        self._stack = None

    def __enter__(self):
        if self._stack is not None:
            raise RuntimeError("is running")
        self._stack = ExitStack()
        self._stack.enter_context(tracing())
        gc.collect()
        self._found, self._peaks, self._number, self._depth = {}, Peaks(), itertools.count(), 0
        self.phases.clear()
        self._peaks.begin()
        self._before = tracemalloc.get_traced_memory()[0]
        return self

    def __exit__(self, *error):
        stack, self._stack = self._stack, None
        stack.close()

    def phase(self, name):
        if self._stack is None:
            raise RuntimeError(f"phase {name}: not inside")
        return self._phase(name)

    @contextmanager
    def _phase(self, name):
        number, depth = next(self._number), self._depth
        self._depth += 1
        begin = self._peaks.begin()
        try:
            yield
        finally:
            self._depth -= 1
            gc.collect()
            self._found[number] = Phase(name, depth, begin - self._before, *self._peaks.end())
            self.phases[:] = [self._found[i] for i in sorted(self._found)]


_rules: dict[str, Any] = {}


def cost_rule(*names):
    def attach(rule):
        for name in names:
            _rules[name] = rule
        return rule

    return attach


def _each(count):
    return lambda arrays, params, out: count * np.asarray(arrays[0]).size


VIEWS = ["reshape", "view", "contiguous", "transpose", "permute", "squeeze", "unsqueeze", "expand", "getitem"]
for _count, _names in {
    0: " ".join([*VIEWS, "join embedding checkpointed"]),
    1: "total mean amax amin argmax",
    2: "leaky_relu leaky_relu_ dropout",
    3: "rotary mse_loss",
    4: "var sigmoid sigmoid_ rms_norm",
    5: "softmax log_softmax cross_entropy",
    7: "gelu layer_norm",
}.items():
    cost_rule(*_names.split(" "))(_each(_count))


def _bare(x):
    return x.data if isinstance(x, Tensor) else x


def op_flops(op, arrays, params, out):
    rule = _rules.get(op.name, lambda arrays, params, out: out.size)
    return int(rule([_bare(x) for x in arrays], op.params | dict(params), as_array(_bare(out))))


@cost_rule("matmul", "affine")
def _product(arrays, params, out):
    steps = 2 * out.size * np.shape(arrays[0])[-1]
    return steps + out.size * sum(bias is not None for bias in arrays[2:3])


@cost_rule("conv2d")
def _convolution(arrays, params, out):
    kernel = np.size(arrays[1][0])
    return (2 * kernel + sum(bias is not None for bias in arrays[2:3])) * out.size


@cost_rule("max_pool2d", "avg_pool2d")
def _pool(arrays, params, out):
    kernel = params["kernel"]
    height, width = kernel if isinstance(kernel, (tuple, list)) else (kernel, kernel)
    return height * width * out.size


@cost_rule("batch_norm")
def _batch_norm(arrays, params, out):
    return out.size * 7 if params["training"] else out.size * 3


@cost_rule("fused_attention")
def _attention(arrays, params, out):
    q, k, v = (x.shape for x in arrays[:3])
    unseen = 0
    if params["is_causal"]:
        late = q[2] - k[2]  # queries that see nothing, if above 0
        unseen = q[2] * (q[2] - 1) // 2 if late <= 0 else late * k[2] + k[2] * (k[2] - 1) // 2
    return q[0] * q[1] * (q[2] * k[2] - unseen) * (2 * q[3] + 2 * v[3] + 5)


def op_bytes(op, arrays, params, out):
    first, *others = [_bare(x) for x in arrays]
    out = as_array(_bare(out))
    if op.name in VIEWS and type(first) is np.ndarray and np.may_share_memory(first, out):
        return 0
    if op.name in {"embedding", "getitem"}:
        first = out
    return sum(stored_bytes(x) for x in [first, *others, *map(_bare, params.values()), out])


def stored_bytes(x):
    if type(x) is not np.ndarray or x.size == 0:
        return 0
    size = x.itemsize
    for n, step in zip(x.shape, x.strides, strict=True):
        size *= n if step else 1
    return size


class Event(NamedTuple):
    name: str
    phase: str
    start_ns: int
    duration_ns: int
    shapes: Any
    dtype: Any
    flops: int
    bytes: int
    peak_bytes: Any
    depth: int
    self_ns: int


class Span(NamedTuple):
    start: int
    duration: int
    own: int
    depth: int
    peak: Any


class Stopwatch:
    """`done` holds (depth, duration) of calls that are over and not yet taken off by the one around them."""

    def __init__(self, clock, memory):
        self.clock, self.done, self.depth = clock, [], 0
        self.peaks = Peaks() if memory else None

    def time(self, function, /, *args, **options):
        depth, mark, peak = self.depth, len(self.done), None
        self.depth += 1
        if self.peaks:
            self.peaks.begin()
        try:
            begin = self.clock()
            result = function(*args, **options)
            took = self.clock() - begin
        except BaseException:
            del self.done[mark:]
            raise
        finally:
            self.depth = depth
            if self.peaks:
                peak, _ = self.peaks.end()
        own = took - sum(self.done[mark:])
        self.done[mark:] = [took] if depth else []
        return result, Span(begin, took, own, depth, peak)


class _WatchedRule:
    def __init__(self, op, profiler):
        self.op, self.profiler, self.pull = op, profiler, op.pull

    def __call__(self, grad, *kept):
        profiler = self.profiler
        if not profiler._sees():
            return self.pull(grad, *kept)
        shares, span = profiler._watch.time(self.pull, grad, *kept)
        found = profiler._known[self.op].get((grad.shape, tuple(id(k) for k in kept)), (0, 0))
        profiler.events.append(profiler._event(self.op, "backward", span, [grad], grad, *found))
        return shares

    def put_back(self):
        if self.op.pull is self:
            self.op.pull = self.pull


class OpProfiler:
    def __init__(self, memory=False, clock=time.perf_counter_ns):
        self.memory, self.clock, self.events = memory, clock, []
        self._inside = None

    def _sees(self):
        return self._inside is not None and self._thread is threading.current_thread()

    def __enter__(self):
        if self._inside is not None:
            raise RuntimeError("is running")
        self._thread = threading.current_thread()
        self._rules, self._known = {}, defaultdict(dict)
        self._watch = Stopwatch(self.clock, self.memory)
        with ExitStack() as stack:
            if self.memory:
                stack.enter_context(tracing())
            stack.enter_context(mock.patch.object(Op, "__call__", self._instead_of(Op.__call__)))
            self._inside = stack.pop_all()
        return self

    def __exit__(self, *error):
        inside, self._inside = self._inside, None
        for rule in self._rules.values():
            rule.put_back()
        self._known.clear()
        inside.close()

    def _instead_of(self, call):
        def watched(op, /, *inputs, **params):
            if not self._sees():
                return call(op, *inputs, **params)
            out, span = self._watch.time(call, op, *inputs, **params)
            cost = op_flops(op, inputs, params, out), op_bytes(op, inputs, params, out)
            self.events.append(self._event(op, "forward", span, inputs, out, *cost))
            kept = getattr(out.node, "kept", None)
            if kept is not None:
                self._known[op][out.shape, tuple(id(k) for k in kept)] = tuple(2 * c for c in cost)
            if op.pull is not None and op not in self._rules:
                self._rules[op] = op.pull = _WatchedRule(op, self)
            return out

        return watched

    def _event(self, op, phase, span, inputs, out, flops, moved):
        shapes = tuple(x.shape for x in map(_bare, inputs) if isinstance(x, np.ndarray))
        return Event(
            name=op.name, phase=phase, shapes=shapes, dtype=out.dtype, flops=flops, bytes=moved,
            start_ns=span.start, duration_ns=span.duration, self_ns=span.own, depth=span.depth,
            peak_bytes=span.peak,
        )  # fmt: skip

    def table(self):
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
    name: str
    phase: str
    calls: int
    total_ns: int
    self_ns: int
    share: float
    flops: int
    bytes: int
    peak_bytes: Any

    @property
    def rate(self):
        return self.flops / (self.self_ns / 1e9) if self.self_ns else 0.0


def by_op(events):
    """Sorted by name, grouped, and put in order by time and by who came first."""
    numbered = sorted(enumerate(events), key=lambda pair: (pair[1].name, pair[1].phase, pair[0]))
    whole = sum(e.self_ns for _, e in numbered)
    rows = []
    for (name, phase), group in itertools.groupby(numbered, key=lambda pair: (pair[1].name, pair[1].phase)):
        places, mine = zip(*group, strict=True)
        columns = zip(*((e.duration_ns, e.self_ns, e.flops, e.bytes) for e in mine), strict=True)
        totals = [sum(column) for column in columns]
        peaks = [e.peak_bytes for e in mine if e.peak_bytes is not None]
        share = totals[1] / whole if whole else 0.0
        row = OpRow(name, phase, len(mine), *totals[:2], share, *totals[2:], max(peaks) if peaks else None)
        rows.append((-row.self_ns, places[0], row))
    return [row for _, _, row in sorted(rows, key=lambda r: r[:2])]


class ModuleRow(NamedTuple):
    path: str
    kind: str
    calls: int
    total_ns: int
    self_ns: int
    peak_bytes: Any


def profile_modules(model, *inputs, memory=False, clock=time.perf_counter_ns):
    """For the time of the call, each class in the model has a `__call__` of its own."""
    paths = {}
    for path, module in model.named_modules():
        paths.setdefault(module, path)
    watch, spans, true = Stopwatch(clock, memory), defaultdict(list), Module.__call__

    def watched(module, /, *args, **options):
        if module not in paths:
            return true(module, *args, **options)
        out, span = watch.time(true, module, *args, **options)
        spans[module].append(span)
        return out

    with ExitStack() as stack:
        if memory:
            stack.enter_context(tracing())
        for kind in {type(module) for module in paths}:
            stack.enter_context(mock.patch.object(kind, "__call__", watched))
        model(*inputs)
    rows = []
    for module, path in paths.items():
        if module in spans:
            _, durations, own, _, peaks = zip(*spans[module], strict=True)
            peak = max(peaks) if memory else None
            rows.append(ModuleRow(path, type(module).__name__, len(own), sum(durations), sum(own), peak))
    return rows


@dataclass(frozen=True)
class Roofline:
    peak_flops: float
    bandwidth: float
    overhead: float = 0.0

    def __post_init__(self):
        if min(self.peak_flops, self.bandwidth) <= 0 or self.overhead < 0:
            raise ValueError("no such machine")

    ridge = property(lambda self: self.peak_flops / self.bandwidth)

    def attainable(self, intensity):
        return min(intensity / self.ridge, 1.0) * self.peak_flops

    def _times(self, flops, bytes):
        return {"compute": flops / self.peak_flops, "memory": bytes / self.bandwidth}

    def roof_seconds(self, flops, bytes):
        return max(self._times(flops, bytes).values())

    def bound(self, flops, bytes):
        times = self._times(flops, bytes)
        limit = max(times, key=times.get)  # the first of equals
        return "overhead" if times[limit] < self.overhead else limit


def measure_roofline(*, side=512, length=1 << 24, repeat=10, clock=time.process_time):
    options = {"repeat": repeat, "clock": clock}
    square = np.eye(side, dtype=np.float32) + np.float32(0.5)
    result = np.zeros_like(square)
    multiplying = time_calls(lambda: np.matmul(square, square, out=result), **options)
    old, new = np.ones((2, length), np.float32)
    copying = time_calls(lambda: np.copyto(new, old), **options)
    tensor = Tensor(np.float32([1.0]))
    calling = time_calls(lambda: neg(tensor), **options)
    return Roofline(2 * side**3 / multiplying.best, 2 * old.nbytes / copying.best, calling.best)


class Bottleneck(NamedTuple):
    name: str
    phase: str
    calls: int
    share: float
    seconds: float
    roof: float
    bound: str
    of_roof: float
    advice: str


NEAR = 0.5
ADVICE = {"overhead": "fewer calls", "memory": "fewer bytes", "compute": "fewer FLOPs", "far": "look closely"}


def bottlenecks(events, roofline, top=5):
    events = list(events)
    roofs = defaultdict(float)
    times = defaultdict(lambda: defaultdict(int))
    for e in events:
        least = roofline.roof_seconds(e.flops, e.bytes)
        roofs[e[:2]] += least if least > roofline.overhead else roofline.overhead
        times[e[:2]][roofline.bound(e.flops, e.bytes)] += e.self_ns
    found = []
    for row in itertools.islice(by_op(events), top):
        key, seconds = row[:2], row.self_ns / 10**9
        bound, _ = max(times[key].items(), key=lambda item: item[1])
        of_roof = roofs[key] / seconds if seconds else math.inf if roofs[key] else 1.0
        advice = ADVICE["far" if bound != "overhead" and of_roof < NEAR else bound]
        found.append(Bottleneck(*key, row.calls, row.share, seconds, roofs[key], bound, of_roof, advice))
    return found


GROWTHS = {"1": (0, 0), "log n": (0, 1), "n": (1, 0), "n log n": (1, 1), "n^2": (2, 0), "n^3": (3, 0)}


class Growth(NamedTuple):
    name: str
    factor: float
    residual: float
    residuals: Any
    exponent: float
    low: float
    high: float


def fit_growth(sizes, costs, *, rng, resamples=1000):
    """Growths by their powers of n and of log n; draws by how often each point is in them."""
    sizes, costs = np.asarray(sizes, float), np.asarray(costs, float)
    if len(sizes) != len(costs):
        raise ValueError(f"{len(sizes)} sizes for {len(costs)} costs")
    if np.any(sizes < 2) or len(np.unique(sizes)) < 3:
        raise ValueError(f"sizes {sizes.tolist()} are not three from 2 on")
    if not all(0 < cost < math.inf for cost in costs):
        raise ValueError(f"costs {costs.tolist()} must be above 0")
    x, y = np.log(sizes), np.log(costs)
    powers = np.array(list(GROWTHS.values()))
    off = y - (powers[:, :1] * x + powers[:, 1:] * np.log(x))
    residuals = dict(zip(GROWTHS, np.sqrt(np.var(off, axis=1)).tolist(), strict=True))
    best = int(np.argmin(list(residuals.values())))
    name = list(GROWTHS)[best]
    n = len(sizes)
    weights = rng.multinomial(n, np.full(n, 1 / n), resamples) / n
    mx, my = weights @ x, weights @ y
    squares = weights @ (x * x) - mx * mx
    apart = squares > 1e-12
    slopes = (weights @ (x * y) - mx * my)[apart] / squares[apart]
    low, high = np.quantile(slopes, [0.025, 0.975])
    factor = math.exp(off[best].mean())
    return Growth(name, factor, residuals[name], residuals, float(slopes_of(x, y)), float(low), float(high))


def slopes_of(x, y):
    rows = x.reshape(-1, x.shape[-1]), y.reshape(-1, x.shape[-1])
    off = rows[0] - rows[0].mean(axis=1)[:, None]
    squares = np.einsum("ij,ij->i", off, off)
    out = np.full(len(off), np.nan)
    np.divide(np.einsum("ij,ij->i", off, rows[1]), squares, out=out, where=np.ptp(off, axis=1) > 0)
    return out.reshape(x.shape[:-1])


EXACT = 20


def mann_whitney(a, b):
    sides = [_samples(a), _samples(b)]
    n, m = map(len, sides)
    values = sorted([(x, 0) for x in sides[0].tolist()] + [(x, 1) for x in sides[1].tolist()])
    ranks = ties = done = 0
    for _, group in itertools.groupby(values, key=lambda pair: pair[0]):
        mine = [side for _, side in group]
        ranks += mine.count(0) * (done + (len(mine) + 1) / 2)
        ties += len(mine) ** 3 - len(mine)
        done += len(mine)
    u, mean = ranks - n * (n + 1) / 2, n * m / 2
    if not ties and max(n, m) <= EXACT:
        ways = orders(n, m)
        tail = sum(ways[: math.floor(mean - abs(u - mean)) + 1])
        return u, min(1.0, 2 * tail / sum(ways))
    variance = n * m / 12 * (done + 1 - ties / (done * (done - 1)))
    if variance < 1e-9:
        return u, 1.0
    z = max(abs(u - mean) - 0.5, 0.0) / math.sqrt(variance)
    return u, 2 * (1 - _below(z)) if z < 5 else math.erfc(z / math.sqrt(2))


def _below(z):
    return (1 + math.erf(z / math.sqrt(2))) / 2


def _samples(samples):
    array = np.asarray(samples, float).ravel()
    if not len(array) or np.any(array != array):
        raise ValueError(f"no samples, or nan: {array}")
    return array


def orders(n, m):
    """In how many ways n of the ranks 1 ... n + m add up to each sum."""
    smallest = n * (n + 1) // 2
    sums = [[0] * (smallest + n * m + 1) for _ in range(n + 1)]
    sums[0][0] = 1
    for rank in range(1, n + m + 1):
        for count in range(min(n, rank), 0, -1):
            before, here = sums[count - 1], sums[count]
            for total in range(rank, len(here)):
                if before[total - rank]:
                    here[total] += before[total - rank]
    return sums[n][smallest:]


def bootstrap_ratio(before, after, *, rng, resamples=2000, confidence=0.95):
    """Of sorted samples the median of a draw is at the median place."""
    if not (confidence > 0 and confidence < 1):
        raise ValueError(f"confidence {confidence}")
    drawn = []
    for side in (before, after):
        ordered = np.sort(_samples(side))
        if ordered[0] <= 0:
            raise ValueError(f"{ordered[0]} is no time")
        n = len(ordered)
        places = np.sort(rng.integers(0, n, (resamples, n)), axis=1)
        drawn.append((ordered[places[:, (n - 1) // 2]] + ordered[places[:, n // 2]]) / 2)
    tail = (1 - confidence) / 2
    return tuple(float(np.quantile(drawn[1] / drawn[0], q)) for q in (tail, 1 - tail))


class Verdict(NamedTuple):
    verdict: str
    ratio: float
    low: float
    high: float
    p: float


def detect_regression(before, after, *, threshold=1.05, alpha=0.01, rng):
    if not threshold > 1.0:
        raise ValueError(f"threshold {threshold}")
    low, high = bootstrap_ratio(before, after, rng=rng, confidence=1 - alpha)
    ratio, p = np.median(after) / np.median(before), mann_whitney(before, after)[1]
    slower = low > 1 and ratio >= threshold
    faster = high < 1 and ratio <= 1 / threshold
    if p < alpha and (slower or faster):
        verdict = "slower" if slower else "faster"
    elif max(high, 1 / low) <= threshold * (1 + 1e-12):
        verdict = "same"
    else:
        verdict = "unsure"
    return Verdict(verdict, float(ratio), low, high, p)


def chrome_trace(events, name="tinytorch"):
    trace = []
    for kind, value in {"process_name": name, "thread_name": "operations"}.items():
        trace.append({"ph": "M", "name": kind, "args": {"name": value}})
    zero = None
    outer_first = sorted(events, key=lambda e: e.depth)
    for e in sorted(outer_first, key=lambda e: e.start_ns):
        zero = e.start_ns if zero is None else zero
        args = {"shapes": [[int(n) for n in shape] for shape in e.shapes], "dtype": f"{e.dtype}"}
        args.update(flops=int(e.flops), bytes=int(e.bytes), self_us=e.self_ns / 1000)
        if e.peak_bytes is not None:
            args.update(peak_bytes=int(e.peak_bytes))
        times = {"ts": (e.start_ns - zero) / 1000, "dur": e.duration_ns / 1000}
        trace.append({"ph": "X", "name": e.name, "cat": e.phase, **times, "args": args})
    for entry in trace:
        entry.update(pid=1, tid=1)
    return {"traceEvents": trace, "displayTimeUnit": "ms"}


def write_trace(path, events, name="tinytorch"):
    path = pathlib.Path(path)
    new = path.with_name(path.name + f".new{os.getpid()}")
    with ExitStack() as stack:
        stack.callback(new.unlink, missing_ok=True)
        new.write_bytes(json.dumps(chrome_trace(events, name)).encode())
        new.replace(path)
