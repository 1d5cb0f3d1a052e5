"""Level 1: one token from the logits of a row, and what processors make of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect, expect_error
from tinytorch.generation import RepetitionPenalty, Temperature, TopK, TopP, chain, greedy, sample
from tinytorch.tensor import Tensor

steady = settings(deadline=None, derandomize=True, max_examples=40)
SEEDS = st.integers(0, 2**32 - 1)
NOTHING = -np.inf
NO_IDS = np.zeros((1, 1), np.int64)


def f32(*rows):
    return np.array(rows, np.float32)


def shares(*rows):
    """Logits whose softmax is this."""
    with np.errstate(divide="ignore"):
        return np.log(np.array(rows))


# 15.1 greedy


def test_the_largest_logit_of_each_row_is_chosen():
    expect(greedy(f32([1, 5, 3], [-1, -5, -3], [0, 0, 1])), np.array([1, 0, 2]))


def test_of_equals_the_lowest_id_is_chosen():
    expect(greedy(f32([2, 7, 7, 7], [0, 0, 0, 0])), np.array([1, 0]))


def test_a_difference_that_float32_does_not_know_is_one():
    expect(greedy(np.array([[1.0, 1.0 + 1e-12, 1.0]])), np.array([1]))


def test_what_is_ruled_out_is_not_chosen():
    expect(greedy(f32([NOTHING, NOTHING, -1e30])), np.array([2]))


def test_a_tensor_of_logits_is_as_good_as_an_array():
    expect(greedy(Tensor(f32([1, 5, 3]))), np.array([1]))
    expect(sample(Tensor(f32([NOTHING, 5, NOTHING])), rng=np.random.default_rng(0)), np.array([1]))


def test_a_vocabulary_of_one_leaves_no_choice(rng):
    expect(greedy(f32([3], [4])), np.array([0, 0]))
    expect(sample(f32([3], [4]), rng=rng), np.array([0, 0]))


# 15.2 sample


def test_one_id_is_drawn_for_each_row(rng):
    got = sample(rng.normal(size=(5, 3)), rng=rng)
    assert got.shape == (5,)
    assert got.dtype.kind == "i"
    assert ((got >= 0) & (got < 3)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_certain_is_drawn_and_each_row_is_its_own(dtype, rng):
    logits = np.full((4, 4), NOTHING, dtype)
    logits[np.arange(4), [2, 0, 3, 1]] = [-500, 0, 700, 1e30]
    before = logits.copy()
    for _ in range(5):
        expect(sample(logits, rng=rng), np.array([2, 0, 3, 1]))
    greedy(logits)
    expect(logits, before)  # neither of them writes over what it is given


def test_what_is_ruled_out_is_never_drawn(rng):
    logits = np.tile(f32([NOTHING, 0, NOTHING, NOTHING, 1, NOTHING]), (5000, 1))
    assert set(sample(logits, rng=rng)) == {1, 4}


def test_a_generator_in_the_same_state_draws_the_same(rng):
    logits = rng.normal(size=(50, 9))
    first, second = (sample(logits, rng=np.random.default_rng(3)) for _ in range(2))
    expect(first, second)
    assert (sample(logits, rng=np.random.default_rng(4)) != first).any(), "the generator decides nothing"


def test_rows_of_equal_logits_draw_independently(rng):
    """Of 3,000 rows with ten equally likely ids, all get one: a single number for all rows draws one."""
    got = sample(np.zeros((3000, 10)), rng=rng)
    assert set(got) == set(range(10))
    assert (got[1:] != got[:-1]).mean() > 0.5


def test_only_differences_of_logits_matter_however_large_they_are():
    """exp(1000) is more than a float can be, exp(-1000) less."""
    for offset in (0.0, 1000.0, -1000.0):
        logits = np.tile([[0.0, 1.0, 2.0]], (20, 1)) + offset
        got = sample(logits, rng=np.random.default_rng(8))
        if not offset:
            first = got
        expect(got, first)


@pytest.mark.parametrize(
    "row", [[NOTHING] * 3, [0.0, np.nan, 1.0], [np.nan] * 3], ids=["all ruled out", "a nan", "all nan"]
)
def test_a_row_from_which_nothing_can_be_drawn_is_an_error_that_names_it(row, rng):
    logits = np.array([[1.0, 2.0, 3.0], row, [1.0, 2.0, 3.0]])
    with expect_error(ValueError, "1"):
        sample(logits, rng=rng)


# 15.3 Temperature, chain


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_temperature_divides(dtype):
    logits = np.array([[1, -2, 4], [NOTHING, 0, 8]], dtype)
    expect(Temperature(2)(logits, NO_IDS), np.array([[0.5, -1, 2], [NOTHING, 0, 4]], dtype))
    for half in (0.5, np.float64(0.5), np.float32(0.5)):
        expect(Temperature(half)(logits, NO_IDS), np.array([[2, -4, 8], [NOTHING, 0, 16]], dtype))


@pytest.mark.parametrize("t", [0, 0.0, -1.0, np.nan])
def test_a_temperature_that_is_not_above_zero_is_an_error_that_names_it(t):
    expect(Temperature(1.0)(f32([3, 4]), NO_IDS), f32([3, 4]))
    with expect_error(ValueError, str(t)):
        Temperature(t)


def test_a_chain_goes_from_the_first_to_the_last():
    """Of [1/2, 1/4, 1/4] four tenths are the first; but at a temperature of a million all are alike."""
    logits = shares([0.5, 0.25, 0.25])
    expect(chain(TopP(0.4), Temperature(1e6))(logits, NO_IDS)[0] > NOTHING, np.array([True, False, False]))
    hot_first = chain(Temperature(1e6), TopP(0.4))(logits, NO_IDS)[0]
    expect(hot_first > NOTHING, np.array([True, True, True]))


def test_a_chain_hands_the_ids_to_every_processor():
    seen = []

    def spy(logits, ids):
        seen.append(ids.tolist())
        return logits + 1

    expect(chain(spy, Temperature(2.0), spy)(f32([1, 3]), np.array([[4, 5]])), f32([2, 3]))
    expect(seen, [[[4, 5]], [[4, 5]]])


def test_a_chain_of_nothing_changes_nothing():
    expect(chain()(f32([1, 3]), NO_IDS), f32([1, 3]))


# 15.4 RepetitionPenalty


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_was_said_becomes_less_likely_on_either_side_of_zero(dtype):
    logits = np.array([[4, -4, 6, 0, NOTHING], [4, -4, 6, 0, 1]], dtype)
    for two in (2.0, np.float64(2.0), np.float32(2.0)):
        got = RepetitionPenalty(two)(logits, np.array([[0, 1], [3, 4]]))
        expect(got, np.array([[2, -8, 6, 0, NOTHING], [4, -4, 6, 0, 0.5]], dtype))


def test_what_was_said_often_is_penalised_once():
    got = RepetitionPenalty(2.0)(f32([8, 8, -8]), np.array([[0, 0, 0, 2, 2]]))
    expect(got, f32([4, 8, -16]))


def test_a_penalty_below_one_invites_repetition_and_one_changes_nothing():
    logits, ids = f32([4, -4]), np.array([[0, 1]])
    expect(RepetitionPenalty(0.5)(logits, ids), f32([8, -2]))
    expect(RepetitionPenalty(1.0)(logits, ids), logits)


@pytest.mark.parametrize("penalty", [0, -1.5, np.nan])
def test_a_penalty_that_is_not_above_zero_is_an_error_that_names_it(penalty):
    expect(RepetitionPenalty(1.0)(f32([3, 4]), NO_IDS), f32([3, 4]))
    with expect_error(ValueError, str(penalty)):
        RepetitionPenalty(penalty)


# 15.5 TopK


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_k_largest_stay_and_the_rest_is_ruled_out(dtype):
    logits = np.array([[1, 9, 3, 7], [-1, -9, -3, -7]], dtype)
    got = TopK(2)(logits, NO_IDS)
    expect(got, np.array([[NOTHING, 9, NOTHING, 7], [-1, NOTHING, -3, NOTHING]], dtype))


def test_what_equals_the_last_one_that_stays_stays_too():
    got = TopK(2)(f32([5, 3, 3, 1, 3]), NO_IDS)
    expect(got, f32([5, 3, 3, NOTHING, 3]))


@pytest.mark.parametrize("k", [3, 4, 1000])
def test_a_k_of_the_vocabulary_or_more_leaves_all(k):
    expect(TopK(k)(f32([5, 3, 1]), NO_IDS), f32([5, 3, 1]))


def test_a_k_of_one_leaves_the_greedy_choice():
    expect(TopK(1)(f32([5, 9, 1]), NO_IDS), f32([NOTHING, 9, NOTHING]))


def test_what_was_ruled_out_before_stays_so():
    expect(TopK(3)(f32([5, NOTHING, NOTHING, 1]), NO_IDS), f32([5, NOTHING, NOTHING, 1]))


@pytest.mark.parametrize("k", [0, -2])
def test_a_k_below_one_is_an_error_that_names_it(k):
    expect(TopK(2)(f32([3, 4]), NO_IDS), f32([3, 4]))
    with expect_error(ValueError, str(k)):
        TopK(k)


@steady
@given(SEEDS, st.integers(1, 4), st.integers(1, 9), st.integers(1, 10))
def test_top_k_is_what_a_sorted_row_says(seed, rows, vocab, k):
    logits = np.random.default_rng(seed).integers(-4, 4, (rows, vocab)) / 8
    got = TopK(k)(logits, NO_IDS)
    for row, kept in zip(logits.tolist(), got.tolist(), strict=True):
        least = sorted(row, reverse=True)[:k][-1]
        expect(kept, [x if x >= least else NOTHING for x in row])


# 15.6 TopP


@pytest.mark.parametrize(
    ("p", "stay"), [(0.01, 1), (0.49, 1), (0.51, 2), (0.74, 2), (0.76, 3), (0.87, 3), (0.89, 4), (1, 4)]
)
def test_the_fewest_stay_that_have_p_together(p, stay):
    """Of shares of 1/2, 1/4, 1/8 and 1/8 and a bit less."""
    logits = shares([0.12, 0.25, 0.5, 0.13])
    order = [2, 1, 3, 0]
    kept = np.isin(np.arange(4), order[:stay])
    expect(TopP(p)(logits, NO_IDS), np.where(kept, logits, NOTHING))


def test_each_row_keeps_as_many_as_it_needs():
    """The point of it: one token where the model is sure, many where it is not."""
    logits = shares([0.97, 0.01, 0.01, 0.01], [0.25, 0.26, 0.24, 0.25])
    expect((TopP(0.9)(logits, NO_IDS) > NOTHING).sum(axis=1), np.array([1, 4]))


def test_what_is_as_likely_as_the_last_one_stays_too():
    expect(TopP(0.75)(f32([0, 2, 0, 0, -9]), NO_IDS), f32([0, 2, 0, 0, NOTHING]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_top_p_keeps_the_kind_of_number(dtype):
    assert TopP(0.5)(np.ones((2, 3), dtype), NO_IDS).dtype == dtype


def test_a_p_of_one_leaves_all_even_what_rounding_would_lose():
    """exp(-60) is 1e-26: added to 1 it is gone, but it is not impossible."""
    expect(TopP(1.0)(np.array([[0.0, -60.0, NOTHING]]), NO_IDS), np.array([[0.0, -60.0, NOTHING]]))


def test_a_p_of_nearly_one_is_not_one():
    logits = shares([0.9996, 0.0003, 0.0001])
    expect((TopP(0.9995)(logits, NO_IDS) > NOTHING).sum(), np.int64(1))
    expect((TopP(0.9998)(logits, NO_IDS) > NOTHING).sum(), np.int64(2))


def test_top_p_holds_for_logits_of_any_size():
    for offset in (800.0, -800.0):
        logits = shares([0.1, 0.6, 0.3]) + offset
        expect(TopP(0.7)(logits, NO_IDS) > NOTHING, np.array([[False, True, True]]))


def test_what_was_ruled_out_before_has_no_share():
    """Among what is left, 6/7 and 1/7, not 0.6 and 0.1 of all."""
    logits = shares([0.6, 0.3, 0.1])
    logits[0, 1] = NOTHING
    expect(TopP(0.8)(logits, NO_IDS) > NOTHING, np.array([[True, False, False]]))


@pytest.mark.parametrize("p", [0, -0.1, 1.01, np.nan])
def test_a_p_that_is_no_share_is_an_error_that_names_it(p):
    expect(TopP(1.0)(f32([3, 4]), NO_IDS), f32([3, 4]))
    with expect_error(ValueError, str(p)):
        TopP(p)


@steady
@given(SEEDS, st.integers(1, 4), st.integers(1, 9))
def test_top_p_is_what_a_loop_over_a_sorted_row_says(seed, rows, vocab):
    rng = np.random.default_rng(seed)
    logits, p = rng.normal(size=(rows, vocab)) * 2, float(rng.uniform(0.05, 0.95))
    got = TopP(p)(logits, NO_IDS)
    for row, kept in zip(logits, got, strict=True):
        share = np.exp(row) / np.exp(row).sum()
        total, stay = 0.0, set()
        for i in np.argsort(-row):
            stay.add(i)
            total += share[i]
            if total >= p:
                break
        expect(kept, np.where(np.isin(np.arange(vocab), list(stay)), row, NOTHING))


# 15.3 to 15.6: all processors

PROCESSORS = {
    "temperature": lambda: Temperature(0.5),
    "penalty": lambda: RepetitionPenalty(1.5),
    "top k": lambda: TopK(2),
    "top p": lambda: TopP(0.5),
    "chain": lambda: chain(Temperature(0.5), TopK(2)),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_processor_leaves_what_it_is_given_as_it_is(name, rng):
    logits, ids = rng.normal(size=(3, 5)), rng.integers(0, 5, (3, 4))
    before = logits.copy(), ids.copy()
    PROCESSORS[name]()(logits, ids)
    expect(logits, before[0])
    expect(ids, before[1])


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_processor_remembers_no_text_and_takes_nothing_back(name, rng):
    """Texts may be written in turns with the same processor; and what it returned is the caller's."""
    logits, other = rng.normal(size=(2, 1, 6))
    short, long = np.array([[0, 1]]), np.array([[2, 3, 2, 3]])
    process = PROCESSORS[name]()
    first = process(logits, short)
    before, wanted = first.copy(), PROCESSORS[name]()(other, long).copy()
    expect(process(other, long), wanted)
    expect(first, before)


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_processor_takes_rows_in_any_layout(name, rng):
    """Reversed, every other, by columns and read-only."""
    plain, ids = rng.normal(size=(3, 5)), rng.integers(0, 5, (3, 4))
    wanted = PROCESSORS[name]()(plain, ids)
    wide = np.empty((6, 10))
    wide[::2, ::2] = plain
    shown = plain.copy()
    shown.flags.writeable = False
    for logits in (np.asfortranarray(plain), wide[::2, ::2], plain[::-1].copy()[::-1], shown):
        expect(PROCESSORS[name]()(logits, ids), wanted)


@pytest.mark.parametrize("name", PROCESSORS)
def test_rows_do_not_see_each_other(name, rng):
    logits, ids = rng.normal(size=(4, 6)), rng.integers(0, 6, (4, 3))
    process = PROCESSORS[name]()
    for i in range(4):
        expect(process(logits, ids)[i : i + 1], process(logits[i : i + 1], ids[i : i + 1]))
