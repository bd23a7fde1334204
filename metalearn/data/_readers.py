"""Read images, grouped by class, from an archive or a folder."""

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from metalearn._checks import check_choice, check_path, invalid, message
from metalearn.data._cache import Flat, read_files
from metalearn.data._decoding import Decoding, class_files

NPZ = (
    "be an .npz file of images, uint8 [classes, per_class, H, W(, C)], class_names and split, one "
    "a class"
)
MAKE_NPZ = (
    "Make it with numpy.savez_compressed(path, images=images, class_names=class_names, "
    "split=split)."
)
MOST_EXPANSION = 200
"""Largest compression ratio of an array beyond `ALWAYS_READ`; one-colour drawings reach 50."""
ALWAYS_READ = 2**26
"""Number of bytes that are read at any compression ratio."""
ARRANGE = "Arrange the images as path/class/image.png."


def read_npz(path: Path, split: str | None) -> tuple[np.ndarray, list[str]]:
    """Return the images `[classes, per_class, ...]` and class names of one split, or of all."""
    if not path.is_file():
        raise FileNotFoundError(message("path", NPZ, f"no file {path}", MAKE_NPZ))
    keys = ("images", "class_names") if split is None else ("images", "class_names", "split")
    try:
        with zipfile.ZipFile(path) as archive:
            images, names, *splits = (_read_array(archive, key) for key in keys)
            names, *splits = (strings.astype(str) for strings in (names, *splits))
    except Exception as error:
        # zipfile, zlib and NumPy raise errors of many types for damaged files
        raise invalid(str(path), NPZ, error, MAKE_NPZ) from error
    shapes = [images.shape[:1], *(strings.shape for strings in (names, *splits))]
    if len(set(shapes)) > 1:
        got = ", ".join(map(str, shapes))
        raise invalid(f"{', '.join(keys)} of {path}", "have one entry a class", got, MAKE_NPZ)
    if split is None:
        return images, names.tolist()
    check_choice(f"split of {path}", split, sorted(set(splits[0].tolist())))
    chosen = splits[0] == split
    return images[chosen], names[chosen].tolist()


def _read_array(archive: zipfile.ZipFile, key: str) -> np.ndarray:
    """Read an array and verify its checksum; raise if it claims more than the file can hold."""
    name = f"{key}.npy"
    if name not in archive.namelist():
        raise KeyError(f"{key} is not a file in the archive")
    entry = archive.getinfo(name)
    compressed = min(entry.compress_size, archive.start_dir)
    if entry.file_size > max(ALWAYS_READ, MOST_EXPANSION * compressed):
        claim = f"{entry.file_size:,} bytes in {compressed:,} compressed ones"
        raise ValueError(f"{key} claims {claim}")
    with archive.open(entry) as stream:
        # NumPy allocates the array before it reads the elements.
        is_first = npy.read_magic(stream) == (1, 0)
        read_header = npy.read_array_header_1_0 if is_first else npy.read_array_header_2_0
        shape, _, dtype = read_header(stream)
        claimed = math.prod(shape) * dtype.itemsize
        if not dtype.hasobject and claimed > entry.file_size:
            claim = f"{claimed:,} bytes of elements in {entry.file_size:,} bytes"
            raise ValueError(f"{key} claims {claim}")
    with archive.open(entry) as stream:
        array = npy.read_array(stream, allow_pickle=False)
        stream.read()  # zipfile compares the checksum at the end
    return array


def read_folder(path: Path, size: int | tuple[int, int], mode: str, cache: Any) -> Flat:
    """Return the images of each subfolder, sorted; `cache` is a cache's folder or None."""
    decoding = Decoding(size, mode)
    if cache is not None:
        check_path("cache", cache)
    files = class_files(path, ARRANGE)
    home = path.resolve()
    # hashed: folders of the same name can share a cache folder
    name = f"{home.name}-{zlib.crc32(str(home).encode()):08x}"
    return read_files(files, decoding, None if cache is None else Path(cache), name, required=True)
