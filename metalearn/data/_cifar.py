"""CIFAR-FS and FC100: two splits of the classes of CIFAR-100."""

from pathlib import Path

import numpy as np

from metalearn._checks import check_bool, check_path, message
from metalearn.data._class_images import ClassImages
from metalearn.data._names import check_known
from metalearn.data._splits import Split, class_names_of

ARCHIVE = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"


def cifar_fs(root: str | Path, split: Split, *, download: bool = False) -> ClassImages:
    """Read CIFAR-FS: CIFAR-100 with a random split into 64, 16 and 20 classes.

    Images are 3x32x32. Each class has 600, from CIFAR-100's training and test set.

    Args:
        root: Folder that holds, or with `download` will hold, `cifar-100-python` in the layout of
            `torchvision.datasets.CIFAR100`, which compares its files with their MD5 sums.
        split: "train", "val" or "test".
        download: Whether to download what is missing, through torchvision.

    Returns:
        Classes with names such as "maple_tree", in alphabetical order.

    Raises:
        FileNotFoundError: If the data are missing or incomplete and `download` is False.
        TypeError: If `download` is not a bool.
        ValueError: If `split` is not one of its choices.

    References:
        Bertinetto, Henriques, Torr and Vedaldi, "Meta-learning with differentiable closed-form
        solvers", ICLR 2019. Krizhevsky, "Learning multiple layers of features from tiny images",
        2009.
    """
    return _cifar100(root, class_names_of("cifar_fs", split), download)


def fc100(root: str | Path, split: Split, *, download: bool = False) -> ClassImages:
    """Read FC100: CIFAR-100 split into 60, 20 and 20 classes that share no superclass.

    Images are 3x32x32. Each class has 600, from CIFAR-100's training and test set.

    Args:
        root: As in `cifar_fs`.
        split: "train", "val" or "test".
        download: As in `cifar_fs`.

    Returns:
        Classes with names such as "maple_tree", in alphabetical order.

    Raises:
        FileNotFoundError: If the data are missing or incomplete and `download` is False.
        TypeError: If `download` is not a bool.
        ValueError: If `split` is not one of its choices.

    References:
        Oreshkin, Rodriguez and Lacoste, "TADAM: Task dependent adaptive metric for improved
        few-shot learning", NeurIPS 2018.
    """
    return _cifar100(root, class_names_of("fc100", split), download)


def _cifar100(root: str | Path, names: list[str], download: bool) -> ClassImages:
    from torchvision.datasets import CIFAR100  # takes a second to import

    check_path("root", root)
    check_bool("download", download, fix="Pass download=True.")
    try:
        halves = [CIFAR100(root, train=train, download=download) for train in (True, False)]
    except RuntimeError as error:
        # torchvision's, for missing files and wrong MD5 sums
        if download:
            raise
        fix = f"Pass download=True, or unpack {ARCHIVE} there."
        got = f"{error} (in {Path(root) / 'cifar-100-python'})"
        raise FileNotFoundError(message("root", "hold cifar-100-python", got, fix)) from error
    check_known(names, halves[0].classes)
    images = np.concatenate([half.data for half in halves])
    labels = np.concatenate([half.targets for half in halves])
    of_class = [images[labels == halves[0].classes.index(name)] for name in names]
    return ClassImages(of_class, names, layout="HWC")
