"""What the suites compare with, and what a learner reads when the answer is wrong.

    expect(total(x, axis=1), [3.0, 12.0])
    with expect_error(ValueError, "(2, 3)", "(4,)"):
        add(a, b)

The plugin shows the failing statement and the values in it; the messages here say what came back, what was
expected, which element is worst and, where the difference has a known shape, what it looks like.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Number
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# Relative to the largest element, by the coarser dtype of the two.  Legitimate orders of summation differ by
# a few eps * sqrt(n), which for the n <= 10,000 of our tests is 7e-14 in float64 and 4e-5 in float32 at most.
TOLERANCES = {"float64": 1e-10, "complex128": 1e-10, "float32": 1e-4, "complex64": 1e-4, "float16": 1e-1}


def expect(got: Any, expected: Any, *, rtol: float | None = None, atol: float | None = None) -> None:
    """Fail unless `got` is `expected`.

    A Tensor stands for its `.data`.  Shapes must be equal; dtypes too, where `expected` is an array.  Floats
    may differ by `atol + rtol * |expected|`; by default `rtol` follows from the dtypes, and `atol` is `rtol`
    of the largest element.  nan equals nan.  Everything that is not a float must be equal.

    Raises:
        AssertionError: what came back, what was expected, the worst element, and what it looks like.
    """
    __tracebackhide__ = True
    if problem := difference(got, expected, rtol, atol):
        raise AssertionError(problem)


@contextmanager
def expect_error(kind: type[Exception], *mentions: str) -> Iterator[None]:
    """Fail unless the block raises `kind`, with a message that contains every one of `mentions`.

    Spaces and capitals in the message do not count.  A stub's NotImplementedError passes through.
    """
    __tracebackhide__ = True
    wanted = f"{kind.__name__}" + (f" that mentions {_and(mentions)}" if mentions else "")
    try:
        yield
    except NotImplementedError:
        raise
    except kind as error:
        said = _squeeze(str(error))
        if missing := [mention for mention in mentions if _squeeze(mention) not in said]:
            raise AssertionError(
                f"raised     {type(error).__name__}: {error}\nexpected   {wanted}\n"
                f"the error is of the right kind, but its message does not mention {_and(missing)}"
            ) from None
        return
    except Exception as error:
        raise AssertionError(f"raised     {type(error).__name__}: {error}\nexpected   {wanted}") from error
    raise AssertionError(f"raised     nothing\nexpected   {wanted}")


def difference(got: Any, expected: Any, rtol: float | None = None, atol: float | None = None) -> str | None:
    """In words, how `got` is not `expected`; None if it is."""
    import numpy as np

    actual, wanted = _unwrap(got), _unwrap(expected)
    if isinstance(wanted, (list, tuple)) and isinstance(actual, (list, tuple)):
        return _sequence_difference(actual, wanted, rtol, atol)
    if isinstance(wanted, (np.ndarray, list)) or isinstance(actual, np.ndarray):
        if not isinstance(actual, (np.ndarray, np.generic, Number)):
            return _report(got, expected, f"that is a {type(got).__name__}, not an array")
        same_dtype = isinstance(wanted, np.ndarray)
        return _array_difference(np.asarray(actual), np.asarray(wanted), same_dtype, rtol, atol)
    if isinstance(wanted, (float, np.floating)) and _is_real(actual):
        wrong = _array_difference(np.asarray(actual), np.asarray(wanted), False, rtol, atol)
        return _report(got, expected) if wrong else None
    if isinstance(wanted, (bool, np.bool_)) != isinstance(actual, (bool, np.bool_)):
        return _report(got, expected, f"that is a {type(got).__name__}")
    return None if bool(actual == wanted) else _report(got, expected)


def _sequence_difference(got: Any, expected: Any, rtol: float | None, atol: float | None) -> str | None:
    if isinstance(got, tuple) != isinstance(expected, tuple):
        return _report(got, expected, f"that is a {type(got).__name__}")
    if len(got) != len(expected):
        return _report(got, expected, f"{len(got)} items instead of {len(expected)}")
    for index, (one, other) in enumerate(zip(got, expected, strict=True)):
        if problem := difference(one, other, rtol, atol):
            return f"{_report(got, expected)}\nat index {index}:\n{_indent(problem)}"
    return None


def _array_difference(
    got: np.ndarray, expected: np.ndarray, same_dtype: bool, rtol: float | None, atol: float | None
) -> str | None:
    import numpy as np

    if got.shape != expected.shape:
        return _report(
            got, expected, f"shape {got.shape} instead of {expected.shape}", *_looks(got, expected)
        )
    if same_dtype and got.dtype != expected.dtype:
        return _report(got, expected, f"dtype {got.dtype} instead of {expected.dtype}")
    if expected.dtype.kind not in "fc" and got.dtype.kind not in "fc":
        wrong = got != expected
        if not np.any(wrong):
            return None
        where = np.unravel_index(np.argmax(wrong), got.shape)
        return _report(got, expected, _worst(got, expected, where, wrong), *_looks(got, expected))
    if rtol is None:
        rtol = max(TOLERANCES.get(str(a.dtype), 0.0) for a in (got, expected))
    finite = expected[np.isfinite(expected)]
    if atol is None:
        atol = rtol * float(np.max(np.abs(finite), initial=0.0))
    with np.errstate(all="ignore"):
        off = np.abs(np.subtract(got, expected, dtype=np.result_type(got, expected, np.float64)))
        wrong = ~((off <= atol + rtol * np.abs(expected)) | (got == expected))
        wrong &= ~(np.isnan(got) & np.isnan(expected))
        wrong |= np.isinf(expected) & (got != expected)
    if not np.any(wrong):
        return None
    rank = np.where(wrong, np.where(np.isnan(off), np.inf, off), -1.0)
    where = np.unravel_index(np.argmax(rank), got.shape)
    return _report(got, expected, _worst(got, expected, where, wrong), *_looks(got, expected))


def _looks(got: np.ndarray, expected: np.ndarray) -> list[str]:
    """What the difference looks like, if it is one of the usual ones."""
    import numpy as np

    if got.dtype.kind not in "fiu" or expected.dtype.kind not in "fiu" or expected.size < 2:
        return []

    def same(a: np.ndarray, b: np.ndarray) -> bool:
        return a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)

    a, b = got.astype(np.float64), expected.astype(np.float64)
    if a.ndim >= 2 and same(np.swapaxes(a, -1, -2), b):
        return ["it looks transposed: the last two axes are swapped"]
    if a.shape != b.shape:
        if a.size == b.size and same(a.ravel(), b.ravel()):
            return ["the values are right; only the shape is not"]
        return []
    if same(-a, b):
        return ["it looks negated: every sign is the other way round"]
    for axis in range(a.ndim):
        if same(np.flip(a, axis), b):
            return [f"it looks reversed along axis {axis}"]
    if a.ndim >= 2 and same(a.ravel(order="F").reshape(a.shape), b):
        return ["the elements are right but run down columns where they should run along rows"]
    return _scaled(a, b)


def _scaled(a: np.ndarray, b: np.ndarray) -> list[str]:
    """A constant factor or a constant offset between two float64 arrays of one shape."""
    import numpy as np

    there = (b != 0) & np.isfinite(a) & np.isfinite(b)
    if np.any(there) and np.array_equal(a[~there], b[~there], equal_nan=True):
        factor = float(np.median(a[there] / b[there]))
        # A factor so near 1 would be rounding, told as if it were a mistake.
        telling = factor != 0 and abs(factor - 1) > 1e-3
        if telling and np.allclose(a[there], factor * b[there], rtol=1e-4, atol=0):
            return [f"every element is {factor:.6g} times what it should be"]
    offset = a - b
    if np.all(np.isfinite(offset)) and np.ptp(offset) <= 1e-4 * np.max(np.abs(offset), initial=0):
        by = float(offset.flat[0])
        return [f"every element is {abs(by):.6g} too {'large' if by > 0 else 'small'}"]
    return []


def _worst(got: np.ndarray, expected: np.ndarray, where: tuple[Any, ...], wrong: np.ndarray) -> str:
    a, b = got[where].item(), expected[where].item()
    at = f"at [{', '.join(str(int(i)) for i in where)}] " if where else ""
    off = ""
    if isinstance(a, (int, float)) and isinstance(b, (int, float)) and not isinstance(b, bool):
        off = f", off by {abs(a - b):.3g}" if math.isfinite(a) and math.isfinite(b) else ""
    count = f"; {int(wrong.sum())} of {wrong.size} elements differ" if wrong.size > 1 else ""
    return f"{'worst ' if wrong.size > 1 else ''}{at}{a!r} instead of {b!r}{off}{count}"


def _report(got: Any, expected: Any, *remarks: str) -> str:
    lines = [hang("came back  ", show(got)), hang("expected   ", show(expected)), *filter(None, remarks)]
    return "\n".join(lines)


LARGE = 64  # elements; of a larger array, the numbers say less than the shape


def show(value: Any, width: int = 90, *, brief: bool = False) -> str:
    """`value` in a few lines: an array abridged, with its dtype and shape; anything else by its repr.

    `brief` leaves out the numbers of a large array, and what does not fit on two lines.
    """
    import numpy as np

    array = _unwrap(value)
    if not isinstance(array, np.ndarray):
        text, most = repr(value), (2 if brief else 4) * width
        return text if len(text) <= most else text[:most] + "..."
    if brief and array.size > LARGE:
        return f"{array.dtype}, shape {array.shape}"
    text = np.array2string(array, threshold=24, edgeitems=3, max_line_width=width, separator=", ")
    return f"{text}  {array.dtype}, shape {array.shape}"


def hang(label: str, text: str) -> str:
    """`text` after `label`, its further lines below its first."""
    return label + text.replace("\n", "\n" + " " * len(label))


def _unwrap(value: Any) -> Any:
    """The array inside a Tensor (known by its `.data`, whatever module it came from); else `value`."""
    import numpy as np

    if isinstance(value, (np.ndarray, np.generic)):
        return value
    inside = getattr(value, "data", None)
    return inside if isinstance(inside, np.ndarray) else value


def _is_real(value: Any) -> bool:
    import numpy as np

    real = isinstance(value, (int, float, np.integer, np.floating))
    return real and not isinstance(value, bool)


def _squeeze(text: str) -> str:
    return "".join(text.split()).lower()


def _and(words: Any) -> str:
    return " and ".join(map(repr, words))


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())
