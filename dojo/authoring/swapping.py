"""Putting a mutant in place: into the functions that live already, or while the module is imported."""

from __future__ import annotations

import ast
import gc
import importlib.util
import os
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType

from dojo import compose
from dojo.authoring.mutants import Mutant

Key = tuple[str, int]  # the name and first line of a code object


class UnswappableError(Exception):
    """The change does not fit into the functions that live already."""


def live_functions(path: Path) -> dict[Key, list[FunctionType]]:
    """Every function made from the file `path`, whatever holds it: an Op, a property, a closure, a cache."""
    found: dict[Key, list[FunctionType]] = {}
    name = os.path.realpath(path)
    for thing in gc.get_objects():
        if type(thing) is FunctionType and os.path.realpath(thing.__code__.co_filename) == name:
            found.setdefault(_key(thing.__code__), []).append(thing)
    return found


def code_of(mutant: Mutant | None, tree: ast.Module, path: Path) -> CodeType:
    """The module's code with the mutant, if any, in it.  The tree stays changed: this is a child's work.

    Raises:
        SyntaxError: the change does not make sense there.
    """
    if mutant:
        mutant.plant()
    return compile(tree, str(path), "exec", dont_inherit=True)


def swap(mutant: Mutant, code: CodeType, live: dict[Key, list[FunctionType]]) -> None:
    """Give the functions around the change their new code.

    Raises:
        UnswappableError: it is outside every function, its function is not alive or not the only one of its
            name on its line, or it closes over other variables now.
    """
    codes: dict[Key, list[CodeType]] = {}
    for inner in _all_codes(code):
        codes.setdefault(_key(inner), []).append(inner)
    if not mutant.functions or mutant.functions[0] not in live:
        raise UnswappableError(mutant.id)
    for key in mutant.functions:
        new = codes.get(key, [])
        if len(new) != 1:
            raise UnswappableError(mutant.id)
        for function in live.get(key, ()):
            if function.__code__.co_freevars != new[0].co_freevars:
                raise UnswappableError(mutant.id)
    for key in mutant.functions:
        for function in live.get(key, ()):
            function.__code__ = codes[key][0]


def plant_at_import(module: str, path: Path, code: CodeType) -> None:
    """Let `module`, which is not imported yet, be made from `code`."""
    assert module not in sys.modules, f"{module} was imported before its mutant was planted"
    compose.install()  # first, so that the finder below stands before it
    sys.meta_path.insert(0, _Planted(module, path, code))


class _Planted(MetaPathFinder):
    def __init__(self, module: str, path: Path, code: CodeType) -> None:
        self.module, self.path, self.code = module, path, code

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        loader = _FromCode(fullname, str(self.path))
        loader.code = self.code
        return importlib.util.spec_from_file_location(fullname, self.path, loader=loader)


class _FromCode(SourceFileLoader):
    code: CodeType

    def get_code(self, fullname: str) -> CodeType:
        return self.code


def _key(code: CodeType) -> Key:
    return code.co_name, code.co_firstlineno


def _all_codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _all_codes(constant)
