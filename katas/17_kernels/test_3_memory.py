"""Level 3: what a kernel makes besides its result, and what a rule keeps.

Counted by tracemalloc in bytes, so the figures are the same on every machine. Each budget has a twin: a
naive version, written out here, that must not fit.
"""

import numpy as np
import pytest

from dojo.measuring import Budget, check_memory_growth, kept_bytes, load_probes, peak_bytes, retained_bytes
from tinytorch.activations import GELU
from tinytorch.autograd import is_grad_enabled
from tinytorch.kernels import (
    FusedAdam,
    LinearGELU,
    Workspace,
    add_relu,
    blocked_matmul,
    fast_gelu,
    fuse,
    in_chunks,
    linear_gelu,
    parallel_for,
    pieces,
    scale_shift_add_relu,
    softmax_cross_entropy,
    winograd_conv2d,
)
from tinytorch.layers import Linear, Parameter
from tinytorch.networks import Sequential
from tinytorch.tensor import Tensor

KIB, MIB = 1 << 10, 1 << 20

PROBES = {probe.name: probe for probe in load_probes(__file__).PROBES}

ROOM = Budget(
    "a Workspace asked a hundred times for up to 1 MiB",
    limit=1.5,
    reference=1.0,
    naive=100,
    unit="MiB held",
    naively="a version that keeps every array",
)
TILES = Budget(
    "blocked_matmul of 512 x 512 by tiles of 64",
    limit=1.6,
    reference=1.02,
    naive=2.0,
    unit="results at the worst moment",
    naively="a version that makes a whole product for each step along k",
)
PIECES = Budget(
    "pieces of 4 MiB in Fortran's order",
    limit=64,
    reference=2,
    naive=4096,
    unit="KiB",
    naively="a version that makes a flat copy",
)
CHUNKS = Budget(
    "in_chunks with two steps, on 4 MiB",
    limit=150,  # a piece is 256 KiB, so there is room for none
    reference=37,
    naive=256,
    unit="KiB",
    naively="a version that copies each piece of an input",
)
GELU_INTO = Budget(
    "fast_gelu of 4 MiB, into out",
    limit=0.9,
    reference=0.26,
    naive=4.0,
    unit="MiB",
    naively="a version that makes an array",
)
GELU_THREADS = Budget(
    "fast_gelu of 4 MiB by two threads, into out",
    limit=1.4,
    reference=0.6,
    naive=4.0,
    unit="MiB",
    naively="a version that makes an array",
)
CHAIN = Budget(
    "scale_shift_add_relu of 4 MiB",
    limit=1.7,
    reference=1.0,
    naive=3.0,
    unit="results at the worst moment",
    naively="a version in whole arrays",
)
CHAIN_KEPT = Budget(
    "what scale_shift_add_relu keeps, its result included",
    limit=1.5,
    reference=1.0,
    naive=2.0,
    unit="results",
    naively="a version that keeps x for a number that wants no gradient, or a copy of it",
)
POSITIVE = Budget(
    "the way back of add_relu",
    limit=1.4,
    reference=1.03,
    naive=2.0,
    unit="results at the worst moment",
    naively="a version that makes an array for each operand",
)
HIDDEN = Budget(
    "linear_gelu, (4096, 64) to 256",
    limit=1.5,
    reference=1.07,
    naive=2.0,
    unit="results at the worst moment",
    naively="a version with a table before gelu",
)
HIDDEN_KEPT = Budget(
    "what linear_gelu keeps besides inputs and result",
    limit=0.5,
    reference=0.001,
    naive=1.0,
    unit="results",
    naively="a version that keeps the table before gelu",
)
HIDDEN_BACK = Budget(
    "the way back of linear_gelu, (4096, 64) to 256",
    limit=0.9,
    reference=0.48,
    naive=1.25,
    unit="results at the worst moment, of which a quarter is the gradient of x",
    naively="a version that makes the table before gelu at once",
)
LOSS = Budget(
    "softmax_cross_entropy of (2048, 512), there",
    limit=1.6,
    reference=1.13,
    naive=2.0,
    unit="tables at the worst moment",
    naively="a version that makes the shares, then the slopes",
)
LOSS_BACK = Budget(
    "the way back of softmax_cross_entropy for a gradient of 1",
    limit=0.5,
    reference=0.001,
    naive=1.0,
    unit="tables",
    naively="a version that multiplies by 1",
)
ADAM = Budget(
    "a step of FusedAdam after the first, 1.3 MiB of parameters",
    limit=64,
    reference=11,
    naive=256,
    unit="KiB at the worst moment",
    naively="a version that makes an array for lr * grad of the smallest one",
)
ADAM_KEPT = Budget(
    "FusedAdam after a step, parameters included",
    limit=4.6,  # four arrays as long as all parameters, and pieces to work in
    reference=3.4,
    naive=6.0,
    unit="times the memory of the parameters",
    naively="a version with moments in float64",
)
WINOGRAD = Budget(
    "winograd_conv2d of (16, 32, 64, 64), 32 to 32",
    limit=2.0,
    reference=1.5,
    naive=4.5,
    unit="results at the worst moment",
    naively="a version that transforms all tiles at once",
)
WINOGRAD_KEPT = Budget(
    "what winograd_conv2d keeps besides its inputs and result",
    limit=0.5,
    reference=0.001,
    naive=2.25,
    unit="results",
    naively="a version that keeps the transformed tiles",
)
WINOGRAD_BACK = Budget(
    "the way back of winograd_conv2d of (16, 32, 64, 64)",
    limit=2.0,
    reference=1.53,
    naive=4.5,
    unit="results at the worst moment",
    naively="a version that transforms all tiles at once",
)
FUSED = Budget(
    "LinearGELU(linear), of 1 MiB of weights",
    limit=64,
    reference=0.5,
    naive=1024,
    unit="KiB",
    naively="a version that copies the weights",
)
FUSE = Budget(
    "fuse, of 1 MiB of weights",
    limit=1.5,
    reference=1.01,
    naive=2.0,
    unit="MiB held",
    naively="a version that copies twice",
)


def normal(rng, *shape):
    return rng.standard_normal(shape, np.float32)


# 17.1 Workspace


def test_a_workspace_holds_one_array_a_name_whatever_was_taken():
    def work():
        room = Workspace()
        for i in range(100):
            room.take("a", (i + 1, 2621))
        return room

    ROOM.check(kept_bytes(work) / MIB)


def test_the_twin_that_keeps_every_array_is_caught():
    ROOM.catches(kept_bytes(lambda: [np.empty((100, 2621), np.float32) for _ in range(100)]) / MIB)


# 17.2 blocked_matmul


def test_tiles_need_a_tile(rng):
    a, b = normal(rng, 512, 512), normal(rng, 512, 512)
    TILES.check(peak_bytes(lambda: blocked_matmul(a, b, 64)) / a.nbytes)


def test_the_twin_that_makes_whole_products_is_caught(rng):
    a, b = normal(rng, 512, 512), normal(rng, 512, 512)

    def multiply():
        out = np.zeros_like(a)
        for p in range(0, 512, 64):
            out += a[:, p : p + 64] @ b[p : p + 64]
        return out

    TILES.catches(peak_bytes(multiply) / a.nbytes)


# 17.4 pieces, 17.6 in_chunks


def test_pieces_are_views(rng):
    x = np.asfortranarray(normal(rng, 1024, 1024))
    PIECES.check(peak_bytes(lambda: [part.size for (part,) in pieces(x)]) / KIB)
    with_gaps = normal(rng, 1024, 1025)[:, 1:]
    PIECES.check(peak_bytes(lambda: [part.size for (part,) in pieces(with_gaps)]) / KIB)


def test_the_twin_that_flattens_is_caught(rng):
    x = np.asfortranarray(normal(rng, 1024, 1024))
    PIECES.catches(peak_bytes(lambda: x.reshape(-1)) / KIB)


def test_chunks_make_nothing_themselves(rng):
    out, x, row = normal(rng, 1024, 1024), normal(rng, 1024, 1024), normal(rng, 1024)

    def steps(part, x, row, a):
        np.multiply(x, row, out=part)
        part += a

    CHUNKS.check(peak_bytes(lambda: in_chunks(steps, out, x, row, 2.0)) / KIB)


def test_the_twin_that_copies_pieces_is_caught(rng):
    x = normal(rng, 1 << 20)

    def work():
        for (part,) in pieces(x):
            part.copy()

    CHUNKS.catches(peak_bytes(work) / KIB)


def test_nothing_stays_of_parallel_work(rng):
    x = normal(rng, 1 << 16)
    parallel_for(lambda _: x + 1, range(4), threads=2)
    assert retained_bytes(lambda: parallel_for(lambda _: x + 1, range(4), threads=2)) < 64 * KIB


# 17.7 fast_gelu


def test_gelu_works_in_a_piece(rng):
    x, out = normal(rng, 1 << 20), np.empty(1 << 20, np.float32)
    GELU_INTO.check(peak_bytes(lambda: fast_gelu(x, out=out)) / MIB)
    GELU_INTO.check(peak_bytes(lambda: fast_gelu(x, out=x)) / MIB)
    GELU_THREADS.check(peak_bytes(lambda: fast_gelu(x, out=out, threads=2)) / MIB)


def test_the_twin_that_makes_an_array_is_caught(rng):
    x = normal(rng, 1 << 20)
    GELU_INTO.catches(peak_bytes(lambda: np.tanh(x)) / MIB)
    GELU_THREADS.catches(peak_bytes(lambda: np.tanh(x)) / MIB)


def test_gelu_needs_no_more_for_more_numbers():
    probe = PROBES["fast_gelu of n numbers, into out"]
    check_memory_growth(probe)


# 17.8 add_relu, 17.9 scale_shift_add_relu


def test_a_chain_makes_its_result_and_nothing_else(rng):
    x, y = normal(rng, 1 << 20), normal(rng, 1 << 20)
    CHAIN.check(peak_bytes(lambda: scale_shift_add_relu(x, 1.5, 0.25, y)) / x.nbytes)
    CHAIN.check(peak_bytes(lambda: add_relu(x, y)) / x.nbytes)
    x, y, row = x.reshape(1024, 1024), y.reshape(1024, 1024), normal(rng, 1024)
    CHAIN.check(peak_bytes(lambda: scale_shift_add_relu(x, row, row, y)) / x.nbytes)


def test_the_twin_in_whole_arrays_is_caught(rng):
    x, y = normal(rng, 1 << 20), normal(rng, 1 << 20)
    half = np.float32(0.5)

    def chain():
        scaled = x * half
        shifted = scaled + y
        return np.maximum(shifted, 0)

    CHAIN.catches(peak_bytes(chain) / x.nbytes)


def test_a_number_that_wants_no_gradient_keeps_nothing(rng):
    x, y = normal(rng, 1 << 20), normal(rng, 1 << 20)
    one = np.float32(1)
    CHAIN_KEPT.check(kept_bytes(lambda: scale_shift_add_relu.vjp(x + one, 1.5, 0.25, y + one)) / x.nbytes)
    CHAIN_KEPT.check(kept_bytes(lambda: add_relu.vjp(x + one, y + one)) / x.nbytes)


def test_x_is_kept_as_it_is_for_an_array_that_wants_a_gradient(rng):
    x, y, row = normal(rng, 1024, 1024), normal(rng, 1024, 1024), normal(rng, 1024)
    CHAIN_KEPT.check(kept_bytes(lambda: scale_shift_add_relu.vjp(x, row, 0.25, y)) / x.nbytes)


def test_a_graph_keeps_the_result_of_a_chain_only(rng):
    assert is_grad_enabled()
    x = normal(rng, 1 << 20)
    one = np.float32(1)

    def work():
        inputs = Tensor(x, requires_grad=True) + one
        return scale_shift_add_relu(inputs, 1.5, 0.25, Tensor(x + one))

    CHAIN_KEPT.check(kept_bytes(work) / x.nbytes)


def test_the_twin_that_keeps_x_is_caught(rng):
    x = normal(rng, 1 << 20)
    one = np.float32(1)

    def there():
        inputs = x + one
        return np.maximum(inputs, 0), lambda grad: grad * inputs

    CHAIN_KEPT.catches(kept_bytes(there) / x.nbytes)


def test_the_way_back_of_a_sum_is_one_array(rng):
    x = normal(rng, 1 << 20)
    _, back = add_relu.vjp(x, x)
    POSITIVE.check(peak_bytes(lambda: back(x)) / x.nbytes)


def test_the_twin_with_an_array_for_each_is_caught(rng):
    x = normal(rng, 1 << 20)
    POSITIVE.catches(peak_bytes(lambda: (x * (x > 0), x * (x > 0))) / x.nbytes)


# 17.10 linear_gelu, 17.11 its rule


def layer(rng):
    return normal(rng, 4096, 64), normal(rng, 256, 64), normal(rng, 256)


def test_no_table_before_gelu_is_made(rng):
    arrays = layer(rng)
    HIDDEN.check(peak_bytes(lambda: linear_gelu(*arrays)) / (4 * MIB))


def test_the_twin_with_a_table_before_gelu_is_caught(rng):
    x, weight, bias = layer(rng)

    def there():
        hidden = x @ weight.T
        hidden += bias
        return np.tanh(hidden)

    HIDDEN.catches(peak_bytes(there) / (4 * MIB))


def test_what_was_before_gelu_is_not_kept(rng):
    arrays = layer(rng)
    HIDDEN_KEPT.check((kept_bytes(lambda: linear_gelu.vjp(*arrays)) - 4 * MIB) / (4 * MIB))
    x, weight, bias = arrays
    recorded = Tensor(x, requires_grad=True)
    HIDDEN_KEPT.check((kept_bytes(lambda: linear_gelu(recorded, weight, bias)) - 4 * MIB) / (4 * MIB))
    fused = LinearGELU(Linear(64, 256, rng=rng))
    HIDDEN_KEPT.check((kept_bytes(lambda: fused(recorded)) - 4 * MIB) / (4 * MIB))


def test_the_twin_that_keeps_it_is_caught(rng):
    x, weight, _ = layer(rng)

    def there():
        hidden = x @ weight.T
        return np.tanh(hidden), hidden

    HIDDEN_KEPT.catches((kept_bytes(there) - 4 * MIB) / (4 * MIB))


def test_the_way_back_makes_it_anew_a_few_rows_at_a_time(rng):
    arrays, grad = layer(rng), normal(rng, 4096, 256)
    _, back = linear_gelu.vjp(*arrays)
    HIDDEN_BACK.check(peak_bytes(lambda: back(grad)) / (4 * MIB))


def test_the_twin_that_makes_it_at_once_is_caught(rng):
    x, weight, _ = layer(rng)

    def back():
        hidden = x @ weight.T
        return hidden @ weight

    HIDDEN_BACK.catches(peak_bytes(back) / (4 * MIB))


# 17.12 softmax_cross_entropy


def test_a_loss_makes_one_table(rng):
    logits, labels = normal(rng, 2048, 512), rng.integers(0, 512, 2048)
    LOSS.check(peak_bytes(lambda: softmax_cross_entropy(logits, labels)) / logits.nbytes)
    one = np.float32(1)
    kept = kept_bytes(lambda: softmax_cross_entropy.vjp(logits + one, labels))
    LOSS.check(kept / logits.nbytes)  # the slopes, and not the logits


def test_the_twin_with_shares_and_slopes_is_caught(rng):
    logits = normal(rng, 2048, 512)

    def there():
        shares = np.exp(logits)
        return shares / shares.sum(axis=1, keepdims=True)

    LOSS.catches(peak_bytes(there) / logits.nbytes)


def test_the_way_back_makes_nothing_for_a_gradient_of_one(rng):
    logits, labels = normal(rng, 2048, 512), rng.integers(0, 512, 2048)
    _, back = softmax_cross_entropy.vjp(logits, labels)
    for one in (np.float32(1), np.ones((), np.float32)):
        LOSS_BACK.check(peak_bytes(lambda one=one: back(one)) / logits.nbytes)


def test_the_twin_that_multiplies_by_one_is_caught(rng):
    logits = normal(rng, 2048, 512)
    LOSS_BACK.catches(peak_bytes(lambda: logits * np.float32(1)) / logits.nbytes)


# 17.13 FusedAdam


def trained(rng, **options):
    """An optimizer after its first step: one long parameter, and many short ones."""
    params = [Parameter(normal(rng, 256, 256)), *(Parameter(normal(rng, 1000)) for _ in range(250))]
    for p in params:
        p.grad = normal(rng, *p.shape)
    optimizer = FusedAdam(params, **options)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled": True}])
def test_a_step_makes_no_array_after_the_first(options, rng):
    optimizer = trained(rng, **options)
    ADAM.check(peak_bytes(optimizer.step) / KIB)


def test_a_step_after_loading_makes_no_array_either(rng):
    optimizer = trained(rng)
    optimizer.load_state_dict(optimizer.state_dict())
    ADAM.check(peak_bytes(optimizer.step) / KIB)


def test_the_twin_that_makes_an_array_a_step_is_caught(rng):
    grad = normal(rng, 256, 256)
    ADAM.catches(peak_bytes(lambda: np.float32(0.1) * grad) / KIB)


def test_memory_of_a_step_does_not_grow_with_the_parameters():
    probe = PROBES["a step of FusedAdam, n parameters in eight arrays"]
    check_memory_growth(probe)


def test_moments_lie_beside_parameters_and_nothing_else_does(rng):
    data = [normal(rng, 512, 512), *(normal(rng, 1000) for _ in range(50))]
    grads = [normal(rng, *array.shape) for array in data]

    def work():
        params = [Parameter(array) for array in data]
        optimizer = FusedAdam(params)
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad
        optimizer.step()
        return params, optimizer

    ADAM_KEPT.check(kept_bytes(work) / sum(array.nbytes for array in data))


def test_the_twin_in_float64_is_caught(rng):
    data = normal(rng, 512, 512)

    def work():
        wide = data.astype(np.float64)
        return wide, wide * 0, wide * 0

    ADAM_KEPT.catches(kept_bytes(work) / data.nbytes)


# 17.14 winograd_conv2d, 17.15 its rule


def pictures(rng):
    return normal(rng, 16, 64, 64, 32).transpose(0, 3, 1, 2), normal(rng, 32, 32, 3, 3)


def transformed(x):
    """All tiles at once: 36 numbers for 16 pixels, before and after."""
    tiles = np.zeros((36, x.size // 16), np.float32)
    return tiles + np.float32(1)


def test_tiles_are_transformed_some_at_a_time(rng):
    x, weight = pictures(rng)
    WINOGRAD.check(peak_bytes(lambda: winograd_conv2d(x, weight)) / x.nbytes)
    tall = x.transpose(0, 2, 3, 1).reshape(1, 1024, 64, 32).transpose(0, 3, 1, 2)
    WINOGRAD.check(peak_bytes(lambda: winograd_conv2d(tall, weight)) / x.nbytes)


def test_the_twin_that_transforms_all_is_caught(rng):
    x, _ = pictures(rng)
    WINOGRAD.catches(peak_bytes(lambda: transformed(x)) / x.nbytes)


def test_transformed_tiles_are_not_kept(rng):
    x, weight = pictures(rng)
    WINOGRAD_KEPT.check((kept_bytes(lambda: winograd_conv2d.vjp(x, weight)) - x.nbytes) / x.nbytes)


def test_the_twin_that_keeps_them_is_caught(rng):
    x, _ = pictures(rng)
    WINOGRAD_KEPT.catches(kept_bytes(lambda: np.zeros((36, x.size // 16), np.float32) + 1) / x.nbytes)


def test_the_way_back_transforms_some_at_a_time_too(rng):
    x, weight = pictures(rng)
    out, back = winograd_conv2d.vjp(x, weight)
    WINOGRAD_BACK.check(peak_bytes(lambda: back(out)) / x.nbytes)


def test_the_twin_of_the_way_back_is_caught(rng):
    x, _ = pictures(rng)
    WINOGRAD_BACK.catches(peak_bytes(lambda: transformed(x)) / x.nbytes)


# 17.16 LinearGELU, fuse


def test_a_fused_layer_has_no_weights_of_its_own(rng):
    linear = Linear(512, 512, rng=rng)
    FUSED.check(kept_bytes(lambda: LinearGELU(linear)) / KIB)


def test_the_twin_that_copies_weights_is_caught(rng):
    linear = Linear(512, 512, rng=rng)
    FUSED.catches(kept_bytes(lambda: linear.weight.data.copy()) / KIB)


def test_a_fused_network_is_one_copy(rng):
    net = Sequential(Linear(512, 512, rng=rng), GELU())
    FUSE.check(kept_bytes(lambda: fuse(net)) / MIB)


def test_the_twin_that_copies_twice_is_caught(rng):
    linear = Linear(512, 512, rng=rng)
    FUSE.catches(kept_bytes(lambda: (linear.weight.data.copy(), linear.weight.data.copy())) / MIB)
