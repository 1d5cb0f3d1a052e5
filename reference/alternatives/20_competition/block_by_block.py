"""Kata 20 in another manner: logarithms, boxes by what each adds, blocks of all with all, sorted insertion,
and reads that are put together."""

from __future__ import annotations

import copy
import functools
import gc
import hashlib
import io
import json
import math
import os
import re
import runpy
import shutil
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
        bounds = {"accuracy": (0.0, 1.0)}
        for name, value in asdict(self).items():
            low, high = bounds.get(name, (5e-324, 1.7976931348623157e308))
            if math.isnan(value) or value < low or value > high:
                raise ValueError(f"{value} is no {name}")

    def gains(self, baseline: Metrics) -> tuple[float, float, float, float]:
        if baseline.accuracy == 0:
            raise ValueError("a baseline of accuracy 0")
        latency, memory, size = (
            getattr(baseline, name) / getattr(self, name) for name in ("latency", "memory", "size")
        )
        return self.accuracy / baseline.accuracy, latency, memory, size


def score(metrics: Metrics, baseline: Metrics, floor: float = 0.0) -> float:
    gains = np.array(metrics.gains(baseline))
    if metrics.accuracy < floor or metrics.accuracy == 0:
        return 0.0
    return float(np.exp(np.log(gains).mean()))


# Measuring here, in this process.


def answer(model: Model, images: Array) -> Array:
    out = _used(model, images) if isinstance(model, Module) else model(images)
    while isinstance(out, Tensor):
        out = out.data
    logits = np.array(out, copy=True, order="C", subok=False)
    kinds = {"i": np.float32, "u": np.float32, "f": np.float64 if logits.dtype == np.float64 else np.float32}
    if logits.dtype.kind not in kinds:
        raise TypeError(f"{logits.dtype}")
    rows, *classes = logits.shape or (None,)
    if rows != len(images) or len(classes) != 1 or classes[0] == 0:
        raise ValueError(f"{logits.shape}")
    return logits.astype(kinds[logits.dtype.kind], copy=False)


def _used(model: Module, images: Array) -> Any:
    modes = {}
    for path, module in model.named_modules():
        modes[path] = module.training
        module.training = False
    try:
        with no_grad():
            return model(Tensor(images))
    finally:
        for path, module in model.named_modules():
            module.training = modes[path]


def share_right(logits: Array, labels: Any) -> float:
    labels = np.asarray(labels.data if isinstance(labels, Tensor) else labels)
    if labels.ndim != 1 or logits.ndim != 2 or len(labels) != len(logits) or not len(labels):
        raise ValueError(f"{logits.shape} {labels.shape}")
    best = np.where(np.isnan(logits).sum(axis=1) == 0, logits.argmax(axis=1), -1)
    return int(np.count_nonzero(best == labels)) / len(labels)


def accuracy_of(model: Model, images: Array, labels: Any, batch: int = 256) -> float:
    if batch < 1:
        raise ValueError(f"batch {batch}")
    labels = as_array(labels)
    if labels.shape != (len(images),) or not len(images):
        raise ValueError(f"{images.shape} {labels.shape}")
    right = 0.0
    for start in range(0, len(images), batch):
        part = slice(start, start + batch)
        right += share_right(answer(model, images[part]), labels[part]) * len(labels[part])
    return round(right) / len(images)


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
    sides = [(candidate, clocks[0]), (baseline, clocks[1])]
    answers: list[Array] = []
    times: list[list[float]] = []
    for images in batches:
        order = (1, 0) if len(answers) % 2 == 0 else (0, 1)
        took = [0.0, 0.0]
        said: list[Any] = [None, None]
        for side in order:
            model, clock = sides[side]
            own = np.array(images)
            took[side] = -clock()
            said[side] = answer(model, own)
            took[side] += clock()
        answers.append(said[0])
        times.append(took)
    if len(times) < 2:
        raise ValueError(f"{len(times)} batches")
    if any(theirs <= 0 for _, theirs in times[1:]):
        raise ValueError("the clock stood still")
    ratios = [mine / theirs for mine, theirs in times[1:]]
    return Latency(float(np.median(ratios)), ratios, answers)


def peak_memory(build: Callable[[], Model], images: Array) -> int:
    answer(build(), images)
    began = not tracemalloc.is_tracing()
    gc.collect()
    if began:
        tracemalloc.start(1)
    try:
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        model = build()
        answer(model, images)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        if began:
            tracemalloc.stop()
    return peak - held


# Which are the best? Of four metrics, there is a front.


def costs(metrics: Metrics) -> tuple[float, float, float, float]:
    return -metrics.accuracy, metrics.latency, metrics.memory, metrics.size


def dominates(a: Metrics, b: Metrics) -> bool:
    if a == b:
        return False
    return a.accuracy >= b.accuracy and a.latency <= b.latency and a.memory <= b.memory and a.size <= b.size


def pareto_front(entries: Iterable[T], key: Callable[[T], Metrics] | None = None) -> list[T]:
    listed = list(entries)
    metrics: Any = [key(entry) for entry in listed] if key else listed
    table = np.array([costs(one) for one in metrics], float).reshape(len(listed), 4)
    front = []
    for start in range(0, len(listed), 32):
        block = table[start : start + 32, None]
        no_worse = np.logical_and.reduce([table[:, i] <= block[:, :, i] for i in range(4)])
        better = np.logical_or.reduce([table[:, i] < block[:, :, i] for i in range(4)])
        beaten = (no_worse & better).any(axis=1)
        front += [entry for entry, lost in zip(listed[start : start + 32], beaten, strict=True) if not lost]
    return front


def hypervolume(points: Any, reference: Any) -> float:
    table, low = np.array(points, float), np.array(reference, float)
    if table.ndim != 2 or low.ndim != 1 or table.shape[1] != len(low) or len(low) == 0:
        raise ValueError(f"{table.shape} {low.shape}")
    return _exclusive(np.clip(table - low, 0, None))


def _exclusive(boxes: Array) -> float:
    """What each box adds to those after it: its own volume less what of it they cover (While, 2012)."""
    boxes = boxes[boxes.all(axis=1)]
    if len(boxes) < 2:
        return float(boxes.prod(axis=1).sum())
    total = 0.0
    boxes = boxes[np.argsort(-boxes[:, 0], kind="stable")]
    for i, box in enumerate(boxes):
        covered = np.unique(np.minimum(boxes[:i], box), axis=0)
        beaten = (covered[:, None] <= covered).all(axis=2) & (covered[:, None] < covered).any(axis=2)
        total += float(box.prod()) - _exclusive(covered[~beaten.any(axis=1)])
    return total


# Recipes, and a search among them.


def apply_recipe(model: Module, steps: Iterable[str], recipes: Mapping[str, Recipe]) -> Module:
    def parsed(step: str) -> Callable[[Module], Module]:
        name, colon, rest = step.partition(":")
        recipe = recipes.get(name)
        if recipe is None:
            raise ValueError(f"{step!r}: the recipes are {' '.join(recipes)}")
        numbers = []
        for text in rest.split(":") if colon else []:
            try:
                numbers.append(float(text))
            except ValueError as error:
                raise ValueError(f"{step!r}: {error}") from error
        return lambda made: recipe(made, *numbers)

    made = [parsed(step) for step in steps]
    return functools.reduce(lambda so_far, step: step(so_far), made, copy.deepcopy(model))


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
    if budget < 1 or beam < 1:
        raise ValueError(f"budget {budget}, beam {beam}")
    found = [Found((), evaluate(model))]
    left: list[tuple[tuple[str, ...], Module]] = [((), model)]
    while left:
        best: list[tuple[float, tuple[str, ...], Module]] = []
        for done, old in left:
            for step in (step for step in steps if step not in done):
                if len(found) >= budget:
                    break
                try:
                    new = apply_recipe(old, [step], recipes)
                except ValueError:
                    continue
                found.append(Found((*done, step), evaluate(new)))
                value = score(found[-1].metrics, found[0].metrics, floor)
                place = sum(other >= value for other, _, _ in best)
                if value > 0 and place < beam:
                    best.insert(place, (value, (*done, step), new))
                    best = best[:beam]
                del new
        left = [(done, made) for _, done, made in best]
    return pareto_front(filter(lambda one: one.metrics.accuracy >= floor, found), lambda one: one.metrics)


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
    names = {kind.layer: name for name, kind in KINDS.items()}
    layers: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}
    waiting = [model]
    while waiting:
        layer = waiting.pop()
        if type(layer) is Sequential:
            waiting += reversed(list(layer))
        elif type(layer) is not Dropout:
            name = names.get(type(layer))
            if name is None:
                raise ValueError(f"{type(layer).__name__}; known are {list(KINDS)}")
            settings, own = KINDS[name].describe(layer)
            for key, array in own.items():
                arrays[f"{len(layers)}.{key}"] = array
            layers.append({**settings, "kind": name})
    return layers, arrays


def rebuild(layers: Sequence[Mapping[str, Any]], arrays: Mapping[str, Array]) -> Sequential:
    owned: dict[int, dict[str, Array]] = {place: {} for place in range(len(layers))}
    for name, array in arrays.items():
        place, _, rest = name.partition(".")
        if not place.isdecimal() or int(place) not in owned or str(int(place)) != place:
            raise Refused(f"{name} is of no layer")
        owned[int(place)][rest] = array
    made = []
    for place, layer in enumerate(layers):
        kind = KINDS.get(layer["kind"]) if isinstance(layer.get("kind"), str) else None
        if kind is None:
            raise Refused(f"{layer.get('kind')!r} is none of {list(KINDS)}")
        settings = {key: value for key, value in layer.items() if key != "kind"}
        try:
            made.append(kind.build(settings, owned[place]))
        except Exception as error:
            raise Refused(f"{kind.name}: {type(error).__name__} {error}") from error
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
    claims = None if submission.claims is None else asdict(submission.claims)
    about = {
        "author": submission.author,
        "claims": claims,
        "format": FORMAT,
        "layers": list(map(dict, submission.layers)),
        "name": submission.name,
        "recipe": list(submission.recipe),
    }
    texts = {ABOUT: json.dumps(about).encode()}
    if submission.code:
        texts[CODE] = submission.code.encode()
    target = Path(path)
    handle, name = tempfile.mkstemp(prefix=target.name, dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for member, text in texts.items():
                archive.writestr(zipfile.ZipInfo(member, (1980, 1, 1, 0, 0, 0)), text)
            for key, array in sorted(submission.arrays.items()):
                info = zipfile.ZipInfo(f"arrays/{key}.npy", (1980, 1, 1, 0, 0, 0))
                with archive.open(info, "w", force_zip64=True) as member_file:
                    np.save(member_file, array, allow_pickle=False)
        size = os.path.getsize(name)
        os.replace(name, target)
    except BaseException:
        os.remove(name)
        raise
    return size


def read_submission(path: str | os.PathLike[str], limit: int = LIMIT) -> Submission:
    path = Path(path)
    size = path.stat().st_size
    if size > limit:
        raise Refused(f"{path}: {size:,} of {limit:,} bytes")
    try:
        with zipfile.ZipFile(path) as archive:
            return _unpacked(archive, size)
    except Refused as refusal:
        raise Refused(f"{path}: {refusal}") from refusal
    except Exception as error:
        raise Refused(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def _unpacked(archive: zipfile.ZipFile, size: int) -> Submission:
    seen: set[str] = set()
    total = 0
    for member in archive.infolist():
        name = member.filename
        if name not in (ABOUT, CODE) and not ARRAY.fullmatch(name):
            raise Refused(f"{name!r} does not belong here")
        if name in seen:
            raise Refused(f"{name} twice")
        seen.add(name)
        if member.compress_type or member.compress_size != member.file_size:
            raise Refused(f"{name} is compressed")
        total += member.file_size
    if len(seen) > MEMBERS:
        raise Refused(f"{len(seen)} members")
    if total > size:
        raise Refused("more in it than it has bytes")
    about = json.loads(archive.read(ABOUT).decode())
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise Refused("another format")
    claims = about["claims"]
    return Submission(
        about["name"],
        about["author"],
        {name[7:-4]: _array(archive.read(name)) for name in seen - {ABOUT, CODE}},
        [{**layer} for layer in about["layers"]],
        archive.read(CODE).decode() if CODE in seen else "",
        tuple(about["recipe"]),
        None if claims is None else Metrics(**claims),
    )


def _array(raw: bytes) -> Array:
    """np.load makes the array first and looks afterwards; so the header is read twice."""
    stream = io.BytesIO(raw)
    major, _ = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if major > 2 or dtype.kind not in "biuf" or any(n < 0 for n in shape):
        raise Refused(f"{shape} {dtype}")
    if math.prod(shape) * dtype.itemsize != len(raw) - stream.tell():
        raise Refused(f"{shape} {dtype} are not {len(raw)} bytes")
    stream.seek(0)
    array: Array = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def digest(path: str | os.PathLike[str]) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


# Another process, and what goes to and fro: a line of JSON, then the numbers.

HEADER = 8000  # bytes: 500 characters, each of which JSON may write as 12


def write_frame(stream: BinaryIO, message: Array | str) -> None:
    if isinstance(message, np.ndarray) or (np.isscalar(message) and not isinstance(message, str)):
        array = np.asarray(message)
        if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool) or array.dtype.kind == "c":
            raise TypeError(f"{array.dtype}")
        shape = ", ".join(map(str, array.shape))
        stream.write(f'{{"dtype": "{array.dtype.str}", "shape": [{shape}]}}\n'.encode())
        stream.write(memoryview(np.asarray(array, order="C").ravel().view(np.uint8)))  # type: ignore[arg-type]
    else:
        stream.write((json.dumps({"text": str(message)[:500]}) + "\n").encode())
    stream.flush()


def read_frame(stream: BinaryIO, limit: int = LIMIT) -> Array | str:
    line = stream.readline(HEADER + 1)
    if line == b"":
        raise EOFError
    if line[-1:] != b"\n":
        raise Refused(f"a header without an end: {line[:50]!r}")
    try:
        header = json.loads(line.decode())
        if list(header) == ["text"]:
            return str(header["text"])
        dtype = np.dtype(str(header["dtype"]))
        shape = [int(n) for n in header["shape"]]
    except Exception as error:
        raise Refused(f"no header: {line[:50]!r}") from error
    size = dtype.itemsize
    for n in shape:
        if n < 0:
            raise Refused(f"{shape}")
        size *= n
    if dtype.kind not in {"b", "i", "u", "f"} or size > limit:
        raise Refused(f"{dtype} {tuple(shape)}")
    raw = bytearray(size)
    at = 0
    while at < size:
        came = stream.read(min(size - at, 1 << 16))
        if not came:
            raise Refused(f"{size - at} bytes are missing")
        raw[at : at + len(came)] = came
        at += len(came)
    try:
        return np.frombuffer(raw, dtype).reshape(shape)
    except ValueError as error:
        raise Refused(f"no array has the shape {tuple(shape)}") from error


def serve(build: Callable[[], Model], reading: BinaryIO, writing: BinaryIO) -> None:
    last: Array | None = None
    model: Model | None = None
    reply: Array | str = "ready"
    while True:
        try:
            if model is None:
                model = build()
            elif isinstance(last, np.ndarray):
                reply = answer(model, last)
        except Exception as error:
            write_frame(writing, f"{type(error).__name__}: {error}")
            return
        write_frame(writing, reply)
        try:
            message = read_frame(reading)
            while isinstance(message, str):
                peak = peak_memory(build, last) if last is not None else 0
                write_frame(writing, np.array([peak]))
                message = read_frame(reading)
        except EOFError:
            return
        last = message


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
    faults = []
    for name, allowed in tolerance._asdict().items():
        said, found = asdict(claimed)[name], asdict(measured)[name]
        worse = found + allowed < said if name == "accuracy" else found > allowed * said
        if worse:
            faults.append(f"{name}: claimed {said:g}, found {found:g}")
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
    entered = read_submission(path, limit)
    if entered.code != "" and allow_code is not True:
        raise Refused(f"{path} has code, and allow_code is not set")
    rng = np.random.default_rng(seed)
    shown: list[Array] = []
    right: list[Array] = []

    def drawn() -> Iterator[Array]:
        for _ in range(1 + rounds):
            images, labels = draw(rng)
            shown.append(images)
            right.append(as_array(labels))
            yield images

    workers = [Worker(file, setup, seconds) for file in (path, baseline)]
    try:
        mine, theirs = workers
        told = latency_ratio(mine, theirs, drawn(), (mine.clock, theirs.clock))
        memory = [worker.memory(measure if worker.before is not None else "traced") for worker in workers]
        known = [answer(theirs, images) for images in shown]
    finally:
        for worker in workers:
            worker.close()
    how = measure if mine.before is not None else "traced"
    found = []
    for answers, ratio, peak, file in zip(
        (told.answers, known), (told.ratio, 1.0), memory, (path, baseline), strict=True
    ):
        accuracy = share_right(np.concatenate(answers), np.concatenate(right))
        found.append(Metrics(accuracy, ratio, peak, os.path.getsize(file)))
    faults = [] if entered.claims is None else broken_claims(entered.claims, found[0], tolerance)
    if found[0].accuracy < floor:
        faults.append(f"accuracy {found[0].accuracy:g} is below the floor of {floor:g}")
    if faults:
        raise Refused(f"{path}: {'. '.join(faults)}")
    return Verdict(digest(path), found[0], found[1], score(found[0], found[1], floor), how)


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
    """Given."""


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
            database.execute(f"SELECT {COLUMNS} FROM entries LIMIT 1")

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
        one = entry.metrics
        row = {
            "digest": entry.digest,
            "name": entry.name,
            "author": entry.author,
            "recipe": json.dumps(list(entry.recipe)),
            "accuracy": one.accuracy,
            "latency": one.latency,
            "memory": one.memory,
            "size": one.size,
            "score": entry.score,
            "time": entry.time,
        }
        with self.connected() as database:
            database.execute("BEGIN IMMEDIATE")
            there = database.execute("SELECT 1 FROM entries WHERE digest = ?", (entry.digest,)).fetchone()
            if not there:
                names = ", ".join(row)
                marks = ", ".join(f":{name}" for name in row)
                database.execute(f"INSERT INTO entries ({names}) VALUES ({marks})", row)
            database.execute("COMMIT")
        return there is None

    def entries(self) -> list[Entry]:
        with self.connected() as database:
            rows = list(database.execute(f"SELECT {COLUMNS} FROM entries"))
        made = [
            Entry(digest, name, author, Metrics(*four), value, tuple(json.loads(recipe)), at)
            for digest, name, author, recipe, *four, value, at in rows
        ]
        return sorted(made, key=lambda entry: (-entry.score, entry.time, entry.digest))

    def front(self) -> list[Entry]:
        return pareto_front(self.entries(), lambda entry: entry.metrics)

    def check(self) -> None:
        with self.connected() as database:
            problems = [row[0] for row in database.execute("PRAGMA integrity_check(5)")]
            if problems == ["ok"]:
                try:
                    self.entries()
                except (TypeError, ValueError) as error:
                    problems = [f"an entry is none: {error}"]
            if problems != ["ok"]:
                raise sqlite3.DatabaseError("; ".join(problems))

    def backup(self, path: str | os.PathLike[str]) -> None:
        self.check()
        folder = tempfile.mkdtemp(dir=Path(path).parent, prefix="backup-")
        try:
            unfinished = os.path.join(folder, "copy")
            with self.connected() as database:
                database.execute("VACUUM INTO ?", (unfinished,))
            os.replace(unfinished, path)
        finally:
            shutil.rmtree(folder)

    @classmethod
    def restore(cls, backup: str | os.PathLike[str], path: str | os.PathLike[str]) -> Leaderboard:
        source = os.fspath(backup)
        if not os.path.isfile(source):
            raise FileNotFoundError(source)
        good = cls(source)
        good.check()
        path = os.fspath(path)
        aside, number = f"{path}.damaged", 0
        while os.path.lexists(aside):
            number += 1
            aside = f"{path}.damaged.{number}"
        for end in ("-shm", "-wal", ""):
            with suppress(FileNotFoundError):
                os.rename(path + end, aside + end)
        good.backup(path)
        return cls(path)
