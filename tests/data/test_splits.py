import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from metalearn.data._splits import SPLITS, class_names_of

SIZES = {"cifar_fs": (64, 16, 20), "fc100": (60, 20, 20)}


@pytest.mark.parametrize("name", SIZES)
def test_a_split_divides_the_classes_of_cifar100(name):
    names = [class_names_of(name, split) for split in SPLITS]
    assert tuple(map(len, names)) == SIZES[name]
    assert all(set(left).isdisjoint(right) for left, right in combinations(names, 2))
    assert len(set().union(*names)) == 100
    assert set().union(*names) == set().union(*(class_names_of("fc100", split) for split in SPLITS))


def test_fc100_keeps_superclasses_whole():
    for people in (
        {"baby", "boy", "girl", "man", "woman"},
        {"fox", "porcupine", "possum", "raccoon", "skunk"},
    ):
        assert people < set(class_names_of("fc100", "test"))
    assert {"bear", "leopard", "lion", "tiger", "wolf"} < set(class_names_of("fc100", "val"))
    assert {"aquarium_fish", "flatfish", "ray", "shark", "trout"} < set(
        class_names_of("fc100", "train")
    )


@pytest.mark.skipif(
    "METALEARN_DATA" not in os.environ, reason="needs METALEARN_DATA, a folder of archives"
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_cifar_fs_is_that_of_bertinetto(split):
    path = Path(os.environ["METALEARN_DATA"]) / "cifar_fs_train_val.npz"
    if not path.exists():
        pytest.skip("no cifar_fs_train_val.npz")
    with np.load(path) as archive:
        assert (
            class_names_of("cifar_fs", split)
            == archive["class_names"][archive["split"] == split].tolist()
        )


def test_an_unknown_split():
    with pytest.raises(
        ValueError, match=r"split must be one of .*; got 'tets'\. Did you mean 'test'\?"
    ):
        class_names_of("fc100", "tets")
