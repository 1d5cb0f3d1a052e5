"""Level 1: computing again instead of keeping, checking gradients, forward mode, and the graph to look at."""

import itertools
import re

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.activations import Dropout, ReLU, gelu, log_softmax, relu, relu_, sigmoid_, softmax
from tinytorch.autograd import (
    backward,
    checkpoint,
    checkpoint_sequential,
    forward_rule,
    gradcheck,
    graph_mermaid,
    graph_text,
    is_grad_enabled,
    jvp,
    no_grad,
    record,
    register_hook,
)
from tinytorch.layers import Linear, Parameter, affine
from tinytorch.networks import MLP, Tape
from tinytorch.tensor import (
    Tensor,
    amax,
    amin,
    concatenate,
    div,
    increment_version,
    matmul,
    maximum,
    op,
    set_recorder,
    total,
    where,
)


def leaf(values, dtype=np.float64):
    return Tensor(np.array(values, dtype), requires_grad=True)


def f64(values):
    return np.array(values, np.float64)


def gradients_of(function, *leaves):
    """What a backward pass from `function(*leaves)` adds to them, from scratch."""
    for x in leaves:
        x.grad = None
    out = function(*leaves)
    backward(out.sum())
    return [x.grad for x in leaves]


# 06.17 checkpointed, checkpointed_back


def test_a_checkpoint_gives_the_same_result_and_the_same_gradients():
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])

    def function(x, y):
        return (x * y).exp() / y

    expect(checkpoint(function, x, y), function(x, y).data)
    plain = gradients_of(function, x, y)
    expect(gradients_of(lambda x, y: checkpoint(function, x, y), x, y), plain)


def test_parameters_that_the_function_uses_get_their_gradients(rng):
    layers = [Linear(3, 3, rng=rng) for _ in range(2)]
    parameters = [p for layer in layers for p in layer.parameters()]
    x = leaf(rng.normal(size=(4, 3)), np.float32)

    def function(x, *parameters):
        return layers[1](relu(layers[0](x))) + x

    plain = gradients_of(function, x, *parameters)
    expect(gradients_of(lambda x, *parameters: checkpoint(function, x), x, *parameters), plain)


def test_one_tensor_can_be_handed_over_twice():
    """The function gets two, and each has a share: of x * y, y and x."""
    x = leaf([3.0])
    backward(checkpoint(lambda y, z: y * y * z, x, x))
    expect(x.grad, f64([27]))


def test_a_function_of_no_input_that_needs_a_gradient_is_recorded_all_the_same(rng):
    """The first block of a network sees data, and still has weights to learn."""
    layer, data = Linear(3, 2, rng=rng), Tensor(rng.normal(size=(4, 3)).astype(np.float32))
    plain = gradients_of(lambda *_: layer(data), layer.weight, layer.bias)
    expect(gradients_of(lambda *_: checkpoint(layer, data), layer.weight, layer.bias), plain)
    weight = leaf([2.0])
    expect(gradients_of(lambda w: checkpoint(lambda: w * w), weight), [f64([4])])


def test_results_from_outside_get_their_gradients_and_are_walked_once():
    x, calls = leaf([3.0]), []
    outer = x * x
    register_hook(outer, lambda grad: calls.append(grad.copy()))
    out = checkpoint(lambda y: y * outer, x) + outer
    backward(out)
    expect((x.grad, calls), (f64([33]), [f64([4])]))  # x**3 + x**2: 3x**2 + 2x; for outer: x + 1


def test_a_parameter_or_an_earlier_result_returned_as_it_is_gets_its_gradient():
    weight, x = leaf([2.0]), leaf([3.0])
    backward(checkpoint(lambda x: weight, x))
    backward(checkpoint(lambda x: x, x))
    expect((weight.grad, x.grad), (f64([1]), f64([1])))
    earlier = weight * x
    backward(checkpoint(lambda x: earlier, x))
    expect((weight.grad, x.grad), (f64([1 + 3]), f64([1 + 2])))


def test_a_hook_of_a_parameter_sees_its_whole_gradient_once():
    weight, seen = leaf([2.0]), []
    register_hook(weight, lambda grad: seen.append(grad.copy()))
    x = leaf([3.0])
    backward(checkpoint(lambda x: x * weight, x) + weight)
    expect(seen, [f64([4])])


def test_the_function_runs_once_on_the_way_there_and_once_on_the_way_back():
    calls = []

    def function(x):
        calls.append(is_grad_enabled())
        return x * x

    x = leaf([3.0])
    out = checkpoint(function, x)
    expect(len(calls), 1)
    backward(out)
    expect((len(calls), x.grad, is_grad_enabled()), (2, f64([6]), True))


def test_dropout_draws_the_same_mask_again_if_its_generator_is_named():
    mine, twin = np.random.default_rng(3), np.random.default_rng(3)
    drop, same = Dropout(0.5, rng=mine), Dropout(0.5, rng=twin)
    x = Tensor(np.ones((8, 8)), requires_grad=True)
    out = checkpoint(lambda x: drop(x) * x, x, rngs=[mine])
    expect(out, (same(Tensor(np.ones((8, 8)))) * 1.0).data)
    mine.random(5)
    twin.random(5)
    backward(out.sum())
    expect(x.grad, 2 * out.data)
    expect(mine.random(3), twin.random(3))  # and goes on from where it was


def test_every_generator_that_is_named_draws_the_same_again():
    rngs = [np.random.default_rng(seed) for seed in (1, 2)]
    drops = [Dropout(0.5, rng=rng) for rng in rngs]
    x = Tensor(np.ones((8, 8)), requires_grad=True)
    out = checkpoint(lambda x: drops[1](drops[0](x)), x, rngs=rngs)
    after = [rng.bit_generator.state for rng in rngs]
    backward(out.sum())
    expect(x.grad, out.data)
    assert [rng.bit_generator.state for rng in rngs] == after


def test_what_an_unsuccessful_function_leaves_behind():
    def fails(x):
        raise KeyError

    x, rng = leaf([1.0]), np.random.default_rng(0)
    with expect_error(KeyError):
        checkpoint(fails, x)
    expect(is_grad_enabled(), True)
    assert (x * 2.0).node is not None
    calls = []

    def fails_the_second_time(x):
        calls.append(rng.random())
        return x * 2.0 if len(calls) == 1 else fails(x)

    out = checkpoint(fails_the_second_time, x, rngs=[rng])
    state = rng.bit_generator.state
    with expect_error(KeyError):
        backward(out)
    expect(rng.bit_generator.state, state)
    backward(x * 2.0)
    expect(x.grad, f64([2]))


def test_checkpoints_can_lie_inside_of_each_other():
    weight, x = leaf([2.0]), leaf([3.0])

    def outer(x):
        return checkpoint(lambda y: (y * weight).exp(), x) * checkpoint(lambda y: y + weight, x)

    plain = gradients_of(lambda x, w: (x * w).exp() * (x + w), x, weight)
    expect(gradients_of(lambda x, w: checkpoint(outer, x), x, weight), plain)


def test_a_checkpointed_graph_can_be_walked_twice_if_it_stays():
    x = leaf([3.0])
    out = checkpoint(lambda x: x * x, x)
    backward(out, retain_graph=True)
    backward(out)
    expect(x.grad, f64([12]))
    with expect_error(RuntimeError, "retain_graph"):
        backward(out)


def test_other_inputs_are_handed_on_as_they_are():
    seen = []

    def function(x, *others):
        seen.append(others)
        return x * others[0]

    counts, array, data = Tensor([2]), f64([1]), Tensor(f64([7]))
    x = leaf([3.0])
    backward(checkpoint(function, x, counts, None, "text", array, data))
    expect(x.grad, f64([2]))
    for others in seen:
        expect((others[0].data, others[1:3]), (np.array([2]), (None, "text")))
        assert others[3] is array
        expect((others[4].data, others[4].requires_grad), (f64([7]), False))


def test_an_input_that_was_written_over_cannot_be_computed_with_again():
    data, x = Tensor(f64([2])), leaf([3.0])
    for function, inputs in [(lambda x, d: x * d, (x, data)), (lambda x: x * x, (x,))]:
        out = checkpoint(function, *inputs)
        increment_version(inputs[-1].data)
        with expect_error(RuntimeError, "checkpointed"):
            backward(out)
    weight = leaf([2.0])
    out = checkpoint(lambda x: x * weight, x)
    increment_version(weight.data)
    with expect_error(RuntimeError, "checkpointed"):
        backward(out)


def test_without_recording_a_checkpoint_is_its_function(rng):
    layer, x = Linear(3, 3, rng=rng), leaf(rng.normal(size=(2, 3)), np.float32)
    with no_grad():
        out = checkpoint(layer, x)
    expect((out.requires_grad, out.node), (False, None))
    with Tape() as tape:
        checkpoint(layer, x)
    expect(len(tape.steps), 1)


def test_what_needs_no_gradient_has_none_behind_a_checkpoint_either():
    for function, x in [
        (lambda x: x * 2.0, Tensor([1.0])),
        (lambda x: x > 0, leaf([1.0])),
        (lambda x: x.detach(), leaf([1.0])),
    ]:
        out = checkpoint(function, x)
        expect((out.requires_grad, out.node), (False, None))


def test_operations_in_place_inside_of_a_checkpoint():
    x = leaf([1.0, -2.0])

    def function(x):
        h = x * 3.0
        relu_(h)
        total_so_far = Tensor(f64([1, 1]))
        return h * x + total_so_far

    expect(gradients_of(lambda x: checkpoint(function, x), x), gradients_of(function, x))


@op(in_place=True)
def add_(a, b):
    a += b
    return a


add_.gradient(lambda grad: (grad, grad))


def test_a_constant_inside_of_a_checkpoint_can_be_added_to():
    def function(x):
        total_so_far = Tensor(np.zeros(2))
        for factor in (2.0, 3.0):
            add_(total_so_far, x * factor)
        return total_so_far * x

    x = leaf([1.0, -2.0])
    expect(gradients_of(lambda x: checkpoint(function, x), x), gradients_of(function, x))


def test_the_way_back_under_no_grad_records_again_and_leaves_no_grad_alone():
    x = leaf([3.0])
    out = checkpoint(lambda x: x * x, x)
    with no_grad():
        backward(out)
        expect((is_grad_enabled(), x.grad), (False, f64([6])))


# 06.17 checkpoint_sequential


@pytest.mark.parametrize("segments", [1, 2, 3, 5, 7, 9])
def test_layers_in_segments_give_what_layers_in_a_row_give(segments, rng):
    net = MLP([3, 4, 4, 4, 2], rng=rng)  # 7 layers
    x = leaf(rng.normal(size=(5, 3)), np.float32)
    parameters = [*net.parameters()]
    plain = gradients_of(lambda x, *_: net(x), x, *parameters)
    expect(checkpoint_sequential(net, segments, x), net(x).data)
    expect(gradients_of(lambda x, *_: checkpoint_sequential(net, segments, x), x, *parameters), plain)


def test_each_segment_but_the_last_is_computed_twice():
    calls = []

    def layer(name):
        def run(x):
            calls.append(name)
            return x * 2.0

        return run

    x = leaf([1.0])
    out = checkpoint_sequential([layer(name) for name in "abcdef"], 3, x)
    expect("".join(calls), "abcdef")
    backward(out)
    expect(("".join(calls), x.grad), ("abcdefcdab", f64([64])))
    for segments in (1, 3, 6):
        drawn = graph_text(checkpoint_sequential([layer("x")] * 6, segments, x))
        expect((segments, drawn.count("checkpointed")), (segments, segments - 1))


@pytest.mark.parametrize(("count", "segments"), [(7, 3), (11, 4), (6, 3), (9, 5)])
def test_no_segment_is_longer_than_another_by_more_than_one_layer(count, segments):
    calls = []
    layers = [lambda x, i=i: (calls.append(i), x * 1.0)[1] for i in range(count)]
    backward(checkpoint_sequential(iter(layers), segments, leaf([1.0])))
    # All but the last run again, the last of them first: where the numbers fall, a piece begins.
    again = calls[count:]
    starts = [i for i in range(len(again)) if i == 0 or again[i] < again[i - 1]]
    lengths = [end - start for start, end in itertools.pairwise([*starts, len(again)])]
    lengths.append(count - len(again))
    expect((len(lengths), sum(lengths)), (segments, count))
    assert max(lengths) - min(lengths) <= 1, lengths


def test_dropout_in_segments_draws_the_same_masks_again():
    rng = np.random.default_rng(0)
    layers = [Dropout(0.5, rng=rng) for _ in range(4)]
    x = Tensor(np.ones((16, 16)), requires_grad=True)
    out = checkpoint_sequential(layers, 3, x, rngs=[rng])
    backward(out.sum())
    expect(x.grad, out.data)


def test_no_layers_and_no_segments():
    x = leaf([1.0])
    expect(checkpoint_sequential([], 2, x), x.data)
    for segments in (0, -1):
        with expect_error(ValueError, str(segments)):
            checkpoint_sequential([ReLU()], segments, x)


# 06.18 gradcheck


@op
def cube(a):
    return a * a * a


def with_rule(rule):
    """`cube` with some gradient rule."""
    spoiled = op(cube.forward)
    spoiled.gradient(rule)
    return lambda x: spoiled(x)


def test_gradcheck_finds_right_gradients_right(rng):
    assert gradcheck(with_rule(lambda grad, a: grad * 3 * a * a), rng.normal(size=(2, 3)), rng=rng) is True
    assert gradcheck(
        lambda x, w, b: affine(x, w, b), *(rng.normal(size=s) for s in ((2, 3), (4, 3), 4)), rng=rng
    )
    assert gradcheck(lambda x, i: x[i] / x.sum(), rng.normal(size=4) + 3, np.array([0, 0, 2]), rng=rng)
    assert gradcheck(lambda x: x * x, 3.0, rng=rng)
    assert gradcheck(lambda x, nothing: x.exp(), np.float32([1, 2]), None, rng=rng)
    assert gradcheck(lambda x, y: x * 2.0, f64([1]), f64([2]), rng=rng)  # nothing depends on y


@pytest.mark.parametrize(
    "rule",
    [
        lambda grad, a: grad * 3 * a,
        lambda grad, a: grad * 2 * a * a,
        lambda grad, a: -grad * 3 * a * a,
        lambda grad, a: np.zeros_like(a),
        lambda grad, a: 3 * a * a,  # right for a gradient of ones
        lambda grad, a: grad * (3 * a * a + (a == a.max()) * 1e-3),  # wrong in one element
        lambda grad: None,
    ],
)
def test_gradcheck_finds_wrong_gradients_wrong(rule, rng):
    with expect_error(AssertionError, "0"):
        gradcheck(with_rule(rule), rng.normal(size=(2, 3)) + 2, rng=rng)


def test_gradcheck_names_the_argument_and_the_place(rng):
    @op
    def product(a, b):
        return a * b

    product.gradient(lambda grad, a, b: (grad * b, grad * np.where(a == 2, 7, a)))
    with expect_error(AssertionError, "argument 1", "(0, 2)"):
        gradcheck(lambda a, b: product(a, b), f64([[1, 3, 2]]), f64([[4, 5, 6]]), rng=rng)


def test_gradcheck_wants_float64_to_stay_so(rng):
    @op
    def narrow(a):
        return np.float32(a)

    narrow.gradient(lambda grad: grad)
    with expect_error(AssertionError, "float32"):
        gradcheck(lambda x: narrow(x), f64([1, 2]), rng=rng)


def test_gradcheck_has_tolerances(rng):
    nearly = with_rule(lambda grad, a: grad * 3 * a * a * (1 + 1e-3))
    with expect_error(AssertionError):
        gradcheck(nearly, f64([1, 2]), rng=rng)
    assert gradcheck(nearly, f64([1, 2]), rng=rng, rtol=1e-2)
    assert gradcheck(nearly, f64([1, 2]), rng=rng, atol=1.0)


def test_gradcheck_draws_from_the_generator_it_is_given(rng):
    before = rng.bit_generator.state
    gradcheck(lambda x: x * x, f64([1, 2]), rng=rng)
    assert rng.bit_generator.state != before


def test_gradcheck_moves_floats_and_lists_of_them_and_hands_all_else_on(rng):
    seen, others = [], ([0, 2], 0, None, "text")

    def function(x, *handed_on):
        seen.append(handed_on)
        return x[handed_on[0]].sum(axis=handed_on[1])

    assert gradcheck(function, [1.0, 2.0, 3.0], *others, rng=rng)
    for handed_on in seen:
        assert all(one is other for one, other in zip(handed_on, others, strict=True)), handed_on
    wrong = with_rule(lambda grad, a: grad)
    with expect_error(AssertionError, "argument 0", "(1,)"):
        gradcheck(wrong, [3**-0.5, 2.0], rng=rng)  # where 3 x² is 1, and where it is not


def test_gradcheck_changes_nothing(rng):
    x = f64([1, 2])
    gradcheck(lambda x: x * x, x, rng=rng)
    expect((x, is_grad_enabled()), (f64([1, 2]), True))


# 06.19 push_linear, push_elementwise, push_product, push_reduction, jvp


def test_how_fast_a_function_changes():
    """x**2 + xy at x = 3, y = 5, moving by 1 and 10: 2 * 3 * 1 + 5 * 1 + 3 * 10."""
    out, moved = jvp(lambda x, y: x * x + x * y, [f64([3]), f64([5])], [f64([1]), f64([10])])
    expect((out, moved), (f64([24]), f64([41])))


FORWARD = {
    "add": (lambda x, y: x + y, [[1, 2], [3, 4]], [[10, 20], [1, 2]], [11, 22]),
    "add, stretched": (lambda x: x + f64([[1, 2], [3, 4]]), [[1, 2]], [[10, 20]], [[10, 20], [10, 20]]),
    "sub": (lambda x, y: x - y, [[1, 2], [3, 4]], [[10, 20], [1, 2]], [9, 18]),
    "a number minus": (lambda x: 5.0 - x, [[1, 2]], [[10, 20]], [-10, -20]),
    "neg": (lambda x: -x, [[1, 2]], [[10, 20]], [-10, -20]),
    "mul, stretched": (
        lambda x, y: x * y,
        [[1, 2], [[3], [4]]],
        [[10, 20], [[1], [2]]],
        [[31, 62], [42, 84]],
    ),
    "div": (lambda x, y: x / y, [[6.0], [2.0]], [[1], [1]], [0.5 - 1.5]),
    "power": (lambda x: x**3, [[2, 1]], [[1, 10]], [12, 30]),
    "exp": (lambda x: x.exp(), [[0]], [[5]], [5]),
    "maximum": (lambda x, y: maximum(x, y), [[1, 5], [3, 4]], [[10, 20], [1, 2]], [1, 20]),
    "clip": (lambda x: x.clip(0, 1), [[-1, 0.5, 2]], [[1, 1, 1]], [0, 1, 0]),
    "where": (lambda x, y: where(f64([1, 0]) > 0, x, y), [[1, 2], [3, 4]], [[10, 20], [1, 2]], [10, 2]),
    "relu": (lambda x: relu(x), [[-1, 2]], [[10, 20]], [0, 20]),
    "relu_": (lambda x: relu_(x * 1.0), [[-1, 2]], [[10, 20]], [0, 20]),
    "sigmoid_": (lambda x: sigmoid_(x * 1.0), [[0]], [[8]], [2]),  # 1/2 (1 - 1/2) of it
    # p = (1/2, 1/2): its derivatives are [[1/4, -1/4], [-1/4, 1/4]].
    "softmax": (lambda x: softmax(x), [[0, 0]], [[4, 8]], [-1, 1]),
    "total": (lambda x: x.sum(axis=0), [[[1, 2], [3, 4]]], [[[1, 10], [2, 20]]], [3, 30]),
    "mean": (lambda x: x.mean(axis=1, keepdims=True), [[[1, 2], [3, 4]]], [[[1, 3], [2, 6]]], [[2], [4]]),
    "amax": (lambda x: x.max(axis=1), [[[1, 2], [4, 3]]], [[[1, 3], [2, 6]]], [3, 2]),
    "amin": (lambda x: x.min(axis=0, keepdims=True), [[[1, 4], [2, 3]]], [[[1, 3], [2, 6]]], [[1, 6]]),
    "var": (lambda x: x.var(), [[1, 2, 3]], [[1, 10, 100]], 99),
    "matmul": (lambda x, y: x @ y, [[[1, 2]], [[3], [4]]], [[[10, 20]], [[1], [2]]], [[30 + 80 + 1 + 4]]),
    "affine": (
        lambda x, w, b: affine(x, w, b),
        [[[1, 2]], [[3, 4]], [5]],
        [[[10, 20]], [[1, 2]], [7]],
        [[30 + 80 + 1 + 4 + 7]],
    ),
    "affine with other constants": (
        lambda w: affine(Tensor(f64([[1, 2]])), w),
        [[[3, 4]]],
        [[[1, 2]]],
        [[5]],
    ),
    "affine of b alone": (lambda b: affine(f64([[1, 2]]), f64([[3, 4]]), b), [[5]], [[7]], [[7]]),
    "affine of x alone": (lambda x: affine(x, f64([[3, 4]]), f64([9])), [[[1, 2]]], [[[10, 20]]], [[110]]),
    "views": (
        lambda x: x.reshape(3, 2).T.unsqueeze(0).squeeze(0).transpose(0, 1).contiguous().view(-1)[1:3],
        [[1, 2, 3, 4, 5, 6]],
        [[10, 20, 30, 40, 50, 60]],
        [20, 30],
    ),
    "expand": (lambda x: x.expand(2, 2), [[1, 2]], [[10, 20]], [[10, 20], [10, 20]]),
    "join": (lambda x, y: concatenate([x, Tensor([9.0]), y]), [[1], [2]], [[10], [20]], [10, 0, 20]),
}


@pytest.mark.parametrize("name", FORWARD)
def test_tangents_go_forward_through_each_operation(name):
    function, primals, tangents, expected = FORWARD[name]
    out, moved = jvp(function, [f64(p) for p in primals], [f64(t) for t in tangents])
    expect((out.shape, moved), (np.shape(expected), f64(expected)))


def test_parameters_that_are_left_out_have_their_defaults():
    x, u = f64([[1, 2], [4, 3]]), f64([[1, 3], [2, 6]])
    expect(jvp(lambda x: total(x), [x], [u])[1], f64(12))
    expect(jvp(lambda x: amax(x), [x], [u])[1], f64(2))
    expect(jvp(lambda x: amin(x, axis=1), [x], [u])[1], f64([1, 6]))


def test_one_pass_gives_the_result_and_how_fast_it_changes():
    calls = []
    jvp(lambda x: (calls.append(1), x * x)[1], [f64([3])], [f64([1])])
    expect(len(calls), 1)


def test_each_primal_has_a_tangent():
    with expect_error(ValueError):
        jvp(lambda x, y: x * y, [f64([1]), f64([2])], [f64([1])])
    with expect_error(ValueError):
        jvp(lambda x: x * x, [f64([1])], [f64([1]), f64([2])])


def test_a_tangent_that_lies_otherwise_in_memory_than_its_primal():
    tangent = np.arange(6.0).reshape(3, 2).T  # strides unlike those of a (2, 3) array
    expect(jvp(lambda x: x.view(6), [np.zeros((2, 3))], [tangent])[1], f64([0, 2, 4, 1, 3, 5]))


def test_what_stands_still_does_not_move_anything():
    weight = leaf([2.0])
    expect(jvp(lambda x: weight * 3.0, [f64([1])], [f64([1])]), (f64([6]), f64([0])))
    expect(jvp(lambda x: x * weight + weight, [f64([1])], [f64([5])]), (f64([4]), f64([10])))
    expect((weight.grad, weight.node), (None, None))
    expect(jvp(lambda x: x + log_softmax(weight), [f64([1])], [f64([5])])[1], f64([5]))
    expect(jvp(lambda x: x.detach() * x, [f64([3])], [f64([1])])[1], f64([3]))


def test_a_recorded_result_stands_still_as_well():
    x = leaf([3.0])
    outer = x * x
    expect(jvp(lambda y: y * outer, [f64([2])], [f64([1])]), (f64([18]), f64([9])))
    backward(outer)
    expect(x.grad, f64([6]))


def test_forward_mode_keeps_dtypes_and_numbers():
    out, moved = jvp(lambda x: x * 2.0 + 1, [np.array(3, np.float32)], [5])
    expect((out, moved), (np.array(7, np.float32), np.array(10, np.float32)))
    out, moved = jvp(lambda x: x * Tensor(f64([1, 2])), [np.float32([3, 4])], [f64([1, 1])])
    expect((out, moved), (f64([3, 8]), f64([1, 2])))
    expect(jvp(lambda x: x, [np.float32([3, 4])], [[1, 2]])[1], np.float32([1, 2]))


def test_forward_mode_leaves_recording_as_it_was():
    jvp(lambda x: x * x, [f64([1])], [f64([1])])
    before = set_recorder(None)
    set_recorder(before)
    assert before is record
    with expect_error(KeyError):
        jvp(lambda x: {}[x], [f64([1])], [f64([1])])
    before = set_recorder(None)
    set_recorder(before)
    assert before is record


def test_forward_mode_asks_nobody_whether_to_record():
    with no_grad():
        expect(jvp(lambda x: x * x, [f64([3])], [f64([1])]), (f64([9]), f64([6])))
        expect(is_grad_enabled(), False)


def test_a_checkpoint_is_nothing_special_in_forward_mode():
    expect(jvp(lambda x: checkpoint(lambda y: y * y, x), [f64([3])], [f64([1])]), (f64([9]), f64([6])))


@pytest.mark.parametrize("shape", [(3,), (), (1, 2)])
def test_a_tangent_has_the_shape_of_its_primal(shape):
    with expect_error(ValueError, str(shape), "(2,)"):
        jvp(lambda x: x, [f64([1, 2])], [np.ones(shape)])


def test_an_operation_without_a_forward_rule_is_named_and_can_get_one():
    with expect_error(TypeError, "log_softmax"):
        jvp(lambda x: log_softmax(x), [f64([1, 2])], [f64([1, 1])])
    expect(
        jvp(lambda x: x * log_softmax(f64([0, 0])), [f64([1, 2])], [f64([1, 1])])[1],
        f64([-1, -1]) * np.log(2),
    )

    @op
    def thrice(a, *, times=3):
        return a * times

    @forward_rule("thrice")
    def push_thrice(op, tangents, arrays, params, out):
        expect((op.name, arrays, params, out), ("thrice", [f64([1])], {"times": 4}, f64([4])))
        return tangents[0] * params["times"]

    expect(jvp(lambda x: thrice(x, times=4), [f64([1])], [f64([5])]), (f64([4]), f64([20])))
    assert push_thrice.__name__ == "push_thrice"  # a decorator that gives the function back


# 06.20 graph_text, graph_mermaid


@op
def pair(a, b):
    return a * b


@pair.gradient
def pair_back(grad, a, b):
    return grad * b, grad * a


@op(saves=["numbers"])
def once(a):
    return a * 1.0, [np.ones(3), (np.ones(2), 5), "text", Tensor(np.ones(1))]


@once.gradient
def once_back(grad, numbers):
    return grad


def test_the_graph_in_words():
    x, w = leaf([1.0, 2.0, 3.0]), Parameter(f64([4, 5, 6]))
    lines = graph_text(once(pair(pair(x, w), x))).splitlines()
    expect(len(lines), 5)
    a, b = lines.index(next(line for line in lines if "Tensor" in line)), 0
    b = 1 - a
    expect(
        lines,
        [
            "0: Tensor (3,)" if a == 0 else "0: Parameter (3,)",
            "1: Tensor (3,)" if a == 1 else "1: Parameter (3,)",
            f"2: pair (3,) of {a}, {b}, keeps 48 bytes",
            f"3: pair (3,) of 2, {a}, keeps 48 bytes",
            "4: once (3,) of 3, keeps 48 bytes",  # 3 + 2 + 1 numbers, wherever they are
        ],
    )


def test_what_is_kept_twice_counts_twice():
    x = leaf([1.0])
    assert graph_text((x * x).sum()).splitlines()[1] == "1: mul (1,) of 0, 0, keeps 16 bytes"  # a and b


def test_a_shared_result_has_one_line_and_constants_none():
    h = leaf([1.0])
    for _ in range(64):
        h = h + h
    lines = graph_text(h * 2.0).splitlines()
    expect(len(lines), 66)
    for i, start in (
        (1, "1: add (1,) of 0, 0, keeps "),
        (64, "64: add (1,) of 63, 63, "),
        (65, "65: mul (1,) of 64, "),
    ):
        assert lines[i].startswith(start), lines[i]


def test_a_deep_graph_is_drawn_too():
    h = leaf([1.0])
    for _ in range(3000):
        h = -h
    expect((len(graph_text(h).splitlines()), len(graph_mermaid(h).splitlines())), (3001, 1 + 3001 + 3000))


def test_every_line_speaks_of_earlier_lines_only():
    x = leaf([1.0])
    out = (x.exp() * x).exp() * x.exp() + x
    for line in graph_text(out).splitlines():
        here, _, rest = line.partition(": ")
        named = re.findall(r"\d+", rest.partition(" of ")[2].partition(", keeps")[0])
        assert all(int(number) < int(here) for number in named)


def test_a_checkpoint_is_one_line():
    x = leaf(np.ones(4))
    lines = graph_text(checkpoint(lambda x: gelu(x) * gelu(x), x)).splitlines()
    expect(len(lines), 2)
    assert lines[1].startswith("1: checkpointed (4,) of 0, keeps ")


def test_a_freed_graph_and_none_at_all():
    x = leaf([1.0])
    out = (x * x).sum()
    backward(out)
    expect(graph_text(out), "0: total (), freed")
    expect(graph_text(-out), "0: total (), freed\n1: neg () of 0, keeps 0 bytes")
    expect((graph_text(x), graph_text(Tensor([1.0]))), ("0: Tensor (1,)", ""))


def test_the_graph_in_mermaid():
    x = leaf([1.0, 2.0])
    out = (x * x).sum()
    expect(
        [line.strip() for line in graph_mermaid(out).splitlines()],
        [
            "flowchart TD",
            'n0(["Tensor (2,)"])',
            'n1["mul (2,)"]',
            'n2["total ()"]',
            "n0 --> n1",
            "n0 --> n1",
            "n1 --> n2",
        ],
    )
    expect(graph_mermaid(Tensor([1.0])).strip(), "flowchart TD")


def test_both_pictures_number_alike(rng):
    net = MLP([2, 3, 1], rng=rng)
    out = net(Tensor(np.ones((4, 2), np.float32)))
    words = {
        i: line.partition(": ")[2].partition(" of ")[0] for i, line in enumerate(graph_text(out).splitlines())
    }
    boxes = dict(re.findall(r'n(\d+)\(?\[["(]*(.*\))"', graph_mermaid(out)))
    expect({int(i): label for i, label in boxes.items()}, words)


def test_quotients_and_products_are_the_operations_of_kata_02():
    expect((div.name, matmul.name), ("div", "matmul"))
    x = leaf([[2.0]])
    expect([line.split()[1] for line in graph_text(x @ (x / 2.0)).splitlines()], ["Tensor", "div", "matmul"])
