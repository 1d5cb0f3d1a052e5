"""Level 1: waves, rows and rotations that say where a token stands."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect, expect_error
from tinytorch.autograd import is_grad_enabled
from tinytorch.embeddings import (
    LearnedPositions,
    Rotary,
    SinusoidalPositions,
    rotary,
    rotary_tables,
    sinusoidal_positions,
)
from tinytorch.layers import Parameter
from tinytorch.tensor import Tensor

steady = settings(deadline=None, derandomize=True, max_examples=40)
SEEDS = st.integers(0, 2**32 - 1)


def f32(values):
    return np.array(values, np.float32)


def wave(position, column, dim, base=10_000.0):
    angle = position / base ** (column // 2 * 2 / dim)
    return math.cos(angle) if column % 2 else math.sin(angle)


def tables(length, head_dim, base=10_000.0):
    """Cosines and sines by the definition, in float64."""
    angles = [[p / base ** (2 * i / head_dim) for i in range(head_dim // 2)] for p in range(length)]
    angles = np.array(angles).reshape(length, head_dim // 2)
    return np.cos(angles), np.sin(angles)


def turned(x, offset=0, base=10_000.0):
    """Rotary by complex numbers: the halves of a vector are its real and its imaginary part."""
    half = x.shape[-1] // 2
    positions = np.arange(offset, offset + x.shape[-2])
    turn = np.exp(1j * np.outer(positions, base ** -(np.arange(half) / max(half, 1))))
    z = (x[..., :half] + 1j * x[..., half:]) * turn
    return np.concatenate((z.real, z.imag), axis=-1)


# 12.10 sinusoidal_positions


def test_the_first_positions_by_hand():
    """dim 4: one wave of frequency 1, one of 1 / 100."""
    expected = [
        [0, 1, 0, 1],
        [0.841471, 0.540302, 0.0099998, 0.99995],
        [0.909297, -0.416147, 0.0199987, 0.9998],
    ]
    expect(sinusoidal_positions(3, 4), f32(expected))


@steady
@given(st.integers(0, 20), st.integers(1, 9), st.sampled_from([10_000.0, 100.0, 2.0]))
def test_each_number_is_its_wave(length, dim, base):
    expected = [[wave(p, c, dim, base) for c in range(dim)] for p in range(length)]
    expect(sinusoidal_positions(length, dim, base), f32(expected).reshape(length, dim), atol=1e-6)


def test_no_positions_and_no_columns_are_an_empty_table():
    expect(sinusoidal_positions(0, 4), f32(np.zeros((0, 4))))
    expect(sinusoidal_positions(3, 0), f32(np.zeros((3, 0))))


def test_far_positions_have_all_their_digits():
    """In float32, 99,999 radians are known to 0.004 only."""
    table = sinusoidal_positions(100_000, 3)
    for position in (65_537, 99_999):
        expected = f32([wave(position, c, 3) for c in range(3)])
        expect(table[position], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 7])
def test_a_step_is_the_same_rotation_everywhere(steps):
    """So a linear layer can learn to look `steps` tokens back, wherever it stands."""
    table = sinusoidal_positions(40, 6).astype(np.float64)
    for i in range(3):
        angle = steps / 10_000 ** (2 * i / 6)
        sin, cos = table[:, 2 * i], table[:, 2 * i + 1]
        expect(sin[steps:], sin[:-steps] * math.cos(angle) + cos[:-steps] * math.sin(angle), atol=1e-6)


def test_each_table_is_new():
    for make in (lambda: [sinusoidal_positions(3, 4)], lambda: rotary_tables(3, 4)):
        for table in make():
            table[...] = 7
        for table in make():
            assert not np.any(table == 7)


# 12.11 SinusoidalPositions, 12.12 LearnedPositions

KINDS = {
    "waves": lambda dim, max_len: SinusoidalPositions(dim, max_len),
    "learned": lambda dim, max_len: LearnedPositions(max_len, dim, rng=np.random.default_rng(5)),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def table_of(layer):
    """A copy of the numbers that it adds."""
    return np.array(layer.weight.data if isinstance(layer, LearnedPositions) else layer.table)


@each_kind
@pytest.mark.parametrize("shape", [(5, 4), (2, 5, 4), (3, 2, 5, 4), (0, 5, 4), (2, 0, 4), (2, 1, 4)], ids=str)
@pytest.mark.parametrize("offset", [0, 3])
def test_a_token_gets_the_vector_of_its_position(offset, shape, kind, rng):
    layer, x = KINDS[kind](4, 8), rng.normal(size=shape)
    expected = x.copy()
    for t in range(shape[-2]):
        expected[..., t, :] += table_of(layer)[offset + t]
    expect(layer(Tensor(x), offset), expected)
    expect(layer(Tensor(x), offset=offset), expected)


@each_kind
def test_positions_can_be_given_token_by_token(kind, rng):
    """As for prompts of different lengths, padded on the left."""
    layer, x = KINDS[kind](4, 8), rng.normal(size=(2, 3, 4))
    positions = np.array([[0, 0, 1], [5, 6, 7]])
    expected = x + np.array([[table_of(layer)[p] for p in row] for row in positions])
    expect(layer(Tensor(x), positions=positions), expected)
    expect(layer(Tensor(x), positions=positions.astype(np.uint8)), expected)
    expect(layer(Tensor(x), positions=positions[1]), x + table_of(layer)[5:8])
    expect(layer(Tensor(x[0]), positions=positions[1]), x[0] + table_of(layer)[5:8])  # a text by itself
    for offset in (3, 7, -1):  # then the offset does not count, and may be one that would not fit
        expect(layer(Tensor(x), offset, positions), expected)
    long = rng.normal(size=(9, 4))  # and a text may be longer than the table
    expect(layer(Tensor(long), positions=[0, 0, *range(7)]), long + table_of(layer)[[0, 0, *range(7)]])


@each_kind
@pytest.mark.parametrize(("length", "offset"), [(9, 0), (1, 8), (4, 5), (3, -1), (9, -1)])
def test_positions_beyond_the_table_are_refused(length, offset, kind):
    """A slice would end early, without an error; and a single row would be added to all."""
    layer = KINDS[kind](4, 8)
    with expect_error(ValueError, str(offset), "8"):
        layer(Tensor(np.zeros((2, length, 4))), offset)


@each_kind
@pytest.mark.parametrize("wrong", [-1, 8])
def test_a_single_position_beyond_the_table_is_refused(wrong, kind):
    with expect_error(ValueError, str(wrong), "8"):
        KINDS[kind](4, 8)(Tensor(np.zeros((1, 2, 4))), positions=np.array([[0, wrong]]))


@each_kind
@pytest.mark.parametrize("shape", [(1,), (2,), (4,), (2, 1), (3, 3), (2, 2, 3), (), (3, 2)], ids=str)
def test_each_token_has_one_position(shape, kind):
    """x is (2, 3, 4), so (3,), (1, 3) and (2, 3) fit."""
    layer, x = KINDS[kind](4, 8), Tensor(np.zeros((2, 3, 4)))
    with expect_error(ValueError, str(shape), "(2, 3, 4)"):
        layer(x, positions=np.ones(shape, int))
    row = table_of(layer)[[5, 0, 1]].astype(np.float64)
    for fitting in ([5, 0, 1], [[5, 0, 1]], [[5, 0, 1]] * 2):
        expect(layer(x, positions=fitting), np.stack([row, row]))


@each_kind
def test_all_of_the_table_can_be_used(kind):
    layer = KINDS[kind](4, 8)
    expect(layer(Tensor(np.zeros((1, 8, 4)))), table_of(layer)[None].astype(np.float64))
    expect(layer(Tensor(np.zeros((1, 1, 4))), 7), table_of(layer)[None, 7:].astype(np.float64))


@each_kind
def test_positions_leave_dtype_input_and_table_as_they_are(kind, rng):
    layer = KINDS[kind](4, 8)
    before = table_of(layer)
    for dtype in (np.float32, np.float64):
        x = rng.normal(size=(2, 3, 4)).astype(dtype)
        kept = x.copy()
        out = layer(Tensor(x), 1)
        expect(out.data.dtype, np.dtype(dtype))
        out.data += 1
        expect(x, kept)
    expect(table_of(layer), before)


@each_kind
def test_gradients_go_through_to_the_tokens(kind, rng):
    assert is_grad_enabled()
    x, grad = Tensor(rng.normal(size=(2, 3, 4)), requires_grad=True), rng.normal(size=(2, 3, 4))
    KINDS[kind](4, 8)(x, 2).backward(grad)
    expect(x.grad, grad)


def test_waves_are_neither_learnt_nor_saved():
    layer = SinusoidalPositions(4, 8)
    expect((list(layer.parameters()), layer.state_dict()), ([], {}))
    expect(layer.table, f32([[wave(p, c, 4) for c in range(4)] for p in range(8)]))


def test_learnt_positions_start_small_and_normal():
    layer = LearnedPositions(200, 100, rng=np.random.default_rng(1))
    expect([(name, p.shape) for name, p in layer.named_parameters()], [("weight", (200, 100))])
    assert isinstance(layer.weight, Parameter)
    expect(layer.weight.data.dtype, np.dtype(np.float32))
    wide = layer.weight.data.astype(np.float64)
    # 20,000 draws: the mean has a deviation of 0.00014, the deviation one of 0.0001.
    expect((float(wide.mean()), float(wide.std())), (0.0, 0.02), atol=0.0007)
    assert np.abs(wide).max() > 0.06, "normal numbers go beyond three deviations"
    draw = lambda seed: LearnedPositions(200, 100, rng=np.random.default_rng(seed)).weight.data  # noqa: E731
    expect(draw(1), layer.weight.data)
    assert not np.array_equal(draw(1), draw(2))


def test_a_learnt_position_gets_the_gradients_of_all_tokens_that_stood_there():
    layer = LearnedPositions(5, 2, rng=np.random.default_rng(0))
    grad = f32([[[1, 2], [3, 4]], [[10, 20], [30, 40]]])
    layer(Tensor(f32(np.zeros((2, 2, 2)))), 1).backward(grad)
    expect(layer.weight.grad, f32([[0, 0], [11, 22], [33, 44], [0, 0], [0, 0]]))
    layer.zero_grad()
    layer(Tensor(f32(np.zeros((2, 2, 2)))), positions=np.array([[0, 0], [0, 1]])).backward(grad)
    expect(layer.weight.grad, f32([[14, 26], [30, 40], [0, 0], [0, 0], [0, 0]]))


# 12.13 rotary_tables


def test_angles_of_the_first_positions_by_hand():
    cos, sin = rotary_tables(3, 4)
    expect(cos, f32([[1, 1], [0.540302, 0.99995], [-0.416147, 0.9998]]))
    expect(sin, f32([[0, 0], [0.841471, 0.0099998], [0.909297, 0.0199987]]))


@steady
@given(st.integers(0, 20), st.integers(0, 4), st.sampled_from([10_000.0, 500_000.0, 2.0]))
def test_each_pair_has_its_angle(length, half, base):
    for got, expected in zip(
        rotary_tables(length, 2 * half, base), tables(length, 2 * half, base), strict=True
    ):
        expect(got, expected.astype(np.float32), atol=1e-6)


def test_far_angles_have_all_their_digits():
    cos, sin = rotary_tables(100_000, 4)
    expect((float(cos[99_999, 0]), float(sin[99_999, 0])), (math.cos(99_999), math.sin(99_999)), atol=1e-6)
    expect(float(sin[99_999, 1]), math.sin(99_999 / 100), atol=1e-6)


@pytest.mark.parametrize("head_dim", [1, 5])
def test_an_odd_number_makes_no_pairs(head_dim):
    with expect_error(ValueError, str(head_dim)):
        rotary_tables(3, head_dim)


# 12.14 rotary


def test_a_vector_turns_by_the_angle_of_its_position():
    """A quarter turn takes (a, b) to (-b, a); the pairs are (1, 3) and (2, 4): halves, not neighbours."""
    cos, sin = f32([[1, 1], [0, 1]]), f32([[0, 0], [1, 0]])
    expect(rotary(f32([[1, 2, 3, 4], [1, 2, 3, 4]]), cos=cos, sin=sin), f32([[1, 2, 3, 4], [-3, 2, 1, 4]]))


@steady
@given(st.lists(st.integers(0, 3), max_size=2), st.integers(0, 5), st.integers(0, 3), SEEDS)
def test_turning_is_a_product_of_complex_numbers(lead, length, half, seed):
    x = np.random.default_rng(seed).normal(size=(*lead, length, 2 * half))
    cos, sin = tables(length, 2 * half)
    expect(rotary(x, cos=cos, sin=sin), turned(x))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64], ids=lambda d: d.__name__)
def test_vectors_keep_their_dtype_whatever_that_of_the_tables(dtype, rng):
    x = rng.normal(size=(2, 3, 4)).astype(dtype)
    for kind in (np.float32, np.float64):
        cos, sin = (t.astype(kind) for t in tables(3, 4))
        out = rotary(x, cos=cos, sin=sin)
        expect(out.data.dtype, np.dtype(dtype))
        expect(
            out.data.astype(np.float64),
            turned(x.astype(np.float64)),
            rtol=5e-3 if dtype == np.float16 else 1e-5,  # of the largest: five roundings of 1 / 2,048 each
        )


def test_integers_turn_as_floats():
    x = np.array([[3, 4], [1, 0]])
    for kind in (np.float32, np.float64):
        cos, sin = (t.astype(kind) for t in tables(2, 2))
        expect(rotary(x, cos=cos, sin=sin), f32([[3, 4], [math.cos(1), math.sin(1)]]))


def test_vectors_may_lie_in_memory_in_any_order(rng):
    x = rng.normal(size=(4, 3, 5, 6))
    for view in (x.transpose(0, 2, 1, 3), np.asfortranarray(x), x[::-1, ::-1, ::-1, ::-1], x[..., ::3]):
        cos, sin = tables(view.shape[-2], view.shape[-1])
        before = view.copy()
        expect(rotary(view, cos=cos, sin=sin), turned(before))
        expect(view, before)


def test_where_nothing_turns_the_result_is_new_all_the_same():
    x, cos, sin = np.ones((2, 1, 4)), np.ones((1, 2)), np.zeros((1, 2))
    for _ in range(2):
        out = rotary(x, cos=cos, sin=sin)
        expect(out, np.ones((2, 1, 4)))
        out.data += 1
    expect(x, np.ones((2, 1, 4)))


def test_results_stay_when_others_come(rng):
    x = rng.normal(size=(3, 4))
    out = rotary(x, cos=tables(3, 4)[0], sin=tables(3, 4)[1])
    rotary(-x, cos=tables(3, 4)[0], sin=tables(3, 4)[1])
    expect(out, turned(x))


def test_tables_that_change_are_looked_at_again(rng):
    x, (cos, sin) = rng.normal(size=(3, 4)), tables(3, 4)
    expect(rotary(x, cos=cos, sin=sin), turned(x))
    sin *= -1
    expect(rotary(turned(x), cos=cos, sin=sin), x)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)], ids=str)
def test_nothing_to_turn_keeps_shape_and_dtype(shape, dtype):
    cos, sin = (t.astype(np.float32) for t in tables(shape[1], shape[2]))
    expect(rotary(np.zeros(shape, dtype), cos=cos, sin=sin), np.zeros(shape, dtype))


def test_turning_leaves_the_tables_as_they_are(rng):
    cos, sin = tables(3, 4)
    out = rotary(rng.normal(size=(3, 4)), cos=cos, sin=sin)
    out.data += 1
    expect((cos, sin), tables(3, 4))


@pytest.mark.parametrize(
    ("x", "cos", "sin"),
    [
        ((2, 3, 4), (4, 2), (4, 2)),
        ((2, 3, 4), (2, 2), (2, 2)),
        ((2, 3, 4), (1, 2), (1, 2)),
        ((2, 3, 4), (3, 1), (3, 1)),
        ((2, 3, 4), (3, 4), (3, 4)),
        ((2, 3, 4), (3, 2), (1, 2)),
        ((2, 3, 5), (3, 2), (3, 2)),
        ((2, 3, 4), (2, 3, 2), (2, 3, 2)),
        ((4,), (1, 2), (1, 2)),
        ((), (1, 2), (1, 2)),
    ],
    ids=str,
)
def test_tables_that_do_not_fit_are_refused(x, cos, sin):
    with expect_error(ValueError, str(x), str(cos), str(sin)):
        rotary(np.ones(x), cos=np.ones(cos), sin=np.ones(sin))


# 12.16 Rotary


@pytest.mark.parametrize("offset", [0, 5])
def test_a_layer_turns_by_positions_from_the_offset_on(offset, rng):
    layer, x = Rotary(4, 8), rng.normal(size=(2, 2, 3, 4))
    expect(layer(Tensor(x), offset), turned(x, offset), atol=1e-6)
    expect(layer(Tensor(x), offset=offset), turned(x, offset), atol=1e-6)
    expect(Rotary(4, 8, 100.0)(Tensor(x), offset), turned(x, offset, 100.0), atol=1e-6)


def test_lengths_stay(rng):
    x = rng.normal(size=(2, 40, 6))
    out = Rotary(6, 40)(Tensor(x)).data
    expect(np.linalg.norm(out, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-6)


@steady
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), SEEDS)
def test_products_depend_on_the_distance_alone(m, n, shift, seed):
    """<q at m, k at n> == <q at m + shift, k at n + shift>."""
    rng = np.random.default_rng(seed)
    q, k = rng.normal(size=(2, 1, 6))
    layer = Rotary(6, 128)
    at = lambda x, position: layer(Tensor(x), position).data[0]  # noqa: E731
    expect(float(at(q, m) @ at(k, n)), float(at(q, m + shift) @ at(k, n + shift)), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("length", "offset"), [(9, 0), (1, 8), (4, 5), (3, -1)])
def test_angles_beyond_the_tables_are_refused(length, offset):
    with expect_error(ValueError, str(offset), "8"):
        Rotary(4, 8)(Tensor(np.zeros((2, length, 4))), offset)


def test_angles_are_neither_learnt_nor_saved():
    layer = Rotary(4, 8)
    expect((list(layer.parameters()), layer.state_dict()), ([], {}))
    for got, expected in zip((layer.cos, layer.sin), tables(8, 4), strict=True):
        expect(got, expected.astype(np.float32))
