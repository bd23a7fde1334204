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
    """Return the names of the head's trainable parameters, without the T of a T-net, which never
    adapt.

    The head is the model's child of one of `NAMES`, or else the module whose parameters were
    registered last.

    Raises:
        ValueError: If there are several of these names, the module is the model itself or has no
            weight matrix, or the model's parameters cannot be learned.
    """
    check_parameters(model)
    constant = transforms(model)
    names = {name: aliases for name, aliases in trainable(model).items() if name not in constant}
    heads: dict[tuple[str, ...], str] = {}  # by their parameters: a module of two names is one
    for name in NAMES:
        params = [
            first
            for first, aliases in names.items()
            if any(alias.startswith(f"{name}.") for alias in aliases)
        ]
        if params:
            heads.setdefault(tuple(params), name)
    named = list(heads.values())
    if len(named) > 1:
        last = heads[max(heads, key=lambda params: list(names).index(params[-1]))]
        fix = f"Name what adapts: {method}(..., fast={last!r}), say."
        raise invalid(f"{method}'s head", "be one module", f"{named} by their names", fix)
    last = next(reversed(names), "")
    found = named[0] if named else last.rpartition(".")[0]
    if not found:
        if len({name.partition(".")[0] for name in names}) > 1:
            fix = f"Name what adapts: {method}(..., fast=[{last!r}])."
            got = f"parameters {list(names)[-2:]} of the model"
            raise invalid(f"{method}'s head", "be a module of its own", got, fix)
        return list(names) or ["*"]
    module = model.get_submodule(found)
    if not any(is_lazy(param) or param.dim() >= 2 for param in module.parameters()):
        fix = (
            f"Name what adapts: {method}(..., fast=['head.*']), say, or fast=[{found!r}] if it is "
            "this alone."
        )
        got = f"{found!r}, {type(module).__name__}"
        raise invalid(f"{method}'s head", "have a weight matrix", got, fix)
    return select("fast", found, names)
