"""Facts that stand in two places say the same thing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from dojo.curriculum import KATAS, MILESTONES, PHASES, REFERENCE, ROOT, before, find


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def dependencies() -> set[str]:
    """The requirements in pyproject.toml (Python 3.10 has no tomllib)."""
    block = re.search(r"^dependencies = (\[.*?\])", text("pyproject.toml"), re.MULTILINE | re.DOTALL)
    assert block is not None
    return set(ast.literal_eval(block[1]))


def test_kata_01_checks_what_the_project_requires() -> None:
    tree = ast.parse((REFERENCE / "setup.py").read_text("utf-8"))
    (value,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "REQUIREMENTS"
    )
    assert set(ast.literal_eval(value)) == dependencies()


def test_the_readme_has_the_commands_that_ci_types() -> None:
    lines = text("README.md").splitlines()
    assert sum(line.startswith("python3 -m venv") for line in lines) == 2


def test_the_course_has_twenty_katas_in_four_phases() -> None:
    assert [kata.number for kata in KATAS] == [f"{n:02}" for n in range(1, 21)]
    assert {kata.phase for kata in KATAS} == set(PHASES)
    assert [milestone.after for milestone in MILESTONES] == ["05", "10", "15", "20"]


def test_a_kata_needs_only_earlier_ones() -> None:
    for kata in KATAS:
        assert set(kata.needs) <= {earlier.number for earlier in before(kata)}


def test_a_kata_is_found_by_any_of_its_names() -> None:
    names = [
        "6",
        "06",
        "06.3",
        "autograd",
        "06_autograd",
        "katas/06_autograd/",
        "stubs/tinytorch/autograd.py",
    ]
    assert {find(name).number for name in names} == {"06"}


def test_every_written_kata_has_all_its_parts() -> None:
    for kata in filter(lambda k: k.written, KATAS):
        for part in ("README.md", "hints.md", "probes.py", "strict.py", "test_1_*.py"):
            assert list(kata.path.glob(part)), f"{kata}: {part}"
        assert Path(kata.stub).is_file()


def test_the_mistake_that_contributors_are_shown_is_there() -> None:
    page = text("CONTRIBUTING.md")
    (file, name) = re.findall(r"^MISTAKE=(\S+)::(\w+)$", page, re.MULTILINE)[0]
    (shown,) = re.findall(rf"^@caught_by\(1\)\ndef {name}\(m\):\n(?:    .*\n)+", page, re.MULTILINE)
    assert shown in text(file)


def test_benchmarks_have_what_they_take_of_each_other() -> None:
    """They are run by hand, so nothing else would notice."""
    trees = {file.stem: ast.parse(file.read_text("utf-8")) for file in (ROOT / "benchmarks").glob("*.py")}
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("benchmarks."):
                other = trees[node.module.removeprefix("benchmarks.")] if node.module else tree
                taken = {alias.name for alias in node.names}
                assert taken <= made_at_the_top_of(other), f"benchmarks/{name}.py takes from {node.module}"


def made_at_the_top_of(tree: ast.Module) -> set[str]:
    """The names that a module defines or assigns; what it imports itself is not its own to give."""
    made = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            made.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            made |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return made
