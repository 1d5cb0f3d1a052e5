"""Level 1: what every optimizer does, whatever its rule: groups, steps, scratch, decay and its state."""

import io

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.layers import Parameter
from tinytorch.optimizers import SGD, Optimizer, check_options
from tinytorch.tensor import Tensor, set_recorder, version


def f32(*values):
    return np.array(values, np.float32)


class Plain(Optimizer):
    """data -= lr * grad, and a count and the sum of the gradients are remembered."""

    def __init__(self, params, lr=0.5, weight_decay=0.0, betas=(0.5, 0.25)):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": betas})

    def update(self, data, grad, state, group):
        data -= group["lr"] * grad
        state["step"] = state.get("step", 0) + 1
        state["total"] = state.get("total", 0) + grad


def parameters(count, grad=True):
    """Parameters [1, 2], each with the gradient [2, -2] if it has one."""
    made = [Parameter(f32(1, 2)) for _ in range(count)]
    for p in made:
        p.grad = f32(2, -2) if grad else None
    return made


# 08.1 check_options


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", -0.1),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("momentum", -0.5),
        ("dampening", -0.5),
        ("weight_decay", -0.01),
        ("eps", -1e-8),
        ("alpha", -0.1),
        ("alpha", 1.0),
        ("betas", (0.9, 1.0)),
        ("betas", (1.5, 0.9)),
        ("betas", (-0.1, 0.9)),
        ("betas", [0.9, float("nan")]),
    ],
)
def test_an_option_out_of_its_limits_is_named_with_its_value(name, value):
    with expect_error(ValueError, name, str(value)):
        check_options({"momentum": 0.5, name: value})


@pytest.mark.parametrize(
    "options",
    [
        {},
        dict.fromkeys(("lr", "momentum", "dampening", "weight_decay", "eps", "alpha"), 0),
        {"lr": 1e6, "momentum": 1.5, "dampening": 2.0, "weight_decay": 3.0, "eps": 10.0, "alpha": 0.999},
        {"betas": (0.0, 0.999)},
        {"betas": [0.9, 0.0]},
        {"nesterov": True, "colour": "red", "temperature": -1.0},  # of which it knows nothing
    ],
)
def test_options_within_their_limits_and_unknown_ones_pass(options):
    check_options(options)


# 08.2 add_param_group


def test_parameters_alone_are_one_group_with_the_defaults():
    p, q = parameters(2)
    optimizer = Plain([p, q], lr=0.25)
    (group,) = optimizer.param_groups
    expect((group["lr"], group["weight_decay"], group["betas"]), (0.25, 0.0, (0.5, 0.25)))
    assert group["params"][0] is p
    assert group["params"][1] is q
    expect(len(group["params"]), 2)


def test_parameters_may_come_from_a_generator():
    made = parameters(3)
    expect(len(Plain(p for p in made).param_groups[0]["params"]), 3)
    optimizer = Plain([{"params": (p for p in made), "lr": 0.1}])
    expect(len(optimizer.param_groups[0]["params"]), 3)


def test_each_group_has_options_of_its_own():
    p, q, r = parameters(3)
    optimizer = Plain([{"params": [p], "lr": 0.1}, {"params": [q, r], "betas": (0.0, 0.0)}], lr=0.2)
    expect([group["lr"] for group in optimizer.param_groups], [0.1, 0.2])
    expect([group["betas"] for group in optimizer.param_groups], [(0.5, 0.25), (0.0, 0.0)])
    assert optimizer.param_groups[0]["params"][0] is p
    assert optimizer.param_groups[1]["params"][1] is r


def test_a_group_can_come_later_and_may_be_empty():
    p, q = parameters(2)
    optimizer = Plain([p])
    optimizer.add_param_group({"params": [q], "lr": 0.1})
    optimizer.add_param_group({"params": []})
    expect([len(group["params"]) for group in optimizer.param_groups], [1, 1, 0])


def test_the_dict_that_describes_a_group_stays_as_it_is():
    description = {"params": parameters(1), "lr": 0.1}
    optimizer = Plain([description])
    optimizer.param_groups[0]["lr"] = 7.0
    optimizer.param_groups[0]["params"].clear()
    expect((description["lr"], len(description["params"]), len(description)), (0.1, 1, 2))


def test_a_group_without_parameters_is_refused():
    optimizer = Plain(parameters(1))
    with expect_error(ValueError, "params"):
        optimizer.add_param_group({"lr": 0.1})
    expect(len(optimizer.param_groups), 1)


def test_two_optimizers_and_two_groups_share_no_options():
    p, q, r = parameters(3)
    optimizer, other = Plain([{"params": [p]}, {"params": [q]}]), Plain([r])
    optimizer.param_groups[0]["lr"] = 7.0
    expect((optimizer.param_groups[1]["lr"], other.param_groups[0]["lr"]), (0.5, 0.5))


def test_without_parameters_there_is_nothing_to_do():
    expect(len(Plain(parameters(1)).param_groups), 1)
    for nothing in ([], (), iter([])):
        with expect_error(ValueError):
            Plain(nothing)


@pytest.mark.parametrize("what", [Tensor(f32(1)), f32(1), "weight", 0.5, None])
def test_what_is_no_parameter_is_named(what):
    (p,) = parameters(1)
    kind = type(what).__name__
    with expect_error(TypeError, kind):
        Plain([p, what])
    with expect_error(TypeError, kind):
        Plain([{"params": [what]}])


def test_a_group_that_is_no_dict_is_named():
    p, q = parameters(2)
    with expect_error(TypeError, "Parameter"):
        Plain([{"params": [p]}, q])


@pytest.mark.parametrize("lists", [[[0, 1], [2, 0]], [[0], [1], [1]], [[0, 1, 0]]])
def test_a_parameter_cannot_be_there_twice(lists):
    """It would move twice a step. The shape says which it is."""
    made = [Parameter(np.zeros(shape, np.float32)) for shape in ((2, 3), (2, 3), (4,))]
    with expect_error(ValueError, "(2, 3)"):
        Plain([{"params": [made[i] for i in numbers]} for numbers in lists])


def test_equal_parameters_are_not_the_same():
    expect(len(Plain(parameters(2)).param_groups[0]["params"]), 2)


@pytest.mark.parametrize(
    ("options", "mentions"),
    [
        ({"lr": -1.0}, ["lr", "-1.0"]),
        ({"betas": (0.5, 2.0)}, ["betas", "2.0"]),
        ({"learning_rate": 0.1}, ["learning_rate"]),
        ({"lr": 0.1, "momentum": 0.9}, ["momentum"]),
    ],
)
def test_an_option_that_will_not_do_is_named_and_adds_no_group(options, mentions):
    p, q = parameters(2)
    optimizer = Plain([p])
    with expect_error(ValueError, *mentions):
        optimizer.add_param_group({"params": [q], **options})
    expect(len(optimizer.param_groups), 1)
    optimizer.add_param_group({"params": [q]})


def test_a_default_out_of_its_limits_is_an_error_too():
    with expect_error(ValueError, "lr", "-0.5"):
        Plain(parameters(1), lr=-0.5)


def test_a_group_that_is_refused_leaves_nothing_behind():
    p, q = parameters(2)
    optimizer = Plain([p])
    with expect_error(ValueError):
        optimizer.add_param_group({"params": [q, p]})
    with expect_error(TypeError):
        optimizer.add_param_group({"params": [q, 1]})
    expect(len(optimizer.param_groups), 1)
    optimizer.add_param_group({"params": [q]})  # q was not noted as known


def test_an_optimizer_says_what_it_is():
    expect(repr(Plain(parameters(3))), "Plain(3 parameters, 1 groups)")


# 08.3 zero_grad, step


def test_zero_grad_forgets_every_gradient():
    p, q = parameters(2)
    held = p.grad
    q.requires_grad = False
    Plain([{"params": [p]}, {"params": [q]}]).zero_grad()
    expect((p.grad, q.grad), (None, None))
    expect(held, f32(2, -2))


def test_a_step_moves_every_parameter_by_the_options_of_its_group():
    p, q, r = parameters(3)
    optimizer = Plain([{"params": [p, q]}, {"params": [r], "lr": 2.0}])
    expect(optimizer.step(), None)
    expect((p.data, q.data, r.data), (f32(0, 3), f32(0, 3), f32(-3, 6)))
    expect(p.grad, f32(2, -2))


def test_options_may_change_between_steps():
    (p,) = parameters(1)
    optimizer = Plain([p])
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.25
    optimizer.step()
    expect(p.data, f32(-0.5, 3.5))


def test_what_has_no_gradient_is_left_alone():
    p, q, r = parameters(3)
    p.grad, r.requires_grad = None, False
    before = version(p.data), version(r.data)
    optimizer = Plain([p, q, r])
    optimizer.step()
    expect((p.data, q.data, r.data), (f32(1, 2), f32(0, 3), f32(1, 2)))
    expect((version(p.data), version(r.data)), before)
    expect(sorted(optimizer.state_dict()), sorted([*OPTIONS, "state.1.step", "state.1.total"]))
    expect([r is q for r in optimizer.state], [True])  # not even an empty state


OPTIONS = ["groups.0.lr", "groups.0.weight_decay", "groups.0.betas"]


def test_one_without_a_gradient_remembers_what_it_had():
    """Its state stays, and its steps are counted apart from the others'."""
    p, q = parameters(2)
    optimizer = Plain([p, q])
    optimizer.step()
    p.grad = None
    optimizer.step()
    p.grad = f32(1, 1)
    optimizer.step()
    expect((optimizer.state[p]["step"], optimizer.state[q]["step"]), (2, 3))
    expect(optimizer.state[p]["total"], f32(3, -1))


def test_the_data_may_be_another_array_than_at_first():
    (p,) = parameters(1)
    optimizer = Plain([p])
    first = p.data
    p.data = f32(5, 6)
    optimizer.step()
    expect((p.data, first), (f32(4, 7), f32(1, 2)))


def test_the_gradient_may_be_a_new_array_each_time():
    (p,) = parameters(1)
    optimizer = Plain([p])
    for value in (1, 3):
        p.grad = f32(value, value)
        optimizer.step()
    expect(p.data, f32(-1, 0))


def test_parameters_are_written_over_in_place_and_each_write_is_noted():
    p, q = parameters(2)
    tensor, array = p, p.data
    before = version()
    Plain([p, q]).step()
    assert p is tensor
    assert p.data is array
    assert min(version(p.data), version(q.data)) > before


def test_a_step_is_not_recorded():
    seen = []
    previous = set_recorder(lambda op, *rest: seen.append(op))
    try:
        (p,) = parameters(1)
        Plain([p]).step()
    finally:
        set_recorder(previous)
    expect((seen, p.requires_grad, p.node), ([], True, None))


@pytest.mark.parametrize("shape", [(1,), (), (3,), (1, 2), (2, 1)])
def test_a_gradient_of_another_shape_is_named_with_its_parameters(shape):
    """numpy would stretch most of these."""
    (p,) = parameters(1)
    optimizer = Plain([p])
    p.grad = np.ones(shape, np.float32)
    with expect_error(ValueError, str(shape), "(2,)"):
        optimizer.step()
    expect(p.data, f32(1, 2))


def test_where_one_gradient_does_not_fit_no_parameter_moves():
    """A step that was half made could be neither repeated nor taken back."""
    p, q, r = parameters(3)
    optimizer = Plain([{"params": [p]}, {"params": [q, r]}])
    r.grad = np.ones((2, 1), np.float32)
    before = version()
    with expect_error(ValueError, "(2, 1)", "(2,)"):
        optimizer.step()
    expect((p.data, q.data, r.data, version()), (f32(1, 2), f32(1, 2), f32(1, 2), before))
    expect(len(optimizer.state), 0)
    r.grad = None
    optimizer.step()
    expect((p.data, q.data, r.data), (f32(0, 3), f32(0, 3), f32(1, 2)))


def test_an_optimizer_without_a_rule_says_so():
    (p,) = parameters(1)
    optimizer = Optimizer([p], {"lr": 0.1})
    with pytest.raises(NotImplementedError, match=r"Optimizer\.update"):
        optimizer.step()


# 08.4 scratch


@pytest.mark.parametrize("shape", [(2, 3), (5,), (), (0, 4), (1,)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scratch_has_the_shape_and_dtype_asked_for(shape, dtype):
    like = np.zeros(shape, dtype)
    scratch = Plain(parameters(1)).scratch(like)
    expect((scratch.shape, scratch.dtype), (shape, np.dtype(dtype)))
    scratch[...] = 1
    expect(like, np.zeros(shape, dtype))


def test_scratch_is_the_same_memory_each_time():
    optimizer, other = Plain(parameters(1)), Plain(parameters(1))
    first, smaller = np.zeros((4, 4)), np.zeros(3)
    scratch = optimizer.scratch(first)
    assert np.shares_memory(scratch, optimizer.scratch(first))
    assert np.shares_memory(scratch, optimizer.scratch(smaller))
    assert not np.shares_memory(scratch, other.scratch(first))


def test_each_number_has_scratch_of_its_own():
    optimizer, like = Plain(parameters(1)), np.zeros((4, 4))
    assert not np.shares_memory(optimizer.scratch(like), optimizer.scratch(like, 1))
    assert np.shares_memory(optimizer.scratch(like, 1), optimizer.scratch(like, 1))
    assert np.shares_memory(optimizer.scratch(like), optimizer.scratch(like, 0))


def test_each_dtype_has_scratch_of_its_own():
    optimizer, single, double = Plain(parameters(1)), np.zeros(8, np.float32), np.zeros(4)
    first, second = optimizer.scratch(single), optimizer.scratch(double)
    assert not np.shares_memory(first, second)
    assert not np.shares_memory(optimizer.scratch(single), second)


def test_scratch_grows_to_the_largest():
    optimizer = Plain(parameters(1))
    optimizer.scratch(np.zeros(3))
    large = optimizer.scratch(np.zeros((10, 10)))
    expect(large.shape, (10, 10))
    assert np.shares_memory(large, optimizer.scratch(np.zeros(3)))
    assert np.shares_memory(large, optimizer.scratch(np.zeros(100)))


# 08.5 decay


def test_decay_adds_its_share_of_the_data_to_the_gradient():
    optimizer = Plain(parameters(1))
    data, grad = f32(4, -8), f32(1, 1)
    expect(optimizer.decay(data, grad, {"weight_decay": 0.25}), f32(2, -1))
    expect((data, grad), (f32(4, -8), f32(1, 1)))


def test_without_decay_the_gradient_is_handed_on():
    optimizer, grad = Plain(parameters(1)), f32(1, 1)
    assert optimizer.decay(f32(4, -8), grad, {"weight_decay": 0.0}) is grad
    assert optimizer.decay(f32(4, -8), grad, {"weight_decay": 0}) is grad


def test_decay_works_in_scratch_1():
    optimizer, data, grad = Plain(parameters(1)), f32(4, -8), f32(1, 1)
    scratch = optimizer.scratch(data)
    scratch[:] = 7
    decayed = optimizer.decay(data, grad, {"weight_decay": 0.25})
    assert np.shares_memory(decayed, optimizer.scratch(data, 1))
    expect(scratch, f32(7, 7))


def test_decay_is_in_the_dtype_of_the_data():
    optimizer = Plain(parameters(1))
    expect(optimizer.decay(f32(4), np.array([1.0]), {"weight_decay": 0.25}), f32(2))


# 08.6 state_dict


def test_a_state_has_options_and_what_is_remembered():
    p, q = parameters(2)
    optimizer = Plain([{"params": [p], "lr": 0.125}, {"params": [q]}])
    q.grad = None
    optimizer.step()
    state = optimizer.state_dict()
    expected = {
        "groups.0.lr": 0.125,
        "groups.0.weight_decay": 0.0,
        "groups.0.betas": np.array([0.5, 0.25]),
        "groups.1.lr": 0.5,
        "groups.1.weight_decay": 0.0,
        "groups.1.betas": np.array([0.5, 0.25]),
        "state.0.step": 1,
        "state.0.total": f32(2, -2),
    }
    expect(sorted(state), sorted(expected))
    for name, value in expected.items():
        expect(state[name], value)
        expect(type(state[name]), type(value))


def test_parameters_are_numbered_through_all_groups():
    p, q, r = parameters(3)
    optimizer = Plain([{"params": [p, q]}, {"params": [r]}])
    p.grad, r.grad = None, f32(5, 5)
    optimizer.step()
    state = optimizer.state_dict()
    expect((state["state.1.total"], state["state.2.total"]), (f32(2, -2), f32(5, 5)))


def test_betas_are_an_array_in_a_state_if_they_came_as_a_list_too():
    state = Plain(parameters(1), betas=[0.5, 0.25]).state_dict()
    expect((state["groups.0.betas"], type(state["groups.0.betas"])), (np.array([0.5, 0.25]), np.ndarray))


def test_a_state_shows_the_arrays_that_are_there():
    (p,) = parameters(1)
    optimizer = Plain([p])
    optimizer.step()
    assert optimizer.state_dict()["state.0.total"] is optimizer.state[p]["total"]


# 08.7 load_state_dict


def trained():
    """An optimizer of two groups after two steps, in which the middle one of three took one."""
    p, q, r = parameters(3)
    optimizer = Plain([{"params": [p, q], "lr": 0.1}, {"params": [r]}], betas=(0.1, 0.3))
    optimizer.step()
    q.grad = None
    optimizer.step()
    optimizer.param_groups[1]["initial_lr"] = 0.7  # as a schedule leaves it
    return optimizer


def fresh(**options):
    p, q, r = parameters(3)
    return Plain([{"params": [p, q]}, {"params": [r]}], **options)


def same_states(one, other):
    mine, theirs = one.state_dict(), other.state_dict()
    expect(sorted(mine), sorted(theirs))
    for name, value in theirs.items():
        assert np.array_equal(mine[name], value), name
        expect(type(mine[name]), type(value))


def test_a_state_that_is_loaded_is_the_one_that_was_taken():
    optimizer, other = trained(), fresh()
    other.load_state_dict(optimizer.state_dict())
    same_states(other, optimizer)
    expect(other.param_groups[0]["betas"], (0.1, 0.3))
    expect(type(other.param_groups[0]["betas"]), tuple)
    expect((other.param_groups[0]["lr"], other.param_groups[1]["initial_lr"]), (0.1, 0.7))


def test_a_state_passes_through_a_file_without_pickle():
    optimizer, other, file = trained(), fresh(), io.BytesIO()
    np.savez(file, **optimizer.state_dict())
    file.seek(0)
    other.load_state_dict(np.load(file, allow_pickle=False))
    same_states(other, optimizer)
    expect(type(other.state[other.param_groups[0]["params"][0]]["step"]), int)


def test_what_is_on_or_off_stays_so_in_a_file():
    """As nesterov: True is neither 1.0 nor an array without axes."""
    p = parameters(1)
    for on in (True, False):
        file = io.BytesIO()
        np.savez(file, **SGD(p, lr=0.5, momentum=0.5, nesterov=on).state_dict())
        file.seek(0)
        other = SGD(p, lr=0.1)
        other.load_state_dict(np.load(file, allow_pickle=False))
        expect(other.param_groups[0]["nesterov"], on)
        assert isinstance(other.param_groups[0]["nesterov"], (bool, np.bool_))


def test_a_state_that_is_loaded_shares_no_array():
    optimizer, other = trained(), fresh()
    other.load_state_dict(optimizer.state_dict())
    p = optimizer.param_groups[0]["params"][0]
    optimizer.state[p]["total"] += 100
    expect(other.state_dict()["state.0.total"], f32(4, -4))
    single = Plain([Parameter(np.array(1.0))])
    saved = {**single.state_dict(), "state.0.total": np.array(3.0)}
    single.load_state_dict(saved)
    saved["state.0.total"] += 100
    expect(single.state_dict()["state.0.total"], np.array(3.0))


def test_there_may_be_more_than_ten_groups_and_parameters():
    def make(count):
        made = [Parameter(f32(i)) for i in range(count)]
        for p in made:
            p.grad = p.data + 1
        return Plain([{"params": [p], "lr": 1 / (i + 1)} for i, p in enumerate(made)])

    optimizer, other = make(13), make(13)
    optimizer.step()
    other.load_state_dict(optimizer.state_dict())
    same_states(other, optimizer)
    expect(other.state_dict()["state.12.total"], f32(13))
    expect(other.param_groups[11]["lr"], 1 / 12)
    with expect_error(ValueError, "groups.12", "state.12"):
        make(12).load_state_dict(optimizer.state_dict())


def test_an_option_that_is_no_default_stays_where_a_state_has_none():
    """As a schedule's "initial_lr" does, in a group that was not under a schedule when it was saved."""
    optimizer, other = fresh(), fresh()
    other.param_groups[0]["initial_lr"] = 0.7
    other.load_state_dict(optimizer.state_dict())
    expect((other.param_groups[0]["initial_lr"], other.param_groups[0]["lr"]), (0.7, 0.5))


def test_what_is_not_in_a_state_is_forgotten():
    optimizer, other = fresh(), trained()
    other.load_state_dict(optimizer.state_dict())
    expect([name for name in other.state_dict() if name.startswith("state")], [])


def test_arrays_keep_the_dtype_of_their_parameters():
    optimizer, other = trained(), fresh()
    state = {
        name: value if name.endswith("step") else np.float64(value)
        for name, value in optimizer.state_dict().items()
    }
    other.load_state_dict(state)
    expect(other.state_dict()["state.0.total"], f32(4, -4))
    other.load_state_dict({**state, "state.0.total": np.array([4, -4])})
    expect(other.state_dict()["state.0.total"], f32(4, -4))


def test_parameters_and_groups_stay_where_they_are():
    other = fresh()
    p, group = other.param_groups[0]["params"][0], other.param_groups[0]
    other.load_state_dict(trained().state_dict())
    assert other.param_groups[0] is group
    assert other.param_groups[0]["params"][0] is p
    expect(p.data, f32(1, 2))


@pytest.mark.parametrize(
    ("change", "mentions"),
    [
        ({"groups.0.lr": None}, ["groups.0.lr"]),
        ({"groups.1.betas": None, "groups.1.lr": None}, ["groups.1.betas", "groups.1.lr"]),
        ({"groups.2.lr": 0.1}, ["groups.2.lr"]),
        ({"state.3.total": f32(1, 2)}, ["state.3.total"]),
        ({"layers.0.weight": f32(1, 2)}, ["layers.0.weight"]),
        ({"weight": f32(1, 2)}, ["weight"]),
        ({"state.0.total": f32(1, 2, 3)}, ["state.0.total", "(3,)", "(2,)"]),
        ({"state.0.total": f32(1)}, ["state.0.total", "(1,)", "(2,)"]),
        ({"state.2.total": np.ones(2, complex)}, ["state.2.total", "complex128", "float32"]),
        ({"groups.0.lr": None, "state.0.total": f32(1)}, ["groups.0.lr", "state.0.total"]),
    ],
)
def test_a_state_that_does_not_fit_is_named_and_changes_nothing(change, mentions):
    optimizer, other, untouched = trained(), fresh(lr=0.3), fresh(lr=0.3)
    other.step()
    untouched.step()
    state = {name: v for name, v in {**optimizer.state_dict(), **change}.items() if v is not None}
    with expect_error(ValueError, *mentions):
        other.load_state_dict(state)
    same_states(other, untouched)
