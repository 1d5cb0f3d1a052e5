"""What holds for every command: quick to start, one clear line for bad input, no tracebacks."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dojo import cli
from tests.conftest import Course

COMMANDS = "status next hint watch reset diff verify measure data doctor check stubs manifest"


def test_without_a_command_it_lists_them_all(course: Course) -> None:
    told = course.dojo()
    assert told.returncode == 0
    for command in COMMANDS.split():
        assert f"  {command}  " in told.stdout
    assert course.dojo("--help").stdout == told.stdout


@pytest.mark.parametrize("command", COMMANDS.split())
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([command, "--help"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: dojo {command}")


def exit_status(*typed: str) -> int | str | None:
    try:
        return cli.main(typed)
    except SystemExit as left:
        return left.code


@pytest.mark.parametrize(
    ("typed", "mentioned"),
    [
        (["statsu"], ["'statsu'", "did you mean `dojo status`?"]),
        (["frobnicate"], ["'frobnicate'", "status, next, hint"]),
        (["status", "--jsn"], ["--jsn", "dojo status --help"]),
        (["hint", "99"], ["'99'", "01 setup, 02 tensor", "20 competition"]),
        (["reset", "0"], ["'0'", "20 competition"]),
        (["diff", "tensr"], ["'tensr'", "02 tensor"]),
        (["verify", "01", "21"], ["'21'", "02 tensor"]),
        (["manifest", "m9"], ["'m9'", "02 tensor"]),
        (["watch", "--limit", "soon", "01"], ["soon"]),
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_and_exit_2(
    typed: list[str], mentioned: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(*typed) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    for text in ["dojo", *mentioned]:
        assert text in errors


@pytest.mark.parametrize("typed", ["02.99", "02.x", "02."])
def test_a_task_that_is_not_there_names_those_that_are(course: Course, typed: str) -> None:
    refused = course.dojo("hint", typed)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr == f"dojo: there is no task '{typed}'; kata 02 tensor has 02.1, 02.2, 02.3\n"


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def write(_: list[str]) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as Python has it, with no file's name

    monkeypatch.setattr(cli, "_run", write)
    assert cli.main(["grade"]) == 1
    assert capsys.readouterr().err == f"dojo: {os.strerror(errno.ENOSPC)}\n"


def test_it_works_from_any_folder(course: Course, tmp_path: Path) -> None:
    assert course.dojo("next", cwd=tmp_path).stdout == course.dojo("next").stdout != ""


def test_starting_imports_nothing_heavy(course: Course) -> None:
    program = (
        "import sys; from dojo.cli import main; assert main(['status']) == 0; assert main(['next']) == 0; "
        "print([m for m in ('numpy', 'rich', 'pytest', 'hypothesis') if m in sys.modules])"
    )
    done = course.python("-c", program)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


def test_a_reader_that_leaves_causes_no_traceback(course: Course) -> None:
    """`dojo status | head -1`, with a pipe that is closed before anything is written."""
    child = subprocess.Popen(
        [sys.executable, "-m", "dojo", "status"],
        cwd=course.root,
        env=course.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait() == 141
    child.stderr.close()


def test_output_that_the_terminal_cannot_print_is_replaced(course: Course) -> None:
    course.record("01_setup")
    course.edit("stubs/tinytorch/setup.py", "return x + x", "return x + x  # \u221e \u2713")
    told = course.dojo("diff", "01", env={"PYTHONIOENCODING": "cp1252"})
    assert told.returncode == 0
    assert "return x + x  # ? ?" in told.stdout


if sys.platform != "win32":

    def test_ctrl_c_is_exit_130_without_a_traceback(course: Course) -> None:
        child = subprocess.Popen(
            [sys.executable, "-m", "dojo", "watch"],
            cwd=course.root,
            env=course.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        for line in child.stdout:
            if "Waiting for you" in line:
                break
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=8)
        assert child.returncode == 130
        assert errors.strip() == ""
