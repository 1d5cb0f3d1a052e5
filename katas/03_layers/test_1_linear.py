"""Level 1: the linear layer, its descent, and what modules weigh and cost."""

import itertools

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.layers import (
    Buffer,
    Linear,
    Module,
    Parameter,
    affine,
    count_parameters,
    descend,
    parameter_bytes,
    summary,
)
from tinytorch.tensor import Tensor, set_recorder, version


def f32(values):
    return np.array(values, np.float32)


def layer_of(weight, bias=None):
    """A Linear with these parameters."""
    weight = f32(weight)
    layer = Linear(weight.shape[1], weight.shape[0], bias is not None, rng=np.random.default_rng(0))
    layer.weight.data[:] = weight
    if bias is not None:
        layer.bias.data[:] = bias
    return layer


# 03.11 Linear


def test_the_parameters_are_shaped_as_in_pytorch(rng):
    layer = Linear(3, 2, rng=rng)
    expect((layer.weight.shape, layer.bias.shape), ((2, 3), (2,)))
    expect((layer.weight.dtype, layer.bias.dtype), (np.dtype(np.float32),) * 2)
    expect([name for name, _ in layer.named_parameters()], ["weight", "bias"])
    assert isinstance(layer.weight, Parameter)
    assert isinstance(layer.bias, Parameter)


def test_there_may_be_no_bias(rng):
    layer = Linear(3, 2, bias=False, rng=rng)
    expect((layer.bias, [name for name, _ in layer.named_parameters()]), (None, ["weight"]))
    expect(layer(Tensor(np.zeros((4, 3), np.float32))), np.zeros((4, 2), np.float32))


def test_a_linear_layer_is_an_affine_map():
    layer = layer_of([[1, 0], [0, 1], [1, 1]], [10, 20, 30])
    expect(layer(Tensor(f32([[1, 2], [3, 4]]))), f32([[11, 22, 33], [13, 24, 37]]))
    expect(layer(Tensor(f32([1, 2]))), f32([11, 22, 33]))
    expect(layer(Tensor(f32([[[1, 2]], [[3, 4]]]))), f32([[[11, 22, 33]], [[13, 24, 37]]]))


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_is_one_operation(bias, rng):
    """A tape (kata 05) follows a straight line; a transpose of the weights would be a side road."""
    layer, seen = Linear(2, 2, bias, rng=rng), []
    before = set_recorder(lambda op, inputs, arrays, params, out: seen.append((op.name, inputs)))
    try:
        layer(Tensor(np.ones((3, 2), np.float32)))
    finally:
        set_recorder(before)
    expect([name for name, _ in seen], ["affine"])
    assert seen[0][1][1] is layer.weight


@pytest.mark.parametrize(("inputs", "bound"), [(1, 1.0), (4, 0.5), (400, 0.05)])
def test_parameters_start_uniform_within_one_over_the_root_of_the_inputs(inputs, bound, rng):
    layer = Linear(inputs, 20_000 // inputs, rng=rng)
    weight = layer.weight.data.astype(np.float64)
    assert -bound <= weight.min() < -0.99 * bound
    assert 0.99 * bound < weight.max() <= bound
    # The deviation of a uniform variable is its bound / sqrt(3); of 20,000 draws, both are this near.
    expect(weight.std(), bound / np.sqrt(3), rtol=0.03)
    expect(weight.mean(), 0.0, atol=0.03 * bound)
    expect(np.mean(np.abs(weight) < bound / 2), 0.5, atol=0.03)


def test_the_bias_starts_within_the_same_bound(rng):
    bias = Linear(16, 20_000, rng=rng).bias.data
    assert -0.25 <= bias.min() < -0.247
    assert 0.247 < bias.max() <= 0.25


def test_parameters_are_drawn_from_the_generator_given():
    before = np.random.get_state()[1].copy()
    one, same, other = (Linear(3, 2, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    expect((same.weight, same.bias), (one.weight.data, one.bias.data))
    assert not np.any(one.weight.data == other.weight.data)
    expect(np.random.get_state()[1], before)


def test_two_layers_from_one_generator_differ(rng):
    one, other = Linear(3, 2, rng=rng), Linear(3, 2, rng=rng)
    assert not np.any(one.weight.data == other.weight.data)


def test_the_weight_is_drawn_before_the_bias():
    with_bias, without = (Linear(3, 2, bias, rng=np.random.default_rng(1)) for bias in (True, False))
    expect(without.weight, with_bias.weight.data)


def test_a_generator_must_be_given_by_keyword(rng):
    with expect_error(TypeError):
        Linear(3, 2)
    with expect_error(TypeError):
        Linear(3, 2, True, rng)
    expect(Linear(3, 2, rng=rng).weight.shape, (2, 3))


def test_without_inputs_all_parameters_are_0(rng):
    layer = Linear(0, 3, rng=rng)
    expect((layer.weight, layer.bias), (np.zeros((3, 0), np.float32), np.zeros(3, np.float32)))
    expect(layer(Tensor(np.zeros((2, 0), np.float32))), np.zeros((2, 3), np.float32))


def test_without_outputs_there_are_none(rng):
    expect(Linear(3, 0, rng=rng)(Tensor(np.zeros((2, 3), np.float32))), np.zeros((2, 0), np.float32))


def test_a_layer_says_what_it_is(rng):
    layer = Linear(3, 2, bias=False, rng=rng)
    expect(repr(layer), "Linear(in_features=3, out_features=2, bias=False)")
    net = Net(rng)
    lines = [
        "Net(",
        "  (layers.0): Linear(in_features=3, out_features=4, bias=True)",
        "  (layers.1): Linear(in_features=4, out_features=2, bias=False)",
        ")",
    ]
    expect(repr(net), "\n".join(lines))
    outer = Module()
    outer.net = net
    expect(
        repr(outer), "\n".join(["Module(", "  (net): " + lines[0], *["  " + line for line in lines[1:]], ")"])
    )


# 03.12 Linear.flops


@pytest.mark.parametrize("leading", [(), (5,), (2, 3), (0,)])
def test_each_weight_costs_a_multiplication_and_an_addition_a_row(leading, rng):
    x = Tensor(np.ones((*leading, 3), np.float32))
    for bias in (True, False):
        layer = Linear(3, 7, bias, rng=rng)
        count = layer.flops((x,), layer(x))
        expect(count, 2 * 3 * 7 * int(np.prod(leading)))
        expect(type(count), int)
        expect(layer.flops((), layer(x)), count)  # the output tells the rows


# 03.13 descend

# Worked out for one step: out = [3.5, 2.5], off by [2.5, 0.5], error (6.25 + 0.25) / 2; the gradient of out
# is 2 / 2 * off; of the weight 2.5 * (1, 1) + 0.5 * (2, 0) = (3.5, 2.5), of the bias 3.
INPUTS, TARGETS = f32([[1, 1], [2, 0]]), f32([[1], [2]])


def test_a_step_goes_down_the_gradient():
    layer = layer_of([[1, 2]], [0.5])
    expect(descend(layer, INPUTS, TARGETS, 0.1), 3.25)
    expect((layer.weight, layer.bias), (f32([[0.65, 1.75]]), f32([0.2])))


def test_a_step_without_a_bias():
    layer = layer_of([[1, 2]])  # out = [3, 2], off by [2, 0], gradient 2 * (1, 1)
    expect(descend(layer, INPUTS, TARGETS, 0.5), 2.0)
    expect(layer.weight, f32([[0, 1]]))


def test_a_frozen_parameter_stays_where_it_is():
    layer = layer_of([[1, 2]], [0.5])
    layer.weight.requires_grad = False
    expect(descend(layer, INPUTS, TARGETS, 0.1), 3.25)
    expect((layer.weight, layer.bias), (f32([[1, 2]]), f32([0.2])))
    expect(version(layer.weight.data), 0)  # and no write is noted
    layer = layer_of([[1, 2]], [0.5])
    layer.bias.requires_grad = False
    descend(layer, INPUTS, TARGETS, 0.1)
    expect((layer.weight, layer.bias), (f32([[0.65, 1.75]]), f32([0.5])))


def test_the_error_is_the_mean_over_rows_and_outputs():
    layer = layer_of(
        [[1, 0], [0, 1]], [0, 0]
    )  # out = INPUTS, off by [[1, 1], [1, -1]], each with weight 2 / 4
    expect(descend(layer, INPUTS, f32([[0, 0], [1, 1]]), 1.0), 1.0)
    expect((layer.weight, layer.bias), (f32([[1 - 1.5, -0.5], [0.5, 0.5]]), f32([-1, 0])))
    # Of the weights: [1, 1] / 2 @ INPUTS = (1.5, 0.5) and [1, -1] / 2 @ INPUTS = (-0.5, 0.5).


def test_a_step_takes_pixels_and_rows_with_more_axes():
    layer = layer_of([[1, 2]], [0.5])
    expect(descend(layer, INPUTS.astype(np.uint8)[:, None], TARGETS[:, None], 0.1), 3.25)
    expect((layer.weight, layer.bias), (f32([[0.65, 1.75]]), f32([0.2])))


def test_steps_lead_to_the_solution(rng):
    x = rng.normal(size=(64, 3)).astype(np.float32)
    truth, offset = f32([[1, -2, 3], [0.5, 0, -1]]), f32([0.25, -4])
    layer = Linear(3, 2, rng=rng)
    errors = [descend(layer, x, x @ truth.T + offset, 0.3) for _ in range(100)]
    assert all(later < earlier for earlier, later in itertools.pairwise(errors[:10]))
    expect((layer.weight, layer.bias), (truth, offset), atol=1e-3)


def test_parameters_move_in_place():
    layer = layer_of([[1, 2]], [0.5])
    tensors, arrays = (layer.weight, layer.bias), (layer.weight.data, layer.bias.data)
    before = version()
    descend(layer, INPUTS, TARGETS, 0.1)
    for tensor, array, now in zip(tensors, arrays, (layer.weight, layer.bias), strict=True):
        assert now is tensor
        assert now.data is array
        assert version(array) > before
    expect(arrays[0], f32([[0.65, 1.75]]))


def test_a_step_changes_neither_inputs_nor_targets():
    x, y = INPUTS.copy(), TARGETS.copy()
    expect(type(descend(layer_of([[1, 2]], [0.5]), x, y, 0.1)), float)
    expect((x, y), (INPUTS, TARGETS))


@pytest.mark.parametrize("shape", [(2,), (1, 1), (1, 2), (2, 2), ()])
def test_targets_of_another_shape_are_refused_before_anything_moves(shape):
    """(2, 1) - (2,) would be (2, 2): an error that looks plausible, of all rows against all targets."""
    layer = layer_of([[1, 2]], [0.5])
    with expect_error(ValueError, "(2, 1)", str(shape)):
        descend(layer, INPUTS, np.ones(shape, np.float32), 0.1)
    expect((layer.weight, layer.bias), (f32([[1, 2]]), f32([0.5])))


# 03.14 count_parameters, parameter_bytes


class Net(Module):
    """3 -> 4 -> 2, the second layer without a bias."""

    def __init__(self, rng):
        self.layers = [Linear(3, 4, rng=rng), Linear(4, 2, bias=False, rng=rng)]

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_parameters_are_counted(rng):
    net = Net(rng)
    expect(count_parameters(net), 3 * 4 + 4 + 4 * 2)
    expect(type(count_parameters(net)), int)
    expect(count_parameters(Module()), 0)


def test_a_shared_parameter_counts_once(rng):
    net = Net(rng)
    net.again = net.layers[0]
    net.tied = net.layers[1].weight
    expect((count_parameters(net), parameter_bytes(net)), (24, 96))


def test_a_frozen_parameter_takes_memory_but_does_not_train(rng):
    net = Net(rng)
    net.layers[0].requires_grad_(False)
    expect((count_parameters(net), parameter_bytes(net)), (8, 96))


def test_bytes_are_those_of_parameters_and_buffers(rng):
    net = Net(rng)
    net.running = Buffer(np.zeros(10))
    net.constant = Tensor(np.zeros(10))
    expect((count_parameters(net), parameter_bytes(net)), (24, 24 * 4 + 10 * 8))
    expect(parameter_bytes(Module()), 0)


def test_an_array_that_two_parameters_wrap_is_there_once():
    module = Module()
    module.one, module.other = Parameter(f32([1, 2, 3])), Parameter(f32([1, 2, 3]))
    expect(parameter_bytes(module), 24)
    module.other = Parameter(module.one.data)
    expect(parameter_bytes(module), 12)


# 03.15 summary


def test_each_module_gets_a_row_as_it_comes_to_an_end(rng):
    expect(
        summary(Net(rng), Tensor(np.ones((5, 3), np.float32))),
        [
            ("layers.0", "Linear", (5, 4), 16, 2 * 5 * 12),
            ("layers.1", "Linear", (5, 2), 8, 2 * 5 * 8),
            ("", "Net", (5, 2), 0, 0),
        ],
    )


class Gain(Module):
    """A layer, and a parameter of its own; takes two inputs and gives two outputs."""

    def __init__(self, rng):
        self.gain = Parameter(f32([2.0]))
        self.layer = Linear(3, 3, rng=rng)
        self.layer.requires_grad_(False)
        self.calls = 0

    def forward(self, x, y):
        self.calls += 1
        return self.layer(self.layer(x)) * self.gain, y

    def flops(self, inputs, out):
        return len(inputs) + out[0].size


def test_buffers_are_no_parameters_in_a_summary(rng):
    net = Net(rng)
    net.layers[0].running = Buffer(np.zeros(10))
    net.constant = Tensor(np.zeros(10))
    expect([row[3] for row in summary(net, Tensor(np.ones((5, 3), np.float32)))], [16, 8, 0])


def test_the_columns_add_up_though_a_layer_is_called_twice(rng):
    module, x = Gain(rng), Tensor(np.ones((2, 3), np.float32))
    rows = summary(module, x, x)
    expect(
        rows,
        [
            ("layer", "Linear", (2, 3), 12, 36),  # frozen, but there
            ("layer", "Linear", (2, 3), 0, 36),
            ("", "Gain", (), 1, 2 + 6),
        ],
    )
    expect(sum(row[3] for row in rows), parameter_bytes(module) // 4)
    expect(module.calls, 1)


def test_parameters_shared_by_two_modules_are_in_one_row(rng):
    net = Net(rng)
    net.layers[1] = Linear(4, 3, rng=rng)
    net.layers.append(Linear(3, 4, rng=rng))
    net.layers[2].weight = net.layers[0].weight
    rows = summary(net, Tensor(np.ones((1, 3), np.float32)))
    expect([row[3] for row in rows], [16, 15, 4, 0])


class Tied(Module):
    """One parameter under two names, and two in a list; what comes out is no tensor."""

    def __init__(self, out):
        self.a = self.b = Parameter(f32([1, 2, 3]))
        self.rest = [Parameter(f32([4])), Parameter(f32([5, 6]))]
        self.out = out

    def forward(self):
        return self.out


@pytest.mark.parametrize("out", [None, 1.5, [1.0, 2.0], {}])
def test_a_row_counts_a_parameter_with_two_names_once_and_those_in_lists_too(out):
    expect(summary(Tied(out)), [("", "Tied", (), 3 + 1 + 2, 0)])


def hooks_seen(module, x):
    """How many rows a summary has after another one: a hook left behind would write into the first."""
    first = summary(module, x)
    count = len(first)
    module(x)
    summary(module, x)
    return count, len(first)


def test_no_hook_is_left_behind(rng):
    x = Tensor(np.ones((5, 3), np.float32))
    expect(hooks_seen(Net(rng), x), (3, 3))


def test_no_hook_is_left_behind_by_a_forward_pass_that_fails(rng):
    net, calls = Net(rng), []
    for module in net.modules():
        module.flops = lambda inputs, out: calls.append(out)  # a summary's hooks ask for it
    with expect_error(ValueError):
        summary(net, Tensor(np.ones((5, 2), np.float32)))
    expect(calls, [])
    net(Tensor(np.ones((5, 3), np.float32)))
    expect(calls, [])


def test_no_hook_is_left_behind_by_a_forward_pass_that_is_interrupted():
    module, calls = Tied(None), []
    module.flops = lambda inputs, out: calls.append(out)

    def interrupted():
        raise KeyboardInterrupt

    module.forward = interrupted
    with pytest.raises(KeyboardInterrupt):
        summary(module)
    del module.forward
    module()
    expect(calls, [])


def test_hooks_that_were_there_stay(rng):
    net, seen = Net(rng), []
    net.register_forward_hook(lambda *args: seen.append("mine"))
    summary(net, Tensor(np.ones((5, 3), np.float32)))
    net(Tensor(np.ones((5, 3), np.float32)))
    expect(seen, ["mine", "mine"])


def test_a_summary_is_of_the_forward_pass_as_it_is(rng):
    """In the mode in which the module is, with `affine` as it is: what comes out is what would."""
    net, outs = Net(rng), []
    net.eval()
    net.register_forward_hook(lambda module, inputs, out: outs.append((module.training, out.data)))
    x = Tensor(np.ones((1, 3), np.float32))
    summary(net, x)
    inner = affine(x, net.layers[0].weight, net.layers[0].bias)
    expect(outs, [(False, affine(inner, net.layers[1].weight).data)])
    expect(net.training, False)
