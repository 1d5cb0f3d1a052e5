"""What a trusted grade asks of kata 11: each check on fresh numbers, its answers as one array.

Texts travel as code points or bytes in int64 arrays.
"""

import itertools

import numpy as np

from dojo.strict import Check

# Merges, by counting everything anew before each.


def draw_words(rng):
    lengths = rng.integers(1, 12, int(rng.integers(2, 12)))
    return {
        "letters": rng.integers(97, 97 + int(rng.integers(2, 5)), int(lengths.sum())),
        "lengths": lengths,
        "times": rng.integers(1, 5, len(lengths)),
        "numbers": np.array([rng.integers(0, 20), rng.integers(1, 4)]),
    }


def run_training(student, letters, lengths, times, numbers):
    words, start = {}, 0
    for length, n in zip(lengths.tolist(), times.tolist(), strict=True):
        word = bytes(letters[start : start + length].tolist())
        words[word] = words.get(word, 0) + n
        start += length
    merges = student.train_merges(words, int(numbers[0]), int(numbers[1]))
    return np.array([list(pair) for pair in merges], np.int64).reshape(-1, 2)


def expected_training(letters, lengths, times, numbers):
    return np.array(slow_merges(*as_rows(letters, lengths, times), *numbers.tolist()), np.int64).reshape(
        -1, 2
    )


def as_rows(letters, lengths, times):
    ends = np.cumsum(lengths).tolist()
    rows = [letters[end - n : end].tolist() for end, n in zip(ends, lengths.tolist(), strict=True)]
    return rows, times.tolist()


def slow_join(ids, pair, new_id):
    out = []
    for i in ids:
        if out and (out[-1], i) == pair:
            out[-1] = new_id
        else:
            out.append(i)
    return out


def slow_merges(rows, times, count, least):
    merges = []
    while len(merges) < count:
        counts = {}
        for ids, n in zip(rows, times, strict=True):
            for pair in itertools.pairwise(ids):
                counts[pair] = counts.get(pair, 0) + n
        frequent = {pair: n for pair, n in counts.items() if n >= least}
        if not frequent:
            break
        best = sorted(frequent, key=lambda pair: (-frequent[pair], pair))[0]
        rows = [slow_join(ids, best, 256 + len(merges)) for ids in rows]
        merges.append(best)
    return merges


# The merges of one word.


def draw_word(rng):
    return {**draw_words(rng), "word": rng.integers(97, 101, int(rng.integers(0, 60)))}


def run_word(student, letters, lengths, times, numbers, word):
    words, start = {}, 0
    for length, n in zip(lengths.tolist(), times.tolist(), strict=True):
        part = bytes(letters[start : start + length].tolist())
        words[part] = words.get(part, 0) + n
        start += length
    merges = student.train_merges(words, 30, 1)
    ranks = {tuple(pair): i for i, pair in enumerate(merges, 256)}
    return np.array([int(i) for i in student.apply_merges(bytes(word.tolist()), ranks)], np.int64)


def expected_word(letters, lengths, times, numbers, word):
    ids = word.tolist()
    for new_id, pair in enumerate(slow_merges(*as_rows(letters, lengths, times), 30, 1), 256):
        ids = slow_join(ids, pair, new_id)
    return np.array(ids, np.int64)


# A text there and back: the ids are those of its words, and the text is the same.


def draw_text(rng):
    signs = np.array([ord(c) for c in "aaabbc  \n'st1,_\u00e9\u4e16\U0001f600"])
    return {"text": signs[rng.integers(0, len(signs), int(rng.integers(0, 200)))]}


def run_text(student, text):
    spelt = "".join(map(chr, text.tolist()))
    tokenizer = student.BPETokenizer.train(spelt + " " + spelt, 290, ["<|end|>"], 1)
    ids = tokenizer.encode(spelt)
    words = list(student.split_words(spelt))
    alone = [i for word in words for i in tokenizer.encode(word).tolist()]
    chars = student.CharTokenizer.train(spelt)
    return np.array(
        [
            tokenizer.decode(ids) == spelt,
            ids.dtype == np.int64 and ids.tolist() == alone,
            "".join(words) == spelt and "" not in words,
            chars.decode(chars.encode(spelt)) == spelt,
            tokenizer.encode(spelt + "<|end|>", "all").tolist()
            == [*alone, tokenizer.special_tokens["<|end|>"]],
            bool((tokenizer.encode("<|end|>") < tokenizer.special_tokens["<|end|>"]).all()),
        ]
    )


def expected_text(text):
    return np.ones(6, bool)


# Where a text is cut.


def draw_cuts(rng):
    signs = np.array([ord(c) for c in "aBc  \n\t'stre1,.!_\u00e9"])
    return {"text": signs[rng.integers(0, len(signs), int(rng.integers(0, 120)))]}


def run_cuts(student, text):
    return np.cumsum([0, *map(len, student.split_words("".join(map(chr, text.tolist()))))])


def expected_cuts(text):
    letters, cuts, i = "".join(map(chr, text.tolist())), [0], 0
    while i < len(letters):
        i += length_of_word(letters[i:])
        cuts.append(i)
    return np.array(cuts)


def kind(character):
    if character.isspace():
        return "space"
    return "digit" if character.isdigit() else "letter" if character.isalpha() else character == "_"


def run_of(text, kind_of):
    n = 0
    while n < len(text) and kind(text[n]) == kind_of:
        n += 1
    return n


def length_of_word(text):
    for ending in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d"):
        if text.startswith(ending):
            return len(ending)
    space = int(text[0] == " ")
    if len(text) > space and kind(text[space]) != "space":
        return space + run_of(text[space:], kind(text[space]))
    n = run_of(text, "space")
    return n if n == len(text) or n == 1 else n - 1


# Batches.


def draw_batch(rng):
    lengths = rng.integers(0, 9, int(rng.integers(1, 7)))
    return {
        "ids": rng.integers(0, 9, int(lengths.sum())),
        "lengths": lengths,
        "numbers": np.array([rng.integers(0, 9), rng.integers(0, 4)]),
    }


def run_batch(student, ids, lengths, numbers):
    ends = np.cumsum(lengths)
    rows = [ids[end - n : end] for end, n in zip(ends, lengths, strict=True)]
    length = int(lengths.max() + numbers[1]) if numbers[1] else None
    padded, mask = student.pad_sequences(rows, int(numbers[0]), length)
    return np.stack([padded, mask.astype(np.int64)])


def expected_batch(ids, lengths, numbers):
    length = int(lengths.max() + numbers[1])
    padded, mask = np.full((len(lengths), length), numbers[0]), np.zeros((len(lengths), length), np.int64)
    start = 0
    for i, n in enumerate(lengths.tolist()):
        padded[i, :n], mask[i, :n] = ids[start : start + n], 1
        start += n
    return np.stack([padded, mask])


# Any bytes have a text.


def draw_bytes(rng):
    return {"data": rng.integers(0, 256, int(rng.integers(0, 40)))}


def run_bytes(student, data):
    text = student.BPETokenizer([(195, 169), (97, 256)]).decode(data)
    return np.array([ord(c) for c in text], np.int64)


def expected_bytes(data):
    return np.array([ord(c) for c in bytes(data.tolist()).decode("utf-8", "replace")], np.int64)


CHECKS = (
    Check("merges that are learnt", draw_words, run_training, expected_training),
    Check("the merges of a word", draw_word, run_word, expected_word),
    Check("a text there and back", draw_text, run_text, expected_text),
    Check("where a text is cut", draw_cuts, run_cuts, expected_cuts),
    Check("batches", draw_batch, run_batch, expected_batch),
    Check("bytes that are no text", draw_bytes, run_bytes, expected_bytes),
)
