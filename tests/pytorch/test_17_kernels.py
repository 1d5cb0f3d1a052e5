"""Kata 17: fused operations, Winograd's convolution and the flat Adam give what PyTorch gives, in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch.activations import ReLU
from tinytorch.autograd import no_grad
from tinytorch.kernels import (
    FusedAdam,
    fast_gelu,
    fuse,
    linear_gelu,
    scale_shift_add_relu,
    softmax_cross_entropy,
    winograd_conv2d,
)
from tinytorch.layers import Parameter
from tinytorch.networks import Sequential
from tinytorch.spatial import BatchNorm2d, Conv2d
from tinytorch.tensor import Tensor

torch = pytest.importorskip("torch")
functional = torch.nn.functional

some = settings(deadline=None, derandomize=True, max_examples=60)
SEEDS = st.integers(0, 2**16)
SIZES = st.integers(1, 9)


def same(got, expected, tolerance=1e-10):
    np.testing.assert_allclose(got, expected.detach().numpy(), rtol=tolerance, atol=tolerance)


def compare(op, theirs, arrays, seed, others=()):
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    out, back = op.vjp(*arrays, *others)
    expected = theirs(*tensors)
    same(out, expected)
    cotangent = np.random.default_rng(seed).normal(size=out.shape)
    expected.backward(torch.tensor(cotangent))
    for grad, tensor in zip(back(np.asarray(cotangent)), tensors, strict=False):
        same(grad, tensor.grad)


def test_gelu():
    x = np.linspace(-12, 12, 100_001)
    same(fast_gelu(x), functional.gelu(torch.tensor(x), approximate="tanh"))


@some
@given(SIZES, SIZES, SEEDS)
def test_scale_shift_add_relu(rows, columns, seed):
    arrays = np.random.default_rng(seed).normal(size=(4, rows, columns))
    compare(scale_shift_add_relu, lambda x, a, b, y: torch.relu(x * a + b + y), list(arrays), seed)


@some
@given(SIZES, SIZES, SIZES, SEEDS)
def test_linear_gelu(rows, inputs, outputs, seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(rows, inputs)), rng.normal(size=(outputs, inputs)), rng.normal(size=outputs)]
    compare(linear_gelu, lambda *a: functional.gelu(functional.linear(*a), approximate="tanh"), arrays, seed)


@some
@given(SIZES, SIZES, SEEDS)
def test_softmax_cross_entropy(rows, classes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    compare(
        softmax_cross_entropy,
        lambda x: functional.cross_entropy(x, torch.tensor(labels)),
        [rng.normal(size=(rows, classes)) * 5],
        seed,
        [labels],
    )


@some
@given(st.integers(1, 3), SIZES, SIZES, st.integers(1, 20), st.integers(1, 20), SEEDS)
def test_winograd_conv2d(n, inputs, outputs, height, width, seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(n, inputs, height, width)), rng.normal(size=(outputs, inputs, 3, 3))]
    compare(winograd_conv2d, lambda x, w: functional.conv2d(x, w, padding=1), arrays, seed)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam(decoupled, decay):
    rng = np.random.default_rng(0)
    mine = [Parameter(rng.normal(size=shape)) for shape in [(3, 4), (70_000,), (5,), ()]]
    theirs = [torch.nn.Parameter(torch.tensor(p.data)) for p in mine]
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    options = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": decay}
    optimizer, other = FusedAdam(mine, **options, decoupled=decoupled), kind(theirs, **options)
    for step in range(20):
        for i, (p, q) in enumerate(zip(mine, theirs, strict=True)):
            p.grad = None if (step + i) % 5 == 0 else rng.normal(size=p.shape)
            q.grad = None if p.grad is None else torch.tensor(p.grad)
        optimizer.step()
        other.step()
    for p, q in zip(mine, theirs, strict=True):
        same(p.data, q)


def test_a_folded_convolution():
    rng = np.random.default_rng(0)
    net = Sequential(Conv2d(3, 5, 3, stride=2, padding=1, rng=rng), BatchNorm2d(5), ReLU())
    x = rng.standard_normal((4, 3, 9, 9), np.float32)
    net(Tensor(x))
    other = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, stride=2, padding=1), torch.nn.BatchNorm2d(5))
    state = {name: torch.tensor(array) for name, array in net.state_dict().items()}
    other.load_state_dict(state)
    folded = torch.nn.utils.fusion.fuse_conv_bn_eval(*other.eval())
    with no_grad():
        same(fuse(net.eval())(Tensor(x)).data, torch.relu(folded(torch.tensor(x))), 1e-5)
