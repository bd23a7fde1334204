"""What is written to a file replaces it as a whole or not at all."""

import pytest

from metalearn._files import whole_file


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
