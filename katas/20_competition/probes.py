"""What kata 20 measures: fronts and volumes by entries, files and frames by their bytes."""

import io
import tempfile
from pathlib import Path

import numpy as np

from dojo.measuring import Probe
from tinytorch.competition import (
    Entry,
    Leaderboard,
    Metrics,
    Submission,
    hypervolume,
    pareto_front,
    read_frame,
    read_submission,
    share_right,
    write_frame,
    write_submission,
)

COUNTS = (64, 128, 256, 512)
POINTS = (8, 16, 32, 64)
NUMBERS = (1 << 16, 1 << 17, 1 << 18, 1 << 19)
F32 = 4  # bytes


def entries(n, rng):
    return [Metrics(*row) for row in (rng.random((n, 4)) + 0.001).clip(max=1).tolist()]


def file_of(n, rng):
    path = Path(tempfile.mkdtemp()) / "a.zip"
    arrays = {"0.weight": rng.standard_normal(n, np.float32)}
    write_submission(path, Submission("probe", "dojo", arrays, [{"kind": "relu"}]))
    return (path,)


def frame_of(n, rng):
    stream = io.BytesIO()
    write_frame(stream, rng.standard_normal(n, np.float32))
    return (stream,)


def read_again(stream):
    stream.seek(0)
    return read_frame(stream)


def board_of(n, rng):
    board = Leaderboard(Path(tempfile.mkdtemp()) / "board.db")
    for i, metrics in enumerate(entries(n, rng)):
        board.add(Entry(str(i), "name", "author", metrics, float(rng.random())))
    return (board,)


PROBES = (
    Probe(
        "pareto_front of n entries",
        COUNTS,
        prepare=lambda n, rng: (entries(n, rng),),
        call=lambda given: pareto_front(given),
        memory=1,
    ),
    Probe(
        "hypervolume of n points with four numbers",
        POINTS,
        prepare=lambda n, rng: (rng.random((n, 4)), np.zeros(4)),
        call=lambda points, reference: hypervolume(points, reference),
    ),
    Probe(
        "share_right of n rows of ten logits",
        (1 << 12, 1 << 13, 1 << 14, 1 << 15),
        prepare=lambda n, rng: (rng.standard_normal((n, 10), np.float32), rng.integers(0, 10, n)),
        call=lambda logits, labels: share_right(logits, labels),
        time=1,
        moved=lambda n: n * (10 * F32 + 8),
    ),
    Probe(
        "read_submission of n numbers",
        NUMBERS,
        prepare=file_of,
        call=lambda path: read_submission(path),
        memory=1,
        moved=lambda n: n * F32,
    ),
    Probe(
        "read_frame of n numbers",
        NUMBERS,
        prepare=frame_of,
        call=read_again,
        memory=1,
        moved=lambda n: n * 2 * F32,
    ),
    Probe(
        "entries of a leaderboard of n",
        (50, 100, 200, 400),
        prepare=board_of,
        call=lambda board: board.entries(),
        memory=1,
    ),
)
