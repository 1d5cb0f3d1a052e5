"""Level 1: weights of others: files that are trusted with nothing, and GPT-2's names for what we have."""

import json
import os

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.autograd import no_grad
from tinytorch.tensor import Tensor
from tinytorch.transformers import (
    GPTConfig,
    TinyGPT,
    gpt2_state,
    load_gpt2,
    read_safetensors,
    write_safetensors,
)

KINDS = {
    "BOOL": "?", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "u1", "U16": "<u2",
    "U32": "<u4", "U64": "<u8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip


def packed(header, data=b"", size=None):
    """A .safetensors file by hand."""
    words = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(words) if size is None else size).to_bytes(8, "little") + words + data


def entry(dtype, shape, first, last):
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


def opened(file):
    """Header and data of a file, by hand."""
    raw = file.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


# 14.17 write_safetensors


def test_a_file_is_a_length_a_header_and_bytes(tmp_path):
    file = tmp_path / "w.safetensors"
    x = np.array([[1.5, -2.0, 3.0]], np.float32)
    write_safetensors(file, {"x": x})
    header, data = opened(file)
    expect(header, {"x": entry("F32", [1, 3], 0, 12)})
    expect(data, x.tobytes())


@pytest.mark.parametrize(("name", "dtype"), KINDS.items(), ids=list(KINDS))
def test_each_dtype_has_its_name(tmp_path, name, dtype):
    file = tmp_path / "w"
    array = np.array([[0, 1], [1, 0]], dtype)
    write_safetensors(file, {"a": array})
    header, data = opened(file)
    expect((header["a"]["dtype"], data), (name, array.tobytes()))


def test_arrays_lie_one_after_the_other_each_where_its_numbers_are_aligned(tmp_path):
    file = tmp_path / "w"
    arrays = {
        "bytes": np.arange(3, dtype=np.int8),
        "eight": np.arange(2.0),
        "two": np.arange(5, dtype=np.float16),
        "four": np.arange(3, dtype=np.int32),
        "more bytes": np.array([True]),
    }
    write_safetensors(file, arrays)
    header, data = opened(file)
    start = len(file.read_bytes()) - len(data)
    expect(start % 8, 0)
    end = 0
    for name in sorted(header, key=lambda name: header[name]["data_offsets"]):
        first, last = header[name]["data_offsets"]
        expect((first, first % arrays[name].itemsize), (end, 0))
        expect(data[first:last], arrays[name].tobytes())
        end = last
    expect((end, set(header)), (len(data), set(arrays)))


@pytest.mark.parametrize("length", range(1, 9))
def test_spaces_fill_the_header_up_to_eight_bytes(tmp_path, length):
    file = str(tmp_path / "w")
    write_safetensors(file, {"x" * length: np.ones(2)})
    expect(len((tmp_path / "w").read_bytes()) % 8, 0)
    expect(read_safetensors(file)["x" * length], np.ones(2))


AWKWARD = {
    "turned": np.arange(6.0).reshape(2, 3).T,
    "backwards": np.arange(6, dtype=np.int16)[::-2],
    "big-endian": np.array([1, 2, 3], ">i4"),
    "no axes": np.array(2.5, np.float32),
    "nothing": np.empty((0, 3), np.float32),
    "stretched": np.broadcast_to(np.float64(7), (2, 2)),
    "näme/with spaces": np.ones(2, np.float32),
    "file": np.ones(1, np.uint8),
}


def test_any_layout_comes_back(tmp_path):
    file = tmp_path / "w"
    before = {name: array.copy() for name, array in AWKWARD.items()}
    write_safetensors(file, {**AWKWARD, "tensor": Tensor(np.float32([1, 2])), "one": Tensor(2.5)})
    got = read_safetensors(file)
    expect(set(got), {*AWKWARD, "tensor", "one"})
    for name, array in AWKWARD.items():
        expect(got[name], array.astype(array.dtype.newbyteorder("=")))
        expect(array, before[name])
    expect([got["tensor"], got["one"]], [np.array([1, 2], np.float32), np.array(2.5, np.float32)])


def test_words_can_be_written_too(tmp_path):
    file = tmp_path / "w"
    write_safetensors(file, {"a": np.ones(1)}, {"format": "pt", "by": "us"})
    expect(opened(file)[0]["__metadata__"], {"format": "pt", "by": "us"})
    expect(list(read_safetensors(file)), ["a"])
    write_safetensors(file, {})
    expect((opened(file), read_safetensors(file)), (({}, b""), {}))


WIDE = [pytest.param("g", id="longdouble")] if np.dtype("g").itemsize > 8 else []


@pytest.mark.parametrize("dtype", ["c16", "O", "U3", "M8[s]", *WIDE])
def test_what_a_file_cannot_hold_is_named_and_nothing_is_written(tmp_path, dtype):
    array = np.zeros(2, dtype)
    (tmp_path / "w").write_bytes(b"before")
    with expect_error(TypeError, "wrong", str(array.dtype)):
        write_safetensors(tmp_path / "w", {"right": np.ones(2), "wrong": array})
    with expect_error(ValueError, "__metadata__"):  # read back, it would be words and no array
        write_safetensors(tmp_path / "w", {"__metadata__": np.ones(2)})
    expect([(p.name, p.read_bytes()) for p in tmp_path.iterdir()], [("w", b"before")])


def test_a_file_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError("disk is full")

    write_safetensors(tmp_path / "w", {"a": np.ones(2)})
    before = (tmp_path / "w").read_bytes()
    with monkeypatch.context() as patch:
        for name in ("replace", "rename"):
            patch.setattr(os, name, fail)
        with expect_error(OSError, "full"):
            write_safetensors(tmp_path / "w", {"a": np.zeros(2)})
    expect([(p.name, p.read_bytes()) for p in tmp_path.iterdir()], [("w", before)])


# 14.18 read_safetensors


def test_a_file_of_others_is_read(tmp_path):
    """In the header's own order, with spaces behind it, and data in another order."""
    file = tmp_path / "w"
    first, second = np.array([[1, 2], [3, 4]], "<i2"), np.array([0.5, -0.5], "<f4")
    header = {
        "__metadata__": {"format": "pt"},
        "b": entry("I16", [2, 2], 8, 16),
        "a": entry("F32", [2], 0, 8),
        "e": entry("F64", [3, 0], 16, 16),
        "n": entry("F32", [0], 8, 8),  # where b starts, which is named first
    }
    file.write_bytes(packed(json.dumps(header).encode() + b"   ", second.tobytes() + first.tobytes()))
    got = read_safetensors(str(file))
    expect(set(got), {"a", "b", "e", "n"})
    expect([got["a"], got["b"], got["e"]], [second, first, np.empty((3, 0))])
    expect(got["n"], np.empty(0, np.float32))


@pytest.mark.parametrize(("name", "dtype"), KINDS.items(), ids=list(KINDS))
def test_each_name_is_a_dtype(tmp_path, name, dtype):
    array = np.array([1, 0, 1], dtype)
    (tmp_path / "w").write_bytes(packed({"a": entry(name, [3], 0, array.nbytes)}, array.tobytes()))
    expect(read_safetensors(tmp_path / "w")["a"], array)


def test_bfloat16_is_widened(tmp_path):
    """1, -2 and 3.140625 in the upper halves of float32."""
    halves = np.array([[0x3F80, 0xC000, 0x4049]], "<u2")
    (tmp_path / "w").write_bytes(packed({"a": entry("BF16", [1, 3], 0, 6)}, halves.tobytes()))
    expect(read_safetensors(tmp_path / "w")["a"], np.array([[1, -2, 3.140625]], np.float32))


def test_numbers_that_are_not_aligned_are_read_all_the_same(tmp_path):
    data = b"\x01" + np.array([1.5, 2.5]).tobytes()
    (tmp_path / "w").write_bytes(packed({"a": entry("I8", [1], 0, 1), "b": entry("F64", [2], 1, 17)}, data))
    expect(read_safetensors(tmp_path / "w")["b"], np.array([1.5, 2.5]))


def test_what_is_read_cannot_be_written_to(tmp_path):
    write_safetensors(tmp_path / "w", {"a": np.ones(2)})
    assert not read_safetensors(tmp_path / "w")["a"].flags.writeable


def test_a_file_that_is_not_there_is_not_there(tmp_path):
    with expect_error(FileNotFoundError, "nowhere"):
        read_safetensors(tmp_path / "nowhere")


GOOD = entry("F32", [2], 0, 8)
EIGHT = bytes(8)
DAMAGED = {
    "empty": b"",
    "only a length": b"\x02\0\0\0",
    "a length without a header": packed(b"", size=2),
    "a header longer than the file": packed({"a": GOOD}, EIGHT, size=1 << 40),
    "a header a byte longer than the file": packed(b"{}", size=3),
    "a length of all ones": b"\xff" * 8 + b"{}",
    "no JSON": packed(b"{a: 1}"),
    "no UTF-8": packed(b'{"\xff": 1}'),
    "a list": packed([GOOD], EIGHT),
    "a number": packed(b"7"),
    "nested without end": packed(b"[" * 100_000),
    "an entry that is no dict": packed({"a": [0, 8]}, EIGHT),
    "an entry without a dtype": packed({"a": {"shape": [2], "data_offsets": [0, 8]}}, EIGHT),
    "an entry without a shape": packed({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, EIGHT),
    "an entry without offsets": packed({"a": {"dtype": "F32", "shape": [2]}}, EIGHT),
    "an unknown dtype": packed({"a": entry("F8_E4M3", [8], 0, 8)}, EIGHT),
    "a shape that is too large": packed({"a": entry("F32", [3], 0, 8)}, EIGHT),
    "a shape that is too small": packed({"a": entry("F32", [1], 0, 8)}, EIGHT),
    "a shape that is less than nothing": packed({"a": entry("F32", [-1], 0, 8)}, EIGHT),
    "a shape twice less than nothing": packed({"a": entry("F32", [-1, -2], 0, 8)}, EIGHT),
    "a shape of words": packed({"a": entry("F32", ["2"], 0, 8)}, EIGHT),
    "offsets of words": packed({"a": entry("F32", [2], "0", "8")}, EIGHT),
    "three offsets": packed({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4, 8]}}, EIGHT),
    "offsets beyond the end": packed({"a": entry("F32", [4], 0, 16)}, EIGHT),
    "offsets from behind": packed({"a": entry("F32", [2], -8, 0)}, EIGHT),
    "bytes that are nobody's": packed({"a": GOOD}, bytes(9)),
    "a byte too few": packed({"a": GOOD}, bytes(7)),
    "a hole": packed({"a": GOOD, "b": entry("I8", [1], 9, 10)}, bytes(10)),
    "a hole at the start": packed({"a": entry("F32", [1], 4, 8)}, EIGHT),
    "an overlap": packed({"a": GOOD, "b": entry("F32", [2], 4, 12)}, bytes(12)),
    "an array twice": packed({"a": GOOD, "b": GOOD}, EIGHT),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named(tmp_path, name):
    file = tmp_path / "torn.safetensors"
    file.write_bytes(DAMAGED[name])
    with expect_error(ValueError, "torn.safetensors"):
        read_safetensors(file)


# 14.19 gpt2_state

C = GPTConfig(11, context=6, dim=8, num_layers=2, num_heads=2, hidden=8)  # all matrices of a block are square


def ours(seed=0):
    """Weights under our names."""
    rng = np.random.default_rng(seed)
    model = TinyGPT(C, rng=rng)
    return {n: rng.normal(size=a.shape).astype(np.float32) for n, a in model.state_dict().items()}


def theirs(state, prefix="transformer."):
    """The same under GPT-2's, each written down by hand."""
    named = {"wte.weight": state["tokens.weight"], "wpe.weight": state["positions.weight"]}
    for i in range(2):
        own, other = f"blocks.{i}.", f"h.{i}."
        for kind in ("weight", "bias"):
            turn = (lambda a: a.T.copy()) if kind == "weight" else (lambda a: a)
            named[f"{other}ln_1.{kind}"] = state[f"{own}ln1.{kind}"]
            named[f"{other}ln_2.{kind}"] = state[f"{own}ln2.{kind}"]
            named[f"{other}attn.c_attn.{kind}"] = turn(state[f"{own}attn.qkv_proj.{kind}"])
            named[f"{other}attn.c_proj.{kind}"] = turn(state[f"{own}attn.out_proj.{kind}"])
            named[f"{other}mlp.c_fc.{kind}"] = turn(state[f"{own}mlp.fc.{kind}"])
            named[f"{other}mlp.c_proj.{kind}"] = turn(state[f"{own}mlp.proj.{kind}"])
    for kind in ("weight", "bias"):
        named[f"ln_f.{kind}"] = state[f"ln_f.{kind}"]
    return {prefix + name: array for name, array in named.items()}


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_gpt2s_names_become_ours(prefix):
    state = ours()
    state["head.weight"] = state["tokens.weight"]
    got = gpt2_state(theirs(state, prefix))
    expect(set(got), set(state))
    for name, array in state.items():
        expect(got[name], array)


def test_nothing_is_copied_for_it():
    named = theirs(ours())
    got = gpt2_state(named)
    for name, array in named.items():
        assert any(np.shares_memory(array, other) for other in got.values()), name


def test_the_state_that_is_given_stays_as_it_is():
    named = theirs(ours())
    before = {name: array.copy() for name, array in named.items()}
    gpt2_state(named)
    expect(list(named), list(before))
    for name, array in before.items():
        expect(named[name], array)


def test_blocks_are_numbered_beyond_nine():
    named = {f"h.{i}.ln_1.bias": np.full(2, i) for i in (1, 10, 11, 120)}
    got = gpt2_state(named)
    expect({n: int(a[0]) for n, a in got.items()}, {f"blocks.{i}.ln1.bias": i for i in (1, 10, 11, 120)})


def test_masks_that_are_no_weights_are_left_out():
    named = theirs(ours(), "")
    masks = {"h.0.attn.bias": np.ones((1, 1, 6, 6)), "h.1.attn.masked_bias": np.array(-1e4)}
    expect(set(gpt2_state({**masks, **named})), set(gpt2_state(named)))


def test_a_head_of_its_own_stays_its_own():
    state = ours()
    head = np.ones((11, 8), np.float32)
    expect(gpt2_state({**theirs(state), "lm_head.weight": head})["head.weight"], head)
    expect(gpt2_state(theirs(state))["head.weight"], state["tokens.weight"])
    expect(gpt2_state({}), {})


@pytest.mark.parametrize(
    "name", ["wte.scale", "h.0.attn.weight", "h.0.mlp.bias", "h.0.c_fc.weight", "embed.weight", "bias", "h.1"]
)
def test_a_name_that_is_not_gpt2s_is_named(name):
    with expect_error(ValueError, name):
        gpt2_state({**theirs(ours()), name: np.ones(3)})


# 14.20 load_gpt2


def written(folder, arrays, kind):
    file = folder / f"model.{kind}"
    if kind == "npz":
        np.savez(file, **arrays)
    else:
        write_safetensors(file, arrays)
    return file


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_a_published_file_becomes_a_model(tmp_path, kind, dtype):
    """With the logits that the same weights give in a model that got them otherwise."""
    state = {n: a.astype(dtype) for n, a in ours().items()}
    state["head.weight"] = state["tokens.weight"]
    model = load_gpt2(written(tmp_path, theirs(state), kind), num_heads=2)
    expect(model.config, C)
    assert model.head.weight is model.tokens.weight
    other = TinyGPT(C, rng=np.random.default_rng(5))
    other.load_state_dict(state)
    with no_grad():
        ids = np.array([[1, 2, 3, 10]])
        expect(model(ids), other(ids).data)


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_a_loaded_model_can_go_on_learning_and_its_file_stays_as_it_is(tmp_path, kind):
    """Its weights are its own, and not the file's read-only memory."""
    file = written(tmp_path, theirs(ours()), kind)
    before, model = file.read_bytes(), load_gpt2(file, 2)
    for p in model.parameters():
        p.data += 1
    expect(model.tokens.weight, ours()["tokens.weight"] + 1)
    expect(file.read_bytes(), before)


def test_a_model_of_many_blocks_has_them_all(tmp_path):
    named = theirs(ours(), "")
    for i in range(2, 12):
        named |= {n.replace("h.1.", f"h.{i}."): a + i for n, a in named.items() if n.startswith("h.1.")}
    model = load_gpt2(written(tmp_path, named, "npz"), 2)
    expect(model.config.num_layers, 12)
    for i in (2, 9, 10, 11):
        expect(model.blocks[i].mlp.fc.weight, named[f"h.{i}.mlp.c_fc.weight"].T)


def test_what_a_file_is_does_not_depend_on_its_name(tmp_path):
    for kind in ("npz", "safetensors"):
        written(tmp_path, theirs(ours()), kind).rename(tmp_path / "weights.bin")
        expect(load_gpt2(str(tmp_path / "weights.bin"), 4).config.num_heads, 4)


def test_a_file_with_a_head_of_its_own_makes_a_model_that_is_not_tied(tmp_path):
    named = theirs(ours(), "")
    head = np.ones((11, 8), np.float32)
    model = load_gpt2(written(tmp_path, {**named, "lm_head.weight": head}, "safetensors"), 2)
    assert not model.config.tied
    expect(model.head.weight, head)
    tied = load_gpt2(written(tmp_path, {**named, "lm_head.weight": named["wte.weight"]}, "npz"), 2)
    assert tied.config.tied


WRONG = {
    "a weight too many": lambda named: {**named, "h.0.attn.c_more.weight": np.ones(2)},
    "a weight too few": lambda named: {n: a for n, a in named.items() if n != "h.1.mlp.c_proj.bias"},
    "no tokens": lambda named: {n: a for n, a in named.items() if n != "wte.weight"},
    "no positions": lambda named: {n: a for n, a in named.items() if n != "wpe.weight"},
    "no blocks": lambda named: {n: a for n, a in named.items() if not n.startswith("h.")},
    "a block left out": lambda named: {n.replace("h.1.", "h.2."): a for n, a in named.items()},
    "another shape": lambda named: {**named, "ln_f.bias": np.ones(9, np.float32)},
    "tokens without axes": lambda named: {**named, "wte.weight": np.array(1.0)},
    "positions without axes": lambda named: {**named, "wpe.weight": np.array(1.0)},
    "nothing": lambda named: {},
}


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_holds_no_gpt2_is_named(tmp_path, name, kind):
    file = written(tmp_path, WRONG[name](theirs(ours(), "")), kind)
    with expect_error(ValueError, file.name):
        load_gpt2(file, 2)


def test_heads_that_cannot_share_the_width_are_refused(tmp_path):
    file = written(tmp_path, theirs(ours()), "npz")
    with expect_error(ValueError, "model.npz", "3"):
        load_gpt2(file, 3)


@pytest.mark.parametrize("raw", [b"", b"P", b"PK\x03\x04 torn", b"neither"], ids=str)
def test_a_damaged_file_of_either_kind_is_named(tmp_path, raw):
    (tmp_path / "torn").write_bytes(raw)
    with expect_error(ValueError, "torn"):
        load_gpt2(tmp_path / "torn", 2)
    with expect_error(FileNotFoundError, "nowhere"):
        load_gpt2(tmp_path / "nowhere", 2)


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_nothing_is_unpickled(tmp_path):
    named = {**theirs(ours()), "transformer.wte.weight": np.array([Trap(tmp_path / "sprung")], object)}
    np.savez(tmp_path / "model.npz", **named)
    with expect_error(ValueError, "model.npz"):
        load_gpt2(tmp_path / "model.npz", 2)
    assert not (tmp_path / "sprung").exists()
