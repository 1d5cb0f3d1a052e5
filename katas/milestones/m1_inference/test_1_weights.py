"""The shipped weights get into your networks unharmed, and each layer does with them what it should."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from dojo.compose import load_file
from dojo.expect import expect, expect_error
from tinytorch.networks import load
from tinytorch.tensor import Tensor

M1 = load_file(Path(__file__).with_name("inference.py"))

MODELS = pytest.mark.parametrize("name", ["xor", "spirals", "digits", "shapes", "cifar10"])


@MODELS
def test_the_network_holds_what_is_in_the_file(name):
    """`load` of kata 05 puts float16 arrays into float32 parameters of the same name and shape."""
    model = M1.models()[name]
    assert hashlib.sha256(model.file.read_bytes()).hexdigest() == model.sha256, (
        f"{model.file.name} is not the file that was shipped; `git checkout {model.file}` restores it"
    )
    state = M1.network(model).state_dict()
    with np.load(model.file, allow_pickle=False) as file:
        assert set(state) == set(file.files)
        for parameter in file.files:
            expect(state[parameter], file[parameter].astype(np.float32), rtol=0, atol=0)


@MODELS
def test_each_layer_gives_what_plain_numpy_gives(name, rng):
    """Random inputs, layer by layer, so that the first wrong one is the one that is shown."""
    model = M1.models()[name]
    network = M1.network(model)
    rows = rng.standard_normal((8, model.sizes[0])).astype(np.float32)
    assert len(network) == len(M1.plain_layers(model))
    for layer, plain in zip(network, M1.plain_layers(model), strict=True):
        given, rows = Tensor(rows), plain(rows).astype(np.float32)
        expect(layer(given), rows, rtol=1e-4, atol=1e-4)


@MODELS
def test_probabilities_are_those_of_plain_numpy(name, rng):
    model = M1.models()[name]
    inputs = rng.random((7, model.sizes[0])).astype(np.float32)
    (found,) = M1.probabilities(M1.network(model), model, inputs)
    shares = np.exp(M1.plain_logits(model, M1.prepare(model, inputs)))
    expect(found, (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("damage", ["a changed byte", "a missing end"])
def test_a_damaged_file_is_refused_and_changes_nothing(damage, tmp_path):
    """`load` of kata 05 looks at all of a file before it writes to the network."""
    model = M1.models()["digits"]
    network = M1.network(model)
    before = {name: array.copy() for name, array in network.state_dict().items()}
    whole = bytearray(model.file.read_bytes())
    whole[len(whole) // 2] ^= 0x40
    copy = tmp_path / model.file.name
    copy.write_bytes(whole if damage == "a changed byte" else whole[: len(whole) // 2])
    with expect_error(ValueError):
        load(network, copy)
    for name, array in network.state_dict().items():
        expect(array, before[name], rtol=0, atol=0)
