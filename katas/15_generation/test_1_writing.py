"""Level 1: what a model writes, token by token, beside what it should write, reckoned by hand.

The model is a toy (see probes.py) whose logits a test can work out: they depend on every id that it sees and
on its position, so that a wrong window, mask, position or cache shows.
"""

import contextlib
import itertools
import types

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from dojo.measuring import load_probes
from tinytorch import autograd
from tinytorch.generation import (
    Reader,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
    beam_search,
    generate,
    left_padded,
    stream,
    text_stream,
    window_start,
)
from tinytorch.tensor import Tensor
from tinytorch.tokenization import BPETokenizer, CharTokenizer

probes = load_probes(__file__)
Toy, by_hand = probes.Toy, probes.by_hand
CACHED = pytest.mark.parametrize("use_cache", [True, False], ids=["with a cache", "without"])


# 15.7 window_start


@pytest.mark.parametrize(
    ("context", "starts"),
    [
        (8, [0] * 9 + [4] * 4 + [8] * 4 + [12]),
        (5, [0] * 6 + [2, 2, 4, 4, 6, 6]),
        (2, [0, 0, 0, 1, 2, 3]),
        (1, [0, 0, 1, 2, 3, 4]),
    ],
)
def test_a_full_window_moves_by_half_of_itself(context, starts):
    expect([int(window_start(length, context)) for length in range(len(starts))], starts)


def test_the_windows_of_many_rows_are_found_at_once():
    expect(window_start(np.array([3, 8, 9, 13, 100]), 8), np.array([0, 0, 4, 8, 92]))


def test_a_prompt_of_any_length_leaves_a_window_that_fits_and_is_more_than_half_full():
    for context, length in itertools.product((1, 2, 3, 7, 64), range(1, 200)):
        size = length - int(window_start(length, context))
        assert min(length, context - context // 2) <= size <= context, (context, length, size)


# 15.8 left_padded


def test_rows_are_moved_to_the_right_and_their_first_id_fills_what_is_left():
    ids = np.array([[5, 6, 0, 0], [1, 2, 3, 4], [9, 0, 0, 0]])
    moved, padding = left_padded(ids, [2, 4, 1])
    expect(moved, np.array([[5, 5, 5, 6], [1, 2, 3, 4], [9, 9, 9, 9]]))
    expect(padding, np.array([2, 0, 3]))


def test_without_lengths_all_is_real():
    moved, padding = left_padded([[5, 0], [0, 7]])
    expect(moved, np.array([[5, 0], [0, 7]]))
    expect(padding, np.array([0, 0]))


def test_ids_of_any_kind_of_integer_become_int64_and_stay_themselves():
    ids = np.array([[5, 6, 0]], np.uint16)
    moved, _ = left_padded(Tensor(ids), np.array([2]))
    expect(moved, np.array([[5, 5, 6]]))
    moved[...] = 1
    expect(ids, np.array([[5, 6, 0]], np.uint16))
    lengths = np.array([2])
    for whole, length in ((np.array([[5, 6, 0]]), None), (np.array([[5, 6, 0]]), lengths)):
        left_padded(whole, length)[0][...] = 1
        expect((whole, lengths), (np.array([[5, 6, 0]]), np.array([2])))
    expect(left_padded(whole, np.array([2], np.uint8))[1], np.array([1]))
    large = np.array([[1 << 40, 2]])
    expect(left_padded(large)[0], large)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 0), (1, 2, 3)], ids=str)
def test_ids_that_are_no_rows_are_an_error_that_names_their_shape(shape):
    for call in (left_padded, lambda ids: generate(Toy(), ids, 1), lambda ids: list(stream(Toy(), ids, 1))):
        with expect_error(ValueError, str(shape)):
            call(np.zeros(shape, np.int64))


def test_ids_that_are_no_integers_are_an_error():
    with expect_error(TypeError, "float64"):
        left_padded(np.zeros((1, 2)))


@pytest.mark.parametrize("lengths", [[0, 2], [4, 2], [2, -1]], ids=str)
def test_a_length_that_a_row_cannot_have_is_an_error_that_names_it(lengths):
    wrong = next(n for n in lengths if not 1 <= n <= 3)
    with expect_error(ValueError, str(wrong), "3"):
        left_padded(np.zeros((2, 3), np.int64), lengths)


def test_lengths_of_other_rows_are_an_error_that_names_the_shapes():
    with expect_error(ValueError, "(2, 3)", "(3,)"):
        left_padded(np.zeros((2, 3), np.int64), [1, 2, 3])


# 15.9 Reader


def none(rows):
    return np.zeros(rows, np.int64)


@CACHED
def test_a_reader_gives_the_logits_after_the_last_column(use_cache, rng):
    toy, ids = Toy(), rng.integers(0, 7, (3, 6))
    reader = Reader(toy, none(3), use_cache)
    for end in (4, 5, 6):
        got = reader.read(ids[:, :end])
        assert isinstance(got, np.ndarray)
        expect(got, np.stack([toy.after(row[:end]) for row in ids]))


def test_with_a_cache_each_column_is_read_once(rng):
    toy, ids = Toy(), rng.integers(0, 7, (3, 8))
    reader = Reader(toy, none(3))
    for end in (4, 5, 8):
        reader.read(ids[:, :end])
    expect(toy.fed, [(3, 4), (3, 1), (3, 3)])


def test_without_a_cache_the_model_is_given_none_and_all_of_the_window(rng):
    toy, ids = Toy(context=4), rng.integers(0, 7, (1, 6))
    toy.new_caches = lambda: pytest.fail("nobody wanted a cache")
    reader = Reader(toy, none(1), use_cache=False)
    for end in (3, 4, 5, 6):
        reader.read(ids[:, :end])
    expect(toy.fed, [(1, 3), (1, 4), (1, 3), (1, 4)])


@CACHED
def test_beyond_the_context_the_window_hops_and_is_read_anew(use_cache, rng):
    toy, ids = Toy(context=6), rng.integers(0, 7, (2, 30))
    reader = Reader(toy, none(2), use_cache)
    for end in range(3, 31):
        start = max(0, -((6 - end) // 3)) * 3
        expect(reader.read(ids[:, :end]), np.stack([toy.after(row[start:end]) for row in ids]))
    if use_cache:  # one column at a time; but 3 at first, and 4 when the window has hopped: at 7, 10, 13 ...
        expect([columns for _, columns in toy.fed], [3] + [1, 1, 1] + [4, 1, 1] * 8)


@CACHED
@pytest.mark.parametrize("context", [6, 12])
def test_padding_is_not_seen_and_positions_count_from_the_first_token(use_cache, context, rng):
    """Each row's window is its own: with 5 columns of padding a row of 9 has 4."""
    toy, ids, padding = Toy(context=context), rng.integers(0, 7, (4, 20)), np.array([0, 5, 2, 7])
    reader = Reader(toy, padding, use_cache)
    for end in range(8, 21):
        got = reader.read(ids[:, :end])
        for row, first, logits in zip(ids, padding, got, strict=True):
            start = first + max(0, -((context - (end - first)) // (context // 2))) * (context // 2)
            expect(logits, toy.after(row[start:end]))


def test_rows_can_be_chosen_again_and_again(rng):
    """As beam search does: twice row 2, then row 0; and then the first two of these."""
    toy, ids, padding = Toy(context=6), rng.integers(0, 7, (3, 4)), np.array([0, 1, 2])
    reader = Reader(toy, padding)
    reader.read(ids)
    for rows in ([2, 2, 0], [0, 1], [1]):
        reader.select(np.array(rows))
        ids = np.concatenate([ids[rows], rng.integers(0, 7, (len(rows), 1))], axis=1)
        padding = padding[rows]
        got, end = reader.read(ids), ids.shape[1]
        for row, first, logits in zip(ids, padding, got, strict=True):
            expect(logits, toy.after(row[first + (3 if end - first > 6 else 0) :]))
    assert [columns for _, columns in toy.fed[1:3]] == [1, 1], "the cache was not kept"


@CACHED
def test_a_choice_of_rows_holds_when_the_window_moves(use_cache, rng):
    toy, ids = Toy(context=4), rng.integers(0, 7, (2, 4))
    reader = Reader(toy, np.array([0, 2]), use_cache)
    reader.read(ids)
    reader.select(np.array([1]))
    ids = np.concatenate([ids[[1]], rng.integers(0, 7, (1, 3))], axis=1)
    expect(reader.read(ids)[0], toy.after(ids[0, 4:]))


@CACHED
def test_while_reading_nothing_trains_and_nothing_is_recorded(use_cache, rng):
    toy = Toy()
    toy.train()
    Reader(toy, none(1), use_cache).read(np.array([[1, 2]]))
    expect(toy.states, [(False, False)])
    assert toy.training
    assert autograd.is_grad_enabled()


def test_a_model_that_does_not_train_does_not_afterwards(rng):
    toy = Toy()
    toy.eval()
    Reader(toy, none(1)).read(np.array([[1, 2]]))
    assert not toy.training


@CACHED
@pytest.mark.parametrize("training", [(True, False), (False, True)], ids=["all but a part", "a part alone"])
def test_each_part_of_a_model_is_left_in_its_own_mode(training, use_cache):
    """A part may be frozen in evaluation while the rest trains, and the other way round."""
    toy = Toy().with_part()
    toy.training, toy.part.training = training
    Reader(toy, none(1), use_cache).read(np.array([[1, 2]]))
    expect(toy.states, [(False, False)])
    expect((toy.training, toy.part.training), training)


@CACHED
def test_a_model_that_fails_is_left_in_its_own_mode(use_cache):
    toy = Toy().train()
    with pytest.raises(IndexError):  # the toy has seven ids
        Reader(toy, none(1), use_cache).read(np.array([[1, 99]]))
    assert toy.training
    assert autograd.is_grad_enabled()


def test_what_is_read_is_not_changed(rng):
    toy, ids = Toy(context=4), rng.integers(0, 7, (2, 6))
    ids.flags.writeable = False
    padding = np.array([0, 3])
    padding.flags.writeable = False
    reader = Reader(toy, padding)
    reader.read(ids[:, :4])
    reader.read(ids)


# 15.10 stream


def test_a_stream_gives_one_id_for_each_row_and_step():
    toy, ids = Toy(), np.array([[1, 2], [3, 4]])
    got = list(stream(toy, ids, 3))
    assert [one.shape for one in got] == [(2,)] * 3
    expect(np.stack(got, axis=1), np.array([by_hand(toy, row, 3)[2:] for row in ids]))


def test_a_stream_asks_the_model_only_when_it_is_asked():
    toy = Toy()
    tokens = stream(toy, np.array([[1, 2]]), 5)
    assert isinstance(tokens, types.GeneratorType) or iter(tokens) is tokens
    expect(toy.fed, [])
    next(tokens)
    expect(toy.fed, [(1, 2)])
    next(tokens)
    expect(toy.fed, [(1, 2), (1, 1)])


def test_between_tokens_the_model_may_train_and_operations_are_recorded():
    """A `no_grad` around a `yield` would reach whoever is asking."""
    toy = Toy()
    toy.train()
    tokens = stream(toy, np.array([[1, 2]]), 5)
    for _ in range(2):
        next(tokens)
        assert autograd.is_grad_enabled(), "nothing is recorded while a stream is open"
        assert toy.training, "the model stays in evaluation while a stream is open"
    del tokens
    expect(set(toy.states), {(False, False)})


def test_what_a_stream_gave_is_the_callers_to_change():
    toy, ids = Toy(), np.array([[1, 2]])
    got = []
    for one in stream(toy, ids, 4):
        got.append(int(one[0]))
        one[...] = 0
    expect([1, 2, *got], by_hand(toy, ids[0], 4))


def test_a_stream_ends_when_every_row_has_stopped():
    toy, ids = Toy(), np.array([[1, 2], [3, 4], [5, 6]])
    alone = [by_hand(toy, row, 9)[2:] for row in ids]
    stop = [row[3] for row in alone]
    wanted = [by_hand(toy, row, 9, stop=stop)[2:] for row in ids]
    got = np.stack(list(stream(toy, ids, 9, stop=stop, pad_id=0)), axis=1)
    assert got.shape[1] == max(map(len, wanted)) < 9
    expect(len(toy.fed), got.shape[1])  # and the model is not asked any more
    for row, alone in zip(got.tolist(), wanted, strict=True):
        expect(row[: len(alone)], alone)


def test_streams_of_one_model_do_not_know_of_each_other():
    """Tokens of two texts, asked for in turns."""
    toy, prompts = Toy(), ([1, 2], [6, 5, 4])
    streams = [stream(toy, np.array([prompt]), 5) for prompt in prompts]
    got = [[int(one[0]), int(other[0])] for one, other in zip(*streams, strict=True)]
    wanted = [by_hand(toy, prompt, 5)[len(prompt) :] for prompt in prompts]
    expect(np.array(got).T, np.array(wanted))


def test_no_tokens_are_no_steps():
    toy = Toy()
    expect(list(stream(toy, np.array([[1, 2]]), 0)), [])
    expect(generate(toy, np.array([[1, 2]]), 0), np.array([[1, 2]]))


# 15.11 generate


@CACHED
def test_the_likeliest_token_is_taken_each_time(use_cache):
    toy, ids = Toy(), np.array([[1, 2, 3], [6, 5, 4]])
    got = generate(toy, ids, 6, use_cache=use_cache)
    expect(got, np.array([by_hand(toy, row, 6) for row in ids]))


@CACHED
def test_a_text_may_grow_beyond_the_context(use_cache):
    for context in (1, 2, 5, 8):
        toy, ids = Toy(context=context), np.array([[1, 2, 3], [6, 5, 4]])
        got = generate(toy, ids, 20, use_cache=use_cache)
        expect(got, np.array([by_hand(toy, row, 20) for row in ids]))


@CACHED
def test_a_prompt_may_be_longer_than_the_context(use_cache, rng):
    toy, ids = Toy(context=5), rng.integers(0, 7, (2, 23))
    expect(generate(toy, ids, 4, use_cache=use_cache), np.array([by_hand(toy, row, 4) for row in ids]))


@CACHED
def test_prompts_of_several_lengths_are_continued_as_each_would_be_alone(use_cache):
    toy, ids = Toy(), np.array([[1, 2, 0, 0], [6, 5, 4, 3], [2, 0, 0, 0]])
    got = generate(toy, ids, 5, lengths=[2, 4, 1], pad_id=0, use_cache=use_cache)
    expect(got[:, :4], np.array([[0, 0, 1, 2], [6, 5, 4, 3], [0, 0, 0, 2]]))
    for row, length, new in zip(ids, [2, 4, 1], got[:, 4:], strict=True):
        expect(new, np.array(by_hand(toy, row[:length], 5)[length:]))


def test_without_a_pad_id_padding_is_the_first_id_of_its_row():
    got = generate(Toy(), np.array([[1, 2, 0, 0], [6, 5, 4, 3]]), 1, lengths=[2, 4])
    expect(got[:, :4], np.array([[1, 1, 1, 2], [6, 5, 4, 3]]))


def stopping():
    """A toy; what it writes after [1, 2] and [3, 4]; and a place in the first text at which there is a token
    that neither the first has before nor the second anywhere."""
    for seed in itertools.count():
        toy = Toy(vocab=12, seed=seed)
        one, other = (by_hand(toy, row, 8)[2:] for row in ([1, 2], [3, 4]))
        for place in range(2, 6):
            if one[place] not in [*one[:place], *other, 0, 1, 2, 11]:
                return toy, one, other, place
    return None


@CACHED
def test_a_row_that_has_stopped_is_filled_up(use_cache):
    """Row 0 stops after some tokens; row 1 goes on to the end."""
    toy, one, other, place = stopping()
    for pad_id, filler in ((None, one[place]), (0, 0), (11, 11)):
        got = generate(
            toy, np.array([[1, 2], [3, 4]]), 8, stop=[one[place]], pad_id=pad_id, use_cache=use_cache
        )
        expect(got[0], np.array([1, 2, *one[: place + 1], *[filler] * (7 - place)]))
        expect(got[1], np.array([3, 4, *other]))


def test_a_row_is_filled_up_with_the_token_that_it_stopped_with_and_no_other():
    """Of two that stop it was one; the toy has no 99."""
    toy, one, _, place = stopping()
    for stop in ([one[place], 99], [99, one[place]]):
        got = generate(toy, np.array([[1, 2], [3, 4]]), 8, stop=stop)
        expect(got[0], np.array([1, 2, *one[:place], *[one[place]] * (8 - place)]))


def test_the_token_that_stops_is_part_of_the_text_and_the_last():
    toy, one, _, place = stopping()
    got = generate(toy, np.array([[1, 2]]), 8, stop=(one[place], one[place + 1]))
    expect(got[0], np.array([1, 2, *one[: place + 1]]))


@pytest.mark.parametrize("kind", [tuple, set, iter, np.array], ids=lambda kind: kind.__name__)
def test_tokens_that_stop_may_come_in_anything_that_can_be_gone_through(kind):
    """Once, too: an iterator is empty after that."""
    toy, one, _, place = stopping()
    got = generate(toy, np.array([[1, 2]]), 8, stop=kind([one[place]]))
    expect(got[0], np.array([1, 2, *one[: place + 1]]))
    [(ids, _)] = beam_search(toy, [1, 2], 8, 1, stop=kind([one[place]]))
    expect(ids, np.array([1, 2, *one[: place + 1]]))


def test_a_stop_token_in_the_prompt_stops_nothing():
    toy, one, _, place = stopping()
    got = generate(toy, np.array([[one[place], 1, one[place]]]), 3, stop=[one[place]])
    expect(got[0], np.array(by_hand(toy, [one[place], 1, one[place]], 3, stop=[one[place]])))
    assert got.shape[1] > 3


def test_a_filler_that_is_a_stop_token_changes_nothing_for_the_others():
    toy, one, other, place = stopping()
    got = generate(toy, np.array([[1, 2], [3, 4]]), 8, stop=[one[place]], pad_id=one[place])
    expect(got[1], np.array([3, 4, *other]))


def test_a_row_that_has_stopped_is_not_woken_by_its_filler():
    """Row 1 stops long after row 0, whose filler is none of the tokens that stop."""
    toy, one, other, place = stopping()
    stop = [one[place], other[-1]]
    got = generate(toy, np.array([[1, 2], [3, 4]]), 20, stop=stop, pad_id=0)
    expect(got[1], np.array(by_hand(toy, [3, 4], 20, stop=stop)))
    expect(got[0, 2 + place + 1 :], np.zeros(got.shape[1] - place - 3, np.int64))


@CACHED
def test_processors_see_all_ids_so_far_and_bend_the_logits_in_their_order(use_cache):
    """Beyond the context too: what was said stays said."""
    toy, ids, seen = Toy(context=4), np.array([[1, 2]]), []

    def forbid(logits, ids):
        seen.append(ids.tolist())
        out = logits.copy()
        out[:, 3] = -np.inf
        return out

    def see(logits, row):
        logits = np.where(np.isin(np.arange(7), row), np.where(logits > 0, logits / 4, logits * 4), logits)
        logits[3] = -np.inf
        return logits

    got = generate(toy, ids, 7, processors=[RepetitionPenalty(4.0), forbid], use_cache=use_cache)
    wanted = by_hand(toy, [1, 2], 7, see=see)
    expect(got[0], np.array(wanted))
    expect(seen, [[wanted[:n]] for n in range(2, 9)])


def test_the_padding_of_a_row_is_nothing_that_was_said():
    """Id 0 stands in the padding; a penalty on it would change what rows 0 and 2 say."""
    toy, ids = Toy(vocab=5), np.array([[1, 2, 0, 0], [4, 3, 2, 1], [2, 0, 0, 0]])
    penalty = RepetitionPenalty(50.0)

    def see(logits, row):
        return penalty(logits[None], np.array([row]))[0]

    got = generate(toy, ids, 6, lengths=[2, 4, 1], pad_id=0, processors=[penalty])
    for row, length, new in zip(ids, [2, 4, 1], got[:, 4:], strict=True):
        expect(new, np.array(by_hand(toy, row[:length], 6, see=see)[length:]))


def test_with_a_generator_tokens_are_drawn():
    """As often as the processors allow: of two that may come, both come, and a third never."""
    toy, ids = Toy(), np.tile([[1, 2]], (200, 1))
    first = generate(toy, ids, 1, rng=np.random.default_rng(0), processors=[TopK(2), Temperature(9.0)])
    likely = set(np.argsort(toy.after([1, 2]))[-2:].tolist())
    assert set(first[:, 2].tolist()) == likely
    again = generate(toy, ids, 1, rng=np.random.default_rng(0), processors=[TopK(2), Temperature(9.0)])
    expect(again, first)


def test_a_generator_goes_on_from_text_to_text(rng):
    """Forty equal draws of one id of seven in a row would be rarer than 1 in 10 ** 20."""
    toy, ids = Toy(), np.tile([[1, 2]], (40, 1))
    first, second = (generate(toy, ids, 2, rng=rng, processors=[Temperature(1e6)]) for _ in range(2))
    assert (first != second).any(), "the same generator draws the same again"


def test_a_generator_with_one_choice_left_is_greedy(rng):
    toy, ids = Toy(), np.array([[1, 2, 3]])
    for process in (TopK(1), TopP(1e-9)):
        got = generate(toy, ids, 6, rng=rng, processors=[process])
        expect(got[0], np.array(by_hand(toy, ids[0], 6)))


@pytest.mark.parametrize(
    "write",
    [
        lambda toy: list(stream(toy, np.array([[1, 2]]), 5, use_cache=False)),
        lambda toy: generate(toy, np.array([[1, 2]]), 5, use_cache=False),
        lambda toy: beam_search(toy, np.array([[1, 2]]), 5, 2, use_cache=False),
    ],
    ids=["stream", "generate", "beam_search"],
)
def test_without_a_cache_none_is_made(write):
    """And the toy is given the whole text each time: 2, 3, 4, 5 and 6 columns."""
    toy = Toy()
    toy.new_caches = lambda: pytest.fail("nobody wanted a cache")
    write(toy)
    expect([columns for _, columns in toy.fed], [2, 3, 4, 5, 6])


@pytest.mark.parametrize("training", [True, False])
def test_what_writes_leaves_the_model_as_it_was(training):
    toy = Toy().train(training)
    generate(toy, np.array([[1, 2]]), 3)
    beam_search(toy, [1, 2], 3, 2)
    assert toy.training == training
    assert autograd.is_grad_enabled()


def test_a_prompt_is_not_changed(rng):
    ids = rng.integers(0, 7, (2, 4))
    before = ids.copy()
    generate(Toy(), ids, 3, lengths=[2, 4], pad_id=6)
    beam_search(Toy(), ids[:1], 3, 2)
    expect(ids, before)


# 15.12 beam_search


def log_shares(logits):
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def log_probability(toy, row, prompt):
    """Of what comes after the prompt, by one factor a token; the row fits the context."""
    return sum(log_shares(toy.after(row[:i]))[row[i]] for i in range(prompt, len(row)))


@CACHED
def test_one_beam_is_the_greedy_choice(use_cache):
    toy = Toy()
    [(ids, score)] = beam_search(toy, np.array([[1, 2]]), 6, 1, use_cache=use_cache)
    wanted = by_hand(toy, [1, 2], 6)
    expect(ids, np.array(wanted))
    expect(score, log_probability(toy, wanted, 2))


def every_continuation(toy, prompt, count, stop=()):
    """All rows that can come, with their log probability."""
    rows, done = [prompt], []
    for _ in range(count):
        rows = [[*row, one] for row in rows for one in range(toy.config.vocab_size)]
        done += [row for row in rows if row[-1] in stop]
        rows = [row for row in rows if row[-1] not in stop]
    return [(row, log_probability(toy, row, len(prompt))) for row in [*done, *rows]]


@CACHED
def test_as_many_beams_as_there_are_texts_find_the_best_of_all(use_cache):
    toy = Toy(vocab=4)
    wanted = sorted(every_continuation(toy, [1, 2], 3), key=lambda one: -one[1])
    found = beam_search(toy, np.array([[1, 2]]), 3, 64, use_cache=use_cache)
    assert len(found) == 64
    for (ids, score), (row, best) in zip(found, wanted, strict=True):
        expect(ids, np.array(row))
        expect(score, best)


def test_a_few_beams_find_more_than_one_does():
    """The toys were drawn so that the greedy text is not the likeliest, as it often is not."""
    better = 0
    for seed in range(12):
        toy = Toy(vocab=4, seed=seed)
        best = max(score for _, score in every_continuation(toy, [1], 3))
        [(_, greedy)], four = beam_search(toy, [1], 3, 1), beam_search(toy, [1], 3, 4)
        assert greedy - 1e-9 <= four[0][1] <= best + 1e-9
        better += four[0][1] > greedy + 1e-9
    assert better >= 4, f"four beams found a likelier text for {better} of 12 toys"


def test_each_step_keeps_the_likeliest_of_all_and_not_of_each_row():
    """The reckoning by hand: with two beams, both may come from one row."""
    for seed in range(8):
        toy = Toy(vocab=5, seed=seed)
        rows = [([1, 2], 0.0)]
        for _ in range(4):
            every = [
                ([*row, i], score + log_shares(toy.after(row))[i]) for row, score in rows for i in range(5)
            ]
            rows = sorted(every, key=lambda one: -one[1])[:2]
        found = beam_search(toy, np.array([1, 2]), 4, 2)
        for (ids, score), (row, wanted) in zip(found, rows, strict=True):
            expect(ids, np.array(row))
            expect(score, wanted)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
def test_texts_that_stopped_are_ranked_with_those_that_did_not(length_penalty):
    toy, stop = Toy(vocab=3), (0,)
    every = every_continuation(toy, [1, 2], 3, stop)
    wanted = sorted(every, key=lambda one: -one[1] / (len(one[0]) - 2) ** length_penalty)
    found = beam_search(toy, np.array([[1, 2]]), 3, 100, length_penalty, stop)
    assert len(found) == len(every)
    for (ids, score), (row, best) in zip(found, wanted, strict=True):
        expect(ids, np.array(row))
        expect(score, best)


def test_a_beam_that_has_stopped_takes_its_place_with_it():
    """With two beams of which one stops, one row is left."""
    for seed in range(8):
        toy = Toy(vocab=5, seed=seed)
        rows, done = [([1, 2], 0.0)], []
        for _ in range(5):
            every = [
                ([*row, i], score + log_shares(toy.after(row))[i]) for row, score in rows for i in range(5)
            ]
            best = sorted(every, key=lambda one: -one[1])[: 2 - len(done)]
            done += [one for one in best if one[0][-1] == 3]
            rows = [one for one in best if one[0][-1] != 3]
        wanted = sorted([*done, *rows], key=lambda one: -one[1] / (len(one[0]) - 2))
        found = beam_search(toy, [1, 2], 5, 2, stop=[3])
        expect([ids.tolist() for ids, _ in found], [row for row, _ in wanted])
        expect([score for _, score in found], [score for _, score in wanted])


@CACHED
def test_beams_go_beyond_the_context(use_cache):
    toy = Toy(vocab=5, context=4)

    def after(row):
        start = 0
        while len(row) - start > 4:
            start += 2
        return toy.after(row[start:])

    rows = [([1, 2, 3], 0.0)]
    for _ in range(7):
        every = [([*row, i], score + log_shares(after(row))[i]) for row, score in rows for i in range(5)]
        rows = sorted(every, key=lambda one: -one[1])[:3]
    found = beam_search(toy, np.array([[1, 2, 3]]), 7, 3, use_cache=use_cache)
    expect([ids.tolist() for ids, _ in found], [row for row, _ in rows])
    expect([score for _, score in found], [score for _, score in rows])


def test_what_is_impossible_is_no_beam():
    """With two ids of which one can never come, there is one text."""

    class Certain(Toy):
        def forward(self, ids, **how):
            return Tensor(super().forward(ids, **how).data + np.array([0, -np.inf]))

    [(ids, score)] = beam_search(Certain(vocab=2), np.array([[1]]), 4, 3)
    expect(ids, np.array([1, 0, 0, 0, 0]))
    expect(score, 0.0)


def test_a_search_ends_when_all_beams_have_stopped():
    toy = Toy()
    found = beam_search(toy, np.array([[1, 2]]), 10, 2, stop=range(7))
    assert [len(ids) for ids, _ in found] == [3, 3]
    expect(len(toy.fed), 1)


def test_a_search_for_nothing_finds_the_prompt():
    [(ids, score)] = beam_search(Toy(), np.array([[1, 2]]), 0, 3)
    expect(ids, np.array([1, 2]))
    expect(score, 0.0)


@pytest.mark.parametrize("beams", [0, -1])
def test_no_beams_are_an_error_that_names_their_number(beams):
    with expect_error(ValueError, str(beams)):
        beam_search(Toy(), np.array([[1, 2]]), 3, beams)


def test_a_search_for_several_rows_is_an_error_that_names_their_shape():
    with expect_error(ValueError, "(2, 3)"):
        beam_search(Toy(), np.zeros((2, 3), np.int64), 3, 2)


# 15.13 text_stream

BYTES = BPETokenizer()


def pieces(tokenizer, ids):
    return list(text_stream(tokenizer, ids))


def test_a_character_comes_with_its_last_byte():
    """A euro sign has three bytes, a face four."""
    ids = BYTES.encode("a\u20ac\U0001f600b")
    expect(pieces(BYTES, ids), ["a", "\u20ac", "\U0001f600", "b"])


def test_a_piece_comes_as_soon_as_it_can():
    asked = []

    def ids():
        for one in BYTES.encode("x\u00e9y"):
            asked.append(int(one))
            yield one

    texts = text_stream(BYTES, ids())
    counts = []
    with contextlib.suppress(StopIteration):
        while True:
            next(texts)
            counts.append(len(asked))
    expect(counts, [1, 3, 4])


def test_a_token_of_many_characters_is_one_piece():
    tokenizer = BPETokenizer([(104, 105), (256, 0xC3)])  # "hi", and "hi" with half of an e with an accent
    expect(pieces(tokenizer, [256, 257, 0xA9, 256]), ["hi", "hi", "\u00e9", "hi"])


def test_what_will_never_be_a_character_is_replaced_as_in_decode():
    for ids in ([0xE2, 97], [0x80], [0xF0, 0x9F], [0xE2, 0x82], [0xC3, 0xC3, 0xA9], [0xFF, 0xFE, 98]):
        expect("".join(pieces(BYTES, ids)), BYTES.decode(ids))


def test_half_of_a_character_at_the_end_is_told_at_the_end():
    expect(pieces(BYTES, [97, 0xE2, 0x82]), ["a", "\ufffd"])


def test_a_special_token_ends_what_was_before_it():
    tokenizer = BPETokenizer(special_tokens=["<end>"])
    expect("".join(pieces(tokenizer, [97, 0xE2, 256, 0x82, 98])), "a\ufffd<end>\ufffdb")


def test_characters_come_one_by_one():
    tokenizer = CharTokenizer("abc\u20ac", special_tokens=["<end>"])
    expect(pieces(tokenizer, [3, 0, 4, 1]), ["\u20ac", "a", "<end>", "b"])


def test_nothing_gives_nothing():
    expect(pieces(BYTES, []), [])


def test_a_stream_of_one_row_can_be_told():
    """What a stream gives, arrays of one id, is taken as it is."""
    toy, tokenizer = Toy(), CharTokenizer("abcdefg")
    text = "".join(text_stream(tokenizer, stream(toy, np.array([[1, 2]]), 6)))
    expect(text, tokenizer.decode(by_hand(toy, [1, 2], 6)[2:]))


def test_texts_that_are_told_in_turns_do_not_get_mixed_up():
    """The first has told "hi" and keeps half of a character; the last one is left so."""
    tokenizer = BPETokenizer([(104, 105), (256, 0xC3)])
    first, second, left = (text_stream(tokenizer, ids) for ids in ([257, 0xA9], [97, 98], [257, 0xA9]))
    expect([next(first), next(second), next(first), next(second)], ["hi", "a", "\u00e9", "b"])
    expect(next(left), "hi")
    left.close()
    expect(pieces(tokenizer, [97]), ["a"])


@pytest.mark.parametrize("one", [300, -1])
def test_an_id_that_there_is_not_is_an_error_that_names_it(one):
    with expect_error(ValueError, str(one)):
        pieces(BYTES, [97, one])
