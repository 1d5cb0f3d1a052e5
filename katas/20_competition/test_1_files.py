"""Level 1: a file that is handed in, by somebody who is not to be trusted; and what goes to and fro."""

import dataclasses
import io
import json
import math
import os
import struct
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.competition import (
    Metrics,
    Refused,
    Submission,
    answer,
    describe,
    digest,
    fence,
    read_frame,
    read_submission,
    rebuild,
    serve,
    work,
    write_frame,
    write_submission,
)
from tinytorch.networks import MLP
from tinytorch.tensor import Tensor


def new(seed=0):
    return np.random.default_rng(seed)


def some(**changes):
    """A submission with arrays of all sorts."""
    arrays = {
        "0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "scale": np.array(2.5),
        "q_8": np.array([[-128, 127]], np.int8),
        "mask.a.b": np.array([True, False]),
        "none": np.zeros((0, 3), np.float16),
        "big": np.array([2**63], ">u8"),
    }
    given = {
        "name": "é & \N{SNOWMAN}",
        "author": "Ada",
        "arrays": arrays,
        "layers": [{"kind": "relu", "x": [1.5]}],
    }
    return Submission(**{**given, **changes})


def expect_same(got, submission):
    for field in ("name", "author", "code", "claims"):
        assert getattr(got, field) == getattr(submission, field)
    assert tuple(got.recipe) == tuple(submission.recipe)
    assert list(got.layers) == list(submission.layers)
    assert set(got.arrays) == set(submission.arrays)
    for name, array in submission.arrays.items():
        expect(np.array(got.arrays[name]), array, rtol=0, atol=0)


# 20.12 write_submission, 20.13 read_submission


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"recipe": ("int8", "prune:0.5"), "claims": (0.5, 0.25, 1000, 10.5)},
        {"layers": (), "code": "def build(arrays):\n    return lambda x: x  # é\n"},
        {"arrays": {}},
        {"name": "x" * 80, "author": "y"},
    ],
    ids=["arrays", "claims", "code", "no arrays", "long"],
)
def test_what_was_written_is_read(changes, tmp_path):
    if "claims" in changes:
        changes = {**changes, "claims": Metrics(*changes["claims"])}
    submission = some(**changes)
    size = write_submission(tmp_path / "a.zip", submission)
    assert size == (tmp_path / "a.zip").stat().st_size
    expect_same(read_submission(tmp_path / "a.zip"), submission)
    expect_same(read_submission(str(tmp_path / "a.zip")), submission)


def test_a_file_is_a_zip_of_members_that_are_stored(tmp_path):
    write_submission(
        tmp_path / "a.zip", some(layers=(), code="def build(arrays): ...", claims=Metrics(0.5, 2, 3, 4))
    )
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = [*("0.weight", "big", "mask.a.b", "none", "q_8", "scale")]
        assert archive.namelist() == [
            "submission.json",
            "model.py",
            *(f"arrays/{name}.npy" for name in names),
        ]
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        about = json.loads(archive.read("submission.json"))
        weight = np.load(io.BytesIO(archive.read("arrays/0.weight.npy")), allow_pickle=False)
    assert about == {
        "format": 1,
        "name": "é & \N{SNOWMAN}",
        "author": "Ada",
        "layers": [],
        "recipe": [],
        "claims": {"accuracy": 0.5, "latency": 2, "memory": 3, "size": 4},
    }
    expect(weight, some().arrays["0.weight"])


def test_equal_submissions_give_equal_files(tmp_path):
    """So the digest says whether somebody handed in the same again."""
    arrays = some().arrays
    write_submission(tmp_path / "a.zip", some())
    write_submission(tmp_path / "b.zip", some(arrays=dict(reversed(arrays.items()))))
    write_submission(tmp_path / "c.zip", some(arrays={**arrays, "scale": np.array(2.5000001)}))
    assert digest(tmp_path / "a.zip") == digest(tmp_path / "b.zip") != digest(tmp_path / "c.zip")
    assert len(digest(tmp_path / "a.zip")) == 16


def test_without_code_there_is_no_file_for_it(tmp_path):
    write_submission(tmp_path / "a.zip", some(arrays={"w": np.ones(2)}))
    assert zipfile.ZipFile(tmp_path / "a.zip").namelist() == ["submission.json", "arrays/w.npy"]


def test_arrays_may_be_of_any_layout(rng, tmp_path):
    x = rng.normal(size=(5, 6))
    arrays = {
        "fortran": np.asfortranarray(x),
        "turned": x.T,
        "back": x[::-1, ::2],
        "wide": np.broadcast_to(x[0], (3, 6)),
    }
    write_submission(tmp_path / "a.zip", some(arrays=arrays))
    expect_same(read_submission(tmp_path / "a.zip"), some(arrays=arrays))


@pytest.mark.parametrize("kind", [OSError, MemoryError, TypeError])
def test_what_was_there_stays_if_writing_fails(kind, tmp_path, monkeypatch):
    path = tmp_path / "a.zip"
    write_submission(path, some())
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise kind("there is no space")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    monkeypatch.setattr(np, "save", full)
    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    monkeypatch.setattr(zipfile.ZipFile, "open", full)
    with pytest.raises(kind, match="space"):
        write_submission(path, some(name="other"))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.zip"]


def test_a_file_takes_the_place_of_the_one_before(tmp_path):
    write_submission(tmp_path / "a.zip", some(arrays={"x": np.zeros(9999)}))
    write_submission(tmp_path / "a.zip", some(name="second"))
    assert read_submission(tmp_path / "a.zip").name == "second"
    assert os.listdir(tmp_path) == ["a.zip"]


def npy(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


ABOUT = {"format": 1, "name": "n", "author": "a", "layers": [{"kind": "relu"}], "recipe": [], "claims": None}


def packed(path, members, about=ABOUT, compression=zipfile.ZIP_STORED):
    """A zip with these members, made as somebody would who has bad intentions."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        if about is not None:
            archive.writestr(
                "submission.json", about if isinstance(about, (str, bytes)) else json.dumps(about)
            )
        for name, content in members:
            archive.writestr(name, content)
    return path


def refused(path, *mentions, **options):
    with expect_error(Refused, Path(path).name, *mentions):
        read_submission(path, **options)


def test_made_by_hand_it_is_read_as_well(tmp_path):
    got = read_submission(packed(tmp_path / "a.zip", [("arrays/w.npy", npy(np.ones((2, 2))))]))
    expect(got.arrays["w"], np.ones((2, 2)))
    assert list(got.layers) == [{"kind": "relu"}]


def test_a_refusal_is_a_value_error(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"coffee")
    with expect_error(ValueError, "a.zip"):
        read_submission(tmp_path / "a.zip")


@pytest.mark.parametrize(
    "arrays", [{"../x": np.ones(1)}, {"w": [1.0]}, {"w": np.array([None])}], ids=["name", "list", "objects"]
)
def test_what_was_read_cannot_be_made_into_what_could_not_be_written(arrays, tmp_path):
    write_submission(tmp_path / "a.zip", some())
    good = read_submission(tmp_path / "a.zip")
    with expect_error(Refused, next(iter(arrays))):
        dataclasses.replace(good, arrays=arrays)


def test_a_file_that_is_too_large_is_not_even_opened(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"no zip, " * 100)
    refused(path, "800", "799", limit=799)
    size = write_submission(path, some())
    refused(path, limit=size - 1)
    assert read_submission(path, limit=size).author == "Ada"


def test_unless_told_64_mebibytes_are_the_most(tmp_path):
    """A zip file may have anything in front, here a gap that takes no room on the disk; it is whole."""
    write_submission(tmp_path / "a.zip", some())
    with open(tmp_path / "b.zip", "wb") as stream:
        stream.seek(64 << 20)
        stream.write((tmp_path / "a.zip").read_bytes())
    refused(tmp_path / "b.zip")


def test_a_file_that_is_not_there_is_missing(tmp_path):
    with expect_error(FileNotFoundError):
        read_submission(tmp_path / "a.zip")


@pytest.mark.parametrize("content", [b"", b"PK", b"coffee" * 100, b"PK\x05\x06" + b"\0" * 18], ids=range(4))
def test_what_is_no_zip_file_is_refused(content, tmp_path):
    (tmp_path / "a.zip").write_bytes(content)
    refused(tmp_path / "a.zip")


def test_a_file_that_broke_off_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    size = write_submission(path, some())
    whole = path.read_bytes()
    for length in range(0, size, 97):
        path.write_bytes(whole[:length])
        refused(path)


def test_a_changed_byte_is_noticed(tmp_path):
    """The zip has a checksum of every member, which counts for nothing unless all of it is read."""
    path = tmp_path / "a.zip"
    write_submission(path, some(arrays={"w": np.arange(1000.0)}))
    raw = bytearray(path.read_bytes())
    raw[raw.index(np.arange(1000.0).tobytes()) + 5000] ^= 1
    path.write_bytes(raw)
    refused(path)


@pytest.mark.parametrize(
    "name",
    [
        "../x.npy",
        "arrays/../../x.npy",
        "arrays/..npy",
        "arrays/.npy",
        "arrays/a/b.npy",
        "arrays/a\\b.npy",
        "/arrays/a.npy",
        "arrays/a b.npy",
        "arrays/a.npz",
        "arrays/a.npy.py",
        "arrays/a..b.npy",
        "arrays/é.npy",
        "arrays/a\n.npy",
        "arrays/a.npy\n",
        "arrays/",
        "setup.py",
        "model.pyc",
        "x/model.py",
    ],
    ids=ascii,
)
def test_a_name_that_is_no_part_of_a_submission_is_refused(name, tmp_path):
    mentions = [name] if name.isprintable() and "\\" not in name else []
    refused(packed(tmp_path / "a.zip", [(name, npy(np.ones(2)))]), *mentions)
    assert os.listdir(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("name", ["submission.json", "arrays/w.npy", "model.py"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(name, tmp_path):
    """One reader takes the first, another the last: which was looked at?"""
    members = [("arrays/w.npy", npy(np.ones(2))), (name, npy(np.ones(2)))]
    about = ABOUT
    if name == "model.py":
        members = [(name, "1"), (name, "2")]
        about = {**ABOUT, "layers": []}
    refused(packed(tmp_path / "a.zip", members, about))


def test_what_asks_for_a_password_is_refused(tmp_path):
    path = packed(tmp_path / "a.zip", [("arrays/w.npy", npy(np.ones(2)))])
    raw = bytearray(path.read_bytes())
    raw[6] |= 1  # of the first member, and below of its entry in the directory: it is encrypted
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    refused(path)


def test_too_many_members_are_refused(tmp_path):
    tiny = npy(np.ones(1))
    read_submission(packed(tmp_path / "a.zip", [(f"arrays/a{i}.npy", tiny) for i in range(999)]))
    refused(packed(tmp_path / "b.zip", [(f"arrays/a{i}.npy", tiny) for i in range(1000)]))


@pytest.mark.parametrize("name", ["submission.json", "arrays/w.npy", "model.py"])
@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_is_compressed_is_refused(method, name, tmp_path):
    """A megabyte of zeros is a kilobyte when compressed; a hundred gigabytes fit into an e-mail."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("submission.json", json.dumps(ABOUT), method if name == "submission.json" else None)
        if name != "submission.json":
            archive.writestr(name, npy(np.zeros(1 << 17)), method)
    refused(path, name)


def test_what_is_compressed_is_refused_even_if_nothing_is_won(tmp_path):
    """Of one of these texts, the compressed bytes are just as many."""
    for n in range(1, 20):
        path = tmp_path / f"{n}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("submission.json", json.dumps({**ABOUT, "layers": []}))
            archive.writestr("model.py", "#" * n, zipfile.ZIP_DEFLATED)
        refused(path, "model.py")


def test_an_honest_word_about_sizes_is_not_enough(tmp_path):
    """The directory at the end says that the member is longer than the file: nobody makes room for that."""
    path = packed(tmp_path / "a.zip", [("arrays/w.npy", npy(np.ones(2)))])
    raw = bytearray(path.read_bytes())
    entry = raw.rindex(b"PK\x01\x02")
    raw[entry + 20 : entry + 28] = struct.pack("<II", 1 << 30, 1 << 30)  # compressed and real size
    path.write_bytes(raw)
    refused(path)


def test_members_that_share_their_bytes_are_refused(tmp_path):
    """A zip bomb without compression: a hundred directory entries for the same megabyte."""
    path = packed(tmp_path / "a.zip", [("arrays/a00.npy", npy(np.zeros(1 << 17)))])
    raw = path.read_bytes()
    start, end = raw.rindex(b"PK\x01\x02"), raw.rindex(b"PK\x05\x06")
    entry = raw[start:end]
    entries = b"".join(entry.replace(b"a00", b"a%02d" % i) for i in range(99))
    whole = (
        raw[:start]
        + entries
        + raw[end : end + 8]
        + struct.pack(
            "<HHIIH", 100, 100, len(entries) + start - raw.index(b"PK\x01\x02"), raw.index(b"PK\x01\x02"), 0
        )
    )
    path.write_bytes(whole)
    refused(path, limit=4 << 20)


def local(name, content):
    """A member as it lies in a zip file; 0x21 is 1980-01-01."""
    about = (zlib.crc32(content), len(content), len(content), len(name), 0)
    return struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0x21, *about) + name + content


def test_members_that_lie_in_each_other_are_refused(tmp_path):
    """Each is whole: an array whose bytes are the next member. The 16 KiB of the last are read 30 times."""
    members, inner = [], bytes(16 << 10)
    for i in range(30):
        name, content = b"arrays/a%d.npy" % i, npy(np.frombuffer(inner, np.uint8))
        inner = local(name, content)
        members.append((name, content, len(inner)))
    first = local(b"submission.json", json.dumps(ABOUT).encode())
    end = len(first) + len(inner)
    entries = [(b"submission.json", json.dumps(ABOUT).encode(), end), *members]
    directory = b"".join(
        struct.pack("<4s6H", b"PK\1\2", 20, 20, 0, 0, 0, 0x21)
        + struct.pack("<3I", zlib.crc32(content), len(content), len(content))
        + struct.pack("<5H2I", len(name), 0, 0, 0, 0, 0, end - length)
        + name
        for name, content, length in entries
    )
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(entries), len(entries), len(directory), end, 0)
    path = tmp_path / "a.zip"
    path.write_bytes(first + inner + directory + tail)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() in (None, "arrays/a1.npy")  # newer versions of Python see it by themselves
    refused(path)
    refused(path, limit=path.stat().st_size)


@pytest.mark.parametrize(
    "about",
    [
        None,
        "",
        "{",
        "[]",
        "null",
        b"\xff\xfe\xfa",
        "[" * 100_000,
        {**ABOUT, "format": 2},
        {**ABOUT, "format": None},
        {**ABOUT, "name": 5},
        {**ABOUT, "name": ""},
        {**ABOUT, "name": "x" * 81},
        {**ABOUT, "name": "a\nb"},
        {**ABOUT, "author": "\x1b[31mred"},
        {**ABOUT, "layers": 5},
        {**ABOUT, "layers": ["relu"]},
        {**ABOUT, "layers": []},
        {**ABOUT, "recipe": None},
        {**ABOUT, "claims": {"accuracy": 0.5}},
        {**ABOUT, "claims": {"accuracy": 0.5, "latency": 1, "memory": 1, "size": 1, "beauty": 1}},
        {**ABOUT, "claims": {"accuracy": 7, "latency": 1, "memory": 1, "size": 1}},
        {**ABOUT, "claims": {"accuracy": 0.5, "latency": math.nan, "memory": 1, "size": 1}},
        {**ABOUT, "claims": {"accuracy": "0.5", "latency": 1, "memory": 1, "size": 1}},
        {key: ABOUT[key] for key in ABOUT if key != "author"},
        {key: ABOUT[key] for key in ABOUT if key != "format"},
    ],
    ids=range(25),
)
def test_what_is_said_about_it_must_make_sense(about, tmp_path):
    refused(packed(tmp_path / "a.zip", [], about))


def test_layers_and_code_together_are_refused(tmp_path):
    refused(packed(tmp_path / "a.zip", [("model.py", "x = 1")]))


def test_code_is_read_and_not_run(tmp_path):
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\ndef build(arrays): ...\n"
    write_submission(tmp_path / "a.zip", some(layers=(), code=code))
    assert read_submission(tmp_path / "a.zip").code == code
    assert os.listdir(tmp_path) == ["a.zip"]


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_nothing_is_unpickled(tmp_path):
    mark = tmp_path / "ran"
    content = npy(np.array([Bomb(str(mark))], object), allow_pickle=True)
    refused(packed(tmp_path / "a.zip", [("arrays/w.npy", content)]))
    assert not mark.exists()


@pytest.mark.parametrize("dtype", ["U3", "S3", "c16", "M8[s]", "V4", [("a", "f4"), ("b", "i4")]], ids=str)
def test_arrays_are_of_numbers(dtype, tmp_path):
    refused(packed(tmp_path / "a.zip", [("arrays/w.npy", npy(np.zeros(3, dtype)))]))


def header(shape, dtype="<f8"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        header((4,)),
        header((4,)) + b"\0" * 31,
        header((4,)) + b"\0" * 33,
        header((1 << 40,)) + b"\0" * 32,
        header((1 << 62, 4)) + b"\0" * 0,
        header((-4,)) + b"\0" * 32,
        b"\x93NUMPY\x09\x00" + header((4,))[8:] + b"\0" * 32,
        header((4,))[:10] + b"x" * 60,
    ],
    ids=range(10),
)
def test_a_header_that_promises_something_else_is_refused(content, tmp_path):
    refused(packed(tmp_path / "a.zip", [("arrays/w.npy", content)]))


def test_other_versions_of_headers_are_read(tmp_path):
    content = npy(np.arange(3.0), version=(2, 0))
    expect(
        read_submission(packed(tmp_path / "a.zip", [("arrays/w.npy", content)])).arrays["w"], np.arange(3.0)
    )


def test_a_model_gives_the_same_answers_after_a_journey(rng, tmp_path):
    net, x = MLP([6, 9, 4], rng=new()), rng.normal(size=(7, 6)).astype(np.float32)
    layers, arrays = describe(net)
    write_submission(tmp_path / "a.zip", some(layers=layers, arrays=arrays))
    got = read_submission(tmp_path / "a.zip")
    expect(answer(rebuild(got.layers, got.arrays), x), answer(net, x), atol=1e-5)
    expect(answer(got.build(), x), answer(net, x), atol=1e-5)


# 20.14 write_frame, read_frame


def bytes_of(message):
    stream = io.BytesIO()
    write_frame(stream, message)
    return stream.getvalue()


def test_a_frame_is_a_line_of_json_and_the_bytes():
    raw = bytes_of(np.array([[1, 2, 3]], "<i4"))
    assert raw == b'{"dtype": "<i4", "shape": [1, 3]}\n' + struct.pack("<iii", 1, 2, 3)
    line, rest = bytes_of("go").split(b"\n")
    assert json.loads(line) == {"text": "go"}
    assert rest == b""


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "i8", "f2", "<f4", ">f4", "f8"])
def test_frames_follow_each_other_on_a_stream(dtype, shape, rng):
    arrays = [(10 * rng.normal(size=shape)).astype(dtype) for _ in range(2)]
    stream = io.BytesIO(bytes_of(arrays[0]) + bytes_of("é\n") + bytes_of(arrays[1]))
    for expected in (arrays[0], "é\n", arrays[1]):
        got = read_frame(stream)
        if isinstance(expected, str):
            assert got == expected
        else:
            expect(got, expected, rtol=0, atol=0)
            assert got.flags.writeable
    with pytest.raises(EOFError):
        read_frame(stream)


def test_frames_may_be_of_any_layout(rng):
    x = rng.normal(size=(4, 6))
    for view in (x.T, x[::-1], x[:, ::2], np.asfortranarray(x), np.broadcast_to(x[0], (3, 6))):
        expect(read_frame(io.BytesIO(bytes_of(view))), np.ascontiguousarray(view), rtol=0, atol=0)


def test_a_long_text_is_cut():
    assert read_frame(io.BytesIO(bytes_of("x" * 501))) == "x" * 500
    assert read_frame(io.BytesIO(bytes_of("x" * 500))) == "x" * 500
    for letter in "\xe9", "\U0001f600", "\n", "\0":
        assert read_frame(io.BytesIO(bytes_of(letter * 501))) == letter * 500


class Flushing(io.BytesIO):
    flushed = 0

    def flush(self):
        self.flushed = len(self.getvalue())


def test_a_frame_does_not_stay_in_a_buffer():
    for message in ("go", np.ones(5)):
        stream = Flushing()
        write_frame(stream, message)
        assert stream.flushed == len(stream.getvalue()) > 0


@pytest.mark.parametrize("dtype", ["c8", "U2", "O", "M8[s]"])
def test_other_arrays_do_not_travel(dtype):
    stream = io.BytesIO()
    with expect_error(TypeError, np.dtype(dtype).name if dtype != "U2" else ""):
        write_frame(stream, np.zeros(2, dtype))
    assert stream.getvalue() == b""


class Trickle(io.BytesIO):
    """A pipe: gives what has come, and that is little."""

    def readinto(self, buffer):
        return super().readinto(memoryview(buffer)[:7])

    def read(self, size=-1):
        return super().read(min(size, 7) if size >= 0 else 7)


def test_what_comes_in_pieces_is_put_together(rng):
    x = rng.normal(size=(5, 11))
    expect(read_frame(Trickle(bytes_of(x))), x, rtol=0, atol=0)


def test_a_stream_that_ends_within_a_frame_is_refused():
    raw = bytes_of(np.arange(5.0))
    for length in range(1, len(raw)):
        with pytest.raises(Refused):
            read_frame(io.BytesIO(raw[:length]))
    with expect_error(Refused, "3"):
        read_frame(io.BytesIO(raw[:-3]))
    with pytest.raises(Refused):
        read_frame(io.BytesIO(bytes_of("go")[:-1]))  # all but the end of its line


def test_a_header_has_8000_bytes_at_most():
    """Whether or not the end of its line is counted, which makes one more."""
    start = b'{"dtype": "|i1", "shape": [2]'
    for length in (7999, 8001):
        line = start + b" " * (length - len(start) - 1) + b"}\n\1\2"
        if length < 8000:
            expect(read_frame(io.BytesIO(line)), np.array([1, 2], np.int8))
        else:
            with pytest.raises(Refused):
                read_frame(io.BytesIO(line))


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"hello\n",
        b"5\n",
        b"[]\n",
        b"null\n",
        b"\xff\xff\n",
        b'{"shape": [2]}\n',
        b'{"dtype": "<f8"}\n',
        b'{"dtype": "nonsense", "shape": [2]}\n',
        b'{"dtype": "<f8", "shape": 2}\n',
        b'{"dtype": "<f8", "shape": ["a"]}\n',
        b'{"dtype": "<f8", "shape": [-1]}\n',
        b'{"dtype": "<f8", "shape": [-1, -2]}\n',
        b'{"dtype": "O", "shape": [2]}\n',
        b'{"dtype": "c16", "shape": [1]}\n',
        b'{"dtype": "V8", "shape": [2]}\n',
        b'{"dtype": "i,,", "shape": [2]}\n',
        b'{"dtype": "<f8", "shape": [1e999]}\n',
        b"[" * 5000 + b"\n",
        b'{"dtype": "<f8", "shape": [' + b"1, " * 99 + b"1]}\n",
        b'{"dtype": "<f8", "shape": [0, 4611686018427387904]}\n',
        b'{"dtype": "<f8", "shape": [2]' + b" " * 8000 + b"}\n",
        b"x" * 9000,
    ],
    ids=range(23),
)
def test_what_is_no_header_is_refused(line):
    with pytest.raises(Refused):
        read_frame(io.BytesIO(line + b"\0" * 16))


@pytest.mark.parametrize("text", ["5", "null", '["ready"]', '{"text": "ready"}'])
def test_what_is_called_a_text_and_is_none_is_refused_or_made_one(text):
    """Whoever asked for a text compares it with one, and takes all else for an array."""
    try:
        got = read_frame(io.BytesIO(b'{"text": %s}\n' % text.encode()))
    except Refused:
        return
    assert type(got) is str


@pytest.mark.parametrize("shape", [[-1], [3, -2]], ids=str)
def test_a_negative_axis_is_named(shape):
    with expect_error(Refused, ", ".join(map(str, shape))):
        read_frame(io.BytesIO(json.dumps({"dtype": "<f8", "shape": shape}).encode() + b"\n" + bytes(8)))


def test_a_frame_may_not_be_larger_than_allowed():
    raw = bytes_of(np.arange(5.0))
    expect(read_frame(io.BytesIO(raw), limit=40), np.arange(5.0))
    with expect_error(Refused, "(5,)"):
        read_frame(io.BytesIO(raw), limit=39)
    for shape in ([1 << 40], [1 << 32, 1 << 32], [1 << 62, 4]):
        with expect_error(Refused, str(shape[0])):
            read_frame(io.BytesIO(json.dumps({"dtype": "<f8", "shape": shape}).encode() + b"\n"))


# 20.15 serve


def served(build, *messages):
    """What comes back, as a list."""
    out = io.BytesIO()
    serve(build, io.BytesIO(b"".join(bytes_of(message) for message in messages)), out)
    out.seek(0)
    replies = []
    while True:
        try:
            replies.append(read_frame(out))
        except EOFError:
            return replies


def test_it_says_ready_and_answers_what_comes(rng):
    batches = [rng.normal(size=(n, 3)) for n in (4, 1, 2)]
    built = []
    replies = served(lambda: (built.append(1), lambda x: x * 2)[1], *batches)
    assert replies[0] == "ready"
    expect(replies[1:], [batch * 2 for batch in batches])
    assert built == [1]


def test_a_module_is_served_as_well(rng):
    net, x = MLP([6, 9, 4], dropout=0.5, rng=new()), rng.normal(size=(7, 6)).astype(np.float32)
    expect(served(lambda: net, x)[1], answer(net, x), rtol=0, atol=0)


def test_answers_are_made_plain(rng):
    x = rng.normal(size=(4, 3))
    expect(
        served(lambda: lambda images: Tensor(images.astype(np.float16)), x)[1],
        x.astype(np.float16).astype(np.float32),
    )


def test_memory_is_told_when_asked():
    """A mebibyte of weights, and one that the answer takes."""

    def build():
        weights = np.ones(1 << 17)
        return lambda images: np.zeros((len(images), 1 << 16)) + weights[0]

    replies = served(build, np.zeros((2, 3)), "memory", np.zeros((1, 3)))
    assert (replies[2].shape, replies[2].dtype) == ((1,), np.int64)
    assert 3 << 19 < replies[2][0] < 9 << 19
    expect(replies[3], np.ones((1, 1 << 16)))
    expect(served(build, "memory")[1], np.array([0]))
    last = served(build, np.zeros((1, 3)), np.zeros((8, 3)), "memory")[-1][0]  # 1 + 8 / 2 MiB
    assert 9 << 19 < last < 20 << 19


def failing(kind, at):
    """A model that raises at this call; 0 is building."""
    calls = []

    def ask(images):
        calls.append(1)
        if len(calls) == at:
            raise kind("no more")
        return images

    def build():
        if at == 0:
            raise kind("no more")
        return ask

    return build


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, PermissionError, MemoryError])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_what_a_model_raises_goes_back_as_a_text_and_ends_it(at, kind):
    x = np.ones((2, 2))
    replies = served(failing(kind, at), x, x, x)
    assert replies[-1] == f"{kind.__name__}: no more"
    assert len(replies) == at + 1


def test_an_answer_that_is_none_ends_it_too():
    replies = served(lambda: lambda images: images[:1], np.ones((2, 2)), np.ones((2, 2)))
    assert replies[1].startswith("ValueError: ")
    assert "(1, 2)" in replies[1]
    assert len(replies) == 2


def test_an_end_in_the_model_is_no_end_of_the_stream():
    """A model that raises EOFError has failed; it was not asked nothing more."""
    assert served(failing(EOFError, 1), np.ones((2, 2)))[-1] == "EOFError: no more"


def test_code_that_was_handed_in_is_run_when_it_is_built(tmp_path):
    code = (
        "def build(arrays):\n    assert __name__ == 'model'\n    return lambda images: images @ arrays['w']\n"
    )
    given = some(layers=(), code=code, arrays={"w": np.full((2, 3), 2.0)})
    assert write_submission(str(tmp_path / "a.zip"), given) > 0
    (_, got) = served(read_submission(tmp_path / "a.zip").build, np.ones((4, 2)))
    expect(got, np.full((4, 3), 4.0))


@pytest.mark.parametrize("event", ["os.fork", "subprocess.Popen", "os.system", "socket.connect"])
def test_the_fence_lets_files_through_and_no_processes(event):
    def build(what):
        fence(what, ())
        return lambda images: images

    assert served(lambda: build("open")) == ["ready"]
    (said,) = served(lambda: build(event))
    assert said.startswith("PermissionError: ")


@pytest.mark.parametrize("setup", [False, True])
def test_what_a_model_prints_is_no_answer(setup, tmp_path, monkeypatch):
    """`work` does here what it does in its process, which is weighed between "here" and "go"."""
    code = "import os\ndef build(arrays):\n    os.write(1, b'noise')\n    return lambda images: images\n"
    write_submission(tmp_path / "a.zip", some(layers=(), code=code))
    (tmp_path / "setup.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    hooks, images = [], np.ones((2, 3))
    monkeypatch.setattr(sys, "addaudithook", hooks.append)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(bytes_of("go") + bytes_of(images))))
    kept = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        try:
            os.dup2(out.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            work(str(tmp_path / "a.zip"), str(tmp_path / "setup.py") if setup else "")
        finally:
            for number, handle in enumerate(kept, 1):
                os.dup2(handle, number)
                os.close(handle)
        out.seek(0)
        assert [read_frame(out), read_frame(out)] == ["here", "ready"]
        expect(read_frame(out), images)
        assert out.read() == b""
        errors.seek(0)
        assert errors.read() == b"noise"
    assert hooks == [fence]
    assert (tmp_path / "ran").exists() == setup


def test_nothing_comes_without_being_asked():
    assert served(lambda: lambda images: images) == ["ready"]
