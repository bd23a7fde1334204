"""Hyperparameters of rules, and of the rules and schedules in them, by their path."""

from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from metalearn._modules import below

T = TypeVar("T")


def hyperparameters(rule: Any) -> dict[str, tuple[Any, Any]]:
    """Return values and types of all fields by path, such as "lr", "rule.lr" or "schedule.then"."""
    found = {}
    for name, kind in _field_types(type(rule)).items():
        value = getattr(rule, name)
        found[name] = value, kind
        if is_dataclass(value) and not isinstance(value, type):
            found |= {f"{name}.{path}": entry for path, entry in hyperparameters(value).items()}
    return found


def replaced(instance: T, values: dict[str, Any]) -> T:
    """Return a copy of a dataclass with other values at some paths.

    They are not checked: tensors stand for learned numbers.
    """
    # copy.copy does not compile in torch 2.11.
    copy = object.__new__(type(instance))
    own = {field.name: getattr(instance, field.name) for field in fields(instance)}  # type: ignore[arg-type]
    for name, value in (own | vars(instance)).items():
        if name in values:
            value = values[name]
        elif inside := below(name, values):
            value = replaced(value, inside)
        object.__setattr__(copy, name, value)
    return copy


def is_of_floats(kind: Any) -> bool:
    """Return whether a type is a float, a tuple of floats or an optional float."""
    if isinstance(kind, str):
        return "float" in kind
    return kind is float or any(map(is_of_floats, get_args(kind)))


def _field_types(kind: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields, as texts where they cannot be resolved."""
    hints = {}
    with suppress(Exception):
        hints = get_type_hints(kind)
    return {field.name: hints.get(field.name, field.type) for field in fields(kind)}
