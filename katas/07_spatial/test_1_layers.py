"""Level 1: layers of images, and three networks made of them."""

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.activations import ReLU
from tinytorch.autograd import no_grad
from tinytorch.layers import Buffer, Linear, Module, Parameter, count_parameters, summary
from tinytorch.networks import initialise, kaiming_normal_, loss_and_gradient
from tinytorch.spatial import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    LeNet,
    MaxPool2d,
    ResidualBlock,
    SmallResNet,
    SmallVGG,
    avg_pool2d,
    batch_norm,
    conv2d,
    conv_norm,
    max_pool2d,
)
from tinytorch.tensor import Tensor, set_recorder, version


def f32(values):
    return np.array(values, np.float32)


def images(rng, *shape):
    return Tensor(rng.random(shape, np.float32))


def operations(layer, x):
    """The names of the operations that a forward pass records."""
    seen = []
    before = set_recorder(lambda op, inputs, arrays, params, out: seen.append(op.name))
    try:
        layer(Tensor(x.data, requires_grad=True))
    finally:
        set_recorder(before)
    return seen


# 07.12 Conv2d


def test_its_parameters_are_shaped_as_in_pytorch(rng):
    layer = Conv2d(6, 4, (3, 5), groups=2, rng=rng)
    expect([name for name, _ in layer.named_parameters()], ["weight", "bias"])
    expect((layer.weight.shape, layer.bias.shape), ((4, 3, 3, 5), (4,)))
    expect((layer.weight.dtype, layer.bias.dtype), (np.dtype(np.float32),) * 2)
    assert isinstance(layer.weight, Parameter)
    expect(Conv2d(6, 4, 3, bias=False, rng=rng).bias, None)


@pytest.mark.parametrize(
    ("arguments", "params"),
    [
        ((4, 6, 3), {}),
        ((4, 6, 3, 2, 1), {"stride": 2, "padding": 1}),
        ((4, 6, (3, 2), (2, 1), (0, 1), (1, 2)), {"stride": (2, 1), "padding": (0, 1), "dilation": (1, 2)}),
        ((4, 6, 3, 1, 0, 1, 2), {"groups": 2}),
        ((4, 6, 3, 1, 1, 2, 1, False), {"padding": 1, "dilation": 2}),
    ],
)
def test_a_layer_convolves_with_its_parameters(arguments, params, rng):
    layer, x = Conv2d(*arguments, rng=rng), images(rng, 2, 4, 8, 7)
    bias = layer.bias if layer.bias is None else layer.bias.data
    expect(layer(x), conv2d(x.data, layer.weight.data, bias, **params).data)
    expect(operations(layer, x), ["conv2d"])


@pytest.mark.parametrize(
    ("channels", "kernel", "groups", "bound"),
    [
        (1, 2, 1, 0.5),
        (25, 4, 1, 0.05),
        (8, 2, 2, 0.25),
        (1, 1, 1, 1.0),
        (2, (2, 4), 1, 0.25),
        (4, (8, 1), 2, 0.25),
    ],
)
def test_parameters_start_uniform_within_one_over_the_root_of_what_a_kernel_sees(
    channels, kernel, groups, bound, rng
):
    layer = Conv2d(channels, 4000, kernel, groups=groups, rng=rng)
    for values in (layer.weight.data.astype(np.float64), layer.bias.data.astype(np.float64)):
        assert -bound <= values.min() < -0.99 * bound
        assert 0.99 * bound < values.max() <= bound
        # The deviation of a uniform variable is its bound / sqrt(3); of 4,000 draws or more, this near.
        expect(values.std(), bound / np.sqrt(3), rtol=0.05)
        expect(values.mean(), 0.0, atol=0.05 * bound)


def test_parameters_are_drawn_from_the_generator_given_first_the_weight():
    make = lambda seed, bias=True: Conv2d(2, 3, 3, bias=bias, rng=np.random.default_rng(seed))  # noqa: E731
    one, same, other = make(1), make(1), make(2)
    expect((same.weight, same.bias), (one.weight.data, one.bias.data))
    assert not np.any(one.weight.data == other.weight.data)
    expect(make(1, bias=False).weight, one.weight.data)
    with expect_error(TypeError):
        Conv2d(2, 3, 3)


@pytest.mark.parametrize(("channels", "groups"), [((4, 6), 4), ((6, 4), 4), ((5, 4), 2), ((4, 4), 0)])
def test_channels_that_do_not_divide_into_groups_are_refused(channels, groups, rng):
    with expect_error(ValueError, *map(str, channels), str(groups)):
        Conv2d(*channels, 3, groups=groups, rng=rng)


def test_a_convolution_costs_two_operations_for_each_number_under_the_kernel(rng):
    for groups, per_output in ((1, 4 * 6), (2, 2 * 6)):
        layer, x = Conv2d(4, 8, (2, 3), 2, groups=groups, rng=rng), images(rng, 3, 4, 8, 9)
        expect(layer.flops((x,), layer(x)), 2 * (3 * 8 * 4 * 4) * per_output)
        expect(type(layer.flops((x,), layer(x))), int)


def test_a_layer_says_what_it_is(rng):
    expect(repr(Conv2d(3, 8, 5, rng=rng)), "Conv2d(3, 8, kernel_size=(5, 5), stride=(1, 1))")
    layer = Conv2d(4, 8, (1, 3), 2, (0, 1), 2, 4, False, rng=rng)
    text = "4, 8, kernel_size=(1, 3), stride=(2, 2), padding=(0, 1), dilation=2, groups=4, bias=False"
    expect(repr(layer), f"Conv2d({text})")
    expect(repr(MaxPool2d(2)), "MaxPool2d(kernel_size=2, stride=2, padding=0)")
    expect(repr(AvgPool2d(3, 2, 1)), "AvgPool2d(kernel_size=3, stride=2, padding=1)")
    expect(repr(BatchNorm2d(4)), "BatchNorm2d(4, eps=1e-05, momentum=0.1)")


# 07.12 MaxPool2d, AvgPool2d, GlobalAvgPool, Flatten


@pytest.mark.parametrize(("layer", "pool"), [(MaxPool2d, max_pool2d), (AvgPool2d, avg_pool2d)])
@pytest.mark.parametrize("arguments", [(2,), (3, 2), (3, 1, 1), ((2, 3), (1, 2), (0, 1))])
def test_a_layer_pools_as_its_arguments_say(layer, pool, arguments, rng):
    x = images(rng, 2, 3, 7, 8)
    params = dict(zip(("kernel", "stride", "padding"), arguments, strict=False))
    expect(layer(*arguments)(x), pool(x.data, **params).data)
    expect(operations(layer(*arguments), x), [pool.name])


def test_global_pooling_leaves_a_number_a_channel(rng):
    x = images(rng, 2, 3, 5, 4)
    expect(GlobalAvgPool()(x), x.data.mean(axis=(2, 3)))
    expect(GlobalAvgPool()(images(rng, 2, 3, 1, 1)).shape, (2, 3))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3), (2,), (0, 3, 2, 2), (2, 0, 3, 3)])
def test_flatten_leaves_a_row_an_image(shape, rng):
    x = images(rng, *shape)
    expect(Flatten()(x), x.data.reshape(shape[0], int(np.prod(shape[1:]))))


def test_flatten_goes_channel_by_channel_whatever_the_order_in_memory():
    """A channels-last result of conv2d must not come out pixel by pixel: saved weights would not fit."""
    x = np.arange(12.0, dtype=np.float32).reshape(1, 2, 2, 3)
    out = conv2d(x, f32(np.eye(2))[:, :, None, None])
    expect(Flatten()(out), f32([range(12)]))


# 07.12 BatchNorm2d


def test_it_starts_as_the_identity_would():
    layer = BatchNorm2d(2)
    start = {
        "weight": f32([1, 1]),
        "bias": f32([0, 0]),
        "running_mean": f32([0, 0]),
        "running_var": f32([1, 1]),
        "num_batches_tracked": np.array(0),
    }
    expect(list(layer.state_dict().items()), list(start.items()))
    expect([name for name, _ in layer.named_parameters()], ["weight", "bias"])
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert isinstance(getattr(layer, name), Buffer)
    expect(layer.eval()(Tensor(np.ones((1, 2, 1, 1), np.float32)) * 3), f32([[[[3]], [[3]]]]), rtol=1e-4)


def test_it_norms_the_batch_in_training_and_by_what_it_has_seen_in_use(rng):
    layer, x = BatchNorm2d(3, eps=0.1, momentum=0.5), images(rng, 4, 3, 5, 5)
    layer.weight.data[:], layer.bias.data[:] = [1, 2, 3], [4, 5, 6]
    mean, var = x.data.mean(axis=(0, 2, 3)), x.data.var(axis=(0, 2, 3), ddof=1)
    affine = layer.weight.data, layer.bias.data
    expect(layer(x), batch_norm(x.data, *affine, eps=0.1).data)
    expect(layer.running_mean, 0.5 * mean)
    expect(layer.running_var, 0.5 + 0.5 * var)
    seen = {"running_mean": 0.5 * mean, "running_var": 0.5 + 0.5 * var}
    expect(layer.eval()(x), batch_norm(x.data, *affine, **seen, training=False, eps=0.1).data)
    expect(layer.running_mean, 0.5 * mean)
    expect(operations(layer, x), ["batch_norm"])


def test_batches_are_counted_in_training(rng):
    layer, arrays = BatchNorm2d(2), None
    arrays = [b.data for b in (layer.running_mean, layer.running_var, layer.num_batches_tracked)]
    before = version()
    for training in (True, False, True, True):
        layer.train(training)(images(rng, 2, 2, 3, 3))
    expect(layer.num_batches_tracked.item(), 3)
    expect(layer.num_batches_tracked.data, np.array(3))
    for array, buffer in zip(
        arrays, (layer.running_mean, layer.running_var, layer.num_batches_tracked), strict=True
    ):
        assert buffer.data is array
        assert version(array) > before


def test_a_momentum_of_0_leaves_the_running_ones_where_they_are(rng):
    layer = BatchNorm2d(2, momentum=0.0)
    layer(images(rng, 3, 2, 2, 2))
    expect((layer.running_mean, layer.running_var), (f32([0, 0]), f32([1, 1])))
    expect(layer.num_batches_tracked.item(), 1)


def test_without_momentum_all_batches_count_the_same(rng):
    layer = BatchNorm2d(2, momentum=None)
    expect(layer.eval()(Tensor(np.ones((1, 2, 1, 1), np.float32))), f32([[[[1]], [[1]]]]), rtol=1e-4)
    layer.train()
    batches = [rng.random((3, 2, 2, 2), np.float32) for _ in range(4)]
    for batch in batches:
        layer(Tensor(batch))
    expect(layer.running_mean, f32(np.mean([b.mean(axis=(0, 2, 3)) for b in batches], axis=0)))
    expect(layer.running_var, f32(np.mean([b.var(axis=(0, 2, 3), ddof=1) for b in batches], axis=0)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (3, 5, 5), (2, 3, 4, 4, 4)])
def test_what_are_no_images_is_refused(shape, training, rng):
    with expect_error(ValueError, str(shape)):
        BatchNorm2d(3).train(training)(images(rng, *shape))


def test_two_layers_share_nothing(rng):
    one, other = BatchNorm2d(2), BatchNorm2d(2)
    one(images(rng, 2, 2, 3, 3))
    expect(other.running_mean, f32([0, 0]))
    expect(other.num_batches_tracked.item(), 0)


# 07.13 Networks

CONV_NORM = ["Conv2d", "BatchNorm2d"]
VGG_STAGE = ["Conv2d", "BatchNorm2d", "ReLU"] * 2


def leaves(net, x):
    """Class and output shape of each module without modules, as they are called."""
    holders = {
        path for path, m in net.named_modules() if any(isinstance(v, Module) for _, v in m.named_members())
    }
    return [(row[1], row[2]) for row in summary(net, x) if row[0] not in holders]


def test_lenet_is_what_lecun_drew(rng):
    """But for ReLU and the largest, which took the place of tanh and averages. 61,706 parameters."""
    net = LeNet(rng=rng)
    shapes = [
        ("Conv2d", (2, 6, 28, 28)), ("ReLU", (2, 6, 28, 28)), ("MaxPool2d", (2, 6, 14, 14)),
        ("Conv2d", (2, 16, 10, 10)), ("ReLU", (2, 16, 10, 10)), ("MaxPool2d", (2, 16, 5, 5)),
        ("Flatten", (2, 400)),
        ("Linear", (2, 120)), ("ReLU", (2, 120)), ("Linear", (2, 84)), ("ReLU", (2, 84)), ("Linear", (2, 10)),
    ]  # fmt: skip
    expect(leaves(net, images(rng, 2, 1, 28, 28)), shapes)
    expect([type(layer).__name__ for layer in net], [kind for kind, _ in shapes])  # none nested
    expect(count_parameters(net), 156 + 2416 + 48120 + 10164 + 850)
    expect(LeNet(7, 3, rng=rng)(images(rng, 1, 3, 28, 28)).shape, (1, 7))


def test_the_small_vgg_doubles_its_width_as_it_halves_the_image(rng):
    net = SmallVGG(width=4, rng=rng)
    seen = leaves(net, images(rng, 2, 3, 16, 16))
    kinds = [*VGG_STAGE, "MaxPool2d", *VGG_STAGE, "MaxPool2d", *VGG_STAGE, "GlobalAvgPool", "Linear"]
    expect([kind for kind, _ in seen], kinds)
    expect([type(layer).__name__ for layer in net], kinds)  # none nested
    sizes = [(2, 4, 16, 16)] * 2 + [(2, 8, 8, 8)] * 2 + [(2, 16, 4, 4)] * 2
    expect([shape for kind, shape in seen if kind == "Conv2d"], sizes)
    expect([shape for _, shape in seen[-2:]], [(2, 16), (2, 10)])
    kernels = 9 * (3 * 4 + 4 * 4 + 4 * 8 + 8 * 8 + 8 * 16 + 16 * 16)
    expect(count_parameters(net), kernels + 2 * 2 * (4 + 8 + 16) + 16 * 10 + 10)
    expect(SmallVGG(7, 1, 2, rng=rng)(images(rng, 2, 1, 4, 4)).shape, (2, 7))


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_a_convolution_with_its_norm_keeps_rows_and_columns(kernel, rng):
    convolution, norm = conv_norm(2, 4, kernel, rng=rng)
    expect([type(convolution), type(norm)], [Conv2d, BatchNorm2d])
    expect((convolution.weight.shape, norm.weight.shape), ((4, 2, kernel, kernel), (4,)))
    expect(norm(convolution(images(rng, 2, 2, 6, 5))).shape, (2, 4, 6, 5))
    expect(conv_norm(2, 4, kernel, 2, rng=rng)[0](images(rng, 2, 2, 6, 5)).shape, (2, 4, 3, 3))


def test_networks_are_so_wide_unless_told(rng):
    """Counted by hand: 9 for each pair of channels, two a channel for each norm, and the last Linear."""
    stages = 3 * 32 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128
    expect(count_parameters(SmallVGG(rng=rng)), 9 * stages + 2 * 2 * (32 + 64 + 128) + 128 * 10 + 10)
    blocks = 3 * 16 + 2 * 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64
    shortcuts, norms = 16 * 32 + 32 * 64, 2 * (3 * 16 + 3 * 32 + 3 * 64)
    expect(count_parameters(SmallResNet(rng=rng)), 9 * blocks + shortcuts + norms + 64 * 10 + 10)


def test_a_convolution_before_a_batch_norm_has_no_bias(rng):
    for net in (SmallVGG(width=2, rng=rng), SmallResNet(width=2, rng=rng), ResidualBlock(2, 3, rng=rng)):
        convolutions = [m for m in net.modules() if isinstance(m, Conv2d)]
        assert len(convolutions) >= 3
        expect([m.bias for m in convolutions], [None] * len(convolutions))


def zeroed(block):
    """The block with a main path that gives 0, in use."""
    for parameter in block.main.parameters():
        parameter.data[...] = 0
    return block.eval()


def test_a_residual_block_adds_its_input(rng):
    block, x = ResidualBlock(3, 3, rng=rng), images(rng, 2, 3, 4, 4) - Tensor(f32(0.5))
    expect(block.shortcut, None)
    expect([kind for kind, _ in leaves(block, x)], [*CONV_NORM, "ReLU", *CONV_NORM])
    expect(zeroed(block)(x), np.maximum(x.data, 0))


def test_a_residual_block_bends_the_sum(rng):
    block, x = ResidualBlock(2, 2, rng=rng).eval(), images(rng, 1, 2, 4, 4)
    expect(block(x), np.maximum(block.main(x).data + x.data, 0))
    block.main[4].bias.data[:] = -5
    expect(block(x), np.zeros((1, 2, 4, 4), np.float32))


@pytest.mark.parametrize(("channels", "stride"), [((3, 5), 1), ((3, 3), 2), ((3, 6), 2)])
def test_where_the_shape_changes_a_shortcut_takes_the_input_along(channels, stride, rng):
    block, x = ResidualBlock(*channels, stride, rng=rng).eval(), images(rng, 2, channels[0], 6, 5)
    out = (2, channels[1], 6 if stride == 1 else 3, 5 if stride == 1 else 3)
    called = zip([*CONV_NORM, "ReLU", *CONV_NORM, *CONV_NORM], [out] * 7, strict=True)
    expect(sorted(leaves(block, x)), sorted(called))  # either way may be gone first
    kernel = block.shortcut[0]
    expect((kernel.weight.shape, kernel.stride), ((channels[1], channels[0], 1, 1), stride))
    zeroed(block)
    expect(block(x), np.maximum(block.shortcut(x).data, 0))
    expected = conv2d(x.data, kernel.weight.data, stride=stride).data / np.sqrt(f32(1 + 1e-5))
    expect(block.shortcut(x), expected)


def test_the_input_of_a_block_stays_as_it_was(rng):
    block, x = ResidualBlock(2, 2, rng=rng), images(rng, 2, 2, 4, 4)
    before = x.data.copy()
    block(x)
    expect(x, before)


def test_the_small_resnet_halves_twice(rng):
    net = SmallResNet(width=4, rng=rng)
    rows = {path: shape for path, _, shape, _, _ in summary(net, images(rng, 2, 3, 12, 12))}
    shapes = [(2, 4, 12, 12)] * 4 + [(2, 8, 6, 6), (2, 16, 3, 3), (2, 16), (2, 10)]
    expect([rows[str(i)] for i in range(8)], shapes)
    kinds = [Conv2d, BatchNorm2d, ReLU, *[ResidualBlock] * 3, GlobalAvgPool, Linear]
    expect([type(layer) for layer in net], kinds)
    kernels = 9 * (3 * 4 + 2 * 16 + 32 + 64 + 128 + 256) + 32 + 128
    norms = 2 * (3 * 4 + 3 * 8 + 3 * 16)
    expect(count_parameters(net), kernels + norms + 16 * 10 + 10)
    expect(SmallResNet(7, 1, 2, rng=rng)(images(rng, 2, 1, 8, 8)).shape, (2, 7))


NETS = {"LeNet": LeNet, "SmallVGG": SmallVGG, "SmallResNet": SmallResNet}
SHAPES = {"LeNet": (1, 28, 28), "SmallVGG": (3, 8, 8), "SmallResNet": (3, 8, 8)}


@pytest.mark.parametrize("name", NETS)
def test_a_network_learns_a_batch_by_heart(name, rng):
    """Eight images of noise with labels: steps of descent, in training, on the graph of kata 06."""
    net = initialise(NETS[name](rng=rng), kaiming_normal_, rng=rng)
    x, labels = Tensor(rng.normal(size=(8, *SHAPES[name])).astype(np.float32)), np.arange(8) % 4
    losses = []
    for _ in range(12):
        net.zero_grad()
        out = net(x)
        loss, grad = loss_and_gradient(out.data, labels)
        losses.append(loss)
        out.backward(grad)
        for parameter in net.parameters():
            parameter.data -= 0.1 * parameter.grad
    expect({a.dtype for a in (out, *(p.grad for p in net.parameters()))}, {np.dtype(np.float32)})
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", NETS)
def test_a_network_in_use_takes_each_image_by_itself(name, rng):
    net = NETS[name](rng=rng)
    x = images(rng, 4, *SHAPES[name])
    net(x)
    net.eval()
    with no_grad():
        together = net(x).data
        expect(np.concatenate([net(x[i : i + 1]).data for i in range(4)]), together, rtol=1e-3)


def test_networks_are_drawn_from_the_generator_given():
    for name, make in NETS.items():
        one, same, other = (make(rng=np.random.default_rng(seed)).state_dict() for seed in (1, 1, 2))
        expect((name, list(one)), (name, list(same)))
        for key in one:
            expect((name, key, one[key]), (name, key, same[key]))
        assert not np.any(one["0.weight"] == other["0.weight"])
