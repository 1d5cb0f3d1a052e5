"""Level 4: one product of matrices for all rows.

Ratios within this run, in CPU time, never seconds. Each budget has a twin: a naive version, written out
here, that must not fit.
"""

import numpy as np
import pytest

from dojo.measuring import Budget, race
from tinytorch.layers import Linear, Module, affine, descend, summary
from tinytorch.tensor import Tensor

PRODUCT = Budget(
    "affine of 256 rows",
    limit=1.8,
    reference=1.05,
    naive=6,  # 2.4 where products are slow, 10 where they are fast
    unit="times the time of one matrix product",
    naively="a version that goes row by row",
)
LEADING = Budget(
    "affine of (4096, 2, 16)",
    limit=2.4,
    reference=1.1,
    naive=5.8,  # 2.9 where products are slow, 11 where they are fast
    unit="times the time of one matrix product",
    naively="a version that multiplies each pair of rows by itself",
)
BACK = Budget(
    "the gradients for 256 rows",
    limit=2,
    reference=1.25,
    naive=14,
    unit="times the time of there and back in plain numpy",
    naively="a version that adds up the outer product of each row",
)
DESCEND = Budget(
    "a step of gradient descent over 256 rows",
    limit=5,
    reference=1.8,
    naive=21,
    unit="times the time of the same step in plain numpy",
    naively="a version that goes row by row",
)
WALK = Budget(
    "the parameters of 512 layers",
    limit=18,
    reference=8,
    naive=53,
    unit="times the time of those of 64 layers",
    naively="a version that compares each parameter with all before it",
)
ONE_WALK = Budget(
    "a state loaded into 16 layers, or the summary of 64",
    limit=18,
    reference=7,
    naive=48,
    unit="times the time of an eighth of the layers",
    naively="a version that walks over the tree for every name or row",
)


def random(rng, *shape):
    return rng.random(shape, np.float32)


def one_product(x, weight):
    return x.reshape(-1, x.shape[-1]) @ weight.T


# There.


def many_rows(rng):
    return random(rng, 256, 128), random(rng, 128, 128)


def test_all_rows_are_multiplied_at_once(rng):
    PRODUCT.check(
        race(
            lambda x, weight: affine(x, weight),
            one_product,
            limit=PRODUCT.limit,
            inputs=lambda: many_rows(rng),
        )
    )


def test_the_twin_that_goes_row_by_row_is_caught(rng):
    slow = race(
        lambda x, weight: np.stack([weight @ row for row in x]),
        one_product,
        limit=PRODUCT.limit,
        inputs=lambda: many_rows(rng),
    )
    PRODUCT.catches(slow)


def pairs(rng):
    return random(rng, 4096, 2, 16), random(rng, 16, 16)


def test_leading_axes_are_no_reason_to_read_the_weights_again(rng):
    """np.matmul of three axes by two calls BLAS once for each matrix of the first."""
    LEADING.check(
        race(lambda x, weight: affine(x, weight), one_product, limit=LEADING.limit, inputs=lambda: pairs(rng))
    )


def test_the_twin_that_multiplies_pair_by_pair_is_caught(rng):
    LEADING.catches(
        race(lambda x, weight: x @ weight.T, one_product, limit=LEADING.limit, inputs=lambda: pairs(rng))
    )


# And back.


def two_products(grad, x, weight):
    rows = grad.reshape(-1, grad.shape[-1])
    return rows @ weight, rows.T @ x.reshape(-1, x.shape[-1]), rows.sum(axis=0)


def by_the_rule(grad, x, weight):
    return affine.vjp(x, weight, weight[:, 0])[1](grad)


@pytest.mark.parametrize("leading", [(256,), (128, 2)])
def test_the_gradient_of_the_weights_is_one_product_too(leading, rng):
    def forward_too(grad, x, weight):  # since vjp goes there before it comes back
        one_product(x, weight)
        return two_products(grad, x, weight)

    BACK.check(
        race(
            by_the_rule,
            forward_too,
            limit=BACK.limit,
            inputs=lambda: (random(rng, *leading, 128), random(rng, *leading, 128), random(rng, 128, 128)),
        )
    )


def test_the_twin_that_adds_up_outer_products_is_caught(rng):
    def outer_products(grad, x, weight):
        return grad @ weight, sum(np.outer(g, row) for g, row in zip(grad, x, strict=True)), grad.sum(axis=0)

    BACK.catches(
        race(
            outer_products,
            two_products,
            limit=BACK.limit,
            inputs=lambda: (random(rng, 256, 128), random(rng, 256, 128), random(rng, 128, 128)),
        )
    )


# A step.


def data(rng):
    layer = Linear(64, 64, rng=rng)
    return layer, random(rng, 256, 64), random(rng, 256, 64)


def in_plain_numpy(layer, x, y):
    weight, bias = layer.weight.data, layer.bias.data
    off = x @ weight.T + bias - y
    grad = 2 / off.size * off
    weight -= 0.1 * (grad.T @ x)
    bias -= 0.1 * grad.sum(axis=0)
    return float((off * off).mean())


def test_a_step_is_three_products_or_fewer(rng):
    DESCEND.check(
        race(
            lambda layer, x, y: descend(layer, x, y, 0.1),
            in_plain_numpy,
            limit=DESCEND.limit,
            inputs=lambda: data(rng),
        )
    )


def test_the_twin_that_steps_row_by_row_is_caught(rng):
    def row_by_row(layer, x, y):
        weight, bias = layer.weight.data, layer.bias.data
        moves, shifts = np.zeros_like(weight), np.zeros_like(bias)
        for one, target in zip(x, y, strict=True):
            grad = 2 / y.size * (weight @ one + bias - target)
            moves += np.outer(grad, one)
            shifts += grad
        weight -= 0.1 * moves
        bias -= 0.1 * shifts

    DESCEND.catches(race(row_by_row, in_plain_numpy, limit=DESCEND.limit, inputs=lambda: data(rng)))


# A walk over all modules.


def net_of(count, rng):
    net = Module()
    net.blocks = [[Linear(1, 1, rng=rng) for _ in range(8)] for _ in range(count // 8)]
    return net


def test_a_walk_over_the_parameters_takes_as_long_as_there_are_parameters(rng):
    large, small = net_of(512, rng), net_of(64, rng)
    WALK.check(race(lambda: list(large.parameters()), lambda: list(small.parameters()), limit=WALK.limit))
    WALK.check(race(large.state_dict, small.state_dict, limit=WALK.limit))


def test_the_twin_that_compares_each_with_all_is_caught():
    def walk(parameters):
        seen = []
        for p in parameters:
            if not any(p is q for q in seen):
                seen.append(p)
        return seen

    large, small = [object() for _ in range(1024)], [object() for _ in range(128)]
    WALK.catches(race(lambda: walk(large), lambda: walk(small), limit=WALK.limit))


def chain_of(count, rng):
    net = Module()
    net.layers = [Linear(1, 1, rng=rng) for _ in range(count)]
    net.forward = lambda x: [layer(x) for layer in net.layers]
    return net, {name: array + 1 for name, array in net.state_dict().items()}


def test_who_loads_a_state_walks_once_and_not_for_every_name(rng):
    (large, state), (small, part) = chain_of(16, rng), chain_of(2, rng)
    ONE_WALK.check(
        race(lambda: large.load_state_dict(state), lambda: small.load_state_dict(part), limit=ONE_WALK.limit)
    )


def test_who_sums_up_walks_once_and_not_for_every_row(rng):
    (large, _), (small, _), x = chain_of(64, rng), chain_of(8, rng), Tensor(random(rng, 1))
    ONE_WALK.check(race(lambda: summary(large, x), lambda: summary(small, x), limit=ONE_WALK.limit))


def test_the_twin_that_walks_for_every_name_is_caught():
    def load(members):
        return [dict(members)[name] for name, _ in members]

    large, small = ([(str(i), object()) for i in range(count)] for count in (1024, 128))
    ONE_WALK.catches(race(lambda: load(large), lambda: load(small), limit=ONE_WALK.limit))
