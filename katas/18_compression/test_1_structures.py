"""Level 1: smaller layers, which are what is left of larger ones."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect, expect_error
from tinytorch import autograd  # noqa: F401
from tinytorch.activations import Dropout, ReLU, Tanh
from tinytorch.compression import prune_channels, prune_neurons, shrink_mlp
from tinytorch.layers import Buffer, Linear, Module, Parameter
from tinytorch.networks import MLP, Sequential
from tinytorch.spatial import BatchNorm2d, Conv2d, Flatten, GlobalAvgPool, MaxPool2d
from tinytorch.tensor import Tensor

steady = settings(deadline=None, derandomize=True, max_examples=40)
SEEDS = st.integers(0, 2**32 - 1)


def new(seed=0):
    return np.random.default_rng(seed)


def f32(values):
    return np.array(values, np.float32)


def linear(weight, bias=None):
    layer = Linear(len(weight[0]), len(weight), bias is not None, rng=new())
    layer.weight.data[...] = weight
    if bias is not None:
        layer.bias.data[...] = bias
    return layer


def snapshot(*layers):
    return [array.copy() for layer in layers for array in layer.state_dict().values()]


# 18.5 prune_neurons


def test_the_strongest_neurons_stay_in_their_order():
    """Rows of lengths 5, 1, 2, 3 and columns of 1, 2, 5, 2: strengths 5, 2, 10, 6."""
    first = linear([[3, 4], [1, 0], [0, 2], [0, -3]], [1, 2, 3, 4])
    second = linear([[1, 0, 4, 2], [0, 2, 3, 0]], [7, 8])
    one, two = prune_neurons(first, second, 2)
    expect([one.weight, one.bias], [f32([[0, 2], [0, -3]]), f32([3, 4])])
    expect([two.weight, two.bias], [f32([[4, 2], [3, 0]]), f32([7, 8])])


def test_a_row_counts_by_its_length_and_not_by_its_sum():
    """Lengths 5 and 5.1 beside sums of 7 and 5.1."""
    one, _ = prune_neurons(linear([[3, 4], [5.1, 0]], [0, 0]), linear([[1, 1]]), 1)
    expect(one.weight, f32([[5.1, 0]]))
    one, _ = prune_neurons(linear([[1], [1]]), linear([[3, 5.1], [4, 0]]), 1)
    expect(one.weight, f32([[1]]))


@steady
@given(SEEDS, st.integers(1, 6), st.integers(2, 6))
def test_the_same_network_in_other_units_loses_the_same_neurons(seed, keep, size):
    """With relu, a neuron times 4 read by a quarter of its weights is what it was."""
    rng = new(seed)
    keep = min(keep, size)
    first, second = Linear(3, size, rng=rng), Linear(size, 2, rng=rng)
    other, reader = copy.deepcopy(first), copy.deepcopy(second)
    factors = (2.0 ** rng.integers(-3, 4, size)).astype(np.float32)
    other.weight.data *= factors[:, None]
    other.bias.data *= factors
    reader.weight.data /= factors
    nets = [
        Sequential(a, ReLU(), b)
        for a, b in (prune_neurons(first, second, keep), prune_neurons(other, reader, keep))
    ]
    x = Tensor(rng.normal(size=(4, 3)).astype(np.float32))
    expect(nets[0](x), nets[1](x).data)


@steady
@given(SEEDS, st.integers(1, 5))
def test_neurons_that_nobody_reads_or_that_read_nothing_are_no_loss(seed, keep):
    rng = new(seed)
    first, second = Linear(3, 6, rng=rng), Linear(6, 2, rng=rng)
    for i in rng.permutation(6)[keep:]:
        if rng.random() < 0.5:
            second.weight.data[:, i] = 0
        else:
            first.weight.data[i] = first.bias.data[i] = 0
    x = Tensor(rng.normal(size=(5, 3)).astype(np.float32))
    whole, pruned = Sequential(first, ReLU(), second), prune_neurons(first, second, keep)
    expect(Sequential(pruned[0], ReLU(), pruned[1])(x), whole(x).data)


def test_all_may_stay_and_biases_may_be_missing():
    first, second = linear([[1], [2]]), linear([[1, 2]])
    one, two = prune_neurons(first, second, 2)
    expect([one.weight, two.weight], [f32([[1], [2]]), f32([[1, 2]])])
    assert one.bias is None
    assert two.bias is None
    one, two = prune_neurons(first, linear([[1, 2]], [7]), 1)
    assert one.bias is None
    expect(two.bias, f32([7]))


def test_layers_that_are_given_stay_and_share_nothing_with_the_new_ones():
    first, second = Linear(3, 4, rng=new()), Linear(4, 2, rng=new())
    before = snapshot(first, second)
    for keep in (2, 4):
        one, two = prune_neurons(first, second, keep)
        for layer in (one, two):
            for p in layer.parameters():
                p.data[...] = 99
        expect(snapshot(first, second), before)


def test_new_layers_learn():
    one, two = prune_neurons(Linear(3, 4, rng=new()), Linear(4, 2, rng=new()), 3)
    for layer in (one, two):
        assert type(layer) is Linear
        assert all(isinstance(p, Parameter) and p.requires_grad for p in (layer.weight, layer.bias))
    two(one(Tensor(np.ones((1, 3), np.float32)))).sum().backward()
    expect(one.weight.grad.shape, (3, 3))


def test_new_layers_have_no_hooks_and_what_was_frozen_stays_so():
    first, second, seen = Linear(3, 4, rng=new()), Linear(4, 2, rng=new()), []
    first.register_forward_hook(lambda *args: seen.append(1))
    first.weight.requires_grad = False
    one, _ = prune_neurons(first, second, 2)
    one(Tensor(np.ones((1, 3), np.float32)))
    expect((seen, one.weight.requires_grad, one.bias.requires_grad), ([], False, True))
    second.bias.requires_grad = False
    _, two = prune_neurons(first, second, 2)
    expect((two.weight.requires_grad, two.bias.requires_grad), (True, False))
    first(Tensor(np.ones((1, 3), np.float32)))
    expect(seen, [1])


def test_the_dtype_stays():
    first, second = linear([[1], [2]], [1, 2]), linear([[1, 2]])
    for p in (*first.parameters(), *second.parameters()):
        p.data = p.data.astype(np.float64)
    one, two = prune_neurons(first, second, 1)
    expect([one.weight, one.bias, two.weight], [np.array([[2.0]]), np.array([2.0]), np.array([[2.0]])])


def test_layers_that_do_not_fit_are_named():
    with expect_error(ValueError, "(4, 3)", "(2, 5)"):
        prune_neurons(Linear(3, 4, rng=new()), Linear(5, 2, rng=new()), 2)


@pytest.mark.parametrize("keep", [0, 5, -1])
def test_one_neuron_must_stay_and_no_more_than_there_are(keep):
    with expect_error(ValueError, "4", str(keep)):
        prune_neurons(Linear(3, 4, rng=new()), Linear(4, 2, rng=new()), keep)


# 18.5 shrink_mlp


def shapes(net):
    return [layer.weight.shape for layer in net if isinstance(layer, Linear)]


def test_each_hidden_layer_keeps_its_share():
    net = MLP([7, 10, 6, 3], rng=new())
    expect(shapes(shrink_mlp(net, 0.5)), [(5, 7), (3, 5), (3, 3)])
    expect(shapes(shrink_mlp(net, 0.25)), [(2, 7), (2, 2), (3, 2)])  # 2.5 and 1.5 are rounded to even
    expect(shapes(shrink_mlp(net, 0.0)), [(1, 7), (1, 1), (3, 1)])
    expect(shapes(shrink_mlp(net, 1.0)), [(10, 7), (6, 10), (3, 6)])


def test_a_layer_in_the_middle_is_pruned_from_both_sides_the_first_side_first():
    """The last neuron of the second layer is strong only by what it reads from a neuron that goes."""
    first = linear([[5], [1]], [0, 0])
    second = linear([[1, 0], [0.1, 9]], [0, 0])
    third = linear([[1, 1]])
    net = Sequential(first, ReLU(), second, ReLU(), third)
    # Of the first layer the strengths are 5 * 1.005 and 1 * 9, so its second neuron stays; in what is left
    # the second layer's rows are [0] and [9].
    small = shrink_mlp(net, 0.5)
    expect([small[0].weight, small[2].weight, small[4].weight], [f32([[1]]), f32([[9]]), f32([[1]])])
    first.weight.data[0] = 50  # now the first one stays, and the rows left are [1] and [0.1]
    small = shrink_mlp(net, 0.5)
    expect([small[0].weight, small[2].weight], [f32([[50]]), f32([[1]])])


@steady
@given(SEEDS, st.sampled_from([0.2, 0.5, 0.8]))
def test_it_is_pruning_pair_by_pair(seed, keep):
    rng = new(seed)
    net = MLP([3, 5, 6, 4, 2], Tanh, rng=rng)
    layers = [layer for layer in net if isinstance(layer, Linear)]
    for i in range(3):
        count = max(1, round(keep * len(layers[i].weight)))
        layers[i], layers[i + 1] = prune_neurons(layers[i], layers[i + 1], count)
    small = shrink_mlp(net, keep)
    found = [layer for layer in small if isinstance(layer, Linear)]
    for layer, other in zip(found, layers, strict=True):
        expect([layer.weight, layer.bias], [other.weight.data, other.bias.data])


def test_what_stands_between_is_copied_and_keeps_its_options():
    net = Sequential(Flatten(), *MLP([4, 6, 2], ReLU, 0.25, rng=new())).eval()
    small = shrink_mlp(net, 0.5)
    expect([type(layer).__name__ for layer in small], ["Flatten", "Linear", "ReLU", "Dropout", "Linear"])
    expect((small[3].p, [layer.training for layer in (small, *small)]), (0.25, [False] * 6))
    assert all(a is not b for a, b in zip(small, net, strict=True))
    x = Tensor(np.ones((2, 2, 2), np.float32))
    expect(small(x).shape, (2, 2))


def test_the_model_stays_as_it_is():
    net = MLP([4, 6, 2], rng=new())
    before, layers = snapshot(net), list(net)
    for keep in (0.5, 1.0):
        small = shrink_mlp(net, keep)
        for p in small.parameters():
            p.data[...] = 99
    expect(snapshot(net), before)
    assert all(a is b for a, b in zip(net, layers, strict=True))


def test_one_layer_alone_has_no_hidden_ones():
    net = MLP([4, 2], rng=new())
    small = shrink_mlp(net, 0.5)
    expect(small[0].weight, net[0].weight.data)
    assert small[0].weight is not net[0].weight


def test_what_has_parameters_must_not_stand_between():
    frozen = Last()
    frozen.scale.requires_grad = False
    for between in (BatchNorm2d(4), Sequential(Linear(4, 4, rng=new())), frozen, Shift()):
        net = Sequential(Linear(4, 4, rng=new()), between, Linear(4, 2, rng=new()))
        with expect_error(TypeError, type(between).__name__):
            shrink_mlp(net, 0.5)


def test_what_has_none_may_be_of_any_kind():
    net = Sequential(Linear(4, 6, rng=new()), Half(), Sequential(ReLU()), Linear(6, 2, rng=new()))
    small = shrink_mlp(net, 0.5)
    expect(shapes(small), [(3, 4), (2, 3)])
    expect([type(layer) for layer in small], [type(layer) for layer in net])


def test_but_before_and_after_it_may():
    """And what is nested there is copied, too."""
    conv = Sequential(Conv2d(1, 2, 3, padding=1, rng=new()), BatchNorm2d(2), GlobalAvgPool())
    net = Sequential(
        conv, Linear(2, 4, rng=new()), Dropout(0.5, rng=new()), Linear(4, 2, rng=new()), Last()
    ).eval()
    small = shrink_mlp(net, 0.5)
    expect(shapes(small), [(2, 2), (2, 2)])
    assert small[0][0].weight is not conv[0].weight
    x = Tensor(np.ones((3, 1, 4, 4), np.float32))
    expect(small[0](x), conv(x).data)


class Half(Module):
    def forward(self, x):
        return x * 0.5


class Shift(Module):
    def __init__(self):
        self.by = Buffer(np.ones(1, np.float32))

    def forward(self, x):
        return x + self.by


class Last(Module):
    def __init__(self):
        self.scale = Parameter(np.ones(1, np.float32))

    def forward(self, x):
        return x * self.scale


@pytest.mark.parametrize("share", [-0.5, 2.0, float("nan")])
def test_a_share_of_neurons_that_is_none_is_named(share):
    for widths in ([4, 6, 2], [4, 2]):  # also where there is nothing to take away
        with expect_error(ValueError, str(share)):
            shrink_mlp(MLP(widths, rng=new()), share)


# 18.6 prune_channels


def conv(outputs, inputs, kernel=3, seed=0, **options):
    return Conv2d(inputs, outputs, kernel, rng=new(seed), **options)


def filled_norm(count, seed=0):
    norm, rng = BatchNorm2d(count), new(seed)
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(norm, name).data[...] = rng.uniform(0.5, 2, count)
    norm.num_batches_tracked.data[...] = 7
    return norm


def test_without_a_norm_kernels_count_by_their_magnitudes():
    """Sums 3, 9, 5 and 4; the length of the third would be that of the second."""
    first = Conv2d(1, 4, (1, 3), rng=new())
    first.weight.data[:, 0, 0] = [[1, 1, -1], [-3, 3, 3], [0, -5, 0], [2, 1, 1]]
    first.bias.data[...] = [1, 2, 3, 4]
    second = conv(2, 4)
    one, norm, two = prune_channels(first, None, second, 2)
    assert norm is None
    expect([one.weight, one.bias], [first.weight.data[[1, 2]], f32([2, 3])])
    expect([two.weight, two.bias], [second.weight.data[:, [1, 2]], second.bias.data])


def test_a_kernel_counts_by_its_sum_and_not_by_its_length():
    """Sums 3 and 2.9, lengths 1.7 and 2.9."""
    first = Conv2d(1, 2, (1, 3), rng=new())
    first.weight.data[:, 0, 0] = [[1, -1, 1], [0, 2.9, 0]]
    expect(prune_channels(first, None, conv(2, 2), 1)[0].weight, first.weight.data[:1])


def test_with_a_norm_its_weights_count_and_their_signs_do_not():
    first, norm, second = conv(4, 2, bias=False), filled_norm(4), conv(3, 4, 1)
    norm.weight.data[...] = [0.5, -2, 1, -0.1]
    first.weight.data[3] *= 100
    one, between, two = prune_channels(first, norm, second, 2)
    expect(one.weight, first.weight.data[[1, 2]])
    for name in ("weight", "bias", "running_mean", "running_var"):
        expect(getattr(between, name), getattr(norm, name).data[[1, 2]])
    expect(between.num_batches_tracked, np.array(7))
    expect(two.weight, second.weight.data[:, [1, 2]])
    assert one.bias is None


@pytest.mark.parametrize("training", [True, False])
def test_options_and_modes_of_all_three_stay(training):
    first = conv(4, 2, (3, 5), stride=2, padding=(1, 2), dilation=1)
    norm, second = BatchNorm2d(4, eps=0.1, momentum=None), conv(3, 4, 1, stride=(2, 1), padding=1, dilation=2)
    one, between, two = prune_channels(*(layer.train(training) for layer in (first, norm, second)), 3)
    expect([layer.training for layer in (one, between, two)], [training] * 3)
    expect((one.stride, one.padding, one.dilation, one.groups), (2, (1, 2), 1, 1))
    expect((between.eps, between.momentum), (0.1, None))
    expect((two.stride, two.padding, two.dilation), ((2, 1), 1, 2))
    expect([type(layer) for layer in (one, between, two)], [Conv2d, BatchNorm2d, Conv2d])


@steady
@given(SEEDS, st.integers(1, 4), st.sampled_from(["conv", "flat", "mean"]), st.booleans())
def test_channels_that_are_0_are_no_loss(seed, keep, kind, with_norm):
    rng = new(seed)
    first = conv(5, 2, padding=1, seed=seed)
    norm = filled_norm(5, seed) if with_norm else None
    for i in rng.permutation(5)[keep:]:
        if with_norm:
            norm.weight.data[i] = norm.bias.data[i] = 0
        else:
            first.weight.data[i] = first.bias.data[i] = 0
    following = {"conv": conv(3, 5), "flat": Linear(5 * 4, 3, rng=rng), "mean": Linear(5, 3, rng=rng)}[kind]
    between = {
        "conv": [ReLU()],
        "flat": [ReLU(), MaxPool2d(2), Flatten()],
        "mean": [ReLU(), GlobalAvgPool()],
    }[kind]
    x = Tensor(rng.normal(size=(2, 2, 4, 4)).astype(np.float32))

    def net(first, norm, following):
        return Sequential(first, *([] if norm is None else [norm]), *between, following).eval()

    whole = net(first, norm, following)(x)
    small = prune_channels(first, norm, following, keep)
    expect(len(small[0].weight), keep)
    expect(net(*small)(x), whole.data)


def test_a_linear_reads_a_channel_in_a_row_of_columns():
    """Channels of 3 pixels: columns 3 to 5 and 6 to 8 stay."""
    first, second = conv(3, 1), linear([[*range(9)]], [0])
    first.weight.data[...] = np.array([0.1, 1, 2])[:, None, None, None]
    _, _, two = prune_channels(first, None, second, 2)
    assert type(two) is Linear
    expect(two.weight, f32([[3, 4, 5, 6, 7, 8]]))


def test_layers_given_to_prune_channels_stay_as_they_are():
    layers = conv(4, 2), filled_norm(4), Linear(16, 3, rng=new())
    before = snapshot(*layers)
    for keep in (2, 4):
        for layer in prune_channels(*layers, keep):
            for array in layer.state_dict().values():
                array[...] = 9
        expect(snapshot(*layers), before)


WRONG = {
    "another count": (lambda: (conv(4, 2), None, conv(3, 5)), ("(4, 2, 3, 3)", "(3, 5, 3, 3)")),
    "a norm of another count": (lambda: (conv(4, 2), BatchNorm2d(5), conv(3, 4)), ("(4, 2, 3, 3)", "(5,)")),
    "columns that do not divide": (lambda: (conv(4, 2), None, Linear(6, 3, rng=new())), ("(3, 6)",)),
    "groups": (lambda: (conv(4, 2, groups=2), None, conv(3, 4)), ("(4, 1, 3, 3)", "(3, 4, 3, 3)")),
    "groups that read": (lambda: (conv(4, 2), None, conv(4, 8, groups=2)), ("(4, 2, 3, 3)", "(4, 4, 3, 3)")),
    "more than there are": (lambda: (conv(2, 2), None, conv(3, 2)), ("2", "3")),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_channels_that_do_not_fit_are_named(name):
    make, named = WRONG[name]
    with expect_error(ValueError, *named):
        prune_channels(*make(), 3)


def test_only_a_convolution_or_a_linear_can_read_channels():
    with expect_error(TypeError, "ReLU"):
        prune_channels(conv(4, 2), None, ReLU(), 3)
