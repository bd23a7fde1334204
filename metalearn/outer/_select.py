"""Choice of parameters by pattern, callable or list."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch.nn as nn
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import did_you_mean, invalid, mistyped
from metalearn._patterns import matches

Selection: TypeAlias = bool | str | Callable[[str], bool] | Iterable[str]
"""True (all), False (none), a pattern such as "head.*" or "head", a predicate on names or a list of
patterns."""

MOST_SHOWN = 4
"""Largest number of names that are all shown."""


def trainable(module: nn.Module) -> dict[str, list[str]]:
    """Return all names of each parameter that requires grad, by the first of them."""
    names: dict[int, list[str]] = {}
    for name, param in module.named_parameters(remove_duplicate=False):
        if param.requires_grad:
            names.setdefault(id(param), []).append(name)
    return {aliases[0]: aliases for aliases in names.values()}


def shown(chosen: list[str], count: int) -> str:
    """Return which of `count` names are chosen, in a few words."""
    if len(chosen) == count:
        return f"all {count} tensors"
    listed = chosen if len(chosen) <= MOST_SHOWN else [*chosen[: MOST_SHOWN - 1], "...", chosen[-1]]
    return f"{len(chosen)} of {count} tensors: {', '.join(listed)}"


def select(what: str, selection: Selection, names: dict[str, list[str]]) -> list[str]:
    """Return the chosen names, in the order of `names`.

    Args:
        what: The argument's name, for errors.
        selection: What to choose. A pattern matches a parameter by any of its names; a module's
            name matches all parameters in it.
        names: Names to choose from, each with its aliases.

    Raises:
        TypeError: If the selection has a wrong type.
        ValueError: If a pattern or predicate matches nothing, or the list is empty.
    """
    if isinstance(selection, bool):
        return list(names) if selection else []
    if callable(selection) and not isinstance(selection, nn.Module):
        if not (chosen := _fitting(names, selection)):
            raise invalid(what, "choose at least one parameter", f"none of {list(names)}")
        return chosen
    patterns = _patterns(what, selection)
    take_all = f"{what}='*' takes all."
    if not patterns:
        raise invalid(what, "choose at least one parameter", "[]", take_all)
    matched: set[str] = set()
    for pattern in patterns:
        if not (hits := _fitting(names, partial(matches, pattern))):
            everything = [alias for aliases in names.values() for alias in aliases]
            modules = [alias.rpartition(".")[0] for alias in everything]
            fix = did_you_mean(pattern, everything + modules) or take_all
            raise invalid(what, f"match a trainable parameter of {everything}", brief(pattern), fix)
        matched.update(hits)
    return [name for name in names if name in matched]


def _fitting(names: dict[str, list[str]], fits: Callable[[str], bool]) -> list[str]:
    """Return the names of which an alias fits."""
    return [name for name, aliases in names.items() if any(map(fits, aliases))]


def _patterns(what: str, selection: Any) -> list[str]:
    # A tensor without axes cannot be iterated over, though its type can.
    is_one = isinstance(selection, str | Tensor | nn.Module) or not isinstance(selection, Iterable)
    patterns = [selection] if is_one else list(selection)
    if isinstance(selection, Mapping) or not all(isinstance(pattern, str) for pattern in patterns):
        fix = f"Write {what}='head.*', say."
        if isinstance(selection, Mapping):
            fix = f"Write models.split_parameters(model, masks), and then {what}='*.original'."
        condition = "be a pattern, a predicate or a list of patterns"
        raise mistyped(what, condition, brief(selection), fix)
    return patterns
