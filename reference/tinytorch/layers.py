"""Kata 03 · Layers: modules, their parameters, and the first gradient that you write by hand.

A *module* is a piece of a network: it has parameters, it may hold other modules, and calling it maps tensors
to tensors. `affine` is the operation inside of `Linear`, and the first one that gets a gradient rule.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from tinytorch.tensor import Array, Tensor, increment_version, op, promote

__all__ = [
    "Buffer", "Linear", "Module", "Parameter", "affine", "affine_back", "as_rows", "count_parameters",
    "descend", "parameter_bytes", "summary",
]  # fmt: skip

Hook = Callable[["Module", tuple[Any, ...], Any], None]
M = TypeVar("M", bound="Module")


def as_rows(a: Array) -> Array:
    """(..., n) as a table (rows, n): a view where there can be one.

    Given. `a.reshape(-1, n)` would fail where n is 0: any number of rows would do.
    """
    return a.reshape(math.prod(a.shape[:-1]), a.shape[-1])


@op
def affine(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x @ weight.T + bias: (..., inputs), (outputs, inputs), (outputs,) -> (..., outputs).

    In the dtype in which x and weight meet; if that is one of integers, only without a bias. Where x or bias
    does not fit weight, a ValueError names the shapes of both.
    """
    # kata 03.1: each row of `weight` makes one output; one product for all rows of `x`.
    x, weight = promote(x, weight)
    if weight.ndim != 2 or x.shape[-1:] != weight.shape[1:]:
        raise ValueError(f"an input of shape {x.shape} does not fit weights of shape {weight.shape}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"a bias of shape {bias.shape} does not fit weights of shape {weight.shape}")
    out: Array = as_rows(x) @ weight.T
    if bias is not None:
        out += bias
    return out.reshape(*x.shape[:-1], len(weight))


@affine.gradient
def affine_back(
    grad: Array, x: Array, weight: Array, bias: Array | None, needs_input_grad: tuple[bool, ...]
) -> tuple[Array | None, ...]:  # stub: (grad: Array)
    """The gradients of x, weight and bias; None in place of one that is not wanted or was not given.

    Their dtypes are those of numpy's products; who adds one up brings it to the dtype of its parameter.
    """
    # kata 03.2: add what you need after `grad`. All rows share the weights, so what they say adds up.
    rows = as_rows(grad)
    return (
        (rows @ weight).reshape(x.shape) if needs_input_grad[0] else None,
        rows.T @ as_rows(x) if needs_input_grad[1] else None,
        rows.sum(axis=0) if bias is not None and needs_input_grad[2] else None,
    )


class Parameter(Tensor):
    """A tensor that training changes: it requires a gradient, and the module that holds it lists it."""

    __slots__ = ()

    def __init__(self, data: Any) -> None:
        # kata 03.3: a Tensor, but for one thing.
        super().__init__(data, requires_grad=True)


class Buffer(Tensor):
    """A tensor that a module saves with its parameters, but training does not touch (07: running means)."""

    __slots__ = ()


class Module:
    """A piece of a network: parameters, buffers and other modules are found among its attributes.

    They are also found inside of lists, tuples and dicts, in the order in which they were set. Names are
    paths: `layers.0.weight` is the weight of the first item of the attribute `layers`.

    Attributes:
        training: True while the module learns, False while it is used (dropout and batch norm care).
    """

    training: bool = True

    def forward(self, *inputs: Any, **options: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__}.forward")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        out = self.forward(*inputs, **options)
        for hook in [*vars(self).get("_forward_hooks", {}).values()]:
            hook(self, inputs, out)
        return out

    def register_forward_hook(self, hook: Hook) -> Callable[[], None]:
        """Call `hook(module, inputs, out)` after each forward pass; returns a function that takes it away.

        Taking it away twice does nothing.
        """
        # kata 03.4: `__call__` looks for a dict called _forward_hooks, whose values are hooks.
        hooks = vars(self).setdefault("_forward_hooks", {})
        key = object()
        hooks[key] = hook

        def remove() -> None:
            hooks.pop(key, None)

        return remove

    def named_members(self) -> Iterator[tuple[str, Any]]:
        """The parameters, buffers and modules that this module itself holds, each with its path.

        Its hooks are not among them, also if one is a module.
        """

        # kata 03.5: attributes are in `vars(self)`, hooks too; containers can hold containers.
        def walk(path: str, value: Any) -> Iterator[tuple[str, Any]]:
            if isinstance(value, (Parameter, Buffer, Module)):
                yield path, value
            elif isinstance(value, (list, tuple, dict)):
                for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                    yield from walk(dotted(path, key), item)

        return walk("", {name: value for name, value in vars(self).items() if name != "_forward_hooks"})

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module (its path is `prefix`) and all modules below it, each once, parents first.

        What is below a member comes before the next member.
        """
        # kata 03.6: the members, and theirs; some may be met twice.
        seen: set[Module] = set()

        def walk(path: str, module: Module) -> Iterator[tuple[str, Module]]:
            if module in seen:
                return
            seen.add(module)
            yield path, module
            for name, member in module.named_members():
                if isinstance(member, Module):
                    yield from walk(dotted(path, name), member)

        return walk(prefix, self)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters, of this module and those below; one that is shared has its first name only."""
        # kata 03.7: the members of each module, in the order of `named_modules`.
        seen: set[Parameter] = set()
        for path, module in self.named_modules():
            for name, member in module.named_members():
                if isinstance(member, Parameter) and member not in seen:
                    seen.add(member)
                    yield dotted(path, name), member

    def parameters(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def state_dict(self) -> dict[str, Array]:
        """The arrays (not copies) of all parameters and buffers; a shared one, under each of its names."""
        # kata 03.8: a module below has a state_dict of its own.
        state = {}
        for name, member in self.named_members():
            if isinstance(member, Module):
                state.update({dotted(name, inner): array for inner, array in member.state_dict().items()})
            else:
                state[name] = member.data
        return state

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copy arrays into the parameters and buffers of these names, in place and in the dtype they have.

        A ValueError names what is missing, what is there without being asked for (neither counts unless
        `strict`), and each whose shape or dtype does not fit, with both; then nothing at all has changed.
        """
        # kata 03.9: look first, then copy; and note each write with `increment_version`.
        own = self.state_dict()
        problems = [f"{name} is missing" for name in own if strict and name not in state]
        problems += [f"{name} is not of this module" for name in state if strict and name not in own]
        arrays = {name: np.asarray(state[name]) for name in own if name in state}
        for name, array in arrays.items():
            mine = own[name]
            if array.shape != mine.shape or not np.can_cast(array.dtype, mine.dtype, "same_kind"):
                problems.append(f"{name} is {array.dtype} {array.shape}, not {mine.dtype} {mine.shape}")
        if problems:
            raise ValueError(f"this state does not fit {type(self).__name__}: {'; '.join(problems)}")
        for name, array in arrays.items():
            np.copyto(own[name], array)
            increment_version(own[name])

    def train(self: M, mode: bool = True) -> M:
        """Set `training` here and in all modules below; returns the module itself."""
        # kata 03.10: every module, by `modules()`.
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """`train(False)`: from now on the module is used, not trained."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters: each `.grad` is None again."""
        # kata 03.10: None takes no memory, zeros would.
        for parameter in self.parameters():
            parameter.grad = None

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Freeze (False) or unfreeze all parameters; returns the module itself."""
        # kata 03.10: a frozen parameter stays in the state_dict.
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def flops(self, inputs: tuple[Any, ...], out: Any) -> int:
        """Multiplications and additions of one forward pass of this module itself, not of those below."""
        return 0

    def extra_repr(self) -> str:
        return ""

    def __repr__(self) -> str:
        below = [
            f"  ({name}): {member!r}".replace("\n", "\n  ")
            for name, member in self.named_members()
            if isinstance(member, Module)
        ]
        inside = "\n" + "\n".join(below) + "\n" if below else ""
        return f"{type(self).__name__}({self.extra_repr()}{inside})"


def dotted(path: str, name: object) -> str:
    """`path.name`; `name` alone where there is no path. Given."""
    return f"{path}.{name}" if path else str(name)


class Linear(Module):
    """x @ weight.T + bias.

    Both start uniform on [-1/sqrt(in_features), 1/sqrt(in_features)), as in PyTorch: so outputs do not grow
    with the width. Without inputs they are 0.

    Attributes:
        weight: (out_features, in_features), float32.
        bias: (out_features,), float32; or None.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, rng: np.random.Generator
    ) -> None:
        # kata 03.11: drawn from `rng` in float32: first the weight, then the bias.
        bound = in_features**-0.5 if in_features else 0.0

        def draw(*shape: int) -> Parameter:
            values = rng.random(shape, np.float32)
            values -= 0.5
            values *= 2 * bound
            return Parameter(values)

        self.weight = draw(out_features, in_features)
        self.bias = draw(out_features) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        # kata 03.11: one operation.
        return affine(x, self.weight, self.bias)

    def flops(self, inputs: tuple[Any, ...], out: Any) -> int:
        # kata 03.12: a multiplication and an addition for each weight and row; the bias goes uncounted.
        return int(2 * out.size * self.weight.shape[1])

    def extra_repr(self) -> str:
        out_features, in_features = self.weight.shape
        return f"in_features={in_features}, out_features={out_features}, bias={self.bias is not None}"


def descend(layer: Linear, x: Array, y: Array, lr: float) -> float:
    """One step of gradient descent on the mean squared error of `layer`; returns what the error was before.

    That is one of Python's floats. Each parameter moves by -lr times its gradient, in place; a frozen one
    stays. Where `y` does not have the shape of the output, a ValueError names both, and nothing has moved.
    """
    # kata 03.13: forward by `affine.vjp`; the error is the mean of (out - y)**2, and what is its gradient?
    out, back = affine.vjp(x, *(p.data for p in layer.parameters()))
    if out.shape != y.shape:
        raise ValueError(f"targets of shape {y.shape} do not fit outputs of shape {out.shape}")
    off = out - y
    for parameter, grad in zip(layer.parameters(), back(2 / off.size * off)[1:], strict=False):
        if parameter.requires_grad:
            parameter.data -= lr * grad
            increment_version(parameter.data)
    return float((off * off).mean())


def count_parameters(module: Module) -> int:
    """How many numbers training can change; shared ones count once, frozen ones not at all."""
    # kata 03.14: `size` of each.
    return sum(p.size for p in module.parameters() if p.requires_grad)


def parameter_bytes(module: Module) -> int:
    """Bytes of all parameters and buffers; an array with several names counts once."""
    # kata 03.14: the arrays of the state_dict, each once.
    return sum({id(array): array.nbytes for array in module.state_dict().values()}.values())


def summary(module: Module, *inputs: Any) -> list[tuple[str, str, tuple[int, ...], int, int]]:
    """A row (path, class, shape of its output, parameters, flops) for each module, as they come to an end.

    So what is inside of a module comes before it. Parameters (frozen or not) and flops are the module's own,
    without those of modules below it, and no parameter counts twice: the columns add up. The shape of what is
    no tensor is (). The forward pass that this takes leaves no hook behind, also if it fails.
    """
    # kata 03.15: a hook on every module.
    rows: list[tuple[str, str, tuple[int, ...], int, int]] = []
    counted: set[Parameter] = set()

    def note(path: str, one: Module, inputs: tuple[Any, ...], out: Any) -> None:
        own = {member for _, member in one.named_members() if isinstance(member, Parameter)} - counted
        counted.update(own)
        parameters = sum(p.size for p in own)
        rows.append((path, type(one).__name__, getattr(out, "shape", ()), parameters, one.flops(inputs, out)))

    removers = [
        one.register_forward_hook(functools.partial(note, path)) for path, one in module.named_modules()
    ]
    try:
        module(*inputs)
    finally:
        for remove in removers:
            remove()
    return rows
