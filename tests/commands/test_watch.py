"""`dojo watch`: it runs again on a save, moves on after a pass, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO

import pytest

from tests.conftest import Course

pytestmark = pytest.mark.timeout(60)  # each runs several suites, in turn
PATIENCE = 25.0  # seconds for one of them on a busy computer
QUICKER = {"PYTEST_ADDOPTS": "-p no:hypothesispytest -p no:xdist"}  # these suites use neither
ENDLESS = "import os, pathlib\npathlib.Path('pid').write_text(str(os.getpid()))\nwhile True:\n    pass\n"


class Watch:
    """A `dojo watch` that is running, and what it has printed so far."""

    def __init__(self, child: subprocess.Popen[bytes], output: BinaryIO, *, ends: bool) -> None:
        self.child = child
        self.ends = ends  # a pipe does when its writers have gone; a terminal that we hold open does not
        self.text = ""
        self.read = 0
        self.reader = threading.Thread(target=self._read, args=(output,), daemon=True)
        self.reader.start()

    def _read(self, output: BinaryIO) -> None:
        # Reading a terminal whose other end has gone is an OSError on Linux.
        with contextlib.suppress(OSError):
            while piece := output.read1(4096):  # type: ignore[attr-defined]
                self.text += piece.decode("utf-8", "replace").replace("\r\n", "\n")

    def until(self, words: str) -> str:
        """Wait for `words` after what was waited for before; what was printed up to them."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.text.find(words, self.read)) < 0:
            assert time.monotonic() < deadline, f"no {words!r} in:\n{self.text[self.read :]}"
            time.sleep(0.02)
        start, self.read = self.read, found + len(words)
        return self.text[start : self.read]

    def ended(self) -> int:
        """Wait for the end; the exit status."""
        status = self.child.wait(PATIENCE)
        self.reader.join(PATIENCE if self.ends else 0.3)
        return status


@contextlib.contextmanager
def watching(course: Course, *args: str) -> Iterator[Watch]:
    """Watch without a terminal."""
    child = subprocess.Popen(
        [sys.executable, "-m", "dojo", "watch", *args],
        cwd=course.root,
        env=course.environment(**QUICKER),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        creationflags=subprocess.CREATE_NEW_PROCESS_GROUP if sys.platform == "win32" else 0,
    )
    assert child.stdout is not None
    watch = Watch(child, child.stdout, ends=True)  # type: ignore[arg-type]
    try:
        yield watch
    finally:
        # Asked to stop, it ends the suite that it is running too.
        child.send_signal(signal.CTRL_BREAK_EVENT if sys.platform == "win32" else signal.SIGTERM)
        watch.ended()
        child.stdout.close()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_save_runs_the_suite_again_and_a_pass_moves_on(course: Course) -> None:
    course.record("01_setup")
    with watching(course) as watch:
        watch.until("kata 02.1: total  1 test")
        assert "Keys:" not in watch.until("Waiting for you to save stubs/tinytorch/tensor.py.")
        course.solve("02_tensor")
        watch.until("(tensor.py saved)")
        watch.until("02 tensor has passed.")
        watch.until("On to 03 layers")
        watch.until("kata 03.1: centre  1 test")
        watch.until("Waiting for you to save stubs/tinytorch/layers.py.")
        course.solve("03_layers")
        watch.until("03 layers has passed.")
        watch.until("04 activations, is not written yet")
        assert watch.ended() == 0
    assert course.passed() == {"01", "02", "03"}


def test_a_kata_that_had_passed_is_watched_on(course: Course) -> None:
    course.record("01_setup")
    with watching(course, "01") as watch:
        watch.until("01 setup still passes.")
        watch.until("Waiting for you")
        course.edit("stubs/tinytorch/setup.py", "x + x", "3 * x")
        watch.until("test_double_is_twice")
        watch.until("Waiting for you")
        course.edit("katas/01_setup/test_1_correctness.py", "== 6", "== 9")
        watch.until("(test_1_correctness.py saved)")
        watch.until("01 setup is green, but not recorded")


def test_a_task_put_back_in_a_passed_kata_is_watched_until_it_passes(course: Course) -> None:
    course.record("01_setup")
    course.dojo("reset", "01.2")
    with watching(course) as watch:
        watch.until("kata 01.2: shout  1 test")
        watch.until("Waiting for you to save stubs/tinytorch/setup.py.")
        course.solve("01_setup")
        watch.until("01 setup has passed.")
        watch.until("On to 02 tensor")


def test_an_endless_run_is_stopped_and_its_process_is_gone(course: Course) -> None:
    course.write("stubs/tinytorch/setup.py", ENDLESS)
    with watching(course, "--limit", "2") as watch:
        watch.until("Stopped after 2 s. Is there a loop that never ends?")
        watch.until("Waiting for you")
    assert sys.platform == "win32" or not is_running(int(course.read("pid")))


def test_a_save_during_a_run_starts_it_over(course: Course) -> None:
    course.write("stubs/tinytorch/setup.py", ENDLESS)
    with watching(course) as watch:
        deadline = time.monotonic() + PATIENCE
        while not course.path("pid").exists() or not course.read("pid"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pid = int(course.read("pid"))
        course.solve("01_setup")
        watch.until("(setup.py saved, so starting over)")
        watch.until("01 setup has passed.")
        assert sys.platform == "win32" or not is_running(pid)


def test_a_locked_or_unwritten_kata_is_refused(course: Course) -> None:
    locked = course.dojo("watch", "03")
    assert locked.returncode == 1
    assert "kata 03 layers is locked" in locked.stderr
    assert "Next: pytest katas/01_setup" in locked.stderr
    unwritten = course.dojo("watch", "07")
    assert unwritten.returncode == 1
    assert "07 spatial is not written yet" in unwritten.stderr
    course.record("01_setup", "02_tensor", "03_layers")
    nothing_left = course.dojo("watch")
    assert nothing_left.returncode == 0
    assert "04 activations, is not written yet" in nothing_left.stdout


if sys.platform != "win32":
    import termios

    @contextlib.contextmanager
    def at_a_terminal(course: Course, *args: str) -> Iterator[tuple[Watch, int, int]]:
        """Watch at a terminal of its own: the watch, and both ends of the terminal."""
        with course.terminal("watch", *args, env=QUICKER) as (child, ours, theirs):
            yield Watch(child, os.fdopen(os.dup(ours), "rb"), ends=False), ours, theirs

    def modes(terminal: int) -> int:
        """The bits that cbreak changes."""
        flags: int = termios.tcgetattr(terminal)[3]
        return flags & (termios.ECHO | termios.ICANON)

    BOTH = termios.ECHO | termios.ICANON

    def test_keys_work_without_enter_and_the_terminal_is_put_back(course: Course) -> None:
        with at_a_terminal(course) as (watch, keys, terminal):
            # A frame is drawn, as by a pytest that is typed there.
            assert "tinytorch katas" in watch.until("Keys: r run again, h hint, n next, q quit")
            assert modes(terminal) == 0
            os.write(keys, b"h")
            watch.until("hint 1 of 3")
            os.write(keys, b"n")
            watch.until("Task 01.1 double")
            os.write(keys, "é".encode())
            time.sleep(0.5)  # so that it is read by itself
            os.write(keys, b"xr")
            watch.until("(run again)")
            os.write(keys, b"h")  # answered below the run's output
            watch.until("Waiting for you")
            watch.until("hint 2 of 3")
            os.write(keys, b"q")
            assert watch.ended() == 0
            assert modes(terminal) == BOTH

    @pytest.mark.parametrize(
        ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
    )
    def test_a_signal_leaves_the_terminal_and_no_process_behind(
        course: Course, number: signal.Signals, status: int
    ) -> None:
        course.write("stubs/tinytorch/setup.py", ENDLESS)
        with at_a_terminal(course) as (watch, keys, terminal):
            watch.until("pytest katas/01_setup")
            deadline = time.monotonic() + PATIENCE
            while not course.path("pid").exists() or not course.read("pid"):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert modes(terminal) == 0
            if number == signal.SIGINT:
                os.write(keys, b"\x03")  # Ctrl-C, as typed
            else:
                watch.child.send_signal(number)
            assert watch.ended() == status
            assert modes(terminal) == BOTH
            assert "Traceback" not in watch.text
        assert not is_running(int(course.read("pid")))
