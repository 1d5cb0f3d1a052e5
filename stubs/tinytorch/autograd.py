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
    # TODO 06.1: what moves either of the two moves the sum as much.
    raise NotImplementedError("kata 06.1: add_back")


@sub.gradient
def sub_back(grad: Array) -> tuple[Array, Array]:
    # TODO 06.1: and here one of them moves it the other way.
    raise NotImplementedError("kata 06.1: sub_back")


@mul.gradient
def mul_back(grad) -> tuple[Array, Array]:
    # TODO 06.1: the steeper in a, the larger b.
    raise NotImplementedError("kata 06.1: mul_back")


@div.gradient
def div_back(grad) -> tuple[Array, Array]:
    # TODO 06.1: -a / b² is -out / b.
    raise NotImplementedError("kata 06.1: div_back")


@neg.gradient
def neg_back(grad: Array) -> Any:
    # TODO 06.1: up becomes down.
    raise NotImplementedError("kata 06.1: neg_back")


@exp.gradient
def exp_back(grad) -> Any:
    # TODO 06.2: this curve is its own slope.
    raise NotImplementedError("kata 06.2: exp_back")


@log.gradient
def log_back(grad) -> Any:
    # TODO 06.2: the larger a, the flatter.
    raise NotImplementedError("kata 06.2: log_back")


@sqrt.gradient
def sqrt_back(grad) -> Any:
    # TODO 06.2: the input is not needed.
    raise NotImplementedError("kata 06.2: sqrt_back")


@power.gradient
def power_back(grad) -> tuple[Array | None, Array | None]:
    # TODO 06.2: the slope in the exponent is a**b log(a), and 0 where a is 0 and b is not negative; the slope
    # in the base is 0 wherever b is 0. With Python's 2 for b, a**b is one multiplication; with an array it is
    # not.
    raise NotImplementedError("kata 06.2: power_back")


@absolute.gradient
def absolute_back(grad) -> Any:
    # TODO 06.2: at 0, take 0.
    raise NotImplementedError("kata 06.2: absolute_back")


@maximum.gradient
def maximum_back(grad) -> tuple[Array, Array]:
    # TODO 06.3: where the two are equal, each gets half. What a nan gets is left open.
    raise NotImplementedError("kata 06.3: maximum_back")


@clip.gradient
def clip_back(grad) -> Any:
    # TODO 06.3: what was moved to a bound no longer moves the result; what lies on it does.
    raise NotImplementedError("kata 06.3: clip_back")


@where.gradient
def where_back(grad) -> tuple[None, Array, Array]:
    # TODO 06.3: one for each input, and a condition has none.
    raise NotImplementedError("kata 06.3: where_back")


@matmul.gradient
def matmul_back(grad) -> tuple[Array | None, Array | None]:
    # TODO 06.4: make a vector a row or a column first. Many rows times one matrix: its gradient adds up over
    # all rows, in one product, as in affine.
    raise NotImplementedError("kata 06.4: matmul_back")


def spread(grad: Array, shape: Shape, axis: Axis, keepdims: bool) -> Array:
    """A reduction's gradient, repeated to the shape of what was reduced: a view."""
    # TODO 06.5: the axes that went come back 1 long, where they were.
    raise NotImplementedError("kata 06.5: spread")


@total.gradient
def total_back(grad) -> Any:
    # TODO 06.5: a shape is all that is needed of the input, so keep no more of it.
    raise NotImplementedError("kata 06.5: total_back")


@mean.gradient
def mean_back(grad) -> Any:
    # TODO 06.5: divide while it is small.
    raise NotImplementedError("kata 06.5: mean_back")


@var.gradient
def var_back(grad) -> Any:
    # TODO 06.5: the mean moves too, but distances from it add up to 0, so that it does not matter.
    raise NotImplementedError("kata 06.5: var_back")


@amax.gradient
def amax_back(grad) -> Any:
    # TODO 06.6: several that are the largest share evenly.
    raise NotImplementedError("kata 06.6: amax_back")


@amin.gradient
def amin_back(grad) -> Any:
    # TODO 06.6: like amax.
    raise NotImplementedError("kata 06.6: amin_back")


def _share_among_equals(grad: Array, a: Array, out: Array, axis: Axis, keepdims: bool) -> Any:
    chosen = a == spread(out, a.shape, axis, keepdims)
    count = chosen.sum(axis, grad.dtype, keepdims=keepdims)
    return spread(grad / count, a.shape, axis, keepdims) * chosen


@reshape.gradient
def reshape_back(grad) -> Any:
    # TODO 06.7: nothing was computed, so bring each number back to its place.
    raise NotImplementedError("kata 06.7: reshape_back")


@view.gradient
def view_back(grad) -> Any:
    # TODO 06.7: the gradient may lie otherwise in memory, so here a copy is allowed.
    raise NotImplementedError("kata 06.7: view_back")


@contiguous.gradient
def contiguous_back(grad: Array) -> Any:
    # TODO 06.7: the numbers are the same.
    raise NotImplementedError("kata 06.7: contiguous_back")


@transpose.gradient
def transpose_back(grad) -> Any:
    # TODO 06.7: what takes back a swap?
    raise NotImplementedError("kata 06.7: transpose_back")


@permute.gradient
def permute_back(grad) -> Any:
    # TODO 06.7: which permutation takes back this one? -1 is an axis too.
    raise NotImplementedError("kata 06.7: permute_back")


@squeeze.gradient
def squeeze_back(grad) -> Any:
    # TODO 06.7: which axes went, the shape tells.
    raise NotImplementedError("kata 06.7: squeeze_back")


@unsqueeze.gradient
def unsqueeze_back(grad) -> Any:
    # TODO 06.7: the axis came, and goes.
    raise NotImplementedError("kata 06.7: unsqueeze_back")


@expand.gradient
def expand_back(grad: Array) -> Any:
    # TODO 06.7: broadcasting is undone later, for all rules.
    raise NotImplementedError("kata 06.7: expand_back")


@getitem.gradient
def getitem_back(grad) -> Any:
    # TODO 06.8: an array of numbers can pick an element twice, and `full[index] += grad` would add to it
    # once.
    raise NotImplementedError("kata 06.8: getitem_back")


@join.gradient
def join_back(grad) -> list[Array]:
    # TODO 06.8: cut where the pieces met.
    raise NotImplementedError("kata 06.8: join_back")


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
    # TODO 06.9: an input can be anything, an array or a number too.
    raise NotImplementedError("kata 06.9: source_of")


def record(op: Op, inputs: tuple[Any, ...], arrays: list[Any], params: dict[str, Any], out: Tensor) -> None:
    """Give `out` a node. Called after each operation with an input that requires a gradient."""
    # TODO 06.9: `op.keep` knows what the rule asks for. In place, `out` is the first input: if that was no
    # result of recorded work, it was a constant, and not a leaf that feeds itself.
    raise NotImplementedError("kata 06.9: record")


def unbroadcast(grad: Array, shape: Shape) -> Any:
    """The gradient of an input of `shape` that was stretched to the shape of `grad`: its uses add up.

    ValueError, naming both, if `shape` does not stretch to that of `grad`.
    """
    # TODO 06.10: new axes are on the left; stretched ones are 1 long in `shape`.
    raise NotImplementedError("kata 06.10: unbroadcast")


def topological(root: Source, ends: AbstractSet[Source] = frozenset()) -> list[Source]:
    """`root` and all that it was made from, nodes and leaves, each once and after everything that uses it.

    The list goes as far as `ends`, but not to what these were made from. Where several could come next, any
    may.
    """
    # TODO 06.11: count how often each is used; its turn comes when all its users have had theirs. A chain of
    # 100,000 nodes is a legal graph, so do not recurse.
    raise NotImplementedError("kata 06.11: topological")


def sources_of(item: Source, ends: AbstractSet[Source] = frozenset()) -> Sequence[Source | None]:
    """Where a node's gradient goes on to; nowhere, from a leaf and from one of `ends`."""
    return item.sources if isinstance(item, Node) and item not in ends else ()


def shares_of(node: Node, grad: Array) -> Iterator[tuple[Source, Any]]:
    """What of a node's gradient each of its sources gets, in the source's shape and dtype.

    Its hooks see `grad` first. A source is left out if the rule has None for it. TypeError, naming the op, if
    there is a source for which the rule gives nothing at all; ValueError, as of `unbroadcast`, if a shape is
    wrong.
    """
    # TODO 06.12: a rule returns one array, or a tuple or list of them in the order of the inputs; but nothing
    # that it says about an input without a source counts.
    raise NotImplementedError("kata 06.12: shares_of")


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
    # TODO 06.13: `version(array)` is the number of the array's last write, and `version()` of any: unless
    # that is past `node.made`, nothing needs a closer look.
    raise NotImplementedError("kata 06.13: look_over")


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
    # TODO 06.14: `pending` holds what has reached each item so far; when its turn comes, that is all.
    raise NotImplementedError("kata 06.14: flow")


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
    # TODO 06.14: the first gradient of a leaf is copied, the next are added. Leaves have hooks, too, as of
    # 06.16: `hooked(_leaf_hooks.get(id(leaf), ()), share)`.
    raise NotImplementedError("kata 06.14: backward")


@contextmanager
def no_grad() -> Iterator[None]:
    """Nothing is recorded inside of `with no_grad():`, nor in a function under `@no_grad()`."""
    # TODO 06.15: whoever recorded before does so again afterwards, whatever happened.
    raise NotImplementedError("kata 06.15: no_grad")


def is_grad_enabled() -> bool:
    """Whether operations are recorded just now, by whatever recorder."""
    # TODO 06.15: `set_recorder` tells who was recording.
    raise NotImplementedError("kata 06.15: is_grad_enabled")


# The hooks of leaves, by id; an entry goes with its tensor.
_leaf_hooks: dict[int, list[Hook]] = {}


def register_hook(tensor: Tensor, hook: Hook) -> Callable[[], None]:
    """Call `hook(grad)` with the whole gradient of `tensor` in each backward pass; returns what takes it
    away.

    What the hook returns, if not None, goes on in place of the gradient, and must have its shape
    (ValueError). It must not change the array that it gets. Taking it away twice does nothing. RuntimeError
    if `tensor` does not require a gradient.
    """
    # TODO 06.16: a result's hooks are in its node; for a leaf there is `_leaf_hooks`.
    raise NotImplementedError("kata 06.16: register_hook")


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
    # TODO 06.17: with a recorder of your own, which gives each result the node `inside`: an input that has
    # none, and is none of `inner`, comes from outside; but not a constant that was just written over in
    # place: that is `out` itself.
    raise NotImplementedError("kata 06.17: checkpointed")


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
    # TODO 06.17: `flow`, and not `backward`, which would add to the parameters' gradients a second time.
    raise NotImplementedError("kata 06.17: checkpointed_back")


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
    # TODO 06.17: a piece is a function of one tensor; mind which layers it will see when it runs.
    raise NotImplementedError("kata 06.17: checkpoint_sequential")


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

    # TODO 06.18: kata 01 has `numerical_gradient`, of a function to one number, and `assert_close`.
    raise NotImplementedError("kata 06.18: gradcheck")


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
    # TODO 06.19: what does not move has a tangent of zeros. `params` can hold what a rule asked for, too.
    raise NotImplementedError("kata 06.19: push_linear")


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
    # TODO 06.19: hand the op's gradient rule a tangent in place of a gradient; of what it gives for all the
    # inputs, only the share of that one counts.
    raise NotImplementedError("kata 06.19: push_elementwise")


@forward_rule("matmul", "affine")
def push_product(op: Op, tangents: list[Any], arrays: list[Any], params: dict[str, Any], out: Array) -> Any:
    """The product rule: (a b)' = a' b + a b', and the tangent of a bias, if there is one, comes on top."""
    # TODO 06.19: `op.forward` multiplies arrays; leave the bias out.
    raise NotImplementedError("kata 06.19: push_product")


@forward_rule("amax", "amin", "var")
def push_reduction(op: Op, tangents: list[Any], arrays: list[Any], params: dict[str, Any], out: Array) -> Any:
    """Each output depends on what was reduced to it: the slopes there times the tangents, added up."""
    # TODO 06.19: the gradient rule gives these slopes, for a gradient of ones.
    raise NotImplementedError("kata 06.19: push_reduction")


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

    # TODO 06.19: a recorder that gives `out.node` its tangent, or None if nothing that moves went in.
    raise NotImplementedError("kata 06.19: jvp")


# The graph, to look at.


def graph_text(tensor: Tensor) -> str:
    """The graph that ends in `tensor`, a line for each leaf and node, numbered in an order of computing.

    `0: Tensor (3,)` is a leaf, by its class; `2: mul (3,) of 0, 1, keeps 24 bytes` an operation on lines 0
    and 1, whose rule keeps arrays of so many bytes, those in lists, tuples and Tensors too; and
    `0: mul (3,), freed` one that a backward pass has freed. What needs no gradient is not in the graph: a
    constant's is "".
    """
    # TODO 06.20: `topological`, from its end.
    raise NotImplementedError("kata 06.20: graph_text")


def graph_mermaid(tensor: Tensor) -> str:
    """The same graph in Mermaid, a language that GitHub and many editors draw.

    A line `flowchart TD`; then one for each of `graph_text`'s, `n0(["Tensor (3,)"])` for a leaf and
    `n2["mul (3,)"]` for an operation; then one for each use, `n0 --> n2`.
    """
    # TODO 06.20: labels stand in quotes, since they have brackets.
    raise NotImplementedError("kata 06.20: graph_mermaid")


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
