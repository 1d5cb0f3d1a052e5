"""Level 2: the same by slow and obvious loops, and what has to hold whatever is drawn."""

import io
import itertools
import math
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect
from tinytorch.activations import GELU, Dropout, LeakyReLU, ReLU, Sigmoid, Tanh
from tinytorch.competition import (
    Metrics,
    Submission,
    Tolerance,
    accuracy_of,
    answer,
    broken_claims,
    describe,
    dominates,
    hypervolume,
    latency_ratio,
    pareto_front,
    read_frame,
    read_submission,
    rebuild,
    score,
    search,
    share_right,
    write_frame,
    write_submission,
)
from tinytorch.layers import Linear, Module
from tinytorch.networks import Sequential


def steady(examples):
    return settings(deadline=None, derandomize=True, max_examples=examples)


SEEDS = st.integers(0, 2**32 - 1)
FEW = st.sampled_from([0.25, 0.5, 1.0])  # few values, so that many are equal
METRICS = st.builds(Metrics, FEW, FEW, FEW, FEW)


def worse_or_equal(a, b):
    """In each of the four, b is at least as good as a."""
    return a.accuracy <= b.accuracy and a.latency >= b.latency and a.memory >= b.memory and a.size >= b.size


# Metrics and score


@steady(60)
@given(METRICS, METRICS)
def test_gains_there_and_back_cancel_out(a, b):
    expect([x * y for x, y in zip(a.gains(b), b.gains(a), strict=True)], [1.0] * 4)
    expect(score(a, b) * score(b, a), 1.0)


@steady(60)
@given(METRICS, METRICS, METRICS)
def test_who_is_ahead_does_not_depend_on_the_baseline(a, b, c):
    """score(a, c) / score(b, c) is score(a, b), so that scores of two baselines tell the same story."""
    expect(score(a, c) / score(b, c), score(a, b))


@steady(100)
@given(METRICS, METRICS)
def test_who_dominates_has_the_higher_score(a, b):
    if dominates(a, b):
        assert score(a, b) > 1
    elif worse_or_equal(b, a):
        expect(score(a, b), 1.0)


@steady(60)
@given(METRICS, st.sampled_from([0.0, 0.25, 0.3, 0.5, 1.0]))
def test_a_floor_is_passed_or_not(a, floor):
    product = math.prod(a.gains(Metrics(0.5, 1, 1, 1)))
    expect(score(a, Metrics(0.5, 1, 1, 1), floor), product**0.25 if a.accuracy >= floor else 0.0)


# The front


@steady(150)
@given(METRICS, METRICS)
def test_to_dominate_is_to_be_no_worse_and_not_equal(a, b):
    assert dominates(a, b) == (worse_or_equal(b, a) and a != b)


@steady(100)
@given(st.lists(METRICS, max_size=12))
def test_the_front_is_what_no_other_dominates(entries):
    expected = [a for a in entries if not any(worse_or_equal(a, b) and a != b for b in entries)]
    numbered = list(enumerate(entries))
    front = pareto_front(numbered, lambda entry: entry[1])
    assert [metrics for _, metrics in front] == expected
    assert [i for i, _ in front] == sorted(i for i, _ in front)


@steady(40)
@given(SEEDS, st.integers(0, 60))
def test_of_many_entries_too(seed, count):
    table = np.random.default_rng(seed).random((count, 4)) + 1e-9
    entries = [Metrics(*row) for row in table.tolist()]
    expected = [a for a in entries if not any(worse_or_equal(a, b) and a != b for b in entries)]
    assert pareto_front(entries) == expected
    assert pareto_front(expected) == expected


# The hypervolume


@steady(80)
@given(st.integers(1, 4), st.integers(0, 7), st.integers(1, 5), SEEDS)
def test_a_hypervolume_is_the_number_of_cells_below_a_point(d, n, top, seed):
    """With whole numbers, the space is made of cells of side 1."""
    rng = np.random.default_rng(seed)
    points, reference = rng.integers(-1, top, (n, d)), rng.integers(-1, 2, d)
    cells = np.array(list(itertools.product(range(-1, top), repeat=d)))
    inside = [
        (cell >= reference).all()
        and any((cell < point).all() and (point > reference).all() for point in points)
        for cell in cells
    ]
    expect(hypervolume(points, reference), float(sum(inside)))


@steady(40)
@given(st.integers(2, 4), st.integers(1, 6), SEEDS)
def test_a_hypervolume_asks_neither_for_the_order_of_points_nor_of_axes(d, n, seed):
    rng = np.random.default_rng(seed)
    points, reference = rng.random((n, d)), rng.random(d) / 3
    whole = hypervolume(points, reference)
    axes = rng.permutation(d)
    expect(hypervolume(points[rng.permutation(n)][:, axes], reference[axes]), whole, rtol=1e-9, atol=1e-12)
    expect(hypervolume(np.concatenate([points, points * 0.9]), reference), whole, rtol=1e-9, atol=1e-12)
    expect(hypervolume(2 * points, 2 * reference), 2**d * whole, rtol=1e-9, atol=1e-12)


@steady(40)
@given(st.integers(1, 5), SEEDS)
def test_boxes_are_joined_as_inclusion_and_exclusion_say(n, seed):
    points = np.random.default_rng(seed).random((n, 4))
    total = 0.0
    for size in range(1, n + 1):
        for chosen in itertools.combinations(points, size):
            total -= (-1) ** size * np.prod(np.min(chosen, axis=0))
    expect(hypervolume(points, np.zeros(4)), float(total), rtol=1e-9)


# Answers and accuracy


@steady(60)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 40), SEEDS)
def test_accuracy_is_counted_image_by_image(n, classes, batch, seed):
    rng = np.random.default_rng(seed)
    logits, labels = rng.integers(0, 3, (n, classes)).astype(float), rng.integers(0, classes, n)
    logits[rng.random((n, classes)) < 0.05] = np.nan
    right = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        if not any(math.isnan(value) for value in row):
            right += row.index(max(row)) == label
    expect(share_right(logits, labels), right / n)
    expect(accuracy_of(lambda images: images, logits, labels, batch), right / n)


@steady(40)
@given(st.lists(st.tuples(st.integers(0, 64), st.integers(1, 64)), min_size=2, max_size=9))
def test_a_ratio_is_the_median_of_pairs(seconds):
    """Whole seconds, told by a clock that the models put forward."""
    now = [0]

    def taking(times):
        left = iter(times)

        def model(images):
            now[0] += next(left)
            return images

        return model

    mine, theirs = zip(*seconds, strict=True)
    found = latency_ratio(taking(mine), taking(theirs), [np.zeros((1, 1))] * len(mine), (lambda: now[0],) * 2)
    ratios = sorted(a / b for a, b in seconds[1:])
    half = len(ratios) // 2
    expect(found.ratio, ratios[half] if len(ratios) % 2 else (ratios[half - 1] + ratios[half]) / 2)
    expect(sorted(found.ratios), ratios)


@steady(100)
@given(
    METRICS, METRICS, st.tuples(st.sampled_from([0.0, 0.25, 0.6]), *[st.sampled_from([1.0, 2.0, 3.0])] * 3)
)
def test_a_claim_is_broken_by_what_is_beyond_its_tolerance(claimed, measured, tolerance):
    allowed = Tolerance(*tolerance)
    broken = [
        measured.accuracy < claimed.accuracy - allowed.accuracy,
        measured.latency > claimed.latency * allowed.latency,
        measured.memory > claimed.memory * allowed.memory,
        measured.size > claimed.size * allowed.size,
    ]
    found = " ".join(broken_claims(claimed, measured, allowed))
    assert [name in found for name in ("accuracy", "latency", "memory", "size")] == broken


# Search


class Toy(Module):
    def __init__(self):
        self.done = ()


def adding(word):
    def recipe(model):
        model.done = (*model.done, word)
        return model

    return recipe


def slow_search(table, steps, budget, beam, floor):
    """By words alone: what is evaluated, in order, and the front of it."""
    tried = [()]
    left = [()]
    while left and len(tried) < budget:
        new = []
        for done in left:
            for step in steps:
                if step not in done and len(tried) < budget:
                    tried.append((*done, step))
                    new.append((*done, step))
        scores = {done: score(table(done), table(()), floor) for done in new}
        left = sorted((done for done in new if scores[done]), key=lambda done: -scores[done])[:beam]
    good = [done for done in tried if table(done).accuracy >= floor]
    front = [
        a for a in good if not any(worse_or_equal(table(a), table(b)) and table(a) != table(b) for b in good)
    ]
    return tried, front


@steady(80)
@given(st.integers(0, 4), st.integers(1, 25), st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.0]), SEEDS)
def test_a_search_goes_where_it_says(count, budget, beam, floor, seed):
    steps = list("abcd")[:count]
    known = {}

    def table(done):
        if done not in known:
            rng = np.random.default_rng([seed, *map(ord, done)])
            known[done] = Metrics(*rng.choice([0.25, 0.5, 1.0], 4).tolist())
        return known[done]

    evaluated = []

    def evaluate(model):
        evaluated.append(model.done)
        return table(model.done)

    recipes = {step: adding(step) for step in steps}
    found = search(Toy(), steps, recipes, evaluate, budget=budget, beam=beam, floor=floor)
    tried, front = slow_search(table, steps, budget, beam, floor)
    assert evaluated == tried
    assert [one.steps for one in found] == front
    assert [one.metrics for one in found] == [table(done) for done in front]


# Files and frames

LAYERS = {
    "linear": lambda rng, width: Linear(width, width, bias=bool(rng.integers(2)), rng=rng),
    "relu": lambda rng, width: ReLU(),
    "gelu": lambda rng, width: GELU(),
    "tanh": lambda rng, width: Tanh(),
    "sigmoid": lambda rng, width: Sigmoid(),
    "leaky_relu": lambda rng, width: LeakyReLU(float(rng.random())),
    "dropout": lambda rng, width: Dropout(0.5, rng=rng),
}


def grown(rng, names, width):
    """A chain of these layers, some of them in chains of their own."""
    net = Sequential()
    for name in names:
        layer = LAYERS[name](rng, width)
        net.append(Sequential(layer) if rng.random() < 0.3 else layer)
    return net


@steady(40)
@given(st.lists(st.sampled_from(list(LAYERS)), max_size=13), st.integers(1, 4), SEEDS)
def test_any_chain_of_known_layers_is_written_and_built_again(names, width, seed):
    rng = np.random.default_rng(seed)
    net, x = grown(rng, names, width), rng.standard_normal((3, width), np.float32)
    layers, arrays = describe(net)
    assert [layer["kind"] for layer in layers] == [name for name in names if name != "dropout"]
    expect(answer(rebuild(layers, arrays), x), answer(net, x), atol=1e-5)
    again = describe(rebuild(layers, arrays))
    assert again[0] == layers
    assert list(again[1]) == list(arrays)


NAMES = st.from_regex(r"[A-Za-z0-9_]{1,5}(\.[A-Za-z0-9_]{1,5}){0,2}", fullmatch=True)
TEXTS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=80)
DTYPES = st.sampled_from(["?", "i1", "<u2", ">i4", "i8", "f2", "<f4", ">f8"])
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@st.composite
def arrays_of_any_sort(draw):
    rng = np.random.default_rng(draw(SEEDS))
    array = np.array(rng.integers(-8, 8, draw(SHAPES)) / 4).astype(draw(DTYPES))
    return array.copy(order=draw(st.sampled_from("CF")))


@steady(25)
@given(
    TEXTS,
    TEXTS,
    st.dictionaries(NAMES, arrays_of_any_sort(), max_size=4),
    st.lists(TEXTS, max_size=3),
    st.none() | METRICS,
)
def test_any_submission_is_read_as_it_was_written(name, author, arrays, recipe, claims):
    given = Submission(name, author, arrays, [{"kind": "relu"}], "", tuple(recipe), claims)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.zip"
        assert write_submission(path, given) == path.stat().st_size
        got = read_submission(path)
    assert (got.name, got.author, got.recipe, got.claims) == (name, author, tuple(recipe), claims)
    assert set(got.arrays) == set(arrays)
    for key, array in arrays.items():
        expect(np.array(got.arrays[key]), array, rtol=0, atol=0)


@steady(60)
@given(st.lists(arrays_of_any_sort() | st.text(max_size=20), max_size=4))
def test_any_messages_come_out_as_they_went_in(messages):
    stream = io.BytesIO()
    for message in messages:
        write_frame(stream, message)
    stream.seek(0)
    for message in messages:
        got = read_frame(stream)
        if isinstance(message, str):
            assert got == message
        else:
            expect(got, message, rtol=0, atol=0)
    assert stream.read() == b""
