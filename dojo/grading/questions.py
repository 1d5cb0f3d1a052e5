"""What a kata's strict.py asks, for the grader: its checks, what travels, whether a reply is right."""

from __future__ import annotations

import ast
import functools
import hashlib
import hmac
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dojo import compose
from dojo.curriculum import Kata
from dojo.strict import Check

if TYPE_CHECKING:
    import numpy as np

TRAVELLING = ("bool", "int64", "float32", "float64")

_LOADING = threading.Lock()


def checks_of(kata: Kata) -> tuple[Check, ...]:
    """The checks of `kata`, loaded once."""
    with _LOADING:
        return _loaded(kata.path / "strict.py")


@functools.cache
def _loaded(file: Path) -> tuple[Check, ...]:
    checks: tuple[Check, ...] = compose.load_file(file).CHECKS
    return checks


def what_travels(file: Path) -> str:
    """The imports and the `run_...` functions of a strict.py, as source, and nothing else of it.

    `dojo.strict` itself stays behind: the worker has no dojo.
    """
    tree = ast.parse(file.read_text("utf-8"), str(file))
    kept: list[ast.stmt] = [node for node in tree.body if _goes_along(node)]
    return ast.unparse(ast.Module(body=kept, type_ignores=[])) + "\n"


def _goes_along(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return not (node.module or "").startswith("dojo")
    return isinstance(node, ast.Import) or (
        isinstance(node, ast.FunctionDef) and node.name.startswith("run_")
    )


def rng_for(secret: bytes, kata: Kata, check: Check, draw: int) -> np.random.Generator:
    """The generator of one draw: the same for a whole class, and not to be guessed without the secret."""
    import numpy as np

    name = f"{kata.number}|{check.name}|{draw}".encode()
    return np.random.default_rng(int.from_bytes(hmac.digest(secret, name, hashlib.sha256), "big"))


def unfit(array: Any) -> str:
    """Why an array cannot travel; empty if it can."""
    import numpy as np

    if type(array) is np.ndarray and str(array.dtype) in TRAVELLING:
        return ""
    return f"only arrays of {', '.join(TRAVELLING)} travel, not {getattr(array, 'dtype', type(array))}"


def difference(check: Check, got: np.ndarray, expected: np.ndarray) -> str:
    """What is wrong with a reply; empty if it is right."""
    import numpy as np

    if (got.shape, got.dtype) != (expected.shape, expected.dtype):
        return f"{got.dtype}{list(got.shape)} came back, not {expected.dtype}{list(expected.shape)}"
    if expected.dtype.kind == "f":
        same = np.isclose(got, expected, rtol=check.rtol, atol=check.atol, equal_nan=True)
    else:
        same = np.asarray(got == expected)
    if same.all():
        return ""
    place = np.unravel_index(int(np.argmin(same)), same.shape)
    where = f", at {[int(i) for i in place]}" if place else ""
    return f"{got[place]} came back, not {expected[place]}{where}"
