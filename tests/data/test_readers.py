"""Reading `ClassImages` from archives and folders."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metalearn.data import ClassImages

NUMBERS = np.random.default_rng(0)


def random_image(*shape):
    return NUMBERS.integers(256, size=shape, dtype=np.uint8)


def write_npz(path, **changes):
    arrays = {
        "images": random_image(4, 2, 6, 5),
        "class_names": np.array(["a", "b", "c", "d"]),
        "split": np.array(["train", "val", "train", "test"]),
    }
    arrays = {name: array for name, array in (arrays | changes).items() if array is not None}
    np.savez_compressed(path, **arrays)
    return arrays


# Archives


def test_npz_without_a_split_reads_all_classes(tmp_path):
    arrays = write_npz(tmp_path / "a.npz", split=None)
    classes = ClassImages.from_npz(str(tmp_path / "a.npz"))
    assert classes.class_names == ("a", "b", "c", "d")
    assert np.array_equal(classes.pixels, arrays["images"].reshape(8, 1, 6, 5))


def test_npz_with_a_split_reads_its_classes(tmp_path):
    arrays = write_npz(tmp_path / "a.npz")
    classes = ClassImages.from_npz(tmp_path / "a.npz", split="train")
    assert classes.class_names == ("a", "c")
    assert np.array_equal(classes.of_class("c"), arrays["images"][2][:, None])


def test_npz_that_is_missing(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"\.npz file of images.*no file .*a\.npz.*savez_compressed\("
    ):
        ClassImages.from_npz(tmp_path / "a.npz")


def test_npz_with_an_unknown_split(tmp_path):
    write_npz(tmp_path / "a.npz")
    with pytest.raises(
        ValueError, match=r"a\.npz must be one of \['test', 'train', 'val'\].*mean 'train'"
    ):
        ClassImages.from_npz(tmp_path / "a.npz", split="trian")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "images is not a file in the archive"),
        ({"class_names": None}, "class_names is not a file in the archive"),
        ({"split": None}, "split is not a file in the archive"),
        (
            {"images": np.zeros((4, 2, 6, 5))},
            "images must be a tensor or array of uint8; got float64",
        ),
        ({"images": np.zeros((4, 6, 5), np.uint8)}, r"images must be \[classes, per_class"),
        (
            {"class_names": np.array(["a", "b"])},
            r"have one entry a class; got \(4,\), \(2,\), \(4,\)",
        ),
        ({"split": np.array(["train"])}, r"have one entry a class; got \(4,\), \(4,\), \(1,\)"),
        ({"class_names": np.array(["a", "a", "a", "a"])}, "class_names must be distinct"),
        ({"class_names": np.array([{}] * 4)}, "allow_pickle=False"),
    ],
)
def test_npz_with_wrong_contents_is_named(tmp_path, changes, message):
    write_npz(tmp_path / "a.npz", **changes)
    with pytest.raises(ValueError, match=message) as caught:
        ClassImages.from_npz(tmp_path / "a.npz", split="train")
    assert str(tmp_path / "a.npz") in str(caught.value)


def test_npz_that_is_damaged_is_named(tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path)
    whole = path.read_bytes()
    for damaged in (
        b"",
        b"no archive",
        whole[:100],
        whole[: len(whole) // 2] + whole[len(whole) // 2 + 9 :],
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.npz must be an \.npz file of images"):
            ClassImages.from_npz(path)


@pytest.mark.parametrize(("offset", "value"), [(8, 1), (10, 99)], ids=["encrypted", "compression"])
def test_npz_with_a_damaged_directory_is_named(tmp_path, offset, value):
    # zipfile raises RuntimeError and NotImplementedError for these fields of the central directory.
    path = tmp_path / "a.npz"
    write_npz(path)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"PK\x01\x02") + offset] = value
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"a\.npz must be an \.npz file of images"):
        ClassImages.from_npz(path)


def test_an_array_is_no_archive(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.zeros((4, 2, 6, 5), np.uint8))
    with pytest.raises(ValueError, match=r"a\.npz must be an \.npz file of images"):
        ClassImages.from_npz(tmp_path / "a.npz")


@pytest.mark.skipif(
    "METALEARN_DATA" not in os.environ, reason="needs METALEARN_DATA, a folder of archives"
)
@pytest.mark.parametrize(
    ("file", "split", "num_classes", "shape"),
    [
        ("omniglot.npz", "test", 423, (1, 28, 28)),
        ("cifar_fs_train_val.npz", "val", 16, (3, 32, 32)),
    ],
)
def test_real_archives(file, split, num_classes, shape):
    path = Path(os.environ["METALEARN_DATA"]) / file
    if not path.exists():
        pytest.skip(f"no {file}")
    classes = ClassImages.from_npz(path, split)
    assert len(classes) == num_classes
    assert classes.image_shape == shape


# Folders


@pytest.fixture
def folder(tmp_path):
    for name, grey in (("dog", 200), ("cat", 100)):
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.new("RGB", (10, 8), (grey, grey, index)).save(tmp_path / name / f"{index}.png")
    return tmp_path


def test_folder_is_sorted_decoded_and_resized(folder):
    classes = ClassImages.from_folder(folder, (6, 5))
    assert classes.class_names == ("cat", "dog")
    assert classes.num_images == (3, 3)
    assert classes.image_shape == (3, 6, 5)
    assert (classes.of_class("cat")[:, :2] == 100).all()
    assert classes.of_class("dog")[:, 2, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 4)])
def test_folder_modes(folder, mode, channels):
    assert ClassImages.from_folder(folder, 4, mode).image_shape == (channels, 4, 4)


def test_folder_ignores_what_is_no_image(folder):
    (folder / "README.md").write_text("x")
    (folder / "dog" / "labels.txt").write_text("x")
    (folder / "dog" / ".hidden.png").write_text("x")
    (folder / ".cache").mkdir()
    assert ClassImages.from_folder(folder, 4).num_images == (3, 3)


def test_folder_takes_extensions_in_capitals(folder):
    (folder / "dog" / "0.png").rename(folder / "dog" / "0.PNG")
    assert ClassImages.from_folder(folder, 4).num_images == (3, 3)


@pytest.mark.parametrize(
    "damage", [lambda whole: b"", lambda whole: b"no image", lambda whole: whole[:200]]
)
@pytest.mark.parametrize("extension", ["png", "jpg", "gif"])
def test_a_damaged_image_is_named(folder, damage, extension):
    file = folder / "dog" / f"5.{extension}"
    Image.fromarray(random_image(30, 30, 3)).save(file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(
        ValueError, match=rf"dog.5\.{extension} must be a readable image; got .*Replace"
    ):
        ClassImages.from_folder(folder, 4)


def test_images_of_16_bits_are_refused_rather_than_clipped(folder):
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(folder / "dog" / "1.png")
    with pytest.raises(
        ValueError, match=r"dog.1\.png must have 8 bits a channel; got mode 'I(;16)?'"
    ):
        ClassImages.from_folder(folder, 4)


def test_folders_that_are_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no folder .*absent\. Arrange the images as path/class/"
    ):
        ClassImages.from_folder(tmp_path / "absent", 4)
    with pytest.raises(ValueError, match="be a folder with one sub-folder a class; got none"):
        ClassImages.from_folder(tmp_path, 4)
    (tmp_path / "dog").mkdir()
    with pytest.raises(ValueError, match=r"dog must hold images \(\.bmp, .*\); got none"):
        ClassImages.from_folder(tmp_path, 4)
    with pytest.raises(ValueError, match=r"mode must be one of .*; got 'RGBX'\. Did you mean 'RGB"):
        ClassImages.from_folder(tmp_path, 4, mode="RGBX")
