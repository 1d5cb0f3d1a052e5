"""A kata unlocks after a full, unfiltered, all-passed run of the student's own stub, and in no other way."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable

import pytest

from tests.conftest import Course

SUITE = "katas/01_setup"
FIRST = "test_1_correctness.py"
SECOND = "test_2_properties.py"

PROPERTIES = """\
from tinytorch.setup import double


def test_double_of_nothing_is_nothing():
    assert double(0) == 0
"""


@pytest.fixture
def solved(course: Course) -> Course:
    """Kata 01 written and right, with two levels, nothing recorded yet."""
    course.write(f"{SUITE}/{SECOND}", PROPERTIES)
    course.seal()
    course.solve("setup")
    return course


@pytest.fixture
def wrong(solved: Course) -> Course:
    """Kata 01 with one wrong answer, which only the first level notices."""
    solved.edit("stubs/tinytorch/setup.py", "return text.upper()", "return text")
    return solved


def test_a_full_run_unlocks(solved: Course) -> None:
    run = solved.run(SUITE)
    assert run.returncode == 0
    assert "01 setup is unlocked" in run.stdout
    record = solved.progress()["katas"]["01"]
    assert record["time"].endswith("Z")
    assert record["seed"] == 0
    assert len(record["stub"]) == len(record["suite"]) == 16


@pytest.mark.parametrize(
    "args", [[], ["-v"], ["-q"], ["-x"], ["--ff"], ["-n", "2"], ["-p", "no:cacheprovider"]]
)
def test_a_full_run_unlocks_with_harmless_options(solved: Course, args: list[str]) -> None:
    assert solved.run(SUITE, *args).returncode == 0
    assert solved.passed() == {"01"}


def test_a_run_of_everything_reached_unlocks(solved: Course) -> None:
    assert solved.run().returncode == 0
    assert solved.passed() == {"01"}


def test_a_second_run_says_nothing_of_unlocking(solved: Course) -> None:
    solved.run(SUITE)
    assert "is unlocked" not in solved.run(SUITE).stdout


# The ways of leaving something out.  Each run is green, or as good as.
PARTIAL = {
    "-k": ["-k", "double"],
    "--deselect": ["--deselect", f"{SUITE}/{SECOND}::test_double_of_nothing_is_nothing"],
    "--ignore": ["--ignore", f"{SUITE}/{SECOND}"],
    "--ignore-glob": ["--ignore-glob", f"*/{SECOND}"],
    "--collect-only": ["--collect-only"],
    "--setup-only": ["--setup-only"],
    "--setup-plan": ["--setup-plan"],
    "python_functions": ["-o", "python_functions=test_double*"],
    "python_files": ["-o", "python_files=test_1*.py"],
    "--assert=plain": ["--assert=plain"],
    "--impl reference": ["--impl", "reference"],
    "--impl of itself": ["--impl", "stubs,01=stubs"],
    "--borrow": ["--borrow"],
    "-n and -k": ["-n", "2", "-k", "double"],
}


@pytest.mark.parametrize("args", PARTIAL.values(), ids=PARTIAL)
def test_a_partial_run_unlocks_nothing(solved: Course, args: list[str]) -> None:
    run = solved.run(SUITE, *args)
    assert run.returncode == 0, run.stdout + run.stderr
    assert solved.passed() == set()
    if args[0] not in ("--collect-only", "--setup-only", "--setup-plan"):
        assert "progress is not recorded" in run.stdout


@pytest.mark.parametrize(
    "target", [f"{SUITE}/{FIRST}", f"{SUITE}/{FIRST}::test_double_is_twice"], ids=["one file", "one test"]
)
def test_part_of_a_suite_unlocks_nothing(solved: Course, target: str) -> None:
    run = solved.run(target)
    assert run.returncode == 0
    assert "a partial run" in run.stdout
    assert solved.passed() == set()


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONOPTIMIZE": "1"}, {"TINYTORCH_IMPL": "reference"}, {"PYTEST_ADDOPTS": "-k double"}],
    ids=["PYTHONOPTIMIZE", "TINYTORCH_IMPL", "PYTEST_ADDOPTS"],
)
def test_the_environment_unlocks_nothing(solved: Course, environment: dict[str, str]) -> None:
    solved.run(SUITE, env=environment)
    assert solved.passed() == set()


def test_a_run_of_no_test_at_all_unlocks_nothing(solved: Course) -> None:
    assert solved.run(SUITE, "-m", "timeout").returncode == 5
    assert solved.passed() == set()


def test_without_our_plugin_nothing_unlocks(solved: Course) -> None:
    solved.run(SUITE, "--noconftest")
    assert solved.passed() == set()


@pytest.mark.parametrize("option", ["--lf", "--sw", "--nf"])
def test_the_rest_of_a_failed_run_unlocks_nothing(wrong: Course, option: str) -> None:
    """After a failure, --lf runs what failed; once that is mended the run is green, and partial."""
    assert wrong.run(SUITE).returncode == 1
    wrong.solve("setup")
    wrong.run(SUITE, option, "-k", "shout")
    assert wrong.passed() == set()


def test_a_test_that_passes_when_run_again_unlocks_nothing(solved: Course) -> None:
    flaky = "import os\n_first = [True]\n"
    solved.edit("stubs/tinytorch/setup.py", '"""Tools."""', f'"""Tools."""\n{flaky}')
    solved.edit(
        "stubs/tinytorch/setup.py",
        "return text.upper()",
        "return _first.pop() and text if _first else text.upper()",
    )
    run = solved.run(SUITE, "--reruns", "2")
    assert "rerun" in run.stdout
    assert solved.passed() == set()


SPOILED: dict[str, Callable[[Course], object]] = {
    "a wrong answer": lambda c: c.edit("stubs/tinytorch/setup.py", "return text.upper()", "return text"),
    "a stub that skips": lambda c: c.edit(
        "stubs/tinytorch/setup.py",
        '"""Tools."""',
        'import pytest\npytest.skip("no", allow_module_level=True)',
    ),
    "a function that skips": lambda c: c.edit(
        "stubs/tinytorch/setup.py", "return text.upper()", 'import pytest; pytest.skip("no")'
    ),
    "a function that expects to fail": lambda c: c.edit(
        "stubs/tinytorch/setup.py", "return text.upper()", 'import pytest; pytest.xfail("no")'
    ),
    "a stub that leaves": lambda c: c.edit(
        "stubs/tinytorch/setup.py", '"""Tools."""', "import os\nos._exit(0)"
    ),
    "a function that leaves": lambda c: c.edit(
        "stubs/tinytorch/setup.py", "return text.upper()", "import os; os._exit(0)"
    ),
    "a function that ends pytest": lambda c: c.edit(
        "stubs/tinytorch/setup.py", "return text.upper()", 'import pytest; pytest.exit("done", 0)'
    ),
    "an emptied suite": lambda c: c.write(
        f"{SUITE}/{SECOND}", "def test_double_of_nothing_is_nothing(): pass\n"
    ),
    "a test taken out": lambda c: c.write(f"{SUITE}/{SECOND}", ""),
    "a conftest put in": lambda c: c.write(f"{SUITE}/conftest.py", "collect_ignore = []\n"),
    "a manifest thrown away": lambda c: c.path(f"{SUITE}/manifest.json").unlink(),
    "a damaged manifest": lambda c: c.write(f"{SUITE}/manifest.json", '{"suite": '),
    "a shortened manifest": lambda c: c.write(
        f"{SUITE}/manifest.json", json.dumps({"suite": "0" * 16, "tests": []})
    ),
    "a stub that imports the reference": lambda c: c.write(
        "stubs/tinytorch/setup.py", "import importlib.util as u, sys, pytest\npytest.exit('fine', 0)\n"
    ),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_spoiled_kata_unlocks_nothing(solved: Course, spoil: Callable[[Course], object]) -> None:
    spoil(solved)
    run = solved.run(SUITE)
    assert solved.passed() == set(), run.stdout


def test_what_an_editor_keeps_beside_a_suite_is_no_edit(solved: Course) -> None:
    solved.write(f"{SUITE}/.vscode/settings.json", "{}")
    with contextlib.suppress(OSError):  # some systems let nobody make links
        solved.path(f"{SUITE}/.#{FIRST}").symlink_to("ada@host.1234:1")  # Emacs', of an unsaved file
    run = solved.run(SUITE)
    assert run.returncode == 0, run.stdout + run.stderr
    assert solved.passed() == {"01"}


def test_an_edited_suite_is_named_with_the_way_back(solved: Course) -> None:
    solved.edit(f"{SUITE}/{SECOND}", "double(0) == 0", "double(0) == double(0)")
    run = solved.run(SUITE)
    assert "its suite was edited" in run.stdout
    assert "git checkout katas/01_setup" in run.stdout


def test_a_stub_saved_while_its_tests_run_is_not_recorded(solved: Course) -> None:
    """What is on disk at the end is not what was tested."""
    solved.edit(
        "stubs/tinytorch/setup.py",
        "return text.upper()",
        "open(__file__, 'a').write('# more\\n'); return text.upper()",
    )
    run = solved.run(SUITE)
    assert run.returncode == 0
    assert "saved while its tests were running" in run.stdout
    assert solved.passed() == set()


def test_what_runs_is_what_was_saved_last(solved: Course) -> None:
    """Two saves of one length within one second: Python would run the bytecode of the first."""
    environment = {"PYTHONDONTWRITEBYTECODE": ""}
    stub = solved.path("stubs/tinytorch/setup.py")
    solved.edit("stubs/tinytorch/setup.py", "return x + x", "return x * 3")
    saved = stub.stat()
    assert solved.run(SUITE, env=environment).returncode == 1
    solved.edit("stubs/tinytorch/setup.py", "return x * 3", "return x * 2")
    os.utime(stub, ns=(saved.st_atime_ns, saved.st_mtime_ns))
    assert solved.run(SUITE, env=environment).returncode == 0


def test_one_kata_of_a_failed_run_can_unlock(solved: Course) -> None:
    """`pytest katas/01_setup katas/02_tensor` where 02 is open: each is judged for itself."""
    solved.run(SUITE)
    solved.solve("tensor")
    solved.edit("stubs/tinytorch/tensor.py", "total(numbers) / len(numbers)", "total(numbers)")
    assert solved.run(SUITE, "katas/02_tensor").returncode == 1
    assert solved.passed() == {"01"}


def test_an_interrupted_run_unlocks_nothing(solved: Course) -> None:
    solved.edit("stubs/tinytorch/setup.py", "return text.upper()", "raise KeyboardInterrupt")
    run = solved.run(SUITE)
    assert run.returncode == 2
    assert solved.passed() == set()
    assert "Traceback" not in run.stderr


def test_a_read_only_progress_fails_no_test(solved: Course) -> None:
    solved.path("progress.json").chmod(0o444)
    run = solved.run(SUITE)
    assert run.returncode == 0
    assert os.access(solved.path("progress.json"), os.R_OK)
