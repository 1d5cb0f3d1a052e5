"""Level 1: four metrics, one score, and who dominates whom."""

import gc
import math
import tracemalloc

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.activations import Dropout, ReLU
from tinytorch.autograd import is_grad_enabled
from tinytorch.competition import (
    Metrics,
    accuracy_of,
    answer,
    dominates,
    hypervolume,
    latency_ratio,
    pareto_front,
    peak_memory,
    score,
    share_right,
)
from tinytorch.layers import Linear, Module
from tinytorch.networks import MLP, Sequential
from tinytorch.tensor import Tensor


def new(seed=0):
    return np.random.default_rng(seed)


def f32(values):
    return np.array(values, np.float32)


# 20.1 Metrics

GOOD = {"accuracy": 0.5, "latency": 1.5, "memory": 1000, "size": 10}


@pytest.mark.parametrize("accuracy", [-0.01, 1.01, math.nan, math.inf, -math.inf])
def test_an_accuracy_is_from_0_to_1(accuracy):
    with expect_error(ValueError, "accuracy", str(accuracy)):
        Metrics(**{**GOOD, "accuracy": accuracy})


@pytest.mark.parametrize("name", ["latency", "memory", "size"])
@pytest.mark.parametrize("value", [0, -1.5, math.nan, math.inf])
def test_the_others_are_finite_and_above_0(value, name):
    with expect_error(ValueError, name, str(value)):
        Metrics(**{**GOOD, name: value})


def test_the_ends_of_what_is_allowed_are_allowed():
    for accuracy in (0, 1, 0.0, 1.0):
        assert Metrics(accuracy, 1e-9, 1e-9, 1e30).accuracy == accuracy


def test_gains_are_in_the_order_of_the_fields_and_more_is_better():
    mine, base = Metrics(0.9, 0.5, 300, 50), Metrics(0.6, 2.0, 900, 400)
    expect(mine.gains(base), (1.5, 4.0, 3.0, 8.0))
    expect(base.gains(mine), (2 / 3, 1 / 4, 1 / 3, 1 / 8))
    expect(base.gains(base), (1.0, 1.0, 1.0, 1.0))


def test_a_baseline_that_is_always_wrong_is_nothing_to_compare_with():
    with expect_error(ValueError, "accuracy"):
        Metrics(**GOOD).gains(Metrics(0, 1, 1, 1))
    with expect_error(ValueError, "accuracy"):
        score(Metrics(0, 1, 1, 1), Metrics(0, 1, 1, 1), 0.5)


# 20.2 score


def test_a_score_is_the_geometric_mean_of_four_gains():
    """(1.5 * 4 * 3 * 8) ** (1 / 4) = 144 ** (1 / 4) = sqrt(12)."""
    mine, base = Metrics(0.9, 0.5, 300, 50), Metrics(0.6, 2.0, 900, 400)
    expect(score(mine, base), math.sqrt(12))
    expect(score(base, base), 1.0)
    expect(score(base, mine), 1 / math.sqrt(12))


def test_twice_as_fast_makes_up_for_twice_as_large():
    base = Metrics(0.8, 1, 100, 100)
    expect(score(Metrics(0.8, 0.5, 100, 200), base), 1.0)
    expect(score(Metrics(0.8, 0.25, 100, 100), base), math.sqrt(2))


def test_below_the_floor_nothing_counts_and_at_the_floor_it_does():
    base = Metrics(0.8, 1, 100, 100)
    assert score(Metrics(0.75, 0.01, 1, 1), base, 0.76) == 0.0
    assert score(Metrics(0.75, 0.01, 1, 1), base, floor=0.75) > 1
    assert score(Metrics(0.0, 0.01, 1, 1), base) == 0.0


def test_large_gains_do_not_overflow():
    expect(score(Metrics(1, 1e-200, 1e-200, 1e-200), Metrics(1, 1e100, 1, 1)), 1e175, rtol=1e-9)


# 20.3 answer


class Noting(Module):
    """Notes how it was called."""

    def __init__(self):
        self.seen = []

    def forward(self, x):
        self.seen.append((type(x), self.training, is_grad_enabled()))
        return x


def test_a_module_is_asked_with_a_tensor_and_a_function_with_an_array(rng):
    x = rng.normal(size=(4, 3))
    layer = Linear(3, 2, rng=new())
    expect(answer(layer, f32(x)), f32(x) @ layer.weight.data.T + layer.bias.data)
    kinds = []
    expect(answer(lambda images: (kinds.append(type(images)), images * 2)[1], x), x * 2)
    assert kinds == [np.ndarray]
    expect(answer(lambda images: Tensor(images), x), x)


def test_a_module_is_used_and_not_trained_and_nothing_is_recorded(rng):
    noting = Noting()
    assert noting.training
    net = Sequential(noting)
    answer(net, rng.normal(size=(4, 3)))
    assert noting.seen == [(Tensor, False, False)]
    net.training = False  # and what is in it trains
    answer(net, rng.normal(size=(4, 3)))
    assert noting.seen[1:] == [(Tensor, False, False)]
    assert (net.training, noting.training) == (False, True)
    assert is_grad_enabled()


def test_dropout_does_not_drop_in_use(rng):
    net, x = MLP([5, 20, 3], dropout=0.5, rng=new()), f32(rng.normal(size=(4, 5)))
    expect(answer(net, x), answer(net, x), rtol=0, atol=0)
    expect(answer(net, x), Sequential(*[m for m in net if not isinstance(m, Dropout)])(Tensor(x)).data)


@pytest.mark.parametrize("fails", [False, True])
def test_afterwards_each_module_trains_or_not_as_before(fails, rng):
    net = Sequential(Linear(3, 3, rng=new()), Sequential(ReLU(), Linear(3, 2 + fails, rng=new())), ReLU())
    net.layers[1].eval()
    before = [module.training for module in net.modules()]
    assert set(before) == {True, False}
    if fails:
        with pytest.raises(ValueError, match=r".*"):
            answer(net, f32(rng.normal(size=(4, 7))))  # Linear(3, 3) takes no 7
    else:
        answer(net, f32(rng.normal(size=(4, 3))))
    assert [module.training for module in net.modules()] == before
    assert is_grad_enabled()


def test_a_model_may_write_over_its_buffer_at_the_next_call():
    """Kata 17 does, to save memory: what was answered before has to stay."""
    buffer = np.zeros((2, 3), np.float32)

    def model(images):
        buffer[...] = images
        return buffer

    first = answer(model, np.ones((2, 3)))
    answer(model, np.full((2, 3), 7.0))
    expect(first, f32(np.ones((2, 3))))


class Lazy:
    """An answer that is worked out when somebody looks at it."""

    def __init__(self, work):
        self.work = work

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.work(), dtype)


class Strange(np.ndarray):
    """An array of another class."""


def test_what_comes_back_is_a_plain_array_whatever_the_model_gives(rng):
    x = rng.normal(size=(4, 3))
    given = [Lazy(lambda: x), x.tolist(), x.view(Strange), np.asfortranarray(x), x[:, ::-1][:, ::-1]]
    for out in given:
        got = answer(lambda images, out=out: out, x)
        expect(got, x)
        assert type(got) is np.ndarray
        assert got.flags.c_contiguous
        assert got.flags.writeable
        assert got.flags.owndata


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.float64, np.float64),
        (np.float32, np.float32),
        (np.float16, np.float32),
        (np.int64, np.float32),
        (np.uint8, np.float32),
    ],
    ids=lambda dtype: dtype.__name__,
)
def test_logits_are_float64_if_they_were_and_else_float32(given, expected):
    expect(
        answer(lambda images: np.array([[1, 2], [3, 4]], given), np.zeros((2, 1))),
        np.array([[1, 2], [3, 4]], expected),
    )


class Giving(Module):
    """Gives the same Tensor every time, as one that keeps what it worked out does."""

    def __init__(self, values):
        self.kept = Tensor(values)

    def forward(self, x):
        return self.kept


def test_what_a_module_gives_is_copied_and_becomes_floats_too():
    giving = Giving(np.array([[1, 2], [3, 4]], np.int64))
    expect(answer(giving, np.zeros((2, 3))), f32([[1, 2], [3, 4]]))
    giving = Giving(f32([[1, 2], [3, 4]]))
    got = answer(giving, np.zeros((2, 3)))
    giving.kept.data[...] = 7
    expect(got, f32([[1, 2], [3, 4]]))


@pytest.mark.parametrize("shape", [(3,), (3, 2), (5, 2), (4, 2, 1), (), (4, 0)], ids=str)
def test_answers_that_are_no_rows_of_logits_are_refused(shape):
    for model in (lambda images: np.zeros(shape), Giving(np.zeros(shape))):
        with expect_error(ValueError, str(shape)):
            answer(model, np.zeros((4, 6)))


@pytest.mark.parametrize("dtype", [np.bool_, np.complex128, object], ids=str)
def test_logits_are_real_numbers(dtype):
    with expect_error(TypeError, np.dtype(dtype).name):
        answer(lambda images: np.zeros((4, 2), dtype), np.zeros((4, 6)))


def test_no_images_have_no_answers():
    expect(answer(lambda images: np.zeros((0, 5)), np.zeros((0, 2, 2))), np.zeros((0, 5)))


# 20.4 share_right, accuracy_of


def test_the_share_of_rows_whose_largest_is_at_the_label():
    logits = np.array([[1.0, 3.0, 2.0], [5.0, 1.0, 0.0], [0.0, -1.0, 1.0], [-3.0, -2.0, -9.0]])
    expect(share_right(logits, [1, 0, 1, 1]), 0.75)
    expect(share_right(logits, np.array([0, 1, 2, 1], np.uint8)), 0.5)
    expect(share_right(logits, Tensor([2, 2, 0, 0])), 0.0)
    assert isinstance(share_right(logits, [1, 0, 1, 1]), float)


def test_of_equal_logits_the_first_counts():
    expect(share_right(np.zeros((4, 3)), [0, 1, 2, 0]), 0.5)


def test_a_row_with_a_nan_is_wrong():
    """argmax takes a nan for the largest, so it could be right by luck."""
    logits = np.array([[np.nan, 1.0], [np.nan, 1.0], [np.inf, 1.0], [2.0, np.nan]])
    expect(share_right(logits, [0, 1, 0, 0]), 0.25)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [((3, 2), (4,)), ((3, 2), (3, 1)), ((3,), (3,)), ((0, 2), (0,)), ((3, 2, 1), (3,))],
    ids=str,
)
def test_logits_and_labels_must_fit(logits, labels):
    with expect_error(ValueError, str(logits), str(labels)):
        share_right(np.zeros(logits), np.zeros(labels, int))


@pytest.mark.parametrize("batch", [1, 3, 7, 100])
def test_accuracy_is_the_same_in_batches_of_any_size(batch, rng):
    net, x = MLP([5, 8, 3], rng=new()), f32(rng.normal(size=(7, 5)))
    labels = answer(net, x).argmax(axis=1)
    labels[[2, 6]] += 1
    for given in (labels % 3, (labels % 3).tolist(), Tensor(labels % 3)):
        expect(accuracy_of(net, x, given, batch), 5 / 7)


def test_no_image_is_lost_by_rounding():
    """1 / 49 * 49 is a little less than 1."""
    for count in range(50):
        logits = np.eye(2)[(np.arange(49) < count).astype(int)]
        expect(accuracy_of(lambda images: images, logits, np.ones(49, int)), count / 49)


def test_no_more_than_a_batch_is_shown_at_a_time(rng):
    sizes = []
    x = rng.normal(size=(600, 2))
    accuracy_of(lambda images: (sizes.append(len(images)), images)[1], x, np.zeros(600, int))
    accuracy_of(lambda images: (sizes.append(len(images)), images)[1], x, np.zeros(600, int), 250)
    assert sizes == [256, 256, 88, 250, 250, 100]


def test_an_accuracy_needs_images_and_a_batch():
    with expect_error(ValueError):
        accuracy_of(lambda images: images, np.zeros((0, 2)), np.zeros(0, int))
    with expect_error(ValueError):
        accuracy_of(lambda images: images, np.zeros((0, 2)), np.zeros(1, int))
    for batch in (0, -3):
        with expect_error(ValueError, str(batch)):
            accuracy_of(lambda images: images, np.zeros((3, 2)), np.zeros(3, int), batch)
    with expect_error(ValueError, "(3, 2)", "(2,)"):
        accuracy_of(lambda images: images, np.zeros((3, 2)), np.zeros(2, int))


@pytest.mark.parametrize(("images", "labels"), [(4, 6), (6, 4)], ids=str)
def test_labels_or_images_that_are_left_over_are_refused(images, labels):
    """Two at a time, the first four of both fit."""
    with expect_error(ValueError, f"({images}, 2)", f"({labels},)"):
        accuracy_of(lambda images: images, np.zeros((images, 2)), np.zeros(labels, int), batch=2)


# 20.5 latency_ratio


class Course:
    """A clock that stands still, and models that put it forward."""

    def __init__(self):
        self.now = 100.0
        self.log = []

    def clock(self):
        return self.now

    def model(self, name, *seconds):
        """Takes so many seconds at its first call, its second, and so on."""
        left = iter(seconds)

        def ask(images):
            self.log.append(name)
            self.now += next(left)
            return images

        return ask

    def race(self, mine, theirs, batches=None):
        """Of two models with so many seconds a call."""
        batches = [np.ones((2, 3))] * len(mine) if batches is None else batches
        models = self.model("mine", *mine), self.model("theirs", *theirs)
        return latency_ratio(*models, batches, (self.clock, self.clock))


def test_ratios_are_of_pairs_and_the_first_pair_warms_up():
    found = Course().race([50, 1, 6, 2], [1, 2, 2, 8])
    expect(found.ratios, [0.5, 3.0, 0.25])
    expect(found.ratio, 0.5)
    found = Course().race([50, 1, 6], [1, 2, 2])
    expect(found.ratio, 1.75)


def test_who_is_first_changes_with_every_batch():
    """What the first of two finds in the cache, the second does not, or the other way round."""
    course = Course()
    course.race([1] * 4, [1] * 4)
    assert course.log == ["theirs", "mine", "mine", "theirs", "theirs", "mine", "mine", "theirs"]


def test_each_side_has_its_own_clock():
    course = Course()
    doubled = lambda: 2 * course.now  # noqa: E731
    models = course.model("mine", 1, 3, 3), course.model("theirs", 1, 3, 3)
    expect(latency_ratio(*models, [np.ones((2, 3))] * 3, (doubled, course.clock)).ratios, [2.0, 2.0])


def test_all_of_the_candidates_answers_come_back():
    batches = [np.full((n, 2), n, float) for n in (3, 1, 2)]
    found = latency_ratio(lambda x: x + 1, lambda x: x, batches, (iter(range(99)).__next__,) * 2)
    expect(found.answers, [batch + 1 for batch in batches])


def test_an_answer_has_to_be_worked_out_while_the_clock_runs():
    course = Course()

    def work():
        course.now += 8
        return np.zeros((2, 3))

    batches, clocks = [np.ones((2, 3))] * 3, (course.clock,) * 2
    found = latency_ratio(lambda x: Lazy(work), course.model("theirs", 1, 2, 4), batches, clocks)
    expect(found.ratios, [4.0, 2.0])
    found = latency_ratio(course.model("mine", 1, 2, 4), lambda x: Lazy(work), batches, clocks)
    expect(found.ratios, [0.25, 0.5])


def test_nobody_can_spoil_the_images_of_the_other():
    seen = []

    def spoiling(images):
        seen.append(images.copy())
        images[...] = -1
        return images

    batches = [np.full((2, 2), n, float) for n in range(3)]
    latency_ratio(spoiling, spoiling, batches, (iter(range(99)).__next__,) * 2)
    expect(seen, [np.full((2, 2), n, float) for n in (0, 0, 1, 1, 2, 2)])
    expect(batches, [np.full((2, 2), n, float) for n in range(3)])


def test_batches_are_taken_one_by_one():
    """They may be drawn as they are needed, so that there are never two."""
    course = Course()

    def drawn():
        for _ in range(3):
            course.log.append("drawn")
            yield np.ones((2, 3))

    course.race([1] * 3, [1] * 3, drawn())
    assert [i for i, word in enumerate(course.log) if word == "drawn"] == [0, 3, 6]


def test_drawing_a_batch_takes_nobodys_time():
    course = Course()

    def drawn():
        for _ in range(3):
            course.now += 1000
            yield np.ones((2, 3))

    expect(course.race([1] * 3, [2] * 3, drawn()).ratios, [0.5, 0.5])


def test_copying_a_batch_takes_nobodys_time():
    """The clock notes by how much memory grew at most since it was last looked at, which is every second
    time at the end of an answer: of two numbers a row, and not of a copy of the batch, 1 MiB."""
    grown, held = [], [0]

    def clock():
        now, most = tracemalloc.get_traced_memory()
        grown.append(most - held[0])
        tracemalloc.reset_peak()
        held[0] = now
        return float(len(grown))

    tracemalloc.start()
    try:
        batches = [np.ones((256, 1024), np.float32)] * 3
        latency_ratio(lambda x: x[:, :2], lambda x: x[:, :2], batches, (clock, clock))
    finally:
        tracemalloc.stop()
    assert len(grown) == 12
    assert max(grown[1::2]) < MIB / 2


def test_fewer_than_two_batches_say_nothing():
    for count in (0, 1):
        with expect_error(ValueError, str(count)):
            Course().race([1] * count, [1] * count)


def test_a_clock_that_stands_still_is_noticed():
    with expect_error(ValueError, "clock"):
        Course().race([1, 1, 1], [1, 1, 0])
    expect(Course().race([1, 0], [0, 1]).ratio, 0.0)  # of the first pair nobody asks


# 20.6 peak_memory

MIB = 1 << 20


def megabytes(count):
    return np.zeros(count << 17)


def model_of(weights, working, images_seen=None):
    """Builds a model that holds and needs so many MiB."""

    def build():
        held = megabytes(weights)

        def ask(images):
            if images_seen is not None:
                images_seen.append(images)
            return megabytes(working)[: len(images), None] + held[0]

        return ask

    return build


@pytest.mark.parametrize(("weights", "working"), [(4, 1), (1, 4), (2, 2)])
def test_weights_and_what_an_answer_needs_count_together(weights, working):
    expect(
        peak_memory(model_of(weights, working), np.zeros((10, 1))) / MIB, float(weights + working), atol=0.1
    )


def test_what_was_held_before_and_the_images_do_not_count():
    before = megabytes(8)
    assert peak_memory(model_of(1, 1), before.reshape(1024, -1)) / MIB < 2.2


def test_the_worst_moment_may_be_in_building():
    def build():
        megabytes(6).sum()
        return lambda images: np.zeros((len(images), 2))

    expect(peak_memory(build, np.zeros((10, 1))) / MIB, 6.0, atol=0.1)


@pytest.mark.parametrize("when", ["building", "answering"])
def test_what_is_made_at_a_first_time_only_does_not_count(when):
    cache = []

    def first(now):
        cache.extend([megabytes(8)] if now == when and not cache else [])

    def build():
        first("building")
        return lambda images: (first("answering"), megabytes(1)[: len(images), None])[1]

    expect(peak_memory(build, np.zeros((10, 1))) / MIB, 1.0, atol=0.1)


def test_nobody_is_tracing_afterwards_if_nobody_was():
    peak_memory(model_of(1, 1), np.zeros((10, 1)))
    assert not tracemalloc.is_tracing()
    with expect_error(ValueError):
        peak_memory(lambda: lambda images: images[0], np.zeros((10, 1)))
    assert not tracemalloc.is_tracing()


@pytest.mark.parametrize("traced", [False, True])
def test_after_an_error_that_comes_late_it_is_traced_as_before(traced):
    calls = []

    def build():
        calls.append(1)
        if len(calls) == 2:
            raise KeyError("only once")
        return lambda images: images

    if traced:
        tracemalloc.start()
    try:
        with pytest.raises(KeyError):
            peak_memory(build, np.zeros((10, 1)))
        assert tracemalloc.is_tracing() == traced
    finally:
        tracemalloc.stop()


def test_who_was_tracing_goes_on_and_changes_nothing():
    tracemalloc.start()
    try:
        held = megabytes(5)
        megabytes(20).sum()  # a peak of before
        found = peak_memory(model_of(2, 1), np.zeros((10, 1)))
        assert tracemalloc.is_tracing()
        del held
    finally:
        tracemalloc.stop()
    expect(found / MIB, 3.0, atol=0.1)


def test_garbage_of_before_does_not_make_up_for_it():
    """A cycle of before that is freed in between would be taken for room."""
    tracemalloc.start()
    try:
        for _ in range(4):
            cycle = [megabytes(4)]
            cycle.append(cycle)
        del cycle

        def build():
            calls.append(1)
            if len(calls) == 2:
                gc.collect()
            return model_of(2, 1)()

        calls = []
        assert peak_memory(build, np.zeros((10, 1))) / MIB > 2.9
    finally:
        tracemalloc.stop()


def test_a_module_is_weighed_with_its_parameters():
    """1024 x 512 weights in float32 are 2 MiB; drawing them takes less than as much again."""
    got = peak_memory(lambda: Linear(1024, 512, bias=False, rng=new()), np.zeros((4, 1024), np.float32)) / MIB
    assert 2 < got < 5


# 20.7 dominates, pareto_front


def test_better_in_one_and_worse_in_none_dominates():
    a = Metrics(0.5, 1.0, 100, 10)
    for better in (
        Metrics(0.6, 1.0, 100, 10),
        Metrics(0.5, 0.9, 100, 10),
        Metrics(0.5, 1.0, 99, 10),
        Metrics(0.5, 1.0, 100, 9),
    ):
        assert dominates(better, a)
        assert not dominates(a, better)
    assert dominates(Metrics(0.6, 0.9, 99, 9), a)


def test_nobody_dominates_his_equal_or_what_is_better_elsewhere():
    a = Metrics(0.5, 1.0, 100, 10)
    assert not dominates(a, Metrics(0.5, 1.0, 100, 10))
    for other in (Metrics(0.6, 1.1, 100, 10), Metrics(0.6, 0.5, 1, 11), Metrics(0.4, 0.5, 100, 10)):
        assert not dominates(a, other)
        assert not dominates(other, a)


def test_the_front_is_what_nobody_dominates_in_the_order_given():
    worst, small, exact, middle = (
        Metrics(0.5, 1.0, 100, 10),
        Metrics(0.5, 1.0, 100, 2),
        Metrics(0.9, 3.0, 300, 90),
        Metrics(0.7, 1.0, 100, 10),
    )
    given = [worst, exact, small, middle]
    assert pareto_front(given) == [exact, small, middle]
    assert given == [worst, exact, small, middle]
    assert pareto_front(iter(given)) == [exact, small, middle]
    assert pareto_front([middle, small, worst, exact]) == [middle, small, exact]
    assert pareto_front([worst]) == [worst]
    assert pareto_front([]) == []


def test_a_byte_more_is_more_and_a_hair_less_is_less():
    """2**26 bytes and one more are one number in float32."""
    best = Metrics(0.5, 1.0, 1e9, 1 << 26)
    for worse in (
        Metrics(0.5, 1.0, 1e9, (1 << 26) + 1),
        Metrics(0.5, 1.0, 1e9 + 1, 1 << 26),
        Metrics(0.5 - 1e-9, 1.0, 1e9, 1 << 26),
        Metrics(0.5, 1.0 + 1e-9, 1e9, 1 << 26),
    ):
        assert pareto_front([worse, best]) == [best]
        assert dominates(best, worse)


def test_equal_entries_stay_or_go_together():
    a, b, c = (Metrics(0.5, 1.0, 100, 10) for _ in range(3))
    front = pareto_front([a, b, Metrics(0.4, 1.0, 100, 10), c])
    assert [x is y for x, y in zip(front, (a, b, c), strict=True)] == [True] * 3
    assert pareto_front([a, b, Metrics(0.5, 1.0, 99, 10), c]) == [Metrics(0.5, 1.0, 99, 10)]


def test_entries_may_be_anything_that_has_a_key():
    asked = []

    def key(entry):
        asked.append(entry["name"])
        return entry["metrics"]

    entries = [{"name": i, "metrics": Metrics(0.5, 1 + i % 3, 100, 10 - i % 3)} for i in range(6)]
    entries.append({"name": 6, "metrics": Metrics(0.5, 3, 100, 10)})
    front = pareto_front(iter(entries), key)
    assert [entry["name"] for entry in front] == [0, 1, 2, 3, 4, 5]
    assert sorted(asked) == list(range(7))


# 20.8 hypervolume


def test_two_boxes_count_what_they_share_once():
    expect(hypervolume([[3, 1], [1, 3]], [0, 0]), 5.0)
    expect(hypervolume([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0]], [0.0, 0.0]), 6.0)
    expect(hypervolume([[3, 1], [3, 1]], [0, 0]), 3.0)


def test_a_box_begins_at_the_reference():
    expect(hypervolume([[3, 5, 4]], [1, 2, 3]), 6.0)
    expect(hypervolume(np.array([[2, 2, 2, 2]]), (1, 1, 1, 1)), 1.0)
    expect(hypervolume([[-1, -1]], [-3, -2]), 2.0)


def test_a_volume_of_whole_numbers_does_not_overflow():
    """8 GiB squared are 2**66, and the largest int64 is below 2**63."""
    expect(hypervolume([[1 << 33, 1 << 33]], [0, 0]), 2.0**66)
    expect(hypervolume(np.array([[200, 200]], np.uint8), np.zeros(2, np.uint8)), 40_000.0)


def test_on_a_line_the_farthest_counts():
    expect(hypervolume([[3], [7], [5]], [1]), 6.0)


def test_a_point_that_is_not_above_adds_nothing():
    expect(hypervolume([[2, 2], [9, 0], [0, 9], [9, -5], [1, 1]], [0, 0]), 4.0)
    expect(hypervolume([[9, 1, 1]], [1, 1, 1]), 0.0)


def test_no_points_have_no_volume():
    expect(hypervolume(np.zeros((0, 3)), np.zeros(3)), 0.0)


@pytest.mark.parametrize(
    ("points", "reference"), [((3, 2), (3,)), ((3,), (3,)), ((3, 2), (2, 1)), ((3, 0), (0,))], ids=str
)
def test_points_and_reference_must_fit(points, reference):
    with expect_error(ValueError, str(points), str(reference)):
        hypervolume(np.ones(points), np.zeros(reference))
