"""Level 1: the rules by which parameters move, and the clipping of gradients, worked out by hand."""

import math

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.layers import Parameter
from tinytorch.optimizers import (
    SGD,
    Adam,
    AdamW,
    RMSprop,
    clip_grad_norm_,
    clip_grad_value_,
    running_mean,
    running_square,
)
from tinytorch.tensor import version


def f32(*values):
    return np.array(values, np.float32)


def trajectory(rule, grads, start=0.0, **options):
    """Where a parameter in float64 is after each step."""
    p = Parameter(np.array([float(start)]))
    optimizer, places = rule([p], **options), []
    for grad in grads:
        p.grad = np.array([float(grad)])
        optimizer.step()
        places.append(float(p.data[0]))
    return places


# 08.8 to 08.12: what holds for every rule, with options that use all of its branches

RULES = {
    "SGD": (SGD, {"lr": 0.1}),
    "SGD with momentum": (SGD, {"lr": 0.1, "momentum": 0.9}),
    "SGD with momentum and decay": (
        SGD,
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.1},
    ),
    "SGD, nesterov": (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "RMSprop": (RMSprop, {}),
    "RMSprop with everything": (RMSprop, {"momentum": 0.9, "centered": True, "weight_decay": 0.1}),
    "Adam": (Adam, {}),
    "Adam with decay": (Adam, {"weight_decay": 0.1}),
    "AdamW": (AdamW, {"weight_decay": 0.1}),
}
every_rule = pytest.mark.parametrize("name", RULES)


def make(name, parameters):
    rule, options = RULES[name]
    return rule(parameters, **options)


@every_rule
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_data_and_state_keep_the_dtype_of_the_parameter(name, dtype):
    p = Parameter(np.ones(3, dtype))
    optimizer = make(name, [p])
    for _ in range(3):
        p.grad = np.ones(3)  # in float64
        optimizer.step()
    expect(p.dtype, np.dtype(dtype))
    arrays = [value for value in optimizer.state[p].values() if isinstance(value, np.ndarray)]
    expect([(a.dtype, a.shape) for a in arrays], [(np.dtype(dtype), (3,))] * len(arrays))


@every_rule
def test_the_gradient_stays_as_it_is_and_is_not_held(name):
    """A first momentum that *is* the gradient would change it at the second step, or with it."""
    p, other = Parameter(f32(1, -2)), Parameter(f32(1, -2))
    optimizer, control = make(name, [p]), make(name, [other])
    shared = np.zeros(2, np.float32)
    for value in (f32(1, 3), f32(2, -1), f32(-1, 1)):
        shared[:] = value
        p.grad, other.grad = shared, value.copy()
        optimizer.step()
        control.step()
        expect(shared, value)
        expect(p.data, other.data, rtol=0, atol=0)
        p.grad = None
        shared[:] = 100


@every_rule
@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0), (2, 3, 4)])
def test_parameters_may_have_any_shape(name, shape):
    p = Parameter(np.ones(shape))
    optimizer = make(name, [p])
    array, start = p.data, p.data.copy()
    for _ in range(2):
        p.grad = np.ones(shape)
        optimizer.step()
    assert p.data is array
    expect(p.data.shape, shape)
    assert np.all(p.data < start)
    expect(p.data, np.full(shape, p.data.flat[0] if p.size else 0.0))


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "every other column": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "backwards": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
}


@every_rule
@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_does_not_matter_how_parameter_and_gradient_lie_in_memory(name, layout, rng):
    lay, data, grads = LAYOUTS[layout], rng.normal(size=(3, 4)), rng.normal(size=(3, 3, 4))
    p, q, r = Parameter(lay(data)), Parameter(data.copy()), Parameter(data.copy())
    optimizer = make(name, [p, q, r])
    for grad in grads:
        p.grad, q.grad, r.grad = grad, lay(grad), grad
        optimizer.step()
    expect((p.data, q.data), (r.data, r.data))


@every_rule
def test_small_and_large_parameters_take_turns(name):
    """They share scratch: what is left in it is no part of the next one's step."""
    alone, small, large = Parameter(np.ones(2)), Parameter(np.ones(2)), Parameter(np.full((3, 3), 5.0))
    one, both = make(name, [alone]), make(name, [large, small])
    for _ in range(3):
        alone.grad = small.grad = np.array([1.0, -2.0])
        large.grad = np.full((3, 3), 7.0)
        one.step()
        both.step()
    expect(small.data, alone.data)


@every_rule
def test_a_parameter_moves_against_its_gradient(name):
    p = Parameter(np.array([0.0, 0.0, 0.0]))
    p.grad = np.array([3.0, -3.0, 0.0])
    make(name, [p]).step()
    expect(np.sign(p.data), np.array([-1.0, 1.0, 0.0]))


OTHERS = {
    "SGD": {"lr": 0.3, "momentum": 0.25, "dampening": 0.5, "weight_decay": 0.2},
    "RMSprop": {"lr": 0.3, "alpha": 0.5, "eps": 0.5, "weight_decay": 0.3, "momentum": 0.5, "centered": True},
    "Adam": {"lr": 0.3, "betas": (0.5, 0.25), "eps": 0.5, "weight_decay": 0.3},
    "AdamW": {"lr": 0.3, "betas": (0.5, 0.25), "eps": 0.5, "weight_decay": 0.3},
}


@every_rule
def test_each_group_moves_by_options_of_its_own(name):
    """Two groups are two optimizers, whichever of them is first."""
    rule, options = RULES[name]
    other = {"nesterov": False, **OTHERS["SGD"]} if rule is SGD else OTHERS[rule.__name__]
    together = [Parameter(np.array([1.0, -2.0])) for _ in range(2)]
    apart = [Parameter(np.array([1.0, -2.0])) for _ in range(2)]
    optimizers = [rule([apart[0]], **options), rule([apart[1]], **other)]
    groups = [{"params": [together[0]], **options}, {"params": [together[1]], **other}]
    optimizers.append(rule(groups, **options))
    for grad in (1.0, 3.0, -2.0):
        for p in (*together, *apart):
            p.grad = np.array([grad, 0.5])
        for optimizer in optimizers:
            optimizer.step()
    expect([p.data for p in together], [p.data for p in apart])


# 08.8 SGD


@pytest.mark.parametrize(
    ("options", "grads", "start", "places"),
    [
        ({}, [2, -1], 1, [0, 0.5]),
        ({"momentum": 0.5}, [2, 1], 1, [0, -1]),  # buffer 2, then 0.5 * 2 + 1
        ({"momentum": 0.5, "dampening": 0.5}, [2, 1], 1, [0, -0.75]),  # 2, then 1 + 0.5
        ({"momentum": 0.5, "dampening": 1.0}, [2, 100], 1, [0, -0.5]),  # 2, then 1
        ({"momentum": 0.5, "nesterov": True}, [2, 1], 1, [-0.5, -1.5]),  # 2 + 1, then 1 + 0.5 * 2
        ({"weight_decay": 0.5}, [1, 0], 4, [2.5, 1.875]),  # 1 + 2, then 0 + 1.25
        # Decay goes into the buffer: 1 + 2; then 0.5 * 3 + 0 + 1.25.
        ({"weight_decay": 0.5, "momentum": 0.5}, [1, 0], 4, [2.5, 1.125]),
        # 3 + 0.5 * 3 at 4; then at 1.75 the gradient is 0.875 and the buffer 1.5 + 0.875 = 2.375.
        (
            {"weight_decay": 0.5, "momentum": 0.5, "nesterov": True},
            [1, 0],
            4,
            [1.75, 1.75 - 0.5 * (0.875 + 0.5 * 2.375)],
        ),
    ],
)
def test_sgd_worked_out(options, grads, start, places):
    expect(trajectory(SGD, grads, start, lr=0.5, **options), [float(place) for place in places])


def test_momentum_is_remembered_and_without_it_nothing_is():
    p = Parameter(f32(0, 0))
    for options, names in (({"momentum": 0.5}, ["state.0.momentum_buffer"]), ({}, [])):
        optimizer = SGD([p], lr=0.1, **options)
        p.grad = f32(2, 4)
        optimizer.step()
        optimizer.step()
        state = {name: v for name, v in optimizer.state_dict().items() if np.ndim(v) and "state" in name}
        expect(list(state), names)
        if names:
            expect(state[names[0]], f32(3, 6))


def test_momentum_may_set_in_later():
    """As when a schedule moves it: the buffer begins as the first gradient that it sees."""
    p = Parameter(np.array([0.0]))
    optimizer = SGD([p], lr=1.0)
    p.grad = np.array([1.0])
    optimizer.step()
    optimizer.param_groups[0]["momentum"] = 0.5
    optimizer.step()
    expect(p.data, np.array([-2.0]))
    optimizer.step()
    expect(p.data, np.array([-3.5]))


def test_nesterov_takes_momentum_and_no_dampening():
    p = Parameter(f32(0))
    for options in ({}, {"momentum": 0.9, "dampening": 0.1}, {"dampening": 0.1}):
        with expect_error(ValueError, "nesterov"):
            SGD([p], lr=0.1, nesterov=True, **options)
    with expect_error(ValueError, "nesterov"):
        SGD([{"params": [p], "momentum": 0.0}], lr=0.1, nesterov=True, momentum=0.9)


def test_a_rule_refuses_options_out_of_their_limits():
    p = Parameter(f32(0))
    for rule, options in (
        (SGD, {"lr": -1.0}),
        (SGD, {"lr": 1.0, "momentum": -0.5}),
        (RMSprop, {"alpha": 1.5}),
        (RMSprop, {"eps": -1.0}),
        (Adam, {"betas": (0.9, 1.0)}),
        (AdamW, {"weight_decay": -0.1}),
    ):
        name, value = list(options.items())[-1]
        with expect_error(ValueError, name, str(value)):
            rule([p], **options)


@pytest.mark.parametrize(
    ("rule", "defaults"),
    [
        (SGD, {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}),
        (RMSprop, {"lr": 0.01, "alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "centered": False}),
        (Adam, {"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}),
        (AdamW, {"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}),
    ],
)
def test_options_that_are_not_given_are_those_of_pytorch(rule, defaults):
    lr = {"lr": 0.5} if rule is SGD else {}
    group = rule([Parameter(f32(0))], **lr).param_groups[0]
    expect({name: group[name] for name in defaults}, defaults)


# 08.9 running_mean, running_square


def test_a_running_mean_keeps_some_and_takes_some():
    mean, value, scratch = f32(8, 0), f32(4, -4), np.empty(2, np.float32)
    expect(running_mean(mean, value, 0.75, scratch), None)
    expect((mean, value), (f32(7, -1), f32(4, -4)))


def test_what_comes_in_may_be_the_scratch_array():
    mean, value = f32(8, 0), f32(4, -4)
    running_mean(mean, value, 0.75, value)
    expect(mean, f32(7, -1))


def test_a_running_square_is_the_mean_of_squares():
    mean, value, scratch = f32(8, 0), f32(4, -2), np.empty(2, np.float32)
    expect(running_square(mean, value, 0.75, scratch), None)
    expect((mean, value), (f32(10, 1), f32(4, -2)))


def test_what_is_squared_may_be_the_scratch_array_too():
    mean, value = f32(8, 0), f32(4, -2)
    running_square(mean, value, 0.75, value)
    expect(mean, f32(10, 1))


def test_keeping_nothing_or_nearly_all():
    mean, scratch = np.array([8.0]), np.empty(1)
    running_mean(mean, np.array([4.0]), 0.0, scratch)
    expect(mean, np.array([4.0]))
    running_square(mean, np.array([3.0]), 0.0, scratch)
    expect(mean, np.array([9.0]))
    running_mean(mean, np.array([0.0]), 0.999, scratch)
    expect(mean, np.array([8.991]))


# 08.10 RMSprop


@pytest.mark.parametrize(
    ("options", "grads", "places"),
    [
        ({}, [2, 1], [-2, -3]),  # 2 / sqrt(0.25 * 4); then 1 / sqrt(0.75 + 0.25)
        ({"eps": 1.0}, [2, 1], [-1, -1.5]),  # 2 / (1 + 1), then 1 / (1 + 1)
        ({"lr": 0.25}, [2, 1], [-0.5, -0.75]),
        ({"momentum": 0.5}, [2, 1], [-2, -4]),  # 2, then 0.5 * 2 + 1
        ({"lr": 0.25, "momentum": 0.5}, [2, 1], [-0.5, -1]),
        ({"centered": True}, [2], [-2 / math.sqrt(0.75)]),  # 1 - 0.5 * 0.5
        # Then the square is 1 and the mean 0.75 * 0.5 + 0.25 = 0.625.
        (
            {"centered": True},
            [2, 1],
            [-2 / math.sqrt(0.75), -2 / math.sqrt(0.75) - 1 / math.sqrt(1 - 0.625**2)],
        ),
    ],
)
def test_rmsprop_worked_out(options, grads, places):
    options = {"lr": 1.0, "alpha": 0.75, "eps": 0.0, **options}
    expect(trajectory(RMSprop, grads, **options), [float(place) for place in places])


def test_the_buffer_of_rmsprop_knows_no_learning_rate():
    """Quotients 2 and 1, buffers 2 and 0.5 * 2 + 1; each moves the data by the rate of its own step."""
    p = Parameter(np.array([0.0]))
    optimizer = RMSprop([p], lr=1.0, alpha=0.75, eps=0.0, momentum=0.5)
    for lr, grad, place in ((1.0, 2.0, -2.0), (0.25, 1.0, -2.5)):
        optimizer.param_groups[0]["lr"] = lr
        p.grad = np.array([grad])
        optimizer.step()
        expect(p.data, np.array([place]))
        expect(optimizer.state[p]["momentum_buffer"], np.array([2.0]))


def test_rmsprop_takes_decay_into_the_gradient():
    # At 4, with gradient 0 and decay 0.5: 2 / sqrt(0.25 * 4) = 2. At 2: 1 / sqrt(0.75 + 0.25) = 1.
    expect(trajectory(RMSprop, [0, 0], 4.0, lr=1.0, alpha=0.75, eps=0.0, weight_decay=0.5), [2.0, 1.0])


def test_a_variance_that_rounding_makes_negative_has_no_nan():
    """Of a constant gradient the variance is 0; computed, it is noise about it."""
    p = Parameter(np.zeros(1000, np.float32))
    optimizer = RMSprop([p], lr=1e-9, alpha=0.5, eps=1e-3, centered=True)
    grad = np.linspace(0.1, 1, 1000, dtype=np.float32)
    for _ in range(60):
        p.grad = grad
        optimizer.step()
    assert np.all(np.isfinite(p.data))
    assert np.all(p.data < 0)


def test_rmsprop_remembers_by_pytorchs_names():
    p = Parameter(f32(0))
    optimizer = RMSprop([p], momentum=0.5, centered=True)
    p.grad = f32(1)
    optimizer.step()
    arrays = {name for name, value in optimizer.state[p].items() if isinstance(value, np.ndarray)}
    expect(sorted(arrays), ["grad_avg", "momentum_buffer", "square_avg"])
    expect(optimizer.state[p]["square_avg"], f32(0.01))


# 08.11 Adam

# betas (0.5, 0.75), gradients 1 and 3: mean 0.5 of weight 0.5, square 0.25 of weight 0.25. Then mean
# 0.25 + 1.5 of weight 0.75, which is 7 / 3, and square 0.1875 + 2.25 of weight 0.4375, which is 39 / 7.
SECOND = (7 / 3) / math.sqrt(39 / 7)


@pytest.mark.parametrize("rule", [Adam, AdamW])
@pytest.mark.parametrize(
    ("options", "places"),
    [
        ({}, [-1, -1 - SECOND]),
        ({"lr": 0.5}, [-0.5, -0.5 - SECOND / 2]),
        ({"eps": 1.0}, [-0.5, -0.5 - (7 / 3) / (math.sqrt(39 / 7) + 1)]),  # 1 / (1 + 1)
        ({"betas": (0.0, 0.75)}, [-1, -1 - 3 / math.sqrt(39 / 7)]),
        ({"betas": (0.5, 0.0)}, [-1, -1 - (7 / 3) / 3]),
    ],
)
def test_adam_worked_out(rule, options, places):
    options = {"lr": 1.0, "betas": (0.5, 0.75), "eps": 0.0, "weight_decay": 0.0, **options}
    expect(trajectory(rule, [1, 3], **options), [float(place) for place in places])


@pytest.mark.parametrize("rule", [Adam, AdamW])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6])
def test_adams_first_step_is_as_long_as_the_learning_rate(rule, size):
    """However small or large the gradient: that is what the division by 1 - beta is for."""
    expect(trajectory(rule, [size], lr=0.01)[0], -0.01, rtol=1e-4)
    expect(trajectory(rule, [-size], lr=0.01)[0], 0.01, rtol=1e-4)


def test_adam_takes_decay_into_the_gradient():
    # At 4, with gradient 1 and decay 0.5: the gradient is 3, and the first step 1 whatever it is. At 3, with
    # gradient 0: 1.5. Mean 0.75 + 0.75 = 1.5 of weight 0.75; square 0.75 * 2.25 + 0.25 * 2.25 of 0.4375.
    step = (1.5 / 0.75) / math.sqrt(2.25 / 0.4375)
    options = {"lr": 1.0, "betas": (0.5, 0.75), "eps": 0.0, "weight_decay": 0.5}
    expect(trajectory(Adam, [1, 0], 4.0, **options), [3.0, 3.0 - step])


@pytest.mark.parametrize("rule", [Adam, AdamW])
def test_adam_remembers_two_means_and_a_count(rule):
    p = Parameter(f32(0))
    optimizer = rule([p], betas=(0.5, 0.75))
    for grad in (1, 3):
        p.grad = f32(grad)
        optimizer.step()
    state = optimizer.state[p]
    expect(sorted(state), ["exp_avg", "exp_avg_sq", "step"])
    expect((state["step"], state["exp_avg"], state["exp_avg_sq"]), (2, f32(1.75), f32(2.4375)))


def test_each_parameter_counts_its_own_steps():
    """One that comes late starts with a full step."""
    p, q = Parameter(np.array([0.0])), Parameter(np.array([0.0]))
    optimizer = Adam([p, q], lr=1.0)
    p.grad = np.array([1.0])
    for _ in range(5):
        optimizer.step()
    q.grad = np.array([1.0])
    optimizer.step()
    expect(q.data, np.array([-1.0]), rtol=1e-6)


def test_no_gradient_yet_is_no_division_by_0():
    p = Parameter(f32(1, 1))
    optimizer = Adam([p])
    p.grad = f32(0, 1)
    optimizer.step()
    expect(p.data, f32(1, 0.999))


# 08.12 AdamW


def test_adamw_shrinks_the_data_and_then_steps():
    # 4 * (1 - 0.5 * 0.25) = 3.5, less the step of 0.5; 3 * 0.875 = 2.625, less the second.
    options = {"lr": 0.5, "betas": (0.5, 0.75), "eps": 0.0, "weight_decay": 0.25}
    expect(trajectory(AdamW, [1, 3], 4.0, **options), [3.0, 2.625 - SECOND / 2])


def test_adamw_decays_by_a_hundredth_unless_told():
    expect(trajectory(AdamW, [0, 0], 1.0, lr=0.5), [0.995, 0.995**2])
    expect(trajectory(Adam, [0, 0], 1.0, lr=0.5), [1.0, 1.0])


def test_decoupled_decay_writes_in_place_and_hands_the_gradient_on():
    data, grad = f32(4, -8), f32(1, 1)
    optimizer = AdamW([Parameter(data)])
    group = {"lr": 0.5, "initial_lr": 1.0, "weight_decay": 0.25}  # under a schedule: its rate of now
    assert optimizer.decay(data, grad, group) is grad
    expect((data, grad), (f32(3.5, -7), f32(1, 1)))


# 08.13 clip_grad_norm_


def clippable():
    """Gradients [3, 0] and [[4]], of norm 5 together; and a parameter without one."""
    made = [Parameter(f32(0, 0)), Parameter(f32(0)), Parameter(f32(0).reshape(1, 1))]
    made[0].grad, made[2].grad = f32(3, 0), f32(4).reshape(1, 1)
    return made


def test_gradients_are_scaled_together_to_the_norm_allowed():
    made = clippable()
    held = made[0].grad
    norm = clip_grad_norm_(made, 1.0)
    expect((norm, type(norm)), (5.0, float))
    expect((made[0].grad, made[2].grad), (f32(0.6, 0), f32(0.8).reshape(1, 1)))
    assert made[0].grad is held
    expect(made[1].grad, None)


@pytest.mark.parametrize("limit", [5.1, 100.0, math.inf])
def test_a_norm_that_is_allowed_stays(limit):
    made = clippable()
    expect(clip_grad_norm_(made, limit), 5.0)
    expect((made[0].grad, made[2].grad), (f32(3, 0), f32(4).reshape(1, 1)), rtol=0)


def test_the_norm_has_a_millionth_added_before_it_divides():
    """So in PyTorch; small gradients show it."""
    p = Parameter(np.array([0.0]))
    p.grad = np.array([1e-6])
    expect(clip_grad_norm_([p], 1e-6), 1e-6, rtol=1e-10)
    expect(p.grad, np.array([5e-7]))


def test_no_norm_is_allowed():
    made = clippable()
    expect(clip_grad_norm_(made, 0.0), 5.0)
    expect((made[0].grad, made[2].grad), (f32(0, 0), f32(0).reshape(1, 1)))


def test_a_gradient_counts_also_if_its_parameter_is_frozen():
    """The norm is that of all gradients that are there."""
    made = clippable()
    made[0].requires_grad = False
    expect(clip_grad_norm_(made, 1.0), 5.0)
    expect((made[0].grad, made[2].grad), (f32(0.6, 0), f32(0.8).reshape(1, 1)))


def test_a_norm_of_0_stays_0():
    p = Parameter(f32(1, 1))
    p.grad = f32(0, 0)
    expect(clip_grad_norm_([p], 1.0), 0.0)
    expect(p.grad, f32(0, 0))


def test_without_gradients_the_norm_is_0():
    expect((clip_grad_norm_([], 1.0), clip_grad_norm_([Parameter(f32(1))], 1.0)), (0.0, 0.0))


def test_clipping_takes_a_generator():
    made = clippable()
    expect(clip_grad_norm_((p for p in made), 1.0), 5.0)
    expect(made[2].grad, f32(0.8).reshape(1, 1))
    clip_grad_value_((p for p in made), 0.5)
    expect(made[2].grad, f32(0.5).reshape(1, 1))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_norm_that_is_not_finite_scales_nothing(bad):
    made = clippable()
    made[0].grad[1] = bad
    norm = clip_grad_norm_(made, 1.0)
    expect(norm, abs(bad))
    expect((made[0].grad, made[2].grad), (f32(3, bad), f32(4).reshape(1, 1)))


@pytest.mark.parametrize("limit", [-1.0, -1e-9, math.nan])
def test_a_limit_below_0_is_named(limit):
    for clip in (clip_grad_norm_, clip_grad_value_):
        made = clippable()
        with expect_error(ValueError, str(limit)):
            clip(made, limit)
        expect(made[0].grad, f32(3, 0))


def test_gradients_that_are_clipped_keep_their_dtype():
    for dtype in (np.float32, np.float64):
        p = Parameter(np.zeros(2, dtype))
        p.grad = np.array([3, 4], dtype)
        clip_grad_norm_([p], 1.0)
        clip_grad_value_([p], 0.7)
        expect(p.grad, np.array([0.6, 0.7], dtype), rtol=1e-6)


# 08.14 clip_grad_value_


def test_each_element_is_brought_within_the_limit():
    made = clippable()
    made[0].grad = held = f32(-3, 0.5)
    expect(clip_grad_value_(made, 1.0), None)
    expect((made[0].grad, made[2].grad), (f32(-1, 0.5), f32(1).reshape(1, 1)))
    assert made[0].grad is held
    expect(made[1].grad, None)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_are_clipped_in_place_however_they_lie_in_memory(layout):
    """[[6, 8], [0, 0]] has the norm 10."""
    p = Parameter(np.zeros((2, 2)))
    p.grad = held = LAYOUTS[layout](np.array([[6.0, 8.0], [0.0, 0.0]]))
    expect(clip_grad_norm_([p], 5.0), 10.0)
    expect(held, np.array([[3.0, 4.0], [0.0, 0.0]]), rtol=1e-6)
    clip_grad_value_([p], 2.0)
    expect(held, np.array([[2.0, 2.0], [0.0, 0.0]]))


def test_what_is_infinite_is_brought_within_the_limit_too():
    p = Parameter(f32(0, 0, 0))
    p.grad = f32(math.inf, -math.inf, 3)
    clip_grad_value_([p], 2.0)
    expect(p.grad, f32(2, -2, 2))


def test_no_value_is_allowed():
    made = clippable()
    clip_grad_value_(made, 0.0)
    expect(made[0].grad, f32(0, 0))


def test_clipping_writes_over_gradients_only():
    made = clippable()
    before = version(made[0].data)
    clip_grad_norm_(made, 1.0)
    clip_grad_value_(made, 0.1)
    expect((made[0].data, version(made[0].data)), (f32(0, 0), before))
