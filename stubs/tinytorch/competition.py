"""Kata 20 · Competition: one model, four metrics, and measurements that somebody else believes.

Making a model faster is easy if nobody looks at what else changed. Here four metrics are looked at
together, on inputs that nobody has seen, in a process that the measured code does not share with its judge.
What comes out is a number that two computers agree on, because each measures the same baseline beside the
candidate.
"""

from __future__ import annotations

import copy
import functools
import gc
import hashlib
import io
import itertools
import json
import math
import os
import re
import runpy
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np

from tinytorch.activations import GELU, Dropout, LeakyReLU, ReLU, Sigmoid, Tanh
from tinytorch.autograd import no_grad
from tinytorch.layers import Linear, Module, Parameter
from tinytorch.networks import Sequential
from tinytorch.tensor import Array, Tensor, as_array

__all__ = [
    "DamagedLeaderboard", "Entry", "Found", "Kind", "Latency", "Leaderboard", "Metrics", "Refused",
    "Submission", "Tolerance", "Verdict", "Worker", "accuracy_of", "answer", "apply_recipe", "broken_claims",
    "describe", "digest", "dominates", "hypervolume", "latency_ratio", "pareto_front", "peak_memory",
    "read_frame", "read_submission", "rebuild", "register_kind", "score", "search", "serve",
    "share_right", "verify", "write_frame", "write_submission",
]  # fmt: skip

Model = Callable[[Any], Any]  # a Module, or what takes an array of images and gives an array of logits
Recipe = Callable[..., Module]  # takes a model, and numbers, and gives another model
Draw = Callable[[np.random.Generator], tuple[Array, Array]]  # fresh images and their labels
Clock = Callable[[], float]
T = TypeVar("T")


class Refused(ValueError):
    """A submission that does not count; the message says why."""


# Four metrics.


@dataclass(frozen=True)
class Metrics:
    """What is measured of a model.

    Attributes:
        accuracy: the share of right answers, 0 to 1; more is better, and less is better of the other three.
        latency: its time divided by the baseline's in the same run, so the baseline's own is 1.
        memory: bytes at the worst moment, weights included.
        size: bytes of its file.
    """

    accuracy: float
    latency: float
    memory: float
    size: float

    def __post_init__(self) -> None:
        """ValueError, naming field and value: an accuracy outside of 0 to 1, and another that is not a finite
        number above 0."""
        # TODO 20.1: nan is neither below nor above anything.
        raise NotImplementedError("kata 20.1: Metrics.__post_init__")

    def gains(self, baseline: Metrics) -> tuple[float, float, float, float]:
        """How many times as good as the baseline, in the order of the fields; 2 is twice as good everywhere.

        ValueError, which speaks of the accuracy, for a baseline whose accuracy is 0.
        """
        # TODO 20.1: mine over its, or its over mine.
        raise NotImplementedError("kata 20.1: Metrics.gains")


def score(metrics: Metrics, baseline: Metrics, floor: float = 0.0) -> float:
    """The geometric mean of the four gains: 1 for the baseline itself. 0 where the accuracy is below `floor`.

    ValueError as of `gains`, whatever the accuracy.
    """
    # TODO 20.2: the fourth root of the product; but gains may be so far from 1 that their product overflows,
    # so take the root of each. A quarter of the latency makes up for four times the memory.
    raise NotImplementedError("kata 20.2: score")


# Measuring here, in this process.


def answer(model: Model, images: Array) -> Array:
    """What `model` says to images (n, ...): logits (n, classes), in a new C-contiguous np.ndarray of floats.

    It has memory of its own. A Module gets a Tensor; it is used, not trained, and nothing is recorded;
    afterwards each module trains or does not, as before, also after an error. Anything else is called with
    the array. What comes back may be a Tensor or whatever np.asarray takes; float64 stays, all else becomes
    float32. So nothing is left to be worked out later, and a model may write over its own buffers at the next
    call.

    ValueError, naming the shape, for what has not two axes, a row for each image, and a class at least;
    TypeError, naming the dtype, for what are no real numbers.
    """
    # TODO 20.3: `training` of each module is remembered, as in kata 10; then np.array, which copies.
    raise NotImplementedError("kata 20.3: answer")


def share_right(logits: Array, labels: Any) -> float:
    """In which part of the rows of logits (n, classes) the largest is that of the label (n,).

    Of equal ones the first counts. A row with a nan is wrong. ValueError, naming both shapes, where they do
    not fit, and for no rows.
    """
    # TODO 20.4: argmax finds a nan, too, and takes it for the largest.
    raise NotImplementedError("kata 20.4: share_right")


def accuracy_of(model: Model, images: Array, labels: Any, batch: int = 256) -> float:
    """`share_right` of the model's answers, `batch` images at a time: activations of all would take too much.

    ValueError as of `share_right` and `answer`, and for a `batch` below 1, naming it.
    """
    # TODO 20.4: keep the logits, not what led to them.
    raise NotImplementedError("kata 20.4: accuracy_of")


class Latency(NamedTuple):
    """The median of `ratios`, candidate's time / baseline's; and all the candidate's answers, in order."""

    ratio: float
    ratios: list[float]
    answers: list[Array]


def latency_ratio(
    candidate: Model,
    baseline: Model,
    batches: Iterable[Array],
    clocks: tuple[Clock, Clock] = (time.process_time, time.process_time),
) -> Latency:
    """How many times as long the candidate takes as the baseline, on the same batches, in turn.

    Each gets a copy of its own of each batch, which is made outside the clock, and inside the clock has to
    `answer` all of it. The first batch warms up: it counts among the answers, not among the ratios. Of the
    others, the candidate is first in every second one, beginning with the second of all batches. `clocks` are
    the candidate's and the baseline's. Batches are taken from the iterable one by one.

    ValueError, naming how many there were, for fewer than two batches; and one that speaks of the clock where
    it saw no time go by at a baseline's turn, the first of all left out.
    """

    # TODO 20.5: what disturbs one of a pair disturbs the other, so divide within pairs, then take the median.
    raise NotImplementedError("kata 20.5: latency_ratio")


def peak_memory(build: Callable[[], Model], images: Array) -> int:
    """Bytes, by tracemalloc, of a model from its beginning to its answer, at the worst moment.

    `build()` makes the model, so its weights count. All is done once before, untraced, so that what Python
    remembers of a first time does not count, nor does garbage of before, which is collected. Whoever was
    tracing goes on tracing; else nobody does afterwards, also after an error.
    """
    # TODO 20.6: reset_peak, then the peak less what was held before.
    raise NotImplementedError("kata 20.6: peak_memory")


# Which are the best? Of four metrics, there is a front.


def costs(metrics: Metrics) -> tuple[float, float, float, float]:
    """Four numbers of which less is better. Given."""
    return -metrics.accuracy, metrics.latency, metrics.memory, metrics.size


def dominates(a: Metrics, b: Metrics) -> bool:
    """Whether `a` is worse than `b` in nothing, and better in something."""
    # TODO 20.7: `costs` makes all four of one kind.
    raise NotImplementedError("kata 20.7: dominates")


def pareto_front(entries: Iterable[T], key: Callable[[T], Metrics] | None = None) -> list[T]:
    """Those entries that no other dominates, in the order in which they came; of equal ones, all.

    `key` gives an entry's Metrics, and is asked once for each; without it, the entries are Metrics.
    """
    # TODO 20.7: sorted by all four costs, an entry can be dominated only by one before it that is on the
    # front.
    raise NotImplementedError("kata 20.7: pareto_front")


def hypervolume(points: Any, reference: Any) -> float:
    """How much of the space above `reference` (d,) lies below one of `points` (n, d) at least: boxes, joined.

    More is better of each number here, as of gains. A point that is not above the reference in each number
    adds nothing, and no points have a volume of 0. ValueError, naming both shapes, if they do not fit, and
    for d = 0.
    """
    # TODO 20.8: along the last axis, between two neighbouring heights, it is the hypervolume of one axis
    # less.
    raise NotImplementedError("kata 20.8: hypervolume")


def _volume(boxes: Array) -> float:
    # TODO 20.8: one axis: the longest. More: slices from the highest to the lowest, each with all boxes so
    # far.
    raise NotImplementedError("kata 20.8: _volume")


# Recipes, and a search among them.


def apply_recipe(model: Module, steps: Iterable[str], recipes: Mapping[str, Recipe]) -> Module:
    """The model after all steps, one after the other; `model` itself, which is copied, stays as it is.

    A step is a recipe's name, or a name and numbers: "prune:0.5" is recipes["prune"](model, 0.5), and "x:1:2"
    recipes["x"](model, 1.0, 2.0). ValueError, with the step in quotes (its repr), for an unknown name (with
    the known ones) and for what is no number; then nothing has been done.
    """
    # TODO 20.9: read all of the steps; then copy once.
    raise NotImplementedError("kata 20.9: apply_recipe")


@dataclass(frozen=True)
class Found:
    """What a search tried: the steps, and what they led to."""

    steps: tuple[str, ...]
    metrics: Metrics


def search(
    model: Module,
    steps: Sequence[str],
    recipes: Mapping[str, Recipe],
    evaluate: Callable[[Module], Metrics],
    *,
    budget: int,
    beam: int = 2,
    floor: float = 0.0,
) -> list[Found]:
    """The Pareto front of what a beam search finds, in the order in which it was evaluated.

    It begins with the model as it is, and no steps, whose metrics are the baseline. Then, round by round:
    each of at most `beam` models that the round before left is tried with each of `steps`, in this order,
    that it has not had yet. Of what a round tried, it leaves the `beam` with the best `score`, the best
    first, of equal ones the earlier; what scores 0 is left out. A recipe that raises ValueError cannot be
    used there, and counts as not tried; its other errors are heard, and all of `evaluate`. It ends when a
    round leaves nothing, or `evaluate` has been called `budget` times. What is below `floor` is not on the
    front.

    No more than 2 * beam + 1 models are held at a time. ValueError for a budget or a beam below 1, naming
    which of them, and the number.
    """
    # TODO 20.10: a model's steps are already in it, so one more is applied to it, not all to the first.
    raise NotImplementedError("kata 20.10: search")


# A model as data.


@dataclass(frozen=True)
class Kind:
    """How layers of one class are written down.

    Attributes:
        name: what a file calls them.
        layer: the class.
        describe: layer -> (settings that json can write, arrays by name).
        build: (settings, arrays) -> layer.
    """

    name: str
    layer: type[Module]
    describe: Callable[[Any], tuple[dict[str, Any], dict[str, Array]]]
    build: Callable[[dict[str, Any], dict[str, Array]], Module]


KINDS: dict[str, Kind] = {}


def register_kind(kind: Kind) -> None:
    """From now on `describe` and `rebuild` know this kind. ValueError if its name is taken by another class.
    Given."""
    if KINDS.setdefault(kind.name, kind).layer is not kind.layer:
        raise ValueError(f"layers called {kind.name!r} are {KINDS[kind.name].layer.__name__}")
    KINDS[kind.name] = kind


def build_linear(settings: dict[str, Any], arrays: dict[str, Array]) -> Linear:
    """A Linear from its weight and, if there is one, its bias. Given."""
    outputs, inputs = arrays["weight"].shape
    layer = Linear(inputs, outputs, bias=False, rng=np.random.default_rng(0))
    layer.weight = Parameter(arrays["weight"].astype(np.float32))
    layer.bias = Parameter(arrays["bias"].astype(np.float32)) if "bias" in arrays else None
    return layer


def plain(layer: Module) -> tuple[dict[str, Any], dict[str, Array]]:
    """Of a layer without settings: its state. Given."""
    return {}, layer.state_dict()


def build_plain(layer: type[Module], settings: dict[str, Any], arrays: dict[str, Array]) -> Module:
    """A layer that has neither settings nor arrays. Given."""
    return layer()


register_kind(Kind("linear", Linear, plain, build_linear))
register_kind(
    Kind(
        "leaky_relu",
        LeakyReLU,
        lambda layer: ({"negative_slope": layer.negative_slope}, {}),
        lambda settings, arrays: LeakyReLU(settings["negative_slope"]),
    )
)
for _name, _class in {"relu": ReLU, "gelu": GELU, "sigmoid": Sigmoid, "tanh": Tanh}.items():
    register_kind(Kind(_name, _class, plain, functools.partial(build_plain, _class)))


def describe(model: Module) -> tuple[list[dict[str, Any]], dict[str, Array]]:
    """The layers of a model in order, as dicts, and their arrays, called "0.weight" after the layer's place.

    A dict has the layer's "kind" and its settings. Arrays are the model's own, not copies. A model may be a
    single layer. Sequentials are opened, also within each other; Dropout, which does nothing in use, is left
    out, and takes no place. A layer's class must be exactly that of a kind: what inherits from Linear,
    Sequential or Dropout may compute something else. ValueError, naming the class and the kinds, if not.
    """

    # TODO 20.11: first the layers, one after the other, whatever they were nested in.
    raise NotImplementedError("kata 20.11: describe")


def rebuild(layers: Sequence[Mapping[str, Any]], arrays: Mapping[str, Array]) -> Sequential:
    """The model that `describe` wrote down, in use and not in training.

    Refused: an unknown kind or none (its repr, and the known ones, are named); what a kind cannot build from
    these settings and arrays, whatever it raises (the kind is named); an array that belongs to no layer (its
    name is). Nothing that is given changes.
    """
    # TODO 20.11: give each layer the arrays whose names begin with its place and a dot, without that.
    raise NotImplementedError("kata 20.11: rebuild")


# A submission: one file.

FORMAT = 1
LIMIT = 64 << 20  # bytes of a file
MEMBERS = 1000  # of a file
ABOUT, CODE = "submission.json", "model.py"
ARRAY = re.compile(r"arrays/([A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*)\.npy")
WORDS = 80  # characters of a name


@dataclass(frozen=True, eq=False)
class Submission:
    """What somebody enters: a model as layers, or as code of its own, with its arrays.

    Attributes:
        name, author: 1 to 80 printable characters.
        arrays: by name: letters, digits and _, also with dots between them.
        layers: as of `describe`; empty if there is code.
        code: a Python file with `build(arrays)`, which gives a callable: images in, logits out; or "".
        recipe: the steps that led here, in words, for the reader.
        claims: what its author measured; None for a baseline.
    """

    name: str
    author: str
    arrays: Mapping[str, Array]
    layers: Sequence[Mapping[str, Any]] = ()
    code: str = ""
    recipe: tuple[str, ...] = ()
    claims: Metrics | None = None

    def __post_init__(self) -> None:
        """Refused for what the attributes above do not allow, naming it, and for layers and code together, or
        neither. Given."""
        for what in ("name", "author"):
            text = getattr(self, what)
            if not (isinstance(text, str) and 0 < len(text) <= WORDS and text.isprintable()):
                raise Refused(f"the {what} is 1 to {WORDS} printable characters, not {text!r:.100}")
        for name, array in self.arrays.items():
            if not ARRAY.fullmatch(f"arrays/{name}.npy"):
                raise Refused(f"{name!r} is no name for an array")
            if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
                raise Refused(f"{name} is no array of numbers, but {getattr(array, 'dtype', type(array))}")
        if bool(self.layers) == bool(self.code):
            raise Refused("a submission has layers or code, one of the two")

    def build(self) -> Model:
        """The model. Code is run: with all that you may do on this computer. Given."""
        if not self.code:
            return rebuild(self.layers, self.arrays)
        names: dict[str, Any] = {"__name__": "model"}
        exec(compile(self.code, CODE, "exec"), names)
        model: Model = names["build"](dict(self.arrays))
        return model


def write_submission(path: str | os.PathLike[str], submission: Submission) -> int:
    """Write one zip file, stored and not compressed, and return its bytes. Nothing is pickled.

    Its members: submission.json, model.py if there is code, and arrays/NAME.npy for each array, sorted by
    name. The JSON has "format" (1), "name", "author", "layers", "recipe", and "claims", a dict of the four
    metrics or null. Equal submissions give equal bytes: each member has the date 1980-01-01. Arrays may be
    of any layout, and are written without a second copy of all of them.

    The file is there whole or not at all, and what was there before stays if writing fails.
    """
    # TODO 20.12: as in kata 05; but ZipInfo(name) has that date, and ZipFile.open takes a ZipInfo.
    raise NotImplementedError("kata 20.12: write_submission")


def read_submission(path: str | os.PathLike[str], limit: int = LIMIT) -> Submission:
    """What `write_submission` wrote, by somebody who is not to be trusted: nothing is run, nothing is
    unpickled, nothing is unpacked to the disk, and no more memory is taken than twice the file's bytes.

    Refused, naming the file and saying why: it is larger than `limit` bytes (both are named; then it is not
    even opened); it is no zip file, or damaged; it has more than 1,000 members, one twice, members that share
    bytes or want a password, or, by its name, one that is none of those above ("../x" is one), or one that is
    compressed (ten bytes may become gigabytes); its JSON is none, or of another format, or what is in it is
    no Submission or no Metrics; an array holds objects, or its header promises other than what is there.
    FileNotFoundError if there is no file.
    """
    # TODO 20.13: look at sizes, names and compress_type of `infolist()` before you read any. BytesIO and
    # np.lib.format read a header; np.frombuffer takes the rest as it is.
    raise NotImplementedError("kata 20.13: read_submission")


def _array(raw: bytes) -> Array:
    """The array of a .npy file. ValueError if it holds objects, or another number of bytes than it says."""
    # TODO 20.13: read_magic, then read_array_header_1_0 or _2_0.
    raise NotImplementedError("kata 20.13: _array")


def digest(path: str | os.PathLike[str]) -> str:
    """Sixteen hex digits of the sha256 of a file: another file has others. Given."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


# Another process, and what goes to and fro: a line of JSON, then the numbers.

HEADER = 8000  # bytes: 500 characters, each of which JSON may write as 12


def write_frame(stream: BinaryIO, message: Array | str) -> None:
    """One line of JSON, {"dtype": "<f4", "shape": [2, 3]}, then the array's bytes in C order; or, for a text,
    {"text": "..."} and nothing, cut to 500 characters. Then the stream is flushed.

    Arrays may be of any layout; TypeError, naming the dtype, for what are no bools, ints or floats.
    """
    # TODO 20.14: `dtype.str` also says which byte comes first.
    raise NotImplementedError("kata 20.14: write_frame")


def read_frame(stream: BinaryIO, limit: int = LIMIT) -> Array | str:
    """The next array, which can be written to, or text.

    EOFError if the stream is at its end. Refused, saying why: it ends within a frame, and how many bytes too
    early (or without the end of the header's line); the header is none, whatever json or numpy say to it, or
    longer than HEADER bytes; a dtype that is none of bools, ints and floats; an array of more than `limit`
    bytes, with a negative axis, or that numpy cannot make, with its shape as a tuple. The array is made only
    when all of that is right, and once.
    """
    # TODO 20.14: readline takes a limit. readinto fills as much of an array as has come, so ask again.
    raise NotImplementedError("kata 20.14: read_frame")


def serve(build: Callable[[], Model], reading: BinaryIO, writing: BinaryIO) -> None:
    """In the other process: make the model, say "ready", and `answer` each array that comes, until nothing
    more comes.

    To the text "memory" the answer is an array of one number, int64: the `peak_memory` on the last images,
    0 if there were none. If making or asking the model raises an Exception, its text goes back, as "KIND:
    message", and that is the end. Answers are not kept.
    """
    # TODO 20.15: one loop, and everything that the model does inside of one try.
    raise NotImplementedError("kata 20.15: serve")


# What submissions may not do in their process: start others, and talk to others. A fence, not a wall.
FENCED = ("os.fork", "os.posix_spawn", "os.spawn", "os.exec", "os.system", "subprocess.Popen", "socket.")


def fence(event: str, args: object) -> None:
    """An audit hook: PermissionError for what starts with one of FENCED. Given."""
    if event.startswith(FENCED):
        raise PermissionError(f"{event} is not allowed to a submission")


def work(path: str, setup: str) -> None:  # elsewhere: in the process of a Worker
    """What the other process does. Given."""
    frames = os.fdopen(os.dup(1), "wb")  # what a model prints is no answer: it goes elsewhere
    os.dup2(2, 1)
    if setup:
        runpy.run_path(setup)
    write_frame(frames, "here")
    read_frame(sys.stdin.buffer)  # until this process was weighed, without the submission
    sys.addaudithook(fence)
    serve(lambda: read_submission(path).build(), sys.stdin.buffer, frames)


class Worker:
    """A submission's model in a process of its own: call it with images, and it gives logits. Given.

        with Worker("mine.zip") as model:
            logits = model(images)

    Refused, with the reason, if it cannot be built or asked, or needs longer than `seconds` for that. Files
    that `setup` names, a Python file, are run there first: it may register kinds of layers.
    """

    def __init__(
        self, path: str | os.PathLike[str], setup: str | os.PathLike[str] = "", seconds: float = 20.0
    ) -> None:
        self.seconds = seconds
        one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL", "VECLIB_MAXIMUM")}
        started = "import sys; from tinytorch.competition import work; work(*sys.argv[1:])"
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-c", started, os.fspath(path), os.fspath(setup)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, **one_thread, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self.before: int | None = None
        self.begun = False  # it starts while others do, and is waited for when it is asked
        self.given_up = False

    def __call__(self, images: Array) -> Array:
        got = self.ask(images)
        assert isinstance(got, np.ndarray)
        return got

    def ask(self, message: Array | str | None, expected: str = "") -> Array | str:
        """Send a message, and wait for the reply, which is an array unless a text is `expected`."""
        assert self.process.stdin
        assert self.process.stdout
        if not self.begun:
            self.begun = True
            self.ask(None, "here")
            self.before = self.resident("VmRSS")
            self.ask("go", "ready")
        late = threading.Timer(self.seconds, self.give_up)
        late.start()
        try:
            if message is not None:
                write_frame(self.process.stdin, message)  # type: ignore[arg-type]
            got = read_frame(self.process.stdout)  # type: ignore[arg-type]
        except (EOFError, OSError) as error:
            if self.given_up:
                raise Refused(f"no answer within {self.seconds:g} seconds") from error
            self.errors.seek(0)
            said = self.errors.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise Refused(f"its process ended: {said or 'without a word'}") from error
        finally:
            late.cancel()
            late.join()
        if isinstance(got, str) != bool(expected) or (expected and got != expected):
            raise Refused(f"it said {got!r:.300}")
        return got

    def give_up(self) -> None:
        self.given_up = True
        self.process.kill()

    def clock(self) -> float:
        """Seconds that its process, all its threads together, has computed; where no system tells, the
        time."""
        if sys.platform == "linux":
            return time.clock_gettime(~self.process.pid << 3 | 2)  # clock_getcpuclockid(3)
        return time.perf_counter()  # elsewhere: not on Linux

    def resident(self, field: str) -> int | None:
        """Bytes of its memory that are in use now (VmRSS) or were at the worst moment (VmHWM), mapped files
        included; None where no system tells."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except FileNotFoundError:  # elsewhere: not on Linux
            return None
        found = re.search(rf"{field}:\s+(\d+) kB", status)
        return int(found[1]) << 10 if found else None

    def memory(self, measure: str) -> int:
        """Bytes of the model at the worst moment so far, by the system ("resident"), or "traced" by
        itself."""
        now = self.resident("VmHWM") if measure == "resident" else None
        if now is not None and self.before is not None:
            return max(1, now - self.before)
        got = self.ask("memory")
        assert isinstance(got, np.ndarray)
        return max(1, int(got[0]))

    def close(self) -> None:
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            with suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        self.process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


# Verifying.


class Tolerance(NamedTuple):
    """What a claim may be off: points of accuracy; a factor of the others, for computers differ."""

    accuracy: float = 0.02
    latency: float = 1.3
    memory: float = 1.3
    size: float = 1.01


ALLOWED = Tolerance()


def broken_claims(claimed: Metrics, measured: Metrics, tolerance: Tolerance = ALLOWED) -> list[str]:
    """A sentence for each metric that is worse than claimed, beyond the tolerance; it names the metric and
    both numbers.

    An accuracy may be `tolerance.accuracy` below what was claimed, and the others `tolerance`'s factor above.
    Better than claimed is no fault.
    """
    # TODO 20.16: for one metric a difference, for three a quotient.
    raise NotImplementedError("kata 20.16: broken_claims")


@dataclass(frozen=True)
class Verdict:
    """What was measured of a submission and, in the same run, of the baseline.

    `measure` says how memory was: "resident" (the whole process, by the system) or "traced" (by tracemalloc).
    """

    digest: str
    metrics: Metrics
    baseline: Metrics
    score: float
    measure: str


def verify(
    path: str | os.PathLike[str],
    baseline: str | os.PathLike[str],
    draw: Draw,
    *,
    floor: float = 0.0,
    rounds: int = 15,
    seed: int | None = None,
    limit: int = LIMIT,
    seconds: float = 20.0,
    allow_code: bool = False,
    setup: str | os.PathLike[str] = "",
    measure: str = "resident",
    tolerance: Tolerance = ALLOWED,
) -> Verdict:
    """Measure a submission beside the baseline's file, each in a fresh process, on inputs that nobody knew.

    `draw(rng)` gives fresh images and labels; it is called `rounds` + 1 times, once a batch, with a
    generator of `seed`, or of a seed that nobody knows if that is None. Latency is that of `latency_ratio`
    between two Workers, by their own clocks. Accuracy is that of all the answers that were clocked, and of
    the first batch, no others. Memory is that of `Worker.memory`; where the system tells nothing of
    resident memory, it is traced. Size is that of the file.

    Refused, saying why: as of `read_submission` (with `limit`, which is LIMIT at most) and Worker; code
    without `allow_code`, with that word in the message; and, all together and with the file's name, an
    accuracy below `floor`, which is named, and broken claims. No process is left behind.
    """
    # TODO 20.17: read it first: what is refused there needs no process. Labels come with images: keep them.
    raise NotImplementedError("kata 20.17: verify")


# The leaderboard: one file, many processes.

PATIENCE = 30.0  # seconds to wait for other processes
SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    digest TEXT PRIMARY KEY, name TEXT NOT NULL, author TEXT NOT NULL, recipe TEXT NOT NULL,
    accuracy REAL NOT NULL, latency REAL NOT NULL, memory REAL NOT NULL, size REAL NOT NULL,
    score REAL NOT NULL, time REAL NOT NULL
)"""
COLUMNS = "digest, name, author, recipe, accuracy, latency, memory, size, score, time"


class DamagedLeaderboard(ValueError):
    """A file that is no leaderboard, or no longer a whole one; the message says how to get it back."""


@dataclass(frozen=True)
class Entry:
    """A row of the leaderboard. `time` is in seconds since 1970."""

    digest: str
    name: str
    author: str
    metrics: Metrics
    score: float
    recipe: tuple[str, ...] = ()
    time: float = field(default_factory=time.time)


def in_wal(database: sqlite3.Connection) -> None:
    """Put the file into WAL mode, in which it stays. Given.

    It is the one change for which SQLite does not wait: it wants the file for itself, and fails at once
    if somebody else is opening it. So it is tried again, for PATIENCE.
    """
    end = time.monotonic() + PATIENCE
    while database.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


class Leaderboard:
    """Entries in one SQLite file, which any number of processes may read and write at the same time.

    It is made if it is not there. An entry's recipe is a list in JSON. Its journal is WAL, so that nobody who
    reads waits for one who writes; who writes waits for others up to 30 seconds.

    DamagedLeaderboard from any method, from the first one on, naming the file and `Leaderboard.restore`, if
    the file is something else (also where its table `entries` has other columns) or damaged. What is in
    such a file stays in it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # TODO 20.18: `in_wal`, and the table, if it is not there.
        raise NotImplementedError("kata 20.18: Leaderboard.__init__")

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        """A connection for the time of a block, each statement a transaction; DamagedLeaderboard for
        sqlite3's errors but for a lock that was waited for in vain. Given."""
        try:
            with closing(sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)) as database:
                yield database
        except sqlite3.DatabaseError as error:
            if "locked" in str(error) or "unable to open" in str(error):
                raise
            raise DamagedLeaderboard(
                f"{self.path} is no leaderboard, or is damaged: {error}. "
                f"Leaderboard.restore(BACKUP, {str(self.path)!r}) puts a backup in its place"
            ) from error

    def add(self, entry: Entry) -> bool:
        """Enter it, at once and for good; False, and nothing changes, if its digest is there already."""
        # TODO 20.18: the primary key knows: INSERT OR IGNORE. Values go in by ?, never into the text.
        raise NotImplementedError("kata 20.18: Leaderboard.add")

    def entries(self) -> list[Entry]:
        """All, the best score first; of equal ones the earliest, then by digest."""
        # TODO 20.18: ORDER BY.
        raise NotImplementedError("kata 20.18: Leaderboard.entries")

    def front(self) -> list[Entry]:
        """The Pareto front of the entries, the best score first."""
        # TODO 20.18: you have both.
        raise NotImplementedError("kata 20.18: Leaderboard.front")

    def check(self) -> None:
        """DamagedLeaderboard if anything in the file is not as it should be: pages, indices, or entries."""
        # TODO 20.19: PRAGMA integrity_check gives one row, "ok"; and the entries must be entries.
        raise NotImplementedError("kata 20.19: Leaderboard.check")

    def backup(self, path: str | os.PathLike[str]) -> None:
        """A whole copy at `path`, while others may go on writing; in place of what was there, when it is
        done. If it cannot be, nothing else is left behind.

        It is checked first: a damaged leaderboard does not replace a good backup.
        """
        # TODO 20.19: what the file holds is not all: some is in the WAL. Connection.backup knows.
        raise NotImplementedError("kata 20.19: Leaderboard.backup")

    @classmethod
    def restore(cls, backup: str | os.PathLike[str], path: str | os.PathLike[str]) -> Leaderboard:
        """The leaderboard at `path`, as it was when `backup` was made.

        What is at `path` is not lost: it becomes PATH.damaged, or PATH.damaged.1 and so on, if that is there.
        Its -wal and -shm files go with it. The backup is checked first, and stays; FileNotFoundError if it is
        not there, DamagedLeaderboard if it is none, both naming it, and then nothing has changed.
        """
        # TODO 20.19: first the backup; then names that are free; then move, and copy. An old WAL would be
        # played into the new file.
        raise NotImplementedError("kata 20.19: Leaderboard.restore")
