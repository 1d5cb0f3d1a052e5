"""An array that tells a meter what is done with it.

numpy offers every operation on a subclass to that subclass first: ufuncs through `__array_ufunc__`, functions
through `__array_function__`.  Methods written in C and indexing offer nothing, so they are wrapped here.
Results are tracked in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dojo.measuring import costs

Array = npt.NDArray[Any]


class Meter(Protocol):
    """Who is told."""

    def note(self, name: str, flops: int, read: Iterable[Any], written: Iterable[Any]) -> None: ...

    def note_items(self, name: str, count: int) -> None: ...

    def note_escape(self, name: str) -> None: ...


class Tracked(np.ndarray[Any, np.dtype[Any]]):
    """An ndarray whose operations are reported to `Tracked.meter`, when there is one."""

    meter: Meter | None = None

    def __array_ufunc__(self, ufunc: Any, method: Any, *inputs: Any, **kwargs: Any) -> Any:
        meter, args, options = Tracked.meter, bare(inputs), bare(kwargs)
        repeats = np.size(args[0][args[1]]) if method == "at" else 0
        result = _unwatched(getattr(ufunc, method), args, options)
        if meter is not None:
            name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
            read = [a for a in args if isinstance(a, np.ndarray)]
            written = list(_arrays(result))
            meter.note(name, repeats or _ufunc_flops(ufunc, method, read, written), read, written)
        if (out := kwargs.get("out")) is not None:
            return out[0] if len(out) == 1 else out
        return tracked(result)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        meter, name = Tracked.meter, func.__name__
        if name in costs.BY_METHOD and kwargs.get("out") is None:
            return super().__array_function__(func, types, args, kwargs)
        plain_args, plain_kwargs = bare(args), bare(kwargs)
        result = _unwatched(func, plain_args, plain_kwargs)
        read = [*_arrays(plain_args), *_arrays(plain_kwargs)]
        results = list(_arrays(result))
        written = [a for a in results if not any(np.may_share_memory(a, other) for other in read)]
        if (out := kwargs.get("out")) is not None:
            written = [bare(out)]
        is_view = bool(results) and not written
        if meter is not None and not is_view and name not in costs.FREE:
            meter.note(name, costs.function(name, plain_args, read, results), read, written)
        return out if out is not None else tracked(result)

    def __getitem__(self, index: Any) -> Any:
        found = bare(self)[bare(index)]
        if (meter := Tracked.meter) is not None:
            if not isinstance(found, np.ndarray):
                meter.note_items("x[i]", 1)
            elif not np.may_share_memory(found, bare(self)):
                meter.note("x[indices]", 0, [found], [found])
        return tracked(found)

    def __setitem__(self, index: Any, value: Any) -> None:
        plain, place = bare(self), bare(index)
        plain[place] = bare(value)
        if (meter := Tracked.meter) is not None:
            changed = plain[place]
            if isinstance(changed, np.ndarray):
                meter.note("x[...] = y", 0, [bare(value)], [changed])
            else:
                meter.note_items("x[i] = y", 1)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    @property
    def flat(self) -> Any:
        if Tracked.meter is not None:
            Tracked.meter.note_escape("x.flat")
        return bare(self).flat

    def view(self, *args: Any, **kwargs: Any) -> Any:
        found = np.ndarray.view(self, *args, **kwargs)
        if not isinstance(found, Tracked) and Tracked.meter is not None:
            Tracked.meter.note_escape("x.view(np.ndarray)")
        return found


def _unwatched(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call it without reporting what numpy does inside."""
    meter, Tracked.meter = Tracked.meter, None
    try:
        return bare(function(*args, **kwargs))
    finally:
        Tracked.meter = meter


def bare(value: Any) -> Any:
    """`value` with every tracked array in it, however deep in tuples, lists and dicts, as a plain one."""
    if isinstance(value, Tracked):
        return np.ndarray.view(value, np.ndarray)
    if isinstance(value, (tuple, list)):
        return type(value)(map(bare, value)) if type(value) in (tuple, list) else value
    return {key: bare(item) for key, item in value.items()} if type(value) is dict else value


def tracked(value: Any) -> Any:
    """`value` with every plain array in it tracked; numpy's named tuples (np.unique_all) are kept."""
    if type(value) is np.ndarray:
        return value.view(Tracked)
    if isinstance(value, (tuple, list)):
        items = map(tracked, value)
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _arrays(value: Any) -> Iterator[Any]:
    if isinstance(value, (np.ndarray, np.generic)):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _arrays(item)
    elif isinstance(value, dict):
        yield from _arrays(list(value.values()))


def _ufunc_flops(ufunc: Any, method: str, read: list[Any], written: list[Any]) -> int:
    if ufunc.__name__ in ("matmul", "vecdot", "matvec", "vecmat"):
        a, b = read[:2]
        return costs.matmul(a.shape, b.shape) if ufunc.__name__ == "matmul" else 2 * int(max(a.size, b.size))
    if method in ("reduce", "accumulate", "reduceat"):
        return int(read[0].size) if read else 0
    return max((int(a.size) for a in written), default=0)


def _method(name: str) -> Callable[..., Any]:
    """ndarray's method `name`, reported like the function of that name."""
    original = getattr(np.ndarray, name)

    def method(self: Tracked, *args: Any, **kwargs: Any) -> Any:
        plain, plain_args = bare(self), bare(args)
        result = _unwatched(original, (plain, *plain_args), bare(kwargs))
        if (meter := Tracked.meter) is not None:
            if isinstance(result, np.ndarray):
                results = [] if np.may_share_memory(result, plain) else [result]
            else:
                results = list(_arrays(result)) or [plain]
            flops = (
                0
                if name in _MOVERS
                else costs.function(name, plain_args, [plain, *_arrays(plain_args)], results)
            )
            if results:
                meter.note(f"x.{name}", flops, [plain, *_arrays(plain_args)], results)
        return tracked(result)

    method.__name__ = name
    return method


def _to_python(name: str) -> Callable[..., Any]:
    """ndarray's method `name`, which hands elements to Python."""
    original = getattr(np.ndarray, name)

    def method(self: Tracked, *args: Any, **kwargs: Any) -> Any:
        if (meter := Tracked.meter) is not None:
            meter.note_items(name, self.size if name in ("tolist", "tobytes") else 1)
        return original(bare(self), *args, **kwargs)

    method.__name__ = name
    return method


_MOVERS = ("copy", "astype", "flatten", "ravel", "reshape", "repeat", "take", "compress", "fill", "put")
_COMPUTERS = (
    "dot",
    "argmax",
    "argmin",
    "sort",
    "argsort",
    "partition",
    "argpartition",
    "searchsorted",
    "nonzero",
    "round",
)
for _name in (*_MOVERS, *_COMPUTERS, "trace", "choose"):
    setattr(Tracked, _name, _method(_name))
for _name in ("tolist", "tobytes", "item", "__float__", "__int__", "__index__", "__bool__", "__complex__"):
    setattr(Tracked, _name, _to_python(_name))
