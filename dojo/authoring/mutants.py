"""Small changes to a reference file, each of which a good suite should notice.

A mutant replaces one node of the syntax tree.  Its id names the change by source text, not by line, so that
it survives edits elsewhere: `Tensor.sum: x.sum(axis=1) -> x.sum(axis=2)`, and `#2` for the second such place
in a function.  `changes` says what may stand in place of a node.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

from dojo.authoring.changes import COMPOUND, FUNCTIONS, is_dull, is_silent, replacements

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True)
class Slot:
    """Where a node hangs: in a field of its parent, or at a place in a list there."""

    parent: ast.AST
    field: str
    index: int | None = None

    def get(self) -> ast.AST:
        value = getattr(self.parent, self.field)
        node: ast.AST = value if self.index is None else value[self.index]
        return node

    def set(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


@dataclass(frozen=True)
class Place:
    """What is around a node: names, functions whose code holds it, nearest statement, nodes above it.

    All of them outermost first; `parents` end with the node itself.
    """

    names: tuple[str, ...] = ()
    functions: tuple[Function, ...] = ()
    statement: ast.stmt | None = None
    parents: tuple[ast.AST, ...] = ()


@dataclass(frozen=True)
class Mutant:
    """`lines` are those of the statement around the change.

    `functions` are (name, first line) as code objects have them, outermost first; empty when the change is
    outside every function and takes effect while the module is imported.
    """

    id: str
    lines: range
    functions: tuple[tuple[str, int], ...]
    slot: Slot
    original: ast.AST
    replacement: ast.AST

    def plant(self) -> None:
        """Change the tree."""
        self.slot.set(self.replacement)

    def remove(self) -> None:
        """Change it back."""
        self.slot.set(self.original)


@dataclass(frozen=True)
class Mutants:
    """A module's syntax tree and the ways to change it, one at a time."""

    tree: ast.Module
    all: tuple[Mutant, ...]


def mutants_of(source: str) -> Mutants:
    """Every mutant of a module, in the order of the source, each with an id of its own."""
    tree = ast.parse(source)
    found: list[Mutant] = []
    taken: dict[str, int] = {}
    slots = sorted(_slots(tree, Place()), key=lambda pair: _position(pair[0].get()))
    for slot, place in slots:
        original, seen = slot.get(), {ast.dump(slot.get())}
        for replacement in replacements(original, slot.parent, slot.field, not place.names):
            key = ast.dump(replacement)
            if key in seen:
                continue
            seen.add(key)
            for inner in ast.walk(replacement):
                if not hasattr(inner, "lineno"):
                    ast.copy_location(inner, original)
            ast.fix_missing_locations(replacement)
            name = _name(slot, original, replacement, place)
            taken[name] = taken.get(name, 0) + 1
            unique = name if taken[name] == 1 else f"{name} #{taken[name]}"
            functions = tuple(_code_of(function) for function in place.functions)
            found.append(Mutant(unique, _lines(place), functions, slot, original, replacement))
    return Mutants(tree, tuple(found))


def _slots(node: ast.AST, place: Place) -> Iterator[tuple[Slot, Place]]:
    """Every place below `node` where a change could be noticed, parents before children."""
    head, body = _head(node, place), _body(node, place)
    for field, value in ast.iter_fields(node):
        if is_dull(node, field):
            continue
        at = body if field == "body" else head
        children = value if isinstance(value, list) else [value]
        for index, child in enumerate(children):
            if not isinstance(child, ast.AST) or is_silent(child):
                continue
            here = _entered(child, at)
            if isinstance(child, (ast.stmt, ast.expr)):
                yield Slot(node, field, index if isinstance(value, list) else None), here
            yield from _slots(child, here)


def _position(node: ast.AST) -> tuple[int, int]:
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def _head(node: ast.AST, place: Place) -> Place:
    """The place of a decorator or a default argument: it runs where the function is defined, not called."""
    if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return place
    return Place((*place.names, node.name), place.functions, place.statement, place.parents)


def _body(node: ast.AST, place: Place) -> Place:
    if not isinstance(node, (*FUNCTIONS, ast.Lambda)):
        return _head(node, place)
    inner = _head(node, place)
    return Place(inner.names, (*inner.functions, node), inner.statement, inner.parents)


def _entered(child: ast.AST, place: Place) -> Place:
    statement = child if isinstance(child, ast.stmt) else place.statement
    return Place(place.names, place.functions, statement, (*place.parents, child))


def _code_of(function: Function) -> tuple[str, int]:
    """The name and first line that the function's code object has."""
    if isinstance(function, ast.Lambda):
        return "<lambda>", function.lineno
    return function.name, min([function.lineno, *(d.lineno for d in function.decorator_list)])


def _lines(place: Place) -> range:
    """The lines of the nearest statement; of one with a block, those of its head."""
    statement = place.statement
    assert statement is not None, "every change is in a statement"
    last = statement.end_lineno or statement.lineno
    if isinstance(statement, COMPOUND):
        last = max(statement.lineno, statement.body[0].lineno - 1)
    return range(statement.lineno, last + 1)


def _name(slot: Slot, original: ast.AST, replacement: ast.AST, place: Place) -> str:
    """`where: before -> after`, with as much around the change as makes it readable."""
    shown = _telling(place)
    if shown is original:
        before, after = _text(original), _text(replacement)
    else:
        before = _text(shown)
        slot.set(replacement)
        after = _text(shown)
        slot.set(original)
    if isinstance(shown, ast.arguments):
        changed = [
            pair for pair in zip(before.split("\n"), after.split("\n"), strict=True) if len(set(pair)) == 2
        ]
        before, after = changed[0]
    return f"{'.'.join(place.names) or 'module'}: {before} -> {after}"


def _telling(place: Place) -> ast.AST:
    """The smallest node around a change that says something by itself: `1` does not, `sum(axis=1)` does."""
    for node in reversed(place.parents):
        if isinstance(node, (ast.Constant, ast.Name, ast.keyword, ast.Slice, ast.comprehension, ast.pattern)):
            continue
        if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
            continue
        if isinstance(node, (ast.Tuple, ast.Attribute)) and node is not place.parents[0]:
            continue
        return node
    return place.parents[-1]


def _text(node: ast.AST) -> str:
    """The source of a node on one line; of a statement with a block, its head."""
    if isinstance(node, (*COMPOUND, ast.match_case)):
        head = copy.copy(node)
        for field, value in (
            ("body", [ast.Pass()]),
            ("orelse", []),
            ("finalbody", []),
            ("decorator_list", []),
        ):
            if hasattr(head, field):
                setattr(head, field, value)
        return ast.unparse(head).partition("\n")[0]
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        return f"raise {ast.unparse(node.exc.func)}(...)"  # the words may change
    if isinstance(node, ast.arguments):
        return "\n".join(_defaults(node))
    return " ".join(ast.unparse(node).split())


def _defaults(node: ast.arguments) -> Iterator[str]:
    """`axis=0` for each argument that has a default."""
    positional = [*node.posonlyargs, *node.args]
    pairs = [*zip(positional[len(positional) - len(node.defaults) :], node.defaults, strict=True)]
    pairs += [(a, d) for a, d in zip(node.kwonlyargs, node.kw_defaults, strict=True) if d is not None]
    for argument, default in pairs:
        yield f"{argument.arg}={ast.unparse(default)}"
