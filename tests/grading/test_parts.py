"""The small parts of grading: scores, the ledger, keys, what a child's lines amount to, prints of code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dojo import manifest
from dojo.authoring.outcomes import words_of
from dojo.curriculum import Kata, find
from dojo.grading import keys, plain, reports, similarity
from dojo.grading.keys import How, key
from dojo.grading.leash import Ended, Leash, Stopped
from dojo.grading.ledger import Ledger
from dojo.grading.one import grade_one
from dojo.grading.results import FAILED, PASSED, Grade, Outcome, Part
from dojo.grading.submissions import Submission

LEVELS = (
    Part("level 1", PASSED, 4, 4, 4),
    Part("level 2", FAILED, 1, 2, 2, "test_x: no"),
    Part("level 3", "blocked", 0, 2, 2),
    Part("level 4", "blocked", 0, 2, 2),
)
HALF = Outcome("04", FAILED, LEVELS, "test_x: no", 1.5)


def test_a_score_is_the_weighted_share_of_tests_that_passed() -> None:
    assert HALF.score == pytest.approx((4 + 2 / 2) / 10)
    assert Outcome("04", PASSED, LEVELS[:1]).score == 1
    assert Outcome("04", "locked").score == 0


def test_what_did_not_run_is_never_a_pass() -> None:
    assert Grade("ana", (HALF, Outcome("05", "locked"), Outcome("06", "missing"))).points == pytest.approx(5)
    assert Grade("ana", (HALF,)).line() == "ana  5.0 of 10   04 level 2"


def test_the_ledger_gives_back_what_it_was_told(tmp_path: Path) -> None:
    Ledger(tmp_path / "l").add("k", HALF)
    assert Ledger(tmp_path / "l").known == {"k": HALF}


@pytest.mark.parametrize(
    "torn", ['{"key": "b", "outc', '{"key": 3}', "[]", "\x00\xff", '{"key":"b","outcome":{}}']
)
def test_a_torn_line_costs_one_verdict_and_spoils_no_other(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "l"
    Ledger(path).add("a", HALF)
    with path.open("a") as file:
        file.write(torn)
    ledger = Ledger(path)
    assert set(ledger.known) == {"a"}
    ledger.add("c", HALF)
    assert set(Ledger(path).known) == {"a", "c"}


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l")
    threads = [
        threading.Thread(target=lambda n=n: [ledger.add(f"{n}.{i}", HALF) for i in range(20)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Ledger(tmp_path / "l").known) == 80


def test_a_key_is_about_the_content_and_not_the_name() -> None:
    ana = Submission("ana", {"setup": b"x = 1\n", "tensor": b"y"})
    kata, how = find("02"), How()
    before = key(ana, kata, how)
    assert key(replace(ana, name="ben"), kata, how) == before
    assert key(replace(ana, files={**ana.files, "setup": b"x = 1\r\n"}), kata, how) == before
    assert key(replace(ana, files={**ana.files, "layers": b"later"}), kata, how) == before
    assert key(ana, kata, How(secret=b"another")) == before
    changes = [
        key(replace(ana, files={**ana.files, "tensor": b"z"}), kata, how),
        key(replace(ana, files={**ana.files, "setup": b"z"}), kata, how),
        key(ana, find("01"), how),
        key(ana, kata, How(strict=True)),
        key(ana, kata, How(borrow=True)),
    ]
    assert len({before, *changes}) == 6


def lines(states: dict[str, str], end: bool = True) -> list[dict[str, object]]:
    told: list[dict[str, object]] = [
        {"kind": "test", "id": i, "state": s, "words": s, "when": "call"} for i, s in states.items()
    ]
    return told + [{"kind": "end", "code": 0}] * end


@pytest.fixture
def sealed(monkeypatch: pytest.MonkeyPatch) -> Sequence[str]:
    tests = ("test_1_a.py::test_x", "test_1_a.py::test_y", "test_2_b.py::test_x", "test_4_c.py::test_x")
    monkeypatch.setattr(manifest, "read", lambda kata: manifest.Manifest("0", tests))
    return tests


def judged(told: list[dict[str, object]], status: int | None = 0) -> Outcome:
    kata = find("04")
    return plain.judge(kata, plain.hear(kata, Ended(status, "last words", 1), told))


def test_all_sealed_tests_green_is_a_pass(sealed: Sequence[str]) -> None:
    assert judged(lines(dict.fromkeys(sealed, "passed"))).state == PASSED


@pytest.mark.parametrize("state", ["skipped", "blocked", "todo", "failed"])
def test_skipped_and_blocked_count_as_failed(sealed: Sequence[str], state: str) -> None:
    outcome = judged(lines({**dict.fromkeys(sealed, "passed"), sealed[-1]: state}))
    assert outcome.state == FAILED
    assert outcome.score == pytest.approx(6 / 8)


def test_a_test_that_never_ran_counts_as_failed(sealed: Sequence[str]) -> None:
    assert judged(lines(dict.fromkeys(sealed[:-1], "passed"))).reached == "level 4"


def test_a_test_in_whose_body_the_child_ended_has_not_passed(sealed: Sequence[str]) -> None:
    told = lines(dict.fromkeys(sealed, "passed"))
    told[0]["when"] = "setup"
    assert judged(told).parts[0].passed == 1


def test_a_pass_takes_nothing_back(sealed: Sequence[str]) -> None:
    told = lines({sealed[0]: "failed"}, end=False) + lines(dict.fromkeys(sealed, "passed"))
    assert judged(told).reached == "level 1"


def test_tests_that_are_not_sealed_count_for_nothing(sealed: Sequence[str]) -> None:
    assert judged(lines({"test_1_mine.py::test_easy": "passed"})).score == 0


def test_a_stub_that_cannot_be_imported_is_the_reason(sealed: Sequence[str]) -> None:
    stopped = lines({"test_1_a.py::the_stub_can_be_imported": "failed", sealed[-1]: "blocked"})
    outcome = judged([{**line, "words": "setup.py:1: Python cannot read this"} for line in stopped])
    assert (outcome.state, outcome.score, outcome.reached) == (FAILED, 0, "level 1")
    assert outcome.words == "setup.py:1: Python cannot read this"


def test_a_run_that_broke_off_or_ran_out_of_time_does_not_pass(sealed: Sequence[str]) -> None:
    green = dict.fromkeys(sealed, "passed")
    broken, late = judged(lines(green, end=False), 3), judged(lines(green), None)
    assert broken.words == "the run broke off: last words"
    assert "time limit" in late.words
    assert {broken.state, late.state} == {FAILED}
    assert max(broken.score, late.score) < 1


def test_a_refused_submission_and_a_missing_file_cost_no_process() -> None:
    kata = find("02")
    refused = grade_one(Submission("ana", trouble="torn"), [kata])
    missing = grade_one(Submission("ana", {"setup": b""}), [kata])
    assert [o.state for o in (*refused.outcomes, *missing.outcomes)] == ["refused", "missing"]


def prints(*texts: str) -> list[set[int]]:
    return [similarity.prints(textwrap.dedent(text).encode()) for text in texts]


ONE = """
def f(grad, shape):
    '''Sum.'''
    for axis, n in enumerate(shape):
        if n == 1 and grad.shape[axis] > 1:
            grad = grad.sum(axis=axis, keepdims=True)
    while grad.ndim > len(shape):
        grad = grad.sum(axis=0)
    return grad.reshape(shape)
"""


def test_other_names_comments_and_numbers_leave_the_prints_as_they_are() -> None:
    changed = ONE.replace("grad", "g").replace("axis", "a").replace("'''Sum.'''", "'''Mine.'''  # really")
    one, other = prints(ONE, changed)
    assert len(one) >= 5
    assert len(one & other) / len(one) > 0.8  # `axis=axis` is one name here and a keyword there


def test_another_way_has_other_prints() -> None:
    other = """
    def f(grad, shape):
        extra = tuple(range(grad.ndim - len(shape)))
        kept = tuple(i for i, n in enumerate(shape, len(extra)) if n == 1)
        return np.add.reduce(grad, axis=extra + kept).reshape(shape)
    """
    one, two = prints(ONE, other)
    assert len(one & two) <= 1


def test_files_that_are_no_python_have_no_prints() -> None:
    assert prints("def f(:", "\0", "f(" * 5000) == [set()] * 3
    assert prints(f"def f(x):\n    return {' + '.join('x' * 2000)}") == [set()]


def test_a_copy_is_found_and_the_stub_alone_is_not() -> None:
    kata: Kata = find("03")
    copied = kata.reference.read_bytes().replace(b"weight", b"w")
    class_ = [Submission("ana", {"layers": copied}), Submission("ben", {"layers": kata.stub.read_bytes()})]
    found = {(pair.one, pair.other) for pair in similarity.alike(class_, [kata])}
    assert found == {("ana", "reference/")}


def test_reports_hold_what_students_write_and_are_harmed_by_none_of_it() -> None:
    evil = replace(HALF, words="<script>\x00&\ud800", parts=(replace(LEVELS[1], words="=cmd()"),))
    grades = [Grade("=HYPERLINK(1)<b>", (evil,))]
    assert "'=HYPERLINK" in reports.scores(grades)
    assert ",'=cmd()" in reports.details(grades)
    root = ElementTree.fromstring(reports.junit(grades))
    assert [case.tag for case in root.iter("failure")] == ["failure"]
    page = reports.page("a class", grades, [])
    assert "<b>" not in page
    assert "<script>" not in page


def test_the_page_fetches_nothing_and_says_where_each_stopped() -> None:
    page = reports.page("a class", [Grade("ana", (HALF,)), Grade("ben", (Outcome("04", PASSED),))], [])
    assert "default-src 'none'" in page
    assert "level 2" in page
    assert "50%" in page


linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@linux
def test_a_child_that_is_late_is_ended_with_what_it_started(tmp_path: Path) -> None:
    away = "import os, subprocess, sys, time; subprocess.Popen(['sleep', '97'], start_new_session=True)"
    ended = Leash().run(["-c", f"{away}; print('here', flush=True); time.sleep(60)"], 1.0, dict(os.environ))
    assert (ended.status, ended.output) == (None, "here\n")
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "sleep 97" not in running.splitlines()


@linux
def test_a_child_cannot_take_all_memory() -> None:
    ended = Leash().run(["-c", "x = bytearray(1 << 35)"], 30.0, dict(os.environ))
    assert "MemoryError" in ended.output


def test_only_the_end_of_a_flood_is_kept() -> None:
    ended = Leash().run(["-c", "print('x' * 10**6); print('end')"], 30.0, dict(os.environ))
    assert len(ended.output) <= 20_000
    assert ended.output.endswith("end" + os.linesep)


def test_a_leash_that_is_stopped_ends_its_children_and_starts_no_more() -> None:
    leash, stopped = Leash(), []

    def wait() -> None:
        try:
            leash.run(["-c", "import time; time.sleep(60)"], 50.0, dict(os.environ))
        except Stopped:
            stopped.append(True)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    leash.stop()
    thread.join(20)
    assert stopped == [True]
    with pytest.raises(Stopped):
        leash.run(["-c", ""], 1.0, dict(os.environ))


def test_outcomes_survive_json() -> None:
    assert Outcome.from_data(json.loads(json.dumps(HALF.as_data()))) == HALF


def test_a_grader_that_was_changed_says_so_and_grades_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "ROOT", tmp_path)
    for cached in (keys._everything, keys._grader):
        cached.cache_clear()
    for name in ("conftest.py", "pytest.ini", "katas/04_activations/test_1_x.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("as it was")
    keys.check_untouched()
    (tmp_path / "katas/04_activations/test_1_x.py").write_text("def test_x(): pass")
    with pytest.raises(keys.Tampered, match="git status"):
        keys.check_untouched()
    for cached in (keys._everything, keys._grader):
        cached.cache_clear()


def test_a_reason_is_what_went_wrong_and_not_the_heading_above_it() -> None:
    class Report:
        longrepr = "kata 04.1 relu\nactivations.py:3, in relu: still running when its time was up."

    assert words_of(Report) == "activations.py:3, in relu: still running when its time was up."
    Report.longrepr = ""
    assert words_of(Report) == ""


def test_a_reason_has_what_came_back_and_what_was_expected() -> None:
    class Report:
        longrepr = (
            "kata 04.2 relu_back\ntest_2.py:9: in test_x\n    expect(back(grad), [[1], [2]])\n\n"
            "came back  [[ 1.],\n            [ 3.]]  float64, shape (2, 1)\n"
            "expected   [[ 1.],\n            [ 2.]]  float64, shape (2, 1)\nworst at [1, 0] 3.0"
        )

    assert words_of(Report) == (
        "came back [[ 1.], [ 3.]] float64, shape (2, 1); expected [[ 1.], [ 2.]] float64, shape (2, 1)"
    )
