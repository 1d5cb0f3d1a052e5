"""Level 3: an affine map needs memory for its answers, and a module for its parameters.

Counted by tracemalloc in bytes, so the figures are the same on every machine. Each budget has a twin: a
naive version, written out here, that must not fit.
"""

import weakref

import numpy as np
import pytest

from dojo.expect import expect
from dojo.measuring import Budget, kept_bytes, load_probes, memory_growth, peak_bytes, retained_bytes
from tinytorch.layers import Linear, Module, affine, parameter_bytes, summary
from tinytorch.tensor import Tensor, set_recorder

KIB, MIB = 1 << 10, 1 << 20

PROBES = {probe.name: probe for probe in load_probes(__file__).PROBES}

OUTPUT = Budget(
    "affine",
    limit=1.75,
    reference=1.26,  # 0.26 is numpy's buffer for a bias that is read again for each row
    naive=2.26,
    unit="outputs at the worst moment",
    naively="a version that adds the bias into another array",
)
OPERANDS = Budget(
    "affine with an operand of 1 MiB and a small output",
    limit=0.5,
    reference=0.02,
    naive=1.0,
    unit="operands at the worst moment",
    naively="a version that copies the operand",
)
KEPT = Budget(
    "what the way back keeps of an affine map of 1 MiB",
    limit=0.5,
    reference=0.0,
    naive=1.0,
    unit="MiB beyond the inputs",
    naively="a version that keeps the output, or a copy of an input,",
)
BACK = Budget(
    "the way back",
    limit=2.0,
    reference=1.02,
    naive=53,
    unit="times the memory of its three gradients, at the worst moment",
    naively="a version that lays out the product of each row before it adds them up",
)
UNWANTED = Budget(
    "a gradient of 1 MiB that nobody wants",
    limit=0.5,
    reference=0.02,
    naive=1.0,
    unit="MiB at the worst moment",
    naively="a version that computes it all the same",
)
DRAW = Budget(
    "a new Linear",
    limit=2.5,
    reference=1.0,
    naive=3.0,
    unit="times the memory of its parameters, at the worst moment",
    naively="a version that draws float64 and converts",
)
STATE = Budget(
    "the state_dict of 1 MiB of parameters",
    limit=64,
    reference=1.0,
    naive=1024,
    unit="KiB",
    naively="a version that copies",
)
LOAD = Budget(
    "load_state_dict of 1 MiB",
    limit=256,
    reference=1.3,
    naive=1024,
    unit="KiB at the worst moment",
    naively="a version that copies or converts before it writes",
)
SUMMARY = Budget(
    "the summary of a network with an output of 1 MiB",
    limit=64,
    reference=0.8,
    naive=1024,
    unit="KiB that stay",
    naively="a version that keeps the outputs",
)
GROWTH = Budget(
    "affine: peak bytes over the side n",
    limit=2.5,
    reference=2.0,
    naive=3.0,
    unit="as the power of n",
    naively="a version that lays out all n * n * n products",
)


def random(rng, *shape):
    return rng.random(shape, np.float32)


# There.


@pytest.mark.parametrize("leading", [(256,), (8, 32)])
def test_the_output_is_all_that_is_allocated(leading, rng):
    """128 KiB: numpy would save the careless a copy above 256 KiB, on some systems."""
    x, weight, bias = random(rng, *leading, 128), random(rng, 128, 128), random(rng, 128)
    OUTPUT.check(peak_bytes(lambda: affine(x, weight, bias)) / (128 * KIB))


def test_the_twin_that_adds_into_another_array_is_caught(rng):
    def careless(x, weight, bias):
        product = x @ weight.T
        return product + bias

    x, weight, bias = random(rng, 256, 128), random(rng, 128, 128), random(rng, 128)
    OUTPUT.catches(peak_bytes(lambda: careless(x, weight, bias)) / (128 * KIB))


def test_no_operand_is_copied(rng):
    few, weight, bias = random(rng, 8, 512), random(rng, 512, 512), random(rng, 512)
    OPERANDS.check(peak_bytes(lambda: affine(few, weight, bias)) / MIB)
    many, narrow = random(rng, 32, 16, 512), random(rng, 4, 512)
    OPERANDS.check(peak_bytes(lambda: affine(many, narrow)) / MIB)


def test_the_twin_that_copies_the_transposed_weights_is_caught(rng):
    few, weight = random(rng, 8, 512), random(rng, 512, 512)
    OPERANDS.catches(peak_bytes(lambda: few @ np.ascontiguousarray(weight.T)) / MIB)


def test_memory_grows_as_the_output():
    GROWTH.check(memory_growth(PROBES["affine (n, n) by (n, n)"]))


def test_the_twin_that_lays_out_every_product_is_caught(rng):
    def peak(n):
        x, weight = random(rng, n, n), random(rng, n, n)
        return peak_bytes(lambda: (x[:, None, :] * weight).sum(axis=-1))

    GROWTH.catches(np.log2(peak(128) / peak(64)))


# And back.


def test_the_way_back_keeps_the_inputs_and_nothing_else(rng):
    """They are there anyway: the weights are parameters, the input is what the layer before gave."""
    x, weight, bias = random(rng, 512, 512), random(rng, 512, 512), random(rng, 512)
    KEPT.check(kept_bytes(lambda: affine.vjp(x, weight, bias)[1]) / MIB)


def test_the_twin_that_keeps_a_copy_is_caught(rng):
    weight = random(rng, 512, 512)

    def there():
        transposed = np.ascontiguousarray(weight.T)
        return lambda grad: grad @ transposed.T

    KEPT.catches(kept_bytes(there) / MIB)


GRADIENTS = (256 * 64 + 64 * 64 + 64) * 4  # bytes: of x (256, 64), of the weight (64, 64), of the bias


def test_the_way_back_needs_memory_for_its_gradients(rng):
    for leading in ((256,), (32, 8)):
        grad = random(rng, *leading, 64)
        _, back = affine.vjp(random(rng, *leading, 64), random(rng, 64, 64), random(rng, 64))
        BACK.check(peak_bytes(lambda back=back, grad=grad: back(grad)) / GRADIENTS)


def test_the_twin_that_lays_out_a_product_for_each_row_is_caught(rng):
    def rule(grad, x, weight):
        return grad @ weight, (grad[:, :, None] * x[:, None, :]).sum(axis=0), grad.sum(axis=0)

    grad, x, weight = random(rng, 256, 64), random(rng, 256, 64), random(rng, 64, 64)
    BACK.catches(peak_bytes(lambda: rule(grad, x, weight)) / GRADIENTS)


def way_back(x, weight, bias, wanted):
    """The rule as an engine would call it (kata 06), for inputs of which some want no gradient."""
    kept, tensors = [], [Tensor(a, need) for a, need in zip((x, weight, bias), wanted, strict=True)]
    note = lambda op, inputs, arrays, params, out: kept.append(op.keep(out.data, arrays, params))  # noqa: E731
    before = set_recorder(note)
    try:
        affine(*tensors)
    finally:
        set_recorder(before)
    return lambda grad: affine.pull(grad, *kept[0])


def test_a_gradient_that_is_not_wanted_is_not_computed(rng):
    """A first layer's input is data, a frozen layer's weights stay: a third of the work each."""
    pixels, weight, bias = random(rng, 1024, 256), random(rng, 16, 256), random(rng, 16)
    back, grad = way_back(pixels, weight, bias, (False, True, True)), random(rng, 1024, 16)
    UNWANTED.check(peak_bytes(lambda: back(grad)) / MIB)
    assert back(grad)[0] is None
    x, frozen, bias = random(rng, 16, 512), random(rng, 512, 512), random(rng, 512)
    back, grad = way_back(x, frozen, bias, (True, False, False)), random(rng, 16, 512)
    UNWANTED.check(peak_bytes(lambda: back(grad)) / MIB)
    assert (back(grad)[1], back(grad)[2]) == (None, None)


def test_the_twin_that_computes_every_gradient_is_caught(rng):
    def rule(grad, x, weight):
        return grad @ weight, grad.T @ x, grad.sum(axis=0)

    pixels, weight, grad = random(rng, 1024, 256), random(rng, 16, 256), random(rng, 1024, 16)
    UNWANTED.catches(peak_bytes(lambda: rule(grad, pixels, weight)) / MIB)


# Parameters.


def test_parameters_are_drawn_in_float32(rng):
    DRAW.check(peak_bytes(lambda: Linear(512, 512, rng=rng)) / MIB)
    kept = kept_bytes(lambda: Linear(512, 512, rng=rng))
    expect(kept / parameter_bytes(Linear(512, 512, rng=rng)), 1.0, atol=0.02)


def test_the_twin_that_draws_float64_is_caught(rng):
    DRAW.catches(peak_bytes(lambda: rng.uniform(-1, 1, (512, 512)).astype(np.float32)) / MIB)


@pytest.fixture
def layer(rng):
    """1 MiB of weights, no bias."""
    return Linear(512, 512, bias=False, rng=rng)


def test_a_state_shows_the_arrays_that_are_there(layer):
    STATE.check(peak_bytes(layer.state_dict) / KIB)


def test_the_twin_that_copies_the_state_is_caught(layer):
    STATE.catches(peak_bytes(lambda: {"weight": layer.weight.data.copy()}) / KIB)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_state_is_loaded_into_the_arrays_that_are_there(dtype, layer, rng):
    state = {"weight": rng.random((512, 512), dtype)}
    LOAD.check(peak_bytes(lambda: layer.load_state_dict(state)) / KIB)
    expect(retained_bytes(lambda: layer.load_state_dict(state)) / KIB, 0.0, atol=8.0)


def test_the_twin_that_converts_the_state_is_caught(layer, rng):
    state = rng.random((512, 512))
    LOAD.catches(peak_bytes(lambda: np.copyto(layer.weight.data, state.astype(np.float32))) / KIB)


@pytest.fixture
def net(rng):
    """64 -> 1024 -> 64."""
    net = Module()
    net.layers = [Linear(64, 1024, rng=rng), Linear(1024, 64, rng=rng)]
    net.forward = lambda x: net.layers[1](net.layers[0](x))
    return net


def test_a_summary_keeps_numbers_and_no_array(net, rng):
    x = Tensor(random(rng, 256, 64))  # the hidden layer gives (256, 1024): 1 MiB
    SUMMARY.check(kept_bytes(lambda: summary(net, x)) / KIB)
    expect(retained_bytes(lambda: summary(net, x)) / KIB, 0.0, atol=8.0)


def test_a_layer_lets_go_of_what_went_through(net, rng):
    """After a forward pass, and after a summary of one."""
    for use in (net, lambda x: summary(net, x)):
        x = Tensor(random(rng, 2, 64))
        came = weakref.ref(x)
        use(x)
        del x
        expect(came(), None)


def test_the_twin_that_keeps_outputs_is_caught(rng):
    x, weight = random(rng, 256, 64), random(rng, 1024, 64)
    SUMMARY.catches(kept_bytes(lambda: x @ weight.T) / KIB)
