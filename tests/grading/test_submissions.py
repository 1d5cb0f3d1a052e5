"""What is read of what was handed in, and what is refused in words."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from dojo.grading import submissions
from dojo.grading.submissions import Unreadable, find, read


def folder_of(path: Path, **files: str) -> Path:
    for name, text in files.items():
        file = path / name.replace("__", "/")
        file = file.with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return path


def zipped(path: Path, **entries: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in entries.items():
            archive.writestr(name, text)
    return path


def test_of_a_whole_clone_only_the_stubs_are_read(tmp_path: Path) -> None:
    clone = folder_of(
        tmp_path / "ana",
        stubs__tinytorch__tensor="mine",
        reference__tinytorch__tensor="ours",
        reference__tinytorch__layers="ours",
        stubs__tinytorch__notes="no kata",
        katas__02_tensor__test_1="forged",
    )
    assert read(clone).files == {"tensor": b"mine"}
    assert read(clone).name == "ana"


@pytest.mark.parametrize("inside", ["", "tinytorch/", "stubs/tinytorch/", "katas-main/stubs/tinytorch/"])
def test_a_zip_may_begin_anywhere_above_the_files(tmp_path: Path, inside: str) -> None:
    made = zipped(tmp_path / "ana.zip", **{f"{inside}tensor.py": "a", f"{inside}layers.py": "b"})
    assert read(made).files == {"tensor": b"a", "layers": b"b"}
    assert read(made).name == "ana"


def test_one_folder_is_read_and_not_a_mixture(tmp_path: Path) -> None:
    made = folder_of(tmp_path / "ana", tensor="old", stubs__tinytorch__layers="new")
    assert read(made).files == {"layers": b"new"}


def test_of_two_versions_none_is_taken_for_the_right_one(tmp_path: Path) -> None:
    made = folder_of(tmp_path / "ana", v1__tensor="old", v2__tensor="new")
    assert read(made).trouble == "both v1 and v2 have files of katas; hand in one of them"
    folder_of(made, stubs__tinytorch__tensor="newest")
    assert read(made).files == {"tensor": b"newest"}


def test_a_zip_may_be_in_a_folder_of_the_students(tmp_path: Path) -> None:
    made = tmp_path / "ana_1234_assignsubmission_file"
    made.mkdir()
    zipped(made / "work.zip", **{"stubs/tinytorch/tensor.py": "a"})
    assert read(made).files == {"tensor": b"a"}
    assert read(made).name == made.name
    zipped(made / "more.zip", **{"stubs/tinytorch/tensor.py": "b"})
    assert "no file of a kata is in it" in read(made).trouble


@pytest.mark.parametrize("name", ["../tensor.py", "/etc/tensor.py", "a/../../x", "C:/x", "..\\x"])
def test_a_zip_that_leads_out_of_itself_is_refused(tmp_path: Path, name: str) -> None:
    made = zipped(tmp_path / "eve.zip", **{name: "x", "stubs/tinytorch/tensor.py": "y"})
    refused = read(made)
    assert refused.files == {}
    assert "leads out of it" in refused.trouble


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    made = folder_of(tmp_path / "eve", stubs__tinytorch__layers="x")
    target = made / "stubs" / "tinytorch" / "tensor.py"
    try:
        target.symlink_to("/etc/passwd")
    except OSError:
        pytest.skip("this system lets nobody make links")
    assert "is a link" in read(made).trouble
    entry = zipfile.ZipInfo("stubs/tinytorch/tensor.py")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "zip.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    assert "is a link" in read(tmp_path / "zip.zip").trouble


def test_a_zip_that_unpacks_to_more_than_it_says_is_not_unpacked(tmp_path: Path) -> None:
    made = tmp_path / "eve.zip"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tensor.py", b"#" * (submissions.LARGEST + 1))
    assert "1,000,000 bytes" in read(made).trouble
    content = made.read_bytes()
    lying = content.replace(struct.pack("<I", submissions.LARGEST + 1), struct.pack("<I", 10))
    made.write_bytes(lying)
    assert read(made).trouble


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + b"\0" * 40])
def test_a_broken_zip_is_a_submission_with_a_trouble(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ana.zip").write_bytes(content)
    assert "zip it afresh" in read(tmp_path / "ana.zip").trouble


def test_whatever_a_zip_raises_is_a_trouble_of_one_submission(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "ana.zip", **{"tensor.py": "x", "é": ""}).read_bytes()
    (tmp_path / "ana.zip").write_bytes(whole.replace("é".encode(), b"\xff\xff"))  # not the UTF-8 that it says
    assert "zip it afresh" in read(tmp_path / "ana.zip").trouble
    with zipfile.ZipFile(tmp_path / "eve.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("tensor.py", "x" * 1000)
        start = archive.start_dir
    packed = (tmp_path / "eve.zip").read_bytes()
    (tmp_path / "eve.zip").write_bytes(packed[: start - 8] + b"?" * 8 + packed[start:])
    assert "zip it afresh" in read(tmp_path / "eve.zip").trouble


def test_a_zip_may_have_an_entry_for_its_top(tmp_path: Path) -> None:
    made = zipped(tmp_path / "ana.zip", **{"./": "", "./tensor.py": "a"})
    assert read(made).files == {"tensor": b"a"}


def test_a_zip_cut_short_is_refused(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "ana.zip", **{"tensor.py": "x" * 1000}).read_bytes()
    (tmp_path / "ana.zip").write_bytes(whole[: len(whole) // 2])
    assert "damaged" in read(tmp_path / "ana.zip").trouble


def test_a_submission_without_a_kata_says_what_it_should_have(tmp_path: Path) -> None:
    assert "stubs/tinytorch/tensor.py" in read(folder_of(tmp_path / "ana", essay="words")).trouble


def test_a_file_that_cannot_be_read_is_a_trouble_of_one_submission(tmp_path: Path) -> None:
    made = folder_of(tmp_path / "class" / "ana", tensor="x")
    (made / "tensor.py").chmod(0)
    if os.access(made / "tensor.py", os.R_OK):
        pytest.skip("this user reads everything")
    assert [s.trouble.startswith("it cannot be read") for s in find(tmp_path / "class")] == [True]


def test_a_class_is_its_folders_and_zips_but_not_the_results(tmp_path: Path) -> None:
    folder_of(tmp_path / "zoe", tensor="z")
    folder_of(tmp_path / "results", tensor="no")
    folder_of(tmp_path / ".git", tensor="no")
    (tmp_path / "list.csv").write_text("no")
    zipped(tmp_path / "ana.zip", **{"tensor.py": "a"})
    assert [s.name for s in find(tmp_path, but=tmp_path / "results")] == ["ana", "zoe"]


def test_a_name_that_is_not_utf8_can_be_written(tmp_path: Path) -> None:
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/M\xfcller")
    except (OSError, ValueError):
        pytest.skip("this system has only names in Unicode")
    (submission,) = find(tmp_path)
    assert submission.name == "M\N{REPLACEMENT CHARACTER}ller"


def test_an_empty_class_and_a_missing_one_say_what_should_be_there(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"one folder or \.zip for each student"):
        find(tmp_path)
    with pytest.raises(Unreadable, match="is not a folder"):
        find(tmp_path / "missing")


def test_two_submissions_of_one_name_are_not_mixed_up(tmp_path: Path) -> None:
    folder_of(tmp_path / "ana", tensor="a")
    zipped(tmp_path / "ana.zip", **{"tensor.py": "a"})
    with pytest.raises(Unreadable, match="rename one"):
        find(tmp_path)
