"""Level 1: the network to start from is milestone 1's, and recipes do to it what they say."""

from pathlib import Path

import numpy as np
import pytest

from dojo.compose import load_file
from dojo.expect import expect, expect_error
from tinytorch.competition import (
    Submission,
    accuracy_of,
    answer,
    apply_recipe,
    describe,
    read_submission,
    write_submission,
)
from tinytorch.compression import shrink_mlp
from tinytorch.layers import Linear

M4 = load_file(Path(__file__).with_name("contest.py"))
pytestmark = pytest.mark.timeout(60)  # a very busy machine needs its time for all of this

NAMES = pytest.mark.parametrize("name", list(M4.MODELS))


def made(name, *steps):
    return apply_recipe(M4.baseline(name), steps, M4.recipes(name))


def fresh(name, count=400, seed=9):
    return M4.MODELS[name](count, np.random.default_rng([seed, 4]))


@NAMES
def test_the_baseline_answers_as_milestone_1_recorded_it(name):
    """On the thousand images of its record, by plain numpy in float64 and by the number that are right."""
    model = M4.M1.models()[name]
    data = next(iter(model.on))
    images, labels = M4.M1.examples(data)
    plain = M4.M1.plain_logits(model, M4.M1.prepare(model, images))
    base = M4.baseline(name)
    expect(answer(base, images[:300]), plain[:300].astype(np.float32), rtol=1e-3, atol=1e-3)
    correct, _ = M4.M1.expected(model, data, images, labels)
    expect(accuracy_of(base, images, labels), correct / len(labels))


@NAMES
def test_folding_changes_no_answer(name):
    """The preparation is linear, and so is the first layer."""
    images, _ = fresh(name, 100)
    base, folded = M4.baseline(name), made(name, "fold")
    expect(answer(folded, images), answer(base, images), rtol=1e-3, atol=1e-3)
    assert describe(folded)[0][0] == {"kind": "rows"}
    with expect_error(ValueError, "fold"):
        made(name, "fold", "fold")


def test_half_of_the_neurons_go_and_the_rest_learn_to_do_without_them():
    """Twenty batches: some 82 % of the digits after the cut alone, and more than 94 % after the lessons."""
    images, labels = fresh("digits", 300)
    base = M4.baseline("digits")
    before = [p.data.copy() for p in base.parameters()]
    assert accuracy_of(shrink_mlp(base, 0.5), images, labels) > 0.7
    small = apply_recipe(base, ["distil:0.5:20"], M4.recipes("digits"))
    widths = [array.shape for name, array in describe(small)[1].items() if name.endswith(".weight")]
    assert widths == [(128, 784), (64, 128), (10, 64)]
    assert accuracy_of(small, images, labels) > 0.94
    assert accuracy_of(base, images, labels) > 0.99
    for parameter, array in zip(base.parameters(), before, strict=True):
        expect(parameter.data, array, rtol=0, atol=0)


def test_lessons_are_the_same_from_the_same_seed():
    images, _ = fresh("digits", 50)
    first, second = (made("digits", "distil:0.25:3") for _ in range(2))
    expect(answer(first, images), answer(second, images), rtol=0, atol=0)


@NAMES
def test_eight_bits_are_a_quarter_of_the_bytes_and_lose_next_to_nothing(name, tmp_path):
    images, labels = fresh(name)
    sizes = {}
    for word, model in {"float32": M4.baseline(name), "int8": made(name, "int:8")}.items():
        sizes[word] = M4.write(tmp_path / f"{word}.zip", model, "a", "b", ())
    assert 0.25 < sizes["int8"] / sizes["float32"] < 0.27
    expect(
        accuracy_of(made(name, "int:8"), images, labels),
        accuracy_of(M4.baseline(name), images, labels),
        atol=0.01,
    )


def test_pruned_weights_are_zeros_and_zeros_take_as_much_room(tmp_path):
    base, pruned = M4.baseline("digits"), made("digits", "prune:0.8")
    weights = [layer.weight.data for layer in pruned if isinstance(layer, Linear)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    assert zeros / sum(weight.size for weight in weights) == pytest.approx(0.8, abs=0.01)
    size = M4.write(tmp_path / "a.zip", pruned, "a", "b", ())
    assert size == M4.write(tmp_path / "b.zip", base, "a", "b", ())


@pytest.mark.parametrize(
    "steps", [(), ("fold",), ("int:8",), ("fold", "int:8"), ("int:16",), ("distil:0.25:2", "fold")]
)
def test_what_was_handed_in_answers_as_what_was_made(steps, tmp_path):
    images, _ = fresh("digits", 50)
    model = made("digits", *steps)
    layers, arrays = describe(model)
    write_submission(tmp_path / "a.zip", Submission("a", "b", arrays, layers, recipe=steps))
    expect(answer(read_submission(tmp_path / "a.zip").build(), images), answer(model, images), atol=1e-5)


@pytest.mark.parametrize(
    "steps",
    [("int:8", "int:8"), ("int:8", "tune:1"), ("fold", "tune:1"), ("int:8", "fold"), ("int:8", "prune:0.5")],
)
def test_a_recipe_says_where_it_cannot_be_used(steps):
    with expect_error(ValueError):
        made("digits", *steps)
