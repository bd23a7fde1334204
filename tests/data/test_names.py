import numpy as np
import pytest

from metalearn.data._names import as_names, as_strings, label_of

NAMES = ("beta", "alpha")


@pytest.mark.parametrize(
    "given", [NAMES, list(NAMES), np.array(NAMES), dict.fromkeys(NAMES), iter(NAMES)]
)
def test_names_can_come_from_any_ordered_iterable(given):
    names = as_names(given, 2)
    assert names == NAMES
    assert all(type(name) is str for name in names)


def test_names_are_numbers_by_default():
    assert as_names(None, 3) == ("0", "1", "2")


def test_the_label_is_the_position():
    assert [label_of(name, NAMES) for name in NAMES] == [0, 1]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: as_names(5, 2),
            TypeError,
            r"class_names must be a sequence of strings; got 5\. Give each class one name",
        ),
        (
            lambda: as_names("ab", 2),
            TypeError,
            "class_names must be a sequence of strings; got 'ab'",
        ),
        (
            lambda: as_names({"a"}, 1),
            TypeError,
            "class_names must be a sequence of strings; got {'a'}",
        ),
        (
            lambda: as_names([0, 1], 2),
            TypeError,
            "class_names must be a sequence of strings; got 0 in it",
        ),
        (
            lambda: as_names(["a"], 2),
            ValueError,
            "class_names must have one name for each of 2 classes; got 1",
        ),
        (
            lambda: as_names(["a", "a"], 2),
            ValueError,
            "class_names must be distinct; got 'a' twice. Give each class one name",
        ),
        (
            lambda: as_strings("names", None, "Pass x."),
            TypeError,
            r"names must be .* strings; got None\. Pass x",
        ),
        (
            lambda: label_of(0, NAMES),
            TypeError,
            "class name must be a string; got 0. See class_names",
        ),
        (
            lambda: label_of("alpa", NAMES),
            ValueError,
            r"one of the 2 class_names; got 'alpa'\. .* 'alpha'\?",
        ),
        (
            lambda: label_of("x", NAMES),
            ValueError,
            r"class_names; got 'x'\. See class_names for all of them\.",
        ),
    ],
)
def test_names_that_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
