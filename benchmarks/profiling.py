"""Kata 16: is a verdict true, and what does watching cost? `python -m benchmarks.profiling`

First 200 trials each of a change by 0, 10 and 30 %, as `detect_regression` sees it and as simpler rules do:
on the machine as it is, and beside two processes that do nothing but compute. Then training steps with and
without an OpProfiler, in turns; and the operations of the larger ones beside this machine's roofline.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.beside import images, measure, pairs_of, reference

ours: Any = reference("tinytorch.profiling")
spatial: Any = reference("tinytorch.spatial")
training: Any = reference("tinytorch.training")
transformers: Any = reference("tinytorch.transformers")
tensor: Any = reference("tinytorch.tensor")
optimizers: Any = reference("tinytorch.optimizers")

TRIALS = 200
SAMPLES = 20
UNITS = 30  # of work in a call; a call that is 10 % slower does 33
rng = np.random.default_rng(0)


# The same numbers at the same place for both sides: elsewhere in memory they may be a tenth faster.
numbers, out = rng.standard_normal(1000), np.empty(1000)


def work(units: int) -> Callable[[], None]:
    """A call that does so many units of the same: exp of a thousand numbers."""

    def call() -> None:
        for _ in range(units):
            np.exp(numbers, out=out)

    return call


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes compute beside the block."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(10000))"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def by_means(before: Any, after: Any) -> str:
    ratio = statistics.mean(after.samples) / statistics.mean(before.samples)
    return "slower" if ratio > 1.05 else "faster" if ratio < 1 / 1.05 else "same"


def by_three(before: Any, after: Any) -> str:
    """Three samples each, the usual way: one after the other, and the mean."""
    return by_means(ours.Timing(before.samples[:3]), ours.Timing(after.samples[:3]))


def by_test(before: Any, after: Any) -> str:
    return str(ours.detect_regression(before.samples, after.samples, rng=rng).verdict)


def trial(units: int) -> dict[str, str]:
    """What each rule says of a change to so many units."""
    base, changed = work(UNITS), work(units)
    calls = {"repeat": SAMPLES, "inner": 4}
    alone = [ours.time_calls(call, **calls) for call in (base, changed)]
    turns = ours.time_turns(base, changed, **calls)
    return {
        "detect_regression, in turns": by_test(*turns),
        "detect_regression, one after the other": by_test(*alone),
        "means of 20, in turns": by_means(*turns),
        "means of 3, one after the other": by_three(*alone),
    }


def verdicts() -> None:
    for others in (0, 2):
        print(f"\n{TRIALS} trials each of {SAMPLES} samples, beside {others} busy processes")
        found: dict[str, list[str]] = {}
        with busy(others):
            for units in (UNITS, UNITS * 11 // 10, UNITS * 13 // 10):
                votes: dict[str, Counter[str]] = {}
                for _ in range(TRIALS):
                    for rule, verdict in trial(units).items():
                        votes.setdefault(rule, Counter())[verdict] += 1
                for rule, count in votes.items():
                    found.setdefault(rule, []).append(
                        f"{count['slower']:4}{count['faster']:4}{count['same']:4}{count['unsure']:4}"
                    )
        print(f"{'slower, faster, same, unsure at a change by':44}{'0 %':>16}{'10 %':>18}{'30 %':>18}")
        for rule, cells in found.items():
            print(f"{rule:44}{'  '.join(cells)}", flush=True)


def step_of(model: Any, forward: Callable[[], Any], labels: Any) -> Callable[[], None]:
    optimizer = optimizers.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        training.cross_entropy(forward(), labels).backward()
        optimizer.step()

    return step


def cnn(model: Any, batch: int, channels: int, side: int) -> Callable[[], None]:
    pictures = tensor.Tensor(images(rng, batch, channels, side, side))
    return step_of(model, lambda: model(pictures), rng.integers(0, 10, batch))


def gpt(batch: int, length: int) -> Callable[[], None]:
    config = transformers.GPTConfig(65, context=128, dim=128, num_layers=4, num_heads=4)
    model, ids = transformers.TinyGPT(config, rng=rng), rng.integers(0, 65, (batch, length))
    return step_of(model, lambda: model(ids).reshape(-1, 65), rng.integers(0, 65, ids.size))


def steps() -> dict[str, Callable[[], None]]:
    return {
        "LeNet, 32 images": cnn(spatial.LeNet(rng=rng), 32, 1, 28),
        "small VGG, 32 images": cnn(spatial.SmallVGG(rng=rng), 32, 3, 32),
        "TinyGPT of milestone 3, 8 texts of 64": gpt(8, 64),
    }


def overhead() -> None:
    print(f"\n{'a training step, watched, beside one that is not':52}{'ratio':>7}{'ms':>9}{'events':>8}")
    for name, step in steps().items():
        for memory in (False, True):
            events = 0

            def watched(step: Callable[[], None] = step, memory: bool = memory) -> None:
                nonlocal events
                with ours.OpProfiler(memory=memory) as profile:
                    step()
                events = len(profile.events)

            ratios, _, plain = pairs_of(watched, step, 21)
            low, middle, high = statistics.quantiles(ratios, n=4)
            label = f"{name}{', with memory' if memory else ''}"
            milliseconds = 1e3 * statistics.median(plain)
            print(
                f"{label:52}{middle:7.3f}{milliseconds:9.1f}{events:8} ({low:.3f} to {high:.3f})", flush=True
            )


def roofs() -> None:
    roofline = ours.measure_roofline()
    print(
        f"\n{roofline.peak_flops / 1e9:.0f} GFLOP/s, {roofline.bandwidth / 1e9:.1f} GB/s, ridge at "
        f"{roofline.ridge:.1f} FLOPs a byte, {roofline.overhead * 1e6:.1f} us a call"
    )
    for name, step in itertools.islice(steps().items(), 1, None):
        step()
        with ours.OpProfiler() as profile:
            for _ in range(5):
                step()
        found = ours.bottlenecks(profile.events, roofline, top=6)
        print(f"\n{name}")
        for one in found:
            print(
                f"{one.name:18}{one.phase:10}{one.calls:6}{one.share:8.1%}{one.seconds * 200:9.2f} ms a step"
                f"{one.of_roof:7.2f} of its roof, {one.bound}"
            )


def main() -> None:
    verdicts()
    overhead()
    roofs()


if __name__ == "__main__":
    measure(main, __doc__)
