"""Level 4: masks without sorting one by one, grids without loops, integers by way of BLAS.

Ratios within this run, in CPU time, never seconds. Each budget has a twin: a naive version, written out
here, that must not fit. Nothing asks for a network in 8 bits to be faster than one in floats: in numpy it is
not. What is asked is that it costs little more.
"""

import numpy as np

from dojo.measuring import Budget, race
from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.autograd import no_grad
from tinytorch.compression import (
    QuantizedArray,
    QuantizedLinear,
    distillation_loss,
    integer_matmul,
    load_compressed,
    magnitude_mask,
    quantize,
    quantized_matmul,
    save_compressed,
    shrink_mlp,
    sparse_bytes,
)
from tinytorch.layers import Buffer, Linear, Module
from tinytorch.networks import MLP
from tinytorch.tensor import Tensor

MASK = Budget(
    "magnitude_mask of 16,384 weights",
    limit=3,
    reference=0.04,
    naive=7.4,
    unit="times the time of a stable sort of their magnitudes",
    naively="a version that sorts Python's numbers",
)
BYTES = Budget(
    "sparse_bytes of 16,384 bools",
    limit=8,
    reference=0.3,
    naive=47,
    unit="times the time of adding them up",
    naively="a version that counts one by one",
)
QUANTIZE = Budget(
    "quantize (128, 128), a scale a row",
    limit=7,
    reference=2.4,
    naive=18,
    unit="times the time of its formula in plain numpy",
    naively="a version that goes row by row",
)
PRODUCT = Budget(
    "integer_matmul of (128, 128) bytes",
    limit=7,
    reference=2.3,
    naive=34,  # 13 where products are slow
    unit="times the time of their product as float32",
    naively="numpy's own product of integers",
)
WEIGHTS = Budget(
    "a layer (160, 160) with weights in 8 bits, 128 rows",
    limit=4,
    reference=1.1,
    naive=19,
    unit="times the time of the Linear",
    naively="a version that multiplies numpy's integers",
)
INPUTS = Budget(
    "a layer (160, 160) with inputs in 8 bits, too, 128 rows",
    limit=5,
    reference=2.2,
    naive=17,  # 7.9 where products are slow
    unit="times the time of the Linear, and of rounding its inputs",
    naively="a version that multiplies numpy's integers",
)
LOSS = Budget(
    "distillation_loss of (160, 100), there and back",
    limit=4.5,
    reference=1.2,
    naive=29,
    unit="times the time of its formulas in plain numpy",
    naively="a version that goes row by row",
)
SMALLER = Budget(
    "an MLP 256-512-512-10 with a quarter of its neurons",
    limit=0.6,
    reference=0.25,
    naive=1.0,
    unit="times the time of all of them",
    naively="a version that sets the others to 0",
)
LOADED = Budget(
    "loading 65,536 bytes, of which 90 % are 0",
    limit=16,
    reference=2.7,
    naive=74,
    unit="times the time of reading them with np.load",
    naively="a version that goes bit by bit",
)


def random(rng, *shape):
    return rng.standard_normal(shape, np.float32)


def bytes_of(rng, *shape):
    return rng.integers(-127, 128, shape).astype(np.int8)


# 18.1 magnitude_mask


def by_sorting(weight):
    return np.argsort(abs(weight), kind="stable")


def weights(rng):
    """64 KiB."""
    return (random(rng, 1 << 14),)


def test_a_mask_is_no_slower_than_a_few_sorts(rng):
    MASK.check(
        race(lambda w: magnitude_mask(w, 0.5), by_sorting, limit=MASK.limit, inputs=lambda: weights(rng))
    )


def test_the_twin_that_sorts_python_s_numbers_is_caught(rng):
    def naive(weight):
        return sorted(range(len(weight)), key=lambda i: (abs(weight[i]), i))

    MASK.catches(race(naive, by_sorting, limit=MASK.limit, inputs=lambda: weights(rng)))


# 18.4 sparse_bytes


def bools(rng):
    return (rng.random((128, 128)) < 0.5,)


def test_bytes_are_counted_all_at_once(rng):
    BYTES.check(race(sparse_bytes, np.sum, limit=BYTES.limit, inputs=lambda: bools(rng)))


def test_the_twin_that_counts_one_by_one_is_caught(rng):
    def naive(mask):
        return sum(1 for row in mask for stays in row if stays)

    BYTES.catches(race(naive, np.sum, limit=BYTES.limit, inputs=lambda: bools(rng)))


# 18.5 shrink_mlp


def used(net, x):
    with no_grad():
        return net(Tensor(x))


def test_fewer_neurons_take_less_time(rng):
    net = MLP([256, 512, 512, 10], rng=rng)
    small = shrink_mlp(net, 0.25)
    SMALLER.check(
        race(
            lambda x: used(small, x),
            lambda x: used(net, x),
            limit=SMALLER.limit,
            inputs=lambda: (random(rng, 32, 256),),
        )
    )


def test_the_twin_that_sets_them_to_0_is_caught(rng):
    net, zeroed = (MLP([256, 512, 512, 10], rng=rng) for _ in range(2))
    for layer in (zeroed[0], zeroed[2]):
        layer.weight.data[128:] = 0
    SMALLER.catches(
        race(
            lambda x: used(zeroed, x),
            lambda x: used(net, x),
            limit=SMALLER.limit,
            inputs=lambda: (random(rng, 32, 256),),
        )
    )


# 18.8 quantize


def formula(x):
    scale = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    return np.clip(np.rint(x / scale), -127, 127).astype(np.int8)


def test_quantizing_is_a_few_passes_over_memory(rng):
    QUANTIZE.check(
        race(
            lambda x: quantize(x, axis=0),
            formula,
            limit=QUANTIZE.limit,
            inputs=lambda: (random(rng, 128, 128),),
        )
    )


def test_the_twin_that_goes_row_by_row_is_caught(rng):
    def naive(x):
        return [formula(row[None]) for row in x]

    QUANTIZE.catches(race(naive, formula, limit=QUANTIZE.limit, inputs=lambda: (random(rng, 128, 128),)))


# 18.10 integer_matmul


def matrices(rng):
    return bytes_of(rng, 128, 128), bytes_of(rng, 128, 128)


def floats(a, b):
    return a.astype(np.float32) @ b.astype(np.float32)


def test_integers_are_multiplied_as_fast_as_floats_nearly(rng):
    PRODUCT.check(race(integer_matmul, floats, limit=PRODUCT.limit, inputs=lambda: matrices(rng)))


def test_the_twin_that_multiplies_numpy_s_integers_is_caught(rng):
    def naive(a, b):
        return a.astype(np.int64) @ b.astype(np.int64)

    PRODUCT.catches(race(naive, floats, limit=PRODUCT.limit, inputs=lambda: matrices(rng)))


# 18.10, 18.11 quantized_matmul, QuantizedLinear.forward


def rounded_too(linear, x):
    return formula(x), used(linear, x)


def raced(budget, layer, linear, rng, baseline=used):
    return race(
        lambda x: used(layer, x),
        lambda x: baseline(linear, x),
        limit=budget.limit,
        inputs=lambda: (random(rng, 128, 160),),
    )


def test_weights_in_8_bits_cost_little_time(rng):
    linear = Linear(160, 160, rng=rng)
    for bits in (8, 16):
        WEIGHTS.check(raced(WEIGHTS, QuantizedLinear(linear, bits), linear, rng))


def test_inputs_in_8_bits_cost_some_more(rng):
    linear = Linear(160, 160, rng=rng)
    INPUTS.check(raced(INPUTS, QuantizedLinear(linear, input_range=(-3.0, 3.0)), linear, rng, rounded_too))


class Slow(Module):
    def __init__(self, linear):
        self.q = quantize(linear.weight, axis=0)

    def forward(self, x):
        inputs = quantize(x)
        return Tensor(inputs.values.astype(np.int32) @ self.q.values.T.astype(np.int32) * self.q.scale)


def test_the_twin_of_integers_alone_is_caught(rng):
    linear = Linear(160, 160, rng=rng)
    WEIGHTS.catches(raced(WEIGHTS, Slow(linear), linear, rng))
    INPUTS.catches(raced(INPUTS, Slow(linear), linear, rng, rounded_too))


def test_a_quantised_product_is_an_integer_one_and_some_sums(rng):
    def product(a, b):
        zero, one = np.array(-5, np.int8), np.array(0.5, np.float32)
        return quantized_matmul(QuantizedArray(a, one, zero), QuantizedArray(b, one, zero))

    PRODUCT.check(race(product, floats, limit=PRODUCT.limit, inputs=lambda: matrices(rng)))


# 18.14 distillation_loss


def answers(rng):
    return random(rng, 160, 100), random(rng, 160, 100), rng.integers(0, 100, 160)


def plain(student, teacher, labels):
    def log_softmax(x):
        off = x - x.max(axis=1, keepdims=True)
        return off - np.log(np.exp(off).sum(axis=1, keepdims=True))

    hard, q, p = log_softmax(student), log_softmax(student / 4), log_softmax(teacher / 4)
    rows, soft = np.arange(len(labels)), np.exp(p)
    loss = 8 * (soft * (p - q)).sum(axis=1).mean() - 0.5 * hard[rows, labels].mean()
    slope = 2 * (np.exp(q) - soft) + 0.5 * np.exp(hard)
    slope[rows, labels] -= 0.5
    return loss, slope / len(labels)


def test_a_loss_is_its_formulas(rng):
    def there_and_back(*arrays):
        out, back = distillation_loss.vjp(*arrays)
        return out, back(np.float32(1))

    LOSS.check(race(there_and_back, plain, limit=LOSS.limit, inputs=lambda: answers(rng)))


def test_the_twin_that_goes_answer_by_answer_is_caught(rng):
    def naive(student, teacher, labels):
        return [plain(s[None], t[None], y[None]) for s, t, y in zip(student, teacher, labels, strict=True)]

    LOSS.catches(race(naive, plain, limit=LOSS.limit, inputs=lambda: answers(rng)))


# 18.16 load_compressed


class Weight(Module):
    def __init__(self, array):
        self.weight = Buffer(array)


def sparse(rng):
    """64 KiB of bytes."""
    weight = bytes_of(rng, 1 << 16)
    weight[rng.random(len(weight)) < 0.9] = 0
    return weight


def test_zeros_are_put_back_all_at_once(rng, tmp_path):
    weight = sparse(rng)
    save_compressed(Weight(weight), tmp_path / "a")
    np.save(tmp_path / "b.npy", weight)
    LOADED.check(
        race(lambda: load_compressed(tmp_path / "a"), lambda: np.load(tmp_path / "b.npy"), limit=LOADED.limit)
    )


def test_the_twin_that_goes_bit_by_bit_is_caught(rng, tmp_path):
    weight = sparse(rng)
    np.save(tmp_path / "b.npy", weight)
    bits, values = np.packbits(weight != 0).tobytes(), weight[weight != 0]

    def naive():
        array, at = np.zeros(len(weight), np.int8), 0
        for i in range(len(array)):
            if bits[i // 8] >> (7 - i % 8) & 1:
                array[i] = values[at]
                at += 1
        return array

    LOADED.catches(race(naive, lambda: np.load(tmp_path / "b.npy"), limit=LOADED.limit))
