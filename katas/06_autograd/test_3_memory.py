"""Level 3: what a graph holds on to, and for how long.

Counted by tracemalloc in bytes, so the figures are the same on every machine. Each budget has a twin: a naive
version, written out here, that must not fit.
"""

import math

import numpy as np
import pytest

from dojo.expect import expect
from dojo.measuring import Budget, kept_bytes, load_probes, memory_growth, peak_bytes, retained_bytes
from tinytorch.activations import ReLU
from tinytorch.autograd import (
    backward,
    checkpoint,
    checkpoint_sequential,
    jvp,
    no_grad,
    register_hook,
    unbroadcast,
)
from tinytorch.layers import Linear
from tinytorch.networks import Sequential
from tinytorch.tensor import Tensor, concatenate, mean, total, where

MIB = 1 << 20

PROBES = {probe.name: probe for probe in load_probes(__file__).PROBES}

KEPT = Budget(
    "an operation whose rule needs no input",
    limit=1.6,
    reference=1.25,
    naive=2.0,
    unit="results held, with what its rule keeps",
    naively="a rule that keeps its input",
)
REDUCED = Budget(
    "a sum, a mean or a few rows",
    limit=0.5,
    reference=0.01,
    naive=1.0,
    unit="inputs held, with what the rule keeps",
    naively="a rule that keeps its input to know its shape",
)
PAIRS = Budget(
    "32 pairs of Linear and ReLU",
    limit=40,
    reference=32.4,
    naive=64.6,
    unit="activations held",
    naively="a graph that keeps every result",
)
LINKS = Budget(
    "a chain of 16 additions",
    limit=3,
    reference=1.0,
    naive=16,
    unit="activations held",
    naively="a graph of tensors, which hold their data,",
)
FREED = Budget(
    "a way back that leaves 16 gradients",
    limit=25,
    reference=20.1,
    naive=35,
    unit="activations held at the worst moment",
    naively="a walk that frees nothing before its end",
)
PENDING = Budget(
    "a way back through 16 additions",
    limit=6,
    reference=3.0,
    naive=17,
    unit="activations held at the worst moment",
    naively="a walk that leaves a gradient at each node",
)
AFTERWARDS = Budget(
    "a loss after its way back",
    limit=1.6,
    reference=1.0,
    naive=9.0,
    unit="activations held, the leaf's gradient among them,",
    naively="a graph that lives as long as its loss",
)
SHARED = Budget(
    "the gradient of one matrix for 256 others",
    limit=8,
    reference=3.0,
    naive=17,
    unit="batches of results held at the worst moment",
    naively="a rule that makes a gradient for each of the 256 and adds them up later",
)
UNWANTED = Budget(
    "the gradient of a small matrix, beside a constant table",
    limit=0.5,
    reference=0.02,
    naive=1.02,
    unit="tables held at the worst moment",
    naively="a rule that computes the table's gradient, too,",
)
UNSTRETCHED = Budget(
    "unbroadcast of a table to a row",
    limit=0.5,
    reference=0.002,
    naive=2.0,
    unit="tables held at the worst moment",
    naively="a sum of float64",
)
SUMMED = Budget(
    "the gradient of a sum or a mean",
    limit=1.5,
    reference=1.0,
    naive=2.0,
    unit="inputs held at the worst moment",
    naively="a rule that lays out the repeated number",
)
BLOCKS = Budget(
    "64 checkpointed blocks of four operations",
    limit=256 / 3,
    reference=67,
    naive=268,
    unit="activations held",
    naively="a graph of all of them",
)
ROOT = Budget(
    "64 layers in 8 segments, there and back",
    limit=24,
    reference=17.4,
    naive=67.8,
    unit="activations held at the worst moment",
    naively="a graph of all of them",
)
FORWARD_GROWTH = Budget(
    "forward mode",
    limit=0.4,
    reference=0.0,
    naive=0.98,
    unit="as the power of the depth by which memory grows",
    naively="a graph",
)
ROOT_GROWTH = Budget(
    "√n segments",
    limit=0.75,
    reference=0.48,
    naive=0.98,
    unit="as the power of the depth by which memory grows",
    naively="a graph",
)


def leaf(*shape):
    return Tensor(np.full(shape, 0.5, np.float32), requires_grad=True)


@pytest.fixture
def x():
    """(512, 512) float32: 1 MiB."""
    return leaf(512, 512)


def fresh(x):
    """A result that nobody holds: the rule of an addition keeps nothing."""
    return x + 1.0


# What a rule keeps.


NO_INPUT = {
    "exp": lambda h: h.exp(),
    "sqrt": lambda h: h.sqrt(),
    "neg": lambda h: -h,
    "add": lambda h: h + 2.0,
    "sub": lambda h: 2.0 - h,
    "where": lambda h: where(h.data > 1, h, 0.0),
    "contiguous": lambda h: h.T.contiguous(),
    "reshape": lambda h: h.T.reshape(-1),
    "permute, transpose": lambda h: h.permute(1, 0).transpose(0, 1).contiguous(),
    "squeeze, unsqueeze": lambda h: h.unsqueeze(0).squeeze().contiguous(),
    "expand": lambda h: h[:1].expand(512, 512).T.contiguous(),
    "join": lambda h: concatenate([h[:256], h[256:]]),
    "rows": lambda h: h[np.arange(512)],
}


@pytest.mark.parametrize("name", NO_INPUT)
def test_an_input_that_no_rule_needs_is_let_go(name, x):
    KEPT.check(kept_bytes(lambda: NO_INPUT[name](fresh(x))) / MIB)


def test_the_twin_whose_rule_keeps_its_input_is_caught(x):
    def forward():
        h = fresh(x)
        return h.exp(), h.data

    KEPT.catches(kept_bytes(forward) / MIB)


REDUCTIONS = {
    "total": lambda h: h.sum(),
    "total of rows": lambda h: h.sum(axis=1),
    "mean": lambda h: h.mean(),
    "mean of columns": lambda h: h.mean(axis=0, keepdims=True),
    "a row": lambda h: h[np.array([3])],
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_shape_is_remembered_without_its_array(name, x):
    REDUCED.check(kept_bytes(lambda: REDUCTIONS[name](fresh(x))) / MIB)


def test_the_twin_that_keeps_an_array_for_its_shape_is_caught(x):
    def forward():
        h = fresh(x)
        return h.sum(), h.data

    REDUCED.catches(kept_bytes(forward) / MIB)


def pairs(rng):
    return [layer for _ in range(32) for layer in (Linear(64, 64, rng=rng), ReLU())]


def test_a_linear_relu_pair_remembers_one_array(rng):
    """ReLU's gradient can be read off its output, so its input may go."""
    net, data = Sequential(*pairs(rng)), Tensor(rng.normal(size=(256, 64)).astype(np.float32))
    PAIRS.check(kept_bytes(lambda: net(data)) / data.data.nbytes)


def test_the_twin_that_keeps_every_result_is_caught(rng):
    layers, data = pairs(rng), Tensor(rng.normal(size=(256, 64)).astype(np.float32))

    def forward():
        results = [data]
        for one in layers:
            results.append(one(results[-1]))
        return results

    PAIRS.catches(kept_bytes(forward) / data.data.nbytes)


def sixteen_additions(x):
    for _ in range(16):
        x = x + 1.0
    return x


def test_nodes_link_to_nodes_and_not_to_tensors(x):
    LINKS.check(kept_bytes(lambda: sixteen_additions(x)) / MIB)


def test_the_twin_that_links_tensors_is_caught(x):
    def linked():
        results = [x]
        for _ in range(16):
            results.append(results[-1] + 1.0)
        return results

    LINKS.catches(kept_bytes(linked) / MIB)


def test_nothing_is_kept_where_nothing_is_recorded(x):
    def forward():
        with no_grad():
            h = x
            for _ in range(8):
                h = h.exp().log()
            return h

    expect(kept_bytes(forward) / MIB, 1.0, atol=0.1)


# On the way back.


def sixteen_weights():
    return [leaf(256, 256) for _ in range(16)]  # 256 KiB each


def weighed(weights):
    h = weights[0]
    for weight in weights:
        h = -(h * weight)  # keeps one result
    return h


def there_and_back(weights):
    for weight in weights:
        weight.grad = None
    backward(weighed(weights).sum())


def test_a_node_is_freed_as_soon_as_it_was_used():
    """Forward 16 activations come to be kept; on the way back they go one by one while 16 gradients come."""
    weights = sixteen_weights()
    FREED.check(peak_bytes(lambda: there_and_back(weights)) * 4 / MIB)


def test_the_twin_that_frees_nothing_before_its_end_is_caught():
    weights = sixteen_weights()

    def held_to_the_end():
        for weight in weights:
            weight.grad = None
        out = weighed(weights).sum()
        backward(out, retain_graph=True)

    FREED.catches(peak_bytes(held_to_the_end) * 4 / MIB)


def test_a_gradient_on_its_way_is_let_go_behind():
    x = leaf(512, 512)

    def additions():
        x.grad = None
        backward(sixteen_additions(x), np.broadcast_to(np.float32(1), x.shape))

    def back():
        x.grad = None
        backward((sixteen_additions(x) * 2.0).sum())

    PENDING.check(peak_bytes(additions) / MIB)
    PENDING.check(peak_bytes(back) / MIB)


def test_the_twin_that_leaves_a_gradient_at_each_node_is_caught():
    x, gradients = leaf(512, 512), []

    def back():
        gradients.clear()
        h = x
        for _ in range(16):
            h = h + 1.0
            register_hook(h, lambda grad: gradients.append(grad * 1.0))
        backward(h.sum())

    PENDING.catches(peak_bytes(back) / MIB)


def eight_layers(x):
    for _ in range(8):
        x = x.exp() * 0.1
    return x.sum()


def test_a_loss_that_is_held_holds_no_graph(x):
    def step():
        x.grad = None
        loss = eight_layers(x)
        backward(loss)
        return loss

    AFTERWARDS.check(kept_bytes(step) / MIB)


def test_the_twin_that_keeps_the_graph_is_caught(x):
    def step():
        x.grad = None
        loss = eight_layers(x)
        backward(loss, retain_graph=True)
        return loss

    AFTERWARDS.catches(kept_bytes(step) / MIB)


def test_nothing_at_all_stays_behind(rng):
    net = Sequential(*pairs(rng)[:8])
    data = Tensor(rng.normal(size=(256, 64)).astype(np.float32), requires_grad=True)

    def step():
        net.zero_grad()
        data.grad = None
        register_hook(net(data), print)
        extra = leaf(128, 128)
        register_hook(extra, lambda grad: grad * 2)
        backward(checkpoint_sequential(net, 3, data).sum() + extra.sum())
        net.zero_grad()
        data.grad = None

    expect(retained_bytes(step) / data.data.nbytes, 0.0, atol=0.1)


def matrices(rng):
    return Tensor(rng.random((256, 4, 64), np.float32)), leaf(64, 64)  # 256 KiB, 16 KiB


def test_one_matrix_for_many_has_one_gradient(rng):
    batch, weight = matrices(rng)

    def step():
        weight.grad = None
        backward((batch @ weight * 2.0).sum())

    SHARED.check(peak_bytes(step) / batch.data.nbytes)


def test_the_twin_that_makes_a_gradient_for_each_is_caught(rng):
    batch, weight = matrices(rng)

    def step():
        grad = np.full_like(batch.data @ weight.data, 2)
        each = np.swapaxes(batch.data, 1, 2) @ grad
        return unbroadcast(each, (64, 64))

    SHARED.catches(peak_bytes(step) / batch.data.nbytes)


def test_the_gradient_of_a_constant_is_not_computed(rng):
    table, weight = Tensor(rng.random((4096, 64), np.float32)), leaf(64, 1)  # 1 MiB

    def step():
        weight.grad = None
        backward((table @ weight).sum())

    UNWANTED.check(peak_bytes(step) / MIB)
    row, turned = leaf(1, 64), Tensor(table.data.T.copy())

    def other_side():
        row.grad = None
        backward((row @ turned).sum())

    UNWANTED.check(peak_bytes(other_side) / MIB)


def test_the_twin_that_computes_the_gradient_of_a_constant_is_caught(rng):
    table, weight = rng.random((4096, 64), np.float32), np.full((64, 1), 0.5, np.float32)

    def step():
        grad = np.ones_like(table @ weight)
        return grad @ weight.T, table.T @ grad

    UNWANTED.catches(peak_bytes(step) / MIB)


@pytest.mark.parametrize("shape", [(512,), (512, 1), (1, 1)])
def test_what_was_stretched_is_added_up_without_a_copy(shape, x):
    UNSTRETCHED.check(peak_bytes(lambda: unbroadcast(x.data, shape)) / MIB)


def test_the_twin_that_adds_up_in_float64_is_caught(x):
    UNSTRETCHED.catches(peak_bytes(lambda: x.data.astype(np.float64).sum(axis=0)) / MIB)


@pytest.mark.parametrize(
    ("power", "constant"),
    [
        (lambda x: x**2, 1),
        (lambda x: x**-1.5, 1),
        (lambda x: 2.0**x, 0),
        (lambda x: x ** Tensor(np.full(x.shape, 3, np.float32)), 1),
        (lambda x: Tensor(np.full(x.shape, 3, np.float32)) ** x, 0),
    ],
)
def test_a_power_computes_no_gradient_for_a_constant(power, constant, x):
    node = power(x).node
    shares = node.op.pull(np.ones_like(x.data), *node.kept)
    expect(np.size(shares[constant]), 1)  # None, or a number, but no array as large as the result


@pytest.mark.parametrize("reduce", [total, mean], ids=lambda op: op.name)
def test_a_repeated_number_is_not_laid_out(reduce, x):
    def step():
        x.grad = None
        backward(reduce(x))

    SUMMED.check(peak_bytes(step) / MIB)


def test_the_twin_that_lays_out_the_repeated_number_is_caught(x):
    def step():
        repeated = np.full(x.shape, np.float32(1))
        x.grad = repeated.copy()

    SUMMED.catches(peak_bytes(step) / MIB)


# Memory for time.


def block(x):
    for _ in range(4):
        x = (x * -0.1).exp()
    return x


def layer(x):
    return (x * -0.1).exp()


def test_a_checkpointed_block_keeps_its_input_and_nothing_from_inside():
    x = leaf(64, 64)  # 16 KiB

    def forward():
        h = x
        for _ in range(64):
            h = checkpoint(block, h)
        return h

    BLOCKS.check(kept_bytes(forward) / x.data.nbytes)


def test_the_twin_without_checkpoints_is_caught():
    x = leaf(64, 64)

    def forward():
        h = x
        for _ in range(64):
            h = block(h)
        return h

    BLOCKS.catches(kept_bytes(forward) / x.data.nbytes)


def test_the_root_of_n_segments_need_about_twice_the_root_of_n():
    """64 layers: 7 inputs of segments are kept, and 8 results of the segment that is walked at the moment."""
    x = leaf(128, 128)  # 64 KiB

    def step():
        x.grad = None
        backward(checkpoint_sequential([layer] * 64, math.isqrt(64), x).sum())

    ROOT.check(peak_bytes(step) / x.data.nbytes)


def test_the_twin_that_keeps_all_layers_is_caught():
    x = leaf(128, 128)

    def step():
        x.grad = None
        h = x
        for _ in range(64):
            h = layer(h)
        backward(h.sum())

    ROOT.catches(peak_bytes(step) / x.data.nbytes)


def test_segments_grow_with_the_root_of_the_depth():
    ROOT_GROWTH.check(memory_growth(PROBES["n layers of 16 KiB in √n segments, there and back"]))


def test_the_twin_whose_graph_grows_with_the_depth_is_caught():
    ROOT_GROWTH.catches(memory_growth(PROBES["n layers of 16 KiB, there and back"]))


def test_forward_mode_holds_the_same_whatever_the_depth():
    FORWARD_GROWTH.check(memory_growth(PROBES["n layers of 16 KiB, forward mode"]))


def test_the_twin_that_records_for_forward_mode_is_caught():
    FORWARD_GROWTH.catches(memory_growth(PROBES["n layers of 16 KiB, forward"]))


def test_forward_mode_lets_go_of_everything():
    x = np.full((128, 128), 0.5, np.float32)
    expect(retained_bytes(lambda: jvp(block, [x], [x])) / x.nbytes, 0.0, atol=0.1)
