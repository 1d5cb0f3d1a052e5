"""Level 1: vocabularies, special tokens, batches and characters, on examples worked out by hand."""

import json

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.tokenization import (
    BPETokenizer,
    CharTokenizer,
    Tokenizer,
    Vocabulary,
    bytes_per_token,
    pad_sequences,
    split_special,
)


def ids(*numbers):
    return np.array(numbers, np.int64)


# What normal forms, other ends of lines or a trim would change.
ODD = ("e\u0301 \u00e9", "\ufb01 \uff21 \u00b2", "a\r\nb\rc\n", "\ufeffab\ufeff", "\u200b \u00a0 \t", "\0a\0")


class Codes(Tokenizer):
    """Capital letters, id 0 to 25: a tokenizer that needs nothing but what all have in common."""

    def __init__(self, special_tokens=()):
        super().__init__("ABCDEFGHIJKLMNOPQRSTUVWXYZ", special_tokens)

    def encode_ordinary(self, text):
        return np.array([ord(c) - 65 for c in text], np.int64)

    def state_dict(self):
        return {"special_tokens": list(self.special_tokens)}


# 11.1 Vocabulary


def test_an_id_is_a_place_in_the_list():
    words = Vocabulary(["the", b"\xff", "cat"])
    expect(len(words), 3)
    expect([words.token_to_id(token) for token in ("the", b"\xff", "cat")], [0, 1, 2])
    expect([words.id_to_token(i) for i in (2, 1, 0)], ["cat", b"\xff", "the"])
    expect(words.tokens, ["the", b"\xff", "cat"])


def test_a_vocabulary_may_come_from_any_iterable_and_be_empty():
    expect(Vocabulary(c for c in "abc").tokens, ["a", "b", "c"])
    expect(len(Vocabulary(c for c in "abc")), 3)
    expect(len(Vocabulary([])), 0)


def test_a_vocabulary_knows_what_is_in_it():
    words = Vocabulary(["the", "cat"])
    expect("cat" in words, True)
    expect("dog" in words, False)
    expect(b"cat" in words, False)


def test_bytes_are_not_the_text_they_spell():
    words = Vocabulary(["a", b"a"])
    expect([words.token_to_id(b"a"), words.token_to_id("a")], [1, 0])


def test_a_list_that_changes_later_changes_no_vocabulary():
    given = ["a", "b"]
    words = Vocabulary(given)
    given.append("c")
    expect((len(words), words.tokens), (2, ["a", "b"]))


def test_a_token_is_there_once():
    with expect_error(ValueError, "'b'"):
        Vocabulary(["a", "b", "c", "b"])
    with expect_error(ValueError, "'a'"):
        Vocabulary(["a", "a"])
    with expect_error(ValueError, "'b'"):
        Vocabulary(["a", "b", "b", "c"])


def test_what_is_not_there_is_named():
    words = Vocabulary(["a", "b"])
    with expect_error(ValueError, "'dog'"):
        words.token_to_id("dog")
    for wrong in (2, -1, -2, 100):
        with expect_error(ValueError, str(wrong), "2"):
            words.id_to_token(wrong)


def test_an_id_may_be_one_of_numpy_s():
    """Ids live in arrays."""
    words = Vocabulary(["a", "b"])
    expect([words.id_to_token(i) for i in ids(1, 0)], ["b", "a"])
    with expect_error(ValueError, "-1", "2"):
        words.id_to_token(np.int64(-1))


# 11.2 split_special


@pytest.mark.parametrize(
    ("text", "special", "pieces"),
    [
        ("one<|end|>two", ["<|end|>"], [("one", False), ("<|end|>", True), ("two", False)]),
        ("<|end|>", ["<|end|>"], [("<|end|>", True)]),
        ("a<e><e>", ["<e>"], [("a", False), ("<e>", True), ("<e>", True)]),
        ("<e>b", ["<e>", "<f>"], [("<e>", True), ("b", False)]),
        ("a.b|c", ["|", "."], [("a", False), (".", True), ("b", False), ("|", True), ("c", False)]),
        ("nothing here", ["<e>"], [("nothing here", False)]),
        ("a\n<e>\nb", ["<e>"], [("a\n", False), ("<e>", True), ("\nb", False)]),
        ("", ["<e>"], []),
        ("", [], []),
        ("none <e> known", [], [("none <e> known", False)]),
        ("<E>", ["<e>"], [("<E>", False)]),
        ("a(b)", ["(b)", "[", "\\"], [("a", False), ("(b)", True)]),
    ],
)
def test_a_text_is_cut_at_special_tokens(text, special, pieces):
    expect(list(split_special(text, special)), pieces)


@pytest.mark.parametrize("order", [["<e>", "<e><e>", "e"], ["<e><e>", "e", "<e>"], ["e", "<e>", "<e><e>"]])
def test_the_longest_special_token_is_meant(order):
    """Whatever comes first in the list."""
    expect(
        list(split_special("<e><e><e>e", order)),
        [("<e><e>", True), ("<e>", True), ("e", True)],
    )


def test_the_first_place_goes_before_the_longest_token():
    expect(list(split_special("abcd", ["bcd", "ab"])), [("ab", True), ("cd", False)])


def test_special_tokens_may_be_the_keys_of_a_dict():
    expect(list(split_special("a<e>", {"<e>": 7})), [("a", False), ("<e>", True)])


# 11.3 pad_sequences


def test_rows_are_filled_up_on_the_right():
    padded, mask = pad_sequences([[1, 2, 3], [4], []], pad_id=9)
    expect(padded, np.array([[1, 2, 3], [4, 9, 9], [9, 9, 9]], np.int64))
    expect(mask, np.array([[True, True, True], [True, False, False], [False, False, False]]))


def test_a_length_may_be_given():
    padded, mask = pad_sequences([ids(1, 2), ids(3)], 0, length=4)
    expect(padded, np.array([[1, 2, 0, 0], [3, 0, 0, 0]], np.int64))
    expect(mask, np.array([[True, True, False, False], [True, False, False, False]]))
    expect(pad_sequences([[1, 2]], 0, length=2)[0], np.array([[1, 2]], np.int64))


def test_no_rows_of_a_length_have_that_length():
    padded, mask = pad_sequences([], 0, length=3)
    expect((padded, mask), (np.zeros((0, 3), np.int64), np.zeros((0, 3), bool)))


def test_padding_may_be_any_number():
    """-100 is what a loss leaves out."""
    expect(pad_sequences([[1, 2], [3]], -100)[0], np.array([[1, 2], [3, -100]], np.int64))
    expect(pad_sequences([[2**40], []], 2**41)[0], np.array([[2**40], [2**41]], np.int64))


def test_rows_stay_as_they_are_and_what_comes_back_is_the_callers():
    rows = [[1, 2], [3], ids(4)]
    for array in pad_sequences(rows, 0):
        array[...] = 7
    expect((rows[0], rows[1], rows[2]), ([1, 2], [3], ids(4)))
    table = np.arange(6).reshape(2, 3)
    padded, mask = pad_sequences(table, 0)
    expect((padded, mask), (np.arange(6).reshape(2, 3), np.ones((2, 3), bool)))
    padded[...], mask[...] = 7, False
    expect(table, np.arange(6).reshape(2, 3))


def test_the_mask_knows_a_real_id_from_padding_that_looks_alike():
    padded, mask = pad_sequences([[0, 5, 0], [5, 0]], pad_id=0)
    expect(padded, np.array([[0, 5, 0], [5, 0, 0]], np.int64))
    expect(mask, np.array([[True, True, True], [True, True, False]]))


@pytest.mark.parametrize(("rows", "shape"), [([], (0, 0)), ([[], []], (2, 0))])
def test_nothing_has_a_shape_too(rows, shape):
    padded, mask = pad_sequences(rows, 0)
    expect(padded, np.zeros(shape, np.int64))
    expect(mask, np.zeros(shape, bool))


def test_rows_of_any_integers_make_int64():
    padded, _ = pad_sequences([np.array([300, 2], np.int32), np.array([7], np.uint8)], 50_000)
    expect(padded, np.array([[300, 2], [7, 50_000]], np.int64))


def test_a_row_that_does_not_fit_is_an_error():
    with expect_error(ValueError, "5", "3"):
        pad_sequences([[1], [1, 2, 3, 4, 5]], 0, length=3)
    with expect_error(ValueError, "1", "0"):
        pad_sequences([[1]], 0, length=0)


# 11.4 Tokenizer.encode


def test_special_tokens_are_text_unless_allowed():
    class Everything(Codes):
        def encode_ordinary(self, text):
            return np.full(len(text), 1, np.int64)

    tokenizer = Everything(["<e>"])
    expect(tokenizer.encode("A<e>"), ids(1, 1, 1, 1))
    expect(tokenizer.encode("A<e>", allowed_special=["<e>"]), ids(1, 26))


def test_special_ids_come_after_the_ordinary_ones():
    tokenizer = Codes(["<a>", "<b>"])
    expect(tokenizer.encode("A<b>B<a>", allowed_special="all"), ids(0, 27, 1, 26))
    expect(tokenizer.encode("<b><b>", allowed_special="all"), ids(27, 27))
    expect(tokenizer.encode("CAB", allowed_special="all"), ids(2, 0, 1))


def test_only_what_is_allowed_is_special():
    class Lengths(Codes):
        """Each ordinary piece becomes its length."""

        def encode_ordinary(self, text):
            return np.array([len(text)], np.int64)

    tokenizer = Lengths(["<a>", "<b>"])
    expect(tokenizer.encode("<a><b>xy", allowed_special={"<b>"}), ids(3, 27, 2))
    expect(tokenizer.encode("<a><b>xy", allowed_special=("<a>", "<b>")), ids(26, 27, 2))
    expect(tokenizer.encode("<a><b>xy", allowed_special=()), ids(8))


@pytest.mark.parametrize("allowed", [(), "all", ["<e>"]])
def test_no_text_has_no_ids(allowed):
    expect(Codes(["<e>"]).encode("", allowed), ids())


def test_what_is_allowed_is_the_callers():
    allowed = {"<a>"}
    tokenizer = Codes(["<a>", "<b>"])
    expect(tokenizer.encode("<a>", allowed), ids(26))
    expect((allowed, tokenizer.special_tokens), ({"<a>"}, {"<a>": 26, "<b>": 27}))


def test_all_of_no_special_tokens_are_none():
    expect(Codes().encode("AB", allowed_special="all"), ids(0, 1))


def test_special_tokens_may_come_from_any_iterable():
    expect(Codes(token for token in ("<a>", "<b>")).special_tokens, {"<a>": 26, "<b>": 27})


def test_what_a_tokenizer_has_of_its_own_is_missed():
    """`encode_ordinary` is the subclass's; a tokenizer without it says so."""
    tokenizer = Tokenizer("ab", ["<e>"])
    for work in (
        lambda: tokenizer.encode("ab"),
        lambda: tokenizer.decode([0]),
        lambda: tokenizer.state_dict(),
    ):
        with expect_error(TypeError, "Tokenizer"):
            work()


def test_what_is_allowed_must_be_special():
    with expect_error(ValueError, "<f>"):
        Codes(["<e>"]).encode("A", allowed_special=["<e>", "<f>"])
    with expect_error(ValueError):
        Codes(["<e>"]).encode("A", allowed_special="<e>")  # a string is a collection of characters
    with expect_error(ValueError, "<f>"):
        Codes(["<e>"]).encode("", allowed_special=["<f>"])


# 11.5 Tokenizer.encode_batch


def test_a_batch_is_as_long_as_its_longest_text():
    batch, mask = Codes(["<pad>"]).encode_batch(["ABC", "", "D"])
    expect(batch, np.array([[0, 1, 2], [26, 26, 26], [3, 26, 26]], np.int64))
    expect(mask, np.array([[True] * 3, [False] * 3, [True, False, False]]))


def test_a_batch_is_filled_with_pad_wherever_that_stands():
    batch, _ = Codes(["<e>", "<pad>"]).encode_batch(["AB", "C"])
    expect(batch, np.array([[0, 1], [2, 27]], np.int64))


def test_a_pad_token_in_a_text_is_a_real_id():
    batch, mask = Codes(["<pad>"]).encode_batch(["A<pad>", "B"], allowed_special="all")
    expect(batch, np.array([[0, 26], [1, 26]], np.int64))
    expect(mask, np.array([[True, True], [True, False]]))


def test_each_text_of_a_batch_is_encoded_once():
    class Counting(Codes):
        seen = ()

        def encode_ordinary(self, text):
            self.seen = (*self.seen, text)
            return super().encode_ordinary(text)

    tokenizer = Counting(["<pad>"])
    tokenizer.encode_batch(["ABC", "D", "EF"], max_length=2)
    expect(tokenizer.seen, ("ABC", "D", "EF"))


def test_long_texts_lose_their_end():
    batch, mask = Codes(["<pad>"]).encode_batch(["ABCD", "E"], max_length=2)
    expect(batch, np.array([[0, 1], [4, 26]], np.int64))
    expect(mask, np.array([[True, True], [True, False]]))
    batch, _ = Codes(["<pad>"]).encode_batch(["ABCD", "E"], max_length=9)
    expect(batch.shape, (2, 4))


def test_max_length_counts_ids_not_characters():
    batch, _ = Codes(["<pad>", "<e>"]).encode_batch(["<e>A<e>B"], max_length=3, allowed_special="all")
    expect(batch, np.array([[27, 0, 27]], np.int64))


def test_special_tokens_in_a_batch_must_be_allowed_too():
    with expect_error(ValueError, "<f>"):
        Codes(["<e>"]).encode_batch(["A"], allowed_special=["<f>"])


def test_texts_of_one_length_need_no_padding():
    """GPT-2 has no <pad>, and blocks of one length want none."""
    batch, mask = Codes().encode_batch(["AB", "CD"], pad=False)
    expect(batch, np.array([[0, 1], [2, 3]], np.int64))
    expect(mask, np.ones((2, 2), bool))
    expect(Codes().encode_batch(["AB", "CD"])[0], np.array([[0, 1], [2, 3]], np.int64))
    expect(Codes().encode_batch(["AB", "CDE"], max_length=2)[0], np.array([[0, 1], [2, 3]], np.int64))


def test_a_batch_of_no_text_has_a_shape():
    batch, mask = Codes().encode_batch([])
    expect(batch, np.zeros((0, 0), np.int64))
    expect(mask, np.zeros((0, 0), bool))


def test_texts_may_come_from_a_generator():
    batch, _ = Codes(["<pad>"]).encode_batch(text for text in ("A", "BC"))
    expect(batch, np.array([[0, 26], [1, 2]], np.int64))


def test_what_makes_no_batch_is_named():
    with expect_error(ValueError, "1", "3"):
        Codes(["<pad>"]).encode_batch(["ABC", "D"], pad=False)
    with expect_error(ValueError, "<pad>"):
        Codes().encode_batch(["ABC", "D"])


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_row_has_room_for_an_id(wrong):
    for texts in (["AB"], []):
        with expect_error(ValueError, str(wrong)):
            Codes(["<pad>"]).encode_batch(texts, max_length=wrong)


# 11.6 Tokenizer.save, Tokenizer.load


def test_a_tokenizer_comes_back_from_its_file(tmp_path):
    Codes(["<é>", "<pad>"]).save(tmp_path / "codes.json")
    again = Codes.load(str(tmp_path / "codes.json"))
    expect(type(again), Codes)
    expect(again.special_tokens, {"<é>": 26, "<pad>": 27})
    expect(again.vocab_size, 28)


def test_the_file_is_json_that_says_what_it_holds(tmp_path):
    Codes(["<e>"]).save(tmp_path / "codes.json")
    expect(
        json.loads((tmp_path / "codes.json").read_text("utf-8")),
        {"type": "Codes", "special_tokens": ["<e>"]},
    )


def test_saving_again_replaces_the_file(tmp_path):
    Codes(["<a>", "<b>"]).save(tmp_path / "codes.json")
    Codes().save(tmp_path / "codes.json")
    expect(Codes.load(tmp_path / "codes.json").special_tokens, {})


class Stated(Codes):
    """Its state is a dict that it keeps."""

    def __init__(self, special_tokens=()):
        super().__init__(special_tokens)
        self.state = {"special_tokens": list(special_tokens)}

    def state_dict(self):
        return self.state


def test_saving_leaves_the_state_as_it_is(tmp_path):
    tokenizer = Stated(["<e>"])
    for _ in range(2):
        tokenizer.save(tmp_path / "stated.json")
    expect(tokenizer.state, {"special_tokens": ["<e>"]})
    expect(Stated.load(tmp_path / "stated.json").special_tokens, {"<e>": 26})


def test_neither_parents_nor_children_read_a_file(tmp_path):
    """A class says by its name how the rest is meant."""
    Codes().save(tmp_path / "codes.json")
    Stated().save(tmp_path / "stated.json")
    with expect_error(ValueError, "codes.json"):
        Stated.load(tmp_path / "codes.json")
    with expect_error(ValueError, "stated.json"):
        Codes.load(tmp_path / "stated.json")


def test_a_file_may_be_written_by_another_program(tmp_path):
    """JSON in UTF-8, with or without escapes, in whatever order."""
    text = '{"special_tokens":["<é>","\\u00e9"],\n "type":"Codes"}'
    (tmp_path / "codes.json").write_bytes(text.encode())
    expect(Codes.load(tmp_path / "codes.json").special_tokens, {"<é>": 26, "é": 27})


def test_nothing_in_a_file_is_run(tmp_path):
    path, mark = tmp_path / "wrong.json", tmp_path / "mark"
    for content in ("{'type': 'Codes', 'special_tokens': []}", f"open({str(mark)!r}, 'w')"):
        path.write_text(content, "utf-8")
        with expect_error(ValueError, "wrong.json"):
            Codes.load(path)
    expect(mark.exists(), False)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b'{"type": "Codes", "special_tokens": ["<e>"]',
        b'{"special_tokens": []}',
        b'{"type": "Others", "special_tokens": []}',
        b'{"type": "Codes", "special_tokens": ["<e>", "<e>"]}',
        b'{"type": "Codes", "special_tokens": [3]}',
        b'{"type": "Codes", "special_tokens": 3}',
        b'{"type": "Codes", "more": 1}',
        b'["Codes"]',
        b"[" * 100_000,
        b"null",
        b"\xff\xfe",
        b'{"type": "Codes", "special_tokens": ["<\xe9>"]}',  # Latin-1, in what would be JSON
    ],
    ids=range(14),
)
def test_a_file_that_holds_something_else_is_named(tmp_path, content):
    path = tmp_path / "wrong.json"
    path.write_bytes(content)
    with expect_error(ValueError, "wrong.json"):
        Codes.load(path)


def test_a_file_that_is_not_there_is_not_a_damaged_one(tmp_path):
    with expect_error(FileNotFoundError):
        Codes.load(tmp_path / "none.json")


# 11.7 CharTokenizer


def test_characters_are_sorted_by_code_point():
    tokenizer = CharTokenizer.train("hello, wörld", special_tokens=["<e>"])
    expect("".join(tokenizer.characters), " ,dehlorwö")
    expect(tokenizer.vocab_size, 11)
    expect(tokenizer.special_tokens, {"<e>": 10})


def test_code_points_have_their_own_order():
    """Capitals first, as in ASCII, whatever a dictionary does."""
    expect(CharTokenizer.train("bBaAé_Z1").characters, ["1", "A", "B", "Z", "_", "a", "b", "é"])


def test_training_makes_the_class_that_it_is_called_on():
    class Mine(CharTokenizer):
        pass

    expect(type(Mine.train("ab")), Mine)


def test_each_character_becomes_its_id():
    tokenizer = CharTokenizer.train("cab")
    expect(tokenizer.encode("abcba"), ids(0, 1, 2, 1, 0))
    expect(tokenizer.encode("c"), ids(2))
    expect(tokenizer.encode(""), ids())
    expect(tokenizer.decode([2, 0, 1, 1]), "cabb")
    expect(tokenizer.decode([]), "")
    expect(tokenizer.decode(i for i in (2, 0)), "ca")


def test_ids_of_characters_are_the_callers():
    tokenizer = CharTokenizer("ab")
    first = tokenizer.encode("ab")
    first[...] = 7
    expect(tokenizer.encode("ab"), ids(0, 1))


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_a_text_comes_back_to_the_last_character(text):
    for tokenizer in (CharTokenizer.train(text), BPETokenizer()):
        expect(tokenizer.decode(tokenizer.encode(text)), text)


def test_characters_keep_the_order_that_they_are_given_in():
    tokenizer = CharTokenizer("zaé\n")
    expect(tokenizer.encode("\naéz"), ids(3, 1, 2, 0))
    expect(tokenizer.decode(ids(3, 1, 2, 0)), "\naéz")


def test_characters_beyond_the_first_plane_are_one_each():
    tokenizer = CharTokenizer.train("𝄞a😀")
    expect(tokenizer.vocab_size, 3)
    expect(tokenizer.encode("😀𝄞a"), ids(2, 1, 0))
    expect(tokenizer.decode([2, 1, 0]), "😀𝄞a")


def test_special_tokens_in_a_text_are_no_characters_of_it():
    tokenizer = CharTokenizer.train("ab<e>ba", special_tokens=["<e>"])
    expect(tokenizer.characters, ["a", "b"])
    expect(tokenizer.encode("a<e>b", "all"), ids(0, 2, 1))
    expect(tokenizer.decode([0, 2, 1]), "a<e>b")
    expect(tokenizer.decode([0, 2, 1], skip_special_tokens=True), "ab")


def test_special_tokens_may_come_from_a_generator():
    tokenizer = CharTokenizer.train("a<e>", special_tokens=(t for t in ["<e>"]))
    expect((tokenizer.characters, tokenizer.special_tokens), (["a"], {"<e>": 1}))


def test_a_special_token_of_one_character_is_not_made_from_text():
    tokenizer = CharTokenizer("ab", special_tokens=["§"])
    with expect_error(ValueError, "§"):
        tokenizer.encode("a§")
    expect(tokenizer.encode("a§", "all"), ids(0, 2))


def test_an_unknown_character_is_named():
    tokenizer = CharTokenizer.train("abc", special_tokens=["<pad>"])
    with expect_error(ValueError, "'x'"):
        tokenizer.encode("abxcy")
    with expect_error(ValueError, "'A'"):
        CharTokenizer("").encode("A")


def test_an_unknown_character_is_unk_if_there_is_one():
    tokenizer = CharTokenizer("abc", special_tokens=["<pad>", "<unk>"])
    expect(tokenizer.encode("axcé😀"), ids(0, 4, 2, 4, 4))
    expect(tokenizer.decode(tokenizer.encode("axc")), "a<unk>c")
    expect(CharTokenizer("", ["<unk>"]).encode("ab"), ids(0, 0))


@pytest.mark.parametrize(
    ("wrong", "named"), [([0, 3], "3"), ([-1], "-1"), ([0, 1, 99, -5], "99"), ([0, -5], "-5"), (ids(7), "7")]
)
def test_an_id_that_there_is_not_has_no_text(wrong, named):
    with expect_error(ValueError, named):
        CharTokenizer("abc").decode(wrong)


@pytest.mark.parametrize("wrong", [[0.0], np.array([1.0]), ["a"], [True]], ids=str)
def test_what_is_no_integer_is_no_id(wrong):
    with expect_error(ValueError):
        CharTokenizer("abc").decode(wrong)


def test_tokens_are_handed_out_as_they_are():
    tokenizer = CharTokenizer("ab", ["<e>"])
    expect(tokenizer.tokens_of([2, 0]), ["<e>", "a"])
    expect(tokenizer.tokens_of([2, 0], skip_special_tokens=True), ["a"])


@pytest.mark.parametrize("wrong", [["ab"], ["a", ""], [b"a"], [1]], ids=str)
def test_a_character_is_one_character(wrong):
    expect(CharTokenizer(["a", "b"]).characters, ["a", "b"])
    with expect_error(ValueError):
        CharTokenizer(wrong)


def test_characters_come_back_from_a_file(tmp_path):
    """Also halves of surrogate pairs, which beside each other would become one character."""
    tokenizer = CharTokenizer('a"\\é😀\ud83d\ude00\x00', ["<pad>"])
    tokenizer.save(tmp_path / "chars.json")
    again = CharTokenizer.load(tmp_path / "chars.json")
    expect(again.characters, tokenizer.characters)
    expect(again.encode('😀a\\"\x00'), ids(4, 0, 2, 1, 7))
    with expect_error(ValueError, "chars.json"):
        BPETokenizer.load(tmp_path / "chars.json")


# 11.16 bytes_per_token


def test_an_average_counts_bytes_and_ids():
    expect(bytes_per_token(CharTokenizer("aé"), "aaé"), 4 / 3)
    expect(bytes_per_token(CharTokenizer("a"), "aaaa"), 1.0)
    expect(bytes_per_token(BPETokenizer([(97, 98), (256, 256)]), "abababab"), 4.0)


def test_an_average_is_of_plain_text():
    """Nothing is special in it: "a<e>" is four tokens."""
    expect(bytes_per_token(CharTokenizer("a<>e", ["<e>"]), "a<e>"), 1.0)


def test_no_token_has_no_average():
    with expect_error(ValueError):
        bytes_per_token(CharTokenizer("a"), "")
