"""The framework you are building, as far as you have built it.

Each module is one kata's work: `tinytorch.tensor` is stubs/tinytorch/tensor.py, your own file.
`from tinytorch import Tensor` works for whatever is unlocked; a name from a kata that you have not reached
raises LockedError, which says where it is built and what to type next.
"""

from typing import Any

from dojo import compose

compose.install()


def __getattr__(name: str) -> Any:
    return compose.export(name)


def __dir__() -> list[str]:
    return sorted([*globals(), *compose.exports()])
