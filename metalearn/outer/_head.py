"""Which parameters of a model are its head."""

import torch.nn as nn
from torch.nn.parameter import is_lazy

from metalearn._checks import invalid
from metalearn.inner._t_net import transforms
from metalearn.outer._checks._construction import check_parameters
from metalearn.outer._select import select, trainable

NAMES = ("head", "fc", "classifier", "output")
"""What heads are called."""


def head(model: nn.Module, method: str) -> list[str]:
    """Return the names of the head's trainable parameters, but for a T-net's T, which never adapt.

    The head is the model's child of one of `NAMES`, or else the module whose parameters were
    registered last.

    Raises:
        ValueError: If there are several of these names, the module is the model itself or has no
            weight matrix, or the model's parameters cannot be learned.
    """
    check_parameters(model)
    constant = transforms(model)
    names = {name: aliases for name, aliases in trainable(model).items() if name not in constant}
    what, advice = f"{method}'s head", f"Name what adapts: {method}(..., fast="
    heads: dict[tuple[str, ...], str] = {}  # by their parameters: a module of two names is one
    for name in NAMES:
        if params := tuple(first for first, aliases in names.items() if _is_in(name, aliases)):
            heads.setdefault(params, name)
    if len(heads) > 1:
        last = heads[max(heads, key=lambda params: list(names).index(params[-1]))]
        got = f"{list(heads.values())} by their names"
        raise invalid(what, "be one module", got, f"{advice}{last!r}), say.")
    last = next(reversed(names), "")
    found = next(iter(heads.values()), last.rpartition(".")[0])
    if not found and len({name.partition(".")[0] for name in names}) > 1:
        got = f"parameters {list(names)[-2:]} of the model"
        raise invalid(what, "be a module of its own", got, f"{advice}[{last!r}]).")
    if not found:
        return list(names) or ["*"]
    module = model.get_submodule(found)
    if not any(is_lazy(param) or param.dim() >= 2 for param in module.parameters()):
        got, fix = f"{found!r}, {type(module).__name__}", f"{advice}['head.*']), say"
        fix += f", or fast=[{found!r}] if it is this alone."
        raise invalid(what, "have a weight matrix", got, fix)
    return select("fast", found, names)


def _is_in(module: str, aliases: list[str]) -> bool:
    """Return whether one of a parameter's names is in a module."""
    return any(alias.startswith(f"{module}.") for alias in aliases)
