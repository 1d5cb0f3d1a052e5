"""The mutants of a source: which there are, which there are not, and names that last."""

from __future__ import annotations

import ast
import textwrap

import pytest

from dojo.authoring.mutants import Mutants, mutants_of


def mutants(source: str) -> Mutants:
    return mutants_of(textwrap.dedent(source))


def ids(source: str) -> list[str]:
    return [mutant.id for mutant in mutants(source).all]


def body(line: str) -> list[str]:
    """The mutants of one statement in a function f, without those that drop or empty the statement."""
    found = ids(f"def f(a, b, n):\n    {line}\n")
    return [name.removeprefix("f: ") for name in found if not name.endswith(("-> pass", "-> return None"))]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("return a + b", ["a + b -> a - b"]),
        ("return a @ b", ["a @ b -> a * b"]),
        ("return a ** n", ["a ** n -> a * n"]),
        ("return a < b", ["a < b -> a <= b", "a < b -> a >= b"]),
        ("return a == b", ["a == b -> a != b"]),
        ("return a is None", ["a is None -> a is not None"]),
        ("return a and b", ["a and b -> a or b"]),
        ("return not a", ["not a -> a"]),
        ("return -a", ["-a -> a"]),
        ("return a.sum(axis=1)", ["a.sum(axis=1) -> a.sum()", "a.sum(axis=1) -> a.sum(axis=2)"]),
        (
            "return a.sum(-1)",
            ["a.sum(-1) -> a.sum(1)", "a.sum(-1) -> a.sum(0)"],
        ),
        ("return a.sum(keepdims=True)", ["a.sum(keepdims=True) -> a.sum(keepdims=False)"]),
        ("return g(a, b)", ["g(a, b) -> g(b, a)"]),
        ("return max(a, b)", ["max(a, b) -> min(a, b)"]),
        ("return a[n:]", ["a[n:] -> a[:]"]),
        ("return a if n else b", ["a if n else b -> a", "a if n else b -> b"]),
        ("return [x for x in a if x]", ["[x for x in a if x] -> [x for x in a]"]),
        ("a += b", ["a += b -> a -= b", "a += b -> a = b"]),
        ("while n: g()", ["while n: -> while False:"]),
        ("for x in a: g()", ["for x in a: -> for x in ():"]),
        ("if n: g()", ["if n: -> if True:", "if n: -> if False:"]),
        ("return 2.5 * a", ["2.5 * a -> 2.5 / a", "2.5 * a -> 3.5 * a"]),
    ],
)
def test_each_kind_of_change(line: str, expected: list[str]) -> None:
    assert body(line) == expected


def test_statements_are_dropped_and_results_lost() -> None:
    assert ids("def f(a):\n    a.g = 1\n    a.h()\n    return a\n")[:3] == [
        "f: a.g = 1 -> pass",
        "f: a.g = 1 -> a.g = 2",
        "f: a.h() -> pass",
    ]
    assert ids("def f(a):\n    return a\n") == ["f: return a -> return None"]
    assert ids("def f(a):\n    for x in a:\n        break\n")[1:] == ["f: break -> continue"]


def test_raising_counts_but_not_its_words() -> None:
    assert ids('def f(a):\n    raise ValueError(f"{a} is not {1 + 1}", 2 * "x")\n') == [
        "f: raise ValueError(...) -> pass"
    ]


def test_docstrings_annotations_text_and_what_is_for_checkers_stay() -> None:
    source = '''
    """A module."""

    from typing import TYPE_CHECKING, TypeVar, overload

    T = TypeVar("T", bound=int)
    __all__ = ["f", "g"]
    if TYPE_CHECKING:
        X = 1

    @overload
    def g(a: int = 1) -> int: ...


    def f(a: "Literal[1]", *, b: "Literal[2]") -> "Literal[3]":
        """Add 1 + 1."""
        c: "Literal[4]"
    '''
    assert ids(source) == []


def test_text_is_not_pulled_apart() -> None:
    assert body("return 'a' + f'{b + 1}' + 'c'") == []
    assert body("warn('text', stacklevel=2)") == []


def test_what_a_case_matches_is_changed_too() -> None:
    source = "def f(a):\n    match a:\n        case [1, x] if x > a:\n            g()\n"
    assert ids(source) == [
        "f: case [1, x] if x > a: -> case [2, x] if x > a:",
        "f: x > a -> x >= a",
        "f: x > a -> x <= a",
        "f: g() -> pass",
    ]


def test_ids_last_when_lines_move_and_repeats_are_numbered() -> None:
    source = "class A:\n    def f(self, x):\n        return g(x + 1, x + 1)\n"
    found = ids(source)
    assert "A.f: x + 1 -> x - 1" in found
    assert "A.f: x + 1 -> x - 1 #2" in found
    assert len(set(found)) == len(found)
    assert ids("import os\n\n\n# more above\n" + source) == found


def test_what_runs_at_import_names_no_function() -> None:
    found = {
        mutant.id: [name for name, _ in mutant.functions]
        for mutant in mutants(
            """
            LIMIT = 3

            class A:
                size = 4

                @cached(5)
                def f(self, axis=6, *, keep: bool = False):
                    def inner():
                        return 7
                    return inner, lambda x: x + 8
            """
        ).all
    }
    outside = [name for name, functions in found.items() if not functions]
    assert outside == [
        "module: LIMIT = 3 -> LIMIT = 4",
        "A: size = 4 -> pass",
        "A: size = 4 -> size = 5",
        "A.f: cached(5) -> cached(6)",
        "A.f: axis=6 -> axis=7",
        "A.f: keep=False -> keep=True",
    ]
    assert found["A.f.inner: return 7 -> return 8"] == ["f", "inner"]
    assert found["A.f: x + 8 -> x + 9"] == ["f", "<lambda>"]


def test_lines_are_those_of_the_statement_or_of_its_head() -> None:
    found = mutants("def f(a):\n    if (a >\n            1):\n        g(a,\n          2)\n").all
    lines = {mutant.id: list(mutant.lines) for mutant in found}
    assert lines["f: a > 1 -> a >= 1"] == [2, 3]
    assert lines["f: g(a, 2) -> g(a, 3)"] == [4, 5]


def test_planting_changes_the_module_and_removing_restores_it() -> None:
    found = mutants(
        """
        def f(a, b=1):
            if a < b and not -a:
                a += [x for x in b if x][1:]
            return g(a, b, axis=-1)
        """
    )
    before = ast.unparse(found.tree)
    texts = set()
    for mutant in found.all:
        mutant.plant()
        compile(found.tree, "f", "exec")
        texts.add(ast.unparse(found.tree))
        mutant.remove()
        assert ast.unparse(found.tree) == before
    assert len(found.all) == 19
    assert before not in texts, "a mutant changes nothing"
    assert len(texts) == len(found.all), "two mutants are the same"
