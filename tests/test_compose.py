"""tinytorch is composed of the student's stubs, with locks, and of other sources on request."""

from __future__ import annotations

import re

import pytest

from dojo.compose import Composition
from dojo.curriculum import BY_NUMBER
from tests.conftest import Course


def says(course: Course, code: str, **environment: str) -> str:
    """What a plain script prints, or the last line of its traceback."""
    run = course.python("-c", code, env=environment)
    return (run.stdout or run.stderr).strip().splitlines()[-1]


def test_an_import_is_the_students_own_file(course: Course) -> None:
    assert says(course, "import tinytorch.setup as s; print(s.__file__)").endswith("stubs/tinytorch/setup.py")


def test_a_module_ahead_is_locked_with_the_next_command(course: Course) -> None:
    assert says(course, "import tinytorch.tensor") == (
        "dojo.compose.LockedError: tinytorch.tensor is locked: it is built in katas/02_tensor and you are at "
        "katas/01_setup. Next: pytest katas/01_setup"
    )


def test_a_name_ahead_is_locked_too(course: Course) -> None:
    assert "tinytorch.mean is locked: it is built in katas/02_tensor" in says(
        course, "from tinytorch import mean"
    )


def test_a_lock_is_an_import_error(course: Course) -> None:
    code = "try:\n    import tinytorch.tensor\nexcept ImportError:\n    print('caught')"
    assert says(course, code) == "caught"


def test_finding_a_locked_module_does_not_raise(course: Course) -> None:
    code = "import importlib.util as u; print(u.find_spec('tinytorch.tensor') is not None)"
    assert says(course, code) == "True"


def test_what_has_passed_can_be_imported_from_a_plain_script(course: Course) -> None:
    course.pass_katas("01_setup")
    assert says(course, "from tinytorch import double, shout; print(double(2), shout('a'))") == "4 A"
    assert says(course, "import tinytorch; print(tinytorch.double(2))") == "4"


def test_asking_for_one_name_does_not_import_the_others(course: Course) -> None:
    """So that an unfinished later module breaks nothing."""
    course.pass_katas("01_setup")
    course.write("stubs/tinytorch/tensor.py", "this is not Python")
    assert says(course, "from tinytorch import double; print(double(2))") == "4"


def test_an_unknown_name_is_an_ordinary_import_error(course: Course) -> None:
    assert "cannot import name 'Nonsense'" in says(course, "from tinytorch import Nonsense")
    assert says(course, "import tinytorch; print(hasattr(tinytorch, 'Nonsense'))") == "False"


def test_the_variable_substitutes_sources(course: Course) -> None:
    code = "from tinytorch import mean; print(mean([1, 3]))"
    assert says(course, code, TINYTORCH_IMPL="reference") == "2.0"
    assert "kata 02.2: mean" in says(course, code, TINYTORCH_IMPL="reference,02=stubs")


def test_a_file_or_folder_can_stand_in(course: Course) -> None:
    course.write("mine/tensor.py", "__all__ = ['mean']\ndef mean(x):\n    return 'mine'\n")
    code = "from tinytorch import mean; print(mean([1]))"
    assert says(course, code, TINYTORCH_IMPL="reference,02=mine") == "mine"
    assert says(course, code, TINYTORCH_IMPL="stubs,02=mine/tensor.py") == "mine"


def test_a_folder_may_have_a_comma_in_its_name(course: Course) -> None:
    course.write("Doe, Ada/tensor.py", "__all__ = ['mean']\ndef mean(x):\n    return 'hers'\n")
    code = "from tinytorch import mean; print(mean([1]))"
    assert says(course, code, TINYTORCH_IMPL="Doe, Ada") == "hers"
    assert says(course, code, TINYTORCH_IMPL="stubs,02=Doe, Ada/tensor.py,03=reference") == "hers"


def test_a_mistake_is_planted_in_the_reference(course: Course) -> None:
    course.write("mistakes.py", "def off(m):\n    m.total = lambda numbers: 100\n")
    code = "from tinytorch import mean; print(mean([1, 3]))"
    assert says(course, code, TINYTORCH_IMPL="reference,02=mistakes.py::off") == "50.0"


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("mistakes.py::of", "mistakes.py has no mistake 'of'; did you mean off?"),
        ("katas::off", "katas has no mistake 'off'"),
    ],
)
def test_a_mistake_that_is_not_there_is_one_line(course: Course, source: str, complaint: str) -> None:
    course.write("mistakes.py", "def off(m):\n    m.total = lambda numbers: 100\n")
    run = course.run("katas/02_tensor", "--impl", f"reference,02={source}")
    assert run.returncode == 4
    assert complaint in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("nowhere", "'nowhere' is neither 'stubs' nor 'reference'"),
        ("reference,99=stubs", "there is no kata '99'"),
        ("reference,06", "should look like 06=stubs"),
        ("", "neither 'stubs' nor 'reference'"),
    ],
)
def test_a_wrong_spec_is_named(course: Course, spec: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        Composition.parse(spec)
    if spec:
        run = course.run("katas/01_setup", "--impl", spec)
        assert run.returncode == 4
        assert complaint in run.stderr


def test_choosing_after_an_import_is_an_error(course: Course) -> None:
    code = (
        "import tinytorch.setup; from dojo import compose; compose.choose(compose.Composition('reference'))"
    )
    assert "tinytorch.setup was imported before its source was chosen" in says(course, code)


def test_borrowing_takes_what_comes_before_and_locks_what_comes_after() -> None:
    composition = Composition.borrowing([BY_NUMBER["03"]])
    assert str(composition) == "stubs,01=reference,02=reference,03=stubs"
    assert not composition.ordinary
    assert not composition.locks(BY_NUMBER["03"])


def test_impl_and_borrow_contradict_each_other(course: Course) -> None:
    run = course.run("katas/02_tensor", "--borrow", "--impl", "reference")
    assert run.returncode == 4
    assert "use one of them" in run.stderr


def test_an_unfinished_autograd_does_not_reach_the_tests_before_it(course: Course) -> None:
    """Importing kata 06 turns recording on; katas before it run with it off."""
    course.write(
        "reference/tinytorch/tensor.py",
        "__all__ = []\nrecorder = None\ndef set_recorder(new):\n"
        "    global recorder\n    old, recorder = recorder, new\n    return old\n",
    )
    course.write(
        "reference/tinytorch/autograd.py", "from tinytorch import tensor\ntensor.set_recorder('on')\n"
    )
    start = "import tinytorch.autograd\nfrom tinytorch import tensor\n"
    test = start + "def test_recorder():\n    assert tensor.recorder {}\n"
    course.write("katas/02_tensor/test_1_correctness.py", test.format("is None"))
    course.write("katas/06_autograd/test_1_correctness.py", test.format("== 'on'"))
    course.write("katas/06_autograd/manifest.json", "{}")
    run = course.run("katas/02_tensor/test_1_correctness.py", "katas/06_autograd", "--impl", "reference")
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_finished_autograd_records_from_the_first_import(course: Course) -> None:
    code = "import sys; from tinytorch import mean; print('tinytorch.autograd' in sys.modules)"
    assert says(course, code, TINYTORCH_IMPL="reference") == "False"  # this course has none
    for folder in ("reference", "stubs"):
        course.write(f"{folder}/tinytorch/autograd.py", "__all__ = []\n")
    assert says(course, code, TINYTORCH_IMPL="reference") == "True"
    assert says(course, code, TINYTORCH_IMPL="reference,06=stubs") == "False"  # not passed, so not finished
