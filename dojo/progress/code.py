"""A hash of what a Python file does, whatever it says about it."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_hash(path: Path) -> str:
    """16 hex digits that stay as they are if only comments, docstrings or line breaks of `path` change.

    Empty if there is no such file or it is not Python.  The digits are the same for all versions of Python.
    """
    try:
        words: list[str] = []
        _describe(ast.parse(path.read_bytes()), words)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return ""
    return hashlib.sha256("\n".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _describe(item: object, words: list[str]) -> None:
    """Add words for a node, a list of nodes, or a value.

    Fields that are empty are left out: a new version of Python brings new ones.
    """
    if isinstance(item, ast.AST):
        words.append(type(item).__name__)
        for name, value in ast.iter_fields(item):
            if (
                name == "body"
                and isinstance(item, WITH_DOCSTRING)
                and ast.get_docstring(item, clean=False) is not None
            ):
                value = value[1:]
            if value is not None and value != [] and name not in ("kind", "type_comment", "type_ignores"):
                words.append(name)
                _describe(value, words)
        words.append(".")
    elif isinstance(item, list):
        for one in item:
            _describe(one, words)
    else:
        words.append(repr(item))
