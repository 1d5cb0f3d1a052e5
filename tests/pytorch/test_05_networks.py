"""Kata 05: gains, fans, draws and gradients down the tape are PyTorch's; in float64 to the tenth digit."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import networks
from tinytorch.activations import GELU, LeakyReLU, ReLU, Sigmoid, Tanh
from tinytorch.networks import MLP, Tape, calculate_gain, fans, load, loss_and_gradient, save, train_step
from tinytorch.tensor import Tensor

torch = pytest.importorskip("torch")

SEEDS = st.integers(0, 2**16)
ACTIVATIONS = {
    ReLU: torch.nn.ReLU,
    LeakyReLU: torch.nn.LeakyReLU,
    Tanh: torch.nn.Tanh,
    Sigmoid: torch.nn.Sigmoid,
    GELU: lambda: torch.nn.GELU(approximate="tanh"),
}


def same(got, expected):
    np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-10, atol=1e-10, strict=True)


def both(sizes, activation, seed):
    """The same network twice, in float64: ours and PyTorch's, which has the names of our parameters."""
    rng = np.random.default_rng(seed)
    ours = MLP(sizes, activation, rng=rng)
    rows = []
    for inputs, outputs in itertools.pairwise(sizes):
        rows += [torch.nn.Linear(inputs, outputs), ACTIVATIONS[activation]()]
    theirs = torch.nn.Sequential(*rows[:-1]).double()
    for parameter in ours.parameters():
        parameter.data = rng.normal(size=parameter.shape)
    theirs.load_state_dict({name: torch.tensor(array) for name, array in ours.state_dict().items()})
    return ours, theirs, rng


NONLINEARITIES = ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
@pytest.mark.parametrize("param", [None, 0, 0.2, 1])
def test_gains_are_pytorchs(nonlinearity, param):
    assert calculate_gain(nonlinearity, param) == pytest.approx(
        torch.nn.init.calculate_gain(nonlinearity, param), rel=1e-15
    )


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=5))
def test_fans_are_pytorchs(shape):
    expected = torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
    assert fans(tuple(shape)) == expected


DRAWS = [
    ("xavier_uniform_", {}),
    ("xavier_normal_", {"gain": 2.0}),
    ("kaiming_uniform_", {"a": math.sqrt(5)}),
    ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "relu"}),
    ("orthogonal_", {"gain": 0.5}),
]


@pytest.mark.parametrize(("name", "options"), DRAWS, ids=[name for name, _ in DRAWS])
@pytest.mark.parametrize("shape", [(200, 300), (50, 20, 3, 3)])
def test_draws_are_distributed_as_pytorchs(name, options, shape):
    """Two samples of 9,000 numbers at least: moments and extremes agree to six sigmas."""
    torch.manual_seed(0)
    ours = getattr(networks, name)(Tensor(np.zeros(shape)), **options, rng=np.random.default_rng(0)).data
    theirs = getattr(torch.nn.init, name)(torch.empty(shape, dtype=torch.float64), **options).numpy()
    std, n = theirs.std(), ours.size
    assert abs(ours.mean() - theirs.mean()) <= 6 * std * math.sqrt(2 / n)
    assert abs(ours.std() / std - 1) <= 6 * math.sqrt(1 / n)
    assert abs((ours**4).mean() - (theirs**4).mean()) / std**4 <= 6 * math.sqrt(2 * 96 / n)
    if "uniform" in name:
        assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=30 / n)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=5),
    st.sampled_from(sorted(ACTIVATIONS, key=lambda kind: kind.__name__)),
    st.integers(0, 5),
    SEEDS,
)
def test_gradients_down_the_tape_are_pytorchs(sizes, activation, rows, seed):
    ours, theirs, rng = both(sizes, activation, seed)
    x, cotangent = rng.normal(size=(rows, sizes[0])), rng.normal(size=(rows, sizes[-1]))

    with Tape() as tape:
        out = ours(Tensor(x, requires_grad=True))
    first = tape.walk_back(cotangent)

    leaf = torch.tensor(x, requires_grad=True)
    expected = theirs(leaf)
    expected.backward(torch.tensor(cotangent))
    same(out.data, expected)
    same(first, leaf.grad)
    for (name, parameter), (their_name, their) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert name == their_name
        same(parameter.grad, their.grad)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.integers(1, 8), st.integers(1, 6), SEEDS)
def test_the_loss_and_its_gradient_are_pytorchs(rows, classes, seed):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(scale=30, size=(rows, classes)), rng.integers(0, classes, rows)
    theirs = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(theirs, torch.tensor(labels))
    expected.backward()
    loss, grad = loss_and_gradient(logits, labels)
    assert loss == pytest.approx(expected.item(), rel=1e-10, abs=1e-12)
    same(grad, theirs.grad)


@pytest.mark.parametrize("activation", [ReLU, Tanh])
def test_twenty_training_steps_take_the_same_path(activation):
    ours, theirs, rng = both([5, 16, 8, 3], activation, 0)
    x, labels = rng.normal(size=(40, 5)), rng.integers(0, 3, 40)
    descent = torch.optim.SGD(theirs.parameters(), lr=0.05)
    for _ in range(20):
        loss = train_step(ours, Tensor(x), labels, 0.05)
        descent.zero_grad()
        expected = torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(labels))
        expected.backward()
        descent.step()
        assert loss == pytest.approx(expected.item(), rel=1e-8)
    for mine, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(mine.data, their.detach().numpy(), rtol=1e-8, atol=1e-8)


def test_weights_travel_to_pytorch_and_back(tmp_path):
    ours, theirs, rng = both([4, 6, 2], Tanh, 0)
    save(ours, tmp_path / "ours.npz")
    with np.load(tmp_path / "ours.npz", allow_pickle=False) as file:
        theirs.load_state_dict({name: torch.tensor(file[name]) for name in file.files})
    np.savez(tmp_path / "theirs.npz", **{name: t.numpy() for name, t in theirs.state_dict().items()})
    fresh = MLP([4, 6, 2], Tanh, rng=rng)
    load(fresh, tmp_path / "theirs.npz")
    x = rng.normal(size=(3, 4))
    np.testing.assert_allclose(
        fresh(Tensor(x)).data, theirs(torch.tensor(x)).detach().numpy(), rtol=1e-4, atol=1e-5
    )
