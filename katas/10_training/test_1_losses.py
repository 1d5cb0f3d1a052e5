"""Level 1: losses of numbers worked out by hand, and how good answers are."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect, expect_error
from tinytorch.tensor import Tensor
from tinytorch.training import accuracy, confusion_matrix, cross_entropy, mse_loss

steady = settings(deadline=None, derandomize=True, max_examples=30)
SEEDS = st.integers(0, 2**32 - 1)


def f32(*values):
    return np.array(values, np.float32)


# 10.1 mse_loss


@pytest.mark.parametrize(("reduction", "loss"), [("mean", 5.0), ("sum", 20.0)])
def test_squared_differences_are_averaged_over_all_elements(reduction, loss):
    """Of 1, 3, 1 and 3 the squares are 1, 9, 1 and 9, of two rows and two columns."""
    got = mse_loss(f32([1, 5], [0, 0]), f32([2, 2], [1, 3]), reduction=reduction)
    expect(got.data, np.array(loss, np.float32))


def test_the_mean_of_squared_differences_is_what_you_get_without_asking():
    expect(mse_loss(f32(1, 5, 0, 0), f32(2, 2, 1, 3)).data, np.array(5, np.float32))


def test_without_reduction_there_is_a_loss_for_each_element():
    expect(mse_loss(f32([1], [5]), f32([2], [2]), reduction="none").data, f32([1], [9]))


def test_predictions_and_targets_of_one_kind_of_number_keep_it():
    for dtype in (np.float32, np.float64):
        expect(mse_loss(np.ones(3, dtype), np.zeros(3, dtype)).data, np.array(1, dtype))


def test_integers_are_compared_as_floats():
    """In uint8, 1 - 2 would be 255."""
    loss = mse_loss(np.array([1, 4], np.uint8), np.array([2, 1], np.uint8), reduction="none").data
    expect(loss, f32(1, 9))


@pytest.mark.parametrize("shapes", [((4, 1), (4,)), ((4,), (4, 1)), ((2, 3), (3,)), ((2,), ())])
def test_shapes_that_would_broadcast_are_an_error_that_names_both(shapes):
    """(4, 1) against (4,) is (4, 4): sixteen differences, of which twelve are between strangers."""
    with expect_error(ValueError, *map(str, shapes)):
        mse_loss(np.zeros(shapes[0]), np.zeros(shapes[1]))


@pytest.mark.parametrize("loss", [mse_loss, lambda x, y, **how: cross_entropy(x, y.astype(int)[:, 0], **how)])
def test_an_unknown_reduction_is_an_error_that_names_it(loss):
    with expect_error(ValueError, "average"):
        loss(np.zeros((2, 1)), np.zeros((2, 1)), reduction="average")


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_nothing_has_no_mean_but_a_sum(shape):
    with expect_error(ValueError, str(shape)):
        mse_loss(np.zeros(shape), np.zeros(shape))
    expect(float(mse_loss(np.zeros(shape), np.zeros(shape), reduction="sum").data), 0.0)
    expect(mse_loss(np.zeros(shape), np.zeros(shape), reduction="none").shape, shape)


def test_rows_in_any_layout_give_the_same_loss(rng):
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    loss = sum((a - b) ** 2 for a, b in zip(x.ravel(), y.ravel(), strict=True)) / 24
    for way in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=0)[::2], lambda a: a[::-1][::-1]):
        expect(float(mse_loss(way(x), y).data), loss)


def test_inputs_stay_as_they_are(rng):
    x, y = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    labels = np.array([0, 3, 1])
    before = x.copy(), y.copy(), labels.copy()
    mse_loss(x, y)
    cross_entropy(x, labels, label_smoothing=0.1)
    for now, then in zip((x, y, labels), before, strict=True):
        expect(now, then)


# 10.3 cross_entropy

# Odds of 1 : 2 : 5, so that the softmax is 1/8, 2/8, 5/8; and of 1 : 1 : 2.
LOGITS = np.log([[1.0, 2.0, 5.0], [1.0, 1.0, 2.0]])


@pytest.mark.parametrize(
    ("labels", "losses"),
    [([0, 0], [math.log(8), math.log(4)]), ([2, 1], [math.log(8 / 5), math.log(4)])],
)
def test_the_loss_of_a_row_is_minus_the_logarithm_of_its_labels_probability(labels, losses):
    labels = np.array(labels)
    expect(cross_entropy(LOGITS, labels, reduction="none").data, np.array(losses))
    expect(float(cross_entropy(LOGITS, labels, reduction="sum").data), sum(losses))
    expect(float(cross_entropy(LOGITS, labels).data), sum(losses) / 2)


def test_smoothing_gives_every_class_its_share_the_label_too():
    """With 0.3, of three classes each gets 0.1, and the label 0.7 more."""
    loss = 0.8 * math.log(8) + 0.1 * math.log(8 / 2) + 0.1 * math.log(8 / 5)
    expect(float(cross_entropy(LOGITS[:1], np.array([0]), label_smoothing=0.3).data), loss)


@pytest.mark.parametrize("smoothing", [0.0, 0.25, 1.0])
def test_classes_that_are_all_alike_cost_the_logarithm_of_their_number(smoothing):
    logits = np.full((5, 4), 7.0)
    expect(float(cross_entropy(logits, np.arange(5) % 4, label_smoothing=smoothing).data), math.log(4))


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_large_logits_neither_overflow_nor_lose_digits(shift):
    logits = np.array([[0.0, 1000.0], [0.0, -1000.0], [2.0, 2.0]]) + shift
    with np.errstate(all="raise", under="ignore"):
        losses = cross_entropy(logits, np.array([0, 0, 1]), reduction="none").data
    expect(losses, np.array([1000.0, 0.0, math.log(2)]), atol=1e-9)


def test_a_loss_that_is_nearly_nothing_is_not_rounded_to_nothing():
    """log(1 + e-20) is 2e-9; log(0.999999998) would have half of its digits."""
    loss = cross_entropy(np.array([[20.0, 0.0]]), np.array([0])).data
    expect(float(loss), math.log1p(math.exp(-20)), rtol=1e-6)


def test_labels_may_be_a_list():
    logits = np.array([[0.0, 0.0], [0.0, math.log(3)]])
    expect(float(cross_entropy(logits, [0, 1]).data), (math.log(2) + math.log(4 / 3)) / 2)


def test_a_class_that_is_ruled_out_costs_nothing_unless_it_is_the_label():
    logits = np.array([[0.0, 0.0, -math.inf]])
    expect(float(cross_entropy(logits, np.array([1])).data), math.log(2))
    expect(float(cross_entropy(logits, np.array([2])).data), math.inf)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64])
def test_logits_keep_their_dtype_whatever_that_of_the_labels(dtype, kind):
    for how in ("mean", "sum", "none"):
        loss = cross_entropy(
            np.zeros((2, 4), dtype), np.array([0, 3], kind), label_smoothing=0.1, reduction=how
        )
        expect(loss.dtype, np.dtype(dtype))


def test_labels_may_be_a_tensor_and_need_no_gradient():
    expect(
        float(cross_entropy(Tensor(LOGITS), Tensor(np.array([0, 1]))).data), math.log(8) / 2 + math.log(4) / 2
    )


def test_more_classes_than_uint8_can_count_are_found_by_labels_in_uint16(rng):
    logits, labels = rng.normal(size=(3, 1000)), np.array([999, 300, 0], np.uint16)
    loss = np.log(np.exp(logits).sum(1)) - [logits[0, 999], logits[1, 300], logits[2, 0]]
    expect(cross_entropy(logits, labels, reduction="none").data, loss)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [((2, 3), (3,)), ((2, 3), (2, 3)), ((2, 3), (2, 1)), ((6,), (6,)), ((2, 3, 4), (2,)), ((2, 3), ())],
)
def test_shapes_that_do_not_fit_are_named(logits, labels):
    for judge in (cross_entropy, accuracy):
        with expect_error(ValueError, str(logits), str(labels)):
            judge(np.zeros(logits), np.zeros(labels, int))


@pytest.mark.parametrize("label", [-1, 3, 255])
def test_a_label_that_is_no_class_is_named(label):
    for labels in ([0, label, 1], [label, 2, 0]):
        with expect_error(ValueError, str(label)):
            cross_entropy(np.zeros((3, 3)), np.array(labels))


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, math.nan])
def test_a_smoothing_outside_of_0_to_1_is_named(smoothing):
    with expect_error(ValueError, str(smoothing)):
        cross_entropy(np.zeros((1, 3)), np.array([0]), label_smoothing=smoothing)


@pytest.mark.parametrize("dtype", [np.float32, np.bool_])
def test_labels_that_are_no_integers_are_a_type_error(dtype):
    with expect_error(TypeError, np.dtype(dtype).name):
        cross_entropy(np.zeros((2, 3)), np.zeros(2, dtype))


def test_no_rows_have_no_mean_but_a_sum():
    nobody = np.zeros(0, int)
    with expect_error(ValueError):
        cross_entropy(np.zeros((0, 3)), nobody)
    expect(float(cross_entropy(np.zeros((0, 3)), nobody, reduction="sum").data), 0.0)
    expect(cross_entropy(np.zeros((0, 3)), nobody, reduction="none").shape, (0,))


@steady
@given(SEEDS, st.integers(1, 6), st.integers(1, 5), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_cross_entropy_is_minus_the_sum_of_targets_times_log_probabilities(seed, rows, classes, smoothing):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(rows, classes)) * 5, rng.integers(0, classes, rows)
    losses = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total = sum(math.exp(x) for x in row)
        target = [(1 - smoothing) * (c == label) + smoothing / classes for c in range(classes)]
        losses.append(-sum(t * math.log(math.exp(x) / total) for t, x in zip(target, row, strict=True)))
    got = cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none").data
    expect(got, np.array(losses), atol=1e-9)
    expect(
        float(cross_entropy(logits, labels, label_smoothing=smoothing).data), sum(losses) / rows, atol=1e-9
    )


# 10.5 accuracy


def test_accuracy_is_the_part_of_rows_that_are_largest_at_their_label():
    logits = f32([0.1, 0.9, 0], [2, 1, 0], [-3, -2, -1], [5, 6, 7])
    expect(accuracy(logits, np.array([1, 0, 0, 2])), 0.75)
    expect(type(accuracy(Tensor(logits), Tensor(np.array([1, 0, 2, 2])))), float)
    expect(accuracy(Tensor(logits), Tensor(np.array([0, 1, 1, 0]))), 0.0)


def test_of_equals_the_first_is_the_answer():
    expect(accuracy(np.zeros((4, 3)), np.array([0, 1, 2, 0], np.uint8)), 0.5)


def test_nobody_has_no_accuracy():
    with expect_error(ValueError, "(0, 3)"):
        accuracy(np.zeros((0, 3)), np.zeros(0, int))


# 10.6 confusion_matrix


def test_a_row_says_what_a_class_was_taken_for():
    labels, answers = np.array([0, 0, 0, 1, 2, 2]), np.array([0, 1, 1, 1, 0, 2])
    expect(confusion_matrix(answers, labels, 3), np.array([[1, 2, 0], [0, 1, 0], [1, 0, 1]]))


def test_classes_that_never_come_have_rows_and_columns_of_zeros():
    table = np.zeros((5, 5), np.int64)
    table[3, 1] = 2
    expect(confusion_matrix(Tensor(np.array([1, 1])), Tensor(np.array([3, 3])), 5), table)


def test_small_integers_do_not_overflow():
    """Class 200 of 201 and class 199 make pair 40,399, which no uint8 can hold."""
    table = confusion_matrix(np.array([199], np.uint8), np.array([200], np.uint8), 201)
    expect(
        (table.shape, table.dtype, int(table[200, 199]), int(table.sum())),
        ((201, 201), np.dtype(np.int64), 1, 1),
    )


def test_answers_may_have_any_shape():
    """As of an image whose every pixel has a class."""
    answers, labels = np.array([[0, 1], [1, 1]]), np.array([[0, 1], [0, 0]])
    expect(confusion_matrix(answers, labels, 2), np.array([[1, 2], [0, 1]]))


def test_no_answers_make_a_table_of_zeros():
    expect(confusion_matrix(np.zeros(0, int), np.zeros(0, int), 2), np.zeros((2, 2), np.int64))


@pytest.mark.parametrize(("answers", "labels", "named"), [([0, 3], [0, 1], 3), ([0, 1], [-1, 2], -1)])
def test_a_number_that_is_no_class_is_named(answers, labels, named):
    with expect_error(ValueError, str(named)):
        confusion_matrix(np.array(answers), np.array(labels), 3)


@pytest.mark.parametrize("labels", [(3,), (2, 1), (1,)], ids=str)
def test_answers_and_labels_of_other_shapes_are_named(labels):
    """Also where numpy would stretch one to the other."""
    with expect_error(ValueError, "(2,)", str(labels)):
        confusion_matrix(np.zeros(2, int), np.zeros(labels, int), 3)


@steady
@given(SEEDS, st.integers(1, 5), st.integers(0, 40), st.sampled_from([np.uint8, np.int16, np.int64]))
def test_a_confusion_matrix_counts_pairs(seed, classes, rows, dtype):
    rng = np.random.default_rng(seed)
    labels, answers = rng.integers(0, classes, (2, rows)).astype(dtype)
    table = np.zeros((classes, classes), np.int64)
    for label, answer in zip(labels.tolist(), answers.tolist(), strict=True):
        table[label, answer] += 1
    expect(confusion_matrix(answers, labels, classes), table)
