"""How a failure reads: one line for a stub, the call and its values for a wrong answer.

Nothing here changes whether a test passed.  With `--tb` given, pytest's own tracebacks are left alone.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import linecache
import os
import textwrap
import types
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dojo import compose
from dojo.curriculum import KATAS, from_root
from dojo.plugin.about import task_of_failure
from dojo.plugin.limits import TimeUp
from dojo.plugin.units import unit_of

LOCALS_SHOWN = 6
STEPS_SHOWN = 8  # of a recursion that never ends
MARK = "kata "  # how the message of a stub's NotImplementedError starts


class Frame(NamedTuple):
    """One step of a traceback, in a test or in the code under test."""

    path: Path
    line: int
    function: str
    locals: dict[str, Any]

    def __str__(self) -> str:
        return f"{from_root(self.path)}:{self.line}"

    @property
    def qualified(self) -> str:
        """`Adam.step` for a method, and for what is defined inside it."""
        around = [
            node
            for node in _statements(self.path)
            if isinstance(node, (ast.ClassDef, ast.FunctionDef))
            and node.lineno <= self.line <= (node.end_lineno or node.lineno)
        ]
        around.sort(key=lambda node: node.lineno)
        classes = [node.name for node in around if isinstance(node, ast.ClassDef)]
        functions = [node.name for node in around if isinstance(node, ast.FunctionDef)]
        return ".".join([*classes[:1], *functions[:1]]) or self.function


class Explain:
    """Rewrites the text of a failed kata test."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, Any]:
        if call.excinfo is None or unit_of(item.path) is None:
            return (yield)
        error = call.excinfo.value
        todo = find_todo(error)
        rewrite = item.config.getoption("tbstyle") == "auto" and not isinstance(item, StubTrouble)
        if todo or rewrite:
            # Ours will stand in its place, and pytest's own parses every file of the traceback anew.
            item.repr_failure = lambda *args, **options: ""  # type: ignore[method-assign]
        report = yield
        vars(item).pop("repr_failure", None)
        if not report.failed:
            return report
        if isinstance(item, StubTrouble):
            report.alike, report.whole_file, report.longrepr = item.trouble, True, item.trouble
        if todo:
            report.todo = todo
            report.longrepr = f"{todo['where']}: not written yet ({todo['task']})"
            report.sections.clear()
        elif rewrite:
            steps = [step.qualified for step in frames(error) if is_under_test(step.path)]
            report.task = task_of_failure(unit_of(item.path), item, steps, words_of(error))
            heading = f"kata {report.task}\n" if report.task else ""
            report.longrepr = heading + explain(error, item)
            report.alike = f"{type(error).__name__} at {cause_of(error, item)}"
            if timed_out(error):
                report.timed_out = True
                report.sections.clear()  # pytest-timeout's dump of every thread's stack
        return report


def is_under_test(path: Path) -> bool:
    """Whether `path`, resolved, is a module of tinytorch, wherever it was taken from."""
    return path in _sources(os.environ.get(compose.VARIABLE))


@functools.cache
def _sources(spec: str | None) -> frozenset[Path]:
    composition = compose.current()
    return frozenset(composition.file_of(kata).resolve() for kata in KATAS)


def frames(error: BaseException) -> Iterator[Frame]:
    """The steps from test to failure that a student can act on: their own code and the suite's."""
    step = error.__traceback__
    while step:
        file = Path(step.tb_frame.f_code.co_filename)
        path = file.resolve()  # the course may be reached through a link, or by the letter of a network drive
        # A time limit may strike between two lines; then there is no number.
        line = step.tb_lineno or step.tb_frame.f_code.co_firstlineno
        # Hypothesis gives its wrapper the test's own file and the line of its decorator.
        wrapper = linecache.getline(str(path), line).lstrip().startswith("@")
        hidden = "__tracebackhide__" in step.tb_frame.f_code.co_varnames  # as pytest's own tracebacks have it
        if file.is_absolute() and (is_under_test(path) or unit_of(path)) and not (wrapper or hidden):
            yield Frame(path, line, step.tb_frame.f_code.co_name, step.tb_frame.f_locals)
        step = step.tb_next


def find_todo(error: BaseException) -> dict[str, str] | None:
    """Where a stub is not written yet, if that is why the test failed.

    Hypothesis wraps several failures in an ExceptionGroup, so look inside.
    """
    for inner in getattr(error, "exceptions", ()):
        if todo := find_todo(inner):
            return todo
    if not isinstance(error, NotImplementedError) or not str(error).startswith(MARK):
        return None
    steps = [frame for frame in frames(error) if is_under_test(frame.path)]
    return {"where": str(steps[-1]), "task": str(error).splitlines()[0]} if steps else None


def explain(error: BaseException, item: pytest.Item) -> str:
    """The failing statements with the values in them, then what went wrong."""
    if inner := getattr(error, "exceptions", None):
        return explain(inner[0], item)
    steps = list(frames(error))
    if timed_out(error):
        where = next(
            (f"{step}, in {step.function}" for step in reversed(steps) if is_under_test(step.path)), ""
        )
        return f"{where or item.nodeid}: still running when its time was up. Is there a loop that never ends?"
    tests = [step for step in steps if not is_under_test(step.path)]
    lines: list[str] = []
    if tests and (doc := inspect.getdoc(getattr(item, "obj", None))):
        lines += [doc, ""]
    for number, step in enumerate(steps):
        if STEPS_SHOWN // 2 <= number < len(steps) - STEPS_SHOWN // 2:
            if number == STEPS_SHOWN // 2:
                lines.append(f"    ... {len(steps) - STEPS_SHOWN} more steps ...")
            continue
        lines.append(f"{step}: in {step.function}")
        lines.append(textwrap.indent(_statement(step), "    "))
        if tests and step is tests[-1]:
            lines += _values(step)
    lines.append("")
    message = str(error) or type(error).__name__
    if not isinstance(error, AssertionError):
        message = f"{type(error).__name__}: {error}"
    lines.append(message)
    # Hypothesis explains by lines of files that are not the student's.
    lines += [note for note in getattr(error, "__notes__", []) if not note.startswith("Explanation:")]
    return "\n".join(lines)


def is_from_the_code(error: BaseException) -> bool:
    """Whether the code under test raised it, and not the test."""
    steps = list(frames(error))
    return bool(steps) and is_under_test(steps[-1].path)


def cause_of(error: BaseException, item: pytest.Item) -> str:
    """What failures alike have in common: the way to the line that raised, or the test, whatever its case."""
    if is_from_the_code(error):
        return " ".join(str(step) for step in frames(error) if is_under_test(step.path))
    return item.nodeid.partition("[")[0]


def words_of(error: BaseException) -> list[str]:
    """The names that the failing statements of the test use, and the methods that they call unnamed."""
    if inner := getattr(error, "exceptions", None):
        return words_of(inner[0])
    tests = [step for step in frames(error) if not is_under_test(step.path)]
    return [name for step in tests for name in (*_names(_statement(step)), *_calls(step))]


def timed_out(error: BaseException) -> bool:
    # The second is what pytest-timeout raises where our own alarm cannot be set.
    return isinstance(error, TimeUp) or (
        isinstance(error, pytest.fail.Exception) and "from pytest-timeout" in str(error)
    )


@functools.cache
def _statements(path: Path) -> list[ast.stmt]:
    try:
        tree = ast.parse("".join(linecache.getlines(str(path))))
    except SyntaxError:
        return []
    return [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]


def _statement(step: Frame) -> str:
    """The whole statement at a line, dedented."""
    best: ast.stmt | None = None
    for node in _statements(step.path):
        if node.lineno <= step.line <= (node.end_lineno or node.lineno):
            best = node if best is None or node.lineno >= best.lineno else best
    if best is None:
        return linecache.getline(str(step.path), step.line).strip()
    body: list[ast.stmt] = getattr(best, "body", [])
    whole = isinstance(best, ast.With) or not body  # of a loop or a function, the head will do
    end = (best.end_lineno or best.lineno) if whole else body[0].lineno - 1
    lines = linecache.getlines(str(step.path))[best.lineno - 1 : max(end, best.lineno)]
    return textwrap.dedent("".join(lines)).rstrip()


def _names(statement: str) -> list[str]:
    """The names in a statement, in order; attributes too, but for numpy's."""
    named = (
        n.id if isinstance(n, ast.Name) else n.attr
        for n in _nodes(statement)
        if isinstance(n, ast.Name) or (isinstance(n, ast.Attribute) and ast.unparse(n.value) != "np")
    )
    return list(dict.fromkeys(named))


def _nodes(statement: str) -> Iterator[ast.AST]:
    """The syntax nodes of a statement; none if it is only a part of one."""
    with contextlib.suppress(SyntaxError):
        yield from ast.walk(ast.parse(statement if not statement.endswith(":") else statement + " pass"))


def _calls(step: Frame) -> Iterator[str]:
    """`Linear.forward` and `Linear.__call__` where an object is called: `Linear(2, 3)(x)`, `layer(x)`."""
    for node in _nodes(_statement(step)):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Call):
                kind = ast.unparse(called.func)
            else:
                kind = type(step.locals.get(ast.unparse(called))).__name__
            yield from (f"{kind}.forward", f"{kind}.__call__")


def _values(step: Frame) -> list[str]:
    """What the names in the failing statement stood for; functions, classes and modules are left out."""
    from dojo.expect import hang, show

    lines = []
    for name in _names(_statement(step)):
        value = step.locals.get(name, step)
        dull = isinstance(value, (types.ModuleType, types.FunctionType, type)) or callable(value)
        if value is not step and not dull and not name.startswith("@"):
            lines.append(hang(f"    where {name} = ", show(value, brief=True)))
    return lines[:LOCALS_SHOWN]


class StubTrouble(pytest.Item):
    """Stands for a test file that cannot even be imported, because of the stub that it tests."""

    def __init__(self, *, trouble: str, **rest: Any) -> None:
        super().__init__(**rest)
        self.trouble = trouble

    def runtest(self) -> None:
        pytest.fail(self.trouble, pytrace=False)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, "the stub can be imported"


class KataModule(pytest.Module):
    """A test file of a kata.  A stub that breaks its import is one failure with a message, not a crash."""

    def collect(self) -> Any:
        try:
            return list(super().collect())
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if trouble := stub_trouble(error):
                return [StubTrouble.from_parent(self, name="the_stub_can_be_imported", trouble=trouble)]
            raise


def stub_trouble(error: BaseException) -> str | None:
    """Why a stub stopped a test file's import, in one line; None if it was something else."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for cause in chain:
        if isinstance(cause, SyntaxError) and cause.filename:
            file = Path(cause.filename).resolve()
            if is_under_test(file):
                where = f"{from_root(file)}:{cause.lineno}"
                return f"{where}: Python cannot read this: {cause.msg}\n    {(cause.text or '').strip()}"
        if isinstance(cause, compose.LockedError):
            return str(cause)
        if todo := find_todo(cause):
            return f"{todo['where']}: not written yet ({todo['task']}), and needed while it is imported"
        steps = [step for step in frames(cause) if is_under_test(step.path)]
        if steps:
            what = f"{type(cause).__name__}: {cause}"
            if isinstance(cause, SystemExit):
                what = f"it leaves Python: {cause.code if isinstance(cause.code, str) else 'sys.exit()'}"
            elif isinstance(cause, pytest.skip.Exception):
                what = "it skips the tests"
            return f"{steps[-1]}: while it is imported, {what}\n    {_statement(steps[-1])}"
        if isinstance(cause, ImportError) and (cause.name or "").startswith("tinytorch"):
            return f"{cause.msg}\nThe suite needs that name. `dojo reset` gives a fresh stub and keeps yours."
    return None
