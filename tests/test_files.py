"""What is written to a file replaces it as a whole or not at all."""

import os

import pytest

from metalearn._files import check_writable, whole_file


def test_writes_a_file_and_its_folder(tmp_path):
    with whole_file(tmp_path / "new" / "file.txt") as stream:
        stream.write(b"all of it")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["file.txt"]
    assert (tmp_path / "new" / "file.txt").read_bytes() == b"all of it"


def test_an_error_leaves_the_old_file(tmp_path):
    (tmp_path / "file.txt").write_bytes(b"old")
    with pytest.raises(TypeError), whole_file(tmp_path / "file.txt") as stream:
        stream.writelines([b"half", "no bytes"])
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]
    assert (tmp_path / "file.txt").read_bytes() == b"old"


def test_two_writers_at_a_time(tmp_path):
    with whole_file(tmp_path / "file") as first:
        first.write(b"first")
        with whole_file(tmp_path / "file") as second:
            second.write(b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "file").symlink_to(tmp_path / "disk" / "target")
    with whole_file(tmp_path / "file") as stream:
        stream.write(b"all of it")
    assert (tmp_path / "file").is_symlink()
    assert (tmp_path / "disk" / "target").read_bytes() == b"all of it"


def test_a_folder_that_cannot_be_written(tmp_path):
    check_writable("folder", tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="folder must be a folder that can be written; got .*file"):
        check_writable("folder", tmp_path / "file")


def test_what_killed_writers_leave_is_removed_once_it_is_old(tmp_path):
    for name in ("file.old.part", "file.new.part", "other.old.part"):
        (tmp_path / name).write_text("")
        if "old" in name:
            os.utime(tmp_path / name, (0, 0))
    with whole_file(tmp_path / "file") as stream:
        stream.write(b"all of it")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "file",
        "file.new.part",
        "other.old.part",
    ]
