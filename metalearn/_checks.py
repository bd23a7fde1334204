"""Checks of what users pass, raised before anything is computed.

Every message reads `{what} must {condition}; got {value}. {fix}`.
"""

import difflib
import math
from collections.abc import Iterable
from typing import Any

LONGEST = 300
"""Number of characters that a message shows of a value."""


def invalid(what: str, condition: str, got: Any, fix: str = "") -> str:
    """Return the text of an error in the library's one form."""
    text = str(got)
    got = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
    return f"{what} must {condition}; got {got}." + (f" {fix}" if fix else "")


def check_count(what: str, value: Any, *, minimum: int = 1, fix: str = "") -> None:
    """Raise unless `value` is an int of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(invalid(what, "be an int", repr(value), fix))
    if value < minimum:
        raise ValueError(invalid(what, f"be at least {minimum}", value, fix))


def check_bool(what: str, value: Any, *, fix: str = "") -> None:
    """Raise unless `value` is a bool."""
    if not isinstance(value, bool):
        raise TypeError(invalid(what, "be True or False", repr(value), fix))


def check_number(what: str, value: Any, *, fix: str = "") -> None:
    """Raise unless `value` is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(invalid(what, "be a number", repr(value), fix))
    if not math.isfinite(value):
        raise ValueError(invalid(what, "be finite", value, fix))


def check_positive(what: str, value: Any, *, fix: str = "") -> None:
    """Raise unless `value` is a finite number above zero."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(invalid(what, "be a number", repr(value), fix))
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(invalid(what, "be positive and finite", value, fix))


def check_fraction(what: str, value: Any, *, fix: str = "") -> None:
    """Raise unless `value` is a number from 0 to 1."""
    check_number(what, value, fix=fix)
    if not 0 <= value <= 1:
        raise ValueError(invalid(what, "be from 0 to 1", value, fix))


def check_decay(what: str, value: Any, *, fix: str = "") -> None:
    """Raise unless `value` is a number of at least 0 and below 1."""
    check_number(what, value, fix=fix)
    if not 0 <= value < 1:
        raise ValueError(invalid(what, "be at least 0 and below 1", value, fix))


def check_between(what: str, value: Any, low: float, high: float, *, fix: str = "") -> None:
    """Raise unless `value` is a number strictly between two others."""
    check_number(what, value, fix=fix)
    if not low < value < high:
        raise ValueError(invalid(what, f"be strictly between {low} and {high}", value, fix))


def check_range(what: str, value: Any, *, fix: str = "") -> None:
    """Raise unless `value` is a pair of finite numbers in ascending order."""
    numbers = isinstance(value, tuple | list) and all(isinstance(bound, int | float) for bound in value)
    if not (numbers and len(value) == 2):
        raise TypeError(invalid(what, "be a pair of numbers (low, high)", repr(value), fix))
    low, high = value
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(invalid(what, "be finite with low <= high", value, fix))


def check_choice(what: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise unless `value` is one of `choices`, naming the closest."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(invalid(what, f"be one of {choices}", repr(value), did_you_mean(value, choices)))


def did_you_mean(word: Any, choices: Iterable[Any]) -> str:
    """Return `Did you mean 'x'?` for the closest of `choices`, or nothing."""
    close = difflib.get_close_matches(str(word), [str(choice) for choice in choices], n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}?" if close else ""
