"""Counting work instead of timing it: exact, the same on every machine, and blind to overhead.

    with WorkMeter() as work:
        answer = attention(work.track(q), work.track(k), work.track(v))
    assert work.saw(answer)                 # nothing went past the meter
    assert 4 * n * n * d <= work.flops <= 5 * n * n * d

Assert a lower bound too, always: code that leaves numpy, or gets at plain arrays, is work that is not seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from dojo.measuring.costs import touched
from dojo.measuring.tracked import Tracked, bare, tracked

# np.asarray(x) makes a plain array of a tracked one, in C, and what is created inside was never tracked.
CONVERTERS = ("array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray")
CREATORS = ("zeros", "ones", "empty", "full", "arange", "linspace", "eye", "identity", "tri", "fromiter")


class WorkMeter:
    """What numpy did to tracked arrays inside a `with` block.

    Attributes:
        flops: floating-point operations, by the models in `costs`.
        bytes: bytes that those operations read and wrote.  Views are free.
        calls: how many operations computed or copied something.  Views do not count.
        items: elements that went to Python one by one (`x[i]`, `float(x)`, loops, `tolist`).
        by_name: calls by the name of the operation.
        escapes: ways in which arrays slipped out of sight, by name.
    """

    def __init__(self) -> None:
        self.flops = self.bytes = self.calls = self.items = 0
        self.by_name: Counter[str] = Counter()
        self.escapes: Counter[str] = Counter()
        self._plain: dict[str, Callable[..., Any]] = {}

    def track(self, array: Any) -> Any:
        """A tracked copy of `array`."""
        return tracked(self._plain.get("array", np.array)(bare(array)))

    def saw(self, result: Any) -> bool:
        """Whether `result` (an array, or a Tensor of one) came out of operations that were counted."""
        inside = result if isinstance(result, np.ndarray) else getattr(result, "data", None)
        return isinstance(inside, Tracked) and not self.escapes

    def __enter__(self) -> WorkMeter:
        if Tracked.meter is not None:
            raise RuntimeError("a WorkMeter is running already, and one inside another is not supported")
        for name in (*CONVERTERS, *CREATORS):
            self._plain[name] = getattr(np, name)
            setattr(np, name, self._watched(name))
        Tracked.meter = self
        return self

    def __exit__(self, *exc: object) -> None:
        Tracked.meter = None
        for name, function in self._plain.items():
            setattr(np, name, function)

    def note(self, name: str, flops: int, read: Iterable[Any], written: Iterable[Any]) -> None:
        self.calls += 1
        self.by_name[name] += 1
        self.flops += flops
        self.bytes += sum(map(touched, read)) + sum(map(touched, written))

    def note_items(self, name: str, count: int) -> None:
        self.items += count
        self.by_name[name] += 1

    def note_escape(self, name: str) -> None:
        self.escapes[name] += 1

    def _watched(self, name: str) -> Callable[..., Any]:
        """np.`name`, with a result that stays tracked."""
        original = self._plain[name]

        def function(*args: Any, **kwargs: Any) -> Any:
            if Tracked.meter is None:
                return original(*args, **kwargs)
            result = original(*bare(args), **bare(kwargs))
            source = bare(args[0]) if args and name in CONVERTERS else None
            if isinstance(source, np.ndarray):
                if not np.may_share_memory(result, source):
                    self.note(f"np.{name}", 0, [source], [result])
            elif not hasattr(source, "__array_interface__"):  # which as_strided uses to make its view
                self.note(f"np.{name}", 0, [], [result])
                if isinstance(source, (list, tuple)) and not any(isinstance(x, np.ndarray) for x in source):
                    self.items += result.size
            return tracked(result)

        function.__name__ = name
        return function
