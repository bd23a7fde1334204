import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from metalearn.data import _mini_imagenet, mini_imagenet
from metalearn.data._decoding import Decoding

NAMES = ["n02", "n01", "n03"]
PIXELS = np.random.default_rng(0).integers(256, size=(9, 84, 84, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(_mini_imagenet, "NUM_CLASSES", {"train": 3, "val": 1, "test": 1})
    monkeypatch.setattr(_mini_imagenet, "NUM_IMAGES", 3)


def listed(root, in_classes):
    """Write a csv of three classes, whose images are interleaved, and their images."""
    lines = ["filename,label"]
    for index, pixels in enumerate(PIXELS):
        name, label = f"image{index}.png", NAMES[index % 3]
        lines.append(f"{name},{label}")
        folder = root / "images" / label if in_classes else root / "images"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    (root / "train.csv").write_text("\n".join(lines) + "\n")


def pickled(root, **changes):
    content = {
        "image_data": PIXELS,
        "class_dict": {name: [k, k + 3, k + 6] for k, name in enumerate(NAMES)},
    }
    content = {key: value for key, value in (content | changes).items() if value is not None}
    (root / "mini-imagenet-cache-train.pkl").write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize(
    "write", [lambda root: listed(root, False), lambda root: listed(root, True), pickled]
)
def test_every_form_gives_the_same_images(tmp_path, write):
    write(tmp_path)
    images = mini_imagenet(str(tmp_path), "train")
    assert list(images.class_names) == NAMES
    assert images.num_images == (3, 3, 3)
    for k, name in enumerate(NAMES):
        assert np.array_equal(images.of_class(name), PIXELS[k::3].transpose(0, 3, 1, 2))


def test_listed_images_are_resized_and_cached(tmp_path, monkeypatch):
    listed(tmp_path, False)
    first = mini_imagenet(tmp_path, "train", size=(8, 6))
    assert first.image_shape == (3, 8, 6)
    monkeypatch.setattr(Decoding, "decode", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(mini_imagenet(tmp_path, "train", size=(8, 6)).pixels, first.pixels)


def test_an_image_that_is_missing_is_named(tmp_path):
    listed(tmp_path, False)
    (tmp_path / "images" / "image4.png").unlink()
    message = (
        r"images must hold every image of train\.csv; got no file image4\.png\. Put it there, or "
        r"into .*n01\."
    )
    with pytest.raises(FileNotFoundError, match=message):
        mini_imagenet(tmp_path, "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: table[: table.rindex("image8")],
            r"have 3 images of class 'n03'; got 2\. Download",
        ),
        (lambda table: table.replace("n03", "n02"), "have 3 classes for split 'train'; got 2"),
        (
            lambda table: table.replace("label", "class"),
            r"the columns filename and label; got the columns \['file",
        ),
        (lambda table: "", r"the columns filename and label; got the columns \[\]"),
        (
            lambda table: table.replace("image3.png,n02", "image3.png"),
            "a filename and a label in each row; got {'file",
        ),
    ],
)
def test_csv_files_that_are_refused(tmp_path, change, message):
    listed(tmp_path, False)
    (tmp_path / "train.csv").write_text(change((tmp_path / "train.csv").read_text()))
    with pytest.raises(
        ValueError, match=rf"train\.csv must {message}|train\.csv must have {message}"
    ):
        mini_imagenet(tmp_path, "train")


def test_a_csv_that_is_no_text_is_named(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match=r"train\.csv must be a csv file; got "):
        mini_imagenet(tmp_path, "train")


class Payload:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_data": None}, "got KeyError: 'image_data'"),
        ({"image_data": PIXELS.tolist()}, "got AttributeError"),
        ({"image_data": PIXELS.astype(float)}, r"got images of float64 and shape \(9, 84, 84, 3\)"),
        ({"image_data": PIXELS[:, :9]}, r"got images of uint8 and shape \(9, 9, 84, 3\)"),
        ({"class_dict": [1, 2]}, "got IndexError"),
        ({"class_dict": {"a": [0, 1, 9]}}, "got an index that is not one of 9 images"),
        ({"class_dict": {"a": [0, 1, -1]}}, "got an index that is not one of 9 images"),
        ({"class_dict": {"a": ["x"]}}, "got TypeError: list of other things than integers"),
        ({"class_dict": {"a": [0, 1, 2]}}, "have 3 classes for split 'train'; got 1"),
        ({"class_dict": {"a": [0], "b": [1], "c": [2]}}, "have 3 images of class 'a'; got 1"),
        ({"image_data": np.array([{}] * 9)}, "got an array of dtype object"),
    ],
)
def test_pickles_that_are_refused(tmp_path, changes, message):
    pickled(tmp_path, **changes)
    with pytest.raises(ValueError, match=rf"mini-imagenet-cache-train\.pkl must .*{message}"):
        mini_imagenet(tmp_path, "train")


def test_code_in_a_pickle_does_not_run(tmp_path):
    pickled(tmp_path, image_data=Payload(f"touch {tmp_path / 'ran'}"))
    with pytest.raises(ValueError, match=r"got the global \w+\.system\. Nothing in it was run"):
        mini_imagenet(tmp_path, "train")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"split": "dev"}, ValueError, r"split must be one of \['train', 'val', 'test'\]"),
        (
            {"split": "val"},
            FileNotFoundError,
            r"root must hold val\.csv and a folder images, or mini-.*-val\.pkl; got",
        ),
        ({"split": "train", "size": "84"}, TypeError, "size must be an int or a pair"),
        (
            {"split": "train", "size": 32},
            ValueError,
            r"size must be 84 for mini-imagenet-cache-train\.pkl; got \(32, 3",
        ),
    ],
)
def test_arguments_that_are_refused(tmp_path, arguments, error, message):
    pickled(tmp_path)
    with pytest.raises(error, match=message):
        mini_imagenet(tmp_path, **arguments)
