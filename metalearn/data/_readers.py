"""Read images, grouped by class, from an archive or a folder."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from metalearn._checks import check_choice, invalid
from metalearn.data._cache import Flat, read_files
from metalearn.data._decoding import Decoding, class_files

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


def read_folder(path: Path, size: int | tuple[int, int], mode: str, cache: Any) -> Flat:
    """Return the images of every sub-folder, sorted; `cache` is the folder of a cache, or None."""
    decoding = Decoding(size, mode)
    if not isinstance(cache, str | Path | None):
        raise TypeError(invalid("cache", "be a folder or None", repr(cache), "Pass cache='cache'."))
    files = class_files(path, ARRANGE)
    home = path.resolve()
    name = f"{home.name}-{zlib.crc32(str(home).encode()):08x}"  # Folders of one name can share a cache.
    return read_files(files, decoding, None if cache is None else Path(cache), name, required=True)
