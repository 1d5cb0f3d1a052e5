"""Every budget of levels 3 and 4 must have a twin: a test that runs a naive version and sees it caught."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dojo.curriculum import Kata
from dojo.plugin.twins import TWIN

LEVELS = re.compile(r"test_[34]_\w+\.py")


def budget_problems(kata: Kata) -> list[str]:
    """Budgets that no test checks, or that no twin exceeds; and levels 3 and 4 without any."""
    named: dict[str, str] = {}
    checked: set[str] = set()
    caught: set[str] = set()
    problems = []
    for file in sorted(kata.path.glob("*.py")):
        tree = ast.parse(file.read_text("utf-8"), str(file))
        shown = f"{kata.shown}/{file.name}"
        for node, name in _budgets(tree):
            if name:
                named[name] = f"{shown}:{node.lineno}"
            else:
                problems.append(
                    f"{shown}:{node.lineno}: give this Budget a name at the top of the file, "
                    "so that its test and its twin share it"
                )
        if LEVELS.fullmatch(file.name):
            for function in _tests(tree):
                uses = caught if function.name.startswith(TWIN) else checked
                uses.update(_used(function, "catches" if uses is caught else "check"))
    for name, where in named.items():
        if name not in checked:
            problems.append(f"{where}: no test of level 3 or 4 calls {name}.check(...)")
        if name not in caught:
            problems.append(
                f"{where}: {name} has no twin; write `def {TWIN}...` that runs a naive version and calls "
                f"{name}.catches(...)"
            )
    return problems


def _budgets(tree: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    """Each `Budget(...)` of a module and the name it is given at the module's top; "" if none."""
    top = {
        id(statement.value): statement.targets[0].id
        for statement in tree.body
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _last_name(node.func) == "Budget":
            yield node, top.get(id(node), "")


def _tests(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node


def _used(function: ast.FunctionDef, method: str) -> Iterator[str]:
    """The names whose `method` a function calls."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method:
            yield _last_name(node.func.value)


def _last_name(node: ast.expr) -> str:
    """`Budget` of `Budget` and of `dojo.measuring.Budget`."""
    return ast.unparse(node).rpartition(".")[2]
