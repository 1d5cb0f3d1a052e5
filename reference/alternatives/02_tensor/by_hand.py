"""Kata 02, in another manner: by hand, with index arithmetic and loops over axes.

A `Tensor` wraps one numpy array. What can be done with tensors is written as *operations*: plain functions
from arrays to an array, which `@op` turns into functions from Tensors to a Tensor. The methods and operators
of `Tensor` only choose which operation to call.

The first part, `Op`, is given. Read it: it is the seam on which all later katas hang. Yours to write are the
layout of arrays in memory, the rules for dtypes, and the operations that take some thought.

Nothing here is called `sum`, `max`, `min`, `abs` or `pow`, so that in this file these stay Python's own: the
functions are `total`, `amax`, `amin`, `absolute` and `power`; the methods are `.sum()`, `.max()` and so on.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = [
    "Op", "Tensor", "absolute", "add", "amax", "amin", "arange", "argmax", "as_array", "as_strided",
    "broadcast_shapes", "broadcast_strides", "clip", "compare", "concatenate", "contiguous",
    "contiguous_strides", "div", "elementwise", "exp", "expand", "eye", "floating", "full", "getitem",
    "increment_version", "is_contiguous", "join", "log", "matmul", "maximum", "mean", "mul", "neg", "ones",
    "op", "permute", "power", "promote", "rand", "randn", "reshape", "resolve_shape", "result_type",
    "set_recorder", "sqrt", "squeeze", "stack", "sub", "tanh", "total", "transpose", "unsqueeze", "var",
    "version", "view", "view_strides", "where", "zeros",
]  # fmt: skip

Array = NDArray[Any]
Shape = tuple[int, ...]
Axis = int | tuple[int, ...] | None
Recorder = Callable[["Op", tuple[Any, ...], list[Any], dict[str, Any], "Tensor"], None]

# What a Tensor may hold, by numpy's letters for kinds of numbers, with their rank; and what Python's become.
KINDS = {"b": 0, "i": 1, "u": 1, "f": 2}
PYTHON = {bool: np.dtype(bool), int: np.dtype(np.int64), float: np.dtype(np.float32)}

_recorder: Recorder | None = None

# The last write over each array, by the array's id; weak references take out what is gone.
_versions: dict[int, tuple[int, weakref.ref[Array]]] = {}
_writes = 0


# Given: the seam. Nothing to write here, but every later kata leans on it.


def set_recorder(recorder: Recorder | None) -> Recorder | None:
    """Call `recorder(op, inputs, arrays, params, out)` after each op on a tensor that requires a gradient.

    So a tape (kata 05), a graph (06) or a profiler (16) can watch a computation that knows nothing of it.
    Returns the recorder it replaces, for the caller to put back.
    """
    global _recorder
    previous, _recorder = _recorder, recorder
    return previous


def increment_version(array: Array) -> int:
    """Note that the memory `array` shows was written over in place, and return the number of that write.

    A graph that kept the old numbers for its way back finds out by it, and raises an error rather than give a
    wrong gradient (kata 06). Writes are counted through the whole process, whatever they are to.
    """
    global _writes
    owner = _owner(array)
    key = id(owner)
    _writes += 1
    _versions[key] = _writes, weakref.ref(owner, lambda gone: _versions.pop(key, None))
    return _writes


def version(array: Array | None = None) -> int:
    """The number of the last write noted for the memory `array` shows, 0 for none; without array, for any."""
    if array is None:
        return _writes
    number, _ = _versions.get(id(_owner(array)), (0, None))
    return number


def _owner(array: Array) -> Array:
    """The array that owns the memory `array` shows, past its views and what as_strided puts between them."""
    owner, base = array, array.base
    while base is not None:
        owner = base if isinstance(base, np.ndarray) else owner
        base = getattr(base, "base", None)
    return owner


class Op:
    """A function on arrays that takes Tensors too, and may know its gradient.

    Arrays go in by position and parameters by keyword, as in `total(x, axis=0)`; one array comes out. Tensors
    are unwrapped, anything else is handed on as it is. An op whose way back needs a by-product (dropout its
    mask) returns `(result, mask)` and is made with `@op(saves=["mask"])`. One that writes its result over its
    first input is made with `@op(in_place=True)`, and gives back the Tensor it was given.

    Attributes:
        forward: the function on arrays.
        inputs: the names of its array arguments, in order.
        params: its keyword-only arguments and their defaults.
        pull: the gradient rule; None until one is attached with `@that_op.gradient`.
        needs: what the rule asked to keep, in its order.
    """

    def __init__(
        self, forward: Callable[..., Any], saves: Sequence[str] = (), in_place: bool = False
    ) -> None:
        functools.update_wrapper(self, forward)  # so that help(exp) and editors show the function
        arguments = inspect.signature(forward).parameters.values()
        self.name = forward.__name__
        self.forward = forward
        self.saves = tuple(saves)
        self.in_place = in_place
        self.inputs = tuple(p.name for p in arguments if p.kind is p.POSITIONAL_OR_KEYWORD)
        self.params = {p.name: p.default for p in arguments if p.kind is p.KEYWORD_ONLY}
        self.pull: Callable[..., Any] | None = None
        self.needs: tuple[str, ...] = ()
        self._position = {name: i for i, name in enumerate(self.inputs)}
        self._wants: list[tuple[str, int | None]] = []  # `needs`, each with its position if it is an input
        self._asks_what_is_wanted = False

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def __call__(self, *inputs: Any, **params: Any) -> Tensor:
        arrays, wanted = [], False
        for x in inputs:
            if isinstance(x, Tensor):
                wanted = wanted or x.requires_grad
                x = x.data
            arrays.append(x)
        recorder = _recorder if wanted else None
        if self.in_place:
            self._refuse_to_write_over(inputs[0], recorder is not None)
        if params or self.saves:
            result, params = self.run(arrays, params)
        else:  # the short way, for most calls
            result = self.forward(*arrays)
            if result.__class__ is tuple:
                self._refuse_several()
        if self.in_place:
            out: Tensor = inputs[0]
            increment_version(out.data)
        else:
            out = Tensor(result)
        # An answer in bools or integers (a < b, argmax) moves in jumps: it has no gradient.
        if recorder is not None and out.data.dtype.kind == "f":
            if self._asks_what_is_wanted:
                params["needs_input_grad"] = tuple(getattr(x, "requires_grad", False) for x in inputs)
            out.requires_grad = True
            recorder(self, inputs, arrays, params, out)
        return out

    def _refuse_to_write_over(self, x: Any, recording: bool) -> None:
        """TypeError for what is no Tensor, RuntimeError for a leaf whose gradient is being recorded."""
        if not isinstance(x, Tensor):
            raise TypeError(f"{self.name} works in place, on a Tensor, not on a {type(x).__name__}")
        if recording and x.requires_grad and x.node is None:
            raise RuntimeError(f"{self.name} would write over a leaf whose gradient is wanted: copy it first")

    def run(self, arrays: Sequence[Any], params: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Call `forward`; return its result, and `params` with what it saved added.

        TypeError for an array passed by keyword, whose gradient would get lost, and for more than one result.
        """
        if len(arrays) < len(self.inputs) and not params.keys().isdisjoint(self.inputs):
            raise TypeError(f"{self.name} takes {', '.join(self.inputs)} by position, not by keyword")
        result = self.forward(*arrays, **params)
        if self.saves:
            result, *saved = result
            params = {**params, **dict(zip(self.saves, saved, strict=True))}
        if result.__class__ is tuple:
            self._refuse_several()
        return result, params

    def _refuse_several(self) -> None:
        raise TypeError(f"{self.name} returned a tuple: an op has one result, by-products go in saves=[...]")

    def gradient(self, pull: Callable[..., Any]) -> Callable[..., Any]:
        """Attach the rule `pull(grad, ...)`, from the gradient of the output to one for each input.

        The names of its other arguments say what it needs from the forward pass: an input, `out`, a parameter
        or something in `saves`. What it does not name is not kept for it. Activations are most of the memory
        that training takes, and here is where you decide which of them stay. Two names keep no array:
        `input_shapes`, the shapes of the inputs, and `needs_input_grad`, a bool for each: where its gradient
        is not wanted, the rule may return None for it. TypeError for any other name.
        """
        _, *needs = inspect.signature(pull).parameters
        always = ("out", "needs_input_grad", "input_shapes")
        offered = (*self.inputs, *self.params, *self.saves, *always)
        if unknown := [name for name in needs if name not in offered]:
            raise TypeError(f"the gradient of {self.name} asks for {unknown}; it can have {list(offered)}")
        self.pull, self.needs = pull, tuple(needs)
        self._wants = [(name, self._position.get(name)) for name in needs]
        self._asks_what_is_wanted = "needs_input_grad" in needs
        return pull

    def keep(self, out: Array, arrays: Sequence[Any], params: dict[str, Any]) -> list[Any]:
        """What the gradient rule asked for, in its order, and nothing else. An input left out is None."""
        kept: list[Any] = []
        for name, i in self._wants:
            if i is not None:
                kept.append(arrays[i] if i < len(arrays) else None)
            elif name == "out":
                kept.append(out)
            elif name == "input_shapes":
                kept.append(tuple([x.shape if x.__class__ is np.ndarray else np.shape(x) for x in arrays]))
            else:
                kept.append(params[name] if name in params else self.params[name])
        return kept

    def vjp(self, *arrays: Any, **params: Any) -> tuple[Array, Callable[[Array], Any]]:
        """The answer on bare arrays, and the way back: from its gradient to those of the inputs.

        This vector-Jacobian product lets a rule be tested before there is an engine to call it.
        """
        if self.pull is None:
            raise TypeError(f"{self.name} has no gradient rule: write one with @{self.name}.gradient")
        result, params = self.run(arrays, params)
        params["needs_input_grad"] = (True,) * len(arrays)
        out, pull = np.asarray(result), self.pull
        kept = self.keep(out, arrays, params)
        return out, lambda grad: pull(grad, *kept)


@overload
def op(forward: Callable[..., Any]) -> Op: ...
@overload
def op(*, saves: Sequence[str] = (), in_place: bool = False) -> Callable[[Callable[..., Any]], Op]: ...
def op(
    forward: Callable[..., Any] | None = None, *, saves: Sequence[str] = (), in_place: bool = False
) -> Any:
    """Turn a function on arrays into an `Op`."""
    return Op(forward) if forward is not None else lambda f: Op(f, saves, in_place)


# Layout: where the elements of an array with many axes lie in memory, which has one. Strides count bytes.


def contiguous_strides(shape: Shape, itemsize: int) -> Shape:
    """The bytes from one element to the next along each axis, when rows lie one after the other without gaps.

    `contiguous_strides((2, 3, 4), 8)` is `(96, 32, 8)`.
    """
    strides: list[int] = []
    step = itemsize
    for n in reversed(shape):
        strides.insert(0, step)
        step *= n
    return tuple(strides)


def is_contiguous(shape: Shape, strides: Shape, itemsize: int) -> bool:
    """Whether the elements, read row by row, are neighbours in memory from the first to the last."""
    expected = itemsize
    for n, step in zip(reversed(shape), reversed(strides), strict=True):
        if n == 0:
            return True
        if n > 1 and step != expected:
            return 0 in shape
        expected *= n
    return True


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The shape in which all meet, lined up at the right: a missing axis, or one of length 1, stretches.

    `broadcast_shapes((3, 1), (4,))` is `(3, 4)`. Where lengths differ and neither is 1, a ValueError names
    the shapes, the lengths and the axis.
    """
    met: Shape = ()
    for shape in shapes:
        ndim = max(len(met), len(shape))
        left, right = (1,) * (ndim - len(met)) + met, (1,) * (ndim - len(shape)) + shape
        joined = []
        for i in range(ndim):
            if left[i] == right[i] or right[i] == 1:
                joined.append(left[i])
            elif left[i] == 1:
                joined.append(right[i])
            else:
                raise ValueError(f"{shapes} do not broadcast: {left[i]} and {right[i]} at axis {i - ndim}")
        met = tuple(joined)
    return met


def broadcast_strides(shape: Shape, strides: Shape, target: Shape) -> Shape:
    """The strides that read an array of `shape` and `strides` as if it had the shape `target`.

    `broadcast_strides((3, 1), (8, 8), (2, 3, 4))` is `(0, 8, 0)`. Where `shape` does not stretch to `target`,
    a ValueError names both.
    """
    if len(target) < len(shape):
        raise ValueError(f"{shape} has more axes than {target}")
    out = [0] * len(target)
    for axis in range(-len(shape), 0):
        if shape[axis] == target[axis]:
            out[axis] = strides[axis]
        elif shape[axis] != 1:
            raise ValueError(f"{shape} does not stretch to {target} at axis {axis}")
    return tuple(out)


def as_strided(array: Array, shape: Shape, strides: Shape) -> Array:
    """A view of `array`'s memory: element (i, j) lies i * strides[0] + j * strides[1] bytes after the first.

    ValueError if an element would lie outside of the bytes from `array`'s lowest to its highest.
    """

    if math.prod(shape):
        if not array.size:
            raise ValueError(f"an array of shape {array.shape} has no elements to show as {shape}")
        first = end = lowest = highest = 0
        for n, step in zip(array.shape, array.strides, strict=True):
            first, end = first + min(0, (n - 1) * step), end + max(0, (n - 1) * step)
        for n, step in zip(shape, strides, strict=True):
            lowest, highest = lowest + min(0, (n - 1) * step), highest + max(0, (n - 1) * step)
        if not first <= lowest <= highest <= end:
            raise ValueError(f"a view of {shape} by {strides} would leave the array's memory")
    return np.lib.stride_tricks.as_strided(array, shape, strides)


def resolve_shape(old: Shape, new: Shape) -> Shape:
    """`new`, its one -1 replaced by what makes it hold as many elements as `old`.

    Where it cannot hold just as many, or has two -1, a ValueError names both shapes.
    """
    holds = 1
    for n in old:
        holds *= n
    needs, unknown = 1, 0
    for n in new:
        if n == -1:
            unknown += 1
        elif n < 0:
            raise ValueError(f"{new} has a negative length; it cannot be the shape of what was {old}")
        else:
            needs *= n
    if unknown == 0 and needs == holds:
        return new
    if unknown == 1 and needs > 0 and holds % needs == 0:
        return tuple(holds // needs if n == -1 else n for n in new)
    raise ValueError(f"{old} cannot become {new}")


def view_strides(shape: Shape, strides: Shape, new: Shape) -> Shape | None:
    """The strides that show an array of `shape` and `strides` as `new` without moving a byte, or None.

    `new` holds as many elements as `shape`, in the same order: row by row.
    """
    if math.prod(shape) == 0:
        return tuple(range(len(new)))
    # From the right: fill chunks of neighbours that step as one with axes of the new shape.
    out = [0] * len(new)
    to_fill, filled, base = 1, 1, 1
    axis = len(new) - 1
    for i in range(len(shape) - 1, -1, -1):
        if to_fill == filled == 1:
            base = strides[i]
        to_fill *= shape[i]
        if shape[i] == 1 and to_fill == 1:
            continue
        j = i - 1
        while j >= 0 and shape[j] == 1:
            j -= 1
        if j >= 0 and strides[j] == to_fill * base:
            continue
        while axis >= 0 and (filled < to_fill or new[axis] == 1):
            out[axis] = filled * base
            filled *= new[axis]
            axis -= 1
        if filled != to_fill:
            return None
        to_fill = filled = 1
    return tuple(out)


# Numbers: what a Tensor may hold, and the dtype in which two operands meet.


def as_array(data: Any) -> Array:
    """The array that `Tensor(data)` wraps.

    Arrays are taken as they are, not copied; numpy's scalars keep their dtype; a Tensor gives its array. Of
    Python's numbers, and lists of them, bools stay bool, ints become int64, and floats float32. TypeError for
    anything else, naming its dtype; ValueError for lists of unequal lengths.
    """
    if isinstance(data, np.ndarray):
        array: Array = data
    elif isinstance(data, Tensor):
        array = data.data
    elif isinstance(data, np.generic):
        array = np.array(data)
    else:
        array = np.array(data)
        if array.dtype == np.float64:
            array = np.array(data, np.float32)
        elif array.dtype.kind == "i":
            array = np.array(data, np.int64)
    if array.dtype.kind in "biuf":
        return array
    raise TypeError(f"{array.dtype} is no dtype of numbers that a Tensor can hold")


def result_type(*operands: Any) -> np.dtype[Any]:
    """The dtype in which arrays and Python numbers meet; the rule is PyTorch's.

    Floats outrank integers, and these bools. Of the highest kind present, arrays with axes outrank those
    without, and these Python's numbers. Between those of the highest rank numpy decides. So float32 with axes
    stays so beside int64, 0.5 and a 0-d float64: only float64 with axes makes it float64.
    """
    groups: dict[str, list[Any]] = {}
    for x in operands:
        if isinstance(x, (bool, int, float)) and not isinstance(x, np.generic):
            dtype, place = as_array(x).dtype, "python"
        else:
            dtype, place = as_array(x).dtype, "axes" if as_array(x).ndim > 0 else "no axes"
        kind = {"f": "float", "b": "bool"}.get(dtype.kind, "int")
        groups.setdefault(f"{kind} {place}", []).append(dtype)
    for kind in ("float", "int", "bool"):
        for place in ("axes", "no axes", "python"):
            if dtypes := groups.get(f"{kind} {place}"):
                return np.result_type(*dtypes)
    raise ValueError("no operands")


def promote(a: Any, b: Any) -> tuple[Array, Array]:
    """Both operands as arrays of the dtype in which they meet. Beware: 300 is 44 in uint8, as in PyTorch."""
    # Most calls are of these kinds, and finding a dtype takes longer than adding two small arrays.
    if a.__class__ is np.ndarray:
        if b.__class__ is np.ndarray and a.dtype == b.dtype:
            return a, b
        if b.__class__ in (int, float) and a.dtype.kind == "f":
            return a, np.asarray(b, a.dtype)
    elif a.__class__ in (int, float) and b.__class__ is np.ndarray and b.dtype.kind == "f":
        return np.asarray(a, b.dtype), b
    dtype = result_type(a, b)
    return np.asarray(as_array(a), dtype), np.asarray(as_array(b), dtype)


def elementwise(function: Callable[[Array, Array], Any], a: Any, b: Any) -> Any:
    """`function` of the two operands, brought to one dtype.

    ValueError with the message of `broadcast_shapes` if their shapes do not meet.
    """
    a, b = promote(a, b)
    broadcast_shapes(a.shape, b.shape)
    return function(a, b)


def floating(a: Any) -> Array:
    """`a` as an array of floats: as it is if it has them, in float32 if it holds integers or bools."""
    array = as_array(a)
    return array.astype(array.dtype if array.dtype.kind == "f" else np.float32, copy=False)


# Operations on each element. `x + 1.0` arrives here as an array and a Python number.


# fmt: off
@op
def add(a: Any, b: Any) -> Any: return elementwise(np.add, a, b)
@op
def sub(a: Any, b: Any) -> Any: return elementwise(np.subtract, a, b)
@op
def mul(a: Any, b: Any) -> Any: return elementwise(np.multiply, a, b)
@op
def maximum(a: Any, b: Any) -> Any: return elementwise(np.maximum, a, b)
@op
def compare(a: Any, b: Any, *, test: Callable[..., Any]) -> Any: return elementwise(test, a, b)
@op
def neg(a: Any) -> Any: return -(a if a.__class__ is np.ndarray else as_array(a))
@op
def absolute(a: Any) -> Any: return np.abs(as_array(a))
@op
def exp(a: Any) -> Any: return np.exp(floating(a))
@op
def log(a: Any) -> Any: return np.log(floating(a))
@op
def sqrt(a: Any) -> Any: return np.sqrt(floating(a))
@op
def tanh(a: Any) -> Any: return np.tanh(floating(a))
# fmt: on


@op
def div(a: Any, b: Any) -> Any:
    """a / b, in floats even where both are integers."""
    dtype = result_type(a, b)
    if dtype.kind != "f":
        dtype = np.dtype(np.float32)
    return elementwise(np.divide, np.asarray(as_array(a), dtype), np.asarray(as_array(b), dtype))


@op
def power(a: Any, b: Any) -> Any:
    """a ** b. Of integers it is an integer, and a negative exponent then a ValueError."""
    return elementwise(np.power, a, b)


@op
def clip(a: Array, *, min: float | None = None, max: float | None = None) -> Any:
    """`a` raised to the number `min` where it is less, and lowered to `max` where it is more.

    ValueError if neither is given.
    """
    if min is None and max is None:
        raise ValueError("clip to what?")
    out = a
    for nearer, bound in ((np.maximum, min), (np.minimum, max)):
        # What integers cannot be bounds none of them.
        whole = np.iinfo(a.dtype) if a.dtype.kind in "iu" and isinstance(bound, int) else None
        if bound is not None and (whole is None or whole.min <= bound <= whole.max):
            out = elementwise(nearer, out, bound)
    return out


@op
def where(condition: Any, a: Any, b: Any) -> Any:
    """`a` where `condition` holds, else `b`, all three broadcast. A ValueError names shapes that do not."""
    condition = as_array(condition)
    a, b = promote(a, b)
    out = np.empty(broadcast_shapes(condition.shape, a.shape, b.shape), a.dtype)
    np.copyto(out, b)
    np.copyto(out, a, where=condition.astype(bool))
    return out


@op
def matmul(a: Any, b: Any) -> Any:
    """The matrix product over the last two axes, (..., n, k) @ (..., k, m) -> (..., n, m); 1-d is a vector.

    Where shapes do not multiply, or an operand has no axes, a ValueError names both shapes.
    """
    a, b = promote(a, b)
    problem = f"{a.shape} @ {b.shape} cannot be"
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(problem)
    left, right = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    if left.shape[-1] != right.shape[-2]:
        raise ValueError(problem)
    try:
        broadcast_shapes(left.shape[:-2], right.shape[:-2])
    except ValueError as error:
        raise ValueError(f"{problem}: {error}") from None
    out = np.matmul(left, right)
    if b.ndim == 1:
        out = out[..., 0]
    return out[..., 0] if a.ndim == 1 and b.ndim == 1 else out[..., 0, :] if a.ndim == 1 else out


# Reductions. `axis` is one, several, or None for all of them; `keepdims` leaves each in place, 1 long.


@op
def total(a: Array, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """The sum: of floats in their dtype, of integers and bools in int64."""
    dtype = a.dtype if a.dtype.kind == "f" else np.dtype(np.int64)
    return np.add.reduce(a, axis=axis, dtype=dtype, keepdims=keepdims)


@op
def mean(a: Array, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """The mean, in floats; nan of nothing."""
    dtype = a.dtype if a.dtype.kind == "f" else np.dtype(np.float32)
    sums = np.add.reduce(a, axis=axis, dtype=dtype, keepdims=keepdims)
    return np.asarray(np.divide(sums, a.size / sums.size if sums.size else 1), dtype)


@op
def amax(a: Array, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """The largest element; of nothing, a ValueError."""
    return np.maximum.reduce(a, axis=axis, keepdims=keepdims)


@op
def amin(a: Array, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """The smallest element; of nothing, a ValueError."""
    return np.minimum.reduce(a, axis=axis, keepdims=keepdims)


@op
def argmax(a: Array, *, axis: int | None = None, keepdims: bool = False) -> Any:
    """Where the largest element is, the first of several; without axis, counted row by row in all of `a`."""
    highest = np.maximum.reduce(a, axis=axis, keepdims=True)
    return np.argmax(a == highest, axis=axis, keepdims=keepdims)


@op
def var(a: Array, *, axis: Axis = None, correction: int = 1, keepdims: bool = False) -> Any:
    """The variance, in floats: the squared distances from the mean, summed, and divided by n - correction.

    The mean of n samples lies nearer to them than the true mean does, and the sum comes out (n - 1) / n of
    what it should be: hence the 1, PyTorch's default.
    """
    return np.var(floating(a), axis=axis, ddof=correction, keepdims=keepdims)


# Shape. Most answers are views: the same bytes under another shape and other strides.


@op
def reshape(a: Array, *, shape: Shape) -> Array:
    """The same elements, row by row, in a new shape with at most one -1. A view where there can be one."""
    shape = resolve_shape(a.shape, shape)
    strides = view_strides(a.shape, a.strides, shape)
    if strides is None:
        a = a.copy()
        strides = contiguous_strides(shape, a.itemsize)
    return as_strided(a, shape, strides)


@op
def view(a: Array, *, shape: Shape) -> Array:
    """`reshape`, but never a copy: where one would be needed, a ValueError says so and names both shapes."""
    shape = resolve_shape(a.shape, shape)
    if a.size and view_strides(a.shape, a.strides, shape) is None:
        raise ValueError(f"{a.shape} cannot be seen as {shape} without a copy")
    return a.reshape(shape)


@op
def contiguous(a: Array) -> Array:
    """`a` itself if it is contiguous, else a copy that is."""
    if is_contiguous(a.shape, a.strides, a.itemsize):
        return a
    out = np.empty(a.shape, a.dtype)
    out[...] = a
    return out


@op
def transpose(a: Array, *, axis0: int, axis1: int) -> Array:
    """A view with two axes swapped."""
    axes = list(range(a.ndim))
    if not (-a.ndim <= axis0 < a.ndim and -a.ndim <= axis1 < a.ndim):
        raise ValueError(f"axes {axis0} and {axis1} are not both among the {a.ndim} of {a.shape}")
    axes[axis0], axes[axis1] = axes[axis1], axes[axis0]
    return as_strided(a, tuple(a.shape[i] for i in axes), tuple(a.strides[i] for i in axes))


@op
def permute(a: Array, *, axes: Shape) -> Array:
    """A view whose axis i is axis axes[i] of `a`."""
    if sorted(axis + a.ndim if axis < 0 else axis for axis in axes) != list(range(a.ndim)):
        raise ValueError(f"axes {axes} should name each of the {a.ndim} axes once")
    return as_strided(a, tuple(a.shape[i] for i in axes), tuple(a.strides[i] for i in axes))


@op
def squeeze(a: Array, *, axis: Axis = None) -> Array:
    """A view without the axes of length 1, or without those named, which must have length 1 (ValueError)."""
    if axis is None:
        drop = {i for i, n in enumerate(a.shape) if n == 1}
    else:
        drop = {i + a.ndim if i < 0 else i for i in (axis if isinstance(axis, tuple) else (axis,))}
        if any(not 0 <= i < a.ndim or a.shape[i] != 1 for i in drop):
            raise ValueError(f"not all of the axes {axis} of {a.shape} have length 1")
    kept = [i for i in range(a.ndim) if i not in drop]
    return as_strided(a, tuple(a.shape[i] for i in kept), tuple(a.strides[i] for i in kept))


@op
def unsqueeze(a: Array, *, axis: int) -> Array:
    """A view with a new axis of length 1, which is number `axis` of the result."""
    if not -a.ndim - 1 <= axis <= a.ndim:
        raise ValueError(f"there is no place {axis} for an axis in {a.shape}")
    index: list[Any] = [slice(None)] * a.ndim
    index.insert(axis if axis >= 0 else axis + a.ndim + 1, None)
    return a[tuple(index)]


@op
def expand(a: Array, *, shape: Shape) -> Array:
    """A read-only view that repeats `a` to `shape`, where -1 leaves an axis of `a` as long as it is.

    Where `a` does not stretch so, a ValueError names both shapes.
    """
    if len(shape) < a.ndim:
        raise ValueError(f"{a.shape} has more axes than {shape}")
    old = (1,) * (len(shape) - a.ndim) + a.shape
    kept = len(shape) - a.ndim
    wanted = tuple(old[i] if n == -1 and i >= kept else n for i, n in enumerate(shape))
    if any(n < 0 for n in wanted):
        raise ValueError(f"{a.shape} has no axis for each -1 of {shape}")
    return np.broadcast_to(a, wanted)


@op
def getitem(a: Array, *, index: Any) -> Any:
    """`a[index]`: a view for numbers, slices, None and `...`; a copy where an array or a list picks."""
    return a[index]


@op(saves=["lengths"])
def join(*arrays: Any, axis: int) -> tuple[Array, list[int]]:
    """The arrays end to end along `axis`; and how long each is there, which the way back will need (kata 06).

    Where lengths differ elsewhere than at `axis`, or there is no array, a ValueError names the shapes.
    """
    shapes = [np.shape(a) for a in arrays]
    if not shapes or not all(len(s) == len(shapes[0]) and -len(s) <= axis < len(s) for s in shapes):
        raise ValueError(f"{shapes} cannot be joined along {axis}")
    at = axis % len(shapes[0])
    if any(s[:at] + s[at + 1 :] != shapes[0][:at] + shapes[0][at + 1 :] for s in shapes):
        raise ValueError(f"{shapes} cannot be joined along {axis}")
    lengths = [s[at] for s in shapes]
    out = np.empty((*shapes[0][:at], sum(lengths), *shapes[0][at + 1 :]), result_type(*arrays))
    begin = 0
    for array, length in zip(arrays, lengths, strict=True):
        out[(slice(None),) * at + (slice(begin, begin + length),)] = array
        begin += length
    return out, lengths


def concatenate(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Join Tensors, arrays or lists along an axis that they have; errors as for `join`."""
    return join(*tensors, axis=axis)


def stack(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis, which is number `axis` of the result.

    Where shapes differ, or there is no tensor, a ValueError names the shapes.
    """
    tensors = list(tensors)
    for t in tensors:
        if np.shape(t) != np.shape(tensors[0]):
            raise ValueError(f"{np.shape(tensors[0])} and {np.shape(t)} cannot be stacked")
    if not tensors:
        raise ValueError("there is nothing to stack")
    return concatenate([unsqueeze(t, axis=axis) for t in tensors], axis)


# Factories. `zeros(2, 3)` and `zeros((2, 3))` mean the same.


def as_shape(shape: tuple[Any, ...]) -> Shape:
    """(2, 3), from the arguments (2, 3) or ((2, 3),)."""
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape


def zeros(*shape: Any, dtype: DTypeLike = np.float32) -> Tensor:
    return Tensor(np.zeros(as_shape(shape), dtype))


def ones(*shape: Any, dtype: DTypeLike = np.float32) -> Tensor:
    return Tensor(np.ones(as_shape(shape), dtype))


def full(shape: Shape, value: float, dtype: DTypeLike | None = None) -> Tensor:
    """`value` everywhere, in the dtype that `Tensor(value)` has unless told."""
    array = np.empty(shape, dtype or Tensor(value).dtype)
    array[...] = value
    return Tensor(array)


def eye(n: int, m: int | None = None, dtype: DTypeLike = np.float32) -> Tensor:
    """(n, m), or (n, n), with ones on the diagonal and zeros elsewhere."""
    array = np.zeros((n, n if m is None else m), dtype)
    for i in range(min(array.shape)):
        array[i, i] = 1
    return Tensor(array)


def arange(start: float, stop: float | None = None, step: float = 1) -> Tensor:
    """start, start + step, ... and short of stop, each rounded once; `arange(n)` counts from 0."""
    if stop is None:
        start, stop = 0, start
    whole = all(isinstance(x, int) for x in (start, stop, step))
    count = max(0, math.ceil((stop - start) / step))
    steps = start + step * np.arange(count, dtype=np.int64 if whole else np.float64)
    return Tensor(steps.astype(np.int64 if whole else np.float32))


def rand(*shape: Any, rng: np.random.Generator, dtype: Any = np.float32) -> Tensor:
    """Uniform on [0, 1), drawn from `rng` in float32 or float64."""
    array = np.empty(as_shape(shape), dtype)
    rng.random(dtype=array.dtype, out=array)
    return Tensor(array)


def randn(*shape: Any, rng: np.random.Generator, dtype: Any = np.float32) -> Tensor:
    """Normal, with mean 0 and variance 1, drawn from `rng` in float32 or float64."""
    array = np.empty(as_shape(shape), dtype)
    rng.standard_normal(dtype=array.dtype, out=array)
    return Tensor(array)


class Tensor:
    """A numpy array with arithmetic, room for a gradient, and nothing hidden.

    Attributes:
        data: the array; if one was given, that very one (see `as_array`).
        requires_grad: whether a recorder is told of what is done with it; only floats can.
        grad: what a backward pass adds up for it, an array of its shape (kata 06).
        node: how it was made, if that was recorded; None for a leaf (kata 06).
    """

    __slots__ = ("__weakref__", "data", "grad", "node", "requires_grad")
    # So that array + Tensor gives a Tensor, and np.exp(Tensor) raises, rather than drop the gradient.
    __array_ufunc__ = None
    __hash__ = object.__hash__  # sets and dicts go by identity; == compares elements, so ask `x is None`

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self.data: Array = (
            data if data.__class__ is np.ndarray and data.dtype.kind in KINDS else as_array(data)
        )
        if requires_grad and self.data.dtype.kind != "f":
            raise TypeError(f"only floats can require a gradient, not {self.data.dtype}")
        self.requires_grad = requires_grad
        self.grad: Array | None = None
        self.node: Any = None

    def __repr__(self) -> str:
        text = np.array2string(self.data, separator=", ", prefix="Tensor(")
        if self.data.dtype not in (np.float32, np.int64, np.bool_):
            text += f", dtype={self.data.dtype}"
        return f"Tensor({text}, requires_grad=True)" if self.requires_grad else f"Tensor({text})"

    # fmt: off
    @property
    def shape(self) -> Shape: return self.data.shape
    @property
    def strides(self) -> Shape: return self.data.strides  # bytes; PyTorch's stride() counts elements
    @property
    def dtype(self) -> np.dtype[Any]: return self.data.dtype
    @property
    def ndim(self) -> int: return self.data.ndim
    @property
    def size(self) -> int: return self.data.size
    @property
    def T(self) -> Tensor: return permute(self, axes=tuple(reversed(range(self.ndim))))

    def __add__(self, other: Any) -> Tensor: return add(self, other)
    def __radd__(self, other: Any) -> Tensor: return add(other, self)
    def __sub__(self, other: Any) -> Tensor: return sub(self, other)
    def __rsub__(self, other: Any) -> Tensor: return sub(other, self)
    def __mul__(self, other: Any) -> Tensor: return mul(self, other)
    def __rmul__(self, other: Any) -> Tensor: return mul(other, self)
    def __truediv__(self, other: Any) -> Tensor: return div(self, other)
    def __rtruediv__(self, other: Any) -> Tensor: return div(other, self)
    def __pow__(self, other: Any) -> Tensor: return power(self, other)
    def __rpow__(self, other: Any) -> Tensor: return power(other, self)
    def __matmul__(self, other: Any) -> Tensor: return matmul(self, other)
    def __rmatmul__(self, other: Any) -> Tensor: return matmul(other, self)
    def __neg__(self) -> Tensor: return neg(self)
    def __abs__(self) -> Tensor: return absolute(self)
    def __eq__(self, other: Any) -> Any: return compare(self, other, test=np.equal)
    def __ne__(self, other: Any) -> Any: return compare(self, other, test=np.not_equal)
    def __lt__(self, other: Any) -> Tensor: return compare(self, other, test=np.less)
    def __le__(self, other: Any) -> Tensor: return compare(self, other, test=np.less_equal)
    def __gt__(self, other: Any) -> Tensor: return compare(self, other, test=np.greater)
    def __ge__(self, other: Any) -> Tensor: return compare(self, other, test=np.greater_equal)

    def exp(self) -> Tensor: return exp(self)
    def log(self) -> Tensor: return log(self)
    def sqrt(self) -> Tensor: return sqrt(self)
    def tanh(self) -> Tensor: return tanh(self)
    def abs(self) -> Tensor: return absolute(self)
    def clip(self, min: Any = None, max: Any = None) -> Tensor: return clip(self, min=min, max=max)

    def contiguous(self) -> Tensor: return contiguous(self)
    def reshape(self, *shape: Any) -> Tensor: return reshape(self, shape=as_shape(shape))
    def view(self, *shape: Any) -> Tensor: return view(self, shape=as_shape(shape))
    def expand(self, *shape: Any) -> Tensor: return expand(self, shape=as_shape(shape))
    def permute(self, *axes: Any) -> Tensor: return permute(self, axes=as_shape(axes))
    def transpose(self, axis0: int, axis1: int) -> Tensor: return transpose(self, axis0=axis0, axis1=axis1)
    def squeeze(self, axis: Axis = None) -> Tensor: return squeeze(self, axis=axis)
    def unsqueeze(self, axis: int) -> Tensor: return unsqueeze(self, axis=axis)

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return total(self, axis=axis, keepdims=keepdims)
    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return mean(self, axis=axis, keepdims=keepdims)
    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return amax(self, axis=axis, keepdims=keepdims)
    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return amin(self, axis=axis, keepdims=keepdims)
    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        return argmax(self, axis=axis, keepdims=keepdims)
    def var(self, axis: Axis = None, correction: int = 1, keepdims: bool = False) -> Tensor:
        return var(self, axis=axis, correction=correction, keepdims=keepdims)

    def numel(self) -> int: return self.size
    def numpy(self) -> Array: return self.data  # itself, not a copy
    def is_contiguous(self) -> bool: return is_contiguous(self.shape, self.strides, self.data.itemsize)
    def __bool__(self) -> bool: return bool(self.item())
    def __float__(self) -> float: return float(self.item())
    def __int__(self) -> int: return int(self.item())
    # fmt: on

    def __getitem__(self, index: Any) -> Tensor:
        """Elements, rows, slices: all that numpy takes as an index, and Tensors of integers or bools."""
        if isinstance(index, Tensor):
            return getitem(self, index=index.data)
        if isinstance(index, tuple):
            index = tuple(i.data if isinstance(i, Tensor) else i for i in index)
        return getitem(self, index=index)

    def __len__(self) -> int:
        return len(self.data)  # TypeError for 0-d

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def item(self) -> Any:
        """The only element, as a Python number."""
        if self.size != 1:
            raise ValueError(f"a Tensor of shape {self.shape} is not one number")
        return self.data.item()

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        """For np.asarray(tensor), and so for np.testing and plotting."""
        return np.array(self.data, dtype, copy=copy)

    def detach(self) -> Tensor:
        """The same array, not a copy, in a Tensor that no gradient flows through."""
        return Tensor(self.data)

    def backward(self, grad: Any = None, retain_graph: bool = False) -> None:
        """Add this tensor's gradient to the `.grad` of all that it was made from (kata 06)."""
        importlib.import_module("tinytorch.autograd").backward(self, grad, retain_graph)

    def register_hook(self, hook: Callable[[Array], Array | None]) -> Any:
        """Have `hook(grad)` called with this tensor's gradient, to look at it or to change it (kata 06)."""
        return importlib.import_module("tinytorch.autograd").register_hook(self, hook)
