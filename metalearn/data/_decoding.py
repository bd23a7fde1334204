"""Decode image files to pixels of one size, class by class."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from metalearn._brief import brief
from metalearn._checks import check_choice, check_count, invalid, message, mistyped

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
NUM_THREADS = min(8, os.cpu_count() or 1)

T = TypeVar("T")


@dataclass(frozen=True)
class Decoding:
    """How an encoded image becomes uint8 pixels `[C, H, W]`.

    Args:
        size: (height, width) in pixels, or one number for both.
        mode: "L", "RGB" or "RGBA".
        resample: Filter for resizing, which does not keep the aspect ratio.
    """

    size: int | tuple[int, int]
    mode: str = "RGB"
    resample: Image.Resampling = Image.Resampling.LANCZOS

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", sides(self.size))
        if not isinstance(self.mode, str):
            raise mistyped("mode", "be a string", brief(self.mode), "Pass mode='RGB'.")
        check_choice("mode", self.mode, CHANNELS)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of the pixels."""
        return (CHANNELS[self.mode], *sides(self.size))

    def decode(self, file: Path | str, encoded: bytes | None = None) -> np.ndarray:
        """Decode an image from `file`, or from bytes that errors call `file`."""
        channels, height, width = self.image_shape
        try:
            with Image.open(file if encoded is None else BytesIO(encoded)) as image:
                image.load()
                depth = image.mode
                # Converted first: Pillow ignores the filter for 1-bit and palette images.
                pixels = np.asarray(image.convert(self.mode).resize((width, height), self.resample))
        except Exception as error:  # Pillow raises errors of many types for broken files
            got, fix = f"{type(error).__name__}: {error}", "Replace the file or remove it."
            raise invalid(str(file), "be a readable image", got, fix) from error
        if depth[0] in "IF":
            fix = "Rescale it to 8 bits first: Pillow would clip it."
            raise invalid(str(file), "have 8 bits a channel", f"mode {depth!r}", fix)
        return pixels.reshape(height, width, channels).transpose(2, 0, 1)

    def __str__(self) -> str:
        _, height, width = self.image_shape
        return f"{height}x{width}-{self.mode}-{self.resample.name.lower()}"


def decode_classes(
    decode: Callable[[T], np.ndarray], classes: Iterable[Sequence[T]]
) -> Iterator[np.ndarray]:
    """Yield each class's decoded images, uint8 `[n, C, H, W]`; Pillow decodes in threads."""
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for images in classes:
            yield np.stack(list(pool.map(decode, images)))


def image_files(folder: Path) -> list[Path]:
    """List the files with an image's extension, sorted, without hidden ones."""
    files = (file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(file for file in files if file.name[0] != ".")


def class_files(path: Path, arrange: str) -> dict[str, list[Path]]:
    """Return the image files of each subfolder that is not hidden, sorted by name.

    Args:
        path: The folder.
        arrange: Advice for errors, a sentence.
    """
    condition = "be a folder with one sub-folder a class"
    if not path.is_dir():
        raise FileNotFoundError(message("path", condition, f"no folder {path}", arrange))
    folders = sorted(each for each in path.iterdir() if each.is_dir() and each.name[0] != ".")
    if not folders:
        raise invalid(str(path), condition, "none", arrange)
    files = {folder.name: image_files(folder) for folder in folders}
    for name, images in files.items():
        if not images:
            condition = f"hold images ({', '.join(IMAGE_SUFFIXES)})"
            raise invalid(str(path / name), condition, "none", "Add some, or remove the folder.")
    return files


def sides(size: Any) -> tuple[int, int]:
    """Return a size, a pair or one number for both, as (height, width)."""
    pair = (size, size) if isinstance(size, int) else size
    fix = "Pass size=84 or size=(84, 84)."
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        raise mistyped("size", "be an int or a pair (height, width)", brief(size), fix)
    for side in pair:
        check_count("size", side, fix=fix)
    return pair[0], pair[1]
