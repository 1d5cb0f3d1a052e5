"""On the documentation that every Python carries, a small TinyGPT learns what comes next."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dojo.compose import load_file
from dojo.expect import expect
from tinytorch.generation import evaluate

M3 = load_file(Path(__file__).with_name("language.py"))

CHARACTERS = replace(M3.RECIPES["pydoc"], steps=160, every=80, dim=64, layers=2, warmup=16)
# How often each character occurs, known exactly, would take 4.5 bits; which comes after which, 3.4.
BITS = {"characters": 3.2, "byte pairs": 3.2}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("tokens", BITS)
def test_160_steps_are_enough_to_know_more_than_which_character_follows_which(tokens):
    """Bits a character of text that it has not seen; some six seconds on a quiet core."""
    recipe = CHARACTERS if tokens == "characters" else replace(CHARACTERS, vocabulary=400)
    story = M3.Story(recipe)
    history = story.train()
    nats, bits = story.loss()
    assert bits <= BITS[tokens], f"{bits:.2f} bits a character, and {BITS[tokens]} should be enough"
    expect(nats, bits * np.log(2), rtol=1e-6)
    expect(history["val_loss"][-1], evaluate(story.model, story.unseen_ids), rtol=1e-6)
    text = "".join(M3.written(story, "The ", 80, "temperature 0.8"))
    assert len(text) >= 60
    known = set(M3.text_of("pydoc")) | {"�"}  # byte pairs may end within a character
    assert set(text) <= known
