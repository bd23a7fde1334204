"""Gather and transform images by their indices, for every distribution that draws images."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metalearn._checks import check_function, invalid, mistyped
from metalearn.data._augmentations import apply
from metalearn.data._class_images import ClassImages

Transform = Callable[..., Tensor]


def check_transform(transform: Any) -> None:
    """Raise unless this is a function, or None."""
    if transform is not None:
        fix = "Write transform=data.RandomFlip(), say."
        check_function("transform", transform, "be a function of images, or None", fix=fix)


def gather(
    classes: ClassImages,
    chosen: Tensor,
    transform: Transform | None,
    generator: torch.Generator | None,
    device: torch.device | None,
) -> Tensor:
    """Return images `[tasks, n, C, H, W]` in [0, 1], transformed.

    Args:
        classes: The images.
        chosen: Indices `[tasks, n]` into their pixels, on any device.
        transform: Maps images to images of the same tasks and n; an `Augmentation` draws from the
            generator.
        generator: Source of its randomness.
        device: Where the images go, by default the classes' device. Bytes are gathered on the
            classes' device and converted on this one.
    """
    places = chosen.flatten().to(classes.device)
    pixels = classes.pixels.index_select(0, places).unflatten(0, chosen.shape)
    images = pixels.to(device or classes.device).to(torch.get_default_dtype()).div_(255)
    if transform is None:
        return images
    result = apply(transform, images, generator)
    if not isinstance(result, Tensor):
        raise mistyped("transform", "return a tensor", type(result))
    if result.shape[:2] != images.shape[:2]:
        condition = f"keep the first two axes {tuple(images.shape[:2])}"
        raise invalid("transform", condition, f"shape {tuple(result.shape)}")
    return result
