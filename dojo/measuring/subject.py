"""Something with a gradient, whoever computes it: an op's own rule, or backward() on a Tensor."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class GradientError(AssertionError):
    """A gradient is wrong.  The message says which, where, and by how much."""


class Subject:
    """`op` at `arrays`, differentiable in those of them that hold floats.

    `op` is an Op with `vjp(*arrays, **params) -> (out, back)`, or a function from Tensors to a Tensor.
    `inputs` are copies of the float arrays in C order, as `dtype` (None: as they are); `names` says how the
    op calls them.
    """

    def __init__(self, op: Any, arrays: Sequence[Any], params: dict[str, Any], dtype: Any = None) -> None:
        self.op, self.arrays, self.params = op, list(arrays), params
        self.slots = [i for i, a in enumerate(arrays) if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
        self.inputs: list[Array] = [np.array(arrays[i], dtype, order="C") for i in self.slots]
        every = _input_names(op, len(arrays))
        self.names = [f"`{every[i]}`" for i in self.slots]
        self.title = _title(op, params)

    def forward(self, inputs: Sequence[Array]) -> Array:
        """The output at `inputs`, with nothing recorded."""
        args, params = self.arguments(inputs), self.parameters()
        if hasattr(self.op, "vjp"):
            return np.asarray(self.op.vjp(*args, **params)[0])
        return np.asarray(_bare(self.op(*self._tensors(args, requires_grad=False), **params)))

    def there_and_back(self, inputs: Sequence[Array], cotangent: Array) -> list[Any]:
        """What the op says is d(sum(cotangent * output)) / d(each input): arrays or None, not yet examined.

        Raises:
            GradientError: an input, the output or the cotangent was changed on the way, or gradients are
                missing.
        """
        given, upstream = [_copy_as_laid_out(x) for x in inputs], np.asarray(cotangent).view()
        before = upstream.copy()
        args, params = self.arguments(given), self.parameters()
        if hasattr(self.op, "vjp"):
            out, back = self.op.vjp(*args, **params)
            answer = np.array(out)
            shares = self._shares(back(upstream))
        else:
            tensors = self._tensors(args, requires_grad=True)
            result = self.op(*tensors, **params)
            out = _bare(result)
            answer = np.array(out)
            result.backward(upstream)
            shares = [_bare(tensors[i].grad) for i in self.slots]
        if not np.array_equal(upstream, before):
            raise self.error("the gradient rule changed the gradient that it was given")
        if not np.array_equal(np.asarray(out), answer, equal_nan=True):
            raise self.error("the gradient rule changed the output of the forward pass")
        for name, mine, x in zip(self.names, given, inputs, strict=True):
            if not np.array_equal(mine, x):
                raise self.error(f"the input {name} was changed in place")
        return shares

    def arguments(self, inputs: Sequence[Array]) -> list[Any]:
        """The positional arguments of the op, with `inputs` in the places of the float arrays."""
        args = list(self.arrays)
        for slot, x in zip(self.slots, inputs, strict=True):
            args[slot] = x
        return args

    def parameters(self) -> dict[str, Any]:
        """The keyword arguments; a random generator starts at the same place every time."""
        return {
            name: copy.deepcopy(value) if isinstance(value, np.random.Generator) else value
            for name, value in self.params.items()
        }

    def error(self, what: str) -> GradientError:
        return GradientError(f"{self.title}: {what}")

    def _tensors(self, args: Sequence[Any], requires_grad: bool) -> list[Any]:
        Tensor = importlib.import_module("tinytorch.tensor").Tensor
        return [Tensor(a, requires_grad) if i in self.slots else a for i, a in enumerate(args)]

    def _shares(self, answer: Any) -> list[Any]:
        """The rule's answer, one for each float input.

        A rule whose op has an optional last input may answer None for it when it was not given.
        """
        shares = list(answer) if isinstance(answer, (tuple, list)) else [answer]
        while len(shares) > len(self.arrays) and shares[-1] is None:
            shares.pop()
        missing = range(len(shares), len(self.arrays))
        if len(shares) > len(self.arrays) or any(i in self.slots for i in missing):
            names = ", ".join(_input_names(self.op, len(self.arrays)))
            raise self.error(
                f"there are {len(self.arrays)} inputs ({names}), and the gradient rule returned "
                f"{len(shares)} gradient{'s' if len(shares) != 1 else ''}"
            )
        return [shares[i] for i in self.slots]


def strided(x: Array) -> Array:
    """The same values, every other element of a larger array; nan in between shows a stray read."""
    wide: Array = np.full([2 * n for n in x.shape], np.nan, x.dtype)
    view: Array = np.asarray(wide[tuple(slice(None, None, 2) for _ in x.shape)])
    view[...] = x
    return view


def _copy_as_laid_out(x: Array) -> Array:
    """A copy with strides of the same kind, for a rule to be caught changing; a read-only view as it is."""
    if not x.flags.writeable:
        return x
    contiguous: bool = x.flags.c_contiguous or x.flags.f_contiguous
    return x.copy(order="K") if contiguous else strided(x)


def _bare(value: Any) -> Any:
    """The array in a Tensor; None and arrays as they are."""
    return value if value is None or isinstance(value, np.ndarray) else value.data


def _input_names(op: Any, count: int) -> list[str]:
    names = list(getattr(op, "inputs", ()))
    if not names:
        try:
            parameters = inspect.signature(op).parameters.values()
            names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        except (TypeError, ValueError):
            names = []
    return [*names, *(f"input {i}" for i in range(len(names), count))][:count]


def _title(op: Any, params: dict[str, Any]) -> str:
    name = getattr(op, "name", None) or getattr(op, "__name__", type(op).__name__)
    shown = {k: v for k, v in params.items() if isinstance(v, (int, float, str, tuple, list, type(None)))}
    if name == "<lambda>":
        name = "this function"
    return f"{name}({', '.join(f'{k}={v!r}' for k, v in shown.items())})" if shown else str(name)
