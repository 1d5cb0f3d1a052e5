"""What kata 11 measures: training, encoding and decoding by the length of the text, and batches."""

import functools
from collections import Counter
from itertools import pairwise

import numpy as np

from dojo.measuring import Probe
from tinytorch.tokenization import (
    BPETokenizer,
    CharTokenizer,
    apply_merges,
    count_words,
    pad_sequences,
    train_merges,
)

BYTES = (1 << 12, 1 << 14, 1 << 16)
SHORT = (1 << 10, 1 << 11, 1 << 12)  # where the naive version has to come along
ROWS = (1 << 6, 1 << 8, 1 << 10)


def letters(n, rng):
    """n lower-case letters, some of them more often than others, as in a language."""
    return bytes(np.minimum(rng.geometric(0.12, n) + 96, 122).astype(np.uint8))


def different_words(n, rng):
    """About n bytes of different words of 2 to 10 letters, with how often they occur."""
    lengths = rng.integers(2, 11, n // 6)
    ends = np.cumsum(lengths)
    data = letters(int(ends[-1]), rng)
    words = [data[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    return dict(zip(words, rng.integers(1, 50, len(words)).tolist(), strict=True))


def prose(n, rng, different=1_000):
    """About n bytes in which the r-th of the words occurs as 1 / r, as in English."""
    words = [word.decode() for word in different_words(6 * different, rng)]
    share = 1 / np.arange(1, len(words) + 1)
    return " ".join(words[i] for i in rng.choice(len(words), n // 6, p=share / share.sum()))


@functools.cache
def learnt():
    """A tokenizer of 256 bytes, 500 merges and <pad>."""
    return BPETokenizer.train(prose(1 << 15, np.random.default_rng(5)), 757, ["<pad>"])


def naive_join(ids, pair, new_id):
    out, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def one_count(words):
    """One pass over all pairs: what each merge costs a version that counts anew."""
    counts = Counter()
    for word, n in words.items():
        for pair in pairwise(word):
            counts[pair] += n
    return counts


def naive_train(words, count):
    """Counts everything anew before each merge."""
    rows, merges = [(list(word), n) for word, n in words.items()], []
    while len(merges) < count:
        counts = Counter()
        for ids, n in rows:
            for pair in pairwise(ids):
                counts[pair] += n
        if not counts:
            break
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        rows = [(naive_join(ids, pair, 256 + len(merges)), n) for ids, n in rows]
        merges.append(pair)
    return merges


def naive_apply(word, ranks):
    """Looks for the lowest rank among all pairs before each merge."""
    ids = list(word)
    while len(ids) > 1:
        pair = min(pairwise(ids), key=lambda pair: ranks.get(pair, 1 << 30))
        if pair not in ranks:
            break
        ids = naive_join(ids, pair, ranks[pair])
    return ids


def fresh(n, rng):
    """A tokenizer that has not seen the text."""
    return BPETokenizer(learnt().merges), prose(n, rng)


def warm(n, rng):
    """A tokenizer that has seen the text."""
    text = prose(n, rng)
    learnt().encode(text)
    return learnt(), text


def encode(tokenizer, text):
    return tokenizer.encode(text)


PROBES = (
    Probe(
        "train_merges, 100 merges, n bytes of different words",
        BYTES,
        prepare=lambda n, rng: (different_words(n, rng), 100),
        call=train_merges,
        time=1,
        memory=1,
    ),
    Probe(
        "train_merges, 100 merges, one word of n bytes",
        BYTES,
        prepare=lambda n, rng: ({letters(n, rng): 1}, 100),
        call=train_merges,
        time=1,
        memory=1,
    ),
    Probe(
        "naive training, 100 merges, n bytes of different words",
        SHORT,
        prepare=lambda n, rng: (different_words(n, rng), 100),
        call=naive_train,
        time=1,
        memory=1,
    ),
    Probe(
        "count_words of n bytes",
        BYTES,
        prepare=lambda n, rng: (prose(n, rng),),
        call=count_words,
        time=1,
    ),
    Probe(
        "apply_merges, a word of n bytes",
        BYTES,
        prepare=lambda n, rng: (letters(n, rng), learnt().ranks),
        call=apply_merges,
        time=1,
        memory=1,
    ),
    Probe(
        "naive merges, a word of n bytes",
        SHORT,
        prepare=lambda n, rng: (letters(n, rng), learnt().ranks),
        call=naive_apply,
        time=2,
        memory=1,
    ),
    Probe(
        "encode n bytes for the first time",
        BYTES,
        prepare=fresh,
        call=lambda tokenizer, text: encode(BPETokenizer(tokenizer.merges), text),
        time=1,
    ),
    Probe(
        "encode n bytes of known words",
        BYTES,
        prepare=warm,
        call=encode,
        time=1,
        memory=1,
    ),
    Probe(
        "decode n ids",
        BYTES,
        prepare=lambda n, rng: (learnt(), rng.integers(0, learnt().vocab_size, n)),
        call=lambda tokenizer, ids: tokenizer.decode(ids),
        time=1,
        memory=1,
    ),
    Probe(
        "encode n characters",
        BYTES,
        prepare=lambda n, rng: (CharTokenizer("abcdefghijklmnopqrstuvwxyz"), letters(n, rng).decode()),
        call=encode,
        time=1,
        memory=1,
    ),
    Probe(
        "pad n rows of up to 100 ids",
        ROWS,
        prepare=lambda n, rng: ([rng.integers(0, 999, k) for k in rng.integers(1, 101, n)], 0),
        call=pad_sequences,
        time=1,
        memory=1,
    ),
)
