"""Choice of parameters by pattern, callable or list."""

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch.nn as nn
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import did_you_mean, invalid, mistyped

Selection: TypeAlias = bool | str | Callable[[str], bool] | Iterable[str]
"""True (all), False (none), a pattern such as "head.*" or "head", a predicate on names, or a list
of patterns."""

MOST_SHOWN = 4
"""Number of names that are all shown."""


def trainable(module: nn.Module) -> dict[str, list[str]]:
    """Return every parameter that requires grad: its first name, and all names of it where it is
    tied.
    """
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
        selection: What is chosen. A pattern matches a parameter under any of its names, and a
            module's name matches all parameters in it.
        names: Names to choose from, each with its aliases.

    Raises:
        TypeError: If the selection is of no accepted kind.
        ValueError: If a pattern matches nothing.
    """
    if isinstance(selection, bool):
        return list(names) if selection else []
    if callable(selection) and not isinstance(selection, nn.Module):
        chosen = [
            name for name, aliases in names.items() if any(selection(alias) for alias in aliases)
        ]
        if not chosen:
            raise invalid(what, "choose at least one parameter", f"none of {list(names)}")
        return chosen
    patterns = [selection] if isinstance(selection, str) else _patterns(what, selection)
    if not patterns:
        raise invalid(what, "choose at least one parameter", "[]", f"{what}='*' takes all.")
    matched = set()
    for pattern in patterns:
        hits = {
            name
            for name, aliases in names.items()
            if any(_matches(pattern, alias) for alias in aliases)
        }
        if not hits:
            everything = [alias for aliases in names.values() for alias in aliases]
            modules = [alias.rpartition(".")[0] for alias in everything]
            fix = did_you_mean(pattern, everything + modules) or f"{what}='*' takes all."
            raise invalid(what, f"match a trainable parameter of {everything}", brief(pattern), fix)
        matched |= hits
    return [name for name in names if name in matched]


def _patterns(what: str, selection: Any) -> list[str]:
    # which without axes only seems so
    is_many = isinstance(selection, Iterable) and not isinstance(selection, Tensor)
    patterns = list(selection) if is_many else [selection]
    if isinstance(selection, nn.Module) or not all(
        isinstance(pattern, str) for pattern in patterns
    ):
        fix = f"Write {what}='head.*', say."
        raise mistyped(
            what, "be a pattern, a predicate or a list of patterns", brief(selection), fix
        )
    return patterns


def _matches(pattern: str, name: str) -> bool:
    # Errors and state_dict say "model.head.weight", so that is understood too.
    patterns = (pattern, pattern.removeprefix("model."))
    return any(fnmatchcase(name, each) or fnmatchcase(name, each + ".*") for each in patterns)
