"""Kata 07: convolution, pooling, batch norm and networks are PyTorch's, in float64 to the tenth digit."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinytorch.autograd import no_grad
from tinytorch.layers import summary
from tinytorch.spatial import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    LeNet,
    MaxPool2d,
    ResidualBlock,
    SmallResNet,
    SmallVGG,
    avg_pool2d,
    batch_norm,
    conv2d,
    conv2d_loops,
    conv_output_size,
    im2col,
    max_pool2d,
)
from tinytorch.tensor import Tensor

torch = pytest.importorskip("torch")
functional = torch.nn.functional

many = settings(deadline=None, derandomize=True, max_examples=300)
some = settings(deadline=None, derandomize=True, max_examples=50)

SEEDS = st.integers(0, 2**16)
SIZES = st.integers(1, 9)
SMALL = st.integers(1, 3)
PAIRS = st.tuples(SMALL, SMALL)
BORDERS = st.tuples(st.integers(0, 2), st.integers(0, 2))


def same(got, expected):
    expected = expected.detach().numpy()
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10, strict=True)


def images(rng, shape):
    """In one of the orders of memory that an array can have."""
    return np.asarray(rng.normal(size=shape), order="CF"[rng.integers(2)])


def compare(ours, theirs, arrays, cotangent_seed):
    """`ours` is (out, back); `theirs` a function of torch tensors."""
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    out, back = ours
    expected = theirs(*tensors)
    same(out, expected)
    cotangent = images(np.random.default_rng(cotangent_seed), out.shape)
    expected.backward(torch.tensor(cotangent))
    grads = back(cotangent)
    for grad, tensor in zip(grads if isinstance(grads, tuple) else (grads,), tensors, strict=False):
        same(grad, tensor.grad)


def fits(size, kernel, padding, dilation=(1, 1)):
    return all(
        n + 2 * p >= d * (k - 1) + 1 for n, k, p, d in zip(size, kernel, padding, dilation, strict=True)
    )


@many
@given(
    st.integers(0, 3), SMALL, st.tuples(SMALL, SMALL), st.tuples(SIZES, SIZES), PAIRS, PAIRS, BORDERS, PAIRS,
    st.booleans(), st.booleans(), SEEDS,
)  # fmt: skip
def test_convolution_and_its_gradients_are_pytorchs(
    n, groups, channels, size, kernel, stride, padding, dilation, has_bias, is_cached, seed
):
    """Over strides, paddings, dilations, groups and odd sizes, in one chunk and in many."""
    assume(fits(size, kernel, padding, dilation))
    rng = np.random.default_rng(seed)
    ins, outs = (groups * c for c in channels)
    arrays = [images(rng, (n, ins, *size)), images(rng, (outs, channels[0], *kernel))]
    arrays += [rng.normal(size=outs)] * has_bias
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    with pytest.MonkeyPatch.context() as patch:
        if not is_cached:
            patch.setattr("tinytorch.spatial.CACHE", 500)
        compare(conv2d.vjp(*arrays, **params), lambda *t: functional.conv2d(*t, **params), arrays, seed)


@some
@given(SMALL, SMALL, st.tuples(SIZES, SIZES), PAIRS, PAIRS, BORDERS, PAIRS, SEEDS)
def test_the_definition_is_pytorchs(groups, channels, size, kernel, stride, padding, dilation, seed):
    assume(fits(size, kernel, padding, dilation))
    rng = np.random.default_rng(seed)
    x, weight = (
        rng.normal(size=(1, groups * channels, *size)),
        rng.normal(size=(groups, channels, *kernel)),
    )
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    bias = rng.normal(size=groups)
    out = conv2d_loops(x, weight, bias, **params)
    same(out, functional.conv2d(*map(torch.tensor, (x, weight, bias)), **params))
    sizes = zip(size, kernel, stride, padding, dilation, strict=True)
    assert out.shape[2:] == tuple(conv_output_size(*numbers) for numbers in sizes)


@some
@given(SMALL, SMALL, st.tuples(SIZES, SIZES), PAIRS, PAIRS, BORDERS, PAIRS, SEEDS)
def test_im2col_is_unfold_with_channels_last(n, channels, size, kernel, stride, padding, dilation, seed):
    assume(fits(size, kernel, padding, dilation))
    x = np.random.default_rng(seed).normal(size=(n, channels, *size))
    columns = functional.unfold(
        torch.tensor(x), kernel, dilation, padding, stride
    )  # (N, C * KH * KW, places)
    expected = columns.reshape(n, channels, kernel[0] * kernel[1], -1).permute(0, 3, 2, 1)
    same(im2col(x, kernel, stride, padding, dilation), expected.reshape(-1, channels * kernel[0] * kernel[1]))


@pytest.mark.parametrize("ours", [max_pool2d, avg_pool2d], ids=["max", "avg"])
@many
@given(st.integers(1, 3), SMALL, st.tuples(SIZES, SIZES), PAIRS, PAIRS | st.none(), BORDERS, SEEDS)
def test_pooling_and_its_gradient_are_pytorchs(ours, n, channels, size, kernel, stride, padding, seed):
    assume(fits(size, kernel, padding) and all(2 * p <= k for p, k in zip(padding, kernel, strict=True)))
    rng = np.random.default_rng(seed)
    x = images(rng, (n, channels, *size))
    if seed % 2:
        x = x.round()  # ties
    theirs = functional.max_pool2d if ours is max_pool2d else functional.avg_pool2d
    compare(
        ours.vjp(x, kernel=kernel, stride=stride, padding=padding),
        lambda t: theirs(t, kernel, stride, padding),
        [x],
        seed,
    )


@many
@given(st.integers(1, 5), SMALL, st.lists(st.integers(1, 5), max_size=2), st.booleans(), SEEDS)
def test_batch_norm_and_its_gradients_are_pytorchs(n, channels, rest, training, seed):
    assume(n * np.prod(rest) > 1)
    rng = np.random.default_rng(seed)
    arrays = [images(rng, (n, channels, *rest)) + 10, *rng.normal(size=(2, channels))]
    mean, var = rng.normal(size=channels), rng.random(channels) + 0.1
    their_mean, their_var = torch.tensor(mean), torch.tensor(var)
    compare(
        batch_norm.vjp(
            *arrays, running_mean=mean, running_var=var, training=training, momentum=0.3, eps=0.01
        ),
        lambda x, w, b: functional.batch_norm(x, their_mean, their_var, w, b, training, 0.3, 0.01),
        arrays,
        seed,
    )
    same(mean, their_mean)
    same(var, their_var)


def doubled(module):
    for _, member in [m for one in module.modules() for m in one.named_members()]:
        if isinstance(member, Tensor) and member.dtype == np.float32:
            member.data = member.data.astype(np.float64)
    return module


def loaded(ours, theirs):
    """`ours` in float64 with the state of `theirs`."""
    doubled(ours).load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    return ours


@pytest.mark.parametrize("momentum", [0.1, None])
def test_the_layer_follows_pytorchs_through_training_and_use(momentum):
    rng = np.random.default_rng(0)
    theirs = torch.nn.BatchNorm2d(3, momentum=momentum, dtype=torch.float64)
    ours = loaded(BatchNorm2d(3, momentum=momentum), theirs)
    for training in (True, True, False, True):
        theirs.train(training)
        ours.train(training)
        x = rng.normal(size=(4, 3, 5, 5)) * 3 + 1
        same(ours(Tensor(x)).data, theirs(torch.tensor(x)))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, array in theirs.state_dict().items():
        same(ours.state_dict()[name], array)


LAYERS = {
    "conv": (
        lambda: Conv2d(4, 6, (3, 2), 2, (1, 0), (1, 2), 2, rng=np.random.default_rng(0)),
        lambda: torch.nn.Conv2d(4, 6, (3, 2), 2, (1, 0), (1, 2), 2, dtype=torch.float64),
    ),
    "max": (lambda: MaxPool2d(3, 2, 1), lambda: torch.nn.MaxPool2d(3, 2, 1)),
    "avg": (lambda: AvgPool2d(2), lambda: torch.nn.AvgPool2d(2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layers_arguments_are_pytorchs(name):
    ours, theirs = (make() for make in LAYERS[name])
    loaded(ours, theirs)
    x = np.random.default_rng(0).normal(size=(2, 4, 7, 8))
    same(ours(Tensor(x)).data, theirs(torch.tensor(x)))


nn = torch.nn


def conv_norm(i, o, k=3, s=1):
    return [nn.Conv2d(i, o, k, s, k // 2, bias=False), nn.BatchNorm2d(o)]


class Block(nn.Module):
    def __init__(self, i, o, s=1):
        super().__init__()
        self.main = nn.Sequential(*conv_norm(i, o, 3, s), nn.ReLU(), *conv_norm(o, o))
        self.shortcut = nn.Sequential(*conv_norm(i, o, 1, s)) if s != 1 or i != o else None

    def forward(self, x):
        return torch.relu(self.main(x) + (x if self.shortcut is None else self.shortcut(x)))


def vgg():
    layers, i = [], 3
    for o in (8, 16, 32):
        layers += [*conv_norm(i, o), nn.ReLU(), *conv_norm(o, o), nn.ReLU()]
        layers += [nn.MaxPool2d(2) if o < 32 else nn.AdaptiveAvgPool2d(1)]
        i = o
    return nn.Sequential(*layers, nn.Linear(32, 10))


def without_flatten(net):
    """PyTorch's global pooling leaves two axes of length 1."""
    net.insert(len(net) - 1, nn.Flatten())
    return net


NETWORKS = {
    "LeNet": (
        lambda rng: LeNet(rng=rng),
        lambda: nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(),
            nn.Linear(84, 10),
        ),
        (4, 1, 28, 28),
    ),
    "SmallVGG": (lambda rng: SmallVGG(width=8, rng=rng), vgg, (4, 3, 12, 12)),
    "ResidualBlock": (lambda rng: ResidualBlock(3, 5, 2, rng=rng), lambda: Block(3, 5, 2), (4, 3, 9, 9)),
    "SmallResNet": (
        lambda rng: SmallResNet(width=4, rng=rng),
        lambda: nn.Sequential(
            *conv_norm(3, 4), nn.ReLU(), Block(4, 4), Block(4, 8, 2), Block(8, 16, 2),
            nn.AdaptiveAvgPool2d(1), nn.Linear(16, 10),
        ),
        (4, 3, 12, 12),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_networks_output_and_gradients_are_pytorchs(name):
    """Weights go over by name, outputs and all gradients come out the same, trained and used; flops, too."""
    from torch.utils.flop_counter import FlopCounterMode

    make, make_theirs, shape = NETWORKS[name]
    torch.manual_seed(0)
    theirs = make_theirs().double()
    ours = loaded(make(np.random.default_rng(0)), theirs)
    names = [n for n, _ in ours.named_parameters()]
    assert names == [n for n, _ in theirs.named_parameters()]
    if any(isinstance(layer, nn.AdaptiveAvgPool2d) for layer in theirs.children()):
        without_flatten(theirs)
    x = np.random.default_rng(1).normal(size=shape)
    out, expected = ours(Tensor(x)), theirs(torch.tensor(x))
    same(out.data, expected)
    cotangent = np.random.default_rng(2).normal(size=out.shape)
    out.backward(cotangent)
    expected.backward(torch.tensor(cotangent))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(mine.grad, other.grad.numpy(), rtol=1e-9, atol=1e-9)
    with no_grad(), torch.no_grad():
        same(ours.eval()(Tensor(x)).data, theirs.eval()(torch.tensor(x)))
        with FlopCounterMode(display=False) as counter:
            theirs(torch.tensor(x))
    assert sum(row[4] for row in summary(ours, Tensor(x))) == counter.get_total_flops()
