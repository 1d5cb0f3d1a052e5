"""What kata 01 measures: what the tools themselves cost as the work they look at grows."""

import io

from dojo.measuring import Probe
from tinytorch.setup import assert_close, numerical_gradient, track


class Nowhere(io.TextIOBase):
    """A file that forgets what is written to it."""

    def write(self, text):
        return len(text)


def twins(n, rng):
    x = rng.normal(size=n)
    return x, x.copy()


def length_squared(v):
    return v @ v


def walk(n):
    for _ in track(range(n), file=Nowhere()):
        pass


PROBES = (
    Probe(
        "assert_close on n numbers",
        sizes=(1 << 14, 1 << 15, 1 << 16, 1 << 17, 1 << 18),
        prepare=twins,
        call=lambda a, b: assert_close(a, b),
        time=1,
        memory=1,
        flops=lambda n: 5 * n,  # subtract, abs, abs, times rtol, plus atol
        moved=lambda n: 2 * 8 * n,  # either array, read once
        torch=lambda a, b: __import__("torch").testing.assert_close(a, b),
    ),
    Probe(
        "numerical_gradient of v @ v",
        sizes=(128, 256, 512, 1024),
        prepare=lambda n, rng: (rng.normal(size=n),),
        call=lambda x: numerical_gradient(length_squared, x),
        time=1,  # 2n calls of a function of 2n flops would be 2, but up to here a call is all overhead
        memory=1,
        flops=lambda n: 4 * n * n,
        moved=lambda n: 2 * 8 * n,
    ),
    Probe(
        "track over n items",
        sizes=(4_000, 8_000, 16_000, 32_000),
        prepare=lambda n, rng: (n,),
        call=walk,
        time=1,
        memory=0,
    ),
)
