"""Which task a failure is about, where several could be meant."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dojo.curriculum import BY_NUMBER
from dojo.plugin import explain
from dojo.plugin.about import task_of_failure
from dojo.plugin.explain import Frame

NOWHERE: Any = SimpleNamespace(function=None)  # a test without a heading or parameters


@pytest.mark.parametrize(
    ("steps", "task"),
    [
        (["Optimizer.load_state_dict"], "08.7 Optimizer.load_state_dict"),
        (
            ["SequentialLR.load_state_dict", "LRScheduler.load_state_dict"],
            "08.15 LRScheduler.load_state_dict",
        ),
        (["Optimizer.load_state_dict", "checked"], "08.7 Optimizer.load_state_dict"),
        (["checked"], ""),
    ],
)
def test_the_innermost_task_on_the_way_to_an_exception_is_meant(steps: list[str], task: str) -> None:
    assert task_of_failure(BY_NUMBER["08"], NOWHERE, steps, []) == task


def test_a_class_that_refuses_nothing_means_its_init() -> None:
    named = ["expect_error", "ValueError", "Conv2d"]
    assert task_of_failure(BY_NUMBER["07"], NOWHERE, [], named) == "07.12 Conv2d.__init__"


@pytest.mark.parametrize("statement", ["f = Normalize([0.5], [0.5])(x)", "assert f(x).dtype == 'float32'"])
def test_an_object_that_is_called_means_its_call(statement: str, tmp_path: Path) -> None:
    class Normalize: ...

    file = tmp_path / "test_1.py"
    file.write_text(statement)
    named = list(explain._calls(Frame(file, 1, "test", {"f": Normalize()})))
    assert task_of_failure(BY_NUMBER["09"], NOWHERE, [], ["Normalize", *named]) == "09.12 Normalize.__call__"


def test_an_operation_in_the_statement_means_its_rule() -> None:
    assert task_of_failure(BY_NUMBER["06"], NOWHERE, [], ["gradients", "power"]) == "06.2 power_back"


@pytest.mark.parametrize(
    ("line", "name"), [(2, "alone"), (6, "Adam.step"), (8, "Adam.step"), (10, "Adam"), (12, "<module>")]
)
def test_a_step_is_named_by_its_class_and_method(line: int, name: str, tmp_path: Path) -> None:
    file = tmp_path / "stub.py"
    file.write_text(
        "def alone():\n    1 / 0\n\nclass Adam:\n"
        "    def step(self):\n        1 / 0\n        def inside():\n            1 / 0\n"
        "\n    rate = 1 / 0\n\n1 / 0\n"
    )
    assert Frame(file, line, "<module>", {}).qualified == name
