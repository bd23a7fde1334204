import numpy as np
import pytest
import torchvision.datasets

from metalearn.data import cifar_fs, fc100
from metalearn.data._splits import SPLITS, class_names_of

NAMES = sorted(name for split in SPLITS for name in class_names_of("fc100", split))


class CIFAR100:
    """A small CIFAR-100: two training images and one test image of each class, of the colour of its
    label."""

    calls = []  # noqa: RUF012
    classes = NAMES

    def __init__(self, root, train, download):
        self.calls.append((root, train, download))
        self.targets = [*range(100), *range(99, -1, -1)] if train else [*range(100)]
        self.data = np.empty((len(self.targets), 32, 32, 3), np.uint8)
        self.data[:] = np.array(self.targets)[:, None, None, None]
        self.data[..., 2] = 7 + train


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(CIFAR100, "calls", [])
    monkeypatch.setattr(torchvision.datasets, "CIFAR100", CIFAR100)


@pytest.mark.parametrize("read", [cifar_fs, fc100])
@pytest.mark.parametrize("split", SPLITS)
def test_classes_are_those_of_the_split(read, split):
    images = read("root", split)
    assert list(images.class_names) == class_names_of(read.__name__, split)
    assert set(images.num_images) == {3}
    assert images.image_shape == (3, 32, 32)
    for name in images.class_names:
        assert (images.of_class(name)[:, :2] == NAMES.index(name)).all()


def test_training_and_test_set_are_joined():
    assert cifar_fs("root", "test", download=True).of_class("fox")[:, 2, 0, 0].tolist() == [8, 8, 7]
    assert CIFAR100.calls == [("root", True, True), ("root", False, True)]


def test_missing_files(monkeypatch, tmp_path):
    monkeypatch.undo()
    message = (
        r"root must hold cifar-100-python; got .*Pass download=True, or unpack "
        r"https://.*\.tar\.gz there\."
    )
    with pytest.raises(FileNotFoundError, match=message):
        fc100(tmp_path, "val")


def test_classes_that_the_data_lack(monkeypatch):
    monkeypatch.setattr(
        CIFAR100, "classes", [name for name in NAMES if name not in ("fox", "whale")]
    )
    with pytest.raises(
        ValueError, match=r"class names must be some of the 98 class_names; got 'fox', 'whale'\. "
    ):
        fc100("root", "test")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"split": "validation"},
            ValueError,
            r"split must be one of \['train', 'val', 'test'\]; got 'validation'",
        ),
        (
            {"split": "val", "download": "yes"},
            TypeError,
            "download must be True or False; got 'yes'",
        ),
    ],
)
def test_arguments_that_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        cifar_fs("root", **arguments)
