"""On the documentation that every Python carries, a small TinyGPT learns what comes next."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dojo.compose import load_file
from dojo.expect import expect
from tinytorch.generation import evaluate

M3 = load_file(Path(__file__).with_name("language.py"))
PLAIN = load_file(Path(__file__).with_name("plain.py"))

SHORT = replace(M3.RECIPES["pydoc"], steps=120, every=60, dim=64, layers=1, warmup=12, lr=4e-3)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("vocabulary", [0, 400], ids=["characters", "byte pairs"])
def test_120_steps_are_enough_to_know_more_than_which_character_follows_which(vocabulary):
    """Bits a character of text that it has not seen; five seconds on a quiet core."""
    story = M3.Story(replace(SHORT, vocabulary=vocabulary))
    history = story.train()
    nats, bits = story.loss()
    enough = PLAIN.pair_bits(*M3.parts_of(M3.text_of("pydoc")))
    assert bits <= enough, f"{bits:.2f} bits a character, and who counts pairs needs {enough:.2f}"
    expect(nats, bits * np.log(2), rtol=1e-6)
    expect(history["val_loss"][-1], evaluate(story.model, story.unseen_ids), rtol=1e-6)
    text = "".join(M3.written(story, "The ", 80, "temperature 0.8"))
    assert len(text) >= 60
    assert set(text) <= set(M3.text_of("pydoc")) | {"\N{REPLACEMENT CHARACTER}"}  # half of a character
