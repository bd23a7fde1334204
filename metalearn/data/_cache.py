"""A cache of decoded images: pixels are written once and memory-mapped from then on.

A cache is two files: `name.npy`, uint8 `[total, C, H, W]`, and `name.json`, which describes its
source. Both are written under temporary names and renamed, the second one last, so that a killed
process never leaves a cache that would be accepted.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from metalearn._checks import message
from metalearn._files import clear_abandoned
from metalearn.data._decoding import Decoding, decode_classes

CACHE_FOLDER = "metalearn-cache"
"""Subfolder of a data set's root that holds its caches."""


class Flat(NamedTuple):
    """Images `[total, C, H, W]`, uint8, class after class."""

    pixels: np.ndarray
    num_images: list[int]
    class_names: list[str]


class Classes(NamedTuple):
    """Images that are decoded lazily, class by class."""

    num_images: dict[str, int]
    image_shape: tuple[int, int, int]
    blocks: Iterator[np.ndarray]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of all images together."""
        return (sum(self.num_images.values()), *self.image_shape)


def read_files(
    files: Mapping[str, Sequence[Path]],
    decoding: Decoding,
    folder: Path | None,
    name: str,
    *,
    required: bool = False,
) -> Flat:
    """Decode the files of each class, or read the cache `name` made from them.

    Arguments are as in `cached`; without a folder, images are decoded into memory.
    """

    def decoded() -> Classes:
        num_images = {label: len(files[label]) for label in files}
        blocks = decode_classes(decoding.decode, files.values())
        return Classes(num_images, decoding.image_shape, blocks)

    if folder is None:
        return _in_memory(decoded())
    source = [[label, *stamp_of(file)] for label in files for file in files[label]]
    return cached(folder, f"{name}-{decoding}", source, decoded, required=required)


def cached(
    folder: Path, name: str, source: Any, decode: Callable[[], Classes], *, required: bool = False
) -> Flat:
    """Read a cache; write it first if it is missing, damaged or from another source.

    Args:
        folder: Folder of the cache.
        name: Name of the cache, which includes how images are decoded.
        source: What images are decoded from, as JSON-serialisable data.
        decode: Starts decoding.
        required: Whether a read-only folder is an error; if not, it is only read.

    Raises:
        OSError: If the cache is required and cannot be written, or the disk is full.
    """
    file = folder / f"{name}.npy"
    stamp = hashlib.sha256(json.dumps([name, source]).encode()).hexdigest()
    found = _read(file, stamp)
    if found is None and (required or _writable(folder)):
        _write(file, stamp, decode())
        found = _read(file, stamp)
    # Decoded again, too, if another process has just written a different cache of this name.
    return found or _in_memory(decode())


def _writable(folder: Path) -> bool:
    return os.access(folder if folder.exists() else folder.parent, os.W_OK)


def stamp_of(file: Path) -> list[Any]:
    """Return a file's name, size and modification time, which reveal changes."""
    status = file.stat()
    return [file.name, status.st_size, status.st_mtime_ns]


def _in_memory(classes: Classes) -> Flat:
    pixels, start = np.empty(classes.shape, np.uint8), 0
    for block in classes.blocks:
        pixels[start : start + len(block)] = block
        start += len(block)
    return Flat(pixels, list(classes.num_images.values()), list(classes.num_images))


def _read(file: Path, stamp: str) -> Flat | None:
    """Return a cache, memory-mapped, or None if it is missing, damaged or from another source."""
    with suppress(Exception):  # damage raises errors of many types
        about = json.loads(file.with_suffix(".json").read_text())
        if about["stamp"] != stamp:
            return None
        # Copy-on-write: PyTorch wants writable arrays, and the file must not change.
        pixels, crc = np.lib.format.open_memmap(file, mode="c"), about.pop("crc32")
        has_shape = pixels.dtype == np.uint8 and list(pixels.shape) == about["shape"]
        if has_shape and zlib.crc32(pixels.data, _crc32(about)) == crc:
            return Flat(pixels, about["num_images"], about["class_names"])
    return None


def _write(file: Path, stamp: str, classes: Classes) -> None:
    """Write a cache class by class, so that memory never holds more than one class."""
    about = file.with_suffix(".json")
    description = {
        "stamp": stamp,
        "shape": classes.shape,
        "num_images": list(classes.num_images.values()),
        "class_names": list(classes.num_images),
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        clear_abandoned(file.parent, "tmp*.part")
        with TemporaryDirectory(dir=file.parent, suffix=".part") as name:
            part = Path(name)
            crc = _write_pixels(part / file.name, classes, _crc32(description))
            (part / about.name).write_text(json.dumps(description | {"crc32": crc}))
            (part / file.name).replace(file)
            (part / about.name).replace(about)
    except OSError as error:
        fix = "Make room, or choose another folder."
        raise OSError(message(f"cache {file}", "be written", error, fix)) from error


def _crc32(description: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(description).encode())


def _write_pixels(file: Path, classes: Classes, crc: int) -> int:
    """Write an array and return the CRC-32 of its values, continuing that of the description.

    Ordinary writes, since on a full disk a memory map kills the process instead of raising.
    """
    with file.open("wb") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": classes.shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for block in classes.blocks:
            values = np.ascontiguousarray(block)
            stream.write(values.data)
            crc = zlib.crc32(values.data, crc)
    return crc
