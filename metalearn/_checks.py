"""Checks of what users pass, raised before anything is computed.

Every message reads `{what} must {condition}; got {value}. {fix}`.
"""

import difflib
import inspect
import operator
import os
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any

import torch

from metalearn._brief import brief

LARGEST = torch.finfo(torch.float32).max
"""Largest number of float32, the dtype of most models."""
LONGEST = 300
"""Number of characters of a value that a message shows."""


def message(what: str, condition: str, got: Any, fix: str = "") -> str:
    """Return the text of an error in the library's one form."""
    text = brief(got) if isinstance(got, torch.Tensor | Mapping | list | tuple) else str(got)
    got = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
    return f"{what} must {condition}; got {got}." + (f" {fix}" if fix else "")


def invalid(what: str, condition: str, got: Any, fix: str = "") -> ValueError:
    """Return the error of a wrong value."""
    return ValueError(message(what, condition, got, fix))


def mistyped(what: str, condition: str, got: Any, fix: str = "") -> TypeError:
    """Return the error of a value of a wrong type."""
    return TypeError(message(what, condition, got, fix))


def check_count(what: str, value: Any, *, minimum: int = 1, fix: str = "") -> None:
    """Raise unless `value` is an int of at least `minimum`."""
    if not _is_int(value):
        fix = "Convert it: int(...)." if _stands_for_int(value) else fix
        raise mistyped(what, "be an int", brief(value), fix)
    if value < minimum:
        raise invalid(what, f"be at least {minimum}", value, fix)


def check_int64(what: str, value: Any, *, fix: str = "") -> None:
    """Raise unless `value` is an int that a tensor can hold."""
    check_count(what, value, minimum=-(2**63), fix=fix)
    if value >= 2**63:
        raise invalid(what, "be below 2**63", value, fix)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _stands_for_int(value: Any) -> bool:
    """Return whether this can be converted to an int, as those of NumPy can."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)


def check_bool(what: str, value: Any, *, fix: str = "") -> None:
    """Raise unless `value` is a bool."""
    if not isinstance(value, bool):
        raise mistyped(what, "be True or False", brief(value), fix)


def check_number(what: str, value: Any, *, fix: str = "") -> None:
    """Raise unless `value` is a finite number."""
    if not _is_number(value):
        raise mistyped(what, "be a number", brief(value), fix)
    if not is_finite(value):
        raise invalid(what, "be finite", value, fix)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_positive(what: str, value: Any, *, fix: str = "") -> None:
    """Raise unless `value` is a finite number above zero."""
    if _is_number(value) and not 0 < value <= LARGEST:
        raise invalid(what, "be positive and finite", value, fix)
    check_number(what, value, fix=fix)


def check_not_negative(what: str, value: Any, *, fix: str = "") -> None:
    """Raise unless `value` is a finite number of at least 0."""
    check_number(what, value, fix=fix)
    if value < 0:
        raise invalid(what, "be at least 0", value, fix)


def check_fraction(what: str, value: Any, *, fix: str = "") -> None:
    """Raise unless `value` is a number from 0 to 1."""
    check_number(what, value, fix=fix)
    if not 0 <= value <= 1:
        raise invalid(what, "be from 0 to 1", value, fix)


def check_decay(what: str, value: Any, *, fix: str = "") -> None:
    """Raise unless `value` is a number of at least 0 and below 1."""
    check_number(what, value, fix=fix)
    if not 0 <= value < 1:
        raise invalid(what, "be at least 0 and below 1", value, fix)


def check_between(what: str, value: Any, low: float, high: float, *, fix: str = "") -> None:
    """Raise unless `value` is a number strictly between two others."""
    check_number(what, value, fix=fix)
    if not low < value < high:
        raise invalid(what, f"be strictly between {low} and {high}", value, fix)


def check_range(what: str, value: Any, *, fix: str = "") -> None:
    """Raise unless `value` is a pair of finite numbers in ascending order."""
    is_pair = isinstance(value, tuple | list) and len(value) == 2
    if not (is_pair and all(map(_is_number, value))):
        raise mistyped(what, "be a pair of numbers (low, high)", brief(value), fix)
    low, high = value
    if not (is_finite(low) and is_finite(high) and low <= high and is_finite(high - low)):
        raise invalid(what, "be finite with low <= high, and high - low finite", value, fix)


def check_index(what: str, value: Any, length: int) -> None:
    """Raise unless `value` is an index into something of that length."""
    if not _is_int(value):
        raise mistyped(what, "be an int", brief(value), f"Write [x[i] for i in range({length})].")
    if not -length <= value < length:
        raise IndexError(message(what, f"be from {-length} to {length - 1}", value))


def check_choice(what: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise unless `value` is one of `choices`, naming the closest."""
    choices = list(choices)
    # By type first, since comparing a tensor or an array gives no single truth.
    if not any(isinstance(value, type(choice)) and value == choice for choice in choices):
        raise invalid(what, f"be one of {choices}", brief(value), did_you_mean(value, choices))


def check_kind(what: str, value: Any, kind: type | UnionType, expected: str, example: str) -> None:
    """Raise unless `value` is an instance of `kind`; a subclass is to be called first."""
    if not isinstance(value, kind):
        is_class = isinstance(value, type) and issubclass(value, kind)
        fix = f"Write {value.__name__}(...)." if is_class else f"Pass {example}."
        raise mistyped(what, f"be {expected}", brief(value), fix)


def check_function(
    what: str, value: Any, condition: str = "be a function", *, fix: str = ""
) -> None:
    """Raise unless `value` can be called and is no class."""
    if not callable(value) or isinstance(value, type):
        raise mistyped(what, condition, brief(value), fix)


def misfit(function: Any, count: int) -> str:
    """Return what is wrong with calling a function with `count` arguments, "" if nothing is."""
    try:
        called = function.forward if isinstance(function, torch.nn.Module) else function
        signature = inspect.signature(called, follow_wrapped=False)
    except (TypeError, ValueError):  # some built-in functions have none
        return ""
    try:
        signature.bind(*[None] * count)
    except TypeError as error:
        return f"({', '.join(signature.parameters)}): {error}"
    return ""


def as_list(what: str, value: Any, condition: str = "be a list", *, fix: str = "") -> list[Any]:
    """Return an iterable as a list; a tensor without axes only seems to be one."""
    try:
        return list(value)
    except TypeError as error:
        raise mistyped(what, condition, brief(value), fix) from error


def check_path(what: str, value: Any) -> None:
    """Raise unless `value` is a path that a file can have."""
    if not isinstance(value, str | os.PathLike):
        raise mistyped(what, "be a path", brief(value), "Pass a string or a pathlib.Path.")
    if "\0" in os.fsdecode(value):
        raise invalid(what, "have no null character", brief(value))


def check_generator(generator: Any) -> None:
    """Raise unless `generator` is a source of random numbers, or None."""
    if not isinstance(generator, torch.Generator | None):
        fix = "Pass generator=torch.Generator().manual_seed(0)."
        raise mistyped("generator", "be a torch.Generator or None", brief(generator), fix)


def as_device(device: Any) -> torch.device:
    """Return a device by its name; raise if there is none."""
    fix = "Pass device='cuda', say."
    if isinstance(device, bool) or not isinstance(device, str | int | torch.device):
        raise mistyped("device", "be a torch.device or its name", brief(device), fix)
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise invalid("device", "be a name that PyTorch knows", brief(device), fix) from error


def check_one_device(what: str, places: Iterable[Any]) -> None:
    """Raise unless tensors, or whatever has a `device`, are on the same one."""
    devices = list(dict.fromkeys(str(place.device) for place in places))
    if len(devices) > 1:
        raise invalid(what, "be on one device", devices, "Move them there: .to('cpu'), say.")


def is_finite(value: float) -> bool:
    """Return whether a number is finite in float32, the dtype of most models."""
    return abs(value) <= LARGEST


def did_you_mean(word: Any, choices: Iterable[Any]) -> str:
    """Return `Did you mean 'x'?` for the closest of `choices`, or nothing."""
    words = [str(choice) for choice in choices]
    close = difflib.get_close_matches(str(word), words, n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}?" if close else ""
