"""T-nets: a learned metric after every layer, constant during adaptation."""

from collections import OrderedDict
from typing import Any

import torch.nn as nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from metalearn._checks import check_kind, invalid
from metalearn._modules import replace_modules

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class TLayer(nn.Sequential):
    """A layer W followed by its matrix T, a 1x1 convolution after a convolution."""

    def __init__(self, layer: Any) -> None:
        like: Any = {"bias": False, "device": layer.weight.device, "dtype": layer.weight.dtype}
        if isinstance(layer, nn.Linear):
            transform: Any = nn.Linear(layer.out_features, layer.out_features, **like)
            nn.init.eye_(transform.weight)
        else:
            kind = next(kind for kind in CONVOLUTIONS if isinstance(layer, kind))
            transform = kind(layer.out_channels, layer.out_channels, 1, **like)
            nn.init.dirac_(transform.weight)
        super().__init__(OrderedDict(W=layer, T=transform))


def t_net(model: nn.Module) -> nn.Module:
    """Put a square matrix T after every linear and convolutional layer W: y = T (W x + b).

    The model is returned. T starts at the identity, so that the outputs do not change; after a
    convolution it is a 1x1 convolution. Parameters are named `<layer>.W.weight`, `<layer>.W.bias`
    and `<layer>.T.weight`. If all parameters but T are fast, as in `outer.TNet` and `outer.MTNet`,
    gradient descent moves y along T T^t times its gradient.

    Args:
        model: A module that calls its layers instead of reading their weights. It is changed in
            place, unless it is itself a layer.

    Raises:
        TypeError: If `model` is not a module.
        ValueError: If it has no such layer, or is a T-net already.

    References:
        Lee and Choi, "Gradient-based meta-learning with learned layerwise metric and subspace",
            ICML 2018 (eqs. 3, 17 of its first version, "Meta-learning with adaptive layerwise
            metric and subspace", arXiv:1801.05558v1).

    >>> [name for name, _ in t_net(nn.Sequential(nn.Linear(3, 2))).named_parameters()]
    ['0.W.weight', '0.W.bias', '0.T.weight']
    """
    example = "the module itself: models.mlp(1, [40], 1)"
    check_kind("t_net's model", model, nn.Module, "an nn.Module", example)
    if transforms(model):
        raise invalid("t_net's model", "be a plain network", "a T-net already", "Call t_net once.")
    if not any(map(_has_transform, model.modules())):
        raise invalid("t_net's model", "have linear or convolutional layers", model)
    return replace_modules(model, lambda layer: TLayer(layer) if _has_transform(layer) else None)


def transforms(model: nn.Module) -> list[str]:
    """Return the names of all T in a T-net, including every name of shared ones."""
    modules = model.named_modules(remove_duplicate=False)
    layers = [name for name, module in modules if isinstance(module, TLayer)]
    return [f"{name}.T.weight".lstrip(".") for name in layers]


def _has_transform(module: nn.Module) -> bool:
    # Attention reads the weight of its output layer, which has this class, instead of calling it.
    is_read = isinstance(module, NonDynamicallyQuantizableLinear)
    return isinstance(module, (nn.Linear, *CONVOLUTIONS)) and not is_read
