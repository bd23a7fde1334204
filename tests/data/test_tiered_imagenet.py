import os
import pickle
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from metalearn.data import _tiered_imagenet, tiered_imagenet
from metalearn.data._decoding import Decoding

PIXELS = np.random.default_rng(0).integers(256, size=(6, 84, 84, 3), dtype=np.uint8)
LABELS = np.array([1, 0, 2, 0, 1, 0], np.int32)
NAMES = ["crane", "fox, vulpes", "crane"]


def png(pixels):
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return np.frombuffer(stream.getvalue(), np.uint8)


def pickled(root, images=None, **changes):
    images = [png(pixels)[:, None] for pixels in PIXELS] if images is None else images
    labels = {
        "label_specific": LABELS,
        "label_specific_str": NAMES,
        "label_general": LABELS // 2,
    } | changes
    (root / "val_images_png.pkl").write_bytes(pickle.dumps(images, protocol=2))
    (root / "val_labels.pkl").write_bytes(pickle.dumps(labels, protocol=2))


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(_tiered_imagenet, "NUM_CLASSES", {"train": 2, "val": 3, "test": 1})


def test_folders(tmp_path):
    for index, name in enumerate(("n02", "n01", "n01")):
        (tmp_path / "train" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[index]).save(tmp_path / "train" / name / f"{index}.png")
    images = tiered_imagenet(str(tmp_path), "train")
    assert images.class_names == ("n01", "n02")
    assert np.array_equal(images.pixels, PIXELS[[1, 2, 0]].transpose(0, 3, 1, 2))
    assert tiered_imagenet(tmp_path, "train", size=(6, 5)).image_shape == (3, 6, 5)


def test_pickles(tmp_path):
    pickled(tmp_path)
    images = tiered_imagenet(tmp_path, "val")
    assert images.class_names == ("crane (0)", "fox, vulpes", "crane (2)")
    assert images.num_images == (3, 2, 1)
    assert np.array_equal(images.pixels, PIXELS[[1, 3, 5, 0, 4, 2]].transpose(0, 3, 1, 2))


def test_pickles_are_read_once(tmp_path, monkeypatch):
    pickled(tmp_path)
    first = tiered_imagenet(tmp_path, "val").pixels
    monkeypatch.setattr(_tiered_imagenet, "read_pickle", lambda *_: pytest.fail("read again"))
    monkeypatch.setattr(Decoding, "decode", lambda *_: pytest.fail("decoded again"))
    assert np.array_equal(tiered_imagenet(tmp_path, "val").pixels, first)


def test_changed_pickles_are_read_again(tmp_path):
    pickled(tmp_path)
    tiered_imagenet(tmp_path, "val")
    pickled(tmp_path, label_specific=LABELS[::-1].copy())
    assert tiered_imagenet(tmp_path, "val").num_images == (3, 2, 1)
    assert np.array_equal(tiered_imagenet(tmp_path, "val").pixels[0], PIXELS[0].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": {}},
            r"val_images_png\.pkl must be a pickle of a list of PNG files, .*got <class 'dict'>",
        ),
        (
            {"images": ["x"] * 6},
            r"val_images_png\.pkl must be a pickle of a list of PNG files, each a uint8 array",
        ),
        (
            {"images": [png(PIXELS[0])]},
            r"val_images_png\.pkl must hold 6 images as val_labels\.pkl says; got 1",
        ),
        (
            {"images": [np.zeros(9, np.uint8)] * 6},
            r"image 1 of .*val_images_png\.pkl must be a readable image",
        ),
        (
            {"label_specific": LABELS + 1},
            r"val_labels\.pkl must be .*got labels of int32 and shape \(6,\) for 3 names",
        ),
        ({"label_specific": None}, r"val_labels\.pkl must be .*got labels of object"),
        (
            {"label_specific": LABELS % 2},
            r"val_labels\.pkl must have an image of each class; got none of 'crane \(2\)'",
        ),
        ({"label_specific_str": 7}, r"val_labels\.pkl must be .*got TypeError"),
        ({"label_specific_str": ["a"] * 4}, r"val_labels\.pkl must hold 3 classes; got 4\."),
        ({"images": [np.array([{}])] * 6}, "got an array of dtype object"),
    ],
)
def test_pickles_that_are_refused(tmp_path, changes, message):
    pickled(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        tiered_imagenet(tmp_path, "val")


class Payload:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("where", ["images", "label_general"])
def test_code_in_a_pickle_does_not_run(tmp_path, where):
    pickled(tmp_path, **{where: [Payload(f"touch {tmp_path / 'ran'}")]})
    with pytest.raises(ValueError, match=r"got the global \w+\.system\. Nothing in it was run"):
        tiered_imagenet(tmp_path, "val")
    assert not (tmp_path / "ran").exists()


def test_places_that_are_refused(tmp_path):
    with pytest.raises(ValueError, match="split must be one of"):
        tiered_imagenet(tmp_path, "dev")
    with pytest.raises(
        FileNotFoundError,
        match=r"hold a folder test, or test_images_png\.pkl and test_labels\.pkl; got",
    ):
        tiered_imagenet(tmp_path, "test")
    (tmp_path / "train" / "n01").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"n01 must hold images .*got none"):
        tiered_imagenet(tmp_path, "train")
    Image.new("RGB", (3, 3)).save(tmp_path / "train" / "n01" / "a.png")
    with pytest.raises(
        ValueError,
        match=r"train must hold 2 classes; got 1\. Read other classes with .*from_folder\(",
    ):
        tiered_imagenet(tmp_path, "train")
