"""`dojo grade` on a made-up class, as typed."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import Course
from tests.grading.conftest import HandIn

HANGS = "def double(x):\n    while True:\n        pass\n\n\nshout = str.upper\n"
LEAVES = "import os\n\nos._exit(0)\n"


def scores(results: Path) -> dict[str, list[str]]:
    with (results / "scores.csv").open(newline="") as file:
        return {row[0]: row[3:] for row in csv.reader(file)}


def test_a_class_is_graded_whatever_one_of_them_has_sent(course: Course, hand_in: HandIn) -> None:
    folder = hand_in("ana").parent
    wrong = course.read("reference/tinytorch/tensor.py").replace("max(self.data)", "len(self.data)")
    hand_in("ben", tensor=wrong)
    hand_in("eve", setup=LEAVES, tensor=None)
    hand_in("tom", setup="def (")
    (folder / "zed.zip").write_bytes(b"PK")
    (folder / "zoe.tar.gz").write_bytes(b"")
    done = course.dojo("grade", str(folder), "-o", "results", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert "not graded, being neither a folder nor a .zip: zoe.tar.gz\n" in done.stdout
    results = course.path("results")
    assert scores(results) == {
        "submission": ["01", "02", "03", "trouble"],
        "ana": ["10.00", "10.00", "10.00", ""],
        # Level 1 of two in 02 passed, with 4 of 6 weights; 03 stands on it and is locked.
        "ben": ["10.00", "6.67", "0.00", ""],
        "eve": ["0.00", "0.00", "0.00", ""],
        "tom": ["0.00", "10.00", "10.00", ""],  # which do not need 01
        "zed": ["0.00", "0.00", "0.00", scores(results)["zed"][-1]],
    }
    assert "damaged" in scores(results)["zed"][-1]
    cases = ElementTree.parse(results / "junit.xml").getroot().iter("testcase")
    failed = {(c.get("classname"), c.get("name")) for c in cases if c.find("failure") is not None}
    assert ("ben.02_tensor", "level 3") in failed
    assert ("ben.03_layers", "kata") in failed
    assert not [who for who, _ in failed if who is not None and who.startswith("ana")]
    reasons = (results / "details.csv").read_text("utf-8")
    assert "it needs 02 tensor, which has not passed" in reasons
    assert "stubs/tinytorch/setup.py:1: Python cannot read this" in reasons

    # Again: nothing runs; and with what a kata stands on borrowed, ben's mistake costs one kata.
    ledger = (results / "ledger.jsonl").read_bytes()
    again = course.dojo("grade", str(folder), "--output", "results")
    assert again.returncode == 0, again.stderr
    assert (results / "ledger.jsonl").read_bytes() == ledger
    borrowed = course.dojo("grade", str(folder), "-o", "results", "--borrow", "--shard", "2/4", "03")
    assert borrowed.returncode == 0, borrowed.stderr
    assert scores(results) == {"submission": ["03", "trouble"], "ben": ["10.00", ""]}


def test_of_equal_files_one_is_graded_also_when_they_come_up_together(
    course: Course, hand_in: HandIn
) -> None:
    folder = hand_in("ana").parent
    hand_in("bea")
    hand_in("eve", setup=LEAVES)
    done = course.dojo("grade", str(folder), "-o", "results", "--jobs", "3", "01")
    assert done.returncode == 0, done.stderr
    assert scores(course.path("results"))["bea"] == ["10.00", ""]
    assert course.read("results/ledger.jsonl").count("\n") == 2


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on this system")
@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL"])
def test_a_run_that_was_stopped_goes_on_to_the_same_scores(course: Course, hand_in: HandIn, how: str) -> None:
    folder = hand_in("ana").parent
    hand_in("ben", setup=HANGS)  # for six seconds more than the other takes; it is stopped before
    course.edit("pytest.ini", "timeout = 10", "timeout = 6")
    command = ["grade", str(folder), "-o", "results", "--jobs", "2", "01"]
    child = subprocess.Popen(
        [sys.executable, "-m", "dojo", *command],
        cwd=course.root,
        env=course.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert child.stdout is not None
    while "ana" not in child.stdout.readline():
        pass
    child.send_signal(getattr(signal, how))
    rest = child.communicate(timeout=20)[0]
    if how == "SIGINT":
        assert "the same command goes on from there" in rest
        assert child.returncode == 130
    known = course.read("results/ledger.jsonl")
    assert known.count("\n") == 1
    assert not course.path("results/scores.csv").exists()
    time.sleep(0.2)
    assert not running(str(course.root)), "a child outlived the grader"
    done = course.dojo(*command)
    assert done.returncode == 0, done.stderr
    assert scores(course.path("results")) == {
        "submission": ["01", "trouble"],
        "ana": ["10.00", ""],
        "ben": ["0.00", ""],
    }
    assert course.read("results/ledger.jsonl").startswith(known)


def running(root: str) -> list[str]:
    """Processes that were started in the course (Linux)."""
    if not os.path.isdir("/proc/self"):
        return []
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.readlink(f"/proc/{entry}/cwd") == root:
                    found.append(entry)
            except OSError:
                continue
    return found


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["missing", "-o", "r"], "is not a folder"),
        (["empty", "-o", "r"], "holds no submission"),
        (["class", "-o", "pytest.ini"], "is a file"),
        (["class", "-o", "r", "--shard", "3/2"], "is not a part such as 1/2"),
        (["class", "-o", "r", "--shard", "2/2"], "use fewer shards"),
        (["class", "-o", "r", "--jobs", "0"], "1 or more"),
        (["class", "-o", "r", "--limit", "0"], "'0' is not a number of seconds above 0"),
        (["class", "-o", "r", "--limit", "nan"], "'nan' is not a number of seconds above 0"),
        (["class", "-o", "r", "--limit", "2m"], "'2m' is not a number of seconds above 0"),
        (["class", "-o", "r", "--strict", "--borrow"], "--strict has no reference"),
        (["class", "-o", "r", "77"], "there is no kata '77'"),
        (["class/ana", "-o", "r"], "class/ana is one submission: tensor.py is in it"),
        ([".", "-o", "r"], "is one submission: stubs/tinytorch/"),
        (["class"], "required: -o/--output"),
    ],
)
def test_bad_input_is_one_line(course: Course, args: list[str], words: str) -> None:
    course.path("empty").mkdir()
    course.write("class/ana/tensor.py", "")
    done = course.dojo("grade", *args)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_dask_is_asked_for_only_where_it_is(course: Course) -> None:
    course.write("class/ana/tensor.py", "")
    course.write("distributed_is_missing.py", "")
    hidden = "import sys; sys.modules['distributed'] = None; from dojo.cli import main; sys.exit(main())"
    done = course.python("-c", hidden, "grade", "class", "-o", "r", "--dask", "tcp://127.0.0.1:1")
    assert done.returncode == 1
    assert "pip install distributed" in done.stderr


def test_dask_workers_give_the_same_scores(course: Course, hand_in: HandIn) -> None:
    pytest.importorskip("distributed")
    folder = hand_in("ana").parent
    hand_in("bea")  # the same
    hand_in("eve", setup=LEAVES)
    served = (
        "import sys; from distributed import LocalCluster\n"
        "if __name__ == '__main__':\n"
        "    with LocalCluster(1, threads_per_worker=1, dashboard_address=None) as cluster:\n"
        "        print(cluster.scheduler_address, flush=True); sys.stdin.read()\n"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", served],
        cwd=course.root,
        env=course.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    done = course.dojo("grade", str(folder), "-o", "results", "--dask", address, "01")
    server.communicate("")
    assert done.returncode == 0, done.stderr
    assert scores(course.path("results")) == {
        "submission": ["01", "trouble"],
        "ana": ["10.00", ""],
        "bea": ["10.00", ""],
        "eve": ["0.00", ""],
    }


@pytest.mark.parametrize("command", ["grade class -o results", "gradescope"])
def test_tests_that_were_added_count_from_when_they_are_sealed(course: Course, command: str) -> None:
    course.write("class/ana/setup.py", course.read("reference/tinytorch/setup.py"))
    course.write("katas/01_setup/test_1_hidden.py", "def test_hidden():\n    assert False\n")
    refused = course.dojo(*command.split(), "01")
    assert refused.returncode == 1
    assert "`dojo manifest 01` seals it as it is now" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert course.dojo("manifest", "01").returncode == 0
    done = course.dojo(*command.split(), "01")
    assert done.returncode == 0, done.stderr
    if command.startswith("grade "):
        assert scores(course.path("results"))["ana"] == ["6.67", ""]  # two of three tests


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no folder that nobody can write in")
def test_results_that_could_not_be_written_are_not_begun(course: Course) -> None:
    course.write("class/ana/setup.py", "")
    done = course.dojo("grade", "class", "-o", "/proc", "01")
    assert done.returncode == 1
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)
    assert "/proc/ledger.jsonl: " in done.stderr
