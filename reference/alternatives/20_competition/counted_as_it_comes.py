"""Kata 20 in another manner: what is beaten is taken away, volume by cells of a grid, a heap of the best,
headers read by hand, and counts instead of lists."""

from __future__ import annotations

import ast
import copy
import functools
import gc
import hashlib
import heapq
import io
import json
import math
import operator
import os
import re
import runpy
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
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
    """Given."""


# Four metrics.


@dataclass(frozen=True)
class Metrics:
    accuracy: float
    latency: float
    memory: float
    size: float

    def __post_init__(self) -> None:
        if math.isnan(self.accuracy) or self.accuracy < 0 or self.accuracy > 1:
            raise ValueError(f"accuracy: {self.accuracy} is not from 0 to 1")
        for name, value in (("latency", self.latency), ("memory", self.memory), ("size", self.size)):
            if not math.isfinite(value) or value <= 0:
                raise ValueError(f"{name}: {value} is not above 0, or without an end")

    def gains(self, baseline: Metrics) -> tuple[float, float, float, float]:
        mine, theirs = costs(self), costs(baseline)
        if theirs[0] == 0:
            raise ValueError("accuracy of the baseline: 0")
        return mine[0] / theirs[0], theirs[1] / mine[1], theirs[2] / mine[2], theirs[3] / mine[3]


def score(metrics: Metrics, baseline: Metrics, floor: float = 0.0) -> float:
    a, b, c, d = metrics.gains(baseline)
    passed = metrics.accuracy >= floor
    return math.sqrt(math.sqrt(a) * math.sqrt(b)) * math.sqrt(math.sqrt(c) * math.sqrt(d)) if passed else 0.0


# Measuring here, in this process.


def answer(model: Model, images: Array) -> Array:
    with ExitStack() as stack:
        asked: Any = images
        if isinstance(model, Module):
            for module in model.modules():
                stack.callback(setattr, module, "training", module.training)
                module.training = False
            stack.enter_context(no_grad())
            asked = Tensor(images)
        out = model(asked)
    given = as_float(out.data if isinstance(out, Tensor) else out)
    if given.shape[:1] != (len(images),) or given.ndim != 2 or given.shape[1] < 1:
        raise ValueError(f"{given.shape} for {len(images)} images")
    plain_one = np.empty(given.shape, given.dtype)
    plain_one[...] = given
    return plain_one


def as_float(out: Any) -> Array:
    """An array of float32 or float64; TypeError for what has no numbers."""
    array = np.asarray(out)
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise TypeError(f"logits of {array.dtype}")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def share_right(logits: Array, labels: Any) -> float:
    labels = as_array(labels)
    if not (logits.ndim == 2 and labels.ndim == 1 and 0 < len(labels) == len(logits)):
        raise ValueError(f"logits {logits.shape}, labels {labels.shape}")
    said = np.argmax(logits, axis=1)
    sure = logits.sum(axis=1) == logits.sum(axis=1)
    sure |= (logits == logits).all(axis=1)
    return float((sure & (said == labels)).sum() / len(labels))


def accuracy_of(model: Model, images: Array, labels: Any, batch: int = 256) -> float:
    if batch <= 0:
        raise ValueError(f"{batch} images are no batch")
    logits: Array | None = None
    for start in range(0, len(images), batch):
        part = answer(model, images[start : start + batch])
        if logits is None:
            logits = np.empty((len(images), part.shape[1]), part.dtype)
        logits[start : start + batch] = part
    if logits is None:
        raise ValueError("no images")
    return share_right(logits, labels)


class Latency(NamedTuple):
    ratio: float
    ratios: list[float]
    answers: list[Array]


def latency_ratio(
    candidate: Model,
    baseline: Model,
    batches: Iterable[Array],
    clocks: tuple[Clock, Clock] = (time.process_time, time.process_time),
) -> Latency:
    def timed(model: Model, clock: Clock, images: Array) -> tuple[float, Array]:
        own = images.copy()
        started = clock()
        said = answer(model, own)
        return clock() - started, said

    answers: list[Array] = []
    ratios: list[float] = []
    candidate_first = False
    stream = iter(batches)
    while True:
        images = next(stream, None)
        if images is None:
            break
        if candidate_first:
            mine, said = timed(candidate, clocks[0], images)
            theirs, _ = timed(baseline, clocks[1], images)
        else:
            theirs, _ = timed(baseline, clocks[1], images)
            mine, said = timed(candidate, clocks[0], images)
        candidate_first = not candidate_first
        if answers:
            if not theirs:
                raise ValueError("this clock does not tell such short times")
            ratios.append(mine / theirs)
        answers.append(said)
    if len(answers) < 2:
        raise ValueError(f"not enough batches: {len(answers)}")
    in_order = sorted(ratios)
    low, high = in_order[(len(ratios) - 1) // 2], in_order[len(ratios) // 2]
    return Latency((low + high) / 2, ratios, answers)


def peak_memory(build: Callable[[], Model], images: Array) -> int:
    def once() -> Array:
        return answer(build(), images)

    once()
    gc.collect()
    if tracemalloc.is_tracing():
        return _risen(once)
    tracemalloc.start()
    try:
        return _risen(once)
    finally:
        tracemalloc.stop()


def _risen(function: Callable[[], object]) -> int:
    tracemalloc.reset_peak()
    low = tracemalloc.get_traced_memory()[0]
    function()
    return tracemalloc.get_traced_memory()[1] - low


# Which are the best? Of four metrics, there is a front.


def costs(metrics: Metrics) -> tuple[float, float, float, float]:
    return -metrics.accuracy, metrics.latency, metrics.memory, metrics.size


def dominates(a: Metrics, b: Metrics) -> bool:
    mine, theirs = np.array(costs(a)), np.array(costs(b))
    return bool((mine <= theirs).all() and (mine != theirs).any())


def pareto_front(entries: Iterable[T], key: Callable[[T], Metrics] | None = None) -> list[T]:
    groups: dict[tuple[float, ...], list[int]] = {}
    listed = []
    for i, entry in enumerate(entries):
        listed.append(entry)
        metrics: Any = key(entry) if key is not None else entry
        groups.setdefault(costs(metrics), []).append(i)
    left = np.array(sorted(groups), float).reshape(-1, 4)
    on: list[int] = []
    while len(left):
        first = left[0]
        on += groups[tuple(first.tolist())]
        left = left[(left < first).any(axis=1)]  # what is nowhere better than `first` is beaten by it
    return [listed[i] for i in sorted(on)]


def hypervolume(points: Any, reference: Any) -> float:
    boxes, low = np.asarray(points, float), np.asarray(reference, float)
    if boxes.ndim != 2 or low.shape != (boxes.shape[1],) or boxes.shape[1] == 0:
        raise ValueError(f"{boxes.shape} and {low.shape} do not fit")
    boxes = boxes[(boxes > low).all(axis=1)]
    # All edges of all boxes make a grid of cells, each of which is inside of a box or not.
    edges = [np.unique(np.append(boxes[:, axis], low[axis])) for axis in range(len(low))]
    inside = np.zeros([len(edge) - 1 for edge in edges], bool)
    for box in boxes:
        ends = [int(np.searchsorted(edge, x)) for edge, x in zip(edges, box, strict=True)]
        inside[tuple(slice(0, end) for end in ends)] = True
    cells: Any = inside.astype(float)
    for edge in reversed(edges):
        cells = cells @ np.diff(edge)
    return float(cells)


# Recipes, and a search among them.


def apply_recipe(model: Module, steps: Iterable[str], recipes: Mapping[str, Recipe]) -> Module:
    steps = list(steps)
    names = [step.split(":")[0] for step in steps]
    for step, name in zip(steps, names, strict=True):
        if name not in recipes:
            raise ValueError(f"unknown: {step!r}. Known: {', '.join(sorted(recipes))}")
    numbers = [[_number(step, text) for text in step.split(":")[1:]] for step in steps]
    made = copy.deepcopy(model)
    for name, given in zip(names, numbers, strict=True):
        made = recipes[name](made, *given)
    return made


def _number(step: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} in {step!r} is no number") from None


@dataclass(frozen=True)
class Found:
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
    for words, number in {"budget": budget, "beam": beam}.items():
        if number <= 0:
            raise ValueError(f"{words}={number}")
    base = evaluate(model)
    found = {(): base}
    left: dict[tuple[str, ...], Module] = {(): model}
    while left and len(found) < budget:
        # Whoever may still be among the best is kept with its model; the others were let go of.
        ranked: list[tuple[float, int, tuple[str, ...], Module]] = []
        for done in left:
            for step in steps:
                path = (*done, step)
                if step in done or len(found) >= budget:
                    continue
                try:
                    made = apply_recipe(left[done], (step,), recipes)
                except ValueError:
                    continue
                found[path] = evaluate(made)
                value = score(found[path], base, floor)
                if value:
                    heapq.heappush(ranked, (value, -len(found), path, made))
                    while len(ranked) > beam:
                        heapq.heappop(ranked)
                made = model
        left = {path: made for _, _, path, made in sorted(ranked, key=lambda one: (-one[0], -one[1]))}
    listed = [Found(path, metrics) for path, metrics in found.items() if not metrics.accuracy < floor]
    return pareto_front(listed, operator.attrgetter("metrics"))


# A model as data.


@dataclass(frozen=True)
class Kind:
    name: str
    layer: type[Module]
    describe: Callable[[Any], tuple[dict[str, Any], dict[str, Array]]]
    build: Callable[[dict[str, Any], dict[str, Array]], Module]


KINDS: dict[str, Kind] = {}


def register_kind(kind: Kind) -> None:
    if KINDS.setdefault(kind.name, kind).layer is not kind.layer:
        raise ValueError(f"layers called {kind.name!r} are {KINDS[kind.name].layer.__name__}")
    KINDS[kind.name] = kind


def build_linear(settings: dict[str, Any], arrays: dict[str, Array]) -> Linear:
    outputs, inputs = arrays["weight"].shape
    layer = Linear(inputs, outputs, bias=False, rng=np.random.default_rng(0))
    layer.weight = Parameter(arrays["weight"].astype(np.float32))
    layer.bias = Parameter(arrays["bias"].astype(np.float32)) if "bias" in arrays else None
    return layer


def plain(layer: Module) -> tuple[dict[str, Any], dict[str, Array]]:
    return {}, layer.state_dict()


def build_plain(layer: type[Module], settings: dict[str, Any], arrays: dict[str, Array]) -> Module:
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
    layers: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}

    def note(layer: Module) -> None:
        if layer.__class__ is Sequential:
            for inner in layer:  # type: ignore[attr-defined]
                note(inner)
            return
        if layer.__class__ is Dropout:
            return
        fitting = [kind for kind in KINDS.values() if kind.layer is layer.__class__]
        if not fitting:
            raise ValueError(f"no kind for {layer.__class__.__name__} among {', '.join(KINDS)}")
        settings, own = fitting[0].describe(layer)
        arrays.update((f"{len(layers)}.{name}", array) for name, array in own.items())
        layers.append(dict(settings, kind=fitting[0].name))

    note(model)
    return layers, arrays


def rebuild(layers: Sequence[Mapping[str, Any]], arrays: Mapping[str, Array]) -> Sequential:
    used: set[str] = set()
    made = []
    for place, layer in enumerate(layers):
        try:
            kind = KINDS[layer["kind"]]
        except (KeyError, TypeError) as error:
            kinds = ", ".join(KINDS)
            raise Refused(f"layer {place}: {layer.get('kind', None)!r} is not of {kinds}") from error
        prefix = f"{place}."
        names = [name for name in arrays if name.startswith(prefix)]
        used.update(names)
        own = {name[len(prefix) :]: arrays[name] for name in names}
        try:
            made.append(kind.build({k: layer[k] for k in layer if k != "kind"}, own))
        except Exception as error:
            raise Refused(f"layer {place} ({kind.name}): {error!r}") from error
    unknown = arrays.keys() - used
    if unknown:
        raise Refused(f"unused: {', '.join(sorted(unknown))}")
    return Sequential(*made).eval()


# A submission: one file.

FORMAT = 1
LIMIT = 64 << 20  # bytes of a file
MEMBERS = 1000  # of a file
ABOUT, CODE = "submission.json", "model.py"
ARRAY = re.compile(r"arrays/([A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*)\.npy")
WORDS = 80  # characters of a name


@dataclass(frozen=True, eq=False)
class Submission:
    name: str
    author: str
    arrays: Mapping[str, Array]
    layers: Sequence[Mapping[str, Any]] = ()
    code: str = ""
    recipe: tuple[str, ...] = ()
    claims: Metrics | None = None

    def __post_init__(self) -> None:
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
        if not self.code:
            return rebuild(self.layers, self.arrays)
        names: dict[str, Any] = {"__name__": "model"}
        exec(compile(self.code, CODE, "exec"), names)
        model: Model = names["build"](dict(self.arrays))
        return model


def write_submission(path: str | os.PathLike[str], submission: Submission) -> int:
    about: dict[str, Any] = {"format": 1}
    for name in ("name", "author"):
        about[name] = getattr(submission, name)
    about["layers"] = [{**layer} for layer in submission.layers]
    about["recipe"] = [*submission.recipe]
    about["claims"] = vars(submission.claims) if submission.claims else None
    beside = f"{os.fspath(path)}.{secrets.token_hex(4)}"
    try:
        with open(beside, "xb") as stream:
            with zipfile.ZipFile(stream, "w") as archive:

                def put(name: str, *pieces: Any) -> None:
                    with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                        for piece in pieces:
                            member.write(piece)

                put(ABOUT, json.dumps(about).encode())
                if submission.code:
                    put(CODE, submission.code.encode())
                for name in sorted(submission.arrays):
                    put(f"arrays/{name}.npy", *_pieces(submission.arrays[name]))
            stream.flush()
            os.fsync(stream.fileno())
            size = stream.tell()
        os.replace(beside, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(beside)
    return size


def _pieces(array: Array) -> Iterator[Any]:
    """What np.save would write: a header, and the bytes in C order."""
    stream = io.BytesIO()
    whole = np.asarray(array, order="C")
    header = {"descr": whole.dtype.str, "fortran_order": False, "shape": whole.shape}
    np.lib.format.write_array_header_1_0(stream, header)
    yield stream.getvalue()
    yield whole.reshape(-1).view(np.uint8).data


def read_submission(path: str | os.PathLike[str], limit: int = LIMIT) -> Submission:
    name = os.fspath(path)
    size = os.path.getsize(name)
    if size > limit:
        raise Refused(f"{name} has {size:,} bytes; {limit:,} are the most")
    try:
        with open(name, "rb") as stream, zipfile.ZipFile(stream) as archive:
            listed = archive.infolist()
            problem = _problem(listed, size)
            if problem:
                raise ValueError(problem)
            about: dict[str, Any] = json.loads(str(archive.read(ABOUT), "utf-8"))
            if about["format"] != 1:
                raise ValueError(f"format {about['format']!r}")
            arrays = {}
            code = ""
            for member in listed:
                found = ARRAY.match(member.filename)
                if found:
                    arrays[found.group(1)] = _array(archive.read(member))
                elif member.filename == CODE:
                    code = str(archive.read(member), "utf-8")
            given = {key: about[key] for key in ("name", "author")}
            layers = [dict(layer.items()) for layer in about["layers"]]
            claims = about["claims"] and Metrics(**about["claims"])
            return Submission(
                **given, arrays=arrays, layers=layers, code=code, recipe=tuple(about["recipe"]), claims=claims
            )
    except Exception as error:
        raise Refused(f"{name} is refused: {error or type(error).__name__}") from error


def _problem(members: list[zipfile.ZipInfo], size: int) -> str:
    if len(members) > MEMBERS:
        return f"{len(members)} members"
    names: set[str] = set()
    for member in members:
        name = member.filename
        if name != ABOUT and name != CODE and ARRAY.fullmatch(name) is None:
            return f"{name!r}"
        if name in names:
            return f"{name} is there more than once"
        if member.compress_type != 0 or member.compress_size != member.file_size or member.flag_bits & 1:
            return f"{name} is packed"
        names.add(name)
    return "too long" if sum(member.file_size for member in members) > size else ""


def _array(raw: bytes) -> Array:
    if raw[:6] != b"\x93NUMPY" or raw[6] not in (1, 2):
        raise ValueError("no .npy file")
    wide = 2 if raw[6] == 1 else 4
    end = 8 + wide + int.from_bytes(raw[8 : 8 + wide], "little")
    header = ast.literal_eval(raw[8 + wide : end].decode("latin1"))
    dtype, shape = np.dtype(header["descr"]), tuple(header["shape"])
    if dtype.kind not in "biuf" or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"{dtype} {shape}")
    if math.prod(shape) * dtype.itemsize != len(raw) - end:
        raise ValueError(f"{len(raw) - end} bytes for {shape} of {dtype}")
    return np.ndarray(shape, dtype, raw, end, order="F" if header["fortran_order"] else "C")


def digest(path: str | os.PathLike[str]) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


# Another process, and what goes to and fro: a line of JSON, then the numbers.

HEADER = 8000  # bytes: 500 characters, each of which JSON may write as 12


def write_frame(stream: BinaryIO, message: Array | str) -> None:
    body = b""
    if isinstance(message, str):
        header: dict[str, Any] = {"text": message[:500]}
    elif np.issubdtype(message.dtype, np.complexfloating) or message.dtype.kind not in "?biuf":
        raise TypeError(f"{message.dtype}")
    else:
        header = {"dtype": message.dtype.str, "shape": list(message.shape)}
        body = message.tobytes()
    stream.write(json.dumps(header).encode())
    stream.write(b"\n")
    if body:
        stream.write(body)
    stream.flush()


def read_frame(stream: BinaryIO, limit: int = LIMIT) -> Array | str:
    line = stream.readline(HEADER + 1)
    if len(line) == 0:
        raise EOFError("the end")
    if len(line) > HEADER or line[-1] != 10:
        raise Refused(f"{len(line)} bytes without a header")
    try:
        header = json.loads(line)
        if "text" in header:
            text: str = header["text"]
            if not isinstance(text, str):
                raise TypeError("a text that is none")
            return text
        dtype = np.dtype(header["dtype"])
        shape = tuple(header["shape"])
        size = math.prod(shape) * dtype.itemsize
        good = dtype.kind in "biuf" and all(isinstance(n, int) and n >= 0 for n in shape)
        if len(shape) > 32 or math.prod(filter(None, shape)) > 1 << 60:
            raise OverflowError("more than numpy takes")
    except Exception as error:
        raise Refused(f"{line!r:.80}") from error
    if not good or size > limit:
        raise Refused(f"{dtype} of {shape}: {limit:,} bytes are the most")
    raw = bytearray(size)
    view = memoryview(raw)
    filled = 0
    while filled < size:
        more = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if more == 0:
            raise Refused(f"ends at {filled} of {size} bytes; {size - filled} are missing")
        filled += more
    return np.ndarray(shape, dtype, raw)


def serve(build: Callable[[], Model], reading: BinaryIO, writing: BinaryIO) -> None:
    def messages() -> Iterator[Array | str]:
        while True:
            try:
                message = read_frame(reading)
            except EOFError:
                break
            yield message

    try:
        model = build()
        write_frame(writing, "ready")
        last = None
        for message in messages():
            if not isinstance(message, str):
                last = message
                reply = answer(model, last)
            elif last is None:
                reply = np.zeros(1, np.int64)
            else:
                reply = np.array([peak_memory(build, last)], np.int64)
            write_frame(writing, reply)
            del reply
    except Exception as error:
        write_frame(writing, ": ".join((type(error).__name__, str(error))))


# What submissions may not do in their process: start others, and talk to others. A fence, not a wall.
FENCED = ("os.fork", "os.posix_spawn", "os.spawn", "os.exec", "os.system", "subprocess.Popen", "socket.")


def fence(event: str, args: object) -> None:
    if event.startswith(FENCED):
        raise PermissionError(f"{event} is not allowed to a submission")


def work(path: str, setup: str) -> None:
    frames = os.fdopen(os.dup(1), "wb")  # what a model prints is no answer: it goes elsewhere
    os.dup2(2, 1)
    if setup:
        runpy.run_path(setup)
    write_frame(frames, "here")
    read_frame(sys.stdin.buffer)  # until this process was weighed, without the submission
    sys.addaudithook(fence)
    serve(lambda: read_submission(path).build(), sys.stdin.buffer, frames)


class Worker:
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
        if sys.platform == "linux":
            return time.clock_gettime(~self.process.pid << 3 | 2)  # clock_getcpuclockid(3)
        return time.perf_counter()

    def resident(self, field: str) -> int | None:
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except FileNotFoundError:
            return None
        found = re.search(rf"{field}:\s+(\d+) kB", status)
        return int(found[1]) << 10 if found else None

    def memory(self, measure: str) -> int:
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
    accuracy: float = 0.02
    latency: float = 1.3
    memory: float = 1.3
    size: float = 1.01


ALLOWED = Tolerance()


def broken_claims(claimed: Metrics, measured: Metrics, tolerance: Tolerance = ALLOWED) -> list[str]:
    def sentence(name: str) -> str:
        return f"the {name} that was claimed is {getattr(claimed, name)}, and it is {getattr(measured, name)}"

    faults = [sentence("accuracy")] if claimed.accuracy - measured.accuracy > tolerance.accuracy else []
    for name in ("latency", "memory", "size"):
        if getattr(measured, name) / getattr(claimed, name) > getattr(tolerance, name):
            faults.append(sentence(name))
    return faults


@dataclass(frozen=True)
class Verdict:
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
    submission = read_submission(path, limit)
    if submission.code and not allow_code:
        raise Refused(f"{path}: code is run with allow_code only")
    rng = np.random.default_rng(secrets.randbits(64) if seed is None else seed)
    right = [0, 0]
    seen = 0
    with ExitStack() as stack:
        mine = stack.enter_context(Worker(path, setup, seconds))
        theirs = stack.enter_context(Worker(baseline, setup, seconds))
        labels: list[Any] = []

        def counted(which: int, worker: Worker) -> Model:
            def ask(images: Array) -> Array:
                nonlocal seen
                logits = answer(worker, images)
                right[which] += round(share_right(logits, labels[-1]) * len(images))
                seen += len(images)
                return logits

            return ask

        def drawn() -> Iterator[Array]:
            for _ in range(rounds + 1):
                images, truth = draw(rng)
                labels.append(truth)
                yield images

        ratio, _, _ = latency_ratio(counted(0, mine), counted(1, theirs), drawn(), (mine.clock, theirs.clock))
        if mine.resident("VmHWM") is None:
            measure = "traced"
        peaks = [mine.memory(measure), theirs.memory(measure)]
    seen //= 2
    found = Metrics(right[0] / seen, ratio, peaks[0], os.stat(path).st_size)
    base = Metrics(right[1] / seen, 1.0, peaks[1], os.stat(baseline).st_size)
    reasons = broken_claims(submission.claims, found, tolerance) if submission.claims is not None else []
    if floor > found.accuracy:
        reasons = [*reasons, f"the accuracy of {found.accuracy} does not reach {floor}"]
    if reasons:
        raise Refused(", ".join([f"{path} is refused", *reasons]))
    return Verdict(digest(path), found, base, score(found, base, floor), measure)


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


def _ends() -> Iterator[str]:
    """ ".1" to ".9999"."""
    return (f".{i}" for i in range(1, 10_000))


@dataclass(frozen=True)
class Entry:
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
    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with self.connected() as database:
            in_wal(database)
            database.execute(SCHEMA)
            columns = [row[1] for row in database.execute("PRAGMA table_info(entries)")]
            if set(COLUMNS.split(", ")) - set(columns):
                raise sqlite3.DatabaseError(f"its table has the columns {columns}")

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
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
        four = [getattr(entry.metrics, name) for name in ("accuracy", "latency", "memory", "size")]
        texts = [entry.digest, entry.name, entry.author, json.dumps(entry.recipe)]
        with self.connected() as database:
            before = database.total_changes
            database.execute(
                f"INSERT INTO entries ({COLUMNS}) VALUES ({'?, ' * 9}?) ON CONFLICT DO NOTHING",
                [*texts, *four, entry.score, entry.time],
            )
            return database.total_changes > before

    def entries(self) -> list[Entry]:
        with self.connected() as database:
            database.row_factory = sqlite3.Row
            found = database.execute("SELECT * FROM entries ORDER BY -score, time, digest").fetchall()
        entries = []
        for row in found:
            metrics = Metrics(**{name: row[name] for name in ("accuracy", "latency", "memory", "size")})
            fields = {name: row[name] for name in ("digest", "name", "author", "score", "time")}
            entries.append(Entry(metrics=metrics, recipe=tuple(json.loads(row["recipe"])), **fields))
        return entries

    def front(self) -> list[Entry]:
        return pareto_front(self.entries(), lambda entry: entry.metrics)

    def check(self) -> None:
        with self.connected() as database:
            for (line,) in database.execute("PRAGMA integrity_check").fetchall():
                if line != "ok":
                    raise sqlite3.DatabaseError(line)
        try:
            self.entries()
        except DamagedLeaderboard:
            raise
        except (ValueError, TypeError) as error:
            raise DamagedLeaderboard(
                f"{self.path} holds an entry that is none: {error}; Leaderboard.restore brings a backup back"
            ) from error

    def backup(self, path: str | os.PathLike[str]) -> None:
        self.check()
        target = Path(path)
        beside = target.with_name(f"{target.name}-{secrets.token_hex(4)}")
        try:
            copied = sqlite3.connect(beside, isolation_level=None)
            try:
                with self.connected() as database:
                    database.backup(copied, pages=64)
                copied.execute("PRAGMA journal_mode = DELETE").fetchall()
            finally:
                copied.close()
            os.replace(beside, target)
        finally:
            for end in ("", "-wal", "-shm", "-journal"):
                with suppress(FileNotFoundError):
                    os.unlink(f"{beside}{end}")

    @classmethod
    def restore(cls, backup: str | os.PathLike[str], path: str | os.PathLike[str]) -> Leaderboard:
        source, target = Path(backup), Path(path)
        source.stat()  # FileNotFoundError
        cls(source).check()
        aside = next(
            name
            for name in (target.with_name(f"{target.name}.damaged{end}") for end in ["", *_ends()])
            if not name.exists()
        )
        beside = target.with_name(f"{target.name}-{secrets.token_hex(4)}")
        cls(source).backup(beside)
        for end in ("", "-wal", "-shm"):
            old = Path(f"{target}{end}")
            if old.exists():
                old.replace(f"{aside}{end}")
        beside.replace(target)
        return cls(target)
