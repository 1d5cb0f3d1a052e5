"""Level 1: what is recorded, in which order it is walked back, and what arrives at the leaves."""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest

from dojo.curriculum import ROOT
from dojo.expect import expect, expect_error
from tinytorch.activations import Dropout, relu_, sigmoid_, softmax, tanh_
from tinytorch.autograd import (
    Node,
    backward,
    flow,
    is_grad_enabled,
    look_over,
    no_grad,
    register_hook,
    shares_of,
    source_of,
    topological,
    unbroadcast,
)
from tinytorch.layers import Linear
from tinytorch.networks import MLP, Sequential, Tape
from tinytorch.tensor import (
    Tensor,
    add,
    compare,
    concatenate,
    exp,
    increment_version,
    join,
    maximum,
    mul,
    op,
    power,
    set_recorder,
    stack,
    sub,
    total,
    where,
)


def leaf(values, dtype=np.float64):
    return Tensor(np.array(values, dtype), requires_grad=True)


def f64(values):
    return np.array(values, np.float64)


def sources(tensor):
    return [*tensor.node.sources]


@op
def riddle(a):
    """An operation that nobody has written a rule for."""
    return a * 3.0


# The straight line of kata 05, and beyond it.


def test_the_graph_agrees_with_the_straight_line(rng):
    net = MLP([4, 8, 8, 3], rng=rng)
    x, grad = leaf(rng.normal(size=(5, 4)), np.float32), rng.normal(size=(5, 3)).astype(np.float32)
    with Tape() as tape:
        net(x)
    on_the_line = [tape.walk_back(grad), *(p.grad for p in net.parameters())]
    net.zero_grad()
    x.grad = None
    backward(net(x), grad)
    expect([x.grad, *(p.grad for p in net.parameters())], on_the_line)


def test_a_residual_connection_is_no_obstacle(rng):
    """out = x + w x has the gradient 1 + w in x; a line would lose one of the two."""
    x, w = leaf([2.0, 3.0]), leaf([10.0, 20.0])
    backward(x + w * x, f64([1, 1]))
    expect((x.grad, w.grad), (f64([11, 21]), f64([2, 3])))


# 06.9 source_of, record


def test_the_source_of_an_input():
    x = leaf([1.0])
    assert source_of(x) is x
    y = x * 2.0
    assert source_of(y) is y.node
    for nothing in (Tensor([1.0]), np.ones(3), 2.0, None, "x", x.detach(), Tensor([1])):
        assert source_of(nothing) is None
    mark = object()
    y.node = mark  # as another recorder would leave it
    assert source_of(y) is mark


def test_a_node_knows_its_operation_its_sources_and_what_its_rule_keeps():
    @op
    def halved(a):
        return a / 2

    @halved.gradient
    def halved_back(grad, out, a):
        return grad / 2

    x, y = leaf([1.0, 2.0]), leaf([[3.0], [4.0]])
    product = x * y
    out = halved(product)
    assert isinstance(product.node, Node)
    expect(
        (product.node.op.name, product.node.shape, product.node.dtype), ("mul", (2, 2), np.dtype(np.float64))
    )
    assert sources(product)[0] is x
    assert sources(product)[1] is y
    assert sources(out) == [product.node]
    assert [*map(id, out.node.kept)] == [id(out.data), id(product.data)]
    expect(("halved" in repr(out.node), "(2, 2)" in repr(out.node)), (True, True))


def test_what_needs_no_gradient_is_no_source():
    x = leaf([1.0])
    out = concatenate([Tensor([5.0]), x, np.array([6.0])])
    assert sources(out)[0] is None
    assert sources(out)[1] is x
    assert sources(out)[2] is None
    assert (Tensor([1.0]) * 2.0).node is None
    assert compare(x, 0.0, test=np.greater).node is None


ELSEWHERE = """
import gc, threading
import numpy as np
from tinytorch.tensor import Tensor

x = Tensor(np.ones(2), requires_grad=True)
print((x * x).requires_grad)
import tinytorch.autograd
(x * x).sum().backward()
print(x.grad.tolist(), flush=True)

def deep():
    h = x
    for _ in range(10_000):
        h = -h
    h.backward(np.ones(2), retain_graph=True)
    print(x.grad.tolist(), flush=True)
    h = None
    print("let go", flush=True)

gc.disable()  # so many new objects would set it going again and again
threading.stack_size(1 << 20)  # 100 bytes for each operation
thread = threading.Thread(target=deep)
thread.start()
thread.join()
"""


@functools.cache
def elsewhere():
    """What a process of its own prints, that sees the import happen, and may crash without harm."""
    h = -leaf([1.0, 2.0])  # here first: what is not written yet says so better here than there
    backward(h.sum(), retain_graph=True)
    path = os.pathsep.join([str(ROOT), str(ROOT / "stubs"), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return [*run.stdout.splitlines(), *run.stderr.splitlines()[-1:], f"exit status {run.returncode}"]


def test_recording_begins_with_the_import():
    expect(elsewhere()[:2], ["False", "[2.0, 2.0]"])


def test_a_chain_of_ten_thousand_operations_on_a_small_stack_is_walked_and_let_go():
    """A walk that calls itself stops at Python's recursion limit, or crashes where that was raised."""
    expect(elsewhere()[2:], ["[3.0, 3.0]", "let go", "exit status 0"])


# 06.10 unbroadcast


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 3), [[1, 2, 3], [4, 5, 6]]),
        ((3,), [5, 7, 9]),
        ((1, 3), [[5, 7, 9]]),
        ((2, 1), [[6], [15]]),
        ((1,), [21]),
        ((1, 1), [[21]]),
        ((), 21),
    ],
)
def test_the_uses_of_a_stretched_element_add_up(shape, expected):
    got = unbroadcast(f64([[1, 2, 3], [4, 5, 6]]), shape)
    expect((np.shape(got), np.asarray(got)), (shape, f64(expected)))


def test_new_axes_and_stretched_ones_at_once():
    expect(unbroadcast(np.ones((4, 2, 3, 5)), (2, 1, 5)), np.full((2, 1, 5), 12.0))


def test_an_axis_of_length_1_that_stayed_so_and_one_of_length_0():
    expect(unbroadcast(np.ones((2, 1)), (2, 1)), np.ones((2, 1)))
    expect(unbroadcast(np.ones((0, 3)), (1, 3)), np.zeros((1, 3)))
    expect(unbroadcast(np.ones((2, 0)), (0,)), np.zeros(0))


@pytest.mark.parametrize(
    ("grad", "shape"), [((2, 3), (2,)), ((3,), (2, 3)), ((2, 3), (2, 2)), ((1, 3), (2, 3))]
)
def test_a_gradient_that_no_stretching_explains_is_refused(grad, shape):
    with expect_error(ValueError, str(grad), str(shape)):
        unbroadcast(np.ones(grad), shape)


# 06.11 topological


def check_order(order, root):
    """Each once, the root first, and before each item everything that uses it."""
    assert order[0] is root
    assert len(set(map(id, order))) == len(order)
    place = {id(item): i for i, item in enumerate(order)}
    for item in order:
        for source in item.sources if isinstance(item, Node) else ():
            assert source is None or place[id(source)] > place[id(item)]


def test_every_node_and_leaf_comes_once_and_after_all_that_use_it():
    a, b, c = leaf([1.0]), leaf([2.0]), leaf([3.0])
    left = a * b
    right = left + c
    out = right * left + a  # `left` is near the root by one way, and far by another
    order = topological(out.node)
    check_order(order, out.node)
    expect(len(order), 7)
    assert {id(x) for x in (a, b, c)} <= {id(item) for item in order}
    out = (a * b) * ((a * b) + a)
    check_order(topological(out.node), out.node)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_holds_in_any_graph(seed):
    rng = np.random.default_rng(seed)
    tensors = [leaf([1.0]) for _ in range(4)]
    for _ in range(40):
        i, j = rng.integers(0, len(tensors), 2)
        tensors.append(tensors[i] * tensors[j] if rng.random() < 0.7 else tensors[i].abs())
    root = tensors[-1].node
    order = topological(root)
    check_order(order, root)
    reachable, todo = set(), [root]
    while todo:
        item = todo.pop()
        if id(item) not in reachable:
            reachable.add(id(item))
            todo += item.sources if isinstance(item, Node) else []
    expect({id(item) for item in order}, reachable)


def test_a_leaf_is_all_of_its_graph():
    x = leaf([1.0])
    assert topological(x) == [x]


def test_the_order_goes_as_far_as_the_ends():
    x = leaf([1.0])
    middle = x * 2.0
    out = middle.exp() + middle
    order = topological(out.node, ends={middle.node})
    expect([item.op.name for item in order], ["add", "exp", "mul"])
    assert order[-1] is middle.node
    assert topological(out.node, ends={out.node}) == [out.node]


# 06.12 shares_of


def test_each_source_gets_its_share_in_its_shape():
    x, row = leaf([[1.0, 2.0], [3.0, 4.0]]), leaf([10.0, 20.0])
    shares = [*shares_of((x * row).node, np.ones((2, 2)))]
    assert [source for source, _ in shares] == [x, row]
    expect([share for _, share in shares], [f64([[10, 20], [10, 20]]), f64([4, 6])])


def test_a_share_comes_in_the_dtype_of_its_source():
    x, y = leaf([1.0], np.float32), leaf([2.0], np.float64)
    shares = [np.asarray(share) for _, share in shares_of((x * y).node, f64([1]))]
    expect([share.dtype for share in shares], [np.dtype(np.float32), np.dtype(np.float64)])


def test_a_rule_may_give_one_array_a_tuple_or_a_list_and_none_for_what_has_no_gradient():
    x, y = leaf([1.0, -2.0]), leaf([3.0, 4.0])
    (only,) = shares_of(x.exp().node, f64([1, 1]))
    assert only[0] is x
    pieces = [*shares_of(concatenate([x, y]).node, f64([1, 2, 3, 4]))]
    expect([share for _, share in pieces], [f64([1, 2]), f64([3, 4])])
    chosen = [*shares_of(where(np.array([True, False]), x, y).node, f64([1, 2]))]
    assert [source for source, _ in chosen] == [x, y]
    expect([share for _, share in chosen], [f64([1, 0]), f64([0, 2])])


def test_a_rule_that_leaves_a_source_out_is_refused():
    @op
    def product(a, b):
        return a * b

    @product.gradient
    def product_back(grad, b):
        return grad * b

    x, y = leaf([1.0]), leaf([2.0])
    with expect_error(TypeError, "product"):
        list(shares_of(product(x, y).node, f64([1])))
    (share,) = shares_of(product(x, 2.0).node, f64([1]))  # a number needs none
    expect(share[1], f64([2]))


def test_a_rule_is_asked_once():
    @op
    def counted(a):
        return a * 2.0

    calls = []
    counted.gradient(lambda grad: (calls.append(grad), grad * 2.0)[1])
    x = leaf([1.0])
    backward(counted(x))
    expect((len(calls), x.grad), (1, f64([2])))


def test_a_share_of_a_shape_that_no_stretching_explains_is_refused():
    @op
    def turned(a):
        return a * 2.0

    turned.gradient(lambda grad: grad[:, None])
    with expect_error(ValueError, "(2, 1)", "(2,)"):
        list(shares_of(turned(leaf([1.0, 2.0])).node, f64([1, 1])))


# 06.13 look_over


def test_a_missing_rule_is_named_once_its_gradient_is_wanted():
    x = leaf([1.0])
    out = riddle(x)
    with expect_error(TypeError, "riddle"):
        look_over(iter([out.node]))
    with expect_error(TypeError, "riddle"):
        backward((out * 2.0).sum())
    expect(x.grad, None)
    backward((riddle(x).detach() * x).sum())  # and not before
    expect(x.grad, f64([3]))


@pytest.mark.parametrize("in_place", [relu_, sigmoid_, tanh_], ids=lambda op: op.name)
def test_an_array_that_a_rule_kept_must_not_be_written_over(in_place):
    @op
    def grown(a):
        return np.exp(a)

    grown.gradient(lambda grad, out: grad * out)
    x = leaf([1.0, 2.0])
    h = grown(x)
    out = in_place(h)
    with expect_error(RuntimeError, "grown"):
        look_over(iter(topological(out.node)[:-1]))
    with expect_error(RuntimeError, "grown"):
        backward(out.sum())
    expect(x.grad, None)


def test_writing_over_what_no_rule_kept_is_fine():
    x = leaf([1.0, -2.0])
    h = x + 1.0
    out = relu_(h)
    assert out is h
    backward(out, f64([10, 20]))
    expect(x.grad, f64([10, 0]))


def test_a_second_write_spoils_what_the_first_one_kept():
    h = leaf([1.0, -2.0]) + 1.0
    relu_(h)
    sigmoid_(h)
    with expect_error(RuntimeError, "relu_"):
        backward(h.sum())


def test_a_write_through_a_view_or_elsewhere_in_a_list_is_noticed_too():
    weight = Tensor(f64([1, 2, 3]))
    out = leaf([4.0, 5.0]) * weight[1:]
    increment_version(weight.data)
    with expect_error(RuntimeError, "mul"):
        backward(out.sum())
    picks = np.array([0, 0, 1])
    out = leaf([4.0, 5.0])[picks]
    picks[:] = 1
    increment_version(picks)
    with expect_error(RuntimeError, "getitem"):
        backward(out.sum())


def test_writes_before_the_computation_and_to_other_arrays_do_not_matter():
    weight, other, x = Tensor(f64([1, 2])), np.zeros(2), leaf([3.0, 4.0])
    increment_version(weight.data)
    out = x * weight
    increment_version(other)
    backward(out.sum())
    expect(x.grad, f64([1, 2]))


def test_an_in_place_operation_on_a_constant_makes_it_a_result():
    @op(in_place=True)
    def add_(a, b):
        a += b
        return a

    @add_.gradient
    def add_back(grad):
        return grad, grad

    x, total_so_far = leaf([1.0, 2.0]), Tensor(f64([10, 20]))
    for _ in range(3):
        add_(total_so_far, x)
    backward((total_so_far * f64([1, 10])).sum())
    expect((x.grad, total_so_far.grad), (f64([3, 30]), None))


# 06.14 flow, backward


def test_a_tensor_used_twice_gets_both_gradients():
    x = leaf([3.0])
    (x * x + x).backward()
    expect(x.grad, f64([7]))  # 2x + 1; overwriting instead of adding leaves 1 or 3


def test_flow_gives_each_leaf_all_of_its_gradient_at_once():
    x, y = leaf([3.0]), leaf([5.0])
    got = [*flow((x * x * y + x).node, f64([1]))]
    assert len(got) == 2
    found = {id(item): grad for item, grad in got}
    expect((found[id(x)], found[id(y)]), (f64([31]), f64([9])))
    expect((x.grad, y.grad), (None, None))  # it is `backward` that adds


def test_flow_goes_as_far_as_the_ends_and_leaves_what_lies_behind_alone():
    x = leaf([3.0])
    middle = x * x
    out = middle * middle
    ((end, grad),) = flow(out.node, f64([1]), ends={middle.node})
    assert end is middle.node
    expect(grad, f64([18]))
    backward(middle)
    expect(x.grad, f64([6]))


def test_flow_frees_what_it_has_used():
    out = leaf([3.0]) * 2.0
    list(flow(out.node, f64([1]), retain_graph=True))
    list(flow(out.node, f64([1])))
    with expect_error(RuntimeError, "retain_graph"):
        list(flow(out.node, f64([1])))


def test_a_node_that_was_freed_is_named():
    node = (leaf([3.0]) * 2.0).node
    list(flow(node, f64([1])))
    with expect_error(RuntimeError, "mul", "retain_graph"):
        look_over(iter([node]))


def test_flow_from_an_end_arrives_there():
    node, seen = (leaf([3.0]) * 2.0).node, []
    node.hooks = [seen.append]
    ((end, grad),) = flow(node, f64([5]), ends={node})
    assert end is node
    expect((grad, seen, node.kept is None), (f64([5]), [], False))


def test_flow_from_a_leaf_arrives_there():
    x = leaf([1.0, 2.0])
    ((end, grad),) = flow(x, f64([5, 6]))
    assert end is x
    expect(grad, f64([5, 6]))


def test_a_diamond():
    """x goes into a and b, and both into out: out = exp(x) * x, whose slope is exp(x) (1 + x)."""
    x = leaf([0.0, 1.0])
    backward((x.exp() * x).sum())
    expect(x.grad, f64([1, 2 * np.e]))


def test_sixty_four_doublings_take_sixty_four_steps():
    """An engine that walks every path from the end to the leaf would walk 2**64 of them."""
    x = leaf([1.0])
    h = x
    for _ in range(64):
        h = h + h
    backward(h)
    expect(x.grad, f64([2.0**64]))


def test_a_chain_of_five_thousand_operations():
    x = leaf([1.0])
    h = x
    for _ in range(5000):
        h = h + x
    backward(h)
    expect(x.grad, f64([5001]))


def test_a_layer_used_twice_adds_up_both_of_its_uses(rng):
    layer = Linear(3, 3, rng=rng)
    x = leaf(rng.normal(size=(2, 3)), np.float32)
    backward(layer(layer(x)).sum())
    once, other = Linear(3, 3, rng=rng), Linear(3, 3, rng=rng)
    for copy in (once, other):
        copy.load_state_dict(layer.state_dict())
    backward(other(once(x.detach())).sum())
    expect(layer.weight.grad, once.weight.grad + other.weight.grad)
    expect(layer.bias.grad, once.bias.grad + other.bias.grad)


def test_gradients_add_up_from_one_backward_pass_to_the_next():
    x = leaf([1.0, 2.0])
    for _ in range(3):
        backward((x * x).sum())
    expect(x.grad, f64([6, 12]))


def test_a_gradient_belongs_to_its_leaf_alone():
    """Each of these rules hands on the very array that it was given, or a view of it."""
    x, y, z = leaf([[1.0, 2.0]]), leaf([[3.0, 4.0]]), leaf([[5.0], [6.0]])
    cotangent = f64([[1, 2]])
    backward(x + y + z.T, cotangent)
    x.grad += 10
    expect((y.grad, z.grad, cotangent), (f64([[1, 2]]), f64([[1], [2]]), f64([[1, 2]])))
    cotangent += 100
    y.grad += 1000
    expect((x.grad, y.grad, z.grad), (f64([[11, 12]]), f64([[1001, 1002]]), f64([[1], [2]])))


def test_a_gradient_can_be_written_to():
    """That of a sum arrives as one number, seen from every place: read-only."""
    x = leaf([1.0, 2.0, 3.0])
    backward(x.sum())
    x.grad[0] = 5
    expect(x.grad, f64([5, 1, 1]))


def test_a_kept_array_is_not_handed_out_as_a_gradient():
    @op
    def scaled(a, b):
        return a * b

    @scaled.gradient
    def scaled_back(grad, b):
        return b, None  # right for a gradient of ones

    x, weight = leaf([1.0, 2.0]), Tensor(f64([3, 4]))
    backward(scaled(x, weight).sum())
    x.grad += 1
    expect(weight.data, f64([3, 4]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_gradient_has_the_shape_and_dtype_of_its_leaf(dtype):
    x, wide = leaf([1.0, 2.0], dtype), Tensor(np.ones((3, 2)))
    backward((x * wide).sum())
    expect(x.grad, np.array([3, 3], dtype))


def test_numbers_without_axes_have_arrays_for_gradients():
    x, y = leaf(3.0), leaf(4.0, np.float32)
    backward((x * y).exp().log() + x)
    assert isinstance(x.grad, np.ndarray)
    expect((x.grad, y.grad), (f64(5), np.array(3, np.float32)))
    backward(x * x)
    assert isinstance(x.grad, np.ndarray)
    expect(x.grad, f64(11))


def test_a_leaf_is_its_own_gradient():
    x = leaf([2.0])
    backward(x)
    backward(x, [10.0])
    expect(x.grad, f64([11]))
    x, grad = leaf([2.0]), f64([5])
    backward(x, grad)
    x.grad += 1
    expect((x.grad, grad), (f64([6]), f64([5])))  # and its own array, too


def test_integers_and_constants_take_part_and_get_nothing():
    x, counts, table = leaf([1.0, 2.0]), Tensor([3, 4]), Tensor(f64([5, 6]))
    backward((x * counts + table).sum())
    expect((x.grad, counts.grad, table.grad), (f64([3, 4]), None, None))


def test_either_side_of_a_product_can_be_constant():
    matrix, vector = f64([[1, 2], [3, 4]]), f64([10, 1])
    for a, b, expected in [
        (leaf(matrix), vector, [[10, 1], [10, 1]]),
        (matrix, leaf(vector), [4, 6]),
        (leaf(matrix), [10.0, 1.0], [[10, 1], [10, 1]]),
        (leaf(matrix), Tensor(matrix), [[3, 7], [3, 7]]),
        (Tensor(matrix), leaf(matrix), [[4, 4], [6, 6]]),
    ]:
        x = a if isinstance(a, Tensor) and a.requires_grad else b
        backward((a @ b if isinstance(a, Tensor) else Tensor(a) @ b).sum())
        expect(x.grad, f64(expected))


def test_a_leaf_that_nothing_depends_on_gets_nothing():
    x, y = leaf([1.0]), leaf([2.0])
    y * 3.0
    backward(where(np.array([True]), x, 0.0) + y.detach())
    expect((x.grad, y.grad), (f64([1]), None))


def test_where_a_rule_has_none_the_way_ends():
    @op
    def first(a, b):
        return a + b

    first.gradient(lambda grad: (grad, None))
    x, y = leaf([1.0]), leaf([2.0])
    middle = y.exp()
    backward(first(x, middle).sum())
    expect((x.grad, y.grad), (f64([1]), None))
    with expect_error(RuntimeError, "retain_graph"):
        backward(middle)  # it was part of the graph all the same


@pytest.mark.parametrize(
    "grad",
    [f64([1, 2]), Tensor(f64([1, 2])), [1.0, 2.0], np.array([1, 2])],
    ids=["array", "Tensor", "list", "integers"],
)
def test_the_gradient_can_be_an_array_a_tensor_or_a_list(grad):
    x = leaf([3.0, 4.0])
    backward(x * x, grad)
    expect(x.grad, f64([6, 16]))


def test_a_list_of_gradients_does_not_go_through_float32():
    x = leaf([1.0, 2.0])
    backward(x * 1.0, [0.1, 0.2])
    expect(x.grad, f64([0.1, 0.2]))


@pytest.mark.parametrize("nothing", [0.0, 0, [0.0], f64([0])], ids=["0.0", "0", "list", "array"])
def test_a_gradient_of_0_is_one_as_well(nothing):
    x = leaf([3.0] if np.ndim(nothing) else 3.0)
    backward(x * x, nothing)
    expect(x.grad, np.zeros(x.shape))


def test_a_gradient_that_is_not_finite_arrives_as_it_is():
    """To hide it would be to hide that training has failed."""
    x = leaf([1.0, 2.0, 3.0])
    backward(x * 2.0, [np.inf, np.nan, 1e300])
    expect(x.grad, f64([np.inf, np.nan, 2e300]))


def test_a_gradient_is_taken_to_the_dtype_of_the_tensor():
    x, seen = leaf([3.0], np.float32), []
    y = x * 2.0
    for tensor in (y, x):
        register_hook(tensor, lambda grad: seen.append(grad.dtype))
        backward(tensor, f64([5]))
    expect((seen, x.grad), ([np.dtype(np.float32)] * 2, np.float32([15])))


def test_one_number_needs_no_gradient_whatever_its_axes():
    for shape in ((), (1,), (1, 1)):
        x = Tensor(np.full(shape, 2.0), requires_grad=True)
        backward(x * x)
        expect(x.grad, np.full(shape, 4.0))


def test_many_numbers_need_one():
    with expect_error(ValueError, "(2, 3)"):
        backward(Tensor(np.ones((2, 3)), requires_grad=True) * 2.0)
    with expect_error(ValueError, "(0,)"):
        backward(Tensor(np.ones(0), requires_grad=True) * 2.0)


@pytest.mark.parametrize("shape", [(3,), (1, 2), (), (2, 1)])
def test_a_gradient_of_another_shape_is_refused(shape):
    x = leaf([1.0, 2.0])
    out = x * 2.0
    with expect_error(ValueError, "(2,)", str(shape)):
        backward(out, np.ones(shape))
    backward(out, f64([1, 1]))  # nothing has happened to the graph
    expect(x.grad, f64([2, 2]))


def under_no_grad(x):
    with no_grad():
        return x * 2.0


def before_the_import(x):
    before = set_recorder(None)
    try:
        return x * 2.0
    finally:
        set_recorder(before)


@pytest.mark.parametrize(
    "made",
    [under_no_grad, before_the_import, Tensor.detach, lambda x: Tensor([1.0]), lambda x: Tensor([1])],
    ids=["under no_grad", "before the import", "detached", "a constant", "integers"],
)
def test_what_was_not_recorded_says_how_it_would_have_been(made):
    tensor = made(leaf([1.0]))
    with expect_error(RuntimeError, "import tinytorch.autograd"):
        backward(tensor)


def test_the_graph_is_freed_by_the_way_back_and_says_so():
    x = leaf([1.0, 2.0])
    middle = x * x
    out = middle.sum()
    backward(out)
    for tensor in (out, middle.sum()):
        with expect_error(RuntimeError, "retain_graph"):
            backward(tensor)
    expect(x.grad, f64([2, 4]))


def test_the_graph_stays_if_asked_to():
    x = leaf([1.0, 2.0])
    out = (x * x).sum()
    out.backward(retain_graph=True)
    backward(out, 10.0, retain_graph=True)
    backward(out)
    expect(x.grad, f64([24, 48]))
    with expect_error(RuntimeError, "retain_graph"):
        backward(out)


def test_leaves_keep_their_data(rng):
    net = Sequential(Linear(3, 3, rng=rng), Dropout(0.5, rng=rng))
    before = {name: array.copy() for name, array in net.state_dict().items()}
    backward(net(leaf(rng.normal(size=(2, 3)), np.float32)).sum())
    expect([*net.state_dict().values()], [*before.values()])


def test_made_of_other_operations():
    """`stack` is made of unsqueeze and join, and iterating of getitem: their gradients come for free."""
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    out = stack([x, y], axis=1)
    backward((out * f64([[1, 10], [100, 1000]])).sum())
    expect((x.grad, y.grad), (f64([1, 100]), f64([10, 1000])))
    x = leaf([1.0, 2.0, 3.0])
    first, *rest = x
    backward(first * 10.0 + sum(rest))
    expect(x.grad, f64([10, 1, 1]))


def test_operators_with_a_number_on_the_left():
    x = leaf([1.0, 2.0])
    backward((6.0 / x - 2.0**x + (1 - x) + abs(-x)).sum())
    expect(x.grad, -6 / f64([1, 4]) - f64([2, 4]) * np.log(2))


def test_steps_of_gradient_descent_arrive():
    """The smallest sum of (x - 3)**2 is at 3."""
    x = leaf([0.0, 10.0])
    for _ in range(60):
        x.grad = None
        backward(((x - 3.0) ** 2).sum())
        x.data -= 0.2 * x.grad
        increment_version(x.data)
    expect(x.data, f64([3, 3]), atol=1e-6)


# 06.15 no_grad, is_grad_enabled


def test_nothing_is_recorded_under_no_grad():
    x = leaf([1.0])
    with no_grad():
        expect(is_grad_enabled(), False)
        out = x * 2.0
        with no_grad():
            pass
        expect(is_grad_enabled(), False)
    expect((is_grad_enabled(), out.requires_grad, out.node), (True, False, None))
    assert (x * 2.0).node is not None


def test_no_grad_works_for_whole_functions_again_and_again():
    x = leaf([1.0])

    @no_grad()
    def double(y):
        """Twice."""
        return y * 2.0

    for _ in range(2):
        expect((double(x).requires_grad, is_grad_enabled()), (False, True))
    expect(double(y=x), f64([2]))
    expect(double.__doc__, "Twice.")


def test_a_function_under_no_grad_may_call_itself():
    @no_grad()
    def halved(y, times):
        return halved(y * 0.5, times - 1) if times else y

    x = leaf([8.0])
    expect((halved(x, 3), is_grad_enabled()), (f64([1]), True))
    assert (x * 2.0).node is not None


def test_a_function_under_no_grad_can_be_made_anywhere():
    """It matters who records when it is called, not when it was made."""
    with no_grad():

        @no_grad()
        def double(y):
            return y * 2.0

    expect((double(leaf([1.0])).requires_grad, is_grad_enabled()), (False, True))
    with no_grad():
        double(leaf([1.0]))
        expect(is_grad_enabled(), False)


def test_recording_goes_on_after_an_error():
    @no_grad()
    def fails():
        raise KeyError

    with expect_error(KeyError), no_grad():
        raise KeyError
    expect(is_grad_enabled(), True)
    with expect_error(KeyError):
        fails()
    expect(is_grad_enabled(), True)


def test_whoever_recorded_before_no_grad_does_so_afterwards():
    calls = []
    before = set_recorder(lambda *call: calls.append(call[0].name))
    try:
        x = leaf([1.0])
        with no_grad():
            x.exp()
        expect(is_grad_enabled(), True)
        x.log()
    finally:
        set_recorder(before)
    expect(calls, ["log"])


def test_who_asks_is_told_whoever_switched_off():
    before = set_recorder(None)
    try:
        expect(is_grad_enabled(), False)
    finally:
        set_recorder(before)


def test_asking_changes_nothing():
    is_grad_enabled()
    x = leaf([1.0])
    is_grad_enabled()
    backward(x * 2.0)
    expect(x.grad, f64([2]))


def test_a_detached_tensor_shares_its_memory_and_no_gradient():
    x = leaf([1.0, 2.0])
    y = x * x
    assert y.detach().data is y.data
    backward((y.detach() * x).sum())
    expect(x.grad, f64([1, 4]))


# 06.16 register_hook


def test_a_hook_sees_the_whole_gradient_once():
    seen = []
    x = leaf([3.0])
    y = x * 2.0
    register_hook(y, lambda grad: seen.append(("y", grad.copy())))
    x.register_hook(lambda grad: seen.append(("x", grad.copy())))
    backward(y * y + y)
    expect(seen, [("y", f64([13])), ("x", f64([26]))])
    expect(x.grad, f64([26]))


def test_what_a_hook_returns_goes_on_in_place_of_the_gradient():
    x, w = leaf([3.0]), leaf([1.0])
    y = x * 2.0
    register_hook(y, lambda grad: grad * 10)
    register_hook(y, lambda grad: grad + 1)
    register_hook(w, np.negative)
    backward(y * w)
    expect((x.grad, w.grad), (f64([22]), f64([-6])))
    backward(x * 2.0 + w)
    expect((x.grad, w.grad), (f64([24]), f64([-7])))  # the leaf still has its hook


def test_a_hook_can_be_taken_away():
    x, seen = leaf([1.0]), []
    remove_first = register_hook(x, lambda grad: seen.append("first"))
    remove_second = register_hook(x, lambda grad: seen.append("second"))
    remove_first()
    backward(x * 2.0)
    remove_first()
    remove_second()
    backward(x * 2.0)
    expect(seen, ["second"])


def test_a_hook_that_was_added_twice_is_taken_away_once_each_time():
    """Taking the first away twice does nothing more: the second is still there."""
    x = leaf([1.0])
    for tensor in (x * 2.0, x):
        seen = []

        def note(grad, seen=seen):
            seen.append(grad)

        remove_first, remove_second = register_hook(tensor, note), register_hook(tensor, note)
        remove_first()
        remove_first()
        backward(tensor, retain_graph=True)
        remove_second()
        backward(tensor)
        expect(len(seen), 1)


def test_a_hook_can_take_itself_away():
    x, seen = leaf([1.0]), []

    def once(grad):
        seen.append("once")
        remove()

    remove = register_hook(x, once)
    register_hook(x, lambda grad: seen.append("always"))
    backward(x * 2.0)
    backward(x * 2.0)
    expect(seen, ["once", "always", "always"])


def test_a_hook_must_keep_the_shape():
    x = leaf([1.0, 2.0])
    for tensor in (x * 1.0, x):
        register_hook(tensor, lambda grad: grad[:1])
        with expect_error(ValueError, "(2,)", "(1,)"):
            backward(tensor, f64([1, 1]))


def test_a_hook_may_return_another_dtype_or_a_list():
    x = leaf([1.0, 2.0], np.float32)
    register_hook(x, lambda grad: [5, 6])
    backward(x.sum())
    expect(x.grad, np.array([5, 6], np.float32))


def test_an_array_that_a_hook_returned_is_not_the_gradient_itself():
    x, mine = leaf([1.0, 2.0]), f64([5, 6])
    register_hook(x, lambda grad: mine)
    backward(x.sum())
    x.grad += 1
    expect((x.grad, mine), (f64([6, 7]), f64([5, 6])))


def test_only_what_has_a_gradient_can_have_a_hook():
    with expect_error(RuntimeError):
        register_hook(Tensor([1.0]), print)


def test_a_new_tensor_has_none_of_an_old_ones_hooks():
    """Whatever is known of a tensor by its id must go with it: ids are used again."""
    seen = []
    for _ in range(20):
        x = leaf([1.0])
        register_hook(x, seen.append)
        del x
        y = leaf([1.0])
        backward(y * 2.0)
    expect(seen, [])


# Operations that are used in every network, one by one: each has a rule that the engine can use.


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: sub(x, 1.0), [1, 1]),
        (lambda x: maximum(x, 2.0), [0, 0.5]),
        (lambda x: power(x, 3), [3, 12]),
        (lambda x: softmax(x), [0, 0]),
        (lambda x: exp(x) / exp(x), [0, 0]),
        (lambda x: mul(x, x.T), [2, 4]),
        (lambda x: add(x, x), [2, 2]),
        (lambda x: join(x, x, axis=0), [2, 2]),
        (lambda x: total(x), [1, 1]),
    ],
)
def test_sums_of_functions_have_the_slopes_of_these(function, expected):
    x = leaf([1.0, 2.0])
    backward(function(x).sum())
    expect(x.grad, f64(expected), atol=1e-12)
