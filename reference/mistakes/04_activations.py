"""Believable wrong solutions of kata 04.  Each takes the reference and spoils one thing in it.

An operation is spoiled by its `forward`, a rule by attaching another one; `relu_into` and its kin are what an
operation and its twin in place both call.
"""

import math

import numpy as np

from dojo.mistakes import caught_by, rewritten


def _rule(op, name, rule, m):
    """Attach `rule` to `op` in place of the right one, under its name."""
    rule.__name__ = name
    setattr(m, name, rule)
    op.gradient(rule)


# Curves.


@caught_by(1)
def relu_multiplies_by_a_mask(m):
    """-inf * 0 is nan."""

    def relu_into(x, out):
        return np.multiply(x, x > 0, out=out)

    m.relu_into = relu_into


@caught_by(1)
def relu_makes_floats_of_integers(m):
    m.relu.forward = lambda x: m.relu_into(m.floating(x), np.empty(x.shape, m.floating(x).dtype))


@caught_by(1)
def relu_is_the_absolute_value(m):
    m.relu.forward = lambda x: np.abs(x)


@caught_by(1)
def relu_writes_over_its_input(m):
    m.relu.forward = lambda x: m.relu_into(x, x)


@caught_by(1)
def relu_turns_nan_into_0(m):
    m.relu_into = lambda x, out: np.fmax(x, x.dtype.type(0), out=out)


@caught_by(1)
def the_negative_slope_is_always_a_hundredth(m):
    right = m.leaky_relu_into
    m.leaky_relu_into = lambda x, negative_slope, out: right(x, 0.01, out)


@caught_by(1)
def leaky_relu_multiplies_infinity_by_a_slope_of_0(m):
    def leaky_relu_into(x, negative_slope, out):
        if not 0 <= negative_slope <= 1:
            raise ValueError(f"negative_slope is {negative_slope}")
        return np.maximum(x, x * negative_slope, out=out)

    m.leaky_relu_into = leaky_relu_into


@caught_by(1)
def leaky_relu_takes_any_slope(m):
    def leaky_relu_into(x, negative_slope, out):
        if negative_slope == 0 or x.dtype.type(negative_slope) == 0:
            return m.relu_into(x, out)
        np.copyto(out, np.where(x > 0, x, x * x.dtype.type(negative_slope)))
        return out

    m.leaky_relu_into = leaky_relu_into


@caught_by(1)
def leaky_relu_lets_nan_be_a_slope(m):
    right = m.leaky_relu_into

    def leaky_relu_into(x, negative_slope, out):
        return right(x, 0.5 if negative_slope != negative_slope else negative_slope, out)

    m.leaky_relu_into = leaky_relu_into


@caught_by(1)
def sigmoid_overflows_with_a_warning(m):
    def sigmoid_into(x, out):
        np.exp(np.negative(x, out=out), out=out)
        out += 1
        return np.divide(1, out, out=out)

    m.sigmoid_into = sigmoid_into


@caught_by(1)
def sigmoid_is_a_shifted_tanh(m):
    """Right to seven digits of 1, and so to none of 2e-9."""

    def sigmoid_into(x, out):
        np.tanh(np.multiply(x, 0.5, out=out), out=out)
        out *= 0.5
        out += 0.5
        return out

    m.sigmoid_into = sigmoid_into


@caught_by(1)
def sigmoid_divides_infinity_by_infinity(m):
    def sigmoid_into(x, out):
        with np.errstate(over="ignore"):
            np.exp(x, out=out)
        return np.divide(out, out + 1, out=out)

    m.sigmoid_into = sigmoid_into


@caught_by(1)
def sigmoid_clips_its_input(m):
    """What is below -30 comes out as if it were -30."""
    right = m.sigmoid_into
    m.sigmoid_into = lambda x, out: right(np.clip(x, -30, 30), out)


@caught_by(1)
def sigmoid_is_computed_in_float64(m):
    m.sigmoid.forward = lambda x: 1 / (1 + np.exp(-np.clip(x.astype(np.float64), -700, 700)))


@caught_by(1)
def gelu_is_the_exact_one(m):
    def forward(x):
        x = m.floating(x)
        x = np.clip(x, -m.GELU_FAR, np.inf)
        share = np.vectorize(lambda v: (1 + math.erf(v / math.sqrt(2))) / 2, otypes=[x.dtype])(x)
        return np.asarray(x * share, x.dtype)

    m.gelu.forward = forward


@caught_by(1)
def gelu_is_the_one_with_a_sigmoid(m):
    def forward(x):
        x = np.clip(m.floating(x), -m.GELU_FAR * 20, np.inf)
        with np.errstate(over="ignore"):
            return x / (1 + np.exp(-1.702 * x))

    m.gelu.forward = forward


@caught_by(1)
def gelu_of_minus_infinity_is_nan(m):
    def forward(x):
        x = m.floating(x)
        with np.errstate(all="ignore"):
            return x * (0.5 + 0.5 * np.tanh(m.GELU_SCALE * (x + m.GELU_CUBE * x * x * x)))

    m.gelu.forward = forward


@caught_by(1)
def gelu_forgets_the_cube(m):
    m.GELU_CUBE = 0.0


@caught_by(1)
def gelu_is_made_of_float64(m):
    right = m.gelu.forward
    m.gelu.forward = lambda x: right(x) * np.ones(np.shape(x))


@caught_by(1)
def sigmoid_negates_bytes(m):
    """-3 is 253 in uint8."""

    def forward(x):
        with np.errstate(over="ignore"):
            return np.asarray(1 / (1 + np.exp(m.floating(-x if x.dtype.kind in "iu" else -m.floating(x)))))

    m.sigmoid.forward = forward


@caught_by(1)
def sigmoid_switches_warnings_off_for_all(m):
    right = m.sigmoid_into

    def sigmoid_into(x, out):
        np.seterr(over="ignore")
        return right(x, out)

    m.sigmoid_into = sigmoid_into


@caught_by(1)
def half_numbers_overflow_with_a_warning(m):
    right = m.sigmoid_into

    def sigmoid_into(x, out):
        if x.dtype != np.float16:
            return right(x, out)
        np.exp(np.negative(x, out=out), out=out)
        out += 1
        return np.divide(1, out, out=out)

    m.sigmoid_into = sigmoid_into


@caught_by(1)
def half_of_gelu_overflows_with_a_warning(m):
    def forward(x):
        x = np.clip(m.floating(x), -m.GELU_FAR, np.inf)
        inner = np.clip(x, -m.GELU_FAR, 1e30) if x.dtype != np.float16 else x
        with np.errstate(over="ignore" if x.dtype != np.float16 else "warn"):
            inner = inner * (m.GELU_SCALE + m.GELU_SCALE * m.GELU_CUBE * inner * inner)
        return np.asarray(x * (0.5 + 0.5 * np.tanh(inner)), x.dtype)

    m.gelu.forward = forward


@caught_by(1)
def relu_gives_back_what_it_need_not_change(m):
    right = m.relu.forward
    m.relu.forward = lambda x: x if x.size and (x >= 0).all() else right(x)


@caught_by(1)
def what_is_written_into_an_array_does_not_come_back(m):
    right = m.relu_into

    def relu_into(x, out):
        right(x, out)

    def relu_(x):
        relu_into(x, x)
        return x

    m.relu.forward = lambda x: right(x, np.empty_like(x))
    m.relu_into, m.relu_.forward = relu_into, relu_
    rewritten(m, "leaky_relu_into", ("return relu_into(x, out)", "relu_into(x, out)\n        return out"))


@caught_by(1)
def a_slope_of_numpys_widens_the_curve(m):
    def forward(x, *, negative_slope=0.01):
        x = m.floating(x)
        if x.dtype.type(negative_slope) == 0 or not 0 <= negative_slope <= 1:
            return m.leaky_relu_into(x, negative_slope, np.empty_like(x))
        return np.maximum(x, x * negative_slope)

    m.leaky_relu.forward = forward


@caught_by(1)
def in_place_only_a_slope_of_0_itself_is_0(m):
    right = m.leaky_relu_into

    def forward(x, *, negative_slope=0.01):
        m.refuse_integers(x)
        if 0 < negative_slope <= 1:
            return np.maximum(x, x * x.dtype.type(negative_slope), out=x)
        return right(x, negative_slope, x)

    m.leaky_relu_.forward = forward


# Rows.


@caught_by(1)
def distances_of_bytes_wrap_around(m):
    right = m.below_largest

    def below_largest(x, axis):
        if x.dtype.kind in "iu" and x.size and x.ndim:
            return m.floating(x - x.max(axis, keepdims=True))
        return right(x, axis)

    m.below_largest = below_largest


@caught_by(1)
def half_precision_becomes_single(m):
    right = m.floating
    m.floating = lambda x: right(x).astype(np.promote_types(right(x).dtype, np.float32), copy=False)


@caught_by(1)
def what_is_not_contiguous_is_written_into_a_copy(m):
    right = m.sigmoid_into

    def sigmoid_into(x, out):
        flat = out.reshape(-1)
        flat[...] = right(x.reshape(-1), np.empty(x.size, x.dtype))
        return out

    m.sigmoid_into = sigmoid_into


@caught_by(1)
def nothing_is_subtracted_before_exp(m):
    m.below_largest = lambda x, axis: np.array(m.floating(x))


@caught_by(1)
def the_largest_of_everything_is_subtracted(m):
    """Right, unless one row lies so far below another that all of it underflows."""

    def below_largest(x, axis):
        x = m.floating(x)
        return np.asarray(x - x.max(initial=-np.inf)) if x.size else x.copy()

    m.below_largest = below_largest


@caught_by(1)
def softmax_turns_nan_into_0(m):
    right = m.softmax.forward
    m.softmax.forward = lambda x, *, axis=-1: np.nan_to_num(right(x, axis=axis), nan=0.0)


@caught_by(1)
def a_row_of_infinities_is_nan(m):
    def below_largest(x, axis):
        x = m.floating(x)
        with np.errstate(all="ignore"):
            return np.asarray(x - x.max(axis, keepdims=True, initial=-np.inf))

    m.below_largest = below_largest


@caught_by(1)
def an_infinite_largest_is_taken_for_0(m):
    """As many attention kernels do: a row of -inf becomes 0 / 0."""

    def below_largest(x, axis):
        x = m.floating(x)
        largest = x.max(axis, keepdims=True, initial=-np.inf)
        with np.errstate(all="ignore"):
            return np.asarray(x - np.where(np.isfinite(largest), largest, 0))

    m.below_largest = below_largest


@caught_by(1)
def a_row_without_elements_has_no_largest(m):
    right = m.below_largest

    def below_largest(x, axis):
        x = m.floating(x)
        x.max(axis)
        return right(x, axis)

    m.below_largest = below_largest


@caught_by(1)
def the_largest_is_subtracted_in_place(m):
    right = m.below_largest

    def below_largest(x, axis):
        if x.dtype.kind == "f" and x.flags.writeable:
            x[...] = right(x, axis)
            return x
        return right(x, axis)

    m.below_largest = below_largest


@caught_by(1)
def softmax_always_goes_along_the_last_axis(m):
    right = m.softmax.forward
    m.softmax.forward = lambda x, *, axis=-1: right(x, axis=-1)


@caught_by(1)
def softmax_goes_along_the_first_axis_unless_told(m):
    right = m.softmax.forward
    m.softmax.forward = lambda x, *, axis=0: right(x, axis=axis)


@caught_by(1)
def log_softmax_is_the_logarithm_of_softmax(m):
    def forward(x, *, axis=-1):
        with np.errstate(divide="ignore"):
            return np.log(m.softmax.forward(x, axis=axis))

    m.log_softmax.forward = forward


@caught_by(1)
def log_softmax_adds_a_little_to_be_safe(m):
    m.log_softmax.forward = lambda x, *, axis=-1: np.log(m.softmax.forward(x, axis=axis) + 1e-12)


@caught_by(1)
def log_softmax_warns_of_an_empty_axis(m):
    def forward(x, *, axis=-1):
        out = m.below_largest(x, axis)
        out -= np.log(np.exp(out).sum(axis, keepdims=True))
        return out

    m.log_softmax.forward = forward


@caught_by(1)
def a_number_has_any_axis(m):
    right = m.below_largest
    m.below_largest = lambda x, axis: right(x, axis) if x.ndim else right(x[None], 0)[0]
    rewritten(m, "softmax", ("out = ", "axis = axis if x.ndim else -1\n    out = "))
    rewritten(m, "log_softmax", ("out = ", "axis = axis if x.ndim else -1\n    out = "))


@caught_by(1)
def nothing_has_any_axis(m):
    right = m.softmax.forward
    m.softmax.forward = lambda x, *, axis=-1: right(x, axis=axis) if x.size else m.floating(x).copy()


@caught_by(1)
def an_axis_may_be_counted_round_twice(m):
    right = m.below_largest
    m.below_largest = lambda x, axis: right(x, axis % x.ndim if axis < 0 and x.ndim else axis)


@caught_by(1)
def beside_infinities_nan_is_a_distance_of_0(m):
    words = "if not np.isfinite(largest).all():\n        below[x == largest]"
    rewritten(m, "below_largest", (words, "if np.isinf(largest).any():\n        below[np.isnan(below)]"))


@caught_by(1)
def beside_nan_infinities_have_no_distance(m):
    words = "not np.isfinite(largest).all()"
    rewritten(m, "below_largest", (words, "np.isinf(largest).any() and not np.isnan(x).any()"))


# Chance.


def _dropout(m, mask, scale=lambda p: 1 / (1 - p) if p < 1 else 0.0, checked=True):
    """A dropout by `mask(x, p, rng)` and `scale(p)`."""

    def forward(x, *, p=0.5, rng):
        if checked and not 0 <= p <= 1:
            raise ValueError(f"p is {p}")
        x = m.floating(x)
        chosen = np.asarray(mask(x, p, rng))
        with np.errstate(all="ignore"):
            out = np.asarray(np.where(chosen, x, x.dtype.type(0)) * scale(p), x.dtype)
        return out, chosen, scale(p)

    m.dropout.forward = forward


@caught_by(1)
def p_is_the_probability_to_keep(m):
    _dropout(m, lambda x, p, rng: rng.random(x.shape, np.float32) < p)


@caught_by(1)
def survivors_are_not_enlarged(m):
    _dropout(m, lambda x, p, rng: rng.random(x.shape, np.float32) >= p, scale=lambda p: 1.0)


@caught_by(1)
def survivors_are_enlarged_by_p(m):
    _dropout(m, lambda x, p, rng: rng.random(x.shape, np.float32) >= p, scale=lambda p: 1 / p if p else 1.0)


@caught_by(1)
def whole_rows_are_dropped(m):
    def mask(x, p, rng):
        rows = rng.random(x.shape[:-1] + (1,) * (x.ndim > 0), np.float32) >= p
        return np.broadcast_to(rows, x.shape).copy()

    _dropout(m, mask)


@caught_by(1)
def exactly_a_share_of_p_is_dropped_from_the_front(m):
    def mask(x, p, rng):
        rng.random()
        return (np.arange(x.size) >= round(p * x.size)).reshape(x.shape)

    _dropout(m, mask)


@caught_by(1)
def the_mask_comes_from_numpys_own_generator(m):
    _dropout(m, lambda x, p, rng: np.random.default_rng().random(x.shape) >= p)


@caught_by(1)
def the_mask_is_always_the_same(m):
    _dropout(m, lambda x, p, rng: np.random.default_rng(0).random(x.shape) >= p)


@caught_by(1)
def p_is_not_looked_at(m):
    _dropout(m, lambda x, p, rng: rng.random(x.shape, np.float32) >= p, checked=False)


@caught_by(1)
def infinities_are_dropped_by_multiplication(m):
    def forward(x, *, p=0.5, rng):
        if not 0 <= p <= 1:
            raise ValueError(f"p is {p}")
        x = m.floating(x)
        mask = np.asarray(rng.random(x.shape, np.float32) >= p)
        scale = 1 / (1 - p) if p < 1 else 0.0
        with np.errstate(all="ignore"):
            return np.asarray(x * mask * scale, x.dtype), mask, scale

    m.dropout.forward = forward


@caught_by(1)
def dropping_everything_divides_by_0(m):
    def forward(x, *, p=0.5, rng):
        if not 0 <= p <= 1:
            raise ValueError(f"p is {p}")
        x = m.floating(x)
        mask = np.asarray(rng.random(x.shape, np.float32) >= p)
        scale = np.float64(1) / np.float64(1 - p)
        return np.asarray(np.where(mask, x, x.dtype.type(0)) * float(scale), x.dtype), mask, float(scale)

    m.dropout.forward = forward


@caught_by(1)
def the_mask_says_what_was_dropped(m):
    right = m.dropout.forward

    def forward(x, *, p=0.5, rng):
        out, mask, scale = right(x, p=p, rng=rng)
        return out, ~np.asarray(mask), scale

    m.dropout.forward = forward
    m.dropout.gradient(lambda grad, mask, scale: np.where(mask, 0, grad * np.asarray(scale, grad.dtype)))


@caught_by(1)
def p_is_kept_in_place_of_the_factor(m):
    right = m.dropout.forward

    def forward(x, *, p=0.5, rng):
        out, mask, _ = right(x, p=p, rng=rng)
        return out, mask, p

    def dropout_back(grad, mask, scale):
        return grad * mask * np.asarray(1 / (1 - scale) if scale < 1 else 0, grad.dtype)

    m.dropout.forward = forward
    m.dropout.gradient(dropout_back)


@caught_by(1)
def a_probability_of_numpys_widens_what_is_kept(m):
    right = m.dropout.forward

    def forward(x, *, p=0.5, rng):
        out, mask, scale = right(x, p=p, rng=rng)
        return np.asarray(out * (p * 0 + 1)), mask, scale

    m.dropout.forward = forward


# Rules.


@caught_by(2)
def half_a_gradient_becomes_single(m):
    def tanh_back(grad, out):
        wide = out.astype(np.promote_types(out.dtype, np.float32))
        return grad * (1 - wide * wide)

    _rule(m.tanh, "tanh_back", tanh_back, m)


@caught_by(2)
def the_slope_of_relu_at_0_is_1(m):
    _rule(m.relu, "relu_back", lambda grad, out: grad * (out >= 0), m)


@caught_by(2)
def relu_passes_everything_on(m):
    _rule(m.relu, "relu_back", lambda grad: grad, m)


@caught_by(2)
def relu_passes_on_where_the_gradient_is_positive(m):
    _rule(m.relu, "relu_back", lambda grad, out: np.maximum(grad, 0) * (out > 0), m)


@caught_by(2)
def a_leak_stops_on_the_way_back(m):
    _rule(m.leaky_relu, "leaky_relu_back", lambda grad, out: grad * (out > 0), m)


@caught_by(2)
def a_leak_is_added_to_the_gradient(m):
    def rule(grad, out, negative_slope):
        return grad * (out > 0) + negative_slope * grad

    _rule(m.leaky_relu, "leaky_relu_back", rule, m)


@caught_by(2)
def sigmoid_takes_its_output_for_its_input(m):
    def rule(grad, out):
        share = 1 / (1 + np.exp(-out))
        return grad * share * (1 - share)

    _rule(m.sigmoid, "sigmoid_back", rule, m)


@caught_by(2)
def sigmoid_forgets_the_gradient_that_comes_in(m):
    _rule(m.sigmoid, "sigmoid_back", lambda grad, out: out * (1 - out), m)


@caught_by(1)
def tanh_has_the_slope_of_sigmoid(m):
    _rule(m.tanh, "tanh_back", lambda grad, out: grad * out * (1 - out), m)


@caught_by(2)
def a_gradient_is_multiplied_in_place(m):
    def rule(grad, out):
        if grad.flags.writeable and grad.ndim:
            grad *= out > 0
            return grad
        return grad * (out > 0)

    _rule(m.relu, "relu_back", rule, m)


@caught_by(2)
def gelu_has_the_slope_of_its_share_alone(m):
    def rule(grad, x):
        x = np.clip(x, -30, 30)
        return grad * (0.5 + 0.5 * np.tanh(m.GELU_SCALE * (x + m.GELU_CUBE * x * x * x)))

    _rule(m.gelu, "gelu_back", rule, m)


def _slope_of_gelu(m, x, inner):
    t = np.tanh(m.GELU_SCALE * (x + m.GELU_CUBE * x * x * x))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner


@caught_by(2)
def gelu_forgets_the_slope_of_the_cube(m):
    def rule(grad, x):
        return grad * _slope_of_gelu(m, np.clip(x, -30, 30), m.GELU_SCALE)

    _rule(m.gelu, "gelu_back", rule, m)


@caught_by(2)
def gelu_has_no_slope_at_infinity(m):
    def rule(grad, x):
        with np.errstate(all="ignore"):
            return grad * _slope_of_gelu(m, x, m.GELU_SCALE * (1 + 3 * m.GELU_CUBE * x * x))

    _rule(m.gelu, "gelu_back", rule, m)


@caught_by(2)
def each_share_depends_on_its_own_number_only(m):
    _rule(m.softmax, "softmax_back", lambda grad, out, axis: grad * out * (1 - out), m)


@caught_by(2)
def softmax_goes_back_along_the_last_axis(m):
    def rule(grad, out):
        return out * (grad - (grad * out).sum(-1 if out.ndim else None, keepdims=True))

    _rule(m.softmax, "softmax_back", rule, m)


@caught_by(2)
def softmax_takes_back_the_mean_gradient(m):
    def rule(grad, out, axis):
        return out * (grad - grad.sum(axis, keepdims=True) / max(out.size, 1))

    _rule(m.softmax, "softmax_back", rule, m)


@caught_by(2)
def log_softmax_expects_gradients_that_sum_to_1(m):
    """Which they do for the usual loss, but for the sign."""
    _rule(m.log_softmax, "log_softmax_back", lambda grad, out: grad - np.exp(out), m)


@caught_by(2)
def log_softmax_multiplies_by_its_output(m):
    def rule(grad, out, axis):
        return grad - out * grad.sum(axis, keepdims=True)

    _rule(m.log_softmax, "log_softmax_back", rule, m)


@caught_by(2)
def dropout_passes_everything_on(m):
    _rule(m.dropout, "dropout_back", lambda grad, scale: grad * scale, m)


@caught_by(2)
def dropout_forgets_its_factor_on_the_way_back(m):
    _rule(m.dropout, "dropout_back", lambda grad, mask: grad * mask, m)


@caught_by(2)
def dropout_finds_what_it_dropped_by_the_zeros(m):
    _rule(m.dropout, "dropout_back", lambda grad, out, scale: grad * (out != 0) * scale, m)


@caught_by(2)
def a_gradient_becomes_float64(m):
    def rule(grad, mask, scale):
        return grad * np.where(mask, np.float64(scale), 0.0)

    _rule(m.dropout, "dropout_back", rule, m)


@caught_by(2)
def in_place_the_rule_asks_for_an_input_that_is_gone(m):
    def rule(grad, x):
        share = m.sigmoid_into(np.array(x), np.empty_like(x))
        return grad * share * (1 - share)

    m.sigmoid_.gradient(rule)


@caught_by(2)
def tanh_in_place_has_no_rule(m):
    m.tanh_.pull, m.tanh_.needs = None, ()


@caught_by(2)
def a_slope_of_numpys_widens_the_gradient(m):
    def leaky_relu_back(grad, out, negative_slope):
        right = (out > 0).astype(grad.dtype)
        return grad * (right + (1 - right) * negative_slope)

    _rule(m.leaky_relu, "leaky_relu_back", leaky_relu_back, m)


@caught_by(2)
def a_probability_of_numpys_widens_the_gradient(m):
    _rule(m.dropout, "dropout_back", lambda grad, mask, scale: grad * mask * scale, m)


@caught_by(2)
def the_cube_of_half_a_number_overflows_on_the_way_back(m):
    def gelu_back(grad, x):
        x = np.clip(x, -100, 100)
        cube = x * x * x
        t = np.tanh(m.GELU_SCALE * (x + m.GELU_CUBE * cube))
        inner = m.GELU_SCALE * (1 + 3 * m.GELU_CUBE * x * x)
        return grad * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner)

    _rule(m.gelu, "gelu_back", gelu_back, m)


@caught_by(2)
def gelu_clips_its_input_for_good_on_the_way_back(m):
    right = m.gelu_back

    def gelu_back(grad, x):
        if x.flags.writeable and x.dtype.kind == "f":
            np.clip(x, -m.GELU_FAR, m.GELU_FAR, out=x)
        return right(grad, x)

    _rule(m.gelu, "gelu_back", gelu_back, m)


# What is kept, and what it costs.


@caught_by(3)
def relu_asks_for_its_input(m):
    _rule(m.relu, "relu_back", lambda grad, x: grad * (x > 0), m)


@caught_by(3)
def relu_keeps_a_mask_beside_its_output(m):
    """A byte an element: a quarter of what the next layer keeps anyway, and can be read off that."""
    right = m.relu.forward
    m.relu.saves = ("mask",)
    m.relu.forward = lambda x: (out := right(x), out > 0)
    _rule(m.relu, "relu_back", lambda grad, mask: grad * mask, m)


@caught_by(3)
def sigmoid_asks_for_its_input(m):
    def rule(grad, x):
        share = m.sigmoid_into(x, np.empty_like(x))
        return grad * (share * (1 - share))

    _rule(m.sigmoid, "sigmoid_back", rule, m)


@caught_by(3)
def softmax_asks_for_its_input(m):
    def rule(grad, x, axis):
        out = m.softmax.forward(x, axis=axis)
        return out * (grad - (grad * out).sum(axis, keepdims=True))

    _rule(m.softmax, "softmax_back", rule, m)


@caught_by(3)
def log_softmax_keeps_the_softmax_too(m):
    right = m.log_softmax.forward

    def forward(x, *, axis=-1):
        out = right(x, axis=axis)
        return out, np.exp(out)

    def rule(grad, shares, axis):
        return grad - shares * grad.sum(axis, keepdims=True)

    m.log_softmax.saves = ("shares",)
    m.log_softmax.forward = forward
    _rule(m.log_softmax, "log_softmax_back", rule, m)


@caught_by(3)
def gelu_keeps_its_slope_and_its_input(m):
    right, back = m.gelu.forward, m.gelu.pull
    m.gelu.saves = ("slope",)
    m.gelu.forward = lambda x: (right(x), back(np.ones_like(m.floating(x)), m.floating(x)))
    _rule(m.gelu, "gelu_back", lambda grad, x, slope: grad * slope + 0 * np.clip(x, 0, 1), m)


@caught_by(1)
def the_mask_is_kept_in_floats(m):
    right = m.dropout.forward

    def forward(x, *, p=0.5, rng):
        out, mask, scale = right(x, p=p, rng=rng)
        return out, mask.astype(out.dtype), scale

    m.dropout.forward = forward


@caught_by(3)
def dropout_works_in_float64(m):
    def forward(x, *, p=0.5, rng):
        if not 0 <= p <= 1:
            raise ValueError(f"p is {p}")
        x = m.floating(x)
        noise = np.asarray(rng.random(x.shape))
        mask = noise >= p
        scale = 1 / (1 - p) if p < 1 else 0.0
        factors = np.where(mask, scale, 0.0)
        wide = np.where(mask, x.astype(np.float64), 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(wide * factors).astype(x.dtype), mask, scale

    m.dropout.forward = forward


@caught_by(3)
def in_place_is_a_copy_that_is_copied_back(m):
    def forward(x):
        x[...] = np.maximum(x, 0)
        return x

    m.relu_.forward = forward


@caught_by(3)
def sigmoid_in_place_is_a_copy_that_is_copied_back(m):
    def forward(x):
        m.refuse_integers(x)
        x[...] = m.sigmoid.forward(x)
        return x

    m.sigmoid_.forward = forward


@caught_by(3)
def the_way_back_of_softmax_writes_down_every_dependence(m):
    def rule(grad, out, axis):
        if not out.ndim or not out.size:
            return np.zeros_like(out)
        g, s = np.moveaxis(grad, axis, -1), np.moveaxis(out, axis, -1)
        matrix = s[..., :, None] * (np.eye(s.shape[-1], dtype=s.dtype) - s[..., None, :])
        return np.moveaxis((matrix @ g[..., None])[..., 0], -1, axis)

    _rule(m.softmax, "softmax_back", rule, m)


@caught_by(3)
def softmax_works_in_float64(m):
    def forward(x, *, axis=-1):
        wide = m.floating(x).astype(np.float64)
        weights = np.exp(m.below_largest(wide, axis))
        shares = weights / weights.sum(axis, keepdims=True)
        return shares.astype(m.floating(x).dtype)

    m.softmax.forward = forward


@caught_by(3)
def the_way_back_of_sigmoid_is_in_float64(m):
    def sigmoid_back(grad, out):
        o = out.astype(np.float64)
        return (grad * o * (1 - o)).astype(grad.dtype)

    m.sigmoid.gradient(sigmoid_back)
    m.sigmoid_.gradient(sigmoid_back)
    m.sigmoid_back = sigmoid_back


@caught_by(3)
def the_way_back_of_gelu_is_in_float64(m):
    right = m.gelu.pull

    def gelu_back(grad, x):
        return np.asarray(right(grad.astype(np.float64), np.asarray(x, np.float64))).astype(grad.dtype)

    _rule(m.gelu, "gelu_back", gelu_back, m)


@caught_by(3)
def the_way_back_of_dropout_is_in_float64(m):
    def dropout_back(grad, mask, scale):
        return np.where(mask, grad.astype(np.float64) * scale, 0).astype(grad.dtype)

    m.dropout.gradient(dropout_back)
    m.dropout_back = dropout_back


@caught_by(3)
def a_layer_remembers_its_input(m):
    for cls in (m.ReLU, m.GELU, m.Softmax):
        right = cls.forward

        def forward(self, x, right=right):
            self.__dict__["_x"] = x
            return right(self, x)

        cls.forward = forward


@caught_by(3)
def answers_are_remembered(m):
    right, memory = m.sigmoid.forward, {}

    def forward(x):
        key = (x.shape, x.dtype.str, x.tobytes())
        if key not in memory:
            memory[key] = right(x)
        return memory[key].copy()

    m.sigmoid.forward = forward


# Speed.


@caught_by(4)
def elements_are_worked_on_one_by_one(m):
    right = m.relu.forward

    def forward(x):
        if x.dtype != np.float32 or x.shape != (8192, 8):  # the lists that larger ones make are level 3's
            return right(x)
        return np.array([v if v > 0 else 0.0 for v in x.ravel().tolist()], np.float32).reshape(x.shape)

    m.relu.forward = forward


@caught_by(4)
def the_way_back_goes_element_by_element(m):
    def rule(grad, out):
        back = np.empty_like(out, shape=grad.shape)
        for index in np.ndindex(grad.shape):
            back[index] = grad[index] if out[index] > 0 else 0
        return back

    _rule(m.relu, "relu_back", rule, m)


@caught_by(4)
def softmax_goes_row_by_row(m):
    right = m.softmax.forward

    def forward(x, *, axis=-1):
        if x.ndim != 2 or axis != -1 or not x.size:
            return right(x, axis=axis)
        return np.stack([right(row) for row in x])

    m.softmax.forward = forward


@caught_by(4)
def softmax_goes_back_row_by_row(m):
    right = m.softmax.pull

    def rule(grad, out, axis):
        if out.ndim != 2 or axis != -1 or not out.size:
            return right(grad, out, axis)
        return np.stack([s * (g - (g * s).sum()) for g, s in zip(grad, out, strict=True)])

    _rule(m.softmax, "softmax_back", rule, m)


@caught_by(4)
def relu_goes_row_by_row(m):
    right = m.relu.forward
    m.relu.forward = lambda x: np.stack([right(row) for row in x]) if x.ndim == 2 and len(x) else right(x)


@caught_by(4)
def dropout_draws_row_by_row(m):
    def mask(x, p, rng):
        if x.ndim != 2 or not len(x):
            return rng.random(x.shape, np.float32) >= p
        return np.stack([rng.random(len(row), np.float32) >= p for row in x])

    _dropout(m, mask)


@caught_by(4)
def each_element_is_drawn_by_itself(m):
    def mask(x, p, rng):
        return np.array([rng.random() >= p for _ in range(x.size)], bool).reshape(x.shape)

    _dropout(m, mask)


# In place, and layers.


@caught_by(1)
def in_place_gives_a_new_array(m):
    m.relu_.forward = m.relu.forward


@caught_by(1)
def in_place_writes_over_integers_until_it_fails(m):
    m.refuse_integers = lambda x: None


@caught_by(1)
def in_place_rounds_to_integers(m):
    def forward(x):
        x[...] = m.sigmoid.forward(x)
        return x

    m.sigmoid_.forward = forward


@caught_by(1)
def sigmoid_in_place_is_a_shifted_tanh(m):
    def forward(x):
        m.refuse_integers(x)
        np.tanh(np.multiply(x, 0.5, out=x), out=x)
        x *= 0.5
        x += 0.5
        return x

    m.sigmoid_.forward = forward


@caught_by(1)
def relu_in_place_turns_nan_into_0(m):
    m.relu_.forward = lambda x: np.fmax(x, x.dtype.type(0), out=x)


@caught_by(1)
def leaky_relu_in_place_has_one_slope(m):
    def forward(x, *, negative_slope=0.01):
        m.refuse_integers(x)
        return m.leaky_relu_into(x, 0.01, x)

    m.leaky_relu_.forward = forward


@caught_by(1)
def a_layer_is_never_in_place(m):
    m.ReLU.forward = lambda self, x: m.relu(x)


@caught_by(1)
def a_layer_is_always_in_place(m):
    m.ReLU.forward = lambda self, x: m.relu_(x)


@caught_by(1)
def a_layer_forgets_its_slope(m):
    m.LeakyReLU.forward = lambda self, x: m.leaky_relu_(x) if self.inplace else m.leaky_relu(x)


@caught_by(1)
def dropout_goes_on_when_training_is_over(m):
    m.Dropout.forward = lambda self, x: m.dropout(x, p=self.p, rng=self.rng)


@caught_by(1)
def dropout_is_on_when_training_is_over(m):
    m.Dropout.forward = lambda self, x: x if self.training else m.dropout(x, p=self.p, rng=self.rng)


@caught_by(1)
def dropout_shrinks_what_it_lets_through(m):
    """As in the first paper, where nothing was enlarged during training."""
    m.Dropout.forward = lambda self, x: (
        m.dropout(x, p=self.p, rng=self.rng) if self.training else x * (1 - self.p)
    )


@caught_by(1)
def dropout_draws_while_it_is_used(m):
    def forward(self, x):
        out = m.dropout(x, p=self.p, rng=self.rng)
        return out if self.training else x

    m.Dropout.forward = forward


@caught_by(1)
def a_dropout_layer_draws_from_a_generator_of_its_own(m):
    def forward(self, x):
        if not self.training:
            return x
        own = vars(self).setdefault("_own", np.random.default_rng(int(self.rng.integers(2**31))))
        return m.dropout(x, p=self.p, rng=own)

    m.Dropout.forward = forward


@caught_by(1)
def a_layer_forgets_its_p(m):
    m.Dropout.forward = lambda self, x: m.dropout(x, rng=self.rng) if self.training else x


ONLY_SLOWER = "the answer is the same, only later"
ONE_MORE = "the same, with one array more on the way, which the budgets allow"
EITHER_ORDER = "of two numbers the larger, whichever comes first"

# fmt: off
EQUIVALENT = {
    "relu_into: if x.dtype.kind == 'f': -> if False:":
        ONLY_SLOWER,
    "below_largest: if not np.isfinite(largest).all(): -> if True:":
        ONLY_SLOWER,
    "relu_into: np.clip(x, 0, np.inf, out=out) -> np.clip(0, x, np.inf, out=out)":
        EITHER_ORDER,
    "leaky_relu_back: np.clip(out > 0, negative_slope, 1, dtype=grad.dtype)"
    " -> np.clip(negative_slope, out > 0, 1, dtype=grad.dtype)":
        EITHER_ORDER,
    "leaky_relu_back: np.clip(out > 0, negative_slope, 1, dtype=grad.dtype)"
    " -> np.clip(out > 0, negative_slope, 2, dtype=grad.dtype)":
        "a bool is at most 1, and so is a slope",
    "leaky_relu_into: np.multiply(x, negative_slope, out=None if out is x else out)"
    " -> np.multiply(x, negative_slope)":
        ONE_MORE,
    "leaky_relu_into: None if out is x else out -> None":
        ONE_MORE,
    "dropout: rng.random(x.shape, np.float32) >= p -> rng.random(x.shape, np.float32) > p":
        "they differ where p itself is drawn, once in 16 million",
    "module: GELU_FAR = 30.0 -> GELU_FAR = 31.0":
        "in between gelu is 0, or x, to the last bit",
}
