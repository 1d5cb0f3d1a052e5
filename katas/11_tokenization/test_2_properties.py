"""Level 2: any text comes back, and merges are those of an obvious, slow trainer."""

import functools
import itertools
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect
from tinytorch.tokenization import (
    BPETokenizer,
    CharTokenizer,
    apply_merges,
    count_words,
    split_words,
    train_merges,
)

steady = settings(deadline=None, derandomize=True, max_examples=50)

TEXTS = st.text(max_size=40)  # all of Unicode but halves of surrogate pairs, which have no UTF-8
LETTERS = st.text("aab c'\n\u00e91_-", max_size=60)
WORDS = st.dictionaries(st.text("abc", max_size=12).map(str.encode), st.integers(1, 4), max_size=5)
SPECIAL = ("<|end|>", "<|", "<pad>")
LESSON = (
    "the cat sat on the mat, the bat sat on the cat; don't they'll "
    "'\u00e9t\u00e9 \u00e9t\u00e9' \U0001f600\U0001f600  \n\n x"
)


@functools.cache
def learnt():
    return BPETokenizer.train(LESSON * 3, 330, SPECIAL)


# The specification: recount everything before each merge.


def slow_join(ids, pair, new_id):
    out, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def slow_merges(words, count, least):
    rows, merges = [(list(word), n) for word, n in words.items()], []
    while len(merges) < count:
        counts = Counter()
        for ids, n in rows:
            for pair in itertools.pairwise(ids):
                counts[pair] += n
        if not counts or max(counts.values()) < least:
            break
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        rows = [(slow_join(ids, pair, 256 + len(merges)), n) for ids, n in rows]
        merges.append(pair)
    return merges


def slow_ids(word, merges):
    ids = list(word)
    for new_id, pair in enumerate(merges, 256):
        ids = slow_join(ids, pair, new_id)
    return ids


# 11.8, 11.9: words


@steady
@given(st.one_of(TEXTS, LETTERS))
def test_words_are_the_whole_text(text):
    words = list(split_words(text))
    expect("".join(words), text)
    expect("" in words, False)
    expect([list(split_words(word)) for word in words], [[word] for word in words])


@steady
@given(LETTERS)
def test_words_are_counted(text):
    expect(dict(count_words(text)), dict(Counter(word.encode() for word in split_words(text))))


# 11.11 to 11.13: merges


@settings(steady, max_examples=100)
@given(WORDS, st.integers(0, 12), st.integers(1, 3))
def test_merges_are_those_of_the_slow_trainer(words, count, least):
    expect([tuple(pair) for pair in train_merges(words, count, least)], slow_merges(words, count, least))


@settings(steady, max_examples=100)
@given(WORDS, st.text("abc", max_size=40).map(str.encode))
def test_a_word_is_encoded_as_if_each_merge_were_made_in_turn(words, word):
    merges = slow_merges(words, 20, 1)
    ranks = {pair: i for i, pair in enumerate(merges, 256)}
    expect(list(apply_merges(word, ranks)), slow_ids(word, merges))


@steady
@given(st.lists(LETTERS, min_size=1, max_size=3), st.integers(0, 30))
def test_each_token_encodes_to_itself(texts, count):
    tokenizer = BPETokenizer.train(" ".join(texts), 256 + count, min_frequency=1)
    for new_id, pair in enumerate(tokenizer.merges, 256):
        data = tokenizer.vocabulary.id_to_token(new_id)
        expect(data, b"".join(map(tokenizer.vocabulary.id_to_token, pair)))
        expect(list(apply_merges(data, tokenizer.ranks)), [new_id])


# 11.14, 11.15: text to ids and back


@settings(steady, max_examples=60)
@given(st.one_of(TEXTS, LETTERS))
def test_any_text_comes_back(text):
    for tokenizer in (learnt(), BPETokenizer(), CharTokenizer.train(text)):
        expect(tokenizer.decode(tokenizer.encode(text)), text)


@steady
@given(
    st.lists(
        st.sampled_from(["the", " cat", "<|", "<|end|>", "end", "|>", "<pad>", "\n", "\u00e9"]), max_size=8
    )
)
def test_special_tokens_are_made_where_they_are_allowed_and_nowhere_else(pieces):
    text = "".join(pieces)
    first = learnt().vocab_size - len(SPECIAL)
    expect(bool((learnt().encode(text) >= first).any()), False)
    ids = learnt().encode(text, "all")
    expect(
        int((ids >= first).sum()), sum(text.replace("<|end|>", "\0").count(c) for c in ("\0", "<|", "<pad>"))
    )
    expect(learnt().decode(ids), text)


@steady
@given(LETTERS)
def test_a_word_does_not_depend_on_the_words_around_it(text):
    parts = [learnt().encode(word) for word in split_words(text)]
    expect(learnt().encode(text), np.concatenate([np.zeros(0, np.int64), *parts]))


@steady
@given(st.lists(LETTERS, max_size=4), st.one_of(st.none(), st.integers(1, 9)))
def test_a_batch_holds_what_its_texts_hold_alone(texts, most):
    ids, mask = learnt().encode_batch(texts, max_length=most)
    expect(
        [row[real].tolist() for row, real in zip(ids, mask, strict=True)],
        [learnt().encode(text)[:most].tolist() for text in texts],
    )
    expect(ids[~mask], np.full((~mask).sum(), learnt().pad_id))


@steady
@given(st.lists(st.integers(0, 256 + len(SPECIAL) - 1), max_size=30))
def test_any_ids_have_a_text(ids):
    data = b"".join(
        t if isinstance(t, bytes) else t.encode() for t in map(learnt().vocabulary.id_to_token, ids)
    )
    expect(learnt().decode(ids), data.decode("utf-8", "replace"))
