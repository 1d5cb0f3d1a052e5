"""CIFAR-10, where it has been downloaded: a short run. The long one is `dojo milestone m2 cifar10`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dojo import datasets
from dojo.compose import load_file
from dojo.expect import expect

M2 = load_file(Path(__file__).with_name("vision.py"))

RECIPE = M2.RECIPES["cifar10"]


@pytest.mark.real_data("cifar10")
def test_the_archive_holds_what_the_course_finds_in_it():
    """Some of the images of each file, by your loader and by another."""
    for train, count in ((True, 50_000), (False, 10_000)):
        data = M2.dataset(RECIPE, train=train)
        images, labels = datasets.cifar10(train=train)
        assert len(data) == count
        where = np.arange(0, count, 997)
        found = [data[int(i)] for i in where]
        expect(np.stack([image for image, _ in found]), images[where])
        expect(np.array([int(label) for _, label in found]), labels[where])


@pytest.mark.real_data("cifar10")
@pytest.mark.timeout(240)
def test_forty_steps_know_more_than_a_third_of_2000_photographs():
    """A tenth would be chance."""
    data = M2.part(M2.dataset(RECIPE), 5120)
    trainer, loader, _ = M2.training(replace(RECIPE, epochs=1, width=32), data)
    trainer.fit(loader, 1)
    likely, labels = M2.answers(trainer.model, M2.looking(M2.part(M2.dataset(RECIPE, train=False), 2000)))
    right = float((likely.argmax(axis=1) == labels).mean())
    assert right >= 0.35, f"{right:.1%} of 2,000 test images are right, and 35 % should be"
