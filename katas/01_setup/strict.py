"""What a trusted grade asks of kata 01: each tool on fresh numbers, its answers as arrays."""

import numpy as np

from dojo.strict import Check

# progress_bar: pairs of numbers, and the width of the bar.


def draw_bars(rng):
    total = rng.integers(1, 1000, size=40)
    return {"done": rng.integers(0, total + 1), "total": total, "width": rng.integers(1, 60, size=40)}


def run_bars(student, done, total, width):
    bars = [student.progress_bar(int(d), int(t), int(w)) for d, t, w in zip(done, total, width, strict=True)]
    return np.array([[bar.count("#"), bar.count("."), len(bar)] for bar in bars], np.int64)


def expected_bars(done, total, width):
    filled = width * done // total
    return np.stack([filled, width - filled, width], axis=1)


# check_requirement: versions of three parts.


def draw_versions(rng):
    return {"minimum": rng.integers(0, 13, size=(60, 3)), "installed": rng.integers(0, 13, size=(60, 3))}


def run_versions(student, minimum, installed):
    def verdict(least, found):
        dotted = ".".join(map(str, found))
        return student.check_requirement("some-package>=" + ".".join(map(str, least)), lambda name: dotted).ok

    pairs = zip(minimum.tolist(), installed.tolist(), strict=True)
    return np.array([verdict(least, found) for least, found in pairs], np.bool_)


def expected_versions(minimum, installed):
    weights = np.array([10_000, 100, 1])
    return installed @ weights >= minimum @ weights


# best_time: a clock that the function itself moves.


def draw_seconds(rng):
    return {"seconds": rng.integers(1, 1000, size=(rng.integers(1, 8), rng.integers(1, 6))) / 64}


def run_seconds(student, seconds):
    now = 0.0
    left = iter([1e-6, *seconds.ravel().tolist()])

    def work():
        nonlocal now
        now += next(left)

    repeats, calls = seconds.shape
    return np.array([student.best_time(work, repeats=repeats, calls=calls, clock=lambda: now)])


def expected_seconds(seconds):
    return np.array([seconds.mean(axis=1).min()])


# memory_of: sizes in MiB of what is made and dropped, and of what is kept.


def draw_bytes(rng):
    return {"dropped": rng.integers(1, 9, size=4), "kept": rng.integers(1, 9, size=4)}


def run_bytes(student, dropped, kept):
    def work(temporary, result):
        len(bytearray(temporary << 20))
        return bytearray(result << 20)

    pairs = zip(dropped.tolist(), kept.tolist(), strict=True)
    memories = [student.memory_of(lambda t=t, r=r: work(t, r)) for t, r in pairs]
    return np.array([[round(m.peak / 2**20), round(m.kept / 2**20)] for m in memories], np.int64)


def expected_bytes(dropped, kept):
    return np.stack([np.maximum(dropped, kept), kept], axis=1)


# find_mismatch: two arrays that differ in some places, with nan and infinity among them.


def draw_mismatches(rng):
    shape = (30, *rng.integers(1, 6, size=2))
    expected = rng.integers(-64, 65, size=shape) / 16
    got = expected + np.where(rng.random(shape) < 0.2, rng.integers(-16, 17, size=shape) / 16, 0.0)
    for array in (got, expected):
        array[rng.random(shape) < 0.03] = np.nan
        array[rng.random(shape) < 0.03] = np.inf
    return {"got": got, "expected": expected}


def run_mismatches(student, got, expected):
    def found(a, b):
        mismatch = student.find_mismatch(a, b, rtol=0.0625, atol=0.125)
        return (-1, -1, 0) if mismatch is None else (*mismatch.index, mismatch.count)

    return np.array([found(a, b) for a, b in zip(got, expected, strict=True)], np.int64)


def expected_mismatches(got, expected):
    answers = []
    for a, b in zip(got, expected, strict=True):
        worst, answer, count = 0.0, (-1, -1), 0
        for index in np.ndindex(a.shape):
            one, other = float(a[index]), float(b[index])
            if one == other or (np.isnan(one) and np.isnan(other)):
                continue
            distance = abs(one - other) if np.isfinite(one) and np.isfinite(other) else np.inf
            if distance == np.inf or distance > 0.125 + 0.0625 * abs(other):
                count += 1
                if distance > worst:
                    worst, answer = distance, index
        answers.append((*answer, count))
    return np.array(answers, np.int64)


# assert_close: the verdict alone.


def draw_verdicts(rng):
    expected = rng.normal(size=(60, 5))
    nudge = 10.0 ** rng.integers(-9, -1, size=(60, 1)) * (rng.random((60, 5)) < 0.3)
    return {"got": expected * (1 + nudge), "expected": expected}


def run_verdicts(student, got, expected):
    def close(a, b):
        try:
            student.assert_close(a, b, rtol=3e-5, atol=0.0)
        except AssertionError:
            return False
        return True

    return np.array([close(a, b) for a, b in zip(got, expected, strict=True)], np.bool_)


def expected_verdicts(got, expected):
    return (np.abs(got - expected) <= 3e-5 * np.abs(expected)).all(axis=1)


# numerical_gradient: a function whose derivative we know.


def draw_slopes(rng):
    shape = tuple(rng.integers(1, 5, size=rng.integers(0, 4)))
    return {"x": rng.normal(size=shape) * 3, "weights": rng.normal(size=shape)}


def run_slopes(student, x, weights):
    return student.numerical_gradient(lambda v: (weights * np.sin(v)).sum() + (v**3).sum(), x)


def expected_slopes(x, weights):
    return np.asarray(weights * np.cos(x) + 3 * x**2)


# run_tests: what becomes of tests that end in four ways, and whether each ran once.


def draw_outcomes(rng):
    return {"endings": rng.integers(0, 4, size=30)}


def run_outcomes(student, endings):
    runs = []

    def ending(number):
        def test():
            runs.append(number)
            if number:
                raise (AssertionError, NotImplementedError, OSError)[number - 1]("on purpose")

        return test

    outcomes = student.run_tests({f"test_{n}": ending(end) for n, end in enumerate(endings.tolist())})
    codes = {"passed": 0, "failed": 1, "to do": 2, "error": 3}
    return np.array([[codes[outcome.status] for outcome in outcomes], runs], np.int64)


def expected_outcomes(endings):
    return np.stack([endings, endings])


# scaling_exponent: costs that are told, and do not lie on one line.


def draw_growth(rng):
    return {
        "sizes": np.unique(rng.integers(1, 5000, size=12)),
        "noise": rng.normal(size=12),
        "p": rng.uniform(-1, 3, 1),
    }


def run_growth(student, sizes, noise, p):
    costs = {int(n): float(n ** p[0] * np.exp(e)) for n, e in zip(sizes.tolist(), noise, strict=False)}
    return np.array([student.scaling_exponent(lambda n: lambda: costs[n], list(costs), lambda call: call())])


def expected_growth(sizes, noise, p):
    x = np.log(sizes)
    return np.polyfit(x, p[0] * x + noise[: len(x)], 1)[:1]


CHECKS = (
    Check("progress bars", draw_bars, run_bars, expected_bars),
    Check("versions", draw_versions, run_versions, expected_versions),
    Check("best time", draw_seconds, run_seconds, expected_seconds),
    Check("peak and kept bytes", draw_bytes, run_bytes, expected_bytes),
    Check("worst elements", draw_mismatches, run_mismatches, expected_mismatches),
    Check("verdicts on closeness", draw_verdicts, run_verdicts, expected_verdicts),
    Check("numerical gradients", draw_slopes, run_slopes, expected_slopes, rtol=1e-6, atol=1e-7),
    Check("outcomes of tests", draw_outcomes, run_outcomes, expected_outcomes),
    Check("orders of growth", draw_growth, run_growth, expected_growth),
)
