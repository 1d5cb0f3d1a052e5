"""Who has written the same thing: files compared by the shape of their code, not its names or comments.

A file becomes the set of hashes of its runs of `RUN` syntax nodes in a row, inside functions, without names,
numbers, strings and docstrings; of every `WINDOW` hashes only the smallest is kept, which two files that
share a long enough stretch cannot both avoid (Schleimer, Wilkerson and Aiken, "Winnowing: local algorithms
for document fingerprinting", 2003).  What the stub gives to everybody does not count.  A small task has few
right solutions, so a high figure is a reason to read two files, and never a verdict.
"""

from __future__ import annotations

import ast
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from dojo import stubs
from dojo.curriculum import Kata
from dojo.grading.submissions import Submission

RUN, WINDOW = 12, 6
ENOUGH = 12  # prints of its own that a file needs; with fewer, any two solutions look alike
SHOWN = 0.6
REFERENCE = "reference/"


@dataclass(frozen=True)
class Pair:
    """Two submissions whose files for a kata share a part of their prints: `share` of the smaller one."""

    kata: str
    one: str
    other: str
    share: float
    common: int


def alike(submissions: Sequence[Submission], katas: Sequence[Kata], least: float = SHOWN) -> list[Pair]:
    """Pairs that share at least that part, the most alike first; the reference is one of the class."""
    pairs: list[Pair] = []
    for kata in katas:
        given = prints(stubs.implied(kata.reference).encode())
        of = {s.name: prints(s.files[kata.name]) - given for s in submissions if kata.name in s.files}
        of[REFERENCE] = prints(kata.reference.read_bytes()) - given
        pairs += _pairs(kata, of, least)
    return sorted(pairs, key=lambda pair: (-pair.share, -pair.common, pair.kata, pair.one, pair.other))


def _pairs(kata: Kata, of: Mapping[str, set[int]], least: float) -> Iterator[Pair]:
    """Every pair, by its prints as bits: a class of 500 has 125,000 pairs a kata."""
    bits: dict[int, int] = {}
    masks = {
        name: sum(1 << bits.setdefault(mark, len(bits)) for mark in marks)
        for name, marks in sorted(of.items())
        if len(marks) >= ENOUGH
    }
    for (one, mine), (other, theirs) in combinations(masks.items(), 2):
        common = (mine & theirs).bit_count()
        share = common / min(mine.bit_count(), theirs.bit_count())
        if share >= least:
            yield Pair(kata.number, one, other, share, common)


def prints(source: bytes) -> set[int]:
    """The fingerprints of a file; none if it cannot be parsed, or nests too deep, as a sum of 2,000 terms."""
    found: set[int] = set()
    try:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found |= _winnowed(list(_shape(node.body)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    return found


def _winnowed(shape: Sequence[str]) -> set[int]:
    hashes = [
        zlib.crc32(" ".join(shape[start : start + RUN]).encode()) for start in range(len(shape) - RUN + 1)
    ]
    return {
        min(hashes[start : start + WINDOW]) for start in range(max(1, len(hashes) - WINDOW + 1)) if hashes
    }


def _shape(body: Sequence[ast.stmt]) -> Iterator[str]:
    """The kinds of nodes in the order of the text; a nested function is a word, and has its own prints."""
    for statement in body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a docstring, or a string that comments
        yield from _kinds(statement)


def _kinds(node: ast.AST) -> Iterator[str]:
    yield type(node).__name__
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.expr_context, ast.Constant, ast.Name)):
            yield from _kinds(child)
