"""The images that benchmarks read from the folder METALEARN_DATA."""

import os
from pathlib import Path

ARCHIVES = {
    "omniglot.npz": '[1623, 20, 28, 28], "alphabet/character" as class_names, and Vinyals\' split',
    "cifar_fs_train_val.npz": '[80, 600, 32, 32, 3], with "train" and "val" in split',
    "caltech101_32.npz": "[101, images, 32, 32, 3], of which none is read but as another domain",
}
"""What has to be in each, beside what `data.ClassImages.from_npz` says."""
FOLDERS = {
    "mini_imagenet": (
        "miniImageNet, as data.mini_imagenet reads it: train.csv, val.csv and test.csv with their "
        "images, or mini-imagenet-cache-train.pkl and so on"
    ),
    "CUB_200_2011": (
        "the birds, as data.cub reads them: images/001.Black_footed_Albatross and so on"
    ),
}
"""What has to be in each; their terms forbid to ship them."""


def archive(name: str) -> Path:
    """Return the path of an archive or folder; end the program with what to put where if not."""
    folder = os.environ.get("METALEARN_DATA")
    path = Path(folder or "") / name
    if folder is not None and (path.is_dir() if name in FOLDERS else path.is_file()):
        return path
    missing = "METALEARN_DATA, which is not set," if folder is None else f"METALEARN_DATA={folder}"
    what, how = FOLDERS.get(name, ""), f"Put it into folder/{name}"
    if name in ARCHIVES:
        what = f"images, uint8 {ARCHIVES[name]}, as data.ClassImages.from_npz reads them"
        how = f"Write numpy.savez('folder/{name}', images=..., class_names=..., split=...)"
    raise SystemExit(
        f"{missing} must be a folder with {name}: {what}. {how} and run it again with "
        "METALEARN_DATA=folder."
    )
