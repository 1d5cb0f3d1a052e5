"""Kata 11: words, merges and ids are those of the package `tokenizers`, where they mean the same."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch.tokenization import BPETokenizer, apply_merges, split_words, train_merges

tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")

thorough = settings(deadline=None, derandomize=True, max_examples=100)
# Lower-case letters, whose ids there are in the order of their bytes: so ties are broken alike.
WORDS = st.lists(st.text("abcd", min_size=1, max_size=8), min_size=1, max_size=30)


def learn(lines, merges):
    """The library's tokenizer of words parted by newlines, with so many merges at most."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split("\n", "removed")
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=len(set("".join(lines))) + merges, min_frequency=2, show_progress=False
    )
    made.train_from_iterator(["\n".join(lines)], trainer)
    return made


def spelt(merges):
    """What each merge stands for, as text."""
    tokens = [bytes([i]) for i in range(256)]
    for left, right in merges:
        tokens.append(tokens[left] + tokens[right])
    return [token.decode() for token in tokens[256:]]


@thorough
@given(WORDS, st.integers(0, 20))
def test_merges_are_those_of_the_library(lines, count):
    theirs = learn(lines, count)
    place = theirs.get_vocab()
    new = sorted((token for token in place if len(token) > 1), key=place.__getitem__)
    counts = Counter(line.encode() for line in lines)
    assert spelt(train_merges(counts, count)) == new


@thorough
@given(WORDS, st.text("abcd", min_size=1, max_size=40))
def test_a_word_is_encoded_as_by_the_library(lines, word):
    merges = train_merges(Counter(line.encode() for line in lines), 20)
    ranks = {tuple(pair): i for i, pair in enumerate(merges, 256)}
    tokens = [chr(i) for i in range(256)] + spelt(merges)
    alphabet = {c: i for i, c in enumerate("abcd")}
    vocabulary = {**alphabet, **{token: i for i, token in enumerate(tokens[256:], 4)}}
    pairs = [(tokens[left], tokens[right]) for left, right in merges]
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=pairs))
    assert [tokens[i] for i in apply_merges(word.encode(), ranks)] == theirs.encode(word).tokens


@thorough
@given(st.text("aB1 2,.!?'\n\tst\u00e9\u0416\u4e16-", max_size=60))
def test_words_are_those_of_gpt_2(text):
    """Where there is no underscore: there it is a sign like others."""
    gpt_2 = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    pieces = [text[start:end] for _, (start, end) in gpt_2.pre_tokenize_str(text)]
    assert list(split_words(text)) == pieces


def test_a_text_has_as_many_tokens_as_by_the_library():
    """Of all bytes, ties are broken in another order there; what is learnt is about as good."""
    import pydoc_data.topics

    text = "\n".join(pydoc_data.topics.topics.values())
    mine = BPETokenizer.train(text, 1024)
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    theirs.train_from_iterator(
        [text],
        tokenizers.trainers.BpeTrainer(vocab_size=1024, initial_alphabet=alphabet, show_progress=False),
    )
    ids = theirs.encode(text).ids
    assert abs(len(mine.encode(text)) / len(ids) - 1) < 0.01
    assert theirs.decode(ids) == mine.decode(mine.encode(text)) == text
    np.testing.assert_array_equal(mine.encode("low lower"), mine.encode_ordinary("low lower"))
