"""Kata 03: `affine`, its gradients and `Linear` are PyTorch's, in float64 to the tenth digit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch.layers import Linear, Module, affine, count_parameters, descend, summary
from tinytorch.tensor import Tensor

torch = pytest.importorskip("torch")

SIDES = st.integers(0, 5)
SEEDS = st.integers(0, 2**16)


def same(got, expected):
    expected = expected.detach().numpy()
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10, strict=True)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(SIDES, max_size=3), SIDES, SIDES, st.booleans(), SEEDS)
def test_affine_and_its_gradients_are_pytorchs(leading, inputs, outputs, has_bias, seed):
    """Over all shapes up to four axes, some without rows or without features."""
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(*leading, inputs)), rng.normal(size=(outputs, inputs))]
    arrays += [rng.normal(size=outputs)] * has_bias
    cotangent = rng.normal(size=(*leading, outputs))
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]

    out, back = affine.vjp(*arrays)
    expected = torch.nn.functional.linear(*theirs)
    expected.backward(torch.tensor(cotangent))

    same(out, expected)
    for grad, tensor in zip(back(cotangent), theirs, strict=False):
        same(grad, tensor.grad)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(SIDES, max_size=2), SIDES, SIDES, st.booleans(), SEEDS)
def test_a_state_goes_from_one_linear_to_the_other(leading, inputs, outputs, has_bias, seed):
    rng = np.random.default_rng(seed)
    ours = Linear(inputs, outputs, has_bias, rng=rng)
    for parameter in ours.parameters():
        parameter.data = parameter.data.astype(np.float64)
    with torch.no_grad():
        theirs = torch.nn.Linear(inputs, outputs, has_bias, dtype=torch.float64)
    ours.load_state_dict({name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
    x = rng.normal(size=(*leading, inputs))
    same(ours(Tensor(x)).data, theirs(torch.tensor(x)))


def test_descent_takes_the_steps_of_sgd():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 2))
    ours, theirs = Linear(3, 2, rng=rng), torch.nn.Linear(3, 2, dtype=torch.float64)
    for parameter, tensor in zip(ours.parameters(), theirs.parameters(), strict=True):
        parameter.data = tensor.detach().numpy().copy()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for _ in range(10):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(theirs(torch.tensor(x)), torch.tensor(y))
        loss.backward()
        optimizer.step()
        assert descend(ours, x, y, 0.1) == pytest.approx(loss.item(), rel=1e-10)
    for parameter, tensor in zip(ours.parameters(), theirs.parameters(), strict=True):
        same(parameter.data, tensor)


class Net(Module):
    """Parameters of its own, set last; a layer that is there twice."""

    def __init__(self, rng):
        self.first, self.second = Linear(3, 4, rng=rng), Linear(4, 4, bias=False, rng=rng)
        self.again = self.second
        self.last = Linear(4, 2, rng=rng)

    def forward(self, x):
        return self.last(self.again(self.second(self.first(x))))


def pytorchs_net():
    net = torch.nn.Module()
    net.first, net.second = torch.nn.Linear(3, 4), torch.nn.Linear(4, 4, bias=False)
    net.again = net.second
    net.last = torch.nn.Linear(4, 2)
    net.forward = lambda x: net.last(net.again(net.second(net.first(x))))
    return net


def test_names_order_and_count_of_parameters_are_pytorchs():
    ours, theirs = Net(np.random.default_rng(0)), pytorchs_net()
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert count_parameters(ours) == sum(p.numel() for p in theirs.parameters())


def test_flops_are_those_of_pytorchs_counter():
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        pytorchs_net()(torch.ones(7, 5, 3))
    rows = summary(Net(np.random.default_rng(0)), Tensor(np.ones((7, 5, 3), np.float32)))
    assert sum(row[4] for row in rows) == counter.get_total_flops()
