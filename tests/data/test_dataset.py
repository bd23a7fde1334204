"""Reading `ClassImages` from map-style data sets."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from metalearn.data import ClassImages

NUMBERS = np.random.default_rng(0)


def random_image(*shape):
    return NUMBERS.integers(256, size=shape, dtype=np.uint8)


class Dataset(list):
    """A list of items with the names of the classes, as torchvision has them."""

    classes = ("apple", "bear", "camel")


def test_dataset_groups_by_label():
    array = random_image(5, 6, 7, 3)
    labels = [2, 0, 2, np.int64(0), torch.tensor(2)]
    classes = ClassImages.from_dataset(list(zip(array, labels, strict=True)))
    assert classes.class_names == ("0", "2")
    assert np.array_equal(classes.of_class("0"), array[[1, 3]].transpose(0, 3, 1, 2))
    assert np.array_equal(classes.of_class("2"), array[[0, 2, 4]].transpose(0, 3, 1, 2))


def test_dataset_names_classes():
    items = [(random_image(6, 7), 2), (random_image(6, 7), 1)]
    assert ClassImages.from_dataset(Dataset(items)).class_names == ("bear", "camel")


@pytest.mark.parametrize(
    ("mode", "shape"), [("L", (6, 5)), ("RGB", (6, 5, 3)), ("RGBA", (3, 3, 4))]
)
def test_dataset_of_pillow_images(mode, shape):
    array = random_image(*shape)
    pixels = ClassImages.from_dataset([(Image.fromarray(array), 0)]).pixels[0]
    assert Image.fromarray(array).mode == mode
    assert np.array_equal(pixels, array[None] if mode == "L" else array.transpose(2, 0, 1))


def test_dataset_of_tensors():
    tensor = torch.from_numpy(random_image(3, 6, 5))
    assert torch.equal(ClassImages.from_dataset([(tensor, 0)]).pixels[0], tensor)


class Columns(list):
    """Items with columns, and features that name the labels, as Hugging Face data sets have
    them."""

    classes = ("wrong", "wrong", "wrong")
    features = {  # noqa: RUF012
        "image": object(),
        "fine": SimpleNamespace(names=["apple", "bear", "camel"]),
        "coarse": object(),
    }


def test_dataset_with_columns():
    array = random_image(3, 6, 5, 3)
    items = [
        {"image": Image.fromarray(image), "coarse": 0, "fine": fine}
        for image, fine in zip(array, (2, 1, 2), strict=True)
    ]
    classes = ClassImages.from_dataset(Columns(items), columns=["image", "fine"])
    assert classes.class_names == ("bear", "camel")
    assert np.array_equal(classes.of_class("camel"), array[[0, 2]].transpose(0, 3, 1, 2))
    assert ClassImages.from_dataset(Columns(items), columns=("image", "coarse")).class_names == (
        "0",
    )
    assert ClassImages.from_dataset(items, columns=("image", "fine")).class_names == ("1", "2")


def test_dataset_is_resized():
    image = Image.fromarray(random_image(9, 8, 3))
    items = [
        (image, 0),
        (image.crop((0, 0, 5, 7)), 0),
        (image.convert("P"), 1),
        (image.convert("RGBA"), 1),
    ]
    pixels = ClassImages.from_dataset(items, size=(4, 6)).pixels
    assert pixels.shape == (4, 3, 4, 6)
    expected = np.asarray(image.resize((6, 4), Image.Resampling.LANCZOS))
    assert np.array_equal(pixels[0], expected.transpose(2, 0, 1))


def test_resized_images_are_grey_if_all_are():
    grey, coloured = Image.fromarray(random_image(6, 5)), Image.fromarray(random_image(6, 5, 3))
    assert ClassImages.from_dataset([(grey, 0), (grey.convert("1"), 0)], size=4).image_shape == (
        1,
        4,
        4,
    )
    mixed = ClassImages.from_dataset([(grey, 0), (coloured, 0)], size=4).pixels
    alone = ClassImages.from_dataset([(grey, 0)], size=4).pixels
    assert torch.equal(mixed[0], alone[0].expand(3, 4, 4))


ITEM = {"img": Image.new("RGB", (6, 5)), "fine": 3}


@pytest.mark.parametrize(
    ("dataset", "arguments", "error", "message"),
    [
        (
            [ITEM],
            {},
            TypeError,
            r"pair \(image, label\); got <class 'dict'>.*columns=.*columns are \['img', 'fine'\]",
        ),
        (
            [ITEM],
            {"columns": ("image", "fine")},
            ValueError,
            (
                r"dataset\[0\] must have the column 'image'; got columns \['img', 'fine'\]\. Pass "
                r"columns="
            ),
        ),
        (
            [(ITEM["img"], 0)],
            {"columns": ("img", "fine")},
            TypeError,
            "be a mapping where columns are given; got <cl",
        ),
        (
            [ITEM],
            {"columns": "img"},
            TypeError,
            "columns must be two strings, image and label, or None; got 'img'",
        ),
        (
            [ITEM],
            {"columns": ("img",)},
            TypeError,
            r"columns must be two strings, .*got \('img',\)",
        ),
        (
            Columns([ITEM]),
            {"columns": ("img", "fine")},
            ValueError,
            (
                r"dataset\.features\['fine'\]\.names must name every label; got labels from 3 to "
                r"3 and 3 names"
            ),
        ),
        ([(ITEM["img"], 0)], {"size": 4.0}, TypeError, "size must be an int or a pair"),
        (
            [(random_image(6, 5), 0)],
            {"size": 4},
            TypeError,
            "be a Pillow image where size is given; got .*ndarray",
        ),
        (
            [(Image.new("I;16", (6, 5)), 0)],
            {"size": 4},
            ValueError,
            "have 8 bits a channel; got mode 'I;16'",
        ),
    ],
)
def test_columns_and_sizes_that_are_refused(dataset, arguments, error, message):
    with pytest.raises(error, match=message):
        ClassImages.from_dataset(dataset, **arguments)


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        (
            iter([]),
            TypeError,
            r"dataset must have len\(dataset\) and dataset\[i\].*Pass list\(dataset\)",
        ),
        (
            {"image": [], "label": []},
            TypeError,
            r"dataset\[i\]; got <class 'dict'>\. Pass one of its splits",
        ),
        ([], ValueError, "images must hold at least one class"),
        ([random_image(6, 5)], TypeError, r"dataset\[0\] must be a pair \(image, label\)"),
        (
            [(random_image(6, 5), "cat")],
            TypeError,
            r"dataset\[0\] must have an int as its label; got 'cat'",
        ),
        ([(random_image(6, 5), 1.0)], TypeError, r"must have an int as its label; got 1\.0"),
        (
            [(torch.rand(3, 6, 5), 0)],
            TypeError,
            r"dataset\[0\]'s image must be .* of uint8; got torch\.float32",
        ),
        (
            [(Image.new("P", (6, 5)), 0)],
            ValueError,
            r"have a mode in .*; got 'P'\..*convert\('RGB'\)",
        ),
        (
            [(random_image(n, 5), 0) for n in (6, 7)],
            ValueError,
            r"shape \(1, 6, 5\).* got \(1, 7, 5\)\. Pass",
        ),
        (
            Dataset([(random_image(6, 5), 3)]),
            ValueError,
            "name every label; got labels from 3 to 3 and 3 names",
        ),
    ],
)
def test_datasets_that_are_refused(dataset, error, message):
    with pytest.raises(error, match=message):
        ClassImages.from_dataset(dataset)
