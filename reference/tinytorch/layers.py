"""Kata 03 · Layers: modules, their parameters, and the first gradient that you write by hand.

A *module* is a piece of a network: it has parameters, it may hold other modules, and calling it maps tensors to
tensors. `affine` is the operation inside of `Linear`, and the first one that gets a gradient rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from tinytorch.tensor import Array, Tensor, op

__all__ = [
    "Buffer", "Linear", "Module", "Parameter", "affine", "affine_back", "count_parameters", "descend",
    "parameter_bytes", "summary",
]  # fmt: skip

Hook = Callable[["Module", tuple[Any, ...], Any], None]
M = TypeVar("M", bound="Module")


@op
def affine(x: Array, weight: Array, bias: Array | None = None) -> Any:
    """x @ weight.T + bias: (..., inputs), (outputs, inputs), (outputs,) -> (..., outputs).

    Where shapes do not fit, a ValueError names them.
    """
    # kata 03.1: each row of `weight` makes one output, as in PyTorch.
    if weight.ndim != 2 or x.shape[-1:] != weight.shape[1:]:
        raise ValueError(f"an input of shape {x.shape} does not fit weights of shape {weight.shape}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"a bias of shape {bias.shape} does not fit weights of shape {weight.shape}")
    out = x @ weight.T
    if bias is not None:
        out += bias
    return out


@affine.gradient
def affine_back(
    grad: Array, x: Array, weight: Array, bias: Array | None, needs_input_grad: tuple[bool, ...]
) -> tuple[Array | None, Array | None, Array | None]:  # stub: (grad)
    """The gradients of x, weight and bias, or None in place of one that is not wanted or was not given."""
    # kata 03.2: add what you need after `grad`. All rows share the weights, so what they say adds up.
    rows = grad.reshape(-1, grad.shape[-1])
    return (
        grad @ weight if needs_input_grad[0] else None,
        rows.T @ x.reshape(-1, x.shape[-1]) if needs_input_grad[1] else None,
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

    They are also found inside of lists, tuples and dicts, in the order in which they were set. Names are paths:
    `layers.0.weight` is the weight of the first item of the attribute `layers`.

    Attributes:
        training: True while the module learns, False while it is used (dropout and batch norm care).
    """

    training: bool = True

    def forward(self, *inputs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__}.forward")

    def __call__(self, *inputs: Any) -> Any:
        out = self.forward(*inputs)
        for hook in [*vars(self).get("_forward_hooks", ())]:
            hook(self, inputs, out)
        return out

    def register_forward_hook(self, hook: Hook) -> Callable[[], None]:
        """Call `hook(module, inputs, out)` after each forward pass; returns a function that takes it away."""
        # kata 03.4: `__call__` looks for a list called _forward_hooks.
        hooks = vars(self).setdefault("_forward_hooks", [])
        hooks.append(hook)
        return lambda: hooks.remove(hook)

    def named_members(self) -> Iterator[tuple[str, Any]]:
        """The parameters, buffers and modules that this module itself holds, each with its path."""
        # kata 03.5: attributes are in `vars(self)`; containers can hold containers.
        return _members("", vars(self))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module (its path is `prefix`) and all modules below it, each once, parents first."""
        # kata 03.6: ask the members, and theirs; some may be met twice.
        return _named_modules(self, prefix, set())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters, of this module and those below; one that is shared has its first name only."""
        # kata 03.7: every module's own, in the order of `named_modules`.
        seen = set()
        for name, tensor in _named_tensors(self):
            if isinstance(tensor, Parameter) and tensor not in seen:
                seen.add(tensor)
                yield name, tensor

    def parameters(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def state_dict(self) -> dict[str, Array]:
        """The arrays (not copies) of all parameters and buffers; one that is shared, under each of its names."""
        # kata 03.8: what load_state_dict needs to make another module equal to this one.
        return {name: tensor.data for name, tensor in _named_tensors(self)}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copy arrays into the parameters and buffers of these names, in place and in the dtype they have.

        A ValueError names what is missing, what is there without being asked for (neither counts unless
        `strict`), and each shape that does not fit; then nothing at all has changed.
        """
        # kata 03.9: look first, copy then.
        own = self.state_dict()
        problems = [f"{name} is missing" for name in own if strict and name not in state]
        problems += [f"{name} is not of this module" for name in state if strict and name not in own]
        arrays = {name: np.asarray(state[name]) for name in own if name in state}
        problems += [
            f"{name} has shape {arrays[name].shape}, not {own[name].shape}"
            for name in arrays
            if arrays[name].shape != own[name].shape
        ]
        if problems:
            raise ValueError(f"this state does not fit {type(self).__name__}: {'; '.join(problems)}")
        for name, array in arrays.items():
            np.copyto(own[name], array, casting="same_kind")

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


def _members(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (Parameter, Buffer, Module)):
        yield path, value
        return
    items = value.items() if isinstance(value, dict) else enumerate(value if _is_list(value) else ())
    for key, item in items:
        yield from _members(f"{path}.{key}" if path else str(key), item)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _named_modules(module: Module, path: str, seen: set[Module]) -> Iterator[tuple[str, Module]]:
    if module in seen:
        return
    seen.add(module)
    yield path, module
    for name, member in module.named_members():
        if isinstance(member, Module):
            yield from _named_modules(member, _join(path, name), seen)


def _named_tensors(module: Module, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer under each of its names."""
    for name, member in module.named_members():
        if isinstance(member, Module):
            yield from _named_tensors(member, _join(path, name))
        else:
            yield _join(path, name), member


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


class Linear(Module):
    """x @ weight.T + bias.

    Both start uniform on [-1/sqrt(in_features), 1/sqrt(in_features)), as in PyTorch: outputs then are about as
    large as inputs, whatever the width.

    Attributes:
        weight: (out_features, in_features).
        bias: (out_features,), or None.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, rng: np.random.Generator
    ) -> None:
        # kata 03.11: float32, drawn from `rng`: first the weight, then the bias.
        bound = in_features**-0.5 if in_features else 0.0
        self.weight = Parameter(rng.uniform(-bound, bound, (out_features, in_features)).astype(np.float32))
        self.bias = Parameter(rng.uniform(-bound, bound, out_features).astype(np.float32)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        # kata 03.11: one operation.
        return affine(x, self.weight) if self.bias is None else affine(x, self.weight, self.bias)

    def flops(self, inputs: tuple[Any, ...], out: Any) -> int:
        # kata 03.12: a multiplication and an addition for each weight and row.
        in_features = self.weight.shape[1]
        per_output = 2 * in_features - (self.bias is None)
        return int(out.size * per_output)

    def extra_repr(self) -> str:
        out_features, in_features = self.weight.shape
        return f"in_features={in_features}, out_features={out_features}, bias={self.bias is not None}"


def descend(layer: Linear, x: Array, y: Array, lr: float) -> float:
    """One step of gradient descent on the mean squared error of `layer` over a batch; returns the error before.

    Forward with `affine.vjp`, back with what it returns, and each parameter moves by -lr times its gradient, in
    place.
    """
    # kata 03.13: the error is ((out - y) ** 2).mean(); what is its gradient with respect to `out`?
    out, back = affine.vjp(x, *(p.data for p in layer.parameters()))
    off = out - y
    for parameter, grad in zip(layer.parameters(), back(2 / off.size * off)[1:], strict=False):
        parameter.data -= lr * grad
    return float((off * off).mean())


def count_parameters(module: Module) -> int:
    """How many numbers training can change; shared ones count once, frozen ones not at all."""
    # kata 03.14: `size` of each.
    return sum(p.size for p in module.parameters() if p.requires_grad)


def parameter_bytes(module: Module) -> int:
    """Bytes of all parameters and buffers; memory that two share counts once."""
    # kata 03.14: the arrays of the state_dict, but a shared one is there under each of its names.
    return sum({id(array): array.nbytes for array in module.state_dict().values()}.values())


def summary(module: Module, *inputs: Any) -> list[tuple[str, str, tuple[int, ...], int, int]]:
    """A row (path, class, shape of its output, parameters, flops) for each module, in the order of their calls.

    The parameters and flops of a row are the module's own, without those of the modules below it, so that the
    columns add up. The forward pass that this takes leaves no hook behind, also if it fails.
    """
    # kata 03.15: a hook on every module.
    rows: list[tuple[str, str, tuple[int, ...], int, int]] = []
    seen: set[Parameter] = set()

    def note(path: str) -> Hook:
        def hook(one: Module, inputs: tuple[Any, ...], out: Any) -> None:
            own = {member for _, member in one.named_members() if isinstance(member, Parameter)} - seen
            seen.update(own)
            count = sum(p.size for p in own)
            rows.append((path, type(one).__name__, out.shape, count, one.flops(inputs, out)))

        return hook

    removers = [one.register_forward_hook(note(path)) for path, one in module.named_modules()]
    try:
        module(*inputs)
    finally:
        for remove in removers:
            remove()
    return rows
