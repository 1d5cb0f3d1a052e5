"""Level 1: how large a model is, and files that are as small as that."""

import os
import pickle
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect, expect_error
from tinytorch.compression import (
    load_compressed,
    prune_global,
    quantize_model,
    save_compressed,
    size_report,
)
from tinytorch.layers import Buffer, Linear, Module, Parameter
from tinytorch.networks import MLP, Sequential
from tinytorch.spatial import BatchNorm2d, Conv2d

try:
    import resource
except ImportError:  # Windows has no limits for one process
    resource = None

steady = settings(deadline=None, derandomize=True, max_examples=25)
SEEDS = st.integers(0, 2**32 - 1)


def new(seed=0):
    return np.random.default_rng(seed)


class Holding(Module):
    """A module that holds these arrays as buffers, under their names."""

    def __init__(self, **arrays):
        for name, array in arrays.items():
            setattr(self, name, Buffer(array))


# 18.16 size_report


def test_a_row_for_each_array_and_a_total():
    """Of 12 floats 5 are 0: 2 bytes of bits and 28 of numbers, less than 48. All of 0 takes its bits only."""
    weight = np.arange(12, dtype=np.float32).reshape(3, 4)
    weight[0], weight[1, 0] = 0, 0
    net = Holding(weight=weight, bias=np.ones(3), empty=np.zeros(9, np.int8))
    rows = size_report(net)
    expect(
        [tuple(row) for row in rows],
        [
            ("weight", (3, 4), "float32", 48, 30, 5 / 12),
            ("bias", (3,), "float64", 24, 24, 0.0),
            ("empty", (9,), "int8", 9, 2, 1.0),
            ("total", (24,), "", 81, 56, 14 / 24),
        ],
    )
    expect((rows[0].name, rows[-1].dense, rows[-1].stored), ("weight", 81, 56))


def test_an_array_with_two_names_counts_once():
    net = Sequential(Linear(3, 3, bias=False, rng=new()), Linear(3, 3, bias=False, rng=new()))
    net[1].weight = net[0].weight
    expect([row.name for row in size_report(net)], ["0.weight", "total"])
    expect(size_report(net)[-1].dense, 36)


def test_equal_arrays_are_two():
    rows = size_report(Holding(a=np.ones(3, np.float32), b=np.ones(3, np.float32)))
    expect([(row.name, row.dense) for row in rows], [("a", 12), ("b", 12), ("total", 24)])


def test_where_a_bitmap_saves_nothing_the_array_stays_dense():
    """Of 32 floats, 4 bytes of bits are as much as the one number that is 0; of 33, they are 5."""
    for size, gone, stored in ((32, 1, 128), (32, 2, 4 + 120), (33, 1, 132), (8, 0, 32)):
        array = np.ones(size, np.float32)
        array[:gone] = 0
        expect(size_report(Holding(a=array))[0].stored, stored)


def test_columns_are_not_stored():
    """Two formats are compared: of 1000 floats one stays, in 125 bytes of bits and 4; CSR would take 52."""
    array = np.zeros((10, 100), np.float32)
    array[3, 4] = 1
    expect([row.stored for row in size_report(Holding(a=array))], [129, 129])


def test_quantized_models_are_reported_as_they_are():
    net = MLP([8, 16, 4], rng=new())
    rows = {row.name: (row.dtype, row.dense) for row in size_report(quantize_model(net))}
    expect(rows["0.weight"], ("int8", 128))
    expect(rows["0.scale"], ("float32", 64))
    expect(size_report(net)[-1].dense, 4 * (8 * 16 + 16 + 16 * 4 + 4))


def test_only_what_is_0_counts_as_0():
    rows = size_report(Holding(a=np.array([0.0, 1e-12, 1e-300, -1e-9])))
    expect([row.sparsity for row in rows], [0.25, 0.25])


def test_models_of_nothing_have_a_size_too():
    expect([tuple(row) for row in size_report(Module())], [("total", (0,), "", 0, 0, 0.0)])
    expect([row.sparsity for row in size_report(Holding(a=np.zeros(1)))], [1.0, 1.0])
    rows = size_report(Holding(a=np.empty((0, 3), np.float32), b=np.array(2.5)))
    expect(
        [tuple(row) for row in rows],
        [
            ("a", (0, 3), "float32", 0, 0, 0.0),
            ("b", (), "float64", 8, 8, 0.0),
            ("total", (1,), "", 8, 8, 0.0),
        ],
    )


# 18.16 save_compressed, load_compressed


def same(state, other):
    expect(list(state), list(other))
    for name, array in other.items():
        expect(state[name], np.array(array))


def test_what_is_written_comes_back(tmp_path):
    net = Sequential(Conv2d(2, 3, 3, rng=new()), BatchNorm2d(3), *MLP([3, 40, 4], rng=new()))
    prune_global(net, 0.8)
    for model in (net, quantize_model(net), quantize_model(net, 16, False)):
        file = tmp_path / "model.bin"
        save_compressed(model, file)
        same(load_compressed(file), model.state_dict())
    save_compressed(net, str(tmp_path / "net"))
    other = Sequential(Conv2d(2, 3, 3, rng=new(1)), BatchNorm2d(3), *MLP([3, 40, 4], rng=new(1)))
    other.load_state_dict(load_compressed(str(tmp_path / "net")))
    same(other.state_dict(), net.state_dict())


DTYPES = ("?", "i1", "u1", "<i2", ">i4", "<i8", "<u8", "<f2", "<f4", ">f8")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kept", [0, 1, 100])
def test_any_dtype_comes_back_dense_or_sparse(tmp_path, dtype, kept):
    array = np.zeros(100, dtype)
    array[:kept] = np.arange(1, kept + 1).astype(dtype)
    save_compressed(Holding(a=array.reshape(4, 25)), tmp_path / "a")
    found = load_compressed(tmp_path / "a")["a"]
    expect(
        found.astype(array.dtype.newbyteorder("=")),
        array.reshape(4, 25).astype(array.dtype.newbyteorder("=")),
    )
    expect(found.dtype.newbyteorder("="), array.dtype.newbyteorder("="))


@steady
@given(SEEDS, st.lists(st.integers(0, 5), max_size=3), st.floats(0, 1))
def test_any_shape_and_sparsity_comes_back(tmp_path_factory, seed, shape, sparsity):
    rng = new(seed)
    array = np.asarray(rng.normal(size=shape) * (rng.random(shape) >= sparsity))
    file = tmp_path_factory.mktemp("any") / "a"
    save_compressed(Holding(a=array, b=np.array(1.5)), file)
    same(load_compressed(file), {"a": array, "b": np.array(1.5)})


def test_any_layout_and_numbers_that_are_none_come_back(tmp_path):
    base = np.zeros((6, 8))
    base[0, :4] = [np.nan, np.inf, -np.inf, 1e-310]
    arrays = {
        "turned": base.T,
        "backwards": base[::-2, ::-1],
        "stretched": np.broadcast_to(np.float32(3), (4, 4)),
        "fortran": np.asfortranarray(new().normal(size=(3, 4))),
    }
    save_compressed(Holding(**arrays), tmp_path / "a")
    same(load_compressed(tmp_path / "a"), {name: np.ascontiguousarray(a) for name, a in arrays.items()})


def test_what_comes_back_can_be_written_to(tmp_path):
    save_compressed(Holding(a=np.zeros(50), b=np.ones(3)), tmp_path / "a")
    for array in load_compressed(tmp_path / "a").values():
        array[...] = 2


def test_names_may_be_anything(tmp_path):
    net = Module()
    net.parts = {
        "file": Parameter(np.ones(2)),
        "../up": Parameter(np.zeros(9)),
        "0": Parameter(np.ones(1)),
        "ä": Parameter(np.ones(3)),
    }
    save_compressed(net, tmp_path / "a")
    same(load_compressed(tmp_path / "a"), net.state_dict())
    save_compressed(Module(), tmp_path / "nothing")
    expect(load_compressed(tmp_path / "nothing"), {})
    expect(sorted(p.name for p in tmp_path.iterdir()), ["a", "nothing"])


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("quantized", [False, True])
def test_a_file_is_as_small_as_the_report_says(tmp_path, sparsity, quantized):
    net = MLP([100, 200, 50, 10], rng=new())
    prune_global(net, sparsity)
    net = quantize_model(net) if quantized else net
    save_compressed(net, tmp_path / "a")
    rows = size_report(net)
    limit = rows[-1].stored + 512 * (len(rows) - 1) + 1024
    size = (tmp_path / "a").stat().st_size
    assert size <= limit, f"{size} bytes, and at most {limit} were promised"


def test_an_array_with_several_names_is_written_once(tmp_path):
    """64 KiB, and not 192; and all of its names come back."""
    net = Sequential(*(Linear(128, 128, bias=False, rng=new()) for _ in range(3)))
    net[1].weight = net[2].weight = net[0].weight
    for sparsity in (0.0, 0.5):
        prune_global(net, sparsity)
        save_compressed(net, tmp_path / "a")
        same(load_compressed(tmp_path / "a"), net.state_dict())
        limit = size_report(net)[-1].stored + 3 * 512 + 1024
        size = (tmp_path / "a").stat().st_size
        assert size <= limit, f"{size} bytes, and at most {limit} were promised"


def test_a_file_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk is full")

    save_compressed(MLP([2, 3], rng=new()), tmp_path / "w")
    before = (tmp_path / "w").read_bytes()
    with monkeypatch.context() as patch:
        for name in ("replace", "rename"):
            patch.setattr(os, name, fail)
        with expect_error(OSError, "full"):
            save_compressed(MLP([2, 3], rng=new(1)), tmp_path / "w")
    expect([(p.name, p.read_bytes()) for p in tmp_path.iterdir()], [("w", before)])
    save_compressed(MLP([2, 3], rng=new(1)), tmp_path / "w")
    assert (tmp_path / "w").read_bytes() != before


def test_nor_is_anything_left_where_a_disk_is_full_half_way(tmp_path):
    """No file may become larger than 16 KiB, where the system can say so; this one would have 40."""
    save_compressed(MLP([2, 3], rng=new()), tmp_path / "w")
    before = (tmp_path / "w").read_bytes()
    if resource is not None:
        usual = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, usual[1]))
        try:
            with expect_error(OSError):
                save_compressed(MLP([100, 100], rng=new()), tmp_path / "w")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    expect([(p.name, p.read_bytes()) for p in tmp_path.iterdir()], [("w", before)])


class Stopped(BaseException):
    """What Ctrl-C raises is no Exception either."""


def test_nor_is_anything_left_where_somebody_stops_it(tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise Stopped

    for name in ("replace", "rename"):
        monkeypatch.setattr(os, name, stop)
    with pytest.raises(Stopped):
        save_compressed(MLP([2, 3], rng=new()), tmp_path / "w")
    expect(list(tmp_path.iterdir()), [])


def test_a_file_is_written_beside_its_place_and_not_in_another_folder(tmp_path, monkeypatch):
    """From which it could only be copied, and a copy can be cut off."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    net = MLP([2, 3], rng=new())
    save_compressed(net, tmp_path / "w")
    same(load_compressed(tmp_path / "w"), net.state_dict())


def test_a_model_is_not_changed_by_saving_it(tmp_path):
    net = MLP([4, 3], rng=new())
    prune_global(net, 0.9)
    before = [array.copy() for array in net.state_dict().values()]
    save_compressed(net, tmp_path / "a")
    expect(list(net.state_dict().values()), before)


def written(tmp_path):
    net = MLP([6, 8, 3], rng=new())
    prune_global(net, 0.7)
    file = tmp_path / "torn.bin"
    save_compressed(net, file)
    return file, file.read_bytes(), {name: array.copy() for name, array in net.state_dict().items()}


def refused_or_the_same(file, changed, state):
    """With these bytes instead, the file is refused by name, or says what it said."""
    file.write_bytes(changed)
    found, said = state, "torn.bin"
    try:
        found = load_compressed(file)
    except ValueError as error:
        said = str(error)
    assert "torn.bin" in said
    same(found, state)


def test_no_byte_can_change_a_number(tmp_path):
    """Whatever one byte becomes, the file is refused by name, or says what it said."""
    file, raw, state = written(tmp_path)
    rng = new(1)
    for place in {*rng.integers(0, len(raw), 150).tolist(), 0, len(raw) - 1}:
        changed = bytearray(raw)
        changed[place] ^= int(rng.integers(1, 256))
        refused_or_the_same(file, changed, state)


def test_bytes_cannot_change_places(tmp_path):
    """All of them are still there, so that their sum is what it was."""
    file, raw, state = written(tmp_path)
    rng = new(2)
    for _ in range(150):
        changed = bytearray(raw)
        i, j = rng.integers(0, len(raw), 2)
        changed[i], changed[j] = changed[j], changed[i]
        refused_or_the_same(file, changed, state)


def test_a_file_that_was_cut_off_is_named(tmp_path):
    file, raw, state = written(tmp_path)
    same(load_compressed(file), state)
    for end in {0, 1, 3, 4, 10, 30, len(raw) // 2, len(raw) - 5, len(raw) - 4, len(raw) - 1}:
        file.write_bytes(raw[:end])
        with expect_error(ValueError, "torn.bin"):
            load_compressed(file)


def test_a_file_that_is_too_long_is_named(tmp_path):
    file, raw, state = written(tmp_path)
    same(load_compressed(file), state)
    for more in (b"\0", raw[-4:], bytes(1000), raw):
        file.write_bytes(raw + more)
        with expect_error(ValueError, "torn.bin"):
            load_compressed(file)


@pytest.mark.parametrize(
    "raw", [b"", b"neither", b"\x80\x04K\x01.", bytes(1000), b"PK\x03\x04" + bytes(50)], ids=range(5)
)
def test_a_file_of_another_kind_is_named(tmp_path, raw):
    file, _, state = written(tmp_path)
    same(load_compressed(file), state)
    (tmp_path / "other").write_bytes(raw)
    with expect_error(ValueError, "other"):
        load_compressed(tmp_path / "other")


def test_a_file_that_is_not_there_is_not_there(tmp_path):
    with expect_error(FileNotFoundError, "nowhere"):
        load_compressed(tmp_path / "nowhere")


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_nothing_is_unpickled(tmp_path):
    trap = Trap(tmp_path / "sprung")
    (tmp_path / "pickle").write_bytes(pickle.dumps(trap))
    np.savez(tmp_path / "arrays.npz", a=np.array([trap], object), header=np.array([trap], object))
    for name in ("pickle", "arrays.npz"):
        with expect_error(ValueError, name):
            load_compressed(tmp_path / name)
    assert not (tmp_path / "sprung").exists()
