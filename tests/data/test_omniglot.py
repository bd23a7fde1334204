import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metalearn.data import _omniglot, omniglot
from metalearn.data._decoding import Decoding
from metalearn.data._omniglot import split_of

CHARACTERS = {
    "images_background": ["Armenian/character01", "Greek/character01", "Greek/character02"],
    "images_evaluation": ["Avesta/character01", "Gurmukhi/character41", "Gurmukhi/character42"],
}
SPLITS = {
    "train": (
        "Greek/character01",
        "Greek/character02",
        "Avesta/character01",
        "Gurmukhi/character41",
    ),
    "val": ("Armenian/character01",),
    "test": ("Gurmukhi/character42",),
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A small Omniglot: six characters, drawn twice, as black strokes on white with one bit a
    pixel."""
    for subset, names in CHARACTERS.items():
        for name in names:
            folder = tmp_path / "omniglot-py" / subset / name
            folder.mkdir(parents=True)
            for drawing in range(2):
                paper = np.ones((105, 105), bool)
                paper[:, 10 : 30 + 10 * drawing] = False
                Image.fromarray(paper).save(folder / f"{drawing}.png")
    monkeypatch.setattr(_omniglot, "NUM_DRAWINGS", 2)
    monkeypatch.setattr(
        _omniglot, "NUM_CHARACTERS", {split: len(names) for split, names in SPLITS.items()}
    )
    return tmp_path


@pytest.mark.parametrize("split", SPLITS)
def test_characters_of_each_split(root, split):
    classes = omniglot(root, split, angles=(0,))
    assert classes.class_names == SPLITS[split]
    assert set(classes.num_images) == {2}
    assert classes.image_shape == (1, 28, 28)


def test_only_training_characters_are_rotated_by_default(root):
    assert len(omniglot(root, "train")) == 4 * len(SPLITS["train"])
    assert omniglot(root, "val").class_names == SPLITS["val"]
    assert omniglot(root, "test").class_names == SPLITS["test"]
    rotated = omniglot(root, "test", angles=(0, 90))
    assert rotated.class_names == ("Gurmukhi/character42", "Gurmukhi/character42/rot90")


def test_ink_is_white(root):
    first, second = omniglot(str(root), "test").pixels[:, 0]
    columns = 105 * (np.arange(28) + 0.5) / 28
    for image, end in ((first, 30), (second, 40)):
        ink = torch.from_numpy((columns >= 10) & (columns < end))
        assert torch.equal(image, 255 * ink.to(torch.uint8).expand(28, 28))


def test_lanczos_gives_shades_of_grey(root):
    assert len(omniglot(root, "test").pixels.unique()) == 2
    smooth = omniglot(root, "test", resample="lanczos").pixels
    assert len(smooth.unique()) > 2
    assert abs(smooth[0].float().mean() / 255 - 20 / 105) < 0.01


def test_a_root_without_omniglot(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no folder .*omniglot-py.images_background\. Pass download=True"
    ):
        omniglot(tmp_path, "train")


def test_an_incomplete_omniglot_is_refused(root):
    (root / "omniglot-py/images_background/Greek/character02/1.png").unlink()
    with pytest.raises(
        ValueError, match=r"hold 8 drawings for split 'train'; got 7\. Delete its folder"
    ):
        omniglot(root, "train")


def test_a_damaged_image_is_named(root):
    (root / "omniglot-py/images_background/Greek/character02/1.png").write_text("damaged")
    with pytest.raises(ValueError, match=r"Greek.character02.1\.png must be a readable image"):
        omniglot(root, "train")


def test_the_second_reading_decodes_nothing(root, monkeypatch):
    first = omniglot(root, "test")
    assert list((root / "metalearn-cache").glob("omniglot-test-*.npy"))
    monkeypatch.setattr(Decoding, "decode", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(omniglot(root, "test").pixels, first.pixels)


def test_a_root_that_cannot_be_written_is_read_without_a_cache(root, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert omniglot(root, "test").class_names == SPLITS["test"]
    assert not (root / "metalearn-cache").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"split": "tests"},
            r"split must be one of \['train', 'val', 'test'\]; got 'tests'\. Did you mean 'test'",
        ),
        (
            {"split": "test", "resample": "bilinear"},
            r"resample must be one of \['nearest', 'lanczos'\]",
        ),
        ({"split": "test", "angles": (45,)}, "angles must be distinct multiples of 90"),
    ],
)
def test_arguments_that_are_refused(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        omniglot(root, **arguments)


def test_download_goes_through_torchvision(root, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "torchvision.datasets.Omniglot", lambda *args, **options: calls.append((args, options))
    )
    omniglot(root, "val", download=True)
    assert calls == [
        ((root,), {"background": subset, "download": True}) for subset in (True, False)
    ]


@pytest.mark.skipif(
    "METALEARN_DATA" not in os.environ, reason="needs METALEARN_DATA, a folder of archives"
)
def test_the_split_is_that_of_vinyals():
    path = Path(os.environ["METALEARN_DATA"]) / "omniglot.npz"
    if not path.exists():
        pytest.skip("no omniglot.npz")
    with np.load(path) as archive:
        names, splits, background = (
            archive[key].tolist() for key in ("class_names", "split", "background")
        )
    assert [split_of(*character) for character in zip(names, background, strict=True)] == splits
    assert Counter(splits) == _omniglot.NUM_CHARACTERS
