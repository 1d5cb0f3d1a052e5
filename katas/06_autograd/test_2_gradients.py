"""Level 2: every rule against central differences, and what must hold of any graph.

Shapes come from hypothesis, numbers from a seed that it draws. Rules are checked by themselves (`op.vjp`)
where no operand is stretched, and through the engine where some are.
"""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dojo.expect import expect
from dojo.measuring import check_formula, check_gradient
from tinytorch.activations import gelu, leaky_relu, log_softmax, relu, sigmoid, softmax
from tinytorch.autograd import (
    Node,
    backward,
    checkpoint,
    checkpoint_sequential,
    flow,
    jvp,
    spread,
    topological,
    unbroadcast,
)
from tinytorch.layers import affine
from tinytorch.tensor import (
    Tensor,
    absolute,
    add,
    amax,
    amin,
    clip,
    concatenate,
    contiguous,
    div,
    exp,
    expand,
    getitem,
    join,
    log,
    maximum,
    mean,
    mul,
    neg,
    permute,
    power,
    reshape,
    sqrt,
    squeeze,
    sub,
    tanh,
    total,
    transpose,
    unsqueeze,
    var,
    view,
    where,
)

# On a busy machine drawing examples can take a second, which is no fault of theirs.
steady = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
few = settings(steady, max_examples=4)
some = settings(steady, max_examples=12)

SIDES = st.integers(1, 3)
SHAPES = st.lists(SIDES, max_size=3).map(tuple)
SEEDS = st.integers(0, 2**16)


def draw(rng, shape, positive=False):
    """Normal numbers, or from 0.5 to 2.5."""
    return np.asarray(rng.uniform(0.5, 2.5, shape) if positive else rng.normal(size=shape))


def f64(values):
    return np.array(values, np.float64)


def any_axis(rng, ndim):
    """None, one axis or several, counted from either end."""
    kind = rng.integers(3) if ndim else 0
    if kind == 0:
        return None
    axes = rng.choice(ndim, rng.integers(1, ndim + 1), replace=False)
    axes = tuple(int(a) - ndim * int(rng.integers(2)) for a in axes)
    return axes[0] if kind == 1 else axes


# Each rule by itself.


ELEMENTWISE = {
    "add": (add, (False, False), {}),
    "sub": (sub, (False, False), {}),
    "mul": (mul, (False, False), {}),
    "div": (div, (False, True), {}),
    "neg": (neg, (False,), {}),
    "exp": (exp, (False,), {}),
    "log": (log, (True,), {}),
    "sqrt": (sqrt, (True,), {}),
    "power": (power, (True, False), {}),
    "absolute": (absolute, (False,), {}),
    "maximum": (maximum, (False, False), {}),
    "clip": (clip, (False,), {"min": -0.5, "max": 0.7}),
    "clip from below": (clip, (False,), {"min": 0}),
    "clip from above": (clip, (False,), {"max": 0.1}),
    "contiguous": (contiguous, (False,), {}),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
@few
@given(SHAPES, SEEDS)
def test_rules_of_each_element_are_slopes(name, shape, seed):
    op, positive, params = ELEMENTWISE[name]
    rng = np.random.default_rng(seed)
    check_gradient(op, *(draw(rng, shape, p) for p in positive), **params)


@pytest.mark.parametrize("exponent", [2, 3, -1, 0.5, 0])
def test_powers_with_a_number_are_slopes(exponent, rng):
    check_gradient(power, draw(rng, (2, 3), positive=True), exponent)


@few
@given(SHAPES, SEEDS)
def test_the_rule_of_where_is_a_slope(shape, seed):
    rng = np.random.default_rng(seed)
    check_gradient(where, np.asarray(rng.random(shape) < 0.5), draw(rng, shape), draw(rng, shape))


REDUCTIONS = {"total": total, "mean": mean, "var": var, "amax": amax, "amin": amin}


@pytest.mark.parametrize("name", REDUCTIONS)
@settings(few, max_examples=7)
@given(st.lists(st.integers(2, 3), max_size=3).map(tuple), SEEDS, st.booleans())
def test_rules_of_reductions_are_slopes(name, shape, seed, keepdims):
    rng = np.random.default_rng(seed)
    params = {"axis": any_axis(rng, len(shape)), "keepdims": keepdims}
    if name == "var":
        params["correction"] = 0 if shape == () else int(rng.integers(2))
    check_gradient(REDUCTIONS[name], draw(rng, shape), **params)


@some
@given(SHAPES, SEEDS, st.booleans())
def test_spread_is_what_a_sum_is_on_the_way_back(shape, seed, keepdims):
    """<sum(x), g> is <x, spread(g)>."""
    rng = np.random.default_rng(seed)
    axis, x = any_axis(rng, len(shape)), draw(rng, shape)
    reduced = np.asarray(x.sum(axis, keepdims=keepdims))
    grad = draw(rng, reduced.shape)
    repeated = spread(grad, shape, axis, keepdims)
    expect((repeated.shape, (x * repeated).sum()), (shape, (reduced * grad).sum()))


@st.composite
def products(draw_from):
    """Shapes that multiply: vectors, matrices, batches of either that stretch or not."""
    n, k, m = (draw_from(SIDES) for _ in range(3))
    batch = draw_from(st.lists(SIDES, max_size=2))
    kind = draw_from(st.integers(0, 6))
    ones = [1 if i % 2 else side for i, side in enumerate(batch)]
    return [
        ((k,), (k,)),
        ((k,), (*batch, k, m)),
        ((*batch, n, k), (k,)),
        ((*batch, n, k), (*batch, k, m)),
        ((*batch, n, k), (k, m)),
        ((*ones, n, k), (*batch, k, m)),
        ((n, k), (*batch, k, m)),
    ][kind]


@settings(some, max_examples=20)
@given(products(), SEEDS)
def test_products_of_every_kind_have_their_slopes(shapes, seed):
    rng = np.random.default_rng(seed)
    check_gradient(lambda a, b: a @ b, *(draw(rng, shape) for shape in shapes))


VIEWS = {
    "reshape": lambda x: (reshape, {"shape": (-1,)}),
    "view": lambda x: (view, {"shape": x.shape}),
    "transpose": lambda x: (transpose, {"axis0": -1, "axis1": 0}),
    "permute": lambda x: (permute, {"axes": (1, -1, 0)}),
    "squeeze": lambda x: (squeeze, {}),
    "unsqueeze": lambda x: (unsqueeze, {"axis": -2}),
    "one slice": lambda x: (getitem, {"index": slice(None, None, -1)}),
    "an ellipsis": lambda x: (getitem, {"index": (..., 0)}),
    "two lists": lambda x: (getitem, {"index": ([0, -1, 0], [0, 0, 0])}),
    "a list after a slice": lambda x: (getitem, {"index": (slice(None), [0, 0])}),
    "a mask": lambda x: (getitem, {"index": x > 0}),
}


@pytest.mark.parametrize("name", VIEWS)
@few
@given(st.lists(SIDES, min_size=3, max_size=3).map(tuple), SEEDS)
def test_rules_of_views_are_slopes(name, shape, seed):
    x = draw(np.random.default_rng(seed), shape)
    op, params = VIEWS[name](x)
    check_gradient(op, x, **params)


@some
@given(SHAPES.filter(len), SEEDS, st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_the_rule_of_join_is_a_slope(shape, seed, lengths):
    rng = np.random.default_rng(seed)
    axis = int(rng.integers(-len(shape), len(shape)))
    pieces = [np.moveaxis(draw(rng, (n, *shape[1:])), 0, axis) for n in lengths]
    check_gradient(join, *pieces, axis=axis)


# Stretched operands.


def every_way_to_stretch(result):
    """Each shape that stretches to `result`."""
    for kept in (result[k:] for k in range(len(result) + 1)):
        for ones in itertools.product((False, True), repeat=len(kept)):
            yield tuple(1 if one else n for one, n in zip(ones, kept, strict=True))


WAYS = [*every_way_to_stretch((2, 3, 2, 3))]
STRETCHING = [*itertools.product(WAYS, repeat=2)]


def summed_by_hand(grad, shape):
    """Each element of `grad` added to the one that it came from, one by one."""
    result = np.zeros(shape)
    for index in np.ndindex(*grad.shape):
        own = index[len(index) - len(shape) :]
        result[tuple(0 if n == 1 else i for i, n in zip(own, shape, strict=True))] += grad[index]
    return result


def test_unbroadcast_in_every_way_of_up_to_four_axes(rng):
    for result in [(2, 3, 2, 3), (2, 2, 3), (3, 2), (2,), ()]:
        grad = draw(rng, result)
        for shape in every_way_to_stretch(result):
            expect((shape, unbroadcast(grad, shape)), (shape, summed_by_hand(grad, shape)))


def test_every_pair_of_shapes_of_up_to_four_axes_that_meet(rng):
    """961 pairs: of x * y with the gradient g, x gets what g * y adds up to, and y what g * x does."""
    expect(len(STRETCHING), 961)
    for a, b in STRETCHING:
        x, y = (Tensor(draw(rng, shape), requires_grad=True) for shape in (a, b))
        out = x * y
        grad = np.asarray(np.arange(out.size) - 3.0).reshape(out.shape)
        backward(out, grad)
        for mine, other in ((x, y), (y, x)):
            whole = grad * other.data
            added = np.einsum(
                whole, range(whole.ndim), [i for i in range(whole.ndim) if keeps(mine, whole, i)]
            )
            expect((a, b, mine.grad), (a, b, added.reshape(mine.shape)))


def keeps(x, whole, i):
    """Whether axis i of `whole` is an axis of x, and not one along which x was stretched."""
    own = i - (whole.ndim - x.ndim)
    return own >= 0 and x.shape[own] == whole.shape[i]


@some
@given(SHAPES, SEEDS)
def test_each_operation_on_stretched_operands(shape, seed):
    rng = np.random.default_rng(seed)
    ways = [*every_way_to_stretch(shape)]
    a, b = (draw(rng, ways[int(rng.integers(len(ways)))], positive=True) for _ in range(2))
    mask = np.asarray(rng.random(shape) < 0.5)
    operations = [
        lambda a, b: (a + b) - a,
        lambda a, b: a / b,
        lambda a, b: a**b,
        lambda a, b: maximum(a, b),
        lambda a, b: where(mask, a, b),
        lambda a, b: expand(a, shape=shape) * b,
    ]
    check_gradient(operations[int(rng.integers(len(operations)))], a, b)


# Any graph.


def a_random_function(seed):
    """Twelve operations on results of any before them, from inputs of shape (2, 3), (3,) and ()."""

    def function(*inputs):
        rng = np.random.default_rng(seed)
        tensors = [*inputs]
        for _ in range(12):
            x, y = (tensors[int(i)] for i in rng.integers(max(0, len(tensors) - 6), len(tensors), 2))
            kind = int(rng.integers(6))
            if kind == 0:
                tensors.append(x + y)
            elif kind == 1:
                tensors.append(x - y * 0.5)
            elif kind == 2:
                tensors.append(sigmoid(x) * y)
            elif kind == 3:
                tensors.append(tanh(x * y))
            elif kind == 4:
                tensors.append(x / (y * y + 1.0))
            else:
                tensors.append(x.mean() + y)
        return sum(tensors[3:])

    return function


def three_inputs(seed):
    rng = np.random.default_rng([seed, 1])
    return [draw(rng, shape) for shape in ((2, 3), (3,), ())]


@settings(some, max_examples=6)
@given(SEEDS)
def test_any_graph_has_the_slopes_of_its_function(seed):
    check_gradient(a_random_function(seed), *three_inputs(seed))


@some
@given(SEEDS)
def test_any_graph_under_a_checkpoint_has_the_same_gradients(seed):
    function, arrays = a_random_function(seed), three_inputs(seed)
    found = []
    for run in (function, lambda *inputs: checkpoint(function, *inputs)):
        inputs = [Tensor(a, requires_grad=True) for a in arrays]
        out = run(*inputs)
        backward(out, np.cos(np.arange(out.size)).reshape(out.shape))
        found.append([x.grad for x in inputs])
    expect(found[1], found[0])


@some
@given(SEEDS)
def test_forward_and_backward_mode_agree_on_any_graph(seed):
    function, primals = a_random_function(seed), three_inputs(seed)
    rng = np.random.default_rng([seed, 2])
    tangents = [draw(rng, np.shape(p)) for p in primals]
    agree(function, primals, tangents, rng)


def agree(function, primals, tangents, rng):
    """<v, J u> is <J^T v, u>, whatever u and v."""
    inputs = [Tensor(p, requires_grad=True) for p in primals]
    recorded = function(*inputs)
    out, moved = jvp(function, primals, tangents)
    expect((out, moved.shape), (recorded.data, recorded.shape))
    v = draw(rng, out.shape)
    backward(recorded, v)
    zero = [np.zeros(x.shape) if x.grad is None else x.grad for x in inputs]
    expect(
        float((v * moved).sum()),
        float(sum((g * u).sum() for g, u in zip(zero, tangents, strict=True))),
        atol=1e-9,
    )


FORWARD = {
    "arithmetic": (lambda a, b: (a + b) * a / (b * b + 1.0) - (-b), [(2, 3), (3,)]),
    "powers": (lambda a, b: (a * a + 1.0) ** b + 2.0**a, [(2, 1), (3,)]),
    "functions": (lambda a: (a.exp() + 1.0).log().sqrt() * tanh(a) + a.abs(), [(2, 3)]),
    "activations": (lambda a: relu(a) + leaky_relu(a) * sigmoid(a) - gelu(a), [(2, 3)]),
    "softmax": (lambda a: softmax(a, axis=0) * softmax(a), [(2, 3)]),
    "choices": (lambda a, b: maximum(a, b).clip(-1, 1) + where(f64([1, 0, 1]) > 0, a, b), [(2, 3), (3,)]),
    "products": (lambda a, b: a @ b, [(2, 1, 2, 3), (4, 3, 2)]),
    "a product with vectors": (lambda a, b, c: a @ b + b @ c, [(3,), (3, 3), (3,)]),
    "affine": (lambda x, w, b: affine(x, w, b) * affine(x, w), [(4, 3), (2, 3), (2,)]),
    "sums": (lambda a: a.sum(axis=(0, -1)) * a.mean(axis=0).sum() + a.sum(), [(2, 3, 2)]),
    "extremes": (lambda a: a.max(axis=1) - a.min(axis=-1, keepdims=True).T + a.max(), [(2, 2)]),
    "variances": (lambda a: a.var(axis=0, correction=0) + a.var(), [(3, 2)]),
    "views": (lambda a: a.permute(2, 0, -2).reshape(-1, 2).T[1:].expand(3, -1, -1).contiguous(), [(2, 3, 2)]),
    "pieces": (lambda a, b: concatenate([a, b, a * b])[[0, 0, 2]].unsqueeze(1).squeeze(), [(2, 3), (2, 3)]),
}


@pytest.mark.parametrize("name", FORWARD)
def test_forward_and_backward_mode_agree_on_each_operation(name, rng):
    function, shapes = FORWARD[name]
    for _ in range(3):
        primals, tangents = ([draw(rng, shape) for shape in shapes] for _ in range(2))
        agree(function, primals, tangents, rng)


@some
@given(SEEDS)
def test_any_graph_is_walked_in_an_order_that_holds(seed):
    inputs = [Tensor(x, requires_grad=True) for x in three_inputs(seed)]
    root = a_random_function(seed)(*inputs).node
    order = topological(root)
    place = {id(item): i for i, item in enumerate(order)}
    expect(len(place), len(order))
    assert order[0] is root
    for item in order:
        for source in item.sources if isinstance(item, Node) else ():
            assert source is None or place[id(source)] > place[id(item)]


@some
@given(SEEDS, st.integers(1, 6))
def test_a_walk_can_stop_anywhere_and_go_on_from_there(seed, count):
    """The gradients of some nodes, carried on, are those of the leaves."""
    inputs = [Tensor(x, requires_grad=True) for x in three_inputs(seed)]
    root = a_random_function(seed)(*inputs).node
    nodes = [item for item in topological(root) if isinstance(item, Node)]
    grad = np.cos(np.arange(np.prod(root.shape))).reshape(root.shape)
    whole = {id(item): g for item, g in flow(root, grad, retain_graph=True)}
    # Cut at all nodes of this depth in the order: whatever is used across the cut is an end.
    before = set(map(id, nodes[: len(nodes) - count]))
    ends = {
        source
        for item in nodes
        if id(item) in before
        for source in item.sources
        if isinstance(source, Node) and id(source) not in before
    }
    added = {}
    for item, g in flow(root, grad, retain_graph=True, ends=ends):
        onward = flow(item, g, retain_graph=True) if item in ends else [(item, g)]
        for end, share in onward:
            added[id(end)] = added.get(id(end), 0) + share
    expect([added[key] for key in sorted(added)], [whole[key] for key in sorted(whole)])


@pytest.mark.parametrize("segments", [1, 2, 4])
def test_layers_in_segments_have_their_slopes(segments, rng):
    layers = [lambda x: tanh(x) * x, lambda x: x + 1.0, softmax, lambda x: x * x]
    check_gradient(lambda x: checkpoint_sequential(layers, segments, x), draw(rng, (2, 3)))


def test_a_network_of_other_katas_operations_has_its_slopes(rng):
    x, w, b = draw(rng, (3, 4)), draw(rng, (5, 4)), draw(rng, 5)
    check_gradient(lambda x, w, b: log_softmax(gelu(affine(x, w, b)))[:, [0, 2]].mean(axis=0), x, w, b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_are_right_in_their_dtype(dtype, rng):
    a, b = (draw(rng, shape, positive=True).astype(dtype) for shape in ((2, 3), (3,)))
    check_formula(
        lambda a, b: (a * b / (a + b)).exp() @ b - (a.log().sqrt() ** 2).mean(axis=1),
        lambda a, b: np.exp(a * b / (a + b)) @ b - np.log(a).mean(axis=1),
        a + 1,
        b,
    )
