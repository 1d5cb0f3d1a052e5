"""Level 3: the judge believes what he measures, and the leaderboard keeps what it was told."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from dojo.compose import load_file
from dojo.expect import expect, expect_error
from tinytorch.competition import (
    DamagedLeaderboard,
    Leaderboard,
    Metrics,
    Refused,
    Submission,
    apply_recipe,
    read_submission,
    write_submission,
)

M4 = load_file(Path(__file__).with_name("contest.py"))

pytestmark = pytest.mark.timeout(60)  # processes start, and on a very busy machine that takes its time

HONEST = Metrics(0.95, 20.0, 1e9, 1e7)  # what any of them can claim


def judged(path, folder, **options):
    return M4.judge(
        path, folder / "baseline.zip", "digits", **{"rounds": 7, "floor": M4.floor("digits"), **options}
    )


def entry(folder, *steps, claims=None):
    model = apply_recipe(M4.baseline("digits"), steps, M4.recipes("digits"))
    path = folder / "mine.zip"
    M4.write(path, model, "mine", "Ada", steps, claims)
    return path


def test_an_honest_entry_is_verified_and_entered_once(tmp_path):
    path = entry(tmp_path, "fold", "int:8", claims=HONEST)
    verdict = judged(path, tmp_path)
    assert verdict.metrics.accuracy > 0.97
    assert verdict.metrics.size < verdict.baseline.size / 3
    assert verdict.score > 1.2
    board = Leaderboard(tmp_path / "board.db")
    submission = read_submission(path)
    assert M4.enter(board, verdict, submission)
    assert not M4.enter(board, verdict, submission)
    (row,) = board.entries()
    assert (row.name, row.author, row.recipe) == ("mine", "Ada", ("fold", "int:8"))
    expect(row.metrics, verdict.metrics)
    expect(row.score, verdict.score)


def coded(folder, body, arrays=(), claims=None):
    """A submission with code of its own, which starts from the baseline's weights."""
    _, weights = M4.describe(apply_recipe(M4.baseline("digits"), ["fold"], M4.recipes("digits")))
    code = "import numpy as np\n" + NETWORK + body
    path = folder / "cheat.zip"
    given = {key.replace(".", "_"): array for key, array in weights.items()} | dict(arrays)
    write_submission(path, Submission("cheat", "Mallory", given, (), code, (), claims or HONEST))
    return path


NETWORK = """
def network(arrays):
    def model(images):
        x = images.reshape(len(images), -1).astype(np.float32)
        x = np.maximum(x @ arrays["1_weight"].T + arrays["1_bias"], 0)
        x = np.maximum(x @ arrays["3_weight"].T + arrays["3_bias"], 0)
        return x @ arrays["5_weight"].T + arrays["5_bias"]
    return model
"""

LEARNT_BY_HEART = """
def build(arrays):
    known = {image.tobytes(): label for image, label in zip(arrays["images"], arrays["labels"])}
    def model(images):
        logits = np.zeros((len(images), 10), np.float32)
        for i, image in enumerate(images):
            logits[i, known.get(image.tobytes(), 0)] = 1
        return logits
    return model
"""
REMEMBERED = """
def build(arrays):
    slow, known = network(arrays), {}
    def model(images):
        key = images.tobytes()
        if key not in known:
            known[key] = sum(slow(images) for _ in range(12)) / 12
        return known[key]
    return model
"""
MAPPED = """
import os, tempfile
def build(arrays):
    handle, path = tempfile.mkstemp()
    os.ftruncate(handle, 32 << 20)
    table = np.memmap(path, np.uint8, "r")
    os.close(handle)
    right = network(arrays)
    return lambda images: right(images) + table.max()
"""


def refused(path, folder, *mentions, **options):
    with expect_error(Refused, *mentions):
        judged(path, folder, allow_code=True, **options)


def test_a_hidden_loss_of_accuracy_is_refused(tmp_path):
    """Always right on the images that it has seen, and these are not drawn again."""
    images, labels = M4.draw("digits")(np.random.default_rng(0))
    path = coded(tmp_path, LEARNT_BY_HEART, {"images": images, "labels": labels})
    refused(path, tmp_path, "accuracy", "0.95")


def test_a_latency_by_remembering_is_refused(tmp_path):
    """Twelve times the work at what it has not seen, nothing at what it has: as fast as the baseline?"""
    path = coded(tmp_path, REMEMBERED, claims=Metrics(0.95, 1.0, 1e9, 1e7))
    refused(path, tmp_path, "latency")


def test_memory_in_a_mapped_file_is_refused(tmp_path):
    """32 MiB are read from a file; 16 MB are claimed. Where no system tells, the Verdict says so."""
    path = coded(tmp_path, MAPPED, claims=Metrics(0.95, 20.0, 16e6, 1e7))
    if Path("/proc/self/status").exists():
        refused(path, tmp_path, "memory")
    else:
        assert judged(path, tmp_path, allow_code=True).measure == "traced"


def test_a_file_that_is_too_large_or_larger_than_claimed_is_refused(tmp_path):
    path = coded(tmp_path, "build = network\n", {"ballast": np.zeros(1 << 20)})
    refused(path, tmp_path, "1,048,576", limit=1 << 20)
    path = coded(tmp_path, "build = network\n", {"ballast": np.zeros(1 << 20)}, Metrics(0.95, 20.0, 1e9, 1e6))
    refused(path, tmp_path, "size")


def test_the_same_code_without_a_trick_is_believed(tmp_path):
    """So it is the tricks that are refused; and code, unless it is allowed."""
    path = coded(tmp_path, "build = network\n")
    with expect_error(Refused, "allow_code"):
        judged(path, tmp_path)
    verdict = judged(path, tmp_path, allow_code=True)
    assert verdict.metrics.accuracy > 0.97


def test_who_gives_up_more_accuracy_than_allowed_is_refused(tmp_path):
    path = entry(tmp_path, "prune:0.8")
    with expect_error(Refused, "accuracy", "0.97"):
        judged(path, tmp_path)


def at_once(work, count):
    """work(0), work(1), ... in processes of their own; in threads, where none can be forked."""
    if not hasattr(os, "fork"):
        threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return
    for i in range(count):
        if os.fork() == 0:
            try:
                work(i)
            finally:
                os._exit(0)
    for _ in range(count):
        os.wait()


def verdict(which, score=1.0):
    metrics = Metrics(0.9, 1.0, 1e6, 1e5)
    return M4.Verdict(f"{which:016x}", metrics, metrics, score, "resident")


def test_eight_processes_enter_at_once_and_nothing_is_lost(tmp_path):
    someone = Submission("an entry", "one of eight", {}, [{"kind": "relu"}])

    def work(who):
        for i in range(6):
            M4.enter(Leaderboard(tmp_path / "board.db"), verdict(10_000 + i), someone)  # as all others do
            M4.enter(Leaderboard(tmp_path / "board.db"), verdict(100 * who + i), someone)

    at_once(work, 8)
    board = Leaderboard(tmp_path / "board.db")
    assert len(board.entries()) == 48 + 6
    board.check()


def test_a_damaged_leaderboard_comes_back(tmp_path):
    path = tmp_path / "board.db"
    board = Leaderboard(path)
    for i in range(5):
        M4.enter(board, verdict(i, float(i)), Submission("an entry", json.dumps(i), {}, [{"kind": "relu"}]))
    board.backup(tmp_path / "backup.db")
    path.write_bytes(b"\xa5" * 5000)
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    with expect_error(DamagedLeaderboard, "board.db", "restore"):
        M4.enter(Leaderboard(path), verdict(9), Submission("late", "Bob", {}, [{"kind": "relu"}]))
    assert path.read_bytes() == b"\xa5" * 5000
    restored = Leaderboard.restore(tmp_path / "backup.db", path)
    assert [row.author for row in restored.entries()] == ["4", "3", "2", "1", "0"]
    assert (tmp_path / "board.db.damaged").read_bytes() == b"\xa5" * 5000


@pytest.mark.parametrize("content", [b"", b"coffee"], ids=["empty", "no zip"])
def test_what_is_no_submission_is_refused(content, tmp_path):
    (tmp_path / "none.zip").write_bytes(content)
    refused(tmp_path / "none.zip", tmp_path, "none.zip")
