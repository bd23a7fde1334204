"""Class lists of the training, validation and test splits, which ship with the package."""

import json
from importlib import resources
from typing import Any, Literal

from metalearn._checks import check_choice, invalid

Split = Literal["train", "val", "test"]

SPLITS = ("train", "val", "test")


def class_names_of(name: str, split: Any) -> list[str]:
    """Return the classes that `splits/{name}.json` lists for a split.

    >>> class_names_of("fc100", "test")[:3]
    ['baby', 'beaver', 'bee']
    """
    check_choice("split", split, SPLITS)
    lists = resources.files("metalearn.data").joinpath("splits", f"{name}.json")
    try:
        names = json.loads(lists.read_text(encoding="utf-8"))[split]
        if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
            raise TypeError(f"{type(names).__name__} in place of names")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        got = f"{type(error).__name__}: {error}"
        condition, fix = "list the classes of every split", "Install metalearn anew."
        raise invalid(str(lists), condition, got, fix) from error
    return names
