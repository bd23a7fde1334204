"""The one layout of stored images: uint8 `[total, C, H, W]`, ordered by class."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from metalearn._checks import check_choice, invalid, mistyped

Layout = Literal["HW", "HWC", "CHW"]

CHANNELS = (1, 3, 4)
AXES = "be [H, W], [H, W, C] or [C, H, W]"
PER_CLASS = "Pass ClassImages([images_of_class_0, images_of_class_1])"


def flatten(images: Any, layout: Layout | None) -> tuple[Tensor, list[int]]:
    """Lay images out class by class.

    Args:
        images: uint8 `[classes, per_class, *image]`, or one uint8 `[n, *image]` per class.
        layout: Axes of one image; None infers them.

    Returns:
        The pixels `[total, C, H, W]`, contiguous, and the number of images of each class.
    """
    if isinstance(images, Tensor | np.ndarray):
        block = as_uint8("images", images)
        _check_axes("images", block, "classes, per_class", num_leading=2)
        pixels, num_images = block.flatten(0, 1), [block.shape[1]] * block.shape[0]
    elif isinstance(images, Sequence) and not isinstance(images, str):
        parts = [as_uint8(f"images[{label}]", part) for label, part in enumerate(images)]
        _check_parts(parts)
        pixels, num_images = torch.cat(parts), [len(part) for part in parts]
    else:
        condition = "be a tensor, an array or a list of them"
        raise mistyped("images", condition, type(images), f"{PER_CLASS}.")
    if not pixels.numel() or 0 in num_images:
        shape = tuple(pixels.shape[1:])
        got = f"{num_images.count(0)} empty of {len(num_images)} classes, images of {shape}"
        raise invalid("images", "hold at least one image for each class", got)
    return channels_first(pixels, layout).contiguous(), num_images


def as_uint8(what: str, images: Any) -> Tensor:
    """Return a uint8 tensor or array as a tensor, sharing memory if possible."""
    if isinstance(images, Tensor) and images.dtype == torch.uint8:
        return images
    if isinstance(images, np.ndarray) and images.dtype == np.uint8:
        return torch.from_numpy(np.require(images, requirements=["C", "W"]))
    got = getattr(images, "dtype", type(images).__name__)
    floats = "Pass (255 * images).round().to(torch.uint8) for floats in [0, 1]"
    fix = f"{floats}; for other data write a data.TaskDistribution."
    raise mistyped(what, "be a tensor or array of uint8", got, fix)


def channels_first(pixels: Tensor, layout: Layout | None) -> Tensor:
    """Turn `[total, *image]` into `[total, C, H, W]`."""
    shape = tuple(pixels.shape[1:])
    layout = _recognise(shape) if layout is None else layout
    check_choice("layout", layout, ("HW", "HWC", "CHW"))
    if len(shape) != len(layout):
        fix = "Leave layout out to have it recognised."
        raise invalid("each image", f"have the axes {layout}", f"shape {shape}", fix)
    if layout == "HW":
        return pixels.unsqueeze(1)
    _check_channels(shape, shape[layout.index("C")])
    return pixels.movedim(-1, 1) if layout == "HWC" else pixels


def _recognise(shape: tuple[int, ...]) -> Layout:
    if len(shape) not in (2, 3):
        raise invalid("each image", AXES, f"shape {shape}")
    first, last = shape[0] in CHANNELS, shape[-1] in CHANNELS
    if len(shape) == 2:
        if last and not first:
            end = "the end of [H, W, C] without an axis for the classes"
            fix = f"{PER_CLASS}, or layout='HW' if this is meant."
            raise invalid("each image", AXES, f"shape {shape}, which looks like {end}", fix)
        return "HW"
    if first and last:
        got = f"shape {shape}, where both can be"
        fix = "Pass ClassImages(images, layout='CHW') or layout='HWC'."
        raise invalid("each image", "have its channels either first or last", got, fix)
    if not first:
        _check_channels(shape, shape[-1])
    return "CHW" if first else "HWC"


def _check_channels(shape: tuple[int, ...], num_channels: int) -> None:
    if num_channels not in CHANNELS:
        fix = "Pass images of shape [H, W] if they are grey."
        raise invalid("each image", "have 1, 3 or 4 channels, first or last", f"shape {shape}", fix)


def _check_axes(what: str, images: Tensor, leading: str, num_leading: int) -> None:
    if images.ndim - num_leading not in (2, 3):
        condition = f"be [{leading}, H, W], [{leading}, H, W, C] or [{leading}, C, H, W]"
        fix = "Pass images[None] to add an axis of one."
        raise invalid(what, condition, f"shape {tuple(images.shape)}", fix)


def _check_parts(parts: Sequence[Tensor]) -> None:
    if not parts:
        raise invalid("images", "hold at least one class", "an empty list")
    for label, part in enumerate(parts):
        _check_axes(f"images[{label}]", part, "n", num_leading=1)
        if part.shape[1:] != parts[0].shape[1:]:
            condition = f"hold images of shape {tuple(parts[0].shape[1:])} as images[0] does"
            fix = "Resize them first, as ClassImages.from_folder(path, size) does."
            raise invalid(f"images[{label}]", condition, tuple(part.shape[1:]), fix)
