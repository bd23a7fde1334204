"""What errors show of a user's values: tensors by shape and dtype, of many entries a few."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any

from torch.nn.parameter import is_lazy

MOST = 20
"""Number of entries that are shown of a list, tuple or mapping."""


def brief(value: Any) -> str:
    """Return the `repr` of a value without the numbers in its tensors and arrays."""
    kind = type(value).__name__
    shape: Any = None if is_lazy(value) else getattr(value, "shape", None)
    if shape and hasattr(value, "dtype"):
        return f"{kind} {tuple(shape)} of {value.dtype}"
    if isinstance(value, Mapping):
        text = "{" + _entries((f"{key!r}: ", entry) for key, entry in value.items()) + "}"
        return text if type(value) is dict else f"{kind}({text})"
    if (names := _names(value)) is not None:
        return f"{kind}({_entries((f'{name}=', getattr(value, name)) for name in names)})"
    if type(value) is list:
        return f"[{_entries(('', entry) for entry in value)}]"
    if type(value) is tuple:
        return f"({_entries(('', entry) for entry in value)}{',' * (len(value) == 1)})"
    return repr(value)


def _names(value: Any) -> Iterable[str] | None:
    """Return the names of a named tuple's or a dataclass's parts; None of anything else."""
    if isinstance(value, tuple):
        return getattr(value, "_fields", None)
    # as `dataclass` makes it
    if is_dataclass(value) and hasattr(type(value).__repr__, "__wrapped__"):
        return [field.name for field in fields(value) if field.repr]
    return None


def _entries(entries: Iterable[tuple[str, Any]]) -> str:
    first = list(islice(entries, MOST + 1))
    return ", ".join(name + brief(entry) for name, entry in first[:MOST]) + ", ..." * (
        len(first) > MOST
    )
