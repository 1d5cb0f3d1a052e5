"""Kata 11 beside naive versions and the package `tokenizers`: `python -m benchmarks.tokenization`.

The text is the documentation that comes with Python, 0.4 MB. A naive version counts everything anew before
each merge, or makes the merges of each word one after the other, as often as the word comes. The package is
asked if it is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pydoc_data.topics
from typing import Any

from benchmarks.beside import measure, reference, row, title

ours: Any = reference("tinytorch.tokenization")
compose: Any = reference("dojo.compose")
curriculum: Any = reference("dojo.curriculum")
naive: Any = compose.load_file(curriculum.ROOT / "katas/11_tokenization/probes.py")

MERGES = 512


def text() -> str:
    return "\n".join(pydoc_data.topics.topics.values())


def naive_encode(words: list[str], ranks: Any) -> list[int]:
    return [i for word in words for i in naive.naive_apply(word.encode(), ranks)]


def naive_decode(tokens: list[bytes], ids: list[int]) -> str:
    data = b""
    for i in ids:
        data += tokens[i]
    return data.decode()


def main() -> None:
    whole = text()
    some = whole[: len(whole) // 8]
    counts = ours.count_words(some)
    tokenizer = ours.BPETokenizer.train(whole, 256 + MERGES)
    words = list(ours.split_words(some))

    title(f"training on {len(some) // 1000} kB of text, beside counting before each merge")
    for merges in (16, 64, 256):
        row(
            f"{merges} merges",
            lambda n=merges: ours.train_merges(counts, n),  # type: ignore[misc]
            lambda n=merges: naive.naive_train(counts, n),  # type: ignore[misc]
        )
    unbroken = {some.replace(" ", "").encode()[:8192]: 1}
    row(
        "64 merges of 8 kB without a space",
        lambda: ours.train_merges(unbroken, 64),
        lambda: naive.naive_train(unbroken, 64),
    )

    title(f"{len(some) // 1000} kB of text, {MERGES} merges, beside all merges of each word")
    fresh = ours.BPETokenizer
    row(
        "encode, nothing seen before",
        lambda: fresh(tokenizer.merges).encode(some),
        lambda: naive_encode(words, tokenizer.ranks),
    )
    row(
        "encode, words seen before",
        lambda: tokenizer.encode(some),
        lambda: naive_encode(words, tokenizer.ranks),
    )
    letters = "".join(some.split()).encode()[:4096]
    row(
        "one word of 4 kB",
        lambda: ours.apply_merges(letters, tokenizer.ranks),
        lambda: naive.naive_apply(letters, tokenizer.ranks),
    )
    ids = tokenizer.encode(some)
    numbers = ids.tolist()
    row(
        "decode, beside adding bytes one token at a time",
        lambda: tokenizer.decode(ids),
        lambda: naive_decode(tokenizer.vocabulary.tokens, numbers),
    )
    if importlib.util.find_spec("tokenizers"):
        compare_with_library(whole)


def compare_with_library(whole: str) -> None:
    """The package is written in Rust; here on one thread. It notes for each token where it stood, too."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    library = importlib.import_module("tokenizers")
    models, pre, trainers = library.models, library.pre_tokenizers, library.trainers

    def train() -> Any:
        made = library.Tokenizer(models.BPE())
        made.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
        alphabet = pre.ByteLevel.alphabet()
        made.train_from_iterator(
            [whole],
            trainers.BpeTrainer(vocab_size=256 + MERGES, initial_alphabet=alphabet, show_progress=False),
        )
        return made

    theirs, mine = train(), ours.BPETokenizer.train(whole, 256 + MERGES)
    title(f"{len(whole) // 1000} kB of text, {MERGES} merges, beside the package tokenizers")
    row("train", lambda: ours.BPETokenizer.train(whole, 256 + MERGES), train)
    row("encode, words seen before", lambda: mine.encode(whole), lambda: theirs.encode(whole))
    ids = mine.encode(whole)
    other = theirs.encode(whole).ids
    row("decode", lambda: mine.decode(ids), lambda: theirs.decode(other))


if __name__ == "__main__":
    measure(main, __doc__)
