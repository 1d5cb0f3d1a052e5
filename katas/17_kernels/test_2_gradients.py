"""Level 2: the rules of fused operations, against differences of the operations themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from dojo.expect import expect
from dojo.measuring import check_gradient, load_probes
from tinytorch.autograd import is_grad_enabled
from tinytorch.kernels import (
    CHUNK,
    LinearGELU,
    add_relu,
    linear_gelu,
    parallel_for,
    scale_shift_add_relu,
    softmax_cross_entropy,
    winograd_conv2d,
)
from tinytorch.layers import Linear
from tinytorch.tensor import Tensor

let_meet = load_probes(__file__).let_meet
steady = settings(deadline=None, derandomize=True, max_examples=25)
SEEDS = st.integers(0, 2**32 - 1)


def through_the_engine(op):
    """The op as a function of Tensors, whose gradients the engine brings to the shapes of the inputs."""
    return lambda *operands: op(*operands)


# 17.8 add_relu_back, 17.9 scale_shift_add_relu_back


@steady
@given(mutually_broadcastable_shapes(num_shapes=2, min_side=1, max_side=3, max_dims=3), SEEDS)
def test_the_gradient_of_add_relu(shapes, seed):
    assert is_grad_enabled()
    rng = np.random.default_rng(seed)
    check_gradient(through_the_engine(add_relu), *(rng.normal(size=shape) for shape in shapes.input_shapes))


@steady
@given(mutually_broadcastable_shapes(num_shapes=4, min_side=1, max_side=3, max_dims=3), SEEDS)
def test_the_gradient_of_scale_shift_add_relu(shapes, seed):
    rng = np.random.default_rng(seed)
    operands = [rng.normal(size=shape) for shape in shapes.input_shapes]
    check_gradient(through_the_engine(scale_shift_add_relu), *operands)


def test_the_rules_on_bare_arrays(rng):
    check_gradient(add_relu, rng.normal(size=(3, 4)), rng.normal(size=(3, 4)))
    check_gradient(scale_shift_add_relu, *rng.normal(size=(4, 3, 4)))


def test_a_number_gets_no_gradient_and_does_its_part(rng):
    x, y = rng.normal(size=(2, 5)) + np.array([[3.0], [0.0]])
    out, back = scale_shift_add_relu.vjp(x, 2.5, 1.0, y)
    grad = rng.normal(size=5)
    for_x, _, _, for_y = back(grad)
    expect(for_x, np.where(out > 0, 2.5 * grad, 0))
    expect(for_y, np.where(out > 0, grad, 0))


def test_where_the_result_is_nothing_so_is_the_gradient():
    out, back = add_relu.vjp(np.array([1.0, -1.0, 2.0]), np.array([-1.0, 1.0, 0.0]))
    expect(out, np.array([0.0, 0.0, 2.0]))
    for share in back(np.array([5.0, 6.0, 7.0])):
        expect(share, np.array([0.0, 0.0, 7.0]))


def test_gradients_of_more_than_a_piece():
    x = np.where(np.arange(CHUNK + 9) % 3, 1.0, -1.0)
    grad = np.arange(CHUNK + 9.0)
    expected = np.where(x > 0, grad, 0)
    _, back = add_relu.vjp(x, np.zeros_like(x))
    expect(back(grad)[0], expected, rtol=0, atol=0)
    _, back = scale_shift_add_relu.vjp(x, x, 0.0, 0.0)
    expect(back(grad)[0], grad * x, rtol=0, atol=0)


@pytest.mark.parametrize("number", [2.0, np.float32(2), np.array(2.0)], ids=["float", "float32", "0-d"])
def test_gradients_have_the_dtype_of_the_result(number):
    x = np.ones(3, np.float32)
    _, back = scale_shift_add_relu.vjp(x, number, 0.0, x)
    for_x, _, _, for_y = back(x)
    expect(for_x, np.full(3, 2, np.float32))
    expect(for_y, np.ones(3, np.float32))


def test_a_tensor_a_has_a_gradient_if_it_wants_one():
    x, a = Tensor(np.array([1.0, 2.0])), Tensor(np.array(3.0), requires_grad=True)
    scale_shift_add_relu(x, a, 0.0, 0.0).backward(np.array([10.0, 100.0]))
    expect(a.grad, np.array(210.0))
    frozen, y = Tensor(np.array([3.0])), Tensor(np.array([1.0, 2.0]), requires_grad=True)
    scale_shift_add_relu(x, frozen, 0.0, y).backward(np.array([10.0, 100.0]))
    expect(y.grad, np.array([10.0, 100.0]))
    assert frozen.grad is None


# 17.11 linear_gelu_back


@steady
@given(st.lists(st.integers(1, 4), max_size=2), st.integers(1, 4), st.integers(1, 4), st.booleans(), SEEDS)
def test_the_gradient_of_linear_gelu(leading, inputs, outputs, with_bias, seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(*leading, inputs)), rng.normal(size=(outputs, inputs))]
    if with_bias:
        arrays.append(rng.normal(size=outputs))
    check_gradient(linear_gelu, *arrays)


@pytest.mark.filterwarnings("error")
def test_the_slope_of_gelu_far_away_is_one_or_nothing():
    for far, slope in ((50.0, 1.0), (-50.0, 0.0), (1e5, 1.0), (-1e5, 0.0), (1e30, 1.0), (-1e30, 0.0)):
        for dtype in (np.float32, np.float64):
            out, back = linear_gelu.vjp(np.array([[far]], dtype), np.ones((1, 1), dtype))
            for_x, for_weight, for_bias = back(np.full((1, 1), 3, dtype))
            expect(for_x, np.array([[3 * slope]], dtype))
            expect(for_weight, np.array([[3 * slope * far]], dtype))
            assert for_bias is None
            assert out.dtype == dtype


@pytest.mark.parametrize(("rows", "outputs"), [(300, 700), (200, 2000)])
def test_gradients_of_more_rows_than_a_piece_has(rows, outputs, rng):
    """The same rows by themselves, and what weights and bias get is the sum."""
    x, weight, bias = rng.normal(size=(rows, 3)), rng.normal(size=(outputs, 3)), rng.normal(size=outputs)
    grad = rng.normal(size=(rows, outputs))
    _, back = linear_gelu.vjp(x, weight, bias)
    for_x, for_weight, for_bias = back(grad)
    parts = []
    for start in range(0, rows, 16):
        _, back = linear_gelu.vjp(x[start : start + 16], weight, bias)
        parts.append(back(grad[start : start + 16]))
    expect(for_x, np.concatenate([part[0] for part in parts]), rtol=1e-9)
    expect(for_weight, sum(part[1] for part in parts), rtol=1e-9)
    expect(for_bias, sum(part[2] for part in parts), rtol=1e-9)


def test_gradients_of_no_rows_are_nothing():
    _, back = linear_gelu.vjp(np.ones((0, 2)), np.ones((3, 2)), np.ones(3))
    for_x, for_weight, for_bias = back(np.ones((0, 3)))
    expect(for_x, np.ones((0, 2)))
    expect(for_weight, np.zeros((3, 2)))
    expect(for_bias, np.zeros(3))


def test_two_threads_can_be_on_the_way_back_of_linear_gelu_at_once(monkeypatch):
    """What one works in is not the other's. Weights of 0 leave the bias; far away the slope is 1 or 0."""
    x, weight, grad = np.ones((3, 2)), np.zeros((4, 2)), np.full((3, 4), 2.0)
    backs = [linear_gelu.vjp(x, weight, np.full(4, far))[1] for far in (50.0, -50.0)]
    let_meet(monkeypatch, "exp")
    large, nothing = parallel_for(lambda back: back(grad), backs, threads=2)
    monkeypatch.undo()
    for shares, total in ((large, 6.0), (nothing, 0.0)):  # of three rows
        expect(shares[1], np.full((4, 2), total))
        expect(shares[2], np.full(4, total))


def test_frozen_weights_and_inputs_get_none(rng):
    x, layer = rng.standard_normal((4, 3), np.float32), LinearGELU(Linear(3, 2, rng=rng))
    layer.weight.requires_grad = False
    layer(Tensor(x)).backward(np.ones((4, 2), np.float32))
    assert layer.weight.grad is None
    assert layer.bias.grad.shape == (2,)
    layer.weight.requires_grad, layer.bias.requires_grad = True, False
    inputs = Tensor(x, requires_grad=True)
    layer(inputs).backward(np.ones((4, 2), np.float32))
    assert layer.weight.grad.shape == (2, 3)
    assert inputs.grad.shape == (4, 3)


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)])
def test_what_nobody_wants_is_none(wanted, rng):
    x, weight, bias = rng.normal(size=(5, 3)), rng.normal(size=(2, 3)), rng.normal(size=2)
    out, params = linear_gelu.run([x, weight, bias], {})
    grad = rng.normal(size=(5, 2))
    expected = linear_gelu.vjp(x, weight, bias)[1](grad)
    kept = linear_gelu.keep(out, [x, weight, bias], {**params, "needs_input_grad": wanted})
    for got, full, want in zip(linear_gelu.pull(grad, *kept), expected, wanted, strict=True):
        if want:
            expect(got, full)
        else:
            assert got is None
    x, weight = rng.normal(size=(1, 2, 5, 4)), rng.normal(size=(3, 2, 3, 3))
    grad = rng.normal(size=(1, 3, 5, 4))
    out, params = winograd_conv2d.run([x, weight], {})
    expected = winograd_conv2d.vjp(x, weight)[1](grad)
    kept = winograd_conv2d.keep(out, [x, weight], {**params, "needs_input_grad": wanted[:2]})
    for got, full, want in zip(winograd_conv2d.pull(grad, *kept), expected, wanted, strict=False):
        if want:
            expect(got, full)
        else:
            assert got is None


@pytest.mark.parametrize("wanted", [(True, False, True, True), (False, True, True, True)])
def test_of_a_chain_too_what_nobody_wants_is_none(wanted, rng):
    operands, grad = rng.normal(size=(4, 3, 5)), rng.normal(size=(3, 5))
    out, params = scale_shift_add_relu.run(operands, {})
    expected = scale_shift_add_relu.vjp(*operands)[1](grad)
    kept = scale_shift_add_relu.keep(out, operands, {**params, "needs_input_grad": wanted})
    for got, full, want in zip(scale_shift_add_relu.pull(grad, *kept), expected, wanted, strict=True):
        if want:
            expect(got, full)
        else:
            assert got is None


def test_linear_gelu_s_gradients_have_the_dtype_of_its_result():
    x, weight, bias = np.ones((2, 3), np.float32), np.ones((4, 3), np.float32), np.zeros(4, np.float32)
    _, back = linear_gelu.vjp(x, weight, bias)
    assert [share.dtype for share in back(np.ones((2, 4), np.float32))] == [np.float32] * 3
    _, back = linear_gelu.vjp(np.ones((2, 3), int), weight, bias)
    assert back(np.ones((2, 4), np.float32))[1].dtype == np.float32


def test_small_integers_are_float32_on_the_way_back_too():
    """100 * 2 is -56 in int8, where gelu is flat; in float32 it is 200, and the slope is 1."""
    x, weight = np.full((1, 1), 100, np.int8), np.full((1, 1), 2, np.int8)
    out, back = linear_gelu.vjp(x, weight, np.zeros(1, np.float32))
    expect(out, np.array([[200]], np.float32))
    for_x, for_weight, for_bias = back(np.ones((1, 1), np.float32))
    expect(for_x, np.array([[2]], np.float32))
    expect(for_weight, np.array([[100]], np.float32))
    expect(for_bias, np.array([1], np.float32))


# 17.12 softmax_cross_entropy_back


@steady
@given(st.integers(1, 5), st.integers(1, 5), SEEDS)
def test_the_gradient_of_the_loss(n, classes, seed):
    rng = np.random.default_rng(seed)
    check_gradient(softmax_cross_entropy, rng.normal(size=(n, classes)), rng.integers(0, classes, n))


def slopes_of(logits, labels):
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(logits)), labels] -= 1
    return shares / len(logits)


@pytest.mark.parametrize(("n", "classes"), [(1200, 65), (40, 5000), (3, 70_000)])
def test_slopes_of_more_rows_than_a_piece_has(n, classes, rng):
    logits, labels = rng.normal(size=(n, classes)), rng.integers(0, classes, n)
    _, back = softmax_cross_entropy.vjp(logits, labels)
    expect(back(np.float64(1))[0], slopes_of(logits, labels), rtol=1e-9)
    expect(back(np.float64(-3))[0], -3 * slopes_of(logits, labels), rtol=1e-9)


def test_a_second_way_back_is_as_good_as_the_first(rng):
    """Whatever was done to what the first one gave; a refusal to be written to is an answer, too."""
    logits, labels = rng.normal(size=(4, 3)), np.array([0, 2, 1, 1])
    _, back = softmax_cross_entropy.vjp(logits, labels)
    for scale in (1.0, 1.0, 2.0, -1.0, 1.0):
        got = back(np.float64(scale))[0]
        expect(got, scale * slopes_of(logits, labels), rtol=1e-9)
        if got.flags.writeable:
            got[...] = 0


def test_a_retained_graph_gives_the_same_again(rng):
    logits = Tensor(rng.normal(size=(4, 3)), requires_grad=True)
    loss = softmax_cross_entropy(logits, [0, 2, 1, 1])
    loss.backward(retain_graph=True)
    loss.backward()
    expect(logits.grad, 2 * slopes_of(logits.data, [0, 2, 1, 1]), rtol=1e-9)


def test_slopes_among_infinities_are_shares():
    _, back = softmax_cross_entropy.vjp(np.array([[np.inf, 1.0, np.inf]]), np.array([2]))
    expect(back(np.float64(1))[0], np.array([[0.5, 0.0, -0.5]]))


def test_slopes_have_all_their_digits_where_the_label_is_nearly_sure():
    logits = np.array([[40.0, 0.0]])
    _, back = softmax_cross_entropy.vjp(logits, np.array([0]))
    expect(back(np.float64(1))[0][0, 1:], np.array([np.exp(-40.0)]), rtol=1e-9, atol=0)


def test_slopes_have_the_dtype_of_the_loss():
    for dtype in (np.float32, np.float64):
        _, back = softmax_cross_entropy.vjp(np.zeros((2, 2), dtype), np.array([0, 1]))
        expect(back(dtype(2))[0], np.array([[-0.5, 0.5], [0.5, -0.5]], dtype))


# 17.15 winograd_conv2d_back


@settings(deadline=None, derandomize=True, max_examples=15)
@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), SEEDS)
def test_the_gradient_of_the_convolution(n, channels, outputs, height, width, seed):
    rng = np.random.default_rng(seed)
    check_gradient(
        winograd_conv2d,
        rng.normal(size=(n, channels, height, width)),
        rng.normal(size=(outputs, channels, 3, 3)),
    )


@pytest.mark.parametrize(
    ("n", "channels", "outputs", "height", "width"),
    [(1, 64, 64, 45, 50), (70, 16, 12, 8, 8), (3, 8, 40, 30, 13)],
)
def test_gradients_of_many_and_large_images(n, channels, outputs, height, width, rng):
    """<grad, conv(x, w)> is linear in both: its slope along another image, or other kernels, is its value."""
    x, other = rng.normal(size=(2, n, channels, height, width))
    weight, kernels = rng.normal(size=(2, outputs, channels, 3, 3))
    out, back = winograd_conv2d.vjp(x, weight)
    grad = rng.normal(size=out.shape)
    for_x, for_weight = back(grad)
    expect(np.vdot(for_x, other), np.vdot(grad, winograd_conv2d(other, weight).data), rtol=1e-8)
    expect(np.vdot(for_weight, kernels), np.vdot(grad, winograd_conv2d(x, kernels).data), rtol=1e-8)


def test_two_threads_can_be_in_a_convolution_at_once_there_and_back(monkeypatch):
    """A kernel of ones adds up four, six or nine numbers; a tap of it sees 9, 12 or 16 of the 16 pixels."""
    weight, grad = np.ones((1, 1, 3, 3)), np.ones((1, 1, 4, 4))
    around = np.outer([2.0, 3, 3, 2], [2, 3, 3, 2])
    seen = np.outer([3.0, 4, 3], [3, 4, 3])
    let_meet(monkeypatch, "matmul")
    found = parallel_for(lambda n: winograd_conv2d.vjp(n * grad, weight), (1, 2), threads=2)
    shares = parallel_for(lambda one: one[1](grad), found, threads=2)
    monkeypatch.undo()
    for n, (out, _), (for_x, for_weight) in zip((1, 2), found, shares, strict=True):
        expect(out[0, 0], n * around)
        expect(for_x[0, 0], around)
        expect(for_weight[0, 0], n * seen)


def test_kernels_on_images_of_integers_have_gradients():
    x = np.arange(25).reshape(1, 1, 5, 5)
    grad = np.ones((1, 1, 5, 5), np.float32)
    _, back = winograd_conv2d.vjp(x, np.ones((1, 1, 3, 3), np.float32))
    _, expected = winograd_conv2d.vjp(x.astype(np.float32), np.ones((1, 1, 3, 3), np.float32))
    expect(back(grad)[1], expected(grad)[1], rtol=1e-5)
    assert back(grad)[1][0, 0, 1, 1] == pytest.approx(x.sum(), rel=1e-5)


def test_the_convolution_s_gradients_have_its_dtype_and_may_come_in_any_order(rng):
    x, weight = rng.standard_normal((2, 3, 5, 6), np.float32), rng.standard_normal((4, 3, 3, 3), np.float32)
    _, back = winograd_conv2d.vjp(x, weight)
    grad = rng.standard_normal((2, 4, 5, 6), np.float32)
    for_x, for_weight = back(grad)
    assert for_x.dtype == for_weight.dtype == np.float32
    again = back(np.asfortranarray(grad))
    expect(again[0], for_x, rtol=1e-4)
    expect(again[1], for_weight, rtol=1e-4)
