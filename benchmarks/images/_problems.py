"""What is classified: images, the size of a task, and the network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks._archives import archive
from benchmarks.images import _depths
from benchmarks.images._methods import METHODS, Method, methods
from metalearn import data, models


@dataclass(frozen=True)
class Problem:
    """One table.

    Attributes:
        images: Reads the classes of "train", "val" and the tests, by name.
        sizes: Ways, shots and query images of a task.
        model: Arguments of `models.conv4`.
        methods: The rows.
    """

    images: Callable[[], dict[str, data.ClassImages]]
    sizes: dict[str, int]
    model: dict[str, Any]
    methods: dict[str, Method]

    def sampler(self, classes: data.ClassImages, shots: int | None = None) -> data.EpisodeSampler:
        """Return the tasks of some classes, with another number of support images if given."""
        return data.EpisodeSampler(
            classes, **{**self.sizes, "k_shot": shots or self.sizes["k_shot"]}
        )

    def network(
        self, method: Method, num_classes: int, statistics: str, num_filters: int | None = None
    ) -> Any:
        """Return the network of a method, with another number of filters if given."""
        changes = {**dict(method.model), **({"num_filters": num_filters} if num_filters else {})}
        return models.conv4(
            num_classes=num_classes, batch_statistics=statistics, **{**self.model, **changes}
        )


def omniglot() -> dict[str, data.ClassImages]:
    """Return 1,028 characters and their rotations to train on, and 172 and 423 upright ones."""
    path = archive("omniglot.npz")
    train, val, test = (
        data.ClassImages.from_npz(path, split) for split in ("train", "val", "test")
    )
    return {"train": train.rotated(), "val": val, "test": test}


def omniglot_shuffled() -> dict[str, data.ClassImages]:
    """Return 1,100, 100 and 423 characters of all alphabets in all rotations, as in MAML's code."""
    characters = data.ClassImages.from_npz(archive("omniglot.npz"))
    names = np.random.default_rng(0).permutation(characters.class_names).tolist()
    parts = {"train": names[:1100], "val": names[1100:1200], "test": names[1200:]}
    return {split: characters.select(part).rotated() for split, part in parts.items()}


def cifar_fs() -> dict[str, data.ClassImages]:
    """Return CIFAR-FS' training and validation classes, not the test classes, and Caltech-101."""
    path, other = archive("cifar_fs_train_val.npz"), archive("caltech101_32.npz")
    train, val = (data.ClassImages.from_npz(path, split) for split in ("train", "val"))
    return {"train": train, "val": val, "Caltech-101": data.ClassImages.from_npz(other)}


GREY = {"in_channels": 1, "num_filters": 32}
COLOUR = {"in_channels": 3, "num_filters": 32, "image_size": 32, "downsample": "max_pool"}
PROBLEMS = {
    "omniglot_5w1s": Problem(omniglot, {"n_way": 5, "k_shot": 1, "num_query": 5}, GREY, METHODS),
    "omniglot_5w1s_shuffled": Problem(
        omniglot_shuffled, {"n_way": 5, "k_shot": 1, "num_query": 5}, GREY, METHODS
    ),
    "omniglot_5w5s": Problem(omniglot, {"n_way": 5, "k_shot": 5, "num_query": 5}, GREY, METHODS),
    "omniglot_10w5s": Problem(
        omniglot,
        {"n_way": 10, "k_shot": 5, "num_query": 5},
        {"in_channels": 1, "num_filters": 64},
        _depths.OMNIGLOT,
    ),
    "cifar_fs_10w3s": Problem(
        cifar_fs,
        {"n_way": 10, "k_shot": 3, "num_query": 5},
        {"in_channels": 3, "num_filters": 32},
        _depths.CIFAR_FS,
    ),
    "cifar_fs_5w1s": Problem(
        cifar_fs, {"n_way": 5, "k_shot": 1, "num_query": 15}, COLOUR, methods(0.1)
    ),
    "cifar_fs_5w5s": Problem(
        cifar_fs, {"n_way": 5, "k_shot": 5, "num_query": 15}, COLOUR, methods(0.1)
    ),
}
