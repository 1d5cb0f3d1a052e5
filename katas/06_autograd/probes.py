"""What kata 06 measures: what a graph costs, what a checkpoint saves and costs, forward against backward."""

import math

import numpy as np

from dojo.measuring import Probe
from tinytorch.autograd import backward, checkpoint_sequential, jvp
from tinytorch.tensor import Tensor

SIZE = 1 << 12  # elements of each activation: 16 KiB in float32
F32 = 4  # bytes


def chain_input(n, rng):
    return Tensor(rng.random(SIZE, np.float32), requires_grad=True), n


def layer(x):
    """One that keeps its result: x exp(-x), nearly."""
    return (x * -0.1).exp()


def forward(x, n):
    for _ in range(n):
        x = layer(x)
    return x


def there_and_back(x, n):
    backward(forward(x, n).sum())


def in_segments(x, n):
    backward(checkpoint_sequential([layer] * n, math.isqrt(n), x).sum())


def pushed_forward(x, n):
    return jvp(lambda x: forward(x, n), [x.data], [np.ones_like(x.data)])


def small_chain(n, rng):
    return Tensor(np.ones(4, np.float32), requires_grad=True), n


def add_up(x, n):
    h = x
    for _ in range(n):
        h = h + x
    return h


def add_up_and_back(x, n):
    backward(add_up(x, n).sum())


def one_number(n, rng):
    """n parameters, and a function from them to one number."""
    return (rng.random(n, np.float32),)


def all_slopes_backward(x):
    leaf = Tensor(x, requires_grad=True)
    backward((leaf * leaf).exp().mean())
    return leaf.grad


def all_slopes_forward(x):
    """One pass for each parameter."""
    along = np.eye(len(x), dtype=np.float32)
    return np.array([jvp(lambda x: (x * x).exp().mean(), [x], [u])[1] for u in along])


def torch_there_and_back(x, n):
    h = x = x.detach().requires_grad_()
    for _ in range(n):
        h = (h * -0.1).exp()
    h.sum().backward()


def torch_add_up_and_back(x, n):
    h = x = x.detach().requires_grad_()
    for _ in range(n):
        h = h + x
    h.sum().backward()


def torch_all_slopes(x):
    x = x.detach().requires_grad_()
    (x * x).exp().mean().backward()
    return x.grad


PROBES = (
    Probe(
        "n layers of 16 KiB, forward",
        (16, 32, 64, 128),
        prepare=chain_input,
        call=forward,
        time=1,
        memory=1,
    ),
    Probe(
        "n layers of 16 KiB, there and back",
        (16, 32, 64, 128),
        prepare=chain_input,
        call=there_and_back,
        time=1,
        memory=1,
        torch=torch_there_and_back,
    ),
    Probe(
        "n layers of 16 KiB in √n segments, there and back",
        (16, 36, 64, 144),
        prepare=chain_input,
        call=in_segments,
        time=1,
        memory=0.5,
    ),
    Probe(
        "n layers of 16 KiB, forward mode",
        (16, 32, 64, 128),
        prepare=chain_input,
        call=pushed_forward,
        time=1,
        memory=0,
    ),
    Probe(
        "n additions of 4 elements, there and back",
        (250, 500, 1000, 2000),
        prepare=small_chain,
        call=add_up_and_back,
        time=1,
        memory=1,
        torch=torch_add_up_and_back,
    ),
    Probe(
        "all slopes of n parameters, backward",
        (64, 128, 256, 512),
        prepare=one_number,
        call=all_slopes_backward,
        time=0,
        torch=torch_all_slopes,
    ),
    Probe(
        "all slopes of n parameters, forward mode",
        (64, 128, 256, 512),
        prepare=one_number,
        call=all_slopes_forward,
        time=1,
    ),
)
