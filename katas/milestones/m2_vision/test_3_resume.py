"""A training that was stopped ends with the very weights that it would have ended with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dojo import datasets
from dojo.compose import load_file
from dojo.expect import expect
from tinytorch.training import Callback

M2 = load_file(Path(__file__).with_name("vision.py"))

SMALL = replace(M2.RECIPES["cifar10"], epochs=3, width=4, batch=16, crop=1)


class CtrlC(Callback):
    def __init__(self, step):
        self.step = step

    def on_batch_end(self, trainer):
        if trainer.step == self.step:
            raise KeyboardInterrupt


def trained(checkpoint=None, stop=0, seed=0):
    data = M2.TensorDataset(*datasets.tinyshapes(96, np.random.default_rng(0)))
    trainer, loader, loss = M2.training(SMALL, data, seed=seed, callbacks=[CtrlC(stop)])
    trainer.fit(loader, SMALL.epochs, M2.looking(data), checkpoint=checkpoint, every=2)
    return trainer, loss


@pytest.mark.timeout(60)
@pytest.mark.parametrize("stop", [3, 6, 17])
def test_a_stopped_training_goes_on_bit_for_bit(stop, tmp_path):
    """Ctrl-C in the first epoch, at its end, and in the last step but one; a checkpoint at every other."""
    right, curve = trained()
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "checkpoint.npz", stop)
    again, resumed = trained(tmp_path / "checkpoint.npz")
    assert again.step == right.step == 18
    for name, array in right.model.state_dict().items():
        expect(again.model.state_dict()[name], array, rtol=0, atol=0)
    expect(np.array(resumed.curve), np.array(curve.curve), rtol=0, atol=0)
    assert again.history == right.history


def test_a_torn_checkpoint_is_not_the_end(tmp_path):
    """The one before it is there: from that it goes on to the same end."""
    file = tmp_path / "checkpoint.npz"
    right, _ = trained()
    with pytest.raises(KeyboardInterrupt):
        trained(file, 9)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.warns(RuntimeWarning):
        again, _ = trained(file)
    for name, array in right.model.state_dict().items():
        expect(again.model.state_dict()[name], array, rtol=0, atol=0)
