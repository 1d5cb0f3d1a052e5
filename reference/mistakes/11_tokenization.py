"""Believable wrong solutions of kata 11.  Each takes the reference and spoils one thing in it."""
# ruff: noqa: E501 (what is changed is written as it stands in the reference)

from pathlib import Path

import numpy as np

from dojo.mistakes import caught_by, rewritten


def _changed(m, *changes):
    """The module in other words: each of `changes` is (what stood there, what stands now)."""
    source = Path(m.__file__).read_text("utf-8")
    for old, new in changes:
        assert source.count(old) == 1, (source.count(old), old)
        source = source.replace(old, new)
    exec(compile(source, m.__file__, "exec"), vars(m))


# 11.1 Vocabulary


@caught_by(1)
def python_has_an_element_at_minus_one(m):
    _changed(m, ("if not 0 <= index < len(self.tokens):", "if index >= len(self.tokens):"))


@caught_by(1)
def an_id_may_be_as_large_as_the_vocabulary(m):
    _changed(m, ("if not 0 <= index < len(self.tokens):", "if not 0 <= index <= len(self.tokens):"))


@caught_by(1)
def a_token_that_is_there_twice_gets_two_ids(m):
    _changed(m, ("if len(self._ids) < len(self.tokens):", "if False:"))


@caught_by(1)
def the_list_of_tokens_is_the_callers(m):
    _changed(
        m,
        ("self.tokens = list(tokens)\n", "self.tokens = tokens if type(tokens) is list else list(tokens)\n"),
    )


@caught_by(1)
def an_unknown_token_is_a_key_error(m):
    _changed(
        m,
        (
            "if token not in self._ids:\n            raise ValueError",
            "if False:\n            raise ValueError",
        ),
    )


@caught_by(1)
def bytes_and_text_are_the_same_token(m):
    _changed(
        m,
        (
            "{token: i for i, token in enumerate(self.tokens)}",
            "{t.decode('latin-1') if isinstance(t, bytes) else t: i for i, t in enumerate(self.tokens)}",
        ),
        ("return token in self._ids", "return str(token) in self._ids"),
    )


@caught_by(4)
def a_token_is_looked_for_in_the_list(m):
    def token_to_id(self, token):
        if token not in self.tokens:
            raise ValueError(f"there is no token {token!r}")
        return self.tokens.index(token)

    m.Vocabulary.token_to_id = token_to_id


@caught_by(4)
def membership_is_looked_for_in_the_list(m):
    m.Vocabulary.__contains__ = lambda self, token: token in self.tokens


# 11.2 split_special


@caught_by(1)
def special_tokens_are_patterns(m):
    _changed(m, ("'|'.join(map(re.escape, longest_first))", "'|'.join(longest_first)"))


@caught_by(1)
def the_first_special_token_in_the_list_wins(m):
    _changed(m, ("sorted(special_tokens, key=len, reverse=True)", "list(special_tokens)"))


@caught_by(1)
def the_shortest_special_token_wins(m):
    _changed(m, ("sorted(special_tokens, key=len, reverse=True)", "sorted(special_tokens, key=len)"))


@caught_by(1)
def empty_pieces_are_handed_out(m):
    _changed(m, ("        if piece:\n            yield piece", "        if True:\n            yield piece"))


@caught_by(1)
def without_special_tokens_all_is_cut_into_characters(m):
    _changed(m, (" if special_tokens else [text]", ""))


@caught_by(1)
def special_tokens_have_no_case(m):
    _changed(
        m,
        (
            "{'|'.join(map(re.escape, longest_first))})\", text)",
            "(?i:{'|'.join(map(re.escape, longest_first))}))\", text)",
        ),
    )


# 11.3 pad_sequences


@caught_by(1)
def padding_is_on_the_left(m):
    _changed(
        m,
        ("row[: len(sequence)] = sequence", "row[length - len(sequence) :] = sequence"),
        ("np.arange(length) < lengths[:, None]", "np.arange(length) >= length - lengths[:, None]"),
    )


@caught_by(1)
def the_mask_is_where_ids_are_not_pad_id(m):
    _changed(m, ("return ids, np.arange(length) < lengths[:, None]", "return ids, ids != pad_id"))


@caught_by(1)
def the_mask_is_where_padding_is(m):
    _changed(
        m,
        (
            "return ids, np.arange(length) < lengths[:, None]",
            "return ids, np.arange(length) >= lengths[:, None]",
        ),
    )


@caught_by(1)
def the_mask_is_of_ones_and_zeros(m):
    _changed(
        m,
        (
            "return ids, np.arange(length) < lengths[:, None]",
            "return ids, (np.arange(length) < lengths[:, None]).astype(np.int64)",
        ),
    )


@caught_by(1)
def long_rows_are_cut_without_a_word(m):
    _changed(
        m,
        ("    if longest > length:\n", "    if False:\n"),
        ("row[: len(sequence)] = sequence", "row[: len(sequence)] = sequence[:length]"),
    )


@caught_by(1)
def a_length_of_zero_is_none(m):
    _changed(
        m,
        ("    if length is None:\n        length = longest", "    if not length:\n        length = longest"),
    )


@caught_by(1)
def no_rows_have_no_longest(m):
    _changed(m, ("int(lengths.max(initial=0))", "int(lengths.max())"))


@caught_by(1)
def ids_have_the_dtype_of_the_first_row(m):
    _changed(
        m,
        (
            "np.full((len(sequences), length), pad_id, np.int64)",
            "np.full((len(sequences), length), pad_id, np.asarray(sequences[0]).dtype if len(sequences) else np.int64)",
        ),
    )


@caught_by(3)
def each_row_is_padded_and_then_stacked(m):
    right = m.pad_sequences

    def pad_sequences(sequences, pad_id, length=None):
        ids, mask = right(sequences, pad_id, length)
        rows = [np_pad(row, ids.shape[1], pad_id) for row in sequences]
        return (np.stack(rows) if rows else ids), mask

    np = m.np

    def np_pad(row, width, pad_id):
        return np.concatenate([np.asarray(row, np.int64), np.full(width - len(row), pad_id, np.int64)])

    m.pad_sequences = pad_sequences


@caught_by(4)
def rows_are_filled_id_by_id(m):
    _changed(
        m,
        (
            "        row[: len(sequence)] = sequence",
            "        for i, number in enumerate(sequence):\n            row[i] = number",
        ),
    )


# 11.4 to 11.6 Tokenizer


@caught_by(1)
def special_tokens_are_always_made(m):
    _changed(
        m, ('self.special_tokens if allowed_special == "all" else allowed_special', "self.special_tokens")
    )


@caught_by(1)
def what_is_allowed_is_not_looked_at(m):
    _changed(
        m,
        (
            "if unknown := [token for token in allowed if token not in self.special_tokens]:",
            "if unknown := []:",
        ),
    )


@caught_by(1)
def any_allowed_token_allows_all(m):
    _changed(m, ("in split_special(text, allowed)\n", "in split_special(text, self.special_tokens)\n"))


@caught_by(1)
def no_pieces_cannot_be_joined(m):
    _changed(m, ("np.concatenate([np.empty(0, np.int64), *parts])", "np.concatenate(parts)"))


@caught_by(1)
def nothing_is_made_of_floats(m):
    _changed(m, ("np.concatenate([np.empty(0, np.int64), *parts])", "np.concatenate([[], *parts])"))


@caught_by(1)
def special_tokens_in_a_batch_are_never_allowed(m):
    _changed(m, ("self.encode(text, allowed_special)[:max_length]", "self.encode(text)[:max_length]"))


@caught_by(1)
def characters_are_cut_and_not_ids(m):
    _changed(
        m,
        (
            "self.encode(text, allowed_special)[:max_length]",
            "self.encode(text[:max_length], allowed_special)",
        ),
    )


@caught_by(1)
def a_batch_has_the_length_of_max_length(m):
    _changed(
        m,
        (
            "return pad_sequences(rows, self.pad_id if len(lengths) > 1 else 0)",
            "return pad_sequences(rows, self.pad_id if len(lengths) > 1 else 0, max_length)",
        ),
    )


@caught_by(1)
def every_batch_needs_a_pad_id(m):
    _changed(m, ("self.pad_id if len(lengths) > 1 else 0)", "self.pad_id)"))


@caught_by(1)
def the_first_special_token_is_padding(m):
    _changed(
        m,
        ("return self.vocabulary.token_to_id(PAD)", "return len(self.vocabulary) - len(self.special_tokens)"),
    )


@caught_by(1)
def rows_are_padded_though_no_padding_is_wanted(m):
    _changed(m, ("if len(lengths) > 1 and not pad:", "if False:"))


@caught_by(1)
def a_max_length_of_zero_is_none(m):
    _changed(m, ("if max_length is not None and max_length < 1:", "if max_length and max_length < 0:"))


@caught_by(1)
def texts_are_counted_before_they_are_encoded(m):
    right = m.Tokenizer.encode_batch

    def encode_batch(self, texts, *args, **options):
        if not len(list(texts)):
            return right(self, [], *args, **options)
        return right(self, texts, *args, **options)

    m.Tokenizer.encode_batch = encode_batch


@caught_by(1)
def a_file_is_taken_for_whatever_asks_for_it(m):
    _changed(m, ('if (kind := state.pop("type")) != cls.__name__:', 'if (kind := state.pop("type")) == "":'))


@caught_by(1)
def a_damaged_file_shows_the_error_of_json(m):
    _changed(
        m,
        (
            "        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:",
            "        except KeyError as error:",
        ),
    )


@caught_by(1)
def a_missing_file_is_a_damaged_one(m):
    _changed(
        m,
        (
            "except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:",
            "except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:",
        ),
    )


@caught_by(1)
def a_file_is_pickled(m):
    import pickle

    m.Tokenizer.save = lambda self, path: Path(path).write_bytes(pickle.dumps(self))
    m.Tokenizer.load = classmethod(lambda cls, path: pickle.loads(Path(path).read_bytes()))


@caught_by(1)
def the_file_does_not_say_what_it_holds(m):
    _changed(
        m,
        ('state = {"type": type(self).__name__, **self.state_dict()}', "state = self.state_dict()"),
        ('if (kind := state.pop("type")) != cls.__name__:', "if (kind := None):"),
    )


# 11.7 CharTokenizer


@caught_by(1)
def characters_have_no_order(m):
    _changed(m, ("return cls(sorted(found), special_tokens)", "return cls(found, special_tokens)"))


@caught_by(1)
def characters_are_in_the_order_of_the_text(m):
    _changed(
        m,
        ("found: set[str] = set()", "found: dict[str, None] = {}"),
        ("found.update(piece)", "found.update(dict.fromkeys(piece))"),
        ("return cls(sorted(found), special_tokens)", "return cls(list(found), special_tokens)"),
    )


@caught_by(1)
def characters_of_special_tokens_are_learnt(m):
    _changed(
        m,
        (
            "            if not special:\n                found.update(piece)",
            "            found.update(piece)",
        ),
    )


@caught_by(1)
def unknown_characters_are_left_out(m):
    def encode_ordinary(self, text):
        unknown = self.special_tokens.get("<unk>")
        ids = (self._ids.get(c, unknown) for c in text)
        return m.np.array([i for i in ids if i is not None], m.np.int64)

    m.CharTokenizer.encode_ordinary = encode_ordinary


@caught_by(1)
def unknown_characters_are_minus_one(m):
    _changed(m, ("if unknown < 0 and ids.min(initial=0) < 0:", "if False:"))


@caught_by(1)
def unk_is_not_asked_for(m):
    _changed(m, ("unknown = self.special_tokens.get(UNK, -1)", "unknown = -1"))


@caught_by(1)
def special_tokens_of_one_character_are_characters(m):
    _changed(m, ("map(self._ids.get, text,", "map({**self._ids, **self.special_tokens}.get, text,"))


@caught_by(1)
def the_last_unknown_character_is_named(m):
    _changed(m, ("text[int(ids.argmin())]", "text[len(ids) - 1 - int(ids[::-1].argmin())]"))


@caught_by(3)
def characters_become_a_list_first(m):
    right = m.CharTokenizer.encode_ordinary

    def encode_ordinary(self, text):
        right(self, text)
        unknown = self.special_tokens.get("<unk>", -1)
        return m.np.array([self._ids.get(c, unknown) for c in text], m.np.int64)

    m.CharTokenizer.encode_ordinary = encode_ordinary


@caught_by(4)
def characters_are_looked_for_in_the_alphabet(m):
    def encode_ordinary(self, text):
        unknown = self.special_tokens.get("<unk>", -1)
        if unknown < 0 and (foreign := [c for c in text if c not in self._ids]):
            raise ValueError(f"the character {foreign[0]!r} is not in the vocabulary")
        found = (self.characters.index(c) if c in self._ids else unknown for c in text)
        return m.np.fromiter(found, m.np.int64, len(text))

    m.CharTokenizer.encode_ordinary = encode_ordinary


# 11.8, 11.9 words


def _pattern(m, old, new):
    _changed(m, (old, new))


@caught_by(1)
def words_are_what_lies_between_spaces(m):
    m.split_words = lambda text: iter(text.split())


@caught_by(1)
def a_space_is_a_word_of_its_own(m):
    _pattern(m, r"| ?[^\W\d_]+| ?\d+| ?[^\s\w]+| ?_+|", r"|[^\W\d_]+|\d+|[^\s\w]+|_+|")


@caught_by(1)
def letters_are_of_ascii(m):
    _pattern(m, r"| ?[^\W\d_]+|", r"| ?[a-zA-Z]+|")


@caught_by(1)
def letters_and_digits_are_one_word(m):
    _pattern(m, r"| ?[^\W\d_]+| ?\d+|", r"| ?[^\W_]+|")


@caught_by(1)
def underscores_are_lost(m):
    _pattern(m, r"| ?_+|", "|")


@caught_by(1)
def underscores_are_letters(m):
    _pattern(m, r"| ?[^\W\d_]+|", r"| ?[^\W\d]+|")


@caught_by(1)
def short_endings_are_signs_and_letters(m):
    _pattern(m, r"'(?:s|t|re|ve|m|ll|d)| ?[^\W", r" ?[^\W")


@caught_by(1)
def white_space_keeps_its_last_space(m):
    _pattern(m, r"|\s+(?!\S)|\s+", r"|\s+")


@caught_by(1)
def any_white_space_goes_before_a_word(m):
    _pattern(m, r"| ?[^\W\d_]+|", r"|\s?[^\W\d_]+|")


@caught_by(3)
def words_are_a_list(m):
    _changed(
        m,
        (
            "return (found.group() for found in re.finditer(pattern, text))",
            "return iter([f.group() for f in re.finditer(pattern, text)])",
        ),
    )


@caught_by(3)
def the_rest_of_the_text_is_copied_for_each_word(m):
    _changed(
        m,
        (
            "    return (found.group() for found in re.finditer(pattern, text))",
            "    while found := re.match(pattern, text):\n        yield found.group()\n        text = text[found.end() :]",
        ),
    )


@caught_by(1)
def special_tokens_are_counted_as_words(m):
    _changed(
        m,
        (
            "        if not special:\n            counts.update(split_words(piece))",
            "        counts.update([piece] if special else split_words(piece))",
        ),
    )


@caught_by(1)
def words_are_joined_across_special_tokens(m):
    _changed(
        m,
        (
            "    for piece, special in split_special(text, special_tokens):\n        if not special:\n            counts.update(split_words(piece))",
            "    counts.update(split_words(''.join(p for p, s in split_special(text, special_tokens) if not s)))",
        ),
    )


@caught_by(1)
def what_has_no_bytes_is_left_out(m):
    _changed(m, ("return {word.encode(): count", "return {word.encode(errors='ignore'): count"))


@caught_by(3)
def all_words_are_listed_before_they_are_counted(m):
    _changed(m, ("counts.update(split_words(piece))", "counts.update(list(split_words(piece)))"))


@caught_by(3)
def each_word_is_counted_by_itself(m):
    def count_words(text, special_tokens=()):
        words = [
            w.encode() for p, s in m.split_special(text, special_tokens) if not s for w in m.split_words(p)
        ]
        return {word: words.count(word) for word in dict.fromkeys(words)}

    m.count_words = count_words


# 11.10 Chain


@caught_by(1)
def what_is_gone_has_a_pair(m):
    _changed(m, ("if position < 0 or self.ids[position] < 0:", "if position < 0:"))


@caught_by(1)
def the_first_position_is_no_neighbour(m):
    _changed(m, ("if position < 0 or self.ids[position] < 0:", "if position <= 0 or self.ids[position] < 0:"))


@caught_by(1)
def the_byte_zero_is_nothing(m):
    _changed(m, ("if position < 0 or self.ids[position] < 0:", "if position < 0 or self.ids[position] <= 0:"))


@caught_by(1)
def the_neighbour_beyond_is_not_told(m):
    _changed(m, ("        if beyond >= 0:\n            self.before[beyond] = position", "        pass"))


@caught_by(1)
def the_last_position_is_told_where_there_is_no_neighbour(m):
    _changed(
        m,
        (
            "        if beyond >= 0:\n            self.before[beyond]",
            "        if True:\n            self.before[beyond]",
        ),
    )


@caught_by(1)
def what_was_joined_keeps_its_id(m):
    _changed(m, ("self.ids[position], self.ids[right] = new_id, -1", "self.ids[position] = new_id"))


@caught_by(1)
def rest_leaves_out_the_byte_zero(m):
    _changed(m, ('array("q", (i for i in self.ids if i >= 0))', 'array("q", (i for i in self.ids if i > 0))'))


# 11.11 train_merges


@caught_by(1)
def a_word_counts_once(m):
    _changed(
        m,
        (
            "times = [n for word, n in words.items() for _ in word]",
            "times = [1 for word, n in words.items() for _ in word]",
        ),
    )


@caught_by(1)
def of_several_the_largest_pair_is_first(m):
    _changed(
        m,
        (
            "heap = [(-n, pair) for pair, n in counts.items()]",
            "heap = [(-n, (-pair[0], -pair[1])) for pair, n in counts.items()]",
        ),
        (
            "        minus, best = heapq.heappop(heap)",
            "        minus, best = heapq.heappop(heap)\n        best = (-best[0], -best[1])",
        ),
        (
            "heapq.heappush(heap, (-counts[best], best))",
            "heapq.heappush(heap, (-counts[best], (-best[0], -best[1])))",
        ),
        (
            "heapq.heappush(heap, (-counts[pair], pair))",
            "heapq.heappush(heap, (-counts[pair], (-pair[0], -pair[1])))",
        ),
    )


@caught_by(1)
def of_several_the_first_seen_is_first(m):
    def train_merges(words, count, min_frequency=2):
        rows, merges = [(list(word), n) for word, n in words.items()], []
        while len(merges) < count:
            counts = m.Counter()
            for ids, n in rows:
                for pair in m.itertools.pairwise(ids):
                    counts[pair] += n
            best = max(counts, key=counts.get, default=None)
            if best is None or counts[best] < min_frequency:
                break
            for ids, _ in rows:
                i = 0
                while i < len(ids) - 1:
                    if (ids[i], ids[i + 1]) == best:
                        ids[i : i + 2] = [256 + len(merges)]
                    i += 1
            merges.append(best)
        return merges

    m.train_merges = train_merges


@caught_by(1)
def counts_are_never_taken_away(m):
    _changed(m, ("counts[gone] -= n", "counts[gone] -= 0"))


@caught_by(1)
def pairs_that_are_made_are_not_counted(m):
    _changed(
        m, ("                    counts[pair] += n\n                    where", "                    where")
    )


@caught_by(1)
def a_count_in_the_heap_is_believed(m):
    _changed(m, ("if counts[best] < -minus:", "if False:"))


@caught_by(1)
def a_pair_whose_count_fell_is_given_up(m):
    _changed(
        m,
        (
            "            heapq.heappush(heap, (-counts[best], best))\n            continue",
            "            continue",
        ),
    )


@caught_by(1)
def only_the_pair_on_the_left_changes(m):
    _changed(
        m, ("for gone in (chain.pair(left), chain.pair(chain.after[p])):", "for gone in (chain.pair(left),):")
    )


@caught_by(1)
def only_the_pair_on_the_right_is_made(m):
    _changed(
        m,
        (
            "            for q in (left, p):\n                if (pair := chain.pair(q)) is not None:\n                    counts",
            "            for q in (p,):\n                if (pair := chain.pair(q)) is not None:\n                    counts",
        ),
    )


@caught_by(1)
def places_are_not_looked_at_again(m):
    _changed(
        m,
        (
            "            if chain.pair(p) != best:\n                continue  # it has been joined to something else since it was noted",
            "            if chain.pair(p) is None:\n                continue",
        ),
    )


@caught_by(1)
def runs_are_joined_from_right_to_left(m):
    _changed(m, ("for p in where.pop(best):", "for p in reversed(where.pop(best)):"))


@caught_by(1)
def a_pair_must_occur_more_often_than_min_frequency(m):
    _changed(m, ("if counts[best] < min_frequency:", "if counts[best] <= min_frequency:"))


@caught_by(1)
def min_frequency_is_not_asked_for(m):
    _changed(m, ("if counts[best] < min_frequency:", "if counts[best] < 2:"))


@caught_by(1)
def merges_count_from_zero(m):
    _changed(m, ("        new_id = BYTES + len(merges)\n", "        new_id = len(merges)\n"))


@caught_by(1)
def one_merge_too_many(m):
    _changed(m, ("while heap and len(merges) < count:", "while heap and len(merges) <= count:"))


@caught_by(1)
def words_are_one_text(m):
    right = m.train_merges

    def train_merges(words, count, min_frequency=2):
        return right({b"".join(word * min(n, 99) for word, n in words.items()): 1}, count, min_frequency)

    m.train_merges = train_merges


@caught_by(4)
def everything_is_counted_before_each_merge(m):
    def train_merges(words, count, min_frequency=2):
        rows, merges = [(list(word), n) for word, n in words.items()], []
        while len(merges) < count:
            counts = m.Counter()
            for ids, n in rows:
                for pair in m.itertools.pairwise(ids):
                    counts[pair] += n
            best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
            if best is None or counts[best] < min_frequency:
                break
            for ids, _ in rows:
                i = 0
                while i < len(ids) - 1:
                    if (ids[i], ids[i + 1]) == best:
                        ids[i : i + 2] = [256 + len(merges)]
                    i += 1
            merges.append(best)
        return merges

    m.train_merges = train_merges


@caught_by(4)
def words_with_the_pair_are_counted_anew(m):
    """By an index of words: fast for words, and slow for a text without spaces, which is one word."""

    def train_merges(words, count, min_frequency=2):
        rows, times, merges = [list(word) for word in words], list(words.values()), []
        counts, index = m.Counter(), m.defaultdict(set)

        def add(i, sign):
            for pair in m.itertools.pairwise(rows[i]):
                counts[pair] += sign * times[i]
                index[pair].add(i)

        for i in range(len(rows)):
            add(i, 1)
        while len(merges) < count:
            best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
            if best is None or counts[best] < min_frequency:
                break
            for i in sorted(index.pop(best)):
                add(i, -1)
                ids, j = rows[i], 0
                while j < len(ids) - 1:
                    if (ids[j], ids[j + 1]) == best:
                        ids[j : j + 2] = [256 + len(merges)]
                    j += 1
                add(i, 1)
            merges.append(best)
        return merges

    m.train_merges = train_merges


# 11.12 apply_merges


@caught_by(1)
def the_longest_token_is_looked_for(m):
    def apply_merges(word, ranks):
        known = {bytes([i]): i for i in range(256)}
        parts = {i: bytes([i]) for i in range(256)}
        for (left, right), rank in sorted(ranks.items(), key=lambda item: item[1]):
            parts[rank] = parts[left] + parts[right]
            known[parts[rank]] = rank
        ids, start = m.array("q"), 0
        while start < len(word):
            end = next(e for e in range(len(word), start, -1) if word[start:e] in known)
            ids.append(known[word[start:end]])
            start = end
        return ids

    m.apply_merges = apply_merges


@caught_by(1)
def pairs_are_joined_from_left_to_right_whatever_their_rank(m):
    def apply_merges(word, ranks):
        ids = list(word)
        i = 0
        while i < len(ids) - 1:
            if (ids[i], ids[i + 1]) in ranks:
                ids[i : i + 2] = [ranks[ids[i], ids[i + 1]]]
                i = max(i - 1, 0)
            else:
                i += 1
        return m.array("q", ids)

    m.apply_merges = apply_merges


@caught_by(1)
def the_highest_rank_goes_first(m):
    def apply_merges(word, ranks):
        ids = list(word)
        while True:
            found = [(ranks[p], i) for i, p in enumerate(m.itertools.pairwise(ids)) if p in ranks]
            if not found:
                return m.array("q", ids)
            rank, i = max(found, key=lambda item: (item[0], -item[1]))
            ids[i : i + 2] = [rank]

    m.apply_merges = apply_merges


@caught_by(1)
def a_place_in_the_heap_is_believed(m):
    _changed(
        m,
        (
            "        if ranks.get((ids[p], ids[right])) != new_id:\n",
            "        if ids[p] < 0 or ids[right] < 0:\n",
        ),
    )


@caught_by(1)
def only_pairs_to_the_right_are_looked_at_after_a_merge(m):
    _changed(
        m,
        (
            "        if (pair := (ids[left], new_id)) in ranks:\n            heapq.heappush(heap, (ranks[pair], left))\n",
            "",
        ),
    )


@caught_by(1)
def only_pairs_to_the_left_are_looked_at_after_a_merge(m):
    _changed(
        m,
        (
            "        if (pair := (new_id, ids[beyond])) in ranks:\n            heapq.heappush(heap, (ranks[pair], p))\n",
            "",
        ),
    )


@caught_by(1)
def a_heap_of_ranks_forgets_left_to_right(m):
    _changed(
        m,
        ("heap = [(ranks[pair], p) for p, pair", "heap = [(ranks[pair], -p) for p, pair"),
        (
            "        new_id, p = heapq.heappop(heap)\n",
            "        new_id, p = heapq.heappop(heap)\n        p = -p\n",
        ),
        ("heapq.heappush(heap, (ranks[pair], left))", "heapq.heappush(heap, (ranks[pair], -left))"),
        ("heapq.heappush(heap, (ranks[pair], p))", "heapq.heappush(heap, (ranks[pair], -p))"),
    )


@caught_by(1)
def a_rank_is_a_place_in_the_list_of_merges(m):
    _changed(
        m,
        (
            "ids[p], ids[right] = new_id, -1",
            "ids[p], ids[right] = 256 + sorted(ranks.values()).index(new_id), -1",
        ),
    )


@caught_by(4)
def the_word_is_looked_through_for_each_rank(m):
    def apply_merges(word, ranks):
        ids = list(word)
        while len(ids) > 1:
            best = min(m.itertools.pairwise(ids), key=lambda pair: ranks.get(pair, 1 << 40))
            if best not in ranks:
                break
            out = []
            for i in ids:
                if out and (out[-1], i) == best:
                    out[-1] = ranks[best]
                else:
                    out.append(i)
            ids = out
        return m.array("q", ids)

    m.apply_merges = apply_merges


@caught_by(4)
def the_best_pair_is_looked_for_before_each_join(m):
    def apply_merges(word, ranks):
        ids = list(word)
        while True:
            found = [(ranks[p], i) for i, p in enumerate(m.itertools.pairwise(ids)) if p in ranks]
            if not found:
                return m.array("q", ids)
            rank, i = min(found)
            ids[i : i + 2] = [rank]

    m.apply_merges = apply_merges


# 11.13 to 11.15 BPETokenizer


@caught_by(1)
def a_merge_of_what_is_not_there_yet_wraps_around(m):
    _changed(m, ("0 <= i < len(tokens) for i in (left, right)", "i < len(tokens) for i in (left, right)"))


@caught_by(1)
def a_merge_may_join_itself(m):
    _changed(
        m,
        ("0 <= i < len(tokens) for i in (left, right)", "0 <= i <= len(tokens) for i in (left, right)"),
        (
            "tokens.append(tokens[left] + tokens[right])",
            "tokens.append(tokens[left] + (tokens + [b'?'])[right])",
        ),
    )


@caught_by(1)
def special_ids_come_before_the_merges(m):
    _changed(
        m,
        (
            "self.ranks = {pair: i for i, pair in enumerate(self.merges, BYTES)}",
            "self.ranks = {pair: i + len(self.special_tokens) for i, pair in enumerate(self.merges, BYTES)}",
        ),
    )


@caught_by(1)
def special_tokens_take_no_room(m):
    _changed(m, ("room = vocab_size - BYTES - len(special_tokens)", "room = vocab_size - BYTES"))


@caught_by(1)
def vocab_size_is_a_number_of_merges(m):
    _changed(
        m, ("room = vocab_size - BYTES - len(special_tokens)", "room = vocab_size - len(special_tokens)")
    )


@caught_by(1)
def no_room_is_no_error(m):
    _changed(m, ("        if room < 0:\n", "        if False:\n"))


@caught_by(1)
def special_tokens_are_learnt_from(m):
    _changed(m, ("count_words(text, special_tokens), room", "count_words(text), room"))


@caught_by(1)
def training_forgets_min_frequency(m):
    _changed(m, ("room, min_frequency), special_tokens)", "room), special_tokens)"))


@caught_by(1)
def training_makes_a_bpe_tokenizer_of_every_class(m):
    _changed(m, ("return cls(train_merges(", "return BPETokenizer(train_merges("))


@caught_by(1)
def a_text_is_one_word(m):
    def encode_ordinary(self, text):
        return m.np.array(m.apply_merges(text.encode(), self.ranks), m.np.int64)

    m.BPETokenizer.encode_ordinary = encode_ordinary


@caught_by(1)
def all_tokenizers_share_a_cache(m):
    shared = {}
    right = m.BPETokenizer.__init__

    def __init__(self, *args, **options):
        right(self, *args, **options)
        self._cache = shared

    m.BPETokenizer.__init__ = __init__


@caught_by(1)
def what_is_remembered_is_handed_out(m):
    right = m.BPETokenizer.encode_ordinary

    def encode_ordinary(self, text):
        kept = self.__dict__.setdefault("kept", {})
        if text not in kept:
            kept[text] = right(self, text)
            if len(kept) > 100:
                kept.clear()
                return right(self, text)
        return kept[text]

    m.BPETokenizer.encode_ordinary = encode_ordinary


@caught_by(1)
def long_words_are_left_out(m):
    _changed(
        m,
        (
            "                if len(word) <= CACHED_LENGTH:",
            "                if len(word) > CACHED_LENGTH:\n                    continue\n                if True:",
        ),
    )


@caught_by(1)
def a_full_cache_takes_no_more_words_and_gives_none(m):
    _changed(m, ("                        cache.clear()\n", "                        continue\n"))


@caught_by(1)
def code_points_are_bytes(m):
    _changed(
        m,
        (
            "found = apply_merges(word.encode(), self.ranks)",
            "found = apply_merges(word.encode('latin-1', 'replace'), self.ranks)",
        ),
    )


@caught_by(1)
def what_has_no_bytes_is_replaced(m):
    _changed(
        m,
        (
            "found = apply_merges(word.encode(), self.ranks)",
            "found = apply_merges(word.encode(errors='replace'), self.ranks)",
        ),
    )


@caught_by(3)
def every_word_is_remembered(m):
    _changed(m, ("if len(cache) >= CACHED_WORDS:", "if False:"))


@caught_by(3)
def long_words_are_remembered(m):
    _changed(m, ("                if len(word) <= CACHED_LENGTH:", "                if True:"))


@caught_by(3)
def words_and_ids_are_lists(m):
    right = m.BPETokenizer.encode_ordinary

    def encode_ordinary(self, text):
        ids = []
        for word in list(m.split_words(text)):
            ids += right(self, word).tolist()
        return m.np.array(ids, m.np.int64)

    m.BPETokenizer.encode_ordinary = encode_ordinary


@caught_by(4)
def no_word_is_remembered(m):
    _changed(m, ("found = cache.get(word)", "found = None"))


@caught_by(1)
def each_token_is_decoded_by_itself(m):
    _changed(
        m,
        (
            'data = b"".join(token if isinstance(token, bytes) else token.encode() for token in tokens)\n        return data.decode(errors="replace")',
            "return ''.join(t if isinstance(t, str) else t.decode(errors='replace') for t in tokens)",
        ),
    )


@caught_by(1)
def what_is_no_utf_8_is_left_out(m):
    _changed(m, ('data.decode(errors="replace")', 'data.decode(errors="ignore")'))


@caught_by(1)
def what_is_no_utf_8_is_an_error(m):
    _changed(m, ('data.decode(errors="replace")', "data.decode()"))


@caught_by(1)
def special_tokens_are_never_decoded(m):
    _changed(
        m,
        (
            "        tokens = self.tokens_of(ids, skip_special_tokens)\n",
            "        tokens = self.tokens_of(ids, True)\n",
        ),
    )


@caught_by(1)
def special_tokens_are_always_decoded(m):
    _changed(
        m,
        (
            "        tokens = self.tokens_of(ids, skip_special_tokens)\n",
            "        tokens = self.tokens_of(ids)\n",
        ),
    )


@caught_by(4)
def bytes_are_added_token_after_token(m):
    def decode(self, ids, skip_special_tokens=False):
        data = b""
        for token in self.tokens_of(ids, skip_special_tokens):
            data = data + (token if isinstance(token, bytes) else token.encode())
        return data.decode(errors="replace")

    m.BPETokenizer.decode = decode


# 11.16 bytes_per_token


@caught_by(1)
def characters_are_counted_and_not_bytes(m):
    _changed(m, ("return len(text.encode()) / count", "return len(text) / count"))


@caught_by(1)
def tokens_per_byte(m):
    _changed(m, ("return len(text.encode()) / count", "return count / len(text.encode())"))


@caught_by(1)
def no_token_is_a_division_by_zero(m):
    _changed(m, ("    if not count:\n", "    if False:\n"))


@caught_by(1)
def ids_are_counted_in_bytes(m):
    _changed(m, ("count = len(tokenizer.encode(text))", "count = tokenizer.encode(text).nbytes"))


# Found by looking for ways past the suite


@caught_by(1)
def ids_of_numpy_are_no_ids(m):
    _changed(
        m,
        (
            "        if not 0 <= index < len(self.tokens):",
            "        if not isinstance(index, int) or not 0 <= index < len(self.tokens):",
        ),
    )


@caught_by(4)
def an_id_is_looked_for_in_the_dict(m):
    _changed(m, ("        return self.tokens[index]", "        return list(self._ids)[index]"))


@caught_by(1)
def each_token_is_counted_to_find_one_that_is_there_twice(m):
    _changed(
        m,
        (
            "        if len(self._ids) < len(self.tokens):\n            twice = next(token for i, token in enumerate(self.tokens) if self._ids[token] != i)",
            "        if twices := [t for t in self.tokens if self.tokens.count(t) > 1]:\n            twice = twices[0]",
        ),
    )


@caught_by(4)
def the_tokens_are_a_new_list_each_time(m):
    cls = m.Vocabulary

    def __init__(self, tokens):
        tokens = list(tokens)
        self.__dict__["_t"] = tokens
        self._ids = {t: i for i, t in enumerate(tokens)}
        if len(self._ids) < len(tokens):
            raise ValueError(f"twice {[repr(t) for t in tokens if tokens.count(t) > 1]}")

    cls.__init__ = __init__
    cls.tokens = property(lambda self: list(self._t))


@caught_by(4)
def the_rest_after_a_special_token_is_copied(m):
    def split_special(text, special_tokens):
        toks = sorted(special_tokens, key=len, reverse=True)
        while text:
            places = [(text.find(t), -len(t), t) for t in toks]
            places = [p for p in places if p[0] >= 0]
            if not places:
                yield text, False
                return
            at, _, t = min(places)
            if at:
                yield text[:at], False
            yield t, True
            text = text[at + len(t) :]

    m.split_special = split_special


@caught_by(4)
def special_tokens_are_looked_for_at_each_place(m):
    def split_special(text, special_tokens):
        toks = sorted(special_tokens, key=len, reverse=True)
        start = i = 0
        while i < len(text):
            for t in toks:
                if text.startswith(t, i):
                    if i > start:
                        yield text[start:i], False
                    yield t, True
                    i = start = i + len(t)
                    break
            else:
                i += 1
        if i > start:
            yield text[start:i], False

    m.split_special = split_special


@caught_by(1)
def rows_that_are_one_array_are_handed_back(m):
    right = m.pad_sequences

    def pad_sequences(sequences, pad_id, length=None):
        if (
            isinstance(sequences, m.np.ndarray)
            and sequences.ndim == 2
            and length in (None, sequences.shape[1])
        ):
            ids = sequences.astype(m.np.int64, copy=False)
            return ids, m.np.ones(ids.shape, bool)
        return right(sequences, pad_id, length)

    m.pad_sequences = pad_sequences


@caught_by(1)
def no_rows_have_no_length(m):
    right = m.pad_sequences

    def pad_sequences(sequences, pad_id, length=None):
        if len(sequences) == 0:
            return m.np.zeros((0, 0), m.np.int64), m.np.zeros((0, 0), bool)
        return right(sequences, pad_id, length)

    m.pad_sequences = pad_sequences


@caught_by(1)
def a_full_mask_is_one_bool_for_all(m):
    right = m.pad_sequences

    def pad_sequences(sequences, pad_id, length=None):
        ids, mask = right(sequences, pad_id, length)
        if mask.all():
            mask = m.np.broadcast_to(True, mask.shape)
        return ids, mask

    m.pad_sequences = pad_sequences


@caught_by(1)
def padding_is_never_negative(m):
    _changed(m, ("pad_id, np.int64)\n    for row, s", "max(pad_id, 0), np.int64)\n    for row, s"))


@caught_by(1)
def rows_are_padded_in_place(m):
    right = m.pad_sequences

    def pad_sequences(sequences, pad_id, length=None):
        n = max(map(len, sequences), default=0) if length is None else length
        out = right(sequences, pad_id, length)
        for row in sequences:
            if isinstance(row, list):
                row += [pad_id] * (n - len(row))
        return out

    m.pad_sequences = pad_sequences


@caught_by(1)
def texts_are_encoded_twice(m):
    _changed(
        m,
        (
            "        lengths = sorted({len(row) for row in rows})",
            "        lengths = sorted({len(self.encode(text, allowed_special)[:max_length]) for text in texts})",
        ),
        ("        rows = [self.encode(", "        texts = list(texts)\n        rows = [self.encode("),
    )


@caught_by(1)
def the_mask_of_a_batch_is_where_ids_are_not_pad(m):
    _changed(
        m,
        (
            "        return pad_sequences(rows, self.pad_id if len(lengths) > 1 else 0)",
            "        ids, mask = pad_sequences(rows, self.pad_id if len(lengths) > 1 else 0)\n        return ids, (ids != self.pad_id if len(lengths) > 1 else mask)",
        ),
    )


@caught_by(1)
def max_length_matters_to_texts_only(m):
    _changed(
        m,
        (
            "        if max_length is not None and max_length < 1:\n",
            "        texts = list(texts)\n        if texts and max_length is not None and max_length < 1:\n",
        ),
    )


@caught_by(1)
def saving_marks_the_state(m):
    _changed(
        m,
        (
            'state = {"type": type(self).__name__, **self.state_dict()}',
            'state = self.state_dict()\n        state["type"] = type(self).__name__',
        ),
    )


@caught_by(1)
def a_file_of_a_subclass_will_do(m):
    _changed(
        m,
        (
            'if (kind := state.pop("type")) != cls.__name__:',
            'if (kind := state.pop("type")) not in {cls.__name__, *(c.__name__ for c in cls.__subclasses__())}:',
        ),
    )


@caught_by(1)
def a_file_of_a_parent_will_do(m):
    _changed(
        m,
        (
            'if (kind := state.pop("type")) != cls.__name__:',
            'if (kind := state.pop("type")) not in {c.__name__ for c in cls.__mro__}:',
        ),
    )


@caught_by(1)
def a_file_is_ascii(m):
    _changed(m, ('Path(path).read_text(encoding="utf-8")', 'Path(path).read_text(encoding="ascii")'))


@caught_by(1)
def characters_are_sorted_without_case(m):
    _changed(
        m,
        (
            "return cls(sorted(found), special_tokens)",
            "return cls(sorted(found, key=lambda c: (c.casefold(), c)), special_tokens)",
        ),
    )


@caught_by(1)
def training_makes_a_char_tokenizer_of_every_class(m):
    _changed(
        m,
        ("return cls(sorted(found), special_tokens)", "return CharTokenizer(sorted(found), special_tokens)"),
    )


@caught_by(1)
def bytes_are_those_of_a_normal_form(m):
    import unicodedata

    right = m.BPETokenizer.encode_ordinary
    m.BPETokenizer.encode_ordinary = lambda self, text: right(self, unicodedata.normalize("NFC", text))


@caught_by(1)
def ends_of_lines_are_all_alike(m):
    right = m.CharTokenizer.encode_ordinary
    m.CharTokenizer.encode_ordinary = lambda self, text: right(self, text.replace("\r\n", "\n"))


@caught_by(1)
def ids_of_characters_have_a_length(m):
    right = m.CharTokenizer.decode

    def decode(self, ids, skip_special_tokens=False):
        if not len(ids):
            return ""
        return right(self, ids, skip_special_tokens)

    m.CharTokenizer.decode = decode


@caught_by(1)
def words_are_counted_in_lower_case(m):
    _changed(m, ("counts.update(split_words(piece))", "counts.update(split_words(piece.lower()))"))


@caught_by(1)
def words_occur_less_than_two_billion_times(m):
    _changed(
        m,
        (
            "    times = [n for word, n in words.items() for _ in word]",
            "    times = np.array([n for word, n in words.items() for _ in word], np.int64).astype(np.int32).tolist()",
        ),
    )


@caught_by(1)
def the_list_of_merges_is_the_callers(m):
    right = m.BPETokenizer.__init__

    def __init__(self, merges=(), special_tokens=()):
        right(self, merges, special_tokens)
        if isinstance(merges, list) and all(isinstance(p, tuple) for p in merges):
            self.merges = merges

    m.BPETokenizer.__init__ = __init__


@caught_by(3)
def a_cache_of_the_method_keeps_every_tokenizer(m):
    import functools

    @functools.lru_cache(maxsize=m.CACHED_WORDS)
    def short(self, word):
        return m.apply_merges(word.encode(), self.ranks)

    def encode_ordinary(self, text):
        ids = m.array("q")
        for w in m.split_words(text):
            ids.extend(
                short(self, w) if len(w) <= m.CACHED_LENGTH else m.apply_merges(w.encode(), self.ranks)
            )
        return m.np.array(ids, m.np.int64)

    m.BPETokenizer.encode_ordinary = encode_ordinary


@caught_by(4)
def words_are_remembered_for_one_text(m):
    right = m.BPETokenizer.encode_ordinary

    def encode_ordinary(self, text):
        self._cache = {}
        return right(self, text)

    m.BPETokenizer.encode_ordinary = encode_ordinary


@caught_by(1)
def an_average_counts_special_tokens(m):
    _changed(m, ("count = len(tokenizer.encode(text))", 'count = len(tokenizer.encode(text, "all"))'))


@caught_by(1)
def what_is_allowed_is_used_up(m):
    right = m.Tokenizer.encode

    def encode(self, text, allowed_special=()):
        out = right(self, text, allowed_special)
        if isinstance(allowed_special, set):
            allowed_special.clear()
        return out

    m.Tokenizer.encode = encode


@caught_by(4)
def characters_are_added_one_after_the_other(m):
    def decode(self, ids, skip_special_tokens=False):
        text = ""
        for t in reversed(self.tokens_of(ids, skip_special_tokens)):
            text = t + text
        return text

    m.CharTokenizer.decode = decode


@caught_by(1)
def ids_fit_into_16_bits(m):
    _changed(
        m,
        (
            "        return np.array(ids, np.int64)",
            "        return np.array(ids, np.uint16).astype(np.int64)",
        ),
    )


@caught_by(1)
def a_mark_at_the_beginning_is_no_text(m):
    right = m.BPETokenizer.decode
    m.BPETokenizer.decode = lambda self, ids, skip_special_tokens=False: right(
        self, ids, skip_special_tokens
    ).lstrip("\ufeff")


@caught_by(4)
def all_ids_are_copied_for_each_piece(m):
    def encode(self, text, allowed_special=()):
        allowed = self.special_tokens if allowed_special == "all" else allowed_special
        if unknown := [token for token in allowed if token not in self.special_tokens]:
            raise ValueError(f"{unknown} are no special tokens")
        if not allowed:
            return self.encode_ordinary(text)
        ids = np.empty(0, np.int64)
        for piece, special in m.split_special(text, allowed):
            ids = np.append(ids, self.special_tokens[piece] if special else self.encode_ordinary(piece))
        return ids

    m.Tokenizer.encode = encode


@caught_by(1)
def brackets_without_end_are_no_damage(m):
    _changed(m, ("KeyError, AttributeError, RecursionError) as error", "KeyError, AttributeError) as error"))


@caught_by(1)
def the_last_token_is_named_for_the_one_that_is_there_twice(m):
    rewritten(m, "Vocabulary.__init__", ("{twice!r}", "{self.tokens[-1]!r}"))


@caught_by(1)
def what_is_allowed_in_no_text_is_not_looked_at(m):
    looks = "    if unknown :="
    rewritten(
        m,
        "Tokenizer.encode",
        (looks, f"    if not text:\n        return self.encode_ordinary(text)\n{looks}"),
    )


@caught_by(1)
def what_is_no_utf_8_in_a_file_is_replaced(m):
    rewritten(m, "Tokenizer.load", ('encoding="utf-8"', 'encoding="utf-8", errors="replace"'))


NOT_HERE = "only a system whose own encoding is not UTF-8 can tell"
NEVER_FIRST = "what stands on the right of something is at position 1 or later"
NO_UNKNOWN = "no id is below 0 if there is an <unk>"
ABOUT_AS_MANY = "given; the suite asks for a bound, not for this one"

EQUIVALENT: dict[str, str] = {
    "split_special: sorted(special_tokens, key=len, reverse=True) -> sorted(special_tokens, reverse=True)": (
        "two can begin at one place only if one begins with the other, which then is the larger, too"
    ),
    "pad_sequences: zip(ids, sequences, strict=True) -> zip(ids, sequences, strict=False)": (
        "there are as many rows as sequences"
    ),
    "Tokenizer.tokens_of: ids if isinstance(ids, np.ndarray) else list(ids) -> list(ids)": (
        "a list of an array's elements becomes the same array again"
    ),
    "Tokenizer.encode: if not allowed: -> if False:": "then the whole text is one piece, and not special",
    "Tokenizer.encode_batch: self.pad_id if len(lengths) > 1 else 0 -> self.pad_id if len(lengths) > 1 else 1": (
        "rows of one length are not padded"
    ),
    "Tokenizer.save: Path(path).write_text(json.dumps(state), encoding='utf-8') -> "
    "Path(path).write_text(json.dumps(state))": "json writes ASCII",
    "Tokenizer.load: Path(path).read_text(encoding='utf-8') -> Path(path).read_text()": NOT_HERE,
    "Tokenizer.decode: skip_special_tokens=False -> skip_special_tokens=True": "it raises in any case",
    "CharTokenizer.encode_ordinary: unknown < 0 -> unknown <= 0": NO_UNKNOWN,
    "CharTokenizer.encode_ordinary: unknown < 0 -> unknown < 1": NO_UNKNOWN,
    "CharTokenizer.encode_ordinary: ids.min(initial=0) -> ids.min(initial=1)": "of none, neither is below 0",
    "Chain.pair: right >= 0 -> right > 0": NEVER_FIRST,
    "Chain.pair: right >= 0 -> right >= 1": NEVER_FIRST,
    "Chain.join: beyond >= 0 -> beyond > 0": NEVER_FIRST,
    "Chain.join: beyond >= 0 -> beyond >= 1": NEVER_FIRST,
    "train_merges: break -> continue": "what is still in the heap occurs no more often",
    "train_merges: if gone is not None: -> if True:": "then there is a count for None, which nobody asks for",
    "apply_merges: end + 1 -> end + 2": "a number more at the end, which nobody reads",
    "BPETokenizer.encode_ordinary: len(word) <= CACHED_LENGTH -> len(word) < CACHED_LENGTH": ABOUT_AS_MANY,
    "BPETokenizer.encode_ordinary: len(cache) >= CACHED_WORDS -> len(cache) > CACHED_WORDS": ABOUT_AS_MANY,
    "module: 1 << 14 -> 2 << 14": ABOUT_AS_MANY,
    "module: 1 << 14 -> 1 << 15": ABOUT_AS_MANY,
    "module: CACHED_LENGTH = 64 -> CACHED_LENGTH = 65": ABOUT_AS_MANY,
}
