"""Level 1: norms bring each row to one scale, and know of no other row."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect, expect_error
from tinytorch.layers import Parameter
from tinytorch.tensor import Tensor
from tinytorch.transformers import LayerNorm, RMSNorm, layer_norm, rms_norm

some = settings(deadline=None, derandomize=True, max_examples=40)

SHAPES = st.tuples(st.lists(st.integers(0, 3), max_size=3), st.integers(1, 6)).map(lambda s: (*s[0], s[1]))
SEEDS = st.integers(0, 2**16)


def f32(*values):
    return np.array(values, np.float32)


def drawn(shape, seed):
    """x, weight and bias of eighths, in one of several orders of memory."""
    rng = np.random.default_rng(seed)
    x, weight, bias = (rng.integers(-16, 17, s) / 8 for s in (shape, shape[-1:], shape[-1:]))
    if seed % 3 == 1:
        x = np.asfortranarray(x)
    elif seed % 3 == 2:
        x = np.repeat(x, 2, axis=-1)[..., ::-2]
    return x, weight, bias


def by_rows(x, weight, bias, eps, centred):
    """The definition, a number at a time."""
    out = np.zeros(x.shape)
    for place in np.ndindex(*x.shape[:-1]):
        row = x[place].tolist()
        mean = statistics.fmean(row) if centred else 0.0
        scale = math.sqrt(statistics.fmean((v - mean) ** 2 for v in row) + eps)
        out[place] = [(v - mean) / scale * w + b for v, w, b in zip(row, weight, bias, strict=True)]
    return out


# 14.1 layer_norm


def test_a_row_by_hand():
    """[1, 3] has mean 2 and variance 1."""
    got = layer_norm(f32([1, 3]), f32(2, 4), f32(10, 20), eps=0.0)
    expect(got, f32([8, 24]))


def test_eps_is_added_to_the_variance_before_the_root():
    """The variance of [-3, 3] is 9, and the root of 9 + 16 is 5."""
    expect(layer_norm(f32([-3, 3]), f32(1, 1), f32(0, 0), eps=16.0), f32([-0.6, 0.6]))


def test_eps_is_a_hundred_thousandth_unless_told():
    """Against a variance of 0.000001, that is most of it."""
    x = np.array([[-1e-3, 1e-3]])
    expect(layer_norm(x, np.ones(2), np.zeros(2)), x / math.sqrt(1e-6 + 1e-5))


def test_a_row_of_equal_numbers_gives_the_bias():
    expect(layer_norm(f32([7, 7, 7], [0, 0, 0]), f32(1, 2, 3), f32(4, 5, 6)), f32([4, 5, 6], [4, 5, 6]))


@some
@given(SHAPES, st.sampled_from([0.01, 1.0]), SEEDS)
def test_layer_norm_is_its_definition(shape, eps, seed):
    x, weight, bias = drawn(shape, seed)
    before = x.copy(), weight.copy(), bias.copy()
    expect(layer_norm(x, weight, bias, eps=eps), by_rows(x, weight, bias, eps, True))
    expect((x, weight, bias), before)


@some
@given(st.integers(2, 6), st.integers(-3, 3), SEEDS)
def test_what_all_numbers_of_a_row_share_does_not_matter(dim, power, seed):
    """Twice the row, and a row that lies elsewhere, come out as the row does: (x - mean) / deviation."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, dim))
    moved = x * 2.0**power + rng.normal(size=(3, 1))
    plain = np.ones(dim), np.zeros(dim)
    expect(layer_norm(moved, *plain, eps=0.0), layer_norm(x, *plain, eps=0.0).data, rtol=1e-8)


def test_a_row_far_from_zero_keeps_its_digits(rng):
    """mean(x²) - mean(x)² of numbers near 3,000 has none left in float32."""
    x = (3000 + rng.normal(size=(4, 50))).astype(np.float32)
    weight, bias = np.ones(50, np.float32), np.zeros(50, np.float32)
    exact = by_rows(x.astype(np.float64), weight, bias, 1e-5, True)
    expect(layer_norm(x, weight, bias).data.astype(np.float64), exact, atol=2e-3)


@pytest.mark.parametrize(
    ("given_dtype", "dtype"), [("f4", "f4"), ("f8", "f8"), ("i8", "f4"), ("u1", "f4")], ids=str
)
def test_norms_keep_floats_and_make_integers_float32(given_dtype, dtype):
    """Whatever the dtype of the weights, which are float32 in a model and float64 in a gradient check."""
    x = np.array([[1, 3], [5, 7]], given_dtype)
    for weight in (np.ones(2, np.float32), np.ones(2)):
        expect(layer_norm(x, weight, 0 * weight, eps=0.0), np.array([[-1, 1], [-1, 1]], dtype))
        root = np.sqrt(np.array([[5], [37]], dtype))
        expect(rms_norm(x, weight, eps=0.0), x.astype(dtype) / root)


@pytest.mark.parametrize("dtype", ["u1", "i2"], ids=str)
def test_squares_of_small_integers_are_not_cut_off(dtype):
    """The mean of the squares of 150 and 210 is 33,300: more than either dtype holds."""
    x, weight = np.array([[150, 210]], dtype), f32(1, 1)
    expect(layer_norm(x, weight, 0 * weight, eps=0.0), f32([-1, 1]))
    expect(rms_norm(x, weight, eps=0.0), f32([150, 210]) / np.sqrt(np.float32(33_300)))


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (0,), (2, 0)], ids=str)
def test_norms_of_nothing_are_nothing(shape):
    x, weight = np.empty(shape, np.float32), np.ones(shape[-1:], np.float32)
    expect(layer_norm(x, weight, weight), x)
    expect(rms_norm(x, weight), x)
    for op, arrays in ((layer_norm, (x, weight, weight)), (rms_norm, (x, weight))):
        out, back = op.vjp(*arrays)
        expect(list(map(np.shape, back(out))), list(map(np.shape, arrays)))


@pytest.mark.parametrize(
    ("x", "weight", "bias"),
    [
        ((2, 3), (2,), (3,)),
        ((2, 3), (3,), (2,)),
        ((3,), (1,), (3,)),
        ((2, 3), (3,), (2, 3)),
        ((), (1,), (1,)),
    ],
    ids=str,
)
def test_weights_that_do_not_fit_are_named_by_shape(x, weight, bias):
    """Also where numpy would stretch them."""
    with expect_error(ValueError, str(x), str(weight), str(bias)):
        layer_norm(np.ones(x, np.float32), np.ones(weight, np.float32), np.ones(bias, np.float32))


# 14.3 LayerNorm


def test_a_new_layer_norm_scales_by_one_and_shifts_by_nothing():
    layer = LayerNorm(3)
    expect([layer.weight, layer.bias], [f32(1, 1, 1), f32(0, 0, 0)])
    expect([*layer.state_dict()], ["weight", "bias"])
    assert all(isinstance(p, Parameter) for p in (layer.weight, layer.bias))
    expect((layer.eps, repr(layer)), (1e-5, "LayerNorm(3, eps=1e-05)"))


def test_two_norms_hold_numbers_of_their_own():
    """Also where both are as wide: what one learns is not the other's."""
    for kind in (LayerNorm, RMSNorm):
        one, other = kind(3), kind(3)
        for p in one.parameters():
            p.data += 1
        expect(other.weight, f32(1, 1, 1))
        if kind is LayerNorm:
            expect(other.bias, f32(0, 0, 0))


@pytest.mark.parametrize("training", [True, False])
def test_a_layer_norm_uses_what_it_holds(training):
    """Trained or used, it does the same: nothing about a batch is remembered."""
    layer = LayerNorm(2, eps=16.0).train(training)
    layer.weight.data[:], layer.bias.data[:] = (1, 10), (5, 0)
    expect(layer(Tensor(f32([-3, 3], [1, 1]))), f32([4.4, 6], [5, 0]))


# 14.4 rms_norm


def test_a_root_mean_square_by_hand():
    """The mean of 1 and 49 is 25."""
    expect(rms_norm(f32([1, 7]), f32(1, 10), eps=0.0), f32([0.2, 14]))


def test_its_eps_is_added_to_the_mean_square_before_the_root():
    expect(rms_norm(f32([3, -3]), f32(1, 1), eps=16.0), f32([0.6, -0.6]))
    x = np.array([[1e-3, 1e-3]])
    expect(rms_norm(x, np.ones(2)), x / math.sqrt(2e-6))


@some
@given(SHAPES, st.sampled_from([0.01, 1.0]), SEEDS)
def test_rms_norm_is_its_definition(shape, eps, seed):
    x, weight, _ = drawn(shape, seed)
    before = x.copy(), weight.copy()
    expect(rms_norm(x, weight, eps=eps), by_rows(x, weight, 0 * weight, eps, False))
    expect((x, weight), before)


@pytest.mark.parametrize(("x", "weight"), [((2, 3), (2,)), ((3,), (1,)), ((2, 3), (2, 3))], ids=str)
def test_a_weight_of_rms_norm_that_does_not_fit_is_named_by_shape(x, weight):
    with expect_error(ValueError, str(x), str(weight)):
        rms_norm(np.ones(x, np.float32), np.ones(weight, np.float32))


# 14.5 RMSNorm


def test_a_new_rms_norm_scales_by_one():
    layer = RMSNorm(3)
    expect(layer.weight, f32(1, 1, 1))
    expect([*layer.state_dict()], ["weight"])
    assert isinstance(layer.weight, Parameter)
    expect((layer.eps, repr(layer)), (1e-6, "RMSNorm(3, eps=1e-06)"))


def test_an_rms_norm_uses_what_it_holds():
    layer = RMSNorm(2, eps=16.0)
    layer.weight.data[:] = 1, 10
    expect(layer(Tensor(f32([3, -3]))), f32([0.6, -6]))
