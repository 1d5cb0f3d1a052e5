"""Level 1: a leaderboard that many processes write to, and that comes back after damage."""

import json
import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch import competition
from tinytorch.competition import DamagedLeaderboard, Entry, Leaderboard, Metrics, pareto_front

pytestmark = pytest.mark.timeout(60)  # a very busy disk takes its time to say that it has written


def entry(name="a", score=1.0, at=1000.0, **changes):
    given = {"accuracy": 0.5, "latency": 1.0, "memory": 100.0, "size": 10.0, **changes}
    return Entry(f"digest-{name}", name, "Ada", Metrics(**given), score, ("int8", "prune:0.5"), at)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "board.db"


# 20.18 Leaderboard


def test_a_new_leaderboard_is_empty_and_a_file(path):
    assert Leaderboard(path).entries() == []
    assert path.exists()
    assert Leaderboard(str(path)).front() == []


def test_what_was_entered_is_there(path):
    board = Leaderboard(path)
    first = Entry(
        "1f", "O'Neil\"; DROP TABLE entries; -- \N{SNOWMAN}", "é ' ?", Metrics(0.1, 0.2, 3, 4), 1 / 3, (), 0.5
    )
    assert board.add(first) is True
    assert board.entries() == [first]
    assert board.add(entry("b", 0.1)) is True
    assert board.entries() == [first, entry("b", 0.1)]


def test_an_entry_stays_when_nobody_has_the_file_open(path):
    Leaderboard(path).add(entry())
    assert Leaderboard(path).entries() == [entry()]


def test_an_entry_has_a_time_of_its_own_unless_told(path):
    before = time.time()
    one = Entry("1", "a", "b", Metrics(1, 1, 1, 1), 1.0)
    assert before <= one.time <= time.time()
    Leaderboard(path).add(one)
    assert Leaderboard(path).entries() == [one]


def test_a_digest_is_entered_once(path):
    board = Leaderboard(path)
    assert board.add(entry("a", 1.0)) is True
    again = Entry("digest-a", "better name", "Bob", Metrics(1, 0.1, 1, 1), 99.0)
    assert board.add(again) is False
    assert Leaderboard(path).add(again) is False
    assert board.entries() == [entry("a", 1.0)]
    assert board.add(entry("b", 1.0)) is True


def test_the_best_score_is_first_and_of_equal_ones_the_earliest(path):
    board = Leaderboard(path)
    for one in (entry("d", 2.0, 30.0), entry("a", 10.0, 99.0), entry("c", 2.0, 20.0), entry("b", 9.5, 1.0)):
        board.add(one)
    board.add(entry("a2", 2.0, 20.0))
    assert [one.name for one in board.entries()] == ["a", "b", "a2", "c", "d"]


def test_the_front_is_what_no_entry_dominates_best_score_first(path):
    board = Leaderboard(path)
    for one in (
        entry("exact", 1.0, 10.0, accuracy=0.9, latency=9),
        entry("worse", 3.0, 20.0, latency=0.6, size=11),
        entry("fast", 2.0, 30.0, latency=0.5),
        entry("equal", 2.5, 40.0, latency=0.5),
    ):
        board.add(one)
    assert [one.name for one in board.front()] == ["equal", "fast", "exact"]


def test_another_sees_at_once_what_one_enters(path):
    one, other = Leaderboard(path), Leaderboard(path)
    one.add(entry("a", 2.0))
    assert [e.name for e in other.entries()] == ["a"]
    other.add(entry("b"))
    assert [e.name for e in one.entries()] == ["a", "b"]


def test_no_file_stays_open_between_calls(path, tmp_path):
    """So it can be moved, also on Windows; and a board may be held for days."""
    board = Leaderboard(path)
    board.add(entry())
    path.rename(tmp_path / "moved.db")
    assert Leaderboard(tmp_path / "moved.db").entries() == [entry()]


PROCESSES, EACH = 8, 6


def at_once(work, count):
    """What work(0), work(1), ... give, each in a process of its own; in threads, where none can be forked."""
    if not hasattr(os, "fork"):
        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(work, range(count)))
    gate, opener = os.pipe()
    replies = []
    for i in range(count):
        reading, writing = os.pipe()
        if os.fork() == 0:
            try:
                os.close(opener)
                os.read(gate, 1)  # until all are there, and the last end of this pipe is closed
                said = json.dumps(work(i))
            except BaseException as error:
                said = json.dumps(f"{type(error).__name__}: {error}")
            os.write(writing, said.encode())
            os._exit(0)
        os.close(writing)
        replies.append(reading)
    os.close(gate)
    os.close(opener)
    said = []
    for reading in replies:
        with open(reading, "rb") as stream:
            said.append(json.loads(stream.read()))
        os.wait()
    return said


def test_eight_processes_at_once_lose_nothing(path):
    """Each makes the file, if it is the first, and enters six of its own and six that all enter."""

    def work(who):
        news = [Leaderboard(path).add(entry(f"{who}-{i}")) for i in range(EACH)]
        shared = [Leaderboard(path).add(entry(f"all-{i}")) for i in range(EACH)]
        return [sum(news), sum(shared)]

    counts = at_once(work, PROCESSES)
    board = Leaderboard(path)
    assert [one for one in counts if isinstance(one, str)] == []
    expect(np.array(counts).sum(axis=0), np.array([PROCESSES * EACH, EACH]))
    digests = [one.digest for one in board.entries()]
    assert len(digests) == len(set(digests)) == (PROCESSES + 1) * EACH
    board.check()


@pytest.fixture
def held(path):
    """Somebody who makes the same file, in which there is nothing yet, and has it until told to commit."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    yield other
    other.close()


def test_a_leaderboard_waits_for_who_has_the_file(path, held):
    timer = threading.Timer(0.1, lambda: held.execute("COMMIT"))
    timer.start()
    try:
        assert Leaderboard(path).entries() == []
    finally:
        timer.join()


def test_who_has_waited_in_vain_is_told_that_the_file_is_locked(path, held, monkeypatch):
    """And not that it is damaged."""
    monkeypatch.setattr(competition, "PATIENCE", 0.0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        Leaderboard(path)


def test_eight_threads_share_one_leaderboard(path):
    board = Leaderboard(path)
    failed = []

    def work(who):
        try:
            for i in range(5):
                board.add(entry(f"{who}-{i}"))
                board.entries()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(board.entries()) == 40


def test_who_reads_does_not_wait_for_who_writes(path):
    """In WAL mode readers see what was there before, even beside a lock that lets nobody else write.

    Who would wait, would wait for 30 seconds, and a test has ten.
    """
    board = Leaderboard(path)
    board.add(entry())
    writer = sqlite3.connect(path, isolation_level=None)
    try:
        writer.execute("BEGIN EXCLUSIVE")
        writer.execute("DELETE FROM entries")
        assert board.entries() == board.front() == [entry()]
        assert Leaderboard(path).entries() == [entry()]
    finally:
        writer.execute("ROLLBACK")
        writer.close()


def test_who_writes_waits_for_others_who_write(path):
    """For a fifth of a second here; sqlite3 itself gives up at once, or after five seconds."""
    board = Leaderboard(path)
    writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.2, lambda: writer.execute("COMMIT"))
    release.start()
    try:
        assert board.add(entry()) is True
    finally:
        release.join()
        writer.close()
    assert board.entries() == [entry()]


OTHERS = {
    "text": b"digest,name\n" * 100,
    "a header without a file": b"SQLite format 3\0",
    "a table of somebody else": None,
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_that_is_no_leaderboard_is_refused_and_stays_as_it_is(kind, path):
    if OTHERS[kind] is None:
        other = sqlite3.connect(path)
        other.execute("CREATE TABLE entries (digest TEXT PRIMARY KEY, recipe TEXT)")
        other.execute("INSERT INTO entries VALUES ('soup', 'onions')")
        other.commit()
        other.close()
    else:
        path.write_bytes(OTHERS[kind])
    before = path.read_bytes()
    with expect_error(DamagedLeaderboard, "board.db", "restore"):
        Leaderboard(path)
    if OTHERS[kind] is None:
        other = sqlite3.connect(path)
        assert other.execute("SELECT * FROM entries").fetchall() == [("soup", "onions")]
        other.close()
    else:
        assert path.read_bytes() == before


def test_every_method_says_that_a_file_is_none_any_longer(path, tmp_path):
    board = Leaderboard(path)
    board.add(entry())
    path.write_bytes(b"coffee" * 1000)
    backup = lambda: board.backup(tmp_path / "backup.db")  # noqa: E731
    for method in (lambda: board.add(entry("b")), board.entries, board.front, board.check, backup):
        with expect_error(DamagedLeaderboard, "board.db", "restore"):
            method()
    assert path.read_bytes() == b"coffee" * 1000


# 20.19 check, backup, restore


def filled(path, count=200):
    board = Leaderboard(path)
    columns = "digest, name, author, recipe, accuracy, latency, memory, size, score, time"
    values = "?, ?, 'Ada', '[]', 0.5, 1.0, 100.0, 10.0, ?, 0.0"
    with sqlite3.connect(path) as database:  # one transaction for all: a disk may take its time for each
        database.executemany(
            f"INSERT INTO entries ({columns}) VALUES ({values})",
            [(f"digest-{i}", f"name {i}", -float(i)) for i in range(count)],
        )
    database.close()
    return board


def damage(path, at):
    """Overwrite a page of the file, and take away what else there is of it."""
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    raw = bytearray(path.read_bytes())
    start = int(len(raw) * at) // 4096 * 4096
    raw[start : start + 4096] = b"\xa5" * 4096
    path.write_bytes(raw)


def test_a_whole_leaderboard_has_nothing_to_be_said_against(path):
    board = filled(path)
    assert board.check() is None
    assert len(board.entries()) == 200


@pytest.mark.parametrize("at", [0.0, 0.3, 0.6, 0.99])
def test_damage_is_found_wherever_it_is(at, path):
    board = filled(path)
    damage(path, at)
    before = path.read_bytes()
    with expect_error(DamagedLeaderboard, "board.db", "restore"):
        board.check()
    assert path.read_bytes() == before


def test_what_only_a_look_at_all_pages_shows_is_found(path):
    """The header counts five free pages, and there is none: all entries can be read."""
    board = filled(path)
    raw = bytearray(path.read_bytes())
    raw[36:40] = (5).to_bytes(4, "big")
    path.write_bytes(raw)
    assert len(board.entries()) == 200
    with expect_error(DamagedLeaderboard, "board.db", "restore"):
        board.check()


def test_an_index_that_knows_another_digest_than_the_table_is_found(path):
    """Each digest is in the file twice. Pages are whole, and all entries can be read; but not by this one."""
    board = filled(path)
    raw = path.read_bytes()
    assert raw.count(b"digest-77") == 2
    path.write_bytes(raw.replace(b"digest-77", b"digest-xx", 1))
    assert len(board.entries()) == 200
    with expect_error(DamagedLeaderboard, "board.db", "restore"):
        board.check()


def test_a_file_that_broke_off_is_found(path):
    board = filled(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with expect_error(DamagedLeaderboard, "board.db"):
        board.check()


@pytest.mark.parametrize("change", ["accuracy = 5", "latency = -1", "recipe = 'none'", "size = 'large'"])
def test_entries_that_are_none_are_found(change, path):
    """SQLite finds nothing wrong with them."""
    board = filled(path)
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE entries SET {change} WHERE digest = 'digest-7'")
    database.close()
    with expect_error(DamagedLeaderboard, "board.db"):
        board.check()


def test_a_backup_is_a_whole_leaderboard_in_one_file(path, tmp_path):
    board = filled(path)
    board.add(entry("last", 5.0))
    board.backup(tmp_path / "backup.db")
    raw = (tmp_path / "backup.db").read_bytes()
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "copy.db").write_bytes(raw)
    copy = Leaderboard(tmp_path / "else" / "copy.db")
    copy.check()
    assert copy.entries() == board.entries()
    assert copy.entries()[0] == entry("last", 5.0)


def test_a_backup_does_not_wait_for_who_writes_nor_see_what_is_half_done(path, tmp_path):
    board = Leaderboard(path)
    board.add(entry())
    writer = sqlite3.connect(path, isolation_level=None)
    try:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE entries SET score = 99")
        board.backup(tmp_path / "backup.db")
    finally:
        writer.execute("ROLLBACK")
        writer.close()
    assert Leaderboard(tmp_path / "backup.db").entries() == [entry()]


def test_a_backup_takes_the_place_of_the_one_before(path, tmp_path):
    board = filled(path)
    board.backup(tmp_path / "backup.db")
    board.add(entry("new", 9.0))
    board.backup(str(tmp_path / "backup.db"))
    assert len(Leaderboard(tmp_path / "backup.db").entries()) == 201
    left = {name for name in os.listdir(tmp_path) if not name.endswith(("-wal", "-shm"))}
    assert left == {"board.db", "backup.db"}


def test_a_damaged_leaderboard_does_not_replace_a_good_backup(path, tmp_path):
    board = filled(path)
    board.backup(tmp_path / "backup.db")
    damage(path, 0.5)
    with expect_error(DamagedLeaderboard, "board.db"):
        board.backup(tmp_path / "backup.db")
    assert len(Leaderboard(tmp_path / "backup.db").entries()) == 200
    assert not [name for name in os.listdir(tmp_path) if "unfinished" in name or "tmp" in name]


def test_a_backup_that_cannot_be_finished_leaves_nothing_behind(path, tmp_path):
    """A folder is in its place."""
    board = filled(path)
    (tmp_path / "backup.db").mkdir()
    with pytest.raises(OSError, match=r"backup\.db"):
        board.backup(tmp_path / "backup.db")
    left = {name for name in os.listdir(tmp_path) if not name.endswith(("-wal", "-shm"))}
    assert left == {"board.db", "backup.db"}


@pytest.mark.parametrize("state", ["damaged", "missing", "whole"])
def test_a_backup_is_put_back(state, path, tmp_path):
    board = filled(path)
    board.backup(tmp_path / "backup.db")
    entries = board.entries()
    board.add(entry("later", 9.0))
    if state == "damaged":
        damage(path, 0.0)
    elif state == "missing":
        path.unlink()
    there = path.read_bytes() if path.exists() else None
    restored = Leaderboard.restore(tmp_path / "backup.db", path)
    assert isinstance(restored, Leaderboard)
    assert restored.entries() == Leaderboard(path).entries() == entries
    restored.check()
    assert Leaderboard(tmp_path / "backup.db").entries() == entries
    aside = tmp_path / "board.db.damaged"
    assert (aside.read_bytes() if aside.exists() else None) == there
    restored.add(entry("next", 9.0))
    assert Leaderboard(path).entries() == [entry("next", 9.0), *entries]
    assert Leaderboard(tmp_path / "backup.db").entries() == entries


def test_nothing_that_was_set_aside_is_written_over(path, tmp_path):
    filled(path).backup(tmp_path / "backup.db")
    for i in range(3):
        path.write_bytes(b"coffee %d" % i)
        Leaderboard.restore(str(tmp_path / "backup.db"), str(path))
    kept = [tmp_path / f"board.db.damaged{end}" for end in ("", ".1", ".2")]
    assert [file.read_bytes() for file in kept] == [b"coffee 0", b"coffee 1", b"coffee 2"]
    assert len(Leaderboard(path).entries()) == 200


@pytest.mark.parametrize("missing", [False, True])
def test_what_an_old_journal_holds_is_not_played_into_the_new_file(missing, path, tmp_path):
    """A process that was killed leaves a -wal file; it belongs to the file that was damaged, or is gone."""
    board = filled(path)
    board.backup(tmp_path / "backup.db")
    holder = sqlite3.connect(path)
    holder.execute("DELETE FROM entries")
    holder.commit()
    left = {end: Path(f"{path}{end}").read_bytes() for end in ("-wal", "-shm")}
    assert left["-wal"]
    holder.close()
    for end, raw in left.items():
        Path(f"{path}{end}").write_bytes(raw)
    if missing:
        path.unlink()
    assert len(Leaderboard.restore(tmp_path / "backup.db", path).entries()) == 200
    if not missing:
        for end, raw in left.items():
            assert Path(f"{tmp_path / 'board.db.damaged'}{end}").read_bytes() == raw


def test_a_backup_that_is_missing_changes_nothing(path, tmp_path):
    board = filled(path)
    with expect_error(FileNotFoundError, "backup.db"):
        Leaderboard.restore(tmp_path / "backup.db", path)
    assert len(board.entries()) == 200
    assert not (tmp_path / "backup.db").exists()
    assert not (tmp_path / "board.db.damaged").exists()


@pytest.mark.parametrize("at", [0.0, 0.5, "index"])
def test_a_backup_that_is_damaged_changes_nothing(at, path, tmp_path):
    board, backup = filled(path), tmp_path / "backup.db"
    board.backup(backup)
    if at == "index":
        backup.write_bytes(backup.read_bytes().replace(b"digest-77", b"digest-xx", 1))
    else:
        damage(backup, at)
    with expect_error(DamagedLeaderboard, "backup.db"):
        Leaderboard.restore(tmp_path / "backup.db", path)
    assert len(board.entries()) == 200
    assert not (tmp_path / "board.db.damaged").exists()


def test_the_front_of_a_leaderboard_is_that_of_its_entries(path):
    board = Leaderboard(path)
    rng = np.random.default_rng(0)
    for i in range(12):
        accuracy, latency, memory, size = rng.integers(1, 4, 4)
        board.add(
            entry(
                str(i),
                float(i),
                accuracy=accuracy / 4,
                latency=float(latency),
                memory=float(memory),
                size=float(size),
            )
        )
    assert board.front() == pareto_front(board.entries(), lambda one: one.metrics)
