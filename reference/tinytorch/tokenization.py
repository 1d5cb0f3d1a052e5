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
        # kata 11.1: a list answers for ids, a dict for tokens.
        self.tokens = list(tokens)
        self._ids = {token: i for i, token in enumerate(self.tokens)}
        if len(self._ids) < len(self.tokens):
            twice = next(token for i, token in enumerate(self.tokens) if self._ids[token] != i)
            raise ValueError(f"the token {twice!r} is there twice")

    def __len__(self) -> int:
        # kata 11.1: the list knows.
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        # kata 11.1: the dict knows, without looking at each.
        return token in self._ids

    def token_to_id(self, token: Token) -> int:
        """The id of a token; a ValueError names one that is not there by its repr."""
        # kata 11.1: one look-up.
        if token not in self._ids:
            raise ValueError(f"there is no token {token!r} among {len(self)}")
        return self._ids[token]

    def id_to_token(self, index: int) -> Token:
        """The token of an id; a ValueError names one that is not there, and how many there are."""
        # kata 11.1: Python's lists have an element at -1, a vocabulary has none.
        if not 0 <= index < len(self.tokens):
            raise ValueError(f"there is no id {index} among {len(self)}")
        return self.tokens[index]


def split_special(text: str, special_tokens: Collection[str]) -> Iterator[tuple[str, bool]]:
    """The pieces of `text` in order, each with whether it is a special token; none is empty.

    Where several could begin at the same place, the longest is meant.
    """
    # kata 11.2: re.split keeps what a group in the pattern matched; the first alternative that fits wins.
    longest_first = sorted(special_tokens, key=len, reverse=True)
    pieces = re.split(f"({'|'.join(map(re.escape, longest_first))})", text) if special_tokens else [text]
    for i, piece in enumerate(pieces):
        if piece:
            yield piece, i % 2 == 1


def pad_sequences(
    sequences: Sequence[Array | Sequence[int]], pad_id: int, length: int | None = None
) -> tuple[Array, Array]:
    """Rows of ids as one int64 array (n, length), and a bool mask of that shape: where the ids are real.

    `sequences` are arrays or lists, in a list, or one array of two axes. Padding is on the right. `length` is
    that of the longest row, if not given, and 0 of no rows; where a row is longer, a ValueError names the
    length and the row's own. Both are new arrays.
    """
    # kata 11.3: an array full of pad_id, and a row of it at a time; the mask is one comparison of lengths.
    lengths = np.array([len(row) for row in sequences], np.int64)
    longest = int(lengths.max(initial=0))
    if length is None:
        length = longest
    if longest > length:
        raise ValueError(f"a row of {longest} ids does not fit a length of {length}")
    ids = np.full((len(sequences), length), pad_id, np.int64)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = sequence
    return ids, np.arange(length) < lengths[:, None]


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
        # kata 11.4: split_special, and the ids of each piece; np.concatenate wants one array at least.
        allowed = self.special_tokens if allowed_special == "all" else allowed_special
        if unknown := [token for token in allowed if token not in self.special_tokens]:
            raise ValueError(f"{unknown} are no special tokens; these are: {list(self.special_tokens)}")
        if not allowed:
            return self.encode_ordinary(text)
        parts = [
            np.array([self.special_tokens[piece]]) if special else self.encode_ordinary(piece)
            for piece, special in split_special(text, allowed)
        ]
        return np.concatenate([np.empty(0, np.int64), *parts])

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
        # kata 11.5: encode, cut, pad_sequences; rows that are equally long need no pad_id.
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length is {max_length}; a row has 1 id or more")
        rows = [self.encode(text, allowed_special)[:max_length] for text in texts]
        lengths = sorted({len(row) for row in rows})
        if len(lengths) > 1 and not pad:
            raise ValueError(f"rows of {lengths} ids make no array without padding")
        return pad_sequences(rows, self.pad_id if len(lengths) > 1 else 0)

    def save(self, path: str | Path) -> None:
        """Write the tokenizer to a JSON file: its "type", and what `state_dict` says, which stays as it is.

        Every string comes back, also half of a surrogate pair: in JSON, but not in UTF-8, it can be written.
        """
        # kata 11.6: json.dumps, and UTF-8 whatever the system prefers.
        state = {"type": type(self).__name__, **self.state_dict()}
        Path(path).write_text(json.dumps(state), encoding="utf-8")

    @classmethod
    def load(cls: type[Some], path: str | Path) -> Some:
        """The tokenizer in a JSON file. Nothing in a file is run.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, and be it by brackets without end, or of another class, above or
                below; it is named.
        """
        # kata 11.6: whatever is wrong with the file is one ValueError.
        try:
            state = json.loads(Path(path).read_text(encoding="utf-8"))
            if (kind := state.pop("type")) != cls.__name__:
                raise ValueError(f"it holds a {kind}")
            return cls(**state)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} is not a {cls.__name__}: {error}") from error


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
        # kata 11.7: the set of the characters of each ordinary piece, sorted.
        special_tokens = list(special_tokens)
        found: set[str] = set()
        for piece, special in split_special(text, special_tokens):
            if not special:
                found.update(piece)
        return cls(sorted(found), special_tokens)

    def encode_ordinary(self, text: str) -> Array:
        """The ids (n,) int64, one for each character.

        Raises:
            ValueError: a character that is not in the vocabulary, if there is no "<unk>"; named by its repr.
        """
        # kata 11.7: np.fromiter over one look-up a character; a special token of one character is none.
        unknown = self.special_tokens.get(UNK, -1)
        ids = np.fromiter(map(self._ids.get, text, itertools.repeat(unknown)), np.int64, len(text))
        if unknown < 0 and ids.min(initial=0) < 0:
            character = text[int(ids.argmin())]
            raise ValueError(f"the character {character!r} is not in the vocabulary, and there is no {UNK}")
        return ids

    def decode(self, ids: Iterable[int] | Array, skip_special_tokens: bool = False) -> str:
        """The text of the ids; a ValueError names an id that there is not."""
        # kata 11.7: `tokens_of` gives strings.
        return "".join(self.tokens_of(ids, skip_special_tokens))  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        return {"characters": self.characters, "special_tokens": list(self.special_tokens)}


# Words: what merges never go beyond.


def split_words(text: str) -> Iterator[str]:
    """The words of a text, in order; together they are the text again.

    A word is the first of these that fits: one of 's 't 're 've 'm 'll 'd; letters; digits; signs that are
    neither nor white space; underscores, each of these with one space before them if there is one; white
    space (of a run before something else all but its last character, which is a word if it is no space).
    """
    # kata 11.8: one alternative for each; \d are digits, [^\W\d_] are letters.
    pattern = r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?\d+| ?[^\s\w]+| ?_+|\s+(?!\S)|\s+"
    return (found.group() for found in re.finditer(pattern, text))


def count_words(text: str, special_tokens: Collection[str] = ()) -> dict[bytes, int]:
    """How often each word occurs, as UTF-8; the word that comes first is first. Special tokens are borders of
    words and no words.

    Raises:
        ValueError: half of a surrogate pair, which is no character and has no UTF-8.
    """
    # kata 11.9: count strings, and encode each different one once.
    counts: Counter[str] = Counter()
    for piece, special in split_special(text, special_tokens):
        if not special:
            counts.update(split_words(piece))
    return {word.encode(): count for word, count in counts.items()}


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
        # kata 11.10: two questions to ask before the answer.
        if position < 0 or self.ids[position] < 0:
            return None
        right = self.after[position]
        return (self.ids[position], self.ids[right]) if right >= 0 else None

    def join(self, position: int, new_id: int) -> None:
        """Put `new_id` in place of the id at a position and the one after it."""
        # kata 11.10: what is joined is marked as gone, and its neighbour on the right gets another.
        right = self.after[position]
        beyond = self.after[right]
        self.ids[position], self.ids[right] = new_id, -1
        self.after[position] = beyond
        if beyond >= 0:
            self.before[beyond] = position

    def rest(self) -> array[int]:
        """The ids that are left, in order."""
        # kata 11.10: all but those that are gone.
        return array("q", (i for i in self.ids if i >= 0))


def train_merges(words: Mapping[bytes, int], count: int, min_frequency: int = 2) -> list[Pair]:
    """The first `count` merges of byte-pair encoding, fewer if no pair occurs `min_frequency` (>= 1) times.

    Each is the pair of neighbours that occurs most often, as many times as its words do; of several the
    smallest pair. It is joined wherever it occurs, from left to right, and gets the next id, from 256 on.
    """
    # kata 11.11: count all pairs once, and note where they are. A merge changes only the counts of pairs
    # beside it. In a heap counts may be too high, never too low: look again when one comes out.
    chain = Chain(words)
    times = [n for word, n in words.items() for _ in word]
    counts: defaultdict[Pair, int] = defaultdict(int)
    where: defaultdict[Pair, list[int]] = defaultdict(list)
    for p, n in enumerate(times):
        if (pair := chain.pair(p)) is not None:
            counts[pair] += n
            where[pair].append(p)
    heap = [(-n, pair) for pair, n in counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < count:
        minus, best = heapq.heappop(heap)
        if counts[best] < -minus:
            heapq.heappush(heap, (-counts[best], best))
            continue
        if counts[best] < min_frequency:
            break
        new_id = BYTES + len(merges)
        merges.append(best)
        made = set()
        for p in where.pop(best):  # from left to right: so it was noted
            if chain.pair(p) != best:
                continue  # it has been joined to something else since it was noted
            n, left = times[p], chain.before[p]
            for gone in (chain.pair(left), chain.pair(chain.after[p])):
                if gone is not None:
                    counts[gone] -= n
            chain.join(p, new_id)
            for q in (left, p):
                if (pair := chain.pair(q)) is not None:
                    counts[pair] += n
                    where[pair].append(q)
                    made.add(pair)
        for pair in made:
            heapq.heappush(heap, (-counts[pair], pair))
    return merges


def apply_merges(word: bytes, ranks: Mapping[Pair, int]) -> array[int]:
    """The ids of a word: of all pairs that have a rank the lowest is joined first, from left to right.

    Args:
        ranks: the id that each pair becomes, which is higher than both.
    """
    # kata 11.12: neighbours as in a chain, in lists, which are quicker where a word is short; and a heap of
    # (rank, position), in which what is no longer there is passed over.
    end = len(word)
    ids = [*word, -1]  # a border to both sides: Python's ids[-1] is the last
    before, after = list(range(-1, end)), list(range(1, end + 1))
    heap = [(ranks[pair], p) for p, pair in enumerate(itertools.pairwise(word)) if pair in ranks]
    heapq.heapify(heap)
    while heap:
        new_id, p = heapq.heappop(heap)
        right = after[p]
        if ranks.get((ids[p], ids[right])) != new_id:
            continue  # one of the two has been joined to something else since it was noted
        left, beyond = before[p], after[right]
        ids[p], ids[right] = new_id, -1
        after[p], before[beyond] = beyond, p
        if (pair := (ids[left], new_id)) in ranks:
            heapq.heappush(heap, (ranks[pair], left))
        if (pair := (new_id, ids[beyond])) in ranks:
            heapq.heappush(heap, (ranks[pair], p))
    return array("q", [i for i in ids if i >= 0])


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
        # kata 11.13: the bytes of each token, by those of its parts; and ranks for `apply_merges`.
        tokens = [bytes([i]) for i in range(BYTES)]
        self.merges: list[Pair] = []
        for left, right in merges:
            if not all(isinstance(i, int) and 0 <= i < len(tokens) for i in (left, right)):
                raise ValueError(f"merge {len(self.merges)} joins {left} and {right} to id {len(tokens)}")
            tokens.append(tokens[left] + tokens[right])
            self.merges.append((left, right))
        super().__init__(tokens, special_tokens)
        self.ranks = {pair: i for i, pair in enumerate(self.merges, BYTES)}
        self._cache: dict[str, array[int]] = {}

    @classmethod
    def train(
        cls, text: str, vocab_size: int, special_tokens: Iterable[str] = (), min_frequency: int = 2
    ) -> BPETokenizer:
        """A tokenizer of at most `vocab_size` tokens: bytes, merges learned from `text`, special tokens.

        It is of the class it is called on. Special tokens in the text are borders of words.

        Raises:
            ValueError: a vocab_size that has no room for bytes and special tokens; it is named.
        """
        # kata 11.13: count_words, and train_merges for as many merges as there is room.
        special_tokens = list(special_tokens)
        room = vocab_size - BYTES - len(special_tokens)
        if room < 0:
            raise ValueError(f"vocab_size {vocab_size} has no room for {BYTES} bytes and {special_tokens}")
        return cls(train_merges(count_words(text, special_tokens), room, min_frequency), special_tokens)

    def encode_ordinary(self, text: str) -> Array:
        """The ids (n,) int64, word by word. At most CACHED_WORDS words of CACHED_LENGTH characters are kept.

        They are kept by this tokenizer and no longer than it lives, and serve the next texts.

        Raises:
            ValueError: half of a surrogate pair, which is no character and has no UTF-8.
        """
        # kata 11.14: apply_merges once for each different word, and `extend` one array of numbers.
        ids, cache = array("q"), self._cache
        for word in split_words(text):
            found = cache.get(word)
            if found is None:
                found = apply_merges(word.encode(), self.ranks)
                if len(word) <= CACHED_LENGTH:
                    if len(cache) >= CACHED_WORDS:
                        cache.clear()
                    cache[word] = found
            ids.extend(found)
        return np.array(ids, np.int64)

    def decode(self, ids: Iterable[int] | Array, skip_special_tokens: bool = False) -> str:
        """The text of the ids. What is not UTF-8, such as half of a character, becomes U+FFFD.

        Raises:
            ValueError: an id below 0 or not below vocab_size, which it names.
        """
        # kata 11.15: bytes first, text last: a character may begin in one token and end in another.
        tokens = self.tokens_of(ids, skip_special_tokens)
        data = b"".join(token if isinstance(token, bytes) else token.encode() for token in tokens)
        return data.decode(errors="replace")

    def state_dict(self) -> dict[str, Any]:
        return {"merges": self.merges, "special_tokens": list(self.special_tokens)}


def bytes_per_token(tokenizer: Tokenizer, text: str) -> float:
    """How many bytes of UTF-8 a token stands for, on average: what a vocabulary is paid for.

    The text is plain: special tokens in it are not made.

    Raises:
        ValueError: a text without a token.
    """
    # kata 11.16: ids are counted, not bytes of ids.
    count = len(tokenizer.encode(text))
    if not count:
        raise ValueError("a text without a token has no average")
    return len(text.encode()) / count
