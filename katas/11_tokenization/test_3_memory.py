"""Level 3: what grows with the text is the ids; words come one by one, and few are remembered.

Counted by tracemalloc in bytes, so the figures are the same on every machine. Each budget has a twin: a
naive version, written out here, that must not fit.
"""

import gc
import itertools
import re
import weakref
from array import array
from collections import Counter

import numpy as np
import pytest

from dojo.expect import expect
from dojo.measuring import Budget, load_probes, peak_bytes, retained_bytes
from tinytorch.tokenization import (
    BPETokenizer,
    CharTokenizer,
    apply_merges,
    count_words,
    pad_sequences,
    split_words,
)

probes = load_probes(__file__)
MIB = 1 << 20
LETTERS = "abcdefghijklmnopqrstuvwxyz "

WORDS = Budget(
    "the words of a text of 128 KiB, one after the other",
    limit=1.5,
    reference=0.01,
    naive=9.7,
    unit="times the bytes of the text at the worst moment",
    naively="a version that makes a list of them",
)
COUNTED = Budget(
    "counting words, or training, on 128 KiB of text with 200 different words",
    limit=5.0,  # a copy in pieces between special tokens, and the places of pairs in 200 words
    reference=1.9,
    naive=9.7,
    unit="times the bytes of the text at the worst moment",
    naively="a version that makes a list of all words first",
)
ENCODED = Budget(
    "encoding a text of 128 KiB",
    limit=3.0,
    reference=2.05,
    naive=3.8,
    unit="times the bytes of the ids at the worst moment",
    naively="a version that makes lists of words and of ids",
)
CHARACTERS = Budget(
    "encoding 128 thousand characters",
    limit=1.8,  # by way of UTF-32, a piece at a time: 1.6
    reference=1.0,
    naive=2.1,
    unit="times the bytes of the ids at the worst moment",
    naively="a version that makes a list of ids",
)
REMEMBERED = Budget(
    "what a tokenizer remembers of 38 thousand new words",
    limit=6.0,  # 16,384 words, their ids and a list of which came when: 4.7
    reference=1.0,
    naive=7.4,
    unit="MiB",
    naively="a version that remembers every word",
)
LONG = Budget(
    "what a tokenizer remembers of 40 new words of 1,000 letters",
    limit=0.1,
    reference=0.001,
    naive=1.0,
    unit="MiB",
    naively="a version that remembers them",
)
PADDED = Budget(
    "padding 512 rows of up to 256 ids, and one of 512",
    limit=1.5,  # all real ids in one row, and put where the mask is: 1.26 to 1.33
    reference=1.06,
    naive=1.86,
    unit="times the bytes of ids and mask at the worst moment",
    naively="a version that pads each row and then makes one array of them",
)
GROWTH = Budget(
    "merges of one long word: memory over its length",
    limit=1.5,
    reference=1.13,
    naive=2.0,
    unit="as the power of n",
    naively="a version that notes all parts of it",
)


def text_of(kib, rng):
    return probes.prose(kib << 10, rng, different=200)


# 11.8, 11.9, 11.13: words


def test_words_come_one_by_one(rng):
    text = text_of(128, rng)
    WORDS.check(peak_bytes(lambda: sum(map(len, split_words(text)))) / len(text))


def test_the_twin_that_makes_a_list_is_caught(rng):
    text = text_of(128, rng)
    WORDS.catches(peak_bytes(lambda: sum(map(len, re.findall(r"\w+|\W+", text)))) / len(text))


@pytest.mark.parametrize("special", [(), ("<e>",)], ids=["plain", "special"])
@pytest.mark.parametrize("work", ["count_words", "train"])
def test_much_text_with_few_words_is_no_burden(work, special, rng):
    """What training needs goes by the different words, however long the text is."""
    text = text_of(128, rng).replace(" t", "<e>") if special else text_of(128, rng)
    run = {
        "count_words": lambda: count_words(text, special),
        "train": lambda: BPETokenizer.train(text, 300, special),
    }[work]
    COUNTED.check(peak_bytes(run) / len(text))


def test_the_twin_that_lists_all_words_is_caught(rng):
    text = text_of(128, rng)
    COUNTED.catches(peak_bytes(lambda: Counter(re.findall(r"\w+|\W+", text))) / len(text))


# 11.14: encoding


@pytest.mark.parametrize("special", [(), "all"], ids=["plain", "special"])
def test_encoding_makes_ids_and_no_lists(special, rng):
    tokenizer, text = probes.learnt(), text_of(128, rng)
    ids = tokenizer.encode(text, special)
    ENCODED.check(peak_bytes(lambda: tokenizer.encode(text, special)) / ids.nbytes)


def test_the_twin_that_makes_lists_is_caught(rng):
    text = text_of(128, rng)
    known = {word: probes.naive_apply(word.encode(), probes.learnt().ranks) for word in set(text.split())}

    def slow():
        words = text.split()
        return np.array([i for word in words for i in known[word]])

    ENCODED.catches(peak_bytes(slow) / slow().nbytes)


def new_words(count, length):
    """Different words of letters only, and as many of one digit: a text that needs no spaces."""
    letters = [chr(i) for i in (*range(0x3400, 0x4DB6), *range(0x4E00, 0x9FA6), *range(0xAC00, 0xD7A4))]
    return "1".join(c * length for c in letters[:count])


def left_behind(work, text):
    """What stays in memory of a text that `work` sees for the first time."""
    texts = iter(["first, to warm up", text])
    return retained_bytes(lambda: work(next(texts))) / MIB


def test_a_tokenizer_does_not_remember_every_word():
    REMEMBERED.check(left_behind(BPETokenizer().encode, new_words(38_000, 1)))


def test_a_tokenizer_does_not_remember_long_words():
    LONG.check(left_behind(BPETokenizer().encode, new_words(40, 1_000)))


class Elephant:
    """Remembers everything."""

    def __init__(self):
        self.cache = {}

    def encode(self, text):
        for word in text.split("1"):
            self.cache[word] = array("q", list(word.encode()))


def test_the_twin_that_remembers_every_word_is_caught():
    REMEMBERED.catches(left_behind(Elephant().encode, new_words(38_000, 1)))


def test_the_twin_that_remembers_long_words_is_caught():
    LONG.catches(left_behind(Elephant().encode, new_words(40, 1_000)))


def test_a_tokenizer_that_nobody_has_is_gone(rng):
    """And what it remembered with it: a cache of the function for all of them would keep both."""
    tokenizer = BPETokenizer([(97, 98)])
    tokenizer.encode("abc cab")
    there = weakref.ref(tokenizer)
    del tokenizer
    gc.collect()
    expect(there() is None, True)


def test_words_that_were_forgotten_are_encoded_again():
    """Words of 100 letters, 300 bytes: E3 90 80 and so on."""
    tokenizer, text = BPETokenizer([(0xE3, 0x90)]), new_words(20, 100)
    first = tokenizer.encode(text)
    expect(tokenizer.encode(text), first)
    expect(int((first == 256).sum()), 20 * 100)


# 11.7: characters


@pytest.mark.parametrize("unknown", [False, True], ids=["known", "unk"])
def test_characters_go_straight_into_an_array(unknown, rng):
    text = text_of(128, rng)
    tokenizer = CharTokenizer("abc", ["<unk>"]) if unknown else CharTokenizer(LETTERS)
    CHARACTERS.check(peak_bytes(lambda: tokenizer.encode_ordinary(text)) / (8 * len(text)))


def test_the_twin_that_lists_ids_is_caught(rng):
    text, place = text_of(128, rng), {c: i for i, c in enumerate(LETTERS)}
    CHARACTERS.catches(peak_bytes(lambda: np.array([place[c] for c in text])) / (8 * len(text)))


# 11.3: batches


def rows_of_ids(rng):
    return [rng.integers(0, 50_000, k) for k in (*rng.integers(1, 257, 512), 512)]


def test_padding_makes_two_arrays(rng):
    rows = rows_of_ids(rng)
    made = sum(array.nbytes for array in pad_sequences(rows, 0))
    PADDED.check(peak_bytes(lambda: pad_sequences(rows, 0)) / made)


def test_the_twin_that_pads_each_row_is_caught(rng):
    rows = rows_of_ids(rng)
    longest = max(map(len, rows))

    def slow():
        ids = np.stack([np.pad(row, (0, longest - len(row))) for row in rows])
        return ids, np.stack([np.arange(longest) < len(row) for row in rows])

    PADDED.catches(peak_bytes(slow) / sum(array.nbytes for array in slow()))


# 11.12: one long word


@pytest.mark.parametrize("kind", ["letters", "one letter"])
def test_a_long_word_needs_memory_by_its_length(kind, rng):
    ranks = {(97, 97): 256, **{(i, i): i + 1 for i in range(256, 270)}, **probes.learnt().ranks}
    word = probes.letters(1_024, rng) if kind == "letters" else b"a" * 1_024
    small, large = (peak_bytes(lambda part=part: apply_merges(part, ranks)) for part in (word[:512], word))
    GROWTH.check(np.log2(large / small))


def test_the_twin_that_notes_all_parts_is_caught():
    small, large = (peak_bytes(lambda n=n: list(itertools.combinations(range(n), 2))) for n in (128, 256))
    GROWTH.catches(np.log2(large / small))
