"""Tiny Shakespeare, where it has been downloaded: a short run. The long one is `dojo milestone m3 shakespeare`."""

from dataclasses import replace
from pathlib import Path

import pytest

from dojo.compose import load_file
from dojo.expect import expect

M3 = load_file(Path(__file__).with_name("language.py"))

SHORT = replace(
    M3.RECIPES["shakespeare"], steps=100, every=100, context=64, dim=64, layers=2, batch=16, warmup=10
)


@pytest.mark.real_data("tinyshakespeare")
@pytest.mark.parametrize("vocabulary", [0, 512], ids=["characters", "byte pairs"])
def test_all_of_the_scenes_come_back_from_their_tokens(vocabulary):
    text = M3.text_of("shakespeare")
    tokenizer = M3.tokenizer_of(replace(SHORT, vocabulary=vocabulary), text)
    assert tokenizer.vocab_size == (vocabulary or 65)
    expect(tokenizer.decode(tokenizer.encode(text)), text)


@pytest.mark.real_data("tinyshakespeare")
@pytest.mark.timeout(240)
def test_a_hundred_steps_know_more_than_which_character_follows_which():
    """2.45 nats a character is the entropy of pairs; 3.3 that of single characters."""
    story = M3.Story(SHORT)
    story.train()
    nats, _ = story.loss()
    assert nats <= 2.45, f"{nats:.2f} nats a character of unseen text, and 2.45 should be enough"
