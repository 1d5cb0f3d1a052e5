"""Kata 06 · Autograd: from a straight line to a graph.

Importing this module turns recording on: each operation on a tensor that requires a gradient then leaves a
`Node`, which remembers what its rule needs and which nodes came before. `backward` walks these nodes from the
end to the beginning. The rules that you wrote in katas 03 and 04 work as they are; the operations of 02 get
theirs here.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any

import numpy as np

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
    broadcast_shapes,
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
# rules. In place of a gradient that is not wanted (`needs_input_grad` tells: a number's never is) a rule may
# give None. It should where the annotation says `Array | None`; for the others, asking takes longer than a
# product of two small arrays.


@add.gradient
def add_back(grad: Array) -> tuple[Array, Array]:
    # kata 06.1: what moves either of the two moves the sum as much.
    return grad, grad


@sub.gradient
def sub_back(grad: Array) -> tuple[Array, Array]:
    # kata 06.1: and here one of them moves it the other way.
    return grad, -grad


@mul.gradient
def mul_back(grad: Array, a: Any, b: Any) -> tuple[Array, Array]:  # stub: (grad)
    # kata 06.1: the steeper in a, the larger b.
    return grad * b, grad * a


@div.gradient
def div_back(grad: Array, out: Array, b: Any) -> tuple[Array, Array]:  # stub: (grad)
    # kata 06.1: -a / b² is -out / b.
    share = grad / b
    return share, -share * out


@neg.gradient
def neg_back(grad: Array) -> Any:
    # kata 06.1: up becomes down.
    return -grad


@exp.gradient
def exp_back(grad: Array, out: Array) -> Any:  # stub: (grad)
    # kata 06.2: this curve is its own slope.
    return grad * out


@log.gradient
def log_back(grad: Array, a: Any) -> Any:  # stub: (grad)
    # kata 06.2: the larger a, the flatter.
    return grad / a


@sqrt.gradient
def sqrt_back(grad: Array, out: Array) -> Any:  # stub: (grad)
    # kata 06.2: the input is not needed.
    return grad / (2 * out)


@power.gradient
def power_back(
    grad: Array, a: Any, b: Any, needs_input_grad: Wanted
) -> tuple[Array | None, Array | None]:  # stub: (grad)
    # kata 06.2: the slope in the exponent is a**b log(a), and 0 where a is 0 and b is not negative; the slope
    # in the base is 0 wherever b is 0. With Python's 2 for b, a**b is one multiplication; with an array it is
    # not.
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
def absolute_back(grad: Array, a: Any) -> Any:  # stub: (grad)
    # kata 06.2: at 0, take 0.
    return grad * np.sign(a)


@maximum.gradient
def maximum_back(grad: Array, a: Any, b: Any) -> tuple[Array, Array]:  # stub: (grad)
    # kata 06.3: where the two are equal, each gets half. What a nan gets is left open.
    shared = np.where(np.equal(a, b), grad / 2, grad)
    return np.where(np.less(a, b), 0, shared), np.where(np.less(b, a), 0, shared)


@clip.gradient
def clip_back(grad: Array, a: Array, min: float | None, max: float | None) -> Any:  # stub: (grad)
    # kata 06.3: what was moved to a bound no longer moves the result; what lies on it does.
    inside = np.ones(a.shape, bool) if min is None else a >= min
    return np.where(inside if max is None else inside & (a <= max), grad, 0)


@where.gradient
def where_back(grad: Array, condition: Any) -> tuple[None, Array, Array]:  # stub: (grad)
    # kata 06.3: one for each input, and a condition has none.
    return None, np.where(condition, grad, 0), np.where(condition, 0, grad)


@matmul.gradient
def matmul_back(
    grad: Array, a: Any, b: Any, needs_input_grad: Wanted
) -> tuple[Array | None, Array | None]:  # stub: (grad)
    # kata 06.4: make a vector a row or a column first. Many rows times one matrix: its gradient adds up over
    # all rows, in one product, as in affine.
    a, b = np.asarray(a), np.asarray(b)
    row, column = a.ndim == 1, b.ndim == 1
    a, b = a[None] if row else a, b[:, None] if column else b
    grad = np.expand_dims(grad, (-2,) * row + (-1,) * column)
    for_a = for_b = None
    if needs_input_grad[0]:
        for_a = grad @ np.swapaxes(b, -1, -2)
        for_a = for_a[..., 0, :] if row else for_a
    if needs_input_grad[1]:
        if b.ndim == 2:
            rows = math.prod(a.shape[:-1])
            for_b = a.reshape(rows, a.shape[-1]).T @ grad.reshape(rows, grad.shape[-1])
        else:
            for_b = np.swapaxes(a, -1, -2) @ grad
        for_b = for_b[..., 0] if column else for_b
    return for_a, for_b


def spread(grad: Array, shape: Shape, axis: Axis, keepdims: bool) -> Array:
    """A reduction's gradient, repeated to the shape of what was reduced: a view."""
    # kata 06.5: the axes that went come back 1 long, where they were.
    if axis is not None and not keepdims:
        grad = np.expand_dims(grad, axis)
    return np.broadcast_to(grad, shape)


@total.gradient
def total_back(grad: Array, input_shapes: list[Shape], axis: Axis, keepdims: bool) -> Any:  # stub: (grad)
    # kata 06.5: a shape is all that is needed of the input, so keep no more of it.
    return spread(grad, input_shapes[0], axis, keepdims)


@mean.gradient
def mean_back(grad: Array, input_shapes: list[Shape], axis: Axis, keepdims: bool) -> Any:  # stub: (grad)
    # kata 06.5: divide while it is small.
    count = math.prod(input_shapes[0]) // max(grad.size, 1)
    return spread(grad / max(count, 1), input_shapes[0], axis, keepdims)


@var.gradient
def var_back(grad: Array, a: Array, axis: Axis, correction: int, keepdims: bool) -> Any:  # stub: (grad)
    # kata 06.5: the mean moves too, but distances from it add up to 0, so that it does not matter.
    count = a.size // max(grad.size, 1)
    grad = 2 * grad / max(count - correction, 0)
    return spread(grad, a.shape, axis, keepdims) * (a - a.mean(axis, keepdims=True))


@amax.gradient
def amax_back(grad: Array, a: Array, out: Array, axis: Axis, keepdims: bool) -> Any:  # stub: (grad)
    # kata 06.6: several that are the largest share evenly.
    return _share_among_equals(grad, a, out, axis, keepdims)


@amin.gradient
def amin_back(grad: Array, a: Array, out: Array, axis: Axis, keepdims: bool) -> Any:  # stub: (grad)
    # kata 06.6: like amax.
    return _share_among_equals(grad, a, out, axis, keepdims)


def _share_among_equals(grad: Array, a: Array, out: Array, axis: Axis, keepdims: bool) -> Any:
    chosen = a == spread(out, a.shape, axis, keepdims)
    count = chosen.sum(axis, grad.dtype, keepdims=keepdims)
    return spread(grad / count, a.shape, axis, keepdims) * chosen


@reshape.gradient
def reshape_back(grad: Array, input_shapes: list[Shape]) -> Any:  # stub: (grad)
    # kata 06.7: nothing was computed, so bring each number back to its place.
    return grad.reshape(input_shapes[0])


@view.gradient
def view_back(grad: Array, input_shapes: list[Shape]) -> Any:  # stub: (grad)
    # kata 06.7: the gradient may lie otherwise in memory, so here a copy is allowed.
    return grad.reshape(input_shapes[0])


@contiguous.gradient
def contiguous_back(grad: Array) -> Any:
    # kata 06.7: the numbers are the same.
    return grad


@transpose.gradient
def transpose_back(grad: Array, axis0: int, axis1: int) -> Any:  # stub: (grad)
    # kata 06.7: what takes back a swap?
    return np.swapaxes(grad, axis0, axis1)


@permute.gradient
def permute_back(grad: Array, axes: Shape) -> Any:  # stub: (grad)
    # kata 06.7: which permutation takes back this one? -1 is an axis too.
    return np.transpose(grad, np.argsort([axis % grad.ndim for axis in axes]))


@squeeze.gradient
def squeeze_back(grad: Array, input_shapes: list[Shape]) -> Any:  # stub: (grad)
    # kata 06.7: which axes went, the shape tells.
    return grad.reshape(input_shapes[0])


@unsqueeze.gradient
def unsqueeze_back(grad: Array, axis: int) -> Any:  # stub: (grad)
    # kata 06.7: the axis came, and goes.
    return np.squeeze(grad, axis)


@expand.gradient
def expand_back(grad: Array) -> Any:
    # kata 06.7: broadcasting is undone later, for all rules.
    return grad


@getitem.gradient
def getitem_back(grad: Array, input_shapes: list[Shape], index: Any) -> Any:  # stub: (grad)
    # kata 06.8: an array of numbers can pick an element twice, and `full[index] += grad` would add to it
    # once.
    full = np.zeros(input_shapes[0], grad.dtype)
    parts = index if isinstance(index, tuple) else (index,)
    picks = [np.asarray(part) for part in parts if isinstance(part, (list, tuple, np.ndarray))]
    if any(part.dtype.kind in "iu" for part in picks):
        # np.add.at is quick for one axis, and slow for more: so let numpy index the numbers of the places.
        places = np.arange(full.size).reshape(full.shape)[index]
        np.add.at(full.reshape(-1), places.reshape(-1), np.reshape(grad, -1))
    else:
        full[index] = grad
    return full


@join.gradient
def join_back(grad: Array, lengths: list[int], axis: int) -> list[Array]:  # stub: (grad)
    # kata 06.8: cut where the pieces met.
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

    __slots__ = ("dtype", "hooks", "kept", "made", "op", "shape", "sources")

    def __init__(self, op: Op, kept: Sequence[Any] | None, sources: Sequence[Any], out: Array) -> None:
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
    """Where the gradient of an input goes: to the node that made it, to the leaf that it is, or nowhere.

    What stands in `x.node` is taken for the node, whichever recorder left it there.
    """
    # kata 06.9: an input can be anything, an array or a number too.
    if not isinstance(x, Tensor) or not x.requires_grad:
        return None
    return x if x.node is None else x.node


def record(op: Op, inputs: tuple[Any, ...], arrays: list[Any], params: dict[str, Any], out: Tensor) -> None:
    """Give `out` a node. Called after each operation with an input that requires a gradient."""
    # kata 06.9: `op.keep` knows what the rule asks for. In place, `out` is the first input: if that was no
    # result of recorded work, it was a constant, and not a leaf that feeds itself.
    sources = []
    for x in inputs:  # source_of, written out: this is done for every operation
        if isinstance(x, Tensor) and x.requires_grad:
            sources.append(x.node or x)
        else:
            sources.append(None)
    if sources[0] is out:
        sources[0] = None
    data = out.data
    out.node = Node(op, op.keep(data, arrays, params) if op.needs else (), sources, data)


def unbroadcast(grad: Array, shape: Shape) -> Any:
    """The gradient of an input of `shape` that was stretched to the shape of `grad`: its uses add up.

    ValueError, naming both, if `shape` does not stretch to that of `grad`.
    """
    # kata 06.10: new axes are on the left; stretched ones are 1 long in `shape`.
    if broadcast_shapes(shape, grad.shape) != grad.shape:
        raise ValueError(f"a gradient of shape {grad.shape} does not fit an input of shape {shape}")
    extra = grad.ndim - len(shape)
    stretched = [extra + i for i, n in enumerate(shape) if n == 1 != grad.shape[extra + i]]
    return grad.sum((*range(extra), *stretched), keepdims=True).reshape(shape)


def topological(root: Source, ends: AbstractSet[Source] = frozenset()) -> list[Source]:
    """`root` and all that it was made from, nodes and leaves, each once and after everything that uses it.

    The list goes as far as `ends`, but not to what these were made from. Where several could come next, any
    may.
    """
    # kata 06.11: count how often each is used; its turn comes when all its users have had theirs. A chain of
    # 100,000 nodes is a legal graph, so do not recurse.
    uses: dict[Source, int] = {root: 0}
    order = [root]
    for item in order:
        for source in sources_of(item, ends):
            if source in uses:
                uses[source] += 1
            elif source is not None:
                uses[source] = 1
                order.append(source)
    order, ready = [], [root]
    while ready:
        item = ready.pop()
        order.append(item)
        for source in sources_of(item, ends):
            if source is not None:
                uses[source] -= 1
                if not uses[source]:
                    ready.append(source)
    return order


def sources_of(item: Source, ends: AbstractSet[Source] = frozenset()) -> Sequence[Source | None]:
    """Where a node's gradient goes on to; nowhere, from a leaf and from one of `ends`."""
    return item.sources if isinstance(item, Node) and item not in ends else ()


def shares_of(node: Node, grad: Array) -> Iterator[tuple[Source, Any]]:
    """What of a node's gradient each of its sources gets, in the source's shape and dtype.

    Its hooks see `grad` first. A source is left out if the rule has None for it. TypeError, naming the op, if
    there is a source for which the rule gives nothing at all; ValueError, as of `unbroadcast`, if a shape is
    wrong.
    """
    # kata 06.12: a rule returns one array, or a tuple or list of them in the order of the inputs; but nothing
    # that it says about an input without a source counts.
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
        RuntimeError: a node was freed by an earlier backward pass, and the message names `retain_graph`, too;
            or an array that one keeps, by itself or in a list, tuple or Tensor, was written over since it was
            made.
        TypeError: an op has no gradient rule.
    """
    # kata 06.13: `version(array)` is the number of the array's last write, and `version()` of any: unless
    # that is past `node.made`, nothing needs a closer look.
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
    root: Source, grad: Array, retain_graph: bool = False, ends: AbstractSet[Source] = frozenset()
) -> Iterator[tuple[Source, Array]]:
    """Carry `grad` back from `root`; yields each leaf, and each of `ends`, with all the gradient it got.

    A node forgets what it kept, and its sources, as soon as its turn is over, be it that no gradient reached
    it; not with `retain_graph`. One of `ends` is left as it is, and its hooks are not called. Errors as in
    `look_over`; they come before anything has changed.
    """
    # kata 06.14: `pending` holds what has reached each item so far; when its turn comes, that is all.
    order = topological(root, ends)
    look_over(item for item in order if isinstance(item, Node) and item not in ends)
    pending: dict[Source, Any] = {root: grad}
    for item in order:
        if isinstance(item, Node) and item not in ends:
            if item in pending:  # or else the rules had nothing for it
                for source, share in shares_of(item, np.asarray(pending.pop(item))):
                    pending[source] = pending[source] + share if source in pending else share
            if not retain_graph:
                item.kept, item.sources = None, ()
        elif item in pending:
            yield item, np.asarray(pending.pop(item))


def backward(tensor: Tensor, grad: Any = None, retain_graph: bool = False) -> None:
    """Add the gradient of `tensor` to `.grad` of every leaf that it was made from and that requires one.

    `grad` is the gradient that `tensor` itself has, of its shape: an array, a list, a number or a Tensor,
    taken to the dtype of `tensor`. It may be left out for one number, and is 1 then. A leaf that requires a
    gradient is all of its graph: `grad` is added to its own `.grad`. `.grad` is an array of the leaf's shape
    and dtype that nothing else shares. The graph is freed on the way, unless `retain_graph`.

    Raises:
        RuntimeError: `tensor` was not recorded, and the message says that `import tinytorch.autograd` must
            come first; or part of its graph has been freed, or an array that a rule kept was changed in
            place since, and the message is that of `look_over`.
        ValueError: `grad` is missing, or has another shape than `tensor`; the message names the shapes.
        TypeError: an op on the way has no gradient rule; the message names it.
    """
    # kata 06.14: the first gradient of a leaf is copied, the next are added. Leaves have hooks, too, as of
    # 06.16: `hooked(_leaf_hooks.get(id(leaf), ()), share)`.
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
    grad = np.asarray(grad, tensor.dtype)
    if grad.shape != tensor.shape:
        raise ValueError(f"the gradient has shape {grad.shape}, and the tensor has {tensor.shape}")
    leaf: Any
    for leaf, share in flow(root, grad, retain_graph):
        share = hooked(_leaf_hooks.get(id(leaf), ()), share)
        if leaf.grad is None:
            leaf.grad = share.copy()
        else:
            leaf.grad += share


@contextmanager
def no_grad() -> Iterator[None]:
    """Nothing is recorded inside of `with no_grad():`, nor in a function under `@no_grad()`."""
    # kata 06.15: whoever recorded before does so again afterwards, whatever happened.
    previous = set_recorder(None)
    try:
        yield
    finally:
        set_recorder(previous)


def is_grad_enabled() -> bool:
    """Whether operations are recorded just now, by whatever recorder."""
    # kata 06.15: `set_recorder` tells who was recording.
    recorder = set_recorder(None)
    set_recorder(recorder)
    return recorder is not None


# The hooks of leaves, by id; an entry goes with its tensor.
_leaf_hooks: dict[int, list[Hook]] = {}


def register_hook(tensor: Tensor, hook: Hook) -> Callable[[], None]:
    """Call `hook(grad)` with the whole gradient of `tensor` in each backward pass; returns what takes it
    away.

    What the hook returns, if not None, goes on in place of the gradient, and must have its shape
    (ValueError). It must not change the array that it gets. Taking it away twice does nothing. RuntimeError
    if `tensor` does not require a gradient.
    """
    # kata 06.16: a result's hooks are in its node; for a leaf there is `_leaf_hooks`.
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

    def own(grad: Array) -> Any:  # another each time, also where a hook is added twice
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

    That is: `inner`, what `function` is handed: for each Tensor among the inputs a new one around the same
    array, which requires a gradient if that does, and anything else as it is; `outside`, once each, the
    tensors that require a gradient and that operations inside use, or `function` returns, though they were
    neither handed to it nor made inside (parameters, earlier results); where the generators stood; and
    whether the result requires a gradient.
    """
    # kata 06.17: with a recorder of your own, which gives each result the node `inside`: an input that has
    # none, and is none of `inner`, comes from outside; but not a constant that was just written over in
    # place: that is `out` itself.
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
    # kata 06.17: `flow`, and not `backward`, which would add to the parameters' gradients a second time.
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

    No piece is longer than another by more than one layer. The last would be computed again as soon as it is
    done. ValueError, with their number, unless there is at least one segment.
    """
    # kata 06.17: a piece is a function of one tensor; mind which layers it will see when it runs.
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
    floats (Python's floats and lists of them, too) become tensors that require a gradient, others are handed
    on. The error names the argument (`argument 0` is the first) and the index of the worst element. An
    argument that gets no gradient counts as one with zeros. A result that is not float64 any more is an
    AssertionError too, which names its dtype.
    """
    # Here, and not above: kata 01 loads rich, a quarter of all that the framework takes to load.
    from tinytorch.setup import assert_close, numerical_gradient

    # kata 06.18: kata 01 has `numerical_gradient`, of a function to one number, and `assert_close`.
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
    # kata 06.19: what does not move has a tangent of zeros. `params` can hold what a rule asked for, too.
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
    # kata 06.19: hand the op's gradient rule a tangent in place of a gradient; of what it gives for all the
    # inputs, only the share of that one counts.
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
    # kata 06.19: `op.forward` multiplies arrays; leave the bias out.
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
    # kata 06.19: the gradient rule gives these slopes, for a gradient of ones.
    slopes = op.pull(np.ones_like(out), *op.keep(out, arrays, params))  # type: ignore[misc]
    return (slopes * tangents[0]).sum(params.get("axis"), keepdims=params.get("keepdims", False))


def jvp(
    function: Callable[..., Tensor], primals: Sequence[Any], tangents: Sequence[Any]
) -> tuple[Array, Array]:
    """`function` of `primals`, and how fast it changes when these move along `tangents`, in the same pass.

    Both sequences hold arrays of floats, one of each for each input; a tangent may be a number or a list, and
    is taken to the dtype of its primal. Whatever else the function uses stands still. Nothing is kept for
    later, however long the function; so it works under `no_grad`, too.

    Raises:
        ValueError: a tangent has not the shape of its primal, and the message names both; or there are more
            of one than of the other.
        TypeError: an op on the way has no forward rule; the message names it.
    """

    # kata 06.19: a recorder that gives `out.node` its tangent, or None if nothing that moves went in.
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
    and 1, whose rule keeps arrays of so many bytes, those in lists, tuples and Tensors too; and
    `0: mul (3,), freed` one that a backward pass has freed. What needs no gradient is not in the graph: a
    constant's is "".
    """
    # kata 06.20: `topological`, from its end.
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
    # kata 06.20: labels stand in quotes, since they have brackets.
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
