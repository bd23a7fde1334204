from collections import Counter

import pytest
from PIL import Image

from metalearn.data import _cub, cub
from metalearn.data._cub import split_of


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A small CUB: twenty classes of one image."""
    for number in range(1, 21):
        folder = tmp_path / "CUB_200_2011" / "images" / f"{number:03}.Bird"
        folder.mkdir(parents=True)
        Image.new("RGB", (9, 7), (number, 0, 0)).save(folder / "bird.png")
    monkeypatch.setattr(_cub, "NUM_CLASSES", 20)
    monkeypatch.setattr(_cub, "NUM_IMAGES", 20)
    return tmp_path


def test_two_hundred_classes_are_split_by_70_15_and_15_percent():
    assert Counter(map(split_of, range(200))) == {"train": 140, "val": 30, "test": 30}


def test_classes_of_each_split(root):
    splits = {split: cub(str(root), split, size=4) for split in ("train", "val", "test")}
    assert splits["val"].class_names == ("003.Bird", "009.Bird", "015.Bird")
    assert splits["test"].class_names == ("006.Bird", "012.Bird", "018.Bird")
    assert len(splits["train"]) == 14
    assert splits["test"].pixels[:, 0, 0, 0].tolist() == [6, 12, 18]
    assert splits["val"].image_shape == (3, 4, 4)
    assert len(list((root / "metalearn-cache").glob("cub-*-4x4-RGB-lanczos.npy"))) == 3


def test_places_that_are_refused(root, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no folder .*images\. Unpack CUB_200_2011\.tgz of https"
    ):
        cub(tmp_path / "absent", "val")
    with pytest.raises(ValueError, match="split must be one of"):
        cub(root, "dev")
    (root / "CUB_200_2011" / "images" / "007.Bird" / "bird.png").rename(root / "bird.png")
    with pytest.raises(ValueError, match=r"007\.Bird must hold images"):
        cub(root, "val")
    (root / "CUB_200_2011" / "images" / "007.Bird").rmdir()
    with pytest.raises(
        ValueError,
        match=r"CUB_200_2011 must hold 20 classes with 20 images; got 19 with 19\. Unpack",
    ):
        cub(root, "val")
