"""tieredImageNet: 608 classes of ImageNet in splits that share no broader category."""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from metalearn._checks import check_choice, check_path, invalid, message
from metalearn.data._cache import CACHE_FOLDER, Classes, cached, read_files, stamp_of
from metalearn.data._class_images import ClassImages
from metalearn.data._decoding import Decoding, class_files, decode_classes
from metalearn.data._pickles import as_array, read_pickle
from metalearn.data._splits import SPLITS, Split

NUM_CLASSES = {"train": 351, "val": 97, "test": 160}

IMAGES = "be a pickle of a list of PNG files, each a uint8 array"
LABELS = (
    "be a pickle of {'label_specific': int [n], 'label_specific_str': names}, with one label an "
    "image"
)


def tiered_imagenet(
    root: str | Path, split: Split, *, size: int | tuple[int, int] = 84
) -> ClassImages:
    """Read tieredImageNet: 351, 97 and 160 classes of about 1,280 images.

    ImageNet's terms forbid redistribution, so the root must hold one of these:

    - a folder `{split}` with one subfolder of images per class;
    - Ren et al.'s `{split}_images_png.pkl` and `{split}_labels.pkl`. They are read without
      executing any code in them; the first call loads the whole image pickle into memory.

    Images are decoded once, resized (Lanczos; the aspect ratio is not kept) and cached in the
    root's folder `metalearn-cache`, about 9 GB for "train", which later calls memory-map. If the
    root is read-only, every call decodes them into memory.

    Args:
        root: The folder.
        split: "train", "val" or "test".
        size: (height, width) in pixels, or one number for both.

    Returns:
        Classes named after their folders, sorted; or with Ren et al.'s names, in their order, where
        a name of several classes is followed by the label, such as "crane (12)".

    Raises:
        FileNotFoundError: If the root holds neither.
        TypeError: If `size` does not hold ints.
        ValueError: If a file is damaged or holds anything else, the number of classes is wrong, or
            an argument is not one of its choices.

    References:
        Ren, Triantafillou, Ravi, Snell, Swersky, Tenenbaum, Larochelle and Zemel, "Meta-learning
        for semi-supervised few-shot classification", ICLR 2018.
    """
    check_path("root", root)
    check_choice("split", split, SPLITS)
    decoding, root = Decoding(size), Path(root)
    name = f"tiered-imagenet-{split}"
    if (root / split).is_dir():
        files = class_files(root / split, "Arrange the images as root/split/class/image.jpg.")
        _check_complete(root / split, split, len(files))
        return ClassImages._from_flat(read_files(files, decoding, root / CACHE_FOLDER, name))
    images, labels = root / f"{split}_images_png.pkl", root / f"{split}_labels.pkl"
    if not (images.is_file() and labels.is_file()):
        condition = f"hold a folder {split}, or {images.name} and {labels.name}"
        fix = f"Arrange the images as {root / split}/class/image.jpg."
        raise FileNotFoundError(message("root", condition, f"no such files in {root}", fix))
    decoded = partial(_pickled, images, labels, split, decoding)
    source = [stamp_of(images), stamp_of(labels)]
    flat = cached(root / CACHE_FOLDER, f"{name}-pkl-{decoding}", source, decoded)
    return ClassImages._from_flat(flat)


def _pickled(images: Path, labels: Path, split: str, decoding: Decoding) -> Classes:
    """Start decoding Ren et al.'s pickles."""
    names, label_of = _checked_labels(labels, read_pickle(labels, LABELS))
    _check_complete(labels, split, len(names))
    encoded = read_pickle(images, IMAGES)
    is_list = isinstance(encoded, list)
    if not (is_list and all(getattr(png, "dtype", None) == np.uint8 for png in encoded)):
        raise invalid(str(images), IMAGES, type(encoded))
    if len(encoded) != len(label_of):
        condition = f"hold {len(label_of)} images as {labels.name} says"
        raise invalid(str(images), condition, len(encoded))
    members = [np.flatnonzero(label_of == label) for label in range(len(names))]
    num_images = {name: len(of_class) for name, of_class in zip(names, members, strict=True)}
    if 0 in num_images.values():
        empty = next(name for name in names if not num_images[name])
        raise invalid(str(labels), "have an image of each class", f"none of {empty!r}")

    def decode(index: int) -> np.ndarray:
        return decoding.decode(f"image {index} of {images}", bytes(encoded[index]))

    blocks = decode_classes(decode, [of_class.tolist() for of_class in members])
    return Classes(num_images, decoding.image_shape, blocks)


def _checked_labels(file: Path, content: Any) -> tuple[list[str], np.ndarray]:
    """Return a distinct name for each class, and the label of each image."""
    try:
        labels = as_array(content["label_specific"])
        names = [_name(name) for name in content["label_specific_str"]]
    except Exception as error:  # a pickle may hold anything
        raise invalid(str(file), LABELS, f"{type(error).__name__}: {error}") from error
    are_ints = labels.dtype.kind in "iu" and labels.ndim == 1
    if not (are_ints and np.isin(labels, range(len(names))).all()):
        got = f"labels of {labels.dtype} and shape {labels.shape} for {len(names)} names"
        raise invalid(str(file), LABELS, got)
    repeated = {name for name, number in Counter(names).items() if number > 1}
    names = [f"{name} ({i})" if name in repeated else name for i, name in enumerate(names)]
    return names, labels


def _name(name: Any) -> str:
    # no containers, whose text could be arbitrarily long
    if not isinstance(name, str):
        raise TypeError(f"{type(name).__name__} in place of a name")
    return str(name)


def _check_complete(place: Path, split: str, num_classes: int) -> None:
    if num_classes != NUM_CLASSES[split]:
        condition = f"hold {NUM_CLASSES[split]} classes"
        fix = f"Read other classes with ClassImages.from_folder({str(place)!r}, 84, cache='cache')."
        raise invalid(str(place), condition, num_classes, fix if place.is_dir() else "")
