"""CUB: photographs of 200 species of birds."""

from pathlib import Path

from metalearn._checks import check_choice, check_path, invalid
from metalearn.data._cache import CACHE_FOLDER, read_files
from metalearn.data._class_images import ClassImages
from metalearn.data._decoding import Decoding, class_files
from metalearn.data._splits import SPLITS, Split

NUM_CLASSES = 200
NUM_IMAGES = 11_788
ARCHIVE = "https://data.caltech.edu/records/65de6-vp158"


def cub(root: str | Path, split: Split, *, size: int | tuple[int, int] = 84) -> ClassImages:
    """Read CUB-200-2011, split 70:15:15 into 140, 30 and 30 classes.

    The papers with this ratio drew their classes at random and did not publish them. Here, of every
    20 consecutive class numbers, the 3rd, 9th and 15th are for validation and the 6th, 12th and
    18th for testing, which spreads related species, numbered consecutively, over the splits.
    Results on other splits, such as the 100, 50 and 50 classes of Chen et al. (2019), are not
    comparable.

    Images are not cropped to the birds. They are decoded once, resized (Lanczos; the aspect ratio
    is not kept) and cached in the root's folder `metalearn-cache`, if that is writable; later calls
    memory-map them.

    Args:
        root: Folder that holds `CUB_200_2011/images`, as in the archive.
        split: "train", "val" or "test".
        size: (height, width) in pixels, or one number for both.

    Returns:
        Classes with names such as "001.Black_footed_Albatross", in the order of their numbers.

    Raises:
        FileNotFoundError: If the images are missing.
        TypeError: If `size` does not hold ints.
        ValueError: If classes or images are missing or damaged, or an argument is not one of its
            choices.

    References:
        Wah, Branson, Welinder, Perona and Belongie, "The Caltech-UCSD Birds-200-2011 dataset",
        2011.
    """
    check_path("root", root)
    check_choice("split", split, SPLITS)
    decoding, root = Decoding(size), Path(root)
    fix = f"Unpack CUB_200_2011.tgz of {ARCHIVE} in {root}."
    files = class_files(root / "CUB_200_2011" / "images", fix)
    found = len(files), sum(map(len, files.values()))
    if found != (NUM_CLASSES, NUM_IMAGES):
        condition = f"hold {NUM_CLASSES} classes with {NUM_IMAGES} images"
        raise invalid(f"{root / 'CUB_200_2011'}", condition, f"{found[0]} with {found[1]}", fix)
    chosen = {name: files[name] for i, name in enumerate(files) if split_of(i) == split}
    return ClassImages._from_flat(read_files(chosen, decoding, root / CACHE_FOLDER, f"cub-{split}"))


def split_of(position: int) -> str:
    """Return the split of the class at a position, from 0, in the order of class numbers.

    >>> [split_of(position) for position in (0, 2, 5)]
    ['train', 'val', 'test']
    """
    place = position % 20 + 1
    if place in (3, 9, 15):
        return "val"
    return "test" if place in (6, 12, 18) else "train"
