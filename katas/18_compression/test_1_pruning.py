"""Level 1: which weights go, how many, when; and that those that went stay away."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect, expect_error
from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.compression import Pruner, gradual_sparsity, magnitude_mask, prune_global, sparse_bytes
from tinytorch.layers import Linear, Parameter
from tinytorch.networks import MLP, Sequential
from tinytorch.optimizers import SGD, AdamW
from tinytorch.spatial import BatchNorm2d, Conv2d
from tinytorch.tensor import Tensor, version
from tinytorch.training import Callback, Trainer, cross_entropy

steady = settings(deadline=None, derandomize=True, max_examples=60)
SEEDS = st.integers(0, 2**32 - 1)
SHARES = st.sampled_from([0.0, 0.1, 0.29, 0.5, 0.77, 1.0]) | st.floats(0, 1)


def new(seed=0):
    return np.random.default_rng(seed)


def one_by_one(weight, sparsity):
    """What magnitude_mask is: the smallest goes, the first of equals, then the next, as often as it takes."""
    flat = [abs(float(w)) for w in weight.ravel()]
    stays = [True] * len(flat)
    for _ in range(round(sparsity * len(flat))):
        left = [i for i in range(len(flat)) if stays[i]]
        stays[min(left, key=lambda i: (flat[i], i))] = False
    return np.array(stays, bool).reshape(weight.shape)


# 18.1 magnitude_mask


def test_the_smallest_go():
    weight = np.array([[3.0, -1.0], [0.5, 2.0]])
    expect(magnitude_mask(weight, 0.5), np.array([[True, False], [False, True]]))


@steady
@given(SEEDS, st.lists(st.integers(0, 4), max_size=3), SHARES)
def test_a_mask_is_what_taking_the_smallest_away_one_by_one_leaves(seed, shape, sparsity):
    """Of few different numbers, so that many are equal."""
    weight = new(seed).integers(-3, 4, shape) / 2
    expect(magnitude_mask(weight, sparsity), one_by_one(np.asarray(weight), sparsity))


@steady
@given(SEEDS, st.integers(0, 200), SHARES)
def test_the_count_is_exact(seed, size, sparsity):
    weight = new(seed).normal(size=size).astype(np.float32)
    expect(size - int(magnitude_mask(weight, sparsity).sum()), round(sparsity * size))


@pytest.mark.parametrize("sparsity", [1 / 3000, 0.001, 0.1, 0.37, 0.5, 0.9, 0.999])
def test_of_many_weights_none_that_stays_is_smaller_than_one_that_goes(sparsity):
    weight = new(7).normal(size=(60, 50))
    stays = magnitude_mask(weight, sparsity)
    expect(int((~stays).sum()), round(sparsity * 3000))
    assert abs(weight[~stays]).max() < abs(weight[stays]).min()


def test_the_count_is_exact_where_all_are_equal():
    """And those that come first go: 2 of 4, which a threshold would take together."""
    expect(magnitude_mask(np.array([1, -1, 1, 1]), 0.5), np.array([False, False, True, True]))
    expect(magnitude_mask(np.zeros((2, 3)), 0.5).ravel(), np.array([False] * 3 + [True] * 3))
    expect(magnitude_mask(np.array([2.0, 1.0, 2.0, 2.0]), 0.5), np.array([False, False, True, True]))


def test_no_digit_is_lost_before_magnitudes_are_compared():
    """As float32 all three would be 1, and the first would go."""
    expect(magnitude_mask(np.array([1 + 1e-9, -1.0, 1 + 2e-9]), 1 / 3), np.array([True, False, True]))
    net = MLP([3, 1], rng=new())
    net[0].weight.data = np.array([[1 + 1e-9, -1.0, 1 + 2e-9]])
    expect(prune_global(net, 1 / 3)["0.weight"], np.array([[True, False, True]]))


@pytest.mark.parametrize("sparsity", [0.05, 0.3, 0.5, 0.8, 0.97])
def test_of_many_equals_those_that_come_first_go(sparsity):
    """1,500 numbers of five magnitudes: enough for a sort that is not stable to mix them."""
    weight = new(3).integers(-4, 5, (30, 50)).astype(np.float32)
    order = sorted(range(1500), key=lambda i: (abs(weight.flat[i]), i))
    expected = np.ones(1500, bool)
    expected[order[: round(sparsity * 1500)]] = False
    expect(magnitude_mask(weight, sparsity), expected.reshape(30, 50))


@pytest.mark.parametrize(
    ("size", "sparsity", "gone"), [(5, 0.5, 2), (7, 0.5, 4), (100, 0.29, 29), (3, 0.1, 0)]
)
def test_what_goes_is_rounded_to_the_nearest_and_halves_to_even(size, sparsity, gone):
    """2.5 to 2, 3.5 to 4; 0.29 * 100 is a little below 29, and not 28."""
    expect(size - int(magnitude_mask(np.arange(1.0, size + 1), sparsity).sum()), gone)


def test_nothing_goes_and_all_goes():
    weight = np.array([[0.0, 1.0]])
    expect(magnitude_mask(weight, 0.0), np.array([[True, True]]))
    expect(magnitude_mask(weight, 1.0), np.array([[False, False]]))


def test_rows_are_read_one_after_the_other_whatever_lies_in_memory():
    weight = np.ones((2, 3))
    expect(magnitude_mask(np.asfortranarray(weight), 0.5), np.array([[False] * 3, [True] * 3]))
    weight = np.array([[6.0, 1.0, 5.0], [2.0, 4.0, 3.0]])
    expected = np.array([[True, False, True], [False, True, False]])
    expect(magnitude_mask(np.asfortranarray(weight), 0.5), expected)
    expect(magnitude_mask(weight.T, 0.5), expected.T)
    backwards = np.array([4.0, 3.0, 2.0, 1.0])[::-1]
    expect(magnitude_mask(backwards, 0.25), np.array([False, True, True, True]))


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32, np.float64])
def test_integers_have_magnitudes_too(dtype):
    """-128 is the largest of all int8, although np.abs makes -128 of it."""
    weight = np.array([-128, 5, -6, 127]).astype(dtype)
    expect(magnitude_mask(weight, 0.5), np.array([True, False, False, True]))


def test_a_tensor_can_be_masked_and_stays_as_it_is():
    weight = Parameter(np.array([1.0, -2.0]))
    mask = magnitude_mask(weight, 0.5)
    assert isinstance(mask, np.ndarray)
    expect(mask, np.array([False, True]))
    expect(weight, np.array([1.0, -2.0]))


def test_a_list_can_be_masked():
    expect(magnitude_mask([[3.0, -1.0], [0.5, 2.0]], 0.5), np.array([[True, False], [False, True]]))


def test_no_axes_and_no_elements():
    expect(magnitude_mask(np.array(3.0), 1.0), np.array(False))
    expect(magnitude_mask(np.array(3.0), 0.4), np.array(True))
    expect(magnitude_mask(np.empty((0, 2)), 0.5), np.empty((0, 2), bool))


@pytest.mark.parametrize("sparsity", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_named(sparsity):
    with expect_error(ValueError, str(sparsity)):
        magnitude_mask(np.ones(3), sparsity)


# 18.2 prune_global


def filled(net, *values):
    """The network with these numbers in its parameters, one after the other."""
    for p, value in zip(net.parameters(), values, strict=True):
        p.data[...] = value
    return net


def test_weights_of_all_layers_are_ranked_together():
    """Of 8 weights 4 go, and all of these are the first layer's but one; biases are small and stay."""
    net = MLP([2, 2, 2], rng=new())
    filled(net, [[1, -2], [3, 9]], [0.1, 0.2], [[8, 4], [-7, 6]], [0, 0.1])
    masks = prune_global(net, 0.5)
    expect(set(masks), {"0.weight", "2.weight"})
    expect(masks["0.weight"], np.array([[False, False], [False, True]]))
    expect(masks["2.weight"], np.array([[True, False], [True, True]]))
    expect(net[0].weight, np.array([[0, 0], [0, 9]], np.float32))
    expect(net[2].weight, np.array([[8, 0], [-7, 6]], np.float32))
    expect([net[0].bias, net[2].bias], [np.array([0.1, 0.2], np.float32), np.array([0, 0.1], np.float32)])


def test_each_of_three_layers_gets_the_mask_of_its_own_weights():
    """Of 1 to 12 the lower half goes: 1 and 2 of the first, 3 and 4 of the second, 5 and 6 of the last."""
    net = filled(
        MLP([2, 2, 2, 2], rng=new()), [[7, 1], [2, 8]], 0, [[3, 9], [10, 4]], 0, [[5, 6], [11, 12]], 0
    )
    masks = prune_global(net, 0.5)
    for i, left in ((0, [[7, 0], [0, 8]]), (2, [[0, 9], [10, 0]]), (4, [[0, 0], [11, 12]])):
        expect([masks[f"{i}.weight"], net[i].weight], [np.array(left, bool), np.array(left, np.float32)])


def test_of_equals_those_of_the_first_layer_go_first():
    net = filled(MLP([2, 2, 2], rng=new()), 1, 1, 1, 1)
    masks = prune_global(net, 0.75)
    expect(masks["0.weight"], np.zeros((2, 2), bool))
    expect(masks["2.weight"], np.array([[False, False], [True, True]]))


def test_a_model_is_written_over_in_place_and_the_write_is_noted():
    net = MLP([3, 4, 2], rng=new())
    arrays = [net[0].weight.data, net[2].weight.data]
    before = [version(a) for a in arrays]
    prune_global(net, 0.5)
    assert net[0].weight.data is arrays[0]
    assert net[2].weight.data is arrays[1]
    assert all(version(a) > b for a, b in zip(arrays, before, strict=True))


def test_weights_are_pruned_however_they_lie_in_memory_and_frozen_ones_too():
    net = MLP([3, 2], rng=new())
    net[0].weight.data = weight = np.array([[1, 5], [4, 2], [3, 6]], np.float32).T
    net[0].weight.requires_grad = False
    masks = prune_global(net, 0.5)
    expect(masks["0.weight"], np.array([[False, True, False], [True, False, True]]))
    expect(weight, np.array([[0, 4, 0], [5, 0, 6]], np.float32))
    assert net[0].weight.data is weight


def test_kernels_are_weights_and_norms_are_not():
    net = Sequential(Conv2d(2, 3, 3, rng=new()), BatchNorm2d(3), Linear(3, 2, rng=new()))
    net[1].weight.data[...] = 0.001
    masks = prune_global(net, 0.5)
    expect({name: mask.shape for name, mask in masks.items()}, {"0.weight": (3, 2, 3, 3), "2.weight": (2, 3)})
    expect(sum(int(mask.sum()) for mask in masks.values()), 30)
    expect(net[1].weight, np.full(3, 0.001, np.float32))


def test_a_weight_that_two_layers_share_counts_once():
    net = MLP([3, 3, 3], rng=new())
    net[2].weight = net[0].weight
    masks = prune_global(net, 1 / 3)
    expect({name: int(mask.sum()) for name, mask in masks.items()}, {"0.weight": 6})


def test_what_is_not_finite_leaves_no_trace_where_it_goes():
    """A product with 0 would leave nan; so write zeros. Infinity is larger than all else."""
    net = filled(MLP([2, 2], rng=new()), [[np.inf, 1], [2, 3]], 0)
    prune_global(net, 1.0)
    expect(net[0].weight, np.zeros((2, 2), np.float32))
    assert not np.signbit(net[0].weight.data).any()


def test_a_model_without_weights_has_no_masks():
    expect(prune_global(BatchNorm2d(3), 0.5), {})


def test_a_share_that_is_none_changes_nothing():
    net = MLP([2, 2], rng=new())
    before = net[0].weight.data.copy()
    with expect_error(ValueError, "1.5"):
        prune_global(net, 1.5)
    expect(net[0].weight, before)


@steady
@given(SEEDS, st.lists(SHARES, min_size=1, max_size=3))
def test_pruning_more_and_more_is_pruning_most_at_once(seed, shares):
    """What is 0 goes first, so nothing else goes than in one step."""
    nets = [MLP([3, 5, 2], rng=new(seed)) for _ in range(2)]
    for share in sorted(shares):
        masks = prune_global(nets[0], share)
    other = prune_global(nets[1], max(shares))
    for name, mask in other.items():
        expect(masks[name], mask)
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        expect(p, q.data)


# 18.3 gradual_sparsity


def test_sparsity_rises_quickly_and_then_slowly():
    """0.8 - 0.8 * (3/4)³ is 0.4625, and half-way 0.8 - 0.8 / 8 is 0.7."""
    found = [gradual_sparsity(step, 100, 200, 0.8) for step in (100, 125, 150, 200)]
    expect(found, [0.0, 0.4625, 0.7, 0.8])


def test_before_it_begins_it_is_what_it_begins_with_and_after_its_end_what_it_ends_with():
    found = [gradual_sparsity(step, 10, 20, 0.9, 0.3) for step in (-5, 0, 9, 10, 15, 20, 21, 10_000)]
    expect(found, [0.3, 0.3, 0.3, 0.3, 0.9 - 0.6 / 8, 0.9, 0.9, 0.9])
    found = [gradual_sparsity(step, 10, 20, 0.2, 0.9) for step in (0, 15, 20)]  # it may fall, too
    expect(found, [0.9, 0.2 + 0.7 / 8, 0.2])


def test_it_may_all_happen_at_one_step():
    expect([gradual_sparsity(step, 5, 5, 0.5, 0.1) for step in (4, 5, 6)], [0.1, 0.5, 0.5])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((20, 10, 0.5), ("20", "10")),
        ((0, 10, 1.5), ("1.5",)),
        ((0, 10, 0.5, -0.25), ("-0.25",)),
        ((0, 10, float("nan")), ("nan",)),
    ],
)
def test_a_schedule_that_cannot_be_is_an_error(arguments, named):
    for step in (0, 5, 30):
        with expect_error(ValueError, *named):
            gradual_sparsity(step, *arguments)


# 18.3 Pruner.prune, Pruner.on_fit_begin, Pruner.on_batch_end, Pruner.state_dict, Pruner.load_state_dict


class Standing:
    """Stands in for a Trainer: all that a Pruner asks of it is the number of the step."""

    def __init__(self, step=0):
        self.step = step


def zeros(net):
    weights = [p.data for p in net.parameters() if p.ndim > 1]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights)


def trained(net, callbacks, steps=6, optimizer=None, trainer=None):
    rng = new(1)
    batches = [(rng.normal(size=(8, 4)).astype(np.float32), rng.integers(0, 2, 8)) for _ in range(steps)]
    if trainer is None:
        optimizer = optimizer or SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
        trainer = Trainer(net, optimizer, cross_entropy, callbacks=callbacks)
    trainer.fit(batches, trainer.epoch + 1)
    return trainer


class Look(Callback):
    """Notes how sparse a network is after each step."""

    def __init__(self, net):
        self.net, self.seen = net, []

    def on_batch_end(self, trainer):
        self.seen.append(zeros(self.net))


@pytest.mark.parametrize("kind", ["momentum", "decay"])
def test_what_is_pruned_stays_zero_while_momentum_and_decay_move_weights(kind):
    net = MLP([4, 6, 2], rng=new())
    if kind == "momentum":
        optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9)
    else:
        optimizer = AdamW(net.parameters(), lr=0.05, weight_decay=0.5)
    trained(net, [], optimizer=optimizer)  # what the optimizer remembers would move weights on
    pruner = Pruner(net, 0.75)
    look = Look(net)
    trained(net, [pruner, look], optimizer=optimizer)
    expect(look.seen, [0.75] * 6)
    expect((zeros(net), pruner.sparsity), (0.75, 0.75))


def test_between_two_prunings_the_masks_are_applied():
    net = MLP([4, 6, 2], rng=new())
    pruner = Pruner(net, 0.5, every=1000)
    pruner.on_fit_begin(Standing())
    masks = {name: mask.copy() for name, mask in pruner.masks.items()}
    for p in net.parameters():
        p.data += 1
    arrays = [p.data for p in net.parameters()]
    pruner.on_batch_end(Standing(1))
    assert all(p.data is array for p, array in zip(net.parameters(), arrays, strict=True))
    for name, p in net.named_parameters():
        if p.ndim > 1:
            expect(p.data == 0, ~masks[name])
            expect(pruner.masks[name], masks[name])
        else:
            assert (p.data != 0).all()


def test_new_masks_are_drawn_at_the_beginning_and_after_each_so_many_steps():
    """36 weights; 0, 9 and 18 of them at steps 0, 3 and 6."""
    net = MLP([4, 6, 2], rng=new())
    look = Look(net)
    trained(net, [Pruner(net, lambda step: step / 12, every=3), look], steps=7)
    expect(look.seen, [0.0, 0.0, 0.25, 0.25, 0.25, 0.5, 0.5])


def test_what_weights_are_now_decides_and_not_what_they_were():
    net = filled(MLP([4, 1], rng=new()), [[1, 2, 3, 4]], 0)
    pruner = Pruner(net, lambda step: 0.25 * (1 + step))
    pruner.on_fit_begin(Standing(0))
    net[0].weight.data[...] = [[9, 8, 0.5, 7]]
    pruner.on_batch_end(Standing(1))
    expect(net[0].weight, np.array([[0, 8, 0, 7]], np.float32))
    expect(pruner.masks["0.weight"], np.array([[False, True, False, True]]))


def test_nothing_comes_back_when_the_schedule_falls():
    net = filled(MLP([4, 1], rng=new()), [[1, 2, 3, 4]], 0)
    pruner = Pruner(net, lambda step: 0.75 if step == 0 else 0.25)
    pruner.on_fit_begin(Standing(0))
    net[0].weight.data[...] = 5
    pruner.on_batch_end(Standing(1))
    expect(net[0].weight, np.array([[0, 0, 0, 5]], np.float32))
    expect(pruner.sparsity, 0.75)


def test_a_fit_that_begins_with_masks_keeps_them():
    """As one that goes on from a checkpoint does, at whatever step; but it applies them."""
    net = MLP([4, 6, 2], rng=new())
    pruner = Pruner(net, lambda step: 0.75 if step else 0.5)
    pruner.on_fit_begin(Standing(0))
    masks = dict(pruner.masks)
    for p in net.parameters():
        p.data += 1
    pruner.on_fit_begin(Standing(5))
    expect(zeros(net), 0.5)
    for name, mask in masks.items():
        expect(pruner.masks[name], mask)


def test_masks_that_hide_nothing_are_masks():
    net = MLP([4, 6, 2], rng=new())
    pruner = Pruner(net, lambda step: step / 100)
    pruner.on_fit_begin(Standing(0))
    pruner.on_fit_begin(Standing(25))
    expect((zeros(net), pruner.sparsity), (0.0, 0.0))


@pytest.mark.parametrize("schedule", [0, 1])
def test_a_schedule_may_be_a_whole_number(schedule):
    net = MLP([4, 6, 2], rng=new())
    Pruner(net, schedule).on_fit_begin(Standing())
    expect(zeros(net), float(schedule))


def test_a_fit_that_begins_late_begins_with_what_is_due():
    net = MLP([4, 6, 2], rng=new())
    pruner = Pruner(net, lambda step: step / 100)
    pruner.on_fit_begin(Standing(25))
    expect(zeros(net), 0.25)


def test_masks_are_in_the_state_and_can_be_taken_up():
    net = MLP([4, 6, 2], rng=new())
    pruner = Pruner(net, 0.5)
    expect((pruner.masks, pruner.sparsity), ({}, 0.0))
    pruner.on_fit_begin(Standing())
    other = Pruner(MLP([4, 6, 2], rng=new(3)), 0.9)
    other.load_state_dict(pruner.state_dict())
    expect(other.sparsity, 0.5)
    other.on_fit_begin(Standing())
    for name, p in other.model.named_parameters():
        if p.ndim > 1:
            expect(p.data == 0, ~pruner.masks[name])


def test_masks_that_were_given_stay_as_they_are():
    pruner = Pruner(MLP([4, 6, 2], rng=new()), 0.25)
    pruner.on_fit_begin(Standing())
    saved = pruner.state_dict()
    kept = {name: mask.copy() for name, mask in pruner.masks.items()}
    other = Pruner(MLP([4, 6, 2], rng=new(3)), 0.75)
    other.load_state_dict(saved)
    other.on_fit_begin(Standing())
    other.on_batch_end(Standing(1))
    assert other.sparsity >= 0.75
    again = Pruner(MLP([4, 6, 2], rng=new(3)), 0.75)
    again.load_state_dict(saved)
    for name, mask in kept.items():
        expect([again.masks[name], pruner.masks[name]], [mask, mask])


def test_writes_are_noted_after_each_step():
    net = MLP([4, 6, 2], rng=new())
    pruner = Pruner(net, 0.5, every=1000)
    pruner.on_fit_begin(Standing())
    before = version(net[0].weight.data)
    pruner.on_batch_end(Standing(1))
    assert version(net[0].weight.data) > before


@pytest.mark.parametrize("every", [0, -3])
def test_every_is_one_or_more(every):
    """And a Pruner that is made right begins with nothing, and then prunes."""
    with expect_error(ValueError, str(every)):
        Pruner(MLP([2, 2], rng=new()), 0.5, every=every)
    net = MLP([2, 2], rng=new())
    Pruner(net, 0.5, every=1).on_fit_begin(Standing())
    expect(zeros(net), 0.5)


# 18.4 sparse_bytes


def test_three_formats_by_hand():
    """16 of 256 in float32: 1024; 32 + 64; 16 * 8 + 17 * 4."""
    expect(sparse_bytes(np.eye(16, dtype=bool)), {"dense": 1024, "bitmap": 96, "csr": 196})


@pytest.mark.parametrize(
    ("shape", "kept", "itemsize", "expected"),
    [
        ((2, 3), 1, 4, (24, 5, 20)),
        ((3, 3), 9, 8, (72, 74, 124)),
        ((9,), 2, 4, (36, 10, 24)),
        ((2, 2, 2, 2), 3, 2, (32, 8, 30)),
        ((), 1, 4, (4, 5, 16)),
        ((0, 5), 0, 4, (0, 0, 4)),
        ((5, 0), 0, 4, (0, 0, 24)),
        ((4, 4), 5, 1, (16, 7, 45)),
    ],
)
def test_bytes_of_any_shape(shape, kept, itemsize, expected):
    """Bits fill whole bytes, rows go along the first axis, and what has fewer than two axes is one row."""
    mask = np.zeros(int(np.prod(shape)), bool)
    mask[:kept] = True
    found = sparse_bytes(mask.reshape(shape), itemsize)
    expect(found, dict(zip(("dense", "bitmap", "csr"), expected, strict=True)))
    assert all(type(n) is int for n in found.values())


def test_what_is_not_0_counts_and_a_tensor_or_a_list_will_do():
    weight = np.array([[0.0, -2.0], [0.5, 0.0]])
    for mask in (weight, weight.astype(np.float32)[::-1], Tensor(weight), weight.tolist()):
        expect(sparse_bytes(mask), {"dense": 16, "bitmap": 9, "csr": 28})
