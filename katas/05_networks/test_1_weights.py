"""Level 1: weights survive on disk, and a file that is no good changes nothing."""

import io
import os
import pickle
import tempfile
import zipfile

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.activations import Tanh
from tinytorch.layers import Buffer, Module, Parameter
from tinytorch.networks import MLP, Sequential, load, save
from tinytorch.tensor import Tensor, version


class Counted(Module):
    """Parameters of several dtypes, and a buffer."""

    def __init__(self, fill=0.0):
        self.wide = Parameter(np.full((2, 3), fill))
        self.point = Parameter(np.array(fill, np.float32))
        self.none = Parameter(np.full((0, 3), fill))
        self.seen = Buffer(np.array([int(fill)]))


def net_of(seed):
    return MLP([3, 4, 2], Tanh, rng=np.random.default_rng(seed))


def state_of(module):
    return {name: array.copy() for name, array in module.state_dict().items()}


def expect_state(module, state):
    got = module.state_dict()
    expect(list(got), list(state))
    for name, array in state.items():
        expect(got[name], array)


# 05.17 save


@pytest.mark.parametrize("name", ["weights.npz", "weights", "weights.v1.bin"])
def test_a_file_holds_the_arrays_by_name_and_no_pickle(name, tmp_path):
    net, path = net_of(0), tmp_path / name
    expect(save(net, path), None)
    with np.load(path, allow_pickle=False) as file:
        expect(sorted(file.files), ["0.bias", "0.weight", "2.bias", "2.weight"])
        for key, array in net.state_dict().items():
            expect(file[key], array)
    expect([entry.name for entry in tmp_path.iterdir()], [name])


def test_a_path_may_be_a_string(tmp_path):
    path = os.fspath(tmp_path / "weights.npz")
    save(net_of(0), path)
    load(other := net_of(1), path)
    expect_state(other, state_of(net_of(0)))


def test_saving_again_replaces_the_file(tmp_path):
    path = tmp_path / "weights.npz"
    for seed in (1, 2):
        save(net_of(seed), path)
    load(net := net_of(0), path)
    expect_state(net, state_of(net_of(2)))


@pytest.mark.parametrize("name", ["file", "allow_pickle", "arr_0", "args"])
def test_a_parameter_may_be_called_anything(name, tmp_path):
    """np.savez has arguments of its own, which take such an array for theirs."""
    module, other = Module(), Module()
    setattr(module, name, Parameter(np.array([0.5, 1.5])))
    setattr(other, name, Parameter(np.zeros(2)))
    save(module, tmp_path / "weights.npz")
    load(other, tmp_path / "weights.npz")
    expect_state(other, {name: np.array([0.5, 1.5])})


class Unwritable:
    def __reduce__(self):
        raise ValueError("this cannot be pickled either")


class Fails(Module):
    """Its state cannot be written to the end: without pickle, Python's objects have no bytes."""

    def __init__(self, item):
        self.item = item

    def state_dict(self):
        broken = np.array([self.item], object)
        return {"0.weight": np.ones((4, 3), np.float32), "broken": broken, "last": np.ones(5)}


@pytest.mark.parametrize("item", [Unwritable(), "text"], ids=["no pickle", "a pickle"])
def test_the_old_file_stays_when_writing_fails(item, tmp_path):
    path = tmp_path / "weights.npz"
    save(net_of(1), path)
    with pytest.raises((ValueError, TypeError)):
        save(Fails(item), path)
    load(net := net_of(0), path)
    expect_state(net, state_of(net_of(1)))
    expect([entry.name for entry in tmp_path.iterdir()], ["weights.npz"])


def test_the_old_file_is_replaced_and_neither_written_to_nor_removed_before(tmp_path, monkeypatch):
    """Of a file with two names: the second is for what was there before, and has to stay as it was."""
    path, before = tmp_path / "weights.npz", tmp_path / "before.npz"
    save(net_of(1), path)
    os.link(path, before)
    gone, right = [], os.unlink

    def watched(target, **options):
        gone.append(os.path.basename(target))
        right(target, **options)

    monkeypatch.setattr(os, "unlink", watched)
    monkeypatch.setattr(os, "remove", watched)
    save(net_of(2), path)
    for name, seed in ((path, 2), (before, 1)):
        load(net := net_of(0), name)
        expect_state(net, state_of(net_of(seed)))
    expect("weights.npz" in gone, False)


def test_nothing_is_left_where_no_file_can_be(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        save(net_of(0), tmp_path / "taken")
    expect([entry.name for entry in tmp_path.iterdir()], ["taken"])


def test_the_new_file_is_written_beside_the_old_one(tmp_path, monkeypatch):
    """From the folder of temporary files it might have to go to another disk, and not at once."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    save(net_of(0), tmp_path / "weights.npz")
    expect([entry.name for entry in tmp_path.iterdir()], ["weights.npz"])


# 05.18 load


def test_weights_come_back_as_they_were(tmp_path):
    module, other = Sequential(Counted(3.0), net_of(0)), Sequential(Counted(), net_of(1))
    arrays, before = list(other.state_dict().values()), version()
    save(module, tmp_path / "weights.npz")
    load(other, tmp_path / "weights.npz")
    expect_state(other, state_of(module))
    same = [array is one for array, one in zip(arrays, other.state_dict().values(), strict=True)]
    expect((all(same), all(version(array) > before for array in arrays)), (True, True))
    x = Tensor(np.ones((2, 3), np.float32))
    expect(other[1](x), module[1](x).data)


def test_nothing_but_weights_is_loaded(tmp_path):
    """Gradients, modes and what is frozen are not in the file."""
    save(net_of(1), tmp_path / "weights.npz")
    net, grad = net_of(0), np.ones((4, 3), np.float32)
    net[0].weight.grad, net[0].weight.requires_grad = grad, False
    net[1].eval()
    load(net, tmp_path / "weights.npz")
    expect((net[0].weight.grad is grad, net[0].weight.requires_grad), (True, False))
    expect((net.training, net[1].training, net[2].training), (True, False, True))


def test_a_file_that_others_wrote_is_read(tmp_path):
    net, values = net_of(0), {name: array + 0.5 for name, array in state_of(net_of(1)).items()}
    np.savez_compressed(tmp_path / "small.npz", **{k: v.astype(np.float16) for k, v in values.items()})
    load(net, tmp_path / "small.npz")
    expect_state(net, {name: v.astype(np.float16).astype(np.float32) for name, v in values.items()})
    np.savez(tmp_path / "large.npz", **{k: np.asfortranarray(v.astype(">f8")) for k, v in values.items()})
    load(net, tmp_path / "large.npz")
    expect_state(net, values)


def npz(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def zipped(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def flipped(data, part):
    """`data`, but for the first byte of `part` in it."""
    where = data.index(part)
    return data[:where] + bytes([data[where] ^ 0xFF]) + data[where + 1 :]


class Opened:
    """What a pickle could do: call anything."""

    def __reduce__(self):
        return os.mkdir, ("opened",)


def good():
    return {name: array + 1 for name, array in state_of(net_of(1)).items()}


def with_one(name, value):
    return npz(**{**good(), name: value})


BAD = {
    # the file's bytes, and what else the error names
    "empty": (lambda: b"", ()),
    "text": (lambda: b"0.weight = 1\n", ()),
    "cut in half": (lambda: npz(**good())[:500], ()),
    "cut at its end": (lambda: npz(**good())[:-1], ()),
    "with a byte changed": (lambda: flipped(npz(**good()), good()["2.weight"].tobytes()), ()),
    "one array": (lambda: npy(np.ones(3)), ()),
    "a pickle": (lambda: pickle.dumps(Opened()), ()),
    "a pickled array": (lambda: npy(np.array([Opened()], object)), ()),
    "a pickle for a weight": (lambda: zipped(**{"0.bias.npy": npy(np.array([Opened()], object))}), ()),
    "text for a weight": (lambda: zipped(**{"0.bias": b"1 2 3 4"}), ()),
    "without arrays": (lambda: npz(), ("0.weight", "2.bias")),
    "one missing": (lambda: npz(**{k: v for k, v in good().items() if k != "2.bias"}), ("2.bias",)),
    "one too many": (lambda: with_one("4.weight", np.ones(2)), ("4.weight",)),
    "another shape": (lambda: with_one("2.weight", np.ones((4, 2))), ("2.weight", "(4, 2)", "(2, 4)")),
    "a shape that would stretch": (lambda: with_one("2.bias", np.ones(1)), ("2.bias", "(1,)", "(2,)")),
    "complex numbers": (lambda: with_one("2.bias", np.ones(2) * 1j), ("2.bias",)),
    "words": (lambda: with_one("2.bias", np.array(["a", "b"])), ("2.bias",)),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_good_is_named_and_changes_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, mentions = BAD[name]
    path = tmp_path / "given.npz"
    path.write_bytes(make())
    net, before = net_of(0), version()
    with expect_error(ValueError, "given.npz", *mentions):
        load(net, path)
    expect_state(net, state_of(net_of(0)))
    expect([version(array) > before for array in net.state_dict().values()], [False] * 4)
    expect([entry.name for entry in tmp_path.iterdir()], ["given.npz"])  # nothing was unpickled
    path.unlink()  # on Windows, only a file that was closed can go


def test_a_missing_file_is_named(tmp_path):
    net = net_of(0)
    with expect_error(FileNotFoundError, "missing.npz"):
        load(net, tmp_path / "missing.npz")
    expect_state(net, state_of(net_of(0)))
