"""Read images, grouped by class, from a map-style data set."""

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import invalid, mistyped
from metalearn.data._decoding import CHANNELS, sides
from metalearn.data._layout import Layout, as_uint8, channels_first

COLUMNS = "Pass from_dataset(dataset, columns=('image', 'label')), say."
PAIRS = "Pass one of its splits, dataset['train'], or list(zip(images, labels)) of its columns."


def read_dataset(dataset: Any, columns: Any, size: Any) -> tuple[list[Tensor], list[str]]:
    """Return each label's images `[n, C, H, W]`, in ascending order of labels, and the names."""
    is_mapping = isinstance(dataset, Mapping)
    if is_mapping or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        fix = PAIRS if is_mapping else "Pass list(dataset) if it is an iterable."
        raise mistyped("dataset", "have len(dataset) and dataset[i]", type(dataset), fix)
    _check_columns(columns)
    resize = None if size is None else sides(size)
    by_label: dict[int, list[Tensor]] = {}
    first = None
    for index in range(len(dataset)):
        what = f"dataset[{index}]"
        image, label = _pair(what, dataset[index], columns)
        pixels = _pixels(what, image if resize is None else _resized(what, image, resize))
        first = pixels if first is None else first
        _check_shape(what, pixels, first, resized=resize is not None)
        by_label.setdefault(_label(what, label), []).append(pixels)
    labels = sorted(by_label)
    num_channels = max((len(image) for label in labels for image in by_label[label]), default=1)
    shape = (num_channels, -1, -1)
    images = [torch.stack([image.expand(shape) for image in by_label[label]]) for label in labels]
    return images, _names(dataset, labels, columns)


def _check_columns(columns: Any) -> None:
    strings = isinstance(columns, tuple | list) and all(isinstance(each, str) for each in columns)
    if columns is not None and not (strings and len(columns) == 2):
        condition = "be two strings, image and label, or None"
        raise mistyped("columns", condition, brief(columns), COLUMNS)


def _pair(what: str, item: Any, columns: Any) -> tuple[Any, Any]:
    """Return an item's image and label."""
    if columns is None:
        if not (isinstance(item, tuple | list) and len(item) == 2):
            fix = f"{COLUMNS} Its columns are {list(item)}." if isinstance(item, Mapping) else ""
            raise mistyped(what, "be a pair (image, label)", type(item), fix)
        return item[0], item[1]
    if not isinstance(item, Mapping):
        condition, fix = "be a mapping where columns are given", "Leave columns out."
        raise mistyped(what, condition, type(item), fix)
    for column in columns:
        if column not in item:
            fix = "Pass columns=(image, label) with two of these."
            raise invalid(what, f"have the column {column!r}", f"columns {list(item)}", fix)
    return item[columns[0]], item[columns[1]]


def _label(what: str, label: Any) -> int:
    try:
        return operator.index(label)
    except TypeError as error:
        raise mistyped(what, "have an int as its label", brief(label)) from error


def _resized(what: str, image: Any, size: tuple[int, int]) -> Image.Image:
    """Convert a Pillow image to grey or RGB and resize it."""
    if not isinstance(image, Image.Image):
        fix = "Leave size out, and resize images in the data set."
        raise mistyped(f"{what}'s image", "be a Pillow image where size is given", type(image), fix)
    if image.mode[0] in "IF":
        fix = "Rescale it to 8 bits first: Pillow would clip it."
        raise invalid(f"{what}'s image", "have 8 bits a channel", f"mode {image.mode!r}", fix)
    mode = "L" if image.mode in ("1", "L") else "RGB"
    return image.convert(mode).resize(size[::-1], Image.Resampling.LANCZOS)


def _pixels(what: str, image: Any) -> Tensor:
    """Return an image's pixels `[C, H, W]`."""
    if isinstance(image, Image.Image):
        if image.mode not in CHANNELS:
            fix = "Pass a dataset with transform=lambda image: image.convert('RGB')."
            condition = f"have a mode in {tuple(CHANNELS)}"
            raise invalid(f"{what}'s image", condition, repr(image.mode), fix)
        pixels = as_uint8(what, np.array(image))
        layout: Layout | None = "HW" if pixels.ndim == 2 else "HWC"
    else:
        pixels, layout = as_uint8(f"{what}'s image", image), None
    return channels_first(pixels.unsqueeze(0), layout).squeeze(0)


def _check_shape(what: str, pixels: Tensor, first: Tensor, *, resized: bool) -> None:
    """Raise unless all images have one shape; resized ones may differ in channels."""
    if pixels.shape != first.shape and not resized:
        condition = f"have an image of shape {tuple(first.shape)} as dataset[0] does"
        fix = (
            "Pass size=84, say, or a dataset with "
            "transform=torchvision.transforms.Resize((height, width))."
        )
        raise invalid(what, condition, tuple(pixels.shape), fix)


def _names(dataset: Any, labels: list[int], columns: Any) -> list[str]:
    """Return the labels' names: `dataset.classes`, those of a column's feature, or numbers."""
    where, names = "dataset.classes", getattr(dataset, "classes", None)
    if columns is not None:
        features = getattr(dataset, "features", None) or {}
        where, names = f"dataset.features[{columns[1]!r}].names", None
        if columns[1] in features:
            names = getattr(features[columns[1]], "names", None)
    if names is None:
        return [str(label) for label in labels]
    if labels and not 0 <= labels[0] <= labels[-1] < len(names):
        got = f"labels from {labels[0]} to {labels[-1]} and {len(names)} names"
        raise invalid(where, "name every label", got)
    return [str(names[label]) for label in labels]
