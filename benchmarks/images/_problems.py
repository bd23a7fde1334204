"""What is classified: images, the size of a task, and the network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

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
        archives: What is read of METALEARN_DATA.
        num_tasks: Tasks to train on, where the time is not what ends it.
        validate_every: Tasks between two validations then.
        meta_batch_size: Tasks in a meta-step then, if not as many as the method has.
    """

    images: Callable[[], dict[str, data.ClassImages]]
    sizes: dict[str, int]
    model: dict[str, Any]
    methods: dict[str, Method]
    archives: tuple[str, ...] = ()
    num_tasks: int = 240_000
    validate_every: int = 10_000
    meta_batch_size: int | None = None

    def read(self, device: str) -> dict[str, data.ClassImages]:
        """Return the classes of every split on a device."""
        return {split: classes.to(device) for split, classes in self.images().items()}

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


def mini_imagenet() -> dict[str, data.ClassImages]:
    """Return Ravi and Larochelle's split."""
    root = archive("mini_imagenet")
    return {split: data.mini_imagenet(root, split) for split in SPLITS}


def cub() -> dict[str, data.ClassImages]:
    """Return the 200 birds, dealt at random into 140, 30 and 30, as the thesis does."""
    root = archive("CUB_200_2011").parent
    parts = [data.cub(root, split) for split in SPLITS]
    birds = data.ClassImages(
        [part.of_class(name) for part in parts for name in part.class_names],
        [name for part in parts for name in part.class_names],
        layout="CHW",
    )
    dealt = birds.random_split([0.7, 0.15, 0.15], torch.Generator().manual_seed(0))
    return dict(zip(SPLITS, dealt, strict=True))


def mini_imagenet_to_cub() -> dict[str, data.ClassImages]:
    """Return miniImageNet to train on, and its test classes and those of the birds."""
    return {**mini_imagenet(), "CUB": cub()["test"]}


def cub_to_mini_imagenet() -> dict[str, data.ClassImages]:
    """Return birds to train on, and their test classes and those of miniImageNet."""
    return {**cub(), "miniImageNet": mini_imagenet()["test"]}


SPLITS: tuple[Any, ...] = ("train", "val", "test")
GREY = {"in_channels": 1, "num_filters": 32}
COLOUR = {"in_channels": 3, "num_filters": 32, "image_size": 32, "downsample": "max_pool"}
LARGE = {"in_channels": 3, "num_filters": 32, "image_size": 84, "downsample": "max_pool"}
CHARACTERS = ("omniglot.npz",)
OTHER_DOMAIN = ("cifar_fs_train_val.npz", "caltech101_32.npz")


def _omniglot(n_way: int, k_shot: int, shuffled: bool) -> Problem:
    sizes = {"n_way": n_way, "k_shot": k_shot, "num_query": 5}
    images = omniglot_shuffled if shuffled else omniglot
    depths = (n_way, k_shot) == (10, 5)
    model = {**GREY, "num_filters": 64 if depths else 32}
    methods = _depths.OMNIGLOT if depths else METHODS
    # Finn et al. (2017), whose 60,000 iterations Arnold et al. take over
    size = 16 if n_way == 20 else 32
    protocol = {"num_tasks": 60_000 * size, "validate_every": 2_500 * size, "meta_batch_size": size}
    return Problem(images, sizes, model, methods, CHARACTERS, **protocol)


def _mini_imagenet(k_shot: int) -> Problem:
    sizes = {"n_way": 5, "k_shot": k_shot, "num_query": 15}
    return Problem(mini_imagenet, sizes, LARGE, methods(0.01), ("mini_imagenet",))


PROBLEMS = {
    **{
        f"omniglot_{n_way}w{k_shot}s{'_shuffled' * shuffled}": _omniglot(n_way, k_shot, shuffled)
        for n_way, k_shot in ((5, 1), (5, 5), (10, 5), (20, 1), (20, 5))
        for shuffled in (False, True)
    },
    "cifar_fs_10w3s": Problem(
        cifar_fs,
        {"n_way": 10, "k_shot": 3, "num_query": 5},
        {"in_channels": 3, "num_filters": 32},
        _depths.CIFAR_FS,
        OTHER_DOMAIN,
    ),
    **{
        f"cifar_fs_5w{k_shot}s": Problem(
            cifar_fs,
            {"n_way": 5, "k_shot": k_shot, "num_query": 15},
            COLOUR,
            methods(0.1),
            OTHER_DOMAIN,
        )
        for k_shot in (1, 5)
    },
    **{f"mini_imagenet_5w{k_shot}s": _mini_imagenet(k_shot) for k_shot in (1, 5)},
    "mini_imagenet_10w1s": Problem(
        mini_imagenet,
        {"n_way": 10, "k_shot": 1, "num_query": 15},
        LARGE,
        _depths.MINI_IMAGENET,
        ("mini_imagenet",),
    ),
}
