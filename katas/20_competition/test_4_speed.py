"""Level 4: what a judge adds to the work that he judges should not be felt.

Ratios within this run, in CPU time, never seconds. Each budget has a twin: a naive version, written out
here, that must not fit.
"""

import io
import itertools
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from dojo.measuring import Budget, race
from tinytorch.competition import (
    Entry,
    Leaderboard,
    Metrics,
    Submission,
    answer,
    describe,
    hypervolume,
    latency_ratio,
    pareto_front,
    read_frame,
    read_submission,
    rebuild,
    share_right,
    write_frame,
    write_submission,
)
from tinytorch.networks import MLP

FRONT = Budget(
    "pareto_front of 150 entries that are all on it",
    limit=5.0,
    reference=1.35,
    naive=19.0,
    unit="times the time of comparing all with all in numpy",
    naively="a version that makes lists for each pair",
)
VOLUME = Budget(
    "hypervolume of 13 points with four numbers",
    limit=20.0,
    reference=2.0,
    naive=100.0,
    unit="times the time of all pairs' common boxes",
    naively="inclusion and exclusion, 8,191 common boxes",
)
RIGHT = Budget(
    "share_right of 2,000 rows of ten logits",
    limit=13.0,
    reference=3.7,
    naive=55.0,
    unit="times the time of logits.argmax(axis=1)",
    naively="a version that goes row by row",
)
ARRIVE = Budget(
    "reading a frame of 64 KiB",
    limit=100.0,
    reference=5.0,
    naive=3000.0,
    unit="times the time of copying it",
    naively="a version by lists and JSON",
)
SEND = Budget(
    "writing a frame of 64 KiB",
    limit=100.0,
    reference=4.0,
    naive=6000.0,
    unit="times the time of copying it",
    naively="a version by lists and JSON",
)
READ = Budget(
    "reading a submission of 64 KiB",
    limit=5.0,
    reference=0.94,
    naive=24.0,
    unit="times the time of np.load on the same arrays",
    naively="a version by lists and JSON",
)
ANSWER = Budget(
    "answer of an MLP to 256 images",
    limit=5.0,
    reference=1.4,
    naive=25.0,
    unit="times the time of its products in numpy",
    naively="a version that asks about four images at a time",
)
ADD = Budget(
    "adding to a leaderboard of 4,000 entries",
    limit=3.0,
    reference=1.0,
    naive=13.0,
    unit="times the time of adding to an empty one",
    naively="a version that reads all entries to see whether it is there",
)


def entries(rng, count):
    """Each a little more accurate and a little slower than another: nobody dominates anybody."""
    steps = np.sort(rng.random(count)) + 0.001
    return [Metrics(step / 2, step, 1, 1) for step in rng.permutation(steps).tolist()]


# 20.7 pareto_front


def all_pairs(given):
    """All with all, as arrays."""
    table = np.array([(-m.accuracy, m.latency, m.memory, m.size) for m in given])
    no_worse = (table[:, None] <= table).all(axis=2)
    better = (table[:, None] < table).any(axis=2)
    return ~(no_worse & better).any(axis=0)


def test_a_front_is_found_in_arrays(rng):
    given = entries(rng, 150)
    FRONT.check(race(lambda: pareto_front(given), lambda: all_pairs(given), limit=FRONT.limit))


def test_the_twin_that_goes_pair_by_pair_is_caught(rng):
    given = entries(rng, 150)

    def costs(m):
        return [-m.accuracy, m.latency, m.memory, m.size]

    def ahead(a, b):
        pairs = list(zip(costs(a), costs(b), strict=True))
        return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)

    def front():
        return [a for a in given if not any(ahead(b, a) for b in given)]

    FRONT.catches(race(front, lambda: all_pairs(given), limit=FRONT.limit))


# 20.8 hypervolume


def pairs_of(points):
    return np.minimum(points[:, None], points).prod(axis=2).sum()


def test_a_volume_is_sliced(rng):
    points, reference = rng.random((13, 4)), np.zeros(4)
    baseline = lambda: [pairs_of(points) for _ in range(50)]  # noqa: E731
    VOLUME.check(race(lambda: hypervolume(points, reference), baseline, limit=VOLUME.limit))


def test_the_twin_by_inclusion_and_exclusion_is_caught(rng):
    points = rng.random((13, 4))
    baseline = lambda: [pairs_of(points) for _ in range(50)]  # noqa: E731

    def volume():
        return sum(
            -((-1) ** size) * points[list(chosen)].min(axis=0).prod()
            for size in range(1, 14)
            for chosen in itertools.combinations(range(13), size)
        )

    VOLUME.catches(race(volume, baseline, limit=VOLUME.limit))


# 20.3, 20.4: answers


def logits_and_labels(rng):
    return rng.standard_normal((2000, 10), np.float32), rng.integers(0, 10, 2000)


def test_rows_are_judged_all_at_once(rng):
    logits, labels = logits_and_labels(rng)
    RIGHT.check(race(lambda: share_right(logits, labels), lambda: logits.argmax(axis=1), limit=RIGHT.limit))


def test_the_twin_that_judges_row_by_row_is_caught(rng):
    logits, labels = logits_and_labels(rng)

    def right():
        return sum(row.argmax() == label for row, label in zip(logits, labels, strict=True)) / len(labels)

    RIGHT.catches(race(right, lambda: logits.argmax(axis=1), limit=RIGHT.limit))


def network(rng):
    net = MLP([64, 128, 128, 10], rng=rng)
    weights = [p.data for p in net.parameters()]

    def products(x):
        x = np.maximum(x @ weights[0].T + weights[1], 0)
        x = np.maximum(x @ weights[2].T + weights[3], 0)
        return x @ weights[4].T + weights[5]

    return net, products, rng.standard_normal((256, 64), np.float32)


def test_asking_adds_little_to_what_is_asked(rng):
    net, products, x = network(rng)
    ANSWER.check(race(lambda: answer(net, x), lambda: products(x), limit=ANSWER.limit))


def test_a_model_that_was_rebuilt_is_as_fast(rng):
    net, products, x = network(rng)
    again = rebuild(*describe(net))
    ANSWER.check(race(lambda: answer(again, x), lambda: products(x), limit=ANSWER.limit))


def test_the_twin_that_asks_a_few_at_a_time_is_caught(rng):
    net, products, x = network(rng)
    slow = lambda: [answer(net, x[i : i + 4]) for i in range(0, 256, 4)]  # noqa: E731
    ANSWER.catches(race(slow, lambda: products(x), limit=ANSWER.limit))


# 20.5 latency_ratio


def test_who_does_the_work_five_times_is_found_slower(rng):
    """By the processor time of this thread; 5 is far from 2."""
    x = rng.standard_normal((128, 128), np.float32)

    def once(images):
        return images @ x @ x @ x @ x

    def often(images):
        return sum(once(images) for _ in range(5))

    batches = (rng.standard_normal((256, 128), np.float32) for _ in range(22))
    found = latency_ratio(often, once, batches, (time.thread_time, time.thread_time))
    assert found.ratio > 2
    assert len(found.ratios) == 21


# 20.12 to 20.14: files and frames


def frame(array):
    stream = io.BytesIO()
    write_frame(stream, array)
    return stream


def copies(array):
    return [array.copy() for _ in range(20)]


def read_back(stream):
    stream.seek(0)
    return read_frame(stream)


def test_a_frame_is_read_as_bytes(rng):
    array = rng.standard_normal(1 << 14, np.float32)
    stream = frame(array)
    limit = ARRIVE.limit / 20
    ARRIVE.check(20 * race(lambda: read_back(stream), lambda: copies(array), limit=limit).ratio)


def test_a_frame_is_written_as_bytes(rng):
    array = rng.standard_normal(1 << 14, np.float32)
    SEND.check(20 * race(lambda: frame(array), lambda: copies(array), limit=SEND.limit / 20).ratio)


def test_the_twin_by_lists_is_caught(rng):
    array = rng.standard_normal(1 << 14, np.float32)
    text = json.dumps(array.tolist())
    ARRIVE.catches(
        20 * race(lambda: np.array(json.loads(text)), lambda: copies(array), limit=ARRIVE.limit / 20).ratio
    )
    SEND.catches(
        20 * race(lambda: json.dumps(array.tolist()), lambda: copies(array), limit=SEND.limit / 20).ratio
    )


def stored(rng):
    """The same arrays as a submission, and as an .npz file."""
    folder = Path(tempfile.mkdtemp())
    arrays = {f"{i}.weight": rng.standard_normal((64, 64), np.float32) for i in range(4)}
    write_submission(folder / "a.zip", Submission("a", "b", arrays, [{"kind": "relu"}]))
    np.savez(folder / "a.npz", **arrays)

    def load():
        with np.load(folder / "a.npz") as archive:
            return {name: archive[name] for name in archive.files}

    return folder / "a.zip", load


def test_a_file_is_read_about_as_fast_as_numpy_reads_one(rng):
    path, load = stored(rng)
    READ.check(race(lambda: read_submission(path), load, limit=READ.limit))


def test_the_twin_that_reads_numbers_as_text_is_caught(rng):
    _, load = stored(rng)
    text = json.dumps(rng.standard_normal(1 << 14).tolist() * 4)
    READ.catches(race(lambda: np.array(json.loads(text)), load, limit=READ.limit))


# 20.18 Leaderboard


def board(count):
    made = Leaderboard(Path(tempfile.mkdtemp()) / "board.db")
    numbers = itertools.count()

    def add():
        return made.add(Entry(f"{next(numbers):08}", "name", "Ada", Metrics(0.5, 1, 1, 1), 1.0, (), 0.0))

    with made.connected() as database:
        database.execute("BEGIN")
        database.executemany(
            "INSERT INTO entries "
            "(digest, name, author, recipe, accuracy, latency, memory, size, score, time) "
            "VALUES (?, 'name', 'Ada', '[]', 0.5, 1, 1, 1, 1, 0)",
            [(f"x{i:08}",) for i in range(count)],
        )
        database.execute("COMMIT")
    return made, add


def test_a_long_leaderboard_takes_entries_as_fast_as_a_short_one():
    _, short = board(0)
    _, long = board(4000)
    ADD.check(race(long, short, limit=ADD.limit))


def test_the_twin_that_reads_all_entries_first_is_caught():
    _, short = board(0)
    made, long = board(2000)  # half as many show it, in half the time
    ADD.catches(race(lambda: (made.entries(), long()), short, limit=ADD.limit))
