"""Kata 08: every optimizer and schedule follows PyTorch's for 200 steps, in float64 to 1e-6 and better."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import optimizers
from tinytorch.layers import Parameter

torch = pytest.importorskip("torch")

STEPS = 200
SEEDS = st.integers(0, 2**16)
thorough = settings(deadline=None, derandomize=True, max_examples=6)


def two_ways(rng, shapes=((3, 4), (5,), ())):
    """Parameters of ours and PyTorch's that hold the same numbers."""
    arrays = [rng.normal(size=shape) for shape in shapes]
    return [Parameter(np.array(a)) for a in arrays], [torch.nn.Parameter(torch.tensor(a)) for a in arrays]


def gradients(rng, ours, theirs):
    """New gradients for both, pulling to 0 with noise; now and then one of them has none."""
    for p, tensor in zip(ours, theirs, strict=True):
        p.grad = tensor.grad = None
        if rng.random() < 0.95:
            p.grad = np.array(tensor.detach().numpy() + rng.normal(size=p.shape))
            tensor.grad = torch.tensor(p.grad)


def same(ours, theirs):
    for p, tensor in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.data, tensor.detach().numpy(), rtol=1e-9, atol=1e-9, strict=True)


def follow(name, seed, steps=STEPS, **options):
    rng = np.random.default_rng(seed)
    ours, theirs = two_ways(rng)
    mine, other = getattr(optimizers, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)
    for _ in range(steps):
        gradients(rng, ours, theirs)
        mine.step()
        other.step()
        same(ours, theirs)


SHARES = st.sampled_from([0.0, 0.3, 0.9, 0.999])
DECAYS = st.sampled_from([0.0, 0.01, 0.3])
EPS = st.sampled_from([1e-8, 1e-3])


@thorough
@given(SEEDS, st.sampled_from([0.0, 0.3, 0.9]), st.sampled_from([0.0, 0.4, 1.0]), DECAYS, st.booleans())
def test_sgd_follows_pytorchs(seed, momentum, dampening, weight_decay, nesterov):
    if nesterov:
        momentum, dampening = 0.9, 0.0
    follow(
        "SGD",
        seed,
        lr=0.05,
        momentum=momentum,
        dampening=dampening,
        weight_decay=weight_decay,
        nesterov=nesterov,
    )


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
@thorough
@given(SEEDS, SHARES, SHARES, EPS, DECAYS)
def test_adam_follows_pytorchs(name, seed, beta1, beta2, eps, weight_decay):
    follow(name, seed, lr=0.05, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay)


@thorough
@given(SEEDS, st.sampled_from([0.5, 0.9, 0.99]), EPS, DECAYS, st.sampled_from([0.0, 0.9]), st.booleans())
def test_rmsprop_follows_pytorchs(seed, alpha, eps, weight_decay, momentum, centered):
    follow(
        "RMSprop",
        seed,
        lr=0.01,
        alpha=alpha,
        eps=eps,
        weight_decay=weight_decay,
        momentum=momentum,
        centered=centered,
    )


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_defaults_are_pytorchs(name):
    options = {"lr": 0.1} if name == "SGD" else {}
    follow(name, seed=0, steps=20, **options)
    mine = getattr(optimizers, name)([Parameter([0.0])], **options)
    theirs = getattr(torch.optim, name)([torch.nn.Parameter(torch.zeros(1))], **options)
    for option, value in mine.defaults.items():
        assert theirs.defaults[option] == value


def test_groups_have_options_of_their_own():
    rng = np.random.default_rng(0)
    ours, theirs = two_ways(rng)

    def groups(p):
        return [{"params": p[:1], "lr": 0.1, "weight_decay": 0.0}, {"params": p[1:], "betas": (0.5, 0.9)}]

    mine, other = optimizers.AdamW(groups(ours), 0.01), torch.optim.AdamW(groups(theirs), 0.01)
    for _ in range(STEPS):
        gradients(rng, ours, theirs)
        mine.step()
        other.step()
    same(ours, theirs)


def compare_schedules(make, name="SGD", steps=STEPS, **options):
    """Learning rate, momentum and parameters along `make(optimizer, module of schedules)`."""
    rng = np.random.default_rng(0)
    ours, theirs = two_ways(rng)

    def groups(p):
        return [{"params": p[:1], "lr": 0.3}, {"params": p[1:]}]

    mine = getattr(optimizers, name)(groups(ours), lr=0.1, **options)
    other = getattr(torch.optim, name)(groups(theirs), lr=0.1, **options)
    schedule, its = make(mine, optimizers), make(other, torch.optim.lr_scheduler)
    for _ in range(steps):
        for group, theirs_group in zip(mine.param_groups, other.param_groups, strict=True):
            for option in {"lr", "momentum", "betas"} & group.keys():
                np.testing.assert_allclose(group[option], theirs_group[option], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(schedule.get_last_lr(), its.get_last_lr(), rtol=1e-9, atol=1e-12)
        gradients(rng, ours, theirs)
        mine.step()
        other.step()
        schedule.step()
        its.step()
    same(ours, theirs)


@pytest.mark.parametrize(("step_size", "gamma"), [(1, 0.99), (30, 0.1), (7, 0.5), (500, 0.1)])
def test_steps_follow_pytorchs(step_size, gamma):
    compare_schedules(lambda opt, lib: lib.StepLR(opt, step_size, gamma))
    compare_schedules(lambda opt, lib: lib.StepLR(opt, step_size), steps=20)


@pytest.mark.parametrize(("T_max", "eta_min"), [(200, 0.0), (50, 0.01), (7, 0.0), (1000, 0.05)])
def test_cosine_annealing_follows_pytorchs_past_its_end_too(T_max, eta_min):
    compare_schedules(lambda opt, lib: lib.CosineAnnealingLR(opt, T_max, eta_min))


@pytest.mark.parametrize("factors", [{}, {"start_factor": 0.01, "total_iters": 150}, {"end_factor": 0.1}])
def test_a_line_follows_pytorchs(factors):
    compare_schedules(lambda opt, lib: lib.LinearLR(opt, **factors), "Adam")


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop"])
@pytest.mark.parametrize(
    "options",
    [
        {"total_steps": 200},
        {"total_steps": 201, "pct_start": 0.25, "anneal_strategy": "linear"},
        {"total_steps": 300, "pct_start": 0.1, "cycle_momentum": False},
        {"total_steps": 200, "base_momentum": 0.5, "max_momentum": 0.9, "div_factor": 4.0},
        {"total_steps": 200, "pct_start": 0.0, "final_div_factor": 10.0},
    ],
)
def test_one_cycle_follows_pytorchs(name, options):
    options = {"max_lr": [0.05, 0.2], **options}
    compare_schedules(lambda opt, lib: lib.OneCycleLR(opt, **options), name)


def test_schedules_in_sequence_follow_pytorchs():
    def warm_up_and_anneal(opt, lib):
        parts = [
            lib.LinearLR(opt, 0.1, total_iters=20),
            lib.CosineAnnealingLR(opt, 100),
            lib.StepLR(opt, 10, 0.5),
        ]
        return lib.SequentialLR(opt, parts, [20, 120])

    compare_schedules(warm_up_and_anneal, momentum=0.9)


@thorough
@given(SEEDS, st.sampled_from([0.0, 0.1, 1.0, 3.0, 100.0]))
def test_clipping_is_pytorchs(seed, limit):
    rng = np.random.default_rng(seed)
    for clip in ("clip_grad_norm_", "clip_grad_value_"):
        ours, theirs = two_ways(rng)
        gradients(rng, ours, theirs)
        mine = getattr(optimizers, clip)(ours, limit)
        its = getattr(torch.nn.utils, clip)(theirs, limit)
        assert (mine is None) == (its is None)
        assert mine is None or mine == pytest.approx(float(its), rel=1e-12)
        for p, tensor in zip(ours, theirs, strict=True):
            assert (p.grad is None) == (tensor.grad is None)
            if p.grad is not None:
                np.testing.assert_allclose(p.grad, tensor.grad.numpy(), rtol=1e-12, atol=0, strict=True)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_in_float32_they_stay_together_as_far_as_rounding_allows(name):
    rng = np.random.default_rng(0)
    ours, theirs = two_ways(rng, [(20,)])
    ours = [Parameter(p.data.astype(np.float32)) for p in ours]
    theirs = [torch.nn.Parameter(p.detach().float()) for p in theirs]
    mine, other = getattr(optimizers, name)(ours, lr=0.01), getattr(torch.optim, name)(theirs, lr=0.01)
    for _ in range(STEPS):
        p, tensor = ours[0], theirs[0]
        p.grad = (tensor.detach().numpy() + rng.normal(size=p.shape)).astype(np.float32)
        tensor.grad = torch.tensor(p.grad)
        mine.step()
        other.step()
    np.testing.assert_allclose(p.data, tensor.detach().numpy(), rtol=1e-4, atol=1e-5, strict=True)
