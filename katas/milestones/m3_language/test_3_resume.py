"""A training that was stopped ends with the very weights that it would have ended with."""

from pathlib import Path

import numpy as np
import pytest

from dojo.compose import load_file
from dojo.expect import expect
from tinytorch.training import Callback

M3 = load_file(Path(__file__).with_name("language.py"))

TEXT = "the quick brown fox jumps over the lazy dog; " * 8
RECIPE = M3.Recipe("pydoc", steps=12, every=4, context=8, dim=8, layers=2, heads=2, batch=3, warmup=3)


class CtrlC(Callback):
    def __init__(self, step):
        self.step = step

    def on_batch_end(self, trainer):
        if trainer.step == self.step:
            raise KeyboardInterrupt


def trained(checkpoint=None, stop=0):
    story = M3.Story(RECIPE, TEXT, seed=3)
    return story, story.train([CtrlC(stop)], checkpoint)


@pytest.mark.parametrize("stop", [5, 8, 11])
def test_a_stopped_training_goes_on_bit_for_bit(stop, tmp_path):
    """Stopped within the second epoch, with its last step, and in the last step but one."""
    right, history = trained()
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "checkpoint.npz", stop)
    again, resumed = trained(tmp_path / "checkpoint.npz")
    for name, array in right.model.state_dict().items():
        expect(again.model.state_dict()[name], array, rtol=0, atol=0)
    assert resumed == history
    assert len(history["loss"]) == 3


def test_another_seed_makes_another_model():
    one, other = (M3.Story(RECIPE, TEXT, seed=seed) for seed in (0, 1))
    assert np.abs(one.model.tokens.weight.data - other.model.tokens.weight.data).max() > 0.01
    same = M3.Story(RECIPE, TEXT, seed=1)
    expect(same.model.tokens.weight.data, other.model.tokens.weight.data, rtol=0, atol=0)
