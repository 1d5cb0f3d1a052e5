"""Tiny Shakespeare, where it has been downloaded; `dojo milestone m3 shakespeare` is the long run."""

from dataclasses import replace
from pathlib import Path

import pytest

from dojo.compose import load_file
from dojo.expect import expect

M3 = load_file(Path(__file__).with_name("language.py"))
PLAIN = load_file(Path(__file__).with_name("plain.py"))

SHORT = replace(
    M3.RECIPES["pydoc"], data="shakespeare", steps=120, every=120, dim=64, layers=1, warmup=12, lr=4e-3
)


@pytest.mark.real_data("tinyshakespeare")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("vocabulary", [0, 512], ids=["characters", "byte pairs"])
def test_all_of_the_scenes_come_back_from_their_tokens(vocabulary):
    text = M3.text_of("shakespeare")
    tokenizer = M3.tokenizer_of(replace(SHORT, vocabulary=vocabulary), text)
    assert tokenizer.vocab_size == (vocabulary or 65)
    expect(tokenizer.decode(tokenizer.encode(text)), text)


@pytest.mark.real_data("tinyshakespeare")
@pytest.mark.timeout(240)
def test_120_steps_know_more_than_which_character_follows_which():
    story = M3.Story(SHORT)
    story.train()
    _, bits = story.loss()
    enough = PLAIN.pair_bits(*M3.parts_of(M3.text_of("shakespeare")))
    assert bits <= enough, f"{bits:.2f} bits a character, and who counts pairs needs {enough:.2f}"
