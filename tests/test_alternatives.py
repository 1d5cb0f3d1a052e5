"""What a stub gives complete, other right solutions have too: later katas lean on it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from dojo import stubs
from dojo.authoring.checks import alternatives
from dojo.curriculum import find

TENSOR = find("02")


def definitions(text: str) -> dict[str, str]:
    """The source of every function, and of every method as `Class.method`."""
    found = {}
    for node in ast.parse(text).body:
        body = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for one in body:
            if isinstance(one, ast.FunctionDef):
                found[prefix + one.name] = ast.unparse(one)
    return found


def given() -> dict[str, str]:
    """Those that nobody has to write."""
    stub = stubs.stub_text(TENSOR.reference.read_text("utf-8"), str(TENSOR.reference))
    return {name: text for name, text in definitions(stub).items() if "NotImplementedError('kata" not in text}


def test_the_seam_is_given() -> None:
    assert {"Op.__call__", "Op.gradient", "version", "promote", "Tensor.__init__"} <= set(given())
    assert "elementwise" not in given()


@pytest.mark.parametrize("file", alternatives(TENSOR), ids=lambda file: file.stem)
def test_alternatives_have_what_is_given_word_for_word(file: Path) -> None:
    theirs = definitions(file.read_text("utf-8"))
    assert {name: theirs.get(name) for name in given()} == given()
