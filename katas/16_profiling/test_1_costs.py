"""Level 1: what operations cost, counted by hand and by loops that count each step."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect
from tinytorch import activations, attention, embeddings, spatial, tensor, training, transformers
from tinytorch.layers import affine
from tinytorch.profiling import cost_rule, op_bytes, op_flops, stored_bytes
from tinytorch.tensor import Op, Tensor, op


def called(an_op, *arrays, **params):
    """The op, its inputs, parameters and result, as a profiler has them."""
    return an_op, arrays, params, an_op(*arrays, **params).data


def table(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


# 16.4 op_flops and its rules


def test_an_op_without_a_rule_counts_one_for_each_element_of_its_result():
    @op
    def invented(a, b):
        return a + b

    expect(op_flops(*called(invented, table(3, 1), table(1, 4))), 12)
    expect(op_flops(*called(tensor.mul, table(5), 2.0)), 5)
    expect(op_flops(*called(tensor.add, table(2, 1), table(3))), 6)
    expect(op_flops(*called(tensor.exp, table(0, 3))), 0)
    expect(op_flops(*called(tensor.exp, table())), 1)


def test_a_rule_of_your_own_counts():
    @op
    def invented_too(a, *, times=3):
        return a * times

    @cost_rule("invented_too")
    def rule(arrays, params, out):
        return params["times"] * out.size + arrays[0].ndim

    expect(op_flops(*called(invented_too, table(2, 5))), 32)
    expect(op_flops(*called(invented_too, Tensor(table(2, 5)), times=4)), 42)
    expect(rule([X], {"times": 2}, X), 50)  # still a function


def test_tensors_and_arrays_cost_the_same():
    a, b = table(2, 3), table(3, 4)
    got = op_flops(tensor.matmul, [Tensor(a), Tensor(b)], {}, Tensor(a @ b))
    expect((got, op_flops(tensor.matmul, (a, b), {}, a @ b)), (48, 48))
    expect(type(got), int)


def test_a_rule_gets_bare_arrays_and_all_parameters():
    @op
    def bared(a, b, *, c=5, d=6):
        return a

    got = []

    @cost_rule("bared")
    def rule(arrays, params, out):
        got.append((type(arrays[0]), arrays[1], params, type(out)))
        return 7.0

    flops = op_flops(bared, (Tensor(X), 2.0), {"d": 1}, Tensor(X))
    expect((flops, type(flops)), (7, int))
    expect(got, [(np.ndarray, 2.0, {"c": 5, "d": 1}, np.ndarray)])


X = table(4, 6)
SIX = table(6)
MATMULS = [
    ((8, 3), (3, 5), 240),
    ((3,), (3,), 6),
    ((8, 3), (3,), 48),
    ((3,), (3, 5), 30),
    ((7, 8, 3), (3, 5), 7 * 240),
    ((7, 1, 8, 3), (2, 3, 5), 14 * 240),
    ((8, 0), (0, 5), 0),
]


@pytest.mark.parametrize(("a", "b", "flops"), MATMULS, ids=str)
def test_matmul_is_two_for_each_pair_that_meets(a, b, flops):
    expect(op_flops(*called(tensor.matmul, table(*a), table(*b))), flops)


def test_affine_is_a_product_and_a_bias():
    x, weight, bias = table(4, 3), table(5, 3), table(5)
    expect(op_flops(*called(affine, x, weight)), 2 * 4 * 3 * 5)
    expect(op_flops(*called(affine, x, weight, None)), 2 * 4 * 3 * 5)
    expect(op_flops(*called(affine, x, weight, bias)), 2 * 4 * 3 * 5 + 4 * 5)
    expect(op_flops(*called(affine, table(2, 7, 3), weight, bias)), 14 * (30 + 5))


def counted_convolution(x, weight, bias, stride, padding, dilation, groups):
    """Products and sums of a convolution by loops, those with the padding too."""
    (n, _, height, width), (outputs, inputs, kh, kw) = x, weight
    rows = (height + 2 * padding - dilation * (kh - 1) - 1) // stride + 1
    columns = (width + 2 * padding - dilation * (kw - 1) - 1) // stride + 1
    steps = 0
    for _ in itertools.product(range(n), range(outputs), range(rows), range(columns)):
        steps += 2 * inputs * kh * kw + bias
    return steps


def with_lists(op, *inputs, **params):
    """As `called` with lists, which not every operation takes: the result is that of arrays."""
    *_, out = called(op, *map(np.array, inputs), **params)
    return op, inputs, params, out


def test_lists_cost_what_arrays_do():
    """Some operations take lists, so whoever counts has to."""
    x, weight = [[1.0, 2.0, 3.0]], [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    expect(op_flops(*with_lists(affine, x, weight)), 2 * 3 * 2)
    expect(op_flops(*with_lists(tensor.matmul, x, [1.0, 2.0, 3.0])), 6)
    expect(op_flops(*with_lists(tensor.mul, x, [2.0, 2.0, 2.0])), 3)
    expect(op_flops(*with_lists(tensor.transpose, x, axis0=0, axis1=1)), 0)
    images, kernels = np.ones((1, 1, 2, 2)).tolist(), [[[[1.0, 1.0]]]]
    expect(op_flops(*with_lists(spatial.conv2d, images, kernels)), 2 * 2 * 2)


CONVOLUTIONS = [
    ((2, 3, 6, 5), (4, 3, 3, 3), {}),
    ((2, 3, 6, 5), (4, 3, 3, 2), {"stride": 2, "padding": 1}),
    ((1, 4, 7, 7), (6, 2, 3, 3), {"groups": 2, "dilation": 2}),
    ((1, 4, 5, 5), (4, 1, 3, 3), {"groups": 4, "padding": 1}),
    ((3, 2, 4, 4), (5, 2, 1, 1), {}),
]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("x", "weight", "params"), CONVOLUTIONS, ids=str)
def test_a_convolution_sees_the_channels_of_its_group(x, weight, params, bias):
    settings = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **params}
    arrays = [table(*x), table(*weight), *([table(weight[0])] if bias else [])]
    expect(
        op_flops(*called(spatial.conv2d, *arrays, **params)), counted_convolution(x, weight, bias, **settings)
    )


def test_pooling_is_one_for_each_element_that_a_window_sees():
    x = table(2, 3, 6, 6)
    for pool in (spatial.max_pool2d, spatial.avg_pool2d):
        expect(op_flops(*called(pool, x, kernel=2)), 2 * 3 * 3 * 3 * 4)
        expect(op_flops(*called(pool, x, kernel=(2, 3))), 2 * 3 * 3 * 2 * 6)
        # overlapping: 4 x 4 windows of 9
        expect(op_flops(*called(pool, x, kernel=3, stride=1)), 2 * 3 * 16 * 9)


def test_batch_norm_in_use_is_cheaper_than_in_training():
    x, ones, zeros = table(4, 3, 2, 2), table(3), np.zeros(3, np.float32)
    expect(op_flops(*called(spatial.batch_norm, x, ones, zeros)), 48 * 7)
    use = {"training": False, "running_mean": zeros, "running_var": ones}
    expect(op_flops(*called(spatial.batch_norm, x, ones, zeros, **use)), 48 * 3)


def counted_attention(q, k, v, causal):
    (batch, heads, queries, dim), keys, width = q, k[2], v[3]
    steps = 0
    for _, _, i, j in itertools.product(range(batch), range(heads), range(queries), range(keys)):
        if not causal or j <= i + keys - queries:
            steps += 2 * dim + 5 + 2 * width
    return steps


ATTENTIONS = [
    ((2, 3, 4, 5), (2, 3, 4, 5), (2, 3, 4, 5)),
    ((2, 4, 3, 5), (2, 2, 7, 5), (2, 2, 7, 6)),
    ((1, 2, 6, 4), (1, 1, 3, 4), (1, 1, 3, 2)),
    ((1, 2, 1, 4), (1, 2, 9, 4), (1, 2, 9, 4)),
]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("q", "k", "v"), ATTENTIONS, ids=str)
def test_attention_counts_the_pairs_that_may_meet(q, k, v, causal):
    out = np.ones((*q[:3], v[3]), np.float32)
    arrays = [table(*q), table(*k), table(*v)]
    got = op_flops(attention.fused_attention, arrays, {"is_causal": causal}, out)
    expect(got, counted_attention(q, k, v, causal))
    hidden = {"mask": np.eye(q[2], k[2], dtype=bool), "is_causal": causal}
    expect(op_flops(attention.fused_attention, arrays, hidden, out), got)
    if not causal:
        expect(op_flops(attention.fused_attention, arrays, {}, out), got)


RNG = np.random.default_rng(0)
BY_HAND = {
    # result of a call, and FLOPs: one for each element, or more by the table of the module
    "sum": (lambda: called(tensor.total, X, axis=0), 24),
    "sum of all": (lambda: called(tensor.total, X), 24),
    "mean": (lambda: called(tensor.mean, X, axis=1), 24),
    "max": (lambda: called(tensor.amax, X), 24),
    "min": (lambda: called(tensor.amin, X), 24),
    "argmax": (lambda: called(tensor.argmax, X, axis=0), 24),
    "var": (lambda: called(tensor.var, X, axis=0), 96),
    "relu": (lambda: called(activations.relu, X), 24),
    "leaky relu": (lambda: called(activations.leaky_relu, X), 48),
    "sigmoid": (lambda: called(activations.sigmoid, X), 96),
    "gelu": (lambda: called(activations.gelu, X), 168),
    "softmax": (lambda: called(activations.softmax, X), 120),
    "log softmax": (lambda: called(activations.log_softmax, X), 120),
    "dropout": (lambda: called(activations.dropout, X, p=0.5, rng=RNG), 48),
    "layer norm": (lambda: called(transformers.layer_norm, X, SIX, SIX), 168),
    "rms norm": (lambda: called(transformers.rms_norm, X, SIX), 96),
    "cross entropy": (lambda: called(training.cross_entropy, X, [0, 1, 2, 3]), 120),
    "mse": (lambda: called(training.mse_loss, X, np.zeros_like(X)), 72),
    "rotary": (lambda: called(embeddings.rotary, X, cos=table(4, 3), sin=table(4, 3)), 72),
    "embedding": (lambda: called(embeddings.embedding, X, [0, 3, 3]), 0),
    "reshape": (lambda: called(tensor.reshape, X, shape=(24,)), 0),
    "view": (lambda: called(tensor.view, X, shape=(24,)), 0),
    "transpose": (lambda: called(tensor.transpose, X, axis0=0, axis1=1), 0),
    "permute": (lambda: called(tensor.permute, X, axes=(1, 0)), 0),
    "squeeze": (lambda: called(tensor.squeeze, table(1, 6)), 0),
    "unsqueeze": (lambda: called(tensor.unsqueeze, X, axis=0), 0),
    "expand": (lambda: called(tensor.expand, SIX, shape=(4, 6)), 0),
    "getitem": (lambda: called(tensor.getitem, X, index=slice(2)), 0),
    "join": (lambda: called(tensor.join, X, X, axis=0), 0),
    "contiguous": (lambda: called(tensor.contiguous, X.T), 0),
    "clip": (lambda: called(tensor.clip, X, min=0.0), 24),
    "compare": (lambda: called(tensor.compare, X, SIX, test=np.less), 24),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_operations_of_earlier_katas_cost_what_the_table_says(name):
    call, flops = BY_HAND[name]
    expect(op_flops(*call()), flops)


def test_the_cost_of_an_op_in_place_is_that_of_the_other():
    x = Tensor(np.ones((4, 6), np.float32))
    expect(op_flops(*called(activations.relu_, x)), 24)
    expect(op_flops(*called(activations.leaky_relu_, x)), 48)
    expect(op_flops(*called(activations.sigmoid_, x)), 96)


# 16.5 op_bytes, stored_bytes


def test_an_operation_reads_its_inputs_and_writes_its_result():
    a, b = table(8, 3), table(3, 5)
    expect(op_bytes(*called(tensor.matmul, a, b)), 4 * (24 + 15 + 40))
    expect(op_bytes(*called(tensor.add, a, a.astype(np.float64))), 24 * (4 + 8 + 8))
    expect(op_bytes(*called(tensor.total, a)), 4 * (24 + 1))
    expect(op_bytes(*called(affine, a, table(5, 3), table(5))), 4 * (24 + 15 + 5 + 40))


def test_tensors_move_what_their_arrays_do():
    a, b = table(8, 3), table(3, 5)
    expect(op_bytes(tensor.matmul, [Tensor(a), Tensor(b)], {}, Tensor(a @ b)), 316)


def test_numbers_lists_and_nothing_take_no_bytes():
    x = table(6)
    expect(op_bytes(*called(tensor.mul, x, 2.0)), 48)
    expect(op_bytes(*called(affine, table(2, 6), table(3, 6), None)), 4 * (12 + 18 + 6))
    expect(op_bytes(*called(training.cross_entropy, table(3, 4), [0, 1, 2])), 4 * (12 + 1))


def test_of_a_list_there_is_no_view():
    expect(op_bytes(*with_lists(tensor.transpose, [[1.0, 2.0]], axis0=0, axis1=1)), 2 * 8)
    expect(op_bytes(*with_lists(tensor.unsqueeze, [1, 2, 3], axis=0)), 3 * 8)


def test_arrays_among_the_parameters_are_read_as_well():
    cos = table(4, 3)
    got = op_bytes(*called(embeddings.rotary, X, cos=cos, sin=Tensor(cos).data))
    expect(got, 4 * (24 + 12 + 12 + 24))
    expect(op_bytes(embeddings.rotary, [X], {"cos": Tensor(cos), "sin": cos}, X + 0), 4 * 72)


VIEWS = {
    "reshape": lambda: called(tensor.reshape, X, shape=(6, 4)),
    "view": lambda: called(tensor.view, X, shape=(2, 12)),
    "transpose": lambda: called(tensor.transpose, X, axis0=0, axis1=1),
    "permute": lambda: called(tensor.permute, X, axes=(1, 0)),
    "squeeze": lambda: called(tensor.squeeze, table(1, 5)),
    "unsqueeze": lambda: called(tensor.unsqueeze, X, axis=0),
    "expand": lambda: called(tensor.expand, SIX, shape=(4, 6)),
    "slice": lambda: called(tensor.getitem, X, index=slice(1, 3)),
    "contiguous": lambda: called(tensor.contiguous, X),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_moves_nothing(name):
    expect(op_bytes(*VIEWS[name]()), 0)


def test_a_copy_reads_and_writes():
    expect(op_bytes(*called(tensor.reshape, X.T, shape=(24,))), 4 * 48)
    expect(op_bytes(*called(tensor.contiguous, X.T)), 4 * 48)
    expect(op_bytes(*called(tensor.join, X, X, axis=0)), 4 * 96)


def test_an_operation_in_place_reads_and_writes_the_same_bytes():
    x = Tensor(np.ones(10, np.float32))
    expect(op_bytes(*called(activations.relu_, x)), 80)


def test_a_look_up_reads_only_the_rows_that_it_finds():
    weight, ids = table(1000, 8), np.array([3, 3, 7])
    expect(op_bytes(*called(embeddings.embedding, weight, ids)), 4 * (24 + 24) + ids.nbytes)
    expect(op_bytes(*called(tensor.getitem, weight, index=[1, 2])), 4 * (16 + 16))
    picks = np.array([5, 6, 7])
    expect(op_bytes(*called(tensor.getitem, weight, index=picks)), 4 * 48 + picks.nbytes)


def test_an_element_that_is_repeated_is_in_memory_once():
    row = np.broadcast_to(table(6), (4, 6))
    expect(stored_bytes(row), 24)
    expect(op_bytes(*called(tensor.add, row, X)), 4 * (6 + 24 + 24))
    expect(stored_bytes(np.broadcast_to(np.float64(1.0), (3, 3))), 8)


def test_elements_are_counted_whatever_their_layout():
    a = np.zeros((4, 6), np.float64)
    for view in (a, a.T, a[::-1], a[:, ::-2], np.asfortranarray(a)):
        expect(stored_bytes(view), view.size * 8)
    expect(stored_bytes(np.zeros((), np.float64)), 8)


def test_nothing_has_no_bytes():
    expect(stored_bytes(np.zeros((0, 3))), 0)
    expect(stored_bytes(np.broadcast_to(np.zeros((1, 0)), (5, 0))), 0)
    expect([stored_bytes(x) for x in (None, 2.0, np.float64(2.0), [1, 2], "a")], [0] * 5)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=0, max_size=4), st.booleans())
def test_stored_bytes_are_those_of_the_different_elements(axes, backwards):
    small = np.arange(np.prod([1 if stretched else n for n, stretched in axes], dtype=int), dtype=np.int16)
    array = np.broadcast_to(
        small.reshape([1 if stretched else n for n, stretched in axes]), [n for n, _ in axes]
    )
    if backwards and array.ndim:
        array = array[::-1]
    expect(stored_bytes(array), 2 * len(set(array.ravel().tolist())))


def test_counting_does_not_change_the_parameters():
    params = {"kernel": 2}
    x = table(1, 1, 4, 4)
    defaults = dict(spatial.max_pool2d.params)
    op_flops(spatial.max_pool2d, [x], params, x[:, :, ::2, ::2])
    expect(spatial.max_pool2d.params, defaults)
    arrays = [X, [0, 1]]
    op_bytes(embeddings.embedding, arrays, {}, X[[0, 1]])
    expect((params, arrays[0] is X, isinstance(tensor.add, Op)), ({"kernel": 2}, True, True))
