"""What kata 08 measures: a step of each rule by the number of parameters and of tensors, and clipping."""

import numpy as np

from dojo.measuring import Probe
from tinytorch.layers import Parameter
from tinytorch.optimizers import SGD, Adam, RMSprop, clip_grad_norm_

NUMBERS = (1 << 14, 1 << 16, 1 << 18, 1 << 20)
TENSORS = (32, 64, 128, 256)
F32 = 4  # bytes


def tensors(count, size, rng):
    """Parameters of `size` numbers each, with gradients."""
    made = [Parameter(rng.random(size, np.float32)) for _ in range(count)]
    for p in made:
        p.grad = rng.random(size, np.float32)
    return made


def stepped(rule, parameters, **options):
    """An optimizer that has everything it needs: one step is behind it."""
    optimizer = rule(parameters, lr=1e-3, **options)
    optimizer.step()
    return (optimizer,)


def textbook(n, rng):
    data, grad = rng.random(n, np.float32), rng.random(n, np.float32)
    return data, grad, np.zeros_like(data), np.zeros_like(data)


def textbook_adam(data, grad, mean, square):
    """The formulas of the paper as one would write them down: an array for each operation."""
    mean = 0.9 * mean + 0.1 * grad
    square = 0.999 * square + 0.001 * grad**2
    return data - 1e-3 * (mean / 0.1) / (np.sqrt(square / 0.001) + 1e-8), mean, square


def step(optimizer):
    optimizer.step()


# Flops and bytes of one pass over all arrays: each is read once and, if it changes, written once.
PROBES = (
    Probe(
        "SGD, n numbers",
        NUMBERS,
        prepare=lambda n, rng: stepped(SGD, tensors(1, n, rng)),
        call=step,
        time=1,
        memory=0,
        flops=lambda n: 2 * n,
        moved=lambda n: 3 * F32 * n,
    ),
    Probe(
        "SGD with momentum, n numbers",
        NUMBERS,
        prepare=lambda n, rng: stepped(SGD, tensors(1, n, rng), momentum=0.9),
        call=step,
        time=1,
        memory=0,
        flops=lambda n: 4 * n,
        moved=lambda n: 5 * F32 * n,
    ),
    Probe(
        "RMSprop, n numbers",
        NUMBERS,
        prepare=lambda n, rng: stepped(RMSprop, tensors(1, n, rng)),
        call=step,
        time=1,
        memory=0,
        flops=lambda n: 9 * n,
        moved=lambda n: 5 * F32 * n,
    ),
    Probe(
        "Adam, n numbers",
        NUMBERS,
        prepare=lambda n, rng: stepped(Adam, tensors(1, n, rng)),
        call=step,
        time=1,
        memory=0,
        flops=lambda n: 12 * n,
        moved=lambda n: 7 * F32 * n,
    ),
    Probe(
        "Adam by the book, n numbers",
        NUMBERS,
        prepare=textbook,
        call=textbook_adam,
        time=1,
        memory=1,
        flops=lambda n: 14 * n,
        moved=lambda n: 7 * F32 * n,
    ),
    Probe(
        "Adam, n tensors of 16",
        TENSORS,
        prepare=lambda n, rng: stepped(Adam, tensors(n, 16, rng)),
        call=step,
        time=1,  # its memory is Python's, which notes a write for each tensor
        flops=lambda n: 12 * 16 * n,
        moved=lambda n: 7 * 16 * F32 * n,
    ),
    Probe(
        "clip_grad_norm_, n numbers",
        NUMBERS,
        prepare=lambda n, rng: (tensors(1, n, rng),),
        call=lambda parameters: clip_grad_norm_(parameters, 1e-3),
        time=1,
        memory=0,
        flops=lambda n: 3 * n,
        moved=lambda n: 3 * F32 * n,
    ),
)
