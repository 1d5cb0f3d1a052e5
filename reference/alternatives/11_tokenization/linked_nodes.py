"""Kata 11 with nodes that know their neighbours, and a heap of nodes' pairs; loops where they are plain."""

from __future__ import annotations

import heapq
import json
import re
from array import array
from collections import defaultdict
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
        self.tokens: list[Token] = []
        self._ids: dict[Token, int] = {}
        for token in tokens:
            if token in self._ids:
                raise ValueError(f"{token!r} has the id {self._ids[token]} already")
            self._ids[token] = len(self.tokens)
            self.tokens.append(token)

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def token_to_id(self, token: Token) -> int:
        """The id of a token; a ValueError names one that is not there."""
        index = self._ids.get(token)
        if index is None:
            raise ValueError(f"no token {token!r}")
        return index

    def id_to_token(self, index: int) -> Token:
        """The token of an id; a ValueError names one that is not there, and how many there are."""
        if index < 0:
            raise ValueError(
                f"{index} is below 0; ids go up to {len(self.tokens) - 1}, of {len(self.tokens)}"
            )
        try:
            return self.tokens[index]
        except IndexError:
            raise ValueError(f"{index} is beyond the {len(self.tokens)} ids") from None


def split_special(text: str, special_tokens: Collection[str]) -> Iterator[tuple[str, bool]]:
    """The pieces of `text` in order, each with whether it is a special token; none is empty.

    Where several could begin at the same place, the longest is meant.
    """
    if not special_tokens:
        if text:
            yield text, False
        return
    pattern = "|".join(re.escape(token) for token in sorted(special_tokens, key=lambda t: -len(t)))
    done = 0
    for found in re.finditer(pattern, text):
        if found.start() > done:
            yield text[done : found.start()], False
        yield found.group(), True
        done = found.end()
    if done < len(text):
        yield text[done:], False


def pad_sequences(
    sequences: Sequence[Array | Sequence[int]], pad_id: int, length: int | None = None
) -> tuple[Array, Array]:
    """Rows of ids as one int64 array (n, length), and a bool mask of that shape: where the ids are real.

    Padding is on the right. `length` is that of the longest row, if not given; a ValueError names it and a
    row that is longer.
    """
    lengths = [len(row) for row in sequences]
    if length is None:
        length = max(lengths, default=0)
    ids = np.full((len(lengths), length), pad_id, dtype=np.int64)
    mask = np.zeros(ids.shape, dtype=bool)
    for i, (row, n) in enumerate(zip(sequences, lengths, strict=True)):
        if n > length:
            raise ValueError(f"row {i} has {n} ids, more than {length}")
        ids[i, :n] = row
        mask[i, :n] = True
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
        allowed = set(self.special_tokens) if allowed_special == "all" else set(allowed_special)
        for token in allowed:
            if token not in self.special_tokens:
                raise ValueError(f"{token!r} is not special")
        rows = [np.zeros(0, np.int64)]
        for piece, special in split_special(text, allowed):
            rows.append(
                np.full(1, self.special_tokens[piece], np.int64) if special else self.encode_ordinary(piece)
            )
        return np.concatenate(rows)

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
        if max_length is not None and max_length <= 0:
            raise ValueError(f"max_length must be positive, not {max_length}")
        rows = []
        for text in texts:
            ids = self.encode(text, allowed_special)
            rows.append(ids if max_length is None else ids[:max_length])
        if len({len(row) for row in rows}) <= 1:
            return pad_sequences(rows, 0)
        if not pad:
            raise ValueError(f"lengths differ: {[len(row) for row in rows]}")
        return pad_sequences(rows, self.pad_id)

    def save(self, path: str | Path) -> None:
        """Write the tokenizer to a JSON file: its "type", and what `state_dict` says."""
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"type": type(self).__name__} | self.state_dict(), file, indent=1)

    @classmethod
    def load(cls: type[Some], path: str | Path) -> Some:
        """The tokenizer in a JSON file. Nothing in a file is run.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or holds another kind of tokenizer; it is named.
        """
        with open(path, "rb") as file:
            data = file.read()
        try:
            state = json.loads(data)
            if not isinstance(state, dict) or state.get("type") != cls.__name__:
                raise ValueError("another kind of file")
            del state["type"]
            return cls(**state)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path}: {error}") from None


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
        special = list(special_tokens)
        pieces = [piece for piece, is_special in split_special(text, special) if not is_special]
        return cls(sorted(set().union(*pieces)), special)

    def encode_ordinary(self, text: str) -> Array:
        """The ids (n,) int64, one for each character.

        Raises:
            ValueError: a character that is not in the vocabulary, if there is no "<unk>"; it is named.
        """
        ids = np.empty(len(text), np.int64)
        unknown = self.special_tokens.get(UNK)
        for i, character in enumerate(text):
            index = self._ids.get(character, unknown)
            if index is None:
                raise ValueError(f"{character!r} at {i} is none of {len(self.characters)} characters")
            ids[i] = index
        return ids

    def decode(self, ids: Iterable[int] | Array, skip_special_tokens: bool = False) -> str:
        """The text of the ids; a ValueError names an id that there is not."""
        return "".join(self.tokens_of(ids, skip_special_tokens))  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        return {"characters": self.characters, "special_tokens": list(self.special_tokens)}


# Words: what merges never go beyond.


WORD = re.compile(r"'(?:[stmd]|re|ve|ll)| ?[^\W\d_]+| ?\d+| ?[^\s\w]+| ?_+|\s+(?!\S)|\s+")


def split_words(text: str) -> Iterator[str]:
    """The words of a text, in order; together they are the text again.

    A word is the first of these that fits: one of 's 't 're 've 'm 'll 'd; letters; digits; signs that are
    neither nor white space; underscores, each of these with one space before them if there is one; white
    space (of a run before something else all but its last character).
    """
    for found in WORD.finditer(text):
        yield found.group()


def count_words(text: str, special_tokens: Collection[str] = ()) -> dict[bytes, int]:
    """How often each word occurs, as UTF-8. Special tokens are borders of words and no words.

    Raises:
        ValueError: half of a surrogate pair, which is no character and has no UTF-8.
    """
    counts: dict[str, int] = {}
    for piece, special in split_special(text, special_tokens):
        if special:
            continue
        for word in split_words(piece):
            counts[word] = counts.get(word, 0) + 1
    return {word.encode("utf-8"): n for word, n in counts.items()}


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
        if position >= 0 and self.ids[position] >= 0 and self.after[position] >= 0:
            return self.ids[position], self.ids[self.after[position]]
        return None

    def join(self, position: int, new_id: int) -> None:
        """Put `new_id` in place of the id at a position and the one after it."""
        right = self.after[position]
        self.ids[position] = new_id
        self.ids[right] = -1
        self.after[position] = self.after[right]
        if self.after[right] != -1:
            self.before[self.after[right]] = position

    def rest(self) -> array[int]:
        """The ids that are left, in order."""
        return array("q", [i for i in self.ids if i != -1])


class Node:
    """An id in a word, between its neighbours; `id` is -1 once it is gone."""

    __slots__ = ("after", "before", "id", "times")

    def __init__(self, id: int, times: int, before: Node | None) -> None:
        self.id, self.times, self.before = id, times, before
        self.after: Node | None = None
        if before is not None:
            before.after = self

    def is_pair(self, pair: Pair) -> bool:
        return self.id == pair[0] and self.after is not None and self.after.id == pair[1]

    def join(self, new_id: int) -> None:
        """Take the place of the next one too."""
        gone = self.after
        assert gone is not None
        self.id, self.after = new_id, gone.after
        gone.id, gone.before, gone.after = -1, None, None
        if self.after is not None:
            self.after.before = self


def train_merges(words: Mapping[bytes, int], count: int, min_frequency: int = 2) -> list[Pair]:
    """The first `count` merges of byte-pair encoding, fewer if no pair occurs `min_frequency` (>= 1) times.

    Each is the pair of neighbours that occurs most often, as many times as its words do; of several the
    smallest pair. It is joined wherever it occurs, from left to right, and gets the next id, from 256 on.
    """
    counts: defaultdict[Pair, int] = defaultdict(int)
    places: defaultdict[Pair, list[Node]] = defaultdict(list)
    for word, n in words.items():
        node = None
        for byte in word:
            node = Node(byte, n, node)
            if (left := node.before) is not None:
                counts[left.id, byte] += n
                places[left.id, byte].append(left)
    heap = [(-n, *pair) for pair, n in counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while len(merges) < count and heap:
        least, *ids = heapq.heappop(heap)
        pair = (ids[0], ids[1])
        if counts[pair] != -least:  # out of date
            if counts[pair] > 0:
                heapq.heappush(heap, (-counts[pair], *pair))
            continue
        if -least < min_frequency:
            break
        new_id = BYTES + len(merges)
        merges.append(pair)
        changed = set()
        for node in places.pop(pair):
            if not node.is_pair(pair):
                continue
            left, right = node.before, node.after.after  # type: ignore[union-attr]
            node.join(new_id)
            counts[pair] -= node.times
            if left is not None:
                counts[left.id, pair[0]] -= node.times
                counts[left.id, new_id] += node.times
                places[left.id, new_id].append(left)
                changed.add((left.id, new_id))
            if right is not None:
                counts[pair[1], right.id] -= node.times
                counts[new_id, right.id] += node.times
                places[new_id, right.id].append(node)
                changed.add((new_id, right.id))
        for made in changed:
            if counts[made] > 0:
                heapq.heappush(heap, (-counts[made], *made))
    return merges


def apply_merges(word: bytes, ranks: Mapping[Pair, int]) -> array[int]:
    """The ids of a word: of all pairs that have a rank the lowest is joined first, from left to right.

    Args:
        ranks: the id that each pair becomes, which is higher than both.
    """
    nodes: list[Node] = []
    for byte in word:
        nodes.append(Node(byte, 1, nodes[-1] if nodes else None))
    heap: list[tuple[int, int, Pair]] = []
    place = {id(node): i for i, node in enumerate(nodes)}

    def note(node: Node | None) -> None:
        if node is not None and node.after is not None:
            pair = (node.id, node.after.id)
            if pair in ranks:
                heapq.heappush(heap, (ranks[pair], place[id(node)], pair))

    for node in nodes:
        note(node)
    while heap:
        new_id, p, pair = heapq.heappop(heap)
        if nodes[p].is_pair(pair):
            nodes[p].join(new_id)
            note(nodes[p].before)
            note(nodes[p])
    return array("q", [node.id for node in nodes if node.id >= 0])


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
        self._cache: dict[str, array[int]] = {}

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
        ids = array("q")
        for word in split_words(text):
            if word not in self._cache:
                merged = apply_merges(word.encode(), self.ranks)
                if len(word) > CACHED_LENGTH:
                    ids.extend(merged)
                    continue
                if len(self._cache) == CACHED_WORDS:
                    del self._cache[next(iter(self._cache))]  # the first that came
                self._cache[word] = merged
            ids.extend(self._cache[word])
        return np.frombuffer(ids, np.int64).copy() if ids else np.zeros(0, np.int64)

    def decode(self, ids: Iterable[int] | Array, skip_special_tokens: bool = False) -> str:
        """The text of the ids. What is not UTF-8, such as half of a character, becomes U+FFFD.

        Raises:
            ValueError: an id below 0 or not below vocab_size, which it names.
        """
        data = bytearray()
        for token in self.tokens_of(ids, skip_special_tokens):
            data += token.encode() if isinstance(token, str) else token
        return data.decode("utf-8", "replace")

    def state_dict(self) -> dict[str, Any]:
        return {"merges": self.merges, "special_tokens": list(self.special_tokens)}


def bytes_per_token(tokenizer: Tokenizer, text: str) -> float:
    """How many bytes of UTF-8 a token stands for, on average: what a vocabulary is paid for.

    Raises:
        ValueError: a text without a token.
    """
    count = tokenizer.encode(text).size
    if count == 0:
        raise ValueError("no tokens")
    return len(text.encode()) / count
