"""Level 1: recipes, a search through them, and a model written down as data."""

import json

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.activations import GELU, Dropout, LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from tinytorch.competition import (
    KINDS,
    Found,
    Kind,
    Metrics,
    Refused,
    answer,
    apply_recipe,
    describe,
    rebuild,
    register_kind,
    search,
)
from tinytorch.layers import Linear, Module, Parameter
from tinytorch.networks import MLP, Sequential


def new(seed=0):
    return np.random.default_rng(seed)


class Toy(Module):
    """A model that remembers what was done to it."""

    def __init__(self, *done):
        self.done = list(done)
        self.weight = Parameter(np.zeros(2, np.float32))


def doing(word):
    def recipe(model, *numbers):
        model.done.append((word, *numbers))
        model.weight.data += 1
        return model

    return recipe


def refusing(model):
    raise ValueError("not with this model")


TOYS = {"a": doing("a"), "b": doing("b"), "c": doing("c"), "never": refusing}


# 20.9 apply_recipe


def test_steps_are_done_one_after_the_other():
    assert apply_recipe(Toy(), ["b", "a", "b"], TOYS).done == [("b",), ("a",), ("b",)]
    assert apply_recipe(Toy(), iter(("c",)), TOYS).done == [("c",)]


def test_numbers_follow_a_name():
    got = apply_recipe(Toy(), ["a:0.5", "b:1:-2e3"], TOYS).done
    assert got == [("a", 0.5), ("b", 1.0, -2000.0)]
    assert all(type(number) is float for step in got for number in step[1:])


def test_a_recipe_may_give_another_model():
    other = Toy("other")
    recipes = {"swap": lambda model: other, "a": doing("a")}
    assert apply_recipe(Toy(), ["swap", "a"], recipes) is other
    assert other.done == ["other", ("a",)]


@pytest.mark.parametrize("steps", [[], ["a"], ["a", "b:2"]], ids=str)
def test_the_model_given_stays_as_it_is(steps):
    model = Toy("first")
    made = apply_recipe(model, steps, TOYS)
    assert made is not model
    assert model.done == ["first"]
    expect(model.weight.data, np.zeros(2, np.float32))
    made.weight.data[...] = 9
    made.done.append("later")
    assert model.done == ["first"]
    expect(model.weight.data, np.zeros(2, np.float32))


@pytest.mark.parametrize("step", ["d", "A", "", "d:1", ":1"])
def test_an_unknown_recipe_is_named_with_the_known_ones(step):
    with expect_error(ValueError, repr(step), *TOYS):
        apply_recipe(Toy(), ["a", step], TOYS)


@pytest.mark.parametrize("step", ["a:half", "a:", "a:1:", "a:1,5", "a::1"])
def test_what_is_no_number_is_named(step):
    with expect_error(ValueError, repr(step)):
        apply_recipe(Toy(), [step], TOYS)


@pytest.mark.parametrize("step", ["nonsense", "a:half"])
def test_all_steps_are_read_before_anything_is_done(step):
    done = []
    recipes = {"a": lambda model, *numbers: (done.append("a"), model)[1]}
    with expect_error(ValueError, step):
        apply_recipe(Toy(), ["a", step], recipes)
    assert done == []


def test_the_model_is_copied_once():
    """A copy for each step would be thrown away at the next."""
    copies = []

    class Counted(Toy):
        def __deepcopy__(self, memo):
            copies.append(1)
            return Counted(*self.done)

    apply_recipe(Counted(), ["a", "b", "c"], TOYS)
    assert copies == [1]


def test_what_a_recipe_says_is_wrong_is_heard():
    with expect_error(ValueError, "not with this model"):
        apply_recipe(Toy(), ["never"], TOYS)


# 20.10 search


def tried_by(table, steps, **options):
    """What a search evaluates, in order, and what it finds. The table has latencies by what was done."""
    seen = []

    def evaluate(model):
        name = "".join(word for word, *_ in model.done)
        seen.append(name)
        latency, *accuracy = table.get(name, (9.0,))
        return Metrics(*(accuracy or (0.5,)), latency, 1, 1)

    found = search(Toy(), steps, TOYS, evaluate, **options)
    return seen, found


def test_a_search_begins_with_nothing_and_goes_on_from_the_best():
    """Of a and b, b is faster; so with a beam of one, all that comes begins with b."""
    table = {"": (1.0,), "a": (0.8,), "b": (0.5,), "c": (0.9,), "ba": (0.4,), "bc": (0.45,), "bac": (0.3,)}
    seen, found = tried_by(table, ["a", "b", "c"], budget=99, beam=1)
    assert seen == ["", "a", "b", "c", "ba", "bc", "bac"]
    assert found == [Found(("b", "a", "c"), Metrics(0.5, 0.3, 1, 1))]


def test_a_beam_of_two_keeps_the_second_best_too():
    table = {"": (1.0,), "a": (0.8,), "b": (0.5,), "c": (0.9,), "ab": (0.1,)}
    seen, found = tried_by(table, ["a", "b", "c"], budget=8)
    assert seen == ["", "a", "b", "c", "ba", "bc", "ab", "ac"]
    assert [one.steps for one in found] == [("a", "b")]


def test_what_a_round_leaves_are_the_best_of_that_round_alone():
    """Nothing of the second round is as good as b; it goes on all the same."""
    table = {"": (1.0,), "a": (0.8,), "b": (0.2,), "c": (0.9,), "ba": (0.7,), "bc": (0.6,), "bca": (0.1,)}
    seen, found = tried_by(table, ["a", "b", "c"], budget=99, beam=1)
    assert seen == ["", "a", "b", "c", "ba", "bc", "bca"]
    assert found[-1].steps == ("b", "c", "a")


def test_the_earlier_of_equal_ones_stays():
    table = dict.fromkeys(("a", "b", "c"), (0.5,)) | {"": (1.0,)}
    seen, found = tried_by(table, ["c", "a", "b"], budget=6, beam=1)
    assert seen == ["", "c", "a", "b", "ca", "cb"]
    assert [one.steps for one in found] == [("c",), ("a",), ("b",)]


@pytest.mark.parametrize("budget", [1, 2, 3, 4, 5, 9])
def test_a_budget_is_kept_and_used_up(budget):
    seen, found = tried_by({"": (1.0,)}, ["a", "b", "c"], budget=budget)
    assert len(seen) == budget
    assert found[0].steps == ()


def test_a_step_with_numbers_is_a_step():
    seen = []

    def evaluate(model):
        seen.append(tuple(model.done))
        return Metrics(0.5, 1, 1, 1)

    search(Toy(), ["a:1", "a:2"], TOYS, evaluate, budget=99, beam=2)
    assert seen == [
        (),
        (("a", 1.0),),
        (("a", 2.0),),
        (("a", 1.0), ("a", 2.0)),
        (("a", 2.0), ("a", 1.0)),
    ]


def test_below_the_floor_it_goes_on_from_nothing_and_reports_nothing():
    table = {"": (1.0, 0.9), "a": (0.1, 0.79), "b": (0.9, 0.8), "ba": (0.5, 0.85), "ab": (0.01, 0.99)}
    seen, found = tried_by(table, ["a", "b"], budget=99, beam=2, floor=0.8)
    assert seen == ["", "a", "b", "ba"]
    assert [one.steps for one in found] == [(), ("b", "a")]


def test_if_even_the_baseline_is_below_the_floor_nothing_may_be_found():
    _, found = tried_by({"": (1.0, 0.5), "a": (1.0, 0.6)}, ["a"], budget=9, floor=0.7)
    assert found == []


def test_a_recipe_that_cannot_be_used_costs_nothing():
    seen, found = tried_by({"": (1.0,), "a": (0.5,)}, ["never", "a"], budget=2)
    assert seen == ["", "a"]
    assert [one.steps for one in found] == [("a",)]


def test_errors_of_the_evaluation_are_heard():
    def evaluate(model):
        if model.done:
            raise ValueError("cannot be measured")
        return Metrics(0.5, 1, 1, 1)

    with expect_error(ValueError, "cannot be measured"):
        search(Toy(), ["a"], TOYS, evaluate, budget=9)


def test_a_recipe_that_is_broken_is_heard():
    """Which is not to say that it cannot be used here: that is a ValueError."""
    for kind in (KeyError, TypeError, RuntimeError):

        def broken(model, kind=kind):
            raise kind("broken")

        with expect_error(kind, "broken"):
            search(Toy(), ["a"], {"a": broken}, lambda model: Metrics(0.5, 1, 1, 1), budget=9)


def test_accuracy_and_time_count_alike():
    """0.79 / 0.4 / 0.6 is 3.3; on accuracy alone a would be ahead with 2.0, on time alone c with 1.9."""
    table = {"": (1.0, 0.4), "a": (1.0, 0.81), "b": (0.6, 0.79), "c": (0.55, 0.41)}
    seen, _ = tried_by(table, ["a", "b", "c"], budget=5, beam=1)
    assert seen[-1] == "ba"


def test_gains_are_those_over_the_model_as_it_was():
    """Beside a alone, of which they were made, ac and ab have gained most; beside the first, ba and ac."""
    table = {"": (1.0,), "a": (0.5,), "b": (0.25,), "ba": (0.24,), "bc": (0.3,), "ab": (0.4,), "ac": (0.26,)}
    seen, _ = tried_by(table, ["a", "b", "c"], budget=99)
    assert seen[4:] == ["ba", "bc", "ab", "ac", "bac", "acb"]


def test_a_search_leaves_the_model_as_it_was():
    model = Toy()
    search(model, ["a", "b"], TOYS, lambda made: Metrics(0.5, 1, 1, 1), budget=9)
    assert model.done == []
    expect(model.weight.data, np.zeros(2, np.float32))


def test_a_step_is_added_to_what_was_done_already():
    """Done again from the beginning, three steps would be six."""
    count = []
    recipes = {name: lambda model, name=name: (count.append(name), model)[1] for name in "xyz"}
    search(Toy(), ["x", "y", "z"], recipes, lambda model: Metrics(0.5, 1, 1, 1), budget=99, beam=1)
    assert count == ["x", "y", "z", "y", "z", "z"]


@pytest.mark.parametrize("options", [{"budget": 0}, {"budget": -2}, {"budget": 5, "beam": 0}], ids=str)
def test_a_budget_and_a_beam_are_one_at_least(options):
    name, number = list(options.items())[-1]
    evaluated = []
    with expect_error(ValueError, name, str(number)):
        search(Toy(), ["a"], TOYS, lambda made: (evaluated.append(1), Metrics(0.5, 1, 1, 1))[1], **options)
    assert len(evaluated) <= max(options["budget"], 0)


def test_when_the_budget_is_spent_nothing_more_is_made():
    """A recipe may be a training. Two models beside the first are evaluated, so two are made."""
    made = []
    recipes = {name: lambda model, name=name: (made.append(name), model)[1] for name in "xyz"}
    search(Toy(), ["x", "y", "z"], recipes, lambda model: Metrics(0.5, 1, 1, 1), budget=3)
    assert made == ["x", "y"]


# 20.11 describe, rebuild


def everything():
    return Sequential(
        Linear(5, 7, rng=new(1)),
        ReLU(),
        Sequential(
            Dropout(0.5, rng=new()), Linear(7, 6, bias=False, rng=new(2)), Sequential(Tanh()), Sequential()
        ),
        GELU(),
        Linear(6, 4, rng=new(3)),
        LeakyReLU(0.2),
        Dropout(0.1, rng=new()),
        Sigmoid(),
    )


def test_layers_are_data_and_arrays_have_their_places():
    layers, arrays = describe(everything())
    assert [layer["kind"] for layer in layers] == [
        *("linear", "relu", "linear", "tanh", "gelu", "linear", "leaky_relu", "sigmoid")
    ]
    assert layers[6] == {"kind": "leaky_relu", "negative_slope": 0.2}
    assert layers[0] == {"kind": "linear"}
    assert json.loads(json.dumps(layers)) == layers
    shapes = {name: array.shape for name, array in arrays.items()}
    assert shapes == {
        "0.weight": (7, 5),
        "0.bias": (7,),
        "2.weight": (6, 7),
        "5.weight": (4, 6),
        "5.bias": (4,),
    }
    assert all(type(array) is np.ndarray for array in arrays.values())


def test_what_was_written_down_can_be_built_again(rng):
    model, x = everything(), rng.normal(size=(9, 5)).astype(np.float32)
    layers, arrays = describe(model)
    again = rebuild(layers, arrays)
    expect(answer(again, x), answer(model, x), atol=1e-5)
    assert not any(module.training for module in again.modules())
    assert describe(again)[0] == layers


def test_a_layer_may_be_described_alone():
    assert describe(Linear(2, 3, rng=new()))[0] == [{"kind": "linear"}]
    assert describe(Dropout(0.5, rng=new())) == ([], {})
    assert describe(Sequential()) == ([], {})


def test_a_layer_that_is_there_twice_has_two_places(rng):
    inner, relu, x = Linear(3, 3, rng=new()), ReLU(), rng.normal(size=(4, 3)).astype(np.float32)
    net = Sequential(inner, relu, Sequential(inner, relu), Linear(3, 2, rng=new(1)))
    layers, arrays = describe(net)
    assert [layer["kind"] for layer in layers] == ["linear", "relu", "linear", "relu", "linear"]
    expect(answer(rebuild(layers, arrays), x), answer(net, x), atol=1e-5)


def test_describing_and_building_change_nothing():
    model = everything()
    layers, arrays = describe(model)
    kept = json.dumps(layers), {name: array.copy() for name, array in arrays.items()}
    rebuild(layers, arrays)
    assert json.dumps(layers) == kept[0]
    assert list(arrays) == list(kept[1])
    for name, array in arrays.items():
        expect(array, kept[1][name], rtol=0, atol=0)
    assert model.training


class Softened(Linear):
    """Inherits all from Linear, but for what it computes."""

    def forward(self, x):
        return super().forward(x) * 0.5


class Residual(Sequential):
    """A chain in which something is done beside its layers."""

    def forward(self, x):
        return x + super().forward(x)


class Noise(Dropout):
    """Does something in use, too."""

    def forward(self, x):
        return x + 1


class Halved(Module):
    """Has a Linear, and is none."""

    def __init__(self):
        self.inner = Linear(2, 2, rng=new())

    def forward(self, x):
        return self.inner(x) * 0.5


@pytest.mark.parametrize(
    "layer",
    [
        Softened(2, 2, rng=new()),
        Softmax(),
        Module(),
        Residual(Linear(2, 2, rng=new())),
        Noise(0.5, rng=new()),
        Halved(),
    ],
    ids=lambda m: type(m).__name__,
)
def test_a_layer_of_no_kind_is_named_and_refused(layer):
    with expect_error(ValueError, type(layer).__name__, "linear", "relu"):
        describe(Sequential(ReLU(), Sequential(layer)))


@pytest.fixture
def shift():
    """A kind of its own, for the time of a test."""

    class Shift(Module):
        def __init__(self, by, table):
            self.by, self.table = by, table

        def forward(self, x):
            return x + self.by + self.table

    register_kind(
        Kind(
            "shift",
            Shift,
            lambda layer: ({"by": layer.by}, {"table": layer.table}),
            lambda settings, arrays: Shift(settings["by"], arrays["table"]),
        )
    )
    yield Shift
    del KINDS["shift"]


def test_kinds_can_be_added(shift):
    layers, arrays = describe(Sequential(ReLU(), shift(2.0, np.arange(3.0)), shift(1.0, np.ones(3, np.int8))))
    assert layers == [{"kind": "relu"}, {"kind": "shift", "by": 2.0}, {"kind": "shift", "by": 1.0}]
    assert {name: array.dtype for name, array in arrays.items()} == {
        "1.table": np.float64,
        "2.table": np.int8,
    }
    expect(answer(rebuild(layers, arrays), np.array([[-1.0, 0.0, 1.0]])), np.array([[4.0, 5.0, 7.0]]))


def test_a_name_belongs_to_one_class(shift):
    layers, _ = describe(shift(2.0, np.arange(3.0)))
    kind = KINDS[layers[0]["kind"]]
    register_kind(Kind("shift", shift, lambda layer: ({"by": -layer.by}, {}), kind.build))
    assert describe(shift(2.0, np.arange(3.0))) == ([{"kind": "shift", "by": -2.0}], {})
    register_kind(kind)
    with expect_error(ValueError, "shift", "Shift"):
        register_kind(Kind("shift", ReLU, kind.describe, kind.build))
    assert KINDS["shift"] is kind


@pytest.mark.parametrize("kind", ["magic", "", None, "Linear", ["linear"], {}], ids=repr)
def test_an_unknown_kind_is_refused(kind):
    with expect_error(Refused, repr(kind), "linear"):
        rebuild([{"kind": kind}], {})


def test_a_layer_without_a_kind_is_refused():
    with expect_error(Refused, "linear"):
        rebuild([{}], {})


@pytest.mark.parametrize(
    ("layer", "arrays"),
    [
        ({"kind": "linear"}, {}),
        ({"kind": "linear"}, {"1.weight": np.zeros(3)}),
        ({"kind": "leaky_relu"}, {}),
    ],
    ids=["no weight", "one axis", "no slope"],
)
def test_what_a_kind_cannot_build_from_is_refused(layer, arrays):
    with expect_error(Refused, layer["kind"]):
        rebuild([{"kind": "relu"}, layer], arrays)


@pytest.mark.parametrize(
    "kind", [AttributeError, ZeroDivisionError, IndexError, RuntimeError, AssertionError]
)
def test_whatever_goes_wrong_in_building_is_a_refusal(kind, monkeypatch):
    def build(settings, arrays):
        raise kind("like this")

    monkeypatch.setitem(KINDS, "odd", Kind("odd", ReLU, KINDS["relu"].describe, build))
    with expect_error(Refused, "odd"):
        rebuild([{"kind": "relu"}, {"kind": "odd"}], {})


@pytest.mark.parametrize("name", ["3.weight", "weight", "1x.weight", "10.weight", ".weight"])
def test_an_array_that_belongs_to_no_layer_is_refused(name):
    layers, arrays = describe(Sequential(ReLU(), Linear(2, 2, rng=new())))
    with expect_error(Refused, name):
        rebuild(layers, {**arrays, name: np.zeros(2)})


def test_of_many_layers_each_gets_its_own(rng):
    """10.weight is not of layer 1, nor 1.weight of layer 10."""
    net = Sequential(*(Linear(3, 3, rng=new(i)) for i in range(12)))
    layers, arrays = describe(net)
    backwards = dict(reversed(arrays.items()))
    x = rng.normal(size=(4, 3)).astype(np.float32)
    expect(answer(rebuild(layers, backwards), x), answer(net, x), atol=1e-5)


def test_an_mlp_goes_there_and_back(rng):
    net, x = MLP([4, 8, 3], dropout=0.3, rng=new()), rng.normal(size=(5, 4)).astype(np.float32)
    again = rebuild(*describe(net))
    assert isinstance(again, Sequential)
    assert len(again) == 3
    expect(answer(again, x), answer(net, x), atol=1e-5)
