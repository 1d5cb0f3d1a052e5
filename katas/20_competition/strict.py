"""What a trusted grade asks of kata 20: each check on fresh numbers, its answers as one array."""

import io
import itertools
import os
import tempfile

import numpy as np

from dojo.strict import Check

# Scores, and who is on the front: with few values, so that many are equal.


def draw_front(rng):
    table = rng.choice([0.25, 0.5, 1.0], (int(rng.integers(1, 40)), 4))
    return {"table": table, "floor": rng.choice([0.0, 0.5], 1)}


def run_front(student, table, floor):
    rows = [student.Metrics(*row) for row in table.tolist()]
    front = student.pareto_front(list(enumerate(rows)), lambda entry: entry[1])
    on = np.zeros(len(rows))
    on[[i for i, _ in front]] = 1
    scores = [student.score(row, rows[0], float(floor[0])) for row in rows]
    return np.stack([on, np.array(scores, float)])


def expected_front(table, floor):
    costs = table * [-1, 1, 1, 1]
    on = [not ((costs <= row).all(axis=1) & (costs < row).any(axis=1)).any() for row in costs]
    gains = table / table[0]
    scores = (gains[:, 0] / gains[:, 1:].prod(axis=1)) ** 0.25
    return np.stack([np.array(on, float), np.where(table[:, 0] >= floor[0], scores, 0.0)])


# Volumes, in space that is made of cells.


def draw_volume(rng):
    d, n = int(rng.integers(1, 5)), int(rng.integers(0, 8))
    return {"points": rng.integers(0, 5, (n, d)), "reference": rng.integers(0, 2, d)}


def run_volume(student, points, reference):
    return np.array([student.hypervolume(points, reference)], float)


def expected_volume(points, reference):
    cells = itertools.product(*(range(int(low), 5) for low in reference))
    points = points[(points > reference).all(axis=1)]
    return np.array([float(sum(bool((points > cell).all(axis=1).any()) for cell in cells))])


# Answers of a network, and how many are right.


def draw_accuracy(rng):
    inputs, classes = (int(n) for n in rng.integers(1, 6, 2))
    n = int(rng.integers(1, 40))
    return {
        "weight": rng.integers(-2, 3, (classes, inputs)).astype(np.float32),
        "x": rng.integers(-2, 3, (n, inputs)).astype(np.float32),
        "labels": rng.integers(0, classes, n),
        "batch": rng.integers(1, 50, 1),
    }


def run_accuracy(student, weight, x, labels, batch):
    net = student.rebuild([{"kind": "linear"}, {"kind": "relu"}], {"0.weight": weight})
    found = student.accuracy_of(net, x, labels, int(batch[0]))
    return np.concatenate([student.answer(net, x).astype(np.float64).ravel(), [found]])


def expected_accuracy(weight, x, labels, batch):
    logits = np.maximum(x.astype(np.float64) @ weight.T, 0)
    return np.concatenate([logits.ravel(), [np.mean(logits.argmax(axis=1) == labels)]])


# A model, written to a file, read, and asked in a process's loop.


def draw_journey(rng):
    sizes = rng.integers(1, 7, 4)
    return {
        "first": rng.normal(size=(sizes[1], sizes[0])).astype(np.float32),
        "bias": rng.normal(size=sizes[1]).astype(np.float32),
        "last": rng.normal(size=(sizes[2], sizes[1])).astype(np.float32),
        "x": rng.normal(size=(2, sizes[3], sizes[0])).astype(np.float32),
    }


def run_journey(student, first, bias, last, x):
    layers = [{"kind": "linear"}, {"kind": "leaky_relu", "negative_slope": 0.25}, {"kind": "linear"}]
    net = student.rebuild(layers, {"0.weight": first, "0.bias": bias, "2.weight": last})
    written, arrays = student.describe(net)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.zip")
        student.write_submission(path, student.Submission("n", "a", arrays, written))
        got = student.read_submission(path)
    asked, said = io.BytesIO(), io.BytesIO()
    for part in x:
        student.write_frame(asked, part)
    asked.seek(0)
    student.serve(got.build, asked, said)
    said.seek(0)
    assert student.read_frame(said) == "ready"
    return np.stack([student.read_frame(said) for _ in x])


def expected_journey(first, bias, last, x):
    hidden = x.astype(np.float64) @ first.T + bias
    return (np.where(hidden > 0, hidden, hidden / 4) @ last.T).astype(np.float32)


# Latency, by clocks that are told what to say.


def draw_latency(rng):
    return {"seconds": rng.integers(1, 50, (int(rng.integers(2, 12)), 2)).astype(np.float64)}


def run_latency(student, seconds):
    now = [0.0]

    def model(column):
        left = iter(seconds[:, column].tolist())

        def ask(images):
            now[0] += next(left)
            return images

        return ask

    clocks = (lambda: now[0], lambda: now[0])
    found = student.latency_ratio(model(0), model(1), [np.ones((2, 2))] * len(seconds), clocks)
    return np.array([found.ratio, *found.ratios])


def expected_latency(seconds):
    ratios = seconds[1:, 0] / seconds[1:, 1]
    return np.concatenate([[np.median(ratios)], ratios])


# A leaderboard: each digest once, sorted.


def draw_board(rng):
    return {"scores": rng.integers(0, 4, (int(rng.integers(1, 8)), 3))}


def run_board(student, scores):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "board.db")
        new = []
        for digest, score, time in scores.tolist():
            metrics = student.Metrics(0.5, 1.0, 1.0, 1.0)
            entry = student.Entry(str(digest), "n", "a", metrics, float(score), (), float(time))
            new.append(student.Leaderboard(path).add(entry))
        board = student.Leaderboard(path)
        board.backup(os.path.join(folder, "backup.db"))
        board = student.Leaderboard.restore(os.path.join(folder, "backup.db"), path)
        rows = [[float(entry.digest), entry.score, entry.time] for entry in board.entries()]
    return np.concatenate([np.array(new, float), np.ravel(rows)])


def expected_board(scores):
    kept, new = {}, []
    for digest, score, time in scores.tolist():
        new.append(digest not in kept)
        kept.setdefault(digest, (digest, score, time))
    rows = sorted(kept.values(), key=lambda row: (-row[1], row[2], row[0]))
    return np.concatenate([np.array(new, float), np.array(rows, float).ravel()])


CHECKS = (
    Check("scores and the front", draw_front, run_front, expected_front, rtol=1e-9),
    Check("volumes of joined boxes", draw_volume, run_volume, expected_volume, rtol=1e-9),
    Check("answers and their accuracy", draw_accuracy, run_accuracy, expected_accuracy, rtol=1e-6),
    Check("a model's journey", draw_journey, run_journey, expected_journey, rtol=1e-4, atol=1e-5),
    Check("ratios of latency", draw_latency, run_latency, expected_latency, rtol=1e-9),
    Check("a leaderboard, backed up and restored", draw_board, run_board, expected_board, seconds=20.0),
)
