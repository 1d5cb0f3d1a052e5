"""The examples of a lesson are run, and one that lies is named."""

from __future__ import annotations

import pytest

from tests.conftest import Course

LESSON = """\
# 01

```python
>>> double(2)
4
>>> shout("a")
{answer}
```

More words.

```python
>>> double(None)
Traceback (most recent call last):
    ...
TypeError: unsupported operand type(s) for +: 'NoneType' and 'NoneType'
```
"""

ASK = """
from dojo.authoring.examples import example_problems
from dojo.curriculum import find
print(example_problems(find("01")))
"""


@pytest.mark.parametrize(
    ("answer", "says"),
    [("'A'", "[]"), ("'B'", 'README.md:6: `shout("a")` gives "\'A\'", not "\'B\'"')],
    ids=["right", "wrong"],
)
def test_an_example_is_what_happens(course: Course, answer: str, says: str) -> None:
    course.write("katas/01_setup/README.md", LESSON.format(answer=answer))
    run = course.python("-c", ASK)
    assert says in run.stdout.replace("\\", ""), run.stdout + run.stderr


def test_an_example_that_raises_is_named(course: Course) -> None:
    course.write("katas/01_setup/README.md", LESSON.format(answer="'A'").replace("double(2)", "doubel(2)"))
    assert "NameError" in course.python("-c", ASK).stdout
