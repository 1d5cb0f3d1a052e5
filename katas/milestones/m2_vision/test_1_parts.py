"""Put together, your parts compute what the formulas say: answers, gradients, every step of a training."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dojo import datasets
from dojo.compose import load_file
from dojo.expect import expect
from tinytorch.dataloader import CIFAR10
from tinytorch.tensor import Tensor
from tinytorch.training import confusion_matrix

M2 = load_file(Path(__file__).with_name("vision.py"))
PLAIN = load_file(Path(__file__).with_name("plain.py"))

SMALL = replace(M2.RECIPES["cifar10"], epochs=2, width=4, batch=8)


def drawn(count, seed=0):
    """Images in bytes and labels, of which eight of each class."""
    return datasets.tinyshapes(count, np.random.default_rng(seed))


def start(network, seed=0):
    """Weights that do not depend on how a layer draws its own, put into the network; and as float64."""
    rng = np.random.default_rng(seed)
    state = {name: np.array(array) for name, array in network.state_dict().items()}
    for name, array in state.items():
        if array.ndim > 1 and name != "0.weight":
            bound = array[0].size ** -0.5
            state[name] = rng.uniform(-bound, bound, array.shape).astype(np.float32)
    network.load_state_dict(state)
    return {name: array.astype(np.float64) for name, array in state.items()}


def test_the_patterns_of_the_first_layer_see_patches_that_have_nothing_in_common():
    """What they see in the images that they were made from is uncorrelated, and about equally strong."""
    images = M2.normalize(drawn(64)[0])
    layer = M2.Whitening(images)
    seen = layer(Tensor(images)).data[:, :24] - layer(Tensor(images)).data[:, 24:]
    rows = np.moveaxis(seen, 1, -1).reshape(-1, 24)
    together = rows.T @ rows / len(rows)
    strength = np.diag(together)
    assert strength.max() < 1.01
    expect(together - np.diag(strength), np.zeros((24, 24), np.float32), rtol=0, atol=1e-3)


@pytest.mark.parametrize("mode", ["in training", "in use"])
def test_each_layer_gives_what_plain_numpy_gives(mode):
    """Layer by layer, so that the first wrong one is the one that is shown."""
    images, _ = drawn(6)
    x = M2.normalize(images)
    model = M2.network(x, 4, rng=np.random.default_rng(0))
    state = start(model)
    if mode == "in use":
        model.eval()
    grads = {} if mode == "in training" else None
    for layer, plain in zip(model, PLAIN.layers(state, 0.3, grads), strict=True):
        given = Tensor(x)
        x = plain(x.astype(np.float64))[0].astype(np.float32)
        expect(layer(given), x, rtol=1e-3, atol=1e-4)


def test_the_gradient_of_every_weight_is_that_of_plain_numpy():
    images, labels = drawn(8)
    x = M2.normalize(images)
    model = M2.network(x, 4, rng=np.random.default_rng(0))
    state = start(model)
    loss = M2.Loss(0.1)(model(Tensor(x)), labels)
    loss.backward()
    right, grads = PLAIN.gradients(state, x, labels, 0.1, 0.3)
    expect(float(loss.data), right, rtol=1e-4)
    for name, parameter in model.named_parameters():
        expect(parameter.grad, grads[name].astype(np.float32), rtol=1e-2, atol=1e-4)


def test_a_training_goes_step_by_step_as_in_plain_numpy():
    """Two epochs of three batches: the loss of each, and all weights and running numbers at the end.

    The batches are those that the loader hands out, mirrored images and all; the rest is plain.
    """
    data = M2.TensorDataset(*drawn(24))
    recipe = replace(SMALL, decay=2.0)  # strong enough to be seen after six steps
    trainer, loader, loss = M2.training(recipe, data)
    state = start(trainer.model)
    _, same, _ = M2.training(recipe, data)
    batches = [(images.copy(), labels.copy()) for _ in range(2) for images, labels in same]
    assert len(batches) == 6
    trainer.fit(loader, 2)
    expect(np.array(loss.curve), np.array(list(PLAIN.train(state, batches, recipe, 0.3))), rtol=1e-3)
    for name, array in trainer.model.state_dict().items():
        if array.dtype.kind == "f":
            # Adam divides by the gradient's own size: where that is nearly 0, rounding shows.
            expect(array, state[name].astype(np.float32), rtol=1e-2, atol=3e-3)


def test_an_epoch_shows_each_image_once_with_its_label_and_half_of_them_mirrored():
    """By what is in the images: each is known by its pixels, or by those of its mirror image."""
    images, labels = drawn(64)
    scaled = M2.normalize(images)
    known = {image.tobytes(): (i, False) for i, image in enumerate(scaled)}
    known |= {np.ascontiguousarray(image[..., ::-1]).tobytes(): (i, True) for i, image in enumerate(scaled)}
    _, loader, _ = M2.training(replace(SMALL, batch=16), M2.TensorDataset(images, labels))
    seen = []
    for batch, wanted in loader:
        for image, label in zip(batch, wanted, strict=True):
            i, mirrored = known[np.ascontiguousarray(image).tobytes()]
            expect(int(label), int(labels[i]))
            seen.append((i, mirrored))
    assert sorted(i for i, _ in seen) == list(range(64))
    assert [i for i, _ in seen] != list(range(64))
    assert 16 <= sum(mirrored for _, mirrored in seen) <= 48


def test_in_a_long_training_images_are_moved_by_a_few_pixels():
    """Each is one of the 25 windows of the image with two zeros around it, or of its mirror image."""
    images, labels = drawn(64)
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    places = [(i, j) for i in range(5) for j in range(5)]
    moved = np.stack([padded[:, :, i : i + 32, j : j + 32] for i, j in places], axis=1)
    known = M2.normalize(np.concatenate([moved, moved[..., ::-1]], axis=1).reshape(-1, 3, 32, 32))
    known = {image.tobytes(): n // 50 for n, image in enumerate(known)}
    _, loader, _ = M2.training(replace(SMALL, batch=16, crop=2), M2.TensorDataset(images, labels))
    seen = [np.ascontiguousarray(image) for batch, _ in loader for image in batch]
    assert sorted(known[image.tobytes()] for image in seen) == list(range(64))
    still = {image.tobytes() for image in M2.normalize(images)}
    assert sum(image.tobytes() in still for image in seen) < 16, "of 64, two or three stay where they are"


def test_the_confusion_matrix_has_a_row_for_each_label():
    """Three images of class 0, of which one is taken for 1 and one for 2; none of class 1; one of class 2."""
    counts = confusion_matrix(np.array([0, 1, 2, 2]), np.array([0, 0, 0, 2]), 3)
    expect(np.asarray(counts), np.array([[1, 1, 1], [0, 0, 0], [0, 0, 1]]))


@pytest.mark.parametrize("kind", ["binary", "python"])
def test_an_archive_of_cifar_10_is_read_image_by_image_as_it_was_written(kind, tmp_path):
    """60 images of known pixels in six files of either kind: upright, red first, each with its label."""
    images, labels = drawn(60)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for k, name in enumerate(names):
        rows = images[10 * k : 10 * k + 10].reshape(10, -1)
        marks = labels[10 * k : 10 * k + 10]
        if kind == "binary":
            table = np.concatenate([marks[:, None].astype(np.uint8), rows], axis=1)
            (tmp_path / f"{name}.bin").write_bytes(table.tobytes())
        else:
            batch = {b"data": rows, b"labels": marks.tolist()}
            (tmp_path / name).write_bytes(pickle.dumps(batch, protocol=2))
    for train, wanted in ((True, slice(0, 50)), (False, slice(50, 60))):
        data = CIFAR10(tmp_path, train=train)
        found = [data[i] for i in range(len(data))]
        expect(np.stack([image for image, _ in found]), images[wanted])
        expect(np.array([int(label) for _, label in found]), labels[wanted])
