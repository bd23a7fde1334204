"""Omniglot with the split and the rotations of the few-shot papers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torchvision
from PIL import Image

from metalearn._checks import check_choice, invalid
from metalearn.data._class_images import ClassImages
from metalearn.data._readers import decode, image_files

VALIDATION_ALPHABETS = frozenset({"Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)"})
FIRST_TEST_CHARACTER = "Gurmukhi/character42"
SIZE = 28


def omniglot(
    root: str | Path, split: str, *, download: bool = False, angles: Sequence[int] | None = None
) -> ClassImages:
    """Return Omniglot's characters as classes of 20 images 28x28, ink 255 on 0, in Vinyals' split.

    Args:
        root: Folder that holds, or shall hold, `omniglot-py/`, as for `torchvision.datasets.Omniglot`.
        split: "train", "val" or "test": 1,028, 172 and 423 characters.
        download: Whether to download what is missing.
        angles: Rotations that become classes of their own, in degrees. By default the four of MAML for "train", and
            none for "val" and "test".

    Raises:
        FileNotFoundError: If the images are not there and `download` is false.
        ValueError: If there is no such split, or an image is damaged.

    References:
        Lake et al., "Human-level concept learning through probabilistic program induction", Science 2015.
        Vinyals et al., "Matching networks for one shot learning", NeurIPS 2016 (split).
        Finn et al., "Model-agnostic meta-learning for fast adaptation of deep networks", ICML 2017 (rotations).
    """
    check_choice("split", split, ["train", "val", "test"])
    characters = {}
    for background in (True, False):
        try:
            dataset = torchvision.datasets.Omniglot(str(root), background=background, download=download)
        except RuntimeError as error:
            fix = f"Write omniglot({str(root)!r}, {split!r}, download=True)."
            raise FileNotFoundError(invalid("root", "hold omniglot-py/", f"{root} without it", fix)) from error
        folder = Path(dataset.target_folder)
        for character in sorted(path for path in folder.glob("*/*") if path.is_dir()):
            name = f"{character.parent.name}/{character.name}"
            if split_of(name, background) == split:
                characters[name] = _images(character)
    if angles is None:
        angles = (0, 90, 180, 270) if split == "train" else (0,)
    return ClassImages(list(characters.values()), list(characters), layout="HW").rotated(angles)


def split_of(name: str, background: bool) -> str:
    """Return the split of a character "Alphabet/characterNN" of the background or the evaluation set.

    >>> split_of("Greek/character01", background=True), split_of("Tibetan/character01", background=False)
    ('train', 'test')
    """
    if background:
        return "val" if name.split("/")[0] in VALIDATION_ALPHABETS else "train"
    return "train" if name < FIRST_TEST_CHARACTER else "test"


def _images(character: Path) -> np.ndarray:
    drawings = [decode(file, (SIZE, SIZE), "L", Image.Resampling.LANCZOS) for file in image_files(character)]
    return 255 - np.stack(drawings)
