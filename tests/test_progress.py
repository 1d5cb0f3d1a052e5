"""progress.json: what is remembered, when it goes stale, and that nothing can lose or break it."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dojo import curriculum, locking, progress
from dojo.curriculum import BY_NUMBER, KATAS
from dojo.progress import Fingerprint, storing

SETUP, TENSOR, LAYERS, ACTIVATIONS, NETWORKS = KATAS[:5]
PROVEN = Fingerprint("stub", "suite", {})
BLANK = b'{\n "hints": {},\n "katas": {},\n "milestones": {},\n "schema": 1\n}\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "progress.json"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of its own where katas 01 to 04 are written, and nothing has passed."""
    monkeypatch.setattr(curriculum, "ROOT", tmp_path)
    monkeypatch.setattr(curriculum, "STUBS", tmp_path / "stubs" / "tinytorch")
    monkeypatch.setattr(progress, "PATH", tmp_path / "progress.json")
    for kata in (SETUP, TENSOR, LAYERS, ACTIVATIONS):
        kata.path.mkdir(parents=True)
        (kata.path / "test_1_correctness.py").write_text(f"def test_{kata.name}(): ...\n")
        (kata.path / "manifest.json").write_text("{}")
        kata.stub.parent.mkdir(parents=True, exist_ok=True)
        kata.stub.write_text(f"name = '{kata.name}'\n")
    return tmp_path


def others(file: Path) -> list[str]:
    """The names of the files beside `file`, the lock apart."""
    return sorted(p.name for p in file.parent.iterdir() if p.name not in (file.name, f"{file.name}.lock"))


# What is remembered


def test_without_a_file_the_course_is_blank(file: Path) -> None:
    blank = progress.load(file)
    assert (blank.katas, blank.milestones, blank.hints, blank.trouble) == ({}, {}, {}, None)
    assert blank.frontier() == SETUP
    assert [kata.number for kata in KATAS if blank.reached(kata)] == ["01"]


def test_loading_writes_nothing(file: Path) -> None:
    progress.load(file)
    assert list(file.parent.iterdir()) == []


def test_a_pass_is_recorded_with_all_that_it_was_a_pass_of(file: Path) -> None:
    measured = [{"what": "peak", "value": 1.5, "limit": 2.0, "unit": "arrays"}]
    proven = Fingerprint("aaaa", "bbbb", {"02": "cccc"})
    assert progress.record_pass(LAYERS, measured, 7, proven=proven, path=file) == []
    record = progress.load(file).katas["03"]
    assert (record.stub, record.suite, record.needs) == ("aaaa", "bbbb", {"02": "cccc"})
    assert (record.seed, record.measured) == (7, measured)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record.time)
    assert record.versions["python"] == "{}.{}.{}".format(*sys.version_info[:3])
    assert re.match(r"\d+\.\d+", record.versions["numpy"])
    assert re.match(r"\d+\.\d+", record.versions["dojo"])


def test_measured_numbers_of_numpy_are_written_as_plain_numbers(file: Path) -> None:
    import numpy as np

    measured = [{"what": "ratio", "value": np.float32(0.5), "limit": np.int64(3)}]
    assert progress.record_pass(SETUP, measured, 0, proven=PROVEN, path=file) == []
    assert progress.load(file).katas["01"].measured == [{"what": "ratio", "value": 0.5, "limit": 3}]


def test_the_file_is_sorted_indented_by_one_and_ends_in_a_newline(file: Path) -> None:
    storing.update(file, lambda data: None)
    assert file.read_bytes() == BLANK


def test_the_frontier_moves_with_each_pass_and_stays_at_the_end(file: Path) -> None:
    for kata in KATAS:
        assert progress.load(file).frontier() == kata
        progress.record_pass(kata, [], 0, proven=PROVEN, path=file)
    assert progress.load(file).frontier() == KATAS[-1]
    assert progress.load(file).passed == set(BY_NUMBER)


def test_a_kata_is_reached_only_when_every_kata_before_it_has_passed(file: Path) -> None:
    for kata in (SETUP, LAYERS):
        progress.record_pass(kata, [], 0, proven=PROVEN, path=file)
    now = progress.load(file)
    assert now.reached(TENSOR)
    assert not now.reached(LAYERS)
    assert not now.reached(ACTIVATIONS)
    assert now.frontier() == TENSOR


def test_hints_are_counted_for_each_task(file: Path) -> None:
    assert [progress.record_hint(task, path=file) for task in ("06.3", "06.3", "02.1", "06.3")] == [
        0,
        1,
        0,
        2,
    ]
    assert progress.load(file).hints == {"06.3": 3, "02.1": 1}


def test_what_a_later_dojo_adds_to_the_file_survives_an_update(file: Path) -> None:
    record = {"time": "2026-01-01T00:00:00Z", "stub": "old", "mood": "proud"}
    file.write_text(json.dumps({"schema": 1, "katas": {"01": record, "02": record}, "theme": {"dark": True}}))
    progress.record_pass(SETUP, [], 0, proven=PROVEN, path=file)
    data = json.loads(file.read_text())
    assert data["theme"] == {"dark": True}
    assert data["katas"]["02"] == record
    assert (data["katas"]["01"]["mood"], data["katas"]["01"]["stub"]) == ("proud", "stub")


def test_a_byte_order_mark_and_windows_line_endings_are_read(file: Path) -> None:
    progress.record_pass(SETUP, [], 0, proven=PROVEN, path=file)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    now = progress.load(file)
    assert (now.passed, now.trouble) == ({"01"}, None)


def test_reading_progress_imports_nothing_heavy() -> None:
    code = "import sys; from dojo import progress; progress.load(); print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    assert "dojo.progress" in run.stdout.split(), run.stderr
    heavy = {"numpy", "rich", "hypothesis", "pytest", "subprocess", "importlib.metadata", "hashlib"}
    assert heavy.isdisjoint(run.stdout.split())


# Staleness


def passed(*katas: curriculum.Kata) -> None:
    for kata in katas:
        assert progress.record_pass(kata, [], 0) == []


def states() -> list[str]:
    return [progress.load().state(kata) for kata in KATAS[:6]]


def test_a_kata_is_unwritten_locked_open_or_passed(root: Path) -> None:
    assert states() == ["open", "locked", "locked", "locked", "unwritten", "unwritten"]
    passed(SETUP, TENSOR)
    assert states() == ["passed", "passed", "open", "locked", "unwritten", "unwritten"]


def edit_own_stub() -> None:
    ACTIVATIONS.stub.write_text("name = 'edited'\n")


def edit_own_suite() -> None:
    (ACTIVATIONS.path / "test_1_correctness.py").write_text("def test_less(): ...\n")


def add_to_own_suite() -> None:
    (ACTIVATIONS.path / "test_2_gradients.py").write_text("def test_more(): ...\n")


def edit_needed_stub() -> None:
    TENSOR.stub.write_text("name = 'edited'\n")


def delete_needed_stub() -> None:
    LAYERS.stub.unlink()


def edit_needed_suite() -> None:
    (TENSOR.path / "test_1_correctness.py").write_text("def test_less(): ...\n")


def forget_needed_pass() -> None:
    storing.update(progress.PATH, lambda data: data["katas"].pop("02"))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (edit_own_stub, "stubs/tinytorch/activations.py changed since 04 activations passed"),
        (edit_own_suite, "the tests in katas/04_activations changed since 04 activations passed"),
        (add_to_own_suite, "the tests in katas/04_activations changed since 04 activations passed"),
        (edit_needed_stub, "stubs/tinytorch/tensor.py changed since 04 activations, which needs it, passed"),
        (
            delete_needed_stub,
            "stubs/tinytorch/layers.py went missing or became unreadable "
            "since 04 activations, which needs it, passed",
        ),
        (
            edit_needed_suite,
            "02 tensor, which 04 activations stands on, is stale: "
            "the tests in katas/02_tensor changed since 02 tensor passed",
        ),
        (forget_needed_pass, "02 tensor, which 04 activations needs, has no pass on record"),
    ],
)
def test_an_edit_makes_stale_what_it_was_proven_with(
    root: Path, edit: Callable[[], None], reason: str
) -> None:
    passed(SETUP, TENSOR, LAYERS, ACTIVATIONS)
    assert progress.load().stale_because(ACTIVATIONS) is None
    edit()
    now = progress.load()
    assert now.stale_because(ACTIVATIONS) == reason
    assert now.state(ACTIVATIONS) == "stale"
    assert now.state(SETUP) == "passed"


def test_an_edit_leaves_alone_what_does_not_need_it(root: Path) -> None:
    passed(SETUP, TENSOR, LAYERS, ACTIVATIONS)
    edit_own_stub()
    assert states()[:4] == ["passed", "passed", "passed", "stale"]
    LAYERS.stub.write_text("name = 'edited'\n")
    assert states()[:4] == ["passed", "passed", "stale", "stale"]


def test_a_stale_kata_locks_nothing(root: Path) -> None:
    passed(SETUP, TENSOR, LAYERS)
    edit_needed_stub()
    now = progress.load()
    assert states()[:4] == ["passed", "stale", "stale", "open"]
    assert now.frontier() == ACTIVATIONS
    assert now.passed == {"01", "02", "03"}


def test_passing_again_proves_a_stale_kata(root: Path) -> None:
    passed(SETUP, TENSOR, LAYERS)
    edit_needed_stub()
    passed(TENSOR)
    assert states()[:3] == ["passed", "passed", "stale"]
    passed(LAYERS)
    assert states()[:3] == ["passed", "passed", "passed"]


def test_staleness_is_told_where_it_begins(root: Path) -> None:
    passed(SETUP, TENSOR, LAYERS, ACTIVATIONS)
    assert progress.load().stale_roots() == {}
    edit_needed_suite()
    assert states()[:4] == ["passed", "stale", "stale", "stale"]
    assert progress.load().stale_roots() == {
        TENSOR: "the tests in katas/02_tensor changed since 02 tensor passed"
    }


def test_undoing_an_edit_undoes_the_staleness(root: Path) -> None:
    passed(SETUP)
    before = SETUP.stub.read_text()
    SETUP.stub.write_text("name = 'edited'\n")
    assert states()[0] == "stale"
    SETUP.stub.write_text(before)
    assert states()[0] == "passed"


def test_windows_line_endings_make_nothing_stale(root: Path) -> None:
    passed(SETUP, TENSOR)
    for path in (SETUP.stub, TENSOR.stub, TENSOR.path / "test_1_correctness.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert states()[:2] == ["passed", "passed"]


SAID = """\
def more(x):
    'One more.'
    return x + 1
"""
SAID_OTHERWISE = """\
'What is more.'


def more(
    x,
):
    'One more than x, always.'
    # Nothing to be said.
    return x + 1
"""


def test_other_comments_and_docstrings_make_nothing_stale(root: Path) -> None:
    TENSOR.stub.write_text(SAID)
    passed(SETUP, TENSOR, LAYERS)
    TENSOR.stub.write_text(SAID_OTHERWISE)
    assert states()[:3] == ["passed", "passed", "passed"]
    passed(TENSOR)
    assert states()[:3] == ["passed", "passed", "passed"]
    for edited in (SAID_OTHERWISE.replace("x + 1", "x + 2"), SAID_OTHERWISE.replace("x + 1", "(x")):
        TENSOR.stub.write_text(edited)
        assert states()[:3] == ["passed", "stale", "stale"]


def test_a_text_that_is_no_docstring_counts(root: Path) -> None:
    TENSOR.stub.write_text("def f():\n    return 'a'\n")
    passed(SETUP, TENSOR)
    TENSOR.stub.write_text("def f():\n    return 'b'\n")
    assert states()[:2] == ["passed", "stale"]


def test_a_stub_saved_while_its_tests_ran_is_stale(root: Path) -> None:
    proven = progress.fingerprint(SETUP)
    SETUP.stub.write_text("name = 'saved in mid-run'\n")
    progress.record_pass(SETUP, [], 0, proven=proven)
    assert states()[0] == "stale"


def test_a_stub_that_is_gone_is_stale_and_can_even_be_recorded(root: Path) -> None:
    passed(SETUP)
    SETUP.stub.unlink()
    assert states()[0] == "stale"
    assert progress.record_pass(SETUP, [], 0) == []
    assert states()[0] == "stale"


# Damage

GOOD_RECORD = {"time": "2026-01-01T00:00:00Z", "stub": "s", "suite": "t", "needs": {}, "seed": 0}


def with_record(**changes: Any) -> bytes:
    return json.dumps({"schema": 1, "katas": {"01": {**GOOD_RECORD, **changes}}}).encode()


DAMAGED = {
    "empty": b"",
    "blank lines": b"\n\n",
    "torn": b'{"schema": 1, "katas": {"01": {"ti',
    "zeros": b"\0" * 512,
    "latin-1": '{"schema": 1, "katas": {}, "name": "é"}'.encode("latin-1"),
    "utf-16": '{"schema": 1}'.encode("utf-16"),
    "a list": b"[1, 2]",
    "null": b"null",
    "a number": b"3",
    "no schema": b'{"katas": {}}',
    "schema of text": b'{"schema": "1", "katas": {}}',
    "schema true": b'{"schema": true, "katas": {}}',
    "schema zero": b'{"schema": 0, "katas": {}}',
    "katas a list": b'{"schema": 1, "katas": []}',
    "katas null": b'{"schema": 1, "katas": null}',
    "milestones text": b'{"schema": 1, "katas": {}, "milestones": "m1"}',
    "hints a list": b'{"schema": 1, "katas": {}, "hints": [1]}',
    "a record of text": b'{"schema": 1, "katas": {"01": "passed"}}',
    "a negative hint": b'{"schema": 1, "katas": {}, "hints": {"06.3": -1}}',
    "a hint true": b'{"schema": 1, "katas": {}, "hints": {"06.3": true}}',
    "time a number": with_record(time=3),
    "stub null": with_record(stub=None),
    "needs a list": with_record(needs=["02"]),
    "needs of numbers": with_record(needs={"02": 3}),
    "versions of lists": with_record(versions={"python": [3, 11]}),
    "seed of text": with_record(seed="0"),
    "measured an object": with_record(measured={}),
    "measured of numbers": with_record(measured=[1]),
    "a hundred thousand brackets": b"[" * 100_000,
    "a number of ten thousand digits": b'{"schema": ' + b"1" * 10_000 + b"}",
}
damaged = pytest.mark.parametrize("raw", [pytest.param(raw, id=name) for name, raw in DAMAGED.items()])


@damaged
def test_damage_is_told_with_what_to_do_and_the_file_is_left_alone(file: Path, raw: bytes) -> None:
    file.write_bytes(raw)
    now = progress.load(file)
    assert now.trouble is not None
    assert now.trouble.startswith("progress.json is damaged (")
    assert "`dojo verify --all`" in now.trouble
    assert now.frontier() in KATAS
    assert file.read_bytes() == raw
    assert list(file.parent.iterdir()) == [file]


@damaged
def test_repair_keeps_a_damaged_file_and_starts_anew(file: Path, raw: bytes) -> None:
    file.write_bytes(raw)
    (message,) = progress.repair(file)
    (kept,) = others(file)
    assert re.fullmatch(r"progress\.json\.corrupt-\d{8}T\d{6}Z", kept)
    assert (file.parent / kept).read_bytes() == raw
    assert kept in message
    assert "`dojo verify --all`" in message
    assert progress.load(file).trouble is None
    assert progress.repair(file) == []


def test_nothing_is_said_to_be_unproven_where_no_pass_was_read(root: Path) -> None:
    progress.PATH.write_bytes(b"{")
    (message,) = progress.repair()
    assert "proven" not in message
    assert message.endswith("If katas had passed before, `dojo verify --all` finds them")
    passed(SETUP)
    progress.PATH.write_bytes(progress.PATH.read_bytes()[:-30])
    (message,) = progress.repair()
    assert "(katas passed: 01), to be proven again: run `dojo verify --all`" in message


def test_damage_names_what_is_wrong(file: Path) -> None:
    file.write_bytes(with_record(needs={"02": 3}))
    assert "katas.01 has a wrong needs" in str(progress.load(file).trouble)
    file.write_bytes(b'{"schema": 1,\n"katas": {"01"\n')
    assert "line 3" in str(progress.load(file).trouble)
    file.write_bytes(b" \n")
    assert "it is empty" in str(progress.load(file).trouble)


def test_whole_records_of_a_damaged_file_unlock_but_are_not_proven(root: Path) -> None:
    passed(SETUP, TENSOR)
    progress.record_hint("03.1")
    progress.PATH.write_bytes(progress.PATH.read_bytes()[:-30])  # the end is torn off
    for _ in range(2):  # as it lies there, and repaired
        now = progress.load()
        assert now.passed == {"01", "02"}
        assert now.hints == {"03.1": 1}
        assert states()[:3] == ["stale", "stale", "open"]
        assert "not proven" in str(now.stale_because(SETUP))
        progress.repair()
    passed(SETUP)
    assert states()[:3] == ["passed", "stale", "open"]


def test_a_pass_is_recorded_although_the_file_was_damaged(file: Path) -> None:
    file.write_bytes(b"{")
    (message,) = progress.record_pass(SETUP, [], 0, proven=PROVEN, path=file)
    (kept,) = others(file)
    assert kept in message
    assert progress.load(file).katas["01"].stub == "stub"


def test_a_file_set_aside_is_never_overwritten_nor_kept_twice(file: Path) -> None:
    for raw in (b"one", b"two", b"three", b"two"):  # within a second, so that the names would be the same
        file.write_bytes(raw)
        progress.repair(file)
    assert sorted((file.parent / name).read_bytes() for name in others(file)) == [b"one", b"three", b"two"]


def test_every_torn_half_of_a_file_can_be_read(file: Path) -> None:
    progress.record_pass(LAYERS, [{"what": "x", "value": 1}], 0, proven=PROVEN, path=file)
    whole = file.read_bytes()
    for length in range(len(whole) - 1):  # without its last newline the file is still whole
        file.write_bytes(whole[:length])
        assert progress.load(file).trouble, whole[:length]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
records = st.fixed_dictionaries(
    {}, optional=dict.fromkeys((*GOOD_RECORD, "versions", "measured"), json_values)
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "schema": st.just(1) | json_values,
        "katas": st.dictionaries(st.sampled_from(["01", "02", "xx"]), records | json_values) | json_values,
        "milestones": json_values,
        "hints": st.dictionaries(st.just("06.3"), json_values) | json_values,
    },
)
quick = settings(
    deadline=None,
    derandomize=True,
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@quick
@given(raw=st.binary(max_size=60) | documents.map(lambda data: json.dumps(data).encode()))
def test_nothing_in_the_file_can_make_reading_fail(file: Path, raw: bytes) -> None:
    file.write_bytes(raw)
    now = progress.load(file)
    assert now.frontier() in KATAS
    for record in now.katas.values():
        assert all(isinstance(value, str) for value in (record.time, record.stub, *record.needs.values()))
        assert type(record.seed) is int
    assert all(type(count) is int and count >= 0 for count in now.hints.values())


# Merges


def record(stub: str, time_of: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return {**GOOD_RECORD, "time": time_of, "stub": stub, "versions": {}, "measured": []}


def document(katas: dict[str, Any], hints: dict[str, Any] | None = None, **more: Any) -> str:
    data = {"schema": 1, "katas": katas, "milestones": {}, "hints": hints or {}, **more}
    return json.dumps(data, indent=1, sort_keys=True) + "\n"


def merged(folder: Path, ours: str, base: str, theirs: str, *options: str) -> bytes:
    """What git leaves in a file that two branches changed."""
    names = []
    for name, text in (("ours", ours), ("base", base), ("theirs", theirs)):
        (folder / name).write_text(text)
        names.append(name)
    run = subprocess.run(["git", "merge-file", "-p", *options, *names], cwd=folder, capture_output=True)
    assert b"<<<<<<<" in run.stdout, (run.stdout, run.stderr)
    for name in names:
        (folder / name).unlink()
    return run.stdout


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("options", [(), ("--diff3",)], ids=["plain", "diff3"])
def test_an_unfinished_merge_keeps_what_both_sides_passed_but_unproven(
    file: Path, options: tuple[str, ...]
) -> None:
    base = {"01": record("one")}
    ours = document(
        {**base, "02": record("o", "2026-02-02T00:00:00Z"), "03": record("o")}, {"02.1": 2, "03.1": 1}
    )
    theirs = document({**base, "02": record("t", "2026-03-03T00:00:00Z")}, {"02.1": 1, "02.5": 4})
    raw = merged(file.parent, ours, document(base), theirs, *options)
    file.write_bytes(raw)
    now = progress.load(file)
    assert "git merge" in str(now.trouble)
    assert "`dojo verify --all`" in str(now.trouble)
    assert file.read_bytes() == raw
    (message,) = progress.repair(file)
    (kept,) = others(file)
    assert re.fullmatch(r"progress\.json\.conflict-\d{8}T\d{6}Z", kept)
    assert (file.parent / kept).read_bytes() == raw
    assert kept in message
    after = progress.load(file)
    assert after.trouble is None
    for seen in (now, after):
        assert seen.passed == {"01", "02", "03"}
        assert {record.stub for record in seen.katas.values()} == {""}
        assert seen.katas["02"].time == "2026-03-03T00:00:00Z"  # the later of the two
        assert seen.hints == {"02.1": 2, "03.1": 1, "02.5": 4}


def test_marks_that_split_a_record_lose_neither_side(file: Path) -> None:
    file.write_text(
        '{\n "katas": {\n  "01": {\n<<<<<<< HEAD\n   "stub": "a",\n   "time": "2026-01-01T00:00:00Z"\n'
        '  },\n  "02": {\n   "stub": "b",\n   "time": "2026-01-02T00:00:00Z"\n'
        '=======\n   "stub": "c",\n   "time": "2026-01-05T00:00:00Z"\n>>>>>>> theirs\n'
        '  }\n },\n "schema": 1\n}\n'
    )
    now = progress.load(file)
    assert now.passed == {"01", "02"}
    assert now.katas["01"].time == "2026-01-05T00:00:00Z"


def test_records_are_found_where_neither_side_of_a_merge_is_json(file: Path) -> None:
    text = document({"01": record("a")}, {"01.4": 3}).rstrip().rstrip("}")
    more = '"02": ' + json.dumps(record("b")) + "\n"
    file.write_bytes(f"<<<<<<< HEAD\r\n{text}\r\n=======\r\n{more}\r\n>>>>>>> theirs\r\n".encode())
    now = progress.load(file)
    assert now.passed == {"01", "02"}
    assert now.hints == {"01.4": 3}


@pytest.mark.parametrize("later", ["ours", "theirs"])
def test_of_two_records_of_one_kata_the_later_one_is_kept(file: Path, later: str) -> None:
    times = {side: f"2026-0{2 if side == later else 1}-01T00:00:00Z" for side in ("ours", "theirs")}
    ours, theirs = (document({"01": record("a", times[side])}) for side in ("ours", "theirs"))
    file.write_text(f"<<<<<<< HEAD\n{ours}=======\n{theirs}>>>>>>> theirs\n")
    assert progress.load(file).katas["01"].time == "2026-02-01T00:00:00Z"


@pytest.mark.parametrize("left", ["<<<<<<< HEAD\n", "=======\n", ">>>>>>> theirs\n"])
def test_one_mark_left_behind_is_a_merge_still(file: Path, left: str) -> None:
    file.write_text(document({"01": record("a")}) + left)
    now = progress.load(file)
    assert "git merge" in str(now.trouble)
    assert now.passed == {"01"}


# What must not be written


@pytest.mark.parametrize("merge", [False, True], ids=["whole", "in a merge"])
def test_a_file_of_a_newer_schema_is_read_and_never_written(file: Path, merge: bool) -> None:
    newer = document(
        {"01": record("a"), "02": {"stub": {"sha": 3}}}, {"01.1": 2, "01.2": "many"}, schema=2, teams=["red"]
    )
    text = f"<<<<<<< HEAD\n{newer}=======\n{document({})}>>>>>>> theirs\n" if merge else newer
    file.write_text(text)
    now = progress.load(file)
    assert "newer" in str(now.trouble)
    assert "`git pull`" in str(now.trouble)
    assert now.passed == {"01"}
    assert now.katas["01"].stub == "a"
    assert progress.record_pass(TENSOR, [], 0, proven=PROVEN, path=file) == [now.trouble]
    assert progress.record_hint("01.1", path=file) == 2
    assert progress.repair(file) == [now.trouble]
    assert file.read_text() == text
    assert others(file) == []


def test_a_path_that_cannot_be_read_is_trouble_and_is_left_alone(file: Path) -> None:
    file.mkdir()
    now = progress.load(file)
    assert str(now.trouble).startswith("progress.json cannot be read (")
    assert progress.record_pass(SETUP, [], 0, proven=PROVEN, path=file) == [now.trouble]
    assert progress.repair(file) == [now.trouble]
    assert file.is_dir()


def refused(file: Path, reason: str) -> None:
    """Neither a pass nor a hint can be written, which is told once, raises nothing and leaves no litter."""
    before = file.read_bytes() if file.exists() else None
    (message,) = progress.record_pass(SETUP, [], 0, proven=PROVEN, path=file)
    assert message.startswith("progress was not recorded: ")
    assert str(file) in message
    assert reason in message
    assert progress.record_hint("01.1", path=file) == 0
    assert (file.read_bytes() if file.exists() else None) == before
    if file.parent.exists():
        assert others(file) == []


def test_a_read_only_file_is_left_as_it_is(file: Path) -> None:
    file.write_bytes(BLANK)
    file.chmod(0o444)
    refused(file, "read-only")
    file.chmod(0o644)


def test_a_folder_that_takes_no_files_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    refused(file, "Read-only file system")


def test_a_folder_that_is_not_there_is_told(file: Path) -> None:
    refused(file.parent / "gone" / "progress.json", "No such file")


def test_a_full_disk_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_bytes(BLANK)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused(file, "No space left on device")


def test_a_lock_that_is_never_given_up_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "LOCK_TIMEOUT", 0.05)
    file.write_bytes(BLANK)
    with locking.lock(file, 1):
        refused(file, "another process has kept it locked")
    assert progress.record_pass(SETUP, [], 0, proven=PROVEN, path=file) == []


def test_where_there_are_no_locks_progress_is_recorded_all_the_same(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_here(_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locking, "_take", none_here)
    assert progress.record_pass(SETUP, [], 0, proven=PROVEN, path=file) == []
    assert progress.load(file).passed == {"01"}
    assert others(file) == []


def test_on_windows_a_moment_of_refusal_is_waited_out(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = [PermissionError(errno.EACCES, "in use")] * 2
    replace = os.replace

    def busy(source: Any, target: Any) -> None:
        if refusals:
            raise refusals.pop()
        replace(source, target)

    monkeypatch.setattr(storing, "ATTEMPTS", 20)
    monkeypatch.setattr(os, "replace", busy)
    assert progress.record_pass(SETUP, [], 0, proven=PROVEN, path=file) == []
    assert not refusals
    assert progress.load(file).passed == {"01"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_permissions_are_kept_and_a_new_file_gets_the_usual_ones(file: Path) -> None:
    plain = file.parent / "plain"
    plain.touch()
    usual = stat.S_IMODE(plain.stat().st_mode)
    plain.unlink()
    progress.record_hint("01.1", path=file)
    assert stat.S_IMODE(file.stat().st_mode) == usual
    file.chmod(0o640)
    progress.record_hint("01.1", path=file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_stays_a_link(file: Path) -> None:
    target = file.parent / "elsewhere.json"
    target.write_bytes(BLANK)
    file.symlink_to(target)
    progress.record_hint("01.1", path=file)
    assert file.is_symlink()
    assert progress.load(target).hints == {"01.1": 1}


# Many writers, and writers that die

START: Any = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")


def show_hints(file: Path, shown: Any, kata: str) -> None:
    for _ in range(49):
        shown.put(progress.record_hint("06.3", path=file))
    shown.put(progress.record_hint("06.3", path=file))
    messages = progress.record_pass(BY_NUMBER[kata], [], 0, proven=PROVEN, path=file)
    assert messages == []


def test_two_hundred_updates_from_four_processes_are_all_kept(file: Path) -> None:
    shown = START.Queue()
    workers = [
        START.Process(target=show_hints, args=(file, shown, kata)) for kata in ("01", "02", "03", "04")
    ]
    for worker in workers:
        worker.start()
    counts = [shown.get(timeout=30) for _ in range(200)]
    for worker in workers:
        worker.join()
    assert sorted(counts) == list(range(200))  # no two saw the same count
    now = progress.load(file)
    assert now.hints == {"06.3": 200}
    assert now.passed == {"01", "02", "03", "04"}
    assert others(file) == []


def die_in_mid_write(file: Path) -> None:
    vars(os)["fsync"] = lambda _: os._exit(9)  # the new contents are written by then, beside the old ones
    progress.record_hint("01.1", path=file)


def test_what_a_dead_writer_left_is_cleared_away_by_the_next(file: Path) -> None:
    file.write_bytes(BLANK)
    writer = START.Process(target=die_in_mid_write, args=(file,))
    writer.start()
    writer.join()
    assert writer.exitcode == 9
    assert len(others(file)) == 1
    assert file.read_bytes() == BLANK
    assert progress.record_pass(SETUP, [], 0, proven=PROVEN, path=file) == []
    assert progress.load(file).passed == {"01"}
    assert others(file) == []


def write_for_ever(file: Path, begun: Any) -> None:
    measured = [{"what": "x" * 50, "value": n} for n in range(3000)]
    while True:
        progress.record_pass(SETUP, measured, 0, proven=PROVEN, path=file)
        begun.set()


def test_a_writer_killed_twenty_times_leaves_a_readable_file_and_no_litter(file: Path) -> None:
    chance = random.Random(0)
    for _ in range(20):
        begun = START.Event()
        writer = START.Process(target=write_for_ever, args=(file, begun))
        writer.start()
        assert begun.wait(30)
        time.sleep(chance.uniform(0, 0.05))
        writer.kill()
        writer.join()
        now = progress.load(file)
        assert now.trouble is None
        assert len(now.katas["01"].measured) == 3000
        assert len(others(file)) <= 1  # what the dead one was writing, and not what all before it were
    assert progress.record_pass(TENSOR, [], 0, proven=PROVEN, path=file) == []
    assert others(file) == []
