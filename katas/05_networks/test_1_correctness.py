"""Level 1: networks hold together, and their weights start as they should."""

import itertools
import math

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.activations import Dropout, LeakyReLU, ReLU, Tanh
from tinytorch.layers import Linear, Module, Parameter
from tinytorch.networks import (
    MLP,
    Sequential,
    activation_stats,
    calculate_gain,
    fans,
    initialise,
    kaiming_normal_,
    kaiming_uniform_,
    orthogonal_,
    xavier_normal_,
    xavier_uniform_,
)
from tinytorch.tensor import Tensor, version

# How many standard deviations a figure that was drawn may be off. A right solution then fails once in half a
# billion draws, whatever order it draws in.
SIGMAS = 6


class Times(Module):
    """Multiplies by a number, and remembers that it was called."""

    def __init__(self, factor, calls=None):
        self.factor, self.calls = factor, calls if calls is not None else []

    def forward(self, x):
        self.calls.append(self.factor)
        return Tensor(x.data * self.factor)


def small_net():
    """Worked out by hand in the README: out = w2 @ relu(w1 @ x + b1) + b2."""
    net = MLP([2, 2, 1], rng=np.random.default_rng(0))
    net.load_state_dict(
        {"0.weight": [[1, -1], [2, 0]], "0.bias": [0, 1], "2.weight": [[3, -1]], "2.bias": [0.5]}
    )
    return net


# 05.1 Sequential: a list of layers

BOTH = ["0.weight", "0.bias"]


class Scaled(Sequential):
    """A row of its own, and more than that."""

    def __init__(self, rng):
        super().__init__(Linear(2, 2, rng=rng), Tanh())
        self.scale = Parameter([2.0])
        self.more_layers = [Linear(2, 2, bias=False, rng=rng)]


def test_a_network_is_a_row_of_layers():
    layers = [Times(1), Times(2), Times(3)]
    net = Sequential(*layers)
    expect(len(net), 3)
    expect([layer.factor for layer in net], [1, 2, 3])
    expect((net[0] is layers[0], net[2] is layers[2], net[-1] is layers[2]), (True, True, True))
    with expect_error(IndexError):
        net[3]


def test_a_slice_is_a_network_of_the_very_same_layers(rng):
    net = Sequential(*(Linear(2, 2, rng=rng) for _ in range(4)))
    part = net[1:3]
    expect((isinstance(part, Sequential), len(part), len(net)), (True, 2, 4))
    expect((part[0] is net[1], part[1] is net[2]), (True, True))
    expect([layer is other for layer, other in zip(net[::-1], net, strict=True)], [False] * 4)
    expect(len(net[4:]), 0)


def test_a_slice_of_a_subclass_is_a_plain_network(rng):
    """The subclass may be made of something else than layers."""
    part = Scaled(rng)[:1]
    expect((type(part), len(part), [name for name, _ in part.named_parameters()]), (Sequential, 1, BOTH))


def test_a_layer_is_added_at_the_end():
    net = Sequential(Times(2))
    expect(net.append(Times(5)) is net, True)
    expect((len(net), net[1].factor), (2, 5))
    expect(net(Tensor([1.0])), [10.0])


# 05.2 Sequential: names, and the way forward


def test_layers_are_called_in_order_each_once():
    calls = []
    net = Sequential(*(Times(k, calls) for k in (2, 3, 5)))
    expect(net(Tensor([1.0, -1.0])), [30.0, -30.0])
    expect(calls, [2, 3, 5])


def test_a_network_without_layers_hands_its_input_on():
    x = Tensor([1.0])
    expect(Sequential()(x) is x, True)


def test_parameters_are_called_after_the_place_of_their_layer(rng):
    net = Sequential(Linear(2, 3, rng=rng), ReLU(), Linear(3, 1, bias=False, rng=rng))
    expect([name for name, _ in net.named_parameters()], ["0.weight", "0.bias", "2.weight"])
    expect(list(net.state_dict()), ["0.weight", "0.bias", "2.weight"])
    expect([name for name, _ in net.named_modules()], ["", "0", "1", "2"])
    expect([name for name, _ in net[2:].named_parameters()], ["0.weight"])


def test_networks_nest(rng):
    net = Sequential(Sequential(Linear(2, 2, rng=rng)), Sequential(Tanh(), Sequential(Linear(2, 1, rng=rng))))
    names = ["0.0.weight", "0.0.bias", "1.1.0.weight", "1.1.0.bias"]
    expect([name for name, _ in net.named_parameters()], names)
    expect([name for name, _ in net.named_modules()], ["", "0", "0.0", "1", "1.0", "1.1", "1.1.0"])


def test_a_subclass_may_hold_more_than_its_row(rng):
    names = [*reversed(BOTH), "more_layers.0.weight", "scale"]
    expect(sorted(name for name, _ in Scaled(rng).named_parameters()), names)


def test_what_is_said_to_a_network_reaches_its_layers(rng):
    net = Sequential(Linear(2, 2, rng=rng), Sequential(Dropout(0.5, rng=rng)))
    net.eval()
    expect((net[0].training, net[1].training, net[1][0].training), (False, False, False))
    net.requires_grad_(False)
    expect([p.requires_grad for p in net.parameters()], [False, False])


# 05.3 MLP


def test_an_mlp_has_an_activation_between_two_layers(rng):
    net = MLP([4, 8, 6, 3], rng=rng)
    expect([type(layer).__name__ for layer in net], ["Linear", "ReLU", "Linear", "ReLU", "Linear"])
    expect([p.shape for p in net.parameters()], [(8, 4), (8,), (6, 8), (6,), (3, 6), (3,)])
    expect(isinstance(net, Sequential), True)


def test_an_mlp_of_two_sizes_is_one_layer(rng):
    expect([type(layer).__name__ for layer in MLP((4, 3), Tanh, 0.5, rng=rng)], ["Linear"])


def test_each_activation_is_made_anew(rng):
    net = MLP([2, 2, 2, 2], lambda: LeakyReLU(0.25), rng=rng)
    expect([type(layer).__name__ for layer in net[1::2]], ["LeakyReLU", "LeakyReLU"])
    expect((net[1] is net[3], net[3](Tensor([-4.0])).item()), (False, -1.0))


def test_dropout_follows_each_activation(rng):
    net = MLP([4, 8, 8, 3], Tanh, dropout=0.25, rng=rng)
    kinds = ["Linear", "Tanh", "Dropout", "Linear", "Tanh", "Dropout", "Linear"]
    expect([type(layer).__name__ for layer in net], kinds)
    for layer in (net[2], net[5]):  # what is left is divided by 3/4
        expect(np.unique(layer(Tensor(np.full(100, 3.0))).data), [0.0, 4.0])
    x = Tensor(np.ones((16, 4), np.float32))
    expect(bool((net(x).data != net(x).data).any()), True)
    net.eval()
    expect(net(x), net(x).data)


def test_an_mlp_is_drawn_from_its_generator():
    one, same, other = (MLP([3, 5, 2], dropout=0.5, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    for name, array in one.state_dict().items():
        expect(same.state_dict()[name], array)
        expect(bool((other.state_dict()[name] != array).any()), True)
    x = Tensor(np.ones((8, 3), np.float32))
    expect(same(x), one(x).data)  # dropout draws from it, too


@pytest.mark.parametrize("sizes", [[], [3]])
def test_an_mlp_has_an_input_and_an_output(sizes, rng):
    with expect_error(ValueError):
        MLP(sizes, rng=rng)


def test_a_network_computes_what_is_worked_out_by_hand():
    # w1 @ x + b1 is [-1, 3], relu makes it [0, 3], and 3 * 0 - 1 * 3 + 0.5 is -2.5.
    expect(small_net()(Tensor([[1.0, 2.0]])), [[-2.5]])
    expect(small_net()(Tensor(np.zeros((0, 2), np.float32))), np.zeros((0, 1), np.float32))
    expect(small_net()(Tensor(np.array([[[1.0, 2.0]]])))[0, 0, 0], np.array(-2.5))  # float64 stays, and axes


# 05.4 fans


@pytest.mark.parametrize(
    ("shape", "fan_in", "fan_out"),
    [
        ((3, 5), 5, 3),  # (outputs, inputs)
        ((1, 1), 1, 1),
        ((8, 4, 3, 3), 36, 72),  # 4 * 3 * 3 places are heard, and each is heard by 8 * 3 * 3
        ((8, 4, 5), 20, 40),
        ((2, 3, 0), 0, 0),
        ((0, 3), 3, 0),
    ],
)
def test_fans_count_inputs_and_outputs(shape, fan_in, fan_out):
    expect(fans(shape), (fan_in, fan_out))


@pytest.mark.parametrize("shape", [(), (7,)])
def test_fans_need_two_axes(shape):
    with expect_error(ValueError, str(shape)):
        fans(shape)


# 05.5 calculate_gain


@pytest.mark.parametrize(
    ("nonlinearity", "param", "gain"),
    [
        ("linear", None, 1.0),
        ("sigmoid", None, 1.0),
        ("tanh", None, 5 / 3),
        ("relu", None, 1.4142135623730951),
        ("leaky_relu", None, 1.4141428569978354),  # sqrt(2 / 1.0001)
        ("leaky_relu", 0, 1.4142135623730951),
        ("leaky_relu", 0.5, 1.2649110640673518),  # sqrt(2 / 1.25)
        ("leaky_relu", 1, 1.0),
        ("selu", None, 0.75),
    ],
)
def test_a_gain_makes_up_for_the_nonlinearity(nonlinearity, param, gain):
    expect(calculate_gain(nonlinearity, param), gain, rtol=1e-12)


def test_a_gain_that_nobody_knows_is_an_error():
    with expect_error(ValueError, "swish"):
        calculate_gain("swish")


# 05.6, 05.7: Xavier and Kaiming. Sizes are such that fan_in, fan_out and the mean of both differ.

TABLE = (300, 500)  # fan_out, fan_in; so the mean of both is 400
KERNEL = (60, 100, 5, 1)  # the same fans
DRAWS = {
    "xavier": (xavier_uniform_, xavier_normal_, TABLE, {}, math.sqrt(1 / 400)),
    "xavier for tanh": (xavier_uniform_, xavier_normal_, KERNEL, {"gain": 5 / 3}, 5 / 3 * math.sqrt(1 / 400)),
    "kaiming": (kaiming_uniform_, kaiming_normal_, TABLE, {}, math.sqrt(2 / 500)),
    "kaiming of a kernel": (kaiming_uniform_, kaiming_normal_, KERNEL, {}, math.sqrt(2 / 500)),
    "kaiming fan_out": (
        kaiming_uniform_,
        kaiming_normal_,
        TABLE,
        {"mode": "fan_out", "nonlinearity": "tanh"},
        5 / 3 * math.sqrt(1 / 300),
    ),
    "kaiming for a slope": (kaiming_uniform_, kaiming_normal_, TABLE, {"a": 0.5}, math.sqrt(2 / 1.25 / 500)),
    "kaiming fan_in": (
        kaiming_uniform_,
        kaiming_normal_,
        TABLE,
        {"a": 0.5, "mode": "fan_in", "nonlinearity": "relu"},
        math.sqrt(2 / 500),
    ),
    "kaiming of one input": (kaiming_uniform_, kaiming_normal_, (150_000, 1), {}, math.sqrt(2)),
    "kaiming like a Linear": (
        kaiming_uniform_,
        kaiming_normal_,
        TABLE,
        {"a": math.sqrt(5)},
        math.sqrt(1 / 1500),
    ),
}

# The mean of (x / std)**4, and what one such figure spreads by: moments of the two distributions.
FOURTH = {"uniform": (9 / 5, 2.4), "normal": (3.0, math.sqrt(96))}


def check_draw(x, std, kind):
    """That the numbers in `x` may well be drawn from this distribution, each on its own."""
    n, y = x.size, np.asarray(x, np.float64).reshape(len(x), -1) / std
    expect(y.mean(), 0.0, atol=SIGMAS / math.sqrt(n))
    expect(y.std(), 1.0, atol=SIGMAS / math.sqrt(2 * n))
    fourth, spread = FOURTH[kind]
    expect((y**4).mean(), fourth, atol=SIGMAS * spread / math.sqrt(n))
    expect((y[0] * y[-1]).mean(), 0.0, atol=SIGMAS / math.sqrt(y.shape[1]))
    if y.shape[1] > 1:
        expect((y[:, 0] * y[:, -1]).mean(), 0.0, atol=SIGMAS / math.sqrt(y.shape[0]))
    if kind == "uniform":
        expect(bool(np.abs(y).max() <= math.sqrt(3) * (1 + 1e-6)), True)


@pytest.mark.parametrize("name", DRAWS)
def test_weights_have_the_spread_that_their_fans_and_gain_say(name, rng):
    uniform, normal, shape, options, std = DRAWS[name]
    check_draw(uniform(Tensor(np.zeros(shape)), **options, rng=rng).data, std, "uniform")
    check_draw(normal(Tensor(np.zeros(shape)), **options, rng=rng).data, std, "normal")


@pytest.mark.parametrize("init", [xavier_uniform_, xavier_normal_], ids=lambda init: init.__name__)
def test_the_mean_of_both_fans_need_not_be_whole(init, rng):
    draws = np.array([init(Tensor(np.zeros((2, 1))), rng=rng).data for _ in range(2000)])
    expect(draws.std() / math.sqrt(1 / 1.5), 1.0, atol=SIGMAS / math.sqrt(2 * draws.size))


INITIALISERS = [xavier_uniform_, xavier_normal_, kaiming_uniform_, kaiming_normal_, orthogonal_]
each_initialiser = pytest.mark.parametrize("init", INITIALISERS, ids=lambda init: init.__name__)


@each_initialiser
def test_an_initialiser_writes_over_the_tensor_and_returns_it(init, rng):
    weight = Parameter(np.zeros((20, 30), np.float32))
    array, before = weight.data, version()
    expect(init(weight, rng=rng) is weight, True)
    expect((weight.data is array, weight.requires_grad, weight.grad), (True, True, None))
    expect(bool(np.unique(array).size > 500), True)
    expect(version(array) > before, True)


@each_initialiser
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_an_initialiser_keeps_the_dtype(init, dtype, rng):
    weight = Tensor(np.zeros((16, 8), dtype))
    expect((init(weight, rng=rng).dtype, bool(weight.data.any())), (np.dtype(dtype), True))
    # And uses it: numbers that were drawn in a narrower dtype are all numbers of that dtype, too.
    if dtype != np.float16:
        narrower = weight.data.astype(np.float16 if dtype == np.float32 else np.float32)
        expect(bool((narrower == weight.data).all()), False)


@each_initialiser
def test_an_initialiser_reaches_every_element_of_a_view(init, rng):
    whole = np.zeros((60, 80))
    init(Tensor(whole[::-2, ::2].T), rng=rng)
    expect((int((whole != 0).sum()), int((whole[1::2, ::2] != 0).sum())), (1200, 1200))


@each_initialiser
def test_the_same_generator_draws_the_same_weights(init):
    one, same, other = (
        init(Tensor(np.zeros((4, 3))), rng=np.random.default_rng(seed)).data for seed in (1, 1, 2)
    )
    expect(one, same)
    expect(bool((one != other).all()), True)


@each_initialiser
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (4, 2, 0)])
def test_empty_weights_stay_empty(init, shape, rng):
    expect(init(Tensor(np.zeros(shape)), rng=rng).shape, shape)


@each_initialiser
def test_a_weight_has_two_axes_at_least(init, rng):
    with expect_error(ValueError, "(7,)"):
        init(Tensor(np.zeros(7)), rng=rng)


@pytest.mark.parametrize("init", [kaiming_uniform_, kaiming_normal_], ids=lambda init: init.__name__)
def test_a_mode_or_a_nonlinearity_that_is_not_there_is_an_error(init, rng):
    with expect_error(ValueError, "fan_avg"):
        init(Tensor(np.zeros((2, 2))), mode="fan_avg", rng=rng)
    with expect_error(ValueError, "swish"):
        init(Tensor(np.zeros((2, 2))), nonlinearity="swish", rng=rng)


# 05.8 orthogonal_


@pytest.mark.parametrize("shape", [(4, 4), (7, 3), (3, 7), (1, 5), (5, 1), (4, 2, 3, 3), (6, 2, 2)])
@pytest.mark.parametrize("gain", [1.0, -2.0])
def test_rows_or_columns_are_orthogonal(shape, gain, rng):
    weight = orthogonal_(Tensor(np.zeros(shape)), gain, rng=rng).data.reshape(shape[0], -1)
    rows, columns = weight.shape
    products = weight @ weight.T if rows <= columns else weight.T @ weight
    expect(products, gain**2 * np.eye(min(rows, columns)), atol=1e-12)


def test_every_orthogonal_matrix_is_as_likely(rng):
    """np.linalg.qr prefers signs: alone, it makes every (1, 1) the number 1, and most corners negative."""
    draws = 600
    ones = [orthogonal_(Tensor(np.zeros((1, 1))), rng=rng).item() for _ in range(draws)]
    expect(sorted(set(np.round(ones, 12))), [-1.0, 1.0])
    expect(np.mean(ones), 0.0, atol=SIGMAS / math.sqrt(draws))
    for shape in ((2, 2), (2, 3), (3, 2)):
        matrices = np.array([orthogonal_(Tensor(np.zeros(shape)), rng=rng).data for _ in range(draws)])
        # Each element has the mean 0 and a variance of 1 / max(shape).
        off = matrices.mean(axis=0) * math.sqrt(draws * max(shape))
        expect(bool(np.abs(off).max() <= SIGMAS), True)


# 05.9 initialise


class Odd(Module):
    """Parameters that are no usual weights."""

    def __init__(self):
        self.weight = Parameter(np.full(3, 7.0))  # one axis, as in a batch norm
        self.table = Parameter(np.full((2, 2), 7.0))
        self.bias = Parameter(np.full((2, 2), 7.0))
        self.down_weight = Parameter(np.full((2, 3, 4), 7.0))
        self.in_bias = Parameter(np.full(2, 7.0))


def test_weights_are_drawn_and_biases_are_zero(rng):
    net = Sequential(MLP([3, 4, 2], rng=rng), Odd())
    drawn = []

    def ones_(tensor, *, rng):
        drawn.append((tensor.shape, rng))
        tensor.data[...] = 1.0
        return tensor

    expect(initialise(net, ones_, rng=rng) is net, True)
    expect(drawn, [((4, 3), rng), ((2, 4), rng), ((2, 3, 4), rng)])
    values = {"weight": 1.0, "bias": 0.0, "1.weight": 7.0, "1.table": 7.0, "1.in_bias": 0.0}
    for name, array in net.state_dict().items():
        value = values.get(name, values["bias" if name.endswith("bias") else "weight"])
        expect(np.unique(array), [value])


def test_biases_set_to_zero_are_noted_as_written(rng):
    net = MLP([2, 2], rng=rng)
    bias, before = net[0].bias.data, version()
    initialise(net, kaiming_normal_, rng=rng)
    expect((net[0].bias.data is bias, version(bias) > before), (True, True))


# 05.10 activation_stats


def test_each_layer_says_the_mean_and_the_spread_of_what_it_gave(rng):
    net = Sequential(Times(2.0), Sequential(Times(-1.0), Times(0.5)), Times(0.0))
    rows = activation_stats(net, Tensor([[1.0, 3.0], [5.0, 7.0]]))
    expect([path for path, _, _ in rows], ["0", "1.0", "1.1", "2"])
    five = math.sqrt(5)  # the spread of 1, 3, 5, 7
    expect([mean for _, mean, _ in rows], [8.0, -8.0, -4.0, 0.0])
    expect([std for _, _, std in rows], [2 * five, 2 * five, five, 0.0], rtol=1e-6)
    expect([[type(figure) for figure in row] for row in rows], [[str, float, float]] * 4)


def test_a_layer_that_is_called_twice_has_two_rows():
    twice = Times(2.0)
    rows = activation_stats(Sequential(twice, twice), Tensor([1.0, 3.0]))
    expect([(mean, std) for _, mean, std in rows], [(4.0, 2.0), (8.0, 4.0)])


def test_statistics_are_of_what_a_layer_gave_also_if_the_next_writes_over_it():
    rows = activation_stats(Sequential(Times(2.0), ReLU(inplace=True)), Tensor([-3.0, 1.0]))
    expect(rows, [("0", -2.0, 4.0), ("1", 1.0, 1.0)])


@pytest.mark.parametrize("mode", [True, False])
def test_statistics_are_of_the_network_in_the_mode_in_which_it_is(mode, rng):
    """Of a thousand ones, dropout at 1/2 makes zeros and twos: with a spread of 1."""
    net = Sequential(Dropout(0.5, rng=rng)).train(mode)
    expect(activation_stats(net, Tensor(np.ones(1000)))[0][2], float(mode), atol=0.1)
    expect((net.training, net[0].training), (mode, mode))


def test_large_activations_do_not_overflow_in_the_statistics():
    with np.errstate(all="raise"):
        rows = activation_stats(Sequential(Times(np.float32(1e30))), Tensor([1.0, 3.0]))
    expect(rows[0][1:], (2e30, 1e30), rtol=1e-6)


class Same(Module):
    """What comes in, which need be no Tensor: a hook that was left behind would stumble over it."""

    def forward(self, x):
        return x


class Fails(Module):
    def forward(self, x):
        raise KeyError("no")


def test_statistics_leave_no_hook_behind():
    net = Sequential(Same())
    activation_stats(net, Tensor([1.0]))
    expect(net(3.0), 3.0)


def test_statistics_leave_no_hook_behind_when_a_layer_fails():
    net = Sequential(Same(), Fails())
    with pytest.raises(KeyError):
        activation_stats(net, Tensor([1.0]))
    expect(net[0](3.0), 3.0)


def test_statistics_leave_no_hook_behind_when_they_are_interrupted():
    net = Sequential(Same(), Same())

    def interrupted(x):
        raise KeyboardInterrupt

    net[1].forward = interrupted
    with pytest.raises(KeyboardInterrupt):
        activation_stats(net, Tensor([1.0]))
    expect(net[0](3.0), 3.0)


def test_depth_multiplies_what_a_layer_does_to_the_spread(rng):
    """Thirty layers: Kaiming's weights keep the spread within a factor of 30, half of them lose it.

    The spread of a network of width n after L relu layers is itself drawn: its logarithm spreads by
    sqrt(5 * L / n) / 2, here 0.38, and 9 of these are a factor of 30.
    """
    net = MLP([256] * 31, ReLU, rng=rng)
    x = Tensor(rng.standard_normal((32, 256)))
    spreads = [std for _, _, std in activation_stats(initialise(net, kaiming_normal_, rng=rng), x)][1::2]
    expect(len(spreads), 29)
    expect(bool(min(spreads) > 0.58 / 30 and max(spreads) < 0.83 * 30), True)
    for parameter in itertools.islice(net.parameters(), 0, None, 2):
        parameter.data *= 0.5
    shrunk = [std for _, _, std in activation_stats(net, x)][1::2]
    expect(shrunk[-1] / spreads[-1], 0.5**29, rtol=1e-3, atol=0)


def test_orthogonal_weights_keep_every_length(rng):
    net = initialise(MLP([64] * 21, lambda: Times(1.0), rng=rng), orthogonal_, rng=rng)
    x = rng.standard_normal((8, 64))
    expect(np.linalg.norm(net(Tensor(x)).data, axis=1), np.linalg.norm(x, axis=1), rtol=1e-5)
