"""Level 4: a merge touches what it changes, a known word is looked up, and bytes are put together once.

Ratios within this run, in CPU time, never seconds. Each budget has a twin: a naive version, written out
here, that must not fit.
"""

import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from dojo.measuring import Budget, load_probes, race
from tinytorch.tokenization import (
    CharTokenizer,
    Tokenizer,
    Vocabulary,
    apply_merges,
    count_words,
    pad_sequences,
    split_special,
    split_words,
    train_merges,
)

probes = load_probes(__file__)
LETTERS = "abcdefghijklmnopqrstuvwxyz "

LOOK_UP = Budget(
    "looking up 500 tokens of 1,000",
    limit=15,
    reference=2.6,
    naive=195,
    unit="times the time of a dict",
    naively="a version that looks through the list",
)
NUMBERS = Budget(
    "the tokens of 500 ids of 1,000",
    limit=33,
    reference=4.5,
    naive=240,
    unit="times the time of a list",
    naively="a version that makes a list anew",
)
LISTED = Budget(
    "a vocabulary of 1,000 tokens",
    limit=14,
    reference=1.1,
    naive=180,
    unit="times the time of making a dict",
    naively="a version that counts each token",
)
SPECIAL = Budget(
    "cutting 352 KiB of text at 32,768 special tokens",
    limit=6.5,
    reference=2.6,
    naive=15,
    unit="times the time of re.split",
    naively="a version that copies the rest of the text at each",
)
JOIN = Budget(
    "encoding 60 thousand characters with 600 special tokens",
    limit=25,  # one list of Python's numbers: 15
    reference=8,
    naive=55,  # and ten times that, where the system is asked for the room of each copy
    unit="times the time of cutting the text, and of one array for it",
    naively="a version that copies all ids so far for each piece",
)
SPLIT = Budget(
    "splitting 120 KiB of text into words",  # beyond 128 the C library asks the system for each copy's room
    limit=9,  # a loop over characters, which copies nothing: 6
    reference=1.6,
    naive=16,
    unit="times the time of a simpler pattern",
    naively="a version that copies the rest of the text for each word",
)
COUNT = Budget(
    "counting the words of 16 KiB of text",
    limit=14,
    reference=3.6,
    naive=50,
    unit="times the time of Counter(text.split())",
    naively="a version that looks through all words for each",
)
TRAIN = Budget(
    "64 merges of 4 KiB",
    limit=40,
    reference=13.7,
    naive=110,
    unit="times the time of counting all pairs once",
    naively="a version that counts anew before each merge",
)
MORE = Budget(
    "256 merges of 4 KiB",
    limit=5,
    reference=2.8,
    naive=13,
    unit="times the time of 16 merges",
    naively="a version that counts anew before each merge",
)
APPLY = Budget(
    "all merges in one word of 2 KiB",
    limit=75,
    reference=23,
    naive=270,
    unit="times the time of looking up each pair once",
    naively="a version that looks through the word before each merge",
)
LONGER = Budget(
    "all merges in a word of 8 KiB",
    limit=25,
    reference=9.5,
    naive=65,
    unit="times the time of 1 KiB",
    naively="a version whose time grows with the square",
)
ENCODE = Budget(
    "encoding 16 KiB of words that were seen before",
    limit=5,
    reference=1.3,
    naive=21,
    unit="times the time of split_words",
    naively="a version that makes the merges of each word again",
)
DECODE = Budget(
    "decoding 16 thousand ids",
    limit=4.5,
    reference=2.3,
    naive=10,
    unit="times the time of b''.join",
    naively="a version that adds token after token to the bytes",
)
CHARACTERS = Budget(
    "encoding 4 thousand characters of an alphabet of 200",
    limit=8,
    reference=1.3,
    naive=20,
    unit="times the time of looking up each in a dict",
    naively="a version that looks for each in the alphabet",
)
PAD = Budget(
    "padding 100 rows of up to 100 ids",
    limit=12,
    reference=2.8,
    naive=48,
    unit="times the time of copying each row",
    naively="a version that goes id by id",
)


# 11.1: vocabularies


def some_tokens(rng):
    tokens = [f"token{i}" for i in range(1_000)]
    return tokens, [tokens[i] for i in rng.integers(0, 1_000, 500)]


def test_a_token_is_looked_up_and_not_looked_for(rng):
    tokens, asked = some_tokens(rng)
    words, place = Vocabulary(tokens), {token: i for i, token in enumerate(tokens)}
    LOOK_UP.check(
        race(
            lambda: [words.token_to_id(t) for t in asked],
            lambda: [place[t] for t in asked],
            limit=LOOK_UP.limit,
        )
    )


def test_what_is_there_is_looked_up_and_not_looked_for(rng):
    tokens, asked = some_tokens(rng)
    words, place = Vocabulary(tokens), {token: i for i, token in enumerate(tokens)}
    LOOK_UP.check(
        race(lambda: [t in words for t in asked], lambda: [t in place for t in asked], limit=LOOK_UP.limit)
    )


def test_the_twin_that_looks_through_the_list_is_caught(rng):
    tokens, asked = some_tokens(rng)
    place = {token: i for i, token in enumerate(tokens)}
    LOOK_UP.catches(
        race(lambda: [tokens.index(t) for t in asked], lambda: [place[t] for t in asked], limit=LOOK_UP.limit)
    )


def test_a_token_of_an_id_is_one_place_of_a_list(rng):
    tokens, _ = some_tokens(rng)
    words, asked = Vocabulary(tokens), rng.integers(0, 1_000, 500).tolist()
    NUMBERS.check(
        race(
            lambda: [words.id_to_token(i) for i in asked],
            lambda: [tokens[i] for i in asked],
            limit=NUMBERS.limit,
        )
    )


def test_the_twin_that_makes_a_list_anew_is_caught(rng):
    tokens, _ = some_tokens(rng)
    place, asked = {token: i for i, token in enumerate(tokens)}, rng.integers(0, 1_000, 500).tolist()
    NUMBERS.catches(
        race(lambda: [list(place)[i] for i in asked], lambda: [tokens[i] for i in asked], limit=NUMBERS.limit)
    )


def test_each_token_of_a_vocabulary_is_looked_at_once(rng):
    tokens, _ = some_tokens(rng)
    LISTED.check(
        race(lambda: Vocabulary(tokens), lambda: {t: i for i, t in enumerate(tokens)}, limit=LISTED.limit)
    )


def test_the_twin_that_counts_each_token_is_caught(rng):
    tokens, _ = some_tokens(rng)
    LISTED.catches(
        race(
            lambda: [t for t in tokens if tokens.count(t) > 1],
            lambda: {t: i for i, t in enumerate(tokens)},
            limit=LISTED.limit,
        )
    )


# 11.2: special tokens

ENDS = ["<end>", "<e>", "<pad>"]
ENDED = "some wds<e>" * 32_768


def at_the_ends(text):
    return re.split("(<end>|<pad>|<e>)", text)


def test_a_text_is_cut_in_one_go():
    SPECIAL.check(
        race(lambda: list(split_special(ENDED, ENDS)), lambda: at_the_ends(ENDED), limit=SPECIAL.limit)
    )


def test_the_twin_that_cuts_off_one_piece_after_the_other_is_caught():
    def slow():
        text, pieces = ENDED, []
        while "<e>" in text:
            piece, text = text.split("<e>", 1)
            pieces += [piece, "<e>"]

    SPECIAL.catches(race(slow, lambda: at_the_ends(ENDED), limit=SPECIAL.limit))


# 11.4: ids are joined once


class Codes(Tokenizer):
    """Characters are their own numbers, which takes no time."""

    def encode_ordinary(self, text):
        return np.frombuffer(text.encode(), np.uint8).astype(np.int64)


LONG = "x" * 60_000 + "y<e>" * 600


def cut_and_made():
    return [*split_special(LONG, ["<e>"]), np.zeros(len(LONG), np.int64)]


def test_ids_of_all_pieces_are_joined_once():
    tokenizer = Codes(map(chr, range(128)), ["<e>"])
    JOIN.check(race(lambda: tokenizer.encode(LONG, "all"), cut_and_made, limit=JOIN.limit))


def test_the_twin_that_copies_all_ids_for_each_piece_is_caught():
    pieces = [np.zeros(60_000, np.int64)] + [np.zeros(1, np.int64)] * 1200

    def slow():
        ids = np.empty(0, np.int64)
        for piece in pieces:
            ids = np.append(ids, piece)

    JOIN.catches(race(slow, cut_and_made, limit=JOIN.limit))


# 11.8, 11.9: words


def simple_words(text):
    return re.findall(r"\S+|\s+", text)


def copying_the_rest(text):
    words = []
    while found := re.match(r"\S+|\s+", text):
        words.append(found.group())
        text = text[found.end() :]
    return words


def test_words_are_found_in_one_go(rng):
    text = probes.prose(120 << 10, rng)
    SPLIT.check(race(lambda: list(split_words(text)), lambda: simple_words(text), limit=SPLIT.limit))


def test_the_twin_that_copies_the_rest_is_caught(rng):
    text = probes.prose(120 << 10, rng)
    SPLIT.catches(race(lambda: copying_the_rest(text), lambda: simple_words(text), limit=SPLIT.limit))


def test_counting_words_takes_little_longer_than_splitting(rng):
    text = probes.prose(1 << 14, rng)
    COUNT.check(race(lambda: count_words(text), lambda: Counter(text.split()), limit=COUNT.limit))


def test_the_twin_that_counts_each_word_by_itself_is_caught(rng):
    text = probes.prose(1 << 13, rng)

    def slow():
        words = text.split()
        return {word.encode(): words.count(word) for word in set(words)}

    COUNT.catches(race(slow, lambda: Counter(text.split()), limit=COUNT.limit))


# 11.11: training


def material(kind, rng, n=1 << 12):
    if kind == "words":
        return probes.different_words(n, rng)
    return {probes.letters(n, rng) if kind == "one word" else b"a" * n: 1}


@pytest.mark.parametrize("kind", ["words", "one word", "one letter"])
def test_training_counts_once(kind, rng):
    """Also a text without a space, or with the same letter all over."""
    words = material(kind, rng)
    TRAIN.check(race(lambda: train_merges(words, 64), lambda: probes.one_count(words), limit=TRAIN.limit))


@pytest.mark.parametrize("kind", ["words", "one word"])
def test_the_twin_that_counts_before_each_merge_is_caught(kind, rng):
    words = material(kind, rng, 1 << 9)  # shorter, for as many passes: the ratio is the same
    TRAIN.catches(
        race(lambda: probes.naive_train(words, 64), lambda: probes.one_count(words), limit=TRAIN.limit)
    )


@pytest.mark.parametrize("kind", ["words", "one word"])
def test_more_merges_take_little_longer(kind, rng):
    words = material(kind, rng)
    MORE.check(race(lambda: train_merges(words, 256), lambda: train_merges(words, 16), limit=MORE.limit))


def test_the_twin_for_which_each_merge_is_as_long_is_caught(rng):
    words = material("one word", rng, 1 << 9)
    MORE.catches(
        race(lambda: probes.naive_train(words, 256), lambda: probes.naive_train(words, 16), limit=MORE.limit)
    )


# 11.12: merges


def a_word(kind, n, rng):
    """A word and ranks: of letters, or of one letter, where each token is twice the one before."""
    if kind == "letters":
        return probes.letters(n, rng), probes.learnt().ranks
    return b"a" * n, {(97, 97): 256, **{(i, i): i + 1 for i in range(256, 270)}}


def look_up(word, ranks):
    return [ranks.get(pair) for pair in pairwise(word)]


def one_at_a_time(word, ranks):
    """The best pair of all is looked for before each merge, and one is made."""
    ids = list(word)
    while True:
        rank, i = min(((ranks.get(pair, 1 << 30), i) for i, pair in enumerate(pairwise(ids))))
        if rank == 1 << 30:
            return ids
        ids[i : i + 2] = [rank]


@pytest.mark.parametrize("kind", ["letters", "one letter"])
def test_a_merge_looks_at_its_neighbours_only(kind, rng):
    word, ranks = a_word(kind, 1 << 11, rng)
    APPLY.check(race(lambda: apply_merges(word, ranks), lambda: look_up(word, ranks), limit=APPLY.limit))


@pytest.mark.parametrize("slow", [probes.naive_apply, one_at_a_time], ids=["rank by rank", "one at a time"])
def test_the_twin_that_looks_through_the_word_is_caught(slow, rng):
    word, ranks = a_word("letters", 1 << (10 if slow is probes.naive_apply else 9), rng)
    APPLY.catches(race(lambda: slow(word, ranks), lambda: look_up(word, ranks), limit=APPLY.limit))


@pytest.mark.parametrize("kind", ["letters", "one letter"])
def test_a_word_of_eight_times_the_length_takes_about_eight_times_as_long(kind, rng):
    small, ranks = a_word(kind, 1 << 10, rng)
    large, _ = a_word(kind, 1 << 13, rng)
    LONGER.check(
        race(lambda: apply_merges(large, ranks), lambda: apply_merges(small, ranks), limit=LONGER.limit)
    )


def test_the_twin_that_makes_one_merge_at_a_time_is_caught(rng):
    small, ranks = a_word("letters", 1 << 6, rng)
    large, _ = a_word("letters", 1 << 9, rng)
    LONGER.catches(
        race(lambda: one_at_a_time(large, ranks), lambda: one_at_a_time(small, ranks), limit=LONGER.limit)
    )


# 11.7, 11.14, 11.15: texts


def test_words_that_were_seen_are_remembered(rng):
    tokenizer, text = probes.warm(1 << 14, rng)
    ENCODE.check(race(lambda: tokenizer.encode(text), lambda: list(split_words(text)), limit=ENCODE.limit))


def test_words_are_remembered_from_one_text_to_the_next(rng):
    """Each word is there once: what is remembered comes from the time before."""
    tokenizer = probes.learnt()
    text = " ".join(word.decode() for word in probes.different_words(1 << 13, rng))
    tokenizer.encode(text)
    ENCODE.check(race(lambda: tokenizer.encode(text), lambda: list(split_words(text)), limit=ENCODE.limit))


def test_the_twin_that_merges_again_is_caught(rng):
    tokenizer, text = probes.warm(1 << 12, rng)

    def slow():
        return [probes.naive_apply(word.encode(), tokenizer.ranks) for word in split_words(text)]

    ENCODE.catches(race(slow, lambda: list(split_words(text)), limit=ENCODE.limit))


def bytes_and_ids(rng):
    """The bytes of each token, and 16,000 ids."""
    tokens = probes.learnt().vocabulary.tokens
    return [t if isinstance(t, bytes) else t.encode() for t in tokens], rng.integers(97, 757, 16_000)


def joined(tokens, ids):
    return b"".join([tokens[i] for i in ids.tolist()])


def test_bytes_are_joined_once(rng):
    tokens, ids = bytes_and_ids(rng)
    DECODE.check(race(lambda: probes.learnt().decode(ids), lambda: joined(tokens, ids), limit=DECODE.limit))


def test_the_twin_that_adds_token_after_token_is_caught(rng):
    tokens, ids = bytes_and_ids(rng)

    def slow():
        data = b""
        for i in ids.tolist():
            data += tokens[i]
        return data.decode(errors="replace")

    DECODE.catches(race(slow, lambda: joined(tokens, ids), limit=DECODE.limit))


def test_characters_are_joined_once(rng):
    alphabet, ids = list(LETTERS), rng.integers(0, 27, 32_000)
    tokenizer = CharTokenizer(alphabet)
    DECODE.check(
        race(
            lambda: tokenizer.decode(ids),
            lambda: "".join([alphabet[i] for i in ids.tolist()]),
            limit=DECODE.limit,
        )
    )


def test_the_twin_that_adds_character_after_character_is_caught(rng):
    alphabet, ids = list(LETTERS), rng.integers(0, 27, 32_000)

    def slow():
        text = ""
        for i in reversed(ids.tolist()):
            text = alphabet[i] + text

    DECODE.catches(race(slow, lambda: "".join([alphabet[i] for i in ids.tolist()]), limit=DECODE.limit))


def alphabet_and_text(rng):
    alphabet = "".join(map(chr, range(0x400, 0x400 + 200)))
    return alphabet, "".join(alphabet[i] for i in rng.integers(0, 200, 4_000))


def test_a_character_is_looked_up(rng):
    alphabet, text = alphabet_and_text(rng)
    tokenizer, place = CharTokenizer(alphabet), {c: i for i, c in enumerate(alphabet)}
    CHARACTERS.check(
        race(lambda: tokenizer.encode(text), lambda: [place[c] for c in text], limit=CHARACTERS.limit)
    )


def test_the_twin_that_looks_through_the_alphabet_is_caught(rng):
    alphabet, text = alphabet_and_text(rng)
    place, characters = {c: i for i, c in enumerate(alphabet)}, list(alphabet)
    CHARACTERS.catches(
        race(
            lambda: np.array([characters.index(c) for c in text]),
            lambda: [place[c] for c in text],
            limit=CHARACTERS.limit,
        )
    )


# 11.3: batches


def rows_of_ids(rng):
    return [rng.integers(0, 50_000, k) for k in rng.integers(1, 101, 100)]


def test_rows_are_copied_whole(rng):
    rows = rows_of_ids(rng)
    PAD.check(race(lambda: pad_sequences(rows, 0), lambda: [row.copy() for row in rows], limit=PAD.limit))


def test_the_twin_that_goes_id_by_id_is_caught(rng):
    rows = rows_of_ids(rng)
    longest = max(map(len, rows))

    def slow():
        ids = np.zeros((len(rows), longest), np.int64)
        mask = np.zeros(ids.shape, bool)
        for i, row in enumerate(rows):
            for j, number in enumerate(row):
                ids[i, j], mask[i, j] = number, True
        return ids, mask

    PAD.catches(race(slow, lambda: [row.copy() for row in rows], limit=PAD.limit))
