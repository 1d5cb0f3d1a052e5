"""Runs the examples of a kata's README against the reference: what a lesson shows is what happens.

python -m dojo.authoring.examples 02        (in a process of its own, with TINYTORCH_IMPL=reference)
"""

from __future__ import annotations

import doctest
import importlib
import re
import sys

from dojo import compose
from dojo.authoring.suites import child
from dojo.curriculum import Kata, find

FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
DIFFERENT = 3  # exit status; 1 is a crash
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def example_problems(kata: Kata) -> list[str]:
    """Each `>>>` example of the README that gives something else than it says."""
    command = ["-m", "dojo.authoring.examples", kata.number]
    status, output = child(command, **{compose.VARIABLE: "reference"})
    if status == DIFFERENT:
        return output.strip().splitlines()
    return [] if status == 0 else [f"{kata.shown}/README.md: its examples cannot be run: {output}"]


def failures(kata: Kata) -> list[str]:
    """Run the examples here, one after the other, with every name of the kata's module at hand."""
    readme = kata.path / "README.md"
    text = readme.read_text("utf-8")
    names = dict(vars(importlib.import_module(kata.module)))
    problems: list[str] = []

    class Runner(doctest.DocTestRunner):
        def report_failure(self, out: object, test: object, example: doctest.Example, got: str) -> None:
            problems.append(_problem(kata, text, example, got))

        def report_unexpected_exception(
            self, out: object, test: object, example: doctest.Example, exc_info: object
        ) -> None:
            problems.append(_problem(kata, text, example, repr(exc_info[1])))  # type: ignore[index]

    # Blank lines end an expected output, and the text between the fences is not Python.
    source = "\n\n".join(match[1] for match in FENCE.finditer(text) if ">>>" in match[1])
    test = doctest.DocTestParser().get_doctest(source, names, readme.name, str(readme), 0)
    Runner(verbose=False, optionflags=FLAGS).run(test, clear_globs=False)
    return problems


def _problem(kata: Kata, text: str, example: doctest.Example, got: str) -> str:
    line = next((n for n, one in enumerate(text.splitlines(), 1) if example.source.splitlines()[0] in one), 0)
    wanted, given = example.want.strip(), got.strip()
    where = f"{kata.shown}/README.md:{line}"
    return f"{where}: `{example.source.strip()}` gives {given!r}, not {wanted!r}"


if __name__ == "__main__":
    compose.reach()
    found = failures(find(sys.argv[1]))
    print("\n".join(found))
    sys.exit(DIFFERENT if found else 0)
