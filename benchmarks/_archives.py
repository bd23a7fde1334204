"""The archives of images that benchmarks read from the folder METALEARN_DATA."""

import os
from pathlib import Path

ARCHIVES = {
    "omniglot.npz": '[1623, 20, 28, 28], "alphabet/character" as class_names, and Vinyals\' split',
    "cifar_fs_train_val.npz": '[80, 600, 32, 32, 3], with "train" and "val" in split',
    "caltech101_32.npz": "[101, images, 32, 32, 3], of which none is read but as another domain",
}
"""What has to be in each, beside what `data.ClassImages.from_npz` says."""


def archive(name: str) -> Path:
    """Return an archive's path; end the program with what to put where if it is not there."""
    folder = os.environ.get("METALEARN_DATA")
    if folder is not None and (path := Path(folder) / name).is_file():
        return path
    missing = "METALEARN_DATA, which is not set," if folder is None else f"METALEARN_DATA={folder}"
    write = f"numpy.savez('folder/{name}', images=..., class_names=..., split=...)"
    raise SystemExit(
        f"{missing} must be a folder with {name}: images, uint8 {ARCHIVES[name]}, as "
        f"data.ClassImages.from_npz reads them. Write {write} and run it again with "
        "METALEARN_DATA=folder."
    )
