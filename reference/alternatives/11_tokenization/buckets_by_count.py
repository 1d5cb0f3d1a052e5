"""Kata 11 with pairs in buckets by how often they occur, and a cache of the standard library."""

from __future__ import annotations

import functools
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

    Raises:
        ValueError: a token that is there twice, which it names.
    """

    def __init__(self, tokens: Iterable[Token]) -> None:
        self.tokens = list(tokens)
        self._ids = dict(zip(self.tokens, range(len(self.tokens)), strict=True))
        twice = [token for token, n in Counter(self.tokens).items() if n > 1]
        if twice:
            raise ValueError(f"more than once: {twice}")

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def token_to_id(self, token: Token) -> int:
        """The id of a token; a ValueError names one that is not there."""
        try:
            return self._ids[token]
        except KeyError:
            raise ValueError(f"{token!r} is not in the vocabulary") from None

    def id_to_token(self, index: int) -> Token:
        """The token of an id; a ValueError names one that is not there, and how many there are."""
        if index in range(len(self.tokens)):
            return self.tokens[index]
        raise ValueError(f"{index} is not in range({len(self.tokens)})")


def split_special(text: str, special_tokens: Collection[str]) -> Iterator[tuple[str, bool]]:
    """The pieces of `text` in order, each with whether it is a special token; none is empty.

    Where several could begin at the same place, the longest is meant.
    """
    by_length = sorted(special_tokens, key=lambda token: (-len(token), token))
    pattern = f"({'|'.join(map(re.escape, by_length))})"
    for piece in re.split(pattern, text) if by_length else [text]:
        if piece:
            yield piece, piece in special_tokens


def pad_sequences(
    sequences: Sequence[Array | Sequence[int]], pad_id: int, length: int | None = None
) -> tuple[Array, Array]:
    """Rows of ids as one int64 array (n, length), and a bool mask of that shape: where the ids are real.

    Padding is on the right. `length` is that of the longest row, if not given; a ValueError names it and a
    row that is longer.
    """
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    length = lengths.max(initial=0) if length is None else length
    if (too_long := lengths > length).any():
        raise ValueError(f"{lengths[too_long]} ids do not fit {length}")
    mask = np.arange(length)[None, :] < lengths[:, None]
    ids = np.empty(mask.shape, np.int64)
    for i, row in enumerate(sequences):
        ids[i, : lengths[i]] = row
        ids[i, lengths[i] :] = pad_id
    return ids, mask


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
            ValueError: an id below 0 or not below vocab_size, which it names.
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
        """The ids (n,) int64 of a text.

        Args:
            allowed_special: the special tokens that are looked for in the text, or "all". Others are text.

        Raises:
            ValueError: something allowed that is not special here, which it names.
        """
        if allowed_special == "all":
            allowed_special = tuple(self.special_tokens)
        if not set(allowed_special) <= set(self.special_tokens):
            raise ValueError(f"not special: {set(allowed_special) - set(self.special_tokens)}")
        ids: list[Array] = []
        for piece, special in split_special(text, allowed_special):
            ids.append(np.asarray([self.special_tokens[piece]]) if special else self.encode_ordinary(piece))
        return np.concatenate(ids).astype(np.int64, copy=False) if ids else np.array([], np.int64)

    def encode_batch(
        self,
        texts: Iterable[str],
        max_length: int | None = None,
        pad: bool = True,
        allowed_special: Collection[str] = (),
    ) -> tuple[Array, Array]:
        """The ids (n, length) int64 of several texts, and a bool mask of that shape: where they are real.

        Args:
            max_length: longer rows lose what comes after so many ids.
            pad: whether shorter rows are filled up with `pad_id`, on the right.

        Raises:
            ValueError: a max_length below 1; rows of different lengths, and no padding wanted or no "<pad>".
        """
        most = np.inf if max_length is None else max_length
        if most < 1:
            raise ValueError(f"no room for ids: {max_length}")
        rows = [self.encode(text, allowed_special) for text in texts]
        rows = [row if len(row) <= most else row[: int(most)] for row in rows]
        shortest, longest = min(map(len, rows), default=0), max(map(len, rows), default=0)
        if shortest < longest and not pad:
            raise ValueError(f"from {shortest} to {longest} ids, and no padding")
        return pad_sequences(rows, self.pad_id if shortest < longest else -1)

    def save(self, path: str | Path) -> None:
        """Write the tokenizer to a JSON file: its "type", and what `state_dict` says."""
        state = {"type": type(self).__name__, **self.state_dict()}
        Path(path).write_text(json.dumps(state), encoding="utf-8")

    @classmethod
    def load(cls: type[Some], path: str | Path) -> Some:
        """The tokenizer in a JSON file. Nothing in a file is run.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or holds another kind of tokenizer; it is named.
        """
        try:
            state = json.loads(Path(path).read_text(encoding="utf-8"))
            if (kind := state.pop("type")) != cls.__name__:
                raise ValueError(f"it holds a {kind}")
            return cls(**state)
        except (RecursionError, ValueError, TypeError, KeyError, AttributeError) as error:
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
        """A tokenizer of the characters of `text`, in the order of their code points.

        Special tokens in the text are no characters of it.
        """
        special_tokens = list(special_tokens)
        ordinary = (piece for piece, special in split_special(text, special_tokens) if not special)
        characters = {character for piece in ordinary for character in piece}
        return cls(sorted(characters, key=ord), special_tokens)

    def encode_ordinary(self, text: str) -> Array:
        """The ids (n,) int64, one for each character.

        Raises:
            ValueError: a character that is not in the vocabulary, if there is no "<unk>"; it is named.
        """
        place = self._ids
        try:
            if UNK in self.special_tokens:
                unknown = self.special_tokens[UNK]
                return np.fromiter((place.get(c, unknown) for c in text), np.int64, len(text))
            return np.fromiter((place[c] for c in text), np.int64, len(text))
        except KeyError as error:
            raise ValueError(f"unknown character {error.args[0]!r}") from None

    def decode(self, ids: Iterable[int] | Array, skip_special_tokens: bool = False) -> str:
        """The text of the ids; a ValueError names an id that there is not."""
        return "".join(self.tokens_of(ids, skip_special_tokens))  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        return {"characters": self.characters, "special_tokens": list(self.special_tokens)}


# Words: what merges never go beyond.


def split_words(text: str) -> Iterator[str]:
    """The words of a text, in order; together they are the text again.

    A word is the first of these that fits: one of 's 't 're 've 'm 'll 'd; letters; digits; signs that are
    neither nor white space; underscores, each of these with one space before them if there is one; white
    space (of a run before something else all but its last character).
    """
    letters, digits, signs = r"[^\W\d_]+", r"\d+", r"[^\s\w]+"
    pattern = re.compile(rf"'(?:s|t|re|ve|m|ll|d)| ?(?:{letters}|{digits}|{signs}|_+)|\s+(?!\S)|\s+")
    return map(re.Match.group, pattern.finditer(text))


def count_words(text: str, special_tokens: Collection[str] = ()) -> dict[bytes, int]:
    """How often each word occurs, as UTF-8. Special tokens are borders of words and no words.

    Raises:
        ValueError: half of a surrogate pair, which is no character and has no UTF-8.
    """
    pieces = (piece for piece, special in split_special(text, special_tokens) if not special)
    counts = Counter(word for piece in pieces for word in split_words(piece))
    return {word.encode(): counts[word] for word in counts}


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
        if position == -1:
            return None
        left, right = self.ids[position], self.after[position]
        return None if left == -1 or right == -1 else (left, self.ids[right])

    def join(self, position: int, new_id: int) -> None:
        """Put `new_id` in place of the id at a position and the one after it."""
        right = self.after[position]
        beyond = self.after[right]
        self.ids[position], self.ids[right] = new_id, -1
        self.after[position] = beyond
        if beyond >= 0:
            self.before[beyond] = position

    def rest(self) -> array[int]:
        """The ids that are left, in order."""
        return array("q", filter((-1).__ne__, self.ids))


class Buckets:
    """Pairs by their count. What occurs most often is found by going down from the last answer."""

    def __init__(self, counts: Mapping[Pair, int]) -> None:
        self.counts = dict(counts)
        self.pairs: defaultdict[int, set[Pair]] = defaultdict(set)
        for pair, n in counts.items():
            self.pairs[n].add(pair)
        self.levels = [-n for n in self.pairs]  # a heap of the counts for which there is a bucket
        heapq.heapify(self.levels)

    def add(self, pair: Pair, n: int) -> None:
        old = self.counts.get(pair, 0)
        self.counts[pair] = new = old + n
        if old:
            self.pairs[old].discard(pair)
        if new:
            if new not in self.pairs:
                heapq.heappush(self.levels, -new)
            self.pairs[new].add(pair)

    def best(self) -> tuple[int, Pair]:
        """The largest count and the smallest pair that has it; 0 if there is no pair."""
        while self.levels:
            if found := self.pairs[-self.levels[0]]:
                return -self.levels[0], min(found)
            del self.pairs[-heapq.heappop(self.levels)]
        return 0, (0, 0)


def train_merges(words: Mapping[bytes, int], count: int, min_frequency: int = 2) -> list[Pair]:
    """The first `count` merges of byte-pair encoding, fewer if no pair occurs `min_frequency` (>= 1) times.

    Each is the pair of neighbours that occurs most often, as many times as its words do; of several the
    smallest pair. It is joined wherever it occurs, from left to right, and gets the next id, from 256 on.
    """
    chain, merges = Chain(words), list[Pair]()
    times = array("q", [n for word, n in words.items() for _ in word])
    first: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for p, n in enumerate(times):
        if pair := chain.pair(p):
            first[pair] += n
            places[pair].add(p)
    buckets = Buckets(first)
    while len(merges) < count:
        most, best = buckets.best()
        if most < min_frequency or not most:
            break
        merges.append(best)
        changes: Counter[Pair] = Counter()

        def forget(p: int, changes: Counter[Pair] = changes) -> None:
            if pair := chain.pair(p):
                changes[pair] -= times[p]
                places[pair].discard(p)

        def note(p: int, changes: Counter[Pair] = changes) -> None:
            if pair := chain.pair(p):
                changes[pair] += times[p]
                places[pair].add(p)

        for p in sorted(places[best]):
            if chain.pair(p) == best:
                around = chain.before[p], p, chain.after[p]
                for q in around:
                    forget(q)
                chain.join(p, BYTES + len(merges) - 1)
                for q in around[:2]:
                    note(q)
        del places[best]
        for pair, n in changes.items():
            buckets.add(pair, n)
    return merges


def apply_merges(word: bytes, ranks: Mapping[Pair, int]) -> array[int]:
    """The ids of a word: of all pairs that have a rank the lowest is joined first, from left to right.

    Args:
        ranks: the id that each pair becomes, which is higher than both.
    """
    chain = Chain([word])
    waiting: dict[int, list[int]] = {}  # by rank: where a pair may be that has it
    for p, pair in enumerate(itertools.pairwise(word)):
        if pair in ranks:
            waiting.setdefault(ranks[pair], []).append(p)
    heap = list(waiting)
    heapq.heapify(heap)
    while heap:
        new_id = heapq.heappop(heap)
        for p in waiting.pop(new_id):
            found = chain.pair(p)
            if found is None or ranks.get(found) != new_id:
                continue
            chain.join(p, new_id)
            for q in (chain.before[p], p):
                made = chain.pair(q)
                rank = ranks.get(made) if made else None
                if rank is not None:
                    if rank not in waiting:
                        waiting[rank] = []
                        heapq.heappush(heap, rank)
                    waiting[rank].append(q)
    return chain.rest()


class BPETokenizer(Tokenizer):
    """Byte-level byte-pair encoding: ids 0 to 255 are the bytes, then come the merges', then special ones.

    Args:
        merges: pairs of ids; the first becomes id 256, the second 257, and so on.

    Raises:
        ValueError: a merge of ids that are not there yet, or of bytes that are a token already; it is named.
    """

    def __init__(self, merges: Iterable[Sequence[int]] = (), special_tokens: Iterable[str] = ()) -> None:
        tokens = [bytes([i]) for i in range(BYTES)]
        self.merges: list[Pair] = []
        for left, right in merges:
            if not all(isinstance(i, int) and 0 <= i < len(tokens) for i in (left, right)):
                raise ValueError(f"merge {len(self.merges)} joins {left} and {right} to id {len(tokens)}")
            tokens.append(tokens[left] + tokens[right])
            self.merges.append((left, right))
        super().__init__(tokens, special_tokens)
        self.ranks = {pair: i for i, pair in enumerate(self.merges, BYTES)}
        self._remembered = functools.lru_cache(CACHED_WORDS)(
            lambda word: apply_merges(word.encode(), self.ranks)
        )

    @classmethod
    def train(
        cls, text: str, vocab_size: int, special_tokens: Iterable[str] = (), min_frequency: int = 2
    ) -> BPETokenizer:
        """A tokenizer of at most `vocab_size` tokens: bytes, merges learned from `text`, special tokens.

        Raises:
            ValueError: a vocab_size that has no room for bytes and special tokens; it is named.
        """
        special_tokens = list(special_tokens)
        room = vocab_size - BYTES - len(special_tokens)
        if room < 0:
            raise ValueError(f"vocab_size {vocab_size} has no room for {BYTES} bytes and {special_tokens}")
        return cls(train_merges(count_words(text, special_tokens), room, min_frequency), special_tokens)

    def encode_ordinary(self, text: str) -> Array:
        """The ids (n,) int64, word by word. At most CACHED_WORDS words of CACHED_LENGTH characters are kept.

        Raises:
            ValueError: half of a surrogate pair, which is no character and has no UTF-8.
        """
        ids = itertools.chain.from_iterable(map(self._word, split_words(text)))
        return np.fromiter(ids, np.int64)

    def _word(self, word: str) -> array[int]:
        if len(word) > CACHED_LENGTH:
            return apply_merges(word.encode(), self.ranks)
        return self._remembered(word)

    def decode(self, ids: Iterable[int] | Array, skip_special_tokens: bool = False) -> str:
        """The text of the ids. What is not UTF-8, such as half of a character, becomes U+FFFD.

        Raises:
            ValueError: an id below 0 or not below vocab_size, which it names.
        """
        parts = self.tokens_of(ids, skip_special_tokens)
        return b"".join([p.encode() if isinstance(p, str) else p for p in parts]).decode("utf-8", "replace")

    def state_dict(self) -> dict[str, Any]:
        return {"merges": self.merges, "special_tokens": list(self.special_tokens)}


def bytes_per_token(tokenizer: Tokenizer, text: str) -> float:
    """How many bytes of UTF-8 a token stands for, on average: what a vocabulary is paid for.

    Raises:
        ValueError: a text without a token.
    """
    count = len(tokenizer.encode(text))
    if not count:
        raise ValueError("a text without a token has no average")
    return len(text.encode()) / count
