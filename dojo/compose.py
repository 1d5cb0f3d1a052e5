"""Where each module of `tinytorch` comes from: the student's stub, the reference, or nowhere yet.

`stubs/tinytorch/` is an ordinary package on an ordinary path, so an import of the student's own file goes
through Python's own machinery.  The finder here speaks in two cases: a module whose kata is not reached is
*locked*, and a module that somebody asked to take from elsewhere is *substituted*:

    TINYTORCH_IMPL=reference                         everything from the solutions
    TINYTORCH_IMPL=reference,06=stubs                the solutions, but kata 06 from the student
    TINYTORCH_IMPL=reference,06=some/autograd.py     the solutions, but kata 06 from that file
    TINYTORCH_IMPL=reference,06=mistakes.py::name    the solutions, with one planted mistake in kata 06

`pytest --impl SPEC` sets the same variable.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from dojo import progress
from dojo.curriculum import BY_NUMBER, KATAS, REFERENCE, ROOT, STUBS, Kata, before, find

VARIABLE = "TINYTORCH_IMPL"
AUTOGRAD = BY_NUMBER["06"]
PLANTED = "::"  # in a source, stands between a file of mistakes and the mistake's name


class LockedError(ImportError):
    """A module whose kata has not been reached yet."""


@dataclass(frozen=True)
class Composition:
    """A source for every kata: `default`, unless its number is in `overrides`."""

    default: str = "stubs"
    overrides: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, spec: str) -> Composition:
        """Read `SOURCE[,NN=SOURCE...]`.

        A source is `stubs`, `reference`, a `.py` file, a folder of such files, or `FILE::MISTAKE`.

        Raises:
            ValueError: a kata or source that does not exist; the message says which.
        """
        # A comma that is part of a path, as in submissions/Doe, Ada, is not followed by a kata.
        default, *pairs = re.split(r",(?=[^,=]+=|\d+$)", spec)
        overrides = {}
        for pair in pairs:
            kata, equals, source = pair.partition("=")
            if not equals:
                raise ValueError(f"in {spec!r}, {pair!r} should look like 06=stubs")
            overrides[find(kata).number] = _checked(source)
        return cls(_checked(default), tuple(overrides.items()))

    @classmethod
    def borrowing(cls, katas: Sequence[Kata]) -> Composition:
        """`katas` from the student, and everything before the last of them from the reference."""
        under_test = {kata.number for kata in katas}
        last = max(katas, key=KATAS.index)
        return cls(
            "stubs",
            tuple(
                (k.number, "stubs" if k.number in under_test else "reference") for k in (*before(last), last)
            ),
        )

    def __str__(self) -> str:
        return ",".join([self.default, *(f"{number}={source}" for number, source in self.overrides)])

    @property
    def ordinary(self) -> bool:
        """Whether everything is the student's own, so that a pass counts."""
        return self == Composition()

    def source_of(self, kata: Kata) -> str:
        return dict(self.overrides).get(kata.number, self.default)

    def locks(self, kata: Kata) -> bool:
        """Whether `kata` is out of reach: only the student's own way through the course has locks."""
        asked_for = kata.number in dict(self.overrides)
        return self.default == "stubs" and not asked_for and not progress.load().reached(kata)

    def file_of(self, kata: Kata) -> Path:
        """The file that `kata`'s module is read from."""
        source = self.source_of(kata).partition(PLANTED)
        if source[1]:
            return kata.reference
        if source[0] in ("stubs", "reference"):
            return ROOT / source[0] / "tinytorch" / f"{kata.name}.py"
        path = Path(source[0])
        return path if path.suffix == ".py" else path / f"{kata.name}.py"


def _checked(source: str) -> str:
    """`source` as it is, or as an absolute path; ValueError if it names nothing."""
    if source in ("stubs", "reference"):
        return source
    path, planted, mistake = source.partition(PLANTED)
    if not source or not Path(path).exists():
        raise ValueError(f"{source!r} is neither 'stubs' nor 'reference' nor a file or folder")
    if planted:
        _check_planted(Path(path), mistake)
    return str(Path(path).resolve()) + planted + mistake


def _check_planted(file: Path, mistake: str) -> None:
    """ValueError if the file has no such function, by a `def` or, made by another one, by an assignment."""
    text = file.read_text("utf-8") if file.is_file() else ""
    bound = re.findall(r"^(?:def )?(\w+(?:, \w+)*)(?:\(| = )", text, re.MULTILINE)
    named = [name for names in bound for name in names.split(", ")]
    if mistake not in named:
        import difflib

        near = difflib.get_close_matches(mistake, named, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{file.as_posix()} has no mistake {mistake!r}{meant}")


def current() -> Composition:
    """The composition that this process was asked for."""
    return Composition.parse(os.environ.get(VARIABLE) or "stubs")


def choose(composition: Composition) -> None:
    """Take tinytorch's modules from these sources, in this process and its children.

    Raises:
        RuntimeError: a module of tinytorch was imported already, from another source.
    """
    imported = [name for name in sys.modules if name.startswith("tinytorch.")]
    if imported and composition != current():
        raise RuntimeError(f"{imported[0]} was imported before its source was chosen")
    os.environ[VARIABLE] = str(composition)


def reach() -> None:
    """Let this process import `tinytorch` and `dojo` from this repository, which need not be installed."""
    sys.path[:] = dict.fromkeys([str(ROOT), str(STUBS.parent), *sys.path])


def locked_message(what: str, kata: Kata | None = None) -> str:
    """Why `what`, which `kata` builds, cannot be had yet, and what to type next."""
    here = progress.load().frontier()
    built = f"it is built in {kata.shown} and " if kata else ""
    return f"{what} is locked: {built}you are at {here.shown}. Next: {here.command}"


class _Locked(Loader):
    """Refuses on executing the module, so that finding it (as editors and test collectors do) is free."""

    def __init__(self, kata: Kata) -> None:
        self.kata = kata

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        raise LockedError(locked_message(self.kata.module, self.kata), name=self.kata.module)


class _Mistaken(SourceFileLoader):
    """The reference with one mistake of `reference/mistakes/` planted in it."""

    def __init__(self, fullname: str, path: str, source: str) -> None:
        super().__init__(fullname, path)
        self.source = source

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        path, _, name = self.source.partition(PLANTED)
        getattr(load_file(Path(path)), name)(module)


class KataFinder(MetaPathFinder):
    """Finds `tinytorch.NAME` where it is locked or substituted, and leaves the rest to Python."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        kata = next((k for k in KATAS if k.name == name), None)
        if package != "tinytorch" or kata is None:
            return None
        composition = current()
        source, file = composition.source_of(kata), composition.file_of(kata)
        if composition.locks(kata):
            return importlib.util.spec_from_loader(fullname, _Locked(kata))
        if source == "stubs":
            return None
        if PLANTED in source:
            return importlib.util.spec_from_loader(fullname, _Mistaken(fullname, str(file), source))
        return importlib.util.spec_from_file_location(fullname, file)


def install() -> None:
    """Put the finder in front of Python's own.  Calling it again changes nothing."""
    if not any(isinstance(finder, KataFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, KataFinder())


def export(name: str) -> Any:
    """What `from tinytorch import NAME` gives: NAME from the module of the kata that builds it."""
    number = exports().get(name)
    if number is None:
        raise AttributeError(f"module 'tinytorch' has no attribute {name!r}")
    kata = BY_NUMBER[number]
    if current().locks(kata):
        raise LockedError(locked_message(f"tinytorch.{name}", kata), name=kata.module)
    if _autograd_works():
        importlib.import_module(AUTOGRAD.module)  # which starts to record
    return getattr(importlib.import_module(kata.module), name)


def _autograd_works() -> bool:
    """Whether operations can be recorded: kata 06 has passed, or somebody else's is used.

    While it is being written, an import of anything else must not bring in what may not even compile.
    """
    composition = current()
    if composition.source_of(AUTOGRAD) == "stubs":
        return AUTOGRAD.number in progress.load().passed
    return composition.file_of(AUTOGRAD).exists()


@functools.cache
def exports() -> dict[str, str]:
    """Every public name of the course, with the number of the kata that builds it.

    Read from the `__all__` of the reference without running it, so that asking for `Tensor` never imports
    an unfinished autograd.  Where two katas export a name, the later one has it.
    """
    names = {}
    for kata in KATAS:
        file = REFERENCE / f"{kata.name}.py"
        if file.exists():
            for node in ast.parse(file.read_text("utf-8")).body:
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                    names.update(dict.fromkeys(ast.literal_eval(node.value), kata.number))
    return names


def load_file(path: Path) -> ModuleType:
    """Import a Python file that is on no path: a kata's probes, a file of mistakes."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}.{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module
