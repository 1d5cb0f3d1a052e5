"""Level 1: an Adam that has all parameters in one array, and moves them as kata 08's does."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect, expect_error
from tinytorch.kernels import CHUNK, FusedAdam
from tinytorch.layers import Linear, Parameter
from tinytorch.optimizers import Adam, AdamW, LRScheduler
from tinytorch.tensor import version

steady = settings(deadline=None, derandomize=True, max_examples=40)
SEEDS = st.integers(0, 2**32 - 1)


def f32(*values):
    return np.array(values, np.float32)


class Slow:
    """Adam of one parameter by its definition, in float64, remembering nothing in a clever way."""

    def __init__(self, data, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
        self.data = data.astype(np.float64)
        self.mean = self.square = np.zeros(data.shape)
        self.count, self.lr, self.betas, self.eps = 0, lr, betas, eps
        self.decay, self.decoupled = weight_decay, decoupled

    def step(self, grad):
        if grad is None:
            return
        grad = grad.astype(np.float64)
        if self.decoupled:
            self.data = self.data - self.lr * self.decay * self.data
        else:
            grad = grad + self.decay * self.data
        self.count += 1
        one, two = self.betas
        self.mean = one * self.mean + (1 - one) * grad
        self.square = two * self.square + (1 - two) * grad**2
        mean, square = self.mean / (1 - one**self.count), self.square / (1 - two**self.count)
        self.data = self.data - self.lr * mean / (np.sqrt(square) + self.eps)


def parameters(rng, *shapes, dtype=np.float64):
    return [Parameter(rng.normal(size=shape).astype(dtype)) for shape in shapes]


def together(params, optimizer, slow, steps, rng, missing=0.0):
    """Steps of both with the same gradients, some of which are missing; then parameters and state agree."""
    for _ in range(steps):
        for p, one in zip(params, slow, strict=True):
            p.grad = None if rng.random() < missing else rng.normal(size=p.shape).astype(p.dtype)
            kept = None if p.grad is None else p.grad.copy()
            one.step(p.grad)
            one.kept = kept
        optimizer.step()
        for p, one in zip(params, slow, strict=True):
            if p.grad is not None:
                expect(p.grad, one.kept, rtol=0, atol=0)
    for p, one in zip(params, slow, strict=True):
        rtol = 1e-9 if p.dtype == np.float64 else 1e-4
        expect(p.data, one.data.astype(p.dtype), rtol=rtol)
        if one.count:
            expect(optimizer.state[p]["exp_avg"], one.mean.astype(p.dtype), rtol=rtol)
            expect(optimizer.state[p]["exp_avg_sq"], one.square.astype(p.dtype), rtol=rtol)


# 17.13 FusedAdam: steps


def test_two_steps_by_hand():
    """The first is lr whatever the gradient. After gradients 3 and 1, the means are 1.2 / 1.5 ... by halves.

    With both betas 0.5: mean 0.5 * 1.5 + 0.5 = 1.25, divided by 0.75, 1.6667; square 0.5 * 4.5 + 0.5 = 2.75,
    divided by 0.75, 3.6667, whose root is 1.9149. The second step is lr * 0.87038.
    """
    p = Parameter(np.array([10.0]))
    optimizer = FusedAdam([p], lr=1.0, betas=(0.5, 0.5), eps=0.0)
    p.grad = np.array([3.0])
    optimizer.step()
    expect(p.data, np.array([9.0]))
    p.grad = np.array([1.0])
    optimizer.step()
    expect(p.data, np.array([9 - (5 / 3) / math.sqrt(11 / 3)]))


@steady
@given(
    st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.1]),
    st.booleans(),
    st.sampled_from([0.0, 0.0, 0.3]),
    SEEDS,
)
def test_every_step_is_that_of_the_definition(shapes, decay, decoupled, missing, seed):
    rng = np.random.default_rng(seed)
    options = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": decay, "decoupled": decoupled}
    params = parameters(rng, *shapes)
    slow = [Slow(p.data, **options) for p in params]
    together(params, FusedAdam(params, **options), slow, 5, rng, missing)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_longer_and_shorter_than_a_piece_move_alike(dtype, rng):
    shapes = [(3,), (CHUNK + 10,), (300, 300), *[(1000,)] * 70, (2, 2), (CHUNK,), ()]
    params = parameters(rng, *shapes, dtype=dtype)
    slow = [Slow(p.data, lr=0.01) for p in params]
    together(params, FusedAdam(params, lr=0.01), slow, 3, rng)


def test_defaults_are_those_of_kata_08(rng):
    (p,) = parameters(rng, (3,))
    together([p], FusedAdam([p]), [Slow(p.data)], 3, rng)
    options = {**FusedAdam([p]).param_groups[0]}
    del options["params"]
    assert options == {
        "lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "decoupled": False,
    }  # fmt: skip


def test_each_parameter_counts_its_own_steps(rng):
    """One without a gradient stands still, and is corrected for fewer steps afterwards."""
    params = parameters(rng, (2,), (3,), (2,))
    slow = [Slow(p.data, lr=0.1) for p in params]
    optimizer = FusedAdam(params, lr=0.1)
    for step in range(6):
        for i, (p, one) in enumerate(zip(params, slow, strict=True)):
            p.grad = None if (i, step) in {(1, 0), (1, 3), (2, 4), (0, 5)} else rng.normal(size=p.shape)
            one.step(p.grad)
        optimizer.step()
        for p, one in zip(params, slow, strict=True):
            expect(p.data, one.data, rtol=1e-9)


def test_a_frozen_parameter_stays_and_is_not_remembered(rng):
    p, q = parameters(rng, (2,), (2,))
    p.requires_grad = False
    p.grad = q.grad = np.ones(2)
    before = p.data.copy()
    optimizer = FusedAdam([p, q], weight_decay=0.5, decoupled=True)
    optimizer.step()
    expect(p.data, before, rtol=0, atol=0)
    assert p not in optimizer.state
    assert optimizer.state[q]["step"] == 1


def test_groups_have_options_of_their_own_and_may_come_later(rng):
    p, q, r = parameters(rng, (2, 2), (3,), (1,))
    slow = [
        Slow(p.data, lr=0.1),
        Slow(q.data, lr=0.5, weight_decay=0.2),
        Slow(r.data, lr=0.1, decoupled=True),
    ]
    optimizer = FusedAdam([{"params": [p]}, {"params": iter([q]), "lr": 0.5, "weight_decay": 0.2}], lr=0.1)
    optimizer.add_param_group({"params": [r], "decoupled": True})
    together([p, q, r], optimizer, slow, 3, rng)


def test_a_learning_rate_that_changes_is_heard(rng):
    class Halved(LRScheduler):
        def lr_at(self, epoch, base_lr):
            return base_lr * 0.5**epoch

    (p,) = parameters(rng, (4,))
    one, optimizer = Slow(p.data, lr=0.2), FusedAdam([p], lr=0.2)
    schedule = Halved(optimizer)
    for step in range(3):
        p.grad = rng.normal(size=4)
        one.lr = 0.2 * 0.5**step
        one.step(p.grad)
        optimizer.step()
        schedule.step()
    expect(p.data, one.data, rtol=1e-9)


def test_gradients_may_lie_in_any_order_and_have_another_dtype(rng):
    for shape, dtype in (((40, 30), np.float32), ((300, 301), np.float32), ((300, 301), np.float64)):
        for others in ([], [(5,)]):
            params = parameters(rng, shape, *others, dtype=dtype)
            slow = [Slow(p.data, lr=0.1) for p in params]
            optimizer = FusedAdam(params, lr=0.1)
            other = np.float64 if dtype == np.float32 else np.float32
            for grad in (
                rng.normal(size=shape[::-1]).astype(dtype).T,
                rng.normal(size=shape).astype(other),
                rng.normal(size=shape).astype(dtype)[::-1, ::-1],
                np.broadcast_to(dtype(2), shape),
            ):
                for p, one in zip(params, slow, strict=True):
                    p.grad = grad if p.shape == shape else np.ones(p.shape, p.dtype)
                    one.step(p.grad)
                optimizer.step()
            for p, one in zip(params, slow, strict=True):
                expect(p.data, one.data.astype(dtype), rtol=1e-4)


def test_a_gradient_that_does_not_fit_is_named_and_nothing_has_moved(rng):
    for apart in (False, True):
        p, q = parameters(rng, (2,), (3,))
        p.grad, q.grad = np.ones(2), np.ones((1, 3))
        before = p.data.copy()
        optimizer = FusedAdam([{"params": [p]}, {"params": [q]}] if apart else [p, q])
        with expect_error(ValueError, "(1, 3)", "(3,)"):
            optimizer.step()
        expect(p.data, before, rtol=0, atol=0)
        assert not optimizer.state


def test_wrong_options_and_parameters_are_refused_as_in_kata_08(rng):
    (p,) = parameters(rng, (2,))
    with expect_error(ValueError, "lr", "-1"):
        FusedAdam([p], lr=-1)
    with expect_error(ValueError, "momentum"):
        FusedAdam([{"params": [p], "momentum": 0.5}])
    with expect_error(TypeError, "ndarray"):
        FusedAdam([np.ones(3)])
    before, p.grad = p.data.copy(), np.ones(2)
    FusedAdam([p], lr=0.5, eps=0.0).step()
    expect(p.data, before - 0.5)


# 17.13 FusedAdam: where numbers are


def test_parameters_become_views_of_one_array_with_their_numbers(rng):
    params = parameters(rng, (2, 3), (4,), (), (0,))
    before = [p.data.copy() for p in params]
    optimizer = FusedAdam(params, lr=0.5, eps=0.0)
    for p, data in zip(params, before, strict=True):
        expect(p.data, data, rtol=0, atol=0)
        p.grad = np.ones(p.shape)
    base = params[0].data.base
    assert base.shape == (11,)
    for _ in range(2):
        assert all(p.data.base is base for p in params)
        optimizer.step()
    expect(np.sort(base), np.sort(np.concatenate([data.ravel() for data in before])) - 1.0)


def test_a_module_moves_with_its_parameters(rng):
    layer = Linear(3, 2, rng=rng)
    optimizer = FusedAdam(layer.parameters(), lr=0.5)
    for p in layer.parameters():
        p.grad = np.ones_like(p.data)
    before = {name: array.copy() for name, array in layer.state_dict().items()}
    optimizer.step()
    for name, array in layer.state_dict().items():
        expect(array, before[name] - np.float32(0.5), rtol=1e-5)


def test_numbers_written_over_a_parameter_are_its_numbers(rng):
    for replace in (False, True):
        (p,) = parameters(rng, (2,))
        optimizer = FusedAdam([p], lr=0.5, eps=0.0)
        if replace:
            p.data = np.array([10.0, 20.0])
        else:
            p.data[...] = [10.0, 20.0]
        for expected in ([9.5, 19.5], [9.0, 19.0]):
            p.grad = np.array([3.0, 0.1])
            optimizer.step()
            expect(p.data, np.array(expected))


def test_an_array_that_is_replaced_between_two_steps_is_moved_in(rng):
    """As by `load_state_dict` of a module in training. Where gradients stay as they are, each step is lr."""
    (p,) = parameters(rng, (2, 2))
    optimizer, p.grad = FusedAdam([p], lr=0.5, eps=0.0), np.array([[3.0, -3.0], [3.0, 3.0]])
    optimizer.step()
    p.data = np.array([[10.0, 20.0], [30.0, 40.0]])
    optimizer.step()
    expect(p.data, np.array([[9.5, 20.5], [29.5, 39.5]]))


def test_a_replaced_array_may_lie_in_any_order(rng):
    p, q = parameters(rng, (2, 3), (2,))
    optimizer = FusedAdam([p, q], lr=0.5, eps=0.0)
    p.data = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    p.grad = np.ones((2, 3))
    optimizer.step()
    expect(p.data, np.arange(6.0).reshape(2, 3) - 0.5)


def test_a_step_of_nothing_is_remembered(rng):
    """As the first one of a warm-up is."""
    (p,) = parameters(rng, (3,))
    one, optimizer = Slow(p.data, lr=0.0), FusedAdam([p], lr=0.0)
    together([p], optimizer, [one], 1, rng)
    one.lr = optimizer.param_groups[0]["lr"] = 0.1
    together([p], optimizer, [one], 2, rng)


def test_a_replaced_array_is_moved_in_beside_others(rng):
    p, q = parameters(rng, (2,), (2,))
    optimizer = FusedAdam([p, q], lr=0.5, eps=0.0)
    q.data = np.array([10.0, 20.0])
    p.grad = q.grad = np.ones(2)
    optimizer.step()
    expect(q.data, np.array([9.5, 19.5]))
    assert p.data.base is q.data.base


def test_parameters_of_different_dtypes_can_be_in_one_group(rng):
    p, q, r = parameters(rng, (2,), (3,), (2,))
    q.data = q.data.astype(np.float32)
    params = [p, q, r]
    slow = [Slow(one.data, lr=0.1) for one in params]
    together(params, FusedAdam(params, lr=0.1), slow, 3, rng)
    assert [one.dtype for one in params] == [np.float64, np.float32, np.float64]


def test_a_group_without_parameters_has_nothing_to_move(rng):
    (p,) = parameters(rng, (2,))
    p.grad = np.ones(2)
    before = p.data.copy()
    FusedAdam([{"params": []}, {"params": [p]}], lr=0.5, eps=0.0).step()
    expect(p.data, before - 0.5)


def test_writes_are_noted(rng):
    """So a graph that kept a parameter finds out before it gives a wrong gradient."""
    p, q = parameters(rng, (2,), (CHUNK + 1,))
    optimizer = FusedAdam([p, q])
    p.grad, q.grad = np.ones(2), np.ones(CHUNK + 1)
    before = version(p.data), version(q.data)
    optimizer.step()
    assert version(p.data) > before[0]
    assert version(q.data) > before[1]


# 17.13 FusedAdam: its state


def test_the_state_has_the_names_of_kata_08(rng):
    p, q = parameters(rng, (2,), (3, 1))
    p.grad, q.grad = np.full(2, 2.0), np.ones((3, 1))
    optimizer = FusedAdam([p, q])
    optimizer.step()
    saved = optimizer.state_dict()
    assert set(saved) == {
        *(f"groups.0.{name}" for name in ("lr", "betas", "eps", "weight_decay", "decoupled")),
        *(f"state.{i}.{name}" for i in (0, 1) for name in ("step", "exp_avg", "exp_avg_sq")),
    }
    expect(saved["state.0.exp_avg"], np.full(2, 0.2))
    expect(saved["state.1.exp_avg_sq"], np.full((3, 1), 0.001))
    assert saved["state.0.step"] == 1


def copied(state):
    return {name: np.array(value) for name, value in state.items()}


@pytest.mark.parametrize("decoupled", [False, True])
def test_it_goes_on_from_a_state_of_its_own_or_of_kata_08(decoupled, rng):
    options = {"lr": 0.1, "weight_decay": 0.1}
    for kind in (FusedAdam, AdamW if decoupled else Adam):
        params = parameters(rng, (2, 2), (3,), (2,))
        more = {"decoupled": decoupled} if kind is FusedAdam else {}
        optimizer = kind(params, **options, **more)
        slow = [Slow(p.data, **options, decoupled=decoupled) for p in params]
        together(params, optimizer, slow, 3, rng, missing=0.3)
        saved = {**copied(optimizer.state_dict()), "groups.0.decoupled": decoupled}
        others = [Parameter(p.data.copy()) for p in params]
        fresh = FusedAdam(others, lr=9.0)
        fresh.load_state_dict(saved)
        together(others, fresh, slow, 3, rng)


def test_a_loaded_state_is_a_copy(rng):
    (p,) = parameters(rng, (2,))
    p.grad = np.ones(2)
    optimizer = FusedAdam([p])
    optimizer.step()
    saved = copied(optimizer.state_dict())
    kept = copied(saved)
    optimizer.load_state_dict(saved)
    optimizer.step()
    for name in kept:
        expect(saved[name], kept[name])
    assert optimizer.state[p]["step"] == 2


def test_its_own_state_can_be_loaded_without_a_copy(rng):
    (p,) = parameters(rng, (3,))
    one, optimizer = Slow(p.data, lr=0.1), FusedAdam([p], lr=0.1)
    together([p], optimizer, [one], 2, rng)
    optimizer.load_state_dict(optimizer.state_dict())
    together([p], optimizer, [one], 2, rng)


def test_what_is_not_in_a_state_is_forgotten(rng):
    p, q = parameters(rng, (2,), (2,))
    optimizer = FusedAdam([p, q], lr=0.5, eps=0.0)
    p.grad = q.grad = np.array([3.0, -3.0])
    optimizer.step()
    saved = {name: value for name, value in copied(optimizer.state_dict()).items() if "state.1" not in name}
    optimizer.load_state_dict(saved)
    before = q.data.copy()
    p.grad, q.grad = None, np.array([0.1, 7.0])
    optimizer.step()
    expect(q.data, before - 0.5)
    assert optimizer.state[q]["step"] == 1


def test_a_state_that_does_not_fit_changes_nothing(rng):
    (p,) = parameters(rng, (2,))
    one, optimizer = Slow(p.data, lr=0.1), FusedAdam([p], lr=0.1)
    together([p], optimizer, [one], 2, rng)
    saved = copied(optimizer.state_dict())
    saved["groups.0.lr"], saved["state.0.exp_avg"] = np.array(5.0), np.zeros(3)
    with expect_error(ValueError, "state.0.exp_avg"):
        optimizer.load_state_dict(saved)
    together([p], optimizer, [one], 2, rng)
