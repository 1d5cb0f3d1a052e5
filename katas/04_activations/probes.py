"""What kata 04 measures: curves there and back, a whole row at a time, in place, and by chance."""

import numpy as np

from dojo.measuring import Probe
from tinytorch.activations import dropout, gelu, relu, relu_, sigmoid, softmax
from tinytorch.tensor import Tensor

# Rows whose length is no multiple of 4 KiB, so that arrays do not get in each other's way in the cache.
SIDES = (250, 500, 1000, 2000)
F32 = 4  # bytes


def square(n, rng):
    return (Tensor(rng.standard_normal((n, n), np.float32)),)


def way_back(op):
    def prepare(n, rng):
        x, grad = (rng.standard_normal((n, n), np.float32) for _ in range(2))
        return op.vjp(x)[1], grad

    return prepare


def torchs(name, *args, **params):
    return lambda x: getattr(__import__("torch").nn.functional, name)(x, *args, **params)


PROBES = (
    Probe(
        "relu of (n, n)",
        SIDES,
        prepare=square,
        call=lambda x: relu(x),
        time=2,
        memory=2,
        flops=lambda n: n * n,
        moved=lambda n: 2 * F32 * n * n,
        torch=torchs("relu"),
    ),
    Probe(
        "relu back",
        SIDES,
        prepare=way_back(relu),
        call=lambda back, grad: back(grad),
        time=2,
        memory=2,
        flops=lambda n: 2 * n * n,
        moved=lambda n: 3 * F32 * n * n,
    ),
    Probe(
        "relu_ of (n, n), in place",
        SIDES,
        prepare=square,
        call=lambda x: relu_(x),
        time=2,
        memory=0,
        flops=lambda n: n * n,
        moved=lambda n: 2 * F32 * n * n,
        torch=lambda x: x.relu_(),
    ),
    Probe(
        "sigmoid of (n, n)",
        SIDES,
        prepare=square,
        call=lambda x: sigmoid(x),
        time=2,
        memory=2,
        moved=lambda n: 2 * F32 * n * n,
        torch=torchs("sigmoid"),
    ),
    Probe(
        "gelu of (n, n)",
        SIDES,
        prepare=square,
        call=lambda x: gelu(x),
        time=2,
        memory=2,
        moved=lambda n: 2 * F32 * n * n,
        torch=torchs("gelu", approximate="tanh"),
    ),
    Probe(
        "gelu back",
        SIDES,
        prepare=way_back(gelu),
        call=lambda back, grad: back(grad),
        time=2,
        memory=2,
        moved=lambda n: 3 * F32 * n * n,
    ),
    Probe(
        "softmax of (n, n)",
        SIDES,
        prepare=square,
        call=lambda x: softmax(x),
        time=2,
        memory=2,
        moved=lambda n: 2 * F32 * n * n,
        torch=torchs("softmax", dim=-1),
    ),
    Probe(
        "softmax back",
        SIDES,
        prepare=way_back(softmax),
        call=lambda back, grad: back(grad),
        time=2,
        memory=2,
        flops=lambda n: 4 * n * n,
        moved=lambda n: 3 * F32 * n * n,
    ),
    Probe(
        "dropout of (n, n)",
        SIDES,
        prepare=lambda n, rng: (*square(n, rng), rng),
        call=lambda x, rng: dropout(x, rng=rng),
        time=2,
        memory=2,
        moved=lambda n: 2 * F32 * n * n,
        torch=lambda x, rng: __import__("torch").nn.functional.dropout(x),
    ),
)
