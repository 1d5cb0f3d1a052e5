"""Kata 11 · Characters, bytes and tokens: from text to the integers that a language model reads, and back.

A token is a piece of text, and its id is its place in a vocabulary. A `CharTokenizer` has a token for each
character it was shown. A `BPETokenizer` begins with the 256 bytes, so that no text is foreign to it, and
makes longer tokens of pairs that occur often. Special tokens, such as "<|endoftext|>", stand for what is
not text: they are made from a text only where the caller allows it. Ids are int64 arrays, new at each call. A
tokenizer never changes.
"""

from __future__ import annotations

import heapq
import itertools
import json
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from tinytorch.tensor import Array

__all__ = [
    "BPETokenizer", "Chain", "CharTokenizer", "Tokenizer", "Vocabulary", "apply_merges", "bytes_per_token",
    "count_words", "pad_sequences", "split_special", "split_words", "train_merges",
]  # fmt: skip

Token: TypeAlias = str | bytes
Pair: TypeAlias = tuple[int, int]
Some = TypeVar("Some", bound="Tokenizer")

PAD, UNK = "<pad>", "<unk>"  # the special tokens that have a meaning here
BYTES = 256  # the first ids of a BPETokenizer: id 97 is the byte 97
CACHED_WORDS = 1 << 14  # a BPETokenizer remembers so many words at most,
CACHED_LENGTH = 64  # and none with more characters than this


# Tokens and ids.


class Vocabulary:
    """Tokens in the order of their ids, 0, 1, 2, ...; each is there once.

    Attributes:
        tokens: a list of them, its own.

    Raises:
        ValueError: a token that is there twice, which it names by its repr.
    """

    def __init__(self, tokens: Iterable[Token]) -> None:
        # TODO 11.1: a list answers for ids, a dict for tokens.
        raise NotImplementedError("kata 11.1: Vocabulary.__init__")

    def __len__(self) -> int:
        # TODO 11.1: the list knows.
        raise NotImplementedError("kata 11.1: Vocabulary.__len__")

    def __contains__(self, token: object) -> bool:
        # TODO 11.1: the dict knows, without looking at each.
        raise NotImplementedError("kata 11.1: Vocabulary.__contains__")

    def token_to_id(self, token: Token) -> int:
        """The id of a token; a ValueError names one that is not there by its repr."""
        # TODO 11.1: one look-up.
        raise NotImplementedError("kata 11.1: Vocabulary.token_to_id")

    def id_to_token(self, index: int) -> Token:
        """The token of an id; a ValueError names one that is not there, and how many there are."""
        # TODO 11.1: Python's lists have an element at -1, a vocabulary has none.
        raise NotImplementedError("kata 11.1: Vocabulary.id_to_token")


def split_special(text: str, special_tokens: Collection[str]) -> Iterator[tuple[str, bool]]:
    """The pieces of `text` in order, each with whether it is a special token; none is empty.

    Where several could begin at the same place, the longest is meant.
    """
    # TODO 11.2: re.split keeps what a group in the pattern matched; the first alternative that fits wins.
    raise NotImplementedError("kata 11.2: split_special")


def pad_sequences(
    sequences: Sequence[Array | Sequence[int]], pad_id: int, length: int | None = None
) -> tuple[Array, Array]:
    """Rows of ids as one int64 array (n, length), and a bool mask of that shape: where the ids are real.

    `sequences` are arrays or lists, in a list, or one array of two axes. Padding is on the right. `length` is
    that of the longest row, if not given, and 0 of no rows; where a row is longer, a ValueError names the
    length and the row's own. Both are new arrays.
    """
    # TODO 11.3: an array full of pad_id, and a row of it at a time; the mask is one comparison of lengths.
    raise NotImplementedError("kata 11.3: pad_sequences")


class Tokenizer:
    """What all tokenizers have in common. A subclass has `encode_ordinary`, `decode` and `state_dict`.

    Args:
        tokens: the ordinary ones, with ids from 0.
        special_tokens: their ids come after. "<pad>" is what batches are padded with, if it is among them.

    Raises:
        ValueError: a token that is there twice, or a special one without a character.
    """

    def __init__(self, tokens: Iterable[Token], special_tokens: Iterable[str] = ()) -> None:
        special_tokens = list(special_tokens)
        if not all(isinstance(token, str) and token for token in special_tokens):
            raise ValueError(f"special tokens are strings with a character or more, not {special_tokens}")
        self.vocabulary = Vocabulary([*tokens, *special_tokens])
        self.special_tokens = {token: self.vocabulary.token_to_id(token) for token in special_tokens}

    @property
    def vocab_size(self) -> int:
        """How many ids there are: the rows that an embedding needs."""
        return len(self.vocabulary)

    @property
    def pad_id(self) -> int:
        """The id of "<pad>"; ValueError if that is not among the special tokens."""
        return self.vocabulary.token_to_id(PAD)

    def encode_ordinary(self, text: str) -> Array:
        """The ids (n,) int64 of a text in which nothing is special."""
        raise TypeError(f"{type(self).__name__} has no encode_ordinary")

    def decode(self, ids: Iterable[int] | Array, skip_special_tokens: bool = False) -> str:
        """The text of the ids."""
        raise TypeError(f"{type(self).__name__} has no decode")

    def state_dict(self) -> dict[str, Any]:
        """The arguments that make this tokenizer again, as lists, numbers and strings."""
        raise TypeError(f"{type(self).__name__} has no state_dict")

    def tokens_of(self, ids: Iterable[int] | Array, skip_special_tokens: bool = False) -> list[Token]:
        """The token of each id. Given: `decode` puts them together.

        Raises:
            ValueError: what is no integer; an id below 0 or not below vocab_size, which it names.
        """
        found = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids))
        if found.size and found.dtype.kind not in "iu":
            raise ValueError(f"ids are integers, not {found.dtype}")
        if found.size and (found.min() < 0 or found.max() >= self.vocab_size):
            wrong = found[(found < 0) | (found >= self.vocab_size)][0]
            raise ValueError(f"there is no id {wrong} among {self.vocab_size}")
        tokens = self.vocabulary.tokens
        special = set(self.special_tokens.values()) if skip_special_tokens else ()
        return [tokens[i] for i in found.ravel().tolist() if i not in special]

    def encode(self, text: str, allowed_special: Collection[str] = ()) -> Array:
        """The ids (n,) int64 of a text, joined once: time grows with the pieces, not with their square.

        Args:
            allowed_special: the special tokens that are looked for in the text, or "all". Others are text.
                Any other string is a collection of its characters.

        Raises:
            ValueError: something allowed that is not special here, which it names.
        """
        # TODO 11.4: split_special, and the ids of each piece; np.concatenate wants one array at least.
        raise NotImplementedError("kata 11.4: Tokenizer.encode")

    def encode_batch(
        self,
        texts: Iterable[str],
        max_length: int | None = None,
        pad: bool = True,
        allowed_special: Collection[str] = (),
    ) -> tuple[Array, Array]:
        """The ids (n, length) int64 of several texts, and a bool mask of that shape: where they are real.

        Each text is encoded once.

        Args:
            max_length: longer rows lose what comes after so many ids.
            pad: whether shorter rows are filled up with `pad_id`, on the right.

        Raises:
            ValueError: a max_length below 1, naming it; rows of different lengths, and no padding wanted,
                naming the lengths, or no "<pad>", naming that.
        """
        # TODO 11.5: encode, cut, pad_sequences; rows that are equally long need no pad_id.
        raise NotImplementedError("kata 11.5: Tokenizer.encode_batch")

    def save(self, path: str | Path) -> None:
        """Write the tokenizer to a JSON file: its "type", and what `state_dict` says, which stays as it is.

        Every string comes back, also half of a surrogate pair: in JSON, but not in UTF-8, it can be written.
        """
        # TODO 11.6: json.dumps, and UTF-8 whatever the system prefers.
        raise NotImplementedError("kata 11.6: Tokenizer.save")

    @classmethod
    def load(cls: type[Some], path: str | Path) -> Some:
        """The tokenizer in a JSON file. Nothing in a file is run.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, and be it by brackets without end, or of another class, above or
                below; it is named.
        """
        # TODO 11.6: whatever is wrong with the file is one ValueError.
        raise NotImplementedError("kata 11.6: Tokenizer.load")


class CharTokenizer(Tokenizer):
    """A token for each character. What it does not know is "<unk>", if that is among its special tokens.

    Raises:
        ValueError: a character that is there twice or is not one character.
    """

    def __init__(self, characters: Iterable[str], special_tokens: Iterable[str] = ()) -> None:
        characters = list(characters)
        if wrong := [c for c in characters if not isinstance(c, str) or len(c) != 1]:
            raise ValueError(f"{wrong} are not single characters")
        super().__init__(characters, special_tokens)
        self.characters = characters
        self._ids = {character: i for i, character in enumerate(characters)}

    @classmethod
    def train(cls, text: str, special_tokens: Iterable[str] = ()) -> CharTokenizer:
        """A tokenizer, of the class it is called on, of the characters of `text` by their code points.

        Special tokens in the text are no characters of it.
        """
        # TODO 11.7: the set of the characters of each ordinary piece, sorted.
        raise NotImplementedError("kata 11.7: CharTokenizer.train")

    def encode_ordinary(self, text: str) -> Array:
        """The ids (n,) int64, one for each character.

        Raises:
            ValueError: a character that is not in the vocabulary, if there is no "<unk>"; named by its repr.
        """
        # TODO 11.7: np.fromiter over one look-up a character; a special token of one character is none.
        raise NotImplementedError("kata 11.7: CharTokenizer.encode_ordinary")

    def decode(self, ids: Iterable[int] | Array, skip_special_tokens: bool = False) -> str:
        """The text of the ids; a ValueError names an id that there is not."""
        # TODO 11.7: `tokens_of` gives strings.
        raise NotImplementedError("kata 11.7: CharTokenizer.decode")

    def state_dict(self) -> dict[str, Any]:
        return {"characters": self.characters, "special_tokens": list(self.special_tokens)}


# Words: what merges never go beyond.


def split_words(text: str) -> Iterator[str]:
    """The words of a text, in order; together they are the text again.

    A word is the first of these that fits: one of 's 't 're 've 'm 'll 'd; letters; digits; signs that are
    neither nor white space; underscores, each of these with one space before them if there is one; white
    space (of a run before something else all but its last character, which is a word if it is no space).
    """
    # TODO 11.8: one alternative for each; \d are digits, [^\W\d_] are letters.
    raise NotImplementedError("kata 11.8: split_words")


def count_words(text: str, special_tokens: Collection[str] = ()) -> dict[bytes, int]:
    """How often each word occurs, as UTF-8; the word that comes first is first. Special tokens are borders of
    words and no words.

    Raises:
        ValueError: half of a surrogate pair, which is no character and has no UTF-8.
    """
    # TODO 11.9: count strings, and encode each different one once.
    raise NotImplementedError("kata 11.9: count_words")


# Merges.


class Chain:
    """Words as rows of ids in which neighbours can be joined: no id ever moves, so positions stay valid.

    Attributes:
        ids: the id at each position, at first the bytes of all words one after the other; -1 where the id was
        joined to the one on its left.
        before, after: the position of the neighbour in the same word; -1 if there is none.
    """

    def __init__(self, words: Iterable[bytes]) -> None:
        self.ids = array("q")
        self.before, self.after = array("q"), array("q")
        for word in words:
            start, end = len(self.ids), len(self.ids) + len(word)
            self.ids.extend(word)
            self.before.extend(range(start - 1, end - 1))
            self.after.extend(range(start + 1, end + 1))
            if word:
                self.before[start] = self.after[end - 1] = -1

    def pair(self, position: int) -> Pair | None:
        """The id at a position and the one after it; None if one of them is not there, or position is -1."""
        # TODO 11.10: two questions to ask before the answer.
        raise NotImplementedError("kata 11.10: Chain.pair")

    def join(self, position: int, new_id: int) -> None:
        """Put `new_id` in place of the id at a position and the one after it."""
        # TODO 11.10: what is joined is marked as gone, and its neighbour on the right gets another.
        raise NotImplementedError("kata 11.10: Chain.join")

    def rest(self) -> array[int]:
        """The ids that are left, in order."""
        # TODO 11.10: all but those that are gone.
        raise NotImplementedError("kata 11.10: Chain.rest")


def train_merges(words: Mapping[bytes, int], count: int, min_frequency: int = 2) -> list[Pair]:
    """The first `count` merges of byte-pair encoding, fewer if no pair occurs `min_frequency` (>= 1) times.

    Each is the pair of neighbours that occurs most often, as many times as its words do; of several the
    smallest pair. It is joined wherever it occurs, from left to right, and gets the next id, from 256 on.
    """
    # TODO 11.11: count all pairs once, and note where they are. A merge changes only the counts of pairs
    # beside it. In a heap counts may be too high, never too low: look again when one comes out.
    raise NotImplementedError("kata 11.11: train_merges")


def apply_merges(word: bytes, ranks: Mapping[Pair, int]) -> array[int]:
    """The ids of a word: of all pairs that have a rank the lowest is joined first, from left to right.

    Args:
        ranks: the id that each pair becomes, which is higher than both.
    """
    # TODO 11.12: neighbours as in a chain, in lists, which are quicker where a word is short; and a heap of
    # (rank, position), in which what is no longer there is passed over.
    raise NotImplementedError("kata 11.12: apply_merges")


class BPETokenizer(Tokenizer):
    """Byte-level byte-pair encoding: ids 0 to 255 are the bytes, then come the merges', then special ones.

    Args:
        merges: pairs of ids; the first becomes id 256, the second 257, and so on.

    Attributes:
        merges: a list of these pairs, its own.
        ranks: the id that each pair (a tuple) becomes.

    Raises:
        ValueError: a merge of what are no ids (97.0 is none), of ids that are not there yet, or of bytes that
            are a token already; its two are named.
    """

    def __init__(self, merges: Iterable[Sequence[int]] = (), special_tokens: Iterable[str] = ()) -> None:
        # TODO 11.13: the bytes of each token, by those of its parts; and ranks for `apply_merges`.
        raise NotImplementedError("kata 11.13: BPETokenizer.__init__")

    @classmethod
    def train(
        cls, text: str, vocab_size: int, special_tokens: Iterable[str] = (), min_frequency: int = 2
    ) -> BPETokenizer:
        """A tokenizer of at most `vocab_size` tokens: bytes, merges learned from `text`, special tokens.

        It is of the class it is called on. Special tokens in the text are borders of words.

        Raises:
            ValueError: a vocab_size that has no room for bytes and special tokens; it is named.
        """
        # TODO 11.13: count_words, and train_merges for as many merges as there is room.
        raise NotImplementedError("kata 11.13: BPETokenizer.train")

    def encode_ordinary(self, text: str) -> Array:
        """The ids (n,) int64, word by word. At most CACHED_WORDS words of CACHED_LENGTH characters are kept.

        They are kept by this tokenizer and no longer than it lives, and serve the next texts.

        Raises:
            ValueError: half of a surrogate pair, which is no character and has no UTF-8.
        """
        # TODO 11.14: apply_merges once for each different word, and `extend` one array of numbers.
        raise NotImplementedError("kata 11.14: BPETokenizer.encode_ordinary")

    def decode(self, ids: Iterable[int] | Array, skip_special_tokens: bool = False) -> str:
        """The text of the ids. What is not UTF-8, such as half of a character, becomes U+FFFD.

        Raises:
            ValueError: an id below 0 or not below vocab_size, which it names.
        """
        # TODO 11.15: bytes first, text last: a character may begin in one token and end in another.
        raise NotImplementedError("kata 11.15: BPETokenizer.decode")

    def state_dict(self) -> dict[str, Any]:
        return {"merges": self.merges, "special_tokens": list(self.special_tokens)}


def bytes_per_token(tokenizer: Tokenizer, text: str) -> float:
    """How many bytes of UTF-8 a token stands for, on average: what a vocabulary is paid for.

    The text is plain: special tokens in it are not made.

    Raises:
        ValueError: a text without a token.
    """
    # TODO 11.16: ids are counted, not bytes of ids.
    raise NotImplementedError("kata 11.16: bytes_per_token")
