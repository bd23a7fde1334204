"""Class names: distinct strings, in the order of the classes."""

from collections.abc import Sequence, Set
from typing import Any

from metalearn._brief import brief
from metalearn._checks import as_list, did_you_mean, invalid, mistyped

SEE = "See class_names for all of them."


def as_names(names: Any, num_classes: int) -> tuple[str, ...]:
    """Return one distinct name for each class; None numbers them."""
    if names is None:
        return tuple(map(str, range(num_classes)))
    fix = "Give each class one name, or leave class_names out to number them."
    strings = as_strings("class_names", names, fix)
    if len(strings) != num_classes:
        condition = f"have one name for each of {num_classes} classes"
        raise invalid("class_names", condition, len(strings), fix)
    if len(set(strings)) < len(strings):
        repeated = next(name for position, name in enumerate(strings) if name in strings[:position])
        raise invalid("class_names", "be distinct", f"{repeated!r} twice", fix)
    return strings


def as_strings(what: str, strings: Any, fix: str) -> tuple[str, ...]:
    """Return an ordered iterable of strings as a tuple."""
    condition = "be a sequence of strings"
    if isinstance(strings, str | Set):
        raise mistyped(what, condition, brief(strings), fix)
    strings = as_list(what, strings, condition, fix=fix)
    for string in strings:
        if not isinstance(string, str):
            raise mistyped(what, condition, f"{brief(string)} in it", fix)
    return tuple(map(str, strings))  # NumPy's strings become Python's


def label_of(name: Any, names: tuple[str, ...]) -> int:
    """Return the position of `name` in `names`."""
    if not isinstance(name, str):
        raise mistyped("class name", "be a string", brief(name), SEE)
    check_known((name,), names)
    return names.index(name)


def check_known(some: Sequence[str], names: Sequence[str]) -> None:
    """Raise unless all of `some` are among `names`."""
    known = set(names)
    if unknown := [name for name in some if name not in known]:
        many = len(unknown) > 1
        what, condition = ("class names", "be some") if many else ("class name", "be one")
        fix = did_you_mean(unknown[0], names) or SEE
        got = ", ".join(map(repr, unknown))
        raise invalid(what, f"{condition} of the {len(names)} class_names", got, fix)
