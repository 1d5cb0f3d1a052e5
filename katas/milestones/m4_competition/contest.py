"""What this milestone runs: a trained network of milestone 1, and recipes that make it fast, small and lean.

Images are made by code, from a seed, so nobody can have seen those that a judge draws.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dojo import datasets
from dojo.compose import load_file
from dojo.measuring.clocks import clock
from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.competition import (
    Entry,
    Found,
    Leaderboard,
    Metrics,
    Submission,
    Verdict,
    accuracy_of,
    describe,
    latency_ratio,
    peak_memory,
    rebuild,
    search,
    verify,
    write_submission,
)
from tinytorch.compression import distill, prune_global, quantize_model, shrink_mlp
from tinytorch.layers import Linear, Module, Parameter
from tinytorch.networks import Sequential
from tinytorch.optimizers import AdamW

HERE = Path(__file__).parent
KINDS = HERE / "kinds.py"
M1 = load_file(HERE.parent / "m1_inference" / "inference.py")
OF = sys.modules.get("m4_competition.kinds") or load_file(KINDS)  # once: a class is of a kind or not

Array = np.ndarray[Any, Any]

MODELS = {"shapes": datasets.tinyshapes, "digits": datasets.tinydigits}
BATCH = 200  # images at a time
LOST = 0.03  # of accuracy, that a contestant may give up


def baseline(name: str) -> Sequential:
    """A network of milestone 1 that takes images in bytes: the preparation is its first layer."""
    model = M1.models()[name]
    return Sequential(OF.Prepare(model.mean, model.std), *M1.network(model)).eval()


def draw(name: str) -> Callable[[np.random.Generator], tuple[Array, Array]]:
    """Fresh images and their labels, a batch."""
    return lambda rng: MODELS[name](BATCH, rng)


# Recipes.


def fold(model: Sequential) -> Sequential:
    """Put the preparation into the first weights: w . (x / 255 - mean) / std + b is w' . x + b'.

    A pass over all pixels of each image is saved, or three of them in numpy. ValueError if it is done.
    """
    prepare, first, *rest = model
    if not isinstance(prepare, OF.Prepare) or not isinstance(first, Linear):
        raise ValueError("there is no preparation to fold")
    each = first.weight.shape[1] // len(prepare.mean.data)
    mean, std = (np.repeat(part.data.astype(np.float64), each) for part in (prepare.mean, prepare.std))
    weight = first.weight.data.astype(np.float64) / std
    folded = Linear(*reversed(first.weight.shape), rng=np.random.default_rng(0))
    folded.weight = Parameter((weight / 255).astype(np.float32))
    folded.bias = Parameter((first.bias.data - weight @ mean).astype(np.float32))
    return Sequential(OF.Rows(), folded, *rest).eval()


def recipes(name: str, seed: int = 0) -> dict[str, Callable[..., Module]]:
    """What can be done to a network, by name; see the README. ValueError where one of them cannot be used."""

    def tuned(model: Sequential, batches: float) -> Sequential:
        """Let the baseline teach it, on images that nobody will draw again."""
        if not isinstance(model[0], OF.Prepare) or not any(type(layer) is Linear for layer in model):
            raise ValueError("a network learns before its numbers are folded or made integers")
        rng = np.random.default_rng([seed, 20])
        model.train()
        # Long steps first, and short ones for the last third, so that it settles.
        for rate, share in ((2e-3, 2 / 3), (2e-4, 1 / 3)):
            optimizer = AdamW(model.parameters(), lr=rate, weight_decay=0.0)
            lessons = (draw(name)(rng) for _ in range(math.ceil(batches * share)))
            distill(model, baseline(name), lessons, optimizer, temperature=2.0, alpha=0.7)
        return model.eval()

    def distilled(model: Sequential, keep: float, batches: float) -> Sequential:
        """Take neurons away, and let the baseline teach the rest to do without them."""
        return tuned(shrink_mlp(model, keep), batches)

    def integers(model: Sequential, bits: float) -> Module:
        if not any(type(layer) is Linear for layer in model):
            raise ValueError("it has integers already")
        made: Module = quantize_model(model, int(bits))
        return made

    def pruned(model: Sequential, sparsity: float) -> Module:
        if not any(type(layer) is Linear for layer in model):
            raise ValueError("integers are not pruned here")
        prune_global(model, sparsity)
        return model

    return {"fold": fold, "distil": distilled, "tune": tuned, "int": integers, "prune": pruned}


STEPS = ("fold", "distil:0.5:600", "int:8", "prune:0.8")


# Measuring here, while one is still trying things out.


def evaluator(name: str, rounds: int = 6, seed: int = 1) -> Callable[[Module], Metrics]:
    """Metrics of a model, in this process: quick, and not to be believed by anybody else."""
    base = baseline(name)
    images, labels = MODELS[name](1000, np.random.default_rng([seed, 1]))

    def evaluate(model: Module) -> Metrics:
        rng = np.random.default_rng([seed, 2])
        batches = (draw(name)(rng)[0] for _ in range(rounds + 1))
        layers, arrays = describe(model)
        with tempfile.TemporaryDirectory() as folder:
            size = write_submission(Path(folder) / "model.zip", Submission("a", "b", arrays, layers))
        copied = {key: array.copy() for key, array in arrays.items()}
        return Metrics(
            accuracy_of(model, images, labels),
            latency_ratio(model, base, batches, (clock, clock)).ratio,
            peak_memory(lambda: rebuild(layers, {k: a.copy() for k, a in copied.items()}), images[:BATCH]),
            size,
        )

    return evaluate


def explore(
    name: str,
    budget: int,
    evaluate: Callable[[Module], Metrics],
    steps: tuple[str, ...] = STEPS,
    seed: int = 0,
) -> list[Found]:
    """The front of what a search finds, from the baseline on; in accuracy it may lose `LOST`."""
    found: list[Found] = search(
        baseline(name), steps, recipes(name, seed), evaluate, budget=budget, beam=3, floor=floor(name)
    )
    return found


def floor(name: str) -> float:
    """The accuracy that is asked for: the baseline's as recorded by milestone 1, less `LOST`."""
    recorded = next(iter(M1.models()[name].on.values()))
    return float(recorded.correct / recorded.examples - LOST)


def in_words(model: Module) -> str:
    """How it begins, its widths and its numbers: "prepare 3072-96-64-10 float32"."""
    layers, arrays = describe(model)
    weights = [array for name, array in arrays.items() if name.endswith(".weight")]
    widths = [weights[0].shape[1], *(len(weight) for weight in weights)]
    return f"{layers[0]['kind']} {'-'.join(map(str, widths))} {weights[0].dtype}"


# Handing in.


def write(
    path: Path, model: Module, name: str, author: str, recipe: tuple[str, ...], claims: Any = None
) -> int:
    layers, arrays = describe(model)
    size: int = write_submission(path, Submission(name, author, arrays, layers, recipe=recipe, claims=claims))
    return size


def judge(path: Path, base: Path, name: str, **options: Any) -> Verdict:
    """Verify a file beside the baseline's, which is written to `base` if it is not there."""
    if not base.exists():
        write(base, baseline(name), "baseline", "milestone 1", ())
    return verify(path, base, draw(name), **{"setup": KINDS, **options})


def enter(board: Leaderboard, verdict: Verdict, submission: Submission) -> bool:
    """Into the leaderboard; False if this very file is there."""
    entry = Entry(
        verdict.digest,
        submission.name,
        submission.author,
        verdict.metrics,
        verdict.score,
        tuple(submission.recipe),
        time.time(),
    )
    new: bool = board.add(entry)
    return new
