"""Level 2: errors are known beforehand, and a run that is killed ends as if nothing had been."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect
from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.compression import (
    PercentileObserver,
    Pruner,
    QuantizedLinear,
    gradual_sparsity,
    quantize,
    quantized_matmul,
)
from tinytorch.dataloader import DataLoader, TensorDataset
from tinytorch.layers import Linear
from tinytorch.networks import MLP
from tinytorch.optimizers import SGD
from tinytorch.tensor import Tensor
from tinytorch.training import Callback, Trainer, cross_entropy

steady = settings(deadline=None, derandomize=True, max_examples=60)
SEEDS = st.integers(0, 2**32 - 1)
DTYPES = st.sampled_from([np.float32, np.float64])
NUMBERS = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)


def new(seed=0):
    return np.random.default_rng(seed)


def steps(x, scale, axis, ndim=2):
    return scale if axis is None else np.expand_dims(scale, [i for i in range(ndim) if i != axis])


# 18.7, 18.8 the error of a grid


@steady
@given(st.lists(NUMBERS, min_size=1, max_size=12), st.integers(2, 16), st.booleans(), DTYPES)
def test_what_is_quantized_is_off_by_half_a_step_at_most(numbers, bits, symmetric, dtype):
    """And a little for rounding of floats: of x / scale, up to 2**15, in float32."""
    x = np.array(numbers, dtype)
    q = quantize(x, bits, symmetric=symmetric)
    off = abs(q.dequantize().astype(np.float64) - x)
    slack = 2.0 ** (bits + 2) * np.finfo(dtype).eps
    assert off.max() <= float(q.scale) * (0.5 + slack), (off.max(), float(q.scale))


@steady
@given(SEEDS, st.integers(2, 16), st.sampled_from([0, 1]), st.booleans())
def test_so_is_each_place_along_an_axis(seed, bits, axis, symmetric):
    x = new(seed).normal(size=(4, 3)) * 10.0 ** new(seed).uniform(-6, 6, (4, 3))
    q = quantize(x, bits, axis, symmetric)
    off = abs(q.dequantize() - x)
    assert (off <= steps(x, q.scale, axis) * (0.5 + 1e-9)).all()


@steady
@given(st.lists(NUMBERS, min_size=1, max_size=12), st.integers(2, 16), st.booleans())
def test_zero_is_zero_and_no_number_changes_its_sign(numbers, bits, symmetric):
    x = np.array([0.0, *numbers])
    back = quantize(x, bits, symmetric=symmetric).dequantize()
    expect(back[0], 0.0)
    assert (back * np.sign(x) >= 0).all()


@steady
@given(SEEDS, st.integers(3, 16), st.booleans(), DTYPES)
def test_what_lies_on_a_grid_stays(seed, bits, symmetric, dtype):
    x = new(seed).normal(size=20).astype(dtype)
    q = quantize(x, bits, symmetric=True)
    again = quantize(q.dequantize(), bits, symmetric=True)
    expect(again.values, q.values)
    order = np.argsort(x)
    assert (np.diff(quantize(x, bits, symmetric=symmetric).values[order].astype(int)) >= 0).all()


@steady
@given(SEEDS, st.integers(2, 14))
def test_two_bits_more_are_a_quarter_of_the_step(seed, bits):
    x = new(seed).normal(size=50)
    few, more = quantize(x, bits, symmetric=False), quantize(x, bits + 2, symmetric=False)
    expect(float(few.scale / more.scale), (2 ** (bits + 2) - 1) / (2**bits - 1))


# 18.9 what clipping gains


def test_few_numbers_far_away_cost_all_others_their_digits():
    """Of 10,000 normal numbers and three at 60, steps are 0.47 wide; of what is left of them, 0.06."""
    x = np.append(new().normal(size=10_000), [60.0, -60.0, 60.0])
    seen = PercentileObserver(99.9)
    seen.observe(x)
    usual = x[:10_000]
    whole = abs(quantize(x, symmetric=False).dequantize()[:10_000] - usual).mean()
    clipped = abs(quantize(x, symmetric=False, within=seen.range()).dequantize()[:10_000] - usual).mean()
    assert clipped < whole / 5


# 18.10, 18.11 the error of a product


@steady
@given(SEEDS, st.booleans(), st.sampled_from([8, 16]))
def test_a_product_is_off_by_half_a_step_of_each_factor(seed, symmetric, bits):
    """|ab - (a + d)(b + e)| is at most |a| |e| + |b| |d| + |d| |e|, added up."""
    rng = new(seed)
    a, b = rng.normal(size=(3, 20)), rng.normal(size=(20, 2))
    x, y = quantize(a, bits, 0, symmetric), quantize(b, bits, 1, symmetric)
    d, e = (np.broadcast_to(q.scale / 2, (20, len(q.scale))) for q in (x, y))
    bound = abs(a) @ e + d.T @ abs(b) + d.T @ e
    assert (abs(quantized_matmul(x, y) - a @ b) <= bound * (1 + 1e-9)).all()


@steady
@given(SEEDS, st.sampled_from([4, 8, 16]))
def test_a_scale_for_each_output_is_never_worse(seed, bits):
    """The bound, not each number: an output with small weights has a small step of its own."""
    rng = new(seed)
    linear = Linear(8, 4, rng=rng)
    linear.weight.data *= (10.0 ** rng.uniform(-2, 1, (4, 1))).astype(np.float32)
    fine, coarse = QuantizedLinear(linear, bits), QuantizedLinear(linear, bits, per_channel=False)
    assert (fine.scale.data <= coarse.scale.data * 1.0001).all()
    x = Tensor(rng.normal(size=(6, 8)).astype(np.float32))
    off = abs(fine(x).data - linear(x).data)
    assert (off <= abs(x.data).sum(axis=1, keepdims=True) * fine.scale.data * 0.501 + 1e-5).all()


# 18.3 Pruner: a run that is killed


def schedule(step):
    return gradual_sparsity(step, 2, 14, 0.8)


def run(every, seed=0):
    net = MLP([4, 8, 3], rng=new(seed))
    data = TensorDataset(new(1).normal(size=(40, 4)).astype(np.float32), new(2).integers(0, 3, 40))
    loader = DataLoader(data, 8, shuffle=True, rng=new(3))
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    return net, loader, optimizer, Pruner(net, schedule, every)


class Killed(Callback):
    def __init__(self, step):
        self.step = step

    def on_batch_end(self, trainer):
        if trainer.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("step", [3, 9, 11])
def test_a_run_that_is_killed_and_taken_up_prunes_the_same_weights(tmp_path, every, step):
    net, loader, optimizer, pruner = run(every)
    Trainer(net, optimizer, cross_entropy, callbacks=[pruner]).fit(loader, 4)
    file = tmp_path / "checkpoint"
    other, loader, optimizer, watched = run(every)
    trainer = Trainer(other, optimizer, cross_entropy, callbacks=[watched, Killed(step)])
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(loader, 4, checkpoint=file, every=1)
    other, loader, optimizer, again = run(every, seed=9)
    Trainer(other, optimizer, cross_entropy, callbacks=[again, Killed(-1)]).fit(
        loader, 4, checkpoint=file, every=1
    )
    for name, mask in pruner.masks.items():
        expect(again.masks[name], mask)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        assert np.array_equal(p.data, q.data)
    # Of 4 * 8 + 8 * 3 weights; pruning ended at step 14, and was last done at step 20.
    gone = sum(int((p.data == 0).sum()) for p in net.parameters() if p.ndim > 1)
    expect(gone, round(schedule(20) * 56))
