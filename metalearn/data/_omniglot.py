"""Omniglot: handwritten characters of 50 alphabets, each drawn by 20 people."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from PIL import Image

from metalearn._checks import check_bool, check_choice, check_path, invalid, message
from metalearn.data._cache import CACHE_FOLDER, read_files
from metalearn.data._class_images import ClassImages
from metalearn.data._decoding import Decoding, image_files
from metalearn.data._splits import SPLITS, Split

VALIDATION_ALPHABETS = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
FIRST_TEST_CHARACTER = "Gurmukhi/character42"
NUM_CHARACTERS = {"train": 1028, "val": 172, "test": 423}
NUM_DRAWINGS = 20
SIZE = (28, 28)


def omniglot(
    root: str | Path,
    split: Split,
    *,
    download: bool = False,
    angles: Sequence[int] | None = None,
    resample: Literal["nearest", "lanczos"] = "nearest",
) -> ClassImages:
    """Read Omniglot in the split of Vinyals et al.: 1028, 172 and 423 characters, before rotations.

    Images are 1x28x28, with white ink (255) on black, as in MAML. The first call takes seconds and
    caches the decoded images in the root's folder `metalearn-cache`, if that is writable.

    Args:
        root: Folder that holds, or with `download` will hold, `omniglot-py` in the layout of
            `torchvision.datasets.Omniglot`.
        split: "train", "val" or "test".
        download: Whether to download what is missing, through torchvision.
        angles: Rotations that count as new classes, as in `ClassImages.rotated`. None is (0, 90,
            180, 270) for "train" and (0,) for "val" and "test", as in Reptile. MAML rotates at test
            time too, `angles=(0, 90, 180, 270)`, but its episodes never repeat a character.
        resample: How 105 pixels become 28. MAML's code asks for Lanczos, but for 1-bit images such
            as these Pillow always uses "nearest", so that MAML's images are two-valued. "lanczos"
            gives shades of grey.

    Returns:
        Classes with names such as "Greek/character01" and "Greek/character01/rot90".

    Raises:
        FileNotFoundError: If the images are missing and `download` is False.
        TypeError: If `root` is not a path, or `download` not a bool.
        ValueError: If images are missing or damaged, or an argument is not one of its choices.

    References:
        Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic
        program induction", Science 350, 2015. Vinyals, Blundell, Lillicrap, Kavukcuoglu and
        Wierstra, "Matching networks for one shot learning", NeurIPS 2016. The one-bit images: C.
        Bensimon, "Fix image mode for the resample to be effective", pull request 23 of
        github.com/cbfinn/maml, 2018.
    """
    check_path("root", root)
    check_choice("split", split, SPLITS)
    check_bool("download", download, fix="Pass download=True.")
    check_choice("resample", resample, ("nearest", "lanczos"))
    if download:
        _download(root)
    files = {
        name: image_files(folder)
        for name, background, folder in _characters(Path(root) / "omniglot-py")
        if split_of(name, background) == split
    }
    _check_complete(root, split, sum(map(len, files.values())))
    decoding = Decoding(SIZE, "L", Image.Resampling[resample.upper()])
    paper = read_files(files, decoding, Path(root) / CACHE_FOLDER, f"omniglot-{split}")
    if angles is None:
        angles = (0, 90, 180, 270) if split == "train" else (0,)
    return ClassImages._from_flat(paper._replace(pixels=255 - paper.pixels)).rotated(angles)


def split_of(name: str, background: bool) -> str:
    """Return the split of a character of Lake's background set, or of the evaluation set.

    Vinyals' split keeps alphabets whole, except the one at the cut through the evaluation set.

    >>> greek = split_of("Greek/character01", background=True)
    >>> greek, split_of("Tibetan/character01", background=False)
    ('train', 'test')
    """
    if background:
        return "val" if name.split("/")[0] in VALIDATION_ALPHABETS else "train"
    return "train" if name < FIRST_TEST_CHARACTER else "test"


def _download(root: str | Path) -> None:
    from torchvision.datasets import Omniglot  # takes a second to import

    for background in (True, False):
        Omniglot(root, background=background, download=True)


def _characters(folder: Path) -> Iterator[tuple[str, bool, Path]]:
    """Yield each character's name, whether it is a background one, and its folder, in order."""
    for subset, background in (("images_background", True), ("images_evaluation", False)):
        if not (folder / subset).is_dir():
            condition = "hold omniglot-py/images_background and omniglot-py/images_evaluation"
            fix = (
                "Pass download=True, after deleting what is left of omniglot-py, or the folder "
                "that holds it."
            )
            raise FileNotFoundError(message("root", condition, f"no folder {folder / subset}", fix))
        for character in sorted((folder / subset).glob("[!.]*/[!.]*/")):
            yield f"{character.parent.name}/{character.name}", background, character


def _check_complete(root: str | Path, split: str, num_found: int) -> None:
    expected = NUM_DRAWINGS * NUM_CHARACTERS[split]
    if num_found != expected:
        fix = "Delete its folder omniglot-py and pass download=True."
        raise invalid(str(root), f"hold {expected} drawings for split {split!r}", num_found, fix)
