"""On shapes that are drawn by code, the network learns what is in an image it has never seen."""

from dataclasses import replace
from pathlib import Path

import pytest

from dojo.compose import load_file
from dojo.expect import expect

M2 = load_file(Path(__file__).with_name("vision.py"))

SHORT = replace(M2.RECIPES["tinyshapes"], images=4000, epochs=2)
BOUND = 850  # of 1,000 test images


@pytest.mark.timeout(120)
def test_two_epochs_are_enough_for_most_shapes():
    """In 62 steps, on 4,000 images; five seconds on a quiet core."""
    trainer, loader, loss = M2.training(SHORT, M2.dataset(SHORT))
    test = M2.dataset(SHORT, train=False)
    history = trainer.fit(loader, SHORT.epochs, M2.looking(test))
    likely, labels = M2.answers(trainer.model, M2.looking(test))
    right = likely.argmax(axis=1) == labels
    assert right.sum() >= BOUND, f"{right.sum()} of 1,000 test images are right, and {BOUND} should be"
    # What was said of the test set on the way is what it is.
    expect(float(history["val_accuracy"][-1]), float(right.mean()), rtol=1e-6)
    assert len(loss.curve) == trainer.step == 62
    # In use, what else is in a batch does not matter, nor does the network change by being used.
    few = [(images[:7], wanted[:7]) for images, wanted in M2.looking(test)][:1]
    expect(M2.answers(trainer.model, few)[0], likely[:7], rtol=1e-3, atol=1e-4)
