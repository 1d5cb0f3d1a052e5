"""Level 4: each node is walked once, and nothing is computed that nobody wants.

Ratios within this run, in CPU time, never seconds. Each budget has a twin: a naive version, written out here,
that must not fit.
"""

import inspect
import math

import numpy as np
import pytest

from dojo.measuring import Budget, race
from tinytorch.autograd import (
    Node,
    backward,
    checkpoint_sequential,
    flow,
    jvp,
    no_grad,
    record,
    unbroadcast,
)
from tinytorch.tensor import (
    Tensor,
    absolute,
    amax,
    amin,
    clip,
    div,
    exp,
    log,
    matmul,
    maximum,
    mean,
    power,
    set_recorder,
    sqrt,
    var,
)

DEPTH = Budget(
    "the way back through 1,200 nodes",
    limit=1.8,
    reference=1.0,
    naive=2.9,
    unit="times the time of six through 200",
    naively="a walk that looks its nodes up in a list",
)
DOUBLINGS = Budget(
    "64 doublings, h = h + h",
    limit=5,
    reference=1.0,
    naive=13,
    unit="times the time of 64 additions, h = h + x",
    naively="a walk along every path (of 13 doublings)",
)
OVERHEAD = Budget(
    "200 additions of 4 elements, there and back",
    limit=8,
    reference=3.2,
    naive=12,
    unit="times the time of 200 that nobody records",
    naively="a recorder that asks each time what its rule needs",
)
SLICE = Budget(
    "the gradient of a slice of 16 KiB",
    limit=20,
    reference=5,
    naive=110,
    unit="times the time of zeros and one assignment",
    naively="a rule that adds element by element",
)
PICK = Budget(
    "the gradient of 10,000 of 5,000 elements picked",
    limit=15,
    reference=4,
    naive=125,
    unit="times the time of np.add.at",
    naively="a loop over the indices",
)
UNSTRETCH = Budget(
    "unbroadcast of a table of 16 KiB to a row",
    limit=15,
    reference=2.9,
    naive=250,
    unit="times the time of numpy's sum over the rows",
    naively="a loop over the rows",
)
RULES = Budget(
    "the rule of one operation on 16 KiB",
    limit=15,  # choosing by np.where or by an index of bools takes up to six times as long as a product
    reference=2.5,
    naive=110,
    unit="times the time of a formula in numpy",
    naively="a loop over the elements",
)
POWERS = Budget(
    "the rule of powers of 16 KiB",
    limit=6,
    reference=1.5,
    naive=50,
    unit="times the time of their formula in numpy",
    naively="a loop over the elements",
)
STACKED = Budget(
    "the gradients of 192 small matrices and of the one that multiplies them all",
    limit=3.3,
    reference=1.1,
    naive=9,  # 4.8 where products are slow
    unit="times the time of two products",
    naively="a loop over the 192",
)
TWICE = Budget(
    "16 layers in 4 segments, there and back",
    limit=3,
    reference=1.6,
    naive=5.9,
    unit="times the time without checkpoints",
    naively="a version that begins anew for each layer",
)
FORWARD = Budget(
    "forward mode through 16 layers",
    limit=30,
    reference=7,
    naive=200,
    unit="times the time of the layers alone",
    naively="a version that makes the whole matrix of derivatives",
)


# Once for each node.


def ones(shape=4):
    return Tensor(np.ones(shape, np.float32), requires_grad=True)


def chain(x, n):
    h = x
    for _ in range(n):
        h = h + x
    return h


def there_and_back(n):
    backward(chain(ones(), n), np.ones(4, np.float32))


def walk(root):
    for _ in flow(root, np.ones(4, np.float32), retain_graph=True):
        pass


def long_and_short():
    """The end of a graph of 1,200 nodes; and a function that walks one of 200 six times."""
    short = chain(ones(), 200).node
    return chain(ones(), 1200).node, lambda: [walk(short) for _ in range(6)]


def test_the_time_grows_with_the_number_of_nodes():
    root, six_short_ones = long_and_short()
    DEPTH.check(race(lambda: walk(root), six_short_ones, limit=DEPTH.limit))


def test_the_twin_that_looks_nodes_up_in_a_list_is_caught():
    root, six_short_ones = long_and_short()

    def in_a_list():
        order = [root]
        for node in order:
            order += [one for one in node.sources if isinstance(one, Node) and one not in order]
        walk(root)

    DEPTH.catches(race(in_a_list, six_short_ones, limit=DEPTH.limit))


def doublings(n):
    h = ones()
    for _ in range(n):
        h = h + h
    return h


def test_a_result_that_is_used_twice_is_walked_once():
    def double():
        backward(doublings(64), np.ones(4, np.float32))

    DOUBLINGS.check(race(double, lambda: there_and_back(64), limit=DOUBLINGS.limit))


def test_the_twin_that_walks_every_path_is_caught():
    def walk(source, grad):
        if isinstance(source, Node):
            for one, share in zip(source.sources, source.op.pull(grad, *source.kept), strict=True):
                walk(one, share)

    def every_path():
        walk(doublings(13).node, np.ones(4, np.float32))

    DOUBLINGS.catches(race(every_path, lambda: there_and_back(64), limit=DOUBLINGS.limit))


def unrecorded():
    with no_grad():
        chain(ones(), 200)


def test_recording_and_going_back_costs_a_few_times_the_operation():
    OVERHEAD.check(race(lambda: there_and_back(200), unrecorded, limit=OVERHEAD.limit))


def test_the_twin_that_asks_each_time_what_a_rule_needs_is_caught():
    def ask(op, inputs, arrays, params, out):
        inspect.signature(op.pull)
        inspect.signature(op.forward)
        record(op, inputs, arrays, params, out)

    def asking():
        before = set_recorder(ask)
        try:
            there_and_back(200)
        finally:
            set_recorder(before)

    OVERHEAD.catches(race(asking, unrecorded, limit=OVERHEAD.limit))


# Whole arrays at a time.


TABLE = (64, 64)  # 16 KiB


def slice_and_back():
    x = ones(TABLE)
    backward(x[1:, ::2], np.ones((63, 32), np.float32))


def by_assignment():
    grad, x = np.zeros(TABLE, np.float32), np.ones(TABLE, np.float32)
    grad[1:, ::2] = np.ones((63, 32), np.float32)
    return grad.copy(), x


def test_a_slice_is_put_back_in_one_go():
    SLICE.check(race(slice_and_back, by_assignment, limit=SLICE.limit))


def test_the_twin_that_adds_element_by_element_is_caught():
    def one_by_one():
        grad, ones = np.zeros(TABLE, np.float32), np.ones((63, 32), np.float32)
        for i, j in np.ndindex(63, 32):
            grad[i + 1, 2 * j] += ones[i, j]

    SLICE.catches(race(one_by_one, by_assignment, limit=SLICE.limit))


def indices(rng):
    return (rng.integers(0, 5_000, 10_000),)


def at_once(index):
    grad = np.zeros(5_000, np.float32)
    np.add.at(grad, index, np.ones(10_000, np.float32))
    return grad


def test_picked_elements_are_put_back_in_one_go(rng):
    def pick_and_back(index):
        backward(ones(5_000)[index], np.ones(10_000, np.float32))

    PICK.check(race(pick_and_back, at_once, limit=PICK.limit, inputs=lambda: indices(rng)))


def test_the_twin_that_loops_over_the_indices_is_caught(rng):
    def loop(index):
        grad, ones = np.zeros(5_000, np.float32), np.ones(10_000, np.float32)
        for i, one in zip(index, ones, strict=True):
            grad[i] += one

    PICK.catches(race(loop, at_once, limit=PICK.limit, inputs=lambda: indices(rng)))


def table(rng):
    return (rng.random(TABLE, np.float32),)


def test_stretched_rows_are_added_up_by_numpy(rng):
    UNSTRETCH.check(
        race(
            lambda grad: unbroadcast(grad, (64,)),
            lambda grad: grad.sum(axis=0),
            limit=UNSTRETCH.limit,
            inputs=lambda: table(rng),
        )
    )


def test_the_twin_that_loops_over_rows_is_caught(rng):
    def loop(grad):
        total = np.zeros(64, np.float32)
        for row in grad:
            for j, value in enumerate(row.tolist()):
                total[j] += value

    UNSTRETCH.catches(
        race(loop, lambda grad: grad.sum(axis=0), limit=UNSTRETCH.limit, inputs=lambda: table(rng))
    )


def shared(grad, a, out):
    hit = a == out
    return hit * (grad / hit.sum(axis=0, dtype=np.float32))


def larger(grad, a, b):
    first = (a > b) + np.float32(0.5) * (a == b)
    return grad * first, grad * (1 - first)


FORMULAS = {
    "div": (div, 2, {}, lambda grad, out, a, b: (grad / b, -grad * out / b)),
    "exp": (exp, 1, {}, lambda grad, out, a: grad * out),
    "log": (log, 1, {}, lambda grad, out, a: grad / a),
    "sqrt": (sqrt, 1, {}, lambda grad, out, a: grad / (2 * out)),
    "absolute": (absolute, 1, {}, lambda grad, out, a: grad * np.sign(a)),
    "maximum": (maximum, 2, {}, lambda grad, out, a, b: larger(grad, a, b)),
    "clip": (clip, 1, {"min": 0.75, "max": 1.25}, lambda grad, out, a: grad * (a == out)),
    "mean": (mean, 1, {"axis": 0}, lambda grad, out, a: np.broadcast_to(grad / len(a), a.shape)),
    "var": (var, 1, {"axis": 0}, lambda grad, out, a: 2 * grad / (len(a) - 1) * (a - a.mean(axis=0))),
    "amax": (amax, 1, {"axis": 0}, lambda grad, out, a: shared(grad, a, out)),
    "amin": (amin, 1, {"axis": 0}, lambda grad, out, a: shared(grad, a, out)),
    "power": (
        power,
        2,
        {},
        lambda grad, out, a, b: (grad * b * np.power(a, b - 1), grad * out * np.log(a)),
    ),
}


def way_back(name, rng):
    """`back` of an operation and its formula, both as functions of nothing, from random tables."""
    operation, count, params, formula = FORMULAS[name]
    inputs = [rng.random(TABLE, np.float32) + np.float32(0.5) for _ in range(count)]
    out, back = operation.vjp(*inputs, **params)
    grad = rng.random(out.shape, np.float32)
    return lambda: back(grad), lambda: formula(grad, out, *inputs)


@pytest.mark.parametrize("name", [name for name in FORMULAS if name != "power"])
def test_a_rule_works_on_whole_arrays(name, rng):
    RULES.check(race(*way_back(name, rng), limit=RULES.limit))


def test_the_twin_whose_rule_loops_over_elements_is_caught(rng):
    a, grad = (rng.random(TABLE, np.float32) for _ in range(2))

    def loop():
        pairs = zip(grad.ravel().tolist(), a.ravel().tolist(), strict=True)
        return np.array([g if x > 0 else -g for g, x in pairs], np.float32).reshape(TABLE)

    RULES.catches(race(loop, lambda: grad * np.sign(a), limit=RULES.limit))


def test_the_rule_of_powers_works_on_whole_arrays(rng):
    POWERS.check(race(*way_back("power", rng), limit=POWERS.limit))


def test_the_twin_that_raises_one_by_one_is_caught(rng):
    a, b, grad = (rng.random(TABLE, np.float32) + np.float32(0.5) for _ in range(3))

    def loop():
        for_a, for_b = np.empty(TABLE, np.float32), np.empty(TABLE, np.float32)
        for i, j in np.ndindex(TABLE):
            for_a[i, j] = grad[i, j] * b[i, j] * a[i, j] ** (b[i, j] - 1)
            for_b[i, j] = grad[i, j] * a[i, j] ** b[i, j] * math.log(a[i, j])
        return for_a, for_b

    formula = FORMULAS["power"][3]
    POWERS.catches(race(loop, lambda: formula(grad, a**b, a, b), limit=POWERS.limit))


def stacked(rng):
    """192 matrices of (4, 32), 96 KiB, times one of (32, 32); and the gradient of the products."""
    return tuple(rng.random(shape, np.float32) for shape in ((192, 4, 32), (32, 32), (192, 4, 32)))


def two_products(many, one, grad):
    return grad @ one.T, many.reshape(-1, 32).T @ grad.reshape(-1, 32)


def test_a_matrix_for_many_takes_one_product(rng):
    many, one, grad = stacked(rng)
    _, back = matmul.vjp(many, one)
    STACKED.check(race(lambda: back(grad), lambda: two_products(many, one, grad), limit=STACKED.limit))


def test_the_twin_that_multiplies_one_by_one_is_caught(rng):
    many, one, grad = stacked(rng)

    def one_by_one():
        return [g @ one.T for g in grad], sum(a.T @ g for a, g in zip(many, grad, strict=True))

    STACKED.catches(race(one_by_one, lambda: two_products(many, one, grad), limit=STACKED.limit))


# What memory costs in time, and forward mode.


def layer(x):
    return (x * -0.1).exp()


LAYERS = [layer] * 16


def through(x, layers=LAYERS):
    for one in layers:
        x = one(x)
    return x


def plain():
    backward(through(ones(4096)).sum())


def test_each_layer_is_computed_once_more_and_not_more_often():
    def in_segments():
        backward(checkpoint_sequential(LAYERS, 4, ones(4096)).sum())

    TWICE.check(race(in_segments, plain, limit=TWICE.limit))


def test_the_twin_that_begins_anew_for_each_layer_is_caught():
    def from_the_start():
        for k in range(16, 0, -1):
            with no_grad():
                through(ones(4096), LAYERS[: k - 1])
            backward(layer(ones(4096)).sum())

    TWICE.catches(race(from_the_start, plain, limit=TWICE.limit))


X = np.full(64, 0.5, np.float32)


def alone():
    with no_grad():
        through(Tensor(X))


def test_one_direction_costs_a_few_times_the_function():
    FORWARD.check(race(lambda: jvp(through, [X], [X]), alone, limit=FORWARD.limit))


def test_the_twin_that_makes_the_whole_matrix_is_caught():
    def whole_matrix():
        rows = []
        for row in np.eye(64, dtype=np.float32):
            x = Tensor(X, requires_grad=True)
            backward(through(x), row)
            rows.append(x.grad)
        return np.stack(rows) @ X

    FORWARD.catches(race(whole_matrix, alone, limit=FORWARD.limit))
