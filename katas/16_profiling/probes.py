"""What kata 16 measures: what watching costs by calls, and statistics by samples."""

import numpy as np

from dojo.measuring import Probe
from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.profiling import (
    Event,
    OpProfiler,
    bootstrap_ratio,
    by_op,
    chrome_trace,
    fit_growth,
    mann_whitney,
    time_calls,
)
from tinytorch.tensor import Tensor

CALLS = (64, 128, 256, 512)
SAMPLES = (250, 500, 1000, 2000)


def chain(x, n):
    """n calls on few numbers, and as many back."""
    y = x
    for _ in range(n):
        y = y * 1.0
    y.backward(np.ones(x.shape, np.float32))


def watched(x, n):
    with OpProfiler() as profile:
        chain(x, n)
    return profile


def events(n):
    """Of n / 8 ops."""
    dtype = np.dtype("float32")
    return [
        Event(f"op{i % (n // 8)}", "forward", 100 * i, 90, ((4, 4),), dtype, 16, 128, None, 0, 90)
        for i in range(n)
    ]


def leaf(n):
    return Tensor(np.ones(4, np.float32), requires_grad=True), n


def sizes(n):
    return [2.0 + i for i in range(n)]


PROBES = (
    Probe("n calls there and back", CALLS, prepare=lambda n, rng: leaf(n), call=chain, time=1),
    Probe(
        "n calls there and back, watched",
        CALLS,
        prepare=lambda n, rng: leaf(n),
        call=watched,
        time=1,
        memory=1,
    ),
    Probe(
        "time_calls of n samples",
        CALLS,
        prepare=lambda n, rng: (n,),
        call=lambda n: time_calls(lambda: None, repeat=n, inner=100),
        time=1,
    ),
    Probe("by_op of n events", CALLS, prepare=lambda n, rng: (events(n),), call=lambda e: by_op(e), time=1),
    Probe(
        "chrome_trace of n events",
        CALLS,
        prepare=lambda n, rng: (events(n),),
        call=lambda e: chrome_trace(e),
        time=1,
        memory=1,
    ),
    Probe(
        "fit_growth of n points",
        CALLS,
        prepare=lambda n, rng: (sizes(n), sizes(n), rng),
        call=lambda n, costs, rng: fit_growth(n, costs, rng=rng, resamples=100),
        time=1,
        memory=1,
    ),
    Probe(
        "mann_whitney of n and n",
        (100, 200, 400, 800),
        prepare=lambda n, rng: tuple(rng.normal(size=(2, n))),
        call=lambda a, b: mann_whitney(a, b),
        time=1,
        memory=1,
    ),
    Probe(
        "bootstrap_ratio of n and n",
        SAMPLES,
        prepare=lambda n, rng: (*rng.uniform(1, 2, (2, n)), rng),
        call=lambda a, b, rng: bootstrap_ratio(a, b, rng=rng, resamples=50),
        time=1,
        memory=1,
    ),
)
