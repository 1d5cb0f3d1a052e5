"""Level 4: pieces cost little, fused work is no slower than its parts, and calls are saved where calls cost.

Ratios within this run, in CPU time, never seconds; work is counted where overhead would hide it. Each budget
has a twin: a naive version, written out here, that must not fit.
"""

import threading

import numpy as np

from dojo.measuring import Budget, WorkMeter, race
from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.activations import gelu
from tinytorch.kernels import (
    FusedAdam,
    add_relu,
    blocked_matmul,
    fast_gelu,
    in_chunks,
    linear_gelu,
    matmul_traffic,
    parallel_for,
    pieces,
    scale_shift_add_relu,
    softmax_cross_entropy,
    winograd_conv2d,
)
from tinytorch.layers import Parameter, affine
from tinytorch.training import cross_entropy

BLOCKED = Budget(
    "blocked_matmul of 120 x 120 by tiles of 40",
    limit=25,
    reference=3.5,
    naive=340,
    unit="times the time of a @ b",
    naively="a version that makes row times column",
)
CUT = Budget(
    "pieces of 256 x 128 in Fortran's order, 8,192 numbers each",
    limit=8,
    reference=1.0,
    naive=135,
    unit="times the time of pieces of as many numbers in C order",
    naively="a version that cuts by rows, whatever the order in memory",
)
CHUNKS = Budget(
    "in_chunks with four steps, pieces of 4,096 of 24,576 numbers",
    limit=14,
    reference=3.8,
    naive=66,
    unit="times the time of the four steps on whole arrays",
    naively="a version with pieces of 64",
)
THREADLESS = Budget(
    "parallel_for of 200 items by one thread",
    limit=30,
    reference=1.0,
    naive=1600,
    unit="times the time of a list of 200 calls",
    naively="a version that starts a thread for each item",
)
GELU = Budget(
    "fast_gelu of 24,576 numbers",
    limit=12,
    reference=1.4,
    naive=60,
    unit="times the time of kata 04's gelu",
    naively="a version that goes by rows of 64",
)
CHAIN = Budget(
    "scale_shift_add_relu of 24,576 numbers",
    limit=12,
    reference=1.8,
    naive=67,
    unit="times the time of the expression",
    naively="a version that goes by rows of 64",
)
POSITIVE = Budget(
    "the way back of add_relu of 24,576 numbers",
    limit=12,
    reference=2.0,
    naive=104,
    unit="times the time of grad * (out > 0)",
    naively="a version that goes by rows of 64",
)
LAYER = Budget(
    "linear_gelu of (256, 32) to 64, there and back",
    limit=6,
    reference=1.3,
    naive=34,
    unit="times the time of kata 03's affine and kata 04's gelu",
    naively="a version that goes row by row",
)
LOSS = Budget(
    "softmax_cross_entropy of (256, 100), there and back",
    limit=4,
    reference=0.9,
    naive=13,
    unit="times the time of kata 10's cross_entropy",
    naively="a version that goes row by row",
)
ADAM = Budget(
    "a step of FusedAdam, 300 parameters of 32 numbers",
    limit=0.6,
    reference=0.15,
    naive=1.0,
    unit="times the time of one parameter after the other",
    naively="one parameter after the other",
)
LAYER_WORK = Budget(
    "the way back of linear_gelu of (300, 32) to 48, where x wants no gradient, or only x wants one",
    limit=0.85,
    reference=0.7,
    naive=1.0,
    unit="times the operations where all want theirs",
    naively="a version that makes what nobody wants",
)
WINOGRAD = Budget(
    "winograd_conv2d of (1, 32, 28, 28), 32 to 32",
    limit=4,  # other right versions need 1.5
    reference=0.85,
    naive=80,  # 7.9 where numpy copies for a product what is not contiguous
    unit="times the time of nine products",
    naively="a version that goes pixel by pixel",
)
WORK = Budget(
    "winograd_conv2d of (2, 48, 16, 16), 48 to 48",
    limit=0.8,
    reference=0.6,
    naive=1.0,
    unit="times the operations of the definition",
    naively="a version by im2col",
)
WORK_BACK = Budget(
    "the way back of winograd_conv2d of (2, 48, 16, 16), 48 to 48",
    limit=0.8,
    reference=0.59,
    naive=1.0,
    unit="times the operations of the definition",
    naively="a version by im2col",
)
HALF_WORK = Budget(
    "the way back of winograd_conv2d of (2, 48, 16, 16), 48 to 48, to images only, or to kernels only",
    limit=0.75,
    reference=0.51,
    naive=1.0,
    unit="times the operations to both",
    naively="a version that makes what nobody wants",
)


def normal(rng, *shape):
    return rng.standard_normal(shape, np.float32)


def by_rows(function, size):
    def slow():
        for i in range(0, size, 64):
            function(slice(i, i + 64))

    return slow


# 17.2 blocked_matmul, 17.3 matmul_traffic


def test_tiles_are_multiplied_by_numpy(rng):
    a, b = normal(rng, 120, 120), normal(rng, 120, 120)
    BLOCKED.check(race(lambda: blocked_matmul(a, b, 40), lambda: a @ b, limit=BLOCKED.limit))


def test_the_twin_by_rows_and_columns_is_caught(rng):
    a, b = normal(rng, 120, 120), normal(rng, 120, 120)
    slow = lambda: [[row @ column for column in b.T] for row in a]  # noqa: E731
    BLOCKED.catches(race(slow, lambda: a @ b, limit=BLOCKED.limit))


def test_a_product_by_tiles_does_no_more_than_a_product(rng):
    a, b = normal(rng, 96, 64), normal(rng, 64, 80)
    with WorkMeter() as work:
        out = blocked_matmul(work.track(a), work.track(b), 32)
    assert out.shape == (96, 80)
    # 2mnk, an addition for each number of a tile and step along k, and the tiles that are read are counted.
    assert 2 * 96 * 64 * 80 <= work.flops <= 2.2 * 96 * 64 * 80
    read = matmul_traffic(96, 80, 64, 32) - 4 * 96 * 80
    assert work.bytes >= read


# 17.4 pieces, 17.5 parallel_for, 17.6 in_chunks


def test_order_in_memory_costs_nothing(rng):
    x = normal(rng, 128, 256)
    turned = x.T

    def walk(array):
        for (part,) in pieces(array, chunk=8192):
            np.add(part, 1, out=part)

    CUT.check(race(lambda: walk(turned), lambda: walk(x), limit=CUT.limit))


def test_the_twin_that_cuts_by_rows_is_caught(rng):
    x = normal(rng, 128, 256)

    def walk(rows):
        for row in rows:
            np.add(row, 1, out=row)

    CUT.catches(race(lambda: walk(x.T), lambda: np.add(x, 1, out=x), limit=CUT.limit))


def four_steps(part, x, a, b, y):
    np.multiply(x, a, out=part)
    part += b
    part += y
    np.maximum(part, 0, out=part)


def test_chunks_cost_a_few_calls_each(rng):
    x, y, out = normal(rng, 24_576), normal(rng, 24_576), normal(rng, 24_576)
    mine = lambda: in_chunks(four_steps, out, x, 2.0, 1.0, y, chunk=4096)  # noqa: E731
    CHUNKS.check(race(mine, lambda: four_steps(out, x, 2.0, 1.0, y), limit=CHUNKS.limit))


def test_the_twin_with_small_pieces_is_caught(rng):
    x, y, out = normal(rng, 24_576), normal(rng, 24_576), normal(rng, 24_576)

    def slow():
        for i in range(0, 24_576, 64):
            four_steps(out[i : i + 64], x[i : i + 64], 2.0, 1.0, y[i : i + 64])

    CHUNKS.catches(race(slow, lambda: four_steps(out, x, 2.0, 1.0, y), limit=CHUNKS.limit))


def test_one_thread_costs_no_threads():
    work = lambda n: n + 1  # noqa: E731
    baseline = lambda: [work(n) for n in range(200)]  # noqa: E731
    THREADLESS.check(race(lambda: parallel_for(work, range(200)), baseline, limit=THREADLESS.limit))


def test_the_twin_that_starts_threads_is_caught():
    work = lambda n: n + 1  # noqa: E731
    baseline = lambda: [work(n) for n in range(200)]  # noqa: E731

    def slow():
        for n in range(200):
            thread = threading.Thread(target=work, args=(n,))
            thread.start()
            thread.join()

    THREADLESS.catches(race(slow, baseline, limit=THREADLESS.limit))


# 17.7 fast_gelu


def test_gelu_is_no_slower_than_its_parts(rng):
    x = normal(rng, 24_576)
    GELU.check(race(lambda: fast_gelu(x), lambda: gelu.forward(x), limit=GELU.limit))


def test_the_twin_of_gelu_by_rows_is_caught(rng):
    x, out = normal(rng, 24_576), normal(rng, 24_576)

    def row(some):
        out[some] = gelu.forward(x[some])

    GELU.catches(race(by_rows(row, x.size), lambda: gelu.forward(x), limit=GELU.limit))


# 17.8 add_relu, 17.9 scale_shift_add_relu


def test_a_chain_is_about_as_fast_as_its_expression_where_there_is_nothing_to_gain(rng):
    x, y = normal(rng, 24_576), normal(rng, 24_576)
    plain = lambda: np.maximum(x * 1.5 + 0.25 + y, 0)  # noqa: E731
    CHAIN.check(race(lambda: scale_shift_add_relu(x, 1.5, 0.25, y), plain, limit=CHAIN.limit))
    CHAIN.check(race(lambda: add_relu(x, y), lambda: np.maximum(x + y, 0), limit=CHAIN.limit))


def test_the_twin_of_a_chain_by_rows_is_caught(rng):
    x, y, out = normal(rng, 24_576), normal(rng, 24_576), normal(rng, 24_576)
    plain = lambda: np.maximum(x * 1.5 + 0.25 + y, 0)  # noqa: E731

    def row(some):
        out[some] = np.maximum(x[some] * 1.5 + 0.25 + y[some], 0)

    CHAIN.catches(race(by_rows(row, x.size), plain, limit=CHAIN.limit))


def test_the_way_back_of_a_sum_is_one_walk(rng):
    x, grad = normal(rng, 24_576), normal(rng, 24_576)
    out, back = add_relu.vjp(x, grad)
    POSITIVE.check(race(lambda: back(grad), lambda: grad * (out > 0), limit=POSITIVE.limit))


def test_the_twin_of_the_way_back_by_rows_is_caught(rng):
    out, grad, back = normal(rng, 24_576), normal(rng, 24_576), normal(rng, 24_576)

    def row(some):
        back[some] = grad[some] * (out[some] > 0)

    POSITIVE.catches(race(by_rows(row, out.size), lambda: grad * (out > 0), limit=POSITIVE.limit))


# 17.10 linear_gelu, 17.11 its rule


def unfused_layer(x, weight, bias, grad):
    hidden, back = affine.vjp(x, weight, bias)
    _, slope = gelu.vjp(hidden)
    return back(slope(grad))


def fused_layer(x, weight, bias, grad):
    _, back = linear_gelu.vjp(x, weight, bias)
    return back(grad)


def test_a_layer_with_gelu_is_about_as_fast_as_its_parts(rng):
    arrays = normal(rng, 256, 32), normal(rng, 64, 32), normal(rng, 64), normal(rng, 256, 64)
    LAYER.check(race(lambda: fused_layer(*arrays), lambda: unfused_layer(*arrays), limit=LAYER.limit))


def test_the_twin_that_goes_row_by_row_is_caught(rng):
    x, weight, bias, grad = normal(rng, 256, 32), normal(rng, 64, 32), normal(rng, 64), normal(rng, 256, 64)

    def slow():
        for i in range(0, 256, 2):
            unfused_layer(x[i : i + 2], weight, bias, grad[i : i + 2])

    LAYER.catches(race(slow, lambda: unfused_layer(x, weight, bias, grad), limit=LAYER.limit))


def work_back(op, arrays, wanted):
    """The operations of a rule, where only some inputs want a gradient."""
    with WorkMeter() as work:
        tracked = [work.track(array) for array in arrays]
        out, params = op.run(tracked, {})
        kept = op.keep(out, tracked, {**params, "needs_input_grad": wanted})
        grad, there = work.track(np.ones(out.shape, np.float32)), work.flops
        op.pull(grad, *kept)
    return work.flops - there


def test_what_nobody_wants_of_a_layer_is_not_made(rng):
    arrays = normal(rng, 300, 32), normal(rng, 48, 32), normal(rng, 48)
    whole = work_back(linear_gelu, arrays, (True, True, True))
    assert whole >= 3 * 2 * 300 * 32 * 48  # three products; less means that some went past the meter
    for wanted in ((True, False, False), (False, True, True)):
        LAYER_WORK.check(work_back(linear_gelu, arrays, wanted) / whole)


def test_the_twin_that_makes_everything_of_a_layer_is_caught(rng):
    arrays = normal(rng, 300, 32), normal(rng, 48, 32), normal(rng, 48)
    LAYER_WORK.catches(work_back(linear_gelu, arrays, (True, True, True)) / (3 * 2 * 300 * 32 * 48))


# 17.12 softmax_cross_entropy


def test_a_loss_is_about_as_fast_as_kata_10_s(rng):
    logits, labels, one = normal(rng, 256, 100), rng.integers(0, 100, 256), np.float32(1)
    mine = lambda: softmax_cross_entropy.vjp(logits, labels)[1](one)  # noqa: E731
    plain = lambda: cross_entropy.vjp(logits, labels)[1](one)  # noqa: E731
    LOSS.check(race(mine, plain, limit=LOSS.limit))


def test_the_twin_of_a_loss_row_by_row_is_caught(rng):
    logits, labels, one = normal(rng, 256, 100), rng.integers(0, 100, 256), np.float32(1)
    plain = lambda: cross_entropy.vjp(logits, labels)[1](one)  # noqa: E731

    def slow():
        for row, label in zip(logits, labels, strict=True):
            shares = np.exp(row - row.max())
            total = shares.sum()
            np.log(total)
            shares /= total
            shares[label] -= 1
            shares /= len(logits)

    LOSS.catches(race(slow, plain, limit=LOSS.limit))


# 17.13 FusedAdam


def one_after_the_other(params):
    """Adam in place, without an array made, ten calls of numpy for each parameter."""
    kept = [(p.data.copy(), p.grad, np.zeros_like(p.data), np.ones_like(p.data), p.data * 0) for p in params]

    def step():
        for data, grad, mean, square, room in kept:
            np.multiply(grad, 0.1, out=room)
            np.multiply(mean, 0.9, out=mean)
            np.add(mean, room, out=mean)
            np.multiply(grad, grad, out=room)
            np.multiply(room, 0.001, out=room)
            np.multiply(square, 0.999, out=square)
            np.add(square, room, out=square)
            np.sqrt(square, out=room)
            np.divide(mean, room, out=room)
            np.subtract(data, room, out=data)

    return step


def small_parameters(rng):
    params = [Parameter(normal(rng, 32)) for _ in range(300)]
    for p in params:
        p.grad = normal(rng, 32)
    return params


def test_small_parameters_move_together(rng):
    params = small_parameters(rng)
    baseline = one_after_the_other(params)
    ADAM.check(race(FusedAdam(params).step, baseline, limit=ADAM.limit))


def test_small_parameters_move_together_beside_a_large_one_that_stands_still(rng):
    """As layers do that are trained on top of a frozen table."""
    params = small_parameters(rng)
    baseline = one_after_the_other(params)
    frozen = Parameter(np.zeros(1 << 17, np.float32))
    ADAM.check(race(FusedAdam([frozen, *params]).step, baseline, limit=ADAM.limit))


def test_the_twin_that_moves_them_one_by_one_is_caught(rng):
    params = small_parameters(rng)
    ADAM.catches(race(one_after_the_other(params), one_after_the_other(params), limit=ADAM.limit))


# 17.14 winograd_conv2d, 17.15 its rule


def nine_products(x, weight):
    """The convolution tap by tap, on images with a border, channels-last."""
    n, channels, h, w = x.shape
    padded = np.pad(x.transpose(0, 2, 3, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    out = np.zeros((n * h * w, len(weight)), x.dtype)
    for a, b in np.ndindex(3, 3):
        seen = padded[:, a : a + h, b : b + w].reshape(n * h * w, channels)
        out += seen @ weight[:, :, a, b].T
    return out


def test_all_tiles_are_transformed_by_a_product(rng):
    x, weight = normal(rng, 1, 28, 28, 32).transpose(0, 3, 1, 2), normal(rng, 32, 32, 3, 3)
    mine = lambda: winograd_conv2d(x, weight)  # noqa: E731
    WINOGRAD.check(race(mine, lambda: nine_products(x, weight), limit=WINOGRAD.limit))


def test_the_twin_that_goes_pixel_by_pixel_is_caught(rng):
    x, weight = normal(rng, 1, 32, 28, 28), normal(rng, 32, 32, 3, 3)
    padded = np.pad(x[0], ((0, 0), (1, 1), (1, 1)))

    def slow():
        out = np.zeros((28, 28, 32), np.float32)
        for i, j in np.ndindex(28, 28):
            for a, b in np.ndindex(3, 3):
                out[i, j] += weight[:, :, a, b] @ padded[:, i + a, j + b]

    WINOGRAD.catches(race(slow, lambda: nine_products(x, weight), limit=WINOGRAD.limit))


def operations(call):
    """What `call(track)` takes in floating-point operations; a convolution by its definition takes 1."""
    with WorkMeter() as work:
        call(work.track)
    return work.flops / (2 * 9 * 48 * 48 * 2 * 16 * 16)


def test_a_convolution_by_tiles_does_less_work(rng):
    x, weight = normal(rng, 2, 48, 16, 16), normal(rng, 48, 48, 3, 3)
    did = operations(lambda track: winograd_conv2d.forward(track(x), track(weight)))
    assert did > 0.25  # the products over channels; less means that some went past the meter
    WORK.check(did)


def test_its_way_back_does_less_work_too(rng):
    x, weight, grad = normal(rng, 2, 48, 16, 16), normal(rng, 48, 48, 3, 3), normal(rng, 2, 48, 16, 16)

    def both(track):
        _, back = winograd_conv2d.vjp(track(x), track(weight))
        return back(track(grad))

    there = operations(lambda track: winograd_conv2d.forward(track(x), track(weight)))
    did = (operations(both) - there) / 2  # the way back is two convolutions
    assert did > 0.25
    WORK_BACK.check(did)


def test_what_nobody_wants_of_a_convolution_is_not_made(rng):
    arrays = normal(rng, 2, 48, 16, 16), normal(rng, 48, 48, 3, 3)
    whole = work_back(winograd_conv2d, arrays, (True, True))
    assert whole >= 2 * 0.25 * 2 * 9 * 48 * 48 * 2 * 16 * 16  # the products over channels, of both
    for wanted in ((True, False), (False, True)):
        HALF_WORK.check(work_back(winograd_conv2d, arrays, wanted) / whole)


def test_the_twin_that_makes_everything_of_a_convolution_is_caught(rng):
    columns, matrix = normal(rng, 2 * 16 * 16, 9 * 48), normal(rng, 9 * 48, 48)
    did = operations(lambda track: (track(columns) @ track(matrix), track(columns) @ track(matrix)))
    HALF_WORK.catches(did / 2)


def test_the_twin_by_im2col_is_caught(rng):
    columns, matrix = normal(rng, 2 * 16 * 16, 9 * 48), normal(rng, 9 * 48, 48)
    did = operations(lambda track: track(columns) @ track(matrix))
    WORK.catches(did)
    WORK_BACK.catches(did)
