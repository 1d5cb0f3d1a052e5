"""Strict mode's parts: what travels, what is refused of a worker, what a right reply is; and the command."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dojo.curriculum import BY_NUMBER, KATAS
from dojo.grading import frames, questions, sandbox
from dojo.grading.frames import Broken
from dojo.grading.worker import Worker
from dojo.strict import Check
from tests.conftest import Course
from tests.grading.cheats import WHAT_STRICT_NEEDS, strict_mode_works
from tests.grading.conftest import HandIn

strict_only = pytest.mark.skipif(not strict_mode_works(), reason=WHAT_STRICT_NEEDS)


def test_the_expected_answers_stay_behind() -> None:
    for kata in (kata for kata in KATAS if kata.written):
        source = questions.what_travels(kata.path / "strict.py")
        assert "def run_" in source
        for word in ("def expected_", "def draw_", "Check(", "dojo"):
            assert word not in source, kata


def test_numbers_are_the_same_for_a_class_and_others_for_another_secret() -> None:
    kata, check = BY_NUMBER["04"], questions.checks_of(BY_NUMBER["04"])[0]

    def drawn(secret: bytes, draw: int) -> float:
        return float(questions.rng_for(secret, kata, check, draw).normal())

    assert drawn(b"a", 0) == drawn(b"a", 0)
    assert len({drawn(b"a", 0), drawn(b"b", 0), drawn(b"a", 1)}) == 3


@pytest.mark.parametrize("dtype", ["bool", "int64", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_an_array_travels_as_it_is(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, dtype)
    got = frames.array_of({"dtype": dtype, "shape": list(shape)}, array.tobytes())
    assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, shape, array.tobytes())


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"dtype": "object", "shape": [1]},
        {"dtype": ["float64"], "shape": [1]},
        {"dtype": "float64", "shape": 1},
        {"dtype": "float64", "shape": [True]},
        {"dtype": "float64", "shape": [-1, -1]},
        {"dtype": "float64", "shape": [1] * 17},
        {"dtype": "float64", "shape": [2]},
        {"dtype": "float64", "shape": [1 << 62, 0]},
        {"dtype": "bool", "shape": [8]},
    ],
)
def test_a_reply_that_is_not_what_it_says_is_refused(header: dict[str, Any]) -> None:
    with pytest.raises(Broken):
        frames.array_of(header, b"\2" * 8)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[" * 4000, b"\xff", b"1e999"])
def test_a_header_that_is_no_message_is_refused(content: bytes) -> None:
    with pytest.raises(Broken):
        frames.header_of(content)


def test_lengths_are_bounded() -> None:
    assert frames.lengths(frames.LENGTHS.pack(10, frames.BODY)) == (10, frames.BODY)
    for lengths in ((4097, 0), (0, frames.BODY + 1), (0xFFFFFFFF, 0xFFFFFFFF)):
        with pytest.raises(Broken):
            frames.lengths(frames.LENGTHS.pack(*lengths))


def test_a_question_says_what_its_arrays_are() -> None:
    asked = frames.question("run_x", {"a": np.ones((2, 1), np.float32), "b": np.array(True)})
    header, body = frames.LENGTHS.unpack(asked[:8])
    about = json.loads(asked[8 : 8 + header])
    assert about == {"run": "run_x", "arrays": [["a", "float32", [2, 1]], ["b", "bool", []]]}
    assert len(asked) == 8 + header + body == 8 + header + 9


CHECK = Check("x", lambda rng: {}, lambda student: np.zeros(1), lambda: np.zeros(1), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("got", "words"),
    [
        ([1.0, np.nan, np.inf], ""),
        ([1.0 + 1e-7, np.nan, np.inf], ""),
        ([1.0, np.nan, -np.inf], "-inf came back, not inf, at [2]"),
        ([np.nan] * 3, "nan came back, not 1.0, at [0]"),
        ([1.0, np.nan], "float64[2] came back, not float64[3]"),
    ],
)
def test_a_reply_must_be_right_in_every_element(got: list[float], words: str) -> None:
    assert questions.difference(CHECK, np.array(got), np.array([1.0, np.nan, np.inf])) == words


def test_integers_and_dtypes_must_be_equal() -> None:
    assert questions.difference(CHECK, np.array([1, 2]), np.array([1, 3])) == "2 came back, not 3, at [1]"
    assert "float32" in questions.difference(CHECK, np.zeros(2, np.float32), np.zeros(2))
    assert questions.difference(CHECK, np.array(2), np.array(3)) == "2 came back, not 3"


STRICT = """
import numpy as np

from dojo.strict import Check


def draw(rng):
    return {"x": rng.integers(0, 1 << 30, 3)}


def run_double(student, x):
    return np.array([student.double(int(n)) for n in x])


def expected_double(x):
    return 2 * x


def run_shout(student, x):
    return np.array([student.shout("a") == "A"])


def expected_shout(x):
    return np.array([True])


CHECKS = (
    Check("double", draw, run_double, expected_double),
    Check("shout", draw, run_shout, expected_shout),
)
"""


NAMELESS = """
import ctypes, time

def work():
    ctypes.CDLL(None).prctl(15, NAME)  # PR_SET_NAME
    begin, held = time.process_time(), b"x" * (40 << 20)
    while time.process_time() < begin + 0.2:
        pass
"""
RUN = """
import numpy as np

def run_work(student):
    student.work()
    return np.zeros(1)
"""


@strict_only
@pytest.mark.parametrize("name", [b"\xff", b"\fVmHWM: 1 kB"], ids=["no UTF-8", "a line of its own"])
def test_a_worker_is_clocked_and_weighed_whatever_it_calls_itself(name: bytes) -> None:
    files = {"student/nameless.py": f"NAME = {name!r}\n{NAMELESS}", "runs.py": RUN}
    with sandbox.cell(files, "nameless") as made, Worker(made) as worker:
        worker.begin()
        worker.ask("run_work", {}, 5.0)
        reply = worker.ask("run_work", {}, 5.0)
    assert reply.seconds >= 0.1, "of the 0.2 that it took"
    assert reply.megabytes is not None
    assert reply.megabytes > 30, "of the 40 that it held"


@strict_only
def test_a_class_is_graded_strictly(course: Course, hand_in: HandIn) -> None:
    course.write("katas/01_setup/strict.py", STRICT)
    course.seal()
    folder = hand_in("ana").parent
    # Guesses what is the same for any numbers, which earns nothing by itself.
    hand_in("ben", setup="double = int\nshout = str.upper\n")
    hand_in("eve", setup="import os; os._exit(0)")
    done = course.dojo("grade", str(folder), "-o", "results", "--strict", "01")
    assert done.returncode == 0, done.stderr
    assert "strict: solutions and tests out of sight" in done.stdout
    rows = [line.split(",")[:4] for line in course.read("results/scores.csv").splitlines()[1:]]
    assert rows == [
        [name, points, "10", points] for name, points in (("ana", "10.00"), ("ben", "0.00"), ("eve", "0.00"))
    ]
    assert "importing it: it ended before it answered" in course.read("results/details.csv")
    # With suites, what holds strictly must pass its suite as well.
    hand_in("zoe", setup="def double(x):\n    return 2 * x if x > 9 else 0\n\n\nshout = str.upper\n")
    both = course.dojo("grade", str(folder), "-o", "both", "--strict", "--suites", "01")
    assert both.returncode == 0, both.stderr
    rows = [line.split(",")[:2] for line in course.read("both/scores.csv").splitlines()[1:]]
    assert rows == [["ana", "10.00"], ["ben", "0.00"], ["eve", "0.00"], ["zoe", "5.00"]]
    shutil.rmtree(folder / "zoe")
    key = course.path("results/secret.key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    secret = key.read_bytes()
    assert course.dojo("grade", str(folder), "-o", "results", "--strict", "01").returncode == 0
    assert key.read_bytes() == secret


@strict_only
def test_strict_mode_refuses_where_solutions_cannot_be_hidden(course: Course, hand_in: HandIn) -> None:
    hand_in("ana")
    patched = (
        "import sys; from dojo.grading import sandbox; sandbox.namespaces = lambda: ();"
        "from dojo.cli import main; sys.exit(main())"
    )
    course.path("reference").chmod(0o755)
    command = ["grade", str(Path(hand_in("ben")).parent), "-o", "results", "--strict", "01"]
    done = course.python("-c", patched, *command)
    assert done.returncode == 1
    # Where another user cannot even reach Python, no worker starts: refused as well, in other words.
    assert "could read the solutions" in done.stderr or "cannot be had here" in done.stderr
    assert not course.path("results").exists()
