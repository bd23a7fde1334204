"""Activations of learned rules, given by name or as a function."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from metalearn._checks import check_choice, check_function, invalid

Activation: TypeAlias = str | Callable[[Tensor], Tensor]
"""A name such as "relu", or an elementwise function."""

NAMED: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "silu": F.silu,
    "elu": F.elu,
    "softplus": F.softplus,
    "identity": torch.positive,
}


def activate(activation: Activation, x: Tensor) -> Tensor:
    """Apply an activation."""
    return NAMED[activation](x) if isinstance(activation, str) else activation(x)


def check_activation(what: str, activation: Any) -> None:
    """Raise unless `activation` is one of the names or a function."""
    if isinstance(activation, str):
        check_choice(what, activation, NAMED)
        return
    check_function(what, activation, "be a name or a function", fix='Write activation="tanh", say.')
    if (shape := tuple(activation(torch.zeros(2, 3)).shape)) != (2, 3):
        raise invalid(what, "be elementwise", f"shape {shape} for a tensor of shape (2, 3)")
