"""miniImageNet: 100 classes of ImageNet with 600 images each."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from metalearn._checks import check_choice, check_path, invalid, message
from metalearn.data._cache import CACHE_FOLDER, read_files
from metalearn.data._class_images import ClassImages
from metalearn.data._decoding import Decoding
from metalearn.data._pickles import as_array, read_pickle
from metalearn.data._splits import SPLITS, Split

NUM_CLASSES = {"train": 64, "val": 16, "test": 20}
NUM_IMAGES = 600
SIZE = 84

CSV = "have the columns filename and label"
CACHE = "be a pickle of {'image_data': uint8 [n, 84, 84, 3], 'class_dict': {class: indices}}"


def mini_imagenet(
    root: str | Path, split: Split, *, size: int | tuple[int, int] = SIZE
) -> ClassImages:
    """Read miniImageNet in the split of Ravi and Larochelle: 64, 16 and 20 classes of 600 images.

    ImageNet's terms forbid redistribution, so the root must hold one of these:

    - Ravi and Larochelle's `{split}.csv`, with the columns filename and label, and the images as
      `images/{filename}` or `images/{label}/{filename}`. They are resized (Lanczos; the aspect
      ratio is not kept) and cached in the root's folder `metalearn-cache`, if that is writable;
      later calls memory-map them.
    - `mini-imagenet-cache-{split}.pkl`, 84x84 images in a pickle. It is read without executing any
      code in it.

    Args:
        root: The folder.
        split: "train", "val" or "test".
        size: (height, width) in pixels, or one number for both; 84 for a pickle.

    Returns:
        Classes with names such as "n01532829", in the order of the file.

    Raises:
        FileNotFoundError: If the root holds neither, or an image that the csv names is missing.
        TypeError: If `size` does not hold ints.
        ValueError: If a file is damaged or holds anything else, a class does not have 600 images,
            or an argument is not one of its choices.

    References:
        Vinyals, Blundell, Lillicrap, Kavukcuoglu and Wierstra, "Matching networks for one shot
        learning", NeurIPS 2016. Ravi and Larochelle, "Optimization as a model for few-shot
        learning", ICLR 2017.
    """
    check_path("root", root)
    check_choice("split", split, SPLITS)
    decoding, root = Decoding(size), Path(root)
    table, pickled = root / f"{split}.csv", root / f"mini-imagenet-cache-{split}.pkl"
    if table.is_file():
        files = _listed(table, root / "images")
        _check_complete(table, split, {name: len(files[name]) for name in files})
        flat = read_files(files, decoding, root / CACHE_FOLDER, f"mini-imagenet-{split}")
        return ClassImages._from_flat(flat)
    if pickled.is_file():
        return _unpickled(pickled, split, decoding)
    condition = f"hold {table.name} and a folder images, or {pickled.name}"
    fix = "Put Ravi and Larochelle's csv files there, with the images that they name in images/."
    raise FileNotFoundError(message("root", condition, f"no such file in {root}", fix))


def _listed(table: Path, images: Path) -> dict[str, list[Path]]:
    """Return the image files of each class in a csv file."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows, columns = list(reader), reader.fieldnames or []
    except (UnicodeDecodeError, csv.Error) as error:
        raise invalid(str(table), "be a csv file", error, "Download it again.") from error
    if not {"filename", "label"} <= set(columns):
        raise invalid(str(table), CSV, f"the columns {columns}")
    files: dict[str, list[Path]] = {}
    for row in rows:
        name, label = row["filename"], row["label"]
        if not (name and label):
            raise invalid(str(table), "have a filename and a label in each row", row)
        places = (images / name, images / label / name)
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            fix = f"Put it there, or into {images / label}."
            text = message(str(images), f"hold every image of {table.name}", f"no file {name}", fix)
            raise FileNotFoundError(text)
        files.setdefault(label, []).append(found)
    return files


def _unpickled(file: Path, split: str, decoding: Decoding) -> ClassImages:
    if decoding.image_shape != (3, SIZE, SIZE):
        fix = f"Pass size={SIZE}, or a root with the images and {split}.csv."
        raise invalid("size", f"be {SIZE} for {file.name}", decoding.size, fix)
    images, classes = _checked(file, read_pickle(file, CACHE))
    _check_complete(file, split, {name: len(classes[name]) for name in classes})
    return ClassImages([images[classes[name]] for name in classes], list(classes), layout="HWC")


def _checked(file: Path, content: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return a pickle's images and the indices of each class."""
    try:
        images, classes = content["image_data"], content["class_dict"]
        indices = {str(name): np.ravel(as_array(classes[name])) for name in classes}
        dtype, shape = images.dtype, images.shape
    except Exception as error:  # a pickle may hold anything
        raise invalid(str(file), CACHE, f"{type(error).__name__}: {error}") from error
    if dtype != np.uint8 or shape[1:] != (SIZE, SIZE, 3):
        raise invalid(str(file), CACHE, f"images of {dtype} and shape {shape}")
    for index in indices.values():
        if index.dtype.kind not in "iu" or not np.isin(index, range(len(images))).all():
            raise invalid(str(file), CACHE, f"an index that is not one of {len(images)} images")
    return images, indices


def _check_complete(file: Path, split: str, num_images: dict[str, int]) -> None:
    if len(num_images) != NUM_CLASSES[split]:
        condition = f"have {NUM_CLASSES[split]} classes for split {split!r}"
        raise invalid(str(file), condition, len(num_images), "Download it again.")
    for name, number in num_images.items():
        if number != NUM_IMAGES:
            condition = f"have {NUM_IMAGES} images of class {name!r}"
            raise invalid(str(file), condition, number, "Download it again.")
