"""Level 1: files that are whole or not there, and the one before."""

import json
import math
import os
import re
import tempfile
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect, expect_error
from tinytorch.training import load_checkpoint, pack, save_checkpoint, unpack

steady = settings(deadline=None, derandomize=True, max_examples=30)


def flat(state):
    """Dicts as lists of pairs: `expect` looks into lists."""
    if isinstance(state, dict):
        return [[name, flat(value)] for name, value in state.items()]
    return [flat(value) for value in state] if isinstance(state, list) else state


def through_json(state):
    arrays = {}
    return unpack(json.loads(json.dumps(pack(state, arrays))), arrays)


# 10.7 pack, unpack


def test_arrays_go_aside_and_everything_else_into_json():
    state = {"epoch": 3, "weights": {"0.weight": np.ones((2, 3), np.float32), "0.bias": np.zeros(2)}}
    arrays = {}
    text = json.dumps(pack(state, arrays))
    expect(len(arrays), 2)
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    back = unpack(json.loads(text), arrays)
    expect(flat(back), flat(state))
    assert back["weights"]["0.weight"] is state["weights"]["0.weight"], "an array is put aside, not copied"


def test_numbers_come_back_to_the_last_bit():
    numbers = [
        0.1,
        1 / 3,
        5e-324,
        1.7976931348623157e308,
        -0.0,
        math.inf,
        2**127 + 1,
        -7,
        True,
        False,
        None,
        "ö\n",
    ]
    back = through_json({"numbers": numbers})["numbers"]
    expect([repr(x) for x in back], [repr(x) for x in numbers])
    assert math.isnan(through_json([math.nan])[0])


def test_the_state_of_a_generator_comes_back():
    for kind in (np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64):
        rng, other = np.random.Generator(kind(1)), np.random.Generator(kind(2))
        rng.integers(0, 10, 3, dtype=np.int32)
        other.bit_generator.state = through_json({"rng": rng.bit_generator.state})["rng"]
        expect(other.random(4), rng.random(4))


def test_numbers_of_numpy_and_tuples_come_back_as_arrays_and_lists():
    back = through_json({"a": np.float32(0.1), "b": (1, np.int64(2)), "c": np.float64(0.1)})
    assert isinstance(back["c"], np.ndarray), "np.float64 is one of Python's floats, too"
    expect(back["c"], np.array(0.1))
    assert isinstance(back["a"], np.ndarray)
    expect(back["a"], np.array(0.1, np.float32))
    assert isinstance(back["b"], list)
    expect([int(x) for x in back["b"]], [1, 2])


def test_names_that_look_like_others_are_kept_apart():
    """Joined by dots or slashes, all of these would be called the same; and some are names of numpy's."""
    state = {
        "a": {"b": np.array(1), "b/c": np.array(2), "b.c": np.array(3)},
        "a/b": np.array(4),
        "a.b": np.array(5),
        "file": np.array(6),
        "header": np.array(7),
        "array": np.array(8),
        "dict": {"array": "x", "list": [np.array(9)]},
        "": {"": np.array(10)},
    }
    expect(flat(through_json(state)), flat(state))


def test_empty_things_come_back():
    state = {"a": {}, "b": [], "c": np.zeros((0, 3), np.float32), "d": None, "e": ""}
    expect(flat(through_json(state)), flat(state))


@pytest.mark.parametrize("thing", [{1, 2}, object(), 1j, b"bytes", np.array([None]), lambda: None])
def test_what_a_checkpoint_cannot_hold_is_a_type_error_with_its_path(thing):
    with expect_error(TypeError, "model", "odd"):
        pack({"model": [{"odd": thing}]}, {})


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
nests = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@steady
@given(nests)
def test_any_nest_comes_back(state):
    expect(flat(through_json(state)), flat(state))


# 10.8 save_checkpoint, 10.9 load_checkpoint


def state_of(number):
    return {"weights": {"w": np.full((3, 4), number, np.float32), "n": np.array(number)}, "step": number}


def saved(folder, *numbers):
    path = folder / "run.npz"
    for number in numbers:
        save_checkpoint(path, state_of(number))
    return path


def loaded(path):
    """The step of the checkpoint, and what was warned of."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        state = load_checkpoint(path)
    expect(flat(state), flat(state_of(state["step"])))
    return state["step"], [str(w.message) for w in said if issubclass(w.category, RuntimeWarning)]


def test_what_was_saved_is_loaded(tmp_path):
    expect(loaded(saved(tmp_path, 7)), (7, []))
    expect(loaded(str(saved(tmp_path, 8))), (8, []))


def test_arrays_of_all_kinds_come_back_to_the_last_bit(tmp_path, rng):
    base = rng.normal(size=(6, 8))
    state = {
        "float16": base.astype(np.float16),
        "float32": base.astype(np.float32),
        "fortran": np.asfortranarray(base),
        "strided": base[::2, ::-3],
        "turned": base.T,
        "bool": base > 0,
        "int": (base * 10).astype(np.int8),
        "big end first": base.astype(">f8"),
        "0-d": np.array(1.5),
        "empty": np.zeros((0, 4)),
        "odd": np.array([np.nan, -0.0, np.inf, 5e-324]),
        "read-only": np.broadcast_to(np.float32(2), (3, 2)),
    }
    save_checkpoint(tmp_path / "a", state)
    back = load_checkpoint(tmp_path / "a")
    expect(list(back), list(state))
    for name, array in state.items():
        expect((back[name].shape, back[name].dtype), (array.shape, array.dtype))
        assert back[name].tobytes() == array.tobytes(), name
        back[name][...] = 0  # an array of one's own, to be written to


def test_the_file_has_exactly_the_name_that_was_asked_for(tmp_path):
    save_checkpoint(tmp_path / "run.ckpt", state_of(1))
    expect([file.name for file in tmp_path.iterdir()], ["run.ckpt"])


def test_a_name_without_a_folder_is_in_this_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        save_checkpoint("run.npz", state_of(number))
    expect(sorted(os.listdir()), ["run.npz", "run.npz.previous"])
    expect(loaded("run.npz"), (2, []))


def test_what_is_unfinished_lies_in_the_same_folder(tmp_path, monkeypatch):
    """From another disk `os.replace` cannot take a file; here the folder for such files is not even there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    save_checkpoint(tmp_path / "run.npz", state_of(1))
    expect([file.name for file in tmp_path.iterdir()], ["run.npz"])


def test_the_file_is_an_npz_that_needs_no_pickle(tmp_path):
    path = saved(tmp_path, 3)
    with np.load(path, allow_pickle=False) as archive:
        arrays = [archive[name] for name in archive.files]
    assert any(np.array_equal(array, state_of(3)["weights"]["w"]) for array in arrays)


def test_the_one_before_is_kept_and_no_other(tmp_path):
    path = saved(tmp_path, 1, 2, 3)
    expect(sorted(file.name for file in tmp_path.iterdir()), ["run.npz", "run.npz.previous"])
    expect(loaded(path), (3, []))
    expect(loaded(tmp_path / "run.npz.previous"), (2, []))


def damage(path, how):
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "one byte short":
        path.write_bytes(data[:-1])
    elif how == "no checkpoint":
        path.write_bytes(b"weights " * 100)
    elif how == "another npz":
        with open(path, "wb") as stream:
            np.savez(stream, w=np.zeros(3))


DAMAGES = ("empty", "cut", "one byte short", "no checkpoint", "another npz")


@pytest.mark.parametrize("how", [*DAMAGES, "gone"])
def test_if_the_last_one_is_damaged_the_one_before_is_used_with_a_warning(how, tmp_path):
    path = saved(tmp_path, 1, 2)
    damage(path, how)
    step, said = loaded(path)
    expect((step, len(said)), (1, 1))
    assert "run.npz" in said[0], f"the warning names the file: {said[0]}"


@pytest.mark.parametrize("how", DAMAGES)
def test_if_both_are_damaged_an_error_names_the_file(how, tmp_path):
    path = saved(tmp_path, 1, 2)
    for each in (path, tmp_path / "run.npz.previous"):
        damage(each, how)
    with expect_error(ValueError, "run.npz"):
        load_checkpoint(path)


def test_if_the_last_one_is_gone_and_the_one_before_damaged_it_is_not_found(tmp_path):
    path = saved(tmp_path, 1, 2)
    damage(path, "gone")
    damage(tmp_path / "run.npz.previous", "cut")
    with expect_error(FileNotFoundError, "run.npz"):
        load_checkpoint(path)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_without_one_before_is_an_error_that_names_it(how, tmp_path):
    path = saved(tmp_path, 1)
    damage(path, how)
    with expect_error(ValueError, "run.npz"):
        load_checkpoint(path)


def test_a_file_that_is_not_there_is_not_found(tmp_path):
    with expect_error(FileNotFoundError, "nothing.npz"):
        load_checkpoint(tmp_path / "nothing.npz")


def rewritten(path, change):
    """The same .npz with other arrays: whole, and every check of zip's in order."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    change(arrays)
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array)


def one_number(arrays):
    name = next(name for name, a in arrays.items() if a.shape == (3, 4))
    arrays[name][1, 2] += 1


def one_shape(arrays):
    name = next(name for name, a in arrays.items() if a.shape == (3, 4))
    arrays[name] = arrays[name].reshape(4, 3)


def one_dtype(arrays):
    name = next(name for name, a in arrays.items() if a.shape == (3, 4))
    arrays[name] = arrays[name].view(np.int32)


def one_array_less(arrays):
    del arrays[next(name for name, a in arrays.items() if a.shape == (3, 4))]


def two_exchanged(arrays):
    a, b = (
        name for name, x in arrays.items() if x.dtype.kind in "if" and x.size in (12, 1) and (x == 7).all()
    )
    arrays[a], arrays[b] = arrays[b], arrays[a]


def the_text(arrays):
    """The step, 7, stands in some array of text or bytes, after its name."""
    for name, a in arrays.items():
        text = str(a) if a.dtype.kind == "U" else a.tobytes().decode("latin1") if a.dtype.kind in "uS" else ""
        if found := re.search(r"step\D{1,12}?7", text):
            text = text[: found.end() - 1] + "8" + text[found.end() :]
            if a.dtype.kind == "U":
                arrays[name] = np.array(text)
            else:
                arrays[name] = np.frombuffer(text.encode("latin1"), a.dtype).reshape(a.shape)


@pytest.mark.parametrize(
    "change", [one_number, one_shape, one_dtype, one_array_less, two_exchanged, the_text]
)
def test_a_checksum_notices_what_zip_does_not(change, tmp_path):
    path = saved(tmp_path, 7)
    rewritten(path, lambda arrays: None)
    expect(loaded(path), (7, []))  # the same arrays, however zipped, are the same checkpoint
    rewritten(path, change)
    with expect_error(ValueError, "run.npz"):
        load_checkpoint(path)


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_file_is_unpickled(tmp_path):
    """A pickle runs what it likes."""
    path = saved(tmp_path, 1)
    trap = np.empty(1, object)
    trap[0] = Trap(tmp_path / "sprung")
    rewritten(path, lambda arrays: arrays.update(trap=trap))
    with expect_error(ValueError, "run.npz"):
        load_checkpoint(path)
    assert not (tmp_path / "sprung").exists(), "what was in the file was run"


def test_a_damaged_file_does_not_become_the_one_before(tmp_path):
    """Else a process that is killed twice could be left with nothing."""
    path = saved(tmp_path, 1, 2)
    damage(path, "cut")
    save_checkpoint(path, state_of(3))
    expect(loaded(path), (3, []))
    expect(loaded(tmp_path / "run.npz.previous"), (1, []))


def test_what_cannot_be_saved_changes_nothing(tmp_path):
    path = saved(tmp_path, 1, 2)
    with expect_error(TypeError):
        save_checkpoint(path, {**state_of(3), "odd": object()})
    expect(sorted(file.name for file in tmp_path.iterdir()), ["run.npz", "run.npz.previous"])
    expect(loaded(path), (2, []))
    expect(loaded(tmp_path / "run.npz.previous"), (1, []))


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_disk_that_fails_changes_nothing_and_leaves_nothing_behind(broken, tmp_path, monkeypatch):
    path = saved(tmp_path, 1, 2)

    def fails(*args, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, broken, fails)
        if broken == "replace":
            patched.setattr(os, "rename", fails)
        with expect_error(OSError, "No space left"):
            save_checkpoint(path, state_of(3))
    expect(sorted(file.name for file in tmp_path.iterdir()), ["run.npz", "run.npz.previous"])
    expect(loaded(path), (2, []))


def test_who_interrupts_a_save_finds_nothing_left_behind(tmp_path, monkeypatch):
    path = saved(tmp_path, 1, 2)

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(path, state_of(3))
    expect(sorted(file.name for file in tmp_path.iterdir()), ["run.npz", "run.npz.previous"])
    expect(loaded(path), (2, []))


@pytest.mark.parametrize("which", [1, 2])
def test_if_a_file_gets_no_name_the_one_before_is_still_found(which, tmp_path, monkeypatch):
    """Whichever of the renames fails, the last one that was whole is loaded."""
    path, calls = saved(tmp_path, 1, 2), [0]
    for name in ("replace", "rename"):
        real = getattr(os, name)

        def fails(*args, real=real, **options):
            calls[0] += 1
            if calls[0] == which:
                raise OSError(13, "Permission denied")
            return real(*args, **options)

        monkeypatch.setattr(os, name, fails)
    try:
        save_checkpoint(path, state_of(3))
    except OSError:
        assert {file.name for file in tmp_path.iterdir()} <= {"run.npz", "run.npz.previous"}
        expect(loaded(path)[0], 2)
        save_checkpoint(path, state_of(3))
    expect(loaded(path), (3, []))


def test_numbers_are_on_the_disk_before_the_file_gets_its_name(tmp_path, monkeypatch):
    """A name that reaches the disk first, and then the machine stops: an empty file where a good one was."""
    path, events = saved(tmp_path, 1), []
    for name in ("fsync", "replace", "rename"):
        real = getattr(os, name)

        def noted(*args, real=real, name=name, **options):
            file = args[0] if isinstance(args[0], int) or name != "fsync" else args[0].fileno()
            size = os.fstat(file).st_size if name == "fsync" else 0
            events.append((name, size))
            return real(*args, **options)

        monkeypatch.setattr(os, name, noted)
    save_checkpoint(path, state_of(2))
    names = [name for name, _ in events]
    assert "fsync" in names, "os.fsync brings the file to the disk"
    assert names.index("fsync") < min(names.index(n) for n in ("replace", "rename") if n in names)
    expect(events[names.index("fsync")][1], path.stat().st_size)  # flushed before, down to the last byte
