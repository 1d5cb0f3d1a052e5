"""Kata 06, in another manner: depth first, with loops over axes and classes where the other has closures.

Importing this module turns recording on: each operation on a tensor that requires a gradient then leaves a
`Node`, which remembers what its rule needs and which nodes came before. `backward` walks these nodes from the
end to the beginning. The rules that you wrote in katas 03 and 04 work as they are; the operations of 02 get
theirs here.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ContextDecorator
from typing import Any

import numpy as np

from tinytorch.setup import assert_close, numerical_gradient
from tinytorch.tensor import (
    Array,
    Axis,
    Op,
    Shape,
    Tensor,
    absolute,
    add,
    amax,
    amin,
    as_array,
    clip,
    contiguous,
    div,
    exp,
    expand,
    getitem,
    join,
    log,
    matmul,
    maximum,
    mean,
    mul,
    neg,
    op,
    permute,
    power,
    reshape,
    set_recorder,
    sqrt,
    squeeze,
    sub,
    total,
    transpose,
    unsqueeze,
    var,
    version,
    view,
    where,
)

__all__ = [
    "Node", "backward", "checkpoint", "checkpoint_sequential", "flow", "forward_rule", "gradcheck",
    "graph_mermaid", "graph_text", "is_grad_enabled", "jvp", "no_grad", "record", "register_hook",
    "source_of", "spread", "topological", "unbroadcast",
]  # fmt: skip

Hook = Callable[[Array], Any]
Wanted = tuple[bool, ...]

# Rules for the operations of kata 02. Name after `grad` what a rule needs of the forward pass. Where an input
# was stretched, its gradient may be as large as the output: `unbroadcast` mends that later, once for all
# rules.


@add.gradient
def add_back(grad: Array) -> tuple[Array, Array]:
    return grad, grad


@sub.gradient
def sub_back(grad: Array) -> tuple[Array, Array]:
    return grad, -grad


@mul.gradient
def mul_back(grad: Array, a: Any, b: Any) -> tuple[Array, Array]:
    return grad * b, grad * a


@div.gradient
def div_back(grad: Array, a: Any, b: Any) -> tuple[Array, Array]:
    return grad / b, -grad * a / (np.asarray(b) * b)


@neg.gradient
def neg_back(grad: Array) -> Any:
    return -grad


@exp.gradient
def exp_back(grad: Array, out: Array) -> Any:
    return grad * out


@log.gradient
def log_back(grad: Array, a: Any) -> Any:
    return grad / a


@sqrt.gradient
def sqrt_back(grad: Array, out: Array) -> Any:
    return 0.5 * grad / out


@power.gradient
def power_back(grad: Array, a: Any, b: Any, needs_input_grad: Wanted) -> tuple[Array | None, Array | None]:
    for_a = for_b = None
    a, b = np.asarray(a, grad.dtype), np.asarray(b, grad.dtype)
    with np.errstate(all="ignore"):
        if needs_input_grad[0]:
            for_a = grad * b * np.where(b == 0, 1, a) ** np.where(b == 0, 0, b - 1)
        if needs_input_grad[1]:
            flat = (a == 0) & (b >= 0)
            for_b = grad * np.where(flat, 0, a**b) * np.log(np.where(flat, 1, a))
    return for_a, for_b


@absolute.gradient
def absolute_back(grad: Array, a: Any) -> Any:
    return np.where(np.equal(a, 0), 0, np.where(np.less(a, 0), -grad, grad))


@maximum.gradient
def maximum_back(grad: Array, a: Any, b: Any) -> tuple[Array, Array]:
    half = np.asarray(0.5, grad.dtype)
    of_a = np.greater(a, b) + half * np.equal(a, b)
    return grad * of_a, grad * (1 - of_a)


@clip.gradient
def clip_back(grad: Array, a: Array, min: float | None, max: float | None) -> Any:
    low, high = -np.inf if min is None else min, np.inf if max is None else max
    return np.where(np.logical_and(a >= low, a <= high), grad, np.zeros_like(grad))


@where.gradient
def where_back(grad: Array, condition: Any) -> tuple[None, Array, Array]:
    return None, np.where(condition, grad, 0), np.where(condition, 0, grad)


@matmul.gradient
def matmul_back(grad: Array, a: Any, b: Any, needs_input_grad: Wanted) -> tuple[Array | None, Array | None]:
    a, b = np.asarray(a), np.asarray(b)
    if b.ndim == 1:
        for_a = grad[..., None] * b if needs_input_grad[0] else None
        for_b = np.tensordot(grad, a, grad.ndim) if needs_input_grad[1] else None
        return for_a, for_b
    for_a = (
        np.matmul(grad[..., None, :] if a.ndim == 1 else grad, b.swapaxes(-1, -2))
        if needs_input_grad[0]
        else None
    )
    if a.ndim == 1 and for_a is not None:
        for_a = for_a[..., 0, :]
    if not needs_input_grad[1]:
        return for_a, None
    if a.ndim == 1:
        return for_a, a[:, None] * grad[..., None, :]
    if b.ndim == 2:
        axes = list(range(a.ndim - 1))
        return for_a, np.tensordot(a, grad, (axes, axes))
    return for_a, np.matmul(a.swapaxes(-1, -2), grad)


def spread(grad: Array, shape: Shape, axis: Axis, keepdims: bool) -> Array:
    """A reduction's gradient, repeated to the shape of what was reduced: a view."""
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    gone = {one % len(shape) for one in axes} if shape else set()
    return np.broadcast_to(grad.reshape([1 if i in gone else n for i, n in enumerate(shape)]), shape)


@total.gradient
def total_back(grad: Array, input_shapes: list[Shape], axis: Axis, keepdims: bool) -> Any:
    return spread(grad, input_shapes[0], axis, keepdims)


@mean.gradient
def mean_back(grad: Array, input_shapes: list[Shape], axis: Axis, keepdims: bool) -> Any:
    count = math.prod(input_shapes[0]) // max(grad.size, 1)
    return spread(grad / max(count, 1), input_shapes[0], axis, keepdims)


@var.gradient
def var_back(grad: Array, a: Array, axis: Axis, correction: int, keepdims: bool) -> Any:
    distances = a - a.mean(axis, keepdims=True)
    divisor = max(a.size // max(grad.size, 1) - correction, 0)
    with np.errstate(all="ignore"):
        distances *= spread(2 * grad / np.asarray(divisor, grad.dtype), a.shape, axis, keepdims)
    return distances


@amax.gradient
def amax_back(grad: Array, a: Array, out: Array, axis: Axis, keepdims: bool) -> Any:
    return _share_among_equals(grad, a, out, axis, keepdims)


@amin.gradient
def amin_back(grad: Array, a: Array, out: Array, axis: Axis, keepdims: bool) -> Any:
    return _share_among_equals(grad, a, out, axis, keepdims)


def _share_among_equals(grad: Array, a: Array, out: Array, axis: Axis, keepdims: bool) -> Any:
    chosen = np.equal(a, spread(out, a.shape, axis, keepdims)).astype(grad.dtype)
    with np.errstate(all="ignore"):
        chosen /= chosen.sum(axis, keepdims=True)
    return chosen * spread(grad, a.shape, axis, keepdims)


@reshape.gradient
def reshape_back(grad: Array, input_shapes: list[Shape]) -> Any:
    return grad.reshape(input_shapes[0])


@view.gradient
def view_back(grad: Array, input_shapes: list[Shape]) -> Any:
    return grad.reshape(input_shapes[0])


@contiguous.gradient
def contiguous_back(grad: Array) -> Any:
    return grad


@transpose.gradient
def transpose_back(grad: Array, axis0: int, axis1: int) -> Any:
    return np.swapaxes(grad, axis0, axis1)


@permute.gradient
def permute_back(grad: Array, axes: Shape) -> Any:
    back = [0] * len(axes)
    for place, axis in enumerate(axes):
        back[axis] = place
    return grad.transpose(back)


@squeeze.gradient
def squeeze_back(grad: Array, input_shapes: list[Shape]) -> Any:
    return grad.reshape(input_shapes[0])


@unsqueeze.gradient
def unsqueeze_back(grad: Array, axis: int) -> Any:
    return np.squeeze(grad, axis)


@expand.gradient
def expand_back(grad: Array) -> Any:
    return grad


@getitem.gradient
def getitem_back(grad: Array, input_shapes: list[Shape], index: Any) -> Any:
    places = np.arange(math.prod(input_shapes[0])).reshape(input_shapes[0])[index]
    sums = np.bincount(np.ravel(places), np.ravel(grad), minlength=math.prod(input_shapes[0]))
    return sums.reshape(input_shapes[0]).astype(grad.dtype)


@join.gradient
def join_back(grad: Array, lengths: list[int], axis: int) -> tuple[Array, ...]:
    ends = list(itertools.accumulate(lengths))
    grad = np.moveaxis(grad, axis, 0)
    return tuple(np.moveaxis(grad[end - n : end], 0, axis) for n, end in zip(lengths, ends, strict=True))


# The graph.


class Node:
    """One operation that was recorded.

    It does not know the tensor it belongs to, nor its inputs: an array that no rule asked for goes when its
    tensor goes.

    Attributes:
        op: the operation.
        kept: what its rule asked for; None after a backward pass has used and freed it.
        sources: for each input the Node that made it, the Tensor itself if it is a leaf, or None if no
            gradient goes there; empty once freed.
        shape, dtype: of the result.
        made: the number of the last write in place (`version()`) when this was recorded.
        hooks: what `register_hook` has added, or None.
    """

    __slots__ = ("dtype", "hooks", "kept", "made", "op", "shape", "sources")

    def __init__(self, op: Op, kept: list[Any] | None, sources: Sequence[Any], out: Array) -> None:
        self.op = op
        self.kept = kept
        self.sources = sources
        self.shape = out.shape
        self.dtype = out.dtype
        self.made = version()
        self.hooks: list[Hook] | None = None

    def __repr__(self) -> str:
        return f"<node {self.op.name} {self.shape}>"


Source = Node | Tensor


def source_of(x: Any) -> Source | None:
    """Where the gradient of an input goes: to the node that made it, to the leaf that it is, or nowhere."""
    if not isinstance(x, Tensor) or not x.requires_grad:
        return None
    return x if x.node is None else x.node


def record(op: Op, inputs: tuple[Any, ...], arrays: list[Any], params: dict[str, Any], out: Tensor) -> None:
    """Give `out` a node. Called after each operation with an input that requires a gradient."""
    sources = []
    for x in inputs:  # source_of, written out: this is done for every operation
        if isinstance(x, Tensor) and x.requires_grad:
            sources.append(x if x.node is None else x.node)
        else:
            sources.append(None)
    if sources[0] is out:
        sources[0] = None
    kept = op.keep(out.data, arrays, params) if op.needs else []
    out.node = Node(op, kept, sources, out.data)


def unbroadcast(grad: Array, shape: Shape) -> Any:
    """The gradient of an input of `shape` that was stretched to the shape of `grad`: its uses add up."""
    if len(shape) > grad.ndim:
        raise ValueError(f"a gradient of shape {grad.shape} does not fit an input of shape {shape}")
    padded = (1,) * (grad.ndim - len(shape)) + shape
    result = grad
    for axis, (n, m) in enumerate(zip(padded, grad.shape, strict=True)):
        if n == 1 and m != 1:
            result = result.sum(axis=axis, keepdims=True)
        elif n != m:
            raise ValueError(f"a gradient of shape {grad.shape} does not fit an input of shape {shape}")
    return result.reshape(shape)


def topological(root: Source, ends: Collection[Source] = ()) -> list[Source]:
    """`root` and all that it was made from, nodes and leaves, each once and after everything that uses it."""
    order: list[Source] = []
    seen: set[Source] = {root}
    stack: list[tuple[Source, Iterator[Source | None]]] = [(root, iter(sources_of(root, ends)))]
    while stack:
        item, rest = stack[-1]
        for source in rest:
            if source is not None and source not in seen:
                seen.add(source)
                stack.append((source, iter(sources_of(source, ends))))
                break
        else:
            order.append(item)
            stack.pop()
    order.reverse()
    return order


def sources_of(item: Source, ends: Collection[Source] = ()) -> Sequence[Source | None]:
    """Where a node's gradient goes on to; nowhere, from a leaf and from one of `ends`."""
    return item.sources if isinstance(item, Node) and item not in ends else ()


def shares_of(node: Node, grad: Array) -> list[tuple[Source, Any]]:
    """What of a node's gradient each of its sources gets, in the source's shape and dtype."""
    shares = node.op.pull(hooked(node.hooks or (), grad), *node.kept)  # type: ignore[misc]
    shares = [shares] if isinstance(shares, (np.ndarray, np.generic)) or shares is None else [*shares]
    found: list[tuple[Source, Any]] = []
    for i, source in enumerate(node.sources):
        if source is None:
            continue
        if i >= len(shares):
            raise TypeError(f"{node.op.name}: its rule has no gradient for input {i}")
        if shares[i] is not None:
            share = np.asarray(shares[i], source.dtype)
            found.append((source, share if share.shape == source.shape else unbroadcast(share, source.shape)))
    return found


def hooked(hooks: Iterable[Hook], grad: Array) -> Array:
    """What becomes of `grad` when each hook has seen it. ValueError if one changes its shape."""
    for hook in [*hooks]:
        other = hook(grad)
        if other is not None:
            other = np.asarray(other, grad.dtype)
            if other.shape != grad.shape:
                raise ValueError(f"a hook made a gradient of shape {grad.shape} into one of {other.shape}")
            grad = other
    return grad


def look_over(nodes: Iterable[Node]) -> None:
    """Refuse what would go wrong halfway; every message names the op.

    Raises:
        RuntimeError: a node was freed by an earlier backward pass; or an array that one keeps, by itself or
            in a list, tuple or Tensor, was written over since it was made.
        TypeError: an op has no gradient rule.
    """
    now = version()
    for node in nodes:
        name = node.op.name
        if node.kept is None:
            raise RuntimeError(
                f"{name} {node.shape} was freed by an earlier backward(): to go back a second time, call the "
                "first with retain_graph=True"
            )
        if node.op.pull is None:
            raise TypeError(f"{name} has no gradient rule: write one with @{name}.gradient")
        if now > node.made and any(version(array) > node.made for array in _arrays_in(node.kept)):
            raise RuntimeError(
                f"an array that {name} {node.shape} kept for its gradient was changed in place since: change "
                "a copy, or an array that no rule keeps"
            )


def _arrays_in(kept: Any) -> Iterator[Array]:
    if isinstance(kept, (list, tuple)):
        for item in kept:
            yield from _arrays_in(item)
    elif isinstance(kept, Tensor):
        yield kept.data
    elif isinstance(kept, np.ndarray):
        yield kept


def flow(
    root: Source, grad: Array, retain_graph: bool = False, ends: Collection[Source] = ()
) -> Iterator[tuple[Source, Array]]:
    """Carry `grad` back from `root`; yields each leaf, and each of `ends`, with all the gradient it got."""
    order = topological(root, ends)
    look_over([item for item in order if isinstance(item, Node) and item not in ends])
    arrived: dict[Source, list[Any]] = {root: [grad]}
    for item in order:
        shares = arrived.pop(item, [])
        whole = np.asarray(sum(shares[1:], start=shares[0])) if shares else None
        del shares
        if not isinstance(item, Node) or item in ends:
            if whole is not None:
                yield item, whole
            continue
        if whole is not None:
            for source, share in shares_of(item, whole):
                if source in arrived:
                    arrived[source] = [arrived[source][0] + share]
                else:
                    arrived[source] = [share]
        if not retain_graph:
            item.kept = None
            item.sources = ()


def backward(tensor: Tensor, grad: Any = None, retain_graph: bool = False) -> None:
    """Add the gradient of `tensor` to `.grad` of every leaf that it was made from and that requires one.

    `grad` is the gradient that `tensor` itself has, of its shape; it may be left out for one number, and is 1
    then. `.grad` is an array of the leaf's shape and dtype that nothing else shares. The graph is freed on
    the way, unless `retain_graph`.

    Raises:
        RuntimeError: `tensor` was not recorded, or part of its graph has been freed, or an array that a rule
            kept was changed in place since; the message names the op.
        ValueError: `grad` is missing, or has another shape than `tensor`; the message names the shapes.
        TypeError: an op on the way has no gradient rule; the message names it.
    """
    root = source_of(tensor)
    if root is None:
        raise RuntimeError(
            "backward() needs a tensor that was recorded: something it is made from must require a gradient, "
            "and `import tinytorch.autograd` must come before the computation, outside of no_grad()"
        )
    if grad is None:
        if tensor.size != 1:
            raise ValueError(
                f"backward() of a tensor of shape {tensor.shape} needs the gradient of that shape"
            )
        grad = np.ones_like(tensor.data)
    grad = np.asarray(grad.data if isinstance(grad, Tensor) else grad, tensor.dtype)
    if grad.shape != tensor.shape:
        raise ValueError(f"the gradient has shape {grad.shape}, and the tensor has {tensor.shape}")
    leaf: Any
    for leaf, share in flow(root, grad, retain_graph):
        share = hooked(_leaf_hooks.get(id(leaf), ()), share)
        leaf.grad = np.array(share) if leaf.grad is None else np.asarray(leaf.grad + share)


class no_grad(ContextDecorator):
    """Nothing is recorded inside of `with no_grad():`, nor in a function under `@no_grad()`."""

    def __init__(self) -> None:
        self.before: list[Any] = []

    def __enter__(self) -> None:
        self.before.append(set_recorder(None))

    def __exit__(self, *exc: object) -> None:
        set_recorder(self.before.pop())


def is_grad_enabled() -> bool:
    """Whether operations are recorded just now."""
    recorder = set_recorder(None)
    set_recorder(recorder)
    return recorder is not None


# The hooks of leaves, by id; an entry goes with its tensor.
_leaf_hooks: dict[int, list[Hook]] = {}


def register_hook(tensor: Tensor, hook: Hook) -> Callable[[], None]:
    """Call `hook(grad)` with the whole gradient of `tensor` in each backward pass; returns what takes it
    away.

    What the hook returns, if not None, goes on in place of the gradient, and must have its shape
    (ValueError). It must not change the array that it gets. RuntimeError if `tensor` does not require a
    gradient.
    """
    source = source_of(tensor)
    if source is None:
        raise RuntimeError("a hook waits for a gradient, and this tensor does not require one")
    if isinstance(source, Node):
        hooks = source.hooks = source.hooks or []
    elif id(source) in _leaf_hooks:
        hooks = _leaf_hooks[id(source)]
    else:
        hooks = _leaf_hooks[id(source)] = []
        weakref.finalize(source, _leaf_hooks.pop, id(source), None)

    def own(grad: Array) -> Any:
        return hook(grad)

    hooks.append(own)

    def remove() -> None:
        if own in hooks:
            hooks.remove(own)

    return remove


# Memory for time.


@op(saves=["inner", "outside", "states", "wanted"])
def checkpointed(
    *inputs: Any, function: Callable[..., Tensor], rngs: Sequence[np.random.Generator]
) -> tuple[Array, list[Any], list[Tensor], list[Any], bool]:
    """`function` of `inputs`, with nothing recorded; and what it takes to do it again.

    That is: `inner`, the inputs in tensors of their own; `outside`, each tensor that requires a gradient and
    that `function` used without being handed it (parameters); where the generators stood; and whether the
    result requires a gradient.
    """
    inner = [Tensor(x.data, x.requires_grad) if isinstance(x, Tensor) else x for x in inputs]
    states = [rng.bit_generator.state for rng in rngs]
    inside = Node(checkpointed, None, (), np.empty(0))
    outside: dict[Tensor, None] = {}

    def note(x: Any) -> None:
        if isinstance(x, Tensor) and x.requires_grad and x.node is not inside and x not in inner_tensors:
            outside[x] = None

    def watch(
        op: Op, inputs: tuple[Any, ...], arrays: list[Any], params: dict[str, Any], out: Tensor
    ) -> None:
        for x in inputs:
            if x is not out:
                note(x)
        out.node = inside

    inner_tensors = {x for x in inner if isinstance(x, Tensor)}
    recorder = set_recorder(watch)
    try:
        out = function(*inner)
    finally:
        set_recorder(recorder)
    note(out)
    return out.data, inner, list(outside), states, out.requires_grad


@checkpointed.gradient
def checkpointed_back(
    grad: Array,
    function: Callable[..., Tensor],
    rngs: Sequence[np.random.Generator],
    inner: list[Any],
    outside: list[Tensor],
    states: list[Any],
) -> list[Array | None]:
    """Run it again, recorded, and let `grad` flow through that, to each of `inner` and of `outside`."""
    now = [rng.bit_generator.state for rng in rngs]
    recorder = set_recorder(record)
    try:
        for rng, state in zip(rngs, states, strict=True):
            rng.bit_generator.state = state
        root: Any = source_of(function(*inner))
    finally:
        set_recorder(recorder)
        for rng, state in zip(rngs, now, strict=True):
            rng.bit_generator.state = state
    ends: set[Any] = {source_of(x) for x in outside}
    found: dict[Any, Array] = dict(flow(root, grad, ends=ends))
    return [found.get(source_of(x)) for x in (*inner, *outside)]


def checkpoint(
    function: Callable[..., Tensor], *inputs: Any, rngs: Sequence[np.random.Generator] = ()
) -> Tensor:
    """`function(*inputs)`, one tensor, which keeps only its inputs: on the way back it is computed again.

    Gradients reach the inputs, and all else that `function` uses (parameters). Generators that it draws from
    are to be named in `rngs`: the second time they give the same numbers, and then stand again where they
    stood. Where nothing is recorded, or something else records, this is just `function(*inputs)`.
    """
    recorder = set_recorder(None)
    set_recorder(recorder)
    if recorder is not record:
        return function(*inputs)
    result, params = checkpointed.run(inputs, {"function": function, "rngs": rngs})
    out = Tensor(result, requires_grad=params["wanted"])
    if out.requires_grad:
        record(checkpointed, (*inputs, *params["outside"]), [], params, out)
    return out


def checkpoint_sequential(
    layers: Iterable[Callable[[Tensor], Tensor]],
    segments: int,
    x: Tensor,
    rngs: Sequence[np.random.Generator] = (),
) -> Tensor:
    """`x` through all `layers`, in `segments` pieces of about equal length, all but the last checkpointed.

    The last would be computed again as soon as it is done. ValueError unless there is at least one segment.
    """
    layers = list(layers)
    if segments < 1:
        raise ValueError(f"there must be at least one segment, not {segments}")
    bounds = [len(layers) * i // segments for i in range(segments + 1)]
    for start, end in itertools.pairwise(bounds):

        def piece(x: Tensor, some: Sequence[Callable[[Tensor], Tensor]] = layers[start:end]) -> Tensor:
            for layer in some:
                x = layer(x)
            return x

        x = piece(x) if end == len(layers) else checkpoint(piece, x, rngs=rngs)
    return x


def gradcheck(
    function: Callable[..., Tensor],
    *arrays: Any,
    rng: np.random.Generator,
    rtol: float = 1e-5,
    atol: float = 1e-7,
) -> bool:
    """True if the gradients of `function` are those that central differences find; else an AssertionError.

    It is tried in float64, with a random gradient of the output drawn from `rng`, at `arrays`: those of
    floats become tensors that require a gradient, others are handed on. The error names the argument, counted
    from 0, and the worst element. A result that is not float64 any more is an AssertionError too, which names
    its dtype.
    """
    inputs = [Tensor(np.array(a, np.float64), True) if np.asarray(a).dtype.kind == "f" else a for a in arrays]
    out = function(*inputs)
    if out.dtype != np.float64:
        raise AssertionError(f"float64 went in, and {out.dtype} came out")
    weights = np.asarray(rng.standard_normal(out.shape))
    out.backward(weights)
    for i, x in enumerate(inputs):
        if isinstance(x, Tensor):

            def number(moved: Array, i: int = i) -> Any:
                with no_grad():
                    return (function(*inputs[:i], Tensor(moved), *inputs[i + 1 :]).data * weights).sum()

            found = np.zeros(x.shape) if x.grad is None else x.grad
            try:
                assert_close(found, numerical_gradient(number, x.data), rtol=rtol, atol=atol)
            except AssertionError as error:
                raise AssertionError(f"the gradient of argument {i} is wrong: {error}") from None
    return True


# Forward mode. A recorder again, but `out.node` is not what the way back will need: it is the tangent of
# `out`, an array that says how fast `out` changes while the inputs move. Nothing is kept.

ForwardRule = Callable[[Op, list[Any], list[Any], dict[str, Any], Array], Any]
_forward_rules: dict[str, ForwardRule] = {}


def forward_rule(*names: str) -> Callable[[ForwardRule], ForwardRule]:
    """Attach `rule(op, tangents, arrays, params, out)`, the tangent of `out`, to operations of these names.

    `tangents` has an array for each input that moves, and None for the others.
    """

    def attach(rule: ForwardRule) -> ForwardRule:
        _forward_rules.update(dict.fromkeys(names, rule))
        return rule

    return attach


@forward_rule(
    "add", "sub", "neg", "total", "mean", "reshape", "contiguous", "transpose", "permute", "squeeze",
    "unsqueeze", "expand", "getitem", "join",
)  # fmt: skip
def push_linear(op: Op, tangents: list[Any], arrays: list[Any], params: dict[str, Any], out: Array) -> Any:
    """Of an operation that is linear in all its inputs together, the tangent is what it makes of theirs."""
    moves = [np.zeros_like(a) if t is None else t for t, a in zip(tangents, arrays, strict=True)]
    return op.run(moves, {name: params[name] for name in op.params if name in params})[0]


@forward_rule("view")
def push_view(op: Op, tangents: list[Any], arrays: list[Any], params: dict[str, Any], out: Array) -> Any:
    return tangents[0].reshape(out.shape)


@forward_rule(
    "mul", "div", "power", "exp", "log", "sqrt", "tanh", "tanh_", "absolute", "maximum", "clip", "where",
    "relu", "relu_", "leaky_relu", "leaky_relu_", "sigmoid", "sigmoid_", "gelu", "dropout", "softmax",
)  # fmt: skip
def push_elementwise(
    op: Op, tangents: list[Any], arrays: list[Any], params: dict[str, Any], out: Array
) -> Any:
    """Where each output depends on its own element of each input only, the way there is the way back.

    The matrix of all derivatives is diagonal then, and so its own transpose. So is that of softmax, which is
    not diagonal but symmetric.
    """
    kept = op.keep(out, arrays, params)
    moved: Any = 0
    for i, tangent in enumerate(tangents):
        if tangent is not None:
            shares = op.pull(np.broadcast_to(tangent, out.shape), *kept)  # type: ignore[misc]
            moved = moved + (shares[i] if isinstance(shares, (tuple, list)) else shares)
    return moved


@forward_rule("matmul", "affine")
def push_product(op: Op, tangents: list[Any], arrays: list[Any], params: dict[str, Any], out: Array) -> Any:
    """The product rule: (a b)' = a' b + a b', and the tangent of a bias, if there is one, comes on top."""
    a, b = arrays[:2]
    moved: Any = 0
    if tangents[0] is not None:
        moved = moved + op.forward(tangents[0], b)
    if tangents[1] is not None:
        moved = moved + op.forward(a, tangents[1])
    if tangents[2:] and tangents[2] is not None:
        moved = moved + tangents[2]
    return moved


@forward_rule("amax", "amin", "var")
def push_reduction(op: Op, tangents: list[Any], arrays: list[Any], params: dict[str, Any], out: Array) -> Any:
    """Each output depends on what was reduced to it: the slopes there times the tangents, added up."""
    slopes = op.pull(np.ones_like(out), *op.keep(out, arrays, params))  # type: ignore[misc]
    return (slopes * tangents[0]).sum(params.get("axis"), keepdims=params.get("keepdims", False))


def jvp(
    function: Callable[..., Tensor], primals: Sequence[Any], tangents: Sequence[Any]
) -> tuple[Array, Array]:
    """`function` of `primals`, and how fast it changes when these move along `tangents`, in the same pass.

    Both sequences hold arrays of floats, one of each for each input. Whatever else the function uses stands
    still. Nothing is kept for later, however long the function.

    Raises:
        ValueError: a tangent has not the shape of its primal; the message names both.
        TypeError: an op on the way has no forward rule; the message names it.
    """

    def push(op: Op, inputs: tuple[Any, ...], arrays: list[Any], params: dict[str, Any], out: Tensor) -> None:
        moves = [tangent_of(x) for x in inputs]
        if any(move is not None for move in moves):
            if op.name not in _forward_rules:
                raise TypeError(f"{op.name} has no forward rule: write one with @forward_rule({op.name!r})")
            moved = _forward_rules[op.name](op, moves, arrays, params, out.data)
            out.node = np.broadcast_to(np.asarray(moved, out.dtype), out.shape)

    def tangent_of(x: Any) -> Array | None:
        return x.node if isinstance(x, Tensor) and isinstance(x.node, np.ndarray) else None

    inputs = []
    for primal, tangent in zip(primals, tangents, strict=True):
        x = Tensor(primal, requires_grad=True)
        x.node = np.asarray(as_array(tangent), x.dtype)
        if x.node.shape != x.shape:
            raise ValueError(f"a tangent of shape {x.node.shape} does not fit an input of shape {x.shape}")
        inputs.append(x)
    recorder = set_recorder(push)
    try:
        out = function(*inputs)
    finally:
        set_recorder(recorder)
    moved = tangent_of(out)
    return out.data, np.zeros_like(out.data) if moved is None else moved


# The graph, to look at.


def graph_text(tensor: Tensor) -> str:
    """The graph that ends in `tensor`, a line for each leaf and node, numbered in an order of computing."""
    text = ""
    for i, label, sources, item in _numbered(tensor):
        text += f"{i}: {label}"
        if isinstance(item, Node) and not sources:
            text += ", freed"
        elif isinstance(item, Node):
            kept = sum(array.nbytes for array in _arrays_in(item.kept))
            text += f" of {', '.join(str(source) for source in sources)}, keeps {kept} bytes"
        text += "\n"
    return text.removesuffix("\n")


def graph_mermaid(tensor: Tensor) -> str:
    """The same graph in Mermaid, a language that GitHub and many editors draw.

    A line `flowchart TD`; then one for each of `graph_text`'s, `n0(["Tensor (3,)"])` for a leaf and
    `n2["mul (3,)"]` for an operation; then one for each use, `n0 --> n2`.
    """
    boxes, arrows = [], []
    for i, label, sources, item in _numbered(tensor):
        boxes.append(f'n{i}["{label}"]' if isinstance(item, Node) else f'n{i}(["{label}"])')
        arrows += [f"n{source} --> n{i}" for source in sources]
    return "\n    ".join(["flowchart TD", *boxes, *arrows])


def _numbered(tensor: Tensor) -> Iterator[tuple[int, str, list[int], Source]]:
    """Number, label, numbers of the sources, and the leaf or node itself."""
    root = source_of(tensor)
    number: dict[Source, int] = {}
    for item in reversed(topological(root) if root is not None else ()):
        number[item] = len(number)
        name = item.op.name if isinstance(item, Node) else type(item).__name__
        sources = [number[source] for source in sources_of(item) if source is not None]
        yield number[item], f"{name} {item.shape}", sources, item


# From here on, operations are recorded.
set_recorder(record)
