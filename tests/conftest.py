"""The `course` fixture: a small made-up course in a folder of its own, to run whole commands in.

dojo finds everything from its own location, so a copy of dojo/ beside made-up katas is a complete repository:
nothing a test does there can touch the real stubs or progress.json.
"""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parents[1]
COPIED = ("conftest.py", "pytest.ini", "pyproject.toml", "dojo")

# Reference, stub and suite of three tiny katas.  The stubs are written out by hand, so that they are also an
# expectation for what `dojo stubs` makes of the references.
FILES = {
    "progress.json": '{\n "schema": 1,\n "katas": {},\n "milestones": {},\n "hints": {}\n}\n',
    "reference/tinytorch/setup.py": '''\
"""Tools."""

__all__ = ["double", "shout"]


def double(x: int) -> int:
    """Twice `x`."""
    # kata 01.1: add it to itself.
    return x + x


def shout(text: str) -> str:
    """`text` in capitals."""
    # kata 01.2: strings have a method for it.
    return text.upper()
''',
    "stubs/tinytorch/setup.py": '''\
"""Tools."""

__all__ = ["double", "shout"]


def double(x: int) -> int:
    """Twice `x`."""
    # TODO 01.1: add it to itself.
    raise NotImplementedError("kata 01.1: double")


def shout(text: str) -> str:
    """`text` in capitals."""
    # TODO 01.2: strings have a method for it.
    raise NotImplementedError("kata 01.2: shout")
''',
    "katas/01_setup/test_1_correctness.py": """\
from tinytorch.setup import double, shout


def test_double_is_twice():
    assert double(3) == 6


def test_shout_is_in_capitals():
    assert shout("dojo") == "DOJO"
""",
    "reference/tinytorch/tensor.py": '''\
"""Numbers in a row."""

__all__ = ["Tensor", "mean", "total"]


def total(numbers: list[float]) -> float:
    """The sum of `numbers`."""
    # kata 02.1: start from nothing.
    return sum(numbers)


def mean(numbers: list[float]) -> float:
    """The sum over the count."""
    # kata 02.2: you have the sum already.
    return total(numbers) / len(numbers)


class Tensor:
    """A list that knows its span."""

    def __init__(self, data: list[float]) -> None:
        self.data = data

    def span(self) -> float:
        """From the smallest to the largest."""
        # kata 02.3: two built-ins.
        return max(self.data) - min(self.data)
''',
    "stubs/tinytorch/tensor.py": '''\
"""Numbers in a row."""

__all__ = ["Tensor", "mean", "total"]


def total(numbers: list[float]) -> float:
    """The sum of `numbers`."""
    # TODO 02.1: start from nothing.
    raise NotImplementedError("kata 02.1: total")


def mean(numbers: list[float]) -> float:
    """The sum over the count."""
    # TODO 02.2: you have the sum already.
    raise NotImplementedError("kata 02.2: mean")


class Tensor:
    """A list that knows its span."""

    def __init__(self, data: list[float]) -> None:
        self.data = data

    def span(self) -> float:
        """From the smallest to the largest."""
        # TODO 02.3: two built-ins.
        raise NotImplementedError("kata 02.3: Tensor.span")
''',
    "katas/02_tensor/test_1_correctness.py": """\
from tinytorch.tensor import mean, total


def test_total_adds_up():
    assert total([1, 2, 3]) == 6


def test_mean_is_in_the_middle():
    assert mean([1, 2, 3]) == 2
""",
    "katas/02_tensor/test_3_memory.py": """\
from tinytorch.tensor import Tensor


def test_span_is_a_distance():
    assert Tensor([4, 1, 9]).span() == 8
""",
    "reference/tinytorch/layers.py": '''\
"""A layer."""

from tinytorch.tensor import mean

__all__ = ["centre"]


def centre(numbers: list[float]) -> list[float]:
    """`numbers` around zero."""
    # kata 03.1: take the mean away.
    middle = mean(numbers)
    return [x - middle for x in numbers]
''',
    "stubs/tinytorch/layers.py": '''\
"""A layer."""

from tinytorch.tensor import mean

__all__ = ["centre"]


def centre(numbers: list[float]) -> list[float]:
    """`numbers` around zero."""
    # TODO 03.1: take the mean away.
    raise NotImplementedError("kata 03.1: centre")
''',
    "katas/03_layers/test_1_correctness.py": """\
from tinytorch.layers import centre


def test_centre_has_mean_zero():
    assert centre([1, 2, 3]) == [-1, 0, 1]
""",
}

TASKS = {
    "01_setup": {"01.1": "double", "01.2": "shout"},
    "02_tensor": {"02.1": "total", "02.2": "mean", "02.3": "Tensor.span"},
    "03_layers": {"03.1": "centre"},
}

# Fixtures that a module's tests share, and that take seconds or the machine; under xdist they stay together.
DEAR = {"machine", "measured", "pristine", "report"}

# Take the terminal that is our standard input for our own, so that Ctrl-C typed there is for us.
AT_A_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from dojo.cli import main
sys.exit(main())
"""

# What a passed suite records, without running it.
RECORD = """
import sys
from dojo import curriculum, progress
for folder in sys.argv[1:]:
    assert not progress.record_pass(curriculum.find(folder), [], 0)
"""

# Written by a child in the made-up course; the ids come from the files above, not from dojo.
SEAL = """
import json, sys
from dojo import curriculum, manifest
for folder, ids in json.loads(sys.argv[1]).items():
    kata = curriculum.find(folder)
    content = json.dumps({"suite": manifest.suite_hash(kata), "tests": ids}, indent=1) + "\\n"
    manifest.path_of(kata).write_text(content, encoding="utf-8", newline="\\n")
"""


@dataclass
class Course:
    """A made-up repository at `root`: katas 01 to 03 are written, the others are not."""

    root: Path

    def path(self, name: str) -> Path:
        return self.root / name

    def read(self, name: str) -> str:
        return self.path(name).read_text("utf-8")

    def write(self, name: str, text: str) -> Path:
        """Write a file of the course, and its folder if need be."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        return path

    def edit(self, name: str, old: str, new: str) -> Path:
        text = self.read(name)
        assert old in text, f"{old!r} is not in {name}"
        return self.write(name, text.replace(old, new))

    def solve(self, *katas: str) -> None:
        """Put the reference solution into the stub of each kata, given as `setup` or `01_setup`."""
        for kata in katas:
            name = kata.partition("_")[2] or kata
            self.write(f"stubs/tinytorch/{name}.py", self.read(f"reference/tinytorch/{name}.py"))

    def progress(self) -> dict[str, Any]:
        """progress.json as it is on disk."""
        content = json.loads(self.read("progress.json"))
        assert isinstance(content, dict)
        return content

    def passed(self) -> set[str]:
        return set(self.progress()["katas"])

    def pass_katas(self, *katas: str) -> None:
        """Solve katas and run their suites, in order, so that they are on record."""
        for kata in katas:
            self.solve(kata)
            done = self.run(f"katas/{kata}")
            assert done.returncode == 0, done.stdout + done.stderr

    def record(self, *katas: str) -> None:
        """Solve katas and put them on record without running their suites, which is quicker."""
        self.solve(*katas)
        done = self.python("-c", RECORD, *katas)
        assert done.returncode == 0, done.stderr

    def environment(self, **extra: str) -> dict[str, str]:
        """The environment of a student at a plain 100-column terminal, whatever runs these tests."""
        outside = re.compile(
            r"(PYTEST|TINYTORCH|PYTHON|COV|CI$|GITHUB|NO_COLOR|FORCE_COLOR|TERM|COLUMNS|LINES)"
        )
        kept = {name: value for name, value in os.environ.items() if not outside.match(name)}
        return (
            kept
            | {
                "PYTHONPATH": os.pathsep.join([str(self.root), str(self.root / "stubs")]),
                # A file written twice within a second and with one length would be run from old bytecode.
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONIOENCODING": "utf-8",
                "COLUMNS": "100",
                "TERM": "xterm-256color",
            }
            | extra
        )

    def python(
        self, *args: str, cwd: Path | None = None, env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """A child Python in the course; `env` is added to `environment()`."""
        return subprocess.run(
            [sys.executable, *args],
            cwd=cwd or self.root,
            env=self.environment(**(env or {})),
            capture_output=True,
            text=True,
            encoding="utf-8",
            **({"stdin": subprocess.DEVNULL} if "input" not in options else {}),
            **options,
        )

    def run(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """`pytest ARGS` in the course."""
        return self.python("-m", "pytest", *args, **options)

    def dojo(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """`dojo ARGS` in the course."""
        return self.python("-m", "dojo", *args, **options)

    if sys.platform != "win32":

        @contextlib.contextmanager
        def terminal(
            self, *args: str, env: dict[str, str] | None = None
        ) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
            """`dojo ARGS` at a terminal of its own: the process, our end of the terminal and its end."""
            ours, theirs = os.openpty()
            child = subprocess.Popen(
                [sys.executable, "-c", AT_A_TERMINAL, *args],
                cwd=self.root,
                env=self.environment(**(env or {})),
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
            )
            try:
                yield child, ours, theirs
            finally:
                if child.poll() is None:
                    child.kill()
                    child.wait()
                os.close(theirs)
                os.close(ours)

        def typed(self, *args: str, keys: str = "", **env: str) -> tuple[int, str]:
            """`dojo ARGS` at a terminal, answered with `keys`: its exit status and what was on the screen."""
            shown = b""
            with self.terminal(*args, env=env) as (child, ours, _):
                os.write(ours, keys.encode())
                while child.poll() is None or select.select([ours], [], [], 0)[0]:
                    if select.select([ours], [], [], 0.02)[0]:
                        shown += os.read(ours, 4096)
                return child.returncode, shown.decode("utf-8").replace("\r\n", "\n")

    def seal(self) -> None:
        """Write the manifest of every suite, as its files are now (plain test functions only)."""
        ids = {
            folder.name: [
                f"{file.name}::{test}"
                for file in sorted(folder.glob("test_*.py"))
                for test in re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.MULTILINE)
            ]
            for folder in sorted(self.path("katas").glob("[0-9]*"))
        }
        done = self.python("-c", SEAL, json.dumps(ids))
        assert done.returncode == 0, done.stderr


def readme(folder: str) -> str:
    tasks = "".join(f"### {number} {name}\n\nWrite `{name}`.\n\n" for number, name in TASKS[folder].items())
    sections = "".join(
        f"## {title}\n\nText.\n\n" for title in ("Memory", "Performance", "Scaling", "In production")
    )
    return (
        f"# {folder}\n\n## What you will build\n\nText.\n\n## The ideas\n\nText.\n\n"
        f"## Tasks\n\n{tasks}{sections}"
        "## Common mistakes\n\nText.\n\n## Read more\n\nText.\n"
    )


def hints(folder: str) -> str:
    return "".join(
        f"## {number} {name}\n\n1. What would {name} of one thing be?\n2. The idea of {name}.\n"
        f"3. The key line of {name}: `return ...`\n\n"
        for number, name in TASKS[folder].items()
    )


def copied(root: Path, *names: str) -> Course:
    """A course at `root` of the harness, and of files and folders of the repository."""
    for name in (*COPIED, *names):
        source = HERE / name
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, root / name)
    return Course(root)


def build(root: Path) -> Course:
    course = copied(root)
    for tree in ("stubs", "reference"):
        course.write(
            f"{tree}/tinytorch/__init__.py", (HERE / tree / "tinytorch/__init__.py").read_text("utf-8")
        )
    for name, text in FILES.items():
        course.write(name, text)
    for folder in TASKS:
        course.write(f"katas/{folder}/README.md", readme(folder))
        course.write(f"katas/{folder}/hints.md", hints(folder))
    course.seal()
    warm(course)
    return course


def pytest_configure() -> None:
    """Let the children of a run in the background (`... &`, which ignores Ctrl-C) answer to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that start whole pytests need more time than a kata's, on two busy cores."""
    for item in items:
        if not item.path.is_relative_to(HERE / "tests"):
            continue
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(120))
        if config.pluginmanager.hasplugin("xdist") and not DEAR.isdisjoint(fixtures_of(item)):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def fixtures_of(item: pytest.Item) -> list[str]:
    return list(getattr(item, "fixturenames", ()))


def warm(course: Course) -> None:
    """Leave bytecode of dojo/ in place, which copies share: without it each pytest takes a second longer.

    Not of the suites: pytest's bytecode keeps the paths that it was made from.
    """
    compileall.compile_dir(course.path("dojo"), quiet=2)
    empty = course.write("empty/README.md", "").parent
    course.run("-p", "no:cacheprovider", "-q", str(empty), env={"PYTHONDONTWRITEBYTECODE": ""})
    shutil.rmtree(empty)


@pytest.fixture(scope="session")
def pristine_course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """The made-up course as shipped; tests take a copy (`course`)."""
    return build(tmp_path_factory.mktemp("course") / "root")


@pytest.fixture
def course(pristine_course: Course, tmp_path: Path) -> Course:
    """A fresh made-up course: nothing solved, nothing recorded."""
    root = tmp_path / "course"
    shutil.copytree(pristine_course.root, root)
    return Course(root)


def interrupted(command: list[str], sign: Path, options: dict[str, Any]) -> str:
    """What a command says that gets Ctrl-C when the file `sign` is there; it must end as shells expect."""
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    while not sign.exists() and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate()
    assert running.returncode == 130, out
    return str(out)
