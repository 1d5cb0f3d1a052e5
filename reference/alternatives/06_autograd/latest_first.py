"""Kata 06, in another manner: nodes are numbered as they are made, and a heap hands them out.

Importing this module turns recording on: each operation on a tensor that requires a gradient then leaves a
`Node`, which remembers what its rule needs and which nodes came before. `backward` walks these nodes from the
end to the beginning. The rules that you wrote in katas 03 and 04 work as they are; the operations of 02 get
theirs here.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
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
    return grad.copy(), grad


@sub.gradient
def sub_back(grad: Array) -> tuple[Array, Array]:
    return grad, -grad


@mul.gradient
def mul_back(grad: Array, a: Any, b: Any) -> tuple[Array, Array]:
    return grad * b, grad * a


@div.gradient
def div_back(grad: Array, out: Array, b: Any) -> tuple[Array, Array]:
    share = grad / b
    return share, -share * out


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
    return grad / (2 * out)


@power.gradient
def power_back(grad: Array, a: Any, b: Any, needs_input_grad: Wanted) -> tuple[Array | None, Array | None]:
    for_a = for_b = None
    with np.errstate(divide="ignore", invalid="ignore"):
        if needs_input_grad[0]:
            power = a ** (b - 1) if b.__class__ in (int, float) else np.power(a, np.subtract(b, 1))
            for_a = np.where(np.equal(b, 0), 0, grad * (b * power))
        if needs_input_grad[1]:
            a = np.asarray(a, grad.dtype)
            for_b = np.where((a == 0) & np.greater_equal(b, 0), 0, grad * (a**b * np.log(a)))
    return for_a, for_b


@absolute.gradient
def absolute_back(grad: Array, a: Any) -> Any:
    return grad * np.sign(a)


@maximum.gradient
def maximum_back(grad: Array, a: Any, b: Any) -> tuple[Array, Array]:
    shared = np.where(np.equal(a, b), grad / 2, grad)
    return np.where(np.less(a, b), 0, shared), np.where(np.less(b, a), 0, shared)


@clip.gradient
def clip_back(grad: Array, a: Array, min: float | None, max: float | None) -> Any:
    inside = np.ones(a.shape, bool) if min is None else a >= min
    return np.where(inside if max is None else inside & (a <= max), grad, 0)


@where.gradient
def where_back(grad: Array, condition: Any) -> tuple[None, Array, Array]:
    condition = np.broadcast_to(condition, grad.shape)
    for_a, for_b = np.zeros_like(grad), grad.copy()
    np.copyto(for_a, grad, where=condition)
    np.copyto(for_b, 0, where=condition)
    return None, for_a, for_b


@matmul.gradient
def matmul_back(grad: Array, a: Any, b: Any, needs_input_grad: Wanted) -> tuple[Array | None, Array | None]:
    a, b = np.asarray(a), np.asarray(b)
    left = a.reshape(1, -1) if a.ndim == 1 else a
    right = b.reshape(-1, 1) if b.ndim == 1 else b
    grad = grad.reshape(
        *np.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1]
    )
    for_a = for_b = None
    if needs_input_grad[0]:
        for_a = np.einsum("...nm,...km->...nk", grad, right, optimize=True)
        for_a = for_a[..., 0, :] if a.ndim == 1 else for_a
    if needs_input_grad[1]:
        if right.ndim == 2:
            for_b = (
                np.einsum(
                    "rk,rm->km",
                    left.reshape(-1, max(left.shape[-1], 1)),
                    grad.reshape(-1, max(grad.shape[-1], 1)),
                )
                if left.size and grad.size
                else np.zeros(right.shape, grad.dtype)
            )
        else:
            for_b = np.einsum("...nk,...nm->...km", left, grad)
        for_b = for_b[..., 0] if b.ndim == 1 else for_b
    return for_a, for_b


def spread(grad: Array, shape: Shape, axis: Axis, keepdims: bool) -> Array:
    """A reduction's gradient, repeated to the shape of what was reduced: a view."""
    if axis is not None and not keepdims:
        grad = np.expand_dims(grad, axis)
    return np.broadcast_to(grad, shape)


@total.gradient
def total_back(grad: Array, input_shapes: list[Shape], axis: Axis, keepdims: bool) -> Any:
    return spread(grad, input_shapes[0], axis, keepdims)


@mean.gradient
def mean_back(grad: Array, input_shapes: list[Shape], axis: Axis, keepdims: bool) -> Any:
    count = math.prod(input_shapes[0]) // max(grad.size, 1)
    return spread(grad / max(count, 1), input_shapes[0], axis, keepdims)


@var.gradient
def var_back(grad: Array, a: Array, axis: Axis, correction: int, keepdims: bool) -> Any:
    count = a.size // max(grad.size, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        grad = 2 * grad / max(count - correction, 0)
        return spread(grad, a.shape, axis, keepdims) * (a - a.mean(axis, keepdims=True))


@amax.gradient
def amax_back(grad: Array, a: Array, out: Array, axis: Axis, keepdims: bool) -> Any:
    return _share_among_equals(grad, a, out, axis, keepdims)


@amin.gradient
def amin_back(grad: Array, a: Array, out: Array, axis: Axis, keepdims: bool) -> Any:
    return _share_among_equals(grad, a, out, axis, keepdims)


def _share_among_equals(grad: Array, a: Array, out: Array, axis: Axis, keepdims: bool) -> Any:
    chosen = a == spread(out, a.shape, axis, keepdims)
    count = chosen.sum(axis, grad.dtype, keepdims=keepdims)
    with np.errstate(divide="ignore", invalid="ignore"):  # nan is equal to nothing
        return spread(grad / count, a.shape, axis, keepdims) * chosen


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
    return np.transpose(grad, np.argsort([axis % grad.ndim for axis in axes]))


@squeeze.gradient
def squeeze_back(grad: Array, input_shapes: list[Shape]) -> Any:
    return grad.reshape(input_shapes[0])


@unsqueeze.gradient
def unsqueeze_back(grad: Array, axis: int) -> Any:
    return np.squeeze(grad, axis)


@expand.gradient
def expand_back(grad: Array, input_shapes: list[Shape]) -> Any:
    return unbroadcast(grad, input_shapes[0])


@getitem.gradient
def getitem_back(grad: Array, input_shapes: list[Shape], index: Any) -> Any:
    full = np.zeros(input_shapes[0], grad.dtype)
    parts = index if isinstance(index, tuple) else (index,)
    if all(part is None or part is Ellipsis or isinstance(part, (slice, int, np.integer)) for part in parts):
        full[index] = grad
    else:
        np.add.at(full, index, grad)
    return full


@join.gradient
def join_back(grad: Array, lengths: list[int], axis: int) -> list[Array]:
    return np.split(grad, np.cumsum(lengths)[:-1], axis)


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

    __slots__ = ("dtype", "hooks", "kept", "made", "number", "op", "shape", "sources")
    count = itertools.count()

    def __init__(self, op: Op, kept: list[Any] | None, sources: Sequence[Any], out: Array) -> None:
        self.op = op
        self.kept = kept
        self.sources = sources
        self.shape = out.shape
        self.dtype = out.dtype
        self.made = version()
        self.number = next(Node.count)
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
    sources = tuple(None if (source := source_of(x)) is out else source for x in inputs)
    out.node = Node(op, op.keep(out.data, arrays, params), sources, out.data)


def unbroadcast(grad: Array, shape: Shape) -> Any:
    """The gradient of an input of `shape` that was stretched to the shape of `grad`: its uses add up."""
    try:
        fits = np.broadcast_shapes(shape, grad.shape) == grad.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{grad.shape} is no stretched {shape}")
    while grad.ndim > len(shape):
        grad = grad.sum(axis=0)
    for axis in [i for i, n in enumerate(shape) if n == 1]:
        grad = grad.sum(axis=axis, keepdims=True)
    return grad


def topological(root: Source, ends: Collection[Source] = ()) -> list[Source]:
    """`root` and all that it was made from, nodes and leaves, each once and after everything that uses it.

    What is used was made before what uses it: so the latest comes first, and the leaves at the end.
    """
    if not isinstance(root, Node):
        return [root]
    order: list[Source] = []
    leaves: dict[Source, None] = {}
    waiting, seen = [(-root.number, root)], {root}
    while waiting:
        _, node = heapq.heappop(waiting)
        order.append(node)
        for source in sources_of(node, ends):
            if not isinstance(source, Node):
                if source is not None:
                    leaves[source] = None
            elif source not in seen:
                seen.add(source)
                heapq.heappush(waiting, (-source.number, source))
    return [*order, *leaves]


def sources_of(item: Source, ends: Collection[Source] = ()) -> Sequence[Source | None]:
    """Where a node's gradient goes on to; nowhere, from a leaf and from one of `ends`."""
    return item.sources if isinstance(item, Node) and item not in ends else ()


def shares_of(node: Node, grad: Array) -> Iterator[tuple[Source, Any]]:
    """What of a node's gradient each of its sources gets, in the source's shape and dtype.

    Its hooks see `grad` first. A source is left out if the rule has None for it. TypeError, naming the op, if
    there is a source for which the rule gives nothing at all.
    """
    grad = hooked(node.hooks or (), grad)
    shares = node.op.pull(grad, *node.kept)  # type: ignore[misc]
    if not isinstance(shares, (tuple, list)):
        shares = (shares,)
    if any(source is not None for source in node.sources[len(shares) :]):
        raise TypeError(
            f"{node.op.name} has {len(node.sources)} inputs, and its rule gave only {len(shares)} gradients"
        )
    for source, share in zip(node.sources, shares, strict=False):
        if source is not None and share is not None:
            if share.shape != source.shape:
                share = unbroadcast(share, source.shape)
            yield source, share if share.dtype == source.dtype else share.astype(source.dtype)


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
    look_over(item for item in order if isinstance(item, Node) and item not in ends)
    pending: dict[Source, Any] = {root: grad}
    for item in order:
        got = pending.pop(item, None)
        if item in ends or not isinstance(item, Node):
            if got is not None:
                yield item, np.asarray(got)
            continue
        shares = [] if got is None else shares_of(item, np.asarray(got))
        for source, share in shares:
            pending[source] = np.add(pending[source], share) if source in pending else share
        del got, shares
        if not retain_graph:
            item.kept, item.sources = None, ()


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
        so_far = np.zeros(leaf.shape, leaf.dtype) if leaf.grad is None else leaf.grad
        leaf.grad = np.add(so_far, share, out=so_far)


@contextmanager
def no_grad() -> Iterator[None]:
    """Nothing is recorded inside of `with no_grad():`, nor in a function under `@no_grad()`."""
    previous = set_recorder(None)
    try:
        yield
    finally:
        set_recorder(previous)


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
    hooks.append(hook)
    still_there = [hook]

    def remove() -> None:
        if still_there:
            hooks.remove(still_there.pop())

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
    """`x` through all `layers`, in `segments` pieces of about equal length, all but the last checkpointed."""
    if segments < 1:
        raise ValueError(f"{segments} segments?")
    pieces = [
        piece.tolist() for piece in np.array_split(np.array([*layers, None], dtype=object)[:-1], segments)
    ]
    pieces = [piece for piece in pieces if piece]
    for piece in pieces[:-1]:
        x = checkpoint(functools.partial(_run, piece), x, rngs=rngs)
    return _run(pieces[-1], x) if pieces else x


def _run(layers: Sequence[Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
    return functools.reduce(lambda h, layer: layer(h), layers, x)


def gradcheck(
    function: Callable[..., Tensor],
    *arrays: Any,
    rng: np.random.Generator,
    rtol: float = 1e-5,
    atol: float = 1e-7,
) -> bool:
    """True if the gradients of `function` are those that central differences find; else an AssertionError."""
    floats = [i for i, a in enumerate(arrays) if np.asarray(a).dtype.kind == "f"]
    points = {i: np.array(arrays[i], np.float64) for i in floats}

    def run(moved: dict[int, Any]) -> Tensor:
        return function(*(moved.get(i, a) for i, a in enumerate(arrays)))

    leaves = {i: Tensor(point, requires_grad=True) for i, point in points.items()}
    out = run(leaves)
    if out.dtype != np.float64:
        raise AssertionError(f"the result is {out.dtype}, not float64")
    weights = np.asarray(rng.normal(size=out.shape))
    backward(out, weights)
    for i in floats:
        still = {j: Tensor(point) for j, point in points.items()}

        def weighed(moved: Array, i: int = i, still: dict[int, Tensor] = still) -> Any:
            with no_grad():
                return np.vdot(run({**still, i: Tensor(moved)}).data, weights)

        slopes, leaf = numerical_gradient(weighed, points[i]), leaves[i]
        try:
            assert_close(
                np.zeros_like(slopes) if leaf.grad is None else leaf.grad, slopes, rtol=rtol, atol=atol
            )
        except AssertionError as error:
            raise AssertionError(f"argument {i}: {error}") from error
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
    """The graph that ends in `tensor`, a line for each leaf and node, numbered in an order of computing.

    `0: Tensor (3,)` is a leaf, by its class; `2: mul (3,) of 0, 1, keeps 24 bytes` an operation on lines 0
    and 1, whose rule keeps arrays of so many bytes. What needs no gradient is not in the graph.
    """
    lines = []
    for i, label, sources, item in _numbered(tensor):
        if isinstance(item, Node):
            kept = sum(array.nbytes for array in _arrays_in(item.kept))
            label += f" of {', '.join(map(str, sources))}, keeps {kept} bytes" if sources else ", freed"
        lines.append(f"{i}: {label}")
    return "\n".join(lines)


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
