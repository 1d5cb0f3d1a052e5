"""Level 2: every rule against central differences, over strides, paddings, dilations, groups, odd sizes."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import tinytorch.spatial as spatial
from dojo.expect import expect
from dojo.measuring import check_formula, check_gradient
from tinytorch.activations import relu
from tinytorch.autograd import is_grad_enabled
from tinytorch.spatial import (
    BatchNorm2d,
    ResidualBlock,
    avg_pool2d,
    batch_norm,
    col2im,
    conv2d,
    im2col,
    max_pool2d,
)
from tinytorch.tensor import Tensor, set_recorder

steady = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
some = settings(steady, max_examples=15)

SEEDS = st.integers(0, 2**16)
SIZES = st.tuples(st.integers(1, 5), st.integers(1, 5))
KERNELS = st.tuples(st.integers(1, 3), st.integers(1, 3))
STEPS = st.tuples(st.integers(1, 2), st.integers(1, 2))
BORDERS = st.tuples(st.integers(0, 2), st.integers(0, 2))
CHANNELS = st.integers(1, 2)


@pytest.fixture(params=["one piece", "many pieces"])
def cache(request, monkeypatch):
    """Once with everything in one chunk, once with a cache so small that every chunk is a row."""
    if request.param == "many pieces":
        monkeypatch.setattr(spatial, "CACHE", 64, raising=False)


def fit(size, kernel, padding, dilation=(1, 1)):
    numbers = zip(size, kernel, padding, dilation, strict=True)
    return all(n + 2 * p > d * (k - 1) for n, k, p, d in numbers)


# 07.6 col2im


@settings(steady, max_examples=40)
@given(st.integers(0, 2), CHANNELS, SIZES, KERNELS, STEPS, BORDERS, STEPS, SEEDS)
def test_col2im_is_the_transpose_of_im2col(n, channels, size, kernel, stride, padding, dilation, seed):
    """<im2col(x), columns> is <x, col2im(columns)>, whatever both are: that is what a gradient is."""
    assume(fit(size, kernel, padding, dilation))
    rng = np.random.default_rng(seed)
    x = rng.integers(-8, 9, (n, channels, *size)) / 8
    seen = im2col(x, kernel, stride, padding, dilation)
    columns = rng.integers(-8, 9, seen.shape) / 8
    back = col2im(columns, x.shape, kernel, stride, padding, dilation)
    expect(back.shape, x.shape)
    expect(float((x * back).sum()), float((seen * columns).sum()))


# 07.7 conv2d_back


def drawn(n, groups, channels, size, kernel, has_bias, seed):
    rng = np.random.default_rng(seed)
    ins, outs = (groups * c for c in channels)
    arrays = [rng.integers(-8, 9, (n, ins, *size)) / 8, rng.integers(-8, 9, (outs, channels[0], *kernel)) / 8]
    return [*arrays, rng.integers(-8, 9, outs) / 8][: 2 + has_bias], rng


CONVOLUTIONS = (
    st.integers(1, 2), CHANNELS, st.tuples(CHANNELS, CHANNELS), SIZES, KERNELS, STEPS, BORDERS, STEPS,
    st.booleans(), SEEDS,
)  # fmt: skip


@settings(steady, max_examples=8)
@given(*CONVOLUTIONS)
def test_each_gradient_of_a_convolution_is_the_slope(
    n, groups, channels, size, kernel, stride, padding, dilation, has_bias, seed
):
    assume(fit(size, kernel, padding, dilation))
    arrays, _ = drawn(n, groups, channels, size, kernel, has_bias, seed)
    check_gradient(conv2d, *arrays, stride=stride, padding=padding, dilation=dilation, groups=groups)


@pytest.mark.parametrize("small_cache", [False, True])
@settings(steady, max_examples=40)
@given(*CONVOLUTIONS)
def test_a_step_of_each_input_moves_the_result_as_its_gradient_says(
    small_cache, n, groups, channels, size, kernel, stride, padding, dilation, has_bias, seed
):
    """It is linear in each: a step d moves <grad, out> by <gradient, d>, to the last digit."""
    assume(fit(size, kernel, padding, dilation))
    arrays, rng = drawn(n, groups, channels, size, kernel, has_bias, seed)
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    with pytest.MonkeyPatch.context() as patch:
        if small_cache:
            patch.setattr(spatial, "CACHE", 64, raising=False)
        out, back = conv2d.vjp(*arrays, **params)
        grad = np.asarray(rng.integers(-8, 9, out.shape) / 8, order="CF"[seed % 2])
        gradients = back(grad)
        expect([g.shape for g in gradients[: len(arrays)]], [a.shape for a in arrays])
        for i, gradient in enumerate(gradients[: len(arrays)]):
            step = rng.integers(-8, 9, arrays[i].shape) / 8
            moved = conv2d(*(a + step if i == j else a for j, a in enumerate(arrays)), **params).data
            expect(float((gradient * step).sum()), float((grad * (moved - out)).sum()))


def three_by_three(x, weight, bias):
    """Nine shifted products, in plain numpy."""
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    h, w = x.shape[2] - 2, x.shape[3] - 2
    return bias[:, None, None] + sum(
        np.einsum("nchw,oc->nohw", x[:, :, i : i + h, j : j + w], weight[:, :, i, j])
        for i, j in np.ndindex(3, 3)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_of_a_convolution_are_right_in_their_dtype(dtype, rng):
    assert is_grad_enabled()
    arrays = [rng.normal(size=shape).astype(dtype) for shape in ((2, 3, 5, 4), (4, 3, 3, 3), (4,))]
    check_formula(lambda *t: conv2d(*t, padding=1), three_by_three, *arrays)
    for stride in (1, 2):
        out, back = conv2d.vjp(*arrays, padding=1, stride=stride)
        expect([gradient.dtype for gradient in back(out)], [np.dtype(dtype)] * 3)


def test_pixels_may_be_integers(rng):
    pixels, weight = rng.integers(0, 256, (2, 3, 5, 5), np.uint8), rng.normal(size=(4, 3, 2, 2))
    _, back = conv2d.vjp(pixels, weight)
    grad = rng.normal(size=(2, 4, 4, 4))
    expected = np.zeros_like(weight)
    for i, j in np.ndindex(2, 2):
        under = pixels[:, :, i : i + 4, j : j + 4].astype(np.float64)
        expected[:, :, i, j] = np.einsum("nohw,nchw->oc", grad, under)
    expect(back(grad)[1], expected)


def pulled(op, inputs, wanted, grad, **params):
    """The rule's answer when only some gradients are wanted, as the engine of kata 06 would ask for it."""
    kept, tensors = [], [Tensor(a, need) for a, need in zip(inputs, wanted, strict=True)]
    note = lambda op, inputs, arrays, params, out: kept.append(op.keep(out.data, arrays, params))  # noqa: E731
    before = set_recorder(note)
    try:
        op(*tensors, **params)
    finally:
        set_recorder(before)
    return op.pull(grad, *kept[0])


@pytest.mark.parametrize("wanted", list(itertools.product((True, False), repeat=3))[:-1])
def test_what_is_wanted_of_a_convolution_is_there_whatever_else_is(wanted, cache, rng):
    arrays = [rng.normal(size=shape) for shape in ((2, 4, 5, 5), (6, 2, 3, 3), (6,))]
    out, back = conv2d.vjp(*arrays, groups=2)
    grad = rng.normal(size=out.shape)
    for got, right, need in zip(
        pulled(conv2d, arrays, wanted, grad, groups=2), back(grad), wanted, strict=True
    ):
        if need:
            expect(got, right)


def test_of_no_images_the_gradients_are_zeros():
    _, back = conv2d.vjp(np.zeros((0, 2, 3, 3)), np.ones((4, 2, 2, 2)), np.ones(4))
    expect(tuple(back(np.zeros((0, 4, 2, 2)))), (np.zeros((0, 2, 3, 3)), np.zeros((4, 2, 2, 2)), np.zeros(4)))


def test_a_rule_can_be_used_more_than_once(rng):
    x, weight = rng.normal(size=(2, 2, 4, 4)), rng.normal(size=(3, 2, 2, 2))
    for op, arrays, params in (
        (conv2d, (x, weight), {"padding": 1}),
        (max_pool2d, (x,), {"kernel": 2}),
        (avg_pool2d, (x,), {"kernel": 2}),
        (batch_norm, (x, weight[:2, 0, 0, 0], weight[:2, 0, 0, 1]), {}),
    ):
        out, back = op.vjp(*arrays, **params)
        grad = rng.normal(size=out.shape)
        as_list = lambda grads: [np.asarray(g) for g in (grads if isinstance(grads, tuple) else (grads,))]  # noqa: E731
        first = [g.copy() for g in as_list(back(grad)) if g.ndim]
        back(2 * grad)
        expect([g for g in as_list(back(grad)) if g.ndim], first)


# 07.9 max_pool2d, 07.10 avg_pool2d


@pytest.mark.parametrize("pool", [max_pool2d, avg_pool2d], ids=["max", "avg"])
@some
@given(st.integers(1, 2), CHANNELS, SIZES, KERNELS, st.none() | STEPS, BORDERS, st.booleans(), SEEDS)
def test_the_gradient_of_pooling_is_the_slope(
    pool, n, channels, size, kernel, stride, padding, small_cache, seed
):
    """No two pixels are the same, so that the largest has a slope."""
    assume(fit(size, kernel, padding) and all(2 * p <= k for p, k in zip(padding, kernel, strict=True)))
    rng = np.random.default_rng(seed)
    shape = (n, channels, *size)
    x = rng.permutation(np.arange(float(np.prod(shape)))).reshape(shape) / 8 - 2
    with pytest.MonkeyPatch.context() as patch:
        if small_cache:
            patch.setattr(spatial, "CACHE", 64, raising=False)
        check_gradient(pool, x, kernel=kernel, stride=stride, padding=padding)


def test_of_equals_the_first_gets_all():
    """Row by row: after relu a window is often all 0, and its gradient must not count twice or more."""
    x = np.array([[[[0, 0, 1, 3], [0, 0, 3, 3], [2, 5, 7, 7], [5, 5, 7, 7]]]], float)
    _, back = max_pool2d.vjp(x, kernel=2)
    expected = [[1, 0, 0, 2], [0, 0, 0, 0], [0, 3, 4, 0], [0, 0, 0, 0]]
    expect(back(np.array([[[[1, 2], [3, 4]]]], float)), np.array([[expected]], float))
    _, back = max_pool2d.vjp(np.zeros((1, 1, 3, 3)), kernel=2, stride=1)
    expect(
        back(np.array([[[[1, 2], [3, 4]]]], float)), np.array([[[[1, 2, 0], [3, 4, 0], [0, 0, 0]]]], float)
    )
    _, back = max_pool2d.vjp(np.zeros((1, 1, 1, 3)), kernel=(1, 3))
    expect(back(np.array([[[[5.0]]]])), np.array([[[[5.0, 0, 0]]]]))


def test_a_border_gets_no_gradient():
    _, back = max_pool2d.vjp(np.full((1, 1, 2, 2), -1e300), kernel=2, padding=1)
    expect(back(np.ones((1, 1, 2, 2))), np.ones((1, 1, 2, 2)))


@pytest.mark.parametrize("pool", [max_pool2d, avg_pool2d], ids=["max", "avg"])
def test_no_images_have_no_gradient_of_pooling(pool):
    _, back = pool.vjp(np.zeros((0, 2, 4, 4)), kernel=2)
    expect(back(np.zeros((0, 2, 2, 2))), np.zeros((0, 2, 4, 4)))


def test_gradients_of_pooling_keep_their_dtype(rng):
    for pool in (max_pool2d, avg_pool2d):
        x = rng.random((1, 2, 4, 4), np.float32)
        out, back = pool.vjp(x, kernel=2)
        expect(back(np.ones_like(out)).dtype, np.dtype(np.float32))
        expect(float(back(np.ones_like(out)).sum()), 8.0, rtol=1e-6)


# 07.11 batch_norm


@pytest.mark.parametrize("training", [True, False])
@some
@given(st.integers(2, 4), st.integers(1, 3), st.lists(st.integers(1, 3), max_size=2), st.booleans(), SEEDS)
def test_each_gradient_of_batch_norm_is_the_slope(training, n, channels, rest, small_cache, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, channels, *rest)) * 2 + 1
    weight, bias, mean = rng.normal(size=(3, channels))
    params = {} if training else {"running_mean": mean, "running_var": rng.random(channels) + 0.5}
    with pytest.MonkeyPatch.context() as patch:
        if small_cache:
            patch.setattr(spatial, "CACHE", 64, raising=False)
        check_gradient(batch_norm, x, weight, bias, training=training, eps=0.1, **params)


def norm_formula(x, weight, bias, eps=1e-5):
    table = np.moveaxis(x, 1, -1)
    off = table - table.mean(axis=(0, 1, 2))
    return np.moveaxis(off / np.sqrt((off * off).mean(axis=(0, 1, 2)) + eps) * weight + bias, -1, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_of_batch_norm_are_right_in_their_dtype(dtype, rng):
    arrays = [rng.normal(size=shape).astype(dtype) for shape in ((4, 3, 5, 4), (3,), (3,))]
    check_formula(batch_norm, norm_formula, *arrays)


def test_what_lies_far_from_zero_has_right_gradients_too(rng):
    x = (rng.normal(size=(8, 2, 4, 4)) + 1000).astype(np.float32)
    weight, bias, grad = np.ones(2, np.float32), np.zeros(2, np.float32), rng.normal(size=x.shape)
    _, back = batch_norm.vjp(x, weight, bias)
    _, right = batch_norm.vjp(x - np.float32(1000), weight, bias)
    for got, expected in zip(back(grad.astype(np.float32)), right(grad.astype(np.float32)), strict=True):
        expect(got, expected, rtol=1e-3, atol=2e-3 * float(np.abs(expected).max()))


def test_images_that_are_normed_may_be_integers(rng):
    """Two channels of 0 and 200, and of 0 to 6: their mean, deviation and normalised pixels, by hand."""
    pixels = np.array([[0, 0], [200, 6]], np.uint8)
    grad = np.array([[1.0, 2.0], [5.0, 10.0]], np.float32)
    inputs = pixels, np.ones(2, np.float32), np.zeros(2, np.float32)
    expect(batch_norm(*inputs, eps=0.0).data, np.array([[-1, -1], [1, 1]], np.float32))
    grads = pulled(batch_norm, inputs, (False, True, True), grad, eps=0.0)
    expect(tuple(grads)[1:], (np.array([4, 8], np.float32), np.array([6, 12], np.float32)))


def test_no_images_in_use_have_no_gradient_but_zeros():
    ones, zeros = np.ones(3), np.zeros(3)
    seen = {"running_mean": zeros, "running_var": ones}
    _, back = batch_norm.vjp(np.zeros((0, 3, 2, 2)), ones, zeros, **seen, training=False)
    expect(tuple(back(np.zeros((0, 3, 2, 2)))), (np.zeros((0, 3, 2, 2)), zeros, zeros))


def test_a_constant_added_to_the_input_changes_nothing_so_gradients_sum_to_zero(rng):
    x = rng.normal(size=(4, 3, 5, 5))
    _, back = batch_norm.vjp(x, rng.normal(size=3), rng.normal(size=3))
    grad_x = back(rng.normal(size=x.shape))[0]
    expect(grad_x.sum(axis=(0, 2, 3)), np.zeros(3), atol=1e-12)


def test_an_input_that_wants_no_gradient_leaves_the_others_right(rng):
    arrays = rng.normal(size=(4, 3, 2, 2)), rng.normal(size=3), rng.normal(size=3)
    grad = rng.normal(size=(4, 3, 2, 2))
    got = pulled(batch_norm, arrays, (False, True, True), grad)
    expect(tuple(got[1:]), tuple(batch_norm.vjp(*arrays)[1](grad)[1:]))


def test_training_in_between_does_not_touch_what_was_used(rng):
    """The gradient of a pass in use is that of the running mean and variance as they were then."""
    layer, x = BatchNorm2d(2), rng.random((3, 2, 2, 2), np.float32)
    layer.eval()
    out = layer(Tensor(x, requires_grad=True))
    layer.train()(Tensor(5 * x))
    out.backward(np.ones_like(out.data))
    expect(layer.weight.grad, x.sum(axis=(0, 2, 3)) / np.sqrt(np.float32(1 + 1e-5)))


# All of it in a row.


def test_the_gradients_of_a_chain_are_right(rng):
    """Through memory in one order and the other: convolution, norm, relu, both pools, and rows."""

    def chain(x, weight, scale, offset):
        x = relu(batch_norm(conv2d(x, weight, padding=1), scale, offset))
        x = max_pool2d(x, kernel=2) + avg_pool2d(x, kernel=3, stride=2, padding=1)
        return x.reshape(2, 27) @ Tensor(np.linspace(-1, 1, 54).reshape(27, 2))

    arrays = rng.normal(size=(2, 2, 6, 6)), rng.normal(size=(3, 2, 3, 3)), *rng.normal(size=(2, 3))
    check_gradient(chain, *arrays)


def test_the_gradients_of_a_residual_block_are_right(rng):
    block = ResidualBlock(2, 3, 2, rng=rng)
    for parameter in block.parameters():
        parameter.data = parameter.data.astype(np.float64)
    check_gradient(block, rng.normal(size=(3, 2, 3, 3)))
