"""Kata 10: losses, gradients and running means are PyTorch's, in float64 to 1e-10."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.layers import Linear
from tinytorch.tensor import Tensor
from tinytorch.training import EMA, cross_entropy, mse_loss

torch = pytest.importorskip("torch")

SEEDS = st.integers(0, 2**16)
REDUCTIONS = st.sampled_from(["mean", "sum", "none"])
thorough = settings(deadline=None, derandomize=True, max_examples=60)


def same(ours, theirs):
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-10, atol=1e-10, strict=True)


def compare(ours, theirs, arrays, rng):
    """Both losses of the same arrays, and the gradients of all of them."""
    mine = [Tensor(a.copy(), requires_grad=True) for a in arrays]
    other = [torch.tensor(a, requires_grad=True) for a in arrays]
    out, wanted = ours(*mine), theirs(*other)
    same(np.asarray(out.data), wanted)
    grad = rng.normal(size=out.shape)
    out.backward(grad)
    wanted.backward(torch.tensor(grad))
    for a, b in zip(mine, other, strict=True):
        same(a.grad, b.grad)


@thorough
@given(
    SEEDS,
    st.integers(1, 20),
    st.integers(1, 12),
    st.one_of(st.just(0.0), st.floats(0, 1)),
    REDUCTIONS,
    st.sampled_from([0.1, 1.0, 30.0]),
)
def test_cross_entropy_is_pytorchs(seed, rows, classes, smoothing, reduction, scale):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    compare(
        lambda x: cross_entropy(x, labels, label_smoothing=smoothing, reduction=reduction),
        lambda x: torch.nn.functional.cross_entropy(
            x, torch.tensor(labels), label_smoothing=smoothing, reduction=reduction
        ),
        [rng.normal(size=(rows, classes)) * scale],
        rng,
    )


@thorough
@given(SEEDS, st.lists(st.integers(1, 5), max_size=4), REDUCTIONS)
def test_mse_loss_is_pytorchs(seed, shape, reduction):
    rng = np.random.default_rng(seed)
    compare(
        lambda x, y: mse_loss(x, y, reduction=reduction),
        lambda x, y: torch.nn.functional.mse_loss(x, y, reduction=reduction),
        [rng.normal(size=shape), rng.normal(size=shape)],
        rng,
    )


def test_a_running_mean_is_pytorchs_averaged_model():
    rng = np.random.default_rng(0)
    model, other = Linear(3, 2, rng=rng), torch.nn.Linear(3, 2)
    ema = EMA(model, decay=0.9)
    with torch.no_grad():
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            q.copy_(torch.tensor(p.data))
    averaged = torch.optim.swa_utils.AveragedModel(
        other, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    averaged.update_parameters(other)  # the first makes the copy that ours begins with
    for _ in range(20):
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            p.data += rng.normal(size=p.shape).astype(np.float32)
            with torch.no_grad():
                q.copy_(torch.tensor(p.data))
        ema.update()
        averaged.update_parameters(other)
    for shadow, q in zip(ema.shadow.values(), averaged.module.parameters(), strict=True):
        np.testing.assert_allclose(shadow, q.detach().numpy(), rtol=1e-5, atol=1e-6)
