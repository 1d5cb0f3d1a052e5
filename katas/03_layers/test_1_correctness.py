"""Level 1: affine maps and modules give the right answer, on examples worked out by hand."""

import copy
import io
from collections import OrderedDict, namedtuple

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.layers import Buffer, Module, Parameter, affine
from tinytorch.tensor import Tensor, set_recorder, version


def f32(values):
    return np.array(values, np.float32)


X = f32([[1, 2], [3, 4]])
WEIGHT = f32([[1, 0], [0, 1], [1, 1]])
BIAS = f32([10, 20, 30])
Y = f32([[11, 22, 33], [13, 24, 37]])  # each row: x0 + 10, x1 + 20, x0 + x1 + 30


# 03.1 affine


def test_each_row_of_the_weights_makes_one_output():
    expect(affine(X, WEIGHT, BIAS).data, Y)
    expect(affine(X, WEIGHT).data, f32([[1, 2, 3], [3, 4, 7]]))


def test_tensors_go_in_and_a_tensor_comes_out():
    expect(affine(Tensor(X), Tensor(WEIGHT), Tensor(BIAS)), Y)
    expect(type(affine(X, WEIGHT)), Tensor)


def test_no_bias_may_be_said_with_none():
    expect(affine(X, WEIGHT, None).data, f32([[1, 2, 3], [3, 4, 7]]))


@pytest.mark.parametrize("leading", [(), (1,), (2,), (2, 1), (1, 2, 1)])
def test_every_axis_but_the_last_stays(leading):
    x = np.resize(X, (*leading, 2))
    expect(affine(x, WEIGHT, BIAS).data, np.resize(Y, (*leading, 3)))


@pytest.mark.parametrize(
    ("x", "weight", "answer"),
    [
        (np.zeros((0, 2)), np.ones((3, 2)), np.zeros((0, 3))),  # no rows
        (np.zeros((2, 0, 2)), np.ones((3, 2)), np.zeros((2, 0, 3))),
        (np.zeros((2, 0)), np.ones((3, 0)), np.zeros((2, 3))),  # no inputs
        (np.zeros(0), np.ones((3, 0)), np.zeros(3)),
        (np.ones((2, 4, 2)), np.ones((0, 2)), np.zeros((2, 4, 0))),  # no outputs
        (np.zeros((0, 0)), np.zeros((0, 0)), np.zeros((0, 0))),
    ],
)
def test_there_may_be_no_rows_no_inputs_and_no_outputs(x, weight, answer):
    expect(affine(x, weight).data, answer)
    bias = np.arange(1.0, 1 + len(weight))
    expect(affine(x, weight, bias).data, answer + bias)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_stays(dtype):
    expect(affine(X.astype(dtype), WEIGHT.astype(dtype), BIAS.astype(dtype)).data, Y.astype(dtype))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_integers_meet_float32_weights_in_float32(dtype):
    expect(affine(np.ones((2, 2), dtype), WEIGHT, BIAS).data, f32([[11, 21, 32], [11, 21, 32]]))


def test_integers_among_themselves_stay_integers():
    x, weight = np.array([[1, 2]]), np.array([[1, 0], [2**53, 1]])  # 2**53 + 2 is even, 2**53 + 3 is no float
    expect(affine(x, weight).data, np.array([[1, 2**53 + 2]]))
    expect(affine(np.array([[1, 3]]), weight).data, np.array([[1, 2**53 + 3]]))


def test_a_float64_bias_widens_nothing():
    expect(affine(X, WEIGHT, BIAS.astype(np.float64)).data, Y)


def test_a_float64_input_is_not_narrowed():
    expect(affine(X.astype(np.float64), WEIGHT).dtype, np.dtype(np.float64))
    expect(affine(X, WEIGHT.astype(np.float64)).dtype, np.dtype(np.float64))


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "every other column": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "every other row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "backwards": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": lambda a: np.broadcast_to(a, a.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_does_not_matter_how_the_arrays_lie_in_memory(layout):
    lay = LAYOUTS[layout]
    expect(affine(lay(X), lay(WEIGHT), BIAS).data, Y)
    expect(affine(lay(X), WEIGHT, lay(BIAS[None])[0]).data, Y)


def test_a_row_that_is_stretched_counts_each_time():
    expect(affine(np.broadcast_to(X[0], (2, 2, 2)), WEIGHT, BIAS).data, np.broadcast_to(Y[0], (2, 2, 3)))


def test_no_input_is_changed():
    x, weight, bias = X.copy(), WEIGHT.copy(), BIAS.copy()
    affine(x, weight, bias)
    affine(x, weight[:2], bias[:2])  # of which the output has the shape of the input
    expect((x, weight, bias), (X, WEIGHT, BIAS))


def test_the_result_is_an_array_of_its_own():
    out = affine(X, WEIGHT, BIAS).data
    assert not any(np.shares_memory(out, a) for a in (X, WEIGHT, BIAS))
    out += 1  # and it can be written to
    expect(affine(X, WEIGHT, BIAS).data, Y)


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        ((2, 3), (3, 4)),  # x @ weight would do, but the weights are (outputs, inputs)
        ((2, 3), (4, 2)),
        ((3,), (4, 2)),
        ((), (4, 1)),
        ((2, 1), (4, 3)),  # 1 does not stretch
        ((2, 3), (3,)),
        ((2, 3), (1, 4, 3)),
    ],
)
def test_an_input_that_does_not_fit_is_named_with_the_weights(x, weight):
    with expect_error(ValueError, str(x), str(weight)):
        affine(np.ones(x), np.ones(weight))


@pytest.mark.parametrize("bias", [(1,), (2,), (2, 3), (1, 3), ()])
def test_a_bias_that_does_not_fit_is_named_with_the_weights(bias):
    with expect_error(ValueError, str(bias), "(3, 2)"):
        affine(X, WEIGHT, np.ones(bias, np.float32))


# 03.2 affine_back

GRAD = f32([[1, 0, 2], [0, 1, 1]])
GRAD_X = f32([[3, 2], [1, 2]])  # GRAD @ WEIGHT
GRAD_WEIGHT = f32([[1, 2], [3, 4], [5, 8]])  # (2, 1) @ X is 2 * (1, 2) + (3, 4) = (5, 8)
GRAD_BIAS = f32([1, 1, 3])


def test_each_input_gets_its_gradient():
    _, back = affine.vjp(X, WEIGHT, BIAS)
    expect(back(GRAD), (GRAD_X, GRAD_WEIGHT, GRAD_BIAS))


def test_without_a_bias_there_are_two_gradients():
    _, back = affine.vjp(X, WEIGHT)
    x, weight, *rest = back(GRAD)
    expect((x, weight), (GRAD_X, GRAD_WEIGHT))
    assert rest in ([], [None])
    _, back = affine.vjp(X, WEIGHT, None)
    expect(tuple(back(GRAD)[:2]), (GRAD_X, GRAD_WEIGHT))


def test_one_row_without_a_batch_has_gradients_too():
    _, back = affine.vjp(X[0], WEIGHT, BIAS)
    expect(tuple(back(GRAD[0])), (GRAD_X[0], f32([[1, 2], [0, 0], [2, 4]]), GRAD[0]))


@pytest.mark.parametrize("leading", [(2, 1), (1, 2), (1, 2, 1)])
def test_all_leading_axes_are_summed_for_weight_and_bias(leading):
    _, back = affine.vjp(X.reshape(*leading, 2), WEIGHT, BIAS)
    expect(tuple(back(GRAD.reshape(*leading, 3))), (GRAD_X.reshape(*leading, 2), GRAD_WEIGHT, GRAD_BIAS))


@pytest.mark.parametrize("leading", [(0,), (2, 0)])
def test_no_rows_say_nothing_about_the_weights(leading):
    _, back = affine.vjp(np.zeros((*leading, 2)), np.ones((3, 2)), np.ones(3))
    expect(tuple(back(np.zeros((*leading, 3)))), (np.zeros((*leading, 2)), np.zeros((3, 2)), np.zeros(3)))


def test_without_inputs_or_outputs_gradients_keep_their_shapes():
    _, back = affine.vjp(np.zeros((2, 0)), np.zeros((3, 0)), np.ones(3))
    expect(tuple(back(GRAD.astype(float))), (np.zeros((2, 0)), np.zeros((3, 0)), np.array([1.0, 1, 3])))
    _, back = affine.vjp(np.ones((2, 5)), np.zeros((0, 5)), np.zeros(0))
    expect(tuple(back(np.zeros((2, 0)))), (np.zeros((2, 5)), np.zeros((0, 5)), np.zeros(0)))


# 03.3 Parameter


def test_a_parameter_is_a_tensor_that_requires_a_gradient():
    p = Parameter(X)
    assert isinstance(p, Tensor)
    expect((p.requires_grad, p.grad, p.node), (True, None, None))
    expect(p, X)


def test_a_parameter_wraps_the_very_array():
    assert Parameter(X).data is X
    assert Parameter(Tensor(X)).data is X


def test_a_parameter_keeps_its_dtype():
    expect(Parameter(X.astype(np.float64)).dtype, np.dtype(np.float64))
    expect(Parameter([0.5, 1.5]), f32([0.5, 1.5]))


def test_a_misspelt_attribute_of_a_parameter_or_buffer_is_an_error():
    for tensor in (Parameter(X), Buffer(X)):
        with pytest.raises(AttributeError):
            tensor.gard = None


def test_integers_cannot_be_trained():
    with expect_error(TypeError, "int64"):
        Parameter(np.arange(3))


def test_what_is_done_with_a_parameter_is_recorded():
    seen = []
    before = set_recorder(lambda op, inputs, arrays, params, out: seen.append(inputs[0]))
    try:
        p = Parameter(X)
        assert (p * 2.0).requires_grad
    finally:
        set_recorder(before)
    assert seen[0] is p


# 03.4 Module.register_forward_hook


class Scale(Module):
    """x * factor."""

    def __init__(self, factor):
        self.factor = Parameter(f32(factor))

    def forward(self, x, plus=0.0):
        return x * self.factor + plus


class Idle(Module):
    """Nothing to train."""

    def forward(self, *inputs):
        return inputs


class Unfinished(Module):
    """Without a forward."""


class Twice(Module):
    """The same module two times."""

    def __init__(self, inner):
        self.inner = inner

    def forward(self, x):
        return self.inner(self.inner(x))


def test_a_hook_sees_module_inputs_and_output_of_each_forward_pass():
    module, seen = Idle(), []
    module.register_forward_hook(lambda *args: seen.append(args))
    out = module(1, 2)
    expect(seen, [(module, (1, 2), (1, 2))])
    assert seen[0][2] is out
    module(3)
    expect(len(seen), 2)


def test_what_a_hook_returns_changes_nothing():
    module = Idle()
    module.register_forward_hook(lambda *args: "something else")
    expect(module(1), (1,))


def test_hooks_are_called_in_the_order_in_which_they_came():
    module, seen = Idle(), []
    for name in "abc":
        module.register_forward_hook(lambda *args, name=name: seen.append(name))
    module()
    expect(seen, ["a", "b", "c"])


def test_a_hook_can_be_taken_away():
    module, seen = Idle(), []
    remove = module.register_forward_hook(lambda *args: seen.append("first"))
    module.register_forward_hook(lambda *args: seen.append("second"))
    remove()
    module()
    expect(seen, ["second"])


def test_taking_a_hook_away_twice_leaves_all_others():
    module, seen = Idle(), []

    def hook(*args):
        seen.append("called")

    remove = module.register_forward_hook(hook)
    module.register_forward_hook(hook)  # the same function, a second time
    remove()
    remove()
    module()
    expect(seen, ["called"])


def test_taking_the_only_hook_away_twice_leaves_the_next_one():
    module, seen = Idle(), []
    remove = module.register_forward_hook(lambda *args: seen.append("first"))
    remove()
    remove()
    module.register_forward_hook(lambda *args: seen.append("second"))
    remove()
    module()
    expect(seen, ["second"])


def test_a_hook_may_take_itself_away_while_it_is_called():
    module, seen, removers = Idle(), [], []

    def once(*args):
        seen.append("once")
        removers[0]()

    removers.append(module.register_forward_hook(once))
    module.register_forward_hook(lambda *args: seen.append("always"))
    module()
    module()
    expect(seen, ["once", "always", "always"])


def test_a_new_hook_takes_no_other_hooks_place():
    module, seen = Idle(), []
    remove = module.register_forward_hook(lambda *args: seen.append("first"))
    module.register_forward_hook(lambda *args: seen.append("second"))
    remove()
    module.register_forward_hook(lambda *args: seen.append("third"))
    remove()
    module()
    expect(seen, ["second", "third"])


def test_a_hook_belongs_to_one_module_only():
    module, other, seen = Idle(), Idle(), []
    module.register_forward_hook(lambda *args: seen.append(args))
    other()
    expect(seen, [])


def test_inner_modules_are_done_before_outer_ones():
    inner, seen = Idle(), []
    outer = Twice(inner)
    outer.register_forward_hook(lambda *args: seen.append("outer"))
    inner.register_forward_hook(lambda *args: seen.append("inner"))
    outer(1)
    expect(seen, ["inner", "inner", "outer"])


def test_options_go_to_forward_by_keyword():
    module, seen = Scale([2.0]), []
    module.register_forward_hook(lambda one, inputs, out: seen.append(len(inputs)))
    expect(module(Tensor([1.0]), plus=1.0), f32([3.0]))
    expect(seen, [1])


def test_a_module_without_a_forward_says_so():
    module, seen = Unfinished(), []
    module.register_forward_hook(lambda *args: seen.append(args))
    with pytest.raises(NotImplementedError, match="Unfinished"):
        module(1)
    expect(seen, [])


# 03.5 Module.named_members


def names(pairs):
    return [name for name, _ in pairs]


class Everything(Module):
    """One of each kind of attribute."""

    def __init__(self):
        self.child = Scale([1.0])
        self.weight = Parameter(X)
        self.width = 7
        self.running = Buffer(f32([0.0]))
        self.constant = Tensor(X)
        self.title = "a module"
        self.table = X
        self.nothing = None


def test_members_are_parameters_buffers_and_modules_in_the_order_in_which_they_were_set():
    module = Everything()
    members = list(module.named_members())
    expect(names(members), ["child", "weight", "running"])
    for (_, member), own in zip(members, (module.child, module.weight, module.running), strict=True):
        assert member is own


def test_members_are_found_inside_of_lists_tuples_and_dicts():
    module = Module()
    module.layers = [Scale([1.0]), "text", Scale([2.0])]
    module.pair = (Parameter(X), Buffer(X))
    module.heads = {"left": Scale([3.0]), 7: Parameter(X)}
    module.deep = [[Parameter(X)], OrderedDict(a=([], {"b": Idle()}))]
    expect(
        names(module.named_members()),
        ["layers.0", "layers.2", "pair.0", "pair.1", "heads.left", "heads.7", "deep.0.0", "deep.1.a.1.b"],
    )
    assert dict(module.named_members())["heads.7"] is module.heads[7]


def test_members_may_be_private_and_be_in_named_tuples():
    module, pair = Module(), namedtuple("Pair", ["left", "right"])
    module._weight, module.pair = Parameter(X), pair(Parameter(X), Idle())
    expect(names(module.named_members()), ["_weight", "pair.0", "pair.1"])


def test_what_a_member_holds_is_not_a_member():
    module = Module()
    module.outer = Twice(Scale([1.0]))
    expect(names(module.named_members()), ["outer"])


def test_a_member_with_two_names_is_there_under_both():
    module = Module()
    module.a = module.b = Parameter(X)
    expect(names(module.named_members()), ["a", "b"])
    module.c = module.d = [module.a]  # and so are those of a list with two names
    expect(names(module.named_members()), ["a", "b", "c.0", "d.0"])


def test_members_follow_what_is_set_replaced_and_deleted():
    module = Everything()
    module.child = None
    del module.running
    module.late = Idle()
    module.weight = replacement = Parameter(WEIGHT)
    members = dict(module.named_members())
    expect(sorted(members), ["late", "weight"])
    assert members["weight"] is replacement


def test_a_hook_is_no_member():
    module = Everything()
    module.register_forward_hook(lambda *args: None)
    module.register_forward_hook(Scale([2.0]))  # a module can be called, too
    expect(names(module.named_members()), ["child", "weight", "running"])
    expect(sorted(module.state_dict()), ["child.factor", "running", "weight"])


def test_a_module_needs_no_members():
    expect(list(Module().named_members()), [])


# 03.6 Module.named_modules


def family():
    """A parent, two children and a grandchild."""
    parent, child = Module(), Module()
    child.grandchild = Scale([1.0])
    parent.children = [child, Scale([2.0])]
    return parent


def test_modules_are_listed_with_their_paths_parents_first():
    parent = family()
    modules = list(parent.named_modules())
    expect(names(modules), ["", "children.0", "children.0.grandchild", "children.1"])
    assert modules[0][1] is parent
    assert modules[2][1] is parent.children[0].grandchild


def test_what_is_set_later_is_found_too():
    parent = family()
    before = len(list(parent.modules())), len(list(parent.parameters())), len(parent.state_dict())
    parent.children[1].late = Scale([5.0])
    after = len(list(parent.modules())), len(list(parent.parameters())), len(parent.state_dict())
    expect(after, tuple(n + 1 for n in before))


def test_a_prefix_is_where_paths_begin():
    expect(names(family().named_modules("net"))[:2], ["net", "net.children.0"])


def test_a_shared_module_is_listed_once_under_its_first_name():
    parent = family()
    parent.children.append(parent.children[0].grandchild)
    expect(names(parent.named_modules()), ["", "children.0", "children.0.grandchild", "children.1"])


def test_a_module_may_know_its_parent():
    parent = family()
    parent.children[0].parent = parent
    expect((len(list(parent.named_modules())), len(list(parent.parameters()))), (4, 2))


def test_modules_yields_them_without_their_paths():
    parent = family()
    assert list(parent.modules())[3] is parent.children[1]


class Renamed(Module):
    """Its members are called by other names than its attributes, as in the Sequential of kata 05."""

    def __init__(self, *layers):
        self.layers = layers

    def named_members(self):
        return ((str(i), layer) for i, layer in enumerate(self.layers))


def test_a_class_can_rename_its_members():
    module = Module()
    module.inner = Renamed(Scale([1.0]), Scale([2.0]))
    expect(names(module.named_modules()), ["", "inner", "inner.0", "inner.1"])
    expect(names(module.named_parameters()), ["inner.0.factor", "inner.1.factor"])
    expect(sorted(module.state_dict()), ["inner.0.factor", "inner.1.factor"])


# 03.7 Module.named_parameters


def test_parameters_come_module_by_module():
    parent = family()
    parent.gain = Parameter(X)  # set last, but the parent's own come first
    parameters = list(parent.named_parameters())
    expect(names(parameters), ["gain", "children.0.grandchild.factor", "children.1.factor"])
    assert parameters[0][1] is parent.gain


def test_only_what_is_trained_is_a_parameter():
    expect(names(Everything().named_parameters()), ["weight", "child.factor"])


def test_a_shared_parameter_has_its_first_name_only():
    module = Module()
    module.encoder, module.decoder = Scale([1.0]), Scale([2.0])
    module.decoder.factor = module.encoder.factor
    module.tied = [module.encoder.factor]
    expect(names(module.named_parameters()), ["tied.0"])
    expect(len(list(module.parameters())), 1)


def test_parameters_with_equal_values_are_different_parameters():
    module = Module()
    module.both = [Parameter(X), Parameter(X)]
    expect(names(module.named_parameters()), ["both.0", "both.1"])


def test_a_frozen_parameter_is_still_one():
    module = Scale([1.0])
    module.factor.requires_grad = False
    expect(names(module.named_parameters()), ["factor"])


def test_parameters_yields_them_without_their_names():
    module = Scale([1.0])
    (only,) = module.parameters()
    assert only is module.factor


# 03.8 Module.state_dict


def test_the_state_is_every_parameter_and_buffer_under_its_path():
    module = Everything()
    module.inside = [Everything()]
    here = ["child.factor", "running", "weight"]
    state = module.state_dict()
    expect(sorted(state), sorted(here + [f"inside.0.{name}" for name in here]))
    assert state["inside.0.running"] is module.inside[0].running.data


def test_the_state_is_not_a_copy():
    module = Scale([1.0])
    state = module.state_dict()
    assert type(state) is dict
    assert state["factor"] is module.factor.data


def test_what_is_shared_is_in_the_state_under_each_name():
    module = Module()
    module.a = module.b = Scale([1.0])
    module.c = module.a.factor
    expect(sorted(module.state_dict()), ["a.factor", "b.factor", "c"])


def test_a_module_without_parameters_has_an_empty_state():
    expect(Twice(Idle()).state_dict(), {})


# 03.9 Module.load_state_dict


def test_a_state_is_copied_into_the_arrays_that_are_there():
    module, other = Everything(), Everything()
    other.child.factor.data[:] = 5
    other.running.data[:] = 6
    arrays = module.state_dict()
    module.load_state_dict(other.state_dict())
    expect((module.child.factor, module.running), (f32([5.0]), f32([6.0])))
    for name, array in module.state_dict().items():
        assert array is arrays[name]


def test_the_state_given_is_not_tied_to_the_module():
    module, state = Scale([1.0]), {"factor": f32([2.0])}
    module.load_state_dict(state)
    state["factor"][:] = 3
    expect(module.factor, f32([2.0]))
    module.factor.data[:] = 4
    expect(state["factor"], f32([3.0]))


def test_the_dtype_stays_that_of_the_module():
    module = Scale([1.0])
    module.load_state_dict({"factor": np.array([0.1])})
    expect(module.factor, f32([0.1]))
    module.load_state_dict({"factor": np.array([3])})
    expect(module.factor, f32([3.0]))


def test_lists_and_tensors_can_be_loaded():
    module = Scale([1.0])
    module.load_state_dict({"factor": [2.0]})
    expect(module.factor, f32([2.0]))
    module.load_state_dict({"factor": Tensor([3.0])})
    expect(module.factor, f32([3.0]))


def test_a_file_of_arrays_can_be_loaded_as_it_is():
    """What np.load gives is a mapping, but no dict."""
    module, file = Scale([1.0]), io.BytesIO()
    np.savez(file, factor=f32([2.0]))
    file.seek(0)
    with np.load(file) as state:
        module.load_state_dict(state)
    expect(module.factor, f32([2.0]))


def test_numbers_without_axes_can_be_loaded():
    module = Module()
    module.scale, module.steps = Parameter(f32(1.0)), Buffer(np.array(0))
    module.load_state_dict({"scale": 2.5, "steps": 7})
    expect((module.scale, module.steps), (f32(2.5), np.array(7)))


def test_what_is_missing_and_what_is_too_much_is_named():
    module = Everything()
    with expect_error(ValueError, "child.factor", "running", "stranger"):
        module.load_state_dict({"weight": X, "stranger": X})
    with expect_error(ValueError, "child.factor", "(2,)", "(1,)", "stranger"):  # and so is what does not fit
        module.load_state_dict({"weight": X, "running": f32([1.0, 2.0]), "stranger": X})


def test_a_shape_that_does_not_fit_is_named():
    module = Everything()
    state = module.state_dict() | {"weight": f32([1.0, 2.0])}  # it would broadcast
    with expect_error(ValueError, "weight", "(2,)", "(2, 2)"):
        module.load_state_dict(state)
    with expect_error(ValueError, "weight", "(2,)", "(2, 2)"):
        module.load_state_dict(state, strict=False)


def counting():
    """A module that counts in integers."""
    module = Module()
    module.factor, module.count = Parameter(f32([1.0])), Buffer(np.array([0]))
    return module


def test_a_dtype_that_does_not_fit_is_named():
    module = counting()
    for strict in (True, False):
        with expect_error(ValueError, "count", "float32", "int64"):
            module.load_state_dict({"factor": f32([2.0]), "count": f32([0.5])}, strict)
        expect((module.factor, module.count), (f32([1.0]), np.array([0])))
    with expect_error(ValueError, "factor"):
        module.load_state_dict({"factor": np.array(["text"]), "count": np.array([1])})
    module.load_state_dict({"factor": f32([2.0]), "count": np.array([3], np.int32)})
    expect(module.count, np.array([3]))
    module.load_state_dict({"factor": [True], "count": [True]})  # bools are casts of the same kind to both
    expect((module.factor, module.count), (f32([1.0]), np.array([1])))
    module.bytes = Buffer(np.array([0], np.uint8))
    with expect_error(ValueError, "bytes", "int64", "uint8"):  # where -1 would be 255
        module.load_state_dict({"bytes": np.array([-1])}, strict=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"factor": f32([9.0])},
        {"factor": f32([9.0]), "count": np.array([9]), "stranger": X},
        {"factor": f32([9.0]), "count": np.array([9, 9])},
        {"factor": f32([9.0]), "count": np.array([0.5])},
    ],
    ids=["missing", "too much", "shape", "dtype"],
)
def test_a_state_that_does_not_fit_changes_nothing_at_all(wrong):
    module = counting()
    writes = version()
    with expect_error(ValueError):
        module.load_state_dict(wrong)
    expect((module.factor, module.count, version()), (f32([1.0]), np.array([0]), writes))


def test_unless_strict_the_names_that_both_have_are_loaded():
    module = counting()
    module.load_state_dict({"factor": f32([2.0]), "stranger": X}, strict=False)
    expect((module.factor, module.count), (f32([2.0]), np.array([0])))
    module.load_state_dict({}, strict=False)
    expect(module.factor, f32([2.0]))


def test_writing_over_parameters_is_noted():
    """So that a graph that has kept one finds out (kata 06)."""
    module = counting()
    before = version()
    module.load_state_dict({"factor": f32([2.0])}, strict=False)
    assert version(module.factor.data) > before
    expect(version(module.count.data), 0)


# 03.10 Module.train, zero_grad, requires_grad_


def test_a_module_is_made_to_learn():
    parent = family()
    expect([module.training for module in parent.modules()], [True] * 4)


def test_eval_and_train_reach_every_module():
    parent = family()
    assert parent.eval() is parent
    expect([module.training for module in parent.modules()], [False] * 4)
    parent.children[0].train()
    expect([module.training for module in parent.modules()], [False, True, True, False])
    assert parent.train() is parent
    expect([module.training for module in parent.modules()], [True] * 4)
    parent.train(False)
    expect([module.training for module in parent.modules()], [False] * 4)


def test_one_module_can_be_used_while_another_learns():
    used, learning = family(), family()
    used.eval()
    expect(learning.training, True)
    expect(family().training, True)


def test_zero_grad_forgets_every_gradient():
    module = Everything()
    module.child.factor.requires_grad = False
    for p in module.parameters():
        p.grad = np.ones(p.shape, np.float32)
    module.zero_grad()
    expect([p.grad for p in module.parameters()], [None, None])


def test_zero_grad_does_not_touch_the_gradient_that_somebody_holds():
    module, grad = Scale([1.0]), f32([7.0])
    module.factor.grad = grad
    module.zero_grad()
    expect(grad, f32([7.0]))


def test_parameters_are_frozen_and_unfrozen_together():
    module = Everything()
    assert module.requires_grad_(False) is module
    expect([p.requires_grad for p in module.parameters()], [False, False])
    module.child.requires_grad_()
    expect([p.requires_grad for p in module.parameters()], [False, True])
    module.requires_grad_()
    expect([p.requires_grad for p in module.parameters()], [True, True])
    expect((module.running.requires_grad, module.constant.requires_grad), (False, False))


def test_freezing_and_loading_leave_gradients_alone():
    module = Everything()
    module.weight.grad = grad = np.ones_like(module.weight.data)
    module.requires_grad_(False)
    module.load_state_dict(module.state_dict())
    assert module.weight.grad is grad


def test_a_copy_of_a_module_is_a_module_of_its_own():
    module = Everything()
    other = copy.deepcopy(module)
    other.load_state_dict({"weight": X + 1}, strict=False)
    other.eval()
    expect((module.weight, module.training), (X, True))
    expect((other.weight, names(other.named_parameters())), (X + 1, ["weight", "child.factor"]))
    expect([p.requires_grad for p in other.parameters()], [True, True])
