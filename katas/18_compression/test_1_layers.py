"""Level 1: layers in few bits, models made of them, and losses that teach small ones."""

import copy
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect, expect_error
from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.activations import Dropout, ReLU
from tinytorch.autograd import is_grad_enabled, no_grad
from tinytorch.compression import (
    FakeQuantLinear,
    PercentileObserver,
    QuantizedConv2d,
    QuantizedLinear,
    calibrate,
    distill,
    distillation_loss,
    fake_quantize,
    quantize,
    quantize_model,
    quantized_affine,
)
from tinytorch.embeddings import Embedding
from tinytorch.layers import Buffer, Linear, Module, Parameter, count_parameters, summary
from tinytorch.networks import MLP, Sequential
from tinytorch.optimizers import SGD, Adam
from tinytorch.spatial import BatchNorm2d, Conv2d, Flatten
from tinytorch.tensor import Tensor
from tinytorch.training import cross_entropy

steady = settings(deadline=None, derandomize=True, max_examples=30)
SEEDS = st.integers(0, 2**32 - 1)


def new(seed=0):
    return np.random.default_rng(seed)


def f32(values):
    return np.array(values, np.float32)


def normal(*shape, seed=0):
    return new(seed).normal(size=shape).astype(np.float32)


# 18.11 quantized_affine


def test_rows_are_multiplied_with_weights_as_they_stand_for():
    values, scale = np.array([[1, 2], [-3, 4], [0, 127]], np.int8), np.array([0.5, 0.25, 2.0])
    x, bias = np.array([[1.0, 10.0], [2.0, 0.0]]), np.array([0.0, 100.0, -1.0])
    expect(quantized_affine(x, values, scale, bias), np.array([[10.5, 109.25, 2539.0], [1.0, 98.5, -1.0]]))
    expect(quantized_affine(x, values, np.array(0.5)), np.array([[10.5, 18.5, 635.0], [1.0, -3.0, 0.0]]))


@steady
@given(SEEDS, st.lists(st.integers(0, 3), max_size=3), st.sampled_from([np.int8, np.int16]), st.booleans())
def test_inputs_may_have_any_number_of_axes(seed, lead, dtype, with_bias):
    rng = new(seed)
    x, values = rng.normal(size=(*lead, 5)), rng.integers(-127, 128, (4, 5)).astype(dtype)
    scale, bias = rng.uniform(0.1, 1, 4), rng.normal(size=4) if with_bias else None
    out = quantized_affine(x, values, scale, bias)
    expect(out, x @ (values * scale[:, None]).T + (0 if bias is None else bias))


def test_a_large_layer_is_that_of_its_pieces():
    """1 MiB of floats, so that there are several pieces, and the last one is smaller."""
    rng = new()
    values, x = rng.integers(-127, 128, (1030, 260)).astype(np.int8), rng.normal(size=(3, 260))
    scale = rng.uniform(0.01, 0.1, 1030)
    expect(quantized_affine(x, values, scale), x @ (values * scale[:, None]).T)


def test_results_have_the_dtype_of_the_input():
    values, scale = np.ones((2, 3), np.int8), np.array([1.0, 2.0])
    for x, dtype in (
        (np.ones((1, 3), np.float32), np.float32),
        (np.ones((1, 3)), np.float64),
        (np.ones((1, 3), int), np.float32),
    ):
        expect(quantized_affine(x, values, scale, np.zeros(2)).dtype, dtype)
        expect(quantized_affine(x, values, scale.astype(np.float32)).dtype, dtype)


def test_an_input_that_does_not_fit_is_named():
    with expect_error(ValueError, "(2, 4)", "(2, 3)"):
        quantized_affine(np.ones((2, 4)), np.ones((2, 3), np.int8), np.ones(2))


# 18.11 QuantizedLinear.__init__


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("bits", [2, 8, 9, 16])
def test_a_quantized_layer_holds_its_numbers_as_buffers(bits, per_channel):
    linear = Linear(4, 3, rng=new())
    layer = QuantizedLinear(linear, bits, per_channel)
    q = quantize(linear.weight, bits, axis=0 if per_channel else None)
    expect([layer.weight, layer.scale, layer.bias], [q.values, q.scale, linear.bias.data])
    expect(sorted(layer.state_dict()), ["bias", "scale", "weight"])
    assert all(isinstance(b, Buffer) for b in (layer.weight, layer.scale, layer.bias))
    expect((layer.bits, count_parameters(layer), layer.input_range), (bits, 0, None))


def test_a_quantized_layer_shares_nothing_with_the_layer_it_was():
    linear = Linear(4, 3, rng=new())
    layer = QuantizedLinear(linear)
    linear.bias.data[...] = 99
    linear.weight.data[...] = 99
    x = normal(2, 4)
    other = Linear(4, 3, rng=new())
    expect(layer(Tensor(x)), QuantizedLinear(other)(Tensor(x)).data)
    bare = QuantizedLinear(Linear(4, 3, bias=False, rng=new()))
    assert bare.bias is None
    expect(sorted(bare.state_dict()), ["scale", "weight"])


def test_a_quantized_layer_is_in_the_mode_of_the_layer_it_was():
    for training in (True, False):
        expect(QuantizedLinear(Linear(4, 3, rng=new()).train(training)).training, training)


def test_a_range_is_saved_with_the_rest():
    layer = QuantizedLinear(Linear(4, 3, rng=new()), input_range=(-1.0, 2.5))
    assert isinstance(layer.input_range, Buffer)
    expect(layer.input_range, np.array([-1.0, 2.5]))
    other = QuantizedLinear(Linear(4, 3, rng=new(1)), input_range=(0.0, 1.0))
    other.load_state_dict(layer.state_dict())
    expect(other(Tensor(normal(2, 4))), layer(Tensor(normal(2, 4))).data)


# 18.11 QuantizedLinear.forward


@steady
@given(SEEDS, st.sampled_from([4, 8, 16]), st.booleans(), st.booleans())
def test_weights_are_off_by_half_a_step_at_most(seed, bits, per_channel, bias):
    """So an output is off by half a step for each input, as large as that is."""
    rng = new(seed)
    linear = Linear(6, 3, bias, rng=rng)
    layer, x = QuantizedLinear(linear, bits, per_channel), rng.normal(size=(5, 6)).astype(np.float32)
    off = abs(layer(Tensor(x)).data - linear(Tensor(x)).data)
    bound = abs(x).sum(axis=1, keepdims=True) * layer.scale.data / 2
    assert (off <= bound * 1.001 + 1e-5).all()
    assert off.max() > 0


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("bits", [4, 8, 9, 12])
def test_with_a_range_inputs_are_on_a_grid_too(bits, per_channel):
    """In 8 bits where weights have no more, else in 16; beyond the range they are clipped."""
    linear, x = Linear(6, 3, rng=new()), 2 * normal(4, 5, 6)
    layer = QuantizedLinear(linear, bits, per_channel, (-1.5, 2.0))
    inputs = quantize(x, 8 if bits <= 8 else 16, symmetric=False, within=(-1.5, 2.0)).dequantize()
    weights = layer.weight.data * (layer.scale.data[:, None] if per_channel else layer.scale.data)
    out = layer(Tensor(x))
    assert isinstance(out, Tensor)
    expect(out, (inputs.astype(float) @ weights.astype(float).T + linear.bias.data).astype(np.float32))
    assert abs(out.data - linear(Tensor(x)).data).max() > 0.1


@pytest.mark.parametrize("input_range", [None, (-1.0, 1.0)])
def test_a_layer_gives_any_input_its_own_dtype(input_range):
    layer = QuantizedLinear(Linear(4, 3, rng=new()), input_range=input_range)
    for dtype, kept in ((np.float32, np.float32), (np.float64, np.float64), (np.int64, np.float32)):
        out = layer(Tensor(np.ones((2, 4), dtype)))
        expect((out.dtype, out.shape), (kept, (2, 3)))
    expect(layer(Tensor(np.ones(4, np.float32))).shape, (3,))
    expect(layer(Tensor(np.ones((0, 2, 4), np.float32))).shape, (0, 2, 3))
    bare = QuantizedLinear(Linear(4, 3, bias=False, rng=new()), input_range=input_range)
    full = QuantizedLinear(Linear(4, 3, rng=new()), input_range=input_range)
    x = normal(2, 4)
    expect(bare(Tensor(x)).data + full.bias.data, full(Tensor(x)).data)
    linear = Linear(4, 3, rng=new())
    for p in linear.parameters():
        p.data = p.data.astype(np.float64)
    expect(QuantizedLinear(linear, input_range=input_range)(Tensor(x)).dtype, np.float32)


@pytest.mark.parametrize("input_range", [None, (-1.0, 1.0)])
def test_a_layer_names_an_input_that_does_not_fit(input_range):
    layer = QuantizedLinear(Linear(4, 3, rng=new()), input_range=input_range)
    with expect_error(ValueError, "(2, 5)"):
        layer(Tensor(np.ones((2, 5), np.float32)))


def test_a_layer_leaves_its_input_as_it_is():
    x = normal(3, 4)
    before = x.copy()
    for input_range in (None, (-1.0, 1.0)):
        QuantizedLinear(Linear(4, 3, rng=new()), input_range=input_range)(Tensor(x))
    expect(x, before)


@pytest.mark.parametrize("input_range", [None, (-1.0, 1.0)])
def test_an_input_that_changed_gives_another_answer(input_range):
    """Also if it is the same array; and weights that were loaded are used."""
    layer, x = QuantizedLinear(Linear(4, 3, rng=new()), input_range=input_range), 0.2 * normal(2, 4)
    tensor = Tensor(x)
    first = layer(tensor).data.copy()
    expect(layer(tensor), first)
    x *= -2
    second = layer(tensor).data.copy()
    assert abs(second - first).max() > 0.01
    layer.load_state_dict(
        {name: -array for name, array in layer.state_dict().items() if name == "weight"}, strict=False
    )
    bias = layer.bias.data
    expect(layer(tensor).data - bias, bias - second)


def test_a_layer_says_what_it_is_and_what_it_costs():
    """A multiplication and an addition for each weight and row: 2 * 5 * 3 * 4."""
    layer = QuantizedLinear(Linear(4, 3, rng=new()), 4)
    expect(repr(layer), "QuantizedLinear(in_features=4, out_features=3, bits=4)")
    expect([row[4] for row in summary(layer, Tensor(normal(5, 4)))], [120])
    conv = quantize_model(Conv2d(2, 3, 1, rng=new()), 6)
    expect(repr(conv), "QuantizedConv2d((3, 2, 1, 1), bits=6)")


# 18.12 calibrate


def batches(*seeds, shape=(6, 4)):
    return [normal(*shape, seed=seed) for seed in seeds]


def test_each_layer_s_range_is_that_of_all_that_went_into_it():
    net, data = MLP([4, 5, 2], rng=new()), batches(1, 2, 3)
    ranges = calibrate(net, data)
    hidden = [np.maximum(x @ net[0].weight.data.T + net[0].bias.data, 0) for x in data]
    expect(set(ranges), {net[0], net[2]})
    expect(ranges[net[0]], (float(min(x.min() for x in data)), float(max(x.max() for x in data))))
    expect(
        ranges[net[2]], (float(min(x.min() for x in hidden)), float(max(x.max() for x in hidden))), rtol=1e-6
    )


def test_an_observer_of_another_kind_sees_each_layer_for_itself():
    made = []

    def make():
        made.append(PercentileObserver(90))
        return made[-1]

    net, data = MLP([4, 5, 2], rng=new()), batches(1, 2)
    ranges = calibrate(net, data, make)
    expect(len(made), 2)
    seen = PercentileObserver(90)
    for x in data:
        seen.observe(x)
    expect(ranges[net[0]], seen.range())


def test_batches_may_be_arrays_tensors_or_pairs():
    net, x = MLP([4, 2], rng=new()), normal(6, 4)
    expected = {net[0]: (float(x.min()), float(x.max()))}
    for batch in (x, Tensor(x), (x, np.zeros(6, int)), [x, np.zeros(6, int)]):
        expect(calibrate(net, [batch]), expected)
    expect(calibrate(net, (batch for batch in [x])), expected)
    net, both = MLP([4, 5, 2], rng=new()), batches(1, 2)
    expect(calibrate(net, iter(both)), calibrate(net, both))  # which can be gone through once
    small, again = (quantize_model(net, calibration=make(both)) for make in (list, iter))
    expect([again[i].input_range for i in (0, 2)], [small[i].input_range.data for i in (0, 2)])


def test_ids_go_into_a_model_as_ids():
    net = Sequential(Embedding(5, 4, rng=new()), Linear(4, 2, rng=new()))
    seen = net[0].weight.data[[4, 0, 2]]
    expect(calibrate(net, [np.array([4, 0, 2])]), {net[1]: (float(seen.min()), float(seen.max()))})


class Counting(Module):
    """Hands on its input, and notes in which mode it does, and whether a graph is made."""

    def __init__(self):
        self.seen = []

    def forward(self, x):
        self.seen.append((self.training, is_grad_enabled()))
        return x


def test_the_model_is_used_and_not_trained_meanwhile_and_then_as_it_was():
    net = Sequential(Counting(), Linear(4, 2, rng=new()), Dropout(0.5, rng=new()), Counting()).train()
    net[2].eval()
    calibrate(net, batches(1, 2))
    expect(net[0].seen, [(False, False)] * 2)
    expect([layer.training for layer in net], [True, True, False, True])


class Fails(Module):
    def forward(self, x):
        raise OSError("no more batches")


def test_no_hook_stays_also_if_something_fails():
    net = Sequential(Linear(4, 2, rng=new()), Fails())
    with expect_error(OSError):
        calibrate(net, batches(1))
    seen = []
    net[0].register_forward_hook(lambda module, inputs, out: seen.append(1))
    net[0](Tensor(normal(1, 4)))
    expect((seen, net.training, is_grad_enabled()), ([1], True, True))
    expect(len(vars(net[0])["_forward_hooks"]), 1)
    calibrate(net[:1], batches(1))
    expect(len(vars(net[0])["_forward_hooks"]), 1)


class Stopped(BaseException):
    """What Ctrl-C raises is no Exception either."""


class Stops(Module):
    def forward(self, x):
        raise Stopped


def test_no_hook_stays_where_somebody_stops_it_all():
    net = Sequential(Linear(4, 2, rng=new()), Stops())
    with pytest.raises(Stopped):
        calibrate(net, batches(1))
    expect((len(vars(net[0])["_forward_hooks"]), net.training, is_grad_enabled()), (0, True, True))


class Twice(Module):
    def __init__(self):
        self.layer = Linear(4, 4, rng=new())

    def forward(self, x):
        return self.layer(self.layer(x))


def test_of_a_layer_that_is_used_twice_both_inputs_count():
    net, (x,) = Twice(), batches(1)
    x *= 0.01  # so that the bias makes what goes in the second time larger
    both = np.concatenate([x, x @ net.layer.weight.data.T + net.layer.bias.data])
    ranges = calibrate(net, [x])
    expect(list(ranges), [net.layer])
    expect(ranges[net.layer], (float(both.min()), float(both.max())), rtol=1e-5)
    assert abs(both).max() > 2 * abs(x).max()


def test_a_model_without_linears_has_no_ranges():
    expect(calibrate(Sequential(Counting(), ReLU()), batches(1)), {})


class Unused(Module):
    def __init__(self):
        self.used, self.spare = Linear(4, 2, rng=new()), Linear(9, 2, rng=new())

    def forward(self, x):
        return self.used(x)


def test_a_layer_that_nothing_went_into_is_left_out():
    net = Unused()
    expect(list(calibrate(net, batches(1))), [net.used])


def test_without_batches_there_is_no_range():
    with expect_error(ValueError):
        calibrate(MLP([4, 2], rng=new()), [])
    with expect_error(ValueError):
        quantize_model(MLP([4, 2], rng=new()), calibration=iter(()))
    with expect_error(ValueError):
        quantize_model(MLP([4, 2], rng=new()), calibration=[])


# 18.12 quantize_model


def test_each_linear_is_quantized_and_the_rest_copied():
    net = MLP([4, 5, 2], dropout=0.25, rng=new()).eval()
    small = quantize_model(net, 4, per_channel=False)
    expect([type(a).__name__ for a in small], ["QuantizedLinear", "ReLU", "Dropout", "QuantizedLinear"])
    for i in (0, 3):
        one = QuantizedLinear(net[i], 4, False)
        expect([small[i].weight, small[i].scale], [one.weight.data, one.scale.data])
        expect((small[i].bits, small[i].input_range), (4, None))
    expect((small[2].p, small.training), (0.25, False))
    assert all(a is not b for a, b in zip(small, net, strict=True))
    expect(quantize_model(net)[0].scale.shape, (5,))


def test_the_model_that_is_given_stays_as_it_is():
    net = Sequential(Linear(4, 3, rng=new()), BatchHolder(), ReLU())
    before, layers = copy.deepcopy(net.state_dict()), list(net)
    small = quantize_model(net, calibration=batches(1))
    small[1].weight.data[...] = 9
    for array in small.state_dict().values():
        array[...] = 1
    expect(list(net.state_dict().values()), list(before.values()))
    assert all(a is b for a, b in zip(net, layers, strict=True))


class BatchHolder(Module):
    def __init__(self):
        self.weight, self.table = Parameter(np.ones(3, np.float32)), np.arange(3.0)

    def forward(self, x):
        return x * self.weight


class Nested(Module):
    """Layers in lists and dicts, one of them twice, and one alone."""

    def __init__(self):
        shared = Linear(4, 4, rng=new())
        self.first = [shared, {"a": Linear(4, 4, rng=new(1)), "again": shared}]
        self.tuple = (Linear(4, 4, rng=new(2)),)
        self.alone = Linear(4, 2, rng=new(3))
        self.embedding = Embedding(5, 4, rng=new(4))

    def forward(self, x):
        return self.alone(self.tuple[0](self.first[1]["again"](self.first[1]["a"](self.first[0](x)))))


def test_layers_are_found_wherever_they_are_and_a_shared_one_stays_shared():
    net = Nested()
    small = quantize_model(net, calibration=batches(1))
    found = [*small.first[:1], *small.first[1].values(), *small.tuple, small.alone]
    assert all(isinstance(layer, QuantizedLinear) for layer in found)
    assert small.first[0] is small.first[1]["again"]
    assert isinstance(small.embedding, Embedding)
    expect(small.embedding.weight, net.embedding.weight.data)
    x = Tensor(normal(6, 4, seed=1))
    expect(small(x), net(x).data, rtol=0, atol=0.1)


def test_a_model_may_be_one_layer():
    linear = Linear(4, 2, rng=new())
    small = quantize_model(linear, calibration=batches(1))
    assert isinstance(small, QuantizedLinear)
    expect(small.input_range, np.array(calibrate(linear, batches(1))[linear]))


def test_calibrated_layers_have_the_ranges_of_their_inputs():
    net = MLP([4, 5, 2], rng=new())
    make = lambda: PercentileObserver(80)  # noqa: E731
    for options in ({}, {"observer": make}):
        ranges = calibrate(net, batches(1, 2), **options)
        small = quantize_model(net, calibration=batches(1, 2), **options)
        for i in (0, 2):
            expect(small[i].input_range, np.array(ranges[net[i]]))
    unused = quantize_model(Unused(), calibration=batches(1))
    assert unused.spare.input_range is None
    assert isinstance(unused.spare, QuantizedLinear)


def test_a_convolution_gets_kernels_in_few_bits():
    net = Sequential(
        Conv2d(2, 4, 3, 2, 1, rng=new()), BatchNorm2d(4), ReLU(), Flatten(), Linear(16, 3, rng=new())
    ).eval()
    x = Tensor(normal(2, 2, 4, 4))
    for bits, off in ((8, 0.05), (16, 0.001)):
        small = quantize_model(net, bits)
        assert isinstance(small[0], QuantizedConv2d)
        expect(
            (small[0].weight.dtype, small[0].weight.shape), (np.int8 if bits == 8 else np.int16, (4, 2, 3, 3))
        )
        expect(small(x), net(x).data, rtol=0, atol=off)
        assert abs(small(x).data - net(x).data).max() > 0
    expect([quantize_model(net, per_channel=each)[0].scale.shape for each in (True, False)], [(4,), ()])
    expect((QuantizedConv2d(net[0]).scale.shape, QuantizedConv2d(net[0]).bits), ((4,), 8))
    bare = Conv2d(2, 4, 3, bias=False, rng=new())
    expect(quantize_model(bare, 16)(x), bare(x).data, rtol=0, atol=0.001)


def test_subclasses_count():
    class Mine(Linear): ...

    class Own(Conv2d): ...

    net = Sequential(Own(1, 4, 1, rng=new()), Flatten(), Mine(4, 2, rng=new()))
    small = quantize_model(net, calibration=[normal(3, 1, 1, 1)])
    assert isinstance(small[0], QuantizedConv2d)
    assert isinstance(small[2], QuantizedLinear)
    assert small[2].input_range is not None


def test_bits_that_cannot_be_are_named():
    with expect_error(ValueError, "20"):
        quantize_model(MLP([4, 2], rng=new()), 20)


# 18.13 fake_quantize


@steady
@given(SEEDS, st.integers(2, 12), st.sampled_from([None, 0, 1, -1]), st.booleans())
def test_it_is_what_quantizing_and_back_gives(seed, bits, axis, symmetric):
    x = new(seed).normal(size=(3, 4)).astype(new(seed).choice(["f4", "f8"]))
    out = fake_quantize(x, bits=bits, axis=axis, symmetric=symmetric)
    assert isinstance(out, Tensor)
    expect(out, quantize(x, bits, axis, symmetric).dequantize())


def test_within_a_range_too():
    out = fake_quantize(np.array([-2.0, 0.3, 0.5, 2.0]), bits=3, within=(-1, 1))
    expect(out, np.array([-1.0, 1 / 3, 2 / 3, 1.0]))
    expect(fake_quantize(np.array([5, -5]), within=(0.0, 2.55), symmetric=False), f32([2.55, 0]))
    # Steps of 0.1 from -12.8 to 12.7, also for bytes, which know no number below 0.
    out = fake_quantize(np.array([0, 5, 200], np.uint8), within=(-12.8, 12.7), symmetric=False)
    expect(out, f32([0, 5, 12.7]))


def test_eight_bits_unless_told():
    expect(fake_quantize(np.array([127.0, 0.6])), np.array([127.0, 1.0]))


# 18.13 fake_quantize_back


def slopes(x, grad=None, **options):
    leaf = Tensor(np.array(x), requires_grad=True)
    out = fake_quantize(leaf, **options)
    out.backward(np.ones_like(leaf.data) if grad is None else grad)
    return leaf.grad


def test_gradients_go_straight_through():
    grad = np.array([[1.0, -2.0], [3.0, 0.5]])
    for options in ({}, {"axis": 0}, {"bits": 2, "symmetric": False}):
        expect(slopes([[0.3, -0.4], [5.0, 9.0]], grad, **options), grad)


@pytest.mark.parametrize(
    ("within", "symmetric", "expected"),
    [
        ((-1.0, 1.0), True, [0, 1, 1, 1, 1, 0]),
        ((-1.0, 0.2), True, [0, 1, 1, 1, 1, 0]),
        ((-1.0, 0.2), False, [0, 1, 1, 1, 0, 0]),
        ((0.5, 1.0), False, [0, 0, 1, 1, 1, 0]),
        ((-2.0, -1.0), False, [1, 1, 1, 0, 0, 0]),
    ],
)
def test_but_not_beyond_the_ends_which_are_inside(within, symmetric, expected):
    """Of -2, -1, 0, 0.1, 1, 2: what was clipped cannot move; 0 always lies inside."""
    found = slopes([-2.0, -1.0, 0.0, 0.1, 1.0, 2.0], within=within, symmetric=symmetric)
    expect(found, np.array(expected, float))


def test_ends_may_differ_along_an_axis():
    low, high = np.array([-1.0, -5.0]), np.array([1.0, 5.0])
    x = [[3.0, 3.0], [-0.5, -9.0]]
    expect(slopes(x, axis=1, within=(low, high)), np.array([[0.0, 1.0], [1.0, 0.0]]))
    expect(slopes(x, axis=0, within=(low, high)), np.array([[0.0, 0.0], [1.0, 0.0]]))
    expect(slopes(x, axis=-1, within=(low, high)), np.array([[0.0, 1.0], [1.0, 0.0]]))
    expect(slopes(x, axis=0, within=(-4.0, 4.0)), np.array([[1.0, 1.0], [1.0, 0.0]]))
    expect(slopes(x, axis=1, within=([-1.0, -5.0], [1.0, 5.0])), np.array([[0.0, 1.0], [1.0, 0.0]]))


def test_the_gradient_that_came_and_the_ends_stay_as_they_are():
    grad, low, high = np.ones((2, 2)), np.array([1.0, -9.0]), np.array([2.0, -5.0])
    for symmetric in (True, False):
        slopes([[3.0, 3.0], [-0.5, -9.0]], grad, axis=1, within=(low, high), symmetric=symmetric)
    expect((grad, low, high), (np.ones((2, 2)), np.array([1.0, -9.0]), np.array([2.0, -5.0])))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_keep_their_dtype(dtype):
    out, back = fake_quantize.vjp(np.array([0.1, 5.0], dtype), within=(-1.0, 1.0))
    grads = back(np.array([2.0, 2.0], dtype))
    expect(grads[0] if isinstance(grads, (tuple, list)) else grads, np.array([2.0, 0.0], dtype))
    expect(out.dtype, dtype)


# 18.13 FakeQuantLinear.__init__, FakeQuantLinear.forward


def test_a_layer_computes_with_what_its_weights_will_be():
    linear, x = Linear(4, 3, rng=new()), Tensor(normal(5, 4))
    for bits in (2, 8):
        expect(FakeQuantLinear(linear, bits)(x), QuantizedLinear(linear, bits)(x).data)
    expect(FakeQuantLinear(linear)(x), QuantizedLinear(linear, 8)(x).data)


def test_weights_are_rounded_anew_each_time():
    linear, x = Linear(4, 3, rng=new()), Tensor(normal(5, 4))
    layer = FakeQuantLinear(linear, 3)
    layer(x)
    linear.weight.data[...] = normal(3, 4, seed=2)
    expect(layer(x), QuantizedLinear(linear, 3)(x).data)


def test_it_trains_the_very_parameters_of_the_layer():
    linear = Linear(4, 3, rng=new())
    layer = FakeQuantLinear(linear, 4)
    assert layer.weight is linear.weight
    assert layer.bias is linear.bias
    expect((list(layer.state_dict()), layer.bits), (["weight", "bias"], 4))
    x, grad = normal(5, 4), normal(5, 3, seed=1)
    layer(Tensor(x)).backward(grad)
    expect([linear.weight.grad, linear.bias.grad], [grad.T @ x, grad.sum(axis=0)])
    leaf = Tensor(x, requires_grad=True)
    layer(leaf).backward(grad)
    expect(leaf.grad, grad @ quantize(linear.weight, 4, axis=0).dequantize())
    bare = FakeQuantLinear(Linear(4, 3, bias=False, rng=new()))
    expect(bare(Tensor(x)).shape, (5, 3))


def test_training_with_rounding_makes_up_for_it():
    """Two bits leave three steps, -1, 0 and 1: some are better than those nearest to the weights."""
    rng = new()
    x = (rng.normal(size=(64, 2)) @ rng.normal(size=(2, 8))).astype(np.float32)
    truth = Linear(8, 1, rng=rng)
    targets = truth(Tensor(x)).data

    def loss(layer):
        off = layer(Tensor(x)) - targets
        return (off * off).mean()

    linear = Linear(8, 1, rng=new())
    linear.load_state_dict(truth.state_dict())
    rounded = loss(QuantizedLinear(linear, 2)).item()
    optimizer, layer = SGD(linear.parameters(), lr=0.05), FakeQuantLinear(linear, 2)
    best = math.inf
    for _ in range(150):
        optimizer.zero_grad()
        loss(layer).backward()
        optimizer.step()
        best = min(best, loss(QuantizedLinear(linear, 2)).item())

    assert best < 0.75 * rounded  # 0.0138 and 0.0281


# 18.14 distillation_loss


def by_row(student, teacher, labels, temperature, alpha):
    """The loss, row by row and class by class, in Python."""
    total = 0.0
    for s, t, label in zip(student.tolist(), teacher.tolist(), labels, strict=True):
        q, p = ([math.exp(v / temperature) for v in row] for row in (s, t))
        q, p = [v / sum(q) for v in q], [v / sum(p) for v in p]
        plain = [math.exp(v) for v in s]
        total += alpha * temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        total -= (1 - alpha) * math.log(plain[label] / sum(plain))
    return total / len(labels)


def test_a_loss_by_hand():
    """q is (0.8808, 0.1192) and p (0.5, 0.5): 0.5 log(0.5 / 0.8808) + 0.5 log(0.5 / 0.1192) = 0.4338. Of the
    label, -log 0.8808 = 0.1269. With T = 2, q is (0.7311, 0.2689), and 4 times 0.1201 is 0.4803."""
    s, t = np.array([[2.0, 0.0]]), np.array([[0.0, 0.0]])
    for temperature, alpha, value in (
        (1.0, 1.0, 0.4338),
        (1.0, 0.0, 0.1269),
        (1.0, 0.5, 0.28035),
        (2.0, 1.0, 0.4803),
    ):
        found = distillation_loss(s, t, [0], temperature=temperature, alpha=alpha)
        expect((found.shape, found.dtype), ((), np.float64))
        expect(found.item(), value, rtol=3e-4)


@steady
@given(SEEDS, st.integers(1, 4), st.integers(1, 5), st.floats(0.5, 10), st.floats(0, 1))
def test_a_loss_is_what_it_is_for_each_row(seed, n, classes, temperature, alpha):
    rng = new(seed)
    student, teacher = rng.normal(size=(2, n, classes)) * 3
    labels = rng.integers(0, classes, n)
    found = distillation_loss(student, teacher, labels, temperature=temperature, alpha=alpha)
    expect(found.item(), by_row(student, teacher, labels, temperature, alpha), rtol=1e-9, atol=1e-12)


def test_a_student_that_says_what_its_teacher_says_has_no_loss():
    logits = normal(4, 3).astype(float)
    shifted = logits + np.arange(4.0)[:, None]  # softmax does not see that
    expect(distillation_loss(shifted, logits, [0, 1, 2, 0], alpha=1.0).item(), 0.0, atol=1e-12)


def test_without_a_teacher_s_part_it_is_cross_entropy():
    logits, labels = normal(4, 3).astype(float), [0, 1, 2, 0]
    found = distillation_loss(logits, normal(4, 3, seed=1), labels, alpha=0.0)
    expect(found.item(), cross_entropy(logits, labels).item())


def test_temperature_4_and_half_and_half_unless_told():
    s, t, labels = normal(4, 3).astype(float), normal(4, 3, seed=1).astype(float), [0, 1, 2, 0]
    expect(distillation_loss(s, t, labels).item(), by_row(s, t, labels, 4.0, 0.5))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_logits_do_not_overflow(dtype):
    """The student is sure of class 0, the teacher of class 1: 2000 apart, times T² / T."""
    s, t = np.array([[2000.0, 0.0]], dtype), np.array([[0.0, 2000.0]], dtype)
    with np.errstate(all="raise", under="ignore"):
        found = distillation_loss(s, t, [1], temperature=4.0, alpha=0.5)
    expect(found.item(), 0.5 * 4 * 2000 + 0.5 * 2000, rtol=1e-5)
    expect(found.dtype, dtype)


def test_a_loss_is_in_the_dtype_of_the_student():
    labels = np.array([0, 1])
    for student, teacher in ((np.float32, np.float64), (np.float64, np.float32)):
        out, back = distillation_loss.vjp(np.eye(2, dtype=student), np.ones((2, 2), teacher), labels)
        grad = back(np.ones((), student))
        expect((out.dtype, (grad[0] if isinstance(grad, (tuple, list)) else grad).dtype), (student, student))


def test_inputs_of_a_loss_stay_as_they_are():
    s, t, labels = normal(3, 4), normal(3, 4, seed=1), np.array([0, 1, 3])
    before = s.copy(), t.copy(), labels.copy()
    _, back = distillation_loss.vjp(s, t, labels)
    back(np.float32(1))
    expect([s, t, labels], list(before))


WRONG = {
    "shapes": (lambda s, t, y: ((s, t[:, :2], y), {}), ValueError, ("(3, 4)", "(3, 2)")),
    "a teacher of one row": (lambda s, t, y: ((s, t[:1], y), {}), ValueError, ("(3, 4)", "(1, 4)")),
    "a teacher of one axis": (lambda s, t, y: ((s, t[0], y), {}), ValueError, ("(3, 4)", "(4,)")),
    "labels": (lambda s, t, y: ((s, t, y[:2]), {}), ValueError, ("(3, 4)", "(2,)")),
    "a label that is no class": (lambda s, t, y: ((s, t, [0, 1, 4]), {}), ValueError, ("4",)),
    "labels of floats": (lambda s, t, y: ((s, t, [0.0, 1.0, 2.0]), {}), TypeError, ("float",)),
    "no rows": (lambda s, t, y: ((s[:0], t[:0], y[:0]), {}), ValueError, ("(0, 4)",)),
    "no temperature": (lambda s, t, y: ((s, t, y), {"temperature": 0.0}), ValueError, ("0.0",)),
    "a negative temperature": (lambda s, t, y: ((s, t, y), {"temperature": -2.0}), ValueError, ("-2.0",)),
    "more than all": (lambda s, t, y: ((s, t, y), {"alpha": 1.25}), ValueError, ("1.25",)),
    "no number": (lambda s, t, y: ((s, t, y), {"alpha": math.nan}), ValueError, ("nan",)),
    "no number for a temperature": (
        lambda s, t, y: ((s, t, y), {"temperature": math.nan}),
        ValueError,
        ("nan",),
    ),
    "less than nothing": (lambda s, t, y: ((s, t, y), {"alpha": -0.5}), ValueError, ("-0.5",)),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_a_loss_is_named(name):
    make, kind, named = WRONG[name]
    arguments, options = make(normal(3, 4), normal(3, 4, seed=1), np.array([0, 1, 3]))
    with expect_error(kind, *named):
        distillation_loss(*arguments, **options)


# 18.15 distill


def data(seed=0, sizes=(6, 4)):
    rng = new(seed)
    return [(rng.normal(size=(n, 2)).astype(np.float32), rng.integers(0, 3, n)) for n in sizes]


def pair(seed=0):
    return MLP([2, 5, 3], rng=new(seed)), MLP([2, 8, 3], rng=new(seed + 1))


class Shuffled:
    """Other batches in each epoch."""

    def __init__(self):
        self.epoch = 0

    def __iter__(self):
        self.epoch += 1
        return iter(data(self.epoch))


def test_a_student_moves_as_the_loss_says_step_by_step():
    student, teacher = pair()
    other = copy.deepcopy(student)
    found = distill(
        student,
        teacher,
        Shuffled(),
        Adam(student.parameters(), lr=0.01),
        epochs=2,
        temperature=3.0,
        alpha=0.7,
    )
    optimizer, loader, expected = Adam(other.parameters(), lr=0.01), Shuffled(), []
    for _ in range(2):
        losses = []
        for x, labels in loader:
            wanted = teacher(Tensor(x)).data
            loss = distillation_loss(other(Tensor(x)), wanted, labels, temperature=3.0, alpha=0.7)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item() * len(labels))
        expected.append(sum(losses) / 10)
    expect(found, expected, rtol=1e-5)
    for p, q in zip(student.parameters(), other.parameters(), strict=True):
        expect(p, q.data)


def test_one_epoch_temperature_4_and_half_and_half_unless_told():
    student, teacher = pair()
    ((x, labels),) = data(sizes=(5,))
    expected = distillation_loss(
        student(Tensor(x)), teacher(Tensor(x)).data, labels, temperature=4.0, alpha=0.5
    )
    found = distill(student, teacher, [(x, labels)], SGD(student.parameters(), lr=0.1))
    expect(found, [expected.item()], rtol=1e-5)
    assert type(found[0]) is float


def test_a_mean_is_over_rows_and_not_over_batches():
    """With a learning rate of nearly nothing, batches of 9 and 1 rows have the loss of one of 10."""
    losses = []
    for cut in (9, 10):
        student, teacher = pair()
        ((x, labels),) = data(sizes=(10,))
        parts = [(x[i:j], labels[i:j]) for i, j in ((0, cut), (cut, 10)) if j > i]
        losses += distill(student, teacher, parts, SGD(student.parameters(), lr=1e-12))
    expect(losses[0], losses[1], rtol=1e-5)


def test_the_teacher_is_used_and_ends_as_it_was():
    student, teacher = pair()
    watched = Sequential(Counting(), teacher, Dropout(0.5, rng=new())).train()
    watched[2].eval()
    before = copy.deepcopy(teacher.state_dict())
    distill(student, watched, data(), SGD(student.parameters(), lr=0.1), epochs=2)
    expect(watched[0].seen, [(False, False)] * 4)
    expect([watched.training, *(layer.training for layer in watched)], [True, True, True, False])
    expect(list(teacher.state_dict().values()), list(before.values()))
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_the_student_is_in_the_mode_in_which_it_was(training):
    student, teacher = pair()
    watched = Sequential(Counting(), student).train(training)
    distill(watched, teacher, data(), SGD(student.parameters(), lr=0.1))
    expect(watched[0].seen, [(training, True)] * 2)
    expect(watched.training, training)


def test_gradients_from_before_do_not_count():
    nets = [pair()[0] for _ in range(2)]
    for p in nets[1].parameters():
        p.grad = np.ones_like(p.data)
    for net in nets:
        distill(net, pair()[1], data(), SGD(net.parameters(), lr=0.1))
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        expect(p, q.data)


def test_students_and_teachers_read_ids_as_ids():
    student, teacher = (Sequential(Embedding(5, 3, rng=new(seed))) for seed in (0, 1))
    ids, labels = np.array([4, 0, 2, 2]), np.array([0, 1, 2, 0])
    expected = distillation_loss(student[0].weight.data[ids], teacher[0].weight.data[ids], labels)
    found = distill(student, teacher, [(ids, labels)], SGD(student.parameters(), lr=0.1))
    expect(found, [expected.item()], rtol=1e-5)


def test_a_student_learns_what_its_teacher_knows_where_labels_say_nothing():
    student, teacher = pair()
    x = normal(64, 2)
    wanted = teacher(Tensor(x)).data.argmax(axis=1)
    noise = new().integers(0, 3, 64)
    losses = distill(
        student, teacher, [(x, noise)], Adam(student.parameters(), lr=0.05), epochs=60, alpha=1.0
    )
    assert losses[-1] < losses[0] / 4
    with no_grad():
        assert (student(Tensor(x)).data.argmax(axis=1) == wanted).mean() > 0.75


def test_nothing_to_learn_from_is_an_error():
    student, teacher = pair()
    with expect_error(ValueError):
        distill(student, teacher, [], SGD(student.parameters(), lr=0.1))


def test_no_epochs_are_no_losses():
    student, teacher = pair()
    expect(distill(student, teacher, data(), SGD(student.parameters(), lr=0.1), epochs=0), [])
