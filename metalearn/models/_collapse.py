"""The plain models that linear networks and T-nets are equal to."""

import copy
from itertools import groupby
from typing import Any, cast

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._attributes import deep_copied
from metalearn._checks import check_kind, invalid
from metalearn._modules import replace_modules

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def collapse(model: nn.Module) -> nn.Module:
    """Return the plain model of the same function, with products of matrices multiplied out.

    A layer W with the T of `inner.t_net` becomes one layer T W of W's name, and linear layers that
    follow one another in an `nn.Sequential` become one, of the first's name or number; numbers
    after it move up. A layer with hooks, parametrizations or a class of its own stays as it is. A
    model without such products is copied.

    Outputs are equal to rounding, gradient descent is not. An adapted model is
    `collapse(learner.adapt(support)[0])`, the learned start `collapse(learner.model)`.

    Args:
        model: A module that calls its layers, instead of reading their weights or indexing an
            `nn.Sequential`. It is left unchanged.

    Returns:
        A new module that shares no tensor with `model`.

    Raises:
        TypeError: If `model` is not a module.
        ValueError: If it is a learner, or a layer in front of a T cannot be multiplied.

    References:
        Arnold et al., "Decoupling adaptation from modeling with meta-optimizers for meta learning",
        2019 (sections 4 and 5.1). Lee and Choi, "Gradient-based meta-learning with learned
        layerwise metric and subspace", ICML 2018 (eq. 15 of its first version, arXiv:1801.05558v1).

    >>> from metalearn import models
    >>> collapse(models.linear_network(100, [64, 64], 5))
    Sequential(
      (0): Linear(in_features=100, out_features=5, bias=False)
    )
    """
    _check(model)
    plain = replace_modules(deep_copied(model), _without_transform)
    for module in plain.modules():
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            _join(module)
    return plain


def _without_transform(module: nn.Module) -> nn.Module | None:
    """Return the layer that a W and its T are, None of other modules."""
    from metalearn.inner._t_net import TLayer  # imports this package

    return _product(module.W, module.T) if isinstance(module, TLayer) else None


def _join(sequence: nn.Sequential) -> None:
    """Replace every run of linear layers by one."""
    joined: list[tuple[str, nn.Module]] = []
    named = sequence._modules.items()
    for is_linear, run in groupby(named, lambda entry: _is_plain(entry[1], nn.Linear)):
        layers = list(run)
        if is_linear:
            (name, product), *rest = layers
            for _, layer in rest:
                product = _product(product, layer)
            layers = [(name, product)]
        joined += layers
    if [name for name, _ in named] == [str(index) for index in range(len(named))]:
        joined = [(str(index), module) for index, (_, module) in enumerate(joined)]
    sequence._modules = dict(joined)


def _product(first: Any, second: Any) -> Any:
    """Return the layer that does what `first` and then `second`, linear or 1x1, do."""
    layer, matrix = copy.deepcopy(first), second.weight.detach().flatten(1)
    weight = torch.tensordot(matrix, _dense(first), 1)
    bias = None if first.bias is None else matrix @ first.bias.detach()
    if second.bias is not None:
        bias = second.bias.detach() + (0 if bias is None else bias)
    layer.weight = nn.Parameter(weight, first.weight.requires_grad)
    layer.bias = None if bias is None else nn.Parameter(bias, first.weight.requires_grad)
    if isinstance(layer, nn.Linear):
        layer.out_features = len(weight)
    else:
        layer.groups = 1
    return layer


def _dense(layer: Any) -> Tensor:
    """Return a layer's weight, that of grouped convolutions as one over all channels."""
    weight = layer.weight.detach()
    if (groups := getattr(layer, "groups", 1)) == 1:
        return cast(Tensor, weight)
    blocks, width = weight.chunk(groups), weight.shape[1]
    dense = weight.new_zeros(len(weight), width * groups, *weight.shape[2:])
    rows = dense.chunk(groups)
    for index, block in enumerate(blocks):
        rows[index][:, index * width : (index + 1) * width] = block
    return cast(Tensor, dense)


def _is_plain(layer: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Return whether calling a layer is no more than what its class says."""
    return type(layer) in kinds and not (layer._forward_hooks or layer._forward_pre_hooks)


def _check(model: Any) -> None:
    from metalearn.inner._t_net import TLayer  # which imports this package
    from metalearn.outer import MetaLearner

    example = "a module: learner.model, or learner.adapt(support)[0]"
    check_kind("collapse's model", model, nn.Module, "an nn.Module", example)
    for name, module in model.named_modules():
        if isinstance(module, MetaLearner):
            fix = "Write collapse(learner.model), or collapse(learner.adapt(support)[0])."
            raise invalid("collapse's model", "be a model", "a learner", fix)
        if isinstance(module, TLayer):
            for part in (*module.children(), module):
                if not _is_plain(part, nn.Linear, *CONVOLUTIONS, TLayer):
                    condition = "have plain layers, without hooks, where a T follows"
                    got = f"{type(part).__name__} in {name or 'the model itself'!r}"
                    fix = "Remove hooks and parametrizations first."
                    raise invalid("collapse's model", condition, got, fix)
