"""Every cheat of tests/cheats/ gains nothing in strict mode, and leaves the machine as it was.

Limits are tightened, so that what never ends ends soon; a right solution is graded with the real ones.
"""

from __future__ import annotations

import os
import secrets
import select
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dojo.curriculum import BY_NUMBER, ROOT
from dojo.grading import plain, questions, reports, sandbox, strict, worker
from dojo.grading.keys import How
from dojo.grading.leash import TOKEN, Leash
from dojo.grading.one import grade_one
from dojo.grading.results import FAILED, PASSED, Grade, Outcome
from dojo.locking import lock
from tests.grading.cheats import KATA, NAMES, WHAT_STRICT_NEEDS, cheat, strict_mode_works

PRECIOUS = Path("/tmp/dojo-precious")  # which cheats know of
DOOR = 47113  # of a listener which cheats know of


pytestmark = pytest.mark.skipif(not strict_mode_works(), reason=WHAT_STRICT_NEEDS)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = tuple(replace(check, seconds=0.5) for check in questions.checks_of(KATA))
    monkeypatch.setattr(questions, "checks_of", lambda kata: checks)
    monkeypatch.setattr(worker, "IMPORT", 1.0)
    monkeypatch.setattr(worker, "PATIENCE", 1.0)
    monkeypatch.setattr(strict, "DEATHS", 1)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a test after which anything on this machine is not as it was, by what this test has started."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mark, user = secrets.token_hex(8), os.getpid() % sandbox.USERS[1]
    monkeypatch.setattr(secrets, "token_hex", lambda size: mark)
    monkeypatch.setattr(secrets, "randbelow", lambda end: user)
    with lock(PRECIOUS, 300):  # another run of these tests on this machine waits
        yield from unchanged(tmp_path, f"{TOKEN}={mark}", sandbox.USERS[0] + user)


def unchanged(tmp_path: Path, mark: str, user: int) -> Iterator[None]:
    shutil.rmtree(PRECIOUS, ignore_errors=True)
    PRECIOUS.mkdir()
    (PRECIOUS / "ledger.jsonl").write_text("dear")
    before = state(mark, user)
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(("127.0.0.1", DOOR))
        door.listen()
        yield
        assert not select.select([door], [], [], 0)[0], "it got through to the network"
    assert state(mark, user) == before
    assert list(tmp_path.iterdir()) == []
    shutil.rmtree(PRECIOUS)


def state(mark: str, user: int) -> dict[str, object]:
    """What cheats try to change: files of the course, others' files, processes."""
    watched = [ROOT, ROOT / "katas" / KATA.folder, ROOT / "reference" / "tinytorch", PRECIOUS]
    kept = (".py", ".json", ".jsonl", ".ini")
    files = {
        str(file): (file.stat().st_mtime_ns, file.stat().st_size)
        for folder in watched
        for file in folder.iterdir()
        if file.suffix in kept
    }
    left = [str(path) for folder in ("/tmp", "/dev/shm") for path in Path(folder).glob("dojo-cheat-*")]
    return {"files": files, "left": left, "running": running(mark, user)}


def running(mark: str, user: int | None = None) -> list[str]:
    """Processes with a mark in their environment, or of a user."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                marked = mark.encode() in (entry / "environ").read_bytes()
                if marked or entry.stat().st_uid == user:
                    found.append(entry.name)
        except OSError:
            continue
    return found


@pytest.mark.usefixtures("machine")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", NAMES)
def test_a_cheat_gains_nothing_and_leaves_the_machine_as_it_was(name: str, hurried: None) -> None:
    outcome = strict.run(cheat(name), KATA, How(strict=True, secret=os.urandom(16)), Leash())
    assert outcome.state != PASSED
    assert outcome.score == 0, outcome.parts
    # Whatever it said can be reported.
    reports.junit([Grade(name, (outcome,))])
    reports.scores([Grade(name, (outcome,))])


def test_there_are_enough_of_them() -> None:
    assert len(NAMES) >= 36


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(("number", "mask"), [("02", 0o022), ("04", 0o077), ("06", 0o002)])
def test_a_right_solution_passes_whatever_the_grader_lets_others_read(number: str, mask: int) -> None:
    before = os.umask(mask)
    try:
        _passes(number)
    finally:
        os.umask(before)


def _passes(number: str) -> None:
    files = {
        k.name: k.reference.read_bytes()
        for k in map(BY_NUMBER.__getitem__, ("01", "02", "03", "04", "05", "06"))
    }
    submission = replace(cheat(NAMES[0]), files=files)
    outcome = strict.run(submission, BY_NUMBER[number], How(strict=True, secret=b"any"), Leash())
    assert outcome.state == PASSED, outcome.words
    assert outcome.score == 1


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("name", ["patch_pytest", "edit_the_suite", "fill_the_disk", "hidden_subprocess"])
def test_a_suite_in_a_cell_can_be_fooled_but_harms_nothing(name: str) -> None:
    with plain.laid_out(cheat(name).files) as copies:
        told = plain.ask(KATA, str(copies), copies, 60, Leash(), celled=True)
    fooled = plain.judge(KATA, told).state == PASSED
    assert fooled == (name == "patch_pytest")  # which is why strict mode asks first


def test_what_does_not_hold_strictly_is_not_run_by_its_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Outcome(KATA.number, FAILED, words="strictly")
    monkeypatch.setattr(strict, "run", lambda submission, kata, how, leash: failed)
    monkeypatch.setattr(plain, "run", lambda *args: pytest.fail("it was run"))
    assert grade_one(cheat(NAMES[0]), [KATA], How(strict=True, suites=True)).outcomes == (failed,)
