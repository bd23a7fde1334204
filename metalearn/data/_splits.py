"""Splits into classes to train, validate and test on: lists in the package, and random ones."""

import json
import math
from importlib import resources
from typing import Any, Literal

from metalearn._checks import as_list, check_choice, check_number, invalid

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


def part_sizes(fractions: Any, count: int) -> list[int]:
    """Return how many of `count` classes each part has, or raise.

    >>> part_sizes([0.7, 0.15, 0.15], 201)
    [141, 30, 30]
    """
    fix = "Pass fractions=[0.7, 0.15, 0.15], say."
    parts = as_list("fractions", fractions, "be a sequence of numbers", fix=fix)
    for part in parts:
        check_number("a fraction", part, fix=fix)
    if not parts or min(parts) <= 0 or not math.isclose(sum(parts), 1):
        raise invalid("fractions", "be positive and sum to 1", parts, fix)
    sizes = [math.floor(part * count + 1e-9) for part in parts]  # 0.15 * 20 is below 3
    for index in range(count - sum(sizes)):
        sizes[index] += 1
    if min(sizes) == 0:
        fewer = "Pass fewer or larger fractions."
        raise invalid("fractions", f"give each part one of {count} classes", parts, fewer)
    return sizes
