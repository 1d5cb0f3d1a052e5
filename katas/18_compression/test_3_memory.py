"""Level 3: what is to save memory must not need more of it on its way.

Counted by tracemalloc in bytes, so the figures are the same on every machine. Each budget has a twin: a
naive version, written out here, that must not fit.
"""

import copy

import numpy as np

from dojo.expect import expect
from dojo.measuring import Budget, check_memory_growth, kept_bytes, load_probes, peak_bytes, retained_bytes
from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.activations import log_softmax, softmax
from tinytorch.autograd import no_grad
from tinytorch.compression import (
    MinMaxObserver,
    PercentileObserver,
    QuantizedLinear,
    calibrate,
    distill,
    distillation_loss,
    fake_quantize,
    integer_matmul,
    load_compressed,
    magnitude_mask,
    prune_global,
    quantize,
    quantize_model,
    quantized_affine,
    save_compressed,
    shrink_mlp,
)
from tinytorch.layers import Linear, parameter_bytes
from tinytorch.networks import MLP
from tinytorch.optimizers import SGD
from tinytorch.tensor import Tensor, mul, total

KIB, MIB = 1 << 10, 1 << 20
PROBES = {probe.name: probe for probe in load_probes(__file__).PROBES}

MASK = Budget(
    "magnitude_mask of 1 MiB",
    limit=8,
    reference=2.25,
    naive=36.0,
    unit="times the memory of the weights, at the worst moment",
    naively="a version that sorts pairs of Python numbers",
)
QUANTIZE = Budget(
    "quantize 1 MiB of float32",
    limit=3.4,
    reference=1.25,
    naive=6.2,
    unit="times the memory of the numbers, at the worst moment",
    naively="a version that goes to float64",
)
FLOATS = Budget(
    "integer_matmul of (512, 512) bytes",
    limit=5.8,  # two factors and a product in float32, the product in int64, and half a MiB of bytes
    reference=3.5,
    naive=6.0,
    unit="MiB at the worst moment",
    naively="a version in float64, whatever the sums",
)
HELD = Budget(
    "a layer in 8 bits",
    limit=0.4,
    reference=0.255,
    naive=1.25,
    unit="times the memory of the Linear it was",
    naively="a version that keeps the floats, too",
)
FORWARD = Budget(
    "using a layer of 4 MiB in 8 bits",
    limit=0.6,
    reference=0.07,
    naive=1.0,
    unit="times the memory of its weights as floats, at the worst moment",
    naively="a version that makes floats of all weights first",
)
MODEL = Budget(
    "quantize_model of 3 MiB",
    limit=0.9,
    reference=0.59,
    naive=1.4,
    unit="times the memory of the model, at the worst moment",
    naively="a version that copies the model, and then replaces its layers",
)
CALIBRATE = Budget(
    "calibrating with 16 batches of 256 KiB",
    limit=6.0,
    reference=3.2,
    naive=17.0,
    unit="times the memory of a batch, at the worst moment",
    naively="a version that keeps what went into the layers",
)
FAKE = Budget(
    "fake_quantize of 1 MiB within a range",
    limit=0.6,
    reference=0.25,
    naive=1.0,
    unit="times the memory of its input, for the way back, without the result",
    naively="a version that keeps its input",
)
LOSS = Budget(
    "distillation_loss",
    limit=1.6,
    reference=1.0,
    naive=4.0,
    unit="times the memory of the logits, for the way back",
    naively="a loss made of single operations",
)
SAVE = Budget(
    "saving 4 MiB in 8 layers, half of them sparse",
    limit=0.7,
    reference=0.054,
    naive=2.0,
    unit="times the memory of the model, at the worst moment",
    naively="a version that puts all bytes together first",
)
LOAD = Budget(
    "loading 4 MiB that are sparse",
    limit=2.3,
    reference=1.4,
    naive=3.0,
    unit="times the memory of what is loaded, at the worst moment",
    naively="a version that goes by Python's numbers, or by float64",
)


def random(rng, *shape):
    return rng.standard_normal(shape, np.float32)


# 18.1 magnitude_mask


def test_a_mask_needs_little_more_than_the_magnitudes(rng):
    """A copy of them and a few numbers for each; sorting places takes twice as many bytes more."""
    weight = random(rng, 512, 512)
    MASK.check(peak_bytes(lambda: magnitude_mask(weight, 0.9)) / weight.nbytes)


def test_the_twin_that_sorts_pairs_is_caught(rng):
    weight = random(rng, 64, 128)

    def pairs():
        ranked = sorted((abs(w), i) for i, w in enumerate(weight.ravel().tolist()))
        return [i for _, i in ranked[: len(ranked) // 2]]

    MASK.catches(peak_bytes(pairs) / weight.nbytes)


# 18.5 shrink_mlp


def test_a_smaller_network_holds_no_part_of_the_larger_one(rng):
    """A view of a few rows would keep the whole weight alive."""

    def made():
        return shrink_mlp(MLP([256, 512, 256, 64], rng=rng), 0.25)

    numbers = 128 * 256 + 128 + 64 * 128 + 64 + 64 * 64 + 64
    expect(kept_bytes(made) / (4 * numbers), 1.0, atol=0.25)


# 18.8 quantize


def test_quantizing_needs_one_table_of_floats_and_one_of_bytes(rng):
    x = random(rng, 512, 512)
    for options in ({}, {"axis": 0}, {"axis": 1, "symmetric": False}, {"within": (-1.0, 1.0)}):
        QUANTIZE.check(peak_bytes(lambda options=options: quantize(x, **options)) / x.nbytes)


def test_the_twin_that_goes_to_float64_is_caught(rng):
    x = random(rng, 512, 512)

    def naive():
        scale = abs(x).max() / 127
        exact = x.astype(np.float64)
        whole = np.round(exact / scale)
        return np.clip(whole, -127, 127).astype(np.int8)

    QUANTIZE.catches(peak_bytes(naive) / x.nbytes)


def test_what_is_quantized_keeps_a_quarter(rng):
    x = random(rng, 512, 512)
    expect(kept_bytes(lambda: quantize(x)) / x.nbytes, 0.25, atol=0.02)
    expect(kept_bytes(lambda: quantize(x, 16)) / x.nbytes, 0.5, atol=0.02)


# 18.9 observers


def test_an_observer_keeps_no_batch(rng):
    for make in (MinMaxObserver, PercentileObserver):

        def seen(make=make):
            one = make()
            for _ in range(4):
                one.observe(random(rng, 256, 256))
            return one, one.range()

        expect(kept_bytes(seen) / KIB, 0.0, atol=64.0)


# 18.10 integer_matmul


def matrices(rng):
    return [rng.integers(-127, 128, (512, 512)).astype(np.int8) for _ in range(2)]


def test_bytes_become_floats_of_four(rng):
    a, b = matrices(rng)
    FLOATS.check(peak_bytes(lambda: integer_matmul(a, b)) / MIB)


def test_the_twin_in_float64_is_caught(rng):
    a, b = matrices(rng)
    FLOATS.catches(peak_bytes(lambda: a.astype(np.float64) @ b.astype(np.float64)) / MIB)


def test_a_product_keeps_nothing(rng):
    a, b = (rng.integers(-127, 128, (256, 256)).astype(np.int8) for _ in range(2))
    expect(retained_bytes(lambda: integer_matmul(a, b)) / KIB, 0.0, atol=32.0)


# 18.11 QuantizedLinear


def test_a_layer_in_8_bits_is_a_quarter_of_what_it_was(rng):
    linear = Linear(512, 512, rng=rng)
    for options in ({}, {"per_channel": False}, {"input_range": (-1.0, 1.0)}):
        HELD.check(
            kept_bytes(lambda options=options: QuantizedLinear(linear, **options)) / parameter_bytes(linear)
        )


def test_and_stays_so_while_it_is_used(rng):
    """Floats that were made once and kept would be as large as the Linear."""
    linear, x = Linear(512, 512, rng=rng), Tensor(random(rng, 4, 512))

    def used(options):
        layer = QuantizedLinear(linear, **options)
        with no_grad():
            layer(x)
        return layer

    for options in ({}, {"input_range": (-1.0, 1.0)}):
        HELD.check(kept_bytes(lambda options=options: used(options)) / parameter_bytes(linear))


def test_the_twin_that_keeps_the_floats_is_caught(rng):
    linear = Linear(512, 512, rng=rng)
    HELD.catches(
        kept_bytes(lambda: (quantize(linear.weight), linear.weight.data.copy())) / parameter_bytes(linear)
    )


def test_floats_are_made_of_some_rows_at_a_time(rng):
    values, scale = rng.integers(-127, 128, (1024, 1024)).astype(np.int8), random(rng, 1024)
    x = random(rng, 4, 1024)
    layer = QuantizedLinear(Linear(1024, 1024, rng=rng))
    with no_grad():
        for use in (lambda: quantized_affine(x, values, scale), lambda: layer(Tensor(x))):
            FORWARD.check(peak_bytes(use) / (4 * MIB))


def test_the_twin_that_makes_floats_of_all_is_caught(rng):
    values = rng.integers(-127, 128, (1024, 1024)).astype(np.int8)
    x = random(rng, 4, 1024)
    FORWARD.catches(peak_bytes(lambda: x @ values.astype(np.float32).T) / (4 * MIB))


# 18.12 quantize_model


def model(rng):
    return MLP([512, 512, 512, 512], rng=rng)


def test_a_model_is_never_there_twice(rng):
    net = model(rng)
    MODEL.check(peak_bytes(lambda: quantize_model(net)) / parameter_bytes(net))


def test_the_twin_that_copies_first_is_caught(rng):
    net = model(rng)

    def naive():
        other = copy.deepcopy(net)
        first = quantize(other[0].weight)
        return other, first

    MODEL.catches(peak_bytes(naive) / parameter_bytes(net))


def test_a_quantized_model_keeps_nothing_of_the_one_it_was(rng):
    def made():
        return quantize_model(model(rng), calibration=[random(rng, 4, 512)])

    expect(kept_bytes(made) / (3 * MIB), 0.26, atol=0.05)


def test_calibration_keeps_no_batch(rng):
    net = MLP([256, 256, 256], rng=rng)
    batch = 256 * 256 * 4

    def drawn():
        return (random(rng, 256, 256) for _ in range(16))

    CALIBRATE.check(peak_bytes(lambda: calibrate(net, drawn())) / batch)


def test_the_twin_that_keeps_batches_is_caught(rng):
    batch = 256 * 256 * 4
    CALIBRATE.catches(peak_bytes(lambda: [random(rng, 256, 256) for _ in range(17)]) / batch)


# 18.13 fake_quantize


def test_a_line_needs_a_bool_for_each_number_or_nothing(rng):
    x = random(rng, 512, 512)

    def kept(**options):
        def there():
            leaf = Tensor(x, requires_grad=True)
            return fake_quantize(leaf * 2.0, **options)

        return (kept_bytes(there) - x.nbytes) / x.nbytes

    FAKE.check(kept(within=(-1.0, 1.0)))
    expect(kept(), 0.0, atol=0.05)
    expect(kept(axis=0, bits=4), 0.0, atol=0.05)


def test_the_twin_that_keeps_its_input_is_caught(rng):
    x = random(rng, 512, 512)

    def there():
        mine = x * 2
        return mine, np.clip(mine, -1, 1)

    FAKE.catches((kept_bytes(there) - x.nbytes) / x.nbytes)


# 18.14 distillation_loss


def test_a_loss_keeps_one_table(rng):
    student, teacher, labels = random(rng, 512, 512), random(rng, 512, 512), rng.integers(0, 512, 512)
    LOSS.check(
        kept_bytes(lambda: distillation_loss(Tensor(student, requires_grad=True) * 2.0, teacher, labels))
        / student.nbytes
    )


def test_the_twin_of_single_operations_is_caught(rng):
    student, teacher = random(rng, 512, 512), random(rng, 512, 512)

    def naive():
        s = Tensor(student, requires_grad=True) * 2.0
        q = log_softmax(s * 0.25, axis=1)
        p = softmax(Tensor(teacher) * 0.25, axis=1)
        return total(mul(p, q)) + total(log_softmax(s, axis=1) * 0.5)

    LOSS.catches(kept_bytes(naive) / student.nbytes)


# 18.15 distill


def test_distilling_keeps_no_batch(rng):
    student, teacher = MLP([256, 64, 10], rng=rng), MLP([256, 64, 10], rng=rng)
    optimizer = SGD(student.parameters(), lr=0.01)

    def batches():
        return ((random(rng, 256, 256), rng.integers(0, 10, 256)) for _ in range(4))

    once = retained_bytes(lambda: distill(student, teacher, batches(), optimizer, epochs=1))
    expect(once / KIB, 0.0, atol=160.0)  # gradients of 65 KiB may stay


# 18.16 save_compressed, load_compressed


def layers(rng):
    """Eight of 512 KiB, of which every other is sparse."""
    net = MLP([256, 512] * 4 + [256], rng=rng)
    for i, layer in enumerate(net):
        if i % 4 == 0:
            layer.weight.data[rng.random(layer.weight.shape) < 0.9] = 0
    return net


def test_a_model_is_written_layer_by_layer(rng, tmp_path):
    net = layers(rng)
    SAVE.check(peak_bytes(lambda: save_compressed(net, tmp_path / "a")) / parameter_bytes(net))


def test_the_twin_that_puts_all_bytes_together_is_caught(rng):
    net = layers(rng)

    def naive():
        parts = [array.tobytes() for array in net.state_dict().values()]
        return b"".join(parts)

    SAVE.catches(peak_bytes(naive) / parameter_bytes(net))


def test_what_is_loaded_is_read_once(rng, tmp_path):
    net = MLP([1024, 1024], rng=rng)
    prune_global(net, 0.9)
    save_compressed(net, tmp_path / "a")
    LOAD.check(peak_bytes(lambda: load_compressed(tmp_path / "a")) / parameter_bytes(net))


def test_the_twin_that_loads_by_way_of_float64_is_caught(rng):
    LOAD.catches(peak_bytes(lambda: np.zeros(MIB, np.float64).astype(np.float32)) / (4 * MIB))


# All


def test_memory_grows_as_said():
    for name in ("magnitude_mask of n weights", "quantize (n, n), a scale a row", "dequantize (n, n)"):
        check_memory_growth(PROBES[name])
