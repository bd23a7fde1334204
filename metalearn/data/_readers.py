"""Read images, grouped by class, from an archive, a folder or a data set."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metalearn._checks import check_choice, check_count, invalid
from metalearn.data._layout import as_uint8, channels_first

IMAGE_EXTENSIONS = frozenset(".bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())
MODES = ("L", "RGB", "RGBA")


def read_npz(path: Path, split: str | None) -> tuple[np.ndarray, list[str]]:
    """Return the images `[classes, per_class, ...]` and class names of one split, or of all."""
    contents = "images (uint8 [classes, per_class, H, W] or [..., H, W, C]), class_names and split (one a class)"
    make = "numpy.savez_compressed(path, images=images, class_names=class_names, split=split)"
    if not path.is_file():
        raise FileNotFoundError(invalid("path", f"be an .npz file of {contents}", f"no file {path}", f"Make it with {make}."))
    keys = ("images", "class_names") if split is None else ("images", "class_names", "split")
    try:
        with np.load(path, allow_pickle=False) as archive:
            images, names, *splits = (archive[key] for key in keys)
    except (OSError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(invalid(str(path), f"be an .npz file of {contents}", error, f"Make it with {make}.")) from error
    names = names.astype(str)
    if split is None:
        return images, names.tolist()
    of_class = splits[0].astype(str)
    if not of_class.shape == names.shape == images.shape[:1]:
        got = f"{of_class.shape}, {names.shape} and {images.shape[:1]}"
        raise ValueError(invalid(f"split, class_names and images of {path}", "have one entry a class", got))
    check_choice(f"split of {path}", split, sorted(set(of_class.tolist())))
    chosen = of_class == split
    return images[chosen], names[chosen].tolist()


def read_folder(path: Path, size: tuple[int, int], mode: str) -> tuple[list[np.ndarray], list[str]]:
    """Return the images `[n, H, W(, C)]` of every sub-folder, sorted, and the sub-folders' names."""
    check_choice("mode", mode, MODES)
    if not path.is_dir():
        fix = "Arrange the images as path/class/image.png."
        raise FileNotFoundError(invalid("path", "be a folder with one sub-folder a class", f"no folder {path}", fix))
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and folder.name[0] != ".")
    if not folders:
        fix = "Arrange the images as path/class/image.png."
        raise ValueError(invalid(str(path), "have one sub-folder a class", "none", fix))
    images = []
    for folder in folders:
        files = image_files(folder)
        if not files:
            condition = f"hold images ({', '.join(sorted(IMAGE_EXTENSIONS))})"
            raise ValueError(invalid(str(folder), condition, "none", "Add some, or remove the folder."))
        images.append(np.stack([decode(file, size, mode) for file in files]))
    return images, [folder.name for folder in folders]


def image_files(folder: Path) -> list[Path]:
    """List the files that are images by their extension, sorted; hidden ones are left out."""
    files = (file for file in folder.iterdir() if file.suffix.lower() in IMAGE_EXTENSIONS)
    return sorted(file for file in files if file.name[0] != ".")


def decode(
    file: Path, size: tuple[int, int], mode: str, resample: Image.Resampling = Image.Resampling.LANCZOS
) -> np.ndarray:
    """Read one image as uint8 `[height, width]` or `[height, width, C]`."""
    height, width = size
    try:
        with Image.open(file) as image:
            image.load()
            depth = image.mode
            # Before the resize: Pillow silently ignores the filter for images of 1 bit and for palettes.
            pixels = np.asarray(image.convert(mode).resize((width, height), resample))
    except Exception as error:  # Pillow's decoders raise errors of many types for broken files.
        fix = "Replace the file or remove it."
        raise ValueError(invalid(str(file), "be a readable image", f"{type(error).__name__}: {error}", fix)) from error
    if depth[0] in "IF":
        fix = "Rescale it to 8 bits first: Pillow would clip it."
        raise ValueError(invalid(str(file), "have 8 bits a channel", f"mode {depth!r}", fix))
    return pixels


def read_dataset(dataset: Any) -> tuple[list[Tensor], list[str]]:
    """Return the images `[n, C, H, W]` of every label that occurs, in ascending order, and their names."""
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        fix = "Pass list(dataset) if it is an iterable of (image, label)."
        raise TypeError(invalid("dataset", "be map-style, with len(dataset) and dataset[i]", type(dataset), fix))
    images: dict[int, list[Tensor]] = {}
    for index in range(len(dataset)):
        image, label = _item(dataset, index)
        images.setdefault(label, []).append(image)
    labels = sorted(images)
    names = getattr(dataset, "classes", None)
    if names is None:
        return [torch.stack(images[label]) for label in labels], [str(label) for label in labels]
    if labels and not 0 <= labels[0] <= labels[-1] < len(names):
        got = f"labels {labels[0]} to {labels[-1]} for {len(names)} names"
        raise ValueError(invalid("dataset.classes", "name every label", got))
    return [torch.stack(images[label]) for label in labels], [str(names[label]) for label in labels]


def _item(dataset: Any, index: int) -> tuple[Tensor, int]:
    """Return one item as an image `[C, H, W]` and its label."""
    fix = "Each item is (image, label): a PIL image, a uint8 tensor or array, and an int."
    try:
        image, label = dataset[index]
        label = int(label)
    except (TypeError, ValueError) as error:
        raise TypeError(invalid(f"dataset[{index}]", "be a pair (image, label)", error, fix)) from error
    if isinstance(image, Image.Image):
        image = np.asarray(image if image.mode in MODES else image.convert("RGB"))
    return channels_first(as_uint8(f"dataset[{index}]'s image", image)[None], None)[0], label
