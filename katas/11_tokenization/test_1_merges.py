"""Level 1: words, merges and the byte-level tokenizer, on examples worked out by hand."""

import itertools
import json
from string import ascii_lowercase

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.tokenization import (
    BPETokenizer,
    Chain,
    apply_merges,
    count_words,
    split_words,
    train_merges,
)

AB, ABC = (97, 98), (256, 99)  # "ab" becomes 256, and "abc" 257
BANANA = [(97, 97), (97, 98), (256, 257)]  # what "aaabdaaabac" teaches: aa, ab, aaab


def ids(*numbers):
    return np.array(numbers, np.int64)


def merged(words, count, least=2):
    return [tuple(pair) for pair in train_merges(words, count, least)]


# 11.8 split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the cat sat", ["the", " cat", " sat"]),
        ("don't they'll I've", ["don", "'t", " they", "'ll", " I", "'ve"]),
        ("he's we're I'm I'd", ["he", "'s", " we", "'re", " I", "'m", " I", "'d"]),
        ("'tis 'Twas", ["'t", "is", " '", "Twas"]),
        ("the year 1984.", ["the", " year", " 1984", "."]),
        ("x1y22 z", ["x", "1", "y", "22", " z"]),
        ("wait... what?!", ["wait", "...", " what", "?!"]),
        ("(a) [b]", ["(", "a", ")", " [", "b", "]"]),
        ("snake_case __init__", ["snake", "_", "case", " __", "init", "__"]),
        ("a_1", ["a", "_", "1"]),
        ("a  b", ["a", " ", " b"]),
        ("a    b", ["a", "   ", " b"]),
        ("a \n b", ["a", " \n", " b"]),
        ("a\nb", ["a", "\n", "b"]),
        ("a\n\nb", ["a", "\n", "\n", "b"]),
        ("a\t b\t\tc", ["a", "\t", " b", "\t", "\t", "c"]),
        ("end  \n", ["end", "  \n"]),
        ("   ", ["   "]),
        (" ", [" "]),
        ("", []),
        ("été à Zürich", ["été", " à", " Zürich"]),
        ("мир 世界", ["мир", " 世界"]),
        ("٣٤ x", ["٣٤", " x"]),
        ("hi 😀😀!", ["hi", " 😀😀!"]),
        ("a\u00a0b", ["a", "\u00a0", "b"]),
    ],
)
def test_a_text_is_cut_into_words(text, words):
    expect(list(split_words(text)), words)


# 11.9 count_words


def test_words_are_counted_as_bytes():
    expect(
        dict(count_words("the cat the été the the")), {b"the": 1, b" the": 3, b" cat": 1, " été".encode(): 1}
    )
    expect(dict(count_words("")), {})


def test_capitals_are_letters_of_their_own():
    expect(dict(count_words("The the")), {b"The": 1, b" the": 1})


def test_words_are_in_the_order_in_which_they_first_come():
    expect(list(count_words("b a c a b a")), [b"b", b" a", b" c", b" b"])


def test_special_tokens_are_borders_of_words():
    counts = count_words("cat<|end|>cat<|end|><|end|>dog", ["<|end|>"])
    expect(dict(counts), {b"cat": 2, b"dog": 1})
    expect(dict(count_words("ab<e>cd", ())), {b"ab": 1, b"<": 1, b"e": 1, b">": 1, b"cd": 1})
    expect(dict(count_words("abcabc", ["bc"])), {b"a": 2})


def test_half_of_a_surrogate_pair_has_no_bytes():
    with expect_error(ValueError):
        count_words("a\ud83d")


# 11.10 Chain


def test_a_pair_is_an_id_and_the_one_after_it():
    chain = Chain([b"abc", b"d", b"ef"])
    expect(
        [chain.pair(p) for p in range(6)],
        [(97, 98), (98, 99), None, None, (101, 102), None],
    )
    expect(chain.pair(-1), None)


def test_two_ids_become_one():
    chain = Chain([b"abcd"])
    chain.join(1, 256)
    expect(list(chain.rest()), [97, 256, 100])
    expect([chain.pair(p) for p in (0, 1, 2, 3)], [(97, 256), (256, 100), None, None])
    expect((chain.ids[1], chain.ids[2]), (256, -1))


def test_neighbours_know_each_other_after_a_join():
    chain = Chain([b"abcde"])
    chain.join(1, 256)  # a, bc, d, e
    expect((chain.after[0], chain.after[1], chain.after[3]), (1, 3, 4))
    expect((chain.before[1], chain.before[3], chain.before[4]), (0, 1, 3))
    chain.join(0, 257)  # abc, d, e
    expect((chain.before[0], chain.after[0], chain.before[3]), (-1, 3, 0))
    chain.join(3, 258)  # abc, de
    expect((chain.after[0], chain.after[3]), (3, -1))
    chain.join(0, 259)
    expect((chain.before[0], chain.after[0], chain.pair(0)), (-1, -1, None))
    expect(list(chain.rest()), [259])


def test_a_join_at_the_end_of_a_word_does_not_reach_the_next():
    chain = Chain([b"ab", b"cd"])
    chain.join(0, 256)
    expect([chain.pair(0), chain.pair(2)], [None, (99, 100)])
    expect((chain.before[2], chain.after[2], chain.before[3]), (-1, 3, 2))
    chain.join(2, 257)
    expect(list(chain.rest()), [256, 257])


def test_the_last_word_is_not_joined_to_the_first():
    """Python's -1 is the last place, a chain's is none."""
    chain = Chain([b"ab", b"cd"])
    chain.join(2, 256)
    expect((chain.before[0], chain.after[1], chain.pair(1)), (-1, -1, None))
    expect(list(chain.rest()), [97, 98, 256])


def test_an_id_of_zero_is_an_id():
    chain = Chain([b"\0\0a"])
    expect([chain.pair(0), chain.pair(1)], [(0, 0), (0, 97)])
    expect(list(chain.rest()), [0, 0, 97])


def test_no_words_are_no_ids():
    expect(list(Chain([]).rest()), [])
    chain = Chain([b"", b"a", b""])
    expect((list(chain.rest()), chain.pair(0)), ([97], None))


# 11.11 train_merges


def test_the_pair_that_occurs_most_often_is_joined_first():
    """aaabdaaabac: aa 4 times, then ab (X a b: 256 97, 97 98, twice each), then aa ab."""
    expect(merged({b"aaabdaaabac": 1}, 3), BANANA)


def test_a_pair_counts_as_many_times_as_its_word_occurs():
    expect(merged({b"ab": 2, b"cd": 5, b"xabx": 4}, 2), [AB, (99, 100)])
    expect(merged({b"ab": 2, b"cd": 5, b"xabx": 2}, 2), [(99, 100), AB])


def test_words_may_occur_billions_of_times():
    """More often than 32 bits can say."""
    expect(merged({b"ab": 3_000_000_000, b"cd": 5_000_000_000}, 2), [(99, 100), AB])


def test_counts_change_with_what_is_joined():
    """ab 3, bc 2 and cd 2; once ab is there, bc is gone, and abc comes before cd or after it."""
    expect(merged({b"abc": 2, b"ab": 1, b"cd": 3}, 3), [AB, (99, 100), ABC])
    expect(merged({b"abc": 3, b"ab": 1, b"cd": 2}, 3), [AB, ABC, (99, 100)])


def test_of_several_the_smallest_pair_is_first():
    expect(
        merged({b"yz": 1, b"ba": 1, b"bz": 1, b"ab": 1}, 4, 1), [(97, 98), (98, 97), (98, 122), (121, 122)]
    )


def test_a_new_id_is_larger_than_all_before_it():
    """aab twice: aa and ab are as many; then 256 98, which is not smaller than 120 121."""
    expect(merged({b"aab": 2, b"xy": 2}, 3), [(97, 97), (120, 121), (256, 98)])


def test_runs_are_joined_from_left_to_right():
    """aaaaa is 256 256 97; counts of pairs in a run count each place, so aa is there 4 times."""
    expect(merged({b"aaaaa": 1, b"bc": 3}, 2), [(97, 97), (98, 99)])
    expect(merged({b"aaaa": 2, b"bc": 3}, 3), [(97, 97), (98, 99), (256, 256)])
    expect(merged({b"aaaaa": 2}, 4), [(97, 97), (256, 97), (256, 257)])


def test_pairs_do_not_go_beyond_their_word():
    expect(merged({b"a": 9, b"b": 9, b"cd": 2}, 5), [(99, 100)])


def test_a_pair_must_occur_often_enough():
    words = {b"ab": 3, b"cd": 2, b"ef": 1}
    expect(merged(words, 9), [AB, (99, 100)])
    expect(merged(words, 9, 3), [AB])
    expect(merged(words, 9, 4), [])
    expect(merged(words, 9, 1), [AB, (99, 100), (101, 102)])
    expect([tuple(pair) for pair in train_merges(words, 9)], [AB, (99, 100)])


def test_a_pair_that_was_frequent_is_counted_again():
    """bc occurs 4 times, but in 3 of them its b goes to ab."""
    expect(merged({b"abc": 3, b"bc": 1, b"ab": 2, b"xy": 2}, 4), [AB, ABC, (120, 121)])
    expect(merged({b"abc": 1, b"bc": 3, b"ab": 4}, 4), [AB, (98, 99)])


def test_there_are_no_more_merges_than_wanted():
    expect(merged({b"aaabdaaabac": 1}, 0), [])
    expect(merged({b"aaabdaaabac": 1}, 1), [(97, 97)])
    expect(merged({}, 5), [])
    expect(merged({b"a": 7, b"": 3}, 5, 1), [])


def test_words_are_not_changed_by_training():
    words = {b"abc": 3, b"ab": 2}
    train_merges(words, 5)
    expect(words, {b"abc": 3, b"ab": 2})


# 11.12 apply_merges


@pytest.mark.parametrize(
    ("word", "result"),
    [
        (b"aaabdaaabac", [258, 100, 258, 97, 99]),
        (b"aaab", [258]),
        (b"aab", [256, 98]),
        (b"aaaaa", [256, 256, 97]),
        (b"aaaab", [256, 256, 98]),
        (b"aaaaab", [256, 258]),
        (b"b", [98]),
        (b"", []),
        (b"xyz\xff\x00", [120, 121, 122, 255, 0]),
    ],
)
def test_merges_are_made_in_the_order_of_their_ranks(word, result):
    ranks = {pair: i for i, pair in enumerate(BANANA, 256)}
    expect([int(i) for i in apply_merges(word, ranks)], result)


def test_the_lowest_rank_goes_first_wherever_it_is():
    """bc was learnt before ab, so abc is a bc, and not ab c."""
    expect(list(apply_merges(b"abc", {(98, 99): 256, AB: 257})), [97, 256])
    expect(list(apply_merges(b"abc", {AB: 256, (98, 99): 257})), [256, 99])
    expect(list(apply_merges(b"abbc", {(98, 99): 256, AB: 257})), [257, 256])


def test_a_longer_token_needs_its_parts():
    """abc can be made of ab and c only; a and bc are not what was learnt."""
    ranks = {(98, 99): 256, AB: 257, (257, 99): 258}
    expect(list(apply_merges(b"abc", ranks)), [97, 256])


def test_ranks_need_not_begin_at_256():
    expect(list(apply_merges(b"abab", {AB: 300, (300, 300): 1000})), [1000])


def test_ranks_that_change_are_looked_at_again():
    ranks = {AB: 256}
    expect(list(apply_merges(b"abc", ranks)), [256, 99])
    ranks[ABC] = 257
    expect(list(apply_merges(b"abc", ranks)), [257])
    ranks[AB], ranks[260, 99] = 260, 261
    expect(list(apply_merges(b"abc", ranks)), [261])
    expect(ranks, {AB: 260, ABC: 257, (260, 99): 261})


def test_no_ranks_leave_the_bytes():
    expect(list(apply_merges("é".encode(), {})), [195, 169])


# 11.13 BPETokenizer


def test_ids_below_256_are_the_bytes():
    tokenizer = BPETokenizer()
    expect(tokenizer.vocab_size, 256)
    expect([tokenizer.vocabulary.id_to_token(i) for i in (0, 97, 255)], [b"\0", b"a", b"\xff"])


def test_a_merge_is_the_bytes_of_its_parts():
    tokenizer = BPETokenizer([AB, ABC, (257, 256)], ["<e>", "<pad>"])
    expect(tokenizer.vocab_size, 261)
    expect([tokenizer.vocabulary.id_to_token(i) for i in (256, 257, 258)], [b"ab", b"abc", b"abcab"])
    expect(tokenizer.special_tokens, {"<e>": 259, "<pad>": 260})
    expect([tuple(pair) for pair in tokenizer.merges], [AB, ABC, (257, 256)])
    expect(tokenizer.pad_id, 260)


def test_the_byte_zero_may_be_merged():
    expect(BPETokenizer([(0, 0), (0, 256)]).encode("\0\0\0\0"), ids(256, 256))


def test_merges_may_be_lists_or_come_from_a_generator():
    expect(BPETokenizer([list(AB), list(ABC)]).encode("abc"), ids(257))
    expect(BPETokenizer(pair for pair in (AB, ABC)).encode("abc"), ids(257))


@pytest.mark.parametrize(
    ("merges", "named"),
    [
        ([(97, 256)], "256"),
        ([AB, (257, 97)], "257"),
        ([(-1, 97)], "-1"),
        ([("a", 98)], "a"),
        ([(97.0, 98)], "97.0"),
    ],
)
def test_a_merge_joins_what_is_there(merges, named):
    with expect_error(ValueError, named):
        BPETokenizer(merges)


def test_a_list_that_changes_later_changes_no_tokenizer():
    merges, special = [AB], ["<e>"]
    tokenizer = BPETokenizer(merges, special)
    merges.append(ABC)
    special.append("<f>")
    expect([tuple(pair) for pair in tokenizer.merges], [AB])
    expect([tuple(pair) for pair in tokenizer.state_dict()["merges"]], [AB])
    expect((tokenizer.encode("abc"), tokenizer.special_tokens), (ids(256, 99), {"<e>": 257}))


@pytest.mark.parametrize("merges", [[AB, AB], [(97, 97), (97, 256), (256, 97)]])
def test_bytes_are_one_token_and_not_two(merges):
    with expect_error(ValueError):
        BPETokenizer(merges)


def test_a_tokenizer_learns_from_a_text():
    """l o and o w are there 7 times, " l" 6 times: lo, low, " low"."""
    tokenizer = BPETokenizer.train("low low low low low lower lower", 260, ["<e>"])
    expect([tuple(pair) for pair in tokenizer.merges], [(108, 111), (256, 119), (32, 257)])
    expect(tokenizer.vocab_size, 260)
    expect(tokenizer.special_tokens, {"<e>": 259})
    expect(tokenizer.encode("low lower"), ids(257, 258, 101, 114))


def test_vocab_size_is_a_limit_and_not_a_promise():
    tokenizer = BPETokenizer.train("abab", 1000, ["<e>"])
    expect([tuple(pair) for pair in tokenizer.merges], [AB])
    expect(tokenizer.vocab_size, 258)
    expect(BPETokenizer.train("abab", 1000, min_frequency=1).vocab_size, 258)
    expect(BPETokenizer.train("abab", 1000, min_frequency=3).vocab_size, 256)
    expect(BPETokenizer.train("", 300).vocab_size, 256)


def test_bytes_and_special_tokens_need_their_room():
    expect(BPETokenizer.train("abab", 257, ["<e>"]).merges, [])
    for size, special in [(255, []), (256, ["<e>"]), (0, []), (-5, [])]:
        with expect_error(ValueError, str(size)):
            BPETokenizer.train("abab", size, special)


def test_special_tokens_in_a_text_teach_nothing():
    tokenizer = BPETokenizer.train("<|e|>ab<|e|>ab<|e|>", 300, (token for token in ["<|e|>"]))
    expect([tuple(pair) for pair in tokenizer.merges], [AB])
    expect(tokenizer.special_tokens, {"<|e|>": 257})


def test_training_makes_the_class_that_it_is_called_on():
    class Mine(BPETokenizer):
        pass

    expect(type(Mine.train("abab", 257)), Mine)


# 11.14 BPETokenizer.encode_ordinary


def test_a_text_is_encoded_word_by_word():
    """In one piece, "ab ab" would be 256 32 256 and no more; " ab" is a word, and 258."""
    tokenizer = BPETokenizer([AB, (98, 32), (32, 256)])
    expect(tokenizer.encode("ab ab abab"), ids(256, 258, 258, 256))
    expect(tokenizer.encode("b a"), ids(98, 32, 97))
    expect(tokenizer.encode_ordinary("ab"), ids(256))


def test_a_text_is_encoded_the_same_way_each_time():
    tokenizer = BPETokenizer([AB])
    first = tokenizer.encode("ab cab ab")
    expect(first, ids(256, 32, 99, 256, 32, 256))
    first[...] = 7  # what is handed out is the caller's
    expect(tokenizer.encode("ab cab ab"), ids(256, 32, 99, 256, 32, 256))
    one = tokenizer.encode("ab")
    one[...] = 7
    expect(tokenizer.encode("ab"), ids(256))


def test_two_tokenizers_remember_words_of_their_own():
    first, second = BPETokenizer([AB]), BPETokenizer([(98, 97)])
    expect(first.encode("aba"), ids(256, 97))
    expect(second.encode("aba"), ids(97, 256))


def test_characters_beyond_ascii_are_several_bytes():
    expect(BPETokenizer().encode("é😀"), ids(195, 169, 240, 159, 152, 128))
    expect(BPETokenizer([(195, 169)]).encode("été"), ids(256, 116, 256))


def test_no_text_has_no_ids():
    expect(BPETokenizer([AB]).encode(""), ids())
    expect(BPETokenizer([AB]).encode_ordinary(""), ids())


def test_special_tokens_are_made_where_they_are_allowed():
    tokenizer = BPETokenizer([AB], ["<e>"])
    expect(tokenizer.encode("ab<e>ab", "all"), ids(256, 257, 256))
    expect(tokenizer.encode("ab<e>ab"), ids(256, 60, 101, 62, 256))


def test_half_of_a_surrogate_pair_is_not_encoded():
    with expect_error(ValueError):
        BPETokenizer().encode("a\ud83db")


@pytest.mark.parametrize("length", [63, 64, 65, 1000])
def test_long_words_are_words_too(length):
    tokenizer = BPETokenizer([(97, 97)])
    for _ in range(2):
        expect(tokenizer.encode("a" * length), ids(*[256] * (length // 2), *[97] * (length % 2)))


def test_ids_may_be_larger_than_16_bits():
    """All 65,536 pairs of bytes; the last of them, zz, is 65,791."""
    pairs = [(i, j) for i in range(256) for j in range(256) if (i, j) != (122, 122)]
    tokenizer = BPETokenizer([*pairs, (122, 122)])
    expect(tokenizer.encode("zz"), ids(65_791))
    expect(tokenizer.decode([65_791]), "zz")


def test_more_words_than_are_remembered_are_encoded_all():
    """17,576 words of three letters; CACHED_WORDS is 16,384."""
    tokenizer = BPETokenizer([(32, 97)])
    text = "".join(f" {''.join(word)}" for word in itertools.product(ascii_lowercase, repeat=3))
    expect(tokenizer.decode(tokenizer.encode(text)), text)
    expect(tokenizer.encode(" abc"), ids(256, 98, 99))


# 11.15 BPETokenizer.decode


def test_ids_become_the_text_again():
    tokenizer = BPETokenizer([AB, ABC], ["<e>"])
    expect(tokenizer.decode([257, 32, 256, 258]), "abc ab<e>")
    expect(tokenizer.decode(ids(256)), "ab")
    expect(tokenizer.decode([]), "")
    expect(tokenizer.decode(i for i in (97, 256)), "aab")


def test_a_character_may_begin_in_one_token_and_end_in_another():
    expect(BPETokenizer([(169, 32)]).decode([195, 256]), "é ")
    expect(BPETokenizer().decode([240, 159, 152, 128]), "😀")


def test_what_is_no_utf_8_is_the_character_that_says_so():
    expect(BPETokenizer().decode([97, 195, 98]), "a\ufffdb")
    expect(BPETokenizer().decode([195]), "\ufffd")
    expect(BPETokenizer().decode([255, 254]), "\ufffd\ufffd")


def test_special_tokens_may_be_left_out_of_a_text():
    tokenizer = BPETokenizer([AB], ["<e>", "<é>"])
    expect(tokenizer.decode([257, 256, 258, 99]), "<e>ab<é>c")
    expect(tokenizer.decode([257, 256, 258, 99], skip_special_tokens=True), "abc")
    expect(tokenizer.decode([195, 257, 169], skip_special_tokens=True), "é")


@pytest.mark.parametrize("wrong", [[257], [-1], [97, 1000], [0, 300], [0, -5], ids(97, -7)])
def test_an_id_that_there_is_not_is_named(wrong):
    with expect_error(ValueError, str(min(wrong) if min(wrong) < 0 else max(wrong))):
        BPETokenizer([AB]).decode(wrong)


# 11.6 with merges


def test_merges_come_back_from_a_file(tmp_path):
    BPETokenizer([AB, ABC], ["<é>"]).save(tmp_path / "bpe.json")
    again = BPETokenizer.load(tmp_path / "bpe.json")
    expect([tuple(pair) for pair in again.merges], [AB, ABC])
    expect(again.special_tokens, {"<é>": 258})
    expect(again.encode("abcab<é>", "all"), ids(257, 256, 258))
    again.save(tmp_path / "again.json")
    expect((tmp_path / "again.json").read_bytes(), (tmp_path / "bpe.json").read_bytes())


@pytest.mark.parametrize(
    "merges",
    [[[97, 98], [97, 98]], [[97, 300]], [[97]], [[97, 98, 99]], [["a", "b"]], [97, 98], 5, None],
    ids=str,
)
def test_merges_that_make_no_sense_are_a_damaged_file(merges, tmp_path):
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps({"type": "BPETokenizer", "merges": merges, "special_tokens": []}), "utf-8")
    with expect_error(ValueError, "wrong.json"):
        BPETokenizer.load(path)
