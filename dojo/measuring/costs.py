"""What numpy's operations cost, in floating-point operations, from names and shapes alone.

A copy costs none (it moves bytes); one output element of `a + b` costs one; one element that a sum reads
costs one; a matrix product 2mnk.  What is not listed costs one for each element of its largest array, and
linear algebra is an estimate.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Functions that say something about arrays, and do nothing to them.
FREE = _words(
    "shape ndim size result_type can_cast min_scalar_type common_type may_share_memory shares_memory "
    "iscomplexobj isrealobj broadcast_shapes einsum_path array_repr array_str array2string"
)
# Functions that move elements without computing anything.
COPIES = _words(
    "concatenate stack vstack hstack dstack column_stack block append insert delete pad copy copyto tile "
    "repeat roll flip rot90 take take_along_axis put put_along_axis place putmask fill_diagonal compress "
    "zeros_like ones_like empty_like full_like tril triu broadcast_arrays meshgrid resize"
)
# Functions that numpy carries out by calling the array's own method, which is counted there.
BY_METHOD = _words(
    "sum prod mean std var max amax min amin any all cumsum cumprod argmax argmin argsort clip "
    "take repeat reshape transpose swapaxes squeeze ravel nonzero searchsorted argpartition compress"
)
_MATRIX = _words("inv solve det slogdet qr cholesky svd eig eigh eigvals eigvalsh lstsq pinv")


def matmul(a: Sequence[int], b: Sequence[int]) -> int:
    """2mnk for shapes (..., m, k) and (..., k, n); a vector counts as one row or column."""
    inner = a[-1]
    rows, columns = (a[-2] if len(a) > 1 else 1), (b[-1] if len(b) > 1 else 1)
    batch: int = 1
    for m, n in itertools.zip_longest(a[-3::-1], b[-3::-1], fillvalue=1):
        batch *= n if m == 1 else m
    return 2 * batch * rows * columns * inner


def dot(a: Array, b: Array) -> int:
    """np.dot: for n-d arrays every row of `a` with every column of `b`."""
    if a.ndim == 0 or b.ndim == 0:
        return max(a.size, b.size)
    return int(2 * a.size * (b.size // b.shape[-2 if b.ndim > 1 else -1]))


def einsum(args: Sequence[Any]) -> int:
    """For k operands, k operations at every point of the space of all indices (as written, not optimised).

    A single operand costs one a point if anything is summed, else nothing.
    """
    if isinstance(args[0], str):
        text, operands = args[0].replace(" ", ""), args[1:]
        sources, arrow, target = text.partition("->")
        terms: list[Any] = sources.split(",")
        output: Any = target if arrow else None
    else:
        terms = list(args[1::2])
        operands = args[0 : 2 * len(terms) : 2]
        output = args[-1] if len(args) % 2 else None
    sizes: dict[Hashable, int] = {}
    for term, operand in zip(terms, operands, strict=True):
        for label, n in zip(_labels(term, operand.ndim), operand.shape, strict=True):
            sizes[label] = max(n, sizes.get(label, 1))
    points = math.prod(sizes.values())
    if len(terms) > 1:
        return len(terms) * points
    if output is None:  # then an index that is named once is kept
        output = [label for label, times in Counter(_named(terms[0])).items() if times == 1]
    # The axes that `...` stands for, whose labels are pairs, are always kept.
    kept = math.prod(n for label, n in sizes.items() if isinstance(label, tuple) or label in output)
    return points if kept < points else 0


def _named(term: Any) -> Iterator[Hashable]:
    return (label for label in term if label not in (".", Ellipsis))


def _labels(term: Any, ndim: int) -> list[Hashable]:
    """One label for each axis; the axes that `...` stands for are counted from the right."""
    parts = list(term.replace("...", ".")) if isinstance(term, str) else list(term)
    hidden = ndim - sum(1 for _ in _named(parts))
    labels: list[Hashable] = []
    for part in parts:
        if part in (".", Ellipsis):
            labels += [("...", i) for i in range(hidden, 0, -1)]
        else:
            labels.append(part)
    return labels


def function(name: str, args: Sequence[Any], arrays: Sequence[Array], results: Sequence[Array]) -> int:
    """The cost of a numpy function that is not a ufunc, from its arguments and all arrays in and out."""
    largest = max((a.size for a in (*arrays, *results)), default=0)
    if name in FREE or name in COPIES or not arrays:
        return 0
    if name == "einsum":
        return einsum(args)
    first = arrays[0]
    if name in ("dot", "inner", "vdot", "tensordot") and len(arrays) > 1:
        return _product(name, first, arrays[1], results)
    if name in ("convolve", "correlate"):
        return 2 * first.size * arrays[1].size
    if name in ("sort", "argsort", "partition", "argpartition", "lexsort", "unique", "median", "quantile"):
        return sort(first.size, first.shape[-1] if first.ndim else 1)
    if name in _MATRIX:
        return int(2 * first.size * min(first.shape[-2:]))
    if name == "norm":
        return 2 * first.size
    return largest


def _product(name: str, a: Array, b: Array, results: Sequence[Array]) -> int:
    if name == "dot":
        return dot(a, b)
    if name == "inner":
        return 2 * a.size * (b.size // b.shape[-1]) if a.ndim and b.ndim else max(a.size, b.size)
    if name == "vdot":
        return 2 * a.size
    produced = results[0].size if results else 1
    # With m*k, k*n and m*n elements, the square root of the quotient is the length that was summed over.
    return 2 * produced * math.isqrt(a.size * b.size // produced) if produced else 0


def sort(size: int, along: int) -> int:
    """n log2 n comparisons for every row of n."""
    return size * max(1, math.ceil(math.log2(max(along, 2))))


def touched(array: Any) -> int:
    """Bytes of memory behind an array: a broadcast axis (stride 0) is read once."""
    if not isinstance(array, np.ndarray):
        return int(getattr(array, "nbytes", 0))
    there = math.prod(n for n, step in zip(array.shape, array.strides, strict=True) if step or n == 0)
    return int(there * array.itemsize)
