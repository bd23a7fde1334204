"""Read images, grouped by class, from an archive, a folder or a data set."""

import operator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metalearn._checks import check_choice, check_count, invalid
from metalearn.data._layout import Layout, as_uint8, channels_first

IMAGE_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MODES = ("L", "RGB", "RGBA")

NPZ = "be an .npz file of images, uint8 [classes, per_class, H, W(, C)], class_names and split, one a class"
MAKE_NPZ = "Make it with numpy.savez_compressed(path, images=images, class_names=class_names, split=split)."
ARRANGE = "Arrange the images as path/class/image.png."


def read_npz(path: Path, split: str | None) -> tuple[np.ndarray, list[str]]:
    """Return the images `[classes, per_class, ...]` and class names of one split, or of all."""
    if not path.is_file():
        raise FileNotFoundError(invalid("path", NPZ, f"no file {path}", MAKE_NPZ))
    keys = ("images", "class_names") if split is None else ("images", "class_names", "split")
    try:
        # Opened here, because numpy leaves the file of a damaged archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            images, names, *splits = (archive[key] for key in keys)
            names, *splits = (strings.astype(str) for strings in (names, *splits))
    except Exception as error:  # zipfile, zlib and NumPy raise errors of many types for damaged files.
        raise ValueError(invalid(str(path), NPZ, error, MAKE_NPZ)) from error
    if any(strings.shape != images.shape[:1] for strings in (names, *splits)):
        got = f"{images.shape[:1]}, {names.shape}" + "".join(f", {strings.shape}" for strings in splits)
        raise ValueError(invalid(f"{', '.join(keys)} of {path}", "have one entry a class", got, MAKE_NPZ))
    if split is None:
        return images, names.tolist()
    check_choice(f"split of {path}", split, sorted(set(splits[0].tolist())))
    chosen = splits[0] == split
    return images[chosen], names[chosen].tolist()


def read_folder(path: Path, size: int | tuple[int, int], mode: str) -> tuple[list[np.ndarray], list[str]]:
    """Return the images `[n, H, W(, C)]` of every sub-folder, sorted, and the sub-folders' names."""
    sides = _sides(size)
    if not isinstance(mode, str):
        raise TypeError(invalid("mode", "be a string", repr(mode), "Pass mode='RGB'."))
    check_choice("mode", mode, MODES)
    condition = "be a folder with one sub-folder a class"
    if not path.is_dir():
        raise FileNotFoundError(invalid("path", condition, f"no folder {path}", ARRANGE))
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and folder.name[0] != ".")
    if not folders:
        raise ValueError(invalid(str(path), condition, "none", ARRANGE))
    images = []
    for folder in folders:
        files = image_files(folder)
        if not files:
            condition = f"hold images ({', '.join(IMAGE_EXTENSIONS)})"
            raise ValueError(invalid(str(folder), condition, "none", "Add some, or remove the folder."))
        images.append(np.stack([decode(file, sides, mode) for file in files]))
    return images, [folder.name for folder in folders]


def _sides(size: Any) -> tuple[int, int]:
    """Return (height, width)."""
    sides = (size, size) if isinstance(size, int) else size
    fix = "Pass size=84 or size=(84, 84)."
    if not (isinstance(sides, tuple | list) and len(sides) == 2):
        raise TypeError(invalid("size", "be an int or a pair (height, width)", repr(size), fix))
    for side in sides:
        check_count("size", side, fix=fix)
    return sides[0], sides[1]


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
        got, fix = f"{type(error).__name__}: {error}", "Replace the file or remove it."
        raise ValueError(invalid(str(file), "be a readable image", got, fix)) from error
    if depth[0] in "IF":
        fix = "Rescale it to 8 bits first: Pillow would clip it."
        raise ValueError(invalid(str(file), "have 8 bits a channel", f"mode {depth!r}", fix))
    return pixels


def read_dataset(dataset: Any) -> tuple[list[Tensor], list[str]]:
    """Return the images `[n, C, H, W]` of every label that occurs, in ascending order, and their names."""
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        condition, fix = "have len(dataset) and dataset[i]", "Pass list(dataset) if it is an iterable."
        raise TypeError(invalid("dataset", condition, type(dataset), fix))
    by_label: dict[int, list[Tensor]] = {}
    shape = None
    for index in range(len(dataset)):
        image, label = _read_item(f"dataset[{index}]", dataset[index])
        shape = shape or image.shape
        if image.shape != shape:
            condition = f"have an image of shape {tuple(shape)} as dataset[0] does"
            fix = "Pass a dataset with transform=torchvision.transforms.Resize((height, width))."
            raise ValueError(invalid(f"dataset[{index}]", condition, tuple(image.shape), fix))
        by_label.setdefault(label, []).append(image)
    labels = sorted(by_label)
    return [torch.stack(by_label[label]) for label in labels], _names(dataset, labels)


def _read_item(what: str, item: Any) -> tuple[Tensor, int]:
    """Return the image `[C, H, W]` and the label of one item of a data set."""
    if not (isinstance(item, tuple | list) and len(item) == 2):
        raise TypeError(invalid(what, "be a pair (image, label)", type(item)))
    image, label = item
    try:
        label = operator.index(label)
    except TypeError as error:
        raise TypeError(invalid(what, "have an int as its label", repr(label))) from error
    if isinstance(image, Image.Image):
        if image.mode not in MODES:
            fix = "Pass a dataset with transform=lambda image: image.convert('RGB')."
            raise ValueError(invalid(f"{what}'s image", f"have a mode in {MODES}", repr(image.mode), fix))
        pixels = as_uint8(what, np.array(image))
        layout: Layout | None = "HW" if pixels.ndim == 2 else "HWC"
    else:
        pixels, layout = as_uint8(f"{what}'s image", image), None
    return channels_first(pixels.unsqueeze(0), layout).squeeze(0), label


def _names(dataset: Any, labels: list[int]) -> list[str]:
    names = getattr(dataset, "classes", None)
    if names is None:
        return [str(label) for label in labels]
    if labels and not 0 <= labels[0] <= labels[-1] < len(names):
        got = f"labels from {labels[0]} to {labels[-1]} and {len(names)} names"
        raise ValueError(invalid("dataset.classes", "name every label", got))
    return [str(names[label]) for label in labels]
