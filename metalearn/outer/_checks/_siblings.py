"""Which methods, classes and functions take an argument that one method does not."""

import inspect
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, TypeAlias

from metalearn.inner import UpdateRule
from metalearn.outer._base import MetaGradient

Owners: TypeAlias = dict[str, Callable[..., Any]]
LONGEST = 40
"""Number of characters up to which the proposed call repeats a value."""


def where_it_is(argument: str, value: Any, caller: str, given: Iterable[Any]) -> str:
    """Return who takes an argument and the call that gives it there, "" if nobody does.

    Args:
        argument: Its name.
        value: What it was to be.
        caller: The method that does not take it.
        given: The caller's other arguments, whose classes are proposed first: `inner.Adam`, not
            `inner.Momentum`, if the rule is one.
    """
    classes = [type(each) for each in given]
    for place, owners in _owners(caller):
        takers = [name for name, owner in owners.items() if argument in _parameters(owner)]
        if takers:
            first = next((name for name in takers if owners[name] in classes), takers[0])
            others = " and others" if len(takers) > 3 else ""
            call = place.format(_call(first, owners[first], argument, value))
            return f"It is an argument of {', '.join(takers[:3])}{others}: write {call}."
    return ""


def _owners(caller: str) -> list[tuple[str, Owners]]:
    """Return what takes arguments, the nearest first, each with the text around a call of it."""
    import metalearn
    from metalearn.outer._checks._options import METHODS

    outer, inner, models, data = map(_public, ("outer", "inner", "models", "data"))
    learner = f"outer.{caller if 'estimator' in METHODS[caller] else 'MetaLearner'}"
    return [
        ("{}", {name: outer[name] for name in outer if name.removeprefix("outer.") in METHODS}),
        (f"{learner}(..., estimator={{}})", _of_kind(outer, MetaGradient)),
        ("{} as the rule", _of_kind(inner, UpdateRule)),
        ("{}", {"fit": metalearn.fit, "evaluate": metalearn.evaluate}),
        ("{}", {**outer, **inner, **models, **data}),
    ]


def _public(package: str) -> Owners:
    module = import_module(f"metalearn.{package}")
    owners = {f"{package}.{name}": getattr(module, name) for name in module.__all__}
    return {name: owner for name, owner in owners.items() if not _is_warning(owner)}


def _is_warning(owner: Any) -> bool:
    return isinstance(owner, type) and issubclass(owner, Warning)


def _of_kind(owners: Owners, kind: type) -> Owners:
    """Return the concrete subclasses of a class."""
    return {
        name: owner
        for name, owner in owners.items()
        if isinstance(owner, type) and issubclass(owner, kind) and not inspect.isabstract(owner)
    }


def _parameters(owner: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the arguments that are written in a signature, by name."""
    named = inspect.signature(owner).parameters
    return {name: each for name, each in named.items() if each.kind is not each.VAR_KEYWORD}


def _call(name: str, owner: Callable[..., Any], argument: str, value: Any) -> str:
    """Return a call that gives the argument, and names what must be given beside it."""
    parameters = _parameters(owner)
    beside = [
        each.name + "=..." * (each.kind is each.KEYWORD_ONLY)
        for each in parameters.values()
        if each.default is each.empty and each.name != argument
    ]
    if len(parameters) < len(inspect.signature(owner).parameters):  # a method, with `Options`
        beside.append("num_steps=...")
    text = repr(value) if isinstance(value, bool | int | float | str | tuple | None) else "..."
    shown = text if len(text) <= LONGEST else "..."
    return f"{name}({', '.join([*beside, f'{argument}={shown}'])})"
