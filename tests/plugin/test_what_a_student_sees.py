"""The words on the screen: one line for a stub, the values for a wrong answer, never a crash."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Course

SUITE = "katas/01_setup"
STUB = "stubs/tinytorch/setup.py"

ARRAYS = '''\
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect, expect_error
from tinytorch.setup import double


def test_double_of_an_array():
    """Twice each element."""
    x = np.arange(6.0).reshape(2, 3)
    expect(double(x), [[0.0, 2.0, 4.0], [6.0, 8.0, 10.0]])


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 9))
def test_double_of_any_number(x):
    assert double(x) == 2 * x


def test_double_of_nothing():
    with expect_error(TypeError, "None"):
        double(None)
'''


@pytest.fixture
def solved(course: Course) -> Course:
    course.write(f"{SUITE}/test_2_properties.py", ARRAYS)
    course.seal()
    course.solve("setup")
    return course


def see(course: Course, *args: str) -> str:
    """What a failing run of kata 01 prints; it must not be a traceback of Python's or pytest's own."""
    run = course.run(SUITE, *args)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
    assert "INTERNALERROR" not in run.stdout + run.stderr
    assert "Interrupted" not in run.stdout
    return run.stdout


def test_a_blank_stub_is_a_list_of_things_to_do(course: Course) -> None:
    out = see(course)
    assert "stubs/tinytorch/setup.py:9: kata 01.1: double  1 test" in out
    assert "Next: stubs/tinytorch/setup.py:9, kata 01.1: double" in out
    assert "Read: katas/01_setup/README.md:" in out
    assert "Hint: dojo hint 01.1" in out
    assert "2 to do" in out
    assert "FAILURES" not in out


def test_a_course_may_be_reached_through_a_link(course: Course, tmp_path: Path) -> None:
    try:
        (tmp_path / "link").symlink_to(course.root, target_is_directory=True)
    except OSError:
        pytest.skip("this system lets nobody make links")
    linked = Course(tmp_path / "link")
    out = linked.run(str(linked.path(SUITE))).stdout
    assert "stubs/tinytorch/setup.py:9: kata 01.1: double  1 test" in out
    linked.write(STUB, "def double(x)\n    return x + x\n")
    assert f"{STUB}:1: Python cannot read this" in linked.run(str(linked.path(SUITE))).stdout


def test_later_levels_wait(solved: Course) -> None:
    solved.edit(STUB, "return text.upper()", "return text")
    out = see(solved)
    assert "2 properties   blocked  0/3" in out
    assert "3 blocked" in out


def test_a_level_of_several_files_shows_each(solved: Course) -> None:
    more = "from tinytorch.setup import double\n\n\ndef test_double_of_zero():\n    assert double(0) == 0\n"
    solved.write(f"{SUITE}/test_1_more.py", more)
    solved.seal()
    solved.edit(STUB, "return text.upper()", "return text")
    out = see(solved)
    assert "1 correctness  FAIL     1/2" in out
    assert "1 more         ok       1/1" in out
    assert "2 properties   blocked  0/3" in out


def test_a_wrong_answer_shows_the_call_the_values_and_the_worst_element(solved: Course) -> None:
    solved.edit(STUB, "return x + x", "return x + x if isinstance(x, int) else x.copy()")
    out = see(solved)
    assert "Twice each element." in out
    assert "expect(double(x), [[0.0, 2.0, 4.0], [6.0, 8.0, 10.0]])" in out
    assert "where x = [[0., 1., 2.]," in out
    assert "came back  [[0., 1., 2.]," in out
    assert "expected   " in out
    assert "worst at [1, 2] 5.0 instead of 10.0, off by 5; 5 of 6 elements differ" in out
    assert "every element is 0.5 times what it should be" in out
    assert "Next: make this pass: double of an array" in out
    assert "Hint: dojo hint 01.1" in out  # the task is found by the name in the failing statement


def test_of_many_failures_with_one_cause_two_are_shown(solved: Course) -> None:
    cases = """
import pytest

from tinytorch.setup import double


@pytest.mark.parametrize("number", range(9))
def test_double_of_each(number):
    assert double(number) == 2 * number + 1


def test_double_of_none():
    double(None)


def test_double_of_none_again():
    double(None)


def test_double_of_none_a_third_time():
    double(None)
"""
    solved.write(f"{SUITE}/test_1_correctness.py", cases)
    out = see(solved)
    assert out.count("assert double(number) == 2 * number + 1") == 2
    assert "7 more failed alike" in out
    assert "test_1_correctness.py::test_double_of_each[2]" not in out.partition("7 more failed alike")[0]
    assert "and 1 others" in out
    assert out.count("TypeError: unsupported operand") == 2
    assert "1 more failed alike" in out
    assert "4 failed" in out
    assert "8 failed alike" in out
    assert "1 correctness  FAIL     0/12" in out
    assert see(solved, "--tb=short").count("assert double(number) == 2 * number + 1") == 9


def test_a_failing_property_shows_its_example(solved: Course) -> None:
    solved.edit(STUB, "return x + x", "return x if isinstance(x, int) and x == 7 else x + x")
    out = see(solved)
    assert "where x = 7" in out


def test_a_missing_error_shows_the_whole_block(solved: Course) -> None:
    solved.edit(STUB, "return x + x", "return 0 if x is None else x + x")
    out = see(solved)
    assert "double(None)" in out
    assert "raised     nothing" in out


def test_an_exception_shows_the_line_of_the_stub(solved: Course) -> None:
    solved.edit(STUB, "return text.upper()", "return tex.upper()")
    out = see(solved)
    assert "stubs/tinytorch/setup.py:15: in shout" in out
    assert "NameError: name 'tex' is not defined" in out


def test_an_endless_recursion_is_abridged(solved: Course) -> None:
    solved.edit(STUB, "return text.upper()", "return shout(text)")
    out = see(solved)
    assert "more steps" in out
    assert "RecursionError" in out
    assert len(out.splitlines()) < 60


BROKEN = {
    "syntax": ("-> str:", "-> str", "setup.py:12: Python cannot read this"),
    "indentation": ('    """`text` in capitals."""', ' """`text` in capitals."""', "Python cannot read this"),
    "import": ('"""Tools."""', "import nonsense", "setup.py:1: while it is imported, ModuleNotFoundError"),
    "name": ("def shout", "def shoot", "cannot import name 'shout'"),
    "sys.exit": ('"""Tools."""', "raise SystemExit(0)", "while it is imported, it leaves Python"),
    "os._exit": ('"""Tools."""', "import os; os._exit(0)", "os._exit(0) was called"),
    "later kata": ('"""Tools."""', "import tinytorch.layers", "tinytorch.layers is locked"),
    "call of a stub": (
        '"""Tools."""',
        'def early():\n    raise NotImplementedError("kata 01.1: early")\nearly()',
        "setup.py:2: not written yet (kata 01.1: early), and needed while it is imported",
    ),
}


@pytest.mark.parametrize(("old", "new", "says"), BROKEN.values(), ids=BROKEN)
def test_a_stub_that_cannot_be_imported_is_one_message(solved: Course, old: str, new: str, says: str) -> None:
    solved.edit(STUB, old, new)
    out = see(solved)
    assert says in out
    assert "the stub can be imported" in out
    assert "blocked" in out


def test_one_line_that_breaks_several_test_files_is_shown_once(solved: Course) -> None:
    solved.write(
        f"{SUITE}/test_1_more.py", "from tinytorch.setup import double\n\n\ndef test_it(): double(1)\n"
    )
    solved.seal()
    solved.edit(STUB, "return text.upper()", "return (")
    out = see(solved)
    assert out.count("Python cannot read this") == 1
    assert "1 more failed alike" in out
    assert "test_1_more.py" in out


def test_leaving_the_process_is_a_failure_like_any_other(solved: Course) -> None:
    solved.edit(STUB, "return text.upper()", "import os; os._exit(0)")
    out = see(solved)
    assert "os._exit(0) was called" in out
    assert "setup.py:15: in shout" in out


posix = pytest.mark.parametrize("nothing", [None] if hasattr(signal, "setitimer") else [], ids=["alarm"])


@posix
@pytest.mark.parametrize("where", ["shout", "double"])
def test_an_endless_loop_is_named_by_its_line(solved: Course, where: str, nothing: None) -> None:
    """In a plain test, and under hypothesis, which would start the loop again to shrink it."""
    loop = "while True: pass" if where == "shout" else "while x == 0: pass\n    return x + x"
    solved.edit(STUB, "return text.upper()" if where == "shout" else "return x + x", loop)
    out = see(solved, "--timeout", "2")
    assert "still running when its time was up" in out
    assert f"in {where}" in out
    assert "Stack of" not in out
    assert out.count("still running") == 1  # the tests after it are blocked, not run into the loop too


def test_a_loop_that_cannot_be_interrupted_is_killed(solved: Course) -> None:
    """Inside C nothing can be raised: the process ends, and says where it was."""
    solved.edit(STUB, "return text.upper()", "return sum(range(10**13))")
    run = solved.run(SUITE, "--timeout", "1")
    assert run.returncode != 0
    assert "setup.py" in run.stderr
    assert "in shout" in run.stderr
    assert solved.passed() == set()


def test_ctrl_c_leaves_the_panel_and_records_nothing(solved: Course) -> None:
    if sys.platform == "win32":
        return  # Windows sends its own event to a whole console; tried by hand
    solved.edit(STUB, "return text.upper()", "import time; print('ready'); time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", SUITE, "-s", "--timeout", "0"],
        cwd=solved.root,
        env=solved.environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "ready" in line:
            break
    process.send_signal(signal.SIGINT)
    out = process.stdout.read()
    assert process.wait() == 2
    assert "The run was interrupted; nothing was recorded." in out
    assert solved.passed() == set()


@pytest.mark.parametrize("word", ["01.2", "shout"])
def test_the_tests_of_one_task_can_be_chosen(solved: Course, word: str) -> None:
    run = solved.run(SUITE, "-k", word)
    assert "1 passed, 4 deselected" in run.stdout
    assert "1 correctness  part     1/2" in run.stdout


def test_a_failure_names_its_task(solved: Course) -> None:
    solved.edit(STUB, "return text.upper()", "return text")
    assert "kata 01.2 shout\n" in see(solved)


def test_a_heading_in_the_suite_says_which_task_its_tests_are_about(solved: Course) -> None:
    code = "from tinytorch import setup\n\n\n# 01.1 and 01.2: {}\n\n\ndef test_both():\n    {}\n"
    test = code.format("twice, and loudly", "assert setup.shout('a') == 1")
    solved.write(f"{SUITE}/test_1_correctness.py", test)
    assert "kata 01.2 shout\n" in see(solved)
    for word, chosen in (("01.1", "1 failed"), ("01.2", "1 failed"), ("01.10", "0 selected")):
        assert chosen in solved.run(SUITE, "-k", word).stdout
    solved.write(f"{SUITE}/test_1_correctness.py", test.replace("and 01.2", "and more"))
    assert "kata 01.1 double\n" in see(solved)


def test_of_several_tasks_in_a_heading_the_parameters_say_which(solved: Course) -> None:
    code = """
import pytest

from tinytorch.setup import double, shout


# 01.1 double, and 01.2 shout, which both take letters


@pytest.mark.parametrize("function", [double, shout])
def test_of_one(function):
    assert function("a") in ("aa", "A")


def test_of_neither():
    pass
"""
    solved.write(f"{SUITE}/test_1_correctness.py", code)
    for word, chosen in (("01.1", "test_of_one[double]"), ("01.2", "test_of_one[shout]")):
        run = solved.run(f"{SUITE}/test_1_correctness.py", "-k", word, "-v").stdout
        assert chosen in run
        assert "2 passed" in run  # what uses neither is about both


@pytest.mark.parametrize(("name", "task"), [("double", "01.1 double"), ("shout", "01.2 shout")])
def test_a_parameter_that_is_a_word_says_which_task_has_failed(name: str, task: str, solved: Course) -> None:
    code = f"""
import pytest

from tinytorch import setup


# 01.1 and 01.2: twice, and loudly


@pytest.mark.parametrize("name", ["{name}"])
def test_a_letter(name):
    assert getattr(setup, name)("a") == 1
"""
    solved.write(f"{SUITE}/test_1_correctness.py", code)
    assert f"kata {task}\n" in see(solved)


def test_the_last_lines_say_what_is_next(solved: Course) -> None:
    solved.edit(STUB, "return text.upper()", "return text")
    assert see(solved).strip().splitlines()[-2].startswith("Read: katas/01_setup/README.md")


def test_a_run_that_ends_at_its_first_failure_names_the_first_task_not_that_tests(course: Course) -> None:
    code = """\
from tinytorch.setup import double, shout


def test_loudly():
    assert shout("a") == "A!"


def test_twice():
    assert double(2) == 4
"""
    course.write(f"{SUITE}/test_1_correctness.py", code)
    course.seal()
    assert "kata 01.1: double\n" in see(course, "-x").partition("Next: ")[2]
    assert "kata 01.2: shout\n" in see(course, "-x", "-k", "loudly").partition("Next: ")[2]


def test_a_locked_kata_is_refused_with_the_next_command(course: Course) -> None:
    run = course.run("katas/02_tensor")
    assert run.returncode == 4
    assert "katas/02_tensor is locked: you are at katas/01_setup. Next: pytest katas/01_setup" in run.stderr
    assert "--borrow" in run.stderr


def test_borrowing_lets_a_locked_kata_run_and_unlocks_nothing(course: Course) -> None:
    course.solve("tensor")
    run = course.run("katas/02_tensor", "--borrow")
    assert run.returncode == 0
    assert "progress is not recorded" in run.stdout
    assert course.passed() == set()


def test_a_locked_kata_is_left_out_of_a_bare_run(course: Course) -> None:
    out = see_all(course)
    assert "01_setup" in out
    assert "02_tensor" not in out


def see_all(course: Course) -> str:
    run = course.run()
    assert run.returncode == 1
    return run.stdout


def test_an_unwritten_kata_says_so(course: Course) -> None:
    run = course.run("katas/07_spatial")
    assert run.returncode == 4
    assert "katas/07_spatial is not written yet" in run.stderr
    assert "Next: pytest katas/01_setup" in run.stderr


def test_a_damaged_progress_is_set_aside_with_a_message(solved: Course) -> None:
    solved.write("progress.json", '{"schema": 1, "katas": {"01":')
    run = solved.run(SUITE)
    assert run.returncode == 0
    assert "progress.json.corrupt-" in run.stdout
    assert solved.passed() == {"01"}
    assert len(list(solved.root.glob("progress.json.corrupt-*"))) == 1


@pytest.mark.parametrize("args", [["--tb=short"], ["--tb=long"], ["--tb=native"]])
def test_an_asked_for_traceback_is_pytests_own(solved: Course, args: list[str]) -> None:
    solved.edit(STUB, "return text.upper()", "return text")
    run = solved.run(SUITE, *args)
    assert "AssertionError" in run.stdout or "E   " in run.stdout


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"CI": "true"}, {"PYTHONIOENCODING": "cp1252"}])
def test_the_panel_is_plain_without_a_terminal(course: Course, environment: dict[str, str]) -> None:
    run = course.run(SUITE, env=environment)
    assert "Next: stubs/tinytorch/setup.py:9" in run.stdout
    assert "\x1b" not in run.stdout
    run.stdout.encode("cp1252")


def test_in_colour_the_panel_has_a_frame(course: Course) -> None:
    out = course.run(SUITE, "--color=yes", env={"COLUMNS": "80"}).stdout
    assert "tinytorch katas" in out
    assert "\x1b[" in out
    narrow = course.run(SUITE, "--color=yes", env={"COLUMNS": "50"}).stdout
    assert "tinytorch katas ─" not in narrow
    assert "Next: stubs/tinytorch/setup.py:9" in narrow


def test_on_a_narrow_terminal_lines_are_folded_between_words(course: Course) -> None:
    out = course.run(SUITE, env={"COLUMNS": "40"}).stdout
    _, _, ours = out.partition("to do ===")
    assert "stubs/tinytorch/setup.py:9: kata 01.1:\n    double  1 test\n" in ours
    assert max(len(line) for line in ours.splitlines()) <= 40


def test_test_explorers_can_collect(solved: Course) -> None:
    run = solved.run("--collect-only", "-q")
    assert run.returncode == 0
    assert "katas/01_setup/test_1_correctness.py::test_double_is_twice" in run.stdout.splitlines()
    assert "tinytorch katas" not in run.stdout


def test_a_run_from_another_folder_works(solved: Course) -> None:
    run = solved.run("01_setup", cwd=solved.path("katas"))
    assert run.returncode == 0
    assert solved.passed() == {"01"}


def test_coverage_measures_the_students_file(solved: Course) -> None:
    run = solved.python("-m", "coverage", "run", "--include", STUB, "-m", "pytest", SUITE)
    assert run.returncode == 0
    report = solved.python("-m", "coverage", "report").stdout
    assert "stubs/tinytorch/setup.py" in report.replace("\\", "/")
    assert "100%" in report


def test_the_author_of_a_new_kata_runs_and_seals_it(course: Course) -> None:
    course.write("katas/04_activations/test_1_correctness.py", "def test_something():\n    pass\n")
    assert "is not written yet" in course.run("katas/04_activations").stderr
    assert course.run("katas/04_activations", "--impl", "reference").returncode == 0
    assert course.dojo("manifest", "04").returncode == 0
    assert "test_1_correctness.py::test_something" in course.read("katas/04_activations/manifest.json")
