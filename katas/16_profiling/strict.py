"""What a trusted grade asks of kata 16: clocks that the check turns, shapes, and samples; numbers back."""

import itertools
import math

import numpy as np

from dojo.strict import Check

# Samples and what is said of them.


def draw_samples(rng):
    return {"samples": rng.gamma(3.0, 1e-3, rng.integers(1, 30)), "q": rng.random(6)}


def run_samples(student, samples, q):
    timing = student.Timing(tuple(samples.tolist()))
    said = [timing.best, timing.median, timing.mean, timing.spread]
    return np.array(said + [timing.quantile(x) for x in q.tolist()])


def expected_samples(samples, q):
    low, high = np.quantile(samples, [0.25, 0.75])
    middle = np.median(samples)
    return np.concatenate(
        [[samples.min(), middle, samples.mean(), (high - low) / middle], np.quantile(samples, q)]
    )


# Functions that take their time by a clock of the check.


def draw_turns(rng):
    return {"times": rng.integers(1, 99, (3, rng.integers(2, 9))), "numbers": rng.integers(1, 6, 2)}


def run_turns(student, times, numbers):
    now, calls = [0.0], []

    def taking(i):
        place = [0]

        def function():
            calls.append(i)
            now[0] += float(times[i, place[0] % times.shape[1]])
            place[0] += 1

        return function

    repeat, inner = numbers.tolist()
    found = student.time_turns(*map(taking, range(3)), repeat=repeat, inner=inner, clock=lambda: now[0])
    return np.array([s for timing in found for s in timing.samples] + calls, dtype=np.float64)


def expected_turns(times, numbers):
    repeat, inner = numbers.tolist()
    samples = []
    for row in times:
        endless = np.tile(row, repeat * inner + 2)[1 : 1 + repeat * inner].reshape(repeat, inner)
        samples += (endless.sum(axis=1) / inner).tolist()
    calls = [0, 1, 2]
    for turn in range(repeat):
        for i in (0, 1, 2)[:: 1 if turn % 2 == 0 else -1]:
            calls += [i] * inner
    return np.array(samples + calls, dtype=np.float64)


# Phases inside of phases, in units of 256 KiB.


def draw_phases(rng):
    return {"sizes": rng.integers(1, 12, (2, 4))}


def run_phases(student, sizes):
    memory = student.MemoryProfiler()
    with memory:
        for first, second, third, kept in sizes.tolist():
            with memory.phase("outer"):
                np.ones(first << 15).sum()
                with memory.phase("inner"):
                    np.ones(second << 15).sum()
                    left = np.ones(kept << 15)
                np.ones(third << 15).sum()
            del left
    return np.array([[p.depth, round(p.peak / 2**18), round(p.retained / 2**18)] for p in memory.phases])


def expected_phases(sizes):
    rows = []
    for first, second, third, kept in sizes.tolist():
        rows.append([0, max(first, second, kept, kept + third), kept])
        rows.append([1, max(second, kept), kept])
    return np.array(rows)


# What operations cost.


def draw_costs(rng):
    return {"sizes": rng.integers(1, 9, (4, 5)), "strides": rng.integers(0, 2, 4)}


def run_costs(student, sizes, strides):
    def named(name):
        def forward(a, b=None, c=None, *, kernel=1, is_causal=False, training=True):
            return a

        forward.__name__ = name
        return student.Op(forward)

    found = []
    for batch, m, k, n, kernel in sizes.tolist():
        a, b = np.ones((batch, m, k)), np.ones((k, n))
        out, x, weight = np.ones((batch, m, n)), np.ones((batch, k, m, m)), np.ones((n, k, kernel, kernel))
        image = np.ones((batch, n, m, m))
        q, keys = np.ones((batch, k, m, n)), np.ones((batch, 1, m + kernel, n))
        calls = [
            (named("matmul"), (a, b), {}, out),
            (named("affine"), (a, b.T, np.ones(n)), {}, out),
            (named("conv2d"), (x, weight), {}, image),
            (named("max_pool2d"), (x,), {"kernel": (kernel, 2)}, image),
            (named("fused_attention"), (q, keys, keys), {"is_causal": True}, q),
            (named("batch_norm"), (image,), {"training": False}, image),
            (named("something"), (a, 2.0), {}, out),
        ]
        for call in calls:
            found += [student.op_flops(*call), student.op_bytes(*call)]
    row = np.ones((3, 4, 5, 6))
    row = np.broadcast_to(row[tuple(slice(0, 1) if s else slice(None) for s in strides.tolist())], row.shape)
    return np.array([*found, student.stored_bytes(row)])


def expected_costs(sizes, strides):
    found = []
    for batch, m, k, n, kernel in sizes.tolist():
        rows, image = batch * m * n, batch * n * m * m
        pixels = batch * k * m * m
        pairs = sum(i + kernel + 1 for i in range(m))
        found += [2 * rows * k, 8 * (batch * m * k + k * n + rows)]
        found += [rows * (2 * k + 1), 8 * (batch * m * k + k * n + n + rows)]
        found += [2 * image * k * kernel**2, 8 * (pixels + n * k * kernel**2 + image)]
        found += [image * kernel * 2, 8 * (pixels + image)]
        found += [batch * k * pairs * (4 * n + 5), 8 * batch * n * (2 * k * m + 2 * (m + kernel))]
        found += [image * 3, 16 * image]
        found += [rows, 8 * (batch * m * k + rows)]
    different = np.prod([1 if s else n for n, s in zip((3, 4, 5, 6), strides.tolist(), strict=True)])
    return np.array([*found, 8 * different])


# A profile of operations inside of operations, there and back.


def draw_profile(rng):
    return {"times": rng.integers(1, 1000, (5, 4)), "size": rng.integers(1, 6, 5)}


def run_profile(student, times, size):
    now = [0]

    def inner(x, *, ns):
        now[0] += ns
        return x * 2

    inner = student.Op(inner)

    def outer(x, *, before, between, after):
        now[0] += before
        inner(student.Tensor(x), ns=between)
        now[0] += after
        return x * 1

    outer = student.Op(outer)

    def back(grad, before):
        now[0] += before
        return grad * 1

    outer.gradient(back)
    profile = student.OpProfiler(clock=lambda: now[0])
    rows = []
    before = student.Op.__call__
    with profile:
        for (first, second, third, gap), n in zip(times.tolist(), size.tolist(), strict=True):
            x = student.Tensor(np.ones(n), requires_grad=True)
            outer(x, before=first, between=second, after=third)
            now[0] += gap
            outer.pull(np.ones(n), gap)
    restored = student.Op.__call__ is before and outer.pull is back
    for e in profile.events:
        way = ["forward", "backward"].index(e.phase)
        rows.append([way, e.start_ns, e.duration_ns, e.self_ns, e.depth, way or e.flops, way or e.bytes])
    for row in student.by_op(profile.events):
        rows.append([row.calls, row.total_ns, row.self_ns, 0, 0, 0, 0])
    return np.array([*rows, [int(restored)] * 7])


def expected_profile(times, size):
    rows, now = [], 0
    sums = np.zeros((3, 3), int)
    for (first, second, third, gap), n in zip(times.tolist(), size.tolist(), strict=True):
        whole = first + second + third
        rows.append([0, now + first, second, second, 1, n, 16 * n])
        rows.append([0, now, whole, first + third, 0, n, 16 * n])
        now += whole + gap
        rows.append([1, now, gap, gap, 0, 1, 1])
        now += gap
        sums += [[1, second, second], [1, whole, first + third], [1, gap, gap]]
    order = sorted(range(3), key=lambda i: -sums[i, 2])
    rows += [[*sums[i], 0, 0, 0, 0] for i in order]
    return np.array([*rows, [1] * 7])


# Roofs.


def draw_roofs(rng):
    return {
        "machine": rng.uniform(1e9, 1e11, 2),
        "overhead": rng.uniform(1e-7, 1e-5, 1),
        "work": rng.integers(1, 10**6, (20, 2)),
        "times": rng.integers(1000, 10**5, 20),
    }


def run_roofs(student, machine, overhead, work, times):
    roofline = student.Roofline(float(machine[0]), float(machine[1]), float(overhead[0]))
    found = [roofline.ridge]
    events = []
    for i, ((flops, moved), time) in enumerate(zip(work.tolist(), times.tolist(), strict=True)):
        found += [roofline.attainable(flops / moved), roofline.roof_seconds(flops, moved)]
        found += [float(("overhead", "memory", "compute").index(roofline.bound(flops, moved)))]
        dtype = np.dtype("float32")
        events.append(student.Event("abc"[i % 3], "forward", 0, time, (), dtype, flops, moved, None, 0, time))
    for one in student.bottlenecks(events, roofline):
        found += [one.seconds, one.roof, one.of_roof, one.share]
    return np.array(found)


def expected_roofs(machine, overhead, work, times):
    (peak, bandwidth), (least,) = machine, overhead
    computing, fetching = work[:, 0] / peak, work[:, 1] / bandwidth
    roofs = np.maximum(computing, fetching)
    found = [peak / bandwidth]
    for i, (flops, moved) in enumerate(work):
        bound = 0 if roofs[i] < least else 2 if computing[i] >= fetching[i] else 1
        found += [min(peak, flops / moved * bandwidth), roofs[i], bound]
    rows = []
    for start in range(3):
        seconds = times[start::3].sum() / 1e9
        roof = np.maximum(roofs, least)[start::3].sum()
        rows.append([seconds, roof, roof / seconds, times[start::3].sum() / times.sum()])
    rows.sort(key=lambda row: -row[0])
    return np.array(found + [x for row in rows for x in row])


# Growth, by costs with noise.


def draw_growth(rng):
    sizes = rng.choice(np.arange(2, 400), rng.integers(5, 12), replace=False).astype(np.float64)
    return {"sizes": sizes, "costs": sizes ** rng.uniform(0, 3) * rng.uniform(0.9, 1.1, len(sizes))}


def run_growth(student, sizes, costs):
    found = student.fit_growth(sizes.tolist(), costs.tolist(), rng=np.random.default_rng(0), resamples=200)
    names = ["1", "log n", "n", "n log n", "n^2", "n^3"]
    numbers = [float(names.index(found.name)), found.factor, found.residual, found.exponent]
    inside = found.low - 1e-9 <= found.exponent <= found.high + 1e-9
    return np.array(numbers + [found.residuals[name] for name in names] + [float(inside)])


def expected_growth(sizes, costs):
    log = np.log(sizes)
    laws = [0 * log, np.log(log), log, log + np.log(log), 2 * log, 3 * log]
    off = [np.log(costs) - law for law in laws]
    residuals = [float(np.sqrt(np.mean((o - o.mean()) ** 2))) for o in off]
    best = int(np.argmin(residuals))
    slope = np.polyfit(log, np.log(costs), 1)[0]
    return np.array([best, np.exp(off[best].mean()), residuals[best], slope, *residuals, 1.0])


# Ranks: counted exactly, and by the normal distribution.


def draw_ranks(rng):
    n, m = rng.integers(1, 7, 2)
    values = rng.permutation(99)[: n + m].astype(np.float64)
    return {
        "a": values[:n],
        "b": values[n:],
        "c": rng.integers(0, 12, rng.integers(2, 40)),
        "d": rng.integers(2, 15, rng.integers(2, 40)),
    }


def run_ranks(student, a, b, c, d):
    return np.array([*student.mann_whitney(a, b), *student.mann_whitney(c, d)])


def expected_ranks(a, b, c, d):
    def pairs(x, y):
        return (x[:, None] > y).sum() + (x[:, None] == y).sum() / 2

    everything, mean = np.concatenate([a, b]), len(a) * len(b) / 2
    far = ways = 0
    for chosen in itertools.combinations(range(len(everything)), len(a)):
        mask = np.isin(np.arange(len(everything)), chosen)
        far += abs(pairs(everything[mask], everything[~mask]) - mean) >= abs(pairs(a, b) - mean)
        ways += 1
    n, m, u = len(c), len(d), pairs(c, d)
    _, counts = np.unique(np.concatenate([c, d]), return_counts=True)
    ties = (counts**3 - counts).sum()
    deviation = math.sqrt(n * m / 12 * (n + m + 1 - ties / ((n + m) * (n + m - 1))))
    # There are fifteen values at most, so without equals these are few.
    if len(counts) == n + m:
        every = np.concatenate([c, d]).astype(np.float64)
        hits = total = 0
        for chosen in itertools.combinations(range(n + m), n):
            mask = np.isin(np.arange(n + m), chosen)
            hits += abs(pairs(every[mask], every[~mask]) - n * m / 2) >= abs(u - n * m / 2)
            total += 1
        p = hits / total
    else:
        p = math.erfc(max(0.0, abs(u - n * m / 2) - 0.5) / deviation / math.sqrt(2)) if deviation else 1.0
    return np.array([pairs(a, b), far / ways, u, p])


# Verdicts where there is no doubt.


def draw_verdicts(rng):
    ratios = rng.permutation([1.0, 1.4, 1 / 1.4, 1.01])
    return {"ratios": ratios, "samples": rng.normal(1, 0.01, (2, 4, 20)), "seed": rng.integers(0, 999, 1)}


def run_verdicts(student, ratios, samples, seed):
    rng = np.random.default_rng(seed)
    names = ["same", "slower", "faster", "unsure"]
    found = []
    for i, ratio in enumerate(ratios.tolist()):
        verdict = student.detect_regression(samples[0, i], ratio * samples[1, i], rng=rng)
        around = verdict.low - 1e-9 <= verdict.ratio <= verdict.high + 1e-9
        found += [float(names.index(verdict.verdict)), verdict.ratio, float(around)]
    return np.array(found)


def expected_verdicts(ratios, samples, seed):
    found = []
    for i, ratio in enumerate(ratios):
        verdict = 1 if ratio > 1.2 else 2 if ratio < 0.9 else 0
        found += [verdict, ratio * np.median(samples[1, i]) / np.median(samples[0, i]), 1.0]
    return np.array(found)


CHECKS = (
    Check("what samples say", draw_samples, run_samples, expected_samples),
    Check("samples in turns", draw_turns, run_turns, expected_turns),
    Check("phases inside of phases", draw_phases, run_phases, expected_phases),
    Check("what operations cost", draw_costs, run_costs, expected_costs),
    Check("a profile, there and back", draw_profile, run_profile, expected_profile),
    Check("roofs and bottlenecks", draw_roofs, run_roofs, expected_roofs),
    Check("growth", draw_growth, run_growth, expected_growth, rtol=1e-6, atol=1e-8),
    Check("ranks", draw_ranks, run_ranks, expected_ranks, rtol=1e-8),
    Check("verdicts", draw_verdicts, run_verdicts, expected_verdicts),
)
