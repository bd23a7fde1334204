import copy
import pickle

import numpy as np
import pytest
import torch

from metalearn.data import ClassImages


def images(*num_images, shape=(3, 6, 6)):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(256, (n, *shape), dtype=torch.uint8, generator=generator) for n in num_images
    ]


ONE, OBLONG = images(1), images(1, shape=(6, 5))


@pytest.fixture
def ragged():
    return ClassImages(images(2, 4, 3), ["a", "b", "c"])


def test_it_knows_its_classes(ragged):
    assert len(ragged) == 3
    assert ragged.class_names == ("a", "b", "c")
    assert ragged.num_images == (2, 4, 3)
    assert ragged.counts.tolist() == [2, 4, 3]
    assert ragged.starts.tolist() == [0, 2, 6]
    assert ragged.image_shape == (3, 6, 6)
    assert ragged.pixels.shape == (9, 3, 6, 6)
    assert ragged.device == torch.device("cpu")


def test_names_are_numbers_by_default():
    assert ClassImages(images(2, 2)).class_names == ("0", "1")


def test_repr(ragged):
    assert repr(ragged) == "ClassImages(3 classes x 2 to 4 images, 3x6x6, cpu)"
    assert repr(ragged.select("b")) == "ClassImages(1 classes x 4 images, 3x6x6, cpu)"


def test_of_class_is_a_view(ragged):
    for name, expected in zip("abc", images(2, 4, 3), strict=True):
        assert torch.equal(ragged.of_class(name), expected)
    assert ragged.of_class("a").data_ptr() == ragged.pixels.data_ptr()


def test_select_takes_classes_in_the_order_given(ragged):
    selected = ragged.select(["c", "a"])
    assert selected.class_names == ("c", "a")
    assert selected.num_images == (3, 2)
    assert torch.equal(selected.pixels, torch.cat([ragged.of_class("c"), ragged.of_class("a")]))
    assert len(ragged) == 3


def test_rotated_turns_counterclockwise(ragged):
    rotated = ragged.rotated((0, 90, -90))
    assert rotated.class_names[3:] == (
        "a/rot90",
        "b/rot90",
        "c/rot90",
        "a/rot270",
        "b/rot270",
        "c/rot270",
    )
    assert rotated.num_images == ragged.num_images * 3
    for name in ragged.class_names:
        original = ragged.of_class(name)
        assert torch.equal(rotated.of_class(name), original)
        # The top right corner goes to the top left.
        assert torch.equal(rotated.of_class(f"{name}/rot90")[..., 0, 0], original[..., 0, -1])
        assert torch.equal(rotated.of_class(f"{name}/rot270").rot90(1, (2, 3)), original)


def test_rotated_four_times_by_default(ragged):
    assert len(ragged.rotated()) == 12
    assert len(ragged.rotated([180])) == 3


def test_images_that_are_not_square_turn_by_180():
    oblong = ClassImages(images(2, shape=(6, 5)))
    assert torch.equal(oblong.rotated([180]).pixels, oblong.pixels.flip(-2, -1))


def test_tiny_images_keep_their_layout():
    tiny = ClassImages(images(2, 3, shape=(4, 4)))
    assert tiny.rotated().select(["1/rot90"]).to("cpu").image_shape == (1, 4, 4)


def test_to_moves_everything(ragged):
    moved = ragged.to("meta")
    assert {moved.device.type, moved.pixels.device.type, moved.counts.device.type} == {"meta"}
    assert moved.num_images == ragged.num_images
    assert ragged.device.type == "cpu"


def test_to_shares_memory_where_the_images_are(ragged):
    moved = ragged.to("cpu")
    assert moved is not ragged
    assert moved.pixels.data_ptr() == ragged.pixels.data_ptr()
    assert torch.equal(moved.select("c").pixels, ragged.of_class("c"))


def test_methods_keep_the_type():
    class Birds(ClassImages):
        pass

    birds = Birds(images(2, 3))
    for other in (birds.to("cpu"), birds.select("1"), birds.rotated([90])):
        assert type(other) is Birds


def test_it_copies_and_pickles(ragged):
    for other in (copy.deepcopy(ragged), pickle.loads(pickle.dumps(ragged))):
        assert torch.equal(other.pixels, ragged.pixels)
        assert other.class_names == ragged.class_names


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ClassImages(ONE * 2, ["a"]),
            ValueError,
            "have one name for each of 2 classes; got 1",
        ),
        (
            lambda: ClassImages(ONE * 2, ["a", "a"]),
            ValueError,
            "class_names must be distinct; got 'a' twice",
        ),
        (
            lambda: ClassImages(ONE * 2, "ab"),
            TypeError,
            "class_names must be a sequence of strings",
        ),
        (
            lambda: ClassImages(ONE * 2, [0, 1]),
            TypeError,
            "class_names must be a sequence of strings",
        ),
        (
            lambda: ClassImages(ONE).select(3),
            TypeError,
            r"names must be a sequence of strings; got 3\. Pass sel",
        ),
        (
            lambda: ClassImages(ONE).select(["0", 3]),
            TypeError,
            "names must be a sequence of strings; got 3 in",
        ),
        (lambda: ClassImages(ONE).of_class(0), TypeError, "class name must be a string; got 0"),
        (
            lambda: ClassImages(ONE, ["Greek"]).select(["Latin", "Greek", "Thai"]),
            ValueError,
            "class names must be some of the 1 class_names; got 'Latin', 'Thai'. See",
        ),
        (lambda: ClassImages(ONE).select([]), ValueError, "names must hold at least one name"),
        (lambda: ClassImages(ONE).select(["0", "0"]), ValueError, "class_names must be distinct"),
        (
            lambda: ClassImages(ONE, ["Greek"]).select(["greek"]),
            ValueError,
            r"Did you mean 'Greek'\?",
        ),
        (
            lambda: ClassImages(ONE, ["Greek"]).of_class("xyz"),
            ValueError,
            "got 'xyz'. See class_names",
        ),
        (
            lambda: ClassImages(ONE).rotated([45]),
            ValueError,
            r"multiples of 90; got \(45,\)\. Pass rotated\(",
        ),
        (
            lambda: ClassImages(ONE).rotated([90, -270]),
            ValueError,
            "angles must be distinct multiples of 90",
        ),
        (
            lambda: ClassImages(ONE).rotated([]),
            ValueError,
            "angles must be distinct multiples of 90",
        ),
        (
            lambda: ClassImages(ONE).rotated(90),
            TypeError,
            r"angles must be a sequence of ints; got 90\. Pass rot",
        ),
        (
            lambda: ClassImages(ONE).rotated("90"),
            TypeError,
            "angles must be a sequence of ints; got '90'",
        ),
        (
            lambda: ClassImages(ONE).rotated([90.0]),
            TypeError,
            r"angles must be a sequence of ints; got \[90\.0",
        ),
        (
            lambda: ClassImages(ONE).rotated([False]),
            TypeError,
            "angles must be a sequence of ints; got",
        ),
        (
            lambda: ClassImages(OBLONG).rotated(),
            ValueError,
            r"square.*Pass rotated\(angles=\(0, 180\)\)",
        ),
        (
            lambda: ClassImages.from_folder(".", size=0),
            ValueError,
            "size must be at least 1; got 0",
        ),
        (
            lambda: ClassImages.from_folder(".", size=8.0),
            TypeError,
            "size must be an int or a pair",
        ),
        (
            lambda: ClassImages.from_folder(".", size=True),
            TypeError,
            "size must be an int; got True. Pass size=",
        ),
        (
            lambda: ClassImages.from_folder(".", (8, 8.0)),
            TypeError,
            r"size must be an int; got 8\.0",
        ),
        (
            lambda: ClassImages.from_folder(".", 8, mode=3),
            TypeError,
            "mode must be a string; got 3. Pass mode=",
        ),
        (
            lambda: ClassImages.from_folder(".", (8, 8, 3)),
            TypeError,
            r"pair \(height, width\); got \(8, 8, 3\)",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_random_split_deals_every_class_once():
    images = ClassImages(torch.arange(201).byte()[:, None, None, None].expand(-1, 2, 3, 3))

    def split(seed):
        return images.random_split([0.7, 0.15, 0.15], torch.Generator().manual_seed(seed))

    parts = split(0)
    assert [len(part) for part in parts] == [141, 30, 30]
    names = [name for part in parts for name in part.class_names]
    assert sorted(names) == sorted(images.class_names)
    assert names != list(images.class_names)
    assert all(
        torch.equal(part.of_class(name), images.of_class(name))
        for part in parts
        for name in part.class_names[:3]
    )
    again, other = split(0), split(1)
    assert [part.class_names for part in again] == [part.class_names for part in parts]
    assert other[2].class_names != parts[2].class_names


def test_fractions_may_be_numpys():
    images = ClassImages(torch.zeros(4, 2, 3, 3, dtype=torch.uint8))
    assert [len(part) for part in images.random_split(np.array([0.5, 0.5]))] == [2, 2]


@pytest.mark.parametrize(
    ("fractions", "error", "text"),
    [
        ([0.5, 0.4], ValueError, "be positive and sum to 1"),
        ([1.5, -0.5], ValueError, "be positive and sum to 1"),
        ([], ValueError, "be positive and sum to 1"),
        ([0.98, 0.01, 0.01], ValueError, "give each part one of 3 classes"),
        (0.5, TypeError, "be a sequence of numbers"),
        (["0.5", "0.5"], TypeError, "a fraction must be a number"),
        ([True, 0.0], TypeError, "a fraction must be a number"),
    ],
)
def test_fractions_of_a_split(fractions, error, text):
    images = ClassImages(torch.zeros(3, 2, 3, 3, dtype=torch.uint8))
    with pytest.raises(error, match=text):
        images.random_split(fractions)
