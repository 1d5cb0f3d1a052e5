"""Level 1: claims, and a judge who measures again, in other processes and on inputs that nobody knew."""

import itertools
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.competition import (
    Metrics,
    Refused,
    Submission,
    Tolerance,
    Worker,
    answer,
    broken_claims,
    describe,
    digest,
    score,
    verify,
    write_submission,
)
from tinytorch.networks import MLP

pytestmark = pytest.mark.timeout(60)  # processes start, and on a very busy machine that takes its time

# 20.16 broken_claims


def claim(**changes):
    return Metrics(**{"accuracy": 0.9, "latency": 0.5, "memory": 1000, "size": 400, **changes})


def test_what_is_as_claimed_or_better_is_no_fault():
    assert broken_claims(claim(), claim()) == []
    assert broken_claims(claim(), Metrics(1.0, 0.01, 1, 1)) == []


@pytest.mark.parametrize(
    ("name", "within", "beyond"),
    [
        ("accuracy", 0.885, 0.875),
        ("latency", 0.645, 0.655),
        ("memory", 1295, 1305),
        ("size", 403, 405),
    ],
)
def test_each_metric_has_its_tolerance(name, within, beyond):
    """0.9 less 0.02; and 0.5 * 1.3, 1000 * 1.3, 400 * 1.01."""
    assert broken_claims(claim(), claim(**{name: within})) == []
    (sentence,) = broken_claims(claim(), claim(**{name: beyond}))
    for word in (name, str(beyond), f"{getattr(claim(), name):g}"):
        assert word in sentence


def test_all_faults_are_told():
    found = broken_claims(claim(), Metrics(0.5, 5.0, 5000, 5000))
    assert len(found) == 4
    for name in ("accuracy", "latency", "memory", "size"):
        assert sum(name in sentence for sentence in found) == 1


def test_a_tolerance_can_be_given():
    wide = Tolerance(accuracy=0.5, latency=20, memory=20, size=20)
    assert broken_claims(claim(), Metrics(0.5, 5.0, 5000, 5000), wide) == []
    assert len(broken_claims(claim(), Metrics(0.39, 10.1, 20_001, 8001), wide)) == 4
    exact = Tolerance(0.0, 1.0, 1.0, 1.0)
    assert broken_claims(claim(), claim(), exact) == []
    assert len(broken_claims(claim(), Metrics(0.8999, 0.5001, 1001, 401), exact)) == 4


# 20.17 verify

INPUTS = 40
SEED = 0  # which is a seed, and not none


def teacher(images):
    """The truth: which of four sums is the largest."""
    return images.reshape(len(images), 4, -1).sum(axis=2).argmax(axis=1)


def draw(rng):
    """48 to 80 images: batches need not be of one size."""
    images = rng.standard_normal((rng.integers(48, 81), INPUTS), np.float32)
    return images, teacher(images)


def exact():
    """The one layer that is always right."""
    net = MLP([INPUTS, 4], rng=np.random.default_rng(0))
    net[0].weight.data[...] = np.repeat(np.eye(4), INPUTS // 4, axis=1)
    net[0].bias.data[...] = 0
    return net


def written(path, net=None, code="", arrays=(), claims=None, name="entry"):
    layers, own = describe(net) if net else ([], dict(arrays))
    write_submission(path, Submission(name, "Ada", own, layers, code, claims=claims))
    return path


@pytest.fixture
def baseline(tmp_path):
    """A baseline of 1400 hidden units, which knows nothing."""
    return written(tmp_path / "baseline.zip", MLP([INPUTS, 700, 700, 4], rng=np.random.default_rng(1)))


def children():
    """The processes that this one has started; none where the system does not tell."""
    return {
        pid
        for task in Path(f"/proc/{os.getpid()}/task").glob("*/children")
        for pid in task.read_text().split()
    }


def test_an_honest_entry_is_measured_beside_the_baseline(baseline, tmp_path):
    """The seed says what was drawn, so that the baseline's accuracy is known, too.

    Unless told, it is drawn for fifteen rounds and one to warm up.
    """
    mine = written(tmp_path / "mine.zip", exact(), claims=Metrics(1.0, 0.001, 10_000_000, 3000))
    before = children()
    wide = Tolerance(latency=1000)
    found = verify(mine, baseline, draw, seed=SEED, floor=1.0, tolerance=wide)
    assert children() <= before
    assert found.digest == digest(mine)
    expect(found.metrics.accuracy, 1.0)
    assert found.metrics.latency < 0.5  # 160 against 520,800 multiplications
    assert found.metrics.size == mine.stat().st_size
    assert found.metrics.memory < found.baseline.memory
    assert (found.baseline.latency, found.baseline.size) == (1.0, baseline.stat().st_size)
    net = MLP([INPUTS, 700, 700, 4], rng=np.random.default_rng(1))
    rng = np.random.default_rng(SEED)
    right = [
        answer(net, images).argmax(axis=1) == labels for images, labels in (draw(rng) for _ in range(16))
    ]
    expect(found.baseline.accuracy, float(np.concatenate(right).mean()))
    expect(found.score, score(found.metrics, found.baseline))
    assert found.measure == ("resident" if Path("/proc/self/status").exists() else "traced")


def expect_traced(found):
    """2.1 MB of weights, once in the file's bytes and once in float32; and an entry of 1,700 bytes."""
    assert found.measure == "traced"
    assert found.metrics.memory < 5e5
    assert 2e6 < found.baseline.memory < 1e7


def test_it_can_be_traced_instead_and_then_says_so(baseline, tmp_path):
    mine = written(tmp_path / "mine.zip", exact())
    expect_traced(verify(mine, baseline, draw, rounds=1, measure="traced"))


def test_where_the_system_tells_nothing_it_is_traced(baseline, tmp_path, monkeypatch):
    monkeypatch.setattr(Worker, "resident", lambda self, field: None)
    mine = written(tmp_path / "mine.zip", exact())
    expect_traced(verify(mine, baseline, draw, rounds=1))


@pytest.fixture
def played(monkeypatch):
    """Workers that start no process: which `setup` each was told, and which are closed. They know nothing."""
    told, closed, ticks = [], set(), itertools.count()

    def __init__(self, path, setup="", seconds=20.0):
        told.append(Path(setup))
        self.seconds, self.before, self.begun, self.given_up = seconds, 1 << 20, True, False

    def ask(self, message, expected=""):
        if isinstance(message, np.ndarray):
            return message[:, :4]
        return expected or np.array([1 << 20])

    for name, method in {
        "__init__": __init__,
        "ask": ask,
        "clock": lambda self: float(next(ticks)),
        "resident": lambda self, field: 1 << 20,
        "close": lambda self: closed.add(id(self)),
    }.items():
        monkeypatch.setattr(Worker, name, method)
    return SimpleNamespace(told=told, closed=closed)


class NothingToDraw(Exception):
    pass


def test_workers_are_closed_when_drawing_fails(baseline, played):
    def failing(rng):
        raise NothingToDraw

    with pytest.raises(NothingToDraw):
        verify(baseline, baseline, failing)
    assert len(played.closed) == len(played.told)


def refused(path, baseline, *mentions, **options):
    before = children()
    with expect_error(Refused, *mentions):
        verify(path, baseline, draw, **{"rounds": 3, "allow_code": True, **options})
    assert children() <= before


CHEATS = {
    # What it is told: (code, what it claims, what the refusal names).
    "it is right on what it has seen only": (
        """
import numpy as np
def build(arrays):
    known = {row.tobytes(): label for row, label in zip(arrays["images"], arrays["labels"])}
    def model(images):
        logits = np.zeros((len(images), 4), np.float32)
        for i, row in enumerate(images):
            logits[i, known.get(row.tobytes(), 0)] = 1
        return logits
    return model
""",
        "accuracy",
    ),
    "it is quick on what it has seen only": (
        """
import numpy as np
def build(arrays):
    known = {}
    def model(images):
        key = images.tobytes()
        if key not in known:
            big = np.ones((200, 200))
            for _ in range(10):
                big = big @ big / 200
            known[key] = images.reshape(len(images), 4, -1).sum(axis=2) * big[0, 0]
        return known[key]
    return model
""",
        "latency",
    ),
    "it gives a promise": (
        """
import numpy as np
class Promise:
    def __init__(self, images):
        self.images = images
    def __array__(self, dtype=None, copy=None):
        big = np.ones((200, 200))
        for _ in range(10):
            big = big @ big / 200
        return self.images.reshape(len(self.images), 4, -1).sum(axis=2) * big[0, 0]
def build(arrays):
    return Promise
""",
        "latency",
    ),
    "it turns the clock back": (
        """
import time
import numpy as np
def build(arrays):
    for name in ("process_time", "perf_counter", "time", "monotonic", "thread_time"):
        setattr(time, name, lambda: 0.0)
    def model(images):
        big = np.ones((200, 200))
        for _ in range(10):
            big = big @ big / 200
        return images.reshape(len(images), 4, -1).sum(axis=2) * big[0, 0]
    return model
""",
        "latency",
    ),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_is_refused_by_what_it_cheats_with(cheat, baseline, tmp_path):
    """Each claims to be always right, twice as fast as the baseline, and small."""
    code, name = CHEATS[cheat]
    images, labels = draw(np.random.default_rng(0))
    claims = Metrics(1.0, 0.5, 100_000_000, 100_000)
    mine = written(
        tmp_path / "mine.zip", code=code, arrays={"images": images, "labels": labels}, claims=claims
    )
    refused(mine, baseline, "mine.zip", name)


MAPPED = """
import numpy as np, tempfile, os
def build(arrays):
    handle, path = tempfile.mkstemp()
    os.ftruncate(handle, 24 << 20)
    table = np.memmap(path, np.uint8, "r")
    os.close(handle)
    def model(images):
        return images.reshape(len(images), 4, -1).sum(axis=2) + table.max()
    return model
"""


def test_memory_that_is_mapped_from_a_file_counts(baseline, tmp_path):
    """24 MiB of a file are read, of which tracemalloc sees nothing; half as much again is for the rest."""
    mine = written(tmp_path / "mine.zip", code=MAPPED)
    found = verify(mine, baseline, draw, rounds=1, allow_code=True)
    if Path("/proc/self/status").exists():
        assert 24 << 20 < found.metrics.memory < 36 << 20
    else:
        assert found.measure == "traced"


def test_all_broken_claims_and_the_floor_are_told_at_once(baseline, tmp_path):
    """The baseline, handed in as something better; of labels that it does not know a quarter is right."""
    better = written(
        tmp_path / "better.zip",
        MLP([INPUTS, 700, 700, 4], rng=np.random.default_rng(1)),
        claims=Metrics(0.99, 0.01, 1000, 1000),
    )
    refused(
        better, baseline, "accuracy", "latency", "memory", "size", "0.99", "0.01", "0.8", floor=0.8, rounds=2
    )


def test_without_claims_a_floor_is_asked_for_all_the_same_and_both_are_told_what_to_run_first(
    baseline, tmp_path, played
):
    (tmp_path / "kinds.py").touch()
    refused(baseline, baseline, "accuracy", "0.9", floor=0.9, rounds=1, setup=tmp_path / "kinds.py")
    assert played.told == [tmp_path / "kinds.py"] * 2


def test_code_is_not_run_unless_it_is_allowed(baseline, tmp_path):
    """And a thread of it that goes on for a quarter of an hour is not waited for."""
    mark = tmp_path / "ran"
    code = (
        f"import threading, time\nopen({str(mark)!r}, 'w').close()\n"
        "threading.Thread(target=time.sleep, args=(900,)).start()\n"
        "def build(arrays):\n    return lambda images: (time.sleep(0.03), images[:, :4])[1]\n"
    )
    mine = written(tmp_path / "mine.zip", code=code)
    for options in ({}, {"allow_code": False}):
        with expect_error(Refused, "allow_code"):
            verify(mine, baseline, draw, rounds=1, **options)
    assert not mark.exists()
    found = verify(mine, baseline, draw, rounds=1, allow_code=True, seed=SEED)
    assert found.digest == digest(mine)
    assert mark.exists()
    rng = np.random.default_rng(SEED)
    batches = [draw(rng) for _ in range(2)]  # of the first one the answers count, too
    right = [images[:, :4].argmax(axis=1) == labels for images, labels in batches]
    expect(found.metrics.accuracy, float(np.concatenate(right).mean()))
    if Path("/proc/self/status").exists():  # to sleep takes no processor time, which is what its clock tells
        assert found.metrics.latency < 1


def test_a_file_that_is_none_needs_no_process(baseline, tmp_path):
    drawn = []
    (tmp_path / "none.zip").write_bytes(b"coffee")
    for path, options in ((tmp_path / "none.zip", {}), (baseline, {"limit": 1000})):
        with expect_error(Refused, path.name):
            verify(path, baseline, lambda rng: drawn.append(1), **options)
    assert drawn == []


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("raise KeyError('lost')", "lost"),
        (r"import os; os.write(2, b'lost \xff\n'); os._exit(3)", "lost"),
        ("import subprocess; subprocess.run(['true'])", "subprocess"),
        ("return lambda images: images[:3, :4]", "(3, 4)"),
    ],
    ids=["raises", "leaves", "starts another", "answers too little"],
)
def test_what_goes_wrong_over_there_is_told_here(body, word, baseline, tmp_path):
    mine = written(tmp_path / "mine.zip", code=f"def build(arrays):\n    {body}\n")
    refused(mine, baseline, word)


def test_who_does_not_answer_is_not_waited_for(baseline, tmp_path):
    mine = written(tmp_path / "mine.zip", code="def build(arrays):\n    while True: pass\n")
    refused(mine, baseline, "0.3 seconds", seconds=0.3)


def test_inputs_are_drawn_anew_each_time(tmp_path):
    tiny = written(tmp_path / "tiny.zip", exact())
    drawn = []

    def noting(rng):
        images, labels = draw(rng)
        drawn.append(images.tobytes())
        return images, labels

    for _ in range(2):
        verify(tiny, tiny, noting, rounds=1)
    assert len(set(drawn)) == len(drawn) == 4


KINDS_FILE = """
import numpy as np
from tinytorch.competition import Kind, register_kind
from tinytorch.layers import Module

class Groups(Module):
    def forward(self, x):
        return x.reshape(len(x.data), 4, -1).sum(axis=2)

register_kind(Kind("groups", Groups, lambda layer: ({}, {}), lambda settings, arrays: Groups()))
"""


def test_kinds_of_ones_own_come_with_a_file_for_the_setup(tmp_path):
    (tmp_path / "kinds.py").write_text(KINDS_FILE)
    write_submission(tmp_path / "mine.zip", Submission("groups", "Ada", {}, [{"kind": "groups"}]))
    found = verify(tmp_path / "mine.zip", tmp_path / "mine.zip", draw, rounds=1, setup=tmp_path / "kinds.py")
    expect((found.metrics.accuracy, found.baseline.accuracy), (1.0, 1.0))
