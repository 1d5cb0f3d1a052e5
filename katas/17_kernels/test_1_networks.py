"""Level 1: a convolution with fewer multiplications, and networks whose layers are put together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect, expect_error
from tinytorch.activations import GELU, ReLU
from tinytorch.kernels import LinearGELU, fold_batch_norm, fuse, winograd_conv2d
from tinytorch.layers import Linear, Module, Parameter
from tinytorch.networks import Sequential
from tinytorch.spatial import BatchNorm2d, Conv2d, Flatten, ResidualBlock
from tinytorch.tensor import Tensor

steady = settings(deadline=None, derandomize=True, max_examples=40)
SEEDS = st.integers(0, 2**32 - 1)


def eighths(rng, *shape):
    return rng.integers(-16, 17, shape) / 8


def convolved(x, weight):
    """3 x 3 with a border of zeros, tap by tap, in float64."""
    n, _, h, w = x.shape
    padded = np.zeros((n, x.shape[1], h + 2, w + 2))
    padded[:, :, 1:-1, 1:-1] = x
    out = np.zeros((n, len(weight), h, w))
    for a, b in np.ndindex(3, 3):
        seen = padded[:, None, :, a : a + h, b : b + w]
        out += (seen * weight[:, :, a, b, None, None].astype(float)).sum(axis=2)
    return out


# 17.14 winograd_conv2d


def test_a_convolution_by_hand():
    """A kernel of ones adds up what is around: four numbers in a corner, six at an edge, nine inside."""
    x = np.ones((1, 1, 3, 3))
    expect(winograd_conv2d(x, np.ones((1, 1, 3, 3))), np.array([[[[4, 6, 4], [6, 9, 6], [4, 6, 4]]]], float))
    left = np.zeros((1, 1, 3, 3))
    left[0, 0, 1, 0] = 1.0  # what is at the left
    numbers = np.arange(9.0).reshape(1, 1, 3, 3)
    expect(winograd_conv2d(numbers, left), np.array([[[[0, 0, 1], [0, 3, 4], [0, 6, 7]]]], float), atol=1e-12)


@steady
@given(st.integers(0, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 13), st.integers(1, 13), SEEDS)
def test_it_is_the_convolution_on_any_sides(n, channels, outputs, height, width, seed):
    rng = np.random.default_rng(seed)
    x, weight = eighths(rng, n, channels, height, width), eighths(rng, outputs, channels, 3, 3)
    kept = x.copy(), weight.copy()
    expect(winograd_conv2d(x, weight), convolved(x, weight), rtol=1e-10, atol=1e-10)
    expect((x, weight), kept)


@pytest.mark.parametrize(
    ("n", "channels", "outputs", "height", "width"),
    [(2, 64, 64, 45, 50), (70, 16, 16, 8, 8), (3, 40, 8, 30, 13), (1, 200, 210, 6, 9), (2, 8, 8, 150, 4)],
)
def test_many_and_large_images_are_convolved_too(n, channels, outputs, height, width, rng):
    """Whatever is transformed at a time."""
    x = rng.standard_normal((n, channels, height, width), np.float32)
    weight = rng.standard_normal((outputs, channels, 3, 3), np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))).transpose(0, 2, 3, 1).astype(float)
    expected = sum(
        padded[:, a : a + height, b : b + width] @ weight[:, :, a, b].T.astype(float)
        for a, b in np.ndindex(3, 3)
    ).transpose(0, 3, 1, 2)
    got = winograd_conv2d(x, weight).data
    assert got.dtype == np.float32
    assert abs(got - expected).max() <= 3e-5 * abs(expected).max()


def test_a_row_of_tiles_may_take_more_than_is_transformed_at_a_time():
    """36 numbers for each of 15 tiles and 1,028 channels of float64 are 4.2 MiB; the kernel adds up nine."""
    x, weight = np.ones((1, 1024, 1, 60)), np.zeros((4, 1024, 3, 3))
    weight[1, 1000] = 1.0
    expected = np.zeros((1, 4, 1, 60))
    expected[0, 1] = [2, *[3] * 58, 2]
    expect(winograd_conv2d(x, weight), expected, atol=1e-9)


def test_float32_loses_no_more_digits_than_it_says(rng):
    for channels in (1, 16, 128):
        x = rng.standard_normal((1, channels, 12, 12), np.float32)
        weight = rng.standard_normal((8, channels, 3, 3), np.float32)
        expected = convolved(x.astype(float), weight)
        assert abs(winograd_conv2d(x, weight).data - expected).max() <= 3e-5 * abs(expected).max()


def test_images_and_kernels_may_lie_in_any_order(rng):
    x, weight = eighths(rng, 2, 3, 6, 7), eighths(rng, 4, 3, 3, 3)
    expected = convolved(x, weight)
    for view in (np.asfortranarray(x), x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)):
        expect(winograd_conv2d(view, np.asfortranarray(weight)), expected, rtol=1e-9, atol=1e-9)
    turned = winograd_conv2d(x[:, :, ::-1, ::-1], weight[:, :, ::-1, ::-1]).data
    expect(turned[:, :, ::-1, ::-1], expected, rtol=1e-9, atol=1e-9)


def test_kernels_that_were_written_over_are_those_that_count(rng):
    """As an optimizer writes over them."""
    x, weight = eighths(rng, 1, 2, 5, 6), eighths(rng, 3, 2, 3, 3)
    for _ in range(2):
        expect(winograd_conv2d(x, weight), convolved(x, weight), rtol=1e-9, atol=1e-9)
        weight[...] = eighths(rng, 3, 2, 3, 3)


def test_the_result_is_channels_last_in_memory(rng):
    out = winograd_conv2d(eighths(rng, 2, 3, 5, 6), eighths(rng, 4, 3, 3, 3)).data
    assert out.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize(
    ("x", "weight", "dtype"),
    [("f4", "f4", "f4"), ("f8", "f8", "f8"), ("f4", "f8", "f8"), ("i8", "f4", "f4"), ("i8", "i8", "f4")],
)
def test_the_convolution_has_the_dtype_in_which_images_and_kernels_meet(x, weight, dtype):
    got = winograd_conv2d(Tensor(np.ones((1, 1, 1, 2), x)), np.ones((1, 1, 3, 3), weight))
    assert isinstance(got, Tensor)
    expect(got, np.full((1, 1, 1, 2), 2, dtype), rtol=1e-5)


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        ((1, 2, 4, 4), (3, 1, 3, 3)),
        ((1, 2, 4, 4), (3, 2, 5, 5)),
        ((1, 2, 4, 4), (3, 2, 3, 1)),
        ((2, 4, 4), (3, 2, 3, 3)),
        ((1, 2, 4, 4), (2, 3, 3)),
    ],
)
def test_images_and_kernels_that_do_not_fit_are_named(x, weight):
    with expect_error(ValueError, str(x), str(weight)):
        winograd_conv2d(np.ones(x), np.ones(weight))


# 17.16 fold_batch_norm


def normed(rng, channels, dtype=np.float32):
    """A batch norm in use that does something to every channel."""
    norm = BatchNorm2d(channels, eps=0.1).eval()
    for array in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        array.data = rng.uniform(0.5, 2.0, channels).astype(dtype)
    norm.weight.data[0] *= -1
    return norm


def test_folding_by_hand():
    """(3 x + 5 - 1) / 2 * 10 + 7 is 15 x + 27."""
    conv, norm = Conv2d(1, 1, 1, rng=np.random.default_rng(0)), BatchNorm2d(1, eps=0.0).eval()
    for array, number in (
        (conv.weight, 3), (conv.bias, 5), (norm.running_mean, 1), (norm.running_var, 4), (norm.weight, 10),
        (norm.bias, 7),
    ):  # fmt: skip
        array.data[...] = number
    folded = fold_batch_norm(conv, norm)
    assert isinstance(folded, Conv2d)
    expect(folded.weight, np.full((1, 1, 1, 1), 15, np.float32))
    expect(folded.bias, np.array([27], np.float32))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2, "padding": (1, 0)}, {"groups": 2}, {"dilation": 2, "padding": 2}],
    ids=["plain", "stride", "groups", "dilation"],
)
def test_one_convolution_gives_what_the_two_gave(options, bias, rng):
    conv, norm = Conv2d(4, 6, 3, **options, bias=bias, rng=rng), normed(rng, 6)
    x = Tensor(rng.standard_normal((2, 4, 9, 8), np.float32))
    folded = fold_batch_norm(conv, norm)
    expect(folded(x), norm(conv(x)).data, rtol=1e-4, atol=1e-4)
    assert isinstance(folded.weight, Parameter)
    assert isinstance(folded.bias, Parameter)


def test_folding_changes_neither_of_the_two(rng):
    conv, norm = Conv2d(2, 3, 3, rng=rng), normed(rng, 3)
    before = [array.copy() for module in (conv, norm) for array in module.state_dict().values()]
    folded = fold_batch_norm(conv, norm)
    assert folded is not conv
    folded.weight.data[...] = folded.bias.data[...] = 0
    after = [array for module in (conv, norm) for array in module.state_dict().values()]
    expect(after, before, rtol=0, atol=0)


def test_hooks_of_the_convolution_are_not_the_folded_one_s(rng):
    conv, calls = Conv2d(2, 3, 1, rng=rng), []
    conv.register_forward_hook(lambda *_: calls.append(1))
    folded = fold_batch_norm(conv, normed(rng, 3))
    x = Tensor(np.ones((1, 2, 2, 2), np.float32))
    folded(x)
    assert not calls
    folded.register_forward_hook(lambda *_: calls.append(2))
    conv(x)
    assert calls == [1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_folded_keeps_the_dtype_of_the_convolution(dtype, rng):
    conv = Conv2d(2, 3, 1, rng=rng)
    conv.weight.data = conv.weight.data.astype(dtype)
    folded = fold_batch_norm(conv, normed(rng, 3, np.float64))
    assert folded.weight.dtype == folded.bias.dtype == dtype


def test_a_norm_in_training_or_for_other_channels_is_refused(rng):
    conv = Conv2d(2, 3, 1, rng=rng)
    with expect_error(ValueError, "training"):
        fold_batch_norm(conv, BatchNorm2d(3))
    with expect_error(ValueError, "4", "3"):
        fold_batch_norm(conv, BatchNorm2d(4).eval())


# 17.16 LinearGELU, fuse


def test_a_fused_layer_has_the_parameters_of_the_linear_one(rng):
    linear = Linear(3, 2, rng=rng)
    layer = LinearGELU(linear)
    assert layer.weight is linear.weight
    assert layer.bias is linear.bias
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert (layer.training, LinearGELU(linear.eval()).training) == (True, False)
    x = Tensor(rng.standard_normal((4, 3), np.float32))
    expect(layer(x), GELU()(linear(x)).data, rtol=1e-5)
    plain = Linear(3, 2, bias=False, rng=rng)
    expect(LinearGELU(plain)(x), GELU()(plain(x)).data, rtol=1e-5)


def test_a_fused_layer_says_what_it_is_and_what_it_costs(rng):
    layer = LinearGELU(Linear(3, 2, bias=False, rng=rng))
    assert repr(layer) == "LinearGELU(in_features=3, out_features=2, bias=False)"
    x = Tensor(np.ones((5, 3), np.float32))
    assert layer.flops((x,), layer(x)) == 2 * 5 * 3 * 2


def kinds(net):
    return [kinds(layer) if isinstance(layer, Sequential) else type(layer) for layer in net]


def test_linear_and_gelu_become_one(rng):
    net = Sequential(
        Linear(3, 4, rng=rng), GELU(), Linear(4, 4, rng=rng), ReLU(), GELU(), Linear(4, 2, rng=rng)
    )
    fused, x = fuse(net), Tensor(rng.standard_normal((5, 3), np.float32))
    assert kinds(fused) == [LinearGELU, Linear, ReLU, GELU, Linear]
    expect(fused(x), net(x).data, rtol=1e-4, atol=1e-6)


def test_a_linear_without_a_bias_and_gelu_become_one_too(rng):
    net = Sequential(Linear(3, 4, bias=False, rng=rng), GELU())
    fused, x = fuse(net), Tensor(rng.standard_normal((5, 3), np.float32))
    assert kinds(fused) == [LinearGELU]
    expect(fused(x), net(x).data, rtol=1e-4, atol=1e-6)


def test_hooks_stay_where_nothing_was_put_together(rng):
    net, calls = Sequential(Linear(3, 3, rng=rng), GELU(), ReLU()), []
    for module, name in ((net, "net"), (net[1], "gelu"), (net[2], "relu")):
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    fuse(net)(Tensor(np.ones((1, 3), np.float32)))
    assert calls == ["relu", "net"]


def test_each_pair_is_put_together_from_its_own_layers(rng):
    first, second, third = (Linear(3, 3, rng=rng) for _ in range(3))
    net = Sequential(first, GELU(), second, GELU(), third, GELU())
    fused, x = fuse(net), Tensor(rng.standard_normal((5, 3), np.float32))
    assert kinds(fused) == [LinearGELU] * 3
    expect(fused(x), net(x).data, rtol=1e-4, atol=1e-6)


def test_convolution_and_norms_in_use_become_one(rng):
    net = Sequential(
        Conv2d(2, 3, 3, rng=rng), normed(rng, 3), normed(rng, 3), ReLU(), normed(rng, 3), Flatten()
    )
    fused, x = fuse(net.eval()), Tensor(rng.standard_normal((2, 2, 5, 5), np.float32))
    assert kinds(fused) == [Conv2d, ReLU, BatchNorm2d, Flatten]
    expect(fused(x), net(x).data, rtol=1e-4, atol=1e-4)


def test_a_norm_in_training_is_left_alone(rng):
    net = Sequential(Conv2d(2, 3, 3, rng=rng), BatchNorm2d(3))
    assert kinds(fuse(net)) == [Conv2d, BatchNorm2d]


def test_what_is_inside_of_other_modules_is_fused_too(rng):
    class Block(Module):
        def __init__(self):
            self.parts = {"body": Sequential(Linear(3, 3, rng=rng), GELU())}

        def forward(self, x):
            return x + self.parts["body"](x)

    net = Sequential(Sequential(Sequential(Linear(3, 3, rng=rng), GELU())), Block(), Sequential())
    fused, x = fuse(net), Tensor(rng.standard_normal((2, 3), np.float32))
    assert kinds(fused)[0] == [[LinearGELU]]
    assert kinds(fused[1].parts["body"]) == [LinearGELU]
    expect(fused(x), net(x).data, rtol=1e-4, atol=1e-6)
    residual = ResidualBlock(3, 5, 2, rng=rng).eval()
    images = Tensor(rng.standard_normal((2, 3, 6, 6), np.float32))
    expect(fuse(residual)(images), residual(images).data, rtol=1e-4, atol=1e-4)
    layers = [type(m) for m in fuse(residual).modules()]
    assert BatchNorm2d not in layers


def test_neighbours_are_those_of_one_sequential(rng):
    net = Sequential(Sequential(Linear(3, 3, rng=rng)), GELU(), Linear(3, 3, rng=rng), Sequential(GELU()))
    fused, x = fuse(net), Tensor(rng.standard_normal((2, 3), np.float32))
    expect(fused(x), net(x).data, rtol=1e-4, atol=1e-6)


def test_a_subclass_is_left_alone(rng):
    class Doubled(Linear):
        def forward(self, x):
            return super().forward(x) * 2.0

    class Shifted(BatchNorm2d):
        def forward(self, x):
            return super().forward(x) + 1.0

    class Halved(Conv2d):
        def forward(self, x):
            return super().forward(x) * 0.5

    class Sharper(GELU):
        def forward(self, x):
            return super().forward(x * 4.0)

    for net in (
        Sequential(Doubled(3, 3, rng=rng), GELU()),
        Sequential(Linear(3, 3, rng=rng), Sharper()),
        Sequential(Conv2d(1, 2, 1, rng=rng), Shifted(2)).eval(),
        Sequential(Halved(1, 2, 1, rng=rng), BatchNorm2d(2)).eval(),
    ):
        assert kinds(fuse(net)) == kinds(net)


def test_the_copy_shares_nothing_with_the_original_which_stays(rng):
    net = Sequential(Linear(3, 4, rng=rng), GELU(), Conv2d(1, 1, 1, rng=rng), normed(rng, 1)).eval()
    before = {name: array.copy() for name, array in net.state_dict().items()}
    fused = fuse(net)
    assert kinds(net) == [Linear, GELU, Conv2d, BatchNorm2d]
    for array in fused.state_dict().values():
        array[...] = 0
    expect(list(net.state_dict().values()), list(before.values()), rtol=0, atol=0)


def test_layers_that_share_parameters_share_them_in_the_copy(rng):
    linear = Linear(3, 3, rng=rng)
    net = Sequential(linear, GELU(), linear)
    fused = fuse(net)
    assert kinds(fused) == [LinearGELU, Linear]
    assert fused[0].weight is fused[1].weight
    assert len(list(fused.parameters())) == 2


def test_a_convolution_between_several_norms_is_folded_into_each(rng):
    conv, norms = Conv2d(2, 2, 1, rng=rng), [normed(rng, 2), normed(rng, 2)]
    net = Sequential(conv, norms[0], conv, norms[1])
    fused, x = fuse(net), Tensor(rng.standard_normal((1, 2, 3, 3), np.float32))
    assert kinds(fused) == [Conv2d, Conv2d]
    expect(fused(x), net(x).data, rtol=1e-4, atol=1e-4)


def test_what_is_no_sequential_is_copied(rng):
    linear = Linear(2, 2, rng=rng)
    copied = fuse(linear)
    assert type(copied) is Linear
    assert not np.shares_memory(copied.weight.data, linear.weight.data)
    expect(copied.weight, linear.weight.data)


def test_a_fused_network_can_be_trained_and_used(rng):
    net = Sequential(Linear(3, 4, rng=rng), GELU()).eval()
    fused = fuse(net)
    assert not fused[0].training
    fused.train()
    out = fused(Tensor(np.ones((1, 3), np.float32)))
    assert out.requires_grad
